"""Every place that asks which kind of distribution or task it has, with what it does for labels.

A new branch, or one that goes, must be written here, so that no kind of task is forgotten: a place
that knows classes and real targets alone would take several labels of 0 and 1 (``multilabel``) for
one of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import extracurricular as xcl
from extracurricular.distributions import FAMILIES
from extracurricular.errors import XclError
from extracurricular.export import export_run
from extracurricular.files import read_json
from extracurricular.models.families import DISTRIBUTIONS, read_family
from extracurricular.recipe.read import parse_recipe
from extracurricular.report.write import ReportStage
from extracurricular.run.execute import execute

SRC = Path(__file__).parents[1] / "src" / "extracurricular"

# What each place does for several labels of 0 and 1.
PLACES = {
    "assess.assess._figures": "no coverage: only Gaussians have intervals",
    "assess.assess._scores": "no units to undo",
    "assess.draws_sheet.rows": "a column of probabilities for each label",
    "assess.first_recipe._for_images": "as for classes",
    "assess.first_recipe._for_table": "as for classes, with networks as the teacher",
    "assess.first_recipe.choose": "no temperature",
    "assess.first_recipe.facts_of": "several targets, which trees do not learn",
    "assess.first_recipe.task_words": "N labels of 0 and 1",
    "assess.fitting.aligned": "returns before: there are no names of classes",
    "assess.fitting.fitting": "the word labels",
    "assess.fitting.in_order.moved": "never: they have no names of classes",
    "assess.slices._figures": "share of labels that are right",
    "assess.slices._of_labels": "values 0 and 1",
    "assess.slices._targets": "their names",
    "assess.survey._flat": "no far values: labels are no numbers",
    "assess.survey._odd_labels": "labels with one value in a split",
    "assess.survey.survey": "counts of examples with each label",
    "assess.survey_columns._equal": "none: a column may equal a label",
    "assess.survey_columns._units": "no units",
    "cli.draws_table.lines": "mean probability",
    "cli.survey_table._classes": "rows are labels",
    "cli.survey_table._equal": "the word label",
    "cli.survey_table._rows": "two rows, by the last label",
    "cli.survey_table._some": "by the last label",
    "cli.survey_table._task": "multilabel, N labels of 0 and 1",
    "data.base._check_classes": "not all examples may have the same labels",
    "data.base._check_labels": "see data.several.check_columns",
    "data.base._guess_task": "columns of 0 and 1 are labels, and it is told",
    "data.base._split": "whole numbers and booleans become reals",
    "data.base.in_float32": "no units: float32",
    "data.base.lacking": "labels with one value in a split",
    "data.base.make_data": "no scale of targets",
    "data.formats.contents._forms": "the word labels",
    "data.formats.description._check_names": "outputs name the labels; no scale of targets",
    "data.formats.labelled_images.load_labelled": "no choice: one label for an image",
    "data.formats.tabular.Choices": "a setting",
    "data.formats.tabular._Labels.strata": "combinations of labels",
    "data.formats.tabular._Labels.task": "Task('multilabel', L)",
    "data.formats.tabular._labels": "see target_columns",
    "data.formats.target_columns.read_several": "checks that all are 0 or 1",
    "data.sets.arrays.arrays": "a setting",
    "data.sets.cifar._data": "the set has classes",
    "data.sets.hub._labels": "lists of 0 and 1; one value is refused by name",
    "data.sets.hub.hf": "a setting",
    "data.sets.imagefolder._with_targets": "refused by name: a folder gives one class",
    "data.sets.imagefolder.imagefolder": "refused, see _with_targets",
    "data.sets.images.images": "a setting",
    "data.sets.webdataset._kinds": "no choice: one label for an image",
    "data.sets.webdataset._with_labels": "no choice: a list of labels is refused by name",
    "data.sets.webdataset.webdataset": "no choice: see _with_labels",
    "data.sets.table.from_frame": "a setting",
    "data.sets.table.table": "a setting",
    "data.several.check_columns": "[N, L] of 0 and 1",
    "data.several.summing_to_1": "stay as they are",
    "data.target_transform.transform_targets": "refused: labels are no numbers",
    "data.tasks": "columns of 0 and 1 suggest multilabel",
    "data.tasks.Labels.coded": "another split is read as labels too",
    "data.tasks._several": "labels where the task says so, or the columns look so",
    "data.tasks.kind_of": "several columns: see data.several",
    "data.tasks.read_labels": "texts are refused by name",
    "data.transformed.own_kind": "stay as they are",
    "distributions.calibration.Calibration.goes_with": "a temperature alone",
    "distributions.calibration.Calibration._tempered": "a temperature, as for classes",
    "distributions.dirichlet.Dirichlets": "a family of classes",
    "distributions.dirichlet.Ensembles": "a family of classes",
    "distributions.family": "a kind, which families have none of for them",
    "distributions.filed.gathered": "in memory: labels are few",
    "distributions.full_covariance.FullGaussians": "a family of real targets",
    "distributions.gaussian_mixture.GaussianMixtures": "a family of real targets",
    "distributions.quantiles.Quantiles": "a family of real targets",
    "distributions.student_t.StudentTs": "a family of real targets",
    "distributions.task": "Bernoulli, one logit for each label",
    "distributions.task.Task.binary": "yes",
    "distributions.task.Task.classes": "none",
    "distributions.task.Task.distribution": "no variance to bend",
    "distributions.task.Task.outputs": "L logits",
    "distributions.task.concatenate": "from their parameters",
    "evaluation.calibrate._parts": "two classes for each label",
    "evaluation.calibrate.fit_conformal": "refused by name",
    "evaluation.calibrate.fit_temperature": "one temperature for all labels",
    "evaluation.calibrate.variance_factors": "refused: they have no variance",
    "evaluation.calibrated._ece": "of all pairs of example and label",
    "evaluation.calibrated.calibration_figures": "NLL and ECE alone: no sets",
    "distributions.task.together": "refused by name",
    "evaluation.classes.each_class": "none: see evaluation.labels",
    "evaluation.classes.without": "labels are told by name",
    "evaluation.constant._errors": "Hamming loss",
    "evaluation.constant._far_out": "no variances",
    "evaluation.constant._nll": "no units",
    "evaluation.constant._same": "probabilities that are alike",
    "evaluation.constant.constant": "the share of each label in training",
    "evaluation.labels.each_label": "figures for each label",
    "evaluation.metrics.agreement": "both predict the label, or both do not",
    "evaluation.metrics.figures": "Hamming loss and others; calibration of all pairs",
    "evaluation.predict._wrong": "logits must be finite",
    "evaluation.predict.own_units": "no units to bring back",
    "evaluation.targets.by_target": "none: see evaluation.labels",
    "export.card": "Hugging Face's names for tables and images",
    "export.card._about": "the probability of each of N labels",
    "export.card._contract": "probs, for each label; names of the labels",
    "export.card._figures": "differences of a probability",
    "export.graph": "one output, probs",
    "export.graph.Exported.forward": "the probability of each label",
    "export.verify.outputs_of": "probs",
    "export.verify.read_outputs": "probs as Bernoullis",
    "generators.base.conditions": "the labels themselves",
    "generators.diffusion.class_names": "none: one class cannot say which labels an image has",
    "generators.gan.Gan.network": "conditions are numbers, not one-hot",
    "generators.gan._Fitting.__init__": "conditions are numbers, not one-hot",
    "generators.quality._label_error": "share of wrong labels",
    "generators.quality._spread": "over all draws, not class by class",
    "inputs.Batch.__getitem__": "kept",
    "knowledge.answers.Answers.distribution": "refused by name, see check_task",
    "knowledge.answers._nouns": "refused before",
    "knowledge.answers.check_task": "refused by name",
    "knowledge.answers_file._table": "refused by name, see answers.check_task",
    "knowledge.answers_file.guessed": "refused when they are read",
    "knowledge.codecs.TopK.encode": "refused by need_classes",
    "knowledge.codecs._Floats.encode": "log-odds",
    "knowledge.codecs.default_codec": "float16",
    "knowledge.codecs.need_classes": "refused by name, with codecs that will do",
    "knowledge.quantised._Quantised.encode": "refused by need_classes",
    "matching.class_weight.class_weights": "refused by name",
    "matching.dist.Dist": "refused by name: kinds of Traits",
    "matching.divergences._over_classes": "two classes for each label",
    "matching.divergences.energy": "see _over_classes",
    "matching.divergences.forward_kl": "no weight: beta is refused",
    "matching.divergences.js": "takes labels, as classes do",
    "matching.divergences.kinds_in_words": "the word labels",
    "matching.divergences.wasserstein": "power 1, as for classes",
    "matching.dkd.DKD": "refused by name: kinds of Traits",
    "matching.loss.Matching.__call__": "no beta",
    "matching.loss.Matching.beta_for": "a beta is refused by name",
    "matching.loss.describe": "the beta of a task, where none is known: real targets",
    "matching.smoothing.smoothed_labels": "move towards a half",
    "matching.standardised.Standardised.traits": "refused by name: kinds of Traits",
    "models.estimators.BoostedStudent.fit": "one fit of two classes for each label",
    "models.estimators._of_regressors": "log-odds of mean probabilities",
    "models.families": "families are refused by name",
    "models.heads.check_head": "the head natural is refused by name",
    "predictors.disagreement.disagreement": "mutual information, summed over labels",
    "predictors.exported": "one output, probs",
    "predictors.exported.exported.ask": "no units",
    "predictors.given._counted_from_one": "no classes to count",
    "predictors.given._nouns": "the word labels",
    "predictors.load._from_weights": "the word outputs",
    "predictors.predict_files._columns": "labels, p_NAME and entropy",
    "predictors.predictor.Prediction._discrete": "has probabilities",
    "predictors.predictor.Prediction._gaussian": "no std, by name",
    "predictors.predictor.Prediction.in_set": "refused by name",
    "predictors.predictor.Prediction.labels": "0 and 1, from 0.5 on",
    "predictors.predictor.Prediction.names": "the names of those that are predicted",
    "predictors.predictor.Predictor.names": "names of the labels",
    "predictors.predictor.Predictor.score": "share of examples whose labels are all right",
    "predictors.units._constant_error": "the commoner value of each label",
    "predictors.units._no_better": "accuracy of labels",
    "predictors.units._raw": "logits",
    "predictors.units._standardised": "no means alone",
    "predictors.units._way": "Hamming loss",
    "report.collect.collect": "no classes",
    "report.differing._label": "the names of those that are there",
    "report.gallery._texts": "the most probable labels",
    "report.gallery.outputs": "names of the labels",
    "report.sections._pairs": "a sentence on pairs of example and label",
    "report.sections.calibration": "reliability and risk of all pairs",
    "report.sections.fidelity": "labels that both predict, or both do not",
    "recipe.single.default_matching": "no temperature",
    "run.answers.summed_up": "the probability of each label is kept",
    "run.calibrated": "take temperature alone",
    "run.chance.sentence": "never: it is asked for classes alone",
    "run.chance.tell_of_chance": "no word: their order cannot be guessed",
    "run.estimator.gathered": "mean probabilities of draws that are alike",
    "run.estimator.on_cpu": "from its log-odds",
    "run.evaluation._counts": "none: classes alone are balanced",
    "run.generator_pictures._rows": "rows by the last label",
    "run.generator_pictures.image_sheets": "between the lowest and the highest",
    "run.trial._check_kind": "a divergence for classes is refused by name",
    "run.teacher.TeacherPlan.load_uncalibrated": "the word outputs",
    "run.trial._needs": "one logit for each label",
    "samplers.balanced.Balanced.__post_init__": "refused by name",
    "samplers.blend.joined": "kept",
    "samplers.generated.Generated.__call__": "conditions are the labels",
    "samplers.mixing._mixed": "labels are mixed as soft labels are",
    "samplers.neighbours.Neighbours.__call__": "kept, as by empirical",
    "samplers.pool.Pool.__call__": "kept",
    "samplers.scores.epistemic_variance": "refused by name",
    "samplers.scores.margin": "that of the least sure label",
    "samplers.scores.mutual_information": "summed over labels",
    "samplers.scores.predictive_variance": "refused by name",
    "samplers.stored.Empirical.take": "kept",
    "samplers.uncertain.Uncertain._ask": "kept",
    "teachers.base._at_fault": "every log-odds is finite",
    "teachers.estimators._check_fitted": "refused by name",
    "teachers.estimators._need_classes": "the refusal",
    "teachers.estimators.sklearn_teacher": "refused before",
    "teachers.named": "rows to try a teacher on, as for real targets",
    "teachers.named.GaussianProcess.fit": "refused by training_table",
    "teachers.named.GradientBoosting.fit": "refused by training_table",
    "teachers.named.RandomForest.fit": "refused by training_table",
    "teachers.named._fitted": "refused by training_table",
    "teachers.named.few": "rows to try a teacher on, as for real targets",
    "teachers.networks.LabelTeacher.__call__": "labels as Bernoullis",
    "teachers.onnx_output.answer_names": "real outputs alone, no maps",
    "teachers.order.Reordered.ordered": "never: classes are refused for them",
    "teachers.order.class_order": "refused: they have no classes",
    "teachers.raw": "output is probs or logits",
    "teachers.raw.RawTeacher.identity": "probabilities alone",
    "teachers.raw._array": "a shape [B, L] is asked for",
    "teachers.raw._both": "stays: each label has a column",
    "teachers.raw.read_answer": "probabilities in [0, 1] that need not sum to 1, or logits",
    "teachers.raw.standardised": "no units",
    "training.captured.Slots.__init__": "kept",
    "training.captured.Slots.take": "kept",
    "training.defaults": "a weight decay as for classes",
    "training.defaults.decided": "SGD for convolutional networks, as for classes",
}

_NAMES = {family.__name__ for family in FAMILIES.values()}


def places(file: Path) -> Iterator[str]:
    """Functions that test for a family, name a kind of task, or ask whether labels are binary."""
    module = ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")

    def visit(node: ast.AST, name: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield from visit(child, f"{name}.{child.name}")
                continue
            if _asks(child):
                yield name
            yield from visit(child, name)

    yield from visit(ast.parse(file.read_text(encoding="utf-8")), module)


def _asks(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
        asked = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
        return bool(asked & _NAMES)
    if isinstance(node, ast.Attribute):
        return node.attr == "binary"
    return isinstance(node, ast.Constant) and node.value in FAMILIES


def test_every_branch_on_the_kind_is_written_down() -> None:
    found = {place for file in SRC.rglob("*.py") for place in places(file)}
    assert found - set(PLACES) == set(), "write down what these do for labels of 0 and 1"
    assert set(PLACES) - found == set(), "these ask no longer"


def test_the_page_asks_in_one_template() -> None:
    asking = {
        file.name
        for file in SRC.rglob("*.j2")
        if any(f'"{kind}"' in file.read_text(encoding="utf-8") for kind in FAMILIES)
    }
    assert asking == {"report.html.j2"}
    text = (SRC / "report" / "templates" / "report.html.j2").read_text(encoding="utf-8")
    assert '"multilabel"' in text


# Families of distributions: each goes the whole way, from a recipe to an exported file.

# A family and its settings, for each that is registered; the first test sees to it.
WAYS: dict[str, Any] = {
    "gaussian": "gaussian",
    "categorical": "categorical",
    "student_t": "student_t",
    "mixture": {"mixture": {"components": 2}},
    "quantiles": {"quantiles": {"levels": 5}},
    "full": "full",
    "normal_inverse_gamma": "normal_inverse_gamma",
    "dirichlet": "dirichlet",
}
CLASSES = ("categorical", "dirichlet")


def test_each_family_goes_the_whole_way() -> None:
    assert sorted(WAYS) == DISTRIBUTIONS.names()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Two runs of 5 steps from a recorded ensemble: families of classes, and of two targets."""
    folder = tmp_path_factory.mktemp("ways")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    y = x[:, :2] @ np.array([[100.0, 1.0], [0.0, 1.0]]) + [5000.0, 0.0]
    found = {}
    for classes in (True, False):
        file = folder / f"{classes}.csv"
        target = ["kind"] if classes else ["a", "b"]
        labels = np.where(x[:, :1] > 0, "up", "down") if classes else y.astype(str)
        lines = [",".join(["u", "v", "w", *target])]
        lines += [",".join([*map(str, row), *own]) for row, own in zip(x, labels, strict=True)]
        file.write_text("\n".join(lines) + "\n")
        training = {"steps": 5, "batch_size": 8, "optimizer": "adamw", "lr": 0.01}
        network = {"model": {"mlp": {"hidden": [4]}}, "training": training}
        ways = {name: way for name, way in WAYS.items() if (name in CLASSES) == classes}
        recipe = {
            "name": "ways",
            "data": {"table": {"path": str(file), "target": target[0] if classes else target}},
            "teacher": {**network, "members": 2, "record": {"draws": 60}},
            "defaults": network,
            "students": {name: {"distribution": way} for name, way in ways.items()},
        }
        found[classes] = folder / f"run-{classes}"
        execute(parse_recipe(recipe), found[classes], last=[ReportStage()])
    return found


