"""The drills are found, repeatable trial by trial, and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills import __main__ as command
from drills.common import Dice, Ended, Fault, Result, Tally, real, table

ROOT = Path(__file__).parents[1]


def test_each_module_is_a_drill_and_the_page_has_it() -> None:
    known = command.known()
    assert {"kills", "damage", "exchanges", "disk_full"} <= set(known)
    page = (ROOT / "docs" / "reliability.md").read_text()
    for name, one in known.items():
        assert one.count > 0
        assert one.about.endswith(".") or one.about, name
        assert f"- **{name}**: " in page, name


def test_a_trial_is_the_same_whatever_others_do() -> None:
    every = {number: own.random() for number, own in Dice("kills 0").trials(20)}
    assert len(set(every.values())) == 20
    [(number, own)] = Dice("kills 0", only=17).trials(20)
    assert (number, own.random()) == (17, every[17])
    assert {n: d.random() for n, d in Dice("kills 1").trials(20)} != every


def test_one_trial_in_twenty_is_real() -> None:
    assert sum(map(real, range(100))) == 5


def test_the_status_says_whether_anything_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def drill(dice: Dice, count: int, folder: Path) -> Result:
        tally = Tally()
        for number, _ in dice.trials(count):
            tally.tried += 1
            tally.outcome("odd" if number % 2 else "even")
            if number == wrong:
                tally.fault(number, "it broke")
        return tally.result()

    monkeypatch.setattr(command, "known", lambda: {"mine": command.Drill("mine", "", 7, drill)})
    wrong = -1
    assert command.main(["--out", str(tmp_path)]) == 0
    assert "| mine | 7 | even 4, odd 3 | 0 |" in capsys.readouterr().out
    wrong = 3
    assert command.main(["mine", "--seed", "5", "--count", "4", "--out", str(tmp_path)]) == 1
    again = "python -m drills mine --seed 5 --count 4 --only 3: it broke"
    assert f"FAULT: {again}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["nobody"])


@pytest.mark.parametrize(
    ("ended", "wrong"),
    [
        (Ended(0, "fine", "", 1.0), False),
        (Ended(2, "", "error: a: is wrong", 1.0), False),
        (Ended(2, "", "", 1.0), True),
        (Ended(1, "", "", 1.0), True),
        (Ended(-11, "", "", 1.0), True),
        (Ended(-9, "", "", 1.0, hung=True), True),
        (Ended(2, "", "Traceback (most recent call last):\nValueError: error: x", 1.0), True),
    ],
)
def test_what_no_command_may_do(ended: Ended, wrong: bool) -> None:
    assert (ended.fault is not None) == wrong


def test_a_refusal_is_one_line() -> None:
    assert Ended(2, "", "error: a is\n  wrong\n", 1.0).refusal == "a is wrong"
    assert Ended(0, "", "", 1.0).refusal == ""


def test_the_table_is_markdown() -> None:
    result = Result(3, {"a": 1, "b": 2}, (Fault(1, "x"),))
    lines = table({"mine": (result, 90.0, "python -m drills mine")}).splitlines()
    assert lines[-1] == "| mine | 3 | b 2, a 1 | 1 | 1.5 | `python -m drills mine` |"
    assert len({line.count("|") for line in lines}) == 1
