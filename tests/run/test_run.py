"""Runs: what they leave, that they resume, and that nothing is damaged by a mistake."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from extracurricular.errors import RecipeError, StorageError, TrainingError, XclError, during
from extracurricular.files import read_json, save_weights
from extracurricular.models import build_model
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute
from extracurricular.run.lock import locked
from extracurricular.run.plan import plan
from extracurricular.run.workspace import Workspace

STEPS = 30
TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"digits": {"train": 100, "validation": 50}},
    "seeds": [0, 1],
    "teacher": {
        "model": {"mlp": {"hidden": [16]}},
        "members": 2,
        "per_seed": True,
        "training": {"steps": STEPS, "batch_size": 16, "lr": 0.1, "checkpoint_every": 5},
    },
    "defaults": {
        "model": {"mlp": {"hidden": [4], "dropout": 0.1}},
        "training": {"steps": STEPS, "batch_size": 16, "lr": 0.1, "checkpoint_every": 5},
    },
    "students": {
        "erm": {"learns_from": "labels"},
        "kd": {"matching": {"temperature": 2.0}},
        "xcl": {"matching": {"temperature": 2.0}, "sampler": ["empirical", "mixup"]},
    },
}


def run(folder: Path, *overrides: str, **changes: Any) -> dict[str, Any]:
    return execute(parse_recipe({**TINY, **changes}, overrides), folder)


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(f.relative_to(folder)): (f.read_bytes(), f.stat().st_mtime_ns)
        for f in sorted(folder.rglob("*"))
        if f.is_file() and f.name != ".lock"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return folder, run(folder)


def test_the_summary_has_the_documented_layout(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    assert json.loads((folder / "summary.json").read_text()) == summary
    always = {"schema", "recipe", "task", "seeds", "data", "measure", "balance"}
    assert set(summary) - {"marks"} == always | {"teacher", "students"}
    rare = summary["balance"]["imbalanced"]
    assert summary["measure"] == ("balanced_error_rate" if rare else "error_rate")
    assert summary["schema"] == 1
    assert summary["task"] == "classification"
    assert summary["seeds"] == [0, 1]
    assert list(summary["students"]) == ["erm", "kd", "xcl"]
    own = {"accuracy", "nll", "brier", "ece", "adaptive_ece", "aurc"}
    own |= {"balanced_accuracy", "macro_f1", "macro_auroc", "macro_auprc"}
    for name, entry in {"teacher": summary["teacher"], **summary["students"]}.items():
        always = {"steps", "seconds", "parameters", "metrics", "gap_closed", "multiply_adds"}
        assert set(entry) - {"without"} == always | {"classes"}
        against = set() if name == "teacher" else {"kl_to_teacher", "agreement"}
        assert set(entry["metrics"]) == own | against
        for figure in entry["metrics"].values():
            assert len(figure["per_seed"]) == 2
            assert figure["mean"] == pytest.approx(np.mean(figure["per_seed"]))
            assert figure["std"] == pytest.approx(np.std(figure["per_seed"], ddof=1))
    assert summary["teacher"]["steps"] == 2 * STEPS
    assert summary["students"]["xcl"]["steps"] == STEPS
    gap = summary["students"]["xcl"]["gap_closed"]
    assert gap is None or (set(gap) == {"value", "ci95"} and len(gap["ci95"]) == 2)


def test_the_folder_has_the_documented_layout(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    names = set(snapshot(folder))
    stage = {"stage.json", "weights.safetensors", "log.jsonl"}
    measured = {"metrics.json", "answers.safetensors"}
    expected = {"recipe.yaml", "environment.json", "summary.json", "data.json", "ids.json.gz"}
    expected |= {"examples.safetensors", "draws.json", "draws.safetensors", "stage.json"}
    for seed in (0, 1):
        expected |= {f"teacher/seed-{seed}/answers.safetensors"}
        for member in (0, 1):
            expected |= {f"teacher/seed-{seed}/member-{member}/{f}" for f in stage}
        for name in ("erm", "kd", "xcl"):
            expected |= {f"students/{name}/seed-{seed}/{f}" for f in [*stage, *measured]}
    assert names == expected
    again = parse_recipe(yaml.safe_load((folder / "recipe.yaml").read_text()))
    assert again == parse_recipe(TINY)


def test_run_again_it_does_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    before = snapshot(folder)
    assert run(folder) == summary
    assert snapshot(folder) == before


def test_the_same_recipe_gives_the_same_numbers(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    assert without_seconds(run(tmp_path)) == without_seconds(finished[1])


def test_students_and_seeds_can_be_added_to_a_finished_run(tmp_path: Path) -> None:
    first = run(tmp_path, "seeds=[0]")
    files = snapshot(tmp_path / "students" / "kd")
    more = run(tmp_path, "students.more.sampler=[empirical, {noise: {std: 0.3}}]")
    assert list(more["students"]) == ["erm", "kd", "xcl", "more"]
    for name, entry in first["students"].items():
        for metric, figure in entry["metrics"].items():
            kept = more["students"][name]["metrics"][metric]["per_seed"][0]
            assert kept == figure["per_seed"][0]
    assert {k: v for k, v in snapshot(tmp_path / "students" / "kd").items() if k in files} == files


def test_all_students_of_a_seed_start_from_the_same_weights() -> None:
    workspace = Workspace(parse_recipe(TINY), Path("nowhere"))
    stages = plan(workspace.recipe).students
    models = [stages[name, 0].untrained(workspace) for name in ("erm", "kd", "xcl")]
    other = stages["kd", 1].untrained(workspace)
    for model in models[1:]:
        assert all(map(torch.equal, models[0].parameters(), model.parameters()))
    assert not all(map(torch.equal, models[0].parameters(), other.parameters()))


def test_other_settings_are_refused_and_nothing_is_touched(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = finished
    before = snapshot(folder)
    for override, where in (
        ("students.kd.matching.temperature=9.0", "matching.temperature = 2.0, .* says 9.0"),
        ("defaults.training.steps=31", "training.steps = 30, .* says 31"),
        ("data.digits.train=99", "data.digits.train = 100, .* says 99"),
        ("teacher.training.lr=0.2", "training.lr = 0.1, .* says 0.2"),
    ):
        with pytest.raises(StorageError, match=where):
            run(folder, override)
    assert snapshot(folder) == before


def test_settings_that_change_no_result_may_change(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    again = run(folder, "defaults.training.checkpoint_every=7", "evaluation.batch_size=64")
    for name, entry in summary["students"].items():
        for metric, figure in entry["metrics"].items():
            found = again["students"][name]["metrics"][metric]["mean"]
            assert found == pytest.approx(figure["mean"], rel=1e-4)
    run(folder)


@pytest.mark.parametrize(
    ("override", "key", "problem"),
    [
        ("data=digitz", "data", "unknown data set 'digitz'; did you mean 'digits'"),
        ("data.digits.train=-5", "data.digits", "train is -5; it must be at least 10"),
        ("data={arrays: {path: none.npz}}", "", "none.npz' does not exist"),
        ("teacher.model=resnet9", "teacher.model.resnet9", "depth"),
        ("teacher.model=rsnet", "teacher.model", "unknown model 'rsnet'"),
        ("students.kd.model={mlp: {hiden: [3]}}", "students.kd.model.mlp.hiden", "did you mean"),
        ("students.kd.model=gaze_lenet", "students.kd.model.gaze_lenet", "takes one image"),
        ("students.kd.matching.temperature=-1.0", "students.kd.matching", "temperature is -1"),
        ("students.kd.matching.divergence=kll", "students.kd.matching", "unknown divergence"),
        ("students.kd.matching.temp=2", "students.kd.matching.temp", "did you mean 'temperature'"),
        ("students.kd.matching.label_weight=2", "students.kd.matching", "label_weight is 2"),
        ("students.erm.matching.temperature=2.0", "students.erm.matching.temperature", "must be 1"),
        ("students.erm.matching.divergence=reverse_kl", "students.erm.matching.divergence", "inf"),
        ("students.xcl.sampler=[empirical, {augment: {pad: -1}}]", "students.xcl.sampler.1.augment",
         "pad is -1"),
        (
            "students.xcl.sampler=[{blend: {a: {weight: -1, sampler: empirical}}}]",
            "students.xcl.sampler.0.blend.a.weight",
            "is -1; it must be a number of at least 0",
        ),
        ("teacher.mc_dropout=4", "teacher.mc_dropout", "needs a network with a dropout layer"),
        ("teacher.weights=none.safetensors", "", "weights holds one network, but there are 2"),
        ("device.accelerator=cuda", "device.accelerator", "is 'cuda'"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_written(
    tmp_path: Path, override: str, key: str, problem: str
) -> None:
    if "cuda" in override and torch.cuda.is_available():
        pytest.skip("this machine has the accelerator that the recipe asks for")
    with pytest.raises(XclError) as caught:
        run(tmp_path / "out", override)
    if key:
        assert isinstance(caught.value, RecipeError)
        assert caught.value.key == key
    assert problem in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_empty_split_to_evaluate_on_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"evaluation\.split: is 'validation', but"):
        run(tmp_path, "data.digits.validation=0", "evaluation.split=validation")


def test_nan_in_the_data_is_told(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    x[17, 2] = np.nan
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(50) % 2)
    data = {"arrays": {"path": str(tmp_path / "a.npz")}}
    with pytest.raises(XclError, match=r"x\[\d+, 2\] is nan; every value must be finite"):
        run(tmp_path / "out", data=data)
    assert not (tmp_path / "out").exists()


def given_teacher(file: Path, classes: int) -> dict[str, Any]:
    torch.manual_seed(0)
    module = build_model({"mlp": {"hidden": [16]}}, inputs=(1, 8, 8), outputs=classes)
    save_weights(file, module.state_dict())
    return {"model": {"mlp": {"hidden": [16]}}, "weights": str(file)}


def test_a_teacher_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    summary = run(tmp_path / "out", teacher=given_teacher(file, 10), seeds=[0])
    assert summary["teacher"]["steps"] == 0
    assert summary["teacher"]["metrics"]["accuracy"]["mean"] < 0.5
    with pytest.raises(XclError, match="a network for 7 classes, but this one needs 10"):
        run(tmp_path / "seven", teacher=given_teacher(tmp_path / "7.safetensors", 7))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RecipeError, match=r"teacher\.weights: the file .* is damaged"):
        run(tmp_path / "damaged", teacher={**TINY["teacher"], "members": 1, "weights": str(file)})


def test_another_teacher_file_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    teacher = given_teacher(file, 10)
    run(tmp_path / "out", teacher=teacher, seeds=[0])
    module = build_model({"mlp": {"hidden": [16]}}, inputs=(1, 8, 8), outputs=10)
    save_weights(file, module.state_dict())
    with pytest.raises(StorageError, match="weights_sha256"):
        run(tmp_path / "out", teacher=teacher, seeds=[0])


def test_a_teacher_that_gives_nan_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    file = tmp_path / "huge.safetensors"
    teacher = given_teacher(file, 10)
    module = build_model({"mlp": {"hidden": [16]}}, inputs=(1, 8, 8), outputs=10)
    # Finite weights, whose answers overflow: a file that holds NaN is refused when it is read.
    state = {k: v.fill_(3e38) for k, v in module.state_dict().items()}
    next(iter(state.values())).zero_()
    save_weights(file, state)
    said = r"the teacher .*huge\.safetensors gave NaN .* for 1647 of the 1647 test examples: rows "
    with pytest.raises(TrainingError, match=said):
        run(tmp_path / "out", teacher=teacher, seeds=[0])
    assert not (tmp_path / "out").exists()


def test_heterogeneous_ensembles_and_mc_dropout(tmp_path: Path) -> None:
    base = {**TINY["teacher"], "per_seed": False, "members": 1}
    mixed = {**base, "model": [{"mlp": {"hidden": [8]}}, {"digits_cnn": {"width": 2}}]}
    summary = run(tmp_path / "mixed", teacher=mixed, seeds=[0])
    assert (tmp_path / "mixed" / "teacher" / "shared" / "member-1").is_dir()
    assert summary["teacher"]["steps"] == 2 * STEPS
    dropout = {**base, "model": {"mlp": {"hidden": [8], "dropout": 0.2}}, "mc_dropout": 4}
    run(tmp_path / "dropout", teacher=dropout, seeds=[0])


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(StorageError, match="another run is at work"):
        run(tmp_path)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StorageError, match="which is a file, not a folder"):
        run(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_damaged_weights_of_a_stage_are_named(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run(tmp_path, "seeds=[0]")
    file = tmp_path / "students" / "kd" / "seed-0" / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(StorageError, match=r"kd/seed-0/weights\.safetensors' is damaged"):
        run(tmp_path, "seeds=[0]")


def test_killed_at_random_moments_it_ends_with_the_same_numbers(tmp_path: Path) -> None:
    recipe = {
        **TINY,
        "teacher": {**TINY["teacher"], "training": {**TINY["teacher"]["training"], "steps": 1500}},
        "defaults": {
            **TINY["defaults"],
            "training": {**TINY["defaults"]["training"], "steps": 1500},
        },
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "extracurricular.cli", "run", str(tmp_path / "r.yaml")]
        return subprocess.Popen(
            [*command, "--out", str(tmp_path / out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "160"},
        )

    whole = start("whole")
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output.decode()

    moments = random.Random(0)
    kills = 0
    while kills < 3:
        process = start("killed")
        # The clock starts with the first checkpoint, as start-up takes most of the time.
        before = len(list((tmp_path / "killed").rglob("*.ckpt")))
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if len(list((tmp_path / "killed").rglob("*.ckpt"))) != before:
                break
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    last = start("killed")
    output, _ = last.communicate(timeout=300)
    assert last.returncode == 0, output.decode()
    a, b = (read_json(tmp_path / name / "summary.json") for name in ("whole", "killed"))
    assert without_seconds(a) == without_seconds(b)
    assert not list((tmp_path / "killed").rglob("*.ckpt"))


def test_an_error_tells_its_stage_unless_it_tells_its_setting() -> None:
    told = during("xcl, seed 1", TrainingError("the loss became nan"))
    assert isinstance(told, TrainingError)
    assert str(told) == "xcl, seed 1: the loss became nan"
    setting = RecipeError("students.xcl.sampler", "is empty")
    assert during("xcl, seed 1", setting) is setting
