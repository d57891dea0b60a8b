"""The fourteen operations of TrivialAugment and RandAugment, on batches of images.

An operation is chosen for each image. To compute fourteen results for every image and keep one
would be a waste, and to gather the images of each operation has shapes that depend on data. So the
operations form three families, each computed once with parameters of each image:

- *places*: shears, shifts and turns are one affine map;
- *tones*: brightness, contrast, posterize, solarize, autocontrast and equalize are one table of 256
  levels for each channel;
- *blends*: colour and sharpness move away from a grey, or from a blurred, image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.inputs import Inputs, is_static
from extracurricular.samplers.affine import Placed, affine_images
from extracurricular.samplers.levels import Levels, blended, grey, mean_grey

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "contrast",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
    "colour",
    "sharpness",
)
_PLACES, _TONES, _BLENDS = (1, 6), (6, 12), (12, 14)


@dataclass(frozen=True)
class Space:
    """The greatest strength of each operation.

    Args:
        shear: Tangent of the slant.
        pixels, part: Shift in pixels, or as a part of the width and height if ``pixels`` is 0.
        degrees: Angle.
        factor: Brightness, contrast, colour and sharpness are multiplied by 1 ± this.
        bits: Bits that posterize leaves of 8.
    """

    shear: float
    pixels: int
    part: float
    degrees: float
    factor: float
    bits: int


@dataclass(frozen=True)
class Chosen:
    """The operation of each of B images.

    Args:
        kind: Its place in :data:`OPERATIONS`, int64, [B].
        strength: Its strength, in [0, 1], float32, [B].
        sign: Its direction, 1 or -1, float32, [B].
    """

    kind: Tensor
    strength: Tensor
    sign: Tensor

    def __getitem__(self, index: Tensor) -> Chosen:
        return Chosen(self.kind[index], self.strength[index], self.sign[index])


def operate(image: Tensor, chosen: Chosen, levels: Levels, space: Space) -> Tensor:
    """Apply to each image the operation that is chosen for it.

    Args:
        image: Inputs of a network, [B, C, H, W].
        chosen: The operations.
        levels: The levels of the inputs.
        space: The greatest strengths.

    Returns:
        [B, C, H, W]. What comes from beyond the border is 0, the mean of the training pixels. Tones
        take levels as whole numbers.
    """

    def tone(image: Tensor, chosen: Chosen) -> Tensor:
        return levels.undo(toned(levels.of(image), chosen, space))

    def blend(image: Tensor, chosen: Chosen) -> Tensor:
        return levels.undo(reblended(levels.of(image), chosen, space))

    image = _where(_PLACES, image, chosen, lambda some, own: placed(some, own, space))
    image = _where(_TONES, image, chosen, tone)
    return _where(_BLENDS, image, chosen, blend)


def _where(
    family: tuple[int, int],
    image: Tensor,
    chosen: Chosen,
    function: Callable[[Tensor, Chosen], Tensor],
) -> Tensor:
    """Apply a function to the images whose operation is of one family."""
    here = (chosen.kind >= family[0]) & (chosen.kind < family[1])
    if is_static(image):
        return torch.where(here.view(-1, 1, 1, 1), function(image, chosen), image)
    index = here.nonzero().squeeze(1)
    if not len(index):
        return image
    return image.index_copy(0, index, function(image[index], chosen[index]))


def placed(image: Tensor, chosen: Chosen, space: Space) -> Tensor:
    """Shear, shift or turn images [B, C, H, W]."""
    height, width = image.shape[-2:]
    amount = chosen.strength * chosen.sign

    def only(name: str, most: float) -> Tensor:
        return (amount * most).masked_fill(chosen.kind != OPERATIONS.index(name), 0.0)

    def shift(name: str, size: int) -> Tensor:
        return only(name, min(space.pixels / size, 1.0) if space.pixels else space.part)

    place = Placed(
        only("rotate", math.radians(space.degrees)),
        only("shear_x", space.shear),
        only("shear_y", space.shear),
        shift("translate_x", width),
        shift("translate_y", height),
        torch.ones_like(amount),
    )
    return affine_images(image, place)


def toned(levels: Tensor, chosen: Chosen, space: Space) -> Tensor:
    """Change the tones of levels [B, C, H, W] by a table for each channel."""
    count, channels, height, width = levels.shape
    whole = levels.round().clamp(0, 255)
    index = whole.long().flatten(2)
    tone = torch.arange(256.0, device=levels.device).view(1, 1, 256)
    strength = chosen.strength.view(-1, 1, 1)
    factor = 1 + space.factor * strength * chosen.sign.view(-1, 1, 1)
    mean = mean_grey(whole).view(-1, 1, 1)
    # 8 bits at no strength, and so many fewer at full strength.
    step = 2.0 ** ((8 - space.bits) * strength).round()
    low, high = (edge.unsqueeze(2).float() for edge in index.aminmax(dim=2))
    tables = {
        "brightness": factor * tone,
        "contrast": mean + factor * (tone - mean),
        "posterize": (tone / step).floor() * step,
        "solarize": torch.where(tone >= 256 - 256 * strength, 255 - tone, tone),
        "autocontrast": torch.where(
            high > low, (tone - low) * (255 / (high - low).clamp_min(1)), tone
        ),
        "equalize": _equalised(index, tone),
    }
    table = tone.expand(count, channels, 256)
    for name, other in tables.items():
        mine = (chosen.kind == OPERATIONS.index(name)).view(-1, 1, 1)
        table = torch.where(mine, other, table)
    return table.clamp(0, 255).gather(2, index).view(count, channels, height, width)


def _equalised(index: Tensor, tone: Tensor) -> Tensor:
    """Return the table that makes the levels [B, C, P] of a channel about equally frequent.

    It is Pillow's ``ImageOps.equalize``: a level becomes the number of pixels below it, in steps of
    the 255th part of all pixels but those of the greatest level. Where there are fewer, it stays.
    """
    counts = index.new_zeros(*index.shape[:2], 256)
    counts.scatter_add_(2, index, torch.ones_like(index))
    top = counts.gather(2, index.amax(2, keepdim=True))
    step = (counts.sum(2, keepdim=True) - top) // 255
    below = counts.cumsum(2) - counts
    steps = (below + step // 2) // step.clamp_min(1)
    return torch.where(step > 0, steps.float(), tone)


def reblended(levels: Tensor, chosen: Chosen, space: Space) -> Tensor:
    """Change the saturation or the sharpness of levels [B, C, H, W]."""
    factor = 1 + space.factor * chosen.strength * chosen.sign
    colour = (chosen.kind == OPERATIONS.index("colour")).view(-1, 1, 1, 1)
    base = torch.where(colour, grey(levels), smooth(levels))
    return blended(levels, base, factor)


def smooth(levels: Tensor) -> Tensor:
    """Blur levels [B, C, H, W] as Pillow's ``SMOOTH``: each pixel counts 5, its 8 neighbours 1.

    The pixels of the border stay.
    """
    height, width = levels.shape[-2:]
    if min(height, width) < 3:
        return levels
    wide = levels[..., :-2] + levels[..., 1:-1] + levels[..., 2:]
    box = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    inner = (box + 4 * levels[..., 1:-1, 1:-1]) / 13
    rows = torch.arange(height, device=levels.device).view(-1, 1)
    columns = torch.arange(width, device=levels.device)
    inside = (rows > 0) & (rows < height - 1) & (columns > 0) & (columns < width - 1)
    return torch.where(inside, F.pad(inner, (1, 1, 1, 1)), levels)


def with_leaves(like: Inputs, tensors: dict[str, Tensor]) -> Inputs:
    """Return inputs of the structure of ``like`` with these tensors, by their names."""
    if isinstance(like, Tensor):
        return tensors[""]
    return tensors if isinstance(like, dict) else tuple(tensors.values())
