"""Residual networks for 32x32 images.

He et al. 2015, "Deep Residual Learning for Image Recognition", Sec. 4.2, in the variant of the
distillation literature (Tian et al. 2020, "Contrastive Representation Distillation"): where the
shape changes, the shortcut is a 1x1 convolution with batch norm, not padding with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from extracurricular.models.base import (
    MODELS,
    Shapes,
    blocks_per_stage,
    check_at_least,
    one_image,
)
from extracurricular.models.heads import Head, add_head
from extracurricular.models.layers import GlobalAveragePool, conv3x3, initialise_convolutions


class BasicBlock(nn.Module):
    """A residual block of two 3x3 convolutions with batch norm after each (He et al. 2015, Fig. 2).

    Args:
        channels_in: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, channels_in: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels, stride)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.project = (
            nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )
            if stride != 1 or channels_in != channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of shape ``[B, channels, ceil(H/stride), ceil(W/stride)]``."""
        shortcut = x if self.project is None else self.project(x)
        y: Tensor = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return F.relu(y + shortcut, inplace=True)


@MODELS.register("resnet{depth}")
def resnet(inputs: Shapes, outputs: int, *, depth: int, head: Head = "moments") -> nn.Module:
    """Build ``resnet8``, ``resnet20``, … ``resnet110``, with 16, 32 and 64 channels.

    Args:
        inputs: ``(C, H, W)``, of 8x8 or more.
        outputs: Number of outputs.
        depth: Layers with weights, 6n+2 (shortcuts not counted).
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is not one image, or no network has this depth.
    """
    return add_head(_resnet(inputs, outputs, depth, (16, 16, 32, 64)), head, outputs)


@MODELS.register("resnet{depth}x4")
def resnet_x4(inputs: Shapes, outputs: int, *, depth: int, head: Head = "moments") -> nn.Module:
    """Build ``resnet8x4``, ``resnet32x4``, … of Tian et al. 2020, with 64, 128 and 256 channels.

    The first convolution has 32 channels, twice those of ``resnet8``, not four times.

    Args:
        inputs: ``(C, H, W)``, of 8x8 or more.
        outputs: Number of outputs.
        depth: Layers with weights, 6n+2 (shortcuts not counted).
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is not one image, or no network has this depth.
    """
    return add_head(_resnet(inputs, outputs, depth, (32, 64, 128, 256)), head, outputs)


def _resnet(inputs: Shapes, outputs: int, depth: int, channels: Sequence[int]) -> nn.Sequential:
    """Build the network from the channels of its first convolution and of each stage."""
    image_channels, _, _ = one_image(inputs)
    check_at_least(1, outputs=outputs)
    blocks = blocks_per_stage(depth, extra=2)

    width = channels[0]
    model = nn.Sequential()
    model.add_module("stem", conv3x3(image_channels, width))
    model.add_module("norm", nn.BatchNorm2d(width))
    model.add_module("activation", nn.ReLU(inplace=True))
    for index, stage_width in enumerate(channels[1:]):
        stage = nn.Sequential()
        for block in range(blocks):
            stride = 2 if index > 0 and block == 0 else 1
            stage.append(BasicBlock(width, stage_width, stride=stride))
            width = stage_width
        model.add_module(f"stage{index + 1}", stage)
    model.add_module("pool", GlobalAveragePool())
    model.add_module("head", nn.Linear(width, outputs))
    initialise_convolutions(model)
    return model
