"""Read the files of a published data set from a folder, or from its .tar.gz."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from extracurricular.errors import DataError

_LARGEST = 1 << 29  # bytes; the largest file of the sets read here has a third of it


def is_archive(path: Path) -> bool:
    """Return whether a path names an archive by its ending."""
    return path.name.lower().endswith((".tar.gz", ".tgz", ".tar"))


def folders(path: Path) -> list[Path]:
    """Return a folder and its direct subfolders, where an unpacked archive may have its files."""
    inner = sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    return [path, *inner]


def read_members(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Read the files of an archive that have given names, in whatever folder they are.

    Nothing is unpacked. The whole archive is refused if a member's path leaves the folder it would
    be unpacked to, or if it is a link or a device.

    Args:
        path: A .tar or .tar.gz file.
        wanted: Names without folders.

    Raises:
        DataError: The archive is missing, damaged or refused.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                _check(path, member)
                name = PurePosixPath(member.name).name
                if not member.isfile() or name not in wanted:
                    continue
                if name in found:
                    raise DataError(f"the archive {str(path)!r} has two files called {name!r}")
                content = archive.extractfile(member)
                assert content is not None
                found[name] = content.read()
            # Read to the end, where the checksum is.
            while archive.fileobj is not None and archive.fileobj.read(1 << 20):
                pass
    except FileNotFoundError:
        raise DataError(f"the archive {str(path)!r} does not exist") from None
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"the archive {str(path)!r} cannot be read: {error}") from error
    return found


def _check(path: Path, member: tarfile.TarInfo) -> None:
    where = f"the archive {str(path)!r} is refused: its member {member.name!r}"
    parts = PurePosixPath(member.name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in member.name:
        raise DataError(f"{where} leaves the folder")
    if not (member.isfile() or member.isdir()):
        raise DataError(f"{where} is a link or a device; it must be a file or a folder")
    if member.size > _LARGEST:
        raise DataError(f"{where} has {member.size} bytes; at most {_LARGEST} are read")
