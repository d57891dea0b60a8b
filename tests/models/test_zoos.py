"""Networks of timm, torchvision and transformers, where they are; and what is said where not.

The trainers of lightning and transformers are there too (docs/trainers.md).

They are not among the packages of the development environment, as a torchvision that is installed
there breaks others that look for it. A folder of them, named by ``XCL_ZOOS``, is used by a process
of its own; ``.ci/run`` makes one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from extracurricular.errors import RecipeError
from extracurricular.models import build_model
from extracurricular.models.base import MODELS

HERE = Path(__file__).parent.parent


@pytest.mark.skipif(
    "XCL_ZOOS" not in os.environ, reason="XCL_ZOOS names no folder with timm, torchvision, …"
)
@pytest.mark.parametrize(
    ("checks", "needed"),
    [("zoo_checks.py", ["timm"]), ("trainer_checks.py", ["lightning", "accelerate"])],
    ids=["networks", "trainers"],
)
def test_the_zoos(checks: str, needed: list[str]) -> None:
    zoos = Path(os.environ["XCL_ZOOS"])
    for name in needed:
        assert (zoos / name).is_dir(), f"XCL_ZOOS is {str(zoos)!r}, which has no {name}"
    paths = [str(zoos), str(HERE), str(HERE.parent / "src")]
    done = subprocess.run(
        # Warnings of these libraries are theirs.
        [sys.executable, "-m", "pytest", "-q", "-o", "filterwarnings=", "-p", "no:cacheprovider",
         str(HERE / checks)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, cwd=HERE.parent, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_a_missing_extra_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(RecipeError) as error:
        build_model(f"{library}:some", inputs=(3, 8, 8), outputs=3, key="teacher.model")
    assert str(error.value) == (
        f"teacher.model.{library}:some: needs {library}, which the extra {library!r} installs: "
        f"pip install -e '.[{library}]' in a clone"
    )


def test_the_text_behind_the_colon_is_the_name() -> None:
    for name in ("timm:vit.in1k", "transformers:./a/folder", "transformers:owner/name"):
        entry, fields = MODELS.find(name)
        assert entry.__module__ == "extracurricular.models.zoos"
        assert fields == {"name": name.partition(":")[2]}
    assert MODELS.find("wrn-16-2")[1] == {"depth": 16, "width": 2}
    assert MODELS.find("resnet8x4")[1] == {"depth": 8}


def test_a_library_that_does_not_import_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms is gone')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(RecipeError, match="timm is installed, but cannot be imported: operator"):
        build_model("timm:resnet18", inputs=(3, 8, 8), outputs=3)
