"""Two processes train as one: the same losses, the same decisions, and the same end however they are interrupted.

Every test starts real processes, connected by gloo; none is simulated.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

# Ten rows of different lengths, four in a step: the last step has two, one for each rank.
PLAIN: dict[str, Any] = {"kind": "lora", "quantization": "none", "global_batch_size": 4, "epochs": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"kind": "full", "learning_rate": 1e-3, "weight_decay": 0.1},
    "qlora": {"kind": "qlora", "quantization": "nf4"},
}
# Dropout, so that each rank's own random numbers must come again; two micro-batches in each rank.
HARD: dict[str, Any] = {
    **{"kind": "lora", "quantization": "none", "dropout": 0.2, "devices": 2, "micro_batch_size": 2},
    **{"epochs": 2, "run_val_every_n_steps": 2},
}


@pytest.fixture(scope="module")
def before(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of two ranks."""
    return Path(lab.train(lab.spec(**HARD), tmp_path_factory.mktemp("undisturbed")))


def weights(workdir: Path, epoch: int = 1) -> dict[str, torch.Tensor]:
    (file,) = (workdir / f"epoch_{epoch}").glob("*model.safetensors")
    return dict(load_file(file))


def assert_close(lab: Any, found: Path, expected: Path) -> None:
    """Losses of every step within 1e-6, final weights within 1e-5."""
    for mine, other in zip(lab.metrics(found, times=False), lab.metrics(expected, times=False), strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            limit = 1e-6 if name.endswith("loss") else 1e-5
            assert value == pytest.approx(other[name], rel=limit), (name, mine["step"])
    ours, theirs = weights(found), weights(expected)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], rtol=0, atol=1e-5), name


def assert_same(lab: Any, after: Path, before: Path) -> None:
    """Byte for byte."""
    for epoch in (0, 1):
        assert lab.adapter(after, epoch) == lab.adapter(before, epoch)
    assert lab.final_state(after) == lab.final_state(before)
    assert lab.metrics(after, times=False) == lab.metrics(before, times=False)


def processes_of(workdir: Path) -> list[int]:
    """The living processes that write a log in ``workdir``."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(workdir) in file.path for file in process.open_files()):
                found.append(process.pid)
        except psutil.Error:
            pass
    return found


def assert_nobody_is_left(workdir: Path, seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while left := processes_of(workdir):
        assert time.monotonic() < until, left
        time.sleep(0.05)


def wait_for_step(lab: Any, workdir: Path, step: int) -> None:
    until = time.monotonic() + 60
    while not ((workdir / "status.json").exists() and lab.status(workdir)["step"] >= step):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks_train_as_one_process_however_it_accumulates(lab: Any, tmp_path: Path, variant: str) -> None:
    """Micro 4 x accumulate 1 = micro 1 x accumulate 4 = two ranks; validation rows are five, so unevenly dealt."""
    arguments = {**PLAIN, **VARIANTS[variant], "rows": lab.words(10), "validation": lab.words(5, start=100)}
    one = lab.train(lab.spec(**arguments, micro_batch_size=4), tmp_path / "one")
    accumulated = lab.train(lab.spec(**arguments, micro_batch_size=1), tmp_path / "accumulated")
    two = lab.train(lab.spec(**arguments, micro_batch_size=4, devices=2), tmp_path / "two")
    assert_close(lab, accumulated, one)
    assert_close(lab, two, one)
    assert "val/loss" in lab.metrics(two)[-1]


def test_ranks_without_rows_take_part(lab: Any, tmp_path: Path) -> None:
    """The last step of the epoch has one row, and there is one validation row: rank 1 has neither (issue 474)."""
    arguments = {**PLAIN, "rows": lab.words(5), "validation": lab.words(1, start=100), "run_val_every_n_steps": 1}
    one = lab.train(lab.spec(**arguments, micro_batch_size=4), tmp_path / "one")
    two = lab.train(lab.spec(**arguments, micro_batch_size=4, devices=2), tmp_path / "two")
    assert_close(lab, two, one)
    assert [row["step"] for row in lab.metrics(two) if "val/loss" in row] == [1, 2, 3, 4]


def test_only_rank_0_writes(lab: Any, before: Path) -> None:
    """Every step once in the log, the checkpoints of one process, each rank's own log, and no other folder."""
    assert [row["step"] for row in lab.metrics(before)] == [1, 2, 3, 4, 5, 6]
    assert sorted(p.name[:8] for p in (before / "checkpoints").iterdir()) == ["00000004", "00000006"]
    names = {path.name for path in before.iterdir()}
    assert {"logs.txt", "logs_rank1.txt"} <= names
    folders = {path.name for path in before.iterdir() if path.is_dir()}
    assert folders <= {"checkpoints", "epoch_0", "epoch_1", "logs"}
    assert lab.status(before)["state"] == "succeeded"
    assert_nobody_is_left(before)


