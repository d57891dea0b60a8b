"""Measure a generator: whether its examples are near the data, and as varied as the data.

Distances are between features. The features of an example are the inputs of a trained teacher's
last linear layer, as a student learns from the teacher; where there is no such network, they are
the standardised inputs themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data, Split
from extracurricular.generators.base import Generator, conditions
from extracurricular.inputs import Inputs, fixed_batches, leaves

Features = Callable[[Inputs], Tensor]

# A class with fewer generated examples has too few pairs.
_PER_CLASS = 64
# All pairs of examples are measured, so a large split contributes only some.
MOST_REAL = 4000


@dataclass(frozen=True)
class Quality:
    """Figures of one generator.

    Args:
        frechet: Fréchet distance between generated and training examples.
        floor: Fréchet distance between held-out real examples (the validation split) and training
            examples, which a perfect generator would reach with as many examples. None without
            such a split.
        variety: Mean distance between two generated examples of the same condition, as a part of
            that between two real ones (of neighbouring conditions, where conditions are real).
            Near 0 the latent changes nothing: the generator has collapsed.
        least_variety: Variety of the class with the least; None for regression.
        least_varied: Number of that class.
        coverage: Share of real examples with a generated one no farther than their fifth real
            neighbour (Naeem et al. 2020, section 3.2), for as many generated as real ones.
        ceiling: Coverage of as many held-out real examples.
        label_error: Error of the teacher's prediction against the requested condition: error rate,
            or root mean square in standardised units. None without a teacher or a condition.
        real_error: Error of the teacher's prediction on held-out real examples.
    """

    frechet: float
    floor: float | None
    variety: float
    least_variety: float | None
    least_varied: int | None
    coverage: float
    ceiling: float | None
    label_error: float | None
    real_error: float | None

    def plain(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self)


def teacher_features(module: nn.Module) -> Features:
    """Return the function to the inputs of a network's last linear layer, flattened, [B, F]."""
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not linear:
        return flat_features

    @torch.no_grad()
    def features(x: Inputs) -> Tensor:
        caught: list[Tensor] = []
        hook = linear[-1].register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        try:
            module(x)
        finally:
            hook.remove()
        return caught[0].flatten(1)

    return features


