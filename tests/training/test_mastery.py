"""Mastery of the stored examples, and the share of draws that follows it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from extracurricular import distill
from extracurricular.data.base import Data
from extracurricular.errors import RecipeError
from extracurricular.files import read_lines
from extracurricular.inputs import Batch, static_shapes
from extracurricular.matching import Matching
from extracurricular.models import build_model
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute
from extracurricular.samplers import Empirical, Mixup, build_sampler
from extracurricular.teachers import Network
from extracurricular.training import (
    Execution,
    Mastery,
    Schedule,
    Training,
    cpu_fabric,
    launch,
    mastery_of,
    train,
)
from extracurricular.training import mastery as the_mastery
from extracurricular.training import steps as the_steps
from extracurricular.training.mastery import (
    EARLY,
    HIGH,
    LOW,
    MARGIN,
    MOST,
    STRIDE,
    held_out_rows,
    mastery_with_error,
    share_of,
)
from tests.conftest import image_data, small_teacher
from tests.run.test_run import TINY, without_seconds
from tests.training.tape import TapeGraph

IMAGES = image_data(count=200)
CHAIN = [{"share": {"extended": ["empirical", {"mixup": {"alpha": 1.0}}]}}]


def settings(**changes: Any) -> Training:
    return Training(**{"steps": 320, "batch_size": 8, "lr": 0.02, "checkpoint_every": 50} | changes)


def student(data: Data = IMAGES, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model({"mlp": {"hidden": [16]}}, inputs=data.shapes, outputs=data.task.outputs)


def trained(
    folder: Path | None = None, chain: Any = CHAIN, stop: int | None = None, **more: Any
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    data, teacher = more.pop("data", IMAGES), small_teacher(IMAGES)
    own = more.pop("settings", settings())
    network, lines = student(), list[dict[str, Any]]()
    mastery = mastery_of(
        chain, data, teacher, own, cpu_fabric(), seed=5, part=more.pop("part", None)
    )

    def progress(step: int, _: float) -> None:
        if stop is not None and step >= stop:
            raise KeyboardInterrupt

    try:
        train(
            network, build_sampler(chain, data, 5), teacher, data.task, settings=own,
            folder=folder, mastery=mastery, on_log=lines.append, on_progress=progress, **more,
        )  # fmt: skip
    except KeyboardInterrupt:
        assert stop is not None
    return network.state_dict(), lines


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def test_the_rule_rises_from_low_to_high_in_steps_of_a_64th() -> None:
    assert share_of(-1.0) == share_of(LOW) == 0
    assert share_of(HIGH) == share_of(1.0) == 1
    assert share_of((LOW + HIGH) / 2) == 0.5
    found = [share_of(LOW + (HIGH - LOW) * k / 1000) for k in range(1001)]
    assert found == sorted(found)
    assert all((64 * share).is_integer() for share in found)


def test_the_error_of_mastery_is_that_of_a_ratio_of_means() -> None:
    """Against the spread of m over ten thousand made samples of the same sizes."""
    generator = torch.Generator().manual_seed(0)

    def made(count: int, mean: float, times: int) -> Tensor:
        spread = torch.randn(times, count, generator=generator, dtype=torch.float64)
        return mean * (0.8 * spread - 0.32).exp()

    drawn, held_out = made(512, 0.6, 10_000), made(64, 1.0, 10_000)
    spread = float((1 - drawn.mean(1) / held_out.mean(1)).std())
    found = [mastery_with_error(d, h) for d, h in zip(drawn[:500], held_out[:500], strict=True)]
    assert sum(m for m, _ in found) / 500 == pytest.approx(0.4, abs=0.02)
    assert sum(error for _, error in found) / 500 == pytest.approx(spread, rel=0.1)


def test_too_few_or_too_wild_examples_say_nothing_of_mastery() -> None:
    one, many = torch.tensor([1.0]).double(), torch.tensor([0.1, 0.2]).double()
    assert mastery_with_error(many, one) == (pytest.approx(0.85), 1.0)
    m, error = mastery_with_error(torch.tensor([1e6, 0.0]).double(), many)
    assert (m, error) == (-1.0, 1.0)
    assert mastery_with_error(0 * many, 0 * many) == (1.0, 0.0)


def test_the_share_follows_a_bound_below_mastery(monkeypatch: pytest.MonkeyPatch) -> None:
    found = mastery_of(CHAIN, IMAGES, small_teacher(IMAGES), settings(), cpu_fabric(), seed=5)
    assert found is not None
    shares = []
    for error in (0.0, 0.1, 1.0):
        monkeypatch.setattr(the_mastery, "mastery_with_error", lambda *_, e=error: (0.6, e))
        line = found.measure(student().eval(), IMAGES.task, cpu_fabric(), STRIDE)
        assert line["share"] == share_of(line["mastery"] - MARGIN * error)
        shares.append(line["share"])
        found.restore({"mastery": 0.0, "share": 0.0, "last": None})
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1] == 0


def test_held_out_rows_are_a_part_of_the_examples() -> None:
    out, drawn = held_out_rows(300, 0.1, seed=0)
    assert len(out) == 30
    assert sorted([*out.tolist(), *drawn.tolist()]) == list(range(300))
    assert not torch.equal(out, held_out_rows(300, 0.1, seed=1)[0])
    assert len(held_out_rows(50_000, 0.1, seed=0)[0]) == MOST
    assert len(held_out_rows(3, 0.1, seed=0)[0]) == 1
    with pytest.raises(ValueError, match="some must be left to draw"):
        held_out_rows(1, 0.1, seed=0)


def test_the_mastery_that_is_logged_is_that_of_the_student_at_that_step() -> None:
    """Made again by hand, from a student that is stopped there."""
    own, teacher = settings(), small_teacher(IMAGES)
    mastery = mastery_of(CHAIN, IMAGES, teacher, own, cpu_fabric(), seed=5)
    assert mastery is not None
    assert mastery.every == STRIDE
    assert mastery.until == 96
    state, lines = trained(stop=STRIDE)
    network = student()
    network.load_state_dict(state)
    network.eval()
    found = {}
    for name, known in (("drawn", mastery.drawn), ("held_out", mastery.held_out)):
        with torch.no_grad():
            said = IMAGES.task.distribution(network(known.batch.x))
        wanted = teacher(known.batch)
        assert torch.allclose(wanted.parameters, known.target.parameters, atol=1e-6)
        found[name] = float(wanted.kl(said).mean())  # type: ignore[arg-type]
    line = next(line["mastery"] for line in lines if "mastery" in line)
    assert line["drawn"] == pytest.approx(found["drawn"], abs=1e-5)
    assert line["held_out"] == pytest.approx(found["held_out"], abs=1e-5)
    m = 1 - found["drawn"] / found["held_out"]
    assert line["mastery"] == pytest.approx(0.5 * m, abs=1e-5)
    assert not set(mastery.held_out.batch.ids.tolist()) & set(mastery.drawn.batch.ids.tolist())


def test_held_out_examples_are_drawn_only_after_the_measuring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[tuple[int, bool]] = []
    inner = Empirical.index

    def index(self: Empirical, ids: Tensor) -> Tensor:
        found = inner(self, ids)
        rows.extend((row, self.data.drawn is None) for row in found.tolist())
        return found

    out, _ = held_out_rows(len(IMAGES.train), EARLY, 5)
    monkeypatch.setattr(Empirical, "index", index)
    _, lines = trained()
    early = {row for row, late in rows if not late}
    assert not early & set(out.tolist())
    assert set(out.tolist()) <= {row for row, late in rows if late}
    measured = [line["step"] for line in lines if "mastery" in line]
    assert measured == list(range(16, 97, 16))
    shares = [line["mastery"]["share"] for line in lines if "mastery" in line]
    assert all((64 * share).is_integer() for share in shares)


@pytest.mark.parametrize("stop", [16, 40, 96, 113, 300])
def test_an_interrupted_training_has_the_same_shares_and_weights(stop: int, tmp_path: Path) -> None:
    whole, lines = trained()
    trained(tmp_path, stop=stop)
    rest, _ = trained(tmp_path)
    assert same(whole, rest)
    kept = [line for line in read_lines(tmp_path / "log.jsonl") if "mastery" in line]
    assert [line["mastery"] for line in kept] == [
        line["mastery"] for line in lines if "mastery" in line
    ]


def test_captured_steps_follow_the_same_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    monkeypatch.setattr(the_steps, "Schedule", lambda settings, _: Schedule(settings, device))
    monkeypatch.setattr(launch, "has_graphs", lambda device: True)
    monkeypatch.setattr(launch, "new_graph", TapeGraph)
    with static_shapes():
        eager, lines = trained(execution=Execution(capture="off"))
        captured, others = trained(execution=Execution(capture="auto"))
    assert TapeGraph.replays > 300
    assert same(eager, captured)
    assert [a.get("mastery") for a in lines] == [b.get("mastery") for b in others]
    assert max(line["mastery"]["share"] for line in lines if "mastery" in line) > 0


@pytest.mark.parametrize("script", [[0.0] * 6, [0.0, 0.5, 1.0, 1.0, 0.5, 0.0], [1.0] * 6])
def test_only_the_sides_of_a_share_that_are_wanted_are_drawn(
    script: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the share is 0 or 1, a masked selection would make the other side's draws in vain."""
    device = torch.device("cpu")
    monkeypatch.setattr(the_steps, "Schedule", lambda settings, _: Schedule(settings, device))
    monkeypatch.setattr(launch, "has_graphs", lambda device: True)
    monkeypatch.setattr(launch, "new_graph", TapeGraph)
    calls: list[int] = []
    inner = Mixup.__call__

    def counted(self: Mixup, ids: Tensor) -> Batch:
        calls.append(len(ids))
        return inner(self, ids)

    monkeypatch.setattr(Mixup, "__call__", counted)
    found = []
    for static, capture in ((None, "off"), (True, "off"), (True, "auto")):
        shares = iter(script)
        monkeypatch.setattr(the_mastery, "share_of", lambda _, shares=shares: next(shares))
        calls.clear()
        with static_shapes(static) if static else nullcontext():
            found.append(trained(execution=Execution(capture=capture)))
        if static:
            assert bool(calls) == any(script)
    for weights, lines in found[1:]:
        assert [line["loss"] for line in lines] == [line["loss"] for line in found[0][1]]
        assert same(found[0][0], weights)
    assert [a["mastery"]["share"] for a in found[0][1] if "mastery" in a] == script


