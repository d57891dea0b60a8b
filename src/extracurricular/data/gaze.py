"""Gaze from eye patches that the project renders itself, with test persons nobody has seen."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from extracurricular.data.base import DATA, Data, make_data
from extracurricular.data.gaze_render import render_gaze


@DATA.register("gaze")
def gaze(
    train_persons: int = 10,
    validation_persons: int = 5,
    test_persons: int = 10,
    per_person: int = 300,
    seed: int = 0,
) -> Data:
    """Rendered eye patches and head poses in, gaze pitch and yaw out, in the shapes of MPIIGaze.

    Inputs are a dict: ``eye`` [1, 36, 60], grey bytes, and ``pose`` [2], radians. Targets are pitch
    and yaw in radians. The splits have different persons, as in leave-one-person-out evaluation.
    See :mod:`extracurricular.data.gaze_render`.

    Args:
        train_persons, validation_persons, test_persons: Persons in each split.
        per_person: Images of each person.
        seed: Seed of the population.

    Raises:
        ValueError: A number is too small.
    """
    counts = {"train": train_persons, "validation": validation_persons, "test": test_persons}
    for part, count in counts.items():
        least = 0 if part == "validation" else 1
        if count < least:
            raise ValueError(f"{part}_persons is {count}; it must be at least {least}")
    images = render_gaze(range(sum(counts.values())), per_person, seed)
    edges = np.cumsum([0, *counts.values()]) * per_person

    def part_of(number: int) -> tuple[dict[str, Tensor], Tensor]:
        part = slice(int(edges[number]), int(edges[number + 1]))
        return {"eye": images.eye[part], "pose": images.pose[part]}, images.gaze[part]

    return make_data("gaze", train=part_of(0), validation=part_of(1), test=part_of(2), angular=True)
