"""Drafts a contract from what a live database looks like; every guess stands beside its reason."""
