"""Stages done at once, in processes of their own: the same numbers, and clean ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from extracurricular.data.base import Data
from extracurricular.errors import TrainingError
from extracurricular.files import read_json
from extracurricular.inputs import leaves
from extracurricular.knowledge.fingerprint import data_fingerprint
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute
from extracurricular.run.executors import job_count
from extracurricular.run.plan import plan
from extracurricular.run.shared_data import mapped, read_mapped
from tests.conftest import eye_data, image_data, pair_data, table_data
from tests.run.test_run import TINY, without_seconds

RECORDED: dict[str, Any] = {
    **TINY,
    "seeds": [0, 1],
    "teacher": {**TINY["teacher"], "per_seed": False, "record": {"draws": 64}},
    "generators": {"made": {"model": {"gan": {"steps": 5, "channels": 4}}, "least_variety": 0}},
    "students": {
        **TINY["students"],
        "made": {"sampler": [{"generated": {"generator": "made"}}]},
    },
}


def weights(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("recipe", [TINY, RECORDED], ids=["plain", "recorded"])
def test_the_number_of_jobs_changes_no_bit(tmp_path: Path, recipe: dict[str, Any]) -> None:
    one = execute(parse_recipe(recipe), tmp_path / "one", jobs=1)
    two = execute(parse_recipe(recipe), tmp_path / "two", jobs=2)
    assert without_seconds(one) == without_seconds(two)
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    files = [
        {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert files[0] == files[1]
    # Nothing is left to do.
    assert execute(parse_recipe(recipe), tmp_path / "two", jobs=2) == two


class Listener:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: dict[str, int] = {}

    def plan(self, steps: int, done: int) -> None:
        self.lines.append(f"plan {steps} {done}")

    def begin(self, title: str, steps: int) -> None:
        self.lines.append(f"begin {title}")

    def advance(self, title: str, step: int, loss: float | None) -> None:
        self.steps[title] = step

    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None:
        self.lines.append(f"end {title}")

    def tell(self, text: str) -> None:
        self.lines.append(text)


def test_the_watcher_follows_all_jobs(tmp_path: Path) -> None:
    told = Listener()
    execute(parse_recipe(TINY), tmp_path, told, jobs=2)
    titles = [stage.title for stage in plan(parse_recipe(TINY)).trained]
    for title in titles:
        assert told.lines.count(f"begin {title}") == told.lines.count(f"end {title}") == 1
        assert told.steps[title] == 30
    # No student begins before its teacher has ended.
    ended = max(told.lines.index(f"end teacher {k}/2, seed 0") for k in (1, 2))
    assert told.lines.index("begin kd, seed 0") > ended


def test_an_error_of_a_job_is_that_of_the_stage(tmp_path: Path) -> None:
    wild = {"steps": 30, "optimizer": "sgd", "lr": 1e30}
    recipe = parse_recipe({**TINY, "defaults": {**TINY["defaults"], "training": wild}})
    said = []
    for jobs in (1, 2):
        with pytest.raises(TrainingError, match="loss became") as caught:
            execute(recipe, tmp_path / f"out{jobs}", jobs=jobs)
        said.append(str(caught.value).partition(", seed")[0])
        assert not list((tmp_path / f"out{jobs}").glob(".data-*"))
    assert said[0] == "erm"
    assert said[1] in ("erm", "kd", "xcl")  # whichever comes first


def below(process: int) -> list[int]:
    """All processes that a process has begun, and those that they have, the last ones last."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False
    )
    children = [int(word) for word in found.stdout.split()]
    return [*children, *(one for child in children for one in below(child))]


def alive(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, processes))


def start(tmp_path: Path, steps: int, jobs: int = 2) -> subprocess.Popen[str]:
    training = {"steps": steps, "batch_size": 16, "lr": 0.1, "checkpoint_every": 50}
    recipe = {
        **TINY,
        "seeds": [0],
        "teacher": {**TINY["teacher"], "training": training},
        "defaults": {**TINY["defaults"], "training": training},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "extracurricular.cli", "run", str(tmp_path / "r.yaml")]
    return subprocess.Popen(
        [*command, "--out", str(tmp_path / "out"), "--jobs", str(jobs)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip


def wait_for_jobs(tmp_path: Path, process: subprocess.Popen[str]) -> list[int]:
    """The processes of a run, once one of them has written a checkpoint."""
    before = set((tmp_path / "out").rglob("*.ckpt"))
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if set((tmp_path / "out").rglob("*.ckpt")) - before:
            return below(process.pid)
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint: {process.communicate()}")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_killed_jobs_and_killed_runs_end_cleanly_and_go_on(tmp_path: Path) -> None:
    process = start(tmp_path, 1500)
    jobs = wait_for_jobs(tmp_path, process)
    os.kill(jobs[-1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    [line] = [line for line in errors.splitlines() if line.startswith("error")]
    assert "a job was killed, most likely for want of memory" in line
    assert "were at work: teacher " in line
    assert "Traceback" not in errors
    assert_gone(jobs)

    # The whole run is killed: its jobs end with it, so that they write nowhere later on.
    process = start(tmp_path, 1500)
    jobs = wait_for_jobs(tmp_path, process)
    process.kill()
    process.communicate()
    assert_gone(jobs)

    # An interruption from the keyboard.
    process = start(tmp_path, 1500)
    jobs = wait_for_jobs(tmp_path, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted; the same command goes on from here" in errors
    assert "Traceback" not in errors
    assert_gone(jobs)

    process = start(tmp_path, 1500)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert not list((tmp_path / "out").glob(".data-*"))
    (tmp_path / "out").rename(tmp_path / "killed")
    process = start(tmp_path, 1500, jobs=1)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    a, b = (read_json(tmp_path / name / "summary.json") for name in ("out", "killed"))
    assert without_seconds(a) == without_seconds(b)
    assert weights(tmp_path / "out") == weights(tmp_path / "killed")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at threads in /proc")
def test_jobs_are_forked_from_a_process_without_threads() -> None:
    """A fork inherits the locks that other threads hold, and nobody then opens them."""
    code = "import os, extracurricular.run.preloaded; print(len(os.listdir('/proc/self/task')))"
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env={**os.environ, **one},
    )  # fmt: skip
    assert found.stdout.split() == ["1"]


def test_jobs_are_as_many_as_pay() -> None:
    recipe = parse_recipe(TINY, ["defaults.training.steps=3000"])
    stages = plan(recipe).trained
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if not torch.cuda.is_available():
        assert job_count(None, recipe, stages) == min(cores, len(stages))
    assert job_count(None, recipe, stages[:2]) == 1  # too short to be worth a process
    assert job_count(5, recipe, stages[:3]) == 3
    assert job_count(None, recipe, []) == 1
    assert job_count(None, parse_recipe(TINY, ["device.threads=1000"]), stages) == 1
    assert job_count(1, recipe, stages) == 1


@pytest.mark.parametrize("make", [image_data, table_data, eye_data, pair_data])
def test_a_data_set_in_a_file_is_the_same(tmp_path: Path, make: Any) -> None:
    data: Data = make()
    found = mapped("spec", data, "content", tmp_path / "file")
    assert found is not None
    again = read_mapped(found)
    assert data_fingerprint(again) == data_fingerprint(data)
    for part in ("train", "validation", "test"):
        ours, theirs = getattr(again, part), getattr(data, part)
        assert len(ours) == len(theirs)
        for key, leaf in leaves(theirs.x).items():
            assert torch.equal(leaves(ours.x)[key], leaf)
    assert again.shapes == data.shapes
    # Writing to it changes neither the file nor another process's view of it.
    before = found.file.read_bytes()
    next(iter(leaves(again.train.x).values())).zero_()
    assert found.file.read_bytes() == before
