"""The figures of the page, each with the sentence that says how to read it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from extracurricular.evaluation.entries import measure_of, seed_errors
from extracurricular.evaluation.summary import Parts
from extracurricular.evaluation.words import WORDS, Words, amount_text
from extracurricular.report.collect import Answers, Report, pooled
from extracurricular.report.curves import (
    band,
    error_by_deviation,
    interval_coverage,
    log_edges,
    log_histogram,
    mean_by_rank,
    reliability,
    risk_coverage,
)
from extracurricular.report.figures import (
    Axis,
    Guides,
    Line,
    Row,
    chart,
    dots,
    percent,
    short_count,
)

# One hopeless student must not squeeze the others into a corner of the figure of gaps.
_GAP_ENDS = (-100.0, 250.0)
_MASSES = np.arange(0.05, 0.96, 0.05).round(2)
_COVERAGE = np.linspace(0.02, 1, 50)
# A share of fewer examples than this is noise.
_FEWEST = 20


@dataclass(frozen=True)
class Figure:
    """A figure with its title, legend and explanation.

    Args:
        title: What it shows.
        svg: The picture, an ``svg`` element.
        legend: Roles of colours and whose they are.
        text: How to read it.
    """

    title: str
    svg: str
    legend: list[tuple[str, str]]
    text: str


def roles(report: Report) -> dict[str, str]:
    """Return the colour of each student, the same in all figures.

    The plain student and the reference have colours of their own.
    """
    parts = Parts.of(report.summary)
    own = {parts.plain: "s0", parts.reference: "s1"}
    fixed = {name: own[name] for name in report.shown if name in own}
    taken = set(fixed.values())
    free = (role for role in ("s2", "s3", "s4", "s5", "s0", "s1") if role not in taken)
    for name in report.shown:
        fixed[name] = fixed.get(name) or next(free)
    return {name: fixed.get(name, "other") for name in report.summary["students"]}


def over_seeds(report: Report, what: str = "Curves") -> str:
    """Return a sentence on the seeds behind curves or points."""
    count = len(report.summary["seeds"])
    if count < 2:
        return "One seed."
    return f"{what} are means over {count} seeds, with their lowest and highest."


# -- error, gap and cost --------------------------------------------------------------------------


def overview(report: Report) -> Iterator[Figure]:
    """Yield the figures that stand beside the table."""
    yield from _gap(report)
    yield from _costs(report)


def _gap(report: Report) -> Iterator[Figure]:
    rows, colour = [], roles(report)
    reference = Parts.of(report.summary).reference
    for name, entry in report.summary["students"].items():
        gap = entry["gap_closed"]
        if gap is not None and name != reference:
            low, high = (None if v is None else 100 * v for v in gap["ci95"])
            value = 100 * gap["value"]
            if len(report.summary["seeds"]) < 2:
                low = high = value  # a single seed has no interval to draw
            rows.append(Row(name, colour[name], value, low, high))
    if not rows:
        return
    values = ", ".join(f"{row.name} {row.value:.0f} %" for row in rows)
    known = [v for r in rows for v in (r.value, r.low, r.high) if v is not None] + [0.0, 100.0]
    low, high = max(min(known), _GAP_ENDS[0]), min(max(known), _GAP_ENDS[1])
    beyond = (low, high) != (min(known), max(known))
    cut = " What lies beyond an edge is drawn there." if beyond else ""

    def inside(value: float | None) -> float | None:
        return None if value is None else min(max(value, low), high)

    rows = [
        replace(r, value=min(max(r.value, low), high), low=inside(r.low), high=inside(r.high))
        for r in rows
    ]
    limits = (low - 6, high + 6)
    yield Figure(
        "How much of the gap is closed",
        dots(
            "gap",
            f"Part of the gap between {reference} and the teacher that each student closes: "
            f"{values}.",
            rows,
            Axis("gap closed, %", limits=limits),
            Guides(x=(0, 100)),
        ),
        [],
        f"At 0 % a student is as good as {reference}, at 100 % as good as the teacher. Bars are "
        "95 % bootstrap intervals over seeds. They are too narrow: they know nothing of other "
        f"data, and with few seeds little of other seeds.{cut}",
    )


def _costs(report: Report) -> Iterator[Figure]:
    summary, latency = report.summary, report.latency
    entries = {"": summary["teacher"], **summary["students"]}
    colour = {"": "teacher", **roles(report)}
    parameters = {name: entry["parameters"] for name, entry in entries.items()}
    milliseconds = {
        name: None if "1" not in times else 1e3 * times["1"]
        for name, times in {"": latency["teacher"], **latency["students"]}.items()
    }
    spent = {name: entry.get("multiply_adds") for name, entry in entries.items() if name}
    error = error_words(report)
    measure = measure_of(summary)
    errors = {k: [error.scale * v for v in seed_errors(e, measure)] for k, e in entries.items()}
    colours = _legend(report, others=True)
    threads = latency["threads"]
    where = f"one thread of {latency['cpu']}" if threads == 1 else f"{threads} threads"
    for key, title, values, axis, text in (
        (
            "parameters",
            "Error against size",
            parameters,
            Axis("parameters", log=True, form=short_count),
            "Lower and further left is better. Equal sizes stand side by side.",
        ),
        (
            "latency",
            "Error against time for an answer",
            milliseconds,
            Axis("milliseconds for one example", log=True),
            f"The median time for a single example on {where}, measured when this page was first "
            "made; a small network is mostly overhead there. Equal times stand side by side.",
        ),
        (
            "spent",
            "Error against cost of training",
            spent,
            Axis("multiply-adds of a training", log=True, form=amount_text),
            "Three passes of the student for each draw, and those of the teacher that it asked. "
            "Students one above the other are compared at equal cost.",
        ),
    ):
        known = {n: v for n, v in values.items() if v is not None and len(errors[n])}
        if not known:
            continue
        place = _beside(known)
        lines = [
            Line(
                colour[name],
                np.array([place[name]]),
                np.array([statistics.fmean(errors[name])]),
                np.array([min(errors[name])]),
                np.array([max(errors[name])]),
                style="dots",
            )
            for name in known
        ]
        low, high = min(place.values()), max(place.values())
        limits = (low / 1.6, high * 1.6)
        told = ", ".join(
            f"{name or 'teacher'} {statistics.fmean(errors[name]):.3g} at {value:.3g}"
            for name, value in known.items()
        )
        yield Figure(
            title,
            chart(key, f"{title}: {told}.", lines, Axis(axis.label, True, limits, axis.form),
                  Axis(error.label)),
            [entry for entry in colours if "" in known or entry[0] != "teacher"],
            f"{text} {over_seeds(report, 'Points')}",
        )  # fmt: skip


def _beside(values: dict[str, float]) -> dict[str, float]:
    """Move points of equal value apart, on a logarithmic axis, by the width of a dot."""
    low, high = min(values.values()), max(values.values())
    groups: dict[float, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    # They must not be so far apart that it looks like a difference.
    pixel = (high / low * 2.6) ** (1 / 280)
    return {
        name: value * pixel ** (min(8, 36 / len(names)) * (k - (len(names) - 1) / 2))
        for value, names in groups.items()
        for k, name in enumerate(names)
    }


def error_words(report: Report) -> Words:
    """Return the words for the error that gaps are measured in."""
    return WORDS[measure_of(report.summary)]


# -- calibration ----------------------------------------------------------------------------------


def calibration(report: Report) -> Iterator[Figure]:
    """Yield the figures on whether predictions are as sure as they should be."""
    if report.summary["task"] != "regression":
        yield _reliability(report)
        yield _risk(report)
    else:
        yield _intervals(report)
        yield _deviations(report)


def _each(report: Report) -> list[tuple[str, str, Answers]]:
    """Return name, colour and answers of students and teacher; the teacher is last, so on top."""
    colour = roles(report)
    students = [(name, colour[name], report.students[name]) for name in report.shown]
    known = bool(report.teacher_entropy)
    return [*students, *([("teacher", "teacher", report.teacher)] if known else [])]


def _reliability(report: Report) -> Figure:
    lines, told = [], []
    for name, role, answers in _each(report):
        bins = reliability(pooled(answers.confidence), pooled(answers.right))
        whole = bins.count.sum()
        kept = bins.count >= min(_FEWEST, whole / 30)
        size = 12 + 110 * bins.count[kept] / whole
        x, y = bins.confidence[kept], bins.accuracy[kept]
        lines.append(Line(role, x, y, style="both", size=size))
        told.append(f"{name} {100 * bins.ece:.1f} %")
    return Figure(
        "Are sure answers right?",
        chart(
            "reliability",
            f"Reliability diagram. Calibration error of all seeds together: {', '.join(told)}.",
            lines,
            Axis("confidence, %", limits=(0, 1.03), form=percent),
            Axis("right, %", limits=(0, 1.05), form=percent),
            Guides(diagonal=True),
        ),
        _legend(report),
        "On the diagonal a confidence of 80 % is right 80 times in 100; below it, answers are too "
        f"sure. Large dots stand for many examples; fewer than {_FEWEST} have none. All "
        "seeds together. "
        "Calibration error is no proper score: a useless prediction can have none, so read it with "
        f"the NLL.{_pairs(report)}",
    )


def _risk(report: Report) -> Figure:
    lines, told = [], []
    for name, role, answers in _each(report):
        curves = [
            (_COVERAGE, 100 * risk_coverage(confidence, 1 - right, _COVERAGE))
            for confidence, right in zip(answers.confidence, answers.right, strict=True)
        ]
        found = band(curves)
        lines.append(Line(role, found.x, found.mean, found.low, found.high))
        half = float(np.interp(0.9, found.x, found.mean))
        told.append(f"{name} {half:.2g} %")
    return Figure(
        "Leaving unsure answers out",
        chart(
            "risk",
            f"Risk-coverage curves. Error on the surest 90 % of examples: {', '.join(told)}.",
            lines,
            Axis("coverage: share answered, surest first, %", limits=(0, 1.02), form=percent),
            Axis("error, %"),
        ),
        _legend(report),
        "Going left, only the surest answers are given. The lower a curve, the better confidence "
        f"tells right from wrong. {over_seeds(report)}{_pairs(report)}",
    )


def _pairs(report: Report) -> str:
    """Return a sentence on what counts as an answer, where an example has several labels."""
    if report.summary["task"] != "multilabel":
        return ""
    return " Each label of an example is an answer of its own."


def _intervals(report: Report) -> Figure:
    lines, told = [], []
    for name, role, answers in _each(report):
        found = band([(_MASSES, interval_coverage(z, _MASSES.tolist())) for z in answers.z])
        lines.append(Line(role, found.x, found.mean, found.low, found.high))
        told.append(f"{name} {100 * float(np.interp(0.9, found.x, found.mean)):.0f} %")
    return Figure(
        "Do intervals hold the truth?",
        chart(
            "intervals",
            f"Coverage of predictive intervals. Those of 90 % hold: {', '.join(told)}.",
            lines,
            Axis("interval should hold, %", limits=(0, 1), form=percent),
            Axis("it holds, %", limits=(0, 1), form=percent),
            Guides(diagonal=True),
        ),
        _legend(report),
        "On the diagonal, intervals that should hold 90 % of the targets do; below it, predictions "
        "are too sure. Counted over examples and targets alike. Wide enough intervals hold "
        f"everything, so read it with NLL and CRPS. {over_seeds(report)}",
    )


def _deviations(report: Report) -> Figure:
    lines: list[Line] = []
    for _, role, answers in _each(report):
        kept = pooled(answers.deviation), pooled(answers.error)
        groups = max(1, min(10, len(kept[0]) // _FEWEST))
        predicted, true = error_by_deviation(*kept, bins=groups)
        sound = (predicted > 0) & (true > 0) & np.isfinite(predicted * true)
        lines.append(Line(role, predicted[sound], true[sound], style="both"))
    unit = f", {report.unit}" if report.unit else ""
    ends = np.concatenate([v for line in lines for v in (line.x, line.y)])
    # Predictions that are too sure by orders of magnitude are at the edge; the others need room.
    high = float(ends.max()) * 1.4 if len(ends) else 1.0
    low = max(float(ends.min()) / 1.4, high / 3000) if len(ends) else 0.1
    return Figure(
        "Error against predicted deviation",
        chart(
            "deviations",
            "True error against predicted deviation, in groups of equally many predictions.",
            lines,
            Axis(f"predicted deviation{unit}", log=True, limits=(low, high)),
            Axis(f"error{unit}", log=True, limits=(low, high)),
            Guides(diagonal=True),
        ),
        _legend(report),
        "Each dot is a group of equally many predictions, the surest on the left. A rising curve "
        "knows where it errs; on the diagonal it knows by how much, and above it it is too sure. "
        "Roots of mean squares, all seeds together.",
    )


# -- fidelity -------------------------------------------------------------------------------------


def fidelity(report: Report) -> Iterator[Figure]:
    """Yield the figures on how near students are to the teacher."""
    colour, rows = roles(report), []
    for name, entry in report.summary["students"].items():
        values = entry["metrics"].get("agreement", {}).get("per_seed", [])
        known = [100 * v for v in values if v is not None]
        if known:
            rows.append(Row(name, colour[name], statistics.fmean(known), min(known), max(known)))
    if rows:
        how = {
            "classification": "Share of examples for which the student's most probable class is "
            "the teacher's",
            "regression": "Share of targets for which the student's mean lies in the teacher's "
            "90 % interval",
            "multilabel": "Share of labels that student and teacher both predict, or both do not",
        }[report.summary["task"]]
        told = ", ".join(f"{row.name} {row.value:.1f} %" for row in rows)
        yield Figure(
            "Agreement with the teacher",
            dots("agreement", f"{how}: {told}.", rows, Axis(WORDS["agreement"].label)),
            [],
            f"{how}, right or wrong. {over_seeds(report, 'Dots')}",
        )
    if not report.teacher_entropy:
        return
    found = {name: pooled(report.students[name].kl) for name in report.shown}
    edges = log_edges(pooled(list(found.values())), bins=20)
    lines = [
        Line(colour[name], edges, 100 * log_histogram(values, edges), style="steps")
        for name, values in found.items()
    ]
    told = ", ".join(f"{name} {np.median(values):.2g}" for name, values in found.items())
    yield Figure(
        "Divergence from the teacher",
        chart(
            "kl",
            f"Histogram of the KL divergence from the teacher. Medians in nats: {told}.",
            lines,
            Axis("KL to the teacher, nats", log=True, limits=(edges[0], edges[-1])),
            Axis("examples, %"),
        ),
        _legend(report, teacher=False),
        "How far the student's distribution is from the teacher's, example by example, all seeds "
        "together; further left is nearer, and what is nearer still is in the first bin. The axis "
        "is logarithmic: the mean in the table is made by the few examples on the right.",
    )
    yield _unsure(report)


def _unsure(report: Report) -> Figure:
    colour, log = roles(report), True
    lines, told = [], []
    for name in report.shown:
        parts = []
        for kl, entropy in zip(report.students[name].kl, report.teacher_entropy, strict=True):
            mean = mean_by_rank(entropy, kl)
            parts.append((np.arange(1.0, len(mean) + 1), mean))
        found = band(parts)
        lines.append(Line(colour[name], found.x, found.mean, found.low, found.high))
        log = log and bool((found.low > 0).all())
        told.append(f"{name} {found.mean[-1]:.2g}")
    return Figure(
        "Where the teacher is unsure",
        chart(
            "unsure",
            "Mean divergence from the teacher by tenths of its entropy. Where it is least sure, in "
            f"nats: {', '.join(told)}.",
            lines,
            Axis("tenth of examples, teacher surest first", ticks=(1, 4, 7, 10)),
            Axis("mean KL to the teacher", log=log),
        ),
        _legend(report, teacher=False),
        "Examples in the order of the teacher's entropy, cut into tenths. Those on the right carry "
        "most of what a distribution tells beyond a label. "
        f"{over_seeds(report)}",
    )


def legend(report: Report, names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the legend of a figure that has some of the students alone."""
    colour = roles(report)
    return [(colour[name], name) for name in names]


def _legend(report: Report, teacher: bool = True, others: bool = False) -> list[tuple[str, str]]:
    colour = roles(report)
    found = [("teacher", "teacher")] if teacher and report.teacher_entropy else []
    found += [(colour[name], name) for name in report.shown]
    rest = len(report.summary["students"]) - len(report.shown)
    return [*found, ("other", f"{rest} others")] if others and rest else found
