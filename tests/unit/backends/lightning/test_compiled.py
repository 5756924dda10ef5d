"""torch.compile of the decoder layers."""

from __future__ import annotations

import pytest
import torch
from tests.unit.backends.lightning.families import Documents, assert_close, family
from tests.unit.backends.lightning.test_fused import step, with_lora

from organon.backends.lightning import fused
from organon.backends.lightning.compiled import compile_layers
from organon.errors import ConfigError


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # inductor's own
def test_compiled_layers_give_the_same() -> None:
    """Loss and gradients, and nothing is compiled anew for documents of other lengths."""
    model, others = with_lora(family("llama", num_hidden_layers=1)), Documents(30, 21, seed=4)
    expected = [step(model), step(model, documents=others)]
    fused.apply(model)
    assert compile_layers(model) == 1
    found = [step(model)]
    with torch._dynamo.config.patch(error_on_recompile=True):
        found.append(step(model, documents=others))
    for (loss, gradients), (wanted_loss, wanted) in zip(found, expected, strict=True):
        assert loss == pytest.approx(wanted_loss, rel=1e-6)
        assert_close(gradients, wanted, 1e-5)


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(ConfigError, match="no compiler was found") as caught:
        compile_layers(family("llama"))
    assert caught.value.where == "trainer.compile"


def test_a_model_without_known_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear has no decoder layers"):
        compile_layers(torch.nn.Linear(2, 2))
