"""MobileNetV2 for 32x32 images.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", Table 2, in the
variant of the distillation literature (Tian et al. 2020): half the channels, strides of 1 where
32x32 images would otherwise shrink to nothing, and ReLU for ReLU6.
"""

from __future__ import annotations

from torch import Tensor, nn

from extracurricular.models.base import MODELS, Shapes, check_at_least, one_image
from extracurricular.models.heads import Head, add_head
from extracurricular.models.layers import GlobalAveragePool, initialise_convolutions

# Each stage has: expansion, channels at full width, blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_LAST = 1280


def _convolution(
    channels_in: int, channels: int, size: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution and its batch norm."""
    convolution = nn.Conv2d(
        channels_in, channels, size, stride, size // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(channels)]


class InvertedResidual(nn.Module):
    """A block that widens, filters each channel by itself, and narrows (Sec. 3.3).

    Its input is added to its output if both have the same shape.

    Args:
        channels_in: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the filter.
        expansion: Factor on the channels in between.
    """

    def __init__(self, channels_in: int, channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.body = nn.Sequential(
            *_convolution(channels_in, wide, 1),
            nn.ReLU(inplace=True),
            *_convolution(wide, wide, 3, stride=stride, groups=wide),
            nn.ReLU(inplace=True),
            *_convolution(wide, channels, 1),
        )
        self.joins = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of shape ``[B, channels, ceil(H/stride), ceil(W/stride)]``."""
        y: Tensor = self.body(x)
        return x + y if self.joins else y


@MODELS.register("mobilenetv2")
def mobilenet_v2(
    inputs: Shapes, outputs: int, *, width: float = 0.5, head: Head = "moments"
) -> nn.Module:
    """Build MobileNetV2 for images of about 32x32, at half width as the literature has it.

    Args:
        inputs: ``(C, H, W)``.
        outputs: Number of outputs.
        width: Factor on the channels; the last convolution has at least 1280.
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is not one image, or a setting is out of range.
    """
    channels, _, _ = one_image(inputs)
    check_at_least(1, outputs=outputs)
    if int(16 * width) < 1:
        raise ValueError(f"width is {width}; it should be at least 0.0625, for one channel of 16")

    model = nn.Sequential()
    here = int(32 * width)
    stem = [*_convolution(channels, here, 3, stride=2), nn.ReLU(inplace=True)]
    model.add_module("stem", nn.Sequential(*stem))
    for index, (expansion, full, blocks, first) in enumerate(_STAGES):
        stage = nn.Sequential()
        for block in range(blocks):
            stride = first if block == 0 else 1
            there = int(full * width)
            stage.append(InvertedResidual(here, there, stride=stride, expansion=expansion))
            here = there
        model.add_module(f"stage{index}", stage)
    last = max(_LAST, int(_LAST * width))
    end = [*_convolution(here, last, 1), nn.ReLU(inplace=True)]
    model.add_module("last", nn.Sequential(*end))
    model.add_module("pool", GlobalAveragePool())
    model.add_module("head", nn.Linear(last, outputs))
    initialise_convolutions(model)
    return add_head(model, head, outputs)
