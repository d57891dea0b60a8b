"""Colour, and the levels of images that are standardised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from extracurricular.data.base import Data, make_data
from extracurricular.samplers import Empirical
from extracurricular.samplers.colour import Colour, colour_levels
from extracurricular.samplers.levels import find_levels, grey, mean_grey
from tests.conftest import eye_data, image_data, table_data

LEVELS = torch.randint(0, 256, (3, 3, 4, 4), generator=torch.Generator().manual_seed(0)).float()
ONE, HALF, ZERO = torch.ones(3), torch.full((3,), 0.5), torch.zeros(3)


def floats() -> Data:
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 6, (40, 3, 4, 4)).astype(np.float32)
    y = np.arange(40) % 2
    return make_data("floats", (x, y), (x, y), (x, y))


def test_factors_of_1_change_nothing() -> None:
    assert torch.allclose(colour_levels(LEVELS, ONE, ONE, ONE), LEVELS, atol=1e-4)


def test_each_change_at_0_is_its_base() -> None:
    assert not colour_levels(LEVELS, ZERO, ONE, ONE).any()
    flat = colour_levels(LEVELS, ONE, ZERO, ONE)
    red, green, blue = LEVELS.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    assert torch.allclose(flat, luma.mean((1, 2)).view(3, 1, 1, 1).expand_as(flat), atol=0.01)
    drab = colour_levels(LEVELS, ONE, ONE, ZERO)
    assert torch.allclose(drab, luma.unsqueeze(1).expand_as(drab), atol=1e-3)


def test_half_the_contrast_halves_differences_and_levels_stay_in_range() -> None:
    half = colour_levels(LEVELS, ONE, HALF, ONE)
    assert torch.allclose(
        half - half[:, :1, :1, :1], (LEVELS - LEVELS[:, :1, :1, :1]) / 2, atol=1e-3
    )
    bright = colour_levels(LEVELS, ONE * 1.9, ONE, ONE)
    assert torch.allclose(bright, (LEVELS * 1.9).clamp(0, 255), atol=1e-3)


def test_one_channel_has_no_saturation() -> None:
    one = LEVELS[:, :1]
    assert torch.allclose(colour_levels(one, ONE, ONE, ZERO), one, atol=1e-4)
    assert torch.equal(grey(one), one)
    assert torch.allclose(mean_grey(one).flatten(), one.mean((1, 2, 3)), atol=0.01)


@pytest.mark.parametrize(
    "data", [image_data(channels=3), floats(), eye_data()], ids=lambda d: d.name
)
def test_levels_of_inputs_are_bytes_or_the_range_of_the_training_images(data: Data) -> None:
    x = data.inputs(data.train.x)
    [(key, levels)] = find_levels(data, "colour").items()
    image = x if isinstance(x, Tensor) else x[key]  # type: ignore[call-overload]
    stored = data.train.x if isinstance(data.train.x, Tensor) else data.train.x[key]  # type: ignore[call-overload]
    found = levels.of(image)
    if stored.dtype == torch.uint8:
        assert torch.allclose(found, stored.float(), atol=1e-3)
    else:
        assert [float(found.min()), float(found.max())] == pytest.approx([0, 255], abs=1e-3)
    assert torch.allclose(levels.undo(found), image, atol=1e-5)


def test_draws_differ_by_their_settings_and_leave_vectors() -> None:
    data = eye_data()
    ids = torch.arange(40)
    stored = Empirical(data)(ids).x
    same = Colour(Empirical(data), data, brightness=0, contrast=0, saturation=0)(ids).x
    drawn = Colour(Empirical(data), data)(ids).x
    assert isinstance(stored, dict)
    assert isinstance(same, dict)
    assert isinstance(drawn, dict)
    assert torch.allclose(same["eye"], stored["eye"], atol=1e-4)
    assert torch.equal(drawn["pose"], stored["pose"])
    assert float((drawn["eye"] - stored["eye"]).abs().flatten(1).amax(1).min()) > 0.01


def test_wrong_settings_and_tables_are_refused_by_name() -> None:
    data = image_data()
    with pytest.raises(ValueError, match=r"contrast is 2; it must be between 0 and 1"):
        Colour(Empirical(data), data, contrast=2)
    table = table_data()
    with pytest.raises(ValueError, match=r"colour needs images .* data 'table' have none"):
        Colour(Empirical(table), table)
