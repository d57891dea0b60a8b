"""What a student's step costs: plain training, KD, XCL online, and XCL from a record.

32x32 images of random bytes in 100 classes; networks with random weights, since what a step costs
does not depend on them. In every round each way of training makes the same number of steps, in
turn, in one process, drawing its examples as the loop does; the ratio is the median over rounds of
the ratio to plain training in that round. Then: how fast the teacher is recorded, and how fast a
record of many draws is read.

    python benchmarks/step_cost.py [--rounds 30] [--pairs resnet32x4:resnet8x4 ...] [--batch 128]
                                   [--threads N] [--device cpu|cuda] [--json FILE] [--limit 1.05]

Exit status 1 if a step from a record costs more than ``--limit`` times a plain one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from extracurricular.data.base import Data, make_data
from extracurricular.distributions import Categorical, Distribution
from extracurricular.knowledge import Recorded, RecordOptions, open_knowledge, record
from extracurricular.matching import Matching
from extracurricular.models import build_model
from extracurricular.samplers import Augment, Batch, CutMix, Empirical, Sampler
from extracurricular.teachers import Labels, Network, Teacher
from extracurricular.training import Training, draw_steps, draws, learning_rate, make_optimizer

CLASSES = 100
CODECS = ("float16", "uint8", "uint4", "topk")


def random_images(count: int, device: torch.device) -> Data:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)
    y = np.arange(count) % CLASSES
    return make_data("random", (x, y), (x[:CLASSES], y[:CLASSES])).to(device)


def steps(
    student_name: str, sampler: Sampler, teacher: Teacher, data: Data, batch: int, fabric: Fabric
) -> Iterator[None]:
    """Make a step at each call of ``next``, as the training loop does."""
    torch.manual_seed(0)
    student = build_model(student_name, inputs=data.shapes, outputs=CLASSES).to(fabric.device)
    student.train()
    settings = Training(steps=10**9, batch_size=batch)
    optimizer = make_optimizer(student, settings, fused=True)
    matching = Matching() if isinstance(teacher, Labels) else Matching(temperature=4.0)
    for step, (examples, target) in enumerate(draws(sampler, teacher, settings, 0, fabric=fabric)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        loss = matching(data.task.distribution(student(examples.x)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


def timed(function: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def step_costs(pair: str, data: Data, folder: Path, arguments: Any, fabric: Fabric) -> Any:
    """Time all ways of training one pair; return the rows of its table."""
    teacher_name, student_name = pair.split(":")
    torch.manual_seed(1)
    module = build_model(teacher_name, inputs=data.shapes, outputs=CLASSES).to(fabric.device)
    teacher = Network(module, data.task)
    plain = Augment(Empirical(data), pad=4, flip=True)
    extended = CutMix(plain)
    place = folder / pair.replace(":", "-")
    options = RecordOptions(fabric=fabric)
    report = record(extended, teacher, data, arguments.draws, place, options=options)
    known = open_knowledge(place, data=data, sampler=extended)
    ways: dict[str, tuple[Sampler, Teacher]] = {
        "ERM": (plain, Labels()),
        "KD online": (plain, teacher),
        "XCL online": (extended, teacher),
        "XCL recorded": (known.replay(extended), known),
    }
    together = draw_steps(plain, arguments.batch, fabric.device)
    running = {
        name: steps(student_name, *way, data, arguments.batch, fabric) for name, way in ways.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(-arguments.warmup, arguments.rounds):
        # Whoever is first after a pause may be slower, so all take turns at that too.
        for name in names[turn % 4 :] + names[: turn % 4]:
            took = timed(lambda: [next(running[name]) for _ in range(together)], fabric.device)  # noqa: B023
            if turn >= 0:
                seconds[name].append(took / together)
    rows = {
        name: {
            "seconds": statistics.median(times),
            "ratio": statistics.median(
                t / base for t, base in zip(times, seconds["ERM"], strict=True)
            ),
        }
        for name, times in seconds.items()
    }
    return {"steps": rows, "recorded_per_second": report.recorded / report.seconds}


def read_rates(codec: str, data: Data, folder: Path, count: int, batch: int) -> dict[str, float]:
    """Draws a second that a record of ``count`` draws gives, in order and shuffled."""
    logits = torch.randn(1024, CLASSES) * 2

    def talk(batch: Batch) -> Distribution:
        return Categorical(logits[batch.ids % len(logits)])

    def nothing(ids: Tensor) -> Batch:
        return Batch(ids, torch.empty(len(ids), 0))

    place = folder / codec
    options = RecordOptions(description="nothing", teacher_id="random", chunk=2048)
    record(nothing, talk, data, count, place, codec=codec, options=options)
    known: Recorded = open_knowledge(place)
    order = torch.randperm(count)
    size = 16 * batch
    rates = {"bytes_per_draw": float(known.manifest.bytes_per_draw)}
    for name, ids in (("ordered", torch.arange(count)), ("shuffled", order)):
        times = [
            timed(lambda: known(nothing(ids[k : k + size])).parameters, torch.device("cpu"))  # noqa: B023
            for k in range(0, max(1, count - size + 1), size)
        ]
        rates[name] = min(size, count) / statistics.median(times)
    return rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    pairs = ["resnet32x4:resnet8x4", "wrn-40-2:wrn-16-2"]
    parser.add_argument("--pairs", nargs="*", default=pairs, help="TEACHER:STUDENT")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--draws", type=int, default=1024, help="draws to record of each teacher")
    parser.add_argument("--read", type=int, default=262144, help="draws in the record to read")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--limit", type=float, default=1.05)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    fabric = Fabric(accelerator=arguments.device, devices=1)
    data = random_images(2048, fabric.device)
    found: dict[str, Any] = {
        "device": arguments.device, "threads": arguments.threads, "torch": torch.__version__,
        "batch": arguments.batch, "rounds": arguments.rounds, "pairs": {}, "reading": {},
    }  # fmt: skip
    print(f"{arguments.device}, {arguments.threads} threads, torch {torch.__version__}")
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for pair in arguments.pairs:
            result = step_costs(pair, data, folder, arguments, fabric)
            found["pairs"][pair] = result
            print(f"\n{pair.replace(':', ' → ')}, batch {arguments.batch}")
            for way, row in result["steps"].items():
                print(f"  {way:<14}{1000 * row['seconds']:>10.1f} ms{row['ratio']:>9.3f} × ERM")
            print(f"  recorded at {result['recorded_per_second']:,.0f} draws/s")
            worst = max(worst, result["steps"]["XCL recorded"]["ratio"])
        print(f"\nreading {arguments.read:,} draws of {CLASSES} classes, draws/s")
        print(f"  {'codec':<10}{'bytes':>6}{'in order':>14}{'shuffled':>14}")
        for codec in CODECS:
            rates = read_rates(codec, random_images(200, torch.device("cpu")), folder,
                               arguments.read, arguments.batch)  # fmt: skip
            found["reading"][codec] = rates
            print(
                f"  {codec:<10}{rates['bytes_per_draw']:>6.0f}"
                f"{rates['ordered']:>14,.0f}{rates['shuffled']:>14,.0f}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"\nXCL recorded: at most {worst:.3f} × ERM, limit {arguments.limit:.2f}")
    return 0 if worst <= arguments.limit else 1


if __name__ == "__main__":
    sys.exit(main())
