"""The installed packages against the versions that organon is made for. Nothing is imported but their metadata.

Nightly and development versions count: torch 2.14.0.dev20261101 fits ``torch>=2.8,<3``.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.version import InvalidVersion

from organon.errors import ConfigError

# What decides a training's numbers, and whether it runs at all: checked before each one.
TRAINING = ("torch", "transformers", "peft", "bitsandbytes", "lightning", "safetensors")


@dataclass(frozen=True)
class Package:
    """A package that organon needs: its installed version (None: not there) and the supported range."""

    name: str
    version: str | None
    supported: str  # as pip writes it: `>=2.8,<3`
    fits: bool

    @property
    def mend(self) -> str:
        """The command that installs a supported version."""
        return f'pip install "{self.name}{self.supported}"'


def packages(names: Iterable[str] | None = None) -> list[Package]:
    """organon's own requirements (``names``: only these), without those of its extras, in pyproject's order."""
    wanted = None if names is None else set(names)
    found = []
    for line in importlib.metadata.requires("organon") or []:
        requirement = Requirement(line)
        extra = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        if not extra and (wanted is None or requirement.name in wanted):
            found.append(_look(requirement))
    return found


def check_versions(names: Iterable[str] = TRAINING) -> None:
    """Refuse to train with versions that organon is not made for.

    Raises:
        ConfigError: CFG-060, naming each package, its version, the supported range and the pip line.
    """
    wrong = [package for package in packages(names) if not package.fits]
    if wrong:
        told = "; ".join(f"{p.name} {p.version or 'is not installed'} (supported: {p.supported})" for p in wrong)
        ranges = " ".join(f'"{p.name}{p.supported}"' for p in wrong)
        raise ConfigError(told, code="CFG-060", where="versions", fix=f"pip install {ranges}")


def _look(requirement: Requirement) -> Package:
    specifier = ",".join(sorted(str(requirement.specifier).split(","), key=lambda part: part.startswith("<")))
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Package(requirement.name, None, specifier, fits=False)
    try:
        fits = requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        fits = False
    return Package(requirement.name, version, specifier, fits)
