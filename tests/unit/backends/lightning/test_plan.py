"""K3, rule 14: the order of rows is a pure function of (lengths, seed, epoch)."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from organon.backends.lightning.plan import Plan

LENGTHS = [3 + i * 7 % 41 for i in range(103)]


def make(**changes: Any) -> Plan:
    options: dict[str, Any] = {"seed": 1, "epochs": 3, "global_batch_size": 8, "micro_batch_size": 4, **changes}
    return Plan(options.pop("lengths", LENGTHS), **options)


def rows(plan: Plan, step: int) -> list[int]:
    return [row for micro in plan.micro_batches(step) for row in micro]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=300),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(1, 1), (4, 2), (8, 8), (16, 1), (64, 16)]),
)
def test_each_epoch_has_each_row_once(lengths: list[int], seed: int, size: tuple[int, int]) -> None:
    plan = make(lengths=lengths, seed=seed, epochs=2, global_batch_size=size[0], micro_batch_size=size[1])
    for epoch in (0, 1):
        steps = range(epoch * plan.steps_per_epoch + 1, (epoch + 1) * plan.steps_per_epoch + 1)
        assert sorted(row for step in steps for row in rows(plan, step)) == list(range(len(lengths)))
        assert {plan.epoch_of(step) for step in steps} == {epoch}
        assert [step for step in steps if plan.ends_epoch(step)] == [steps[-1]]


def test_steps_are_the_same_in_any_order_and_process() -> None:
    forwards = {step: make().micro_batches(step) for step in range(1, 40)}
    plan = make()
    assert {step: plan.micro_batches(step) for step in reversed(range(1, 40))} == forwards
    code = (
        "from organon.backends.lightning.plan import Plan\n"
        f"print(Plan({LENGTHS}, seed=1, epochs=3, global_batch_size=8, micro_batch_size=4).micro_batches(20))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(forwards[20])


def test_seed_and_epoch_change_the_order() -> None:
    assert [rows(make(), s) for s in range(1, 14)] != [rows(make(seed=2), s) for s in range(1, 14)]
    plan = make()
    assert [rows(plan, s) for s in range(1, 14)] != [rows(plan, s) for s in range(14, 27)]


def test_micro_batches_split_a_step_without_changing_its_rows() -> None:
    for step in range(1, 40):
        assert rows(make(), step) == rows(make(micro_batch_size=1), step) == rows(make(micro_batch_size=8), step)
        assert all(len(micro) <= 4 for micro in make().micro_batches(step))


def test_rows_of_a_step_are_of_similar_length() -> None:
    """Padding: at random a quarter of the tokens here; in the plan hardly any."""
    plan = make(micro_batch_size=8)
    batches = [[LENGTHS[row] for row in rows(plan, step)] for step in range(1, 14)]
    padded = sum(max(batch) * len(batch) for batch in batches)
    assert padded < 1.1 * sum(LENGTHS)
    assert [len(b) for b in batches] != sorted(len(b) for b in batches) or batches != sorted(batches)


@pytest.mark.parametrize(("max_steps", "total"), [(None, 39), (5, 5), (100, 39)])
def test_total_steps(max_steps: int | None, total: int) -> None:
    plan = make(max_steps=max_steps)
    assert (plan.steps_per_epoch, plan.total_steps) == (13, total)
    assert plan.ends_epoch(total)
