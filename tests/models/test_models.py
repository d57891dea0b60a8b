from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.errors import RecipeError, StorageError
from extracurricular.files import save_weights
from extracurricular.models import MODELS, Shapes, build_model, parameter_count
from extracurricular.models.cost import cost, latency, multiply_adds, read_shapes
from extracurricular.models.shufflenet import shuffle
from extracurricular.models.weights import checksum, files_of, load_pretrained
from extracurricular.recipe.read import parse_recipe
from extracurricular.registry import split_spec
from extracurricular.run.execute import execute

GAZE = {"eye": (1, 36, 60), "pose": (2,)}
MIXED = {"age": (3,), "scan": (2, 16, 20), "dose": (1,)}


@dataclasses.dataclass(frozen=True)
class Example:
    spec: object
    inputs: Shapes
    outputs: int = 5

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return build_model(self.spec, inputs=self.inputs, outputs=self.outputs)

    def __str__(self) -> str:
        return f"{self.spec}-{self.inputs}"


EXAMPLES = [
    Example("mlp", (13,)),
    Example({"mlp": {"hidden": [8, 7], "norm": True}}, (1, 8, 8)),
    Example({"mlp": {"hidden": [6], "activation": "tanh"}}, MIXED),
    Example({"periodic_mlp": {"hidden": [6], "size": 2}}, (5,)),
    Example({"periodic_mlp": {"hidden": [6], "frequencies": 2}}, MIXED),
    Example("digits_cnn", (1, 8, 8)),
    Example({"digits_cnn": {"width": 2, "depth": 1}}, (3, 32, 32)),
    Example("resnet8", (1, 8, 8)),
    Example("resnet14", (3, 32, 32)),
    Example("resnet8", (1, 36, 60)),
    Example("resnet8x4", (3, 8, 8)),
    Example("wrn-10-2", (1, 8, 8)),
    Example("wrn-16-1", (3, 32, 32)),
    Example("wrn-10-1", (1, 36, 60)),
    Example("vgg8", (3, 32, 32)),
    Example("vgg13", (1, 8, 8)),
    Example("mobilenetv2", (3, 32, 32)),
    Example({"mobilenetv2": {"width": 0.1}}, (1, 36, 60)),
    Example("shufflenetv1", (3, 32, 32)),
    Example("shufflenetv2", (1, 8, 8)),
    Example("gaze_lenet", GAZE),
    Example({"gaze_lenet": {"width": 0.1}}, MIXED),
    Example("gaze_preact_resnet", GAZE),
    Example({"gaze_preact_resnet": {"width": 3}}, MIXED),
]
each = pytest.mark.parametrize("example", EXAMPLES, ids=str)


def draw(inputs: Shapes, batch: int, dtype: torch.dtype = torch.float32) -> Tensor | dict:
    if isinstance(inputs, dict):
        return {name: torch.randn(batch, *shape, dtype=dtype) for name, shape in inputs.items()}
    return torch.randn(batch, *inputs, dtype=dtype)


def pick(x: Tensor | dict, index: slice) -> Tensor | dict:
    if isinstance(x, dict):
        return {name: part[index] for name, part in x.items()}
    return x[index]


def count(spec: object, inputs: Shapes, outputs: int) -> int:
    with torch.device("meta"):
        return parameter_count(build_model(spec, inputs=inputs, outputs=outputs))


# --- every entry -------------------------------------------------------------------------------


def test_every_entry_has_an_example():
    tested = {MODELS.find(split_spec(example.spec, "model", "")[0])[0] for example in EXAMPLES}
    entries = {name: MODELS.find(name)[0] for name in MODELS.names()}
    own = {n: e for n, e in entries.items() if e.__module__.startswith("extracurricular.models.")}
    # Those of other libraries are tested by test_zoos.py.
    own = {n: e for n, e in own.items() if not e.__module__.endswith(".zoos")}
    assert len(own) >= 7
    assert [name for name, entry in own.items() if entry not in tested] == []


@each
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_output_shape(example, batch):
    model = example.build()
    x = draw(example.inputs, batch)
    for module in (model.train(), model.eval()):
        y = module(x)
        assert y.shape == (batch, example.outputs)
        assert y.isfinite().all()


