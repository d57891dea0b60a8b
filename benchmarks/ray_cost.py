"""The cost of doing stages on a Ray cluster: overhead of a stage, and students with more workers.

    python benchmarks/ray_cost.py overhead --stages 300 --workers 2
    python benchmarks/ray_cost.py workers digits-ablation --workers 1 2 OVERRIDE …

``overhead`` does many tiny students with Ray, with ``--jobs``, and one after the other in this
process. The overhead of a stage is the time of all of them times the workers, less that of one
after the other, divided by their number. The start of the cluster and of its workers, which the
stages before the students pay for, is told apart.

``workers`` does a recipe with different numbers of workers of a local cluster. Teachers, generators
and records, then students, are timed apart. Weights are compared: they do not depend on the number.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from extracurricular.files import read_json
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.recipe.schema import Recipe
from extracurricular.run.check import check
from extracurricular.run.cluster import cluster
from extracurricular.run.execute import begin
from extracurricular.run.executors import do_tasks
from extracurricular.run.lock import locked
from extracurricular.run.plan import plan
from extracurricular.run.tasks import Task, tasks_of
from extracurricular.run.workspace import Workspace


def tiny(count: int) -> Recipe:
    """Return a recipe with so many tiny students, and a teacher that is fitted at once."""
    training = {"steps": 3, "batch_size": 8, "optimizer": "sgd", "lr": 0.01}
    names = [f"s{number:03d}" for number in range(count)]
    return parse_recipe(
        {
            "name": "tiny",
            "data": {"digits": {"train": 100, "validation": 50}},
            "device": {"accelerator": "cpu"},
            "seeds": [0],
            "teacher": {"estimator": {"random_forest": {"trees": 2}}},
            "defaults": {"model": {"mlp": {"hidden": [4]}}, "training": training},
            "students": {
                name: {"learns_from": "labels", "training": {"lr": 0.001 * (k + 1)}}
                for k, name in enumerate(names)
            },
            "reference": names[0],
            "plain": names[1],
            "subject": names[2],
        }
    )


def begun(recipe: Recipe, folder: Path) -> tuple[Workspace, list[Task]]:
    """Begin a run, and return its workspace and its tasks."""
    workspace = Workspace(recipe, folder)
    whole = plan(recipe)
    checks = check(whole, workspace)
    begin(whole, workspace, whole.trained, checks)
    return workspace, tasks_of(whole, workspace)


def timed(recipe: Recipe, folder: Path, workers: int, on: str | None) -> dict[str, Any]:
    """Do all stages of a recipe with so many workers, and return the seconds of each part."""
    folder.mkdir()
    with locked(folder):
        workspace, tasks = begun(recipe, folder)
        first = [task for task in tasks if not task.stage.path.startswith("students/")]
        rest = [task for task in tasks if task.stage.path.startswith("students/")]
        marks = [time.perf_counter()]
        with cluster(on, workers, [workspace]) if on else nullcontext():
            marks.append(time.perf_counter())
            for some in (first, rest):
                used = time.process_time()
                do_tasks(some, {folder: workspace}, jobs=workers, on=on)
                marks.append(time.perf_counter())
                cpu = time.process_time() - used
    start, before, students = (b - a for a, b in itertools.pairwise(marks))
    work = sum(read_json(folder / task.stage.path / "stage.json")["seconds"] for task in rest)
    return {
        "workers": workers,
        "engine": on or "jobs",
        "start_s": round(start, 2),
        "before_students_s": round(before, 2),
        "students_s": round(students, 2),
        "students": len(rest),
        "work_s": round(work, 2),
        "driver_cpu_s": round(cpu, 2),
    }


def weights(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("weights.safetensors")}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["overhead", "workers"])
    parser.add_argument("recipe", nargs="?", default="digits-ablation")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--stages", type=int, default=300)
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--engines", nargs="+", default=["ray", "jobs"], choices=["ray", "jobs"])
    chosen = parser.parse_args(words)
    os.environ.pop("RAY_ADDRESS", None)
    recipe = (
        tiny(chosen.stages)
        if chosen.what == "overhead"
        else read_recipe(chosen.recipe, chosen.overrides)
    )
    found, made = [], []
    ways = [(engine, workers) for engine in chosen.engines for workers in chosen.workers]
    if chosen.what == "overhead":
        ways.insert(0, ("jobs", 1))
    # In memory where that can be: flushing files takes most of the time of a tiny stage.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as place:
        for number, (engine, workers) in enumerate(ways):
            folder = Path(place) / str(number)
            row = timed(recipe, folder, workers, None if engine == "jobs" else engine)
            alone = found[0]["students_s"] if found else row["students_s"]
            if chosen.what == "overhead":
                total = workers * row["students_s"] - alone
                row["overhead_ms"] = round(1000 * total / row["students"], 1)
            found.append(row)
            made.append(weights(folder))
            print(json.dumps(row), file=sys.stderr, flush=True)
    same = all(one == made[0] for one in made)
    json.dump({"same_weights": same, "rows": found}, sys.stdout, indent=2)
    print()
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
