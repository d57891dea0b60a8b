"""How fast a teacher is recorded, and how fast a record is read.

Random images in 100 classes. Teachers with random weights are recorded on mixed images. A record of
many draws is read in order and shuffled, with each codec.

    python benchmarks/record_cost.py [--teachers resnet32x4 wrn-40-2] [--draws 1024]
        [--read 262144] [--batch 128] [--threads 1] [--device cpu|cuda] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.distributions import Categorical, Distribution
from extracurricular.inputs import Batch
from extracurricular.knowledge import RecordOptions, open_knowledge, record
from extracurricular.samplers import build_sampler
from trainings import CLASSES, CROPPED, Pair, random_images

CODECS = ("float16", "uint8", "uint4", "topk")


def record_rate(name: str, data: Data, folder: Path, given: argparse.Namespace) -> float:
    """Return the draws a second at which a teacher is recorded."""
    pair = Pair(f"{name}:{name}", data, given.batch)
    teacher, _ = pair.teacher("32-true", compiled=False)
    options = RecordOptions(fabric=Fabric(accelerator=given.device, devices=1))
    sampler = build_sampler([*CROPPED, "cutmix"], data, 0)
    report = record(sampler, teacher, data, given.draws, folder / name, options=options)
    return float(report.recorded / report.seconds)


def read_rates(codec: str, data: Data, folder: Path, given: argparse.Namespace) -> dict[str, float]:
    """Return the draws a second that a record gives, in order and shuffled."""
    logits, count = torch.randn(1024, CLASSES) * 2, given.read

    def talk(batch: Batch) -> Distribution:
        return Categorical(logits[batch.ids % len(logits)])

    def nothing(ids: Tensor) -> Batch:
        return Batch(ids, torch.empty(len(ids), 0))

    place = folder / codec
    options = RecordOptions(description="nothing", teacher_id="random", chunk=2048)
    record(nothing, talk, data, count, place, codec=codec, options=options)
    known = open_knowledge(place)
    size = 16 * given.batch
    rates = {"bytes_per_draw": float(known.manifest.bytes_per_draw)}
    for name, ids in (("ordered", torch.arange(count)), ("shuffled", torch.randperm(count))):
        times = []
        for start in range(0, max(1, count - size + 1), size):
            batch, began = nothing(ids[start : start + size]), time.perf_counter()
            known(batch)
            times.append(time.perf_counter() - began)
        rates[name] = min(size, count) / statistics.median(times)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teachers", nargs="*", default=["resnet32x4", "wrn-40-2"])
    parser.add_argument("--draws", type=int, default=1024, help="draws to record of each teacher")
    parser.add_argument("--read", type=int, default=262144, help="draws in the record to read")
    parser.add_argument("--batch", type=int, default=128, help="a sixteenth of a read")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = random_images(torch.device(given.device))
    found: dict[str, Any] = {
        "device": given.device, "threads": given.threads, "torch": torch.__version__,
        "recording": {}, "reading": {},
    }  # fmt: skip
    print(f"{given.device}, {given.threads} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for teacher in given.teachers:
            rate = record_rate(teacher, data, folder, given)
            found["recording"][teacher] = rate
            print(f"{teacher}: recorded at {rate:,.0f} draws/s")
        print(f"\nreading {given.read:,} draws of {CLASSES} classes, draws/s")
        print(f"{'codec':<10}{'bytes':>6}{'in order':>14}{'shuffled':>14}")
        for codec in CODECS:
            rates = read_rates(codec, data, folder, given)
            found["reading"][codec] = rates
            print(
                f"{codec:<10}{rates['bytes_per_draw']:>6.0f}"
                f"{rates['ordered']:>14,.0f}{rates['shuffled']:>14,.0f}"
            )
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
