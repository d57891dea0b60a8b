"""Optimisers by name, parts of a batch, frozen weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.distributions import Categorical, Task
from extracurricular.errors import RecipeError
from extracurricular.inputs import Batch
from extracurricular.matching import Matching
from extracurricular.models import build_model
from extracurricular.samplers import Empirical
from extracurricular.teachers import Labels, Network
from extracurricular.training import Training, make_optimizer, train
from extracurricular.training.defaults import decided
from extracurricular.training.optimizers import OPTIMIZERS, Lion, build_optimizer, obstacle_of
from extracurricular.training.settings import RATES
from tests.conftest import image_data, table_data

IMAGES, TABLE = image_data(), table_data()


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    spec = {"digits_cnn": {"width": 2, "depth": 1}}
    return build_model(spec, inputs=IMAGES.shapes, outputs=4)


class Own(torch.optim.SGD):
    """An optimiser of the user's own."""

    def __init__(self, params: Any, lr: float, steepness: float = 1.0) -> None:
        super().__init__(params, lr=lr * steepness)


class Sharp(torch.optim.Optimizer):
    """One that needs a closure."""

    def step(self, closure: Any) -> None:  # type: ignore[override]
        """Compute the loss again."""


# By name


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_optimizer_trains_with_its_usual_rate_and_resumes_to_the_last_bit(
    name: str, tmp_path: Path
) -> None:
    def run(folder: Path | None, stop: int | None = None) -> dict[str, Tensor]:
        student = network()
        logged: list[float] = []
        train(
            student, Empirical(IMAGES), Network(network(3), IMAGES.task), IMAGES.task, stop=stop,
            settings=Training(steps=30, batch_size=8, optimizer=name, checkpoint_every=10),
            folder=folder, on_log=lambda line: logged.append(line["loss"]),
        )  # fmt: skip
        assert stop or logged[-1] < logged[0]
        return student.state_dict()

    whole = run(None)
    run(tmp_path, 13)
    parts = run(tmp_path)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_each_has_a_usual_rate_which_convolutions_divide_by_ten() -> None:
    assert sorted(RATES) == OPTIMIZERS.names()
    for name, rate in RATES.items():
        wide = build_model("mlp", inputs=TABLE.shapes, outputs=4)
        task = Task("classification", 4)
        assert decided(Training(optimizer=name), task, wide).lr == rate
        narrow = rate if name in ("sgd", "adagrad") else rate / 10
        assert decided(Training(optimizer=name), task, network()).lr == narrow


def test_lion_steps_by_the_sign_of_its_momentum() -> None:
    weight = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    lion = Lion([{"params": [weight], "weight_decay": 0.1}], 0.01, (0.9, 0.99))
    average, expected = torch.zeros(3), weight.detach().clone()
    for gradient in (torch.tensor([1.0, -1.0, 0.0]), torch.tensor([-9.5, 0.1, 2.0])):
        weight.grad = gradient
        lion.step()
        sign = torch.sign(0.9 * average + 0.1 * gradient)
        expected = expected - 0.01 * (sign + 0.1 * expected)
        average = 0.99 * average + 0.01 * gradient
        torch.testing.assert_close(weight.detach(), expected)


def test_settings_of_an_optimizer_are_read_and_refused_by_key() -> None:
    settings = Training(optimizer={"adamw": {"betas": [0.8, 0.9], "eps": 1e-6}})
    made = make_optimizer(network(), settings, fused=False)
    assert made.param_groups[0]["betas"] == (0.8, 0.9)
    assert Training(**settings.model_dump()) == settings
    refused: dict[str, Any] = {
        r"unknown optimizer 'adamm'; did you mean 'adam'": "adamm",
        r"optimizer: adam\.beta: unknown key 'beta'; did you mean 'betas'": {"adam": {"beta": 1}},
        r"optimizer: adam: Invalid beta parameter": {"adam": {"betas": [0.9, 2.0]}},
        r"optimizer: lion: betas is \[0.9, 1.0\]; each must be": {"lion": {"betas": [0.9, 1.0]}},
        r"L-BFGS computes the loss several times a step": "lbfgs",
        r"SAM computes the loss several times a step": "sam_pytorch:SAM",
    }
    for says, spec in refused.items():
        with pytest.raises(RecipeError, match=says):
            build_optimizer(
                spec, [], 0.1, momentum=0.9, fused=False
            ) if "SAM" in says else Training(optimizer=spec)


