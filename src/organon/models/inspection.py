"""``organon model check``: what is it, are its weights sound, which base does it need, does it differ from it?

Torch is imported only where models are compared or values read.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from organon.config.spec import BaseModel
from organon.data import read_rows
from organon.errors import DataError, UserError
from organon.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_base_name, read_adapter
from organon.models.checkpoint import Found
from organon.models.folder import check_folder, model_folder, public_name
from organon.models.weight_files import TensorInfo, check_finite, read_header

if TYPE_CHECKING:
    from organon.models.compare import Comparison

# As in cruijff-kit's check_if_model_is_finetuned.
PERPLEXITY_THRESHOLD = 0.5
LOGIT_THRESHOLD = 0.01


@dataclass(frozen=True)
class Weights:
    """What the weight files hold; ``ranks`` of an adapter's modules."""

    files: int
    tensors: int
    values: int
    bytes: int
    ranks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Report:
    """What was found. ``verdict``: same or different, None where there was nothing to compare with."""

    kind: str
    folder: str
    base: str | None
    base_is_here: bool
    how_to_get_the_base: str | None
    weights: Weights
    comparison: Comparison | None = None
    verdict: str | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": True, **asdict(self)}


def inspect(
    found: Found,
    *,
    perplexity_threshold: float,
    logit_threshold: float,
    compared: bool = True,
    data: Path | None = None,
    prompts: int = 8,
    device: str | None = None,
) -> Report:
    """Check the files of ``found`` and, if ``compared`` and its base is on this machine, compare it with that.

    ``data``: a file of texts or rows to compare on, of which the first ``prompts`` are taken.

    Raises:
        UserError: CKPT-067 to CKPT-071: damaged, not finite, or not of the base that ``found`` names.
        SecurityError: SEC-065, SEC-073, SEC-074.
    """
    weights = _weights(found)
    report = Report(
        kind=found.kind,
        folder=str(found.folder),
        base=found.base_name,
        base_is_here=found.base_is_here,
        how_to_get_the_base=None if found.base_is_here else found.how_to_get_the_base,
        weights=weights,
        note=found.note,
    )
    if found.base is None or not found.base_is_here or not compared:
        return report
    comparison = _compare(found, found.base, data, prompts, device)
    same = comparison.same(perplexity_threshold, logit_threshold)
    return replace(report, comparison=comparison, verdict="same" if same else "different")


def _weights(found: Found) -> Weights:
    if found.base is not None:
        check_base_name(found.folder, found.base_name, found.revision, public_name(found.base), found.base.revision)
    if found.kind == "adapter":
        adapter = read_adapter(found.folder)
        files, ranks = [found.folder / ADAPTER_WEIGHTS], tuple(sorted(set(adapter.ranks.values())))
    else:
        if not found.note:
            check_folder(found.folder, trust_remote_code=False, needs_template=False)
        files, ranks = _model_files(found.folder), ()
    headers = [read_header(file) for file in files]
    if found.kind != "adapter":
        for file in files:
            check_finite(file)
        if found.base is not None and found.base_is_here:
            _check_same_model(found, found.base, headers)
    tensors = [info for header in headers for info in header.values()]
    values = sum(math.prod(info.shape) for info in tensors)
    return Weights(len(files), len(tensors), values, sum(file.stat().st_size for file in files), ranks)


def _model_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("adapter_"))


def _check_same_model(found: Found, base: BaseModel, headers: Sequence[dict[str, TensorInfo]]) -> None:
    """Tensors of the same name have the same shape in a model and in its base (CKPT-071)."""
    folder = model_folder(base)
    theirs = {n: i.shape for file in _model_files(folder) for n, i in read_header(file).items()} if folder else {}
    ours = {name: info.shape for header in headers for name, info in header.items()}
    both = ours.keys() & theirs.keys()
    other = next((name for name in sorted(both) if ours[name] != theirs[name]), None)
    if other is None and both:
        return
    reason = f"{other} is {ours[other]} here and {theirs[other]} there" if other else "no tensor has the same name"
    raise UserError(
        f"it is no model of the base {public_name(base)}: {reason}",
        code="CKPT-071",
        where=str(found.folder),
        fix="name the base that it was trained on: --base",
    )


def _compare(found: Found, base: BaseModel, data: Path | None, prompts: int, device: str | None) -> Comparison:
    from organon.models.compare import TEXTS, compare
    from organon.models.load import load_base, load_tokenizer
    from organon.models.probe import encode

    tokenizer = load_tokenizer(base)
    tokens = encode(tokenizer, TEXTS[:prompts]) if data is None else _tokens(tokenizer, data, prompts)
    if found.kind != "adapter":
        alone = replace(base, quantization="none", compute_dtype="auto")
        with _model_alone(found.folder) as folder:
            whole = replace(alone, folder=str(folder), hub_id=None, revision=None, digest="")
            return compare(lambda: load_base(alone, device=device), lambda: load_base(whole, device=device), tokens)
    return compare(*_on_and_off(found, base, device), tokens)


@contextlib.contextmanager
def _model_alone(folder: Path) -> Iterator[Path]:
    """``folder`` without an adapter that lies in it, which transformers would put onto the model."""
    if not (folder / ADAPTER_CONFIG).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="organon-") as view:
        for file in folder.iterdir():
            if not file.name.startswith("adapter_"):
                (Path(view) / file.name).symlink_to(file.absolute())
        yield Path(view)


def _on_and_off(found: Found, base: BaseModel, device: str | None) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The base, and the same one with the adapter on it."""
    from organon.models.adapters import attach_adapter
    from organon.models.load import load_base

    loaded: list[Any] = []

    def off() -> Any:
        loaded.append(load_base(base, device=device))
        return loaded[0]

    return off, lambda: attach_adapter(loaded[0], found.folder, base=base)


def _tokens(tokenizer: Any, file: Path, count: int) -> list[list[int]]:
    """The first ``count`` texts of a file: lines of a .txt, else rows as a training reads them."""
    from organon.models.chat import encode_row

    if file.suffix == ".txt":
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read: {error}", code="DATA-027", where=str(file), fix="--data FILE") from error
        rows: list[Any] = [{"text": line} for line in lines if line.strip()][:count]
    else:
        rows = list(read_rows(file, _format(file), limit=count))
    if not rows:
        raise DataError("holds no texts", code="DATA-001", where=str(file), fix="one text a line, or rows of messages")
    return [encode_row(tokenizer, row, where=f"{file}:{n}")[0][0] for n, row in enumerate(rows, start=1)]


def _format(file: Path) -> str:
    """By the fields of the first row; ``read_rows`` says what is wrong with the file, if anything is."""
    try:
        with file.open(encoding="utf-8") as lines:
            first = json.loads(next(line for line in lines if line.strip()))
    except (OSError, ValueError, StopIteration):
        return "messages"
    kinds = {"messages": "messages", "text": "text", "chosen": "preference", "output": "instruct"}
    return next((kind for name, kind in kinds.items() if isinstance(first, dict) and name in first), "messages")
