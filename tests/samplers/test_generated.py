"""Generated examples: labels, latents, conditions between others, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data, Split, make_data
from extracurricular.errors import DataError, RecipeError, TrainingError
from extracurricular.generators import Generator, condition_size, conditions
from extracurricular.inputs import FIXED, Inputs, fixed_batches, join, leaves, tree_map
from extracurricular.samplers import (
    Batch,
    Context,
    Empirical,
    Generated,
    Mixup,
    Noise,
    Sampler,
    build_sampler,
)
from extracurricular.samplers.generated import draw
from extracurricular.teachers import Labels
from extracurricular.training import Training, train
from tests.conftest import eye_data, image_data, pair_data, table_data

MAKERS = [image_data, table_data, eye_data, pair_data]
IDS = torch.arange(3000)


def echo(data: Data, **settings: Any) -> Generator:
    """A generator of tables whose rows are: latent, then condition."""
    size = condition_size(data)
    width = leaves(data.train.x)[""].shape[1]

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        return torch.cat([latent[:, : width - size], condition], dim=1)

    return Generator(function, **{"latent": width - size, **settings})


def grey(data: Data, value: float = 128.0, **settings: Any) -> Generator:
    """A generator of constant examples of the right form."""

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        def one(leaf: Tensor) -> Tensor:
            return latent.new_full((len(latent), *leaf.shape[1:]), value)

        return tree_map(one, data.train.x)

    return Generator(function, **{"latent": 2, **settings})


def classes_data(outputs: int = 3) -> Data:
    """A table of classes: as many columns as the echo needs for a latent of 2."""
    torch.manual_seed(1)
    y = torch.arange(60) % outputs
    x = torch.randn(60, outputs + 2)
    return make_data("classes", (x, y), (x[:9], y[:9]))


def raw(data: Data, batch: Batch) -> Tensor:
    """Undo the scale of a table."""
    scale = data.x_scale[""]
    return leaves(batch.x)[""] * scale.scale + scale.shift


# What does not depend on the batch


def networks() -> dict[str, tuple[nn.Module, Inputs]]:
    torch.manual_seed(0)
    conv = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 7 * 9, 5)
    )
    linear = nn.Sequential(nn.Linear(37, 129), nn.Tanh(), nn.Linear(129, 3))
    return {"conv": (conv, torch.randn(150, 3, 7, 9)), "linear": (linear, torch.randn(150, 37))}


@torch.no_grad()
def applied(module: nn.Module, x: Inputs) -> Tensor:
    made = join([module(part)[:true] for part, true in fixed_batches(x)])
    assert isinstance(made, Tensor)
    return made


@pytest.mark.parametrize("name", ["conv", "linear"])
def test_fixed_batches_give_the_same_bits_in_any_batch(name: str) -> None:
    module, x = networks()[name]
    assert isinstance(x, Tensor)
    whole = applied(module, x)
    assert torch.allclose(whole, module(x), atol=1e-5)
    order = torch.randperm(150)
    assert torch.equal(applied(module, x[order]), whole[order])
    for size in (0, 1, 2, 63, 64, 65, 127, 128):
        found = applied(module, x[:size])
        assert found.shape == (size, whole.shape[1])
        assert torch.equal(found, whole[:size])
    assert torch.equal(applied(module, x[[7] * 70]), whole[[7] * 70])


def test_fixed_batches_cut_and_fill_up_inputs_of_every_form() -> None:
    x = {"a": torch.arange(130.0).view(130, 1), "b": torch.ones(130, 2, 3, dtype=torch.uint8)}
    parts = list(fixed_batches(x))
    assert [true for _, true in parts] == [64, 64, 2]
    for part, _ in parts:
        assert isinstance(part, dict)
        assert part["a"].shape == (FIXED, 1)
        assert part["b"].shape == (FIXED, 2, 3)
        assert part["b"].dtype == torch.uint8
    last = parts[-1][0]
    assert isinstance(last, dict)
    assert last["a"][:3, 0].tolist() == [128, 129, 0]
    assert not last["b"][2:].any()
    pairs = list(fixed_batches((x["a"], x["b"]), size=50))
    assert [true for _, true in pairs] == [50, 50, 30]
    assert all(isinstance(part, tuple) for part, _ in pairs)
    assert [true for _, true in fixed_batches(x["a"][:0])] == [0]
    joined = join([tree_map(lambda v, n=true: v[:n], part) for part, true in parts])
    assert all(torch.equal(v, x[k]) for k, v in leaves(joined).items())


# Latents and conditions


def test_scale_is_for_normals_alone_and_uniforms_stay_uniform() -> None:
    data = classes_data()
    generator = echo(data, latent=5, uniforms=2)
    one, half, none = (
        Generated(data, generator, scale=scale, seed=3).latent(IDS) for scale in (1.0, 0.5, 0.0)
    )
    assert one.shape == (3000, 5)
    assert one.dtype == torch.float32
    assert torch.equal(half[:, :2], one[:, :2])
    assert torch.equal(none[:, :2], one[:, :2])
    assert torch.equal(half[:, 2:], one[:, 2:] / 2)
    assert not none[:, 2:].any()
    # Kolmogorov-Smirnov: one sample in 10,000 of this size is farther off.
    normal = torch.distributions.Normal(0.0, 1.0)
    for column, flat in enumerate([*one[:, :2].T, *normal.cdf(one[:, 2:]).T]):
        steps = torch.arange(1, 3001) / 3000
        assert float((flat.sort().values - steps).abs().max()) < 2.23 / 3000**0.5, column
    assert torch.corrcoef(one.T).fill_diagonal_(0).abs().max() < 0.08
    assert not torch.equal(Generated(data, generator, seed=4).latent(IDS), one)


def test_all_latents_may_be_uniform() -> None:
    data = classes_data()
    latent = Generated(data, echo(data, latent=2, uniforms=2), scale=9.0).latent(IDS)
    assert latent.shape == (3000, 2)
    assert 0 < float(latent.min()) < float(latent.max()) < 1


def test_conditions_are_those_of_training_examples() -> None:
    data = classes_data()
    found = Generated(data, echo(data)).condition(IDS)
    assert torch.equal(found.sum(1), torch.ones(3000))
    assert set(found.unique().tolist()) == {0, 1}
    counts = found.sum(0)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 18.5  # 1 in 10,000
    real = table_data(outputs=2)
    known = conditions(real, real.train)
    some = Generated(real, grey(real, 0.0)).condition(IDS[:200])
    assert bool((some[:, None] == known[None]).all(2).any(1).all())


@pytest.mark.parametrize("between", [0.2, 1.0, 4.0])
def test_between_mixes_two_conditions_by_a_beta_number(between: float) -> None:
    data = classes_data(2)
    sampler = Generated(data, echo(data), between=between, seed=5)
    condition = sampler.condition(IDS)
    assert torch.allclose(condition.sum(1), torch.ones(3000), atol=1e-6)
    assert bool((condition >= 0).all())
    ends = (condition == 0) | (condition == 1)
    mixed = condition[~ends.all(1), 0].double()
    # Two examples of the same class have nothing between them: half of the draws.
    assert len(mixed) == pytest.approx(1500, abs=4 * 750**0.5)
    variance = 1 / (4 * (2 * between + 1))
    assert float(mixed.mean()) == pytest.approx(0.5, abs=4 * (variance / len(mixed)) ** 0.5)
    assert float(mixed.var()) == pytest.approx(variance, rel=0.15)
    share = rng.beta(between, 5, IDS, sampler.stream("share"))
    off = torch.minimum((condition[:, 0] - share).abs(), (condition[:, 1] - share).abs())
    assert torch.allclose(off[~ends.all(1)], torch.zeros(len(mixed)), atol=1e-6)


@pytest.mark.parametrize("make", [lambda: table_data(columns=4, outputs=2), classes_data])
def test_what_is_generated_between_lies_between(make: Callable[[], Data]) -> None:
    """A generator that echoes its condition; real targets and soft labels are mixed as it is."""
    data = make()
    size = data.task.size
    sampler = Generated(data, echo(data), between=1.0, seed=2)
    batch = sampler(IDS[:500])
    assert batch.y is not None
    echoed = raw(data, batch)[:, -size:]
    assert torch.allclose(echoed, batch.y, atol=1e-4)
    known = conditions(data, data.train)
    a, b = (
        known[rng.integer(len(known), 2, IDS[:500], sampler.stream(use))]
        for use in ("first", "second")
    )
    share = rng.beta(1.0, 2, IDS[:500], sampler.stream("share"))[:, None]
    assert torch.allclose(batch.y, share * a + (1 - share) * b, atol=1e-5)
    low, high = torch.minimum(a, b) - 1e-5, torch.maximum(a, b) + 1e-5
    assert bool(((low <= batch.y) & (batch.y <= high)).all())


# Labels


def test_labels_of_classes() -> None:
    data = classes_data()
    plain = Generated(data, echo(data))(IDS)
    assert plain.y is not None
    assert plain.y.dtype == torch.int64
    assert plain.y.shape == (3000,)
    assert plain.classes == 3
    assert torch.equal(raw(data, plain)[:, 2:].argmax(1), plain.y)
    soft = Generated(data, echo(data), between=1.0)(IDS)
    assert soft.y is not None
    assert soft.y.shape == (3000, 3)
    assert soft.y.is_floating_point()
    assert soft.classes == 3


def test_labels_of_real_targets_are_standardised() -> None:
    data = table_data(columns=4, outputs=2)
    assert data.train.y is not None
    targets = data.targets(data.train.y)
    batch = Generated(data, echo(data))(IDS[:300])
    assert batch.classes is None
    assert batch.y is not None
    assert batch.y.shape == (300, 2)
    assert bool((batch.y[:, None] == targets[None]).all(2).any(1).all())


@pytest.mark.parametrize("make", [eye_data, pair_data])
def test_vectors_beside_an_image_are_those_of_the_condition(make: Callable[[], Data]) -> None:
    data = make()
    names = list(leaves(data.train.x))
    scale = data.x_scale[names[1]]

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        image = latent[:, :1, None, None].expand(-1, 1, 12, 20).sigmoid() * 255
        pose = condition[:, 2:] * scale.scale + scale.shift
        return {"eye": image, "pose": pose} if isinstance(data.train.x, dict) else (image, pose)

    for between in (None, 1.0):
        sampler = Generated(data, Generator(function, 3), between=between)
        batch = sampler(IDS[:100])
        condition = sampler.condition(IDS[:100])
        assert condition.shape == (100, 4)
        assert isinstance(batch.x, type(data.train.x))
        found = leaves(batch.x)[names[1]]
        assert torch.allclose(found, condition[:, 2:], atol=1e-5)
        assert batch.y is not None
        assert torch.equal(batch.y, condition[:, :2])
    # Standardised as the data are: the vectors of training examples come again.
    known = leaves(data.inputs(data.train.x))[names[1]]
    plain = leaves(Generated(data, Generator(function, 3))(IDS[:50]).x)[names[1]]
    assert float((plain[:, None] - known).abs().amax(2).amin(1).max()) < 1e-5


@pytest.mark.parametrize("make", MAKERS)
def test_without_a_condition_there_is_no_label(make: Callable[[], Data]) -> None:
    data = make()
    for between in (None, 1.0):
        batch = Generated(data, grey(data, conditional=False), between=between)(IDS[:10])
        assert batch.y is None
        assert batch.classes == Empirical(data)(IDS[:10]).classes
    with pytest.raises(ValueError, match="gives examples without labels"):
        Labels()(batch)


def test_a_generator_needs_labels_for_its_conditions() -> None:
    data = replace(classes_data(), train=Split(classes_data().train.x))
    with pytest.raises(DataError, match="data 'classes': a generator needs the labels"):
        Generated(data, echo(classes_data()))(IDS[:3])


# Values


def test_images_of_bytes_in_a_range_of_their_own() -> None:
    data = image_data()

    def ramp(latent: Tensor, condition: Tensor) -> Inputs:
        return torch.linspace(-1, 1, 64).view(1, 1, 8, 8).expand(len(latent), -1, -1, -1)

    batch = Generated(data, Generator(ramp, 1, range=(-1, 1)))(IDS[:5])
    scale = data.x_scale[""]
    found = leaves(batch.x)[""] * scale.scale + scale.shift
    assert torch.allclose(found[0].flatten(), torch.linspace(0, 255, 64), atol=1e-2)
    # Rounding may leave the range a little, and no more is forgiven.
    data_range = {"range": (0.0, 1.0)}
    assert len(Generated(data, grey(data, 1 + 5e-4, **data_range))(IDS[:5])) == 5
    for value in (1.01, -0.01, 128.0):
        says = rf"the generator gave values from {value:.4g} to {value:.4g}, but its range was "
        with pytest.raises(ValueError, match=says + "given as 0 to 1$"):
            Generated(data, grey(data, value, **data_range))(IDS[:5])


@pytest.mark.parametrize("value", [256.0, -1.0, 1e9, math.inf, -math.inf, math.nan])
def test_values_that_bytes_cannot_have_are_told(value: float) -> None:
    data = image_data()
    with pytest.raises(ValueError, match=r"the generator gave values") as caught:
        Generated(data, grey(data, value))(IDS[:5])
    assert "the images of the data have bytes from 0 to 255" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("range_", [None, (-1.0, 1.0)])
def test_one_nan_among_many_is_told(range_: tuple[float, float] | None) -> None:
    data = image_data()

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        made = torch.zeros(len(latent), 1, 8, 8)
        made[latent[:, 0] > 3, 0, 4, 4] = math.nan
        return made

    sampler = Generated(data, Generator(function, 1, range=range_))
    good = sampler.latent(IDS)[:, 0] <= 3
    assert 0 < int((~good).sum()) < 20
    assert len(sampler(IDS[good])) == int(good.sum())
    with pytest.raises(ValueError, match="the generator gave values from nan to nan"):
        sampler(IDS)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_reals_must_be_finite(value: float) -> None:
    data = table_data()
    assert len(Generated(data, grey(data, 1e9))(IDS[:5])) == 5
    with pytest.raises(ValueError, match="the generator gave values that are not finite"):
        Generated(data, grey(data, value))(IDS[:5])


def test_a_range_is_for_bytes() -> None:
    data = table_data()
    with pytest.raises(ValueError, match=r"range is \[-1, 1\], but only images of bytes have one"):
        Generated(data, grey(data, range=(-1, 1)))


def test_bytes_are_taken_too() -> None:
    data = image_data()

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        return torch.full((len(latent), 1, 8, 8), 200, dtype=torch.uint8)

    found = leaves(Generated(data, Generator(function, 1))(IDS[:3]).x)[""]
    assert found.dtype == torch.float32
    expected = leaves(data.inputs(torch.full((3, 1, 8, 8), 200, dtype=torch.uint8)))[""]
    assert torch.equal(found, expected)


class Odd:
    """Something that is no tensor."""


@pytest.mark.parametrize(
    ("make", "given", "says"),
    [
        (image_data, lambda n: torch.zeros(n, 1, 8, 9), r"\(64, 1, 8, 9\); .* \(64, 1, 8, 8\)"),
        (image_data, lambda n: torch.zeros(n, 8, 8), r"\(64, 8, 8\); the data need \(64, 1, 8, 8"),
        (image_data, lambda n: torch.zeros(n, 64), r"\(64, 64\); the data need"),
        (image_data, lambda n: torch.zeros(n - 1, 1, 8, 8), r"\(63, 1, 8, 8\); the data need"),
        (image_data, lambda n: {"x": torch.zeros(n, 1, 8, 8)}, r"{'x': \(64, 1, 8, 8\)}; the"),
        (image_data, lambda n: 3, "of shape int; the data need"),
        (image_data, lambda n: Odd(), "of shape Odd; the data need"),
        (image_data, lambda n: None, "of shape NoneType; the data need"),
        (image_data, lambda n: [1.0], "of shape list; the data need"),
        (table_data, lambda n: [torch.zeros(n, 5), 3], "of shape list; the data need"),
        (table_data, lambda n: torch.zeros(n, 4), r"\(64, 4\); the data need \(64, 5\)"),
        (eye_data, lambda n: torch.zeros(n, 1, 12, 20), r"need {'eye': \(64, 1, 12, 20\), 'pose'"),
        (eye_data, lambda n: {"eye": torch.zeros(n, 1, 12, 20)}, r"the data need {'eye'"),
        (pair_data, lambda n: torch.zeros(n, 2), r"\(64, 2\); the data need {'0'"),
    ],
)
def test_examples_of_another_form_are_told(
    make: Callable[[], Data], given: Callable[[int], Any], says: str
) -> None:
    data = make()
    sampler = Generated(data, Generator(lambda latent, condition: given(len(latent)), 2))
    with pytest.raises(ValueError, match=f"the generator gave examples .*{says}") as error:
        sampler(IDS[:5])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "given", "says"),
    [
        (pair_data, lambda n: {"0": torch.zeros(n, 1, 12, 20), "1": torch.zeros(n, 2)}, "dict|'0'"),
        (table_data, lambda n: np.zeros((n, 5), np.float32), r"of shape ndarray; the data need"),
    ],
)
def test_examples_of_another_kind_are_told(
    make: Callable[[], Data], given: Callable[[int], Any], says: str
) -> None:
    data = make()
    sampler = Generated(data, Generator(lambda latent, condition: given(len(latent)), 2))
    with pytest.raises(ValueError, match=f"the generator gave examples .*({says})"):
        sampler(IDS[:5])


def test_inputs_come_in_the_order_of_the_data() -> None:
    """What puts inputs side by side, as the figures of generators do, goes by that order."""
    data = eye_data()

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        return {"pose": condition[:, 2:], "eye": torch.zeros(len(latent), 1, 12, 20)}

    assert list(leaves(Generated(data, Generator(function, 1))(IDS[:3]).x)) == ["eye", "pose"]


@pytest.mark.parametrize("make", MAKERS)
def test_generators_run_without_gradients_in_batches_of_one_size(
    make: Callable[[], Data],
) -> None:
    data = make()
    sizes: list[int] = []
    inner = grey(data).function
    weight = torch.ones((), requires_grad=True)

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        sizes.append(len(latent))
        return tree_map(lambda v: v * weight, inner(latent, condition))

    batch = Generated(data, Generator(function, 2))(IDS[:100])
    assert sizes == [64, 64]
    assert all(not leaf.requires_grad for leaf in leaves(batch.x).values())
    assert len(Generated(data, Generator(function, 2))(IDS[:0])) == 0


def test_settings_are_checked() -> None:
    data = classes_data()
    for settings, says in (
        ({"between": 0.0}, "between is 0.0; it must be finite and greater than 0, or null"),
        ({"between": math.inf}, "between is inf"),
        ({"between": math.nan}, "between is nan"),
        ({"scale": -0.1}, "scale is -0.1; it must be finite and at least 0"),
        ({"scale": math.nan}, "scale is nan"),
    ):
        with pytest.raises(ValueError, match=says):
            Generated(data, echo(data), **settings)
    for given, says in (
        ({"latent": 0}, "latent is 0; it must be at least 1"),
        ({"latent": 3, "uniforms": 4}, "uniforms is 4; it must be from 0 to 3"),
        ({"latent": 3, "uniforms": -1}, "uniforms is -1"),
        ({"latent": 3, "range": (1.0, 1.0)}, "range is .*; its first number must be the smaller"),
    ):
        with pytest.raises(ValueError, match=says):
            Generator(lambda latent, condition: latent, **given)  # type: ignore[arg-type]


# Conditions of data sets


def test_conditions_of_every_kind_of_data() -> None:
    images = image_data()
    assert images.train.y is not None
    one_hot = conditions(images, images.train)
    assert torch.equal(one_hot, torch.eye(4)[images.train.y])
    table = table_data()
    assert table.train.y is not None
    assert torch.equal(conditions(table, table.train), table.targets(table.train.y))
    for data in (eye_data(), pair_data()):
        assert data.train.y is not None
        found = conditions(data, data.train)
        assert torch.equal(found[:, :2], data.targets(data.train.y))
        pose = list(leaves(data.inputs(data.train.x)).values())[1]
        assert torch.equal(found[:, 2:], pose)
    assert [condition_size(make()) for make in MAKERS] == [4, 2, 4, 4]


# As a recipe, and as Python, names it


def build(data: Data, generators: dict[str, Any], **settings: Any) -> Sampler:
    context = Context(generators=generators)
    return build_sampler([{"generated": settings}], data, 7, "sampler", context)


def test_a_recipe_names_its_generator() -> None:
    data = classes_data()
    sampler = build(data, {"mine": echo(data)}, generator="mine", between=2.0, scale=0.5)
    assert isinstance(sampler, Generated)
    assert (sampler.between, sampler.scale) == (2.0, 0.5)
    assert sampler(IDS[:4]).y is not None
    assert sampler.asks == 0


@pytest.mark.parametrize(
    ("names", "settings", "key", "says"),
    [
        ("a b", {"generator": "c"}, "", r"generator is 'c', which is not in 'gen.*known: a, b"),
        ("gan gmm", {"generator": "gam"}, "", "did you mean 'ga[nm]'|did you mean 'gmm'"),
        ("", {"generator": "c"}, "", "which is not in 'generators'; the recipe has none"),
        ("a", {}, ".generator", "is missing and has no default"),
        ("a", {"generator": "a", "between": -1.0}, "", "between is -1.0"),
        ("a", {"generator": "a", "scale": "big"}, ".scale", "is 'big'"),
        ("a", {"generator": "a", "betwen": 1.0}, ".betwen", "did you mean 'between'"),
        ("pool", {"generator": "pool"}, "", r"a pool of examples; its sampler is {pool: {gen"),
    ],
)
def test_mistakes_are_told_with_their_key(
    names: str, settings: dict[str, Any], key: str, says: str
) -> None:
    data = classes_data()
    made: dict[str, Any] = {n: data.test if n == "pool" else echo(data) for n in names.split()}
    with pytest.raises(RecipeError, match=says) as caught:
        build(data, made, **settings)
    assert caught.value.key.startswith("sampler.0")
    assert caught.value.key.endswith(key)
    assert "\n" not in str(caught.value)


def test_a_generator_named_as_a_pool_is_told() -> None:
    data = classes_data()
    context = Context(generators={"mine": echo(data)})
    with pytest.raises(RecipeError, match=r"'mine', which is no pool, .* {generated: {generator"):
        build_sampler([{"pool": {"generator": "mine"}}], data, 0, "sampler", context)


def test_a_plain_function_of_ones_own_is_a_generator() -> None:
    """From Python, without a recipe: a lambda is drawn from, perturbed, mixed and trained on."""
    data = classes_data()
    generator = Generator(lambda z, c: torch.cat([0.1 * z, c], 1), latent=2)
    sampler = Mixup(Noise(Generated(data, generator, between=1.0), 0.1))
    student = nn.Linear(5, 3)
    settings = Training(steps=300, batch_size=32, lr=0.1)
    result = train(student, sampler, Labels(), data.task, settings=settings)
    assert result.loss < 1.0
    x = data.inputs(torch.cat([torch.zeros(3, 2), torch.eye(3)], 1))
    assert student(x).argmax(1).tolist() == [0, 1, 2]
    wrong = Generated(data, Generator(lambda z, c: z, latent=2))
    with pytest.raises((ValueError, TrainingError), match="the generator gave examples of shape"):
        train(student, wrong, Labels(), data.task, settings=settings)


def test_draw_gives_raw_values() -> None:
    data = classes_data()
    latent, condition = torch.randn(70, 2), torch.eye(3)[torch.arange(70) % 3]
    made = draw(echo(data), data, latent, condition)
    assert isinstance(made, Tensor)
    assert torch.equal(made, torch.cat([latent, condition], 1))
