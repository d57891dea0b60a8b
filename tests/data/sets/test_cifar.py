"""CIFAR in each of its forms, the cache of what is decoded, and files that would run code."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from extracurricular.data.base import Data
from extracurricular.data.formats.cache import cache_folder, cached
from extracurricular.data.sets import DATA
from extracurricular.data.sets import cifar as module
from extracurricular.data.sets.cifar import cifar10, cifar100
from extracurricular.data.sets.cifar_names import CIFAR10, COARSE, FINE
from extracurricular.distributions import Task
from extracurricular.errors import DataError
from extracurricular.inputs import leaves

Array = np.ndarray[Any, Any]
TRAIN, TEST = 40, 10


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pixels(count: int, seed: int = 0) -> Array:
    g = np.random.default_rng(seed)
    return g.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)


X = {"train": pixels(TRAIN), "test": pixels(TEST, 1)}
FINE_Y = {part: np.arange(len(x)) % 20 for part, x in X.items()}
COARSE_Y = {part: np.arange(len(x)) % 4 for part, x in X.items()}
TEN_Y = {part: np.arange(len(x)) % 10 for part, x in X.items()}


def rows(part: str, *labels: dict[str, Array]) -> bytes:
    columns = [y[part].astype(np.uint8)[:, None] for y in labels]
    return np.concatenate([*columns, X[part].reshape(-1, 3072)], axis=1).tobytes()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def binary100() -> dict[str, bytes]:
    return {f"{part}.bin": rows(part, COARSE_Y, FINE_Y) for part in X}


def python100(protocol: int = 2, module_of: str = "numpy.core.multiarray") -> dict[str, bytes]:
    files: dict[str, Any] = {
        part: {
            b"filenames": [b"a.png"] * len(x),
            b"batch_label": b"some batch",
            b"fine_labels": FINE_Y[part].tolist(),
            b"coarse_labels": COARSE_Y[part].tolist(),
            b"data": x.reshape(-1, 3072),
        }
        for part, x in X.items()
    }
    files["meta"] = {
        b"fine_label_names": [f"fine{k}".encode() for k in range(100)],
        b"coarse_label_names": [f"coarse{k}".encode() for k in range(20)],
    }
    raw = {name: pickle.dumps(value, protocol) for name, value in files.items()}
    return {n: c.replace(b"numpy._core.multiarray", module_of.encode()) for n, c in raw.items()}


def tables100(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, x in X.items():
        columns = {
            "img": [{"bytes": png(image), "path": "a.png"} for image in x],
            "fine_label": FINE_Y[part],
            "coarse_label": COARSE_Y[part],
        } | changes.get(part, {})
        pq.write_table(pa.table(columns), folder / f"{part}-00000-of-00001.parquet")
    return folder


def png(image: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def archive(path: Path, files: dict[str, bytes], prefix: str = "cifar-100-binary/") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def same(data: Data, validation: int = 0) -> None:
    """The data are those of X, in their order where nothing is set aside."""
    assert torch.equal(leaves(data.test.x)[""], torch.from_numpy(X["test"]))
    assert len(data.validation) == validation
    if not validation:
        assert torch.equal(leaves(data.train.x)[""], torch.from_numpy(X["train"]))


FORMS: dict[str, Callable[[Path], Path]] = {
    "binary": lambda p: write(p / "b", binary100()),
    "around it": lambda p: write(p / "c/cifar-100-binary", binary100()).parent,
    "python 2": lambda p: write(p / "p", python100()),
    "python 3": lambda p: write(p / "q", python100(4, "numpy._core.multiarray")),
    "python 5": lambda p: write(p / "q", python100(5, "numpy._core.multiarray")),
    "archive": lambda p: archive(p / "a.tar.gz", binary100()),
    "python archive": lambda p: archive(p / "a.tgz", python100(), "./cifar-100-python/"),
    "parquet": lambda p: tables100(p / "t"),
    "parquet inside": lambda p: tables100(p / "t/data").parent,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_data(form: str, tmp_path: Path) -> None:
    path = FORMS[form](tmp_path)
    for _ in range(2):  # decoded, then from the cache
        data = DATA.build({"cifar100": {"path": str(path), "validation": 0}})
        same(data)
        assert (data.name, data.task, data.shapes) == (
            "cifar100",
            Task("classification", 100),
            (3, 32, 32),
        )
        assert data.test.y is not None
        assert data.test.y.tolist() == FINE_Y["test"].tolist()
        assert data.classes[3] == ("fine3" if "python" in form else "bear")
    coarse = cifar100(str(path), coarse=True, validation=0)
    assert coarse.task.size == 20
    assert coarse.name == "cifar100-coarse"
    assert coarse.test.y is not None
    assert coarse.test.y.tolist() == COARSE_Y["test"].tolist()


def test_cifar10_in_its_forms(tmp_path: Path) -> None:
    record = rows("train", TEN_Y)
    size = len(record) // 5
    batches = {f"data_batch_{k + 1}": record[k * size : (k + 1) * size] for k in range(5)}
    files = {f"{n}.bin": c for n, c in batches.items()} | {"test_batch.bin": rows("test", TEN_Y)}
    files["batches.meta.txt"] = ("\n".join(f"class{k}" for k in range(10)) + "\n\n").encode()
    data = cifar10(str(write(tmp_path / "binary", files)), validation=0)
    same(data)
    assert data.classes[9] == "class9"

    def batch(part: str, which: slice) -> bytes:
        x, y = X[part][which].reshape(-1, 3072), TEN_Y[part][which].tolist()
        return pickle.dumps({"data": x, "labels": y}, 2)

    pickled = {f"data_batch_{k + 1}": batch("train", slice(8 * k, 8 * k + 8)) for k in range(5)}
    pickled["test_batch"] = batch("test", slice(None))
    data = cifar10(str(write(tmp_path / "python", pickled)), validation=0)
    same(data)
    assert data.classes == CIFAR10

    folder = tmp_path / "plain_text"
    folder.mkdir()
    for part, x in X.items():
        images = pa.array([png(image) for image in x])
        pq.write_table(pa.table({"img": images, "label": TEN_Y[part]}), folder / f"{part}.parquet")
    same(cifar10(str(tmp_path / "plain_text"), validation=0))


def test_names_of_classes() -> None:
    assert (len(CIFAR10), len(COARSE), len(FINE)) == (10, 20, 100)
    assert all(len(set(names)) == len(names) for names in (CIFAR10, COARSE, FINE))
    assert list(FINE) == sorted(FINE)


# Splits


def test_parts_are_disjoint_stratified_and_of_the_seed(tmp_path: Path) -> None:
    path = str(write(tmp_path, binary100()))
    data = cifar100(path, validation=20)
    whole = {image.tobytes() for image in X["train"]}
    parts = [{i.numpy().tobytes() for i in leaves(s.x)[""]} for s in (data.train, data.validation)]
    assert parts[0] | parts[1] == whole
    assert not parts[0] & parts[1]
    assert data.validation.y is not None
    assert data.validation.y.bincount()[:20].tolist() == [1] * 20
    assert torch.equal(cifar100(path, validation=20).validation.y, data.validation.y)  # type: ignore[arg-type]
    other = cifar100(path, validation=20, seed=1)
    assert not torch.equal(leaves(other.train.x)[""], leaves(data.train.x)[""])
    assert len(cifar100(path, validation=0.25).validation) == 10
    small = cifar100(path, validation=10, train=20)
    assert (len(small.train), len(small.validation)) == (20, 10)
    assert small.task.size == 100


@pytest.mark.parametrize("train", [0, -3, 36])
def test_a_subset_must_be_there(tmp_path: Path, train: int) -> None:
    with pytest.raises(
        DataError, match=rf"train is {train}; it must be 1 to 35, as 5 of 40 training"
    ):
        cifar100(str(write(tmp_path, binary100())), validation=5, train=train)


# Refusals


def without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {n: c for n, c in files.items() if n != name}


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"path '.*gone' does not exist; it must name a folder"):
        cifar100(str(tmp_path / "gone"))
    with pytest.raises(
        DataError, match=r"a' has no CIFAR-100; it must be a folder, or a \.tar\.gz"
    ):
        cifar100(str(write(tmp_path / "a", {"x.txt": b"hi"})))
    folder = write(tmp_path / "b", without(binary100(), "test.bin"))
    with pytest.raises(DataError, match=r"b' has no file 'test.bin', which the binary version of"):
        cifar100(str(folder))
    folder = write(tmp_path / "c", without(python100(), "train"))
    with pytest.raises(DataError, match=r"c' has no file 'train', which the Python version"):
        cifar100(str(folder))
    tables = tables100(tmp_path / "d")
    (tables / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"d' has no test\*\.parquet"):
        cifar100(str(tables))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has 0 bytes; it must have records of 3074 bytes"),
        (binary100()["train.bin"][:-1], "has 122959 bytes; it must have records"),
        (bytes([20, 1]) + bytes(3072), "image 0: coarse_label is 20; it must be 0 to 19"),
        (bytes(3074) + bytes([1, 100]) + bytes(3072), "image 1: fine_label is 100; .* 0 to 99"),
    ],
)
def test_records_that_are_wrong(tmp_path: Path, content: bytes, says: str) -> None:
    folder = write(tmp_path / "a", binary100() | {"train.bin": content})
    with pytest.raises(DataError, match=rf"the file 'train.bin' in '.*a'.*{says}"):
        cifar100(str(folder))


GOOD = {"data": np.zeros((3, 3072), np.uint8), "fine_labels": [0, 1, 2], "coarse_labels": [0] * 3}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([1, 2], "holds a list; it must hold a dict"),
        ({}, "has no 'data'; it has nothing"),
        ({"data": GOOD["data"]}, "has no 'coarse_labels'; it has data"),
        (GOOD | {"data": [1, 2]}, "'data' is of type list; it must be an array of uint8"),
        (GOOD | {"data": np.zeros((3, 3072))}, "'data' is of type float64; it must"),
        (GOOD | {"data": np.zeros((3, 99), np.uint8)}, r"shape \(3, 99\); it must be \[N, 3072\]"),
        (GOOD | {"data": np.zeros((0, 3072), np.uint8)}, r"shape \(0, 3072\)"),
        (GOOD | {"fine_labels": [0, 1]}, "'fine_labels' must be 3 whole numbers"),
        (GOOD | {"fine_labels": [0, 1, 2.5]}, "'fine_labels' must be 3 whole numbers"),
        (GOOD | {"fine_labels": [0, [1], 2]}, "'fine_labels' must be 3 whole numbers"),
        (GOOD | {"fine_labels": 7}, "'fine_labels' must be 3 whole numbers"),
        (GOOD | {"fine_labels": [0, 1, -1]}, "image 2: fine_label is -1; it must be 0 to 99"),
        (GOOD | {"data": np.array([{}])}, "an array of type 'O8'"),
    ],
)  # fmt: skip
def test_pickles_that_are_wrong(tmp_path: Path, value: Any, says: str) -> None:
    folder = write(tmp_path / "a", python100() | {"train": pickle.dumps(value)})
    with pytest.raises(DataError, match=rf"the file 'train' in '.*a'.*{says}") as caught:
        cifar100(str(folder))
    assert "\n" not in str(caught.value)


def test_damaged_pickles_and_names(tmp_path: Path) -> None:
    whole = python100()["train"]
    for content in (whole[:-30], b"", b"some text", whole[:100]):
        folder = write(tmp_path / "a", python100() | {"train": content})
        with pytest.raises(DataError, match=r"the file 'train' in '.*' cannot be read as a pickle"):
            cifar100(str(folder))
    folder = write(tmp_path / "b", python100() | {"meta": pickle.dumps({"fine_label_names": 3})})
    with pytest.raises(DataError, match=r"'meta' .*coarse_label_names has 0 names .* must have 20"):
        cifar100(str(folder))
    folder = write(tmp_path / "c", binary100() | {"fine_label_names.txt": b"one two"})
    with pytest.raises(DataError, match=r"'fine_label_names.txt' .* has 2 names .* must have 100"):
        cifar100(str(folder))


def test_parquet_that_is_wrong(tmp_path: Path) -> None:
    reals = {"fine_label": FINE_Y["train"] / 2}
    cases = [
        ({"fine_label": FINE_Y["train"] + 90}, r"image 10: fine_label is 100; it must be 0 to 99"),
        (reals, r"column 'fine_label' is of type double; it must be of whole numbers"),
        ({"fine_label": [None, *range(39)]}, r"row 0: the column 'fine_label' is empty"),
        ({"img": [b"no image"] * TRAIN}, r"'train-.*, row 0' cannot be read"),
        (
            {"img": [png(pixels(1)[0, :, :9])] * TRAIN},
            r"row 0' is 32 × 9 pixels, the data's are 32",
        ),
    ]
    for k, (changes, says) in enumerate(cases):
        with pytest.raises(DataError, match=says):
            cifar100(str(tables100(tmp_path / str(k), train=changes)))
    folder = tmp_path / "columns"
    folder.mkdir()
    for part in X:
        pq.write_table(
            pa.table({"img": [png(X["test"][0])], "label": [0]}), folder / f"{part}.parquet"
        )
    with pytest.raises(DataError, match=r"no column 'coarse_label'; it has img, label"):
        cifar100(str(folder))


# What would run code, or leave the folder


class Explosive:
    """Unpickling this would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.path,))


