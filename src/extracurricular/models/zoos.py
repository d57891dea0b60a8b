"""Doors to the usual zoos: ``timm:NAME``, ``torchvision:NAME``, ``transformers:PATH``.

Each library is an extra and imported when it is asked for. A network has random weights unless
``pretrained`` or ``weights`` says otherwise.

Published weights are for images that were standardised by the mean and deviation that come with
them, while data sets here are standardised by their own. ``normalisation`` says which the network
gets: ``data``, or ``published``, which is what ``null`` means where ``pretrained`` is true. Images
that are no bytes have units that nobody knows, and are left as the data have them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from extracurricular.errors import known_names
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
        ValueError: It is missing, or does not work here.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"needs {error.name or name}: pip install 'extracurricular[{name}]'"
        ) from None
    except Exception as error:  # a build for other hardware fails in ways of its own
        text = " ".join(str(error).split())
        raise ValueError(f"{name} is installed, but cannot be imported: {text}") from error


def _made(library: str, name: str, make: Any) -> nn.Module:
    """Call what makes a network, and tell what it complains about as one sentence."""
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


def _finished(module: nn.Module, weights: str | None) -> nn.Module:
    if weights is not None:
        load_pretrained(module, Path(weights))
    return module


class Renormalised(nn.Module):
    """A network that gets images standardised as those it was trained on.

    With bytes p, the data give x = (p - shift) / scale; the network wants (p / 255 - mean) / std.

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
        # They belong to the data and the weights' origin, not to what is trained.
        for name, value in (("factor", scale / 255 / std), ("offset", (shift / 255 - mean) / std)):
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network says of images [B, C, H, W] as the data standardise them."""
        y: Tensor = self.inner(torch.addcmul(self.offset, x, self.factor))
        return y


def _renormalised(
    module: nn.Module,
    normalisation: Normalisation,
    pretrained: bool,
    pixels: Pixels | None,
    published: Callable[[], Moments | None],
) -> nn.Module:
    """Put a network behind the standardisation that it should get; see the module's text."""
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


@MODELS.register("timm:{name}")
def timm_model(
    inputs: Shapes,
    outputs: int,
    *,
    name: str,
    pretrained: bool = False,
    weights: str | None = None,
    normalisation: Normalisation = None,
    settings: dict[str, Any] = NO_SETTINGS,
    pixels: Pixels | None = None,
) -> nn.Module:
    """Build a network of timm.

    Args:
        inputs: ``(C, H, W)``; timm adapts the first layer to C, pretrained or not.
        outputs: Number of outputs; the last layer is a new one where it differs.
        name: As ``timm.list_models()`` has it.
        pretrained: Start from the published weights, which are downloaded.
        weights: A file of weights to start from.
        normalisation: What images it gets: ``data``, ``published``, or null (see above).
        settings: What else ``timm.create_model`` takes, such as ``{img_size: 32}``.
        pixels: How the data standardise bytes of images.

    Raises:
        ValueError: timm is missing, has no such network, or does not take the settings.
    """
    channels, _, _ = one_image(inputs)
    check_at_least(1, outputs=outputs)
    timm = _library("timm")
    _check_name("timm", name.partition(".")[0], timm.list_models())
    chosen = {"num_classes": outputs, "in_chans": channels, **settings}
    module = _made("timm", name, lambda: timm.create_model(name, pretrained=pretrained, **chosen))

    def published() -> Moments | None:
        found: Any = getattr(module, "pretrained_cfg", None) or {}
        return (found["mean"], found["std"]) if "mean" in found and "std" in found else None

    module = _finished(module, weights)
    return _renormalised(module, normalisation, pretrained, pixels, published)


