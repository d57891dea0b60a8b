"""The figures of the trainings: loss, validation error, mastery, share of extended draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from extracurricular.evaluation.advice import MASTERED, NOT_YET
from extracurricular.report.collect import Report
from extracurricular.report.curves import Band
from extracurricular.report.figures import Axis, Guides, Line, chart, percent
from extracurricular.report.sections import Figure, error_words, legend, over_seeds, roles
from extracurricular.training.mastery import HIGH, LOW, UNTIL


def learning(report: Report) -> Iterator[Figure]:
    """Yield the learning curves."""
    yield from _loss(report)
    yield from _validation(report)


def mastery(report: Report) -> Iterator[Figure]:
    """Yield the curves of mastery, and of the share of extended draws."""
    yield from _mastery(report)
    yield from _mismatch(report)
    yield from _shares(report)


def _loss(report: Report) -> Iterator[Figure]:
    losses = report.curves.losses
    if losses:
        log = all(bool((b.low > 0).all()) for b in losses.values())
        yield Figure(
            "Loss in training",
            chart(
                "loss",
                f"Loss of {', '.join(losses)} by step of training.",
                _lines(report, losses),
                Axis("step", form=_count),
                Axis("loss as trained", log=log),
            ),
            legend(report, losses),
            "Compare shapes, not heights: each student has its own loss, from labels or from the "
            "teacher, at its own temperature and on its own examples. "
            f"{over_seeds(report)}",
        )


def _validation(report: Report) -> Iterator[Figure]:
    validation = report.curves.validation
    if validation:
        yield Figure(
            "Error on the validation split",
            chart(
                "validation",
                f"Validation error of {', '.join(validation)} by step of training.",
                _lines(report, validation),
                Axis("step", form=_count),
                Axis(error_words(report).label),
            ),
            legend(report, validation),
            f"It decides nothing: every student is used as it is at its last step. "
            f"{over_seeds(report)}",
        )


def _mastery(report: Report) -> Iterator[Figure]:
    curves = report.curves
    if not curves.mastery:
        return
    follows = [name for name in curves.mastery if name in curves.follows]
    watched = [name for name in curves.mastery if name not in curves.follows]
    low = min(float(b.low.min()) for b in curves.mastery.values())
    ends = ", ".join(f"{name} {b.mean[-1] + 0.0:.2f}" for name, b in curves.mastery.items())
    text = ""
    if follows:
        text = (
            f"Where m less its standard error is up to {LOW:g}, {_and(follows)} draws stored "
            f"examples alone, from {HIGH:g} on (dashed) extended ones alone. The rule "
            f"ends after {100 * UNTIL:.0f} % of the steps. "
        )
    if watched:
        text += (
            f"For {_and(watched)}: above {MASTERED:g} extended draws would very likely help, below "
            f"{NOT_YET:g} hardly{'' if follows else ' (dashed)'}. "
        )
    yield Figure(
        "Mastery of the stored examples",
        chart(
            "mastery",
            f"Mastery m by step of training; at its last measurement: {ends}.",
            _lines(report, curves.mastery),
            _steps(report, curves.mastery),
            Axis("mastery m", limits=(min(-0.02, low - 0.03), 1.0)),
            Guides(y=(LOW, HIGH) if follows else (NOT_YET, MASTERED)),
        ),
        legend(report, curves.mastery),
        text + over_seeds(report),
    )


def _mismatch(report: Report) -> Iterator[Figure]:
    curves = report.curves
    both = [name for name in curves.held_out if name in curves.drawn]
    if not both:
        return
    bands = [curves.held_out[name] for name in both] + [curves.drawn[name] for name in both]
    log = all(bool((b.low > 0).all()) for b in bands)
    ends = ", ".join(
        f"{name} {curves.drawn[name].mean[-1]:.2g} and {curves.held_out[name].mean[-1]:.2g}"
        for name in both
    )
    drawn = {name: curves.drawn[name] for name in both}
    yield Figure(
        "Examples drawn and kept out",
        chart(
            "mismatch",
            f"KL from the teacher on drawn and held-out examples, in nats, at the end: {ends}.",
            [
                *_lines(report, {name: curves.held_out[name] for name in both}),
                *_lines(report, drawn, "dotted"),
            ],
            _steps(report, drawn),
            Axis("KL to the teacher, nats", log=log),
        ),
        legend(report, drawn),
        "The two parts of m: solid on examples kept out of the draws, dotted on examples drawn. "
        "Where the dotted line leaves the solid one, the student learns the stored examples "
        f"themselves. {over_seeds(report)}",
    )


def _shares(report: Report) -> Iterator[Figure]:
    curves = report.curves
    if not curves.shares:
        return
    ends = ", ".join(f"{name} {100 * b.mean[-1]:.0f} %" for name, b in curves.shares.items())
    follows = [name for name in curves.shares if name in curves.follows]
    how = f"That of {_and(follows)} follows mastery, and then stays. " if follows else ""
    yield Figure(
        "Draws beyond the stored examples",
        chart(
            "shares",
            f"Share of extended draws by step of training; in the end: {ends}.",
            _lines(report, curves.shares),
            _steps(report, curves.shares),
            Axis("share of extended draws, %", limits=(-0.02, 1.03), form=percent),
        ),
        legend(report, curves.shares),
        f"The share of the draws that are extended, not stored examples. {how}"
        f"In the end: {ends}. {over_seeds(report)}",
    )


def _steps(report: Report, names: Iterable[str]) -> Axis:
    """Return the axis of the steps of some students, from the first to the last."""
    last = max(report.curves.steps.get(name, 1) for name in names)
    return Axis("step", limits=(0, last), form=_count)


def _count(value: float) -> str:
    return f"{value:,.0f}".replace("-", "−")


def _lines(report: Report, curves: Mapping[str, Band], style: str = "line") -> list[Line]:
    colour = roles(report)
    if style != "line":
        return [Line(colour[n], b.x, b.mean, style=style) for n, b in curves.items()]
    return [Line(colour[n], b.x, b.mean, b.low, b.high) for n, b in curves.items()]


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
