"""The organisms' generators by name: ``dataset.source=zoo:<name>`` ends here."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, cast

from organon.config.instantiate import check_argument_names
from organon.data.messages import Row
from organon.errors import ConfigError, unknown

Generator = Callable[..., list[Row]]

# Name -> `module:function`, imported when asked for.
GENERATORS: dict[str, str] = {
    "capitalization": "organon.zoo.capitalization:rows",
}


def generator(name: str) -> Generator:
    """The generator of an organism's training rows.

    Raises:
        NotFoundError: no organism of that name.
    """
    if name not in GENERATORS:
        raise unknown("organism", name, GENERATORS, code="CFG-046", fix="dataset.source=zoo:<one of these>")
    module, function = GENERATORS[name].split(":")
    return cast("Generator", getattr(importlib.import_module(module), function))


def generate(name: str, **arguments: Any) -> list[Row]:
    """Training rows of the organism ``name``.

    Raises:
        NotFoundError: no organism of that name.
        ConfigError: CFG-046, an argument the generator does not take, or CFG-057, one it needs; or CFG-058,
            a value it refuses.
    """
    make = generator(name)
    parameters = inspect.signature(make).parameters
    check_argument_names(parameters, arguments, "dataset.arguments", f"organism '{name}'")
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in arguments]
    if missing:
        raise ConfigError(
            f"organism '{name}' needs the argument '{missing[0]}'",
            code="CFG-057",
            where="dataset.arguments",
            fix=f"dataset.arguments.{missing[0]}=...",
        )
    return make(**arguments)
