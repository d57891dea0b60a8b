"""Exported students: the same answers, one file, nothing written that was not verified."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from torch import Tensor, nn

import extracurricular as xcl
from extracurricular.data.base import Affine, Data, make_data
from extracurricular.errors import ExportError, RecipeError, StorageError
from extracurricular.evaluation.predict import predict
from extracurricular.export import formats, ship, verify
from extracurricular.export.card import card
from extracurricular.export.graph import Exported, input_names
from extracurricular.export.quantise import raw_draws
from extracurricular.export.rows import Row
from extracurricular.export.subject import own_network
from extracurricular.export.timing import side_by_side
from extracurricular.files import read_json
from extracurricular.inputs import leaves
from extracurricular.models import MODELS, build_model
from extracurricular.run.finished import open_run
from extracurricular.teachers import Network
from tests.conftest import eye_data, image_data, label_data, pair_data, soft_data, table_data


@pytest.fixture(scope="module", autouse=True)
def _no_time_to_lose() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ship, "_SECONDS", 0.0)
        yield


DATA = {
    "images": image_data,
    "table": table_data,
    "eyes": eye_data,
    "pairs": pair_data,
    "labels": label_data,
    "soft": soft_data,
}


def randomised(module: nn.Module) -> nn.Module:
    """Give batch norms the statistics that training would, so that folding them can go wrong."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    return module.eval()


def network(data: Data, spec: Any = "mlp") -> nn.Module:
    built = build_model(spec, inputs=data.shapes, outputs=data.task.outputs)
    return randomised(built)


def checked(module: nn.Module, data: Data) -> list[verify.Checked]:
    """Export in both formats and compare with what the package itself predicts."""
    model = Exported(module, data)
    program = formats.trace(model)
    original = predict(Network(module, data.task), data, data.test)
    content = formats.with_metadata(formats.to_onnx(model, program), "{}")
    runners = [
        verify.onnx_runner(content),
        verify.torch_runner(formats.to_torch(program, "{}")),
    ]
    return [verify.check(run, data, data.test, original) for run in runners]


# -- every network --------------------------------------------------------------------------------

# A spec of each registered network that is small, and the data that it takes; one that is not
# here is tried by its own name, on images.
SPECS: dict[str, tuple[Any, str]] = {
    "mlp": ({"mlp": {"norm": True, "dropout": 0.1, "activation": "gelu"}}, "pairs"),
    "digits_cnn": ({"digits_cnn": {"width": 4, "dropout": 0.1}}, "images"),
    "resnet{depth}": ("resnet8", "images"),
    "resnet{depth}x4": ("resnet8x4", "images"),
    "wrn-{depth}-{width}": ("wrn-10-1", "images"),
    "vgg{depth}": ("vgg8", "images"),
    "gaze_lenet": ({"gaze_lenet": {"width": 0.2}}, "big eyes"),
    "gaze_preact_resnet": ({"gaze_preact_resnet": {"width": 4, "pool": [3, 5]}}, "big eyes"),
}
DOORS = ("timm:{name}", "torchvision:{name}", "transformers:{name}")


def big_eyes() -> Data:
    rng = np.random.default_rng(4)
    x = {
        "eye": rng.integers(0, 256, (20, 1, 20, 28)).astype(np.uint8),
        "pose": rng.normal(0, 0.2, (20, 2)).astype(np.float32),
    }
    y = rng.normal(0, 0.3, (20, 2)).astype(np.float32)
    return make_data("eyes", (x, y), (x, y), angular=True)


@pytest.mark.parametrize("name", [n for n in MODELS.names() if n not in DOORS])
def test_every_network_is_exported(name: str) -> None:
    spec, kind = SPECS.get(name, (name, "images"))
    data = big_eyes() if kind == "big eyes" else DATA[kind]()
    for found in checked(network(data, spec), data):
        assert found.difference < 1e-4
        assert all(math.isfinite(value) for value in found.metrics.values())


