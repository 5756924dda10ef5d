"""Secrets out of text, before it is written, shown or sent.

Two nets, because each alone has holes: the exact values of environment variables that are named like
secrets (in the encodings a value meets on its way into a log), and the shapes of well-known keys.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
SECRET_ENV_SUFFIXES = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
MIN_SECRET_LENGTH = 8  # shorter values ("1", "true") are words of ordinary text too

_SECRET_NAME = (
    r"(?:(?:api|access|secret|private|signing|auth|client|session|hf|hub|wandb|github)[_-]?(?:key|token|secret)"
    r"|password|passwd|passphrase|secret)"
)
_IS_SECRET_NAME = re.compile(rf".*{_SECRET_NAME}", re.IGNORECASE)
_IS_COMMIT_NAME = re.compile(r"(?:.*[_.-])?(?:commit|revision|sha|digest)", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}")

_SHAPES = [
    re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}"),  # OpenAI, Anthropic (sk-ant-), OpenRouter ...
    re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{24,}"),  # Hugging Face
    re.compile(r"(?<![A-Za-z0-9])wandb_v\d+_[A-Za-z0-9_-]{16,}"),
    re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}"),  # AWS
    re.compile(r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[\w-]{20,})"),
    re.compile(r"(?<![A-Za-z0-9])AIza[0-9A-Za-z_-]{35}"),  # Google
    re.compile(r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,}"),  # Slack
    re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+"),  # JWT
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)"),  # user:password@ of a URL
]
# The part before the secret stays, so that a reader sees what was there. The value must not go on as code
# does (`password = settings.password`, `api_key=load()`), or every diff would lose such lines.
_IN_CONTEXT = [
    re.compile(r"(\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"(\bauthorization\W{1,4}basic\s+)[A-Za-z0-9+/=]{8,}", re.IGNORECASE),
    re.compile(rf"({_SECRET_NAME}[\"']?\s*[=:]\s*[\"']?)[A-Za-z0-9+/=_~%-]{{8,}}+(?![\w.(\[])", re.IGNORECASE),
]
# wandb's old keys look like git commits: 40 hex digits. What the words before it call a commit stays.
_HEX40 = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")
_BEFORE_COMMIT = re.compile(
    r"(?:(?:commit|revision|sha1?|rev|digest|snapshots|blobs|tree)[\"'\s:=/@-]{1,4}|[\w.-]@)\Z", re.IGNORECASE
)
_LINE_WRAP = r"(?:\\?\r?\n[ \t]*)?"


def redact(text: str, environ: Mapping[str, str] | None = None) -> str:
    """``text`` with every secret replaced by ``[redacted]``.

    ``environ`` (default: this process's) tells the exact values to look for. Redacting twice changes nothing.
    """
    forms = _forms_of(_secret_values(os.environ if environ is None else environ))
    flat = re.sub(r"\\?\r?\n[ \t]*", "", text) if forms and "\n" in text else ""
    for form in forms:
        text = text.replace(form, REDACTED)
        if form in flat:  # a terminal or an encoder broke the value over lines
            text = re.sub(_LINE_WRAP.join(map(re.escape, form)), REDACTED, text)
    for shape in _SHAPES:
        text = shape.sub(REDACTED, text)
    for pattern in _IN_CONTEXT:
        text = pattern.sub(rf"\1{REDACTED}", text)
    return _HEX40.sub(_keep_commit, text)


def _keep_commit(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - 90) : match.start()]
    return match[0] if _BEFORE_COMMIT.search(before) else REDACTED


def holds_secret(text: str, environ: Mapping[str, str] | None = None) -> bool:
    """Whether the exact value of a secret environment variable is in ``text``, in any encoding."""
    return any(form in text for form in _forms_of(_secret_values(os.environ if environ is None else environ)))


def redact_tree(value: Any, environ: Mapping[str, str] | None = None) -> Any:
    """``value`` (nested dicts, lists and tuples) with every string redacted, keys included.

    What stands under a key named like a secret goes whole; a git commit under a key named like one stays.
    """
    if isinstance(value, str):
        return redact(value, environ)
    if isinstance(value, Mapping):
        return {redact(str(key), environ): _redact_entry(str(key), item, environ) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_tree(item, environ) for item in value]
    return value


def _redact_entry(key: str, value: Any, environ: Mapping[str, str] | None) -> Any:
    if isinstance(value, str) and value:
        if _IS_SECRET_NAME.fullmatch(key):
            return REDACTED
        if _IS_COMMIT_NAME.fullmatch(key) and _COMMIT.fullmatch(value):
            return value
    return redact_tree(value, environ)


def _secret_values(environ: Mapping[str, str]) -> tuple[str, ...]:
    found = {
        value
        for name, value in environ.items()
        if name.upper().endswith(SECRET_ENV_SUFFIXES) and len(value) >= MIN_SECRET_LENGTH
    }
    return tuple(sorted(found))


@lru_cache(maxsize=8)
def _forms_of(values: tuple[str, ...]) -> tuple[str, ...]:
    forms = {form for value in values for form in _encodings(value)}
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))  # a long form may hold a short one


def _encodings(value: str) -> set[str]:
    forms = {value, quote(value, safe=""), quote(value), quote_plus(value)}
    forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    raw = value.encode("utf-8", "surrogateescape")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        forms.add(encode(raw).decode())
        for shift in range(3):  # the value somewhere inside what was encoded, as in `user:password`
            inner = encode(b"\0" * shift + raw).decode()
            forms.add(inner[(0, 2, 3)[shift] : (len(raw) + shift) * 8 // 6])
    return {form for form in forms if len(form) >= MIN_SECRET_LENGTH and form not in REDACTED}
