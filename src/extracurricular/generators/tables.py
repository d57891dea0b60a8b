"""Generators of vectors and tables: a mixture of Gaussians, and a kernel density estimate.

Both split a row into real numbers and choices among values
(:mod:`extracurricular.generators.columns`), so that columns of integers, of categories and of
one-hot groups stay valid. Both give raw values without labels, which the teacher gives.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.generators.base import GENERATORS, Fit, FitContext, Generator, stand_in
from extracurricular.generators.columns import (
    Columns,
    Rows,
    check_columns,
    find_columns,
    structured,
    training_rows,
)
from extracurricular.inputs import Inputs, leaves

_ROUNDS = 200
_TOLERANCE = 1e-4  # of the mean log-likelihood, in nats
_MOST_COMPONENTS = 64
_ROWS_PER_COMPONENT = 20
# Each component gets this many extra rows with the frequencies of the whole table, so that no value
# is impossible in it.
_PRIOR_ROWS = 0.01
_FOLDS = 5
_ROWS_FOR_BANDWIDTH = 2000


@dataclass(frozen=True, kw_only=True)
class _Table(Fit):
    """Settings that generators of tables share; see :func:`find_columns`."""

    columns: dict[str, str] = field(default_factory=dict)
    most_categories: int = 12
    atom: float = 0.2
    widen: float = 0.1

    def __post_init__(self) -> None:
        """Check the settings."""
        check_columns(self.columns)
        if self.most_categories < 1:
            raise ValueError(f"most_categories is {self.most_categories}; it must be at least 1")
        if not 0 < self.atom <= 1:
            raise ValueError(f"atom is {self.atom}; it must be a share in (0, 1]")
        if not 0 <= self.widen < math.inf:
            raise ValueError(f"widen is {self.widen}; it must be at least 0")

    def _find(self, data: Data, name: str) -> tuple[Columns, Rows]:
        return find_columns(
            training_rows(data, name),
            self.columns,
            most_categories=self.most_categories,
            atom=self.atom,
            widen=self.widen,
        )


@GENERATORS.register("gmm")
@dataclass(frozen=True, kw_only=True)
class Mixture(_Table):
    """A mixture of Gaussians, with categories.

    Given its component, a row's numbers are Gaussian with a full covariance, and its categories
    are independent of them and of each other. So it is a mixture of Gaussians where all columns are
    real, and the latent class model where none is (Hunt and Jorgensen 2003, "Mixture model
    clustering for mixed data with missing information"). Expectation-maximisation fits all of it
    from k-means, so that categories help to find the components.

    Args:
        components: Number of components; None for the one of 1, 2, 4, ... 64 with the least
            Bayesian information criterion (Schwarz 1978), with at least twenty rows for each.
        covariance_floor: Variance added to each component, in units of the variance of the column,
            so that none collapses to a point.
        columns: Kinds of columns, ``real``, ``integer`` or ``category``, by the position of the
            column ("0" is the first; several inputs count on); found for the others.
        most_categories: Most values of a column that is found to be a category.
        atom: Share of the rows that gives a single value of a real or integer column, such as 0, a
            probability of its own; 1 for never.
        widen: How far reals may go beyond the training rows, as a part of their range; never past
            0 unless a training row does.

    Raises:
        ValueError: A setting is out of its range.
    """

    components: int | None = None
    covariance_floor: float = 1e-3

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.components is not None and self.components < 1:
            raise ValueError(f"components is {self.components}; it must be at least 1")
        if not 0 < self.covariance_floor < math.inf:
            raise ValueError(
                f"covariance_floor is {self.covariance_floor}; it must be greater than 0"
            )

    def preview(self, data: Data) -> Generator:
        """Check the settings against the data, and repeat a training row.

        Raises:
            ValueError: As :meth:`fit`.
        """
        columns, _ = self._apart(data)
        uniforms = 1 + len(columns.sizes)
        return stand_in(data, uniforms + len(columns.numeric), uniforms=uniforms)

    def _fit(self, context: FitContext) -> dict[str, Tensor]:
        """Fit to the training rows, on the CPU; the loss is the mean negative log-likelihood.

        Raises:
            ValueError: The data have images, ``columns`` does not go with them, or there are more
                components than different rows.
        """
        columns, rows = self._apart(context.data)
        shift, scale = _standard(rows.numbers)
        rows = replace(rows, numbers=(rows.numbers - shift) / scale)
        fits = partial(_expectation_maximisation, rows, self.covariance_floor, context.seed)
        if self.components is None:
            enough = max(1, len(rows.numbers) // _ROWS_PER_COMPONENT)
            most = min(_MOST_COMPONENTS, _different(rows), enough)
            best = _least_bic((fits(2**k) for k in range(most.bit_length())), rows)
        else:
            best = fits(self.components)
        context.tell(1, -best.likelihood)
        # In raw units, so that a draw is one affine map.
        return columns.state() | {
            "weights": _cumulative(best.weights),
            "means": (best.means * scale + shift).float(),
            "factors": (best.factors * scale[:, None]).float().contiguous(),
            "tables": _cumulative(rows.padded(best.tables.T)),
        }

    def load(self, state: dict[str, Tensor], data: Data) -> Generator:
        """Make the generator, on the device of the data."""
        like, state = _prepared(state, data)
        function = _DrawMixture(
            Columns.of(state),
            like,
            state["weights"],
            state["means"],
            state["factors"].unbind(2),
            state["tables"],
        )
        uniforms = 1 + state["tables"].shape[1]
        latent = uniforms + state["means"].shape[1]
        return Generator(function, latent, uniforms, conditional=False)

    def _apart(self, data: Data) -> tuple[Columns, Rows]:
        columns, rows = self._find(data, "gmm")
        if self.components is not None and self.components > _different(rows):
            raise ValueError(
                f"components is {self.components}; it may be at most {_different(rows)}, the "
                f"number of different training rows of data {data.name!r}"
            )
        return columns, rows


@GENERATORS.register("kde")
@dataclass(frozen=True, kw_only=True)
class Kernel(_Table):
    """A kernel density estimate, which draws a training row and adds noise to it.

    Real and integer columns get Gaussian noise, but a value that is an atom stays. A category also
    stays, except that with probability ``resample`` it is drawn anew from its frequencies. This
    follows the kernel of Aitchison and Aitken (1976, "Multivariate binary discrimination by the
    kernel method"), in which all other values are equally likely.

    Args:
        bandwidth: Deviation of the noise, in units of the deviation of the column; None for the
            multiple of Scott's rule (1992) with the greatest likelihood in cross-validation.
        resample: Probability that a category or a one-hot group is drawn anew.
        columns: Kinds of columns, ``real``, ``integer`` or ``category``, by the position of the
            column ("0" is the first; several inputs count on); found for the others.
        most_categories: Most values of a column that is found to be a category.
        atom: Share of the rows that gives a single value of a real or integer column, such as 0, a
            probability of its own; 1 for never.
        widen: How far reals may go beyond the training rows, as a part of their range; never past
            0 unless a training row does.

    Raises:
        ValueError: A setting is out of its range.
    """

    bandwidth: float | None = None
    resample: float = 0.1

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.bandwidth is not None and not 0 < self.bandwidth < math.inf:
            raise ValueError(f"bandwidth is {self.bandwidth}; it must be greater than 0")
        if not 0 <= self.resample <= 1:
            raise ValueError(f"resample is {self.resample}; it must be a probability in [0, 1]")

    def preview(self, data: Data) -> Generator:
        """Check the settings against the data, and repeat a training row.

        Raises:
            ValueError: As :meth:`fit`.
        """
        columns, _ = self._find(data, "kde")
        uniforms = 1 + 2 * len(columns.sizes)
        return stand_in(data, uniforms + len(columns.numeric), uniforms=uniforms)

    def _fit(self, context: FitContext) -> dict[str, Tensor]:
        """Keep the training rows and choose the bandwidth; the loss is 0, as nothing is minimised.

        Raises:
            ValueError: The data have images, or ``columns`` does not go with them.
        """
        columns, rows = self._find(context.data, "kde")
        shift, scale = _standard(rows.numbers)
        numbers = (rows.numbers - shift) / scale
        bandwidth = self.bandwidth or _choose_bandwidth(numbers, context.seed)
        context.tell(1, 0.0)
        return columns.state() | {
            "numbers": rows.numbers.float(),
            "codes": rows.codes,
            "spread": (scale * bandwidth).float(),
            "resample": torch.where(columns.atoms, 0.0, self.resample),
            "tables": _cumulative(rows.padded(rows.frequencies()[None])[0]),
        }

    def load(self, state: dict[str, Tensor], data: Data) -> Generator:
        """Make the generator, on the device of the data."""
        like, state = _prepared(state, data)
        names = ("numbers", "codes", "spread", "resample", "tables")
        function = _DrawKernel(Columns.of(state), like, *(state[name] for name in names))
        uniforms = 1 + 2 * state["codes"].shape[1]
        latent = uniforms + state["numbers"].shape[1]
        return Generator(function, latent, uniforms, conditional=False)


# Drawing uses only elementwise operations and gathers, so that a row does not depend on its batch:
# a matrix product may add up in another order when the batch has another shape.


@dataclass(frozen=True)
class _DrawMixture:
    columns: Columns
    like: Inputs
    weights: Tensor  # [K], cumulative
    means: Tensor  # [K, d]
    factors: tuple[Tensor, ...]  # d columns of the Cholesky factors, each [K, d]
    tables: Tensor  # [K, V, L], cumulative

    def __call__(self, latent: Tensor, condition: Tensor) -> Inputs:
        component = _pick(latent[:, 0], self.weights)
        variables = self.tables.shape[1]
        codes = _pick(latent[:, 1 : 1 + variables], self.tables[component])
        numbers = self.means[component]
        for j, factor in enumerate(self.factors):
            normal = latent[:, 1 + variables + j].unsqueeze(1)
            numbers = numbers + factor[component] * normal
        return structured(self.columns.join(numbers, codes), self.like)


@dataclass(frozen=True)
class _DrawKernel:
    columns: Columns
    like: Inputs
    numbers: Tensor  # [N, d]
    codes: Tensor  # [N, V]
    spread: Tensor  # [d]
    resample: Tensor  # [V]
    tables: Tensor  # [V, L], cumulative

    def __call__(self, latent: Tensor, condition: Tensor) -> Inputs:
        count, variables = self.codes.shape
        # The product may round up to the number of rows.
        row = (latent[:, 0] * count).long().clamp(max=count - 1)
        anew = latent[:, 1 : 1 + variables] < self.resample
        drawn = _pick(latent[:, 1 + variables : 1 + 2 * variables], self.tables)
        codes = torch.where(anew, drawn, self.codes[row])
        numbers = self.numbers[row] + latent[:, 1 + 2 * variables :] * self.spread
        return structured(self.columns.join(numbers, codes), self.like)


def _pick(uniform: Tensor, cumulative: Tensor) -> Tensor:
    """Pick among L alternatives by their cumulative probabilities [..., L]; int64, [B, ...]."""
    return (uniform.unsqueeze(-1) >= cumulative).sum(-1)


def _cumulative(probabilities: Tensor) -> Tensor:
    """Return the cumulative probabilities along the last axis, float32."""
    total = probabilities.cumsum(-1)
    # The last is exactly 1, above every uniform number, so no alternative beyond it is picked.
    return (total / total[..., -1:]).float().contiguous()


def _prepared(state: dict[str, Tensor], data: Data) -> tuple[Inputs, dict[str, Tensor]]:
    """Return one row, which shows the structure of the input, and the state on its device."""
    like = data.train[:1].x
    device = next(iter(leaves(like).values())).device
    return like, {name: values.to(device) for name, values in state.items()}


# Fitting runs in float64 on the CPU.


@dataclass(frozen=True)
class _Fitted:
    """A mixture: weights [K], means [K, d], Cholesky factors [K, d, d] and tables [P, K]."""

    weights: Tensor
    means: Tensor
    factors: Tensor
    tables: Tensor
    likelihood: float  # mean over the rows, in nats


def _different(rows: Rows) -> int:
    return len(torch.unique(torch.cat([rows.numbers, rows.codes], dim=1), dim=0))


def _standard(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each column; none is constant."""
    mean = numbers.mean(0)
    # std would warn where there are no columns.
    return mean, (numbers - mean).square().mean(0).sqrt()


def _least_bic(fits: Iterator[_Fitted], rows: Rows) -> _Fitted:
    """Return the mixture with the least criterion; two worse ones in a row end the search."""
    count, width = rows.numbers.shape
    each = width + width * (width + 1) // 2
    best, least, worse = None, math.inf, 0
    for fitted in fits:
        components = len(fitted.weights)
        # A value that no row of the component has is at its bound, so its frequency is not free.
        values = int((fitted.tables * fitted.weights * count > 0.5).sum())
        tables = max(0, values - components * len(rows.sizes))
        free = components - 1 + components * each + tables
        criterion = free * math.log(count) - 2 * count * fitted.likelihood
        best, least, worse = (
            (fitted, criterion, 0) if criterion < least else (best, least, worse + 1)
        )
        if worse == 2:
            break
    assert best is not None
    return best


def _expectation_maximisation(rows: Rows, floor: float, seed: int, components: int) -> _Fitted:
    """Fit a mixture (Dempster, Laird and Rubin 1977)."""
    fitted = _maximise(rows, _start(rows, components, seed), floor)
    previous = -math.inf
    for _ in range(_ROUNDS):
        joint = _log_joint(rows, fitted)
        total = torch.logsumexp(joint, dim=1)
        fitted = replace(fitted, likelihood=float(total.mean()))
        if fitted.likelihood - previous < _TOLERANCE:
            break
        previous = fitted.likelihood
        improved = _maximise(rows, (joint - total[:, None]).exp(), floor)
        fitted = replace(improved, likelihood=fitted.likelihood)
    return fitted


def _start(rows: Rows, components: int, seed: int) -> Tensor:
    """Assign each row to the component of its k-means cluster, [N, K]."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    points = rows.numbers
    if rows.codes.shape[1]:
        # Scaled, so that a variable's indicators together vary as one standardised number does.
        shares = rows.frequencies()
        spread = [
            float((p * (1 - p)).sum()) ** 0.5 for p in torch.split(shares, rows.sizes.tolist())
        ]
        indicators = torch.zeros(len(points), len(shares), dtype=torch.float64)
        factors = torch.tensor([1 / s if s > 0 else 0.0 for s in spread], dtype=torch.float64)
        indicators.scatter_(1, rows.places(), factors.expand(len(points), -1))
        points = torch.cat([points, indicators], dim=1)
    state = rng.fold(seed, "gmm", components) % 2**32
    with warnings.catch_warnings():
        # Rows that hardly differ may give fewer clusters; other components start without rows.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(components, n_init=4, random_state=state).fit_predict(points.numpy())
    return F.one_hot(torch.from_numpy(found).long(), components).double()


def _maximise(rows: Rows, share: Tensor, floor: float) -> _Fitted:
    """Fit each component to its share of the rows, [N, K]."""
    width = rows.numbers.shape[1]
    mass = share.sum(0) + 1e-9
    means = share.T @ rows.numbers / mass[:, None]
    covariances = floor * torch.eye(width, dtype=torch.float64).repeat(len(mass), 1, 1)
    for k, mean in enumerate(means):
        centred = rows.numbers - mean
        covariances[k] += (share[:, k, None] * centred).T @ centred / mass[k]
    prior = _PRIOR_ROWS * rows.frequencies()[:, None]
    tables = (rows.count(share) + prior) / (mass + _PRIOR_ROWS)
    factors = torch.linalg.cholesky(covariances)
    return _Fitted(mass / mass.sum(), means, factors, tables, -math.inf)


def _log_joint(rows: Rows, fitted: _Fitted) -> Tensor:
    """Return the joint log-density of each row and each component, [N, K]."""
    count, width = rows.numbers.shape
    logs = fitted.weights.log().repeat(count, 1)
    for k, (mean, factor) in enumerate(zip(fitted.means, fitted.factors, strict=True)):
        whitened = torch.linalg.solve_triangular(factor, (rows.numbers - mean).T, upper=False)
        volume = factor.diagonal().log().sum() + width / 2 * math.log(2 * math.pi)
        logs[:, k] -= whitened.square().sum(0) / 2 + volume
    table = fitted.tables.log()
    for places in rows.places().unbind(1):
        logs += table[places]
    return logs


def _choose_bandwidth(numbers: Tensor, seed: int) -> float:
    """Choose the bandwidth for standardised numbers [N, d] by cross-validated likelihood."""
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.neighbors import KernelDensity

    count, width = numbers.shape
    scott: float = count ** (-1 / (width + 4))
    # Without copies, as a copy of a row in another fold favours a bandwidth of 0.
    different = torch.unique(numbers, dim=0).numpy() if width else numbers.numpy()[:0]
    if len(different) < 2 * _FOLDS:
        return scott
    g = np.random.Generator(np.random.Philox(key=rng.fold(seed, "kde")))
    some = g.permutation(different)[:_ROWS_FOR_BANDWIDTH]
    # The best multiple of Scott's rule on these rows serves for all.
    rule = len(some) ** (-1 / (width + 4))
    multiples = 2.0 ** (np.arange(-8, 4) / 2)
    search = GridSearchCV(
        KernelDensity(), {"bandwidth": multiples * rule}, cv=KFold(_FOLDS), refit=False
    )
    search.fit(some)
    return float(multiples[search.best_index_]) * scott
