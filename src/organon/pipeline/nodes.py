"""A training on several nodes, as seen from all but the first.

The same command runs on every node, with one store on a file system that they share:

    srun --nodes=2 --ntasks-per-node=1 organon train trainer=ddp trainer.devices=8 trainer.num_nodes=2 ...

or, without SLURM, with ORGANON_NODE_RANK=0, 1 ... on each. Node 0 trains and publishes as ever. The others
resolve the same config to the same key, wait for its rank 0, start their ranks, and end with them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from organon.backends.lightning.backend import LightningBackend, start_node
from organon.backends.lightning.launch import Place, met
from organon.backends.lightning.stop import REQUESTS
from organon.backends.lightning.workdir import Workdir
from organon.config.schema import RunConfig, TrainerConfig
from organon.errors import ConfigError, TrainingError
from organon.models.folder import ensure_available
from organon.pipeline.events import OnEvent, ignore
from organon.pipeline.train import Prepared, prepare

WAIT_SECONDS = 900.0  # for rank 0: it fetches the model, reads the data, starts Python on a slow disk
AGAIN_SECONDS = 60.0  # after a failure: node 0 may start the training again
LOOK_EVERY_SECONDS = 0.2
VARIABLE, SLURM_VARIABLE = "ORGANON_NODE_RANK", "SLURM_NODEID"


def node_of(trainer: TrainerConfig, environ: Mapping[str, str] = os.environ) -> int:
    """This node's number, from 0.

    Raises:
        ConfigError: CFG-058, there are several nodes and nothing says which this is, or not rightly.
    """
    if trainer.num_nodes == 1:
        return 0
    name = VARIABLE if VARIABLE in environ else SLURM_VARIABLE
    text = environ.get(name)
    if text is None or not text.isdecimal() or int(text) >= trainer.num_nodes:
        raise ConfigError(
            f"trainer.num_nodes={trainer.num_nodes}, and which of them this is cannot be told: {name} is "
            + ("not set" if text is None else f"{text}, and counts from 0"),
            code="CFG-058",
            where="trainer.num_nodes",
            fix=f"srun --nodes={trainer.num_nodes} --ntasks-per-node=1 organon train ..., "
            f"or the same command on each node with {VARIABLE}=0, 1 ...",
        )
    if name == SLURM_VARIABLE and environ.get("SLURM_LOCALID", "0") != "0":
        raise ConfigError(
            "SLURM has started several tasks on this node, and one is enough: it starts a process for each device",
            code="CFG-058",
            where="trainer.num_nodes",
            fix="srun --ntasks-per-node=1, or `#SBATCH --ntasks-per-node=1`",
        )
    return int(text)


def take_part(config: RunConfig, *, on_event: OnEvent = ignore, wait_seconds: float = WAIT_SECONDS) -> bool:
    """On a further node: take part in the training of ``config`` until it has ended, and True. On node 0: False.

    Raises:
        UserError: as ``organon.pipeline.train.prepare``.
        TrainingError: node 0 does not train, or the training failed.
        KeyboardInterrupt: a second Ctrl-C. Rank 0 heeds the first, with a checkpoint, and ends all others.
    """
    node = node_of(config.trainer)
    if node == 0:
        return False
    prepared = prepare(config)
    if not isinstance(prepared.backend.backend, LightningBackend):
        return True  # nothing of the training is on these nodes
    on_event("note", text=f"node {node} of {config.trainer.num_nodes}: waiting for node 0 ({prepared.key[:12]})")
    joined: Place | None = None
    while True:
        rank_0 = _rank_0(prepared, wait_seconds if joined is None else AGAIN_SECONDS, joined)
        if _published(prepared):
            on_event("note", text=f"node {node}: the training is in the store; nothing to do")
            return True
        if rank_0 is None:
            if joined is not None:
                raise TrainingError(_failed(prepared, node), where="training")
            raise _alone(prepared, node, wait_seconds)
        ensure_available(prepared.spec.base, needs_template=prepared.spec.dataset.format != "text")
        on_event("note", text=f"node {node}: {config.trainer.devices} ranks take part, and stop when rank 0 does")
        joined = rank_0
        if _lead(start_node(prepared.spec, _workdir(prepared), node, rank_0.meeting)) == 0:
            return True


def _rank_0(prepared: Prepared, seconds: float, joined: Place | None) -> Place | None:
    """Where rank 0 listens, if it does within ``seconds``, or until the result is published.

    Not the one that was ``joined`` before: one whose ranks have failed still listens while it is dying.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until and not _published(prepared):
        found = met(Workdir(_workdir(prepared)))
        if found is not None and (joined is None or found.meeting != joined.meeting):
            return found
        time.sleep(LOOK_EVERY_SECONDS)
    return None


def _lead(leader: subprocess.Popen[bytes]) -> int:
    """Wait for the leader's end; its exit code. After a signal and a failure, this process ends of the signal."""
    with _left_to_rank_0(leader) as received:
        code = leader.wait()
    if received and code:
        signal.raise_signal(received[0])
    return code


@contextlib.contextmanager
def _left_to_rank_0(leader: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Note the signals that ask to stop, which all nodes get; a second one kills the leader, and its ranks with it."""
    received: list[int] = []

    def note(number: int, _: object) -> None:
        # As in `stop`: SLURM's SIGTERM follows its warning signal, and is no second one then.
        if received and (number == signal.SIGINT or number in received) and number not in REQUESTS:
            leader.kill()
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, *REQUESTS)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _published(prepared: Prepared) -> bool:
    return prepared.store.place("runs", prepared.key).exists()


def _workdir(prepared: Prepared) -> Path:
    return prepared.backend.workdir(prepared.key)


def _failed(prepared: Prepared, node: int) -> str:
    place = _workdir(prepared)
    return f"the ranks of node {node} failed; node 0 tells why, and the logs are {place}/logs_rank*.txt"


def _alone(prepared: Prepared, node: int, seconds: float) -> TrainingError:
    return TrainingError(
        f"node {node} has waited {seconds:.0f} s for rank 0 of {prepared.key[:12]} to listen in {_workdir(prepared)}",
        where="training",
        fix="run the very same command on node 0, with the same store (ORGANON_STORE) on a file system that all "
        "nodes share, and nodes of one kind: other cores or GPUs give another key",
    )
