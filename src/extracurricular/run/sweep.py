"""A sweep: a recipe with other values of some settings, each combination a run of its own.

The folder of a sweep::

    sweep.json         what was varied, and the figures of each combination
    sweep.html         the page
    runs/NAME/         the run of each combination, as `xcl run` makes it
    rungs/PART/NAME/   with halving: the runs with a part of the steps

Combinations are compared on validation examples alone, and the best is chosen by them; of the test
figures only those of the best are told.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extracurricular.errors import RecipeError, StorageError, known_names
from extracurricular.evaluation.entries import measure_of
from extracurricular.evaluation.metrics import error_of
from extracurricular.files import read_sealed, write_sealed
from extracurricular.recipe.over import (
    MOST,
    Combination,
    check_different,
    combinations,
    read_combinations,
    read_overs,
)
from extracurricular.recipe.schema import Recipe
from extracurricular.run.evaluation import SUMMARY
from extracurricular.run.finished import SWEEP
from extracurricular.run.launched import check_alone, check_one_process
from extracurricular.run.lock import locked
from extracurricular.run.rungs import Rungs, better_half, read_rungs, shortened
from extracurricular.run.sweep_runs import Prepared, Runs
from extracurricular.run.watcher import Silent, Watcher

SCHEMA = 1
FILE = SWEEP
_RUNS, _RUNGS = "runs", "rungs"


@dataclass(frozen=True)
class Wanted:
    """The sweep that a person asks for.

    Args:
        recipe: A path, a shipped recipe's name, or a recipe.
        over: ``key.path=value,value`` each, or lists of values by key.
        overrides: Overrides that all combinations have.
        student: The student that is judged; those that the keys name, or the recipe's subject,
            where None.
        halving: The parts of the steps after which the worse half stops; None to train all whole.
        most: Most combinations.
    """

    recipe: str | Recipe
    over: Sequence[str] | Mapping[str, Any]
    overrides: Sequence[str] = ()
    student: str | None = None
    halving: Any = None
    most: int = MOST


def sweep(
    recipe: str | Recipe,
    over: Mapping[str, Any] | Sequence[str],
    folder: str | Path,
    jobs: int | None = 1,
    *,
    on: str | None = None,
    overrides: Sequence[str] = (),
    student: str | None = None,
    halving: Sequence[float] | None = None,
    most: int = MOST,
    watcher: Watcher | None = None,
) -> list[dict[str, Any]]:
    """Run a recipe with all combinations of some values; return a row for each, the best first.

    Each combination is a run of its own, below ``runs`` in the folder, that every command can open.
    Equal stages, such as the teacher, are done once. What is finished is kept.

    Args:
        recipe: A path, a shipped recipe's name, or a recipe.
        over: Lists of values by key: ``{"students.xcl.matching.temperature": [1, 2, 4]}``.
        folder: Folder of the sweep.
        jobs, on: As for :func:`~extracurricular.run.execute.execute`.
        overrides: ``key.path=value`` each, for all combinations.
        student: The student that is judged; those that the keys name, or the recipe's subject,
            where None.
        halving: The parts of the steps after which the worse half stops, rising in (0, 1).
        most: Most combinations.
        watcher: Follows the runs; may be None.

    Returns:
        Plain values: ``values`` by key, ``student``, ``run`` (its folder), ``part`` of the steps
        that it had, ``best``, ``error`` on the validation examples in the ``measure`` that is
        named, and all ``figures`` there with ``mean``, ``std`` and ``per_seed``. The best row has
        its figures on test examples as ``test``.

    Raises:
        XclError: The sweep cannot be done, or a stage failed; the message is one sentence.
    """
    wanted = Wanted(recipe, over, overrides, student, halving, most)
    found = do_sweep(wanted, Path(folder), jobs, watcher, on)
    return [{**row, "run": str(Path(folder) / row["run"])} for row in found["rows"]]


def do_sweep(
    wanted: Wanted,
    folder: Path,
    jobs: int | None = 1,
    watcher: Watcher | None = None,
    on: str | None = None,
) -> dict[str, Any]:
    """Do a sweep, except what is done already; return what ``sweep.json`` holds.

    Everything is checked before anything is written.

    Raises:
        XclError: It cannot be done, or a stage failed; the message is one sentence.
    """
    started = time.perf_counter()
    check_one_process()
    if on is not None:
        from extracurricular.run.cluster import check_cluster

        check_cluster(on, jobs)
    known = read_sweep(folder)
    some = _with_known(combinations(read_overs(wanted.over), wanted.most), known, folder)
    names = _folders(some, known)
    recipes = list(read_combinations(wanted.recipe, wanted.overrides, some))
    check_alone(recipes[0].device)
    check_different(zip(some, (one.dump() for one in recipes), strict=True), "make the same recipe")
    students = judged_students(wanted.student, some[0], recipes)
    rungs = None if wanted.halving is None else read_rungs(wanted.halving)
    if rungs is not None and len(students) > 1:
        raise RecipeError(
            "--halving", f"judges one student, and {' and '.join(students)} are varied; "
            "name it with --student"
        )  # fmt: skip
    runs = Runs(watcher or Silent(), jobs, on)
    whole = runs.prepare(
        [
            (one, recipe, folder / _RUNS / name)
            for one, recipe, name in zip(some, recipes, names, strict=True)
        ]
    )
    raw = {one.combination.mark: recipe for one, recipe in zip(whole, recipes, strict=True)}
    with locked(folder):
        if read_sweep(folder) != known:
            raise StorageError(f"another sweep has been at work in {str(folder)!r}; try again")
        told = _begun(whole, folder, students, recipes[0])
        # What was known before is kept until there is more.
        write_sealed(folder / FILE, {**(known or {}), **told})
        rows: list[dict[str, Any]] = []
        if rungs is not None:
            runs.watcher.tell(rungs.sentence(len(whole)))
            whole, rows = _halved(runs, rungs, whole, raw, folder, students[0])
        runs.do(whole)
        found = {**told, **_results(runs, whole, rows, folder, students)}
        found["seconds"] = round(time.perf_counter() - started, 3)
        write_sealed(folder / FILE, found)
    return found


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """Return what the folder of a sweep keeps; None where there is no sweep.

    Raises:
        StorageError: Its file is damaged, or of a later version.
    """
    file = folder / FILE
    if not file.is_file():
        if (folder / "recipe.yaml").is_file():
            raise StorageError(f"{str(folder)!r} is the folder of a run; choose another --out")
        return None
    found = read_sealed(file)
    if found.get("schema") != SCHEMA:
        raise StorageError(
            f"the file {str(file)!r} is of schema {found.get('schema')!r}, and this version reads "
            f"{SCHEMA}"
        )
    return found


def judged_students(
    name: str | None, combination: Combination, recipes: Sequence[Recipe]
) -> list[str]:
    """Return the students whose figures are compared.

    Args:
        name: The student that a person names.
        combination: Any combination, for its keys.
        recipes: The recipe of each combination.

    Raises:
        RecipeError: A combination has no such student.
    """
    common = [one for one in recipes[0].students if all(one in r.students for r in recipes)]
    if name is not None:
        if name not in common:
            raise RecipeError(
                "--student", f"is {name!r}, but the recipe has no such student; "
                f"{known_names(name, common)}"
            )  # fmt: skip
        return [name]
    parts = [key.split(".") for key in combination.values]
    varied = {part[1] for part in parts if part[0] == "students" and len(part) > 1}
    found = [one for one in common if one in varied]
    return found or [recipes[0].subject]


def _with_known(
    wanted: Sequence[Combination], known: Mapping[str, Any] | None, folder: Path
) -> list[Combination]:
    """Return the combinations with those of before, which come first, as far as they are finished.

    Raises:
        StorageError: Other settings were varied before.
    """
    if known is None:
        return list(wanted)
    keys = list(wanted[0].values)
    if set(known["keys"]) != set(keys):
        raise StorageError(
            f"{str(folder)!r} holds a sweep over {' and '.join(known['keys'])}, not over "
            f"{' and '.join(keys)}; choose another --out"
        )
    mine = {one.mark: one for one in wanted}
    found = []
    for run in known["runs"]:
        values = {key: run["values"][key] for key in keys}
        texts = {key: run["texts"][key] for key in keys}
        one = Combination(values, texts, wanted[0].names)
        if one.mark in mine:
            found.append(mine.pop(one.mark))
        elif (folder / run["folder"] / SUMMARY).is_file():
            found.append(one)
    return [*found, *mine.values()]


def _folders(some: Sequence[Combination], known: Mapping[str, Any] | None) -> list[str]:
    """Return a name for the folder of each run; those of before keep theirs."""
    keys = list(some[0].values)
    before = {
        Combination({k: run["values"][k] for k in keys}, {}, {}).mark: Path(run["folder"]).name
        for run in (known or {}).get("runs", ())
    }
    taken, found = set(before.values()), []
    for one in some:
        name = before.get(one.mark)
        if name is None:
            name = one.folder if one.folder not in taken else f"{one.folder}-{one.mark[:8]}"
            taken.add(name)
        found.append(name)
    return found


def _begun(
    whole: Sequence[Prepared], folder: Path, students: Sequence[str], recipe: Recipe
) -> dict[str, Any]:
    """Return what ``sweep.json`` holds from the beginning."""
    first = whole[0].combination
    return {
        "schema": SCHEMA,
        "name": recipe.name,
        "about": recipe.about,
        "keys": list(first.values),
        "names": dict(first.names),
        "students": list(students),
        "seeds": list(recipe.seeds),
        "split": recipe.evaluation.split,
        "runs": [
            {
                "folder": str(one.folder.relative_to(folder)),
                "values": dict(one.combination.values),
                "texts": dict(one.combination.texts),
            }
            for one in whole
        ],
    }


def _halved(
    runs: Runs,
    rungs: Rungs,
    whole: list[Prepared],
    recipes: Mapping[str, Recipe],
    folder: Path,
    student: str,
) -> tuple[list[Prepared], list[dict[str, Any]]]:
    """Train all with a part of their steps; return those that go on, and the rows of all rungs."""
    alive, found = {one.combination.mark: one for one in whole}, list[dict[str, Any]]()
    for part in rungs.parts:
        place = folder / _RUNGS / f"{part:g}"
        some = runs.prepare(
            [
                (one.combination, shortened(recipes[mark], student, part), place / one.folder.name)
                for mark, one in alive.items()
            ]
        )
        runs.do(some)
        rows = {one.combination.mark: _row(runs, one, student, folder, part) for one in some}
        order = sorted(rows, key=lambda mark: _rank(rows[mark]))
        going = better_half(order, len(alive))
        found += [{**rows[mark], "stopped": mark not in going} for mark in order]
        alive = {mark: one for mark, one in alive.items() if mark in going}
        told = ", ".join(alive[mark].combination.label for mark in going)
        runs.watcher.tell(f"after {100 * part:g} % of the steps these go on: {told}")
    return list(alive.values()), found


def _results(
    runs: Runs,
    whole: Sequence[Prepared],
    rungs: list[dict[str, Any]],
    folder: Path,
    students: Sequence[str],
) -> dict[str, Any]:
    """Return measure, rows, those of the rungs, and what was done once."""
    rows = [_row(runs, one, name, folder) for one in whole for name in students]
    rows.sort(key=_rank)
    best = rows[0] if math.isfinite(_rank(rows[0])[0]) else None
    if best is not None:
        best["best"] = True
        [run] = [one for one in whole if str(one.folder.relative_to(folder)) == best["run"]]
        if run.recipe.evaluation.split == "test":
            best["test"] = runs.entry(run, best["student"])["metrics"]
    # The last to stop come first: they were judged by more steps.
    stopped = [row for row in rungs if row["stopped"]]
    late = sorted(stopped, key=lambda row: (-row["part"], *_rank(row)))
    return {
        "measure": rows[0]["measure"],
        "rows": [*rows, *late],
        "rungs": rungs,
        "shared": runs.shared(),
    }


def _row(
    runs: Runs, one: Prepared, student: str, folder: Path, part: float = 1.0
) -> dict[str, Any]:
    """Return the row of a student of a run that is done."""
    summary = runs.summary(one)
    entry, measure = summary["students"][student], measure_of(summary)
    figures = runs.figures(one, student)
    means = {name: figure["mean"] for name, figure in figures.items()}
    error = None if None in means.values() else error_of(means, measure)
    return {
        "values": dict(one.combination.values),
        "label": one.combination.label,
        "student": student,
        "run": str(one.folder.relative_to(folder)),
        "part": part,
        "best": False,
        "stopped": False,
        "measure": measure,
        "error": error,
        "figures": figures,
        **{k: entry[k] for k in ("steps", "seconds", "parameters", "multiply_adds")},
    }


def _rank(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return what rows are ordered by: the error, and of equal errors the NLL, on validation."""
    nll = (row["figures"].get("nll") or {}).get("mean")
    return tuple(math.inf if value is None else value for value in (row["error"], nll))  # type: ignore[return-value]
