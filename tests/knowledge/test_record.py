"""Records: the right row for every draw, whatever was interrupted, and refusal of all else."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.distributions import Categorical, Distribution, Gaussian
from extracurricular.errors import NoteWarning, StorageError, TrainingError, XclError
from extracurricular.files import read_json, write_json
from extracurricular.knowledge import (
    Recorded,
    RecordedEnsemble,
    RecordOptions,
    Replay,
    cycled_ids,
    data_fingerprint,
    describe,
    open_knowledge,
    price_lines,
    record,
    teacher_fingerprint,
)
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.knowledge.manifest import Origin, Shard, read_manifest
from extracurricular.knowledge.store import Recording
from extracurricular.matching import Matching
from extracurricular.models import build_model
from extracurricular.samplers import Batch, CutMix, Empirical, Mixup
from extracurricular.teachers import Ensemble, Labels, MCDropout, Network
from extracurricular.training import Training, train
from tests.conftest import eye_data, image_data, table_data

IMAGES = image_data()


def network(seed: int = 0, data: Data = IMAGES, dropout: float = 0.0) -> Network:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 4)
    )
    return Network(module, data.task)


def sampler(seed: int = 3) -> Mixup:
    return Mixup(Empirical(IMAGES, seed=seed), seed=seed)


def small(folder: Path, draws: int = 300, shard: int = 128, **more: Any) -> Recorded:
    options = RecordOptions(shard=shard, chunk=more.pop("chunk", 50))
    record(sampler(), network(), IMAGES, draws, folder, options=options, **more)
    return open_knowledge(folder)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("draws-*.npy"))


# -- the right row for every draw ------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["float32", "float16", "uint8"])
def test_a_record_gives_back_what_the_teacher_said(tmp_path: Path, codec: str) -> None:
    known = small(tmp_path, codec=codec)
    assert known.draws == 300
    assert [(s.first, s.last) for s in map(Shard.parse, known.manifest.shards) if s] == [
        (0, 128), (128, 256), (256, 300),
    ]  # fmt: skip
    limit = {"float32": 1e-6, "float16": 1e-3, "uint8": 3e-2}[codec]
    for ids in (
        torch.arange(300),
        torch.arange(100, 270),
        torch.tensor([299, 0, 128, 127, 128]),
        torch.randperm(300),
        torch.tensor([7]),
        torch.arange(0),
    ):
        batch = sampler()(ids)
        said, kept = network()(batch), known(batch)
        assert isinstance(said, Categorical)
        assert isinstance(kept, Categorical)
        assert torch.allclose(said.log_probs, kept.log_probs, atol=limit)


def test_a_row_has_the_same_bits_in_any_batch(tmp_path: Path) -> None:
    known = small(tmp_path, codec="uint4")
    whole = known(Batch(torch.arange(300), torch.empty(300, 0)))
    order = torch.randperm(300)
    for k in range(0, 300, 37):
        ids = order[k : k + 37]
        part = known(Batch(ids, torch.empty(len(ids), 0)))
        assert torch.equal(part.parameters, whole[ids].parameters)


def test_gaussians_of_a_dict_input(tmp_path: Path) -> None:
    data = eye_data()
    module = build_model("mlp", inputs=data.shapes, outputs=4)
    source, teacher = Empirical(data), Network(module, data.task)
    report = record(source, teacher, data, 70, tmp_path, codec="float32")
    assert report.bytes_per_draw == 16
    batch = source(torch.arange(70))
    kept = open_knowledge(tmp_path, data=data, sampler=source, teacher=teacher)(batch)
    assert isinstance(kept, Gaussian)
    assert torch.allclose(kept.parameters, teacher(batch).parameters, atol=1e-6)


def test_every_member_of_an_ensemble(tmp_path: Path) -> None:
    teacher = Ensemble([network(5), network(6)])
    record(sampler(), teacher, IMAGES, 60, tmp_path, members=True, codec="float32")
    known = open_knowledge(tmp_path)
    assert isinstance(known, RecordedEnsemble)
    batch = sampler()(torch.arange(60))
    for a, b in zip(known.members(batch), teacher.members(batch), strict=True):
        assert torch.allclose(a.mean, b.mean, atol=1e-6)
    assert torch.allclose(known(batch).mean, teacher(batch).mean, atol=1e-6)
    with pytest.raises(ValueError, match="the teacher has no members"):
        record(sampler(), network(), IMAGES, 60, tmp_path / "b", members=True)


def test_the_price_is_measured_and_kept(tmp_path: Path) -> None:
    report = record(sampler(), network(), IMAGES, 200, tmp_path, codec="uint4", temperature=4.0)
    assert report.price == read_manifest(tmp_path).price
    assert report.price.sample == report.price.draws == 200
    known, batch = open_knowledge(tmp_path), sampler()(torch.arange(200))
    for t in (1.0, 4.0):
        said, kept = network()(batch), known(batch)
        kl = said.tempered(t).kl(kept.tempered(t))  # type: ignore[arg-type]
        assert report.price.kl[str(t)]["mean"] == pytest.approx(float(kl.mean()), rel=1e-3)
        assert report.price.kl[str(t)]["worst"] == pytest.approx(float(kl.max()), rel=1e-3)
    assert price_lines(report)[1].startswith("KL(teacher ‖ stored) at T = 4: mean ")


def test_a_record_that_costs_too_much_is_told_of_to_its_maker_and_to_its_reader(
    tmp_path: Path,
) -> None:
    def unsure(batch: Batch) -> Distribution:
        return Categorical(torch.tensor([0.0, 1.0, 1.5, 2.0]).expand(len(batch), 4))

    options = RecordOptions(teacher_id="unsure")
    one = {"topk": {"k": 1}}
    report = record(sampler(), unsure, IMAGES, 50, tmp_path, codec=one, options=options)
    assert report.note is not None
    assert "more than the 0.05 that this codec should cost" in report.note
    known = open_knowledge(tmp_path)
    with pytest.warns(NoteWarning, match="nats from the teacher's at T = 1"):
        known.replay(sampler())
    fine = record(sampler(), unsure, IMAGES, 50, tmp_path / "b", codec="uint8", options=options)
    assert fine.note is None
    open_knowledge(tmp_path / "b").replay(sampler())


def test_masked_classes_are_recorded_whatever_masks_them(tmp_path: Path) -> None:
    def masks(batch: Batch) -> Distribution:
        logits = torch.tensor([0.0, 1.0, -1e4, -torch.inf])
        return Categorical(logits.expand(len(batch), 4))

    options = RecordOptions(teacher_id="masks")
    report = record(sampler(), masks, IMAGES, 20, tmp_path, codec="uint4", options=options)
    assert report.price.kl["1.0"]["worst"] < 1e-4
    kept = open_knowledge(tmp_path)(sampler()(torch.arange(3)))
    assert isinstance(kept, Categorical)
    assert float(kept.probs[:, 2:].max()) == 0.0


def test_a_record_of_the_first_format_goes_on_and_is_then_of_the_second(tmp_path: Path) -> None:
    small(tmp_path, draws=100, codec="uint8")
    assert read_manifest(tmp_path).format == 2
    rewrite(tmp_path, lambda m: m.update(format=1))
    before = open_knowledge(tmp_path)(sampler()(torch.arange(100)))
    known = small(tmp_path, draws=200, codec="uint8")
    assert known.manifest.format == 2
    after = known(sampler()(torch.arange(100)))
    assert torch.equal(before.parameters, after.parameters)
    small(tmp_path / "floats", draws=20)
    assert read_manifest(tmp_path / "floats").format == 1


def test_nan_of_the_teacher_is_told_with_its_draws_and_is_not_recorded(tmp_path: Path) -> None:
    def broken(batch: Batch) -> Distribution:
        logits = torch.zeros(len(batch), 4)
        logits[batch.ids == 77, 1] = float("nan")
        return Categorical(logits)

    options = RecordOptions(teacher_id="broken", shard=50, chunk=20)
    with pytest.raises(TrainingError, match="NaN or infinity for 1 of 20 draws: ids 77"):
        record(sampler(), broken, IMAGES, 100, tmp_path, options=options)
    assert read_manifest(tmp_path).draws == 50


@pytest.mark.parametrize("name", ["draws", "shard", "chunk"])
def test_counts_below_one_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        small(tmp_path, **{name: 0})
    assert not list(tmp_path.iterdir())


# -- going through it again ------------------------------------------------------------------------


def test_every_pass_has_each_draw_once_in_an_order_of_its_own() -> None:
    ids = cycled_ids(torch.arange(5 * 97), 97).view(5, 97)
    assert torch.equal(ids[0], torch.arange(97))
    assert all(sorted(row) == list(range(97)) for row in ids.tolist())
    assert len({tuple(row) for row in ids.tolist()}) == 5
    assert not torch.equal(cycled_ids(torch.arange(97, 194), 97, seed=1), ids[1])
    assert torch.equal(cycled_ids(torch.tensor([200, 3]), 97), ids.flatten()[[200, 3]])


class Watch(nn.Module):
    """A student that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.clone())
        y: Tensor = self.net(x)
        return y


