"""How near the streaming of a folder of JPEGs comes to a bare decode loop, on this machine.

Three ways through the same images, with the same number of worker processes, in turn:

bare    processes that open each file, ask for the draft, take a random part, bring it to the size,
        and throw it away; nothing crosses a border, and no pixel is ever looked at;
bytes   ``resized_crop`` on a streamed ``imagefolder``: the same parts as bytes in this process, in
        batches with their labels, announced as the loop does; on a GPU the rest is done there;
floats  all that a training on the CPU meets: the draws of the loop, normalised to float32 in this
        process, which shares the CPUs with its workers.

Files are read once before, so that all come from the system's cache. Each round takes other images,
and another side goes first. Printed are images a second and the ratios to ``bare`` with their
spread over the rounds; and ratios of the CPU time that all processes of a side take for an image
(on Linux), as other work on the machine hardly changes those. Exit status 1 if the median ratio of
speed of ``bytes`` is below the limit.

The folder is made where it does not exist: some hundred distinct pictures (edges, gradients and
noise with the spectrum of photographs, 320×240 to 500×375, quality 85 to 90), each written as many
files of its own, so every image is read from a file that nothing else shares.

    python benchmarks/folder_throughput.py [--folder F] [--count 50000] [--size 224] [--workers N]
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image

from extracurricular.data.base import Data
from extracurricular.data.images.stream import streamed
from extracurricular.data.images.workers import cpu_count
from extracurricular.data.sets.imagefolder import imagefolder
from extracurricular.samplers.base import announced
from extracurricular.samplers.resized_crop import ResizedCrop
from extracurricular.teachers import Labels
from extracurricular.training import Training, draws
from extracurricular.training.draw import _together_and_ahead

CLASSES = 100
DISTINCT = 400
BATCH = 64


def picture(rng: np.random.Generator) -> bytes:
    """Return a JPEG whose spectrum, edges and size are like those of a photograph on the web."""
    height, width = sorted(int(v) for v in rng.integers([240, 320], [376, 501]))
    if rng.random() < 0.25:
        height, width = width, height
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falloff = np.maximum(np.hypot(fy, fx), 1 / width) ** -1.1
    spectrum = rng.normal(size=(3, *falloff.shape)) + 1j * rng.normal(size=(3, *falloff.shape))
    # Colours go together, as in photographs.
    spectrum = spectrum[:1] + 0.3 * spectrum
    image = np.fft.irfft2(spectrum * falloff, s=(height, width))
    image = 110 + 50 * image / image.std()
    yy, xx = np.mgrid[:height, :width]
    for _ in range(12):
        cy, cx, ry, rx = rng.random(4) * [height, width, height / 4, width / 4]
        inside = ((yy - cy) / (ry + 4)) ** 2 + ((xx - cx) / (rx + 4)) ** 2 < 1
        image[:, inside] = 0.5 * image[:, inside] + 127 * rng.random((3, 1))
    pixels = image.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(rng.integers(85, 91)))
    return buffer.getvalue()


def make(folder: Path, count: int) -> None:
    """Fill a folder with ``count`` JPEGs in classes."""
    rng = np.random.default_rng(0)
    distinct = [picture(rng) for _ in range(min(DISTINCT, count))]
    for k in range(CLASSES):
        (folder / f"class{k:03d}").mkdir(parents=True, exist_ok=True)
    for k in range(count):
        content = distinct[k * 7 % len(distinct)] + k.to_bytes(4, "big")
        (folder / f"class{k % CLASSES:03d}" / f"{k:06d}.jpg").write_bytes(content)


BARE = """
import math, sys, random
from PIL import Image
size = int(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    if line == "go\\n":
        print("done", flush=True)
        continue
    image = Image.open(line[:-1])
    width, height = image.size
    while True:
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    x, y = random.randint(0, width - w), random.randint(0, height - h)
    shrink = next((k for k in (8, 4, 2) if k <= min(w, h) / size), 1)
    if shrink > 1:
        image.draft(None, (width // shrink, height // shrink))
    box = [x / shrink, y / shrink]
    box += [min((x + w) / shrink, image.size[0]), min((y + h) / shrink, image.size[1])]
    image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if random.random() < 0.5:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
"""


class Bare:
    """Processes that decode and throw away."""

    def __init__(self, workers: int, size: int) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", BARE, str(size)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(workers)
        ]
        self._wait()

    def _wait(self) -> None:
        for process in self.processes:
            process.stdout.readline()  # type: ignore[union-attr]

    def run(self, files: list[str]) -> float:
        """Decode files; return the seconds that took, of the slowest."""
        start = time.perf_counter()
        # In small pieces, as a pipe holds only so much; whoever is done first waits for the other.
        for first in range(0, len(files), 64 * len(self.processes)):
            for k, process in enumerate(self.processes):
                part = files[first + 64 * k : first + 64 * (k + 1)]
                process.stdin.write("".join(f"{file}\n" for file in part))  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
        for process in self.processes:
            process.stdin.write("go\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        self._wait()
        return time.perf_counter() - start

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()


def floats(sampler: ResizedCrop, step: int, steps: int) -> float:
    """Draw steps as the loop does; return the seconds that took."""
    fabric = Fabric(accelerator="cpu", devices=1)
    settings = Training(steps=step + steps, batch_size=BATCH)
    start = time.perf_counter()
    for batch, target in draws(sampler, Labels(), settings, step, fabric=fabric):
        assert len(batch) == len(target) == BATCH
    return time.perf_counter() - start


def raw(sampler: ResizedCrop, step: int, steps: int) -> float:
    """Take the same draws as bytes, announced as far ahead; return the seconds that took."""
    images, labels = streamed(sampler.data.train.x), sampler.data.train.y
    assert images is not None
    assert labels is not None
    _, ahead = _together_and_ahead(sampler, BATCH, torch.device("cpu"))
    chunks = (torch.arange(s * BATCH, (s + 1) * BATCH) for s in range(step, step + steps))
    start = time.perf_counter()
    for ids in announced(sampler, chunks, ahead):
        index = sampler._images.index(ids)
        x, index = images.read(index, sampler._crop, sampler._words(ids))
        assert len(x) == len(labels[index]) == BATCH
        assert x.dtype == torch.uint8
    return time.perf_counter() - start


def cpu_seconds(processes: list[int]) -> float:
    """CPU time that processes have taken, in seconds; NaN where the system does not tell."""
    total = 0.0
    for pid in processes:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists():
            return float("nan")
        fields = stat.read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def resident() -> float:
    """Memory of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return float("nan")


def warm(files: list[str]) -> None:
    """Read files, so that the system has them in its cache."""
    for file in files:
        Path(file).read_bytes()


def measure(
    data: Data, workers: int, size: int, rounds: int, count: int
) -> dict[str, list[tuple[float, float]]]:
    """Print a line for each round; return the ratios of speeds, and of CPU times, by side."""
    images: Any = data.train.x
    sampler = ResizedCrop(data)
    steps = min(count, len(images)) // BATCH // rounds
    bare = Bare(workers, size)
    store = images.files.store
    raw(sampler, 0, 1)  # starts the workers
    mine = [os.getpid(), *images.files.pool.processes]
    theirs = [process.pid for process in bare.processes]
    ratios: dict[str, list[tuple[float, float]]] = {"bytes": [], "floats": []}
    print(
        f"{'round':>5}{'images':>8}{'bare/s':>8}{'bytes/s':>9}{'ratio':>7}{'floats/s':>9}"
        f"{'ratio':>7}{'CPU ms bare':>13}{'bytes':>7}{'floats':>8}{'this process':>14}"
    )
    for k in range(rounds):
        ids = torch.arange(k * steps * BATCH, (k + 1) * steps * BATCH)
        index = sampler._images.index(ids)
        files = [store.place(images.files.names[row]) for row in images.rows[index].tolist()]
        warm(files)
        sides = [
            ("bare", lambda f=files: bare.run(f), theirs),
            ("bytes", lambda s=k * steps: raw(sampler, s, steps), mine),
            ("floats", lambda s=k * steps: floats(sampler, s, steps), mine),
        ]
        took: dict[str, tuple[float, float]] = {}
        for side, run, processes in sides[k % 3 :] + sides[: k % 3]:
            before = cpu_seconds(processes)
            took[side] = run(), cpu_seconds(processes) - before
        n = len(ids)
        rate = {side: n / wall for side, (wall, _) in took.items()}
        cpu = {side: 1000 * seconds / n for side, (_, seconds) in took.items()}
        for side, found in ratios.items():
            found.append((rate[side] / rate["bare"], cpu["bare"] / cpu[side]))
        print(
            f"{k:>5}{n:>8,}{rate['bare']:>8,.0f}{rate['bytes']:>9,.0f}{ratios['bytes'][-1][0]:>7.3f}"
            f"{rate['floats']:>9,.0f}{ratios['floats'][-1][0]:>7.3f}{cpu['bare']:>13.3f}"
            f"{cpu['bytes']:>7.3f}{cpu['floats']:>8.3f}{resident():>11,.0f} MB",
            flush=True,
        )
    bare.close()
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="kept, and made where it does not exist")
    parser.add_argument("--count", type=int, default=50_000, help="images to make, and to take")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=cpu_count())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--limit", type=float, default=0.9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if arguments.folder is None or not folder.exists():
            make(folder, arguments.count)
        start = time.perf_counter()
        data = imagefolder(
            str(folder), arguments.size, stream=True, workers=arguments.workers, test=0.01,
            validation=0,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        images: Any = data.train.x
        print(
            f"{len(images.files.names):,} JPEGs to {arguments.size}×{arguments.size}, "
            f"{arguments.workers} workers, {os.cpu_count()} CPUs, batches of {BATCH}, "
            f"{torch.get_num_threads()} torch threads; the data were there in {seconds:.1f} s"
        )
        found = measure(data, arguments.workers, arguments.size, arguments.rounds, arguments.count)
    for side, pairs in found.items():
        for name, k in (("speed", 0), ("CPU time", 1)):
            of = [pair[k] for pair in pairs]
            told = f"{statistics.median(of):.3f} (median), {min(of):.3f} to {max(of):.3f}"
            print(f"{side}, ratio of {name}: {told}")
    middle = statistics.median(speed for speed, _ in found["bytes"])
    print(f"bytes: {middle:.3f}, limit {arguments.limit:g}")
    return 0 if middle >= arguments.limit else 1


if __name__ == "__main__":
    sys.exit(main())
