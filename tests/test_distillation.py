"""``xcl.distill`` does what a recipe does, to the last bit, and returns something to use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import extracurricular as xcl
from extracurricular import rng
from extracurricular.data.sets.arrays import from_arrays
from extracurricular.distillation import distill
from extracurricular.errors import DataError, RecipeError, StorageError, XclError
from extracurricular.files import load_weights, read_json, save_weights
from extracurricular.matching import Matching
from extracurricular.models import build_model
from extracurricular.recipe.candidates import named, read_choice, read_text
from extracurricular.recipe.read import parse_recipe
from extracurricular.recipe.single import (
    SAMPLER,
    default_matching,
    default_training,
    recipe_for,
)
from extracurricular.run.execute import execute
from extracurricular.samplers import Empirical
from extracurricular.teachers import Ensemble, Network
from extracurricular.teachers.estimators import training_table
from extracurricular.training import Training
from tests.teachers.test_onnx import linear

STEPS = 12
STUDENT = {"mlp": {"hidden": [6]}}

OWN = """
import numpy as np
from torch import nn

class Own(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)

def own(inputs, outputs, width=7):
    assert outputs == 2
    return Own(width)

def say(x):
    return 3 * x[:, :1], np.full((len(x), 1), 0.5)
"""


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "distill_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "distill_own", raising=False)


def table(tmp_path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """A regression: arrays, and the spec of the same in a file."""
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, (90, 5)).astype(np.float32)
    y = (3 * x[:, :1] + rng.normal(0, 0.5, (90, 1))).astype(np.float32)
    np.savez(tmp_path / "table.npz", x=x, y=y)
    return x, y, {"arrays": {"path": str(tmp_path / "table.npz")}}


def by_recipe(
    tmp_path: Path, teacher: dict[str, Any], data: Any, known: xcl.Data
) -> dict[str, Any]:
    """The weights that a run gives."""
    recipe = recipe_for(teacher, STUDENT, data, known, name="same", steps=STEPS)
    execute(parse_recipe(recipe), tmp_path / "run")
    return load_weights(tmp_path / "run/students/student/seed-0/weights.safetensors")


def assert_same(found: Any, weights: dict[str, Any]) -> None:
    ours = found.keeper.module.state_dict()
    assert set(ours) == set(weights)
    for name, value in weights.items():
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("kind", ["network", "module", "estimator", "fitted", "onnx", "function"])
def test_it_is_the_training_of_a_recipe_to_the_last_bit(tmp_path: Path, kind: str) -> None:
    x, y, spec = table(tmp_path)
    data = from_arrays(x, y)
    torch.manual_seed(0)
    section: dict[str, Any]
    teacher: Any
    if kind == "network":
        teacher = build_model({"mlp": {"hidden": [9]}}, inputs=data.shapes, outputs=2)
        save_weights(tmp_path / "t.safetensors", teacher.state_dict())
        section = {"model": {"mlp": {"hidden": [9]}}, "weights": str(tmp_path / "t.safetensors")}
    elif kind == "module":
        import distill_own  # type: ignore[import-not-found]

        teacher = distill_own.Own(7)
        save_weights(tmp_path / "t.safetensors", teacher.state_dict())
        section = {"model": "distill_own:own", "weights": str(tmp_path / "t.safetensors")}
    elif kind == "estimator":
        teacher = {"random_forest": {"trees": 5}}
        section = {"estimator": teacher}
    elif kind == "fitted":
        from sklearn.ensemble import RandomForestRegressor

        section = {"estimator": {"random_forest": {"trees": 5}}}
        seed = (rng.fold(0, "teacher") >> 1) % 2**32
        teacher = RandomForestRegressor(5, min_samples_leaf=2, max_features=1.0, random_state=seed)
        teacher.fit(*training_table(data))
    elif kind == "onnx":
        weight = np.zeros((5, 2), np.float32)
        weight[0, 0] = 3
        teacher = linear(tmp_path / "t.onnx", weight=weight)
        section = {"onnx": {"path": str(teacher)}}
    else:
        import distill_own

        teacher = distill_own.say
        section = {"function": "distill_own:say"}
    if kind == "onnx":
        teacher = xcl.OnnxTeacher(str(teacher), data, output="mean_log_var")
        section = {"onnx": {"path": str(tmp_path / "t.onnx"), "output": "mean_log_var"}}
    # A recipe gives a teacher that is a network standardised inputs.
    raw = False if isinstance(teacher, nn.Module) else None
    found = distill(teacher, STUDENT, (x, y), steps=STEPS, raw=raw)
    assert_same(found, by_recipe(tmp_path, section, spec, data))


def test_it_is_the_training_of_a_recipe_on_images_too(tmp_path: Path) -> None:
    """With a teacher whose batch norms are folded, and draws whose answers are remembered."""
    from extracurricular.data.sets.digits import digits

    data = digits(train=100, validation=50)
    spec = {"digits": {"train": 100, "validation": 50}}
    torch.manual_seed(0)
    teacher = build_model({"digits_cnn": {"width": 4}}, inputs=data.shapes, outputs=10)
    save_weights(tmp_path / "t.safetensors", teacher.state_dict())
    section = {"model": {"digits_cnn": {"width": 4}}, "weights": str(tmp_path / "t.safetensors")}
    student = {"digits_cnn": {"width": 2}}
    for number, chain in enumerate((SAMPLER, ["empirical"])):
        recipe = recipe_for(section, student, spec, data, name="same", steps=STEPS)
        recipe["students"]["student"]["sampler"] = chain
        execute(parse_recipe(recipe), tmp_path / f"run{number}")
        found = distill(teacher, student, data, steps=STEPS, sampler=chain, raw=False)
        file = tmp_path / f"run{number}/students/student/seed-0/weights.safetensors"
        assert_same(found, load_weights(file))


def classes() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 120)
    x = (rng.normal(0, 0.5, (120, 4)) + y[:, None]).astype(np.float32)
    return x, y


def network(data: xcl.Data, hidden: int = 8, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model({"mlp": {"hidden": [hidden]}}, inputs=data.shapes, outputs=data.task.outputs)


def test_a_better_teacher_makes_a_better_student() -> None:
    x, y = classes()
    found = distill({"random_forest": {"trees": 50}}, STUDENT, (x, y), steps=1000)
    assert found.score(x, y) > 0.7  # chance is a third
    probs = found.predict(x).probs
    assert probs.shape == (120, 3)
    assert found.parameters == sum(p.numel() for p in found.keeper.module.parameters())


def test_the_defaults_are_those_that_the_docs_name() -> None:
    x, y = classes()
    data = from_arrays(x, y)
    teacher = network(data)
    usual = distill(teacher, STUDENT, data, steps=STEPS, raw=False)
    spelt = distill(
        Network(teacher, data.task),
        STUDENT,
        data,
        sampler=SAMPLER,
        matching=default_matching(data.task),
        training=default_training(STEPS),
    )
    assert_same(usual, spelt.keeper.module.state_dict())
    other = distill(teacher, STUDENT, data, training={"lr": 1e-4}, steps=STEPS, raw=False)
    assert not torch.equal(
        next(other.keeper.module.parameters()), next(usual.keeper.module.parameters())
    )
    exact = distill(
        teacher, STUDENT, data, training=Training(steps=3, optimizer="adamw", lr=1e-4), raw=False
    )
    assert exact.parameters == usual.parameters


def test_data_in_every_form_give_the_same_student() -> None:
    x, y = classes()
    data = from_arrays(x, y)
    teacher = network(data)
    wanted = distill(teacher, STUDENT, data, steps=STEPS, training={"batch_size": 16}, raw=False)
    dataset = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    training = {"batch_size": 16}
    for given in ((x, y), dataset):
        found = distill(teacher, STUDENT, given, steps=STEPS, training=training, raw=False)
        assert_same(found, wanted.keeper.module.state_dict())
    # A loader brings its batch size along; its order does not matter.
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=16, shuffle=True)
    assert_same(
        distill(teacher, STUDENT, loader, steps=STEPS, raw=False), wanted.keeper.module.state_dict()
    )


class Stream(IterableDataset[Any]):
    def __init__(self, x: Any, y: Any, endless: bool = False) -> None:
        self.x, self.y, self.endless = x, y, endless

    def __iter__(self) -> Any:
        while True:
            yield from zip(self.x, self.y, strict=True)
            if not self.endless:
                return


def test_a_loader_without_indexing_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = classes()
    data = from_arrays(x, y)
    teacher = network(data)
    wanted = distill(teacher, STUDENT, data, steps=STEPS, training={"batch_size": 7}, raw=False)
    loader: DataLoader[Any] = DataLoader(Stream(x, y), batch_size=7)
    assert_same(
        distill(teacher, STUDENT, loader, steps=STEPS, raw=False), wanted.keeper.module.state_dict()
    )
    monkeypatch.setattr("extracurricular.data.sets.arrays._MOST_STREAMED", 500)
    endless: DataLoader[Any] = DataLoader(Stream(x, y, endless=True), batch_size=7)
    with pytest.raises(DataError, match="Stream has no integer indexing, and gave more than 500"):
        distill(teacher, STUDENT, endless, steps=STEPS, raw=False)


def test_several_teachers_are_an_ensemble() -> None:
    x, y = classes()
    data = from_arrays(x, y)
    one, two = network(data, seed=0), network(data, seed=1)
    found = distill([one, two], STUDENT, data, steps=STEPS, raw=False)
    whole = Ensemble([Network(one, data.task), Network(two, data.task)])
    assert_same(found, distill(whole, STUDENT, data, steps=STEPS).keeper.module.state_dict())


def test_a_module_of_ones_own_as_student_is_copied() -> None:
    x, y = classes()
    data = from_arrays(x, y)
    student = network(data, 3, seed=5)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    found = distill(network(data), student, data, steps=STEPS, raw=False)
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())
    assert found.parameters == sum(p.numel() for p in student.parameters())


def test_a_finished_run_is_a_teacher(digits_run: Path) -> None:
    found = distill(
        str(digits_run), {"mlp": {"hidden": [4]}}, {"digits": {"train": 100}}, steps=STEPS
    )
    assert found.task == xcl.Task("classification", 10)


# A choice


PAIR = ["kd", "all"]


def test_a_choice_is_that_of_a_recipe_to_the_last_bit(tmp_path: Path) -> None:
    x, y, spec = table(tmp_path)
    data = from_arrays(x, y)
    teacher = {"random_forest": {"trees": 5}}
    given = {"among": {"kd": None, "half": None, "soft": {"matching": {"beta": 1.0}}}}
    given |= {"after": [0.25, 0.5]}
    section = read_choice(given, SAMPLER)
    recipe = recipe_for(
        {"estimator": teacher}, STUDENT, spec, data, name="same", steps=128, choose=section
    )
    execute(parse_recipe(recipe), tmp_path / "run")
    run = tmp_path / "run/students/student/seed-0"
    counted: list[int] = []
    found = distill(
        teacher, STUDENT, (x, y), steps=128, choose=given,
        on_progress=lambda step, loss: counted.append(step),
    )  # fmt: skip
    assert_same(found, load_weights(run / "weights.safetensors"))
    record = read_json(run / "stage.json")
    total = 3 * 32 + 2 * 32 + 64
    assert found.choice == {
        "chosen": record["chosen"],
        "steps": total,
        "held_out_kl": record["held_out_kl"],
    }
    assert counted == sorted(counted)
    assert counted[-1] == total == record["steps"]
    # The student beside it has as many steps, and is the reference.
    summary = read_json(tmp_path / "run/summary.json")
    assert summary["recipe"]["reference"] == "kd"
    assert summary["students"]["kd"]["steps"] == total


def test_a_choice_in_a_folder_goes_on_and_is_finished_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = classes()
    data = from_arrays(x, y)
    teacher = network(data)
    given: dict[str, Any] = {"steps": 64, "raw": False, "choose": PAIR}
    whole = distill(teacher, STUDENT, data, **given)

    def stop(step: int, loss: float) -> None:
        if step > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(teacher, STUDENT, data, out=tmp_path / "s", on_progress=stop, **given)
    assert not (tmp_path / "s" / "predictor.json").exists()
    after: list[int] = []
    found = distill(
        teacher, STUDENT, data, out=tmp_path / "s",
        on_progress=lambda step, loss: after.append(step), **given,
    )  # fmt: skip
    assert after[0] > 32, "the first candidate was trained again"
    assert_same(found, whole.keeper.module.state_dict())
    assert found.choice == whole.choice
    assert not list((tmp_path / "s").rglob("*.ckpt"))

    def again(*_: Any, **__: Any) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr("extracurricular.run.contest.train", again)
    second = distill(teacher, STUDENT, data, out=tmp_path / "s", **given)
    assert second.choice == whole.choice
    np.testing.assert_array_equal(xcl.load(tmp_path / "s")(x).probs, whole(x).probs)
    for other in ({"choose": None}, {"choose": ["kd", "half"]}):
        with pytest.raises(StorageError, match="choose"):
            distill(teacher, STUDENT, data, out=tmp_path / "s", **(given | other))


def test_named_candidates_are_shares_of_the_students_own_draws() -> None:
    own = named([{"share": {"plain": ["near"], "extended": ["near", "cutmix"]}}])
    assert own["kd"] == {"sampler": ["near"]}
    assert own["all"] == {"sampler": ["near", "cutmix"]}
    share = {"extended": ["near", "cutmix"], "plain": ["near"]}
    assert own["half"] == {"sampler": [{"share": {"of": 0.5, **share}}]}
    assert own["auto"] == {"sampler": [{"share": {"of": "auto", **share}}]}
    assert named(SAMPLER)["auto"]["sampler"] == SAMPLER
    plain = named(["empirical", "mixup"])
    assert plain["kd"] == {"sampler": ["empirical"]}
    assert plain["all"] == {"sampler": ["empirical", "mixup"]}


def test_candidates_are_read_in_every_form() -> None:
    wanted = read_choice(["kd", "auto"], SAMPLER)
    assert list(wanted.among) == ["kd", "auto"]
    assert wanted.after == [0.5]
    for given in ("kd, auto", ("kd", "auto"), {"kd": None, "auto": None}, {"among": "kd,auto"}):
        assert read_choice(given, SAMPLER) == wanted
    assert read_text("{among: [kd, auto], after: [0.5]}", SAMPLER, "--choose") == wanted


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"choose": ["kd"]}, "choose.among: has 1 candidates; a choice needs at least two"),
        ({"choose": ["kd", "hlaf"]}, "choose: names the candidate 'hlaf'; did you mean 'half'"),
        ({"choose": ["kd", "kd"]}, "each candidate may occur only once"),
        ({"choose": 3}, "choose: is 3; it must be names such as [kd, half, auto, all]"),
        ({"choose": {"a": {"steps": 3}, "b": {}}}, "choose.among.a.steps: unknown key 'steps'"),
        ({"choose": {"a": {"sampler": ["mixap"]}, "b": {}}}, "unknown sampler 'mixap'"),
        ({"choose": {"a": {"matching": {"temp": 1}}, "b": {}}}, "choose.a.matching.temp"),
        ({"choose": {"among": PAIR, "after": [0.5, 0.2]}}, "choose.after: is [0.5, 0.2]"),
        ({"choose": PAIR, "sampler": ["empirical"]}, "has no draws beyond the stored examples"),
        ({"choose": {"a": {"matching": {"temperature": 2.0}}, "b": {}}, "matching": Matching()},
         "choose: changes the loss, so matching must be a dict"),
    ],
)  # fmt: skip
def test_a_wrong_choice_is_one_sentence(changes: dict[str, Any], says: str) -> None:
    x, y = classes()
    data = from_arrays(x, y)
    with pytest.raises(XclError) as caught:
        distill(network(data), STUDENT, data, steps=2, raw=False, **changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_choice_needs_a_chain() -> None:
    x, y = classes()
    data = from_arrays(x, y)
    with pytest.raises(RecipeError, match="needs a sampler as a recipe writes it"):
        distill(network(data), STUDENT, data, sampler=Empirical(data), choose=PAIR, raw=False)


# What is returned


def test_a_student_is_saved_and_loaded(tmp_path: Path) -> None:
    x, y, _ = table(tmp_path)
    found = distill({"random_forest": {"trees": 5}}, STUDENT, (x, y), steps=STEPS)
    files = found.save(tmp_path / "kept")
    assert {file.name for file in files} == {"predictor.json", "weights.safetensors"}
    again = xcl.load(tmp_path / "kept")
    np.testing.assert_array_equal(again(x).mean, found(x).mean)
    np.testing.assert_array_equal(again(x).std, found(x).std)
    assert again.parameters == found.parameters
    with pytest.raises(StorageError, match="cannot be saved: it was loaded"):
        again.save(tmp_path / "twice")
    with pytest.raises(RecipeError, match="is of no use here"):
        xcl.load(tmp_path / "kept", student="other")
    weights = tmp_path / "kept" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(StorageError, match="damaged"):
        xcl.load(tmp_path / "kept")


def test_inputs_of_several_parts_survive(tmp_path: Path) -> None:
    from tests.conftest import eye_data, pair_data

    for data in (eye_data(), pair_data()):
        found = distill(
            lambda x: (np.zeros((_count(x), 2)), np.ones((_count(x), 2))),
            {"mlp": {"hidden": [4]}},
            data,
            steps=2,
            training={"batch_size": 8},
        )
        folder = tmp_path / data.name
        found.save(folder)
        x = data.test.x
        np.testing.assert_array_equal(xcl.load(folder)(x).mean, found(x).mean)


def _count(x: Any) -> int:
    parts = list(x.values()) if isinstance(x, dict) else list(x)
    return len(parts[0])


def test_a_module_of_ones_own_has_to_be_given_again(tmp_path: Path) -> None:
    x, y = classes()
    data = from_arrays(x, y)
    found = distill(network(data), network(data, 3, seed=5), data, steps=STEPS, raw=False)
    found.save(tmp_path / "kept")
    with pytest.raises(RecipeError, match="model: is needed"):
        xcl.load(tmp_path / "kept")
    again = xcl.load(tmp_path / "kept", model=network(data, 3, seed=6))
    np.testing.assert_array_equal(again(x).probs, found(x).probs)
    with pytest.raises(StorageError, match="weights of another network"):
        xcl.load(tmp_path / "kept", model=network(data, 4))


def test_a_student_is_exported_and_verified(tmp_path: Path) -> None:
    x, y = classes()
    found = distill({"random_forest": {"trees": 5}}, STUDENT, (x, y), steps=STEPS)
    shipped = found.export(tmp_path / "student.onnx")
    assert shipped.files[0].is_file()
    loaded = xcl.load(tmp_path / "student.onnx")
    np.testing.assert_allclose(loaded(x).probs, found(x).probs, atol=1e-5)


def test_the_score_is_that_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.metrics import accuracy_score, r2_score

    x, y, _ = table(tmp_path)
    found = distill({"random_forest": {"trees": 5}}, STUDENT, (x, y), steps=60)
    assert found.score(x, y) == pytest.approx(r2_score(y, found(x).mean), abs=1e-6)
    assert found.score(x, y[:, 0]) == found.score(x, y)
    a, b = classes()
    sorter = distill({"random_forest": {"trees": 5}}, STUDENT, (a, b), steps=60)
    assert sorter.score(a, b) == pytest.approx(accuracy_score(b, sorter(a).labels))
    with pytest.raises(DataError, match="y has the shape"):
        sorter.score(a, b[:5])


# In a folder


def test_a_folder_is_finished_once_and_refuses_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = classes()
    data = from_arrays(x, y)
    teacher = network(data)
    plain = distill(teacher, STUDENT, data, steps=STEPS, raw=False)
    first = distill(teacher, STUDENT, data, steps=STEPS, out=tmp_path / "s", raw=False)
    assert_same(first, plain.keeper.module.state_dict())
    assert not list((tmp_path / "s").glob("*.ckpt"))
    np.testing.assert_array_equal(xcl.load(tmp_path / "s")(x).probs, plain(x).probs)

    def again(*_: Any, **__: Any) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr("extracurricular.run.contest.train", again)
    second = distill(teacher, STUDENT, data, steps=STEPS, out=tmp_path / "s", raw=False)
    assert_same(second, plain.keeper.module.state_dict())
    with pytest.raises(StorageError, match=r"made with training.steps = 12, and now it is 13"):
        distill(teacher, STUDENT, data, steps=13, out=tmp_path / "s", raw=False)
    with pytest.raises(StorageError, match="teacher"):
        distill(network(data, seed=9), STUDENT, data, steps=STEPS, out=tmp_path / "s", raw=False)


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    x, y = classes()
    data = from_arrays(x, y)
    teacher = network(data)
    training = {"checkpoint_every": 4}
    whole = distill(teacher, STUDENT, data, steps=20, training=training, raw=False)
    steps: list[int] = []

    def stop(step: int, loss: float) -> None:
        steps.append(step)
        if step >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(
            teacher, STUDENT, data, steps=20, training=training, out=tmp_path / "s",
            on_progress=stop, raw=False,
        )  # fmt: skip
    assert not (tmp_path / "s" / "predictor.json").exists()
    after: list[int] = []
    found = distill(
        teacher, STUDENT, data, steps=20, training=training, out=tmp_path / "s",
        on_progress=lambda step, loss: after.append(step), raw=False,
    )  # fmt: skip
    assert after[0] == 9
    assert_same(found, whole.keeper.module.state_dict())


# Mistakes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teacher": 5}, "teacher: is 5; it must be a network, an estimator"),
        ({"teacher": "nowhere.onnx"}, "nowhere.onnx"),
        ({"teacher": "weights.pth"}, "must be that of an ONNX file or of a finished run"),
        ({"teacher": {"random_wood": {}}}, "unknown teacher 'random_wood'"),
        ({"teacher": nn.Linear(4, 7)}, "teacher: the network gave an output of shape (2, 7)"),
        ({"teacher": nn.Linear(9, 3)}, "teacher: cannot be asked about these data"),
        ({"student": "mpl"}, "unknown model 'mpl'"),
        ({"student": {"mlp": {"hiden": [3]}}}, "student.mlp.hiden: unknown key"),
        ({"data": 7}, "data is 7; it must be a Data"),
        ({"data": "digitz"}, "digitz"),
        ({"sampler": ["empirical", "mixap"]}, "unknown sampler 'mixap'"),
        ({"matching": {"temp": 2}}, "unknown key 'temp'"),
        ({"matching": {"beta": 0.5}}, "matching: beta is 0.5, but classes have no variance"),
        ({"matching": Matching(beta=0.5)}, "matching: beta is 0.5, but classes have no variance"),
        ({"student": {"mlp": {"head": "natural"}}}, "head is 'natural', which is for real targets"),
        ({"training": {"rate": 2}}, "unknown key 'rate'"),
        ({"training": {"lr": -1.0}}, "training.lr"),
    ],
)
def test_mistakes_are_one_sentence(changes: dict[str, Any], says: str) -> None:
    x, y = classes()
    data = from_arrays(x, y)
    usual = {"teacher": Network(network(data), data.task), "student": STUDENT, "data": data}
    given: dict[str, Any] = usual | {"steps": 2} | changes
    with pytest.raises(XclError) as caught:
        distill(given.pop("teacher"), given.pop("student"), given.pop("data"), **given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
