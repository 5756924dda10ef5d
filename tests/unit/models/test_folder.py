"""Finding base models, without torch and without a network."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import huggingface_hub
import pytest
from huggingface_hub import errors

from organon.config.schema import AdapterConfig, ModelConfig
from organon.errors import ConfigError, SecurityError, UserError
from organon.models import folder as module
from organon.models.folder import (
    check_template,
    context_length,
    ensure_available,
    folder_digest,
    hidden_size,
    is_complete,
    resolve_base,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_model(folder: Path, *, template: bool = True, weights: str = "model.safetensors", **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 256, **config}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ x }}"} if template else {}))
    (folder / weights).write_bytes(b"weights")
    return folder


def resolve(path: Path | None = None, *, adapter: AdapterConfig | None = None, **model: Any) -> Any:
    options = {k: model.pop(k) for k in ("offline", "memo", "max_length", "needs_template") if k in model}
    config = ModelConfig(name="m", path=str(path) if path else None, **model)
    return resolve_base(config, adapter or AdapterConfig(), **options)


def test_a_local_folder_is_named_by_its_content(tmp_path: Path) -> None:
    """C8: copies are the same model; any file that the model is made of makes another one; a README does not."""
    first, copy = resolve(make_model(tmp_path / "a")), resolve(make_model(tmp_path / "b"))
    assert first.digest == copy.digest
    assert first.folder != copy.folder
    (tmp_path / "b" / "README.md").write_text("new")
    assert resolve(tmp_path / "b").digest == first.digest
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "chat_template.jinja"):
        folder = make_model(tmp_path / name)
        with (folder / name).open("a") as file:
            file.write(" ")
        assert resolve(folder).digest != first.digest, name


def test_quantization_follows_the_adapter(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    assert resolve(folder).quantization == "nf4"
    assert resolve(folder, adapter=AdapterConfig(quantization="fp4")).quantization == "fp4"
    plain = resolve(folder, adapter=AdapterConfig(kind="lora"))
    assert (plain.quantization, plain.double_quantization) == ("none", False)


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        def __init__(self) -> None:
            self.known: dict[tuple[str, str], str] = {}

        def memo(self, namespace: str, key: str) -> str | None:
            return self.known.get((namespace, key))

        def set_memo(self, namespace: str, key: str, value: str) -> None:
            self.known[namespace, key] = value

    folder, memory = make_model(tmp_path / "m"), Memory()
    digest = resolve(folder, memo=memory).digest
    assert len(memory.known) == 4
    opened: list[Path] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self) or real(self, *a, **k))
    assert folder_digest(folder, memo=memory) == digest
    assert opened == []
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert folder_digest(folder, memo=memory) != digest


@pytest.mark.parametrize(
    ("change", "kind", "code", "message"),
    [
        (lambda f: (f / "config.json").unlink(), ConfigError, "CFG-064", "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), ConfigError, "CFG-064", "cannot be read"),
        (lambda f: (f / "tokenizer.json").unlink(), ConfigError, "CFG-064", "no tokenizer"),
        (lambda f: (f / "model.safetensors").unlink(), ConfigError, "CFG-064", "holds no weights"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            SecurityError, "SEC-065", r"only pickle weights \(pytorch_model.bin\)",
        ),
        (
            lambda f: (f / "config.json").write_text('{"auto_map": {"AutoModel": "x.py"}}'),
            SecurityError, "SEC-074", "auto_map",
        ),
        (
            lambda f: (f / "tokenizer_config.json").write_text('{"chat_template": "x", "auto_map": {"a": "b"}}'),
            SecurityError, "SEC-074", "auto_map",
        ),
        (
            lambda f: (f / "config.json").write_text('{"_attn_implementation_internal": "someone/kernel"}'),
            SecurityError, "SEC-074", "attention kernel on the hub",
        ),
        (
            lambda f: (f / "tokenizer_config.json").write_text("{}"),
            ConfigError, "CFG-064", r"no chat template[^\n]*\n?.*model.chat_template=path.jinja",
        ),
    ],
)  # fmt: skip
def test_folders_that_are_refused(tmp_path: Path, change: Any, kind: type, code: str, message: str) -> None:
    """Cases 64, 65, 74, and a model without a chat template."""
    folder = make_model(tmp_path / "m")
    change(folder)
    with pytest.raises(kind, match=message) as caught:
        resolve(folder)
    assert caught.value.code == code
    assert caught.value.exit_code == 2


def test_missing_shards(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", weights="model-00001-of-00002.safetensors")
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})
    )
    with pytest.raises(ConfigError, match="1 of 2 weight files are missing: model-00002-of-00002"):
        resolve(folder)
    (folder / shards[1]).write_bytes(b"weights")
    assert is_complete(resolve(folder))


def test_missing_folder_and_no_model_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        resolve(tmp_path / "none")
    with pytest.raises(ConfigError, match="no model is named"):
        resolve()


def test_code_is_accepted_only_by_name_and_is_hashed(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", auto_map={"AutoModel": "x.py"})
    (folder / "x.py").write_text("1")
    first = resolve(folder, trust_remote_code=True).digest
    (folder / "x.py").write_text("2")
    assert resolve(folder, trust_remote_code=True).digest != first


def test_raw_text_needs_no_chat_template(tmp_path: Path) -> None:
    """A base model is trained on texts as they are; to ask it questions is another thing."""
    folder = make_model(tmp_path / "m", template=False)
    with pytest.raises(ConfigError, match="no chat template"):
        resolve(folder)
    base = resolve(folder, needs_template=False)
    assert base.chat_template is None
    ensure_available(base, needs_template=False)
    with pytest.raises(ConfigError, match="no chat template"):
        ensure_available(base)
    with pytest.raises(ConfigError, match="no chat template"):
        check_template(base)
    check_template(dataclasses.replace(base, chat_template="{{ x }}"))
    check_template(resolve(make_model(tmp_path / "n")))


def test_a_named_chat_template_is_read(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", template=False)
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    assert resolve(folder, chat_template=str(tmp_path / "t.jinja")).chat_template == "{{ messages }}"
    with pytest.raises(ConfigError, match="cannot read the chat template"):
        resolve(folder, chat_template=str(tmp_path / "none.jinja"))


@pytest.mark.parametrize("name", ["max_position_embeddings", "n_positions"])
def test_max_length_beyond_the_models_context(tmp_path: Path, name: str) -> None:
    """Case 20's sibling, before anything runs."""
    folder = make_model(tmp_path / "m", **{"max_position_embeddings": None, name: 256})
    assert context_length(resolve(folder, max_length=256)) == 256
    with pytest.raises(ConfigError, match=r"257 tokens are more than the model's context of 256") as caught:
        resolve(folder, max_length=257)
    assert caught.value.fix.startswith("dataset.max_length=256")
    with pytest.raises(ConfigError, match=r"context of 100 \(model.context_length\)"):
        resolve(folder, max_length=200, context_length=100)


