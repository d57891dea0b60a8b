"""A run by several processes: what they tell each other, and what is refused in one sentence.

tests/training/test_ranks.py has the trainings themselves, and the drill ``ranks`` real runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import HashStore

from extracurricular.cli.run import _launched
from extracurricular.errors import TOLD, DataError, RecipeError
from extracurricular.inputs import is_static
from extracurricular.recipe.device import DeviceSection
from extracurricular.recipe.read import parse_recipe
from extracurricular.run import launched, watch
from extracurricular.run.execute import execute
from extracurricular.run.follow import check_trainings
from extracurricular.run.launched import check_world, device_count, read_devices
from extracurricular.run.plan import plan
from extracurricular.run.ranks import TOKEN, Place, Ranks, rank
from extracurricular.run.watch import LIMIT, Watch
from extracurricular.run.workspace import Workspace
from tests.run.test_run import TINY

CPU = {"accelerator": "cpu"}


def place(number: int = 0, host: str = "here", process: int = 1) -> Place:
    return Place(number, 2, host, process)


def pair() -> tuple[Ranks, Ranks]:
    store: Any = HashStore()
    store.set("place/0", "1 here")
    return Ranks(place(0), 2, store), Ranks(place(1, "there"), 2, store)


# Messages


def test_the_others_hear_what_rank_0_tells_in_its_order() -> None:
    first, other = pair()
    first.tell("train", path="students/kd", until=None)
    first.tell("end")
    assert other.hear() == {"what": "train", "path": "students/kd", "until": None}
    assert other.hear() == {"what": "end"}
    assert (first.leads, other.leads) == (True, False)


def test_nobody_is_told_of_what_all_do_together() -> None:
    first, other = pair()
    with first.together():
        first.tell("answer", name="teacher")
        assert not is_static(torch.zeros(1))
    other.tell("end")  # only rank 0 tells
    first.tell("end")
    assert other.hear() == {"what": "end"}


def test_a_sharded_teacher_is_asked_as_often_by_all() -> None:
    first, _ = pair()
    first.shards = True
    with first.together():
        assert is_static(torch.zeros(1))


def test_a_folder_that_another_does_not_see_is_refused(tmp_path: Path) -> None:
    first, other = pair()
    (tmp_path / TOKEN).write_text("it")
    other.see(tmp_path, "it")
    assert first.store.check(["met/it/1"])
    for folder, token in ((tmp_path / "none", "it"), (tmp_path, "another")):
        with pytest.raises(RecipeError) as told:
            other.see(folder, token, seconds=0.2)
        assert str(told.value) == (
            f"--out: is {str(folder)!r}, which rank 1 of 2 (process 1 on there) does not see as "
            "rank 0 on here does; give a folder of a file system that all machines share"
        )


def test_rank_0_leaves_no_token_behind(tmp_path: Path) -> None:
    first, other = pair()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extracurricular.run.ranks._TO_SEE", 0.05)
        with pytest.raises(RecipeError, match=r"--out: is .* which rank 1 of 2 does not see"):
            first.meet(tmp_path)
    assert not (tmp_path / TOKEN).exists()
    assert other.hear()["what"] == "meet"


def test_other_data_on_another_machine_are_refused() -> None:
    _, other = pair()
    other.check_content("same", "same")
    with pytest.raises(DataError, match=r"rank 1 of 2 \(process 1 on there\) reads are not those"):
        other.check_content("other", "same")


# The watch


def watched() -> tuple[Watch, Any]:
    store: Any = HashStore()
    own = Watch(place(0), store)
    own.others = [place(1, "there", 7)]
    store.set("beat/1", "0")
    return own, store


def test_a_rank_whose_beat_stays_the_same_is_told() -> None:
    own, store = watched()
    assert own.look(1, 0.0) == ""
    assert own.look(2, LIMIT - 1) == ""
    said = own.look(3, LIMIT + 1)
    assert said.startswith("rank 1 of 2 (process 7 on there) has given no sign of life for 30 s")
    assert said.endswith("the same command goes on from the checkpoints")
    store.set("beat/1", "1")
    assert own.look(4, LIMIT + 2) == ""
    store.set("beat/1", "ended")
    own.look(5, LIMIT + 3)
    assert own.look(6, 9 * LIMIT) == ""
    assert store.get("beat/0") == b"6"


def test_what_one_tells_all_hear() -> None:
    own, store = watched()
    store.set("failed", "the teacher gave NaN")
    assert own.look(1, 0.0) == "the teacher gave NaN"


def test_a_dead_process_is_found() -> None:
    own, _ = watched()
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    own.others = [place(1, "there", ended.pid)]
    assert own.dead() is None  # on another machine nobody can see it
    own.others = [place(1, "here", ended.pid)]
    assert own.dead() == own.others[0]
    ended.wait()
    assert own.dead() == own.others[0]
    own.others = [place(1, "here", os.getpid())]
    assert own.dead() is None


class LeftError(Exception):
    """Instead of the end of the process."""


@pytest.fixture
def _leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(status: int) -> None:
        raise LeftError(status)

    monkeypatch.setattr(watch.os, "_exit", leave)


@pytest.mark.usefixtures("_leaves")
def test_a_failure_is_told_once_on_each_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store: Any = HashStore()
    for who in (place(1, "a"), place(0, "a"), place(2, "b")):
        with pytest.raises(LeftError, match="2"):
            watch.leave(who, store, f"said by {who.rank}")
    assert capsys.readouterr().err == "error: said by 1\nerror: said by 1\n"
    monkeypatch.setenv(TOLD, str(tmp_path / "told"))
    for _ in range(2):
        with pytest.raises(LeftError):
            watch.leave(place(0), store, "again")
    assert (tmp_path / "told").read_text() == "said by 1"
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("_leaves")
def test_an_error_is_that_of_the_process_that_died_if_one_did(
    capsys: pytest.CaptureFixture[str],
) -> None:
    own, store = watched()
    with pytest.raises(LeftError), watch.answering_for(own, store):
        raise DataError("a file is gone")
    ended = subprocess.Popen(["true"])
    ended.wait()
    own.others, store = [place(1, "here", ended.pid)], HashStore()
    with pytest.raises(LeftError), watch.answering_for(own, store):
        raise RuntimeError("[gloo] Connection closed by peer")
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "error: a file is gone"
    assert told[1].startswith(f"error: rank 1 of 2 (process {ended.pid} on here) has died; ")


# What is refused


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_no_number_of_devices(text: str) -> None:
    with pytest.raises(RecipeError, match=r"--devices: is .*; it must be a whole number of at "):
        read_devices(text)


def test_how_many_processes_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [read_devices(text) for text in (None, "auto", "3")] == [None, "auto", 3]
    assert device_count(DeviceSection(**CPU), None) == 1
    assert device_count(DeviceSection(**CPU, devices=2), None) == 2
    assert device_count(DeviceSection(**CPU, devices=2), 4) == 4
    assert device_count(DeviceSection(**CPU), "auto") == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert device_count(DeviceSection(accelerator="cuda"), "auto") == 8
    with pytest.raises(RecipeError, match="--devices: is 9, but this machine has 8 of cuda"):
        device_count(DeviceSection(accelerator="cuda"), 9)


@pytest.mark.parametrize(
    ("section", "wanted", "said"),
    [
        ({"devices": 10_000}, None, "device.devices: is 10000, but this machine has .* cores"),
        ({}, 10_000, "--devices: is 10000, but this machine has .* cores"),
        ({"nodes": 2}, 4, "device.nodes: is 2, .* torchrun --nnodes 2 --nproc-per-node 4 -m"),
        ({"strategy": "fsdp"}, None, "device.strategy: is 'fsdp', which shards .* there is one"),
        ({"accelerator": "mps"}, 2, "--devices: is 2, but this machine has 1 of mps"),
    ],
)
def test_devices_that_are_not_there(section: dict[str, Any], wanted: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        device_count(DeviceSection(**{**CPU, **section}), wanted)


def test_processes_of_torchrun_that_are_not_those_of_the_recipe() -> None:
    check_world(DeviceSection(**CPU), 4, 2)
    check_world(DeviceSection(**CPU, devices=2, nodes=2), 4, 2)
    with pytest.raises(RecipeError, match=r"device.devices: is 4, but torchrun started 2 proc"):
        check_world(DeviceSection(**CPU, devices=4), 2, 2)
    with pytest.raises(RecipeError, match=r"device.nodes: is 3, but torchrun runs on 2; give it"):
        check_world(DeviceSection(**CPU, nodes=3), 4, 2)


def test_a_call_from_python_is_one_process(tmp_path: Path) -> None:
    for key, value in (("devices", 2), ("nodes", 3)):
        recipe = parse_recipe({**TINY, "device": {**CPU, key: value}})
        with pytest.raises(RecipeError, match=f"device.{key}: is {value}, but this is one process"):
            execute(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_variables_of_another_launcher_are_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank() == 0
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(RecipeError, match="WORLD_SIZE: is 4, but LOCAL_WORLD_SIZE is not set"):
        rank()


@pytest.mark.parametrize(
    ("changes", "world", "said"),
    [
        ({}, 5, "teacher.training.batch_size: is .*, which 5 devices cannot share equally"),
        (
            {"students.kd.training.batch_size": 18, "students.kd.training.accumulate": 3}, 4,
            "students.kd.training.batch_size: is 18, which 4 devices, in 3 parts each",
        ),
        (
            {"students.kd.matching.divergence": "dist"}, 2,
            "students.kd.matching.divergence: is 'dist', which relates the examples of a batch",
        ),
        ({"students.kd.quantise": "int8"}, 2, "students.kd.quantise: is set, which is for one dev"),
    ],
)  # fmt: skip
def test_trainings_that_devices_cannot_share(
    changes: dict[str, Any], world: int, said: str, tmp_path: Path
) -> None:
    recipe = parse_recipe(TINY, [f"{key}={value}" for key, value in changes.items()])
    with pytest.raises(RecipeError, match=said):
        check_trainings(plan(recipe), Workspace(recipe, tmp_path), world)


def test_jobs_ray_and_minutes_do_not_go_with_devices(tmp_path: Path) -> None:
    recipe = parse_recipe({**TINY, "device": CPU})
    for more, said in (
        ((2, None, None), "--jobs: is 2, but all 2 devices do one stage; leave it out"),
        ((1, None, 3.0), "--minutes: times steps of one device, but there are 2"),
        ((1, "ray", None), "--on: is 'ray', which does each stage on one device, but there are 2; "
         "leave one of the two out"),
    ):  # fmt: skip
        with pytest.raises(RecipeError) as told:
            _launched(recipe, [], tmp_path, "2", more)
        assert str(told.value) == said
    assert not _launched(recipe, [], tmp_path, "1", (2, "ray", 3.0))


# The launcher


def test_the_sentence_of_the_processes_comes_before_that_of_the_launcher(tmp_path: Path) -> None:
    class Failure:
        pid, exitcode = 7, -signal.SIGKILL

    told = tmp_path / "told"
    said = launched._sentence(told, (1, Failure()), 2)
    assert said.startswith("rank 1 of 2 (process 7) was killed by SIGKILL, perhaps for want of")
    told.write_text("students.kd: is wrong")
    assert launched._sentence(told, (1, Failure()), 2) == "students.kd: is wrong"
    Failure.exitcode = 3
    told.unlink()
    assert launched._sentence(told, (0, Failure()), 2).startswith("rank 0 of 2 (process 7) ended ")


# Batch norms


def test_batch_norms_of_one_process_stay_as_they_are() -> None:
    from extracurricular.training.synchronised import Synchronised

    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    Synchronised(student, 1)
    assert "forward" not in student[1].__dict__
    several = Synchronised(student, 2)
    assert "forward" in student[1].__dict__
    assert torch.equal(student.eval()(torch.ones(2, 3)), student(torch.ones(2, 3)))
    several.stop()
    assert "forward" not in student[1].__dict__
