"""``xcl record``: the teacher of a recipe, recorded on the draws of a student."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from extracurricular import rng
from extracurricular.distributions import Distribution, Task
from extracurricular.errors import RecipeError, StorageError
from extracurricular.files import read_json, read_sealed, write_sealed
from extracurricular.knowledge import open_knowledge
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute
from extracurricular.run.finished import Finished, open_run
from extracurricular.run.plan import plan
from extracurricular.run.record import one_gpu_each, read_codec, record_teacher, teacher_of
from extracurricular.run.recorded import description
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Batch, Share, Uncertain
from tests.run.test_run import TINY


def tiny(folder: Path) -> Workspace:
    return Workspace(parse_recipe(TINY), folder)


def test_the_record_is_of_the_draws_and_the_teacher_of_the_recipe(tmp_path: Path) -> None:
    source = teacher_of(tiny(tmp_path / "run"), "xcl")
    report = record_teacher(source, tmp_path / "knowledge", 300, codec="uint8")
    assert report.recorded == report.draws == 300
    workspace, stage = source.workspace, source.stage
    known = open_knowledge(
        tmp_path / "knowledge",
        data=workspace.data(stage.data),
        sampler=description(stage, 300),
        seed=rng.fold(stage.seed, "sampler"),
        teacher=source.teacher,
    )
    batch = stage.draws(workspace)(torch.arange(300))
    kl = source.teacher(batch).kl(known(batch))  # type: ignore[arg-type]
    assert float(kl.max()) < 1e-3
    # The run itself goes on from the teacher that recording trained.
    again = teacher_of(tiny(tmp_path / "run"), "xcl")
    assert record_teacher(again, tmp_path / "knowledge", 300, codec="uint8").recorded == 0


def test_a_student_that_has_no_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"students\.erm\.learns_from: is 'labels'"):
        teacher_of(tiny(tmp_path), "erm")
    with pytest.raises(RecipeError, match=r"--student is 'xkl', .* did you mean 'xcl'"):
        teacher_of(tiny(tmp_path), "xkl")
    assert not list(tmp_path.iterdir())


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for visible, chosen in (("", "2"), ("4,5,6,7", "6")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setenv("LOCAL_RANK", "2")
        one_gpu_each()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen
    monkeypatch.delenv("LOCAL_RANK")
    one_gpu_each()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"


def test_codecs_of_the_command_line() -> None:
    task = Task("classification", 10)
    assert read_codec(None, task) is None
    assert read_codec("{topk: {k: 5}}", task) == {"topk": {"k": 5}}
    for text, said in (
        ("{topk: {k: 99}}", r"--codec.topk: k is 99; it must be from 1 to 10"),
        ("{", r"--codec: is '{', which is not valid YAML"),
        ("5", r"--codec: is 5; a codec is given as NAME or as"),
    ):
        with pytest.raises(RecipeError, match=said):
            read_codec(text, task)


def start(recipe: Path, rank: int, *more: str) -> subprocess.Popen[str]:
    command = ["record", str(recipe), "--draws", "700", "--out", "knowledge", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "extracurricular.cli", *command],
        env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
        cwd=recipe.parent,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_the_command_by_two_processes_and_its_mistakes(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    process = start(recipe, 0, "--codec", "float8")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1
    assert "--codec: unknown codec 'float8'; did you mean 'float32'?" in errors
    assert not (tmp_path / "runs").exists()
    processes = [start(recipe, rank) for rank in (1, 0)]
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "knowledge holds 700 draws of kd, " in output
        assert "KL(teacher ‖ stored) at T = 1: mean " in output
    assert open_knowledge(tmp_path / "knowledge").draws == 700


RECORDED: dict[str, Any] = {
    "name": "recorded",
    "data": {"digits": {"train": 100, "validation": 50}},
    "seeds": [0, 1],
    "teacher": {
        "model": {"mlp": {"hidden": [16]}},
        "members": 2,
        "training": {"steps": 30, "batch_size": 16},
        "record": {"draws": 200},
    },
    "defaults": {
        "model": {"mlp": {"hidden": [4]}},
        "training": {"steps": 20, "batch_size": 16, "lr": 0.05},
    },
    "students": {
        "erm": {"learns_from": "labels"},
        "kd": {},
        "mixed": {"sampler": ["empirical", "mixup"]},
        "warm": {"sampler": ["empirical", "mixup"], "matching": {"temperature": 4.0}},
        "unsure": {"sampler": ["empirical", "mixup", {"uncertain": {"candidates": 3}}]},
    },
}


def replayed(run: Finished, name: str, seed: int) -> tuple[Any, Any]:
    record = run.stage(name, seed).record
    assert record is not None
    return record.replay(run.workspace, seed)


class Deaf:
    """A teacher that must not be asked."""

    def __call__(self, batch: Batch) -> Distribution:
        raise AssertionError("the teacher was asked")


def test_a_run_records_once_for_each_sampler_and_trains_from_the_records(tmp_path: Path) -> None:
    stages = plan(parse_recipe(RECORDED)).records
    # Of kd, of mixed and warm together, and of unsure; not of erm, and not of each seed.
    assert [stage.student.key for stage in stages] == [
        "students.kd",
        "students.mixed",
        "students.unsure",
    ]
    summary = execute(parse_recipe(RECORDED), tmp_path)
    assert set(summary["students"]) == set(RECORDED["students"])
    for stage in stages:
        told = read_json(tmp_path / stage.path / "stage.json")
        assert told["done"] is True
        assert told["draws"] == 200
        assert told["price"]["kl"]["1.0"]["mean"] < 1e-5
    run = open_run(tmp_path)
    mixed, warm = (replayed(run, name, 1) for name in ("mixed", "warm"))
    ids = torch.arange(450)
    assert torch.equal(mixed[0](ids).x, warm[0](ids).x)  # type: ignore[arg-type]
    # Each pass has every draw once, and what the teacher said of that very draw (law 2).
    batch = mixed[0](ids)
    assert sorted(batch.ids[:200].tolist()) == sorted(batch.ids[200:400].tolist())
    kl = run.teacher(1)(batch).kl(mixed[1](batch))  # type: ignore[arg-type]
    assert float(kl.max()) < 1e-5
    # Nothing is done again.
    assert execute(parse_recipe(RECORDED), tmp_path) == summary


def test_a_replayed_choice_is_not_made_again(tmp_path: Path) -> None:
    execute(parse_recipe(RECORDED), tmp_path)
    sampler, known = replayed(open_run(tmp_path), "unsure", 0)
    child = sampler.child
    assert isinstance(child, Uncertain)
    chosen = child.choose(torch.arange(200))
    deaf = replace(sampler, child=replace(child, teacher=Deaf()))
    batch = deaf(torch.arange(200))
    assert sorted(batch.ids.tolist()) == list(range(200))
    assert torch.equal(batch.x, chosen.batch[batch.ids].x)  # type: ignore[arg-type]
    assert torch.equal(known.choices(batch.ids), chosen.index[batch.ids])
    assert 0 < int((chosen.index > 0).sum()) < 200


def test_a_run_from_records_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    execute(parse_recipe(RECORDED), tmp_path / "whole")
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "whole", again)
    # As after an interruption while recording, and before the students.
    shutil.rmtree(again / "students")
    for folder in (again / "knowledge").iterdir():
        record = read_sealed(folder / "stage.json") | {"done": False}
        write_sealed(folder / "stage.json", record)
        next(folder.glob("draws-*.npy")).unlink()
    execute(parse_recipe(RECORDED), again)
    for stage in plan(parse_recipe(RECORDED)).stages:
        if stage.path.startswith("students/"):
            ours, theirs = (
                (root / stage.path / "weights.safetensors").read_bytes()
                for root in (again, tmp_path / "whole")
            )
            assert ours == theirs, stage.path


@pytest.mark.parametrize(
    ("changes", "key", "problem"),
    [
        (["teacher.record.draws=0"], "teacher.record.draws", "greater than or equal to 1"),
        (["teacher.record.codec=float61"], "teacher.record.codec", "did you mean 'float16'"),
        (["teacher.record.codec={topk: {k: 11}}"], "teacher.record.codec.topk", "from 1 to 10"),
        (["teacher.record={codec: uint8}"], "teacher.record", "draws, its size, is not set"),
        (
            ["students.unsure.sampler.2.uncertain.score=divergence"],
            "students.unsure.sampler",
            "depend on the student in training",
        ),
    ],
)
def test_what_cannot_be_recorded_is_told_before_anything_is_written(
    tmp_path: Path, changes: list[str], key: str, problem: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        execute(parse_recipe(RECORDED, changes), tmp_path / "run")
    assert caught.value.key.startswith(key)
    assert problem in caught.value.problem
    assert not (tmp_path / "run").exists()


EXTENDED = ["empirical", "mixup"]
SHARES: dict[str, Any] = {
    **RECORDED,
    "defaults": {**RECORDED["defaults"], "training": {"steps": 160, "batch_size": 8, "lr": 0.05}},
    "teacher": {**RECORDED["teacher"], "record": {"draws": 1280, "codec": "float32"}},
    "students": {
        "kd": {},
        "half": {"sampler": [{"share": {"of": 0.5, "extended": EXTENDED}}]},
        "falling": {"sampler": [{"share": {"of": {"linear": [1, 0]}, "extended": EXTENDED}}]},
        "auto": {"sampler": [{"share": {"extended": EXTENDED}}]},
        "moving": {"sampler": ["empirical", {"mixup": {"alpha": {"linear": [0.1, 2]}}}]},
    },
}


def test_a_run_records_shares_and_courses(tmp_path: Path) -> None:
    whole = plan(parse_recipe(SHARES))
    summary = execute(parse_recipe(SHARES), tmp_path)
    assert set(summary["students"]) == set(SHARES["students"])
    prices = {stage.student.key.partition(".")[2]: stage for stage in whole.records}
    assert {name: stage.rows for name, stage in prices.items()} == {
        "kd": 1280, "half": 1280, "falling": 1280, "auto": 2 * 1280, "moving": 1280
    }  # fmt: skip
    for stage in whole.records:
        assert read_json(tmp_path / stage.path / "stage.json")["draws"] == stage.rows
    run, slots = open_run(tmp_path), torch.arange(1280)
    for name in ("half", "falling", "moving"):
        sampler, known = replayed(run, name, 1)
        batch = sampler(slots)
        # A course has its place in the training; other draws have an order for each seed.
        assert torch.equal(batch.ids, slots) == (name != "half")
        assert sorted(batch.ids.tolist()) == slots.tolist()
        assert float(run.teacher(1)(batch).kl(known(batch)).max()) < 1e-5  # type: ignore[arg-type]
    sampler, known = replayed(run, "auto", 1)
    assert isinstance(sampler, Share)
    batch = sampler(2 * slots[-200:] + 1)  # extended draws, after the held-out part
    assert float(run.teacher(1)(batch).kl(known(batch)).max()) < 1e-5  # type: ignore[arg-type]
    assert "share" in read_json(tmp_path / "students/auto/seed-0/stage.json")["mastery"]
    assert execute(parse_recipe(SHARES), tmp_path) == summary


@pytest.mark.parametrize("name", ["falling", "auto", "moving"])
def test_a_record_of_another_length_than_the_training_is_refused(name: str, tmp_path: Path) -> None:
    own = {**SHARES, "students": {"kd": {}, name: SHARES["students"][name]}}
    with pytest.raises(RecipeError) as caught:
        execute(parse_recipe(own, ["teacher.record.draws=700"]), tmp_path / "run")
    assert caught.value.key == "teacher.record.draws"
    assert caught.value.problem == (
        f"is 700, but the draws of students.{name} follow its training, which has 160 steps of 8; "
        "set it to 1280"
    )
    assert not (tmp_path / "run").exists()


def test_students_of_other_lengths_have_records_of_their_own() -> None:
    own = {**SHARES, "students": {**SHARES["students"], "longer": {
        **SHARES["students"]["auto"], "training": {"steps": 80, "batch_size": 16},
    }}}  # fmt: skip
    stages = plan(parse_recipe(own)).records
    assert len({stage.path for stage in stages}) == 6


def test_the_command_records_shares_and_courses(tmp_path: Path) -> None:
    recipe = {**SHARES, "teacher": {**SHARES["teacher"], "record": None}}
    workspace = Workspace(parse_recipe(recipe), tmp_path / "run")
    for name, rows in (("falling", 300), ("moving", 300), ("auto", 2560)):
        source = teacher_of(workspace, name)
        draws = 1280 if name == "auto" else 300
        report = record_teacher(source, tmp_path / name, draws)
        assert report.draws == rows
    with pytest.raises(RecipeError, match=r"^--draws: is 300, .* set it to 1280$"):
        record_teacher(source, tmp_path / "other", 300)
    with pytest.raises(StorageError, match=r"recorded with sampler\.draws = 300, .* 400"):
        record_teacher(teacher_of(workspace, "moving"), tmp_path / "moving", 400)


def test_a_record_of_other_settings_is_refused(tmp_path: Path) -> None:
    execute(parse_recipe(RECORDED), tmp_path)
    with pytest.raises(StorageError, match=r"codec = None, but the recipe says 'uint8'"):
        execute(parse_recipe(RECORDED, ["teacher.record.codec=uint8"]), tmp_path)
