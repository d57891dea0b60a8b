"""Figures by group, and the examples on which a student and its teacher differ most."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

import extracurricular as xcl
from extracurricular.assess.slices import MOST, group_names, slices
from extracurricular.cli import app
from extracurricular.data.base import Data, make_data
from extracurricular.distributions import Bernoulli, Categorical, Gaussian
from extracurricular.errors import RecipeError
from extracurricular.report.differing import differing
from extracurricular.run.finished import open_run


def frame(count: int = 120) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    town = rng.choice(["A", "B", "C"], count, p=[0.6, 0.3, 0.1])
    age = rng.uniform(20, 80, count)
    rooms = rng.integers(1, 5, count)
    y = np.where(age + rng.normal(0, 10, count) > 50, "yes", "no")
    return pl.DataFrame({"town": town, "age": age, "rooms": rooms, "answer": y})


@pytest.fixture(scope="module")
def table() -> Data:
    return xcl.from_frame(frame(), "answer", test=0.5, validation=0.1)


def test_a_category_has_a_group_for_each_value(table: Data) -> None:
    names = group_names(table, table.test, "town")
    rows = [int(k) for k in table.ids["test"]]
    assert names == frame()["town"].gather(rows).to_list()
    labels = group_names(table, table.test, "answer")
    assert labels == frame()["answer"].gather(rows).to_list()


def test_a_number_has_its_values_or_quarters(table: Data) -> None:
    rows = [int(k) for k in table.ids["test"]]
    rooms = group_names(table, table.test, "rooms")
    assert rooms == [str(k) for k in frame()["rooms"].gather(rows)]
    ages = np.array(group_names(table, table.test, "age"))
    values = frame()["age"].gather(rows).to_numpy()
    assert len(set(ages)) == 4
    counts = [int((ages == name).sum()) for name in set(ages)]
    assert max(counts) - min(counts) <= 1
    [first] = {name for name in ages if name.startswith("up to")}
    assert values[ages == first].max() < values[ages != first].min()


def test_figures_are_those_of_the_examples_of_a_group(table: Data) -> None:
    z = torch.randn(len(table.test), 2, generator=torch.Generator().manual_seed(0))
    said, y = Categorical(z), table.test.y
    assert y is not None
    found = slices(said, y, table, table.test, "town")
    names = np.array(group_names(table, table.test, "town"))
    assert found["column"] == "town"
    sizes = [one["examples"] for one in found["groups"].values()]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == len(names)
    for name, figures in found["groups"].items():
        rows = torch.from_numpy(names == name)
        right = (z[rows].argmax(1) == y[rows]).double()
        assert figures["accuracy"] == pytest.approx(float(right.mean()))
        n, p, k = len(right), float(right.mean()), 1.959964
        # Both ends solve |p - q| = k √(q (1 - q) / n).
        for q in (figures["accuracy_low"], figures["accuracy_high"]):
            assert abs(p - q) == pytest.approx(k * math.sqrt(q * (1 - q) / n), abs=1e-9)
        assert figures["nll"] == pytest.approx(float(said[rows].nll(y[rows]).mean()), abs=1e-6)


def test_real_targets_and_several_labels_have_figures_too() -> None:
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    y = np.arange(20, dtype=np.float32)[:, None]
    data = make_data("t", (x, y), (x, y), (x, y), columns=["a", "b"])
    said = Gaussian(torch.zeros(20, 1), torch.zeros(20, 1))
    target = torch.from_numpy(y)
    found = slices(said, target, data, data.test, "a")["groups"]
    assert len(found) == 4
    first = next(one for name, one in found.items() if name.startswith("up to"))
    assert first["rmse"] == pytest.approx(math.sqrt(sum(k * k for k in range(5)) / 5))
    assert first["rmse_low"] < first["rmse"] < first["rmse_high"]
    sure = Bernoulli(torch.full((20, 1), 9.0))
    labels = slices(sure, (target >= 5).float(), data, data.test, "a")["groups"]
    assert sorted(one["accuracy"] for one in labels.values()) == [0.0, 1.0, 1.0, 1.0]


def test_of_many_groups_the_largest_are_shown_and_the_rest_together() -> None:
    count = 200
    towns = [f"t{k % 30 if k >= 100 else k % 5}" for k in range(count)]
    rows = pl.DataFrame({"town": towns, "x": range(count), "y": [k % 2 for k in range(count)]})
    data = xcl.from_frame(rows, "y", test=0.5, validation=0)
    data = replace(data, test=data.train)
    y = data.test.y
    assert y is not None
    found = slices(Categorical(torch.zeros(len(y), 2)), y, data, data.test, "town")["groups"]
    assert len(found) == MOST + 1
    every = set(group_names(data, data.test, "town"))
    assert list(found)[-1] == f"the other {len(every) - MOST} groups"
    assert set(list(found)[:-1]) < every
    assert sum(one["examples"] for one in found.values()) == len(y)


def test_a_column_that_is_not_there_is_told(table: Data) -> None:
    with pytest.raises(RecipeError, match=r"--by: is 'city', which is no column .* town, age, ro"):
        group_names(table, table.test, "city")
    x = np.zeros((20, 2), np.float32)
    plain = make_data("t", (x, x), (x, x), (x, x))
    with pytest.raises(RecipeError, match="they name no columns"):
        group_names(plain, plain.test, "city")


def test_the_command_shows_groups(digits_run: Path) -> None:
    done = CliRunner().invoke(
        app, ["evaluate", str(digits_run), "--by", "class"], env={"COLUMNS": "160"}
    )
    assert done.exit_code == 0, done.output
    assert "95 %" in done.output
    wrong = CliRunner().invoke(app, ["evaluate", str(digits_run), "--by", "town"])
    assert wrong.exit_code != 0


def test_the_page_has_the_examples_with_the_largest_divergence(digits_run: Path) -> None:
    run = open_run(digits_run)
    found = differing(run)
    assert found is not None
    data, workspace = run.data, run.workspace
    teacher = workspace.predict(run.teacher(0), data, data.test)
    student = workspace.predict(run.student(found.student, found.seed), data, data.test)
    kl = teacher.kl(student)  # type: ignore[arg-type]
    most = kl.argsort(descending=True)[: len(found.rows)]
    assert [row[4] for row in found.rows] == pytest.approx(kl[most].tolist(), abs=1e-4)
    assert found.named
    assert data.test.y is not None
    for row, k in zip(found.rows, most.tolist(), strict=True):
        if row[0] == str(data.ids["test"][k]):  # rounding may change the order of equals
            assert row[1] == str(int(data.test.y[k]))
    assert found.rows[0][0] == str(data.ids["test"][int(most[0])])
