"""Every network, sampler, loss and teacher of a recipe is tried once before anything is trained."""

from __future__ import annotations

import random
import re
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extracurricular.distributions import Categorical, Task
from extracurricular.errors import RecipeError, TrainingError, XclError
from extracurricular.inputs import Batch
from extracurricular.matching import Matching
from extracurricular.recipe.read import parse_recipe
from extracurricular.run import network
from extracurricular.run import trial as trials
from extracurricular.run.check import check
from extracurricular.run.equal_cost import settled
from extracurricular.run.execute import execute
from extracurricular.run.plan import plan
from extracurricular.run.trial import Trial, untouched
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Sampler
from tests.conftest import table_data

STEPS = 6
CALLS: list[str] = []


class Pair(NamedTuple):
    aux: Tensor
    logits: Tensor


class Net(nn.Module):
    """A linear network that answers in one of many ways."""

    def __init__(self, inputs: Any, outputs: int, kind: str) -> None:
        super().__init__()
        self.flat, self.linear, self.kind = nn.Flatten(), nn.Linear(prod(inputs), outputs), kind
        if kind == "lazy":
            self.more = nn.LazyLinear(outputs)
        if kind == "frozen":
            self.requires_grad_(False)
        if kind == "norm":
            self.linear = nn.Sequential(self.linear, nn.BatchNorm1d(outputs))  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Any:
        CALLS.append(self.kind)
        y = self.linear(self.flat(x))
        if self.kind == "raises":
            raise KeyError("hidden")
        if self.kind == "draws":
            y = y + 0 * float(torch.rand(()) + random.random() + np.random.rand())  # noqa: NPY002
        if self.kind == "inplace":
            y = y.exp()
            y += 1
        if self.kind == "view" and self.training:
            return x.expand(2, 2, 8, 8).view(3)
        answers = {
            "dict": {"hidden": y + 1, "logits": y},
            "tuple": (y, y + 1),
            "named": Pair(y + 1, y),
            "nested": [{"first": (y,)}],
            "one": y[:, :1],
            "mean": y.mean(0, keepdim=True),
            "detached": y.detach(),
            "nan": y * float("nan"),
            "sequence": y.cumsum(0),
            "none": None,
            "constant": y.detach().requires_grad_(),
        }
        return answers.get(self.kind, y)


def net(inputs: Any, outputs: int, *, kind: str = "plain") -> nn.Module:
    return Net(inputs, outputs, kind)


def broken(inputs: Any, outputs: int) -> nn.Module:
    return nn.Linear(prod(inputs), {}["size"])


def mean_square(teacher: Categorical, student: Categorical) -> Tensor:
    return (teacher.probs - student.probs).square().sum(-1)


def of_outputs(teacher: Categorical, student: Categorical) -> Tensor:
    return (teacher.probs - student.probs).square()


def without_gradient(teacher: Categorical, student: Categorical) -> Tensor:
    return torch.tensor(np.asarray(mean_square(teacher, student).detach()))


def failing(teacher: Categorical, student: Categorical) -> Tensor:
    raise IndexError("no such class")


def pairs(child: Sampler) -> Any:
    return lambda ids: (child(ids).x, child(ids).y)


def halves(child: Sampler) -> Any:
    return lambda ids: child(ids[:1])


def cropped(child: Sampler) -> Any:
    def draw(ids: Tensor) -> Batch:
        batch = child(ids)
        assert isinstance(batch.x, Tensor)
        return Batch(batch.ids, batch.x[..., :5], batch.y, batch.classes)

    return draw


def answer(x: Any) -> Any:
    return np.full((len(x), 10), 0.1)


def nan_for_bright(x: Any) -> Any:
    said = answer(x)
    said[x.reshape(len(x), -1).sum(1) > 380 * 16] = np.nan
    return said


def late_failure(x: Any) -> Any:
    if len(x) > 2:
        raise KeyError("batch")
    return answer(x)


def recipe(*overrides: str, **changes: Any) -> Any:
    whole: dict[str, Any] = {
        "name": "tried",
        "data": {"digits": {"train": 60, "validation": 20}},
        "device": {"accelerator": "cpu"},
        "teacher": {"model": {"mlp": {"hidden": [8]}}, "training": {"steps": STEPS}},
        "defaults": {
            "model": {"mlp": {"hidden": [4]}},
            "training": {"steps": STEPS, "batch_size": 8},
        },
        "students": {"erm": {"learns_from": "labels"}, "kd": {}},
    }
    return parse_recipe({**whole, **changes}, overrides)


def of_kind(where: str, kind: str) -> str:
    return f'{where}={{"{__name__}:net": {{kind: {kind}}}}}'


