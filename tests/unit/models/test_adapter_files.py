"""Adapters that are not what they say, or not of this base (cases 65, 66, 70, 71, 73)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from organon.errors import OrganonError, SecurityError, UserError
from organon.models.adapter_files import AdapterFile, changes_base, check_base, check_shapes, read_adapter

Q = "base_model.model.model.layers.0.self_attn.q_proj"
EMBEDDING = "base_model.model.model.embed_tokens"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


def weights(rank: int = 4, out: int = 8, into: int = 6) -> dict[str, Any]:
    return {
        f"{Q}.lora_A.weight": np.zeros((rank, into), np.float32),
        f"{Q}.lora_B.weight": np.zeros((out, rank), np.float32),
    }


def save(folder: Path, tensors: dict[str, Any] | None = None, **config: Any) -> Path:
    save_file(weights() if tensors is None else tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def refused(folder: Path) -> OrganonError:
    with pytest.raises(UserError) as caught:
        read_adapter(folder)
    assert caught.value.exit_code == 2
    return caught.value


def test_a_sound_adapter(tmp_path: Path) -> None:
    adapter = read_adapter(save(tmp_path, base_model_name_or_path="owner/model", revision="1"))
    assert adapter.ranks == {"model.layers.0.self_attn.q_proj": 4}
    assert adapter.shapes == {"model.layers.0.self_attn.q_proj": (8, 6)}
    assert (adapter.base_name, adapter.revision) == ("owner/model", "1")
    check_shapes(adapter, {"model.layers.0.self_attn.q_proj": (8, 6), "lm_head": (3, 6)})


def test_ranks_by_pattern_and_embeddings(tmp_path: Path) -> None:
    both = {
        **weights(rank=2),
        f"{EMBEDDING}.lora_embedding_A": np.zeros((4, 100), np.float32),
        f"{EMBEDDING}.lora_embedding_B": np.zeros((6, 4), np.float32),
    }
    adapter = read_adapter(save(tmp_path, both, rank_pattern={"self_attn.q_proj": 2}))
    assert adapter.ranks == {"model.embed_tokens": 4, "model.layers.0.self_attn.q_proj": 2}
    assert adapter.shapes["model.embed_tokens"] == (100, 6)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, False),
        ({"bias": "none", "init_lora_weights": "gaussian"}, False),
        ({"bias": "lora_only"}, True),
        ({"init_lora_weights": "pissa_niter_4"}, True),
        ({"init_lora_weights": "olora"}, True),
        ({"layer_replication": [[0, 2]]}, True),
    ],
)
def test_what_changes_the_base_itself(tmp_path: Path, config: dict[str, Any], expected: bool) -> None:
    assert changes_base(save(tmp_path, **config)) is expected


class Bomb:
    """Writes a marker file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["adapter_model.bin", "last.ckpt", "weights.pt"])
def test_pickles_are_refused_unread(tmp_path: Path, name: str) -> None:
    """Case 65."""
    marker = tmp_path / "marker"
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    (folder / name).write_bytes(pickle.dumps(Bomb(marker)))
    error = refused(folder)
    assert isinstance(error, SecurityError)
    assert error.code == "SEC-065"
    assert name in str(error)
    assert not marker.exists()


def test_a_pickle_under_the_name_of_safetensors(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "marker")))
    assert refused(tmp_path).code == "CKPT-067"
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "field",
    [
        {"_instantiator": "pathlib.Path"},
        {"_target_": "os.system", "command": "touch marker"},
        {"auto_mapping": {"base_model_class": "X", "parent_library": "antigravity"}},
        {"megatron_config": {"x": 1}, "megatron_core": "antigravity"},
    ],
)
def test_hyper_parameters_never_build_objects(tmp_path: Path, field: dict[str, Any]) -> None:
    """Cases 66 and 73: what other loaders would import or call is refused, and named."""
    error = refused(save(tmp_path, **field))
    assert isinstance(error, SecurityError)
    assert error.code == "SEC-073"
    assert next(iter(field)) in str(error)


