"""The recipes that ship, in each of their budgets: read, built and checked; and one run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from scipy.io import savemat

from extracurricular.distributions import Categorical
from extracurricular.errors import StorageError
from extracurricular.matching import build_matching
from extracurricular.models import build_model, parameter_count
from extracurricular.recipe.difference import differences
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.recipe.schema import Recipe
from extracurricular.recipe.ships import shipped_recipes
from extracurricular.run.execute import execute
from extracurricular.training import learning_rate
from tests.conftest import checked
from tests.data.sets.test_mpiigaze import LISTS, day

EYE = {"eye": (1, 36, 60), "pose": (2,)}
IMAGE = (3, 32, 32)

# Parameters of the teacher and of each student.
PAIRS: dict[str, tuple[int, int]] = {
    "cifar100-wrn-40-2-wrn-16-2": (2_255_156, 703_284),
    "cifar100-resnet56-resnet20": (861_620, 278_324),
    "cifar100-resnet110-resnet32": (1_736_564, 472_756),
    "cifar100-resnet32x4-resnet8x4": (7_433_860, 1_233_540),
    "cifar100-vgg13-vgg8": (9_462_180, 3_965_028),
    "cifar100-resnet32x4-shufflenetv2": (7_433_860, 1_355_528),
    "mpiigaze-lenet": (4 * 77_180, 1_828_082),
    "mpiigaze-resnet": (4 * 314_092, 77_180),
}
# The shipped recipes of the previous release, as YAML reads them.
BEFORE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "before" / "shipped.json").read_text(encoding="utf-8")
)

# The places that were chosen anew since then, as patterns of whole paths.
CHOSEN_ANEW = {
    "uci": r"about|teacher\..*|students\..*",
    "uci-ablation": r"teacher\..*|students\.[^.]*\.training\.lr|students\.kd-augmented.*",
    "digits-ablation": r"students\.kd-augmented.*",
    "gaze": r"teacher\..*|students\.kd-augmented"
    r"|students\.[^.]*\.(matching\.(beta|temperature)|training\.lr)",
    "gaze-ablation": r"teacher\..*|students\.[^.]*\.(matching\.(beta|temperature)|training\.lr)",
    "mpiigaze-lenet": r"students\.kd-augmented|(teacher|students\.[^.]*)\.matching\.beta",
    "mpiigaze-resnet": r"students\.kd-augmented|(teacher|students\.[^.]*)\.matching\.beta",
}

CIFAR = [name for name in PAIRS if name.startswith("cifar100-")]
# Draws and loss of xcl were those of the worst student of 50 epochs.
CHOSEN_ANEW |= dict.fromkeys(CIFAR, r"students\.xcl\.(matching\.label_weight|sampler).*")


def budgets() -> Iterator[tuple[str, str]]:
    for name, text in shipped_recipes().items():
        for budget in ("full", *(yaml.safe_load(text).get("budgets") or {})):
            yield name, budget


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of each data set that a recipe wants, of noise."""
    root, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    (root / "cifar100").mkdir()
    for part, count in (("train", 1600), ("test", 100)):
        rows = rng.integers(0, 256, (count, 2 + 3072)).astype(np.uint8)
        rows[:, 1] = np.arange(count) % 100
        rows[:, 0] %= 20
        (root / "cifar100" / f"{part}.bin").write_bytes(rows.tobytes())
    for person in range(15):
        folder = root / "mpiigaze" / "Data" / "Normalized" / f"p{person:02d}"
        folder.mkdir(parents=True)
        savemat(folder / "day01.mat", day(person, 1))
        file = root / "mpiigaze" / LISTS / f"p{person:02d}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("day01/0002.jpg left\nday01/0004.jpg right\n")
    folder = root / "uci"
    folder.mkdir()
    np.savetxt(folder / "data.txt", rng.normal(size=(60, 4)))
    (folder / "index_features.txt").write_text("0\n1\n2\n")
    (folder / "index_target.txt").write_text("3\n")
    for split in range(20):
        order = rng.permutation(60)
        np.savetxt(folder / f"index_train_{split}.txt", order[:54], fmt="%d")
        np.savetxt(folder / f"index_test_{split}.txt", order[54:], fmt="%d")
    return root


@pytest.mark.parametrize("name", list(BEFORE))
def test_a_recipe_means_what_it_meant_in_the_previous_release(name: str) -> None:
    for budget in ("full", *(BEFORE[name].get("budgets") or {})):
        before = parse_recipe(BEFORE[name], [f"budget={budget}"], quiet=True)
        now = read_recipe(name, [f"budget={budget}"])
        places = [path for path, _, _ in differences(before.dump(), now.dump())]
        anew = re.compile(CHOSEN_ANEW.get(name, "(?!)"))
        assert [path for path in places if not anew.fullmatch(path)] == []
        assert (now == before) == (not places)
        assert bool(places) == (name in CHOSEN_ANEW)


