"""The processes of a training on several devices: the worker is rank 0 and starts the others. No torch.

Rank 0 alone has the lock, the signals and the status file. Every other rank reads the same ``spec.json``,
writes its log to ``logs_rank<n>.txt``, and ends with rank 0, however that ends: its standard input is a pipe
that only rank 0 holds open. If another rank dies, rank 0 says so and ends.

On several nodes, which share the file system of the store, the same command runs on each. That of node 0
trains as ever, with rank 0 in its worker; it leaves in the workdir where rank 0 listens. Those of the others
(``organon.pipeline.nodes``) wait for that and have a leader (``serve_node``) start their node's ranks.
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
from dataclasses import dataclass, replace
from typing import IO, Any, Protocol
from uuid import uuid4

from loguru import logger

from organon.backends.lightning.stop import REQUESTS, Stopped
from organon.backends.lightning.workdir import Workdir
from organon.errors import OrganonError, TrainingError

WORKER = "organon.backends.lightning.worker"
MEETING = "rank0.json"  # where rank 0 listens, for other nodes
LOOK_EVERY_SECONDS = 0.1
# What ends one rank mostly ends rank 0 too, which then says it better (bad config, diverged, disk full).
GRACE_SECONDS = 3.0
LAST_WORDS_SECONDS = 30.0  # of ranks whose work is done, or whose rank 0 has gone
LISTENS_EVERY_SECONDS = 2.0  # how often a further node looks whether rank 0 is still there
CONNECTION_WORDS = ("gloo", "NCCL", "Connection closed", "Connection reset")


class RankLost(TrainingError):
    """Another rank has failed, or was ``killed``. ``exit_code``: 2 if it is the user's input."""

    killed = False


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
    that no other program can take the port in between. ``meeting``: of several nodes, this start of rank 0
    and no other, since one that is dying still listens for seconds.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    node: int = 0
    nodes: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    listener: int | None = None
    meeting: str = ""

    @property
    def devices(self) -> int:
        """Ranks on each node."""
        return self.world // self.nodes

    def of(self, node: int, local: int) -> Place:
        """The place at device ``local`` of ``node``."""
        return replace(self, rank=node * self.devices + local, local=local, node=node, listener=None)

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
            "ORGANON_MEETING": self.meeting,
        }


def place_of(environ: Mapping[str, str]) -> Place:
    """Undo ``Place.environment``."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE")
    rank, world, local, node, nodes = (int(environ[name]) for name in names)
    return Place(
        rank, world, local, node, nodes, environ["MASTER_ADDR"], int(environ["MASTER_PORT"]),
        meeting=environ.get("ORGANON_MEETING", ""),
    )  # fmt: skip


@contextmanager
def ranks_started(
    workdir: Workdir, devices: int, nodes: int = 1, *, abandon: Callable[[RankLost], object]
) -> Iterator[Place]:
    """Start this node's other ranks and give rank 0 its place; afterwards none of them lives.

    ``abandon`` is called from another thread if a rank has died and this process has not noticed within
    seconds: it must end the process.

    Raises:
        RankLost: another rank died; its log's end.
    """
    if devices * nodes == 1:
        yield Place()
        return
    crew = Crew(workdir)
    try:
        with socket.create_server(("" if nodes > 1 else "127.0.0.1", 0)) as server:
            host, port = _address() if nodes > 1 else "127.0.0.1", server.getsockname()[1]
            meeting = uuid4().hex if nodes > 1 else ""
            first = Place(world=devices * nodes, nodes=nodes, host=host, port=port, meeting=meeting)
            for local in range(1, devices):
                crew.start(first.of(0, local))
            if nodes > 1:
                workdir.write(MEETING, dict(first.environment()))
                logger.info("rank 0 listens at {}:{} for {} further nodes", host, port, nodes - 1)
            threading.Thread(target=crew.watch, args=(abandon,), daemon=True).start()
            yield replace(first, listener=server.detach())
        crew.join()
    except (OrganonError, Stopped):
        raise
    except Exception as error:
        lost = crew.lost(wait_seconds=GRACE_SECONDS)
        if lost is not None:
            raise lost from error
        if nodes > 1 and any(word in str(error) for word in CONNECTION_WORDS):
            elsewhere = RankLost(
                f"a process on another node has ended; the logs are {workdir.path}/logs_rank*.txt ({error})",
                where="training",
            )
            elsewhere.killed = True  # what a rank finds wrong itself, rank 0 mostly finds too, and says
            raise elsewhere from error
        raise
    finally:
        crew.end()
        (workdir.path / MEETING).unlink(missing_ok=True)


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

    def watch(self, abandon: Callable[[RankLost], object]) -> None:
        """Until ``end``: look whether a rank has died, and after a while call ``abandon``."""
        while not self._over.wait(LOOK_EVERY_SECONDS):
            lost = self.lost()
            if lost is not None and not self._over.wait(GRACE_SECONDS):
                abandon(lost)

    def lost(self, wait_seconds: float = 0.0) -> RankLost | None:
        """A rank that died or failed, with its log's end; None if there is none within ``wait_seconds``."""
        until = time.monotonic() + wait_seconds
        while True:
            for rank, process in self.processes.items():
                code = process.poll()
                if code:  # 0: it is done
                    return self._obituary(rank, code)
            if time.monotonic() >= until:
                return None
            time.sleep(LOOK_EVERY_SECONDS)

    def join(self) -> None:
        """Wait until all are done. Raises RankLost if one was not."""
        for rank, process in self.processes.items():
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(LAST_WORDS_SECONDS)
                if code:
                    raise self._obituary(rank, code)

    def end(self) -> None:
        """Kill those that still live."""
        self._over.set()
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _obituary(self, rank: int, code: int) -> RankLost:
        name = log_name(rank)
        tail = self.workdir.log_tail(name=name)
        place = self.workdir.path / name
        words = f". Its log ({place}) ends:\n{tail}" if tail else f", without a word in {place}"
        lost = RankLost(f"rank {rank} {ending(code)}{words}", where="training")
        lost.killed, lost.exit_code = code < 0, code if code in (1, 2) else 1
        return lost