@MODELS.register("torchvision:{name}")
def torchvision_model(
    inputs: Shapes,
    outputs: int,
    *,
    name: str,
    pretrained: bool = False,
    weights: str | None = None,
    normalisation: Normalisation = None,
    settings: dict[str, Any] = NO_SETTINGS,
    pixels: Pixels | None = None,
) -> nn.Module:
    """Build a classification network of torchvision.

    Args:
        inputs: ``(3, H, W)``.
        outputs: Number of outputs; the last layer is a new one where it differs from 1000.
        name: As ``torchvision.models.list_models()`` has it.
        pretrained: Start from the published weights, which are downloaded.
        weights: A file of weights to start from.
        normalisation: What images it gets: ``data``, ``published``, or null (see above).
        settings: What else the network takes, such as ``{image_size: 32}``.
        pixels: How the data standardise bytes of images.

    Raises:
        ValueError: torchvision is missing, has no such network, or does not take the settings; or
            an image has other than 3 channels.
    """
    channels, _, _ = one_image(inputs)
    check_at_least(1, outputs=outputs)
    if channels != 3:
        raise ValueError(f"takes images of 3 channels, but these have {channels}")
    models = _library("torchvision").models
    _check_name("torchvision", name, models.list_models(models))

    def make() -> Any:
        module = models.get_model(name, weights=None, num_classes=outputs, **settings)
        if pretrained:
            own = module.state_dict()
            published = models.get_model(name, weights="DEFAULT", **settings).state_dict()
            kept = {k: v for k, v in published.items() if k in own and own[k].shape == v.shape}
            module.load_state_dict({**own, **kept})
        return module

    def published() -> Moments | None:
        found = models.get_model_weights(name).DEFAULT.transforms()
        return (found.mean, found.std)

    module = _finished(_made("torchvision", name, make), weights)
    return _renormalised(module, normalisation, pretrained, pixels, published)


class Logits(nn.Module):
    """A network of transformers that gives its logits alone.

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


@MODELS.register("transformers:{name}")
def transformers_model(
    inputs: Shapes,
    outputs: int,
    *,
    name: str,
    pretrained: bool = False,
    weights: str | None = None,
    normalisation: Normalisation = None,
    settings: dict[str, Any] = NO_SETTINGS,
    pixels: Pixels | None = None,
) -> nn.Module:
    """Build an image classifier of Hugging Face transformers.

    Args:
        inputs: ``(C, H, W)``.
        outputs: Number of outputs; the last layer is a new one where it differs.
        name: A folder with ``config.json``, or a name on the Hub. Code that comes with it is never
            run, and weights are read from safetensors alone.
        pretrained: Start from the weights in it.
        weights: A file of weights to start from.
        normalisation: What images it gets: ``data``, ``published``, or null (see above).
        settings: What of the configuration is to be otherwise, such as ``{image_size: 32}``.
        pixels: How the data standardise bytes of images.

    Raises:
        ValueError: transformers is missing, or the folder or name cannot be used.
    """
    channels, rows, columns = one_image(inputs)
    check_at_least(1, outputs=outputs)
    library = _library("transformers")

    def make() -> Any:
        config = library.AutoConfig.from_pretrained(name, trust_remote_code=False)
        config.num_labels = outputs
        fitting = {"num_channels": channels, "image_size": (rows, columns)}
        if rows == columns:
            fitting["image_size"] = rows
        # What published weights were made for stays as it is.
        for key, value in {**({} if pretrained else fitting), **settings}.items():
            if hasattr(config, key) or key in settings:
                setattr(config, key, value)
        kind = library.AutoModelForImageClassification
        if not pretrained:
            return kind.from_config(config, trust_remote_code=False)
        return kind.from_pretrained(
            name,
            config=config,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
        )

    def published() -> Moments | None:
        try:
            found = library.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError):
            return None  # none came with the network
        normal = getattr(found, "do_normalize", False)
        return (found.image_mean, found.image_std) if normal else None

    module = _finished(Logits(_made("transformers", name, make)), weights)
    return _renormalised(module, normalisation, pretrained, pixels, published)
