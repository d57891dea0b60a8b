"""Evaluating a model: on arrays of known answer, on finished runs, and from the command line."""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, roc_auc_score
from torch import Tensor

import extracurricular as xcl
from extracurricular import cli
from extracurricular.assess.assess import Settings, assess
from extracurricular.assess.evaluate import evaluate, together
from extracurricular.assess.fitting import fitting, foreign_inputs, in_order
from extracurricular.data.base import Data, make_data
from extracurricular.distributions import Categorical, Gaussian
from extracurricular.errors import DataError, RecipeError, StorageError
from extracurricular.evaluation import metrics
from extracurricular.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from extracurricular.evaluation.words import WORDS
from extracurricular.files import save_weights
from extracurricular.predictors.predictor import Predictor, input_forms
from extracurricular.recipe.lookup import find_data
from extracurricular.run.finished import open_run
from tests.cli.called import xcl as process
from tests.conftest import eye_data, image_data, table_data

WEIGHT = torch.from_numpy(np.random.default_rng(0).normal(size=(64, 4))).float() / 255


def model(data: Data, ask: Any, **changes: Any) -> Predictor:
    known = {"classes": data.classes, "outputs": data.outputs, "angular": data.angular}
    return Predictor("the model", data.task, input_forms(data), ask, **known | changes)


def linear(data: Data, scale: float = 1.0, **changes: Any) -> Predictor:
    """A classifier of 8×8 bytes."""

    def ask(parts: dict[str, Tensor]) -> Categorical:
        return Categorical(scale * parts["x"].flatten(1).float() @ WEIGHT)

    return model(data, ask, **changes)


def centred(data: Data, std: float = 0.5) -> Predictor:
    """A regression that knows the targets of ``table_data`` but for one of half a unit."""

    def ask(parts: dict[str, Tensor]) -> Gaussian:
        mean = parts["x"][:, :2] * 10 + 5 + 0.5
        return Gaussian(mean, torch.full_like(mean, 2 * math.log(std)))

    return model(data, ask)


# Known answers


