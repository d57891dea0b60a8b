"""Read the tensors of a torch file that holds other pickled things too, without executing any.

A pickle is a program: it names functions and calls them. Here every name that it asks for becomes a
class of this module, made for that one file. Those of torch's few functions that put a tensor
together note their arguments; all others are stand-ins, and calling one, giving it a state or
adding to it makes or changes an inert object. So no code but this module's runs, whatever the
file says. The tensors are put together afterwards, within the bounds of their storages.

``torch/serialization.py`` defines both formats: a zip archive of ``data.pkl`` and storages, and the
legacy one, several pickles in a row and the storages behind them.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import torch
from torch import Tensor

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_QUANTISED_STORAGES = ("QInt8Storage", "QUInt8Storage", "QInt32Storage", "QUInt4x2Storage")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# More than any checkpoint has.
_MOST_OPERATIONS = 20_000_000
# Instructions that make the reader itself reserve memory by a number in the file.
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")


class UnreadableError(ValueError):
    """The file is no torch file, or a damaged one; the text is a clause that says so."""


class StandIn:
    """Anything in a file that is no tensor and no plain value; it does nothing.

    Attributes:
        origin: The name that the file gives for it, ``module.name``.
        state: Its attributes, if the file gives it a state that is a dict.
    """

    origin = ""

    def __init__(self, *given: Any, **named: Any) -> None:
        """Take whatever the file gives."""
        self.state: dict[Any, Any] = {}

    def __new__(cls, *given: Any, **named: Any) -> StandIn:
        """Take whatever the file gives."""
        found = object.__new__(cls)
        found.state = {}
        return found

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
            state = state[0]
        self.state = dict(state) if isinstance(state, dict) else {}

    def __call__(self, *given: Any, **named: Any) -> StandIn:
        """Return another stand-in."""
        return StandIn()

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forget an entry."""

    def append(self, value: Any) -> None:
        """Forget an entry."""

    def extend(self, values: Any) -> None:
        """Forget entries."""

    def add(self, value: Any) -> None:
        """Forget an entry."""


class Mapped(dict[Any, Any]):
    """An ordered or default dict of a file, without its own behaviour."""

    def __init__(self, *given: Any) -> None:
        super().__init__()
        if given and isinstance(given[-1], dict | list | tuple):
            try:
                self.update(given[-1])
            except (TypeError, ValueError):
                raise pickle.UnpicklingError("a dict of no pairs") from None

    def __setstate__(self, state: Any) -> None:
        """Forget attributes, such as the ``_metadata`` of a state dict."""


class Noted:
    """A tensor to put together: the function's name and what the file gives it."""

    name = ""
    given: tuple[Any, ...] = ()

    def __init__(self, *given: Any) -> None:
        self.given = given

    def __setstate__(self, state: Any) -> None:
        """Forget attributes."""


class _Storage:
    """The numbers of one or several tensors."""

    def __init__(self, kind: Any, key: Any, count: Any, start: int = 0) -> None:
        self.kind, self.key, self.count, self.start = kind, key, count, start

    def __setstate__(self, state: Any) -> None:
        """Forget attributes."""


class _Size(tuple[Any, ...]):
    """The shape of a tensor."""

    __slots__ = ()

    def __new__(cls, *given: Any) -> _Size:
        return super().__new__(
            cls, given[0] if given and isinstance(given[0], tuple | list) else ()
        )


class _Kind(StandIn):
    """The type of a storage, or of the numbers of a tensor."""

    name = ""


_REBUILDS = (
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
    "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_tensor",
    "_rebuild_sparse_csr_tensor", "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor",
    "_rebuild_wrapper_subclass", "_rebuild_device_tensor_from_numpy",
    "_rebuild_device_tensor_from_cpu_tensor",
)  # fmt: skip


class _Reader(pickle.Unpickler):
    """An unpickler that knows no code but the classes above."""

    def __init__(self, file: BinaryIO, storage: Callable[[Any], Any]) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage
        self._made: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the class here that stands for a name."""
        if (module, name) not in self._made:
            self._made[module, name] = _stand_in(module, name)
        return self._made[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage that a file names."""
        return self._storage(pid)


def _stand_in(module: str, name: str) -> Any:
    """Make a class for one name of one file, so that nothing a file does to it outlives it."""
    if module == "collections" and name in ("OrderedDict", "defaultdict", "Counter"):
        return type(name, (Mapped,), {})
    if module in ("torch._utils", "torch._tensor") and (
        name in _REBUILDS or name == "_rebuild_from_type_v2"
    ):
        return type("Rebuild", (Noted,), {"name": name})
    if module in ("builtins", "__builtin__") and name in ("set", "frozenset"):
        return type(name, (set,), {"__slots__": ()})
    if (module, name) == ("torch", "Size"):
        return type("Size", (_Size,), {"__slots__": ()})
    if module in ("torch", "torch.storage"):
        return type("Kind", (_Kind,), {"name": name, "origin": f"{module}.{name}"})
    return type("Other", (StandIn,), {"origin": f"{module}.{name}"[:100]})


