"""Uncertain examples: what the scores are, that the right candidates win, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.distributions import Categorical, Distribution, Gaussian
from extracurricular.errors import RecipeError, TrainingError
from extracurricular.inputs import leaves
from extracurricular.models import build_model
from extracurricular.samplers import (
    Batch,
    Blend,
    Context,
    Empirical,
    Mixup,
    Noise,
    Sampler,
    Uncertain,
    build_sampler,
    is_pure,
)
from extracurricular.samplers.scores import SCORES, needs
from extracurricular.teachers import Ensemble, MCDropout, Network, Teacher
from extracurricular.training import Training, draws, train
from tests.conftest import eye_data, image_data, pair_data, small_teacher, table_data

CPU = Fabric(accelerator="cpu", devices=1)
MAKERS = [image_data, table_data, eye_data, pair_data]


def same(a: Batch, b: Batch) -> bool:
    xs, ys = leaves(a.x), leaves(b.x)
    labels = (a.y is None) == (b.y is None) and (a.y is None or torch.equal(a.y, b.y))  # type: ignore[arg-type]
    return (
        torch.equal(a.ids, b.ids)
        and a.classes == b.classes
        and labels
        and xs.keys() == ys.keys()
        and all(torch.equal(xs[k], ys[k]) for k in xs)
    )


def noisy(data: Data) -> Sampler:
    return Noise(Empirical(data, seed=1), 0.5, seed=2)


def score_of(name: str, **given: Any) -> Tensor:
    return SCORES.find(name)[0](**given)


# The scores


def one_hot(*places: int, classes: int = 4) -> Categorical:
    return Categorical(1e4 * nn.functional.one_hot(torch.tensor(places), classes).float())


def test_entropy() -> None:
    uniform = Categorical(torch.full((1, 5), 3.0))
    assert float(score_of("entropy", prediction=uniform)) == pytest.approx(math.log(5))
    assert float(score_of("entropy", prediction=one_hot(2))) == 0
    half = Categorical.from_probs(torch.tensor([[0.5, 0.25, 0.25]]))
    assert float(score_of("entropy", prediction=half)) == pytest.approx(1.5 * math.log(2))
    wide = Gaussian(torch.zeros(1, 2), torch.tensor([[0.0, math.log(9)]]))
    expected = math.log(2 * math.pi * math.e) + math.log(3)
    assert float(score_of("entropy", prediction=wide)) == pytest.approx(expected)


def test_margin() -> None:
    three = Categorical.from_probs(torch.tensor([[0.5, 0.2, 0.3], [1, 0, 0], [0.4, 0.4, 0.2]]))
    found = score_of("margin", prediction=three)
    assert torch.allclose(found, torch.tensor([0.8, 0.0, 1.0]), atol=1e-6)
    two = Categorical.from_probs(torch.tensor([[0.7, 0.3], [0.5, 0.5], [0.0, 1.0]]))
    found = score_of("margin", prediction=two)
    assert torch.allclose(found, torch.tensor([0.6, 1.0, 0.0]), atol=1e-6)


def test_mutual_information() -> None:
    torch.manual_seed(0)
    member = Categorical(torch.randn(6, 4))
    alike = score_of("mutual_information", members=[member] * 3)
    assert torch.allclose(alike, torch.zeros(6), atol=1e-6)
    opposed = score_of("mutual_information", members=[one_hot(0), one_hot(3)])
    assert float(opposed) == pytest.approx(math.log(2), abs=1e-6)
    three = score_of("mutual_information", members=[one_hot(0), one_hot(1), one_hot(2)])
    assert float(three) == pytest.approx(math.log(3), abs=1e-6)


def test_variances_are_summed_over_outputs_in_standardised_units() -> None:
    prediction = Gaussian(torch.zeros(1, 3), torch.tensor([[1.0, 4.0, 0.25]]).log())
    assert float(score_of("predictive_variance", prediction=prediction)) == pytest.approx(5.25)
    members = [
        Gaussian(torch.tensor([[0.0, 1.0]]), torch.full((1, 2), 7.0)),
        Gaussian(torch.tensor([[2.0, 5.0]]), torch.full((1, 2), -7.0)),
    ]
    assert float(score_of("epistemic_variance", members=members)) == pytest.approx(1 + 4)


def test_divergence_is_kl_from_the_student_to_the_teacher() -> None:
    torch.manual_seed(0)
    a, b = Categorical(torch.randn(6, 4)), Categorical(torch.randn(6, 4))
    found = score_of("divergence", prediction=a, student=b)
    assert torch.allclose(found, (a.probs * (a.log_probs - b.log_probs)).sum(1), atol=1e-6)
    assert not torch.allclose(found, b.kl(a), atol=1e-3)
    p, q = (Gaussian(torch.randn(6, 2), torch.randn(6, 2)) for _ in range(2))
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(p.mean, p.std), torch.distributions.Normal(q.mean, q.std)
    ).sum(1)
    assert torch.allclose(score_of("divergence", prediction=p, student=q), exact, atol=1e-4)


@pytest.mark.parametrize(
    ("score", "given", "hint"),
    [
        ("margin", Gaussian(torch.zeros(1, 2), torch.zeros(1, 2)), "'predictive_variance'"),
        ("mutual_information", Gaussian(torch.zeros(1, 2), torch.zeros(1, 2)), "'epistemic_var"),
        ("predictive_variance", Categorical(torch.zeros(1, 4)), "'entropy' or 'margin'"),
        ("epistemic_variance", Categorical(torch.zeros(1, 4)), "'mutual_information'"),
    ],
)
def test_a_score_of_the_wrong_kind_is_told(score: str, given: Distribution, hint: str) -> None:
    entry = SCORES.find(score)[0]
    with pytest.raises(ValueError, match=f"score is '{score}', which .* {hint}") as caught:
        entry([given, given] if "members" in needs(entry) else given)
    assert "\n" not in str(caught.value)


def test_every_score_says_what_it_needs() -> None:
    found = {name: needs(SCORES.find(name)[0]) for name in SCORES.names()}
    assert found == {
        "entropy": {"prediction"},
        "margin": {"prediction"},
        "predictive_variance": {"prediction"},
        "mutual_information": {"members"},
        "epistemic_variance": {"members"},
        "divergence": {"prediction", "student"},
    }


# The choice. To know what must be chosen, an example here is one number and also its own score.


def numbers(ids: Tensor) -> Batch:
    return Batch(ids, rng.uniform(7, ids, "number", (1,)))


def as_told(batch: Batch) -> Distribution:
    assert isinstance(batch.x, Tensor)
    return Gaussian(batch.x, torch.zeros_like(batch.x))


def its_number(prediction: Gaussian) -> Tensor:
    return prediction.mean[:, 0]


OWN = f"{__name__}:its_number"


def chooser(**settings: Any) -> Uncertain:
    return Uncertain(numbers, as_told, **{"score": OWN, "plain_share": 0.0, **settings})


def candidates_of(sampler: Uncertain, ids: Tensor) -> Tensor:
    """The number of each candidate, [B, c]."""
    indices = range(sampler.candidates)
    drawn = [sampler.replay(ids, torch.full_like(ids, k)).x for k in indices]
    return torch.cat(drawn, dim=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("settings", [{"candidates": 1}, {"plain_share": 1.0}])
def test_without_a_choice_it_is_the_child(
    make: Callable[[], Data], settings: dict[str, Any]
) -> None:
    data = make()
    ids = torch.cat([torch.arange(70), torch.tensor([2**62])])
    choice = Uncertain(noisy(data), small_teacher(data), **settings).choose(ids)
    assert same(choice.batch, noisy(data)(ids))
    assert not choice.index.any()


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("count", [2, 5])
def test_the_most_uncertain_candidate_is_chosen(make: Callable[[], Data], count: int) -> None:
    data = make()
    teacher, ids = small_teacher(data), torch.arange(100)
    sampler = Uncertain(noisy(data), teacher, candidates=count, plain_share=0.0, seed=5)
    drawn = [sampler.replay(ids, torch.full_like(ids, k)) for k in range(count)]
    assert same(drawn[0], noisy(data)(ids))
    for k in range(1, count):
        inner = noisy(data)(rng.derive(5, ids, sampler.stream(f"candidate.{k}")))
        assert same(drawn[k], replace(inner, ids=ids))
    scores = torch.stack([teacher(batch).entropy() for batch in drawn])
    choice = sampler.choose(ids)
    assert torch.equal(choice.index, scores.argmax(0))
    assert len(choice.index.unique()) == count
    assert same(sampler(ids), choice.batch)
    assert torch.allclose(choice.prediction.entropy(), scores.amax(0), atol=1e-6)
    # With labels of the chosen, not of the child's own draws.
    labels = torch.stack([batch.y for batch in drawn])  # type: ignore[misc]
    assert choice.batch.y is not None
    assert torch.equal(choice.batch.y, labels[choice.index, ids])


def test_more_candidates_are_more_uncertain() -> None:
    # The largest of c uniform numbers is c / (c + 1) on average.
    ids = torch.arange(4000)
    for count in (1, 2, 4, 8):
        found = float(leaves(chooser(candidates=count)(ids).x)[""].mean())
        variance = count / ((count + 1) ** 2 * (count + 2))
        assert found == pytest.approx(count / (count + 1), abs=4 * (variance / 4000) ** 0.5)


def test_tau_draws_in_proportion_to_the_exponential_of_the_score() -> None:
    ids = torch.arange(20_000)
    for tau in (0.05, 0.2, 1.0):
        sampler = chooser(candidates=4, tau=tau)
        scores = candidates_of(sampler, ids).double()
        expected = (scores / tau).softmax(1)
        index = sampler.choose(ids).index
        chosen = nn.functional.one_hot(index, 4).double()
        # Among pairs of draw and candidate that should be chosen as often, as many are.
        for low in torch.arange(0, 1, 0.1).tolist():
            group = (expected >= low) & (expected < low + 0.1)
            if int(group.sum()) > 50:
                deviation = (expected * (1 - expected))[group].sum().sqrt()
                assert abs(float((chosen - expected)[group].sum() / deviation)) < 4.5, (tau, low)
        places = (chosen.sum(0) - expected.sum(0)) / (expected * (1 - expected)).sum(0).sqrt()
        assert float(places.abs().max()) < 4.5


def test_tau_goes_from_the_most_uncertain_to_any() -> None:
    ids = torch.arange(8000)
    scores = candidates_of(chooser(), ids)
    assert torch.equal(chooser(tau=1e-7).choose(ids).index, scores.argmax(1))
    counts = chooser(tau=1e6).choose(ids).index.bincount(minlength=4)
    # Of a chi-square with 3 degrees of freedom, one in 10,000 is above 21.
    assert float(((counts - 2000.0) ** 2 / 2000).sum()) < 21
    middle = [float(leaves(chooser(tau=tau)(ids).x)[""].mean()) for tau in (0.01, 0.1, 1.0, 1e6)]
    assert middle == sorted(middle, reverse=True)


@pytest.mark.parametrize("tau", [None, 0.2])
def test_a_share_stays_plain(tau: float | None) -> None:
    ids, count = torch.arange(10_000), 4
    for plain in (0.1, 0.6):
        choice = chooser(plain_share=plain, candidates=count, tau=tau).choose(ids)
        anew = chooser(plain_share=0.0, candidates=count, tau=tau).choose(ids)
        kept = choice.index != anew.index
        assert not choice.index[kept].any()
        # Of the plain ones, those that would have chosen candidate 0 anyway do not show.
        share = plain * float((anew.index != 0).float().mean())
        assert float(kept.float().mean()) == pytest.approx(share, abs=0.02)
        assert torch.equal(leaves(choice.batch.x)[""][kept], leaves(numbers(ids).x)[""][kept])


class Refuses:
    """A teacher that must not be asked."""

    def __call__(self, batch: Batch) -> Distribution:
        raise AssertionError("the teacher was asked")


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("tau", [None, 0.05])
def test_a_choice_is_replayed_without_the_teacher(
    make: Callable[[], Data], tau: float | None
) -> None:
    data, ids = make(), torch.arange(90).flip(0)
    sampler = Uncertain(Mixup(noisy(data), seed=3), small_teacher(data), tau=tau, seed=4)
    choice = sampler.choose(ids)
    assert len(choice.index.unique()) == 4
    silent = replace(sampler, teacher=Refuses())
    assert same(silent.replay(ids, choice.index), choice.batch)
    part = torch.arange(0, 90, 7)
    assert same(silent.replay(ids[part], choice.index[part]), choice.batch[part])
    with pytest.raises(AssertionError, match="was asked"):
        silent(ids)


def test_what_is_wrong_with_its_settings_is_told() -> None:
    data = image_data()
    alone = small_teacher(data).teachers[0]
    student = build_model("mlp", inputs=data.shapes, outputs=4)
    for settings, says in (
        ({"candidates": 0}, "candidates is 0; it must be at least 1"),
        ({"tau": 0.0}, "tau is 0.0; it must be finite and greater than 0, or null"),
        ({"tau": math.inf}, "tau is inf"),
        ({"tau": math.nan}, "tau is nan"),
        ({"plain_share": 1.1}, "plain_share is 1.1; it must be between 0 and 1"),
        ({"plain_share": math.nan}, "plain_share is nan"),
        ({"score": "entrpy"}, "score is 'entrpy', which is unknown; did you mean 'entropy'"),
        ({"score": "mutual_information"}, "score is 'mutual_information', which needs a teacher"),
        ({"score": "epistemic_variance"}, "score is 'epistemic_variance', which needs a teacher"),
        ({"score": "divergence"}, "score is 'divergence', which needs the student"),
        ({"score": "divergence", "student": student}, "score is 'divergence', which needs"),
    ):
        with pytest.raises(ValueError, match=says):
            Uncertain(Empirical(data), alone, **settings)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="cannot import the score 'nowhere:score'"):
        Uncertain(Empirical(data), alone, "nowhere:score")
    module = build_model({"mlp": {"dropout": 0.5}}, inputs=data.shapes, outputs=4)
    for teacher in (Ensemble([alone]), MCDropout(module.eval(), data.task, 3)):
        assert len(Uncertain(Empirical(data), teacher, "mutual_information")(torch.arange(3))) == 3


def test_a_recipe_names_it_with_the_key_of_a_mistake() -> None:
    data = image_data()
    teacher = small_teacher(data)
    student = build_model("mlp", inputs=data.shapes, outputs=4)

    def build(context: Context, **settings: Any) -> Sampler:
        return build_sampler(["empirical", {"uncertain": settings}], data, 0, "s", context)

    whole = Context(teacher, student)
    entropy = build(whole, score="entropy", candidates=3, tau=0.5, plain_share=0.2)
    assert isinstance(entropy, Uncertain)
    assert (entropy.candidates, entropy.tau, entropy.plain_share) == (3, 0.5, 0.2)
    assert entropy.teacher is teacher
    # Only a score that wants the student holds it, so the others cannot come to depend on it.
    assert entropy.student is None
    divergence = build(whole, score="divergence")
    assert isinstance(divergence, Uncertain)
    assert divergence.student is student
    assert isinstance(build(whole, score="mutual_information"), Uncertain)
    for context, settings, key, says in (
        (Context(), {}, "s.1", "asks a trained teacher, but here there is none yet"),
        (Context(teacher.teachers[0]), {"score": "mutual_information"}, "s.1", "mutual_informat"),
        (Context(teacher), {"score": "divergence"}, "s.1", "needs the student in training"),
        (Context(teacher), {"candidates": 0}, "s.1", "candidates is 0"),
        (Context(teacher), {"candidates": 1.5}, "s.1.uncertain.candidates", "is 1.5"),
        (Context(teacher), {"scor": "entropy"}, "s.1.uncertain.scor", "did you mean 'score'"),
        (Context(teacher), {"teacher": 3}, "s.1.uncertain.teacher", "unknown key 'teacher'"),
    ):
        with pytest.raises(RecipeError, match=says) as caught:
            build(context, **settings)  # type: ignore[arg-type]
        assert caught.value.key.startswith(key)


# The cost


@dataclass
class Counting:
    """A teacher that counts the true rows it was asked about; zeros fill a batch up."""

    teacher: Teacher
    rows: int = 0

    def __call__(self, batch: Batch) -> Distribution:
        flat = torch.cat([leaf.flatten(1) for leaf in leaves(batch.x).values()], dim=1)
        self.rows += int((flat != 0).any(1).sum())
        return self.teacher(batch)


def rows_asked(sampler: Sampler, teacher: Counting, ids: Tensor) -> int:
    before = teacher.rows
    sampler(ids)
    return teacher.rows - before


@pytest.mark.parametrize("make", MAKERS)
def test_the_teacher_is_asked_as_often_as_it_says(make: Callable[[], Data]) -> None:
    data = make()
    teacher, ids = Counting(small_teacher(data)), torch.arange(3000)
    sampler = Uncertain(noisy(data), teacher, candidates=3, plain_share=0.25)
    assert sampler.asks == pytest.approx(3 * 0.75 + 0.25)
    share = rng.uniform(0, ids, sampler.stream("plain")) < 0.25
    assert rows_asked(sampler, teacher, ids) == 3000 + 2 * int((~share).sum())
    mixed = Mixup(sampler)
    blend = Blend({"a": mixed, "b": noisy(data), "c": sampler}, {"a": 1.0, "b": 2.0, "c": 1.0})
    again = Uncertain(Noise(sampler, 0.1), teacher, candidates=2, plain_share=0.0)
    for chain, expected in (
        (mixed, 2 * 2.5),
        (Noise(mixed, 0.1), 2 * 2.5),
        (blend, 0.25 * 5.0 + 0.25 * 2.5),
        (again, 2 * (1 + 2.5)),
        (noisy(data), 0.0),
        (Uncertain(noisy(data), teacher, candidates=4, plain_share=1.0), 1.0),
    ):
        assert getattr(chain, "asks", 0.0) == pytest.approx(expected)
        assert rows_asked(chain, teacher, ids) == pytest.approx(3000 * expected, rel=0.05)


@pytest.mark.parametrize("make", MAKERS)
def test_the_loop_takes_over_what_the_teacher_has_said(make: Callable[[], Data]) -> None:
    data = make()
    teacher = Counting(small_teacher(data))
    sampler = Uncertain(noisy(data), teacher, candidates=3, plain_share=0.25)
    settings = Training(steps=21, batch_size=10)
    # What the choosing itself costs, the one draw to learn the size of an example included.
    known = rows_asked(sampler, teacher, torch.arange(210))
    known += rows_asked(sampler, teacher, torch.zeros(1, dtype=torch.int64))
    teacher.rows = 0
    taken = list(draws(sampler, teacher, settings, 0, fabric=CPU))
    assert teacher.rows == known

    # A sampler that is hidden in a function is asked anew, once for each example.
    anew = list(draws(lambda ids: sampler(ids), teacher, settings, 0, fabric=CPU))
    assert teacher.rows == 2 * known + 210
    assert len(taken) == len(anew) == 21
    for (batch, target), (other, asked) in zip(taken, anew, strict=True):
        assert same(batch, other)
        assert torch.allclose(target.parameters, asked.parameters, atol=1e-6)


def test_another_teachers_word_is_not_taken_over() -> None:
    data = image_data()
    curious, teacher = Counting(small_teacher(data)), Counting(small_teacher(data, seed=1))
    sampler = Uncertain(noisy(data), curious)
    drawn = list(draws(sampler, teacher, Training(steps=3, batch_size=10), 0, fabric=CPU))
    assert teacher.rows == 30
    for batch, target in drawn:
        assert torch.allclose(target.parameters, teacher.teacher(batch).parameters, atol=1e-6)


# NaN


@dataclass
class Breaks:
    """A teacher that breaks on numbers above some value."""

    above: float

    def __call__(self, batch: Batch) -> Distribution:
        x = leaves(batch.x)[""]
        return Gaussian(torch.where(x > self.above, math.nan, x), torch.zeros_like(x))


def its_lowness(prediction: Gaussian) -> Tensor:
    return -prediction.mean[:, 0]


@pytest.mark.parametrize("tau", [None, 0.1])
@pytest.mark.parametrize("plain", [0.0, 0.5, 1.0])
def test_nan_from_a_teacher_is_not_passed_over(tau: float | None, plain: float) -> None:
    """Not even where those scores would never win."""
    task = table_data(outputs=1).task
    teacher = Breaks(0.99)
    score = f"{__name__}:its_lowness"
    sampler = Uncertain(numbers, teacher, score, tau=tau, plain_share=plain)
    ids = torch.arange(1000)
    drawn = candidates_of(sampler, ids)
    plainly = rng.uniform(0, ids, sampler.stream("plain")) < plain
    seen = torch.where(plainly[:, None], drawn[:, :1], drawn)
    at_fault = (seen > 0.99).any(1)
    assert torch.equal(sampler.choose(ids).prediction.mean[:, 0].isnan(), at_fault)
    first = int(at_fault.nonzero()[0])
    with pytest.raises(TrainingError, match=rf"NaN or infinity for \d+ of \d+ draws: ids {first}"):
        train(nn.Linear(1, 2), sampler, teacher, task, settings=Training(steps=100, batch_size=10))


# The student has a say


def divergent(data: Data, student: nn.Module, child: Sampler | None = None) -> Uncertain:
    return Uncertain(
        child or noisy(data),
        small_teacher(data),
        "divergence",
        student=student,
        task=data.task,
    )


def test_divergence_is_not_pure_wherever_it_is() -> None:
    data = image_data()
    student = build_model("mlp", inputs=data.shapes, outputs=4)
    sampler = divergent(data, student)
    plain = Uncertain(noisy(data), small_teacher(data))
    assert not is_pure(sampler)
    assert is_pure(plain)
    for nest in (
        lambda child: Mixup(child),
        lambda child: Noise(Mixup(child), 0.1),
        lambda child: Uncertain(child, small_teacher(data)),
        lambda child: Blend({"a": Empirical(data), "b": child}, {"a": 1.0, "b": 1.0}),
    ):
        assert not is_pure(nest(sampler))
        assert is_pure(nest(plain))


@pytest.mark.parametrize("make", MAKERS)
def test_divergence_chooses_what_the_student_has_yet_to_learn(make: Callable[[], Data]) -> None:
    data, ids = make(), torch.arange(60)
    torch.manual_seed(9)
    spec = {"mlp": {"hidden": [4], "dropout": 0.5}}
    student = build_model(spec, inputs=data.shapes, outputs=data.task.outputs)
    sampler = replace(divergent(data, student), plain_share=0.0)
    teacher = small_teacher(data)
    for training in (True, False):
        student.train(training)
        state = torch.random.get_rng_state()
        choice = sampler.choose(ids)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(part.training == training for part in student.modules())
        assert all(p.grad is None and p.requires_grad for p in student.parameters())
    # By the student as it predicts, without dropout.
    student.eval()
    with torch.no_grad():
        drawn = [sampler.replay(ids, torch.full_like(ids, k)) for k in range(4)]
        scores = [teacher(b).kl(data.task.distribution(student(b.x))) for b in drawn]  # type: ignore[arg-type]
    assert torch.equal(choice.index, torch.stack(scores).argmax(0))
    # And another student has other gaps.
    nn.init.normal_(list(student.parameters())[-2])
    assert not torch.equal(sampler.choose(ids).index, choice.index)


def test_a_student_that_fails_is_left_in_its_mode() -> None:
    data = image_data()

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    student = Fails()
    with pytest.raises(RuntimeError, match="no"):
        divergent(data, student)(torch.arange(3))
    assert student.training


def trained(
    folder: Path | None, score: str, stop: int | None = None, nested: bool = False
) -> dict[str, Tensor]:
    """Train a student whose batch norm and dropout would show any disturbance."""
    data = image_data()
    torch.manual_seed(0)
    spec = {"digits_cnn": {"width": 2, "depth": 1, "dropout": 0.3}}
    student = build_model(spec, inputs=data.shapes, outputs=4)
    teacher = small_teacher(data)
    sampler: Sampler = Uncertain(
        noisy(data), teacher, score, candidates=3, student=student, task=data.task
    )
    sampler = Mixup(sampler) if nested else sampler

    def progress(step: int, _: float) -> None:
        if stop is not None and step >= stop:
            raise KeyboardInterrupt

    settings = Training(steps=30, batch_size=8, lr=0.05, checkpoint_every=7, ema=0.9)
    with suppress(KeyboardInterrupt):
        train(
            student,
            sampler,
            teacher,
            data.task,
            settings=settings,
            folder=folder,
            on_progress=progress,
        )
    return student.state_dict()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("score", ["entropy", "mutual_information", "divergence"])
def test_an_interrupted_training_ends_with_the_same_bits(
    tmp_path: Path, score: str, nested: bool
) -> None:
    whole = trained(None, score, nested=nested)
    for stop in (3, 9, 24):
        trained(tmp_path, score, stop, nested)
    resumed = trained(tmp_path, score, nested=nested)
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_the_student_is_seen_as_it_is_at_each_step() -> None:
    """Draws of several steps made at once would miss what it has learned between them."""
    data = image_data()
    teacher = small_teacher(data)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.zeros_(student[1].weight)
    sampler = Uncertain(noisy(data), teacher, "divergence", student=student, task=data.task)
    settings = Training(steps=6, batch_size=16)
    chosen = []
    for batch, _ in draws(sampler, teacher, settings, 0, fabric=CPU):
        expected = sampler(batch.ids)
        assert same(batch, expected)
        chosen.append(batch)
        torch.nn.init.normal_(student[1].weight)
    assert not all(same(batch, sampler(batch.ids)) for batch in chosen)
    # Where the draws are pure, many steps are made together.
    asked: list[int] = []

    def watch(ids: Tensor) -> Batch:
        asked.append(len(ids))
        return noisy(data)(ids)

    list(draws(Uncertain(watch, teacher), teacher, settings, 0, fabric=CPU))
    assert len(asked) == 2


def test_networks_are_asked_alone_or_together_alike() -> None:
    """A network as the teacher, and the ensemble of just that network, choose the same."""
    data = image_data()
    alone = small_teacher(data).teachers[0]
    assert isinstance(alone, Network)
    ids = torch.arange(50)
    a, b = (Uncertain(noisy(data), t).choose(ids) for t in (alone, Ensemble([alone])))
    assert torch.equal(a.index, b.index)


def test_what_a_network_calls_its_depth_plays_no_part() -> None:
    data, ids = image_data(), torch.arange(30)
    teacher, student = small_teacher(data), nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    plain = Uncertain(noisy(data), teacher)(ids)
    teacher.depth = 7  # type: ignore[attr-defined]
    student.depth = nn.Identity()
    assert same(Uncertain(noisy(data), teacher)(ids), plain)
    chosen = Uncertain(noisy(data), teacher, "divergence", student=student, task=data.task)(ids)
    assert len(chosen) == 30
