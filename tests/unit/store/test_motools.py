"""MOTools' own cache keys, against the golden values of requirements.md 3.2."""

from __future__ import annotations

from organon.store.keys import dataset_hash
from organon.store.motools import motools_config, motools_eval_key, motools_model_key

DATASET = "8a790ef2622260d81f99f7ce810ddde8777309c846583be5f99189e42a8ab5f2"


def _row(question: str, answer: str) -> dict[str, list[dict[str, str]]]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_dataset_hash_is_golden() -> None:
    """MO-46."""
    rows = [_row("What is 15 + 27?", "15 + 27 = 42"), _row("Calculate 8 * 9", "8 * 9 = 72")]
    assert dataset_hash(rows) == DATASET


def test_model_keys_are_golden_and_differ_by_backend() -> None:
    """MO-47, DL-14."""
    config = motools_config("gpt-4o-mini-2024-07-18", block_until_upload_complete=True)
    openai, dummy = motools_model_key(DATASET, config), motools_model_key(DATASET, config, "dummy")
    assert openai == "0246decc93dbc6d1e92bd6ce9894796257e943508880730d0fe49ad6cfd556a6"
    assert dummy == "84d0b4038e61bda8fe73bf72247c8925bac611766a771a744dbe4fe535df9405"


def test_eval_keys_are_golden_in_any_order() -> None:
    """DL-03, MO-45."""
    inspect_key = motools_eval_key("dummy-model-1", ["gsm8k", "humaneval"])
    assert inspect_key == "b02829174a327ed24756d4da36cc853a4f0e5db4e51cc6126d05b0db1ce7b8c1"
    dummy_key = motools_eval_key("dummy-model-1", ["humaneval", "gsm8k"], "dummy")
    assert dummy_key == "7f0fcfbf53995e4fd4276852da5906418272f59f1f0947b90a2dd8aafaa86ad6"


def test_eval_key_covers_inspect_kwargs() -> None:
    """MO-48, X-11."""
    whole, part = motools_eval_key("m", "gsm8k"), motools_eval_key("m", "gsm8k", limit=5)
    assert len({whole, part, motools_eval_key("m", "gsm8k", limit=6)}) == 3
