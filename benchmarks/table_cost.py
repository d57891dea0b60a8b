"""What it costs to read a table, beside another checkout: seconds and memory of a fresh process.

A CSV of a million rows and 20 columns (17 reals, a whole number, a text of three kinds, a real
target) is written once. Each checkout then reads it in processes of its own, in turn, so that both
meet the same machine. Seconds are those of the call, and those of a CPU, of which two at once count
twice; memory is what the process holds at most beyond what it held before the call. The ratios are
printed, each pair side by side, and their medians.

    python benchmarks/table_cost.py --before CHECKOUT [--rows 1000000] [--rounds 3]
        [--faster 5] [--smaller 2]

Exit status 1 if a median is below ``--faster`` or ``--smaller``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]

# The first read of a small table imports all that a large one needs.
READ = """
import json, resource, sys, threading, time
try:
    from extracurricular.data.sets import DATA
except ImportError:
    from extracurricular.data import DATA  # as it was called at f193f8d
small, large = sys.argv[1:]
DATA.build({"table": {"path": small}})
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
most, before, going = 0, resident(), True
def watch():
    global most
    while going:
        most = max(most, resident())
        time.sleep(0.005)
thread = threading.Thread(target=watch)
thread.start()
start, busy = time.perf_counter(), time.process_time()
data = DATA.build({"table": {"path": large}})
seconds, busy = time.perf_counter() - start, time.process_time() - busy
going = False
thread.join()
print(json.dumps({"seconds": seconds, "busy": busy, "bytes": most - before}))
"""


def write(path: Path, rows: int) -> None:
    """Write a table of 20 columns."""
    random = np.random.default_rng(0)
    kinds = np.array(["red", "green", "blue"])
    names = [*(f"c{k}" for k in range(17)), "colour", "count", "y"]
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join(names) + "\n")
        for start in range(0, rows, 10_000):
            count = min(10_000, rows - start)
            reals = random.normal(size=(count, 17))
            columns = [[f"{v:.5f}" for v in column] for column in reals.T]
            columns.append(kinds[random.integers(0, 3, count)].tolist())
            columns.append([str(v) for v in random.integers(0, 1000, count)])
            columns.append([f"{v:.6f}" for v in reals[:, :3].sum(1)])
            file.writelines(",".join(row) + "\n" for row in zip(*columns, strict=True))


def measure(checkout: Path, small: Path, large: Path) -> dict[str, float]:
    """Read a table by a checkout's code in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(small), str(large)],
        env=os.environ | {"PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Measure both checkouts in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--faster", type=float, default=5.0)
    parser.add_argument("--smaller", type=float, default=2.0)
    options = parser.parse_args()
    ratios: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small.csv"), Path(folder, "large.csv")
        write(small, 100)
        write(large, options.rows)
        print(f"{options.rows:,} rows × 20 columns, {large.stat().st_size / 1e6:.0f} MB of CSV")
        for number in range(options.rounds):
            pair = [measure(ROOT, small, large)]
            if options.before is not None:
                pair.append(measure(options.before.resolve(), small, large))
                ratios.append(
                    (pair[1]["seconds"] / pair[0]["seconds"], pair[1]["bytes"] / pair[0]["bytes"])
                )
            shown = " | ".join(
                f"{p['seconds']:.2f} s ({p['busy']:.2f} s of a CPU), {p['bytes'] / 1e6:,.0f} MB"
                for p in pair
            )
            beside = (
                f" | {ratios[-1][0]:.1f} × faster, {ratios[-1][1]:.1f} × less" if ratios else ""
            )
            print(f"round {number + 1}: {shown}{beside}", flush=True)
    if not ratios:
        return 0
    faster, smaller = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"medians: {faster:.1f} × faster, {smaller:.1f} × less memory")
    return int(faster < options.faster or smaller < options.smaller)


if __name__ == "__main__":
    sys.exit(main())