@pytest.mark.parametrize("name", sorted(WAYS))
def test_a_family_is_trained_recorded_loaded_saved_and_exported(
    name: str, runs: dict[bool, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extracurricular.export.ship._SECONDS", 0.0)
    run, family = runs[name in CLASSES], read_family(WAYS[name])
    settings = read_json(run / "students" / name / "seed-0" / "stage.json")["settings"]
    assert settings.get("distribution") == (None if family is None else family.spec)
    figures = read_json(run / "summary.json")["students"][name]["metrics"]
    assert all(np.isfinite(one["mean"]) for one in figures.values())
    assert name in (run / "report.html").read_text(encoding="utf-8")
    rows = {"u": [0.1, -2.0, 1.0], "v": [0.0, 0.5, 1.0], "w": [1.0, 1.0, -1.0]}
    student = xcl.load(run, student=name)
    said = student(rows).distribution
    assert said.family == family
    knows = said.disagreement is not None
    assert knows == (family is not None and family.members == "needed")
    apart = student.epistemic(student.read(rows))
    assert (apart is not None) == knows
    shipped = export_run(run, tmp_path / "it.onnx", student=name)
    checked = shipped.metadata["files"]["it.onnx"]
    assert checked["verified"]
    assert checked["difference"] < 1e-4
    again = xcl.load(tmp_path / "it.onnx")(rows).distribution
    assert again.family == family
    torch.testing.assert_close(again.mean, said.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again.entropy(), said.entropy(), rtol=1e-3, atol=1e-3)
    if knows:
        torch.testing.assert_close(again.disagreement, said.disagreement, rtol=1e-3, atol=1e-4)
    for output in () if family is None else family.more:
        assert f"| {output} |" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["student_t", "dirichlet"])
def test_distill_keeps_the_family_of_a_saved_student(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)).astype(np.float32)
    y = x[:, :1] if name == "student_t" else (x[:, 0] > 0).astype(np.int64)
    width = 2
    torch.manual_seed(0)
    teachers = [torch.nn.Linear(3, width) for _ in range(2)]
    made = xcl.distill(
        teachers, {"mlp": {"hidden": [4]}}, (x, y), raw=False, steps=4, distribution=name,
        sampler=["empirical"],
    )  # fmt: skip
    made.save(tmp_path / "kept")
    again = xcl.load(tmp_path / "kept")
    said, kept = made(x[:5]).distribution, again(x[:5]).distribution
    assert kept.family == said.family == read_family(name)
    torch.testing.assert_close(kept.parameters, said.parameters)


