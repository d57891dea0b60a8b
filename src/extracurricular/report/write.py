"""The page as a file, which is made again only when its content has changed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from extracurricular.evaluation import words
from extracurricular.files import read_json, sha256, write_if_changed
from extracurricular.run.environment import trained_in
from extracurricular.run.finished import Finished
from extracurricular.run.plan import plan
from extracurricular.run.stages import Stage
from extracurricular.run.workspace import Workspace

_MARK = '<meta name="xcl-report" content="{}">'
_START = 4096
_SUFFIXES = (".py", ".j2", ".css")


def write_report(finished: Finished, file: Path | None = None, *, again: bool = True) -> bool:
    """Write the page of a finished run.

    Args:
        finished: The run.
        file: The file to write; ``report.html`` in the run's folder where None.
        again: Make the page even if the existing one shows the run as it is now.

    Returns:
        Whether the page was made.

    Raises:
        XclError: A file of the run is missing or damaged, or the page cannot be written.
    """
    file = file or finished.folder / "report.html"
    # The fingerprint leaves out the machine's speed, which is measured once and kept in the folder.
    with finished.reading():
        mark = fingerprint(finished)
    if not again and _is_of(file, mark):
        return False
    from extracurricular.report.collect import collect
    from extracurricular.report.page import render

    with finished.reading():
        page = render(collect(finished), mark).encode()
    write_if_changed(file, page)
    return True


@dataclass(frozen=True)
class ReportStage(Stage):
    """The page as the last stage of a run; it is made again only when its content changes."""

    path: str = "report.html"
    title: str = "report"
    key: str = "report"
    data: Any = None

    @property
    def steps(self) -> int:
        """The number of steps, 0: the progress of a run counts trainings."""
        return 0

    def is_done(self, workspace: Workspace) -> bool:
        """Return whether there is a page."""
        return (workspace.folder / self.path).is_file()

    def do(self, workspace: Workspace) -> None:
        """Make the page; a failure is reported and does not fail the run."""
        summary = read_json(workspace.folder / "summary.json")
        try:
            write_report(Finished(workspace, plan(workspace.recipe), summary), again=False)
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            workspace.watcher.tell(
                f"the report could not be made: {text}; `xcl report {workspace.folder}` tries again"
            )


def fingerprint(finished: Finished) -> str:
    """Return a checksum of all that the page depends on: the run, and the code that makes it."""
    stages = [finished.folder / stage.path / "stage.json" for stage in finished.plan.trained]
    rooms = (Path(__file__).parent, Path(words.__file__).parent)
    made_by = [f for room in rooms for f in sorted(room.rglob("*")) if f.suffix in _SUFFIXES]
    depends = {
        "summary": finished.summary,
        "trained": trained_in(finished.folder),
        "stages": [read_json(file) if file.is_file() else None for file in stages],
        "version": version("extracurricular"),
        "made_by": [sha256(file.read_bytes()) for file in made_by],
    }
    return sha256(json.dumps(depends, sort_keys=True).encode())[:32]


def _is_of(file: Path, mark: str) -> bool:
    if not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as page:
        return bool(re.search(re.escape(_MARK.format(mark)), page.read(_START)))
