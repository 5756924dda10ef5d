"""Chat templates: made from a prompt template, looked at before they run (they are code from elsewhere), rendered.

transformers renders templates in Jinja's sandbox, which keeps them from files and processes, not from
filling the memory or going round for ever. What is refused here: access to Python's internals, constants
that compute huge texts, output far beyond the messages, and a trial that takes longer than 2 s (in the main
thread, where a timer can interrupt it). Not covered: a template that is slow on some messages only, one
that holds much memory for a moment, and slow templates in other threads.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from organon.errors import ConfigError, DataError, OrganonError, SecurityError

if TYPE_CHECKING:
    from jinja2 import nodes
    from transformers import PreTrainedTokenizerBase

MAX_EXTRA_CHARACTERS = 2**20  # of a rendered text beyond its messages
TRIAL_SECONDS = 2.0
SLOT = "{input}"
# Templates of Llama 3 write the day into each prompt, unless it is given. This is theirs where there is no
# clock: what was trained on one day is asked on another, and cached tokens outlive the day.
DATE = "26 Jul 2024"

Messages = Sequence[Mapping[str, Any]]

_tried: set[str] = set()  # templates that were looked at in this process
_GENERATION_TAG = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
_INTERNAL = re.compile(r"(?:^|\.)__\w")


def render(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Messages], *, prompt: bool, where: str = ""
) -> list[str]:
    """Each conversation as text by the tokenizer's chat template, with what opens an answer after it if ``prompt``.

    Raises:
        DataError: DATA-016, the template refuses a conversation (``where`` names it).
        SecurityError: SEC-075, the template does what no chat template needs to.
        ConfigError: CFG-064, there is no template.
    """
    if not chats:
        return []
    _look_at(tokenizer)
    plain = [[{name: value for name, value in m.items() if name != "weight"} for m in chat] for chat in chats]
    texts = _apply(tokenizer, plain, prompt, where)
    for chat, text in zip(plain, texts, strict=True):
        written = sum(len(message["content"]) for message in chat)
        if len(text) > written + MAX_EXTRA_CHARACTERS:
            raise refused(f"makes {len(text):,} characters of messages with {written:,}", where)
    return texts


def _apply(
    tokenizer: PreTrainedTokenizerBase, chats: list[list[dict[str, Any]]], prompt: bool, where: str
) -> list[str]:
    import jinja2

    try:
        rendered = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=prompt, date_string=DATE)
    except OrganonError:  # from the timer of a trial
        raise
    except jinja2.exceptions.SecurityError as error:
        raise refused(f"wants what the sandbox forbids: {error}", where) from error
    except (MemoryError, OverflowError) as error:
        raise refused(f"wants too much: {error or 'out of memory'}", where) from error
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise DataError(
            f"the model's chat template refuses these messages: {error}",
            code="DATA-016",
            where=where,
            fix="bring the roles into the order that the template wants, or name another one: "
            "model.chat_template=path.jinja",
        ) from error
    return [str(text) for text in rendered]


def _look_at(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check the tokenizer's template before it runs for the first time in this process."""
    try:
        source = tokenizer.get_chat_template()
    except ValueError as error:
        raise ConfigError(
            "the tokenizer has no chat template, so messages cannot be written as the model expects them",
            code="CFG-064",
            where="model.chat_template",
            fix=f"model.chat_template=path.jinja, or model.prompt_template, a text around {SLOT}",
        ) from error
    if source in _tried:
        return
    check_source(source)
    with trial(), contextlib.suppress(DataError):  # it may want other messages; the rows will show
        _apply(tokenizer, [[{"role": "user", "content": "a"}]], True, "model.chat_template")
    if "strftime_now" in source and "date_string" not in source:
        _warn_of_the_clock()
    _tried.add(source)


def _warn_of_the_clock() -> None:
    from loguru import logger

    logger.warning(
        "the chat template writes today's date into each prompt: on another day the model is asked otherwise"
    )


