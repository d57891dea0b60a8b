"""The loss: one reduction, comparable gradients across temperatures, and clear refusals."""

from __future__ import annotations

import inspect
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.distributions import Categorical, Distribution, Gaussian, Task
from extracurricular.errors import OldWordWarning, RecipeError, XclError
from extracurricular.inputs import Batch
from extracurricular.matching import (
    BETA,
    DIVERGENCES,
    Kind,
    Matching,
    at_temperature,
    describe,
    find_divergence,
    traits_of,
    weighted_mean,
)
from extracurricular.models import build_model
from extracurricular.registry import check_settings
from extracurricular.teachers import LabelTeacher, Teacher
from extracurricular.training import Training, train

NAMES = DIVERGENCES.names()
KINDS = ["classes", "reals"]
# Each divergence with the distributions that it is for.
FOR: list[tuple[str, str]] = [
    (name, kind)
    for name in NAMES
    for kind, task in (("classes", "classification"), ("reals", "regression"))
    if task in traits_of(name).kinds
]
SIMPLE = [name for name in NAMES if not inspect.isclass(DIVERGENCES.entry(name))]
Pair = tuple[Categorical, Categorical] | tuple[Gaussian, Gaussian]


def logits(seed: int, count: int = 32, classes: int = 6) -> Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)) * 2


def pair(kind: str, seed: int = 0, count: int = 32) -> Pair:
    a, b = logits(2 * seed, count), logits(2 * seed + 1, count)
    if kind == "classes":
        return Categorical(a), Categorical(b)
    return Gaussian.from_output(a), Gaussian.from_output(b)


def labels(kind: str, count: int = 32) -> Tensor:
    return torch.arange(count) % 6 if kind == "classes" else logits(9, count, 3)


# Divergences


def test_the_promised_divergences_are_there() -> None:
    assert {"forward_kl", "reverse_kl", "js", "wasserstein", "energy"} <= set(NAMES)


@pytest.mark.parametrize(("name", "kind"), FOR)
def test_every_divergence_is_one(name: str, kind: str) -> None:
    found = find_divergence(name)

    def divergence(teacher: Distribution, student: Distribution) -> Tensor:
        return at_temperature(found, teacher, student, 1.0)

    teacher, student = pair(kind)
    values = divergence(teacher, student)
    assert values.shape == (32,)
    assert values.dtype == torch.float32
    assert bool((values > 1e-4).all())
    assert float(divergence(teacher, teacher).abs().max()) < 1e-5
    for k in () if traits_of(name).relates else (0, 13):  # no example knows of another
        one = slice(k, k + 1)
        torch.testing.assert_close(divergence(teacher[one], student[one]), values[one])
    assert divergence(teacher[:0], student[:0]).shape == (0,)


@pytest.mark.parametrize(("name", "kind"), FOR)
def test_every_divergence_has_the_gradient_of_its_formula(name: str, kind: str) -> None:
    teacher, student = pair(kind, count=3)
    raw = student.parameters.clone().requires_grad_()
    toward = torch.randn(raw.shape, generator=torch.Generator().manual_seed(5))

    def loss(parameters: Tensor) -> Tensor:
        return Matching(name, beta=0.0)(type(student).from_output(parameters), teacher)

    loss(raw).backward()
    assert raw.grad is not None
    step = 1e-2  # the loss is computed in float32
    wide = [float(loss((raw + k * step * toward).detach())) for k in (-2, -1, 1, 2)]
    slope = (wide[0] - 8 * wide[1] + 8 * wide[2] - wide[3]) / (12 * step)
    assert float((raw.grad * toward).sum()) == pytest.approx(slope, rel=2e-2, abs=2e-3)


@pytest.mark.parametrize(("name", "kind"), FOR)
def test_every_divergence_of_half_precision_is_that_of_float32(name: str, kind: str) -> None:
    teacher, student = (one.parameters.bfloat16() for one in pair(kind))
    family = Categorical if kind == "classes" else Gaussian
    raw = student.clone().requires_grad_()
    loss = Matching(name)(family.from_output(raw), family.from_output(teacher))
    wide = Matching(name)(family.from_output(student.float()), family.from_output(teacher.float()))
    torch.testing.assert_close(loss.detach(), wide)
    loss.backward()
    assert raw.grad is not None
    assert bool(torch.isfinite(raw.grad).all())