def _scan(content: bytes, start: int) -> int:
    """Return the end of a pickle, once its instructions are known to be harmless to memory.

    Raises:
        UnreadableError: It is damaged, or reserves memory that its size does not explain.
    """
    file = io.BytesIO(content)
    file.seek(start)
    count = 0
    try:
        for operation, argument, _ in pickletools.genops(file):
            count += 1
            reserves = operation.name in _MEMO and int(argument or 0) > count
            if count > _MOST_OPERATIONS or reserves or operation.name.startswith("EXT"):
                raise UnreadableError("is damaged, or was made to do harm")
    except UnreadableError:
        raise
    except Exception:  # pickletools raises many kinds for what is no pickle
        raise UnreadableError("is damaged: it holds no pickle where one should be") from None
    return file.tell()


def _load(content: bytes, start: int, storage: Callable[[Any], Any]) -> tuple[Any, int]:
    """Return what a pickle describes, and where it ends."""
    end = _scan(content, start)
    try:
        return _Reader(io.BytesIO(content[start:end]), storage).load(), end
    except UnreadableError:
        raise
    except Exception as error:  # an instruction that does not go with a stand-in
        kind = type(error).__name__
        raise UnreadableError(f"cannot be read without running code in it ({kind})") from None


def inert(content: bytes) -> Any:
    """Read a file of torch as plain values, tensors and stand-ins.

    Args:
        content: The content of the file, in either format.

    Returns:
        Dicts, lists, tuples, numbers, texts and tensors as the file has them, and a
        :class:`StandIn` for everything else. Tensors that cannot be put together (quantised,
        sparse, of no storage) are stand-ins that say so.

    Raises:
        UnreadableError: It is no file of torch, or a damaged one.
    """
    if content.startswith(b"PK\x03\x04"):
        return _of_zip(content)
    return _of_legacy(content)


def _of_zip(content: bytes) -> Any:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        [entry] = [one for one in archive.namelist() if one.split("/", 1)[-1] == "data.pkl"]
        root = entry.removesuffix("data.pkl")
        # torch stores entries as they are; one that is packed could be of any size.
        packed = any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist())
        if packed:
            raise UnreadableError("is packed, which no file of torch is")
        order = root + "byteorder"
        if order in archive.namelist() and archive.read(order).strip() != b"little":
            raise UnreadableError("was written on a machine of another byte order")
        value, _ = _load(archive.read(entry), 0, _named)
    except UnreadableError:
        raise
    except Exception:  # zipfile has many kinds for a damaged archive
        raise UnreadableError("is damaged, or no file of torch") from None
    blocks: dict[str, Any] = {}

    def numbers(storage: _Storage) -> Any:
        key = str(storage.key)
        if key not in blocks:
            try:
                blocks[key] = bytearray(archive.read(f"{root}data/{key}"))
            except Exception:  # zipfile has many kinds for a damaged entry
                raise UnreadableError(f"is damaged: its storage {key!r} cannot be read") from None
        return blocks[key]

    return _together(value, numbers)


def _of_legacy(content: bytes) -> Any:
    if not content.startswith(b"\x80"):
        raise UnreadableError("is no file of torch")
    magic, place = _load(content, 0, _named)
    if magic != _LEGACY_MAGIC:
        raise UnreadableError("is a pickle, but no file of torch")
    protocol, place = _load(content, place, _named)
    if protocol != _LEGACY_PROTOCOL:
        raise UnreadableError("is of a version of torch that is not known")
    _, place = _load(content, place, _named)  # sizes of numbers on the machine
    kinds: dict[str, Any] = {}

    def named(pid: Any) -> Any:
        found = _named(pid)
        if isinstance(found, _Storage):
            kinds[str(found.key)] = found.kind
        return found

    value, place = _load(content, place, named)
    keys, place = _load(content, place, _named)
    if not isinstance(keys, list):
        raise UnreadableError("is damaged: it lists no storages")
    blocks: dict[str, Any] = {}
    for key in map(str, keys):
        count = int.from_bytes(content[place : place + 8], "little")
        size = count * _itemsize(kinds.get(key))
        if place + 8 + size > len(content):
            raise UnreadableError("is damaged: it ends in the middle of its numbers")
        blocks[key] = bytearray(content[place + 8 : place + 8 + size])
        place += 8 + size

    def numbers(storage: _Storage) -> Any:
        if str(storage.key) not in blocks:
            raise UnreadableError(f"is damaged: its storage {storage.key!r} is missing")
        return blocks[str(storage.key)]

    return _together(value, numbers)


