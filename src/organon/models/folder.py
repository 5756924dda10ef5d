"""Finding a base model on this machine or on the hub, without torch: what it is, and whether it is safe to load.

A base model is named by its content: a local folder by the hash of its files, a hub model by its
commit. So a key that holds the name never means two models, and no path is in it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

from organon.config.schema import AdapterConfig, ModelConfig
from organon.config.spec import BaseModel
from organon.errors import ConfigError, SecurityError, UserError
from organon.models import hub
from organon.models.template import from_prompt_template
from organon.models.weight_files import PICKLES

EMBEDDED_ID = "organon/tiny"
EMBEDDED_FOLDER = Path(__file__).resolve().parents[1] / "embedded" / "tiny"

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
_HASHED_NAMES = frozenset(
    {
        *_TOKENIZERS,
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "merges.txt",
        "chat_template.json",
        "model.safetensors.index.json",
    }
)
_HASHED_SUFFIXES = (".safetensors", ".jinja")


class Memo(Protocol):
    """Remembers the hashes of big files between commands; the store is one."""

    def memo(self, namespace: str, key: str) -> str | None: ...

    def set_memo(self, namespace: str, key: str, value: str) -> None: ...


def resolve_base(
    model: ModelConfig,
    adapter: AdapterConfig,
    *,
    offline: bool = False,
    memo: Memo | None = None,
    max_length: int | None = None,
    needs_template: bool = True,
) -> BaseModel:
    """The base model that a config means today, named by its content.

    A local folder is checked and hashed (unchanged files once, with ``memo``). A hub id that is
    pinned to a commit costs no network; another revision is looked up in the local hub cache, then
    on the hub. ``ensure_available`` is the check before a hub model is used. ``max_length`` (tokens)
    is compared with the model's context. ``needs_template``: messages are to be written; raw text needs none.

    Raises:
        ConfigError: CFG-057 (no model named), CFG-064 (no such model, or not a model), CFG-058
            (``max_length``, ``prompt_template``, or a chat template is missing).
        SecurityError: SEC-065 (pickle weights), SEC-074 (the model brings code).
        UserError: CFG-064, the hub is needed and out of reach, or wants a login.
    """
    template = _named_template(model)
    folder = _local_folder(model)
    if folder is not None:
        needed = needs_template and template is None
        check_folder(folder, trust_remote_code=model.trust_remote_code, needs_template=needed)
        digest, hub_id, revision = folder_digest(folder, code=model.trust_remote_code, memo=memo), None, None
    else:
        hub_id = str(model.id)
        revision = hub.commit(hub_id, model.revision, offline=offline)
        digest = f"{hub_id}@{revision}"
    quantization = adapter.quantization if adapter.kind == "qlora" else "none"
    base = BaseModel(
        name=model.name,
        digest=digest,
        folder=str(folder) if folder else None,
        hub_id=hub_id,
        revision=revision,
        dtype=model.dtype,
        chat_template=template,
        quantization=quantization,
        double_quantization=adapter.double_quantization and quantization in ("nf4", "fp4"),
        compute_dtype=adapter.compute_dtype if quantization != "none" else "auto",
        trust_remote_code=model.trust_remote_code,
    )
    if max_length is not None:
        _check_length(base, max_length, model.context_length)
    return base


def model_folder(base: BaseModel) -> Path | None:
    """Where the files of ``base`` are on this machine: its folder, or its snapshot in the hub cache."""
    if base.folder is not None:
        return Path(base.folder)
    if base.hub_id is None or base.revision is None:
        return None
    snapshot = hub.snapshot_folder(base.hub_id, base.revision)
    return snapshot if (snapshot / "config.json").exists() else None


def public_name(base: BaseModel) -> str:
    """The base model's name in files that may be passed on: never a path of this machine."""
    if base.hub_id is not None:
        return base.hub_id
    if base.folder is not None and Path(base.folder) == EMBEDDED_FOLDER:
        return EMBEDDED_ID
    return f"local/sha256-{base.digest[:16]}"


def context_length(base: BaseModel) -> int | None:
    """The longest sequence (tokens) that the model was made for, from its config; None if it does not say."""
    return _config_number(base, "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")


def hidden_size(base: BaseModel) -> int | None:
    """The width of the model's hidden states, from its config; None if it does not say."""
    return _config_number(base, "hidden_size", "n_embd", "d_model")


