"""How a trained teacher answers: in bfloat16 if that changes little, and compiled."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.data.base import Data
from extracurricular.data.sets import DATA
from extracurricular.files import load_weights, read_json
from extracurricular.inputs import Batch
from extracurricular.models import build_model
from extracurricular.recipe.read import parse_recipe
from extracurricular.run import answering as room
from extracurricular.run import teacher as teachers
from extracurricular.run.answering import MOST_KL, answering, compile_networks, divergence
from extracurricular.run.execute import execute
from extracurricular.samplers import Context, build_sampler
from extracurricular.teachers import EnsembleTeacher, LabelTeacher, NetworkTeacher, Teacher
from extracurricular.teachers.prepared import PROBE, Prepared, prepare
from extracurricular.training import Training, train
from tests.run.test_precision import Ear
from tests.run.test_settings import arrays

DIGITS = {"digits": {"train": 400, "validation": 100}}
CPP = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


@pytest.fixture(scope="module")
def digits() -> Data:
    return DATA.build(DIGITS, key="data")


def network(spec: Any, data: Data, steps: int, lr: float = 0.05) -> nn.Module:
    torch.manual_seed(0)
    module = build_model(
        spec, inputs=data.shapes, outputs=data.task.outputs, key="m", pixels=data.pixels
    )
    sampler = build_sampler(["empirical"], data, 0, "sampler", Context())
    settings = Training(steps=steps, batch_size=32, lr=lr, warmup=5)
    train(module, sampler, LabelTeacher(), data.task, settings=settings)
    return module


def probe(data: Data) -> Any:
    return data.inputs(data.train[:PROBE].x)


def ask(teacher: Teacher, data: Data) -> Tensor:
    x = probe(data)
    return teacher(Batch(torch.arange(PROBE), x)).parameters


@pytest.mark.parametrize(
    ("spec", "steps"),
    [({"digits_cnn": {"width": 16}}, 60), ("resnet20", 40), ("wrn-16-2", 40), ("mlp", 60)],
    ids=str,
)
def test_trained_networks_for_classes_are_close_in_bfloat16(
    digits: Data, spec: Any, steps: int
) -> None:
    module = network(spec, digits, steps)
    found = answering([module], digits, torch.bfloat16, compiled=False)
    assert isinstance(found.teacher, NetworkTeacher)
    assert found.teacher.module is module
    kl = found.facts["kl_to_float32"]
    assert 0 < kl < MOST_KL
    assert found.facts["computes"] == "bfloat16"
    [says] = found.sentences
    assert says.startswith(f"the teacher answers in bfloat16, KL {kl:.1e} nats from its answers")
    answer = ask(found.teacher, digits)
    assert answer.dtype == torch.float32
    exact = NetworkTeacher(module, digits.task)
    by_hand = torch.nn.functional.kl_div(
        answer.log_softmax(-1), ask(exact, digits).log_softmax(-1),
        log_target=True, reduction="batchmean",
    )  # fmt: skip
    assert kl == pytest.approx(float(by_hand), rel=0.05, abs=1e-7)


def test_a_trained_network_for_real_targets_is_measured_in_nats_too() -> None:
    data = DATA.build({"gaze": {}}, key="data")
    spec = {"gaze_preact_resnet": {"width": 4, "stem_stride": 2}}
    module = network(spec, data, 10, lr=1e-3)
    found = answering([module], data, torch.bfloat16, compiled=False)
    assert found.facts["computes"] == "bfloat16"
    assert 0 < found.facts["kl_to_float32"] < MOST_KL


class Steep(nn.Module):
    """Logits that cancel: a rounding of bfloat16 moves them a lot."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(1)[:, :10]
        return (y + 1000.0) * 30 - 30000.0


def test_a_network_that_roundings_change_stays_in_float32(digits: Data) -> None:
    found = answering([Steep().eval()], digits, torch.bfloat16, compiled=False)
    assert found.facts["computes"] == "float32"
    assert found.facts["kl_to_float32"] > MOST_KL
    [says] = found.sentences
    assert says.startswith("the teacher stays in float32: in bfloat16 it is KL ")
    assert says.endswith("above 0.001")
    with torch.autocast("cpu", torch.bfloat16):
        answer = ask(found.teacher, digits)
    torch.testing.assert_close(answer, Steep()(probe(digits)))


def test_one_member_that_cannot_answer_keeps_the_ensemble_in_float32(digits: Data) -> None:
    class Infinite(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :10].double().float() if x.dtype == torch.float32 else x / 0

    members = [Steep().eval(), Infinite().eval()]
    found = answering(members, digits, torch.bfloat16, compiled=False)
    assert isinstance(found.teacher, EnsembleTeacher)
    assert found.facts == {"computes": "float32", "kl_to_float32": None}
    assert found.sentences == ("the teacher stays in float32: it cannot answer in bfloat16",)


def test_where_the_precision_leaves_it_open_nothing_is_measured(digits: Data) -> None:
    found = answering([network("mlp", digits, 2)], digits, None, compiled=False)
    assert (found.facts, found.sentences) == ({}, ())


