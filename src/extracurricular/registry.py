"""Find a sampler, divergence, model or data set by the name a recipe gives it.

A *spec* names one entry and its settings: ``"mixup"`` or ``{"mixup": {"alpha": 0.4}}``. The
settings of an entry are read from its signature. So recipes can name a function or class as soon
as it is registered; types are checked, and unknown keys are refused.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from extracurricular.errors import (
    RecipeError,
    TrustError,
    XclError,
    known_names,
    own_place,
    raised,
    shorten,
)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

# Says why a name is not imported, from the name and its key; None where names are imported.
_refusal: ContextVar[Callable[[str, str], str] | None] = ContextVar("_refusal", default=None)
# Folders in which code is looked for that is found nowhere else.
_own_places: list[str] = []


@contextmanager
def looking(refusal: Callable[[str, str], str]) -> Iterator[None]:
    """Import no ``module:attribute`` while a block runs, as it only looks at what others made.

    Args:
        refusal: Returns the sentence to refuse a name with, from the name and its key.
    """
    token = _refusal.set(refusal)
    try:
        yield
    finally:
        _refusal.reset(token)


def find_own_code_in(folder: Path) -> None:
    """Look for ``module:attribute`` in a folder too, after all other places, to hide nothing.

    It is searched only once such a name is imported. Until then a file that happens to lie there
    stands for no package that is not installed.
    """
    _own_places.append(str(folder))


def first_complaint(error: ValidationError) -> Any:
    """Return the complaint to report: an unknown key if there is one, else the first complaint.

    A misspelt key is both unknown and missing, and the first of these explains the mistake.
    """
    errors = error.errors()
    return next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])


def explain_validation(
    error: ValidationError, key: str, known: Mapping[str, object], given: object = None
) -> RecipeError:
    """Turn a validation error of pydantic into one sentence with key, value and remedy.

    Args:
        error: The error.
        key: Key of what was validated, in the recipe.
        known: The keys that there are.
        given: What was validated. Where a value may be of several types, pydantic adds the type to
            the place of a complaint (``shift.float``); a place that ``given`` has no key for is
            left out, and all types are told.
    """
    first = first_complaint(error)
    place = _place(first, given)
    path = ".".join([key, *place]).strip(".")
    name = place[-1] if place else ""
    if first["type"] == "extra_forbidden":
        known_keys = known_names(name, known) if known else "it takes no settings"
        return RecipeError(path, f"unknown key {name!r}; {known_keys}")
    if first["type"] == "missing":
        return RecipeError(path, "is missing and has no default")
    # Of several types that a value may have, the one that it comes nearest to explains the most.
    nearest = max(
        (part for one in error.errors() if (part := _place(one, given))[: len(place)] == place),
        key=len,
    )
    complaints = [one for one in error.errors() if _place(one, given) == nearest]
    path = ".".join([key, *nearest]).strip(".")
    shown = shorten(complaints[0]["input"])
    if complaints[0]["type"] == "too_short":
        return RecipeError(path, f"is {shown}; it needs at least one entry")
    messages = [
        one["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        for one in complaints
    ]
    if complaints[0]["type"] == "value_error":
        return RecipeError(path, messages[0])
    wanted = " or ".join(dict.fromkeys(messages)).replace("valid tuple", "valid list")
    return RecipeError(path, f"is {shown}; it should be {wanted}")


def _place(complaint: Any, given: object) -> tuple[str, ...]:
    """Return the keys that lead to what a complaint is about, without types of pydantic's."""
    parts = complaint["loc"]
    if given is None:
        return tuple(map(str, parts))
    found: list[str] = []
    for part in parts:
        if _has(given, part):
            found, given = [*found, str(part)], given[part]  # type: ignore[index]
    return (*found, str(parts[-1])) if complaint["type"] == "missing" else tuple(found)


def _has(given: object, part: str | int) -> bool:
    if isinstance(given, list | tuple):
        return isinstance(part, int) and part < len(given)
    return isinstance(given, Mapping) and part in given


