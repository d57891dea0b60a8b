"""What the report shows: its numbers, its states, and that nothing of the data gets loose in it."""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from extracurricular import report as package
from extracurricular.data.base import make_data
from extracurricular.distributions import Categorical, Gaussian
from extracurricular.errors import StorageError
from extracurricular.evaluation import metrics
from extracurricular.evaluation.summary import sentences
from extracurricular.files import read_json, read_sealed, write_json, write_sealed
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.report.collect import (
    Answers,
    Report,
    add_answers,
    collect,
    command,
    compared_student,
    shown_students,
)
from extracurricular.report.confusions import compare, confusions
from extracurricular.report.costs import latencies
from extracurricular.report.figures import Axis, Guides, Line, Row, chart, dots, log_ticks, power
from extracurricular.report.gallery import Gallery, galleries, show
from extracurricular.report.logs import _validation_error
from extracurricular.report.page import duration, environment, open_galleries, render, signed
from extracurricular.report.sections import fidelity, overview, roles
from extracurricular.report.write import fingerprint, write_report
from extracurricular.run.drawn import Drawn, shown
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run, opened
from extracurricular.samplers import Batch
from tests.conftest import image_data, small_recipe, table_data
from tests.report.made import made_report

NASTY = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', r"$\frac{ & \x00 名"]


@pytest.fixture(scope="module")
def digits(digits_run: Path) -> Report:
    return collect(open_run(digits_run))


@pytest.fixture(scope="module")
def gaze(gaze_run: Path) -> Report:
    return collect(open_run(gaze_run))


