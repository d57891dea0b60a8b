"""Real handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from extracurricular.data.base import Data, make_data
from extracurricular.data.sets import DATA
from extracurricular.data.splits import split_indices


@DATA.register("digits")
def digits(train: int = 600, validation: int = 300, seed: int = 0) -> Data:
    """Load 1,797 real handwritten digits, 8×8 grey pixels with values 0 to 16.

    They are the test set of the UCI "Optical Recognition of Handwritten Digits" data (Alpaydin and
    Kaynak 1998), as shipped with scikit-learn.

    Args:
        train: Number of examples to train on.
        validation: Number of examples to choose settings on. The rest is the test split.
        seed: Seed of the split.

    Raises:
        ValueError: The parts leave no test examples.
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    x = (loaded.images * 15.9375).astype(np.uint8)[:, None]  # 16 becomes 255: plain image bytes
    y = loaded.target.astype(np.int64)
    for name, size, least in (("train", train, 10), ("validation", validation, 0)):
        if size < least:
            raise ValueError(f"{name} is {size}; it must be at least {least}")
    if train + validation >= len(y):
        raise ValueError(
            f"train and validation are {train} and {validation}; "
            f"of {len(y)} digits they must leave some to test on"
        )
    parts = split_indices(len(y), [train, validation, len(y) - train - validation], seed)
    pairs = [(x[part], y[part]) for part in parts]
    names = ("train", "validation", "test")
    return make_data(
        "digits",
        train=pairs[0],
        validation=pairs[1],
        test=pairs[2],
        classes=list("0123456789"),
        ids={name: part.tolist() for name, part in zip(names, parts, strict=True)},
    )
