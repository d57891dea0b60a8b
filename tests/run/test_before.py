"""Runs of the version before are read, shown, shipped and gone on with.

The folders in ``before/`` were made by commit f193f8d: the recipes ``digits`` and ``gaze`` at a few
steps, and ``words``, whose recipe has every word that is called otherwise now.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import extracurricular as xcl
from extracurricular.errors import StorageError
from extracurricular.files import read_json, write_json
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.recipe.schema import Recipe
from extracurricular.report.write import write_report
from extracurricular.run.check import check
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from extracurricular.run.plan import plan
from extracurricular.run.recorded import description
from extracurricular.run.settings import SCHEMA
from extracurricular.run.workspace import Workspace
from tests.run.test_run import snapshot

BEFORE = Path(__file__).parent / "before"
NAMES = sorted(folder.name for folder in BEFORE.iterdir() if folder.is_dir())


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(BEFORE / name, tmp_path / name))

    return copy


def test_there_are_such_runs() -> None:
    assert NAMES == ["digits", "gaze", "words"]
    assert "outside" in (BEFORE / "words" / "recipe.yaml").read_text()
    assert "hard: 0.1" in (BEFORE / "words" / "recipe.yaml").read_text()
    for name in NAMES:
        stages = list((BEFORE / name).rglob("stage.json"))
        assert stages
        assert all("schema" not in read_json(file) for file in stages)


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_as_it_did(run: Callable[[str], Path], name: str) -> None:
    folder = run(name)
    found = open_run(folder)
    said = read_json(folder / "summary.json")
    assert found.recipe.subject == "xcl"
    assert list(found.summary["students"]) == list(said["students"])
    predictor = xcl.load(folder)
    figures = xcl.evaluate(folder, seed=found.recipe.seeds[0])["metrics"]
    for figure, value in said["students"]["xcl"]["metrics"].items():
        if figure in figures:
            exact = value["per_seed"][0]
            assert figures[figure]["mean"] == pytest.approx(exact, rel=1e-4), figure
    assert predictor.parameters == said["students"]["xcl"]["parameters"]


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_page(run: Callable[[str], Path], name: str) -> None:
    folder = run(name)
    write_report(open_run(folder))
    page = (folder / "report.html").read_text()
    assert "gap" in page
    assert "cannot be drawn again" not in page


@pytest.mark.parametrize("name", NAMES)
def test_it_is_exported(run: Callable[[str], Path], name: str) -> None:
    folder = run(name)
    shipped = xcl.export_run(folder)
    exported = xcl.load(shipped.files[0])
    found = open_run(folder)
    x: Any = found.data.test.x
    part = {k: v[:20] for k, v in x.items()} if isinstance(x, dict) else x[:20]
    ours, theirs = exported(part), xcl.load(folder)(part)
    np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_without_training_again(run: Callable[[str], Path], name: str) -> None:
    folder = run(name)
    before, said = snapshot(folder), read_json(folder / "summary.json")
    summary = execute(read_recipe(str(folder / "recipe.yaml"), quiet=True), folder)
    for student, entry in said["students"].items():
        for figure, value in entry["metrics"].items():
            now = summary["students"][student]["metrics"][figure]["mean"]
            assert now == pytest.approx(value["mean"], rel=1e-4), (student, figure)
    after = snapshot(folder)
    changed = {path for path in before if after[path] != before[path]}
    # The recipe in the words of today, and the figures with it; nothing that was trained.
    assert not any(path.endswith((".safetensors", "stage.json", ".npy")) for path in changed)
    assert {"recipe.yaml", "summary.json"} <= changed


def test_a_student_is_added_to_it(run: Callable[[str], Path]) -> None:
    folder = run("digits")
    student = "{model: {digits_cnn: {width: 4, depth: 2}}, training: {steps: 3}}"
    more = [f"students.more={student}"]
    summary = execute(read_recipe(str(folder / "recipe.yaml"), more, quiet=True), folder)
    assert "more" in summary["students"]
    new = read_json(folder / "students/more/seed-0/stage.json")
    assert new["schema"] == SCHEMA
    assert len(new["content"]) == 32


def test_other_settings_are_refused_as_ever(run: Callable[[str], Path]) -> None:
    folder = run("digits")
    for change, says in (
        ("students.kd.matching.temperature=9.0", r"matching.temperature = 16.0, .* says 9.0"),
        ("data.digits.train=399", r"data.digits.train = 400, .* says 399"),
        ("teacher.training.lr=0.2", r"training.lr = 0.1, .* says 0.2"),
    ):
        recipe = read_recipe(str(folder / "recipe.yaml"), [change], quiet=True)
        with pytest.raises(StorageError, match=says):
            execute(recipe, folder)


def checked(recipe: Recipe, folder: Path) -> None:
    check(plan(recipe), Workspace(recipe, folder))


def test_the_recipe_that_a_run_was_made_from_goes_on_where_beta_changes_nothing(
    run: Callable[[str], Path],
) -> None:
    """Classes have no beta; targets have one by default, that the run of before did not have."""
    for name in ("digits", "gaze"):
        folder = run(name)
        written = yaml.safe_load((folder / "recipe.yaml").read_text())
        del written["log"]  # as a person leaves it out
        recipe = parse_recipe(written, quiet=True)
        if name == "digits":
            checked(recipe, folder)
            continue
        with pytest.raises(StorageError, match=r"matching\.beta = 0.0, but the recipe says 0.5"):
            checked(recipe, folder)
        written["teacher"]["matching"] = {"beta": 0.0}
        for student in written["students"].values():
            student["matching"]["beta"] = 0.0
        checked(parse_recipe(written, quiet=True), folder)


def test_a_later_version_is_refused_in_one_sentence(run: Callable[[str], Path]) -> None:
    folder = run("digits")
    file = folder / "teacher/shared/member-0/stage.json"
    write_json(file, {**read_json(file), "schema": SCHEMA + 1})
    recipe = read_recipe(str(folder / "recipe.yaml"), quiet=True)
    with pytest.raises(StorageError, match=rf"is of schema {SCHEMA + 1}, and this version reads"):
        execute(recipe, folder)


def test_a_record_is_found_under_the_key_that_it_had() -> None:
    """The key of a record hashes its chain, in the words that the version before had."""
    training = {"steps": 2, "batch_size": 8}
    model = {"mlp": {"hidden": [4]}}
    chain = ["empirical", {"uncertain": {"candidates": 3, "plain_share": 0.5}}]
    recipe = parse_recipe(
        {
            "name": "u",
            "data": {"digits": {"train": 100, "validation": 50}},
            "teacher": {"model": model, "members": 2, "record": {"draws": 32}},
            "students": {"unsure": {"model": model, "sampler": chain, "training": training}},
        }
    )
    [record] = plan(recipe).records
    # As commit f193f8d gives them for the same recipe.
    assert record.path == "knowledge/90b2b05f0d4c83e4"
    assert record.seed == 10829219178587930105
    old = ["empirical", {"uncertain": {"candidates": 3, "plain": 0.5}}]
    assert description(record.student, record.draws) == {"chain": old, "generators": []}
