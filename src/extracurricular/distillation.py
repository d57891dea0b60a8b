"""Distil a teacher into a student in one call.

``distill`` does what a recipe with one student does, with the same seeds, so that both give the
same weights to the last bit; it takes Python objects as well as names.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import nn

from extracurricular.data.base import Data
from extracurricular.errors import RecipeError, StorageError, shorten
from extracurricular.export.keeper import SETTINGS, Keeper
from extracurricular.files import Checkpoints, load_weights, read_json, write_json
from extracurricular.knowledge.fingerprint import data_fingerprint, describe
from extracurricular.matching import Matching
from extracurricular.matching import describe as loss_settings
from extracurricular.models import parameter_count
from extracurricular.models.families import read_family, with_family
from extracurricular.predictors.arguments import (
    as_they_were,
    check_kinds,
    read_network,
    read_training,
    read_whole,
)
from extracurricular.predictors.given import modules_of, read_data, read_teacher
from extracurricular.predictors.of_data import of_data, with_scales
from extracurricular.predictors.predictor import Predictor
from extracurricular.predictors.saved import FILE, foreign_files, recalibrate, saved_trees
from extracurricular.recipe.difference import first_difference
from extracurricular.recipe.single import (
    SAMPLER,
    default_matching,
    read_calibrate,
    read_trees,
    refuse_for_trees,
    trees_sampler,
)
from extracurricular.recipe.students import CalibrateSection
from extracurricular.registry import split_spec
from extracurricular.run.calibrated import check_methods, fitted_to
from extracurricular.run.contest import Candidate, Contest, Lessons, contest, read_loss
from extracurricular.run.executors import threads as cpu_threads
from extracurricular.run.families import check_needed, own_loss, told_apart
from extracurricular.run.lock import locked
from extracurricular.run.settings import training_settings
from extracurricular.run.teacher import identity
from extracurricular.run.tree_lesson import TreeLesson
from extracurricular.run.trial import (
    PROBE,
    Trial,
    lesson_of,
    probe_of,
    try_lesson,
    try_sampler,
)
from extracurricular.run.within_lessons import lessons_within
from extracurricular.samplers import Sampler
from extracurricular.teachers import NetworkTeacher, Teacher
from extracurricular.teachers.calibrated import calibrated
from extracurricular.training import Training
from extracurricular.training.arguments import check_arguments
from extracurricular.training.mastery import drawing

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SCHEMA = 1

Learned: TypeAlias = tuple[nn.Module, Sampler, dict[str, Any] | None]
"""A student, the source of its examples, and how it was chosen."""


def distill(
    teacher: Any,
    student: Any,
    data: Any,
    *,
    raw: bool | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    sampler: Any = None,
    choose: Any = None,
    matching: Matching | dict[str, Any] | None = None,
    distribution: Any = None,
    training: Training | dict[str, Any] | None = None,
    calibrate: Any = None,
    seed: int = 0,
    out: str | Path | None = None,
    fabric: Fabric | None = None,
    threads: int = 1,
    on_progress: Callable[[int, float], None] | None = None,
    tell: Callable[[str], None] = print,
) -> Predictor:
    """Train a student to match a teacher, on stored examples and beyond them.

    Args:
        teacher: A torch module; a list of teachers, which become an ensemble; a fitted
            scikit-learn estimator; the path of an ONNX file, of a finished run or of a saved
            student; a predictor, as this function and ``xcl.load`` return; a Python function on
            raw arrays; a spec as a recipe has it, such as ``{"random_forest": {"trees": 200}}``;
            or any object of this package that gives distributions. A module keeps its mode and
            its device.
        student: A network's name or spec, such as ``"resnet20"`` or ``{"mlp": {"hidden": [32]}}``;
            or a torch module, which is copied; or trees, which are no network, as a recipe has
            them: ``{"estimator": {"gradient_boosting": {"rounds": 300}}, "draws": 20000}``. These
            are fitted to the teacher's distributions on draws, so that ``steps``, ``minutes``,
            ``training``, ``choose``, ``matching`` and ``distribution`` are not for them.
        data: A :class:`~extracurricular.data.base.Data`; arrays ``(x, y)``; a torch ``Dataset``; a
            ``DataLoader``, whose data set and batch size are taken; or a spec as a recipe has it.
            Arrays and data sets of torch keep 10 % of the examples for validation, and 20 % to
            test.
        raw: Whether a module that is the teacher takes raw values: floats, and images of bytes as
            numbers from 0 to 255. It then gives logits for classes, and for real targets means
            [B, D], or means and log variances [B, 2 D], in the target's own units. Means alone get
            the deviation of their errors on the validation split (or the training split, as below).
            With False it takes standardised inputs and gives a student's outputs, as a recipe's
            ``teacher.model`` does. Where None, the module is asked both ways on up to 4,096
            labelled examples of the validation split (the training split if that has fewer than
            30), and the way with the higher accuracy or the lower RMSE is taken; a module that is
            no better than a constant either way is refused.
        steps: Optimiser steps; 2000 where None.
        minutes: Time in which to end. A few steps are timed, and then fewer steps are taken than
            ``steps`` says, and fewer candidates, if all would take longer; ``tell`` gets a sentence
            on it. With ``out``, a training that goes on keeps what was chosen. None for no limit.
        sampler: Source of the examples: a chain as a recipe writes it, or a sampler. Where None,
            stored examples, and a share of mixed ones that follows the student's mastery of the
            stored ones (``share: auto``, docs/method.md): none if extended draws would not pay. For
            trees, half stored examples, and half rows with swapped columns, or mixed examples where
            the data are no rows (our choice); no sampler that follows the student in training.
        choose: Candidates of which the best is returned: a list of ``kd`` (stored examples),
            ``half`` (half of the draws extended), ``auto`` (as many as mastery allows) and ``all``;
            or ``{NAME: {"sampler": […], "matching": {…}}}``; or ``{"among": either, "after": [0.25,
            0.5]}``. All are trained to half of ``steps``, or up to each part ``after``, and the
            worse half stops, by KL from the teacher on training examples that none of them drew.
            Two candidates cost 1.5 trainings; ``choice`` of the student has the steps in all.
        matching: The loss; KL where None, at temperature 4 for classes.
        distribution: The family of the student's distributions, as a recipe names it, such as
            ``"student_t"`` or ``{"mixture": {"components": 5}}``; the usual one where None. One
            that keeps an ensemble's disagreement (``"dirichlet"``) needs a teacher with members.
        training: Settings of the training; AdamW where None
            (:func:`~extracurricular.recipe.single.default_training`). A dict changes single
            settings of that.
        calibrate: Calibration of the trained student on the validation examples, as a recipe has
            it: ``"temperature"``, ``"variance"``, ``"conformal"``, a list of these, or
            ``{"conformal": {"coverage": 0.95}}`` (docs/calibrate.md); none where None. What is
            returned, saved and exported answers calibrated. With ``out``, another calibration of
            the same training trains nothing again.
        seed: Seed of everything random.
        out: A folder for checkpoints, the log and the trained student, so that an interrupted
            training goes on; nothing is kept where None.
        fabric: Device and precision; any available device, in full precision, where None.
        threads: Threads on the CPU, as a recipe's ``device.threads``: more pay for large networks
            alone, and change the numbers by rounding.
        on_progress: Called now and then with (steps done, loss); never for trees.
        tell: Called with a sentence for the person.

    Returns:
        The trained student: a :class:`~extracurricular.predictors.predictor.Predictor`, with
        ``predict``, ``score``, ``save`` and ``export``.

    Raises:
        XclError: Something cannot be used, or training failed; the message is one sentence.
    """
    began = time.perf_counter()
    if fabric is None:
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator="auto", devices=1)
    check_kinds(raw, out, fabric, on_progress)
    seed = read_whole("seed", seed, 0)
    steps = None if steps is None else read_whole("steps", steps, 1)
    if not isinstance(threads, int) or threads < 1:
        raise RecipeError("threads", f"is {threads!r}; it must be a whole number of at least 1")
    folder = None if out is None else Path(out)
    trees, methods = read_trees(student), read_calibrate(calibrate)
    if trees is not None:
        refuse_for_trees({
            "steps": steps, "minutes": minutes, "training": training, "choose": choose,
            "matching": matching, "distribution": distribution,
        })  # fmt: skip
    read, size = read_data(data)
    read = read.to(fabric.device)
    own = with_family(read, distribution)
    if methods is not None:
        check_methods(methods, own, "calibrate")
    made: _Made
    with as_they_were(modules_of(teacher)), cpu_threads(threads):
        asked = read_teacher(teacher, read, seed, raw)
        answered = getattr(asked, "answered", None)
        # Examples whose answer a file of answers lacks are never drawn.
        examples = own if answered is None else drawing(own, answered)
        if trees is not None:
            chain = trees_sampler(read) if sampler is None else sampler
            lesson = TreeLesson(trees, examples, asked, chain, seed, fabric)
            lesson.check()
            return _finished(_Trees(lesson), own, asked, folder, methods, seed)
        family = read_family(distribution)
        spec = None if isinstance(student, nn.Module) else student
        settings = read_training(training, steps, size)
        first = read_network(student, own, seed)
        first.to(fabric.device)
        chain = SAMPLER if sampler is None else sampler
        given = default_matching(own.task) if matching is None else matching
        if family is not None:
            given = own_loss(family, matching)
            asked = told_apart(family, asked)
        lessons = Lessons(examples, asked, first, settings, seed, fabric, on_progress)
        single = Candidate(chain, read_loss(given, own.task))
        choice = None if choose is None else contest(lessons, choose, chain, given)
        for candidate in [single] if choice is None else choice.among.values():
            if family is not None and family.members == "needed":
                check_needed(family, asked, candidate.loss, "")
            _try(lessons, candidate, fabric)
        cut: dict[str, Any] = {}
        if minutes is not None:
            known = _within(folder, minutes)
            lessons, choice, within, said = lessons_within(
                lessons, single, choice, minutes, known, began
            )
            cut = {"within": within}
            tell(said)
        made = _Network(lessons, single, choice, spec, student, cut)
        return _finished(made, own, asked, folder, methods, seed)


class _Made(Protocol):
    """A student that is made of a teacher and data."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def spec(self) -> Any:
        """Spec of its network; None where it has none."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """All of its own that its result depends on, as plain values."""
        ...

    @property
    def beside(self) -> dict[str, Any]:
        """What its folder keeps besides."""
        ...

    def learn(self, folder: Path | None, bound: str) -> Learned:
        """Make it; what is kept in a folder on the way belongs to ``bound``."""
        ...

    def load(self, folder: Path) -> Learned:
        """Return it as a folder holds it, finished."""
        ...


@dataclass(frozen=True)
class _Network:
    """A network to train, or candidates of which the best is one.

    Args:
        lessons: All that its trainings share.
        single: Its draws and its loss, where there is no choice.
        choice: The candidates; None without a choice.
        spec: Its spec; None for a module.
        given: The spec, or the module.
        beside: What was chosen to end within a time.
    """

    lessons: Lessons
    single: Candidate
    choice: Contest | None
    spec: Any
    given: Any
    beside: dict[str, Any]

    @property
    def name(self) -> str:
        """The network's name, or the module's class."""
        if self.spec is None:
            return type(self.given).__name__
        return str(self.spec if isinstance(self.spec, str) else next(iter(self.spec)))

    @property
    def settings(self) -> dict[str, Any]:
        """All of its own that its result depends on, as plain values."""
        task = self.lessons.data.task
        found = {
            "student": self.spec or describe(self.given),
            "sampler": _described(self.single.chain),
            "matching": loss_settings(self.single.loss, task),
            "training": training_settings(self.lessons.settings),
        }
        if task.family is not None:
            found["distribution"] = task.family.spec
        if self.choice is not None:
            found["choose"] = self.choice.section.model_dump(mode="json")
        return found

    def learn(self, folder: Path | None, bound: str) -> Learned:
        """Train it, or the candidates; an interrupted training goes on."""
        lessons = replace(self.lessons, bound=bound)
        if self.choice is None:
            return (*lessons.learn(self.single, folder), None)
        with TemporaryDirectory() as place:
            # The best goes on from the checkpoint at which it was judged, kept or not.
            where = Path(place) if folder is None else folder
            return (*self.choice.hold(lessons, where), self.choice.outcome(where)[1])

    def load(self, folder: Path) -> Learned:
        """Return the network with the weights in a folder, in which no checkpoints stay."""
        for place in (folder, *(self.choice.folders(folder) if self.choice else ())):
            Checkpoints(place).clear()
        best, told = (self.single, None) if self.choice is None else self.choice.outcome(folder)
        module, source = self.lessons.prepared(best)
        module.load_state_dict(load_weights(folder / "weights.safetensors"))
        return module, source, told


@dataclass(frozen=True)
class _Trees:
    """Trees to fit.

    Args:
        lesson: The fit.
    """

    lesson: TreeLesson
    spec = None

    @property
    def name(self) -> str:
        """The estimator's name."""
        return split_spec(self.lesson.spec.estimator, "estimator", "student.estimator")[0]

    @property
    def settings(self) -> dict[str, Any]:
        """All of its own that its result depends on, as plain values."""
        spec = self.lesson.spec
        return {
            "student": {"estimator": spec.estimator, "draws": spec.draws},
            "sampler": _described(self.lesson.chain),
        }

    @property
    def beside(self) -> dict[str, Any]:
        """Nothing: a fit is cut short by no time."""
        return {}

    def learn(self, folder: Path | None, bound: str) -> Learned:
        """Fit the trees; an interrupted fit begins anew."""
        return (*self.lesson.learn(), None)

    def load(self, folder: Path) -> Learned:
        """Return the trees in a folder."""
        data = self.lesson.data
        return saved_trees(folder, data).to(data.device), self.lesson.prepared(), None