def test_law_2_holds_through_replay(tmp_path: Path) -> None:
    """More steps than draws: what the student hears is still of the very example it sees."""
    known = small(tmp_path, codec="float32")
    heard: list[Distribution] = []

    def listen(batch: Batch) -> Distribution:
        heard.append(known(batch))
        return heard[-1]

    student = Watch()
    train(
        student, known.replay(sampler()), listen, IMAGES.task,
        settings=Training(steps=80, batch_size=10, lr=0.01),
    )  # fmt: skip
    shown = torch.cat(student.seen)
    assert len(shown) == 800
    said = network()(Batch(torch.arange(800), shown))
    kept = torch.cat([d.parameters for d in heard])
    assert torch.allclose(Categorical(kept).probs, said.mean, atol=1e-5)


def test_law_1_holds_through_replay(tmp_path: Path) -> None:
    replay, ids = Replay(sampler(), 97, seed=2), torch.randperm(500)
    whole = replay(torch.arange(500))
    part = replay(ids)
    assert torch.equal(part.x, whole.x[ids])  # type: ignore[index]
    assert torch.equal(part.ids, whole.ids[ids])
    assert torch.equal(part.x, sampler()(part.ids).x)  # type: ignore[arg-type]


def test_a_draw_that_was_not_recorded_is_refused(tmp_path: Path) -> None:
    known = small(tmp_path)
    for wrong in (300, -1, 2**40):
        with pytest.raises(StorageError, match=rf"draw {wrong} is not in .* draws 0 to 299; rec"):
            known(sampler()(torch.tensor([5, wrong % 2**62 if wrong > 0 else wrong])))
    with pytest.raises(ValueError, match="draws is 0; it must be at least 1"):
        Replay(sampler(), 0)
    with pytest.raises(ValueError, match="start is -1"):
        Replay(sampler(), 5, start=-1)


