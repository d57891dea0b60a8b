"""Looking executes nothing: whatever a folder names, no command that only looks imports it."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import yaml
from typer.testing import CliRunner

import extracurricular as xcl
from drills.hostile import without_checksums
from extracurricular.cli import app
from extracurricular.errors import TrustError, XclError
from extracurricular.recipe.named_code import named_code
from extracurricular.recipe.read import parse_recipe
from extracurricular.report.write import ReportStage
from extracurricular.run.execute import execute

CODE = "planted_code"
NAME = f"{CODE}:thing"
RECIPE: dict[str, Any] = {
    "name": "small",
    "data": {"table": {"path": "data.csv", "target": "y"}},
    "device": {"accelerator": "cpu"},
    "keep": 8,
    "teacher": {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": 3}},
    "generators": {"made": {"model": "kde", "least_variety": 0}},
    "defaults": {"model": {"mlp": {"hidden": [2]}}, "training": {"steps": 3}},
    "students": {
        "kd": {"matching": {"temperature": 2.0}},
        "erm": {"learns_from": "labels", "sampler": ["empirical", "mixup"]},
        "xcl": {"sampler": [{"generated": {"generator": "made"}}, {"noise": {"std": 0.1}}]},
    },
}


def data_of(folder: Path) -> dict[str, Any]:
    return {"table": {"path": str(folder / "data.csv"), "target": "y"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looking")
    values = np.random.default_rng(0).normal(size=(60, 3)).round(4)
    rows = [",".join(map(str, row)) + f",{'abc'[n % 3]}" for n, row in enumerate(values)]
    (folder / "data.csv").write_text("\n".join(["p,q,r,y", *rows]) + "\n")
    data = data_of(folder)
    execute(parse_recipe({**RECIPE, "data": data}), folder / "run", last=[ReportStage()])
    # Whoever changes a run on purpose changes its checksums too.
    without_checksums(folder / "run")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run, with code in its folder and beside it that must not be imported."""
    shutil.copytree(made, tmp_path / "all")
    found = tmp_path / "all" / "run"
    for place in (tmp_path / "all", found):
        (place / f"{CODE}.py").write_text("raise SystemExit('executed')\n")
    monkeypatch.syspath_prepend(tmp_path / "all")
    monkeypatch.chdir(found)
    yield found
    assert CODE not in sys.modules


def call(*words: str | Path) -> str:
    """Call a command in this process; return the sentence that it is refused with, if it is."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    error = result.exception
    assert error is None or isinstance(error, XclError), (words, error, result.output)
    assert CODE not in sys.modules, words
    assert "\n" not in str(error)
    return str(error) if error is not None else ""


def loads(run: Path, teacher: bool = False) -> bool:
    """Return whether a student, or the teacher, of a run can be loaded."""
    with suppress(XclError):
        xcl.load(run, teacher=teacher)
        return True
    return False


def looks(run: Path) -> dict[str, str]:
    """Call every command that looks; return the sentences that they are refused with."""
    return {
        "report": call("report", run),
        "compare": call("compare", run, run),
        "evaluate": call("evaluate", run),
        "evaluate the teacher": call("evaluate", run, "--teacher", "--against", run),
        "evaluate on its data": call("evaluate", run, run),
        "predict": call("predict", run, run.parent / "data.csv", "--out", run / "said.csv"),
        "export": call("export", run),
        "draws": call("draws", run, "--count", "128"),
        "data": call("data", run),
        "data of its recipe": call("data", run / "recipe.yaml"),
    }


def planted(value: Any, place: tuple[Any, ...], what: Any) -> Any:
    found = copy.deepcopy(value)
    part = found
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = what
    return found


def plant(run: Path, place: tuple[Any, ...], what: Any, original: Path) -> None:
    """Put something at a place of a run's recipe, in both files that have it."""
    recipe = yaml.safe_load((original / "recipe.yaml").read_text())
    summary = json.loads((original / "summary.json").read_text())
    summary["recipe"] = planted(summary["recipe"], place, what)
    (run / "recipe.yaml").write_text(yaml.safe_dump(planted(recipe, place, what)))
    (run / "summary.json").write_text(json.dumps(summary))


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of each value of a recipe."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*place, key)
        if isinstance(part, dict | list):
            yield from places(part, (*place, key))


SPECS = (
    ("data",), ("teacher", "model"), ("generators", "made", "model"), ("students", "xcl", "model"),
    ("students", "xcl", "sampler", 1), ("students", "xcl", "matching"),
)  # fmt: skip


def test_code_under_any_key_of_a_recipe_is_not_imported(made: Path, run: Path) -> None:
    """Opening a run, and loading its student and its teacher; other commands come after that."""
    every = list(places(parse_recipe(RECIPE).dump()))
    assert len(every) > 80
    opened = 0
    for place in every:
        for what in (NAME, {NAME: {}})[: 1 + (place[-1] in ("model", "sampler", "data", 0, 1))]:
            plant(run, place, what, made / "run")
            opened += loads(run, teacher=place[0] == "teacher")
            assert CODE not in sys.modules, place
    assert opened > 20  # those that a student or a teacher does not need


