"""The first mistakes that a person makes in Python end in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import extracurricular as xcl
from extracurricular.assess.assess import assess
from extracurricular.errors import own_place, raised, shorten
from extracurricular.predictors.of_data import of_data, with_scales
from extracurricular.teachers.prepared import prepare
from tests.conftest import image_data, table_data

X = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
DATA = xcl.from_arrays(X, (X[:, 0] > 0).astype(int))
SMALL = {"mlp": {"hidden": [4]}}
SHORT = xcl.Training(steps=2, batch_size=8)


class Linear(nn.Module):
    """A network that knows the classes, and may wrap its answer."""

    def __init__(self, wrap: Callable[[Tensor], Any] = lambda y: y) -> None:
        super().__init__()
        self.linear, self.wrap = nn.Linear(4, 2), wrap
        with torch.no_grad():
            self.linear.weight.zero_()[:, 0] = torch.tensor([-5.0, 5.0])
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.linear(x))


def nan_answers(x: Any) -> Any:
    said = np.full((len(x), 2), 0.5)
    said[x[:, 0] > 1] = np.nan
    return said


def distil(teacher: Any = None, student: Any = SMALL, data: Any = DATA, **settings: Any) -> Any:
    return xcl.distill(teacher or Linear(), student, data, **{"steps": 3, **settings})


def train(student: Any = None, sampler: Any = None, teacher: Any = None, **others: Any) -> Any:
    sampler, teacher = sampler or xcl.Empirical(DATA), teacher or xcl.Labels()
    task = others.pop("task", DATA.task)
    return xcl.train(student or Linear(), sampler, teacher, task, **{"settings": SHORT, **others})


NET = Linear()
FAILING: Any = Linear(lambda y: {}["answer"])
NORMED = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("attempt", "sentence"),
    [
        (lambda: train(teacher=NET), r"teacher: is a Linear, a torch module; give xcl\.Network"),
        (lambda: train(teacher=xcl.Labels), "teacher: is <class .*; it must be a teacher"),
        (lambda: train(sampler=xcl.Network(NET, DATA.task), teacher=xcl.Empirical(DATA)),
         "sampler: is a NetworkTeacher, which is a teacher; the order is train"),
        (lambda: train(teacher=xcl.Empirical(DATA)), "teacher: is a Empirical, which is a sampler"),
        (lambda: train(sampler=DATA), r"sampler: is a Data; xcl\.Empirical\(data\) draws from"),
        (lambda: train(sampler=["empirical"]), r"sampler: .* make it by xcl\.build_sampler"),
        (lambda: train(sampler=NET), "sampler: is a Linear; it must be a sampler"),
        (lambda: train(student="mlp"), "student: is 'mlp'; it must be a torch module"),
        (lambda: train(task=DATA), "task: is a Data; it must be a Task"),
        (lambda: train(settings={"steps": 2}), r"settings: is a dict; it must be xcl\.Training"),
        (lambda: train(matching={}), r"matching: is a dict; it must be xcl\.Matching"),
        (lambda: xcl.Training(step=3), "^step: unknown key 'step'; did you mean 'steps'"),  # type: ignore[call-arg]
        (lambda: xcl.Training(lr="a"), "^lr: is 'a'; it should be a valid number"),  # type: ignore[arg-type]
        (lambda: xcl.predict(NET, DATA, DATA.test), "teacher: is a Linear, a torch module"),  # type: ignore[arg-type]
        (lambda: xcl.predict(xcl.Labels(), DATA, "test"), r"split: is 'test'; .* data\.test"),  # type: ignore[arg-type]
        (lambda: xcl.predict(xcl.Labels(), (X, X), DATA.test), "data: is .* it must be a Data"),  # type: ignore[arg-type]
        (lambda: xcl.Network(NET, "classes"), "task: is 'classes'; it must be a Task"),  # type: ignore[arg-type]
        (lambda: xcl.Network(xcl.Labels(), DATA.task), "module: is .* must be a torch module"),  # type: ignore[arg-type]
        (lambda: xcl.Ensemble(NET), "teachers: is Linear.* it must be a list of teachers"),  # type: ignore[arg-type]
        (lambda: xcl.Ensemble([NET]), "teacher: is a Linear, a torch module"),  # type: ignore[list-item]
        (lambda: xcl.Empirical(X), "data: is a ndarray; it must be a Data"),  # type: ignore[arg-type]
        (lambda: xcl.Mixup(DATA), "child: is a Data; it must be a sampler"),  # type: ignore[arg-type]
        (lambda: xcl.build_model("mlp", inputs=4, outputs=2), "inputs: is 4; it must be the shape"),  # type: ignore[arg-type]
        (lambda: xcl.execute("digits", "out"), r"recipe: is 'digits'; .*xcl\.read_recipe"),  # type: ignore[arg-type]
        (lambda: xcl.record(xcl.Empirical(DATA), NET, DATA, 9, "out"), "teacher: is a Linear"),  # type: ignore[arg-type]
        (lambda: distil(student=Linear), r"student: is <class .* so give Linear\(…\)"),
        (lambda: distil(student=3), "student: is 3; it must be a torch module"),
        (lambda: distil(student=Linear(lambda y: y[:, :1])),
         r"student: gives \(2, 1\), and 2 classes need \(2, 2\)"),
        (lambda: distil(student=FAILING), r"student: .*KeyError: 'answer' \(.*mistakes\.py, line"),
        (lambda: distil(teacher=FAILING), r"teacher: .*KeyError: 'answer' \(.*mistakes\.py, line"),
        (lambda: distil(student=Linear(lambda y: y.detach())), "student: .* without a gradient"),
        (lambda: distil(student=NET.requires_grad_(False)), "student: has no parameters that can"),
        (lambda: distil(student=NORMED, training={"batch_size": 1}),
         r"training\.batch_size: is 1, and the network has batch norm"),
        (lambda: distil(training=3), r"training: is 3; it must be xcl\.Training"),
        (lambda: distil(matching="kl"), r"matching: is 'kl'; it must be xcl\.Matching"),
        (lambda: distil(matching={"divergence": "nowhere:f"}), r"matching\.divergence: cannot imp"),
        (lambda: distil(sampler=lambda ids: (X, X)), "sampler: gives a tuple; a sampler gives"),
        (lambda: distil(sampler=DATA), "sampler: is a Data; xcl"),
        (lambda: distil(raw="yes"), "raw: is 'yes'; it must be True, False or None"),
        (lambda: distil(out=3), "out: is 3; it must be the path of a folder"),
        (lambda: distil(fabric="cpu"), "fabric: is 'cpu'; it must be a Fabric"),
        (lambda: distil(on_progress=3), "on_progress: is 3; it must be a function"),
        (lambda: distil(data=NET), "data is Linear.* the order is teacher, student, data"),
        (lambda: distil(teacher=nan_answers, sampler="empirical"), "gave (nan|NaN)"),
    ],
)  # fmt: skip
def test_a_mistake_ends_in_one_sentence(attempt: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(xcl.XclError, match=sentence) as caught:
        attempt()
    assert "\n" not in str(caught.value)


WRAPS: dict[str, Callable[[Tensor], Any]] = {
    "dict": lambda y: {"hidden": -y, "logits": y},
    "tuple": lambda y: (y, -y),
}


@pytest.mark.parametrize("wrap", list(WRAPS))
def test_wrapped_outputs_teach_and_learn_as_their_tensor(wrap: str) -> None:
    plain = distil(teacher=Linear(), student=Linear())
    wrapped = distil(teacher=Linear(WRAPS[wrap]), student=Linear(WRAPS[wrap]))
    assert np.array_equal(plain(X).probs, wrapped(X).probs)


def test_a_wrapped_output_is_exported(tmp_path: Path) -> None:
    student = distil(student=Linear(WRAPS["dict"]))
    student.export(tmp_path / "student.pt2", format="pt2")
    said = torch.export.load(tmp_path / "student.pt2").module()({"x": torch.from_numpy(X)})
    assert np.allclose(said["probs"].detach().numpy(), student(X).probs, atol=1e-5)


def test_rows_of_nan_are_counted_and_named() -> None:
    teacher = xcl.FunctionTeacher(nan_answers, DATA)
    assert isinstance(DATA.test.x, Tensor)
    rows = [DATA.ids["test"][int(k)] for k in (DATA.test.x[:, 0] > 1).nonzero()]
    shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
    said = f"the teacher gave NaN or infinity for {len(rows)} of the 24 test examples: rows {shown}"
    with pytest.raises(xcl.TrainingError) as caught:
        xcl.predict(teacher, DATA, DATA.test)
    assert str(caught.value) == said


def test_evaluating_a_model_that_gives_nan_names_the_rows() -> None:
    for teacher in (
        xcl.FunctionTeacher(nan_answers, DATA),
        xcl.Network(Linear(lambda y: torch.where(y > 3, torch.nan, y)), DATA.task),
    ):
        predictor = of_data("mine", with_scales(teacher, DATA), DATA, None)
        with pytest.raises(xcl.TrainingError, match=r"^mine gave NaN .* of the 24 test examples"):
            assess(predictor, DATA)


def test_the_place_of_an_error_is_the_users_innermost_line() -> None:
    def outer(x: Any) -> Any:
        return nn.Linear(3, 2)(x)

    try:
        xcl.FunctionTeacher(outer, DATA)(xcl.Empirical(DATA)(torch.arange(2)))
    except Exception as error:
        place, text = own_place(error), raised(error)
    line = outer.__code__.co_firstlineno + 1
    assert place is not None
    assert place.endswith(f"test_first_mistakes.py, line {line}")
    assert text.startswith("TypeError: ")
    assert text.endswith(f"line {line})")


def test_an_error_of_this_package_has_no_place() -> None:
    error: Exception | None = None

    def call() -> None:
        table_data().train[{}]  # type: ignore[index]

    try:
        call()
    except Exception as found:
        # As it is caught further in, without the lines of this file.
        error = found.with_traceback(found.__traceback__.tb_next.tb_next)  # type: ignore[union-attr]
    assert error is not None
    assert own_place(error) is None


def test_a_quoted_value_stays_on_one_line() -> None:
    assert "\n" not in shorten(nn.Sequential(nn.Linear(2, 2)))
    assert shorten("a  b") == "'a  b'"


def test_images_of_a_wrapped_network_are_folded_too() -> None:
    class Conv(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
            self.head = nn.Linear(4 * 36, 4)

        def forward(self, x: Tensor) -> Any:
            return {"logits": self.head(self.body(x))}

    data = image_data()
    module, probe = Conv().eval(), data.inputs(data.train[:8].x)
    fast = prepare(module, probe)
    assert fast is not None
    assert torch.allclose(fast(probe), module(probe)["logits"], atol=1e-4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fast.modules())
