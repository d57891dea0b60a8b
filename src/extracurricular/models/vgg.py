"""VGG networks for small images, with batch norm.

Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
Table 1, in the variant of the distillation literature (Tian et al. 2020): the three fully connected
layers are one, after an average over all positions, and the last two stages have one size.
"""

from __future__ import annotations

from torch import nn

from extracurricular.errors import known_names
from extracurricular.models.base import MODELS, Shapes, check_at_least, one_image
from extracurricular.models.heads import Head, add_head
from extracurricular.models.layers import GlobalAveragePool, initialise_convolutions

# Convolutions of each stage; a depth counts them and the linear layer. 8 is by Tian et al.; the
# others are columns A, B, D and E of the table, whose names count two more linear layers.
_STAGES = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
_STAGES[19] = (2, 2, 4, 4, 4)
_CHANNELS = (64, 128, 256, 512, 512)


@MODELS.register("vgg{depth}")
def vgg(inputs: Shapes, outputs: int, *, depth: int, head: Head = "moments") -> nn.Module:
    """Build ``vgg8``, ``vgg11``, ``vgg13``, ``vgg16`` or ``vgg19``.

    Args:
        inputs: ``(C, H, W)``, of 8x8 or more; the network is made for 32x32.
        outputs: Number of outputs.
        depth: The number in the name.
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is not one image of 8x8 or more, or no network has this depth.
    """
    channels, rows, columns = one_image(inputs)
    check_at_least(1, outputs=outputs)
    if depth not in _STAGES:
        names = {f"vgg{known}": None for known in _STAGES}
        raise ValueError(f"depth is {depth}; {known_names(f'vgg{depth}', names)}")
    if min(rows, columns) < 8:
        raise ValueError(f"takes an image of at least 8x8, but the input is {rows}x{columns}")

    model = nn.Sequential()
    for index, (count, width) in enumerate(zip(_STAGES[depth], _CHANNELS, strict=True)):
        if 0 < index < 4:
            model.add_module(f"pool{index - 1}", nn.MaxPool2d(2))
        stage = nn.Sequential()
        for _ in range(count):
            stage.append(nn.Conv2d(channels, width, 3, padding=1))
            stage.append(nn.BatchNorm2d(width))
            stage.append(nn.ReLU(inplace=True))
            channels = width
        model.add_module(f"stage{index}", stage)
    model.add_module("pool", GlobalAveragePool())
    model.add_module("head", nn.Linear(channels, outputs))
    initialise_convolutions(model)
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and part.bias is not None:
            nn.init.zeros_(part.bias)
    return add_head(model, head, outputs)