def test_a_second_run_is_the_same_to_the_byte(lab: Any, before: Path, tmp_path: Path) -> None:
    assert_same(lab, lab.train(lab.spec(**HARD), tmp_path), before)


@pytest.mark.parametrize(
    ("point", "code", "resumed"),
    [
        ("micro:3:1", -9, 2),
        ("epoch_end:0", -9, 2),
        ("rank1:micro:5:1", 1, 4),
        ("rank1:validation:1", 1, 0),
    ],
)
def test_killed_ranks_resume_exactly(
    lab: Any, before: Path, tmp_path: Path, point: str, code: int, resumed: int
) -> None:
    """``kill -9`` of either rank ends the other too; the same command goes on to the same bytes."""
    spec = lab.spec(**HARD)
    assert lab.run(spec, tmp_path, kill_at=point) == code
    assert_nobody_is_left(tmp_path)
    if code == 1:
        error = lab.status(tmp_path)["error"]
        assert "rank 1 died (signal 9, SIGKILL)" in error
        assert str(tmp_path / "logs_rank1.txt") in error
        assert "training a model" in error  # the log's end
    lab.train(spec, tmp_path)
    assert (lab.status(tmp_path)["resumed_from_step"] or 0) == resumed
    assert_same(lab, tmp_path, before)


def test_a_stop_ends_all_ranks_with_a_checkpoint_to_go_on_from(lab: Any, tmp_path: Path) -> None:
    """SLURM signals every process of a job; rank 0 decides, and all end within five seconds."""
    spec = lab.spec(**{**HARD, "epochs": 20, "checkpoint_every_n_steps": 1000, "run_val_every_n_steps": 0})
    stopped = tmp_path / "stopped"
    process = lab.start(spec, stopped)
    wait_for_step(lab, stopped, 4)
    for pid in processes_of(stopped):
        os.kill(pid, signal.SIGTERM)
    began = time.monotonic()
    process.join(30)
    assert time.monotonic() - began < 5
    assert process.exitcode == 143
    status = lab.status(stopped)
    assert status["state"] == "cancelled"
    assert 4 <= int(lab.final_state(stopped)[:8]) < 60
    assert "Traceback" not in (stopped / "logs_rank1.txt").read_text()
    assert_nobody_is_left(stopped)
    lab.train(spec, stopped)
    assert lab.status(stopped)["resumed_from_step"] >= 4
    assert_same(lab, stopped, lab.train(spec, tmp_path / "undisturbed"))


def test_an_error_of_all_ranks_is_told_once(lab: Any, tmp_path: Path) -> None:
    """Both find no module of that name; rank 0's own words win over "rank 1 ended"."""
    assert lab.run(lab.spec(**{**HARD, "target_modules": ["nothing"]}), tmp_path) == 2
    status = lab.status(tmp_path)
    assert status["code"] == "CFG-059"
    assert "rank 1" not in status["error"]


def test_memory_that_one_rank_lacks_halves_the_micro_batches_of_all(lab: Any, tmp_path: Path) -> None:
    plain = lab.train(lab.spec(**PLAIN, devices=2), tmp_path / "plain")
    spec = lab.spec(**PLAIN, devices=2)
    assert lab.run(spec, tmp_path / "short", ORGANON_NO_MEMORY_AT="rank1:micro:2:0") == 0
    assert_close(lab, tmp_path / "short", plain)
    for log in ("logs.txt", "logs_rank1.txt"):
        assert "2 rows in a forward pass from here on, not 4" in (tmp_path / "short" / log).read_text()


