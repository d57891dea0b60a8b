"""The operations of TrivialAugment and RandAugment: Pillow's as a second implementation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.inputs import static_shapes
from extracurricular.samplers import Empirical
from extracurricular.samplers.levels import Levels
from extracurricular.samplers.operations import OPERATIONS, Chosen, Space, operate, smooth
from extracurricular.samplers.rand_augment import AUTO, RandAugment
from extracurricular.samplers.trivial_augment import WIDE, TrivialAugment
from tests.conftest import image_data, pair_data, table_data

PLAIN = Levels(torch.ones(3, 1, 1), torch.zeros(3, 1, 1))
SCALED = Levels(torch.tensor([50.0, 60.0, 70.0]).view(3, 1, 1), torch.full((3, 1, 1), 120.0))
# Within 30 and 220, so that autocontrast has something to do, and large enough to be equalised.
_Y, _X = torch.meshgrid(torch.arange(32.0), torch.arange(40.0), indexing="ij")
_GRAIN = torch.randint(0, 30, (3, 32, 40), generator=torch.Generator().manual_seed(0))
PICTURE = torch.stack([40 + 3 * _X, 60 + 4 * _Y, 90 + (_X - _Y).square() / 20]) + _GRAIN
PICTURE = PICTURE.round().clamp(30, 190)
IMAGES = torch.stack([PICTURE, PICTURE.flip(1), (PICTURE * 1.3).clamp(0, 255).round()])
CHOICES = torch.arange(len(OPERATIONS))


def chosen(name: str, strength: float, sign: float = 1.0, count: int = 3) -> Chosen:
    kind = torch.full((count,), OPERATIONS.index(name))
    return Chosen(kind, torch.full((count,), strength), torch.full((count,), sign))


def pillow(function: Callable[[Image.Image], Image.Image]) -> Tensor:
    made = []
    for image in IMAGES:
        picture = Image.fromarray(image.permute(1, 2, 0).byte().numpy())
        made.append(torch.from_numpy(np.asarray(function(picture)).copy()).permute(2, 0, 1))
    return torch.stack(made).float()


@pytest.mark.parametrize("space", [WIDE, AUTO])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", OPERATIONS[:10] + OPERATIONS[12:])
def test_an_operation_of_no_strength_changes_nothing(name: str, sign: float, space: Space) -> None:
    same = operate(IMAGES, chosen(name, 0.0, sign), PLAIN, space)
    assert torch.allclose(same, IMAGES, atol=1e-3)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("brightness", lambda f: lambda p: ImageEnhance.Brightness(p).enhance(f)),
        ("contrast", lambda f: lambda p: ImageEnhance.Contrast(p).enhance(f)),
        ("colour", lambda f: lambda p: ImageEnhance.Color(p).enhance(f)),
        ("sharpness", lambda f: lambda p: ImageEnhance.Sharpness(p).enhance(f)),
        ("posterize", lambda f: lambda p: ImageOps.posterize(p, 8 - 3)),
        ("solarize", lambda f: lambda p: ImageOps.solarize(p, 128)),
        ("autocontrast", lambda f: ImageOps.autocontrast),
        ("equalize", lambda f: ImageOps.equalize),
    ],
)
def test_an_operation_does_what_pillow_does(
    name: str, same: Callable[[float], Callable[[Image.Image], Image.Image]], sign: float
) -> None:
    expected = pillow(same(1 + sign * WIDE.factor / 2))
    # Pillow's levels are whole at every step.
    for levels, given in ((PLAIN, IMAGES), (SCALED, SCALED.undo(IMAGES))):
        found = levels.of(operate(given, chosen(name, 0.5, sign), levels, WIDE))
        assert float((found - expected).abs().max()) <= (3.0 if name == "sharpness" else 1.5)
    assert float((found - IMAGES).abs().max()) > 3


def test_smoothing_is_pillows() -> None:
    expected = pillow(lambda picture: picture.filter(ImageFilter.SMOOTH))
    assert float((smooth(IMAGES) - expected).abs().max()) <= 1


def test_equalize_leaves_what_has_too_few_pixels_and_one_level() -> None:
    for image in (torch.full((3, 3, 32, 32), 70.0), IMAGES[:, :, :15, :15]):
        for name in ("equalize", "autocontrast"):
            found = operate(image, chosen(name, 1.0), PLAIN, WIDE)
            if image.amax() == image.amin() or name == "equalize":
                assert torch.equal(found, image)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_shift_is_by_pixels_or_a_part_of_the_image(sign: float) -> None:
    wide = Space(0, 32, 0.0, 0, 0, 8)
    half = Space(0, 0, 0.5, 0, 0, 8)
    for space, pixels in ((wide, 8), (half, 5)):
        moved = operate(IMAGES, chosen("translate_x", 0.25, sign), PLAIN, space)
        back = IMAGES.roll(int(sign) * pixels, 3)
        kept = slice(pixels, None) if sign > 0 else slice(None, -pixels)
        gone = slice(pixels) if sign > 0 else slice(-pixels, None)
        assert torch.allclose(moved[..., kept], back[..., kept], atol=1e-2)
        assert float(moved[..., gone].abs().max()) < 1e-2
    # Of 32 pixels a narrower image can lose no more than all of its own.
    left = operate(IMAGES[..., :16], chosen("translate_x", 1.0, sign), PLAIN, wide)
    assert float(left.abs().max()) < 1e-2


def test_each_image_gets_its_own_operation_in_both_selections() -> None:
    images = IMAGES[:1].expand(len(OPERATIONS), -1, -1, -1)
    strength = torch.full((len(OPERATIONS),), 0.6)
    own = Chosen(CHOICES, strength, torch.ones_like(strength))
    whole = operate(images, own, PLAIN, WIDE)
    with static_shapes():
        assert torch.equal(operate(images, own, PLAIN, WIDE), whole)
    for k, name in enumerate(OPERATIONS):
        alone = operate(images[:1], chosen(name, 0.6, 1.0, 1), PLAIN, WIDE)
        assert torch.equal(alone[0], whole[k]), name
    # All differ from the picture but the identity, and from each other.
    flat = whole.flatten(1)
    distance = torch.cdist(flat, flat).fill_diagonal_(torch.inf)
    assert torch.equal(whole[0], images[0])
    assert float(distance.min()) > 10


def test_each_operation_is_chosen_equally_often() -> None:
    data = image_data()
    sampler = TrivialAugment(Empirical(data), data)
    ids = torch.arange(2800)
    drawn, stored = sampler(ids).x, Empirical(data)(ids).x
    assert isinstance(drawn, Tensor)
    assert isinstance(stored, Tensor)
    # One channel: identity and colour are the image, as is strength 0 of ten others.
    same = (drawn - stored).abs().flatten(1).amax(1) < 0.01
    assert float(same.float().mean()) == pytest.approx((2 + 10 / 31 + 1) / 14, abs=0.05)


def test_rand_augment_of_one_operation_has_its_strength_and_more_change_more() -> None:
    data = image_data()
    ids = torch.arange(400)
    stored = Empirical(data)(ids).x
    assert isinstance(stored, Tensor)

    def change(**settings: float) -> float:
        drawn = RandAugment(Empirical(data), data, **settings)(ids).x  # type: ignore[arg-type]
        assert isinstance(drawn, Tensor)
        return float((drawn - stored).abs().mean())

    assert (
        change(count=1, magnitude=3) < change(count=1, magnitude=20) < change(count=3, magnitude=20)
    )


def test_several_images_change_alike_and_vectors_stay() -> None:
    data = pair_data()
    drawn, stored = (
        TrivialAugment(Empirical(data), data)(torch.arange(40)).x,
        Empirical(data)(torch.arange(40)).x,
    )
    assert isinstance(drawn, tuple)
    assert isinstance(stored, tuple)
    assert torch.equal(drawn[1], stored[1])
    assert not torch.equal(drawn[0], stored[0])


@pytest.mark.parametrize("name", [TrivialAugment, RandAugment])
def test_tables_are_refused(name: Callable[[Empirical, Data], object]) -> None:
    table = table_data()
    with pytest.raises(ValueError, match=r"_augment needs images .* data 'table' have none"):
        name(Empirical(table), table)


def test_wrong_settings_are_refused_by_name() -> None:
    data = image_data()
    with pytest.raises(ValueError, match="count is 0; it must be at least 1"):
        RandAugment(Empirical(data), data, count=0)
    with pytest.raises(ValueError, match="magnitude is 31; it must be between 0 and 30"):
        RandAugment(Empirical(data), data, magnitude=31)
