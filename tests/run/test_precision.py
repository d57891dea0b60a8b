"""What ``precision: auto`` becomes, and what the flags of float32 are meanwhile and afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from extracurricular.errors import StorageError
from extracurricular.files import read_json, write_json
from extracurricular.recipe.read import parse_recipe
from extracurricular.run import workspace as rooms
from extracurricular.run.execute import execute
from extracurricular.run.precision import (
    Hardware,
    float32_products,
    hardware,
    kept_precision,
    resolve,
    sentence,
    settled,
    teacher_dtype,
)
from extracurricular.run.workspace import Workspace
from tests.run.test_settings import arrays

CPU, GPU, OLD_GPU, MPS = Hardware("cpu"), Hardware("cuda", True), Hardware("cuda"), Hardware("mps")


class Ear:
    """A watcher that keeps the sentences."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def plan(self, steps: int, done: int) -> None: ...
    def begin(self, title: str, steps: int) -> None: ...
    def advance(self, title: str, step: int, loss: float | None) -> None: ...
    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None: ...
    def tell(self, text: str) -> None:
        self.heard.append(text)


@pytest.mark.parametrize(
    ("asked", "device", "kept", "found"),
    [
        ("auto", GPU, None, "bf16-mixed"),
        ("auto", OLD_GPU, None, "32-true"),
        ("auto", CPU, None, "32-true"),
        ("auto", MPS, None, "32-true"),
        ("auto", CPU, "bf16-mixed", "bf16-mixed"),
        ("auto", GPU, "32-true", "32-true"),
        ("16-mixed", GPU, None, "16-mixed"),
        ("32-true", GPU, "bf16-mixed", "32-true"),
    ],
)
def test_auto_looks_at_the_device_and_at_what_was_begun(
    asked: str, device: Hardware, kept: str | None, found: str
) -> None:
    assert resolve(asked, device, kept) == found
    assert f"computes in {found} on {device.kind}" in sentence(asked, device, kept)


def test_a_sentence_says_why_it_is_not_the_usual_precision() -> None:
    assert sentence("auto", GPU) == "computes in bf16-mixed on cuda (precision: auto)"
    assert sentence("32-true", GPU) == "computes in 32-true on cuda"
    assert "a new run would take bf16-mixed here" in sentence("auto", GPU, "32-true")
    assert "a new run would take 32-true here" in sentence("auto", CPU, "bf16-mixed")


def test_a_device_that_is_not_there_is_described_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware("cuda") == OLD_GPU
    assert hardware("cpu") == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert hardware("auto") == CPU


def test_a_device_that_only_emulates_bfloat16_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert hardware("auto") == OLD_GPU
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert hardware("auto") == GPU
    assert hardware("cpu") == CPU


def test_only_a_mixed_run_on_cuda_has_a_teacher_in_bfloat16() -> None:
    assert teacher_dtype("bf16-mixed", GPU) is torch.bfloat16
    for precision, device in (("bf16-mixed", CPU), ("32-true", GPU), ("16-mixed", GPU)):
        assert teacher_dtype(precision, device) is None


def test_auto_is_settled_wherever_a_precision_stands() -> None:
    planned = {"seed": 0, "precision": "auto", "upstream": [{"precision": "auto"}, {"model": "x"}]}
    found = settled(planned, "bf16-mixed", tf32=False)
    assert found == {
        "seed": 0,
        "precision": "bf16-mixed",
        "upstream": [{"precision": "bf16-mixed"}, {"model": "x"}],
    }
    assert planned["precision"] == "auto"
    assert settled({"precision": "32-true"}, "32-true", tf32=True) == {
        "precision": "32-true",
        "tf32": True,
    }
    assert settled({"seed": 0}, "32-true", tf32=True) == {"seed": 0}


# Runs


def precisions(folder: Path) -> set[str]:
    """The precisions in all stages of a run, those upstream included."""

    def visit(settings: dict[str, Any]) -> set[str]:
        own = {settings["precision"]} if "precision" in settings else set()
        return own.union(*map(visit, settings.get("upstream", [])))

    files = folder.rglob("stage.json")
    return set().union(*(visit(read_json(file)["settings"]) for file in files))


def pretend(monkeypatch: pytest.MonkeyPatch, device: Hardware) -> None:
    monkeypatch.setattr(rooms, "hardware", lambda accelerator: device)


@pytest.fixture
def auto(tmp_path: Path) -> dict[str, Any]:
    return arrays(tmp_path / "here.npz")


def begun_in(folder: Path, recipe: dict[str, Any], precision: str) -> None:
    """A run whose teacher is done in a precision, and whose student is not done."""
    execute(parse_recipe(recipe, [f"device.precision={precision}"]), folder)
    file = folder / "students/kd/seed-0/stage.json"
    write_json(file, {**read_json(file), "done": False})


def test_stages_hold_what_auto_became_and_the_recipe_holds_auto(
    tmp_path: Path, auto: dict[str, Any]
) -> None:
    ear = Ear()
    execute(parse_recipe(auto), tmp_path / "run", ear)
    assert precisions(tmp_path / "run") == {"32-true"}
    assert "precision: auto" in (tmp_path / "run/recipe.yaml").read_text()
    assert not any("computes in" in text for text in ear.heard)


