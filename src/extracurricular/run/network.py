"""A network to train: a student, or a member of the teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from extracurricular.data.base import Data
from extracurricular.data.images.stream import left_out_of_draws
from extracurricular.errors import RecipeError, TrainingError, XclError
from extracurricular.files import save_weights
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.matching import build_matching
from extracurricular.models import parameter_count
from extracurricular.models.weights import checksum, files_of
from extracurricular.run.answering import check_draws
from extracurricular.run.expense import questions, spent
from extracurricular.run.extras import Extras
from extracurricular.run.families import as_taught, asks_members, check_members, shaped
from extracurricular.run.judged import blaming, judged, tell_of_teachers, validation
from extracurricular.run.loggers import Curves
from extracurricular.run.loss import loss_for
from extracurricular.run.mastery import check_mastery
from extracurricular.run.precision import autocast
from extracurricular.run.ranks import by_all, follows
from extracurricular.run.settings import checked_as, data_settings, training_settings
from extracurricular.run.sources import GeneratorSource, RecordSource, TeacherSource
from extracurricular.run.stages import LOG, Checks, Price, Stage, begun
from extracurricular.run.trial import (
    PROBE,
    Trial,
    check_loss,
    lesson_of,
    probe_of,
    try_lesson,
    try_sampler,
)
from extracurricular.run.workspace import Workspace, sampler_seed
from extracurricular.samplers import Context, Sampler, is_pure
from extracurricular.samplers.build import moves, requirements, share_is_auto
from extracurricular.teachers import LabelTeacher, NetworkTeacher, Teacher
from extracurricular.training import Mastery, Training, TrainingResult, mastery_of, train
from extracurricular.training.mastery import drawing
from extracurricular.training.optimizers import check_optimizer
from extracurricular.training.remembered import pays


@dataclass(frozen=True)
class NetworkStage(Stage):
    """One network to train.

    Args:
        model: Spec of the network.
        sampler: Chain of the sampler.
        training: Settings of its training.
        seed: Seed of everything in it.
        precision: Precision of the arithmetic; the workspace knows what ``auto`` becomes.
        matching: Settings of the loss.
        learns_from: ``labels`` or ``teacher``.
        teacher: The teacher of a student; None for a member of the teacher itself.
        generators: The generators that its sampler draws from.
        record: The record that it learns from instead of the teacher; None where there is none.
        parts: The stages that teacher, generators and record are made of.
        given: Checksums of the files of weights that replace its training.
        held_out: Part of the training examples to measure mastery on; None where none is.
        extras: First weights, features to match, simulated 8 bits.
        distribution: The family of its distributions; None for the usual one.

    The files of weights that the model's spec names are among the settings by their content.
    """

    model: Any
    sampler: Any
    training: Training
    seed: int
    precision: str = "32-true"
    matching: dict[str, Any] = field(default_factory=dict)
    learns_from: str = "labels"
    teacher: TeacherSource | None = None
    generators: tuple[GeneratorSource, ...] = ()
    record: RecordSource | None = None
    parts: tuple[Stage, ...] = ()
    given: tuple[dict[str, Any], ...] = ()
    held_out: float | None = None
    extras: Extras = field(default_factory=Extras)
    distribution: Any = None

    @property
    def steps(self) -> int:
        """Steps of the training."""
        return self.training.steps

    @property
    def needs(self) -> tuple[Stage, ...]:
        """The stages that its teacher, generators and record are made of."""
        return self.parts

    @property
    def networks(self) -> list[str]:
        """Folders of the networks that its teacher is made of."""
        return [part.path for part in self.parts if isinstance(part, NetworkStage)]

    @property
    def length(self) -> int:
        """Draws of the training."""
        return self.training.steps * self.training.batch_size

    @property
    def last_temperature(self) -> float:
        """The temperature of the loss at the end of the training."""
        return build_matching(self.matching, f"{self.key}.matching").last_temperature

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher is needed at all: for its answers, or to choose draws."""
        return self.learns_from == "teacher" or requirements(self.sampler).teacher

    @property
    def upstream(self) -> list[dict[str, Any]]:
        """Settings of all that it learns from."""
        found: list[dict[str, Any]] = list(self.given)
        if self.teacher is not None and self.asks_teacher:
            found += self.teacher.settings
        found += [generator.settings for generator in self.generators]
        if self.record is not None:
            found.append({"record": {"draws": self.record.draws, "codec": self.record.codec}})
        return found

    @property
    def leaves(self) -> tuple[str, ...]:
        """The log of the training."""
        return (LOG,)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on but the content of the data, as plain values."""
        files = [checksum(file) for file in files_of(self.model)]
        return {
            "data": data_settings(self.data),
            "model": self.model,
            **_set(files=files or None),
            **_set(held_out=self.held_out, distribution=self.distribution),
            "sampler": self.sampler,
            "training": training_settings(self.training),
            "matching": self.matching,
            "learns_from": self.learns_from,
            "seed": self.seed,
            "precision": self.precision,
            "upstream": self.upstream,
            **self.extras.settings,
        }

    def blame(self, error: ValueError) -> XclError:
        """Return the error to raise for a draw that the check before did not meet."""
        return TrainingError(f"{self.title}: {error}")

    # -- building and loading ---------------------------------------------------------------------

    def untrained(self, workspace: Workspace) -> nn.Module:
        """Return the network with its first weights, on the CPU."""
        data = shaped(self, workspace.described(self.data))
        return workspace.network(self.model, data, self.seed, f"{self.key}.model")

    def trained(self, workspace: Workspace, device: torch.device | None = None) -> nn.Module:
        """Return the trained network, on the device of the run or on another.

        Raises:
            StorageError: Its weights are missing or damaged.
        """
        state = workspace.weights(self.path)
        module = self.untrained(workspace)
        module.load_state_dict(state)
        return module.to(device or workspace.device).eval()

    def as_teacher(self, workspace: Workspace) -> NetworkTeacher:
        """Return the trained network as something that gives distributions."""
        data = shaped(self, workspace.described(self.data))
        return NetworkTeacher(self.trained(workspace), data.task)

    def draws(
        self, workspace: Workspace, student: nn.Module | None = None, seed: int | None = None
    ) -> Sampler:
        """Return its sampler, with the trained teacher and the fitted generators that it needs.

        Args:
            workspace: The workspace of the run.
            student: The student, for a sampler whose choices depend on it.
            seed: Seed of the sampler; that of the training where None.
        """
        return self.build_sampler(workspace, context_of(self, workspace, student), seed)

    def examples(self, workspace: Workspace) -> Data:
        """Return its data set, which draws no example whose answer a stored teacher lacks."""
        return answered_examples(self, workspace)

    def build_sampler(
        self, workspace: Workspace, context: Context, seed: int | None = None
    ) -> Sampler:
        """Return its sampler in a given context."""
        own = sampler_seed(self.seed) if seed is None else seed
        data = self.examples(workspace)
        context = replace(context, draws=context.draws or self.length)
        return workspace.sampler(self.sampler, data, own, f"{self.key}.sampler", context)

    def lesson(self, workspace: Workspace, student: nn.Module) -> tuple[Sampler, Teacher]:
        """Return the source of the student's examples, and the teacher or labels it learns from."""
        return _lesson(self, workspace, student)

    # -- doing ------------------------------------------------------------------------------------

    def do(self, workspace: Workspace) -> None:
        """Train the network; an interrupted training goes on where it stopped."""
        if self.is_done(workspace):
            return
        tell_of_teachers(workspace, self.networks)
        with begun(workspace, self) as outcome:
            student, result = train_network(self, workspace)
            outcome |= keep_network(self, workspace, student, result)
        for sentence in left_out_of_draws(workspace.data(self.data)):
            workspace.watcher.tell(sentence)

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Build network and sampler, draw twice, and try network and loss on these draws."""
        name = checked_as(self.key, self.settings, self.record is not None)
        waits = not self.is_done(workspace)
        # What is finished needs no trial, but another seed of it may not be.
        if name not in checks.seen or (waits and f"{name} tried" not in checks.seen):
            checks.seen |= {name, f"{name} tried"} if waits else {name}
            _check(self, workspace, checks, tried=waits)

    @property
    def _spec(self) -> str:
        """What its network is built from."""
        return canonical([self.model, data_settings(self.data)]).decode()

    def asks_once(self, teacher: Teacher, sampler: Sampler) -> bool:
        """Whether the loop asks the teacher once about each stored example."""
        return self.learns_from == "teacher" and pays(teacher, sampler, self.training)

    def price(self, workspace: Workspace, checks: Checks) -> Price:
        """Return the cost of the training."""
        size = parameter_count(self.untrained(workspace))
        asked = round(self.length * checks.asks.get(self.key, 0.0)) if self.teacher else 0
        return Price(self.steps, self.length, asked, bytes=4 * size, parameters=size)


@by_all
def train_network(
    stage: NetworkStage,
    workspace: Workspace,
    advance: Callable[[int, float], None] | None = None,
    until: int | None = None,
    stop: int | None = None,
) -> tuple[nn.Module, TrainingResult]:
    """Train a stage's network in its folder, and return it; an interrupted training goes on.

    Args:
        stage: The stage.
        workspace: The workspace of the run.
        advance: Called with (steps done, loss); the watcher's where None.
        until: The step up to which held-out examples are kept out; see
            :class:`~extracurricular.training.mastery.Mastery`.
        stop: The step to stop at; None for the end.
    """
    data = shaped(stage, workspace.data(stage.data))
    student = stage.untrained(workspace).to(workspace.device)
    for sentence in stage.extras.begin(student, stage.key):
        _tell(stage.title, workspace, sentence)
    sampler, teacher = stage.lesson(workspace, student)
    blamed = None if stage.learns_from == "labels" else teacher
    with _curves(stage, workspace) as curves, blaming(workspace, data, blamed):
        result = train(
            student,
            sampler,
            teacher,
            data.task,
            matching=loss_for(stage.matching, f"{stage.key}.matching", data, stage.learns_from),
            settings=stage.training,
            seed=stage.seed,
            fabric=workspace.fabric,
            folder=workspace.folder / stage.path,
            bound=stage.bound(workspace),
            evaluate=None if follows(workspace.ranks) else partial(validation, workspace, data),
            on_progress=advance or partial(workspace.watcher.advance, stage.title),
            on_log=curves,
            execution=workspace.execution,
            tell=partial(_tell, stage.title, workspace),
            shared=workspace.shared.get(drawn_with(stage) or ""),
            mastery=mastery_in(stage, workspace, student, until),
            stop=stop,
            additions=stage.extras.additions,
        )
    return student, result


def keep_network(
    stage: NetworkStage, workspace: Workspace, student: nn.Module, result: TrainingResult
) -> dict[str, Any]:
    """Write a trained network to its stage's folder; return what ``stage.json`` holds of it."""
    file = workspace.folder / stage.path / "weights.safetensors"
    data = shaped(stage, workspace.data(stage.data))
    return {
        "sha256": save_weights(file, student.state_dict()),
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "parameters": parameter_count(student),
        "multiply_adds": spent(stage, workspace, student),
        **_answering(stage, workspace),
        **({"mastery": result.mastery} if result.mastery else {}),
        **({"ranges": result.ranges} if result.ranges else {}),
        **judged(
            workspace,
            NetworkTeacher(student, data.task),
            data,
            stage.path,
            stage.training,
            stage.networks,
        ),
    }


