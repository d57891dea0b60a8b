"""Load a trained model, from wherever it lies, as a predictor.

Nothing that is read is executed: weights are safetensors or tensors that torch reads with
``weights_only``, an ONNX file is run by operators of onnxruntime, and a program of ``torch.export``
is refused, as reading one evaluates expressions that it holds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular.data.base import Data
from extracurricular.distributions import Distribution, Task
from extracurricular.errors import RecipeError, StorageError, XclError
from extracurricular.models import build_model, parameter_count
from extracurricular.models.weights import load_pretrained
from extracurricular.predictors.of_data import of_data, with_scales
from extracurricular.predictors.predictor import Form, Predictor, named_inputs
from extracurricular.predictors.saved import FILE, load_saved
from extracurricular.recipe.lookup import find_data
from extracurricular.registry import split_spec
from extracurricular.run.finished import Finished, open_run
from extracurricular.teachers import NetworkTeacher, Teacher
from extracurricular.teachers.named import ENTRIES
from extracurricular.teachers.onnx import open_session
from extracurricular.teachers.onnx_format import read_layout
from extracurricular.teachers.raw import read_answer

# The key of an ONNX file's metadata that says what the model takes and gives.
METADATA = "extracurricular"
METADATA_SCHEMA = 1
_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def load(
    source: str | Path,
    *,
    student: str | None = None,
    seed: int | None = None,
    teacher: bool = False,
    model: Any = None,
    data: Data | str | dict[str, Any] | None = None,
) -> Predictor:
    """Load a trained model.

    Args:
        source: The folder of a finished run, of which a student or the teacher is loaded; a folder
            that ``student.save`` wrote; an ``.onnx`` file, or the folder of an exported model; or
            a file of weights.
        student: Name of the run's student; the recipe's subject where None.
        seed: Seed of that student, or of the teacher's students; the run's first.
        teacher: Load the run's teacher instead.
        model: The spec of the network, for weights; the module, for a saved network of your own; or
            how an ONNX file that was not exported here is read, as a recipe's teacher would be:
            ``{"onnx": {"output": "logits"}}``.
        data: For weights and such an ONNX file, the data set that the model was trained on, for its
            scales: a :class:`~extracurricular.data.Data`, or a spec as a recipe has it. A run and
            an exported file need none.

    Returns:
        The predictor, on whatever device is at hand.

    Raises:
        StorageError: There is no such thing, or it is damaged, unfinished, of another schema, or
            cannot be read without running what it holds.
        RecipeError: A setting is missing, wrong or of no use here.
    """
    path = Path(source)
    if path.is_dir():
        if (path / FILE).is_file():
            given = {"student": student, "seed": seed, "teacher": teacher or None, "data": data}
            _refuse(f"{str(path)!r} is one saved student", **given)
            return load_saved(path, _own_module(model, path))
        found = _exported_in(path)
        if found is None:
            _refuse(f"the run {str(path)!r} knows its own", model=model)
            return from_run(open_run(path), student=student, seed=seed, teacher=teacher)
        path = found
    given = {"student": student, "seed": seed, "teacher": teacher or None}
    if not path.is_file():
        raise StorageError(f"there is no run and no file {str(path)!r}")
    _refuse(f"{str(path)!r} is no run", **given)
    kind = path.suffix.lower()
    if kind == ".onnx":
        return _from_onnx(path, model, data)
    if kind == ".pt2":
        raise StorageError(
            f"the file {str(path)!r} is a program of torch.export, which is not read, as that "
            "would evaluate expressions that it holds; load the .onnx file of the same model"
        )
    if kind in _WEIGHTS:
        return _from_weights(path, model, data)
    raise StorageError(
        f"the file {str(path)!r} is none that can be loaded: a run's folder, .onnx, or weights "
        f"({', '.join(_WEIGHTS)})"
    )


def from_run(
    found: Finished, *, student: str | None = None, seed: int | None = None, teacher: bool = False
) -> Predictor:
    """Return a student of a finished run, or its teacher, as :func:`load` does.

    It answers as the run's evaluation does: at its precision, in its batches.

    Raises:
        XclError: There is no such student or seed, or its files are damaged.
    """
    workspace, recipe = found.workspace, found.recipe
    seed = recipe.seeds[0] if seed is None else seed
    if teacher and student is not None:
        raise RecipeError("--student", f"is {student!r}, but the teacher is asked for")
    found.check_seed(seed)
    asked: Teacher
    if teacher:
        asked, title = found.teacher(seed), "teacher"
        entry = found.summary["teacher"]
    else:
        title = found.chosen_student(student)
        asked, entry = found.student(title, seed), found.summary["students"][title]
    shared = teacher and not recipe.teacher.per_seed
    data = workspace.data_of(seed)
    # Not the workspace itself, which keeps all its data.
    ask, fabric = with_scales(asked, data), workspace.fabric

    def at_precision(parts: dict[str, Tensor]) -> Distribution:
        with fabric.autocast():
            return ask(parts)

    return of_data(
        f"{title} of {found.folder}" + ("" if shared else f", seed {seed}"),
        at_precision,
        data,
        entry["parameters"],
        recipe.evaluation.batch_size,
    )


def _own_module(model: Any, path: Path) -> nn.Module | None:
    if model is None or isinstance(model, nn.Module):
        return model
    raise RecipeError("model", f"is of no use here: {str(path)!r} is one saved student")


def _refuse(why: str, **settings: Any) -> None:
    for name, value in settings.items():
        if value is not None:
            raise RecipeError(name, f"is of no use here: {why}")


def known_data(data: Data | str | dict[str, Any]) -> Data:
    """Return a data set that is given as itself, or as a recipe writes it."""
    if isinstance(data, Data):
        return data
    return find_data(data if isinstance(data, str) else json.dumps(data))


def _known_data(path: Path, data: Data | str | dict[str, Any] | None) -> Data:
    if data is None:
        raise RecipeError(
            "data",
            f"is needed: {str(path)!r} does not say what it takes and gives; name the data set "
            "that it was trained on",
        )
    return known_data(data)


# Weights


def _from_weights(path: Path, model: Any, data: Data | str | dict[str, Any] | None) -> Predictor:
    if model is None:
        raise RecipeError(
            "model", f"is needed: {str(path)!r} holds weights alone; name their network"
        )
    known = _known_data(path, data)
    outputs = known.task.outputs
    module = build_model(model, inputs=known.shapes, outputs=outputs, key="model")
    load_pretrained(module, path, "classes" if known.task.kind == "classification" else "outputs")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = known.to(device)
    network = NetworkTeacher(module.to(device).eval(), known.task)
    return of_data(str(path), with_scales(network, known), known, parameter_count(module))


# ONNX


def _exported_in(folder: Path) -> Path | None:
    """The file of an exported model's folder; None if the folder is none.

    A version in 8 bits that lies beside it has to be named to be meant.
    """
    if (folder / "recipe.yaml").exists() or not (folder / "metadata.json").is_file():
        return None
    files = [f for f in sorted(folder.glob("*.onnx")) if not f.name.endswith(".int8.onnx")]
    if len(files) != 1:
        told = ", ".join(file.name for file in files) or "none"
        raise StorageError(
            f"the folder {str(folder)!r} of an exported model must have one .onnx file to load, "
            f"and has {told}; name the file"
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
        _refuse(f"{str(path)!r} says itself what it takes and gives", model=model)
        return _exported(path, session, text)
    name, settings = split_spec("onnx" if model is None else model, "way to read it", "model")
    if name != "onnx":
        problem = f"is {name!r}; an ONNX file takes none, or {{onnx: {{output: logits}}}}"
        raise RecipeError("model", problem)
    known = _known_data(path, data)
    entry = ENTRIES.build({name: {**settings, "path": str(path)}}, key="model")
    try:
        asked = entry.fit(known, 0)
        predictor = of_data(str(path), with_scales(asked, known), known, layout.parameters)
        # Asked once, so that what does not fit is told now.
        predictor.ask(named_inputs(known.train[:2].x))
    except XclError:
        raise
    except ValueError as error:
        raise RecipeError("model.onnx", str(error)) from None
    return predictor


def _exported(path: Path, session: Any, text: str) -> Predictor:
    """Read what an exported file says of itself."""
    where = f"the file {str(path)!r}"
    try:
        said = json.loads(text)
        schema = said["schema"]
        if schema == METADATA_SCHEMA:
            kind = said["task"]
            forms = {
                name: Form(tuple(int(size) for size in one["shape"]), one["dtype"])
                for name, one in said["inputs"].items()
            }
            classes, outputs = tuple(said["classes"]), tuple(said["outputs"])
            angular, parameters = bool(said["angular"]), said["parameters"]
            title = f"{said['student']}, seed {said['seed']}, of {path}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{where} has damaged metadata: {error!r}") from None
    if schema != METADATA_SCHEMA:
        raise StorageError(
            f"{where} has metadata of schema {schema!r}, and this version reads {METADATA_SCHEMA}"
        )
    wanted = {"classification": ["probs"], "regression": ["mean", "variance"]}.get(kind, [])
    found = {one.name: one.shape for one in session.get_outputs()}
    takes = [one.name for one in session.get_inputs()]
    if not wanted or not set(wanted) <= set(found) or set(takes) != set(forms):
        raise StorageError(
            f"{where} takes {', '.join(takes)} and gives {', '.join(found)}, "
            f"which is not what its metadata say of {kind}"
        )
    if not {form.dtype for form in forms.values()} <= {"uint8", "float32"}:
        raise StorageError(f"{where} has metadata with inputs that are no uint8 and no float32")
    size = found[wanted[0]][-1]
    task = Task(kind, size if isinstance(size, int) else len(classes or outputs))

    def ask(parts: dict[str, Tensor]) -> Distribution:
        feed = {name: part.cpu().contiguous().numpy() for name, part in parts.items()}
        try:
            answers = session.run(wanted, feed)
        except Exception as error:  # onnxruntime has a class of its own for each way to fail
            problem = " ".join(str(error).split())
            raise StorageError(f"{where} cannot be run: {problem}") from None
        answer = answers[0] if len(wanted) == 1 else answers
        try:
            read = read_answer(answer, task, "probs" if len(wanted) == 1 else "mean_var")
        except ValueError as error:
            raise StorageError(f"{where}: {error}") from None
        return type(read).from_output(read.parameters.float())

    return Predictor(title, task, forms, ask, classes, outputs, angular, parameters)
