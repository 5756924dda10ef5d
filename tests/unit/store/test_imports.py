"""The store answers a hit without heavy imports."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

CODE = """
import sys
import organon.store
assert "sqlite3" not in sys.modules and "loguru" not in sys.modules
import organon.store.cache, organon.store.maintenance, organon.store.motools
assert "loguru" not in sys.modules
from pathlib import Path
store = organon.store.Store(Path(sys.argv[1]))
(store.staging("runs", "a") / "x").write_text("1")
store.publish("runs", "a", store.staging("runs", "a"))
assert store.find("runs", "a")
heavy = {"torch", "numpy", "transformers", "inspect_ai", "pandas", "wandb", "matplotlib", "hydra", "omegaconf"}
found = heavy & {name.split(".")[0] for name in sys.modules}
assert not found, found
"""


def test_no_heavy_import(python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: object) -> None:
    """MO-06; the cache-hit path imports none of torch, numpy, inspect_ai, pandas, wandb, matplotlib."""
    done = python(CODE, str(tmp_path))
    assert done.returncode == 0, done.stderr
