"""Rendered eyes: reproducible, and the image tells what the label says, as far as one can see."""

from __future__ import annotations

import math

import pytest
import torch

from extracurricular.data.sets import DATA
from extracurricular.data.sets.gaze_render import GazeImages, render_gaze
from extracurricular.errors import RecipeError


@pytest.fixture(scope="module")
def eyes() -> GazeImages:
    return render_gaze(range(6), 200)


def test_shapes_types_and_ranges(eyes: GazeImages) -> None:
    assert eyes.eye.shape == (1200, 1, 36, 60)
    assert eyes.eye.dtype == torch.uint8
    assert eyes.pose.shape == eyes.gaze.shape == (1200, 2)
    assert eyes.pose.dtype == eyes.gaze.dtype == torch.float32
    pitch, yaw = torch.rad2deg(eyes.gaze).unbind(1)
    assert -26 < float(pitch.min()) < -15
    assert 2 < float(pitch.max()) < 11
    assert float(yaw.abs().max()) < 26
    assert float(torch.rad2deg(eyes.pose).abs().max()) < 25
    assert 0 <= float(eyes.openness.min()) < 0.1
    assert 0.5 < float(eyes.openness.max()) <= 1.0001
    assert eyes.person.tolist() == [p for p in range(6) for _ in range(200)]


def test_images_use_the_range_of_bytes(eyes: GazeImages) -> None:
    for image in eyes.eye[::40].float():
        assert float(image.std()) > 4
    assert float((eyes.eye == 255).float().mean()) < 0.02
    assert float((eyes.eye == 0).float().mean()) < 0.05


def test_an_image_depends_on_seed_person_and_number_alone(eyes: GazeImages) -> None:
    fewer = render_gaze([2], 45)
    for whole, part in zip(eyes, fewer, strict=True):
        assert torch.equal(whole[400:445], part)
    other = render_gaze([4, 1], 3)
    assert torch.equal(other.eye[3:], eyes.eye[200:203])
    assert not torch.equal(render_gaze([2], 45, seed=1).eye, fewer.eye)


def test_persons_differ(eyes: GazeImages) -> None:
    means = eyes.eye.float().view(6, 200, -1).mean(1)
    assert float(torch.cdist(means, means)[~torch.eye(6, dtype=torch.bool)].min()) > 100


def test_the_iris_moves_with_the_gaze(eyes: GazeImages) -> None:
    clear = (eyes.openness > 0.6) & (eyes.blur < 1)
    columns, rows = torch.arange(60.0), torch.arange(36.0)
    for person in range(6):
        keep = clear & (eyes.person == person)
        image = eyes.eye[keep, 0, 6:30, 8:52].float()
        darkest = image.flatten(1).quantile(0.04, dim=1)[:, None, None]
        mask = (image <= darkest).float()
        x = (mask.sum(1) * columns[8:52]).sum(1) / mask.sum((1, 2))
        y = (mask.sum(2) * rows[6:30]).sum(1) / mask.sum((1, 2))
        pitch, yaw = eyes.gaze[keep].unbind(1)
        # Positive yaw looks to the left of the image, positive pitch up.
        assert float(torch.corrcoef(torch.stack([x, yaw]))[0, 1]) < -0.7
        assert float(torch.corrcoef(torch.stack([y, pitch]))[0, 1]) < -0.35


def test_blur_takes_the_edges_and_lids_take_the_iris(eyes: GazeImages) -> None:
    strong = eyes.blur > 1.5
    assert 0.08 < float(strong.float().mean()) < 0.2
    closed = eyes.openness < 0.2
    assert 0.05 < float(closed.float().mean()) < 0.25

    # Averages of 3x3 pixels, so that the sensor's noise does not count as an edge.
    smooth = torch.nn.functional.avg_pool2d(eyes.eye.float(), 3, 1)[:, 0]
    edges = smooth.diff(dim=2).square().mean((1, 2)) / smooth.var((1, 2))
    assert float(edges[strong & ~closed].mean()) < 0.7 * float(edges[~strong & ~closed].mean())


def test_the_head_turns_with_the_gaze(eyes: GazeImages) -> None:
    assert float(torch.corrcoef(torch.stack([eyes.pose[:, 1], eyes.gaze[:, 1]]))[0, 1]) > 0.3


@pytest.mark.parametrize(
    ("persons", "count", "seed", "problem"),
    [
        ([], 3, 0, "persons is empty"),
        ([0, -1], 3, 0, "persons has -1"),
        ([0], 0, 0, "per_person is 0"),
        ([0], 1, -1, "seed is -1"),
    ],
)
def test_numbers_that_make_no_sense(
    persons: list[int], count: int, seed: int, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        render_gaze(persons, count, seed)


def test_the_data_set_has_unseen_persons_in_each_split() -> None:
    sizes = {"train_persons": 2, "train_images": 40, "validation_persons": 0, "test_persons": 1}
    data = DATA.build({"gaze": {**sizes, "test_images": 30}})
    assert isinstance(data.test.x, dict)
    assert isinstance(data.train.x, dict)
    assert torch.equal(data.train.x["eye"], render_gaze(range(2), 40).eye)
    assert torch.equal(data.test.x["eye"], render_gaze([2000], 30).eye)
    assert len(data.validation) == 0
    assert len(data.train) == 80
    assert data.shapes == {"eye": (1, 36, 60), "pose": (2,)}
    assert data.angular
    assert data.y_scale is not None
    assert data.train.y is not None
    assert float(data.targets(data.train.y).std()) == pytest.approx(1, abs=0.01)
    assert math.isclose(
        float(data.y_scale.scale[1]), float(data.train.y[:, 1].std(correction=0)), rel_tol=1e-5
    )
    with pytest.raises(RecipeError, match="test_persons is 0"):
        DATA.build({"gaze": {"test_persons": 0}})
