"""Images that the package datasets of Hugging Face loads, from the Hub or from local files.

Version 4 or later is needed, which runs no code that comes with a data set. Images are decoded
here, not there, so that the same formats and limits hold as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from extracurricular.data.base import Data, make_data
from extracurricular.data.formats.arrow_images import arrow_store
from extracurricular.data.formats.examples import Source, decode_images
from extracurricular.data.formats.pictures import Pictures
from extracurricular.data.images.decode import View, open_image
from extracurricular.data.images.sizes import check_memory, gigabytes, left_out, pair
from extracurricular.data.sets import DATA
from extracurricular.data.several import meaning_of, strata_of
from extracurricular.data.splits import name_splits, set_aside
from extracurricular.data.target_transform import transform_targets
from extracurricular.data.tasks import kind_of, read_labels
from extracurricular.data.transform import Setting
from extracurricular.distributions import Kind, Task
from extracurricular.errors import DataError, from_extra, shorten

_BLOCK = 1024
_READERS = {".parquet": "parquet", ".arrow": "arrow"}
_IMAGES = ("image", "img", "picture", "photo")
_LABELS = ("label", "labels", "fine_label", "class", "target", "y")


@DATA.register("hf")
def hf(
    path: str,
    config: str | None = None,
    image: str | None = None,
    label: str | None = None,
    size: int | list[int] | None = None,
    channels: Literal[1, 3] | None = None,
    test: int | float = 0.2,
    validation: int | float = 0.1,
    seed: int = 0,
    damaged: Literal["error", "skip"] = "error",
    memory: int | float = 4,
    stream: bool | Literal["auto"] = "auto",
    workers: int | None = None,
    task: Literal["classification", "regression", "multilabel"] | None = None,
    target_transform: Setting = None,
) -> Data:
    """Load labelled images by ``datasets.load_dataset``.

    Its splits are kept; if there is no ``test``, its validation split is the test split. Splits
    that are missing are set aside from the training examples.

    Args:
        path: A name on the Hub; a folder that the package can load or has saved; or a .parquet or
            .arrow file.
        config: Name of the configuration, if the data set has several.
        image, label: Columns; without them the first column of images, and the first of classes or
            else one with a usual name.
        size: Height and width, or [height, width], to bring all images to; without it all must
            have the size of the first.
        channels: 3 for colours, 1 for grey; without it those of the first image.
        test, validation: Examples to set aside, as parts or numbers; ``validation`` may be 0.
        seed: Seed of the choice.
        damaged: ``error``, or ``skip`` to leave out images that cannot be read.
        memory: Most memory that the images may take, in GB (10^9 bytes).
        stream: Whether images stay in the package's Arrow files and are decoded as they are needed,
            in worker processes; ``auto`` streams those that exceed ``memory``. ``size`` must be
            set.
        workers: Processes that decode streamed images; one for each CPU where None.
        task: Kind of the labels. Without it classes and texts are classes, and so are whole numbers
            of at most 20 kinds, or all of 0 to C - 1; others are real.
        target_transform: What students learn of a real target: its ``log`` or ``asinh``, or a
            mapping of these by target (:func:`~.target_transform.transform_targets`).

    Raises:
        DataError: The package is missing or cannot load it, or its examples cannot be used.
    """
    loaded = _load(path, config)
    where = f"data {path!r}"
    names, notes = name_splits(loaded)
    if "train" not in names:
        if len(loaded) > 1:
            raise DataError(f"{where} has the splits {', '.join(loaded)}; one must be called train")
        names, notes = {"train": next(iter(loaded))}, []
    splits = {part: loaded[name] for part, name in names.items()}
    features = splits["train"].features
    image_name = image or _guess(where, features, "image", _IMAGES)
    label_name = label or _guess(where, features, "label", _LABELS)
    for part, split in splits.items():
        for name in (image_name, label_name):
            if name not in split.features:
                raise DataError(
                    f"{where}, split {part!r} has no column {name!r}; "
                    f"it has {', '.join(split.features)}"
                )
    y, classes, why = _labels(where, splits, label_name, task)
    made = None
    if y.ndim == 2 and y.shape[1] > 1:
        # All examples decide, not those of a split.
        made = Task(task or kind_of(label_name, y)[0] or "regression", y.shape[1])
    notes = [*notes, *([why] if why else [])]
    count = len(y)
    shape = _shape(where, splits["train"], image_name, size, channels)
    pictures = None
    if stream is True or (stream == "auto" and gigabytes(count, shape) > memory):
        pictures = _left_there(where, splits, image_name, size, shape, damaged == "skip", workers)
    which = np.repeat(list(splits), [len(split) for split in splits.values()])
    parts = {"test": test, "validation": validation}
    images: dict[str, Any]
    if pictures is not None:
        rows = {name: np.flatnonzero(which == name) for name in splits}
        rows = set_aside(where, rows, _strata(y), parts, seed)
        images, rows, told = pictures.streamed(rows)
        notes = [*notes, *told]
    else:
        check_memory(where, count, shape, memory)
        lost: list[int] | None = [] if damaged == "skip" else None
        remedy = "; `size` brings all to one size"
        blocks = _blocks(where, splits, image_name)
        x = decode_images(blocks, count, shape, size is not None, remedy, lost).numpy()
        whole = np.ones(count, dtype=bool)
        whole[lost or []] = False
        if lost:
            notes = [*notes, left_out([f"row {k}" for k in lost], count)]
        rows = {name: np.flatnonzero((which == name) & whole) for name in splits}
        rows = set_aside(where, rows, _strata(y), parts, seed)
        images = {name: x[places] for name, places in rows.items()}
    pairs = {name: (images[name], y[places]) for name, places in rows.items()}
    read_from = f"Images are read from the column {image_name!r}, labels from {label_name!r}."
    data = make_data(
        path.rstrip("/").rpartition("/")[2],
        train=pairs["train"],
        validation=pairs["validation"],
        test=pairs["test"],
        task=made or (Task("classification", len(classes)) if classes else None),
        classes=classes,
        outputs=() if classes or (y.ndim == 2 and y.shape[1] > 1) else (label_name,),
        notes=[*notes, *([] if image and label else [read_from])],
    )
    return transform_targets(data, target_transform)


def _left_there(
    where: str,
    splits: dict[str, Any],
    name: str,
    size: int | list[int] | None,
    shape: tuple[int, int, int],
    skip: bool,
    workers: int | None,
) -> Pictures:
    """Return the images of all splits, which stay in their Arrow files.

    Raises:
        DataError: They are in none, or their size is not set.
    """
    if size is None:
        raise DataError(
            f"{where}: the images are streamed, since `stream` is true or they exceed `memory`, so "
            f"`size` must be set; the first image has [{shape[1]}, {shape[2]}]"
        )
    found = arrow_store(splits, name)
    if found is None:
        raise DataError(
            f"{where}: the images of the column {name!r} cannot be streamed, as they do not lie in "
            "uncompressed Arrow files; save the data set by save_to_disk, or set `stream: false` "
            "and `memory` to as much as this machine can spare"
        )
    store, names = found
    # The whole size is decoded, as in memory.
    view = View(shape, draft=False)
    title = where.removeprefix("data ").strip("'")
    return Pictures("hf", where, title, store, names, view, skip, 0, False, True, workers)


def _strata(y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return labels by which splits are made fair."""
    meaning = meaning_of(y)
    return y if meaning == "numbers" else strata_of(y, meaning == "labels")