def answered_examples(stage: NetworkStage, workspace: Workspace) -> Data:
    """Return a stage's data set, without examples whose answer a stored teacher lacks."""
    data = shaped(stage, workspace.data(stage.data))
    if stage.learns_from == "labels" or stage.teacher is None or not stage.teacher.is_stored:
        return data
    answered = getattr(workspace.made(stage.teacher.uncalibrated), "answered", None)
    return data if answered is None else drawing(data, answered)


def _lesson(
    stage: NetworkStage, workspace: Workspace, student: nn.Module
) -> tuple[Sampler, Teacher]:
    """Return the source of a student's examples, and the teacher or labels it learns from."""
    if stage.record is not None:
        sampler, teacher = stage.record.replay(workspace, stage.seed)
        return sampler, as_taught(stage, teacher)
    sampler = stage.draws(workspace, student)
    if stage.learns_from == "labels" or stage.teacher is None:
        return sampler, LabelTeacher()
    return sampler, as_taught(stage, workspace.made(stage.teacher))


def _set(**settings: Any) -> dict[str, Any]:
    """Return the settings that are set; stages from before there were such ones have none."""
    return {name: value for name, value in settings.items() if value is not None}


def asks_at_each_step(stage: NetworkStage) -> bool:
    """Whether a training asks its teacher about new draws, which takes most of its time."""
    stored = stage.sampler in ("empirical", ["empirical"])
    from_teacher = stage.teacher is not None and stage.learns_from == "teacher"
    return from_teacher and stage.record is None and not stored


