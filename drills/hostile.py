"""Hostile files: made to be executed, to lie, to escape or to fill the memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from drills.common import Dice, Result, Tally, fresh, preload, real, xcl
from drills.hostile_files import CODE, KINDS, MARK, SECRET
from drills.recipes import LIMIT, bound, told_badly

COUNT = 300
MEMORY = 12 * 2**30


def drill(dice: Dice, count: int, folder: Path) -> Result:
    """Give hostile files to commands."""
    preload()
    tally = Tally()
    whole = _run(fresh(folder / "made"))
    kinds = sorted(KINDS)
    for number, chance in dice.trials(count):
        tally.tried += 1
        place = fresh(folder / "trial") / "here"
        shutil.copytree(whole, place)
        (place.parent / SECRET).write_bytes(bytes(4096))
        mark = place.parent / MARK
        if chance.random() < 0.7:
            without_checksums(place / "run")
        (place / f"{CODE}.py").write_text(
            f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        )
        kind = kinds[number % len(kinds)] if dice.only is None else kinds[dice.only % len(kinds)]
        said, commands = KINDS[kind](place, chance)
        words = chance.choice(commands)
        ended = xcl(*words, cwd=place, real=real(number), limit=LIMIT, first=_bound)
        problem = ended.fault
        if problem is None and ended.status == 2:
            problem = told_badly(ended.refusal)
        if mark.exists():
            problem = "the code that it holds was executed"
        if "\x1b" in ended.text:
            problem = f"it moves the cursor: {ended.text[:300]!r}"
        problem = problem or _escaped(place)
        if problem is not None:
            # Links are kept as links: one leads to a device without an end.
            shutil.copytree(place, fresh(folder / "faults" / str(number)) / "here", symlinks=True)
            tally.fault(number, f"{kind}, {said}; xcl {' '.join(words)}: {problem}")
        tally.outcome("read" if ended.status == 0 else "refused by a sentence")
    return tally.result()


def _bound() -> None:
    bound(MEMORY)


def _escaped(place: Path) -> str | None:
    """Return a file that was written outside of the trial's folder; None where there is none."""
    found = [f.name for f in place.parent.iterdir() if f.name not in (place.name, SECRET, MARK)]
    return f"it wrote {found[0]!r} outside" if found else None


def _run(folder: Path) -> Path:
    """Make a run with its exported student, a saved student and data, and return their folder."""
    rows = np.random.default_rng(0).normal(size=(60, 3)).round(3)
    lines = ["p,q,r,y", *(",".join(map(str, r)) + f",{'abc'[n % 3]}" for n, r in enumerate(rows))]
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    recipe = {
        "name": "small",
        "data": {"table": {"path": "data.csv", "target": "y"}},
        "device": {"accelerator": "cpu"},
        "teacher": {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": 3}},
        "students": {"kd": {"model": {"mlp": {"hidden": [2]}}, "training": {"steps": 3}}},
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    for words in (["run", "r.yaml", "--out", "run"], ["export", "run", "--out", "out/kd.onnx"]):
        ended = xcl(*words, cwd=folder)
        assert ended.status == 0, ended.text
    for part in ("train", "test"):
        for number in range(6):
            place = folder / "images" / part / f"class-{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(noise).save(place / f"{number}.png")
    return folder


def without_checksums(run: Path) -> None:
    """Take the checksums out of a run, as its author can: a run of an earlier version has none."""
    for file in run.rglob("*.json"):
        found = json.loads(file.read_text())
        if isinstance(found, dict):
            kept = {k: v for k, v in found.items() if k not in ("files", "checksum", "sha256")}
            file.write_text(json.dumps(kept))
