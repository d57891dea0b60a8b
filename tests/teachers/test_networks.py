"""Teachers: labels, networks that are left as they were, and ensembles of both kinds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extracurricular.distributions import Categorical, Gaussian, Task, mixture
from extracurricular.inputs import Batch
from extracurricular.teachers import (
    Ensemble,
    HasMembers,
    Labels,
    MCDropout,
    Network,
    Teacher,
    epistemic_uncertainty,
)

CLASSES = Task("classification", 3)
REALS = Task("regression", 2)


def batch(count: int = 12, width: int = 5, **given: Any) -> Batch:
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(4))
    return Batch(torch.arange(count), x, **given)


def image_batch(count: int = 6) -> Batch:
    x = torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(5)) + 0.5
    return Batch(torch.arange(count), x)


def plain(seed: int = 0, outputs: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, outputs))


def noisy(seed: int = 0, outputs: int = 3, p: float = 0.5) -> nn.Module:
    """A network whose training mode differs from its evaluation mode in every way."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(5, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(32, outputs),
    )


def state(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def assert_untouched(module: nn.Module, before: dict[str, Tensor]) -> None:
    after = module.state_dict()
    assert set(after) == set(before)
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    assert all(p.grad is None for p in module.parameters())


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_teachers_keep_the_protocols() -> None:
    network = Network(plain(), CLASSES)
    for teacher in (Labels(), network, Ensemble([network]), MCDropout(noisy(), CLASSES)):
        assert isinstance(teacher, Teacher)
    assert isinstance(Ensemble([network]), HasMembers)
    assert isinstance(MCDropout(noisy(), CLASSES), HasMembers)
    assert not isinstance(network, HasMembers)


# Labels


def test_labels_as_a_teacher() -> None:
    y = torch.arange(12) % 3
    indices = Labels()(batch(y=y, classes=3))
    assert isinstance(indices, Categorical)
    torch.testing.assert_close(indices.probs, F.one_hot(y, 3).float())

    soft = torch.rand(12, 3).softmax(1)
    mixed = Labels()(batch(y=soft, classes=3))
    assert isinstance(mixed, Categorical)
    torch.testing.assert_close(mixed.probs, soft)

    real = torch.randn(12, 2)
    points = Labels()(batch(y=real))
    assert isinstance(points, Gaussian)
    assert torch.equal(points.mean, real)
    assert bool((points.var == 0).all())


def test_learning_from_labels_is_maximum_likelihood() -> None:
    y = torch.arange(12) % 3
    student = Network(plain(), CLASSES)(batch())
    assert isinstance(student, Categorical)
    kl = Labels()(batch(y=y, classes=3)).kl(student)  # type: ignore[arg-type]
    torch.testing.assert_close(kl, student.nll(y))


def test_labels_need_labels() -> None:
    with pytest.raises(ValueError, match=r"'labels', but .* without labels"):
        Labels()(batch())


# One network


def test_a_network_gives_what_its_module_gives_in_evaluation() -> None:
    for task in (CLASSES, REALS):
        module = noisy(outputs=task.outputs)
        got = Network(module, task)(batch())
        expected = task.distribution(module.eval()(batch().x))
        assert torch.equal(got.parameters, expected.parameters)
        assert not got.parameters.requires_grad


def test_a_network_is_in_evaluation_mode_whoever_calls_train() -> None:
    module = noisy()
    teacher = Network(module, CLASSES)
    before = state(module)
    first = teacher(batch()).parameters
    for switch in (module.train, module[3].train, module[1].train):
        switch()
        assert torch.equal(teacher(batch()).parameters, first)  # no dropout, no batch statistics
        assert not any(part.training for part in module.modules())
    assert_untouched(module, before)


def test_a_network_records_no_gradients_and_stays_trainable() -> None:
    module = noisy()
    wants = [p.requires_grad for p in module.parameters()]
    student = plain(1)
    loss = Network(module, CLASSES)(batch()).kl(  # type: ignore[arg-type]
        CLASSES.distribution(student(batch().x))  # type: ignore[arg-type]
    )
    loss.mean().backward()
    assert all(p.grad is None for p in module.parameters())
    assert all(p.grad is not None for p in student.parameters())
    assert [p.requires_grad for p in module.parameters()] == wants
    assert torch.is_grad_enabled()


def test_a_network_of_the_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(12, 4\); classification needs 3 logits"):
        Network(plain(outputs=4), CLASSES)(batch())


# Ensembles


def test_an_ensemble_averages_probabilities() -> None:
    teachers = [Network(plain(seed), CLASSES) for seed in range(4)]
    ensemble = Ensemble(teachers)
    members = ensemble.members(batch())
    assert len(members) == 4
    for member, teacher in zip(members, teachers, strict=True):
        assert torch.equal(member.parameters, teacher(batch()).parameters)
    probs = torch.stack([t(batch()).mean for t in teachers])
    torch.testing.assert_close(ensemble(batch()).mean, probs.mean(0))
    logits = torch.stack([t(batch()).parameters for t in teachers]).mean(0)
    assert float((logits.softmax(-1) - probs.mean(0)).abs().max()) > 1e-3


def test_an_ensemble_of_regressors_matches_moments() -> None:
    teachers = [Network(plain(seed, 4), REALS) for seed in range(3)]
    members = [t(batch()) for t in teachers]
    got = Ensemble(teachers)(batch())
    assert isinstance(got, Gaussian)
    means = torch.stack([m.mean for m in members])
    variances = torch.stack([m.var for m in members])  # type: ignore[union-attr]
    torch.testing.assert_close(got.mean, means.mean(0))
    torch.testing.assert_close(got.var, variances.mean(0) + means.var(0, correction=0))
    spread = epistemic_uncertainty(Ensemble(teachers), batch())
    torch.testing.assert_close(spread, means.var(0, correction=0))


def test_an_ensemble_of_one_is_that_one() -> None:
    teacher = Network(plain(), CLASSES)
    torch.testing.assert_close(Ensemble([teacher])(batch()).mean, teacher(batch()).mean)


def test_an_ensemble_keeps_its_own_list() -> None:
    teachers = [Network(plain(), CLASSES)]
    ensemble = Ensemble(teachers)
    teachers.clear()
    assert len(ensemble(batch())) == 12


def test_an_ensemble_needs_members_of_one_kind() -> None:
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
    odd = Ensemble([Network(plain(), CLASSES), Network(plain(0, 4), REALS)])
    with pytest.raises(ValueError, match="all of one family"):
        odd(batch())


def test_epistemic_uncertainty_is_the_disagreement_of_the_members() -> None:
    same = Network(plain(), CLASSES)
    alike = epistemic_uncertainty(Ensemble([same, same]), batch())
    assert alike.shape == (12,)
    assert float(alike.max()) == pytest.approx(0, abs=1e-5)
    differ = Ensemble([Network(plain(seed), CLASSES) for seed in range(4)])
    assert bool((epistemic_uncertainty(differ, batch()) > 0).all())
    assert float(epistemic_uncertainty(differ, batch()).max()) <= math.log(4)
    # Far from the data, members differ more.
    far = Batch(batch().ids, batch().x * 20)  # type: ignore[operator]
    near = epistemic_uncertainty(differ, batch()).mean()
    assert float(epistemic_uncertainty(differ, far).mean()) > float(near)


# MC dropout


def test_mc_dropout_is_a_mixture_over_thinned_networks() -> None:
    teacher = MCDropout(noisy(), CLASSES, passes=5)
    members = teacher.members(batch())
    assert len(members) == 5
    torch.testing.assert_close(teacher(batch()).mean, mixture(members).mean)
    for i, a in enumerate(members):
        for b in members[:i]:
            assert float((a.mean - b.mean).abs().max()) > 1e-3
    assert bool((epistemic_uncertainty(teacher, batch()) > 0).all())
    plain_prediction = Network(teacher.network.module, CLASSES)(batch())
    assert all(float((m.mean - plain_prediction.mean).abs().max()) > 1e-3 for m in members)


def test_mc_dropout_is_a_function_of_the_example() -> None:
    teacher = MCDropout(noisy(), CLASSES, passes=4)
    whole = batch()
    expected = teacher(whole).mean
    order = torch.randperm(12)
    torch.testing.assert_close(teacher(whole[order]).mean, expected[order])
    for k in range(12):
        torch.testing.assert_close(teacher(whole[k : k + 1]).mean, expected[k : k + 1])
    # Nor does it depend on the ids, on what was asked before, or on the global generator.
    torch.manual_seed(99)
    other_ids = Batch(whole.ids + 100, whole.x)
    assert torch.equal(teacher(other_ids).mean, expected)
    assert len(teacher(whole[:0])) == 0


def test_mc_dropout_leaves_the_global_generator_alone() -> None:
    teacher = MCDropout(noisy(), CLASSES)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    teacher(batch())
    assert torch.equal(torch.rand(4), expected)


def test_mc_dropout_repeats_by_seed() -> None:
    a, b, c = (MCDropout(noisy(), CLASSES, seed=s)(batch()).mean for s in (7, 7, 8))
    assert torch.equal(a, b)
    assert float((a - c).abs().max()) > 1e-3
    # The first passes do not depend on how many follow.
    few, many = (MCDropout(noisy(), CLASSES, passes=n).members(batch()) for n in (2, 6))
    for first, second in zip(few, many[:2], strict=True):
        assert torch.equal(first.mean, second.mean)


def test_mc_dropout_leaves_the_network_as_it_was() -> None:
    module = noisy()
    module.train()
    before = state(module)
    teacher = MCDropout(module, CLASSES)
    teacher(batch())
    assert not any(part.training for part in module.modules())
    assert hooks(module) == 0
    assert_untouched(module, before)
    assert not teacher(batch()).parameters.requires_grad
    # Afterwards the network alone has no dropout.
    torch.testing.assert_close(module(batch().x), module(batch().x))


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ArithmeticError("no")


def test_mc_dropout_removes_its_hooks_even_after_an_error() -> None:
    module = nn.Sequential(nn.Dropout(0.5), Breaks())
    with pytest.raises(ArithmeticError):
        MCDropout(module, CLASSES)(batch())
    assert hooks(module) == 0


def test_masks_keep_units_at_the_right_rate_and_scale() -> None:
    p = 0.3
    module = nn.Sequential(nn.Dropout(p), nn.Identity())
    width = 2000
    members = MCDropout(module, Task("classification", width), passes=20).members(
        Batch(torch.arange(2), torch.ones(2, width))
    )
    masks = torch.stack([m.parameters for m in members])  # [passes, examples, units]
    kept = masks != 0
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=0.01)
    torch.testing.assert_close(masks[kept], torch.full_like(masks[kept], 1 / (1 - p)))
    assert torch.equal(masks[:, 0], masks[:, 1])  # shared by the examples of a pass
    assert len({tuple(m[0].tolist()) for m in masks}) == 20  # and different in each pass
    # Passes are independent: two of them keep a unit together at the squared rate.
    both = (kept[:-1, 0] & kept[1:, 0]).float().mean()
    assert float(both) == pytest.approx((1 - p) ** 2, abs=0.01)


