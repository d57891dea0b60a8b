"""ONNX files as teachers: what they are asked, what they answer, and what they may not read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import extracurricular as xcl
from extracurricular.data.base import Affine
from extracurricular.distributions import Categorical, Gaussian, Task
from extracurricular.knowledge.fingerprint import teacher_fingerprint
from extracurricular.samplers import Batch
from extracurricular.teachers import HasMembers
from extracurricular.teachers.named import ENTRIES
from extracurricular.teachers.onnx import OnnxTeacher, open_session
from extracurricular.teachers.onnx_format import read_layout
from extracurricular.teachers.order import reordered
from tests.conftest import eye_data, image_data, pair_data, table_data

WEIGHT = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: dict[str, Sequence[Any]],
    outputs: dict[str, Sequence[Any]],
    weights: dict[str, Any] | None = None,
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Write a model; the first output is named first."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(k, kind, v) for k, v in inputs.items()],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in outputs.items()],
        [numpy_helper.from_array(v, k) for k, v in (weights or {}).items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def linear(path: Path, batch: Any = "B", weight: Any = WEIGHT) -> Path:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    rows, columns = weight.shape
    return save(path, [node], {"x": [batch, rows]}, {"y": [batch, columns]}, {"w": weight})


def first(data: Any, count: int = 7) -> Batch:
    x = data.inputs(data.train[:count].x)
    return Batch(torch.arange(count), x)


def test_raw_values_go_in_and_the_targets_own_units_come_out(tmp_path: Path) -> None:
    data = table_data()
    path = linear(tmp_path / "t.onnx")
    teacher = OnnxTeacher(path, data, output="mean_log_var")
    said = xcl.predict(teacher, data, data.test)
    assert isinstance(said, Gaussian)
    wanted = data.test.x.numpy() @ WEIGHT  # type: ignore[union-attr]
    np.testing.assert_allclose(said.mean, wanted[:, :2], rtol=1e-3, atol=1e-2)
    least = 1e-3 * data.y_scale.scale.numpy()  # type: ignore[union-attr]
    std = np.maximum(np.exp(wanted[:, 2:] / 2), least)
    np.testing.assert_allclose(said.std, std, rtol=1e-2)
    assert teacher.parameters == 20


def test_a_network_of_this_package_keeps_its_own_values(tmp_path: Path) -> None:
    data = table_data()
    path = linear(tmp_path / "t.onnx")
    teacher = OnnxTeacher(path, data, output="mean_log_var", raw=False)
    batch = first(data)
    wanted = data.task.distribution(batch.x @ torch.from_numpy(WEIGHT))  # type: ignore[operator]
    torch.testing.assert_close(teacher(batch).parameters, wanted.parameters)


@pytest.mark.parametrize("size", [1, 3, 16])
def test_a_file_made_for_one_batch_size(tmp_path: Path, size: int) -> None:
    data = table_data()
    free = OnnxTeacher(linear(tmp_path / "a.onnx"), data, output="mean_log_var")
    fixed = OnnxTeacher(linear(tmp_path / "b.onnx", size), data, output="mean_log_var")
    torch.testing.assert_close(fixed(first(data)).parameters, free(first(data)).parameters)


def test_classes_by_logits_or_probabilities(tmp_path: Path) -> None:
    data = image_data()
    weight = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32) / 255
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probs"]),
    ]
    outputs = {"logits": ["B", 4], "probs": ["B", 4]}
    path = save(tmp_path / "t.onnx", nodes, {"x": ["B", 1, 8, 8]}, outputs, {"w": weight})
    logits = OnnxTeacher(path, data, output="logits", outputs=("logits",))(first(data))
    probs = OnnxTeacher(path, data, outputs=("probs",))(first(data))
    assert isinstance(logits, Categorical)
    wanted = data.train.x[:7].flatten(1).float() @ torch.from_numpy(weight)  # type: ignore[index]
    torch.testing.assert_close(logits.logits, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(probs.mean, logits.mean)
    with pytest.raises(ValueError, match=r"gives logits .*, probs .*; name the one that is the"):
        OnnxTeacher(path, data)(first(data))
    with pytest.raises(ValueError, match="outputs has 'label', which is none of the file's"):
        OnnxTeacher(path, data, outputs=("label",))(first(data))
    scaled = OnnxTeacher(path, data, output="logits", outputs=("logits",), scale=(255.0,))
    number = OnnxTeacher(path, data, output="logits", outputs=("logits",), scale=255)
    assert number.scale == scaled.scale == (255.0,)
    torch.testing.assert_close(scaled(first(data)).parameters, wanted / 255, rtol=1e-4, atol=1e-4)
    shifted = OnnxTeacher(path, data, output="logits", outputs=("logits",), shift=(255.0,))
    every = torch.from_numpy(weight).sum(0) * 255
    torch.testing.assert_close(
        shifted(first(data)).parameters, wanted - every, rtol=1e-3, atol=1e-3
    )


def test_bytes_are_rounded_for_a_file_that_takes_bytes(tmp_path: Path) -> None:
    data = image_data()
    nodes = [
        helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["few"], axes=[1, 2], keepdims=0),
        helper.make_node("Slice", ["few", "zero", "four", "one"], ["y"]),
    ]
    ints = {"zero": [0], "four": [4], "one": [1]}
    weights = {k: np.array(v, dtype=np.int64) for k, v in ints.items()}
    shapes = {"x": ["B", 1, 8, 8]}, {"y": ["B", 4]}
    path = save(tmp_path / "t.onnx", nodes, *shapes, weights, TensorProto.UINT8)
    teacher = OnnxTeacher(path, data, output="logits")
    wanted = data.train.x[:7].float().mean((1, 2))[:, :4]  # type: ignore[index]
    torch.testing.assert_close(teacher(first(data)).parameters, wanted)
    assert teacher.parameters == 0  # shapes and indices are no weights


def two_inputs(path: Path, names: Sequence[str]) -> Path:
    eye, pose = names
    nodes = [
        helper.make_node("ReduceMean", [eye], ["flat"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["flat", "axis"], ["column"]),
        helper.make_node("Add", ["column", pose], ["mean"]),
        helper.make_node("Exp", [pose], ["std"]),
    ]
    inputs = {eye: ["B", 1, 12, 20], pose: ["B", 2]}
    outputs = {"mean": ["B", 2], "std": ["B", 2]}
    return save(path, nodes, inputs, outputs, {"axis": np.array([1], dtype=np.int64)})


def test_several_inputs_go_by_name(tmp_path: Path) -> None:
    data = eye_data()
    same = OnnxTeacher(two_inputs(tmp_path / "a.onnx", ("eye", "pose")), data)
    path = two_inputs(tmp_path / "b.onnx", ("input_0", "input_1"))
    named = OnnxTeacher(path, data, inputs={"eye": "input_0", "pose": "input_1"})
    torch.testing.assert_close(named(first(data)).parameters, same(first(data)).parameters)
    said = xcl.predict(same, data, data.test)
    assert isinstance(said, Gaussian)
    eye, pose = data.test.x["eye"], data.test.x["pose"]  # type: ignore[index,call-overload]
    wanted = eye.float().mean((1, 2, 3))[:, None] + pose
    torch.testing.assert_close(said.mean, wanted, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(said.std, pose.exp(), rtol=1e-3, atol=1e-4)
    pairs = OnnxTeacher(path, pair_data(), inputs={"0": "input_0", "1": "input_1"})
    assert len(pairs(first(pair_data()))) == 7
    with pytest.raises(ValueError, match="has no input 'eye'; known: input_0, input_1"):
        OnnxTeacher(path, data)(first(data))
    with pytest.raises(ValueError, match="inputs has 'ear'; known: eye, pose"):
        OnnxTeacher(path, data, inputs={"ear": "input_0"})(first(data))
    with pytest.raises(ValueError, match=r"takes 2 inputs \(input_0, input_1\), but .* have 1"):
        OnnxTeacher(path, table_data())(first(table_data()))


def test_what_does_not_go_with_the_data_is_one_sentence(tmp_path: Path) -> None:
    path = linear(tmp_path / "t.onnx")
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", "fw", "y")]
    weight = {"w": np.ones((64, 4), np.float32)}
    file = save(tmp_path / "i.onnx", nodes, {"x": ["B", 1, 8, 8]}, {"y": ["B", 4]}, weight)
    images = image_data(classes=3)
    with pytest.raises(ValueError, match="knows 4 classes, but the data have 3"):
        OnnxTeacher(file, images, output="logits")(first(images))
    with pytest.raises(ValueError, match=r"does not take x \(7, 4\): "):
        OnnxTeacher(path, table_data(columns=4), output="mean_var")(first(table_data(columns=4)))
    with pytest.raises(ValueError, match="output is 'probs'; regression needs one of"):
        OnnxTeacher(path, table_data(), output="probs")
    with pytest.raises(ValueError, match=r"scale \[0.0\]; .* no scale can be 0"):
        OnnxTeacher(path, table_data(), scale=(0.0,))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    data = table_data()
    with pytest.raises(ValueError, match=r"absent.onnx' cannot be read: No such file"):
        OnnxTeacher(tmp_path / "absent.onnx", data)(first(data))
    whole = linear(tmp_path / "t.onnx").read_bytes()
    for name, content in (("cut", whole[:-9]), ("text", b"hello, world\n"), ("empty", b"")):
        file = tmp_path / f"{name}.onnx"
        file.write_bytes(content)
        with pytest.raises(
            ValueError, match=f"{name}.onnx' (is damaged|cannot be opened|is empty)"
        ):
            OnnxTeacher(file, data)(first(data))


@pytest.mark.parametrize("text", [b"metadata", b"inputname", b"outputname"])
def test_a_file_with_a_text_that_is_no_utf_8_is_refused(text: bytes, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["inputname", "w"], ["outputname"])]
    weight = {"w": np.ones((7, 2), np.float32)}
    path = save(
        tmp_path / "t.onnx", nodes, {"inputname": ["B", 7]}, {"outputname": ["B", 2]}, weight
    )
    model = onnx.load(path)
    model.metadata_props.add(key="extracurricular", value="metadata")
    path.write_bytes(model.SerializeToString().replace(text, b"\xc4" + text[1:]))
    with pytest.raises(ValueError, match=r"t\.onnx' cannot be opened: a name or text in it is not"):
        open_session(path)


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"which the extra 'onnx' installs: pip install -e '\."):
        OnnxTeacher(linear(tmp_path / "t.onnx"), table_data())(first(table_data()))


# Tensors in further files


def external(path: Path, location: str) -> Path:
    """A model whose weight lies in another file, wherever that is."""
    model = onnx.load(linear(path))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    return path


def test_tensors_may_lie_beside_the_file(tmp_path: Path) -> None:
    data = table_data()
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    path = external(tmp_path / "t.onnx", "weights.bin")
    teacher = OnnxTeacher(path, data, output="mean_log_var")
    inside = OnnxTeacher(linear(tmp_path / "u.onnx"), data, output="mean_log_var")
    assert torch.equal(teacher(first(data)).parameters, inside(first(data)).parameters)
    before = teacher_fingerprint(teacher)
    entry = ENTRIES.build({"onnx": {"path": str(path)}})
    assert entry.files == [path, tmp_path / "weights.bin"]  # type: ignore[attr-defined]
    (tmp_path / "weights.bin").write_bytes((WEIGHT * 2).tobytes())
    changed = OnnxTeacher(path, data, output="mean_log_var")
    assert teacher_fingerprint(changed) != before


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/{outside}/secret.bin", "a/../../secret.bin"]
)
def test_tensors_may_not_lie_outside_of_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    folder = tmp_path / "given"
    (folder / "a").mkdir(parents=True)
    place = location.format(outside=str(tmp_path).lstrip("/"))
    path = external(folder / "t.onnx", place)
    with pytest.raises(ValueError, match=r"which leads out of its folder"):
        OnnxTeacher(path, table_data(), output="mean_var")(first(table_data()))


@pytest.mark.parametrize("first_one", [True, False])
def test_a_tensor_with_two_places_is_refused(tmp_path: Path, first_one: bool) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    path = external(folder / "t.onnx", "w.bin")
    model = onnx.load(str(path), load_external_data=False)
    entries = next(one for one in model.graph.initializer if one.external_data).external_data
    entries.add(key="location", value="../secret.bin")
    if first_one:
        places = [entry for entry in entries if entry.key == "location"]
        places[0].value, places[1].value = places[1].value, places[0].value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"is damaged, or no ONNX file"):
        OnnxTeacher(path, table_data(), output="mean_var")(first(table_data()))


def test_a_link_out_of_the_folder_is_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "w.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ValueError, match=r"'w.bin', which leads out of its folder"):
        read_layout(external(folder / "t.onnx", "w.bin"))
    with pytest.raises(ValueError, match=r"'absent.bin', which is missing"):
        read_layout(external(folder / "u.onnx", "absent.bin"))


def test_tensors_are_found_wherever_they_may_stand(tmp_path: Path) -> None:
    """In a constant's attribute, inside a branch, in a function."""

    def outside() -> Any:
        tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0])
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret.bin")
        return tensor

    constant = helper.make_node("Constant", [], ["c"], value=outside())
    value = helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])
    branch = helper.make_graph([constant], "b", [], [value])
    conditional = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    function = helper.make_function("d", "f", [], ["c"], [constant], [helper.make_opsetid("", 17)])
    main = [
        (helper.make_graph([constant], "g", [], [value]), []),
        (helper.make_graph([conditional], "g", [], []), []),
        (helper.make_graph([], "g", [], []), [function]),
    ]
    for graph, functions in main:
        path = tmp_path / "t.onnx"
        path.write_bytes(helper.make_model(graph, functions=functions).SerializeToString())
        with pytest.raises(ValueError, match="leads out of its folder"):
            read_layout(path)


