"""Runs whose teacher is a file of answers, from the recipe to the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from PIL import Image

from extracurricular.assess.evaluate import evaluate
from extracurricular.data.sets import DATA
from extracurricular.errors import RecipeError, StorageError, XclError
from extracurricular.files import load_weights, read_json
from extracurricular.inputs import Batch
from extracurricular.predictors.load import load
from extracurricular.recipe.read import parse_recipe
from extracurricular.report.write import ReportStage
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from tests.cli.called import xcl

ROWS = 120


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table of two classes, a tenth without its class, and answers on all rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3))
    p = 1 / (1 + np.exp(-2 * x[:, 0]))
    kinds = np.where(rng.random(ROWS) < p, "dog", "cat").astype(object)
    kinds[::10] = None
    names = [f"c{k}" for k in range(ROWS)]
    columns = {"customer": names, "a": x[:, 0], "b": x[:, 1], "c": x[:, 2]}
    pl.DataFrame({**columns, "kind": kinds.tolist()}).write_csv(tmp_path / "mine.csv")
    answers = pl.DataFrame({"p_dog": p, "customer": names, "p_cat": 1 - p})
    answers.sample(fraction=1, shuffle=True, seed=1).write_parquet(tmp_path / "answers.parquet")
    return tmp_path


def recipe(folder: Path, answers: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "name": "stored",
        "data": {"table": {"path": str(folder / "mine.csv"), "target": "kind", "id": "customer"}},
        "seeds": [0],
        "teacher": {
            "answers": {
                "path": str(folder / "answers.parquet"),
                "id": "customer",
                "probabilities": ["p_cat", "p_dog"],
                **(answers or {}),
            }
        },
        "defaults": {
            "model": {"mlp": {"hidden": [4]}},
            "training": {"steps": 12, "batch_size": 16},
        },
        "students": {
            "erm": {"learns_from": "labels"},
            "kd": {},
            "xcl": {"sampler": [{"share": {"of": "auto", "extended": ["pool"]}}]},
        },
        **changes,
    }


def run(place: Path, plain: dict[str, Any]) -> dict[str, Any]:
    return execute(parse_recipe(plain), place, last=[ReportStage()])


def test_a_run_learns_from_a_file_and_from_rows_without_a_target(folder: Path) -> None:
    summary = run(folder / "run", recipe(folder))
    assert summary["teacher"]["metrics"]["accuracy"]["mean"] > 0.6
    assert summary["teacher"]["parameters"] is None
    assert summary["students"]["xcl"]["metrics"]["kl_to_teacher"]["mean"] > 0
    assert summary["students"]["kd"]["multiply_adds"] == summary["students"]["erm"]["multiply_adds"]
    page = (folder / "run" / "report.html").read_text()
    assert "Agreement with the teacher" in page
    # The figures of the teacher are those of its file.
    data = DATA.build(recipe(folder)["data"])
    rows = pl.read_parquet(folder / "answers.parquet").to_dicts()
    known = {row["customer"]: row["p_dog"] > 0.5 for row in rows}
    said = [known[one] for one in data.ids["test"]]
    right = float((torch.tensor(said).long() == data.test.y).double().mean())
    assert summary["teacher"]["metrics"]["accuracy"]["mean"] == pytest.approx(right)


def test_other_rows_of_the_file_give_the_same_weights(folder: Path) -> None:
    run(folder / "one", recipe(folder))
    file = folder / "answers.parquet"
    pl.read_parquet(file).reverse().write_parquet(file)
    run(folder / "two", recipe(folder))
    for name in ("kd", "xcl"):
        own = f"students/{name}/seed-0/weights.safetensors"
        one, two = (load_weights(folder / place / own) for place in ("one", "two"))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_run_keeps_the_identity_of_its_answers(folder: Path) -> None:
    plain = recipe(folder)
    run(folder / "run", plain)
    record = read_json(folder / "run/teacher/shared/outside/stage.json")
    assert len(record["identity"]) == 32
    before = (folder / "run/summary.json").read_text()
    run(folder / "run", plain)
    assert (folder / "run/summary.json").read_text() == before
    frame = pl.read_parquet(folder / "answers.parquet")
    frame.with_columns(p_cat=pl.col("p_dog"), p_dog=pl.col("p_cat")).write_parquet(
        folder / "answers.parquet"
    )
    with pytest.raises(StorageError, match="files"):
        run(folder / "run", plain)


def test_a_run_is_loaded_reported_and_exported_without_data_and_answers(folder: Path) -> None:
    run(folder / "run", recipe(folder))
    for name in ("mine.csv", "answers.parquet"):
        (folder / name).unlink()
    shutil.move(folder / "run", folder / "moved")
    moved = open_run(folder / "moved")
    assert moved.summary["teacher"]["metrics"]["accuracy"]["mean"] > 0.6
    predictor = load(folder / "moved")
    said = predictor.predict({"a": [2.0], "b": [0.0], "c": [0.0]})
    assert said.probs.shape == (1, 2)
    with pytest.raises(RecipeError, match="--teacher: is a file of stored answers"):
        load(folder / "moved", teacher=True)
    done = xcl("report", str(folder / "moved"))
    assert done.returncode == 0, done.stderr


def test_evaluate_leaves_out_the_teacher_that_cannot_be_asked(folder: Path) -> None:
    run(folder / "run", recipe(folder))
    found = evaluate(folder / "run")
    assert found["against"] is None
    assert "kl_to_teacher" not in json.dumps(found)


def test_a_teacher_that_has_not_seen_the_test_split_has_no_figures(folder: Path) -> None:
    data = DATA.build(recipe(folder)["data"])
    frame = pl.read_parquet(folder / "answers.parquet")
    frame.filter(~pl.col("customer").is_in(list(data.ids["test"]))).write_parquet(
        folder / "answers.parquet"
    )
    summary = run(folder / "run", recipe(folder))
    assert summary["teacher"]["metrics"]["accuracy"]["mean"] is None
    assert summary["teacher"]["absent"].startswith("the file")
    assert "22 of 22 test examples have no answer" in summary["teacher"]["absent"]
    assert summary["students"]["kd"]["gap_closed"] is None
    assert "kl_to_teacher" not in summary["students"]["kd"]["metrics"]
    page = (folder / "run" / "report.html").read_text()
    assert "The teacher has no figures" in page
    assert "Divergence from the teacher" not in page
    assert "no gap to close" not in page


def test_missing_answers_are_refused_before_anything_is_made_or_dropped(folder: Path) -> None:
    data = DATA.build(recipe(folder)["data"])
    frame = pl.read_parquet(folder / "answers.parquet")
    frame.filter(~pl.col("customer").is_in(list(data.ids["train"][:9]))).write_parquet(
        folder / "answers.parquet"
    )
    with pytest.raises(XclError, match=r"9 of 75 training examples have no answer"):
        run(folder / "run", recipe(folder))
    assert not (folder / "run").exists() or not list((folder / "run").glob("students"))
    plain = recipe(folder, {"missing": "drop"})
    plain["students"]["kept"] = {"mastery": {"held_out": 0.2}}
    plain["defaults"]["training"]["steps"] = 48
    summary = run(folder / "other", plain)
    assert summary["students"]["kept"]["mastery"]["held_out"] > 0


@pytest.mark.parametrize(
    ("students", "key", "said"),
    [
        ({"sampler": ["empirical", "mixup"]}, "students.bad.sampler", "'mixup' needs"),
        ({"sampler": ["empirical", {"noise": {"std": 0.1}}]}, "students.bad.sampler", "'noise'"),
        ({"sampler": ["empirical", "uncertain"]}, "students.bad.sampler", "'uncertain'"),
        (
            {"sampler": [{"share": {"of": "auto", "extended": ["empirical", "mixup"]}}]},
            "students.bad.sampler", "'mixup'",
        ),
    ],
)  # fmt: skip
def test_samplers_that_need_new_answers_are_refused_before_anything_is_trained(
    folder: Path, students: dict[str, Any], key: str, said: str
) -> None:
    plain = recipe(folder)
    plain["students"]["bad"] = students
    with pytest.raises(RecipeError, match=said) as error:
        run(folder / "run", plain)
    assert str(error.value).startswith(key)
    assert not list(folder.glob("run/students/*/*/weights.safetensors"))


def test_a_choice_among_new_draws_is_refused(folder: Path) -> None:
    plain = recipe(folder)
    plain["students"]["best"] = {
        "choose": {"among": {"kd": {}, "all": {"sampler": ["empirical", "mixup"]}}, "after": [0.5]}
    }
    with pytest.raises(RecipeError, match="'mixup' needs answers"):
        run(folder / "run", plain)


def test_a_student_may_choose_among_stored_draws(folder: Path) -> None:
    plain = recipe(folder)
    plain["students"] = {
        "erm": {"learns_from": "labels"},
        "best": {
            "choose": {"among": {"kd": {}, "pool": {"sampler": [{"pool": {}}]}}, "after": [0.5]}
        },
    }
    summary = run(folder / "run", plain)
    assert summary["students"]["best"]["chosen"][0] in ("kd", "pool")


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ({"record": {"draws": 100}}, "answers are a record already"),
        ({"model": {"mlp": {"hidden": [4]}}}, "model is for networks, but answers is set"),
        ({"onnx": "t.onnx"}, "has both onnx and answers"),
        ({"mc_dropout": 3}, "mc_dropout is for networks"),
    ],
)
def test_what_goes_not_with_answers_is_refused(
    folder: Path, teacher: dict[str, Any], said: str
) -> None:
    plain = recipe(folder)
    plain["teacher"] |= teacher
    with pytest.raises(RecipeError, match=said):
        parse_recipe(plain)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"probabilities": ["p_cat", "p_bird"]}, "'p_bird'"),
        ({"probabilities": {"cat": "p_cat", "bird": "p_dog"}}, "'bird' is in one of them alone"),
        ({"path": "none.parquet"}, "does not exist"),
        ({"id": None}, "known by names such as 'c"),
        ({"deviation": 1.0}, "deviation goes with mean"),
        ({"wrong": 1}, "unknown key 'wrong'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(folder: Path, answers: dict[str, Any], said: str) -> None:
    with pytest.raises(XclError, match=said):
        run(folder / "run", recipe(folder, answers))


def test_real_targets_come_with_mean_and_deviation_in_their_own_units(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=100)
    age = 40 + 12 * a + rng.normal(0, 3, 100)
    pl.DataFrame({"a": a, "age": age}).write_csv(tmp_path / "mine.csv")
    said = {"age_mean": 40 + 12 * a, "age_std": np.full(100, 3.0)}
    pl.DataFrame(said).write_csv(tmp_path / "answers.csv")
    plain = recipe(tmp_path)
    plain["data"] = {"table": {"path": str(tmp_path / "mine.csv")}}
    plain["teacher"] = {
        "answers": {
            "path": str(tmp_path / "answers.csv"), "mean": "age_mean", "deviation": "age_std"
        }
    }  # fmt: skip
    del plain["students"]["xcl"]
    summary = run(tmp_path / "run", plain)
    data = DATA.build(plain["data"])
    rows = np.array(data.ids["test"])
    assert data.test.y is not None
    error = np.sqrt(np.mean((40 + 12 * a[rows] - data.test.y.numpy()[:, 0]) ** 2))
    assert summary["teacher"]["metrics"]["rmse"]["mean"] == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("stream", [False, True])
def test_images_are_found_by_their_names_and_so_is_a_pool(tmp_path: Path, stream: bool) -> None:
    rng = np.random.default_rng(0)
    names = []
    for kind, level in (("cat", 60), ("dog", 180)):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        (tmp_path / "pool").mkdir(exist_ok=True)
        for k in range(16):
            pixels = rng.integers(level - 40, level + 40, (8, 8, 3), dtype=np.uint8)
            place = f"{kind}/{k}.png"
            Image.fromarray(pixels).save(tmp_path / "photos" / place)
            names.append(place)
            if k < 4:
                Image.fromarray(pixels).save(tmp_path / "pool" / f"{kind}{k}.png")
                names.append(f"{kind}{k}.png")
    p = [0.9 if name.startswith("cat") else 0.2 for name in names]
    frame = pl.DataFrame({"file": names, "p_cat": p, "p_dog": [1 - one for one in p]})
    frame.sample(fraction=1, shuffle=True, seed=1).write_csv(tmp_path / "answers.csv")
    folder = {"path": str(tmp_path / "photos"), "size": 8, "stream": stream}
    plain = {
        "name": "photos",
        "data": {"imagefolder": folder | ({"workers": 1} if stream else {})},
        "teacher": {
            "answers": {
                "path": str(tmp_path / "answers.csv"), "id": "file",
                "probabilities": ["p_cat", "p_dog"],
            }
        },
        "students": {
            "kd": {}, "pooled": {"sampler": [{"pool": {"path": str(tmp_path / "pool")}}]},
        },
        "defaults": {
            "model": {"digits_cnn": {"width": 4}}, "training": {"steps": 3, "batch_size": 8},
        },
    }  # fmt: skip
    summary = run(tmp_path / "run", plain)
    assert summary["teacher"]["metrics"]["accuracy"]["mean"] == 1.0
    shutil.copy(tmp_path / "pool/cat0.png", tmp_path / "pool/cat9.png")
    with pytest.raises(XclError, match=r"1 of 9 images of the pool .*'cat9\.png'"):
        run(tmp_path / "other", plain)


def test_answers_on_streamed_images_know_which_image_is_drawn(tmp_path: Path) -> None:
    """A draw of streamed images has the answer of its own image."""
    from extracurricular.knowledge import Answers
    from extracurricular.samplers import Empirical
    from extracurricular.teachers.base import on_draws
    from tests.conftest import photographs

    data = DATA.build(
        {"imagefolder": {"path": str(photographs(tmp_path)), "size": 8, "stream": True,
                         "workers": 1}}
    )  # fmt: skip
    names = [name for own in data.ids.values() for name in own]
    marks = np.arange(len(names))[:, None] * np.ones((1, data.task.size))
    teacher = on_draws(Answers(names, logits=marks).fit(data, 0), Empirical(data, 4))
    ids = torch.arange(50)
    batch = Empirical(data, 4)(ids)
    said = teacher(Batch(ids, batch.x)).parameters[:, 0]
    rows = Empirical(data, 4).index(ids)
    assert [names[int(k)] for k in said] == [data.ids["train"][int(row)] for row in rows]


# -- the command line -----------------------------------------------------------------------------


def test_init_writes_a_recipe_for_a_file_of_answers(folder: Path) -> None:
    done = xcl(
        "init", "mine.csv", "id=customer", "--target", "kind", "--teacher", "answers.parquet",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Its answers are found by the column 'customer'" in " ".join(done.stdout.split())
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert values["teacher"]["answers"] == {
        "path": "answers.parquet",
        "id": "customer",
        "probabilities": {"cat": "p_cat", "dog": "p_dog"},
    }
    few = ("budget=tiny", "defaults.training.steps=20", "defaults.training.warmup=2")
    done = xcl("run", "recipe.yaml", *few, cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout


def test_init_takes_arrays_of_answers(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=(x[:, 0] > 0).astype(np.int64))
    np.savez(folder / "answers.npz", logits=np.stack([-x[:, 0], x[:, 0]], 1))
    done = xcl("init", "data.npz", "--teacher", "answers.npz", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert values["teacher"] == {"answers": {"path": "answers.npz"}}
    assert set(values["students"]) == {"erm", "kd"}


def test_init_says_which_columns_it_looked_for(folder: Path) -> None:
    frame = pl.read_parquet(folder / "answers.parquet")
    frame.rename({"p_cat": "one", "p_dog": "two"}).write_csv(folder / "odd.csv")
    done = xcl(
        "init", "mine.csv", "id=customer", "--target", "kind", "--teacher", "odd.csv", cwd=folder
    )
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert "no column for each of the classes" in said
    assert "Traceback" not in said