class Registry(Generic[T]):
    """The entries of one kind, by name.

    Args:
        kind: The kind of the entries, in the singular, for error texts (``"sampler"``).
        package: The package whose modules register the entries; all are imported when a name is
            first looked up. None if all entries are in one module.
        fits: Tells whether a value that an entry gives is of the kind. It is asked about code of
            somebody's own alone.

    A name may hold fields, ``"wrn-{depth}-{width}"``: ``wrn-16-2`` then calls the entry with
    ``depth=16, width=2``. Fields are integers, or any text if the entry takes a string. A name of
    the form ``NAME:PATH`` calls an entry that takes a path with that path. A name of the form
    ``package.module:attribute`` is imported, so that a recipe can use code from its author's own
    files.
    """

    def __init__(
        self,
        kind: str,
        package: str | None = None,
        fits: Callable[[object], bool] = lambda value: True,
    ) -> None:
        self.kind = kind
        self.package = package
        self.fits = fits
        self._known: dict[str, Callable[..., T]] = {}
        self._complete = package is None

    @property
    def _entries(self) -> dict[str, Callable[..., T]]:
        """All entries, after every module of the package has registered its own."""
        if not self._complete and self.package is not None:
            folder = importlib.import_module(self.package).__path__
            for module in pkgutil.iter_modules(folder):
                importlib.import_module(f"{self.package}.{module.name}")
            self._complete = True
        return self._known

    def register(self, name: str) -> Callable[[F], F]:
        """Return a decorator that makes a function or class known under ``name``."""

        def add(entry: F) -> F:
            if name in self._known:
                raise ValueError(f"{self.kind} {name!r} is registered already")
            self._known[name] = entry
            return entry

        return add

    def names(self) -> list[str]:
        """Return the known names, sorted."""
        return sorted(self._entries)

    def entry(self, name: str) -> Callable[..., T]:
        """Return the entry registered under exactly this name, with its fields unfilled."""
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def find(self, name: str, *, key: str = "") -> tuple[Callable[..., T], dict[str, Any]]:
        """Return the entry called ``name`` and the settings that the name itself holds.

        Raises:
            RecipeError: There is no such entry, or it cannot be imported.
        """
        found = self._registered(name)
        if found is not None:
            return found
        if ":" in name:
            return self._import(name, key), {}
        known = known_names(name, self._entries)
        raise RecipeError(key, f"unknown {self.kind} {name!r}; {known}")

    def names_own_code(self, name: str) -> bool:
        """Return whether :meth:`find` would import code that is not registered here."""
        return ":" in name and self._registered(name) is None

    def is_barred(self, name: str) -> bool:
        """Return whether :meth:`find` would refuse to import a name, as it is only looked at."""
        return _refusal.get() is not None and self.names_own_code(name)

    def _registered(self, name: str) -> tuple[Callable[..., T], dict[str, Any]] | None:
        """Return a registered entry and the settings that the name holds; None for other names."""
        if name in self._entries:
            return self._entries[name], {}
        for template, entry in self._entries.items():
            if "{" in template:
                fields = _fields(template, entry, name)
                if fields is not None:
                    return entry, fields
        first, _, path = name.partition(":")
        if first in self._entries and path and "path" in _parameters(self._entries[first]):
            return self._entries[first], {"path": path}
        return None

    def _import(self, name: str, key: str) -> Callable[..., T]:
        refusal = _refusal.get()
        if refusal is not None:
            raise TrustError(refusal(name, key))
        sys.path.extend(place for place in _own_places if place not in sys.path)
        module_name, _, attribute = name.partition(":")
        try:
            entry = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise RecipeError(key, f"cannot import the {self.kind} {name!r}: {said}") from error
        except Exception as error:  # the module runs, and may fail in any way
            problem = f"cannot import the {self.kind} {name!r}: {raised(error)}"
            raise RecipeError(key, problem) from error
        if not callable(entry):
            raise RecipeError(key, f"the {self.kind} {name!r} cannot be called")
        try:
            inspect.signature(entry)
            _hints(entry)
        except Exception as error:  # annotations are code too
            problem = f"the {self.kind} {name!r} has settings that cannot be read"
            raise RecipeError(key, f"{problem}: {raised(error)}") from error
        return entry  # type: ignore[no-any-return]

    def settings(
        self, spec: object, *, key: str = "", context: tuple[str, ...] = ()
    ) -> tuple[Callable[..., T], dict[str, Any]]:
        """Check a spec and return its entry and the given settings, without defaults.

        Args:
            spec: ``name`` or ``{name: {setting: value}}``.
            key: Key of the spec in the recipe, for errors.
            context: Parameters of the entry that the program supplies and a recipe may not.

        Raises:
            RecipeError: The name or a setting is unknown, or a value has the wrong type.
        """
        name, given = split_spec(spec, self.kind, key)
        entry, fields = self.find(name, key=key)
        path = f"{key}.{name}" if given else key
        return entry, {**fields, **check_settings(entry, given, path, skip=(*context, *fields))}

    def build(self, spec: object, *, key: str = "", **context: Any) -> T:
        """Check a spec and call its entry with its settings and the program's ``context``.

        Raises:
            RecipeError: The spec is wrong, as in :meth:`settings`, or the entry refused a value
                (``ValueError``).
        """
        entry, values = self.settings(spec, key=key, context=tuple(context))
        try:
            return self._fitting(entry(**context, **values), spec, key)
        except RecipeError as error:
            # An entry knows the names of its settings, but not its own key in the recipe.
            name, _ = split_spec(spec, self.kind, key)
            raise RecipeError(f"{key}.{name}.{error.key}".strip("."), error.problem) from error
        except XclError:
            raise
        except Exception as error:
            name, _ = split_spec(spec, self.kind, key)
            where = f"{key}.{name}" if key else name
            if self.names_own_code(name) and own_place(error) is not None:
                raise RecipeError(where, f"cannot be made: {raised(error)}") from error
            if isinstance(error, ValueError):
                raise RecipeError(where, str(error)) from error
            if self.names_own_code(name):
                raise RecipeError(where, f"cannot be made: {raised(error)}") from error
            raise

    def _fitting(self, value: T, spec: object, key: str) -> T:
        """Return what an entry gave, unless it is code of somebody's own and gave another thing."""
        name, _ = split_spec(spec, self.kind, key)
        if not self.fits(value) and self.names_own_code(name):
            raise ValueError(f"gives a {type(value).__name__}, which is no {self.kind}")
        return value


