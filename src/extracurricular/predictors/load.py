"""Load a trained model as a predictor: from a run, a saved student, an ONNX file or weights.

Nothing that is read is executed: weights are safetensors or tensors that torch reads with
``weights_only``, an ONNX file is run by operators of onnxruntime, and a program of ``torch.export``
is refused, as reading one evaluates expressions in it.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.distributions import Distribution
from extracurricular.errors import NoteWarning, RecipeError, StorageError, XclError, shorten
from extracurricular.models import build_model, parameter_count
from extracurricular.models.weights import load_pretrained
from extracurricular.predictors.exported import exported
from extracurricular.predictors.of_data import of_data, with_scales
from extracurricular.predictors.predictor import Predictor, named_inputs
from extracurricular.predictors.released import missing, released
from extracurricular.predictors.saved import FILE, load_saved
from extracurricular.recipe.lookup import find_data
from extracurricular.registry import split_spec
from extracurricular.run.finished import Finished, open_run
from extracurricular.run.precision import autocast
from extracurricular.teachers import HasMembers, NetworkTeacher, Teacher
from extracurricular.teachers.named import ENTRIES
from extracurricular.teachers.onnx import open_session
from extracurricular.teachers.onnx_format import read_layout

# The key of an ONNX file's metadata that describes the model's inputs and outputs.
METADATA = "extracurricular"
# Exported files that lie beside the one to load.
_VARIANTS = (".int8.onnx", ".rows.onnx")
_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def load(
    source: str | Path,
    *,
    student: str | None = None,
    seed: int | None = None,
    teacher: bool = False,
    model: Any = None,
    data: Data | str | dict[str, Any] | None = None,
    key: str | None = None,
    trust: bool = False,
) -> Predictor:
    """Load a trained model.

    Args:
        source: The folder of a finished run, for one of its students or its teacher; a folder that
            ``student.save`` or ``xcl.distill(out=…)`` wrote; an ``.onnx`` file, or the folder of
            an exported model; a file of weights; or, where nothing has that path, the name of a
            released student, such as ``cifar100-resnet8x4``.
        student: Name of the run's student; the recipe's subject where None.
        seed: Seed of that student, or of the teacher's students; the run's first where None.
        teacher: Load the run's teacher instead.
        model: The spec of the network, for weights; the module or its spec, for a saved network
            that is code of your own, unless ``trust`` is given; or the settings of
            an ONNX file that was not exported here, as for a recipe's teacher:
            ``{"onnx": {"output": "logits"}}``.
        data: For weights and such an ONNX file, the data set that the model was trained on, for its
            scales: a :class:`~extracurricular.data.Data`, or a spec as a recipe has it. A run and
            an exported file need none.
        key: Where the weights stand in a checkpoint, such as ``model_ema``; searched where None.
        trust: Whether code that a folder names (``module:attribute``) may be imported.

    Returns:
        The predictor, on a GPU if there is one.

    Raises:
        StorageError: The source does not exist, is damaged, unfinished or of another schema, or
            cannot be read without executing it.
        RecipeError: A setting is missing, wrong or of no use here.
        TrustError: The folder names code that is needed, and ``trust`` is not given.
    """
    if not isinstance(source, str | Path):
        raise RecipeError(
            "source", f"is {shorten(source)}; it must be the path of a folder or file"
        )
    path = Path(source)
    if not path.exists():
        path = released().get(str(source), path)
    if path.is_dir():
        if (path / FILE).is_file():
            given = {"student": student, "seed": seed, "teacher": teacher or None, "data": data,
                     "key": key}  # fmt: skip
            _refuse(f"{str(path)!r} is one saved student", **given)
            return load_saved(path, model, trust=trust)
        found = _exported_in(path)
        if found is None:
            _refuse(f"the run {str(path)!r} knows its own", model=model, key=key)
            run = open_run(path, trust=trust)
            return from_run(run, student=student, seed=seed, teacher=teacher)
        path = found
    given = {"student": student, "seed": seed, "teacher": teacher or None}
    if not path.is_file():
        # A path with folders or an ending is no name.
        named = path.name == str(source) and not path.suffix
        also = missing(str(source)) if named else ""
        raise StorageError(f"there is no run and no file {str(path)!r}{also}")
    _refuse(f"{str(path)!r} is no run", **given)
    if path.suffix.lower() not in _WEIGHTS:
        _refuse(f"{str(path)!r} is no file of weights", key=key)
    kind = path.suffix.lower()
    if kind == ".onnx":
        return _from_onnx(path, model, data)
    if kind == ".pt2":
        raise StorageError(
            f"the file {str(path)!r} is a program of torch.export; reading it would "
            "evaluate expressions in it, so load the .onnx file of the same model"
        )
    if kind in _WEIGHTS:
        return _from_weights(path, model, data, key)
    raise StorageError(
        f"the file {str(path)!r} cannot be loaded; give a run's folder, an .onnx file, or weights "
        f"({', '.join(_WEIGHTS)})"
    )


def from_run(
    found: Finished, *, student: str | None = None, seed: int | None = None, teacher: bool = False
) -> Predictor:
    """Return a student of a finished run, or its teacher, as :func:`load` does.

    No data are read, but for a teacher that is no network, which is fitted again. It predicts as
    the run's evaluation does, with the same precision and batch size.

    Raises:
        XclError: There is no such student or seed, or its files are damaged.
        TrustError: The network or the teacher is code that the run names, and the run was opened
            without ``trust``.
    """
    with found.reading():
        return _from_run(found, student, seed, teacher)


def _from_run(found: Finished, student: str | None, seed: int | None, teacher: bool) -> Predictor:
    workspace, recipe = found.workspace, found.recipe
    seed = recipe.seeds[0] if seed is None else seed
    if teacher and student is not None:
        raise RecipeError("--student", f"is {student!r}, but the teacher is asked for")
    found.check_seed(seed)
    asked: Teacher
    if teacher and recipe.teacher.answers is not None:
        raise RecipeError(
            "--teacher", "is a file of stored answers, which has none on other examples; the run's "
            "summary has its figures"
        )  # fmt: skip
    if teacher:
        asked, title = found.teacher(seed), "teacher"
        entry = found.summary["teacher"]
    else:
        title = found.chosen_student(student)
        asked, entry = found.student(title, seed), found.summary["students"][title]
    fitted = found.calibration(None if teacher else title, seed)
    shared = teacher and not recipe.teacher.per_seed
    data = workspace.described_of(seed)
    # The predictor does not hold the workspace, which may hold data.
    ask, precision, device = with_scales(asked, data), workspace.precision, workspace.device

    def at_precision(parts: dict[str, Tensor]) -> Distribution:
        with autocast(precision, device):
            return ask(parts)

    def members(parts: dict[str, Tensor]) -> list[Distribution]:
        with autocast(precision, device):
            return ask.members(parts)

    return of_data(
        f"{title} of {found.folder}" + ("" if shared else f", seed {seed}"),
        at_precision,
        data,
        entry["parameters"],
        recipe.evaluation.batch_size,
        members if isinstance(asked, HasMembers) else None,
        None if fitted is None else fitted.conformal,
    )


def _refuse(why: str, **settings: Any) -> None:
    for name, value in settings.items():
        if value is not None:
            raise RecipeError(name, f"is of no use here: {why}")


def known_data(data: Data | str | dict[str, Any]) -> Data:
    """Return a data set, given as such or as a recipe writes it."""
    if isinstance(data, Data):
        return data
    return find_data(data if isinstance(data, str) else json.dumps(data))


def _known_data(path: Path, data: Data | str | dict[str, Any] | None) -> Data:
    if data is None:
        raise RecipeError(
            "data",
            f"is needed: {str(path)!r} does not describe its inputs and outputs; name the data set "
            "that it was trained on",
        )
    return known_data(data)


# Weights


def _from_weights(
    path: Path, model: Any, data: Data | str | dict[str, Any] | None, key: str | None
) -> Predictor:
    if model is None:
        raise RecipeError(
            "model", f"is needed: {str(path)!r} holds weights alone; name their network"
        )
    known = _known_data(path, data)
    outputs = known.task.outputs
    module = build_model(model, inputs=known.shapes, outputs=outputs, key="model")
    noun = "classes" if known.task.kind == "classification" else "outputs"
    for note in load_pretrained(module, path, noun, key):
        warnings.warn(note, NoteWarning, stacklevel=3)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = known.to(device)
    network = NetworkTeacher(module.to(device).eval(), known.task)
    return of_data(str(path), with_scales(network, known), known, parameter_count(module))


# ONNX


def _exported_in(folder: Path) -> Path | None:
    """Return the ONNX file in the folder of an exported model; None if it is another folder.

    An 8-bit version beside it is loaded only by its own path.
    """
    if (folder / "recipe.yaml").exists() or not (folder / "metadata.json").is_file():
        return None
    files = [f for f in sorted(folder.glob("*.onnx")) if not f.name.endswith(_VARIANTS)]
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise StorageError(
            f"the folder {str(folder)!r} of an exported model must have one .onnx file to load, "
            f"and has {names}; name the file"
        )
    return files[0]


def _from_onnx(path: Path, model: Any, data: Data | str | dict[str, Any] | None) -> Predictor:
    try:
        layout = read_layout(path)
        session = open_session(path)
    except ValueError as error:
        raise StorageError(str(error)) from None
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is not None:
        _refuse(f"{str(path)!r} describes its inputs and outputs itself", model=model)
        return exported(path, session, text)
    name, settings = split_spec("onnx" if model is None else model, "way to read it", "model")
    if name != "onnx":
        problem = f"is {name!r}; an ONNX file takes none, or {{onnx: {{output: logits}}}}"
        raise RecipeError("model", problem)
    known = _known_data(path, data)
    entry = ENTRIES.build({name: {**settings, "path": str(path)}}, key="model")
    try:
        asked = entry.fit(known, 0)
        predictor = of_data(str(path), with_scales(asked, known), known, layout.parameters)
        # One question now, so that a misfit shows at once.
        predictor.ask(named_inputs(known.train[:2].x))
    except XclError:
        raise
    except ValueError as error:
        raise RecipeError("model.onnx", str(error)) from None
    return predictor