@each
def test_seed_decides_the_weights(example):
    first, again, other = (example.build(seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@each
def test_inputs_are_left_as_they_were(example):
    model = example.build()
    x = draw(example.inputs, 3)
    before = {k: v.clone() for k, v in x.items()} if isinstance(x, dict) else x.clone()
    model(x)
    if isinstance(x, dict):
        assert all(torch.equal(x[name], before[name]) for name in x)
    else:
        assert torch.equal(x, before)


@each
def test_gradients_reach_every_parameter_and_input(example):
    model = example.build()
    x = draw(example.inputs, 6)
    leaves = list(x.values()) if isinstance(x, dict) else [x]
    for leaf in leaves:
        leaf.requires_grad_()
    y = model(x)
    (y * torch.randn_like(y)).sum().backward()
    for name, tensor in [
        *model.named_parameters(),
        *((f"input {i}", t) for i, t in enumerate(leaves)),
    ]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().sum() > 0, name


@each
def test_examples_are_independent_in_eval_mode(example):
    model = example.build().double()
    x = draw(example.inputs, 4, torch.float64)
    model.train()(x)  # running statistics of batch norm away from their start
    model.eval()
    together = model(x)
    alone = torch.cat([model(pick(x, slice(i, i + 1))) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


@each
def test_weights_load_into_a_second_model(example):
    model, other = example.build(0).eval(), example.build(1).eval()
    other.load_state_dict(model.state_dict())
    x = draw(example.inputs, 2)
    assert torch.equal(model(x), other(x))


# --- numbers of parameters ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet8", 83_892),
        ("resnet14", 181_108),
        ("resnet20", 278_324),
        ("resnet32", 472_756),
        ("resnet44", 667_188),
        ("resnet56", 861_620),
        ("resnet110", 1_736_564),
        ("resnet8x4", 1_233_540),
        ("resnet32x4", 7_433_860),
        ("wrn-16-1", 180_916),
        ("wrn-16-2", 703_284),
        ("wrn-40-1", 569_780),
        ("wrn-40-2", 2_255_156),
    ],
)
def test_parameters_for_cifar100(name, parameters):
    # As in the reference code of Tian et al. 2020 (github.com/HobbitLong/RepDistiller).
    assert count(name, (3, 32, 32), 100) == parameters
    # Only the linear layer depends on the outputs, only the first convolution on the channels.
    features = 256 if name.endswith("x4") else 64 * int(name[-1]) if "wrn" in name else 64
    stem = 32 if name.endswith("x4") else 16
    assert count(name, (1, 8, 8), 10) == parameters - 90 * (features + 1) - 2 * 9 * stem


def convolution(channels_in: int, channels: int, size: int, groups: int = 1) -> int:
    """Numbers of a convolution without bias, and of the batch norm behind it."""
    return channels_in // groups * channels * size**2 + 2 * channels


def vgg(*stages: int) -> int:
    total, here = 0, 3
    for blocks, width in zip(stages, (64, 128, 256, 512, 512), strict=True):
        for _ in range(blocks):
            total += convolution(here, width, 3) + width  # and a bias
            here = width
    return total + here * 100 + 100


def mobilenet() -> int:
    total, here = convolution(3, 16, 3), 16
    table = [(1, 8, 1), (6, 12, 2), (6, 16, 3), (6, 32, 4), (6, 48, 3), (6, 80, 3), (6, 160, 1)]
    for expansion, there, blocks in table:
        for _ in range(blocks):
            wide = expansion * here
            total += convolution(here, wide, 1) + convolution(1, wide, 3)
            total += convolution(wide, there, 1)
            here = there
    return total + convolution(here, 1280, 1) + 1280 * 100 + 100


def shufflenet_v1() -> int:
    total, here = convolution(3, 24, 1), 24
    for there, blocks in ((240, 4), (480, 8), (960, 4)):
        for block in range(blocks):
            made = there - here if block == 0 else there
            narrow = made // 4
            total += convolution(here, narrow, 1, 1 if here == 24 else 3)
            total += convolution(1, narrow, 3) + convolution(narrow, made, 1, 3)
            here = there
    return total + here * 100 + 100


def shufflenet_v2() -> int:
    total, here = convolution(3, 24, 1), 24
    for there, blocks in ((116, 3), (232, 7), (464, 3)):
        half = there // 2
        total += convolution(1, here, 3) + 2 * convolution(here, half, 1)
        total += convolution(1, half, 3) + convolution(half, half, 1)
        total += blocks * (2 * convolution(half, half, 1) + convolution(1, half, 3))
        here = there
    return total + convolution(here, 1024, 1) + 1024 * 100 + 100


@pytest.mark.parametrize(
    ("name", "parameters", "by_hand"),
    [
        ("vgg8", 3_965_028, vgg(1, 1, 1, 1, 1)),
        ("vgg13", 9_462_180, vgg(2, 2, 2, 2, 2)),
        ("mobilenetv2", 812_836, mobilenet()),
        ("shufflenetv1", 949_258, shufflenet_v1()),
        ("shufflenetv2", 1_355_528, shufflenet_v2()),
    ],
)
def test_parameters_of_the_rest_of_the_usual_set(name, parameters, by_hand):
    # The published 3.97, 9.46, 0.81, 0.95 and 1.36 million (Tian et al. 2020), layer by layer.
    assert count(name, (3, 32, 32), 100) == parameters == by_hand


def test_other_depths_of_vgg():
    assert count("vgg11", (3, 32, 32), 100) == vgg(1, 1, 2, 2, 2)
    assert count("vgg16", (3, 32, 32), 100) == vgg(2, 2, 3, 3, 3)
    assert count("vgg19", (3, 32, 32), 100) == vgg(2, 2, 4, 4, 4)
    with pytest.raises(RecipeError, match=r"depth is 12; .* vgg16"):
        build_model("vgg12", inputs=(3, 32, 32), outputs=10)
    with pytest.raises(RecipeError, match="at least 8x8, but the input is 8x7"):
        build_model("vgg8", inputs=(3, 8, 7), outputs=10)


def test_shuffling_interleaves_groups():
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert shuffle(shuffle(x, 3), 2).equal(x)


@pytest.mark.parametrize(
    ("spec", "inputs", "outputs", "parameters"),
    [
        ("mlp", (13,), 2, 13 * 64 + 64 + 64 * 64 + 64 + 64 * 2 + 2),
        ({"mlp": {"hidden": []}}, (2, 3), 4, 6 * 4 + 4),
        ({"mlp": {"hidden": [5], "norm": True}}, GAZE, 2, 2162 * 5 + 5 + 10 + 5 * 2 + 2),
        ("digits_cnn", (1, 8, 8), 10, 9 * (16 + 256 + 512 + 1024) + 2 * 96 + 330),
        ({"digits_cnn": {"width": 2}}, (1, 8, 8), 10, 344),
        ({"digits_cnn": {"width": 4, "depth": 1}}, (3, 32, 32), 10, 9 * (12 + 32) + 24 + 90),
        ("gaze_lenet", GAZE, 2, 520 + 25_050 + (50 * 6 * 12 + 1) * 500 + 503 * 2),
        ({"gaze_lenet": {"width": 0.1}}, GAZE, 2, 52 + 255 + (5 * 72 + 1) * 50 + 53 * 2),
        ("gaze_preact_resnet", GAZE, 2, 77_046),
        ({"gaze_preact_resnet": {"width": 1}}, GAZE, 2, 9 * 33 + 10 + 30 + 7 * 2),
        (
            {"gaze_preact_resnet": {"width": 1, "stem_stride": 2, "pool": (3, 5)}},
            GAZE,
            2,
            9 * 33 + 10 + 30 + (4 * 15 + 2 + 1) * 2,
        ),
    ],
)
def test_parameters_of_the_others(spec, inputs, outputs, parameters):
    assert count(spec, inputs, outputs) == parameters


def test_parameter_count_leaves_out_frozen_parameters():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    assert parameter_count(model) == 3


# --- what single models promise ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits_cnn", "resnet8", "wrn-10-1", "shufflenetv1", "vgg8"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 9, 13), (3, 32, 32), (1, 36, 60)])
def test_image_models_take_any_size(name, shape):
    model = build_model(name, inputs=shape, outputs=3)
    assert model(torch.randn(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize(
    "name", ["resnet20", "wrn-16-2", "digits_cnn", "gaze_preact_resnet", "vgg8", "shufflenetv2"]
)
def test_convolutions_start_with_kaiming_scale(name):
    torch.manual_seed(0)
    model = build_model(name, inputs=GAZE if "gaze" in name else (3, 32, 32), outputs=10)
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            expected = math.sqrt(2 / (part.out_channels * part.kernel_size[0] ** 2))
            tolerance = 5 / math.sqrt(2 * part.weight.numel())  # five standard errors
            assert part.weight.std().item() == pytest.approx(expected, rel=tolerance)
        if isinstance(part, nn.BatchNorm2d):
            assert (part.weight == 1).all()
            assert (part.bias == 0).all()


@pytest.mark.parametrize(
    ("spec", "inputs"),
    [
        ({"mlp": {"dropout": 0.5}}, (13,)),
        ({"digits_cnn": {"dropout": 0.5}}, (1, 8, 8)),
        ({"wrn-10-1": {"dropout": 0.5}}, (1, 8, 8)),
    ],
)
def test_dropout_acts_in_train_mode_only(spec, inputs):
    torch.manual_seed(0)
    model = build_model(spec, inputs=inputs, outputs=3)
    x = draw(inputs, 4)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
def test_mlp_activations(activation):
    torch.manual_seed(0)
    model = build_model({"mlp": {"hidden": [4], "activation": activation}}, inputs=(3,), outputs=2)
    first, last = (part for part in model.modules() if isinstance(part, nn.Linear))
    act = getattr(torch.nn.functional, activation)
    x = torch.randn(5, 3)
    torch.testing.assert_close(model(x), last(act(first(x))))


def test_mlp_takes_single_numbers_and_an_empty_batch():
    model = build_model("mlp", inputs=(), outputs=2)
    assert model(torch.randn(4)).shape == (4, 2)
    assert model(torch.randn(0)).shape == (0, 2)


def test_mlp_refuses_a_batch_of_another_shape():
    model = build_model("mlp", inputs=(6,), outputs=2)
    with pytest.raises(RuntimeError):
        model(torch.randn(4, 3))


@pytest.mark.parametrize("spec", [{"mlp": {"hidden": [4]}}, "gaze_lenet", "gaze_preact_resnet"])
def test_names_and_not_their_order_decide_what_is_what(spec):
    torch.manual_seed(0)
    model = build_model(spec, inputs=MIXED, outputs=2).eval()
    x = draw(MIXED, 3)
    turned = {name: x[name] for name in reversed(list(x))}
    assert torch.equal(model(x), model(turned))
    for name in MIXED:
        assert not torch.equal(model(x), model({**x, name: x[name] + 1}))


def test_a_pool_of_several_cells_tells_where_a_feature_was():
    """Pooled over the whole image, a mark that moves changes next to nothing; on a grid it does."""
    torch.manual_seed(0)
    x = {"eye": torch.zeros(2, 1, 36, 60), "pose": torch.zeros(2, 2)}
    x["eye"][0, :, 16:20, 12:16] = 3.0
    x["eye"][1, :, 16:20, 44:48] = 3.0
    change = {}
    for pool in ((1, 1), (3, 5)):
        spec = {"gaze_preact_resnet": {"stem_stride": 2, "pool": list(pool)}}
        body = build_model(spec, inputs=GAZE, outputs=2).eval().body
        features = body(x["eye"])
        change[pool] = (features[0] - features[1]).norm() / features.norm()
    assert change[3, 5] > 10 * change[1, 1]


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "inputs", "text"),
    [
        ("mlp", {}, "takes at least one tensor, but the input is {}"),
        ("digits_cnn", (13,), "takes one image [C, H, W], but the input is (13,)"),
        ("resnet8", (8, 8), "takes one image [C, H, W], but the input is (8, 8)"),
        ("resnet8x4", {"x": (1, 8, 8)}, "takes one image [C, H, W], but the input is {'x': (1, 8"),
        ("wrn-16-1", (13,), "takes one image [C, H, W], but the input is (13,)"),
        ("gaze_lenet", (1, 36, 60), "takes one image [C, H, W] and one or more vectors"),
        ("gaze_lenet", {"eye": (1, 36, 60)}, "but the input is {'eye': (1, 36, 60)}"),
        ("gaze_preact_resnet", {"pose": (2,)}, "but the input is {'pose': (2,)}"),
        ("gaze_preact_resnet", {**GAZE, "other": (1, 8, 8)}, "takes one image"),
        ("gaze_preact_resnet", {**GAZE, "other": (4, 4)}, "takes one image"),
        (
            "gaze_lenet",
            {"eye": (1, 36, 15), "pose": (2,)},
            "takes an image of at least 16x16, but the input is 36x15",
        ),
    ],
)
def test_inputs_that_do_not_fit(spec, inputs, text):
    entry, settings = MODELS.find(spec)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        entry(inputs, 3, **settings)
    assert text in str(caught.value)
    with pytest.raises(RecipeError) as refused:
        build_model(spec, inputs=inputs, outputs=3, key="students.small.model")
    assert refused.value.key == f"students.small.model.{spec}"
    assert text in refused.value.problem


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"mlp": {"hidden": [4, 0]}}, "hidden is [4, 0]; every layer should have at least 1 unit"),
        ({"mlp": {"activation": "rel"}}, "activation is 'rel'; did you mean 'relu'?"),
        ({"mlp": {"dropout": 1.0}}, "dropout is 1.0; it should be at least 0 and below 1"),
        ({"mlp": {"dropout": math.nan}}, "dropout is nan; it should be at least 0 and below 1"),
        ({"digits_cnn": {"width": 0}}, "width is 0; it should be at least 1"),
        ({"digits_cnn": {"depth": 0}}, "depth is 0; it should be at least 1"),
        ({"digits_cnn": {"dropout": -0.1}}, "dropout is -0.1; it should be at least 0 and below 1"),
        ("resnet9", "depth is 9; it should be 6n+2 (8, 14, 20, 26, …)"),
        ("resnet2", "depth is 2; it should be 6n+2"),
        ("resnet18x4", "depth is 18; it should be 6n+2"),
        ("wrn-18-2", "depth is 18; it should be 6n+4 (10, 16, 22, 28, …)"),
        ("wrn-16-0", "width is 0; it should be at least 1"),
        ({"wrn-16-1": {"dropout": 2.0}}, "dropout is 2.0; it should be at least 0 and below 1"),
    ],
)
def test_settings_out_of_range(spec, text):
    with pytest.raises(RecipeError) as refused:
        build_model(spec, inputs=(1, 8, 8), outputs=3, key="teacher.model")
    name, _ = split_spec(spec, "model", "")
    assert refused.value.key == f"teacher.model.{name}"
    assert text in refused.value.problem


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"gaze_lenet": {"width": 0.0}}, "width is 0.0; it should be above 0"),
        ({"gaze_lenet": {"width": math.inf}}, "width is inf; it should be above 0 and finite"),
        ({"gaze_preact_resnet": {"width": -1}}, "width is -1; it should be at least 1"),
        ({"gaze_preact_resnet": {"stem_stride": 0}}, "stem_stride is 0; it should be at least 1"),
        ({"gaze_preact_resnet": {"pool": [0, 5]}}, "rows_of_pool is 0; it should be at least 1"),
        ({"gaze_preact_resnet": {"pool": [3]}}, "is missing and has no default"),
        ({"gaze_preact_resnet": {"pool": [3, "5"]}}, "is '5'; it should be a valid integer"),
    ],
)
def test_gaze_settings_out_of_range(spec, text):
    with pytest.raises(RecipeError) as refused:
        build_model(spec, inputs=GAZE, outputs=2)
    assert text in refused.value.problem


