"""Tables of several labels and of soft labels, from the recipe to the exported file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import extracurricular as xcl
from extracurricular.assess.first_recipe import task_words
from extracurricular.assess.survey import survey
from extracurricular.cli import main, survey_table
from extracurricular.data.sets.table import table
from extracurricular.distributions import Bernoulli, Categorical, Task
from extracurricular.errors import RecipeError
from extracurricular.files import read_json
from extracurricular.knowledge.recorded import RecordedEnsemble, open_knowledge
from extracurricular.predictors.predict_files import open_source, predicted
from extracurricular.recipe.read import parse_recipe
from extracurricular.report.write import write_report
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from extracurricular.run.record import record_teacher, teacher_of
from extracurricular.run.recorded import recorded_draws
from extracurricular.run.workspace import Workspace, sampler_seed
from extracurricular.samplers.scores import SCORES

NAMES = ["cat", "dog", "emu"]
KINDS = ("labels", "soft")


def frame(kind: str, rows: int = 240) -> pl.DataFrame:
    """Four columns, and three labels, or the noisy probabilities of three classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4))
    z = 2 * x @ np.random.default_rng(7).normal(size=(4, 3))
    if kind == "labels":
        y = (rng.uniform(size=z.shape) < 1 / (1 + np.exp(-z))).astype(int)
    else:
        y = np.exp(z + 2 * rng.normal(size=z.shape))
        y = (y / y.sum(1, keepdims=True)).round(5)
    columns = {f"x{k}": x[:, k].round(4) for k in range(4)}
    return pl.DataFrame(columns | {name: y[:, k] for k, name in enumerate(NAMES)})


