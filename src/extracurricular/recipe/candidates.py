"""The candidates of a choice by name: a student's draws, with other shares of extended ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from extracurricular.errors import RecipeError, known_names, shorten
from extracurricular.recipe.schema import REFERENCE
from extracurricular.recipe.students import ChooseSection
from extracurricular.registry import explain_validation, split_spec

PLAIN: list[Any] = ["empirical"]


def named(sampler: Any) -> dict[str, Any]:
    """Return the candidates that have names, each as its section of a recipe.

    Args:
        sampler: The student's chain. That of a ``share`` says which draws are plain and which are
            extended; any other is extended itself, beside stored examples.
    """
    plain, extended = PLAIN, sampler
    specs = sampler if isinstance(sampler, list) else [sampler]
    name, given = split_spec(specs[0], "sampler", "sampler") if specs else ("", {})
    if name == "share" and "extended" in given:
        plain, extended = given.get("plain", PLAIN), given["extended"]
    shares: dict[str, Any] = {
        share: [{"share": {"of": of, "extended": extended, "plain": plain}}]
        for share, of in (("half", 0.5), ("auto", "auto"))
    }
    chains = {REFERENCE: plain, **shares, "all": extended}
    return {key: {"sampler": chain} for key, chain in chains.items()}


def read_choice(given: Any, sampler: Any, key: str = "choose") -> ChooseSection:
    """Read candidates as a person gives them.

    Args:
        given: Names, as a list or separated by commas; a mapping of names to what each candidate
            has of its own, ``{sampler, matching}``, or None for the one of that name; or
            ``{among: either, after: [parts]}``.
        sampler: The student's chain, which candidates without a sampler have.
        key: Where it stands, for errors.

    Raises:
        RecipeError: A name is unknown, or the section is wrong.
    """
    values = {"among": given}
    if isinstance(given, Mapping) and "among" in given and set(given) <= {"among", "after"}:
        values = dict(given)
    names = values["among"]
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    if isinstance(names, list | tuple):
        values["among"] = {str(name): _one(name, sampler, key) for name in names}
        if len(values["among"]) < len(names):
            raise RecipeError(key, f"is {shorten(list(names))}; each candidate may occur only once")
    elif isinstance(names, Mapping):
        values["among"] = {
            name: _one(name, sampler, key) if own is None else own for name, own in names.items()
        }
    else:
        raise RecipeError(
            key,
            f"is {shorten(given)}; it must be names such as [{', '.join(named(sampler))}], or "
            "{NAME: {sampler: […], matching: {…}}}",
        )
    try:
        return ChooseSection.model_validate(values)
    except ValidationError as error:
        raise explain_validation(error, key, dict.fromkeys(("sampler", "matching"))) from None


def read_text(text: str, sampler: Any, key: str) -> ChooseSection:
    """Read candidates from a command line: names separated by commas, or YAML.

    Raises:
        RecipeError: It is neither.
    """
    given: Any = text
    if text.lstrip().startswith(("{", "[")):
        try:
            given = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RecipeError(key, f"{text!r} is not valid YAML") from None
    return read_choice(given, sampler, key)


def _one(name: Any, sampler: Any, key: str) -> dict[str, Any]:
    known = named(sampler)
    if not isinstance(name, str) or name not in known:
        raise RecipeError(
            key,
            f"names the candidate {shorten(name)}; {known_names(str(name), known)}; one of your "
            "own is {NAME: {sampler: […], matching: {…}}}",
        )
    if name != REFERENCE and known["all"]["sampler"] in (PLAIN, PLAIN[0]):
        raise RecipeError(
            key, f"names {name!r}, but the sampler has no draws beyond the stored examples"
        )
    found: dict[str, Any] = known[name]
    return found
