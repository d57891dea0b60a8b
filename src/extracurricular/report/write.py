"""The page as a file, which is made again only when its content has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from extracurricular.evaluation import words
from extracurricular.export.front import read_front
from extracurricular.files import read_checked, read_json, sha256, write_if_changed
from extracurricular.run.environment import trained_in
from extracurricular.run.evaluation import SUMMARY
from extracurricular.run.finished import Finished
from extracurricular.run.plan import plan
from extracurricular.run.stages import Stage
from extracurricular.run.workspace import Workspace, records

_MARK = '<meta name="xcl-report" content="{}">'
_SEAL = "<!-- sha256: {} -->\n"
_START = 4096
_SUFFIXES = (".py", ".j2", ".css")


def write_report(
    finished: Finished,
    file: Path | None = None,
    *,
    again: bool = True,
    tell: Callable[[str], None] | None = None,
) -> bool:
    """Write the page of a finished run.

    Args:
        finished: The run.
        file: The file to write; ``report.html`` in the run's folder where None.
        again: Make the page even if the existing one shows the run as it is now.
        tell: Gets a sentence for each file that is damaged, and that the page does without.

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
        report = collect(finished)
        page = sealed(render(report, mark))
    if tell is not None:
        for sentence in (*report.damaged, *report.curves.damaged):
            tell(sentence)
    write_if_changed(file, page)
    return True


def sealed(page: str) -> bytes:
    """Return a page with a checksum of itself as a comment at its end."""
    content = page.encode()
    return content + _SEAL.format(sha256(content)).encode()


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
        summary = read_json(workspace.folder / SUMMARY)
        try:
            finished = Finished(workspace, plan(workspace.recipe), summary)
            write_report(finished, again=False, tell=workspace.watcher.tell)
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            workspace.watcher.tell(
                f"the report could not be made: {text}; `xcl report {workspace.folder}` tries again"
            )


def fingerprint(finished: Finished) -> str:
    """Return a checksum of all that the page depends on: the run, and the code that makes it."""
    paths = [stage.path for stage in finished.plan.trained]
    rooms = (Path(__file__).parent, Path(words.__file__).parent)
    made_by = [f for room in rooms for f in sorted(room.rglob("*")) if f.suffix in _SUFFIXES]
    depends = {
        "summary": finished.summary,
        "trained": trained_in(finished.folder),
        "stages": records(finished.folder, paths),
        **({"front": read_front(finished.folder)} if finished.recipe.front else {}),
        "version": version("extracurricular"),
        "made_by": [sha256(file.read_bytes()) for file in made_by],
    }
    return sha256(json.dumps(depends, sort_keys=True).encode())[:32]


def _is_of(file: Path, mark: str) -> bool:
    """Return whether a file is a page with this mark, as it was written."""
    if not file.is_file():
        return False
    content = read_checked(file, None)
    page = content[: -len(_SEAL.format(mark * 2))]
    return _MARK.format(mark).encode() in page[:_START] and content == sealed(page.decode())
