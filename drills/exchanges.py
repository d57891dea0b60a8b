"""Checkpoints and files of stages are exchanged with those of other settings, seeds and stages.

Each trial takes a run that was stopped, or one that is finished, and puts a file or a stage's whole
folder of another run, or of another stage of its own, in the place of its own. The same command is
then run again: it refuses the file, or ends as it would have ended without.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from drills._runs import Base, base, copy, differences, files, stopped, untold
from drills.common import Dice, Ended, Result, Tally, real, xcl

COUNT = 50
# Runs whose files are exchanged, by name: a kind, and what is otherwise in the recipe.
_OTHERS = ("plain", "gan", "chosen", "recorded")
_LR = 0.02


def drill(dice: Dice, count: int, folder: Path) -> Result:
    """Make ``count`` exchanges."""
    tally = Tally()
    pools = dict[str, tuple[Base, list[Path]]]()
    for number, own in dice.trials(count):
        kind = _OTHERS[number % len(_OTHERS)]
        if kind not in pools:
            pools[kind] = _pool(kind, folder)
        tally.tried += 1
        _trial(number, own, *pools[kind], tally)
    return tally.result()


def _pool(kind: str, folder: Path) -> tuple[Base, list[Path]]:
    """Return a run, and others that differ from it: in settings, in the seed, in both."""
    mine = base(kind, folder / f"{kind}-mine")
    found = [mine.run]
    recipe = mine.recipe.read_text()
    changes = {"lr": (f"lr: {0.01}", f"lr: {_LR}"), "data": ("train: 100", "train: 101")}
    for name, (was, now) in changes.items():
        assert was in recipe
        other = folder / f"{kind}-{name}"
        shutil.rmtree(other, ignore_errors=True)
        other.mkdir(parents=True)
        (other / "r.yaml").write_text(recipe.replace(was, now))
        theirs = Base(kind, other, mine.seconds)
        found += [stopped(theirs, other / f"part-{parts}", parts) for parts in (5, 18, 26)]
        ended = xcl("run", "r.yaml", "--out", "whole", cwd=other)
        assert ended.status == 0, ended.text
        found.append(theirs.run)
    return mine, found


def _trial(number: int, dice: Dice, whole: Base, others: list[Path], tally: Tally) -> None:
    out = whole.folder / f"trial-{number}"
    if dice.random() < 0.7:
        stopped(whole, out, dice.randrange(1, 25))
    else:
        copy(whole.run, out)
    if not _stages(out):
        copy(whole.run, out)
    source = dice.choice([*others, out])
    what, told = _exchange(dice, source, out, others[-1])
    tally.outcome(what)
    words = ("run", "r.yaml", "--out", out.name)
    ended = xcl(*words, cwd=whole.folder, real=real(number))
    said = f"{whole.kind}: {told}"
    if ended.fault:
        tally.fault(number, f"{said}: {ended.fault}")
    elif ended.status == 2:
        tally.outcome("refused")
    elif found := untold(_accepted(out, whole.run), ended.text):
        tally.fault(number, f"{said}: accepted: {'; '.join(found[:5])} ({out})")
        return
    else:
        tally.outcome("left out, or made anew, or told of")
    if not _shows(whole, out, ended, number, said, tally):
        return
    shutil.rmtree(out)


def _accepted(out: Path, whole: Path) -> list[str]:
    """Return in what a run differs, but for files that it never has, and so does not read.

    A log in the folder of a stage without one stays where somebody put it: who knows whose it is.
    """
    found = differences(out, whole)
    return [one for one in found if one.endswith(".ckpt is left") or not one.endswith(" is left")]


def _shows(whole: Base, out: Path, ended: Ended, number: int, said: str, tally: Tally) -> bool:
    """Return whether figures that are shown after a refusal are those of the run."""
    told = xcl("evaluate", out.name, "--json", cwd=whole.folder)
    if told.fault:
        tally.fault(number, f"{said}: evaluate: {told.fault}")
        return False
    if told.status == 2:
        return True
    wanted = xcl("evaluate", whole.run.name, "--json", cwd=whole.folder)
    if told.out.replace(out.name, "") != wanted.out.replace(whole.run.name, ""):
        tally.fault(number, f"{said}: evaluate shows other figures ({out})")
        return False
    return True


def _stages(run: Path) -> list[str]:
    return sorted(
        str(file.parent.relative_to(run)) for file in run.rglob("stage.json") if file.parent != run
    )


def _exchange(dice: Dice, source: Path, out: Path, fallback: Path) -> tuple[str, str]:
    """Put something of one run, or of the other, into another; return its kind, and a sentence."""
    place = dice.choice(_stages(out))
    theirs = [one for one in _stages(source) if source != out or one != place]
    if not theirs:
        # It was stopped so early that it has one stage, or none.
        source, theirs = fallback, _stages(fallback)
    of = dice.choice([place] * 3 + theirs) if place in theirs else dice.choice(theirs)
    whole = f"{of} of {source.parent.name}/{source.name} as {place}"
    checkpoints = sorted((source / of).glob("*.ckpt"))
    if not checkpoints and source != out:
        checkpoints = sorted(source.rglob("*.ckpt"))
    way = dice.random()
    if checkpoints and way < 0.6:
        taken = dice.choice(checkpoints)
        if dice.random() < 0.5:
            for file in (out / place).glob("*.ckpt"):
                file.unlink()
        shutil.copy(taken, out / place / taken.name)
        if (
            dice.random() < 0.3 or (out / place / "weights.safetensors").exists()
        ):  # as if the stage had not begun
            (out / place / "stage.json").unlink(missing_ok=True)
        return "checkpoint", f"checkpoint {taken.relative_to(source)}, {whole}"
    if way < 0.75:
        kept = out / place
        shutil.rmtree(kept)
        shutil.copytree(source / of, kept)
        return "folder of a stage", whole
    names = [name for name in files(source / of) if not name.endswith(".ckpt")]
    name = dice.choice(names)
    (out / place / name).parent.mkdir(parents=True, exist_ok=True)
    if source / of / name != out / place / name:
        shutil.copy(source / of / name, out / place / name)
    return "file of a stage", f"{name}, {whole}"
