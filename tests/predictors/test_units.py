"""A torch module as a teacher is asked in the units that it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import extracurricular as xcl
from extracurricular.data.base import make_data
from extracurricular.errors import RecipeError
from extracurricular.predictors.given import read_teacher
from extracurricular.teachers import NetworkTeacher
from extracurricular.teachers.raw import RawTeacher

STUDENT = {"mlp": {"hidden": [8]}}


class Fixed(nn.Module):
    """A module without training: a function of its inputs."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Any) -> Tensor:
        found: Tensor = self.function(x)
        return found


def classes(count: int = 300) -> tuple[Any, Any]:
    """Three classes far from 0, which a rule on raw values tells apart."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, count)
    return (rng.normal(500, 1, (count, 4)) + 10 * y[:, None]).astype(np.float32), y


def reals(count: int = 300, noise: float = 3.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    x = rng.normal(100, 20, (count, 3)).astype(np.float32)
    y = 1000 + 5 * x[:, :1] + rng.normal(0, noise, (count, 1))
    return x, y.astype(np.float32)


def rule(x: Tensor) -> Tensor:
    """Logits for raw values."""
    return -(x.mean(1, keepdim=True) - torch.tensor([500.0, 510, 520], device=x.device)).square()


def standardised_rule(data: xcl.Data) -> nn.Module:
    scale = data.x_scale[""]
    return Fixed(lambda x: rule(x * scale.scale + scale.shift))


@pytest.mark.parametrize("raw", [None, True])
def test_a_module_for_raw_values_is_asked_in_raw_values(raw: bool | None) -> None:
    x, y = classes()
    found = xcl.distill(Fixed(rule), STUDENT, (x, y), steps=300, raw=raw)
    assert found.score(x, y) > 0.9  # chance is a third
    data = xcl.from_arrays(x, y)
    teacher = read_teacher(Fixed(rule), data, raw=raw)
    assert isinstance(teacher, RawTeacher)
    said = xcl.predict(teacher, data, data.test)
    assert isinstance(said, xcl.Categorical)
    wanted = rule(data.test.x).softmax(1)  # type: ignore[arg-type]
    torch.testing.assert_close(said.probs, wanted, rtol=1e-3, atol=1e-3)


def test_a_module_for_standardised_values_is_asked_in_those() -> None:
    data = xcl.from_arrays(*classes())
    module = standardised_rule(data)
    for raw in (None, False):
        teacher = read_teacher(module, data, raw=raw)
        assert isinstance(teacher, NetworkTeacher)
        assert teacher.module is module


def test_images_of_bytes_are_numbers_from_0_to_255() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    x = np.clip(rng.normal(60, 5, (200, 1, 4, 4)) + 100 * y[:, None, None, None], 0, 255)
    data = xcl.from_arrays(x.astype(np.uint8), y)
    seen: list[Tensor] = []

    def bright(x: Tensor) -> Tensor:
        seen.append(x)
        value = x.mean((1, 2, 3)) - 110
        return torch.stack([-value, value], 1)

    read_teacher(Fixed(bright), data, raw=True)
    torch.testing.assert_close(seen[-1], data.train.x[:2].float(), rtol=1e-4, atol=1e-2)  # type: ignore[index]


def test_means_alone_get_the_deviation_of_their_errors() -> None:
    x, y = reals()
    data = xcl.from_arrays(x, y, validation=0.3)
    for raw in (None, True):
        teacher = read_teacher(Fixed(lambda v: 1000 + 5 * v[:, :1]), data, raw=raw)
        said = xcl.predict(teacher, data, data.test)
        assert isinstance(said, xcl.Gaussian)
        left = data.validation.y - (1000 + 5 * data.validation.x[:, :1])  # type: ignore[index,operator]
        deviation = float(left.square().mean().sqrt())
        np.testing.assert_allclose(said.std, np.full((len(data.test), 1), deviation), rtol=1e-3)
        np.testing.assert_allclose(said.mean, 1000 + 5 * data.test.x[:, :1], rtol=1e-4)  # type: ignore[index]
    with pytest.raises(RecipeError, match=r"means alone; .* so give raw=True if they are means"):
        read_teacher(Fixed(lambda v: v[:, :1]), data, raw=False)


def test_means_and_log_variances_are_in_the_targets_own_units() -> None:
    data = xcl.from_arrays(*reals())

    def both(v: Tensor) -> Tensor:
        return torch.cat([1000 + 5 * v[:, :1], torch.full_like(v[:, :1], 2 * np.log(7.0))], 1)

    teacher = read_teacher(Fixed(both), data)
    assert isinstance(teacher, RawTeacher)
    said = xcl.predict(teacher, data, data.test)
    assert isinstance(said, xcl.Gaussian)
    np.testing.assert_allclose(said.std, np.full((len(data.test), 1), 7.0), rtol=1e-3)


@pytest.mark.parametrize(
    ("data", "answer", "says"),
    [
        (classes(), lambda x: torch.zeros(len(x), 3), r"raw inputs \(accuracy 0\.\d\d\) or stand"),
        (reals(), lambda x: x[:, :1] * 0, r"with raw inputs \(RMSE 1\.\d+e\+03\); the mean"),
        (reals(), lambda x: x[:, :2] * 0, r"raw inputs \(RMSE [^)]+\) or standardised inputs"),
        (classes(), lambda x: torch.full((len(x), 3), torch.nan), r"standardised inputs"),
    ],
)  # fmt: skip
def test_a_teacher_no_better_than_a_constant_is_refused(data: Any, answer: Any, says: str) -> None:
    module = Fixed(answer)
    with pytest.raises(RecipeError, match=f"^teacher: is no better than a constant.*{says}") as e:
        xcl.distill(module, STUDENT, data, steps=2)
    assert "raw=True or raw=False" in str(e.value)
    assert "\n" not in str(e.value)


def test_a_module_that_fails_on_one_kind_of_input_is_asked_in_the_other() -> None:
    data = xcl.from_arrays(*classes())

    def picky(x: Tensor) -> Tensor:
        if float(x.min()) < 100:
            raise KeyError("too small")
        return rule(x)

    assert isinstance(read_teacher(Fixed(picky), data), RawTeacher)
    with pytest.raises(RecipeError, match="asked about these data: KeyError: 'too small'"):
        read_teacher(Fixed(picky), data, raw=False)


def test_the_training_split_decides_where_validation_is_small() -> None:
    x, y = classes()
    data = make_data("few", (x, y), (x[:9], y[:9]), (x[:1], y[:1]))
    # One example is no evidence: the most frequent class may be right about it as well.
    assert isinstance(read_teacher(Fixed(rule), data), RawTeacher)
    none = make_data("none", (x, y), (x[:9], y[:9]))
    assert isinstance(read_teacher(Fixed(rule), none), RawTeacher)


def test_each_module_of_a_list_is_asked_in_its_own_way() -> None:
    data = xcl.from_arrays(*classes())
    found = read_teacher([Fixed(rule), standardised_rule(data)], data)
    assert isinstance(found, xcl.Ensemble)
    assert isinstance(found.teachers[0], RawTeacher)
    assert isinstance(found.teachers[1], NetworkTeacher)


def test_raw_is_for_modules() -> None:
    data = xcl.from_arrays(*classes())
    with pytest.raises(RecipeError, match="raw: is True, but the teacher is no torch module"):
        read_teacher({"random_forest": {"trees": 2}}, data, raw=True)


def test_a_teacher_keeps_its_mode() -> None:
    data = xcl.from_arrays(*classes())
    module = nn.Sequential(Fixed(rule), nn.Dropout(0.5))
    module.train()
    module[1].eval()
    given: list[Any] = [module, [module], xcl.Network(module, data.task)]
    for teacher in given:
        xcl.distill(teacher, STUDENT, data, steps=2)
        assert [part.training for part in module.modules()] == [True, True, False]
        with pytest.raises(RecipeError):
            xcl.distill(teacher, "absent", data, steps=2)
        assert [part.training for part in module.modules()] == [True, True, False]
    assert next(module.parameters()).requires_grad
