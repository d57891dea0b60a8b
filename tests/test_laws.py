"""The seven laws. Each has a test named after it that fails when the law is broken."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor, nn

from extracurricular.data.base import Data
from extracurricular.data.sets import DATA as DATA_SETS
from extracurricular.distributions import Categorical, Distribution, Gaussian, Task
from extracurricular.errors import XclError
from extracurricular.files import (
    Checkpoints,
    load_weights,
    read_json,
    save_weights,
    sha256,
    write_atomic,
)
from extracurricular.inputs import leaves
from extracurricular.matching import Matching
from extracurricular.recipe.read import parse_recipe, read_recipe, shipped_recipes
from extracurricular.samplers import SAMPLERS, Batch, Empirical, Sampler, build_sampler, is_pure
from extracurricular.samplers.base import announce
from extracurricular.teachers import Labels, Network
from extracurricular.training import Training, draws, step_ids, train
from tests.conftest import (
    eye_data,
    image_data,
    label_data,
    pair_data,
    row_data,
    small_context,
    soft_data,
    table_data,
)

CPU = Fabric(accelerator="cpu", devices=1)

# Chains that together hold every registered sampler; the first test below sees to it.
CHAINS: dict[str, list[object]] = {
    "empirical": ["empirical"],
    "balanced": ["balanced"],
    "balanced in part": [{"balanced": {"of": {"linear": [0.9, 0.3]}}}, {"noise": {"std": 0.1}}],
    "augment": ["empirical", {"augment": {"pad": 2, "flip": True}}],
    "noise": ["empirical", {"noise": {"std": 0.3}}],
    "noise relative": ["empirical", {"noise": {"std": 0.3, "relative": True}}],
    "mixup": ["empirical", {"mixup": {"alpha": 0.4}}],
    "cutmix": ["empirical", "cutmix"],
    "nested": ["empirical", {"augment": {"pad": 1}}, "mixup", "mixup", {"noise": {"std": 0.1}}],
    "affine": ["empirical", {"affine": {"degrees": 40, "shear": 0.2, "scale": [0.7, 1.2]}}],
    "cutout": ["empirical", "mixup", {"cutout": {"part": 0.4}}],
    "colour": ["empirical", {"colour": {"brightness": 0.8}}],
    "trivial_augment": ["empirical", "trivial_augment"],
    "rand_augment": ["empirical", "mixup", {"rand_augment": {"count": 3, "magnitude": 20}}],
    "weak": ["empirical", {"noise": {"std": 0.1}}, "weak", {"noise": {"std": 0.5}}],
    "swap": ["empirical", {"noise": {"std": 0.1}}, {"swap": {"p": 0.4}}],
    "neighbours": [{"neighbours": {"p": 0.7}}],
    "gibbs": ["empirical", {"gibbs": {"steps": 3, "count": 4}}],
    "neighbours of some": [{"neighbours": {"count": 5, "s": 1.0}}, {"swap": {"p": 0.3}}],
    "generated": [{"generated": {"generator": "model"}}],
    "generated between": [{"generated": {"generator": "model", "between": 0.5, "scale": 0.7}}],
    "pool": [{"pool": {"generator": "more"}}],
    "uncertain": ["empirical", {"noise": {"std": 0.3}}, {"uncertain": {"score": "entropy"}}],
    "uncertain drawn": [
        {"generated": {"generator": "model", "between": 1.0}},
        {"uncertain": {"score": "entropy", "candidates": 3, "tau": 0.01, "plain_share": 0.5}},
        "mixup",
    ],
    "blend": [
        {
            "blend": {
                "mixed": {"weight": 0.5, "sampler": ["empirical", "augment", "mixup"]},
                "cut": {"weight": 0.2, "sampler": ["empirical", "cutmix"]},
                "plain": {"weight": 0.3, "sampler": ["empirical"]},
            }
        },
        {"noise": {"std": 0.05}},
    ],
    "moving": [
        {
            "blend": {
                "mixed": {
                    "weight": {"linear": [0, 1]},
                    "sampler": ["empirical", {"mixup": {"alpha": {"cosine": [1, 0]}}}],
                },
                "plain": {
                    "weight": {"finish": {"value": 0.3, "then": 1, "at": 0.5}},
                    "sampler": ["empirical"],
                },
            }
        },
        {"uncertain": {"candidates": 2, "plain_share": {"linear": [0.9, 0.1]}}},
        {"mixup": {"alpha": {"linear": [0, 2]}}},
    ],
    "share": [
        {
            "share": {
                "of": {"linear": [0.2, 0.9]},
                "extended": ["empirical", "mixup", {"noise": {"std": 0.1}}],
                "plain": ["empirical"],
            }
        }
    ],
}
# The same for images that are decoded from their files as they are needed.
STREAMED: dict[str, list[object]] = {
    "empirical": ["empirical"],
    "balanced": [{"balanced": {"of": 0.7}}, {"augment": {"pad": 1}}],
    "resized_crop": [{"resized_crop": {"scale": [0.2, 0.9]}}],
    "operations": ["resized_crop", "trivial_augment", {"affine": {"degrees": 5}}, "cutout"],
    "weak": ["resized_crop", "weak", "trivial_augment", "cutout"],
    "mixed": ["resized_crop", {"mixup": {"alpha": 0.4}}, "cutmix", {"noise": {"std": 0.1}}],
    "uncertain": ["resized_crop", {"uncertain": {"score": "entropy", "candidates": 3}}],
    "blend": [
        {
            "blend": {
                "part": {"weight": 0.6, "sampler": ["resized_crop", "mixup"]},
                "whole": {"weight": 0.4, "sampler": ["empirical", {"augment": {"pad": 1}}]},
            }
        },
    ],
}
DATA: dict[str, Callable[[], Data]] = {
    "images": image_data,
    "tables": table_data,
    "labels": label_data,
    "soft": soft_data,
    "dict": eye_data,
    "tuple": pair_data,
}
NEEDS_IMAGES = {
    "augment", "cutmix", "nested", "blend", "affine", "cutout", "colour", "trivial_augment",
    "rand_augment",
}  # fmt: skip
NEEDS_COLUMNS = {"swap", "gibbs", "neighbours", "neighbours of some"}
TABLES = {"tables", "labels", "soft"}
# Real targets and several labels have no classes that could be balanced.
CASES = [
    (c, d)
    for c in CHAINS
    for d in DATA
    if c not in (NEEDS_IMAGES if d in TABLES else NEEDS_COLUMNS)
    and (not c.startswith("balanced") or DATA[d]().task.kind == "classification")
]


def built(chain: str, data: Data, seed: int) -> Sampler:
    return build_sampler(CHAINS[chain], data, seed, context=small_context(data))


def same(a: Batch, b: Batch) -> bool:
    def equal(x: Tensor | None, y: Tensor | None) -> bool:
        return (x is None and y is None) or (x is not None and y is not None and torch.equal(x, y))

    xs, ys = leaves(a.x), leaves(b.x)
    return (
        xs.keys() == ys.keys()
        and all(torch.equal(xs[k], ys[k]) for k in xs)
        and equal(a.ids, b.ids)
        and equal(a.y, b.y)
        and equal(a.weight, b.weight)
        and (a.classes, a.binary) == (b.classes, b.binary)
    )


def test_law_1_is_tested_for_every_registered_sampler() -> None:
    tested = yaml.safe_dump([CHAINS, STREAMED])
    own = [name for name in SAMPLERS.names() if ":" not in name]
    missing = [name for name in own if name not in tested]
    assert not missing, f"add a chain with {missing} to CHAINS"


@pytest.mark.parametrize(("chain", "data"), CASES)
def test_law_1_a_draw_is_a_pure_function_of_its_id(chain: str, data: str) -> None:
    check_law_1(lambda: built(chain, DATA[data](), seed=3))


def check_law_1(build: Callable[[], Sampler]) -> None:
    sampler = build()
    assert is_pure(sampler)
    ids = torch.cat([torch.arange(0, 40), torch.tensor([2**40, 2**62 + 1])])
    whole = sampler(ids)
    assert torch.equal(whole.ids, ids)
    # Not on the batch it is in, its order, or what was drawn before.
    order = torch.randperm(len(ids))
    assert same(sampler(ids[order]), whole[order])
    for k in (0, 7, 41):
        assert same(sampler(ids[k : k + 1]), whole[k : k + 1])
    # Not on the object: another process builds another one.
    assert same(build()(ids), whole)
    # What a batch holds is the same for no ids at all.
    assert same(sampler(ids[:0]), whole[:0])
    # Nor on, or for, torch's own generator.
    state = torch.random.get_rng_state()
    sampler(ids)
    assert torch.equal(torch.random.get_rng_state(), state)
    # And a repeated id is a repeated draw.
    assert same(sampler(ids[[5, 5]]), whole[[5, 5]])


def streaming(chain: str, data: Data, seed: int = 3) -> Sampler:
    return build_sampler(STREAMED[chain], data, seed, context=small_context(data))


@pytest.mark.parametrize("chain", list(STREAMED))
def test_law_1_holds_for_images_that_worker_processes_decode(
    chain: str, streamed_data: Callable[..., Data]
) -> None:
    check_law_1(lambda: streaming(chain, streamed_data()))
    ids = torch.randperm(70) + 30
    whole = streaming(chain, streamed_data())(ids)
    for workers in (1, 3):
        sampler = streaming(chain, streamed_data(workers))
        # Announced or not, in whatever order, and whether what was announced is asked for.
        for told in (ids[:0], ids[20:30], ids.flip(0), torch.arange(500)):
            announce(sampler, told)
            assert same(sampler(ids[:50]), whole[:50])
        assert same(sampler(ids), whole)


@pytest.mark.parametrize("chain", list(STREAMED))
def test_law_1_a_streamed_training_that_goes_on_sees_the_same_examples(
    chain: str, streamed_data: Callable[..., Data]
) -> None:
    data = streamed_data()
    settings = Training(steps=40, batch_size=6)
    sampler = streaming(chain, data)
    every = [b for b, _ in draws(sampler, Labels(), settings, 0, fabric=CPU)]
    assert [b.ids[0].item() for b in every] == list(range(0, 240, 6))
    for start in (17, 39):
        again = [b for b, _ in draws(streaming(chain, data), Labels(), settings, start, fabric=CPU)]
        assert len(again) == 40 - start
        assert all(same(a, b) for a, b in zip(again, every[start:], strict=True))


@pytest.mark.parametrize(("chain", "data"), CASES)
def test_law_1_other_seeds_give_other_draws(chain: str, data: str) -> None:
    ids = torch.arange(40)
    a, b = (built(chain, DATA[data](), seed=s)(ids) for s in (0, 1))
    assert not same(a, b)


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_law_1_one_device_and_many_see_the_same_examples(world: int) -> None:
    one = step_ids(5, 3, batch_size=16)
    many = [step_ids(5, 3, 16, rank, world).view(3, -1) for rank in range(world)]
    assert torch.equal(torch.cat(many, 1).flatten(), one)
    assert one.tolist() == list(range(80, 128))


def linear(shape: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(shape, outputs))


class Spy:
    """A teacher that remembers what it was asked."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.seen: dict[int, Tensor] = {}

    def __call__(self, batch: Batch) -> Distribution:
        assert isinstance(batch.x, Tensor)
        for k, i in enumerate(batch.ids.tolist()):
            self.seen[i] = batch.x[k].clone()
        return Categorical(torch.zeros(len(batch), self.task.size))


