"""Chat templates: made from a prompt template, looked at before they run (they are code from elsewhere), rendered.

transformers renders templates in Jinja's sandbox, which keeps them from files and processes, not from
filling the memory or going round for ever. What is refused here: access to Python's internals and constants
that compute huge texts (``template_check``), output far beyond the messages, a trial that takes longer than
2 s, and rendering that takes a hundred times as long as usual (both in the main thread, where a timer can
interrupt it). Not covered: a template that holds much memory for a moment, and slow ones in other threads.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from organon.errors import ConfigError, DataError, OrganonError
from organon.models.template_check import check_source, refused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_EXTRA_CHARACTERS = 2**20  # of a rendered text beyond its messages
TRIAL_SECONDS = 2.0
RENDER_SECONDS, SECONDS_PER_CHARACTER = 10.0, 1e-4  # for rows: a usual template needs a hundredth
SLOT = "{input}"
# Templates of Llama 3 write the day into each prompt, unless it is given. This is theirs where there is no
# clock: what was trained on one day is asked on another, and cached tokens outlive the day.
DATE = "26 Jul 2024"
NOON = datetime.datetime(2024, 7, 26, 12)  # the same day, for templates that read the clock themselves
PROBE = "Which text must be in the prompt? This one, with 9 of its words or more, 2 sentences and a number."

Messages = Sequence[Mapping[str, Any]]

_tried: set[str] = set()  # templates that were looked at in this process


def render(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Messages], *, prompt: bool, where: str = ""
) -> list[str]:
    """Each conversation as text by the tokenizer's chat template, with what opens an answer after it if ``prompt``.

    Raises:
        DataError: DATA-016, the template refuses a conversation (``where`` names it).
        DataError: DATA-019, the template leaves out what the user says.
        SecurityError: SEC-075, the template does what no chat template needs to.
        ConfigError: CFG-064, there is no template.
    """
    if not chats:
        return []
    _look_at(tokenizer)
    plain = [[{name: value for name, value in m.items() if name != "weight"} for m in chat] for chat in chats]
    sizes = [sum(len(message["content"]) for message in chat) for chat in plain]
    messages = sum(len(chat) for chat in plain)
    with trial(RENDER_SECONDS + (sum(sizes) + 100 * messages) * SECONDS_PER_CHARACTER, where):
        texts = _apply(tokenizer, plain, prompt, where)
    for written, text in zip(sizes, texts, strict=True):
        if len(text) > written + MAX_EXTRA_CHARACTERS:
            raise refused(f"makes {len(text):,} characters of messages with {written:,}", where)
    return texts


def _apply(
    tokenizer: PreTrainedTokenizerBase, chats: list[list[dict[str, Any]]], prompt: bool, where: str
) -> list[str]:
    import jinja2

    source = tokenizer.get_chat_template()
    if "strftime_now" in source:
        source = _stopped_clock() + source
    try:
        rendered = tokenizer.apply_chat_template(
            chats, chat_template=source, tokenize=False, add_generation_prompt=prompt, date_string=DATE
        )
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


@functools.cache
def _stopped_clock() -> str:
    """A macro in the place of transformers' ``strftime_now``: for it, it is always ``NOON``."""
    times = {f"%{letter}": NOON.strftime(f"%{letter}") for letter in "aAbBdfHIjmMpSuUVwWyYG"}
    times |= {f"%-{letter}": times[f"%{letter}"].lstrip("0") or "0" for letter in "dHIjmMSyUVW"}
    times |= {"%e": times["%d"], "%F": NOON.strftime("%Y-%m-%d"), "%T": NOON.strftime("%H:%M:%S")}
    replaced = "".join(f"|replace('{directive}', '{value}')" for directive, value in times.items())
    # The line's end belongs to the tag (trim_blocks), so the template begins a line, as without the macro.
    return f"{{%- macro strftime_now(format) -%}}{{{{- format{replaced} -}}}}{{%- endmacro %}}\n"


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
    written = True
    with trial(TRIAL_SECONDS), contextlib.suppress(DataError):  # it may want other messages; the rows will show
        [text] = _apply(tokenizer, [[{"role": "user", "content": PROBE}]], True, "model.chat_template")
        written = without_space(PROBE) in without_space(text)
    if not written:
        raise DataError(
            "the chat template leaves the user's message out of the prompt, or changes its text",
            code="DATA-019",
            where="model.chat_template",
            fix="model.chat_template=path.jinja, a template that writes message.content, a text, as it is",
        )
    _tried.add(source)


def without_space(text: str) -> str:
    """What is left to be compared where a template may strip a text or the lines in it."""
    return "".join(text.split())


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


@contextlib.contextmanager
def trial(seconds: float, where: str = "") -> Iterator[None]:
    """Stop the block after so many ``seconds``; only in the main thread, elsewhere it runs on.

    Raises:
        SecurityError: SEC-075, it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise refused(f"takes longer than {seconds:.0f} s for these messages", where)

    earlier, started = signal.signal(signal.SIGALRM, stop), time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier if earlier is not None else signal.SIG_DFL)
        if left:  # somebody else's timer goes on
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-3), interval)
