"""Loading a trained model from wherever it lies, and calling it with raw arrays."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import extracurricular as xcl
from extracurricular.distributions import Categorical, Gaussian, Task
from extracurricular.errors import DataError, RecipeError, StorageError
from extracurricular.files import save_weights
from extracurricular.models import build_model
from extracurricular.predictors.load import from_run
from extracurricular.predictors.predictor import Form, Prediction, Predictor, input_forms
from extracurricular.run.finished import open_run
from tests.conftest import eye_data, image_data, pair_data, table_data

DIGITS = {"digits": {"train": 100, "validation": 50}}
MODEL = {"digits_cnn": {"width": 4}}


def images_of(run: Path) -> Any:
    x = open_run(run).data.test.x
    assert isinstance(x, torch.Tensor)
    return x.numpy()


# A run


def test_a_student_answers_as_in_the_evaluation_of_its_run(digits_run: Path) -> None:
    found = open_run(digits_run)
    data = found.data
    for student, seed in (("kd", 1), ("erm", 0)):
        loaded = xcl.load(digits_run, student=student, seed=seed)
        exact = found.workspace.predict(found.student(student, seed), data, data.test)
        said = loaded(images_of(digits_run))
        np.testing.assert_array_equal(said.probs, exact.mean.numpy())
        np.testing.assert_array_equal(said.entropy, exact.entropy().numpy())
        np.testing.assert_array_equal(said.labels, exact.mean.argmax(-1).numpy())
        assert said.names == [str(k) for k in said.labels]
        assert loaded.parameters == found.summary["students"][student]["parameters"]
    assert loaded.name == f"erm of {digits_run}, seed 0"
    assert loaded.classes == tuple("0123456789")
    assert loaded.task == Task("classification", 10)
    assert dict(loaded.inputs) == {"x": Form((1, 8, 8), "uint8")}


def test_which_student_and_seed_by_default(digits_run: Path) -> None:
    x = images_of(digits_run)[:5]
    same = xcl.load(str(digits_run), student="xcl", seed=0)
    np.testing.assert_array_equal(xcl.load(digits_run)(x).probs, same(x).probs)
    other = xcl.load(digits_run, seed=1)
    assert (other(x).probs != same(x).probs).any()


def test_the_teacher_of_a_run(digits_run: Path) -> None:
    found = open_run(digits_run)
    data = found.data
    exact = found.workspace.predict(found.teacher(1), data, data.test)
    loaded = xcl.load(digits_run, teacher=True, seed=1)
    np.testing.assert_array_equal(loaded(images_of(digits_run)).probs, exact.mean.numpy())
    assert loaded.name.startswith("teacher of ")
    with pytest.raises(RecipeError, match="--student: is 'kd', but the teacher is asked for"):
        xcl.load(digits_run, teacher=True, student="kd")


def test_a_regression_answers_in_its_own_units(gaze_run: Path) -> None:
    found = open_run(gaze_run)
    data = found.data
    loaded = xcl.load(gaze_run, student="kd")
    exact = found.workspace.predict(found.student("kd", 0), data, data.test)
    assert isinstance(exact, Gaussian)
    said = loaded({k: v.numpy() for k, v in data.test.x.items()})  # type: ignore[union-attr]
    np.testing.assert_array_equal(said.mean, exact.mean.numpy())
    np.testing.assert_array_equal(said.std, exact.std.numpy())
    assert loaded.angular
    assert dict(loaded.inputs) == input_forms(data)


def test_the_data_set_is_not_kept_alive(digits_run: Path) -> None:
    found = open_run(digits_run)
    split = weakref.ref(found.data.train)
    loaded = from_run(found)
    del found
    gc.collect()
    assert split() is None
    assert len(loaded(np.zeros((2, 1, 8, 8), np.uint8))) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"student": "xc"}, "did you mean 'xcl'"),
        ({"seed": 7}, r"--seed: is 7; the run has the seeds \[0, 1\]"),
        ({"model": "mlp"}, "model: is of no use here: the run .* knows its own"),
    ],
)
def test_mistakes_about_a_run(digits_run: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        xcl.load(digits_run, **settings)


def test_what_is_no_finished_run_is_told(digits_run: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no run and no file '.*nowhere'"):
        xcl.load(tmp_path / "nowhere")
    with pytest.raises(StorageError, match=r"is no run: it has no recipe\.yaml"):
        xcl.load(tmp_path)
    half = Path(shutil.copytree(digits_run, tmp_path / "run"))
    (half / "stage.json").unlink()  # as before there were checksums
    (half / "summary.json").write_text('{"schema": 0}')
    with pytest.raises(StorageError, match="of schema 0, and this version reads 1"):
        xcl.load(half)
    (half / "summary.json").unlink()
    with pytest.raises(StorageError, match="is not finished"):
        xcl.load(half)


# Weights


def test_weights_with_their_network_and_data(digits_run: Path, tmp_path: Path) -> None:
    x = images_of(digits_run)
    exact = xcl.load(digits_run, student="xcl", seed=1)(x).probs
    file = digits_run / "students" / "xcl" / "seed-1" / "weights.safetensors"
    spec = "{digits: {train: 100, validation: 50}}"
    for data in (DIGITS, spec, open_run(digits_run).data):
        loaded = xcl.load(file, model=MODEL, data=data)
        np.testing.assert_allclose(loaded(x).probs, exact, rtol=1e-5)
    torch.save({"state_dict": _tensors(file)}, tmp_path / "net.pth")
    loaded = xcl.load(tmp_path / "net.pth", model=MODEL, data=DIGITS)
    np.testing.assert_allclose(loaded(x).probs, exact, rtol=1e-5)
    assert loaded.parameters == 1182


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    import safetensors.torch

    return safetensors.torch.load_file(file)


def test_weights_need_a_network_and_data_that_fit(digits_run: Path, tmp_path: Path) -> None:
    file = digits_run / "students" / "xcl" / "seed-1" / "weights.safetensors"
    with pytest.raises(RecipeError, match=r"model: is needed: .* holds weights alone"):
        xcl.load(file)
    with pytest.raises(RecipeError, match=r"data: is needed: .* does not describe its inputs"):
        xcl.load(file, model=MODEL)
    with pytest.raises(RecipeError, match="model: unknown model 'digits_cn'; did you mean"):
        xcl.load(file, model="digits_cn", data=DIGITS)
    with pytest.raises(RecipeError, match="no data set, and no recipe, 'digit'"):
        xcl.load(file, model=MODEL, data="digit")
    with pytest.raises(StorageError, match=r"has the shape .* the model needs"):
        xcl.load(file, model={"digits_cnn": {"width": 8}}, data=DIGITS)
    with pytest.raises(RecipeError, match=r"student: is of no use here: .* is no run"):
        xcl.load(file, model=MODEL, data=DIGITS, student="xcl")
    few = image_data(classes=4)
    module = build_model(MODEL, inputs=few.shapes, outputs=4)
    save_weights(tmp_path / "few.safetensors", module.state_dict())
    with pytest.raises(StorageError, match="has a network for 4 classes, but this one needs 10"):
        xcl.load(tmp_path / "few.safetensors", model=MODEL, data=DIGITS)


class _Evil:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('executed')",))


def test_nothing_that_is_read_is_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(StorageError, match=r"has a __builtin__.exec as"):
        xcl.load(tmp_path / "evil.pth", model=MODEL, data=DIGITS)
    (tmp_path / "program.pt2").write_bytes(b"PK")
    with pytest.raises(StorageError, match=r"would evaluate expressions .* load the \.onnx file"):
        xcl.load(tmp_path / "program.pt2")
    (tmp_path / "notes.txt").write_text("?")
    with pytest.raises(StorageError, match=r"cannot be loaded; give a run's folder, an \.onnx"):
        xcl.load(tmp_path / "notes.txt")


# ONNX files


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: dict[str, tuple[int, Sequence[Any]]],
    outputs: dict[str, Sequence[Any]],
    weights: dict[str, Any],
    metadata: Any = None,
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(k, *v) for k, v in inputs.items()],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in outputs.items()],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        helper.set_model_props(made, {"extracurricular": text})
    onnx.save(made, path)
    return path


WEIGHT = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32) / 255
DESCRIPTION = {
    "schema": 1,
    "task": "classification",
    "classes": ["ant", "bee", "cat", "dog"],
    "outputs": [],
    "angular": False,
    "inputs": {"x": {"shape": [1, 8, 8], "dtype": "uint8", "shift": [0], "scale": [1]}},
    "target": None,
    "student": "xcl",
    "seed": 3,
    "model": "mlp",
    "parameters": 256,
}


def classifier(path: Path, metadata: Any = DESCRIPTION, output: str = "probs") -> Path:
    """Bytes in, probabilities and their logarithms before normalisation out."""
    nodes = [
        helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["real"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], [output]),
    ]
    inputs = {"x": (TensorProto.UINT8, ["B", 1, 8, 8])}
    return save(path, nodes, inputs, {output: ["B", 4]}, {"w": WEIGHT}, metadata)


def test_an_exported_classifier_needs_nothing_else(tmp_path: Path) -> None:
    file = classifier(tmp_path / "student.onnx")
    x = np.random.default_rng(1).integers(0, 256, (7, 1, 8, 8)).astype(np.uint8)
    scores = torch.from_numpy(x.reshape(7, 64).astype(np.float32) @ WEIGHT)
    loaded = xcl.load(file)
    np.testing.assert_allclose(loaded(x).probs, scores.softmax(1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(loaded(x, batch_size=2).probs, loaded(x).probs, rtol=1e-5)
    assert loaded(x).names == [DESCRIPTION["classes"][k] for k in scores.argmax(1)]  # type: ignore[index]
    assert loaded.name == f"xcl, seed 3, of {file}"
    assert loaded.parameters == 256
    # The folder that the export made will do, as it says which it is.
    (tmp_path / "metadata.json").write_text("{}")
    np.testing.assert_array_equal(xcl.load(tmp_path)(x).probs, loaded(x).probs)
    classifier(tmp_path / "student.int8.onnx")
    assert xcl.load(tmp_path).name == loaded.name
    classifier(tmp_path / "other.onnx")
    with pytest.raises(StorageError, match=r"has other\.onnx, student\.onnx; name the file"):
        xcl.load(tmp_path)


@pytest.mark.parametrize("names", [("eye", "pose"), ("x0", "x1")])
def test_an_exported_regression_with_two_inputs(tmp_path: Path, names: tuple[str, str]) -> None:
    image, pose = names
    w = np.random.default_rng(2).normal(size=(2, 2)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", [image], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["level"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["level", "one"], ["column"]),
        helper.make_node("MatMul", [pose, "w"], ["turned"]),
        helper.make_node("Add", ["turned", "column"], ["mean"]),
        helper.make_node("Exp", ["turned"], ["variance"]),
    ]
    description = DESCRIPTION | {
        "task": "regression",
        "classes": [],
        "outputs": ["pitch", "yaw"],
        "angular": True,
        "inputs": {
            image: {"shape": [1, 4, 4], "dtype": "uint8", "shift": [0], "scale": [1]},
            pose: {"shape": [2], "dtype": "float32", "shift": [0], "scale": [1]},
        },
    }
    inputs = {
        image: (TensorProto.UINT8, ["B", 1, 4, 4]),
        pose: (TensorProto.FLOAT, ["B", 2]),
    }
    outputs = {"mean": ["B", 2], "variance": ["B", 2]}
    weights = {"w": w, "one": np.array([1])}
    loaded = xcl.load(
        save(tmp_path / "gaze.onnx", nodes, inputs, outputs, weights, metadata=description)
    )
    eye = np.full((3, 1, 4, 4), 9, np.uint8)
    turn = np.random.default_rng(3).normal(size=(3, 2))  # float64 will do
    said = loaded({image: eye, pose: turn})
    np.testing.assert_allclose(said.mean, turn @ w + 9, rtol=1e-5)
    np.testing.assert_allclose(said.std, np.exp(turn @ w / 2), rtol=1e-4)
    assert loaded.angular
    assert loaded.outputs == ("pitch", "yaw")
    if names == ("x0", "x1"):
        np.testing.assert_array_equal(loaded((eye, turn)).mean, said.mean)
    else:
        with pytest.raises(DataError, match="x is a tuple of 2; the model takes a dict of eye, po"):
            loaded((eye, turn))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("{", "has damaged metadata"),
        ("[]", "has damaged metadata"),
        ({"schema": 2}, "metadata of schema 2, and this version reads 1"),
        ({"inputs": {"image": DESCRIPTION["inputs"]["x"]}}, "takes x and gives probs, but its"),  # type: ignore[index]
        ({"inputs": {"x": {"shape": [1, 8, 8], "dtype": "int8"}}}, r"inputs\.x\.dtype is 'int8'"),
        ({"task": "regression"}, "but its metadata describe regression"),
        ({"task": "dreams"}, "damaged metadata: task is 'dreams'"),
        ({"classes": None}, "damaged metadata: classes is None"),
        ({"task": ["x"]}, "damaged metadata: task is "),
        ({"inputs": {"x": {"shape": [1, 8, 8], "dtype": [1]}}}, r"inputs\.x\.dtype is \[1\]"),
        ({"inputs": {"x": {"shape": [1, -8, 8], "dtype": "uint8"}}}, r"inputs\.x\.shape\.1 is -8"),
        ({"parameters": "many"}, "damaged metadata: parameters is 'many'"),
        ({"classes": [1, 2]}, r"classes\.0 is 1"),
        ({"target_transform": [1]}, "has damaged metadata"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "has damaged metadata"),
    ],
)
def test_metadata_that_cannot_be(tmp_path: Path, change: Any, said: str) -> None:
    metadata = change if isinstance(change, str) else DESCRIPTION | change
    file = classifier(tmp_path / "student.onnx", metadata)
    with pytest.raises(StorageError, match=said):
        xcl.load(file)


def test_an_onnx_file_from_elsewhere_needs_data(tmp_path: Path) -> None:
    data = image_data()
    file = classifier(tmp_path / "other.onnx", metadata=None, output="answer")
    with pytest.raises(RecipeError, match="data: is needed"):
        xcl.load(file)
    loaded = xcl.load(file, data=data)
    x = data.test.x
    assert isinstance(x, torch.Tensor)
    expected = xcl.predict(xcl.OnnxTeacher(file, data), data, data.test)
    np.testing.assert_allclose(loaded(x).probs, expected.mean, rtol=1e-5)
    scores = x.flatten(1).float() @ torch.from_numpy(WEIGHT)
    np.testing.assert_allclose(loaded(x).probs, scores.softmax(1), rtol=1e-3, atol=1e-6)
    # Read otherwise, it answers otherwise.
    twice = xcl.load(file, data=data, model={"onnx": {"output": "logits"}})
    again = scores.softmax(1).softmax(1)
    np.testing.assert_allclose(twice(x).probs, again, rtol=1e-3, atol=1e-6)
    with pytest.raises(RecipeError, match="model: is 'mlp'; an ONNX file takes none, or"):
        xcl.load(file, data=data, model="mlp")
    with pytest.raises(RecipeError, match=r"model.onnx: the teacher knows 4 classes, but the data"):
        xcl.load(file, data=image_data(classes=3))


def test_a_damaged_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x99" * 20)
    with pytest.raises(StorageError, match="damaged, or no ONNX file"):
        xcl.load(tmp_path / "a.onnx")


# What a predictor takes


def echo(data: Any) -> Predictor:
    """A predictor that answers with what it was asked: the mean of each input, [B, inputs]."""

    def ask(parts: dict[str, torch.Tensor]) -> Gaussian:
        means = [part.float().flatten(1).mean(1) for part in parts.values()]
        mean = torch.stack(means, dim=1)
        return Gaussian(mean, torch.zeros_like(mean))

    forms = input_forms(data)
    return Predictor("echo", Task("regression", len(forms)), forms, ask, batch_size=3)


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_an_answer_does_not_depend_on_the_batch(size: int) -> None:
    data = image_data()
    predictor = echo(data)
    x = data.train.x
    assert isinstance(x, torch.Tensor)
    np.testing.assert_array_equal(predictor(x, batch_size=size).mean, predictor(x).mean)
    one = predictor(x[4])
    assert one.mean.shape == (1, 1)
    np.testing.assert_array_equal(one.mean[0], predictor(x).mean[4])


def test_forms_that_mean_the_same() -> None:
    predictor = echo(image_data())
    x = np.arange(3 * 64).reshape(3, 1, 8, 8).astype(np.uint8)
    expected = predictor(x).mean
    pictures = [Image.fromarray(one[0]) for one in x]
    for same in (
        torch.from_numpy(x),
        x.astype(np.int64),
        x.astype(np.uint16),
        x.astype(">i4"),
        x[:, 0],
        list(x),
        pictures,
        {"x": x},
        x[::-1][::-1],
    ):
        np.testing.assert_array_equal(predictor(same).mean, expected)
    np.testing.assert_array_equal(predictor.predict(pictures[1]).mean[0], expected[1])
    np.testing.assert_array_equal(predictor(x[1, 0]).mean[0], expected[1])
    colours = echo(image_data(channels=3))
    grey = Image.fromarray(x[0, 0])
    np.testing.assert_allclose(colours(grey).mean[0], expected[0])  # grey becomes three colours


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((2, 1, 8, 8), np.float32), r"reals from 0 to 0, .* bytes, 0 to 255 .* undoes"),
        (np.full((2, 1, 8, 8), 0.5), r"if it was divided by 255, \(255 \* x\)\.round"),
        (np.full((2, 1, 8, 8), -1.7), r"reals from -1.7 to -1.7, .* as the data set had them"),
        (np.full((2, 1, 8, 8), 256), "x has the value 256; the model takes bytes, 0 to 255"),
        (np.full((2, 1, 8, 8), -1), "x has the value -1"),
        (np.zeros((2, 1, 9, 8), np.uint8), r"x has the shape \(2, 1, 9, 8\); .* \(N, 1, 8, 8\)$"),
        (np.zeros((2, 8, 8, 1), np.uint8), r"\(2, 8, 8, 1\); .* it has the channels last"),
        (np.zeros((0, 1, 8, 8), np.uint8), "x holds no examples"),
        (np.zeros((2, 1, 8, 8), bool), "x has values of type torch.bool"),
        (np.full((2, 1, 8, 8), "a"), "x has values of type <U1; they must be numbers"),
        ({"y": 1}, "x has the inputs y; the model takes x"),
        ([np.zeros((1, 8, 8)), np.zeros((1, 9, 9))], "examples of different shapes"),
        (Image.new("L", (9, 8)), r"an image that is 9 × 8 pixels; .* image.resize\(\(8, 8\)\)"),
    ],
)
def test_what_is_no_input_of_bytes(given: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        echo(image_data())(given)


def test_inputs_of_reals() -> None:
    predictor = echo(table_data())
    x = np.arange(10).reshape(2, 5)
    assert predictor(x).mean.tolist() == predictor(x.astype(float)).mean.tolist() == [[2], [7]]
    assert predictor(x[0]).mean.tolist() == [[2]]
    broken = x.astype(float)
    broken[1, 3] = np.nan
    with pytest.raises(DataError, match=r"x\[1, 3\] is nan; every value must be finite"):
        predictor(broken)
    with pytest.raises(DataError, match="x is an image; the model takes reals"):
        predictor(Image.new("L", (5, 5)))
    pictures = Predictor("p", Task("regression", 1), {"x": Form((1, 4, 4), "float32")}, lambda _: 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(DataError, match="x has bytes, but the model takes reals"):
        pictures(np.zeros((1, 4, 4), np.uint8))


def test_several_inputs() -> None:
    eyes, pairs = echo(eye_data()), echo(pair_data())
    x = {k: v.numpy() for k, v in eye_data().test.x.items()}  # type: ignore[union-attr]
    expected = eyes(x).mean
    assert expected.shape == (10, 2)
    np.testing.assert_array_equal(pairs(tuple(x.values())).mean, expected)
    np.testing.assert_array_equal(pairs({"x0": x["eye"], "x1": x["pose"]}).mean, expected)
    one = eyes({"pose": x["pose"][2], "eye": x["eye"][2]})  # whatever their order
    np.testing.assert_allclose(one.mean, expected[2:3], rtol=1e-6)
    with pytest.raises(DataError, match="x has the inputs eye; the model takes eye, pose"):
        eyes({"eye": x["eye"]})
    with pytest.raises(DataError, match="x is a ndarray; the model takes a dict of eye, pose"):
        eyes(x["eye"])
    with pytest.raises(DataError, match=r"different numbers of examples: {'eye': 10, 'pose': 9}"):
        eyes({"eye": x["eye"], "pose": x["pose"][:9]})
    with pytest.raises(DataError, match="x is a tuple of 3; the model takes a dict of x0, x1"):
        pairs((1, 2, 3))


def test_the_callers_arrays_stay_as_they_are() -> None:
    x = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    x.flags.writeable = False
    kept = x.copy()
    echo(image_data())(x)
    np.testing.assert_array_equal(x, kept)


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(DataError, match="batch_size is 0; it must be at least 1"):
        echo(image_data())(np.zeros((1, 1, 8, 8), np.uint8), batch_size=0)


def test_two_threads_are_answered_as_one(digits_run: Path) -> None:
    loaded = xcl.load(digits_run, teacher=True)
    x = images_of(digits_run)[:200]
    halves = [x[:100], x[100:]] * 4
    alone = [loaded(half).probs for half in halves]
    with ThreadPoolExecutor(2) as threads:
        for a, b in zip(threads.map(loaded, halves), alone, strict=True):
            np.testing.assert_array_equal(a.probs, b)


# What it gives


def test_a_prediction_of_classes() -> None:
    said = Prediction(Categorical(torch.tensor([[0.0, 0.0], [0.0, 1e4]])), ("no", "yes"))
    np.testing.assert_allclose(said.probs, [[0.5, 0.5], [0, 1]])
    np.testing.assert_array_equal(said.mean, said.probs)
    np.testing.assert_allclose(said.entropy, [np.log(2), 0], atol=1e-7)
    assert said.labels.tolist() == [0, 1]
    assert said.names == ["no", "yes"]
    assert Prediction(said.distribution).names == ["0", "1"]
    assert len(said) == 2
    assert repr(said) == "Prediction(Categorical, 2 × 2)"
    assert said[1:].names == ["yes"]
    for missing in ("std", "interval"):
        with pytest.raises(AttributeError, match=f"classes has no {missing}; it has probs"):
            getattr(said, missing)()


def test_a_prediction_of_real_targets() -> None:
    said = Prediction(Gaussian(torch.tensor([[5.0, -1.0]]), torch.tensor([[0.0, np.log(4.0)]])))
    assert said.mean.tolist() == [[5, -1]]
    np.testing.assert_allclose(said.std, [[1, 2]], rtol=1e-6)
    low, high = said.interval(0.9)
    np.testing.assert_allclose(high - said.mean, 1.6448536 * said.std, rtol=1e-5)
    np.testing.assert_allclose(said.mean - low, high - said.mean, rtol=1e-5)
    np.testing.assert_allclose(said.entropy, np.log(2 * np.pi * np.e) + np.log(2), rtol=1e-6)
    for missing in ("probs", "labels", "names"):
        with pytest.raises(AttributeError, match="real targets has no"):
            getattr(said, missing)
    for mass in (0, 1, 90):
        with pytest.raises(ValueError, match=f"mass is {mass}; it must be between 0 and 1"):
            said.interval(mass)


@pytest.mark.parametrize("which", ["digits_run", "gaze_run"])
def test_what_export_writes_is_what_load_reads(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(which)
    xcl.export_run(folder, student="kd", seed=1, out=tmp_path / "kd.onnx")
    own, shipped = xcl.load(folder, student="kd", seed=1), xcl.load(tmp_path / "kd.onnx")
    assert (shipped.task, shipped.classes, shipped.outputs) == (own.task, own.classes, own.outputs)
    x = open_run(folder).data.test.x
    raw = x.numpy() if isinstance(x, torch.Tensor) else {k: v.numpy() for k, v in x.items()}
    expected, found = own(raw), shipped(raw)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.entropy, expected.entropy, rtol=1e-3, atol=1e-4)
