"""Make the tables of docs/recipes.md from the figures in benchmarks/evidence/.

    python benchmarks/evidence_table.py            # prints them
    python benchmarks/evidence_table.py --write    # puts them into docs/recipes.md

Each teacher and budget has a table of its own, since students of a weaker teacher, or of fewer
epochs, are not compared with those of a better one.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from extracurricular.files import read_json, write_atomic

EVIDENCE = Path(__file__).parent / "evidence"
PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
BEGIN, END = "<!-- evidence -->\n", "<!-- end of evidence -->\n"

_HEAD = ("pair", "student", "seed", "accuracy %", "NLL", "ECE %", "KL to teacher", "epochs", "s")


def tables(folder: Path = EVIDENCE) -> str:
    """Return the tables of all finished students; a sentence where there is none."""
    found = [read_json(file) for file in sorted(folder.glob("*.json"))]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in found:
        if one["teacher"] is not None:
            groups[one["size"], one["teacher"]["network"], one["teacher"]["sha256"]].append(one)
    if not groups:
        return "No training of the list is finished yet: **not measured**.\n"
    return "\n".join(_table(groups[key]) for key in sorted(groups))


def _table(students: list[dict[str, Any]]) -> str:
    first = students[0]
    teacher = first["teacher"]
    lines = [
        f"Budget `{first['size']}`, students of a `{teacher['network']}` with "
        f"{100 * teacher['accuracy']:.2f} % ({teacher['source']}), {first['split']} images, last "
        f"epoch; {_machines(students)}:",
        "",
        _row(_HEAD),
        _row(["---"] * len(_HEAD)),
    ]
    order = sorted(students, key=lambda one: (one["recipe"], one["student"], one["name"]))
    return "\n".join([*lines, *map(_student, order)]) + "\n"


def _student(one: dict[str, Any]) -> str:
    said = one["figures"]
    star = " *" if one["rounded_checkpoints"] else ""
    cells = [
        one["recipe"].removeprefix("cifar100-"),
        f"`{one['student']}`{star}",
        str(one["settings"]["seed"]),
        f"{100 * said['accuracy']:.2f}",
        f"{said['nll']:.3f}",
        f"{100 * said['ece']:.1f}",
        f"{said['kl_to_teacher']:.3f}",
        f"{one['last_epoch']:g}",
        f"{one['seconds']:.0f}",
    ]
    return _row(cells)


def _machines(students: list[dict[str, Any]]) -> str:
    parts = [part for one in students for part in one["trained"]]
    names = {f"{part['gpu'] or part['cpu']}, torch {part['torch']}" for part in parts}
    return " and ".join(sorted(names))


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def filled(page: str, text: str) -> str:
    """Return a page with the text between its two marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{text}{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        content = filled(PAGE.read_text(encoding="utf-8"), tables())
        write_atomic(PAGE, content.encode())
    else:
        sys.stdout.write(tables())
