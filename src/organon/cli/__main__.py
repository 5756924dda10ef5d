"""``python -m organon.cli``."""

from organon.cli.main import entry_point

entry_point()
