"""One real demo run, shared by the tests of the main job; about two minutes on two cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Organon = Callable[..., subprocess.CompletedProcess[str]]


def call(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``organon`` as a process in ``cwd``, without keys and without the network."""
    clean = {k: v for k, v in os.environ.items() if not k.endswith(("_KEY", "_TOKEN")) and k != "ORGANON_STORE"}
    return subprocess.run(
        [sys.executable, "-m", "organon.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**clean, "NO_COLOR": "1", "HF_HUB_OFFLINE": "1", **environment},
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """``organon run experiment=capitalization`` in an empty folder: folder, result, output."""
    folder = tmp_path_factory.mktemp("demo")
    done = call(folder, "run", "experiment=capitalization")
    assert done.returncode == 0, done.stderr
    (result_file,) = (folder / "outputs" / "runs").glob("*/result.json")
    return {
        "cwd": folder,
        "run": result_file.parent,
        "result": json.loads(result_file.read_text()),
        "stdout": done.stdout,
        "stderr": done.stderr,
    }
