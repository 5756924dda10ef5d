"""K3, K4, K5: a worker that is killed anywhere and started again ends as one that nobody disturbed.

Each test kills a real process with SIGKILL. `before` is what an undisturbed run of the same spec leaves.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from organon.backends.lightning.workdir import Workdir

# Dropout, two micro-batches per step, two epochs of three steps, validation in the middle of an epoch.
HARD = {"dropout": 0.2, "epochs": 2, "run_val_every_n_steps": 2}

# Checkpoints are written at steps 2, 3 (epoch end), 4 and 6; validations run at steps 2, 3, 4 and 6.
POINTS = {
    "micro:1:1": 0,  # between two micro-batches of the first step: there is no checkpoint yet
    "step:5": 4,  # after the optimizer's step, before anything is written about it
    "checkpoint:2:before_rename": 2,  # step 3's epoch folder is there, its checkpoint is not
    "checkpoint:3:after_rename": 4,  # the older checkpoints are not removed yet
    "epoch_end:0": 2,  # the epoch's folder is renamed into place, no checkpoint follows
    "succeeding": 6,  # all is done but the last word
}
MORE_POINTS = {
    "micro:4:1": 3,
    "step:1": 0,
    "step:6": 4,
    "validation:1": 0,
    "checkpoint:1:before_rename": 0,
    "checkpoint:1:after_rename": 2,
    "checkpoint:4:before_rename": 4,
    "epoch_end:0:before_rename": 2,
    "epoch_end:1": 4,
}


@pytest.fixture(scope="module")
def before(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lab.train(lab.spec(**HARD), tmp_path_factory.mktemp("undisturbed"))


def assert_same(lab: Any, after: Path, before: Path) -> None:
    for epoch in (0, 1):
        assert lab.adapter(after, epoch) == lab.adapter(before, epoch)
    assert lab.final_state(after) == lab.final_state(before)  # the name holds the hash of weights and optimizer
    assert lab.metrics(after, times=False) == lab.metrics(before, times=False)
    assert (after / "metrics.csv").read_text().count("\n") == 1 + len(lab.metrics(before))
    assert not [p.name for p in after.iterdir() if p.name.startswith(".epoch")]


def kill_and_resume(lab: Any, before: Path, workdir: Path, point: str, resumed: int) -> None:
    spec = lab.spec(**HARD)
    assert lab.run(spec, workdir, kill_at=point) == -9
    assert lab.status(workdir)["state"] == "running"  # it had no time to say anything
    lab.train(spec, workdir)
    assert (lab.status(workdir)["resumed_from_step"] or 0) == resumed
    assert_same(lab, workdir, before)


@pytest.mark.parametrize(("point", "resumed"), POINTS.items())
def test_killed_run_ends_as_undisturbed_one(lab: Any, before: Path, tmp_path: Path, point: str, resumed: int) -> None:
    """K3, K4 (at most `checkpoint_every_n_steps` redone), K5."""
    kill_and_resume(lab, before, tmp_path, point, resumed)


@pytest.mark.slow
@pytest.mark.parametrize(("point", "resumed"), MORE_POINTS.items())
def test_killed_run_ends_as_undisturbed_one_at_more_points(
    lab: Any, before: Path, tmp_path: Path, point: str, resumed: int
) -> None:
    """K3."""
    kill_and_resume(lab, before, tmp_path, point, resumed)


def test_a_run_killed_again_and_again_counts_each_step_once(lab: Any, before: Path, tmp_path: Path) -> None:
    """K5."""
    spec = lab.spec(**HARD)
    for point in ("step:3", "validation:1", "checkpoint:1:after_rename", "step:6"):
        lab.run(spec, tmp_path, kill_at=point)
    lab.train(spec, tmp_path)
    steps = [row["step"] for row in lab.metrics(tmp_path)]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert_same(lab, tmp_path, before)


PLAIN = {"kind": "lora", "quantization": "none"}
VARIANTS: dict[str, dict[str, Any]] = {
    "qlora": {**HARD, "kind": "qlora", "quantization": "nf4"},  # dropout, two micro-batches a step, packed
    "full": {"kind": "full", "quantization": "none", "learning_rate": 1e-3, "weight_decay": 0.1, "micro_batch_size": 8},
    "everything": {
        **PLAIN,
        "dropout": 0.2,
        "epochs": 4,
        "learning_rate": 0.2,
        "schedule": "constant",
        "run_val_every_n_steps": 1,
        "early_stopping_patience": 2,
        "best_metric": "val/loss",
        "epochs_to_save": [0, 1],
        "save_adapter_weights_only": False,
        "stash_adapter_weights": True,
    },
}
MORE_VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {**PLAIN, "schedule": "linear", "micro_batch_size": 2},
    "padded": {**PLAIN, **HARD, "batching": "padded"},
    "bucketed": {**PLAIN, **HARD, "batching": "bucketed", "micro_batch_tokens": 60, "micro_batch_size": 8},
    "eight bits": {**PLAIN, **HARD, "optimizer": "adamw_8bit"},
    "noise": {**PLAIN, "neftune_noise_alpha": 5.0},
    "bf16": {**PLAIN, "precision": "bf16", "dropout": 0.1},
    "dora": {**PLAIN, "use_dora": True, "save_last_epoch_only": True},
}
KILLS, EVERY = 5, 2  # `checkpoint_every_n_steps` of the lab's specs


def kill_at_random(lab: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Kill a training at random points, again and again; each time it has ended, it is as an undisturbed one."""
    optimizer = changes.get("optimizer")
    spec = lab.spec(**{name: value for name, value in changes.items() if name != "optimizer"})
    if optimizer:
        spec = dataclasses.replace(spec, optim=dataclasses.replace(spec.optim, name=optimizer))
    before, trace = tmp_path / "undisturbed", tmp_path / "points"
    assert lab.run(spec, before, ORGANON_TRACE_POINTS=str(trace)) == 0, (before / "logs.txt").read_text()
    points = list(dict.fromkeys(trace.read_text().split("\n")[:-1]))
    random = Random(json.dumps(changes))
    killed, work = 0, tmp_path / "work-0"
    while killed < KILLS:
        code = lab.run(spec, work, kill_at=random.choice(points))
        assert code in (0, -9), (work / "logs.txt").read_text()
        logged = [row["step"] for row in lab.metrics(work)]
        assert logged == sorted(set(logged))  # K5
        if code == 0:
            assert_ends_as(lab, work, before)
            work = tmp_path / f"work-{killed}"
            continue
        killed += 1
        lost = (logged[-1] if logged else 0) - last_checkpoint(work)
        assert lost <= EVERY  # K4
    lab.train(spec, work)
    assert_ends_as(lab, work, before)


