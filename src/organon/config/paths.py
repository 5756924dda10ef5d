"""Paths that users give: ``~`` and ``$USER`` expanded, absolute, relative to where the command runs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from organon.errors import ConfigError


def expand(path: str, where: str) -> Path:
    """The absolute path for a path from a config.

    Raises:
        ConfigError: CFG-054, an environment variable in it is not set.
    """
    for name in re.findall(r"\$\{?(\w+)\}?", path):
        if name not in os.environ:
            raise ConfigError(
                f"${name} is not set, in '{path}'",
                code="CFG-054",
                where=where,
                fix=f"export {name}=... or write it out",
            )
    return Path(os.path.expandvars(path)).expanduser().absolute()
