"""A saved student's folder: nothing in it is executed, and no other student is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import extracurricular as xcl
from extracurricular.errors import RecipeError, StorageError, TrustError, XclError

EVIL = """
from pathlib import Path
from torch import nn

Path(__file__).with_name("executed").touch()

def build(inputs, outputs):
    return nn.Linear(inputs[0], outputs)
"""


def classes() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 120)
    return (rng.normal(0, 0.5, (120, 4)) + y[:, None]).astype(np.float32), y


def student(spec: Any = None, **settings: Any) -> xcl.Predictor:
    spec = spec or {"mlp": {"hidden": [3]}}
    teacher = {"random_forest": {"trees": 3}}
    return xcl.distill(teacher, spec, classes(), steps=2, **settings)


def change(folder: Path, changes: dict[str, Any]) -> None:
    """Change entries of predictor.json; a key may be a path such as ``inputs.0.shape``."""
    file = folder / "predictor.json"
    known = json.loads(file.read_text())
    known.pop("checksum", None)  # as in a file of somebody's own, which nothing vouches for
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        place = known
        for parent in parents:
            place = place[parent]
        place[last] = value
    file.write_text(json.dumps(known))


# Code of somebody's own


def test_no_code_that_a_folder_names_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "got_evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(str(code))
    found = student("got_evil:build")
    assert (code / "executed").exists()  # it is imported where its owner names it
    found.save(tmp_path / "kept")
    (code / "executed").unlink()
    monkeypatch.delitem(sys.modules, "got_evil")
    with pytest.raises(TrustError) as caught:
        xcl.load(tmp_path / "kept")
    said = str(caught.value)
    assert "names code of somebody's own: 'got_evil:build' (model); it is not imported" in said
    assert "--trust" in said
    assert "model=" in said
    assert "\n" not in said
    assert not (code / "executed").exists()
    assert "got_evil" not in sys.modules
    x, _ = classes()
    given: list[dict[str, Any]] = [{"model": nn.Linear(4, 3)}, {"model": "got_evil:build"}]
    for how in [*given, {"trust": True}]:
        again = xcl.load(tmp_path / "kept", **how)
        np.testing.assert_array_equal(again(x).probs, found(x).probs)
    with pytest.raises(XclError, match="weights of another network"):
        xcl.load(tmp_path / "kept", model={"mlp": {"hidden": [2]}})


@pytest.mark.parametrize(
    "spec",
    ["os:system", {"os:system": {}}, {"subprocess:run": {"args": "touch executed"}}],
    ids=str,
)
def test_only_registered_networks_are_built(tmp_path: Path, spec: Any) -> None:
    student().save(tmp_path / "kept")
    change(tmp_path / "kept", {"model": spec})
    with pytest.raises(TrustError, match="code of somebody's own"):
        xcl.load(tmp_path / "kept")


# Damage


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs.0.shift": [1.0]}, None),  # one number for all columns
        ({"inputs.0.shift": [1.0, 2.0]}, "shift of the input has the shape (2,)"),
        ({"inputs.0.scale": [[1.0, 2.0], [1.0]]}, "scale of the input is [[1.0, 2.0], [1.0]]; it "),
        ({"inputs.0.scale": [float("nan")] * 4}, "scale of the input has a value that is not fin"),
        ({"inputs.0.scale": [0.0] * 4}, "scale of the input has a value that is not above 0"),
        ({"inputs.0.scale": "wide"}, "scale of the input is 'wide'; it must be numbers"),
        ({"inputs.0.shape": "wide"}, "inputs.0.shape: is 'wide'; it should be a valid list"),
        ({"inputs.0.shape": [-4]}, "inputs.0.shape.0: is -4; it should be greater than or equal"),
        ({"inputs": []}, "inputs: is []; it needs at least one entry"),
        ({"inputs": {"x": 1}}, "inputs: is {'x': 1}; it should be a valid list"),
        ({"task": "classification"}, "task: is 'classification'"),
        ({"task.size": "three"}, "task.size: is 'three'"),
        ({"task.kind": "ranking"}, "task.kind: is 'ranking'"),
        ({"structure": "heap"}, "structure: is 'heap'"),
        ({"structure": "tuple"}, "does not go with 'tuple'"),
        ({"classes": ["a", "b"]}, "classes has 2 names, but the student predicts 3 classes"),
        ({"target": {"shift": [0.0], "scale": [1.0]}}, "target does not go with classification"),
        ({"batch_size": 0}, "batch_size: is 0"),
        ({"model": 7}, "model"),
        ({"model": {"a": {}, "b": {}}}, "model: is {'a': {}, 'b': {}}; a network is given as"),
        ({"sha256": None}, "sha256: is None"),
    ],
    ids=str,
)
def test_damage_is_one_sentence(tmp_path: Path, changes: dict[str, Any], says: str | None) -> None:
    student().save(tmp_path / "kept")
    change(tmp_path / "kept", changes)
    if says is None:
        xcl.load(tmp_path / "kept")
        return
    with pytest.raises(StorageError) as caught:
        xcl.load(tmp_path / "kept")
    said = str(caught.value)
    assert said.startswith(f"the folder {str(tmp_path / 'kept')!r} has a damaged predictor.json: ")
    assert says in said
    assert "\n" not in said
    assert "Error(" not in said


def test_other_widths_are_a_short_sentence(tmp_path: Path) -> None:
    student().save(tmp_path / "kept")
    for changes in (
        {"inputs.0.shape": [5], "inputs.0.shift": [0.0] * 5, "inputs.0.scale": [1.0] * 5},
        {"model": {"mlp": {"hidden": [7]}}, "inputs.0.shape": [4]},
    ):
        student().save(tmp_path / "kept", replace=True)
        change(tmp_path / "kept", changes)
        with pytest.raises(StorageError, match="weights of another network: ") as caught:
            xcl.load(tmp_path / "kept")
        assert len(str(caught.value)) < 250 + len(str(tmp_path))
        assert "\n" not in str(caught.value)


# What else is in a folder


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    found = student()
    with pytest.raises(StorageError, match=r"holds other files \('thesis.txt'\)"):
        found.save(folder)
    with pytest.raises(StorageError, match="holds other files"):
        found.save(folder, replace=True)
    with pytest.raises(StorageError, match=r"holds other files \('thesis.txt'\)"):
        student(out=folder)
    assert [file.name for file in folder.iterdir()] == ["thesis.txt"]
    with pytest.raises(StorageError, match="is there already, and holds no saved student"):
        found.save(folder / "thesis.txt")
    (tmp_path / "empty").mkdir()
    found.save(tmp_path / "empty")


def test_another_student_is_not_overwritten(tmp_path: Path) -> None:
    found, other = student(), student(seed=1)
    found.save(tmp_path / "kept")
    found.save(tmp_path / "kept")  # itself
    student().save(tmp_path / "kept")  # and the same one, trained again
    with pytest.raises(StorageError, match=r"another saved student; .* save\(folder, replace=True"):
        other.save(tmp_path / "kept")
    with pytest.raises(StorageError, match="holds a saved student; choose another folder"):
        student(out=tmp_path / "kept")
    x, _ = classes()
    np.testing.assert_array_equal(xcl.load(tmp_path / "kept")(x).probs, found(x).probs)
    other.save(tmp_path / "kept", replace=True)
    np.testing.assert_array_equal(xcl.load(tmp_path / "kept")(x).probs, other(x).probs)


def test_a_replaced_student_does_not_pass_for_the_one_that_was_trained(tmp_path: Path) -> None:
    first = student(out=tmp_path / "s")
    first.save(tmp_path / "s")
    other = student(seed=1)
    with pytest.raises(StorageError, match="another saved student"):
        other.save(tmp_path / "s")
    x, _ = classes()
    np.testing.assert_array_equal(student(out=tmp_path / "s")(x).probs, first(x).probs)
    other.save(tmp_path / "s", replace=True)
    np.testing.assert_array_equal(xcl.load(tmp_path / "s")(x).probs, other(x).probs)
    with pytest.raises(StorageError, match="holds a saved student"):
        student(out=tmp_path / "s")


def test_a_path_is_asked_for() -> None:
    for given in (None, 5, ["a"]):
        with pytest.raises(RecipeError, match=r"source: is .*; it must be the path"):
            xcl.load(given)  # type: ignore[arg-type]


# Evaluation


def test_a_saved_or_exported_folder_is_evaluated_on_data(tmp_path: Path) -> None:
    found = student()
    found.save(tmp_path / "kept")
    found.export(tmp_path / "out" / "student.onnx")
    x, y = classes()
    data = xcl.from_arrays(x, y)
    wanted = xcl.evaluate(found, data)["metrics"]["accuracy"]["mean"]
    for source in (tmp_path / "kept", tmp_path / "out", tmp_path / "out" / "student.onnx"):
        for given in (data, (x, y), (x.tolist(), y.tolist())):
            report = xcl.evaluate(source, given)
            assert report["metrics"]["accuracy"]["mean"] == pytest.approx(wanted), source
        report = xcl.evaluate(found, data, against=source)
        assert report["fidelity"]["agreement"]["mean"] == 1
    # The student knows how many classes there are.
    some = y < 2
    assert xcl.evaluate(tmp_path / "kept", (x[some], y[some]))["examples"] == round(
        0.2 * some.sum()
    )
    with pytest.raises(RecipeError, match="DATA: is needed"):
        xcl.evaluate(tmp_path / "kept")
    with pytest.raises(RecipeError, match="source: is None"):
        xcl.evaluate(None, data)  # type: ignore[arg-type]