@pytest.mark.parametrize(
    ("student", "teacher", "complaint"),
    [
        ({"distribution": "student"}, {}, "unknown distribution 'student'; did you mean"),
        ({"distribution": "mine:Own"}, {}, "students.s.distribution: is 'mine:Own', and must be"),
        ({"distribution": {"mixture": {"components": 1}}}, {}, "components is 1; it must be from"),
        ({"distribution": "dirichlet"}, {}, "students.s.distribution: is 'dirichlet', which is for "
         "classes, but the data have real targets"),
        ({"distribution": "full"}, {}, "'full' is for several targets, and the data have one"),
        ({"distribution": "normal_inverse_gamma"}, {}, "this teacher is a single network or model; "
         "set teacher.members to 2 or more"),
        ({"distribution": "normal_inverse_gamma", "learns_from": "labels"}, {"members": 2},
         "labels have none"),
        ({"distribution": "normal_inverse_gamma", "matching": {"divergence": "js"}},
         {"members": 2}, "matching.divergence: is 'js', which does not see the members"),
        ({"distribution": {"mixture": {"components": 2}}, "model": {"mlp": {"head": "natural"}}},
         {}, "head is 'natural', which is for Gaussians, but the distribution is 'mixture'"),
        ({}, {"distribution": "normal_inverse_gamma"},
         "teacher.distribution: is 'normal_inverse_gamma', which learns"),
        ({}, {"distribution": "student_t", "record": {"draws": 24, "codec": "uint8"}}, "codec"),
    ],
)  # fmt: skip
def test_a_family_that_does_not_fit_is_refused_in_one_sentence(
    student: dict[str, Any], teacher: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "t.csv"
    file.write_text("u,v,y\n" + "".join(f"{k},{k * k % 7},{k / 3}\n" for k in range(40)))
    recipe = {
        "name": "wrong",
        "data": {"table": {"path": str(file), "target": "y"}},
        "teacher": {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": 3}, **teacher},
        "students": {"s": {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": 3}, **student}},
    }
    with pytest.raises(XclError, match=re.escape(complaint)):
        execute(parse_recipe(recipe), tmp_path / "run")
