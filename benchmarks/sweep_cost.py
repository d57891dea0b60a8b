"""Seconds of a sweep of tiny stages by part: all that is no training is the cost of the sweep.

    python benchmarks/sweep_cost.py [--stages 300] [--steps 10] [--jobs 1] [--out FOLDER]

A small network for digits is trained at as many temperatures as give about so many stages, with
three seeds; the teacher and two more students are equal in all runs, and done once. "Training" is
the whole time of the stages themselves, from ``stage.json`` on. Then the finished sweep is done
again. Beside the seconds stand those of the processor in this process: the rest is waiting for the
disk, or for a processor that others use.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from extracurricular.recipe.read import parse_recipe
from extracurricular.run import equal_stages, sweep, sweep_runs
from extracurricular.run.network import NetworkStage

SEEDS = [0, 1, 2]
SECONDS: dict[str, float] = defaultdict(float)
PROCESSOR: dict[str, float] = defaultdict(float)
_INSIDE: list[str] = []


def recipe(steps: int) -> Any:
    """Return the recipe of the sweep."""
    training = {"steps": steps, "batch_size": 16, "lr": 0.1}
    mlp = {"mlp": {"hidden": [4]}}
    return parse_recipe(
        {
            "name": "tiny",
            "data": {"digits": {"train": 100, "validation": 50}},
            "seeds": SEEDS,
            "teacher": {"model": {"mlp": {"hidden": [16]}}, "training": training},
            "defaults": {"model": mlp, "training": training},
            "students": {
                "erm": {"learns_from": "labels"},
                "kd": {},
                "xcl": {"sampler": ["empirical", "mixup"]},
            },
            "device": {"accelerator": "cpu"},
        }
    )


@contextmanager
def part(name: str) -> Iterator[None]:
    """Count the time of a block for a part, and not for the part that it is inside of."""
    started, busy = time.perf_counter(), time.process_time()
    _INSIDE.append(name)
    try:
        yield
    finally:
        _INSIDE.pop()
        spent = time.perf_counter() - started, time.process_time() - busy
        for kept, seconds in zip((SECONDS, PROCESSOR), spent, strict=True):
            kept[name] += seconds
            if _INSIDE:
                kept[_INSIDE[-1]] -= seconds


def timed(owner: Any, name: str, label: str) -> None:
    """Have each call of a function counted for a part."""
    function: Callable[..., Any] = getattr(owner, name)

    def wrapper(*given: Any, **named: Any) -> Any:
        with part(label):
            return function(*given, **named)

    setattr(owner, name, wrapper)


def measure(folder: Path, steps: int, count: int, jobs: int) -> float:
    """Do a sweep, and return its seconds."""
    SECONDS.clear()
    PROCESSOR.clear()
    over = {"students.xcl.matching.temperature": [round(1 + k / 100, 2) for k in range(count)]}
    with part("other"):
        sweep.sweep(recipe(steps), over, folder, jobs)
    return sum(SECONDS.values())


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", type=int, default=300)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    count = max(1, (given.stages - 1 - 2 * len(SEEDS)) // len(SEEDS))
    stages = 1 + len(SEEDS) * (2 + count)
    timed(sweep, "combinations", "recipes")
    timed(sweep, "check_different", "recipes")
    timed(sweep.Runs, "prepare", "checks")
    timed(sweep_runs, "plan", "plans and keys")
    timed(sweep_runs, "member", "plans and keys")
    timed(sweep_runs, "begin", "beginnings of runs")
    timed(sweep_runs, "check_folder", "beginnings of runs")
    timed(sweep_runs, "locked", "beginnings of runs")
    timed(equal_stages, "link_stage", "links")
    timed(NetworkStage, "do", "training")
    timed(sweep_runs, "do_tasks", "executor")
    timed(sweep.Runs, "_measure", "evaluation")
    timed(sweep.Runs, "figures", "validation figures")
    real = sweep.read_combinations
    sweep.read_combinations = lambda *some: _listed(real, *some)
    with tempfile.TemporaryDirectory(dir=given.out) as name:
        folder = Path(name) / "sweep"
        for title in ("first", "again"):
            total = measure(folder, given.steps, count, given.jobs)
            done = ("training", "executor") if given.jobs > 1 else ("training",)
            rest = total - sum(SECONDS[name] for name in done)
            busy = sum(PROCESSOR.values()) - sum(PROCESSOR[name] for name in done)
            print(
                f"{title}: {count} runs, {stages} stages to do, jobs {given.jobs}, "
                f"{os.cpu_count()} hyper-threads, load {os.getloadavg()[0]:.1f}: {total:.1f} s, of "
                f"which the sweep itself {rest:.1f} s ({busy:.1f} s of processor): "
                f"{1000 * rest / stages:.0f} ms a stage ({1000 * busy / stages:.0f} ms)"
            )
            for label, seconds in sorted(SECONDS.items(), key=lambda pair: -pair[1]):
                told = f"{1000 * PROCESSOR[label] / stages:7.1f} ms of processor"
                print(f"  {label:<20} {1000 * seconds / stages:7.1f} ms a stage {told}")


def _listed(function: Callable[..., Any], *given: Any) -> list[Any]:
    with part("recipes"):
        return list(function(*given))


if __name__ == "__main__":
    main()
