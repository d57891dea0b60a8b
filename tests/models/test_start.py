"""Starting a student from given weights: what fits, what is told, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from extracurricular.errors import StorageError
from extracurricular.models.weights import load_start


def network(outputs: int = 3, hidden: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, outputs))


def test_weights_that_fit_are_taken_from_safetensors_and_checkpoints(tmp_path: Path) -> None:
    given = network()
    save_file(given.state_dict(), tmp_path / "w.safetensors")
    torch.save({"epoch": 3, "model_ema": given.state_dict(), "optimizer": {}}, tmp_path / "w.pt")
    torch.save({f"module.{k}": v for k, v in given.state_dict().items()}, tmp_path / "wrapped.pt")
    for file, key in (("w.safetensors", None), ("w.pt", "model_ema"), ("wrapped.pt", None)):
        for strict in (True, False):
            started = network()
            load_start(started, tmp_path / file, key, strict)
            for name, value in given.state_dict().items():
                assert torch.equal(started.state_dict()[name], value)


def test_a_head_of_another_size_is_refused_or_skipped(tmp_path: Path) -> None:
    file, given = tmp_path / "w.safetensors", network(outputs=7)
    save_file(given.state_dict(), file)
    with pytest.raises(StorageError, match=r"has a network for 7 outputs, but this one needs 3"):
        load_start(network(), file)
    started = network()
    first = started[2].weight.clone()
    [said] = load_start(started, file, strict=False)
    assert torch.equal(started[0].weight, given[0].weight)
    assert torch.equal(started[2].weight, first)
    assert said == (
        f"7 of 9 tensors are from the file {str(file)!r}; 2.weight, 2.bias keep their first "
        "values; its 2.bias, 2.weight do not fit"
    )


def test_names_that_do_not_fit_are_told(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    state = network().state_dict()
    state["other"] = torch.zeros(2)
    del state["0.bias"]
    save_file(state, file)
    with pytest.raises(StorageError, match=r"has no tensor '0\.bias', which the model has"):
        load_start(network(), file)
    [said] = load_start(network(), file, strict=False)
    assert "0.bias keep their first values; its other do not fit" in said


def test_a_file_without_any_tensor_of_the_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"stem": torch.zeros(2)}, file)
    with pytest.raises(
        StorageError, match=r"has no tensor that the network has too; it has stem, "
    ):
        load_start(network(), file, strict=False)


def test_nan_is_refused(tmp_path: Path) -> None:
    file, state = tmp_path / "w.safetensors", network().state_dict()
    state["0.weight"][0, 0] = torch.nan
    save_file(state, file)
    for strict in (True, False):
        with pytest.raises(StorageError, match=r"holds NaN"):
            load_start(network(), file, strict=strict)
