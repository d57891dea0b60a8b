"""The settings that a stage's folder is compared by, and those of older versions.

``stage.json`` holds all settings that the result of a stage depends on, with the version of their
layout. A setting that changes no result (where the data lie, how many workers read them) is not
among them; the content of the data is, as a fingerprint beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from extracurricular.data.sets import DATA
from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, StorageError
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.matching import build_matching, describe
from extracurricular.training import Training

SCHEMA = 3
"""Version of the layout of ``stage.json``.

1 had no version, no content, and older words. 2 had losses without ``beta``, and as the recipe said
them; since 3 a loss stands there with all its settings, as they are resolved for the task.
"""

# Settings of a data set that give its location and the way to read it, not its content.
PLACE = ("path", "table", "root", "workers", "cache")
# The loss of schema 2, where the recipe said nothing.
_LOSS_2 = {"divergence": "forward_kl", "temperature": 1.0, "label_weight": 0.0, "beta": 0.0}
# Settings of a training that change no result.
_HABITS = ("evaluate_every", "checkpoint_every")


def data_settings(spec: Any) -> Any:
    """Return a data set's spec without its location, as its content is compared instead."""
    if isinstance(spec, str):
        first, _, path = spec.partition(":")
        return first if path and first in DATA else spec
    if not isinstance(spec, Mapping):
        return spec
    [(name, given)] = spec.items()
    kept = {k: v for k, v in (given or {}).items() if k not in PLACE}
    return {data_settings(name): kept} if kept else data_settings(name)


def training_settings(training: Training) -> dict[str, Any]:
    """Return the settings of a training that its result depends on."""
    values = training.model_dump(mode="json")
    # Those that came later stand there only where they change something.
    for key, usual in (("accumulate", 1), ("freeze", [])):
        if values[key] == usual:
            del values[key]
    return {key: value for key, value in values.items() if key not in _HABITS}


def with_losses(settings: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Write out the loss of a training, and those upstream, as they are resolved for the task.

    Args:
        settings: Settings of a stage; those of one that is no training stay as they are.
        task: The task of the run.

    Raises:
        RecipeError: A loss has a setting that is unknown or invalid.
    """
    found = dict(settings)
    if isinstance(found.get("matching"), Mapping):
        loss = build_matching(found["matching"], "matching")
        try:
            found["matching"] = describe(loss, task)
        except ValueError as error:
            raise RecipeError("matching", str(error)) from error
    if isinstance(found.get("upstream"), list):
        found["upstream"] = [with_losses(one, task) for one in found["upstream"]]
    return found


def checked_as(key: str, settings: Mapping[str, Any], recorded: bool) -> str:
    """Return a name of all that the check of a student depends on but its teacher and generators.

    Stages of one name need be checked only once; all seeds are checked alike.

    Args:
        key: Where it stands in the recipe.
        settings: Its settings.
        recorded: Whether it learns from a record.
    """
    return f"{key} " + canonical({**settings, "upstream": recorded, "seed": None}).decode()


def stored_settings(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the settings in a ``stage.json``, in the layout of this version.

    Args:
        record: Content of the file.
        where: Name of the stage's folder in an error.

    Raises:
        StorageError: A later version wrote it, or it has no settings.
    """
    schema, settings = record.get("schema", 1), record.get("settings")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise StorageError(
            f"{where} is of schema {schema!r}, and this version reads up to {SCHEMA}; go on with "
            "the version that made it, or choose another --out"
        )
    if not isinstance(settings, dict):
        raise StorageError(f"{where} has no settings; delete it, and it is made anew")
    if schema < 2:
        settings = _from_1(settings)
    return _complete(_from_2(settings) if schema < 3 else settings)


def with_places(found: Any, wanted: Any) -> Any:
    """Return settings with the absolute paths of others, where both name the same file.

    A file may lie elsewhere, or have been named from another folder: the content counts, whose
    checksum is a setting of its own.
    """
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return {k: with_places(v, wanted[k]) if k in wanted else v for k, v in found.items()}
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [with_places(a, b) for a, b in zip(found, wanted, strict=True)]
    texts = isinstance(found, str) and isinstance(wanted, str)
    if texts and Path(wanted).is_absolute() and Path(found).name == Path(wanted).name:
        return wanted
    return found


def placeless(value: Any) -> Any:
    """Return settings with the name alone of each file that is given by its absolute path."""
    if isinstance(value, Mapping):
        return {key: placeless(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [placeless(inner) for inner in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def _complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Add the settings that this version has and the version that wrote the others lacked.

    The default of such a setting keeps the behaviour from before there was a choice.
    """
    found = dict(settings)
    if isinstance(found.get("training"), dict):
        found["training"] = training_settings(Training()) | found["training"]
    if isinstance(found.get("upstream"), list):
        found["upstream"] = [_complete(one) for one in found["upstream"]]
    return found


def _from_1(settings: dict[str, Any]) -> dict[str, Any]:
    """Bring settings from schema 1 to 2: no locations of data, and current words."""
    found = dict(settings)
    if "data" in found:
        found["data"] = data_settings(found["data"])
    if "sampler" in found:
        found["sampler"] = _renamed(found["sampler"], "plain", "plain_share")
    if isinstance(found.get("matching"), dict):
        old = found["matching"]
        found["matching"] = {("label_weight" if k == "hard" else k): v for k, v in old.items()}
    if "outside" in found:
        found["teacher"] = _spelt_out(found.pop("outside"))
    if isinstance(found.get("record"), int):
        found["record"] = {"draws": found.pop("record"), "codec": found.pop("codec", None)}
    if isinstance(found.get("upstream"), list):
        found["upstream"] = [_from_1(one) for one in found["upstream"]]
    return found


def _from_2(settings: dict[str, Any]) -> dict[str, Any]:
    """Bring settings from schema 2 to 3: losses in full, of which none had a ``beta``."""
    found = dict(settings)
    if isinstance(found.get("matching"), dict):
        found["matching"] = _LOSS_2 | found["matching"]
    if isinstance(found.get("upstream"), list):
        found["upstream"] = [_from_2(one) for one in found["upstream"]]
    return found


def _spelt_out(spec: Any) -> Any:
    """Return a spec as ``{name: settings}``, whether it was a bare name or not."""
    if isinstance(spec, str):
        return {spec: {}}
    if isinstance(spec, Mapping):
        return {name: given or {} for name, given in spec.items()}
    return spec


def recorded_chain(chain: Any) -> Any:
    """Return a chain in the words that records have, whichever version made them.

    The key of a record is a hash of its chain, so a new word must not make another record of it.
    """
    return _renamed(chain, "plain_share", "plain")


def _renamed(chain: Any, old: str, new: str) -> Any:
    """Rename a setting of ``uncertain`` wherever it stands in a chain."""
    if isinstance(chain, list):
        return [_renamed(part, old, new) for part in chain]
    if isinstance(chain, Mapping):
        return {
            name: {(new if k == old else k): v for k, v in given.items()}
            if name == "uncertain" and isinstance(given, Mapping)
            else _renamed(given, old, new)
            for name, given in chain.items()
        }
    return chain