def test_one_of_the_users_own_is_made_by_its_path() -> None:
    here = "tests.training.test_optimizers"
    spec = {f"{here}:Own": {"steepness": 3.0}}
    made = make_optimizer(network(), Training(optimizer=spec, lr=0.1), fused=True)
    assert isinstance(made, Own)
    assert made.param_groups[0]["lr"] == pytest.approx(0.3)
    assert made.param_groups[0]["weight_decay"] == 5e-4
    assert obstacle_of(made) == "the optimizer Own does not say that it is capturable"
    with pytest.raises(RecipeError, match=r"lr is not set, and the optimizer '.*:Own' has no us"):
        Training(optimizer=spec)
    with pytest.raises(RecipeError, match=r"Sharp', which computes the loss several times a step"):
        make_optimizer(network(), Training(optimizer=f"{here}:Sharp", lr=0.1), fused=False)
    with pytest.raises(RecipeError, match=r"gives a Linear, which is no torch\.optim\.Optimizer"):
        build_optimizer(f"{here}:not_one", [], 0.1, momentum=0, fused=False)


def not_one(params: Any, lr: float) -> nn.Module:
    """Return something else."""
    return nn.Linear(1, 1)


# Parts of a batch


def squares(teacher: Categorical, student: Categorical) -> Tensor:
    """A divergence in float64."""
    return (teacher.logits - student.logits).square().sum(-1)


def wide(ids: Tensor) -> Batch:
    """Examples in float64."""
    x = torch.randn(64, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Batch(ids, x[ids % 64])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_parts_of_a_batch_give_the_step_of_the_whole(optimizer: str, weighted: bool) -> None:
    def trained(parts: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        student, asked = (
            nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double() for _ in range(2)
        )

        def sampler(ids: Tensor) -> Batch:
            batch = wide(ids)
            weight = 1 + 0.5 * (-1.0) ** ids if weighted else None
            return Batch(ids, batch.x, weight=weight)

        train(
            student, sampler, Network(asked, Task("classification", 3)), Task("classification", 3),
            matching=Matching("tests.training.test_optimizers:squares"),
            settings=Training(
                steps=25, batch_size=12, accumulate=parts, lr=0.01, optimizer=optimizer
            ),
        )  # fmt: skip
        return student.state_dict()

    whole = trained(1)
    for parts in (2, 3, 12):
        for name, value in trained(parts).items():
            torch.testing.assert_close(value, whole[name], rtol=1e-9, atol=1e-12)


def test_what_relates_examples_is_not_cut_into_parts() -> None:
    with pytest.raises(RecipeError, match=r"dist relates the examples of a batch.*accumulate is 2"):
        train(
            network(), Empirical(IMAGES), Network(network(1), IMAGES.task), IMAGES.task,
            matching=Matching("dist"), settings=Training(steps=2, batch_size=8, accumulate=2),
        )  # fmt: skip


# Frozen weights


def test_frozen_weights_stay_and_so_do_their_batch_norms() -> None:
    student = network()
    names = [name for name, _ in student.named_parameters()]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    settings = Training(steps=12, batch_size=8, lr=0.05, freeze=["0.*", "1.*"])
    train(student, Empirical(IMAGES), Labels(), IMAGES.task, settings=settings)
    after = student.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.split(".")[0] in "01"} <= still
    assert {name for name in names if name.split(".")[0] not in "01"}.isdisjoint(still)
    assert any("running_mean" in name for name in still)
    assert all(weight.requires_grad for weight in student.parameters())


def test_patterns_of_no_weight_and_of_all_are_refused() -> None:
    def run(*patterns: str) -> None:
        settings = Training(steps=2, freeze=list(patterns))
        train(network(), Empirical(IMAGES), Labels(), IMAGES.task, settings=settings)

    with pytest.raises(
        RecipeError, match=r"training\.freeze: has 'stem\.\*', which is no weight; "
    ):
        run("stem.*")
    with pytest.raises(RecipeError, match=r"training\.freeze: is \['\*'\], which leaves no weight"):
        run("*")
