"""Checkpoints as training scripts leave them: where the weights are found, and what is told."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extracurricular.errors import StorageError
from extracurricular.models.checkpoints import read_checkpoint
from extracurricular.models.unpickle import StandIn, UnreadableError, inert
from extracurricular.models.weights import load_pretrained

# -- networks and files ---------------------------------------------------------------------------


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


STATE = network().state_dict()
OTHER = network(1).state_dict()


def prefixed(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def loaded(path: Path, key: str | None = None) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    module = network(9)
    notes = load_pretrained(module, path, key=key)
    return module.state_dict(), notes


def same(a: dict[str, Tensor], b: dict[str, Tensor] = STATE) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in b)


@pytest.mark.parametrize(
    "content",
    [
        {"model_state_dict": STATE, "epoch": 3, "loss": torch.tensor(0.5)},
        {"net": STATE, "acc": 91.5},
        {"teacher": STATE, "optimizer": {"state": {}, "param_groups": []}},
        {"model": {"state_dict": STATE}, "step": 5},
        {"my_own_word": STATE, "epoch": 1},
        {**STATE, "0._extra_state": torch.tensor(1)},
        {"model_ema": STATE},
    ],
)
def test_weights_are_found_under_the_words_of_scripts(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    state, _ = loaded(tmp_path / "w.pth")
    assert same(state)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "model.net.module."]
)
def test_prefixes_are_left_out_and_told(prefix: str, tmp_path: Path) -> None:
    torch.save({"state_dict": prefixed(prefix)}, tmp_path / "w.ckpt")
    state, notes = loaded(tmp_path / "w.ckpt")
    assert same(state)
    assert len(notes) == 1
    assert repr(prefix) in notes[0]


def test_a_prefix_within_names_is_left_out_too(tmp_path: Path) -> None:
    torch.save({name.replace("0.", "0._orig_mod.", 1): v for name, v in STATE.items()},
               tmp_path / "w.pth")  # fmt: skip
    assert same(loaded(tmp_path / "w.pth")[0])


def test_an_averaged_model_of_torch_is_read(tmp_path: Path) -> None:
    average = torch.optim.swa_utils.AveragedModel(network())
    torch.save(average.state_dict(), tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth")[0])


def test_a_name_that_the_network_has_is_no_prefix(tmp_path: Path) -> None:
    module = nn.ModuleDict({"model": nn.Linear(2, 2)})
    torch.save(module.state_dict(), tmp_path / "w.pth")
    assert load_pretrained(module, tmp_path / "w.pth") == ()


def test_of_plain_and_averaged_weights_one_is_taken_and_told(tmp_path: Path) -> None:
    torch.save({"model": STATE, "model_ema": OTHER}, tmp_path / "w.pth")
    state, [note] = loaded(tmp_path / "w.pth")
    assert same(state)
    assert "'model' is taken" in note
    assert "key: model_ema" in note
    state, notes = loaded(tmp_path / "w.pth", "model_ema")
    assert same(state, OTHER)
    assert notes == ()


def test_the_names_decide_which_of_two_networks_is_meant(tmp_path: Path) -> None:
    content = {"model": {"head.weight": torch.ones(2, 2)}, "teacher": prefixed("module.")}
    torch.save(content, tmp_path / "w.pth")
    state, notes = loaded(tmp_path / "w.pth")
    assert same(state)
    assert any("'teacher' is taken" in note for note in notes)


def test_a_key_may_be_a_path_or_the_first_part_of_names(tmp_path: Path) -> None:
    torch.save({"a": {"b": STATE}, "c": OTHER}, tmp_path / "nest.pth")
    assert same(loaded(tmp_path / "nest.pth", "a.b")[0])
    both = {"state_dict": {**prefixed("teacher."), **prefixed("student.", OTHER)}}
    torch.save(both, tmp_path / "both.ckpt")
    assert same(loaded(tmp_path / "both.ckpt", "teacher")[0])
    with pytest.raises(StorageError, match=r"no state dict 'tutor'; it has 'state_dict'"):
        loaded(tmp_path / "both.ckpt", "tutor")


class Hyper(dict[str, Any]):
    """Stands for Lightning's hyper-parameters, a class that torch refuses."""


def test_other_pickled_things_become_stand_ins(tmp_path: Path) -> None:
    content = {
        "state_dict": prefixed("model."),
        "args": argparse.Namespace(lr=0.1, path=Path("x")),
        "best": np.float64(0.5),
        "hyper_parameters": Hyper(width=3),
        "optimizer": torch.optim.SGD(network().parameters(), lr=0.1, momentum=0.9).state_dict(),
    }
    for legacy in (False, True):
        path = tmp_path / f"w{legacy}.ckpt"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        assert same(loaded(path)[0])