class Watch(nn.Module):
    """A student that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.net = linear(64, 4)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.clone())
        y: Tensor = self.net(x)
        return y


@pytest.mark.parametrize("chain", [c for c in CHAINS if c != "weak"])
def test_law_2_the_teacher_sees_the_very_example_the_student_sees(chain: str) -> None:
    data = row_data() if chain in NEEDS_COLUMNS else image_data()
    check_law_2(built(chain, data, 0), data.task)


@pytest.mark.parametrize("chain", [c for c in STREAMED if c != "weak"])
def test_law_2_holds_for_images_that_worker_processes_decode(
    chain: str, streamed_data: Callable[..., Data]
) -> None:
    data = streamed_data()
    check_law_2(streaming(chain, data), data.task)


def check_law_2(sampler: Sampler, task: Task) -> None:
    teacher, student = Spy(task), Watch()
    settings = Training(steps=20, batch_size=6, lr=0.01)
    train(student, sampler, teacher, task, settings=settings)
    shown = torch.cat(student.seen)
    assert len(shown) == len(teacher.seen) == 120
    assert torch.equal(shown, torch.stack([teacher.seen[i] for i in sorted(teacher.seen)]))


def unlabelled(sampler: Sampler) -> Sampler:
    def draw(ids: Tensor) -> Batch:
        batch = sampler(ids)
        return Batch(batch.ids, batch.x, None, batch.classes)

    return draw


def test_law_3_labels_are_optional() -> None:
    data = image_data()
    teacher = Network(linear(64, 4), data.task)
    results = []
    for sampler in (Empirical(data), unlabelled(Empirical(data))):
        torch.manual_seed(1)
        student = linear(64, 4)
        train(student, sampler, teacher, data.task, settings=Training(steps=5, lr=0.01))
        results.append(student.state_dict())
    assert all(torch.equal(results[0][k], results[1][k]) for k in results[0])
    with pytest.raises(ValueError, match="'labels', but the sampler gives examples without labels"):
        train(linear(64, 4), unlabelled(Empirical(data)), Labels(), data.task)


def test_law_4_one_loop_and_equal_budgets() -> None:
    """Every student takes the same number of steps on the same draws in the same order."""
    for name, text in shipped_recipes().items():
        loaded = yaml.safe_load(text)
        recipe = parse_recipe(loaded)
        wanted = {"erm", "kd", "xcl"}
        if name.endswith("-ablation"):
            ways = {"kd", "mixed", "generated", "both"}
            wanted = {"erm", *ways, *(f"{way}-uncertain" for way in ways)}
            assert len(recipe.seeds) >= 5
        assert set(recipe.students) >= wanted
        assert recipe.evaluation.split == "test"
        assert len(recipe.seeds) >= 3
        for budget in ("full", *loaded.get("budgets", {})):
            students = parse_recipe(loaded, [f"budget={budget}"]).students.values()
            # The rate alone may differ, as each baseline is tuned by itself.
            budgets = {s.training.model_dump_json(exclude={"lr"}) for s in students}
            models = {str(s.model) for s in students}
            assert len(budgets) == len(models) == 1, (name, budget)
    data = image_data()
    settings = Training(steps=7, batch_size=4)
    for teacher in (Labels(), Network(linear(64, 4), data.task)):
        ids = [
            batch.ids.tolist()
            for batch, _ in draws(Empirical(data), teacher, settings, 0, fabric=CPU)
        ]
        assert ids == [list(range(4 * s, 4 * s + 4)) for s in range(7)]


def test_law_4_labels_as_a_teacher_are_plain_training() -> None:
    """ERM through the loop is SGD on the cross-entropy, or on the Gaussian NLL."""
    for data, outputs in ((image_data(), 4), (table_data(), 4)):
        size = 64 if outputs == 4 and data.task.kind == "classification" else 5
        torch.manual_seed(2)
        student, plain = linear(size, data.task.outputs), linear(size, data.task.outputs)
        plain.load_state_dict(student.state_dict())
        settings = Training(steps=6, batch_size=8, lr=0.05, momentum=0.0, weight_decay=0.0)
        sampler = Empirical(data)
        matching = Matching(beta=0.0)
        train(student, sampler, Labels(), data.task, matching=matching, settings=settings)
        for step in range(6):
            batch = sampler(torch.arange(8 * step, 8 * step + 8))
            out = plain(batch.x)
            assert batch.y is not None
            if data.task.kind == "classification":
                loss = nn.functional.cross_entropy(out, batch.y)
            else:
                mean, log_var = out.chunk(2, 1)
                loss = nn.functional.gaussian_nll_loss(
                    mean, batch.y, log_var.exp(), full=True, reduction="none", eps=0
                ).sum(1).mean()  # fmt: skip
            plain.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            rate = 0.05 * 0.5 * (1 + np.cos(np.pi * step / 6))
            with torch.no_grad():
                for p in plain.parameters():
                    assert p.grad is not None
                    p -= rate * p.grad
        for a, b in zip(student.parameters(), plain.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_law_5_distributions_cross_the_borders() -> None:
    """Teachers give distributions; a network's raw output is read by the task alone."""
    data = image_data()
    batch = Empirical(data)(torch.arange(5))
    assert isinstance(Labels()(batch), Categorical)
    assert isinstance(Network(linear(64, 4), data.task)(batch), Categorical)
    table = table_data()
    rows = Empirical(table)(torch.arange(5))
    assert isinstance(Labels()(rows), Gaussian)
    assert isinstance(Network(linear(5, 4), table.task)(rows), Gaussian)
    with pytest.raises(ValueError, match="2 means and 2 log variances"):
        Network(linear(5, 2), table.task)(rows)


