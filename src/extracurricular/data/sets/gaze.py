"""Rendered eye patches with gaze labels; each person is in one split only."""

from __future__ import annotations

from extracurricular.data.base import Data, make_data
from extracurricular.data.sets import DATA
from extracurricular.data.sets.gaze_render import render_gaze


@DATA.register("gaze")
def gaze(
    train_persons: int = 20,
    train_images: int = 60,
    validation_persons: int = 10,
    test_persons: int = 20,
    test_images: int = 100,
    seed: int = 0,
) -> Data:
    """Render eye patches, head poses and gaze labels in the shapes of MPIIGaze.

    Inputs are a dict: ``eye`` [1, 36, 60], grey bytes, and ``pose`` [2], radians. Targets are pitch
    and yaw in radians. The splits have different persons, as in leave-one-person-out evaluation.
    See :mod:`extracurricular.data.sets.gaze_render`.

    Args:
        train_persons, validation_persons, test_persons: Number of persons in each split.
        train_images: Number of images of each person to train on.
        test_images: Number of images of each person to validate and test on.
        seed: Seed of the population.

    Raises:
        ValueError: A number is too small.
    """
    counts = {
        "train_persons": (train_persons, 1),
        "train_images": (train_images, 1),
        "validation_persons": (validation_persons, 0),
        "test_persons": (test_persons, 1),
        "test_images": (test_images, 1),
    }
    for name, (count, least) in counts.items():
        if count < least:
            raise ValueError(f"{name} is {count}; it must be at least {least}")
    # Each split has its own numbers of persons, so its size does not change who is in another.
    parts = {
        "train": (range(train_persons), train_images),
        "validation": (range(1000, 1000 + validation_persons), test_images),
        "test": (range(2000, 2000 + test_persons), test_images),
    }
    if train_persons > 1000 or validation_persons > 1000:
        raise ValueError("train_persons and validation_persons may be at most 1000")
    pairs = {}
    for part, (persons, count) in parts.items():
        # An empty split renders one person, which gives it its shapes.
        images = render_gaze(persons or [0], count, seed)
        kept = slice(len(persons) * count)
        pairs[part] = {"eye": images.eye[kept], "pose": images.pose[kept]}, images.gaze[kept]
    return make_data(
        "gaze",
        train=pairs["train"],
        validation=pairs["validation"],
        test=pairs["test"],
        angular=True,
        outputs=("pitch", "yaw"),
    )