@pytest.mark.parametrize("name", [name for name, kind in FOR if kind == "classes"])
def test_every_divergence_is_finite_at_the_ends(name: str) -> None:
    """Equal logits, masked classes, one that has all, and a batch of one."""
    ends = torch.tensor([[0.0, 0, 0], [-torch.inf, 0, 1], [90.0, 0, 0], [1e4, 0, -1e4]])
    for rows in (slice(0, 4), slice(0, 1), slice(2, 3)):
        raw = torch.zeros_like(ends[rows]).requires_grad_()
        loss = Matching(name, 4.0)(Categorical(raw), Categorical(ends[rows]))
        loss.backward()
        assert raw.grad is not None
        assert bool(torch.isfinite(loss))
        assert bool(torch.isfinite(raw.grad).all())


@pytest.mark.parametrize(("name", "kind"), FOR)
def test_every_divergence_leads_the_student_to_the_teacher(name: str, kind: str) -> None:
    teacher, student = pair(kind, count=8)
    raw = student.parameters.clone().requires_grad_()
    match = Matching(name)
    optimizer = torch.optim.Adam([raw], lr=0.1)

    def distribution() -> Categorical | Gaussian:
        return Categorical(raw) if kind == "classes" else Gaussian.from_output(raw)

    before = float(match(distribution(), teacher).detach())
    for _ in range(500):
        optimizer.zero_grad()
        match(distribution(), teacher).backward()
        optimizer.step()
    assert float(match(distribution(), teacher).detach()) < 0.02 * before


@pytest.mark.parametrize("kind", KINDS)
def test_the_divergences_are_what_their_names_say(kind: str) -> None:
    teacher, student = pair(kind)

    def loss(name: str) -> float:
        return float(Matching(name, beta=0.0)(student, teacher))

    forward, reverse = teacher.kl(student), student.kl(teacher)  # type: ignore[arg-type]
    assert loss("forward_kl") == pytest.approx(float(forward.mean()))
    assert loss("reverse_kl") == pytest.approx(float(reverse.mean()))
    assert loss("forward_kl") != pytest.approx(loss("reverse_kl"), rel=1e-3)
    assert loss("js") == pytest.approx(float(teacher.js(student).mean()))  # type: ignore[arg-type]
    assert float(Matching("js")(teacher, student)) == pytest.approx(loss("js"), rel=1e-5)
    if kind == "classes":
        assert loss("js") <= math.log(2)
        assert loss("wasserstein") < 1
        assert loss("energy") < 2


def test_a_divergence_of_the_users_own_is_found_by_its_path() -> None:
    teacher, student = pair("classes")
    own = Matching("extracurricular.matching:reverse_kl")
    assert float(own(student, teacher)) == float(Matching("reverse_kl")(student, teacher))
    with pytest.raises(XclError, match=r"cannot import the divergence 'no_such_module:f'"):
        Matching("no_such_module:f")(student, teacher)


# Reduction


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_loss_is_the_mean_over_examples_and_the_sum_over_classes(classes: int) -> None:
    a, b = logits(0, 16, classes), logits(1, 16, classes)
    loss = Matching()(Categorical(b), Categorical(a))
    log_a, log_b = a.log_softmax(-1), b.log_softmax(-1)
    expected = F.kl_div(log_b, log_a, log_target=True, reduction="batchmean")
    torch.testing.assert_close(loss, expected)
    assert loss.shape == ()
    by_hand = (log_a.exp() * (log_a - log_b)).sum() / 16
    torch.testing.assert_close(loss, by_hand)


def test_more_outputs_do_not_shrink_a_regression_loss() -> None:
    teacher, student = pair("reals")
    assert isinstance(teacher, Gaussian)
    assert isinstance(student, Gaussian)
    wide = [Gaussian(d.mean.repeat(1, 4), d.log_var.repeat(1, 4)) for d in (teacher, student)]
    for name in [name for name, kind in FOR if kind == "reals"]:
        for beta in (None, 0.0):
            match = Matching(name, beta=beta)
            assert float(match(wide[1], wide[0])) == pytest.approx(
                4 * float(match(student, teacher)), rel=1e-4
            )


@pytest.mark.parametrize(("name", "kind"), FOR)
def test_repeating_the_batch_leaves_the_loss(name: str, kind: str) -> None:
    teacher, student = pair(kind)
    twice = torch.arange(64) % 32
    loss = Matching(name, 2.0)
    torch.testing.assert_close(loss(student[twice], teacher[twice]), loss(student, teacher))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label_weight", [0.0, 0.4])
