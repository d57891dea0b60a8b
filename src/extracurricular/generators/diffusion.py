"""Pools of images from published diffusion pipelines, by the package diffusers."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data, Split
from extracurricular.data.images.decode import image_bytes
from extracurricular.errors import StorageError, from_extra, known_names, shorten
from extracurricular.files import load_weights, save_weights
from extracurricular.generators.base import GENERATORS, Fit, FitContext
from extracurricular.inputs import Inputs, is_leaf, leaves


@GENERATORS.register("diffusers")
@dataclass(frozen=True)
class Diffusers(Fit):
    """A pool of images from a pipeline of the package diffusers, drawn once.

    A pipeline that takes classes or prompts gets those of the data in turn, which become the labels
    of its images. Image ``k`` has random numbers of its own, so it depends on ``seed`` and ``k``
    alone, up to the rounding of arithmetic in batches. Pipelines that take prompts need the package
    transformers beside diffusers.

    Args:
        path: A folder that ``save_pretrained`` made, or a name on the Hugging Face Hub. Only
            safetensors are read, and code that comes with a pipeline is refused.
        count: Images to draw.
        inference_steps: Denoising steps for each image.
        batch_size: Images that are drawn at a time, and the most that an interruption loses.
        labels: ``auto`` labels images where the pipeline takes classes or prompts and the data has
            classes. ``classes`` requires labels. ``none`` leaves them out, and the pipeline gets
            all ``prompts`` in turn, or all of its own classes.
        prompts: The prompt of each of the data's classes, by name (or by number, where they have no
            names), by default ``a photo of a NAME``; or the pipeline's name of that class, by
            default the same name. Classes without names match the pipeline's by number, if it has
            as many.
        guidance: Strength of the condition (``guidance_scale``); None for the pipeline's own.
        resize: Bring images to the size of the data's
            (:func:`extracurricular.data.images.decode.image_bytes`); without it they must have
            that size.
    """

    path: str
    count: int = 2000
    inference_steps: int = 50
    batch_size: int = 16
    labels: Literal["auto", "none", "classes"] = "auto"
    prompts: dict[str, str] | None = None
    guidance: float | None = None
    resize: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("count", "inference_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.labels not in ("auto", "none", "classes"):
            raise ValueError(f"labels is {self.labels!r}; it must be auto, none or classes")

    @property
    def steps(self) -> int:
        """One step is one image."""
        return self.count

    def preview(self, data: Data) -> Split:
        """Return an example of the data in place of the pool, without opening the pipeline.

        It has a label only where ``labels`` is ``classes``, as ``auto`` depends on the pipeline.
        """
        self._check(data)
        import_diffusers()
        check_path(self.path)
        return data.train[:1] if self.labels == "classes" else Split(data.train.x)[:1]

    def _fit(self, context: FitContext) -> dict[str, Tensor]:
        """Draw the images, except those that the folder has already.

        Returns:
            ``x``, uint8, [count, C, H, W]; and ``y``, int64, [count], where they are labelled.

        Raises:
            ValueError: The package is missing, the pipeline cannot be loaded, or it does not go
                with the data.
        """
        data, seed, folder = context.data, context.seed, context.folder
        shape = self._check(data)
        shards = None if folder is None else _Shards(folder, self._identity(data, shape, seed))
        pipeline: _Pipeline | None = None
        images: list[Tensor] = []
        labels: list[Tensor] = []
        done = 0
        while done < self.count:
            state = None if shards is None else shards.read(done)
            if state is None:
                pipeline = pipeline or _Pipeline(self, data, context.device)
                numbers = range(done, min(done + self.batch_size, self.count))
                state = pipeline.draw(numbers, seed, shape)
                if shards is not None:
                    shards.write(done, state)
            images.append(state["x"])
            labels += [state["y"]] if "y" in state else []
            done += len(state["x"])
            context.tell(min(done, self.count), 0.0)
        # A kept batch may reach beyond the count, which may have been larger before.
        result = {"x": torch.cat(images)[: self.count]}
        if labels:
            result["y"] = torch.cat(labels)[: self.count]
        return result

    def load(self, state: dict[str, Tensor], data: Data) -> Split:
        """Make a pool of the images, on the device of the data."""
        x, like = state.get("x"), leaves(data.train.x).get("")
        if x is None or like is None or (x.dtype, x.shape[1:]) != (like.dtype, like.shape[1:]):
            found = None if x is None else tuple(x.shape)
            raise StorageError(
                f"the kept pool of the generator 'diffusers' has images of shape {found}, but data "
                f"{data.name!r} has {data.shapes}"
            )
        return Split(x, state.get("y")).to(data.device)

    def _check(self, data: Data) -> tuple[int, ...]:
        """Check the settings against the data, and return the shape (C, H, W) of its images."""
        x, names = data.train.x, class_names(data)
        bytes_of_image = is_leaf(x) and x.ndim == 4 and x.dtype == torch.uint8
        if not is_leaf(x) or not bytes_of_image or x.shape[1] not in (1, 3):
            raise ValueError(
                "diffusers makes images of bytes, grey or in colours, "
                f"but the input of data {data.name!r} is {_kind(x)}"
            )
        if self.labels == "classes" and not names:
            raise ValueError(
                f"labels is 'classes', but data {data.name!r} has no classes; use auto or none"
            )
        for name in self.prompts or {}:
            if self.labels != "none" and names and name not in names:
                raise ValueError(f"prompts names the class {name!r}; {known_names(name, names)}")
        return tuple(x.shape[1:])

    def _identity(self, data: Data, shape: tuple[int, ...], seed: int) -> str:
        """Return all that an image depends on besides its number, as text."""
        settings = asdict(self)
        # An image is the same in a batch of any size, and in a pool of any size.
        del settings["count"], settings["batch_size"]
        index = Path(self.path) / "model_index.json"
        content = index.read_text(encoding="utf-8") if index.is_file() else ""
        return json.dumps([settings, shape, seed, list(class_names(data)), content])


def class_names(data: Data) -> tuple[str, ...]:
    """Return the names of the data's classes, or their numbers; nothing for regression."""
    if data.task.kind != "classification":
        return ()
    return data.classes or tuple(str(k) for k in range(data.task.size))


