"""Load trained weights from a file, with errors that name the tensor that does not fit.

:mod:`extracurricular.models.checkpoints` reads the file. Names of tensors may have prefixes that
training scripts leave (``module.``, ``_orig_mod.``, ``model.``, ``net.``), or be those of the
repositories of the distillation literature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from extracurricular.errors import StorageError
from extracurricular.files import sha256
from extracurricular.models.checkpoints import Checkpoint, State, read_checkpoint
from extracurricular.registry import split_spec

# Names in the code of Tian et al. 2020 (github.com/HobbitLong/RepDistiller), as patterns, and ours.
# Its ResNets, wide ResNets, VGGs, MobileNet and ShuffleNets have the same layers as those here.
_PUBLISHED = (
    (r"^conv1\.", "stem."),
    (r"^conv2\.", "last."),
    (r"^bn1\.", "norm."),
    (r"^bn2\.", "last_norm."),
    (r"^(fc|linear|classifier\.0|classifier)\.", "head."),
    (r"^layer(\d)\.", r"stage\1."),  # ResNet, ShuffleNet
    (r"^block(\d)\.layer\.", r"stage\1."),  # wide ResNet
    (r"^blocks\.(\d)\.", r"stage\1."),  # MobileNet
    (r"^block(\d)\.", r"stage\1."),  # VGG
    (r"\.bn(\d)\.", r".norm\1."),
    (r"\.(downsample|convShortcut)\.", ".project."),
    (r"\.conv\.(\d)\.", r".body.\1."),
)
_COUNTER = "num_batches_tracked"
# Prefixes that data-parallel training, torch.compile, Lightning and averaging leave.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "ema_model.")
# The same for a part of the network, in the middle of a name.
_WITHIN = re.compile(r"(^|\.)(?:(?:module|_orig_mod)\.)+")


def files_of(spec: Any) -> list[Path]:
    """Return the existing files of weights that a model's spec names.

    They are the file that its setting ``weights`` names and, for a ``transformers`` folder with
    ``pretrained: true``, its configuration and its weights.
    """
    name, settings = split_spec(spec, "model", "model")
    found = [Path(settings["weights"])] if isinstance(settings.get("weights"), str) else []
    zoo, _, folder = name.partition(":")
    if zoo == "transformers" and settings.get("pretrained") and Path(folder).is_dir():
        found += sorted([*Path(folder).glob("*.json"), *Path(folder).glob("*.safetensors")])
    return [path for path in found if path.is_file()]


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content; the file is read again once it has changed."""
    status = path.stat()
    return _checksum(path.absolute(), status.st_mtime_ns, status.st_size, status.st_ino)


@lru_cache(maxsize=256)
def _checksum(path: Path, *_: int) -> str:
    return sha256(path.read_bytes())


def load_pretrained(
    module: nn.Module, path: Path, noun: str = "outputs", key: str | None = None
) -> tuple[str, ...]:
    """Load a file of weights into a network.

    Args:
        module: The network, changed in place.
        path: A ``.safetensors`` file, or a checkpoint, as
            :func:`~extracurricular.models.checkpoints.read_checkpoint` reads it.
        noun: The word for the network's outputs in errors (``classes``).
        key: Where the weights stand in the file; searched where None.

    Returns:
        Sentences on how the file was read, where that could surprise.

    Raises:
        StorageError: The file is missing, damaged or refused, or its tensors do not fit the
            network; the sentence says so if the number of outputs differs.
    """
    where = f"the file {str(path)!r}"
    expected = module.state_dict()
    found = read_checkpoint(path, key)
    # The names decide which of several is the network's: a student beside its teacher.
    fits = [place for place, one in found.states.items() if _fit(one, expected)]
    place = next(iter(fits or found.states))
    state, prefix = fitting_names(found.states[place], expected)
    check_state(expected, state, where, noun)
    module.load_state_dict(state)
    return (*found.notes, *_notes(found, place, prefix, where))


