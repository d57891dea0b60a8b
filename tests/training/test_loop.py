"""The one loop: schedule, optimiser, resuming, and what stops it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.distributions import Categorical, Distribution, Gaussian
from extracurricular.errors import RecipeError, TrainingError
from extracurricular.files import Checkpoints, JsonLines, read_lines
from extracurricular.matching import Matching
from extracurricular.models import build_model
from extracurricular.samplers import Batch, Empirical, Mixup, build_sampler
from extracurricular.teachers import Ensemble, Labels, Network
from extracurricular.training import (
    Training,
    TrainingResult,
    draw_steps,
    learning_rate,
    make_optimizer,
    train,
)
from tests.conftest import eye_data, image_data, table_data

IMAGES = image_data()


def network(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(
        {"digits_cnn": {"width": 2, "depth": 1, "dropout": dropout}},
        inputs=IMAGES.shapes,
        outputs=4,
    )


def test_learning_rate_rises_then_falls() -> None:
    settings = Training(steps=100, warmup=10, lr=0.5)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[9] == rates[10] == pytest.approx(0.5)
    assert rates[55] == pytest.approx(0.25)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[99] < 0.001


def test_weight_decay_is_for_weights_alone() -> None:
    groups = make_optimizer(network(), Training(weight_decay=0.1), fused=False).param_groups
    for group in groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] == 0.1) for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(network().parameters()))


def test_a_student_without_parameters_is_refused() -> None:
    with pytest.raises(TrainingError, match="no trainable parameters"):
        train(nn.Flatten(), Empirical(IMAGES), Labels(), IMAGES.task)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("data", [table_data(), eye_data(), image_data()])
def test_training_learns(optimizer: str, data: object) -> None:
    from extracurricular.data.base import Data

    assert isinstance(data, Data)
    torch.manual_seed(0)
    student = build_model("mlp", inputs=data.shapes, outputs=data.task.outputs)
    settings = Training(
        steps=200, batch_size=32, optimizer=optimizer, lr=0.01, weight_decay=0.0, warmup=10,
        clip_norm=5.0,
    )  # fmt: skip

    def loss() -> float:
        batch = Empirical(data)(torch.arange(len(data.train)))
        with torch.no_grad():
            prediction = data.task.distribution(student(batch.x))
        return float(Matching()(prediction, Labels()(batch)))

    before = loss()
    result = train(student, Empirical(data), Labels(), data.task, settings=settings)
    assert result.steps == 200
    assert loss() < before - 0.5
    assert not student.training


def run(
    folder: Path | None,
    steps: int = 40,
    dropout: float = 0.3,
    stop: int | None = None,
    **more: object,
) -> tuple[nn.Module, TrainingResult | None]:
    settings = Training(steps=steps, batch_size=8, lr=0.05, checkpoint_every=7, **more)
    teacher = Ensemble([Network(network(5), IMAGES.task), Network(network(6), IMAGES.task)])
    student = network(0, dropout)

    def progress(step: int, _: float) -> None:
        if stop is not None and step >= stop:
            raise KeyboardInterrupt

    try:
        result = train(
            student,
            Mixup(Empirical(IMAGES)),
            teacher,
            IMAGES.task,
            settings=settings,
            folder=folder,
            on_progress=progress,
        )
    except KeyboardInterrupt:
        return student, None
    return student, result


@pytest.mark.parametrize("more", [{}, {"ema": 0.9}, {"optimizer": "adamw"}, {"clip_norm": 0.1}])
def test_an_interrupted_training_ends_with_the_same_bits(
    tmp_path: Path, more: dict[str, object]
) -> None:
    """Batch norm, dropout, momentum, averages: all are a function of the step and the states."""
    whole, _ = run(tmp_path / "whole", **more)
    for stop in (3, 9, 22, 35):
        run(tmp_path / "parts", stop=stop, **more)
    resumed, result = run(tmp_path / "parts", **more)
    assert result is not None
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    a, b = (read_lines(tmp_path / name / "log.jsonl") for name in ("whole", "parts"))
    assert [line["step"] for line in a] == [line["step"] for line in b]
    assert [line["lr"] for line in a] == [line["lr"] for line in b]


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    whole, _ = run(None)
    run(tmp_path, stop=22)
    for file in tmp_path.glob("*.ckpt"):
        file.write_bytes(file.read_bytes()[:-50])
    resumed, _ = run(tmp_path)
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())


def test_training_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run_state = torch.random.get_rng_state()
    student = network(0, 0.5)
    torch.random.set_rng_state(run_state)
    train(student, Empirical(IMAGES), Labels(), IMAGES.task, settings=Training(steps=3))
    assert torch.equal(torch.rand(2), expected)


def test_the_teacher_never_reaches_the_students_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, stop=22, dropout=0.0)
    state = Checkpoints(tmp_path).newest()
    assert state is not None
    own = {"step", "seconds", "loss", "log", "model", "optimizer", "ema", "precision"}
    assert set(state) == own
    assert set(state["model"]) == set(network().state_dict())
    size = sum(f.stat().st_size for f in tmp_path.glob("*.ckpt"))
    own = sum(v.numel() * v.element_size() for v in network().state_dict().values())
    assert size < 4 * own + 20_000


def test_the_teacher_is_not_changed_by_training() -> None:
    module = network(5, dropout=0.5)
    module.train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    teacher = Network(module, IMAGES.task)
    train(network(0), Empirical(IMAGES), teacher, IMAGES.task, settings=Training(steps=5))
    assert not module.training
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_ema_is_the_average_and_is_the_result() -> None:
    plain, _ = run(None, dropout=0.0)
    averaged, _ = run(None, dropout=0.0, ema=0.99)
    different = [
        not torch.equal(a, b)
        for a, b in zip(plain.parameters(), averaged.parameters(), strict=True)
    ]
    assert all(different)


def test_evaluation_is_in_evaluation_mode_and_changes_nothing(tmp_path: Path) -> None:
    modes = []

    def evaluate(module: nn.Module) -> dict[str, float]:
        modes.append(module.training)
        return {"figure": 1.0}

    students = []
    for every in (0, 5):
        student = network(0, 0.3)
        folder = tmp_path / str(every)
        train(
            student,
            Empirical(IMAGES),
            Labels(),
            IMAGES.task,
            settings=Training(steps=20, batch_size=8, lr=0.05, evaluate_every=every, ema=0.9),
            folder=folder,
            evaluate=evaluate,
        )
        students.append(student.state_dict())
    assert modes == [False] * 5
    assert all(torch.equal(students[0][k], students[1][k]) for k in students[0])
    logged = [x["step"] for x in read_lines(tmp_path / "5" / "log.jsonl") if "evaluation" in x]
    assert logged == [5, 10, 15, 20]


@dataclass
class Faulty:
    """A teacher that breaks on one draw."""

    value: float
    draws: list[int] = field(default_factory=lambda: [101, 77])
    gaussian: bool = False

    def __call__(self, batch: Batch) -> Distribution:
        bad = torch.isin(batch.ids, torch.tensor(self.draws))
        logits = torch.zeros(len(batch), 4)
        # A logit of -inf alone masks its class.
        masks = self.value == -math.inf and not self.gaussian
        logits[bad, slice(None) if masks else slice(2, 3)] = self.value
        return Gaussian.from_output(logits) if self.gaussian else Categorical(logits)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("gaussian", [False, True])
def test_a_teacher_that_gives_nan_or_infinity_stops_with_the_ids_at_fault(
    value: float, gaussian: bool
) -> None:
    data = table_data() if gaussian else IMAGES
    student = build_model("mlp", inputs=data.shapes, outputs=4)
    with pytest.raises(TrainingError, match=r"NaN or infinity for 2 of \d+ draws: ids 77, 101"):
        train(
            student,
            Empirical(data),
            Faulty(value, gaussian=gaussian),
            data.task,
            settings=Training(steps=50, batch_size=4),
        )


def test_a_loss_that_is_not_finite_stops_before_it_is_kept(tmp_path: Path) -> None:
    class Explodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(5, 4)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            out: Tensor = self.net(x)
            return out * (math.nan if self.calls > 12 else 1.0)

    with pytest.raises(TrainingError, match=r"loss became nan between steps 1[0-9] and"):
        train(
            Explodes(),
            Empirical(table_data()),
            Labels(),
            table_data().task,
            settings=Training(steps=100, batch_size=4, lr=1e-3, checkpoint_every=5),
            folder=tmp_path,
        )
    state = Checkpoints(tmp_path).newest()
    assert state is not None
    assert state["step"] == 10
    assert all(bool(torch.isfinite(v).all()) for v in state["model"].values())


def test_several_steps_are_drawn_at_once_within_bounds() -> None:
    device = torch.device("cpu")
    assert draw_steps(Empirical(IMAGES), 8, device) == 16

    def huge(ids: Tensor) -> Batch:
        return Batch(ids, torch.zeros(len(ids), 3, 1000, 1000))

    assert draw_steps(huge, 64, device) == 1


def test_chains_from_recipes_train_too() -> None:
    chain = ["empirical", {"augment": {"pad": 1}}, "cutmix", {"noise": {"std": 0.1}}]
    sampler = build_sampler(chain, IMAGES, 0)
    result = train(network(), sampler, Labels(), IMAGES.task, settings=Training(steps=5))
    assert math.isfinite(result.loss)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": -1},
        {"lr": 0},
        {"lr": math.inf},
        {"momentum": 1.0},
        {"weight_decay": -1e-4},
        {"ema": 1.0},
        {"accumulate": 0},
        {"freeze": "stem"},
        {"clip_norm": 0},
        {"step": 5},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    [name] = wrong
    with pytest.raises(RecipeError, match=f"^{name}: (is|unknown key)"):
        Training(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"optimizer": "lions"}, "optimizer: unknown optimizer 'lions'; did you mean 'lion'?"),
        ({"optimizer": {"adam": {"betas": [0.9, 1.5]}}}, "optimizer: adam: Invalid beta"),
        ({"optimizer": "torch.optim:LBFGS", "lr": 0.1}, "optimizer: is 'torch.optim:LBFGS'; "),
        ({"optimizer": "mine:Optimizer"}, "lr is not set, and the optimizer 'mine:Optimizer' "),
        ({"accumulate": 5}, "accumulate is 5, but batch_size, 64, cannot be cut into"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Training(**wrong)
    assert str(caught.value).startswith(said)


def test_a_log_is_continued_where_the_training_was(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    log = JsonLines(file)
    for step in (5, 10):
        log.write({"step": step})
    kept = list(log.kept)  # as a checkpoint keeps them
    log.write({"step": 15})
    log.close()
    with file.open("a") as handle:
        handle.write('{"step": 20, "los')
    assert [line["step"] for line in read_lines(file)] == [5, 10, 15]
    file.write_text(file.read_text().replace("10", "17"))
    JsonLines(file, kept).close()
    assert read_lines(file) == [{"step": 5}, {"step": 10}]
    JsonLines(file).close()
    assert read_lines(file) == []


def test_a_training_that_is_interrupted_between_any_two_steps_ends_with_the_same_bits(
    tmp_path: Path,
) -> None:
    teacher = Ensemble([Network(network(5), IMAGES.task), Network(network(6), IMAGES.task)])

    def part(folder: Path, steps: int) -> tuple[nn.Module, TrainingResult]:
        asked = iter(range(1, 1000))
        student = network(0, 0.3)
        settings = Training(steps=40, batch_size=8, lr=0.05, checkpoint_every=7, ema=0.9)
        result = train(
            student, Mixup(Empirical(IMAGES)), teacher, IMAGES.task, settings=settings,
            folder=folder, interrupted=lambda: next(asked) >= steps,
        )  # fmt: skip
        return student, result

    whole, result = part(tmp_path / "whole", 1000)
    assert result.steps == 40
    done = []
    while not done or done[-1] < 40:
        resumed, result = part(tmp_path / "parts", 9)
        done.append(result.steps)
    assert done == [9, 18, 27, 36, 40]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
