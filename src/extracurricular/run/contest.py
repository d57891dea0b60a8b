"""Trainings of one student without a recipe: one, or candidates of which the best is finished."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from extracurricular.data.base import Data
from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, XclError, shorten
from extracurricular.matching import Matching, build_matching
from extracurricular.recipe.candidates import read_choice
from extracurricular.recipe.students import ChooseSection
from extracurricular.run.chosen import FILE, held_out_kl
from extracurricular.run.halving import Halving, Results
from extracurricular.run.loss import fitted_loss
from extracurricular.run.workspace import sampler_seed
from extracurricular.samplers import Context, Sampler, build_sampler
from extracurricular.teachers import Teacher
from extracurricular.teachers.base import on_draws
from extracurricular.training import Mastery, Training, mastery_of, train
from extracurricular.training.mastery import HELD_OUT

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Candidate:
    """The draws and the loss of a student.

    Args:
        chain: The chain of its sampler, as a recipe writes it; or a sampler.
        loss: The loss.
    """

    chain: Any
    loss: Matching


@dataclass(frozen=True)
class Lessons:
    """All that the trainings of candidates share.

    Args:
        data: The data set, on the device.
        teacher: The teacher.
        first: The student with its first weights, on the device; it is copied.
        settings: Settings of the training.
        seed: Seed of everything random.
        fabric: Device and precision.
        on_progress: Called now and then with (steps done, loss).
        bound: All that their checkpoints belong to, besides the candidate.
    """

    data: Data
    teacher: Teacher
    first: nn.Module
    settings: Training
    seed: int
    fabric: Fabric
    on_progress: Callable[[int, float], None] | None
    bound: str = ""

    def prepared(self, candidate: Candidate) -> tuple[nn.Module, Sampler]:
        """Return a student with its first weights, and the source of its examples."""
        fitted_loss(
            candidate.loss, "matching", self.data
        )  # a wrong one is refused before anything is trained
        module, chain = copy.deepcopy(self.first), candidate.chain
        if not isinstance(chain, str | dict | list):
            return module, chain
        seed, context = sampler_seed(self.seed), self._context(module)
        sampler = build_sampler(chain, self.data, seed, "sampler", context)
        on_draws(self.teacher, sampler)  # a teacher of stored answers may know none on its draws
        return module, sampler

    def learn(
        self,
        candidate: Candidate,
        folder: Path | None,
        *,
        before: int = 0,
        part: float | None = None,
        until: int | None = None,
        stop: int | None = None,
    ) -> tuple[nn.Module, Sampler]:
        """Train a student, and return it with the source of its examples.

        Args:
            candidate: Its draws and its loss.
            folder: Folder of checkpoints and the log; None for none.
            before: Steps of other candidates, which progress counts too.
            part, until: As :func:`~extracurricular.training.mastery_of` takes them.
            stop: The step to stop at; None for the end.
        """
        module, source = self.prepared(candidate)
        told = self.on_progress
        train(
            module,
            source,
            self.teacher,
            self.data.task,
            matching=fitted_loss(candidate.loss, "matching", self.data),
            settings=self.settings,
            seed=self.seed,
            fabric=self.fabric,
            folder=folder,
            bound=f"{self.bound} {candidate.loss}",
            on_progress=None if told is None else lambda step, loss: told(before + step, loss),
            mastery=self._mastery(candidate, module, part, until),
            stop=stop,
        )
        return module, source

    def _context(self, student: nn.Module) -> Context:
        draws = self.settings.steps * self.settings.batch_size
        return Context(self.teacher, student, draws=draws)

    def _mastery(
        self, candidate: Candidate, student: nn.Module, part: float | None, until: int | None
    ) -> Mastery | None:
        """Return what measures the student's mastery, where its draws or a choice need that."""
        if not isinstance(candidate.chain, str | dict | list):
            return None
        try:
            return mastery_of(
                candidate.chain, self.data, self.teacher, self.settings, self.fabric,
                seed=sampler_seed(self.seed), temperature=candidate.loss.last_temperature,
                part=part, until=until, context=self._context(student),
            )  # fmt: skip
        except XclError:
            raise
        except ValueError as error:
            if part is not None:
                raise RecipeError("choose", f"keeps examples out, but held_out {error}") from error
            raise RecipeError("sampler", f"has a share of 'auto', but held_out {error}") from error


