"""Read images and columns of parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from extracurricular.errors import DataError, XclError, from_extra


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a parquet file of at least one row, as pyarrow's ``ParquetFile``.

    Raises:
        DataError: pyarrow is missing, or the file is damaged or empty, now or while it is read.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"reading {str(path)!r} needs pyarrow, {from_extra('parquet')}") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if file.metadata.num_rows == 0:
                raise DataError(f"the file {str(path)!r} has no rows")
            yield file
    except XclError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"the file {str(path)!r} cannot be read as parquet: {error}") from error


def image_column(path: Path, file: Any) -> str:
    """Return the name of the first column that can hold images, as bytes or {bytes, path}.

    Raises:
        DataError: There is no such column.
    """
    from pyarrow import types

    def binary(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def nested(kind: Any) -> bool:
        index = kind.get_field_index("bytes") if types.is_struct(kind) else -1
        return index >= 0 and binary(kind.field(index).type)

    names: list[str] = [f.name for f in file.schema_arrow if binary(f.type) or nested(f.type)]
    if not names:
        raise DataError(
            f"the file {str(path)!r} has the columns {', '.join(file.schema_arrow.names)}; "
            "none of them holds images, as bytes or as {bytes, path}"
        )
    return names[0]


def images(path: Path, file: Any, column: str, size: int) -> Iterator[list[tuple[str, bytes]]]:
    """Yield the images of a column, ``size`` rows at a time: names for errors, and contents.

    Raises:
        DataError: An image has no bytes.
    """
    from pyarrow import types

    row = 0
    for batch in file.iter_batches(batch_size=size, columns=[column]):
        values = batch.column(0)
        contents = values.field("bytes") if types.is_struct(values.type) else values
        block: list[tuple[str, bytes]] = []
        for content, whole in zip(contents.to_pylist(), values.is_valid().to_pylist(), strict=True):
            name = f"{path.name}, row {row}"
            if content is None or not whole:
                raise DataError(
                    f"the image {name!r} has no bytes; a path alone, or nothing, is not read"
                )
            block.append((name, content))
            row += 1
        yield block


def integers(path: Path, file: Any, column: str) -> np.ndarray[Any, Any]:
    """Read a column of whole numbers, int64, [N].

    Raises:
        DataError: There is no such column, it has another type, or a value is missing.
    """
    from pyarrow import types

    schema = file.schema_arrow
    if column not in schema.names:
        raise DataError(
            f"the file {str(path)!r} has no column {column!r}; it has {', '.join(schema.names)}"
        )
    kind = schema.field(column).type
    if not types.is_integer(kind):
        raise DataError(
            f"the file {str(path)!r}: the column {column!r} is of type {kind}; "
            "it must be of whole numbers"
        )
    values = file.read(columns=[column])[column]
    if values.null_count:
        row = values.is_valid().to_pylist().index(False)
        raise DataError(f"the file {str(path)!r}, row {row}: the column {column!r} is empty")
    return np.asarray(values.to_numpy()).astype(np.int64)
