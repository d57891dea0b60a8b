"""Make anew what the docs take from the package: ``python docs/tables.py``."""

import ast
from pathlib import Path

import extracurricular
import extracurricular.evaluation.metrics  # figures may be registered there too
from extracurricular.evaluation.words import renewed
from extracurricular.recipe.reference_page import page

FOLDER = Path(__file__).parent
_API = """\
# Python: the public names

`import extracurricular as xcl` gives all of these. The page is made by `python docs/tables.py`;
the site (`make docs`) shows the docstring below each name.
"""


def api() -> str:
    """Return the page of the public names, by the room that defines them."""
    listed = Path(extracurricular.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    rooms: dict[str, list[str]] = {}
    for node in ast.parse(listed).body:
        if isinstance(node, ast.ImportFrom):
            room = str(node.module).split(".")[1]
            rooms.setdefault(room, []).extend(f"{node.module}.{one.name}" for one in node.names)
    parts = [_API]
    for room, names in sorted(rooms.items()):
        parts.append(f"## {room}\n")
        parts.extend(f"::: {name}\n" for name in names)
    return "\n".join(parts)


if __name__ == "__main__":
    figures = FOLDER / "evaluate.md"
    figures.write_text(renewed(figures.read_text(encoding="utf-8")), encoding="utf-8")
    (FOLDER / "reference.md").write_text(page(), encoding="utf-8")
    (FOLDER / "api.md").write_text(api(), encoding="utf-8")
