"""What calibration is worth: coverage of intervals and sets, teachers calibrated before or after.

    OMP_NUM_THREADS=1 python benchmarks/calibration.py coverage --data data/uci
    OMP_NUM_THREADS=1 python benchmarks/calibration.py teacher --data data/uci

``coverage`` trains a small student on ten splits of four tables and of digits, calibrates it on the
validation examples, exports it, and prints the share of test labels inside its 90 % intervals or
sets: plain ones, conformal ones, and those of the ONNX file. ``teacher`` distils teachers that are
calibrated before they are matched and others that are not, and calibrates the students after.
Settings are fixed beforehand, and nothing is chosen by test figures.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import extracurricular as xcl
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute

TABLES = ("concrete", "energy", "kin8nm", "power-plant")


def recipe(name: str, folder: Path, seeds: int, teacher: Any, methods: Any) -> dict[str, Any]:
    """Return the recipe of a comparison: a small student of an ensemble, and of a split each."""
    if name == "digits":
        data: Any = {"digits": {"seed": "$seed"}}
        change = {"temperature": 4.0}
    else:
        data = {"uci": {"path": str(folder / name), "split": "$seed"}}
        change = {}
    training = {"steps": 500, "optimizer": "adamw", "lr": 0.003}
    return {
        "name": name,
        "data": data,
        "seeds": list(range(seeds)),
        "keep": 3000,
        "teacher": {
            "model": {"mlp": {"hidden": [64, 64]}}, "members": 2, "training": training,
            "per_seed": True, "calibrate": teacher,
        },
        "students": {
            "xcl": {
                "model": {"mlp": {"hidden": [32]}}, "sampler": ["empirical", "mixup"],
                "training": training, "matching": change, "calibrate": methods,
            }
        },
    }  # fmt: skip


def method(name: str) -> str:
    """Return the method that changes the distributions of a data set."""
    return "temperature" if name == "digits" else "variance"


def each(figures: Mapping[str, Any], name: str) -> list[float]:
    """Return a figure of every split."""
    return list(figures[name]["per_seed"])


def text(values: list[float], digits: int = 1, factor: float = 100.0) -> str:
    """Write mean ± standard deviation over splits."""
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    return f"{factor * mean:.{digits}f} ± {factor * spread:.{digits}f}"


def coverage(folder: Path, seeds: int) -> None:
    """Print coverage before and after, and of exported files."""
    print(
        "| data | plain | conformal | exported | plain width or size | conformal | NLL | before |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in (*TABLES, "digits"):
        methods = [method(name), "conformal"]
        values = recipe(name, folder, seeds, None, methods)
        with tempfile.TemporaryDirectory() as place:
            run = Path(place) / "run"
            summary = execute(parse_recipe(values), run, jobs=1)
            files = [
                xcl.export_run(run, Path(place) / f"{seed}" / "xcl.onnx", seed=seed)
                for seed in range(seeds)
            ]
        own = summary["students"]["xcl"]["calibration"]["figures"]
        exported = [one.metadata["files"]["xcl.onnx"]["coverage"] for one in files]
        size = "size" if "size" in own else "width"
        row = [
            text(each(own, "coverage_before")), text(each(own, "coverage")), text(exported),
            text(each(own, f"{size}_before"), 3, 1), text(each(own, size), 3, 1),
            text(each(own, "nll"), 3, 1), text(each(own, "nll_before"), 3, 1),
        ]  # fmt: skip
        print(f"| {name} | {' | '.join(row)} |", flush=True)


def teacher(folder: Path, seeds: int) -> None:
    """Print figures of students whose teacher was calibrated before, and of others."""
    print("| data | teacher | its NLL | student | accuracy or RMSE | NLL | coverage or ECE |")
    print("|---|---|---:|---|---:|---:|---:|")
    for name in ("concrete", "digits"):
        for before in (None, method(name)):
            values = recipe(name, folder, seeds, before, method(name))
            with tempfile.TemporaryDirectory() as place:
                summary = execute(parse_recipe(values), Path(place) / "run", jobs=1)
            student = summary["students"]["xcl"]
            own, whole = student["calibration"]["figures"], student["metrics"]
            known = "accuracy" if name == "digits" else "rmse"
            error = text(each(whole, known), 2, 100 if name == "digits" else 1)
            stated = "ece" if name == "digits" else "coverage"
            taught = text(each(summary["teacher"]["metrics"], "nll"), 3, 1)
            for after, ending in (("as it is", "_before"), ("calibrated", "")):
                nll = text(each(own, f"nll{ending}"), 3, 1)
                held = text(each(own, f"{stated}{ending}"))
                print(
                    f"| {name} | {'as it is' if before is None else 'calibrated'} | {taught} | "
                    f"{after} | {error} | {nll} | {held} |",
                    flush=True,
                )


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["coverage", "teacher"])
    parser.add_argument("--data", type=Path, default=Path("data/uci"), help="The folder of tables.")
    parser.add_argument("--splits", type=int, help="10 for coverage and 5 for teacher by default.")
    given = parser.parse_args()
    started = time.perf_counter()
    if given.part == "coverage":
        coverage(given.data, given.splits or 10)
    else:
        teacher(given.data, given.splits or 5)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
