"""A student in a folder of its own: its weights, and all that its users need to know.

``predictor.json`` has the task, the inputs, the scales, the names and the network's spec;
``weights.safetensors`` has the weights. Nothing that is read is executed: a spec that names code of
somebody's own is not followed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from extracurricular.data.base import Data
from extracurricular.data.formats.description import Description, describe_data, frame
from extracurricular.distributions import Calibration
from extracurricular.errors import RecipeError, StorageError, TrustError, XclError
from extracurricular.files import (
    curing,
    load_weights,
    read_sealed,
    save_weights,
    write_sealed,
    write_sealed_if_changed,
)
from extracurricular.models import build_model, parameter_count
from extracurricular.models.base import MODELS
from extracurricular.models.trees import Trees, restored
from extracurricular.models.weights import check_state
from extracurricular.predictors.of_data import of_data, with_scales
from extracurricular.predictors.predictor import Predictor
from extracurricular.recipe.named_code import refusal
from extracurricular.registry import explain_validation, split_spec
from extracurricular.run.estimator import sizes_of
from extracurricular.teachers import NetworkTeacher
from extracurricular.teachers.calibrated import calibrated

SCHEMA = 1
FILE = "predictor.json"
_WEIGHTS = "weights.safetensors"
_CURE = f"without {FILE} xcl.distill makes the student anew"


class _Known(Description):
    """Content of ``predictor.json``."""

    name: str
    model: str | dict[str, Any] | None
    parameters: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=1)]
    sha256: str
    trees: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None


def check_place(folder: Path) -> None:
    """Refuse a folder that is there already and neither empty nor a saved student.

    Raises:
        StorageError: It holds a run, or files from elsewhere.
    """
    if not folder.exists() or (folder / FILE).is_file():
        return
    if not folder.is_dir() or (folder / "recipe.yaml").exists():
        raise StorageError(f"{str(folder)!r} is there already, and holds no saved student")
    foreign = foreign_files(folder)
    if foreign:
        raise StorageError(
            f"the folder {str(folder)!r} holds other files ({foreign[0]!r}), and no saved student; "
            "choose another folder"
        )


def foreign_files(folder: Path) -> list[str]:
    """Return the names of the files in a folder, but for locks and half-written files."""
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if name != ".lock" and not name.endswith(".part")]


def save_network(
    folder: Path,
    module: nn.Module,
    data: Data,
    *,
    model: Any,
    name: str,
    batch_size: int = 1024,
    replace: bool = False,
    half: bool = False,
    calibration: Calibration | None = None,
) -> list[Path]:
    """Write a network, or trees, and what its users need to a folder.

    Args:
        folder: The folder; made where it is missing. Its other files are left alone.
        module: The trained network, or fitted trees.
        data: The data set that it was trained on, for scales and names.
        model: Spec of the network; None for a module of one's own, which has to be given again
            when the folder is loaded.
        name: What the predictor is called.
        batch_size: Examples that it answers at once.
        replace: Whether another student in the folder may be overwritten.
        half: Whether the weights are rounded to float16, which halves the file.
        calibration: The calibration of its answers; None for none.

    Returns:
        The files that were written.

    Raises:
        StorageError: The folder holds another student, or cannot be written to; or a weight is too
            large for float16.
    """
    state = _rounded(module.state_dict()) if half else module.state_dict()
    known = {
        "schema": SCHEMA,
        "name": name,
        **describe_data(data),
        "model": model,
        "parameters": parameter_count(module),
        "batch_size": batch_size,
        **({"trees": module.spec} if isinstance(module, Trees) else {}),
        **_fitted(calibration),
    }
    file = folder / FILE
    if file.is_file() and not replace and not _is_same(folder, known, state):
        raise StorageError(
            f"the folder {str(folder)!r} holds another saved student; choose another folder, or "
            "give save(folder, replace=True)"
        )
    # Without this file the folder holds no student, so none stands beside the weights of another.
    file.unlink(missing_ok=True)
    checksum = save_weights(folder / _WEIGHTS, state)
    write_sealed(file, known | {"sha256": checksum})
    return [file, folder / _WEIGHTS]


def _fitted(calibration: Calibration | None) -> dict[str, Any]:
    # Without one there is no such key, as in the files of earlier versions.
    return {} if calibration is None else {"calibration": calibration.dump()}


def recalibrate(folder: Path, calibration: Calibration | None) -> None:
    """Give a saved student another calibration, or none; its weights stay.

    Raises:
        StorageError: A file is missing or damaged.
    """
    with curing(_CURE):
        known = read_sealed(folder / FILE)
    # In the order in which they are written first.
    last = {"sha256": known.pop("sha256", None)}
    known.pop("calibration", None)
    write_sealed_if_changed(folder / FILE, known | _fitted(calibration) | last)


def saved_trees(folder: Path, data: Data) -> Trees:
    """Return the trees that a folder holds.

    Args:
        folder: The folder.
        data: The data set of the student, or its description.

    Raises:
        StorageError: They are missing or damaged, or lead out of themselves.
    """
    with curing(_CURE):
        known = read_sealed(folder / FILE)
        state = load_weights(folder / _WEIGHTS, known.get("sha256"))
        return restored(known.get("trees"), state, *sizes_of(data))


def _rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in float16, and counters as they are.

    Raises:
        StorageError: A weight is beyond the largest number of float16.
    """
    found = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    for name, value in found.items():
        if not bool(torch.isfinite(value).all()):
            raise StorageError(f"{name!r} has a value that float16 does not have")
    return found