def test_classes_of_known_answer() -> None:
    data = image_data()
    found = assess(linear(data), data)
    x, y = data.test.x, data.test.y
    assert isinstance(x, Tensor)
    assert y is not None
    probs = (x.flatten(1).double() @ WEIGHT.double()).softmax(1).numpy()
    figures = found["metrics"]
    accuracy = accuracy_score(y.numpy(), probs.argmax(1))
    assert figures["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert figures["nll"] == pytest.approx(log_loss(y, probs, labels=range(4)), rel=1e-4)
    exact = metrics.figures(Categorical.from_probs(torch.from_numpy(probs)), y)
    assert figures == pytest.approx(exact, rel=1e-3)
    assert found["examples"] == 20
    assert found["fidelity"] is found["corruptions"] is found["ood"] is None
    assert found["notes"] == []


def test_each_class_has_figures_of_its_own_and_what_is_absent_is_told() -> None:
    data = image_data()
    found = assess(linear(data), data)
    y, x = data.test.y, data.test.x
    assert y is not None
    assert isinstance(x, Tensor)
    said = (x.flatten(1).double() @ WEIGHT.double()).argmax(1)
    assert list(found["classes"]) == list(data.classes or "0123")
    for k, own in enumerate(found["classes"].values()):
        assert own["support"] == int((y == k).sum())
        if own["support"]:
            assert own["recall"] == pytest.approx(float((said == y)[y == k].double().mean()))
    recalls = [own["recall"] for own in found["classes"].values() if own["support"]]
    assert found["metrics"]["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert not set(found.get("without", {})) & set(WORDS)
    alone = replace(data, test=replace(data.test, y=torch.zeros_like(y)))
    found = assess(linear(data), alone)
    assert "macro_auroc" not in found["metrics"]
    assert found["without"]["macro_auroc"].startswith("needs a class or label that some examples")
    name = list(found["classes"])[1]
    assert found["without"][f"{name}: recall"] == "needs an example of the class in the split"
    assert found["classes"][name]["support"] == 0
    assert "recall" not in found["classes"][name]
    assert "classes" not in assess(centred(table_data()), table_data())


def test_seeds_whose_splits_differ_keep_the_figures_that_all_have() -> None:
    first = {"metrics": {"accuracy": 0.5, "macro_auroc": 0.7}, "examples": 3}
    found = together([first, {"metrics": {"accuracy": 0.7}, "examples": 3}])
    assert list(found["metrics"]) == ["accuracy"]
    assert found["metrics"]["accuracy"]["per_seed"] == [0.5, 0.7]


def test_real_targets_of_known_answer() -> None:
    data = table_data()
    found = assess(centred(data), data)["metrics"]
    y = data.test.y
    assert y is not None
    # Off by half a unit, which is one deviation: all the figures have closed forms.
    z = torch.distributions.Normal(0.0, 1.0)
    cdf, pdf = float(z.cdf(torch.tensor(1.0))), math.exp(-0.5) / math.sqrt(2 * math.pi)
    expected = {
        "rmse": 0.5,
        "mae": mean_absolute_error(y, y + 0.5),
        "nll": 2 * (0.5 * math.log(2 * math.pi) + math.log(0.5) + 0.5),
        "crps": 0.5 * ((2 * cdf - 1) + 2 * pdf - 1 / math.sqrt(math.pi)),
        "coverage50": 0,
        "coverage90": 1,
        "coverage95": 1,
        "sharpness90": 0.5 * 2 * float(z.icdf(torch.tensor(0.95))),
    }
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_split_is_the_one_that_is_named() -> None:
    data = image_data()
    assert assess(linear(data), data, Settings(split="validation"))["examples"] == 10
    with pytest.raises(RecipeError, match="split: is 'tset'; it must be one of test, validation"):
        Settings(split="tset")
    none = make_data("none", (data.train.x, data.train.y), (data.test.x, data.test.y))
    with pytest.raises(DataError, match="the validation split of 'none' has no examples"):
        assess(linear(none), none, Settings(split="validation"))


# Fidelity


def test_fidelity_to_itself_and_to_another() -> None:
    data = image_data()
    own = assess(linear(data), data, against=linear(data))["fidelity"]
    assert own == pytest.approx({"kl_to_teacher": 0, "js_to_teacher": 0, "agreement": 1}, abs=1e-6)
    x = data.test.x
    assert isinstance(x, Tensor)
    student = Categorical(x.flatten(1).float() @ WEIGHT)
    teacher = Categorical(-0.5 * student.logits)
    other = assess(linear(data), data, against=linear(data, -0.5))["fidelity"]
    assert other["kl_to_teacher"] == pytest.approx(float(teacher.kl(student).mean()), rel=1e-5)
    assert other["js_to_teacher"] == pytest.approx(float(student.js(teacher).mean()), rel=1e-5)
    assert other["agreement"] < 0.5
    with pytest.raises(DataError, match="predicts 2 real targets, but the data 'images' have 4"):
        assess(linear(data), data, against=centred(table_data()))


# Robustness


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_errors_under_corruption_are_those_on_corrupted_images(batch_size: int) -> None:
    data = image_data()
    names = ["gaussian_noise", "contrast"]
    predictor = linear(data, batch_size=batch_size)
    found = assess(predictor, data, Settings(corruptions=names))
    clean, robust = found["metrics"], found["corruptions"]
    assert robust["measure"] == "error_rate"
    assert robust["clean"] == {"error": 1 - clean["accuracy"], "nll": clean["nll"]}
    assert list(robust["by_name"]) == names
    errors = []
    for name in names:
        for severity in SEVERITIES:
            assert isinstance(data.test.x, Tensor)
            assert data.test.y is not None
            x = corrupt(data.test.x, name, severity)
            figures = metrics.figures(predictor.distribution(x), data.test.y)
            entry = robust["by_name"][name]
            assert entry["error"][str(severity)] == 1 - figures["accuracy"]
            assert entry["nll"][str(severity)] == pytest.approx(figures["nll"], rel=1e-5)
            errors.append(1 - figures["accuracy"])
    assert robust["mean"]["error"]["mean"] == pytest.approx(np.mean(errors))
    assert robust["mean"]["error"]["2"] == pytest.approx((errors[1] + errors[6]) / 2)
    assert robust["increase"]["error"] == pytest.approx(np.mean(errors) - errors_of(clean))
    assert robust["ratio"] == pytest.approx(np.mean(errors) / errors_of(clean))


def errors_of(clean: dict[str, float]) -> float:
    return 1 - clean["accuracy"]


def test_images_beside_vectors_are_corrupted_alone() -> None:
    data = eye_data()
    seen: list[dict[str, Tensor]] = []

    def ask(parts: dict[str, Tensor]) -> Gaussian:
        seen.append(parts)
        mean = parts["pose"] + parts["eye"].float().mean((1, 2, 3))[:, None] / 1000
        return Gaussian(mean, torch.zeros_like(mean))

    found = assess(model(data, ask), data, Settings(corruptions=["brightness"]))
    robust = found["corruptions"]
    assert robust["measure"] == "angular_error"
    assert robust["clean"]["error"] == found["metrics"]["angular_error"]
    strengths = [robust["by_name"]["brightness"]["error"][str(k)] for k in SEVERITIES]
    assert len(set(strengths)) == 5
    assert len(seen) == 6
    for parts in seen[1:]:
        torch.testing.assert_close(parts["pose"], seen[0]["pose"])
        assert bool((parts["eye"] != seen[0]["eye"]).any())


def test_a_ratio_to_no_error_at_all_is_not_finite() -> None:
    data = image_data()
    y = data.test.y
    assert y is not None

    def right(parts: dict[str, Tensor]) -> Categorical:
        return Categorical(9.0 * torch.nn.functional.one_hot(y, 4))

    found = assess(model(data, right), data, Settings(corruptions=["blur"]))
    assert math.isnan(found["corruptions"]["ratio"])
    assert together([found])["corruptions"]["ratio"]["mean"] is None


def test_what_cannot_be_corrupted_is_told() -> None:
    data = table_data()
    with pytest.raises(DataError, match="'table' have no images of bytes that could be corrupted"):
        assess(centred(data), data, Settings(corruptions=["blur"]))
    with pytest.raises(RecipeError, match="corruptions: unknown corruption 'blurr'; did you mean"):
        Settings(corruptions=["blurr"])


# Other data


def test_foreign_examples_are_told_by_uncertainty() -> None:
    data, other = image_data(), image_data(size=12, channels=3)
    settings = Settings(ood=other, score="margin")
    found = assess(linear(data), data, settings)
    told = found["ood"]
    foreign, note = foreign_inputs(linear(data), other, "test")
    assert note == "Images of 'images' were brought from 3×12×12 to 1×8×8."
    assert found["notes"] == [note]
    assert foreign["x"].shape == (20, 1, 8, 8)
    assert foreign["x"].dtype == torch.uint8
    scores = []
    for x in (foreign["x"], data.test.x):
        probs = linear(data)(x).probs
        best = np.sort(probs, axis=1)
        scores.append(1 - (best[:, -1] - best[:, -2]))
    truth = [1] * 20 + [0] * 20  # the foreign ones are the positive ones
    assert told["auroc"] == pytest.approx(roc_auc_score(truth, np.concatenate(scores)), abs=1e-6)
    assert told["score"] == "margin"
    assert told["examples"] == 20
    assert 0 <= told["fpr95"] <= 1


def test_the_same_data_are_not_foreign() -> None:
    data = image_data()
    found = assess(linear(data), data, Settings(ood=data))
    assert found["ood"]["auroc"] == 0.5
    assert found["notes"] == []


def test_variances_of_several_targets_are_compared_standardised() -> None:
    """The second target is a thousand times larger; its variance must not decide alone."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)).astype(np.float32)
    y = x * np.array([1, 1000], np.float32)
    data = make_data("scales", (x, y), (x[:20], y[:20]))
    moved = x + np.array([5, 0], np.float32)
    far = make_data("far", (moved, y), (moved[:20], y[:20]))

    def ask(parts: dict[str, Tensor]) -> Gaussian:
        unsure = torch.stack([parts["x"][:, 0].exp(), 1000 + 0 * parts["x"][:, 1]], dim=1)
        return Gaussian(parts["x"], 2 * unsure.log())

    found = assess(model(data, ask), data, Settings(ood=far, score="predictive_variance"))
    assert found["ood"]["auroc"] == 1
    assert found["ood"]["fpr95"] == 0


def test_scores_and_data_that_do_not_go_are_told() -> None:
    data = image_data()
    with pytest.raises(RecipeError, match=r"score: is 'divergence', which needs more .* entropy"):
        Settings(score="divergence")
    with pytest.raises(RecipeError, match="score: unknown score 'entropi'; did you mean 'entropy'"):
        Settings(score="entropi")
    with pytest.raises(DataError, match="'predictive_variance', which is for real targets"):
        assess(linear(data), data, Settings(ood=data, score="predictive_variance"))
    with pytest.raises(DataError, match=r"takes x .* 'table' have x .*; only one image of bytes"):
        assess(linear(data), data, Settings(ood=table_data()))


def test_data_that_a_model_was_not_made_for() -> None:
    data = image_data()
    with pytest.raises(DataError, match="predicts 4 classes, but the data 'images' have 3 classes"):
        fitting(linear(data), image_data(classes=3))
    with pytest.raises(DataError, match=r"takes x \(1, 8, 8\) uint8, but .* have x \(1, 9, 9\) ui"):
        fitting(linear(data), image_data(size=9))
    reals = make_data("r", (data.train.x.float(), data.train.y), (data.test.x.float(), data.test.y))  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"have x .* float32"):
        fitting(linear(data), reals)
    named = linear(data, classes=("ant", "bee", "cat", "dog"))
    other = make_data(
        "o", (data.train.x, data.train.y), (data.test.x, data.test.y), classes=list("abcd")
    )
    assert fitting(named, data) == []
    said = (
        r"have other classes than the model: they lack 'ant', 'bee', .* and they have 'a', 'b', 'c'"
    )
    with pytest.raises(DataError, match=said):
        fitting(named, other)
    numbered = make_data(
        "n", (data.train.x, data.train.y), (data.test.x, data.test.y), classes=list("0123")
    )
    [note] = fitting(named, numbered)
    assert note.startswith("The classes have other names than the model's: number 0 is '0', and")


def test_classes_are_compared_by_name_whatever_their_order() -> None:
    data, order = image_data(), [2, 0, 3, 1]
    names = ("ant", "bee", "cat", "dog")
    given = make_data(
        "g", (data.train.x, data.train.y), (data.test.x, data.test.y), classes=list(names)
    )
    own = linear(given, classes=names)
    places = torch.tensor([order.index(k) for k in range(4)])
    moved = make_data(
        "m",
        (data.train.x, places[data.train.y]),  # type: ignore[index]
        (data.test.x, places[data.test.y]),  # type: ignore[index]
        classes=[names[k] for k in order],
    )
    teacher = in_order(own, moved.classes)
    assert assess(own, moved, against=teacher)["metrics"] == assess(own, given)["metrics"]
    assert assess(own, moved, against=teacher)["fidelity"]["agreement"] == 1
    assert assess(own, given, against=teacher)["fidelity"]["kl_to_teacher"] < 1e-6
    few = make_data(
        "f",
        (data.train.x, data.train.y % 2),  # type: ignore[operator]
        (data.test.x, data.test.y % 2),  # type: ignore[operator]
        classes=["dog", "cat"],
    )
    assert assess(own, few)["examples"] == len(data.test)


# Runs


def test_a_run_is_evaluated_at_all_its_seeds_as_its_summary_says(digits_run: Path) -> None:
    summary = open_run(digits_run).summary
    told: list[str] = []
    found = evaluate(str(digits_run), tell=told.append)
    assert found["seeds"] == [0, 1]
    assert found["model"] == f"xcl of {digits_run}"
    assert found["against"] == f"teacher of {digits_run}"
    known = summary["students"]["xcl"]["metrics"]
    for name in ("accuracy", "nll", "brier", "ece", "aurc"):
        assert found["metrics"][name] == known[name]
    for name in ("kl_to_teacher", "agreement"):
        assert found["fidelity"][name] == known[name]
    assert told[0] == "seed 0: predicting"
    json.dumps(found, allow_nan=False)
    one = evaluate(str(digits_run), student="kd", seed=1)
    accuracy = summary["students"]["kd"]["metrics"]["accuracy"]["per_seed"][1]
    assert one["metrics"]["accuracy"] == {"mean": accuracy, "std": 0.0, "per_seed": [accuracy]}
    teacher = evaluate(str(digits_run), teacher=True)
    known = summary["teacher"]["metrics"]
    assert teacher["metrics"]["nll"]["mean"] == pytest.approx(known["nll"]["mean"])
    assert teacher["fidelity"] is teacher["against"] is None


def test_a_run_on_other_data_and_against_another_teacher(digits_run: Path) -> None:
    x = np.zeros((30, 1, 8, 8), np.uint8)
    y = np.arange(30) % 10
    data = make_data("blank", (x, y), (x, y))
    found = evaluate(str(digits_run), data, seed=0, against=str(digits_run))
    assert found["data"] == "blank"
    assert found["metrics"]["accuracy"]["mean"] == pytest.approx(0.1)
    assert found["against"] == f"teacher of {digits_run}"
    own = evaluate(str(digits_run), data, seed=0)
    assert own["fidelity"] == found["fidelity"]


def test_weights_are_evaluated_with_their_network_and_data(digits_run: Path) -> None:
    run = open_run(digits_run)
    file = digits_run / "students" / "kd" / "seed-0" / "weights.safetensors"
    found = evaluate(str(file), run.data, model={"digits_cnn": {"width": 4}})
    known = run.summary["students"]["kd"]["metrics"]["accuracy"]["per_seed"][0]
    assert found["metrics"]["accuracy"]["mean"] == pytest.approx(known)
    assert found["seeds"] is found["against"] is None
    with pytest.raises(StorageError, match="there is no run and no file"):
        evaluate("nowhere")
    with pytest.raises(RecipeError, match="model: is needed"):
        evaluate(str(file), run.data)


def test_figures_of_seeds_are_put_together() -> None:
    rows = [{"a": {"b": 1.0, "n": 3}, "c": None}, {"a": {"b": 4.0, "n": 3}, "c": None}]
    b = {"mean": 2.5, "std": pytest.approx(math.sqrt(4.5)), "per_seed": [1.0, 4.0]}
    assert together(rows) == {"a": {"b": b, "n": 3}, "c": None}
    odd = together([{"b": math.inf}, {"b": 1.0}])
    assert odd == {"b": {"mean": None, "std": None, "per_seed": [None, 1.0]}}


# The command line


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command in this process, which has imported torch already."""

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["xcl", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as end:
            cli.main()
        written = capsys.readouterr()
        return int(end.value.code or 0), written.out, written.err

    return called


def test_the_command_prints_a_table(digits_run: Path, command: Any) -> None:
    small = ("evaluate", str(digits_run), "--split", "validation")  # 50 images
    status, shown, errors = command(*small, "--corruptions", "blur,jpeg")
    assert status == 0, errors
    for text in (f"xcl of {digits_run}, mean ±", "accuracy", "AURC", "Fidelity", "blur", "mean"):
        assert text in shown
    for text in ("balanced accuracy", "Each class", "recall %", "precision %", "AUPRC"):
        assert text in shown
    assert "pixelate" not in shown
    assert errors == ""
    _, shown, _ = command(*small, "--seed", "1", "--corruptions", "all")
    assert f"xcl of {digits_run}, seed 1" in shown
    for name in CORRUPTIONS.names():
        assert name in shown


def test_the_command_prints_json_alone(digits_run: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (30, 1, 12, 12)).astype(np.uint8)
    np.savez(tmp_path / "noise.npz", x=x, y=np.arange(30) % 2)
    other = f"{{arrays: {{path: {tmp_path / 'noise.npz'}}}}}"
    done = process("evaluate", str(digits_run), "--ood", other, "--json", "--student", "kd")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == 1
    assert found["ood"]["data"] == "noise"
    assert len(found["ood"]["auroc"]["per_seed"]) == 2
    assert found["notes"]
    settings = Settings(ood=find_data("arrays", [f"path={tmp_path / 'noise.npz'}"]))
    here = evaluate(str(digits_run), settings=settings, student="kd")
    assert found["ood"]["examples"] == here["ood"]["examples"] == 6  # a fifth is the test split
    accuracy = here["metrics"]["accuracy"]["mean"]
    assert found["metrics"]["accuracy"]["mean"] == pytest.approx(accuracy)
    assert len(found["classes"]) == 10
    assert len(found["classes"]["3"]["recall"]["per_seed"]) == 2


def test_the_command_takes_data_with_settings(digits_run: Path, command: Any) -> None:
    file = digits_run / "students" / "xcl" / "seed-0" / "weights.safetensors"
    status, shown, errors = command(
        "evaluate", str(file), "digits", "train=100", "validation=50", "--json",
        "--model", "{digits_cnn: {width: 4}}", "--against", str(digits_run),
    )  # fmt: skip
    assert status == 0, errors
    found = json.loads(shown)
    assert found["examples"] == 1647
    assert found["against"] == f"teacher of {digits_run}"


def test_a_regression_is_told_in_its_own_figures(tmp_path: Path, command: Any) -> None:
    data = table_data()
    np.savez(tmp_path / "table.npz", x=data.train.x, y=data.train.y)
    module = xcl.build_model("mlp", inputs=(5,), outputs=4)
    save_weights(tmp_path / "net.safetensors", module.state_dict())
    status, shown, errors = command(
        "evaluate", str(tmp_path / "net.safetensors"), f"arrays:{tmp_path / 'table.npz'}",
        "--model", "mlp",
    )  # fmt: skip
    assert status == 0, errors
    for text in ("RMSE", "MAE", "CRPS", "coverage of 95 %", "width of 90 %", "units of the target"):
        assert text in shown
    assert "accuracy" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "error: there is no run and no file 'nowhere'"),
        (["RUN", "--student", "xc"], "--student: is 'xc', but the run has no such student; did"),
        (["RUN", "--seed", "9"], "--seed: is 9; the run has the seeds [0, 1]"),
        (["RUN", "--model", "mlp"], "model: is of no use here: the run"),
        (["RUN", "digit"], "there is no data set, and no recipe, 'digit'"),
        (["RUN", "--corruptions", "blurr"], "corruptions: unknown corruption 'blurr'; did you"),
        (["RUN", "--split", "tset"], "split: is 'tset'; it must be one of"),
        (["RUN", "--ood", "TABLE"], "only one image of bytes can be brought"),
        (["RUN", "--score", "members"], "score: unknown score 'members'"),
        (["WEIGHTS"], "model: is needed"),
        (["WEIGHTS", "--model", "{a: ["], "model: '{a: [' is not valid YAML"),
        (["WEIGHTS", "--onnx", "logits"], "--onnx: is 'logits'; it must be '{setting: value}'"),
        (["WEIGHTS", "--onnx", "{}", "--model", "mlp"], "--onnx: is for an ONNX file, and --model"),
        (["HALF"], "is not finished"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(
    digits_run: Path, tmp_path: Path, command: Any, arguments: list[str], said: str
) -> None:
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(digits_run / "recipe.yaml", half)
    weights = digits_run / "students" / "xcl" / "seed-0" / "weights.safetensors"
    np.savez(tmp_path / "table.npz", x=np.eye(20), y=np.arange(20.0))
    places = {"RUN": str(digits_run), "WEIGHTS": str(weights), "HALF": str(half)}
    places["TABLE"] = f"arrays:{tmp_path / 'table.npz'}"
    status, shown, errors = command("evaluate", *(places.get(a, a) for a in arguments), "--json")
    assert status == 2
    assert shown == ""
    assert said in errors
    assert len(errors.splitlines()) == 1


def test_the_public_names() -> None:
    assert xcl.Predictor is Predictor
