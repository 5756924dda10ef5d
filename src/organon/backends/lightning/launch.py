"""The processes of a training on several devices: the worker is rank 0 and starts the others. No torch.

Rank 0 alone has the lock, the signals and the status file. Every other rank reads the same ``spec.json``,
writes its log to ``logs_rank<n>.txt``, and ends with rank 0, however that ends: its standard input is a pipe
that only rank 0 holds open. If another rank dies, rank 0 says so and ends.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, Protocol

from organon.backends.lightning.stop import REQUESTS, Stopped
from organon.backends.lightning.workdir import Workdir
from organon.errors import OrganonError, TrainingError

WORKER = "organon.backends.lightning.worker"
LOOK_EVERY_SECONDS = 0.1
# What ends one rank mostly ends rank 0 too, which then says it better (bad config, diverged, disk full).
GRACE_SECONDS = 3.0
LAST_WORDS_SECONDS = 30.0  # of ranks whose work is done


class Process(Protocol):
    """What we use of ``subprocess.Popen``."""

    stdin: IO[bytes] | None

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


@dataclass(frozen=True)
class Place:
    """Where a process stands: ``rank`` of ``world``, device ``local`` of ``node``, and where rank 0 listens.

    ``listener``: rank 0's descriptor of the socket at ``host``:``port``. Bound before the others start, so
    that no other program can take the port in between.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    node: int = 0
    nodes: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    listener: int | None = None

    def environment(self) -> dict[str, str]:
        """For a process at this place, in the names that torchrun made common."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world),
            "LOCAL_RANK": str(self.local),
            "GROUP_RANK": str(self.node),
            "GROUP_WORLD_SIZE": str(self.nodes),
            "MASTER_ADDR": self.host,
            "MASTER_PORT": str(self.port),
        }


def place_of(environ: Mapping[str, str]) -> Place:
    """Undo ``Place.environment``."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE")
    rank, world, local, node, nodes = (int(environ[name]) for name in names)
    return Place(rank, world, local, node, nodes, environ["MASTER_ADDR"], int(environ["MASTER_PORT"]))


@contextmanager
def ranks_started(workdir: Workdir, world: int, *, abandon: Callable[[str, int], object]) -> Iterator[Place]:
    """Start ranks 1 to ``world - 1`` and give rank 0 its place; afterwards none of them lives.

    ``abandon`` is called from another thread, with an error and an exit code, if a rank has died and this
    process has not noticed within seconds: it must end the process.

    Raises:
        TrainingError: another rank died; its log's end.
    """
    if world == 1:
        yield Place()
        return
    crew = Crew(workdir)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            host, port = server.getsockname()[:2]
            for rank in range(1, world):
                crew.start(Place(rank, world, local=rank, host=host, port=port))
            threading.Thread(target=crew.watch, args=(abandon,), daemon=True).start()
            yield Place(0, world, host=host, port=port, listener=server.detach())
        crew.join()
    except (OrganonError, Stopped):
        raise
    except Exception as error:
        died = crew.obituary(wait_seconds=GRACE_SECONDS)
        if died is not None:
            raise TrainingError(died[0], where="training") from error
        raise
    finally:
        crew.end()


class Crew:
    """The ranks that this process has started."""

    def __init__(self, workdir: Workdir) -> None:
        self.workdir = workdir
        self.processes: dict[int, Process] = {}
        self._over = threading.Event()

    def start(self, place: Place) -> None:
        """Start the process at ``place``."""
        environment = {name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"}
        self.processes[place.rank] = spawn(self.workdir, place, {**environment, **place.environment()})

    def watch(self, abandon: Callable[[str, int], object]) -> None:
        """Until ``end``: look whether a rank has died, and after a while call ``abandon``."""
        while not self._over.wait(LOOK_EVERY_SECONDS):
            died = self.obituary()
            if died is not None and not self._over.wait(GRACE_SECONDS):
                abandon(*died)

    def obituary(self, wait_seconds: float = 0.0) -> tuple[str, int] | None:
        """The rank that died or failed, with its log's end, and the exit code that follows from its own."""
        until = time.monotonic() + wait_seconds
        while True:
            for rank, process in self.processes.items():
                code = process.poll()
                if code:  # 0: it is done
                    return self._obituary(rank, code), code if code in (1, 2) else 1
            if time.monotonic() >= until:
                return None
            time.sleep(LOOK_EVERY_SECONDS)

    def join(self) -> None:
        """Wait until all are done. Raises TrainingError if one was not."""
        for rank, process in self.processes.items():
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(LAST_WORDS_SECONDS)
                if code:
                    raise TrainingError(self._obituary(rank, code), where="training")

    def end(self) -> None:
        """Kill those that still live."""
        self._over.set()
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _obituary(self, rank: int, code: int) -> str:
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"died (signal {-code}, {signal.Signals(-code).name})"
            how += "; the system may have been out of memory" if code == -signal.SIGKILL else ""
        name = log_name(rank)
        tail = self.workdir.log_tail(name=name)
        place = self.workdir.path / name
        return f"rank {rank} {how}" + (f". Its log ({place}) ends:\n{tail}" if tail else f", without a word in {place}")


def log_name(rank: int) -> str:
    """The file in the workdir that rank ``rank`` (from 1) writes its log to."""
    return f"logs_rank{rank}.txt"


def spawn(workdir: Workdir, place: Place, environment: dict[str, str]) -> Process:
    """Start the process at ``place``. Its standard input is a pipe from this one."""
    with (workdir.path / log_name(place.rank)).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER, str(workdir.path), "--rank"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=workdir.path,
            env=environment,
        )


def follow_rank_0(standard_input: int = 0) -> None:
    """In the other ranks: end with rank 0, and leave the signals to it.

    SLURM and terminals signal all processes of a job; rank 0 decides for all.
    """
    for number in (signal.SIGTERM, signal.SIGINT, *REQUESTS):
        signal.signal(number, signal.SIG_IGN)

    def wait() -> None:
        while os.read(standard_input, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def leave_the_word_to_rank_0(action: Callable[[], Any]) -> None:
    """Do ``action`` unless rank 0 is gone, whose end breaks the connections of all others."""
    time.sleep(1.0)  # the thread of `follow_rank_0` ends this process first
    action()