def test_layers_have_masks_of_their_own() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    width = 4000
    member = MCDropout(module, Task("classification", width), passes=1).members(
        Batch(torch.arange(1), torch.ones(1, width))
    )[0]
    # Were the masks equal, half of the units would be kept, not a quarter.
    assert float((member.parameters != 0).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_the_mean_over_many_passes_is_the_network_itself_where_it_is_linear() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 64), nn.Dropout(0.4), nn.Linear(64, 4))
    teacher = MCDropout(module, REALS, passes=1500)
    members = torch.stack([m.mean for m in teacher.members(batch())])
    expected = Network(module, REALS)(batch()).mean
    error = members.std(0) / math.sqrt(1500)
    assert bool(((members.mean(0) - expected).abs() < 5 * error).all())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Dropout1d, (3, 40, 6)), (nn.Dropout2d, (3, 40, 4, 5)), (nn.Dropout3d, (3, 40, 2, 3, 4))],
)
def test_channel_dropout_drops_whole_channels(
    layer: type[nn.Module], shape: tuple[int, ...]
) -> None:
    module = nn.Sequential(layer(0.5), nn.Flatten())
    width = math.prod(shape[1:])
    member = MCDropout(module, Task("classification", width), passes=1).members(
        Batch(torch.arange(3), torch.ones(shape))
    )[0]
    kept = member.parameters.view(shape).flatten(2)
    assert bool(((kept == 0).all(-1) | (kept == 2).all(-1)).all())
    share = float((kept[0, :, 0] != 0).float().mean())
    assert 0.2 < share < 0.8


