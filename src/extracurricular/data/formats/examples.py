"""Read examples without labels from a folder of images, arrays, or a parquet file.

The examples get the form of the data's own examples: their structure, shapes and type. Nothing is
executed: arrays hold no pickles, and only image formats that are data are decoded.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from extracurricular.data.base import Split, check_finite
from extracurricular.data.formats import parquet
from extracurricular.data.formats.checksums import FILE
from extracurricular.data.images.decode import (
    ImageError,
    SizeError,
    View,
    endings,
    image_bytes,
    open_image,
    problem,
    some_endings,
    view_bytes,
)
from extracurricular.data.images.sizes import quoted
from extracurricular.data.progress import FEWEST_IMAGES, reading
from extracurricular.data.remote import SourceError
from extracurricular.errors import DataError
from extracurricular.inputs import Inputs, is_leaf, leaves

# Endings of images that not every Pillow reads, or none.
_OTHERS = (
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".eps", ".heic", ".heif", ".jp2", ".jxl", ".nef",
    ".orf", ".psd", ".raw", ".rw2", ".svg", ".webp",
)  # fmt: skip
# What macOS puts beside files.
_MACOS = "__MACOSX"

_KINDS = "a folder of images, or an .npy, .npz or .parquet file"
_BLOCK = 1024

Array: TypeAlias = np.ndarray[Any, Any]
# An image: its name for errors, and its file, its place (:mod:`.packed`) or the file's content.
Source: TypeAlias = tuple[str, Path | str | bytes]


def read_pool(path: Path, like: Inputs, resize: bool = False) -> Split:
    """Read examples without labels, raw.

    Args:
        path: A folder of images, read with its subfolders in the order of their paths, hidden
            files left out; an .npy file of one array [N, ...]; an .npz file with ``x``, or
            ``x_NAME`` for each of several inputs; or a .parquet file, whose first column of images
            is read for images, and whose columns of numbers, in their order, for tables.
        like: Raw examples of the data, [N, ...] or a tuple or dict of such. The examples read get
            their structure and shapes, and are uint8 where they are and float32 elsewhere.
        resize: Whether to bring images of bytes to the height and width of ``like``, as
            :func:`image_bytes` does; if not, an image of another size is an error.

    Returns:
        The examples, on the CPU.

    Raises:
        DataError: There is no such file, it is damaged, or its examples have another form.
    """
    if path.is_dir():
        return Split(_folder(path, _image_form(path, like), resize))
    if not path.is_file():
        raise DataError(f"path {str(path)!r} does not exist; it must name {_KINDS}")
    kind = path.suffix.lower()
    if kind in (".npy", ".npz"):
        return Split(_arrays(path, kind, like, resize))
    if kind == ".parquet":
        return Split(_parquet(path, like, resize))
    raise DataError(f"path is {str(path)!r}; it must name {_KINDS}")


def fingerprint(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, time of change (ns) and size (bytes) of each file that a pool is read from."""
    files = image_files(path) if path.is_dir() else [path] if path.is_file() else []
    found = [(file, file.stat()) for file in files if file.exists()]
    return tuple((str(file), stat.st_mtime_ns, stat.st_size) for file, stat in found)


def image_files(folder: Path) -> list[Path]:
    """Return the image files in a folder and its subfolders, without hidden ones, by path."""
    return [folder / name for name in image_names(folder)]


