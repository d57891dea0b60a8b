"""What a stage's folder is compared by: results depend on it, and places do not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, StorageError
from extracurricular.files import read_json, read_sealed, write_sealed
from extracurricular.matching import Matching, describe
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute
from extracurricular.run.settings import (
    SCHEMA,
    data_settings,
    stored_settings,
    training_settings,
    with_losses,
)
from extracurricular.training import Training
from tests.run.test_run import snapshot


def arrays(file: Path, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    np.savez(file, x=x, y=np.arange(60) % 2)
    training = {"steps": 4, "batch_size": 8}
    return {
        "name": "placed",
        "data": {"arrays": {"path": str(file)}},
        "teacher": {"model": {"mlp": {"hidden": [4]}}, "training": training},
        "students": {"kd": {"model": {"mlp": {"hidden": [2]}}, "training": training}},
    }


def test_data_may_move_and_may_not_change(tmp_path: Path) -> None:
    recipe = arrays(tmp_path / "here.npz")
    summary = execute(parse_recipe(recipe), tmp_path / "run")
    (tmp_path / "there").mkdir()
    moved = tmp_path / "there" / "else.npz"
    shutil.move(tmp_path / "here.npz", moved)
    recipe["data"] = {"arrays": {"path": str(moved)}}
    before = snapshot(tmp_path / "run")
    again = execute(parse_recipe(recipe), tmp_path / "run")
    assert again["students"] == summary["students"]
    changed = {path for path, kept in snapshot(tmp_path / "run").items() if kept != before[path]}
    assert changed == {"recipe.yaml", "summary.json", "data.json", "stage.json"}
    arrays(moved, seed=1)
    with pytest.raises(StorageError, match=r"not those of the run .*: input 0 has another scale"):
        execute(parse_recipe(recipe), tmp_path / "run")
    (tmp_path / "run" / "data.json").unlink()  # as in a run of an earlier version
    with pytest.raises(StorageError, match="made from other data"):
        execute(parse_recipe(recipe), tmp_path / "run")


def test_a_setting_that_a_folder_does_not_know_has_its_default(tmp_path: Path) -> None:
    """As after an update that adds a setting of the training."""
    recipe = arrays(tmp_path / "here.npz")
    execute(parse_recipe(recipe), tmp_path / "run")
    file = tmp_path / "run/students/kd/seed-0/stage.json"
    record = read_sealed(file)
    del record["settings"]["training"]["ema"]
    del record["settings"]["upstream"][0]["training"]["clip_norm"]
    write_sealed(file, record)
    execute(parse_recipe(recipe), tmp_path / "run")
    with pytest.raises(StorageError, match=r"training\.ema = None, but the recipe says 0.5"):
        execute(parse_recipe(recipe, ["students.kd.training.ema=0.5"]), tmp_path / "run")


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ("digits", "digits"),
        ({"digits": {"train": 10}}, {"digits": {"train": 10}}),
        ({"arrays": {"path": "a.npz"}}, "arrays"),
        ({"arrays": {"path": "a.npz", "seed": 2}}, {"arrays": {"seed": 2}}),
        ("imagefolder:/some/where", "imagefolder"),
        ({"imagefolder:/some/where": {"size": 8, "workers": 3}}, {"imagefolder": {"size": 8}}),
        ("my_package.data:load", "my_package.data:load"),
        ({"my_file:load": {"path": "x", "part": 1}}, {"my_file:load": {"part": 1}}),
    ],
)
def test_a_data_set_counts_without_its_place(spec: Any, kept: Any) -> None:
    assert data_settings(spec) == kept


def test_habits_are_no_settings() -> None:
    settings = training_settings(Training(evaluate_every=3, checkpoint_every=7))
    assert settings == training_settings(Training())
    assert not {"evaluate_every", "checkpoint_every"} & set(settings)


def test_a_loss_is_written_out_as_it_is_resolved() -> None:
    member = {"matching": {}, "seed": 1}
    stage = {"matching": {"temperature": 2.0}, "upstream": [member, {"mc_dropout": None}]}
    reals, classes = Task("regression", 2), Task("classification", 2)
    full = {"divergence": "forward_kl", "temperature": 1.0, "label_weight": 0.0}
    for task, beta in ((reals, 0.5), (classes, 0.0)):
        found = with_losses(stage, task)
        assert found["matching"] == full | {"temperature": 2.0, "beta": beta}
        assert found["upstream"] == [
            {"matching": full | {"beta": beta}, "seed": 1},
            {"mc_dropout": None},
        ]
        assert with_losses(found, task) == found
        old = stored_settings({"schema": 2, "settings": stage}, "it")
        assert (old == found) == (task == classes)
        assert old["upstream"][0]["matching"]["beta"] == 0
    assert with_losses({"data": "digits"}, classes) == {"data": "digits"}
    for matching, says in (({"temp": 2}, "unknown key 'temp'"), ({"beta": 2.0}, "beta is 2.0")):
        with pytest.raises(RecipeError, match=says):
            with_losses({"matching": matching}, reals)


def test_stage_json_holds_the_loss_in_full(tmp_path: Path) -> None:
    recipe = arrays(tmp_path / "here.npz")
    execute(parse_recipe(recipe), tmp_path / "run")
    for place in ("students/kd/seed-0", "teacher/shared/member-0"):
        matching = read_json(tmp_path / "run" / place / "stage.json")["settings"]["matching"]
        assert matching == describe(Matching(), Task("classification", 2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("students.kd.matching.beta=0.5", r"students.kd.matching: beta is 0.5, but classes"),
        ("teacher.matching.beta=0.5", r"teacher.matching: beta is 0.5, but classes have no"),
        ("teacher.matching.temp=0.5", r"teacher.matching.temp: unknown key 'temp'"),
        ("teacher.matching.divergence=reverse_kl", r"teacher.matching.divergence: is 'reverse_kl', "
         "which is infinite from labels; learning from labels needs one of energy, forward_kl, js"),
        ("students.kd.model={mlp: {head: natural}}", r"students.kd.model: head is 'natural', which "
         "is for real targets, but the data have classes"),
    ],
)  # fmt: skip
def test_losses_and_heads_that_classes_do_not_have(change: str, says: str, tmp_path: Path) -> None:
    recipe = parse_recipe(arrays(tmp_path / "here.npz"), [change])
    with pytest.raises(RecipeError, match=says):
        execute(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("divergence", ["energy", "wasserstein", "forward_kl"])
def test_real_labels_are_learned_by_any_distance(divergence: str, tmp_path: Path) -> None:
    recipe = arrays(tmp_path / "here.npz")
    x = np.load(tmp_path / "here.npz")["x"]
    np.savez(tmp_path / "here.npz", x=x, y=x[:, :2] * 3 + 1)
    recipe["teacher"]["matching"] = {"divergence": divergence}
    head = {"model": {"mlp": {"hidden": [2], "head": "natural"}}, "learns_from": "labels"}
    training = {"steps": 4, "batch_size": 8}
    matching = {"divergence": divergence}
    recipe["students"]["natural"] = {**head, "training": training, "matching": matching}
    summary = execute(parse_recipe(recipe), tmp_path / "run")
    assert np.isfinite(summary["students"]["natural"]["metrics"]["rmse"]["mean"])
    with pytest.raises(RecipeError, match=r"is 'js', which real-valued labels do not have; .* one"):
        execute(parse_recipe(recipe, ["teacher.matching.divergence=js"]), tmp_path / "other")


def test_what_no_version_wrote_is_refused() -> None:
    with pytest.raises(StorageError, match="has no settings"):
        stored_settings({}, "it")
    for schema in (SCHEMA + 1, "2", None):
        with pytest.raises(StorageError, match="is of schema"):
            stored_settings({"schema": schema, "settings": {}}, "it")


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["model", "seed", "sampler", "matching"]), plain))
def test_settings_of_this_version_are_kept_as_they_are(settings: dict[str, Any]) -> None:
    assert stored_settings({"schema": SCHEMA, "settings": settings}, "it") == settings
