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


# In bfloat16


@pytest.mark.parametrize(("spec", "shapes", "outputs"), SPECS, ids=str)
def test_in_bfloat16_it_answers_in_float32_whatever_autocast_says(
    spec: Any, shapes: Any, outputs: int
) -> None:
    module = trained(spec, shapes, outputs)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    x = inputs(shapes, 8)
    fast = prepare(module, x, torch.bfloat16)
    assert fast is not None
    assert {v.dtype for v in fast.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        found, wanted = fast(x), module(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(fast(x), found, rtol=0, atol=0)
    assert found.dtype == torch.float32
    # Rounded indeed, and close.
    assert not torch.equal(found, wanted)
    assert float((found - wanted).abs().max()) < 0.1 * float(wanted.abs().max())
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_in_bfloat16_batch_norms_are_folded_and_images_are_channels_last() -> None:
    module = trained("resnet8", (3, 32, 32), 7)
    fast = prepare(module, inputs((3, 32, 32), 4), torch.bfloat16)
    assert fast is not None
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fast.modules())
    kernels = [part.weight for part in fast.modules() if isinstance(part, nn.Conv2d)]
    assert all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)


def test_in_float32_it_answers_in_full_under_autocast() -> None:
    module = trained({"mlp": {"hidden": [8]}}, (5,), 3)
    x = inputs((5,), 4)
    fast = prepare(module, x, torch.float32)
    assert fast is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, rounded = fast(x), module(x)
    with torch.no_grad():
        torch.testing.assert_close(found, module(x))
    assert rounded.dtype == torch.bfloat16


def test_whole_numbers_among_the_inputs_keep_their_type() -> None:
    class Looked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x)

    fast = prepare(Looked().eval(), torch.tensor([0, 3, 1]), torch.bfloat16)
    assert fast is not None
    assert fast(torch.tensor([2])).dtype == torch.float32


class Huge(nn.Module):
    """It multiplies by more than its type holds."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1e38 * 1e5


class Mixed(nn.Module):
    """It makes a product with a matrix of float32, which bfloat16 does not go with."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.eye(x.shape[1])


@pytest.mark.parametrize("kind", [Huge, Mixed])
def test_a_network_that_cannot_answer_in_bfloat16_is_not_prepared(kind: type[nn.Module]) -> None:
    assert prepare(kind().eval(), torch.ones(4, 3), torch.bfloat16) is None
