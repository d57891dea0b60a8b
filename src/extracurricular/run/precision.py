"""The precision of a run: what ``auto`` becomes, and the flags of float32 that go with it.

The rule looks at the device and at the stages that are there already, never at a clock. So a run
that was begun on one device goes on in the same precision on another.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from extracurricular.errors import StorageError
from extracurricular.files import read_sealed

AUTO = "auto"

# Stages that have a precision: the teacher's networks first, since all others depend on them.
_STAGES = ("teacher/*/*/stage.json", "knowledge/*/stage.json", "students/*/*/stage.json")


@dataclass(frozen=True)
class Hardware:
    """A device, as far as the choice of a precision depends on it.

    Args:
        kind: ``cpu``, ``cuda`` or ``mps``.
        bf16: Whether it computes in bfloat16 itself, without emulation.
    """

    kind: str
    bf16: bool = False


def hardware(accelerator: str) -> Hardware:
    """Return the device that an accelerator's name stands for on this machine.

    Args:
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``; it need not be there.
    """
    kind = accelerator
    if kind == AUTO:
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        kind = "cuda" if cuda else "mps" if mps else "cpu"
    asks = kind == "cuda" and torch.cuda.is_available()
    return Hardware(kind, asks and torch.cuda.is_bf16_supported(including_emulation=False))


def resolve(precision: str, device: Hardware, kept: str | None = None) -> str:
    """Return the precision that a recipe's setting stands for.

    Args:
        precision: The setting; any but ``auto`` stands for itself.
        device: The device.
        kept: The precision of the stages that are there already; None where there are none.
    """
    if precision != AUTO:
        return precision
    return kept or ("bf16-mixed" if device.kind == "cuda" and device.bf16 else "32-true")


def kept_precision(folder: Path) -> str | None:
    """Return the precision in which the stages of a run were begun; None where there are none."""
    for file in (file for pattern in _STAGES for file in sorted(folder.glob(pattern))):
        try:
            settings = read_sealed(file).get("settings")
        except StorageError:
            continue  # whoever needs that stage says so
        found = settings.get("precision") if isinstance(settings, dict) else None
        if isinstance(found, str) and found != AUTO:
            return found
    return None


def sentence(precision: str, device: Hardware, kept: str | None = None) -> str:
    """Return a sentence on the precision and the device of a run; see :func:`resolve`."""
    found = resolve(precision, device, kept)
    text = f"computes in {found} on {device.kind}"
    if precision != AUTO:
        return text
    usual = resolve(precision, device)
    if found == usual:
        return f"{text} (precision: auto)"
    return f"{text}, as the stages that are there already; a new run would take {usual} here"


def settled(settings: dict[str, Any], precision: str, tf32: bool) -> dict[str, Any]:
    """Return the settings of a stage with what ``auto`` became, and with TF32 where it is allowed.

    Args:
        settings: The settings as the plan knows them, with those of the stages upstream.
        precision: The precision that ``auto`` became.
        tf32: Whether products of float32 may be computed in TF32.
    """
    found = dict(settings)
    if "precision" in found:
        found["precision"] = precision if found["precision"] == AUTO else found["precision"]
        # Absent where it is off, as in the stages from before there was a choice.
        found |= {"tf32": True} if tf32 else {}
    if "upstream" in found:
        found["upstream"] = [settled(one, precision, tf32) for one in found["upstream"]]
    return found


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which networks answer at a precision, as Lightning Fabric has it."""
    types = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if precision not in types:
        return nullcontext()
    return torch.autocast(device.type, dtype=types[precision])


def teacher_dtype(precision: str, device: Hardware) -> torch.dtype | None:
    """Return the type in which a teacher's networks compute; None to leave that to the precision.

    Args:
        precision: The precision of the run.
        device: The device.
    """
    return torch.bfloat16 if (precision, device.kind) == ("bf16-mixed", "cuda") else None


# -- flags of float32 -----------------------------------------------------------------------------

_LOCK = threading.Lock()
_OPEN: list[_Flags] = []


@contextmanager
def float32_products(tf32: bool) -> Iterator[None]:
    """Compute products of float32 in full precision, or in TF32, for the time of a block.

    The flags belong to the process. Blocks may overlap, in several threads, if they ask for the
    same; the flags from before the first are back after the last.

    Args:
        tf32: Whether TF32 is allowed, on devices that have it.
    """
    with _LOCK:
        _OPEN.append(_OPEN[0] if _OPEN else _Flags.read())
        _Flags.of(tf32).write()
    try:
        yield
    finally:
        with _LOCK:
            before = _OPEN.pop()
            if not _OPEN:
                before.write()


@dataclass(frozen=True)
class _Flags:
    """The flags of TF32, in the older words of torch and in the newer.

    Both are written: torch.compile and Fabric read the older words, which torch refuses to give
    where only the newer were written.

    Args:
        products, convolutions: The older words; None where torch refused to give them.
        newer: The newer words, in the order of :func:`_parts`.
    """

    products: str | None
    convolutions: bool | None
    newer: tuple[str, ...]

    @classmethod
    def read(cls) -> _Flags:
        """Return the flags of this process."""
        products, convolutions = None, None
        # Somebody may have written the newer words alone.
        with suppress(RuntimeError):
            products = torch.get_float32_matmul_precision()
        with suppress(RuntimeError):
            convolutions = torch.backends.cudnn.allow_tf32
        return cls(products, convolutions, tuple(part.fp32_precision for part in _parts()))

    @classmethod
    def of(cls, tf32: bool) -> _Flags:
        """Return the flags that allow TF32 or not."""
        word = "tf32" if tf32 else "ieee"
        return cls("high" if tf32 else "highest", tf32, (word,) * len(_parts()))

    def write(self) -> None:
        """Make them the flags of this process."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some releases warn of the older words
            if self.products is not None:
                torch.set_float32_matmul_precision(self.products)
            if self.convolutions is not None:
                torch.backends.cudnn.allow_tf32 = self.convolutions
        for part, word in zip(_parts(), self.newer, strict=True):
            part.fp32_precision = word


def _parts() -> tuple[Any, ...]:
    """Return where torch keeps the newer flags, which it does not declare to type checkers."""
    mkldnn: Any = torch.backends.mkldnn
    cudnn: Any = torch.backends.cudnn
    # The flag of CPUs is one of those that the older word for products stands for.
    return torch.backends.cuda.matmul, mkldnn.matmul, cudnn.conv, cudnn.rnn
