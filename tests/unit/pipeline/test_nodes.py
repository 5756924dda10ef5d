"""Which node this is, told by SLURM or by the user."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from organon.backends.lightning.launch import MEETING, Place, met
from organon.backends.lightning.workdir import Workdir
from organon.config.schema import TrainerConfig
from organon.errors import ConfigError, TrainingError
from organon.pipeline import nodes
from organon.pipeline.nodes import node_of

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
    from organon.config.schema import RunConfig

    config = RunConfig()
    config.trainer.num_nodes = 2
    monkeypatch.setenv("ORGANON_NODE_RANK", "0")
    assert nodes.take_part(config) is False
