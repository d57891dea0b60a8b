"""Rank samplers by the teacher alone, before any student is trained.

Each sampler draws, the teacher answers, and four figures come of it:

- the *spread* of the teacher's mean probability (:func:`spread`; Wang et al. 2022);
- the mean entropy of the teacher's answers;
- the Fréchet distance between the draws and held-out examples in the teacher's features, measured
  as the quality of a generator is (:mod:`extracurricular.generators.quality`);
- the time that a draw and an answer take.

None of them needs a student, so none knows how long one trains, which decides what extended draws
are worth: ``docs/method.md`` compares the ranking with trained students.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from extracurricular.assess.candidates import Candidate
from extracurricular.data.base import Data
from extracurricular.distributions import Distribution, concatenate
from extracurricular.errors import RecipeError, XclError
from extracurricular.generators.quality import (
    MOST_REAL,
    Features,
    at_most,
    flat_features,
    frechet_distance,
    in_batches,
    teacher_features,
)
from extracurricular.inputs import Batch
from extracurricular.run.check import check
from extracurricular.run.execute import prepare
from extracurricular.run.expense import questions
from extracurricular.run.plan import Plan
from extracurricular.run.workspace import Workspace, sampler_seed
from extracurricular.samplers import Context, Sampler, is_pure
from extracurricular.samplers.base import announced
from extracurricular.samplers.build import requirements
from extracurricular.teachers import Teacher
from extracurricular.teachers.base import check_answer, on_draws
from extracurricular.teachers.order import first_network

SCHEMA = 1
GROUP = 64
"""Draws over which the teacher's answers are averaged, as a batch of a training is."""
LEAST = 2 * GROUP
"""Fewest draws by which a sampler can be ranked."""

# Draws at once, as a step of a training draws several batches at once.
_CHUNK = 256
# Ids so far apart lie in different epochs, so that the draws are independent. Those of one epoch of
# a small data set are not: each example comes once, and the mean of all of them never changes.
_APART = 2**31 - 1


@dataclass(frozen=True)
class Figures:
    """The figures of one sampler.

    Args:
        spread: Spread of the teacher's mean answer; see :func:`spread`.
        entropy: Mean entropy of the teacher's answers, in nats (of standardised targets).
        frechet: Fréchet distance between draws and held-out examples in the teacher's features;
            None where there are no held-out examples.
        draw_ms: Milliseconds that a draw takes.
        answer_ms: Milliseconds that an answer of the teacher takes.
        questions: How often a training asks the teacher for each draw.
    """

    spread: float
    entropy: float
    frechet: float | None
    draw_ms: float
    answer_ms: float
    questions: float


@dataclass(frozen=True)
class Ranked:
    """One sampler, its figures, and some of its draws.

    Args:
        candidate: The sampler.
        figures: Its figures.
        draws: Its first draws.
        answers: The teacher's answers on these.
    """

    candidate: Candidate
    figures: Figures
    draws: Batch
    answers: Distribution


@dataclass(frozen=True)
class Ranking:
    """The samplers of a recipe, lowest spread first.

    Args:
        data: The data set.
        count: Draws by which each was ranked.
        seed: Seed of the recipe, whose teacher was asked.
        held_out: Number of held-out examples; 0 where there are none.
        ranked: The samplers that could be ranked.
        skipped: The reason why another could not, by its name.
    """

    data: Data
    count: int
    seed: int
    held_out: int
    ranked: tuple[Ranked, ...]
    skipped: dict[str, str]

    def plain(self) -> dict[str, Any]:
        """Return the ranking as plain values."""
        return {
            "schema": SCHEMA,
            "data": self.data.name,
            "seed": self.seed,
            "count": self.count,
            "group": GROUP,
            "held_out": self.held_out,
            "samplers": [
                {
                    "name": one.candidate.name,
                    "students": list(one.candidate.students),
                    "sampler": one.candidate.chain,
                    **asdict(one.figures),
                }
                for one in self.ranked
            ],
            "skipped": self.skipped,
        }


def spread(means: Tensor, group: int = GROUP) -> float:
    """Return the spread of the teacher's mean probability over groups of draws.

    The answers are averaged over each group of consecutive draws. The standard deviation of these
    means over the groups, averaged over the classes, is the "stddev of teacher's mean probability"
    (Wang, Lohit, Jones and Fu, "What Makes a 'Good' Data Augmentation in Knowledge Distillation –
    A Statistical Perspective", NeurIPS 2022), as the authors' published code computes it
    (``helper/loops.py``); a lower one is better by their account. For real targets the same of the
    predicted means is our choice. It falls as one over the square root of the group's size, so
    only spreads of the same size compare.

    Args:
        means: Probabilities [N, C], or predicted means [N, D], in the order of the draws.
        group: Number of draws in a group; a last group that is not full is left out.

    Raises:
        ValueError: There are fewer than two full groups.
    """
    groups = len(means) // group
    if groups < 2:
        raise ValueError(f"{len(means)} draws are less than two groups of {group}")
    whole = means[: groups * group].double().view(groups, group, -1)
    return float(whole.mean(1).std(0).mean())