def test_a_checkpoint_of_two_ranks_is_not_one_of_a_single_process(lab: Any, tmp_path: Path) -> None:
    assert lab.run(lab.spec(**HARD), tmp_path, kill_at="step:3") == -9
    assert_nobody_is_left(tmp_path)
    assert lab.run(lab.spec(**{**HARD, "devices": 1}), tmp_path) == 1
    status = lab.status(tmp_path)
    assert status["code"] == "CKPT-072"
    assert "trainer.devices is 2 there and 1 here" in status["error"]


def test_validation_every_n_steps_on_two_devices(lab: Any, before: Path) -> None:
    """CK-12 over ranks: at steps 2, 4, 6 and at the ends of epochs."""
    assert [row["step"] for row in lab.metrics(before) if "val/loss" in row] == [2, 3, 4, 6]


def test_data_goes_to_each_rank_once(lab: Any, before: Path) -> None:
    """All tokens are counted, and counted once."""
    from organon.config.spec import TrainSpec, from_dict

    spec = from_dict(TrainSpec, json.loads((before / "spec.json").read_text()))
    assert spec.trainer.devices == 2
    seen = lab.metrics(before)[-1]["tokens"]
    assert f"24 rows, {seen // 2} tokens" in (before / "logs.txt").read_text()


NODES = {**HARD, "devices": 1, "num_nodes": 2}


def test_two_nodes_train_as_two_devices_of_one(lab: Any, before: Path, tmp_path: Path) -> None:
    """The same numbers, to the byte, as two ranks of one machine; the leader of node 1 ends with its rank."""
    rank_0 = lab.start(lab.spec(**NODES), tmp_path, MASTER_ADDR="127.0.0.1")
    leader = lab.start_node(tmp_path, 1)
    for process in (rank_0, leader):
        process.join(60)
        assert process.exitcode == 0, (tmp_path / "logs.txt").read_text()
    assert lab.adapter(tmp_path) == lab.adapter(before)
    assert lab.metrics(tmp_path, times=False) == lab.metrics(before, times=False)
    assert not (tmp_path / "rank0.json").exists()
    assert_nobody_is_left(tmp_path)


def test_a_rank_lost_on_another_node_ends_the_training(lab: Any, tmp_path: Path) -> None:
    rank_0 = lab.start(lab.spec(**NODES), tmp_path, MASTER_ADDR="127.0.0.1")
    leader = lab.start_node(tmp_path, 1, kill_at="rank1:step:3")
    rank_0.join(30)
    leader.join(30)
    assert (rank_0.exitcode, leader.exitcode) == (1, 1)
    assert "a process on another node has ended" in lab.status(tmp_path)["error"]
    assert "rank 1 died (signal 9, SIGKILL)" in (tmp_path / "logs.txt").read_text()
    assert_nobody_is_left(tmp_path)


@pytest.mark.slow
def test_the_command_line_trains_on_two_processes_to_the_same_loss_as_on_one(tmp_path: Path) -> None:
    """The issue's third demonstration, with processes started as users start them. Hydra leaves no stray folders."""
    from tests.integration.main_job.process import call

    command = ("train", "model=tiny", "adapter=lora", "trainer.max_steps=3", "trainer.precision=32", "--json")
    results = []
    for trainer in (("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"), ("trainer=cpu",)):
        done = call(tmp_path, *command, *trainer)
        assert done.returncode == 0, done.stderr
        results.append(Path(json.loads(done.stdout)["folder"]))
    two, one = results
    assert (two / "logs_rank1.txt").exists()
    rows = [[json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in results]
    for ours, theirs in zip(*rows, strict=True):
        for name in ("train/loss", "grad_norm", "val/loss"):
            assert ours.get(name, 0) == pytest.approx(theirs.get(name, 0), rel=1e-5), (name, ours["step"])
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"store"}
    assert one != two
