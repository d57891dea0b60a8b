"""Corruptions: known pixels, the order of their strengths, and noise that is a function of ids."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.errors import RecipeError
from extracurricular.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt

NAMES = CORRUPTIONS.names()
NOISE = ["gaussian_noise", "impulse_noise", "shot_noise"]
SIZES = [(1, 8, 8), (3, 32, 32), (3, 48, 40), (1, 36, 60)]


def pictures(count: int, channels: int, height: int, width: int) -> Tensor:
    """Smooth shapes, so that blur and compression meet something like photographs."""
    g = torch.Generator().manual_seed(0)
    noise = torch.rand(count, channels, height + 4, width + 4, generator=g)
    smooth = torch.nn.functional.avg_pool2d(noise, 5, stride=1)
    return (128 + 3 * 255 * (smooth - 0.5)).clamp(0, 255).byte()


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).square().mean())


def test_the_six_of_the_benchmark_and_more_are_there() -> None:
    wanted = {"blur", "brightness", "contrast", "gaussian_noise", "jpeg", "pixelate"}
    assert wanted <= set(NAMES)
    assert set(NOISE) < set(NAMES)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_each_strength_takes_more_away_than_the_one_before(
    name: str, size: tuple[int, ...]
) -> None:
    images = pictures(48, *size)
    kept = images.clone()
    distances = []
    for severity in SEVERITIES:
        out = corrupt(images, name, severity)
        assert out.dtype == torch.uint8
        assert out.shape == images.shape
        distances.append(distance(images, out))
    assert distances == sorted(distances)
    assert len(set(distances)) == 5
    assert distances[0] > 0
    torch.testing.assert_close(images, kept)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_corrupted_the_same_in_any_batch(name: str) -> None:
    images = pictures(10, 3, 16, 16)
    ids = torch.arange(10) + 100
    whole = corrupt(images, name, 3, ids, seed=5)
    order = torch.tensor([7, 2, 9])
    torch.testing.assert_close(corrupt(images[order], name, 3, ids[order], seed=5), whole[order])
    for k in (0, 6):
        alone = corrupt(images[k : k + 1], name, 3, ids[k : k + 1], seed=5)
        torch.testing.assert_close(alone, whole[k : k + 1])
    assert corrupt(images[:0], name, 3, ids[:0]).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("name", NAMES)
def test_noise_alone_depends_on_seed_and_ids(name: str) -> None:
    images = pictures(4, 1, 12, 12)
    first = corrupt(images, name, 4)
    others = [corrupt(images, name, 4, seed=1), corrupt(images, name, 4, torch.arange(4) + 9)]
    for other in others:
        assert bool((first != other).any()) == (name in NOISE)


@pytest.mark.parametrize("name", ["blur", "pixelate", "contrast", "jpeg"])
def test_an_image_of_one_colour_has_nothing_to_lose(name: str) -> None:
    for level in (0, 77, 255):
        flat = torch.full((2, 1, 9, 11), level, dtype=torch.uint8)
        for severity in SEVERITIES:
            assert (corrupt(flat, name, severity).int() - level).abs().max() <= (name == "jpeg") * 4


def test_known_pixels() -> None:
    two = torch.tensor([[[[0, 200], [0, 200]]]], dtype=torch.uint8)
    # The mean is 100, and 85 or 25 % of the distance from it are kept.
    assert corrupt(two, "contrast", 1).flatten().tolist() == [15, 185, 15, 185]
    assert corrupt(two, "contrast", 5).flatten().tolist() == [75, 125, 75, 125]
    bright = corrupt(torch.tensor([[[[0, 100, 250]]]], dtype=torch.uint8), "brightness", 2)
    assert bright.flatten().tolist() == [26, 126, 255]  # 0.1 · 255 = 25.5, to the even one
    board = torch.tensor([[0, 100, 40, 60], [20, 80, 50, 50]], dtype=torch.uint8)
    assert corrupt(board.view(1, 1, 2, 4), "pixelate", 4).flatten().tolist() == [50] * 8


def test_the_channels_keep_apart_but_for_jpeg() -> None:
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    images[:, 0] = pictures(1, 1, 16, 16)[:, 0]
    for name in ("blur", "pixelate", "contrast"):
        assert int(corrupt(images, name, 5)[:, 1:].max()) == 0


@pytest.mark.parametrize("size", [32, 128])
def test_blur_of_an_edge_in_closed_form(size: int) -> None:
    edge = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    edge[..., size // 2 :] = 255
    away = torch.arange(size, dtype=torch.float64) - size / 2 + 0.5
    for severity, deviation in ((1, 0.4), (5, 1.7)):
        row = corrupt(edge, "blur", severity)[0, 0, 3].double()
        expected = 255 * torch.special.ndtr(away / (deviation * math.sqrt(size / 32)))
        assert float((row - expected).abs().max()) < 0.51


def test_blur_and_pixelation_grow_with_the_image() -> None:
    """The same picture at twice the size is not blurred by the same number of pixels."""
    for size, cells in ((8, 3), (32, 12)):  # 38 % of them
        coarse = corrupt(pictures(1, 1, size, size), "pixelate", 5)[0, 0, 0]
        assert cells <= len(coarse.unique()) < 2 * cells  # and those between two of them
    edge = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    edge[..., 64:] = 255
    large = corrupt(edge, "blur", 3)[0, 0, 0]
    small = corrupt(edge[..., 48:80, 48:80].contiguous(), "blur", 3)[0, 0, 0]
    between = [int(((row > 5) & (row < 250)).sum()) for row in (small, large)]
    assert between[1] > between[0]


def grey(level: int) -> Tensor:
    return torch.full((40, 1, 32, 32), level, dtype=torch.uint8)


def test_gaussian_noise_has_the_deviation_it_says() -> None:
    for severity, std in ((1, 0.03), (3, 0.09)):
        noisy = corrupt(grey(128), "gaussian_noise", severity).double()
        assert float(noisy.std()) == pytest.approx(255 * std, rel=0.02)
        assert float(noisy.mean()) == pytest.approx(128, abs=0.5)


@pytest.mark.parametrize("level", [60, 150])
def test_shot_noise_has_the_mean_and_variance_of_a_poisson(level: int) -> None:
    for severity, white in ((1, 250), (3, 50)):
        noisy = corrupt(grey(level), "shot_noise", severity).double()
        assert float(noisy.mean()) == pytest.approx(level, rel=0.02)
        # In quanta the variance is the mean, white · level / 255.
        assert float(noisy.var()) == pytest.approx(level * 255 / white, rel=0.05)
    assert int(corrupt(grey(0), "shot_noise", 5).max()) == 0


def test_shot_noise_counts_whole_quanta_as_a_poisson_does() -> None:
    quanta = corrupt(grey(51), "shot_noise", 5).double() * 12 / 255
    rate = 12 * 51 / 255
    for k in range(5):
        expected = math.exp(-rate) * rate**k / math.factorial(k)
        assert float((quanta.round() == k).double().mean()) == pytest.approx(expected, rel=0.05)
    assert float((quanta - quanta.round()).abs().max()) < 0.03  # of rounding to bytes


def test_impulses_are_as_many_as_they_should_and_leave_the_rest() -> None:
    noisy = corrupt(grey(128), "impulse_noise", 4)
    for level in (0, 255):
        assert float((noisy == level).double().mean()) == pytest.approx(0.05, rel=0.05)
    assert set(noisy.unique().tolist()) == {0, 128, 255}


def test_the_noise_of_all_strengths_is_the_same() -> None:
    weak, strong = (
        corrupt(grey(128), "gaussian_noise", severity).double() - 128 for severity in (1, 3)
    )
    torch.testing.assert_close(weak * 3, strong, atol=2.0, rtol=0)


def test_jpeg_of_channels_that_are_no_colours_takes_each_alone() -> None:
    images = pictures(2, 5, 16, 16)
    whole = corrupt(images, "jpeg", 3)
    for channel in range(5):
        alone = corrupt(images[:, channel : channel + 1], "jpeg", 3)
        torch.testing.assert_close(whole[:, channel : channel + 1], alone)


def test_a_corruption_of_your_own_is_one_function() -> None:
    images = pictures(2, 1, 8, 8)
    out = corrupt(images, f"{__name__}:inverted", 1)
    torch.testing.assert_close(out, 255 - images)


def inverted(images: Tensor, severity: int, ids: Tensor, seed: int) -> Tensor:
    return 255 - images


def test_mistakes_are_told() -> None:
    images = pictures(2, 1, 8, 8)
    with pytest.raises(RecipeError, match="unknown corruption 'blurr'; did you mean 'blur'"):
        corrupt(images, "blurr", 1)
    for severity in (0, 6, 2.5):
        with pytest.raises(RecipeError, match=f"severity: is {severity}; it must be 1, 2"):
            corrupt(images, "blur", severity)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"images are torch.float32 .* must be bytes"):
        corrupt(images.float(), "blur", 1)
    with pytest.raises(ValueError, match=r"of shape \(2, 8, 8\)"):
        corrupt(images[:, 0], "blur", 1)


def test_the_noise_streams_are_apart() -> None:
    """Two kinds of noise must not be made of the same numbers."""
    ids = torch.arange(1)
    streams = [rng.uniform(0, ids, f"corruption.{name}", (64,)) for name in NOISE]
    assert len({tuple(s.flatten().tolist()) for s in streams}) == 3