def ending(code: int) -> str:
    """How a process ended, by its exit code, negative for a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    how = f"died (signal {-code}, {signal.Signals(-code).name})"
    return how + ("; the system may have been out of memory" if code == -signal.SIGKILL else "")


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
    """In the other ranks: end with the process that started this one, and leave the signals to rank 0.

    SLURM and terminals signal all processes of a job; rank 0 decides for all.
    """
    ignore_signals()

    def wait() -> None:
        while os.read(standard_input, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def ignore_signals() -> None:
    """Those that ask to stop: rank 0 gets them too, and tells all others."""
    for number in (signal.SIGTERM, signal.SIGINT, *REQUESTS):
        signal.signal(number, signal.SIG_IGN)


def leave_the_word_to_rank_0(action: Callable[[], Any]) -> None:
    """Do ``action`` unless rank 0 is gone, whose end breaks the connections of all others."""
    time.sleep(1.0)  # the thread of `follow_rank_0` ends this process first
    action()


# -- further nodes ------------------------------------------------------------------------------------


def met(workdir: Workdir) -> Place | None:
    """Rank 0's place, if it listens for other nodes now."""
    found = workdir.read(MEETING)
    if found is None:
        return None
    place = place_of(found)
    try:
        socket.create_connection((place.host, place.port), timeout=5.0).close()
    except OSError:  # it has ended, or is not to be reached yet
        return None
    return place


def serve_node(workdir: Workdir, node: int, meeting: str = "") -> int:
    """Lead a further node: start its ranks, and wait for their end; the exit code.

    ``meeting``: the only start of rank 0 to join, if it is given.

    Raises:
        TrainingError: rank 0 does not listen, or does no longer.
        RankLost: a rank of this node died.
    """
    first = met(workdir)
    if first is None or meeting not in ("", first.meeting):
        raise TrainingError(f"rank 0 does not listen in {workdir.path}", where="training")
    ignore_signals()
    crew = Crew(workdir)
    try:
        for local in range(first.devices):
            crew.start(first.of(node, local))
        heard = looked = time.monotonic()  # of rank 0
        while any(process.poll() is None for process in crew.processes.values()):
            lost = crew.lost(LOOK_EVERY_SECONDS)
            if lost is not None:
                raise lost
            # Ranks that wait for one another to connect would do so for 15 minutes after rank 0 has died.
            if time.monotonic() - looked > LISTENS_EVERY_SECONDS:
                looked = time.monotonic()
                heard = looked if met(workdir) == first else heard
            if time.monotonic() - heard > LAST_WORDS_SECONDS:
                raise TrainingError("rank 0 has ended, and the ranks of this node have not", where="training")
    finally:
        crew.end()
    return 0


def _address() -> str:
    """The name of this machine for the other nodes."""
    return os.environ.get("MASTER_ADDR") or os.environ.get("SLURMD_NODENAME") or socket.gethostname()
