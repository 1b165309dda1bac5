"""Vector search measured: what it should find, what it finds, what that costs. Needs numpy, the extra ``bench``."""
