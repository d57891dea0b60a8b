"""Pools from diffusion pipelines: what they hold, that it is kept, that nothing runs unasked."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    UNet2DModel,
)
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data, Split
from extracurricular.errors import RecipeError, StorageError
from extracurricular.files import load_weights
from extracurricular.generators import GENERATORS, Fit
from extracurricular.generators import diffusion as module
from extracurricular.generators.diffusion import Diffusers
from extracurricular.inputs import leaves
from extracurricular.samplers.pool import Pool
from tests.conftest import eye_data, image_data, pair_data, table_data
from tests.generators.test_custom import Explosive, fit


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("ddpm")
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A diffusion transformer of 1000 classes, whose pipeline fixes that number."""
    folder = tmp_path_factory.mktemp("dit")
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=8
    )
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=1000,
        norm_num_groups=4,
    )
    # At first the classes of such a network make no difference.
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, std=0.5)
    DiTPipeline(transformer, vae, DDIMScheduler()).save_pretrained(str(folder))
    index = folder / "model_index.json"
    names = {"0": "tench, fish", "1": "goldfish", "7": "cock", "8": "hen"}
    index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": names}))
    return str(folder)


def diffusion(path: str, **settings: Any) -> Diffusers:
    return Diffusers(path, **{"count": 6, "inference_steps": 3, "batch_size": 4, **settings})


def near(a: Tensor, b: Tensor) -> bool:
    """Whether images are the same up to rounding: sums in batches may differ in the last bit."""
    return bool((a.int() - b.int()).abs().max() <= 1)


def animals(channels: int = 3, size: int = 8) -> Data:
    return replace(
        image_data(channels=channels, size=size), classes=("hen", "goldfish", "cock", "tench")
    )


def test_a_recipe_names_a_pipeline_with_its_settings(unconditional: str) -> None:
    entry = GENERATORS.build({"diffusers": {"path": unconditional, "count": 3}})
    assert entry == Diffusers(unconditional, count=3)
    assert isinstance(entry, Fit)
    assert entry.steps == 3
    with pytest.raises(RecipeError, match=r"diffusers.labels: is 'all'; it should be 'auto'"):
        GENERATORS.build({"diffusers": {"path": unconditional, "labels": "all"}})
    for name in ("count", "inference_steps", "batch_size"):
        with pytest.raises(RecipeError, match=f"diffusers: {name} is 0; it must be at least 1"):
            GENERATORS.build({"diffusers": {"path": unconditional, name: 0}})


def test_a_pool_of_an_unconditional_pipeline(unconditional: str) -> None:
    data, entry = image_data(), diffusion(unconditional)
    state = torch.random.get_rng_state()
    progress: list[int] = []
    fitted = fit(entry, data, on_progress=lambda done, loss: progress.append(done))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert progress == [4, 6]
    assert list(fitted) == ["x"]
    x = fitted["x"]
    assert (x.dtype, x.shape) == (torch.uint8, (6, 1, 8, 8))
    assert len({tuple(image.flatten().tolist()) for image in x}) == 6
    assert torch.equal(x, fit(entry, data)["x"])
    assert not near(x, fit(entry, data, seed=1)["x"])
    pool = entry.load(fitted, data)
    assert pool.y is None
    assert torch.equal(leaves(pool.x)[""], x)
    assert len(Pool(data, pool)(torch.arange(6))) == 6


def test_images_are_what_the_pipeline_gives(unconditional: str) -> None:
    x = fit(diffusion(unconditional, count=2), image_data())["x"]
    pipeline = DDPMPipeline.from_pretrained(unconditional)
    pipeline.set_progress_bar_config(disable=True)
    own = [torch.Generator().manual_seed(rng.fold(0, "image", number)) for number in range(2)]
    images = pipeline(2, own, num_inference_steps=3, output_type="np").images
    assert np.array_equal(x[:, 0].numpy(), (images[..., 0] * 255).round())


def test_an_image_depends_on_its_number_alone(unconditional: str) -> None:
    data = image_data()
    whole = fit(diffusion(unconditional, count=7, batch_size=7), data)["x"]
    for size in (1, 3, 100):
        assert near(fit(diffusion(unconditional, count=7, batch_size=size), data)["x"], whole)
    assert near(fit(diffusion(unconditional, count=2), data)["x"], whole[:2])