@pytest.mark.parametrize(("was", "device"), [("bf16-mixed", CPU), ("32-true", GPU)])
def test_a_run_goes_on_in_the_precision_in_which_it_was_begun(
    tmp_path: Path,
    auto: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    was: str,
    device: Hardware,
) -> None:
    folder, ear = tmp_path / "run", Ear()
    begun_in(folder, auto, was)
    teacher = read_json(folder / "teacher/shared/member-0/stage.json")
    pretend(monkeypatch, device)
    workspace = Workspace(parse_recipe(auto), folder)
    assert workspace.precision == was
    # The pretended GPU computes on the CPU here.
    monkeypatch.setattr(Workspace, "device", torch.device("cpu"))
    execute(parse_recipe(auto), folder, ear)
    assert precisions(folder) == {was}
    assert read_json(folder / "teacher/shared/member-0/stage.json") == teacher
    assert read_json(folder / "students/kd/seed-0/stage.json")["done"]
    [said] = [text for text in ear.heard if "computes in" in text]
    assert f"computes in {was} on {device.kind}, as the stages that are there already" in said


def test_another_precision_is_refused_when_the_recipe_says_so(
    tmp_path: Path, auto: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    execute(parse_recipe(auto), folder)
    with pytest.raises(StorageError, match="precision = '32-true', but the recipe says 'bf16-mix"):
        execute(parse_recipe(auto, ["device.precision=bf16-mixed"]), folder)
    with pytest.raises(StorageError, match="tf32 = None, but the recipe says True"):
        execute(parse_recipe(auto, ["device.tf32=true"]), folder)


def test_what_cannot_be_read_decides_nothing(tmp_path: Path) -> None:
    assert kept_precision(tmp_path / "none") is None
    for place, text in (
        ("teacher/shared/member-0", "{"),
        ("teacher/shared/outside", '{"settings": {"seed": 0}}'),
        ("knowledge/0", "[]"),
        ("students/kd/seed-0", '{"settings": {"precision": "bf16-mixed"}}'),
    ):
        file = tmp_path / place / "stage.json"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    assert kept_precision(tmp_path) == "bf16-mixed"


# Flags of float32


def flags() -> tuple[Any, ...]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    older = [None, None]
    for place, read in enumerate(
        (torch.get_float32_matmul_precision, lambda: cudnn.allow_tf32)  # type: ignore[no-any-return]
    ):
        try:
            older[place] = read()
        except RuntimeError:
            older[place] = None
    mkldnn = torch.backends.mkldnn.matmul
    parts = (matmul, mkldnn, cudnn.conv, cudnn.rnn)
    newer = [part.fp32_precision for part in parts]
    return (*older, *newer)


@pytest.fixture
def _flags() -> Any:
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.fp32_precision = "none"
    torch.backends.cuda.matmul.fp32_precision = "none"
    torch.backends.mkldnn.matmul.fp32_precision = "none"


def ahead(kind: str) -> None:
    if kind in ("high", "medium"):
        torch.set_float32_matmul_precision(kind)
    elif kind == "conv off":
        torch.backends.cudnn.allow_tf32 = False
    elif kind == "newer":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    elif kind == "newer conv":
        torch.backends.cudnn.conv.fp32_precision = "ieee"
    elif kind == "everywhere":
        torch.backends.fp32_precision = "tf32"


@pytest.mark.usefixtures("_flags")
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize(
    "kind", ["fresh", "high", "medium", "conv off", "newer", "newer conv", "everywhere"]
)
def test_flags_are_those_of_the_recipe_inside_and_the_callers_after(kind: str, tf32: bool) -> None:
    ahead(kind)
    before = flags()
    word = "tf32" if tf32 else "ieee"
    with float32_products(tf32):
        assert flags()[1:] == (tf32, word, word, word, word)
        assert torch.backends.cuda.matmul.allow_tf32 == tf32
        # torch.compile reads this word, and fails where torch refuses to give it.
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    assert flags()[2:] == before[2:]
    # What torch refused to give is unknown, and may be given now.
    assert all(new == old or old is None for new, old in zip(flags(), before, strict=True))


@pytest.mark.usefixtures("_flags")
def test_blocks_may_overlap() -> None:
    before = flags()
    first, second = float32_products(False), float32_products(False)
    with first:
        with second:
            pass
        assert torch.backends.cudnn.allow_tf32 is False
    first, second = float32_products(False), float32_products(False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32 is False
    second.__exit__(None, None, None)
    assert flags() == before


@pytest.mark.usefixtures("_flags")
def test_a_run_computes_without_tf32_and_leaves_the_flags_alone(
    tmp_path: Path, auto: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from extracurricular.run import network

    torch.set_float32_matmul_precision("high")
    before, seen = flags(), []
    real = network.train

    def train(*arguments: Any, **settings: Any) -> Any:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return real(*arguments, **settings)

    monkeypatch.setattr(network, "train", train)
    execute(parse_recipe(auto), tmp_path / "run")
    assert set(seen) == {("highest", False)}
    seen.clear()
    execute(parse_recipe(auto, ["device.tf32=true"]), tmp_path / "other")
    assert set(seen) == {("high", True)}
    assert flags() == before
    assert read_json(tmp_path / "other/students/kd/seed-0/stage.json")["settings"]["tf32"] is True
