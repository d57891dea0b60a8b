"""Sweeps: equal stages are done once, and each run is what `xcl run` would have made."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from extracurricular.errors import RecipeError, StorageError, XclError
from extracurricular.evaluation.metrics import error_of
from extracurricular.files import read_json, read_sealed, write_atomic
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.equal_stages import link_stage
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from extracurricular.run.rungs import Rungs, better_half, read_rungs, shortened
from extracurricular.run.sweep import FILE, read_sweep, sweep
from tests.run.test_executors import Listener
from tests.run.test_run import TINY, without_seconds

T = "students.xcl.matching.temperature"
SMALL: dict[str, Any] = {
    **TINY,
    "seeds": [0, 1],
    "teacher": {**TINY["teacher"], "members": 1, "per_seed": False, "training": {"steps": 10}},
    "defaults": {**TINY["defaults"], "training": {"steps": 12, "batch_size": 16, "lr": 0.1}},
}
RECIPE = parse_recipe(SMALL)


class Interrupted(Listener):
    """A watcher that interrupts the run when a stage begins."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title

    def begin(self, title: str, steps: int) -> None:
        if title == self.title:
            raise KeyboardInterrupt
        super().begin(title, steps)


def begun(watcher: Listener) -> list[str]:
    return sorted(line[6:] for line in watcher.lines if line.startswith("begin "))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], Listener]:
    folder, watcher = tmp_path_factory.mktemp("sweeps") / "small", Listener()
    return folder, sweep(RECIPE, {T: [1, 4]}, folder, watcher=watcher), watcher


def test_equal_stages_are_done_once(
    done: tuple[Path, list[dict[str, Any]], Listener],
) -> None:
    folder, _, watcher = done
    common = ["erm, seed 0", "erm, seed 1", "kd, seed 0", "kd, seed 1", "teacher 1/1"]
    own = [f"xcl, seed {s}, temperature={t}" for s in (0, 1) for t in (1, 4)]
    assert begun(watcher) == sorted([*common, *own])
    shared = {
        part["part"]: (part["stages"], part["done"])
        for part in read_sealed(folder / FILE)["shared"]
    }
    assert shared == {"teacher": (2, 1), "erm": (4, 2), "kd": (4, 2), "xcl": (4, 4)}


def test_a_run_is_what_the_same_recipe_makes_alone(
    done: tuple[Path, list[dict[str, Any]], Listener], tmp_path: Path
) -> None:
    run = done[0] / "runs" / "temperature=4"
    alone = execute(parse_recipe(RECIPE.dump(), [f"{T}=4"]), tmp_path / "alone")
    assert without_seconds(read_json(run / "summary.json")) == without_seconds(alone)

    def files(folder: Path) -> dict[str, Path]:
        return {str(f.relative_to(folder)): f for f in folder.rglob("*") if f.is_file()}

    mine, theirs = files(run), files(tmp_path / "alone")
    assert set(mine) == set(theirs)
    for name, file in mine.items():
        if name.endswith(("stage.json", "log.jsonl", "summary.json", "environment.json")):
            continue  # seconds, or a date
        assert file.read_bytes() == theirs[name].read_bytes() or name == "draws.json", name
    for name in mine:
        if name.endswith("seed-0/stage.json"):
            known = [read_sealed(one[name]) for one in (mine, theirs)]
            for record in known:
                record.pop("files")
            assert without_seconds(known[0]) == without_seconds(known[1]), name


def test_rows_are_ordered_and_chosen_by_validation_alone(
    done: tuple[Path, list[dict[str, Any]], Listener],
) -> None:
    folder, rows, _ = done
    assert [row["best"] for row in rows] == [True, False]
    assert rows[0]["error"] <= rows[1]["error"]
    assert "test" not in rows[1]
    for row in rows:
        figures, run = row["figures"], open_run(Path(row["run"]))
        means = {name: figure["mean"] for name, figure in figures.items()}
        assert row["error"] == error_of(means, row["measure"])
        for seed, value in enumerate(figures["accuracy"]["per_seed"]):
            data = run.workspace.data_of(seed)
            said = run.workspace.predict(run.student("xcl", seed), data, data.validation)
            assert data.validation.y is not None
            assert value == pytest.approx(
                float((said.top()[1] == data.validation.y).double().mean())
            )
    best = read_json(Path(rows[0]["run"]) / "summary.json")
    assert rows[0]["test"] == best["students"]["xcl"]["metrics"]
    assert json.loads(json.dumps(rows)) == rows
    assert folder in Path(rows[0]["run"]).parents