def _finished(
    made: _Made,
    data: Data,
    teacher: Teacher,
    folder: Path | None,
    methods: CalibrateSection | None,
    seed: int,
) -> Predictor:
    """Make a student, or take the one that a folder holds, and calibrate it.

    Args:
        made: The student.
        data: The data set, whose task has the family of the student.
        teacher: Its teacher.
        folder: The folder; None to keep nothing.
        methods: The calibration; None for none.
        seed: Seed of everything random.
    """

    def keeper(learned: Learned) -> Keeper:
        module, source, _ = learned
        found = fitted_to(NetworkTeacher(module.eval(), data.task), methods, data)
        return Keeper(module, data, made.spec, made.name, source, found)

    if folder is None:
        learned = made.learn(None, "")
        kept = keeper(learned)
    else:
        wanted = {
            **made.settings,
            "seed": seed,
            "data": data_fingerprint(data),
            "teacher": identity(teacher),
        }
        _is_done(folder, wanted)  # refuse the folder before there is a lock in it
        with locked(folder):
            if not _is_done(folder, wanted):
                about = {"schema": SCHEMA, "settings": wanted, **made.beside}
                write_json(folder / SETTINGS, about)
                bound = json.dumps(wanted, sort_keys=True)
                keeper(made.learn(folder, bound)).write(folder)
            learned = made.load(folder)
            kept = keeper(learned)
            # Other methods than those of before train nothing again.
            recalibrate(folder, kept.calibration)
    module, _, told = learned
    network = calibrated(NetworkTeacher(module, data.task), kept.calibration)
    asked = with_scales(network, data)
    stated = None if kept.calibration is None else kept.calibration.conformal
    found = of_data(made.name, asked, data, parameter_count(module), conformal=stated)
    return replace(found, keeper=kept, choice=told)


