"""CK-37..42: what the saving rules mean, that equal meanings are one value, and what contradicts what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from organon.config.callbacks import epochs_to_save, keeps_none, kept_epochs
from organon.config.compose import compose, register_file
from organon.config.schema import CallbacksConfig
from organon.errors import ConfigError, SecurityError


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(lambda m: found.append(m.record["message"]), level="WARNING")
    yield found
    logger.remove(sink)


def rules(*overrides: str) -> CallbacksConfig:
    config: CallbacksConfig = compose("train", ["trainer.epochs=3", *overrides]).callbacks
    return config


FORMS = [
    *((form, "all") for form in ("all", "ALL", " All ")),
    *((form, "none") for form in ("none", "NONE", "None")),
    *((form, [0, 2]) for form in ("0,2", " 2, 0 ", "0,2,2", [0, 2], [2, 0], ["0", "2"], (0, 2))),
    *((form, [2]) for form in (2, "2", [2])),
]


@pytest.mark.parametrize(("form", "meaning"), FORMS)
def test_forms_of_one_meaning(form: Any, meaning: Any) -> None:
    assert epochs_to_save(form) == meaning


@pytest.mark.parametrize("form", [None, True, [], "", "0,x", "0;2", -1, "-1", 1.5, [0, [1]], {"a": 1}, "allmost"])
def test_what_names_no_epochs(form: Any) -> None:
    with pytest.raises(ConfigError, match=r"names no epochs; allowed: all, none, or epochs counted from 0") as caught:
        epochs_to_save(form)
    assert caught.value.where == "callbacks.epochs_to_save"


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ('callbacks.epochs_to_save="0,2"', [0, 2]),  # in a shell with both kinds of quotes
        ("callbacks.epochs_to_save=[0,2]", [0, 2]),
        ("callbacks.epochs_to_save=2", [2]),
        ("callbacks.epochs_to_save=NONE", "none"),
        ("callbacks.epochs_to_save=[0,1,2]", "all"),  # of three epochs: one key with `all`
    ],
)
def test_from_the_command_line(override: str, found: Any) -> None:
    """CK-39."""
    assert rules(override).epochs_to_save == found


@pytest.mark.parametrize("text", ['"0,2"', "0,2", "[0, 2]", "\n    - 0\n    - 2"])
def test_from_yaml(tmp_path: Path, text: str) -> None:
    """CK-39, X-07: upstream left a YAML string as it was."""
    (tmp_path / "study.yaml").write_text(f"callbacks:\n  epochs_to_save: {text}\n")
    assert rules(f"experiment={register_file(str(tmp_path / 'study.yaml'))}").epochs_to_save == [0, 2]


def test_a_comma_without_quotes_says_how_to_quote() -> None:
    with pytest.raises(ConfigError) as caught:
        rules("callbacks.epochs_to_save=0,2")
    assert caught.value.where == "callbacks.epochs_to_save"
    assert "'callbacks.epochs_to_save=[0,2]' for a list" in caught.value.fix
    assert "'callbacks.epochs_to_save=\"0,2\"' for text (both kinds of quotes)" in caught.value.fix


def test_an_epoch_that_does_not_come() -> None:
    """CK-39."""
    with pytest.raises(ConfigError, match="epoch 3 does not come: there are epochs 0 to 2") as caught:
        rules("callbacks.epochs_to_save=[0,3]")
    assert "trainer.epochs=4" in caught.value.fix
    with pytest.raises(ConfigError, match="the only epoch is 0"):
        kept_epochs(CallbacksConfig(epochs_to_save=1), 1)


def test_the_last_epoch_overrides_with_a_warning(warnings: list[str]) -> None:
    """CK-40: and one key, whatever was overridden."""
    assert rules("callbacks.save_last_epoch_only=true") == rules(
        "callbacks.save_last_epoch_only=true", "callbacks.epochs_to_save=[0,9]"
    )
    assert [w for w in warnings if "overrides callbacks.epochs_to_save=[0, 9]" in w]
    assert len(warnings) == 1
    assert kept_epochs(rules("callbacks.save_last_epoch_only=true"), 3) == [2]
    with pytest.raises(ConfigError):
        rules("callbacks.save_last_epoch_only=maybe")


def test_stashing_needs_a_merged_model(warnings: list[str]) -> None:
    """CK-41: skipped without one; refused where there is no adapter."""
    assert not rules("callbacks.stash_adapter_weights=true").stash_adapter_weights
    merged = ("callbacks.save_adapter_weights_only=false", "callbacks.stash_adapter_weights=true")
    assert rules(*merged).stash_adapter_weights
    assert not warnings
    rules(merged[0])
    assert "puts an adapter that lies in a merged model's folder on the model once more" in warnings[0]
    full = ("adapter=full", "adapter.quantization=none")
    with pytest.raises(ConfigError, match="there is no adapter to put away"):
        rules(*full, *merged)
    assert rules(*full, merged[0]).save_adapter_weights_only  # it says nothing there: one key


def test_what_is_off_is_in_one_form() -> None:
    assert rules("callbacks.best_mode=max", "callbacks.early_stopping_metric=x") == rules()
    assert rules("callbacks.best_metric=x", "callbacks.best_mode=max") != rules("callbacks.best_metric=x")


def test_whether_anything_is_kept() -> None:
    assert keeps_none(CallbacksConfig(epochs_to_save="None"))
    assert not keeps_none(CallbacksConfig(epochs_to_save="none", best_metric="val/loss"))
    assert not keeps_none(CallbacksConfig(epochs_to_save="none", save_last_epoch_only=True))


def test_callbacks_need_the_users_word() -> None:
    """S2: a class by its exact name, allowed by the user; no targets within arguments."""
    timer = "callbacks.extra=[{_target_: lightning.pytorch.callbacks.Timer, interval: step}]"
    with pytest.raises(SecurityError, match="not in the allow-list") as caught:
        rules(timer)
    assert caught.value.where == "callbacks.extra[0]._target_"
    allowed = "allow_targets=[lightning.pytorch.callbacks.Timer]"
    assert len(rules(timer, allowed).extra) == 1
    nested = "callbacks.extra=[{_target_: lightning.pytorch.callbacks.Timer, interval: {_target_: os.system}}]"
    with pytest.raises(SecurityError, match="`_target_` is not allowed here"):
        rules(nested, allowed)
    with pytest.raises(ConfigError, match="is not a callback"):
        rules("callbacks.extra=[3]")


@pytest.mark.parametrize("pattern", ["a/{nmae}", "a/{", "{name}}", " "])
def test_a_checkpoint_dir_has_no_other_field(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"only \{name\} is filled in"):
        compose("train", [f'checkpoint_dir="{pattern}"'])
    assert compose("train", ['checkpoint_dir="a/{name}-{name}"']).checkpoint_dir == "a/{name}-{name}"
    assert compose("train", ["checkpoint_dir=a/ck-out-{name}"]).checkpoint_dir == "a/ck-out-{name}"
