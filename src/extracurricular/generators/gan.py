"""A conditional generative adversarial network, fitted to small data.

It has the hinge loss (Lim and Ye 2017), a discriminator with spectral norm and projection, and
differentiable augmentation of the discriminator's inputs (Zhao et al. 2020). The result is a moving
average of the generator's weights. Everything random in a step is a function of (seed, step), so an
interrupted fit goes on to the same result.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.errors import TrainingError
from extracurricular.files import Checkpoints
from extracurricular.generators.base import (
    GENERATORS,
    Fit,
    FitContext,
    Generator,
    condition_size,
    conditions,
)
from extracurricular.generators.networks import DiscriminatorNet, GeneratorNet
from extracurricular.inputs import Inputs, is_leaf, leaves

_CHECKPOINT_SECONDS = 20.0


@GENERATORS.register("gan")
@dataclass(frozen=True)
class Gan(Fit):
    """A conditional GAN for inputs with one image, of 8×8 to 64×64.

    The condition is the class, or for regression the target and the vectors that come with the
    image, which the draws then carry too.

    Args:
        steps: Steps of both networks.
        batch_size: Real and generated images a step.
        latent: Size of the latent.
        channels: Channels of the generator at full size.
        discriminator_channels: Channels of the discriminator at full size.
        patch: Side of the squares of pixels that are one position to the networks: 2 is four times
            as fast as 1. None means 2 for images that are at least 32 pixels high and wide, else 1.
        embedding: Size of the condition's embedding in the generator.
        lr: Learning rate of the generator (Adam); it falls linearly to 0 over the last half.
        discriminator_lr: Learning rate of the discriminator, which falls alike.
        r1: Weight of the gradient penalty on real images (Mescheder et al. 2018), every 8th step; 0
            for none.
        ema: Decay of the average of the generator's weights, which is the result.
        shift: Largest shift in pixels of the images that the discriminator sees.
        cutout: Side of the square cut out of them, as a part of the image; 0 for none.
        reading: Weight of the error of real-valued conditions read off the images: the
            discriminator learns to read them off real images, the generator to make them legible
            (after the auxiliary classifier of Odena, Olah and Shlens 2017).
        condition_noise: Deviation of Gaussian noise on real-valued conditions, in standardised
            units, so that few conditions do not stay isolated points (Ding et al. 2021).
    """

    steps: int = 3000
    batch_size: int = 64
    latent: int = 32
    channels: int = 16
    discriminator_channels: int = 16
    patch: int | None = None
    embedding: int = 32
    lr: float = 5e-4
    discriminator_lr: float = 1e-3
    r1: float = 0.0
    ema: float = 0.998
    shift: int = 1
    cutout: float = 0.4
    reading: float = 1.0
    condition_noise: float = 0.05

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("steps", "latent", "channels", "discriminator_channels", "embedding"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.patch is not None and not 1 <= self.patch <= 4:
            raise ValueError(f"patch is {self.patch}; it must be from 1 to 4, or null")
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}; it must be at least 2")
        for name in ("lr", "discriminator_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0")
        for name in ("r1", "shift", "reading", "condition_noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("ema", "cutout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be at least 0 and below 1"
                )

    def preview(self, data: Data) -> Generator:
        """Return an untrained generator."""
        with torch.random.fork_rng(devices=[]):
            module = self.network(data)
        return self.generator(module.to(data.device).eval(), data)

    def _fit(self, context: FitContext) -> dict[str, Tensor]:
        """Train both networks, and return the average of the generator's weights."""
        return _Fitting(self, context).run()

    def load(self, state: dict[str, Tensor], data: Data) -> Generator:
        """Return the fitted generator."""
        with torch.random.fork_rng(devices=[]):
            module = self.network(data)
        module.load_state_dict(state)
        return self.generator(module.to(data.device).eval(), data)

    def network(self, data: Data) -> GeneratorNet:
        """Return a generator network with fresh weights."""
        _, shape = image_of(data)
        return GeneratorNet(
            self.latent,
            condition_size(data),
            shape,
            self.channels,
            self.patch_of(shape),
            self.embedding,
            data.task.kind == "classification",
        )

    def patch_of(self, shape: tuple[int, int, int]) -> int:
        """Return the side of a patch for images of this shape."""
        return self.patch or (2 if min(shape[1:]) >= 32 else 1)

    def generator(self, module: nn.Module, data: Data) -> Generator:
        """Return the generator in raw units of a network that gives values in [-1, 1]."""
        name, _ = image_of(data)
        low, high = bounds(data, name)

        def function(latent: Tensor, condition: Tensor) -> Inputs:
            image = (module(latent, condition) + 1) * ((high - low) / 2) + low
            return with_vectors(image, name, condition, data)

        return Generator(function, latent=self.latent)


