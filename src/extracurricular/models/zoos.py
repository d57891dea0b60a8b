"""Build networks of other libraries: ``timm:NAME``, ``torchvision:NAME``, ``transformers:PATH``.

Each library is an extra, which is imported when a recipe names it. A network has random weights
unless ``pretrained`` or ``weights`` is set.

Published weights expect images standardised by the mean and deviation that come with them, while
data sets here are standardised by their own. ``normalisation`` says which of the two the network
gets: ``data`` or ``published``. A null means ``published`` where ``pretrained`` is true, and
``data`` otherwise. Images that are not bytes have unknown units and stay as the data have them.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from extracurricular.errors import NoteWarning, from_extra, known_names
from extracurricular.models.base import MODELS, Pixels, Shapes, check_at_least, one_image
from extracurricular.models.weights import load_pretrained

NO_SETTINGS: dict[str, Any] = {}
_MOST_KNOWN = 5

Normalisation: TypeAlias = Literal["data", "published"] | None
Moments: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""Mean and deviation of each channel, of images in [0, 1]."""


def _library(name: str) -> Any:
    """Import a library.

    Raises:
        ValueError: The library is missing, or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"needs {error.name or name}, {from_extra(name)}") from None
    except Exception as error:  # a build for other hardware fails in ways of its own
        text = " ".join(str(error).split())
        raise ValueError(f"{name} is installed, but cannot be imported: {text}") from error


def _made(library: str, name: str, make: Any) -> nn.Module:
    """Make a network, and turn any complaint of the library into one sentence."""
    try:
        module = make()
    except ImportError as error:
        raise ValueError(f"{library} needs more to make {name!r}: {error}") from error
    except Exception as error:  # libraries raise what they like for a wrong setting
        text = " ".join(str(error).split())
        raise ValueError(f"{library} cannot make {name!r}: {text}") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"{library} gives a {type(module).__name__} for {name!r}, no torch module")
    return module


def _check_name(library: str, name: str, known: list[str]) -> None:
    if name not in known:
        near = [one for one in known if one.startswith(name[:4])][:_MOST_KNOWN]
        told = known_names(name, near or known[:_MOST_KNOWN])
        raise ValueError(f"{library} has no network {name!r}; {told}, and {len(known)} in all")


class Renormalised(nn.Module):
    """A network that gets images standardised as in its own training.

    From bytes p, the data make x = (p - shift) / scale; the network needs (p / 255 - mean) / std.

    Args:
        inner: The network; its weights are this module's, under ``inner``.
        pixels: Shift and scale of the data, in units of bytes, each of one value a channel.
        moments: Mean and std.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, inner: nn.Module, pixels: Pixels, moments: Moments) -> None:
        super().__init__()
        self.inner = inner
        shift, scale = (part.detach().cpu().double().view(-1, 1, 1) for part in pixels)
        mean, std = (torch.tensor(part, dtype=torch.float64).view(-1, 1, 1) for part in moments)
        # They belong to the data and to the origin of the weights, not to the trained state.
        for name, value in (("factor", scale / 255 / std), ("offset", (shift / 255 - mean) / std)):
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs for images [B, C, H, W] as the data standardise them."""
        y: Tensor = self.inner(torch.addcmul(self.offset, x, self.factor))
        return y


def _renormalised(
    module: nn.Module,
    normalisation: Normalisation,
    pretrained: bool,
    pixels: Pixels | None,
    published: Callable[[], Moments | None],
) -> nn.Module:
    """Return the network behind the standardisation that ``normalisation`` asks for."""
    if normalisation == "data" or (normalisation is None and not pretrained):
        return module
    if pixels is None:
        if normalisation is None:
            return module
        raise ValueError(
            "normalisation is 'published', but the images are no bytes, so their units are unknown"
        )
    moments = published()
    if moments is None or len(moments[0]) != pixels[0].numel():
        if normalisation is None:
            return module
        raise ValueError("normalisation is 'published', but none is for images of these channels")
    return Renormalised(module, pixels, moments)


@dataclass(frozen=True)
class Request:
    """A network that a recipe asks a library for.

    Args:
        name: Its name in the library.
        image: Shape of one image, (C, H, W).
        outputs: Number of outputs.
        pretrained: Whether to start from the published weights.
        settings: Further settings of the library, such as ``{img_size: 32}``.
    """

    name: str
    image: tuple[int, int, int]
    outputs: int
    pretrained: bool
    settings: Mapping[str, Any]


Make: TypeAlias = Callable[[Any, Request], nn.Module]
"""Makes a network, given the imported library."""

Published: TypeAlias = Callable[[Any, Request, nn.Module], Moments | None]
"""Finds the moments that come with a network's published weights; None where there are none."""