def test_a_replay_may_begin_with_an_order_of_its_own() -> None:
    ids = torch.arange(97)
    first = Replay(sampler(), 97, seed=2, start=1)(ids).ids
    assert torch.equal(first, Replay(sampler(), 97, seed=2)(ids + 97).ids)
    assert sorted(first.tolist()) == ids.tolist() != first.tolist()


class Losses(Matching):
    """A loss that remembers its values."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        object.__setattr__(self, "values", [])

    def __call__(self, *arguments: Any, **more: Any) -> Tensor:
        loss = super().__call__(*arguments, **more)
        self.values.append(float(loss.detach()))  # type: ignore[attr-defined]
        return loss


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_training_from_float16_follows_training_online(tmp_path: Path, temperature: float) -> None:
    teacher = Ensemble([network(5), network(6)])
    record(sampler(), teacher, IMAGES, 1600, tmp_path)
    known = open_knowledge(tmp_path, data=IMAGES, sampler=sampler(), teacher=teacher)
    curves = []
    for source, given in ((sampler(), teacher), (known.replay(sampler()), known)):
        torch.manual_seed(1)
        student = build_model("mlp", inputs=IMAGES.shapes, outputs=4)
        matching = Losses(temperature=temperature)
        train(
            student, source, given, IMAGES.task, matching=matching,
            settings=Training(steps=100, batch_size=16, lr=0.02),
        )  # fmt: skip
        curves.append(matching.values)  # type: ignore[attr-defined]
    online, replayed = map(np.array, curves)
    assert len(online) == 100
    assert np.abs(replayed / online - 1).max() < 1e-3


# -- choices of a sampler that chooses -------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    batch: Batch
    index: Tensor
    prediction: Distribution | None = None


@dataclass(frozen=True)
class Picky:
    """Of three draws, one that a costly score picks; it counts how often it scores."""

    child: Any
    scored: list[int] = field(default_factory=list)
    seed: int = 0

    def __call__(self, ids: Tensor) -> Batch:
        return self.choose(ids).batch

    def choose(self, ids: Tensor) -> Chosen:
        self.scored.append(len(ids))
        index = rng.integer(3, self.seed, ids, "picky")
        return Chosen(self.replay(ids, index), index)

    def replay(self, ids: Tensor, index: Tensor) -> Batch:
        return replace(self.child(ids + index * 1000), ids=ids)


class Counting:
    """A teacher that counts the draws it is asked about."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, batch: Batch) -> Distribution:
        self.asked += len(batch)
        return network()(batch)


