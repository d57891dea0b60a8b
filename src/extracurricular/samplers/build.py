"""Build a sampler from a recipe's chain, which starts at the data and goes outwards.

``[empirical, {augment: {pad: 1}}, {mixup: {alpha: 1.0}}]`` is ``Mixup(Augment(Empirical(data)))``.
A ``blend`` names further chains, each with its weight::

    - blend:
        mixed: {weight: 0.7, sampler: [empirical, mixup]}
        plain: {weight: 0.3, sampler: [empirical]}
    - noise: {std: 0.1}

A weight, as some other settings, may follow a course over the training: ``{linear: [0.2, 0.8]}``.

A ``share`` draws a part of the examples from another chain than the rest, a part that may change
over the training. It stands alone::

    - share: {of: auto, extended: [empirical, mixup], plain: [empirical]}
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from torch import nn

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.errors import DataError, RecipeError, shorten
from extracurricular.matching.course import Course, read_course
from extracurricular.registry import split_spec
from extracurricular.samplers.base import SAMPLERS, Sampler
from extracurricular.samplers.blend import Blend
from extracurricular.samplers.moving import Moving, extremes
from extracurricular.samplers.share import Share
from extracurricular.samplers.weak import NAME as WEAK
from extracurricular.samplers.weak import NOT_AFTER

AUTO = "auto"


@dataclass(frozen=True)
class Context:
    """Teacher, student and generators, which some samplers need besides the data.

    Args:
        teacher: The trained teacher, if there is one.
        student: The network in training, if there is one.
        generators: The generators of a recipe's section ``generators``, and its pools of examples
            (splits in raw units), by name.
        draws: Draws in the training, for settings that move over it.
    """

    teacher: Any = None
    student: nn.Module | None = None
    generators: Mapping[str, Any] = field(default_factory=dict)
    draws: int | None = None


def build_sampler(
    chain: Any,
    data: Data,
    seed: int,
    key: str = "sampler",
    context: Context = Context(),
    inner: bool = False,
) -> Sampler:
    """Build the sampler that ``chain`` describes.

    Args:
        chain: A list of specs, innermost first; or one spec.
        data: The data set.
        seed: Seed of the whole chain; each sampler derives its own from it and from its place.
        key: Key of the chain in the recipe, for errors.
        context: Teacher, student and generators.
        inner: Whether the chain is a part of another one.

    Raises:
        RecipeError: A name or setting is unknown or wrong, or a sampler stands at a wrong place.
    """
    specs = chain if isinstance(chain, list) else [chain]
    if not specs:
        raise RecipeError(key, "is empty; a sampler starts with a source such as 'empirical'")
    sampler: Sampler | None = None
    parted = False
    for place, spec in enumerate(specs):
        here = f"{key}.{place}" if isinstance(chain, list) else key
        name, given = split_spec(spec, "sampler", here)
        if name == "share":
            if inner or len(specs) > 1:
                raise RecipeError(here, "is share, which must stand alone as the whole sampler")
            return _build_share(given, data, seed, f"{here}.share", context)
        if (name == WEAK and inner) or (parted and name in (WEAK, *NOT_AFTER)):
            where = "inside of another chain" if inner else f"after {WEAK!r}"
            raise RecipeError(
                here, f"is {name!r}, which cannot stand {where}: the teacher answers on one draw "
                "of each example, the last before it"
            )  # fmt: skip
        parted = parted or name == WEAK
        sampler = _build_one(spec, sampler, data, rng.fold(seed, place), here, context)
    assert sampler is not None
    return sampler


@dataclass(frozen=True)
class Requirements:
    """The parts of a :class:`Context` that a chain takes.

    Args:
        teacher: Whether it asks the teacher.
        generators: Names of the generators and pools that it draws from.
    """

    teacher: bool
    generators: tuple[str, ...]


def requirements(chain: Any) -> Requirements:
    """Return the needs of a chain besides the data, before any of them exists.

    Raises:
        RecipeError: The chain names an unknown sampler.
    """
    teacher, generators = False, []
    for spec in chain if isinstance(chain, list) else [chain]:
        name, given = split_spec(spec, "sampler", "")
        if name in ("blend", "share"):
            inner = [requirements(part) for part in _parts(name, given)]
            teacher = teacher or any(part.teacher for part in inner)
            generators += [used for part in inner for used in part.generators]
            continue
        # A run that is only looked at is read without its author's code.
        barred = SAMPLERS.is_barred(name)
        takes = {} if barred else inspect.signature(SAMPLERS.find(name)[0]).parameters
        teacher = teacher or "teacher" in takes
        if "generators" in takes and isinstance(given.get("generator"), str):
            generators.append(given["generator"])
    return Requirements(teacher, tuple(dict.fromkeys(generators)))


def _parts(name: str, given: Mapping[str, Any]) -> list[Any]:
    """Return the chains in a blend or a share."""
    if name == "share":
        return [given[key] for key in ("extended", "plain") if key in given]
    return [part.get("sampler", []) for part in given.values() if isinstance(part, Mapping)]


def moves(chain: Any) -> bool:
    """Return whether the draws of a chain depend on the number of draws in the training.

    They do where a setting follows a course.
    """
    if isinstance(chain, list | tuple):
        return any(moves(part) for part in chain)
    if not isinstance(chain, Mapping):
        return False
    try:
        return isinstance(read_course(chain), Course)
    except ValueError:
        return any(moves(part) for part in chain.values())


def share_is_auto(chain: Any) -> bool:
    """Return whether a chain is a share that follows the student's mastery."""
    name, given = _first(chain)
    return name == "share" and given.get("of", AUTO) == AUTO


