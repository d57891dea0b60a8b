"""Images that are streamed: the same pixels, bounded memory, damage, and processes that end."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.assess.survey import survey
from extracurricular.cli.survey_table import lines, sheet
from extracurricular.data import base
from extracurricular.data.base import Data
from extracurricular.data.images import decode as decoding
from extracurricular.data.images import stream
from extracurricular.data.images.decode import Crop, View, random_box
from extracurricular.data.images.stream import Streamed, left_out_of_draws
from extracurricular.data.images.workers import Picture, Workers, cpu_count
from extracurricular.data.sets.imagefolder import imagefolder
from extracurricular.errors import DataError, RecipeError
from extracurricular.evaluation.predict import predict
from extracurricular.knowledge.fingerprint import data_fingerprint
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute
from extracurricular.samplers import Empirical, Mixup, ResizedCrop, build_sampler
from extracurricular.teachers import Network
from extracurricular.teachers.estimators import training_table
from tests.conftest import image_data, photographs
from tests.data.sets.test_imagefolder import bomb

PARTS = ("train", "validation", "test")
USUAL = Crop((0.08, 1.0), (3 / 4, 4 / 3), True)


def images(data: Data, part: str = "train") -> Streamed:
    found: Any = getattr(data, part).x
    assert isinstance(found, Streamed)
    return found


def test_streamed_images_have_the_pixels_of_those_in_memory(photos: Path) -> None:
    for settings in ({}, {"centre": 0.8}, {"draft": False}, {"size": [9, 14], "channels": 1}):
        given: dict[str, Any] = {"size": 12, **settings}
        stored = imagefolder(str(photos), **given, stream=False)
        streamed = imagefolder(str(photos), **given, stream=True)
        assert streamed.shapes == stored.shapes
        assert streamed.classes == stored.classes
        for part in PARTS:
            ours, theirs = getattr(streamed, part), getattr(stored, part)
            assert len(ours) == len(theirs)
            assert torch.equal(ours.y, theirs.y)
            assert torch.equal(ours.x[:], theirs.x)
        # The scale is that of all, as they are fewer than a sample has.
        for ours, theirs in zip(
            vars(streamed.x_scale[""]).values(), vars(stored.x_scale[""]).values(), strict=True
        ):
            assert torch.equal(ours, theirs)
        ids = torch.arange(100)
        ours, theirs = Empirical(streamed)(ids), Empirical(stored)(ids)
        assert torch.allclose(ours.x, theirs.x, atol=1e-6)
        assert torch.equal(ours.y, theirs.y)


def test_what_exceeds_the_memory_is_streamed(photos: Path) -> None:
    assert isinstance(imagefolder(str(photos), 16, memory=1e-5).train.x, Streamed)
    data = imagefolder(str(photos), 16)
    assert isinstance(data.train.x, Tensor)
    assert data.notes == ()
    with pytest.raises(DataError, match=r"bytes take 0\.0 GB, and memory is 1e-05"):
        imagefolder(str(photos), 16, memory=1e-5, stream=False)
    with pytest.raises(DataError, match="cache is True, but the images are streamed"):
        imagefolder(str(photos), 16, stream=True, cache=True)
    for setting, says in (({"workers": 0}, "workers is 0"), ({"centre": 1.2}, "centre is 1.2")):
        with pytest.raises(DataError, match=says):
            imagefolder(str(photos), 16, **setting)


def test_it_is_indexed_as_a_tensor_is(streamed_data: Callable[..., Data]) -> None:
    found = images(streamed_data())
    whole = found[:]
    assert (found.shape, found.dtype, found.ndim, len(found)) == (
        whole.shape, whole.dtype, whole.ndim, len(whole),
    )  # fmt: skip
    index = torch.tensor([[3, -1], [3, 0]])
    mask = torch.arange(len(found)) % 5 == 0
    for which in (index, mask, slice(4, 9), slice(0, 0), torch.tensor([], dtype=torch.int64)):
        assert torch.equal(found[which], whole[which])
    assert torch.equal(found.index_select(0, index[0]), whole[index[0]])
    assert torch.equal(found[2], whole[2])
    assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))
    part = streamed_data().train[torch.tensor([1, 2])]
    assert torch.equal(part.x, whole[1:3])  # type: ignore[arg-type]


def test_no_file_is_opened_at_the_start_but_for_the_scale(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    collect = Workers.collect

    def spy(self: Workers, pictures: list[Picture], put: Any) -> dict[int, str]:
        asked.extend(picture.file for picture in pictures)
        return collect(self, pictures, put)

    monkeypatch.setattr(Workers, "collect", spy)
    monkeypatch.setattr(base, "SAMPLE", 7)
    monkeypatch.setattr(Image, "open", None)
    data = imagefolder(str(photos), 8, stream=True)
    assert len(asked) == len(set(asked)) == 7
    # From all over: the files are in the order of their classes.
    assert {Path(file).parent.name for file in asked} == set(data.classes)
    assert data.notes[-1].startswith("Images are decoded as they are needed, by ")


def test_what_asks_for_all_values_ends_in_one_sentence(
    photos: Path, streamed_data: Callable[..., Data]
) -> None:
    data = streamed_data()
    found: Any = images(data)
    says = "the images of data 'photos0' are streamed from their files, so they cannot be taken all"
    for ask in (
        lambda: found.float(),
        lambda: found + 1 if hasattr(found, "__add__") else found.add(1),
        lambda: torch.isfinite(found),
        lambda: torch.cat([found, found]),
        lambda: np.asarray(found),
        lambda: training_table(data),
    ):
        with pytest.raises(DataError, match=says):
            ask()
    assert not hasattr(found, "anything")
    with pytest.raises(RecipeError, match=r"sampler.0.resized_crop: resized_crop is for images th"):
        build_sampler(["resized_crop"], image_data(), 0)
    for setting, value in (("scale", [0.5, 0.2]), ("scale", [0.0, 1.0]), ("ratio", [2.0, 1.0])):
        with pytest.raises(RecipeError, match=f"{setting} is "):
            build_sampler([{"resized_crop": {setting: value}}], data, 0)


def test_predictions_a_survey_and_a_sheet(
    photos: Path, streamed_data: Callable[..., Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = streamed_data()
    stored = imagefolder(str(photos), 8, 1, stream=False)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    teacher = Network(network, data.task)
    ours = predict(teacher, data, data.test, batch_size=5)
    assert torch.equal(
        ours.parameters, predict(teacher, stored, stored.test, batch_size=5).parameters
    )
    assert survey(data) == survey(stored)
    assert sheet(data) == sheet(stored)
    monkeypatch.setattr("extracurricular.assess.survey.SAMPLE", 20)
    found = survey(data)
    assert found.looked_at == {"train": 20}
    assert sum(found.counts["train"]) == found.sizes["train"] == len(data.train)
    told = [line for line in lines(data, found) if isinstance(line, str)]
    assert any(f"come from 20 of {len(data.train)} in train, spread evenly" in t for t in told)


def test_a_fingerprint_is_that_of_the_files(tmp_path: Path) -> None:
    root = photographs(tmp_path / "a", 3, 2)

    def print_of(**settings: Any) -> str:
        return data_fingerprint(imagefolder(str(root), 8, stream=True, **settings))

    first = print_of()
    assert print_of(workers=1) == first
    assert print_of(draft=False) != first
    file = next(root.glob("*/*.jpg"))
    file.write_bytes(file.read_bytes() + b"\0")
    assert print_of() != first


# Random parts


@given(st.integers(0, 2**64 - 1), st.integers(1, 3000), st.integers(1, 3000))
def test_a_random_part_lies_in_the_image(word: int, width: int, height: int) -> None:
    (left, top, right, bottom), _ = random_box((width, height), USUAL, word)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert random_box((width, height), USUAL, word - 2**64) == random_box(
        (width, height), USUAL, word
    )


def test_random_parts_are_uniform_in_area_and_log_ratio() -> None:
    ids = torch.arange(4000)
    words = rng.bits(0, ids, "part").tolist()
    size = (100_000, 100_000)
    found = [random_box(size, Crop((0.1, 0.5), (0.5, 2.0), True), word) for word in words]
    box = torch.tensor([b for b, _ in found], dtype=torch.float64) / size[0]
    wide, tall = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    area = (wide * tall - 0.1) / 0.4
    ratio = ((wide / tall).log() / math.log(2) + 1) / 2
    for values in (area, ratio, box[:, 0] / (1 - wide), box[:, 1] / (1 - tall)):
        assert float(values.min()) + 1e-4 >= 0
        assert float(values.max()) <= 1 + 1e-4
        # Kolmogorov and Smirnov's distance of uniform numbers is above this once in 10^5.
        steps = torch.arange(1, 4001) / 4000
        assert float((values.sort().values - steps).abs().max()) < 2.5 / 4000**0.5
    assert 0.46 < sum(mirrored for _, mirrored in found) / 4000 < 0.54
    assert not any(random_box(size, Crop((0.1, 0.5), (0.5, 2.0), False), w)[1] for w in words)
    # Where none of ten tries fits: the largest part in the middle with an allowed ratio.
    assert random_box((1000, 10), USUAL, 1)[0] == (493, 0, 506, 10)
    assert random_box((10, 1000), USUAL, 1)[0] == (0, 493, 10, 506)


def test_a_worker_derives_bits_as_samplers_do() -> None:
    ids = torch.tensor([0, 5, 2**62])
    wanted = rng.bits(7, ids, "part", (41,))
    for key, row in zip(rng.bits(7, ids, "part").tolist(), wanted.tolist(), strict=True):
        assert [decoding._mixed(key, k) for k in range(41)] == [v % 2**64 for v in row]


def test_views_of_an_image(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    smooth = Image.fromarray(numbers.integers(0, 256, (6, 9, 3)).astype(np.uint8))
    large = smooth.resize((643, 421), Image.Resampling.BICUBIC)
    file = tmp_path / "a.jpg"
    large.save(file, quality=95)
    exact = View((3, 40, 50), draft=False)
    fitted = np.asarray(ImageOps.fit(Image.open(file), (50, 40), Image.Resampling.BICUBIC))
    assert np.array_equal(decoding.decode(file, exact), np.moveaxis(fitted, -1, 0))
    # A draft is nearly the same, and is only taken where it is large enough.
    drafted = decoding.decode(file, View((3, 40, 50)))
    difference = np.abs(drafted.astype(int) - decoding.decode(file, exact))
    assert difference.max() > 0
    assert difference.mean() < 1
    for side, shrunk in ((52, 8), (53, 4), (105, 4), (106, 2), (210, 2), (211, 1), (500, 1)):
        with Image.open(file) as image:
            decoding.view_bytes(image, View((3, side, side)))
            assert image.size == (-(-643 // shrunk), -(-421 // shrunk))
    # Half of the middle is the middle of what is twice as large.
    middle = large.crop((643 / 4, 421 / 4, 643 * 3 / 4, 421 * 3 / 4))
    middle.save(tmp_path / "b.png")
    large.save(tmp_path / "c.png")
    shown = decoding.decode(tmp_path / "c.png", View((3, 30, 46), centre=0.5))
    near = decoding.decode(tmp_path / "b.png", View((3, 30, 46)))
    assert np.abs(shown.astype(int) - near).mean() < 4


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_image_is_upright_first(tmp_path: Path, turn: int) -> None:
    numbers = np.random.default_rng(1)
    smooth = Image.fromarray(numbers.integers(0, 256, (4, 7, 3)).astype(np.uint8))
    exif = Image.Exif()
    exif[decoding._ORIENTATION] = turn
    file = tmp_path / "a.jpg"
    smooth.resize((320, 160), Image.Resampling.BICUBIC).save(file, exif=exif, quality=98)
    upright = ImageOps.exif_transpose(Image.open(file))
    upright.save(tmp_path / "b.png")
    for view in (View((3, 20, 24)), View((3, 20, 24), crop=USUAL)):
        turned = decoding.decode(file, view, 3).astype(int)
        assert np.abs(turned - decoding.decode(tmp_path / "b.png", view, 3)).mean() < 2


def test_inputs_are_the_same_one_by_one() -> None:
    scale = base.Affine(torch.tensor([120.0, 90, 7]).view(3, 1, 1), torch.rand(3, 1, 1) * 60)
    raw = torch.randint(0, 256, (5, 3, 17, 13), dtype=torch.uint8)
    out = torch.empty(raw.shape)
    scale.writer()(raw, out)
    assert torch.allclose(out, scale.apply(raw), atol=1e-6, rtol=1e-6)


def test_memory_is_used_again_when_nobody_looks_at_it_and_not_before() -> None:
    buffers = stream._Buffers()
    first = buffers.take((2, 3))
    place = first.data_ptr()
    view = first[1]
    del first
    assert buffers.take((2, 3)).data_ptr() != place
    del view
    assert buffers.take((3, 2)).data_ptr() != place
    assert place in [buffers.take((2, 3)).data_ptr() for _ in range(2)]


# Damage


@pytest.fixture
def farm(tmp_path: Path) -> Path:
    return photographs(tmp_path / "farm", 18, 3)


def break_some(root: Path, which: list[str]) -> None:
    for name in which:
        (root / name).write_bytes((root / name).read_bytes()[:200])


def test_a_damaged_image_is_fatal_by_its_name(farm: Path) -> None:
    data = imagefolder(str(farm), 8, stream=True, test=1, validation=0)
    names = images(data).names(torch.arange(len(data.train)))
    break_some(farm, [names[10]])
    for sampler in (Empirical(data), Mixup(ResizedCrop(data))):
        with pytest.raises(DataError, match=f"the image '{names[10]}' cannot be read: "):
            sampler(torch.arange(200))
    with pytest.raises(DataError, match=f"the image '{names[10]}' cannot be read: "):
        data.train.x[:]  # type: ignore[index]


def test_another_image_with_its_own_label_stands_for_a_damaged_one(farm: Path) -> None:
    whole = imagefolder(str(farm), 8, stream=True)
    kept = {part: images(whole, part)[:] for part in PARTS}
    names = {p: images(whole, p).names(torch.arange(len(kept[p]))) for p in PARTS}
    bad = [names["train"][k] for k in (3, 20, 21)] + [names["test"][0]]
    break_some(farm, bad)
    data = imagefolder(str(farm), 8, stream=True, damaged="skip")
    assert len(data.test) == len(whole.test) - 1
    assert torch.equal(images(data, "test")[:], kept["test"][1:])
    assert data.notes[0] == (
        f"test: 1 of {len(whole.test)} images cannot be read and are left out: '{bad[3]}'."
    )
    assert left_out_of_draws(data) == []
    count, ids = len(data.train), torch.arange(300)
    sampler = Empirical(data, seed=1)
    assert whole.train.y is not None
    drawn = sampler(ids)
    assert drawn.y is not None
    shown = (drawn.x * data.x_scale[""].scale + data.x_scale[""].shift).round().to(torch.uint8)
    known = {image.numpy().tobytes(): int(y)
             for image, y in zip(kept["train"], whole.train.y, strict=True)}  # fmt: skip
    assert [known[image.numpy().tobytes()] for image in shown] == drawn.y.tolist()
    lost = {kept["train"][k].numpy().tobytes() for k in (3, 20, 21)}
    assert not lost & {image.numpy().tobytes() for image in shown}
    assert left_out_of_draws(data) == [
        "3 damaged images were left out of 300 draws: "
        + ", ".join(repr(name) for name in sorted(bad[:3])) + "."
    ]  # fmt: skip
    assert left_out_of_draws(data) == []
    # Still a function of the id alone; others' images stay where they were.
    order = torch.randperm(300)
    assert torch.equal(sampler(ids[order]).x, drawn.x[order])
    other = imagefolder(str(farm), 8, stream=True, damaged="skip", workers=1)
    assert torch.equal(Empirical(other, seed=1)(ids[50:60]).x, drawn.x[50:60])
    before = sampler.index(ids)
    good = ~torch.isin(before, torch.tensor([3, 20, 21]))
    assert torch.equal(drawn.y[good], whole.train.y[before[good]])
    assert len(drawn.y[~good].unique()) > 1
    assert images(data)[torch.arange(count)].shape[0] == count


def test_nothing_but_damage_ends_and_a_bomb_is_damage(farm: Path) -> None:
    data = imagefolder(str(farm), 8, stream=True, damaged="skip", validation=0)
    files = sorted(farm.glob("*/*.jpg"))
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(DataError, match="20 images one after the other cannot be read, such as"):
        Empirical(data)(torch.arange(3))
    for file in files:
        file.write_bytes(bomb(40_000))
    with pytest.raises(DataError, match="as files made to fill the memory have"):
        imagefolder(str(farm), 8, stream=True, validation=0)


# Processes


def pictures(root: Path, count: int, view: View) -> list[Picture]:
    files = sorted(str(file) for file in root.glob("*/*.jpg"))
    return [Picture(files[k % len(files)], k // len(files), view) for k in range(count)]


def test_a_pool_holds_no_more_than_its_memory(photos: Path) -> None:
    view = View((3, 8, 8), crop=USUAL)
    pool = Workers(2, view.shape, memory=3 * 192 * 16)
    wanted = pictures(photos, 500, view)
    assert (pool.block, pool.slots) == (6, 8)
    seen: dict[int, Tensor] = {}
    # Far more than there is room for, in another order, and most of it never asked for.
    pool.announce(wanted[::-1])
    assert len(pool._blocks) == pool.slots
    assert pool.collect(wanted[:90], into(seen)) == {}
    assert sorted(seen) == list(range(90))
    for k in (0, 33, 89):
        assert torch.equal(seen[k], torch.from_numpy(decoding.decode(*reordered(wanted[k]))))
    pool.announce(wanted[100:130])
    again: dict[int, Tensor] = {}
    # One picture several times in a request, and a request for what was given before.
    pool.collect(
        [*wanted[100:104], *wanted[:4], wanted[100]],
        into(again),
    )
    assert torch.equal(again[0], again[8])
    assert all(torch.equal(again[4 + k], seen[k]) for k in range(4))
    assert len(pool._blocks) <= pool.slots
    assert len(pool._free) + len(pool._blocks) == pool.slots
    pool.close()
    with pytest.raises(DataError, match="were ended"):
        pool.collect(wanted[:1], lambda k, v: None)


def into(found: dict[int, Tensor]) -> Callable[[int, Tensor], None]:
    def put(k: int, images: Tensor) -> None:
        found.update({k + j: image.clone() for j, image in enumerate(images)})

    return put


def reordered(picture: Picture) -> tuple[str, View, int]:
    return picture.file, picture.view, picture.word


@pytest.mark.parametrize("announce", [False, True])
def test_a_killed_worker_ends_in_a_sentence_and_not_in_a_wait(photos: Path, announce: bool) -> None:
    data = imagefolder(str(photos), 9, stream=True, workers=2)
    pool = images(data).files.pool
    sampler = ResizedCrop(data)
    before = sampler(torch.arange(50)).x
    for process in pool._processes:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    if announce:
        sampler.announce(torch.arange(50))
    with pytest.raises(DataError, match="a worker process that decodes images has ended by SIGKI"):
        sampler(torch.arange(50))
    # Whoever asks again gets other workers.
    assert torch.equal(sampler(torch.arange(50)).x, before)


PROGRAM = """
import os, signal, sys, torch, warnings
from extracurricular.data.sets.imagefolder import imagefolder
from extracurricular.samplers import ResizedCrop
data = imagefolder(sys.argv[1], 8, stream=True, workers=2)
sampler = ResizedCrop(data)
sampler.announce(torch.arange(3000))
sampler(torch.arange(64))
print(*data.train.x.files.pool.processes, flush=True)
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of such forks
if sys.argv[2] == "fork" and os.fork() == 0:
    # A fork has a pool of its own; the parent's goes on.
    sampler(torch.arange(100, 164))
    os._exit(0)
