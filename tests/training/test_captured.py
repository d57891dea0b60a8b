"""Captured steps: replayed on a CPU, they give what the same steps give without a graph."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.data.base import Data
from extracurricular.distributions import Categorical, Distribution
from extracurricular.errors import TrainingError
from extracurricular.inputs import Batch, static_shapes
from extracurricular.matching import Matching
from extracurricular.models import build_model
from extracurricular.samplers import Empirical, Mixup, Sampler, Uncertain
from extracurricular.samplers.base import SAMPLERS
from extracurricular.teachers import Ensemble, Labels, MCDropout, Network, Teacher
from extracurricular.training import Execution, Schedule, Training, launch, train
from extracurricular.training import steps as the_steps
from extracurricular.training.additions import Additions
from extracurricular.training.captured import step_obstacle
from extracurricular.training.draw import Shared
from extracurricular.training.features import Features
from extracurricular.training.graphs import has_graphs
from extracurricular.training.loop import cpu_fabric
from extracurricular.training.optimizer import learning_rate
from extracurricular.training.together import together
from tests.conftest import eye_data, image_data, small_teacher, table_data
from tests.test_laws import CASES, DATA, built
from tests.training.tape import TapeGraph

IMAGES = image_data()
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def on_a_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU, with graphs, and with the numbers of a step and static shapes as on a GPU."""
    monkeypatch.setattr(the_steps, "Schedule", lambda settings, device: Schedule(settings, CPU))
    monkeypatch.setattr(launch, "has_graphs", lambda device: True)
    monkeypatch.setattr(launch, "new_graph", TapeGraph)
    with static_shapes():
        yield


def network(data: Data, seed: int = 0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    outputs = data.task.outputs
    if isinstance(data.shapes, tuple) and len(data.shapes) == 3:
        spec: Any = {"digits_cnn": {"width": 2, "depth": 1, "dropout": dropout}}
        return build_model(spec, inputs=data.shapes, outputs=outputs)
    spec = {"mlp": {"hidden": [8], "dropout": dropout}}
    return build_model(spec, inputs=data.shapes, outputs=outputs)


def trained(
    capture: str,
    sampler: Sampler,
    teacher: Teacher,
    data: Data,
    student: nn.Module | None = None,
    **more: Any,
) -> tuple[dict[str, Tensor], list[float], int, list[str]]:
    """Train; return weights, losses of the log, number of replays, and the sentences told."""
    student = student or network(data)
    wanted = {"steps": 50, "batch_size": 6, "lr": 0.02, "warmup": 3, "clip_norm": 1.0, "ema": 0.9}
    settings = Training(**{**wanted, **more.pop("settings", {})})
    lines: list[dict[str, Any]] = []
    said: list[str] = []
    before = TapeGraph.replays
    train(
        student, sampler, teacher, data.task, settings=settings, on_log=lines.append,
        execution=Execution(capture=capture), tell=said.append, **more,
    )  # fmt: skip
    losses = [line["loss"] for line in lines]
    return student.state_dict(), losses, TapeGraph.replays - before, said


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("chain", "kind", "optimizer"),
    [(*case, ("sgd", "adamw")[number % 2]) for number, case in enumerate(CASES)],
)
def test_captured_steps_equal_eager_ones(chain: str, kind: str, optimizer: str) -> None:
    """Every sampler, with every kind of data that it takes."""
    data = DATA[kind]()
    found = {}
    for capture in ("off", "auto"):
        sampler, teacher = built(chain, data, seed=3), small_teacher(data)
        more = {"settings": {"optimizer": optimizer}}
        found[capture] = trained(capture, sampler, teacher, data, **more)
    eager, captured = found["off"], found["auto"]
    assert eager[2] == 0
    assert captured[2] >= 50
    assert captured[3] == []
    assert eager[1] == captured[1]
    assert same(eager[0], captured[0])


