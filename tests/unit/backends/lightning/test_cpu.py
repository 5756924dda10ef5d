"""What a training process asks of oneDNN and glibc."""

from __future__ import annotations

import subprocess
import sys

import pytest

from organon.backends.lightning import cpu

PROGRAM = """
import resource, sys
if sys.argv[1] == "prepared":
    from organon.backends.lightning.cpu import prepare_cpu
    assert prepare_cpu()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    bytearray(40 << 20)
before = faults()
for _ in range(20):
    bytearray(40 << 20)
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_memory_is_used_again() -> None:
    """40 MB, asked for and freed 20 times, are 10 240 pages each time that the kernel clears; afterwards none."""

    def run(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert run("plain") > 100_000
    assert run("prepared") < 1_000


def test_onednn_is_bounded_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu.sys, "platform", "elsewhere")
    assert not cpu.prepare_cpu()
    assert cpu.os.environ[name] == "256"
    monkeypatch.setenv(name, "7")
    cpu.prepare_cpu()
    assert cpu.os.environ[name] == "7"