def load_start(
    module: nn.Module, path: Path, key: str | None = None, strict: bool = True
) -> tuple[str, ...]:
    """Load weights that a network starts its training from.

    Args:
        module: The network, changed in place.
        path, key: As :func:`load_pretrained` takes them.
        strict: Whether all must fit. Otherwise tensors that the network lacks, or has in another
            shape, such as a head for other classes, are left out, and its own keep their first
            values.

    Returns:
        Sentences on how the file was read, and on what did not fit.

    Raises:
        StorageError: The file is of no use, or does not fit as it must.
    """
    found = read_checkpoint(path, key)
    if strict:
        try:
            return load_pretrained(module, path, key=key)
        except StorageError as error:
            raise StorageError(f"{error}; strict: false skips what does not fit") from error
    where, expected = f"the file {str(path)!r}", module.state_dict()
    named = {place: _closest(one, expected) for place, one in found.states.items()}
    place = max(named, key=lambda one: len(_same(named[one], expected)))
    taken = _same(named[place], expected)
    if not taken:
        raise StorageError(
            f"{where} has no tensor that the network has too; it has {_some(list(named[place]))}, "
            f"and the network {_some(list(expected))}"
        )
    for name, value in taken.items():
        _check_numbers(name, value, expected[name], where, "network")
    module.load_state_dict({**expected, **taken})
    left = [name for name in expected if name not in taken and not name.endswith(_COUNTER)]
    other = [name for name in named[place] if name not in taken]
    said = f"{len(taken)} of {len(expected)} tensors are from {where}"
    said += f"; {_some(left)} keep their first values" if left else ""
    said += f"; its {_some(other)} do not fit" if other else ""
    return (*found.notes, *([said] if left or other else []))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _same(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> State:
    """Return the tensors that a network has under the same name and in the same shape."""
    return {k: v for k, v in state.items() if k in expected and v.shape == expected[k].shape}


def _closest(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> State:
    """Return tensors under the names of which a network knows most."""
    return fitting_names(state, expected)[0]


def _notes(found: Checkpoint, place: str, prefix: str, where: str) -> list[str]:
    """Return sentences on what was chosen and left out."""
    others = [*(one for one in found.states if one != place), *found.averaged]
    notes = []
    if others:
        also = ", ".join(map(repr, others))
        notes.append(
            f"{where} has {place!r} and {also}; {place!r} is taken (key: {others[0]} takes that)"
        )
    if prefix:
        notes.append(f"the prefix {prefix!r} of names in {where} is left out")
    return notes


def _fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    named, _ = fitting_names(state, expected)
    return set(named) == set(expected)


def fitting_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[State, str]:
    """Return tensors under the names of a network, as far as the names can be translated.

    Prefixes that training scripts leave are dropped where all names then fit, names of the
    published code are translated, the prefix ``inner.`` of a network inside of another module is
    added, and counters of batch norm that old checkpoints lack are taken from the network (nothing
    here reads them). Names that still differ are kept, so that an error can name them.

    Returns:
        The tensors, and the prefix that was left out; empty for none.
    """
    # The network of a zoo may be inside of another module here, or of two.
    depth = min((_inner_depth(name) for name in expected), default=0)
    closest: State = dict(state)
    for bare, prefix in _stripped(state):
        published = {published_name(name): value for name, value in bare.items()}
        within = [{f"{'inner.' * k}{n}": v for n, v in bare.items()} for k in range(1, depth + 1)]
        for named in (bare, published, *within):
            lacking = {k: v for k, v in expected.items() if k not in named and k.endswith(_COUNTER)}
            if len(named) == len(state) and set(named) | set(lacking) == set(expected):
                return {**named, **lacking}, prefix
            # The error that follows is clearest with the names of which most are known.
            if len(named.keys() & expected.keys()) > len(closest.keys() & expected.keys()):
                closest = named
    return closest, ""


def _stripped(state: Mapping[str, Tensor]) -> Iterator[tuple[State, str]]:
    """Yield tensors by their names, and by those without one prefix after another."""
    bare, dropped = dict(state), ""
    yield bare, dropped
    while bare:
        prefix = next((p for p in _PREFIXES if all(n.startswith(p) for n in bare)), None)
        if prefix is None:
            break
        bare = {name.removeprefix(prefix): value for name, value in bare.items()}
        dropped += prefix
        yield bare, dropped
    parts = [match.group(0).lstrip(".") for match in map(_WITHIN.search, bare) if match]
    if parts:
        yield {_WITHIN.sub(r"\1", name): value for name, value in bare.items()}, dropped + parts[0]


def _inner_depth(name: str) -> int:
    parts = name.split(".")
    return next((k for k, part in enumerate(parts) if part != "inner"), len(parts))


def published_name(name: str) -> str:
    """Return this package's name of a tensor that the published code calls ``name``."""
    for pattern, ours in _PUBLISHED:
        name = re.sub(pattern, ours, name)
    return name


def check_state(
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    where: str,
    noun: str = "outputs",
    owner: str = "model",
) -> None:
    """Refuse tensors that do not fit those of a network.

    Args:
        expected: The network's tensors, the last of which belongs to its last layer.
        state: The tensors to load.
        where: Name of their source, for errors.
        noun: The word for the network's outputs in errors.
        owner: The word for the network in errors.

    Raises:
        StorageError: A tensor is missing, too many, of another shape or kind of numbers, or holds
            NaN.
    """
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    if missing:
        more = f"; {len(missing)} of {len(expected)} are missing" if len(missing) > 1 else ""
        other = f"; it has {extra[0]!r}, which the {owner} lacks" if extra else ""
        raise StorageError(
            f"{where} has no tensor {missing[0]!r}, which the {owner} has{more}{other}"
        )
    if extra:
        more = f", and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise StorageError(f"{where} has a tensor {extra[0]!r}{more}, which the {owner} lacks")
    outputs = tuple(list(expected.values())[-1].shape)[:1] if expected else ()
    for name, value in expected.items():
        found, wanted = tuple(state[name].shape), tuple(value.shape)
        if found == wanted:
            continue
        if found[1:] == wanted[1:] and wanted[:1] == outputs:
            raise StorageError(
                f"{where} has a network for {found[0]} {noun}, but this one needs {wanted[0]}"
            )
        raise StorageError(
            f"tensor {name!r} of {where} has the shape {found}, but the {owner} needs {wanted}"
        )
    for name, value in expected.items():
        _check_numbers(name, state[name], value, where, owner)


def _check_numbers(name: str, value: Tensor, wanted: Tensor, where: str, owner: str) -> None:
    """Refuse a tensor of whole numbers where others are needed, and NaN."""
    if value.is_quantized or (wanted.is_floating_point() and not value.is_floating_point()):
        kind = str(value.dtype).removeprefix("torch.")
        raise StorageError(
            f"tensor {name!r} of {where} is quantised ({kind}), but the {owner} needs "
            "numbers in floating point"
        )
    # Types of 8 bits cannot be asked for NaN.
    numbers = value.float() if value.dtype.itemsize == 1 else value
    if value.is_floating_point() and bool(numbers.isnan().any()):
        raise StorageError(f"tensor {name!r} of {where} holds NaN, with which no {owner} answers")
