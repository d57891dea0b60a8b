"""Choose a first recipe for a data set: teacher, students, optimisers and budget.

The choice is a pure function of a few facts. Rates and weight decays are those of the shipped
recipes ``uci``, ``digits`` and the CIFAR pairs, which were chosen on validation data
(docs/recipes.md); sizes and epochs are ours.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import yaml

from extracurricular.assess.first_data import Found
from extracurricular.assess.first_images import Setting
from extracurricular.data.base import Data
from extracurricular.distributions import Kind
from extracurricular.errors import DataError
from extracurricular.inputs import is_leaf

if TYPE_CHECKING:
    from jinja2 import Template

TARGET_SECONDS = 300
"""Seconds that the trainings of a first recipe may take on the machine that writes it."""

# A forest is the better teacher of so few rows; more are enough for networks.
_FEW_ROWS = 300
_WIDTH = 92
_LEAST_STEPS = 100
# Pixels from which networks for images are of use.
_LEAST_SIDE = 8
_SEEDS = 3


@dataclass(frozen=True)
class Facts:
    """What the choice depends on.

    Args:
        kind, size: Of the task (:class:`~extracurricular.distributions.Task`).
        shape: Of one example: ``(D,)`` for a table, ``(C, H, W)`` for an image.
        rows: Number of training examples.
        flips: Whether an image may be mirrored: photographs may, figures and letters not.
        unlabelled: Number of examples without a target.
        accelerated: Whether networks are trained on a GPU.
        several: Whether an example has several labels or probabilities, which trees do not learn.
    """

    kind: Kind
    size: int
    shape: tuple[int, ...]
    rows: int
    flips: bool = False
    unlabelled: int = 0
    accelerated: bool = False
    several: bool = False


@dataclass(frozen=True)
class Training:
    """A training as a recipe writes it.

    Args:
        steps, batch_size: Its length, and examples a step.
        rest: Further settings, in order.
    """

    steps: int
    batch_size: int
    rest: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The settings in one line."""
        warmup = min(50, self.steps // 10)
        return flow(
            {"steps": self.steps, "batch_size": self.batch_size, **self.rest, "warmup": warmup}
        )


@dataclass(frozen=True)
class Choice:
    """The parts of a first recipe.

    Args:
        teacher: The section ``teacher`` without its training, in order.
        teacher_training: The training of its networks; None if it is given or no network.
        student: Spec of the students' network.
        training: Their training.
        stored: The chain of stored examples.
        extended: The chain of extended ones.
        temperature, label_weight: Of the loss, for classes; None for reals.
        seeds: Number of seeds.
        rows: Number of training examples.
        why: Sentences on parts: ``teacher``, ``student``, ``training``, ``extended``, ``seeds``.
    """

    teacher: Mapping[str, Any]
    teacher_training: Training | None
    student: Any
    training: Training
    stored: Sequence[Any]
    extended: Sequence[Any]
    matching: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = _SEEDS
    rows: int = 1
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def length(self) -> str:
        """The length of a student's training in words."""
        steps, batch = self.training.steps, self.training.batch_size
        return f"{steps:,} steps, {steps * batch / max(self.rows, 1):.0f} epochs"


def facts_of(found: Found, accelerated: bool = False) -> Facts:
    """Return the facts of a data set that a recipe depends on.

    Args:
        found: The data set.
        accelerated: Whether networks are trained on a GPU.
        several: Whether an example has several labels or probabilities, which trees do not learn.

    Raises:
        DataError: Its inputs are neither a table nor one image.
    """
    data: Data = found.data
    shapes = data.shapes if is_leaf(data.train.x) else None
    shape = tuple(shapes) if isinstance(shapes, tuple) else ()
    if shapes is None or len(shape) not in (1, 3):
        has = "several inputs" if shapes is None else f"inputs of shape {shape}"
        raise DataError(
            f"data {data.name!r} has {has}, for which there is no first recipe; start from one "
            "with a network for them, such as xcl recipes show gaze"
        )
    y = data.train.y
    return Facts(
        kind=data.task.kind,
        size=data.task.size,
        shape=shape,  # type: ignore[arg-type]
        rows=len(data.train),
        flips=found.name in ("imagefolder", "hf", "cifar10", "cifar100")
        # A number may be a direction or a place, which a mirror changes.
        or (found.name in ("images", "webdataset") and data.task.kind == "classification"),
        unlabelled=0 if data.unlabelled is None else len(data.unlabelled),
        accelerated=accelerated,
        several=data.task.kind != "regression" and y is not None and y.ndim > 1,
    )


def choose(facts: Facts, teacher: Mapping[str, Any] | None = None) -> Choice:
    """Choose the parts of a recipe.

    Args:
        facts: What is known of the data.
        teacher: The section ``teacher`` if there is one already.
    """
    pictures = len(facts.shape) == 3 and min(facts.shape[1:]) >= _LEAST_SIDE
    found = _for_images(facts) if pictures else _for_table(facts)
    if facts.kind == "classification" and "temperature" not in found.matching:
        found = replace(found, matching={"temperature": 4.0, **found.matching})
    if teacher is not None:
        why = {**found.why, "teacher": "The teacher is the one that was given."}
        found = replace(found, teacher=teacher, teacher_training=None, why=why)
        found = _for_answers(found, facts) if "answers" in teacher else found
    return found


def _for_answers(found: Choice, facts: Facts) -> Choice:
    """Leave out the draws on which a teacher of stored answers has none."""
    extended, told = [], "There are no extended examples: stored answers are on known ones alone."
    if facts.unlabelled:
        extended = ["pool"]
        told = f"The {facts.unlabelled:,} rows without a target, which the teacher has answered."
    why = {**found.why, "extended": told}
    return replace(found, stored=["empirical"], extended=extended, why=why)


def _for_table(facts: Facts) -> Choice:
    rows, many = facts.rows, facts.rows >= 5_000
    batch = 64 if rows < 20_000 else 256
    steps = _round(min(max(200 * rows / batch, 1_000), 10_000 if batch > 64 else 15_000))
    real = facts.kind == "regression"
    own = {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 1e-2}
    if real and not many:
        own["lr"] = 3e-2
    units = 64 if many else 32
    width = 256 if rows >= 50_000 else 128 if many else 64
    if rows < _FEW_ROWS and not facts.several:
        teacher: dict[str, Any] = {"estimator": {"random_forest": {"trees": 500}}}
        training = None
        why = (
            f"Few rows ({rows:,}) make networks that know them by heart; a forest of trees does "
            f"not. From {_FEW_ROWS} rows on, five networks are chosen."
        )
    else:
        members = 5 if rows < 50_000 else 3
        teacher = {
            "model": {"mlp": {"hidden": [width, width]}},
            "members": members,
            # A little noise keeps the variances from shrinking to the errors on known rows.
            "sampler": ["empirical", {"noise": {"std": 0.02}}],
        }
        training = Training(
            _round(steps * 2 / 3), batch, {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 0.1}
        )
        why = f"{_number(members)} networks, whose disagreement is a part of the uncertainty."
    extended: list[Any] = ["empirical", {"mixup": {"alpha": 1.0}}, {"noise": {"std": 0.05}}]
    told = "Mixed rows with a little noise."
    if facts.unlabelled >= 20:
        extended = [
            {
                "blend": {
                    "mixed": {"weight": 0.5, "sampler": extended},
                    "unlabelled": {"weight": 0.5, "sampler": ["pool"]},
                }
            }
        ]
        told = (
            f"Mixed rows with a little noise, and the {facts.unlabelled:,} rows without a target, "
            "for which the teacher answers."
        )
    return Choice(
        teacher, training, {"mlp": {"hidden": [units]}}, Training(steps, batch, own),
        ["empirical"], extended, rows=rows,
        why={
            "teacher": why,
            "student": f"A network of {units} units, small enough to ship anywhere.",
            "training": "AdamW at the rates of the shipped recipe uci.",
            "extended": told,
        },
    )  # fmt: skip


def _for_images(facts: Facts) -> Choice:
    _, height, width = facts.shape
    side = min(height, width)
    small = side < 24
    rows, real = facts.rows, facts.kind == "regression"
    shift: dict[str, Any] = {"pad": max(1, side // 8)}
    if facts.flips:
        shift["flip"] = True
    stored: list[Any] = ["empirical", {"augment": shift}]
    batch = 64 if rows >= 2_000 else 32
    epochs = 320 if small else 100
    steps = _round(min(max(epochs * rows / batch, 1_000), 20_000))
    decay: dict[str, Any] = {"lr": 0.1 if small else 0.05, "weight_decay": 5e-4}
    words = "SGD at the rate of the shipped recipe " + ("digits" if small else "of CIFAR-100")
    if real:
        # As in the recipe gaze; larger rates make variances explode.
        decay = {"optimizer": "adamw", "lr": 3e-3, "weight_decay": 1e-2, "clip_norm": 5.0}
        words = "AdamW, with norms of gradients clipped for real targets"
    model: Any
    student: Any
    if small:
        model, student, members = {"digits_cnn": {"width": 16}}, {"digits_cnn": {"width": 4}}, 3
        # Shifts by a pixel help such a teacher and hurt its students (docs/recipes.md).
        kept: list[Any] = ["empirical"]
        extended: list[Any] = ["empirical", {"cutmix": {"alpha": 1.0}}, {"noise": {"std": 0.1}}]
        told = "Images with a box of another one, and a little noise."
    else:
        depth, smaller = (56, 20) if facts.accelerated else (14, 8)
        model, student, members = f"resnet{depth}", f"resnet{smaller}", 1
        kept = stored
        extended = [
            {
                "blend": {
                    "mixup": {"weight": 0.5, "sampler": [*stored, "mixup"]},
                    "cutmix": {"weight": 0.5, "sampler": [*stored, "cutmix"]},
                }
            }
        ]
        told = "Shifted images, mixed in halves by Mixup and CutMix."
    teacher = {"model": model, "members": members, "sampler": stored}
    matching = {} if real or small else {"temperature": 4.0, "label_weight": 0.1}
    return Choice(
        teacher, Training(_round(steps / 2) if small else steps, batch, decay),
        student, Training(steps, batch, decay), kept, extended, matching, rows=rows,
        why={
            "teacher": "Three convolutional networks." if small else "A residual network.",
            "student": "A small one of the same kind.",
            "training": f"{words}.",
            "extended": told,
        },
    )  # fmt: skip


# Budget


def fitted(
    choice: Choice, teacher: float, students: float, seconds: float = TARGET_SECONDS
) -> Choice:
    """Fit a recipe into a time: with fewer seeds, and then with fewer steps.

    Args:
        choice: The recipe.
        teacher: Seconds of the teacher's training, at the steps that were chosen.
        students: Seconds of the trainings of all students, for one seed.
        seconds: Time that the whole may take.
    """
    seeds = next((n for n in (_SEEDS, 2) if teacher + n * students <= seconds), 1)
    whole = teacher + seeds * students
    found = replace(choice, seeds=seeds)
    if whole <= seconds:
        return found
    part = seconds / whole
    shorter = _shorter(choice.training, part)
    own = choice.teacher_training
    why = {**choice.why}
    why["training"] += (
        f" Shortened from {choice.training.steps:,} steps, to end in some minutes here; more steps "
        "are better."
    )
    return replace(
        found,
        training=shorter,
        teacher_training=None if own is None else _shorter(own, part),
        why=why,
    )


def _shorter(training: Training, part: float) -> Training:
    return replace(training, steps=max(_LEAST_STEPS, _round(training.steps * part)))


def _round(count: float) -> int:
    """Return a number of steps with two digits."""
    size: int = 10 ** max(0, len(str(int(count))) - 2)
    return max(1, round(count / size) * size)


def _number(count: int) -> str:
    return {2: "Two", 3: "Three", 5: "Five"}.get(count, str(count))


# Text


def flow(value: Any) -> str:
    """Return plain values as YAML in one line."""
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**6,
        sort_keys=False,
    )  # fmt: skip
    return text.strip().removesuffix("\n...")


class _Dumper(yaml.SafeDumper):
    """YAML without aliases, and each text in one line."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value out each time."""
        return True


def _one_line(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if not text.isprintable() else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _one_line)


def comment(text: str, indent: int) -> list[str]:
    """Return a sentence as lines of a comment."""
    blank = " " * indent
    return [
        f"{blank}# {line}"
        for line in textwrap.wrap(
            text, _WIDTH - indent, break_long_words=False, break_on_hyphens=False
        )
    ]


def setting_lines(setting: Setting, indent: int = 4) -> list[str]:
    """Return a setting of the data as lines of a recipe, with its reasons above it."""
    lines = [line for why in setting.why for line in comment(why, indent)]
    return [*lines, f"{' ' * indent}{flow({setting.name: setting.value})[1:-1]}"]


def recipe_text(found: Found, choice: Choice, *, name: str, file: str, path: str | None) -> str:
    """Return the text of a recipe, with a comment on what was chosen.

    Args:
        found: The data set.
        choice: The parts of the recipe.
        name: Name of the recipe.
        file: Name of its file, for the comments.
        path: The data's path as the recipe has it; None for a data set without one.
    """
    settings = [
        replace(s, value=path) if s.name == "path" and path is not None else s
        for s in found.settings
    ]
    data = found.data
    return _template().render(
        name=flow(name),
        file=file,
        task=task_words(data),
        sizes=(len(data.train), len(data.validation), len(data.test)),
        set=found.name,
        settings=[line for setting in settings for line in setting_lines(setting)],
        left=[line for sentence in found.left for line in comment(sentence, 0)],
        choice=choice,
        seeds=list(range(choice.seeds)),
        comment=comment,
        flow=flow,
        minutes=TARGET_SECONDS // 60,
        tiny=_LEAST_STEPS,
    )


def task_words(data: Data) -> str:
    """Return what is predicted, in a few words."""
    task = data.task
    if task.kind == "classification":
        return f"{task.size} classes"
    if task.kind == "multilabel":
        return f"{task.size} labels of 0 and 1"
    return "a real target" if task.size == 1 else f"{task.size} real targets"


@lru_cache(maxsize=1)
def _template() -> Template:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("extracurricular.assess"),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return made.get_template("first_recipe.yaml.j2")