def _kind(x: Inputs) -> str:
    kinds = [
        f"{str(leaf.dtype).removeprefix('torch.')} {list(leaf.shape[1:])}"
        for leaf in leaves(x).values()
    ]
    return " and ".join(kinds)


@dataclass(frozen=True)
class _Shards:
    """Batches of images that are drawn already, each in a file whose name has its checksum.

    The checksum also covers the settings that the images depend on, so that images of other
    settings, and damaged ones, are ignored.
    """

    folder: Path
    identity: str

    def read(self, start: int) -> dict[str, Tensor] | None:
        """Return the batch that begins with image ``start``, or None."""
        for file in sorted(self.folder.glob(f"images-{start:08d}.*.safetensors")):
            try:
                state = load_weights(file)
            except StorageError:
                continue
            if "x" in state and len(state["x"]) and self._name(start, state) == file.name:
                return state
        return None

    def write(self, start: int, state: dict[str, Tensor]) -> None:
        """Keep a batch."""
        save_weights(self.folder / self._name(start, state), state)

    def _name(self, start: int, state: dict[str, Tensor]) -> str:
        digest = hashlib.sha256(f"{self.identity}\n{start}\n{sorted(state)}".encode())
        for key in sorted(state):
            digest.update(np.ascontiguousarray(state[key].numpy()).tobytes())
        return f"images-{start:08d}.{digest.hexdigest()[:32]}.safetensors"