@each
def test_no_outputs(example):
    with pytest.raises(RecipeError, match="outputs is 0; it should be at least 1"):
        build_model(example.spec, inputs=example.inputs, outputs=0)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({"mlp": {"hiden": [4]}}, "model.mlp.hiden"),
        ({"mlp": {"hidden": 4}}, "model.mlp.hidden"),
        ({"mlp": {"hidden": [4, "8"]}}, "model.mlp.hidden.1"),
        ({"digits_cnn": {"width": 2.5}}, "model.digits_cnn.width"),
        ({"resnet8": {"depth": 14}}, "model.resnet8.depth"),
        ({"wrn-16-1": {"width": 2}}, "model.wrn-16-1.width"),
        ({"mlp": {"inputs": [4]}}, "model.mlp.inputs"),
        ("resnet8x2", "model"),
        ("wrn-16", "model"),
    ],
)
def test_unknown_and_mistyped_settings_name_their_key(spec, key):
    with pytest.raises(RecipeError) as refused:
        MODELS.build(spec, key="model", inputs=(1, 8, 8), outputs=3)
    assert refused.value.key == key


# --- what they cost ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "inputs", "expected"),
    [
        ({"mlp": {"hidden": [8]}}, (5,), 5 * 8 + 8 * 3),
        ({"digits_cnn": {"width": 2, "depth": 1}}, (1, 8, 8), 64 * 9 * 2 + 16 * 9 * 2 * 4 + 4 * 3),
        # At the sizes 32, 16 and 8: stem; each stage's two convolutions and its shortcut; head.
        (
            "resnet8",
            (3, 32, 32),
            1024 * 9 * (3 * 16 + 2 * 16 * 16)
            + 256 * (9 * (16 * 32 + 32 * 32) + 16 * 32)
            + 64 * (9 * (32 * 64 + 64 * 64) + 32 * 64)
            + 64 * 3,
        ),
    ],
)
def test_multiply_adds_are_those_of_convolutions_and_products(spec, inputs, expected):
    model = build_model(spec, inputs=inputs, outputs=3)
    assert multiply_adds(model, inputs) == expected
    assert model.training
    with torch.device("meta"):
        assert multiply_adds(build_model(spec, inputs=inputs, outputs=3), inputs) == expected