def _named(pid: Any) -> Any:
    """Return the storage, or the class, that a persistent id names."""
    if not isinstance(pid, tuple) or not pid:
        return StandIn()
    if pid[0] == "module" and len(pid) > 1:  # a class with its source, which nobody needs
        return pid[1]
    if pid[0] != "storage" or len(pid) < 5:
        return StandIn()
    view = pid[5] if len(pid) > 5 else None
    start = view[1] if isinstance(view, tuple) and len(view) == 3 else 0
    return _Storage(pid[1], pid[2], pid[4], start if isinstance(start, int) else 0)


def _itemsize(kind: Any) -> int:
    name = getattr(kind, "name", "")
    if name in _DTYPES:
        return _DTYPES[name].itemsize
    if name in _QUANTISED_STORAGES:
        return 4 if name == "QInt32Storage" else 1
    raise UnreadableError("is damaged: a storage has no known type")


def _together(value: Any, numbers: Callable[[_Storage], Any]) -> Any:
    """Replace noted tensors by tensors, in dicts, lists, tuples and states."""
    known: dict[int, Any] = {}

    def of(one: Any) -> Any:
        if isinstance(one, int | float | str | bytes | bool | type(None)):
            return one
        if id(one) in known:
            return known[id(one)]
        if isinstance(one, Noted):
            known[id(one)] = made = _tensor(one, numbers)
            return made
        if isinstance(one, dict):
            into: dict[Any, Any] = {}
            known[id(one)] = into
            into.update((k if isinstance(k, str | int) else str(k), of(v)) for k, v in one.items())
            return into
        if isinstance(one, list):
            several: list[Any] = []
            known[id(one)] = several
            several.extend(map(of, one))
            return several
        if isinstance(one, tuple):
            known[id(one)] = whole = tuple(map(of, one))
            return whole
        if isinstance(one, StandIn) and one.state:
            known[id(one)] = one
            one.state = of(one.state)
        return one

    try:
        return of(value)
    except RecursionError:
        raise UnreadableError("holds values in values too deep to be read") from None


def described(origin: str) -> StandIn:
    """Return a stand-in that says what stood there."""
    found: StandIn = type("Other", (StandIn,), {"origin": origin})()
    return found


def _tensor(noted: Noted, numbers: Callable[[_Storage], Any]) -> Any:
    """Put a tensor together; a stand-in where it is of another kind than plain numbers."""
    given, name = noted.given, noted.name
    while name in ("_rebuild_parameter", "_rebuild_parameter_with_state") and given:
        inner = given[0]
        if not isinstance(inner, Noted):
            return described("torch.nn.Parameter")
        given, name = inner.given, inner.name
    if name == "_rebuild_from_type_v2" and len(given) > 2 and isinstance(given[2], tuple):
        function = given[0]
        if isinstance(function, type) and issubclass(function, Noted):
            plain: Noted = function(*given[2])
            return _tensor(plain, numbers) if plain.name != name else described("torch.Tensor")
    if name == "_rebuild_qtensor":
        return described("quantised tensor")
    if name not in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        return described(f"tensor of {name.removeprefix('_rebuild_')}")
    if len(given) < 4 or not isinstance(given[0], _Storage):
        raise UnreadableError("is damaged: a tensor has no storage")
    storage, offset, size, stride = given[:4]
    kind = given[6] if name == "_rebuild_tensor_v3" and len(given) > 6 else storage.kind
    dtype = _dtype(getattr(kind, "name", ""))
    if dtype is None:
        return described(f"tensor of {getattr(kind, 'name', 'unknown numbers')}")
    return _strided(numbers(storage), dtype, storage.start, offset, size, stride)


def _dtype(name: str) -> torch.dtype | None:
    if name in _DTYPES:
        return _DTYPES[name]
    # Types without a storage of their own are named as such; only these names are looked up.
    known = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")
    return getattr(torch, name) if name in known else None


def _strided(
    block: bytearray, dtype: torch.dtype, start: int, offset: Any, size: Any, stride: Any
) -> Tensor:
    """Return a view of numbers, all of which lie in their block."""
    sizes, strides = (
        list(one) if isinstance(one, tuple | list) else None for one in (size, stride)
    )
    whole = [*(sizes or []), *(strides or []), offset]
    if sizes is None or strides is None or len(sizes) != len(strides):
        raise UnreadableError("is damaged: a tensor has no shape")
    if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 2**40 for n in whole):
        raise UnreadableError("is damaged: a tensor has an impossible shape")
    if 0 in sizes:
        return torch.empty(sizes, dtype=dtype)
    last = start + offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
    if start < 0 or (last + 1) * dtype.itemsize > len(block):
        raise UnreadableError("is damaged: a tensor reaches beyond its numbers")
    flat = torch.frombuffer(block, dtype=dtype, count=len(block) // dtype.itemsize)
    return flat.as_strided(sizes, strides, start + offset)
