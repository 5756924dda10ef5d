"""The demo from an empty store: wall seconds, peak memory of all its processes, and the second run.

    python benchmarks/demo.py [--rounds 3]

Memory is the largest sum of resident sizes over the process tree, sampled every 0.1 s: pages that two processes
share count twice, so the figure is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

COMMAND = [sys.executable, "-m", "organon.cli", "run", "experiment=capitalization", "--json"]


def measure(cwd: Path) -> tuple[float, int, dict[str, object]]:
    """Wall seconds, peak bytes of the process tree, and the run's result."""
    start, peak = time.perf_counter(), 0
    with (cwd / "out.json").open("w") as out, (cwd / "log.txt").open("w") as log:
        process = psutil.Popen(COMMAND, cwd=cwd, stdout=out, stderr=log)
        while process.poll() is None:
            peak = max(peak, tree_bytes(process))
            time.sleep(0.1)
    if process.returncode:
        sys.exit((cwd / "log.txt").read_text())
    return time.perf_counter() - start, peak, json.loads((cwd / "out.json").read_text())


def tree_bytes(process: psutil.Process) -> int:
    """Resident bytes of the process and all its descendants."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    walls, peaks, agains = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            wall, peak, result = measure(Path(folder))
            again, _, _ = measure(Path(folder))
        walls.append(wall)
        peaks.append(peak)
        agains.append(again)
        print(f"{wall:6.1f} s  {peak / 2**30:5.2f} GiB  again {again:4.2f} s  {result['timings']}")
    print(
        f"median: {statistics.median(walls):.1f} s wall, {statistics.median(peaks) / 2**30:.2f} GiB peak, "
        f"second run {statistics.median(agains):.2f} s wall"
    )


if __name__ == "__main__":
    main()