def image_names(folder: Path, passed: list[str] | None = None) -> list[str]:
    """Return the paths of :func:`image_files` within the folder, with ``/`` between their parts.

    Links are followed, but no folder is read twice, so links in a circle do no harm.

    Args:
        folder: The folder.
        passed: A list to add the paths to that are passed over (:func:`told_passed`).

    Raises:
        DataError: A folder cannot be read.
    """
    found: list[str] = []
    seen = {os.path.realpath(folder)}
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        current = folder / prefix
        try:
            # A scan knows the type of its entries, which saves a look at each of a million files.
            with os.scandir(current) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            why = f"the folder {str(current)!r} cannot be read: {error.strerror}"
            raise DataError(why) from error
        for entry in listed:
            if is_hidden(entry.name):
                if passed is not None and entry.name != FILE:
                    passed.append(prefix + entry.name)
                continue
            # An entry of a scan raises for a link to itself; a path says that it is no folder.
            folder_like = Path(entry.path) if entry.is_symlink() else entry
            if folder_like.is_dir():
                real = os.path.realpath(entry.path)
                if real not in seen:
                    seen.add(real)
                    waiting.append(f"{prefix}{entry.name}/")
            elif is_image_name(entry.name) and _is_image(entry):
                found.append(prefix + entry.name)
            elif passed is not None:
                passed.append(prefix + entry.name)
    return sorted(found)


def is_image_name(name: str) -> bool:
    """Return whether a file is called like an image that can be read."""
    return name.lower().endswith(endings())


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or is what macOS puts beside files."""
    return name.startswith(".") or name == _MACOS


def told_passed(passed: Sequence[str]) -> list[str]:
    """Return sentences about files and folders that were passed over as they are no images."""
    alien = tuple(set(_OTHERS) - set(endings()))
    hidden: list[str] = []
    strange: list[str] = []
    rest: list[str] = []
    for name in passed:
        kinds = hidden if any(map(is_hidden, name.split("/"))) else rest
        (strange if kinds is rest and name.lower().endswith(alien) else kinds).append(name)
    notes = []
    if hidden:
        notes.append(f"Hidden files or folders are passed over: {quoted(hidden)}.")
    if strange:
        verb = "image is" if len(strange) == 1 else "images are"
        notes.append(
            f"{len(strange):,} {verb} passed over, as Pillow cannot read so here: "
            f"{quoted(strange)}; convert them to JPEG or PNG."
        )
    if rest:
        verb = "other file is" if len(rest) == 1 else "other files are"
        notes.append(f"{len(rest):,} {verb} passed over: {quoted(rest)}.")
    return notes


def _is_image(entry: os.DirEntry[str]) -> bool:
    # A link to nowhere is kept, so that it is reported and not passed over.
    if entry.is_symlink():
        target = Path(entry.path)
        return target.is_file() or not target.exists()
    return entry.is_file()


# Many images


def _folder(folder: Path, shape: tuple[int, ...], resize: bool) -> Tensor:
    files = image_files(folder)
    if not files:
        raise DataError(f"the folder {str(folder)!r} has no images ({some_endings()})")
    sources: list[Source] = [(file.relative_to(folder).as_posix(), file) for file in files]
    blocks = (sources[k : k + _BLOCK] for k in range(0, len(sources), _BLOCK))
    return decode_images(blocks, len(files), shape, resize)


def _image_form(path: Path, like: Inputs) -> tuple[int, ...]:
    """Return the (C, H, W) of the data's images, or refuse data whose input is no such image."""
    where = f"{str(path)!r} holds images"
    if not is_leaf(like):
        raise DataError(
            f"{where}, but the data has the inputs {', '.join(leaves(like))}; "
            "an .npz file can hold an array for each"
        )
    shape = tuple(like.shape[1:])
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"{where} of 1 or 3 channels, but the data's examples have shape {shape}")
    if like.dtype != torch.uint8:
        raise DataError(
            f"{where} of bytes, but the data's are reals; "
            "give the pool as an .npy file in the units of the data"
        )
    return shape


