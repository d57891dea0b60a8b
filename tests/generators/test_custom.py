"""Generators of your own: what they give, that it is kept, and that nothing runs unasked."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.data.base import Data
from extracurricular.errors import RecipeError, StorageError
from extracurricular.files import load_weights, save_weights
from extracurricular.generators import GENERATORS, Fit, Generator
from extracurricular.generators.custom import OwnModule
from extracurricular.models.weights import load_pretrained
from tests.conftest import eye_data, image_data, table_data

CPU = torch.device("cpu")
OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, latent=6, classes=4):
        super().__init__()
        self.lift = nn.Linear(latent + classes, 64)
        self.norm = nn.BatchNorm1d(64)
        self.drop = nn.Dropout(0.5)

    def forward(self, latent, condition):
        flat = self.drop(self.norm(self.lift(torch.cat([latent, condition], 1))))
        return torch.tanh(flat).view(-1, 1, 8, 8)

def net():
    return Net()

def plain():
    weight = torch.ones(8, 8, requires_grad=True)
    return lambda latent, condition: latent[:, :1, None, None] * weight

def dictionary():
    return lambda latent, condition: {"x": latent}

def number():
    return lambda latent, condition: 3

def nothing():
    return 3

constant = 3
"""


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_generators.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_generators", raising=False)


def fit(entry: Fit, data: Data, **settings: Any) -> dict[str, Tensor]:
    return entry.fit(data, **{"seed": 0, "folder": None, "device": CPU, **settings})


def own(name: str = "net", **settings: Any) -> OwnModule:
    return OwnModule(**{"factory": f"my_generators:{name}", "latent": 6, **settings})


def net() -> nn.Module:
    import my_generators  # type: ignore[import-not-found]

    module: nn.Module = my_generators.net()
    return module


def test_a_recipe_names_a_module_with_its_settings() -> None:
    settings = {"factory": "my_generators:net", "latent": 6, "range": [-1, 1]}
    entry = GENERATORS.build({"module": {**settings, "conditional": False, "uniforms": 2}})
    assert isinstance(entry, Fit)
    assert entry.steps == 1
    data = image_data()
    for made in (entry.load(fit(entry, data), data), entry.preview(data)):
        assert isinstance(made, Generator)
        assert (made.latent, made.uniforms, made.conditional) == (6, 2, False)
        assert made.range == (-1, 1)
    with pytest.raises(RecipeError, match=r"module.range.*is 'x'"):
        GENERATORS.build({"module": {**settings, "range": ["x", 1]}})
    with pytest.raises(RecipeError, match=r"module.latent: is missing"):
        GENERATORS.build({"module": {"factory": "my_generators:net"}})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"latent": 0}, "latent is 0; it must be at least 1"),
        ({"uniforms": 7}, "uniforms is 7; it must be from 0 to 6"),
        ({"range": (1.0,)}, r"range is \[1.0\]; it must be two numbers"),
        ({"range": (1.0, -1.0)}, "its first number must be the smaller"),
        ({"factory": "net"}, "factory is 'net'; it must be package.module:function"),
    ],
)
def test_settings_of_a_module_are_checked(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        own(**settings)


def test_a_module_is_kept_as_it_was_and_only_evaluates(tmp_path: Path) -> None:
    data, entry = image_data(), own(range=(-1.0, 1.0))
    state = torch.random.get_rng_state()
    fitted = fit(entry, data, seed=5)
    made, again = (entry.load(fitted, data) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(fitted) == list(net().state_dict())
    same, other = fit(entry, data, seed=5), fit(entry, data, seed=6)
    assert all(torch.equal(same[k], fitted[k]) for k in fitted)
    assert not torch.equal(other["lift.weight"], fitted["lift.weight"])
    latent, condition = torch.randn(9, 6), torch.eye(4)[torch.arange(9) % 4]
    x = made.function(latent, condition)
    assert isinstance(x, Tensor)
    assert not x.requires_grad
    assert torch.equal(x, again.function(latent, condition))
    # Neither dropout nor batch statistics: each example alone is the same.
    alone = made.function(latent[:1], condition[:1])
    assert torch.allclose(x[:1], alone, atol=1e-6)  # type: ignore[arg-type]
    # And what is kept is a file of tensors.
    save_weights(tmp_path / "kept.safetensors", fitted)
    kept = entry.load(load_weights(tmp_path / "kept.safetensors"), data)
    assert torch.equal(x, kept.function(latent, condition))


def test_a_plain_function_needs_no_state() -> None:
    data, entry = image_data(), own("plain")
    assert fit(entry, data) == {}
    made = entry.load({}, data)
    latent = torch.rand(5, 6)
    x = made.function(latent, torch.zeros(5, 4))
    assert isinstance(x, Tensor)
    assert not x.requires_grad
    assert torch.equal(x[:, 0, 3, 4], latent[:, 0])
    with pytest.raises(ValueError, match="only a torch module takes weights"):
        fit(own("plain", weights="g.safetensors"), data)
    with pytest.raises(StorageError, match="is a torch module, but the factory gives a value of"):
        entry.load(fit(own(), data), data)
    with pytest.raises(StorageError, match=r"my_generators:net' has no tensor 'lift.weight'"):
        own().load({}, data)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone", r"factory: cannot import the factory 'my_generators:gone': .*gone"),
        ("constant", "factory: the factory 'my_generators:constant' cannot be called"),
        ("nothing", "which gives a value of type int; it must give a torch module or a function"),
        ("number", "gives a value of type int, not tensors"),
        ("dictionary", r"shape {'x': \(6,\)}, those of data 'images' have \(1, 8, 8\)"),
    ],
)
def test_factories_that_cannot_be_used(name: str, says: str) -> None:
    with pytest.raises((ValueError, RecipeError), match=says):
        fit(own(name), image_data())