class Odd(nn.Module):
    """A network of a script that is not here any more."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("passing", torch.ones(2), persistent=False)

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_the_tensors_of_a_whole_pickled_network_are_read(legacy: bool, tmp_path: Path) -> None:
    module = Odd()
    path = tmp_path / "whole.pth"
    torch.save(module, path, _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(path)
    assert same(found.states[""], module.state_dict())
    assert "a whole network" in found.notes[0]
    torch.save({"model": module, "epoch": 2}, path, _use_new_zipfile_serialization=not legacy)
    assert same(read_checkpoint(path).states["model"], module.state_dict())


def test_views_shared_storages_and_types_come_back_as_they_were() -> None:
    base = torch.arange(24.0).reshape(4, 6)
    content = {
        "t": base.t(), "row": base[2], "part": base[1:, 2:4], "half": base.half(),
        "brain": base.bfloat16(), "long": torch.arange(3), "none": torch.zeros(0, 3),
        "scalar": torch.tensor(7), "f8": base.to(torch.float8_e4m3fn),
        "u16": torch.zeros(2, dtype=torch.uint16),
        "parameter": nn.Parameter(base), "bool": base > 3, "complex": base.to(torch.complex64),
    }  # fmt: skip
    for legacy in (False, True):
        kept = {k: v for k, v in content.items() if not legacy or k not in ("f8", "u16")}
        buffer = io.BytesIO()
        torch.save(kept, buffer, _use_new_zipfile_serialization=not legacy)
        found = inert(buffer.getvalue())
        for name, value in kept.items():
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name].to(torch.complex64), value.to(torch.complex64)), name


# -- files that are something else ----------------------------------------------------------------


def scripted() -> bytes:
    buffer = io.BytesIO()
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"<?xml version='1.0'?><Error/>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "Git LFS"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(50), "gzip"),
        (b"hello", "is no file of torch"),
        (pickle.dumps({"a": 1}), "is a pickle, but no file of torch"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_other_kinds_are_named(
    content: bytes, words: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    if suffix == ".safetensors" and "torch" in words:
        words = "damaged"
    with pytest.raises(StorageError, match=words):
        loaded(path)


def test_torchscript_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.pt").write_bytes(scripted())
    with pytest.raises(StorageError, match="TorchScript"):
        loaded(tmp_path / "s.pt")


@pytest.mark.filterwarnings("ignore")
def test_quantised_weights_are_named_not_read_as_whole_numbers(tmp_path: Path) -> None:
    torch.save(
        {k: torch.quantize_per_tensor(v.float(), 0.1, 0, torch.qint8) for k, v in STATE.items()},
        tmp_path / "q.pth",
    )
    with pytest.raises(StorageError, match=r"'0\.weight' .* is quantised \(qint8\)"):
        loaded(tmp_path / "q.pth")
    torch.save({k: v.to(torch.int8) for k, v in STATE.items()}, tmp_path / "i.pth")
    with pytest.raises(StorageError, match=r"is quantised \(int8\)"):
        loaded(tmp_path / "i.pth")
    mixed = {"state_dict": {"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)},
             "args": argparse.Namespace()}  # fmt: skip
    torch.save(mixed, tmp_path / "m.pth")
    with pytest.raises(StorageError, match="quantised weights"):
        loaded(tmp_path / "m.pth")


def test_safetensors_under_another_name_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save

    (tmp_path / "w.bin").write_bytes(save(dict(STATE)))
    assert same(loaded(tmp_path / "w.bin")[0])


# -- hostile files --------------------------------------------------------------------------------


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.call = (function, given)

    def __reduce__(self) -> Any:
        return self.call


class Explodes:
    """Has a state that its class would act on."""

    def __setstate__(self, state: Any) -> None:
        Path(state["path"]).write_text("run")

    def __getstate__(self) -> Any:
        return {"path": "planted"}


def hostile(mark: Path) -> dict[str, Any]:
    command = f"touch {mark}"
    return {
        "system": Runs(os.system, command),
        "eval": Runs(eval, f"open({str(mark)!r}, 'w')"),
        "exec": Runs(exec, f"open({str(mark)!r}, 'w')"),
        "getattr": Runs(getattr, Runs(__import__, "os"), "system"),
        "open": Runs(open, str(mark), "w"),
        "setstate": Explodes(),
        "load": Runs(torch.load, str(mark)),
        "hub": Runs(torch.hub.load, "a", "b"),
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", sorted(hostile(Path("x"))))
def test_nothing_in_a_file_is_called(
    name: str, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "planted"
    # A tensor beside the weapon, and the weapon as a key of the optimiser.
    content = {"state_dict": STATE, "z": hostile(mark)[name], "opt": [hostile(mark)[name]]}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    before = set(os.listdir(tmp_path))  # noqa: PTH208 - names alone are wanted
    state, _ = loaded(tmp_path / "w.pth")
    assert same(state)
    assert set(os.listdir(tmp_path)) == before  # noqa: PTH208


def zipped(program: bytes) -> bytes:
    """Return a file of torch with a pickle written by hand."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/version", "3")
        archive.writestr("a/data/0", bytes(16))
    return buffer.getvalue()


