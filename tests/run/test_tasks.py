"""Stages of several runs are done at once, each run as if it were alone."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from extracurricular.errors import TrainingError
from extracurricular.recipe.read import parse_recipe
from extracurricular.run import jobs as jobs_module
from extracurricular.run.check import check
from extracurricular.run.execute import begin, execute
from extracurricular.run.executors import do_tasks
from extracurricular.run.jobs import Job, Order
from extracurricular.run.lock import locked
from extracurricular.run.plan import plan
from extracurricular.run.tasks import Task, ready_tasks, tasks_of
from extracurricular.run.workspace import Workspace
from tests.run.test_executors import Listener, weights
from tests.run.test_run import TINY, without_seconds

CHANGES = ["students.kd.matching.temperature=2", "students.kd.matching.temperature=3"]


def recipe(change: str) -> Any:
    return parse_recipe({**TINY, "seeds": [0]}, [change])


def begun(folder: Path, change: str, told: Listener | None = None) -> tuple[Workspace, list[Task]]:
    workspace = Workspace(recipe(change), folder, told)
    whole = plan(workspace.recipe)
    checks = check(whole, workspace)
    with locked(folder):
        begin(whole, workspace, whole.trained, checks)
    return workspace, tasks_of(whole, workspace)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, dict[str, Any]]]:
    """Each run as it is by itself: its folder and its summary."""
    folders = [tmp_path_factory.mktemp("alone") for _ in CHANGES]
    return [(f, execute(recipe(c), f)) for f, c in zip(folders, CHANGES, strict=True)]


def test_a_task_waits_for_what_its_stage_needs_in_its_own_run(tmp_path: Path) -> None:
    _, ours = begun(tmp_path / "a", CHANGES[0])
    _, theirs = begun(tmp_path / "b", CHANGES[1])
    tasks = [*ours, *theirs]
    ready = ready_tasks(tasks, [task.key for task in tasks])
    assert [t.stage.path for t in ready if t.run == tmp_path / "a"] == [
        "teacher/seed-0/member-0", "teacher/seed-0/member-1", "students/erm/seed-0"
    ]  # fmt: skip
    assert len(ready) == 6
    ahead = [task.key for task in tasks if task.key not in {one.key for one in ready[:3]}]
    freed = {task.key for task in ready_tasks(tasks, ahead)} - {task.key for task in ready}
    assert {run for run, _ in freed} == {str(tmp_path / "a")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_several_runs_at_once_are_those_of_one_after_the_other(
    tmp_path: Path, jobs: int, alone: list[tuple[Path, dict[str, Any]]]
) -> None:
    told = [Listener(), Listener()]
    some = [begun(tmp_path / f"at-once-{k}", change, told[k]) for k, change in enumerate(CHANGES)]
    tasks = [task for _, own in some for task in own]
    done: list[Task] = []

    def finished(task: Task) -> None:
        assert task.needs <= {one.key for one in done}
        assert task.stage.is_done(workspaces[task.run])
        done.append(task)

    workspaces = {workspace.folder: workspace for workspace, _ in some}
    do_tasks(tasks, workspaces, jobs=jobs, finished=finished)
    assert {task.key for task in done} == {task.key for task in tasks}
    for k, change in enumerate(CHANGES):
        # Each run's own watcher is told, once for each stage.
        titles = [line for line in told[k].lines if line.startswith("end ")]
        assert sorted(titles) == sorted(f"end {task.stage.title}" for task in some[k][1])
        assert tasks_of(plan(recipe(change)), some[k][0]) == []
        whole = execute(recipe(change), tmp_path / f"at-once-{k}")
        assert without_seconds(whole) == without_seconds(alone[k][1])
        assert weights(tmp_path / f"at-once-{k}") == weights(alone[k][0])
    assert not list(tmp_path.rglob(".data-*"))


def test_what_is_equal_in_several_runs_may_be_linked_when_it_is_done(
    tmp_path: Path, alone: list[tuple[Path, dict[str, Any]]]
) -> None:
    """A sweep does so: a task of another run needs it, and finds it in its own folder."""
    (a, ours), (b, theirs) = (begun(tmp_path / n, c) for n, c in zip("ab", CHANGES, strict=True))
    shared = {task.stage.path: task for task in ours if task.stage.path.startswith("teacher")}
    rest = [
        Task(t.run, t.stage, frozenset(
            shared[path].key if path in shared else (run, path) for run, path in t.needs
        ))
        for t in theirs if t.stage.path not in shared
    ]  # fmt: skip

    def finished(task: Task) -> None:
        if task.stage.path in shared and task.run == a.folder:
            target = b.folder / task.stage.path
            target.mkdir(parents=True)
            for file in (a.folder / task.stage.path).iterdir():
                (target / file.name).hardlink_to(file)

    do_tasks([*rest, *ours], {a.folder: a, b.folder: b}, jobs=2, finished=finished)
    found = execute(recipe(CHANGES[1]), b.folder)
    assert without_seconds(found) == without_seconds(alone[1][1])


def test_an_error_ends_all_runs_with_its_sentence(tmp_path: Path) -> None:
    wild = "defaults.training.lr=1e30"
    some = [begun(tmp_path / "a", CHANGES[0]), begun(tmp_path / "b", wild)]
    with pytest.raises(TrainingError, match="loss became"):
        do_tasks([t for _, own in some for t in own], {w.folder: w for w, _ in some})


def test_a_job_keeps_the_workspaces_of_a_few_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_KEPT_RUNS", 1)
    job = Job(lambda *told: None, lambda spec: None)
    for name, change in zip("ab", CHANGES, strict=True):
        workspace, tasks = begun(tmp_path / name, change)
        paths = (tasks[0].stage.path,)
        assert job.do(Order(workspace.folder, pickle.dumps(workspace.recipe), paths)) is None
        assert list(job._runs) == [workspace.folder]
    # The runs have the same data, which were read once.
    assert len(job._data) == 1
