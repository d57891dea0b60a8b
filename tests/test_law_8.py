"""Law 8: a step never asks the host.

:class:`Obey` refuses what would: reads of values, shapes that depend on data, copies to and from
the host. Under it run all samplers, teachers and losses of the package in the masked selection,
and the whole loop between two lines of its log.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from extracurricular.data.base import Data, Split
from extracurricular.distributions import Bernoulli, Categorical, Distribution, Gaussian
from extracurricular.errors import TrainingError
from extracurricular.generators.base import Generator
from extracurricular.generators.custom import OwnModule
from extracurricular.inputs import (
    Batch,
    is_deferred,
    is_static,
    leaves,
    obstacle,
    soft_labels,
    static_shapes,
)
from extracurricular.knowledge import Answers, Recorded, Replay
from extracurricular.matching import DIVERGENCES, Matching, traits_of
from extracurricular.models import build_model
from extracurricular.samplers import (
    Blend,
    Empirical,
    Generated,
    Mixup,
    Pool,
    ResizedCrop,
    Sampler,
    Uncertain,
    build_sampler,
)
from extracurricular.samplers.scores import SCORES, needs
from extracurricular.teachers import Ensemble, Labels, MCDropout, Network, Teacher
from extracurricular.teachers.base import Faults, on_draws
from extracurricular.teachers.raw import FunctionTeacher
from extracurricular.training import Schedule, Training, cpu_fabric, draws, learning_rate, train
from extracurricular.training import loop as the_loop
from extracurricular.training import steps as the_steps
from extracurricular.training.optimizer import ema_decay
from tests.conftest import image_data, small_context, small_teacher, table_data
from tests.test_laws import CASES, CHAINS, DATA, built, same

IMAGES = image_data()
IDS = torch.cat([torch.arange(90), torch.tensor([2**40, 2**62 + 1])])

READS = {
    "aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::allclose",
    "aten::nonzero", "aten::masked_select", "aten::_unique", "aten::_unique2", "aten::unique_dim",
    "aten::unique_consecutive", "aten::bincount", "aten::lift_fresh",
    "aten::repeat_interleave",
}  # fmt: skip
INDEXES = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class _Operations(TorchDispatchMode):
    """Refuses operations that wait for the device."""

    active, seen = True, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.active:
            name = func._schema.name
            self.seen += 1
            assert name not in READS, f"a step runs {name}"
            if name in INDEXES:
                kinds = [i.dtype for i in args[1] if i is not None]
                assert torch.bool not in kinds, "a step indexes with a mask"
                assert torch.uint8 not in kinds, "a step indexes with a mask"
            devices = {v.device for v in args if isinstance(v, Tensor) and v.ndim > 0}
            devices |= {v for k, v in (kwargs or {}).items() if k == "device" and devices}
            assert len({str(d) for d in devices if d is not None}) <= 1, f"{name} copies"
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Refuses calls that read the memory of a tensor, or that make one from Python's values."""

    active = True
    refused = (
        "numpy", "tolist", "item", "cpu", "cuda", "__array__", "__bool__", "__int__", "__float__",
        "__index__", "tensor", "as_tensor", "from_numpy", "asarray", "frombuffer",
    )  # fmt: skip

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        assert not (self.active and name in self.refused), f"a step calls {name}"
        return func(*args, **(kwargs or {}))


class Obey:
    """Refuses, while it is entered, all that a CUDA graph could not hold."""

    def __init__(self) -> None:
        self.modes = (_Operations(), _Calls())

    def __enter__(self) -> Obey:
        for mode in self.modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self.modes):
            mode.__exit__(*error)

    def set(self, active: bool) -> bool:
        """Refuse, or not, from now on; return whether it was so before."""
        before = self.modes[0].active
        for mode in self.modes:
            mode.active = active
        return before

    @property
    def seen(self) -> int:
        """Number of operations that were looked at."""
        return self.modes[0].seen


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x[x.argmax()],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: x.to("meta"),
        lambda x: x + torch.tensor([1.0]),
        lambda x: torch.masked_select(x, x > 0),
        lambda x: torch.equal(x, x),
        lambda x: x.index_put_((x > 0,), x.sum()),
        lambda x: nn.functional.one_hot(x.long(), 9),
        lambda x: torch.repeat_interleave(x, x.long()),
    ],
)
def test_what_asks_the_host_is_refused(asks: Callable[[Tensor], object]) -> None:
    with Obey(), pytest.raises(AssertionError, match=r"a step|copies"):
        asks(torch.arange(3.0))


# Draws