def decode_images(
    blocks: Iterable[Sequence[Source]],
    count: int,
    shape: tuple[int, ...],
    resize: bool | View,
    remedy: str = "; `resize: true` brings all to that size",
    damaged: list[int] | None = None,
) -> Tensor:
    """Decode images by several threads, which Pillow lets run side by side.

    Args:
        blocks: The images, in blocks of some hundreds.
        count: Number of images.
        shape: Their (C, H, W).
        resize: Whether to resize, as in :func:`image_bytes`; or the view to take of each image.
        remedy: End of the sentence about an image of another size.
        damaged: A list to add the numbers of images to that cannot be read; their rows are zeros.
            If None, the first such image is an error.

    Returns:
        uint8, [N, C, H, W].

    Raises:
        DataError: An image is damaged, far too large, or of another size; the sentence names it.
    """
    out = np.empty((count, *shape), np.uint8)
    done, first = 0, ""
    with (
        ThreadPoolExecutor() as threads,
        warnings.catch_warnings(),
        reading("reading images", count, "images", count >= FEWEST_IMAGES) as tell,
    ):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for block in blocks:
            first = first or block[0][0]
            rows = out[done : done + len(block)]
            try:
                # Results come in order, so that the image reported does not depend on threads.
                skip = damaged is not None
                good = list(threads.map(_decode, block, rows, repeat(resize), repeat(skip)))
            except SizeError as error:
                raise DataError(f"{_size_problem(error, block, first, shape)}{remedy}") from None
            if damaged is not None:
                damaged += [done + k for k, whole in enumerate(good) if not whole]
            done += len(block)
            tell(done)
    return torch.from_numpy(out)


def _decode(source: Source, row: Array, resize: bool | View, skip: bool) -> bool:
    """Decode an image into a row; return False if it cannot be read and may be skipped."""
    try:
        _decode_one(source, row, resize)
    except SourceError:
        raise
    except DataError:
        if not skip:
            raise
        row[...] = 0
        return False
    return True


def _decode_one(source: Source, row: Array, resize: bool | View) -> None:
    name, file = source
    try:
        with open_image(file) as image:
            if isinstance(resize, View):
                view_bytes(image, resize, out=row)
            else:
                row[...] = image_bytes(image, row.shape, resize)
    except SizeError as error:
        error.name = name
        raise
    except SourceError:
        raise
    except Exception as error:  # decoders raise all kinds for a damaged file
        raise ImageError(name, problem(error)) from error


def _size_problem(
    error: SizeError, block: Sequence[Source], first: str, shape: tuple[int, ...]
) -> str:
    """Return a sentence about an image of another size, and one of a third size if there is one."""
    wanted = f"{shape[2]} × {shape[1]}"
    if error.name != first:
        return (
            f"the image {error.name!r} {error}, but {first!r} is {wanted}, "
            "as the data's images are (width × height)"
        )
    problem = f"the image {error.name!r} {error}, the data's are {wanted} (width × height)"
    for name, file in block:
        try:
            with open_image(file) as image:
                size = ImageOps.exif_transpose(image).size
        except Exception:  # a damaged image is reported once the sizes are right
            continue
        if size != error.size:
            return f"{problem}, and {name!r} is {size[0]} × {size[1]}"
    return problem


# Arrays


def _arrays(path: Path, kind: str, like: Inputs, resize: bool) -> Inputs:
    try:
        # The file is opened here, as numpy leaks its own handle if the archive is damaged.
        with path.open("rb") as handle:
            stored = np.load(handle, allow_pickle=False)
            archive = isinstance(stored, np.lib.npyio.NpzFile)
            found = {k: stored[k] for k in stored.files if _is_x(k)} if archive else {"x": stored}
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a damaged file
        raise DataError(f"the file {str(path)!r} cannot be read as {kind}: {error}") from error
    names = {k: f"x_{k}" if k else "x" for k in leaves(like)}
    missing = [name for name in names.values() if name not in found]
    if missing:
        raise DataError(
            f"the file {str(path)!r} holds {sorted(found)}; "
            f"for this data it needs {', '.join(names.values())}"
        )
    read = {
        k: _leaf(found[names[k]], leaf, f"the file {str(path)!r}: {names[k]}", resize)
        for k, leaf in leaves(like).items()
    }
    counts = {names[k]: len(leaf) for k, leaf in read.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"the file {str(path)!r} has different numbers of examples: {counts}")
    if is_leaf(like):
        return read[""]
    return tuple(read.values()) if isinstance(like, tuple) else dict(read)


def _is_x(name: str) -> bool:
    return name == "x" or name.startswith("x_")


