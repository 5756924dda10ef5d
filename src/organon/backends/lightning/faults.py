"""Named points of the worker at which a test can kill it or take its memory away; nothing happens otherwise."""

from __future__ import annotations

import os
import signal

VARIABLE = "ORGANON_KILL_AT"  # one point
TRACE = "ORGANON_TRACE_POINTS"  # a file that gets the name of each point that is reached
NO_MEMORY = "ORGANON_NO_MEMORY_AT"  # points with commas between them; one that is named twice fails twice

process = ""  # of several ranks: what a point of this one begins with


def reached(point: str) -> None:
    """Die here, as by ``kill -9``, if ORGANON_KILL_AT names this point, such as ``step:5`` or ``rank1:step:5``.

    Raises torch.OutOfMemoryError here if ORGANON_NO_MEMORY_AT does.
    """
    if TRACE in os.environ:
        with open(os.environ[TRACE], "a", encoding="utf-8") as file:  # noqa: PTH123 - no import for it
            file.write(f"{process}{point}\n")
    if os.environ.get(VARIABLE) == process + point:
        os.kill(os.getpid(), signal.SIGKILL)
    left = os.environ.get(NO_MEMORY, "").split(",")
    if process + point in left:
        left.remove(process + point)
        os.environ[NO_MEMORY] = ",".join(left)
        _run_out_of_memory(point)


def _run_out_of_memory(point: str) -> None:
    import torch

    raise torch.OutOfMemoryError(f"injected at {point}")
