"""RepDistiller's own loops, for step_cost.py.

Nothing of github.com/HobbitLong/RepDistiller is in this repository: ``train_vanilla`` and
``train_distill`` are imported from a checkout, and get its networks, its loss and its optimiser's
settings. Random images go through a DataLoader of 8 workers that crops, mirrors and normalises as
its own does.
"""

from __future__ import annotations

import importlib
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from turns import Tick

WAYS = {"ERM": "train_vanilla", "KD": "train_distill"}
WORKERS = 8
_CLASSES, _IMAGES = 100, 50_000
_MEAN, _STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


class Images(Dataset[tuple[Any, ...]]):
    """Random images as its CIFAR-100, with the index where ``instance``."""

    def __init__(self, instance: bool, transform: Callable[[Any], Tensor]) -> None:
        shape = (_IMAGES, 32, 32, 3)
        self.images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self.instance, self.transform = instance, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        from PIL import Image

        image = self.transform(Image.fromarray(self.images[index]))
        target = index % _CLASSES
        return (image, target, index) if self.instance else (image, target)


class Paced:
    """A loader that calls ``tick`` at every so many batches."""

    def __init__(self, loader: DataLoader[Any], every: int, tick: Tick) -> None:
        self.loader, self.every, self.tick = loader, every, tick

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.loader):
            # The loop asks for a batch once it is done with the one before.
            if number and number % self.every == 0:
                self.tick(number)
            yield batch


def transform() -> tuple[Callable[[Any], Tensor], str]:
    """Return its augmentation, and a note where it had to be made without torchvision."""
    try:
        from torchvision import transforms
    except ImportError:
        return _by_hand, "torchvision is missing, so crops and flips are made by PIL alone"
    steps = [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(_MEAN, _STD),
    ]
    return transforms.Compose(steps), ""


def _by_hand(image: Any) -> Tensor:
    from PIL import Image, ImageOps

    left, top = random.randrange(9), random.randrange(9)
    image = ImageOps.expand(image, 4).crop((left, top, left + 32, top + 32))
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
    return (x - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)


def load(checkout: Path) -> SimpleNamespace:
    """Import its modules.

    Raises:
        FileNotFoundError: There is no checkout.
    """
    if not (checkout / "helper" / "loops.py").is_file():
        raise FileNotFoundError(f"{checkout} is no checkout of RepDistiller")
    sys.path.insert(0, str(checkout.resolve()))
    try:
        loops = importlib.import_module("helper.loops")
        models = importlib.import_module("models").model_dict
        loss = importlib.import_module("distiller_zoo.KD").DistillKL
    finally:
        sys.path.pop(0)
    # Its loops print; the table is printed here.
    loops.print = lambda *words: None  # type: ignore[attr-defined]
    return SimpleNamespace(loops=loops, models=models, loss=loss)


def run(peer: SimpleNamespace, pair: str, way: str, batch: int, every: int, tick: Tick) -> None:
    """Train one epoch by its own loop, as its scripts do, until ``tick`` ends it."""
    for message in ("size_average and reduce args", "This DataLoader will create"):
        warnings.filterwarnings("ignore", message=message)
    cuda, kd = torch.cuda.is_available(), way == "KD"
    torch.backends.cudnn.benchmark = cuda  # as its scripts
    names = [name.replace("-", "_") for name in pair.split(":")]
    teacher, student = (peer.models[name](num_classes=_CLASSES) for name in names)
    if cuda:
        teacher, student = teacher.cuda(), student.cuda()
    images = Images(kd, transform()[0])
    loader = DataLoader(images, batch_size=batch, shuffle=True, num_workers=WORKERS, timeout=60)
    paced = Paced(loader, every, tick)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    opt = SimpleNamespace(distill="kd", print_freq=10**9, gamma=0.1, alpha=0.9, beta=0)
    if kd:
        losses = [nn.CrossEntropyLoss(), peer.loss(4), peer.loss(4)]
        peer.loops.train_distill(1, paced, [student, teacher], losses, optimizer, opt)
    else:
        peer.loops.train_vanilla(1, paced, student, nn.CrossEntropyLoss(), optimizer, opt)
