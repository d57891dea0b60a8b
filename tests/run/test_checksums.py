"""Every file of a run that is read later has a checksum: damage is named, or made good."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import extracurricular as xcl
from extracurricular.errors import StorageError
from extracurricular.files import (
    Checkpoints,
    read_json,
    read_sealed,
    write_if_changed,
    write_json,
    write_sealed,
    write_sealed_if_changed,
)
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.recipe.schema import Recipe
from extracurricular.report.write import ReportStage, write_report
from extracurricular.run import chosen
from extracurricular.run import execute as the_execute
from extracurricular.run.environment import note_environment, trained_in
from extracurricular.run.execute import execute, prepare
from extracurricular.run.finished import open_run
from extracurricular.run.halving import Results
from extracurricular.run.plan import plan
from extracurricular.run.record import teacher_of
from extracurricular.run.workspace import Workspace
from tests.conftest import small_recipe
from tests.run.test_chosen import recipe as choosing
from tests.run.test_run import snapshot

TINY = small_recipe(
    {"digits": {"train": 60, "validation": 30}},
    {"mlp": {"hidden": [4]}},
    seeds=[0],
)


def tiny(*overrides: str) -> Recipe:
    return parse_recipe(TINY, overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    execute(tiny(), folder, last=[ReportStage()])
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def again(folder: Path) -> dict[str, Any]:
    """The same run, with all that it tells."""
    told: list[str] = []

    class Listens:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *given: told.extend(given if name == "tell" else ())

    recipe = read_recipe(str(folder / "recipe.yaml"), quiet=True)
    execute(recipe, folder, Listens(), last=[ReportStage()])
    return {"told": told, "files": snapshot(folder)}


def other_digit(file: Path, place: int = 0) -> None:
    """Change a digit of a text: the first, or the first behind a place."""
    text = file.read_text()
    at = next(k for k in range(place, len(text)) if text[k].isdigit())
    file.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])


# Sealed files


def test_any_value_of_a_sealed_file_that_changes_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    value = {"b": [1, 2.5, None, "ü"], "a": {"x": 1e-300, "y": True}}
    write_sealed(file, value)
    assert read_sealed(file) == value
    other_digit(file)
    with pytest.raises(StorageError, match=r"a\.json' is damaged: its content is not that"):
        read_sealed(file)
    write_sealed(file, value)
    content = file.read_bytes()
    for place in range(len(content)):
        for bit in (1, 16):
            damaged = bytearray(content)
            damaged[place] ^= bit
            file.write_bytes(bytes(damaged))
            found = value
            with suppress(StorageError):
                found = read_sealed(file)
            # Else it is white space, or the very name of the checksum.
            assert {k: v for k, v in found.items() if k in value} == value


def test_the_layout_of_a_sealed_file_is_free_and_one_without_a_checksum_is_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.json"
    write_sealed(file, {"a": 1, "b": (2, 3)})
    turned = dict(reversed(read_json(file).items()))
    file.write_text(json.dumps(turned))
    assert read_sealed(file) == {"a": 1, "b": [2, 3]}
    write_json(file, {"a": 2})
    assert read_sealed(file) == {"a": 2}
    write_sealed_if_changed(file, {"a": 2})
    assert "checksum" in read_json(file)
    before = file.stat().st_mtime_ns
    write_sealed_if_changed(file, {"a": 2})
    assert file.stat().st_mtime_ns == before
    file.write_text("[1]")
    with pytest.raises(StorageError, match="holds no object"):
        read_sealed(file)
    write_sealed_if_changed(file, {"a": 2})
    assert read_sealed(file) == {"a": 2}


# Checkpoints


def test_a_checkpoint_is_read_by_what_it_belongs_to_alone(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "mine").save(10, {"step": 10})
    assert Checkpoints(tmp_path, "mine").newest() == {"step": 10}
    assert Checkpoints(tmp_path, "yours").newest() is None
    assert Checkpoints(tmp_path).newest() == {"step": 10}  # whatever it belongs to
    # The newest of one's own, whatever lies above it.
    (tmp_path / "theirs").mkdir()
    Checkpoints(tmp_path / "theirs", "yours").save(20, {"step": 20})
    for file in (tmp_path / "theirs").iterdir():
        shutil.copy(file, tmp_path)
    assert Checkpoints(tmp_path, "mine").newest() == {"step": 10}
    # One of an earlier version says nothing of what it belongs to.
    Checkpoints(tmp_path / "older").save(30, {"step": 30})
    assert Checkpoints(tmp_path / "older", "mine").newest() is None


def test_a_stage_and_its_checkpoint_belong_together(tmp_path: Path) -> None:
    def bounds(*overrides: str) -> set[str]:
        recipe = tiny(*overrides)
        workspace = Workspace(recipe, tmp_path)
        return {stage.bound(workspace) for stage in plan(recipe).trained}

    own = bounds()
    assert len(own) == len(plan(tiny()).trained)
    assert own.isdisjoint(bounds("teacher.training.lr=0.02", "defaults.training.lr=0.02"))
    assert own.isdisjoint(bounds("data.digits.train=61"))
    # What changes no result changes no checkpoint.
    assert own == bounds(
        "defaults.training.checkpoint_every=7", "teacher.training.evaluate_every=3"
    )


def test_a_left_over_checkpoint_of_other_settings_is_never_taken(
    whole: Path, tmp_path: Path
) -> None:
    class Stopped(KeyboardInterrupt):
        pass

    class Stops:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: None

        def advance(self, title: str, step: int, loss: float | None) -> None:
            if title.startswith("kd") and step >= 20:
                raise Stopped

    every = "defaults.training.checkpoint_every=5"
    with pytest.raises(Stopped):
        execute(tiny(every, "defaults.training.lr=0.3"), tmp_path, Stops())
    kept = tmp_path / "students/kd/seed-0"
    assert list(kept.glob("*.ckpt"))
    for name in ("erm", "kd", "xcl"):
        (tmp_path / "students" / name / "seed-0" / "stage.json").unlink(missing_ok=True)
    execute(tiny(every), tmp_path)
    for name in ("erm", "kd", "xcl"):
        weights = f"students/{name}/seed-0/weights.safetensors"
        assert (tmp_path / weights).read_bytes() == (whole / weights).read_bytes()
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("how", ["damaged", "of another"])
def test_a_choice_is_made_again_where_its_file_is_damaged_or_of_another(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(parse_recipe(choosing(after=[0.25, 0.5])), tmp_path / "whole")
    inner, calls = chosen.train_network, [0]

    def train(*arguments: Any, **more: Any) -> Any:
        found = inner(*arguments, **more)
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(chosen, "train_network", train)
    with pytest.raises(KeyboardInterrupt):
        execute(parse_recipe(choosing(after=[0.25, 0.5])), tmp_path / "part")
    monkeypatch.setattr(chosen, "train_network", inner)
    file = tmp_path / "part/students/best/seed-0/choice.json"
    if how == "damaged":
        other_digit(file, 30)
    else:
        Results(file.with_name("theirs"), "theirs").keep(32, "kd", (0.0, 1.0))
        file.with_name("theirs").rename(file)
    execute(parse_recipe(choosing(after=[0.25, 0.5])), tmp_path / "part")
    for weights in (tmp_path / "whole").rglob("weights.safetensors"):
        other = tmp_path / "part" / weights.relative_to(tmp_path / "whole")
        assert other.read_bytes() == weights.read_bytes()


# What is damaged is named, or made good


@pytest.mark.parametrize("name", ["summary.json", "students/kd/seed-0/metrics.json"])
def test_a_changed_figure_is_never_shown_and_made_anew(run: Path, name: str) -> None:
    before = snapshot(run)
    other_digit(run / name, (run / name).read_text().index("accuracy"))
    with pytest.raises(StorageError, match=rf"{Path(name).name}' is damaged.*xcl run .* anew"):
        write_report(open_run(run))
    if name == "summary.json":
        with pytest.raises(StorageError, match=r"summary\.json' is damaged"):
            xcl.load(run)
    after = again(run)["files"]
    assert {path: kept[0] for path, kept in after.items()} == {p: k[0] for p, k in before.items()}


def test_where_a_checksum_differs_both_files_are_named(run: Path) -> None:
    record = run / "stage.json"
    kept = read_sealed(record)
    kept["files"]["summary.json"] = "0" * 64  # as that of another run has it
    write_sealed(record, kept)
    with pytest.raises(StorageError, match=r"summary\.json' is damaged.*or stage\.json beside it"):
        open_run(run)


@pytest.mark.parametrize("name", ["answers.safetensors", "weights.safetensors", "stage.json"])
def test_files_of_other_students_are_named(run: Path, name: str) -> None:
    one, other = (run / f"students/{student}/seed-0" / name for student in ("kd", "xcl"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    with pytest.raises(StorageError, match=r"is damaged|tells of other weights|not its own"):
        _ = (open_run(run).student("kd", 0), write_report(open_run(run)))


def test_stages_that_changed_their_places_are_not_those_that_were_measured(run: Path) -> None:
    (run / "students/kd").rename(run / "x")
    (run / "students/xcl").rename(run / "students/kd")
    (run / "x").rename(run / "students/xcl")
    with pytest.raises(StorageError, match=r"stage\.json' is not its own, but that of 'students/"):
        xcl.load(run)
    for name in ("kd", "xcl"):  # as versions of before left them
        record = run / f"students/{name}/seed-0/stage.json"
        write_sealed(record, {k: v for k, v in read_sealed(record).items() if k != "stage"})
    with pytest.raises(StorageError, match="tells of other weights than those of 'students/"):
        xcl.load(run)


@pytest.mark.parametrize("kind", ["digit", "byte", "gone"])
def test_a_damaged_log_is_told_of_and_its_curves_are_left_out(run: Path, kind: str) -> None:
    log = run / "students/kd/seed-0/log.jsonl"
    if kind == "digit":
        other_digit(log, 40)
    elif kind == "byte":
        log.write_bytes(b"\xff" + log.read_bytes()[1:])
    else:
        log.unlink()
    told: list[str] = []
    (run / "report.html").unlink()
    assert write_report(open_run(run), tell=told.append)
    [sentence] = told
    assert "kd/seed-0/log.jsonl' is" in sentence
    assert "its curves are left out" in (run / "report.html").read_text()
    for page in (True, False):  # a page that is there need not be made
        (run / "report.html").unlink(missing_ok=not page)
        assert any("log.jsonl' is" in line for line in again(run)["told"])


def test_a_damaged_page_is_made_anew(run: Path) -> None:
    page = run / "report.html"
    before = page.read_bytes()
    page.write_bytes(before.replace(b"kd", b"ke", 9))
    again(run)
    assert page.read_bytes() == before
    page.write_bytes(before[:-90])
    again(run)
    assert page.read_bytes() == before


def test_damaged_times_are_measured_again_and_told(run: Path) -> None:
    other_digit(run / "latency.json", 60)
    told: list[str] = []
    write_report(open_run(run), tell=told.append)
    assert [line for line in told if "latency.json' is damaged" in line]
    read_sealed(run / "latency.json")


def test_times_of_another_run_are_measured_again_and_told(run: Path) -> None:
    kept = read_sealed(run / "latency.json")
    kept["of"]["weights"] = dict.fromkeys(kept["of"]["weights"], "0" * 64)
    write_sealed(run / "latency.json", kept)
    told: list[str] = []
    write_report(open_run(run), tell=told.append)
    assert [line for line in told if "latency.json' is of other networks" in line]
    again = read_sealed(run / "latency.json")
    del again["of"]["weights"]  # as earlier versions left it
    write_sealed(run / "latency.json", again)
    write_report(open_run(run), tell=told.append)
    assert read_sealed(run / "latency.json") == again


def test_records_of_stages_that_were_exchanged_are_refused(run: Path) -> None:
    student, whole = run / "students/xcl/seed-0/stage.json", run / "stage.json"
    for one, other in [(student, whole), (student, run / "students/kd/seed-0/stage.json")]:
        contents = one.read_bytes(), other.read_bytes()
        one.write_bytes(contents[1])
        other.write_bytes(contents[0])
        for look in (lambda: write_report(open_run(run)), lambda: again(run)):
            with pytest.raises(StorageError, match=r"stage\.json' is not its own, but that of"):
                look()
        one.write_bytes(contents[0])
        other.write_bytes(contents[1])


def test_a_key_of_the_recipe_that_is_damaged_is_told_with_its_file(run: Path) -> None:
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("accumulate", "eccumulate", 1))
    with pytest.raises(StorageError, match=r"recipe\.yaml' is damaged, .*: unknown key 'ecc"):
        open_run(run)


def test_lost_data_and_records_are_told_of(run: Path) -> None:
    (run / "data.json").unlink()
    told: list[str] = []
    write_report(open_run(run), tell=told.append)
    assert [line for line in told if "data.json' is missing; without it, examples" in line]
    (run / "students/kd/seed-0/stage.json").unlink()
    said = again(run)["told"]
    assert [line for line in said if "stage.json' is missing; " in line and "made anew" in line]


def test_a_damaged_environment_is_named_and_begun_anew_where_there_is_work(run: Path) -> None:
    other_digit(run / "environment.json", 60)
    with pytest.raises(StorageError, match=r"environment\.json' is damaged.*without it"):
        write_report(open_run(run))
    told: list[str] = []
    note_environment(run, torch.device("cpu"), told.append)
    assert "environment.json' is damaged" in told[0]
    assert len(trained_in(run)) == 1


def test_draws_of_a_damaged_file_are_made_anew(run: Path) -> None:
    before = {name: (run / name).read_bytes() for name in ("draws.json", "draws.safetensors")}
    other_digit(run / "draws.json", 100)
    with pytest.raises(StorageError, match=r"draws\.json' is damaged.*xcl run. makes it anew"):
        write_report(open_run(run))
    again(run)
    assert {name: (run / name).read_bytes() for name in before} == before


def test_a_changed_description_of_the_data_is_named(run: Path) -> None:
    other_digit(run / "data.json", 300)
    with pytest.raises(StorageError, match=r"data\.json' is damaged"):
        xcl.load(run)
    (run / "data.json").unlink()
    again(run)
    assert xcl.load(run).parameters > 0


def test_a_stage_whose_record_is_damaged_is_named_and_made_anew_without_it(run: Path) -> None:
    before = snapshot(run)
    record = run / "students/kd/seed-0/stage.json"
    other_digit(record, record.read_text().index('"seconds"'))
    with pytest.raises(StorageError, match=r"stage\.json' is damaged.*without it, `xcl run` makes"):
        again(run)
    record.unlink()
    after = again(run)["files"]
    for path in before:
        if path.endswith(("weights.safetensors", "metrics.json")):
            assert after[path][0] == before[path][0], path


def test_settings_are_compared_under_the_lock_before_a_teacher_is_made_for_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run trains the teacher between the check and the lock."""
    inner = the_execute.locked

    def slow(folder: Path) -> Any:
        monkeypatch.setattr(the_execute, "locked", inner)
        workspace = Workspace(tiny("teacher.training.lr=0.3"), folder)
        prepare(plan(workspace.recipe).teachers[0].stages, workspace)
        return inner(folder)

    monkeypatch.setattr(the_execute, "locked", slow)
    with pytest.raises(StorageError, match=r"training\.lr = 0\.3, but the recipe says 0\.01"):
        teacher_of(Workspace(tiny(), tmp_path))


def test_nothing_is_written_where_nothing_is_damaged(run: Path) -> None:
    before = snapshot(run)
    assert again(run)["files"] == before
    assert write_if_changed(run / "report.html", (run / "report.html").read_bytes())
    assert snapshot(run) == before
