"""Draw unlabelled examples of a pool, so that p̂(x) covers more than the training split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data, Split
from extracurricular.data.formats.examples import fingerprint, image_names, read_pool
from extracurricular.data.images.stream import streamed
from extracurricular.inputs import Batch, is_static, leaves, tree_map
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded
from extracurricular.samplers.generated import find_generator
from extracurricular.samplers.stored import STREAMED


@dataclass(frozen=True)
class Pool(Seeded):
    """Draw each example of a pool once an epoch, in an order of its own for each epoch.

    Draws have no labels. Those of the pool, if any, are ignored, as the teacher labels the draws.
    Ids [e·N, (e + 1)·N) are a permutation of the N examples (:func:`extracurricular.rng.permuted`).

    Args:
        data: The data set, whose scales make raw values network inputs.
        pool: The raw examples, with the shapes and on the device of the data's.
        seed: Seed of the orders.
        names: Names of the files of the examples; empty if they have none.

    Raises:
        ValueError: The pool is empty, or its examples differ from the data's in shape or type.
    """

    data: Data
    pool: Split
    seed: int = 0
    names: tuple[str, ...] = field(default=(), metadata={"recorded_as": None})

    def __post_init__(self) -> None:
        """Check the pool against the data."""
        if len(leaves(self.pool.x)) == 0 or len(self.pool) == 0:
            raise ValueError("the pool has no examples")
        like, own = self.data.train.x, self.pool.x
        wanted = {k: tuple(v.shape[1:]) for k, v in leaves(like).items()}
        found = {k: tuple(v.shape[1:]) for k, v in leaves(own).items()}
        if found != wanted or isinstance(own, tuple) != isinstance(like, tuple):
            raise ValueError(
                f"the pool has examples of shape {_text(found)}, "
                f"those of data {self.data.name!r} have {_text(wanted)}"
            )
        for key, leaf in leaves(own).items():
            other = leaves(like)[key]
            which = f"the pool's {key!r}" if key else "the pool"
            if other.dtype == torch.uint8 != leaf.dtype:
                raise ValueError(
                    f"{which} has values of type {str(leaf.dtype).removeprefix('torch.')}; "
                    "the data has bytes 0 to 255, so the pool must too"
                )
            if leaf.device != other.device:
                raise ValueError(f"{which} is on {leaf.device}, the data on {other.device}")

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the draws, as a clause; None if it can."""
        return None if streamed(self.pool.x) is None else STREAMED

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        index = self.index(ids)
        x = self.data.inputs(tree_map(lambda v: v.index_select(0, index), self.pool.x))
        task = self.data.task
        return Batch(ids, x, None, task.classes, binary=task.binary)

    def index(self, ids: Tensor) -> Tensor:
        """Return the number of each draw's example in the pool, int64, [B]."""
        static = is_static(ids) and self.capturable
        return rng.permuted(len(self.pool), self.seed, ids, self.stream("order"), static)

    def look_up(self, ids: Tensor, table: Callable[[Sampler], Tensor]) -> Tensor:
        """Return what a table of the pool has of each draw's example, [B, …]."""
        return table(self).index_select(0, self.index(ids))


@SAMPLERS.register("pool")
def pool(
    data: Data,
    generators: Mapping[str, Any],
    path: str | None = None,
    generator: str | None = None,
    resize: bool = False,
    seed: int = 0,
) -> Pool:
    """Make a :class:`Pool` from files, or from a generator that makes a pool.

    Args:
        data: The data set.
        generators: Generators and pools of the recipe, by name.
        path: A folder of images, or an .npy, .npz or .parquet file
            (:func:`extracurricular.data.formats.examples.read_pool`). Several samplers share one
            reading.
        generator: The entry of ``generators`` that is a pool, instead of ``path``. With neither,
            the pool is the data's own examples without a target.
        resize: Bring the images of ``path`` to the size of the data's.
        seed: Seed of the orders.

    Raises:
        ValueError: Both ``path`` and ``generator`` are given, or neither although the data have no
            examples without a target, or the generator is no pool.
        DataError: The files cannot be used; the sentence says why.
    """
    if path is not None and generator is not None:
        raise ValueError("path and generator: both are given; a pool has one of them")
    if path is None and generator is None:
        if resize:
            raise ValueError("resize is for a pool from a path; leave it out")
        if data.unlabelled is None:
            raise ValueError(
                "path and generator: neither is given; a pool has one of them, as the data has no "
                "examples without a target"
            )
        return Pool(data, data.unlabelled, seed)
    if path is not None:
        folder = Path(path)
        names = tuple(image_names(folder)) if folder.is_dir() else ()
        return Pool(data, _read(folder, data, resize), seed, names)
    assert generator is not None
    if resize:
        raise ValueError("resize is for a pool from a path; leave it out beside a generator")
    made = find_generator(generators, generator)
    if not isinstance(made, Split):
        raise ValueError(
            f"generator is {generator!r}, which is no pool, as it draws examples without end; "
            f"its sampler is {{generated: {{generator: {generator}}}}}"
        )
    return Pool(data, made.to(data.device), seed)


# The last few pools that were read, which the students and seeds of a run share.
_READ: dict[Any, Split] = {}
_KEPT = 4


def _read(path: Path, data: Data, resize: bool) -> Split:
    form = [(k, tuple(v.shape[1:]), v.dtype) for k, v in leaves(data.train.x).items()]
    key = (path, fingerprint(path), type(data.train.x), tuple(form), resize, data.device)
    if key not in _READ:
        found = read_pool(path, data.train.x, resize).to(data.device)
        while len(_READ) >= _KEPT:
            del _READ[next(iter(_READ))]
        _READ[key] = found
    return _READ[key]


def _text(shapes: dict[str, tuple[int, ...]]) -> str:
    return str(shapes[""]) if set(shapes) == {""} else str(shapes)
