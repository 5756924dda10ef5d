"""S1: planted secrets never survive ``redact``, and ordinary text does."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import textwrap
import time
from urllib.parse import quote, quote_plus

import pytest

from organon.redact import REDACTED, redact, redact_tree

# An odd value on purpose: characters that URL, JSON and base64 encodings all change.
CANARY = 'Zx9/+q"7=canary&é~Kw3!'
ENV = {"ACME_API_KEY": CANARY}

SHAPES = {
    "openai": "sk-proj-Abc123Def456Ghi789Jkl012",
    "anthropic": "sk-ant-api03-Abc123Def456-Ghi789_Jkl012",
    "hugging face": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567",
    "wandb": "wandb_v1_AbCdEfGhIjKlMnOpQrStUv",
    "wandb, old": "0123456789abcdef0123456789abcdef01234567",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "github": "ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
    "gitlab": "glpat-AbCdEfGhIjKlMnOpQrSt",
    "google": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "slack": "xoxb-123456789012-AbCdEfGhIj",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dBjftJeZ4CVPmB92K27uhbUJU1p1r",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nbM2x\n-----END RSA PRIVATE KEY-----",
}


def base64_inside(value: str, prefix: str) -> str:
    return base64.b64encode(f"{prefix}{value}:tail".encode()).decode()


@pytest.mark.parametrize("secret", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("frame", ["{}", 'key "{}" refused', "--token={} --limit=3", "https://x.org/?k={}&n=1", "({})"])
def test_known_shapes_are_redacted(secret: str, frame: str) -> None:
    clean = redact(frame.format(secret), {})
    assert secret not in clean
    assert REDACTED in clean


@pytest.mark.parametrize(
    "form",
    [
        CANARY,
        quote(CANARY),
        quote(CANARY, safe=""),
        quote_plus(CANARY),
        json.dumps(CANARY),
        json.dumps(CANARY, ensure_ascii=False),
        repr(CANARY),
        base64.b64encode(CANARY.encode()).decode(),
        base64.urlsafe_b64encode(CANARY.encode()).decode(),
        "\n".join(textwrap.wrap(base64.b64encode(CANARY.encode()).decode(), 10)),
        f"{CANARY[:9]}\n{CANARY[9:]}",
        f"{CANARY[:9]}\\\r\n    {CANARY[9:]}",
    ],
    ids=[
        "raw",
        "url",
        "url-all",
        "url-plus",
        "json",
        "json-utf8",
        "repr",
        "b64",
        "b64-url",
        "b64-wrap",
        "wrap",
        "wrap-shell",
    ],
)
def test_exact_values_of_the_environment_are_redacted_in_every_encoding(form: str) -> None:
    clean = redact(f"before <{form}> after", ENV)
    assert clean.startswith("before <")
    assert clean.endswith("> after")
    assert REDACTED in clean
    assert len(clean) <= len("before <> after") + len(REDACTED) + 2  # at most the quotes stay


@pytest.mark.parametrize("prefix", ["", "u", "us"])
def test_a_value_inside_a_base64_text_is_redacted_at_every_alignment(prefix: str) -> None:
    encoded = base64_inside("plain-canary-4711", prefix)
    assert REDACTED in redact(encoded, {"A_SECRET": "plain-canary-4711"})
    assert REDACTED not in redact(encoded, {})  # the value, not the look of base64, was found


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "HF_TOKEN", "my_secret", "DB_PASSWORD"])
def test_the_ends_of_the_names_decide(name: str) -> None:
    assert redact("say rosebud-71 twice", {name: "rosebud-71"}) == f"say {REDACTED} twice"
    assert redact("say rosebud-71 twice", {f"{name}_PATH": "rosebud-71"}) == "say rosebud-71 twice"


def test_this_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_TOKEN", "rosebud-72")
    assert redact("rosebud-72") == REDACTED


def test_short_values_do_not_eat_ordinary_words() -> None:
    assert redact("step 1 of 10 is true", {"DEBUG_KEY": "1", "FLAG_TOKEN": "true"}) == "step 1 of 10 is true"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("openai.api_key=abcd1234efgh", f"openai.api_key={REDACTED}"),
        ('{"password": "hunter2hunter2"}', f'{{"password": "{REDACTED}"}}'),
        ("Authorization: Bearer abc.def-12345", f"Authorization: Bearer {REDACTED}"),
        ("Authorization: Basic dXNlcjpwYXNz", f"Authorization: Basic {REDACTED}"),
        ("git clone https://me:pa55word@host.org/x", f"git clone https://{REDACTED}@host.org/x"),
    ],
)
def test_the_context_of_a_secret_stays_readable(text: str, clean: str) -> None:
    assert redact(text, {}) == clean


@pytest.mark.parametrize(
    "text",
    [
        "optim.learning_rate=2e-4 eval.generation.max_tokens=64 tokens_per_second: 12345.678",
        "model.revision=0123456789abcdef0123456789abcdef01234567",
        "hub: meta-llama/Llama-3.2-1B@0123456789abcdef0123456789abcdef01234567",
        "digest: gpt2@0123456789abcdef0123456789abcdef01234567",
        "Subproject commit 0123456789abcdef0123456789abcdef01234567",
        "key sha256 " + "ab" * 32,
        "+    client = OpenAI(api_key=settings.openai_key)",
        "+    secret = os.environ[name]",
        "task-specific-prompts-for-disk-based-models pad_token: <|pad|> eos_token=</s>",
        "from transformers import hf_hub_download",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text, {}) == text


def test_redacting_twice_changes_nothing() -> None:
    text = " ".join(SHAPES.values()) + f" {CANARY} api_key=abcd1234efgh"
    once = redact(text, ENV)
    assert redact(once, ENV) == once
    assert redact(REDACTED, {"SILLY_KEY": "redacted"}) == REDACTED


def test_trees_are_redacted_in_keys_and_values_and_keep_commits() -> None:
    commit = SHAPES["wandb, old"]
    tree = {"git": {"commit": commit}, "x": [commit, {CANARY: 3}], "openai_api_key": "short", "n": 1.5, "none": None}
    assert redact_tree(tree, ENV) == {
        "git": {"commit": commit},
        "x": [REDACTED, {REDACTED: 3}],
        "openai_api_key": REDACTED,
        "n": 1.5,
        "none": None,
    }


@pytest.mark.parametrize("unit", ["a", "a.", "eyJ", "sk-", "://", "secret ", "A/+", "\n", "commit "])
def test_a_megabyte_of_anything_takes_no_quadratic_time(unit: str) -> None:
    start = time.process_time()
    redact(unit * (1_000_000 // len(unit)), ENV)
    assert time.process_time() - start < 5  # linear: about 0.2 s; quadratic: hours


def test_imports_nothing_of_organon() -> None:
    """The bottom layer: config, cli and the log filter all may use it."""
    code = "import sys, organon.redact; print([m for m in sys.modules if m.startswith('organon.')])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "['organon.redact']"
