"""Parts that several convolutional models share. They take ``[B, C, H, W]``."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class GlobalAveragePool(nn.Module):
    """The average over all positions: ``[B, C, H, W]`` to ``[B, C]``, for any H and W."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of each channel."""
        return x.mean((2, 3))


class PreActivationBlock(nn.Module):
    """A residual block of two 3x3 convolutions, each after batch norm and ReLU.

    It is that of He et al. 2016, "Identity Mappings in Deep Residual Networks", Fig. 4(e). If the
    shape changes, the shortcut is a 1x1 convolution of the activated input, else the input itself.

    Args:
        channels_in: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution and of the shortcut.
        dropout: Share of units dropped between the convolutions.
    """

    def __init__(
        self, channels_in: int, channels: int, *, stride: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = conv3x3(channels_in, channels, stride)
        self.norm2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.conv2 = conv3x3(channels, channels)
        self.project = (
            nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False)
            if stride != 1 or channels_in != channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of shape ``[B, channels, ceil(H/stride), ceil(W/stride)]``."""
        active = F.relu(self.norm1(x), inplace=True)
        shortcut = x if self.project is None else self.project(active)
        y: Tensor = F.relu(self.norm2(self.conv1(active)), inplace=True)
        if self.dropout is not None:
            y = self.dropout(y)
        y = self.conv2(y)
        return y + shortcut


def conv3x3(channels_in: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a padded 3x3 convolution without bias, to stand next to a batch norm."""
    return nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)


def pre_activation_features(
    channels_in: int,
    channels: Sequence[int],
    blocks: int,
    *,
    dropout: float = 0.0,
    stem_stride: int = 1,
    pool: tuple[int, int] = (1, 1),
) -> nn.Sequential:
    """Return the body of a pre-activation residual network, ``[B, C, H, W]`` to ``[B, F]``.

    Args:
        channels_in: Channels of the image.
        channels: Channels of the first convolution and then of each stage. Every stage but the
            first halves height and width.
        blocks: Blocks per stage.
        dropout: Share of units dropped inside each block.
        stem_stride: Stride of the first convolution.
        pool: Rows and columns left by the average pooling at the end; F is their product times the
            number of last channels.
    """
    body = nn.Sequential()
    body.add_module("stem", conv3x3(channels_in, channels[0], stem_stride))
    width = channels[0]
    for index, stage_width in enumerate(channels[1:]):
        stage = nn.Sequential()
        for block in range(blocks):
            stride = 2 if index > 0 and block == 0 else 1
            stage.append(PreActivationBlock(width, stage_width, stride=stride, dropout=dropout))
            width = stage_width
        body.add_module(f"stage{index + 1}", stage)
    body.add_module("norm", nn.BatchNorm2d(width))
    body.add_module("activation", nn.ReLU(inplace=True))
    if pool == (1, 1):
        body.add_module("pool", GlobalAveragePool())
    else:
        body.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(pool), nn.Flatten()))
    initialise_convolutions(body)
    return body


def initialise_convolutions(module: nn.Module) -> None:
    """Draw the weights of every convolution by He et al. 2015, with the fan of its outputs."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
