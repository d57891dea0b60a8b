"""How near the streaming of shards of small JPEGs comes to a bare decode loop, on this machine.

Four ways through the same images, with the same number of worker processes, in turn:

bare    processes that read each image's bytes from its shard by offset and size, decode them to an
        array, and throw that away; nothing crosses a border. With ``--bare load`` they leave the
        pixels in Pillow's own memory, which takes a tenth less;
shards  the draws of ``empirical`` on a streamed ``webdataset``, as bytes in this process, in
        batches with their labels, announced as the loop does;
floats  the same draws as a training on the CPU meets them, normalised to float32 in this process;
folder  as ``shards``, from the same images in folders of classes (``imagefolder``).

All take the images in the same random order. Files are read once before, so that all come from the
system's cache. Each round takes other images, and another side goes first. Printed are images a
second and the ratios to ``bare`` with their spread over the rounds, and ratios of the CPU time that
all processes of a side take for an image (on Linux), as other work on the machine changes those
less. It is checked that folder and shards give equal draws. Exit status 1 if the median ratio of
speed of ``shards`` is below the limit.

    python benchmarks/shard_throughput.py [--folder F] [--count 50000] [--side 64] [--workers N]
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image

from extracurricular.data.base import Data
from extracurricular.data.images.packed import Extents
from extracurricular.data.images.stream import streamed
from extracurricular.data.images.workers import cpu_count
from extracurricular.data.sets.imagefolder import imagefolder
from extracurricular.data.sets.webdataset import webdataset
from extracurricular.samplers.base import announced
from extracurricular.samplers.stored import Empirical
from extracurricular.teachers import Labels
from extracurricular.training import Training, draws
from extracurricular.training.draw import _together_and_ahead
from folder_throughput import Bare, cpu_seconds, picture, warm

CLASSES = 100
DISTINCT = 400
SHARD = 5000
BATCH = 64

BARE = """
import sys
from io import BytesIO
import numpy as np
from PIL import Image
shards = {}
print("ready", flush=True)
for line in sys.stdin:
    if line == "go\\n":
        print("done", flush=True)
        continue
    shard, offset, size = line.split()
    if shard not in shards:
        shards[shard] = open(shard, "rb")
    file = shards[shard]
    file.seek(int(offset))
    image = Image.open(BytesIO(file.read(int(size))))
    image.load() if sys.argv[1] == "load" else np.asarray(image)
