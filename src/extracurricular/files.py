"""Files that are written whole or not at all.

Content goes to a temporary file first, is flushed to the disk and then renamed, so an interruption
at any moment leaves the old file or the new one. A checkpoint has the SHA-256 of its content in its
name, so that content and checksum arrive in the same rename, and a damaged checkpoint is skipped.
Nothing that is read is executed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
from collections.abc import Iterator, Sequence
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
        doing: ``read`` or ``write``.

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
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    write_atomic(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: The file is missing or holds no valid JSON.
    """
    with telling(path, "read"):
        content = path.read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"the file {str(path)!r} is damaged: {error}") from None


def write_if_changed(path: Path, content: bytes) -> None:
    """Write a file unless it has exactly this content already."""
    with telling(path, "read"):
        same = path.exists() and path.read_bytes() == content
    if not same:
        write_atomic(path, content)


def write_json_if_changed(path: Path, value: Any) -> None:
    """Write a JSON file unless it holds exactly this value already."""
    if not path.exists() or read_json(path) != value:
        write_json(path, value)


def sha256(content: bytes) -> str:
    """Return the SHA-256 checksum of some content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


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
    with telling(path, "read"):
        content = path.read_bytes()
    if checksum is not None and sha256(content) != checksum:
        raise StorageError(
            f"the file {str(path)!r} is damaged: its checksum differs from the recorded one"
        )
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise StorageError(f"the file {str(path)!r} is damaged: {error}") from None


class Checkpoints:
    """The checkpoints of one training, of which only the newest is kept.

    Args:
        folder: The folder of the files ``step-00000500.<checksum>.ckpt``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state reached after ``step`` steps and remove older ones."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        older = self._files()
        target = self.folder / f"step-{step:010d}.{sha256(content)[:32]}.ckpt"
        write_atomic(target, content)
        for file in older:
            if file != target:
                file.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """Return the newest state whose content matches its checksum, or None."""
        for file in reversed(self._files()):
            content = file.read_bytes()
            if sha256(content)[:32] == file.name.split(".")[1]:
                return self._parse(file, content)
        return None

    @staticmethod
    def _parse(file: Path, content: bytes) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(
                io.BytesIO(content), map_location="cpu", weights_only=True
            )
        except pickle.UnpicklingError as error:
            raise StorageError(
                f"the file {str(file)!r} is no checkpoint of this project"
            ) from error
        return state

    def clear(self) -> None:
        """Remove all checkpoints, and temporary files that an interruption left."""
        for file in [*self._files(), *self.folder.glob(".step-*.part")]:
            file.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.*.ckpt"))


class JsonLines:
    """A log with one JSON object per line, which a resumed training continues.

    Args:
        path: The file.
        step: The step from which training continues; lines of later steps, and a line that an
            interruption cut short, are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [line for line in read_lines(path) if line.get("step", 0) <= step]
        content = "".join(json.dumps(line) + "\n" for line in kept) if step else ""
        write_atomic(path, content.encode())
        self.path = path
        with telling(path, "write"):
            self._file = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append a line."""
        with telling(self.path, "write"):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        # What could not be written was told, and closing tries once more.
        with suppress(OSError):
            self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file up to a line that was cut short; a missing file has no lines."""
    lines: list[dict[str, Any]] = []
    if path.is_file():
        with telling(path, "read"):
            content = path.read_text(encoding="utf-8", errors="replace")
        for text in content.splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines
