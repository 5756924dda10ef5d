"""``organon model check``: what it says of bases, merged models, adapters and runs, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.training.conftest import save_tokenizer
from tests.integration.training.families import save_family
from tests.integration.training.test_adapters import LORA, base_in, trained

from organon.cli.main import main
from organon.config.schema import AdapterConfig, DatasetConfig, ModelConfig
from organon.config.spec import TrainSpec, to_dict
from organon.models.adapters import new_adapter, save_adapter
from organon.models.load import load_base
from organon.models.merge import merge_adapter
from organon.store.records import Checkpoint
from organon.store.store import Store

KEY = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base``, a ``trained`` and an ``untouched`` adapter of it, and the first ``merged``."""
    place = tmp_path_factory.mktemp("models")
    base_folder = save_family("llama", place / "base")
    save_tokenizer(base_folder)
    adapter = AdapterConfig(**LORA)
    base = base_in(base_folder, adapter)
    for name, model in {
        "trained": trained(base, adapter),
        "untouched": new_adapter(load_base(base, device="cpu"), adapter, seed=0),
    }.items():
        (place / name).mkdir()
        save_adapter(model, place / name, base)
    merge_adapter(base, place / "trained", place / "merged")
    return place


@pytest.fixture
def check(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run ``organon model check`` on a path below ``place``; the exit code and what it prints."""

    def call(path: str | Path, *arguments: str, code: int = 0) -> Any:
        store = [] if "--store" in arguments else ["--store", str(tmp_path / "store")]
        where = str(place / path) if isinstance(path, Path) or (place / path).exists() else path
        found = main(["model", "check", where, *arguments, *store])
        out, err = capsys.readouterr()
        assert found == code, err
        return err if code == 2 else json.loads(out) if "--json" in arguments else out

    return call


def base(place: Path) -> tuple[str, str]:
    return "--base", str(place / "base")


def test_an_untouched_adapter_is_the_same(check: Any, place: Path) -> None:
    """CK-59."""
    found = check("untouched", *base(place), "--json")
    assert (found["kind"], found["verdict"], found["ok"]) == ("adapter", "same", True)
    compared = found["comparison"]
    assert compared["logit_mse"] == 0.0
    assert compared["perplexity"] == compared["base_perplexity"] > 1
    assert found["weights"]["ranks"] == [4]
    assert found["weights"]["tensors"] == 28


def test_a_trained_adapter_is_different(check: Any, place: Path) -> None:
    """CK-59, and CK-73: the merged model differs from the base as the adapter does."""
    adapter = check("trained", *base(place), "--json")
    merged = check("merged", *base(place), "--json")
    assert [found["verdict"] for found in (adapter, merged)] == ["different", "different"]
    assert (merged["kind"], merged["weights"]["ranks"]) == ("merged", [])
    for name, value in adapter["comparison"].items():
        assert merged["comparison"][name] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("thresholds", "verdict"),
    [
        ((), "different"),
        (("--perplexity-threshold", "1e9", "--logit-threshold", "1e9"), "same"),
        (("--perplexity-threshold", "1e9", "--logit-threshold", "1e-9"), "different"),
        (("--perplexity-threshold", "1e-9", "--logit-threshold", "1e9"), "different"),
    ],
)
def test_thresholds_are_honoured(check: Any, place: Path, thresholds: tuple[str, ...], verdict: str) -> None:
    """CK-59: both must be met. (The script that this follows ignores them.)"""
    assert check("trained", *base(place), *thresholds, "--json")["verdict"] == verdict


def test_the_same_by_thresholds_is_not_identical(check: Any, place: Path) -> None:
    loose = ("--perplexity-threshold", "1e9", "--logit-threshold", "1e9")
    assert "the logits do differ a little" in check("trained", *base(place), *loose)
    assert "do differ" not in check("untouched", *base(place), *loose)


def test_expect(check: Any, place: Path) -> None:
    check("trained", *base(place), "--expect", "different")
    check("trained", *base(place), "--expect", "same", code=1)
    check("untouched", *base(place), "--expect", "same")
    check("base", "--expect", "same", code=1)  # nothing to compare with


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("trained", ["--expect", "same", "--no-compare"], "expected: same; --no-compare leaves it open\n"),
        ("base", ["--expect", "same"], "expected: same; found: nothing to compare with\n"),
    ],
)
def test_what_was_not_expected_is_said(
    place: Path, capsys: pytest.CaptureFixture[str], path: str, options: list[str], said: str
) -> None:
    assert main(["model", "check", str(place / path), *options]) == 1
    assert capsys.readouterr().err == said


def test_a_device_that_is_not_there_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch, check: Any) -> None:
    monkeypatch.setattr("organon.cli.model.default_device", lambda: "cpu")
    assert "error[CFG-060] --device: needs a CUDA GPU" in check("trained", "--device", "cuda", code=2)
    with pytest.raises(SystemExit) as refused:
        main(["model", "check", str(place / "trained"), "--device", "foo"])
    assert refused.value.code == 2


def test_without_the_base_the_files_are_checked_and_the_way_to_it_is_told(check: Any, place: Path) -> None:
    """CK-58."""
    text = check("trained")
    assert "all finite, rank 4" in text
    assert "not on this machine: it was a folder on another machine; --base FOLDER" in text
    assert "verdict" not in text
    found = check("base", "--json")
    assert (found["kind"], found["base"], found["verdict"], found["how_to_get_the_base"]) == (
        "base", None, None, "--base PRESET or FOLDER names it",
    )  # fmt: skip


def test_a_base_on_the_hub(check: Any, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "trained", tmp_path / "hub")
    config = json.loads((tmp_path / "hub" / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": "owner/model", "revision": "1" * 40}
    (tmp_path / "hub" / "adapter_config.json").write_text(json.dumps(config))
    text = check(tmp_path / "hub")
    assert f"owner/model (not on this machine: hf download owner/model --revision {'1' * 40})" in text


def test_texts_of_ones_own(check: Any, place: Path, tmp_path: Path) -> None:
    files = {
        "a.txt": "one line\n\nanother line\nthird\n",
        "b.jsonl": '{"text": "raw text"}\n{"text": "more"}\n',
        "c.jsonl": '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n',
        "d.jsonl": '{"input": "q", "output": "a"}\n',
    }
    counts = {}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        found = check("trained", *base(place), "--data", str(tmp_path / name), "--prompts", "2", "--json")
        counts[name] = found["comparison"]["texts"]
    assert counts == {"a.txt": 2, "b.jsonl": 2, "c.jsonl": 1, "d.jsonl": 1}


def test_no_compare_loads_no_model(check: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("organon.models.load.load_base", lambda *a, **k: pytest.fail("a model was loaded"))
    assert "all finite" in check("trained", *base(place), "--no-compare")


# -- runs -------------------------------------------------------------------------------------------------


def spec_of(place: Path) -> TrainSpec:
    return TrainSpec(
        base=base_in(place / "base", AdapterConfig(**LORA)),
        dataset_hash="0" * 64,
        validation_hash=None,
        model=ModelConfig(name="base", path=str(place / "base")),
        dataset=DatasetConfig(name="d", source="d.jsonl"),
        adapter=AdapterConfig(**LORA),
    )


def test_a_run_in_the_store(check: Any, place: Path, tmp_path: Path) -> None:
    """By name, by key, by the folder of the run or of its epoch: which base it needs is in the record."""
    store = Store.open(tmp_path / "store")
    folder = store.staging("runs", KEY)
    shutil.copytree(place / "untouched", folder / "epoch_0")
    shutil.copytree(place / "trained", folder / "epoch_1")
    spec = spec_of(place)
    checkpoint = Checkpoint("adapter", f"organon/{KEY}", folder="epoch_1", base=spec.base)
    (folder / "checkpoint.json").write_text(json.dumps(to_dict(checkpoint)))
    (folder / "spec.json").write_text(json.dumps(to_dict(spec)))
    (folder / "config.json").write_text("{}")  # a run's own, not a model's
    run = store.publish("runs", KEY, folder, labels={"name": "warm-otter"}).path
    for path in ("warm-otter", "organon/warm-otter", KEY[:12], run, run / "epoch_1"):
        found = check(path, "--json")
        assert (found["kind"], found["verdict"], found["base_is_here"]) == ("adapter", "different", True), path
        assert found["folder"].endswith("epoch_1")
    assert check(run / "epoch_0", "--json")["verdict"] == "same"
    published = tmp_path / "outputs"
    shutil.copytree(run / "epoch_1", published / "epoch_1")
    (published / "result.json").write_text(json.dumps({"paths": {"training": str(run)}}))
    assert check(published / "epoch_1", "--json")["verdict"] == "different"
    assert check(published, "--json")["verdict"] == "different"


def test_an_epoch_with_a_merged_model_and_the_adapter_stashed_or_beside_it(
    check: Any, place: Path, tmp_path: Path
) -> None:
    """Beside it, transformers would put the adapter onto the merged model: said, and not done here."""
    run = tmp_path / "run"
    for name, adapter in {"epoch_0": ".", "epoch_1": "adapter_weights"}.items():
        shutil.copytree(place / "merged", run / name)
        shutil.copytree(place / "trained", run / name / adapter, dirs_exist_ok=True)
    (run / "spec.json").write_text(json.dumps(to_dict(spec_of(place))))
    expected = check("merged", *base(place), "--json")["comparison"]
    beside, stashed = check(run / "epoch_0", "--json"), check(run / "epoch_1", "--json")
    assert (beside["kind"], stashed["kind"]) == ("merged", "merged")
    assert beside["comparison"] == stashed["comparison"] == expected
    assert "a second time" in beside["note"]
    assert stashed["note"] == ""
    inner = check(run / "epoch_1" / "adapter_weights", "--json")
    assert (inner["kind"], inner["verdict"]) == ("adapter", "different")


def test_a_model_that_was_trained_whole(check: Any, place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "merged", run / "epoch_0")
    (run / "epoch_0" / "merged.json").unlink()
    spec = spec_of(place)
    spec = dataclasses.replace(spec, adapter=AdapterConfig(kind="full", quantization="none"))
    (run / "spec.json").write_text(json.dumps(to_dict(spec)))
    found = check(run, "--json")
    assert (found["kind"], found["verdict"]) == ("full", "different")


def test_a_preset(check: Any) -> None:
    found = check("tiny", "--json", "--no-compare")
    assert (found["kind"], found["weights"]["values"]) == ("base", 1_313_152)
    error = check("mistral-7b", code=2)
    assert "hf download mistralai/Mistral-7B-v0.1 --revision 27d67f1b5f57dc0953326b2601d68371d40ea8da" in error


# -- what is refused --------------------------------------------------------------------------------------


def change(source: Path, target: Path, **tensors: Any) -> Path:
    """A copy of an adapter or model with some tensors changed."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    (file,) = target.glob("*.safetensors")
    weights = load_file(file)
    for name, value in tensors.items():
        key = next(k for k in weights if name in k)
        weights[key] = value(weights[key])
    save_file(weights, file, metadata={"format": "pt"})
    return target


def nan(weight: torch.Tensor) -> torch.Tensor:
    return weight.index_fill(0, torch.tensor([0]), torch.nan)


@pytest.mark.parametrize("kind", ["trained", "merged", "base"])
def test_weights_that_are_not_finite(check: Any, place: Path, tmp_path: Path, kind: str) -> None:
    """Case 70."""
    error = check(change(place / kind, tmp_path / "bad", q_proj=nan), code=2)
    assert "CKPT-070" in error
    assert "values are NaN or infinite" in error


def test_a_model_of_another_base(check: Any, place: Path, tmp_path: Path) -> None:
    """Case 71."""
    other = save_family("llama", tmp_path / "other", hidden_size=48)
    save_tokenizer(other)
    for path in ("trained", "merged"):
        error = check(path, "--base", str(other), code=2)
        assert "CKPT-071" in error
        assert error.count("local/sha256-") >= 2  # both are named
    nameless = change(place / "merged", tmp_path / "nameless")
    (nameless / "merged.json").unlink()
    assert "model.embed_tokens.weight is (264, 32) here and (264, 48) there" not in check(nameless)
    error = check(nameless, "--base", str(other), code=2)
    assert "CKPT-071" in error
    assert "is (264, 32) here and (264, 48) there" in error


def test_a_truncated_file(check: Any, place: Path, tmp_path: Path) -> None:
    """Case 67."""
    for kind in ("trained", "base"):
        folder = change(place / kind, tmp_path / kind)
        (file,) = folder.glob("*.safetensors")
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        assert "CKPT-067" in check(folder, code=2)


class Bomb:
    """Writes a marker file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["last.ckpt", "consolidated.00.pth", "pytorch_model.bin"])
def test_pickles_are_refused_unread(check: Any, place: Path, tmp_path: Path, name: str) -> None:
    """Cases 65 and 66: a Lightning checkpoint with an `_instantiator`, weights of other tools."""
    folder = tmp_path / "pickled"
    folder.mkdir()
    bomb = {"hyper_parameters": {"_instantiator": "pathlib.Path"}, "state_dict": Bomb(tmp_path / "marker")}
    (folder / name).write_bytes(pickle.dumps(bomb))
    assert "SEC-065" in check(folder, code=2)
    if name == "pytorch_model.bin":
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(place / "base" / file, folder)
        assert "SEC-065" in check(folder, code=2)
    assert not (tmp_path / "marker").exists()


def test_a_model_that_wants_to_run_code(check: Any, place: Path, tmp_path: Path) -> None:
    """Case 74."""
    folder = change(place / "base", tmp_path / "coded")
    config = json.loads((folder / "config.json").read_text())
    for field in ({"auto_map": {"AutoModelForCausalLM": "m.Model"}}, {"_attn_implementation_internal": "some/kernel"}):
        (folder / "config.json").write_text(json.dumps({**config, **field}))
        assert "SEC-074" in check(folder, code=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("/nowhere",), "no such folder"),
        (("./nowhere",), "no such folder"),
        ((__file__,), f"this is a file, not a folder\nfix: name its folder: {Path(__file__).parent}"),
        (("unknown-run",), "no run and no model preset 'unknown-run'"),
        (("trained", "--base", "nothing"), "'nothing' is neither a folder nor a preset"),
        (("trained", "--base", "tiny", "--data", "/nowhere.jsonl"), "DATA-027"),
    ],
)
def test_what_is_not_there(check: Any, arguments: tuple[str, ...], words: str) -> None:
    assert words in check(*arguments, code=2)


def test_an_empty_folder(check: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "neither a model (config.json) nor an adapter" in check(tmp_path / "empty", code=2)


@pytest.mark.parametrize(
    "argument", [("--logit-threshold", "nan"), ("--perplexity-threshold", "-1"), ("--prompts", "0")]
)
def test_arguments_that_make_no_sense(argument: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["model", "check", "x", *argument])
    assert caught.value.code == 2
