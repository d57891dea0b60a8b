"""Read the words that recipes had in the previous release.

=============================  ====================================================
``matching.hard``              ``matching.label_weight``
``uncertain: {plain: …}``      ``uncertain: {plain_share: …}``
``teacher.outside: {…}``       ``teacher.estimator``, ``teacher.onnx``, ``teacher.function``
``teacher.record: N``          ``teacher.record: {draws: N}``
``teacher.codec: …``           ``teacher.record: {codec: …}``
a run's ``matching: {…}``      ``matching: {…, beta: 0.0}``
=============================  ====================================================

:func:`upgrade` renames them in a recipe, :func:`translate` in the path of an override or budget.
Each is noted for the person who wrote it. The next release needs neither, except for the recipes
of finished runs.

The last line is for the recipe that a run has written out, with all defaults. Runs from before
there was ``beta`` trained without it, in the teacher too; for others an absent ``beta`` is today's
default. The sign of an old one is that its teacher has no ``matching``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from extracurricular.errors import RecipeError
from extracurricular.recipe.chains import sections, specs

# Words of their own under ``teacher``; every other teacher that is no network is an estimator.
_OWN = {"onnx": "path", "function": "function", "answers": "path"}
_FITTED = ("estimator", *_OWN)
# What a recipe that a run has written out holds, and hardly any that a person wrote.
_ALWAYS = {"about", "seeds", "generators", "students", "evaluation", "device", "log"}
_ALWAYS_TEACHER = {"members", "sampler", "training", "weights", "mc_dropout", "per_seed"}


@dataclass
class Notes:
    """The old words that were met.

    Args:
        places: Dotted paths of old words, by the new word of each. (A dict keeps their order and
            holds each once.)
    """

    places: dict[str, dict[str, None]] = field(default_factory=dict)

    def add(self, place: str, now: str) -> None:
        """Note an old word."""
        self.places.setdefault(now, {})[place] = None

    def sentences(self) -> list[str]:
        """Return one sentence for each kind of old word."""
        found = []
        for now, places in self.places.items():
            first, more = next(iter(places)), len(places) - 1
            who = f"{first} and {more} more are" if more else f"{first} is"
            found.append(
                f"recipe: {who} called {now} now; the next release reads only the new word"
            )
        return found


def upgrade(values: dict[str, Any], notes: Notes) -> None:
    """Rename the old words of a recipe, in place.

    Args:
        values: The recipe as plain values, valid or not; nothing else in it is changed, except
            that ``onnx`` and ``function`` of the teacher are written as mappings.
        notes: Takes a note for each.

    Raises:
        RecipeError: An old word and its new one stand in one place.
    """
    for place, section in sections(values):
        _rename(section.get("matching"), "hard", "label_weight", f"{place}.matching", notes)
        _upgrade_chain(section.get("sampler"), f"{place}.sampler", notes)
    chains = values.get("chains")
    if isinstance(chains, dict):
        for name, chain in chains.items():
            _upgrade_chain(chain, f"chains.{name}", notes)
    teacher = values.get("teacher")
    if isinstance(teacher, dict):
        _upgrade_outside(teacher, notes)
        _upgrade_record(teacher, notes)
        for word in _OWN:
            if word in teacher:
                teacher[word] = spelt_out(word, teacher[word])
        _upgrade_losses(values, teacher)


def spelt_out(word: str, value: Any) -> Any:
    """Return ``onnx: FILE``, ``answers: FILE`` and ``function: MODULE:NAME`` as mappings."""
    return {_OWN[word]: value} if isinstance(value, str) else value


def translate(values: dict[str, Any], parts: Sequence[str], value: Any, notes: Notes) -> list[str]:
    """Return the path of a change in new words, so that the last of several changes wins.

    Args:
        values: The recipe, upgraded. A change of ``teacher.outside`` as a whole removes the teacher
            that it replaces.
        parts: The path.
        value: The value that the change puts there.
        notes: Takes a note of an old word.
    """
    match parts:
        case ["teacher", *rest]:
            teacher = values.get("teacher")
            section = teacher if isinstance(teacher, dict) else {}
            new = ["teacher", *_translate_teacher(section, rest, value)]
        case ["defaults", *rest]:
            new = ["defaults", *_translate_section(rest)]
        case ["students", name, *rest]:
            new = ["students", name, *_translate_section(rest)]
        case ["chains", name, *rest]:
            new = ["chains", name, *_translate_chain(rest)]
        case _:
            new = list(parts)
    if new != list(parts):
        word = new[-1] if new[-1] in ("label_weight", "plain_share") else ".".join(new)
        notes.add(".".join(parts), word)
    return new


def _translate_teacher(teacher: dict[str, Any], parts: list[str], value: Any) -> list[str]:
    match parts:
        case ["outside"]:
            for word in _FITTED:
                teacher.pop(word, None)
        case ["outside", name, *rest]:
            return [name, *rest] if name in _OWN else ["estimator", name, *rest]
        case ["codec"] if value is None and teacher.get("record") is None:
            return ["record"]  # no codec of no record
        case ["codec", *rest]:
            return ["record", "codec", *rest]
        case ["record"] if _is_count(value):
            return ["record", "draws"]
    return _translate_section(parts)


def _translate_section(parts: list[str]) -> list[str]:
    match parts:
        case ["matching", "hard"]:
            return ["matching", "label_weight"]
        case ["sampler", *chain]:
            return ["sampler", *_translate_chain(chain)]
    return parts


def _translate_chain(parts: list[str]) -> list[str]:
    place = parts[:1] if parts and parts[0].isdigit() else []
    match parts[len(place) :]:
        case ["uncertain", "plain", *rest]:
            return [*place, "uncertain", "plain_share", *rest]
        case ["blend", child, "sampler", *chain]:
            return [*place, "blend", child, "sampler", *_translate_chain(chain)]
    return parts


def _rename(section: Any, old: str, new: str, place: str, notes: Notes) -> None:
    """Rename a key of a mapping, in its place."""
    if not isinstance(section, dict) or old not in section:
        return
    if new in section:
        raise RecipeError(place, _both(old, new))
    renamed = {(new if key == old else key): value for key, value in section.items()}
    section.clear()
    section.update(renamed)
    notes.add(f"{place}.{old}", new)


def _both(old: str, new: str) -> str:
    return f"has both {old} and {new}, the old and the new word for one setting; keep {new}"


def _upgrade_chain(chain: Any, key: str, notes: Notes) -> None:
    for place, name, settings in specs(chain, key):
        if name == "uncertain":
            _rename(settings, "plain", "plain_share", f"{place}.uncertain", notes)


def _upgrade_outside(teacher: dict[str, Any], notes: Notes) -> None:
    if "outside" not in teacher:
        return
    given = teacher.pop("outside")
    name: Any = given
    settings: Any = {}
    if isinstance(given, dict) and len(given) == 1:
        [(name, settings)] = given.items()
    word = name if isinstance(name, str) and name in _OWN else "estimator"
    notes.add("teacher.outside", f"teacher.{word}")
    if given is None:
        return
    for other in _FITTED:
        if teacher.get(other) is not None:
            raise RecipeError("teacher", _both("outside", other))
    teacher[word] = (settings or {}) if word in _OWN else given


def _upgrade_record(teacher: dict[str, Any], notes: Notes) -> None:
    record = teacher.get("record")
    if _is_count(record):
        notes.add("teacher.record", "teacher.record.draws")
        record = {"draws": record}
    if "codec" in teacher:
        codec = teacher.pop("codec")
        notes.add("teacher.codec", "teacher.record.codec")
        if codec is not None and (record is None or isinstance(record, dict)):
            record = record or {}
            if record.get("codec") is not None:
                raise RecipeError("teacher", _both("codec", "record.codec"))
            record = {**record, "codec": codec}
    if record is not None or "record" in teacher:
        teacher["record"] = record


def _upgrade_losses(values: dict[str, Any], teacher: dict[str, Any]) -> None:
    """Set ``beta`` to 0 in the recipe of a run from before there was one."""
    written_out = values.keys() >= _ALWAYS and teacher.keys() >= _ALWAYS_TEACHER
    if not written_out or "matching" in teacher:
        return
    teacher["matching"] = {"beta": 0.0} if teacher.get("model") is not None else {}
    students = values["students"]
    for student in students.values() if isinstance(students, dict) else ():
        if isinstance(student, dict) and isinstance(student.get("matching"), dict):
            student["matching"].setdefault("beta", 0.0)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
