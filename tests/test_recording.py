"""``xcl record``: the teacher of a recipe, recorded on the draws of a student."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from extracurricular import rng
from extracurricular.distributions import Task
from extracurricular.errors import RecipeError
from extracurricular.knowledge import open_knowledge
from extracurricular.pipeline import Run
from extracurricular.recipe import parse_recipe
from extracurricular.recording import one_gpu_each, read_codec, record_run, teacher_of
from test_pipeline import TINY


def tiny(folder: Path) -> Run:
    return Run(parse_recipe(TINY), folder)


def test_the_record_is_of_the_draws_and_the_teacher_of_the_recipe(tmp_path: Path) -> None:
    source = teacher_of(tiny(tmp_path / "run"), "xcl")
    report = record_run(source, tmp_path / "knowledge", 300, codec="uint8")
    assert report.recorded == report.draws == 300
    run, stage = source.run, source.stage
    assert run.teacher_is_ready(stage.seed)
    known = open_knowledge(
        tmp_path / "knowledge",
        data=run.data,
        sampler=stage.sampler,
        seed=rng.fold(stage.seed, "sampler"),
        teacher=source.teacher,
    )
    batch = run.sampler(stage)(torch.arange(300))
    kl = source.teacher(batch).kl(known(batch))  # type: ignore[arg-type]
    assert float(kl.max()) < 1e-3
    # The run itself goes on from the teacher that recording trained.
    again = teacher_of(tiny(tmp_path / "run"), "xcl")
    assert record_run(again, tmp_path / "knowledge", 300, codec="uint8").recorded == 0


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
