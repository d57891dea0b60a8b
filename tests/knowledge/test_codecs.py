"""Codecs: what comes back is a distribution, near the one that went in, whatever that was."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from extracurricular.distributions import Categorical, Gaussian, Task
from extracurricular.errors import RecipeError, TrainingError
from extracurricular.knowledge import CODECS, Codec, build_codec, default_codec
from extracurricular.knowledge.quantised import bound, refinement_bits

HUNDRED = Task("classification", 100)
REAL = Task("regression", 3)


def classes(size: int) -> Task:
    return Task("classification", size)


def teacher_like(count: int = 512, size: int = 100, seed: int = 0) -> dict[str, Categorical]:
    """Logits as trained networks give them: a crowd, and a few classes that stand out."""
    generator = torch.Generator().manual_seed(seed)
    crowd = torch.randn(count, size, generator=generator)
    share = torch.rand(count, generator=generator)
    sure, mixed, unsure = 1.5 * crowd, 1.5 * crowd, 2.2 * crowd
    sure = torch.cat([sure[:, :1] + 12, sure[:, 1:4] + 3, sure[:, 4:]], 1)
    mixed = torch.cat(
        [
            mixed[:, :1] + 3 + 6 * share[:, None],
            mixed[:, 1:2] + 9 - 6 * share[:, None],
            mixed[:, 2:],
        ],
        1,
    )
    return {"sure": Categorical(sure), "mixed": Categorical(mixed), "unsure": Categorical(unsure)}


def kl(codec: Codec, truth: Categorical, temperature: float = 1.0) -> Tensor:
    stored = codec.decode(codec.encode(truth))
    assert isinstance(stored, Categorical)
    return truth.tempered(temperature).kl(stored.tempered(temperature))


# Mean KL at T = 1 and at T = 4 that each may cost on outputs like those of teachers.
@pytest.mark.parametrize(
    ("spec", "size", "limit"),
    [
        ("float32", 400, 1e-9),
        ("float16", 200, 1e-6),
        ("uint8", 102, 1e-4),
        ("uint4", 63, 1e-3),
        ({"uint4": {"refine": 30}}, 82, 2e-4),
        ({"uint4": {"refine": 0}}, 52, 2e-2),
        ({"topk": {"k": 20}}, 62, 2e-1),
    ],
)
def test_bytes_and_kl_on_outputs_like_those_of_teachers(
    spec: object, size: int, limit: float
) -> None:
    codec = build_codec(spec, HUNDRED)
    assert codec.bytes_per_draw == size
    for name, truth in teacher_like().items():
        for temperature in (1.0, 4.0):
            assert float(kl(codec, truth, temperature).mean()) < limit, (name, temperature)


SPECS: list[object] = [
    "float16", "float32", "uint8", "uint4", {"uint4": {"refine": 0}}, {"topk": {"k": 2}},
]  # fmt: skip


@st.composite
def logits(draw: st.DrawFn) -> Tensor:
    size = draw(st.sampled_from([2, 3, 7, 10, 100, 255, 256, 257, 1000]))
    spread = draw(st.sampled_from([0.0, 1e-4, 0.1, 1.0, 5.0, 50.0, 1e3, 1e6, 1e30]))
    seed = draw(st.integers(0, 2**31))
    values = torch.randn(3, size, generator=torch.Generator().manual_seed(seed)) * spread
    if draw(st.booleans()):
        values[0] = torch.where(torch.arange(size) == draw(st.integers(0, size - 1)), 0.0, -87.3)
    return values


@settings(max_examples=150, deadline=None)
@given(logits(), st.sampled_from(SPECS))
def test_whatever_goes_in_a_distribution_comes_out(values: Tensor, spec: object) -> None:
    truth = Categorical(values)
    codec = build_codec(spec, classes(values.shape[1]))
    rows = codec.encode(truth)
    assert rows.dtype == torch.uint8
    assert rows.shape == (3, codec.bytes_per_draw)
    stored = codec.decode(rows)
    assert isinstance(stored, Categorical)
    assert bool(torch.isfinite(stored.logits).all())
    assert stored.probs.shape == values.shape
    assert torch.allclose(stored.probs.sum(1), torch.ones(3), atol=1e-4)
    # Rows stand for themselves: the same bits alone, and in any batch.
    for k in range(3):
        one = codec.decode(rows[k : k + 1])
        assert isinstance(one, Categorical)
        assert torch.equal(one.logits[0], stored.logits[k])
    if spec in ("float16", "float32", "uint8"):
        # Half a step of the coarsest cell, twice (for two classes), is what each can be off by.
        span = float((truth.log_probs.amax(1) - truth.log_probs.amin(1)).clamp(max=945).max())
        assert float(truth.kl(stored).max()) <= {"uint8": 2 * span / 240}.get(str(spec), 1e-2)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("size", [2, 3, 10, 100, 1000])
def test_one_hot_and_uniform_rows(spec: object, size: int) -> None:
    codec = build_codec(spec, classes(size))
    uniform = Categorical(torch.full((1, size), 3.0))
    assert float(kl(codec, uniform)) < 1e-6
    which = torch.arange(0, size, max(1, size // 20))
    hot = Categorical.from_probs(torch.nn.functional.one_hot(which, size))
    stored = codec.decode(codec.encode(hot))
    assert isinstance(stored, Categorical)
    assert torch.equal(stored.logits.argmax(1), which)
    assert float(kl(codec, hot).max()) < 1e-3


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SPECS), st.integers(0, 2**31))
def test_any_bytes_decode_to_something(spec: object, seed: int) -> None:
    """Bytes that were never a row must not point outside of anything."""
    codec = build_codec(spec, classes(37))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 256, (8, codec.bytes_per_draw), generator=generator).to(torch.uint8)
    assert codec.decode(rows).parameters.shape == (8, 37)


def test_the_likeliest_class_and_its_order_survive_four_bits() -> None:
    for truth in teacher_like(256).values():
        stored = build_codec("uint4", HUNDRED)
        back = stored.decode(stored.encode(truth))
        assert isinstance(back, Categorical)
        top = truth.log_probs.topk(2, dim=1)
        clear = (top.values[:, 0] - top.values[:, 1]) > 0.2
        assert torch.equal(back.logits.argmax(1)[clear], top.indices[clear, 0])


def test_topk_keeps_the_remaining_mass_and_spreads_it_equally() -> None:
    probs = torch.tensor([[0.5, 0.05, 0.25, 0.05, 0.15]])
    codec = build_codec({"topk": {"k": 2}}, classes(5))
    stored = codec.decode(codec.encode(Categorical(probs.log())))
    assert isinstance(stored, Categorical)
    expected = torch.tensor([[0.5, 1 / 12, 0.25, 1 / 12, 1 / 12]])
    assert torch.allclose(stored.probs, expected, atol=1e-3)
    everything = build_codec({"topk": {"k": 5}}, classes(5))
    assert float(kl(everything, Categorical(probs.log()))) < 1e-6


def test_the_top_ten_hold_but_a_part_of_the_mass_at_high_temperature() -> None:
    """Why the tail is kept: without it, this is what a student would never hear of."""
    flat = teacher_like()["unsure"].tempered(4.0)
    assert float(flat.probs.topk(10, dim=1).values.sum(1).mean()) < 0.4


def test_gaussians_keep_mean_and_log_variance() -> None:
    truth = Gaussian(torch.randn(50, 3), torch.randn(50, 3) - 2)
    for spec, size, limit in (("float16", 12, 1e-5), ("float32", 24, 1e-9)):
        codec = build_codec(spec, REAL)
        assert codec.bytes_per_draw == size
        stored = codec.decode(codec.encode(truth))
        assert isinstance(stored, Gaussian)
        assert float(truth.kl(stored).max()) < limit
    exact = build_codec("float32", REAL)
    back = exact.decode(exact.encode(truth))
    assert torch.equal(back.parameters, truth.parameters)
    with pytest.raises(TrainingError, match=r"gave 1e.05, and float16 holds numbers up to 65504"):
        build_codec("float16", REAL).encode(Gaussian(torch.full((1, 3), 1e5), torch.zeros(1, 3)))


@pytest.mark.parametrize("spec", ["float16", "uint8", "uint4", "topk"])
def test_no_rows_are_rows_too(spec: str) -> None:
    codec = build_codec(spec, HUNDRED)
    rows = codec.encode(Categorical(torch.empty(0, 100)))
    assert rows.shape == (0, codec.bytes_per_draw)
    assert len(codec.decode(rows)) == 0


def test_refinement_goes_to_the_first_ranks() -> None:
    for size, bits in ((100, 88), (10, 16), (2, 8), (1000, 880), (3, 24)):
        ladder = refinement_bits(size, bits)
        assert sum(ladder) == min(bits, 8 * size)
        assert list(ladder) == sorted(ladder, reverse=True)
        assert max(ladder) <= 8
        assert len(ladder) <= size


def test_defaults_and_what_is_refused() -> None:
    assert default_codec(classes(256)) == default_codec(REAL) == "float16"
    assert default_codec(classes(257)) == "uint8"
    assert set(CODECS.names()) == {"float16", "float32", "topk", "uint4", "uint8"}
    for spec, task, said in (
        ("uint8", REAL, "codec.uint8: the codec 'uint8' is for classes; for regression use"),
        ("topk", REAL, "codec.topk: the codec 'topk' is for classes"),
        ({"topk": {"k": 0}}, HUNDRED, "k is 0; it must be from 1 to 100, the number of classes"),
        ({"topk": {"k": 101}}, HUNDRED, "k is 101"),
        ({"uint4": {"refine": 101}}, HUNDRED, "refine is 101; it must be from 0 to 100"),
        ({"uint4": {"refin": 1}}, HUNDRED, "unknown key 'refin'; did you mean 'refine'"),
        ("float8", HUNDRED, "unknown codec 'float8'; did you mean 'float32'"),
    ):
        with pytest.raises(RecipeError) as caught:
            build_codec(spec, task)
        assert said in str(caught.value)


def test_half_of_a_step_is_never_worth_more_than_it_says() -> None:
    """KL of uint8 falls by 4 for each bit, so 4 bits without refinement cost far more."""
    truth = teacher_like(128)["unsure"]
    eight = float(kl(build_codec("uint8", HUNDRED), truth).mean())
    four = float(kl(build_codec({"uint4": {"refine": 0}}, HUNDRED), truth).mean())
    assert 4**2 < four / eight < 4**5
    assert math.isfinite(four)


# -- classes off the scale ------------------------------------------------------------------------

QUANTISED = [("uint8", 8), ("uint4", 4), ({"uint4": {"refine": 0}}, 4)]


@st.composite
def masked(draw: st.DrawFn) -> tuple[Tensor, float, float]:
    """Rows of which some classes are far off: logits, the depth of the others, and the gap."""
    size = draw(st.sampled_from([2, 3, 5, 10, 100, 257, 1000, 21843]))
    spread = draw(st.sampled_from([0.0, 0.1, 1.0, 3.0, 8.0]))
    peak = draw(st.sampled_from([0.0, 4.0, 15.0]))
    gap = draw(st.sampled_from([60.0, 100.0, 300.0, 1e3, 1e4, math.inf]))
    share = draw(st.floats(0.0, 1.0))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.randn(2, size, generator=generator) * spread
    values[:, 0] += peak
    off = torch.rand(2, size, generator=generator) < share
    off[:, 0] = False
    near = values.masked_fill(off, math.inf).amin(1, keepdim=True)
    depth = float((values.masked_fill(off, -math.inf).amax(1, keepdim=True) - near).max())
    return torch.where(off, near - gap, values), depth, gap


@settings(max_examples=30, deadline=None)
@given(masked(), st.sampled_from(QUANTISED))
def test_classes_off_the_scale_do_not_cost_the_others_their_steps(
    row: tuple[Tensor, float, float], spec: tuple[object, int]
) -> None:
    values, depth, gap = row
    truth = Categorical(values)
    codec = build_codec(spec[0], classes(values.shape[1]))
    # Classes that are far off, but not masked, have some probability, and one distance for all.
    rest = sum(values.shape[1] * math.exp(-0.8 * gap / t) * (1 + gap / t) for t in (1.0, 4.0)
               if gap < 1500)  # fmt: skip
    found = kl(codec, truth) + kl(codec, truth, 4.0)
    assert float(found.max()) <= bound(spec[1], depth) + rest + 1e-5


@pytest.mark.parametrize(("spec", "bits"), QUANTISED)
def test_a_masked_row_keeps_the_order_of_the_others(spec: object, bits: int) -> None:
    logits = torch.tensor([[4.0, 1.0, 0.0, -1.0, -2.0, 2.5, -math.inf, -1e4]])
    codec = build_codec(spec, classes(8))
    stored = codec.decode(codec.encode(Categorical(logits)))
    assert isinstance(stored, Categorical)
    assert float(stored.probs[0, 6:].max()) < 1e-30
    assert stored.logits[0, :6].argsort().tolist() == logits[0, :6].argsort().tolist()
    assert float(kl(codec, Categorical(logits)).max()) < bound(bits, 6.0)


# Rows of format 1, as version 0.1.0 wrote them before classes could be off the scale.
FORMAT_1 = {
    "uint8": (
        "9b020020612bf800000000000000b000ff00012018",
        [
            [0, -1.9972, -5.0045, -2.5061, -11.9907], [0] * 5,
            [-30.5814, 0, -0.0862, -2.9628, -1.972],
        ],
    ),
    "uint4": (
        "9a030152f00b000000000000ad00f0021005",
        [
            [0, -2.0233, -4.9523, -2.6091, -11.6472], [0] * 5,
            [-26.4737, 0, -0.1009, -2.9824, -2.1123],
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("spec", sorted(FORMAT_1))
def test_rows_of_the_first_format_are_read_as_they_were(spec: str) -> None:
    content, logits = FORMAT_1[spec]
    codec = build_codec(spec, classes(5))
    rows = torch.tensor(list(bytes.fromhex(content)), dtype=torch.uint8).view(3, -1)
    stored = codec.decode(rows)
    assert torch.allclose(stored.parameters, torch.tensor(logits), atol=1e-4)


def test_the_bound_grows_with_the_depth_and_falls_with_the_bits() -> None:
    assert bound(8, 0.0) < 1e-5
    assert bound(8, 20.0) < 2e-3 < bound(4, 5.0) < bound(4, 10.0) < 0.3
