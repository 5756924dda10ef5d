"""The user's own code: found and hashed without being run, loaded only as what was hashed (CK-43, CK-64)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from organon.config.user_code import load, locate
from organon.errors import ConfigError

SOURCE = """
from dataclasses import dataclass
from json import dumps as write

Alias = dict

@dataclass
class Mine:
    value: "int | None" = 1

def measure(x: int) -> int:
    return x + 1
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize("name", ["Mine", "measure", "Alias"])
def test_a_name_in_a_file(file: Path, name: str) -> None:
    code = locate(f"mine.py:{name}", "method.recipe")
    assert code.reference == f"{file}:{name}"
    assert code.name == name
    assert code.digest == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert load(code.reference, "method.recipe", digest=code.digest).__name__ in (name, "dict")


def test_paths_expand(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    assert locate("~/mine.py:Mine", "x") == locate("$HOME/mine.py:Mine", "x") == locate("mine.py:Mine", "x")


def test_a_name_in_an_installed_module() -> None:
    code = locate("organon.config.paths:expand", "callbacks.metrics")
    assert code.reference == "organon.config.paths:expand"
    from organon.config.paths import expand

    assert load(code.reference, "callbacks.metrics", digest=code.digest) is expand


def test_locating_runs_nothing(file: Path) -> None:
    """Neither the file nor a package on the way to a module."""
    file.write_text("raise SystemExit('run')\n\nclass Mine: ...\n")
    assert locate("mine.py:Mine", "x").name == "Mine"
    program = (
        "import sys; from organon.config.user_code import locate; locate('xml.dom.minidom:parse', 'x'); "
        "print('xml' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]


REFUSED = {
    "mine.py": "names no file or module with a name",
    "mine.py:": "names no file or module with a name",
    "mine.py:a-b": "names no file or module with a name",
    ":Mine": "names no file or module with a name",
    "other.py:Mine": "no file '",
    "mine.py:Mien": "'Mien' is not in",
    "no.such.module:Mine": "no module 'no.such.module' with a source file",
    "sys:Mine": "no module 'sys' with a source file",
    "__main__:Mine": "no module '__main__' with a source file",
    "organon.config:Mine": "It defines nothing",
}


@pytest.mark.parametrize("reference", REFUSED)
def test_what_cannot_be_found_is_refused(file: Path, reference: str) -> None:
    with pytest.raises(ConfigError) as caught:
        locate(reference, "method.recipe")
    assert (caught.value.code, caught.value.where) == ("CFG-053", "method.recipe")
    assert REFUSED[reference] in caught.value.cause
    assert caught.value.fix


def test_a_near_name_is_shown(file: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'Mine'") as caught:
        locate("mine.py:Mien", "x")
    assert "It defines Alias, Mine, measure" in caught.value.cause


BINDINGS = """
import sys
typed: dict = {}
first, (second, *rest) = 1, (2, 3)
if sys.platform:
    inside = 1
try:
    import not_there
except ImportError:
    def fallback(): ...
with open(__file__) as opened:
    pass
for number in range(3):
    squares = [hidden * hidden for hidden in range(number)]
promised: int
class Mine:
    attribute = 1
def measure():
    local = 1
"""


def test_whatever_binds_a_name_defines_it(file: Path) -> None:
    file.write_text(BINDINGS)
    namespace: dict[str, object] = {"__file__": str(file)}
    exec(BINDINGS, namespace)  # Python itself as the reference
    bound = set(namespace) - {"__file__", "__builtins__", "__annotations__", "sys"}
    assert bound == {*("typed", "first", "second", "rest", "inside", "fallback", "opened", "number", "squares"),
                     *("Mine", "measure")}  # fmt: skip
    for name in bound:
        assert locate(f"mine.py:{name}", "x").name == name
    for name in ("promised", "hidden", "attribute", "local", "not_there"):
        with pytest.raises(ConfigError):
            locate(f"mine.py:{name}", "x")


@pytest.mark.parametrize(
    ("reference", "fix"),
    [
        ("mine.py:write", "name the module that defines it: json:dumps"),
        ("pkg_of_a:Impl", "name the module that defines it: pkg_of_a.impl:Impl"),
        ("pkg_of_a.other:Renamed", "name the module that defines it: pkg_of_a.impl:Impl"),
        ("pkg_of_a.other:json", "name a function or class that the file itself defines"),
    ],
)
def test_a_name_that_is_only_imported_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, reference: str, fix: str
) -> None:
    """The digest is of one file: an edit of the one that defines the name would not be seen."""
    package = file.parent / "pkg_of_a"
    package.mkdir()
    (package / "__init__.py").write_text("from .impl import Impl\n")
    (package / "impl.py").write_text("class Impl: ...\n")
    (package / "other.py").write_text("import json\nif True:\n    from .impl import Impl as Renamed\n")
    monkeypatch.syspath_prepend(str(file.parent))
    with pytest.raises(ConfigError, match="only imports") as caught:
        locate(reference, "callbacks.metrics")
    assert (caught.value.code, caught.value.where, caught.value.fix) == ("CFG-053", "callbacks.metrics", fix)
    assert locate("pkg_of_a.impl:Impl", "x").file == package / "impl.py"


def test_what_is_no_python_is_refused(file: Path) -> None:
    file.write_text("class Mine:\n  def\n")
    with pytest.raises(ConfigError, match=r"mine\.py, line 2 is not Python"):
        locate("mine.py:Mine", "x")


def test_an_edited_file_is_not_run(file: Path, tmp_path: Path) -> None:
    code = locate("mine.py:Mine", "x")
    file.write_text(SOURCE + f"open({str(tmp_path / 'run')!r}, 'w')\n")
    with pytest.raises(ConfigError, match="has changed since the run was started") as caught:
        load(code.reference, "method.recipe", digest=code.digest)
    assert caught.value.code == "CFG-028"
    assert not (tmp_path / "run").exists()


def test_an_error_in_the_file_is_told(file: Path) -> None:
    file.write_text(SOURCE + "\nimport not_there\n")
    code = locate("mine.py:Mine", "x")
    with pytest.raises(ConfigError, match=r"mine\.py cannot be loaded: ModuleNotFoundError: No module named") as caught:
        load(code.reference, "x", digest=code.digest)
    assert caught.value.fix.startswith("run `python ")
