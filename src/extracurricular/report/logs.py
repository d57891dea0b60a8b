"""The curves of the page that come from the logs of the students' trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from extracurricular.errors import StorageError
from extracurricular.evaluation.entries import measure_of
from extracurricular.evaluation.metrics import error_of
from extracurricular.evaluation.words import BALANCED, WORDS
from extracurricular.files import read_lines
from extracurricular.matching.course import Course, read_course
from extracurricular.registry import split_spec
from extracurricular.report.curves import Array, Band, band
from extracurricular.run.chosen import ChosenStage
from extracurricular.run.estimator import EstimatorStage
from extracurricular.run.finished import Finished
from extracurricular.run.network import NetworkStage
from extracurricular.run.stages import LOG
from extracurricular.samplers.build import AUTO

# Points of a share that the recipe sets, which are enough for any of its forms.
_POINTS = 201


@dataclass(frozen=True)
class Curves:
    """Curves over the steps of a training, by student; a student without one is left out.

    Args:
        steps: Steps of the training of each student; of a candidate alone, if it was chosen.
        losses: Training loss.
        validation: Validation error, where it was measured.
        mastery: Mastery of the stored examples, where it was measured.
        drawn, held_out: Mean KL from the teacher in nats on examples that the student draws, and on
            those kept out.
        shares: Share of extended draws, where it changes.
        follows: The students whose share follows their mastery.
        damaged: A sentence for each log that is not as it was written, whose curves are missing.
    """

    steps: dict[str, int] = field(default_factory=dict)
    losses: dict[str, Band] = field(default_factory=dict)
    validation: dict[str, Band] = field(default_factory=dict)
    mastery: dict[str, Band] = field(default_factory=dict)
    drawn: dict[str, Band] = field(default_factory=dict)
    held_out: dict[str, Band] = field(default_factory=dict)
    shares: dict[str, Band] = field(default_factory=dict)
    follows: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


def curves_of(finished: Finished, shown: Sequence[str]) -> Curves:
    """Read the curves of some students from the logs of a run."""
    damaged: list[str] = []
    trained = [name for name in shown if not _is_fitted(finished, name)]
    logs = {name: _Log.all(finished, name, damaged) for name in trained}

    def bands(value: Callable[[dict[str, Any]], float | None]) -> dict[str, Band]:
        found = {}
        for name, seeds in logs.items():
            curves = [curve for log in seeds if (curve := log.curve(value)) is not None]
            if curves:
                found[name] = band(curves)
        return found

    def measured(key: str) -> dict[str, Band]:
        return bands(lambda line: (line.get("mastery") or {}).get(key))

    errors = partial(_validation_error, measure_of(finished.summary))
    shares = {}
    for name, seeds in logs.items():
        curves = [curve for log in seeds if (curve := log.share()) is not None]
        if len(curves) == len(seeds):
            shares[name] = band(curves)
    return Curves(
        steps={name: seeds[0].steps for name, seeds in logs.items()},
        losses=bands(lambda line: line.get("loss")),
        # A candidate is evaluated where it is judged, which makes no curve.
        validation={n: b for n, b in bands(errors).items() if logs[n][0].evaluated},
        mastery=measured("mastery"),
        drawn=measured("drawn"),
        held_out=measured("held_out"),
        shares=shares,
        follows=tuple(name for name, seeds in logs.items() if all(s.of == AUTO for s in seeds)),
        damaged=tuple(damaged),
    )


@dataclass(frozen=True)
class Choice:
    """A choice among candidates, over all seeds.

    Args:
        student: The student that was chosen.
        stops: The steps after which candidates were judged.
        steps: Steps of a whole training, and of all candidates together.
        rows: For each candidate its name, the mean held-out KL in nats at each stop (None where it
            had been stopped in every seed), and the number of seeds in which it was chosen.
    """

    student: str
    stops: list[int]
    steps: tuple[int, int]
    rows: list[tuple[str, list[float | None], int]]


def choices_of(finished: Finished) -> list[Choice]:
    """Return the choices of a run, in the order of the students."""
    found = []
    for name in finished.students:
        stages = [finished.stage(name, seed) for seed in finished.recipe.seeds]
        stage = stages[0]
        if not isinstance(stage, ChosenStage):
            continue
        records = [finished.workspace.record(one.path) for one in stages]
        stops = [stop for stop, _ in stage.halving.rounds]
        rows = []
        for candidate, _ in stage.candidates:
            values = [_mean_at(records, str(stop), candidate) for stop in stops]
            count = sum(record.get("chosen") == candidate for record in records)
            rows.append((candidate, values, count))
        steps = (stage.training.steps, stage.steps)
        found.append(Choice(name, stops, steps, rows))
    return found


def _mean_at(records: Sequence[dict[str, Any]], stop: str, name: str) -> float | None:
    known = [record.get("held_out_kl", {}).get(stop, {}).get(name) for record in records]
    values = [value for value in known if value is not None]
    return fmean(values) if values else None


@dataclass(frozen=True)
class _Log:
    """The log of one student and seed: that of the candidate that it became, if it was chosen."""

    lines: list[dict[str, Any]]
    steps: int
    evaluated: bool
    of: Any

    @classmethod
    def all(cls, finished: Finished, name: str, damaged: list[str]) -> list[_Log]:
        found = []
        for seed in finished.recipe.seeds:
            whole = finished.stage(name, seed)
            stage = _trained(finished, whole)
            try:
                lines = _lines(finished, whole, stage)
            except StorageError as error:
                damaged.append(str(error))
                lines = []
            known = [line for line in lines if "step" in line]
            training = stage.training
            evaluated = training.evaluate_every > 0
            found.append(cls(known, training.steps, evaluated, _share_of(stage.sampler)))
        return found

    def curve(self, value: Callable[[dict[str, Any]], float | None]) -> tuple[Array, Array] | None:
        """Return the values by step; None where there are fewer than two."""
        points = [(line["step"], value(line)) for line in self.lines]
        known = [(step, v) for step, v in points if v is not None and np.isfinite(v)]
        if len(known) < 2:
            return None
        pair = np.array(known, dtype=np.float64).T
        return pair[0], pair[1]

    def share(self) -> tuple[Array, Array] | None:
        """Return the share of extended draws by step; None where it is constant, or unknown."""
        if self.of == AUTO:
            return share_curve(self.lines, self.steps)
        try:
            course = read_course(self.of, 0, 1)
        except ValueError:
            return None
        if not isinstance(course, Course):
            return None
        done = np.linspace(0, 1, _POINTS)
        return done * self.steps, np.array([course.value(float(part)) for part in done])


def share_curve(lines: Sequence[dict[str, Any]], steps: int) -> tuple[Array, Array] | None:
    """Return a share that follows mastery, by step: steps at the lines that measured it.

    Args:
        lines: The lines of a log.
        steps: Steps of the training.

    Returns:
        Steps and shares from 0 to the end; None where it was never measured.
    """
    x, y = [0.0], [0.0]
    for line in lines:
        share = (line.get("mastery") or {}).get("share")
        if share is not None:
            # The share holds from the next step on.
            x += [line["step"], line["step"] + 1]
            y += [y[-1], share]
    if len(x) == 1:
        return None
    return np.array([*x, max(steps, x[-1])], dtype=np.float64), np.array([*y, y[-1]])


def _is_fitted(finished: Finished, name: str) -> bool:
    """Return whether a student is an estimator, which has no steps and so no curves."""
    return isinstance(finished.stage(name, finished.recipe.seeds[0]), EstimatorStage)


def _trained(finished: Finished, stage: NetworkStage) -> NetworkStage:
    if not isinstance(stage, ChosenStage):
        return stage
    return stage.chosen(finished.workspace)


def _lines(finished: Finished, whole: NetworkStage, stage: NetworkStage) -> list[dict[str, Any]]:
    """Read the log of a training, which may be that of a candidate of the whole stage."""
    file = Path(stage.path) / LOG
    name = file.relative_to(whole.path).as_posix()
    checksum = finished.workspace.checksum(whole.path, name)
    return read_lines(finished.folder / file, checksum)


def _share_of(chain: Any) -> Any:
    """Return the setting ``of`` of a share; None for a chain that is none."""
    specs = chain if isinstance(chain, list) else [chain]
    name, given = split_spec(specs[0], "sampler", "") if specs else ("", {})
    return given.get("of", AUTO) if name == "share" else None


def _validation_error(measure: str, line: dict[str, Any]) -> float | None:
    figures = line.get("evaluation")
    # Logs from before the balanced accuracy was measured have no such error.
    if not figures or (measure == BALANCED and "balanced_accuracy" not in figures):
        return None
    return WORDS[measure].scale * error_of(figures, measure)
