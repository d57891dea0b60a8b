"""Files that are written whole or not at all.

Content goes to a temporary file first, is flushed to the disk and then renamed, so an interruption
at any moment leaves the old file or the new one. A checkpoint has the SHA-256 of its content in its
name, so that content and checksum arrive in the same rename, and a damaged checkpoint is skipped.
So is one of other settings: its content says what it belongs to. A sealed JSON file has the
checksum of its own content. Nothing that is read is executed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from extracurricular.errors import StorageError


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it.

    Raises:
        StorageError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _to_disk(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StorageError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def _to_disk(folder: Path) -> None:
    """Make what was renamed in a folder survive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def telling(path: Path, doing: str) -> Iterator[None]:
    """Turn a failure of the system into one sentence.

    Args:
        path: The file.
        doing: ``read``, ``write`` or ``remove``.

    Raises:
        StorageError: The system refused; the sentence names the file and the reason.
    """
    try:
        yield
    except FileNotFoundError:
        if doing == "read":
            raise StorageError(f"the file {str(path)!r} is missing") from None
        raise StorageError(f"cannot write {str(path)!r}: its folder is gone") from None
    except OSError as error:
        text = error.strerror or str(error)
        raise StorageError(f"cannot {doing} {str(path)!r}: {text}") from None


@contextmanager
def curing(cure: str) -> Iterator[None]:
    """Add to a failure's sentence what to do about it.

    Raises:
        StorageError: The one that came, with the cure.
    """
    try:
        yield
    except StorageError as error:
        raise StorageError(f"{error}; {cure}") from None


def sweep(folder: Path, below: Sequence[str]) -> None:
    """Remove what dead processes left half-written in a folder.

    Args:
        folder: The folder. Others may keep files of their own in it, so nothing is removed that
            has not the very form of name that :func:`write_atomic` gives.
        below: Names of folders in it that are looked through too, to any depth.
    """
    found = [*folder.glob(".*.part"), *(f for n in below for f in (folder / n).rglob(".*.part"))]
    for file in found:
        match = _PART.fullmatch(file.name)
        if match is not None and not _is_alive(int(match[1])):
            with suppress(OSError):
                file.unlink()


_PART = re.compile(r"\..+\.(\d{1,9})\.part")


def _is_alive(process: int) -> bool:
    """Return whether a process of this machine runs; one that cannot be asked counts as such."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, refusing NaN and infinity, which JSON does not have."""
    write_atomic(path, json_bytes(value))


def read_json(path: Path, checksum: str | None = None) -> Any:
    """Read a JSON file, and check it against its SHA-256 if that is given.

    Raises:
        StorageError: The file is missing, damaged or holds no valid JSON.
    """
    content = read_checked(path, checksum)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"the file {str(path)!r} is damaged: {error}") from None


def write_if_changed(path: Path, content: bytes) -> str:
    """Write a file unless it has exactly this content already; return its SHA-256."""
    same = False
    with suppress(OSError):  # one that cannot be read is written anew
        same = path.read_bytes() == content
    if not same:
        write_atomic(path, content)
    return sha256(content)


def json_bytes(value: Any) -> bytes:
    """Return the content of a JSON file, refusing NaN and infinity, which JSON does not have."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def sha256(content: bytes) -> str:
    """Return the SHA-256 checksum of some content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


# -- files whose damage shows ---------------------------------------------------------------------

_SEAL = "checksum"


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write an object as JSON with the checksum of its own content, as its last key."""
    write_json(path, value | {_SEAL: seal(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what :func:`write_sealed` wrote, without its checksum.

    A file of an earlier version has none, and is not compared.

    Raises:
        StorageError: The file is missing, holds no JSON object, or is not as it was written.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise StorageError(f"the file {str(path)!r} is damaged: it holds no object")
    if _SEAL in found and found.pop(_SEAL) != seal(found):
        raise StorageError(
            f"the file {str(path)!r} is damaged: its content is not that of its checksum"
        )
    return found


def write_sealed_if_changed(path: Path, value: dict[str, Any]) -> None:
    """Write a sealed file unless it is whole and holds exactly this value already."""
    with suppress(StorageError):
        # A file of an earlier version has no checksum yet.
        if read_sealed(path) == value and _SEAL in read_json(path):
            return
    write_sealed(path, value)


def seal(value: dict[str, Any]) -> str:
    """Return the checksum of an object's values, whatever their order and layout in a file."""
    # As they come back from a file: tuples are lists then, and keys are texts.
    plain = json.loads(json.dumps(value, allow_nan=True))
    return sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def read_checked(path: Path, checksum: str | None) -> bytes:
    """Read a file, and compare it with a checksum that was recorded of it.

    Args:
        path: The file.
        checksum: Its SHA-256; None where an earlier version recorded none.

    Raises:
        StorageError: The file is missing, cannot be read, or is not as it was written.
    """
    with telling(path, "read"):
        if path.exists() and not path.is_file():
            # A device, or a pipe, has no end.
            raise StorageError(f"cannot read {str(path)!r}: it is no file")
        content = path.read_bytes()
    if checksum is not None and sha256(content) != checksum:
        raise StorageError(
            f"the file {str(path)!r} is damaged: its checksum differs from the recorded one"
        )
    return content