def from_prompt_template(text: str) -> str:
    r"""The chat template that writes each user message into ``text`` in the place of ``{input}``.

    ``"Q: {input}\nA:"`` becomes: the tokenizer's begin token if it has one, a system message and a blank
    line, then for each turn ``Q: ...\nA:``, the answer, and the tokenizer's end token. Nothing else in
    ``text`` has a meaning.

    Raises:
        ConfigError: CFG-058, ``{input}`` is not in it exactly once.
    """
    count = text.count(SLOT)
    if count != 1:
        raise ConfigError(
            f"{text!r} has {SLOT} {count} times, it must be there exactly once"
            if count
            else f"{text!r} lacks {SLOT}, the place of the user's message",
            code="CFG-058",
            where="model.prompt_template",
            fix=f"model.prompt_template='\"Question: {SLOT} Answer:\"' on the command line; in YAML \\n is a new line",
        )
    before, after = (_literal(part) for part in text.split(SLOT))
    return (
        "{{- bos_token if bos_token is defined and bos_token else '' -}}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'system' -%}{{- message['content'] + '\\n\\n' -}}"
        f"{{%- elif message['role'] == 'user' -%}}{{{{- {before} + message['content'] + {after} -}}}}"
        "{%- elif message['role'] == 'assistant' -%}"
        "{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}"
        "{%- else -%}{{- raise_exception('a prompt template has no place for the role ' + message['role']) -}}"
        "{%- endif -%}{%- endfor -%}"
    )


def _literal(text: str) -> str:
    """``text`` as a string in Jinja, in characters that no template syntax is made of."""
    escaped = text.encode("unicode_escape").decode("ascii")
    return "'" + re.sub(r"['{}%#]", lambda found: f"\\x{ord(found.group()):02x}", escaped) + "'"


def check_source(template: str) -> None:
    """Look at a template without running it; a syntax error is left to the one who renders it.

    Raises:
        SecurityError: SEC-075, it reaches for Python's internals or computes a huge constant.
    """
    import jinja2
    from jinja2 import nodes

    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False)
    try:
        tree = environment.parse(_GENERATION_TAG.sub("", template))
    except jinja2.TemplateSyntaxError:
        return
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Name, nodes.Mul, nodes.Pow)):
        for name in _names(node):
            if _INTERNAL.search(name):
                raise refused(f"uses `{name[:60]}`, a part of Python's internals")
        if isinstance(node, (nodes.Mul, nodes.Pow)) and (_magnitude(node) or 0) > MAX_EXTRA_CHARACTERS:
            raise refused("computes a constant of more than 1 MiB")


def _names(node: nodes.Node) -> list[str]:
    """The attribute names that a node asks for, as far as they are written out."""
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr):
        return [node.attr]
    if isinstance(node, nodes.Name):
        return [node.name]
    found: list[Any] = []
    if isinstance(node, nodes.Getitem):
        found = [node.arg]
    elif isinstance(node, nodes.Filter):
        found = [*(node.args or ()), *(pair.value for pair in node.kwargs or ())]
    return [each.value for each in found if isinstance(each, nodes.Const) and isinstance(each.value, str)]


def _magnitude(node: nodes.Node) -> float | None:
    """How large a constant expression is: characters of a text, items of a list, a number's value. None: not constant.

    Jinja computes constants when it compiles, before any limit of ours could act.
    """
    from jinja2 import nodes

    if isinstance(node, nodes.Const):
        return float(len(node.value)) if isinstance(node.value, str) else abs(float(node.value or 0))
    if isinstance(node, (nodes.List, nodes.Tuple)):
        return float(len(node.items))
    if isinstance(node, (nodes.Mul, nodes.Pow)):
        left, right = _magnitude(node.left), _magnitude(node.right)
        if left is None or right is None:
            return None
        with contextlib.suppress(OverflowError):
            return float(left * right if isinstance(node, nodes.Mul) else left**right)
        return float("inf")
    return None


@contextlib.contextmanager
def trial() -> Iterator[None]:
    """Stop the block after ``TRIAL_SECONDS``; only in the main thread, elsewhere it runs on.

    Raises:
        SecurityError: SEC-075, it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise refused(f"takes longer than {TRIAL_SECONDS:.0f} s for one short message")

    earlier, started = signal.signal(signal.SIGALRM, stop), time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, TRIAL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier if earlier is not None else signal.SIG_DFL)
        if left:  # somebody else's timer goes on
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-3), interval)


def refused(why: str, where: str = "") -> SecurityError:
    """SEC-075 for a template that does what no chat template needs to."""
    return SecurityError(
        f"the chat template {why}; refused",
        code="SEC-075",
        where=where or "model.chat_template",
        fix="take the template from the model's own publisher, or name one that you have read: "
        "model.chat_template=path.jinja",
    )