def test_images_get_the_channels_and_size_of_the_data(unconditional: str) -> None:
    small = fit(diffusion(unconditional), image_data(channels=3, size=4))["x"]
    assert small.shape == (6, 3, 4, 4)
    assert torch.equal(small[:, 0], small[:, 2])
    says = r"DDPMPipeline at '.*' is 8 × 8 pixels, the data's are 4 × 4 .*; resize: true brings"
    with pytest.raises(ValueError, match=says):
        fit(diffusion(unconditional, resize=False), image_data(size=4))
    assert len(fit(diffusion(unconditional, resize=False), image_data())["x"]) == 6


def test_a_pipeline_of_classes_labels_its_images(conditional: str) -> None:
    data = animals()
    fitted = fit(diffusion(conditional, labels="classes"), data)
    assert fitted["y"].tolist() == [0, 1, 2, 3, 0, 1]
    assert fitted["y"].dtype == torch.int64
    assert fitted["x"].shape == (6, 3, 8, 8)
    pool = diffusion(conditional).load(fitted, data)
    assert pool.y is not None
    assert torch.equal(pool.y, fitted["y"])
    single = fit(diffusion(conditional, batch_size=1), data)
    assert near(single["x"], fitted["x"])
    # The class is the one asked for: hen and cock trade places.
    traded = fit(
        diffusion(conditional), replace(data, classes=("cock", "goldfish", "hen", "tench"))
    )
    moved = [k for k in range(6) if not near(traded["x"][k], fitted["x"][k])]
    assert moved == [0, 2, 4]
    # As when the prompts say so.
    prompts = {"hen": "cock", "cock": "hen"}
    assert torch.equal(fit(diffusion(conditional, prompts=prompts), data)["x"], traded["x"])
    led = fit(diffusion(conditional, guidance=1.5), data)["x"]
    assert not near(led, fitted["x"])


def test_a_pipeline_of_classes_without_labels(conditional: str) -> None:
    fitted = fit(diffusion(conditional, labels="none"), animals())
    assert list(fitted) == ["x"]
    chosen = {"a": "goldfish", "b": "hen"}
    some = fit(diffusion(conditional, labels="none", prompts=chosen), animals())
    assert near(some["x"][0], fit(diffusion(conditional), replace(
        animals(), classes=("goldfish", "hen", "cock", "tench")))["x"][0])  # fmt: skip
    assert list(some) == ["x"]


def test_classes_that_the_pipeline_has_not(conditional: str, unconditional: str) -> None:
    says = r"DiTPipeline at '.*' has 1000 classes, and '0' is none of their names; give prompts"
    with pytest.raises(ValueError, match=says):
        fit(diffusion(conditional), image_data(channels=3))
    with pytest.raises(ValueError, match="prompts names the class 'hem'; did you mean 'hen'"):
        fit(diffusion(conditional, prompts={"hem": "cock"}), animals())
    with pytest.raises(ValueError, match="and 'dodo' is none of their names"):
        fit(diffusion(conditional, prompts={"hen": "dodo"}), animals())
    with pytest.raises(ValueError, match=r"labels is 'classes', but the DDPM.* takes neither"):
        fit(diffusion(unconditional, labels="classes"), image_data())
    with pytest.raises(ValueError, match=r"prompts is given, but the DDPM.* takes none"):
        fit(diffusion(unconditional, prompts={"0": "nought"}), image_data())


class Killed(BaseException):
    pass


