"""Write out the named chains of a recipe.

The section ``chains`` names chains of samplers, so that a recipe spells what they share once::

    chains:
      shifted: [empirical, {augment: {pad: 3}}]
    students:
      mine: {sampler: [shifted, {mixup: {alpha: 1.0}}]}

A chain's name stands where a source would stand. The names are gone when the recipe has been read.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from extracurricular.errors import RecipeError, known_names, shorten
from extracurricular.recipe.plain_values import DEEPEST, MOST_VALUES, depth, size
from extracurricular.samplers.base import SAMPLERS


def sections(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sections of a recipe that may hold a sampler, each with its dotted path.

    These are the teacher, the defaults of students, each student, and the candidates of a student.
    A section that is no mapping is left out; the schema refuses it later.
    """
    places = {"teacher": values.get("teacher"), "defaults": values.get("defaults")}
    students = values.get("students")
    if isinstance(students, Mapping):
        places |= {f"students.{name}": student for name, student in students.items()}
        for name, student in students.items():
            choose = student.get("choose") if isinstance(student, Mapping) else None
            among = choose.get("among") if isinstance(choose, Mapping) else None
            for which, candidate in among.items() if isinstance(among, Mapping) else ():
                places[f"students.{name}.choose.among.{which}"] = candidate
    for place, section in places.items():
        if isinstance(section, dict):
            yield place, section


def specs(chain: Any, key: str) -> Iterator[tuple[str, str, Any]]:
    """Yield the dotted path, the name and the settings of each sampler in a chain.

    Args:
        chain: A list of specs, or one spec. The chains inside blends and shares are walked too.
        key: The chain's own dotted path.
    """
    for place, spec in enumerate(chain if isinstance(chain, list) else [chain]):
        here = f"{key}.{place}" if isinstance(chain, list) else key
        name, settings = _split(spec)
        if name is None:
            continue
        yield here, name, settings
        for inside, part in _children(name, settings):
            yield from specs(part, f"{here}.{name}.{'.'.join(inside)}")


def expand_chains(values: dict[str, Any]) -> None:
    """Replace the names of chains by the chains, in place, and remove the section ``chains``.

    Raises:
        RecipeError: A chain is called like a sampler, uses one that does not come before it, or is
            named where no source can stand; or a sampler begins with an unknown name.
    """
    given = values.pop("chains", None)
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise RecipeError("chains", f"is {shorten(given)}; it should be {{NAME: [sampler, …]}}")
    for name in given:
        _check_name(name)
    ready: dict[str, Any] = {}
    expansion = _Expansion(ready, list(given))
    for name, chain in given.items():
        if not isinstance(chain, list) or not chain:
            raise RecipeError(
                f"chains.{name}",
                f"is {shorten(chain)}; a chain is a list such as [empirical, {{augment: {{}}}}]",
            )
        ready[name] = expansion.chain(chain, f"chains.{name}")
        if depth(ready[name]) > DEEPEST:
            raise RecipeError(f"chains.{name}", f"is nested more than {DEEPEST} levels deep")
    for place, section in sections(values):
        if section.get("sampler") is not None:
            section["sampler"] = expansion.chain(section["sampler"], f"{place}.sampler")


@dataclass(frozen=True)
class _Expansion:
    """Writes out chains.

    Args:
        ready: The chains that may be used already, written out.
        names: The names of all chains of the recipe.
        written: The number of values that were written for names, in a list of one.
    """

    ready: Mapping[str, Any]
    names: list[str]
    written: list[int] = field(default_factory=lambda: [0])

    def chain(self, chain: Any, key: str) -> Any:
        """Return a chain without names of chains; a single spec stays one where it can."""
        if not isinstance(chain, list):
            parts = self.spec(chain, key, first=True)
            return parts if isinstance(chain, str) and chain in self.names else parts[0]
        return [
            part
            for place, spec in enumerate(chain)
            for part in self.spec(spec, f"{key}.{place}", first=place == 0)
        ]

    def spec(self, spec: Any, key: str, first: bool) -> list[Any]:
        """Return the specs that one spec stands for."""
        name, settings = _split(spec)
        if name in self.names:
            return self.named(name, spec, key, first)
        if first and isinstance(spec, str) and ":" not in spec and not _is_sampler(spec):
            known = known_names(spec, [*self.names, *SAMPLERS.names()])
            raise RecipeError(key, f"there is no chain and no sampler {spec!r}; {known}")
        children = list(_children(name, settings))
        if not children:
            return [spec]
        written = copy.deepcopy(settings)
        for place, part in children:
            inner = written if len(place) == 1 else written[place[0]]
            inner[place[-1]] = self.chain(part, f"{key}.{name}.{'.'.join(place)}")
        return [{name: written}]

    def named(self, name: str, spec: Any, key: str, first: bool) -> list[Any]:
        """Return the specs of the chain that a spec names."""
        if not isinstance(spec, str):
            raise RecipeError(
                key, f"gives settings to the chain {name!r}, which takes none; "
                f"change chains.{name} itself"
            )  # fmt: skip
        if not first:
            raise RecipeError(key, f"{name!r} is a chain, so it must come first, as a source does")
        if name not in self.ready:
            raise RecipeError(
                key, f"uses the chain {name!r}, which does not come before it; "
                "a chain may use the chains above it"
            )  # fmt: skip
        # Chains that use others twice, which use others twice, would double with each.
        self.written[0] += size(self.ready[name])
        if self.written[0] > MOST_VALUES:
            raise RecipeError(
                f"chains.{name}", f"gives the recipe more than {MOST_VALUES:,} values"
            )
        return list(copy.deepcopy(self.ready[name]))


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d][\w-]*", name):
        raise RecipeError(
            "chains", f"one is called {name!r}; a name begins with a letter and has letters, "
            "digits, '-' and '_'"
        )  # fmt: skip
    if _is_sampler(name):
        raise RecipeError(
            f"chains.{name}", f"{name!r} is the name of a sampler; call the chain something else"
        )


def _is_sampler(name: str) -> bool:
    return name in ("blend", "share") or name in SAMPLERS


def _split(spec: Any) -> tuple[str | None, Any]:
    """Split a spec into name and settings; a name of None where it is no spec."""
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and len(spec) == 1:
        [(name, settings)] = spec.items()
        if isinstance(name, str):
            return name, settings
    return None, None


def _children(name: str | None, settings: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the chains in a blend or a share, each with its place among the settings."""
    if not isinstance(settings, Mapping):
        return
    if name == "blend":
        for child, part in settings.items():
            if isinstance(part, Mapping) and "sampler" in part:
                yield (child, "sampler"), part["sampler"]
    if name == "share":
        for key in ("plain", "extended"):
            if key in settings:
                yield (key,), settings[key]
