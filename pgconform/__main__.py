"""``python -m pgconform``."""

from pgconform.cli import main

raise SystemExit(main())
