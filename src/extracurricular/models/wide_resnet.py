"""Wide residual networks (Zagoruyko & Komodakis 2016, "Wide Residual Networks", Table 1)."""

from __future__ import annotations

from torch import nn

from extracurricular.models.base import (
    MODELS,
    Shapes,
    blocks_per_stage,
    check_at_least,
    check_dropout,
    one_image,
)
from extracurricular.models.heads import Head, add_head
from extracurricular.models.layers import pre_activation_features


@MODELS.register("wrn-{depth}-{width}")
def wide_resnet(
    inputs: Shapes,
    outputs: int,
    *,
    depth: int,
    width: int,
    dropout: float = 0.0,
    head: Head = "moments",
) -> nn.Module:
    """Build ``wrn-16-2``, ``wrn-40-1``, …: pre-activation networks of wide blocks.

    Args:
        inputs: ``(C, H, W)``, of 8x8 or more.
        outputs: Number of outputs.
        depth: Number of convolutions, 6n+4; it counts a projecting shortcut in each of the stages.
        width: Factor on the 16, 32 and 64 channels of the stages.
        dropout: Share of units dropped between the convolutions of a block (Sec. 2.4).
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is not one image, no network has this depth, or a setting is out of
            range.
    """
    channels, _, _ = one_image(inputs)
    check_at_least(1, outputs=outputs, width=width)
    check_dropout(dropout)
    blocks = blocks_per_stage(depth, extra=4)

    stages = (16, 16 * width, 32 * width, 64 * width)
    model = pre_activation_features(channels, stages, blocks, dropout=dropout)
    model.add_module("head", nn.Linear(stages[-1], outputs))
    return add_head(model, head, outputs)