def test_a_generator_is_tried_before_anything_is_trained_for_it() -> None:
    for look in (fit, OwnModule.preview):
        says = r"shape \(1, 8, 8\), those of data 'table' have \(5,\)"
        with pytest.raises(ValueError, match=says):
            look(own("plain"), table_data())
    with pytest.raises(RecipeError, match="cannot import the factory 'no_such_module:net'"):
        fit(own(factory="no_such_module:net"), image_data())


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth", "ckpt"])
@pytest.mark.parametrize("nesting", [None, "state_dict", "model"])
def test_weights_of_a_module(tmp_path: Path, suffix: str, nesting: str | None) -> None:
    wanted = {k: v + 1 for k, v in net().state_dict().items()}
    path = tmp_path / f"g.{suffix}"
    if suffix == "safetensors":
        save_weights(path, wanted)
    else:
        torch.save({nesting: wanted, "epoch": 7} if nesting else wanted, path)
    found = fit(own(weights=str(path)), image_data())
    assert all(torch.equal(found[k], wanted[k]) for k in wanted)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_that_do_not_fit_are_named(tmp_path: Path, suffix: str) -> None:
    def problem(change: Callable[[dict[str, Tensor]], None]) -> str:
        state = dict(net().state_dict())
        change(state)
        path = tmp_path / f"g.{suffix}"
        torch.save(state, path) if suffix == "pt" else save_weights(path, state)
        with pytest.raises(StorageError) as error:
            fit(own(weights=str(path)), image_data())
        return str(error.value)

    missing = problem(lambda state: state.__delitem__("lift.bias"))
    assert "has no tensor 'lift.bias'" in missing
    extra = problem(lambda state: state.update(other=torch.zeros(1)))
    assert "has a tensor 'other'" in extra
    wrong = problem(lambda state: state.update({"lift.weight": torch.zeros(64, 9)}))
    assert "'lift.weight'" in wrong
    assert "has the shape (64, 9)" in wrong
    assert "needs (64, 10)" in wrong


class Explosive:
    """Unpickling this would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.path,))


def test_weights_that_would_execute_are_refused_or_read_without_executing(tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "g.pt"
    attack = {"state_dict": net().state_dict(), "extra": Explosive(mark)}
    torch.save(attack, path)
    whole = path.read_bytes()
    for content in (pickle.dumps(attack, 2), pickle.dumps(Explosive(mark), 2)):
        path.write_bytes(content)
        with pytest.raises(StorageError, match="no file of torch"):
            fit(own(weights=str(path)), image_data())
        assert not mark.exists()
    path.write_bytes(whole)
    assert fit(own(weights=str(path)), image_data())
    assert not mark.exists()
    path.write_bytes(whole)
    torch.load(path, weights_only=False)
    assert mark.exists(), "it would have gone off"


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "g.pt"

    def problem() -> str:
        with pytest.raises(StorageError) as error:
            fit(own(weights=str(path)), image_data())
        return str(error.value)

    assert problem().endswith("is missing")
    for value, says in (
        ([1, 2], "holds a value of type list; it must hold a state dict"),
        ({"lift.weight": 3}, "has a value of type int as 'lift.weight'; a state dict holds"),
    ):
        torch.save(value, path)
        assert says in problem()
    torch.save(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-500])
    assert "is damaged, or no file of torch" in problem()
    path.write_bytes(b"")
    assert "g.pt" in problem()


def test_a_generator_of_dicts(tmp_path: Path) -> None:
    (tmp_path / "my_generators.py").write_text(
        "import torch\n"
        "def eyes():\n"
        "    return lambda latent, condition: {\n"
        "        'eye': latent.new_zeros(len(latent), 1, 12, 20), 'pose': condition[:, 2:]\n"
        "    }\n"
    )
    data, entry = eye_data(), own("eyes")
    made = entry.load(fit(entry, data), data)
    x = made.function(torch.zeros(3, 6), torch.arange(12.0).view(3, 4))
    assert isinstance(x, dict)
    assert x["pose"].tolist() == [[2, 3], [6, 7], [10, 11]]


def test_safetensors_of_a_module_are_read_as_those_of_a_model(tmp_path: Path) -> None:
    save_weights(tmp_path / "g.safetensors", net().state_dict())
    load_pretrained(net(), tmp_path / "g.safetensors")