def flat_features(x: Inputs) -> Tensor:
    """Return the standardised inputs themselves, flattened, [B, F]."""
    return torch.cat([leaf.flatten(1) for leaf in leaves(x).values()], dim=1)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the squared 2-Wasserstein distance of Gaussians fitted to two sets of features.

    |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½) (Dowson and Landau 1982; Heusel et al. 2017).

    Args:
        a, b: Features, [N, F] and [M, F], at least two each.
    """
    a, b = a.double(), b.double()
    mean = (a.mean(0) - b.mean(0)).square().sum()
    cov_a, cov_b = (torch.cov(v.T).view(v.shape[1], v.shape[1]) for v in (a, b))
    # tr (Σ_a Σ_b)^½ = tr (Σ_a^½ Σ_b Σ_a^½)^½, which is symmetric, so its eigenvalues are real.
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return max(0.0, float(mean + cov_a.trace() + cov_b.trace() - 2 * cross))


def pair_distances(features: Tensor, condition: Tensor, seed: int = 0) -> Tensor:
    """Return the distance of each example to a partner of (nearly) the same condition, [N].

    The partner is the nearest in condition, a random one where several are equally near.

    Args:
        features: [N, F], N at least 2.
        condition: [N, K].
        seed: Seed of the choice among equals.
    """
    partner = torch.empty(len(features), dtype=torch.int64, device=features.device)
    everyone = torch.arange(len(features), device=features.device)
    for start in range(0, len(features), 1024):
        rows = everyone[start : start + 1024]
        near = torch.cdist(condition[rows].double(), condition.double())
        # The noise only decides among equals.
        near += 1e-6 * rng.uniform(seed, rows, "quality.partner", (len(features),))
        near[torch.arange(len(rows)), rows] = math.inf
        partner[rows] = near.argmin(1)
    distance: Tensor = (features - features[partner]).norm(dim=1)
    return distance


def coverage(real: Tensor, made: Tensor, neighbours: int = 5) -> float:
    """Return the share of real examples with a made one no farther than their k-th neighbour.

    Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models", equation 4.

    Args:
        real, made: Features [N, F] and [M, F].
        neighbours: k.
    """
    k = min(neighbours, len(real) - 1)
    if k < 1:
        return math.nan
    # k + 1, since the nearest of all is the example itself.
    radius = torch.cdist(real, real).kthvalue(k + 1, dim=1).values
    return float((torch.cdist(real, made).amin(1) <= radius).float().mean())


def assess(
    generator: Generator,
    data: Data,
    draw: Callable[[Tensor], tuple[Inputs, Tensor]],
    features: Features,
    predict: Callable[[Inputs], Tensor] | None = None,
    count: int = 2000,
) -> Quality:
    """Measure a generator.

    Args:
        generator: The generator.
        data: The data set.
        draw: Maps draw ids [B] to network inputs and conditions [B, K].
        features: Maps network inputs to features.
        predict: Maps network inputs to the mean of the teacher's prediction, [B, C] or [B, D].
        count: Number of generated examples.
    """
    x, condition = draw(torch.arange(count, device=data.device))
    made = in_batches(features, x)
    stored = at_most(data.train, MOST_REAL)
    train = in_batches(features, data.inputs(stored.x))
    held = at_most(data.validation, MOST_REAL) if len(data.validation) > 1 else None
    held_features = None if held is None else in_batches(features, data.inputs(held.x))
    known = conditions(data, stored)
    spread = _spread(data, train, known, made, condition, generator.conditional)
    real = conditions(data, held) if held is not None else None
    # Both sets have one size, since more examples cover more.
    size = min(len(train), len(made), len(train) if held is None else len(held))
    among = train[_spaced(len(train), size, data.device)]
    return Quality(
        frechet=frechet_distance(made, train),
        floor=None if held_features is None else frechet_distance(held_features, train),
        variety=spread[0],
        least_variety=spread[1],
        least_varied=spread[2],
        coverage=coverage(among, made[:size]),
        ceiling=None if held_features is None else coverage(among, held_features[:size]),
        label_error=_label_error(data, predict, x, condition) if generator.conditional else None,
        real_error=None
        if held is None or real is None
        else _label_error(data, predict, data.inputs(held.x), real),
    )


def at_most(split: Split, most: int) -> Split:
    """Return at most so many examples, from all over a split."""
    if len(split) <= most:
        return split
    return split[_spaced(len(split), most, next(iter(leaves(split.x).values())).device)]


def _spaced(count: int, chosen: int, device: torch.device) -> Tensor:
    return torch.linspace(0, count - 1, chosen, device=device, dtype=torch.float64).long()


def _spread(
    data: Data, train: Tensor, real: Tensor, made: Tensor, condition: Tensor, conditional: bool
) -> tuple[float, float | None, int | None]:
    if not conditional:
        real, condition = torch.zeros_like(real), torch.zeros_like(condition)
    of_real, of_made = pair_distances(train, real), pair_distances(made, condition)
    ratio = float(of_made.mean() / of_real.mean().clamp_min(1e-12))
    if data.task.kind != "classification" or not conditional:
        return ratio, None, None
    ratios = {}
    for label in range(data.task.size):
        mine, theirs = real.argmax(1) == label, condition.argmax(1) == label
        if int(mine.sum()) > 1 and int(theirs.sum()) >= min(_PER_CLASS, len(made) // 20):
            ratios[label] = float(of_made[theirs].mean() / of_real[mine].mean().clamp_min(1e-12))
    if not ratios:
        return ratio, None, None
    least = min(ratios, key=lambda label: ratios[label])
    return ratio, ratios[least], least


def _label_error(
    data: Data, predict: Callable[[Inputs], Tensor] | None, x: Inputs, condition: Tensor
) -> float | None:
    if predict is None:
        return None
    mean, asked = in_batches(predict, x), condition[:, : data.task.size]
    if data.task.kind == "classification":
        return float((mean.argmax(1) != asked.argmax(1)).float().mean())
    if data.task.kind == "multilabel":
        return float(((mean >= 0.5) != (asked >= 0.5)).float().mean())
    return float((mean - asked).square().mean().sqrt())


def in_batches(function: Callable[[Inputs], Tensor], x: Inputs) -> Tensor:
    """Apply a function of network inputs batch by batch; return all its values, [N, ...].

    Raises:
        ValueError: The network gives values that are not finite.
    """
    made = torch.cat([function(part)[:true].float() for part, true in fixed_batches(x, 256)])
    if not bool(torch.isfinite(made).all()):
        raise ValueError("the teacher's features or predictions are not finite")
    return made
