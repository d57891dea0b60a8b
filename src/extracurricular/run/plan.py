"""The plan of a run: a recipe as a graph of stages.

A run is a folder::

    recipe.yaml                      the recipe, with its defaults filled in
    data.json, ids.json.gz           the description and fingerprint of its data
    examples.safetensors             some examples, to verify and calibrate exports
    teacher/SEED/member-0/           one trained network: weights.safetensors, stage.json, log.jsonl
    teacher/SEED/outside/            or a teacher that is no network: stage.json alone
    generators/NAME/SEED/            one fitted generator, with quality.json and contact.png
    knowledge/KEY/                   the teacher recorded on the draws of one sampler
    students/NAME/seed-0/            the same for a student, and metrics.json, answers.safetensors
    calibration/students/NAME/seed-0 the calibration of a student: stage.json alone
    calibration/teacher/SEED/        that of a teacher
    environment.json                 versions and hardware of what was trained
    draws.json, draws.safetensors    draws of each sampler, for the page
    summary.json                     the figures of teacher and students
    stage.json                       the checksums of all that was measured, and of the figures

Everything here is a pure function of the recipe: nothing is read, built or written. A stage knows
how it is done (``stage.do(workspace)``), and which stages must be done before it (``needs``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from extracurricular import rng
from extracurricular.errors import RecipeError
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.models.families import read_family
from extracurricular.recipe.schema import Recipe
from extracurricular.recipe.students import CalibrateSection
from extracurricular.registry import split_spec
from extracurricular.run.calibrated import CalibrationStage
from extracurricular.run.chosen import ChosenStage, chosen_stage
from extracurricular.run.estimator import EstimatorStage
from extracurricular.run.evaluation import EvaluationStage
from extracurricular.run.extras import Extras
from extracurricular.run.families import asks_members, own_matching, own_spec
from extracurricular.run.generator import GeneratorStage
from extracurricular.run.network import NetworkStage
from extracurricular.run.recorded import RecordStage, belongs_to
from extracurricular.run.settings import data_settings, recorded_chain
from extracurricular.run.stages import Stage
from extracurricular.run.teacher import FittedStage, TeacherPlan, Uncalibrated, given_weights
from extracurricular.samplers.build import Requirements, requirements
from extracurricular.training import Training


@dataclass(frozen=True)
class Plan:
    """A recipe as a graph of stages.

    Args:
        recipe: The recipe.
        teachers: The teacher of each seed.
        generators: The generators of each seed, by name.
        students: The stage of each student and seed, in the order in which they are trained.
        records: The records of the teacher.
        evaluation: The stage that measures all of them.
        calibrations: The calibration of each student and seed that has one.
        last: Stages that the caller adds at the end, such as the page.
    """

    recipe: Recipe
    teachers: dict[int, TeacherPlan]
    generators: dict[int, dict[str, GeneratorStage]]
    students: dict[tuple[str, int], NetworkStage]
    records: tuple[RecordStage, ...]
    evaluation: EvaluationStage
    last: tuple[Stage, ...] = ()
    calibrations: dict[tuple[str, int], CalibrationStage] = field(default_factory=dict)

    @property
    def preparations(self) -> tuple[Stage, ...]:
        """Teachers and generators: all that comes before the students, in order."""
        teachers = [stage for teacher in self.teachers.values() for stage in teacher.stages]
        fitted = [stage for some in self.generators.values() for stage in some.values()]
        return _unique([*teachers, *fitted])

    @property
    def trained(self) -> tuple[Stage, ...]:
        """All that is trained, fitted or recorded, in order."""
        return (*self.preparations, *self.records, *self.students.values())

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Everything to do, in order: each stage stands behind all that it needs."""
        return (*self.trained, *self.calibrations.values(), self.evaluation, *self.last)