@dataclass(frozen=True)
class Asking(Picky):
    """One that asks a teacher to choose."""

    teacher: Any = None

    def __init__(self, child: Any, teacher: Any) -> None:
        for name, value in (("child", child), ("scored", []), ("seed", 0), ("teacher", teacher)):
            object.__setattr__(self, name, value)

    def choose(self, ids: Tensor) -> Chosen:
        chosen = super().choose(ids)
        return replace(chosen, prediction=self.teacher(chosen.batch))


def test_choices_are_recorded_and_not_made_again(tmp_path: Path) -> None:
    picky = Picky(sampler())
    told = RecordOptions(description={"picky": 3})
    record(picky, network(), IMAGES, 120, tmp_path, codec="float32", options=told)
    known = open_knowledge(tmp_path)
    assert known.manifest.bytes_per_draw == 4 * 4 + 1
    ids = torch.arange(120)
    assert torch.equal(known.choices(ids), picky.choose(ids).index)
    before = sum(picky.scored)
    replay = known.replay(picky)
    batch = replay(torch.arange(360))
    assert sum(picky.scored) == before
    assert torch.equal(batch.x, picky(batch.ids).x)  # type: ignore[arg-type]
    assert torch.allclose(network()(batch).mean, known(batch).mean, atol=1e-6)
    # Who chose by asking this teacher has its answer; no other teacher's is taken for it.
    for asked in (True, False):
        teacher = Counting()
        chooser = Asking(sampler(), teacher if asked else Counting())
        source = tmp_path / str(asked)
        named = RecordOptions(description="a", teacher_id="b")
        report = record(chooser, teacher, IMAGES, 40, source, options=named)
        assert report.recorded == 40
        assert teacher.asked == (80 + 40 if asked else 80)
    with pytest.raises(ValueError, match="does not choose among candidates"):
        known.replay(sampler())
    with pytest.raises(StorageError, match="choice = False"):
        small(tmp_path / "plain").choices(ids)


