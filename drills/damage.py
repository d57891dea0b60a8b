"""A file of a run is damaged: a bit, a byte, a digit, its end, all of it, or it is another's.

The files of finished and of stopped runs are damaged one at a time. Then ``xcl report`` and ``xcl
evaluate`` look at the run, ``xcl run`` goes on with it, and ``xcl report`` looks again. All that is
shown must be true: what it was before, or less where a sentence names the damaged file.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from drills._runs import KINDS, Base, base, copy, differences, files, stopped, untold
from drills.common import Dice, Ended, Result, Tally, real, xcl

COUNT = 1000
# One trial of so many is with a run that was stopped.
_STOPPED_EVERY = 4
_OTHER_LR = "lr: 0.02"


@dataclass(frozen=True)
class Truth:
    """A run, all that may be shown of it, and another to take files from.

    Args:
        whole: The run.
        run: A copy of it with a page of its own.
        other: One of another learning rate.
        page: Its page, without checksums.
        figures: The output of ``xcl evaluate --json``.
    """

    whole: Base
    run: Path
    other: Path
    page: str
    figures: str


def drill(dice: Dice, count: int, folder: Path) -> Result:
    """Damage ``count`` files."""
    tally, known, kinds = Tally(), dict[str, Truth](), list(KINDS)
    for number, own in dice.trials(count):
        kind = kinds[number % len(kinds)]
        if kind not in known:
            known[kind] = _truth(kind, folder / kind)
        tally.tried += 1
        place = known[kind].whole.folder / f"trial-{number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if number // len(kinds) % _STOPPED_EVERY == _STOPPED_EVERY - 1:
            fine = _of_a_stopped_run(number, own, known[kind], place, tally)
        else:
            fine = _of_a_finished_run(number, own, known[kind], place, tally)
        if fine:
            shutil.rmtree(place)
    return tally.result()


def _truth(kind: str, folder: Path) -> Truth:
    whole = base(kind, folder)
    other = folder / "other"
    other.mkdir()
    (other / "r.yaml").write_text(whole.recipe.read_text().replace("lr: 0.01", _OTHER_LR))
    ended = xcl("run", "r.yaml", "--out", "run", cwd=other)
    assert ended.status == 0, ended.text
    place = folder / "truth"
    copy(whole.run, place / "run")
    told = xcl("report", "run", cwd=place)
    figures = xcl("evaluate", "run", "--json", cwd=place)
    assert told.status == figures.status == 0, told.text + figures.text
    return Truth(whole, place / "run", other / "run", _page(place / "run"), figures.out)


def _of_a_finished_run(number: int, dice: Dice, truth: Truth, place: Path, tally: Tally) -> bool:
    run = copy(truth.run, place / "run")
    names, how = _damage(dice, run, truth.other)
    said = f"{truth.whole.kind}: {how} of {' and '.join(names)}"

    def wrong(text: str) -> bool:
        tally.fault(number, f"{said}: {text} ({place})")
        return False

    way = dice.random()
    if way < 0.4:
        told = xcl("report", "run", cwd=place, real=real(number))
        problem = told.fault
        if problem is None and told.status == 2:
            tally.outcome("report refused")
            problem = _named(told, names)
        elif problem is None:
            problem = _untrue(run, truth, told.text, names, tally)
        return wrong(f"report: {problem}") if problem else True
    if way < 0.6:
        told = xcl("evaluate", "run", "--json", cwd=place, real=real(number))
        if told.fault:
            return wrong(f"evaluate: {told.fault}")
        if told.status == 0 and told.out != truth.figures:
            return wrong("evaluate shows other figures")
        tally.outcome("evaluate refused" if told.status else "evaluate as it was")
        problem = _named(told, names) if told.status else None
        return wrong(f"evaluate: {problem}") if problem else True
    again = xcl("run", "../r.yaml", "--out", "run", cwd=place, real=real(number))
    if again.fault:
        return wrong(f"run: {again.fault}")
    if again.status == 2:
        tally.outcome("run refused")
        problem = _named(again, names)
        return wrong(f"run: {problem}") if problem else True
    found = _read(differences(run, truth.whole.run))
    if left := untold(found, again.text):
        return wrong(f"run leaves other files: {'; '.join(left[:5])}")
    tally.outcome("run tells of what it cannot make anew" if found else "run made it whole")
    problem = _untrue(run, truth, again.text, names, tally, trained="made anew" in again.text)
    return wrong(f"run: {problem}") if problem else True


def _of_a_stopped_run(number: int, dice: Dice, truth: Truth, place: Path, tally: Tally) -> bool:
    parts = dice.randrange(1, 25)
    kept = truth.whole.folder / f"stopped-{parts}"
    if not kept.exists():
        stopped(truth.whole, kept, parts)
    run = copy(kept, place / "run")
    names, how = _damage(dice, run, truth.other)
    said = f"{truth.whole.kind}, stopped: {how} of {' and '.join(names)}"
    for command in ("report", "evaluate") if dice.random() < 0.2 else ():
        told = xcl(command, "run", cwd=place)
        if told.fault or told.status == 0:
            tally.fault(number, f"{said}: {command}: {told.fault or 'is not refused'} ({place})")
            return False
    again = xcl("run", "../r.yaml", "--out", "run", cwd=place, real=real(number))
    problem = again.fault
    if problem is None and again.status == 2:
        tally.outcome("run of a stopped one refused")
        problem = _named(again, names)
    elif problem is None:
        found = _read(differences(run, truth.whole.run))
        problem = "; ".join(untold(found, again.text)[:5]) or None
        tally.outcome("stopped run ended bit-equal", 0 if problem else 1)
    if problem:
        tally.fault(number, f"{said}: run: {problem} ({place})")
    return problem is None


def _read(clauses: list[str]) -> list[str]:
    """Return the clauses of files that a run may read once its students are done.

    Records and the weights of generators may be large, and are compared when students need them;
    times are measured when a page needs them.
    """
    unread = re.compile(r"knowledge/|generators/.*weights\.safetensors is another|latency\.json")
    return [one for one in clauses if not unread.match(one)]


def _named(told: Ended, names: list[str]) -> str | None:
    """Return a fault where a refusal names neither a file that was damaged, nor its stage."""
    for name in names:
        stage = str(Path(name).parent)
        if Path(name).name in told.refusal or (stage != "." and stage in told.refusal):
            return None
    return f"refused in other words: {told.refusal}"


def _page(run: Path) -> str:
    """Return a page without its checksums."""
    text = (run / "report.html").read_text(encoding="utf-8", errors="replace")
    text = re.sub(r'<meta name="xcl-report" content="[^"]*">', "", text)
    return re.sub(r"<!-- sha256: \w* -->\n?$", "", text)


def _untrue(
    run: Path, known: Truth, told: str, names: list[str], tally: Tally, *, trained: bool = False
) -> str | None:
    """Return what is wrong with a page; a training that was done again has a time of its own."""
    if not (run / "report.html").exists():
        tally.outcome("no page, and told why")
        return None if "could not be made" in told else "there is no page, and no word of it"
    page, truth = _page(run), known.page
    if page == truth:
        tally.outcome("page as it was")
        return None
    if not any(Path(name).name in told for name in names):
        return f"another page, and no word of {names}: {_first(page, truth)}"
    if _cells(page, timed=not trained) != _cells(truth, timed=not trained):
        return f"other figures in the page, though {names} are told of: {_first(page, truth)}"
    tally.outcome("page tells of the damage")
    return None


def _cells(page: str, *, timed: bool) -> list[str]:
    """Return the cells of all tables, with or without the rows that tell a time."""
    time = re.compile(r"<td[^>]*>[\d.,]+ (ms|s|min|h)</td>")
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL)
    kept = [row for row in rows if timed or not time.search(row)]
    return [cell for row in kept for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]


def _first(page: str, truth: str) -> str:
    """Return the first line that differs."""
    pairs = zip(page.splitlines(), truth.splitlines(), strict=False)
    return next((f"{a[:200]!r} for {b[:200]!r}" for a, b in pairs if a != b), "its end")


def _damage(dice: Dice, run: Path, other: Path) -> tuple[list[str], str]:
    """Damage one file of a run; return its path, or those of two, and what was done."""
    name = dice.choice(files(run))
    file = run / name
    content = bytearray(file.read_bytes())
    kind = dice.choice(
        ["bit"] * 3 + ["byte", "digit", "digit", "digit", "end", "hole", "more", "empty", "gone"]
        + ["swapped", "foreign"]
    )  # fmt: skip
    place = dice.randrange(max(1, len(content)))
    digits = [k for k, byte in enumerate(content) if chr(byte).isdigit()]
    same = [one for one in files(run) if one != name and Path(one).suffix == file.suffix]
    if kind == "swapped" and same:
        with_ = dice.choice(same)
        theirs = (run / with_).read_bytes()
        (run / with_).write_bytes(bytes(content))
        file.write_bytes(theirs)
        return [name, with_], "swapping"
    if kind == "foreign" and (other / name).is_file():
        shutil.copy(other / name, file)
        return [name], "that of another run in place"
    if kind == "gone":
        file.unlink()
        return [name], "loss"
    if kind == "end":
        content = content[:place]
    elif kind == "empty" or not content:
        content = bytearray()
    elif kind == "hole":
        size = dice.randrange(1, 64)
        content[place : place + size] = bytes(len(content[place : place + size]))
    elif kind == "more":
        content[place:place] = content[place // 2 : place // 2 + dice.randrange(1, 40)]
    elif kind == "byte":
        content[place] = (content[place] + dice.randrange(1, 256)) % 256
    elif kind == "digit" and digits:
        place = dice.choice(digits)
        content[place] = ord(dice.choice([d for d in "0123456789" if ord(d) != content[place]]))
    else:
        kind = "bit"
        content[place] ^= 1 << dice.randrange(8)
    file.write_bytes(bytes(content))
    return [name], f"{kind} at {place}"
