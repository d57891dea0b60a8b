"""Cutout: the square's area, place and content."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from extracurricular.samplers import Empirical
from extracurricular.samplers.cutout import Cutout, cutout_images
from tests.conftest import image_data, table_data


def test_a_square_about_its_centre_is_0_and_all_else_stays() -> None:
    image = torch.ones(2, 3, 8, 8)
    cut = cutout_images(image, torch.tensor([[0.5, 0.5], [0.0, 0.99]]), 0.5)
    expected = image.clone()
    expected[0, :, 2:6, 2:6] = 0
    # The border cuts the second: rows -2 to 1 about row 0, columns 5 to 8 about column 7.
    expected[1, :, :2, 5:] = 0
    assert torch.equal(cut, expected)


def test_the_mean_area_is_that_of_squares_about_every_pixel() -> None:
    places = torch.cartesian_prod(torch.arange(8), torch.arange(8)) / 8
    cut = cutout_images(torch.ones(64, 1, 8, 8), places, 0.5)
    # A side of 4 reaches from 2 before a pixel to 1 behind it, so the border leaves these.
    inside = [min(c + 1, 7) - max(c - 2, 0) + 1 for c in range(8)]
    assert float((cut == 0).sum()) == sum(inside) ** 2
    data = image_data(channels=2)
    drawn = Cutout(Empirical(data), part=0.5)(torch.arange(4000)).x
    assert isinstance(drawn, Tensor)
    share = float((drawn == 0).all(1).float().mean())
    assert share == pytest.approx((sum(inside) / 64) ** 2, rel=0.05)


def test_a_part_of_0_cuts_nothing() -> None:
    image = torch.randn(4, 1, 5, 7)
    assert torch.equal(cutout_images(image, torch.rand(4, 2), 0.0), image)


def test_wrong_settings_and_tables_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"part is 1.5; it must be between 0 and 1"):
        Cutout(Empirical(image_data()), part=1.5)
    with pytest.raises(ValueError, match="cutout needs images"):
        Cutout(Empirical(table_data()))(torch.arange(3))