def _is_done(folder: Path, wanted: dict[str, Any]) -> bool:
    """Return whether a folder holds this very student, finished.

    Raises:
        StorageError: It holds another student, a run, or files from elsewhere.
    """
    file = folder / SETTINGS
    if (folder / "recipe.yaml").exists():
        raise StorageError(f"{str(folder)!r} holds a run; choose another folder")
    if not file.exists():
        foreign = foreign_files(folder)
        if foreign:
            what = "a saved student" if FILE in foreign else f"other files ({foreign[0]!r})"
            raise StorageError(f"{str(folder)!r} holds {what}; choose another folder")
        return False
    known = read_json(file)
    found = known.get("settings") if isinstance(known, dict) else None
    if isinstance(found, dict) and isinstance(found.get("matching"), dict):
        # Before there was beta, students were trained without.
        found["matching"].setdefault("beta", 0.0)
    if isinstance(found, dict) and isinstance(found.get("training"), dict):
        # Settings that came later keep, by default, what was done before there was a choice.
        found["training"] = training_settings(Training()) | found["training"]
    if found != wanted:
        path, was, now = first_difference(found, wanted, "")
        raise StorageError(
            f"{str(folder)!r} holds a student made with {path} = {shorten(was)}, and now it is "
            f"{shorten(now)}; choose another folder, or delete this one"
        )
    return (folder / FILE).is_file()


