"""One base model in memory, its adapters switched on and off, and batches of answers from it.

Shapes: B sequences, T tokens of the longest prompt, N new tokens, V vocabulary.
Torch, transformers and peft are imported when the first model is loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import hashlib
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from organon.config.spec import BaseModel, identity
from organon.errors import DataError, EvaluationError
from organon.evals.batching import Batcher
from organon.store.keys import canonical

if TYPE_CHECKING:
    import torch

    from organon.models.chat import EndOfTurn

KEPT_ADAPTERS = 8  # loaded side by side on one base; the longest unused goes first


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. ``temperature`` 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """One request: token ids in, an answer of at most ``max_new_tokens`` out."""

    tokens: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling
    adapter: str | None = None  # folder
    seed: int = 0  # of this request alone: its answer does not depend on its batch

    @property
    def group(self) -> tuple[Any, ...]:
        return self.adapter, self.max_new_tokens, self.sampling

    @property
    def order(self) -> tuple[int, tuple[int, ...], int]:
        return len(self.tokens), self.tokens, self.seed


@dataclass(frozen=True)
class Answer:
    """What came out: the text without the stop string, the count of tokens, and why it ended."""

    text: str
    tokens: int
    ended: bool  # by an end token or a stop string, not by the limit


@dataclass(eq=False)
class LoadedBase:
    """A base model on a device. ``generate`` may be called from any thread; one batch at a time."""

    model: Any  # PreTrainedModel, or the PeftModel around it once an adapter was loaded
    tokenizer: Any
    base: BaseModel | None = None  # what `model` is, for adapters to be compared with
    adapters: dict[str, str] = field(default_factory=dict)  # folder -> peft's name, least recently used first
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _batchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Batcher[Prompt, Answer]] = field(
        default_factory=weakref.WeakKeyDictionary
    )

    async def answer(self, prompt: Prompt, batch_size: int) -> Answer:
        """The answer to one prompt, computed together with those that wait at the same time."""
        batcher = self._batchers.setdefault(asyncio.get_running_loop(), Batcher(self.generate, batch_size))
        batcher.batch_size = batch_size
        return await batcher.submit(prompt)

    @property
    def context_length(self) -> int | None:
        """Tokens of prompt and answer together, where the model says so."""
        length = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(length) if length else None

    @functools.cached_property
    def end(self) -> EndOfTurn:
        """What the chat template ends an answer with, and training teaches. The model's own may be another's."""
        from organon.models.chat import EndOfTurn, end_of_turn

        none = EndOfTurn(frozenset(), "")
        if self.tokenizer.chat_template is None:
            return none
        try:
            found = end_of_turn(self.tokenizer)
        except DataError:  # a template for other conversations than one question and its answer
            found = none
        if found == none:
            logger.warning("the chat template marks no end of an answer: only the model's own end tokens end one")
        return found

    def generate(self, prompts: Sequence[Prompt], abandoned: Callable[[], bool] = lambda: False) -> list[Answer]:
        """Answers to prompts of one ``group``, in their order.

        Halves the batch when the GPU's memory runs out. Raises EvaluationError when one prompt
        alone does not fit.
        """
        import torch

        with self._lock, self._switched(prompts[0].adapter), torch.inference_mode():
            return self._generate(list(prompts), abandoned)

    def _generate(self, prompts: list[Prompt], abandoned: Callable[[], bool]) -> list[Answer]:
        import torch

        try:
            return self._batch(prompts, abandoned)
        except torch.OutOfMemoryError as error:
            if len(prompts) == 1:
                raise EvaluationError(
                    f"a prompt of {len(prompts[0].tokens)} tokens does not fit into the GPU's memory",
                    code="EVAL-OOM",
                    fix="lower eval.generation.max_tokens, or quantise the base (adapter.quantization=nf4)",
                ) from error
        # Outside the except block: the failed batch's tensors live as long as its traceback does.
        torch.cuda.empty_cache()
        half = len(prompts) // 2
        logger.warning("out of GPU memory with {} sequences: trying {}", len(prompts), half)
        return self._generate(prompts[:half], abandoned) + self._generate(prompts[half:], abandoned)

    def _batch(self, prompts: list[Prompt], abandoned: Callable[[], bool]) -> list[Answer]:
        import torch

        device = self.model.device
        width = max(len(p.tokens) for p in prompts)
        pad = _pad_token(self.model, self.tokenizer)
        ids = torch.tensor([[pad] * (width - len(p.tokens)) + list(p.tokens) for p in prompts])  # B T
        mask = torch.tensor([[0] * (width - len(p.tokens)) + [1] * len(p.tokens) for p in prompts])  # B T
        stop = (*prompts[0].sampling.stop, *([self.end.text] if self.end.text else []))
        ends = _Ends(self.tokenizer, stop, width, len(prompts), abandoned)
        eos = _end_tokens(self.model) | self.end.tokens
        out = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=_greedy_config(self.model, pad, prompts[0].max_new_tokens, eos),
            logits_processor=_processors(prompts, width, device),
            stopping_criteria=[ends],
        )[:, width:]  # B N
        return [self._answer(row, eos, ends.lengths[i], stop) for i, row in enumerate(out.tolist())]

    def _answer(self, row: list[int], eos: set[int], stopped_at: int | None, stop: tuple[str, ...]) -> Answer:
        end = next((i + 1 for i, token in enumerate(row) if token in eos), None)
        length = min(n for n in (end, stopped_at, len(row)) if n is not None)
        text = self.tokenizer.decode(row[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        cuts = [text.find(each) for each in stop if each in text]
        return Answer(text[: min(cuts)] if cuts else text, length, end is not None or bool(cuts))

    def _switched(self, adapter: str | None) -> Any:
        """A context in which the model answers with ``adapter``, or as the bare base for None."""
        if adapter is not None:
            self._activate(adapter)
        elif self.adapters:
            return self.model.disable_adapter()
        return contextlib.nullcontext()

    def _activate(self, folder: str) -> None:
        name = self.adapters.pop(folder, None)
        if name is None:
            name = f"a{hashlib.sha256(folder.encode()).hexdigest()[:12]}"
            self._load_adapter(folder, name)
        self.adapters[folder] = name
        self.model.set_adapter(name)
        while len(self.adapters) > KEPT_ADAPTERS:
            oldest = next(iter(self.adapters))
            self.model.delete_adapter(self.adapters.pop(oldest))

    def _load_adapter(self, folder: str, name: str) -> None:
        from organon.models.adapters import attach_adapter

        self.model = attach_adapter(self.model, folder, name, base=self.base)
        self.model.eval()


_loaded: dict[str, LoadedBase] = {}
_failed: dict[str, Exception] = {}
_loading = threading.Lock()


async def loaded_base(base: BaseModel, device: str | None = None, adapter: str | None = None) -> LoadedBase:
    """The one copy of ``base`` on ``device`` in this process; loaded, in a thread, at the first call.

    ``adapter``: the folder of the adapter to come; one that changes the base itself gets a copy of its own.
    """
    from organon.models.adapter_files import changes_base

    own = adapter if adapter is not None and changes_base(Path(adapter)) else None
    key = canonical({"base": identity(base), "device": device, "own": own})
    found = _loaded.get(key)
    return found if found is not None else await asyncio.to_thread(_load_once, key, base, device)


def _load_once(key: str, base: BaseModel, device: str | None) -> LoadedBase:
    with _loading:
        if key in _failed:  # each sample would try again, for minutes where a hub does not answer
            raise _failed[key]
        if key not in _loaded:
            try:
                _loaded[key] = _load(base, device)
            except Exception as error:
                _failed[key] = error
                raise
        return _loaded[key]


def release() -> None:
    """Forget every loaded base, so that its memory is freed once no evaluation uses it."""
    with _loading:
        _loaded.clear()
        _failed.clear()


def _load(base: BaseModel, device: str | None) -> LoadedBase:
    from organon.models.load import load_base, load_tokenizer

    logger.info("loading {} for evaluation", base.name)
    model = load_base(base, device=device)
    model.eval()
    return LoadedBase(model, load_tokenizer(base), base)


def _greedy_config(model: Any, pad: int, max_new_tokens: int, eos: set[int]) -> Any:
    """The model's own generation settings (repetition penalty and the like), but greedy, ended by ``eos``.

    Sampling is done by ``_Seeded``: transformers draws one stream of random numbers for a whole
    batch, so that a request's answer would depend on its neighbours.
    """
    config = copy.deepcopy(model.generation_config)
    config.update(do_sample=False, temperature=1.0, top_p=1.0, top_k=50, typical_p=1.0, min_p=None)
    config.update(epsilon_cutoff=0.0, eta_cutoff=0.0)  # neutral values: left unset, the model's own return
    config.max_length = None
    config.max_new_tokens = max_new_tokens
    config.pad_token_id = pad
    config.eos_token_id = sorted(eos) or None
    return config


def _processors(prompts: list[Prompt], width: int, device: torch.device) -> list[Any]:
    sampling = prompts[0].sampling
    if sampling.temperature == 0:
        return []
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers: list[Any] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return [*warpers, _Seeded([p.seed for p in prompts], width, prompts[0].max_new_tokens, device)]


class _Seeded:
    """Draws each row's next token by inverting its distribution at a uniform number of its own."""

    def __init__(self, seeds: list[int], width: int, steps: int, device: torch.device) -> None:
        import torch

        rows = [torch.rand(steps, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.uniform = torch.stack(rows).to(device)  # B N
        self.width = width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores`` (B V) with all but the drawn token at minus infinity."""
        import torch

        step = input_ids.shape[1] - self.width
        cumulative = torch.softmax(scores, dim=-1).cumsum(dim=-1)  # B V
        total = cumulative[:, -1:]  # B 1, one but for rounding
        point = torch.minimum(self.uniform[:, step : step + 1] * total, torch.nextafter(total, torch.zeros_like(total)))
        token = torch.searchsorted(cumulative, point, right=True)  # B 1
        return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)


class _Ends:
    """Ends a row at a stop string, and every row once nobody waits for the batch."""

    def __init__(
        self, tokenizer: Any, stop: tuple[str, ...], width: int, rows: int, abandoned: Callable[[], bool]
    ) -> None:
        self.tokenizer, self.stop, self.width, self.abandoned = tokenizer, stop, width, abandoned
        self.lengths: list[int | None] = [None] * rows
        # A token holds at least a byte, but for a few that end an earlier character.
        self.tail = max((len(s.encode()) for s in stop), default=0) + 4

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Which rows (B) are done."""
        import torch

        if self.abandoned():
            return torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if not self.stop:
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        tails = input_ids[:, max(self.width, input_ids.shape[1] - self.tail) :]
        texts = self.tokenizer.batch_decode(tails, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for i, text in enumerate(texts):
            if self.lengths[i] is None and any(s in text for s in self.stop):
                self.lengths[i] = input_ids.shape[1] - self.width
        return torch.tensor([n is not None for n in self.lengths], device=input_ids.device)


def _end_tokens(model: Any) -> set[int]:
    eos = model.generation_config.eos_token_id
    return set() if eos is None else {eos} if isinstance(eos, int) else set(eos)


def _pad_token(model: Any, tokenizer: Any) -> int:
    """Any token does: padding is masked. None is added, which would resize the embedding."""
    for token in (tokenizer.pad_token_id, model.generation_config.pad_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    return 0