def test_several_inputs_have_a_cost_too():
    model = build_model({"mlp": {"hidden": []}}, inputs=MIXED, outputs=2)
    assert multiply_adds(model, MIXED) == (3 + 640 + 1) * 2
    pair = ((3,), (2, 4))
    model = build_model({"mlp": {"hidden": []}}, inputs=pair, outputs=2)
    assert multiply_adds(model, pair) == 22
    assert latency(model, pair, 4, seconds=0.01) > 0


def test_shapes_as_they_are_written():
    assert read_shapes(["3x32x32"]) == (3, 32, 32)
    assert read_shapes(["13"]) == (13,)
    assert read_shapes(["eye=1x36x60", "pose=2"]) == {"eye": (1, 36, 60), "pose": (2,)}


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["3x"], "is '3x'; it should be like 3x32x32, or NAME=3x32x32"),
        (["0x3"], "is '0x3'"),
        (["=3"], "is '=3'"),
        (["3", "4"], "has two shapes without names; give each a name"),
        (["a=3", "a=4"], "has 'a' twice; give each a name"),
        (["a=3", "4"], "has a shape without a name"),
    ],
)
def test_shapes_that_cannot_be(texts, says):
    with pytest.raises(RecipeError, match=f"--input: {says}"):
        read_shapes(texts)