def zoo(library: str, published: Published) -> Callable[[Make], Make]:
    """Return a decorator that registers a function as the maker of networks ``library:NAME``.

    Args:
        library: Name of the library and of the extra that installs it.
        published: Finds the standardisation of the published weights.
    """

    def register(make: Make) -> Make:
        def build(
            inputs: Shapes,
            outputs: int,
            *,
            name: str,
            pretrained: bool = False,
            weights: str | None = None,
            key: str | None = None,
            normalisation: Normalisation = None,
            settings: dict[str, Any] = NO_SETTINGS,
            pixels: Pixels | None = None,
        ) -> nn.Module:
            """Build a network of the library.

            Args:
                pretrained: Whether to begin with the library's published weights, which it
                    downloads once.
                weights: A file of weights for the network, instead of published ones.
                key: Where the weights stand in that file; searched where None.
                normalisation: The standardisation of its inputs: ``data`` by the data set's pixels,
                    or ``published``, that of its published weights; None for ``published`` where
                    the network is pretrained, else ``data``.
                settings: Further arguments of the library's function.
            """
            request = Request(name, one_image(inputs), outputs, pretrained, settings)
            check_at_least(1, outputs=outputs)
            found = _library(library)
            module = make(found, request)
            if weights is not None:
                for note in load_pretrained(module, Path(weights), key=key):
                    warnings.warn(note, NoteWarning, stacklevel=2)
            return _renormalised(
                module, normalisation, pretrained, pixels, lambda: published(found, request, module)
            )

        build.__doc__ = make.__doc__
        MODELS.register(f"{library}:{{name}}")(build)
        return make

    return register


def _timm_moments(timm: Any, request: Request, module: nn.Module) -> Moments | None:
    found: Any = getattr(module, "pretrained_cfg", None) or {}
    return (found["mean"], found["std"]) if "mean" in found and "std" in found else None


@zoo("timm", _timm_moments)
def timm_model(timm: Any, request: Request) -> nn.Module:
    """Build a network of timm, by a name of ``timm.list_models()``.

    timm adapts the first layer to the channels of the images, pretrained or not. The last layer is
    new where the number of outputs differs. ``settings`` go to ``timm.create_model``.

    Raises:
        ValueError: timm is missing, has no such network, or does not take the settings.
    """
    name, channels = request.name, request.image[0]
    _check_name("timm", name.partition(".")[0], timm.list_models())
    chosen = {"num_classes": request.outputs, "in_chans": channels, **request.settings}
    return _made(
        "timm", name, lambda: timm.create_model(name, pretrained=request.pretrained, **chosen)
    )


def _torchvision_moments(torchvision: Any, request: Request, module: nn.Module) -> Moments | None:
    found = torchvision.models.get_model_weights(request.name).DEFAULT.transforms()
    return (found.mean, found.std)


@zoo("torchvision", _torchvision_moments)
def torchvision_model(torchvision: Any, request: Request) -> nn.Module:
    """Build a classification network of torchvision, by a name of ``models.list_models()``.

    Images have 3 channels. The last layer is new where the number of outputs is not 1000.
    ``settings`` go to the network, such as ``{image_size: 32}``.

    Raises:
        ValueError: torchvision is missing, has no such network, or does not take the settings; or
            images have other than 3 channels.
    """
    name, models = request.name, torchvision.models
    if request.image[0] != 3:
        raise ValueError(f"takes images of 3 channels, but these have {request.image[0]}")
    _check_name("torchvision", name, models.list_models(models))

    def make() -> Any:
        outputs, settings = request.outputs, request.settings
        module = models.get_model(name, weights=None, num_classes=outputs, **settings)
        if request.pretrained:
            own = module.state_dict()
            published = models.get_model(name, weights="DEFAULT", **settings).state_dict()
            kept = {k: v for k, v in published.items() if k in own and own[k].shape == v.shape}
            module.load_state_dict({**own, **kept})
        return module

    return _made("torchvision", name, make)


class Logits(nn.Module):
    """A network of transformers that returns only its logits.

    Args:
        inner: The network; its weights are this module's, under ``inner``.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, ``[B, outputs]``."""
        logits: Tensor = self.inner(pixel_values=x).logits
        return logits


def _transformers_moments(library: Any, request: Request, module: nn.Module) -> Moments | None:
    try:
        found = library.AutoImageProcessor.from_pretrained(request.name, trust_remote_code=False)
    except (OSError, ValueError):
        return None  # none came with the network
    normal = getattr(found, "do_normalize", False)
    return (found.image_mean, found.image_std) if normal else None


@zoo("transformers", _transformers_moments)
def transformers_model(library: Any, request: Request) -> nn.Module:
    """Build an image classifier of Hugging Face transformers, from a folder or a name on the Hub.

    The folder has ``config.json``. Code that comes with it is never run, and weights are read only
    from safetensors. The last layer is new where the number of outputs differs. ``settings`` change
    the configuration, such as ``{image_size: 32}``.

    Raises:
        ValueError: transformers is missing, or the folder or name cannot be used.
    """
    channels, rows, columns = request.image

    def make() -> Any:
        config = library.AutoConfig.from_pretrained(request.name, trust_remote_code=False)
        config.num_labels = request.outputs
        fitting: dict[str, Any] = {"num_channels": channels, "image_size": (rows, columns)}
        if rows == columns:
            fitting["image_size"] = rows
        # A configuration of published weights keeps its own sizes.
        for key, value in {**({} if request.pretrained else fitting), **request.settings}.items():
            if hasattr(config, key) or key in request.settings:
                setattr(config, key, value)
        kind = library.AutoModelForImageClassification
        if not request.pretrained:
            return kind.from_config(config, trust_remote_code=False)
        return kind.from_pretrained(
            request.name,
            config=config,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
        )

    return Logits(_made("transformers", request.name, make))