@pytest.mark.parametrize(("chain", "data"), CASES)
def test_draws_ask_nothing_and_are_the_same_in_both_selections(chain: str, data: str) -> None:
    sampler = built(chain, DATA[data](), seed=3)
    assert sampler.capturable  # type: ignore[attr-defined]
    gathered = sampler(IDS)
    with static_shapes(), Obey():
        masked = sampler(IDS)
    assert same(gathered, masked)
    with static_shapes():
        for some in (IDS[:0], IDS[7:8], IDS.flip(0)[:33]):
            with static_shapes(False):
                expected = sampler(some)
            assert same(sampler(some), expected)


@pytest.mark.parametrize("score", [name for name in SCORES.names() if ":" not in name])
@pytest.mark.parametrize("tau", [None, 0.1])
def test_every_score_asks_nothing_and_chooses_the_same(score: str, tau: float | None) -> None:
    data = table_data() if "variance" in score else IMAGES
    context = small_context(data)
    sampler = Uncertain(
        Mixup(Empirical(data)), context.teacher, score, candidates=3, tau=tau, plain_share=0.3,
        student=context.student, task=data.task,
    )  # fmt: skip
    gathered = sampler.choose(IDS)
    with static_shapes(), Obey(), torch.no_grad():
        masked = sampler.choose(IDS)
        again = sampler.replay(IDS, masked.index)
    assert same(gathered.batch, masked.batch)
    assert same(again, masked.batch)
    assert torch.equal(gathered.index, masked.index)
    assert torch.equal(gathered.prediction.parameters, masked.prediction.parameters)
    assert "student" in needs(SCORES.find(score)[0]) or sampler.pure


def test_a_blend_of_anything_is_the_same_in_both_selections() -> None:
    """Weights of zero, soft and hard labels, no labels, weighted examples, an uncertain child."""

    class Weighted:
        capturable = True

        def __call__(self, ids: Tensor) -> Batch:
            batch = Empirical(IMAGES)(ids)
            return replace(batch, weight=batch.ids.remainder(7).float())

    inner = Uncertain(Empirical(IMAGES), small_teacher(IMAGES), candidates=2)
    children: dict[str, Sampler] = {
        "plain": Empirical(IMAGES, seed=4), "never": Empirical(IMAGES), "soft": Mixup(inner),
        "weighted": Weighted(),
    }  # fmt: skip
    weights = {"plain": 1.0, "never": 0.0, "soft": 2.0, "weighted": 1.0}
    for names in (list(children), ["plain", "weighted"], ["soft"], ["never", "plain"]):
        blend = Blend({k: children[k] for k in names}, {k: weights[k] for k in names})
        gathered = blend(IDS)
        with static_shapes(), Obey():
            masked = blend(IDS)
        assert same(gathered, masked), names
    # A child that cannot say that it asks nothing is drawn from only where it was chosen.
    asked: list[int] = []

    def child(ids: Tensor) -> Batch:
        asked.append(len(ids))
        return Empirical(IMAGES)(ids)

    blend = Blend({"own": child, "plain": Empirical(IMAGES)}, {"own": 0.5, "plain": 0.5})
    with static_shapes():
        blend(IDS)
    assert 0 < asked[0] < len(IDS)


def test_labels_become_soft_without_a_look_at_them() -> None:
    y = torch.tensor([2, 0, 1, 2])
    expected = nn.functional.one_hot(y, 4).float()
    with Obey():
        soft = soft_labels(y, 4)
    assert torch.equal(soft, expected)
    for wrong in (4, -1):
        with pytest.raises(RuntimeError, match="out of bounds"):
            soft_labels(torch.tensor([0, wrong]), 4)


def test_the_selection_is_the_devices_unless_it_is_forced() -> None:
    cpu, other = torch.zeros(1), torch.zeros(1, device="meta")
    assert not is_static(cpu)
    assert is_static(other)
    assert not is_deferred()
    with static_shapes():
        assert is_static(cpu)
        assert is_deferred()
        with static_shapes(False):
            assert not is_static(other)
            assert not is_deferred()
        assert is_static(cpu)
    assert not is_static(cpu)


# Teachers and losses


def module(data: Data, dropout: float = 0.0) -> nn.Module:
    spec = {"mlp": {"hidden": [8], "dropout": dropout}}
    return build_model(spec, inputs=data.shapes, outputs=data.task.outputs)


TEACHERS: dict[str, Callable[[Data], Teacher]] = {
    "labels": lambda data: Labels(),
    "network": lambda data: Network(module(data), data.task),
    "ensemble": lambda data: Ensemble([Network(module(data), data.task), Labels()]),
    "dropout": lambda data: MCDropout(module(data, 0.5), data.task, passes=3),
}


