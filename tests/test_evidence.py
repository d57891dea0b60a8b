"""Evidence that accumulates: interrupted by the clock, continued, kept small, and shown."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import extracurricular as xcl
from extracurricular.errors import StorageError
from extracurricular.files import Checkpoints, read_json, save_weights, write_json
from extracurricular.models import build_model
from extracurricular.predictors import released

ROOT = Path(__file__).parents[1]
PAIR = "resnet56-resnet20"
# Networks of a few thousand parameters, and enough steps for mastery to be measured once.
SMALL = [
    "data.cifar100.train=100", "data.cifar100.validation=60", "data.cache=false",
    "teacher.model=resnet8", "defaults.model=resnet8",
    "teacher.training.steps=6", "defaults.training.steps=64",
    "teacher.training.batch_size=4", "defaults.training.batch_size=4",
]  # fmt: skip

Run = Callable[..., int]


@pytest.fixture(scope="module")
def module() -> Iterator[Callable[[str], Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for part, number in (("train", 200), ("test", 100)):
        rows = rng.integers(0, 256, (number, 2 + 3072)).astype(np.uint8)
        rows[:, 1] = np.arange(number) % 100
        rows[:, 0] %= 20
        (folder / f"{part}.bin").write_bytes(rows.tobytes())
    return folder


@pytest.fixture(scope="module")
def run(module: Callable[[str], Any], images: Path) -> Run:
    def go(folder: Path, steps: int | None = None, size: str = "tiny", *more: str) -> int:
        """Go on with the list, for so many steps."""
        asked = count(1)
        script = module("evidence")
        changes = [word for change in SMALL for word in ("--set", change)]
        arguments = ["--out", str(folder / "out"), "--evidence", str(folder / "evidence")]
        arguments += ["--data", str(images), "--device", "cpu", "--size", size, "--pairs", PAIR]
        up = (lambda: False) if steps is None else (lambda: next(asked) >= steps)
        return int(script.main([*arguments, *changes, *more], up))

    return go


@pytest.fixture(scope="module")
def finished(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the list is done, for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(folder) == 0
    return folder


def figures(folder: Path) -> dict[str, Any]:
    return {file.stem: read_json(file) for file in (folder / "evidence").glob("*.json")}


def test_trainings_that_the_clock_interrupts_end_with_the_figures_of_whole_ones(
    run: Run, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = figures(finished)
    kinds = [re.sub("-seed-0-[0-9a-f]{8}$", "", name) for name in sorted(whole)]
    assert kinds == ["teacher-resnet8-6-steps", f"tiny-{PAIR}-kd", f"tiny-{PAIR}-xcl"]
    parts, times = tmp_path / "parts", 0
    while len(figures(parts)) < 3:
        capsys.readouterr()
        assert run(parts, steps=25) == 0
        times += 1
        assert times < 12
    assert times >= 6
    for name, one in whole.items():
        other = figures(parts)[name]
        for key in ("figures", "kl_on_training_draws", "settings", "teacher", "mastery"):
            assert other.get(key) == one.get(key), (name, key)
    weights = [
        (folder / "evidence/students/cifar100-resnet8/weights.safetensors").read_bytes()
        for folder in (finished, parts)
    ]
    assert weights[0] == weights[1]
    # What is finished leaves only the teacher behind, and is not trained again.
    assert [path.name for path in (parts / "out").iterdir()] == [
        "teacher-resnet8-6-steps.safetensors"
    ]
    capsys.readouterr()
    assert run(parts, steps=1) == 0
    assert "accuracy" not in capsys.readouterr().out


def test_figures_say_where_they_come_from(finished: Path, images: Path) -> None:
    [kd] = [one for name, one in figures(finished).items() if "-kd-" in name]
    [xcl_] = [one for name, one in figures(finished).items() if "-xcl-" in name]
    assert kd["student"] == "kd"
    assert kd["last_epoch"] == 64 * 4 / 100
    assert {"accuracy", "nll", "ece", "kl_to_teacher"} <= set(kd["figures"])
    assert kd["trained"][0]["torch"] == torch.__version__
    assert kd["teacher"]["source"] == "trained here"
    assert kd["mastery"] is None
    assert set(xcl_["mastery"]) == {"drawn", "held_out", "mastery", "se", "share"}
    # No path of the machine is in them.
    text = json.dumps(figures(finished))
    assert str(finished) not in text
    assert str(images) not in text


def test_a_given_teacher_is_not_trained(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = build_model("resnet14", inputs=(3, 32, 32), outputs=100)
    teacher = build_model("resnet8", inputs=(3, 32, 32), outputs=100)
    for name, network in (("other", other), ("teacher", teacher)):
        save_weights(tmp_path / f"{name}.safetensors", network.state_dict())
    given = [w for n in ("other", "teacher") for w in ("--teacher", f"{tmp_path / n}.safetensors")]
    run(tmp_path, None, "tiny", *given)
    assert not (tmp_path / "out" / "teacher-resnet8-6-steps.safetensors").exists()
    assert len(figures(tmp_path)) == 2
    assert all(one["teacher"]["source"] == "given" for one in figures(tmp_path).values())


def test_figures_of_other_settings_are_not_overwritten(
    run: Run, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = figures(finished)
    assert run(finished, None, "tiny", "--set", "defaults.training.lr=0.5") == 1
    assert "has figures of other settings" in capsys.readouterr().err
    assert figures(finished) == before


def test_a_training_goes_on_in_the_precision_in_which_it_was_begun(
    run: Run, tmp_path: Path
) -> None:
    run(tmp_path, 30, "tiny", "--set", "device.precision=bf16-mixed")
    run(tmp_path)
    found = {name.split("-")[3]: one["precision"] for name, one in figures(tmp_path).items()}
    assert found == {"steps": "bf16-mixed", "kd": "bf16-mixed", "xcl": "32-true"}


# Limits


def checkpoint(folder: Path, values: int, touched: float, step: int = 3) -> dict[str, Any]:
    """An unfinished training with a checkpoint of about 8 bytes a value."""
    torch.manual_seed(int(touched))
    state = {
        "step": step,
        "seconds": 1.5,
        "model": {"w": torch.randn(values), "n": torch.tensor(4)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.randn(values) * 1e-9}}},
    }
    Checkpoints(folder).save(step, state)
    write_json(folder / "job.json", {"settings": {}, "rounded": 0, "touched": touched})
    return state


def test_a_checkpoint_that_is_too_large_is_rounded_or_dropped(
    module: Callable[[str], Any], tmp_path: Path
) -> None:
    said: list[str] = []
    small = checkpoint(tmp_path / "small", 1000, 1)
    state = checkpoint(tmp_path / "large", 2000, 2)
    checkpoint(tmp_path / "huge", 10_000, 3)
    (tmp_path / "teacher-huge.safetensors").write_bytes(bytes(13_000))
    module("evidence_folder").trim(tmp_path, said.append, each=13_000, total=10**6)
    assert {path.name for path in tmp_path.iterdir()} == {"small", "large"}
    kept = Checkpoints(tmp_path / "large").newest()
    assert kept is not None
    assert kept["step"] == 3
    assert int(kept["model"]["n"]) == 4
    torch.testing.assert_close(
        kept["model"]["w"].float(), state["model"]["w"], rtol=1e-3, atol=1e-4
    )
    # Small momenta are not lost.
    momentum, was = (s["optimizer"]["state"][0]["momentum_buffer"] for s in (kept, state))
    torch.testing.assert_close(momentum.float(), was, rtol=1e-2, atol=0)
    assert read_json(tmp_path / "large" / "job.json")["rounded"] == 1
    untouched = Checkpoints(tmp_path / "small").newest()
    assert untouched is not None
    assert torch.equal(untouched["model"]["w"], small["model"]["w"])
    assert len(said) == 4
    assert any("huge: its checkpoint of" in text and "in one go" in text for text in said)
    assert any("teacher-huge: its 0.0 MB" in text and "--teacher" in text for text in said)


def test_all_files_together_stay_below_the_limit_and_the_oldest_goes_first(
    module: Callable[[str], Any], tmp_path: Path
) -> None:
    folder = module("evidence_folder")
    for name, touched in (("new", 30.0), ("old", 10.0), ("middle", 20.0)):
        checkpoint(tmp_path / name, 1000, touched)
    (tmp_path / "teacher.safetensors").write_bytes(bytes(9000))
    said: list[str] = []
    folder.trim(tmp_path, said.append, each=16_000, total=30_000)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle", "teacher.safetensors"}
    folder.trim(tmp_path, said.append, each=16_000, total=10_000)
    assert {path.name for path in tmp_path.iterdir()} == {"teacher.safetensors"}
    folder.trim(tmp_path, said.append, each=16_000, total=8_000)
    assert list(tmp_path.iterdir()) == []
    assert [text.split(":")[0] for text in said] == ["old", "middle", "new", "teacher"]
    assert (folder.EACH, folder.ALL) == (16_000_000, 40_000_000)


def test_a_rounded_training_goes_on(
    run: Run, module: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = module("evidence_folder")
    # A checkpoint of resnet8 takes about 0.7 MB, and half of that when it is rounded.
    monkeypatch.setattr(folder.trim, "__defaults__", (500_000, 10**8))
    run(tmp_path, steps=30)
    [job] = (tmp_path / "out").glob("*/job.json")
    assert read_json(job)["rounded"] >= 1
    run(tmp_path)
    assert max(one["rounded_checkpoints"] for one in figures(tmp_path).values()) == 1


# Released students


def test_a_released_student_is_loaded_by_its_name(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(finished / "evidence" / "students", tmp_path / "students"))
    monkeypatch.setattr(released, "PLACES", (tmp_path / "nowhere", place))
    monkeypatch.chdir(tmp_path)
    student = xcl.load("cifar100-resnet8")
    assert len(student.classes) == 100
    assert student.classes[0] == "apple"
    weights = place / "cifar100-resnet8" / "weights.safetensors"
    assert weights.stat().st_size < 2.2 * student.parameters + 20_000
    x = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32)).astype(np.uint8)
    assert student(x).probs.shape == (3, 100)
    # The better of both students by the KL from the teacher on draws, not on test images.
    note = read_json(place / "cifar100-resnet8" / "evidence.json")
    kl = {k: v["kl_on_training_draws"] for k, v in figures(finished).items() if v["teacher"]}
    assert note["figures_of"] == min(kl, key=lambda name: kl[name])
    with pytest.raises(StorageError, match=r"no released student 'other'; there are cifar100-res"):
        xcl.load("other")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(StorageError, match="checksum"):
        xcl.load("cifar100-resnet8")


def test_there_may_be_no_released_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released, "PLACES", (tmp_path,))
    monkeypatch.chdir(tmp_path)
    says = "there is no run and no file 'it', and no released student 'it'; there is none yet"
    with pytest.raises(StorageError, match=re.escape(says)):
        xcl.load("it")
    with pytest.raises(StorageError, match=r"no file 'it.onnx'$"):
        xcl.load("it.onnx")


def test_what_is_released_is_small_and_loads() -> None:
    for name, folder in released.released().items():
        assert (folder / "weights.safetensors").stat().st_size < 4_000_000
        assert len(xcl.load(name).classes) == 100


# Tables


def test_a_table_holds_the_students_of_one_teacher_alone(
    finished: Path, module: Callable[[str], Any], tmp_path: Path
) -> None:
    table = module("evidence_table")
    assert "not measured" in table.tables(tmp_path / "evidence")
    for name, one in figures(finished).items():
        write_json(tmp_path / "evidence" / f"{name}.json", one)
        if one["teacher"] is not None:
            other = one | {"teacher": one["teacher"] | {"sha256": "another", "accuracy": 0.7}}
            write_json(tmp_path / "evidence" / f"{name}-other.json", other)
    text = table.tables(tmp_path / "evidence")
    assert text.count("students of a `resnet8` with 70.00 % (trained here)") == 1
    assert text.count("Budget `tiny`, students of a `resnet8`") == 2
    assert text.count(f"| {PAIR} | `kd` | 0 |") == text.count(f"| {PAIR} | `xcl` | 0 |") == 2
    assert table.filled(f"a\n{table.BEGIN}old\n{table.END}b\n", text) == (
        f"a\n{table.BEGIN}{text}{table.END}b\n"
    )


def test_the_page_has_the_tables_of_the_figures(module: Callable[[str], Any]) -> None:
    table = module("evidence_table")
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.filled(page, table.tables()) == page, "run benchmarks/evidence_table.py --write"


def test_the_clock_leaves_time_for_what_is_no_step(module: Callable[[str], Any]) -> None:
    script = module("evidence")
    now = script.time.monotonic()
    assert not script.clock(9, now)()
    assert script.clock(9, now - 9 * 60 * 0.96)()
    assert script.clock(0, now)()
