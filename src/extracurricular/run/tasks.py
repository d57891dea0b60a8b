"""Tasks: stages of one run or of several, as a graph that one executor does.

:func:`extracurricular.run.executors.do_tasks` does them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from extracurricular.run.network import NetworkStage, asks_at_each_step
from extracurricular.run.plan import Plan
from extracurricular.run.stages import Stage
from extracurricular.run.workspace import Workspace

Key = tuple[str, str]
"""The key of a task: the folder of its run, and the path of its stage."""


@dataclass(frozen=True)
class Task:
    """One stage of one run.

    Args:
        run: The folder of the run, as the workspaces of :func:`do_tasks` have it.
        stage: A stage of that run's plan.
        needs: Keys of the tasks that must be done before. Those that are not among the tasks at
            hand count as done.
    """

    run: Path
    stage: Stage
    needs: frozenset[Key]

    @cached_property
    def key(self) -> Key:
        """The key of the task."""
        return str(self.run), self.stage.path

    @cached_property
    def work(self) -> int:
        """The steps of the stage, twice those of a student that asks its teacher at each."""
        asks = isinstance(self.stage, NetworkStage) and asks_at_each_step(self.stage)
        return self.stage.steps * (2 if asks else 1)


def tasks_of(plan: Plan, workspace: Workspace) -> list[Task]:
    """Return the stages of a run to train, fit or record that are not done, in the plan's order."""
    waiting = [stage for stage in plan.trained if not stage.is_done(workspace)]
    return as_tasks(waiting, workspace.folder)


def as_tasks(stages: Iterable[Stage], run: Path) -> list[Task]:
    """Return stages of one run as tasks."""
    return [
        Task(run, stage, frozenset((str(run), one.path) for one in stage.needs)) for stage in stages
    ]


def ready_tasks(waiting: Sequence[Task], ahead: Iterable[Key]) -> list[Task]:
    """Return the tasks that wait for nothing.

    Args:
        waiting: Tasks that are not begun.
        ahead: Keys of all tasks that are not done.
    """
    undone = set(ahead)
    return [task for task in waiting if undone.isdisjoint(task.needs)]
