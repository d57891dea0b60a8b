"""`xcl export` as a person meets it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from extracurricular.cli import main
from tests.export.test_push import TOKEN, Hub
from tests.export.test_push import hub as hub


@pytest.fixture
def copy(digits_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


def test_a_student_is_exported_and_pushed(copy: Path, hub: Hub, tmp_path: Path) -> None:
    arguments = ["export", str(copy), "--student", "kd", "--int8", "--push", "me/digits"]
    surroundings = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
    }
    done = subprocess.run(
        [sys.executable, "-m", "extracurricular.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **surroundings},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "small kd, seed 0: onnx, opset 18"
    for name in ("teacher", "kd ", "kd.onnx", "kd.int8.onnx"):
        assert any(line.strip().startswith(name) for line in lines)
    assert "ms at 1" in done.stdout
    assert "ms at 32" in done.stdout
    assert f"Pushed to {hub.address}/me/digits/commit/" in done.stdout
    assert TOKEN not in done.stdout
    names = {"kd.onnx", "kd.int8.onnx", "metadata.json", "README.md"}
    folder = copy / "export"
    assert {file.name for file in folder.iterdir()} == names
    assert hub.files == {name: (folder / name).read_bytes() for name in names}
    session = onnxruntime.InferenceSession(folder / "kd.int8.onnx")
    [probs] = session.run(["probs"], {"x": np.zeros((5, 1, 8, 8), np.uint8)})
    np.testing.assert_allclose(probs.sum(1), np.ones(5), rtol=1e-5)


@pytest.fixture
def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the command, which must end in one sentence and exit status 2; return the sentence."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["xcl", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert ended.value.code == 2
        assert told.err.count("\n") == 1
        assert told.out == ""
        return told.err

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--student", "xc"],
            "error: --student: is 'xc', but the run has no such student; did you",
        ),
        (["--seed", "7"], "error: --seed: is 7; the run has the seeds [0, 1]"),
        (["--out", "a.pt2"], "error: --out: is 'a.pt2'; a file of the format onnx ends in .onnx"),
        (["--limit", "1e-30"], "error: the exported model differs from the student by "),
        (["--private"], "error: --private: is for --push; give --push REPO too"),
        (["--push", "a/b/c"], "error: --push: is 'a/b/c'; it must be NAME or OWNER/NAME"),
    ],
)
def test_a_mistake_is_one_sentence(
    copy: Path, arguments: list[str], said: str, refusal: Callable[..., str]
) -> None:
    before = sorted(copy.rglob("*"))
    assert refusal(copy, *arguments).startswith(said)
    assert sorted(copy.rglob("*")) == before


def test_a_run_that_cannot_be_exported(
    copy: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    assert "there is no run" in refusal(tmp_path / "nowhere")
    (copy / "stage.json").unlink()  # as before there were checksums
    summary = copy / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"schema": 0}))
    assert "is of schema 0, and this version reads 1" in refusal(copy)
    summary.unlink()
    assert "is not finished" in refusal(copy)
    assert not (copy / "export").exists()
