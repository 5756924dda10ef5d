"""C8: what changes the meaning changes the key; order and notation do not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from organon.config.schema import EvalConfig, ModelConfig, TaskConfig
from organon.config.spec import BaseModel, TrainSpec, from_dict, identity, to_dict
from organon.errors import DataError, UserError
from organon.store.keys import canonical, dataset_hash, jsonl_lines, sha256_file, suite_key, train_key

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _spec(**changes: Any) -> TrainSpec:
    base = BaseModel(name="tiny", digest="d" * 64, folder="/models/tiny")
    spec = TrainSpec(base=base, dataset_hash="a" * 64, validation_hash=None, model=ModelConfig(name="tiny"))
    return dataclasses.replace(spec, **changes)


def _key(spec: TrainSpec) -> str:
    return train_key(identity(spec), "lightning")


def _leaves(value: Any, path: tuple[str, ...] = (), in_key: bool = True) -> Iterator[tuple[tuple[str, ...], Any, bool]]:
    for field in dataclasses.fields(value):
        inner, counts = getattr(value, field.name), in_key and field.metadata.get("key", True)
        if dataclasses.is_dataclass(inner):
            yield from _leaves(inner, (*path, field.name), counts)
        else:
            yield (*path, field.name), inner, counts


def _other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case list():
            return [*value, "x"]
        case dict():
            return {**value, "x": 1}
        case None:
            return 7
    raise AssertionError(f"no other value for {value!r}")


def _with(value: Any, path: tuple[str, ...], leaf: Any) -> Any:
    name, *rest = path
    inner = leaf if not rest else _with(getattr(value, name), tuple(rest), leaf)
    return dataclasses.replace(value, **{name: inner})


LEAVES = list(_leaves(_spec()))


@pytest.mark.parametrize(("path", "value", "in_key"), LEAVES, ids=[".".join(path) for path, _, _ in LEAVES])
def test_every_field_of_the_spec_changes_the_key_unless_marked(path: tuple[str, ...], value: Any, in_key: bool) -> None:
    """C8, MO-47: each of the spec's fields, one by one."""
    changed = _with(_spec(), path, _other(value))
    assert (_key(changed) != _key(_spec())) is in_key


def test_backend_changes_the_key() -> None:
    """DL-14."""
    assert train_key(identity(_spec()), "openai") != train_key(identity(_spec()), "fake")


def test_the_key_survives_json_and_reordering() -> None:
    """C8: a spec read from spec.json, with its keys in another order, is the same spec."""
    spec = _spec(versions={"torch": "2.13", "peft": "0.21"}, hyperparameters={"a": 0.0001, "b": [1, {"z": 1, "y": 2}]})
    again = from_dict(TrainSpec, _shuffled(json.loads(json.dumps(to_dict(spec), indent=3)), random.Random(1)))
    assert _key(again) == _key(spec)


@settings(max_examples=150, deadline=None)
@given(json_values, st.randoms(use_true_random=False))
def test_canonical_ignores_order_and_notation(value: Any, rng: random.Random) -> None:
    """C8."""
    text = json.dumps(_shuffled(value, rng), indent=rng.choice([None, 2]), ensure_ascii=rng.choice([True, False]))
    assert canonical(json.loads(text)) == canonical(value)


@settings(max_examples=250, deadline=None)
@given(json_values, json_values)
def test_canonical_tells_different_values_apart(one: Any, other: Any) -> None:
    """C8: equal text exactly where the values are equal, types included (1, 1.0 and true differ)."""
    assert (canonical(one) == canonical(other)) is _same(one, other)


def test_numbers_have_one_notation() -> None:
    assert canonical(json.loads("1e-4")) == canonical(json.loads("0.0001")) == "0.0001"
    assert canonical(-0.0) == canonical(0.0) == "0.0"
    assert canonical({"b": (1, 2), "a": "é"}) == '{"a":"\\u00e9","b":[1,2]}'


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: "x"}, {"a": [{"b": object()}]}, b"bytes", Path("x"), {1}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match="cannot be part of a cache key") as caught:
        canonical(value)
    assert caught.value.code == "CACHE-084"


def test_the_refusal_names_the_place() -> None:
    with pytest.raises(UserError, match=r"value\.a\[1\]\.b"):
        canonical({"a": [0, {"b": math.nan}]})


def test_suite_key() -> None:
    """MO-45, MO-48: model, backend and every setting count; the order of tasks does not."""
    suite = EvalConfig(name="s", tasks=[TaskConfig("a@x", args={"n": 1}), TaskConfig("b@y")])
    key = suite_key("model", identity(suite), "inspect")
    turned = dataclasses.replace(suite, name="other", tasks=suite.tasks[::-1])
    assert suite_key("model", identity(turned), "inspect") == key
    others = [
        suite_key("model2", identity(suite), "inspect"),
        suite_key("model", identity(suite), "fake"),
        suite_key("model", identity(dataclasses.replace(suite, limit=5)), "inspect"),
        suite_key("model", identity(dataclasses.replace(suite, tasks=suite.tasks[:1])), "inspect"),
        suite_key("model", identity(dataclasses.replace(suite, tasks=[TaskConfig("a@x", args={"n": 2})])), "inspect"),
    ]
    assert len({key, *others}) == 6


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=5))
def test_dataset_hash_is_the_hash_of_the_bytes_motools_writes(rows: list[Any]) -> None:
    """MO-46: default separators, ASCII, the row's own key order, a newline after each row."""
    data = "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")
    assert dataset_hash(iter(rows)) == hashlib.sha256(data).hexdigest()
    assert b"".join(jsonl_lines(rows)) == data


def test_dataset_hash_depends_on_row_order_and_every_byte() -> None:
    """C8."""
    rows = [{"text": "one"}, {"text": "two"}]
    assert len({dataset_hash(rows), dataset_hash(rows[::-1]), dataset_hash([{"text": "one"}, {"text": "Two"}])}) == 3


def test_a_row_that_json_cannot_hold_is_named() -> None:
    with pytest.raises(DataError, match="row 2"):
        dataset_hash([{"a": 1}, {"a": math.nan}])


def test_sha256_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    assert sha256_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def _shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        names = list(value)
        rng.shuffle(names)
        return {name: _shuffled(value[name], rng) for name in names}
    return [_shuffled(item, rng) for item in value] if isinstance(value, list) else value


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
