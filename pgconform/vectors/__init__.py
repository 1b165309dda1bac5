"""Vector search measured: what it should find, what it finds, what that costs. All but ``indexes`` needs numpy."""
