"""Time and memory of a whole run with one job and with several, side by side.

    python benchmarks/run_cost.py digits seeds='[0, 1]'
        [--jobs 1 2] [--rounds 1] [--before CHECKOUT]

Each round runs the recipe once for each number of jobs, in turn, into a folder of its own. The
memory is the largest sum of PSS over the processes of the run (shared pages count once), sampled
every 0.2 s. ``--before`` also runs another checkout of this project, with its own command.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def tree(process: int) -> list[int]:
    """Return a process and all below it."""
    found, below = [process], {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            below.setdefault(parent, []).append(int(entry.name))
    for one in found:
        found += below.get(one, [])
    return found


def memory(process: int) -> float:
    """Return the sum of PSS of a process and all below it, in MB."""
    total = 0
    for one in tree(process):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def measure(command: list[str], source: Path | None) -> tuple[float, float]:
    """Run a command; return its seconds and its peak memory."""
    given = {} if source is None else {"PYTHONPATH": str(source / "src")}
    started, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **given})
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return time.perf_counter() - started, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(given.rounds):
        cases = [(f"--jobs {n}", ["--jobs", str(n)], None) for n in given.jobs]
        if given.before is not None:
            cases.append((str(given.before.name), [], given.before.resolve()))
        for title, options, source in cases:
            with tempfile.TemporaryDirectory() as out:
                command = [sys.executable, "-m", "extracurricular.cli", "run", given.recipe]
                command += [*given.overrides, *options, "--out", f"{out}/run"]
                found.setdefault(title, []).append(measure(command, source))
                print(title, *(f"{value:.0f}" for value in found[title][-1]), flush=True)
    print(f"{'':<14}{'seconds':>9}{'peak MB':>9}")
    for title, rows in found.items():
        seconds, peak = (statistics.median(values) for values in zip(*rows, strict=True))
        print(f"{title:<14}{seconds:>9.0f}{peak:>9.0f}")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