def test_a_large_config(tmp_path: Path) -> None:
    save(tmp_path, note="x" * (1 << 20))
    assert refused(tmp_path).code == "SEC-073"


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_a_config_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    save(tmp_path)
    (tmp_path / "adapter_config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert refused(tmp_path).code == "CKPT-067"


def test_not_finite(tmp_path: Path) -> None:
    """Case 70."""
    bad = weights()
    bad[f"{Q}.lora_A.weight"][0, :3] = np.nan
    error = refused(save(tmp_path, bad))
    assert error.code == "CKPT-070"
    assert "q_proj.lora_A.weight: 3 of 24 values" in str(error)


@pytest.mark.parametrize(
    ("tensors", "config", "words"),
    [
        (weights(rank=8), {}, "has rank 8 in its weights and 4 in adapter_config.json"),
        (weights(), {"r": 16}, "has rank 4 in its weights and 16"),
        (weights(), {"r": "4"}, "has rank 4"),
        (weights(), {"rank_pattern": {"q_proj": 8}}, "has rank 4 in its weights and 8"),
        ({f"{Q}.lora_A.weight": np.zeros((4, 6), np.float32)}, {}, "lacks its lora_B"),
        ({f"{Q}.lora_B.weight": np.zeros((8, 4), np.float32)}, {}, "lacks its lora_A"),
        ({"w": np.zeros(3, np.float32)}, {}, "holds no LoRA weights"),
        (weights(), {"peft_type": "IA3"}, "a IA3 adapter; organon loads LORA"),
    ],
)
def test_parts_that_contradict_each_other(
    tmp_path: Path, tensors: dict[str, Any], config: dict[str, Any], words: str
) -> None:
    """Case 71."""
    error = refused(save(tmp_path, tensors, **config))
    assert error.code == "CKPT-071"
    assert words in str(error)


def of(base: str | None, revision: str | None = None) -> AdapterFile:
    return AdapterFile(Path("adapter"), base, revision, {}, {})


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (("meta-llama/Llama-3-8B", None), ("Qwen/Qwen2.5-0.5B", None)),
        (("organon/tiny", None), ("Qwen/Qwen3-0.6B", None)),
        (("local/sha256-0123456789abcdef", None), ("local/sha256-fedcba9876543210", None)),
        (("owner/model", "aaaa"), ("owner/model", "bbbb")),
    ],
)
def test_an_adapter_of_another_base(theirs: tuple[str, str | None], ours: tuple[str, str | None]) -> None:
    """Case 71: both are named."""
    with pytest.raises(UserError, match="it is of the base") as caught:
        check_base(of(*theirs), *ours)
    assert caught.value.code == "CKPT-071"
    assert all(name in str(caught.value) for name in (theirs[0], ours[0], theirs[1] or "", ours[1] or ""))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (("owner/model", None), ("owner/model", "1")),
        (("owner/model", "1"), ("owner/model", "1")),
        (("/home/someone/models/llama", None), ("owner/model", None)),  # says nothing: shapes decide
        (("owner/model", None), ("local/sha256-0123456789abcdef", None)),  # it may be a copy
        ((None, None), ("owner/model", None)),
    ],
)
def test_names_that_do_not_tell(theirs: tuple[str | None, str | None], ours: tuple[str, str | None]) -> None:
    check_base(of(*theirs), *ours)


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ({"model.layers.0.self_attn.q_proj": (8, 7)}, "q_proj is 8 x 6 there and 8 x 7 in this base"),
        ({"transformer.h.0.attn.c_attn": (8, 6)}, "it adapts model.layers.0.self_attn.q_proj, which this base"),
    ],
)
def test_shapes_of_another_base(tmp_path: Path, modules: dict[str, tuple[int, int]], words: str) -> None:
    adapter = read_adapter(save(tmp_path, base_model_name_or_path="owner/model"))
    with pytest.raises(UserError) as caught:
        check_shapes(adapter, modules)
    assert caught.value.code == "CKPT-071"
    assert words in str(caught.value)
    assert "owner/model" in str(caught.value)