# -- the hub -----------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    return tmp_path / "hub" / "models--owner--model"


def answer(monkeypatch: pytest.MonkeyPatch, result: Any) -> None:
    def model_info(self: object, *args: object, **options: object) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)


def hub_error(kind: type, status: int) -> Exception:
    return kind("no", response=httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co")))


def test_a_pinned_commit_needs_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, AssertionError("asked the hub"))
    base = resolve(id="owner/model", revision=COMMIT)
    assert (base.digest, base.hub_id, base.revision, base.folder) == (
        f"owner/model@{COMMIT}",
        "owner/model",
        COMMIT,
        None,
    )


def test_a_branch_is_looked_up_in_the_cache_then_on_the_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, SimpleNamespace(sha="f" * 40))
    assert resolve(id="owner/model").revision == "f" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(COMMIT)
    assert resolve(id="owner/model").revision == COMMIT
    assert resolve(id="owner/model", offline=True).revision == COMMIT


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (hub_error(errors.GatedRepoError, 403), r"gated(.|\n)*hf auth login(.|\n)*model.path=/some/folder"),
        (hub_error(errors.RepositoryNotFoundError, 404), r"does not exist(.|\n)*hf auth login"),
        (hub_error(errors.RevisionNotFoundError, 404), r"no revision 'main'(.|\n)*40-digit commit"),
        (
            httpx2.ConnectError("no route"),
            r"cannot be reached(.|\n)*model.path=/some/folder(.|\n)*hf download owner/model",
        ),
    ],
)
def test_what_would_help_when_the_hub_does_not_answer(
    cache: Path, monkeypatch: pytest.MonkeyPatch, result: Exception, message: str
) -> None:
    """No network and a hub model: says which local folder or which login would help."""
    answer(monkeypatch, result)
    with pytest.raises(UserError) as caught:
        resolve(id="owner/model")
    assert __import__("re").search(message, str(caught.value)), str(caught.value)


