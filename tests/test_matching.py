"""The loss: one reduction, comparable gradients across temperatures, and clear refusals."""

from __future__ import annotations

import inspect
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.distributions import Categorical, Gaussian
from extracurricular.errors import OldWordWarning, RecipeError, XclError
from extracurricular.matching import DIVERGENCES, Matching, describe, weighted_mean
from extracurricular.registry import check_settings

NAMES = DIVERGENCES.names()
KINDS = ["classes", "reals"]
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
    assert {"forward_kl", "reverse_kl", "js"} <= set(NAMES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_divergence_is_one(name: str, kind: str) -> None:
    divergence, _ = DIVERGENCES.find(name)
    teacher, student = pair(kind)
    values = divergence(teacher, student)
    assert values.shape == (32,)
    assert values.dtype == torch.float32
    assert bool((values > 1e-4).all())
    assert float(divergence(teacher, teacher).abs().max()) < 1e-5
    for k in (0, 13):  # no example knows of another
        one = slice(k, k + 1)
        torch.testing.assert_close(divergence(teacher[one], student[one]), values[one])
    assert divergence(teacher[:0], student[:0]).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
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
        return float(Matching(name)(student, teacher))

    forward, reverse = teacher.kl(student), student.kl(teacher)  # type: ignore[arg-type]
    assert loss("forward_kl") == pytest.approx(float(forward.mean()))
    assert loss("reverse_kl") == pytest.approx(float(reverse.mean()))
    assert loss("forward_kl") != pytest.approx(loss("reverse_kl"), rel=1e-3)
    assert loss("js") == pytest.approx(float(teacher.js(student).mean()))  # type: ignore[arg-type]
    assert float(Matching("js")(teacher, student)) == pytest.approx(loss("js"), rel=1e-5)
    if kind == "classes":
        assert loss("js") <= math.log(2)


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
    for name in NAMES:
        loss = float(Matching(name)(student, teacher))
        assert float(Matching(name)(wide[1], wide[0])) == pytest.approx(4 * loss, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_scaled_by_the_temperature(name: str, temperature: float) -> None:
    divergence, _ = DIVERGENCES.find(name)
    loss = Matching(name, temperature)
    a, b = logits(0), logits(1)
    cold = divergence(Categorical(a / temperature), Categorical(b / temperature)).mean()
    expected = temperature**2 * cold
    torch.testing.assert_close(loss(Categorical(b), Categorical(a)), expected, rtol=1e-3, atol=1e-5)

    teacher, student = pair("reals")
    assert isinstance(teacher, Gaussian)
    assert isinstance(student, Gaussian)
    heated = [Gaussian(d.mean, d.log_var + math.log(temperature)) for d in (teacher, student)]
    expected = temperature * divergence(*heated).mean()
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
    for kind, part, warm, hot in cases:
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
    soft = Matching("forward_kl", t)(student, teacher)
    plain = student.nll(y).mean()
    loss = Matching("forward_kl", t, label_weight)(student, teacher, y)
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
    torch.testing.assert_close(Matching()(student, point), student.nll(y).mean())


def test_without_a_hard_term_labels_are_not_looked_at() -> None:
    teacher, student = pair("classes")
    loss = Matching()
    assert float(loss(student, teacher, None)) == float(loss(student, teacher, torch.zeros(0)))


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
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Matching(**settings)  # type: ignore[arg-type]


def test_a_hard_term_needs_labels() -> None:
    teacher, student = pair("classes")
    with pytest.raises(ValueError, match=r"label_weight is 0.3, .* without labels; set it to 0"):
        Matching(label_weight=0.3)(student, teacher)


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


def test_settings_are_described() -> None:
    settings = {"divergence": "js", "temperature": 2.0, "label_weight": 0.25}
    assert describe(Matching(**settings)) == settings  # type: ignore[arg-type]


def test_hard_is_read_with_a_note() -> None:
    with pytest.warns(OldWordWarning, match=r"hard of Matching is called label_weight now"):
        assert Matching(temperature=2.0, hard=0.25) == Matching("forward_kl", 2.0, 0.25)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="hard"):
        Matching(label_weight=0.2, hard=0.1)  # type: ignore[call-arg]
    # A recipe knows only the new word: its settings are those of the signature.
    assert "hard" not in inspect.signature(Matching).parameters
    with pytest.raises(RecipeError, match=r"unknown key 'hard'; known: divergence, label_weight"):
        check_settings(Matching, {"hard": 0.1}, "matching")