FLOATS = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
)


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch planted'\ntR.",  # REDUCE
        b"(S'touch planted'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch planted'\no.",  # OBJ
        b"\x80\x02cos\nsystem\nX\x0d\x00\x00\x00touch planted\x85\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x02os\x8c\x06system\x93"
        b"\x8c\x06__call\x86R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x02os\x8c\x0csystem.__call__\x93.",  # a dotted name
        b"c__main__\n__dict__\n}X\x01\x00\x00\x00aK\x01sb.",  # BUILD on a global
        b"cbuiltins\nobject\n(tR}X\x09\x00\x00\x00__class__cos\nsystem\nsb.",  # BUILD of attributes
        b"X\x0d\x00\x00\x00touch plantedQ.",  # a persistent id of another form
        b"(X\x06\x00\x00\x00modulecos\nsystem\nX\x01\x00\x00\x00aX\x01\x00\x00\x00btQ(S'x'\ntR.",
        b"\x82\x01.",  # EXT1
        b"cos\nsystem\nK\x01a.",  # APPEND to a class
        b"cos\nsystem\nS'a'\nK\x01s.",  # SETITEM of a class
        b"K\x01K\x02R.",  # a number that is called
        b"\x80\x02K\x01r\xff\xff\xff\x7f.",  # a memo of 16 GiB
        b"\x80\x02" + b"(" * 2000 + b"l" * 2000 + b".",  # lists in lists
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + FLOATS
        + b"J\xff\xff\xff\x7fK\x04\x85K\x01\x85tR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + FLOATS
        + b"K\x00J\xff\xff\xff\x7f\x85K\x01\x85tR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + FLOATS
        + b"K\x00K\x04\x85J\xff\xff\xff\xff\x85tR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(tR.",
        b"ctorch._utils\n_rebuild_from_type_v2\n(cos\nsystem\ncos\nsystem\n(S'x'\nt}tR.",
    ],
)
def test_every_instruction_of_a_pickle_is_harmless(
    program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called: list[str] = []
    monkeypatch.setattr(os, "system", called.append)
    for content in (zipped(program), zipped(b"\x80\x02" + program.removeprefix(b"\x80\x02"))):
        path = tmp_path / "w.pth"
        path.write_bytes(content)
        with pytest.raises(StorageError):
            read_checkpoint(path)
        try:
            found = inert(content)
        except UnreadableError:
            continue
        assert isinstance(found, StandIn | Tensor | dict | list | str | type | int)
    assert called == []
    assert os.listdir(tmp_path) == ["w.pth"]  # noqa: PTH208


def test_a_file_of_plain_tensors_reads_the_same_both_ways() -> None:
    buffer = io.BytesIO()
    torch.save(OrderedDict(STATE), buffer)
    assert same(inert(buffer.getvalue()))
    assert same(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))


def test_a_file_cut_or_changed_anywhere_is_told_in_a_sentence(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for legacy in (False, True):
        buffer = io.BytesIO()
        content = {"state_dict": STATE, "args": argparse.Namespace(a=[1, {2: "x"}])}
        torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
        whole = buffer.getvalue()
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(generator.integers(1, 4)):
                damaged[generator.integers(len(whole))] = generator.integers(256)
            cut = damaged[: generator.integers(len(whole))] if generator.random() < 0.3 else damaged
            with suppress(UnreadableError):
                inert(bytes(cut))


def test_a_packed_archive_is_refused_whatever_it_grows_to() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/data/0", bytes(10**6))
    with pytest.raises(UnreadableError, match="packed"):
        inert(buffer.getvalue())
