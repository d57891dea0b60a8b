"""MPIIGaze as its authors ship it, normalised: eye patches and head poses in, gaze out.

The data are by Zhang, Sugano, Fritz and Bulling (CVPR 2015, "Appearance-based gaze estimation in
the wild"). Two of the folders are read::

    Data/Normalized/p00/day01.mat                          eyes of person 0 on one day
    Evaluation Subset/sample list for eye image/p00.txt    the eyes to use, one per line:
                                                           day01/0005.jpg left

A .mat file has ``filenames`` [n] and a struct ``data`` with ``left`` and ``right``, each with
``image`` [n, 36, 60], ``gaze`` [n, 3] (unit vectors) and ``pose`` [n, 3] (rotation vectors).
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from extracurricular.data.base import Data, make_data
from extracurricular.data.formats.cache import Arrays, cached
from extracurricular.data.sets import DATA
from extracurricular.data.splits import split_indices
from extracurricular.errors import DataError, from_extra, shorten

Array: TypeAlias = np.ndarray[Any, Any]

_NORMALIZED = Path("Data") / "Normalized"
_LISTS = Path("Evaluation Subset") / "sample list for eye image"
_SIDES = ("left", "right")


@DATA.register("mpiigaze")
def mpiigaze(
    path: str,
    leave_out: int = 0,
    validation: int = 1,
    seed: int = 0,
    cache: bool | str = True,
) -> Data:
    """Read MPIIGaze's evaluation subset, with one person left out to test on.

    Inputs are a dict: ``eye`` [1, 36, 60], grey bytes, and ``pose`` [2], pitch and yaw of the head
    in radians. Targets are pitch and yaw of the gaze in radians. Right eyes are mirrored to look
    like left ones: the image is flipped, and both yaws are negated.

    Args:
        path: The folder ``MPIIGaze``.
        leave_out: The person to test on, 0 to 14.
        validation: Number of other persons to choose settings on, who are not trained on; 0 for
            none.
        seed: Seed of the choice of these persons.
        cache: Whether to keep the arrays in the user's cache folder, or the folder to keep them
            in.

    Raises:
        DataError: A file is missing, damaged or of another form, or there is no such person.
    """
    root = Path(path)
    persons = _persons(root)
    if leave_out not in persons:
        known = ", ".join(map(str, persons))
        raise DataError(f"data {path!r}: leave_out is {leave_out}; it has the persons {known}")
    others = [person for person in persons if person != leave_out]
    if not 0 <= validation < len(others):
        raise DataError(
            f"data {path!r}: validation is {validation}; it must be 0 to {len(others) - 1} of the "
            f"{len(others)} persons that are not left out"
        )
    files = [f for p in persons for f in [_list(root, p), *_days(root, p)]]
    found = cached("mpiigaze", files, partial(_read_all, root, persons), cache=cache)
    [aside] = split_indices(len(others), [validation], seed)
    parts = {
        "train": [p for k, p in enumerate(others) if k not in aside],
        "validation": [others[k] for k in aside],
        "test": [leave_out],
    }
    rows = {part: np.isin(found["person"], who) for part, who in parts.items()}
    pairs = {
        part: ({"eye": found["eye"][w], "pose": found["pose"][w]}, found["gaze"][w])
        for part, w in rows.items()
    }
    return make_data(
        "mpiigaze",
        train=pairs["train"],
        validation=pairs["validation"],
        test=pairs["test"],
        angular=True,
        outputs=("pitch", "yaw"),
    )


def gaze_angles(vectors: Array) -> Array:
    """Return pitch and yaw of gaze vectors, radians, [N, 2] from [N, 3].

    The convention is that of the authors' code: pitch = asin(-y), yaw = atan2(-x, -z); its inverse
    is :func:`extracurricular.evaluation.metrics.gaze_vector`.
    """
    x, y, z = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    return np.stack([np.arcsin(-y), np.arctan2(-x, -z)], axis=1)


def pose_angles(vectors: Array) -> Array:
    """Return pitch and yaw of head poses, radians, [N, 2] from rotation vectors [N, 3].

    The convention is that of the authors' code: v is the z axis of the rotation, the third column
    of its matrix; pitch = asin(v_y), yaw = atan2(v_x, v_z). By Rodrigues' formula
    v = z cos θ + (k × z) sin θ + k k_z (1 - cos θ), with angle θ and axis k.
    """
    angle = np.linalg.norm(vectors, axis=1, keepdims=True)
    k = vectors / np.where(angle > 0, angle, 1)
    z = np.array([0.0, 0.0, 1.0])
    axis = z * np.cos(angle) + np.cross(k, z) * np.sin(angle) + k * k[:, 2:] * (1 - np.cos(angle))
    return np.stack([np.arcsin(axis[:, 1].clip(-1, 1)), np.arctan2(axis[:, 0], axis[:, 2])], axis=1)


# Files


def _persons(root: Path) -> list[int]:
    folder = root / _NORMALIZED
    if not folder.is_dir():
        raise DataError(
            f"the folder {str(folder)!r} does not exist; path must name the folder MPIIGaze that "
            f"has {_NORMALIZED.as_posix()!r}"
        )
    matches = (re.fullmatch(r"p(\d\d)", f.name) for f in folder.iterdir() if f.is_dir())
    persons = sorted(int(match[1]) for match in matches if match)
    if len(persons) < 2:
        raise DataError(
            f"the folder {str(folder)!r} has {len(persons)} persons (p00, p01, …); "
            "it must have one to train and one to test on"
        )
    return persons


def _list(root: Path, person: int) -> Path:
    file = root / _LISTS / f"p{person:02d}.txt"
    if not file.is_file():
        raise DataError(f"the file {str(file)!r} is missing")
    return file


def _days(root: Path, person: int) -> list[Path]:
    return sorted((root / _NORMALIZED / f"p{person:02d}").glob("day*.mat"))


def _read_all(root: Path, persons: list[int]) -> Arrays:
    parts = [_person(root, person) for person in persons]
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return arrays | {"person": np.repeat(persons, [len(part["gaze"]) for part in parts])}


def _person(root: Path, person: int) -> Arrays:
    """Read the listed eyes of one person."""
    file = _list(root, person)
    rows: dict[str, list[tuple[int, str, str]]] = {}
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for line, text in enumerate(lines, start=1):
        if text.strip():
            match = re.fullmatch(r"(day\d+)/(\S+)\s+(left|right)", text.strip())
            if not match:
                raise DataError(
                    f"the file {str(file)!r}, line {line}: {shorten(text.strip())} is not of the "
                    "form 'day01/0005.jpg left'"
                )
            rows.setdefault(match[1], []).append((line, match[2], match[3]))
    if not rows:
        raise DataError(f"the file {str(file)!r} lists no images")
    eyes: list[Array] = []
    poses: list[Array] = []
    gazes: list[Array] = []
    for day, wanted in sorted(rows.items()):
        source = root / _NORMALIZED / f"p{person:02d}" / f"{day}.mat"
        names, sides = read_day(source)
        place = {name: k for k, name in enumerate(names)}
        for line, name, side in wanted:
            if name not in place:
                raise DataError(
                    f"the file {str(file)!r}, line {line}: {str(source)!r} has no image {name!r}"
                )
            eye, pose, gaze = (values[place[name]] for values in sides[side])
            eyes.append(eye)
            poses.append(pose)
            gazes.append(gaze)
    return {"eye": np.stack(eyes), "pose": np.stack(poses), "gaze": np.stack(gazes)}


def read_day(file: Path) -> tuple[list[str], dict[str, tuple[Array, Array, Array]]]:
    """Read one .mat file.

    Returns:
        The n file names; and for each side eyes [n, 36, 60] uint8, head poses and gazes [n, 2]
        float32, pitch and yaw in radians. Those of the right side are mirrored.

    Raises:
        DataError: The file is missing, damaged, or of another form.
    """
    found = _load(file)
    where = f"the file {str(file)!r}"
    names = [str(_bare(name)) for name in np.ravel(found["filenames"])]
    sides = {}
    for side in _SIDES:
        image, gaze, pose = (
            _field(where, found["data"], side, key) for key in ("image", "gaze", "pose")
        )
        count = len(names)
        if image.dtype != np.uint8 or image.shape != (count, 36, 60):
            raise DataError(
                f"{where}: {side}.image is {image.dtype} of shape {image.shape}; "
                f"it must be uint8 of shape {(count, 36, 60)}"
            )
        for key, values in (("gaze", gaze), ("pose", pose)):
            if values.dtype.kind not in "fiu" or values.shape != (count, 3):
                raise DataError(
                    f"{where}: {side}.{key} is {values.dtype} of shape {values.shape}; "
                    f"it must be numbers of shape {(count, 3)}"
                )
            wrong = np.flatnonzero(~np.isfinite(values).all(1))
            if len(wrong):
                raise DataError(f"{where}: {side}.{key} of {names[wrong[0]]!r} is not finite")
        length = np.linalg.norm(gaze, axis=1)
        wrong = np.flatnonzero(np.abs(length - 1) > 0.01)
        if len(wrong):
            raise DataError(
                f"{where}: {side}.gaze of {names[wrong[0]]!r} has length {length[wrong[0]]:.3g}; "
                "it must be a unit vector"
            )
        sign = np.array([1.0, -1.0 if side == "right" else 1.0])
        sides[side] = (
            image[:, :, ::-1] if side == "right" else image,
            (pose_angles(pose.astype(np.float64)) * sign).astype(np.float32),
            (gaze_angles(gaze.astype(np.float64)) * sign).astype(np.float32),
        )
    return names, sides


def _load(file: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError(f"reading {str(file)!r} needs scipy, {from_extra('mat')}") from None
    if not file.is_file():
        raise DataError(f"the file {str(file)!r} is missing")
    try:
        with file.open("rb") as handle:
            found: dict[str, Any] = loadmat(handle, variable_names=["data", "filenames"])
    except Exception as error:  # a damaged file raises all kinds
        raise DataError(f"the file {str(file)!r} cannot be read as .mat: {error}") from error
    for key in ("data", "filenames"):
        if key not in found:
            raise DataError(f"the file {str(file)!r} has no {key!r}")
    return found


def _bare(value: Any) -> Any:
    """Take a value out of the 1 × 1 cells and structs that MATLAB wraps it in."""
    while isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "OU":
        value = value.item()
    return value


def _field(where: str, struct: Any, *keys: str) -> Array:
    for k, key in enumerate(keys):
        names = struct.dtype.names if isinstance(struct, np.ndarray) else None
        if names is None or key not in names or struct.size != 1:
            raise DataError(f"{where}: data has no {'.'.join(keys[: k + 1])}")
        struct = struct[key].item()
    return np.asarray(struct)
