"""The digits: disjoint splits with the right labels, and refusals that help."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from extracurricular.data.sets.digits import digits
from extracurricular.distributions import Task
from extracurricular.inputs import leaves
from tests.data.test_base import splits


def test_digits() -> None:
    data = digits()
    assert data.name == "digits"
    assert data.task == Task("classification", 10)
    assert data.classes == tuple("0123456789")
    assert [len(s) for s in splits(data)] == [600, 300, 897]
    assert data.shapes == (1, 8, 8)
    x = torch.cat([leaves(s.x)[""] for s in splits(data)])
    assert x.dtype == torch.uint8
    assert (int(x.min()), int(x.max())) == (0, 255)
    for split in splits(data):
        assert split.y is not None
        assert sorted(split.y.unique().tolist()) == list(range(10))


def test_the_splits_of_the_digits_are_disjoint_and_have_the_right_labels() -> None:
    loaded = load_digits()
    known = {
        image.tobytes(): label
        for image, label in zip(
            (loaded.images * 15.9375).astype(np.uint8), loaded.target, strict=True
        )
    }
    assert len(known) == 1797  # all images differ, so they tell the splits apart
    seen = set()
    for split in splits(digits()):
        assert split.y is not None
        for image, label in zip(leaves(split.x)[""].numpy(), split.y.tolist(), strict=True):
            assert known[image.tobytes()] == label
            seen.add(image.tobytes())
    assert len(seen) == 1797


def test_digits_repeat_by_seed_and_take_sizes() -> None:
    a, b, c = digits(seed=0), digits(seed=0), digits(seed=1)
    assert torch.equal(leaves(a.train.x)[""], leaves(b.train.x)[""])
    assert not torch.equal(leaves(a.train.x)[""], leaves(c.train.x)[""])
    assert [len(s) for s in splits(digits(100, 0))] == [100, 0, 1697]


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((9, 300), "train is 9; it must be at least 10"),
        ((-5, 300), "train is -5"),
        ((600, -1), "validation is -1; it must be at least 0"),
        ((1500, 297), "train and validation are 1500 and 297; of 1797 digits they must leave"),
        ((5000, 0), "must leave some to test on"),
    ],
)
def test_digits_refuse_sizes_that_do_not_fit(sizes: tuple[int, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        digits(*sizes)
