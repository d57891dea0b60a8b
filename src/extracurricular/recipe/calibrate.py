"""How a recipe may write its calibrations, brought to one form before the schema reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from extracurricular.errors import known_names, shorten

METHODS = ("temperature", "variance", "conformal")


def spelt_out(value: Any) -> Any:
    """Return ``{method: settings}`` of a method, a list of methods, or such a mapping.

    Raises:
        ValueError: A method is unknown, or there twice.
    """
    if value is None or isinstance(value, BaseModel):
        return value
    found: dict[Any, Any] = {}
    for part in value if isinstance(value, list) else [value]:
        if not isinstance(part, str | Mapping):
            raise ValueError(f"is {shorten(part)}; it should be {' | '.join(METHODS)}, or a list")
        for name, given in ({part: True} if isinstance(part, str) else part).items():
            if name not in METHODS:
                raise ValueError(f"is {shorten(name)}; {known_names(str(name), METHODS)}")
            if name in found:
                raise ValueError(f"has {name} twice")
            found[name] = given
    return found


def switch(value: Any) -> Any:
    """Return whether a method without settings is used."""
    return True if value == {} else False if value is None else value


def stated(value: Any) -> Any:
    """Return the settings of conformal intervals or sets; a number is their coverage."""
    if value is True:
        return {}
    if value is False:
        return None
    return {"coverage": float(value)} if isinstance(value, int | float) else value
