"""The tensor that a network's answer is, whatever the network wraps it in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def raw_output(given: Any) -> Tensor:
    """Return a network's raw output: the answer itself if it is a tensor, else the tensor in it.

    Networks give a tuple, a list, a dict, or a dataclass such as the outputs of transformers. The
    tensor is then the attribute ``logits``, else the value of the key ``logits``, else the first
    tensor in it, in order and depth first.

    Raises:
        ValueError: There is no tensor.
    """
    if isinstance(given, Tensor):
        return given
    found = next(_tensors(given), None)
    if found is None:
        raise ValueError(f"the network gave a {type(given).__name__} without any tensor in it")
    return found


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
        return
    named = getattr(given, "logits", None)
    if named is None and isinstance(given, Mapping):
        named = given.get("logits")
    if isinstance(named, Tensor):
        yield named
        return
    for part in _parts(given):
        yield from _tensors(part)


def _parts(given: Any) -> list[Any]:
    if isinstance(given, Mapping):
        return list(given.values())
    if isinstance(given, tuple | list):
        return list(given)
    if dataclasses.is_dataclass(given):
        return [getattr(given, one.name) for one in dataclasses.fields(given)]
    return []
