"""The process that trains: ``python -m organon.backends.lightning.worker <workdir> [lock descriptor]``.

Reads ``spec.json`` and ``job.json``, holds the lock, keeps ``status.json`` up to date, and ends with an
exit code: 0 succeeded, 1 failed, 2 the user's input, 130 or 143 stopped by a signal.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from loguru import logger

from organon.backends.lightning.faults import reached
from organon.backends.lightning.stop import Stopped, StopRequest
from organon.backends.lightning.workdir import JOB, SPEC, STATUS, Workdir, sign
from organon.config.spec import TrainSpec, from_dict
from organon.errors import OrganonError
from organon.redact import redact

WRITE_EVERY_SECONDS = 0.2
LOCKED_EXIT_CODE = 1


class Status:
    """``status.json``: what the caller sees of this worker. Written at each change of phase, else now and then."""

    def __init__(self, workdir: Workdir) -> None:
        self.workdir = workdir
        self.fields: dict[str, Any] = {
            "state": "running",
            "phase": "starting",
            "step": 0,
            "total_steps": None,
            "metrics": {},
            "error": None,
            "exit_code": None,
            "pid": os.getpid(),
            "started_at": time.time(),
            "resumed_from_step": None,
        }
        self._written = 0.0
        self.report()

    def report(self, **fields: Any) -> None:
        """Set fields; the file follows at once if the phase changes, else every 0.2 s."""
        urgent = fields.get("phase", self.fields["phase"]) != self.fields["phase"]
        self.fields |= fields
        if urgent or time.monotonic() - self._written > WRITE_EVERY_SECONDS:
            self.write(durable=False)

    def finish(self, state: str, exit_code: int, error: str | None = None, code: str | None = None) -> int:
        """The final state, durably; returns ``exit_code``."""
        self.fields |= {"state": state, "phase": state, "exit_code": exit_code, "error": error, "code": code}
        self.fields["ended_at"] = time.time()
        self.write(durable=True)
        return exit_code

    def write(self, *, durable: bool) -> None:
        """Replace the file."""
        self.fields["updated_at"] = time.time()
        self.fields["peak_memory_bytes"] = _peak_memory_bytes(self.fields.get("device"))
        self.workdir.write(STATUS, self.fields, durable=durable)
        self._written = time.monotonic()


def run(workdir: Workdir) -> int:
    """Train what the workdir asks for, with signals and status; the exit code. The lock is held by the caller."""
    status = Status(workdir)
    stop = StopRequest(abandon=lambda code: status.finish("cancelled", code))
    stop.install()
    try:
        job = workdir.read(JOB) or {}
        spec = from_dict(TrainSpec, workdir.read(SPEC) or {})
        status.report(phase="importing")
        _prepare_libraries()
        # Takes seconds: by now the caller has seen the phase.
        from organon.backends.lightning.training import train

        train(spec, job["key"], workdir, report=status.report, stop=stop)
        reached("succeeding")
        return status.finish("succeeded", 0)
    except Stopped:
        logger.info("stopped by a signal, after a checkpoint")
        return status.finish("cancelled", stop.exit_code)
    except OrganonError as error:
        logger.opt(exception=True).debug("the training failed")
        logger.error("{}", redact(str(error)))
        status.fields |= {name: redact(getattr(error, name)) for name in ("cause", "where", "fix")}
        return status.finish("failed", error.exit_code, redact(str(error)), error.code)
    except Exception as error:  # noqa: BLE001 - the last resort: the caller must learn of it
        logger.opt(exception=True).error("the training failed")
        return status.finish("failed", 1, redact(f"{type(error).__name__}: {error}"))


def main(arguments: list[str]) -> int:
    """Entry point; the second argument is the descriptor of the lock, if the caller has taken it for us."""
    _log_to_stderr()
    workdir = Workdir(Path(arguments[0]).absolute())
    lock = int(arguments[1]) if len(arguments) > 1 else workdir.lock()
    if lock is None:
        logger.error("another worker (process {}) is at work in {}", workdir.holder() or "unknown", workdir.path)
        return LOCKED_EXIT_CODE
    sign(lock)
    return run(workdir)


def _prepare_libraries() -> None:
    """What must be set before torch and its kind are imported."""
    # Threads that wait for one another by spinning make a step on a busy machine 5 to 10 times slower
    # (measured: 2 threads, load 5 on 2 cores, median 4.4 s against 0.33 s); results do not change.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises to fetch kernels from the hub


def _log_to_stderr() -> None:
    """Which is the job's ``logs.txt``. Tracebacks without the values of variables: rows may be private."""

    def clean(record: Any) -> None:
        record["message"] = redact(record["message"])

    logger.remove()
    logger.configure(patcher=clean)
    level = os.environ.get("ORGANON_LOG", "INFO").upper()
    logger.add(sys.stderr, level=level, format="{time:HH:mm:ss} {level: <7} {message}", diagnose=False, backtrace=False)


def _peak_memory_bytes(device: str | None) -> int:
    """The most memory in use so far: on the GPU, or resident in this process."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.stderr.flush()
    # The final status is written: whoever publishes the folder must not see its log change any more.
    os._exit(exit_code)
