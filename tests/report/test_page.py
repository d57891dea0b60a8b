"""The report as a person meets it: in a browser, on a phone and on a desk; the command."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from extracurricular.cli import main
from extracurricular.files import read_json, write_json
from extracurricular.report.write import write_report
from extracurricular.run.finished import open_run
from tests.chromium import Page, browser
from tests.report.test_report import nasty_run as nasty_run

WIDTHS = [390, 1280]

# What is seen of each picture, and what sticks out of the window though it lies in no box that
# scrolls.
SEEN = """(() => {
  const shown = e => e.checkVisibility({contentVisibilityAuto: true});
  const pictures = [...document.querySelectorAll('svg, img')].filter(shown);
  const sizes = pictures.map(e => e.getBoundingClientRect()).map(r => [r.width, r.height]);
  const out = [...document.querySelectorAll('main *')].filter(shown).filter(e =>
    !e.closest('.scroll, pre') && e.getBoundingClientRect().right > innerWidth + 1);
  return {sizes, out: out.map(e => e.outerHTML.slice(0, 80)),
          wide: document.documentElement.scrollWidth, own: innerWidth,
          broken: pictures.filter(e => e.tagName === 'IMG' && !e.naturalWidth).length,
          verdict: document.querySelector('.verdict').innerText};
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def files(digits_run: Path, gaze_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pages")
    for name, run in (("digits", digits_run), ("gaze", gaze_run)):
        write_report(open_run(run), folder / f"{name}.html")
    return folder


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["digits", "gaze"])
def test_a_browser_shows_it_whole(
    page: Page, files: Path, digits_run: Path, name: str, width: int, dark: bool
) -> None:
    page.open(files / f"{name}.html", width, dark=dark)
    found = page.ask(SEEN)
    assert page.complaints() == []
    assert page.requests() == [(files / f"{name}.html").as_uri()]
    assert len(found["sizes"]) > 12
    assert all(wide >= 30 and high >= 20 for wide, high in found["sizes"])
    assert found["broken"] == 0
    assert found["out"] == []
    assert found["wide"] <= found["own"]
    if name == "digits":
        gap = read_json(digits_run / "summary.json")["students"]["xcl"]["gap_closed"]
        said = re.search(r"xcl closes (\d+)\s%", found["verdict"])
        assert (said is None) == (gap is None or gap["value"] <= 0)
        assert said is None or int(said[1]) == round(100 * gap["value"])
    light = page.ask("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] > 128")
    assert light != dark


@pytest.mark.parametrize("width", WIDTHS)
def test_what_would_do_harm_is_a_text(page: Page, nasty_run: Path, width: int) -> None:
    write_report(open_run(nasty_run))
    page.open(nasty_run / "report.html", width)
    found = page.ask(SEEN)
    assert page.complaints() == []
    assert len(page.requests()) == 1
    assert page.ask("document.scripts.length") == 0
    assert page.ask("document.images.length") == 0
    assert page.ask("document.querySelector('h1').innerText") == "<script>alert(1)<script>"
    assert found["out"] == []
    assert found["wide"] <= found["own"]


def test_the_page_forbids_scripts_and_the_network(page: Page, files: Path, tmp_path: Path) -> None:
    text = (files / "digits.html").read_text()
    assert "</main>" in text
    bad = '<script>document.title = "run"</script><img src="http://127.0.0.1:9/x.png"></main>'
    (tmp_path / "bad.html").write_text(text.replace("</main>", bad))
    page.open(tmp_path / "bad.html", 1280)
    assert page.ask("document.title") == "small – xcl report"
    failed = [e["params"] for e in page.events if e.get("method") == "Network.loadingFailed"]
    assert [params.get("blockedReason") for params in failed] == ["csp"]


# -- the command line -----------------------------------------------------------------------------


@pytest.fixture
def copy(digits_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


def xcl(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["xcl", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_run_ends_with_its_report_and_makes_it_once(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("run", copy / "recipe.yaml", "--out", copy)
    (copy / "report.html").unlink(missing_ok=True)
    assert xcl(monkeypatch, *command) == 0
    assert f"Look at {copy / 'report.html'}" in capsys.readouterr().out.replace("\n", "")
    before = {f: f.stat().st_mtime_ns for f in copy.rglob("*") if f.name != ".lock"}
    assert (copy / "report.html") in before
    assert xcl(monkeypatch, *command) == 0
    assert {f: f.stat().st_mtime_ns for f in copy.rglob("*") if f.name != ".lock"} == before


def test_a_report_that_fails_does_not_lose_the_run(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no ink\nleft")

    monkeypatch.setattr("extracurricular.report.collect.collect", broken)
    (copy / "report.html").unlink(missing_ok=True)
    assert xcl(monkeypatch, "run", copy / "recipe.yaml", "--out", copy) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the report could not be made: no ink left; `xcl report " in said


def test_the_command_writes_where_it_is_told(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert xcl(monkeypatch, "report", copy, "--out", tmp_path / "new" / "page.html") == 0
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("unknown", "error: there is no run "),
        ("half", "is not finished: it has no summary.json; `xcl run "),
        ("older", "is of schema 0, and this version reads 1; "),
        ("file", "error: cannot write "),
    ],
)
def test_what_has_no_report_is_told_in_one_sentence(
    copy: Path,
    state: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments: list[object] = ["report", copy]
    if state == "unknown":
        arguments = ["report", copy / "nowhere"]
    elif state == "half":
        (copy / "summary.json").unlink()
    elif state == "older":
        (copy / "stage.json").unlink()  # as before there were checksums
        write_json(copy / "summary.json", read_json(copy / "summary.json") | {"schema": 0})
    else:
        arguments += ["--out", "/proc/nowhere/page.html"]
    assert xcl(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_a_damaged_file_of_names_is_told_and_places_stand_for_them(copy: Path) -> None:
    told: list[str] = []
    file = copy / "ids.json.gz"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert write_report(open_run(copy), again=True, tell=told.append)
    [sentence] = told
    assert sentence.startswith(f"the file {str(file)!r} is damaged")
    assert sentence.endswith("without it, examples are told by their places")
