"""Draw several candidates and keep one on which the teacher is unsure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.distributions import Distribution, Task, concatenate, mixture
from extracurricular.errors import known_names
from extracurricular.inputs import (
    Batch,
    Inputs,
    batch_size,
    fixed_batches,
    is_static,
    obstacle,
)
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, announce, check_child
from extracurricular.samplers.moving import Moving, at, extremes, mean
from extracurricular.samplers.scores import SCORES, needs

# Candidates that the teacher is asked about at once, always as many. Twice as many gain a tenth
# with small networks, and would mostly be zeros where draws are made one step at a time.
_ASKED = 128


@dataclass(frozen=True)
class Choice:
    """The result of :meth:`Uncertain.choose`.

    Args:
        batch: The chosen examples.
        index: Number of the chosen candidate, int64, [B]: 0 for the plain draw.
        prediction: The teacher's distribution on the chosen examples.
    """

    batch: Batch
    index: Tensor
    prediction: Distribution


@dataclass(frozen=True)
class Uncertain(Seeded):
    """Draw several candidates and keep the one with the highest teacher uncertainty.

    Candidate 0 of draw ``id`` is the child's draw ``id``; the other candidates have ids derived
    from it. A share of the draws stays plain (candidate 0, unscored), so that the student still
    sees common examples. The teacher is asked ``candidates · (1 - plain_share) + plain_share``
    times as often as without the choice.

    Args:
        child: The sampler that draws the candidates.
        teacher: The teacher whose uncertainty counts.
        score: Name of the score: ``entropy``, ``margin``, ``mutual_information``,
            ``predictive_variance``, ``epistemic_variance``, ``divergence``, or ``module:function``.
        candidates: Draws to choose from, c, at least 1.
        tau: None to keep the most uncertain candidate; else one is drawn with probability
            proportional to exp(score / tau), tau > 0 in units of the score.
        plain_share: Share of draws that stay plain, in [0, 1]; it may move over the training.
        student: For scores that compare with the student (``divergence``): a network that maps
            inputs to raw outputs. Such a sampler is not pure (see ``pure``).
        task: How the student's raw outputs are read.
        seed: Seed of candidates and choices.
    """

    child: Sampler
    teacher: Any
    score: str = "entropy"
    candidates: int = 4
    tau: float | None = None
    plain_share: float | Moving = field(default=0.1, metadata={"recorded_as": "plain"})
    student: nn.Module | None = None
    task: Task | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_child(self.child)
        if self.candidates < 1:
            raise ValueError(f"candidates is {self.candidates}; it must be at least 1")
        if self.tau is not None and not 0 < self.tau < math.inf:
            raise ValueError(f"tau is {self.tau}; it must be finite and greater than 0, or null")
        if not all(0 <= value <= 1 for value in extremes(self.plain_share)):
            raise ValueError(f"plain_share is {self.plain_share}; it must be between 0 and 1")
        if ":" not in self.score and self.score not in SCORES:
            raise ValueError(
                f"score is {self.score!r}, which is unknown; "
                f"{known_names(self.score, SCORES.names())}"
            )
        needed = needs(self._score)
        if "members" in needed and not hasattr(self.teacher, "members"):
            raise ValueError(
                f"score is {self.score!r}, which needs a teacher of several members, but the "
                "teacher is a single network; use an ensemble (teacher.members) or MC dropout, "
                "or a score such as 'entropy'"
            )
        if "student" in needed and (self.student is None or self.task is None):
            raise ValueError(f"score is {self.score!r}, which needs the student in training")

    @cached_property
    def _children(self) -> list[object]:
        # Teacher and student can be called too, but are no samplers.
        return [self.child]

    @property
    def _score(self) -> Callable[..., Tensor]:
        return SCORES.find(self.score, key="score")[0]

    @property
    def pure(self) -> bool:
        """Whether draws depend on their ids alone; they do unless the score asks the student."""
        return "student" not in needs(self._score) and super().pure

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the draws, as a clause; None if it can."""
        own = [self._score] if ":" in self.score else []
        return next(filter(None, map(obstacle, [self.child, self.teacher, *own])), None)

    @property
    def asks(self) -> float:
        """How many times a teacher is asked for one draw, on average."""
        plain = mean(self.plain_share)
        drawn = self.candidates * (1 - plain) + plain
        return drawn * (1 + getattr(self.child, "asks", 0.0))

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        return self.choose(ids).batch

    def choose(self, ids: Tensor) -> Choice:
        """Draw examples; return them with the chosen candidates and the teacher's answers.

        In the masked selection all draws have all candidates scored, plain ones too.
        """
        if is_static(ids) and self.capturable:
            return self._choose_masked(ids)
        count = len(ids)
        scored, inner = self._candidates(ids)
        drawn = self.child(inner)
        prediction, scores = self._ask(drawn)
        place = torch.cat([scored, torch.arange(count, len(drawn), device=ids.device)])
        table = scores[place].view(self.candidates, len(scored))
        best = self._noisy(table, ids[scored]).argmax(0)
        index = torch.zeros_like(ids)
        index[scored] = best
        rows = torch.arange(count, device=ids.device)
        rows[scored] = place.view(self.candidates, -1).gather(0, best[None]).squeeze(0)
        return _chosen(ids, drawn, prediction, index, rows)

    def _choose_masked(self, ids: Tensor) -> Choice:
        others = [self._derived(ids, k) for k in range(1, self.candidates)]
        drawn = self.child(torch.cat([ids, *others]))
        prediction, scores = self._ask(drawn)
        table = self._noisy(scores.view(self.candidates, len(ids)), ids)
        index = table.argmax(0).masked_fill_(self._plain(ids), 0)
        rows = torch.arange(len(ids), device=ids.device) + index * len(ids)
        return _chosen(ids, drawn, prediction, index, rows)

    def _noisy(self, table: Tensor, ids: Tensor) -> Tensor:
        """Return the scores [c, B] plus the noise of the choice, if there is any."""
        if self.tau is None:
            return table
        # The largest of score/tau + Gumbel noise is a draw from softmax(score/tau).
        noise = rng.uniform(self.seed, ids, self.stream("choice"), (self.candidates,))
        return table / self.tau - torch.log(-torch.log(noise.T.double()))

    def _plain(self, ids: Tensor) -> Tensor:
        return rng.uniform(self.seed, ids, self.stream("plain")) < at(self.plain_share, ids)

    def _derived(self, ids: Tensor, k: int) -> Tensor:
        return self.derived(self.seed, ids, f"candidate.{k}")

    def announce(self, ids: Tensor) -> None:
        """Prepare for draws with these ids, which come soon."""
        announce(self.child, self._candidates(ids)[1])

    def _candidates(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places of the draws that choose, and the child's ids of all candidates.

        The ids are candidate 0 of every draw, then candidates 1 … c-1 of the draws that choose.
        """
        scored = (~self._plain(ids)).nonzero().squeeze(1)
        some = ids[scored]
        others = [self._derived(some, k) for k in range(1, self.candidates)]
        return scored, torch.cat([ids, *others])

    def replay(self, ids: Tensor, index: Tensor) -> Batch:
        """Draw the candidates ``index`` [B] that were chosen for ``ids`` before.

        The teacher is not asked, so a record of the choices gives the same examples without it.
        """
        batch = self.child(self.chosen(ids, index))
        return replace(batch, ids=ids)

    def announce_replay(self, ids: Tensor, index: Tensor) -> None:
        """Prepare for a :meth:`replay` of these draws, which comes soon."""
        announce(self.child, self.chosen(ids, index))

    def chosen(self, ids: Tensor, index: Tensor) -> Tensor:
        """Return the child's ids of the candidates ``index`` [B]."""
        inner = ids.clone()
        for k in range(1, self.candidates):
            inner = torch.where(index == k, self._derived(ids, k), inner)
        return inner

    @torch.no_grad()
    def _ask(self, drawn: Batch) -> tuple[Distribution, Tensor]:
        """Return the teacher's distribution and the scores of all candidates."""
        score, needed = self._score, needs(self._score)
        predictions: list[Distribution] = []
        scores: list[Tensor] = []
        for x, true in fixed_batches(drawn.x, _ASKED):
            zeros = drawn.ids.new_zeros(batch_size(x))
            rows = Batch(zeros, x, None, drawn.classes, binary=drawn.binary)
            given: dict[str, Any] = {}
            if "members" in needed:
                given["members"] = self.teacher.members(rows)
                given["prediction"] = mixture(given["members"])
            else:
                given["prediction"] = self.teacher(rows)
            if "student" in needed:
                given["student"] = self._student(x)
            predictions.append(given["prediction"][:true])
            scores.append(score(**{k: given[k] for k in needed})[:true].double())
        # A NaN wins, so that it is not passed over; the loop then names the draw at fault.
        values = torch.cat(scores).nan_to_num(nan=math.inf)
        return concatenate(predictions), values

    def _student(self, x: Inputs) -> Distribution:
        assert self.student is not None
        assert self.task is not None
        training = self.student.training
        self.student.eval()
        try:
            return self.task.distribution(self.student(x))
        finally:
            self.student.train(training)


def _chosen(
    ids: Tensor, drawn: Batch, prediction: Distribution, index: Tensor, rows: Tensor
) -> Choice:
    batch = drawn[rows]
    return Choice(replace(batch, ids=ids), index, prediction[rows])


@SAMPLERS.register("uncertain")
def uncertain(
    child: Sampler,
    data: Data,
    teacher: Any,
    student: nn.Module | None,
    score: str = "entropy",
    candidates: int = 4,
    tau: float | None = None,
    plain_share: float | Moving = 0.1,
    seed: int = 0,
) -> Uncertain:
    """Make :class:`Uncertain` from the settings of a recipe."""
    if teacher is None:
        raise ValueError("asks a trained teacher, but here there is none yet")
    return Uncertain(
        child,
        teacher,
        score=score,
        candidates=candidates,
        tau=tau,
        plain_share=plain_share,
        student=student if "student" in needs(SCORES.find(score, key="score")[0]) else None,
        task=data.task,
        seed=seed,
    )
