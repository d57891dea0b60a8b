"""Generators in a run: fitted once, looked at, refused if collapsed, resumed when interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from extracurricular import cli
from extracurricular.cli.generator_table import generator_table
from extracurricular.data.base import Data, Split
from extracurricular.data.images.contact_sheet import Block, contact_sheet
from extracurricular.errors import RecipeError, StorageError, TrainingError, XclError
from extracurricular.files import read_json, save_weights
from extracurricular.generators.gan import Gan
from extracurricular.generators.quality import Quality
from extracurricular.inputs import Inputs
from extracurricular.models import build_model
from extracurricular.recipe.read import parse_recipe
from extracurricular.recipe.schema import Recipe
from extracurricular.run.execute import execute, generate
from extracurricular.run.generator import GeneratorStage, plain, sentence
from extracurricular.run.generator_pictures import image_sheets
from extracurricular.run.plan import plan
from tests.conftest import image_data
from tests.run.test_run import snapshot, without_seconds

TRAINING = {"steps": 12, "batch_size": 8, "lr": 0.1, "checkpoint_every": 5}
GAN = {"steps": 6, "batch_size": 8, "latent": 4, "channels": 4, "discriminator_channels": 4}
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"digits": {"train": 100, "validation": 50}},
    "seeds": [0],
    "teacher": {"model": {"mlp": {"hidden": [8]}}, "members": 2, "training": TRAINING},
    "generators": {"mine": {"model": {"gan": GAN}, "least_variety": 0}},
    "defaults": {"model": {"mlp": {"hidden": [4]}}, "training": TRAINING},
    "students": {
        "kd": {},
        "made": {"sampler": [{"generated": {"generator": "mine", "between": 1.0}}]},
        "both": {
            "sampler": [
                {
                    "blend": {
                        "made": {"weight": 1, "sampler": [{"generated": {"generator": "mine"}}]},
                        "real": {"weight": 1, "sampler": ["empirical", "mixup"]},
                    }
                },
                {"uncertain": {"score": "mutual_information", "candidates": 3, "plain_share": 0.0}},
            ]
        },
    },
}
NO_STUDENT_DRAWS: dict[str, Any] = {"kd": {}}
STUDENT_DRAWS = {**NO_STUDENT_DRAWS, "made": SMALL["students"]["made"]}


# Generators of one's own, as a recipe names them: tests.run.test_generator:…


def constant() -> Callable[[Tensor, Tensor], Inputs]:
    return lambda latent, condition: torch.full((len(latent), 1, 8, 8), 128.0)


def wide() -> Callable[[Tensor, Tensor], Inputs]:
    return lambda latent, condition: torch.zeros(len(latent), 1, 8, 9)


def glaring() -> Callable[[Tensor, Tensor], Inputs]:
    return lambda latent, condition: torch.full((len(latent), 1, 8, 8), 300.0)


def noise() -> Callable[[Tensor, Tensor], Inputs]:
    def function(latent: Tensor, condition: Tensor) -> Inputs:
        return (latent.sigmoid() * 255).view(-1, 1, 8, 8)

    return function


def rarely_glaring() -> Callable[[Tensor, Tensor], Inputs]:
    """Good in the first few draws, and in most."""

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        image = (latent.sigmoid() * 255).view(-1, 1, 8, 8).clone()
        image[latent[:, 0] > 2.7] = 300
        return image

    return function


SPOILED = {"now": False}


def spoiling() -> Callable[[Tensor, Tensor], Inputs]:
    good, bad = noise(), glaring()
    return lambda latent, condition: (bad if SPOILED["now"] else good)(latent, condition)


def one_class_collapsed() -> Callable[[Tensor, Tensor], Inputs]:
    def function(latent: Tensor, condition: Tensor) -> Inputs:
        moves = (condition.argmax(1) != 3).float()[:, None]
        return (128 + 127 * (latent * moves).tanh()).view(-1, 1, 8, 8)

    return function


@dataclass(frozen=True)
class Shelf:
    """A pool of the test examples, as an entry of ``generators``."""

    steps: int = 1

    def preview(self, data: Data) -> Split:
        return Split(data.train.x)[:1]

    def fit(self, data: Data, **given: Any) -> dict[str, Tensor]:
        assert isinstance(data.test.x, Tensor)
        return {"x": data.test.x[:40]}

    def load(self, state: dict[str, Tensor], data: Data) -> Split:
        return Split(state["x"]).to(data.device)


def own(factory: str, least_variety: float = 0.0, **settings: Any) -> dict[str, Any]:
    spec = {"factory": f"{__name__}:{factory}", "latent": 64, **settings}
    return {"mine": {"model": {"module": spec}, "least_variety": least_variety}}


@dataclass(frozen=True)
class Job:
    recipe: Recipe
    folder: Path
    watcher: Any = None

    def execute(self) -> dict[str, Any]:
        return execute(self.recipe, self.folder, self.watcher)

    def generate(self) -> dict[str, Any]:
        return generate(self.recipe, self.folder, self.watcher)


def job(folder: Path, *overrides: str, watcher: Any = None, **changes: Any) -> Job:
    return Job(parse_recipe({**SMALL, **changes}, overrides), folder, watcher)


def stages_of(recipe: Recipe, seed: int) -> list[GeneratorStage]:
    return list(plan(recipe).generators[seed].values())


def refuse_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: Any, **__: Any) -> None:
        raise AssertionError("it was fitted again")

    monkeypatch.setattr(Gan, "fit", fit)


# From end to end


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "small"
    return folder, job(folder).execute()


def test_a_run_with_a_generator(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    assert list(summary["students"]) == ["kd", "made", "both"]
    own = folder / "generators" / "mine" / "shared"
    files = {"weights.safetensors", "stage.json", "quality.json", "contact.png", "between.png"}
    assert {file.name for file in own.iterdir()} == files
    assert not list(folder.rglob("*.ckpt"))
    stage = read_json(own / "stage.json")
    assert stage["done"]
    assert stage["settings"] == {
        "data": SMALL["data"],
        "model": {"gan": GAN},
        "seed": stages_of(parse_recipe(SMALL), 0)[0].seed,
    }
    quality = read_json(own / "quality.json")
    assert set(quality) == {
        *("frechet", "floor", "variety", "least_variety", "least_varied"),
        *("coverage", "ceiling", "label_error", "real_error"),
    }
    assert all(isinstance(value, float | int) for value in quality.values())
    # A student's result depends on the generator it draws from, and no other's does.
    for name, depends in (("kd", False), ("made", True), ("both", True)):
        settings = read_json(folder / "students" / name / "seed-0" / "stage.json")["settings"]
        assert (stage["settings"] in settings["upstream"]) == depends, name


def test_run_again_it_does_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    before = snapshot(folder)
    assert job(folder).execute() == summary
    assert list(job(folder).generate()) == ["generators/mine/shared"]
    # The recipe in the folder is the same, and so is everything else.
    assert snapshot(folder) == before


def test_generate_first_and_run_later_is_the_same(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = job(tmp_path).generate()
    assert list(found) == ["generators/mine/shared"]
    assert found["generators/mine/shared"] == read_json(
        tmp_path / "generators" / "mine" / "shared" / "quality.json"
    )
    assert not (tmp_path / "students").exists()
    assert not (tmp_path / "summary.json").exists()
    before = snapshot(tmp_path)
    refuse_to_fit(monkeypatch)
    assert job(tmp_path).generate() == found
    assert snapshot(tmp_path) == before
    summary = job(tmp_path).execute()
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before} == before
    assert without_seconds(summary) == without_seconds(finished[1])


def test_a_student_that_draws_from_it_can_be_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(tmp_path, students=NO_STUDENT_DRAWS).execute()
    refuse_to_fit(monkeypatch)
    assert list(job(tmp_path, students=STUDENT_DRAWS).execute()["students"]) == ["kd", "made"]


def test_all_seeds_share_a_generator(tmp_path: Path) -> None:
    recipe = parse_recipe(SMALL, ["seeds=[0, 1]"])
    shared = [stages_of(recipe, seed) for seed in (0, 1)]
    assert shared[0] == shared[1]
    paths = [stage.path for stage in plan(recipe).stages]
    assert paths.count("generators/mine/shared") == 1
    assert [p for p in paths if p.startswith("generators/")] == ["generators/mine/shared"]
    # Two of the same settings are two generators.
    twice = parse_recipe({**SMALL, "generators": {"a": {"model": "gan"}, "b": {"model": "gan"}}})
    a, b = stages_of(twice, 0)
    assert a.seed != b.seed


class Listener:
    """A watcher that remembers everything."""

    def __init__(self) -> None:
        self.steps = (0, 0)
        self.begun: list[tuple[str, int]] = []
        self.ended: list[tuple[str, int]] = []
        self.told: list[str] = []

    def plan(self, steps: int, done: int) -> None:
        self.steps = (steps, done)

    def begin(self, title: str, steps: int) -> None:
        self.begun.append((title, steps))

    def advance(self, title: str, step: int, loss: float) -> None:
        assert 0 < step <= self.begun[-1][1]

    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None:
        self.ended.append((title, steps))

    def tell(self, text: str) -> None:
        self.told.append(text)


def test_who_watches_is_told_of_fits_figures_and_costs(tmp_path: Path) -> None:
    first, second, third = Listener(), Listener(), Listener()
    job(tmp_path, watcher=first).generate()
    assert first.steps == (2 * 12 + 6, 0)
    titles = [("teacher 1/2", 12), ("teacher 2/2", 12), ("generator mine", 6)]
    assert first.begun == first.ended == titles
    [told] = first.told
    assert told.startswith("mine: Fréchet distance ")
    assert told == sentence("mine", read_json(tmp_path / "generators/mine/shared/quality.json"))
    job(tmp_path, watcher=second).execute()
    assert second.steps == (2 * 12 + 6 + 3 * 12, 2 * 12 + 6)
    assert [title for title, _ in second.begun] == ["kd, seed 0", "made, seed 0", "both, seed 0"]
    # Two of three asks are of candidates that lose.
    assert second.told == ["both asks the teacher 3 times as often"]
    job(tmp_path, watcher=third).execute()
    assert third.begun == third.told == []


# Pictures


def grey_levels(file: Path) -> Any:
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("L"))


def test_pictures_have_a_row_for_each_class(finished: tuple[Path, dict[str, Any]]) -> None:
    own = finished[0] / "generators" / "mine" / "shared"
    contact, between = grey_levels(own / "contact.png"), grey_levels(own / "between.png")
    # Images of 8 pixels are enlarged to 56, with 3 between them; around them are 64 and 16.
    rest = contact.shape[0] - (64 + 10 * 59 + 16)
    assert rest >= 18
    assert rest % 18 == 0
    assert between.shape[0] == 64 + 9 * 59 + 16
    assert contact.shape[1] > 13 * 59 > between.shape[1] > 10 * 59


def cells(sheet: Any, row: int, count: int, size: int = 8, factor: int = 7) -> list[Any]:
    """Images of a row of a sheet, as small as they were, from right to left."""
    top, side = 64 + row * (size * factor + 3), size * factor
    found = []
    right = sheet.shape[1] - 16
    while len(found) < count:
        cell = sheet[top : top + side, right - side : right]
        small = cell[factor // 2 :: factor, factor // 2 :: factor]
        assert np.array_equal(np.kron(small, np.ones((factor, factor), np.uint8)), cell)
        found.append(small)
        right -= side + 3
    return found


def test_what_the_pictures_show(tmp_path: Path) -> None:
    """Down go conditions, across go latents; between goes from one condition to the next."""
    data = image_data()

    def render(ids: Tensor, condition: Tensor) -> Inputs:
        place = condition @ torch.arange(4.0)
        return (20.0 * ids + 50.0 * place)[:, None, None, None].expand(-1, 1, 8, 8)

    image_sheets(data, render, tmp_path, "", "", conditional=True)
    contact, between = (grey_levels(tmp_path / f"{n}.png") for n in ("contact", "between"))
    for row in range(4):
        made = [int(cell[0, 0]) for cell in reversed(cells(contact, row, 10))]
        assert made == [min(255, 20 * k + 50 * row) for k in range(10)]
    for row in range(3):
        path = [float(cell[0, 0]) for cell in reversed(cells(between, row, 10))]
        expected = [20 * row + 50 * (row + k / 9) for k in range(10)]
        assert path == pytest.approx(expected, abs=0.51)
    for file in tmp_path.iterdir():
        file.unlink()
    image_sheets(data, render, tmp_path, "", "", conditional=False)
    assert [file.name for file in tmp_path.iterdir()] == ["contact.png"]


def test_a_sheet_shows_every_image_and_wraps_its_note() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 3, 8, 8), dtype=torch.uint8)
    sheet = contact_sheet("a title", [Block("", images)], ["a", "b"])
    levels = np.asarray(sheet)
    for row in range(2):
        top = 64 + 59 * row
        for column in range(3):
            right = levels.shape[1] - 16 - 59 * (2 - column)
            cell = levels[top : top + 56 : 7, right - 56 : right : 7]
            assert np.array_equal(np.moveaxis(cell, -1, 0), images[row, column].numpy())
    noted = contact_sheet("a title", [Block("", images)], ["a", "b"], "many words " * 20)
    assert noted.size[0] == sheet.size[0]
    assert (noted.size[1] - sheet.size[1]) % 18 == 0
    assert noted.size[1] > sheet.size[1] + 18


# Collapsed ones


def test_a_collapsed_generator_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generators = own("constant", least_variety=0.5)
    for _ in range(2):
        with pytest.raises(TrainingError) as caught:
            job(tmp_path, generators=generators).execute()
        said = str(caught.value)
        assert said.startswith("generators.mine: the generator has collapsed: two of its draws")
        assert "differ 0 % as much as two real examples do" in said
        assert "least_variety asks for 50 % (for one class alone: 25 %)" in said
        assert f"see {tmp_path / 'generators/mine/shared/contact.png'}" in said
        assert "set generators.mine.least_variety to 0 to use it as it is" in said
        assert "\n" not in said
        # There is something to look at, and no student was trained on it.
        assert (tmp_path / "generators/mine/shared/contact.png").is_file()
        assert not (tmp_path / "students").exists()
    with pytest.raises(TrainingError, match="has collapsed"):
        job(tmp_path, generators=generators).generate()
    # It can be used all the same, and is not made again for that.
    before = snapshot(tmp_path / "generators")
    summary = job(tmp_path, generators=own("constant", least_variety=0.0)).execute()
    assert set(summary["students"]) == {"kd", "made", "both"}
    assert snapshot(tmp_path / "generators") == before


def test_one_collapsed_class_stops_the_run_by_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"mine: the generator has collapsed: .*"):
        job(
            tmp_path,
            generators=own("one_class_collapsed", least_variety=0.5),
            students=NO_STUDENT_DRAWS,
        ).execute()
    quality = read_json(tmp_path / "generators" / "mine" / "shared" / "quality.json")
    assert quality["least_varied"] == 3
    assert quality["variety"] > 0.5
    assert quality["least_variety"] == pytest.approx(0, abs=1e-6)
    generators = own("one_class_collapsed", least_variety=0.0)
    job(tmp_path, generators=generators, students=NO_STUDENT_DRAWS).execute()


def test_a_class_without_any_variety_is_named(tmp_path: Path) -> None:
    generators = own("one_class_collapsed", least_variety=0.5)
    with pytest.raises(TrainingError, match=r"in class '3' 0 %"):
        job(tmp_path, generators=generators, students=NO_STUDENT_DRAWS).generate()


def test_a_collapsed_generator_without_conditions_stops_the_run(tmp_path: Path) -> None:
    generators = own("constant", least_variety=0.5, conditional=False)
    with pytest.raises(TrainingError, match=r"collapsed: .* least_variety asks for 50 %; see"):
        job(tmp_path, generators=generators, students=NO_STUDENT_DRAWS).generate()
    own_folder = tmp_path / "generators" / "mine" / "shared"
    assert read_json(own_folder / "quality.json")["least_variety"] is None
    assert not (own_folder / "between.png").exists()


def test_a_varied_generator_passes(tmp_path: Path) -> None:
    found = job(tmp_path, generators=own("noise", 0.5), students=NO_STUDENT_DRAWS).generate()
    assert found["generators/mine/shared"]["variety"] > 0.5


# Pools


def test_an_entry_that_is_a_pool(tmp_path: Path) -> None:
    generators = {"shelf": {"model": f"{__name__}:Shelf"}}
    students = {"kd": {}, "more": {"sampler": [{"pool": {"generator": "shelf"}}]}}
    watcher = Listener()
    run = job(tmp_path, generators=generators, students=students, watcher=watcher)
    assert list(run.execute()["students"]) == ["kd", "more"]
    own = tmp_path / "generators" / "shelf" / "shared"
    # There is nothing to measure in a pool of given examples.
    assert {file.name for file in own.iterdir()} == {"weights.safetensors", "stage.json"}
    assert watcher.told == []
    again = job(tmp_path, generators=generators, students=students)
    assert again.generate() == {}
    labelled = {**students, "erm": {**students["more"], "learns_from": "labels"}}
    with pytest.raises(RecipeError, match="gives examples without labels") as caught:
        job(tmp_path / "erm", generators=generators, students=labelled).execute()
    assert caught.value.key == "students.erm.learns_from"


# Interruptions


def test_killed_in_the_midst_of_a_fit_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    recipe = {
        **SMALL,
        "teacher": {**SMALL["teacher"], "members": 1},
        "generators": {"mine": {"model": {"gan": {**GAN, "steps": 120}}, "least_variety": 0}},
        "students": NO_STUDENT_DRAWS,
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    whole = tmp_path / "whole" / "generators" / "mine" / "shared"
    killed = tmp_path / "killed" / "generators" / "mine" / "shared"
    generate(parse_recipe(recipe), tmp_path / "whole")
    # So that there is a checkpoint after each step.
    code = (
        "import sys, extracurricular.generators.gan as gan, extracurricular.cli as cli\n"
        "gan._CHECKPOINT_SECONDS = -1.0\n"
        "sys.argv = ['xcl', 'generate', *sys.argv[1:]]\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "r.yaml"), "-o", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    reached, deadline = 0, time.monotonic() + 60
    while reached < 20 and process.poll() is None and time.monotonic() < deadline:
        files = [file.name for file in killed.glob("step-*.ckpt")]
        reached = max([int(name[5:15]) for name in files], default=reached)
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output.decode()
    assert 20 <= reached < 120
    assert not (killed / "weights.safetensors").exists()
    steps: list[int] = []
    watcher = Listener()
    watcher.advance = lambda title, step, loss: steps.append(step)  # type: ignore[method-assign]
    generate(parse_recipe(recipe), tmp_path / "killed", watcher)
    # It went on from there. What was fitted is the same to the last bit.
    assert min(steps) > 20
    a, b = ((own / "weights.safetensors").read_bytes() for own in (whole, killed))
    assert a == b
    assert read_json(whole / "quality.json") == read_json(killed / "quality.json")
    assert not list(killed.glob("*.ckpt"))


def test_other_settings_of_a_generator_are_refused_by_their_key(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    job(tmp_path, students=NO_STUDENT_DRAWS).generate()
    for folder, students in ((finished[0], SMALL["students"]), (tmp_path, NO_STUDENT_DRAWS)):
        before = snapshot(folder)
        for change, said in (
            ("generators.mine.model.gan.steps=7", r"made with model\.gan\.steps = 6, .* says 7"),
            ("generators.mine.model=gan", r"made with model = .*, but the recipe says 'gan'"),
            ("generators.mine.model.gan.r1=1.0", r"with model\.gan\.r1 = None, .* says 1\.0"),
        ):
            run = job(folder, change, students=students)
            for act in (run.execute, run.generate):
                with pytest.raises(StorageError, match=rf"^generators\.mine: .*{said}"):
                    act()
        assert snapshot(folder) == before


def test_a_damaged_generator_is_named(tmp_path: Path) -> None:
    job(tmp_path, students=NO_STUDENT_DRAWS).generate()
    file = tmp_path / "generators" / "mine" / "shared" / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(StorageError, match=r"mine/shared/weights\.safetensors' is damaged"):
        job(tmp_path).execute()


# Data of each seed


def published(folder: Path, splits: int = 2) -> str:
    """A made-up regression set with published splits."""
    folder.mkdir()
    g = np.random.default_rng(0)
    x = g.normal(size=(60, 3))
    table = np.column_stack([x, x @ [1.0, -2.0, 0.5] + 0.1 * g.normal(size=60)])
    np.savetxt(folder / "data.txt", table)
    (folder / "index_features.txt").write_text("0\n1\n2\n")
    (folder / "index_target.txt").write_text("3\n")
    for split in range(splits):
        test = range(10 * split, 10 * split + 10)
        for name, rows in (("test", test), ("train", [k for k in range(60) if k not in test])):
            (folder / f"index_{name}_{split}.txt").write_text("".join(f"{k}\n" for k in rows))
    return str(folder)


def per_seed(path: str, **changes: Any) -> dict[str, Any]:
    return {
        "data": {"uci": {"path": path, "split": "$seed"}},
        "seeds": [0, 1],
        "teacher": {**SMALL["teacher"], "per_seed": True},
        "generators": {"rows": {"model": {"gmm": {"components": 2}}}},
        "students": {
            "kd": {},
            "made": {"sampler": [{"generated": {"generator": "rows"}}, "uncertain"]},
        },
        **changes,
    }


def test_each_seed_has_its_own_split_teacher_and_generator(tmp_path: Path) -> None:
    recipe = per_seed(published(tmp_path / "set"))
    both = job(tmp_path / "both", **recipe).execute()
    for seed in (0, 1):
        folder = tmp_path / f"seed-{seed}"
        alone = job(folder, **recipe, **{}).recipe.model_copy(update={"seeds": [seed]})
        summary = execute(alone, folder)
        parts = [*(f"students/{n}/seed-{seed}" for n in ("kd", "made"))]
        parts += [f"generators/rows/seed-{seed}", f"teacher/seed-{seed}/member-0"]
        for part in parts:
            a, b = (
                (f / part / "weights.safetensors").read_bytes() for f in (tmp_path / "both", folder)
            )
            assert a == b, part
        for name in ("teacher", "kd", "made"):
            x, y = (s["teacher"] if name == "teacher" else s["students"][name] for s in
                    (both, summary))  # fmt: skip
            for metric, figure in y["metrics"].items():
                assert x["metrics"][metric]["per_seed"][seed] == figure["per_seed"][0], metric
    kept = [read_json(tmp_path / "both" / "generators" / "rows" / f"seed-{s}" / "stage.json")
            for s in (0, 1)]  # fmt: skip
    assert [k["settings"]["data"]["uci"]["split"] for k in kept] == [0, 1]
    assert kept[0]["sha256"] != kept[1]["sha256"]
    stages = [read_json(tmp_path / "both" / "students" / "kd" / f"seed-{s}" / "stage.json")
              for s in (0, 1)]  # fmt: skip
    assert [s["settings"]["data"]["uci"]["split"] for s in stages] == [0, 1]
    # The recipe in the folder still says what is to be replaced.
    plain = yaml.safe_load((tmp_path / "both" / "recipe.yaml").read_text())
    assert plain["data"]["uci"]["split"] == "$seed"


def test_data_of_each_seed_needs_a_teacher_of_each_seed(tmp_path: Path) -> None:
    recipe = per_seed(published(tmp_path / "set"), teacher=SMALL["teacher"])
    with pytest.raises(RecipeError, match=r"'\$seed', so .* set teacher\.per_seed to true"):
        job(tmp_path / "out", **recipe)


def test_a_split_that_there_is_not_is_told_before_anything_is_written(tmp_path: Path) -> None:
    recipe = per_seed(published(tmp_path / "set"), seeds=[0, 5])
    with pytest.raises(RecipeError, match=r"data\.uci: .* split is 5; it has splits 0 to 1"):
        job(tmp_path / "out", **recipe).execute()
    assert not (tmp_path / "out").exists()


def test_a_table_has_histograms(tmp_path: Path) -> None:
    recipe = per_seed(published(tmp_path / "set"), seeds=[0])
    found = job(tmp_path / "out", **recipe).generate()
    own = tmp_path / "out" / "generators" / "rows" / "seed-0"
    assert {file.name for file in own.iterdir()} == {
        *("weights.safetensors", "stage.json", "quality.json", "contact.png"),
    }
    levels = grey_levels(own / "contact.png")
    # Three columns beside each other, at 110 pixels an inch.
    assert levels.shape == pytest.approx((3.1 * 110, 9 * 110), abs=2)
    assert levels.std() > 5
    figures = found["generators/rows/seed-0"]
    assert figures["label_error"] is None
    assert figures["least_varied"] is None
    assert figures["variety"] == pytest.approx(1, abs=0.3)


# What a person reads


def test_the_table_of_figures() -> None:
    data: dict[str, Any] = {
        **{"frechet": 1.25, "floor": 0.5, "variety": 0.9, "least_variety": 0.4},
        **{"least_varied": 3, "coverage": 0.81, "ceiling": 0.95},
        **{"label_error": 0.02, "real_error": 0.01},
    }
    bare = dict.fromkeys(data) | {"frechet": 2.0, "variety": 1.0, "coverage": 0.5}
    shown = generator_table({"generators/a/shared": data, "generators/b/seed-1": bare})
    assert [column.header for column in shown.columns] == ["", "a/shared", "b/seed-1"]
    cells = {row[0].strip(): row[1:] for row in zip(*(c.cells for c in shown.columns), strict=True)}  # type: ignore[index, union-attr]
    assert cells["Fréchet distance to training examples"] == ("1.25", "2")
    assert cells["variety, relative to real examples"] == ("90 %", "100 %")
    assert cells["on held-out real examples"] == ("0.01", "")
    assert len(cells) == 8
    assert sentence("a", data) == (
        "a: Fréchet distance 1.25 (held-out real examples: 0.5), variety 90 % of the real, "
        "coverage 81 %"
    )
    assert sentence("b", bare) == "b: Fréchet distance 2, variety 100 % of the real, coverage 50 %"


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """Run the command in this process: its status, output and errors."""
    monkeypatch.setattr(sys, "argv", ["xcl", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    code = ended.value.code
    out, err = capsys.readouterr()
    return int(code or 0), out, err


def test_generate_prints_figures_and_where_to_look(
    finished: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = finished
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(SMALL))
    status, out, err = command(
        monkeypatch, capsys, "generate", str(tmp_path / "r.yaml"), "--out", str(folder)
    )
    assert (status, err) == (0, "")
    for words in ("mine/shared", "Fréchet distance", "variety", "coverage", "contact.png"):
        assert words in out.replace("\n", "")


# Mistakes


def pools(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    for name, size in (("a", (8, 8)), ("b", (9, 8))):
        Image.new("L", size).save(tmp_path / "mixed" / f"{name}.png")


ONE = {"teacher": {**SMALL["teacher"], "members": 1}}


def kd(*chain: Any) -> dict[str, Any]:
    return {"students": {"kd": {"sampler": list(chain)}}}


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    (
        kd("empirical", {"uncertain": {"candidates": 0}}),
        "students.kd.sampler.1.uncertain",
        "candidates is 0; it must be at least 1",
    ),
    (
        {**ONE, **kd("empirical", {"uncertain": {"score": "mutual_information"}})},
        "students.kd.sampler.1.uncertain",
        "score is 'mutual_information', which needs a teacher of several members",
    ),
    (
        kd("empirical", {"uncertain": {"score": "predictive_variance"}}),
        "students.kd.sampler",
        "score is 'predictive_variance', which is for real targets",
    ),
    (
        kd("empirical", {"uncertain": {"score": "entropi"}}),
        "students.kd.sampler.1.uncertain.score",
        "unknown score 'entropi'; did you mean 'entropy'",
    ),
    (
        {"teacher": {**SMALL["teacher"], "sampler": ["empirical", "uncertain"]}},
        "teacher.sampler.1.uncertain",
        "asks a trained teacher, but here there is none yet",
    ),
    (
        {"teacher": {**SMALL["teacher"], "sampler": [{"generated": {"generator": "mine"}}]}},
        "teacher.sampler.0.generated",
        "generator is 'mine', which is not in 'generators'; the recipe has none",
    ),
    (
        {"generators": {}},
        "students.made.sampler.0.generated",
        "generator is 'mine', which is not in 'generators'; the recipe has none",
    ),
    (
        kd({"generated": {"generator": "mien"}}),
        "students.kd.sampler.0.generated",
        "did you mean 'mine'",
    ),
    (
        kd({"pool": {"generator": "mine"}}),
        "students.kd.sampler.0.pool",
        "generator is 'mine', which is no pool",
    ),
    (
        {"generators": own("wide")},
        "generators.mine.model",
        "gives examples of shape (1, 8, 9), those of data 'digits' have (1, 8, 8)",
    ),
    (
        {"generators": own("glaring")},
        "students.made.sampler",
        "the generator gave values from 300 to 300, but the images of the data have bytes",
    ),
    (
        {"generators": own("glaring", range=[0, 1])},
        "students.made.sampler",
        "the generator gave values from 300 to 300, but its range was given as 0 to 1",
    ),
    (
        {"generators": {"mine": {"model": {"gan": {"steps": 0}}}}},
        "generators.mine.model.gan",
        "steps is 0; it must be at least 1",
    ),
    (
        {"generators": {"mine": {"model": {"gan": {"stepz": 5}}}}},
        "generators.mine.model.gan.stepz",
        "did you mean 'steps'",
    ),
    (
        {"generators": {"mine": {"model": "gann"}}},
        "generators.mine.model",
        "unknown generator 'gann'; did you mean 'gan'",
    ),
    (
        {"generators": {"mine": {"model": "gan", "least_variety": -1}}},
        "generators.mine.least_variety",
        "is -1; it should be greater than or equal to 0",
    ),
    (
        {"generators": {"mine": {"model": "gan", "least": 1}}},
        "generators.mine.least",
        "did you mean 'least_variety'",
    ),
    (
        {"generators": {"../mine": {"model": "gan"}}},
        "",
        "a generator is called '../mine'; a name has letters",
    ),
    (
        {"generators": {"mine": {"model": "gmm"}}},
        "generators.mine.model",
        "gmm is for vectors, but x of data 'digits' has shape (1, 8, 8)",
    ),
]


@pytest.mark.parametrize(("changes", "key", "problem"), MISTAKES)
def test_mistakes_are_told_before_anything_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    key: str,
    problem: str,
) -> None:
    with pytest.raises(RecipeError) as caught:
        job(tmp_path / "out", **changes).execute()
    assert caught.value.key == key
    assert problem in str(caught.value)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))
    for name in ("run", "generate") if changes.get("generators") != {} else ("run",):
        status, _, err = command(
            monkeypatch, capsys, name, str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out")
        )
        assert status == 2
        assert err.startswith(f"error: {key}")
        assert problem in err
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_nothing_to_generate_from_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="generators: is empty; there is nothing to generate"):
        job(tmp_path / "out", generators={}, students=NO_STUDENT_DRAWS).generate()
    assert not (tmp_path / "out").exists()


POOLS = [
    ({"path": "empty"}, "the folder 'empty' has no images"),
    ({"path": "mixed"}, "the image 'b.png' is 9 × 8 pixels, but 'a.png' is 8 × 8"),
    ({"path": "gone"}, "path 'gone' does not exist"),
]


@pytest.mark.parametrize(("settings", "says"), POOLS)
def test_pools_that_cannot_be_used_are_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], says: str
) -> None:
    pools(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(XclError, match=says) as caught:
        job(tmp_path / "out", **kd({"pool": settings})).execute()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_pool_that_cannot_be_used_is_told_by_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools(tmp_path)
    monkeypatch.chdir(tmp_path)
    for settings, _ in POOLS:
        with pytest.raises(XclError) as caught:
            job(tmp_path / "out", **kd({"pool": settings})).execute()
        assert isinstance(caught.value, RecipeError)
        assert caught.value.key == "students.kd.sampler.0.pool"


# What goes wrong later


@pytest.mark.parametrize(
    ("factory", "students"),
    [("rarely_glaring", STUDENT_DRAWS), ("glaring", NO_STUDENT_DRAWS)],
)
def test_values_that_go_wrong_after_the_check_are_told(
    tmp_path: Path, factory: str, students: dict[str, Any]
) -> None:
    with pytest.raises(XclError, match=r"mine.*: the generator gave values from .* to 300"):
        job(tmp_path, generators=own(factory), students=students).execute()


def test_values_that_go_wrong_while_a_student_is_trained_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPOILED, "now", False)
    listener = Listener()
    # Its figures are told once it has been looked at.
    listener.tell = lambda text: SPOILED.update(now="Fréchet" in text)  # type: ignore[method-assign]
    with pytest.raises(XclError, match=r"made, seed 0.*: the generator gave values from .* to 300"):
        job(tmp_path, generators=own("spoiling"), watcher=listener).execute()


def test_a_teacher_that_gives_nan_stops_a_run_with_generators(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = build_model({"mlp": {"hidden": [8]}}, inputs=(1, 8, 8), outputs=10)
    file = tmp_path / "nan.safetensors"
    save_weights(file, {k: v.fill_(float("nan")) for k, v in module.state_dict().items()})
    teacher = {"model": {"mlp": {"hidden": [8]}}, "weights": str(file)}
    with pytest.raises(XclError, match=r"NaN|not finite"):
        job(tmp_path / "out", teacher=teacher, students=NO_STUDENT_DRAWS).generate()


def test_figures_that_are_not_finite_are_null() -> None:
    quality = Quality(float("nan"), None, float("inf"), 0.5, 3, 1.0, None, None, None)
    found = plain(quality)
    assert (found["frechet"], found["variety"], found["least_variety"]) == (None, None, 0.5)
    json.dumps(found, allow_nan=False)
