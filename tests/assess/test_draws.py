"""Ranking draws by the teacher alone: closed forms of the criteria, and the command."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from extracurricular.assess.candidates import Candidate, candidates, chosen, standard
from extracurricular.assess.draws import GROUP, LEAST, Ranked, Ranking, look, rank, spread
from extracurricular.assess.draws_sheet import rows, sheet, write_draws
from extracurricular.cli import app
from extracurricular.data.base import Data
from extracurricular.distributions import Categorical, Distribution, Gaussian
from extracurricular.errors import RecipeError, TrainingError, XclError
from extracurricular.files import read_json
from extracurricular.generators.quality import flat_features, frechet_distance
from extracurricular.inputs import Batch
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.plan import plan
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Empirical, Noise, Uncertain
from tests.conftest import eye_data, image_data, small_recipe, table_data

STEPS = {"steps": 4, "batch_size": 8}
DIGITS: dict[str, Any] = small_recipe(
    {"digits": {"train": 100, "validation": 50}}, {"mlp": {"hidden": [8]}}
) | {
    "teacher": {"model": {"mlp": {"hidden": [8]}}, "members": 2, "training": STEPS},
    "defaults": {"model": {"mlp": {"hidden": [4]}}, "training": STEPS},
}


# The spread


def test_the_spread_of_a_constant_answer_is_none() -> None:
    assert spread(torch.full((4 * GROUP, 3), 0.3)) == 0


def test_the_spread_is_that_of_the_means_of_groups() -> None:
    # Means of the groups: 0 and 1 in the first class, 1 and 0 in the second, 5 in the third.
    means = torch.tensor([[0.0, 1.0, 4.0], [0, 1, 6], [1, 0, 4], [1, 0, 6]])
    assert spread(means, 2) == pytest.approx((math.sqrt(0.5) + math.sqrt(0.5) + 0) / 3)
    # A group that is not full is left out.
    assert spread(torch.cat([means, torch.full((1, 3), 9.0)]), 2) == spread(means, 2)


def test_the_spread_of_independent_answers_falls_with_the_root_of_the_group() -> None:
    coins = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (2**17, 1))).float()
    for group in (16, 64):
        assert spread(coins, group) == pytest.approx(0.5 / math.sqrt(group), rel=0.05)


def test_the_spread_needs_two_groups() -> None:
    with pytest.raises(ValueError, match="127 draws are less than two groups of 64"):
        spread(torch.zeros(127, 2))


# Figures of one sampler


def ids(count: int = LEAST) -> Tensor:
    return torch.arange(count)


def sure(batch: Batch) -> Distribution:
    """Answers the label, of four classes."""
    assert batch.y is not None
    return Categorical(1e4 * torch.nn.functional.one_hot(batch.y, 4).float())


def unsure(batch: Batch) -> Distribution:
    return Categorical(torch.zeros(len(batch), 4))


def test_entropy_of_known_answers() -> None:
    sampler = Empirical(image_data())
    for teacher, entropy in ((sure, 0.0), (unsure, math.log(4))):
        figures, _, answers = look(sampler, teacher, flat_features, None, ids())
        assert figures.entropy == pytest.approx(entropy, abs=1e-6)
        assert figures.frechet is None
        assert len(answers) == LEAST

    def wide(batch: Batch) -> Distribution:
        return Gaussian(torch.zeros(len(batch), 2), torch.zeros(len(batch), 2))

    figures, _, _ = look(Empirical(table_data()), wide, flat_features, None, ids())
    assert figures.entropy == pytest.approx(1 + math.log(2 * math.pi), rel=1e-6)
    assert figures.spread == 0


def test_the_spread_is_taken_in_the_order_of_the_draws() -> None:
    # 64 examples of four classes, so that each group is one epoch, whose mean never changes.
    data = image_data(count=GROUP)
    figures, _, _ = look(Empirical(data), sure, flat_features, None, ids(512))
    assert figures.spread == pytest.approx(0, abs=1e-7)


def test_the_distance_is_that_of_the_features() -> None:
    data = table_data(count=GROUP)
    real = flat_features(data.inputs(data.train.x))
    plain, _, _ = look(Empirical(data), unsure, flat_features, real, ids())
    # Two epochs have the examples' own moments, but for a factor of the covariance.
    assert plain.frechet == pytest.approx(0, abs=1e-3)
    noisy = Noise(Empirical(data), std=0.5)
    figures, _, _ = look(noisy, unsure, flat_features, real, ids())
    drawn = flat_features(noisy(ids()).x)
    assert figures.frechet == pytest.approx(frechet_distance(drawn, real))
    assert figures.frechet > 0.05


def test_questions_and_times() -> None:
    data = image_data()
    figures, first, _ = look(Empirical(data), unsure, flat_features, None, ids(600))
    assert figures.questions == 1
    assert len(first) == 256
    assert min(figures.draw_ms, figures.answer_ms) > 0
    chosen = Uncertain(Empirical(data), unsure, candidates=3, plain_share=0.5)
    figures, _, _ = look(chosen, unsure, flat_features, None, ids())
    assert figures.questions == pytest.approx(2)


def test_an_answer_that_is_not_finite_is_refused() -> None:
    def broken(batch: Batch) -> Distribution:
        return Categorical(torch.where(batch.ids[:, None] == 5, math.nan, torch.zeros(1, 4)))

    with pytest.raises(TrainingError, match="NaN or infinity for 1 of 128 draws: ids 5"):
        look(Empirical(image_data()), broken, flat_features, None, ids())


# Candidates


def test_the_standard_samplers_fit_the_data(streamed_data: Any) -> None:
    halves = ["half-mixup", "half-cutmix"]
    assert list(standard(image_data())) == [
        *("plain", "augment", "mixup", "cutmix", "noise"), *halves,
    ]  # fmt: skip
    assert standard(image_data())["augment"][1] == {"augment": {"pad": 1}}
    assert list(standard(table_data())) == ["plain", "mixup", "noise", "half-mixup", "half-noise"]
    assert "cutmix" in standard(eye_data())
    assert standard(streamed_data())["resized-crop"] == ["resized_crop"]


def named(students: dict[str, Any], others: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    recipe = parse_recipe(DIGITS | {"students": students})
    return [(one.name, one.students) for one in candidates(recipe, image_data(), others)]


def test_equal_samplers_are_one_under_whatever_spelling() -> None:
    blend = {
        "a": {"weight": 0.5, "sampler": "empirical"},
        "b": {"weight": 0.5, "sampler": ["empirical", "mixup"]},
    }
    students = {
        "kd": {},
        "one": {"sampler": "empirical"},
        "two": {"sampler": ["empirical", "mixup"]},
        "three": {"sampler": ["empirical", {"mixup": {"alpha": 0.2}}]},
        "four": {"sampler": [{"blend": blend}]},
    }
    found = named(students, standard(image_data()))
    assert found[:4] == [
        ("plain", ("kd", "one")),
        ("mixup", ("two",)),
        ("three", ("three",)),
        ("half-mixup", ("four",)),
    ]
    assert [name for name, _ in found[4:]] == ["augment", "cutmix", "noise", "half-cutmix"]


def test_a_share_is_ranked_by_its_parts() -> None:
    share = {"share": {"of": "auto", "extended": ["empirical", "mixup"]}}
    found = named({"kd": {}, "auto": {"sampler": [share]}}, {})
    assert found == [("kd", ("kd", "auto (plain)")), ("auto (extended)", ("auto (extended)",))]


def test_names_do_not_collide() -> None:
    found = named({"noise": {"sampler": ["empirical", "mixup"]}}, {"noise": ["empirical"]})
    assert [name for name, _ in found] == ["noise", "noise'"]


def test_samplers_are_chosen_by_name_or_from_a_file(tmp_path: Path) -> None:
    data = table_data()
    assert list(chosen("noise, plain", data)) == ["noise", "plain"]
    assert chosen(None, data) == standard(data)
    file = tmp_path / "mine.yaml"
    file.write_text("weak: [empirical, {noise: {std: 1e-2}}]\nplain: empirical\n")
    assert chosen(str(file), data) == {
        "weak": ["empirical", {"noise": {"std": 0.01}}],
        "plain": "empirical",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nois", "--samplers: names 'nois', .* did you mean 'noise'"),
        ("cutmix", "--samplers: names 'cutmix', which is no standard sampler for 'table'"),
        ("missing.yaml", "--samplers: 'missing.yaml' cannot be read"),
    ],
)
def test_a_wrong_name_is_told(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        chosen(text, table_data())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "is not valid YAML"),
        ("[empirical]", r"holds \['empirical'\]; it must be {NAME: \[empirical, …\], …}"),
        ("a: 3", "it must be {NAME"),
    ],
)
def test_a_wrong_file_is_told(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(RecipeError, match=said):
        chosen(str(file), table_data())


# A recipe


def ranking(folder: Path, others: dict[str, Any], count: int = LEAST, **changes: Any) -> Ranking:
    recipe = parse_recipe(DIGITS | changes)
    workspace = Workspace(recipe, folder)
    return rank(workspace, plan(recipe), lambda data: candidates(recipe, data, others), count)


def test_the_lowest_spread_is_first_and_no_student_is_trained(tmp_path: Path) -> None:
    found = ranking(tmp_path, {"noise": ["empirical", "noise"]}, count=512)
    values = [one.figures.spread for one in found.ranked]
    assert values == sorted(values)
    assert {one.candidate.name for one in found.ranked} == {"erm", "xcl", "noise"}
    assert all(one.figures.frechet is not None for one in found.ranked)
    assert found.held_out == 50
    assert (tmp_path / "teacher").is_dir()
    assert not (tmp_path / "students").exists()


def test_the_ranking_does_not_depend_on_who_else_is_ranked(tmp_path: Path) -> None:
    def of_erm(found: Ranking) -> tuple[float, ...]:
        one = next(one for one in found.ranked if one.candidate.name == "erm").figures
        assert one.frechet is not None
        return one.spread, one.entropy, one.frechet

    alone = ranking(tmp_path, {})
    assert of_erm(alone) == of_erm(ranking(tmp_path, {"noise": ["empirical", "noise"]}))


def test_draws_are_independent_even_of_few_examples(tmp_path: Path) -> None:
    # With one group an epoch, consecutive draws of stored examples would have no spread at all.
    found = ranking(tmp_path, {}, count=8192, data={"digits": {"train": GROUP, "validation": 50}})
    one = next(one for one in found.ranked if one.candidate.name == "erm")
    assert one.figures.spread > 0
    again = {draw.tobytes() for draw in one.draws.x.numpy()}  # type: ignore[union-attr]
    # Of 64 examples, 256 independent draws leave (1 - 1/64)^256 = 2 % out.
    assert 50 < len(again) <= GROUP


def test_draws_that_depend_on_the_student_are_left_out(tmp_path: Path) -> None:
    sought = ["empirical", {"uncertain": {"score": "divergence"}}]
    found = ranking(tmp_path, {}, students={"kd": {}, "sought": {"sampler": sought}})
    assert [one.candidate.name for one in found.ranked] == ["kd"]
    assert found.skipped == {"sought": "its draws depend on the student in training"}


def test_generators_that_are_drawn_from_are_fitted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = tmp_path / "rows.csv"
    values = rng.normal(size=(80, 3))
    lines = [",".join(map(str, row)) for row in values]
    table.write_text("\n".join(["a,b,target", *lines]))
    data = {"table": {"path": str(table), "target": "target", "validation": 0.0}}
    generators = {"rows": {"model": {"gmm": {"components": 1}}}, "idle": {"model": "kde"}}
    made = {"made": {"sampler": [{"generated": {"generator": "rows"}}]}, "kd": {}}
    folder = tmp_path / "run"
    found = ranking(folder, {}, data=data, generators=generators, students=made)
    assert (folder / "generators" / "rows").is_dir()
    assert not (folder / "generators" / "idle").exists()
    # There are no validation examples, and test examples are for the final figures.
    assert found.held_out == 0
    assert all(one.figures.frechet is None for one in found.ranked)
    json.dumps(found.plain(), allow_nan=False)


def test_mistakes_show_before_the_teacher_is_trained(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for others, said in (
        ({"a": ["empirical", "mixp"]}, "--samplers.a: unknown sampler 'mixp'"),
        ({"a": ["mixup"]}, "--samplers.a.0: 'mixup' draws from another sampler"),
        ({"a": []}, "--samplers.a: is empty"),
        ({"a": ["empirical", {"noise": {"std": -1}}]}, "--samplers.a.1.noise: std is -1"),
        ({"a": [{"generated": {"generator": "x"}}]}, "--samplers.a.0.generated.*'x'"),
        ({"a": [{"share": {"extended": ["empirical"]}}]}, "--samplers.a: is a share"),
    ):
        with pytest.raises(XclError, match=said):
            ranking(folder, others)
    with pytest.raises(RecipeError, match="--count: is 127; the spread needs at least 128 draws"):
        ranking(folder, {}, count=127)
    assert not folder.exists()


# Sheets


def looked_at(data: Data, teacher: Any) -> Ranked:
    candidate = Candidate("half mix/ed", ["empirical"], "key")
    return Ranked(candidate, *look(Empirical(data), teacher, flat_features, None, ids()))


def test_a_sheet_of_images(tmp_path: Path) -> None:
    data = image_data()
    file = write_draws(looked_at(data, sure), data, tmp_path)
    assert file == tmp_path / "half-mix-ed.png"
    with Image.open(file) as image:
        assert image.width > 10 * 56
        assert image.height > 5 * 56
    assert sheet(looked_at(data, unsure), data)[:4] == b"\x89PNG"


def test_rows_of_a_table_are_in_its_own_units(tmp_path: Path) -> None:
    data = replace(table_data(), outputs=("depth", "width"), columns=tuple("abcde"))

    def teacher(batch: Batch) -> Distribution:
        assert isinstance(batch.x, Tensor)
        # The deviation grows with the first column.
        return Gaussian(torch.zeros(len(batch), 2), batch.x[:, :1].expand(-1, 2))

    read = list(csv.DictReader(io.StringIO(rows(looked_at(data, teacher), data))))
    assert len(read) == 12
    assert isinstance(data.train.x, Tensor)
    shown = torch.tensor([float(row["a"]) for row in read])
    away = (shown[:, None] - data.train.x[:, 0]).abs().amin(1)
    assert float(away.max()) < 1e-4
    entropy = [float(row["entropy"]) for row in read]
    assert entropy == sorted(entropy)
    assert data.train.y is not None
    mean = float(data.train.y[:, 1].mean())
    assert float(read[0]["width: mean"]) == pytest.approx(mean, rel=1e-3)
    file = write_draws(looked_at(data, teacher), data, tmp_path)
    assert file.suffix == ".csv"


def test_rows_of_classes_name_the_answer() -> None:
    data = replace(table_data(), classes=("ant", "bee"))

    def teacher(batch: Batch) -> Distribution:
        return Categorical(torch.tensor([[0.0, 50.0]]).expand(len(batch), -1))

    read = list(csv.DictReader(io.StringIO(rows(looked_at(data, teacher), data))))
    assert {(row["answer"], row["probability"]) for row in read} == {("bee", "1.0000")}


# The command


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(DIGITS))
    return "tiny.yaml"


def xcl(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_command_shows_a_table_and_leaves_sheets(recipe: str, tmp_path: Path) -> None:
    shown = xcl("draws", recipe, "seeds=[0]", "--samplers", "noise,plain", "--count", "256")
    for word in ("teacher 2/2", "plain", "erm, kd", "xcl", "noise", "50 validation examples"):
        assert word in shown
    folder = tmp_path / "runs" / "small" / "draws"
    assert {file.name for file in folder.iterdir()} == {
        *("draws.json", "plain.png", "xcl.png", "noise.png")
    }
    # The teacher is that of the run, which goes on from there.
    again = xcl("draws", recipe, "seeds=[0]", "--count", "256", "--out", "sheets")
    assert "teacher 2/2" not in again
    assert (tmp_path / "sheets" / "half-mixup.png").is_file()


def test_json_is_all_that_is_printed(recipe: str, tmp_path: Path) -> None:
    shown = json.loads(xcl("draws", recipe, "--samplers", "noise", "--count", "128", "--json"))
    assert shown["recipe"] == "small"
    assert (shown["count"], shown["group"], shown["held_out"]) == (128, GROUP, 50)
    assert {one["name"] for one in shown["samplers"]} == {"erm", "xcl", "noise"}
    assert set(shown["samplers"][0]) == {
        *("name", "students", "sampler", "spread", "entropy", "frechet"),
        *("draw_ms", "answer_ms", "questions"),
    }
    assert read_json(tmp_path / "runs" / "small" / "draws" / "draws.json") == shown


def test_a_finished_run_has_the_teacher(digits_run: Path, tmp_path: Path) -> None:
    shown = xcl("draws", str(digits_run), "--count", "128", "--out", str(tmp_path / "sheets"))
    assert "plain" in shown
    assert (tmp_path / "sheets" / "cutmix.png").is_file()
    for arguments, said in (
        (("seeds=[0]",), "'seeds=.0.' would change a finished run"),
        (("--run", "elsewhere"), "--run: is 'elsewhere', but .* is a run and has the teacher"),
    ):
        with pytest.raises(RecipeError, match=said):
            xcl("draws", str(digits_run), *arguments)


def test_weights_that_the_recipe_names_are_the_teacher(recipe: str, digits_run: Path) -> None:
    weights = digits_run / "teacher" / "shared" / "member-0" / "weights.safetensors"
    given = f"teacher={{model: {{digits_cnn: {{width: 4}}}}, weights: {weights}}}"
    shown = xcl("draws", recipe, given, "--samplers", "plain", "--count", "128")
    assert "teacher 1" not in shown
    assert "erm, kd" in shown
