"""How the steps of a training are launched: as graphs where they can be, else one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

from torch import Tensor

from extracurricular.errors import first_line
from extracurricular.samplers.base import Sampler
from extracurricular.teachers.base import Teacher
from extracurricular.training.captured import Captured, draw_obstacle, step_obstacle
from extracurricular.training.compiled import compile_student
from extracurricular.training.draw import Shared, draws
from extracurricular.training.graphs import has_graphs, new_graph
from extracurricular.training.settings import Execution
from extracurricular.training.steps import Kept, Steps


class Launcher:
    """Launches the steps of one training.

    Args:
        steps: The student and its optimiser.
        execution: Whether steps are captured and the student is compiled.
        tell: Gets a sentence where something is not captured, or was compiled.

    Attributes:
        shared: The draws of a cohort, or None.
        shares: The share of extended draws at each step, or None.
    """

    def __init__(self, steps: Steps, execution: Execution, tell: Callable[[str], None]) -> None:
        self.steps, self.execution = steps, execution
        self.tell = lru_cache(tell)  # a training of two phases tells the same once
        self.shared: Shared | None = None
        self.shares: Tensor | None = None
        self._compiled = False

    def losses(self, sampler: Sampler, teacher: Teacher, start: int, end: int) -> Iterator[Tensor]:
        """Do the steps from ``start`` up to ``end``, and yield the loss of each, a scalar."""
        if self.execution.compile and not self._compiled:
            self._compile(sampler, teacher, start)
            self._compiled = True
        captured = self._capture(sampler, teacher, start, end)
        return self._eager(sampler, teacher, start, end) if captured is None else captured.losses()

    def _eager(self, sampler: Sampler, teacher: Teacher, start: int, end: int) -> Iterator[Tensor]:
        steps, step = self.steps, start
        for batch, target in draws(
            sampler, teacher, steps.settings, start, fabric=steps.fabric,
            faults=steps.faults, shared=self.shared, shares=self.shares, end=end,
        ):  # fmt: skip
            steps.seed_step(step)
            yield steps.learn(batch, target)
            step += 1

    def _capture(self, sampler: Sampler, teacher: Teacher, start: int, end: int) -> Captured | None:
        """Return the steps as graphs; None where there are none, or they fail."""
        steps = self.steps
        device = steps.fabric.device
        if self.execution.capture == "off" or not has_graphs(device):
            return None
        reason = step_obstacle(steps.student, steps.matching, steps.fabric) or steps.obstacle
        if reason is not None:
            self.tell(f"steps are not captured: {reason}")
            return None
        fed = draw_obstacle(sampler, teacher)
        if fed is not None:
            self.tell(f"steps are captured, draws are not: {fed}")
        graph = partial(new_graph, device)
        try:
            return Captured(steps, sampler, teacher, start, graph, self.shared, self.shares, end)
        except RuntimeError as error:
            steps.faults.clear()
            self.tell(f"steps are not captured: {first_line(error)}")
            return None

    def _compile(self, sampler: Sampler, teacher: Teacher, start: int) -> None:
        steps, before = self.steps, Kept(self.steps)
        some = draws(
            sampler, teacher, steps.settings, start, fabric=steps.fabric, shares=self.shares
        )
        batch, target = next(some)
        run = partial(steps.forth_and_back, batch, target)
        compile_student(steps.student, run, self.tell)
        before.put_back()