def test_kd_can_be_watched_and_its_answers_stay_with_their_examples() -> None:
    """Remembered answers go by the order of the draws, which is another without some examples."""
    data = replace(IMAGES, train=IMAGES.train[:60])
    _, lines = trained(
        chain=["empirical"], part=0.2, data=data,
        settings=settings(steps=800, optimizer="adamw", lr=0.01),
    )  # fmt: skip
    found = [line["mastery"] for line in lines if "mastery" in line]
    assert len(found) == 800 // STRIDE
    assert found[-1]["drawn"] < 0.2 * found[0]["drawn"]
    assert found[-1]["mastery"] > 0.3
    assert "share" not in found[-1]


def test_a_share_of_nothing_is_kd_to_the_last_bit_of_its_draws() -> None:
    """Where nothing is mastered, the draws are the plain ones."""
    own = settings(steps=64)
    network = student()
    chain = [{"share": {"of": 0.0, "extended": ["empirical", "mixup"]}}]
    sampler = build_sampler(chain, IMAGES, 5)
    train(network, sampler, small_teacher(IMAGES), IMAGES.task, settings=own)
    plain = student()
    inner = sampler.plain  # type: ignore[attr-defined]
    train(plain, inner, small_teacher(IMAGES), IMAGES.task, settings=own)
    for a, b in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_share_without_mastery_is_refused() -> None:
    sampler = build_sampler(CHAIN, IMAGES, 5)
    with pytest.raises(ValueError, match="no mastery is measured"):
        train(student(), sampler, small_teacher(IMAGES), IMAGES.task, settings=settings())


