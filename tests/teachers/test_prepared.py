"""Networks made ready for answering answer as they did."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.models import build_model
from extracurricular.teachers.prepared import prepare

SPECS: list[tuple[Any, Any, int]] = [
    ({"digits_cnn": {"width": 8}}, (1, 8, 8), 10),
    ("resnet8x4", (3, 32, 32), 7),
    ("wrn-10-1", (3, 32, 32), 7),
    ("vgg8", (3, 32, 32), 7),
    ("mobilenetv2", (3, 32, 32), 7),
    ("shufflenetv2", (3, 32, 32), 7),
    ({"gaze_preact_resnet": {"width": 4, "stem_stride": 2}}, {"eye": (1, 36, 60), "pose": (2,)}, 4),
]


def inputs(shapes: Any, count: int) -> Any:
    if isinstance(shapes, dict):
        return {key: torch.randn(count, *shape) for key, shape in shapes.items()}
    return torch.randn(count, *shapes)


def trained(spec: Any, shapes: Any, outputs: int) -> nn.Module:
    """A network with batch norms that are not those of its start."""
    torch.manual_seed(0)
    module = build_model(spec, inputs=shapes, outputs=outputs).train()
    for _ in range(3):
        module(inputs(shapes, 16))
    return module.eval()


@pytest.mark.parametrize(("spec", "shapes", "outputs"), SPECS, ids=str)
def test_its_answers_are_those_of_the_network(spec: Any, shapes: Any, outputs: int) -> None:
    module = trained(spec, shapes, outputs)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    fast = prepare(module, inputs(shapes, 8))
    assert fast is not None
    with torch.no_grad():
        for count in (1, 5, 64):
            x = inputs(shapes, count)
            wanted = module(x)
            torch.testing.assert_close(fast(x), wanted, rtol=1e-3, atol=1e-3)
            kl = nn.functional.kl_div(
                fast(x).log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="none"
            )
            assert float(kl.sum(-1).abs().max()) < 1e-5
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert not fast.training


def test_batch_norms_are_folded() -> None:
    module = trained("resnet8", (3, 32, 32), 7)
    fast = prepare(module, inputs((3, 32, 32), 4))
    assert fast is not None
    assert any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fast.modules())


def test_there_is_nothing_to_prepare_without_images() -> None:
    module = trained({"mlp": {"hidden": [8]}}, (5,), 3)
    assert prepare(module, inputs((5,), 4)) is None


class Branching(nn.Module):
    """Its flow depends on values, so that it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return (y if float(x.mean()) > 0 else -y).mean((2, 3))


class Sized(nn.Module):
    """It holds the number of examples that it was traced with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).reshape(x.shape[0], 3) + torch.zeros(x.shape[0], 3)


@pytest.mark.parametrize("kind", [Branching, Sized])
def test_a_network_that_cannot_be_traced_keeps_its_answers(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    fast = prepare(module, torch.randn(4, 1, 8, 8))
    for count in (1, 9):
        x = torch.randn(count, 1, 8, 8)
        with torch.no_grad():
            wanted = module(x)
            found = wanted if fast is None else fast(x)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
