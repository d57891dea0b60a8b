"""Affine: closed forms of turns, shifts, scales and shears."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from extracurricular.samplers import Empirical
from extracurricular.samplers.affine import Affine, Placed, affine_images
from tests.conftest import image_data, table_data

ZERO, ONE = torch.zeros(3), torch.ones(3)
SAME = Placed(ZERO, ZERO, ZERO, ZERO, ZERO, ONE)
IMAGES = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5)


def test_no_change_is_none() -> None:
    assert close(affine_images(IMAGES, SAME), IMAGES)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_is_rot90(quarters: int) -> None:
    turned = affine_images(IMAGES, replace(SAME, turn=ONE * quarters * math.pi / 2))
    assert close(turned, IMAGES.rot90(quarters, (2, 3)))


def test_a_shift_by_whole_pixels_rolls_and_fills_with_0() -> None:
    moved = affine_images(IMAGES, replace(SAME, right=ONE * 2 / 6, down=ONE * -1 / 6))
    assert close(moved[:, :, :5, 2:], IMAGES[:, :, 1:, :4])
    assert close(moved[:, :, :, :2], torch.zeros(3, 2, 6, 2))
    assert close(moved[:, :, 5], torch.zeros(3, 2, 6))


def test_a_shear_of_1_shifts_each_row_by_its_distance_from_the_middle() -> None:
    image = torch.randn(3, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    for sheared, rows in (
        (affine_images(image, replace(SAME, shear_x=ONE)), image),
        (affine_images(image, replace(SAME, shear_y=ONE)).mT, image.mT),
    ):
        assert close(sheared[:, :, 2], rows[:, :, 2])
        assert close(sheared[:, :, 3, 1:], rows[:, :, 3, :-1])
        assert close(sheared[:, :, 0, :-2], rows[:, :, 0, 2:])


def test_a_scale_of_2_shows_the_middle_half() -> None:
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(3, 1, 8, 8)
    larger = affine_images(ramp, replace(SAME, scale=ONE * 2))
    assert close(larger[0, 0, 4], 3.5 + (torch.arange(8.0) - 3.5) / 2)


def test_turns_there_and_back_keep_a_smooth_image() -> None:
    y, x = torch.meshgrid(torch.linspace(-3, 3, 33), torch.linspace(-2, 2, 23), indexing="ij")
    image = (-(x**2) - y**2).exp().expand(3, 1, 33, 23)
    there = affine_images(image, replace(SAME, turn=ONE * 0.5))
    back = affine_images(there, replace(SAME, turn=ONE * -0.5))
    # Interpolating twice blurs the top by about a tenth of a pixel's curvature.
    assert float((back - image).abs().max()) < 0.03


def test_draws_stay_within_the_settings_and_differ() -> None:
    data = image_data()
    child = Empirical(data)
    still = Affine(child, degrees=0, shear=0, translate=0, scale=(1, 1))
    ids = torch.arange(50)
    stored, same, drawn = child(ids).x, still(ids).x, Affine(child, degrees=30)(ids).x
    assert isinstance(stored, Tensor)
    assert isinstance(same, Tensor)
    assert isinstance(drawn, Tensor)
    assert close(same, stored)
    assert float((drawn - stored).abs().flatten(1).amax(1).min()) > 0.1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"degrees": -1.0}, "degrees is -1.0; it must be at least 0"),
        ({"shear": 1.0}, "shear is 1.0; it must be at least 0 and below 1"),
        ({"translate": 2.0}, "translate is 2.0; it must be between 0 and 1"),
        ({"scale": (1.2, 0.8)}, r"scale is \[1.2, 0.8\]; it must be two numbers above 0"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Affine(Empirical(image_data()), **settings)  # type: ignore[arg-type]


def test_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="affine needs images"):
        Affine(Empirical(table_data()))(torch.arange(3))