@pytest.fixture
def copy(digits_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


def snapshot(folder: Path) -> dict[Path, int]:
    return {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.name != ".lock"}


# -- what is kept of predictions ------------------------------------------------------------------


def test_answers_of_classes_give_the_figures_of_the_table() -> None:
    data = image_data(classes=4)
    torch.manual_seed(1)
    y = torch.arange(40) % 4
    prediction, teacher = Categorical(torch.randn(40, 4)), Categorical(torch.randn(40, 4))
    answers = Answers()
    add_answers(answers, prediction, y, teacher, data)
    figures = metrics.figures(prediction, y, teacher=teacher)
    assert answers.right[0].mean() == pytest.approx(figures["accuracy"])
    assert answers.kl[0].mean() == pytest.approx(figures["kl_to_teacher"], rel=1e-5)
    assert answers.confusion is not None
    assert np.trace(answers.confusion) == 40 * answers.right[0].mean()
    assert answers.confusion.sum(1).tolist() == [10, 10, 10, 10]


def test_answers_of_reals_are_in_degrees_or_deviations_of_the_target() -> None:
    data = table_data(outputs=2)
    assert data.y_scale is not None
    y = torch.zeros(3, 2)
    prediction = Gaussian(torch.ones(3, 2), torch.full((3, 2), np.log(4.0)))
    answers = Answers()
    add_answers(answers, prediction, y, None, data)
    assert answers.z[0] == pytest.approx(np.full((3, 2), 0.5))
    assert answers.error[0][0] == pytest.approx(1 / data.y_scale.scale.numpy(), rel=1e-5)
    assert answers.deviation[0] == pytest.approx(2 * answers.error[0], rel=1e-5)
    assert answers.kl == []
    x = np.zeros((4, 2), np.float32)
    gaze = make_data("g", (x, y[[0, 0, 0, 0]].numpy()), (x, y[[0, 0, 0, 0]].numpy()), angular=True)
    turned = Answers()
    add_answers(turned, prediction, y, None, gaze)
    assert turned.error[0] == pytest.approx(np.full((3, 2), 57.29578), rel=1e-5)


def test_a_point_prediction_holds_only_what_it_hits() -> None:
    answers = Answers()
    point = Gaussian.point(torch.tensor([[1.0, 2.0]]))
    add_answers(answers, point, torch.tensor([[1.0, 3.0]]), None, table_data(outputs=2))
    assert answers.z[0].tolist() == [[0.0, np.inf]]


def test_a_run_gives_the_figures_of_its_summary(digits: Report, gaze: Report) -> None:
    for name in digits.shown:
        per_seed = digits.summary["students"][name]["metrics"]["accuracy"]["per_seed"]
        assert [right.mean() for right in digits.students[name].right] == pytest.approx(per_seed)
    held = [float((z <= 1.6448536).mean()) for z in gaze.students["kd"].z]
    said = gaze.summary["students"]["kd"]["metrics"]["coverage90"]["per_seed"]
    assert held == pytest.approx(said, abs=1e-3)
    assert gaze.unit == "°"
    assert digits.classes == tuple(map(str, range(10)))


def test_a_run_that_has_just_ended_asks_nobody_again(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(read_recipe(str(copy / "recipe.yaml")), copy, {})
    run.plan.evaluation.do(run.workspace)
    summary = read_json(copy / "summary.json")

    def asked(*_: object) -> None:
        raise AssertionError("a network was asked again")

    monkeypatch.setattr(run.workspace, "predict", asked)
    found = collect(replace(run, summary=summary))
    assert len(found.students["xcl"].right) == 2
    monkeypatch.setattr("extracurricular.run.workspace._REMEMBERED_BYTES", 0)
    forgetful = opened(read_recipe(str(copy / "recipe.yaml")), copy, {})
    forgetful.plan.evaluation.do(forgetful.workspace)
    assert read_json(copy / "summary.json") == summary
    assert forgetful.workspace.answered == {}


def test_learning_curves_end_where_the_logs_do(digits: Report) -> None:
    assert set(digits.curves.losses) == {"erm", "kd", "xcl"}
    assert digits.curves.losses["kd"].x[-1] == 30
    assert digits.curves.validation == {}  # it was measured at the end alone


def test_where_the_time_went(digits: Report) -> None:
    rows = {stretch.name: stretch for stretch in digits.time}
    assert list(rows) == ["teacher", "erm", "kd", "xcl"]
    assert (rows["teacher"].count, rows["teacher"].steps) == (2, 60)
    assert (rows["xcl"].count, rows["xcl"].steps) == (2, 60)
    assert rows["xcl"].seconds is not None
    assert rows["xcl"].seconds > 0


def test_the_command_is_the_shortest_that_does_it_again(
    digits_run: Path, digits: Report, tmp_path: Path
) -> None:
    assert digits.command == "xcl run run/recipe.yaml --out again"
    recipe = read_recipe("digits")
    summary = digits.summary | {"recipe": recipe.dump()}
    small = parse_recipe(small_recipe({"digits": {}}, {"digits_cnn": {}}))
    assert command(opened(small, digits_run, summary)) == "xcl run digits --out again"


# -- which students -------------------------------------------------------------------------------


def many(errors: dict[str, float], subject: str | None = None) -> dict[str, Any]:
    students = {
        name: {"metrics": {"rmse": {"mean": error, "per_seed": [error]}}, "gap_closed": None}
        for name, error in errors.items()
    }
    roles = {"reference": "kd", "plain": "erm", "subject": subject}
    return {"recipe": roles, "students": students}


def test_of_many_students_the_baselines_and_the_best_have_curves() -> None:
    few = {"a": 3.0, "b": 2.0, "kd": 4.0}
    assert shown_students(many(few)) == ["a", "b", "kd"]
    lots = {"erm": 9.0, "c": 1.0, "kd": 8.0, **{f"s{k}": 2.0 + k for k in range(6)}}
    assert shown_students(many(lots)) == ["erm", "c", "kd", "s0", "s1", "s2"]
    assert shown_students(many(lots, "s5")) == ["erm", "c", "kd", "s0", "s1", "s5"]
    assert compared_student(many(lots, "c")) == "c"
    assert compared_student(many(lots | {"xcl": 99.0}, "xcl")) == "xcl"
    assert compared_student(many({"erm": 1.0, "x": 2.0}, "x")) is None
    assert compared_student(many({"erm": 1.0, "kd": 2.0}, "kd")) is None


def test_the_page_is_about_the_students_that_the_recipe_names() -> None:
    report = made_report()
    assert report.compared == "ours"
    assert roles(report) == {"baseline": "s0", "plain_kd": "s1", "ours": "s2"}
    found = confusions(report)
    assert found is not None
    assert (found.student, found.reference) == ("ours", "plain_kd")
    page = html.unescape(re.sub(r"<[^>]+>", "", render(report, "x")))
    page = page.replace("\N{NO-BREAK SPACE}", " ")
    closes = (
        r"ours closes \d+ % of the gap that plain_kd leaves to the teacher .*: its error rate is "
    )
    assert re.search(closes, page)
    below = r"The error rate of ours is \d+ % below that of baseline: [\d.]+ % against [\d.]+ %\."
    assert re.search(below, page)
    assert "Confusions: ours against plain_kd" in page
    assert "At 0 % a student is as good as plain_kd" in page
    assert not re.search(r"\b(kd|erm)\b", page)
    gap = next(overview(report)).svg
    assert "plain_kd" in re.findall(r'aria-label="([^"]*)"', gap)[0]
    assert "pip install torch==2.13.0 -e .  # in a clone of extracurricular 9.8" in page


def test_a_page_without_a_reference_has_no_gap_and_no_confusions() -> None:
    report = made_report({"kd": 1.0, "xcl": 2.0}, {"reference": None, "subject": "xcl"})
    page = render(report, "x")
    assert "There is no verdict: the recipe names no reference" in page
    assert "How much of the gap is closed" not in page
    assert "<h2>Confusions" not in page


def test_galleries_of_reference_and_subject_are_open() -> None:
    galleries = [Gallery([name], "", 1, []) for name in ("baseline", "plain_kd", "x", "ours")]
    report = replace(made_report(), galleries=galleries)
    assert open_galleries(report) == {1, 3}
    nobody = made_report({"kd": 1.0}, {"reference": None, "subject": None})
    assert open_galleries(replace(nobody, galleries=galleries)) == {0, 1}


def test_the_page_says_whose_curves_it_shows() -> None:
    students = {"baseline": 1.0, "plain_kd": 1.5, "ours": 1.2}
    report = made_report(students | {f"s{k}": 2.0 + k for k in range(5)})
    page = render(report, "x")
    assert "are those of 6 students: baseline, plain_kd, ours and those of least error." in page


def test_an_error_in_training_is_in_the_unit_of_the_table() -> None:
    assert _validation_error("error_rate", {"evaluation": {"accuracy": 0.75}}) == 25
    figures = {"rmse": 2.0, "angular_error": 3.0}
    assert _validation_error("angular_error", {"evaluation": figures}) == 3
    assert _validation_error("rmse", {"evaluation": None}) is _validation_error("rmse", {}) is None
    balanced = {"evaluation": {"accuracy": 0.75, "balanced_accuracy": 0.5}}
    assert _validation_error("balanced_error_rate", balanced) == 50
    # Logs from before it was measured have none.
    assert _validation_error("balanced_error_rate", {"evaluation": {"accuracy": 0.75}}) is None


@pytest.mark.parametrize("own", [[], ["erm"], ["kd"], ["erm", "kd"]])
def test_colours_differ_and_stay(digits: Report, own: list[str]) -> None:
    shown = [*own, *"abcdef"][:6]
    students = {name: {} for name in [*shown, "more"]}
    recipe = {"reference": "kd", "plain": "erm", "subject": "a"}
    summary = {"recipe": recipe, "students": students}
    colours = roles(replace(digits, shown=shown, summary=summary))
    assert [colours[name] for name in own] == [{"erm": "s0", "kd": "s1"}[name] for name in own]
    assert len({colours[name] for name in shown}) == 6
    assert colours["more"] == "other"


# -- confusions -----------------------------------------------------------------------------------


def test_confusions_are_compared_cell_by_cell() -> None:
    kd, own = np.array([[5.0, 2, 0], [0, 4, 3], [0, 0, 7]]), np.eye(3) * 7
    found = compare(("xcl", "kd"), ["a", "b", "c"], kd, own, most=16, pairs=8)
    assert (found.student, found.reference) == ("xcl", "kd")
    assert found.table == (own - kd).tolist()
    assert found.largest == 3
    assert found.pairs == [("b", "c", 3.0, 0.0), ("a", "b", 2.0, 0.0)]
    assert compare(("xcl", "kd"), ["a", "b", "c"], kd, own, most=2, pairs=1).table == []


def test_students_that_confuse_alike_are_not_compared(digits: Report) -> None:
    assert confusions(digits) is not None
    assert (
        confusions(replace(digits, students=digits.students | {"xcl": digits.students["kd"]}))
        is None
    )
    assert confusions(replace(digits, compared=None)) is None


# -- figures --------------------------------------------------------------------------------------


def parsed(svg: str) -> ET.Element:
    """An element of HTML as one of XML, which knows the prefix that HTML does without."""
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="urn:x" ', 1))


@pytest.fixture
def drawn() -> str:
    x = np.linspace(0.01, 1, 20)
    lines = [Line("s0", x, x, x / 2, x * 2), Line("teacher", x, x**2, style="both")]
    return chart("one", "what & <this>", lines, Axis(NASTY[2]), Axis("y"), Guides(diagonal=True))


def test_a_figure_is_sound_and_says_what_it_is(drawn: str) -> None:
    root = parsed(drawn)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "what & <this>"
    texts = [text.text for text in root.iter("text")]
    assert r"$\frac{ & \x00 名" in texts  # no formula


def test_colours_of_figures_are_those_of_the_page(drawn: str) -> None:
    assert "var(--s0)" in drawn
    assert "var(--teacher)" in drawn
    assert not re.search(r"#[0-9a-f]{6}\b", drawn)
    style = (Path(package.__file__).parent / "templates" / "style.css").read_text()
    for used in set(re.findall(r"var\(--(\w+)\)", drawn)):
        assert style.count(f"--{used}:") >= 2  # light and dark


def test_ids_are_unique_across_figures(drawn: str) -> None:
    other = dots("two", "", [Row("a", "s1", 0.1, None, 2.0)], Axis("x"))
    ids = re.findall(r'\bid="([^"]+)"', drawn + other)
    assert len(ids) == len(set(ids))
    used = re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", drawn + other)
    assert set(used) == set(ids)


def test_figures_come_out_the_same_whatever_the_users_settings(drawn: str) -> None:
    x = np.linspace(0.01, 1, 20)
    lines = [Line("s0", x, x, x / 2, x * 2), Line("teacher", x, x**2, style="both")]
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "svg.fonttype": "path"}):
        again = chart(
            "one", "what & <this>", lines, Axis(NASTY[2]), Axis("y"), Guides(diagonal=True)
        )
    assert again == drawn