def image_of(data: Data) -> tuple[str, tuple[int, int, int]]:
    """Return the name and the shape (C, H, W) of the one image in the input.

    Raises:
        ValueError: There is not exactly one, or its size is out of range.
    """
    found = {k: tuple(v.shape[1:]) for k, v in leaves(data.train.x).items()}
    images = {k: shape for k, shape in found.items() if len(shape) == 3}
    if len(images) != 1:
        raise ValueError(
            f"gan needs inputs with one image, but those of {data.name!r} have {len(images)}; "
            "for tables there are gmm and kde"
        )
    [(name, (channels, height, width))] = images.items()
    if not (8 <= height <= 64 and 8 <= width <= 64):
        raise ValueError(f"gan makes images of 8×8 to 64×64, but these are {height}×{width}")
    return name, (channels, height, width)


def bounds(data: Data, name: str) -> tuple[float, float]:
    """Return the bounds of raw values: 0 and 255 for bytes, else those of the training images."""
    stored = leaves(data.train.x)[name]
    if stored.dtype == torch.uint8:
        return 0.0, 255.0
    low, high = stored.aminmax()
    return float(low), float(high) if high > low else float(low) + 1


def with_vectors(image: Tensor, name: str, condition: Tensor, data: Data) -> Inputs:
    """Put raw vectors, which follow the targets in the condition, beside a raw image."""
    if is_leaf(data.train.x):
        return image
    made: dict[str, Tensor] = {}
    place = data.task.size
    for key, stored in leaves(data.train.x).items():
        if key == name:
            made[key] = image
            continue
        size = stored[0].numel()
        scale = data.x_scale[key]
        values = condition[:, place : place + size].view(-1, *stored.shape[1:])
        made[key] = scale.undo(values)
        place += size
    return made if isinstance(data.train.x, dict) else tuple(made.values())


def augment(image: Tensor, seed: int, ids: Tensor, shift: int, cutout: float) -> Tensor:
    """Shift each image and cut a square out of it, differentiably (Zhao et al. 2020, section 3.2).

    Args:
        image: [B, C, H, W].
        seed: Seed of the random numbers.
        ids: Ids of the random numbers, [B].
        shift: Largest shift in pixels.
        cutout: Side of the square as a part of the image; 0 for none.
    """
    count, channels, height, width = image.shape
    draw = rng.uniform(seed, ids, "gan.augment", (4,))
    if shift:
        padded = F.pad(image, (shift, shift, shift, shift))
        dy, dx = ((draw[:, :2] * (2 * shift + 1)).long()).unbind(1)
        rows = dy[:, None] + torch.arange(height, device=image.device)
        columns = dx[:, None] + torch.arange(width, device=image.device)
        place = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
        place = place.view(count, 1, -1).expand(-1, channels, -1)
        image = padded.flatten(2).gather(2, place).view(image.shape)
    if cutout:
        keep = []
        for side, part in zip((height, width), draw[:, 2:].unbind(1), strict=True):
            half = cutout * side / 2
            middle = part[:, None] * side
            keep.append((torch.arange(side, device=image.device) + 0.5 - middle).abs() >= half)
        image = image * (keep[0][:, None, :, None] | keep[1][:, None, None, :])
    return image


def _content(values: Tensor) -> str:
    """Return a checksum of a tensor's values."""
    return hashlib.sha256(values.cpu().contiguous().numpy().data).hexdigest()


