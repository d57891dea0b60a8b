"""Load trained weights from a file, with errors that say what does not fit."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from extracurricular.errors import StorageError
from extracurricular.storage import load_weights


def load_pretrained(module: nn.Module, path: Path, noun: str = "outputs") -> None:
    """Load a safetensors file into a network.

    Args:
        module: The network, changed in place.
        path: The file.
        noun: What the network's outputs are, for errors (``classes``).

    Raises:
        StorageError: The file is missing or damaged, or its tensors do not fit the network; a
            number of outputs that differs is named as such.
    """
    state = load_weights(path)
    expected = module.state_dict()
    for name in expected:
        if name not in state:
            raise StorageError(f"the file {str(path)!r} has no tensor {name!r}, the model has")
    extra = sorted(set(state) - set(expected))
    if extra:
        raise StorageError(f"the file {str(path)!r} has a tensor {extra[0]!r}, the model has not")
    last = list(expected)[-1]
    for name, value in expected.items():
        found, wanted = tuple(state[name].shape), tuple(value.shape)
        if found == wanted:
            continue
        outputs = tuple(expected[last].shape)[:1]
        if found[1:] == wanted[1:] and wanted[:1] == outputs:
            raise StorageError(
                f"the file {str(path)!r} has a network for {found[0]} {noun}, "
                f"but this one needs {wanted[0]}"
            )
        raise StorageError(
            f"tensor {name!r} of {str(path)!r} has the shape {found}, the model needs {wanted}"
        )
    module.load_state_dict(state)
