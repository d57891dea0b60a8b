"""A record that a device holds: the same answers, without the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.distributions import Categorical
from extracurricular.errors import StorageError
from extracurricular.inputs import obstacle, static_shapes
from extracurricular.knowledge import Recorded, open_knowledge, record
from extracurricular.models import build_model
from extracurricular.samplers import Batch, Context, Sampler, build_sampler
from extracurricular.teachers import Ensemble, Network
from tests.conftest import image_data, table_data
from tests.test_law_8 import Obey

IMAGES = image_data()
CPU = torch.device("cpu")
CHAIN: list[Any] = [
    "empirical", "mixup", {"uncertain": {"score": "entropy", "candidates": 2, "plain_share": 0.3}},
]  # fmt: skip


def network(seed: int) -> Network:
    torch.manual_seed(seed)
    return Network(
        build_model("mlp", inputs=IMAGES.shapes, outputs=IMAGES.task.outputs), IMAGES.task
    )


def sampler(teacher: Any) -> Sampler:
    return build_sampler(CHAIN, IMAGES, 3, context=Context(teacher))


def held(folder: Path, teacher: Any, draws: int = 200, **more: Any) -> tuple[Recorded, Recorded]:
    """Record a teacher; return the record as the host reads it, and as a device holds it."""
    record(sampler(teacher), teacher, IMAGES, draws, folder, **more)
    host, device = open_knowledge(folder), open_knowledge(folder)
    device.hold(CPU)
    return host, device


@pytest.mark.parametrize(
    "codec", ["float32", "float16", "uint8", "uint4", {"uint4": {"refine": 0}}, {"topk": {"k": 2}}]
)
def test_a_held_record_gives_the_same_bits_and_asks_nothing(tmp_path: Path, codec: Any) -> None:
    host, device = held(tmp_path, network(1), codec=codec)
    batch = Batch(torch.randperm(200), torch.empty(200, 0))
    expected, choices = host(batch).parameters, host.choices(batch.ids)
    with static_shapes():
        device(batch)  # constants are made at the first answer
        with Obey() as obey:
            found, chosen = device(batch).parameters, device.choices(batch.ids)
        assert obey.seen > 3
    assert torch.equal(found, expected)
    assert torch.equal(chosen, choices)


def test_a_held_record_of_members_gives_each_and_their_mixture(tmp_path: Path) -> None:
    host, device = held(tmp_path, Ensemble([network(1), network(2)]), members=True)
    batch = Batch(torch.arange(50), torch.empty(50, 0))
    with static_shapes():
        found, members = device(batch), device.members(batch)  # type: ignore[attr-defined]
    assert torch.equal(found.parameters, host(batch).parameters)
    for one, other in zip(members, host.members(batch), strict=True):  # type: ignore[attr-defined]
        assert torch.equal(one.parameters, other.parameters)


def test_a_replay_of_a_held_record_asks_nothing_and_repeats_the_draws(tmp_path: Path) -> None:
    host, device = held(tmp_path, network(1))
    ids = torch.arange(500)
    expected = host.replay(sampler(network(1)))(ids)
    replay = device.replay(sampler(network(1)))
    with static_shapes(), Obey():
        found = replay(ids)
    assert isinstance(expected.x, Tensor)
    assert isinstance(found.x, Tensor)
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.ids, expected.ids)


def test_only_a_held_record_can_be_captured(tmp_path: Path) -> None:
    class Own(nn.Module):
        """A teacher that does not say whether it can be captured, and is not asked again."""

    host, device = held(tmp_path, network(1))
    own: Any = Own()
    assert obstacle(host) == "a record is read by the host"
    assert obstacle(host.replay(sampler(own))) == "a record is read by the host"
    assert obstacle(device) is None
    assert obstacle(device.replay(sampler(own))) is None


def test_a_draw_that_a_held_record_lacks_is_nan_and_an_error_at_the_second_look(
    tmp_path: Path,
) -> None:
    _, device = held(tmp_path, network(1))
    batch = Batch(torch.tensor([0, 200, -1, 199]), torch.empty(4, 0))
    with static_shapes():
        found = device(batch)
    assert isinstance(found, Categorical)
    assert found.parameters.isnan().all(1).tolist() == [False, True, True, False]
    with pytest.raises(StorageError, match="draw -1 is not in the record"):
        device(batch)


def test_a_held_record_of_gaussians_gives_the_same_bits(tmp_path: Path) -> None:
    data = table_data()
    torch.manual_seed(0)
    module = build_model("mlp", inputs=data.shapes, outputs=data.task.outputs)
    teacher = Network(module, data.task)
    record(build_sampler(["empirical"], data, 0), teacher, data, 40, tmp_path)
    host, device = open_knowledge(tmp_path), open_knowledge(tmp_path)
    device.hold(CPU)
    batch = Batch(torch.arange(39, -1, -1), torch.empty(40, 0))
    with static_shapes():
        found = device(batch)
    assert type(found) is type(host(batch))
    assert torch.equal(found.parameters, host(batch).parameters)