def _hints(entry: Callable[..., Any]) -> dict[str, Any]:
    # A class's annotations live in its own module; __init__ of a dataclass carries them too.
    return get_type_hints(entry.__init__ if inspect.isclass(entry) else entry)


def _parameters(entry: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(entry).parameters)


def _fields(template: str, entry: Callable[..., Any], name: str) -> dict[str, Any] | None:
    """Return the fields of a name that fits a template, or None if it does not fit."""
    hints = _hints(entry)
    pattern = re.escape(template)
    for field in re.findall(r"\{(\w+)\}", template):
        form = ".+" if hints.get(field) is str else "[0-9]+"
        pattern = pattern.replace(re.escape(f"{{{field}}}"), f"(?P<{field}>{form})")
    match = re.fullmatch(pattern, name)
    if match is None:
        return None
    found = match.groupdict()
    return {k: v if hints.get(k) is str else int(v) for k, v in found.items()}


def check_settings(
    entry: Callable[..., Any], given: Mapping[str, Any], key: str, skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Check settings against the signature of the function or class that takes them.

    Args:
        entry: The function or class.
        given: The settings.
        key: Key of the settings in the recipe, for errors.
        skip: Parameters that are not settings.

    Raises:
        RecipeError: A setting is unknown or missing, or has the wrong type.
    """
    hints, definitions, model = (_form if _can_be_kept(entry) else _form.__wrapped__)(entry, skip)
    values = {
        # YAML has no tuples.
        name: tuple(value) if isinstance(value, list) and _takes_tuple(hints.get(name)) else value
        for name, value in given.items()
    }
    try:
        checked = model.model_validate(values)
    except ValidationError as error:
        raise explain_validation(error, key, definitions, values) from None
    return {name: getattr(checked, name) for name in checked.model_fields_set}


@lru_cache(maxsize=512)
def _form(
    entry: Callable[..., Any], skip: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any], type[BaseModel]]:
    """Return types of an entry's settings, types with defaults, and the model that checks them.

    A model takes milliseconds to make, and a recipe asks for the same one hundreds of times.
    """
    hints = _hints(entry)
    definitions: dict[str, Any] = {}
    for parameter in inspect.signature(entry).parameters.values():
        variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if parameter.name not in skip and not variable:
            default = ... if parameter.default is parameter.empty else parameter.default
            definitions[parameter.name] = (hints.get(parameter.name, Any), default)
    config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)
    return hints, definitions, create_model("Settings", __config__=config, **definitions)


def _can_be_kept(entry: Callable[..., Any]) -> bool:
    """Return whether an entry has a hash, which a person's own object may lack."""
    try:
        hash(entry)
    except Exception:  # it is code of somebody's own
        return False
    return True


def _takes_tuple(hint: Any) -> bool:
    """Return whether a setting is a tuple, or may be one."""
    return get_origin(hint) is tuple or any(get_origin(one) is tuple for one in get_args(hint))


def split_spec(spec: object, kind: str, key: str) -> tuple[str, dict[str, Any]]:
    """Split ``name`` or ``{name: settings}`` into name and settings."""
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and len(spec) == 1:
        [(name, given)] = spec.items()
        if isinstance(name, str) and (given is None or isinstance(given, Mapping)):
            return name, dict(given or {})
    raise RecipeError(
        key, f"is {shorten(spec)}; a {kind} is given as NAME or as {{NAME: {{setting: value}}}}"
    )
