"""A student in a folder of its own: its weights, and all that its users need to know.

``predictor.json`` has the task, the inputs, the scales, the names and the network's spec;
``weights.safetensors`` has the weights. Nothing that is read is executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular.data.base import Affine, Data, Split
from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, StorageError
from extracurricular.files import load_weights, read_json, save_weights, write_json
from extracurricular.inputs import Inputs, is_leaf, leaves
from extracurricular.models import build_model, parameter_count
from extracurricular.predictors.of_data import of_data, with_scales
from extracurricular.predictors.predictor import Predictor
from extracurricular.teachers import NetworkTeacher

SCHEMA = 1
FILE = "predictor.json"
_WEIGHTS = "weights.safetensors"


def save_network(
    folder: Path, module: nn.Module, data: Data, *, model: Any, name: str, batch_size: int = 1024
) -> list[Path]:
    """Write a network and what its users need to a folder.

    Args:
        folder: The folder; made where it is missing. One that holds a run is refused.
        module: The trained network.
        data: The data set that it was trained on, for scales and names.
        model: Spec of the network; None for a module of one's own, which has to be given again
            when the folder is loaded.
        name: What the predictor is called.
        batch_size: Examples that it answers at once.

    Returns:
        The files that were written.

    Raises:
        StorageError: The folder holds something else, or cannot be written to.
    """
    if folder.exists() and (not folder.is_dir() or (folder / "recipe.yaml").exists()):
        raise StorageError(f"{str(folder)!r} is there already, and holds no saved student")
    x = data.train.x
    kind = "one" if is_leaf(x) else "dict" if isinstance(x, dict) else "tuple"
    inputs = [
        {
            "key": key,
            "shape": list(leaf.shape[1:]),
            "dtype": str(leaf.dtype).removeprefix("torch."),
            **_affine(data.x_scale[key]),
        }
        for key, leaf in leaves(x).items()
    ]
    checksum = save_weights(folder / _WEIGHTS, module.state_dict())
    known = {
        "schema": SCHEMA,
        "name": name,
        "data": data.name,
        "task": {"kind": data.task.kind, "size": data.task.size},
        "structure": kind,
        "inputs": inputs,
        "target": None if data.y_scale is None else _affine(data.y_scale),
        "classes": list(data.classes),
        "columns": list(data.columns),
        "outputs": list(data.outputs),
        "angular": data.angular,
        "model": model,
        "parameters": parameter_count(module),
        "batch_size": batch_size,
        "sha256": checksum,
    }
    # Last, so that what says that there is a student never stands beside half of one.
    write_json(folder / FILE, known)
    return [folder / FILE, folder / _WEIGHTS]


def load_saved(folder: Path, module: nn.Module | None = None) -> Predictor:
    """Read what :func:`save_network` wrote.

    Args:
        folder: The folder.
        module: The network, for a module of one's own; its weights are replaced.

    Raises:
        StorageError: A file is missing or damaged, or of a later version.
        RecipeError: ``module`` is missing, or of no use.
    """
    where = f"the folder {str(folder)!r}"
    known = read_json(folder / FILE)
    if not isinstance(known, dict) or known.get("schema") != SCHEMA:
        schema = known.get("schema") if isinstance(known, dict) else None
        raise StorageError(
            f"{where} has a student of schema {schema!r}, and this version reads {SCHEMA}"
        )
    try:
        data, spec, size = _described(known), known["model"], int(known["batch_size"])
        name, parameters = f"{known['name']} of {folder}", int(known["parameters"])
        state = load_weights(folder / _WEIGHTS, known["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{where} has a damaged {FILE}: {error!r}") from None
    if spec is None and module is None:
        raise RecipeError("model", f"is needed: {where} has weights of a network of your own")
    if spec is not None:
        if module is not None:
            raise RecipeError("model", f"is of no use here: {where} knows its network")
        module = build_model(
            spec, inputs=data.shapes, outputs=data.task.outputs, key="model", pixels=data.pixels
        )
    assert module is not None
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise StorageError(f"{where} has weights of another network: {problem}") from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = data.to(device)
    network = NetworkTeacher(module.to(device).eval(), data.task)
    return of_data(name, with_scales(network, data), data, parameters, size)


def _affine(scale: Affine) -> dict[str, Any]:
    # Every float32 is a float64 of JSON, so that nothing is lost.
    return {"shift": scale.shift.tolist(), "scale": scale.scale.tolist()}


def _read_affine(found: dict[str, Any]) -> Affine:
    return Affine(torch.tensor(found["shift"]), torch.tensor(found["scale"]))


def _described(known: dict[str, Any]) -> Data:
    """Return a data set of one empty example with the scales and names of the student's."""
    parts: dict[str, Tensor] = {}
    for one in known["inputs"]:
        dtype = torch.uint8 if one["dtype"] == "uint8" else torch.float32
        parts[one["key"]] = torch.zeros(1, *map(int, one["shape"]), dtype=dtype)
    x: Inputs = parts
    if known["structure"] == "one":
        [x] = parts.values()
    elif known["structure"] == "tuple":
        x = tuple(parts.values())
    split = Split(x)
    return Data(
        name=known["data"],
        task=Task(known["task"]["kind"], int(known["task"]["size"])),
        train=split,
        validation=split,
        test=split,
        x_scale={one["key"]: _read_affine(one) for one in known["inputs"]},
        y_scale=None if known["target"] is None else _read_affine(known["target"]),
        classes=tuple(known["classes"]),
        angular=bool(known["angular"]),
        columns=tuple(known["columns"]),
        outputs=tuple(known["outputs"]),
    )
