"""Distil a teacher into a student in one call.

``distill`` does what a recipe with one student does, with the same seeds, so that both give the
same weights to the last bit; it takes Python objects as well as names.
"""

from __future__ import annotations

import copy
import json
import operator
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import nn

from extracurricular.data.base import Data
from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, StorageError, shorten
from extracurricular.export import Shipped, export_module
from extracurricular.files import Checkpoints, load_weights, read_json, write_json
from extracurricular.knowledge.fingerprint import data_fingerprint, describe
from extracurricular.matching import Matching
from extracurricular.matching import describe as loss_settings
from extracurricular.models import parameter_count
from extracurricular.models.families import read_family, with_family
from extracurricular.predictors.given import modules_of, read_data, read_teacher
from extracurricular.predictors.of_data import of_data, with_scales
from extracurricular.predictors.predictor import Predictor
from extracurricular.predictors.saved import FILE, check_place, foreign_files, save_network
from extracurricular.recipe.candidates import PLAIN
from extracurricular.recipe.difference import first_difference
from extracurricular.recipe.schema import REFERENCE
from extracurricular.recipe.students import ChooseSection
from extracurricular.registry import explain_validation
from extracurricular.run.contest import Candidate, Contest, Lessons, contest, read_loss
from extracurricular.run.executors import threads as cpu_threads
from extracurricular.run.families import check_needed, own_loss, told_apart
from extracurricular.run.lock import locked
from extracurricular.run.settings import training_settings
from extracurricular.run.teacher import identity
from extracurricular.run.trial import (
    PROBE,
    Trial,
    lesson_of,
    probe_of,
    try_lesson,
    try_sampler,
)
from extracurricular.run.within_lessons import lessons_within
from extracurricular.run.workspace import first_network
from extracurricular.samplers import Sampler
from extracurricular.teachers import NetworkTeacher
from extracurricular.training import Training
from extracurricular.training.arguments import check_arguments

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SCHEMA = 1
STEPS = 2000
_SETTINGS = "distill.json"

SAMPLER: list[Any] = [
    {"share": {"of": "auto", "extended": ["empirical", "mixup"], "plain": ["empirical"]}}
]
"""The default source of examples: stored ones, and as many mixed ones as mastery allows."""


