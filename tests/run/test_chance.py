"""A teacher from elsewhere that is no better than chance is told of, with what would mend it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from extracurricular.data.base import Data
from extracurricular.distributions import Categorical, Distribution
from extracurricular.errors import RecipeError
from extracurricular.inputs import Batch
from extracurricular.models import build_model
from extracurricular.recipe.read import read_recipe
from extracurricular.run.chance import best_order, counts, sentence
from extracurricular.run.execute import execute
from extracurricular.run.watcher import Silent
from extracurricular.teachers.order import reordered
from tests.conftest import image_data


class Knows:
    """Gives class ``order[y]`` for an example of class y, on a part of the examples."""

    def __init__(self, data: Data, order: list[int], share: float = 1.0) -> None:
        self.labels = {tuple(x.flatten().tolist()): int(y) for x, y in
                       zip(data.inputs(data.validation.x), data.validation.y, strict=True)}  # type: ignore[arg-type]  # fmt: skip
        self.order, self.share = order, share

    def __call__(self, batch: Batch) -> Distribution:
        assert isinstance(batch.x, torch.Tensor)
        y = torch.tensor([self.labels[tuple(x.flatten().tolist())] for x in batch.x])
        guess = torch.tensor(self.order)[y]
        guess = torch.where(torch.arange(len(y)) < self.share * len(y), guess, 0)
        return Categorical(5.0 * nn.functional.one_hot(guess, 4).float())


def data() -> Data:
    found = image_data()
    y = torch.arange(80) % 4
    x = torch.randint(0, 255, (80, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    split = replace(found.validation, x=x.to(torch.uint8), y=y)
    return replace(found, validation=split, classes=("ant", "bee", "cat", "dog"))


def test_the_order_that_would_mend_a_teacher_is_given() -> None:
    known = data()
    order = [2, 0, 3, 1]
    said = sentence(Knows(known, order), known)
    assert said is not None
    assert "right on 0.0 % of 80 validation examples" in said
    assert "always giving one class is right on 25.0 %" in said
    assert "would be right on 100.0 %" in said
    # The teacher's output 2 stands for the ant, and so on.
    given = ["bee", "dog", "ant", "cat"]
    assert f"set teacher.classes to [{', '.join(given)}]" in said
    mended = reordered(Knows(known, order), given, known)
    assert sentence(mended, known) is None
    # A wrong order that was given already is mended in the teacher's own order too.
    again = sentence(reordered(Knows(known, order), ["dog", "bee", "ant", "cat"], known), known)
    assert again is not None
    assert f"[{', '.join(given)}]" in again


def test_a_good_teacher_is_not_told_of_and_a_poor_one_without_a_remedy() -> None:
    known = data()
    assert sentence(Knows(known, [0, 1, 2, 3]), known) is None
    poor = sentence(Knows(known, [1, 1, 1, 1]), known)
    assert poor is not None
    assert "25.0 %" in poor
    assert "another order" not in poor
    assert "its inputs or its scale" in poor
    # Two classes of four exchanged: better than chance, and still better otherwise.
    partly = sentence(Knows(known, [0, 1, 3, 2]), known)
    assert partly is not None
    assert "set teacher.classes to [ant, bee, dog, cat]" in partly
    few = replace(known, validation=known.validation[:0], train=known.train[:5])
    assert sentence(Knows(known, [1, 0, 3, 2]), few) is None


def test_the_assignment_is_the_best_of_all() -> None:
    from itertools import permutations

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        guess, y = torch.randint(0, 4, (2, 30), generator=generator)
        confusion = counts(guess, y, 4)
        assert int(confusion.sum()) == 30
        assert int(confusion[2, 1]) == int(((guess == 2) & (y == 1)).sum())
        columns = torch.arange(4)
        best = max(int(confusion[list(one), columns].sum()) for one in permutations(range(4)))
        assert int(confusion[best_order(confusion), columns].sum()) == best


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def tell(self, text: str) -> None:
        self.said.append(text)

    def begin(self, title: str, steps: int) -> None:
        self.said.append(f"begin {title}")


def recipe(tmp_path: Path, **teacher: Any) -> Any:
    text = {
        "schema": 1, "name": "r", "data": {"digits": {"train": 60, "validation": 60}},
        "device": {"accelerator": "cpu"}, "keep": 0,
        "teacher": {"model": {"mlp": {"hidden": [16]}}, **teacher},
        "students": {"kd": {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": 2}}},
    }  # fmt: skip
    import yaml

    (tmp_path / "r.yaml").write_text(yaml.safe_dump(text))
    return read_recipe(str(tmp_path / "r.yaml"))


def test_a_run_tells_it_before_a_student_is_trained_and_takes_the_order(tmp_path: Path) -> None:
    first = Notes()
    execute(recipe(tmp_path, training={"steps": 150, "lr": 0.01}), tmp_path / "first", first)
    from safetensors.torch import load_file

    file = tmp_path / "first/teacher/shared/member-0/weights.safetensors"
    state = load_file(file)
    order = [4, 1, 0, 2, 3, 9, 8, 7, 6, 5]
    last = list(state)[-2:] if "bias" in list(state)[-1] else list(state)[-1:]
    shifted = {k: v[order] if v.shape[:1] == (10,) else v for k, v in state.items()}
    assert last
    torch.save({"state_dict": {f"model.{k}": v for k, v in shifted.items()}}, tmp_path / "w.ckpt")
    weights = {"weights": str(tmp_path / "w.ckpt")}
    told = Notes()
    execute(recipe(tmp_path, **weights), tmp_path / "second", told)
    [place] = [k for k, text in enumerate(told.said) if "set teacher.classes to" in text]
    assert "[4, 1, 0, 2, 3, 9, 8, 7, 6, 5]" in told.said[place]
    assert place < told.said.index("begin kd, seed 0")
    assert any("the prefix 'model.'" in text for text in told.said)
    mended = Notes()
    found = execute(recipe(tmp_path, **weights, classes=order), tmp_path / "third", mended)
    assert not any("teacher.classes" in text for text in mended.said)
    whole = execute(recipe(tmp_path, training={"steps": 150, "lr": 0.01}), tmp_path / "first")
    accuracy = [one["teacher"]["metrics"]["accuracy"]["mean"] for one in (found, whole)]
    assert accuracy[0] == pytest.approx(accuracy[1])


def test_classes_are_for_teachers_from_elsewhere(tmp_path: Path) -> None:
    for teacher, words in (
        ({"classes": [1, 0]}, "trained here"),
        ({"model": None, "estimator": "random_forest", "classes": [1, 0]}, "is for weights, onnx"),
        ({"key": "model_ema"}, "key is 'model_ema', but weights"),
    ):
        with pytest.raises(RecipeError, match=words):
            recipe(tmp_path, **teacher)
    torch.save(build_model({"mlp": {"hidden": [16]}}, inputs=(1, 8, 8), outputs=10).state_dict(),
               tmp_path / "w.pth")  # fmt: skip
    wrong = recipe(tmp_path, weights=str(tmp_path / "w.pth"), classes=["a", "b"])
    with pytest.raises(RecipeError, match=r"teacher.classes: lacks '0', '1', .* and has 'a', 'b'"):
        execute(wrong, tmp_path / "out")
