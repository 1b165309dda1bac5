"""What all sections of a contract are made from."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(ge=0, le=1, description="a share between 0 and 1")]
# What PostgreSQL's own limits of time are.
Milliseconds = Annotated[int, Meta(ge=1, le=2_147_483_647)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of the contract file; an unknown key is an error."""
