"""A first recipe: what is chosen for which data, and that it can be read and planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from extracurricular.assess.first_data import (
    Column,
    choose_group,
    choose_split,
    choose_target,
    find_first,
    remedy,
)
from extracurricular.assess.first_recipe import (
    Facts,
    choose,
    comment,
    facts_of,
    fitted,
    flow,
    recipe_text,
)
from extracurricular.assess.first_teacher import asked, of_folder
from extracurricular.data.sets.arrays import from_arrays
from extracurricular.distributions import Calibration
from extracurricular.errors import DataError, RecipeError
from extracurricular.models import build_model
from extracurricular.models.trees import Block, planted
from extracurricular.predictors.saved import save_network
from extracurricular.recipe.read import parse_recipe
from extracurricular.recipe.schema import Recipe
from tests.conftest import checked, eye_data
from tests.data.test_warts import CITIES, commas, grouped, rows, saved, text

TABLE = Facts("regression", 1, (8,), 1_000)
PHOTOS = Facts("classification", 10, (3, 32, 32), 5_000, flips=True)


def column(name: str, kinds: int = 50, kind: str = "number", **rest: Any) -> Column:
    return Column(name, kind, 100, kinds, **rest)


def written(what: str, target: str | None = None, **settings: Any) -> tuple[dict[str, Any], Recipe]:
    """The recipe for some data as its file holds it, and as it is read."""
    found = find_first(what, settings, target)
    path = next((s.value for s in found.settings if s.name == "path"), None)
    made = recipe_text(found, choose(facts_of(found)), name="first", file="recipe.yaml", path=path)
    values = yaml.safe_load(made)
    return values, parse_recipe(values)


# The parts of a table


def test_the_target_has_a_usual_name_or_is_last() -> None:
    a, b, day = column("a"), column("b"), column("day", kind="date")
    assert choose_target([a, column("Label"), b])[0] == "Label"
    assert choose_target([a, b])[0] == "b"
    assert choose_target([a, b, day, column("one", kinds=1)])[0] == "b"
    assert choose_target([a, column("note", kinds=100, kind="text")])[0] == "a"


def test_a_column_of_splits_is_one_of_their_names_alone() -> None:
    words = column("part", 2, "text", some=("train", "test"))
    assert choose_split([column("a"), words]) == (
        "part", "The column 'part' says the split of each row.",
    )  # fmt: skip
    assert choose_split([replace(words, some=("train", "bus"))]) is None
    assert choose_split([replace(words, holes=3)]) is None


@pytest.mark.parametrize(
    ("name", "kinds", "grouped"),
    [("patient", 20, True), ("Subject ID", 20, True), ("patient", 5, False),
     ("patient", 90, False), ("age", 20, False)],
)  # fmt: skip
def test_a_group_is_called_like_persons_and_has_several_rows(
    name: str, kinds: int, grouped: bool
) -> None:
    assert (choose_group([column(name, kinds)]) is not None) == grouped


# Findings


def test_a_remedy_is_the_setting_that_a_sentence_has() -> None:
    assert remedy("id counts the rows; `drop: [id]` leaves it out.") == {"drop": ["id"]}
    lone = (
        "x is -999 in 3 rows, far from all others; set `missing_values: [usual, -999]` and "
        "`missing: impute`."
    )
    assert remedy(lone) == {"missing_values": ["usual", -999], "missing": "impute"}
    far = "In train, x is once 4000; if that means no value, `missing_values: [usual, 4000]`."
    assert remedy(far) == {}
    assert remedy("1 of 9 examples in test are in train too", "arrays") == {"duplicates": "drop"}
    assert remedy("The classes are unequal.") == {}


def test_findings_of_a_table_are_mended(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    count = 400
    width = g.normal(size=count)
    width[::40] = -999
    frame = pl.DataFrame(
        {
            "id": np.arange(count), "width": width, "copy": width, "same": np.ones(count),
            "zip": 10_000 + g.integers(0, 5, count),
            "city": [["Rome", "rome", "Oslo"][k % 3] for k in range(count)],
            "person": [f"p{k % 40}" for k in range(count)],
            "height": [None if k % 9 == 0 else float(k % 50) for k in range(count)],
            "label": [["cat", "dog"][k % 2] if k else "yak" for k in range(count)],
        }
    )  # fmt: skip
    frame.write_csv(tmp_path / "a.csv")
    found = find_first(str(tmp_path / "a.csv"), {})
    settings = {s.name: s.value for s in found.settings}
    assert sorted(settings["drop"]) == ["copy", "id", "same"]
    assert settings["missing"] == "impute"
    assert settings["missing_values"] == ["usual", -999]
    assert settings["categorical"] == ["zip"]
    assert settings["group"] == "person"
    assert settings["target"] == "label"
    assert settings["task"] == "classification"
    assert len(settings["rename"]) == 1
    assert settings["fewest"] == 2
    assert found.data.classes == ("cat", "dog")
    reasons = {s.name: " ".join(s.why) for s in found.mended}
    assert "counts the rows" in reasons["drop"]
    assert "constant" in reasons["drop"]
    values, _ = written(str(tmp_path / "a.csv"))
    assert values["data"]["table"] == settings


def test_settings_that_are_given_stay(tmp_path: Path) -> None:
    pl.DataFrame(
        {"id": range(60), "x": [k % 7 for k in range(60)], "y": [k % 2 for k in range(60)]}
    ).write_csv(tmp_path / "a.csv")
    found = find_first(
        str(tmp_path / "a.csv"), {"duplicates": "keep", "test": 0.3, "drop": []}, "x"
    )
    settings = {s.name: s.value for s in found.settings}
    assert settings["duplicates"] == "keep"
    assert settings["test"] == 0.3
    assert settings["drop"] == []
    assert settings["target"] == "x"


# From data to a recipe


def test_a_table_with_warts_gets_a_recipe(tmp_path: Path) -> None:
    cells = [
        [str(k), *(commas(cell) if j in (0, 1, 2) else cell for j, cell in enumerate(row))]
        for k, row in enumerate(rows())
    ]
    cells = [[*row[:6], f"{grouped(row[6], '.', ',')} €" if row[6] else ""] for row in cells]
    head = ["", "width", "weight", "share", "day", "city", "price"]
    path = saved(tmp_path / "warts.csv", text(cells, ";", head))
    values, recipe = written(path)
    assert values["data"]["table"]["missing"] == "impute"
    assert values["data"]["table"]["target"] == "price"
    assert values["teacher"]["estimator"] == {"random_forest": {"trees": 500}}
    assert set(recipe.students) == {"erm", "kd", "xcl"}
    assert checked(recipe, tmp_path / "run")


def test_a_recipe_keeps_names_of_any_form(tmp_path: Path) -> None:
    names = ["a: b", "#c", "d'e", "f\ng"]
    g = np.random.default_rng(1)
    frame = pl.DataFrame(
        {n: np.ones(80) for n in names} | {"x": g.normal(size=80), CITIES[1]: g.normal(size=80)}
    )
    frame.write_csv(tmp_path / "a.csv")
    values, _ = written(str(tmp_path / "a.csv"))
    assert values["data"]["table"]["target"] == CITIES[1]
    assert sorted(values["data"]["table"]["drop"]) == sorted(names)


def test_rows_without_a_target_are_drawn_too(tmp_path: Path) -> None:
    g = np.random.default_rng(2)
    x = g.normal(size=500)
    y = [None if k % 5 == 0 else float(x[k]) for k in range(500)]
    pl.DataFrame({"x": x, "z": g.normal(size=500), "y": y}).write_csv(tmp_path / "a.csv")
    values, recipe = written(str(tmp_path / "a.csv"))
    share = values["students"]["xcl"]["sampler"][0]["share"]
    assert share["of"] == "auto"
    assert share["extended"][0]["blend"]["unlabelled"]["sampler"] == ["pool"]
    assert checked(recipe, tmp_path / "run")


def test_a_folder_of_photographs_gets_a_recipe(photos: Path, tmp_path: Path) -> None:
    values, recipe = written(str(photos), size=16)
    assert values["data"]["imagefolder"]["size"] == 16
    assert values["teacher"]["model"] == {"digits_cnn": {"width": 16}}
    assert checked(recipe, tmp_path / "run")
    found = find_first(str(photos), {})
    assert {s.name: s.value for s in found.settings}["size"] == 32


def test_a_damaged_photograph_is_left_out(tmp_path: Path, photos: Path) -> None:
    for kind in ("class0", "class1"):
        for file in (photos / kind).iterdir():
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / file.name).write_bytes(file.read_bytes())
    (tmp_path / "class0" / "broken.jpg").write_bytes(b"no image")
    settings = {s.name: s for s in find_first(str(tmp_path), {"size": 8}).settings}
    assert settings["damaged"].value == "skip"
    assert "broken.jpg" in settings["damaged"].why[0]


def test_arrays_and_built_in_sets_get_a_recipe(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    x = g.normal(size=(400, 5)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=x[:, 0])
    values, recipe = written(str(tmp_path / "a.npz"))
    assert values["data"]["arrays"]["task"] == "regression"
    assert values["teacher"]["estimator"]
    assert checked(recipe, tmp_path / "run")
    np.savez(tmp_path / "t.npz", width=x[:, 0], price=x[:, 1])
    assert written(str(tmp_path / "t.npz"))[0]["data"]["table"]["target"] == "price"
    values, recipe = written("digits")
    assert values["data"] == "digits"
    assert checked(recipe, tmp_path / "other")


def test_a_folder_of_tables_is_a_pattern(tmp_path: Path) -> None:
    for k in range(2):
        frame = pl.DataFrame({"x": np.arange(40) % 9 + k, "y": np.arange(40) % 2})
        frame.write_csv(tmp_path / f"{k}.csv")
    values, _ = written(str(tmp_path))
    assert values["data"]["table"]["path"] == str(tmp_path / "*.csv")


@pytest.mark.parametrize(
    ("what", "problem"),
    [("nowhere.csv", "no file, folder or data set 'nowhere.csv'"),
     ("digit", "did you mean 'digits'"),
     ("r.yaml", "is a recipe already; xcl run"), ("a.bin", "neither a table"),
     ("flat", "put the images of each class into a folder of its own"), ("empty", "neither class")],
)  # fmt: skip
def test_what_is_no_data_set_is_refused(
    what: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("name: a")
    Path("a.bin").write_text("a")
    Path("empty").mkdir()
    Path("flat").mkdir()
    Path("flat/a.jpg").write_bytes(next((photos / "class0").iterdir()).read_bytes())
    with pytest.raises(DataError, match=problem):
        find_first(what, {})


def test_several_inputs_have_no_first_recipe() -> None:
    found = find_first("digits", {})
    with pytest.raises(DataError, match="several inputs"):
        facts_of(replace(found, data=eye_data()))


# The choice


def test_few_rows_have_a_forest_and_more_have_networks() -> None:
    assert "estimator" in choose(replace(TABLE, rows=100)).teacher
    many = choose(replace(TABLE, rows=100_000))
    assert many.teacher["members"] == 3
    assert many.training.batch_size == 256
    for count in (50, 1_000, 10_000, 10**6):
        assert 1_000 <= choose(replace(TABLE, rows=count)).training.steps <= 15_000


def test_images_have_convolutional_networks() -> None:
    small = choose(Facts("classification", 10, (1, 8, 8), 600))
    assert small.student == {"digits_cnn": {"width": 4}}
    assert small.stored == ["empirical"]
    large = choose(PHOTOS)
    assert (large.teacher["model"], large.student) == ("resnet14", "resnet8")
    assert large.stored == ["empirical", {"augment": {"pad": 4, "flip": True}}]
    assert choose(replace(PHOTOS, accelerated=True)).student == "resnet20"
    assert choose(replace(PHOTOS, kind="regression")).training.rest["optimizer"] == "adamw"
    assert "mlp" in choose(replace(PHOTOS, shape=(1, 4, 4))).student


def test_real_targets_have_no_temperature() -> None:
    assert choose(TABLE).matching == {}
    assert choose(replace(TABLE, kind="classification", size=3)).matching == {"temperature": 4.0}


def test_a_recipe_fits_into_its_time() -> None:
    whole = choose(TABLE)
    assert fitted(whole, 10, 20, 100) == replace(whole, seeds=3)
    assert fitted(whole, 10, 40, 100).seeds == 2
    short = fitted(whole, 100, 100, 100)
    assert short.seeds == 1
    assert short.training.steps == pytest.approx(whole.training.steps / 2, rel=0.1)
    assert whole.teacher_training is not None
    assert short.teacher_training is not None
    assert short.teacher_training.steps == pytest.approx(whole.teacher_training.steps / 2, rel=0.1)
    assert "Shortened" in short.why["training"]
    assert fitted(whole, 1e6, 1e6, 1).training.steps == 100


def test_comments_are_comments() -> None:
    lines = comment("a\nb " * 60, 4)
    assert len(lines) > 1
    assert all(line.startswith("    # ") and len(line) <= 100 for line in lines)
    assert yaml.safe_load(flow({"a\nb": [1, 0.5, None]})) == {"a\nb": [1, 0.5, None]}
    assert "\n" not in flow({"a\nb": "c\nd"})


# Teachers


def test_a_teacher_that_is_given_takes_the_place_of_one_that_is_trained() -> None:
    made = choose(TABLE, {"estimator": "random_forest"})
    assert made.teacher == {"estimator": "random_forest"}
    assert made.teacher_training is None
    assert asked({"estimator": "random_forest"}, eye_data()) == ({"estimator": "random_forest"}, "")


def logits(x: Any) -> Any:
    return np.stack([x[:, 0] * 5, -x[:, 0] * 5], 1)


def means(x: Any) -> Any:
    return x[:, :1] + 1


def test_how_a_teacher_answers_is_found_out() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    classes = from_arrays(x, (x[:, 0] < 0).astype(int))
    section, told = asked({"function": f"{__name__}:logits"}, classes)
    assert section["function"]["output"] == "logits"
    assert "logits" in told
    reals = from_arrays(x, x[:, 0])
    section, told = asked({"function": f"{__name__}:means"}, reals)
    assert section["function"]["output"] == "mean"
    assert section["function"]["std"] == pytest.approx(1, abs=1e-3)
    assert "deviation" in told


def test_a_saved_student_teaches_on_its_own_data(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    data = from_arrays(x, x[:, 0])
    spec = {"mlp": {"hidden": [4]}}
    module = build_model(spec, inputs=data.shapes, outputs=data.task.outputs)
    save_network(tmp_path / "s", module, data, model=spec, name="student")
    section = of_folder(tmp_path / "s", data)
    assert section["model"] == spec
    assert Path(section["weights"]).is_file()
    with pytest.raises(RecipeError, match=r"learned from other data.*give the \.onnx file"):
        of_folder(tmp_path / "s", from_arrays(2 * x, x[:, 0]))
    with pytest.raises(RecipeError, match="holds no teacher"):
        of_folder(tmp_path, data)
    # Its weights alone would be another teacher.
    sure = Calibration(variance=(2.0,))
    save_network(tmp_path / "c", module, data, model=spec, name="student", calibration=sure)
    with pytest.raises(RecipeError, match=r"answers calibrated.*give the \.onnx file"):
        of_folder(tmp_path / "c", data)
    trees = planted([Block([], np.zeros(2))])
    save_network(tmp_path / "t", trees, data, model=None, name="student")
    with pytest.raises(RecipeError, match=r"made of trees; give the \.onnx file"):
        of_folder(tmp_path / "t", data)


def test_repeats_are_kept_where_most_rows_repeat(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    x = g.integers(0, 3, 300)
    pl.DataFrame({"x": x, "y": x + g.normal(size=300)}).write_csv(tmp_path / "a.csv")
    found = find_first(str(tmp_path / "a.csv"), {})
    assert "duplicates" not in {s.name for s in found.settings}
    assert any("`duplicates: drop`" in sentence for sentence in found.left)


@pytest.mark.parametrize("kind", ["multilabel", "classification"])
def test_several_targets_get_networks_as_the_teacher(kind: Any) -> None:
    """Trees learn neither several labels nor probabilities of classes."""
    found = choose(Facts(kind=kind, size=3, shape=(4,), rows=100, several=True))
    assert "model" in found.teacher
    assert found.teacher_training is not None
    assert ("temperature" in found.matching) == (kind == "classification")
    one = choose(Facts(kind="classification", size=3, shape=(4,), rows=100))
    assert "estimator" in one.teacher