def test_law_5_an_ensemble_averages_probabilities_not_logits() -> None:
    sure = Categorical(torch.tensor([[9.0, 0.0]]))
    other = Categorical(torch.tensor([[0.0, 1.0]]))
    mixed = Categorical.mixture([sure, other])
    assert torch.allclose(mixed.probs, (sure.probs + other.probs) / 2)
    of_logits = Categorical((sure.logits + other.logits) / 2).probs
    assert not torch.allclose(mixed.probs, of_logits, atol=0.1)


def test_law_6_nothing_half_written_is_ever_read(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    checksum = save_weights(weights, {"a": torch.arange(4.0)})
    content = weights.read_bytes()
    for k in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[k] ^= 1
        weights.write_bytes(bytes(damaged))
        with pytest.raises(XclError, match=r"weights\.safetensors' is damaged"):
            load_weights(weights, checksum)
    weights.write_bytes(content[:-3])
    with pytest.raises(XclError, match="is damaged"):
        load_weights(weights, checksum)

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, {"step": 10})
    older = next(tmp_path.glob("step-*10.*.ckpt"))
    kept = older.read_bytes()
    checkpoints.save(20, {"step": 20})
    older.write_bytes(kept)  # as if an interruption came between writing and removing
    newest = next(tmp_path.glob("step-*20.*.ckpt"))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert checkpoints.newest() == {"step": 10}
    older.write_bytes(b"")
    assert checkpoints.newest() is None


