"""The runs of a sweep: prepared, done as one graph, and measured on validation examples.

What runs have in common is had once: data sets are read once, equal parts of recipes are checked
once, equal stages are trained once (:mod:`~extracurricular.run.equal_stages`), a teacher is loaded
and asked once. Each run is then what ``xcl run`` would have made of its recipe, to the last bit but
for seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extracurricular.data.base import Data
from extracurricular.distributions import Distribution
from extracurricular.errors import RecipeError
from extracurricular.evaluation import metrics
from extracurricular.evaluation.labels import over_seeds
from extracurricular.files import read_json, sha256
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.recipe.over import Combination, check_different, in_combination
from extracurricular.recipe.schema import Recipe
from extracurricular.run.calibrated import calibrated_by
from extracurricular.run.chance import tell_of_chance
from extracurricular.run.check import check, check_folder
from extracurricular.run.equal_cost import settled
from extracurricular.run.equal_stages import KEPT, MEASURED, EqualStages, Member, link_files, member
from extracurricular.run.evaluation import SUMMARY
from extracurricular.run.execute import begin
from extracurricular.run.executors import do_tasks, job_context, job_count, threads
from extracurricular.run.lock import locked
from extracurricular.run.plan import plan
from extracurricular.run.stages import Checks
from extracurricular.run.watcher import Silent, Watcher
from extracurricular.run.workspace import Workspace
from extracurricular.teachers import Teacher
from extracurricular.teachers.base import on_split


@dataclass(frozen=True)
class Prepared:
    """A run of a sweep whose recipe was checked.

    Args:
        combination: Its values.
        member: Its workspace, plan, and the keys of its stages.
        asks: How often its students ask the teacher, as its check found it.
        teacher: A mark that runs with equal teachers and generators share.
    """

    combination: Combination
    member: Member
    asks: Mapping[str, float]
    teacher: str

    @property
    def recipe(self) -> Recipe:
        """Its recipe, settled."""
        return self.member.plan.recipe

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.member.folder


class Titled:
    """A watcher of one run of several: its stages have the combination in their titles.

    Args:
        watcher: Follows all of the runs.
        label: The combination.
        common: Titles of stages that all runs have in common.
        told: The sentences that were told.
    """

    def __init__(self, watcher: Watcher, label: str, common: set[str], told: set[str]) -> None:
        self.watcher, self.label, self.common, self.told = watcher, label, common, told

    def _title(self, title: str) -> str:
        return title if title in self.common else f"{title}, {self.label}"

    def plan(self, steps: int, done: int) -> None:
        """Do nothing: the steps of all runs are told at once."""

    def begin(self, title: str, steps: int) -> None:
        """Pass it on."""
        self.watcher.begin(self._title(title), steps)

    def advance(self, title: str, step: int, loss: float | None) -> None:
        """Pass it on."""
        self.watcher.advance(self._title(title), step, loss)

    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None:
        """Pass it on."""
        self.watcher.end(self._title(title), steps, seconds, problem)

    def tell(self, text: str) -> None:
        """Pass it on, unless another run has said it."""
        if text not in self.told:
            self.told.add(text)
            self.watcher.tell(text)


@dataclass
class Runs:
    """Runs of one sweep, and what they have in common.

    Args:
        watcher: Follows all of them.
        jobs: Stages at once; None for as many as the cores allow.
        on: The Ray cluster that does the stages; None for this machine.
        equal: Where equal stages are done.
    """

    watcher: Watcher = field(default_factory=Silent)
    jobs: int | None = 1
    on: str | None = None
    equal: EqualStages = field(default_factory=EqualStages)
    _told: set[str] = field(default_factory=set)
    _all: list[Prepared] = field(default_factory=list)
    _first: Workspace | None = None
    # The parts that were built and made, by teacher and generators.
    _built: dict[str, tuple[Checks, Workspace]] = field(default_factory=dict)
    _answers: dict[str, Distribution] = field(default_factory=dict)
    _figured: dict[str, dict[str, Any]] = field(default_factory=dict)
    # The run in which answers were measured first, by their mark.
    _measured: dict[str, Path] = field(default_factory=dict)
    _figures: dict[str, dict[str, float]] = field(default_factory=dict)

    def prepare(self, some: Iterable[tuple[Combination, Recipe, Path]]) -> list[Prepared]:
        """Check all recipes, and compare them with what lies in their folders.

        Args:
            some: The combination, recipe and folder of each run.

        Raises:
            XclError: A recipe cannot be run, which its combination tells; or two of them differ in
                nothing that is trained, or the data have no validation examples.
        """
        found = []
        for combination, recipe, folder in some:
            try:
                found.append(self._prepared(combination, recipe, folder))
            except RecipeError as error:
                raise in_combination(error, combination) from error
            for seed in recipe.seeds:
                _check_validation(found[-1].member.workspace.data_of(seed))
        check_different(
            ((one.combination, sorted(one.member.keys.items())) for one in found),
            "differ in nothing that is trained, fitted or calibrated",
        )
        counts = Counter(
            (stage.title, one.member.keys[stage.path])
            for one in found
            for stage in one.member.plan.trained
        )
        common = {title for (title, _), count in counts.items() if count == len(found)}
        for one in found:
            watcher = one.member.workspace.watcher
            assert isinstance(watcher, Titled)
            watcher.common |= common
        return found

    def _prepared(self, combination: Combination, recipe: Recipe, folder: Path) -> Prepared:
        titled = Titled(self.watcher, combination.label, set(), self._told)
        workspace = Workspace(recipe, folder, titled)
        if self._first is None:
            self._first = workspace
        workspace.share_data(self._first)
        recipe = workspace.recipe = settled(recipe, workspace)
        whole = plan(recipe)
        first = workspace is self._first and self.on is None
        if first and job_count(self.jobs, recipe, whole.trained) > 1:
            job_context(workspace)  # it imports while recipes are checked
        mark = _mark_of_teacher(recipe)
        checks, like = self._built.setdefault(mark, (Checks(), workspace))
        workspace.loaded, workspace.answering = like.loaded, like.answering
        checks.asks = {}
        check(whole, workspace, checks)
        return Prepared(combination, member(whole, workspace), checks.asks, mark)

    def do(self, some: Sequence[Prepared]) -> None:
        """Do all stages of some runs, each of several equal ones once; and measure each run.

        Raises:
            XclError: A stage failed, or another run is at work in a folder. What is done is kept.
        """
        members = [one.member for one in some]
        recipe = some[0].recipe
        self._all += some
        with ExitStack() as locks:
            for one in members:
                locks.enter_context(locked(one.folder))
            locks.enter_context(threads(recipe.device.threads))
            for run in some:
                check_folder(run.member.plan, run.member.workspace)
                link_files(some[0].folder, run.folder, KEPT)
                begin(
                    run.member.plan,
                    run.member.workspace,
                    run.member.plan.trained,
                    Checks(asks=dict(run.asks)),
                )
            for run in {run.teacher: run for run in reversed(some)}.values():
                tell_of_chance(run.member.plan, run.member.workspace)
            tasks = self.equal.tasks(members)
            self.watcher.plan(sum(task.stage.steps for task in tasks), 0)
            jobs = self.jobs
            if self.on is None:
                jobs = job_count(jobs, recipe, [task.stage for task in tasks])
            do_tasks(
                tasks,
                {one.folder: one.workspace for one in members},
                jobs=jobs,
                on=self.on,
                finished=self.equal.finished,
            )
            for run in some:
                self._measure(run)

    def _measure(self, run: Prepared) -> None:
        """Do what a run does last: calibrations and evaluation."""
        one = run.member
        workspace, whole = one.workspace, one.plan
        for stages in whole.generators.values():
            for generator in stages.values():
                generator.do(workspace)  # what is fitted may still have something to look at
        for stage in whole.calibrations.values():
            self.equal.put_calibration(one, stage)
            stage.do(workspace)
            self.equal.put_calibration(one, stage)
        # The run before has mostly the same teacher, and some of the same students.
        answers, marks = workspace.answered, _marks_of_answers(run)
        answers |= {path: self._answers[m] for path, m in marks.items() if m in self._answers}
        figured = workspace.figured
        figured |= {path: self._figured[m] for path, m in marks.items() if m in self._figured}
        for path, mark in marks.items():
            if mark in self._measured:
                link_files(self._measured[mark] / path, one.folder / path, MEASURED)
        whole.evaluation.do(workspace)
        self._measured |= {m: one.folder for m in marks.values() if m not in self._measured}
        self._answers = {m: answers[path] for path, m in marks.items() if path in answers}
        self._figured = {m: figured[path] for path, m in marks.items() if path in figured}
        answers.clear()

    def figures(self, one: Prepared, name: str) -> dict[str, Any]:
        """Return the figures of a student on the validation examples, over seeds.

        Returns:
            Each with ``mean``, ``std`` and ``per_seed``, as in ``summary.json``.
        """
        workspace, whole, keys = one.member.workspace, one.member.plan, one.member.keys
        rows = []
        for seed in one.recipe.seeds:
            stage, fitted = whole.students[name, seed], whole.calibrations.get((name, seed))
            mark = keys[stage.path] + ("" if fitted is None else keys[fitted.path])
            if mark not in self._figures:

                def ask(stage: Any = stage, fitted: Any = fitted) -> Teacher:
                    return calibrated_by(stage.as_teacher(workspace), fitted, workspace)[0]

                self._figures[mark] = _validated(workspace, workspace.data_of(seed), ask())
            rows.append({"": self._figures[mark]})
        return dict(over_seeds(rows)[""])

    def shared(self) -> list[dict[str, Any]]:
        """Return for each part of the runs its stages in all of them, and how many were done.

        Returns:
            ``part``, ``stages``, ``done``, and the seconds of both: ``seconds`` and ``took``.
        """
        every: dict[str, list[tuple[str, float]]] = {}
        for one in self._all:
            for stage in one.member.plan.trained:
                seconds = float(one.member.workspace.record(stage.path).get("seconds") or 0.0)
                part = _part_of(stage.path)
                every.setdefault(part, []).append((one.member.keys[stage.path], seconds))
        return [
            {
                "part": part,
                "stages": len(known),
                "done": len(dict(known)),
                "seconds": round(sum(seconds for _, seconds in known), 3),
                "took": round(sum(dict(known).values()), 3),
            }
            for part, known in every.items()
        ]

    def entry(self, one: Prepared, name: str) -> dict[str, Any]:
        """Return what the summary of a run says of a student."""
        found: dict[str, Any] = self.summary(one)["students"][name]
        return found

    def summary(self, one: Prepared) -> dict[str, Any]:
        """Return the summary of a run that is done."""
        found: dict[str, Any] = read_json(one.folder / SUMMARY)
        return found


def _part_of(path: str) -> str:
    """Return the part of a run that a stage belongs to, in words."""
    kind, name, *_ = path.split("/")
    if kind == "students":
        return name
    if kind == "generators":
        return f"generator {name}"
    return "records" if kind == "knowledge" else "teacher"


def _mark_of_teacher(recipe: Recipe) -> str:
    """Return a mark of teacher and generators, and of all that asking them depends on."""
    whole = recipe.dump()
    parts = [whole[part] for part in ("data", "seeds", "teacher", "generators", "device")]
    return sha256(canonical(parts))


def _marks_of_answers(run: Prepared) -> dict[str, str]:
    """Return a mark of the answers of each teacher and student, by its path.

    They are answers on the split that the run is measured on. The figures of a student depend on
    its teacher's answers too.
    """
    whole, keys, split = run.member.plan, run.member.keys, run.recipe.evaluation.split
    teachers = {
        seed: sha256(canonical([split, run.teacher, [keys[stage.path] for stage in one.stages]]))
        for seed, one in whole.teachers.items()
    }
    found = {whole.teachers[seed].path: mark for seed, mark in teachers.items()}
    for (name, seed), stage in whole.students.items():
        fitted = whole.calibrations.get((name, seed))
        own = [keys[stage.path], fitted and keys[fitted.path], teachers[seed]]
        found[stage.path] = sha256(canonical(own))
    return found


def _check_validation(data: Data) -> None:
    """Refuse data without labelled examples to choose by.

    Raises:
        RecipeError: There are none.
    """
    if len(data.validation) == 0 or data.validation.y is None:
        raise RecipeError(
            "data", f"are {data.name!r}, which have no labelled validation examples, and a sweep "
            "compares its combinations on these; set some aside, as data.validation=0.1"
        )  # fmt: skip


def _validated(workspace: Workspace, data: Data, student: Teacher) -> dict[str, float]:
    """Return the figures of a student on the validation examples of one seed."""
    split = data.validation
    assert split.y is not None
    said = workspace.predict(on_split(student, "validation"), data, split)
    return metrics.figures(said, split.y.cpu(), angular=data.angular)
