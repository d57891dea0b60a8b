"""Find a network's tensors in a file as training scripts leave it behind.

A checkpoint holds a state dict somewhere: alone, under one of a few words, beside an exponential
moving average (EMA) of itself, in a pickled network, among settings and states of an optimiser. The
file is read by torch with ``weights_only=True``; where torch refuses it, by
:mod:`extracurricular.models.unpickle`, which executes nothing either.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from extracurricular.errors import StorageError
from extracurricular.files import telling
from extracurricular.models.unpickle import StandIn, UnreadableError, inert

State = dict[str, Tensor]

# Words under which scripts save a state dict, the likeliest first.
_WORDS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "teacher",
    "module", "weights", "params",
)  # fmt: skip
_EMA = re.compile(r"(^|_)ema(_|$)|^averaged?(_|$)|^swa(_|$)", re.IGNORECASE)
_DEEPEST = 3
# Names of state dicts that hold no weights of the network.
_PASSED_OVER = re.compile(r"(^|\.)_extra_state$|^n_averaged$")

_LFS = b"version https://git-lfs.github.com/spec/"
# First bytes of files that people save as weights by mistake, and how they are called.
_OTHERS = (
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes them"),
    (b"\x1f\x8b", "packed by gzip; unpack it first"),
    (b"BZh", "packed by bzip2; unpack it first"),
    (b"\xfd7zXZ\x00", "packed by xz; unpack it first"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"GGUF", "a GGUF file, whose weights are quantised"),
)


@dataclass(frozen=True)
class Checkpoint:
    """The state dicts of a file.

    Args:
        states: Those that may be the network's, the likeliest first, by where they stand; ``""``
            for the whole file.
        averaged: Those that are averages of others over the training.
        notes: Sentences for the person on how the file was read.
    """

    states: dict[str, State]
    averaged: dict[str, State]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path, key: str | None = None) -> Checkpoint:
    """Read the state dicts of a file: safetensors, or anything that ``torch.save`` wrote.

    Args:
        path: The file.
        key: Where the state dict stands, as a dotted path of words (``model_ema``), or the first
            part of the names of its tensors (``teacher`` for ``teacher.conv1.weight``); searched
            where None.

    Raises:
        StorageError: The file is missing, damaged, or of another kind, which the sentence names;
            or it holds no state dict there.
    """
    where = f"the file {str(path)!r}"
    with telling(path, "read"):
        content = path.read_bytes()
    other = kind_of(content)
    if other is not None:
        raise StorageError(f"{where} {other}")
    value, notes = _value(path, content, where)
    if isinstance(value, StandIn):
        state = _of_module(value)
        if not state:
            raise StorageError(f"{where} holds {called(value)}; it must hold a state dict")
        notes += [f"{where} holds a whole network ({value.origin}); its tensors alone were read"]
        value = state
    if not isinstance(value, Mapping):
        raise StorageError(f"{where} holds {called(value)}; it must hold a state dict")
    if key is not None:
        return Checkpoint({key: _at(value, key, where)}, {}, tuple(notes))
    whole = _state(value)
    if whole is not None:
        return Checkpoint({"": whole}, {}, tuple(notes))
    found = _found(value, "", 0)
    if not found:
        raise StorageError(_no_state(value, where))
    plain = {place: state for place, state in found.items() if not _is_averaged(place)}
    averaged = {place: state for place, state in found.items() if _is_averaged(place)}
    if not plain:
        plain, averaged = averaged, {}
    return Checkpoint(plain, averaged, tuple(notes))


def kind_of(content: bytes) -> str | None:
    """Return what a file is that holds no weights to read, as a clause; None for any other."""
    start = content[:512].lstrip()
    if not content:
        return "is empty"
    if start[:1] == b"<" and re.match(rb"<(!doctype|html|\?xml|head|body)", start, re.IGNORECASE):
        return (
            "is a web page, not the weights; perhaps the download needed a login or a confirmation"
        )
    if content.startswith(_LFS):
        return "is a pointer of Git LFS, not the weights themselves; fetch them with `git lfs pull`"
    for first, kind in _OTHERS:
        if content.startswith(first):
            return f"is {kind}"
    if content.startswith(b"PK\x03\x04"):
        if b"/constants.pkl" in content and b"/code/" in content:
            return (
                "is a TorchScript program, which is not read, as that would run code in it; save "
                "the state dict: torch.save(torch.jit.load(FILE).state_dict(), FILE)"
            )
        if b"/archive_format" in content and b"/models/" in content:
            return (
                "is a program of torch.export, which is not read, as that would run code in it; "
                "save its state dict"
            )
    return None


def _value(path: Path, content: bytes, where: str) -> tuple[Any, list[str]]:
    """Return what a file holds, and sentences on how it was read."""
    if path.suffix == ".safetensors" or _is_safetensors(content):
        try:
            return safetensors.torch.load(content), []
        except (safetensors.SafetensorError, ValueError) as error:
            raise StorageError(f"{where} is damaged: {error}") from None
    try:
        # What torch reads by itself are tensors and plain values.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of types that later versions will not write
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), []
    except Exception:  # torch, zipfile and pickle raise a dozen kinds
        pass
    try:
        return inert(content), []
    except UnreadableError as error:
        raise StorageError(f"{where} {error}") from None


def _is_safetensors(content: bytes) -> bool:
    size = int.from_bytes(content[:8], "little")
    return content[8:9] == b"{" and 2 <= size <= len(content) - 8


def _found(value: Mapping[Any, Any], place: str, depth: int) -> dict[str, State]:
    """Return the state dicts in a checkpoint, by their place, the likeliest first."""
    found: dict[str, State] = {}
    known = [word for word in _WORDS if word in value]
    averaged = [name for name in value if isinstance(name, str) and _EMA.search(name)]
    for word in dict.fromkeys([*known, *averaged]):
        inner, here = value[word], f"{place}.{word}".strip(".")
        if isinstance(inner, StandIn):
            inner = _of_module(inner)
        state = _state(inner)
        if state is not None:
            found[here] = state
        elif isinstance(inner, Mapping) and depth < _DEEPEST:
            found |= _found(inner, here, depth + 1)
    if found or depth:
        return found
    # Another word, if only one entry can be meant.
    others = {str(name): _state(inner) for name, inner in value.items()}
    states = {name: state for name, state in others.items() if state is not None}
    return states if len(states) == 1 else {}


def _is_averaged(place: str) -> bool:
    return any(_EMA.search(word) for word in place.split("."))


def _state(value: Any) -> State | None:
    """Return a state dict without what is no weight; None for anything else."""
    if not isinstance(value, Mapping) or not value:
        return None
    kept = {}
    for name, one in value.items():
        if not isinstance(name, str):
            return None
        if _PASSED_OVER.search(name):
            continue
        if not isinstance(one, Tensor):
            return None
        kept[name] = one
    return kept or None


def _at(value: Mapping[Any, Any], key: str, where: str) -> State:
    """Return the state dict at a place that the person named."""
    inner: Any = value
    if key in value:
        inner = value[key]
    else:
        for word in key.split("."):
            inner = inner.get(word) if isinstance(inner, Mapping) else None
    if isinstance(inner, StandIn):
        inner = _of_module(inner)
    state = _state(inner)
    if state is not None:
        return state
    if isinstance(inner, Mapping):
        found = _found(inner, "", 1)
        if found:
            return next(iter(found.values()))
    whole = _state(value) or next(iter(_found(value, "", 0).values()), {})
    part = {n.removeprefix(f"{key}."): one for n, one in whole.items() if n.startswith(f"{key}.")}
    if part:
        return part
    raise StorageError(f"{where} has no state dict {key!r}; {_has(value)}")


def _has(value: Mapping[Any, Any]) -> str:
    shown = [repr(name) for name in value][:8]
    return f"it has {', '.join(shown)}" + (", …" if len(value) > len(shown) else "")


def _no_state(value: Mapping[Any, Any], where: str) -> str:
    """Return why there is no state dict in a checkpoint, as a sentence."""
    parts = [value, *(value[w] for w in _WORDS if isinstance(value.get(w), Mapping))]
    quantised = "quantised tensor"
    for part in parts:
        for name, one in part.items():
            if isinstance(one, StandIn) and one.origin == quantised:
                return f"{where} holds quantised weights ({name!r}); give those in floating point"
    for part in parts[1:] or parts:
        tensors = sum(isinstance(one, Tensor) for one in part.values())
        odd = [(n, one) for n, one in part.items() if not isinstance(one, Tensor)]
        if tensors and odd and (part is not value or tensors >= len(odd)):
            name, one = odd[0]
            return f"{where} has {called(one)} as {name!r}; a state dict holds tensors alone"
    states = [name for name, one in value.items() if _state(one) is not None]
    if states:
        shown = ", ".join(map(repr, states[:8]))
        return f"{where} holds several state dicts ({shown}); name one in key"
    if not value:
        return f"{where} holds an empty dict; it must hold a state dict"
    name, one = next(iter(value.items()))
    if len(value) == 1:
        return f"{where} has {called(one)} as {name!r}; a state dict holds tensors alone"
    return f"{where} holds no state dict; {_has(value)}"


def _of_module(module: StandIn, depth: int = 0) -> State:
    """Return the tensors of a pickled network, by the names that its state dict would have."""
    state: State = {}
    fleeting = module.state.get("_non_persistent_buffers_set")
    passed = fleeting if isinstance(fleeting, set | list) else ()
    for kind in ("_parameters", "_buffers"):
        own = module.state.get(kind)
        for name, one in own.items() if isinstance(own, Mapping) else ():
            if isinstance(one, Tensor) and name not in passed:
                state[str(name)] = one
    parts = module.state.get("_modules")
    for name, part in parts.items() if isinstance(parts, Mapping) else ():
        if isinstance(part, StandIn) and depth < 50:
            inner = _of_module(part, depth + 1)
            state |= {f"{name}.{key}": one for key, one in inner.items()}
    return state


def called(value: object) -> str:
    """Return what a value of a file is, for errors."""
    if isinstance(value, StandIn):
        return f"a {value.origin}" if value.origin else "an object"
    return f"a value of type {type(value).__name__}"
