"""One real demo run, shared by the tests of the main job; about two minutes on two cores."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.integration.main_job.process import call


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
