"""K3, rule 14: the order of rows is a pure function of (lengths, seed, epoch)."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from organon.backends.lightning.plan import Geometry, Plan, share

LENGTHS = [3 + i * 7 % 41 for i in range(103)]


def make(**changes: Any) -> Plan:
    options: dict[str, Any] = {"seed": 1, "epochs": 3, "global_batch_size": 8, **changes}
    return Plan(options.pop("lengths", LENGTHS), **options)


def rows(plan: Plan, step: int) -> list[int]:
    return plan.rows(step)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=300),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1, 4, 8, 16, 64]),
    bucketed=st.booleans(),
)
def test_each_epoch_has_each_row_once(lengths: list[int], seed: int, size: int, bucketed: bool) -> None:
    plan = make(lengths=lengths, seed=seed, epochs=2, global_batch_size=size, bucketed=bucketed)
    for epoch in (0, 1):
        steps = range(epoch * plan.steps_per_epoch + 1, (epoch + 1) * plan.steps_per_epoch + 1)
        assert sorted(row for step in steps for row in rows(plan, step)) == list(range(len(lengths)))
        assert {plan.epoch_of(step) for step in steps} == {epoch}
        assert [step for step in steps if plan.ends_epoch(step)] == [steps[-1]]


def test_steps_are_the_same_in_any_order_and_process() -> None:
    forwards = {step: make().rows(step) for step in range(1, 40)}
    plan = make()
    assert {step: plan.rows(step) for step in reversed(range(1, 40))} == forwards
    code = (
        "from organon.backends.lightning.plan import Geometry, Plan, share\n"
        f"print(Plan({LENGTHS}, seed=1, epochs=3, global_batch_size=8).rows(20))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(forwards[20])


def test_seed_and_epoch_change_the_order() -> None:
    assert [rows(make(), s) for s in range(1, 14)] != [rows(make(seed=2), s) for s in range(1, 14)]
    plan = make()
    assert [rows(plan, s) for s in range(1, 14)] != [rows(plan, s) for s in range(14, 27)]


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 100), min_size=1, max_size=40),
    geometry=st.builds(Geometry, st.integers(1, 9), st.none() | st.integers(1, 200), st.booleans()),
    world=st.integers(1, 5),
)
def test_a_step_is_split_within_the_limits_and_without_losing_a_row(
    lengths: list[int], geometry: Geometry, world: int
) -> None:
    rows = make(lengths=lengths, global_batch_size=len(lengths)).rows(1)
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    shares = [share(rows, rank, world) for rank in range(world)]
    assert sorted(row for part in shares for row in part) == sorted(rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for part in shares:
        parts = geometry.split(part, lengths)
        assert [row for micro in parts for row in micro] == part
        for micro in parts:
            sizes = [lengths[row] for row in micro]
            used = sum(sizes) if geometry.packed else len(sizes) * max(sizes)
            assert len(micro) <= geometry.rows
            assert len(micro) == 1 or geometry.tokens is None or used <= geometry.tokens


def test_shares_of_the_devices_hold_as_many_tokens() -> None:
    rows = make(global_batch_size=64).rows(1)
    tokens = [sum(LENGTHS[row] for row in share(rows, rank, 4)) for rank in range(4)]
    assert max(tokens) < 1.1 * min(tokens)


def test_halving_ends_at_one_row() -> None:
    geometry = Geometry(8, 100)
    for expected in (Geometry(4, 50), Geometry(2, 25), Geometry(1, 12), Geometry(1, 6)):
        geometry = geometry.halved()
        assert geometry == expected


def test_rows_of_a_bucketed_step_are_of_similar_length_and_others_are_drawn_at_random() -> None:
    def padded(bucketed: bool) -> int:
        plan = make(bucketed=bucketed)
        batches = [[LENGTHS[row] for row in rows(plan, step)] for step in range(1, 14)]
        return sum(max(batch) * len(batch) for batch in batches)

    assert padded(True) < 1.1 * sum(LENGTHS)
    assert padded(False) > 1.4 * sum(LENGTHS)


@pytest.mark.parametrize(("max_steps", "total"), [(None, 39), (5, 5), (100, 39)])
def test_total_steps(max_steps: int | None, total: int) -> None:
    plan = make(max_steps=max_steps)
    assert (plan.steps_per_epoch, plan.total_steps) == (13, total)
    assert plan.ends_epoch(total)