def drawn_with(stage: NetworkStage) -> str | None:
    """Return the name of all that a student's draws and the answers on them depend on.

    Students with the same name can share both. None where there is nothing to share: draws from a
    record, or of stored examples alone, a share that follows mastery, and answers that are labels.
    """
    if not asks_at_each_step(stage) or stage.teacher is None:
        return None
    if stage.held_out is not None or share_is_auto(stage.sampler):
        return None
    parts = [stage.data, stage.sampler, stage.seed, stage.teacher.path]
    parts += [stage.training.steps] if moves(stage.sampler) else []
    # Answers with the members apart are others.
    parts += ["apart"] if asks_members(stage.distribution) else []
    drawn_from = [generator.path for generator in stage.generators]
    return canonical([*parts, drawn_from, stage.training.batch_size]).decode()


def context_of(
    stage: NetworkStage, workspace: Workspace, student: nn.Module | None = None
) -> Context:
    """Return the trained teacher and the fitted generators, as far as a stage's sampler needs."""
    if stage.teacher is None:
        return Context(draws=stage.length)
    asked = workspace.made(stage.teacher) if requirements(stage.sampler).teacher else None
    fitted = {part.name: workspace.made(part) for part in stage.generators}
    return Context(asked, student, fitted, stage.length)


def mastery_in(
    stage: NetworkStage,
    workspace: Workspace,
    student: nn.Module | None = None,
    until: int | None = None,
    seed: int | None = None,
) -> Mastery | None:
    """Return what measures the student's mastery; None where nothing asks for it.

    Args:
        stage: The stage.
        workspace: The workspace of the run.
        student: The student, for a sampler whose choices depend on it.
        until: As :func:`train_network` takes it.
        seed: Seed of the sampler; that of the record, or else of the training, where None.
    """
    auto = share_is_auto(stage.sampler)
    if stage.learns_from == "labels" or stage.teacher is None:
        return None
    if not auto and stage.held_out is None:
        return None
    if seed is None:
        seed = sampler_seed(stage.seed) if stage.record is None else stage.record.seed
    try:
        return mastery_of(
            stage.sampler,
            stage.examples(workspace),
            # The teacher itself is asked about the stored examples, of which there is no record.
            workspace.made(stage.teacher),
            stage.training,
            workspace.fabric,
            seed=seed,
            temperature=stage.last_temperature,
            part=stage.held_out,
            until=until,
            context=context_of(stage, workspace, student),
        )
    except XclError:
        raise
    except ValueError as error:
        raise RecipeError(f"{stage.key}.mastery.held_out", str(error)) from error