def _load(path: str, config: str | None) -> dict[str, Any]:
    """Load all splits of a data set."""
    try:
        import datasets
    except ImportError:
        raise DataError(f"loading {path!r} needs datasets, {from_extra('datasets')}") from None
    if int(datasets.__version__.partition(".")[0]) < 4:
        raise DataError(
            f"datasets is of version {datasets.__version__}, which runs code that comes with data; "
            "version 4 or later is needed"
        )
    local = Path(path)
    if path.startswith((".", "/", "~")) and not local.exists():
        raise DataError(
            f"path {path!r} does not exist; it must name a folder, a file, or a data set of the Hub"
        )
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        if local.is_file():
            if local.suffix.lower() not in _READERS:
                known = " or ".join(_READERS)
                raise DataError(f"path is {path!r}; a file must be {known}")
            found = datasets.load_dataset(_READERS[local.suffix.lower()], data_files=str(local))
        elif (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            found = datasets.load_from_disk(str(local))
        else:
            found = datasets.load_dataset(path, config)
    except DataError:
        raise
    except Exception as error:  # the network, the Hub and every format have errors of their own
        reason = " ".join(str(error).split())
        raise DataError(f"datasets cannot load {path!r}: {reason}") from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    if not isinstance(found, dict):
        found = {"train": found}
    empty = [name for name, split in found.items() if not len(split)]
    if empty or not found:
        raise DataError(f"data {path!r}: the split {empty[0] if empty else 'train'!r} is empty")
    return dict(found)


def _guess(where: str, features: Any, what: str, words: tuple[str, ...]) -> str:
    """Find the column of images or labels: by its kind, or else by its name."""
    kind = {"image": "Image", "label": "ClassLabel"}[what]
    by_kind = [name for name, feature in features.items() if type(feature).__name__ == kind]
    by_name = [word for word in words if word in features]
    if not by_kind and not by_name:
        raise DataError(
            f"{where} has the columns {', '.join(features)}; "
            f"set `{what}` to the one that has the {what}s"
        )
    return str((by_kind or by_name)[0])


def _labels(
    where: str, splits: dict[str, Any], name: str, task: Kind | None
) -> tuple[np.ndarray[Any, Any], list[str], str]:
    """Return the labels of all splits in turn, and a sentence on the kind of the task.

    They are class indices with names, or reals without.
    """
    values = [np.asarray(split[name][:]) for split in splits.values()]
    feature = splits["train"].features[name]
    y = np.concatenate(values)
    part = np.repeat(list(splits), [len(v) for v in values])
    row = np.concatenate([np.arange(len(v)) for v in values])

    def refuse(bad: Any, says: str) -> None:
        if len(bad):
            k = int(bad[0])
            value = shorten(y[k].item() if hasattr(y[k], "item") else y[k])
            raise DataError(
                f"{where}, split {str(part[k])!r}, row {row[k]}: {name} is {value}; {says}"
            )

    known = getattr(feature, "names", None)
    if y.dtype.kind in "fiub" and y.ndim == 2 and task != "regression":
        found = read_labels(y, where.removeprefix("data ").strip("'"), task)
        if found.meaning is not None:
            return found.y, [], " ".join(found.notes)
    if task == "multilabel":
        raise DataError(
            f"{where}: task is 'multilabel', but the column {name!r} has one value in each example;"
            " it must have lists of 0 and 1"
        )
    if y.dtype == object:
        refuse([k for k, v in enumerate(y) if v is None], "each example must have one")
        refuse([k for k, v in enumerate(y) if not isinstance(v, str)], "it must be a text")
        y = y.astype(str)
    if y.dtype.kind == "U":
        if task == "regression":
            refuse([0], "a real target must be a number")
        classes = np.unique(y).tolist()
        return np.searchsorted(classes, y), classes, ""
    if y.dtype.kind == "f" and y.ndim <= 2:
        refuse(np.flatnonzero(~np.isfinite(y.reshape(len(y), -1)).all(1)), "it must be a number")
        if task == "classification":
            odd = y.reshape(len(y), -1)
            refuse(np.flatnonzero((odd != odd.round()).any(1)), "classes are whole numbers")
            y = y.astype(np.int64)
        else:
            return y, [], ""
    if y.dtype.kind not in "iub" or y.ndim != 1:
        raise DataError(
            f"{where}: the column {name!r} has {y.dtype} of shape {y.shape[1:]}; "
            "labels must be whole numbers, texts or reals"
        )
    y, why = y.astype(np.int64), ""
    if task is None and not known:
        kind, why = kind_of(name, y, indices=True)
        if kind is None:
            # Ages of 1 to 89 are numbers; classes count from 0.
            kind, why = kind_of(name, y)
        task = kind
    if task == "regression":
        return y.astype(np.float32), [], why
    if known:
        refuse(np.flatnonzero((y < 0) | (y >= len(known))), f"it must be 0 to {len(known) - 1}")
        return y, list(known), why
    count = int(y.max()) + 1
    refuse(np.flatnonzero(y < 0), f"it must be 0 to {count - 1}")
    kinds = np.unique(y)
    if count >= 2 * len(kinds):
        # Each number is the name of a class.
        return np.searchsorted(kinds, y), [str(kind) for kind in kinds], why
    return y, [str(k) for k in range(count)], why


def _blocks(where: str, splits: dict[str, Any], name: str) -> Iterator[list[Source]]:
    import datasets

    for part, split in splits.items():
        raw = split
        if type(split.features[name]).__name__ == "Image":
            raw = split.cast_column(name, datasets.Image(decode=False))
        for start in range(0, len(raw), _BLOCK):
            values = raw[start : start + _BLOCK][name]
            yield [
                _source(where, f"{part}, row {start + k}", value) for k, value in enumerate(values)
            ]


def _source(where: str, name: str, value: Any) -> Source:
    if isinstance(value, dict) and value.get("bytes") is not None:
        return name, bytes(value["bytes"])
    if isinstance(value, dict) and value.get("path"):
        return name, Path(value["path"])
    if isinstance(value, bytes):
        return name, value
    raise DataError(f"{where}, {name}: {shorten(value)} is no image")


def _shape(
    where: str, split: Any, name: str, size: int | list[int] | None, channels: int | None
) -> tuple[int, int, int]:
    """Return (C, H, W); the first image decides what the settings leave open."""
    if size is not None and channels is not None:
        return channels, *pair(size)
    [[(which, source), *_], *_] = _blocks(where, {"train": split.select([0])}, name)
    try:
        with open_image(source) as image:
            width, height = ImageOps.exif_transpose(image).size
            grey = image.mode in ("1", "L", "I", "I;16")
    except (Exception, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where}, {which} cannot be read as an image: {error}") from error
    return channels or (1 if grey else 3), *(pair(size) if size is not None else (height, width))