def _leaf(values: Array, like: Tensor, which: str, resize: bool) -> Tensor:
    """Check an array against the data's tensor and return it as a tensor of the same type."""
    shape = tuple(like.shape[1:])
    if values.dtype.kind not in "fiub":
        raise DataError(f"{which} has values of type {values.dtype}; they must be numbers")
    if like.ndim == 4 and values.ndim == 3:
        values = values[:, None]
    if values.ndim == 0 or len(values) == 0:
        raise DataError(f"{which} holds no examples")
    if like.dtype == torch.uint8:
        values = _as_bytes(values, which, "images" if like.ndim == 4 else "inputs")
        if resize and _can_resize(values, shape):
            values = _resized(values, shape)
    found = values.shape[1:]
    if found != shape:
        raise DataError(_shape_problem(found, like, which))
    if like.dtype == torch.uint8:
        return torch.from_numpy(np.ascontiguousarray(values))
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    if native.dtype.kind != "f" or native.dtype.itemsize > 8:
        native = native.astype(np.float64)
    reals = torch.from_numpy(np.ascontiguousarray(native)).to(like.dtype)
    check_finite(reals, which)
    return reals


def _as_bytes(values: Array, which: str, noun: str) -> Array:
    remedy = f"the {noun} of the data are bytes 0 to 255, so the pool's must be too"
    if values.dtype.kind not in "iu":
        raise DataError(f"{which} has values of type {values.dtype}; {remedy}")
    low, high = values.min(initial=0), values.max(initial=0)
    if low < 0 or high > 255:
        raise DataError(f"{which} has the value {low if low < 0 else high}; {remedy}")
    return values.astype(np.uint8, copy=False)


def _can_resize(values: Array, shape: tuple[int, ...]) -> bool:
    image = len(shape) == 3 and values.ndim == 4 and values.shape[2:] != shape[1:]
    return image and values.shape[1] == shape[0] and shape[0] in (1, 3) and 0 not in values.shape


def _resized(values: Array, shape: tuple[int, ...]) -> Array:
    out = np.empty((len(values), *shape), np.uint8)
    for row, value in zip(out, values, strict=True):
        last = value[0] if len(value) == 1 else np.moveaxis(value, 0, -1)
        row[...] = image_bytes(Image.fromarray(np.ascontiguousarray(last)), shape, resize=True)
    return out


def _shape_problem(found: tuple[int, ...], like: Tensor, which: str) -> str:
    shape = tuple(like.shape[1:])
    problem = f"{which} has examples of shape {found}, the data's are {shape}"
    if like.ndim == 4 and len(found) == 3:
        if found[2] == shape[0] != found[0]:
            return (
                f"{which} has the order [N, H, W, C]; it must be [N, C, H, W], "
                "as x.transpose(0, 3, 1, 2) makes it"
            )
        if found[0] == shape[0] and like.dtype == torch.uint8 and shape[0] in (1, 3):
            return f"{problem}; `resize: true` brings all to that size"
    return problem


# Parquet


def _parquet(path: Path, like: Inputs, resize: bool) -> Tensor:
    table = is_leaf(like) and like.ndim == 2
    shape = () if table else _image_form(path, like)
    with parquet.opened(path) as file:
        if table:
            assert is_leaf(like)
            return _leaf(_columns(path, file, like), like, f"the file {str(path)!r}: x", resize)
        blocks = parquet.images(path, file, parquet.image_column(path, file), _BLOCK)
        return decode_images(blocks, file.metadata.num_rows, shape, resize)


def _columns(path: Path, file: Any, like: Tensor) -> Array:
    from pyarrow import types

    numbers = (types.is_integer, types.is_floating, types.is_boolean)
    names = [f.name for f in file.schema_arrow if any(is_kind(f.type) for is_kind in numbers)]
    if len(names) != like.shape[1]:
        raise DataError(
            f"the file {str(path)!r} has {len(names)} columns of numbers ({', '.join(names)}), "
            f"the data has {like.shape[1]}; the file must have these and no more, in their order"
        )
    table = file.read(columns=names)
    return np.stack([table[name].to_numpy() for name in names], axis=1)
