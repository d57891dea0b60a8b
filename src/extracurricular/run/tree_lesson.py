"""The fit of one student of trees without a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from extracurricular.data.base import Data
from extracurricular.models.trees import Trees
from extracurricular.recipe.single import TreesSpec
from extracurricular.run.estimator import (
    TRIED,
    asked_about,
    check_pure,
    check_share,
    fitted_trees,
    is_own,
    no_trees,
)
from extracurricular.run.precision import float32_products
from extracurricular.run.trial import PROBE, try_sampler
from extracurricular.run.workspace import sampler_seed
from extracurricular.samplers import Context, Sampler, build_sampler
from extracurricular.teachers import Teacher
from extracurricular.teachers.base import on_draws

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_KEY = "student.estimator"


@dataclass(frozen=True)
class TreeLesson:
    """An estimator that is fitted to a teacher's distributions on draws.

    Args:
        spec: The estimator, and its number of draws.
        data: The data set, on the device.
        teacher: The teacher.
        chain: The chain of the sampler, as a recipe writes it; or a sampler.
        seed: Seed of everything random.
        fabric: Device and precision.
    """

    spec: TreesSpec
    data: Data
    teacher: Teacher
    chain: Any
    seed: int
    fabric: Fabric

    def prepared(self) -> Sampler:
        """Return the source of the draws.

        Raises:
            RecipeError: It cannot be built, or gives draws that depend on the student in training,
                or for which a teacher of stored answers has none.
        """
        check_share(self.chain, "sampler")
        sampler: Sampler = self.chain
        if isinstance(self.chain, str | dict | list):
            context = Context(self.teacher, no_trees(self.data), draws=self.spec.draws)
            seed = sampler_seed(self.seed)
            sampler = build_sampler(self.chain, self.data, seed, "sampler", context)
        check_pure(sampler, "sampler")
        on_draws(self.teacher, sampler)
        return sampler

    def check(self) -> None:
        """Draw two examples, and try an estimator of the user's own on a few.

        Raises:
            RecipeError: Something cannot be drawn, or not be fitted.
        """
        sampler, device = self.prepared(), self.data.device
        try_sampler(sampler, torch.arange(PROBE, device=device), "sampler")
        if is_own(self.spec.estimator):
            with float32_products(False):
                asked = asked_about(sampler, self.teacher, TRIED, device)
            fitted_trees(self.spec.estimator, self.seed, asked, _KEY)

    def learn(self) -> tuple[Trees, Sampler]:
        """Fit the estimator; return its trees, on the device, and the source of the draws."""
        sampler, device = self.prepared(), self.data.device
        with float32_products(False), self.fabric.autocast():
            asked = asked_about(sampler, self.teacher, self.spec.draws, device)
        return fitted_trees(self.spec.estimator, self.seed, asked, _KEY).to(device), sampler