def save_weights(path: Path, state: dict[str, Tensor]) -> str:
    """Write a state dict as safetensors and return its SHA-256."""
    # Tied weights share memory, which the format refuses; loading expects a copy of each.
    # The layout in memory is none of the file's business either.
    plain = torch.contiguous_format
    copies = {k: v.detach().cpu().clone(memory_format=plain) for k, v in state.items()}
    content = safetensors.torch.save(copies)
    write_atomic(path, content)
    return sha256(content)


def load_weights(path: Path, checksum: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file, and check it against its SHA-256 if that is given.

    Raises:
        StorageError: The file is missing or damaged, or its checksum differs.
    """
    content = read_checked(path, checksum)
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise StorageError(f"the file {str(path)!r} is damaged: {error}") from None


_BOUND = "bound"


class Checkpoints:
    """The checkpoints of one training, of which only the newest is kept.

    Args:
        folder: The folder of the files ``step-00000500.<checksum>.ckpt``.
        bound: All that they belong to, as a text; checkpoints of anything else that lie in the
            folder are passed over. Empty to take any.
    """

    def __init__(self, folder: Path, bound: str = "") -> None:
        self.folder, self.bound = folder, bound and sha256(bound.encode())

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state reached after ``step`` steps and remove older ones."""
        buffer = io.BytesIO()
        torch.save(state | {_BOUND: self.bound}, buffer)
        content = buffer.getvalue()
        older = self._files()
        target = self.folder / f"step-{step:010d}.{sha256(content)[:32]}.ckpt"
        write_atomic(target, content)
        self._remove(file for file in older if file != target)

    def newest(self) -> dict[str, Any] | None:
        """Return the newest state that is whole and belongs here, or None."""
        for file in reversed(self._files()):
            with telling(file, "read"):
                content = file.read_bytes()
            if sha256(content)[:32] == file.name.split(".")[1]:
                state = self._parse(file, content)
                if state.pop(_BOUND, "") == self.bound or not self.bound:
                    return state
        return None

    @staticmethod
    def _parse(file: Path, content: bytes) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(
                io.BytesIO(content), map_location="cpu", weights_only=True
            )
        except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
            raise StorageError(
                f"the file {str(file)!r} is no checkpoint of this project"
            ) from error
        return state

    def clear(self) -> None:
        """Remove all checkpoints, and temporary files that an interruption left."""
        self._remove([*self._files(), *self.folder.glob(".step-*.part")])

    @staticmethod
    def _remove(files: Iterable[Path]) -> None:
        for file in files:
            with telling(file, "remove"):
                file.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.*.ckpt"))


class JsonLines:
    """A log with one JSON object per line, which a resumed training continues.

    Args:
        path: The file.
        kept: The lines so far, as texts, which a checkpoint keeps: whatever the file holds by now
            is not read.
    """

    def __init__(self, path: Path, kept: Iterable[str] = ()) -> None:
        self.path, self.kept = path, list(kept)
        write_atomic(path, "".join(f"{line}\n" for line in self.kept).encode())
        with telling(path, "write"):
            self._file = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append a line."""
        text = json.dumps(line)
        with telling(self.path, "write"):
            self._file.write(text + "\n")
            self._file.flush()
        self.kept.append(text)

    def close(self) -> None:
        """Close the file."""
        # What could not be written was told, and closing tries once more.
        with suppress(OSError):
            self._file.close()


def read_lines(path: Path, checksum: str | None = None) -> list[dict[str, Any]]:
    """Read a JSON-lines file.

    Args:
        path: The file.
        checksum: Its SHA-256. Where None, it may be missing or cut short: it is then read up to the
            first line that is none.

    Raises:
        StorageError: It cannot be read, or is not that of the checksum.
    """
    if checksum is None and not path.is_file():
        return []
    lines: list[dict[str, Any]] = []
    for text in read_checked(path, checksum).decode(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        lines += [line] if isinstance(line, dict) else []
    return lines