def test_a_recipe_is_shown_plain_and_whole() -> None:
    assert list(shipped_recipes()) == sorted(BEFORE)
    for name, text in shipped_recipes().items():
        assert re.findall(r"^name: (.*)$", text, re.MULTILINE) == [name]
        assert "\n---\n" not in text
        assert text.replace("$seed", "").count("$") == 0, "a word of a template is left"
        assert "# " in text or name == "digits-ablation", "comments are kept"
    resnet = shipped_recipes()["cifar100-resnet56-resnet20"]
    assert "#   teacher 72.34, student 69.06, KD 70.66, CRD 71.16\n" in resnet
    assert "xcl run cifar100-resnet56-resnet20 data.path=cifar-100-python.tar.gz\n" in resnet


def read(name: str, budget: str, made: Path, *more: str) -> Recipe:
    """Read a shipped recipe with its data replaced by what is made here."""
    [data] = [yaml.safe_load(shipped_recipes()[name])["data"]]
    [set_name] = data if isinstance(data, dict) else [data]
    overrides = [f"budget={budget}", *more]
    if (made / set_name).is_dir():
        overrides.append(f"data.path={made / set_name}")
    if set_name in ("cifar100", "mpiigaze"):
        overrides.append("data.cache=false")
    if set_name == "gaze":
        overrides += [f"data.{part}_persons=4" for part in ("train", "validation", "test")]
    return read_recipe(name, overrides)


