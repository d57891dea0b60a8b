"""Stages on a Ray cluster: the numbers of a run on this machine, whatever dies."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from extracurricular.errors import DataError, RecipeError, StorageError, TrainingError, XclError
from extracurricular.knowledge.fingerprint import data_fingerprint
from extracurricular.recipe.read import parse_recipe
from extracurricular.run import lock
from extracurricular.run.cluster import Needs, check_cluster, cluster, own_modules
from extracurricular.run.execute import execute
from extracurricular.run.jobs import Job, Order
from extracurricular.run.lock import has_mark, locked, marked, stage_locked
from extracurricular.run.on_ray import _check_place, _recipe, _Setting
from extracurricular.run.plan import plan
from extracurricular.run.shared_data import received, sent, size_of
from extracurricular.run.workspace import Workspace
from tests.conftest import eye_data, image_data, pair_data, table_data
from tests.run.test_executors import Listener, weights
from tests.run.test_run import TINY, without_seconds

ray = pytest.importorskip("ray")

# A module that imports another one beside it; its sampler kills its process once.
DEADLY = """
import os, signal
from dataclasses import dataclass
from pathlib import Path
from beside_deadly import LATE
from extracurricular.samplers.base import Sampler

@dataclass(frozen=True)
class Deadly:
    child: Sampler
    marker: str
    def __call__(self, ids):
        marker = Path(self.marker)
        if int(ids.min()) > LATE and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.child(ids)
"""


def recipe(*overrides: str, **changes: Any) -> Any:
    return parse_recipe({**TINY, "seeds": [0], **changes}, list(overrides))


def deadly(marker: Path) -> Any:
    students = {**TINY["students"]}
    chain = ["empirical", {"deadly_code:Deadly": {"marker": str(marker)}}]
    students["kd"] = {**students.get("kd", {}), "sampler": chain}
    return recipe(students=students)


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of two workers, to which the code of a recipe has travelled."""
    place = tmp_path_factory.mktemp("code")
    (place / "deadly_code.py").write_text(DEADLY)
    (place / "beside_deadly.py").write_text("LATE = 200\n")
    sys.path.append(str(place))
    import deadly_code  # noqa: F401

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        workspace = Workspace(deadly(place / "marker"), place / "run")
        with cluster("ray", 2, [workspace]) as found:
            yield found
    sys.path.remove(str(place))


