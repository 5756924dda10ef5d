"""Signals that ask the worker to stop: the first asks for a checkpoint, a second one ends the process at once.

SIGTERM and SIGINT come from people and from SLURM; SIGUSR1 and SIGUSR2 from SLURM before a time limit
(``--signal=USR1@60``), and SIGUSR1 from our own caller. SLURM signals all processes of a step, so the
worker often hears of one stop twice: from SLURM and from its caller. No torch.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

# Never a "second one": what ends at once is a second SIGTERM, or SIGINT after anything.
REQUESTS = (signal.SIGUSR1, signal.SIGUSR2)


class Stopped(Exception):
    """The training was asked to stop."""


class StopRequest:
    """Notes the signal that asks to stop. ``abandon`` is called with the exit code before an immediate end.

    While there is nothing to save (``saving`` is false: the model is still being loaded), the first
    signal ends the process at once too.
    """

    def __init__(self, abandon: Callable[[int], object] = lambda code: None) -> None:
        self.signal: int | None = None  # the first one
        self.saving = False
        self.abandon = abandon
        self._terminated = False

    def install(self) -> None:
        """Take over the signals."""
        for number in (signal.SIGTERM, signal.SIGINT, *REQUESTS):
            signal.signal(number, self._on_signal)

    def check(self) -> None:
        """Raises Stopped once a signal has come."""
        if self.signal is not None:
            raise Stopped

    @property
    def exit_code(self) -> int:
        """What a shell calls it: 130 for SIGINT, 143 for the others, which all stand for SIGTERM."""
        return 128 + (signal.SIGINT if self.signal == signal.SIGINT else signal.SIGTERM)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        at_once = (number == signal.SIGINT and self.signal is not None) or (
            number == signal.SIGTERM and self._terminated
        )
        self._terminated = self._terminated or number not in REQUESTS
        self.signal = self.signal or number
        if at_once or not self.saving:
            self.abandon(self.exit_code)
            os._exit(self.exit_code)
