"""The training benchmarks: arguments, counting of tokens, what is measured of a process, the table's arithmetic."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(BENCHMARKS))
    names = ("common", "training", "gpu_training")
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(BENCHMARKS))
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def training(scripts: dict[str, ModuleType]) -> Any:
    return scripts["training"]


@pytest.fixture
def common(scripts: dict[str, ModuleType]) -> Any:
    return scripts["common"]


def steps(*tokens: int, seconds: float = 1.0, padded: float = 2.0) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl: each step takes ``seconds`` and its tokens; the loss falls."""
    rows, done = [], 0
    for number, count in enumerate(tokens, start=1):
        done += count
        rows.append(
            {
                "step": number,
                "time": 100 + seconds * number,
                "tokens": done,
                "positions": padded * done,
                "train/loss": 7.0 - 0.1 * number,
                "grad_norm": 1.0,
            }
        )
    return rows


def watched(common: Any, rows: list[dict[str, Any]], *, cores: float = 1.0) -> Any:
    clock = [100 + 0.5 * i for i in range(2 * int(rows[-1]["time"] - 100) + 3)]
    return common.Watched(99.0, steps=rows, clock=clock, cpu=[cores * (t - 100) for t in clock], peak_bytes=2**30)


# ---------------------------------------------------------------------------------------------- what is measured


def test_speed_counts_real_tokens_after_the_warm_up(training: Any, common: Any) -> None:
    found = training.figures(watched(common, steps(900, 900, 900, 100, 100, 100), cores=0.5))
    assert found.tokens == 300
    assert found.tokens_per_second == pytest.approx(100)
    assert found.tokens_per_cpu_second == pytest.approx(200)
    assert found.cores_used == pytest.approx(0.5)
    assert found.padding == pytest.approx(0.5)  # over the whole run
    assert found.first_step_seconds == pytest.approx(2.0)  # from the start of the process


