"""Distil a teacher that is no network into a small one, and compare size, speed and figures.

For each teacher the same MLP learns three times: from labels (erm), from the teacher on the stored
examples (kd), and from the teacher on examples beyond them (xcl); the same steps each. Sizes
are the numbers that each is made of. Times are the median of several calls on raw examples of the
test split, for one and for 1,000 at once, student and teacher in turn.

    python benchmarks/estimators.py '{uci: {path: PATH/concrete}}' random_forest
    python benchmarks/estimators.py digits random_forest gaussian_process
        [--hidden 32 32] [--steps 4000] [--beyond '[{mixup: {alpha: 0.2}}]'] [--seeds 3]
        [--split test] [--limit RATIO]

Exit status 1 if a student is not at least ``--limit`` times as fast as its teacher, one at a time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import yaml

from extracurricular.data.base import Data, Split
from extracurricular.data.sets import DATA
from extracurricular.distributions import Distribution
from extracurricular.evaluation import metrics
from extracurricular.evaluation.predict import predict
from extracurricular.models import build_model, parameter_count
from extracurricular.samplers import build_sampler
from extracurricular.teachers import Labels, Network, Teacher
from extracurricular.teachers.named import ENTRIES
from extracurricular.training import Training, train

SHOWN = ("accuracy", "rmse", "nll")
ROUNDS = 31


def taken(ask: Callable[[], Distribution]) -> float:
    started = time.perf_counter()
    ask()
    return time.perf_counter() - started


def race(teachers: list[Teacher], data: Data, count: int) -> list[float]:
    """Median seconds of each for ``count`` test examples, asked in turn."""
    rows = Split(data.test[torch.arange(count) % len(data.test)].x)
    times: list[list[float]] = [[] for _ in teachers]
    for _ in range(ROUNDS):
        for teacher, found in zip(teachers, times, strict=True):
            found.append(taken(lambda teacher=teacher: predict(teacher, data, rows)))  # type: ignore[misc]
    return [statistics.median(found) for found in times]


def student(data: Data, args: argparse.Namespace, how: str, teacher: Teacher, seed: int) -> Network:
    torch.manual_seed(seed)
    module = build_model(
        {"mlp": {"hidden": args.hidden}}, inputs=data.shapes, outputs=data.task.outputs
    )
    beyond = yaml.safe_load(args.beyond) if how == "xcl" else []
    settings = Training(
        steps=args.steps, batch_size=64, optimizer="adamw", lr=args.lr, weight_decay=1e-2
    )
    sampler = build_sampler(["empirical", *beyond], data, seed)
    train(module, sampler, teacher, data.task, settings=settings, seed=seed)
    return Network(module.eval(), data.task)


def figures(teacher: Teacher, data: Data, part: str) -> dict[str, float]:
    split = getattr(data, part)
    return metrics.figures(predict(teacher, data, split), split.y)


def told(title: str, size: int | None, times: list[float], runs: list[dict[str, float]]) -> None:
    cells = []
    for name in SHOWN:
        values = [run[name] for run in runs if name in run]
        if values:
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{name} {statistics.fmean(values):.3f}{spread}")
    print(
        f"  {title:<22} {'–' if size is None else f'{size:,}':>10} numbers  "
        f"{1e3 * times[0]:8.2f} ms / 1  {1e3 * times[1]:8.2f} ms / 1,000  {'  '.join(cells)}"
    )


def compare(spec: Any, data: Data, args: argparse.Namespace) -> float:
    teacher = ENTRIES.build(spec).fit(data, seed=0)
    size = getattr(teacher, "parameters", None)
    networks: dict[str, list[Network]] = {}
    for how in ("erm", "kd", "xcl"):
        tutor = Labels() if how == "erm" else teacher
        networks[how] = [student(data, args, how, tutor, seed) for seed in range(args.seeds)]
    pair = [teacher, networks["xcl"][0]]
    one, many = race(pair, data, 1), race(pair, data, 1000)
    small = parameter_count(networks["xcl"][0].module)
    told(str(spec), size, [one[0], many[0]], [figures(teacher, data, args.split)])
    for how, made in networks.items():
        runs = [figures(network, data, args.split) for network in made]
        told(how, small, [one[1], many[1]], runs)
    smaller = "" if size is None else f"{size / small:,.0f} times smaller, "
    print(f"  the student is {smaller}{one[0] / one[1]:,.0f} times as fast on one example, "
          f"{many[0] / many[1]:,.0f} times on 1,000\n")  # fmt: skip
    return one[0] / one[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a data set, as in a recipe")
    parser.add_argument(
        "teachers", nargs="+", help="teachers that are no networks, as NAME or {NAME: settings}"
    )
    parser.add_argument("--hidden", type=int, nargs="+", default=[32, 32])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--beyond", default="[{mixup: {alpha: 0.2}}]")
    parser.add_argument("--split", default="test", choices=["test", "validation"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=0.0)
    args = parser.parse_args()
    data = DATA.build(yaml.safe_load(args.data), key="data")
    print(f"{data.name}: {len(data.train)} to train on, {len(data.test)} to test")
    ratios = [compare(yaml.safe_load(teacher), data, args) for teacher in args.teachers]
    return int(min(ratios) < args.limit)


if __name__ == "__main__":
    sys.exit(main())