class Indirect(Explosive):
    """The same by a text of Python."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (eval, (f"__import__('pathlib').Path({str(self.path)!r}).touch()",))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [Explosive, Indirect])
@pytest.mark.parametrize("packed", [False, True])
def test_law_7_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, protocol: int, kind: type[Explosive], packed: bool
) -> None:
    mark = tmp_path / "executed"
    for value in (kind(mark), GOOD | {"more": [kind(mark)]}, {kind(mark): 1}):
        files = python100() | {"train": pickle.dumps(value, protocol)}
        path = archive(tmp_path / "a.tar.gz", files) if packed else write(tmp_path / "a", files)
        with pytest.raises(DataError, match=r"the file 'train' in .* asks for .* could run code"):
            cifar100(str(path))
        assert not mark.exists()
    pickle.loads(files["train"])
    assert mark.exists(), "the attack would have worked"


def test_archives_that_leave_their_folder_are_refused(tmp_path: Path) -> None:
    content = binary100()
    for name in ("../x", "/etc/x", "a/../../x", "..\\x", "C:\\x"):
        path = archive(tmp_path / "a.tar.gz", content | {name: b"x"}, prefix="")
        with pytest.raises(DataError, match=r"is refused: its member '.*' leaves the folder"):
            cifar100(str(path))
    for kind in (
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
    ):
        path = tmp_path / "b.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            member = tarfile.TarInfo("train.bin")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        with pytest.raises(DataError, match=r"its member 'train.bin' is a link or a device"):
            cifar100(str(path))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.tar.gz", "b.tar.gz"]


def test_archives_that_are_damaged_or_odd(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", binary100())
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no archive", whole[:-9] + b"x" * 9):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"the archive '.*a.tar.gz' (cannot be read|has no)"):
            cifar100(str(path))
    twice = archive(path, {"a/train.bin": b"x", "b/train.bin": b"y"})
    with pytest.raises(DataError, match=r"has two files called 'train.bin'"):
        cifar100(str(twice))
    huge = io.BytesIO()
    member = tarfile.TarInfo("train.bin")
    member.size = 1 << 40
    huge.write(member.tobuf())
    (tmp_path / "b.tar").write_bytes(huge.getvalue() + bytes(1024))
    with pytest.raises(DataError, match="has 1099511627776 bytes; at most"):
        cifar100(str(tmp_path / "b.tar"))


# The cache


def entry(base: Path) -> Path:
    [folder] = base.iterdir()
    return folder


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    decode = module._records

    def spy(kind: Any, where: str, content: bytes) -> Any:
        calls.append(where)
        return decode(kind, where, content)

    monkeypatch.setattr(module, "_records", spy)
    return calls


def test_the_second_time_nothing_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    path = write(tmp_path / "data", binary100())
    cifar100(str(path), validation=0)
    assert len(calls) == 2
    cifar100(str(path), coarse=True, validation=7)
    assert len(calls) == 2
    assert entry(tmp_path / "cache" / "extracurricular").name.startswith("cifar100-")
    cifar100(str(path), validation=0, cache=False)
    assert len(calls) == 4
    cifar100(str(path), validation=0, cache=str(tmp_path / "own"))
    assert len(calls) == 6
    assert entry(tmp_path / "own").is_dir()


def test_other_files_are_decoded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "data", binary100())
    cifar100(str(path), validation=0)
    calls = counted(monkeypatch)
    X2 = pixels(TEST, 2)  # noqa: N806
    other = np.concatenate([np.zeros((TEST, 2), np.uint8), X2.reshape(-1, 3072)], axis=1)
    (path / "test.bin").write_bytes(other.tobytes())
    os.utime(path / "test.bin", ns=(1, 1))
    data = cifar100(str(path), validation=0)
    assert torch.equal(leaves(data.test.x)[""], torch.from_numpy(X2))
    assert len(calls) == 2
    # One entry for one source.
    assert entry(tmp_path / "cache" / "extracurricular").is_dir()


def test_a_damaged_entry_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "data", binary100())
    cifar100(str(path), validation=0)
    calls = counted(monkeypatch)
    folder = entry(tmp_path / "cache" / "extracurricular")
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        flipped = bytes([*whole[:-3], whole[-3] ^ 1, *whole[-2:]])
        for content in (whole[:-5], b"", flipped, b"[]", None):
            before = len(calls)
            file.unlink() if content is None else file.write_bytes(content)
            same(cifar100(str(path), validation=0))
            assert len(calls) == before + 2, (file.name, content)
            assert file.read_bytes() == whole


def test_law_7_nothing_in_the_cache_is_executed(tmp_path: Path) -> None:
    mark, file = tmp_path / "executed", tmp_path / "a"
    file.touch()
    make = lambda: {"x": np.arange(3)}  # noqa: E731
    cached("a", [file], make, cache=str(tmp_path / "c"))
    folder = entry(tmp_path / "c")
    np.save(folder / "x.npy", np.array([Explosive(mark)], dtype=object), allow_pickle=True)
    content = (folder / "x.npy").read_bytes()
    from extracurricular.files import read_json, sha256, write_json

    known = read_json(folder / "entry.json")
    known["arrays"]["x"] = sha256(content)
    write_json(folder / "entry.json", known)
    assert cached("a", [file], make, cache=str(tmp_path / "c"))["x"].tolist() == [0, 1, 2]
    assert not mark.exists()


def test_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "data", binary100())
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    same(cifar100(str(path), validation=0))
    with pytest.raises(DataError, match=r"cache is '.*file/x': "):
        cifar100(str(path), cache=str(tmp_path / "file" / "x"))
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert cache_folder() == Path.home() / ".cache" / "extracurricular"
