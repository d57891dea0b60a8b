"""Networks for gaze, which see an eye and get the pose of the head.

They take a dict of exactly one image and one or more vectors, under any names, or a tuple of such.
The image becomes features, the vectors are appended to these, and one linear layer gives the
outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular.models.base import MODELS, Place, Shapes, check_at_least, image_and_vectors
from extracurricular.models.heads import Head, head_layers
from extracurricular.models.layers import pre_activation_features


class ImageAndVectors(nn.Module):
    """A linear layer on the features of an image and the vectors that come with it.

    Args:
        image: Place of the image in the input.
        vectors: Size of each vector by its place in the input.
        body: Module from ``[B, C, H, W]`` to ``[B, features]``.
        features: Number of features.
        outputs: Number of outputs.
        head: The form of the outputs (:mod:`~extracurricular.models.heads`).
    """

    def __init__(
        self,
        image: Place,
        vectors: Mapping[Place, int],
        body: nn.Module,
        features: int,
        outputs: int,
        head: Head = "moments",
    ) -> None:
        super().__init__()
        self.image = image
        self.vectors = tuple(vectors)
        self.body = body
        self.head = nn.Linear(features + sum(vectors.values()), outputs)
        self.last = nn.Sequential(*head_layers(head, outputs))

    def forward(self, x: Any) -> Tensor:
        """Return ``[B, outputs]`` for the tensors ``[B, C, H, W]`` and ``[B, D]`` by place."""
        features = self.body(x[self.image])
        joined = torch.cat([features, *(x[name] for name in self.vectors)], dim=1)
        y: Tensor = self.last(self.head(joined))
        return y


@MODELS.register("gaze_lenet")
def gaze_lenet(
    inputs: Shapes, outputs: int, *, width: float = 1.0, head: Head = "moments"
) -> nn.Module:
    """Build the LeNet-style network of Zhang et al., CVPR 2015, for eye patch and head pose.

    It is the multimodal CNN of "Appearance-Based Gaze Estimation in the Wild" (MPIIGaze). It has
    two 5x5 convolutions of 20 and 50 channels, each with 2x2 max pooling; a layer of 500 units
    with ReLU, to which the head pose is appended; and linear outputs.

    Args:
        inputs: Dict of one image ``(C, H, W)``, of 16x16 or more, and one or more vectors ``(D,)``.
        outputs: Number of outputs.
        width: Factor on the 20, 50 and 500, rounded, each at least 1.
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is something else, or a setting is out of range.
    """
    image, (channels, height, breadth), vectors = image_and_vectors(inputs)
    if min(height, breadth) < 16:
        raise ValueError(f"takes an image of at least 16x16, but the input is {height}x{breadth}")
    check_at_least(1, outputs=outputs)
    if not 0 < width < float("inf"):
        raise ValueError(f"width is {width}; it should be above 0 and finite")

    first, second, units = (max(1, round(width * full)) for full in (20, 50, 500))
    positions = _after_convolutions(height) * _after_convolutions(breadth)
    body = nn.Sequential(
        nn.Conv2d(channels, first, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * positions, units),
        nn.ReLU(inplace=True),
    )
    return ImageAndVectors(image, vectors, body, units, outputs, head)


def _after_convolutions(size: int) -> int:
    """Return the size that ``size`` has after two 5-wide convolutions with pooling by 2."""
    return ((size - 4) // 2 - 4) // 2


@MODELS.register("gaze_preact_resnet")
def gaze_preact_resnet(
    inputs: Shapes,
    outputs: int,
    *,
    width: int = 16,
    stem_stride: int = 1,
    pool: tuple[int, int] = (1, 1),
    head: Head = "moments",
) -> nn.Module:
    """Build an 8-layer pre-activation residual network (He et al. 2016) with a head pose.

    It has a convolution, three stages of one two-convolution block, and average pooling, to which
    the head pose is appended; linear outputs follow.

    Args:
        inputs: Dict of one image ``(C, H, W)``, of 8x8 or more, and one or more vectors ``(D,)``.
        outputs: Number of outputs.
        width: Channels of the first stage; the others have two and four times as many.
        stem_stride: Stride of the first convolution; 2 makes the network four times as fast.
        pool: Rows and columns that pooling leaves. Global pooling, (1, 1), forgets where in the
            image a feature was, and that place tells much about the gaze.
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is something else, or a setting is out of range.
    """
    image, (channels, _, _), vectors = image_and_vectors(inputs)
    check_at_least(1, outputs=outputs, width=width, stem_stride=stem_stride)
    check_at_least(1, rows_of_pool=pool[0], columns_of_pool=pool[1])

    stages = (width, width, 2 * width, 4 * width)
    body = pre_activation_features(channels, stages, blocks=1, stem_stride=stem_stride, pool=pool)
    features = stages[-1] * pool[0] * pool[1]
    return ImageAndVectors(image, vectors, body, features, outputs, head)