@pytest.mark.parametrize(("name", "budget"), list(budgets()))
def test_every_recipe_is_built_and_checked_in_each_of_its_budgets(
    name: str, budget: str, made: Path, tmp_path: Path
) -> None:
    # The networks are those of the full budget, and checked there.
    small = ["teacher.model=resnet8", "defaults.model=resnet8"] if name in CIFAR else []
    recipe = read(name, budget, made, *(small if budget != "full" else []))
    assert recipe.name == name
    assert recipe.budget_name == budget
    # A path that the recipe does not have would show here: a new student, or an unknown key.
    full = read(name, "full", made)
    assert recipe.students.keys() == full.students.keys()
    assert recipe.generators.keys() == full.generators.keys()
    kept = parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.dump())))
    assert kept == recipe
    if name == "imagenet-resnet50":
        return  # needs torchvision: zoo_checks.py runs it
    checked(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", list(PAIRS))
def test_a_benchmark_has_what_it_promises(name: str) -> None:
    full, tiny = read_recipe(name), read_recipe(name, ["budget=tiny"])
    assert len(full.seeds) >= 3
    assert {"erm", "kd", "xcl"} <= set(full.students)
    assert full.evaluation.split == "test"
    # All labelled examples train, as in the published figures.
    [settings] = full.data.values()
    assert settings["validation"] == 0
    assert tiny.teacher.training.steps * len(tiny.teacher.networks) <= 200
    assert all(s.training.steps <= 200 for s in tiny.students.values())
    assert len(tiny.seeds) <= 2
    inputs, outputs = (IMAGE, 100) if name in CIFAR else (EYE, 4)
    counts = [
        parameter_count(build_model(model, inputs=inputs, outputs=outputs))
        for model in (*full.teacher.networks, full.students["kd"].model)
    ]
    assert (sum(counts[:-1]), counts[-1]) == PAIRS[name]


@pytest.mark.parametrize("name", CIFAR)
def test_the_settings_of_cifar_are_those_of_the_literature(name: str) -> None:
    """Tian et al. 2020: 240 epochs of batches of 64, T = 4, 0.9 of KD and 0.1 of cross-entropy."""
    recipe = read_recipe(name)
    slow = name.endswith("shufflenetv2")
    for part, rate in ((recipe.teacher, 0.05), (recipe.students["kd"], 0.01 if slow else 0.05)):
        training = part.training
        assert training.steps * training.batch_size == 240 * 50_000
        assert (training.optimizer, training.lr) == ("sgd", rate)
        assert (training.momentum, training.weight_decay) == (0.9, 5e-4)
        assert part.sampler == ["empirical", {"augment": {"pad": 4, "flip": True}}]
    matching = build_matching(recipe.students["kd"].matching, "")
    torch.manual_seed(0)
    student, teacher, y = torch.randn(8, 100), torch.randn(8, 100), torch.arange(8)
    usual = 0.1 * F.cross_entropy(student, y) + 0.9 * 16 * F.kl_div(
        F.log_softmax(student / 4, 1), F.softmax(teacher / 4, 1), reduction="batchmean"
    )
    assert torch.allclose(matching(Categorical(student), Categorical(teacher), y), usual)


@pytest.mark.parametrize("name", CIFAR)
def test_xcl_of_cifar_is_kd_where_its_share_of_mixed_draws_is_0(name: str) -> None:
    recipe = read_recipe(name)
    kd, xcl = recipe.students["kd"], recipe.students["xcl"]
    assert (kd.model, kd.training, kd.matching) == (xcl.model, xcl.training, xcl.matching)
    [share] = xcl.sampler
    assert share["share"]["of"] == "auto"
    assert share["share"]["plain"] == kd.sampler
    # Mixed draws of shifted images, as published: all draws see the same shifts.
    blend = share["share"]["extended"][0]["blend"]
    assert {part["sampler"][-1] for part in blend.values()} == {"mixup", "cutmix"}
    assert all(part["sampler"][:-1] == kd.sampler for part in blend.values())


@pytest.mark.parametrize("name", CIFAR)
def test_the_budgets_of_cifar_are_epochs(name: str) -> None:
    for budget, teacher, students in (("short", 50, 50), ("full", 240, 240), ("long", 240, 600)):
        recipe = read_recipe(name, [f"budget={budget}"])
        for part, epochs in (
            (recipe.teacher, teacher), *((s, students) for s in recipe.students.values())
        ):  # fmt: skip
            training = part.training
            assert training.steps == epochs * 50_000 // training.batch_size


def test_a_published_schedule_is_an_override() -> None:
    name = "cifar100-wrn-40-2-wrn-16-2"
    text = shipped_recipes()[name]
    shown = re.findall(r"'((?:defaults|teacher)\.training\.[^']*)'", text)
    assert len(shown) == 4
    recipe = read_recipe(name, shown)
    for training in (recipe.teacher.training, recipe.students["kd"].training):
        per_epoch = training.steps // 240
        rates = [learning_rate(training, epoch * per_epoch + per_epoch) for epoch in range(240)]
        falls = [k + 1 for k in range(239) if rates[k + 1] < rates[k]]
        assert falls == [150, 180, 210]


class Told:
    """A watcher that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.begun: list[str] = []

    def plan(self, steps: int, done: int) -> None: ...

    def begin(self, title: str, steps: int) -> None:
        self.begun.append(title)

    def advance(self, title: str, step: int, loss: float | None) -> None: ...

    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None: ...

    def tell(self, text: str) -> None:
        self.lines.append(text)


def smallest(made: Path, *more: str, budget: str = "tiny") -> Recipe:
    return read(
        "cifar100-resnet56-resnet20", budget, made, "data.train=40", "data.validation=10",
        "teacher.training.steps=2", "defaults.training.steps=2", "seeds=[0]",
        "defaults.training.batch_size=4", "teacher.training.batch_size=4",
        "evaluation.split=validation", *more,
    )  # fmt: skip


def test_a_benchmark_runs_and_its_budget_is_told_and_kept(made: Path, tmp_path: Path) -> None:
    told = Told()
    summary = execute(smallest(made), tmp_path, told)
    assert summary["teacher"]["parameters"] == 861_620
    assert {entry["parameters"] for entry in summary["students"].values()} == {278_324}
    assert {entry["steps"] for entry in summary["students"].values()} == {2}
    assert told.lines[0].startswith("budget: tiny, too small for figures that mean anything")
    assert summary["recipe"]["budget"]["tiny"]["data.cifar100.train"] == 1000

    # The kept recipe is a recipe, and gives the very same.
    again = Told()
    kept = read_recipe(str(tmp_path / "recipe.yaml"))
    assert execute(kept, tmp_path, again) == summary
    assert again.begun == []

    # Another budget is another setting.
    with pytest.raises(StorageError, match=r"made with training\.steps = 2, but the recipe says"):
        checked(smallest(made, "defaults.training.steps=3", budget="full"), tmp_path)


def test_a_full_budget_is_not_remarked_on(made: Path, tmp_path: Path) -> None:
    told = Told()
    few = ("students.kd.training.steps=1", "students.xcl.training.steps=1")
    recipe = smallest(made, "teacher.model=resnet8", "defaults.model=resnet8", *few, budget="full")
    execute(recipe, tmp_path, told)
    assert not [line for line in told.lines if "budget" in line]


def test_a_published_teacher_takes_the_place_of_training(made: Path, tmp_path: Path) -> None:
    module = build_model("resnet56", inputs=IMAGE, outputs=100)
    checkpoint = {"epoch": 240, "model": module.state_dict(), "accuracy": torch.tensor(72.34)}
    torch.save(checkpoint, tmp_path / "ckpt_epoch_240.pth")
    recipe = smallest(made, f"teacher.weights={tmp_path / 'ckpt_epoch_240.pth'}")
    told = Told()
    summary = execute(recipe, tmp_path / "out", told)
    assert told.begun == ["erm, seed 0", "kd, seed 0", "xcl, seed 0"]
    assert summary["teacher"]["steps"] == 0


def test_a_budget_that_names_no_part_of_the_recipe_is_found(made: Path) -> None:
    """What the check of all budgets above would say of a path that is misspelt."""
    loaded: dict[str, Any] = yaml.safe_load(shipped_recipes()["uci-ablation"])
    for path, problem in (
        ("data.uci.spilt", "unknown key 'spilt'"),
        ("students.kdd.training.steps", "students has no 'kdd'"),
        ("defaults.trainig.steps", "unknown key 'trainig'"),
        ("teacher.model.mlp.hiden", "unknown key 'hiden'"),
    ):
        wrong = {**loaded, "budgets": {"tiny": {path: 1}}}
        with pytest.raises(Exception, match=problem):
            checked(parse_recipe(wrong, ["budget=tiny", f"data.path={made / 'uci'}"]), made)