def test_weights_drop_and_duplicate_examples(kind: str, label_weight: float) -> None:
    teacher, student = pair(kind)
    y = labels(kind)
    loss = Matching("forward_kl", 3.0, label_weight)
    plain = loss(student, teacher, y)
    torch.testing.assert_close(loss(student, teacher, y, torch.ones(32)), plain)
    # Weight 2 on one half and 0 on the other is the first half alone.
    weight = torch.tensor([2.0, 0.0]).repeat(16)
    kept = torch.arange(0, 32, 2)
    expected = loss(student[kept], teacher[kept], y[kept])
    torch.testing.assert_close(loss(student, teacher, y, weight), expected)
    assert float(expected) != pytest.approx(float(plain), rel=1e-3)
    # Weight 2 on an example is that example twice, among as many.
    several = torch.tensor([0, 0, 1])
    weight = torch.tensor([2.0, 1.0, 0.0])
    torch.testing.assert_close(
        loss(student[:3], teacher[:3], y[:3], weight),
        loss(student[several], teacher[several], y[several]),
    )


def test_weighted_mean() -> None:
    values = torch.tensor([1.0, 2.0, 6.0])
    assert float(weighted_mean(values, None)) == 3
    assert float(weighted_mean(values, torch.tensor([0.0, 3.0, 0.0]))) == 2


# Temperature