@pytest.mark.parametrize("data", list(DATA))
@pytest.mark.parametrize("teacher", list(TEACHERS))
def test_teachers_ask_nothing(teacher: str, data: str) -> None:
    made = DATA[data]()
    asked = TEACHERS[teacher](made)
    assert asked.capturable  # type: ignore[attr-defined]
    batch = Empirical(made)(IDS)
    expected = asked(batch)
    faults = Faults(torch.device("cpu"))
    with static_shapes(), Obey():
        said = asked(batch)
        faults.add(said, batch.ids)
    assert torch.equal(said.parameters, expected.parameters)


@pytest.mark.parametrize(
    "chain",
    [
        "empirical",
        "pool",
        {"share": {"of": 0.5, "extended": ["pool"]}},
        {"blend": {k: {"weight": 1, "sampler": [k]} for k in ("empirical", "pool")}},
    ],
    ids=["empirical", "pool", "share", "blend"],
)
def test_stored_answers_are_found_without_a_question(chain: Any) -> None:
    count = len(IMAGES.train)
    ids = {"train": range(count), "unlabelled": range(count, 2 * count)}
    data = replace(IMAGES, ids=ids, unlabelled=Split(IMAGES.train.x.flip(0)))
    logits = torch.randn(2 * count, 4, generator=torch.Generator().manual_seed(0))
    sampler = build_sampler(chain, data, 2)
    asked = on_draws(Answers(logits=logits.numpy()).fit(data, 0), sampler)
    assert asked.capturable  # type: ignore[attr-defined]
    expected = asked(sampler(IDS))
    with static_shapes(), Obey():
        said = asked(sampler(IDS))
    assert torch.equal(said.parameters, expected.parameters)


KINDS = {0: "classification", 1: "regression", 3: "multilabel"}
LOSSES = [
    (name, kind)
    for name in DIVERGENCES.names()
    if ":" not in name
    for kind, task in KINDS.items()
    if task in traits_of(name).kinds
]


@pytest.mark.parametrize("label_weight", [0.0, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("divergence", "kind"), [*LOSSES, ("forward_kl", 2)])
def test_losses_ask_nothing_forth_and_back(
    divergence: str, temperature: float, label_weight: float, kind: int
) -> None:
    """Classes with hard and soft labels, real targets, point masses, and labels of 0 and 1."""
    output, answer = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4)
    labels = [torch.tensor([0, 1, 2, 3, 0, 1]), torch.softmax(torch.randn(6, 4), 1)]
    labels = labels if kind == 0 else [torch.randn(6, 2)]
    labels = [torch.rand(6, 4).round(), torch.rand(6, 4)] if kind == 3 else labels
    families = [Categorical, Gaussian, Gaussian, Bernoulli]
    read = families[kind].from_output
    matching = Matching(divergence, temperature, label_weight)
    assert matching.capturable
    for y in labels:
        for weight in (None, torch.rand(6)):
            with Obey():
                teacher = Gaussian.point(y) if kind == 2 else read(answer)
                matching(read(output), teacher, y, weight).backward()
    assert output.grad is not None
    assert bool(torch.isfinite(output.grad).all())