TEACHERS: dict[str, Callable[[], Teacher]] = {
    "labels": Labels,
    "network": lambda: Network(network(IMAGES, 5).eval(), IMAGES.task),
    "ensemble": lambda: Ensemble([Network(network(IMAGES, s), IMAGES.task) for s in (5, 6)]),
    "dropout": lambda: MCDropout(network(IMAGES, 5, dropout=0.4), IMAGES.task, passes=2),
}


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("divergence", ["forward_kl", "js"])
def test_every_teacher_and_loss_is_captured(teacher: str, divergence: str) -> None:
    matching = Matching(divergence, 1.0 if teacher == "labels" else 3.0, 0.25)
    eager, captured = (
        trained(capture, Mixup(Empirical(IMAGES)), TEACHERS[teacher](), IMAGES, matching=matching)
        for capture in ("off", "auto")
    )
    assert captured[3] == []
    assert eager[1] == captured[1]
    assert same(eager[0], captured[0])


@pytest.mark.parametrize("data", [eye_data(), table_data()])
def test_dropout_of_the_student_is_that_of_the_step(data: Data) -> None:
    eager, captured = (
        trained(c, Empirical(data), Labels(), data, network(data, 1, dropout=0.3))
        for c in ("off", "auto")
    )
    assert same(eager[0], captured[0])
    assert len(set(captured[1])) > 10


@pytest.mark.parametrize("stop", [1, 7, 16, 33, 49])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_interrupted_training_goes_on_to_the_last_bit(
    stop: int, optimizer: str, tmp_path: Path
) -> None:
    """The interruption falls within a chunk of draws, at its edges, and before the end."""

    def progress(step: int, _: float) -> None:
        if step >= stop:
            raise KeyboardInterrupt

    arguments = {"settings": {"optimizer": optimizer, "checkpoint_every": 7}}
    teacher = small_teacher(IMAGES)
    whole = trained("auto", Mixup(Empirical(IMAGES)), teacher, IMAGES, **arguments)
    with pytest.raises(KeyboardInterrupt):
        trained(
            "auto", Mixup(Empirical(IMAGES)), teacher, IMAGES,
            folder=tmp_path, on_progress=progress, **arguments,
        )  # fmt: skip
    rest = trained("auto", Mixup(Empirical(IMAGES)), teacher, IMAGES, folder=tmp_path, **arguments)
    assert rest[2] < whole[2] or stop <= 7
    assert same(whole[0], rest[0])
    # And without graphs from there on.
    again = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        trained(
            "auto", Mixup(Empirical(IMAGES)), teacher, IMAGES,
            folder=again, on_progress=progress, **arguments,
        )  # fmt: skip
    eager = trained("off", Mixup(Empirical(IMAGES)), teacher, IMAGES, folder=again, **arguments)
    assert eager[2] == 0
    assert same(whole[0], eager[0])


def test_evaluations_between_steps_leave_no_trace() -> None:
    def evaluate(module: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"mean": float(module(torch.randn(9, *IMAGES.shapes)).mean())}

    plain = trained("auto", Empirical(IMAGES), small_teacher(IMAGES), IMAGES)
    watched = trained(
        "auto", Empirical(IMAGES), small_teacher(IMAGES), IMAGES,
        evaluate=evaluate, settings={"evaluate_every": 3},
    )  # fmt: skip
    assert same(plain[0], watched[0])


