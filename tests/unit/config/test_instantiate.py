"""The one place where a `_target_` becomes an object."""

from __future__ import annotations

import pytest

from organon.config.instantiate import instantiate
from organon.errors import ConfigError, SecurityError

FRACTION = "fractions.Fraction"


def test_builds_an_allowed_target() -> None:
    built = instantiate({"_target_": FRACTION, "numerator": 1, "denominator": 2}, allowed=[FRACTION], where="x")
    assert float(built) == 0.5


@pytest.mark.parametrize("target", ["os.system", "fractions.Fractio", "", "logging.os.system"])
def test_refuses_what_is_not_exactly_listed(target: str) -> None:
    with pytest.raises(SecurityError) as caught:
        instantiate({"_target_": target}, allowed=[FRACTION], where="backend")
    assert (caught.value.code, caught.value.where) == ("SEC-053", "backend._target_")


@pytest.mark.parametrize("key", ["_target_", "_args_", "_partial_"])
def test_refuses_targets_hidden_in_arguments(key: str) -> None:
    hidden = {"_target_": FRACTION, "numerator": [{"deep": {key: "os.system"}}]}
    with pytest.raises(SecurityError):
        instantiate(hidden, allowed=[FRACTION], where="backend")


def test_unknown_argument_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'numerator'"):
        instantiate({"_target_": FRACTION, "numeratr": 1}, allowed=[FRACTION], where="backend")
