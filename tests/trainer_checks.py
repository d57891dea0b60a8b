"""What test_trainers.py runs in a process of its own, where lightning and transformers are at hand.

The code is that of docs/trainers.md, with fewer steps. A training is interrupted, and goes on with
nothing of the first one but its files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import extracurricular as xcl
import zoo_checks  # noqa: F401  (declares what torchvision lacks; torchmetrics imports that)

PAGE = (Path(__file__).parents[1] / "docs" / "trainers.md").read_text(encoding="utf-8")
STEPS, STOP, EVERY = 12, 7, 5


class CutOffError(Exception):
    """The training is cut off."""


def code(heading: str) -> str:
    """The block under a heading of the page, at a smaller size."""
    text = re.split(rf"(?m)^## {heading}$", PAGE)[1]
    block = re.search(r"(?ms)^```python\n(.*?)^```", text)
    assert block is not None
    return block[1].replace("2000", str(STEPS)).replace("=500", f"={EVERY}")


class Best(nn.Module):
    """A teacher that is right: the largest of the first three inputs is the class."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x[:, :3]


class Watched(nn.Module):
    """A student that notes the inputs of each step, and is cut off at one."""

    def __init__(self, stop: int | None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.stop = stop
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if len(self.seen) == self.stop:
            raise CutOffError
        self.seen.append(x.clone())
        return self.net(x)  # type: ignore[no-any-return]


def trained(heading: str, seed: int, stop: int | None = None) -> Watched:
    """The student after the code of the page ran in this folder, or was cut off."""
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).numpy()
    torch.manual_seed(seed)
    net = Watched(stop)
    names: dict[str, Any] = {"x": x, "y": x[:, :3].argmax(1), "teacher": Best()}
    try:
        exec(compile(code(heading), heading, "exec"), names | {"net": net, "xcl": xcl})
    except CutOffError:
        assert stop is not None
    return net


@pytest.mark.parametrize("heading", ["Lightning", "Hugging Face"])
def test_a_training_that_was_interrupted_goes_on_with_the_same_draws(
    heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    whole = trained(heading, seed=0)
    assert len(whole.seen) == STEPS
    monkeypatch.chdir(tmp_path / "cut")
    before = trained(heading, 0, STOP)
    assert len(before.seen) == STOP
    assert any(Path("kept").iterdir())
    after = trained(heading, seed=1)
    # Nothing before the checkpoint is drawn again, and nothing hangs on the state of torch.
    assert len(after.seen) == STEPS - EVERY
    for a, b in zip(before.seen[:EVERY] + after.seen, whole.seen, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(after.net.parameters(), whole.net.parameters(), strict=True):
        assert torch.equal(a, b)
