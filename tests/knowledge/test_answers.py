"""Stored answers of a teacher: found by id, bound to draws, and refused where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import extracurricular as xcl
from extracurricular.data.base import Data
from extracurricular.data.sets import DATA
from extracurricular.errors import DataError, RecipeError, TrainingError, XclError
from extracurricular.inputs import Batch, static_shapes
from extracurricular.knowledge import Answers, StoredTeacher
from extracurricular.knowledge.answers_file import matched
from extracurricular.knowledge.named import AnswersFile
from extracurricular.models import build_model
from extracurricular.samplers import Empirical, Pool, build_sampler
from extracurricular.teachers import NetworkTeacher
from extracurricular.teachers.base import on_draws, on_split
from extracurricular.training import Training, train

STEPS = Training(steps=30, batch_size=16)
CLASSES = ("ant", "bee", "cat")


def classes(count: int = 90, unlabelled: int = 0) -> Data:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    y = np.array(CLASSES)[rng.integers(0, 3, count)]
    data = xcl.from_arrays(x, y)
    if unlabelled:
        more = torch.from_numpy(rng.normal(size=(unlabelled, 4)).astype(np.float32))
        ids = {**data.ids, "unlabelled": list(range(1000, 1000 + unlabelled))}
        data = replace(data, unlabelled=xcl_split(more), ids=ids)
    return data


def xcl_split(x: torch.Tensor) -> Any:
    from extracurricular.data.base import Split

    return Split(x)


def reals(count: int = 90, targets: int = 1) -> Data:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    return xcl.from_arrays(x, 40 + 9 * x[:, :targets] + rng.normal(size=(count, targets)))


def network(data: Data, seed: int = 5) -> NetworkTeacher:
    torch.manual_seed(seed)
    made = build_model({"mlp": {"hidden": [8]}}, inputs=data.shapes, outputs=data.task.outputs)
    return NetworkTeacher(made.eval(), data.task)


def whole(data: Data, teacher: NetworkTeacher) -> tuple[list[int], torch.Tensor]:
    """Return ids and raw answers on every example that has an id."""
    ids: list[int] = []
    parts = []
    for part, own in data.ids.items():
        ids += list(own)  # type: ignore[arg-type]
        x = data.inputs(getattr(data, part).x)
        parts.append(teacher(Batch(torch.arange(len(own)), x)).parameters)
    return ids, torch.cat(parts)


def in_units(data: Data, raw: torch.Tensor) -> dict[str, Any]:
    """Return standardised answers as arrays in the target's units."""
    assert data.y_scale is not None
    mean, log_var = raw.double().chunk(2, 1)
    shift, scale = data.y_scale.shift.double(), data.y_scale.scale.double()
    return {"mean": (mean * scale + shift).numpy(), "deviation": (log_var.exp().sqrt() * scale)}


def trained(data: Data, teacher: Any, chain: Any = "empirical") -> dict[str, torch.Tensor]:
    student = network(data, 1).module
    train(student, build_sampler(chain, data, 3), teacher, data.task, settings=STEPS, seed=2)
    return student.state_dict()


# -- closed form ----------------------------------------------------------------------------------


def test_matching_stored_logits_is_matching_the_network() -> None:
    data = classes()
    teacher = network(data)
    ids, raw = whole(data, teacher)
    stored = Answers(ids, logits=raw.numpy()).fit(data, 0)
    ours, theirs = trained(data, stored), trained(data, teacher)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)


def test_matching_stored_probabilities_and_moments_is_matching_the_network() -> None:
    for data in (classes(), reals(), reals(targets=2)):
        teacher = network(data)
        ids, raw = whole(data, teacher)
        given = {"probabilities": raw.double().softmax(1).numpy()}
        if data.task.kind == "regression":
            given = in_units(data, raw)
        stored = Answers(ids, **given).fit(data, 0)
        for name, value in trained(data, teacher).items():
            torch.testing.assert_close(trained(data, stored)[name], value, rtol=1e-3, atol=1e-4)