# Runs


def recipe(**changes: Any) -> dict[str, Any]:
    own = yaml.safe_load(yaml.safe_dump(TINY))
    own["students"] = {
        "erm": {"learns_from": "labels"},
        "kd": {"mastery": {"held_out": 0.2}},
        "xcl": {"sampler": CHAIN},
    }
    own["students"]["xcl"] |= changes
    return dict(own)


def test_a_run_keeps_mastery_in_log_and_stage(tmp_path: Path) -> None:
    for jobs in (1, 2):
        execute(parse_recipe(recipe(training={"steps": 160})), tmp_path / str(jobs), jobs=jobs)
    summaries = [
        without_seconds(execute(parse_recipe(recipe(training={"steps": 160})), tmp_path / j))
        for j in "12"
    ]
    assert summaries[0] == summaries[1]
    lines = list(read_lines(tmp_path / "1" / "students" / "xcl" / "seed-0" / "log.jsonl"))
    assert [line["step"] for line in lines if "mastery" in line] == [16, 32, 48]


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"learns_from": "labels"}, "students.xcl.sampler", "but it learns from labels"),
        ({"mastery": {"held_out": 1.5}}, "students.xcl.mastery.held_out", "less than 1"),
        ({"mastery": {"held": 0.5}}, "students.xcl.mastery", "unknown key"),
    ],
)
def test_a_mastery_that_cannot_be_measured_is_refused(
    changes: dict[str, Any], key: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        execute(parse_recipe(recipe(**changes)), tmp_path)
    assert key in str(caught.value)
    assert said in str(caught.value)


def test_mastery_alone_does_not_go_with_a_record(tmp_path: Path) -> None:
    own = recipe(sampler=["empirical"], mastery={"held_out": 0.1})
    own["teacher"] = {**own["teacher"], "record": {"draws": 64}}
    with pytest.raises(RecipeError, match=r"set teacher\.record to null"):
        execute(parse_recipe(own), tmp_path)


def test_distill_follows_mastery_unless_told_otherwise(tmp_path: Path) -> None:
    teacher = Network(student(seed=9).eval(), IMAGES.task)
    distill(teacher, {"mlp": {"hidden": [8]}}, IMAGES, steps=320, out=tmp_path / "a")
    lines = list(read_lines(tmp_path / "a" / "log.jsonl"))
    assert any("share" in line.get("mastery", {}) for line in lines)
    distill(
        teacher,
        {"mlp": {"hidden": [8]}},
        IMAGES,
        steps=32,
        sampler=["empirical"],
        out=tmp_path / "b",
    )
    assert all("mastery" not in line for line in read_lines(tmp_path / "b" / "log.jsonl"))


def test_matching_at_a_temperature_measures_at_it() -> None:
    own = settings()
    fabric, teacher = cpu_fabric(), small_teacher(IMAGES)
    found = [
        mastery_of(CHAIN, IMAGES, teacher, own, fabric, seed=5, temperature=t) for t in (1.0, 4.0)
    ]
    network = student().eval()
    cold, hot = (
        one.measure(network, IMAGES.task, fabric, 16)["drawn"]
        for one in found
        if isinstance(one, Mastery)
    )
    assert hot < cold
    assert Matching(temperature=4.0).temperature == 4.0