class _Fitting:
    """The state of one fit."""

    def __init__(self, settings: Gan, context: FitContext) -> None:
        self.settings, self.context = settings, context
        self.seed, self.device, data = context.seed, context.device, context.data
        name, shape = image_of(data)
        low, high = bounds(data, name)
        self.images = leaves(data.train.x)[name]
        self.middle, self.half = (high + low) / 2, (high - low) / 2
        self.conditions = conditions(data, data.train)
        self.discrete = data.task.kind == "classification"
        # Weights, and the power iteration of the spectral norm, are drawn from torch's own state.
        torch.manual_seed(rng.fold(self.seed, "gan") >> 1)
        self.generator = settings.network(data).to(self.device)
        self.average = settings.network(data).to(self.device)
        self.average.load_state_dict(self.generator.state_dict())
        self.discriminator = DiscriminatorNet(
            self.conditions.shape[1],
            shape,
            settings.discriminator_channels,
            settings.patch_of(shape),
            self.discrete,
        ).to(self.device)
        self.g_optimizer = self._adam(self.generator, settings.lr)
        self.d_optimizer = self._adam(self.discriminator, settings.discriminator_lr)
        self.step = 0
        self.checkpoints = None
        if context.folder is not None:
            learned = [_content(self.images), _content(self.conditions)]
            bound = json.dumps([asdict(settings), self.seed, *learned])
            self.checkpoints = Checkpoints(context.folder, bound)
        state = self.checkpoints.newest() if self.checkpoints else None
        if state is not None:
            self._restore(state)

    @staticmethod
    def _adam(module: nn.Module, lr: float) -> torch.optim.Adam:
        return torch.optim.Adam(module.parameters(), lr=lr, betas=(0.0, 0.99), fused=True)

    def run(self) -> dict[str, Tensor]:
        steps = self.settings.steps
        saved = time.perf_counter()
        while self.step < steps:
            loss = self._one_step()
            self.step += 1
            if self.step % max(1, steps // 100) == 0 or self.step == steps:
                value = float(loss)
                if value != value:
                    raise TrainingError(
                        f"the gan's loss became nan before step {self.step}; a smaller lr "
                        f"(it is {self.settings.lr}) or discriminator_lr may help"
                    )
                self.context.tell(self.step, value)
            if self.checkpoints and time.perf_counter() - saved > _CHECKPOINT_SECONDS:
                self.checkpoints.save(self.step, self._state())
                saved = time.perf_counter()
        return {k: v.detach().cpu().clone() for k, v in self.average.state_dict().items()}

    def _ids(self, use: int) -> Tensor:
        """Return ids of the real (use 0) or the generated examples of this step (1 and 2)."""
        size = self.settings.batch_size
        first = (3 * self.step + use) * size if use else self.step * size
        return torch.arange(first, first + size, device=self.device)

    def _real(self) -> tuple[Tensor, Tensor]:
        ids = self._ids(0)
        place = rng.permuted(len(self.images), self.seed, ids, "gan.order")
        image = (self.images[place].float() - self.middle) / self.half
        return image, self._smooth(self.conditions[place], ids, "gan.real")

    def _fake(self, use: int) -> tuple[Tensor, Tensor]:
        ids = self._ids(use)
        place = rng.integer(len(self.conditions), self.seed, ids, "gan.condition")
        condition = self._smooth(self.conditions[place], ids, "gan.fake")
        latent = rng.normal(self.seed, ids, "gan.latent", (self.settings.latent,))
        return self.generator(latent, condition), condition

    def _smooth(self, condition: Tensor, ids: Tensor, stream: str) -> Tensor:
        noise = self.settings.condition_noise
        if self.discrete or not noise:
            return condition
        return condition + noise * rng.normal(self.seed, ids, stream, (condition.shape[1],))

    def _augment(self, image: Tensor, use: int) -> Tensor:
        settings = self.settings
        seed = rng.fold(self.seed, use)
        return augment(image, seed, self._ids(use), settings.shift, settings.cutout)

    def _one_step(self) -> Tensor:
        settings = self.settings
        left = min(1.0, 2 * (1 - self.step / settings.steps))
        for optimizer, lr in (
            (self.d_optimizer, settings.discriminator_lr),
            (self.g_optimizer, settings.lr),
        ):
            optimizer.param_groups[0]["lr"] = lr * left

        real, real_condition = self._real()
        with torch.no_grad():
            fake, fake_condition = self._fake(1)
        # Two batches, not one, so that each shows the deviation of its own kind.
        on_real, read = self.discriminator(self._augment(real, 0), real_condition)
        on_fake, _ = self.discriminator(self._augment(fake, 1), fake_condition)
        loss = F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
        if settings.r1 and self.step % 8 == 0:
            loss = loss + 8 * settings.r1 / 2 * self._penalty(real, real_condition)
        self._update(self.d_optimizer, loss + self._misread(read, real_condition))

        self.discriminator.requires_grad_(False)
        fake, fake_condition = self._fake(2)
        score, read = self.discriminator(self._augment(fake, 2), fake_condition)
        self._update(self.g_optimizer, self._misread(read, fake_condition) - score.mean())
        self.discriminator.requires_grad_(True)
        # The memory is short at first, as early weights are not worth keeping.
        decay = min(settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.generator.parameters()), 1 - decay
            )
        return loss.detach()

    def _misread(self, read: Tensor | None, condition: Tensor) -> Tensor:
        if read is None:
            return condition.new_zeros(())
        return self.settings.reading * (read - condition).square().mean()

    def _penalty(self, real: Tensor, condition: Tensor) -> Tensor:
        real = real.detach().requires_grad_(True)
        score = self.discriminator(real, condition)[0].sum()
        [gradient] = torch.autograd.grad(score, real, create_graph=True)
        return gradient.square().flatten(1).sum(1).mean()

    @staticmethod
    def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def _parts(self) -> dict[str, Any]:
        return {
            "generator": self.generator,
            "average": self.average,
            "discriminator": self.discriminator,
            "g_optimizer": self.g_optimizer,
            "d_optimizer": self.d_optimizer,
        }

    def _state(self) -> dict[str, Any]:
        return {"step": self.step, **{k: v.state_dict() for k, v in self._parts().items()}}

    def _restore(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step = state["step"]