def _config_number(base: BaseModel, *names: str) -> int | None:
    """The first of these fields that the config has, or its ``text_config`` (models that also see images)."""
    folder = model_folder(base)
    config = _read_json(folder / "config.json") if folder is not None else {}
    for part in (config, config.get("text_config")):
        for name in names:
            if isinstance(part, dict) and isinstance(part.get(name), int):
                return int(part[name])
    return None


def is_complete(base: BaseModel) -> bool:
    """Whether all files of ``base`` are on this machine, so that loading it needs no network."""
    folder = model_folder(base)
    return folder is not None and bool(weight_files(folder)) and all(file.is_file() for file in weight_files(folder))


def ensure_available(base: BaseModel, *, offline: bool = False, needs_template: bool = True) -> None:
    """Check, before anything is spent, that ``base`` can be loaded: its files are here or can be fetched.

    Of a hub model that is not in the local cache only the small files are fetched and checked.
    ``needs_template``: messages are to be written; raw text needs none.

    Raises:
        UserError: CFG-064, the hub is out of reach, or wants a login; says what would help.
        SecurityError, ConfigError: as ``resolve_base``.
    """
    needed = needs_template and base.chat_template is None
    folder = model_folder(base)
    if folder is not None and (base.folder is not None or is_complete(base)):
        check_folder(folder, trust_remote_code=base.trust_remote_code, needs_template=needed)
        return
    if base.hub_id is None or base.revision is None:
        raise ConfigError("the base model has neither a folder nor a hub id", code="CFG-064", where="model")
    small = [*sorted(_HASHED_NAMES - {"model.safetensors.index.json"}), "*.jinja"]
    snapshot = hub.fetch(base.hub_id, base.revision, small, offline=offline)
    check_folder(snapshot, trust_remote_code=base.trust_remote_code, needs_template=needed, weights=False)


def check_template(base: BaseModel) -> None:
    """Refuse (CFG-064) a base whose files are on this machine and give no chat template, nor does its config."""
    folder = model_folder(base)
    if folder is not None and base.chat_template is None:
        _check_template(folder, f"model {folder}")


def check_folder(folder: Path, *, trust_remote_code: bool, needs_template: bool, weights: bool = True) -> None:
    """Check that ``folder`` holds a model that can be loaded without running its code.

    ``needs_template``: it must bring a chat template, for the config names none. Raises as ``resolve_base``.
    """
    where = f"model {folder}"
    if not folder.is_dir():
        raise ConfigError("no such folder", code="CFG-064", where=where, fix="model.path=/path/of/a/model/folder")
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        raise ConfigError(
            "this is an adapter, not a base model" if adapter else "no config.json, so this is no model folder",
            code="CFG-064",
            where=where,
            fix="name the folder that `save_pretrained` or `hf download` wrote, with config.json and *.safetensors",
        )
    if (folder / "adapter_config.json").is_file():
        # transformers 5 loads both, so that an adapter that is merged already would count twice.
        raise ConfigError(
            "holds a model and an adapter, which transformers would put onto it",
            code="CFG-064",
            where=where,
            fix="move adapter_config.json and adapter_model.safetensors into a folder of their own (adapter_weights/)",
        )
    if weights:
        _check_weights(folder, where)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ConfigError(
            f"no tokenizer; looked for {', '.join(_TOKENIZERS)}",
            code="CFG-064",
            where=where,
            fix="copy the tokenizer's files into the folder (`tokenizer.save_pretrained(folder)`)",
        )
    if not trust_remote_code:
        _refuse_code(folder, where)
    if needs_template:
        _check_template(folder, where)


def _check_template(folder: Path, where: str) -> None:
    if not _has_template(folder):
        raise ConfigError(
            "the model has no chat template, so messages cannot be written as it expects them",
            code="CFG-064",
            where=where,
            fix="model.chat_template=path.jinja (a Jinja file; the instruct model of the same family has one), or "
            "model.prompt_template, a text around {input}",
        )


def folder_digest(folder: Path, *, code: bool = False, memo: Memo | None = None) -> str:
    """sha256 over the sorted names and sha256 of the files that decide what the model computes and reads.

    ``code``: its Python files too. A file whose path, size, time and inode ``memo`` knows is not read again.
    """
    total = hashlib.sha256()
    for file in sorted([*folder.iterdir(), *folder.glob("additional_chat_templates/*.jinja")]):
        hashed = file.name in _HASHED_NAMES or file.suffix in _HASHED_SUFFIXES or (code and file.suffix == ".py")
        if hashed and file.is_file():
            total.update(f"{file.relative_to(folder).as_posix()}\0{_file_digest(file, memo)}\n".encode())
    return total.hexdigest()