@torch.no_grad()
def look(
    sampler: Sampler,
    teacher: Teacher,
    features: Features,
    held_out: Tensor | None,
    ids: Tensor,
) -> tuple[Figures, Batch, Distribution]:
    """Draw, ask the teacher, and return the figures with the first draws and the answers on them.

    Args:
        sampler: The sampler.
        teacher: The trained teacher.
        features: Maps network inputs to features.
        held_out: Features of held-out examples, [M, F]; None if there are none.
        ids: Draw ids, at least :data:`LEAST` of them.

    Raises:
        XclError: The teacher gave NaN or infinity.
    """
    chunks = torch.split(ids, _CHUNK)
    teacher = on_draws(teacher, sampler)
    teacher(sampler(chunks[0]).taught)  # the first call sets much up
    first: Batch | None = None
    answers, seen, drawing, answering = [], [], [], []
    for some in announced(sampler, chunks, 1):
        started = _now(ids.device)
        batch = sampler(some)
        drawn = _now(ids.device)
        answer = teacher(batch.taught)
        done = _now(ids.device)
        check_answer(answer, some)
        drawing.append((drawn - started) / len(some))
        answering.append((done - drawn) / len(some))
        answers.append(answer)
        if held_out is not None:
            seen.append(in_batches(features, batch.x))
        first = first or batch
    assert first is not None
    found = concatenate(answers)
    figures = Figures(
        spread=spread(found.mean.float()),
        entropy=float(found.entropy().double().mean()),
        frechet=None if held_out is None else frechet_distance(torch.cat(seen), held_out),
        draw_ms=1000 * statistics.median(drawing),
        answer_ms=1000 * statistics.median(answering),
        questions=questions(sampler, "teacher"),
    )
    return figures, first, answers[0]


def rank(
    workspace: Workspace,
    whole: Plan,
    choose: Callable[[Data], Sequence[Candidate]],
    count: int = 4096,
    tell: Callable[[str], None] | None = None,
) -> Ranking:
    """Rank samplers by the teacher of a recipe's first seed.

    The teacher is trained first if that is not done, and so are the generators that are drawn
    from. Mistakes show before.

    Args:
        workspace: The workspace of the run that has the teacher, or gets it.
        whole: The run's stages.
        choose: Returns the samplers that fit the data.
        count: Draws of each, at least :data:`LEAST`.
        tell: Called with the name of each sampler as it is looked at.

    Raises:
        XclError: The recipe cannot be run, or a sampler cannot be built.
    """
    if count < LEAST:
        raise RecipeError("--count", f"is {count}; the spread needs at least {LEAST} draws")
    recipe = whole.recipe
    seed = recipe.seeds[0]
    checks = check(whole, workspace)
    data, plan = workspace.data_of(seed), whole.teachers[seed]
    student = whole.students[next(iter(recipe.students)), seed].untrained(workspace)
    student = student.to(workspace.device)
    preview = Context(
        checks.teacher or plan.preview(workspace), student, checks.generators, _APART * count
    )
    chosen = choose(data)
    for one in chosen:
        _built(one, workspace, data, seed, preview)
    used = {name for one in chosen for name in requirements(one.chain).generators}
    fitted = {name: stage for name, stage in whole.generators[seed].items() if name in used}
    prepare([*plan.stages, *fitted.values()], workspace)
    teacher = workspace.made(plan)
    made = {name: workspace.made(stage) for name, stage in fitted.items()}
    context = Context(teacher, student, made, _APART * count)
    network = first_network(teacher)
    features = flat_features if network is None else teacher_features(network)
    held = at_most(data.validation, MOST_REAL) if len(data.validation) > 1 else None
    ranked, skipped = [], {}
    ids = _APART * torch.arange(count, device=data.device)
    with workspace.exact():
        known = None if held is None else in_batches(features, data.inputs(held.x))
        for one in chosen:
            sampler = _built(one, workspace, data, seed, context)
            if not is_pure(sampler):
                skipped[one.name] = "its draws depend on the student in training"
                continue
            if tell is not None:
                tell(one.name)
            ranked.append(Ranked(one, *look(sampler, teacher, features, known, ids)))
    ranked.sort(key=lambda one: one.figures.spread)
    return Ranking(data, count, seed, 0 if held is None else len(held), tuple(ranked), skipped)


def _built(
    candidate: Candidate, workspace: Workspace, data: Data, seed: int, context: Context
) -> Sampler:
    """Return a candidate's sampler once it has drawn."""
    key = candidate.key
    sampler = workspace.sampler(candidate.chain, data, sampler_seed(seed), key, context)
    try:
        sampler(torch.arange(2, device=data.device))
    except XclError:
        raise
    except ValueError as error:
        raise RecipeError(key, str(error)) from error
    return sampler


def _now(device: torch.device) -> float:
    """Return the time in seconds once the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
