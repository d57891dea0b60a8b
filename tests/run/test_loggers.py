"""Curves for TensorBoard and others."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from extracurricular.errors import RecipeError
from extracurricular.files import read_lines
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute
from extracurricular.run.loggers import Curves, check_loggers
from tests.conftest import small_recipe

DIGITS = {"digits": {"train": 60, "validation": 30}}


def recipe(**changes: Any) -> dict[str, Any]:
    students = {"kd": {}}
    model = {"mlp": {"hidden": [4]}}
    return small_recipe(DIGITS, model, seeds=[0], students=students, **changes)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


class Kept:
    """A logger of one's own; what it was told is kept in a class attribute."""

    seen: list[tuple[str, Any]] = []  # noqa: RUF012

    def __init__(self, save_dir: str, fails_at: int = 10**9) -> None:
        self.fails_at = fails_at
        self.seen.append(("open", save_dir))

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.seen.append(("settings", params))

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if step >= self.fails_at:
            raise ConnectionError("the line is dead")
        self.seen.append(("metrics", (step, metrics)))

    def finalize(self, status: str) -> None:
        self.seen.append(("end", status))


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Kept.seen.clear()


def test_tensorboard_shows_what_the_log_says(tmp_path: Path) -> None:
    execute(parse_recipe(recipe(log="tensorboard")), tmp_path)
    stage = tmp_path / "students" / "kd" / "seed-0"
    lines = read_lines(stage / "log.jsonl")
    shown = scalars(stage / "tensorboard")
    assert [step for step, _ in shown["loss"]] == [line["step"] for line in lines]
    assert [v for _, v in shown["loss"]] == pytest.approx([e["loss"] for e in lines], rel=1e-6)
    last = lines[-1]["evaluation"]
    assert {k for k in shown if k.startswith("evaluation/")} == {f"evaluation/{k}" for k in last}
    [(step, nll)] = shown["evaluation/nll"]
    assert (step, nll) == (30, pytest.approx(last["nll"], rel=1e-6))
    assert len(list(tmp_path.glob("teacher/**/tensorboard"))) == 2


def test_a_resumed_training_shows_no_step_twice(tmp_path: Path) -> None:
    for steps in ([1, 2, 3, 4], [3, 4, 5]):  # interrupted after 4, resumed from the state after 2
        curves = Curves("tensorboard", tmp_path, "kd", "run", {})
        for step in steps:
            curves({"step": step, "loss": float(10 * len(steps) + step)})
        curves.close("success")
    assert scalars(tmp_path / "tensorboard")["loss"] == [
        (1, 41),
        (2, 42),
        (3, 33),
        (4, 34),
        (5, 35),
    ]


def test_any_class_with_the_methods_of_a_lightning_logger(tmp_path: Path) -> None:
    log = [{f"{__name__}:Kept": {}}]
    summary = execute(parse_recipe(recipe(log=log)), tmp_path / "a")
    assert [what for what, _ in Kept.seen].count("end") == 3  # two of the teacher, one student
    opened, settings, *metrics, end = Kept.seen[-33:]
    assert opened == ("open", str(tmp_path / "a" / "students" / "kd" / "seed-0"))
    assert settings[1]["settings"]["model"] == {"mlp": {"hidden": [4]}}
    assert [step for _, (step, _) in metrics] == list(range(1, 31))
    assert set(metrics[0][1][1]) == {"loss", "lr", "seconds", "examples_per_second"}
    assert end == ("end", "success")
    plain = execute(parse_recipe(recipe()), tmp_path / "b")
    assert plain["students"]["kd"]["metrics"] == summary["students"]["kd"]["metrics"]


def test_a_logger_that_fails_costs_its_curves_alone(tmp_path: Path) -> None:
    told: list[str] = []
    watcher = SimpleNamespace(
        plan=lambda *_: None, begin=lambda *_: None, advance=lambda *_: None,
        end=lambda *_: None, tell=told.append,
    )  # fmt: skip
    log = {f"{__name__}:Kept": {"fails_at": 5}}
    execute(parse_recipe(recipe(log=log)), tmp_path, watcher)
    said = f"kd, seed 0: {__name__}:Kept gets no more figures: the line is dead"
    assert said in told
    assert ("end", "success") not in Kept.seen


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Stood:
        config = SimpleNamespace(update=lambda params: seen.append(("settings", params)))

        def log(self, metrics: dict[str, float], step: int) -> None:
            seen.append((step, metrics))

        def finish(self, exit_code: int) -> None:
            seen.append(("finish", exit_code))

    def init(**given: Any) -> Stood:
        seen.append(("init", given))
        return Stood()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    log = {"wandb": {"project": "mine", "mode": "offline"}}
    check_loggers(log)
    curves = Curves(log, tmp_path, "kd, seed 0", "runs/a", {"steps": 3})
    curves({"step": 1, "loss": 2.0, "evaluation": {"nll": 0.5}})
    curves.close("failed")
    assert seen == [
        ("init", {"project": "mine", "entity": None, "mode": "offline", "group": "runs/a",
                  "name": "kd, seed 0", "dir": str(tmp_path)}),
        ("settings", {"steps": 3}),
        (1, {"loss": 2.0, "evaluation/nll": 0.5}),
        ("finish", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("tensorbord", "log: unknown logger 'tensorbord'; did you mean 'tensorboard'"),
        ({"tensorboard": {"dir": "x"}}, "log.tensorboard.dir: unknown key 'dir'"),
        (["tensorboard", 3], "log.1: is 3; a logger is given as NAME or as"),
        ("no_such_package:Logger", "log: cannot import the logger 'no_such_package:Logger'"),
        ({f"{__name__}:Kept": {"fails_at": "x"}}, "fails_at: is 'x'; it should be a valid integer"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(tmp_path: Path, log: Any, says: str) -> None:
    folder = tmp_path / "run"
    with pytest.raises(RecipeError) as error:
        execute(parse_recipe(recipe(log=log)), folder)
    assert says in str(error.value)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}[name]
    monkeypatch.setitem(sys.modules, module, None)
    says = rf"log: {name} is missing, which the extra '{name}' installs"
    with pytest.raises(RecipeError, match=says):
        check_loggers(name)