def test_the_cost_of_a_network():
    found = cost("digits_cnn", inputs=(1, 8, 8), outputs=10, batches=(1, 4), each=0.01)
    assert found.parameters == count("digits_cnn", (1, 8, 8), 10)
    assert found.multiply_adds > 0
    assert list(found.seconds) == [1, 4]
    assert all(seconds > 0 for seconds in found.seconds.values())
    with pytest.raises(RecipeError, match="unknown model 'digit'"):
        cost("digit", inputs=(1, 8, 8), outputs=10)


# Files that a spec names


def from_file(inputs: Shapes, outputs: int, *, weights: str, hidden: int = 4) -> nn.Module:
    """A model of somebody's own that starts from a file."""
    module = build_model({"mlp": {"hidden": [hidden]}}, inputs=inputs, outputs=outputs)
    load_pretrained(module, Path(weights))
    return module


@pytest.mark.parametrize("whose", ["teacher", "student"])
def test_a_file_that_a_model_starts_from_is_known_by_its_content(
    tmp_path: Path, whose: str
) -> None:
    file = tmp_path / "start.safetensors"

    def write(seed: int) -> None:
        torch.manual_seed(seed)
        spec = {"mlp": {"hidden": [4]}}
        save_weights(file, build_model(spec, inputs=(1, 8, 8), outputs=10).state_dict())

    def run() -> dict[str, Any]:
        own = {f"{__name__}:from_file": {"weights": str(file)}}
        plain = {"mlp": {"hidden": [4]}}
        training = {"steps": 2, "batch_size": 4}
        recipe = {
            "name": "files",
            "data": {"digits": {"train": 50, "validation": 10}},
            "teacher": {"model": own if whose == "teacher" else plain, "training": training},
            "students": {
                "erm": {"learns_from": "labels", "model": plain, "training": training},
                "kd": {"model": own if whose == "student" else plain, "training": training},
            },
        }
        return execute(parse_recipe(recipe), tmp_path / "out")

    write(0)
    first = run()
    assert run() == first
    write(0)  # another time of change, and the same content
    assert run() == first
    write(1)
    with pytest.raises(StorageError, match=r"made with files\.0 = "):
        run()


def test_the_files_that_a_spec_names(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_text(name)
    weights = tmp_path / "model.safetensors"
    assert files_of("resnet20") == []
    assert files_of({"timm:resnet18": {"weights": str(weights)}}) == [weights]
    assert files_of({"timm:resnet18": {"weights": str(tmp_path / "absent")}}) == []
    folder = f"transformers:{tmp_path}"
    assert files_of({folder: {"pretrained": True}}) == [tmp_path / "config.json", weights]
    assert files_of(folder) == []
    before = checksum(weights)
    weights.write_text("another model")
    assert checksum(weights) != before