# -- files as they are found ----------------------------------------------------------------------


def zipmap(path: Path, keys: Sequence[Any], outputs: Sequence[str] = ("probabilities",)) -> Path:
    """Write a classifier as scikit-learn's converter does: labels, and a map for each example."""
    weight = np.random.default_rng(0).normal(size=(64, len(keys))).astype(np.float32) / 255
    names = {"classlabels_strings": list(keys)} if isinstance(keys[0], str) else {
        "classlabels_int64s": list(keys)
    }  # fmt: skip
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probs"]),
        helper.make_node("ArgMax", ["probs"], ["label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["probs"], ["probabilities"], domain="ai.onnx.ml", **names),
    ]
    key = TensorProto.STRING if isinstance(keys[0], str) else TensorProto.INT64
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(key, value))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 1, 8, 8])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["B"]),
            helper.make_value_info("probabilities", maps),
        ],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def softmaxed(path: Path, data: Any, order: Sequence[int] = range(4)) -> torch.Tensor:
    """Return the probabilities that :func:`zipmap`'s weights give, columns in an order."""
    weight = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32) / 255
    x = data.train.x[:7].flatten(1).float()
    return torch.softmax(x @ torch.from_numpy(weight), 1)[:, list(order)]


def test_a_classifier_of_scikit_learn_answers_by_index_or_name(tmp_path: Path) -> None:
    data = image_data()
    numbers = OnnxTeacher(zipmap(tmp_path / "n.onnx", [0, 1, 2, 3]), data)(first(data))
    torch.testing.assert_close(numbers.mean, softmaxed(tmp_path, data), rtol=1e-4, atol=1e-5)
    named = replace(data, classes=("d", "b", "a", "c"))
    texts = OnnxTeacher(zipmap(tmp_path / "t.onnx", ["a", "b", "c", "d"]), named)(first(named))
    wanted = softmaxed(tmp_path, data, [3, 1, 0, 2])
    torch.testing.assert_close(texts.mean, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"knows the class 'e', but the data have d, b, a, c"):
        OnnxTeacher(zipmap(tmp_path / "e.onnx", ["a", "b", "c", "e"]), named)(first(named))
    with pytest.raises(ValueError, match="knows the class 4"):
        OnnxTeacher(zipmap(tmp_path / "f.onnx", [1, 2, 3, 4]), data)(first(data))


