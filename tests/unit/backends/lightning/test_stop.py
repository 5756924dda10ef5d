"""Which signals a worker takes for "stop after a checkpoint", and which for "at once"."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import sys, time
from organon.backends.lightning.stop import Stopped, StopRequest
stop = StopRequest(abandon=lambda code: print(f"abandoned {code}", flush=True))
stop.install()
stop.saving = "loading" not in sys.argv
print("ready", flush=True)
time.sleep(float(sys.argv[1]))
try:
    stop.check()
except Stopped:
    print("checkpoint", flush=True)
    sys.exit(stop.exit_code)
"""
TERM, INT, USR1, USR2 = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2


def run(*numbers: signal.Signals, loading: bool = False) -> tuple[str, int]:
    """What a worker that gets these signals says, and its exit code."""
    command = [sys.executable, "-c", SCRIPT, str(0.3 + 0.1 * len(numbers)), *(["loading"] if loading else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    for number in numbers:
        if process.poll() is None:
            process.send_signal(number)
            time.sleep(0.1)
    out, _ = process.communicate(timeout=20)
    return out.strip(), process.returncode


@pytest.mark.parametrize(
    "numbers",
    [
        (TERM,),
        (USR1,),
        (USR2, USR1),
        (TERM, USR1),  # SLURM's to all processes of a step, then our caller's
        (USR1, TERM),  # the warning, then the time limit
    ],
)
def test_stops_after_a_checkpoint(numbers: tuple[signal.Signals, ...]) -> None:
    """K8, K11."""
    assert run(*numbers) == ("checkpoint", 143)


def test_interrupt_has_its_own_exit_code() -> None:
    assert run(INT) == ("checkpoint", 130)


@pytest.mark.parametrize("numbers", [(TERM, TERM), (USR1, INT), (USR1, TERM, TERM)])
def test_ends_at_once(numbers: tuple[signal.Signals, ...]) -> None:
    assert run(*numbers) == ("abandoned 143", 143)


def test_with_nothing_to_save_the_first_one_ends_it() -> None:
    assert run(USR1, loading=True) == ("abandoned 143", 143)
