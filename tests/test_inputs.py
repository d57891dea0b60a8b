"""The bytes of tensors, by which files and fingerprints are made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from extracurricular.inputs import as_bytes

EVERY = torch.arange(12, dtype=torch.int64)


@pytest.mark.parametrize(
    "tensor",
    [
        EVERY, EVERY[::3], EVERY.view(3, 4).T, EVERY[::3][:1], EVERY[:0], EVERY[3].expand(0),
        EVERY[3].expand(1), EVERY[3], EVERY.view(3, 4)[:, :0],
    ],
    ids=["whole", "strided", "transposed", "one of strided", "none", "none of one", "one of one",
         "a number", "no columns"],
)  # fmt: skip
def test_bytes_are_those_of_the_values_in_order_whatever_the_strides(tensor: Tensor) -> None:
    assert as_bytes(tensor).numpy().tobytes() == tensor.numpy().tobytes()
