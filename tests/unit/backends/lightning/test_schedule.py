"""CK-53: the learning rates are those of transformers' schedules, without their first step, whose rate is 0."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from organon.backends.lightning.optimizer import learning_rate
from organon.config.compose import compose
from organon.config.schema import OptimConfig
from organon.errors import ConfigError

TOTAL = 40


def of_transformers(schedule: str, warmup: int) -> list[float]:
    """Rates of the steps 1 to TOTAL in a schedule that is one step longer, as is its warm-up."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    made: Any = {
        "constant": lambda: get_constant_schedule_with_warmup(optimizer, warmup + 1),
        "linear": lambda: get_linear_schedule_with_warmup(optimizer, warmup + 1, TOTAL + 1),
        "cosine": lambda: get_cosine_schedule_with_warmup(optimizer, warmup + 1, TOTAL + 1),
    }[schedule]()
    rates = []
    for _ in range(TOTAL):
        optimizer.step()
        made.step()
        rates.append(float(made.get_last_lr()[0]))
    return rates


@pytest.mark.parametrize("warmup", [0, 1, 10, 39])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_rates_are_those_of_transformers(schedule: str, warmup: int) -> None:
    optim = OptimConfig(learning_rate=1e-3, schedule=schedule, warmup_steps=warmup)
    ours = [learning_rate(optim, step, TOTAL) for step in range(1, TOTAL + 1)]
    assert ours == pytest.approx(of_transformers(schedule, warmup), rel=1e-12, abs=1e-18)


def test_exponential_falls_by_the_same_factor_each_step() -> None:
    """Which transformers has not."""
    optim = OptimConfig(learning_rate=1e-3, schedule="exponential", warmup_steps=4)
    rates = [learning_rate(optim, step, TOTAL) for step in range(1, TOTAL + 1)]
    assert max(rates) == rates[4] == 1e-3
    factors = {round(later / earlier, 12) for earlier, later in itertools.pairwise(rates[4:])}
    assert len(factors) == 1
    assert 1e-5 < rates[-1] < 1.2e-5


def test_a_warm_up_that_is_longer_than_the_training() -> None:
    optim = OptimConfig(learning_rate=1.0, warmup_steps=100)
    assert [learning_rate(optim, step, 4) for step in (1, 2, 3, 4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_another_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match="cosine, linear, constant, exponential"):
        compose("train", ["optim.schedule=cosine_with_restarts"])
