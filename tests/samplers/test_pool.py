"""Pools: draws of unlabelled examples, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from extracurricular.data.base import Data, Split
from extracurricular.data.formats.examples import read_pool
from extracurricular.errors import RecipeError
from extracurricular.generators import Generator
from extracurricular.inputs import leaves
from extracurricular.samplers import Batch, Empirical, Sampler, build_sampler
from extracurricular.samplers import pool as pools
from extracurricular.samplers.build import Context
from extracurricular.samplers.pool import Pool
from tests.conftest import eye_data, image_data, pair_data, table_data
from tests.data.formats.test_examples import pixels, write


@pytest.fixture(autouse=True)
def _nothing_read_before() -> None:
    pools._READ.clear()


def x_of(batch: Batch) -> Tensor:
    assert isinstance(batch.x, Tensor)
    return batch.x


def build(data: Data, generators: dict[str, Any] | None = None, **settings: Any) -> Sampler:
    context = Context(generators=generators or {})
    return build_sampler([{"pool": settings}], data, 3, "sampler", context)


# The sampler


@pytest.mark.parametrize("make", [image_data, table_data, eye_data, pair_data])
def test_a_pool_visits_every_example_once_an_epoch_without_labels(make: Any) -> None:
    data = make()
    sampler = Pool(data, data.test, seed=4)
    count = len(data.test)
    ids = torch.arange(3 * count)
    batch = sampler(ids)
    assert batch.y is None
    assert batch.classes == Empirical(data)(ids).classes
    inputs = leaves(data.inputs(data.test.x))
    orders = []
    for epoch in range(3):
        part = leaves(batch[slice(count * epoch, count * (epoch + 1))].x)
        orders.append(
            [
                next(
                    i for i in range(count) if all((inputs[k][i] == part[k][j]).all() for k in part)
                )
                for j in range(count)
            ]
        )
        assert sorted(orders[-1]) == list(range(count))
    assert orders[0] != orders[1] != orders[2]
    other = Pool(data, data.test, seed=5)(ids)
    assert any(not torch.equal(leaves(other.x)[k], leaves(batch.x)[k]) for k in inputs)


def test_a_draw_from_a_pool_is_a_pure_function_of_its_id() -> None:
    data = image_data()
    ids = torch.cat([torch.arange(40), torch.tensor([2**40, 2**62 + 1])])
    whole = x_of(Pool(data, data.test)(ids))
    order = torch.randperm(len(ids))
    assert torch.equal(x_of(Pool(data, data.test)(ids[order])), whole[order])
    for k in (0, 17, 41):
        assert torch.equal(x_of(Pool(data, data.test)(ids[k : k + 1])), whole[k : k + 1])
    assert x_of(Pool(data, data.test)(ids[:0])).shape == (0, 1, 8, 8)


def test_labels_of_a_pool_are_left_aside() -> None:
    data = image_data()
    assert data.test.y is not None
    assert Pool(data, data.test)(torch.arange(5)).y is None


def test_a_pool_must_go_with_the_data() -> None:
    data, table = image_data(), table_data()
    with pytest.raises(ValueError, match="the pool has no examples"):
        Pool(data, data.test[:0])
    with pytest.raises(ValueError, match="the pool has no examples"):
        Pool(eye_data(), Split({}))
    says = r"examples of shape \(5,\), those of data 'images' have \(1, 8, 8\)"
    with pytest.raises(ValueError, match=says):
        Pool(data, table.test)
    with pytest.raises(ValueError, match="examples of shape"):
        Pool(eye_data(), pair_data().test)
    named = {str(k): v for k, v in enumerate(leaves(pair_data().test.x).values())}
    with pytest.raises(ValueError, match="examples of shape"):
        Pool(pair_data(), Split(named))
    with pytest.raises(ValueError, match=r"the pool has values of type float32; .* bytes 0 to 255"):
        Pool(data, Split(torch.zeros(3, 1, 8, 8)))
    eyes = eye_data()
    wrong = Split({k: v.float() for k, v in leaves(eyes.test.x).items()})
    with pytest.raises(ValueError, match="the pool's 'eye' has values of type float32"):
        Pool(eyes, wrong)
    with pytest.raises(ValueError, match="the pool is on meta, the data on cpu"):
        Pool(table, table.test.to(torch.device("meta")))


# The sampler in a recipe


def test_a_pool_is_of_a_path_or_of_a_generator() -> None:
    data = image_data()
    with pytest.raises(RecipeError, match=r"sampler.0.pool: path and generator: neither is given"):
        build(data)
    with pytest.raises(RecipeError, match="both are given; a pool has one of them"):
        build(data, path="a", generator="b")


def test_a_generator_that_is_a_pool() -> None:
    data = image_data()
    draw = Generator(lambda latent, condition: latent, latent=4)
    made = {"diffusion": data.test, "gan": draw}
    sampler = build(data, made, generator="diffusion")
    assert isinstance(sampler, Pool)
    assert sampler.seed != 0
    ids = torch.arange(20)
    assert torch.equal(x_of(sampler(ids)), x_of(Pool(data, data.test, sampler.seed)(ids)))
    with pytest.raises(RecipeError, match=r"'difusion', .*did you mean 'diffusion'\?"):
        build(data, made, generator="difusion")
    with pytest.raises(RecipeError, match="generator is 'gan', which is no pool"):
        build(data, made, generator="gan")
    with pytest.raises(RecipeError, match="resize is for a pool from a path"):
        build(data, made, generator="diffusion", resize=True)
    with pytest.raises(RecipeError, match=r"sampler.0.pool: the pool has examples of shape"):
        build(table_data(), made, generator="diffusion")


def test_files_are_read_once_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def counted(*given: Any) -> Split:
        reads.append(given)
        return read_pool(*given)

    monkeypatch.setattr(pools, "read_pool", counted)
    data = image_data()
    for k, values in enumerate(pixels(3)):
        write(tmp_path / f"{k}.png", values)
    first, second = (build(data, path=str(tmp_path)) for _ in range(2))
    assert isinstance(first, Pool)
    assert isinstance(second, Pool)
    assert first.pool is second.pool
    assert len(reads) == 1
    build(image_data(size=4), path=str(tmp_path), resize=True)
    assert len(reads) == 2
    write(tmp_path / "3.png", pixels(4)[3])
    third = build(data, path=str(tmp_path))
    assert isinstance(third, Pool)
    assert len(third.pool) == 4
    assert len(reads) == 3
    for size in range(5, 12):
        build(image_data(size=size), path=str(tmp_path), resize=True)
    assert len(pools._READ) == pools._KEPT
