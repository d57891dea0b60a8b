"""The schedules of the learning rate in closed form, and settings that go with none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from extracurricular.distillation import distill
from extracurricular.errors import RecipeError, StorageError
from extracurricular.files import read_json, write_json
from extracurricular.models import build_model
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.settings import stored_settings, training_settings
from extracurricular.training import Schedule, Training, learning_rate
from tests.conftest import image_data

PUBLISHED: dict[str, Any] = {"schedule": "steps", "milestones": [0.625, 0.75, 0.875]}


def rates(**settings: Any) -> list[float]:
    training = Training(**settings)
    return [learning_rate(training, step) for step in range(training.steps)]


def test_the_default_is_the_cosine_of_before_to_the_last_bit() -> None:
    for steps, warmup in ((100, 0), (100, 10), (7, 3), (1, 0)):
        found = rates(steps=steps, warmup=warmup, lr=0.3)
        for step in range(warmup, steps):
            done = (step - warmup) / max(1, steps - warmup)
            assert found[step] == 0.3 * 0.5 * (1 + math.cos(math.pi * done))
        assert found == rates(steps=steps, warmup=warmup, lr=0.3, schedule="cosine")


def test_a_linear_rate_falls_by_equal_parts_to_0() -> None:
    found = rates(steps=10, lr=0.5, schedule="linear")
    assert found == pytest.approx([0.5 * (10 - step) / 10 for step in range(10)])
    warm = rates(steps=12, warmup=2, lr=0.5, schedule="linear")
    assert warm[:2] == [0.25, 0.5]
    assert warm[2:] == pytest.approx(found)
    # Steps before a capture may reach beyond the last one.
    settings = Training(steps=10, lr=0.5, schedule="linear")
    assert [learning_rate(settings, step) for step in range(10, 18)] == [0.0] * 8


def test_a_constant_rate_stays_after_the_warm_up() -> None:
    assert rates(steps=5, warmup=2, lr=0.5, schedule="constant") == [0.25, 0.5, 0.5, 0.5, 0.5]


def test_the_published_protocol_of_cifar_falls_by_ten_at_150_180_and_210_epochs() -> None:
    """Tian et al. 2020: 240 epochs."""
    per_epoch = 782
    settings = Training(steps=240 * per_epoch, lr=0.05, **PUBLISHED)
    for epoch, falls in ((0, 0), (150, 1), (180, 2), (210, 3)):
        first = epoch * per_epoch
        assert learning_rate(settings, first) == pytest.approx(0.05 * 0.1**falls, rel=1e-12)
        if epoch:
            before = learning_rate(settings, first - 1)
            assert before == pytest.approx(0.05 * 0.1 ** (falls - 1), rel=1e-12)
    assert learning_rate(settings, settings.steps - 1) == pytest.approx(0.05 * 1e-3)


def test_a_milestone_on_a_step_counts_from_that_step_on() -> None:
    for steps in (10, 30, 70, 1000):
        for tenth in range(1, 10):
            found = rates(steps=steps, lr=1.0, schedule="steps", milestones=[tenth / 10], decay=0.5)
            fall = steps * tenth // 10
            assert found == [1.0] * fall + [0.5] * (steps - fall)


def test_milestones_go_with_any_number_of_steps() -> None:
    assert rates(steps=8, lr=1.0, decay=0.5, **PUBLISHED) == [1.0] * 5 + [0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    "more", [{}, PUBLISHED, {"schedule": "linear"}, {"schedule": "constant", "warmup": 3}]
)
def test_a_schedule_on_a_device_has_the_same_rates(more: dict[str, Any]) -> None:
    settings = Training(steps=16, lr=0.3, **more)
    there, here = Schedule(settings, torch.device("cpu")), Schedule(settings, None)
    for step in range(16):
        there.advance()
        here.advance()
        assert here.rate == learning_rate(settings, step)
        assert float(there.rate) == pytest.approx(here.rate, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"schedule": "step"}, r"training.schedule: is 'step'"),
        ({"schedule": "steps"}, "schedule is 'steps', which needs milestones, parts of the"),
        ({"milestones": [0.5]}, "milestones is set, but schedule is 'cosine'; set schedule to"),
        ({"schedule": "linear", "decay": 0.2}, "decay is set, but schedule is 'linear'"),
        ({"schedule": "steps", "milestones": [150, 180]}, r"training.milestones: is \[150, 180\]; "
         "it must be a list of rising parts of the training"),
        ({"schedule": "steps", "milestones": [0.5, 0.4]}, r"is \[0.5, 0.4\]; it must be a list"),
        ({"schedule": "steps", "milestones": [0.5, 0.5]}, r"is \[0.5, 0.5\]; it must be a list"),
        ({"schedule": "steps", "milestones": [True]}, r"is \[True\]; it must be a list"),
        ({"schedule": "steps", "milestones": [float("nan")]}, r"milestones\.0: is nan; it should"),
        ({"schedule": "steps", "milestones": 0.5}, "is 0.5; it must be a list"),
        ({"schedule": "steps", "milestones": [0.5], "decay": 0.0}, r"training.decay: "),
        ({"schedule": "steps", "milestones": [0.5], "decay": 2.0}, r"training.decay: "),
    ],
)  # fmt: skip
def test_a_schedule_that_makes_no_sense_is_refused_in_one_sentence(
    given: dict[str, Any], says: str
) -> None:
    recipe = {
        "schema": 1, "name": "it", "data": "digits", "teacher": {"model": "mlp"},
        "students": {"kd": {"model": "mlp", "training": given}},
    }  # fmt: skip
    with pytest.raises(RecipeError, match=says) as caught:
        parse_recipe(recipe)
    assert "\n" not in str(caught.value)
    assert "students.kd.training" in str(caught.value)


def test_a_schedule_is_read_kept_and_read_again() -> None:
    given = {"steps": 8, "decay": 0.2, **PUBLISHED}
    settings = Training.model_validate(given)
    assert settings.milestones == (0.625, 0.75, 0.875)
    for mode in ("python", "json"):
        assert Training.model_validate(settings.model_dump(mode=mode)) == settings
    assert training_settings(settings)["milestones"] == [0.625, 0.75, 0.875]


def test_stages_from_before_schedules_have_the_settings_of_today() -> None:
    usual = training_settings(Training())
    old = {k: v for k, v in usual.items() if k not in ("schedule", "milestones", "decay")}
    found = stored_settings({"schema": 3, "settings": {"training": old}}, "it")
    assert found["training"] == usual
    assert usual != training_settings(Training(**PUBLISHED))


def test_a_student_that_was_distilled_before_schedules_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, spec = image_data(), {"digits_cnn": {"width": 2}}
    module = build_model(spec, inputs=data.shapes, outputs=4)
    distill(module, spec, data, steps=2, raw=False, out=tmp_path / "s")
    file = tmp_path / "s" / "distill.json"
    known = read_json(file)
    for key in ("schedule", "milestones", "decay"):
        del known["settings"]["training"][key]
    write_json(file, known)

    def again(*_: Any, **__: Any) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr("extracurricular.run.contest.train", again)
    distill(module, spec, data, steps=2, raw=False, out=tmp_path / "s")
    with pytest.raises(StorageError, match=r"training.schedule = 'cosine', and now it"):
        distill(
            module, spec, data, steps=2, raw=False, out=tmp_path / "s",
            training={"schedule": "linear"},
        )  # fmt: skip