@pytest.mark.parametrize("place", SPECS, ids=lambda place: ".".join(map(str, place)))
def test_no_command_that_looks_imports_what_a_run_names(
    made: Path, run: Path, place: tuple[Any, ...]
) -> None:
    what: Any = {NAME: {"a": 1}}
    what = [what, "mixup"] if place[-1] == "sampler" else what
    what = {"divergence": NAME} if place[-1] == "matching" else what
    plant(run, place, what, made / "run")
    for name in ("latency.json", "draws.json", "report.html"):  # a page is made from these
        (run / name).unlink(missing_ok=True)
    said = looks(run)
    named = [text for text in said.values() if "names code of somebody's own" in text]
    assert all(NAME in text and "--trust" in text for text in named)
    assert not said["compare"]
    where = ".".join(map(str, place))
    wanted = {
        "data": ["evaluate", "evaluate on its data", "data", "data of its recipe"],
        "students.xcl.model": ["evaluate", "predict", "export"],
        "teacher.model": ["evaluate the teacher", "draws"],
        "students.xcl.sampler.1": ["draws"],
    }
    for name in wanted.get(where, ()):
        assert said[name] in named, (name, said[name])
    assert bool(named) == (place[-1] != "matching")
    if place != ("data",):
        assert not said["report"], said["report"]


def test_code_is_imported_where_it_is_trusted(made: Path, run: Path) -> None:
    (run.parent / "trusted_code.py").write_text(
        "from extracurricular.models import build_model\n\n"
        "def net(inputs, outputs):\n"
        "    return build_model({'mlp': {'hidden': [2]}}, inputs=inputs, outputs=outputs)\n"
    )
    plant(run, ("students", "xcl", "model"), {"trusted_code:net": {}}, made / "run")
    with pytest.raises(TrustError, match=r"'trusted_code:net' \(students.xcl.model\)"):
        xcl.load(run)
    assert "trusted_code" not in sys.modules
    assert "--trust" in call("evaluate", run)
    assert call("predict", run, run.parent / "data.csv", "--out", run / "s.csv", "--trust") == ""
    assert "trusted_code" in sys.modules
    x = np.zeros((2, 3), np.float32)
    expected = xcl.load(made / "run")(x).probs
    np.testing.assert_array_equal(xcl.load(run, trust=True)(x).probs, expected)
    assert xcl.evaluate(run, trust=True)["fidelity"] is not None
    assert xcl.export_run(run, trust=True).title == "small xcl"


def test_a_teacher_that_is_code_is_left_out_of_an_evaluation(made: Path, run: Path) -> None:
    plant(run, ("teacher", "model"), NAME, made / "run")
    found = xcl.evaluate(run)
    assert found["fidelity"] is None
    assert any(NAME in note and "--trust" in note for note in found["notes"])


def test_the_code_of_a_recipe_is_listed_by_its_keys() -> None:
    values = {
        "name": "a:b", "about": "see a:b", "data": {"my.data:make": {"path": "c:d"}},
        "teacher": {"estimator": {"sklearn": {"estimator": "mine:forest"}}, "weights": "c:/x.pth"},
        "students": {"kd": {"model": "timm:vit", "sampler": ["empirical", {"own:Noise": {}}]}},
    }  # fmt: skip
    assert named_code(values) == {
        "data": "my.data:make",
        "data.path": "c:d",
        "teacher.estimator.sklearn.estimator": "mine:forest",
        "students.kd.sampler.1": "own:Noise",
    }


def test_code_in_other_files_of_a_run_is_not_imported(run: Path) -> None:
    """Each JSON file gets a name of code at each of its keys, and at keys that nobody knows."""
    for file in sorted(run.rglob("*.json")):
        before = file.read_text()
        found = json.loads(before)
        if not isinstance(found, dict):
            continue
        for what in (NAME, {NAME: {}}):
            file.write_text(json.dumps({**dict.fromkeys(found, what), "model": what}))
            loads(run)
            loads(run, teacher=True)
            file.write_text(json.dumps({**found, "model": what, "module": what}))
            loads(run)
        call("report", run)
        file.write_text(before)


def test_code_in_metadata_is_not_imported(made: Path, run: Path) -> None:
    weights = run / "students" / "xcl" / "seed-0" / "weights.safetensors"
    state = safetensors.torch.load_file(weights)
    own = dict.fromkeys(("format", "model", "__metadata__", "module", "class"), NAME)
    file = run.parent / "own.safetensors"
    safetensors.torch.save_file(state, file, own)
    xcl.load(file, model={"mlp": {"hidden": [2]}}, data=data_of(made))
    shipped = xcl.export_run(run, run.parent / "ship" / "xcl.onnx")
    model = onnx.load(str(shipped.files[0]))
    about = json.loads(model.metadata_props[0].value)
    for key in [*about, "model", "module"]:
        model.metadata_props[0].value = json.dumps({**about, key: NAME})
        for name in ("model", "class", "ort_config"):
            model.metadata_props.add(key=f"{name}-{key}", value=NAME)
        onnx.save(model, str(shipped.files[0]))
        call("predict", shipped.files[0], run.parent / "data.csv", "--out", run / "s.csv")
        call("evaluate", shipped.files[0], made / "run")
    x = np.zeros((60, 3), np.float32)
    hostile: dict[str, Any] = {
        "__class__": np.array(NAME),
        "model": np.array([NAME]),
        NAME: np.zeros(1),
    }
    np.savez(run.parent / "own.npz", x=x, y=np.arange(60) % 3, **hostile)
    call("data", f"arrays:{run.parent / 'own.npz'}")
    call("evaluate", run, f"arrays:{run.parent / 'own.npz'}")


def test_a_folder_that_one_works_in_hides_no_package(run: Path) -> None:
    """A file that is called as a package that is not installed is not imported by looking."""
    for name in ("wandb", "timm", "torchvision", "fastexcel", "triton", "matplotlibrc", "cupy"):
        if name == "matplotlibrc":
            (run / name).write_text(f"backend: module://{CODE}\n")
        else:
            (run / f"{name}.py").write_text("raise SystemExit('executed')\n")
    (run / "report.html").unlink()
    before = list(sys.path)
    assert set(looks(run).values()) == {""}
    assert sys.path == before