def test_draws_that_depend_on_the_student_cannot_be_recorded(tmp_path: Path) -> None:
    class Impure:
        pure = False

        def __call__(self, ids: Tensor) -> Batch:
            return sampler()(ids)

    with pytest.raises(ValueError, match="depend on the student in training"):
        record(Impure(), network(), IMAGES, 10, tmp_path)


# -- what was recorded, and what is refused --------------------------------------------------------


def test_what_differs_is_refused_with_both_values(tmp_path: Path) -> None:
    folder = tmp_path / "knowledge"
    small(folder)
    classes = replace(IMAGES, classes=("a", "b", "c", "d"))
    x = IMAGES.train.x
    assert isinstance(x, Tensor)
    pixel = x.clone()
    pixel[3, 0, 2, 2] ^= 1
    other = replace(IMAGES, train=replace(IMAGES.train, x=pixel))
    for wanted, said in (
        ({"sampler": sampler(4)}, r"seed = 3, but here it is 4; record again in another folder"),
        ({"seed": 5}, "seed = 3, but here it is 5"),
        ({"sampler": Mixup(Empirical(IMAGES, 3), 0.4, 3)}, "sampler.Mixup.alpha = None, .* 0.4"),
        ({"sampler": CutMix(Empirical(IMAGES, 3), seed=3)}, "sampler.CutMix = None"),
        ({"data": classes}, r"classes = \[\], but here it is \['a', 'b', 'c', 'd'\]"),
        ({"data": other}, "data = '[0-9a-f]{32}', but here it is '[0-9a-f]{32}'"),
        ({"data": table_data()}, "kind = 'classification', but here it is 'regression'"),
        ({"data": image_data(classes=5)}, "size = 4, but here it is 5"),
        ({"teacher": network(1)}, "teacher = '[0-9a-f]{32}', but here it is '[0-9a-f]{32}'"),
        ({"teacher": "mine"}, "teacher = '[0-9a-f]{32}', but here it is 'mine'"),
    ):
        with pytest.raises(StorageError, match=said):
            open_knowledge(folder, **wanted)  # type: ignore[arg-type]
    good = {"data": IMAGES, "sampler": sampler(), "teacher": network()}
    assert open_knowledge(folder, **good).draws == 300  # type: ignore[arg-type]
    # Recording refuses to add to another record, too, and leaves it as it was.
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    for arguments, more, said in (
        ((sampler(4), network(), IMAGES), {}, "seed = 3, but here it is 4"),
        ((sampler(), network(1), IMAGES), {}, "teacher = "),
        ((sampler(), network(), classes), {}, "classes = "),
        ((sampler(), network(), IMAGES), {"codec": "uint8"}, "codec = 'float16', .* 'uint8'"),
    ):
        with pytest.raises(StorageError, match=said):
            record(*arguments, 400, folder, **more)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before


def test_another_format_is_refused(tmp_path: Path) -> None:
    small(tmp_path)
    rewrite(tmp_path, lambda m: m.update(format=3))
    with pytest.raises(StorageError, match="format = 3, but this version reads format = 1 and 2"):
        open_knowledge(tmp_path)


def test_fingerprints_depend_on_contents_alone() -> None:
    assert data_fingerprint(IMAGES) == data_fingerprint(image_data())
    assert data_fingerprint(eye_data()) != data_fingerprint(eye_data(41))
    renamed = replace(IMAGES, name="else", test=IMAGES.train)
    assert data_fingerprint(renamed) == data_fingerprint(IMAGES)
    assert data_fingerprint(replace(IMAGES, x_scale={"": IMAGES.x_scale[""]})) == (
        data_fingerprint(IMAGES)
    )
    thin = network(dropout=0.5).module
    teachers = [
        network(0), network(1), Labels(), Ensemble([network(0)]),
        Ensemble([network(0), network(1)]), Ensemble([network(1), network(0)]),
        MCDropout(thin, IMAGES.task, 2), MCDropout(thin, IMAGES.task, 3),
        MCDropout(thin, IMAGES.task, 2, seed=1),
    ]  # fmt: skip
    assert len({teacher_fingerprint(t) for t in teachers}) == len(teachers)
    assert teacher_fingerprint(network(0)) == teacher_fingerprint(network(0))
    with pytest.raises(ValueError, match=r"the teacher is a function, .* give teacher_id"):
        teacher_fingerprint(lambda batch: batch)


