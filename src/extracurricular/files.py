"""Files that are whole or not there.

Whatever is written goes to a temporary name first, is flushed to the disk and then renamed, so an
interruption at any moment leaves the old file or the new one. A checkpoint carries the SHA-256 of
its content in its name, so that content and checksum arrive in the same rename, and a damaged one
is passed over. Nothing that is read is executed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from extracurricular.errors import StorageError


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file such that it is never seen half-written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StorageError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, refusing NaN and infinity, which JSON does not have."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    write_atomic(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: It is missing or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StorageError(f"the file {str(path)!r} is missing") from None
    except ValueError as error:
        raise StorageError(f"the file {str(path)!r} is damaged: {error}") from None


def write_if_changed(path: Path, content: bytes) -> None:
    """Write a file unless it has this very content already."""
    if not path.exists() or path.read_bytes() != content:
        write_atomic(path, content)


def write_json_if_changed(path: Path, value: Any) -> None:
    """Write a JSON file unless it holds this very value already."""
    if not path.exists() or read_json(path) != value:
        write_json(path, value)


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the path of each difference between two plain values, and both sides of it."""
    if a == b:
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*b, *(k for k in a if k not in b)]:
            yield from differences(a.get(key), b.get(key), f"{path}.{key}".strip("."))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{path}.{place}")
    else:
        yield path, a, b


def first_difference(a: Any, b: Any, path: str) -> tuple[str, Any, Any]:
    """Return the path of the first difference between two plain values, and both sides of it."""
    return next(differences(a, b, path), (path, a, b))


def sha256(content: bytes) -> str:
    """Return the checksum of some content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def save_weights(path: Path, state: dict[str, Tensor]) -> str:
    """Write a state dict as safetensors and return its SHA-256."""
    # Tied weights share memory, which the format refuses; a copy of each is what loading expects.
    content = safetensors.torch.save({k: v.detach().cpu().clone() for k, v in state.items()})
    write_atomic(path, content)
    return sha256(content)


def load_weights(path: Path, checksum: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file, checked against its SHA-256 where that is known.

    Raises:
        StorageError: The file is missing, damaged, or not the one the checksum belongs to.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise StorageError(f"the file {str(path)!r} is missing") from None
    if checksum is not None and sha256(content) != checksum:
        raise StorageError(
            f"the file {str(path)!r} is damaged: its checksum differs from the recorded one"
        )
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise StorageError(f"the file {str(path)!r} is damaged: {error}") from None


class Checkpoints:
    """The checkpoints of one training, the newest of which is kept.

    Args:
        folder: Where they lie, as ``step-00000500.<checksum>.ckpt``.
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
        """Return the newest state whose content fits its checksum, or None."""
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
        """Remove all checkpoints, and what an interruption left of one."""
        for file in [*self._files(), *self.folder.glob(".step-*.part")]:
            file.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.*.ckpt"))


class JsonLines:
    """A log of one JSON object a line, that a resumed training continues.

    Args:
        path: The file.
        step: The step that training goes on from; lines of later steps, and a line that an
            interruption cut short, are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [line for line in read_lines(path) if line.get("step", 0) <= step]
        content = "".join(json.dumps(line) + "\n" for line in kept) if step else ""
        write_atomic(path, content.encode())
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append a line."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file; a last line that was cut short is left out."""
    lines: list[dict[str, Any]] = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder for the time of a block.

    Raises:
        StorageError: The folder cannot be made, or another run is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise StorageError(f"cannot write to {str(folder)!r}: {error.strerror or error}") from error
    with file:
        try:
            import fcntl
        except ImportError:  # Windows has no such lock; there the user keeps the order
            yield
            return
        try:
            # The system drops this lock when the process ends, however it ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(f"another run is at work in {str(folder)!r}") from None
        yield