def recipe(file: Path) -> dict[str, Any]:
    training = {"optimizer": "adamw", "lr": 0.01, "batch_size": 64}
    return {
        "name": "several",
        "data": {"table": {"path": str(file), "target": NAMES, "test": 0.5}},
        "seeds": [0],
        "teacher": {
            "model": {"mlp": {"hidden": [32, 32]}},
            "members": 3,
            "sampler": ["empirical", {"noise": {"std": 0.1}}],
            "training": {**training, "steps": 150, "weight_decay": 0.3},
        },
        "defaults": {
            "model": {"mlp": {"hidden": [24]}},
            "training": {**training, "steps": 300, "weight_decay": 0.01},
        },
        "students": {
            "erm": {"learns_from": "labels"},
            "xcl": {
                "sampler": [
                    "empirical", "mixup", {"noise": {"std": 0.1}},
                    {"uncertain": {"score": "entropy", "candidates": 2}},
                ]
            },
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        frame(kind).write_csv(folder / "t.csv")
        execute(parse_recipe(recipe(folder / "t.csv")), folder / "run")
        found[kind] = folder / "run"
    return found


def figures(run: Path) -> dict[str, dict[str, float]]:
    summary = read_json(run / "summary.json")
    entries = {"teacher": summary["teacher"], **summary["students"]}
    return {
        name: {key: one["mean"] for key, one in entry["metrics"].items()}
        for name, entry in entries.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_student_improves_on_learning_from_the_labels(kind: str, runs: dict[str, Path]) -> None:
    found = figures(runs[kind])
    assert found["xcl"]["nll"] < found["erm"]["nll"] - 0.02
    assert found["xcl"]["brier"] < found["erm"]["brier"]
    assert found["xcl"]["kl_to_teacher"] < found["erm"]["kl_to_teacher"]
    error = "hamming" if kind == "labels" else "accuracy"
    # Far better than chance, so that what is compared has learnt.
    assert found["xcl"][error] < 0.3 if kind == "labels" else found["xcl"][error] > 0.5
    assert read_json(runs[kind] / "summary.json")["task"] == {
        "labels": "multilabel", "soft": "classification"
    }[kind]  # fmt: skip


def test_each_label_is_told_by_name(runs: dict[str, Path]) -> None:
    summary = read_json(runs["labels"] / "summary.json")
    for entry in (summary["teacher"], *summary["students"].values()):
        assert list(entry["labels"]) == NAMES
        each = [one["nll"]["mean"] for one in entry["labels"].values()]
        assert sum(each) == pytest.approx(entry["metrics"]["nll"]["mean"], rel=1e-5)
        errors = [1 - one["accuracy"]["mean"] for one in entry["labels"].values()]
        assert np.mean(errors) == pytest.approx(entry["metrics"]["hamming"]["mean"], rel=1e-6)
    assert "labels" not in read_json(runs["soft"] / "summary.json")["teacher"]


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_finds_the_figures_again(
    kind: str,
    runs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = xcl.evaluate(runs[kind], student="xcl")
    summary = read_json(runs[kind] / "summary.json")["students"]["xcl"]
    for name in ("nll", "brier", "ece"):
        assert found["metrics"][name]["mean"] == pytest.approx(summary["metrics"][name]["mean"])
    assert found["fidelity"]["kl_to_teacher"]["mean"] == pytest.approx(
        summary["metrics"]["kl_to_teacher"]["mean"], rel=1e-4
    )
    assert ("labels" in found) == (kind == "labels")
    json.dumps(found, allow_nan=False)
    monkeypatch.setattr(sys, "argv", ["xcl", "evaluate", str(runs[kind]), "--student", "xcl"])
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr().out
    assert "Brier score" in printed
    if kind == "labels":
        assert found["labels"] == summary["labels"]
        assert "Hamming loss" in printed
        assert all(name in printed for name in NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_shows_them(kind: str, runs: dict[str, Path]) -> None:
    write_report(open_run(runs[kind]))
    page = (runs[kind] / "report.html").read_text(encoding="utf-8")
    assert "Are sure answers right?" in page
    assert "Leaving unsure answers out" in page
    if kind == "labels":
        assert "Each label of an example is an answer of its own" in page
        assert "its most probable labels" in page
        assert 'aria-label="Labels of xcl"' in page
        assert "labels that student and teacher both predict" in page
    else:
        assert "its most probable classes" in page


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_gives_the_teachers_answers(
    kind: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    file = runs[kind].parent / "t.csv"
    workspace = Workspace(parse_recipe(recipe(file)), runs[kind])
    source = teacher_of(workspace, "xcl")
    report = record_teacher(source, tmp_path / "known", 96, codec="float16", members=True)
    assert report.draws == 96
    recorded = open_knowledge(tmp_path / "known", teacher=source.teacher)
    assert isinstance(recorded, RecordedEnsemble)
    ids = torch.arange(96)
    seed = sampler_seed(source.stage.seed)
    batch = recorded_draws(source.stage, source.workspace, seed, 96)(ids)
    said, stored = source.teacher(batch), recorded(batch)
    assert isinstance(said, Bernoulli if kind == "labels" else Categorical)
    assert type(stored) is type(said)
    assert float(said.kl(stored).max()) < 1e-4  # type: ignore[arg-type]
    with_one = SCORES.entry("mutual_information")
    torch.testing.assert_close(
        with_one(recorded.members(batch)), with_one(source.teacher.members(batch)),
        rtol=1e-2, atol=1e-4,
    )  # fmt: skip
    if kind == "labels":
        with pytest.raises(RecipeError, match="for labels of 0 and 1 use 'float16' or 'float32'"):
            record_teacher(source, tmp_path / "other", 8, codec="uint8")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_predicted(kind: str, runs: dict[str, Path], tmp_path: Path) -> None:
    model = xcl.load(runs[kind])
    rows = frame(kind)
    answer = model.predict(rows.drop(NAMES))
    assert answer.probs.shape == (240, 3)
    source = open_source(model, runs[kind].parent / "t.csv")
    found = pl.concat(predicted(model, source))
    columns = [f"p_{name}" for name in NAMES]
    first = "labels" if kind == "labels" else "class"
    assert found.columns == ["row", first, *columns, "entropy", "unlike_training"]
    np.testing.assert_allclose(found[columns].to_numpy(), answer.probs, rtol=1e-6)
    np.testing.assert_allclose(found["entropy"].to_numpy(), answer.entropy, rtol=1e-6)
    if kind == "labels":
        assert answer.labels.shape == (240, 3)
        assert found["labels"][0] == ", ".join(answer.names[0])
        wanted = [
            tuple(n for n, p in zip(NAMES, row, strict=True) if p >= 0.5) for row in answer.probs
        ]
        assert answer.names == wanted
        with pytest.raises(AttributeError, match="a prediction of labels has no std"):
            _ = answer.std
        truth = rows[NAMES].to_numpy()
        assert model.score(rows.drop(NAMES), truth) == pytest.approx(
            (answer.labels == truth).all(1).mean()
        )
    else:
        assert found["class"].to_list() == answer.names
        np.testing.assert_allclose(answer.probs.sum(1), 1, rtol=1e-5)
    teacher = xcl.load(runs[kind], teacher=True)
    apart = pl.concat(predicted(teacher, open_source(teacher, runs[kind].parent / "t.csv")))
    assert bool((apart["epistemic"] >= 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_file_answers_alike(kind: str, runs: dict[str, Path], tmp_path: Path) -> None:
    shipped = xcl.export_run(runs[kind], tmp_path / "s.onnx", int8=True)
    task = {"labels": "multilabel", "soft": "classification"}[kind]
    assert shipped.metadata["task"] == task
    names = shipped.metadata["outputs" if kind == "labels" else "classes"]
    assert names == NAMES
    again, model = xcl.load(tmp_path / "s.onnx"), xcl.load(runs[kind])
    assert again.task == model.task == Task(task, 3)  # type: ignore[arg-type]
    rows = frame(kind).drop(NAMES)
    np.testing.assert_allclose(again.predict(rows).probs, model.predict(rows).probs, atol=1e-5)
    small = xcl.load(tmp_path / "s.int8.onnx").predict(rows)
    assert float(np.abs(small.probs - model.predict(rows).probs).max()) < 0.1
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    words = "a probability for each label" if kind == "labels" else "a probability for each class"
    assert words in card
    named = ", ".join(f"`{name}`" for name in NAMES)
    assert (f"Labels, in order: {named}" in card) == (kind == "labels")
    measured = xcl.evaluate(
        tmp_path / "s.onnx", {"table": recipe(runs[kind].parent / "t.csv")["data"]["table"]}
    )
    assert measured["metrics"]["nll"]["mean"] == pytest.approx(
        figures(runs[kind])["xcl"]["nll"], rel=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_student_and_a_teacher_file_go_on(
    kind: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    xcl.export_run(runs[kind], tmp_path / "s.onnx")
    data = table(**recipe(runs[kind].parent / "t.csv")["data"]["table"])
    model = xcl.distill(tmp_path / "s.onnx", {"mlp": {"hidden": [4]}}, data, steps=5)
    assert model.task == data.task
    model.save(tmp_path / "saved")
    rows = frame(kind).drop(NAMES)
    again = xcl.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict(rows).probs, model.predict(rows).probs)
    plain = xcl.distill(
        lambda x: np.full((len(x), 3), 1 / 3), {"mlp": {"hidden": [4]}}, data, steps=300
    )
    # A teacher that knows nothing teaches nothing.
    assert float(np.abs(plain.predict(rows).probs - 1 / 3).mean()) < 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entry", ["random_forest", "gradient_boosting", "gaussian_process"])
def test_estimators_are_refused_by_name(entry: str, kind: str, runs: dict[str, Path]) -> None:
    data = table(**recipe(runs[kind].parent / "t.csv")["data"]["table"])
    what = "3 labels of 0 and 1" if kind == "labels" else "probabilities"
    with pytest.raises(RecipeError, match=f"has {what}; use networks, an ONNX file or a function"):
        xcl.distill({entry: {}}, {"mlp": {"hidden": [4]}}, data, steps=2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_survey_tells_what_they_are(kind: str, runs: dict[str, Path]) -> None:
    data = table(**recipe(runs[kind].parent / "t.csv")["data"]["table"])
    found = survey(data)
    assert data.train.y is not None
    if kind == "labels":
        assert found.counts["train"] == data.train.y.sum(0).long().tolist()
        assert task_words(data) == "3 labels of 0 and 1"
    else:
        assert sum(found.counts["train"]) == len(data.train)
    assert found.targets == {}
    shown = [str(line) for line in survey_table.lines(data, found)]
    words = "multilabel, 3 labels of 0 and 1" if kind == "labels" else "3 classes, given by probab"
    assert any(words in line for line in shown)


def test_scores_of_uncertainty_take_labels_or_are_refused_by_name() -> None:
    members = [Bernoulli(torch.randn(5, 3)) for _ in range(3)]
    mixed = Bernoulli.mixture(members)
    lead = (2 * mixed.probs - 1).abs().amin(1)
    torch.testing.assert_close(SCORES.entry("margin")(mixed), 1 - lead)
    torch.testing.assert_close(SCORES.entry("entropy")(mixed), mixed.entropy())
    assert SCORES.entry("mutual_information")(members).shape == (5,)
    torch.testing.assert_close(SCORES.entry("divergence")(mixed, members[0]), mixed.kl(members[0]))
    for score, given in (("predictive_variance", mixed), ("epistemic_variance", members)):
        with pytest.raises(ValueError, match="for classes and labels use"):
            SCORES.entry(score)(given)


def test_a_finished_run_finds_changed_labels(runs: dict[str, Path], tmp_path: Path) -> None:
    rows = frame("labels").with_columns((1 - pl.col("dog")).alias("dog"))
    rows.write_csv(tmp_path / "other.csv")
    with pytest.raises(xcl.XclError, match=r"other .* rows, as many as there were"):
        xcl.evaluate(runs["labels"], [f"path={tmp_path / 'other.csv'}"])
