"""A temperature that follows a course: each step has its own, captured or not, resumed or not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.distributions import Categorical, Gaussian, Task
from extracurricular.errors import RecipeError, StorageError
from extracurricular.files import read_json
from extracurricular.inputs import static_shapes
from extracurricular.matching import Matching, build_matching, describe
from extracurricular.matching.course import Course
from extracurricular.models import build_model
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute
from extracurricular.samplers import Empirical, Mixup
from extracurricular.training import Execution, Schedule, Training, launch, train
from extracurricular.training import steps as the_steps
from extracurricular.training.optimizer import Temperature
from tests.conftest import image_data, small_teacher, table_data
from tests.run.test_run import TINY
from tests.test_law_8 import Obey
from tests.training.tape import TapeGraph

IMAGES = image_data()
CPU = torch.device("cpu")
FALLING = Course("linear", 8.0, 1.0)


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(1)
    spec = {"mlp": {"hidden": [8], "dropout": dropout}}
    return build_model(spec, inputs=IMAGES.shapes, outputs=IMAGES.task.outputs)


def trained(
    matching: Matching, capture: str = "off", steps: int = 50, **more: Any
) -> tuple[dict[str, Tensor], list[float]]:
    student = network(0.2)
    lines: list[dict[str, Any]] = []
    train(
        student, Mixup(Empirical(IMAGES)), small_teacher(IMAGES), IMAGES.task, matching=matching,
        settings=Training(steps=steps, batch_size=6, lr=0.05, ema=0.9, checkpoint_every=7),
        execution=Execution(capture=capture), on_log=lines.append, **more,
    )  # fmt: skip
    return student.state_dict(), [line["loss"] for line in lines]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


# The loss


@pytest.mark.parametrize("t", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "js", "wasserstein", "energy"])
@pytest.mark.parametrize("kind", [Categorical, Gaussian])
def test_the_loss_at_a_step_is_that_of_its_temperature(
    kind: Any, divergence: str, t: float
) -> None:
    mine, theirs = (kind.from_output(torch.randn(6, 4)) for _ in range(2))
    expected = Matching(divergence, t)(mine, theirs)
    found = Matching(divergence, FALLING)(mine, theirs, temperature=torch.tensor(t))
    assert torch.allclose(found, expected, rtol=1e-5)


def test_a_loss_that_moves_needs_the_temperature_of_the_step() -> None:
    one = Categorical(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"temperature is \{'linear': \[8.0, 1.0\]\}; give the"):
        Matching(temperature=FALLING)(one, one)


def test_a_course_is_read_and_described_as_a_recipe_writes_it() -> None:
    spec = {"temperature": {"cosine": [8, 1]}}
    found = build_matching(spec, "matching")
    assert found == Matching(temperature=Course("cosine", 8.0, 1.0))
    assert found == Matching(temperature={"cosine": [8, 1]})  # type: ignore[arg-type]
    assert describe(found)["temperature"] == {"cosine": [8.0, 1.0]}
    assert build_matching({"temperature": describe(found)["temperature"]}, "") == found
    assert found.last_temperature == 1.0
    assert Matching(temperature=4.0).last_temperature == 4.0
    finish = {"finish": {"value": 4.0, "then": 1.0, "at": 0.8}}
    assert describe(build_matching({"temperature": finish}, ""))["temperature"] == finish


@pytest.mark.parametrize(
    ("spec", "key", "said"),
    [
        ("hot", "matching.temperature", "is 'hot'; it must be a number, {linear: [FIRST, LAST]}"),
        ({"linear": [4]}, "matching.temperature", "has linear: [4]; it must be [FIRST, LAST]"),
        ({"linear": [4, "x"]}, "matching.temperature", "has 'x'; it must be a number"),
        ({"linear": [4, 0]}, "matching",
         "temperature is {'linear': [4.0, 0.0]}; it must be finite and greater than 0"),
        (0, "matching", "temperature is 0.0; it must be finite and greater than 0"),
    ],
)  # fmt: skip
def test_a_wrong_temperature_is_one_clear_sentence(spec: Any, key: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_matching({"temperature": spec}, "matching")
    assert caught.value.key == key
    assert caught.value.problem.startswith(said)


# The steps


def test_the_temperature_of_each_step_is_found_on_the_device() -> None:
    course = Course("cosine", 6.0, 2.0)
    temperature = Temperature(course, 50, CPU)
    now = temperature.now
    for start in (0, 23):
        temperature.seek(start)
        for step in range(start, 50):
            with Obey():
                temperature.advance()
            assert temperature.now is now
            wanted = 2 + 4 * (0.5 + 0.5 * math.cos(math.pi * step / 49))
            assert float(now) == pytest.approx(wanted, rel=1e-6)
    still = Temperature(4.0, 50, CPU)
    still.seek(7)
    still.advance()
    assert still.now == 4.0


class Noted(Matching):
    """A loss that notes its temperatures."""

    seen: list[float]

    def __call__(self, *arguments: Any, **more: Any) -> Tensor:
        self.seen.append(float(arguments[4]))
        return super().__call__(*arguments, **more)


def test_a_training_has_the_temperatures_of_the_course(tmp_path: Path) -> None:
    loss = Noted(temperature=FALLING)
    object.__setattr__(loss, "seen", [])
    whole = trained(loss)
    assert loss.seen == pytest.approx([8 - 7 * k / 49 for k in range(50)], rel=1e-6)
    # An interrupted training goes on at the temperature of its step, to the same bits.
    object.__setattr__(loss, "seen", [])
    trained(loss, folder=tmp_path, stop=21)
    found = trained(loss, folder=tmp_path)
    assert loss.seen == pytest.approx([8 - 7 * k / 49 for k in range(50)], rel=1e-6)
    assert equal(found[0], whole[0])


def test_a_course_that_stays_is_a_constant() -> None:
    still, constant = (
        trained(Matching(temperature=t))[0] for t in (Course("finish", 4.0, 4.0), 4.0)
    )
    for name, value in constant.items():
        assert torch.allclose(still[name], value, rtol=1e-4, atol=1e-6)
    assert not equal(trained(Matching(temperature=FALLING))[0], constant)


@pytest.fixture
def on_a_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(the_steps, "Schedule", lambda settings, device: Schedule(settings, CPU))
    monkeypatch.setattr(launch, "has_graphs", lambda device: True)
    monkeypatch.setattr(launch, "new_graph", TapeGraph)
    with static_shapes():
        yield


@pytest.mark.parametrize("divergence", ["forward_kl", "js", "wasserstein"])
def test_captured_steps_have_the_temperatures_of_eager_ones(
    divergence: str, on_a_device: None, tmp_path: Path
) -> None:
    matching = Matching(divergence, FALLING)
    eager = trained(matching)
    before = TapeGraph.replays
    captured = trained(matching, "auto")
    assert TapeGraph.replays > before
    assert eager[1] == captured[1]
    assert equal(eager[0], captured[0])
    trained(matching, "auto", folder=tmp_path, stop=19)
    assert equal(trained(matching, "auto", folder=tmp_path)[0], eager[0])


def test_a_moving_temperature_asks_nothing() -> None:
    for kind, task in ((Categorical, IMAGES.task), (Gaussian, table_data().task)):
        assert isinstance(task, Task)
        output = torch.randn(6, 4, requires_grad=True)
        t = Temperature(FALLING, 10, CPU)
        mine, theirs = kind.from_output(output), kind.from_output(torch.randn(6, 4))
        with Obey():
            t.advance()
            Matching(temperature=FALLING)(mine, theirs, temperature=t.now).backward()
        assert output.grad is not None


# Runs


def test_a_run_keeps_the_course_in_its_stages(tmp_path: Path) -> None:
    recipe = {**TINY, "seeds": [0], "students": {
        "kd": {"matching": {"temperature": {"finish": {"value": 4, "then": 1}}}},
        "xcl": {"matching": {"temperature": {"linear": [4, 2]}}, "mastery": {"held_out": 0.1}},
    }}  # fmt: skip
    summary = execute(parse_recipe(recipe), tmp_path)
    kept = read_json(tmp_path / "students/kd/seed-0/stage.json")["settings"]["matching"]
    assert kept["temperature"] == {"finish": {"value": 4.0, "then": 1.0, "at": 0.8}}
    assert execute(parse_recipe(recipe), tmp_path) == summary
    with pytest.raises(StorageError, match=r"matching.temperature"):
        execute(parse_recipe(recipe, ["students.kd.matching.temperature=2.0"]), tmp_path)


def test_labels_have_no_temperature(tmp_path: Path) -> None:
    recipe = {**TINY, "students": {
        "erm": {"learns_from": "labels", "matching": {"temperature": {"linear": [1, 2]}}}
    }}  # fmt: skip
    with pytest.raises(RecipeError) as caught:
        execute(parse_recipe(recipe), tmp_path)
    assert caught.value.key == "students.erm.matching.temperature"
    assert caught.value.problem == (
        "is {'linear': [1.0, 2.0]}; labels have no temperature, so it must be 1"
    )
