"""Places that cannot be folders are refused by the key that names them, before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from organon.config.compose import compose
from organon.errors import ConfigError
from organon.pipeline.resolve import open_store


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("store=afile", "afile is a file, not a folder"),
        ("output_dir=afile", "afile is a file, not a folder"),
        ("output_dir=/proc/foo", "/proc/foo cannot be made: "),
        ("store=/proc/foo/bar", "/proc/foo/bar cannot be made: "),
        ("store=afile/in/it", "in/it cannot be made: Not a directory"),
    ],
)
def test_what_cannot_be_a_folder(override: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORGANON_STORE", raising=False)
    Path("afile").touch()
    with pytest.raises(ConfigError, match=said) as caught:
        open_store(compose("train", [override]))
    key = override.partition("=")[0]
    assert caught.value.where == key
    assert caught.value.fix.startswith(f"{key}=")
    monkeypatch.setenv("ORGANON_STORE", "afile")
    with pytest.raises(ConfigError) as caught:
        open_store(compose("train", []))
    assert caught.value.where == "ORGANON_STORE"
    open_store(compose("train", ["store=new/one"]))
    assert [path.name for path in tmp_path.iterdir()] == ["afile"]
