"""A training as a SLURM job, with a ``scontrol`` that only notes what it is told. The real one: tests/slurm."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from tests.integration.main_job.process import call, start
from tests.integration.main_job.test_sweep_and_kill import wait_for_step

pytestmark = pytest.mark.slow

TRAINING = ("experiment=capitalization", "trainer.epochs=2", "eval=none", "logger=none")


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its calls; this process's children are job 14."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "14")
    return tmp_path / "calls"


def test_warned_job_goes_on_after_its_requeue(tmp_path: Path, scontrol: Path) -> None:
    """K8: caller and worker are signalled, as SLURM does it in a step."""
    process = start(tmp_path, "run", *TRAINING)
    status = wait_for_step(tmp_path, 6)
    os.kill(status["pid"], signal.SIGUSR1)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1, err
    assert "SLURM job 14 is requeued" in err
    assert scontrol.read_text() == "requeue 14\n"
    (record,) = (tmp_path / "outputs" / "runs").glob("*/result.json")
    assert json.loads(record.read_text())["state"] == "cancelled"
    done = call(tmp_path, "run", *TRAINING, "--json", SLURM_RESTART_COUNT="1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["train"]["resumed_from_step"] >= 6
