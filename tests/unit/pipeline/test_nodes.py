"""Which node this is, told by SLURM or by the user."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from organon.backends.cached import CachedBackend
from organon.backends.lightning.backend import LightningBackend
from organon.backends.lightning.launch import MEETING, Place, met
from organon.backends.lightning.workdir import Workdir
from organon.config.schema import ModelConfig, RunConfig, TrainerConfig
from organon.config.spec import BaseModel, TrainSpec
from organon.errors import ConfigError, TrainingError
from organon.pipeline import nodes
from organon.pipeline.nodes import node_of
from organon.pipeline.train import Prepared
from organon.store.store import Store

TWO = TrainerConfig(num_nodes=2)


def test_a_single_node_needs_no_variables() -> None:
    assert node_of(TrainerConfig(), {"SLURM_NODEID": "7"}) == 0


@pytest.mark.parametrize(
    ("environ", "node"),
    [
        ({"ORGANON_NODE_RANK": "1"}, 1),
        ({"SLURM_NODEID": "0", "SLURM_LOCALID": "0"}, 0),
        ({"SLURM_NODEID": "1"}, 1),
        ({"SLURM_NODEID": "0", "ORGANON_NODE_RANK": "1"}, 1),
    ],
)
def test_the_environment_says_which_node_this_is(environ: dict[str, str], node: int) -> None:
    assert node_of(TWO, environ) == node


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "SLURM_NODEID is not set"),
        ({"ORGANON_NODE_RANK": "2"}, "ORGANON_NODE_RANK is 2, and counts from 0"),
        ({"ORGANON_NODE_RANK": "first"}, "ORGANON_NODE_RANK is first"),
        ({"SLURM_NODEID": "1", "SLURM_LOCALID": "1"}, "several tasks on this node"),
    ],
)
def test_what_cannot_be_told_is_refused(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        node_of(TWO, environ)
    assert "--ntasks-per-node=1" in caught.value.fix


def test_rank_0_is_met_while_it_listens(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    assert met(workdir) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = Place(world=4, nodes=2, port=server.getsockname()[1])
        workdir.write(MEETING, dict(place.environment()))
        assert met(workdir) == place
    assert met(workdir) is None  # left by a rank 0 that was killed


def test_a_node_left_alone_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from organon.config.compose import compose

    monkeypatch.setenv("ORGANON_NODE_RANK", "1")
    monkeypatch.setattr(nodes, "LOOK_EVERY_SECONDS", 0.05)
    overrides = [
        "model=tiny",
        "trainer=ddp",
        "trainer.num_nodes=2",
        "trainer.accelerator=cpu",
        f"output_dir={tmp_path}",
    ]
    config = compose("train", overrides)
    began = time.monotonic()
    with pytest.raises(TrainingError, match="node 1 has waited 0 s for rank 0") as caught:
        nodes.take_part(config, wait_seconds=0.2)
    assert "ORGANON_STORE" in caught.value.fix
    assert time.monotonic() - began < 30


def test_node_0_trains_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig()
    config.trainer.num_nodes = 2
    monkeypatch.setenv("ORGANON_NODE_RANK", "0")
    assert nodes.take_part(config) is False


# -- one training, several starts of rank 0 ------------------------------------------------------------


class Node:
    """A further node whose leaders are processes that do what ``leaders`` say, one after another."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = TrainSpec(BaseModel(name="tiny", digest="d" * 64), "a" * 64, None, ModelConfig(name="tiny"))
        store = Store.open(tmp_path / "store")
        self.prepared = Prepared(spec, "f" * 64, CachedBackend(LightningBackend(), store), store)
        self.workdir = Workdir(store.staging("runs", self.prepared.key))
        self.leaders: list[str] = []
        self.joined: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.config = RunConfig()
        self.config.trainer.num_nodes = 2
        monkeypatch.setenv("ORGANON_NODE_RANK", "1")
        monkeypatch.setattr(nodes, "prepare", lambda config: self.prepared)
        monkeypatch.setattr(nodes, "ensure_available", lambda base, **_: None)
        monkeypatch.setattr(nodes, "start_node", self.start)
        monkeypatch.setattr(nodes, "LOOK_EVERY_SECONDS", 0.02)
        monkeypatch.setattr(nodes, "AGAIN_SECONDS", 0.5)

    def start(self, spec: TrainSpec, workdir: Path, node: int, meeting: str) -> subprocess.Popen[bytes]:
        self.joined.append(meeting)
        self.processes.append(subprocess.Popen([sys.executable, "-c", self.leaders.pop(0)]))
        return self.processes[-1]

    @contextmanager
    def rank_0(self, meeting: str) -> Iterator[None]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            place = Place(world=2, nodes=2, port=server.getsockname()[1], meeting=meeting)
            self.workdir.write(MEETING, dict(place.environment()))
            yield


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


def test_a_rank_0_that_is_dying_is_not_joined_again(node: Node) -> None:
    """It listens for seconds after it has lost a rank; ranks that join it then wait for 15 minutes."""
    node.leaders = ["raise SystemExit(1)"] * 3
    with node.rank_0("first"), pytest.raises(TrainingError, match="the ranks of node 1 failed"):
        nodes.take_part(node.config)
    assert node.joined == ["first"]


def test_the_next_start_of_rank_0_is_joined(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "AGAIN_SECONDS", 20.0)
    node.leaders = ["raise SystemExit(1)", ""]
    with ExitStack() as stack:
        stack.enter_context(node.rank_0("first"))
        timer = threading.Timer(1.5, lambda: stack.enter_context(node.rank_0("second")))
        timer.start()
        assert nodes.take_part(node.config)
        timer.join()
    assert node.joined == ["first", "second"]


def signalled(node: Node, *numbers: int) -> list[float]:
    """Signals to this process once a leader runs; when each was sent."""
    sent: list[float] = []

    def send() -> None:
        while not node.processes:
            time.sleep(0.01)
        for number in numbers:
            time.sleep(0.3)
            sent.append(time.monotonic())
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    return sent


def test_the_first_signal_is_rank_0s_and_the_second_ends_the_node(node: Node) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    node.leaders = ["import time; time.sleep(60)"]
    sent = signalled(node, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
    noted: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: noted.append(number))
    try:
        with node.rank_0("first"), pytest.raises(TrainingError):
            nodes.take_part(node.config)
    finally:
        signal.signal(signal.SIGUSR1, before[2])
    assert noted == [signal.SIGUSR1]  # the first one: this process ends of it, where nobody takes it
    assert node.processes[0].returncode == -signal.SIGKILL
    assert len(sent) == 3
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_ctrl_c_twice_interrupts(node: Node) -> None:
    node.leaders = ["import time; time.sleep(60)"]
    signalled(node, signal.SIGINT, signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits an ignored one
    try:
        with node.rank_0("first"), pytest.raises(KeyboardInterrupt):
            nodes.take_part(node.config)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_stop_that_rank_0_heeds_is_no_failure(node: Node) -> None:
    node.leaders = ["import time; time.sleep(1)"]
    signalled(node, signal.SIGTERM)
    with node.rank_0("first"):
        assert nodes.take_part(node.config)
