"""How much memory a large parquet takes while it is read: in memory, and on the disk.

A file of random reals is made, and each way runs in a process of its own: it reads the table, draws
200 batches of 1,024 rows spread over all of it, and takes the checksum of the training split as a
run does. Printed are the seconds of both, and the peak of the memory that is the process's own
(RssAnon, read each 5 ms on Linux; mapped pages of files are the system's cache, which it takes back
when memory is short), less what the process had before.

    python benchmarks/table_memory.py [--rows 1000000] [--columns 60]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

GROUP = 50_000


def make(file: Path, rows: int, columns: int) -> None:
    """Write a parquet of random reals, one row group after the other."""
    import pyarrow as pa
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    names = [f"c{k}" for k in range(columns - 1)] + ["y"]
    schema = pa.schema([(name, pa.float64()) for name in names])
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, rows, GROUP):
            count = min(GROUP, rows - start)
            writer.write_table(pa.table({name: rng.normal(size=count) for name in names}, schema))


def own_memory() -> float:
    """Memory of this process that is no page of a file, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1000
    return float("nan")


def read(file: str, on_disk: bool) -> dict[str, float]:
    """Read a table and draw from it; return seconds and the peak of memory."""
    import torch

    from extracurricular.data.formats.contents import split_checksum
    from extracurricular.data.sets.table import table
    from extracurricular.samplers.stored import Empirical

    # What all ways import is loaded before.
    small = str(Path(file).with_name("small.parquet"))
    table(small, target="y", on_disk=on_disk)
    before, peak, done = own_memory(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], own_memory())

    threading.Thread(target=watch, daemon=True).start()
    times = [time.perf_counter()]
    data = table(file, target="y", on_disk=on_disk)
    times.append(time.perf_counter())
    sampler = Empirical(data)
    for k in range(200):
        sampler(torch.arange(k * 1024, (k + 1) * 1024))
    times.append(time.perf_counter())
    split_checksum(data.train)
    times.append(time.perf_counter())
    again = time.perf_counter()
    table(file, target="y", on_disk=on_disk)
    done.set()
    return {
        "reading": times[1] - times[0],
        "again": time.perf_counter() - again,
        "draws": times[2] - times[1],
        "checksum": times[3] - times[2],
        "peak": peak[0] - before,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=60)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--disk", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(arguments.read, arguments.disk)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.parquet"
        make(file, arguments.rows, arguments.columns)
        make(file.with_name("small.parquet"), 1000, arguments.columns)
        size = file.stat().st_size / 1e6
        print(f"{arguments.rows:,} rows of {arguments.columns} reals, {size:,.0f} MB of parquet")
        for name, extra in (("in memory", []), ("on the disk", ["--disk"])):
            command = [sys.executable, __file__, "--read", str(file), *extra]
            environment = {**os.environ, "XDG_CACHE_HOME": folder}
            answer = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            found = json.loads(answer.stdout.splitlines()[-1])
            print(
                f"{name:<12} peak {found['peak']:>6,.0f} MB; read in {found['reading']:.1f} s, "
                f"again in {found['again']:.1f} s; 204,800 draws in {found['draws']:.2f} s; "
                f"checksum in {found['checksum']:.1f} s"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
