"""SIGTERM and SIGINT: the first asks for a checkpoint, the second ends the process at once. No torch."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType


class Stopped(Exception):
    """The training was asked to stop."""


class StopRequest:
    """Notes the signal that asks to stop. ``abandon`` is called with the exit code before an immediate end.

    While there is nothing to save (``saving`` is false: the model is still being loaded), the first
    signal ends the process at once too.
    """

    def __init__(self, abandon: Callable[[int], object] = lambda code: None) -> None:
        self.signal: int | None = None
        self.saving = False
        self.abandon = abandon

    def install(self) -> None:
        """Take over both signals."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def check(self) -> None:
        """Raises Stopped once a signal has come."""
        if self.signal is not None:
            raise Stopped

    @property
    def exit_code(self) -> int:
        """What a shell calls it: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + (self.signal or 0)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        again, self.signal = self.signal is not None, number
        if again or not self.saving:
            self.abandon(self.exit_code)
            os._exit(self.exit_code)
