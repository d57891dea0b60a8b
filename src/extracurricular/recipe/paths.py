"""The paths in a recipe, made absolute, so that a run can be used from any folder.

A relative path in a recipe file is relative to the folder of that file; one on the command line, in
Python or in a shipped recipe to the working directory. ``~`` and environment variables are
expanded. URLs stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from extracurricular.data.remote import check_url, is_url
from extracurricular.data.sets import DATA

# Settings that name files or folders, wherever they stand.
_KEYS = ("path", "table", "root", "weights", "cache")
# Entries whose path may be a name on the Hub instead.
_HUB = ("hf", "diffusers", "transformers")


def absolute(path: str, base: Path) -> str:
    """Return a path with ``~`` and variables expanded, and relative to a folder if it is relative.

    Args:
        path: The path.
        base: The folder.
    """
    expanded = Path(os.path.expandvars(path))
    with suppress(RuntimeError):  # there is no such person, so the name is kept for the message
        expanded = expanded.expanduser()
    # Links stay as they are named, since a person knows them so.
    return os.path.normpath(base / expanded)


def absolute_paths(values: dict[str, Any], base: Path) -> None:
    """Make the paths in a recipe absolute, in place.

    Args:
        values: The recipe as plain values, valid or not.
        base: The folder that relative paths are relative to.
    """
    if "data" in values:
        values["data"] = absolute_spec(values["data"], base)
    teacher = values.get("teacher")
    if isinstance(teacher, dict):
        for word in ("onnx", "answers"):
            if isinstance(teacher.get(word), str):
                teacher[word] = absolute(teacher[word], base)
            _settings(teacher.get(word), "", base)
        _settings(teacher, "", base)
        models = teacher.get("model")
        for model in models if isinstance(models, list) else [models]:
            _spec(model, base)
    for section in ("generators", "students"):
        parts = values.get(section)
        for part in parts.values() if isinstance(parts, Mapping) else ():
            _spec(part.get("model") if isinstance(part, Mapping) else None, base)
            _start(part, base)
    defaults = values.get("defaults")
    _spec(defaults.get("model") if isinstance(defaults, Mapping) else None, base)
    _start(defaults, base)
    budgets = values.get("budgets")
    for budget in budgets.values() if isinstance(budgets, Mapping) else ():
        if isinstance(budget, dict):
            _changes(budget, base)


def absolute_spec(spec: Any, base: Path) -> Any:
    """Return the spec of a data set with its paths absolute.

    Raises:
        DataError: A URL in it holds credentials, which a run folder would keep.
    """
    _check_urls(spec)
    if isinstance(spec, str):
        name, colon, path = spec.partition(":")
        if colon and path and name in DATA and _is_local(name, path, base):
            return f"{name}:{absolute(path, base)}"
        return spec
    _spec(spec, base)
    return spec


def _check_urls(spec: Any) -> None:
    """Refuse URLs with credentials anywhere in a spec."""
    if isinstance(spec, str):
        name, colon, path = spec.partition(":")
        check_url(path if colon and name in DATA else spec)
    elif isinstance(spec, Mapping | list):
        for part in spec.values() if isinstance(spec, Mapping) else spec:
            _check_urls(part)


def _changes(budget: dict[str, Any], base: Path) -> None:
    """Make the paths among the changes of a budget absolute."""
    for place, value in budget.items():
        *parents, last = str(place).split(".")
        if not parents:
            whole = {last: value}
            absolute_paths(whole, base)
            budget[place] = whole[last]
        elif last in _KEYS and isinstance(value, str):
            held = {last: value}
            _settings(held, parents[-1], base)
            budget[place] = held[last]


def _spec(spec: Any, base: Path) -> None:
    """Make the paths among the settings of ``{name: settings}`` absolute."""
    if isinstance(spec, Mapping):
        for name, settings in spec.items():
            _settings(settings, str(name), base)


def _start(student: Any, base: Path) -> None:
    """Make the path of the weights that a student starts from absolute."""
    if isinstance(student, dict):
        if isinstance(student.get("start"), str):
            student["start"] = absolute(student["start"], base)
        _settings(student.get("start"), "", base)


def _settings(settings: Any, name: str, base: Path) -> None:
    if not isinstance(settings, dict):
        return
    for key in _KEYS:
        value = settings.get(key)
        if isinstance(value, str) and value and _is_local(name, value, base):
            settings[key] = absolute(value, base)


def _is_local(name: str, path: str, base: Path) -> bool:
    """Return whether a path is one of this machine, and neither a name on the Hub nor a URL."""
    if path == "$seed" or is_url(path):
        return False
    hub = name.partition(":")[0] in _HUB
    return not hub or path[0] in "./~$" or Path(absolute(path, base)).exists()
