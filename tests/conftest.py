"""What several test files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from extracurricular.data.base import Data, Split, make_data
from extracurricular.data.sets.imagefolder import imagefolder
from extracurricular.distributions import Task
from extracurricular.generators.gan import Gan
from extracurricular.generators.tables import Mixture
from extracurricular.inputs import images
from extracurricular.models import build_model
from extracurricular.recipe.read import parse_recipe
from extracurricular.recipe.schema import Recipe
from extracurricular.run.check import check
from extracurricular.run.execute import execute
from extracurricular.run.plan import plan
from extracurricular.run.stages import Checks
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Context
from extracurricular.teachers import Ensemble, Network


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.manual_seed(0)


def image_data(count: int = 60, size: int = 8, classes: int = 4, channels: int = 1) -> Data:
    """Random images whose every pixel value is distinct enough to tell examples apart."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (count, channels, size, size)).astype(np.uint8)
    y = np.arange(count) % classes
    return make_data("images", (x, y), (x[:20], y[:20]), (x[:10], y[:10]))


def table_data(count: int = 50, columns: int = 5, outputs: int = 2) -> Data:
    rng = np.random.default_rng(1)
    x = rng.normal(3, 2, (count, columns)).astype(np.float32)
    y = (x[:, :outputs] * 10 + 5).astype(np.float32)
    return make_data("table", (x, y), (x[:20], y[:20]), (x[:10], y[:10]))


def label_data(count: int = 50, labels: int = 3) -> Data:
    """A table whose examples have several labels of 0 and 1."""
    rng = np.random.default_rng(4)
    x = rng.normal(3, 2, (count, 5)).astype(np.float32)
    y = (x[:, :labels] > 3).astype(np.float32)
    task = Task("multilabel", labels)
    return make_data("labels", (x, y), (x[:20], y[:20]), (x[:10], y[:10]), task=task)


def soft_data(count: int = 50, classes: int = 4) -> Data:
    """A table whose examples have probabilities of classes."""
    rng = np.random.default_rng(5)
    x = rng.normal(3, 2, (count, 5)).astype(np.float32)
    y = np.exp(x[:, :classes])
    y /= y.sum(1, keepdims=True)
    return make_data("soft", (x, y), (x[:20], y[:20]), (x[:10], y[:10]))


def row_data() -> Data:
    """The pixels of :func:`image_data` as the columns of a table."""
    x = image_data().train.x.flatten(1).numpy().astype(np.float32)  # type: ignore[union-attr]
    y = np.arange(len(x)) % 4
    return make_data("rows", (x, y), (x[:20], y[:20]), (x[:10], y[:10]))


def eye_data(count: int = 40) -> Data:
    """A dict input: an image and a vector, with two real targets."""
    rng = np.random.default_rng(2)
    x = {
        "eye": rng.integers(0, 256, (count, 1, 12, 20)).astype(np.uint8),
        "pose": rng.normal(0, 0.2, (count, 2)).astype(np.float32),
    }
    y = rng.normal(0, 0.3, (count, 2)).astype(np.float32)
    small = {k: v[:10] for k, v in x.items()}
    return make_data("eyes", (x, y), (small, y[:10]), (small, y[:10]), angular=True)


def pair_data(count: int = 40) -> Data:
    """The same as a tuple input."""
    data = eye_data(count)
    x = tuple(v.numpy() for v in data.train.x.values())  # type: ignore[union-attr]
    y = data.train.y.numpy()  # type: ignore[union-attr]
    return make_data("pairs", (x, y), (tuple(v[:10] for v in x), y[:10]))


def photographs(root: Path, each: int = 18, classes: int = 4) -> Path:
    """A folder of JPEGs of many sizes, in classes, no two the same."""
    rng = np.random.default_rng(0)
    for k in range(each * classes):
        file = root / f"class{k % classes}" / f"{k:03d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
        size = (int(rng.integers(20, 90)), int(rng.integers(20, 90)))
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, quality=90)
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs that no test changes."""
    return photographs(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def streamed_data(photos: Path) -> Iterator[Callable[..., Data]]:
    """Makes those a data set that is streamed; the workers live as long as the session."""

    @lru_cache
    def make(workers: int = 2, **settings: Any) -> Data:
        settings = {"size": 8, "channels": 1, "stream": True} | settings
        return imagefolder(str(photos), workers=workers, **settings)

    yield make
    make.cache_clear()


def small_teacher(data: Data, members: int = 2, seed: int = 0) -> Ensemble:
    """An untrained ensemble; its scores differ between examples, which is all that is needed."""
    torch.manual_seed(seed)
    built = [
        build_model({"mlp": {"hidden": [8]}}, inputs=data.shapes, outputs=data.task.outputs)
        for _ in range(members)
    ]
    return Ensemble([Network(module.eval(), data.task) for module in built])


def small_context(data: Data) -> Context:
    """What samplers may need: a teacher, a student, a generator ``model`` and a pool ``more``."""
    torch.manual_seed(3)
    device = torch.device("cpu")
    if images(data.train.x):
        generator = Gan(latent=4, channels=4).preview(data)
    else:
        fit = Mixture(components=2)
        generator = fit.load(fit.fit(data, seed=0, folder=None, device=device), data)
    teacher = small_teacher(data)
    student = build_model({"mlp": {"hidden": [4]}}, inputs=data.shapes, outputs=data.task.outputs)
    return Context(teacher, student, {"model": generator, "more": Split(data.test.x)}, 300)


def small_recipe(data: dict[str, Any], model: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A recipe of a few steps with the three usual students and two seeds."""
    training = {"steps": 30, "batch_size": 32, "optimizer": "adamw", "lr": 0.01}
    return {
        "name": "small",
        "data": data,
        "seeds": [0, 1],
        "teacher": {"model": model, "members": 2, "training": training},
        "defaults": {"model": model, "training": training},
        "students": {
            "erm": {"learns_from": "labels"},
            "kd": {},
            "xcl": {"sampler": ["empirical", {"mixup": {"alpha": 1.0}}]},
        },
    } | changes


def checked(recipe: Recipe, folder: Path) -> Checks:
    """Find the mistakes of a recipe, and write nothing."""
    return check(plan(recipe), Workspace(recipe, folder))


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on images and classes; not to be written to, but for what can be made anew."""
    recipe = small_recipe(
        {"digits": {"train": 100, "validation": 50}}, {"digits_cnn": {"width": 4}}
    )
    folder = tmp_path_factory.mktemp("digits") / "run"
    execute(parse_recipe(recipe), folder)
    return folder


@pytest.fixture(scope="session")
def gaze_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on two inputs, an image and a vector, and two real targets."""
    data = {
        "gaze": {
            "train_persons": 4,
            "train_images": 10,
            "validation_persons": 2,
            "test_persons": 2,
            "test_images": 20,
        }
    }
    folder = tmp_path_factory.mktemp("gaze") / "run"
    execute(parse_recipe(small_recipe(data, {"gaze_lenet": {"width": 0.1}})), folder)
    return folder
