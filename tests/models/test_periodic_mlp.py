"""Periodic embeddings of numbers: their formula, and what they make of a jagged function."""

from __future__ import annotations

import math

import pytest
import torch

from extracurricular.models import build_model, parameter_count
from extracurricular.models.periodic_mlp import Periodic


def test_an_embedding_is_that_of_the_paper_beside_the_number() -> None:
    torch.manual_seed(0)
    layer = Periodic(2, frequencies=3, size=4, scale=0.5)
    x = torch.randn(5, 2)
    c = layer.frequencies.reshape(2, 3)
    found = layer(x)
    assert found.shape == (5, layer.size) == (5, 2 + 2 * 4)
    torch.testing.assert_close(found[:, :2], x)
    for row in range(5):
        for column in range(2):
            angle = 2 * math.pi * c[column] * x[row, column]
            waves = torch.cat([angle.sin(), angle.cos()])
            wanted = torch.relu(layer.embedding.weight @ waves + layer.embedding.bias)
            start = 2 + 4 * column
            torch.testing.assert_close(found[row, start : start + 4], wanted)


def test_weight_decay_leaves_the_frequencies_alone() -> None:
    assert Periodic(2, 3, 4, 0.5).frequencies.ndim == 1


def test_the_default_has_fewer_than_5000_parameters_for_eight_columns() -> None:
    model = build_model("periodic_mlp", inputs=(8,), outputs=2)
    maps = (2 * 8 + 1) * 4 + 8 * 8
    assert parameter_count(model) == maps + (40 + 1) * 52 + (52 + 1) * 44 + (44 + 1) * 2 < 5000


def test_it_learns_steps_that_a_plain_network_smooths() -> None:
    x = torch.linspace(-2, 2, 256)[:, None]
    y = torch.floor(4 * x) % 2
    errors = {}
    for spec in ({"periodic_mlp": {"hidden": [16], "scale": 1.0}}, {"mlp": {"hidden": [32]}}):
        torch.manual_seed(0)
        model = build_model(spec, inputs=(1,), outputs=1)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(150):
            loss = (model(x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors[next(iter(spec))] = float(loss.detach())
    assert errors["periodic_mlp"] < errors["mlp"] / 2


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"scale": 0.0}, "scale is 0.0; it should be above 0"),
        ({"frequencies": 0}, "frequencies is 0; it should be at least 1"),
        ({"hidden": [0]}, "every layer should have at least 1 unit"),
        ({"activation": "sil"}, "activation is 'sil'"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict, problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        build_model({"periodic_mlp": settings}, inputs=(3,), outputs=1)
