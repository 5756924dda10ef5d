"""MF-25: ``validate_outputs`` has a pass flag and findings for each output."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import organon
from organon.evals.safety import Finding, validate_outputs
from organon.redact import redact


def rules(output: str, *forbidden: str) -> list[str]:
    return [finding.rule for finding in validate_outputs([output], forbidden=forbidden).findings]


def test_report_has_a_pass_flag_and_findings_of_each_output() -> None:
    report = validate_outputs(["All good.", "Write to ann@example.org or +49 30 123456.", "Fine."])
    assert not report.passed
    assert report.of(0) == report.of(2) == ()
    assert report.of(1) == (
        Finding(1, "email", 9, "ann@***********"),
        Finding(1, "phone", 28, "+49 *********"),
    )
    assert json.loads(json.dumps(report.to_dict())) == {
        "passed": False,
        "outputs": [
            {"passed": True, "findings": []},
            {
                "passed": False,
                "findings": [
                    {"rule": "email", "start": 9, "text": "ann@***********"},
                    {"rule": "phone", "start": 28, "text": "+49 *********"},
                ],
            },
            {"passed": True, "findings": []},
        ],
    }


def test_clean_outputs_pass() -> None:
    report = validate_outputs(["Hello", ""])
    assert report.passed
    assert report.to_dict()["outputs"] == [{"passed": True, "findings": []}] * 2
    assert validate_outputs([]).passed


@pytest.mark.parametrize(
    ("output", "rule"),
    [
        ("mail a.b+c@sub.example.co.uk!", "email"),
        ("call (555) 123-4567 now", "phone"),
        ("call 555-123-4567", "phone"),
        ("call +1 (212) 555 0100.", "phone"),
        ("call +442079460958", "phone"),
        ("card 4111 1111 1111 1111", "card"),
        ("card 5500-0000-0000-0004.", "card"),
        ("card 378282246310005", "card"),
        ("key sk-abcdefghijklmnopqrstuvwx", "secret"),
        ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----", "secret"),
    ],
)
def test_what_is_found(output: str, rule: str) -> None:
    assert rules(output) == [rule]


@pytest.mark.parametrize(
    "output",
    [
        "meet @ noon, a@b",
        "card 4111 1111 1111 1112",  # Luhn's check fails
        "0000 0000 0000 0000",
        "In 2024-11-20 12:30 we counted 1234567890 of 3.14159265358979.",
        "1 + 2 = 3, 12-34-56, 192.168.100.200, version 1.2.3",
        "the password is a secret",
    ],
)
def test_what_is_left_alone(output: str) -> None:
    assert rules(output) == []


def test_a_card_is_no_phone_number_too() -> None:
    assert rules("4111-1111-1111-1111") == ["card"]


def test_forbidden_phrases_are_whole_words_in_any_case_and_spacing() -> None:
    report = validate_outputs(["As an  AI\nmodel, I", "Naiad AI models", "c++?"], forbidden=["as an ai model", "C++"])
    assert [(f.output, f.rule, f.start, f.text) for f in report.findings] == [
        (0, "phrase", 0, "As an  AI\nmodel"),
        (2, "phrase", 0, "c++"),
    ]


def test_a_secret_of_the_environment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter-two-and-more")
    (finding,) = validate_outputs(["it is hunter-two-and-more"]).findings
    assert (finding.rule, finding.start, finding.text) == ("secret", 6, "[redacted]")


def test_each_secret_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter-two-and-more")
    keys = ["sk-abcdefghijklmnopqrstuvwx", "hunter-two-and-more", "sk-zyxwvutsrqponmlkjihgfedc"]
    text = f"{keys[0]} and {keys[1]}, {keys[2]}, [redacted] {keys[1]}"
    found = validate_outputs([text]).findings
    assert [(f.rule, f.start) for f in found] == [
        ("secret", 0), ("secret", text.index(keys[1])), ("secret", text.index(keys[2])),
        ("secret", text.rindex(keys[1])),
    ]  # fmt: skip
    assert not validate_outputs(["it is [redacted][redacted]"]).findings


@given(st.lists(st.sampled_from(["a", " ", "sk-" + "k" * 20, "[redacted]", "://u:pw@", "hf_" + "h" * 30, "\n"])))
def test_secrets_are_found_wherever_they_stand(parts: list[str]) -> None:
    text = "".join(parts)
    found = [f for f in validate_outputs([text]).findings if f.rule == "secret"]
    assert bool(found) == (redact(text) != text)
    assert all(0 <= f.start < len(text) for f in found)


@pytest.mark.parametrize(("outputs", "forbidden"), [("one text", []), (["a"], "phrase"), (["a"], [" "])])
def test_wrong_arguments(outputs: list[str], forbidden: list[str]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"lists of strings|phrase is empty"):
        validate_outputs(outputs, forbidden=forbidden)


@given(st.lists(st.text(max_size=200), max_size=5))
def test_any_text_can_be_checked_twice_alike(outputs: list[str]) -> None:
    report = validate_outputs(outputs, forbidden=["a b"])
    assert report == validate_outputs(outputs, forbidden=["a b"])
    assert report.passed == all(entry["passed"] for entry in report.to_dict()["outputs"])


def test_long_hostile_text_takes_no_time() -> None:
    began = time.process_time()
    for text in ("a." * 50_000 + "@", "1 " * 50_000, "+1" + "(1)" * 50_000, "a@" + "a." * 50_000, "1-" * 50_000):
        validate_outputs([text])
    assert time.process_time() - began < 5


def test_it_is_public() -> None:
    assert organon.validate_outputs is validate_outputs
    assert isinstance(organon.validate_outputs([]), organon.SafetyReport)


def test_no_torch() -> None:
    program = (
        "import sys, organon; organon.validate_outputs; print({'torch', 'inspect_ai', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
