"""The table, the sentences and the page of a sweep, from figures made by hand."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console

from extracurricular.report.sweep import PAGE, plots, render_sweep, write_sweep
from extracurricular.report.sweep_table import (
    headings,
    lines,
    sentences,
    sweep_table,
    to_the_best,
)

T, LR = "students.xcl.matching.temperature", "students.xcl.training.lr"


def figure(values: list[float]) -> dict[str, Any]:
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "per_seed": values,
    }


def swept(
    accuracy: dict[tuple[float, float], list[float]], stopped: tuple[float, float] | None = None
) -> dict[str, Any]:
    """A sweep over temperature and rate, as ``sweep.json`` holds it."""
    runs, rows = [], []
    for (temperature, rate), values in accuracy.items():
        texts = {T: f"{temperature:g}", LR: f"{rate:g}"}
        label = f"temperature={texts[T]}, lr={texts[LR]}"
        combination = {"values": {T: temperature, LR: rate}, "folder": f"runs/{label}"}
        runs.append({**combination, "texts": texts})
        short = (temperature, rate) == stopped
        figures = {"accuracy": figure(values), "nll": figure([1 - v for v in values])}
        rows.append(
            {
                "values": combination["values"],
                "label": label,
                "student": "xcl",
                "run": f"rungs/0.25/{label}" if short else f"runs/{label}",
                "part": 0.25 if short else 1.0,
                "best": False,
                "stopped": short,
                "measure": "error_rate",
                "error": 1 - figures["accuracy"]["mean"],
                "figures": figures,
                "steps": 25 if short else 100,
                "seconds": 1.0,
                "parameters": 1180,
                "multiply_adds": None,
            }
        )
    rows.sort(key=lambda row: (row["stopped"], row["error"]))
    rows[0] |= {"best": True, "test": {"accuracy": figure([0.5, 0.52])}}
    return {
        "schema": 1,
        "name": "made <b>up</b>",
        "about": "",
        "keys": [T, LR],
        "names": {T: "temperature", LR: "lr"},
        "students": ["xcl"],
        "seeds": list(range(len(next(iter(accuracy.values()))))),
        "split": "test",
        "runs": runs,
        "measure": "error_rate",
        "rows": rows,
        "rungs": [],
        "shared": [
            {"part": "teacher", "stages": 4, "done": 1, "seconds": 40.0, "took": 10.0},
            {"part": "xcl", "stages": 8, "done": 8, "seconds": 8.0, "took": 8.0},
        ],
        "seconds": 18.0,
    }


FOUR = {
    (1.0, 0.1): [0.80, 0.81],
    (2.0, 0.1): [0.90, 0.92],
    (4.0, 0.1): [0.901, 0.905],
    (2.0, 0.3): [0.70, 0.72],
}


def test_the_best_is_told_by_validation_with_its_test_figure_alone() -> None:
    first, *rest = sentences(swept(FOUR))
    assert first == (
        "temperature=2, lr=0.1 is best by validation: xcl has accuracy 91.00 ± 1.41 % there, and "
        "51.00 ± 1.41 % on test examples."
    )
    # 10 or 20 points less in each seed are no chance; about as good in both is.
    assert rest[0].startswith("1 of the 3 others may be as good: over 2 seeds")
    assert rest[-1] == "12 stages are 9 different ones: 30 s of training was spared."


def test_differences_to_the_best_are_paired_over_seeds() -> None:
    found = swept(FOUR)
    by_label = {row["label"]: row for row in found["rows"]}
    same = to_the_best(found, by_label["temperature=2, lr=0.3"])
    assert same is not None
    assert same.certain
    assert abs(same.mean + 0.2) < 1e-12
    assert to_the_best(found, found["rows"][0]) is None
    assert [line.best for line in lines(found)] == [True, False, False, False]


def test_one_seed_says_that_nobody_knows_what_is_chance() -> None:
    found = swept({key: values[:1] for key, values in FOUR.items()})
    assert any("one seed" in sentence for sentence in sentences(found))


def test_a_best_value_at_the_end_is_told() -> None:
    told = sentences(
        swept({(1.0, 0.1): [0.9, 0.9], (2.0, 0.1): [0.8, 0.8], (4.0, 0.1): [0.7, 0.7]})
    )
    assert any(text.startswith("temperature is at the end of the values") for text in told)
    assert not any("at the end" in text for text in sentences(swept(FOUR)))


def test_the_terminal_has_a_line_for_each_combination_and_dims_those_that_stopped() -> None:
    console = Console(width=120, record=True, force_terminal=False)
    console.print(sweep_table(swept(FOUR, stopped=(2.0, 0.3))))
    text = console.export_text()
    assert re.search(r"temperature +lr +accuracy % +NLL +to the best +steps *\n", text)
    assert re.search(r"2 +0.1 +91.00 ± 1.41 .* 100 ", text)
    assert "steps" not in headings(swept(FOUR))
    assert re.search(r"2 +0.3 +71.00 ± 1.41 .* – .* 25 \(25 %\)", text)


def test_there_is_a_plot_for_each_setting_with_several_values() -> None:
    temperature, rate = plots(swept(FOUR))
    assert temperature.title == "Accuracy against temperature"
    assert [name for _, name in temperature.legend] == ["lr=0.1", "lr=0.3"]
    assert "temperature=4, lr=0.1 0.903" in temperature.svg
    assert [name for _, name in rate.legend] == ["temperature=1", "temperature=2", "temperature=4"]
    assert "standard deviations over 2 seeds" in rate.text
    one = swept({key: values for key, values in FOUR.items() if key[1] == 0.1})
    assert [figure.title for figure in plots(one)] == ["Accuracy against temperature"]


def test_values_that_are_no_numbers_have_places_on_the_axis() -> None:
    found = swept(FOUR)
    for one in (*found["runs"], *found["rows"]):
        one["values"] = {**one["values"], LR: f"net-{one['values'][LR]}"}
        if "texts" in one:
            one["texts"] = {**one["texts"], LR: one["values"][LR]}
    assert ">net-0.1<" in plots(found)[1].svg


def test_halving_is_plotted_where_all_had_as_many_steps() -> None:
    found = swept(FOUR, stopped=(2.0, 0.3))
    found["rungs"] = [{**row, "part": 0.25} for row in found["rows"]]
    assert "All combinations, with 25 % of their steps." in plots(found)[0].text


def test_the_page_shows_all_and_links_the_pages_that_there_are(tmp_path: Path) -> None:
    found = swept(FOUR)
    page = tmp_path / "runs" / "temperature=2, lr=0.1" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("")
    text = render_sweep(found, tmp_path)
    assert text.count('<a href="runs/temperature%3D2%2C%20lr%3D0.1/report.html">2</a>') == 1
    assert text.count("<a href") == 1
    assert text.count("<code>runs/") == 4
    assert "made &lt;b&gt;up&lt;/b&gt;" in text
    assert "<script" not in text
    assert re.search(r"<th scope=\"row\">teacher</th><td>4</td><td>1</td><td>40 s</td>", text)
    assert text.count("<svg") == 2
    assert write_sweep(found, tmp_path) == tmp_path / PAGE
    assert (tmp_path / PAGE).read_text().startswith(text[:500])
