"""Made regression tables are trained with defaults: none ends worse than a constant unmarked.

Ten kinds of tables have what real ones have: heavy tails, outliers, tiny and huge units, times in
seconds since 1970, a constant target, no signal at all. Of each trial's run, answers on the test
rows are compared with mean and deviation of the training targets, by formulas written here anew. A
network that is worse than these in both RMSE and NLL by two standard errors, or whose deviations
are beyond a thousandth or a thousand times the target's, must be marked in ``summary.json``.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import yaml
from safetensors.numpy import load_file

from drills.common import Dice, Ended, Result, Tally, fresh, real, xcl

Array: TypeAlias = np.ndarray[Any, Any]

COUNT = 100
_ROWS, _STEPS = 240, 300
# Deviations, in those of the target, beyond which a variance follows no data.
_FAR = 1000.0


def _plain(r: np.random.Generator, x: Array) -> Array:
    return np.asarray(2 * x[:, 0] + x[:, 1] ** 2 + 0.1 * r.normal(size=len(x)))


def _heavy(r: np.random.Generator, x: Array) -> Array:
    return np.asarray(x[:, 0] + r.standard_t(1.5, size=len(x)))


def _outlier(r: np.random.Generator, x: Array) -> Array:
    y = _plain(r, x)
    y[r.integers(len(y))] = 1e6
    return y


def _skewed(r: np.random.Generator, x: Array) -> Array:
    return np.asarray(np.exp(2 * x[:, 0] + 0.3 * r.normal(size=len(x))))


KINDS: dict[str, Callable[[np.random.Generator, Array], Array]] = {
    "plain": _plain,
    "heavy tails": _heavy,
    "one outlier": _outlier,
    "skewed": _skewed,
    "exact": lambda r, x: np.sin(x[:, 0]) + x[:, 1],
    "no signal": lambda r, x: r.normal(size=len(x)),
    "tiny units": lambda r, x: 1e-30 * _plain(r, x),
    "huge units": lambda r, x: 1e30 * _plain(r, x),
    "far from 0": lambda r, x: 1.7e9 + _plain(r, x),
    "constant": lambda r, x: np.full(len(x), 3.0),
}


def drill(dice: Dice, count: int, folder: Path) -> Result:
    """Train ``count`` tables, the kinds in turn."""
    tally = Tally()
    names = list(KINDS)
    for number, own in dice.trials(count):
        kind = names[number % len(names)]
        tally.tried += 1
        where = fresh(folder / f"trial-{number}")
        _write(kind, np.random.default_rng(own.randrange(2**32)), where, number // len(names))
        ended = xcl("run", "r.yaml", "--out", "out", "--jobs", "1", cwd=where, real=real(number))
        if _judge(number, kind, ended, where, tally):
            shutil.rmtree(where)
    return tally.result()


def _write(kind: str, r: np.random.Generator, where: Path, seed: int) -> None:
    x = r.normal(size=(_ROWS, 4))
    y = KINDS[kind](r, x)
    unit, origin = {"tiny units": (1e-30, 0.0), "huge units": (1e30, 0.0)}.get(kind, (1.0, 0.0))
    origin = 1.7e9 if kind == "far from 0" else origin
    lines = [",".join(map(repr, row)) for row in np.c_[x * unit + origin, y].tolist()]
    (where / "t.csv").write_text("\n".join(["a,b,c,d,y", *lines]) + "\n")
    training = {"steps": _STEPS}
    recipe = {
        "name": "table",
        "data": {"table": {"path": "t.csv", "target": "y", "task": "regression"}},
        "device": {"accelerator": "cpu"},
        "seeds": [seed],
        "teacher": {"model": {"mlp": {"hidden": [32]}}, "training": training},
        "defaults": {"model": {"mlp": {"hidden": [16]}}, "training": training},
        "students": {"erm": {"learns_from": "labels"}, "kd": {}},
        "keep": 0,
    }
    (where / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))


def _judge(number: int, kind: str, ended: Ended, where: Path, tally: Tally) -> bool:
    """Tally what came of a run, and return whether nothing was wrong."""
    if ended.fault or ended.status == 2:
        tally.fault(number, f"{kind}: {ended.fault or ended.refusal} ({where})")
        return False
    out, fine = where / "out", True
    marks = json.loads((out / "summary.json").read_text()).get("marks", [])
    told = {mark["name"]: mark.get("problem") or mark["note"] for mark in marks}
    crossed = {mark["name"] for mark in marks if "problem" in mark}
    y = np.loadtxt(where / "t.csv", delimiter=",", skiprows=1, usecols=4)
    ids = json.loads(gzip.decompress((out / "ids.json.gz").read_bytes()))[0]
    train = y[[int(row) for row in ids["train"]]]
    [teacher_file] = out.glob("teacher/*/answers.safetensors")
    labels = load_file(teacher_file)["labels"].reshape(-1).astype(np.float64)
    files = {"teacher": teacher_file}
    files |= {
        name: next(out.glob(f"students/{name}/*/answers.safetensors")) for name in ("erm", "kd")
    }
    for name, file in files.items():
        answers = load_file(file)
        wrong = _shortfall(answers["mean"], answers["std"], labels, train)
        if wrong and name not in told:
            tally.fault(number, f"{kind}: {name} {wrong}, and it has no mark ({where})")
            fine = False
        tally.outcome("marked" if name in crossed else "told" if name in told else "no mark")
    return fine


def _shortfall(mean: Array, std: Array, y: Array, train: Array) -> str:
    """Return in what answers are worse than the constant's; empty where they are not."""
    scale, middle = float(train.std()) or 1.0, float(train.mean())
    z = (y - middle) / scale
    m = (mean.reshape(-1).astype(np.float64) - middle) / scale
    s = std.reshape(-1).astype(np.float64) / scale
    if not (np.isfinite(m).all() and np.isfinite(s).all()):
        return "has answers that are not finite"
    if train.std() > 0 and np.mean((s < 1 / _FAR) | (s > _FAR)) > 0.01:
        return f"has deviations from {s.min():.2g} to {s.max():.2g} of the target's"
    losses = ((m - z) ** 2, z**2), (np.log(s) + 0.5 * ((z - m) / s) ** 2, 0.5 * z**2)
    worse = [
        float(d.mean()) > 2 * float(d.std()) / len(d) ** 0.5 for d in (a - b for a, b in losses)
    ]
    return "is worse than a constant" if all(worse) else ""