def test_law_6_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "summary.json"
    write_atomic(file, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(XclError, match="No space left on device"):
        write_atomic(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


class _Bomb:
    """Touches a file when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.code = f"__import__('pathlib').Path({str(mark)!r}).touch()"

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (eval, (self.code,))


def test_law_7_nothing_read_from_disk_is_executed(tmp_path: Path) -> None:
    """A pickle that would run code is refused wherever a file is read."""
    mark = tmp_path / "executed"
    buffer = io.BytesIO()
    torch.save({"step": _Bomb(mark)}, buffer)
    payload = buffer.getvalue()
    (tmp_path / f"step-0000000001.{sha256(payload)[:32]}.ckpt").write_bytes(payload)
    with pytest.raises(XclError, match="is no checkpoint"):
        Checkpoints(tmp_path).newest()

    (tmp_path / "w.safetensors").write_bytes(payload)
    with pytest.raises(XclError):
        load_weights(tmp_path / "w.safetensors")

    np.savez(tmp_path / "a.npz", x=np.array([_Bomb(mark)], dtype=object), y=np.zeros(1))
    with pytest.raises(XclError):
        DATA_SETS.build({"arrays": {"path": str(tmp_path / "a.npz")}})

    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: !!python/object/apply:pathlib.Path.touch ['{mark}']")
    with pytest.raises(XclError, match="not valid YAML"):
        read_recipe(str(recipe))
    (tmp_path / "stage.json").write_bytes(payload)
    with pytest.raises(XclError):
        read_json(tmp_path / "stage.json")
    assert not mark.exists()
    torch.load(io.BytesIO(payload), weights_only=False)
    assert mark.exists(), "the attack would have worked"