# -- the graph ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DATA)
def test_the_graph_says_what_the_package_says(kind: str) -> None:
    data = DATA[kind]()
    module = network(data, {"mlp": {"hidden": [8]}})
    model = Exported(module, data)
    raw = {model.names[key]: leaf for key, leaf in leaves(data.test.x).items()}
    said = predict(Network(module, data.task), data, data.test)
    found = model(raw)
    for name, wanted in verify.outputs_of(said).items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-6)
    read = verify.read_outputs({k: v.detach() for k, v in found.items()}, data.task)
    torch.testing.assert_close(read.mean, said.mean, rtol=1e-5, atol=1e-6)


def test_extreme_outputs_are_bounded_as_in_the_package() -> None:
    class Constant(nn.Module):
        def __init__(self, row: list[float]) -> None:
            super().__init__()
            self.row = nn.Parameter(torch.tensor(row))

        def forward(self, x: Tensor) -> Tensor:
            return self.row + 0 * x[:, :1]

    data = table_data()
    assert data.y_scale is not None
    module = Constant([1e4, -3.0, 1e3, -1e3])
    said = predict(Network(module, data.task), data, data.test)
    found = Exported(module, data)({"x": data.test.x})
    torch.testing.assert_close(found["variance"], said.var, rtol=1e-5, atol=0)  # type: ignore[union-attr]
    assert torch.isfinite(found["variance"]).all()


def test_names_of_inputs() -> None:
    assert input_names(image_data()) == {"": "x"}
    assert input_names(eye_data()) == {"eye": "eye", "pose": "pose"}
    assert input_names(pair_data()) == {"0": "x0", "1": "x1"}
    x = {"mean": np.ones((4, 2), np.float32), "b c": np.ones((4, 1), np.float32)}
    y = np.arange(4.0, dtype=np.float32)
    with pytest.raises(ExportError, match="have an input 'mean', but an exported model gives that"):
        input_names(make_data("d", (x, y), (x, y)))
    x["a d"] = x.pop("mean")
    data = make_data("d", (x, y), (x, y))
    assert [found.difference < 1e-4 for found in checked(network(data), data)] == [True, True]


def test_the_module_given_is_not_changed() -> None:
    data = image_data()
    module = network(data, "digits_cnn").train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    Exported(module, data)
    assert module.training
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


# -- the files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> ship.Shipped:
    folder = tmp_path_factory.mktemp("shipped")
    return ship.export_run(digits_run, folder / "xcl.onnx", seed=1, int8=True)


@pytest.fixture(scope="module")
def gaze(gaze_run: Path, tmp_path_factory: pytest.TempPathFactory) -> ship.Shipped:
    return ship.export_run(gaze_run, tmp_path_factory.mktemp("shipped") / "mine.onnx", student="kd")


def test_one_file_with_its_metadata(exported: ship.Shipped) -> None:
    names = ["xcl.onnx", "xcl.int8.onnx", "metadata.json", "README.md"]
    assert [file.name for file in exported.files] == names
    folder = exported.files[0].parent
    assert sorted(file.name for file in folder.iterdir()) == sorted(names)
    said = json.loads((folder / "metadata.json").read_text())
    assert said == exported.metadata
    for file in exported.files[:2]:
        proto = onnx.load(file, load_external_data=False)
        carried = {prop.key: prop.value for prop in proto.metadata_props}
        assert json.loads(carried["extracurricular"]) == said
        assert not any(t.data_location for t in proto.graph.initializer)
        onnx.checker.check_model(proto, full_check=True)
    assert {o.domain: o.version for o in onnx.load(exported.files[0]).opset_import} == {"": 18}


