"""Find out how a person's images lie: in folders of classes, or named by a table beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extracurricular.assess.first_shards import is_shard, shard_places
from extracurricular.data.images.decode import open_image
from extracurricular.errors import DataError, XclError

TABLES = (
    ".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".parquet", ".xlsx", ".xls", ".xlsb", ".ods",
    ".gz", ".zst", ".zstd",
)  # fmt: skip
_HEADERS = 64


@dataclass(frozen=True)
class Setting:
    """A setting of a data set, and the reason for it.

    Args:
        name, value: The setting.
        why: Sentences.
        given: Whether the person gave it.
    """

    name: str
    value: Any
    why: tuple[str, ...] = ()
    given: bool = False


def folder_kind(path: Path, what: str) -> tuple[str, dict[str, Setting]]:
    """Return the kind of data set that a folder is, and the settings that name it.

    Args:
        path: The folder.
        what: How the person named it.

    Raises:
        DataError: It is a run, or has neither images nor tables of one kind.
    """
    from extracurricular.data.formats.examples import is_hidden, is_image_name

    entries = sorted(entry for entry in path.iterdir() if not is_hidden(entry.name))
    if any(entry.name in ("recipe.yaml", "predictor.json") for entry in entries):
        raise DataError(f"{what!r} holds a run or a saved student, and no data; see --teacher")
    inner = [entry for entry in entries if entry.is_dir()]
    images = sum(is_image_name(entry.name) for entry in entries)
    files = [e for e in entries if e.is_file() and "".join(e.suffixes[-1:]).lower() in TABLES]
    if inner or images:
        named = {file: named_images(file, str(Path(what) / file.name)) for file in files}
        found = [own for own in named.values() if own is not None]
        if len(found) == 1:
            return "images", found[0]
        if len(found) > 1:
            both = ", ".join(repr(str(file)) for file, own in named.items() if own is not None)
            raise DataError(f"the folder {what!r} has several tables that name images, {both}; "
                            "give one of them")  # fmt: skip
    if inner:
        return "imagefolder", {"path": Setting("path", what, given=True)}
    tars = [entry for entry in entries if entry.suffix.lower() == ".tar"]
    if tars and not images and is_shard(tars[0]):
        return "webdataset", {"path": Setting("path", what, given=True)}
    if images:
        raise DataError(
            f"the folder {what!r} has {images:,} images and no folders; put the images of each "
            "class into a folder of its own, or a table of their names and targets beside them"
        )
    endings = {"".join(entry.suffixes[-2:]).lower() for entry in entries}
    tables = {end for end in endings if end and f".{end.rpartition('.')[2]}" in TABLES}
    if len(tables) != 1:
        has = f"tables of {len(tables)} kinds" if tables else "neither class folders nor tables"
        raise DataError(f"the folder {what!r} has {has}; give a file, or a pattern with *")
    pattern = str(Path(what) / f"*{tables.pop()}")
    return "table", {"path": Setting("path", pattern, given=True)}


def named_images(path: Path, what: str) -> dict[str, Setting] | None:
    """Return the settings of a table that names images; None for other tables.

    Args:
        path: The table.
        what: How the person named it.
    """
    from extracurricular.data.formats.columns import Reading
    from extracurricular.data.formats.image_tables import file_names, image_column
    from extracurricular.data.formats.tables import read_raw
    from extracurricular.data.formats.trees import find_store

    try:
        raw = read_raw(path, Reading())
    except XclError:
        return None  # whoever reads it says why
    column = image_column(raw.frame)
    if column is None or raw.frame.width < 2:
        return None
    names = [name for name in file_names(raw.frame[column][:64], ()) if name]
    why = (f"The column {column!r} has names of images.",)
    found = {
        "table": Setting("table", what, given=True),
        "image": Setting("image", column, why),
    }
    for root in _roots(path):
        try:
            store, top = find_store(root, names)
        except DataError:
            continue
        if any(top + name in store for name in names):
            if root != path.parent:
                place = str(Path(what).parent / root.relative_to(path.parent))
                told = f"The images lie in {root.name!r}."
                found["root"] = Setting("root", place, (told,))
            return found
    return None


def _roots(table: Path) -> list[Path]:
    """Return where the images of a table may lie: beside it, or in a folder or archive there."""
    from extracurricular.data.formats.examples import is_hidden
    from extracurricular.data.images.packed import ARCHIVES

    try:
        inner = sorted(one for one in table.parent.iterdir() if not is_hidden(one.name))
    except OSError:
        return []
    return [table.parent, *(one for one in inner if one.is_dir() or one.suffix in ARCHIVES)]


def image_settings(name: str, settings: dict[str, Setting]) -> dict[str, Setting]:
    """Add the size and the colours of images to settings, from the headers of some."""
    sides, grey = [], True
    for place in _places(name, settings):
        try:
            with open_image(place) as image:
                sides.append(min(image.size))
                grey = grey and image.mode in ("1", "L", "LA", "I;16")
        except Exception:  # Pillow raises what it likes; the reading below names the file
            continue
    if not sides:
        return settings  # the reading below says why
    side = int(np.median(sides))
    if "size" not in settings:
        size = next((s for s in (16, 32) if side <= 1.5 * s), 64)
        why = (
            f"The shorter side of an image has {side:,} pixels (median of {len(sides)}); the "
            "largest part in the middle is scaled to this height and width. A larger size shows "
            "more, and costs its square."
        )
        settings["size"] = Setting("size", size, (why,))
    if grey and "channels" not in settings:
        settings["channels"] = Setting("channels", 1, ("All images looked at are grey.",))
    return settings


def _places(name: str, settings: Mapping[str, Setting]) -> list[str]:
    """Return where some of the images lie."""
    from extracurricular.data.formats.columns import Reading
    from extracurricular.data.formats.image_tables import file_names, read_columns
    from extracurricular.data.formats.trees import Tree, find_store

    given: dict[str, Any] = {key: setting.value for key, setting in settings.items()}
    try:
        if name == "webdataset":
            return shard_places(given)
        if name == "imagefolder":
            tree = Tree(Path(given["path"]).expanduser())
            store, top, names = tree.store, tree.top, tree.images()
        else:
            file = Path(given["table"]).expanduser()
            _, known = read_columns(
                file, Reading(), given.get("image"), given.get("target", -1), {}
            )
            named = file_names(known.names, (), given.get("ending", ""))
            names = [one for one in named if one]
            root = Path(given["root"]).expanduser() if "root" in given else file.parent
            store, top = find_store(root, names)
    except (XclError, KeyError):
        return []
    return [store.place(top + one) for one in names[:: max(1, len(names) // _HEADERS)]]
