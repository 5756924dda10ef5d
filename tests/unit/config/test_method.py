"""Method, rows and adapter must go together: refused when the config is composed, before anything is spent."""

from __future__ import annotations

import pytest

from organon.config.compose import compose
from organon.errors import ConfigError

PAIRS = ["dataset=preference", "dataset.source=pairs.jsonl"]
TEXTS = ["dataset=text", "dataset.source=texts.jsonl"]
ROWS = ["dataset=messages", "dataset.source=rows.jsonl"]
DPO = ["method=dpo", *PAIRS]
LORA = [*DPO, "adapter=lora"]  # adapter=qlora refuses some of these by itself

REFUSED: dict[str, tuple[list[str], str, str, str]] = {
    "dpo on messages": (["method=dpo", *ROWS], "method.type", "method.type=dpo cannot train on dataset.format=messages",
                        "dataset=preference"),
    "dpo on text": (["method=dpo", *TEXTS], "method.type", "cannot train on dataset.format=text", "dataset=preference"),
    "dpo on the default": (["method=dpo"], "method.type", "dataset.format=messages", "dataset=preference"),
    "supervised on pairs": (PAIRS, "method.type", "supervised cannot train on dataset.format=preference", "method=dpo"),
    "full": ([*DPO, "adapter=full", "adapter.quantization=none"], "adapter.kind", "the reference is the base model",
             "adapter=lora"),
    "pissa": ([*LORA, "adapter.init=pissa"], "adapter.init", "which it takes apart", "adapter.init=default"),
    "olora": ([*LORA, "adapter.init=olora"], "adapter.init", "which it takes apart", "adapter.init=default"),
    "bias": ([*LORA, "adapter.bias=all"], "adapter.bias", "which it changes", "adapter.bias=none"),
    "lora bias": ([*LORA, "adapter.bias=lora_only"], "adapter.bias", "which it changes", "adapter.bias=none"),
    "loss on all of pairs": ([*DPO, "dataset.loss_on=all"], "dataset.loss_on", "all means nothing for rows of",
                             "dataset.loss_on=assistant"),
    "loss on last of pairs": ([*DPO, "dataset.loss_on=last"], "dataset.loss_on", "last means nothing", "loss_on=assi"),
    "loss on last of text": ([*TEXTS, "dataset.loss_on=last"], "dataset.loss_on", "last means nothing",
                             "dataset.loss_on=all"),
    "system prompt of text": ([*TEXTS, "dataset.system_prompt=hello"], "dataset.system_prompt", "no messages",
                              "dataset.system_prompt=null"),
    "text from a zoo": (["dataset.format=text"], "dataset.format", "zoo:capitalization makes rows of messages",
                        "dataset.format=messages"),
    "beta of no DPO": ([*ROWS, "method.beta=0.5"], "method.beta", "0.5 is of DPO's loss", "method=dpo"),
    "smoothing of no DPO": (["method.label_smoothing=0.1"], "method.label_smoothing", "0.1 is of DPO's loss",
                            "method=dpo"),
    "no beta": ([*DPO, "method.beta=0"], "method.beta", "0.0 is out of range; must be more than 0", ""),
    "half wrong": ([*DPO, "method.label_smoothing=0.5"], "method.label_smoothing", "less than 0.5", ""),
    "ratio": ([*ROWS, "dataset.balance_ratio=0.5"], "dataset.balance_ratio", "must be at least 1", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused(case: str) -> None:
    overrides, where, cause, fix = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        compose("train", overrides)
    assert (caught.value.code, caught.value.where) == ("CFG-058", where)
    assert cause in caught.value.cause
    assert fix in caught.value.fix


def test_what_goes_together_composes() -> None:
    config = compose("train", [*DPO, "adapter=lora", "dataset.system_prompt=hello", "method.label_smoothing=0.1"])
    assert (config.method.type, config.method.beta, config.dataset.loss_on) == ("dpo", 0.1, "assistant")
    assert compose("train", DPO).adapter.kind == "qlora"


@pytest.mark.parametrize("overrides", [TEXTS, [*TEXTS, "dataset.loss_on=assistant"], [*ROWS, "dataset.format=text"]])
def test_every_token_of_raw_text_is_trained(overrides: list[str]) -> None:
    """However it is said, it is one config, and so one key."""
    assert compose("train", overrides).dataset.loss_on == "all"