"""


class BareShards(Bare):
    """Processes that decode images from shards and throw them away."""

    def __init__(self, workers: int, how: str) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", BARE, how],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(workers)
        ]  # fmt: skip
        self._wait()


def make(root: Path, count: int, side: int) -> None:
    """Write ``count`` JPEGs of ``side``×``side`` pixels to folders of classes, and to shards."""
    rng = np.random.default_rng(0)
    distinct = []
    for _ in range(min(DISTINCT, count)):
        with Image.open(io.BytesIO(picture(rng))) as image:
            buffer = io.BytesIO()
            image.resize((side, side)).save(buffer, "JPEG", quality=87)
            distinct.append(buffer.getvalue())
    (root / "shards").mkdir(parents=True)
    archive: tarfile.TarFile | None = None
    each = -(-count // CLASSES)
    for k in range(count):
        label, key = k // each, f"{k:06d}"
        content = distinct[k * 7 % len(distinct)] + k.to_bytes(4, "big")
        folder = root / "folder" / f"class{label:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{key}.jpg").write_bytes(content)
        if k % SHARD == 0:
            if archive is not None:
                archive.close()
            archive = tarfile.open(root / "shards" / f"train-{k // SHARD:03d}.tar", "w")  # noqa: SIM115
        assert archive is not None
        for ending, own in (("jpg", content), ("cls", f"class{label:03d}".encode())):
            entry = tarfile.TarInfo(f"{key}.{ending}")
            entry.size = len(own)
            archive.addfile(entry, io.BytesIO(own))
    if archive is not None:
        archive.close()


def floats(sampler: Empirical, step: int, steps: int) -> float:
    """Draw steps as the loop does; return the seconds that took."""
    fabric = Fabric(accelerator="cpu", devices=1)
    settings = Training(steps=step + steps, batch_size=BATCH)
    start = time.perf_counter()
    for batch, target in draws(sampler, Labels(), settings, step, fabric=fabric):
        assert len(batch) == len(target) == BATCH
    return time.perf_counter() - start


def raw(sampler: Empirical, step: int, steps: int) -> float:
    """Take the same draws as bytes, announced as far ahead; return the seconds that took."""
    images, labels = streamed(sampler.data.train.x), sampler.data.train.y
    assert images is not None
    assert labels is not None
    _, ahead = _together_and_ahead(sampler, BATCH, torch.device("cpu"))
    chunks = (torch.arange(s * BATCH, (s + 1) * BATCH) for s in range(step, step + steps))
    start = time.perf_counter()
    for ids in announced(sampler, chunks, ahead):
        x, index = images.read(sampler.index(ids))
        assert len(x) == len(labels[index]) == BATCH
    return time.perf_counter() - start


def lines(data: Data, sampler: Empirical, ids: torch.Tensor) -> list[str]:
    """Return shard, offset and size of the images of draws, as the bare loop takes them."""
    images: Any = data.train.x
    members = images.files.store.members
    assert isinstance(members, Extents)
    found = [members[images.files.names[row]] for row in images.rows[sampler.index(ids)].tolist()]
    return [f"{one.file} {one.offset} {one.size}" for one in found]


def measure(
    shards: Data, folder: Data, workers: int, rounds: int, count: int, how: str
) -> dict[str, list[tuple[float, float]]]:
    """Print a line for each round; return the ratios of speeds, and of CPU times, by side."""
    sampler, other = Empirical(shards), Empirical(folder)
    images: Any = shards.train.x
    steps = min(count, len(images)) // BATCH // rounds
    bare = BareShards(workers, how)
    some = torch.arange(BATCH)
    assert torch.equal(sampler(some).x, other(some).x)  # starts the workers too
    mine = [os.getpid(), *images.files.pool.processes]
    theirs = [process.pid for process in bare.processes]
    names = ("bare", "shards", "floats", "folder")
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in names[1:]}
    print("round  images" + "".join(f"{f'{name}/s':>12}" for name in names) + "   CPU µs of each")
    for k in range(rounds):
        ids = torch.arange(k * steps * BATCH, (k + 1) * steps * BATCH)
        files = lines(shards, sampler, ids)
        kept: Any = folder.train.x
        warm([str(kept.files.store.root / name) for name in kept.names(other.index(ids))])
        sides: list[tuple[str, Callable[[], float], list[int]]] = [
            ("bare", lambda f=files: bare.run(f), theirs),  # type: ignore[misc]
            ("shards", lambda s=k * steps: raw(sampler, s, steps), mine),  # type: ignore[misc]
            ("floats", lambda s=k * steps: floats(sampler, s, steps), mine),  # type: ignore[misc]
            ("folder", lambda s=k * steps: raw(other, s, steps), mine),  # type: ignore[misc]
        ]
        took: dict[str, tuple[float, float]] = {}
        for side, run, processes in sides[k % 4 :] + sides[: k % 4]:
            before = cpu_seconds(processes)
            took[side] = run(), cpu_seconds(processes) - before
        n = len(ids)
        for side, found in ratios.items():
            found.append(
                (took["bare"][0] / took[side][0], took["bare"][1] / max(1e-9, took[side][1]))
            )
        print(
            f"{k:>5}{n:>8,}"
            + "".join(f"{n / took[name][0]:>12,.0f}" for name in names)
            + "   "
            + " ".join(f"{1e6 * took[name][1] / n:.0f}" for name in names),
            flush=True,
        )
    bare.close()
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="kept, and made where it does not exist")
    parser.add_argument("--count", type=int, default=50_000, help="images to make")
    parser.add_argument("--take", type=int, help="images to take in all rounds, not all of them")
    parser.add_argument("--side", type=int, default=64, help="height and width of the images")
    parser.add_argument("--workers", type=int, default=cpu_count())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--bare", choices=("array", "load"), default="array")
    parser.add_argument("--limit", type=float, default=0.9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary) / "made"
        if not root.exists():
            make(root, arguments.count, arguments.side)
        given: dict[str, Any] = {
            "size": arguments.side, "stream": True, "workers": arguments.workers, "test": 0.01,
            "validation": 0,
        }  # fmt: skip
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            shards = webdataset(str(root / "shards"), **given)
            seconds.append(time.perf_counter() - start)
        folder = imagefolder(str(root / "folder"), **given)
        images: Any = shards.train.x
        print(
            f"{len(images.files.names):,} JPEGs of {arguments.side}×{arguments.side}, "
            f"{arguments.workers} workers, {os.cpu_count()} CPUs, batches of {BATCH}; the data "
            f"were there in {seconds[0]:.1f} s at first, and again in {seconds[1]:.1f} s"
        )
        found = measure(
            shards, folder, arguments.workers, arguments.rounds,
            arguments.take or arguments.count, arguments.bare,
        )  # fmt: skip
    for side, pairs in found.items():
        for name, k in (("speed", 0), ("CPU time", 1)):
            of = [pair[k] for pair in pairs]
            told = f"{statistics.median(of):.3f} (median), {min(of):.3f} to {max(of):.3f}"
            print(f"{side}, ratio of {name}: {told}")
    middle = statistics.median(speed for speed, _ in found["shards"])
    print(f"shards: {middle:.3f}, limit {arguments.limit:g}")
    return 0 if middle >= arguments.limit else 1


if __name__ == "__main__":
    sys.exit(main())
