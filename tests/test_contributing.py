"""A stranger's questions: CONTRIBUTING names the symbol and the file, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "extracurricular"
ROW = re.compile(r"^\| ([^|]+) \| `(\w+)` \| `([\w/]+\.py)` \|$", re.M)
ANSWERS = [
    match.groups() for match in ROW.finditer((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
]


def defined(file: Path) -> set[str]:
    """Functions, classes, methods and module-level names of a file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_there_are_fifteen_questions_or_more() -> None:
    assert len(ANSWERS) >= 15
    assert len({question for question, _, _ in ANSWERS}) == len(ANSWERS)


@pytest.mark.parametrize(("question", "symbol", "file"), ANSWERS, ids=[a[0] for a in ANSWERS])
def test_the_answer_is_where_it_says(question: str, symbol: str, file: str) -> None:
    assert symbol in defined(SRC / file), question