def test_the_divergence_of_a_teacher_from_itself_is_none(digits: Data) -> None:
    same = NetworkTeacher(network("mlp", digits, 5), digits.task)
    assert divergence(same, same, probe(digits)) == pytest.approx(0, abs=1e-6)


# In a run


def test_a_run_tells_and_keeps_the_divergence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "teacher_dtype", lambda precision, device: torch.bfloat16)
    ear = Ear()
    recipe = arrays(tmp_path / "here.npz")
    recipe["students"]["more"] = recipe["students"]["kd"]
    recipe["students"]["erm"] = {**recipe["students"]["kd"], "learns_from": "labels"}
    execute(parse_recipe(recipe), tmp_path / "run", ear)
    stages = {
        name: read_json(tmp_path / f"run/students/{name}/seed-0/stage.json")
        for name in ("kd", "more", "erm")
    }
    said = stages["kd"]["teacher"]
    assert said["computes"] == "bfloat16"
    assert said["kl_to_float32"] < MOST_KL
    assert stages["more"]["teacher"] == said
    assert "teacher" not in stages["erm"]
    [text] = [one for one in ear.heard if "bfloat16" in one]
    assert f"KL {said['kl_to_float32']:.1e} nats" in text


def test_a_run_in_full_precision_says_nothing_of_it(tmp_path: Path) -> None:
    ear = Ear()
    execute(parse_recipe(arrays(tmp_path / "here.npz")), tmp_path / "run", ear)
    [told] = ear.heard
    assert told.startswith("The target 'y' has 2 different whole numbers")
    assert "teacher" not in read_json(tmp_path / "run/students/kd/seed-0/stage.json")


# Compiled


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x.flatten(1)).relu()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace torch.compile by something that notes its settings and compiles nothing."""
    calls: list[dict[str, Any]] = []

    def compile(function: Any, **settings: Any) -> Any:
        calls.append(settings)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    return calls


def test_a_compiled_teacher_keeps_its_names_and_answers(
    digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    plain = Small().eval()
    found = answering([plain], digits, None, compiled=True)
    assert calls == [{"dynamic": False}]
    [says] = found.sentences
    assert says.startswith("the teacher was compiled in ")
    assert isinstance(found.teacher, NetworkTeacher)
    assert list(found.teacher.module.state_dict()) == ["line.weight", "line.bias"]
    assert isinstance(found.teacher.fast, Prepared)
    assert list(found.teacher.fast.state_dict()) == ["inner.line.weight", "inner.line.bias"]
    assert plain._compiled_call_impl is None
    torch.testing.assert_close(ask(found.teacher, digits), plain(probe(digits)).detach())


def test_without_a_compiler_it_goes_on_and_says_so(
    digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no working\nC++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda function, **_: fail)
    found = answering([Small().eval()], digits, None, compiled=True)
    assert found.sentences == ("the teacher goes on uncompiled: no working C++ compiler found",)
    assert ask(found.teacher, digits).shape == (PROBE, 10)


@pytest.mark.skipif(CPP is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_torch_compiles_answers_alike(digits: Data, dtype: torch.dtype | None) -> None:
    torch.manual_seed(0)
    plain = Small().eval()
    x = probe(digits)
    copied = prepare(plain, x, dtype) if dtype else Prepared(Small().eval())
    assert copied is not None
    with torch.no_grad():
        wanted = copied(x)
        says = compile_networks([copied], x)
        assert "compiled in" in says
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
        torch.testing.assert_close(copied(x), wanted, rtol=1e-2, atol=1e-2)


def test_a_run_compiles_students_and_teacher_and_its_weights_keep_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, ear = counted(monkeypatch), Ear()
    recipe = parse_recipe(arrays(tmp_path / "here.npz"), ["device.compile=true"])
    execute(recipe, tmp_path / "run", ear)
    assert len(calls) == 3  # the network of the teacher as a student, the student, the teacher
    assert sum("compil" in text for text in ear.heard) == 3
    plain = execute(parse_recipe(arrays(tmp_path / "here.npz")), tmp_path / "plain")
    assert plain["students"]["kd"]["metrics"]
    for folder in ("teacher/shared/member-0", "students/kd/seed-0"):
        weights = [
            load_weights(tmp_path / run / folder / "weights.safetensors")
            for run in ("run", "plain")
        ]
        assert set(weights[0]) == set(weights[1])
        assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_teacher_with_dropout_says_that_it_is_not_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted(monkeypatch)
    ear = Ear()
    recipe = arrays(tmp_path / "here.npz")
    recipe["teacher"] |= {"model": {"mlp": {"hidden": [4], "dropout": 0.5}}, "mc_dropout": 2}
    execute(parse_recipe(recipe, ["device.compile=true"]), tmp_path / "run", ear)
    assert "the teacher is not compiled: it has mc_dropout" in ear.heard


def test_nothing_is_above_the_most(monkeypatch: pytest.MonkeyPatch, digits: Data) -> None:
    monkeypatch.setattr(room, "MOST_KL", -1.0)
    found = answering([network("mlp", digits, 5)], digits, torch.bfloat16, compiled=False)
    assert found.facts["computes"] == "float32"
