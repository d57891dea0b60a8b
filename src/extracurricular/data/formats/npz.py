"""Read the arrays of an .npz file, which is apart from tables as it needs no polars."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from extracurricular.errors import DataError


def read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays in an ``.npz`` file, none of which may be pickled.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        # The file is opened here, as numpy leaks its own handle if the archive is damaged.
        with path.open("rb") as handle:
            _check_sizes(handle)
            handle.seek(0)
            with np.load(handle, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a damaged file
        raise DataError(f"the file {str(path)!r} cannot be read as .npz: {error}") from error


def _check_sizes(handle: BinaryIO) -> None:
    """Refuse an archive whose arrays say that they are larger than they are."""
    with zipfile.ZipFile(handle) as archive:
        for member in (one for one in archive.infolist() if one.filename.endswith(".npy")):
            with archive.open(member) as content:
                version = np.lib.format.read_magic(content)
                read = {(1, 0): np.lib.format.read_array_header_1_0}
                known = read.get(version, np.lib.format.read_array_header_2_0)
                shape, _, dtype = known(content)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"{member.filename!r} says that it has the shape {shape}")
