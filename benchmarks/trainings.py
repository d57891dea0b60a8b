"""The trainings that step_cost.py times, made with whichever version of the package is imported.

32x32 images of random bytes in 100 classes, and networks with random weights, since the time of a
step depends on neither. The loop is the project's own ``train``; samplers and losses are those of
the shipped recipes of CIFAR-100.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from extracurricular.data.base import Data, make_data
from extracurricular.knowledge import Recorded, open_knowledge, record
from extracurricular.matching import Matching
from extracurricular.models import build_model
from extracurricular.samplers import Context, Sampler, build_sampler
from extracurricular.teachers import Labels, Network, Teacher
from extracurricular.training import Training, draw_steps, train
from turns import Tick

Tell = Callable[[str], object]

CLASSES = 100
IMAGES = 50_000
WAYS = ("ERM", "KD", "XCL online", "XCL recorded")
DRAWS = 16_384
"""Draws in the record."""

# Settings that f193f8d calls by other names.
_OLD_WORDS = "hard" in {field.name for field in fields(Matching)}
_PLAIN, _LABELS = ("plain", "hard") if _OLD_WORDS else ("plain_share", "label_weight")

CROPPED = ["empirical", {"augment": {"pad": 4, "flip": True}}]
_EXTENDED = [
    {
        "blend": {
            "mixup": {"weight": 0.5, "sampler": [*CROPPED, "mixup"]},
            "cutmix": {"weight": 0.5, "sampler": [*CROPPED, "cutmix"]},
        }
    },
    {"uncertain": {"score": "entropy", "candidates": 2, _PLAIN: 0.3}},
]


def random_images(device: torch.device) -> Data:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8)
    y: Any = np.arange(IMAGES) % CLASSES
    return make_data("random", (x, y), (x[:CLASSES], y[:CLASSES])).to(device)


def execution(how: str) -> dict[str, Any]:
    """Return the arguments by which ``train`` is ``eager``, ``captured`` or ``compiled``.

    Raises:
        NotImplementedError: This version has no such execution.
    """
    try:
        from extracurricular.training import Execution
    except ImportError:
        if how == "eager":
            return {}
        raise NotImplementedError(f"this version has no {how} steps") from None
    capture: Any = "off" if how == "eager" else "auto"
    return {"execution": Execution(capture=capture, compile=how == "compiled")}


def exact() -> AbstractContextManager[None]:
    """Compute float32 as a run of this version does by default."""
    try:
        from extracurricular.run.precision import float32_products
    except ImportError:
        return nullcontext()
    found: AbstractContextManager[None] = float32_products(False)
    return found


class Pair:
    """A teacher and its student, on a device.

    Args:
        names: ``TEACHER:STUDENT``.
        data: The images, on the device.
        batch: Examples a step.
    """

    def __init__(self, names: str, data: Data, batch: int) -> None:
        self.names, self.data, self.batch = names, data, batch
        self.device = data.train.x.device
        self._teachers: dict[tuple[str, bool], tuple[Teacher, tuple[str, ...]]] = {}

    def network(self, which: int) -> nn.Module:
        """Make the teacher's network (0) or the student's (1)."""
        name = self.names.split(":")[which]
        torch.manual_seed(which)
        return build_model(name, inputs=self.data.shapes, outputs=CLASSES)

    def teacher(self, precision: str, compiled: bool) -> tuple[Teacher, tuple[str, ...]]:
        """Return the teacher, made ready as a run does, and sentences on that."""
        key = (precision, compiled)
        if key not in self._teachers:
            module = _settled(self.network(0).to(self.device), self.data)
            try:
                from extracurricular.run.answering import answering
                from extracurricular.run.precision import hardware, teacher_dtype
            except ImportError:
                self._teachers[key] = Network(module, self.data.task), ()
            else:
                dtype = teacher_dtype(precision, hardware(self.device.type))
                found = answering([module], self.data, dtype, compiled)
                self._teachers[key] = found.teacher, found.sentences
        return self._teachers[key]

    def sampler(self, extended: bool, teacher: Teacher) -> Sampler:
        """Return the recipes' sampler of stored, or of extended examples."""
        chain = _EXTENDED if extended else CROPPED
        return build_sampler(chain, self.data, 0, context=Context(teacher))


def _settled(module: nn.Module, data: Data) -> nn.Module:
    """Give batch norms the statistics of images, else activations grow from layer to layer."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        module.train()(data.inputs(data.train[:64].x))
    return module.eval()


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        way: One of :data:`WAYS`.
        how: ``eager``, ``captured`` or ``compiled``.
        precision: As Fabric names it.
        threads: Threads of the CPU.
        line: Least steps between two lines of the log.
    """

    way: str
    how: str = "eager"
    precision: str = "32-true"
    threads: int = 1
    line: int = 1

    def run(self, pair: Pair, known: Recorded | None, tick: Tick, tell: Tell) -> None:
        """Train until ``tick`` ends it; ``tell`` gets what the training says of its execution."""
        torch.set_num_threads(self.threads)
        given = execution(self.how)
        if "tell" in inspect.signature(train).parameters:
            given["tell"] = tell
        with exact():
            sampler, teacher, matching = self._way(pair, known, tell)
            # Lines fall between groups of steps that are drawn at once.
            together = draw_steps(sampler, pair.batch, pair.device)
            every = -(-self.line // together) * together
            train(
                pair.network(1),
                sampler,
                teacher,
                pair.data.task,
                matching=matching,
                # Without a folder a checkpoint is a line of the log and no more.
                settings=Training(
                    steps=1000 * every, batch_size=pair.batch, lr=0.05, checkpoint_every=every
                ),
                fabric=Fabric(accelerator=pair.device.type, devices=1, precision=self.precision),
                on_log=lambda line: tick(line["step"]),
                **given,
            )

    def _way(
        self, pair: Pair, known: Recorded | None, tell: Tell
    ) -> tuple[Sampler, Teacher, Matching]:
        """Return sampler, teacher and loss."""
        if self.way == "ERM":
            return pair.sampler(False, Labels()), Labels(), Matching()
        if self.way == "XCL recorded":
            assert known is not None
            # Nobody asks the sampler's teacher, as the choices are recorded.
            extended = pair.sampler(True, Labels())
            return known.replay(extended), known, Matching(temperature=4.0)
        teacher, sentences = pair.teacher(self.precision, self.how == "compiled")
        for sentence in sentences:
            tell(sentence)
        if self.way == "KD":
            matching = Matching(temperature=4.0, **{_LABELS: 0.1})
            return pair.sampler(False, teacher), teacher, matching
        return pair.sampler(True, teacher), teacher, Matching(temperature=4.0)


def recorded(data: Data, batch: int, folder: Path) -> Recorded:
    """Record a teacher that answers at once: a record is as fast to read whoever answered.

    Every pair replays this one.
    """
    torch.manual_seed(2)
    layer = nn.Linear(3 * 32 * 32, CLASSES)
    module = nn.Sequential(nn.Flatten(), layer).to(data.train.x.device)
    teacher = Network(module.eval(), data.task)
    sampler = Pair("none:none", data, batch).sampler(True, teacher)
    record(sampler, teacher, data, DRAWS, folder)
    return open_knowledge(folder, data=data)
