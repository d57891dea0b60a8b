"""What test_zoos.py runs in a process of its own, where timm and the others are at hand.

The torchvision of a registry may be built for other hardware than torch, and then lacks its
compiled operators, of which classification uses none. Their names are all that its import asks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

OPERATORS = ("nms", "qnms", "roi_align", "qroi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
BACKWARD = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")


def define_torchvision_operators() -> torch.library.Library:
    """Declare torchvision's compiled operators, without anything that computes them."""
    library = torch.library.Library("torchvision", "DEF")
    names = [*OPERATORS, "deform_conv2d", *(f"_{name}_backward" for name in BACKWARD)]
    for name in names:
        library.define(f"{name}(Tensor x) -> Tensor")
    return library


_KEPT = define_torchvision_operators()

from extracurricular.data import make_data  # noqa: E402
from extracurricular.errors import RecipeError  # noqa: E402
from extracurricular.export import export_module  # noqa: E402
from extracurricular.models import build_model, parameter_count  # noqa: E402
from extracurricular.pipeline import Run  # noqa: E402
from extracurricular.recipe import parse_recipe  # noqa: E402
from extracurricular.storage import save_weights  # noqa: E402


def build(spec: Any, outputs: int = 5, inputs: Any = (3, 32, 32)) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(spec, inputs=inputs, outputs=outputs, key="teacher.model")


def refused(spec: Any, **given: Any) -> str:
    with pytest.raises(RecipeError) as error:
        build(spec, **given)
    return str(error.value)


@pytest.mark.parametrize("spec", ["timm:mobilenetv3_small_050", "torchvision:shufflenet_v2_x0_5"])
def test_they_are_exported(spec: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32)).astype(np.uint8)
    y = np.arange(40) % 5
    data = make_data("d", (x, y), (x, y))
    found = export_module(build(spec), data, tmp_path / "s.onnx")
    assert found.metadata["files"]["s.onnx"]["difference"] < 1e-4


def test_a_timm_teacher_and_a_timm_student(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = rng.integers(0, 60, (48, 3, 32, 32)) + 80 * (np.arange(3) == y[:, None])[..., None, None]
    np.savez(tmp_path / "images.npz", x=x.astype(np.uint8), y=y)
    training = {"steps": 12, "batch_size": 16, "lr": 0.01, "warmup": 2}
    recipe = {
        "name": "timm",
        "data": {"arrays": {"path": str(tmp_path / "images.npz")}},
        "seeds": [0],
        "teacher": {"model": "timm:resnet18", "training": training},
        "students": {
            "kd": {
                "model": "timm:mobilenetv3_small_100",
                "sampler": ["empirical", {"augment": {"pad": 2, "flip": True}}, "cutmix"],
                "training": training,
            }
        },
    }
    summary = Run(parse_recipe(recipe), tmp_path / "run").execute()
    assert summary["teacher"]["parameters"] > 11_000_000
    assert 1_000_000 < summary["students"]["kd"]["parameters"] < 2_000_000
    assert summary["teacher"]["metrics"]["accuracy"]["mean"] > 0.5
    assert summary["students"]["kd"]["metrics"]["kl_to_teacher"]["mean"] >= 0
    assert Run(parse_recipe(recipe), tmp_path / "run").execute() == summary


@pytest.mark.parametrize(
    ("spec", "inputs"),
    [
        ("timm:resnet18", (1, 32, 32)),
        ({"timm:vit_tiny_patch16_224": {"settings": {"img_size": 32}}}, (3, 32, 32)),
        ("torchvision:mobilenet_v3_small", (3, 32, 32)),
        ({"torchvision:mobilenet_v3_small": {"settings": {"dropout": 0.5}}}, (3, 32, 32)),
    ],
)
def test_networks_by_name(tmp_path: Path, spec: Any, inputs: Any) -> None:
    model = build(spec, inputs=inputs)
    assert model.eval()(torch.zeros(2, *inputs)).shape == (2, 5)
    save_weights(tmp_path / "w.safetensors", model.state_dict())
    name, settings = (spec, {}) if isinstance(spec, str) else next(iter(spec.items()))
    weights = {**settings, "weights": str(tmp_path / "w.safetensors")}
    torch.manual_seed(1)
    again = build_model({name: weights}, inputs=inputs, outputs=5)
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(**sizes, intermediate_size=16, image_size=16, patch_size=8, num_labels=3)
    saved = ViTForImageClassification(config)
    saved.save_pretrained(tmp_path / "vit", safe_serialization=True)
    name = f"transformers:{tmp_path / 'vit'}"
    fresh = build(name)  # for 32x32 images and 5 classes
    assert fresh(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    trained = build({name: {"pretrained": True}}, outputs=3, inputs=(3, 16, 16))
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(trained.eval()(x), saved.eval()(pixel_values=x).logits)
    other = build({name: {"pretrained": True}}, outputs=5, inputs=(3, 16, 16))
    assert other(x).shape == (2, 5)
    body = "inner.vit.encoder"
    kept = [k for k in trained.state_dict() if k.startswith(body)]
    assert all(torch.equal(trained.state_dict()[k], other.state_dict()[k]) for k in kept)
    # Pickled weights are not read.
    (tmp_path / "vit" / "model.safetensors").unlink()
    torch.save(saved.state_dict(), tmp_path / "vit" / "pytorch_model.bin")
    said = refused({name: {"pretrained": True}}, outputs=3, inputs=(3, 16, 16))
    assert "transformers cannot make" in said
    assert "safetensors" in said


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    said = refused("timm:resnet1")
    assert said.startswith("teacher.model.timm:resnet1: timm has no network 'resnet1'; did you")
    assert "torchvision has no network 'resnet17'; did you" in refused("torchvision:resnet17")
    assert "takes images of 3 channels, but these have 1" in refused(
        "torchvision:resnet18", inputs=(1, 8, 8)
    )
    assert "timm cannot make 'resnet18'" in refused({"timm:resnet18": {"settings": {"nope": 1}}})
    assert "takes one image" in refused("timm:resnet18", inputs=(13,))
    assert "transformers cannot make" in refused(f"transformers:{tmp_path}/absent")
    assert "unknown key 'pretraind'" in refused({"timm:resnet18": {"pretraind": True}})


def test_parameters_are_those_of_the_library() -> None:
    import timm

    wanted = timm.create_model("resnet18", num_classes=5)
    assert parameter_count(build("timm:resnet18")) == parameter_count(wanted)
