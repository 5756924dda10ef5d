"""The user's own code that a config names, as ``file.py:name`` or ``pkg.mod:name``.

``locate`` finds and hashes it without running any of it; ``load`` runs it, in the process that uses it.
A reference comes from the user's config alone, never from a dataset, a checkpoint or a request. The hash
is that of the one source file, which must define the name itself: what it imports must be installed and is
not hashed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from organon.config.paths import expand
from organon.errors import ConfigError, nearest

# Names within these are not the module's.
_BINDS_NOTHING = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class UserCode:
    """Where a name is defined. ``reference`` means the same in every folder; ``digest`` tells an edited file."""

    reference: str  # `/abs/file.py:name` or `pkg.mod:name`
    file: Path
    digest: str  # sha256 of the file's bytes

    @property
    def name(self) -> str:
        """The name that the file must define."""
        return self.reference.rpartition(":")[2]


def locate(reference: str, where: str) -> UserCode:
    """Find what ``reference`` names; ``where`` is the config key that holds it.

    Raises:
        ConfigError: CFG-053, there is no such file, module or name in it, the file only imports the name, or it
            is not Python.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise ConfigError(
            f"'{reference}' names no file or module with a name in it",
            code="CFG-053",
            where=where,
            fix="write file.py:Name or pkg.mod:Name",
        )
    is_file = place.endswith(".py")
    file = expand(place, where) if is_file else _module_file(place)
    if file is None or not file.is_file():
        cause = f"no file '{file}'" if is_file else f"no module '{place}' with a source file"
        by_file = f"{place.replace('.', '/')}.py:{name}"
        fix = (
            "a path starts at the folder of the command"
            if is_file
            else f"install it, put its folder on PYTHONPATH, or name the file: {by_file}"
        )
        raise ConfigError(cause, code="CFG-053", where=where, fix=fix)
    source = file.read_bytes()
    names, imported = _names(source, file, where)
    if name in imported and name not in names:
        raise ConfigError(
            f"{file} only imports '{name}', and an edit of the file that defines it would go unseen",
            code="CFG-053",
            where=where,
            fix=_home_of(imported[name], "" if is_file else place, file),
        )
    if name not in names:
        raise ConfigError(
            f"'{name}' is not in {file}.{nearest(name, names)} It defines {', '.join(names) or 'nothing'}",
            code="CFG-053",
            where=where,
            fix="name one of these",
        )
    return UserCode(f"{file if is_file else place}:{name}", file, hashlib.sha256(source).hexdigest())


def reference_of(target: str) -> str:
    """A ``_target_``, ``pkg.mod.Name`` or ``file.py:Name``, as a reference."""
    return target if ":" in target else ":".join(target.rpartition(".")[::2])


def absolute_target(target: str, where: str) -> str:
    """A ``_target_`` that means the same in every folder; of the forms only ``file.py:Name`` changes."""
    place, _, name = target.rpartition(":")
    return f"{expand(place, where)}:{name}" if place.endswith(".py") else target


def load(reference: str, where: str, *, digest: str) -> Any:
    """What ``reference`` names, after running its file, which must be the one that was located.

    Raises:
        ConfigError: CFG-053 as ``locate``, or running the file failed; CFG-028, the file has changed.
    """
    code = locate(reference, where)
    source = code.file.read_bytes()
    if hashlib.sha256(source).hexdigest() != digest:
        raise ConfigError(
            f"{code.file} has changed since the run was started (sha256 {digest[:12]} -> {code.digest[:12]})",
            code="CFG-028",
            where=where,
            fix="run the same command again: it is another run now; or undo the change to go on with this one",
        )
    place = reference.rpartition(":")[0]
    try:
        module = _run(source, code) if place.endswith(".py") else importlib.import_module(place)
        return getattr(module, code.name)
    except Exception as error:
        raise ConfigError(
            f"{code.file} cannot be loaded: {type(error).__name__}: {error}",
            code="CFG-053",
            where=where,
            fix=f"run `python {code.file}` to see where it fails",
        ) from error


def _run(source: bytes, code: UserCode) -> ModuleType:
    """The file as a module, made of the very bytes that were hashed."""
    module = ModuleType(f"organon_user_{code.file.stem}_{code.digest[:8]}")
    module.__file__ = str(code.file)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up there
    exec(compile(source, str(code.file), "exec", dont_inherit=True), module.__dict__)
    return module


def _names(source: bytes, file: Path, where: str) -> tuple[list[str], dict[str, str]]:
    """What the source defines at its top level, in order; what it imports, by its name here: module:name there."""
    try:
        pending: list[ast.AST] = [ast.parse(source, str(file))]
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigError(f"{file}{line} is not Python: {error}", code="CFG-053", where=where) from error
    found: dict[str, None] = {}
    imported: dict[str, str] = {}
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found[node.name] = None
        elif isinstance(node, ast.Import):
            imported |= {(alias.asname or alias.name).partition(".")[0]: f"{alias.name}:" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            imported |= {alias.asname or alias.name: f"{module}:{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = None
        elif not isinstance(node, _BINDS_NOTHING) and not (isinstance(node, ast.AnnAssign) and node.value is None):
            pending += reversed(list(ast.iter_child_nodes(node)))
    return list(found), imported


def _home_of(origin: str, place: str, file: Path) -> str:
    """How to name what is imported from ``origin`` by the module ``place`` (empty for a file) by its own module."""
    module, _, name = origin.partition(":")
    if not name or (module.startswith(".") and not place):
        return "name a function or class that the file itself defines"
    package = place if file.name == "__init__.py" else place.rpartition(".")[0]
    try:
        full = importlib.util.resolve_name(module, package) if module.startswith(".") else module
    except ImportError:  # more dots than packages
        return "name the module that defines it"
    return f"name the module that defines it: {full}:{name}"


def _module_file(module: str) -> Path | None:
    """The source file of an installed module; neither it nor its packages are imported."""
    names = module.split(".")
    if names[0] == "__main__":  # another one in the process that loads it
        return None
    spec = importlib.util.find_spec(names[0])
    for depth in range(2, len(names) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(names[:depth]), list(spec.submodule_search_locations))
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