def test_what_the_metadata_say(
    exported: ship.Shipped, gaze: ship.Shipped, digits_run: Path
) -> None:
    said = exported.metadata
    assert list(said) == [
        *("schema", "task", "classes", "outputs", "columns", "reading", "angular", "inputs"),
        *(
            "target",
            "student",
            "seed",
            "recipe",
            "model",
            "parameters",
            "metrics",
            "files",
            "versions",
        ),
    ]
    assert (said["schema"], said["task"], said["student"], said["seed"]) == (
        *(1, "classification", "xcl", 1),
    )
    assert said["classes"] == [str(digit) for digit in range(10)]
    assert said["target"] is None
    data = open_run(digits_run).data
    scale = data.x_scale[""]
    assert said["inputs"] == {
        "x": {
            "shape": [1, 8, 8],
            "dtype": "uint8",
            "shift": scale.shift.flatten().tolist(),
            "scale": scale.scale.flatten().tolist(),
        }
    }
    summary = json.loads((digits_run / "summary.json").read_text())
    known = summary["students"]["xcl"]
    assert said["parameters"] == known["parameters"]
    assert said["recipe"] == summary["recipe"]
    for name, value in said["metrics"].items():
        assert value == pytest.approx(known["metrics"][name]["per_seed"][1], abs=1e-5)
    assert said["files"]["xcl.onnx"]["difference"] < 1e-4
    assert said["files"]["xcl.int8.onnx"]["precision"] == "int8"
    said = gaze.metadata
    assert (said["task"], said["angular"], said["outputs"]) == (
        *("regression", True, ["pitch", "yaw"]),
    )
    assert list(said["inputs"]) == ["eye", "pose"]
    assert len(said["target"]["shift"]) == len(said["target"]["scale"]) == 2


def test_no_path_of_this_machine_is_in_a_file(exported: ship.Shipped) -> None:
    for file in exported.files:
        content = file.read_bytes()
        for part in (str(Path(xcl.__file__).parent), sys.prefix, "site-packages"):
            assert part.encode() not in content


def test_exporting_again_gives_the_same_file(exported: ship.Shipped, digits_run: Path) -> None:
    before = exported.files[0].read_bytes()
    again = ship.export_run(digits_run, exported.files[0], seed=1)
    assert again.files[0].read_bytes() != b""
    # The 8-bit file of before is still there, and still told of.
    assert again.metadata == exported.metadata
    assert again.files[0].read_bytes() == before


def test_a_torch_program(digits_run: Path, tmp_path: Path) -> None:
    found = ship.export_run(digits_run, tmp_path / "s.pt2", format="pt2")
    extra = {"extracurricular": ""}
    module = torch.export.load(found.files[0], extra_files=extra).module()
    assert json.loads(extra["extracurricular"]) == found.metadata
    probs = module({"x": torch.zeros(3, 1, 8, 8, dtype=torch.uint8)})["probs"]
    torch.testing.assert_close(probs.sum(1), torch.ones(3))
    assert "torch.export.load" in found.files[-1].read_text()
    with zipfile.ZipFile(found.files[0]) as archive:
        for name in archive.namelist():
            assert str(Path(xcl.__file__).parent).encode() not in archive.read(name)


