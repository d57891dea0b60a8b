"""Small shards, and the same images in folders, for the tests of data sets."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cow")


def encoded(rng: np.random.Generator, kind: str, size: tuple[int, int] = (12, 10)) -> bytes:
    """Return an image of random pixels, (width, height), as a file of a kind."""
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_shard(file: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a tar of named contents."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


def both(root: Path, each: int = 12, shards: int = 3, kind: str = "jpeg") -> tuple[Path, Path]:
    """Write the same images to folders of classes, and to shards in the order of the folders."""
    rng = np.random.default_rng(0)
    samples: list[tuple[str, bytes]] = []
    for name in CLASSES:
        (root / "folder" / name).mkdir(parents=True)
        for k in range(each):
            content = encoded(rng, kind)
            (root / "folder" / name / f"{k:03d}.{kind}").write_bytes(content)
            samples += [(f"{name}-{k:03d}.{kind}", content), (f"{name}-{k:03d}.cls", name.encode())]
    step = 2 * -(-len(samples) // 2 // shards)
    for k in range(shards):
        write_shard(root / "shards" / f"s-{k:03d}.tar", samples[k * step : (k + 1) * step])
    return root / "folder", root / "shards"


def labelled(labels: Sequence[str | None], ending: str = "cls") -> list[tuple[str, bytes]]:
    """Return the members of a shard with an image for each label; None for no label."""
    rng = np.random.default_rng(1)
    found = []
    for k, label in enumerate(labels):
        found.append((f"k{k:03d}.png", encoded(rng, "png")))
        if label is not None:
            found.append((f"k{k:03d}.{ending}", label.encode()))
    return found