def test_samplers_are_described_by_what_differs_from_defaults() -> None:
    found = describe(Mixup(Empirical(IMAGES, seed=7), alpha=0.4))
    inside = {"data": {"data": data_fingerprint(IMAGES)}, "seed": 7}
    assert found == {"Mixup": {"child": {"Empirical": inside}, "alpha": 0.4, "seed": 0}}
    with pytest.raises(ValueError, match="describe the sampler yourself"):
        describe(lambda ids: ids)


# -- interruptions ---------------------------------------------------------------------------------

SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from tests.knowledge.test_record import IMAGES, network, sampler
from extracurricular.knowledge import RecordOptions, record
print("ready", flush=True)
sys.stdin.readline()
options = RecordOptions(shard={shard}, chunk=16)
record(sampler(), network(), IMAGES, {draws}, {folder!r}, options=options)
"""


def begin(folder: Path, count: int, draws: int = 2000) -> list[subprocess.Popen[str]]:
    """Processes that are ready to record, once a line is written to them."""
    processes = [start(folder, draws) for _ in range(count)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    return processes


def start(folder: Path, draws: int = 2000, shard: int = 64) -> subprocess.Popen[str]:
    code = SCRIPT.format(
        tests=str(Path(__file__).parents[2]), draws=draws, folder=str(folder), shard=shard
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def whole_and_right(folder: Path, draws: int) -> None:
    """No draw is lost or doubled, and each row is that of its draw."""
    known = open_knowledge(folder, data=IMAGES, sampler=sampler(), teacher=network())
    assert known.draws == draws
    ranges = [(s.first, s.last) for s in (Shard.parse(f.name) for f in folder.iterdir()) if s]
    assert sum(b - a for a, b in ranges) == draws
    batch = sampler()(torch.arange(draws))
    said, kept = network()(batch), known(batch)
    assert float(said.kl(kept).max()) < 1e-5  # type: ignore[arg-type]
    left = {f.name for f in folder.iterdir()} - set(known.manifest.shards)
    assert left == {"manifest.json", ".lock"}


def test_killed_at_random_moments_it_goes_on(tmp_path: Path) -> None:
    chance = random.Random(0)
    done = [0]
    for process in begin(tmp_path, 3, draws=20_000):
        before = len(shards(tmp_path))
        go(process)
        # At work for sure, and far from the end, however fast the machine is.
        while len(shards(tmp_path)) < before + 2:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done.append(read_manifest(tmp_path).draws)
    assert done == sorted(done)
    assert 0 < done[-1] < 20_000
    options = RecordOptions(shard=64, chunk=16)
    record(sampler(), network(), IMAGES, done[-1] + 500, tmp_path, options=options)
    whole_and_right(tmp_path, done[-1] + 500)


def test_several_processes_share_the_work_and_one_may_die(tmp_path: Path) -> None:
    processes = begin(tmp_path, 3)
    for process in processes:
        go(process)
    time.sleep(0.3)
    processes[0].send_signal(signal.SIGKILL)
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process is processes[0] or process.returncode == 0, errors
    whole_and_right(tmp_path, 2000)


def test_more_draws_append_and_fewer_change_nothing(tmp_path: Path) -> None:
    small(tmp_path, draws=200)
    first = {f.name: f.stat().st_mtime_ns for f in shards(tmp_path)}
    done: list[int] = []
    options = RecordOptions(shard=128, chunk=50, on_progress=done.append)
    report = record(sampler(), network(), IMAGES, 450, tmp_path, options=options)
    assert report.recorded == 250
    assert report.draws == 450
    assert done[0] > 200
    assert done[-1] == 450
    assert first.items() <= {f.name: f.stat().st_mtime_ns for f in shards(tmp_path)}.items()
    whole_and_right(tmp_path, 450)
    other = RecordOptions(shard=32)
    assert record(sampler(), network(), IMAGES, 100, tmp_path, options=other).recorded == 0
    whole_and_right(tmp_path, 450)


def test_a_full_disk_is_told_and_what_is_there_stays_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, [0]

    def full(file: int) -> None:
        calls[0] += 1
        if calls[0] > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StorageError, match="No space left on device; the draws recorded so f"):
            small(tmp_path, draws=1000)
    kept = open_knowledge(tmp_path)
    assert kept.draws in (128, 256)
    assert not list(tmp_path.glob(".*.part"))
    small(tmp_path, draws=1000)
    whole_and_right(tmp_path, 1000)


def test_an_old_shard_is_written_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["extracurricular.knowledge.recorder"], "_SHARD_SECONDS", 0.0)
    small(tmp_path, draws=200)
    assert len(shards(tmp_path)) == 5
    whole_and_right(tmp_path, 200)


def test_a_shard_that_no_manifest_names_yet_is_taken_up(tmp_path: Path) -> None:
    """As after an interruption between the two."""
    small(tmp_path)
    (tmp_path / "manifest.json").unlink()
    report = record(sampler(), network(), IMAGES, 300, tmp_path)
    assert report.recorded == 0
    whole_and_right(tmp_path, 300)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(StorageError, match="is damaged, cut short, or of another record"):
        record(sampler(), network(1), IMAGES, 300, tmp_path)


# -- damage ----------------------------------------------------------------------------------------


def test_a_changed_byte_is_detected_or_harmless(tmp_path: Path) -> None:
    """1,000 random ones over shards and manifest: none is silently used."""
    known = small(tmp_path)
    everything = Batch(torch.arange(300), torch.empty(300, 0))
    rows, manifest = known.store.rows(everything.ids), known.manifest
    files = [*shards(tmp_path), tmp_path / "manifest.json"]
    contents = [f.read_bytes() for f in files]
    chance = random.Random(1)
    detected = 0
    for _ in range(1000):
        number = chance.randrange(len(files))
        place, flip = chance.randrange(len(contents[number])), chance.randrange(1, 256)
        damaged = bytearray(contents[number])
        damaged[place] ^= flip
        files[number].write_bytes(bytes(damaged))
        read = said = None
        try:
            read = open_knowledge(tmp_path)
        except StorageError as error:
            said = str(error)
        if read is None:
            assert files[number].name in str(said)
            detected += 1
        else:
            assert files[number].name == "manifest.json"
            assert read.manifest == manifest
            assert torch.equal(read.store.rows(everything.ids), rows)
        files[number].write_bytes(contents[number])
    assert detected > 900
    assert open_knowledge(tmp_path).manifest == manifest


def test_a_shard_that_is_cut_short_too_long_or_missing_is_named(tmp_path: Path) -> None:
    small(tmp_path)
    second = shards(tmp_path)[1]
    content = second.read_bytes()
    for wrong in (content[:-1], content[:100], b"", content + b"\0"):
        second.write_bytes(wrong)
        with pytest.raises(
            StorageError, match=f"{second.name}' is damaged, cut short, or of anoth"
        ):
            open_knowledge(tmp_path)
        with pytest.raises(StorageError, match=f"{second.name}' is damaged"):
            small(tmp_path)
    second.unlink()
    with pytest.raises(StorageError, match=f"{second.name}' is missing; record again"):
        open_knowledge(tmp_path)
    small(tmp_path)
    whole_and_right(tmp_path, 300)
    assert second.read_bytes() == content


def test_shards_under_each_others_names_are_found_out(tmp_path: Path) -> None:
    small(tmp_path)
    first, second, _ = shards(tmp_path)
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    with pytest.raises(StorageError, match="is damaged"):
        open_knowledge(tmp_path)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest and give it a checksum that fits, as one who means harm would."""
    value = read_json(folder / "manifest.json")
    del value["sha256"]
    change(value)
    value["sha256"] = hashlib.sha256(canonical(value)).hexdigest()
    write_json(folder / "manifest.json", value)