def test_the_tape_is_as_strict_as_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning rate that Python changes is baked in, so that the numbers are others."""
    right = trained("auto", Empirical(IMAGES), Labels(), IMAGES)
    monkeypatch.setattr(the_steps, "Schedule", lambda settings, device: Schedule(settings, None))
    wrong = trained("auto", Empirical(IMAGES), Labels(), IMAGES)
    assert right[1][-1] != wrong[1][-1]
    assert learning_rate(Training(steps=50), 0) != learning_rate(Training(steps=50), 40)


# What is not captured


class Host:
    """A teacher that no graph can hold."""

    def __call__(self, batch: Batch) -> Distribution:
        sums = torch.tensor([float(v.sum()) for v in batch.x])
        return Categorical(torch.stack([sums.sin(), sums.cos(), sums, -sums], 1))


def test_what_no_graph_can_hold_is_copied_into_the_buffers() -> None:
    sampler = Mixup(Empirical(IMAGES))
    eager = trained("off", sampler, Host(), IMAGES)
    captured = trained("auto", sampler, Host(), IMAGES)
    assert same(eager[0], captured[0])
    assert captured[2] == 50
    assert captured[3] == [
        "steps are captured, draws are not: Host does not say that it is capturable"
    ]


def test_a_choice_by_the_students_own_answers_is_made_at_its_step() -> None:
    found = {}
    for capture in ("off", "auto"):
        student = network(IMAGES)
        sampler = Uncertain(
            Mixup(Empirical(IMAGES)), small_teacher(IMAGES), score="divergence", student=student,
            task=IMAGES.task,
        )  # fmt: skip
        found[capture] = trained(capture, sampler, sampler.teacher, IMAGES, student)
    assert same(found["off"][0], found["auto"][0])


class Asking(nn.Module):
    """A student whose flow depends on its input, and who says nothing of it."""

    def __init__(self, says: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 4)
        if says:
            self.capturable = False

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if x.sum().item() > 1e9:
            x = x / 2
        return self.layer(x)


@pytest.mark.parametrize("says", [True, False])
def test_a_student_that_asks_the_host_is_trained_without_graphs(
    says: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "new_graph", Refusing)

    def student() -> nn.Module:
        torch.manual_seed(0)
        return Asking(says)

    eager = trained("off", Empirical(IMAGES), Labels(), IMAGES, student())
    other = trained("auto", Empirical(IMAGES), Labels(), IMAGES, student())
    assert same(eager[0], other[0])
    [sentence] = other[3]
    why = "Asking says that it is not capturable" if says else "a value is read"
    assert sentence.startswith("steps are not captured: ")
    assert why in sentence


class Refusing(TapeGraph):
    """A graph that fails as a device does."""

    def capture(self, body: Callable[[], None]) -> None:
        try:
            super().capture(body)
        except AssertionError as error:
            raise RuntimeError("a value is read while capturing\nmore lines") from error


def test_obstacles_of_a_step_are_clauses() -> None:
    fabric, student = cpu_fabric(), network(IMAGES)
    assert step_obstacle(student, Matching(), fabric) is None
    assert not has_graphs(CPU)
    own = Matching("tests.test_law_8:divergence")
    assert "divergence" in str(step_obstacle(student, own, fabric))


def test_a_fault_in_captured_draws_stops_the_training() -> None:
    class Late:
        capturable = True

        def __call__(self, batch: Batch) -> Distribution:
            bad = (batch.ids == 177).view(-1, 1)
            return Categorical(torch.where(bad, math.nan, torch.zeros(len(batch.ids), 4)))

    with pytest.raises(TrainingError, match=r"infinity for 1 of \d+ draws: ids 177"):
        trained("auto", Empirical(IMAGES), Late(), IMAGES)


# Several at once


def cohort(capture: str, shared: Shared | None, steps: int, divergence: str) -> Any:
    return trained(
        capture, Mixup(Empirical(IMAGES), seed=4), small_teacher(IMAGES), IMAGES,
        matching=Matching(divergence, 2.0), shared=shared, settings={"steps": steps},
    )  # fmt: skip


@pytest.mark.parametrize("capture", ["off", "auto"])
@pytest.mark.parametrize("sharing", [False, True])
def test_trainings_at_once_are_those_one_after_the_other(capture: str, sharing: bool) -> None:
    wanted = [(50, "forward_kl"), (50, "js"), (37, "js")]
    apart = [cohort(capture, None, *one) for one in wanted]
    shared = Shared() if sharing else None
    state = torch.random.get_rng_state()
    at_once = together([lambda one=one: cohort(capture, shared, *one) for one in wanted], CPU)
    assert torch.equal(state, torch.random.get_rng_state())
    for one, other in zip(apart, at_once, strict=True):
        assert one[1] == other[1]
        assert same(one[0], other[0])


@pytest.mark.parametrize("capture", ["off", "auto"])
def test_a_cohort_asks_the_teacher_once(capture: str) -> None:
    asked: list[int] = []
    inner = small_teacher(IMAGES)

    def teacher(batch: Batch) -> Distribution:
        asked.append(len(batch))
        return inner(batch)

    def one(shared: Shared | None, temperature: float) -> Any:
        return trained(
            capture, Mixup(Empirical(IMAGES)), teacher, IMAGES,
            matching=Matching(temperature=temperature), shared=shared,
        )  # fmt: skip

    one(None, 1.0)
    alone = sum(asked)
    asked.clear()
    shared = Shared()
    together([lambda t=t: one(shared, t) for t in (1.0, 4.0, 9.0)])
    assert sum(asked) == alone


def test_a_failure_before_others_have_begun_ends_them_too() -> None:
    begun: list[str] = []

    def fails() -> None:
        raise TrainingError("no")

    with pytest.raises(TrainingError, match="no"):
        together([fails, lambda: begun.append("second"), lambda: begun.append("third")])
    assert begun == []


def test_one_failure_ends_the_others_at_their_next_chunk(tmp_path: Path) -> None:
    def fails() -> Any:
        raise TrainingError("no")

    def goes_on() -> Any:
        return trained(
            "off", Empirical(IMAGES), Labels(), IMAGES, folder=tmp_path,
            settings={"checkpoint_every": 10, "steps": 2000},
        )  # fmt: skip

    with pytest.raises(TrainingError, match="no"):
        together([goes_on, fails, goes_on])
    assert len(list(tmp_path.glob("*"))) >= 1
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) < 20


# The check that is made on a GPU


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    deterministic = torch.are_deterministic_algorithms_enabled()
    tf32, tuned = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield importlib.import_module("gpu_check")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = tf32, tuned


@pytest.mark.parametrize(
    "only", ["uncertain of images", "teacher: dropout", "teacher: a record", "a cohort", "two at"]
)
def test_the_check_for_gpus_finds_captured_steps_equal(
    only: str, gpu_check: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.json"
    arguments = ["--device", "cpu", "--only", only, "--json", str(file)]
    assert gpu_check.main(arguments) == 0
    assert "1 of 1 cases are equal to the last bit" in capsys.readouterr().out
    assert list(json.loads(file.read_text())["results"].values()) == [""]


def test_the_check_for_gpus_tells_a_difference(
    gpu_check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(the_steps, "Schedule", lambda settings, device: Schedule(settings, None))
    assert gpu_check.main(["--device", "cpu", "--only", "mixup of table"]) == 1
    assert "differs" in capsys.readouterr().out


def test_the_check_for_gpus_goes_through_every_sampler(gpu_check: Any) -> None:
    written = json.dumps(gpu_check.CHAINS)
    assert [name for name in SAMPLERS.names() if ":" not in name and name not in written] == []
    wanted = {case.chain for case in gpu_check.cases()}
    assert wanted | set(gpu_check.STREAMED) == set(gpu_check.CHAINS)


@pytest.mark.parametrize(
    ("additions", "settings"),
    [
        (Additions(Features("0", "0")), {}),
        (Additions(Features("0", "0", "similarity")), {}),
        (Additions(quantise="int8"), {}),
        (Additions(), {"accumulate": 3}),
        (Additions(), {"freeze": ["0.*", "1.*"]}),
        (Additions(), {"optimizer": "lion", "lr": 1e-3}),
        (Additions(), {"optimizer": "adam", "lr": 1e-3}),
    ],
)
def test_what_a_training_has_besides_is_captured(
    additions: Additions, settings: dict[str, Any]
) -> None:
    teacher = Network(network(IMAGES, 5), IMAGES.task)
    plain = trained(
        "off", Mixup(Empirical(IMAGES)), teacher, IMAGES, settings=settings, additions=additions
    )
    graph = trained(
        "auto", Mixup(Empirical(IMAGES)), teacher, IMAGES, settings=settings, additions=additions
    )
    assert graph[2] > 0
    assert graph[3] == []
    for name, value in plain[0].items():
        torch.testing.assert_close(graph[0][name], value, rtol=1e-4, atol=1e-5)


def test_an_optimizer_that_counts_on_the_host_is_not_captured() -> None:
    found = trained(
        "auto", Empirical(IMAGES), Labels(), IMAGES, settings={"optimizer": "adagrad", "lr": 0.1}
    )
    assert found[2] == 0
    assert found[3] == ["steps are not captured: Adagrad counts its steps on the host"]