if sys.argv[2] == "fork":
    assert os.wait()[1] == 0
    sampler(torch.arange(200, 264))
elif sys.argv[2] != "end":
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    sampler(torch.arange(10_000))
"""


@pytest.mark.parametrize("how", ["end", "SIGINT", "SIGTERM", "SIGKILL", "fork"])
def test_workers_end_with_the_process_however_it_ends(photos: Path, how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(photos), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # The workers hold the standard error too, so this is over when they are.
        out, err = process.communicate(timeout=120)
    workers = [int(pid) for pid in out.split()]
    assert len(workers) == 2
    if how not in ("SIGTERM", "SIGKILL"):  # orphans are for the system to clear away
        for pid in workers:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
    if how == "SIGINT":
        assert err.rstrip().endswith("KeyboardInterrupt")
        assert err.count("Traceback") == 1
    else:
        assert err == ""
    wanted = 0 if how in ("end", "fork") else -getattr(signal, how)
    assert process.returncode == wanted


def test_the_cpus_are_shared_by_what_torchrun_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert cpu_count() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert cpu_count() == 3


# A run


class Told:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def plan(self, steps: int, done: int) -> None: ...

    def begin(self, title: str, steps: int) -> None: ...

    def advance(self, title: str, step: int, loss: float | None) -> None: ...

    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None: ...

    def tell(self, text: str) -> None:
        self.lines.append(text)


def test_a_run_tells_of_damaged_images_once_a_stage(farm: Path, tmp_path: Path) -> None:
    data = imagefolder(str(farm), 8, stream=True)
    bad = images(data).names(torch.tensor([4]))
    break_some(farm, bad)
    training = {"steps": 12, "batch_size": 16, "lr": 0.01}
    recipe = parse_recipe(
        {
            "name": "farm",
            "data": {"imagefolder": {"path": str(farm), "size": 8, "stream": True,
                                     "damaged": "skip"}},
            "seeds": [0],
            "teacher": {"model": {"mlp": {"hidden": [8]}}, "training": training,
                        "record": {"draws": 200}},
            "defaults": {"model": {"mlp": {"hidden": [4]}}, "training": training},
            "students": {"kd": {"sampler": ["resized_crop", "mixup"]},
                         "erm": {"learns_from": "labels"}},
        }
    )  # fmt: skip
    told = Told()
    execute(recipe, tmp_path / "run", told)
    damage = [line for line in told.lines if "damaged" in line]
    # The teacher, the record, and both students.
    assert len(damage) == 4
    assert all(line.startswith("1 damaged image was left out of ") for line in damage)
    assert all(line.endswith(f"draws: '{bad[0]}'.") for line in damage)
