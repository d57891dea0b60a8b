"""The curves of the page as pure functions of predictions and labels.

Arrays are float64 NumPy, so that sums over many examples keep their digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from extracurricular.evaluation.metrics import ECE_BINS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """A reliability diagram; bins without examples are left out.

    Args:
        confidence: Mean probability of the predicted class in each bin, [K].
        accuracy: Share of right predictions in each bin, [K].
        count: Examples in each bin, [K].
    """

    confidence: Array
    accuracy: Array
    count: NDArray[np.int64]

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1] (Naeini, Cooper and Hauskrecht 2015)."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((gaps * self.count).sum() / self.count.sum())


def reliability(confidence: Array, right: Array, bins: int = ECE_BINS) -> Bins:
    """Sort predictions into bins of equal width by their confidence.

    Args:
        confidence: Probability of the predicted class, [N], in [0, 1].
        right: 1 where that class is right, else 0, [N].
        bins: Number of bins; the default is that of the calibration error in the table.
    """
    # A confidence on an edge belongs to the bin above it, and 1 to the last.
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    kept = count > 0
    sums = [np.bincount(place, weights=v, minlength=bins)[kept] for v in (confidence, right)]
    return Bins(sums[0] / count[kept], sums[1] / count[kept], count[kept])


def risk_coverage(confidence: Array, loss: Array, coverage: Array) -> Array:
    """Return the mean loss of the most confident examples, for shares of all examples.

    It is the selective risk of El-Yaniv and Wiener 2010. Examples of equal confidence share their
    mean loss, so that their order does not matter.

    Args:
        confidence: Any score that is higher for surer predictions, [N].
        loss: Loss of each example, [N]; 0 or 1 for classes.
        coverage: Shares in (0, 1], [K]; each is rounded up to whole examples.
    """
    _, tie, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    shared = np.bincount(tie, weights=loss) / count
    kept = np.ceil(coverage * len(loss) - 1e-9).astype(np.int64).clip(1)
    return np.asarray(np.repeat(shared, count).cumsum()[kept - 1] / kept)


def interval_coverage(z: Array, masses: Sequence[float]) -> Array:
    """Return the share of targets inside the central intervals of Gaussian predictions.

    Args:
        z: Errors divided by the predicted deviation, any shape.
        masses: Probability that each interval should hold, in (0, 1), [K].
    """
    halves = np.array([NormalDist().inv_cdf(0.5 + mass / 2) for mass in masses])
    ordered = np.sort(np.abs(z), axis=None)
    return np.asarray(np.searchsorted(ordered, halves, side="right") / ordered.size)


def error_by_deviation(deviation: Array, error: Array, bins: int = 10) -> tuple[Array, Array]:
    """Return predicted deviation and true error in bins of equally many predictions.

    Both are root mean squares, so that they are equal for a calibrated prediction (Levi et al.
    2022, section 3).

    Args:
        deviation: Predicted standard deviations, [N].
        error: Errors in the same units, [N].
        bins: Number of bins; fewer where there are fewer predictions.
    """
    order = np.argsort(deviation, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    roots = [[np.sqrt(np.square(v[part]).mean()) for part in parts] for v in (deviation, error)]
    return np.array(roots[0]), np.array(roots[1])


def mean_by_rank(score: Array, values: Array, bins: int = 10) -> Array:
    """Return the mean of values in groups of equal size, in the order of a score, [bins].

    Args:
        score: Values are sorted by it, from low to high, [N].
        values: Numbers, [N].
        bins: Number of groups; fewer where there are fewer values.
    """
    parts = np.array_split(np.argsort(score, kind="stable"), min(bins, len(score)))
    return np.array([values[part].mean() for part in parts])


def log_histogram(values: Array, edges: Array) -> Array:
    """Return the share of values in each bin, [K - 1]; the outer bins take values beyond the edges.

    Args:
        values: Numbers of at least 0, [N].
        edges: Bounds of the bins, rising, greater than 0, [K].
    """
    inside = np.clip(values, edges[0], edges[-1])
    return np.asarray(np.histogram(inside, bins=edges)[0] / max(1, len(values)))


def log_edges(values: Array, bins: int = 32, decades: float = 6.0) -> Array:
    """Return edges of bins of equal width on a logarithmic axis, [bins + 1].

    Args:
        values: Numbers of at least 0; the largest is the upper end.
        bins: Number of bins.
        decades: Largest number of powers of ten to show.
    """
    # Edges below 1e-300 would run together.
    positive = values[np.isfinite(values) & (values > 1e-300)]
    high = np.log10(positive.max()) if len(positive) else 0.0
    low = np.log10(np.quantile(positive, 0.005)) if len(positive) else -1.0
    low = min(max(low, high - decades), high - 0.5)
    return np.asarray(np.logspace(low, high, bins + 1))


def confusion(predicted: NDArray[np.int64], y: NDArray[np.int64], classes: int) -> Array:
    """Return the counts of true (row) by predicted class (column), [C, C]."""
    counts = np.bincount(y * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.float64)


@dataclass(frozen=True)
class Band:
    """A curve over seeds.

    Args:
        x: Positions, [K].
        mean: Mean over seeds, [K].
        low, high: Lowest and highest value over seeds, [K].
    """

    x: Array
    mean: Array
    low: Array
    high: Array


def band(curves: Sequence[tuple[Array, Array]]) -> Band:
    """Combine the curves (x, y) of several seeds over the range that all of them cover.

    A curve without a value at an x of the first curve is interpolated there.
    """
    first = curves[0][0]
    end = min(x[-1] for x, _ in curves)
    start = max(x[0] for x, _ in curves)
    x = first[(first >= start) & (first <= end)]
    y = np.stack([np.interp(x, *curve) for curve in curves])
    return Band(x, y.mean(0), y.min(0), y.max(0))
