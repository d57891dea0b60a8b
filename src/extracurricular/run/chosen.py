"""A student that is chosen among candidates: successive halving by held-out KL.

All candidates are trained to a part of their steps; then the worse half stops, and so on, and the
best one is trained to the end. They are compared by KL(teacher ‖ student) on training examples that
none of them draws before the choice: no label and no test example takes part. (Successive halving:
Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
optimization", AISTATS.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from extracurricular.errors import RecipeError
from extracurricular.files import Checkpoints, read_json, write_json
from extracurricular.run.network import NetworkStage, keep_network, train_network
from extracurricular.run.stages import Checks, Price, begun
from extracurricular.run.workspace import Workspace, sampler_seed
from extracurricular.samplers import Sampler
from extracurricular.training.mastery import (
    HELD_OUT,
    held_out_rows,
    known,
    mismatch,
    stride,
)

_RESULTS = "choice.json"


@dataclass(frozen=True)
class ChosenStage(NetworkStage):
    """The training of a student whose draws or loss are chosen among candidates.

    Args:
        candidates: A stage for each, below the folder of this one, by name.
        after: The parts of the training after which the worse half stops, rising, in (0, 1).
    """

    candidates: tuple[tuple[str, NetworkStage], ...] = ()
    after: tuple[float, ...] = (0.5,)

    @property
    def steps(self) -> int:
        """Steps of all candidates together."""
        total, begun_at, count = 0, 0, len(self.candidates)
        for stop, kept in self.rounds:
            total += count * (stop - begun_at)
            begun_at, count = stop, kept
        return total + self.training.steps - begun_at

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """The step at which each round ends, and how many candidates go on from there."""
        every, count, found = stride(self.training.steps), len(self.candidates), []
        for place, part in enumerate(self.after):
            # A step at which held-out examples may come back to the draws.
            stop = max(every, round(part * self.training.steps / every) * every)
            last = place == len(self.after) - 1
            count = 1 if last else math.ceil(count / 2)
            found.append((min(stop, self.training.steps - 1), count))
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on but the content of the data, as plain values."""
        among = {
            name: {"sampler": stage.sampler, "matching": stage.matching}
            for name, stage in self.candidates
        }
        return {**super().settings, "choose": {"after": list(self.after), "among": among}}

    def chosen(self, workspace: Workspace) -> NetworkStage:
        """Return the candidate that was chosen; the first where none is yet."""
        name = workspace.record(self.path).get("chosen") if self.is_done(workspace) else None
        return dict(self.candidates).get(str(name), self.candidates[0][1])

    def draws(
        self, workspace: Workspace, student: nn.Module | None = None, seed: int | None = None
    ) -> Sampler:
        """Return the sampler of the candidate that was chosen."""
        return self.chosen(workspace).draws(workspace, student, seed)

    # -- doing ------------------------------------------------------------------------------------

    def do(self, workspace: Workspace) -> None:
        """Train the candidates, choose, and train the best one to the end."""
        if self.is_done(workspace):
            return
        with begun(workspace, self) as outcome:
            alive, spent, seconds = dict(self.candidates), 0, 0.0
            results = _Results(workspace.folder / self.path / _RESULTS)
            reached = 0
            for stop, kept in self.rounds:
                for name, stage in alive.items():
                    if results.find(stop, name) is None:
                        results.keep(stop, name, self._judge(stage, workspace, stop, spent))
                    spent += stop - reached
                order = sorted(alive, key=lambda name: results.value(stop, name))
                alive, reached = {name: alive[name] for name in order[:kept]}, stop
            [(name, best)] = alive.items()
            student, result = train_network(
                best, workspace, self._advance(workspace, spent - reached), self.rounds[-1][0]
            )
            outcome |= keep_network(self, workspace, student, result)
            seconds = results.seconds() + result.seconds
            outcome |= {"chosen": name, "steps": self.steps, "seconds": round(seconds, 3)}
            outcome["held_out_kl"] = results.plain()
        for _, stage in self.candidates:
            Checkpoints(workspace.folder / stage.path).clear()
        workspace.watcher.tell(f"{self.title}: chose {name} by held-out KL ({self._told(results)})")

    def _judge(
        self, stage: NetworkStage, workspace: Workspace, stop: int, spent: int
    ) -> tuple[float, float]:
        """Train a candidate up to a step; return its held-out KL in nats, and its seconds."""
        until = self.rounds[-1][0]
        advance = self._advance(workspace, spent)
        student, result = train_network(stage, workspace, advance, until, stop)
        data = workspace.data(self.data)
        assert self.teacher is not None
        teacher, seed = workspace.made(self.teacher), sampler_seed(self.seed)
        out, _ = held_out_rows(len(data.train), HELD_OUT, seed)
        with torch.no_grad():
            asked = known(data, out, teacher, workspace.fabric)
            kl = mismatch(asked, student.eval(), data.task, workspace.fabric)
        return kl, result.seconds

    def _advance(self, workspace: Workspace, spent: int) -> Any:
        return lambda step, loss: workspace.watcher.advance(self.title, spent + step, loss)

    def _told(self, results: _Results) -> str:
        stop = self.rounds[-1][0]
        values = {name: results.find(stop, name) for name, _ in self.candidates}
        told = [f"{name} {found[0]:.4g}" for name, found in values.items() if found is not None]
        return f"at step {stop:,}: {', '.join(told)} nats"

    # -- checking ---------------------------------------------------------------------------------

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Check each candidate as a student of its own."""
        if self.learns_from == "labels":
            raise RecipeError(
                f"{self.key}.choose", "compares students with a teacher, but they learn from labels"
            )
        for _, stage in self.candidates:
            stage.check(workspace, checks)

    def price(self, workspace: Workspace, checks: Checks) -> Price:
        """Return the cost of all candidates."""
        size = self.training.batch_size
        prices = [stage.price(workspace, checks) for _, stage in self.candidates]
        part = self.steps / (self.training.steps * len(prices))
        asked = round(part * sum(price.questions for price in prices))
        return replace(prices[0], steps=self.steps, draws=self.steps * size, questions=asked)


class _Results:
    """The held-out KL of candidates at the end of each round, kept in a file.

    Args:
        file: The file; what it holds is taken over, so that a choice is made once.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        found = read_json(file) if file.is_file() else {}
        self._kept: dict[str, dict[str, list[float]]] = found if isinstance(found, dict) else {}

    def keep(self, stop: int, name: str, result: tuple[float, float]) -> None:
        """Keep the KL of a candidate at a step, and the seconds of its training up to there."""
        self._kept.setdefault(str(stop), {})[name] = list(result)
        write_json(self.file, self._kept)

    def find(self, stop: int, name: str) -> list[float] | None:
        """Return KL and seconds of a candidate at a step; None where it was not measured."""
        return self._kept.get(str(stop), {}).get(name)

    def value(self, stop: int, name: str) -> float:
        """Return the KL of a candidate at a step."""
        found = self.find(stop, name)
        return math.inf if found is None or math.isnan(found[0]) else found[0]

    def seconds(self) -> float:
        """Return the seconds of the candidates that were stopped."""
        longest: dict[str, float] = {}
        for part in self._kept.values():
            for name, (_, seconds) in part.items():
                longest[name] = max(longest.get(name, 0.0), seconds)
        last = self._kept[max(self._kept, key=int)]
        best = min(last, key=lambda name: last[name][0])
        return sum(seconds for name, seconds in longest.items() if name != best)

    def plain(self) -> dict[str, dict[str, float]]:
        """Return the KL of each candidate by step and name."""
        return {
            stop: {name: round(found[0], 6) for name, found in part.items()}
            for stop, part in self._kept.items()
        }


def chosen_stage(stage: NetworkStage, choose: Any, generators: Mapping[str, Any]) -> ChosenStage:
    """Return the stage of a student that is chosen.

    Args:
        stage: The student as it would be without a choice.
        choose: The section ``choose`` of the recipe.
        generators: The generators of the student's seed, by name.
    """
    candidates = []
    for name, given in choose.among.items():
        candidates.append(
            (
                name,
                replace(
                    stage,
                    path=f"{stage.path}/{name}",
                    title=f"{stage.title}, {name}",
                    key=f"{stage.key}.choose.among.{name}",
                    sampler=stage.sampler if given.sampler is None else given.sampler,
                    matching={**stage.matching, **given.matching},
                    generators=tuple(generators.values()),
                    held_out=HELD_OUT,
                ),
            )
        )
    own = {name: getattr(stage, name) for name in NetworkStage.__dataclass_fields__}
    own["held_out"] = HELD_OUT
    return ChosenStage(**own, candidates=tuple(candidates), after=tuple(choose.after))
