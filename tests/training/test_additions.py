"""Features of layers, and simulated 8 bits: beside the loss, and gone with the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extracurricular.errors import RecipeError
from extracurricular.models import build_model
from extracurricular.samplers import Empirical, Mixup
from extracurricular.teachers import Ensemble, Labels, Network
from extracurricular.training import Execution, Training, TrainingResult, train
from extracurricular.training.additions import Additions
from extracurricular.training.features import Features, feature_loss
from extracurricular.training.simulated import (
    Simulated,
    folded_norms,
    rounded_weights,
    scale_of,
)
from tests.conftest import image_data

IMAGES = image_data()


def network(seed: int = 0, width: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    spec = {"digits_cnn": {"width": width, "depth": 1}}
    return build_model(spec, inputs=IMAGES.shapes, outputs=4)


def trained(
    additions: Additions | None, folder: Path | None = None, **more: Any
) -> tuple[nn.Module, TrainingResult]:
    student = network()
    result = train(
        student, Mixup(Empirical(IMAGES)), Ensemble([Network(network(5, 4), IMAGES.task)]),
        IMAGES.task, settings=Training(steps=30, batch_size=8, lr=0.05, checkpoint_every=10),
        folder=folder, additions=additions, **more,
    )  # fmt: skip
    return student, result


MSE = Additions(Features("0", "0"))
ADDED = {
    "mse": MSE,
    "attention": Additions(Features("0", "0", "attention", 10.0)),
    "similarity": Additions(Features("0", "0", "similarity", 10.0)),
    "int8": Additions(quantise="int8"),
    "both": Additions(Features("0", "0"), "int8"),
}


@pytest.mark.parametrize("which", ADDED)
def test_it_changes_the_student_and_leaves_it_as_it_was_built(which: str) -> None:
    plain, added = trained(None)[0], trained(ADDED[which])[0]
    assert plain.state_dict().keys() == added.state_dict().keys()
    assert any(
        not torch.equal(a, b) for a, b in zip(plain.parameters(), added.parameters(), strict=True)
    )
    for part in added.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
        assert "forward" not in part.__dict__


def test_none_of_it_is_the_plain_training_to_the_last_bit() -> None:
    plain, none = trained(None)[0].state_dict(), trained(Additions())[0].state_dict()
    assert all(torch.equal(plain[name], none[name]) for name in plain)


@pytest.mark.parametrize("which", ADDED)
def test_an_interrupted_training_goes_on_to_the_last_bit(which: str, tmp_path: Path) -> None:
    whole, result = trained(ADDED[which])
    trained(ADDED[which], tmp_path, stop=13)
    parts, again = trained(ADDED[which], tmp_path)
    assert result.ranges == again.ranges
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


# Features


def test_the_losses_of_features_are_their_formulas() -> None:
    made = torch.Generator().manual_seed(2)
    said, wanted = (torch.randn(5, c, 4, 4, generator=made) for c in (3, 6))
    assert float(feature_loss("mse", said, said)) == 0
    half = feature_loss("mse", said, said + 0.5)
    assert float(half) == pytest.approx(0.25)
    maps = [(v**2).sum(1).flatten(1) for v in (said, wanted)]
    maps = [m / m.norm(dim=1, keepdim=True) for m in maps]
    expected = (maps[0] - maps[1]).square().mean()
    torch.testing.assert_close(feature_loss("attention", said, wanted), expected)
    pairs = [v.flatten(1) @ v.flatten(1).T for v in (said, wanted)]
    pairs = [g / g.norm(dim=1, keepdim=True) for g in pairs]
    expected = (pairs[0] - pairs[1]).square().sum() / 25
    torch.testing.assert_close(feature_loss("similarity", said, wanted), expected)
    # Weight 2 on one example and 0 on another is the first alone.
    weight = torch.tensor([2.0, 0.0])
    torch.testing.assert_close(
        feature_loss("mse", said[:2], said[:2] * 2, weight),
        feature_loss("mse", said[:1], said[:1] * 2),
    )


def test_larger_maps_are_averaged_to_the_smaller() -> None:
    small, large = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 8, 8)
    expected = (small - F.avg_pool2d(large, 2)).square().mean()
    torch.testing.assert_close(feature_loss("mse", small, large), expected)


def test_the_students_features_near_the_teachers() -> None:
    """With the same shapes there is no projector, so that the layer itself must learn them."""
    teacher = network(5)
    apart = []
    for additions in (None, Additions(Features("0", "0", "mse", 50.0))):
        student = network()
        train(
            student, Empirical(IMAGES), Network(teacher, IMAGES.task), IMAGES.task,
            settings=Training(steps=150, batch_size=16, optimizer="adam", lr=0.01),
            additions=additions,
        )  # fmt: skip
        x = Empirical(IMAGES)(torch.arange(30)).x
        with torch.no_grad():
            apart.append(float((student[0](x) - teacher[0](x)).square().mean()))  # type: ignore[index]
    assert apart[1] < 0.1 * apart[0]


def test_wrong_features_are_refused_in_one_sentence() -> None:
    cases: dict[str, Features] = {
        r"features\.student: is '00', which is no layer; did you mean '0'": Features("00", "0"),
        r"features\.teacher: is 'head', which is no layer; known: 0, ": Features("0", "head"),
        r"features\.loss: is 'mse', which needs vectors.*\(2, 8, 8\) of the student": Features(
            "0", "7"
        ),
    }
    for says, features in cases.items():
        with pytest.raises(RecipeError, match=says):
            trained(Additions(features))
    with pytest.raises(RecipeError, match=r"features\.loss: is 'l1'; it must be one of mse, att"):
        Features("0", "0", "l1")  # type: ignore[arg-type]
    with pytest.raises(
        RecipeError, match=r"features: matches layers of the teacher, but it is no net"
    ):
        train(network(), Empirical(IMAGES), Labels(), IMAGES.task, additions=MSE)
    with pytest.raises(RecipeError, match=r"device\.compile: is true, but features is set"):
        trained(MSE, execution=Execution(compile=True))


# 8 bits


def test_weights_have_a_scale_by_channel_and_activations_one_by_tensor() -> None:
    made = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 3, 2, generator=made) * torch.tensor([1.0, 10.0, 0.1, 0.0]).view(
        4, 1, 1
    )
    scale = weight.abs().flatten(1).amax(1).view(4, 1, 1).clamp_min(1e-30) / 127
    torch.testing.assert_close(rounded_weights(weight), (weight / scale).round() * scale)
    found, zero = scale_of(torch.tensor([-1.0, 3.0]))
    assert float(found) == pytest.approx(4 / 255)
    assert int(zero) == round(-128 + 255 / 4)
    # A range that leaves 0 out is widened to it.
    assert int(scale_of(torch.tensor([2.0, 5.0]))[1]) == -128
    assert float(scale_of(torch.tensor([2.0, 5.0]))[0]) == pytest.approx(5 / 255)


def test_gradients_pass_the_rounding_as_they_are() -> None:
    weight = torch.randn(4, 3, requires_grad=True)
    rounded_weights(weight).square().sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, 2 * rounded_weights(weight).detach())


def test_the_range_of_a_layer_follows_what_it_sees_in_training_alone() -> None:
    layer = nn.Sequential(nn.Linear(3, 2))
    simulated = Simulated(layer, {})
    first = torch.tensor([[-2.0, 0.0, 4.0]])
    layer.train()(first)
    assert simulated.found()["0"]["input"] == [-2.0, 4.0]
    layer(3 * first)  # it widens at once
    assert simulated.found()["0"]["input"] == [-6.0, 12.0]
    layer(first)  # and narrows slowly
    low, high = simulated.found()["0"]["input"]
    assert (low, high) == pytest.approx((-5.96, 11.92))
    layer.eval()(100 * first)
    assert simulated.found()["0"]["input"] == [low, high]
    simulated.stop()


def test_rounding_sets_in_halfway() -> None:
    """Up to there the student is the one in floating point, to the last bit."""
    weights: list[dict[str, Tensor]] = []
    for additions in (None, Additions(quantise="int8")):
        for stop in (15, 16):
            student = network()
            train(
                student, Empirical(IMAGES), Network(network(5), IMAGES.task), IMAGES.task,
                settings=Training(steps=30, batch_size=8, lr=0.05), additions=additions, stop=stop,
            )  # fmt: skip
            weights.append(student.state_dict())
    same = [
        all(torch.equal(weights[k][name], weights[k + 2][name]) for name in weights[0])
        for k in (0, 1)
    ]
    assert same == [True, False]


def test_batch_norms_behind_a_layer_are_found() -> None:
    student = network()
    folded = folded_norms(student, lambda: student(Empirical(IMAGES)(torch.arange(2)).x))
    assert folded["0"] == "1"
    assert student.training


def test_half_precision_stays_half() -> None:
    layer = nn.Sequential(nn.Linear(3, 2)).bfloat16()
    simulated = Simulated(layer, {})
    out: Tensor = layer(torch.randn(4, 3).bfloat16())
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    simulated.stop()