def is_share(chain: Any) -> bool:
    """Return whether a chain is a share."""
    return _first(chain)[0] == "share"


def _first(chain: Any) -> tuple[str, dict[str, Any]]:
    specs = chain if isinstance(chain, list) else [chain]
    return split_spec(specs[0], "sampler", "") if specs else ("", {})


def _build_one(
    spec: Any, child: Sampler | None, data: Data, seed: int, key: str, context: Context
) -> Sampler:
    name, given = split_spec(spec, "sampler", key)
    if name == "blend":
        if child is not None:
            raise RecipeError(key, "blend is a source, so it must come first in its chain")
        return _build_blend(given, data, seed, f"{key}.blend", context)
    entry, _ = SAMPLERS.find(name, key=key)
    takes = inspect.signature(entry).parameters
    if ("child" in takes) != (child is not None):
        problem = (
            f"{name!r} draws from another sampler, so it cannot come first; "
            "start with a source such as 'empirical'"
            if child is None
            else f"{name!r} is a source, so it must come first in its chain"
        )
        raise RecipeError(key, problem)
    supplied: dict[str, Any] = {
        "child": child,
        "data": data,
        "seed": seed,
        "teacher": context.teacher,
        "student": context.student,
        "generators": context.generators,
    }
    supplied = {name: value for name, value in supplied.items() if name in takes}
    for setting in may_move(entry) & set(given):
        found = _moving(given[setting], f"{key}.{name}.{setting}", context)
        if isinstance(found, Moving):
            supplied[setting] = found
            del given[setting]
    try:
        return SAMPLERS.build({name: given}, key=key, **supplied)
    except DataError as error:
        raise RecipeError(f"{key}.{name}", str(error)) from error


def may_move(entry: Callable[..., Any]) -> set[str]:
    """Return the settings of a sampler that may move over the training, by their types."""
    hints = get_type_hints(entry.__init__ if inspect.isclass(entry) else entry)
    return {name for name, hint in hints.items() if Moving in get_args(hint)}


def _moving(given: Any, key: str, context: Context) -> float | Moving:
    """Read a number, or a course over the draws of the training.

    Raises:
        RecipeError: It is neither; or it is a course, and the number of draws is not known.
    """
    try:
        found = read_course(given)
    except ValueError as error:
        raise RecipeError(key, str(error)) from error
    if not isinstance(found, Course):
        return float(found)
    if context.draws is None:
        raise RecipeError(
            key, f"is {found}, a course over the draws of a training, but here there is none; "
            "give a number"
        )  # fmt: skip
    return Moving(found, context.draws)


def _build_share(
    given: dict[str, Any], data: Data, seed: int, key: str, context: Context
) -> Sampler:
    known = {"of", "extended", "plain"}
    if "extended" not in given or not set(given) <= known:
        raise RecipeError(
            key, f"is {shorten(given)}; it must be {{of: auto, extended: […], plain: […]}}"
        )
    of, plain = given.get("of", AUTO), given.get("plain", ["empirical"])
    share = None if of == AUTO else _moving(of, f"{key}.of", context)
    children = {
        name: build_sampler(chain, data, rng.fold(seed, name), f"{key}.{name}", context, inner=True)
        for name, chain in (("plain", plain), ("extended", given["extended"]))
    }
    try:
        return Share(children["plain"], children["extended"], share, seed)
    except ValueError as error:
        raise RecipeError(key, str(error)) from error


def _build_blend(
    given: dict[str, Any], data: Data, seed: int, key: str, context: Context
) -> Sampler:
    if not given:
        raise RecipeError(key, "is empty; it needs {NAME: {weight: …, sampler: […]}, …}")
    children: dict[str, Sampler] = {}
    weights: dict[str, float | Moving] = {}
    for name, part in given.items():
        here = f"{key}.{name}"
        if not isinstance(part, Mapping) or set(part) != {"weight", "sampler"}:
            raise RecipeError(
                here, f"is {shorten(part)}; it must be {{weight: …, sampler: […]}} and no more"
            )
        weight = _moving(part["weight"], f"{here}.weight", context)
        if min(extremes(weight)) < 0:
            raise RecipeError(
                f"{here}.weight", f"is {part['weight']}; it must be a number of at least 0"
            )
        children[name] = build_sampler(
            part["sampler"], data, rng.fold(seed, name), f"{here}.sampler", context, inner=True
        )
        weights[name] = weight
    try:
        return Blend(children, weights, seed=seed)
    except ValueError as error:
        raise RecipeError(key, str(error)) from error