class _Pipeline:
    """A loaded pipeline, with the condition of each image in turn.

    Args:
        settings: The settings.
        data: The data set.
        device: Where to compute.
    """

    def __init__(self, settings: Diffusers, data: Data, device: torch.device) -> None:
        self.settings = settings
        self.pipeline = load_pipeline(settings.path).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.title = f"the {type(self.pipeline).__name__} at {settings.path!r}"
        self.device = device
        self.takes = inspect.signature(self.pipeline.__call__).parameters
        self.key = next((k for k in ("class_labels", "prompt") if k in self.takes), None)
        self.classes = self._class_count()
        if self.key == "class_labels" and self.classes is None:
            self.key = None  # the same pipeline serves networks with and without classes
        for name, parameter in self.takes.items():
            if parameter.default is parameter.empty and name not in (self.key, "kwargs"):
                raise ValueError(
                    f"{self.title} needs {name!r} for an image; "
                    "it must need no more than random numbers, and a class or a prompt"
                )
        self.given, self.labels = self._conditions(data)

    def draw(self, numbers: range, seed: int, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw the images of these numbers."""
        # On the CPU, so that the numbers are the same on every device.
        own = [torch.Generator().manual_seed(rng.fold(seed, "image", k)) for k in numbers]
        call: dict[str, Any] = {"generator": own, "output_type": "np"}
        if self.key is not None:
            call[self.key] = [self.given[k % len(self.given)] for k in numbers]
        if "batch_size" in self.takes:
            call["batch_size"] = len(numbers)
        if "num_inference_steps" in self.takes:
            call["num_inference_steps"] = self.settings.inference_steps
        if self.settings.guidance is not None:
            call["guidance_scale"] = self.settings.guidance
        # Some pipelines also draw noise from torch's own state, so that is seeded too.
        torch.manual_seed(rng.fold(seed, "batch", numbers.start))
        with torch.no_grad():
            made = np.asarray(self.pipeline(**call).images)
        x = np.empty((len(numbers), *shape), np.uint8)
        for row, values, number in zip(x, made, numbers, strict=True):
            row[...] = self._bytes(values, shape, number)
        state = {"x": torch.from_numpy(x)}
        if self.labels is not None:
            state["y"] = torch.tensor([self.labels[k % len(self.labels)] for k in numbers])
        return state

    def _bytes(self, values: Any, shape: tuple[int, ...], number: int) -> Any:
        """Turn one image [H, W, C] of values in [0, 1] into bytes with the data's shape."""
        if not np.isfinite(values).all():
            raise ValueError(f"image {number} of {self.title} has values that are not finite")
        image = (values * 255).round().clip(0, 255).astype(np.uint8)
        try:
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            return image_bytes(picture, shape, self.settings.resize)
        except ValueError as error:
            raise ValueError(
                f"an image of {self.title} {error}, the data's are "
                f"{shape[2]} × {shape[1]} (width × height); resize: true brings it to that size"
            ) from error

    def _conditions(self, data: Data) -> tuple[list[Any], list[int] | None]:
        """Return the conditions that the pipeline gets in turn, and their labels."""
        names = () if self.settings.labels == "none" else class_names(data)
        prompts = self.settings.prompts or {}
        if self.key is None:
            if self.settings.labels == "classes":
                raise ValueError(
                    f"labels is 'classes', but {self.title} takes neither classes nor prompts; "
                    "use auto or none"
                )
            if prompts:
                raise ValueError(f"prompts is given, but {self.title} takes none; leave it out")
            return [None], None
        if self.key == "prompt":
            given = self._prompts(data, names, prompts)
        else:
            given = self._classes(names, prompts)
        return given, list(range(len(names))) if names else None

    def _prompts(self, data: Data, names: tuple[str, ...], prompts: dict[str, str]) -> list[Any]:
        if not names:
            if not prompts:
                raise ValueError(f"prompts is empty, but {self.title} takes prompts; give some")
            return list(prompts.values())
        for name in names:
            if not data.classes and name not in prompts:
                raise ValueError(
                    f"prompts has none for the class {name!r}, and data {data.name!r} does not "
                    f"name its classes; give one for each of '0' to {names[-1]!r}"
                )
        return [prompts.get(name, f"a photo of a {name}") for name in names]

    def _classes(self, names: tuple[str, ...], prompts: dict[str, str]) -> list[Any]:
        """Return the pipeline's classes by name, or else by number."""
        known: dict[str, int] = getattr(self.pipeline, "labels", None) or {}
        own = [prompts.get(name, name) for name in names] or list(prompts.values())
        if own and all(name in known for name in own):
            return [known[name] for name in own]
        count = self.classes or 0
        if not prompts and len(names) in (0, count):
            return list(range(count))
        strange = next((name for name in own if name not in known), own[0])
        raise ValueError(
            f"{self.title} has {count} classes, and {strange!r} is none of their names; "
            "give prompts, {CLASS: NAME OF THE PIPELINE'S CLASS}, or "
            "labels: none to draw from all of its classes"
        )

    def _class_count(self) -> int | None:
        """Return the number of classes that the pipeline's network was built for, if any."""
        for part in ("transformer", "unet"):
            config = getattr(getattr(self.pipeline, part, None), "config", {})
            for name in ("num_embeds_ada_norm", "num_class_embeds"):
                if config.get(name):
                    return int(config[name])
        return None


def import_diffusers() -> Any:
    """Import the package diffusers, or raise ``ValueError`` with a line that installs it."""
    try:
        import diffusers
    except ImportError:
        raise ValueError(
            f"the generator 'diffusers' needs the package diffusers, {from_extra('diffusers')}"
        ) from None
    return diffusers


def check_path(path: str) -> None:
    """Check that a path is a folder, or has the form of a name on the Hub."""
    if not path or (not Path(path).is_dir() and (path.count("/") != 1 or path[0] in "./~")):
        raise ValueError(
            f"path is {path!r}; there is no such folder, and names on the Hub are OWNER/NAME"
        )


def load_pipeline(path: str) -> Any:
    """Load a pipeline of the package diffusers, which has safetensors and no code of its own.

    Args:
        path: A folder, or a name on the Hugging Face Hub to download from.

    Raises:
        ValueError: The package is missing, or the pipeline cannot be loaded or brings code.
    """
    diffusers = import_diffusers()
    check_path(path)
    folder = Path(path)
    loader: Any = diffusers.DiffusionPipeline
    # Forked, since networks are made with random weights before their own are read.
    with _quiet(diffusers), torch.random.fork_rng(devices=[]):
        try:
            if not folder.is_dir():
                folder = Path(loader.download(path, use_safetensors=True))
            _refuse_code(folder, diffusers)
            return loader.from_pretrained(str(folder), use_safetensors=True)
        except Exception as error:  # diffusers raises all kinds for files, network and versions
            reason = " ".join(str(error).split())
            raise ValueError(
                f"path is {path!r}, which cannot be loaded as a pipeline of diffusers: {reason}"
            ) from error


def _refuse_code(folder: Path, diffusers: Any) -> None:
    """Refuse a pipeline that names classes of its own.

    Older versions of diffusers do not refuse them where the files are in a folder.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    name = index.get("_class_name")
    if not isinstance(name, str) or not hasattr(diffusers, name):
        raise ValueError(f"its class is {shorten(name)}, which diffusers has not")
    for part, value in index.items():
        if isinstance(value, list) and value and value[0] is not None:
            library = str(value[0])
            ours = library in ("diffusers", "transformers") or hasattr(diffusers.pipelines, library)
            if not ours or (folder / part / f"{library}.py").exists():
                raise ValueError(
                    f"its {part} is {shorten(value)}, code from neither diffusers nor transformers"
                )


@contextmanager
def _quiet(diffusers: Any) -> Iterator[None]:
    """Keep bars and advice of diffusers off the screen, where the run's own bar is."""
    logging = diffusers.utils.logging
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
