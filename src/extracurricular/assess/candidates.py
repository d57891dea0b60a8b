"""The samplers that `xcl draws` ranks: those of a recipe's students, and standard ones."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from extracurricular.data.base import Data
from extracurricular.data.images.stream import streamed
from extracurricular.errors import RecipeError, known_names, shorten
from extracurricular.inputs import leaves
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.recipe.plain_values import Loader
from extracurricular.recipe.schema import Recipe
from extracurricular.registry import split_spec
from extracurricular.samplers.base import SAMPLERS

_OPTION = "--samplers"
_PLAIN = (bool, int, float, str, tuple, list, dict)


@dataclass(frozen=True)
class Candidate:
    """A sampler to rank.

    Args:
        name: Its name for the user.
        chain: The sampler as a recipe writes it.
        key: Where it stands, for errors.
        students: The students of the recipe that learn from it.
    """

    name: str
    chain: Any
    key: str
    students: tuple[str, ...] = ()


def candidates(recipe: Recipe, data: Data, others: Mapping[str, Any]) -> list[Candidate]:
    """Return the distinct samplers of a recipe's students, then others that differ from these.

    One that is among the others, under whatever spelling, has the name that it has there.

    Args:
        recipe: The recipe.
        data: Its data set.
        others: Further samplers by name, such as :func:`standard`.
    """
    spelt = {name: _spelling(chain, f"{_OPTION}.{name}") for name, chain in others.items()}
    names = {spelling: name for name, spelling in reversed(spelt.items())}
    found: dict[bytes, Candidate] = {}
    for student, section in recipe.students.items():
        for part, chain in _parts(section.sampler):
            key = f"students.{student}.sampler"
            spelling = _spelling(chain, key)
            known = found.get(spelling)
            if known is None:
                name = names.get(spelling, student + part)
                found[spelling] = Candidate(name, chain, key, (student + part,))
            else:
                found[spelling] = replace(known, students=(*known.students, student + part))
    for name, chain in others.items():
        found.setdefault(spelt[name], Candidate(name, chain, f"{_OPTION}.{name}"))
    return _apart(list(found.values()))


def standard(data: Data) -> dict[str, Any]:
    """Return the standard samplers that fit the data, by name."""
    tensors = leaves(data.train.x).values()
    heights = [leaf.shape[2] for leaf in tensors if leaf.ndim == 4]
    plain = ["empirical"]
    # A shift by an eighth is four pixels of 32, as the field shifts CIFAR's images.
    changes: dict[str, Any] = {
        "augment": {"augment": {"pad": max(1, heights[0] // 8)}} if heights else None,
        "mixup": {"mixup": {"alpha": 1.0}},
        "cutmix": {"cutmix": {"alpha": 1.0}} if heights else None,
        "noise": {"noise": {"std": 0.1}},
    }
    found: dict[str, Any] = {"plain": plain}
    found |= {name: [*plain, change] for name, change in changes.items() if change is not None}
    if streamed(data.train.x) is not None:
        found["resized-crop"] = ["resized_crop"]
    for name in ("mixup", "cutmix" if heights else "noise"):
        found[f"half-{name}"] = [
            {
                "blend": {
                    name: {"weight": 0.5, "sampler": found[name]},
                    "plain": {"weight": 0.5, "sampler": plain},
                }
            }
        ]
    return found


def chosen(text: str | None, data: Data) -> dict[str, Any]:
    """Return the samplers that a person asks for beside those of the students, by name.

    Args:
        text: Names of standard samplers, with commas between them; or a YAML file of samplers by
            name; None for all the standard ones.
        data: The data set.

    Raises:
        RecipeError: There is no such name, or the file cannot be read.
    """
    if text is None:
        return standard(data)
    if Path(text).is_file() or text.endswith((".yaml", ".yml")):
        return _read(Path(text))
    known = standard(data)
    asked = [name.strip() for name in text.split(",") if name.strip()]
    for name in asked:
        if name not in known:
            problem = f"names {name!r}, which is no standard sampler for {data.name!r}"
            raise RecipeError(_OPTION, f"{problem}, and no file; {known_names(name, known)}")
    return {name: known[name] for name in asked}


def _read(file: Path) -> dict[str, Any]:
    try:
        found = yaml.load(file.read_text(encoding="utf-8"), Loader=Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(_OPTION, f"{str(file)!r} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise RecipeError(_OPTION, f"{str(file)!r} is not valid YAML: {where}") from None
    if not isinstance(found, dict) or not all(isinstance(v, list | str) for v in found.values()):
        raise RecipeError(
            _OPTION,
            f"{str(file)!r} holds {shorten(found)}; it must be {{NAME: [empirical, …], …}}",
        )
    return {str(name): chain for name, chain in found.items()}


def _parts(chain: Any) -> list[tuple[str, Any]]:
    """Return a chain; or both chains of a share, which says only how many draws each has."""
    specs = chain if isinstance(chain, list) else [chain]
    name, given = split_spec(specs[0], "sampler", "") if specs else ("", {})
    if name != "share":
        return [("", chain)]
    plain = given.get("plain", ["empirical"])
    return [(" (extended)", given.get("extended", [])), (" (plain)", plain)]


def _spelling(chain: Any, key: str) -> bytes:
    """Return a chain with all its defaults, as bytes, so that two spellings of one are equal."""
    try:
        return canonical(_filled(chain))
    except RecipeError as error:
        raise RecipeError(key, error.problem) from error


def _filled(chain: Any) -> list[Any]:
    found: list[Any] = []
    for spec in chain if isinstance(chain, list) else [chain]:
        name, given = split_spec(spec, "sampler", "")
        if name == "blend":
            parts = [part if isinstance(part, Mapping) else {} for part in given.values()]
            inner = [[part.get("weight"), _filled(part.get("sampler", []))] for part in parts]
            # The names of the parts are no more than names.
            found.append([name, sorted(inner, key=canonical)])
            continue
        if name == "share":
            raise RecipeError("", "is a share; give its two samplers one by one")
        takes = inspect.signature(SAMPLERS.find(name)[0]).parameters
        defaults = {
            key: parameter.default
            for key, parameter in takes.items()
            if key != "seed" and isinstance(parameter.default, _PLAIN)
        }
        found.append([name, defaults | dict(given)])
    return found


def _apart(found: list[Candidate]) -> list[Candidate]:
    """Return candidates with names of their own: a student may be called as a standard sampler."""
    seen: set[str] = set()
    result = []
    for one in found:
        name = one.name
        while name in seen:
            name += "'"
        seen.add(name)
        result.append(replace(one, name=name))
    return result
