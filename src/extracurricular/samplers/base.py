"""The interface of samplers: anything with ``sampler(ids) -> Batch`` whose draws are pure.

A draw is a pure function of its id: example ``k`` of the batch depends on ``ids[k]`` alone. All
randomness comes from :mod:`extracurricular.rng`. Samplers nest; a sampler that needs a second
example of its child derives that child's id by hashing its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol, TypeGuard, runtime_checkable

from torch import Tensor

from extracurricular import rng
from extracurricular.errors import RecipeError
from extracurricular.inputs import Batch, Capturable, obstacle
from extracurricular.registry import Registry
from extracurricular.samplers.moving import Moving, placed


@runtime_checkable
class Sampler(Protocol):
    """Anything that maps draw ids [B] to a :class:`Batch` of B examples."""

    def __call__(self, ids: Tensor) -> Batch:
        """Draw the examples with these ids; ``ids`` may be empty."""
        ...


SAMPLERS: Registry[Sampler] = Registry("sampler", "extracurricular.samplers", callable)


@dataclass(frozen=True)
class Seeded(Capturable):
    """Base of the project's samplers, which are dataclasses with a ``seed``.

    It names the random streams so that a sampler inside another of the same kind and seed (mixup
    of mixup) still draws other numbers. A sampler of your own does not need this base.
    """

    @cached_property
    def _children(self) -> list[object]:
        inner: list[object] = []
        for field in fields(self):
            value = getattr(self, field.name)
            inner.extend(value.values() if _is_dict(value) else [value])
        return [child for child in inner if callable(child)]

    @cached_property
    def depth(self) -> int:
        """Number of samplers below this one on the longest path."""
        return 1 + max((getattr(child, "depth", 0) for child in self._children), default=0)

    @cached_property
    def span(self) -> int | None:
        """Draws of the training over which a setting moves, here or below; None where none does."""
        own = [getattr(self, field.name) for field in fields(self)]
        inner = [part for value in own for part in (value.values() if _is_dict(value) else [value])]
        moving = [part.draws for part in inner if isinstance(part, Moving)]
        return next(iter(moving), self._span_below)

    @cached_property
    def _span_below(self) -> int | None:
        spans = [getattr(child, "span", None) for child in self._children]
        return next((span for span in spans if span is not None), None)

    @property
    def pure(self) -> bool:
        """Whether a draw is a function of its id alone, as law 1 asks, all the way down."""
        return all(is_pure(child) for child in self._children)

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the draws, as a clause; None if it can."""
        return next(filter(None, map(obstacle, self._children)), None)

    @property
    def asks(self) -> float:
        """How many times a teacher is asked for one draw, on average."""
        return sum(getattr(child, "asks", 0.0) for child in self._children)

    def announce(self, ids: Tensor) -> None:
        """Prepare for draws with these ids, which come soon; see :func:`announce`.

        A sampler that asks its child for other ids than its own announces those instead.
        """
        for child in self._children:
            announce(child, ids)

    def derived(self, seed: int, ids: Tensor, use: str) -> Tensor:
        """Return ids for further draws of the children, hashed from ``ids``, int64, [B].

        They stand in the training where ``ids`` do, if a setting of a child moves.
        """
        hashed = rng.derive(seed, ids, self.stream(use))
        return hashed if self._span_below is None else placed(hashed, ids, self._span_below)

    def stream(self, use: str) -> str:
        """Return the name of the random stream for one use of this sampler."""
        return f"{type(self).__name__}.{self.depth}.{use}"


def check_child(child: object) -> None:
    """Refuse what cannot be the sampler inside another one.

    Raises:
        RecipeError: It cannot be called.
    """
    if not callable(child):
        raise RecipeError(
            "child", f"is a {type(child).__name__}; it must be a sampler, such as "
            "xcl.Empirical(data)"
        )  # fmt: skip


def _is_dict(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def announce(sampler: object, ids: Tensor) -> None:
    """Announce to a sampler that draws with these ids come soon, so that it may prepare them.

    This is a hint: no draw depends on it, and a sampler without ``announce`` does not get it.

    Args:
        sampler: Any sampler.
        ids: Draw ids, int64, [B], on any device. On the CPU, no announcement waits for a GPU.
    """
    hint = getattr(sampler, "announce", None)
    if hint is not None:
        hint(ids)


def announced(sampler: object, chunks: Iterable[Tensor], ahead: int) -> Iterator[Tensor]:
    """Yield ids chunk by chunk, each announced to the sampler ``ahead`` chunks before."""
    waiting: deque[Tensor] = deque()
    for ids in chunks:
        announce(sampler, ids)
        waiting.append(ids)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def is_pure(sampler: object) -> bool:
    """Return whether a sampler's draws are functions of their ids alone.

    They are unless the sampler has ``pure = False``, as one whose choice depends on the student in
    training. Impure draws cannot be recorded, and are made one step at a time.
    """
    return bool(getattr(sampler, "pure", True))


@runtime_checkable
class Stored(Sampler, Protocol):
    """A sampler whose draws are stored examples, of which something is known."""

    def look_up(self, ids: Tensor, table: Callable[[Sampler], Tensor]) -> Tensor:
        """Return the rows of the draws, [B, …].

        Args:
            ids: The draw ids, [B].
            table: Gives the rows of all examples of a source (``empirical``, ``pool``), in their
                order, on the device of ``ids``.
        """
        ...


def looked_up(sampler: Sampler, ids: Tensor, table: Callable[[Sampler], Tensor]) -> Tensor:
    """Return what is known of the stored examples that draws are; see :class:`Stored`.

    Raises:
        TypeError: The sampler makes new examples.
    """
    if not isinstance(sampler, Stored):
        raise TypeError(f"a {type(sampler).__name__} makes new examples")
    return sampler.look_up(ids, table)


def sources(sampler: Sampler) -> Iterator[Sampler]:
    """Yield the samplers inside one, and itself, that draw from nothing but what they hold.

    Raises:
        ValueError: One of them makes new examples; the sentence is its name.
    """
    if not isinstance(sampler, Stored):
        raise ValueError(_name(sampler))
    inner = [child for child in getattr(sampler, "_children", []) if isinstance(child, Sampler)]
    for child in inner:
        yield from sources(child)
    if not inner:
        yield sampler


def _name(sampler: object) -> str:
    """Return the name of a sampler in recipes, or of its class."""
    name = type(sampler).__name__
    known = {registered.replace("_", ""): registered for registered in SAMPLERS.names()}
    return known.get(name.lower(), name)