def _is_same(folder: Path, known: dict[str, Any], wanted: dict[str, Tensor]) -> bool:
    """Return whether a folder holds this very student."""
    try:
        found = read_sealed(folder / FILE)
        state = load_weights(folder / _WEIGHTS)
    except StorageError:
        return False
    own = {name: value.detach().cpu() for name, value in wanted.items()}
    return (
        {k: v for k, v in found.items() if k != "sha256"} == known
        and state.keys() == own.keys()
        and all(torch.equal(own[name], value) for name, value in state.items())
    )


def load_saved(folder: Path, model: Any = None, *, trust: bool = False) -> Predictor:
    """Read what :func:`save_network` wrote.

    Args:
        folder: The folder.
        model: The network or its spec, where it is code of one's own. A module's weights are
            replaced.
        trust: Whether code that the folder names as its network may be imported.

    Raises:
        StorageError: A file is missing or damaged, or of a later version.
        RecipeError: ``model`` is missing, or of no use.
        TrustError: The network is code that the folder names, and ``trust`` is not given.
    """
    where = f"the folder {str(folder)!r}"
    found = read_sealed(folder / FILE)
    if found.get("schema") != SCHEMA:
        raise StorageError(
            f"{where} has a student of schema {found.get('schema')!r}, and this version reads "
            f"{SCHEMA}"
        )
    try:
        known = _Known.model_validate(found)
        data = frame(known)
        own = known.trees is None and _is_own(known.model)
    except ValidationError as error:
        complaint = explain_validation(error, "", _Known.model_fields)
        raise StorageError(f"{where} has a damaged {FILE}: {complaint}") from None
    except (RecipeError, ValueError, RuntimeError) as error:
        raise StorageError(f"{where} has a damaged {FILE}: {error}") from None
    state = load_weights(folder / _WEIGHTS, known.sha256)
    module = _module(known, own, model, data, where, trust, state)
    try:
        check_state(module.state_dict(), state, "the file")
        module.load_state_dict(state)
    except (StorageError, RuntimeError) as error:
        problem = " ".join(str(error).split())
        raise StorageError(f"{where} has weights of another network: {problem}") from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = data.to(device)
    network = NetworkTeacher(module.to(device).eval(), data.task)
    fitted = _calibration(known, data, where)
    return of_data(
        f"{known.name} of {folder}",
        with_scales(calibrated(network, fitted), data),
        data,
        known.parameters,
        known.batch_size,
        conformal=None if fitted is None else fitted.conformal,
    )


def _is_own(model: Any) -> bool:
    """Return whether a network is code of somebody's own; None stands for such."""
    return model is None or MODELS.names_own_code(split_spec(model, "network", "model")[0])


def _calibration(known: _Known, data: Data, where: str) -> Calibration | None:
    """Return the calibration of a saved student; None where it has none.

    Raises:
        StorageError: It is damaged, or that of other answers.
    """
    if known.calibration is None:
        return None
    try:
        found = Calibration.load(known.calibration)
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{where} has a damaged {FILE}: calibration: {error}") from None
    if not found.goes_with(data.task):
        raise StorageError(f"{where} has a damaged {FILE}: its calibration is of other answers")
    return found


def _module(
    known: _Known,
    own: bool,
    model: Any,
    data: Data,
    where: str,
    trust: bool,
    state: dict[str, Tensor],
) -> nn.Module:
    """Return the network that a folder's weights belong to, or its trees."""
    if not own and model is not None:
        raise RecipeError("model", f"is of no use here: {where} knows its network")
    if known.trees is not None:
        try:
            return restored(known.trees, state, *sizes_of(data))
        except StorageError as error:
            raise StorageError(f"{where} is damaged: {error}") from None
    if own and model is None and known.model is None:
        raise RecipeError(
            "model", f"is needed: {where} has weights of a network of your own; give it as model=…"
        )
    if own and model is None and not trust:
        name, _ = split_spec(known.model, "network", "model")
        sentence = refusal(where, {}, name, "model")
        raise TrustError(f"{sentence}; or give the network yourself, as model=…")
    if isinstance(model, nn.Module):
        return model
    spec = known.model if model is None else model
    outputs = data.task.outputs
    try:
        return build_model(
            spec, inputs=data.shapes, outputs=outputs, key="model", pixels=data.pixels
        )
    except XclError as error:
        if own:
            raise
        raise StorageError(f"{where} has a network that cannot be built: {error}") from None
