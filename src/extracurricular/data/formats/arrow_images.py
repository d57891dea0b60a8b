"""Images in a column of the Arrow files that the package datasets keeps, left where they are.

Such a file is not compressed, so the bytes of an image stand in it one after the other. Their place
is that of the column's memory in the mapped file, and any process reads them by file, place and
size, as it reads a member of a tar.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from extracurricular.data.formats.checksums import checksums
from extracurricular.data.images.packed import Extents, Store

Array: TypeAlias = np.ndarray[Any, Any]


def arrow_store(splits: Mapping[str, Any], column: str) -> tuple[Store, list[str]] | None:
    """Return where the images of all splits lie, with a name for each; None if not in files.

    The checksums of the images are made once, and kept beside the files.

    Args:
        splits: Data sets of the package datasets.
        column: Name of their column of images.
    """
    files: dict[str, int] = {}
    which, offsets, sizes = list[Array](), list[Array](), list[Array]()
    names: list[str] = []
    for part, split in splits.items():
        rows = 0
        if getattr(split, "_indices", None) is not None:
            return None
        for one in split.cache_files:
            found = _places(one["filename"], column)
            if found is None:
                return None
            for starts, counts, paths in found:
                own = np.full(len(starts), files.setdefault(one["filename"], len(files)))
                for row, path in paths.items():
                    own[row] = files.setdefault(path, len(files))
                which.append(own)
                offsets.append(starts)
                sizes.append(counts)
                rows += len(starts)
        if rows != len(split):
            return None
        names += [f"{part}, row {row}" for row in range(rows)]
    own, starts, counts = (np.concatenate(one).tolist() for one in (which, offsets, sizes))
    root = Path(os.path.commonpath([str(Path(file).parent) for file in files]))
    there = Store(root, Extents(list(files), names, own, starts, counts))
    known = checksums(there, names)
    return Store(root, Extents(list(files), names, own, starts, counts, None, known)), names


def _places(file: str, column: str) -> list[tuple[Array, Array, dict[int, str]]] | None:
    """Return place and size of the images in each batch of a file, and paths of those outside.

    An image outside has the place -1. None if the file is not such that its bytes can be found.
    """
    import pyarrow

    found = []
    try:
        with pyarrow.memory_map(file) as mapped:
            whole = mapped.read_buffer()
            for batch in _batches(whole):
                one = _in_batch(batch.column(column), whole)
                if one is None:
                    return None
                found.append(one)
    except (pyarrow.ArrowException, OSError, KeyError):
        return None
    return found


def _batches(whole: Any) -> Iterator[Any]:
    import pyarrow

    try:
        yield from pyarrow.ipc.open_stream(whole)
    except pyarrow.ArrowInvalid:
        reader = pyarrow.ipc.open_file(whole)
        yield from (reader.get_batch(k) for k in range(reader.num_record_batches))


def _in_batch(values: Any, whole: Any) -> tuple[Array, Array, dict[int, str]] | None:
    from pyarrow import types

    paths: dict[int, str] = {}
    if isinstance(values.type, types.lib.BaseExtensionType):
        values = values.storage
    contents = values
    if types.is_struct(values.type):
        if values.type.get_field_index("bytes") < 0 or values.null_count:
            return None
        contents = values.field("bytes")
    if types.is_binary(contents.type):
        kind: Any = np.int32
    elif types.is_large_binary(contents.type):
        kind = np.int64
    else:
        return None
    if contents.null_count:
        if not types.is_struct(values.type) or values.type.get_field_index("path") < 0:
            return None
        missing = np.flatnonzero(contents.is_null().to_numpy(zero_copy_only=False))
        named = values.field("path").take(missing).to_pylist()
        if not all(named):
            return None
        paths = dict(zip(missing.tolist(), named, strict=True))
    count = len(contents)
    _, ends, data = contents.buffers()
    if data is None:
        if len(paths) < count:
            return None
        return np.full(count, -1), np.zeros(count, np.int64), paths
    edges = np.frombuffer(ends, kind)[contents.offset : contents.offset + count + 1].astype(
        np.int64
    )
    start = data.address - whole.address
    if not 0 <= start <= whole.size - data.size:
        return None  # a compressed file is unpacked to other memory
    places, sizes = edges[:-1] + start, np.diff(edges)
    places[list(paths)] = -1
    return places, sizes, paths