def test_a_cluster_changes_no_bit(joined: Any, tmp_path: Path) -> None:
    told = Listener()
    one = execute(recipe(), tmp_path / "one", jobs=1)
    two = execute(recipe(), tmp_path / "two", told, jobs=2, on="ray")
    assert without_seconds(one) == without_seconds(two)
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    files = [
        {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert files[0] == files[1]
    titles = [stage.title for stage in plan(recipe()).trained]
    assert sorted(line for line in told.lines if line.startswith("end ")) == sorted(
        f"end {title}" for title in titles
    )
    # Nothing is left to do.
    assert execute(recipe(), tmp_path / "two", jobs=2, on="ray") == two


def test_own_code_travels_with_what_it_imports_beside_it(joined: Any) -> None:
    def places() -> list[str]:
        import beside_deadly
        import deadly_code

        return [str(module.__file__) for module in (deadly_code, beside_deadly)]

    found = joined.get(joined.remote(places).remote())
    assert all("runtime_resources" in place for place in found), found


def test_a_stage_whose_worker_is_killed_goes_on_from_its_checkpoint(
    joined: Any, tmp_path: Path
) -> None:
    told = Listener()
    again = execute(deadly(tmp_path / "marker"), tmp_path / "again", told, jobs=2, on="ray")
    assert (tmp_path / "marker").exists()
    assert told.lines.count("begin kd, seed 0") == 1
    assert "kd, seed 0 goes on from its checkpoint: its worker or machine died" in told.lines
    whole = execute(deadly(tmp_path / "marker"), tmp_path / "whole")
    assert without_seconds(again) == without_seconds(whole)
    assert weights(tmp_path / "again") == weights(tmp_path / "whole")


def test_an_error_of_a_stage_is_its_sentence(joined: Any, tmp_path: Path) -> None:
    wild = recipe("defaults.training.optimizer=sgd", "defaults.training.lr=1e30")
    with pytest.raises(TrainingError, match=r"^(erm|kd|xcl), seed 0: .*loss became") as caught:
        execute(wild, tmp_path / "out", jobs=2, on="ray")
    assert "\n" not in str(caught.value)
    assert not has_mark(tmp_path / "out", "", patience=0)
    # The same folder goes on without a cluster.
    with pytest.raises(TrainingError, match="loss became"):
        execute(wild, tmp_path / "out")


def test_a_cluster_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(RecipeError, match=r"^--on: is 'dask'; it should be ray, or ray://HOST"):
        check_cluster("dask", None)
    with pytest.raises(RecipeError, match=r"^--on ray://here: is 'ray://here'; an address is"):
        check_cluster("ray://here", None)
    with pytest.raises(RecipeError, match=r"there is no cluster at 'ray://127.0.0.1:9': Conn"):
        check_cluster("ray://127.0.0.1:9", None)
    with pytest.raises(RecipeError, match=r"^--jobs: is 2, but the cluster at ray://a:1 has as"):
        check_cluster("ray://a:1", 2)
    check_cluster("ray", 2)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(RecipeError, match=r"^RAY_ADDRESS: there is no cluster at '127.0.0.1:9'"):
        check_cluster("ray", None)
    with pytest.raises(RecipeError, match=r"^--jobs: is 2"):
        check_cluster("ray", 2)


def test_what_answers_at_an_address_may_be_no_cluster() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            line, _ = server.accept()
            with line:
                line.recv(100)
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RecipeError, match="is no cluster of Ray"):
            check_cluster(f"ray://127.0.0.1:{server.getsockname()[1]}", None)
        thread.join()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(XclError, match=r"--on ray needs Ray, which the extra 'ray' installs"):
        check_cluster("ray", None)


def test_a_machine_that_does_not_see_the_folder_is_told(tmp_path: Path) -> None:
    order, host = Order(tmp_path, b"", ("students/kd/seed-0",)), socket.gethostname()
    from importlib.metadata import version

    with pytest.raises(XclError, match=f"{host} has extracurricular .*, and this one 0.0.0"):
        _check_place(order, _Setting("mark", host, "0.0.0"))
    setting = _Setting("mark", host, version("extracurricular"))
    with marked(tmp_path, "mark"):
        _check_place(order, setting)
    with (
        marked(tmp_path, "that of another run"),
        pytest.raises(StorageError, match=f"the machine {host} does not see the folder"),
    ):
        _check_place(order, setting)
    assert not list(tmp_path.iterdir())


HOLDS = """
import sys, time
from pathlib import Path
from extracurricular.run.lock import stage_locked
with stage_locked(Path(sys.argv[1]), "students/kd/seed-0") as attempt:
    print(attempt.is_last, flush=True)
    sys.stdin.read()
    print(attempt.is_last, flush=True)
"""


def test_no_stage_is_written_by_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE", 0.3)
    earlier = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert earlier.stdout is not None
    assert earlier.stdin is not None
    assert earlier.stdout.readline() == "True\n"
    said = f"an earlier attempt at 'students/kd/seed-0' is still at work .* process {earlier.pid}"
    with pytest.raises(StorageError, match=said), stage_locked(tmp_path, "students/kd/seed-0"):
        raise AssertionError
    with pytest.raises(StorageError, match=said), locked(tmp_path):  # a new run, on Ray or not
        raise AssertionError
    for is_first in (True, False):
        with stage_locked(tmp_path, "students/xcl/seed-0") as attempt:
            assert attempt.is_last
            assert attempt.is_first == is_first
    # Where locks are those of one machine, the earlier attempt sees that there is a later one.
    (tmp_path / ".tasks" / "students+kd+seed-0.lock").write_text("another")
    monkeypatch.setattr(lock, "_PATIENCE", 60.0)
    earlier.stdin.close()
    assert earlier.stdout.readline() == "False\n"
    earlier.stdout.close()
    with locked(tmp_path):
        assert not (tmp_path / ".tasks").exists()
    assert earlier.wait() == 0


def test_a_stage_asks_for_what_it_needs(tmp_path: Path) -> None:
    small = {"Alive": True, "Resources": {"CPU": 1.0, "memory": 2.0**31}}
    gone = {"Alive": False, "Resources": {"CPU": 9.0, "memory": 2.0**50}}
    fake: Any = SimpleNamespace(nodes=lambda: [small, gone])
    told = Listener()
    workspace = Workspace(recipe("device.accelerator=cpu"), tmp_path, told)
    stage = plan(workspace.recipe).students["kd", 0]
    asked = Needs(fake).of(stage, workspace)
    assert asked == {"num_cpus": 1, "num_gpus": 0, "memory": 2 * 2**28}
    assert told.lines == []
    small["Resources"] = {"CPU": 1.0, "memory": 2.0**28 + 1}
    workspace.recipe = recipe("device.accelerator=cpu", "device.threads=4")
    assert Needs(fake).of(stage, workspace) == {"num_cpus": 4, "num_gpus": 0, "memory": 2**28}
    assert told.lines == [
        "no machine of the cluster has 4 CPUs (device.threads); the run waits for one"
    ]


def test_the_device_of_a_run_is_that_of_this_machine(tmp_path: Path) -> None:
    import pickle

    workspace = Workspace(recipe("device.accelerator=auto"), tmp_path)
    found = pickle.loads(_recipe(workspace))
    assert found.device.accelerator == workspace.device.type
    assert workspace.recipe.device.accelerator == "auto"


def test_a_job_refuses_other_data_than_those_of_the_run(tmp_path: Path) -> None:
    import pickle

    workspace = Workspace(recipe(), tmp_path)
    order = Order(tmp_path, pickle.dumps(workspace.recipe), ("students/erm/seed-0",), "another")
    failed = Job(lambda *told: None, lambda spec: None).do(order)
    assert failed is not None
    assert isinstance(failed.error(), DataError)
    assert "the data that this machine finds are not those of the run" in str(failed.error())


@pytest.mark.parametrize("make", [image_data, table_data, eye_data, pair_data])
def test_data_that_are_sent_are_the_same(make: Any) -> None:
    data = make()
    found = sent("spec", data, "content")
    for part in found.parts:
        part.flags.writeable = False  # as Ray gives them
    assert data_fingerprint(received(found)) == data_fingerprint(data)
    assert sum(part.nbytes for part in found.parts) == size_of(data)


def test_installed_code_does_not_travel(tmp_path: Path) -> None:
    model = {"torch.nn:Identity": {}}
    assert own_modules([Workspace(recipe("students.kd.model=" + str(model)), tmp_path)]) == []
    assert own_modules([Workspace(recipe(), tmp_path)]) == []
