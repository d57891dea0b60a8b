"""Files made to be executed, to lie, to escape or to fill the memory, and the commands they get."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors.torch
import torch
import yaml

from drills.common import Dice
from drills.mutations import ODD, mutated, written

MARK = "EXECUTED"
CODE = "hostile_code"
SECRET = "outside.bin"

Made: TypeAlias = tuple[str, list[list[str]]]
"""The kind of a hostile file, and the commands that it is given to."""


class _Evil:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


DATA = "{table: {path: data.csv, target: y}}"
NET = "{mlp: {hidden: [2]}}"
RUN = [
    ["report", "run"], ["evaluate", "run"], ["predict", "run", "data.csv"], ["data", "run"],
    ["compare", "run", "run"], ["export", "run", "--out", "again/kd.onnx"],
    ["draws", "run", "--count", "128"], ["evaluate", "run", "--teacher"],
]  # fmt: skip


def _weights(place: Path, chance: Dice) -> Made:
    name = "w" + chance.choice([".pth", ".pt", ".ckpt", ".bin", ".safetensors"])
    file, mark = place / name, place.parent / MARK
    state = {"body.0.weight": torch.zeros(2, 3), "body.0.bias": torch.zeros(2)}
    made: dict[str, Callable[[], object]] = {
        "a pickle with code": lambda: file.write_bytes(pickle.dumps(_Evil(mark))),
        "a checkpoint with code": lambda: torch.save({"state_dict": state, "x": _Evil(mark)}, file),
        "an old checkpoint with code": lambda: torch.save(
            {"state_dict": state, "x": _Evil(mark)}, file, _use_new_zipfile_serialization=False
        ),
        "a module": lambda: torch.save(torch.nn.Linear(3, 2), file),
        "a pickle of NumPy": lambda: file.write_bytes(pickle.dumps({"a": np.zeros(3)})),
        "random bytes": lambda: file.write_bytes(chance.randbytes(chance.choice([0, 1, 9, 5000]))),
        "a lying header": lambda: file.write_bytes(_lying_safetensors(chance)),
        "a damaged checkpoint": lambda: _damaged(file, _saved(state), chance),
        "other keys": lambda: torch.save({"\x1b[31mred": torch.zeros(2)}, file),
        "no tensors": lambda: torch.save(chance.choice(ODD[:20]), file),
        "a tensor of strange strides": lambda: torch.save(
            {"body.0.weight": torch.zeros(1).expand(2, 3)}, file
        ),
        "a huge tensor": lambda: torch.save({"a": torch.zeros(1).expand(10**9, 10**6)}, file),
        "a name of code": lambda: safetensors.torch.save_file(
            state, file, {"format": f"{CODE}:thing", "model": f"{CODE}:thing"}
        ),
        "a pickle of many containers": lambda: file.write_bytes(
            b"\x80\x04" + b"]" * chance.choice([10, 10**5]) + b"a" * 9 + b"."
        ),
    }  # fmt: skip
    kind = chance.choice(sorted(made))
    made[kind]()
    commands = [
        ["evaluate", name, DATA, "--model", NET],
        ["init", "data.csv", "--teacher", name, "--model", NET, "--target", "y", "--out", "n.yaml"],
        ["predict", name, "data.csv"],
    ]
    return kind, commands


def _saved(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _lying_safetensors(chance: Dice) -> bytes:
    header: dict[str, Any] = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    lies: list[dict[str, Any]] = [
        {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
        {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [24, 0]}},
        {"a": {"dtype": "F99", "shape": [2, 3], "data_offsets": [0, 24]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 24]}},
        {"a": {"dtype": "F32", "shape": [2**63, 2**63], "data_offsets": [0, 24]}},
        {"__metadata__": {"format": 3}, **header},
        {"\x1b[2J": header["a"]},
        {},
    ]
    text = json.dumps(chance.choice(lies)).encode()
    size = chance.choice([len(text), len(text), 2**63, 0, 10**9])
    return struct.pack("<Q", size) + text + bytes(24)


def _damaged(file: Path, content: bytes, chance: Dice) -> None:
    """Write content with some of its bytes changed, or cut."""
    found = bytearray(content)
    for _ in range(chance.choice([1, 3, 30])):
        found[chance.randrange(len(found))] = chance.randrange(256)
    file.write_bytes(found[: chance.choice([len(found), len(found), chance.randrange(len(found))])])


def _arrays(place: Path, chance: Dice) -> Made:
    name, mark = chance.choice(["d.npz", "d.npy"]), place.parent / MARK
    file = place / name
    x, y = np.zeros((30, 3), np.float32), np.arange(30) % 3
    evil = np.array([_Evil(mark)] * 30, dtype=object)

    def save(**parts: Any) -> None:
        if name.endswith(".npy"):
            np.save(file, next(iter(parts.values())), allow_pickle=True)
        else:
            np.savez(file, **parts)

    made: dict[str, Callable[[], object]] = {
        "pickled examples": lambda: save(x=evil, y=y),
        "pickled labels": lambda: save(x=x, y=evil),
        "a pickled further array": lambda: save(x=x, y=y, z=evil),
        "a pickle": lambda: file.write_bytes(pickle.dumps(_Evil(mark))),
        "a lying header": lambda: _lying_npy(file, chance),
        "names that escape": lambda: _zip(file, {"../../x.npy": _npy(x), "y.npy": _npy(y)}),
        "names that mark up": lambda: save(**{"x\x1b[31m": x, "[red]": y}),
        "strange types": lambda: save(x=np.zeros(30, chance.choice(_TYPES)), y=y),
        "no examples": lambda: save(x=x[:0], y=y[:0]),
        "texts": lambda: save(x=x, y=np.array(["\x1b[31m", "[b]", "../.."] * 10)),
        "numbers beyond all": lambda: save(x=x + np.float32(np.inf), y=y),
        "complex numbers": lambda: save(x=x.astype(np.complex64), y=y),
        "a bomb": lambda: _zip(file, {"x.npy": _npy_header((2**31, 3)) + bytes(2 * 10**8)}),
        "random bytes": lambda: file.write_bytes(chance.randbytes(chance.choice([0, 1, 4000]))),
        "a damaged file": lambda: _damaged(file, _npz(x=x, y=y), chance),
    }  # fmt: skip
    kind = chance.choice(sorted(made))
    made[kind]()
    commands = [
        ["data", f"arrays:{name}"], ["init", name, "--out", "n.yaml"], ["predict", "run", name],
        ["evaluate", "run", f"arrays:{name}"],
        ["init", "data.csv", "--target", "y", "--teacher", name, "--out", "n.yaml"],
    ]  # fmt: skip
    return kind, commands


_TYPES: list[Any] = [
    "V8",
    "M8[s]",
    "m8[D]",
    "S5",
    "U5",
    [("a", "f4"), ("b", "i4")],
    "f2",
    "?",
    "u8",
]


def _npz(**parts: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **parts)
    return buffer.getvalue()


def _npy_header(shape: Any, descr: str = "<f4") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _lying_npy(file: Path, chance: Dice) -> None:
    shape: Any = chance.choice([(10**12, 3), (2**62, 2**62), (-1, 3), (3.5,), "x", (2**33,)])
    content = _npy_header(shape, chance.choice(["<f4", "|O", "<f4", "|V0", "<U2147483647"]))
    content += bytes(64)
    if file.suffix == ".npy":
        file.write_bytes(content)
    else:
        _zip(file, {"x.npy": content, "y.npy": _npy(np.arange(30))})


def _zip(file: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)


def _onnx(place: Path, chance: Dice) -> Made:
    import onnx
    from onnx import TensorProto, helper

    file = place / "out" / "kd.onnx"
    model = onnx.load(str(file))
    about = {one.key: one for one in model.metadata_props}["extracurricular"]

    def external(location: str, extra: str | None = None) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        for one in [location, *([extra] if extra else [])]:
            tensor.external_data.add(key="location", value=one)

    def node(kind: str, domain: str = "") -> None:
        found = helper.make_node(kind, [model.graph.output[0].name], ["zz"], domain=domain)
        model.graph.node.append(found)
        if domain:
            model.opset_import.add(domain=domain, version=1)

    def metadata() -> None:
        about.value = json.dumps(mutated(json.loads(about.value), chance), default=str)

    def dims() -> None:
        model.graph.initializer[0].dims[:] = [chance.choice([2**40, -1, 0, 2**62])] * 2

    def link() -> None:
        (place / "out" / "linked.bin").symlink_to(place.parent / SECRET)
        external("linked.bin")

    made: dict[str, Callable[[], object]] = {
        "tensors outside": lambda: external(f"../../{SECRET}"),
        "tensors at an absolute path": lambda: external("/etc/passwd"),
        "tensors at two places": lambda: external("kd.onnx", f"../../{SECRET}"),
        "tensors at two places, turned": lambda: external(f"../../{SECRET}", "kd.onnx"),
        "tensors behind a link": link,
        "tensors at a name of signs": lambda: external("\x1b[31m\n"),
        "an operator of somebody's own": lambda: node("Evil", "evil"),
        "an operator of Python": lambda: node("PythonOp", "com.microsoft"),
        "an unknown operator": lambda: node("Nothing"),
        "other metadata": metadata,
        "metadata with code": lambda: setattr(about, "value", json.dumps({"model": f"{CODE}:x"})),
        "metadata that nest": lambda: setattr(about, "value", "[" * 10**5),
        "lying sizes": dims,
        "no inputs": lambda: model.graph.ClearField("input"),
        "no graph": lambda: model.ClearField("graph"),
    }  # fmt: skip
    kind = chance.choice([*sorted(made), "damaged bytes", "random bytes"])
    if kind == "random bytes":
        file.write_bytes(chance.randbytes(chance.choice([0, 1, 100, 5000])))
    elif kind == "damaged bytes":
        _damaged(file, file.read_bytes(), chance)
    else:
        made[kind]()
        file.write_bytes(model.SerializeToString())
    commands = [
        ["evaluate", "out/kd.onnx", DATA], ["predict", "out/kd.onnx", "data.csv"],
        ["predict", "out", "data.csv"],
        ["evaluate", "out/kd.onnx", DATA, "--onnx", "{output: logits}"],
        ["init", "data.csv", "--target", "y", "--teacher", "out/kd.onnx", "--out", "n.yaml"],
    ]  # fmt: skip
    return kind, commands


def _json_of_a_run(place: Path, chance: Dice) -> Made:
    files = sorted(f for f in (place / "run").rglob("*.json") if f.is_file())
    file = chance.choice([*files, *[place / "run" / "summary.json"] * 3])
    kind = chance.choice(["changed values", "changed values", "nested", "signs", "code", "bytes"])
    content = json.loads(file.read_text())
    if kind == "changed values":
        for _ in range(chance.choice([1, 1, 2, 4])):
            content = mutated(content, chance)
        file.write_text(json.dumps(content, default=str))
    elif kind == "nested":
        file.write_text(chance.choice(["[" * 10**5, '{"a":' * 5000 + "1" + "}" * 5000]))
    elif kind == "signs":
        file.write_text(file.read_text().replace('"kd"', '"\\u001b[31mkd"').replace("small", "[b]"))
    elif kind == "code":
        file.write_text(file.read_text().replace('"mlp"', f'"{CODE}:thing"'))
    else:
        _damaged(file, file.read_bytes(), chance)
    return f"{kind} of {file.relative_to(place)}", RUN


def _recipe_of_a_run(place: Path, chance: Dice) -> Made:
    run = place / "run"
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    summary = json.loads((run / "summary.json").read_text())
    kind = chance.choice(["code", "code", "changed alike", "changed"])
    if kind == "code":
        text = written(recipe)
        name = chance.choice(["mlp", "table", "empirical", "kd", "forward_kl"])
        recipe = yaml.safe_load(text.replace(name, f"{CODE}:thing"))
    else:
        recipe = mutated(recipe, chance)
    if kind != "changed":
        summary["recipe"] = recipe
    (run / "recipe.yaml").write_text(written(recipe), encoding="utf-8")
    (run / "summary.json").write_text(json.dumps(summary, default=str))
    return kind, RUN


def _files_of_a_run(place: Path, chance: Dice) -> Made:
    files = sorted((place / "run").rglob("*.safetensors")) + sorted((place / "run").rglob("*.gz"))
    file, mark = chance.choice(files), place.parent / MARK
    kind = chance.choice(["pickle", "lying header", "damaged", "link", "folder"])
    if kind == "pickle":
        file.write_bytes(pickle.dumps(_Evil(mark)))
    elif kind == "lying header":
        file.write_bytes(_lying_safetensors(chance))
    elif kind == "damaged":
        _damaged(file, file.read_bytes(), chance)
    else:
        file.unlink()
        if kind == "link":
            file.symlink_to("/dev/zero" if chance.random() < 0.5 else place.parent / SECRET)
        else:
            file.mkdir()
    return f"{kind} as {file.relative_to(place)}", RUN


def _table(place: Path, chance: Dice) -> Made:
    name = "t" + chance.choice([".csv", ".tsv", ".parquet", ".xlsx", ".json", ".npz", ".txt"])
    rows = "\n".join(f"{k},{k * 2},{'ab'[k % 2]}" for k in range(40))
    texts = {
        "formulas": "p,q,y\n" + rows.replace("1,2", "=cmd|'/c calc'!A0,2"),
        "signs": "p\x1b[31m,[b]q[/b],y\x07\n" + rows,
        "one long line": "p,q,y\n" + "1," * 10**5,
        "many columns": ",".join(f"c{k}" for k in range(5000)) + "\n" + ",".join("1" * 5000),
        "bytes": "p,q,y\n" + rows + "\n\x00\x00,1,a",
        "half characters": "p,q,y\n" + rows,
        "numbers beyond all": "p,q,y\n" + rows.replace("3,6", "1e999,-1e999"),
        "the same names": "p,p,y\n" + rows,
        "open quotes": 'p,q,y\n"' + rows,
        "names of code": f"p,q,{CODE}:thing\n" + rows,
        "names that escape": "p,q,../../x\n" + rows,
        "nothing": "",
        "a header": "p,q,y\n",
    }
    kind = chance.choice([*sorted(texts), "random bytes", "a pickle"])
    if kind == "random bytes":
        (place / name).write_bytes(chance.randbytes(chance.choice([1, 50, 5000])))
    elif kind == "a pickle":
        (place / name).write_bytes(pickle.dumps(_Evil(place.parent / MARK)))
    else:
        text = texts[kind].encode()
        (place / name).write_bytes(text + (b"\xff\xfe" if kind == "half characters" else b""))
    commands = [
        ["data", f"table:{name}"], ["init", name, "--out", "n.yaml"], ["predict", "run", name],
        ["init", "data.csv", "--target", "y", "--teacher", name, "--out", "n.yaml"],
    ]  # fmt: skip
    return f"{kind} as {name}", commands


def _pictures(place: Path, chance: Dice) -> Made:
    image = place / "images" / "train" / "class-0" / "0.png"
    content = image.read_bytes()
    kind = chance.choice(["escape", "bomb", "lying size", "random", "link", "eps", "names", "loop"])
    zipped = place / "images.zip"
    if kind == "escape":
        _zip(zipped, {"train/a/../../../x.png": content, "train/b/1.png": content})
    elif kind == "bomb":
        _zip(zipped, {f"train/a/{k}.png": bytes(10**8) for k in range(3)})
    elif kind == "lying size":
        image.write_bytes(content[:16] + struct.pack(">II", 60000, 60000) + content[24:])
    elif kind == "random":
        image.write_bytes(chance.randbytes(chance.choice([0, 10, 3000])))
    elif kind == "link":
        image.unlink()
        image.symlink_to("/dev/zero")
    elif kind == "eps":
        image.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n")
    elif kind == "names":
        image.parent.rename(image.parent.with_name("\x1b[31m[b]class"))
    else:
        (image.parent / "again").symlink_to(place / "images")
    where = "images.zip" if zipped.exists() else "images"
    commands = [
        ["data", f"imagefolder:{where}"], ["init", where, "--out", "n.yaml"],
        ["predict", "run", where], ["data", f"{{imagefolder: {{path: {where}, stream: true}}}}"],
    ]  # fmt: skip
    return kind, commands


def _shards(place: Path, chance: Dice) -> Made:
    shard, mark = place / "shards" / "train-0.tar", place.parent / MARK
    shard.parent.mkdir()
    images = sorted((place / "images" / "train").rglob("*.png"))
    parts = {
        f"{k}.{end}": content
        for k, image in enumerate(images)
        for end, content in (("png", image.read_bytes()), ("cls", b"%d" % (k % 2)))
    }
    changes: dict[str, dict[str, bytes]] = {
        "names that escape": {"../../x.png": parts["0.png"], "../../x.cls": b"0"},
        "a pickle as a label": {"0.cls": pickle.dumps(_Evil(mark))},
        "a pickle as an image": {"0.png": pickle.dumps(_Evil(mark))},
        "a label of signs": {"0.cls": b"\x1b[31m[b]\x00\n"},
        "a long label": {"0.cls": b"9" * 10**6},
        "a label beyond all": {"0.cls": b"1e999"},
        "labels of code": {f"{k}.cls": f"{CODE}:thing".encode() for k in range(len(images))},
        "an image without an end": {"0.png": parts["0.png"][:40]},
        "an image of a lying size": {
            "0.png": parts["0.png"][:16] + struct.pack(">II", 60000, 60000) + parts["0.png"][24:]
        },
        "a label that nests": {f"{k}.json": b"[" * 10**5 for k in range(len(images))},
    }
    tars = ["link", "hard link", "pipe", "device", "sparse"]
    spoiled = ["lying size", "damaged", "cut", "random bytes", "packed", "a lying index", "loop"]
    kind = chance.choice([*sorted(changes), *tars, *spoiled])
    _tar(shard, parts | changes.get(kind, {}), kind if kind in tars else "")
    content = shard.read_bytes()
    if kind == "lying size":
        # Of the first member, with a checksum that fits.
        field = chance.choice([b"77777777777\0", b"\x80" + b"\xff" * 11, b"-0000000001\0"])
        first = content[:124] + field + content[136:148] + b" " * 8 + content[156:512]
        shard.write_bytes(first[:148] + b"%06o\0 " % sum(first) + first[156:] + content[512:])
    elif kind == "damaged":
        _damaged(shard, content, chance)
    elif kind == "cut":
        shard.write_bytes(content[: chance.randrange(len(content))])
    elif kind == "random bytes":
        shard.write_bytes(chance.randbytes(chance.choice([0, 1, 512, 5000])))
    elif kind == "packed":
        shard.write_bytes(gzip.compress(content + bytes(10**8)))
    elif kind == "a lying index":
        index = shard.with_name(f"{shard.name}.xcl-index")
        index.write_bytes(
            chance.choice([pickle.dumps(_Evil(mark)), b"[" * 10**5, b"{}", chance.randbytes(99)])
        )
    elif kind == "loop":
        shard.unlink()
        shard.symlink_to(shard)
    spec = "{webdataset: {path: shards, validation: 2, test: 2, size: 8%s}}"
    commands = [
        ["data", spec % ""], ["data", spec % ", stream: true"], ["data", spec % ", damaged: skip"],
        ["data", "webdataset:shards"],
    ]  # fmt: skip
    return f"{kind} in a shard", commands


def _tar(file: Path, members: dict[str, bytes], odd: str) -> None:
    """Write a shard, with an odd kind of member as its first image."""
    types = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE,
             "device": tarfile.CHRTYPE, "sparse": tarfile.GNUTYPE_SPARSE}  # fmt: skip
    with tarfile.open(file, "w") as made:
        for name, content in members.items():
            one = tarfile.TarInfo(name)
            one.size = len(content)
            if odd and name == "0.png":
                one.type, one.linkname = types[odd], f"../../{SECRET}"
                one.size = 0 if odd != "sparse" else len(content)
            made.addfile(one, io.BytesIO(content[: one.size]))


def _saved_student(place: Path, chance: Dice) -> Made:

    folder = place / "student"
    data = place / "out" / "metadata.json"
    about = json.loads(data.read_text())
    kind = chance.choice(["metadata", "predictor", "code"])
    if kind == "metadata":
        data.write_text(json.dumps(mutated(about, chance), default=str))
        return kind, [["predict", "out", "data.csv"], ["evaluate", "out", DATA]]
    folder.mkdir()
    found: dict[str, Any] = {
        "schema": 1, "name": "kd", "task": {"kind": "classification", "size": 3},
        "model": f"{CODE}:thing" if kind == "code" else {"mlp": {"hidden": [2]}},
        "parameters": 17, "batch_size": 8, "sha256": "0" * 64,
    }  # fmt: skip
    found |= {k: v for k, v in about.items() if k in ("inputs", "classes", "columns", "outputs")}
    (folder / "predictor.json").write_text(json.dumps(mutated(found, chance), default=str))
    shutil.copy(place / "run" / "students" / "kd" / "seed-0" / "weights.safetensors", folder)
    init = ["init", "data.csv", "--target", "y", "--teacher", "student", "--out", "n.yaml"]
    return kind, [["predict", "student", "data.csv"], ["evaluate", "student", DATA], init]


KINDS: dict[str, Callable[[Path, Dice], Made]] = {
    "weights": _weights,
    "arrays": _arrays,
    "ONNX": _onnx,
    "JSON of a run": _json_of_a_run,
    "JSON of a run, again": _json_of_a_run,
    "recipe of a run": _recipe_of_a_run,
    "files of a run": _files_of_a_run,
    "table": _table,
    "pictures": _pictures,
    "shards": _shards,
    "saved student": _saved_student,
}
