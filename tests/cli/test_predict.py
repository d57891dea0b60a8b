"""`xcl predict` as a person meets it."""

from __future__ import annotations

import gzip
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import extracurricular as xcl
from extracurricular.cli import main
from extracurricular.data.sets.table import table
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute
from tests.conftest import small_recipe
from tests.predictors.test_predict_raw import houses, learned

Told = tuple[int, str, str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a table of classes whose data are gone."""
    folder = tmp_path_factory.mktemp("kinds")
    kinds = houses().with_columns(kind=pl.Series(["dear", "cheap"] * 60)).drop("price")
    kinds.write_csv(folder / "kinds.csv")
    data = {"table": {"path": str(folder / "kinds.csv"), "missing": "impute"}}
    recipe = small_recipe(data, {"mlp": {"hidden": [4]}}, seeds=[0])
    execute(parse_recipe(recipe), folder / "run")
    (folder / "kinds.csv").unlink()
    return Path(shutil.move(folder / "run", folder / "moved"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved student of a real target."""
    folder = tmp_path_factory.mktemp("houses")
    houses().write_csv(folder / "houses.csv")
    learned(table(str(folder / "houses.csv"), missing="impute")).save(folder / "student")
    return folder / "student"


@pytest.fixture
def predict(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Told]:
    """Run the command; return exit status, output and messages."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments: Any) -> Told:
        monkeypatch.setattr(sys, "argv", ["xcl", "predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capfdbinary.readouterr()
        code = ended.value.code
        return int(code or 0), told.out.decode(), " ".join(told.err.decode().split())

    return call


def test_a_run_predicts_classes_without_its_data(
    run: Path, tmp_path: Path, predict: Callable[..., Told]
) -> None:
    rows = houses(30, seed=3)
    rows.write_csv(tmp_path / "new.csv")
    out = tmp_path / "made" / "predictions.parquet"
    code, said, told = predict(run, tmp_path / "new.csv", "--student", "kd", "--out", out)
    assert (code, said) == (0, "")
    assert "The column 'price' is passed over" in told
    assert "30 rows are predicted" in told
    found = pl.read_parquet(out)
    names = ["row", "class", "p_cheap", "p_dear", "entropy", "unlike_training"]
    assert found.columns == names
    wanted = xcl.load(run, student="kd").predict(rows)
    np.testing.assert_array_equal(found.select("p_cheap", "p_dear").to_numpy(), wanted.probs)
    np.testing.assert_array_equal(found["entropy"], wanted.entropy)
    assert found["class"].to_list() == wanted.names
    assert [file.name for file in out.parent.iterdir()] == ["predictions.parquet"]
    # The teacher has two members, which disagree.
    code, said, _ = predict(run, tmp_path / "new.csv", "--teacher")
    assert code == 0
    table = pl.read_csv(io.StringIO(said))
    assert table.columns == [*names[:-1], "epistemic", "unlike_training"]
    assert (table["epistemic"] >= 0).all()
    assert (table["epistemic"] <= np.log(2) + 1e-6).all()


def test_a_saved_student_predicts_real_targets(
    saved: Path, tmp_path: Path, predict: Callable[..., Told]
) -> None:
    rows = houses(20, seed=4).with_columns(id=pl.Series([f"00{k}" for k in range(20)]))
    odd = rows.with_columns(
        colour=pl.when(pl.arange(0, 20) == 7).then(pl.lit("violet")).otherwise("colour")
    )
    odd.write_csv(tmp_path / "new.csv")
    out = tmp_path / "predictions.csv"
    code, _, told = predict(saved, tmp_path / "new.csv", "--id", "id", "--out", out)
    assert code == 0
    assert "1 of them are unlike" not in told
    assert "1 of them is unlike the training data" in told
    found = pl.read_csv(out, infer_schema_length=0)
    assert found.columns == [
        "id", "price_mean", "price_std", "price_low50", "price_high50", "price_low90",
        "price_high90", "unlike_training",
    ]  # fmt: skip
    assert found["id"].to_list() == rows["id"].to_list()
    wanted = xcl.load(saved).predict(odd)
    np.testing.assert_array_equal(found["price_mean"].cast(pl.Float32), wanted.mean[:, 0])
    # Of a packed file the number of rows is not known before its end.
    (tmp_path / "new.csv.gz").write_bytes(gzip.compress((tmp_path / "new.csv").read_bytes()))
    code, said, _ = predict(saved, tmp_path / "new.csv.gz", "--id", "id")
    assert (code, said) == (0, out.read_text())
    flags = found["unlike_training"].to_list()
    assert flags[7] == "colour is 'violet', which training did not have"
    assert flags.count(None) == 19


def test_mistakes_are_one_sentence(
    run: Path, saved: Path, digits_run: Path, tmp_path: Path, predict: Callable[..., Told]
) -> None:
    file = tmp_path / "new.csv"
    houses(9).write_csv(file)
    houses(9).drop("age", "day").write_csv(tmp_path / "lacks.csv")
    (tmp_path / "empty.csv").write_text("age,income,colour,day\n")
    out = tmp_path / "out.parquet"
    for arguments, says in (
        ((saved, tmp_path / "lacks.csv", "--out", out), "lacks the columns age, day; it has"),
        ((saved, tmp_path / "empty.csv", "--out", out), "has no rows"),
        ((saved, tmp_path / "gone.csv", "--out", out), "does not exist"),
        ((saved, tmp_path, "--out", out), "is a folder; the model takes the rows of a table"),
        ((saved, file, "--out", tmp_path / "out.xlsx"), "must end in .parquet or .csv"),
        ((saved, file, "--out", file), "which is the input"),
        ((saved, file, "--id", "name", "--out", out), "--id: is 'name'; the table has"),
        ((run, file, "--student", "kdd", "--out", out), "did you mean 'kd'"),
        ((tmp_path / "nowhere", file, "--out", out), "there is no run and no file"),
        ((digits_run, file, "--out", out), "lacks a column of names of images; it has age"),
    ):
        code, said, told = predict(*arguments)
        assert code == 2, arguments
        assert said == ""
        assert told.startswith("error: "), told
        assert told.count("error") == 1
        assert says in told
        left = {one.name for one in tmp_path.iterdir()}
        assert left == {"new.csv", "lacks.csv", "empty.csv"}
    assert pl.read_csv(file).height == 9


def test_an_earlier_file_stays_where_a_row_stops_the_work(
    saved: Path, tmp_path: Path, predict: Callable[..., Told]
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("earlier")
    lines = houses(9000).drop("price").write_csv().splitlines()
    lines[8900] = "1,2"
    (tmp_path / "new.csv").write_text("\n".join(lines))
    code, _, told = predict(saved, tmp_path / "new.csv", "--out", out)
    assert code == 2
    assert "line 8901: the row has 2 values, but there are 4 columns" in told
    assert out.read_text() == "earlier"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["new.csv", "out.csv"]


def test_arrays_are_predicted_from_a_file(
    digits_run: Path, tmp_path: Path, predict: Callable[..., Told]
) -> None:
    x = np.random.default_rng(0).integers(0, 17, (5, 1, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    code, said, _ = predict(digits_run, tmp_path / "x.npy")
    assert code == 0
    found = pl.read_csv(io.StringIO(said))
    assert found["class"].to_list() == [int(name) for name in xcl.load(digits_run)(x).names]
