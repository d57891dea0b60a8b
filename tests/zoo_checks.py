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
from PIL import Image

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

from extracurricular.data.base import make_data  # noqa: E402
from extracurricular.errors import RecipeError  # noqa: E402
from extracurricular.export import export_module  # noqa: E402
from extracurricular.files import save_weights  # noqa: E402
from extracurricular.models import build_model, parameter_count  # noqa: E402
from extracurricular.recipe.read import parse_recipe, read_recipe  # noqa: E402
from extracurricular.run.execute import execute  # noqa: E402
from extracurricular.run.finished import open_run  # noqa: E402
from extracurricular.run.plan import plan  # noqa: E402
from extracurricular.run.workspace import Workspace  # noqa: E402


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


def image_folder(folder: Path, size: int = 40, count: int = 20) -> Path:
    """JPEGs of three classes, each with a brighter channel of its own, in a folder for each."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(("blue", "green", "red")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 60, (size, size + i, 3)) + 80 * (np.arange(3) == 2 - k)
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(folder / name / f"{i:03d}.jpg", quality=90)
    return folder


def test_a_timm_teacher_and_a_timm_student_on_a_folder_of_images(tmp_path: Path) -> None:
    photos = image_folder(tmp_path / "photos")
    training = {"steps": 12, "batch_size": 16, "lr": 0.01, "warmup": 2}
    recipe = {
        "name": "timm",
        "data": {"imagefolder": {"path": str(photos), "size": 32}},
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
    summary = execute(parse_recipe(recipe), tmp_path / "run")
    assert open_run(tmp_path / "run").data.classes == ("blue", "green", "red")
    assert summary["teacher"]["parameters"] > 11_000_000
    assert 1_000_000 < summary["students"]["kd"]["parameters"] < 2_000_000
    assert summary["teacher"]["metrics"]["accuracy"]["mean"] > 0.5
    assert summary["students"]["kd"]["metrics"]["kl_to_teacher"]["mean"] >= 0
    assert execute(parse_recipe(recipe), tmp_path / "run") == summary


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


def bytes_and_inputs(channels: int = 3) -> tuple[torch.Tensor, Any, torch.Tensor]:
    """Images of bytes, how a data set standardises them, and what it gives to networks."""
    torch.manual_seed(1)
    pixels = torch.randint(0, 256, (2, channels, 32, 32)).float()
    shift, scale = torch.rand(channels, 1, 1) * 200, 20 + 50 * torch.rand(channels, 1, 1)
    return pixels, (shift, scale), (pixels - shift) / scale


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_a_network_gets_images_as_its_published_weights_want_them(name: str) -> None:
    raw, pixels, x = bytes_and_inputs()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def made(**settings: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        spec = {name: settings}
        return build_model(spec, inputs=(3, 32, 32), outputs=5, pixels=pixels).eval()

    plain, wrapped = made(), made(normalisation="published")
    torch.testing.assert_close(wrapped(x), plain((raw / 255 - mean) / std), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(wrapped(x), plain(x), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(made(normalisation="data")(x), plain(x))
    # Without bytes nobody knows the units.
    assert "the images are no bytes" in refused({name: {"normalisation": "published"}})
    assert "should be 'data' or 'published'" in refused({name: {"normalisation": "imagenet"}})


def test_a_file_of_the_zoo_loads_into_a_network_that_is_renormalised(tmp_path: Path) -> None:
    import torchvision

    from extracurricular.models.weights import load_pretrained

    torch.manual_seed(3)
    published = torchvision.models.resnet18(num_classes=5)
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    _, pixels, _ = bytes_and_inputs()
    spec = {"torchvision:resnet18": {"normalisation": "published"}}
    module = build_model(spec, inputs=(3, 32, 32), outputs=5, pixels=pixels)
    load_pretrained(module, tmp_path / "resnet18.pth")
    found = {k.removeprefix("inner."): v for k, v in module.state_dict().items()}
    assert found.keys() == published.state_dict().keys()
    assert all(torch.equal(v, found[k]) for k, v in published.state_dict().items())


def test_transformers_tell_the_normalisation_too(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(**sizes, intermediate_size=16, image_size=32, patch_size=8, num_labels=5)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    raw, pixels, x = bytes_and_inputs()
    spec = {f"transformers:{tmp_path / 'vit'}": {"pretrained": True}}

    def made() -> torch.nn.Module:
        return build_model(spec, inputs=(3, 32, 32), outputs=5, pixels=pixels).eval()

    plain = made()  # no processor came with it
    (tmp_path / "vit" / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "do_normalize": true, "do_rescale": true,'
        ' "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}'
    )
    torch.testing.assert_close(made()(x), plain((raw / 255 - 0.5) / 0.25), rtol=1e-3, atol=1e-4)


def test_a_run_tells_a_network_how_its_data_are_standardised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 3, 32, 32)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", x=x, y=np.arange(40) % 2)
    recipe = {
        "name": "zoo",
        "data": {"arrays": {"path": str(tmp_path / "images.npz")}},
        "teacher": {"model": {"torchvision:resnet18": {"normalisation": "published"}}},
        "students": {"kd": {"model": "torchvision:resnet18"}},
    }
    workspace = Workspace(parse_recipe(recipe), tmp_path / "run")
    [stage] = plan(workspace.recipe).teachers[0].members
    module = stage.untrained(workspace).eval()
    data = workspace.data_of(0)
    split = data.train
    raw = split.x[:4]
    assert raw.dtype == torch.uint8
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    wanted = module.inner((raw / 255 - mean) / std)
    torch.testing.assert_close(module(data.inputs(raw)), wanted, rtol=1e-3, atol=1e-4)


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


def test_the_imagenet_recipe_runs_with_a_file_of_the_zoo(tmp_path: Path) -> None:
    """At less than its tiny budget: streamed images, and a teacher as its authors publish it."""
    import torchvision
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 2)):
        for label in range(3):
            folder = tmp_path / "images" / part / f"n0000000{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (48, 56, 3)) + 60 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.JPEG")
    torch.manual_seed(0)
    published = torchvision.models.resnet18(num_classes=3)
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    recipe = read_recipe(
        "imagenet-resnet50",
        [
            "budget=tiny",
            f"data.path={tmp_path / 'images'}",
            "data.size=32",
            "data.validation=6",
            "data.workers=1",
            "teacher.model={torchvision:resnet18: {normalisation: published}}",
            f"teacher.weights={tmp_path / 'resnet18.pth'}",
            "defaults.model=torchvision:resnet18",
            "defaults.training.steps=2",
        ],
    )
    summary = execute(recipe, tmp_path / "run")
    assert summary["teacher"]["steps"] == 0
    assert {entry["steps"] for entry in summary["students"].values()} == {2}
    # The teacher stands behind the standardisation that it was trained with, the students do not.
    run = open_run(tmp_path / "run")
    [stage] = run.plan.teachers[0].members
    assert type(stage.untrained(run.workspace)).__name__ == "Renormalised"
    assert type(run.student("kd", 0).module).__name__ == "ResNet"