@dataclass(frozen=True)
class Contest:
    """A choice among candidates, as a recipe's ``choose`` makes it.

    Args:
        section: The choice as a recipe has it.
        among: The candidates by name.
        halving: The rounds of the choice.
    """

    section: ChooseSection
    among: dict[str, Candidate]
    halving: Halving

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders of the candidates."""
        return [folder / name for name in self.among]

    def hold(self, lessons: Lessons, folder: Path) -> tuple[nn.Module, Sampler]:
        """Train the candidates, and the best one to the end; what was done before is kept."""
        kept: dict[str, Any] = {"part": HELD_OUT, "until": self.halving.until}

        def judge(name: str, stop: int, before: int) -> tuple[float, float]:
            started = time.perf_counter()
            module, _ = lessons.learn(
                self.among[name], folder / name, before=before, stop=stop, **kept
            )
            seed = sampler_seed(lessons.seed)
            kl = held_out_kl(module, lessons.data, lessons.teacher, lessons.fabric, seed)
            return kl, time.perf_counter() - started

        name, before = self.halving.choose(judge, Results(folder / FILE))
        return lessons.learn(self.among[name], folder / name, before=before, **kept)

    def outcome(self, folder: Path) -> tuple[Candidate, dict[str, Any]]:
        """Return the candidate that was chosen, and how: ``chosen``, ``steps``, ``held_out_kl``."""
        results = Results(folder / FILE)
        name, _ = self.halving.choose(lambda *_: (math.inf, 0.0), results)
        told = {"chosen": name, "steps": self.halving.total, "held_out_kl": results.plain()}
        return self.among[name], told


def contest(lessons: Lessons, given: Any, chain: Any, loss: Any) -> Contest:
    """Read a choice.

    Args:
        lessons: All that the candidates share.
        given: The choice, as :func:`~extracurricular.recipe.candidates.read_choice` takes it.
        chain: The chain of the student's sampler.
        loss: The loss: settings, or a :class:`~extracurricular.matching.Matching`.

    Raises:
        RecipeError: It is wrong, or sampler or loss are objects that candidates cannot change.
    """
    if not isinstance(chain, str | dict | list):
        raise RecipeError("choose", "needs a sampler as a recipe writes it, not an object")
    section = read_choice(given, chain)
    if isinstance(loss, Matching) and any(one.matching for one in section.among.values()):
        raise RecipeError(
            "choose", "changes the loss, so matching must be a dict of settings, not an object"
        )
    among = {}
    for name, one in section.among.items():
        own = {**loss, **one.matching} if isinstance(loss, dict) else loss
        own_chain = chain if one.sampler is None else one.sampler
        try:
            among[name] = Candidate(own_chain, read_loss(own, lessons.data.task))
            lessons.prepared(among[name])  # a wrong one is refused before any is trained
        except RecipeError as error:
            raise RecipeError(f"choose.{name}.{error.key}", error.problem) from error
    halving = Halving(tuple(among), lessons.settings.steps, tuple(section.after))
    return Contest(section, among, halving)


def read_loss(given: Matching | dict[str, Any], task: Task) -> Matching:
    """Return the loss that a person gives.

    Raises:
        RecipeError: A setting is unknown or invalid, or does not go with the task.
    """
    if not isinstance(given, Matching | dict):
        raise RecipeError(
            "matching",
            f"is {shorten(given)}; it must be xcl.Matching(…), or a dict of its settings",
        )
    found = given if isinstance(given, Matching) else build_matching(given, "matching")
    try:
        found.beta_for(task.kind)
    except ValueError as error:
        raise RecipeError("matching", str(error)) from error
    return found
