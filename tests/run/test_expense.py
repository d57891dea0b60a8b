"""The multiply-adds of a training, by closed forms; students whose steps are set by a cost."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from extracurricular.errors import RecipeError
from extracurricular.files import read_json
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.run.equal_cost import most_steps, settled
from extracurricular.run.execute import execute
from extracurricular.run.expense import Expense, mean_share, measured
from extracurricular.run.finished import open_run
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Context, build_sampler
from tests.conftest import image_data
from tests.run.test_run import TINY

# Networks of the recipe TINY: 64 pixels, 4 units or twice 16, 10 classes.
STUDENT, TEACHER = 64 * 4 + 4 * 10, 2 * (64 * 16 + 16 * 10)
STEPS, BATCH, ROWS = 64, 16, 100
DRAWS = STEPS * BATCH


def recipe(**students: dict[str, Any]) -> dict[str, Any]:
    own = copy.deepcopy(TINY)
    own["seeds"] = [0]
    own["defaults"]["training"] |= {"steps": STEPS, "checkpoint_every": 500}
    own["students"] = students
    return own


def spent(folder: Path, **students: dict[str, Any]) -> dict[str, Any]:
    summary = execute(parse_recipe(recipe(**students)), folder)
    assert summary["teacher"]["multiply_adds"] == 2 * 3 * 30 * 16 * TEACHER // 2
    return {name: entry["multiply_adds"] for name, entry in summary["students"].items()}


def test_a_step_is_three_passes_and_each_answer_one_of_the_teacher(tmp_path: Path) -> None:
    choosing = {"uncertain": {"score": "entropy", "candidates": 4, "plain_share": 0.5}}
    found = spent(
        tmp_path,
        erm={"learns_from": "labels"},
        kd={},
        noisy={"sampler": ["empirical", {"noise": {"std": 0.1}}]},
        choosy={"sampler": ["empirical", {"noise": {"std": 0.1}}, choosing]},
    )
    own = 3 * DRAWS * STUDENT
    assert found == {
        "erm": own,
        # The teacher is asked once about each stored example.
        "kd": own + ROWS * TEACHER,
        "noisy": own + DRAWS * TEACHER,
        # Half of the draws have four candidates, whose answers serve the loss too.
        "choosy": own + round(2.5 * DRAWS) * TEACHER,
    }


def test_shares_count_as_they_were(tmp_path: Path) -> None:
    asking = ["empirical", {"noise": {"std": 0.1}}, {"uncertain": {"plain_share": 0.0}}]
    share = {"plain": ["empirical"], "extended": asking}
    found = spent(
        tmp_path,
        half={"sampler": [{"share": {"of": {"linear": [0.0, 1.0]}, **share}}]},
        follows={"sampler": [{"share": {"of": "auto", **share}}]},
        watched={"mastery": {"held_out": 0.1}},
    )
    own = 3 * DRAWS * STUDENT
    # Extended draws ask four times to choose, and all ask once to learn.
    assert found["half"] == own + 3 * DRAWS * TEACHER
    # 10 examples kept out and 90 others, measured up to a third of the steps, or to the end.
    lines = (tmp_path / "students/follows/seed-0/log.jsonl").read_text().splitlines()
    assert sum('"share"' in line for line in lines) == 1
    share_then = open_run(tmp_path).workspace.record("students/follows/seed-0")["mastery"]["share"]
    mean = share_then * (STEPS - 16) / STEPS
    assert found["follows"] == round(own + 100 * STUDENT + (100 + DRAWS * (1 + 4 * mean)) * TEACHER)
    assert found["watched"] == own + 4 * 100 * STUDENT + (100 + ROWS) * TEACHER


def test_a_record_is_counted_once_and_whole(tmp_path: Path) -> None:
    given = recipe(kd={}, longer={"training": {"steps": 3 * STEPS, "batch_size": BATCH}})
    given["teacher"]["record"] = {"draws": 200}
    students = execute(parse_recipe(given), tmp_path)["students"]
    for name, times in (("kd", 1), ("longer", 3)):
        assert students[name]["multiply_adds"] == 3 * times * DRAWS * STUDENT + 200 * TEACHER


def test_a_teacher_that_is_no_network_is_unknown(tmp_path: Path) -> None:
    given = recipe(erm={"learns_from": "labels"}, kd={})
    given["teacher"] = {"estimator": {"random_forest": {"trees": 2}}}
    summary = execute(parse_recipe(given), tmp_path)
    assert summary["teacher"]["multiply_adds"] is None
    assert summary["students"]["kd"]["multiply_adds"] is None
    assert summary["students"]["erm"]["multiply_adds"] == 3 * DRAWS * STUDENT
    given["students"]["erm"]["cost"] = {"of": "kd"}
    with pytest.raises(RecipeError, match=r"students\.erm\.cost\.unit: .* cannot be counted"):
        execute(parse_recipe(given), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_choice_counts_all_candidates(tmp_path: Path) -> None:
    among = {"plain": {}, "noisy": {"sampler": ["empirical", {"noise": {"std": 0.1}}]}}
    found = spent(tmp_path, best={"choose": {"among": among}})
    record = read_json(tmp_path / "students/best/seed-0/stage.json")
    done = {name: STEPS if name == record["chosen"] else STEPS // 2 for name in among}
    draws = 3 * sum(done.values()) * BATCH * STUDENT
    # Both are measured twice on all 100 examples, about which the teacher is asked once for each;
    # stored examples are asked about without those kept out, and then with them.
    watched = 2 * (2 * 100 * STUDENT + 100 * TEACHER)
    answers = (2 * ROWS + done["noisy"] * BATCH) * TEACHER
    assert found["best"] == draws + watched + answers


def test_a_baseline_gets_the_steps_that_cost_as_much(tmp_path: Path) -> None:
    noisy = {"sampler": ["empirical", {"noise": {"std": 0.1}}]}
    given = recipe(
        erm={"learns_from": "labels", "cost": {"of": "xcl"}},
        kd={"cost": {"of": "xcl"}},
        xcl=noisy,
    )
    summary = execute(parse_recipe(given), tmp_path)
    total = DRAWS * (3 * STUDENT + TEACHER)
    steps = {name: entry["steps"] for name, entry in summary["students"].items()}
    a_step = 3 * BATCH * STUDENT
    assert steps == {
        "erm": total // a_step,
        "kd": (total - ROWS * TEACHER) // a_step,
        "xcl": STEPS,
    }
    for entry in summary["students"].values():
        assert total - a_step < entry["multiply_adds"] <= total
    # The run keeps the steps, so that it is planned and opened without counting again.
    kept = read_recipe(str(tmp_path / "recipe.yaml"))
    assert kept.students["erm"].training.steps == steps["erm"]
    assert open_run(tmp_path).plan.students["erm", 0].steps == steps["erm"]
    assert settled(kept, Workspace(kept, tmp_path)) == kept


def test_a_baseline_can_have_the_steps_of_all_candidates(tmp_path: Path) -> None:
    among = {"plain": {}, "warm": {"matching": {"temperature": 2.0}}}
    given = recipe(kd={"cost": {"of": "best", "unit": "steps"}}, best={"choose": {"among": among}})
    read = parse_recipe(given)
    found = settled(read, Workspace(read, tmp_path))
    assert found.students["kd"].training.steps == STEPS + STEPS // 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("cost", "says"),
    [
        ({"of": "nobody"}, "students.kd.cost.of is 'nobody', which is no student"),
        ({"of": "kd"}, "students.kd.cost.of is 'kd', the student itself"),
        ({"of": "other"}, "students.kd.cost.of is 'other', whose own steps are set by its cost"),
        ({"of": "xcl", "unit": "seconds"}, "multiply_adds"),
        ({}, "students.kd.cost.of"),
    ],
)
def test_a_wrong_cost_is_one_sentence(cost: dict[str, Any], says: str) -> None:
    given = recipe(kd={"cost": cost}, other={"cost": {"of": "xcl"}}, xcl={})
    with pytest.raises(RecipeError) as caught:
        parse_recipe(given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("amount", [0, 9, 10, 19, 20, 1234567])
def test_most_steps_is_the_largest_number_that_fits(amount: int) -> None:
    assert most_steps(lambda n: 10 * n, amount) == max(1, amount // 10)


def test_passes_of_an_unknown_teacher_matter_only_where_it_is_asked() -> None:
    assert Expense(7, None, 10).multiply_adds == 210
    assert Expense(7, None, 10, asked=1).multiply_adds is None
    assert Expense(7, 100, 10, asked=2.5, looked=4).multiply_adds == 210 + 28 + 250


def test_mastery_is_measured_forty_times_or_in_the_first_part() -> None:
    assert measured(1000, 0.1, 640, None, auto=False) == (100 + 512, 40)
    assert measured(1000, 0.1, 640, None, auto=True) == (612, 12)
    assert measured(1000, 0.1, 640, 320, auto=True) == (612, 20)
    assert measured(10000, 0.1, 6400, None, auto=False) == (1024, 40)


def test_the_mean_share_is_that_of_all_steps() -> None:
    def sampler(of: Any) -> Any:
        chain = [{"share": {"of": of, "extended": ["empirical", "mixup"]}}]
        return build_sampler(chain, image_data(), 0, context=Context())

    auto = sampler("auto")
    lines = [{"step": 10, "mastery": {"share": 0.5}}, {"step": 15}]
    lines += [{"step": 20, "mastery": {"share": 1.0}}]
    assert mean_share(auto, lines, 40) == (0 * 10 + 0.5 * 10 + 1.0 * 20) / 40
    assert mean_share(auto, [], 40) == 0
    assert mean_share(auto, None, 40) is None
    assert mean_share(sampler(0.25), None, 40) == 0.25
    assert mean_share(build_sampler(["empirical"], image_data(), 0), [], 40) is None