def test_a_finished_sweep_does_nothing_again(
    done: tuple[Path, list[dict[str, Any]], Listener],
) -> None:
    folder, rows, _ = done
    before = {f: f.stat().st_mtime_ns for f in (folder / "runs").rglob("*") if f.is_file()}
    before = {file: time for file, time in before.items() if file.name != ".lock"}
    watcher = Listener()
    assert sweep(RECIPE, {T: [1, 4]}, folder, watcher=watcher) == rows
    assert begun(watcher) == []
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_run_stays_whole_when_another_is_deleted_or_written_to(
    done: tuple[Path, list[dict[str, Any]], Listener], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done[0], folder, copy_function=os.link)
    first, second = (folder / "runs" / f"temperature={t}" for t in (1, 4))
    weights = "students/erm/seed-0/weights.safetensors"
    assert (first / weights).stat().st_ino == (second / weights).stat().st_ino
    kept = (second / weights).read_bytes()
    write_atomic(first / weights, b"changed")
    assert (second / weights).read_bytes() == kept
    summary = open_run(second).summary
    shutil.rmtree(first)
    assert open_run(second).summary == summary
    assert execute(open_run(second).recipe, second) == summary


def test_an_interrupted_sweep_goes_on(
    done: tuple[Path, list[dict[str, Any]], Listener], tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    with pytest.raises(KeyboardInterrupt):
        sweep(RECIPE, {T: [1, 4]}, folder, watcher=Interrupted("xcl, seed 1, temperature=1"))
    finished = {file: file.stat().st_mtime_ns for file in folder.rglob("weights.safetensors")}
    assert finished
    watcher = Listener()
    rows = sweep(RECIPE, {T: [1, 4]}, folder, watcher=watcher)
    assert "teacher 1/1" not in begun(watcher)
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    there = [{**row, "run": ""} for row in done[1]]
    assert without_seconds([{**row, "run": ""} for row in rows]) == without_seconds(there)


def test_values_are_added_to_a_finished_sweep(
    done: tuple[Path, list[dict[str, Any]], Listener], tmp_path: Path
) -> None:
    folder, watcher = tmp_path / "sweep", Listener()
    shutil.copytree(done[0], folder)
    rows = sweep(RECIPE, {T: [2]}, folder, watcher=watcher)
    assert begun(watcher) == [f"xcl, seed {seed}, temperature=2" for seed in (0, 1)]
    assert sorted(row["values"][T] for row in rows) == [1, 2, 4]
    kept = {row["label"]: row["figures"] for row in rows}
    assert all(kept[row["label"]] == row["figures"] for row in done[1])
    # A combination that is wanted no more goes with its folder.
    shutil.rmtree(folder / "runs" / "temperature=4")
    assert sorted(row["values"][T] for row in sweep(RECIPE, {T: [1]}, folder)) == [1, 2]
    with pytest.raises(StorageError, match=r"holds a sweep over .*temperature, not over .*lr"):
        sweep(RECIPE, {"students.xcl.training.lr": [0.1]}, folder)
    with pytest.raises(StorageError, match=r"steps = 12, but the recipe says 13; choose another"):
        sweep(RECIPE, {T: [1]}, folder, overrides=["students.kd.training.steps=13"])


@pytest.mark.parametrize(
    ("over", "more", "sentence"),
    [
        ({T: [1, -2]}, {}, "temperature.* combination temperature=-2"),
        ({"students.xcl.sampler": [["empirical"], ["mixdown"]]}, {}, "mixdown.* sampler="),
        (
            {"students.xcl.training.checkpoint_every": [5, 6]},
            {},
            "differ in nothing that is trained",
        ),
        ({T: [1, 4]}, {"overrides": ["data.validation=0"]}, "no labelled validation examples"),
        ({T: [1, 4]}, {"student": "xl"}, "--student: is 'xl'.* did you mean 'xcl'"),
        ({T: [1, 4]}, {"halving": [0.5, 0.2]}, "--halving: .* rising between 0 and 1"),
        (
            {T: [1], "students.kd.training.lr": [0.1, 0.2]},
            {"halving": [0.5]},
            "kd and xcl are varied",
        ),
        ({T: [1, 4]}, {"most": 1}, "2 combinations, and at most 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    over: dict[str, Any], more: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(XclError, match=sentence):
        sweep(RECIPE, over, tmp_path / "sweep", **more)
    assert not (tmp_path / "sweep").exists()


def test_a_varied_teacher_is_done_for_each_value_and_labels_alone_once(tmp_path: Path) -> None:
    watcher = Listener()
    recipe = parse_recipe({**SMALL, "seeds": [0]})
    rows = sweep(recipe, {"teacher.training.lr": [0.05, 0.1]}, tmp_path, watcher=watcher)
    told = begun(watcher)
    assert "erm, seed 0" in told
    assert [title for title in told if title.startswith("teacher")] == [
        f"teacher 1/1, lr={rate}" for rate in (0.05, 0.1)
    ]
    assert [title.count("kd, ") for title in told].count(1) == 2
    assert {row["student"] for row in rows} == {"xcl"}


def test_the_better_half_goes_on_and_is_trained_anew(tmp_path: Path) -> None:
    watcher, recipe = Listener(), parse_recipe({**SMALL, "seeds": [0]})
    rows = sweep(recipe, {T: [1, 2, 4, 8]}, tmp_path, halving=[0.5], watcher=watcher)
    assert [row["stopped"] for row in rows] == [False, False, True, True]
    assert [row["steps"] for row in rows] == [12, 12, 6, 6]
    assert [Path(row["run"]).parent.name for row in rows] == ["runs", "runs", "0.5", "0.5"]
    first = {row["label"]: row["error"] for row in read_sealed(tmp_path / FILE)["rungs"]}
    assert max(first[row["label"]] for row in rows[:2]) <= min(first[r["label"]] for r in rows[2:])
    # A rung has the judged student alone, and never sees test examples.
    rung = open_run(Path(rows[2]["run"]))
    assert rung.students == ["xcl"]
    assert rung.recipe.evaluation.split == "validation"
    assert sum(title.startswith("teacher") for title in begun(watcher)) == 1
    assert any("4 with 50 % of their steps, then 2 anew" in line for line in watcher.lines)
    again = Listener()
    assert sweep(recipe, {T: [1, 2, 4, 8]}, tmp_path, halving=[0.5], watcher=again) == rows
    assert begun(again) == []


def test_the_cost_of_rungs_is_that_of_their_steps() -> None:
    rungs = Rungs((0.25, 0.5))
    assert rungs.counts(8) == [8, 4, 2]
    assert rungs.cost(8) == pytest.approx((8 * 0.25 + 4 * 0.5 + 2) / 8)
    assert rungs.counts(3) == [3, 2, 1]
    assert better_half(["a", "b", "c"], 3) == ["a", "b"]
    assert read_rungs("0.1, 0.5") == Rungs((0.1, 0.5))
    assert read_rungs(0.25) == Rungs((0.25,))
    for wrong in ("", "0", "1", "0.5,0.5", "half", []):
        with pytest.raises(RecipeError, match="--halving"):
            read_rungs(wrong)


def test_a_rung_keeps_the_student_that_sets_the_cost_of_another() -> None:
    given = {**SMALL["students"]["xcl"], "cost": {"of": "kd", "unit": "steps"}}
    recipe = parse_recipe({**SMALL, "students": {**SMALL["students"], "xcl": given}})
    found = shortened(recipe, "xcl", 0.5)
    assert list(found.students) == ["kd", "xcl"]
    assert found.students["kd"].training.steps == 6
    assert (found.reference, found.plain, found.subject) == ("kd", None, "xcl")
    assert parse_recipe(found.dump()) == found


def test_files_are_copied_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stage.json", "log.jsonl", ".hidden", "step-0001.aa.ckpt", "metrics.json"):
        write_atomic(tmp_path / "a" / name, name.encode())

    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    link_stage(tmp_path / "a", tmp_path / "b")
    assert sorted(f.name for f in (tmp_path / "b").iterdir()) == ["log.jsonl", "stage.json"]
    files = [tmp_path / name / "stage.json" for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_ino != files[1].stat().st_ino


def test_the_folders_of_sweeps_and_of_runs_are_told_apart(
    done: tuple[Path, list[dict[str, Any]], Listener],
) -> None:
    folder, rows, _ = done
    with pytest.raises(StorageError, match=r"is no run but a sweep; name one of those below"):
        open_run(folder)
    with pytest.raises(StorageError, match="is the folder of a run; choose another --out"):
        sweep(RECIPE, {T: [1, 4]}, rows[0]["run"])


def test_a_damaged_or_later_sweep_is_refused(tmp_path: Path) -> None:
    assert read_sweep(tmp_path) is None
    write_atomic(tmp_path / FILE, b'{"schema": 99}')
    with pytest.raises(StorageError, match="schema 99"):
        sweep(RECIPE, {T: [1]}, tmp_path)
    write_atomic(tmp_path / FILE, b'{"schema": 1, "checksum": "0"}')
    with pytest.raises(StorageError, match="damaged"):
        sweep(RECIPE, {T: [1]}, tmp_path)
