"""Weights from files: what is read, by which names, and how a mistake is told."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.errors import StorageError
from extracurricular.files import save_weights
from extracurricular.models import build_model
from extracurricular.models.weights import load_pretrained, published_name
from tests.generators.test_custom import Explosive


def build(spec: Any, seed: int = 0, outputs: int = 10) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(spec, inputs=(3, 32, 32), outputs=outputs)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


# State dicts as the published code names them, written down layer by layer from its definition.


def conv(
    name: str, channels: int, channels_in: int, size: int, bias: bool = False
) -> dict[str, Any]:
    shapes: dict[str, Any] = {f"{name}.weight": (channels, channels_in, size, size)}
    return {**shapes, f"{name}.bias": (channels,)} if bias else shapes


def norm(name: str, channels: int) -> dict[str, Any]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{p}": (channels,) for p in parts}, f"{name}.num_batches_tracked": ()}


def linear(name: str, outputs: int, inputs: int) -> dict[str, Any]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def resnet8() -> dict[str, Any]:
    shapes = {**conv("conv1", 16, 3, 3), **norm("bn1", 16)}
    here = 16
    for k, there in enumerate((16, 32, 64), start=1):
        block = f"layer{k}.0"
        shapes |= {**conv(f"{block}.conv1", there, here, 3), **norm(f"{block}.bn1", there)}
        shapes |= {**conv(f"{block}.conv2", there, there, 3), **norm(f"{block}.bn2", there)}
        if here != there:
            shapes |= conv(f"{block}.downsample.0", there, here, 1)
            shapes |= norm(f"{block}.downsample.1", there)
        here = there
    return {**shapes, **linear("fc", 10, 64)}


def wrn_16_2() -> dict[str, Any]:
    shapes, here = conv("conv1", 16, 3, 3), 16
    for k, there in enumerate((32, 64, 128), start=1):
        for n in range(2):
            block = f"block{k}.layer.{n}"
            shapes |= {**norm(f"{block}.bn1", here), **conv(f"{block}.conv1", there, here, 3)}
            shapes |= {**norm(f"{block}.bn2", there), **conv(f"{block}.conv2", there, there, 3)}
            if here != there:
                shapes |= conv(f"{block}.convShortcut", there, here, 1)
            here = there
    return {**shapes, **norm("bn1", 128), **linear("fc", 10, 128)}


def vgg13() -> dict[str, Any]:
    shapes: dict[str, Any] = {}
    here = 3
    for k, there in enumerate((64, 128, 256, 512, 512)):
        for place in (0, 3):
            shapes |= conv(f"block{k}.{place}", there, here, 3, bias=True)
            shapes |= norm(f"block{k}.{place + 1}", there)
            here = there
    return {**shapes, **linear("classifier", 10, 512)}


def mobilenet() -> dict[str, Any]:
    shapes = {**conv("conv1.0", 16, 3, 3), **norm("conv1.1", 16)}
    here = 16
    table = [(1, 8, 1), (6, 12, 2), (6, 16, 3), (6, 32, 4), (6, 48, 3), (6, 80, 3), (6, 160, 1)]
    for k, (expansion, there, blocks) in enumerate(table):
        for n in range(blocks):
            body, wide = f"blocks.{k}.{n}.conv", expansion * here
            shapes |= {**conv(f"{body}.0", wide, here, 1), **norm(f"{body}.1", wide)}
            shapes |= {**conv(f"{body}.3", wide, 1, 3), **norm(f"{body}.4", wide)}
            shapes |= {**conv(f"{body}.6", there, wide, 1), **norm(f"{body}.7", there)}
            here = there
    shapes |= {**conv("conv2.0", 1280, 160, 1), **norm("conv2.1", 1280)}
    return {**shapes, **linear("classifier.0", 10, 1280)}


def shufflenet_v2() -> dict[str, Any]:
    shapes = {**conv("conv1", 24, 3, 1), **norm("bn1", 24)}
    here = 24
    for k, (there, blocks) in enumerate(((116, 3), (232, 7), (464, 3)), start=1):
        half, down = there // 2, f"layer{k}.0"
        sizes = [(here, 1, 3), (half, here, 1), (half, here, 1), (half, 1, 3), (half, half, 1)]
        for n, size in enumerate(sizes, start=1):
            shapes |= {**conv(f"{down}.conv{n}", *size), **norm(f"{down}.bn{n}", size[0])}
        for block in range(1, blocks + 1):
            for n, size in enumerate([(half, half, 1), (half, 1, 3), (half, half, 1)], start=1):
                name = f"layer{k}.{block}"
                shapes |= {**conv(f"{name}.conv{n}", *size), **norm(f"{name}.bn{n}", half)}
        here = there
    shapes |= {**conv("conv2", 1024, 464, 1), **norm("bn2", 1024)}
    return {**shapes, **linear("linear", 10, 1024)}


def shufflenet_v1() -> dict[str, Any]:
    shapes = {**conv("conv1", 24, 3, 1), **norm("bn1", 24)}
    here = 24
    for k, (there, blocks) in enumerate(((240, 4), (480, 8), (960, 4)), start=1):
        for n in range(blocks):
            made = there - here if n == 0 else there
            narrow, name = made // 4, f"layer{k}.{n}"
            first = here if here == 24 else here // 3
            sizes = [(narrow, first, 1), (narrow, 1, 3), (made, narrow // 3, 1)]
            for place, size in enumerate(sizes, start=1):
                shapes |= conv(f"{name}.conv{place}", *size)
                shapes |= norm(f"{name}.bn{place}", size[0])
            here = there
    return {**shapes, **linear("linear", 10, 960)}


PUBLISHED = {
    "resnet8": resnet8,
    "wrn-16-2": wrn_16_2,
    "vgg13": vgg13,
    "mobilenetv2": mobilenet,
    "shufflenetv1": shufflenet_v1,
    "shufflenetv2": shufflenet_v2,
}


def filled(shapes: dict[str, Any]) -> OrderedDict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return OrderedDict(
        (name, torch.rand(shape, generator=generator) if shape else torch.tensor(7))
        for name, shape in shapes.items()
    )


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_checkpoints_load(tmp_path: Path, name: str, prefix: str) -> None:
    state = filled(PUBLISHED[name]())
    path = tmp_path / "ckpt_epoch_240.pth"
    named = {prefix + k: v for k, v in state.items()}
    torch.save({"epoch": 240, "model": named, "best_acc": torch.tensor(75.6)}, path)
    model = build(name)
    load_pretrained(model, path, "classes")
    # In the published order, every tensor is the one of the same place here.
    assert [published_name(k) for k in state] == list(model.state_dict())
    for ours, theirs in zip(model.state_dict().values(), state.values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrap", [None, "model", "state_dict"])
def test_our_own_names_load_in_every_layout(tmp_path: Path, prefix: str, wrap: str | None) -> None:
    model = build("resnet8")
    state: Any = {prefix + k: v for k, v in model.state_dict().items()}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "w.pt")
    save_weights(tmp_path / "w.safetensors", state)
    for file in ("w.pt", "w.safetensors"):
        other = build("resnet8", seed=1)
        assert not same(other, model)
        load_pretrained(other, tmp_path / file)
        assert same(other, model)


def test_counters_that_old_checkpoints_lack_are_no_matter(tmp_path: Path) -> None:
    model = build("vgg8")
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("tracked")}
    torch.save(state, tmp_path / "w.pt")
    other = build("vgg8", seed=1)
    load_pretrained(other, tmp_path / "w.pt")
    assert same(other, model)


def refused(path: Path, model: nn.Module) -> str:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(StorageError) as error:
        load_pretrained(model, path, "classes")
    assert str(path) in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return str(error.value)


def test_another_number_of_classes_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": filled(vgg13())}, path)
    assert "has a network for 10 classes, but this one needs 100" in refused(
        path, build("vgg13", outputs=100)
    )


def test_another_network_is_told_with_names_of_both(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": filled(resnet8())}, path)
    said = refused(path, build("resnet14"))
    assert "has no tensor 'stage1.1.conv1.weight', which the model has; 36 of" in said
    deeper = refused(path, build("vgg8"))
    assert "has no tensor 'stage0.0.weight'" in deeper
    assert "it has 'stem.weight', which the model lacks" in deeper
    torch.save(build("resnet14").state_dict(), path)
    assert "has a tensor 'stage1.1.conv1.weight', and" in refused(path, build("resnet8"))
    torch.save(build("wrn-10-3").state_dict(), path)
    assert "has the shape (48, 16, 3, 3), but the model needs (32, 16, 3, 3)" in refused(
        path, build("wrn-10-2")
    )


def test_a_checkpoint_that_would_execute_is_read_without_executing(tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "w.pth"
    torch.save({"model": build("resnet8").state_dict(), "opt": Explosive(mark)}, path)
    module = build("resnet8", seed=1)
    load_pretrained(module, path)
    assert same(module, build("resnet8"))
    torch.save(Explosive(mark), path)
    assert "must hold a state dict" in refused(path, build("resnet8"))
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "it would have gone off"


def test_weights_that_are_nan_are_refused_by_name(tmp_path: Path) -> None:
    module = build({"mlp": {"hidden": [4]}})
    state = {name: value.clone() for name, value in module.state_dict().items()}
    name = next(iter(state))
    state[name][0, 0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(StorageError, match=rf"tensor '{name}' of the file '.*nan\.pth' holds NaN"):
        load_pretrained(module, tmp_path / "nan.pth")
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
