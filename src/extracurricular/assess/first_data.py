"""Find out what a person's file or folder is, and how it is best read for a first recipe.

Each setting that is found comes with the sentence that is the reason for it. Findings of the survey
that name a setting which mends them are followed where that is safe, and passed on elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from extracurricular.assess.first_images import (
    TABLES,
    Setting,
    folder_kind,
    image_settings,
    named_images,
)
from extracurricular.assess.first_shards import is_shard, names_shards
from extracurricular.assess.survey import survey
from extracurricular.data.base import Data
from extracurricular.data.images.packed import is_archive
from extracurricular.data.remote import is_url, local_path
from extracurricular.data.sets import DATA
from extracurricular.errors import DataError, RecipeError, XclError, known_names
from extracurricular.registry import split_spec

if TYPE_CHECKING:
    from extracurricular.data.formats.columns import Table

_TARGETS = ("target", "label", "class", "y", "outcome", "response")
_SPLITS = {"train", "training", "validation", "val", "valid", "test"}
_PERSONS = re.compile(
    r"^(group|subject|person|patient|participant|speaker|user|customer|client|household|family|"
    r"driver|player|student|employee|device|machine|site|hospital|farm|well|batch)"
    r"([ _-]?(id|no|nr|num|number|code|key|name))?$",
    re.IGNORECASE,
)
# A column of fewer groups, or with fewer rows for each, is a property and no group.
_FEWEST_GROUPS, _ROWS_OF_A_GROUP = 10, 2
# Settings that mend a finding without a loss. The others are passed on to the person.
_SAFE = (
    "drop", "categorical", "rename", "date_format", "duplicates", "validation", "fewest",
    "target_transform", "missing", "missing_values",
)  # fmt: skip
_KINDS = {
    "table": _SAFE,
    "images": ("duplicates", "validation", "fewest", "rename", "target_transform"),
    "imagefolder": ("duplicates", "validation"),
    "webdataset": ("duplicates", "validation"),
}
_ROUNDS = 4
# At most this part of the examples may be lost by a setting that nobody asked for.
_LOSS = 0.05


@dataclass(frozen=True)
class Found:
    """A data set that was found, read, and mended.

    Args:
        name: Name of the data set's kind (``table``).
        settings: Its settings in the order of a recipe.
        data: The data set.
        left: Findings that no setting mends, or none that is safe.
        notes: Sentences of the data set about how it was read.
    """

    name: str
    settings: tuple[Setting, ...]
    data: Data
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def mended(self) -> tuple[Setting, ...]:
        """The settings that mend a finding."""
        return tuple(s for s in self.settings if s.why and not s.given and s.name in _SAFE)


def find_first(what: str, given: Mapping[str, Any], target: str | None = None) -> Found:
    """Find out what a person's data are, and read them.

    Args:
        what: A file of a table or of arrays, a pattern with ``*``, a folder of images by class,
            shards of images, a URL of a table or of shards, or the name or spec of a data set.
        given: Settings of the data set that are known already.
        target: Name or position of the column to predict, for a table.

    Raises:
        XclError: They are none of these, or cannot be read; the sentence says what helps.
    """
    name, settings = recognised(what)
    settings |= {k: Setting(k, v, given=True) for k, v in given.items()}
    if target is not None:
        if name not in ("table", "images"):
            raise RecipeError("--target", f"is for tables, and {what!r} is read as {name}")
        column: str | int = int(target) if re.fullmatch(r"-?\d+", target) else target
        settings["target"] = Setting("target", column, given=True)
    DATA.settings({name: _values(settings)}, key="data")  # refuses unknown ones, and other types
    if name == "table":
        settings = _table_settings(settings, _table(settings))
    elif name == "images":
        settings = _table_settings(settings, _table(settings), _image_column(settings))
    if name in ("images", "imagefolder", "webdataset"):
        settings = image_settings(name, settings)
    data, settings = _read(name, settings)
    data, settings, left = _mended(name, settings, data)
    return Found(name, _ordered(_shown(name, settings, data)), data, tuple(left), data.notes)


# Recognition


def recognised(what: str) -> tuple[str, dict[str, Setting]]:
    """Return the kind of a data set, and the settings that its name has."""
    what = local_path(what)
    path = Path(what).expanduser()
    if names_shards(what):
        return "webdataset", {"path": Setting("path", what, given=True)}
    if is_url(what):
        return "table", {"path": Setting("path", what, given=True)}
    if path.is_file() or ("*" in what and not what.lstrip().startswith("{")):
        kind = _file_kind(path)
        named = named_images(path, what) if kind == "table" else None
        return ("images", named) if named else (kind, {"path": Setting("path", what, given=True)})
    head = what.partition(":")[0]
    if what.lstrip().startswith("{") or head in DATA:
        try:
            spec = yaml.safe_load(what) if what.lstrip().startswith("{") else what
        except yaml.YAMLError:
            raise RecipeError("", f"{what!r} is not valid YAML") from None
        name, own = split_spec(spec, "data set", "")
        short, colon, place = name.partition(":")
        if colon and short in DATA:
            name, own = short, {"path": place, **own}
        return name, {k: Setting(k, v, given=True) for k, v in own.items()}
    if path.is_dir():
        return folder_kind(path, what)
    raise DataError(
        f"there is no file, folder or data set {what!r} (looked in {str(Path.cwd())!r}); give a "
        "table (.csv, .tsv, .parquet, .xlsx, or several by a *), a folder of images by class, "
        "shards of images (.tar), an .npz file, or a data set by name; "
        f"{known_names(what, DATA.names())}"
    )


def _file_kind(path: Path) -> str:
    endings = [ending.lower() for ending in path.suffixes]
    if endings[-1:] in ([".yaml"], [".yml"]):
        raise DataError(f"{str(path)!r} is a recipe already; xcl run {path} runs it")
    if endings[-1:] == [".npz"]:
        return "arrays" if _has_arrays(path) else "table"
    if endings and endings[-1] in TABLES:
        return "table"
    if is_archive(path):
        return "webdataset" if is_shard(path) else "imagefolder"
    raise DataError(
        f"{str(path)!r} is neither a table ({', '.join(TABLES[:8])}) nor an .npz file of arrays"
    )


def _has_arrays(path: Path) -> bool:
    """Return whether an .npz file has the names of inputs and labels, and no columns."""
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            names = stored.files
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a damaged file
        raise DataError(f"the file {str(path)!r} cannot be read as .npz: {error}") from error
    return "y" in names and any(name == "x" or name.startswith("x_") for name in names)


# Tables


@dataclass(frozen=True)
class Column:
    """A column of a table, as far as its part in a recipe depends on it.

    Args:
        name: Its name.
        kind: ``number``, ``date`` or ``text``.
        rows: Number of rows.
        kinds: Number of different values.
        holes: Number of missing values.
        some: Some of its values as texts in lower case, all if they are few.
    """

    name: str
    kind: str
    rows: int
    kinds: int
    holes: int = 0
    some: tuple[str, ...] = field(default=())


def choose_target(columns: Sequence[Column]) -> tuple[str, str]:
    """Return the column that a person most likely wants to predict, and why.

    It has a usual name, or else is the last one that is neither of dates nor constant.
    """
    named = [c for word in _TARGETS for c in columns if c.name.lower() == word and c.kinds > 1]
    if named:
        return named[0].name, f"The column {named[0].name!r} is predicted, as it is called so."
    fit = [c for c in columns if c.kind != "date" and c.kinds > 1]
    fit = [c for c in fit if c.kind == "number" or c.kinds <= c.rows / 2] or fit or list(columns)
    which = "the last" if fit[-1] is columns[-1] else "the last that can be predicted"
    return fit[-1].name, f"The column {fit[-1].name!r} is predicted, as it is {which}."


def choose_split(columns: Sequence[Column]) -> tuple[str, str] | None:
    """Return the column that says the split of each row, if there is one, and why."""
    for column in columns:
        own = set(column.some)
        if 2 <= column.kinds <= 3 and own <= _SPLITS and "test" in own and not column.holes:
            return column.name, f"The column {column.name!r} says the split of each row."
    return None


def choose_group(columns: Sequence[Column]) -> tuple[str, str] | None:
    """Return the column whose rows of one value belong together, if there is one, and why."""
    for column in columns:
        if (
            _PERSONS.match(column.name)
            and not column.holes
            and column.kinds >= _FEWEST_GROUPS
            and column.rows >= _ROWS_OF_A_GROUP * column.kinds
        ):
            return column.name, (
                f"The rows of one {column.name!r} ({column.kinds:,} of them) stay in one split, so "
                "that the test is on others than training."
            )
    return None


def _table_settings(
    settings: dict[str, Setting], table: Table, image: str = ""
) -> dict[str, Setting]:
    """Add the target, the splits and a remedy for holes to the settings of a table.

    Args:
        settings: Those that are known.
        table: The table.
        image: The column of names of images, which are the only input then.
    """
    columns = [column for column in _columns(table) if column.name != image]
    if len(columns) < (1 if image else 2):
        raise DataError(
            f"{table.source} has one column; a separator that was not found may be set by "
            "separator=';'"
        )
    if "target" not in settings:
        name, why = choose_target(columns)
        settings["target"] = Setting("target", name, (why,))
    chosen = settings["target"].value
    targets = [
        table.named(which, "target") for which in (chosen if isinstance(chosen, list) else [chosen])
    ]
    inputs = [c for c in columns if c.name not in targets]
    if "split" not in settings and (found := choose_split(inputs)):
        settings["split"] = Setting("split", found[0], (found[1],))
    elif not {"group", "time", "split"} & set(settings) and (found := choose_group(inputs)):
        settings["group"] = Setting("group", found[0], (found[1],))
    taken = [s.value for k in ("split", "group", "time") if (s := settings.get(k)) is not None]
    holes = [c for c in inputs if c.holes and c.name not in taken and not image]
    if holes and "missing" not in settings:
        shown = ", ".join(f"{c.name!r} ({c.holes:,})" for c in holes[:6])
        more = f" and {len(holes) - 6} more" if len(holes) > 6 else ""
        settings["missing"] = Setting(
            "missing", "impute", (f"Values are missing of {shown}{more}.",)
        )
    return settings


def _table(settings: Mapping[str, Setting]) -> Table:
    from extracurricular.data.formats.columns import Reading
    from extracurricular.data.formats.delimited import TextForm
    from extracurricular.data.formats.remote_files import here
    from extracurricular.data.formats.tables import read_table

    values = {name: setting.value for name, setting in settings.items()}
    form = {k: values[k] for k in ("separator", "header", "encoding", "skip") if k in values}
    known = (
        "decimal", "thousands", "missing_values", "date_format", "categorical", "drop", "rename",
        "index", "sheet",
    )  # fmt: skip
    reading = Reading(TextForm(**form), **{k: values[k] for k in known if k in values})
    with here(str(values.get("path") or values["table"])) as place:
        return read_table(place, reading)


def _image_column(settings: Mapping[str, Setting]) -> str:
    return str(settings["image"].value) if "image" in settings else ""


def _columns(table: Table) -> Iterator[Column]:
    for name, column in table.columns.items():
        given = column.values.drop_nulls()
        some = [str(value).strip().lower() for value in given.unique().head(4).to_list()]
        yield Column(
            name, column.kind, len(table), given.n_unique(), column.values.null_count(),
            tuple(some),
        )  # fmt: skip


# Reading and mending


def _values(settings: Mapping[str, Setting]) -> dict[str, Any]:
    return {name: setting.value for name, setting in settings.items()}


def _read(name: str, settings: dict[str, Setting]) -> tuple[Data, dict[str, Setting]]:
    """Read a data set, without a guess that does not go with it."""
    try:
        return DATA.build({name: _values(settings)}, key="data"), settings
    except XclError as error:
        problem = error
    if name in ("images", "imagefolder", "webdataset") and "damaged" not in settings:
        why = (f"{problem}." if not str(problem).endswith(".") else str(problem),)
        tries = [settings | {"damaged": Setting("damaged", "skip", why)}]
    else:
        guessed = ("split", "group")
        tries = [
            {k: s for k, s in settings.items() if k != key}
            for key in guessed
            if key in settings and not settings[key].given
        ]
    for other in tries:
        try:
            return DATA.build({name: _values(other)}, key="data"), other
        except XclError:
            continue
    raise problem


def _mended(
    name: str, settings: dict[str, Setting], data: Data
) -> tuple[Data, dict[str, Setting], list[str]]:
    """Follow the findings of the survey until they name nothing more that can be followed."""
    refused: set[str] = set()
    left: list[str] = []
    for _ in range(_ROUNDS):
        found = survey(data).suspicious
        mends = {s: mend for s in found if s not in refused and (mend := remedy(s, name))}
        left = [sentence for sentence in found if sentence not in mends]
        if not mends:
            break
        # All at once, as each reading takes its time; one by one where that does not do.
        whole = _tried(name, settings, mends, data)
        if whole is not None:
            data, settings = whole
            continue
        for sentence, mend in mends.items():
            one = _tried(name, settings, {sentence: mend}, data)
            if one is None:
                refused.add(sentence)
                left.append(sentence)
            else:
                data, settings = one
    return data, settings, left


def _tried(
    name: str, settings: dict[str, Setting], mends: Mapping[str, Mapping[str, Any]], data: Data
) -> tuple[Data, dict[str, Setting]] | None:
    """Read a data set with further settings; None if they change nothing, or lose too much."""
    changed = settings
    for sentence, mend in mends.items():
        changed = _with(changed, mend, sentence)
    if changed == settings:
        return None
    try:
        after = DATA.build({name: _values(changed)}, key="data")
    except XclError:
        return None
    # Some test rows that repeat training rows are no loss. Where most do, the inputs have so few
    # values that equal rows say nothing.
    lost = len(after.train) < (1 - _LOSS) * len(data.train) or 2 * len(after.test) < len(data.test)
    return None if lost else (after, changed)


def remedy(sentence: str, name: str = "table") -> dict[str, Any]:
    """Return the settings that mend a finding, if they can be set without asking; else nothing.

    Args:
        sentence: A sentence of the survey, which has settings in backticks as a recipe writes them.
        name: The kind of data set.
    """
    found: dict[str, Any] = {}
    for text in re.findall(r"`([^`]+)`", sentence):
        try:
            value = yaml.safe_load(f"{{{text}}}")
        except yaml.YAMLError:
            continue
        found |= {k: v for k, v in value.items() if v is not None}
    if not found and name == "arrays" and "are in train too" in sentence:
        return {"duplicates": "drop"}
    if not set(found) <= set(_KINDS.get(name, ())):
        return {}
    # A number that is far away may be one; only 999 and its like are taken for none.
    if "missing_values" in found and "far from all others" not in sentence:
        return {}
    return found


def _with(settings: dict[str, Setting], mend: Mapping[str, Any], why: str) -> dict[str, Setting]:
    """Return settings with those of a remedy merged into them; those that are given stay."""
    found = dict(settings)
    for key, value in mend.items():
        known = found.get(key)
        if known is None:
            found[key] = Setting(key, value, (why,))
        elif not known.given:
            both = _joined(known.value, value)
            if both != known.value:
                found[key] = replace(known, value=both, why=(*known.why, why))
    return found


def _joined(known: Any, more: Any) -> Any:
    """Return two lists or mappings as one, and a first value of another kind as it is."""
    if isinstance(known, list) and isinstance(more, list):
        return [*known, *(one for one in more if one not in known)]
    if isinstance(known, dict) and isinstance(more, dict):
        return {**more, **known}
    return known


def _count(data: Data) -> int:
    return len(data.train) + len(data.validation) + len(data.test)


# What a recipe shows


def _shown(name: str, settings: dict[str, Setting], data: Data) -> dict[str, Setting]:
    """Add the settings that a person is likely to change, with the values that they have."""
    found = dict(settings)
    if name in ("table", "arrays", "images") and "task" not in found:
        why = [note for note in data.notes if "read as" in note and "`task" in note]
        found["task"] = Setting("task", data.task.kind, tuple(why[:1]))
    usual = ("table", "arrays", "imagefolder", "images", "webdataset")
    own = "split" in found or name not in usual
    total = _count(data)
    if not own and "test" not in found and abs(len(data.test) / total - 0.2) < 0.1:
        found["test"] = Setting("test", 0.2)
        if "validation" not in found:
            found["validation"] = Setting("validation", 0.1)
    return found


def _ordered(settings: Mapping[str, Setting]) -> tuple[Setting, ...]:
    first = (
        "path", "table", "image", "root", "target", "task", "size", "channels", "split", "group",
        "time", "test", "validation",
    )  # fmt: skip
    rank = {key: k for k, key in enumerate(first)}
    shown = [setting for setting in settings.values() if setting.value is not None]
    return tuple(sorted(shown, key=lambda s: rank.get(s.name, len(rank))))
