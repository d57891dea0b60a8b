"""A plain convolutional network for small images."""

from __future__ import annotations

from torch import nn

from extracurricular.models.base import (
    MODELS,
    Shapes,
    check_at_least,
    check_dropout,
    one_image,
)
from extracurricular.models.heads import Head, head_layers
from extracurricular.models.layers import GlobalAveragePool, conv3x3, initialise_convolutions


@MODELS.register("digits_cnn")
def digits_cnn(
    inputs: Shapes,
    outputs: int,
    *,
    width: int = 16,
    depth: int = 2,
    flatten: bool = False,
    dropout: float = 0.0,
    head: Head = "moments",
) -> nn.Module:
    """Build a small CNN for images of 8x8 to 32x32.

    It has two stages of ``depth`` 3x3 convolutions, each with batch norm and ReLU, and 2x2 max
    pooling between the stages; the second stage has twice the channels. Global average pooling and
    a linear layer follow.

    Args:
        inputs: ``(C, H, W)``.
        outputs: Number of outputs.
        width: Channels of the first stage.
        depth: Convolutions per stage.
        flatten: Whether the linear layer gets every position's features, as in LeNet, instead of
            their average; its size then depends on the image size.
        dropout: Share of features dropped before the linear layer.
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is not one image, or a setting is out of range.
    """
    channels, rows, columns = one_image(inputs)
    check_at_least(1, outputs=outputs, width=width, depth=depth)
    check_dropout(dropout)

    layers: list[nn.Module] = []
    for stage_width in (width, 2 * width):
        if layers:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        for _ in range(depth):
            layers.append(conv3x3(channels, stage_width))
            layers.append(nn.BatchNorm2d(stage_width))
            layers.append(nn.ReLU(inplace=True))
            channels = stage_width
    if flatten:
        layers.append(nn.Flatten())
        channels *= -(-rows // 2) * -(-columns // 2)
    else:
        layers.append(GlobalAveragePool())
    if dropout:
        layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(channels, outputs))
    model = nn.Sequential(*layers, *head_layers(head, outputs))
    initialise_convolutions(model)
    return model
