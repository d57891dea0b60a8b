"""The Python that README shows for ``xcl.distill`` runs, and its students are good."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    block
    for block in re.findall(r"```python\n(.*?)```", README, re.S)
    if "from sklearn.datasets import" in block
]


def test_there_are_digits_and_a_table() -> None:
    assert len(BLOCKS) == 2
    assert "load_digits" in BLOCKS[0]
    assert "load_diabetes" in BLOCKS[1]
    assert all("xcl.distill(" in block for block in BLOCKS)


@pytest.mark.parametrize(
    ("block", "least", "left"),
    [(BLOCKS[0], 0.8, "student/predictor.json"), (BLOCKS[1], 0.2, "student.onnx")],
    ids=["digits", "table"],
)
def test_the_block_runs(
    block: str,
    least: float,
    left: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    # Fewer steps than a reader would take.
    exec(block.replace("steps=2000", "steps=400"), names)
    score = float(capsys.readouterr().out.split()[0])
    assert score > least
    assert (tmp_path / left).is_file()
