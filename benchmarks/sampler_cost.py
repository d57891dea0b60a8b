"""What share of a student's step the sampler costs, in the shipped demos, on this machine.

For each student of each demo recipe, the sampler's draws (as the loop makes them: several steps at
once) and the student's step (forward, loss, backward, optimiser) are timed in turn, in one process,
and the ratio of the medians is printed. The teacher is left out of both: where a sampler asks it,
one that answers at once stands in. Exit status 1 if any ratio is above the limit.

    python benchmarks/sampler_cost.py [RECIPE ...] [--limit 0.15]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from extracurricular.distributions import Distribution, Task
from extracurricular.matching import Matching
from extracurricular.recipe.read import read_recipe
from extracurricular.run.plan import plan
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Batch, Context
from extracurricular.teachers import Labels
from extracurricular.training import draw_steps, learning_rate, make_optimizer, step_ids

ROUNDS = 15


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class Prompt:
    """A teacher that answers at once, and the same to everything."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, batch: Batch) -> Distribution:
        """Return zeros."""
        return self.task.distribution(torch.zeros(len(batch), self.task.outputs))

    def members(self, batch: Batch) -> list[Distribution]:
        """Return one member."""
        return [self(batch)]


def measure(recipe_name: str, rounds: int) -> list[tuple[str, float, float]]:
    """Return (student, milliseconds of sampling a step, milliseconds of a student's step)."""
    recipe = read_recipe(recipe_name, ["device.accelerator=cpu"])
    workspace, rows = Workspace(recipe, Path("unused")), []
    for (name, seed), stage in plan(recipe).students.items():
        if seed != recipe.seeds[0]:
            continue
        task = workspace.data(stage.data).task
        sampler = stage.build_sampler(workspace, Context(Prompt(task)))
        student = stage.untrained(workspace).train()
        optimizer = make_optimizer(student, stage.training, fused=True)
        matching, size = Matching(), stage.training.batch_size
        together = draw_steps(sampler, size, torch.device("cpu"))

        def draw(first: int = 0) -> object:
            return sampler(step_ids(first, together, size))  # noqa: B023

        batch = sampler(step_ids(0, 1, size))
        target = Labels()(batch)

        def step() -> None:
            for group in optimizer.param_groups:  # noqa: B023
                group["lr"] = learning_rate(stage.training, 0)  # noqa: B023
            loss = matching(task.distribution(student(batch.x)), target)  # noqa: B023
            optimizer.zero_grad()  # noqa: B023
            loss.backward()
            optimizer.step()  # noqa: B023

        def steps() -> None:
            for _ in range(together):  # noqa: B023
                step()

        draw()
        steps()
        # In turn, so that whatever else the machine does meets both alike.
        pairs = [(timed(draw), timed(steps)) for _ in range(rounds)]
        sampling, training = (statistics.median(values) for values in zip(*pairs, strict=True))
        rows.append((name, 1000 * sampling / together, 1000 * training / together))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=["digits", "gaze"])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each")
    parser.add_argument("--limit", type=float, default=0.15)
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'recipe':<10}{'student':<10}{'sampler ms':>12}{'step ms':>10}{'ratio':>9}")
    worst = 0.0
    for recipe in arguments.recipes:
        for name, sampling, training in measure(recipe, arguments.rounds):
            ratio = sampling / training
            worst = max(worst, ratio)
            print(f"{recipe:<10}{name:<10}{sampling:>12.3f}{training:>10.3f}{ratio:>8.1%}")
    print(f"worst {worst:.1%}, limit {arguments.limit:.0%}")
    return 0 if worst <= arguments.limit else 1


if __name__ == "__main__":
    sys.exit(main())