def test_one_sigmoid_is_the_second_of_two_classes(tmp_path: Path) -> None:
    data = replace(image_data(), task=Task("classification", 2), classes=("no", "yes"))
    weight = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32) / 255
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["p"]),
    ]
    outputs = {"z": ["B", 1], "p": ["B", 1]}
    path = save(tmp_path / "t.onnx", nodes, {"x": ["B", 1, 8, 8]}, outputs, {"w": weight})
    z = data.train.x[:7].flatten(1).float() @ torch.from_numpy(weight)  # type: ignore[union-attr]
    for output, name in (("probs", "p"), ("logits", "z")):
        said = OnnxTeacher(path, data, output=output, outputs=(name,))(first(data))  # type: ignore[arg-type]
        torch.testing.assert_close(said.mean[:, 1:], z.sigmoid(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(said.mean.sum(1), torch.ones(7))


def shaped(path: Path, shape: Sequence[Any], transpose: bool = False) -> Path:
    """Write a file that takes images in a form of its own."""
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])] if transpose else []
    nodes += [
        helper.make_node("Flatten", ["t" if transpose else "x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    rows = int(np.prod([n for n in shape[1:] if isinstance(n, int)])) if len(shape) > 1 else 1
    weight = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32) / 255
    return save(path, nodes, {"x": shape}, {"y": ["B", 4]}, {"w": weight})


def colours() -> Any:
    data = image_data()
    x = data.train.x
    assert isinstance(x, torch.Tensor)
    scale = {"": Affine(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))}
    split = replace(data.train, x=torch.cat([x, 255 - x, x // 2], 1))
    return replace(data, train=split, x_scale=scale)


def test_layouts_are_read_from_the_file(tmp_path: Path) -> None:
    data = colours()
    plain = OnnxTeacher(shaped(tmp_path / "a.onnx", ["B", 3, 8, 8]), data, output="logits")
    last = OnnxTeacher(shaped(tmp_path / "b.onnx", ["B", 8, 8, 3], True), data, output="logits")
    flat = OnnxTeacher(shaped(tmp_path / "c.onnx", ["B", 192]), data, output="logits")
    wanted = plain(first(data)).parameters
    torch.testing.assert_close(last(first(data)).parameters, wanted)
    torch.testing.assert_close(flat(first(data)).parameters, wanted)
    assert plain.notes == last.notes == flat.notes == ()


def test_images_of_another_size_are_resized_by_one_rule(tmp_path: Path) -> None:
    data = colours()
    teacher = OnnxTeacher(shaped(tmp_path / "a.onnx", ["B", 3, 4, 4]), data, output="logits")
    whole = teacher(first(data)).parameters
    one = [teacher(first(data)[k : k + 1]).parameters for k in range(7)]  # type: ignore[index]
    torch.testing.assert_close(torch.cat(one), whole)
    [note] = teacher.notes
    assert note == "the teacher takes images of 4 × 4, so those of the data (8 × 8) are resized"
    even = replace(
        data, train=replace(data.train, x=torch.full((3, 3, 8, 8), 9, dtype=torch.uint8))
    )
    weight = np.random.default_rng(0).normal(size=(48, 4)).astype(np.float32) / 255
    said = OnnxTeacher(tmp_path / "a.onnx", even, output="logits")(first(even, 3)).parameters
    torch.testing.assert_close(said[0], torch.from_numpy(9 * weight.sum(0)), rtol=1e-4, atol=1e-4)


def test_what_a_file_leaves_open_is_said_by_input(tmp_path: Path) -> None:
    data = colours()
    path = shaped(tmp_path / "a.onnx", ["B", "h", "w", "c"])
    weight = np.random.default_rng(0).normal(size=(48, 4)).astype(np.float32) / 255
    node = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Flatten", ["t"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    save(path, node, {"x": ["B", "h", "w", "c"]}, {"y": ["B", 4]}, {"w": weight})
    fixed = shaped(tmp_path / "b.onnx", ["B", 3, 4, 4])
    open_file = OnnxTeacher(path, data, output="logits", input={"size": 4, "layout": "nhwc"})
    known = OnnxTeacher(fixed, data, output="logits")
    torch.testing.assert_close(open_file(first(data)).parameters, known(first(data)).parameters)
    for given, words in (
        ({"size": 5}, r"input.size is \[5, 5\], but the file .* takes images of \[4, 4\]"),
        ({"size": "big"}, "input.size is 'big'; it must be a whole number, or height and width"),
        ({"layout": "hwc"}, "input.layout is 'hwc'; it must be one of nchw, nhwc, flat"),
        ({"layout": "flat"}, "takes 4 dimensions, not 2"),
        ({"sise": 4}, "input has 'sise'; did you mean 'size'"),
    ):
        with pytest.raises(ValueError, match=words):
            OnnxTeacher(fixed, data, output="logits", input=given)(first(data))
    with pytest.raises(ValueError, match="input is set, but the data have no images"):
        OnnxTeacher(linear(tmp_path / "t.onnx"), table_data(), output="mean_log_var",
                    input={"size": 4})(first(table_data()))  # fmt: skip


@pytest.mark.parametrize("given", [0.5, [0.5], [0.5, 1.0, 2.0]])
def test_shift_and_scale_are_a_number_or_a_list_in_a_recipe(given: Any, tmp_path: Path) -> None:
    spec = {"onnx": {"path": "x.onnx", "shift": given, "scale": given}}
    entry = ENTRIES.build(spec, key="teacher")
    teacher = OnnxTeacher("x.onnx", colours(), output="logits", shift=entry.shift)  # type: ignore[attr-defined]
    assert teacher.shift == (tuple(given) if isinstance(given, list) else (given,))


# -- classes in another order ---------------------------------------------------------------------


def test_classes_of_a_teacher_are_brought_to_the_order_of_the_data(tmp_path: Path) -> None:
    data = replace(image_data(), classes=("a", "b", "c", "d"))
    path = shaped(tmp_path / "a.onnx", ["B", 1, 8, 8])
    plain = {"onnx": {"path": str(path), "output": "logits"}}
    own = ENTRIES.build(plain).fit(data, 0)
    given = {"onnx": {**plain["onnx"], "classes": ["d", "a", "b", "c"]}}
    other = ENTRIES.build(given).fit(data, 0)
    batch = first(data)
    torch.testing.assert_close(other(batch).mean, own(batch).mean[:, [1, 2, 3, 0]])
    assert teacher_fingerprint(other) != teacher_fingerprint(own)
    assert other.parameters == own.parameters  # type: ignore[attr-defined]
    for classes, words in (
        (["a", "b", "c"], "classes lacks 'd'"),
        (["a", "b", "c", "x"], "classes lacks 'd' and has 'x', which the data do not know"),
        (["a", "b", "c", "c"], "classes has 'c' more than once"),
    ):
        with pytest.raises(ValueError, match=words):
            ENTRIES.build({"onnx": {**plain["onnx"], "classes": classes}}).fit(data, 0)
    with pytest.raises(ValueError, match="classes is set, but the data have none"):
        reordered(own, ["a"], table_data())


def test_members_of_an_ensemble_are_reordered_too() -> None:
    data = replace(image_data(), classes=("a", "b", "c", "d"))
    modules = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)) for _ in range(2)]
    whole = xcl.EnsembleTeacher([xcl.NetworkTeacher(one, data.task) for one in modules])
    found = reordered(whole, ["b", "a", "c", "d"], data)
    batch = first(data)
    assert isinstance(found, HasMembers)
    for mine, theirs in zip(found.members(batch), whole.members(batch), strict=True):
        torch.testing.assert_close(mine.mean, theirs.mean[:, [1, 0, 2, 3]])
    assert not isinstance(reordered(whole.teachers[0], ["b", "a", "c", "d"], data), HasMembers)
    assert reordered(whole, ["a", "b", "c", "d"], data) is whole