def plan(recipe: Recipe, last: Sequence[Stage] = ()) -> Plan:
    """Return the graph of stages of a recipe.

    Args:
        recipe: The recipe.
        last: Stages to do at the end.

    Raises:
        RecipeError: A sampler or generator that it names is unknown.
    """
    teachers = {seed: teacher_plan(recipe, seed) for seed in recipe.seeds}
    generators = {seed: generator_stages(recipe, seed, teachers) for seed in recipe.seeds}
    records: dict[str, RecordStage] = {}
    students = {}
    for seed in recipe.seeds:
        for name in recipe.students:
            stage = student_stage(recipe, name, seed, teachers[seed], generators[seed])
            if recipe.teacher.record is not None and isinstance(stage, ChosenStage):
                raise RecipeError(
                    f"{stage.key}.choose",
                    "is set, and asks the teacher about draws that no record holds; "
                    "set teacher.record to null",
                )
            if recipe.teacher.record is not None and stage.learns_from == "teacher":
                stage, record = recorded_student(recipe, stage)
                records.setdefault(record.path, record)
            students[name, seed] = stage
    fitted = {
        (name, seed): student_calibration(stage, methods)
        for (name, seed), stage in students.items()
        if (methods := recipe.students[name].calibrate) is not None
    }
    data = recipe.data_of(recipe.seeds[0])
    evaluation = EvaluationStage("", "evaluation", "evaluation", data, teachers, students, fitted)
    return Plan(
        recipe,
        teachers,
        generators,
        students,
        tuple(records.values()),
        evaluation,
        tuple(last),
        fitted,
    )


def student_calibration(student: NetworkStage, methods: CalibrateSection) -> CalibrationStage:
    """Return the stage that calibrates a student."""
    return CalibrationStage(
        path=f"calibration/{student.path}",
        title=f"calibration of {student.title}",
        key=student.key,
        data=student.data,
        methods=methods,
        made=(student.settings,),
        parts=(student,),
        ask=student.as_teacher,
    )


def teacher_plan(recipe: Recipe, seed: int) -> TeacherPlan:
    """Return the teacher that students of a seed learn from, as the recipe calibrates it."""
    found, methods = _teacher_plan(recipe, seed), recipe.teacher.calibrate
    if methods is None:
        return found
    calibration = CalibrationStage(
        path=f"calibration/{found.path}",
        title="calibration of the teacher" + (f", seed {seed}" if recipe.teacher.per_seed else ""),
        key="teacher",
        data=found.data,
        methods=methods,
        made=tuple(found.settings),
        parts=found.stages,
        ask=lambda workspace: workspace.made(Uncalibrated(found)),
    )
    return replace(found, calibration=calibration)


def _teacher_plan(recipe: Recipe, seed: int) -> TeacherPlan:
    section = recipe.teacher
    which = f"seed-{seed}" if section.per_seed else "shared"
    suffix = f", seed {seed}" if section.per_seed else ""
    # One teacher for all seeds is that of seed 0.
    own = seed if section.per_seed else 0
    root, data = f"teacher/{which}", recipe.data_of(own)
    if section.fitted is not None:
        name, _ = split_spec(section.fitted, "teacher", section.fitted_key)
        fitted = FittedStage(
            path=f"{root}/outside",
            title=f"teacher {name}{suffix}",
            key=section.fitted_key,
            data=data,
            spec=section.fitted,
            seed=rng.fold(own, "teacher") >> 1,
        )
        return TeacherPlan(root, data, fitted=fitted)
    count = len(section.networks)
    read_family(section.distribution, "teacher.distribution")
    members = tuple(
        NetworkStage(
            path=f"{root}/member-{number}",
            title=f"teacher {number + 1}/{count}{suffix}",
            key="teacher",
            data=data,
            model=model,
            sampler=section.sampler,
            training=section.training,
            seed=rng.fold(own, "teacher", number) >> 1,
            precision=recipe.device.precision,
            matching=own_matching(section.distribution, section.matching),
            distribution=own_spec(section.distribution),
            given=tuple(given_weights(section.weights, section.key, section.classes)),
        )
        for number, model in enumerate(section.networks)
    )
    return TeacherPlan(
        root,
        data,
        members,
        section.weights,
        section.key,
        None if section.classes is None else tuple(section.classes),
        mc_dropout=section.mc_dropout,
    )


def generator_stages(
    recipe: Recipe, seed: int, teachers: dict[int, TeacherPlan]
) -> dict[str, GeneratorStage]:
    """Return the generators for students of a seed: shared by all, unless each has its own data."""
    varies = recipe.data_varies
    own = seed if varies else 0
    data = recipe.data_of(own)
    # The first seed with these data has the teacher that measures them.
    judge = next((s for s in recipe.seeds if recipe.data_of(s) == data), recipe.seeds[0])
    return {
        name: GeneratorStage(
            path=f"generators/{name}/" + (f"seed-{seed}" if varies else "shared"),
            title=f"generator {name}" + (f", seed {seed}" if varies else ""),
            key=f"generators.{name}",
            data=data,
            name=name,
            model=section.model,
            seed=rng.fold(own, "generator", name) >> 1,
            least_variety=section.least_variety,
            teacher=teachers[judge],
        )
        for name, section in recipe.generators.items()
    }


