"""CPU seconds of the commands that people wait for, and whether they import torch.

    python benchmarks/startup.py [--rounds 5] [--store FOLDER]

The cache hit needs the demo in the store (`make demo`). Each round runs every command once, in turn.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ORGANON = str(Path(sys.executable).parent / "organon")
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import hydra": [sys.executable, "-c", "import hydra"],
    "organon --help": [ORGANON, "--help"],
    "organon run: config error": [ORGANON, "run", "adapter.rnak=4"],
    "organon run: cache hit": [ORGANON, "run", "experiment=capitalization"],
    "organon cache list": [ORGANON, "cache", "list"],
}


def measure(command: list[str]) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and exit code of one run of ``command``."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, code


def imports_torch(command: list[str]) -> bool:
    """Whether the command's interpreter loads torch (``-X importtime`` lists every import)."""
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False).stderr
    return any(line.rpartition("|")[2].strip() == "torch" for line in found.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    figures: dict[str, list[tuple[float, float, int]]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, command in COMMANDS.items():
            figures[name].append(measure(command))
    print(f"{'command':<28} {'cpu s':>7} {'wall s':>7} {'exit':>5}  torch")
    for name, runs in figures.items():
        cpu, wall = (statistics.median(run[i] for run in runs[1:]) for i in (0, 1))
        torch = "yes" if imports_torch(COMMANDS[name]) else "no"
        print(f"{name:<28} {cpu:>7.2f} {wall:>7.2f} {runs[-1][2]:>5}  {torch}")


if __name__ == "__main__":
    main()