# The loop


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("chain", ["uncertain", "blend", "generated between", "pool"])
def test_the_loop_asks_nothing_between_two_lines_of_its_log(
    chain: str, optimizer: str, on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws, teacher, forward, loss, backward, clipping, optimiser, moving average."""
    settings = Training(
        steps=60, batch_size=8, lr=0.01, optimizer=optimizer, warmup=4, clip_norm=0.5, ema=0.9
    )  # fmt: skip

    def trained() -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        context = small_context(IMAGES)
        torch.manual_seed(4)
        student = build_model(
            {"digits_cnn": {"width": 2, "depth": 1, "dropout": 0.3}}, inputs=IMAGES.shapes,
            outputs=4,
        )  # fmt: skip
        sampler = build_sampler(CHAINS[chain], IMAGES, 1, context=context)
        sampler(IDS[:1])  # what is computed once, on the first draw, may ask
        lines: list[dict[str, Any]] = []
        train(
            student, sampler, context.teacher, IMAGES.task, matching=Matching("js", 2.0),
            settings=settings, on_log=lines.append,
        )  # fmt: skip
        return student.state_dict(), lines

    expected, lines = trained()
    obey = Obey()
    # These start, end, or write a line; between them are the steps.
    for name in ("__init__", "_read", "_report", "_finish"):
        pausing(monkeypatch, name, obey)
    if on_device:
        cpu = torch.device("cpu")
        monkeypatch.setattr(the_steps, "Schedule", lambda settings, device: Schedule(settings, cpu))
    obey.set(False)
    monkeypatch.setattr(the_loop._Loop, "run", obeying(the_loop._Loop.run, obey))
    with static_shapes(), obey:
        found, others = trained()
    assert len(lines) == len(others) == 60
    assert obey.seen > 1000
    for key, value in expected.items():
        if on_device:
            # Rates on the device are rounded to float32.
            assert torch.allclose(value, found[key], rtol=1e-3, atol=1e-4), key
        else:
            assert torch.equal(value, found[key]), key


def obeying(run: Callable[..., Any], obey: Obey) -> Callable[..., Any]:
    def method(*arguments: Any) -> Any:
        obey.set(True)
        try:
            return run(*arguments)
        finally:
            obey.set(False)

    return method


def pausing(monkeypatch: pytest.MonkeyPatch, name: str, obey: Obey) -> None:
    """Let a method of the loop ask."""
    inner = getattr(the_loop._Loop, name)

    def method(*arguments: Any) -> Any:
        before = obey.set(False)
        try:
            return inner(*arguments)
        finally:
            obey.set(before)

    monkeypatch.setattr(the_loop._Loop, name, method)


def test_the_numbers_of_a_step_are_the_same_on_the_device() -> None:
    settings = Training(steps=50, warmup=7, lr=0.3, ema=0.95)
    numbers, tensors = Schedule(settings, None), Schedule(settings, torch.device("cpu"))
    rate, forget = tensors.rate, tensors.forget
    for start in (0, 23):
        numbers.seek(start)
        tensors.seek(start)
        for step in range(start, 50):
            numbers.advance()
            with Obey():
                tensors.advance()
            assert numbers.rate == learning_rate(settings, step)
            assert numbers.forget == 1 - ema_decay(settings, step)
            # The same tensors at every step, for a graph to read.
            assert tensors.rate is rate
            assert tensors.forget is forget
            assert float(rate) == pytest.approx(numbers.rate, rel=1e-6)
            assert float(forget) == pytest.approx(numbers.forget, rel=1e-6)


# Faults that are found where the log is written


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_faults_gather_on_the_device(value: float) -> None:
    faults = Faults(torch.device("cpu"))
    good, bad = torch.zeros(5, 4), torch.zeros(5, 4)
    bad[3, 1] = bad[1, 0] = value
    faults.check()
    with Obey():
        faults.add(Categorical(good), torch.arange(5))
        faults.add(Categorical(bad), torch.arange(5, 10))
        faults.add(Gaussian.from_output(bad), torch.arange(10, 15))
    with pytest.raises(TrainingError, match=r"infinity for 4 of 15 draws: ids 6, …$"):
        faults.check()
    faults.clear()
    faults.add(Categorical(good), torch.arange(5))
    faults.check()


def test_a_generator_out_of_range_is_an_error_at_the_next_line_of_the_log() -> None:
    """In a step it becomes NaN; then the draws are made again, and checked."""
    generator = Generator(lambda z, c: z.view(-1, 1, 8, 8) * 5, latent=64, range=(-1, 1))
    wrong = Generated(IMAGES, generator)
    with static_shapes():
        wrong(IDS[:1])  # conditions are computed once
        with Obey():
            made = wrong(IDS).x
        assert isinstance(made, Tensor)
        assert bool(made.isnan().any())
        with pytest.raises(ValueError, match="the generator gave values from"):
            train(
                module(IMAGES), wrong, small_teacher(IMAGES), IMAGES.task,
                settings=Training(steps=200, batch_size=8),
            )  # fmt: skip


class Later:
    """A teacher that breaks from some step on, and only the first time it is asked."""

    capturable = True

    def __init__(self) -> None:
        self.asked: set[int] = set()

    def __call__(self, batch: Batch) -> Distribution:
        ids = batch.ids.tolist()
        logits = torch.zeros(len(ids), 4)
        for row, number in enumerate(ids):
            if number in (900, 1500) and number not in self.asked:
                logits[row] = math.nan
        self.asked |= set(ids)
        return Categorical(logits)


def test_a_fault_that_does_not_come_again_stops_a_training_too(tmp_path: Any) -> None:
    lines: list[dict[str, Any]] = []
    with pytest.raises(TrainingError, match=r"for 1 of \d+ draws: ids 900"):
        train(
            module(IMAGES), Empirical(IMAGES), Later(), IMAGES.task, folder=tmp_path,
            settings=Training(steps=500, batch_size=4, checkpoint_every=50), on_log=lines.append,
        )  # fmt: skip
    # Draw 900 is made with those of steps 224 to 239; the next line is that of step 230.
    assert lines[-1]["step"] == 220


# Tracing: no value exists at all


# Labels are the teacher only where the draws have some; the kinds of networks take turns.
NETWORKS = ("network", "dropout")
TRACED = [(*case, NETWORKS[k % 2]) for k, case in enumerate(CASES)]
TRACED += [(c, d, t) for c, d in CASES if c in ("blend", "mixup") for t in ("labels", "ensemble")]


@pytest.mark.parametrize(("chain", "data", "teacher"), TRACED)
def test_draws_teacher_and_loss_can_be_traced(chain: str, data: str, teacher: str) -> None:
    made = DATA[data]()
    sampler, student = built(chain, made, seed=3), module(made)
    asked = TEACHERS[teacher](made)
    sampler(IDS[:4])  # what is computed once is real
    matching = Matching("js" if teacher == "network" else "forward_kl", 2.0)
    with FakeTensorMode(allow_non_fake_inputs=True), static_shapes():
        ids = torch.arange(100)
        drawn = sampler(ids)
        said = asked(drawn)
        prediction = made.task.distribution(student(drawn.x))
        loss = matching(prediction, said, drawn.y, drawn.weight)
    assert len(drawn) == 100
    assert loss.shape == ()
    assert all(v.shape[0] == 100 for v in leaves(drawn.x).values())


# What cannot obey says so


def test_what_cannot_obey_says_why(streamed_data: Callable[..., Data]) -> None:
    streamed = streamed_data()
    teacher = FunctionTeacher(lambda x: x, IMAGES)
    recorded = Recorded.__new__(Recorded)

    class Own:
        def __call__(self, ids: Tensor) -> Batch:
            return Empirical(IMAGES)(ids)

    images = "its images are streamed from their files"
    cases: list[tuple[Any, str]] = [
        (Empirical(streamed), images),
        (ResizedCrop(streamed), images),
        (Mixup(ResizedCrop(streamed)), images),
        (Pool(streamed, streamed.train), images),
        (Blend({"a": Empirical(streamed)}, {"a": 1.0}), images),
        (Uncertain(Empirical(IMAGES), teacher), "the teacher is no torch module"),
        (Uncertain(Empirical(IMAGES), small_teacher(IMAGES), f"{__name__}:score"),
         "score does not say that it is capturable"),
        (Mixup(Own()), "Own does not say that it is capturable"),
        (Replay(Uncertain(Empirical(IMAGES), small_teacher(IMAGES)), 5, choices=choices),
         "choices does not say that it is capturable"),
        (teacher, "the teacher is no torch module"),
        (recorded, "a record is read by the host"),
        (Ensemble([small_teacher(IMAGES), teacher]), "the teacher is no torch module"),
        (Matching(f"{__name__}:divergence"), "divergence does not say that it is capturable"),
        (Generated(IMAGES, OwnModule(f"{__name__}:factory", 64).preview(IMAGES)),
         "drawn does not say that it is capturable"),
    ]  # fmt: skip
    for thing, reason in cases:
        assert not thing.capturable
        assert thing.obstacle == obstacle(thing) == reason
    Own.capturable = True  # type: ignore[attr-defined]
    assert Mixup(Own()).capturable
    assert obstacle(lambda ids: ids) == "<lambda> does not say that it is capturable"


def score(prediction: Distribution) -> Tensor:
    return prediction.entropy()


def divergence(teacher: Distribution, student: Distribution) -> Tensor:
    return teacher.kl(student)  # type: ignore[arg-type]


def choices(ids: Tensor) -> Tensor:
    return torch.zeros_like(ids)


def factory() -> Callable[[Tensor, Tensor], Tensor]:
    def drawn(latent: Tensor, condition: Tensor) -> Tensor:
        return latent.view(-1, 1, 8, 8).sigmoid() * 255

    return drawn


def test_only_what_the_host_feeds_is_told_of_draws_to_come() -> None:
    told: list[Tensor] = []

    class Hears:
        def __call__(self, ids: Tensor) -> Batch:
            return Empirical(IMAGES)(ids)

        def announce(self, ids: Tensor) -> None:
            told.append(ids)

    settings = Training(steps=20, batch_size=4)
    drawn = [
        list(draws(sampler, Labels(), settings, 0, fabric=cpu_fabric()))
        for sampler in (Hears(), Empirical(IMAGES))
    ]
    assert torch.equal(torch.cat(told), torch.arange(80))
    assert all(same(a, b) for (a, _), (b, _) in zip(*drawn, strict=True))