def default_training(steps: int = STEPS, size: int = 64) -> Training:
    """Return the default settings of a student's training (our choice).

    Args:
        steps: Optimiser steps.
        size: Examples a step.
    """
    warmup = min(100, steps // 20)
    rate, decay = 3e-3, 1e-2
    return Training(
        steps=steps, batch_size=size, optimizer="adamw", lr=rate, weight_decay=decay, warmup=warmup
    )


def default_matching(task: Task) -> dict[str, Any]:
    """Return the default loss (our choice): KL, at T = 4 for classes."""
    return {"temperature": 4.0} if task.kind == "classification" else {}


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
            or a torch module, which is copied.
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
            stored ones (``share: auto``, docs/method.md): none if extended draws would not pay.
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
        training: Settings of the training; AdamW where None (:func:`default_training`). A dict
            changes single settings of that.
        seed: Seed of everything random.
        out: A folder for checkpoints, the log and the trained student, so that an interrupted
            training goes on; nothing is kept where None.
        fabric: Device and precision; any available device, in full precision, where None.
        threads: Threads on the CPU, as a recipe's ``device.threads``: more pay for large networks
            alone, and change the numbers by rounding.
        on_progress: Called now and then with (steps done, loss).
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
    _check_kinds(raw, out, fabric, on_progress)
    seed = _whole("seed", seed, 0)
    steps = None if steps is None else _whole("steps", steps, 1)
    folder = None if out is None else Path(out)
    read, size = read_data(data)
    read = read.to(fabric.device)
    if not isinstance(threads, int) or threads < 1:
        raise RecipeError("threads", f"is {threads!r}; it must be a whole number of at least 1")
    settings = _training(training, steps, size)
    with _as_they_were(modules_of(teacher)), cpu_threads(threads):
        asked = read_teacher(teacher, read, seed, raw)
        read, family = with_family(read, distribution), read_family(distribution)
        spec = None if isinstance(student, nn.Module) else student
        first = _network(student, read, seed)
        first.to(fabric.device)
        chain = SAMPLER if sampler is None else sampler
        given = default_matching(read.task) if matching is None else matching
        if family is not None:
            given = own_loss(family, matching)
            asked = told_apart(family, asked)
        lessons = Lessons(read, asked, first, settings, seed, fabric, on_progress)
        single = Candidate(chain, read_loss(given, read.task))
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
            cut, settings = {"within": within}, lessons.settings
            tell(said)
        name = spec if isinstance(spec, str) else next(iter(spec)) if spec else type(first).__name__
        keep = partial(_Keeper, data=read, spec=spec, name=str(name))
        if folder is None:
            module, source, told = _learned(lessons, single, choice)
        else:
            wanted = {
                "student": spec or describe(student),
                "sampler": _described(chain),
                "matching": loss_settings(single.loss, read.task),
                "training": training_settings(settings),
                "seed": seed,
                "data": data_fingerprint(read),
                "teacher": identity(asked),
            }
            if family is not None:
                wanted["distribution"] = family.spec
            if choice is not None:
                wanted["choose"] = choice.section.model_dump(mode="json")
            _is_done(folder, wanted)  # refuse the folder before there is a lock in it
            with locked(folder):
                if not _is_done(folder, wanted):
                    write_json(folder / _SETTINGS, {"schema": SCHEMA, "settings": wanted, **cut})
                    lessons = replace(lessons, bound=json.dumps(wanted, sort_keys=True))
                    module, source, _ = _learned(lessons, single, choice, folder)
                    keep(module, sampler=source).write(folder)
                    for place in (folder, *(choice.folders(folder) if choice else ())):
                        Checkpoints(place).clear()
                best, told = (single, None) if choice is None else choice.outcome(folder)
                module, source = lessons.prepared(best)
                module.load_state_dict(load_weights(folder / "weights.safetensors"))
        module.eval()
        network = NetworkTeacher(module, read.task)
        found = of_data(str(name), with_scales(network, read), read, parameter_count(module))
        return replace(found, keeper=keep(module, sampler=source), choice=told)


def _learned(
    lessons: Lessons, single: Candidate, choice: Contest | None, folder: Path | None = None
) -> tuple[nn.Module, Sampler, dict[str, Any] | None]:
    """Train the student, or the candidates; return it, its sampler, and how it was chosen."""
    if choice is None:
        return (*lessons.learn(single, folder), None)
    with TemporaryDirectory() as place:
        # The best goes on from the checkpoint at which it was judged, kept or not.
        where = Path(place) if folder is None else folder
        return (*choice.hold(lessons, where), choice.outcome(where)[1])


@dataclass(frozen=True)
class _Keeper:
    """A student that was trained here, for writing it to files."""

    module: nn.Module
    data: Data
    spec: Any
    name: str
    sampler: Sampler

    def save(self, folder: str | Path, *, replace: bool = False) -> list[Path]:
        """Write weights and scales to a folder for nothing else."""
        folder = Path(folder)
        check_place(folder)
        if replace:
            # These settings may be those of another student, which this one must not pass for.
            (folder / _SETTINGS).unlink(missing_ok=True)
        return self.write(folder, replace=replace)

    def write(self, folder: Path, *, replace: bool = False) -> list[Path]:
        """Write weights and scales; see :func:`~extracurricular.predictors.saved.save_network`."""
        return save_network(
            folder, self.module, self.data, model=self.spec, name=self.name, replace=replace
        )

    def export(self, out: str | Path, **options: Any) -> Shipped:
        """Write a verified file; see :func:`extracurricular.export_module`."""
        return export_module(self.module, self.data, out, sampler=self.sampler, **options)


def _is_done(folder: Path, wanted: dict[str, Any]) -> bool:
    """Return whether a folder holds this very student, finished.

    Raises:
        StorageError: It holds another student, a run, or files from elsewhere.
    """
    file = folder / _SETTINGS
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
    file = None if folder is None else folder / _SETTINGS
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


def recipe_for(
    teacher: dict[str, Any],
    student: Any,
    data: Any,
    task: Task,
    *,
    name: str,
    steps: int | None = None,
    seed: int = 0,
    choose: ChooseSection | None = None,
    beside: bool = True,
) -> dict[str, Any]:
    """Return the recipe of the training that :func:`distill` does, as plain values.

    Args:
        teacher: The section ``teacher``.
        student: Spec of the network.
        data: Spec of the data set.
        task: Kind and size of the prediction.
        name: Name of the recipe.
        steps, seed: As for :func:`distill`.
        choose: The candidates, if there is a choice.
        beside: Whether a student on stored examples alone is trained beside a choice, with as many
            steps as all candidates together.
    """
    own = {
        "model": student,
        "sampler": SAMPLER,
        "matching": default_matching(task),
        "training": default_training(STEPS if steps is None else steps).model_dump(mode="json"),
    }
    students: dict[str, Any] = {"student": own}
    if choose is not None:
        students["student"] = {**own, "choose": choose.model_dump(mode="json")}
        if beside:
            cost = {"of": "student", "unit": "steps"}
            students[REFERENCE] = {**own, "sampler": PLAIN, "cost": cost}
    return {
        "schema": 1,
        "name": name,
        "data": data,
        "seeds": [seed],
        "teacher": teacher,
        "students": students,
    }


# Reading of arguments


def _whole(name: str, given: Any, least: int) -> int:
    """Return a whole number of at least ``least``; NumPy's integers are such numbers too.

    Raises:
        RecipeError: It is something else.
    """
    try:
        found = operator.index(given)
    except TypeError:
        found = None
    if found is None or isinstance(given, bool) or found < least:
        raise RecipeError(
            name, f"is {shorten(given)}; it must be a whole number of at least {least}"
        )
    return found


def _check_kinds(raw: Any, out: Any, fabric: Any, on_progress: Any) -> None:
    """Refuse arguments of other kinds than :func:`distill` takes.

    Raises:
        RecipeError: One is of another kind.
    """
    wrong = (
        ("raw", raw, raw in (None, True, False), "True, False or None"),
        ("out", out, out is None or isinstance(out, str | Path), "the path of a folder"),
        ("fabric", fabric, hasattr(fabric, "device"), "a Fabric of lightning_fabric"),
        ("on_progress", on_progress, on_progress is None or callable(on_progress), "a function"),
    )
    for name, given, fits, kind in wrong:
        if not fits:
            raise RecipeError(name, f"is {shorten(given)}; it must be {kind}")


@contextmanager
def _as_they_were(modules: list[nn.Module]) -> Iterator[None]:
    """Put modules back into their modes and onto their devices once a block ends."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    tensors = [next(chain(module.parameters(), module.buffers()), None) for module in modules]
    places = [
        (module, tensor.device)
        for module, tensor in zip(modules, tensors, strict=True)
        if tensor is not None
    ]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for module, device in places:
            module.to(device)


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


def _network(given: Any, data: Data, seed: int) -> nn.Module:
    if isinstance(given, nn.Module):
        return copy.deepcopy(given)
    if not isinstance(given, str | dict):
        made = f", so give {given.__name__}(…)" if isinstance(given, type) else ""
        raise RecipeError(
            "student", f"is {shorten(given)}; it must be a torch module, the name of a network or "
            f"{{NAME: {{setting: value}}}}{made}"
        )  # fmt: skip
    return first_network(given, data, seed, "student")


def _training(
    given: Training | dict[str, Any] | None, steps: int | None, size: int | None
) -> Training:
    if isinstance(given, Training):
        return given if steps is None else given.model_copy(update={"steps": steps})
    usual = default_training(STEPS if steps is None else steps, size or 64)
    if given is None:
        return usual
    if not isinstance(given, dict):
        raise RecipeError(
            "training", f"is {shorten(given)}; it must be xcl.Training(…), or a dict of settings"
        )
    try:
        return Training.model_validate(usual.model_dump() | given)
    except ValidationError as error:
        known = dict.fromkeys(Training.model_fields)
        raise explain_validation(error, "training", known) from None
