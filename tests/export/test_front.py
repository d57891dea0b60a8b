"""A student in several sizes: the front that a run measures, shows, and keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from extracurricular.cli import app
from extracurricular.errors import ExportError, RecipeError
from extracurricular.evaluation.front import best
from extracurricular.export import front as module
from extracurricular.export.front import FrontStage, limit_of, measured, points_of, read_front
from extracurricular.export.front import report as front_report
from extracurricular.files import read_json
from extracurricular.recipe.read import parse_recipe
from extracurricular.recipe.schema import Recipe
from extracurricular.report.write import write_report
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from extracurricular.run.workspace import Workspace
from tests.chromium import browser


def recipe(**changes: Any) -> Recipe:
    sizes = [{"mlp": {"hidden": [2]}}, {"mlp": {"hidden": [24]}}]
    return parse_recipe(
        {
            "name": "sizes",
            "data": {"digits": {"train": 200}},
            "teacher": {
                "model": {"mlp": {"hidden": [32]}},
                "training": {"steps": 60, "lr": 0.01, "optimizer": "adamw"},
                "record": {"draws": 1280},
            },
            "defaults": {
                "model": {"mlp": {"hidden": [8]}},
                "training": {"steps": 60, "lr": 0.01, "optimizer": "adamw"},
            },
            "students": {"kd": {}, "mine": {"sampler": ["empirical", "mixup"], "sizes": sizes}},
            "limit": {"bytes": 5000},
        }
        | changes
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("front") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SECONDS", 0.01)
        execute(recipe(), folder, last=[FrontStage()])
    return folder


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, Any]:
    front = read_front(run)
    assert front is not None
    return front


def test_each_size_has_a_float_and_an_int8_point(found: dict[str, Any]) -> None:
    points = points_of(found)
    assert [(one.student, one.precision) for one in points] == [
        (name, precision)
        for name in ("mine", "mine-mlp-2", "mine-mlp-24")
        for precision in ("float32", "int8")
    ]
    by_name = {one.name: one for one in points}
    # 64 pixels, 24 units, 10 classes.
    assert by_name["mine-mlp-24"].multiply_adds == 64 * 24 + 24 * 10
    assert by_name["mine-mlp-24"].parameters == 64 * 24 + 24 + 24 * 10 + 10
    assert by_name["mine-mlp-24 (int8)"].bytes < by_name["mine-mlp-24"].bytes
    assert by_name["mine-mlp-2"].bytes < by_name["mine"].bytes < by_name["mine-mlp-24"].bytes
    assert all(one.ms > 0 for one in points)
    assert found["without"] == {}


def test_a_float_file_has_the_errors_of_its_student(run: Path, found: dict[str, Any]) -> None:
    summary = read_json(run / "summary.json")
    for one in points_of(found):
        accuracy = summary["students"][one.student]["metrics"]["accuracy"]["mean"]
        slack = 1e-9 if one.precision == "float32" else 0.05
        assert one.error == pytest.approx(1 - accuracy, abs=slack)
    # A larger network is better, and the test split is another than the one that chooses.
    by_name = {one.name: one for one in points_of(found)}
    assert by_name["mine-mlp-24"].validation < by_name["mine-mlp-2"].validation
    assert any(one.validation != one.error for one in by_name.values())


def test_teacher_and_records_are_made_once_for_all_sizes(run: Path) -> None:
    assert len(list(run.glob("teacher/*/*/stage.json"))) == 1
    # One for kd's draws, one for those of all sizes.
    assert len(list(run.glob("knowledge/*/stage.json"))) == 2


def test_the_best_within_the_limit_is_named_by_validation(found: dict[str, Any]) -> None:
    told = front_report(found, recipe())
    inside = [one for one in points_of(found) if one.bytes <= 5000]
    assert 0 < len(inside) < 6
    chosen = min(inside, key=lambda one: (one.validation, one.loss))
    assert (told["best"], told["precision"]) == (chosen.student, chosen.precision)
    assert told["sentence"].startswith(f"Within 5,000 bytes, {chosen.name} is best on validation")
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_it_is_measured_once_until_a_student_changes(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(_: Workspace) -> dict[str, Any]:
        raise AssertionError("it is measured again")

    monkeypatch.setattr(module, "measured", again)
    before = (run / "front.json").read_bytes()
    stage = FrontStage()
    # Another limit asks for no other measurement.
    stage.do(Workspace(recipe(limit={"ms": 3.0}), run))
    assert (run / "front.json").read_bytes() == before
    assert not stage.is_done(Workspace(recipe(front=["kd"]), run))


def test_what_cannot_be_exported_is_left_out_with_the_reason(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise ExportError("it cannot be")

    monkeypatch.setattr(module, "_SECONDS", 0.01)
    one = recipe(front=["mine-mlp-2"])
    with monkeypatch.context() as patch:
        patch.setattr(module, "quantise", refuse)
        found = measured(Workspace(one, run))
    assert found["without"] == {"mine-mlp-2 (int8)": "it cannot be"}
    [point] = points_of(found)
    assert (point.student, point.precision) == ("mine-mlp-2", "float32")
    assert best([point], limit_of(one)) == point
    monkeypatch.setattr(module, "trace", refuse)
    found = measured(Workspace(one, run))
    assert found["without"] == {"mine-mlp-2": "it cannot be"}
    assert found["points"] == []
    assert front_report(found, one)["sentence"] == (
        "No student could be exported, so none is named."
    )


def test_a_front_needs_validation_examples(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    rows = [f"{k % 7},{k % 5},{'ab'[k % 2]}" for k in range(80)]
    file.write_text("u,v,y\n" + "\n".join(rows) + "\n")
    data = {"table": {"path": str(file), "target": "y", "validation": 0.0}}
    with pytest.raises(RecipeError, match="front: is of students that are compared on validation"):
        execute(recipe(data=data), tmp_path / "run", last=[FrontStage()])
    assert not (tmp_path / "run").exists()


def test_the_page_shows_it(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_report(open_run(run), page)
    text = page.read_text(encoding="utf-8")
    part = text[text.index('<section id="front"') :].partition("</section>")[0]
    assert front_report(read_front(run) or {}, recipe())["sentence"][:30] in part
    assert part.count("<svg") == 3
    assert part.count('<th scope="row"') == 6
    assert 'class="over"' in part
    with browser(tmp_path / "home") as shown:
        for width in (390, 1280):
            shown.open(page, width)
            assert shown.complaints() == []
            assert shown.ask("document.documentElement.scrollWidth") <= width
            wide = shown.ask("document.querySelector('#front svg').getBoundingClientRect().width")
            assert wide > 280


def test_the_command_prints_json(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is there already, so nothing is trained."""
    monkeypatch.setattr(module, "_SECONDS", 0.01)
    file = run / "recipe.yaml"
    done = CliRunner().invoke(app, ["sweep-students", str(file), "--out", str(run), "--json",
                                    "--limit", "bytes=100"])  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["limit"] == {"bytes": 100}
    assert told["best"] is None
    assert told["sentence"].startswith("No student is within 100 bytes; the nearest is ")
    assert len(told["points"]) == 6
    assert all(math.isfinite(one["ms"]) for one in told["points"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--sizes: is needed, as the recipe has no sizes of its own"),
        (["--student", "xcl"], "--student: is for --sizes; give --sizes too"),
        (["--sizes", "mlp", "--limit", "ms"], "--limit: is 'ms'; it should be like ms=2,bytes=500"),
        (["--sizes", "mlp", "--limit", "kb=2"], "limit.kb: unknown key 'kb'"),
        (["--sizes", "[mlp"], "students.xcl.sizes: "),
        (
            ["--sizes", "mlp", "--student", "mine"],
            "--student: is 'mine', but the recipe has no such",
        ),
    ],
)
def test_mistakes_of_the_command_are_told(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["sweep-students", "digits", *arguments, "--out", str(tmp_path)])
    assert isinstance(done.exception, RecipeError), done.output
    assert str(done.exception).startswith(said)


def test_trees_and_calibrated_students_have_their_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.01)
    trees = {"estimator": {"extra_trees": {"trees": 3}}, "draws": 100}
    students = {"kd": {"calibrate": "temperature"}, "trees": trees}
    one = recipe(students=students, limit={"ms": 100})
    summary = execute(one, tmp_path / "run", last=[FrontStage()])
    found = read_front(tmp_path / "run")
    assert found is not None
    assert found["without"] == {}
    points = {point.name: point for point in points_of(found)}
    assert list(points) == ["kd", "kd (int8)", "trees"]
    for name in ("kd", "trees"):
        accuracy = summary["students"][name]["metrics"]["accuracy"]["mean"]
        assert points[name].error == pytest.approx(1 - accuracy, abs=1e-9)
    # Another calibration asks for another measurement.
    students["kd"] = {}
    assert not FrontStage().is_done(Workspace(recipe(students=students), tmp_path / "run"))
