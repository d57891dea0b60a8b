"""What the pages name is there: links, files, Python names, commands, and the words of recipes."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import extracurricular
from extracurricular.cli import app
from extracurricular.errors import RecipeError
from extracurricular.matching import Matching
from extracurricular.matching.course import ends, read_course
from extracurricular.recipe.read import read_recipe
from extracurricular.recipe.schema import Recipe
from extracurricular.registry import split_spec
from extracurricular.samplers.base import SAMPLERS
from extracurricular.samplers.build import may_move

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
# Files that a page tells its reader to write.
TO_WRITE = {"src/extracurricular/samplers/darken.py"}
# What a recipe needs, for blocks that show a part of one.
REST: dict[str, Any] = {
    "name": "docs",
    "data": "digits",
    "teacher": {"model": "mlp", "per_seed": True},
    "defaults": {"model": "mlp"},
    "students": {"kd": {}, "xcl": {}},
}


@dataclass(frozen=True)
class Block:
    """A fenced block of code and the line after its fence."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    start, lines = 0, page.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("```"):
            if start:
                inner = "\n".join(lines[start : number - 1])
                found.append(Block(lines[start - 1].strip("` "), inner, start + 1))
            start = 0 if start else number
    assert start == 0, f"{page.name}:{start}: the block has no end"
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """Pieces of code within sentences."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def anchors(page: Path) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"(?m)^#+ +(.*)$", prose(page)):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def each(test: Any) -> Any:
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)(test)


def report(page: Path, problems: list[str]) -> None:
    assert not problems, f"{page.name}: " + "; ".join(problems)


@each
def test_links_lead_somewhere(page: Path) -> None:
    problems = []
    text = re.sub(r"`[^`]*`", "", prose(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists():
            problems.append(f"{target} leads to no file")
        elif anchor and anchor not in anchors(file):
            problems.append(f"{target} leads to no heading")
    report(page, problems)


@each
def test_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"\b(?:src/extracurricular|tests|benchmarks)/[\w./-]*\w/?", text)
    missing = [path for path in named if path not in TO_WRITE and not (ROOT / path).exists()]
    report(page, [f"{path} does not exist" for path in missing])


@each
def test_python_names_are_there(page: Path) -> None:
    problems = []
    for block in blocks(page):
        if block.language == "python":
            tree = ast.parse(block.text, f"{page.name}:{block.line}")
            problems += [problem for node in ast.walk(tree) for problem in unknown(node)]
    for span in spans(page):
        files = r"xcl(\.\w+)*\.(onnx|pt2|json|png)"
        if (own := re.match(r"xcl\.([A-Za-z_]\w*)", span)) and not re.fullmatch(files, span):
            problems += absent(own[1])
    for name in re.findall(r"\bextracurricular(?:\.[A-Za-z_]\w*)+", page.read_text("utf-8")):
        if not resolves(name):
            problems.append(f"{name} does not exist")
    report(page, problems)


def unknown(node: ast.AST) -> Iterator[str]:
    """Names of this package in a piece of Python that do not exist."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id == "xcl":
            yield from absent(node.attr)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        called = ast.unparse(node.func)
        if called.startswith("xcl.") and node.func.attr in extracurricular.__all__:
            yield from refused(called, node)
    elif isinstance(node, ast.ImportFrom):
        home = node.module or ""
        if home.split(".")[0] == "extracurricular":
            for alias in node.names:
                if not resolves(f"{home}.{alias.name}"):
                    yield f"{home} has no {alias.name}"


def refused(called: str, call: ast.Call) -> Iterator[str]:
    """Arguments of a call that the function does not take."""
    parts: list[Any] = [None] * len(call.args)
    named = {word.arg: None for word in call.keywords if word.arg is not None}
    function = getattr(extracurricular, called.removeprefix("xcl."))
    try:
        inspect.signature(function).bind_partial(*parts, **named)
    except TypeError as error:
        yield f"{called}: {error}"