def _file_digest(file: Path, memo: Memo | None) -> str:
    stat = file.stat()
    key = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
    known = memo.memo("model_file", key) if memo else None
    if known is None:
        with file.open("rb") as stream:
            known = hashlib.file_digest(stream, "sha256").hexdigest()
        if memo:
            memo.set_memo("model_file", key, known)
    return known


def _local_folder(model: ModelConfig) -> Path | None:
    if model.path:
        return Path(model.path).expanduser().absolute()
    if not model.id:
        raise ConfigError(
            "no model is named", code="CFG-057", where="model", fix="model=tiny, or model.path=/path/of/a/model/folder"
        )
    return EMBEDDED_FOLDER if model.id == EMBEDDED_ID else None


def _named_template(model: ModelConfig) -> str | None:
    """The text of the chat template that the config names or whose prompt template it gives; None for neither."""
    path = model.chat_template
    if model.prompt_template is not None:
        if path is not None:
            raise ConfigError(
                "a prompt template and a chat template are both given; each says how messages are written",
                code="CFG-058",
                where="model.prompt_template",
                fix="keep one: model.chat_template=null, or model.prompt_template=null",
            )
        return from_prompt_template(model.prompt_template)
    if path is None:
        return None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"cannot read the chat template {path}: {reason}",
            code="CFG-064",
            where="model.chat_template",
            fix="name a Jinja file",
        ) from error


def _check_length(base: BaseModel, max_length: int, configured: int | None) -> None:
    limits = {"model.context_length": configured, "the model's config.json": context_length(base)}
    for source, limit in limits.items():
        if limit is not None and max_length > limit:
            raise ConfigError(
                f"{max_length} tokens are more than the model's context of {limit} ({source})",
                code="CFG-058",
                where="dataset.max_length",
                fix=f"dataset.max_length={limit}, or a model with a longer context",
            )


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: those the index lists, if there is one."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(_read_json(index).get("weight_map", {}).values()))]
    return sorted(folder.glob("*.safetensors"))


def _check_weights(folder: Path, where: str) -> None:
    files = weight_files(folder)
    if not files:
        raise _no_safetensors(folder, where)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(files)} weight files are missing: {', '.join(missing[:3])}",
            code="CFG-064",
            where=where,
            fix="download the model again; its index lists them",
        )


def _no_safetensors(folder: Path, where: str) -> UserError:
    pickles = sorted(f.name for f in folder.iterdir() if f.suffix in PICKLES and f.name != "training_args.bin")
    if not pickles:
        return ConfigError(
            "no *.safetensors, so the folder holds no weights",
            code="CFG-064",
            where=where,
            fix="download the model again, or name the folder that holds its weights",
        )
    return SecurityError(
        f"only pickle weights ({', '.join(pickles[:3])}), which can run code when they are read; refused",
        code="SEC-065",
        where=where,
        fix="use the model's safetensors revision, or convert it on a machine you trust with "
        "`AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)`",
    )


def _refuse_code(folder: Path, where: str) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        config = _read_json(folder / name) if (folder / name).exists() else {}
        if config.get("auto_map"):
            found = f"{name} has auto_map: the model wants to run code of its own ({str(config['auto_map'])[:80]})"
        # A repository's name in this field makes transformers fetch and run a kernel from there (CVE-2026-4372).
        elif "/" in str(config.get("_attn_implementation_internal") or config.get("_attn_implementation") or ""):
            found = f"{name} names an attention kernel on the hub, which would be fetched and run"
        else:
            continue
        raise SecurityError(
            f"{found}; refused",
            code="SEC-074",
            where=where,
            fix="take a model whose code is part of transformers; "
            "model.trust_remote_code=true if you have read the code and trust it",
        )


def _has_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(_read_json(config).get("chat_template"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot be read: {error}", code="CFG-064", where=str(path), fix="download the model again"
        ) from error
    if not isinstance(found, dict):
        raise ConfigError("is not a JSON object", code="CFG-064", where=str(path), fix="download the model again")
    return found