def test_texts_of_a_figure_are_left_as_they_are() -> None:
    name = '#f1f004 id="a" 0.12345'
    svg = dots("d", "", [Row(name, "s0", 0.001, 0.001, 0.002)], Axis("x", limits=(0, 0.003)))
    texts = [text.text for text in parsed(svg).iter("text")]
    assert name[:19] + "…" in texts
    assert "0.001" in texts


def test_control_characters_do_not_reach_a_figure() -> None:
    svg = dots("d", "", [Row("a\x00\x1b\ud800b", "s0", 1.0, 1.0, 1.0)], Axis("x"))
    assert "a\ufffd\ufffd\ufffdb" in svg
    svg.encode()


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-9, 1e9), st.floats(1.001, 1e12))
def test_ticks_of_a_logarithmic_axis_lie_on_it(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert 2 <= len(ticks) <= 8
    assert all(low * 0.9 <= tick <= low * factor * 1.1 for tick in ticks)


def test_numbers_are_written_as_a_person_would() -> None:
    assert [power(v) for v in (1e-5, 0.01, 1, 20, 1e6)] == ["10⁻⁵", "0.01", "1", "20", "10⁶"]
    assert [signed(v) for v in (3.0, -0.4, 0.04, 0.0)] == ["+3", "−0.4", "", ""]
    assert [duration(v) for v in (4.25, 250, 7500)] == ["4.25 s", "4 min 10 s", "2 h 5 min"]


def with_gaps(report: Report, **gaps: tuple[float, float | None, float | None]) -> Report:
    students = {k: dict(v) for k, v in report.summary["students"].items()}
    for name, (value, low, high) in gaps.items():
        students[name]["gap_closed"] = {"value": value, "ci95": [low, high]}
    return replace(report, summary=report.summary | {"students": students})


def test_a_hopeless_student_does_not_press_the_others_into_a_corner(digits: Report) -> None:
    gap = next(overview(with_gaps(digits, erm=(-40.0, None, -20.0), xcl=(0.5, 0.2, 0.8))))
    assert "erm -4000 %, xcl 50 %" in gap.svg
    assert "beyond an edge" in gap.text
    near = next(overview(with_gaps(digits, erm=(-0.4, -0.6, -0.2), xcl=(0.5, 0.2, 0.8))))
    assert "beyond an edge" not in near.text


def test_a_gap_without_bounds_can_be_drawn(digits: Report) -> None:
    gap = next(overview(with_gaps(digits, erm=(-0.4, None, None), xcl=(0.5, None, None))))
    assert "xcl 50 %" in gap.svg


def test_a_network_that_gives_nan_does_not_stop_the_page(digits: Report, gaze: Report) -> None:
    for report, size in ((digits, 10), (gaze, 2)):
        data = image_data(classes=10) if size == 10 else table_data(outputs=2)
        count = len(report.teacher_entropy[0])
        broken = Answers()
        bad = torch.full((count, size), torch.nan)
        for _ in report.teacher_entropy:
            if size == 10:
                prediction = Categorical(bad)
                y = torch.zeros(count, dtype=torch.int64)
                add_answers(broken, prediction, y, prediction, data)
            else:
                add_answers(
                    broken, Gaussian(bad, bad), torch.zeros(count, 2), Gaussian(bad, bad), data
                )
        changed = replace(report, students=report.students | {"xcl": broken})
        assert "<svg" in render(changed, "x")


def test_alternative_texts_tell_the_figures(digits: Report) -> None:
    agreement = next(fidelity(digits))
    mean = digits.summary["students"]["kd"]["metrics"]["agreement"]["mean"]
    assert f"kd {100 * mean:.1f} %" in agreement.svg


# -- draws ----------------------------------------------------------------------------------------


def test_draws_are_those_of_the_training_the_least_certain_first(digits_run: Path) -> None:
    found = galleries(open_run(digits_run))
    assert [g.students for g in found] == [["erm", "kd"], ["xcl"]]
    assert found[1].sampler == "[empirical, {mixup: {alpha: 1.0}}]"
    for gallery in found:
        entropies = [draw.entropy for draw in gallery.draws]
        assert entropies == sorted(entropies, reverse=True)
        assert sorted(draw.id for draw in gallery.draws) == [960 * k // 36 for k in range(36)]
        assert gallery.ids == 960
        assert gallery.size == (8, 8)
        for draw in gallery.draws:
            assert draw.picture is not None
            assert draw.picture.startswith("data:image/png;base64,")
            assert len(draw.said) == 3


def test_pictures_are_the_draws(digits_run: Path) -> None:
    finished = open_run(digits_run)
    gallery = galleries(finished)[0]
    stage = finished.stage("kd", 0)
    for draw in gallery.draws[:4]:
        batch = stage.draws(finished.workspace)(torch.tensor([draw.id]))
        assert isinstance(batch.x, torch.Tensor)
        scale = finished.data.x_scale[""]
        raw = (batch.x[0] * scale.scale + scale.shift).round()
        assert draw.picture is not None
        content = base64.b64decode(draw.picture.partition(",")[2])
        seen = torch.from_numpy(np.array(Image.open(io.BytesIO(content))))
        assert torch.equal(seen, raw[0].clamp(0, 255).to(torch.uint8))


def test_draws_of_two_inputs_show_the_image_and_both_targets(gaze_run: Path) -> None:
    draw = galleries(open_run(gaze_run))[0].draws[0]
    assert [name for name, _ in draw.said] == ["pitch", "yaw"]
    assert re.fullmatch(r"-?[\d.]+° ± [\d.]+°", draw.said[0][1])
    assert draw.picture is not None


def test_large_pictures_are_made_small() -> None:
    data = image_data(count=40, size=200, channels=3)
    batch = Batch(torch.arange(2), data.inputs(data.train.x[:2]))  # type: ignore[index]
    drawn = shown(Drawn(["kd"], "", 2), data, batch, Categorical(torch.zeros(2, 4)))
    assert drawn.tensors["pixels"].shape == (2, 3, 64, 64)
    found = show(drawn, data)
    assert found.size == (64, 64)
    assert found.draws[0].picture is not None
    assert found.draws[0].picture.startswith("data:image/jpeg")
    assert len(found.draws[0].picture) < 8000


def test_a_record_that_is_gone_leaves_a_sentence(tmp_path: Path) -> None:
    model = {"digits_cnn": {"width": 2}}
    recipe = small_recipe({"digits": {"train": 60, "validation": 20}}, model, seeds=[0])
    recipe["teacher"] |= {"record": {"draws": 64}}
    for section in (recipe["teacher"], recipe["defaults"]):
        section["training"] = section["training"] | {"steps": 2}
    execute(parse_recipe(recipe), tmp_path)
    labels, kd, _ = galleries(open_run(tmp_path))
    assert (labels.students, kd.students) == (["erm"], ["kd"])
    assert len(kd.draws) == 36
    assert "of the record" in kd.note
    shutil.rmtree(tmp_path / "knowledge")
    assert galleries(open_run(tmp_path))[1] == kd
    (tmp_path / "draws.json").unlink()
    labels, kd, _ = galleries(open_run(tmp_path))
    assert len(labels.draws) == 36
    assert kd.draws == []
    assert kd.note.startswith("They cannot be drawn again: ")
    times = {s.name: s.seconds for s in collect(open_run(tmp_path)).time}
    assert times["recording the teacher"] is None


# -- the page -------------------------------------------------------------------------------------


def test_the_verdict_is_that_of_the_summary(digits_run: Path, tmp_path: Path) -> None:
    finished = open_run(digits_run)
    write_report(finished, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    block = page[page.index('<div class="verdict">') : page.index("<nav")]
    text = html.unescape(re.sub(r"<[^>]+>", "", block)).replace("\N{NO-BREAK SPACE}", " ")
    told = sentences(finished.summary)
    assert told
    for sentence in told:
        assert sentence.text in text
    gap = finished.summary["students"]["xcl"]["gap_closed"]
    if gap is not None:
        assert ("xcl closes " in text) == (gap["value"] > 0)
        assert ("xcl is worse than kd" in text) == (gap["value"] < 0)


def test_the_page_is_one_small_file_without_scripts(digits_run: Path, tmp_path: Path) -> None:
    write_report(open_run(digits_run), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert len(page) < 500_000
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert not re.search(r"url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for anchor in re.findall(r'<a href="#(\w+)"', page):
        assert anchor in ids
    for word in ("warmup: 0", "xcl run run/recipe.yaml", torch.__version__.partition("+")[0]):
        assert word in page


def test_a_run_of_real_targets_has_its_own_figures(gaze_run: Path, tmp_path: Path) -> None:
    write_report(open_run(gaze_run), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "Do intervals hold the truth?" in page
    assert "Error against predicted deviation" in page
    assert "Confusions" not in page


@pytest.fixture(scope="module")
def nasty_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose columns and classes, and a recipe whose name, would do harm if they could."""
    folder = tmp_path_factory.mktemp("nasty")
    rng = np.random.default_rng(0)
    columns = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name in NASTY]
    rows = [",".join([*columns, "y"])]
    for k in range(120):
        label = NASTY[k % 3].replace('"', '""')
        values = rng.normal(k % 3, 1, 3)
        rows.append(",".join([*(f"{v:.4f}" for v in values), f'"{label}"']))
    (folder / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    data = {"table": {"path": str(folder / "t.csv")}}
    recipe = small_recipe(
        data, {"mlp": {"hidden": [4]}}, name=NASTY[0].replace("/", ""), about=NASTY[1], seeds=[0]
    )
    for section in (recipe["teacher"], recipe["defaults"]):
        section["training"] = section["training"] | {"steps": 3}
    execute(parse_recipe(recipe), folder / "run")
    return folder / "run"


def test_names_from_data_are_escaped(nasty_run: Path) -> None:
    write_report(open_run(nasty_run))
    page = (nasty_run / "report.html").read_text()
    assert "<script" not in page
    assert "<img" not in page  # the draws are rows of values
    assert "onerror=alert(1)&gt;" in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert r"$\frac{ &amp; \x00 名" in page


def test_names_are_escaped_beside_pictures_too() -> None:
    data = make_data(
        "d",
        (np.zeros((6, 1, 4, 4), np.uint8), np.arange(6) % 3),
        (np.zeros((6, 1, 4, 4), np.uint8), np.arange(6) % 3),
        classes=NASTY,
    )
    batch = Batch(torch.arange(2), data.inputs(data.train.x[:2]))  # type: ignore[index]
    gallery = show(shown(Drawn(["kd"], "", 2), data, batch, Categorical(torch.eye(3)[:2])), data)
    template = environment().get_template("macros.html.j2")
    said = str(template.module.draw(gallery.draws[0], gallery))  # type: ignore[attr-defined]
    assert "<script" not in said
    assert said.count("<img") == 1


# -- when it is made ------------------------------------------------------------------------------


def test_it_is_made_again_only_when_the_run_has_changed(copy: Path) -> None:
    finished = open_run(copy)
    assert write_report(finished, again=False)
    before = snapshot(copy)
    assert not write_report(finished, again=False)
    # Made again, it has nothing new to say, so the file stays as it is.
    assert write_report(open_run(copy))
    assert snapshot(copy) == before
    stage = copy / "students/kd/seed-0/stage.json"
    write_sealed(stage, read_sealed(stage) | {"seconds": 99.0})
    assert write_report(open_run(copy), again=False)
    assert "report.html" in {f.name for f, at in snapshot(copy).items() if before.get(f) != at}


def test_the_fingerprint_is_that_of_the_run(copy: Path, digits_run: Path) -> None:
    one = fingerprint(open_run(copy))
    assert one == fingerprint(open_run(digits_run))
    (copy / "stage.json").unlink()  # as before there were checksums
    summary = read_json(copy / "summary.json")
    summary["students"]["kd"]["metrics"]["nll"]["mean"] = 7.0
    write_json(copy / "summary.json", summary)
    assert fingerprint(open_run(copy)) != one


def test_times_are_measured_once_for_each_network(copy: Path) -> None:
    (copy / "latency.json").unlink(missing_ok=True)
    finished = open_run(copy)
    found = latencies(finished, seconds=0.01)
    assert set(found["students"]) == {"erm", "kd", "xcl"}
    assert all(times["1"] > 0 for times in (found["teacher"], *found["students"].values()))
    assert latencies(finished, seconds=0.01) == found
    (copy / "latency.json").write_text("{")
    assert latencies(finished, seconds=0.01)["of"] == found["of"]
    assert read_json(copy / "latency.json")["schema"] == 1


def test_a_run_from_before_versions_were_kept_says_so(copy: Path) -> None:
    (copy / "environment.json").unlink()
    page = render(collect(open_run(copy)), "x")
    assert "from before versions and hardware were kept" in page


def test_a_recipe_that_was_changed_since_is_a_half_finished_run(copy: Path) -> None:
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    recipe["students"]["more"] = recipe["students"]["kd"]
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(StorageError, match=r"is not finished: its recipe\.yaml is not the recipe"):
        open_run(copy)


def test_damaged_answers_of_a_student_are_named(copy: Path) -> None:
    (copy / "students/xcl/seed-1/weights.safetensors").unlink()  # no network is asked
    write_report(open_run(copy))
    (copy / "students/xcl/seed-1/answers.safetensors").write_bytes(b"cut")
    with pytest.raises(StorageError, match=r"xcl/seed-1/answers\.safetensors' is damaged"):
        write_report(open_run(copy))