def test_cpu_seconds_lie_between_two_samples_in_proportion(common: Any) -> None:
    seen = common.Watched(0.0, clock=[10.0, 20.0, 30.0], cpu=[0.0, 4.0, 4.0])
    assert [seen.cpu_at(t) for t in (10.0, 15.0, 20.0, 25.0, 40.0)] == [0.0, 2.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize("spoiled", ["gradient", "loss", "short"])
def test_a_run_that_does_not_learn_is_no_measurement(training: Any, common: Any, spoiled: str) -> None:
    rows = steps(*[100] * (4 if spoiled == "short" else 6))
    if spoiled == "gradient":
        rows[3]["grad_norm"] = 0.0
    if spoiled == "loss":
        for row in rows:
            row["train/loss"] = 7.0
    with pytest.raises(ValueError, match={"gradient": "zero", "loss": "does not fall", "short": "4 steps"}[spoiled]):
        training.figures(watched(common, rows))


def test_a_peers_tokens_are_counted_from_the_tensors_it_trains_on(common: Any, tmp_path: Path) -> None:
    import torch

    log = common.StepLog(tmp_path)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    log.count({"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": mask})  # padded
    log.count({"input_ids": torch.ones(1, 5, dtype=torch.long), "position_ids": torch.arange(5)[None]})  # packed
    log.step(1)
    log.write(2.5, 0.5)
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (row["step"], row["tokens"], row["positions"], row["train/loss"]) == (1, 4 + 5, 6 + 5, 2.5)


def test_a_process_is_watched_from_outside_and_ended_when_it_has_done_enough(common: Any, tmp_path: Path) -> None:
    program = (
        "import json, time\n"
        "for step in range(1, 1000):\n"
        "    end = time.process_time() + 0.05\n"
        "    while time.process_time() < end: pass\n"
        "    with open('metrics.jsonl', 'a') as f: f.write(json.dumps({'step': step, 'time': time.time()}) + '\\n')\n"
    )
    seen = common.watch(
        [sys.executable, "-c", program],
        tmp_path,
        enough=lambda rows: len(rows) >= 6,
        environment=common.thread_environment(1),
    )
    assert seen.returncode is None  # ended by us
    assert [row["step"] for row in seen.steps[:6]] == [1, 2, 3, 4, 5, 6]
    assert seen.cpu_at(seen.steps[5]["time"]) >= 0.2
    assert seen.peak_bytes > 2**20


def test_a_process_that_fails_ends_the_benchmark_with_its_log(common: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such peer"):
        common.watch(
            [sys.executable, "-c", "raise SystemExit('no such peer')"],
            tmp_path,
            enough=lambda rows: False,
            environment=common.thread_environment(1),
        )


# ---------------------------------------------------------------------------------------------- the table


def one_round(training: Any, common: Any, **speeds: float) -> dict[str, Any]:
    rounds = {}
    for name, seconds in speeds.items():
        seen = watched(common, steps(*[300] * 6, seconds=seconds))
        rounds[name.replace("_", "-")] = training.figures(seen)
    return rounds


def test_ratios_are_taken_within_a_round_to_the_default_and_to_the_best_peer(training: Any, common: Any) -> None:
    rounds = [
        one_round(training, common, trl=3.0, trl_grouped=1.5, organon=1.0),
        one_round(training, common, trl=6.0, trl_grouped=2.0, organon=2.0),  # everything slower: the ratios matter
    ]
    found = training.summary(rounds)
    assert found["best_rival"] == "trl-grouped"  # never ours
    ours = found["rivals"]["organon"]
    assert ours["times_default"]["tokens_per_cpu_second"] == pytest.approx({"median": 3.0, "low": 3.0, "high": 3.0})
    assert ours["times_best"]["tokens_per_cpu_second"] == pytest.approx({"median": 1.25, "low": 1.0, "high": 1.5})
    assert ours["tokens_per_second"] == pytest.approx({"median": 225, "low": 150, "high": 300})
    table = training.render(found, {"organon": [9.0, 11.0]})
    row = next(line for line in table.splitlines() if "organon default" in line)
    assert "| 10.0 | 3.00 | 1.25 |" in row  # cold start, over the default, over the best


def test_rounds_in_which_somebody_was_crowded_are_left_out(training: Any, common: Any) -> None:
    calm = one_round(training, common, trl=1.0, organon=1.0)
    crowded = {**calm, "trl": training.figures(watched(common, steps(*[300] * 6), cores=0.8))}
    assert training.kept_rounds([calm, crowded], threads=1) == [calm]
    assert training.kept_rounds([calm], threads=2) == []  # one core of two


# ---------------------------------------------------------------------------------------------- arguments


def test_the_usual_rivals_are_both_columns_of_each_peer_and_ours(training: Any) -> None:
    usual = training.chosen(training.parse([]))
    assert usual == ["trl", "trl-grouped", "trl-packed", "hf", "hf-grouped", "organon", "organon-float32"]
    assert training.chosen(training.parse(["--qlora"])) == [*usual, "trl-qlora", "organon-qlora"]
    assert training.chosen(training.parse(["--only", "organon", "--only", "hf"])) == ["hf", "organon"]


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--threads", "0"], ["--only", "axolotl"]])
def test_wrong_arguments_are_refused(training: Any, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        training.parse(wrong)
    assert refusal.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_ours_is_asked_for_what_the_peers_do(training: Any, tmp_path: Path) -> None:
    from organon.config.compose import compose

    setting = training.Setting(tmp_path / "model", tmp_path / "chats.jsonl", threads=1, tokens=1000)
    for name, rival in training.RIVALS.items():
        if rival.ours:
            config = compose("train", training.overrides(rival, setting))
            assert (config.adapter.rank, config.adapter.alpha, config.adapter.dropout) == (8, 16, 0.0), name
            assert (config.trainer.global_batch_size, config.trainer.accelerator) == (8, "cpu"), name
            assert (config.dataset.max_length, config.dataset.loss_on) == (512, "assistant"), name
            assert config.trainer.threads == 1, name


def test_conversations_are_the_same_for_the_same_seed_and_of_spread_length(common: Any) -> None:
    rows = list(common.chats(300, seed=1))
    assert rows == list(common.chats(300, seed=1))
    assert rows != list(common.chats(300, seed=2))
    lengths = sorted(len(row["messages"][1]["content"]) for row in rows)
    assert lengths[270] > 4 * lengths[30]
    assert 0.1 < sum(len(row["messages"]) == 5 for row in rows) / 300 < 0.4  # two turns


# ---------------------------------------------------------------------------------------------- GPU


def test_flops_count_the_weights_of_matrix_products(scripts: dict[str, ModuleType], common: Any) -> None:
    gpu = scripts["gpu_training"]
    sizes = common.GEOMETRIES["8b"]
    assert gpu.matmul_weights(sizes) == pytest.approx(7.5e9, rel=0.01)
    weights, attention = gpu.flops_per_token(sizes, 4096)
    assert weights + attention == pytest.approx(33.2e9, rel=0.01)  # performance of 8B at 4096 tokens: 30 + 3.2 GFLOP


def test_a_matmul_count_is_that_of_the_model(scripts: dict[str, ModuleType], common: Any) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = common.GEOMETRIES["toy"]
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=sizes.vocabulary,
                hidden_size=sizes.hidden,
                num_hidden_layers=sizes.layers,
                num_attention_heads=sizes.heads,
                num_key_value_heads=sizes.kv_heads,
                intermediate_size=sizes.intermediate,
            )
        )
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert scripts["gpu_training"].matmul_weights(sizes) == linear


def test_a_gpu_run_of_too_few_steps_is_refused_and_smoke_is_small(scripts: dict[str, ModuleType]) -> None:
    gpu = scripts["gpu_training"]
    with pytest.raises(SystemExit):
        gpu.parse(["--steps", "4"])
    assert gpu.parse(["--smoke"]).model == ["toy"]
