"""MPIIGaze from files of its structure, made here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from extracurricular.data.base import Data
from extracurricular.data.sets import DATA
from extracurricular.data.sets.mpiigaze import gaze_angles, mpiigaze, pose_angles
from extracurricular.distributions import Task
from extracurricular.errors import DataError
from extracurricular.evaluation.metrics import gaze_vector
from extracurricular.inputs import leaves

PERSONS, DAYS, COUNT = (0, 1, 2, 14), (1, 3), 4
LISTS = "Evaluation Subset/sample list for eye image"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def unit(count: int, seed: int) -> np.ndarray[Any, Any]:
    """Directions towards the camera, a bit aside."""
    v = np.random.default_rng(seed).normal(0, 0.2, (count, 3)) - [0, 0, 1]
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def day(person: int, number: int, count: int = COUNT) -> dict[str, Any]:
    g = np.random.default_rng(person * 100 + number)
    sides = {
        side: {
            "gaze": unit(count, person * 10 + k),
            "image": g.integers(0, 256, (count, 36, 60)).astype(np.uint8),
            "pose": g.normal(0, 0.3, (count, 3)),
        }
        for k, side in enumerate(("left", "right"))
    }
    names = np.array([[f"{k:04d}.jpg"] for k in range(1, count + 1)], dtype=object)
    return {"data": sides, "filenames": names}


def made(root: Path, count: int = COUNT, **lists: str) -> str:
    for person in PERSONS:
        folder = root / "Data" / "Normalized" / f"p{person:02d}"
        folder.mkdir(parents=True)
        for number in DAYS:
            savemat(folder / f"day{number:02d}.mat", day(person, number, count))
        file = root / LISTS / f"p{person:02d}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"day{d:02d}/{min(k, count):04d}.jpg {s}" for d in DAYS for k, s in
                ((2, "left"), (1, "right"), (4, "right"))]  # fmt: skip
        file.write_text(lists.get(f"p{person:02d}", "\n".join(rows) + "\n"))
    return str(root)


def eyes(data: Data, part: str) -> torch.Tensor:
    return leaves(getattr(data, part).x)["eye"]


def test_one_person_is_left_out(tmp_path: Path) -> None:
    path = made(tmp_path / "MPIIGaze")
    data = DATA.build({"mpiigaze": {"path": path, "leave_out": 14}})
    assert data.task == Task("regression", 2)
    assert data.angular
    assert data.shapes == {"eye": (1, 36, 60), "pose": (2,)}
    assert eyes(data, "train").dtype == torch.uint8
    assert [len(s) for s in (data.train, data.validation, data.test)] == [12, 6, 6]
    assert data.test.y is not None

    # Day by day, as the list says; the right eye mirrored.
    sides = day(14, 1)["data"]
    left, right = sides["left"], sides["right"]
    got = eyes(data, "test")[:, 0].numpy()
    assert np.array_equal(got[0], left["image"][1])
    assert np.array_equal(got[1], right["image"][0][:, ::-1])
    assert np.array_equal(got[2], right["image"][3][:, ::-1])
    vectors = gaze_vector(data.test.y).numpy()
    np.testing.assert_allclose(vectors[0], left["gaze"][1], atol=1e-6)
    np.testing.assert_allclose(vectors[1], right["gaze"][0] * [-1, 1, 1], atol=1e-6)
    poses = leaves(data.test.x)["pose"].numpy()
    np.testing.assert_allclose(poses[0], pose_angles(left["pose"])[1], atol=1e-6)
    np.testing.assert_allclose(poses[1], pose_angles(right["pose"])[0] * [1, -1], atol=1e-6)

    # Another time from the cache, and the others with another person left out.
    again = mpiigaze(path, leave_out=0, validation=0)
    assert [len(s) for s in (again.train, again.validation, again.test)] == [18, 0, 6]
    assert torch.equal(eyes(again, "train")[-6:], eyes(data, "test"))
    other = [mpiigaze(path, seed=s).validation.x for s in range(5)]
    assert len({leaves(x)["eye"].numpy().tobytes() for x in other}) > 1


def test_angles_are_those_of_the_convention() -> None:
    v = unit(50, 3)
    np.testing.assert_allclose(gaze_vector(torch.from_numpy(gaze_angles(v))).numpy(), v, atol=1e-12)
    # Up is a positive pitch, and a look to the camera's -x a positive yaw.
    assert gaze_angles(np.array([[0, -0.5, -1.0]]))[0, 0] > 0
    assert gaze_angles(np.array([[-0.5, 0, -1.0]]))[0, 1] > 0
    r = np.random.default_rng(0).normal(0, 1, (50, 3))
    r[0] = 0
    axis = Rotation.from_rotvec(r).as_matrix()[:, :, 2]
    wanted = np.stack([np.arcsin(axis[:, 1]), np.arctan2(axis[:, 0], axis[:, 2])], axis=1)
    np.testing.assert_allclose(pose_angles(r), wanted, atol=1e-12)
    assert pose_angles(r)[0].tolist() == [0, 0]
    # A mirrored head has the same pitch and the opposite yaw.
    mirrored = pose_angles(r * [1, -1, -1])
    np.testing.assert_allclose(mirrored, wanted * [1, -1], atol=1e-12)


def test_a_day_of_a_single_image(tmp_path: Path) -> None:
    data = mpiigaze(made(tmp_path / "a", count=1), validation=0)
    assert len(data.test) == 6


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'.*gone/Data/Normalized' does not exist; path must name"):
        mpiigaze(str(tmp_path / "gone"))
    path = made(tmp_path / "a")
    with pytest.raises(DataError, match=r"leave_out is 5; it has the persons 0, 1, 2, 14"):
        mpiigaze(path, leave_out=5)
    for validation in (-1, 3):
        with pytest.raises(
            DataError, match=rf"validation is {validation}; it must be 0 to 2 of th"
        ):
            mpiigaze(path, validation=validation)
    (Path(path) / "Data/Normalized/p02/day03.mat").unlink()
    with pytest.raises(DataError, match=r"the file '.*p02/day03.mat' is missing"):
        mpiigaze(path)
    (Path(path) / LISTS / "p01.txt").unlink()
    with pytest.raises(DataError, match=r"the file '.*p01.txt' is missing"):
        mpiigaze(path)
    lone = tmp_path / "b" / "Data" / "Normalized"
    (lone / "p00").mkdir(parents=True)
    with pytest.raises(DataError, match=r"has 1 persons \(p00, p01, …\); it must have one to"):
        mpiigaze(str(tmp_path / "b"))


def test_without_scipy_a_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"day01.mat' needs scipy, .*pip install -e '.\[mat\]'"):
        mpiigaze(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "p01.txt' lists no images"),
        ("\nday01/0002.jpg up\n", "line 2: 'day01/0002.jpg up' is not of the form"),
        ("../day01/0002.jpg left", "is not of the form"),
        ("day01/0009.jpg left", r"line 1: '.*day01.mat' has no image '0009.jpg'"),
    ],
)
def test_lists_that_are_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        mpiigaze(made(tmp_path / "a", p01=text))


def changed(**values: Any) -> dict[str, Any]:
    given = day(1, 1)
    given["data"]["right"] |= values
    return given


NOT_FINITE = np.full((COUNT, 3), np.nan)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"filenames": day(1, 1)["filenames"]}, "has no 'data'"),
        ({"data": day(1, 1)["data"]}, "has no 'filenames'"),
        ({"data": 3, "filenames": day(1, 1)["filenames"]}, "data has no left"),
        ({"data": {"left": {"gaze": 1}}, "filenames": ["a"]}, r"data has no left.image"),
        (
            changed(image=np.zeros((COUNT, 36, 60))),
            r"right.image is float64 of shape \(4, 36, 60\)",
        ),
        (changed(image=np.zeros((COUNT, 9, 9), np.uint8)), r"uint8 of shape \(4, 9, 9\); it must"),
        (changed(gaze=np.zeros((COUNT, 2))), r"right.gaze is .* of shape \(4, 2\); .* \(4, 3\)"),
        (changed(pose=NOT_FINITE), "right.pose of '0001.jpg' is not finite"),
        (
            changed(gaze=np.ones((COUNT, 3))),
            "right.gaze of '0001.jpg' has length 1.73; it must be a",
        ),
        (b"no such file", r"cannot be read as \.mat"),
        (b"", r"cannot be read as \.mat"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, content: Any, says: str) -> None:
    path = made(tmp_path / "a")
    file = Path(path) / "Data/Normalized/p01/day01.mat"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        savemat(file, content)
    with pytest.raises(DataError, match=rf"the file '.*p01/day01.mat'.*{says}") as caught:
        mpiigaze(path)
    assert "\n" not in str(caught.value)