# The power of T for classes and for reals.
POWERS: dict[str, tuple[float, float]] = dict.fromkeys(SIMPLE, (2, 1))
POWERS |= {"wasserstein": (1, 0), "energy": (2, 0.5)}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("name", SIMPLE)
def test_the_loss_is_scaled_by_the_temperature(name: str, temperature: float) -> None:
    divergence, _ = DIVERGENCES.find(name)
    loss = Matching(name, temperature, beta=0.0)
    a, b = logits(0), logits(1)
    cold = divergence(Categorical(a / temperature), Categorical(b / temperature)).mean()
    expected = temperature ** POWERS[name][0] * cold
    torch.testing.assert_close(loss(Categorical(b), Categorical(a)), expected, rtol=1e-3, atol=1e-5)

    teacher, student = pair("reals")
    assert isinstance(teacher, Gaussian)
    assert isinstance(student, Gaussian)
    heated = [Gaussian(d.mean, d.log_var + math.log(temperature)) for d in (teacher, student)]
    expected = temperature ** POWERS[name][1] * divergence(*heated).mean()
    torch.testing.assert_close(loss(student, teacher), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_comparable_across_temperatures(name: str) -> None:
    def norm(kind: str, temperature: float, part: slice) -> float:
        teacher, student = pair(kind)
        raw = student.parameters.clone().requires_grad_()
        read = Categorical(raw) if kind == "classes" else Gaussian.from_output(raw)
        Matching(name, temperature)(read, teacher).backward()
        assert raw.grad is not None
        return float(raw.grad[:, part].norm())

    # Once T is large the factor is exact to first order: without it they differ tenfold or more.
    cases = (("classes", slice(None), 10.0, 100.0), ("reals", slice(0, 3), 1e3, 1e4))
    for kind, part, warm, hot in [case for case in cases if (name, case[0]) in FOR]:
        assert 0.7 < norm(kind, hot, part) / norm(kind, warm, part) < 1.4
        assert 0.02 < norm(kind, hot, part) / norm(kind, 1.0, part) < 50


def test_in_the_limit_of_high_temperature_logits_are_matched() -> None:
    """Hinton et al. 2015, equation 4: half the variance over classes of the difference."""
    a, b = logits(0).double(), logits(1).double()
    student = b.float().requires_grad_()
    loss = Matching("forward_kl", 300.0)(Categorical(student), Categorical(a.float()))
    difference = (b - b.mean(-1, keepdim=True)) - (a - a.mean(-1, keepdim=True))
    expected = difference.square().mean(-1).mean() / 2
    assert float(loss.detach()) == pytest.approx(float(expected), rel=0.05)
    loss.backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad.double(), difference / (6 * 32), rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("temperature", [10.0, 100.0, 1000.0])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_keeps_its_digits_at_high_temperature(name: str, temperature: float) -> None:
    a, b = logits(0), logits(1)
    p, q = ((v.double() / temperature).log_softmax(-1) for v in (a, b))
    middle = torch.logaddexp(p, q) - math.log(2)

    def kl(first: Tensor, second: Tensor) -> Tensor:
        return (first.exp() * (first - second)).sum(-1).mean()

    exact = {
        "forward_kl": kl(p, q),
        "reverse_kl": kl(q, p),
        "js": 0.5 * (kl(p, middle) + kl(q, middle)),
    }
    if name in exact:
        loss = Matching(name, temperature)(Categorical(b), Categorical(a))
        assert float(loss) == pytest.approx(temperature**2 * float(exact[name]), rel=0.02)


def test_at_temperature_1_the_gradient_is_that_of_soft_cross_entropy() -> None:
    a, b = logits(0), logits(1)
    student = b.clone().requires_grad_()
    Matching()(Categorical(student), Categorical(a)).backward()
    reference = b.clone().requires_grad_()
    F.cross_entropy(reference, a.softmax(-1)).backward()
    torch.testing.assert_close(student.grad, reference.grad, rtol=1e-4, atol=1e-7)


def test_the_teacher_may_carry_a_graph_or_not() -> None:
    a, b = logits(0).requires_grad_(), logits(1).requires_grad_()
    Matching()(Categorical(b), Categorical(a.detach())).backward()
    assert a.grad is None
    assert b.grad is not None


# Hard labels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label_weight", [0.0, 0.3, 0.7, 1.0])
def test_hard_labels_are_mixed_in(kind: str, label_weight: float) -> None:
    teacher, student = pair(kind)
    y = labels(kind)
    t = 4.0
    soft = Matching("forward_kl", t, beta=0.0)(student, teacher)
    plain = student.nll(y).mean()
    loss = Matching("forward_kl", t, label_weight, beta=0.0)(student, teacher, y)
    torch.testing.assert_close(loss, (1 - label_weight) * soft + label_weight * plain)
    if label_weight == 1:
        assert float(loss) == pytest.approx(float(plain), rel=1e-6)


def test_hard_labels_are_not_tempered_and_may_be_soft() -> None:
    teacher, student = pair("classes")
    y = labels("classes")
    nll = F.cross_entropy(student.parameters, y)
    torch.testing.assert_close(Matching("js", 9.0, 1.0)(student, teacher, y), nll)
    soft = F.one_hot(y, 6).float() * 0.9 + 0.1 / 6
    torch.testing.assert_close(
        Matching("js", 9.0, 1.0)(student, teacher, soft),
        F.cross_entropy(student.parameters, soft),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_matching_a_point_is_plain_supervised_learning(kind: str) -> None:
    _, student = pair(kind)
    y = labels(kind)
    point = (
        Categorical.from_probs(F.one_hot(y, 6).float()) if kind == "classes" else Gaussian.point(y)
    )
    torch.testing.assert_close(Matching(beta=0.0)(student, point), student.nll(y).mean())
    if kind == "classes":
        assert float(Matching()(student, point)) == float(Matching(beta=0.0)(student, point))


def test_without_a_hard_term_labels_are_not_looked_at() -> None:
    teacher, student = pair("classes")
    loss = Matching()
    assert float(loss(student, teacher, None)) == float(loss(student, teacher, torch.zeros(0)))


# The weight of the variance


def gaussians(seed: int = 0, count: int = 16) -> tuple[Gaussian, Gaussian]:
    teacher, student = pair("reals", seed, count)
    assert isinstance(teacher, Gaussian)
    assert isinstance(student, Gaussian)
    return teacher, student


def gradients(
    match: Matching, student: Gaussian, teacher: Gaussian, y: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients of the loss with respect to the student's means and log variances, an example."""
    mean, log_var = (v.detach().clone().requires_grad_() for v in (student.mean, student.log_var))
    (match(Gaussian(mean, log_var), teacher, y) * len(mean)).backward()
    assert mean.grad is not None
    assert log_var.grad is not None
    return mean.grad, log_var.grad


def targets(source: str, count: int = 16) -> tuple[Gaussian, Tensor, float]:
    """A teacher, labels and the weight of the label term: three ways to use the likelihood."""
    teacher, _ = gaussians(count=count)
    y = labels("reals", count)
    return (Gaussian.point(y) if source == "points" else teacher), y, float(source == "label term")


SOURCES = ["teacher", "points", "label term"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 1.0])
def test_beta_multiplies_each_output_by_its_own_variance(source: str, beta: float) -> None:
    """The published formula, output by output, with the weight held constant."""
    teacher, y, label_weight = targets(source)
    _, student = gaussians()
    match = Matching(label_weight=label_weight, beta=beta)
    weight = student.log_var.exp() ** beta
    error = ((y if source != "teacher" else teacher.mean) - student.mean).square()
    inverse = (-student.log_var).exp()
    terms = 0.5 * (student.log_var + error * inverse)
    if source == "teacher":
        terms = terms + 0.5 * (teacher.var * inverse - teacher.log_var - 1)
    else:
        terms = terms + 0.5 * math.log(2 * math.pi)
    loss = match(student, teacher, y)
    torch.testing.assert_close(loss, (weight * terms).sum(-1).mean(), rtol=1e-4, atol=1e-5)

    mean, log_var = gradients(match, student, teacher, y)
    plain = gradients(Matching(label_weight=label_weight, beta=0.0), student, teacher, y)
    torch.testing.assert_close(mean, weight * plain[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_var, weight * plain[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_with_beta_1_the_gradient_of_the_mean_knows_no_variance(
    source: str, temperature: float
) -> None:
    teacher, y, label_weight = targets(source)
    _, student = gaussians()
    error = student.mean - (teacher.mean if source == "teacher" else y)
    match = Matching("forward_kl", temperature, label_weight, beta=1.0)
    for log_var in (-30.0, -3.0, 0.0, 8.0, 35.0):
        other = Gaussian(student.mean, torch.full_like(student.log_var, log_var))
        found, _ = gradients(match, other, teacher, y)
        torch.testing.assert_close(found, error, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_the_temperature_does_not_come_back_through_beta(beta: float) -> None:
    """The gradient of the mean is the same at any temperature, as it is without beta."""
    teacher, student = gaussians()
    cold, _ = gradients(Matching(beta=beta), student, teacher)
    for temperature in (0.25, 3.0, 100.0):
        hot, _ = gradients(Matching("forward_kl", temperature, beta=beta), student, teacher)
        torch.testing.assert_close(hot, cold, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("source", SOURCES)
def test_beta_0_is_the_plain_loss_to_the_last_bit(source: str) -> None:
    teacher, y, label_weight = targets(source)
    _, student = gaussians()
    match = Matching(temperature=2.0, label_weight=label_weight, beta=0.0)
    plain = teacher.tempered(2.0).kl(student.tempered(2.0)) * 2.0
    if label_weight:
        plain = torch.lerp(plain, student.nll(y), label_weight)
    assert torch.equal(match(student, teacher, y), plain.mean())


def test_beta_is_a_half_for_gaussians_under_forward_kl_alone() -> None:
    teacher, student = gaussians()
    classes = pair("classes")
    assert BETA == 0.5
    assert torch.equal(Matching()(student, teacher), Matching(beta=0.5)(student, teacher))
    assert not torch.equal(Matching()(student, teacher), Matching(beta=0.0)(student, teacher))
    for name in NAMES:
        assert Matching(name).beta_for("classification") == 0
        weighs = name in ("forward_kl", "temperatures")
        assert Matching(name).beta_for("regression") == (0.5 if weighs else 0)
        assert torch.equal(Matching(name)(*classes), Matching(name, beta=0.0)(*classes))


def test_the_teachers_variance_weighs_nothing() -> None:
    """Else a teacher that is sure would silence the examples it is sure of."""
    teacher, student = gaussians()
    for log_var in (-20.0, 0.0, 20.0):
        other = Gaussian(teacher.mean, torch.full_like(teacher.log_var, log_var))
        found, _ = gradients(Matching(beta=0.5), student, other)
        expected = (student.mean - teacher.mean) * (-0.5 * student.log_var).exp()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_losses_and_gradients_are_finite_at_extreme_variances(beta: float) -> None:
    edges = torch.tensor([-1e4, -50.0, -40.0, 0.0, 40.0, 50.0, 1e4])
    own, taught = torch.cartesian_prod(edges, edges).T.unsqueeze(-1)
    for error in (0.0, 1.0, 1e4):
        student = Gaussian(torch.full_like(own, error), own)
        y = torch.zeros_like(own)
        for teacher in (Gaussian(y, taught), Gaussian.point(y)):
            for match in (
                Matching(beta=beta),
                Matching("forward_kl", 4.0, 0.3, beta),
                Matching("wasserstein"),
                Matching("energy", 4.0),
            ):
                assert bool(match(student, teacher, y).isfinite())
                for found in gradients(match, student, teacher, y):
                    assert bool(found.isfinite().all()), match


class Wave:
    """A sampler of points on a wave that a small network does not follow at once."""

    asks = 0.0

    def __init__(self) -> None:
        self.x = torch.linspace(-1, 1, 257)[:-1].unsqueeze(1)
        self.y = torch.sin(10 * self.x)

    def __call__(self, ids: Tensor) -> Batch:
        place = ids * 41 % len(self.x)  # 41 is odd: 256 draws meet each point once
        return Batch(ids, self.x[place], self.y[place])


class Knower:
    """A teacher that knows the wave, and that there is a little noise on it."""

    def __call__(self, batch: Batch) -> Gaussian:
        assert batch.y is not None
        return Gaussian(batch.y, torch.full_like(batch.y, -6.0))


@pytest.mark.parametrize("teacher", [LabelTeacher(), Knower()], ids=["labels", "teacher"])
def test_beta_fits_a_mean_that_the_plain_likelihood_leaves_bad(teacher: Teacher) -> None:
    wave, task = Wave(), Task("regression", 1)
    settings = Training(
        steps=600, batch_size=256, optimizer="adamw", lr=0.02, weight_decay=0.0, warmup=20
    )

    def unexplained(beta: float | None) -> float:
        """The part of the wave's variance that the student's mean does not explain."""
        torch.manual_seed(1)
        spec = {"mlp": {"hidden": [32, 32], "activation": "tanh"}}
        student = build_model(spec, inputs=(1,), outputs=task.outputs)
        train(student, wave, teacher, task, matching=Matching(beta=beta), settings=settings)
        with torch.no_grad():
            mean = task.distribution(student(wave.x)).mean
        return float((mean - wave.y).square().mean() / wave.y.square().mean())

    assert unexplained(0.0) > 0.2
    assert unexplained(None) < 0.05


# Labels


@pytest.mark.parametrize(("name", "kind"), FOR)
def test_a_divergence_that_takes_labels_is_least_at_them(name: str, kind: str) -> None:
    task: Kind = "classification" if kind == "classes" else "regression"
    reason = traits_of(name).no_labels.get(task)
    y = labels(kind)
    divergence, _ = DIVERGENCES.find(name)
    if reason is not None:
        assert re.match(r"which \w+", reason)
        return
    if kind == "classes":
        point: Categorical | Gaussian = Categorical.from_probs(F.one_hot(y, 6).float())
        near = Categorical(F.one_hot(y, 6) * 9.0)
        far = Categorical(F.one_hot((y + 1) % 6, 6) * 9.0)
    else:
        point = Gaussian.point(y)
        near, far = (Gaussian(y + d, torch.zeros_like(y)) for d in (0.1, 2.0))  # type: ignore[assignment]
    values = divergence(point, near), divergence(point, far)
    assert bool((values[0] < values[1]).all())
    assert bool(values[0].isfinite().all())


def test_which_divergences_take_labels() -> None:
    taken = {(name, kind): kind not in traits_of(name).no_labels for name in NAMES for kind in
             ("classification", "regression")}  # fmt: skip
    refused = {pair for pair, takes in taken.items() if not takes}
    assert refused == {
        ("reverse_kl", "classification"), ("reverse_kl", "regression"), ("js", "regression"),
        ("dkd", "classification"), ("dist", "classification"), ("standardised", "classification"),
        ("temperatures", "classification"), ("temperatures", "regression"),
    }  # fmt: skip
    # One of the user's own says nothing of itself.
    assert traits_of("extracurricular.matching:weighted_mean").no_labels == {}


def test_from_labels_they_are_known_scores() -> None:
    y, one_hot = labels("classes"), F.one_hot(labels("classes"), 6).float()
    _, student = pair("classes")
    assert isinstance(student, Categorical)
    point = Categorical.from_probs(one_hot)
    brier = (student.probs - one_hot).square().sum(-1).mean()
    torch.testing.assert_close(Matching("energy")(student, point), brier)
    missed = 1 - student.probs.gather(-1, y.unsqueeze(-1))
    torch.testing.assert_close(Matching("wasserstein")(student, point), missed.mean())
    _, real = gaussians(count=32)
    target = labels("reals")
    squares = ((real.mean - target).square() + real.var).sum(-1).mean()
    torch.testing.assert_close(Matching("wasserstein")(real, Gaussian.point(target)), squares)


# Refusals


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"divergence": "forwad_kl"}, r"'forwad_kl'; did you mean 'forward_kl'"),
        ({"divergence": "zzz"}, r"unknown divergence 'zzz'; known: .*forward_kl.*js.*reverse_kl"),
        ({"divergence": ""}, r"unknown divergence ''"),
        ({"temperature": 0.0}, r"temperature is 0.0; it must be .*greater than 0"),
        ({"temperature": -2.0}, r"temperature is -2.0"),
        ({"temperature": math.nan}, r"temperature is nan"),
        ({"temperature": math.inf}, r"temperature is inf; it must be .*finite"),
        ({"label_weight": -0.1}, r"label_weight is -0.1; it must be between 0 and 1"),
        ({"label_weight": 1.5}, r"label_weight is 1.5; it must be between 0 and 1"),
        ({"label_weight": math.nan}, r"label_weight is nan"),
        ({"beta": -0.1}, r"beta is -0.1; it must be between 0 and 1"),
        ({"beta": 1.5}, r"beta is 1.5; it must be between 0 and 1"),
        ({"beta": math.nan}, r"beta is nan"),
        ({"beta": 0.5, "divergence": "js"}, r"beta is 0.5, but the divergence is 'js'; only 'forw"),
        ({"beta": 0.5, "divergence": "energy"}, r"the divergence is 'energy'; .* leave beta out"),
        ({"beta": 0.5, "divergence": "mine:own"}, r"the divergence is 'mine:own'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Matching(**settings)  # type: ignore[arg-type]


def test_a_hard_term_needs_labels() -> None:
    teacher, student = pair("classes")
    with pytest.raises(ValueError, match=r"label_weight is 0.3, .* without labels; set it to 0"):
        Matching(label_weight=0.3)(student, teacher)


def test_beta_needs_a_variance() -> None:
    says = "beta is 0.5, but classes have no variance; leave beta out"
    with pytest.raises(ValueError, match=says):
        Matching(beta=0.5)(*pair("classes"))
    with pytest.raises(ValueError, match=says):
        describe(Matching(beta=0.5), Task("classification", 3))


@pytest.mark.parametrize("name", NAMES)
def test_teacher_and_student_must_be_of_one_kind(name: str) -> None:
    classes, reals = pair("classes")[0], pair("reals")[0]
    says = "the teacher gives a {}, the student a {}; they must give the same kind"
    with pytest.raises(ValueError, match=re.escape(says.format("Categorical", "Gaussian"))):
        Matching(name)(reals, classes)
    with pytest.raises(ValueError, match=re.escape(says.format("Gaussian", "Categorical"))):
        Matching(name)(classes, reals)


@pytest.mark.parametrize("name", NAMES)
def test_teacher_and_student_must_have_as_many_classes(name: str) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        Matching(name)(Categorical(logits(0, 4, 6)), Categorical(logits(0, 4, 5)))


def test_settings_are_described_as_they_are_resolved() -> None:
    settings = {"divergence": "js", "temperature": 2.0, "label_weight": 0.25}
    assert describe(Matching(**settings)) == settings | {"beta": 0.0}  # type: ignore[arg-type]
    assert describe(Matching())["beta"] == 0.5
    assert describe(Matching(beta=0.0))["beta"] == 0
    assert describe(Matching(), Task("regression", 2))["beta"] == 0.5
    assert describe(Matching(), Task("classification", 2))["beta"] == 0
    assert Matching(**describe(Matching(beta=0.25))) == Matching(beta=0.25)


def test_hard_is_read_with_a_note() -> None:
    with pytest.warns(OldWordWarning, match=r"hard of Matching is called label_weight now"):
        assert Matching(temperature=2.0, hard=0.25) == Matching("forward_kl", 2.0, 0.25)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="hard"):
        Matching(label_weight=0.2, hard=0.1)  # type: ignore[call-arg]
    # A recipe knows only the new word: its settings are those of the signature.
    assert "hard" not in inspect.signature(Matching).parameters
    with pytest.raises(
        RecipeError,
        match=r"unknown key 'hard'; known: beta, class_weight, divergence, label_smoothing",
    ):
        check_settings(Matching, {"hard": 0.1}, "matching")