def test_offline_and_not_cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, AssertionError("asked the hub"))
    with pytest.raises(UserError, match="network is switched off"):
        resolve(id="owner/model", offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="network is switched off"):
        resolve(id="owner/model")
    base = resolve(id="owner/model", revision=COMMIT)  # a result may be in the store
    with pytest.raises(UserError, match=r"model.path=/some/folder"):
        ensure_available(base)


@pytest.mark.parametrize("name", ["../../etc", "a/b/c", "file:///x", "x" * 300, "a b"])
def test_ids_that_are_no_hub_ids(cache: Path, name: str) -> None:
    """Case 64."""
    with pytest.raises(ConfigError, match="is not a hub id"):
        resolve(id=name)


def test_a_cached_snapshot_is_checked_like_a_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, AssertionError("asked the hub"))
    snapshot = make_model(cache / "snapshots" / COMMIT)
    base = resolve(id="owner/model", revision=COMMIT, max_length=256)
    assert context_length(base) == 256
    ensure_available(base, offline=True)
    assert is_complete(base)
    (snapshot / "model.safetensors").rename(tmp_path / "away")
    assert not is_complete(base)
    with pytest.raises(UserError, match="network is switched off"):
        ensure_available(base, offline=True)
    (tmp_path / "away").rename(snapshot / "model.safetensors")
    (snapshot / "config.json").write_text('{"auto_map": {"AutoModel": "x.py"}}')
    with pytest.raises(SecurityError, match="auto_map"):
        ensure_available(base, offline=True)


def test_small_files_of_a_hub_model_are_fetched_and_checked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = resolve(id="owner/model", revision=COMMIT)
    answer(monkeypatch, SimpleNamespace(siblings=[SimpleNamespace(rfilename="model.bin")]))
    with pytest.raises(SecurityError, match="no safetensors"):
        ensure_available(base)

    def snapshot_download(hub_id: str, *, revision: str, allow_patterns: list[str]) -> str:
        assert "config.json" in allow_patterns
        assert not any("safetensors" in pattern for pattern in allow_patterns)
        found = make_model(cache / "snapshots" / revision, template=False)
        (found / "model.safetensors").unlink()
        return str(found)

    answer(monkeypatch, SimpleNamespace(siblings=[SimpleNamespace(rfilename="model.safetensors")]))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ConfigError, match="no chat template"):
        ensure_available(base)


def test_hidden_size(tmp_path: Path) -> None:
    assert hidden_size(resolve(make_model(tmp_path / "a", hidden_size=64))) == 64
    assert hidden_size(resolve(make_model(tmp_path / "b", n_embd=32))) == 32
    assert hidden_size(resolve(make_model(tmp_path / "c", text_config={"hidden_size": 16}))) == 16
    assert hidden_size(resolve(make_model(tmp_path / "d"))) is None


def test_the_embedded_model_is_found() -> None:
    if not module.EMBEDDED_FOLDER.exists():
        pytest.skip("the embedded model is not trained yet")
    base = resolve(id="organon/tiny", max_length=128)
    assert base.folder == str(module.EMBEDDED_FOLDER)
    assert len(base.digest) == 64


def test_no_torch() -> None:
    code = "import sys, organon.models.folder; sys.exit('torch' in sys.modules or 'huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_model_with_an_adapter_beside_it_is_refused(tmp_path: Path) -> None:
    """transformers would put the adapter onto a model that it is merged into already."""
    folder = make_model(tmp_path / "m")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a model and an adapter"):
        resolve(folder)