@pytest.mark.parametrize(
    "name",
    [
        "../draws-000000000000-000000000300.{d}.npy",
        "/etc/passwd",
        "sub/draws-000000000000-000000000300.{d}.npy",
        "draws-000000000000-000000000300.{d}.npy/../../x",
        "draws-000000000000-000000000300.{d}.npy\n",
        "draws-000000000300-000000000000.{d}.npy",
        "draws-000000000000-000000000300.{d}.pkl",
        "",
        5,
    ],
)
def test_names_in_a_manifest_cannot_leave_the_folder(tmp_path: Path, name: object) -> None:
    folder = tmp_path / "knowledge"
    small(folder)
    if isinstance(name, str):
        name = name.format(d="0" * 32)
    rewrite(folder, lambda m: m.update(shards=[name], draws=300))
    with pytest.raises(StorageError, match=r"manifest\.json' (names a shard|has shards)"):
        open_knowledge(folder)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "knowledge"
    small(folder)
    first = shards(folder)[0]
    moved = first.rename(tmp_path / first.name)
    first.symlink_to(moved)
    with pytest.raises(StorageError, match="is a link out of its folder"):
        open_knowledge(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(draws=299), "has draws = 299, but its shards hold 300"),
        (lambda m: m.update(draws=-1), "draws = -1"),
        (lambda m: m.update(shards=m["shards"] * 2), "names shards that overlap"),
        (lambda m: m.update(shards=m["shards"][1:]), "its shards hold 0 without a gap"),
        (lambda m: m.update(more=1), "has more = 1"),
        (lambda m: m["origin"].update(size="4"), "has origin.size = '4'"),
        (lambda m: m["origin"].update(size=5), "is damaged, cut short, or of another record"),
        (lambda m: m.update(bytes_per_draw=9), "does not hold bytes of shape"),
        (lambda m: m.pop("origin"), "has origin"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    small(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(StorageError, match=said):
        open_knowledge(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"a": NaN}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    small(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"manifest\.json' is damaged"):
        open_knowledge(tmp_path)
    with pytest.raises(StorageError, match=r"manifest\.json' is missing"):
        open_knowledge(tmp_path / "nowhere")


def test_law_7_a_shard_is_never_unpickled(tmp_path: Path) -> None:
    """Even one whose checksum fits."""
    mark = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return (eval, (f"__import__('pathlib').Path({str(mark)!r}).touch()",))

    folder = tmp_path / "knowledge"
    small(folder, draws=100)
    file = tmp_path / "bomb.npy"
    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    content = file.read_bytes()
    from extracurricular.knowledge.manifest import shard_name

    origin = read_manifest(folder).origin
    name = shard_name(origin, 0, 100, content)
    (folder / name).write_bytes(content)
    rewrite(folder, lambda m: m.update(shards=[name]))
    with pytest.raises(XclError, match="does not hold bytes of shape"):
        open_knowledge(folder)
    assert not mark.exists()
    np.load(file, allow_pickle=True)
    assert mark.exists(), "the attack would have worked"


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write to"):
        small(tmp_path / "file")


def test_an_empty_record_is_told(tmp_path: Path) -> None:
    origin = Origin(
        kind="classification", size=4, classes=[], data="", seed=0, sampler=None, teacher="",
        codec="float16",
    )  # fmt: skip
    with Recording(tmp_path, origin, "float16", 8):
        pass
    with pytest.raises(StorageError, match="holds no draws yet"):
        open_knowledge(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["draws"] == 0