@pytest.mark.parametrize(
    ("override", "key", "problem"),
    [
        (of_kind("students.kd.model", "one"), "students.kd.model",
         r"^gives \(2, 1\), and 10 classes need \(2, 10\)$"),
        (of_kind("students.kd.model", "mean"), "students.kd.model", r"^gives \(1, 10\), and"),
        (of_kind("teacher.model", "one"), "teacher.model", r"^gives \(2, 1\), and 10 classes"),
        (f'teacher.model=[{{mlp: {{hidden: [4]}}}}, {{"{__name__}:net": {{kind: one}}}}]',
         "teacher.model", r"^gives \(2, 1\), and 10 classes"),
        (of_kind("students.kd.model", "none"), "students.kd.model", "a NoneType without any"),
        (of_kind("students.kd.model", "raises"), "students.kd.model",
         r"inputs \(2, 1, 8, 8\) in evaluation mode: KeyError: 'hidden' \(.*test_trial\.py, line"),
        (of_kind("students.kd.model", "view"), "students.kd.model", "training mode: RuntimeError"),
        (of_kind("students.kd.model", "inplace"), "students.kd.model",
         "has no gradient on two examples: RuntimeError: .*inplace"),
        (of_kind("students.kd.model", "frozen"), "students.kd.model", "no parameters that can be"),
        (of_kind("students.kd.model", "lazy"), "students.kd.model", "size is not known .*more"),
        (of_kind("students.kd.model", "detached"), "students.kd.model", "without a gradient"),
        (of_kind("students.kd.model", "constant"), "students.kd.model", "none of its trained"),
        (of_kind("students.kd.model", "nan"), "students.kd.model", "gives NaN or infinity"),
        (of_kind("students.kd.model", "sequence"), "students.kd.model", "stand in another order"),
        (f"students.kd.model={__name__}:broken", f"students.kd.model.{__name__}:broken",
         r"cannot be made: KeyError: 'size' \(.*test_trial\.py, line"),
        ("students.kd.matching.divergence=nowhere:f", "students.kd.matching.divergence",
         "cannot import the divergence"),
        (f"students.kd.matching.divergence={__name__}:of_outputs",
         "students.kd.matching.divergence", r"gives \(2, 10\) for 2 examples"),
        (f"students.kd.matching.divergence={__name__}:without_gradient",
         "students.kd.matching.divergence", "has no gradient"),
        (f"students.kd.matching.divergence={__name__}:failing",
         "students.kd.matching.divergence", r"IndexError: no such class \(.*test_trial\.py, line"),
        (f"students.kd.sampler=[empirical, '{__name__}:pairs']", "students.kd.sampler",
         "gives a tuple; a sampler gives an extracurricular Batch"),
        (f"students.kd.sampler=[empirical, '{__name__}:halves']", "students.kd.sampler",
         "gives 1 examples where 2 were drawn"),
        (f"students.kd.sampler=[empirical, '{__name__}:cropped']", "students.kd.sampler",
         r"draws of other shapes than the data have \(\(1, 8, 8\)\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_by_its_key(
    tmp_path: Path, override: str, key: str, problem: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        execute(recipe(override), tmp_path / "out")
    assert caught.value.key == key
    assert re.search(problem, caught.value.problem), caught.value.problem
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["vgg8", f'{{"{__name__}:net": {{kind: norm}}}}'])
def test_batch_norm_and_a_batch_of_one_is_refused_by_the_batch_size(
    tmp_path: Path, model: str
) -> None:
    override = [f"students.kd.model={model}", "students.kd.training.batch_size=1"]
    with pytest.raises(RecipeError, match="is 1, and the network has batch norm") as caught:
        execute(recipe(*override), tmp_path / "out")
    assert caught.value.key == "students.kd.training.batch_size"
    assert not (tmp_path / "out").exists()


def test_a_batch_of_one_trains_a_network_without_batch_norm(tmp_path: Path) -> None:
    summary = execute(recipe("defaults.training.batch_size=1"), tmp_path)
    assert summary["students"]["kd"]["steps"] == STEPS


@pytest.mark.parametrize("kind", ["dict", "tuple", "named", "nested"])
def test_a_wrapped_output_trains_as_the_tensor_in_it(tmp_path: Path, kind: str) -> None:
    found = {}
    for one in ("plain", kind):
        folder = tmp_path / one
        execute(recipe(of_kind("defaults.model", one), of_kind("teacher.model", one)), folder)
        found[one] = (folder / "students/kd/seed-0/weights.safetensors").read_bytes()
    assert found[kind] == found["plain"]


def test_a_trial_changes_no_weight_and_no_random_state(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(net((4,), 3, kind="draws"), nn.BatchNorm1d(3), nn.Dropout(0.5))
    module.eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    tried = Trial(module, Task("classification", 3), torch.randn(2, 4), "students.kd")
    states = (torch.get_rng_state(), *states[1:])
    batch = Batch(torch.arange(2), torch.randn(2, 4, generator=torch.Generator().manual_seed(1)))
    target = Categorical.from_output(torch.zeros(2, 3))
    tried.answer()
    tried.step(batch, target, Matching(), 8)
    assert all(map(torch.equal, before.values(), module.state_dict().values()))
    assert all(value.grad is None for value in module.parameters())
    assert not any(part.training for part in module.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tobytes() == states[2]  # noqa: NPY002


def test_no_number_of_a_run_depends_on_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropout = "defaults.model={mlp: {hidden: [8], dropout: 0.5}}"
    execute(recipe(dropout), tmp_path / "tried")
    monkeypatch.setattr(network, "try_lesson", lambda *arguments: None)
    execute(recipe(dropout), tmp_path / "untried")
    files = sorted((tmp_path / "tried").rglob("weights.safetensors"))
    assert len(files) == 3
    for file in files:
        other = tmp_path / "untried" / file.relative_to(tmp_path / "tried")
        assert file.read_bytes() == other.read_bytes()


def test_states_are_put_back_after_an_error_too() -> None:
    module = nn.BatchNorm1d(3)
    with pytest.raises(RuntimeError), untouched(module):  # noqa: PT012
        module(torch.randn(5, 3))
        raise RuntimeError("in the middle")
    assert int(module.num_batches_tracked) == 0  # type: ignore[arg-type]


def test_a_finished_stage_is_not_tried_again(tmp_path: Path) -> None:
    first = recipe(of_kind("students.kd.model", "plain"))
    execute(first, tmp_path)
    CALLS.clear()
    workspace = Workspace(first, tmp_path)
    check(plan(settled(first, workspace)), workspace)
    assert not CALLS
    more = recipe(of_kind("students.kd.model", "plain"), "seeds=[0, 1]")
    workspace = Workspace(more, tmp_path)
    check(plan(settled(more, workspace)), workspace)
    assert CALLS


def test_networks_of_one_kind_are_tried_once(tmp_path: Path) -> None:
    CALLS.clear()
    same = recipe(of_kind("defaults.model", "plain"), "seeds=[0, 1, 2]")
    check(plan(same), Workspace(same, tmp_path))
    # Two orders in evaluation mode, and a step on labels and one on the teacher's answers.
    assert len(CALLS) == 4


# Teachers


def test_a_function_that_gives_nan_is_refused_before_the_training(tmp_path: Path) -> None:
    teacher = {"function": {"function": f"{__name__}:nan_for_bright"}}
    with pytest.raises(TrainingError, match=r"^teacher function gave NaN .* \d+ of the 1717 test"):
        execute(recipe(teacher=teacher), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nan_met_at_the_evaluation_alone_loses_no_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "MOST_SECONDS", 0.0)
    teacher = {"function": {"function": f"{__name__}:nan_for_bright"}}
    said = r"^teacher function: the teacher gave NaN or infinity for \d+ of the 1717 test examples"
    with pytest.raises(TrainingError, match=said):
        execute(recipe("students.kd.learns_from=labels", teacher=teacher), tmp_path)
    assert (tmp_path / "students/kd/seed-0/weights.safetensors").exists()


def test_a_teacher_that_fails_on_larger_batches_is_told_with_its_line(tmp_path: Path) -> None:
    teacher = {"function": {"function": f"{__name__}:late_failure"}}
    said = r"^teacher\.function: the teacher cannot be asked: KeyError: 'batch' \(.*, line \d+\)"
    with pytest.raises(RecipeError, match=said):
        execute(recipe(teacher=teacher), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("task", "outputs", "needs"),
    [
        (Task("regression", 2), 2, r"2 real targets need \(2, 4\): 2 means and 2 log variances"),
        (Task("regression", 1), 1, r"a real target needs \(2, 2\): a mean and"),
        (Task("multilabel", 3), 2, r"3 labels need \(2, 3\)"),
    ],
)
def test_the_shape_that_a_task_needs_is_told(task: Task, outputs: int, needs: str) -> None:
    data = table_data()
    module = nn.Linear(5, outputs)
    tried = Trial(module, task, data.inputs(data.train[:2].x), "students.a")
    with pytest.raises(XclError, match=rf"students\.a\.model: gives \(2, {outputs}\), and {needs}"):
        tried.answer()
