"""Runs the async part of a verb so that Ctrl-C and SIGTERM both stop it cleanly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class TerminatedError(BaseException):
    """SIGTERM arrived; whatever was under way has stopped and kept its checkpoint."""


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``, with SIGTERM cancelling ``work`` as Ctrl-C does.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        TerminatedError: after SIGTERM.
    """
    return asyncio.run(_guarded(work))


async def _guarded(work: Coroutine[Any, Any, T]) -> T:
    task, loop, terminated = asyncio.current_task(), asyncio.get_running_loop(), False
    assert task is not None

    def stop() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        return await work
    except asyncio.CancelledError:
        if terminated:
            raise TerminatedError from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
