"""A head of natural parameters: the same Gaussians, by another way of the gradients."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.distributions import Gaussian, Task
from extracurricular.errors import RecipeError
from extracurricular.export import ship
from extracurricular.matching import Matching
from extracurricular.models import build_model, parameter_count
from extracurricular.models.heads import NaturalHead, check_head, moments
from tests.conftest import eye_data, table_data
from tests.models.test_models import EXAMPLES, Example, draw

OUTPUTS = 4  # two targets


def with_head(example: Example, head: str, outputs: int = OUTPUTS) -> nn.Module:
    [(name, given)] = (
        example.spec.items() if isinstance(example.spec, dict) else [(example.spec, {})]
    )
    torch.manual_seed(0)
    spec = {name: {**given, "head": head}}
    return build_model(spec, inputs=example.inputs, outputs=outputs)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_every_network_may_have_it(example: Example) -> None:
    plain, natural = with_head(example, "moments"), with_head(example, "natural")
    assert parameter_count(natural) == parameter_count(plain)
    natural.load_state_dict(plain.state_dict())  # the same names: it has no weights
    x = draw(example.inputs, 3)
    with torch.no_grad():
        raw, found = plain.eval()(x), natural.eval()(x)
    assert found.shape == (3, OUTPUTS)
    torch.testing.assert_close(found, moments(raw))
    assert not torch.equal(found, raw)


def test_outputs_are_natural_parameters() -> None:
    raw = torch.randn(50, 6, dtype=torch.float64) * 3
    eta_1, second = raw.chunk(2, -1)
    eta_2 = -0.5 * nn.functional.softplus(second)
    found = Gaussian.from_output(moments(raw))
    torch.testing.assert_close(found.log_var, (-0.5 / eta_2).log(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.mean, -0.5 * eta_1 / eta_2, rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_an_exponential_family() -> None:
    """The gradient of the likelihood is the expected statistic less the one that was seen."""
    raw = torch.randn(20, 2, dtype=torch.float64)
    y = torch.randn(20, 1, dtype=torch.float64)
    raw = raw.float().requires_grad_()
    found = Gaussian.from_output(moments(raw))
    found.nll(y).sum().backward()
    assert raw.grad is not None
    by_first, by_second = raw.grad.chunk(2, -1)
    mean, var = found.mean.detach(), found.var.detach()
    torch.testing.assert_close(by_first, mean - y.float(), rtol=1e-4, atol=1e-5)
    # η₂ = -softplus(r) / 2, of which the derivative is -sigmoid(r) / 2.
    squares = mean.square() + var - y.float().square()
    expected = -0.5 * torch.sigmoid(raw.detach()[:, 1:]) * squares
    torch.testing.assert_close(by_second, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("extreme", [14.9, 15.1, 80.0, 300.0, 6e4])
def test_extreme_parameters_stay_finite(dtype: torch.dtype, extreme: float) -> None:
    first = [0.0, 1.0, -extreme]
    raw = torch.tensor([[a, b] for a in first for b in (extreme, -extreme)], dtype=dtype)
    raw.requires_grad_()
    found = moments(raw)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    loss = Matching()(Gaussian.from_output(found), Gaussian.point(torch.zeros(6, 1)))
    loss.backward()
    assert bool(loss.isfinite())
    assert raw.grad is not None
    assert not bool(raw.grad.isnan().any())


def test_the_logarithm_of_softplus_has_no_step() -> None:
    second = torch.linspace(-15.01, -14.99, 401)
    found = moments(torch.stack([torch.zeros_like(second), second], -1))[:, 1]
    torch.testing.assert_close(found, -second, rtol=0, atol=1e-5)
    large = moments(torch.tensor([[0.0, 1e3]]))
    assert float(large[0, 1]) == pytest.approx(-math.log(1e3), rel=1e-6)


def test_it_learns_mean_and_variance() -> None:
    """Of noise that grows along a line."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2000, 1, generator=g)
    y = x + (0.1 + 0.4 * x) * torch.randn(2000, 1, generator=g)
    torch.manual_seed(0)
    spec = {"mlp": {"hidden": [16], "head": "natural"}}
    model = build_model(spec, inputs=(1,), outputs=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    match = Matching(beta=0.0)
    for _ in range(800):
        optimizer.zero_grad()
        match(Gaussian.from_output(model(x)), Gaussian.point(y)).backward()
        optimizer.step()
    ends = torch.tensor([[0.1], [0.9]])
    with torch.no_grad():
        found = Gaussian.from_output(model(ends))
    torch.testing.assert_close(found.mean, ends, rtol=0, atol=0.06)
    torch.testing.assert_close(found.std, 0.1 + 0.4 * ends, rtol=0.2, atol=0)


@pytest.mark.parametrize(
    ("data", "spec"),
    [
        (table_data, {"mlp": {"hidden": [5], "head": "natural"}}),
        (eye_data, {"mlp": {"hidden": [5], "norm": True, "head": "natural"}}),
    ],
    ids=["table", "eyes"],
)
@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_it_is_exported(data: Any, spec: Any, form: Any, tmp_path: Path) -> None:
    """The export is compared with the network's own answers before it is written."""
    made = data()
    torch.manual_seed(0)
    module = build_model(spec, inputs=made.shapes, outputs=made.task.outputs).eval()
    shipped = ship.export_module(module, made, tmp_path / f"s{ship.SUFFIXES[form]}", format=form)
    assert shipped.files[0].is_file()


def test_batch_norms_of_such_a_network_are_folded() -> None:
    """A network is traced for that, and the head must not stop it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.fx.experimental.optimization import fuse

    torch.manual_seed(0)
    spec = {"resnet8": {"head": "natural"}}
    module = build_model(spec, inputs=(1, 8, 8), outputs=OUTPUTS).eval()
    fused = fuse(copy.deepcopy(module))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    x: Tensor = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(fused(x), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("head", "outputs", "says"),
    [
        ("natural", 3, "head is 'natural', .* two outputs for each, but there are 3 outputs"),
        ("natura", 4, "'moments' or 'natural'"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(head: str, outputs: int, says: str) -> None:
    for example in EXAMPLES:
        with pytest.raises(RecipeError, match=says):
            with_head(example, head, outputs)


def test_classes_have_no_natural_head() -> None:
    model = with_head(EXAMPLES[0], "natural")
    assert any(isinstance(part, NaturalHead) for part in model.modules())
    with pytest.raises(RecipeError, match=r"^a\.model: head is 'natural', .* have classes"):
        check_head(model, Task("classification", 4), "a.model")
    check_head(model, Task("regression", 2), "a.model")
    check_head(with_head(EXAMPLES[0], "moments"), Task("classification", 4), "a.model")