def test_plain_dropout_on_images_drops_single_pixels() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Flatten())
    member = MCDropout(module, Task("classification", 72), passes=1).members(image_batch())[0]
    kept = (member.parameters != 0).view(6, 2, 36)[0]
    assert all(0 < int(channel.sum()) < 36 for channel in kept)


def test_mc_dropout_of_a_convolutional_regressor() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(256, 4)
    )
    teacher = MCDropout(module, REALS, passes=6)
    got = teacher(image_batch())
    assert isinstance(got, Gaussian)
    spread = epistemic_uncertainty(teacher, image_batch())
    assert spread.shape == (6, 2)
    assert bool((spread > 0).all())
    assert bool((got.var > spread).all())


def test_mc_dropout_in_half_precision_answers_in_the_precision_of_the_network() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Identity())
    x = torch.ones(2, 6, dtype=torch.bfloat16)
    task = Task("classification", 6)
    member = MCDropout(module, task, passes=1).members(Batch(torch.arange(2), x))[0]
    assert member.parameters.dtype == torch.bfloat16


def test_a_layer_that_drops_everything_drops_everything() -> None:
    module = nn.Sequential(nn.Linear(5, 3), nn.Dropout(1.0))
    member = MCDropout(module, CLASSES, passes=1).members(batch())[0]
    assert bool((member.parameters == 0).all())


def test_mc_dropout_refuses_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="needs a network with a dropout layer whose p is above 0"):
        MCDropout(plain(), CLASSES)
    with pytest.raises(ValueError, match="dropout layer whose p is above 0"):
        MCDropout(noisy(p=0.0), CLASSES)
    for passes in (0, -3):
        with pytest.raises(ValueError, match=f"passes is {passes}; it must be at least 1"):
            MCDropout(noisy(), CLASSES, passes=passes)
