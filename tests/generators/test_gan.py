"""The conditional GAN: the same for the same seed, resumable, and in the form of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extracurricular.data.base import Data, make_data
from extracurricular.errors import TrainingError
from extracurricular.files import Checkpoints, load_weights, save_weights
from extracurricular.generators import GENERATORS, Fit, Generator, conditions
from extracurricular.generators import gan as module
from extracurricular.generators.gan import Gan, augment
from extracurricular.inputs import leaves
from extracurricular.samplers import Generated
from tests.conftest import eye_data, image_data, pair_data, table_data

CPU = torch.device("cpu")


def tiny(**settings: Any) -> Gan:
    sizes = {"batch_size": 8, "latent": 4, "channels": 4, "discriminator_channels": 4}
    return Gan(**{"steps": 6, "embedding": 4, **sizes, **settings})


def fitted(data: Data, entry: Gan | None = None, **settings: Any) -> dict[str, Tensor]:
    return (entry or tiny()).fit(data, **{"seed": 0, "folder": None, "device": CPU, **settings})


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def sized(height: int, width: int, channels: int = 1) -> Data:
    g = np.random.default_rng(0)
    x = g.integers(0, 256, (12, channels, height, width)).astype(np.uint8)
    y = np.arange(12) % 3
    return make_data("sized", (x, y), (x[:4], y[:4]))


def drawn(generator: Generator, data: Data, count: int = 9) -> Any:
    torch.manual_seed(1)
    latent = torch.randn(count, generator.latent)
    with torch.no_grad():
        return generator.function(latent, conditions(data, data.train[:count]))


def test_a_recipe_names_it_with_its_settings() -> None:
    entry = GENERATORS.build({"gan": {"steps": 5, "latent": 3}})
    assert isinstance(entry, Gan)
    assert isinstance(entry, Fit)
    assert entry.steps == 5
    preview = entry.preview(image_data())
    assert (preview.latent, preview.uniforms, preview.conditional) == (3, 0, True)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        *(
            ({name: 0}, f"{name} is 0; it must be at least 1")
            for name in ("steps", "latent", "channels", "discriminator_channels", "embedding")
        ),
        ({"batch_size": 1}, "batch_size is 1; it must be at least 2"),
        ({"lr": 0.0}, "lr is 0.0; it must be greater than 0"),
        ({"discriminator_lr": float("nan")}, "discriminator_lr is nan"),
        ({"r1": -1.0}, "r1 is -1.0; it must be at least 0"),
        ({"shift": -1}, "shift is -1; it must be at least 0"),
        ({"condition_noise": -0.1}, "condition_noise is -0.1"),
        ({"ema": 1.0}, "ema is 1.0; it must be at least 0 and below 1"),
        ({"cutout": 1.0}, "cutout is 1.0; it must be at least 0 and below 1"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        Gan(**settings)


# Fitting


@pytest.mark.parametrize("make", [image_data, eye_data, pair_data])
def test_a_fit_is_a_function_of_its_seed(make: Callable[[], Data]) -> None:
    data = make()
    state = torch.random.get_rng_state()
    first = fitted(data)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert equal(fitted(data), first)
    other = fitted(data, seed=1)
    assert other.keys() == first.keys()
    assert not any(torch.equal(first[k], other[k]) for k in first if first[k].ndim > 1)
    # What is fitted counts, not where it began.
    assert not equal(fitted(data, tiny(steps=7)), first)


@pytest.mark.parametrize("make", [image_data, eye_data])
@pytest.mark.parametrize("settings", [{}, {"r1": 1.0, "steps": 10, "shift": 2}])
def test_an_interrupted_fit_ends_with_the_same_bits(
    make: Callable[[], Data],
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, entry = make(), tiny(**settings)
    whole = fitted(data, entry)
    monkeypatch.setattr(module, "_CHECKPOINT_SECONDS", -1.0)
    for stop in (2, 3, 5):
        reached: list[int] = []

        def kill(step: int, _: float, stop: int = stop, reached: list[int] = reached) -> None:
            reached.append(step)
            if step == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fitted(data, entry, folder=tmp_path, on_progress=kill)
        [newest] = tmp_path.glob("step-*.ckpt")
        assert int(newest.name.split(".")[0].removeprefix("step-")) == stop - 1
        assert reached[0] == {2: 1, 3: 2, 5: 3}[stop], "it began anew"
        # Whatever happens in between does not matter.
        torch.manual_seed(stop)
    assert equal(fitted(data, entry, folder=tmp_path), whole)
    Checkpoints(tmp_path).clear()
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image_data()
    monkeypatch.setattr(module, "_CHECKPOINT_SECONDS", -1.0)
    whole = fitted(data, folder=tmp_path)
    for file in tmp_path.glob("*.ckpt"):
        file.write_bytes(file.read_bytes()[:-9])
    assert equal(fitted(data, folder=tmp_path), whole)


def test_progress_is_told_to_the_last_step() -> None:
    told: list[tuple[int, float]] = []
    fitted(image_data(), on_progress=lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == [1, 2, 3, 4, 5, 6]
    assert all(loss == loss for _, loss in told)


def test_only_training_examples_are_looked_at() -> None:
    data = image_data()
    other = image_data(size=8, classes=4, count=30)
    swapped = replace(data, validation=other.train, test=other.train)
    assert equal(fitted(swapped), fitted(data))
    assert not equal(fitted(replace(data, train=data.train[:30])), fitted(data))


def test_a_loss_that_is_no_number_stops_it() -> None:
    with pytest.raises(TrainingError, match=r"the gan's loss became nan before step \d+; a small"):
        fitted(image_data(), tiny(lr=1e30, discriminator_lr=1e30))


def test_what_is_fitted_is_a_file_of_tensors(tmp_path: Path) -> None:
    data, entry = image_data(), tiny()
    state = fitted(data)
    assert all(not v.requires_grad and v.device == CPU for v in state.values())
    save_weights(tmp_path / "weights.safetensors", state)
    again = load_weights(tmp_path / "weights.safetensors")
    assert equal(again, state)
    a, b = (drawn(entry.load(s, data), data) for s in (state, again))
    assert torch.equal(a, b)
    assert not torch.equal(a, drawn(entry.preview(data), data))


def test_it_learns_what_tells_classes_apart() -> None:
    """Black and white squares: a class is as bright as its examples, whatever the latent."""
    g = np.random.default_rng(0)
    y = np.arange(64) % 2
    x = np.where(y[:, None, None, None] == 1, 220, 30) + g.integers(-20, 21, (64, 1, 8, 8))
    data = make_data("shades", (x.astype(np.uint8), y), (x[:4].astype(np.uint8), y[:4]))
    entry = tiny(steps=120, batch_size=16, ema=0.9, lr=2e-3, discriminator_lr=2e-3)
    batch = Generated(data, entry.load(fitted(data, entry), data))(torch.arange(200))
    scale = data.x_scale[""]
    shades = (leaves(batch.x)[""] * scale.scale + scale.shift).mean((1, 2, 3))
    dark, bright = (shades[batch.y == label] for label in (0, 1))
    assert float(dark.mean()) < 100 < 150 < float(bright.mean())


def test_loading_leaves_the_random_state_alone() -> None:
    data, entry = image_data(), tiny()
    state = fitted(data)
    before = torch.random.get_rng_state()
    entry.preview(data)
    assert torch.equal(torch.random.get_rng_state(), before)
    entry.load(state, data)
    assert torch.equal(torch.random.get_rng_state(), before)


# The form of what it makes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (12, 20), (36, 60), (33, 17), (64, 64), (9, 64)])
def test_images_of_every_size(size: tuple[int, int], channels: int) -> None:
    data = sized(*size, channels)
    entry = tiny(steps=1, batch_size=2)
    image = drawn(entry.load(fitted(data, entry), data), data)
    assert image.shape == (9, channels, *size)
    assert 0 <= float(image.min()) < float(image.max()) <= 255
    assert drawn(entry.preview(data), data).shape == image.shape
    # Every pixel is the network's: none stays as padding would leave it.
    assert bool((image.std(0) > 0).all())


def test_bytes_reach_from_black_to_white_and_reals_as_far_as_training() -> None:
    data = image_data()
    assert data.train.y is not None
    y = data.train.y
    reals = leaves(data.train.x)[""].float() / 51 - 7
    floats = make_data("floats", (reals, y), (reals[:4], y[:4]))
    for one, low, high in ((data, 0.0, 255.0), (floats, -7.0, -2.0)):
        generator = tiny().preview(one)
        with torch.no_grad():
            latent = 1e4 * torch.randn(99, 4)
            made = leaves(generator.function(latent, conditions(one, one.train)[:1].expand(99, 4)))
        assert low <= float(made[""].min()) < low + 1
        assert high - 1 < float(made[""].max()) <= high
        assert len(Generated(one, generator)(torch.arange(70))) == 70
    flat = make_data("flat", (torch.ones(8, 1, 8, 8), y[:8]), (torch.ones(4, 1, 8, 8), y[:4]))
    state = fitted(flat)
    assert all(bool(torch.isfinite(v).all()) for v in state.values())


@pytest.mark.parametrize("make", [eye_data, pair_data])
def test_vectors_beside_the_image_are_those_of_the_condition(make: Callable[[], Data]) -> None:
    data = make()
    entry = tiny()
    made = drawn(entry.load(fitted(data, entry), data), data)
    assert type(made) is type(data.train.x)
    assert list(leaves(made)) == list(leaves(data.train.x))
    image, pose = leaves(made).values()
    assert image.shape == (9, 1, 12, 20)
    assert torch.allclose(pose, list(leaves(data.train.x).values())[1][:9], atol=1e-5)
    batch = Generated(data, entry.load(fitted(data, entry), data), between=1.0)(torch.arange(9))
    assert isinstance(batch.x, type(data.train.x))
    assert batch.y is not None
    assert batch.y.shape == (9, 2)


def two_images() -> Data:
    x = {"left": torch.zeros(8, 1, 8, 8), "right": torch.zeros(8, 1, 8, 8)}
    x["left"][0] = 1
    y = torch.arange(8) % 2
    return make_data("two", (x, y), (x, y))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (table_data, "gan needs inputs with one image, but those of 'table' have 0; for tables"),
        (two_images, "gan needs inputs with one image, but those of 'two' have 2"),
        (lambda: sized(7, 7), "gan makes images of 8×8 to 64×64, but these are 7×7"),
        (lambda: sized(65, 65), "gan makes images of 8×8 to 64×64, but these are 65×65"),
        (lambda: sized(8, 65), "but these are 8×65"),
    ],
)
def test_data_it_is_not_for_are_told(make: Callable[[], Data], says: str) -> None:
    data = make()
    for act in (lambda: tiny().preview(data), lambda: fitted(data)):
        with pytest.raises(ValueError, match=says) as caught:
            act()
        assert "\n" not in str(caught.value)


# Between classes


def test_a_condition_between_classes_is_between_their_embeddings() -> None:
    """Where the network takes a condition in, it does so by a linear map."""
    data = image_data()
    network = tiny().network(data).eval()
    caught: list[Tensor] = []

    def hook(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if isinstance(given[0], Tensor) and given[0].shape[-1] == 4 and given[0] is condition:
            caught.append(made)

    for part in network.modules():
        if part is not network:
            part.register_forward_hook(hook)
    embedded = []
    a, b = torch.eye(4)[[0]], torch.eye(4)[[2]]
    for condition in (a, b, torch.lerp(a, b, 0.3), torch.zeros(1, 4)):
        caught.clear()
        with torch.no_grad():
            network(torch.zeros(1, 4), condition)
        assert caught, "no part of the network takes the condition in"
        embedded.append(torch.cat([made.flatten() for made in caught]))
    assert torch.allclose(embedded[2], torch.lerp(embedded[0], embedded[1], 0.3), atol=1e-6)
    assert not torch.allclose(embedded[0], embedded[1], atol=1e-3)
    assert not embedded[3].any()


# What the discriminator sees


def test_augmentation_of_nothing_is_the_image_itself() -> None:
    image = torch.randn(6, 3, 9, 7)
    assert torch.equal(augment(image, 0, torch.arange(6), 0, 0.0), image)


def test_shifts_reach_every_way_and_leave_zeros() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 2, 6, 5) + 1
    found = augment(image.expand(400, -1, -1, -1), 3, torch.arange(400), 2, 0.0)
    padded = nn.functional.pad(image[0], (2, 2, 2, 2))
    seen = {}
    for dy in range(5):
        for dx in range(5):
            crop = padded[:, dy : dy + 6, dx : dx + 5]
            seen[dy, dx] = int((found == crop).flatten(1).all(1).sum())
    assert sum(seen.values()) == 400
    counts = torch.tensor(list(seen.values()))
    # Of a chi-square with 24 degrees of freedom, one in 10,000 is above 58.
    assert float(((counts - 16.0) ** 2 / 16).sum()) < 58


def test_a_square_is_cut_out() -> None:
    image = torch.rand(300, 2, 10, 20) + 1
    found = augment(image, 3, torch.arange(300), 0, 0.4)
    cut = found == 0
    assert torch.equal(found[~cut], image[~cut])
    assert torch.equal(cut[:, 0], cut[:, 1])
    rows, columns = cut[:, 0].any(2), cut[:, 0].any(1)
    # It is a rectangle: the rows times the columns that it touches.
    assert torch.equal(cut[:, 0], rows[:, :, None] & columns[:, None, :])
    # Of 40 % of the height and width, less where the border cuts it.
    assert int(rows.sum(1).max()) == 4
    assert int(columns.sum(1).max()) == 8
    assert int(rows.sum(1).min()) >= 2
    assert bool(rows.any(0).all())
    assert bool(columns.any(0).all())
    assert len(cut[:, 0].unique(dim=0)) > 100


def test_augmentation_is_differentiable_and_a_function_of_ids() -> None:
    torch.manual_seed(0)
    image, ids = torch.rand(5, 1, 8, 8, dtype=torch.float64, requires_grad=True), torch.arange(5)
    assert torch.autograd.gradcheck(lambda x: augment(x, 1, ids, 1, 0.4), image)
    whole = augment(image, 1, ids, 1, 0.4)
    assert torch.equal(augment(image[3:4], 1, ids[3:4], 1, 0.4), whole[3:4])
    assert not torch.equal(augment(image, 2, ids, 1, 0.4), whole)
