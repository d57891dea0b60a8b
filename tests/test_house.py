"""The house: which room imports which, how large its parts are, and words that stand once.

A *room* is a module or package that lies directly in ``extracurricular/``, or a package inside
``data/``. Imports inside functions and under ``TYPE_CHECKING`` count like any other.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "extracurricular"

# From the ground up. A room imports only rooms of lower floors.
FLOORS: list[set[str]] = [
    {"errors", "rng", "inputs", "distributions"},
    {"registry", "files", "data"},
    {"data.images", "matching", "models"},
    {"data.formats", "generators", "teachers"},
    {"data.sets", "samplers", "evaluation"},
    {"knowledge", "training"},
    {"recipe"},
    {"run"},
    {"predictors"},
    {"assess", "export"},
    {"report", "distillation"},
    {"cli"},
]
MOST_ROOMS, MOST_LEVELS = 26, 12
MOST_LINES, MOST_CLASS = 500, 200


def module_of(file: Path) -> str:
    parts = list(file.relative_to(SRC).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@lru_cache
def modules() -> dict[str, Path]:
    return {module_of(file): file for file in sorted(SRC.rglob("*.py"))}


def room_of(module: str) -> str:
    parts = module.split(".")
    inner = len(parts) > 1 and parts[0] == "data" and (SRC / "data" / parts[1]).is_dir()
    return ".".join(parts[:2]) if inner else parts[0]


def imported(file: Path) -> set[str]:
    """Modules of this package that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            # A name may be a module of its own; otherwise it is one that the package gives.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name == "extracurricular" or name.startswith("extracurricular."):
                inner = name.removeprefix("extracurricular").lstrip(".")
                found.add(inner if inner in modules() else inner.rpartition(".")[0])
    return found


@lru_cache
def graph() -> dict[str, set[str]]:
    return {name: imported(file) - {name} for name, file in modules().items() if name}


def rooms() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, needs in graph().items():
        room = room_of(name)
        found.setdefault(room, set()).update(room_of(need) for need in needs)
    return {room: needs - {room} for room, needs in found.items()}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """A circle of a graph; empty if there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for need in sorted(edges.get(name, ())):
            found = visit(need, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    for name in sorted(edges):
        found = visit(name, [])
        if found:
            return found
    return []


def levels(edges: dict[str, set[str]]) -> dict[str, int]:
    found: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in found:
            found[name] = 1 + max((level(need) for need in edges.get(name, ())), default=0)
        return found[name]

    for name in edges:
        level(name)
    return found


def test_nothing_is_imported_from_the_root() -> None:
    wrong = [name for name, needs in graph().items() if "" in needs]
    assert not wrong, f"import from the module that has the name: {wrong}"


def test_no_module_imports_itself_by_a_detour() -> None:
    assert circle(graph()) == []


def test_imports_point_one_way() -> None:
    floor = {room: number for number, some in enumerate(FLOORS) for room in some}
    found = rooms()
    assert set(found) == set(floor), "FLOORS names every room"
    wrong = {
        f"{room} -> {need}"
        for room, needs in found.items()
        for need in needs
        if floor[need] >= floor[room]
    }
    assert not wrong, "\n".join(
        f"{edge}: {sorted(blame(*edge.split(' -> ')))}" for edge in sorted(wrong)
    )


def blame(room: str, need: str) -> list[str]:
    return [
        f"{name} imports {other}"
        for name, needs in graph().items()
        if room_of(name) == room
        for other in needs
        if room_of(other) == need
    ]


def test_the_house_is_small(capsys: pytest.CaptureFixture[str]) -> None:
    found = rooms()
    assert circle(found) == []
    height = max(levels(found).values())
    with capsys.disabled():
        print(f"\n{len(found)} rooms, {height} levels")
    assert len(found) <= MOST_ROOMS
    assert height <= MOST_LEVELS


def test_the_tests_mirror_the_package() -> None:
    """Every folder of tests is a folder of the package."""
    for folder in {file.parent for file in (ROOT / "tests").rglob("test_*.py")}:
        assert (SRC / folder.relative_to(ROOT / "tests")).is_dir(), folder


def test_no_part_is_large() -> None:
    for name, file in modules().items():
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MOST_LINES, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                assert node.end_lineno is not None
                size = node.end_lineno - node.lineno + 1
                assert size < MOST_CLASS, f"{name}.{node.name} has {size} lines"


def test_students_have_the_names_that_the_user_gives() -> None:
    found = [
        f"{name}:{number}"
        for name, file in modules().items()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r'"(kd|erm|xcl)"', line)
    ]
    assert len(found) == 2, found
    assert all(place.startswith("recipe.") for place in found)


def test_only_the_folder_of_a_run_is_called_outside() -> None:
    """A word that a recipe no longer has stands only where older files are read."""
    for name, file in modules().items():
        for line in file.read_text(encoding="utf-8").splitlines():
            if re.search(r'"[^" ]*\boutside\b[^" ]*"', line):
                known = ("recipe.old_words", "run.settings", "run.plan", "knowledge.fingerprint")
                assert name in known, f"{name}: {line.strip()}"
