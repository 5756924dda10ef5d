"""Ranks live and die together. Real processes, without torch: what they do in between does not matter here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from organon.backends.lightning import launch
from organon.backends.lightning.launch import Place, RankLost, log_name, place_of, ranks_started
from organon.backends.lightning.stop import Stopped
from organon.backends.lightning.workdir import Workdir
from organon.errors import DataError, TrainingError

RANK = """
import os, sys, time
from organon.backends.lightning.launch import follow_rank_0, place_of
follow_rank_0()
print("rank", place_of(os.environ).rank, "is here", flush=True)
{body}
"""
MAIN = """
import sys, time
from pathlib import Path
from organon.backends.lightning import launch
from organon.backends.lightning.workdir import Workdir
from tests.unit.backends.lightning.test_launch import spawner
launch.spawn = spawner("time.sleep(60)")
with launch.ranks_started(Workdir(Path(sys.argv[1])), 3, abandon=print):
    (Path(sys.argv[1]) / "started").touch()
    time.sleep(60)
"""


def spawner(body: str) -> object:
    """Stands for ``launch.spawn``: a process that does ``body``."""

    def spawn(workdir: Workdir, place: Place, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (workdir.path / log_name(place.rank)).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", RANK.format(body=body)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
            )

    return spawn


def never(lost: RankLost) -> None:
    raise lost


def until_there(path: Path, text: str = "") -> None:
    limit = time.monotonic() + 30
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < limit, path
        time.sleep(0.02)


def test_a_single_process_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "spawn", None)
    with ranks_started(Workdir(tmp_path), 1, abandon=never) as place:
        assert place == Place()


def test_ranks_are_told_where_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "spawn", spawner("print(sorted((k, v) for k, v in os.environ.items() if 'RANK' in k))"))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    with ranks_started(Workdir(tmp_path), 3, abandon=never) as place:
        assert (place.rank, place.world, place.local) == (0, 3, 0)
        assert place.listener is not None
        os.close(place.listener)
    for rank in (1, 2):
        text = (tmp_path / log_name(rank)).read_text()
        assert f"rank {rank} is here" in text
        assert f"('LOCAL_RANK', '{rank}')" in text
    assert place_of({**place.environment(), "RANK": "2"}).rank == 2


def test_a_rank_that_fails_ends_the_training_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 hears of it by an error of its own, from a broken connection, that explains nothing."""
    monkeypatch.setattr(launch, "spawn", spawner("sys.exit('the disk of rank 1 is on fire')"))

    def train() -> None:
        with ranks_started(Workdir(tmp_path), 2, abandon=never):
            until_there(tmp_path / log_name(1), "on fire")
            raise RuntimeError("Connection closed by peer")

    with pytest.raises(TrainingError) as caught:
        train()
    assert "rank 1 ended with exit code 1" in str(caught.value)
    assert "the disk of rank 1 is on fire" in str(caught.value)


def test_rank_0_that_waits_for_a_dead_rank_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "spawn", spawner("os.kill(os.getpid(), 9)"))
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.1)
    told: list[RankLost] = []

    def train() -> None:
        with ranks_started(Workdir(tmp_path), 2, abandon=told.append):
            limit = time.monotonic() + 30
            while not told and time.monotonic() < limit:
                time.sleep(0.02)

    with pytest.raises(TrainingError):
        train()
    assert "rank 1 died (signal 9, SIGKILL); the system may have been out of memory" in str(told[0])
    assert (told[0].killed, told[0].exit_code) == (True, 1)


@pytest.mark.parametrize("error", [DataError("row 7 is wrong"), Stopped()])
def test_what_rank_0_says_itself_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """All ranks read the same wrong row; rank 0's error is the one that is told."""
    monkeypatch.setattr(launch, "spawn", spawner("sys.exit(2)"))

    def train() -> None:
        with ranks_started(Workdir(tmp_path), 2, abandon=never):
            until_there(tmp_path / log_name(1), "is here")
            raise error

    with pytest.raises(type(error)) as caught:
        train()
    assert caught.value is error


def test_no_rank_outlives_an_error_of_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "spawn", spawner("time.sleep(60)"))
    children: list[psutil.Process] = []
    before = psutil.Process().children()  # other tests'

    def train() -> None:
        with ranks_started(Workdir(tmp_path), 3, abandon=never):
            children.extend(child for child in psutil.Process().children() if child not in before)
            raise DataError("row 7 is wrong")

    with pytest.raises(DataError):
        train()
    assert len(children) == 2
    assert not any(child.is_running() for child in children)


def test_killed_rank_0_leaves_no_orphans_and_signals_are_its_own(tmp_path: Path) -> None:
    """``kill -9``: nothing of ours runs any more in rank 0, so the others must notice by themselves."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    main = subprocess.Popen([sys.executable, "-c", MAIN, str(tmp_path)], env=environment)
    until_there(tmp_path / "started")
    children = psutil.Process(main.pid).children()
    for rank, child in enumerate(children, start=1):
        until_there(tmp_path / log_name(rank), "is here")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            child.send_signal(number)
    time.sleep(0.2)
    assert len(children) == 2
    assert all(child.is_running() for child in children)
    main.kill()
    main.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


# -- further nodes ------------------------------------------------------------------------------------


def test_a_leader_does_not_wait_for_a_rank_0_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ranks would: they are on their way to a store that nobody serves."""
    monkeypatch.setattr(launch, "spawn", spawner("time.sleep(60)"))
    monkeypatch.setattr(launch, "ignore_signals", lambda: None)
    monkeypatch.setattr(launch, "LISTENS_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(launch, "LAST_WORDS_SECONDS", 0.5)
    workdir = Workdir(tmp_path)
    server = socket.create_server(("127.0.0.1", 0))
    place = Place(world=2, nodes=2, port=server.getsockname()[1], meeting="first")
    workdir.write(launch.MEETING, dict(place.environment()))
    threading.Timer(1.5, server.close).start()
    began = time.monotonic()
    with pytest.raises(TrainingError, match="rank 0 has ended"):
        launch.serve_node(workdir, 1, "first")
    assert 1.5 < time.monotonic() - began < 20


def test_a_leader_joins_the_start_of_rank_0_that_it_was_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = Place(world=2, nodes=2, port=server.getsockname()[1], meeting="second")
        Workdir(tmp_path).write(launch.MEETING, dict(place.environment()))
        with pytest.raises(TrainingError, match="does not listen"):
            launch.serve_node(Workdir(tmp_path), 1, "first")


def test_a_rank_lost_on_another_node_is_worth_another_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.1)

    def train() -> None:
        with ranks_started(Workdir(tmp_path), 1, 2, abandon=never) as place:
            assert place.listener is not None
            os.close(place.listener)
            raise RuntimeError("[gloo] Connection closed by peer")

    with pytest.raises(RankLost, match="on another node") as caught:
        train()
    assert caught.value.killed