def absent(name: str) -> list[str]:
    return [] if name in extracurricular.__all__ else [f"xcl.{name} does not exist"]


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or found in one."""
    found, *parts = name.split(".")
    thing: Any = importlib.import_module(found)
    for part in parts:
        found += f".{part}"
        if hasattr(thing, part):
            thing = getattr(thing, part)
            continue
        try:
            thing = importlib.import_module(found)
        except ImportError:
            return False
    return True


@each
def test_commands_are_there(page: Path) -> None:
    problems = []
    for line in command_lines(page):
        words = shlex.split(line, comments=True)
        for end in ("|", ">", "&&"):
            words = words[: words.index(end)] if end in words else words
        if "xcl" in words:
            problems += unknown_words(words[words.index("xcl") + 1 :])
    report(page, problems)


def command_lines(page: Path) -> Iterator[str]:
    for block in blocks(page):
        if block.language == "console":
            text = block.text.replace("\\\n", " ")
            yield from (line[2:] for line in text.split("\n") if line.startswith("$ "))
    yield from re.findall(r"(?m)^    (xcl .*)$", re.sub(r"\\\n", " ", prose(page)))
    yield from (span for span in spans(page) if re.match(r"xcl [a-z-]", span))


def unknown_words(words: list[str]) -> list[str]:
    """Commands and options, after ``xcl``, that do not exist."""
    command: Any = typer.main.get_command(app)
    said = "xcl"
    while getattr(command, "commands", None) and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return [f"{said} has no command {words[0]!r}"]
        said += f" {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    options = [word.partition("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)]
    return [f"{said} has no option {option}" for option in options if option not in known]


@each
def test_recipes_can_be_read(page: Path, tmp_path: Path) -> None:
    """Whole recipes as they are, and parts of one with the fields that they lack."""
    fields = {*Recipe.model_fields, "schema", "defaults", "budgets", "chains"}
    for block in blocks(page):
        for shown in variants(block.text) if block.language == "yaml" else ():
            if not set(shown) <= fields:
                continue
            whole = {"data", "teacher", "students"} <= set(shown)
            rest = {} if whole else {k: v for k, v in REST.items() if k not in shown}
            file = tmp_path / "recipe.yaml"
            file.write_text("".join(shown.values()) + (yaml.safe_dump(rest) if rest else ""))
            try:
                recipe = read_recipe(str(file))
                for student in recipe.students.values():
                    Matching(**student.matching)
                    check_chain(student.sampler)
                    among = {} if student.choose is None else student.choose.among
                    for candidate in among.values():
                        check_chain(candidate.sampler or "empirical")
            except RecipeError as error:
                pytest.fail(f"{page.name}:{block.line}: {error}")


def variants(text: str) -> list[dict[str, str]]:
    """Texts of the top-level keys of a block; several where it shows a key in several ways."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"(?m)^(?=\w+:)", text):
        key = part.partition(":")[0]
        if re.fullmatch(r"\w+", key):
            found.setdefault(key, []).append(part.rstrip() + "\n")
    count = max(map(len, found.values()), default=0)
    return [{key: ways[min(k, len(ways) - 1)] for key, ways in found.items()} for k in range(count)]


def check_chain(chain: Any) -> None:
    for spec in chain if isinstance(chain, list) else [chain]:
        name, given = split_spec(spec, "sampler", "sampler")
        if name == "blend":
            for part in given.values():
                check_chain(part["sampler"])
        elif name == "share":
            assert set(given) <= {"of", "extended", "plain"}
            for key in {"extended", "plain"} & set(given):
                check_chain(given[key])
        else:
            supplied = ("child", "data", "seed", "teacher", "student", "generators")
            # The value of a course's beginning stands for it, where one may.
            entry, _ = SAMPLERS.find(name)
            courses = {s: read_course(given[s]) for s in may_move(entry) & set(given)}
            given |= {setting: ends(course)[0] for setting, course in courses.items()}
            SAMPLERS.settings({name: given}, key="sampler", context=supplied)


def test_the_site_has_every_page_and_name() -> None:
    # The tags of Python in it are for the site's builder.
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    shown = set(re.findall(r"(\w+\.md)$", config, re.MULTILINE))
    assert shown == {page.name for page in ROOT.glob("docs/*.md")}
    listed = set(re.findall(r"::: [\w.]+\.(\w+)", (ROOT / "docs/api.md").read_text("utf-8")))
    assert listed == set(extracurricular.__all__) - {"__version__"}, "run python docs/tables.py"