def test_the_order_of_rows_changes_nothing() -> None:
    data = classes()
    ids, raw = whole(data, network(data))
    order = np.random.default_rng(1).permutation(len(ids))
    one = Answers(ids, logits=raw.numpy()).fit(data, 0)
    other = Answers(np.array(ids)[order], logits=raw.numpy()[order]).fit(data, 0)
    assert one.identity() == other.identity()
    first, second = trained(data, one), trained(data, other)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_ids_row_n_is_that_of_row_n_of_the_source() -> None:
    data = classes()
    ids, raw = whole(data, network(data))
    placed = torch.full((200, 3), 7.0)  # more rows than are needed
    placed[torch.tensor(ids)] = raw
    one = Answers(ids, logits=raw.numpy()).fit(data, 0)
    other = Answers(logits=placed.numpy()).fit(data, 0)
    assert one.identity() == other.identity()


@pytest.mark.parametrize(
    "chain",
    [
        "pool",
        {
            "blend": {
                "a": {"weight": 1, "sampler": "empirical"},
                "b": {"weight": 1, "sampler": ["pool"]},
            }
        },
        {"share": {"of": 0.4, "extended": ["pool"]}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("static", [False, True])
def test_each_draw_has_the_answer_on_its_own_example(chain: Any, static: bool) -> None:
    data = classes(unlabelled=20)
    teacher = network(data)
    ids, raw = whole(data, teacher)
    sampler = build_sampler(chain, data, 3)
    bound = on_draws(Answers(ids, logits=raw.numpy()).fit(data, 0), sampler)
    draws = torch.arange(500) * 7
    with static_shapes(static):
        batch = sampler(draws)
        said = bound(batch)
    torch.testing.assert_close(said.parameters, teacher(batch).parameters, rtol=1e-5, atol=1e-5)


def test_an_answer_on_a_split_goes_by_the_number_in_it() -> None:
    data = classes()
    teacher = network(data)
    ids, raw = whole(data, teacher)
    stored = Answers(ids, logits=raw.numpy()).fit(data, 0)
    for part in ("train", "validation", "test"):
        split = getattr(data, part)
        batch = Batch(torch.arange(len(split)).flip(0), data.inputs(split.x).flip(0))
        torch.testing.assert_close(
            on_split(stored, part)(batch).parameters, teacher(batch).parameters
        )


# -- refusals -------------------------------------------------------------------------------------


def stored(data: Data, **changes: Any) -> StoredTeacher:
    ids, raw = whole(data, network(data))
    return Answers(**({"ids": ids, "logits": raw.numpy()} | changes)).fit(data, 0)


def test_a_batch_that_says_nothing_of_its_examples_gets_no_answer() -> None:
    data = classes()
    with pytest.raises(RecipeError, match="new examples have no answer"):
        stored(data)(Empirical(data)(torch.arange(3)))


@pytest.mark.parametrize(
    ("name", "chain"),
    [
        ("mixup", ["empirical", "mixup"]),
        ("noise", ["empirical", {"noise": {"std": 0.1}}]),
        ("mixup", {"share": {"of": 0.5, "extended": ["empirical", "mixup"]}}),
        (
            "noise",
            {"blend": {
                "a": {"weight": 1, "sampler": "empirical"},
                "b": {"weight": 1, "sampler": ["empirical", {"noise": {"std": 0.1}}]},
            }},
        ),
    ],
)  # fmt: skip
def test_a_sampler_that_makes_new_examples_is_refused_by_name(name: str, chain: Any) -> None:
    data = classes()
    with pytest.raises(RecipeError, match=f"sampler: '{name}' needs answers on new examples"):
        on_draws(stored(data), build_sampler(chain, data, 0))


def test_a_sampler_of_the_users_own_is_refused_unless_it_looks_up() -> None:
    data = classes()

    class Own:
        def __call__(self, ids: torch.Tensor) -> Batch:
            return Empirical(data)(ids)

    with pytest.raises(RecipeError, match="'Own' needs answers"):
        on_draws(stored(data), Own())


def test_uncertain_draws_are_refused() -> None:
    data = classes()
    chain = ["empirical", "uncertain"]
    teacher = stored(data)
    sampler = build_sampler(chain, data, 0, context=xcl_context(teacher))
    with pytest.raises(RecipeError, match="'uncertain' needs answers"):
        on_draws(teacher, sampler)


def xcl_context(teacher: Any) -> Any:
    from extracurricular.samplers import Context

    return Context(teacher)


def test_a_pool_whose_examples_nobody_knows_is_refused() -> None:
    data = classes()
    pool = Pool(data, data.train[:9])
    with pytest.raises(RecipeError, match="a pool whose examples have no names"):
        on_draws(stored(data), pool)


def test_missing_answers_are_counted_and_named() -> None:
    data = classes()
    ids, raw = whole(data, network(data))
    gone = [ids.index(one) for one in data.ids["train"][:7]]
    kept = [k for k in range(len(ids)) if k not in gone]
    few = {"ids": [ids[k] for k in kept], "logits": raw.numpy()[kept]}
    with pytest.raises(DataError, match=r"7 of 63 training examples have no answer.*missing: drop"):
        stored(data, **few)
    teacher = stored(data, **few, missing="drop")
    assert teacher.answered is not None
    assert len(teacher.answered) == 56
    assert "7 of 63 training examples have no answer" in teacher.notes[-1]
    # Whoever draws them all the same is told, never given another example's answer.
    with pytest.raises(TrainingError, match="NaN"):
        trained(data, teacher)
    trained(replace(data, drawn=teacher.answered), teacher)


def test_no_answer_at_all_is_refused_whatever_missing_says() -> None:
    data = classes()
    ids, _ = whole(data, network(data))
    far = [one + 10_000 for one in ids]
    with pytest.raises(DataError, match="63 of 63"):
        stored(data, ids=far, missing="drop")


def test_a_split_without_answers_says_how_many_it_lacks() -> None:
    data = classes()
    ids, raw = whole(data, network(data))
    own = set(data.ids["train"])
    kept = [k for k, one in enumerate(ids) if one in own]
    teacher = stored(data, ids=[ids[k] for k in kept], logits=raw.numpy()[kept])
    with pytest.raises(DataError, match="18 of 18 test examples have no answer"):
        on_split(teacher, "test")


def test_one_id_with_two_answers_is_refused_and_with_one_it_is_not() -> None:
    data = classes()
    ids, raw = whole(data, network(data))
    twice = np.concatenate([raw.numpy(), raw.numpy()[:1]])
    stored(data, ids=[*ids, ids[0]], logits=twice)
    twice[-1, 0] += 1e-3
    with pytest.raises(ValueError, match=r"the id is there twice, with different answers \(first"):
        stored(data, ids=[*ids, ids[0]], logits=twice)


def test_values_that_are_no_answers_are_refused_with_their_row() -> None:
    data = classes(30)
    right = np.full((30, 3), 1 / 3)
    for place, value, said in (
        ((4, 1), 0.4, r"row 4.*the probabilities sum to 1\.06667; they must sum to 1"),
        ((5, 0), np.nan, "row 5.*probabilities has nan"),
        ((6, 0), -0.1, r"row 6.*probabilities has -0\.1"),
    ):
        wrong = right.copy()
        wrong[place] = value
        with pytest.raises(ValueError, match=said):
            Answers(probabilities=wrong)
    rounded = right.round(3) * (1 + 5e-4)
    said = Answers(probabilities=rounded).fit(data, 0)
    probs = on_split(said, "train")(Batch(torch.arange(5), torch.zeros(5, 4)))
    torch.testing.assert_close(probs.probs.sum(1), torch.ones(5))  # type: ignore[attr-defined]
    for deviation in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="deviation has"):
            Answers(mean=np.zeros(30), deviation=deviation)
    with pytest.raises(ValueError, match="means alone do not say"):
        Answers(mean=np.zeros(30))
    with pytest.raises(ValueError, match="probabilities and logits is given"):
        Answers(probabilities=right, logits=right)
    with pytest.raises(ValueError, match="29 ids for 30 answers"):
        Answers(range(29), probabilities=right)


def test_answers_of_another_task_or_other_classes_are_refused() -> None:
    data = classes(30)
    with pytest.raises(ValueError, match=r"4 classes, but data 'arrays' have 3 classes"):
        Answers(logits=np.zeros((30, 4))).fit(data, 0)
    with pytest.raises(ValueError, match="1 real target, but data 'arrays' have 3 classes"):
        Answers(mean=np.zeros(30), deviation=1).fit(data, 0)
    with pytest.raises(ValueError, match="'dog' is in one of them alone"):
        Answers(logits=np.zeros((30, 3)), classes=["ant", "bee", "dog"]).fit(data, 0)
    turned = Answers(logits=np.eye(30, 3), classes=["cat", "bee", "ant"]).fit(data, 0)
    assert turned._said[0].tolist() == [0, 0, 1]


def test_data_whose_examples_have_no_ids_are_refused() -> None:
    data = replace(classes(30), ids={})
    with pytest.raises(DataError, match="the train examples of data 'arrays' have no ids"):
        Answers(logits=np.zeros((30, 3))).fit(data, 0)


def test_ids_of_another_kind_are_refused_with_the_way_out() -> None:
    data = classes(30)
    with pytest.raises(ValueError, match="known by numbers of rows, and this id is none"):
        Answers([f"c{k}" for k in range(30)], logits=np.zeros((30, 3))).fit(data, 0)
    named = replace(data, ids={k: [f"a/{i}.png" for i in v] for k, v in data.ids.items()})
    with pytest.raises(ValueError, match=r"known by names such as 'a/\d+\.png'"):
        Answers(logits=np.zeros((30, 3))).fit(named, 0)
    Answers([f"./a\\{k}.png" for k in range(30)], logits=np.zeros((30, 3))).fit(named, 0)


# -- files ----------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    kinds = np.array(CLASSES)[rng.integers(0, 3, 60)]
    frame = {"customer": [f"c{k:03d}" for k in range(60)], "w": rng.normal(size=60), "kind": kinds}
    pl.DataFrame(frame).write_csv(tmp_path / "mine.csv")
    return tmp_path / "mine.csv"


def answers_of(customers: list[str]) -> pl.DataFrame:
    rng = np.random.default_rng(2)
    probs = rng.dirichlet(np.ones(3), len(customers))
    return pl.DataFrame({"customer": customers, **dict(zip(CLASSES, probs.T, strict=True))})


@pytest.mark.parametrize("kind", ["csv", "parquet", "tsv"])
def test_a_column_of_the_table_finds_the_answers(table: Path, kind: str, tmp_path: Path) -> None:
    data = DATA.build({"table": {"path": str(table), "id": "customer"}})
    assert data.columns == ("w",)
    assert set(data.ids["train"]) <= {f"c{k:03d}" for k in range(60)}
    frame = answers_of([f"c{k:03d}" for k in range(80)]).sample(fraction=1, shuffle=True, seed=3)
    file = tmp_path / f"answers.{kind}"
    if kind == "parquet":
        frame.write_parquet(file)
    else:
        frame.write_csv(file, separator="\t" if kind == "tsv" else ",")
    given = AnswersFile(str(file), id="customer", probabilities=["cat", "ant", "bee"])
    teacher = given.fit(data, 0)
    assert "go by their names: ant = ant" in teacher.notes[0]
    said = on_split(teacher, "test")(Batch(torch.arange(len(data.test)), data.test.x))
    known = {row["customer"]: [row[name] for name in CLASSES] for row in frame.to_dicts()}
    wanted = torch.tensor([known[one] for one in data.ids["test"]])
    torch.testing.assert_close(said.probs, wanted, rtol=1e-5, atol=1e-6)  # type: ignore[attr-defined]


def test_ids_that_look_like_numbers_keep_their_zeros(tmp_path: Path) -> None:
    names = [f"{k:04d}" for k in range(40)]
    frame = {"no": names, "w": np.arange(40.0) % 7, "kind": ["a", "b"] * 20}
    pl.DataFrame(frame).write_csv(tmp_path / "mine.csv")
    data = DATA.build({"table": {"path": str(tmp_path / "mine.csv"), "id": "no"}})
    assert "0007" in {one for ids in data.ids.values() for one in ids}
    p = np.linspace(0, 1, 40)
    pl.DataFrame({"no": names, "p_a": p, "p_b": 1 - p}).write_csv(tmp_path / "answers.csv")
    AnswersFile(str(tmp_path / "answers.csv"), id="no", probabilities=["p_b", "p_a"]).fit(data, 0)


def test_ids_in_a_table_must_differ(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("who,w,y\n" + "a,1,0\nb,2,1\na,3,0\n" * 5)
    with pytest.raises(DataError, match="'who', which id names, has 'a' in several rows"):
        DATA.build({"table": {"path": str(tmp_path / "mine.csv"), "id": "who"}})


def test_arrays_in_a_file(tmp_path: Path) -> None:
    data = classes()
    ids, raw = whole(data, network(data))
    file = tmp_path / "answers.npz"
    np.savez(file, ids=ids, probabilities=raw.softmax(1).numpy())
    teacher = AnswersFile(str(file)).fit(data, 0)
    assert teacher.notes == (
        "The columns of the teacher's answers are in the order of the classes.",
    )
    np.savez(file, ids=ids, probabilities=raw.softmax(1).numpy()[:, ::-1], classes=CLASSES[::-1])
    turned = AnswersFile(str(file)).fit(data, 0)
    torch.testing.assert_close(teacher._said, turned._said)
    np.savez(file, ids=np.array(ids, dtype=object), probabilities=raw.numpy())
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        AnswersFile(str(file)).fit(data, 0)


@pytest.mark.parametrize(
    ("columns", "found", "how"),
    [
        (["p_cat", "p_ant", "p_bee"], ["p_ant", "p_bee", "p_cat"], "by their names"),
        (["cat", "bee", "ant"], ["ant", "bee", "cat"], "by their names"),
        (["p1", "p2", "p3"], ["p1", "p2", "p3"], "by their order: ant = p1"),
        ({"bee": "x", "ant": "y", "cat": "z"}, ["y", "x", "z"], ""),
    ],
)
def test_columns_are_matched_to_classes(columns: Any, found: list[str], how: str) -> None:
    own, told = matched("probabilities", columns, CLASSES)
    assert own == found
    assert how in told


def test_a_name_inside_another_is_no_doubt() -> None:
    own, _ = matched("probabilities", ["p_wild_cat", "p_cat"], ("cat", "wild_cat"))
    assert own == ["p_cat", "p_wild_cat"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["p_cat", "p_ant", "p_dog"], "'p_dog' has none of its own"),
        (["p_1", "p_2"], "there must be one column for each"),
        (["p_1", "p_1", "p_2"], "there must be one column for each"),
        ({"ant": "x", "bee": "y", "dog": "z"}, "'dog' is in one of them alone"),
    ],
)
def test_columns_that_match_half_are_refused(columns: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        matched("probabilities", columns, CLASSES)


def test_a_file_that_lacks_something_is_refused_in_a_sentence(table: Path, tmp_path: Path) -> None:
    data = DATA.build({"table": {"path": str(table), "id": "customer"}})
    file = tmp_path / "answers.csv"
    answers_of([f"c{k:03d}" for k in range(60)]).write_csv(file)
    names = list(CLASSES)
    for given, said in (
        ({"probabilities": names}, "so the answers need ids"),
        ({"id": "who", "probabilities": names}, "no column 'who'"),
        ({"id": "customer"}, "nothing says which columns are answers"),
        ({"id": "customer", "mean": "ant"}, "mean is set, but data 'mine' have classes"),
        ({"id": "customer", "probabilities": {**dict(zip(names, names, strict=True)), "ant": "x"}},
         "no column 'x'"),
    ):  # fmt: skip
        with pytest.raises((ValueError, XclError), match=said):
            AnswersFile(str(file), **given).fit(data, 0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="does not exist"):
        AnswersFile(str(tmp_path / "none.csv")).fit(data, 0)
    file.write_text(file.read_text().replace("c007,", ",", 1))
    with pytest.raises(ValueError, match="line 9: the id 'customer' is missing"):
        AnswersFile(str(file), id="customer", probabilities=names).fit(data, 0)


# -- in Python ------------------------------------------------------------------------------------


def test_distill_takes_stored_answers() -> None:
    data = classes()
    teacher = network(data)
    ids, raw = whole(data, teacher)
    given = {"student": {"mlp": {"hidden": [4]}}, "data": data, "steps": 20, "sampler": "empirical"}
    ours = xcl.distill(xcl.Answers(ids, logits=raw.numpy()), **given)
    theirs = xcl.distill(teacher, **given)
    x = data.test.x.numpy()
    np.testing.assert_allclose(ours.predict(x).probs, theirs.predict(x).probs, atol=1e-5)
    with pytest.raises(RecipeError, match="'mixup' needs answers on new examples"):
        xcl.distill(xcl.Answers(ids, logits=raw.numpy()), **(given | {"sampler": None}))
    with pytest.raises(RecipeError, match="stored answers in a list"):
        xcl.distill([xcl.Answers(ids, logits=raw.numpy()), teacher], **given)


def test_a_record_of_stored_answers_is_refused(tmp_path: Path) -> None:
    data = classes()
    with pytest.raises(ValueError, match="stored already, and need no record"):
        xcl.record(Empirical(data), stored(data), data, 10, tmp_path / "record")
