"""ShuffleNet V1 and V2 for 32x32 images.

Zhang et al. 2018, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
Devices", Table 1 (g = 3), and Ma et al. 2018, "ShuffleNet V2: Practical Guidelines for Efficient
CNN Architecture Design", Table 5 (1x), in the variants of the distillation literature (Tian et al.
2020): the first layer is a 1x1 convolution, and no pooling follows it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extracurricular.models.base import MODELS, Shapes, check_at_least, one_image
from extracurricular.models.heads import Head, add_head
from extracurricular.models.layers import GlobalAveragePool, initialise_convolutions

_STEM = 24


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of ``groups`` groups, ``[B, C, H, W]`` to the same."""
    batch, channels, rows, columns = x.shape
    parts = x.view(batch, groups, channels // groups, rows, columns)
    return parts.transpose(1, 2).reshape(batch, channels, rows, columns)


def _pointwise(channels_in: int, channels: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 1, groups=groups, bias=False)


def _depthwise(channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)


class GroupedBlock(nn.Module):
    """A block of V1: grouped 1x1 convolutions with a shuffle between (Zhang et al., Fig. 2).

    Args:
        channels_in: Channels of the input.
        channels: Channels of the output. With stride 2 those of the input are among them.
        stride: 1, or 2; with 2 the averaged input is appended to the output.
        groups: Groups of the second 1x1 convolution.
        first: Groups of the first 1x1 convolution.
    """

    def __init__(
        self, channels_in: int, channels: int, *, stride: int, groups: int, first: int
    ) -> None:
        super().__init__()
        made = channels - channels_in if stride == 2 else channels
        narrow = made // 4
        self.stride, self.first = stride, first
        self.conv1 = _pointwise(channels_in, narrow, first)
        self.norm1 = nn.BatchNorm2d(narrow)
        self.conv2 = _depthwise(narrow, stride)
        self.norm2 = nn.BatchNorm2d(narrow)
        self.conv3 = _pointwise(narrow, made, groups)
        self.norm3 = nn.BatchNorm2d(made)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of shape ``[B, channels, ceil(H/stride), ceil(W/stride)]``."""
        y = shuffle(F.relu(self.norm1(self.conv1(x))), self.first)
        # The papers have no ReLU after the filter; the variant of V1 here has one.
        y = F.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        if self.stride == 2:
            return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], dim=1))
        return F.relu(y + x)


class SplitBlock(nn.Module):
    """A block of V2 with stride 1: half of the channels pass by (Ma et al., Fig. 3c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = _pointwise(half, half)
        self.norm1 = nn.BatchNorm2d(half)
        self.conv2 = _depthwise(half, 1)
        self.norm2 = nn.BatchNorm2d(half)
        self.conv3 = _pointwise(half, half)
        self.norm3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the input's shape."""
        past, y = x.chunk(2, dim=1)
        y = F.relu(self.norm1(self.conv1(y)))
        y = self.norm2(self.conv2(y))
        y = F.relu(self.norm3(self.conv3(y)))
        return shuffle(torch.cat([past, y], dim=1), 2)


class DownBlock(nn.Module):
    """A block of V2 with stride 2, whose two branches see all channels (Ma et al., Fig. 3d)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = _depthwise(channels_in, 2)
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv2 = _pointwise(channels_in, half)
        self.norm2 = nn.BatchNorm2d(half)
        self.conv3 = _pointwise(channels_in, half)
        self.norm3 = nn.BatchNorm2d(half)
        self.conv4 = _depthwise(half, 2)
        self.norm4 = nn.BatchNorm2d(half)
        self.conv5 = _pointwise(half, half)
        self.norm5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of shape ``[B, channels, ceil(H/2), ceil(W/2)]``."""
        left = F.relu(self.norm2(self.conv2(self.norm1(self.conv1(x)))))
        right = self.norm4(self.conv4(F.relu(self.norm3(self.conv3(x)))))
        right = F.relu(self.norm5(self.conv5(right)))
        return shuffle(torch.cat([left, right], dim=1), 2)


def _body(channels: int) -> nn.Sequential:
    """Return a network that has only its stem; stages are added to it."""
    model = nn.Sequential()
    model.add_module("stem", _pointwise(channels, _STEM))
    model.add_module("norm", nn.BatchNorm2d(_STEM))
    model.add_module("activation", nn.ReLU(inplace=True))
    return model


@MODELS.register("shufflenetv1")
def shufflenet_v1(inputs: Shapes, outputs: int, *, head: Head = "moments") -> nn.Module:
    """Build ShuffleNet V1 with 3 groups and stages of 240, 480 and 960 channels.

    Args:
        inputs: ``(C, H, W)``, of 8x8 or more.
        outputs: Number of outputs.
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is not one image, or the outputs do not go with the head.
    """
    channels, _, _ = one_image(inputs)
    check_at_least(1, outputs=outputs)
    model, here = _body(channels), _STEM
    for index, (there, blocks) in enumerate(((240, 4), (480, 8), (960, 4))):
        stage = nn.Sequential()
        for block in range(blocks):
            # The channels of the stem are too few to be grouped (Sec. 3.2).
            first = 1 if here == _STEM else 3
            stride = 2 if block == 0 else 1
            stage.append(GroupedBlock(here, there, stride=stride, groups=3, first=first))
            here = there
        model.add_module(f"stage{index + 1}", stage)
    model.add_module("pool", GlobalAveragePool())
    model.add_module("head", nn.Linear(here, outputs))
    initialise_convolutions(model)
    return add_head(model, head, outputs)


@MODELS.register("shufflenetv2")
def shufflenet_v2(inputs: Shapes, outputs: int, *, head: Head = "moments") -> nn.Module:
    """Build ShuffleNet V2 at width 1, with stages of 116, 232 and 464 channels.

    Args:
        inputs: ``(C, H, W)``, of 8x8 or more.
        outputs: Number of outputs.
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is not one image, or the outputs do not go with the head.
    """
    channels, _, _ = one_image(inputs)
    check_at_least(1, outputs=outputs)
    model, here = _body(channels), _STEM
    for index, (there, blocks) in enumerate(((116, 3), (232, 7), (464, 3))):
        stage = nn.Sequential(DownBlock(here, there), *(SplitBlock(there) for _ in range(blocks)))
        model.add_module(f"stage{index + 1}", stage)
        here = there
    model.add_module("last", _pointwise(here, 1024))
    model.add_module("last_norm", nn.BatchNorm2d(1024))
    model.add_module("last_activation", nn.ReLU(inplace=True))
    model.add_module("pool", GlobalAveragePool())
    model.add_module("head", nn.Linear(1024, outputs))
    initialise_convolutions(model)
    return add_head(model, head, outputs)