def student_stage(
    recipe: Recipe,
    name: str,
    seed: int,
    teacher: TeacherPlan,
    generators: dict[str, GeneratorStage],
) -> NetworkStage:
    """Return one student of one seed, which asks its teacher itself."""
    section = recipe.students[name]
    key = f"students.{name}"
    distribution = section.distribution
    read_family(distribution, f"{key}.distribution")
    required = [_requirements(section.sampler, f"{key}.sampler")]
    if section.choose is not None:
        required += [
            _requirements(candidate.sampler, f"{key}.choose.among.{which}.sampler")
            for which, candidate in section.choose.among.items()
            if candidate.sampler is not None
        ]
    names = {used for part in required for used in part.generators}
    used = {key: stage for key, stage in generators.items() if key in names}
    asks = section.learns_from == "teacher" or any(part.teacher for part in required)
    parts = [*(teacher.stages if asks else ()), *used.values()]
    estimator: dict[str, Any] = {}
    training, model = section.training, section.model
    kind: type[NetworkStage] = NetworkStage
    if section.estimator is not None:
        kind, estimator = EstimatorStage, {"estimator": section.estimator}
        training = Training(steps=1, batch_size=section.budget)
        model = {**estimator, "draws": section.budget}
    stage = kind(
        path=f"students/{name}/seed-{seed}",
        title=f"{name}, seed {seed}",
        key=key,
        data=recipe.data_of(seed),
        model=model,
        sampler=section.sampler,
        training=training,
        # Not the student's name: all students of a seed start from the same weights.
        seed=seed,
        precision=recipe.device.precision,
        matching=own_matching(distribution, section.matching),
        distribution=own_spec(distribution),
        learns_from=section.learns_from,
        held_out=None if section.mastery is None else section.mastery.held_out,
        teacher=teacher,
        generators=tuple(used.values()),
        parts=tuple(parts),
        extras=Extras.of(section),
        **estimator,
    )
    return stage if section.choose is None else chosen_stage(stage, section.choose, used)


def recorded_student(recipe: Recipe, student: NetworkStage) -> tuple[NetworkStage, RecordStage]:
    """Return a student that learns from a record of its teacher, and the stage of that record."""
    section = recipe.teacher.record
    assert section is not None
    # A record depends on the sampler, its data and its teacher; not on the student's name or seed.
    own = student.seed if recipe.teacher.per_seed else 0
    source = [recorded_chain(student.sampler), data_settings(student.data)]
    # One of draws that belong to a training depends on the training too.
    source += [belongs_to(student)] if belongs_to(student) else []
    # A record of the members is another than that of their mixture.
    source += ["members"] if asks_members(student.distribution) else []
    key = rng.fold(own, canonical(source).decode())
    whose = student.title if own else student.key.partition(".")[2]
    record = RecordStage(
        path=f"knowledge/{key:016x}",
        title=f"knowledge of {whose}",
        key=student.key,
        data=student.data,
        student=student,
        seed=rng.fold(key, "sampler"),
        draws=section.draws,
        codec=section.codec,
    )
    return replace(student, record=record, parts=(*student.parts, record)), record


def _requirements(chain: Any, key: str) -> Requirements:
    try:
        return requirements(chain)
    except RecipeError as error:
        raise RecipeError(key, error.problem) from error


def _unique(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return stages without repeats, such as a teacher that all seeds share."""
    return tuple({stage.path: stage for stage in stages}.values())


def in_order(stages: Sequence[Stage]) -> Iterator[Stage]:
    """Yield stages and all that they need, each once and after its own needs."""
    seen: set[str] = set()

    def visit(stage: Stage) -> Iterator[Stage]:
        if stage.path in seen:
            return
        for needed in stage.needs:
            yield from visit(needed)
        seen.add(stage.path)
        yield stage

    for stage in stages:
        yield from visit(stage)
