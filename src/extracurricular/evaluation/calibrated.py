"""What a calibration is worth: figures of calibrated answers beside those from before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from extracurricular.distributions import (
    Bernoulli,
    Calibration,
    Categorical,
    Conformal,
    Distribution,
    Filed,
    Gaussian,
)
from extracurricular.evaluation.labels import flat_pairs
from extracurricular.evaluation.metrics import coverage, ece, sharpness
from extracurricular.evaluation.words import ABSENT
from extracurricular.inputs import hard_labels

MASS = 0.9
"""The coverage of intervals of a student whose calibration states none."""

_TITLES = {
    "coverage": "coverage",
    "width": "width",
    "size": "a set has",
    "empty": "empty",
    "nll": "NLL",
    "ece": "ECE",
}
_SHARES = ("coverage", "empty", "ece")


def calibration_figures(
    calibration: Calibration, said: Distribution, y: Tensor
) -> dict[str, float]:
    """Return figures of calibrated answers, and of the same answers from before, on N examples.

    Args:
        calibration: The calibration.
        said: The calibrated answers.
        y: Labels, in the units of the answers.

    Returns:
        ``nll`` and, of classes and labels, ``ece``, where distributions were changed. Of real
        targets ``coverage`` of intervals and their mean ``width`` in units of the target; of
        classes, where they have sets, ``coverage`` of these, their mean ``size``, and the share
        ``empty``. Each has another, ``before``: of plain central intervals, or of plain sets, which
        have the most probable classes up to the coverage.
    """
    before = calibration.undone(said)
    found: dict[str, float] = {}
    if calibration.changes:
        found |= _beside("nll", float(said.nll(y).mean()), float(before.nll(y).mean()))
    conformal = calibration.conformal
    if isinstance(said, Gaussian):
        assert isinstance(before, Gaussian)
        mass = MASS if conformal is None else conformal.coverage
        held, width = interval_figures(said, y, mass, conformal)
        found |= _beside("coverage", held, coverage(before, y, mass))
        return found | _beside("width", width, sharpness(before, mass))
    if calibration.changes:
        found |= _beside("ece", _ece(said, y), _ece(before, y))
    if conformal is not None and isinstance(said, Categorical):
        assert isinstance(before, Categorical)
        own = set_figures(said, y, conformal)
        plain = set_figures(before, y, conformal.coverage)
        for name, value in own.items():
            found |= _beside(name, value, plain[name])
    return found


def interval_figures(
    said: Gaussian, y: Tensor, mass: float, conformal: Conformal | None = None
) -> tuple[float, float]:
    """Return coverage and mean width of intervals: conformal ones, else the central ones."""
    if conformal is None:
        return coverage(said, y, mass), sharpness(said, mass)
    low, high = conformal.bounds(said)
    return float(((y >= low) & (y <= high)).float().mean()), float((high - low).mean())


def set_figures(said: Categorical, y: Tensor, of: Conformal | float) -> dict[str, float]:
    """Return coverage, mean size and share of empty ones of sets.

    Args:
        said: Answers on N examples.
        y: Labels of classes.
        of: The conformal sets; or a number, for plain sets that have the most probable classes
            until their probabilities sum to that.
    """
    label = hard_labels(y).long()

    def look(part: Categorical, rows: slice) -> Tensor:
        inside = of.contains(part) if isinstance(of, Conformal) else plain_sets(part, of)
        own = inside.gather(1, label[rows, None])[:, 0]
        return torch.stack([own.float(), inside.sum(1).float()], 1)

    each = said.each(look) if isinstance(said, Filed) else look(said, slice(None))
    held, size = each.double().unbind(1)
    return {
        "coverage": float(held.mean()),
        "size": float(size.mean()),
        "empty": float((size == 0).double().mean()),
    }


def plain_sets(said: Categorical, mass: float) -> Tensor:
    """Return whether each class is among the most probable ones that sum to ``mass``, [B, C]."""
    ordered, place = said.probs.double().sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(before, dtype=torch.bool).scatter_(1, place, before < mass)


def _ece(said: Distribution, y: Tensor) -> float:
    if isinstance(said, Bernoulli):
        return ece(*flat_pairs(said, y))
    assert isinstance(said, Categorical)
    return ece(said, hard_labels(y))


def _beside(name: str, value: float, before: float) -> dict[str, float]:
    return {name: value, f"{name}_before": before}


# In words


def calibration_sentences(summary: Mapping[str, Any], students: Iterable[str]) -> list[str]:
    """Return a sentence on the teacher and on each of these students, if they are calibrated."""
    split = summary["recipe"]["evaluation"]["split"]
    entries = {"the teacher": summary.get("teacher", {})}
    entries |= {name: summary["students"][name] for name in students}
    found = {name: entry.get("calibration") for name, entry in entries.items()}
    return [calibration_sentence(name, one, split) for name, one in found.items() if one]


def calibration_sentence(name: str, entry: Mapping[str, Any], split: str) -> str:
    """Return a sentence on a calibrated model, by its entry in a summary."""
    count = entry["fitted"][0]["examples"]
    numbers = f"{count:,} validation examples ({fitted(entry)})"
    return f"{name} is calibrated on {numbers}: {_effect(entry, split)}."


def fitted(entry: Mapping[str, Any]) -> str:
    """Return the fitted numbers of the first seed in words: "variance × 2.3, 90 % intervals"."""
    several = len(entry["fitted"])
    return _numbers(entry) + (f"; first of {several} seeds" if several > 1 else "")


def _numbers(entry: Mapping[str, Any]) -> str:
    first = Calibration.load(entry["fitted"][0])
    parts = []
    if first.temperature is not None:
        parts.append(f"temperature {first.temperature:.3g}")
    if first.variance is not None:
        parts.append(f"variance × {_listed(first.variance)}")
    conformal = first.conformal
    if conformal is not None and conformal.deviations is not None:
        parts.append(f"{percent(conformal.coverage)} intervals ± {_listed(conformal.deviations)} σ")
    elif conformal is not None:
        parts.append(f"{percent(conformal.coverage)} sets, p ≥ {conformal.least:.3g}")
    return ", ".join(parts)


def _listed(values: tuple[float, ...]) -> str:
    shown = [f"{value:.3g}" for value in values[:3]]
    return "/".join(shown) + ("/…" if len(values) > len(shown) else "")


def _effect(entry: Mapping[str, Any], split: str) -> str:
    figures = entry["figures"]
    if "coverage" in figures:
        stated = Calibration.load(entry["fitted"][0]).conformal
        mass = MASS if stated is None else stated.coverage
        held, before = (_text(figures, name) for name in ("coverage", "coverage_before"))
        if "size" in figures:
            what = f"sets hold the class of {held} of the examples of the {split} split"
        else:
            what = f"intervals hold {held} of the targets of the {split} split"
        return f"its {percent(mass)} {what}, and plain ones held {before} before"
    return (
        f"NLL {_text(figures, 'nll')} on the {split} split, {_text(figures, 'nll_before')} before; "
        f"ECE {_text(figures, 'ece')}, {_text(figures, 'ece_before')} before"
    )


def stated_sentence(figures: Mapping[str, Any], split: str) -> str:
    """Return a sentence on intervals or sets of a stated coverage, as ``xcl evaluate`` has them."""
    stated = figures["stated"]
    mass = percent(stated["mean"] if isinstance(stated, Mapping) else stated)
    size = f"mean width {_text(figures, 'width')}" if "width" in figures else ""
    if "size" in figures:
        size = f"{_text(figures, 'size')} classes on average, {_text(figures, 'empty')} are empty"
    plain = "intervals" if "width" in figures else "sets"
    return (
        f"Calibrated {plain} of {mass} hold {_text(figures, 'coverage')} of the {split} split "
        f"({size}); plain ones hold {_text(figures, 'coverage_before')}."
    )


def percent(value: float) -> str:
    """Write a coverage: 90 %, 99.5 %."""
    return f"{100 * value:.4g} %"


def _text(figures: Mapping[str, Any], name: str) -> str:
    """Write a figure over seeds, or a single one."""
    found = figures[name]
    value = found["mean"] if isinstance(found, Mapping) else found
    if value is None:
        return "not finite"
    if name.removesuffix("_before") in _SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:.3g}"


def calibration_rows(entries: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the table of calibrated models; no rows where none is.

    A cell has a figure from before and after, as "99.4 → 94.0 %". The first seed tells what was
    fitted.

    Args:
        entries: The teacher and the students of a summary, by name.
    """
    found = {
        name: entry["calibration"] for name, entry in entries.items() if "calibration" in entry
    }
    names = [n for n in _TITLES if any(n in one["figures"] for one in found.values())]
    headings = ["", "fitted", *(_TITLES[name] for name in names)]

    def cell(figures: Mapping[str, Any], name: str) -> str:
        if name not in figures:
            return ABSENT
        before = _text(figures, f"{name}_before").removesuffix(" %")
        return f"{before} → {_text(figures, name)}"

    rows = [
        [model, _numbers(one), *(cell(one["figures"], name) for name in names)]
        for model, one in found.items()
    ]
    return headings, rows
