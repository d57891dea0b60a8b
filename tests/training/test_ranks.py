"""One training by several processes: the same draws, losses and refusals as one process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from extracurricular.teachers.sharded import blocks
from extracurricular.training.draw import step_ids
from tests.training.rank_cases import CASES, DRAWN, FAULTY, UNEVEN, refusal

WORLD = 2
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of trainings by two processes, which begin once for all tests."""
    found = tmp_path_factory.mktemp("ranks")
    CASES["recorded"].lesson(found / "recorded" / "record")
    CASES["blend"].losses(found / "begun alone", stop=10)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
        "LOCAL_WORLD_SIZE": str(WORLD), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.rank_cases", str(found)],
            cwd=ROOT,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        said = [one.communicate(timeout=240)[0] for one in ranks]
    finally:
        for one in ranks:
            one.kill()
    assert [one.returncode for one in ranks] == [0] * WORLD, "\n".join(said)
    return found


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each process found."""
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(WORLD)]


def alone(name: str, folder: Path) -> list[float]:
    return CASES[name].losses(folder)


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_one_process(
    name: str, found: list[dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    if CASES[name].recorded:
        (tmp_path / "record").symlink_to(folder / name / "record")
    wanted, losses = alone(name, tmp_path), found[0]["losses"][name]
    assert len(wanted) == len(losses) >= 24
    if name == "float32":
        assert losses[0] == pytest.approx(wanted[0], rel=1e-6)
        assert losses == pytest.approx(wanted, rel=1e-3)
    else:
        assert losses == pytest.approx(wanted, rel=1e-9, abs=0)
    assert wanted[-1] != wanted[0]


@pytest.mark.parametrize("name", DRAWN)
def test_draws_are_slices_of_those_of_one_process(
    name: str, found: list[dict[str, Any]], folder: Path
) -> None:
    wanted = CASES[name].drawn(folder / name)
    for key, value in wanted.items():
        joined = torch.cat([one["drawn"][name][key] for one in found], dim=1)
        if key == "target":
            # A network rounds otherwise where it is asked about fewer examples at once.
            torch.testing.assert_close(joined, value)
        else:
            assert torch.equal(joined, value), key


def test_a_fault_in_one_slice_ends_all_with_the_sentence_of_one_process(
    found: list[dict[str, Any]], tmp_path: Path
) -> None:
    wanted = refusal(FAULTY, tmp_path)
    assert "NaN" in wanted
    assert "61" in wanted
    assert [one["faulty"] for one in found] == [wanted] * WORLD


def test_batch_norms_that_are_not_synchronised_give_other_losses(
    found: list[dict[str, Any]], tmp_path: Path
) -> None:
    wanted = UNEVEN.losses(tmp_path)
    assert max(abs(a - b) for a, b in zip(found[0]["uneven"], wanted, strict=True)) > 1e-3


def test_a_training_goes_on_by_another_number_of_processes(
    found: list[dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    assert found[0]["resumed"] == pytest.approx(alone("blend", tmp_path / "a")[10:], rel=1e-9)
    went_on = CASES["uncertain"].losses(folder / "begun by two")
    assert went_on == pytest.approx(alone("uncertain", tmp_path / "b")[10:], rel=1e-9)


def test_one_process_writes_and_its_checkpoint_is_one_file(folder: Path) -> None:
    files = [file.name for file in (folder / "plain" / "training").iterdir()]
    assert "log.jsonl" in files
    assert sum(name.endswith(".ckpt") for name in files) == 1
    assert len(files) == 2


def test_a_sharded_network_answers_alike_and_each_process_holds_half(
    found: list[dict[str, Any]],
) -> None:
    for one in found:
        assert one["sharded"]["difference"] < 1e-6
        assert one["sharded"]["held"] <= 0.6


# Without processes


@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (4, 1), (2, 3), (4, 2)])
def test_slices_make_up_each_part_of_each_step(world: int, parts: int) -> None:
    size, steps = 24, 3
    slices = [step_ids(5, steps, size, rank, world, parts=parts) for rank in range(world)]
    by_part = torch.stack([one.view(steps, parts, -1) for one in slices], dim=2)
    assert torch.equal(by_part.flatten(), torch.arange(5 * size, 8 * size))


@pytest.mark.parametrize(("world", "parts"), [(5, 1), (2, 8), (16, 1)])
def test_a_batch_that_cannot_be_cut_is_refused(world: int, parts: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size is 24; it must be a multiple of .*{world}"):
        step_ids(0, 1, 24, 0, world, parts=parts)


def test_blocks_share_no_weight_and_attention_stays_whole() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    network = nn.ModuleDict({"in": nn.Linear(4, 16), "body": nn.TransformerEncoder(layer, 2)})
    network["out"] = nn.Linear(16, 4)
    network["out"].weight = nn.Parameter(network["in"].weight.t())
    found = blocks(network)
    weights = [id(weight) for one in found for weight in one.parameters()]
    assert len(weights) == len(set(weights))
    assert not any(isinstance(one, nn.ModuleList) for one in found)
    inside = {id(w) for one in network.modules() if isinstance(one, nn.MultiheadAttention)
              for w in one.parameters()}  # fmt: skip
    whole = [one for one in found if {id(w) for w in one.parameters()} & inside]
    assert all(isinstance(one, nn.MultiheadAttention | nn.TransformerEncoderLayer) for one in whole)