def count_draws(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    drawn: list[range] = []
    draw = module._Pipeline.draw

    def counted(self: Any, numbers: range, *given: Any) -> dict[str, Tensor]:
        drawn.append(numbers)
        return draw(self, numbers, *given)

    monkeypatch.setattr(module._Pipeline, "draw", counted)
    return drawn


def test_an_interrupted_pool_goes_on(
    conditional: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, entry = animals(), diffusion(conditional, count=10, batch_size=3)
    whole = fit(entry, data)
    drawn = count_draws(monkeypatch)

    def kill(done: int, loss: float) -> None:
        if done == 6:
            raise Killed

    with pytest.raises(Killed):
        fit(entry, data, folder=tmp_path / "f", on_progress=kill)
    assert drawn == [range(0, 3), range(3, 6)]
    del drawn[:]
    resumed = fit(entry, data, folder=tmp_path / "f")
    assert drawn == [range(6, 9), range(9, 10)]
    assert torch.equal(resumed["x"], whole["x"])
    assert torch.equal(resumed["y"], whole["y"])
    # Everything is there now, so not even the pipeline is needed.
    del drawn[:]
    monkeypatch.setattr(module, "load_pipeline", None)
    again = fit(entry, data, folder=tmp_path / "f")
    assert torch.equal(again["x"], whole["x"])
    fewer = fit(replace(entry, count=5, batch_size=100), data, folder=tmp_path / "f")
    assert torch.equal(fewer["x"], whole["x"][:5])
    assert torch.equal(fewer["y"], whole["y"][:5])
    assert drawn == []


def test_damaged_and_foreign_batches_are_passed_over(
    unconditional: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, entry = image_data(), diffusion(unconditional)
    whole = fit(entry, data, folder=tmp_path)
    first, second = sorted(tmp_path.glob("images-*"))
    content = first.read_bytes()
    drawn = count_draws(monkeypatch)
    for broken in (content[:-1] + bytes([content[-1] ^ 1]), content[:99], b""):
        first.write_bytes(broken)
        assert torch.equal(fit(entry, data, folder=tmp_path)["x"], whole["x"])
    assert drawn == [range(0, 4)] * 3
    second.rename(tmp_path / second.name.replace("00000004", "00000000"))
    fit(entry, data, folder=tmp_path)
    assert drawn[3:] == [range(4, 6)]
    del drawn[:]
    for other in (replace(entry, inference_steps=2), replace(entry, guidance=2.0)):
        with pytest.raises(TypeError) if other.guidance else nullcontext():
            fit(other, data, folder=tmp_path)
    fit(entry, data, seed=1, folder=tmp_path)
    assert len(drawn) == 5


def test_a_recipe_is_checked_without_the_pipeline(
    conditional: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_pipeline", None)
    data = animals()
    for labels, has in (("auto", False), ("none", False), ("classes", True)):
        entry = diffusion(conditional, labels=labels)
        pool = entry.preview(data)
        assert (pool.y is not None) == has
        assert len(Pool(data, pool)(torch.arange(2))) == 2
    with pytest.raises(ValueError, match="prompts names the class 'dodo'"):
        diffusion(conditional, prompts={"dodo": "x"}).preview(data)
    with pytest.raises(ValueError, match="there is no such folder"):
        diffusion("gone").preview(data)
    with pytest.raises(ValueError, match="diffusers makes images"):
        diffusion(conditional).preview(table_data())


@pytest.mark.parametrize("make", [eye_data, pair_data, table_data])
def test_pools_are_for_data_of_one_image(make: Any, unconditional: str) -> None:
    says = "diffusers makes images of bytes, grey or in colours, but the input of data"
    with pytest.raises(ValueError, match=says):
        fit(diffusion(unconditional), make())
    with pytest.raises(ValueError, match=r"is uint8 \[2, 8, 8\]"):
        fit(diffusion(unconditional), image_data(channels=2))


def test_what_is_kept_must_go_with_the_data(unconditional: str) -> None:
    entry = diffusion(unconditional)
    for state, data in (
        ({}, image_data()),
        ({"x": torch.zeros(3, 1, 4, 4, dtype=torch.uint8)}, image_data()),
        ({"x": torch.zeros(3, 1, 8, 8)}, image_data()),
        ({"x": torch.zeros(3, 1, 8, 8, dtype=torch.uint8)}, eye_data()),
    ):
        with pytest.raises(StorageError, match="the kept pool of the generator 'diffusers'"):
            entry.load(state, data)


# Pipelines that cannot be built here: what is asked of them, and what is refused


class Painter:
    """Takes prompts, as pipelines of the kind do; gives flat images as grey as its prompt says."""

    def __init__(self, grey: float = 0.5) -> None:
        self.grey = grey
        self.asked: list[str] = []

    def to(self, device: torch.device) -> Painter:
        return self

    def set_progress_bar_config(self, disable: bool) -> None:
        assert disable

    def __call__(
        self,
        prompt: list[str] | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 7.5,
        generator: Any = None,
        output_type: str = "pil",
        **kwargs: Any,
    ) -> SimpleNamespace:
        assert prompt is not None
        assert len(generator) == len(prompt)
        assert (num_inference_steps, output_type, kwargs) == (3, "np", {})
        self.asked += prompt
        return SimpleNamespace(images=np.full((len(prompt), 8, 8, 3), self.grey, np.float32))


class Retoucher(Painter):
    def __call__(self, image: Any, generator: Any = None) -> SimpleNamespace:  # type: ignore[override]
        raise NotImplementedError


def paint(monkeypatch: pytest.MonkeyPatch, painter: Painter) -> Painter:
    monkeypatch.setattr(module, "load_pipeline", lambda path: painter)
    return painter


def test_prompts_are_those_of_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    painter = paint(monkeypatch, Painter())
    fitted = fit(diffusion("any", prompts={"cock": "a rooster"}), animals(1))
    assert painter.asked == [
        *("a photo of a hen", "a photo of a goldfish", "a rooster", "a photo of a tench"),
        *("a photo of a hen", "a photo of a goldfish"),
    ]
    assert fitted["y"].tolist() == [0, 1, 2, 3, 0, 1]
    assert fitted["x"].unique().tolist() == [128]
    numbers = {str(k): f"digit {k}" for k in range(4)}
    painter = paint(monkeypatch, Painter())
    fitted = fit(diffusion("any", prompts=numbers), image_data())
    assert painter.asked[:4] == list(numbers.values())
    assert fitted["y"].tolist() == [0, 1, 2, 3, 0, 1]
    del numbers["2"]
    with pytest.raises(ValueError, match=r"prompts has none for the class '2', .* '0' to '3'"):
        fit(diffusion("any", prompts=numbers), image_data())


def test_prompts_without_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    painter = paint(monkeypatch, Painter())
    eyes = eye_data()
    one = replace(eyes, train=Split(leaves(eyes.train.x)["eye"], eyes.train.y))
    prompts = {"left": "an eye that looks left", "right": "an eye that looks right"}
    for data, labels in ((one, "auto"), (animals(), "none")):
        fitted = fit(diffusion("any", prompts=prompts, labels=labels), data)
        assert list(fitted) == ["x"]
    assert painter.asked == list(prompts.values()) * 6
    with pytest.raises(ValueError, match=r"prompts is empty, but the Painter at 'any' takes"):
        fit(diffusion("any"), one)
    with pytest.raises(ValueError, match=r"labels is 'classes', but data 'eyes' has no classes"):
        fit(diffusion("any", labels="classes", prompts=prompts), one)


def test_pipelines_that_need_more_or_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    paint(monkeypatch, Retoucher())
    with pytest.raises(ValueError, match=r"the Retoucher at 'any' needs 'image' for an image"):
        fit(diffusion("any"), image_data())
    paint(monkeypatch, Painter(float("nan")))
    with pytest.raises(ValueError, match=r"image 0 of the Painter .* values that are not finite"):
        fit(diffusion("any"), animals())


def test_only_safetensors_are_read(unconditional: str, tmp_path: Path) -> None:
    mark, folder = tmp_path / "executed", tmp_path / "pipeline"
    shutil.copytree(unconditional, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    attack = weights.with_suffix(".bin")
    torch.save({**load_weights(weights), "extra": Explosive(mark)}, attack)
    weights.unlink()
    with pytest.raises(
        ValueError, match=r"cannot be loaded as a pipeline of diffusers: .*safetens"
    ):
        fit(diffusion(str(folder)), image_data())
    assert not mark.exists()
    torch.load(attack, weights_only=False)
    assert mark.exists(), "it would have gone off"


@pytest.mark.parametrize("part", ["_class_name", "unet", "scheduler"])
def test_code_that_comes_with_a_pipeline_is_refused(
    unconditional: str, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    mark, folder = tmp_path / "executed", tmp_path / "pipeline"
    shutil.copytree(unconditional, folder)
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Own: pass\n"
    (folder / "payload.py").write_text(code)
    (folder / "pipeline.py").write_text(code)
    for inner in ("unet", "scheduler"):
        (folder / inner / "payload.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), part: ["payload", "Own"]}))
    with pytest.raises(ValueError, match=r"cannot be loaded as a pipeline of diffusers: its "):
        fit(diffusion(str(folder)), image_data())
    assert not mark.exists()


def test_code_named_as_a_library_is_refused(unconditional: str, tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(unconditional, folder)
    (folder / "unet" / "diffusers.py").write_text("raise SystemExit")
    with pytest.raises(ValueError, match=r"its unet is \['diffusers', 'UNet2DModel'\]"):
        fit(diffusion(str(folder)), image_data())


def test_paths_that_are_no_pipeline(tmp_path: Path) -> None:
    for path in ("", "gone", "./a/b", "/a", "a/b/c"):
        with pytest.raises(ValueError, match=r"there is no such folder, and names on the Hub are"):
            fit(diffusion(path), image_data())
    with pytest.raises(ValueError, match=r"cannot be loaded as a pipeline of .*model_index.json"):
        fit(diffusion(str(tmp_path)), image_data())


def test_without_diffusers_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"the package diffusers, .*: pip install -e '\.\[diffus"):
        fit(diffusion("owner/name"), image_data())


def test_loading_is_quiet(unconditional: str, capfd: pytest.CaptureFixture[str]) -> None:
    fit(diffusion(unconditional), image_data())
    assert capfd.readouterr() == ("", "")
