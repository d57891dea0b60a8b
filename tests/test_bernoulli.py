"""Labels of 0 and 1: closed forms, sums over all combinations, and the two classes of a label."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from extracurricular.distributions import (
    FAMILIES,
    Bernoulli,
    Categorical,
    Gaussian,
    Task,
    concatenate,
    epistemic,
    kind_of_distribution,
    mixture,
)
from extracurricular.matching import (
    DIVERGENCES,
    Matching,
    at_temperature,
    energy,
    find_divergence,
    traits_of,
    wasserstein,
)

LABELS = 3
EVERY = torch.tensor(list(itertools.product((0.0, 1.0), repeat=LABELS)))


def some(seed: int, count: int = 6, labels: int = LABELS, size: float = 2.0) -> Bernoulli:
    return Bernoulli(
        torch.randn(count, labels, generator=torch.Generator().manual_seed(seed)) * size
    )


def joint(d: Bernoulli) -> Tensor:
    """The probability of each combination of labels, float64, [B, 2^L]."""
    p = d.logits.double().sigmoid()[:, None, :]
    return torch.where(EVERY[None] == 1, p, 1 - p).prod(-1)


def test_the_figures_are_those_of_the_joint_distribution() -> None:
    a, b = some(0), some(1)
    p, q = joint(a), joint(b)
    torch.testing.assert_close(a.entropy().double(), -(p * p.log()).sum(-1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(a.kl(b).double(), (p * (p / q).log()).sum(-1), rtol=1e-5, atol=1e-6)
    for k, y in enumerate(EVERY):
        wanted = -p[:, k].log()
        torch.testing.assert_close(a.nll(y.expand(6, -1)).double(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(a.mean.double(), p @ EVERY.double(), rtol=1e-5, atol=1e-6)


def test_the_sum_of_js_is_an_upper_bound_of_that_of_the_joint() -> None:
    a, b = some(2), some(3)
    p, q = joint(a), joint(b)
    m = (p + q) / 2
    whole = 0.5 * ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1))
    # Several labels tell two distributions apart no better than each of them alone, added up.
    assert bool((a.js(b).double() >= whole - 1e-6).all())
    torch.testing.assert_close(a.js(b), b.js(a))
    assert bool((a.js(b) <= LABELS * math.log(2) + 1e-6).all())


@pytest.mark.parametrize(
    "divergence",
    [n for n in DIVERGENCES.names() if ":" not in n and "multilabel" in traits_of(n).kinds],
)
def test_one_label_is_two_classes(divergence: str) -> None:
    a, b = some(4, labels=1), some(5, labels=1)
    two = [Categorical(torch.cat([torch.zeros_like(d.logits), d.logits], 1)) for d in (a, b)]
    found = find_divergence(divergence)
    torch.testing.assert_close(at_temperature(found, a, b, 1.0), at_temperature(found, *two, 1.0))
    torch.testing.assert_close(a.entropy(), two[0].entropy())
    torch.testing.assert_close(a.tempered(3.0).probs[:, 0], two[0].tempered(3.0).probs[:, 1])
    torch.testing.assert_close(
        Matching(divergence, 3.0)(b, a), Matching(divergence, 3.0)(two[1], two[0])
    )


def test_tempering_is_the_density_to_a_power() -> None:
    a = some(6)
    powers = joint(a) ** (1 / 2.5)
    wanted = powers / powers.sum(-1, keepdim=True)
    torch.testing.assert_close(joint(a.tempered(2.5)), wanted, rtol=1e-6, atol=1e-7)
    assert a.tempered(1.0) is a
    torch.testing.assert_close(a.tempered(torch.tensor(2.5)).logits, a.tempered(2.5).logits)


def test_the_mixture_has_the_marginals_and_is_the_nearest_of_its_family() -> None:
    members = [some(7), some(8), some(9)]
    mixed = mixture(members)
    assert isinstance(mixed, Bernoulli)
    torch.testing.assert_close(mixed.probs, torch.stack([m.probs for m in members]).mean(0))
    whole = torch.stack([joint(m) for m in members]).mean(0)
    # The mixture itself is not independent ...
    assert not torch.allclose(whole, joint(mixed), atol=1e-3)

    def far(d: Bernoulli) -> Tensor:
        return (whole * (whole / joint(d)).log()).sum(-1)

    # ... and nothing independent is nearer to it.
    for step in (-0.05, 0.05):
        assert bool((far(Bernoulli(mixed.logits + step)) > far(mixed)).all())


def test_epistemic_is_the_mutual_information_of_each_label_added_up() -> None:
    members = [some(10), some(11)]
    each = [
        epistemic([Categorical(torch.stack([torch.zeros(6), m.logits[:, k]], 1)) for m in members])
        for k in range(LABELS)
    ]
    torch.testing.assert_close(epistemic(members), torch.stack(each).sum(0))
    torch.testing.assert_close(epistemic([some(10)] * 3), torch.zeros(6), rtol=0, atol=1e-6)
    apart = [Bernoulli(torch.full((1, 2), size)) for size in (-200.0, 200.0)]
    assert float(epistemic(apart)) == pytest.approx(2 * math.log(2), rel=1e-6)


def test_labels_are_points_whose_divergence_is_the_nll() -> None:
    y, student = EVERY, some(12, count=len(EVERY))
    point = Bernoulli.from_probs(y)
    torch.testing.assert_close(point.kl(student), student.nll(y))
    assert bool((point.entropy() < 1e-6).all())
    torch.testing.assert_close(point.probs, y)
    torch.testing.assert_close(
        energy(point, student), 2 * (student.probs - y).square().sum(-1), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        wasserstein(point, student), (student.probs - y).abs().sum(-1), rtol=1e-5, atol=1e-6
    )
    half = torch.full((1, LABELS), 0.25)
    torch.testing.assert_close(Bernoulli.from_probs(half).probs, half)


@pytest.mark.parametrize("extreme", [1e4, 1e38, math.inf])
def test_sure_answers_stay_finite(extreme: float) -> None:
    logits = torch.tensor([[extreme, -extreme, 0.0]], requires_grad=True)
    sure, other = Bernoulli(logits), some(13, count=1)
    for value in (sure.entropy(), other.kl(sure), sure.kl(other), sure.js(other), sure.probs):
        assert bool(torch.isfinite(value).all())
    sure.kl(other).sum().backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
    assert bool(Bernoulli(torch.tensor([[math.nan]])).entropy().isnan().all())


def test_half_precision_is_computed_in_single() -> None:
    a = some(14)
    half = Bernoulli(a.logits.half())
    assert half.entropy().dtype == torch.float32
    torch.testing.assert_close(half.entropy(), a.entropy(), rtol=1e-2, atol=1e-2)


def test_gradients_at_a_high_temperature_keep_their_size() -> None:
    """KL grows as 1 / T² where logits are small against T, so T² undoes it."""
    teacher = some(15, size=1.0)
    sizes = []
    for temperature in (50.0, 100.0):
        logits = some(16, size=1.0).logits.requires_grad_()
        Matching("forward_kl", temperature)(Bernoulli(logits), teacher).backward()
        assert logits.grad is not None
        sizes.append(float(logits.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-2)
    assert teacher.temperature_power == 2


def test_a_task_reads_its_family() -> None:
    task = Task("multilabel", 3)
    assert (task.outputs, task.classes, task.binary) == (3, None, True)
    said = task.distribution(torch.zeros(2, 3))
    assert isinstance(said, Bernoulli)
    with pytest.raises(ValueError, match="multilabel needs 3 logits, one for each label"):
        task.distribution(torch.zeros(2, 6))
    others = {"classification": Categorical, "regression": Gaussian, "multilabel": Bernoulli}
    assert others == FAMILIES
    for kind, family in others.items():
        assert kind_of_distribution(family.from_output(torch.zeros(2, 4))) == kind
    joined = concatenate([said, said])
    assert isinstance(joined, Bernoulli)
    assert len(joined) == 4
    with pytest.raises(ValueError, match="all of one family"):
        mixture([said, Categorical(torch.zeros(2, 3))])


def test_a_loss_of_labels_has_no_beta() -> None:
    assert Matching().beta_for("multilabel") == 0
    with pytest.raises(ValueError, match="labels of 0 and 1 have no variance; leave beta out"):
        Matching(beta=0.5)(some(1), some(2))
    with pytest.raises(ValueError, match="a Bernoulli, the student a Categorical"):
        Matching()(Categorical(torch.zeros(6, 3)), some(1))