def _tell(title: str, workspace: Workspace, text: str) -> None:
    workspace.watcher.tell(f"{title}: {text}")


def _answering(stage: NetworkStage, workspace: Workspace) -> dict[str, Any]:
    """Return how the teacher that was asked has answered; {} where there is nothing to say."""
    if stage.teacher is None or not stage.asks_teacher or stage.record is not None:
        return {}
    known = workspace.answering.get(stage.teacher.path)
    return {"teacher": known} if known else {}


def _curves(stage: NetworkStage, workspace: Workspace) -> Curves:
    return Curves(
        workspace.recipe.log,
        workspace.folder / stage.path,
        stage.title,
        str(workspace.folder),
        {"settings": stage.settings_in(workspace)},
        workspace.watcher.tell,
    )


def _check(stage: NetworkStage, workspace: Workspace, checks: Checks, tried: bool) -> None:
    device = workspace.device
    model = stage.untrained(workspace).to(device)
    context = Context()
    if stage.teacher is not None:
        checks.teacher = checks.teacher or stage.teacher.preview(workspace)
        context = Context(checks.teacher, model, checks.generators)
    recorded = stage.record is not None
    check_mastery(stage.sampler, stage.held_out, stage.learns_from, recorded, stage.key)
    sampler = stage.build_sampler(workspace, context)
    if stage.learns_from == "teacher" and checks.teacher is not None:
        check_draws(checks.teacher, sampler, stage.key)
    batch = try_sampler(sampler, torch.arange(PROBE).to(device), f"{stage.key}.sampler")
    data = shaped(stage, workspace.data(stage.data))
    matching = loss_for(stage.matching, f"{stage.key}.matching", data, stage.learns_from)
    check_members(stage, checks.teacher, matching)
    check_loss(matching, stage.learns_from, batch, data.task, stage.key)
    check_optimizer(stage.training.optimizer or "sgd", f"{stage.key}.training.optimizer")
    asked = checks.teacher if stage.learns_from == "teacher" else None
    stage.extras.check(model, asked, recorded, batch.x, stage.key, stage.training.freeze)
    if tried:
        asked = None if asked is None else as_taught(stage, asked)
        trial = Trial(model, data.task, probe_of(data), stage.key, stage._spec)
        with workspace.exact(), autocast(workspace.precision, device):
            lesson = LabelTeacher() if asked is None else lesson_of(asked, sampler, data.task)
            size = stage.training.batch_size
            try_lesson(trial, batch, lesson, matching, size, checks.seen)
    checks.asks[stage.key] = questions(sampler, stage.learns_from)
    if checks.teacher is not None and stage.asks_once(checks.teacher, sampler):
        draws = stage.training.steps * stage.training.batch_size
        checks.asks[stage.key] = len(data.train) / draws
    if stage.record is not None or (stage.teacher is not None and stage.teacher.is_stored):
        checks.asks[stage.key] = 0.0
    if stage.record is not None and not is_pure(sampler):
        raise RecipeError(
            f"{stage.key}.sampler",
            "gives draws that depend on the student in training, on which no teacher can "
            "be recorded; choose another score, or set teacher.record to null",
        )