def _within(folder: Path | None, minutes: float) -> dict[str, Any] | None:
    """Return what the same time chose for the student that was begun in a folder."""
    file = None if folder is None else folder / SETTINGS
    if file is None or not file.is_file():
        return None
    found = read_json(file).get("within")
    return found if isinstance(found, dict) and found.get("minutes") == minutes else None


def _described(sampler: Any) -> Any:
    """Return a sampler as plain values; a sampler class of the user's own counts by its name."""
    if isinstance(sampler, str | dict | list):
        return sampler
    try:
        return describe(sampler)
    except ValueError:
        return type(sampler).__name__


def _try(lessons: Lessons, candidate: Candidate, fabric: Fabric) -> None:
    """Call a student once, and compute its loss on two draws, and leave all as it was.

    Raises:
        RecipeError: It does not take the inputs, gives outputs of another form, or cannot learn.
    """
    data, (module, sampler) = lessons.data, lessons.prepared(candidate)
    check_arguments(module, sampler, lessons.teacher, data.task, candidate.loss, lessons.settings)
    ids = torch.arange(PROBE, device=data.device)
    trial = Trial(module, data.task, probe_of(data), "")
    lesson = lesson_of(lessons.teacher, sampler, data.task)
    with fabric.autocast():
        trial.answer()
        batch = try_sampler(sampler, ids, "sampler")
        size = lessons.settings.batch_size
        try_lesson(trial, batch, lesson, candidate.loss, size, {""})
