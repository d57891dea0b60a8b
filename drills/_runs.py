"""Small runs that drills break: their recipes, their data, and the comparison of two of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from drills.common import fresh, xcl

# Values that a clock gives, which no two runs share.
_CLOCK = ("seconds", "examples_per_second", "date")
# Files that hold nothing but such values, or the places of others.
_APART = ("latency.json", "report.html", "environment.json", ".lock")
_STEPS = 60


def _small(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    training = {"steps": _STEPS, "batch_size": 16, "optimizer": "adamw", "lr": 0.01}
    training |= {"checkpoint_every": 7}
    model = {"mlp": {"hidden": [8]}}
    return {
        "name": "small",
        "data": data,
        "device": {"accelerator": "cpu"},
        "teacher": {"model": model, "members": 2, "training": training},
        "defaults": {"model": model, "training": training},
        "students": {
            "erm": {"learns_from": "labels"},
            "kd": {},
            "xcl": {"sampler": ["empirical", {"mixup": {"alpha": 1.0}}]},
        },
    } | changes


def _plain(_: Path) -> dict[str, Any]:
    return _small({"digits": {"train": 100, "validation": 50}}, seeds=[0, 1])


def _recorded(folder: Path) -> dict[str, Any]:
    recipe = _plain(folder) | {"seeds": [0]}
    recipe["teacher"]["record"] = {"draws": 400}
    return recipe


def _streamed(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    for number in range(48):
        file = folder / "photos" / f"class{number % 3}" / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((24, 20)).save(file)
    settings = {"path": str(folder / "photos"), "size": 8, "stream": True, "workers": 1}
    return _small({"imagefolder": settings})


def _gan(_: Path) -> dict[str, Any]:
    fit = {"steps": 30, "batch_size": 8, "latent": 4, "channels": 4, "discriminator_channels": 4}
    recipe = _small({"digits": {"train": 100, "validation": 50}})
    recipe["generators"] = {"made": {"model": {"gan": fit}, "least_variety": 0.0}}
    drawn = [{"generated": {"generator": "made"}}]
    recipe["students"]["xcl"] = {"sampler": drawn}
    return recipe


def _chosen(_: Path) -> dict[str, Any]:
    recipe = _small({"digits": {"train": 100, "validation": 50}})
    among = {"kd": {}, "mixed": {"sampler": ["empirical", {"mixup": {"alpha": 1.0}}]}}
    recipe["students"] = {"kd": {}, "xcl": {"choose": {"among": among, "after": [0.5]}}}
    return recipe


def _fitted(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(120, 3)).round(4).tolist()
    lines = [f"{a},{b},{c},{3 * a - b * c:.4f}" for a, b, c in rows]
    (folder / "table.csv").write_text("\n".join(["a,b,c,y", *lines]) + "\n")
    recipe = _small({"table": {"path": str(folder / "table.csv"), "target": "y"}})
    recipe["teacher"] = {"estimator": {"random_forest": {"trees": 5}}}
    return recipe


KINDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "plain": _plain,
    "recorded": _recorded,
    "streamed": _streamed,
    "gan": _gan,
    "chosen": _chosen,
    "fitted": _fitted,
}


@dataclass(frozen=True)
class Base:
    """A recipe, and a run of it that nothing happened to.

    Args:
        kind: Its kind.
        folder: The folder of recipe, data and run.
        seconds: How long the run took.
    """

    kind: str
    folder: Path
    seconds: float

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return self.folder / "whole"

    @property
    def recipe(self) -> Path:
        """The file of the recipe."""
        return self.folder / "r.yaml"


def base(kind: str, folder: Path, **changes: Any) -> Base:
    """Make a run of a kind in a folder of its own."""
    own = fresh(folder)
    recipe = KINDS[kind](own) | changes
    (own / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    ended = xcl("run", "r.yaml", "--out", "whole", "--jobs", "1", cwd=own, first=eager)
    if ended.status != 0:
        raise RuntimeError(f"the run {kind} cannot be made: {ended.text[-2000:]}")
    return Base(kind, own, ended.seconds)


def eager() -> None:
    """Write the checkpoints of generators at every step, which are too quick for one otherwise."""
    from extracurricular.generators import gan

    gan._CHECKPOINT_SECONDS = 0.0


def differences(found: Path, whole: Path) -> list[str]:
    """Return in what a run differs from another, but for times: one clause for each file."""
    ours, theirs = _files(found), _files(whole)
    clauses = [f"{name} is missing" for name in sorted(theirs - ours)]
    clauses += [f"{name} is left" for name in sorted(ours - theirs)]
    for name in sorted(ours & theirs):
        if Path(name).name not in _APART and _content(found / name) != _content(whole / name):
            clauses.append(f"{name} is another")
    return clauses


def untold(clauses: list[str], text: str) -> list[str]:
    """Return the clauses of files that a text does not name as damaged."""
    return [one for one in clauses if f"{one.split()[0]}' is" not in text]


def copy(run: Path, to: Path) -> Path:
    """Copy a run."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(run, to, symlinks=True)
    return to


def files(run: Path) -> list[str]:
    """Return the files of a run, by their paths in it."""
    return sorted(_files(run) - {".lock"})


def _files(run: Path) -> set[str]:
    return {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}


def _content(file: Path) -> Any:
    """Return the content of a file without times, and without checksums that depend on them."""
    try:
        return _parsed(file)
    except ValueError:
        return file.read_bytes()


def _parsed(file: Path) -> Any:
    if file.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in file.read_text().splitlines()]
    if file.name == "choice.json":
        held_out = {k: v for k, v in json.loads(file.read_text()).items() if isinstance(v, dict)}
        return {k: {name: kl for name, (kl, _) in v.items()} for k, v in held_out.items()}
    if file.suffix == ".json":
        return _timeless(json.loads(file.read_text()))
    return file.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        dropped = {*_CLOCK, "checksum", "of", "summary.json", "log.jsonl", "choice.json"}
        dropped |= {name for name in value if name.endswith(("/log.jsonl", "/summary.json"))}
        kept = {name: part for name, part in value.items() if name not in dropped}
        return {name: _timeless(part) for name, part in kept.items()}
    if isinstance(value, list):
        return [_timeless(part) for part in value]
    return value


def stopped(whole: Base, out: Path, parts: int) -> Path:
    """Make a run that was killed when it had made so many checkpoints.

    Args:
        whole: The run as it would be.
        out: Its folder, beside the recipe.
        parts: Checkpoints that it writes before.
    """
    shutil.rmtree(out, ignore_errors=True)
    ended = xcl("run", "r.yaml", "--out", out.name, cwd=whole.folder, first=partial(_stop, parts))
    if ended.status != -signal.SIGKILL:
        raise RuntimeError(f"the run {whole.kind} was not stopped: {ended.text[-2000:]}")
    return out


def _stop(parts: int) -> None:
    """Kill this process behind its nth checkpoint."""
    from extracurricular.files import Checkpoints

    eager()
    save, left = Checkpoints.save, [parts]

    def counted(self: Checkpoints, step: int, state: dict[str, Any]) -> None:
        save(self, step, state)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoints.save = counted  # type: ignore[method-assign]