def test_the_card_can_be_read_and_its_snippet_runs(
    exported: ship.Shipped, gaze: ship.Shipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shipped in (exported, gaze):
        text = shipped.files[-1].read_text()
        read = ModelCard(text).data
        assert read.library_name == "extracurricular"
        figures = {one.metric_type: one.metric_value for one in read.eval_results}
        for name, value in shipped.metadata["metrics"].items():
            assert figures[name] == pytest.approx(value, abs=1e-6)
        [snippet] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        monkeypatch.chdir(shipped.files[0].parent)
        found: dict[str, Any] = {}
        exec(snippet, found)
        answer = found["probs"] if shipped is exported else found["variance"]
        assert answer.shape == ((1, 10) if shipped is exported else (1, 2))
    assert yaml.safe_load(exported.files[-1].read_text().split("---")[1])["pipeline_tag"] == (
        "image-classification"
    )


def test_the_card_has_the_figures_of_each_class(
    exported: ship.Shipped, gaze: ship.Shipped, digits_run: Path
) -> None:
    card = exported.files[-1].read_text()
    part = card[card.index("### Each class") :]
    classes = read_json(digits_run / "summary.json")["students"]["xcl"]["classes"]
    assert "| class | count | recall % | precision % | F1 | AUROC | AUPRC |" in part
    for name, figures in classes.items():
        [row] = [line for line in part.splitlines() if line.startswith(f"| {name} |")]
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[2] == str(int(figures["support"]["per_seed"][1]))
        assert cells[3] == f"{100 * figures['recall']['per_seed'][1]:.2f}"
    assert "### Each class" not in gaze.files[-1].read_text()


def test_the_card_of_a_table_names_its_columns_and_no_folder() -> None:
    data = replace(table_data(), columns=("age", "dose", "a|b", "c", "d"), outputs=("x", "y"))
    recipe = {
        "name": "mine",
        "data": {"table": {"path": "/home/somebody/houses.csv", "target": "x"}},
        "seeds": [0],
        "teacher": {"model": "mlp", "estimator": None, "members": 2},
        "students": {
            "student": {
                "model": "mlp",
                "sampler": ["empirical"],
                "learns_from": "teacher",
                "matching": {},
                "training": {"steps": 5},
            }
        },
    }
    subject = replace(own_network(network(data), data), recipe=recipe)
    metadata = {
        "task": "regression",
        "parameters": 3,
        "inputs": {"x": {"shape": [5], "dtype": "float32"}},
        "metrics": {"rmse": 0.5, "nll": None},
        "files": {"s.pt2": {"format": "torch.export", "split": "test", "examples": 10}},
    }
    rows = [Row("teacher"), Row("student"), Row("s.pt2", metrics={"rmse": 0.5, "nll": math.nan})]
    text = card(subject, metadata, rows)
    assert "Columns, in order: `age`, `dose`, `a|b`, `c`, `d`. Targets, in order: `x`, `y`." in text
    assert "path: houses.csv" in text
    assert "somebody" not in text
    front = yaml.safe_load(text.split("---")[1])
    assert front["pipeline_tag"] == "tabular-regression"
    assert front["metrics"] == ["rmse"]
    assert "open only a file whose source you trust" in text
    assert "teacher: {model: mlp, members: 2}" in text
    teacher = {"model": None, "estimator": {"random_forest": {"trees": 9}}, "members": 1}
    forest = card(replace(subject, recipe=recipe | {"teacher": teacher}), metadata, rows)
    assert yaml.safe_load(forest.split("```yaml")[1].split("```")[0])["teacher"] == {
        "estimator": {"random_forest": {"trees": 9}}
    }


def test_what_is_compared(exported: ship.Shipped, gaze: ship.Shipped) -> None:
    teacher, student, file, small = exported.rows
    assert [row.name for row in exported.rows] == ["teacher", "xcl", "xcl.onnx", "xcl.int8.onnx"]
    assert all(set(row.seconds) == {1, 32} for row in exported.rows)
    assert file.metrics["accuracy"] == student.metrics["accuracy"]
    assert file.difference is not None
    assert small.difference is not None
    assert file.difference < 1e-4 < small.difference < 0.5
    assert teacher.parameters == 2 * student.parameters  # type: ignore[operator]
    assert file.size == exported.files[0].stat().st_size
    assert len(gaze.rows) == 3


def test_a_teacher_that_is_no_network_or_gone_is_not_timed(
    digits_run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(digits_run, tmp_path / "run"))
    shutil.rmtree(copy / "teacher")
    found = ship.export_run(copy)
    assert found.files[0] == copy / "export" / "xcl.onnx"
    assert found.rows[0].seconds == {}
    assert found.rows[1].seconds.keys() == {1, 32}


# -- verification ---------------------------------------------------------------------------------


def wrong(model: Exported, how: str) -> None:
    """Break a model that is about to be traced."""
    forward = model.forward
    if how == "normalisation":
        model.get_buffer("offset0").add_(0.01)
    elif how == "axis":
        model.forward = lambda raw: {"probs": forward(raw)["probs"].log().softmax(0)}
    elif how == "logits":
        model.forward = lambda raw: {"probs": forward(raw)["probs"].log()}
    elif how == "nan":
        model.forward = lambda raw: {"probs": forward(raw)["probs"] * math.nan}
    elif how == "columns":
        model.forward = lambda raw: {"probs": forward(raw)["probs"][:, :3]}
    elif how == "output":
        model.forward = lambda raw: {"other": forward(raw)["probs"]}


BROKEN = {
    "normalisation": r"differs from the student by .*, and the limit is 0.0001: probs of example "
    r"\d+ of the test split, in a batch of \d+; nothing was written",
    "axis": "differs from the student by",
    "logits": "differs from the student by",
    "nan": "gives a value that is not finite, or the student does: probs of example 0",
    "columns": r"gives \(1, 3\) as probs of an example; it must be \(1, 4\)",
    "fixed batch": r"does not take (an example|a batch of 7)",
    "metadata": "answers differently once its metadata are in it",
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_a_broken_export_is_caught(
    how: str, form: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image_data()
    trace, to_onnx, to_torch = ship.trace, ship.to_onnx, ship.to_torch
    out = tmp_path / "new" / f"s{ship.SUFFIXES[form]}"

    def broken(model: Exported) -> Any:
        wrong(model, how)
        if how == "fixed batch":
            with formats.quietly(), torch.no_grad():
                return torch.export.export(model, (model.example,))
        return trace(model)

    def other(*given: Any) -> bytes:
        model = Exported(network(data, {"mlp": {"hidden": [3]}}), data)
        if form == "pt2":
            return to_torch(trace(model), given[1]) if given[1] else to_torch(*given)
        return formats.with_metadata(to_onnx(model, trace(model)), "{}")

    if how == "metadata":
        monkeypatch.setattr(ship, "with_metadata" if form == "onnx" else "to_torch", other)
    else:
        monkeypatch.setattr(ship, "trace", broken)
    with pytest.raises(ExportError, match=BROKEN[how]):
        ship.export_module(network(data), data, out, format=form)
    assert not out.parent.exists()


@pytest.mark.parametrize("name", ["target_shift", "target_scale", "factor1"])
def test_wrong_units_are_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = eye_data()
    trace = ship.trace

    def broken(model: Exported) -> Any:
        model.get_buffer(name).mul_(1.01)
        return trace(model)

    monkeypatch.setattr(ship, "trace", broken)
    with pytest.raises(ExportError, match=r"differs from the student by .*: (mean|variance) of"):
        ship.export_module(network(data), data, tmp_path / "s.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_value_inside_may_be_called_as_an_output_is(tmp_path: Path) -> None:
    """Global average pooling is a mean, and so is an output."""
    data = eye_data()
    for head in ("moments", "natural"):
        module = network(data, {"gaze_preact_resnet": {"width": 2, "head": head}})
        shipped = ship.export_module(module, data, tmp_path / head / "s.onnx")
        outputs = [value.name for value in onnx.load(shipped.files[0]).graph.output]
        assert outputs[0] == "mean"


def test_the_limit_is_enforced(tmp_path: Path) -> None:
    data = image_data()
    module = network(data, "resnet8")
    with pytest.raises(ExportError, match="and the limit is 1e-12: probs of example"):
        ship.export_module(module, data, tmp_path / "a.onnx", limit=1e-12)
    assert list(tmp_path.iterdir()) == []
    assert ship.export_module(module, data, tmp_path / "a.onnx", limit=1e-4).files


def test_eight_bits_are_let_pass_but_not_what_is_not_finite() -> None:
    far = verify.Checked(0.5, 3, "probs", 7, {})
    verify.enforce(far, math.inf, "test")
    with pytest.raises(ExportError, match=r"not finite.*: probs of example 3 of the test split"):
        verify.enforce(verify.Checked(math.inf, 3, "probs", 7, {}), math.inf, "test")


def test_differences_have_their_units() -> None:
    target = Affine(torch.tensor([5.0, 0.0]), torch.tensor([0.1, 3.0]))
    wanted = {"mean": torch.tensor([[5.0, 0.0], [5.0, 60.0]]), "variance": torch.full((2, 2), 4.0)}
    found = {
        "mean": torch.tensor([[5.2, 0.0], [5.0, 57.0]]),
        "variance": torch.tensor([[4.0, 4.4], [0.0, 4.0]]),
    }
    far = verify.differences(found, wanted, target)
    # 0.2 are two deviations of 0.1; 3 are a twentieth of how far off 60 is.
    torch.testing.assert_close(far["mean"], torch.tensor([2.0, 0.05]), rtol=1e-4, atol=0)
    torch.testing.assert_close(far["variance"], torch.tensor([math.log(1.1), math.inf]))
    far = verify.differences(
        {"probs": torch.tensor([[0.5, math.nan]])}, {"probs": torch.tensor([[0.5, 0.5]])}, None
    )
    assert far["probs"].tolist() == [math.inf]


@pytest.mark.parametrize("count", [3, 40, 95])
def test_every_example_is_asked_about_in_batches_of_each_size(count: int) -> None:
    x = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    data = make_data("d", (x, np.arange(count) % 4), (x, np.arange(count) % 4))
    sizes, seen = [], []

    def run(raw: dict[str, Tensor]) -> dict[str, Tensor]:
        sizes.append(len(raw["x"]))
        seen.extend(raw["x"][:, 0].tolist())
        return {"probs": torch.full((len(raw["x"]), 4), 0.25)}

    said = xcl.Categorical(torch.zeros(count, 4))
    found = verify.check(run, data, data.test, said)
    assert set(sizes) >= {1, 7, 32}
    assert set(seen) == set(x[:, 0].tolist())
    assert found.difference == 0
    assert found.metrics["nll"] == pytest.approx(math.log(4))


# -- 8 bits ---------------------------------------------------------------------------------------


def test_draws_are_mapped_back_to_what_the_file_takes() -> None:
    data = eye_data()
    sampler = xcl.Noise(xcl.Empirical(data, seed=3), std=3.0)
    ids = torch.arange(5, 75)
    [*full, rest] = raw_draws(sampler, data, first=5, count=70)
    assert [len(b["eye"]) for b in (*full, rest)] == [32, 32, 6]
    eye = torch.cat([b["eye"] for b in (*full, rest)])
    pose = torch.cat([b["pose"] for b in (*full, rest)])
    drawn = sampler(ids).x
    assert isinstance(drawn, dict)
    assert eye.dtype == torch.uint8
    assert {0, 255} <= set(eye.flatten().tolist())  # cut, not wrapped round
    inside = data.inputs({"eye": eye, "pose": pose})
    torch.testing.assert_close(inside["pose"], drawn["pose"], rtol=1e-4, atol=1e-4)  # type: ignore[index]
    scale = data.x_scale["eye"]
    wanted = (drawn["eye"] * scale.scale + scale.shift).clamp(0, 255)
    assert float((eye.float() - wanted).abs().max()) <= 0.501


def test_plain_draws_are_the_very_examples() -> None:
    data = image_data()
    [batch, *_] = raw_draws(xcl.Empirical(data), data)
    known = {image.numpy().tobytes() for image in data.train.x}  # type: ignore[union-attr]
    assert all(image.numpy().tobytes() in known for image in batch["x"])


def test_eight_bits_are_in_the_file(exported: ship.Shipped) -> None:
    kinds = {node.op_type for node in onnx.load(exported.files[1]).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert "QuantizeLinear" not in {n.op_type for n in onnx.load(exported.files[0]).graph.node}


# -- refusals -------------------------------------------------------------------------------------


def test_another_export_is_not_overwritten(exported: ship.Shipped, digits_run: Path) -> None:
    before = {f: f.read_bytes() for f in exported.files}
    out = exported.files[0].with_name("kd.onnx")
    with pytest.raises(StorageError, match="holds an export of the student 'xcl'; give another"):
        ship.export_run(digits_run, out, student="kd", seed=1)
    with pytest.raises(StorageError, match="holds an export of the seed 1; give another --out"):
        ship.export_run(digits_run, out, student="xcl", seed=0)
    data = image_data()
    with pytest.raises(StorageError, match="holds an export of the student 'xcl'"):
        ship.export_module(network(data), data, out)
    assert {f: f.read_bytes() for f in before} == before
    assert not out.exists()


def test_a_file_that_no_export_made_is_kept(exported: ship.Shipped, digits_run: Path) -> None:
    folder = exported.files[0].parent
    for name in ("mine.onnx", "my.int8.onnx"):
        (folder / name).write_text("mine")
        out = folder / name.replace(".int8", "")
        with pytest.raises(
            StorageError, match=f"{name}' is there already and belongs to no export"
        ):
            ship.export_run(digits_run, out, seed=1, int8=True)
        assert (folder / name).read_text() == "mine"
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("README.md", "# My project", r"README\.md' is there already and belongs to no export"),
        ("s.onnx", "mine", r"s\.onnx' is there already and belongs to no export"),
        ("metadata.json", "{}", r"metadata\.json' belongs to no export that this version knows"),
        ("metadata.json", '{"schema": 1, "files": 3}', r"metadata\.json' belongs to no export"),
        ("metadata.json", "{", r"metadata\.json' belongs to no export"),
        ("metadata.json", '{"schema": 2}', r"metadata\.json' belongs to no export"),
    ],
)
def test_what_is_not_ours_is_left_alone(
    name: str, content: str, match: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    data = image_data()
    with pytest.raises(StorageError, match=match):
        ship.export_module(network(data), data, tmp_path / "s.onnx")
    assert [file.read_text() for file in tmp_path.iterdir()] == [content]


def test_options_that_do_not_fit(digits_run: Path, tmp_path: Path) -> None:
    def export(out: str = "s.onnx", **options: Any) -> None:
        ship.export_run(digits_run, tmp_path / out, **options)

    with pytest.raises(RecipeError, match=r"--out: is '.*s\.pt2'; .* format onnx ends in \.onnx"):
        export("s.pt2")
    with pytest.raises(RecipeError, match="--format: is 'tflite'; it must be onnx or pt2"):
        export(format="tflite")
    with pytest.raises(RecipeError, match="--int8: is for --format onnx alone"):
        export("s.pt2", format="pt2", int8=True)
    for limit in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(RecipeError, match=r"--limit: is .*; it must be above 0 and finite"):
            export(limit=limit)
    with pytest.raises(RecipeError, match=r"--seed: is 7; the run has the seeds \[0, 1\]"):
        export(seed=7)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = image_data()
    with pytest.raises(StorageError, match=r"cannot write to '.*file'"):
        ship.export_module(network(data), data, tmp_path / "file" / "s.onnx")


def test_a_network_that_cannot_be_traced(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4] if float(x.mean()) > 0 else x.flatten(1)[:, 4:8]

    data = image_data()
    with pytest.raises(ExportError, match=r"^torch\.export cannot trace the network: .+$"):
        ship.export_module(Branching(), data, tmp_path / "s.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_the_missing_extra_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    data = image_data()
    with pytest.raises(ExportError, match=rf"ONNX needs {name}, .* pip install -e '.\[onnx\]'"):
        ship.export_module(network(data), data, tmp_path / "s.onnx")


def test_more_weights_than_a_file_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    data = image_data()
    model = Exported(network(data), data)
    monkeypatch.setattr(formats, "_MOST_BYTES", 1000)
    with pytest.raises(ExportError, match=r"GB of weights, .* use --format pt2"):
        formats.to_onnx(model, formats.trace(model))


def test_calls_take_turns() -> None:
    order: list[str] = []
    found = side_by_side({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0.0)
    assert set(found) == {"a", "b"}
    assert all(value >= 0 for value in found.values())
    turns = [name for place, name in enumerate(order) if place == 0 or order[place - 1] != name]
    assert turns == ["a", "b"] * 5


def test_a_figure_that_is_not_finite_is_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image_data()
    monkeypatch.setattr(
        verify.metrics, "figures", lambda *_, **__: {"accuracy": 1.0, "nll": math.inf}
    )
    found = ship.export_module(network(data), data, tmp_path / "s.onnx")
    assert found.metadata["metrics"] == {"accuracy": 1.0, "nll": None}
    assert json.loads((tmp_path / "metadata.json").read_text())["metrics"]["nll"] is None


def test_the_file_answers_as_the_student(gaze: ship.Shipped, gaze_run: Path) -> None:
    """As a stranger would: onnxruntime alone, real images, degrees."""
    session = onnxruntime.InferenceSession(gaze.files[0])
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        ("eye", "tensor(uint8)"),
        ("pose", "tensor(float)"),
    ]
    run = open_run(gaze_run)
    test = run.data.test
    feed = {name: part.numpy() for name, part in test.x.items()}  # type: ignore[union-attr]
    mean, variance = session.run(["mean", "variance"], feed)
    said = xcl.Gaussian(torch.from_numpy(mean), torch.from_numpy(variance).log())
    assert test.y is not None
    figures = xcl.figures(said, test.y, angular=True)
    summary = json.loads((gaze_run / "summary.json").read_text())
    known = summary["students"]["kd"]["metrics"]["angular_error"]["per_seed"][0]
    assert figures["angular_error"] == pytest.approx(known, rel=1e-3)
