"""Load trained weights from a file, with errors that name the tensor that does not fit.

A file is safetensors, or a checkpoint of torch that holds only tensors and plain values. Names of
tensors may have the prefix ``module.`` of data-parallel training, or be those of the repositories
of the distillation literature.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular.errors import StorageError
from extracurricular.files import load_weights, sha256
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


def load_pretrained(module: nn.Module, path: Path, noun: str = "outputs") -> None:
    """Load a file of weights into a network.

    Args:
        module: The network, changed in place.
        path: A ``.safetensors`` file, or a checkpoint as :func:`read_torch_weights` reads it.
        noun: The word for the network's outputs in errors (``classes``).

    Raises:
        StorageError: The file is missing, damaged or refused, or its tensors do not fit the
            network; the sentence says so if the number of outputs differs.
    """
    expected = module.state_dict()
    state = fitting_names(read_weights(path), expected)
    check_state(expected, state, f"the file {str(path)!r}", noun)
    module.load_state_dict(state)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights, safetensors or a checkpoint of torch.

    Raises:
        StorageError: The file is missing, damaged or refused.
    """
    return load_weights(path) if path.suffix == ".safetensors" else read_torch_weights(path)


def read_torch_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict that torch saved, alone or under ``state_dict`` or ``model``.

    Nothing in the file is executed: one that holds more than tensors and plain values is refused.

    Raises:
        StorageError: The file is missing, damaged or refused, or holds no state dict.
    """
    where = f"the file {str(path)!r}"
    if not path.is_file():
        raise StorageError(f"{where} is missing")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise StorageError(
            f"{where} holds more than tensors, or is damaged; it is not read, as that could run "
            "code: save the state dict alone, best as .safetensors"
        ) from None
    except Exception as error:  # torch, zipfile and pickle raise a dozen kinds for a damaged file
        raise StorageError(f"{where} cannot be read as weights: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict):
        raise StorageError(f"{where} holds {_a(found)}; it must hold a state dict")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise StorageError(
                f"{where} has {_a(value)} as {name!r}; a state dict holds tensors alone"
            )
    return dict(found)


def fitting_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names of a network, as far as the names can be translated.

    The prefix ``module.`` is dropped, names of the published code are translated, the prefix
    ``inner.`` of a network inside of another module is added, and counters of batch norm that old
    checkpoints lack are taken from the network (nothing here reads them). Names that still differ
    are kept, so that an error can name them.
    """
    bare = dict(state)
    if all(name.startswith("module.") for name in state):
        bare = {name.removeprefix("module."): value for name, value in state.items()}
    published = {published_name(name): value for name, value in bare.items()}
    # The network of a zoo may be inside of another module here, or of two.
    depth = min((_inner_depth(name) for name in expected), default=0)
    within = [{f"{'inner.' * k}{n}": v for n, v in bare.items()} for k in range(1, depth + 1)]
    for named in (dict(state), bare, published, *within):
        lacking = {k: v for k, v in expected.items() if k not in named and k.endswith(_COUNTER)}
        if len(named) == len(state) and set(named) | set(lacking) == set(expected):
            return {**named, **lacking}
    # The error that follows is clearest with the names of which most are known.
    known = (bare, published, *within)
    return max(known, key=lambda named: len(named.keys() & expected.keys()))


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
        StorageError: A tensor is missing, too many, of another shape, or holds NaN.
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
    for name in expected:
        value = state[name]
        if value.is_floating_point() and bool(value.isnan().any()):
            raise StorageError(
                f"tensor {name!r} of {where} holds NaN, with which no {owner} answers"
            )


def _a(value: object) -> str:
    """Return the type of a value in words, for errors."""
    return f"a value of type {type(value).__name__}"