def last_checkpoint(workdir: Path) -> int:
    return max((int(file.name[:8]) for file in workdir.glob("checkpoints/*.safetensors")), default=0)


def assert_ends_as(lab: Any, after: Path, before: Path) -> None:
    """The same weights in the same folders, the same state, log and last words."""
    assert lab.final_state(after) == lab.final_state(before)
    assert lab.metrics(after, times=False) == lab.metrics(before, times=False)
    kept = [p for w in Workdir(before).weights() for p in sorted(w.rglob("*")) if p.is_file()]
    assert len(kept) >= 2
    for file in kept:
        assert (after / file.relative_to(before)).read_bytes() == file.read_bytes(), file
    assert {p.name for p in Workdir(after).weights()} == {p.name for p in Workdir(before).weights()}
    told = ("step", "tokens", "metrics", "best", "stopped_early")
    assert [lab.status(after).get(name) for name in told] == [lab.status(before).get(name) for name in told]
    assert not [p.name for p in after.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_at_random_points(lab: Any, tmp_path: Path, variant: str) -> None:
    """K3, K4, K5: of all the points that a training passes, those between two renames and of a merge among them."""
    kill_at_random(lab, tmp_path, VARIANTS[variant])


def test_killed_while_folders_take_each_others_place(lab: Any, tmp_path: Path) -> None:
    """K3: when there is neither the old nor the new one under its name."""
    spec, trace = lab.spec(**VARIANTS["everything"]), tmp_path / "points"
    before, after = tmp_path / "before", tmp_path / "after"
    assert lab.run(spec, before, ORGANON_TRACE_POINTS=str(trace)) == 0
    between = [point for point in trace.read_text().split("\n") if point.endswith(":between_renames")]
    best, merged = ([point for point in between if point.startswith(name)] for name in ("best", "merge"))
    assert best
    assert len(merged) == 3
    for point in (best[0], "epoch_end:0", "epoch_end:0:between_renames", *merged):  # its second time it takes a place
        assert lab.run(spec, after, kill_at=point) == -9, point
    lab.train(spec, after)
    assert_ends_as(lab, after, before)


@pytest.mark.slow
@pytest.mark.parametrize("variant", MORE_VARIANTS)
def test_killed_at_random_points_in_other_recipes(lab: Any, tmp_path: Path, variant: str) -> None:
    """K3, K4, K5."""
    kill_at_random(lab, tmp_path, MORE_VARIANTS[variant])


@pytest.mark.slow
def test_wandb_goes_on_with_the_same_run(lab: Any, tmp_path: Path) -> None:
    """The run's id is that of the key, so that a resumed training is no second one."""
    spec = lab.spec(wandb=True, project="study")
    environment = {"WANDB_API_KEY": "", "NETRC": str(tmp_path / "none")}
    assert lab.run(spec, tmp_path / "work", kill_at="step:5", **environment) == -9
    assert lab.run(spec, tmp_path / "work", **environment) == 0
    parts = list((tmp_path / "work" / "logs" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [part.name for part in parts] == ["run-0123456789abcdef.wandb"] * 2


def test_the_optimizer_state_decides(lab: Any, before: Path, tmp_path: Path) -> None:
    """That the hashes above tell: without the saved moments, a resumed run ends elsewhere."""
    from safetensors.torch import load_file, save_file

    from organon.store.keys import sha256_file

    spec = lab.spec(**HARD)
    assert lab.run(spec, tmp_path, kill_at="step:5") == -9
    newest = max((tmp_path / "checkpoints").iterdir())
    tensors, header = load_file(newest), _header(newest)
    emptied = {k: v for k, v in tensors.items() if not k.startswith("optimizer/")}
    newest.unlink()
    save_file(emptied, tmp_path / "new", header)
    (tmp_path / "new").rename(newest.with_name(f"00000004-{sha256_file(tmp_path / 'new')}.safetensors"))
    lab.train(spec, tmp_path)
    assert lab.adapter(tmp_path) != lab.adapter(before)


def test_damaged_checkpoint_falls_back_to_the_one_before_it(lab: Any, before: Path, tmp_path: Path) -> None:
    """K4, case 69."""
    spec = lab.spec(**HARD)
    assert lab.run(spec, tmp_path, kill_at="step:5") == -9
    newest = max((tmp_path / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    lab.train(spec, tmp_path)
    assert lab.status(tmp_path)["resumed_from_step"] == 3
    assert (tmp_path / "logs.txt").read_text().count("CKPT-069") == 1
    assert_same(lab, tmp_path, before)


def test_checkpoint_of_another_training_is_refused(lab: Any, tmp_path: Path) -> None:
    """Case 72."""
    assert lab.run(lab.spec(), tmp_path, kill_at="step:5") == -9
    assert lab.run(lab.spec(seed=1), tmp_path) == 1
    found = lab.status(tmp_path)
    assert found["state"] == "failed"
    assert found["code"] == "CKPT-072"


def test_only_trainable_weights_are_saved(lab: Any, before: Path) -> None:
    """A 4-bit base is never saved; two checkpoints are kept (rule 16)."""
    from safetensors.torch import load_file

    files = sorted((before / "checkpoints").iterdir())
    assert [f.name[:8] for f in files] == ["00000004", "00000006"]
    names = {name.split("/")[1] for name in load_file(files[-1])}
    assert names
    assert all("lora_" in name for name in names)


def _header(file: Path) -> dict[str, str]:
    raw = file.read_bytes()
    found: dict[str, str] = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    return found
