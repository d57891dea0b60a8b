"""Read from the sources what recipes can name, without importing them.

An entry of a registry and a section of the schema are described by their signature and docstring.
Both are read from the syntax tree of their module, so that ``xcl models`` or ``xcl explain`` need
no torch and answer at once, and so that no list has to be kept beside the code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Setting:
    """A setting of an entry, or a key of a section.

    Args:
        name: Its name.
        type: The values that it takes, in words.
        default: Its default as a recipe writes it; None if it has to be given.
        meaning: The text of its docstring.
        choices: The words that it takes, if it takes only some.
        section: Class of the section that its value is, or of each of its values.
        named: Whether its value has sections by name.
    """

    name: str
    type: str
    default: str | None
    meaning: str
    choices: tuple[str, ...] = ()
    section: str = ""
    named: bool = False


@dataclass(frozen=True)
class Entry:
    """A function or class that a recipe names, or a section of a recipe.

    Args:
        name: The name in a recipe; for a section that of its class.
        about: The first line of the docstring.
        text: The rest of the docstring before its arguments.
        settings: Its settings.
    """

    name: str
    about: str
    text: str
    settings: tuple[Setting, ...]

    @property
    def summary(self) -> str:
        """The first line, for a list of entries: what it is, or does."""
        rest = self.about.removeprefix("Return ")
        return rest[:1].upper() + rest[1:]


@dataclass(frozen=True)
class Kind:
    """A kind of entries.

    Args:
        title: Its name in the plural.
        registry: Name of the variable that registers them.
        modules: Files, or folders of them, below the package.
        supplied: Parameters that the program gives, and a recipe does not.
    """

    title: str
    registry: str
    modules: tuple[str, ...]
    supplied: tuple[str, ...] = ()


KINDS = {
    "data": Kind("data sets", "DATA", ("data/sets",)),
    "model": Kind("models", "MODELS", ("models",), ("inputs", "outputs", "pixels")),
    "estimator": Kind("estimators", "ESTIMATORS", ("models/estimators.py",)),
    "teacher": Kind("teachers", "ENTRIES", ("teachers/named.py", "knowledge/named.py")),
    "generator": Kind("generators", "GENERATORS", ("generators",)),
    "sampler": Kind(
        "samplers", "SAMPLERS", ("samplers",),
        ("child", "data", "teacher", "student", "generators", "seed"),
    ),
    "score": Kind(
        "scores", "SCORES", ("samplers/scores.py",), ("prediction", "student", "members")
    ),
    "divergence": Kind(
        "divergences", "DIVERGENCES", ("matching",), ("teacher", "student", "weight"),
    ),
    "optimizer": Kind(
        "optimizers", "OPTIMIZERS", ("training/optimizers.py",),
        ("groups", "lr", "momentum", "fused"),
    ),
    "codec": Kind("codecs", "CODECS", ("knowledge",), ("task",)),
    "distribution": Kind("distributions", "DISTRIBUTIONS", ("models/families.py",)),
    "logger": Kind(
        "loggers", "LOGGERS", ("run/loggers.py",), ("folder", "title", "group", "start")
    ),
}  # fmt: skip
"""What a recipe can name, by the word for one of them."""

# Types that have a word of their own.
_WORDS = {
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "str": "text",
    "None": "null",
    "Any": "any value",
    "Spec": "NAME or {NAME: {setting: value}}",
    "Chain": "chain of samplers",
    "Moving": "course",
    "Course": "course",
    "Weighing": "`balanced`, {CLASS: weight, …} or null",
    "dict": "mapping",
    "list": "list",
    "tuple": "list",
}


@cache
def entries(kind: str) -> dict[str, Entry]:
    """Return the entries of a kind by name, sorted."""
    found: dict[str, Entry] = {}
    for module in _modules(KINDS[kind].modules):
        for node in module.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                for name in _registered(node, KINDS[kind].registry):
                    found[name] = _entry(name, node, module, KINDS[kind].supplied)
    return dict(sorted(found.items()))


@cache
def section(name: str) -> Entry:
    """Return the section of a recipe whose class has this name."""
    places = (
        "recipe/schema.py", "recipe/device.py", "recipe/students.py", "training/settings.py",
        "matching/loss.py",
    )  # fmt: skip
    for module in _modules(places):
        for node in module.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return _entry(name, node, module, ())
    raise KeyError(name)


def _modules(places: tuple[str, ...]) -> Iterator[ast.Module]:
    for place in places:
        path = ROOT / place
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            yield _parsed(file)


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _registered(node: ast.ClassDef | ast.FunctionDef, registry: str) -> Iterator[str]:
    """Yield the names under which decorators register a function or class."""
    for call in node.decorator_list:
        if isinstance(call, ast.Call):
            which = ast.unparse(call.func)
            if which == f"{registry}.register":
                yield ast.literal_eval(call.args[0])
            elif which == "zoo":  # see models/zoos.py
                yield f"{ast.literal_eval(call.args[0])}:{{name}}"


def _entry(
    name: str, node: ast.ClassDef | ast.FunctionDef, module: ast.Module, supplied: tuple[str, ...]
) -> Entry:
    about, text, meanings = read_docstring(ast.get_docstring(node) or "")
    signature = node
    if ":{" in name:
        # All networks of a library are made by one function inside `zoo`.
        signature = _function_inside("build", module)
        meanings = {**meanings, **read_docstring(ast.get_docstring(signature) or "")[2]}
    made = re.match(r"Make (?:a )?`(\w+)` ", about)
    if made and (definition := _definition(made[1], module)) is not None:
        # The maker of a class is described by the class.
        class_about, class_text, of_class = read_docstring(ast.get_docstring(definition) or "")
        about = class_about if "settings of a recipe" in about else about
        text, meanings = text or class_text, {**of_class, **meanings}
    given = set(re.findall(r"\{(\w+)\}", name)) | set(supplied)
    settings = tuple(
        _setting(argument, annotation, default, meanings, module)
        for argument, annotation, default in _arguments(signature, module)
        if argument not in given and not argument.startswith("_")
    )
    return Entry(name, about, text, settings)


def _followed(meaning: str, name: str, module: ast.Module) -> str:
    """Return a setting's meaning, from another function's docstring where it refers to that."""
    found = re.fullmatch(r"(?:As for|See|.* \()\s*`(\w+)`\)?\.", meaning)
    if found is None:
        return meaning
    definition = _definition(found[1], module)
    if definition is None:
        return meaning
    meanings = read_docstring(ast.get_docstring(definition) or "")[2]
    other = _module_of(found[1], module)
    return _followed(meanings[name], name, other) if name in meanings else meaning


def _function_inside(name: str, module: ast.Module) -> ast.FunctionDef:
    """Return a function that is defined anywhere in a module."""
    functions = [n for n in ast.walk(module) if isinstance(n, ast.FunctionDef)]
    return next(function for function in functions if function.name == name)


_Argument = tuple[str, ast.expr, ast.expr | None]


def _arguments(node: ast.ClassDef | ast.FunctionDef, module: ast.Module) -> list[_Argument]:
    """Return name, annotation and default of each argument of a function or class."""
    if isinstance(node, ast.FunctionDef):
        plain, named = node.args.args, node.args.kwonlyargs
        missing: list[ast.expr | None] = [None] * (len(plain) - len(node.args.defaults))
        defaults = [*missing, *node.args.defaults, *node.args.kw_defaults]
        return [
            (argument.arg, argument.annotation, default)
            for argument, default in zip([*plain, *named], defaults, strict=True)
            if argument.annotation is not None
        ]
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return _arguments(inner, module)
    found: dict[str, _Argument] = {}
    bases = {ast.unparse(base) for base in node.bases}
    for other in module.body:
        if isinstance(other, ast.ClassDef) and other.name in bases:
            found |= {argument[0]: argument for argument in _arguments(other, module)}
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            name = field.target.id
            if "ClassVar" not in ast.unparse(field.annotation) and name != "model_config":
                found[name] = (name, field.annotation, field.value)
    return list(found.values())


def paragraphs(text: str) -> str:
    """Return text whose lines are joined within each paragraph; blocks of code stay."""
    parts = text.split("\n\n")
    return "\n\n".join(p if p.startswith("    ") else " ".join(p.split("\n")) for p in parts)


# Names before a colon, and all that is indented below them.
_ARGUMENT = r"^    (\S[^:]*): (.*(?:\n(?:     .*)?)*)"


def read_docstring(text: str) -> tuple[str, str, dict[str, str]]:
    """Return the first line of a docstring, its text, and the meaning of each argument."""
    about, _, rest = text.partition("\n")
    parts = re.split(r"^(Args|Returns|Raises|Yields):\n", rest, flags=re.MULTILINE)
    meanings: dict[str, str] = {}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if title == "Args":
            for found in re.finditer(
                r"^    (\S[^:]*): (.*(?:\n(?:     .*)?)*)", body, re.MULTILINE
            ):
                meaning = _one_line(found[2])
                meanings |= {name.strip(): meaning for name in found[1].split(",")}
    return plain_text(about), paragraphs(plain_text(parts[0].strip())), meanings


def _one_line(text: str) -> str:
    return plain_text(" ".join(text.split()))


def plain_text(text: str) -> str:
    """Return the text of a docstring with ``words`` and references as `words`."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return re.sub(r"\bNone\b", "null", text.replace("``", "`"))


def _setting(
    name: str,
    annotation: ast.expr,
    default: ast.expr | None,
    meanings: dict[str, str],
    module: ast.Module,
) -> Setting:
    choices: list[str] = []
    words = " or ".join(dict.fromkeys(_words(annotation, module, choices)))
    inner = re.search(r"\b(\w+Section|Training|Matching)\b", ast.unparse(annotation))
    alias, value = _default(default, module)
    named = inner is not None and "dict[" in ast.unparse(annotation)
    name = alias or name
    if inner:
        words = "section for each name" if named else "section"
        words += " or null" if "None" in ast.unparse(annotation) else ""
    meaning = _followed(meanings.get(name, ""), name, module)
    return Setting(name, words, value, meaning, tuple(choices), inner[1] if inner else "", named)


def _default(value: ast.expr | None, module: ast.Module) -> tuple[str, str | None]:
    """Return the alias of a field, if it has one, and its default as YAML has it."""
    if value is None:
        return "", None
    if isinstance(value, ast.Call):
        given = {key.arg: key.value for key in value.keywords}
        if ast.unparse(value.func) in ("Field", "field"):
            alias = ast.literal_eval(given["alias"]) if "alias" in given else ""
            factory = given.get("default_factory")
            if isinstance(factory, ast.Lambda):
                return alias, _yaml(factory.body, module)
            if factory is not None:
                return alias, {"dict": "{}", "list": "[]"}[ast.unparse(factory)]
            return alias, _yaml(given["default"], module) if "default" in given else None
        return "", "{}"  # a section with all its defaults
    return "", _yaml(value, module)


def _yaml(value: ast.expr, module: ast.Module) -> str:
    """Return a default in the words of YAML."""
    if isinstance(value, ast.Name):
        found = _constant(value.id, module)
        if found is None:
            return value.id
        value = found
    if isinstance(value, ast.Constant):
        if value.value is None or isinstance(value.value, bool):
            return {None: "null", True: "true", False: "false"}[value.value]
        return str(value.value) if value.value != "" else '""'
    if isinstance(value, ast.Tuple | ast.List):
        return "[" + ", ".join(_yaml(part, module) for part in value.elts) + "]"
    try:
        return str(ast.literal_eval(value))
    except ValueError:
        return f"{eval_number(value):g}"


def eval_number(value: ast.expr) -> float:
    """Return the number that an expression of numbers gives, such as ``3 / 4``."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div):
        return eval_number(value.left) / eval_number(value.right)
    return float(ast.literal_eval(value))


def _constant(name: str, module: ast.Module) -> ast.expr | None:
    """Return the value of a constant of a module, or of one that it imports."""
    for node in _module_of(name, module).body:
        if isinstance(node, ast.Assign) and name in [ast.unparse(t) for t in node.targets]:
            return node.value
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return node.value
    return None


def _definition(name: str, module: ast.Module) -> ast.FunctionDef | ast.ClassDef | None:
    """Return a function or class of a module, or of one that it imports; or one registered so."""
    for node in _module_of(name, module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [ast.unparse(a) for d in node.decorator_list for a in getattr(d, "args", ())]
            if node.name == name or repr(name) in names:
                return node
    return None


def _module_of(name: str, module: ast.Module) -> ast.Module:
    """Return the module in which a name is defined, if this one imports it; else this one."""
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            file = ROOT.parent / Path(*str(node.module).split("."))
            file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
            return _module_of(name, _parsed(file)) if file.is_file() else module
    beside = ROOT / "data" / "sets" / f"{name}.py"
    defined = {getattr(node, "name", "") for node in module.body}
    return _parsed(beside) if beside.is_file() and name not in defined else module


def _words(annotation: ast.expr, module: ast.Module, choices: list[str]) -> Iterator[str]:
    """Yield the words for each kind of value that an annotation allows."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        yield from _words(annotation.left, module, choices)
        yield from _words(annotation.right, module, choices)
    elif isinstance(annotation, ast.Subscript):
        outer, inner = ast.unparse(annotation.value), annotation.slice
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if outer == "Annotated":
            words = " or ".join(_words(parts[0], module, choices))
            yield words + _bounds(parts[1:])
        elif outer == "Literal":
            values = [_yaml(part, module) for part in parts]
            choices += values
            yield " or ".join(f"`{value}`" for value in values)
        elif outer == "dict":
            yield "mapping"
        elif outer in ("list", "tuple"):
            inside = " or ".join(dict.fromkeys(_words(parts[0], module, [])))
            yield f"list of {_plural(inside)}"
        else:
            yield outer
    else:
        name = ast.unparse(annotation)
        alias = _constant(name, module) if name not in _WORDS else None
        if alias is not None and name not in _WORDS:
            yield from _words(alias, module, choices)
        else:
            yield _WORDS.get(name, name)


def _plural(word: str) -> str:
    return {
        "whole number": "whole numbers",
        "number": "numbers",
        "text": "texts",
    }.get(word, word)


_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def _bounds(rest: list[ast.expr]) -> str:
    """Return the bounds that ``Field(ge=1)`` sets, in signs."""
    found = []
    for call in rest:
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Field":
            for key in call.keywords:
                if key.arg in _SIGNS and isinstance(key.value, ast.Constant):
                    found.append(f"{_SIGNS[key.arg]} {ast.unparse(key.value)}")
    return f" {', '.join(found)}" if found else ""
