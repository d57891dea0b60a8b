"""Each sampler against what it promises; laws that all of them keep are in test_laws.py."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from extracurricular import rng, samplers
from extracurricular.errors import RecipeError
from extracurricular.samplers import (
    SAMPLERS,
    Augment,
    Batch,
    Blend,
    CutMix,
    Empirical,
    Generated,
    Mixup,
    Noise,
    Pool,
    Seeded,
    Uncertain,
    build_sampler,
    crop_flip,
    cutmix_batch,
    mixup_batch,
    soft_labels,
)
from tests.conftest import eye_data, image_data, pair_data, table_data

IDS = torch.arange(240)


def x_of(batch: Batch) -> Tensor:
    assert isinstance(batch.x, Tensor)
    return batch.x


def y_of(batch: Batch) -> Tensor:
    assert batch.y is not None
    return batch.y


def test_empirical_visits_every_example_once_an_epoch_with_its_own_label() -> None:
    data = image_data(60)
    batch = Empirical(data)(IDS)
    inputs = x_of(Batch(IDS, data.inputs(data.train.x)))
    for epoch in range(4):
        part = batch[slice(60 * epoch, 60 * (epoch + 1))]
        which = [int((inputs == x).flatten(1).all(1).nonzero()) for x in x_of(part)]
        assert sorted(which) == list(range(60))
        assert data.train.y is not None
        assert y_of(part).tolist() == data.train.y[which].tolist()
    assert not torch.equal(x_of(batch)[:60], x_of(batch)[60:120])


def test_empirical_standardises_reals() -> None:
    batch = Empirical(table_data())(torch.arange(50))
    assert torch.allclose(x_of(batch).mean(0), torch.zeros(5), atol=1e-5)
    assert torch.allclose(y_of(batch).std(0, correction=0), torch.ones(2), atol=1e-4)


def test_crop_flip_element_by_element() -> None:
    image = torch.arange(2 * 3 * 4 * 5).float().view(2, 3, 4, 5)
    dy, dx = torch.tensor([0, 3]), torch.tensor([4, 1])
    out = crop_flip(image, dy, dx, torch.tensor([False, True]), pad=2)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    assert torch.equal(out[0], padded[0, :, 0:4, 4:9])
    assert torch.equal(out[1], padded[1, :, 3:7, 1:6].flip(-1))


def test_augment_moves_by_up_to_pad_and_mirrors_half() -> None:
    data = image_data(40)
    plain = Empirical(data)
    assert torch.equal(x_of(Augment(plain, pad=0)(IDS)), x_of(plain(IDS)))
    mirrored = Augment(plain, pad=0, flip=True)(IDS)
    same = (x_of(mirrored) == x_of(plain(IDS))).flatten(1).all(1)
    flipped = (x_of(mirrored) == x_of(plain(IDS)).flip(-1)).flatten(1).all(1)
    assert bool((same ^ flipped).all())
    assert 0.35 < float(flipped.float().mean()) < 0.65
    shifted = x_of(Augment(plain, pad=2)(IDS))
    source = torch.nn.functional.pad(x_of(plain(IDS)), (2, 2, 2, 2))
    crops = [
        (source[:, :, i : i + 8, j : j + 8] == shifted).flatten(1).all(1)
        for i in range(5)
        for j in range(5)
    ]
    hits = torch.stack(crops)
    assert bool(hits.any(0).all())
    assert bool(hits.any(1).all()), "every one of the 25 places occurs"


def test_augment_leaves_vectors_alone_and_needs_an_image() -> None:
    plain = Empirical(eye_data())
    batch, source = Augment(plain, pad=2)(IDS), plain(IDS)
    assert isinstance(batch.x, dict)
    assert isinstance(source.x, dict)
    assert torch.equal(batch.x["pose"], source.x["pose"])
    assert not torch.equal(batch.x["eye"], source.x["eye"])
    with pytest.raises(ValueError, match="augment needs images"):
        Augment(Empirical(table_data()))(IDS)


def test_mixup_batch_element_by_element() -> None:
    data = image_data()
    first, second = Empirical(data)(IDS[:8]), Empirical(data)(IDS[8:16])
    share = torch.linspace(0, 1, 8)
    mixed = mixup_batch(first, second, share)
    for k in range(8):
        lam = share[k]
        assert torch.allclose(
            x_of(mixed)[k], lam * x_of(first)[k] + (1 - lam) * x_of(second)[k], atol=1e-6
        )
        expected = torch.zeros(4)
        expected[int(y_of(first)[k])] += lam
        expected[int(y_of(second)[k])] += 1 - lam
        assert torch.allclose(y_of(mixed)[k], expected)


def test_mixup_gives_each_example_its_own_share_and_partner() -> None:
    mixed = Mixup(Empirical(image_data(classes=4)), alpha=1.0)(IDS)
    top = y_of(mixed).max(1).values
    assert len(top.unique()) > 100
    assert torch.allclose(y_of(mixed).sum(1), torch.ones(len(IDS)))


def test_mixup_mixes_input_and_label_of_the_same_partner() -> None:
    # With one-hot inputs equal to the labels, any misalignment of the two shows at once.
    labels = torch.arange(6)

    @dataclass(frozen=True)
    class OneHot:
        def __call__(self, ids: Tensor) -> Batch:
            y = labels[ids % 6]
            return Batch(ids, soft_labels(y, 6), y, 6)

    for sampler in (Mixup(OneHot()), Mixup(Mixup(OneHot(), alpha=0.3))):
        batch = sampler(IDS)
        assert torch.allclose(x_of(batch), y_of(batch), atol=1e-6)


def test_samplers_of_the_same_kind_and_seed_draw_other_numbers_when_nested() -> None:
    inner = Mixup(Empirical(image_data()))
    outer = Mixup(inner)
    a = rng.beta(1.0, 0, IDS, inner.stream("share"))
    b = rng.beta(1.0, 0, IDS, outer.stream("share"))
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.25
    assert not torch.equal(a, b)


def test_mixup_mixes_every_part_of_a_dict_with_the_same_share() -> None:
    plain, mixed = Empirical(eye_data()), Mixup(Empirical(eye_data()))
    partner = rng.derive(0, IDS, mixed.stream("partner"))
    share = rng.beta(1.0, 0, IDS, mixed.stream("share"))
    first, second, batch = plain(IDS), plain(partner), mixed(IDS)
    for key in ("eye", "pose"):
        a, b, c = (part.x[key] for part in (first, second, batch))  # type: ignore[index]
        s = share.view(-1, *[1] * (a.ndim - 1))
        assert torch.allclose(c, s * a + (1 - s) * b, atol=1e-5)
    assert torch.allclose(
        y_of(batch), share[:, None] * y_of(first) + (1 - share[:, None]) * y_of(second), atol=1e-5
    )


def test_cutmix_labels_have_the_share_of_the_area() -> None:
    ones = Batch(IDS, torch.ones(len(IDS), 3, 9, 11), torch.ones(len(IDS), dtype=torch.long), 2)
    zeros = Batch(IDS, torch.zeros(len(IDS), 3, 9, 11), torch.zeros(len(IDS), dtype=torch.long), 2)
    share = rng.beta(1.0, 0, IDS, "share")
    mixed = cutmix_batch(ones, zeros, share, rng.uniform(0, IDS, "centre", (2,)))
    assert set(x_of(mixed).unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(y_of(mixed)[:, 1], x_of(mixed).mean((1, 2, 3)), atol=1e-6)
    for image in x_of(mixed)[:20, 0]:
        rows, columns = (image == 0).nonzero(as_tuple=True)
        if len(rows):
            area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
            assert int(area) == len(rows), "what is pasted is a rectangle"


@pytest.mark.parametrize(("share", "kept"), [(1.0, 1.0), (0.0, None)])
def test_cutmix_ends(share: float, kept: float | None) -> None:
    ones = Batch(IDS[:1], torch.ones(1, 1, 8, 8), torch.ones(1, 1))
    zeros = Batch(IDS[:1], torch.zeros(1, 1, 8, 8), torch.zeros(1, 1))
    mixed = cutmix_batch(ones, zeros, torch.tensor([share]), torch.tensor([[0.5, 0.5]]))
    assert float(x_of(mixed).mean()) == (0.0 if kept is None else kept)


def test_cutmix_cuts_images_and_mixes_vectors() -> None:
    batch = CutMix(Empirical(pair_data()))(IDS)
    assert isinstance(batch.x, tuple)
    assert batch.x[0].shape == (len(IDS), 1, 12, 20)
    with pytest.raises(ValueError, match="cutmix needs images"):
        CutMix(Empirical(table_data()))(IDS)


def test_noise_has_the_deviation_asked_for() -> None:
    plain = Empirical(table_data())
    ids = torch.arange(20_000)
    noise = x_of(Noise(plain, std=0.3)(ids)) - x_of(plain(ids))
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert torch.equal(y_of(Noise(plain)(ids)), y_of(plain(ids)))
    relative = x_of(Noise(plain, std=0.3, relative=True)(ids)) - x_of(plain(ids))
    assert float(relative.std()) == pytest.approx(0.3 / 3**0.5, rel=0.03)


def test_noise_by_name() -> None:
    plain = Empirical(eye_data())
    batch, source = Noise(plain, std={"pose": 0.5})(IDS), plain(IDS)
    assert isinstance(batch.x, dict)
    assert isinstance(source.x, dict)
    assert torch.equal(batch.x["eye"], source.x["eye"])
    assert not torch.equal(batch.x["pose"], source.x["pose"])
    with pytest.raises(ValueError, match=r"std names the input 'nose'; known: .*eye"):
        Noise(plain, std={"nose": 0.5})(IDS)


@dataclass(frozen=True)
class Constant(Seeded):
    value: float
    labelled: bool = True
    soft: bool = False

    def __call__(self, ids: Tensor) -> Batch:
        y = torch.zeros(len(ids), dtype=torch.long) if self.labelled else None
        if y is not None and self.soft:
            y = soft_labels(y, 3)
        return Batch(ids, torch.full((len(ids), 2), self.value), y, 3)


def test_blend_keeps_proportions_and_order() -> None:
    ids = torch.arange(30_000)
    blend = Blend(
        {"a": Constant(1.0), "b": Constant(2.0), "c": Constant(3.0)}, {"a": 1, "b": 3, "c": 0}
    )
    drawn = x_of(blend(ids))[:, 0]
    assert set(drawn.unique().tolist()) == {1.0, 2.0}
    assert float((drawn == 2).float().mean()) == pytest.approx(0.75, abs=0.01)
    again = x_of(blend(ids.flip(0)))[:, 0]
    assert torch.equal(again, drawn.flip(0))
    assert torch.equal(blend(ids).ids, ids)


def test_blend_tells_what_its_children_share_whatever_the_batch_met() -> None:
    one = torch.tensor([0])
    mixed = Blend({"a": Constant(1.0), "b": Constant(2.0, soft=True)}, {"a": 1, "b": 1e-9})
    assert y_of(mixed(one)).shape == (1, 3)
    unlabelled = Blend({"a": Constant(1.0), "b": Constant(2.0, False)}, {"a": 1, "b": 1e-9})
    assert unlabelled(one).y is None


def test_weights_are_mixed_and_blended() -> None:
    @dataclass(frozen=True)
    class Weighted:
        def __call__(self, ids: Tensor) -> Batch:
            return Batch(ids, torch.zeros(len(ids), 2), weight=torch.full((len(ids),), 3.0))

    plain = Constant(1.0, labelled=False)
    blend = Blend({"a": Weighted(), "b": plain}, {"a": 1, "b": 1})(IDS)
    assert blend.weight is not None
    assert set(blend.weight.tolist()) == {1.0, 3.0}
    assert Mixup(plain)(IDS).weight is None
    mixed = mixup_batch(Weighted()(IDS), plain(IDS), torch.full((len(IDS),), 0.5))
    assert mixed.weight is not None
    assert torch.equal(mixed.weight, torch.full((len(IDS),), 2.0))


def test_blend_refuses_shapes_and_weights_that_do_not_fit() -> None:
    table, image = Empirical(table_data()), Empirical(image_data())
    with pytest.raises(ValueError, match="differ in the shape of examples: 'b'"):
        Blend({"a": table, "b": image}, {"a": 1, "b": 1})(IDS)
    with pytest.raises(ValueError, match="weight of 'a' is -1"):
        Blend({"a": table}, {"a": -1})
    with pytest.raises(ValueError, match="all 0"):
        Blend({"a": table}, {"a": 0})
    with pytest.raises(ValueError, match="weights are given for"):
        Blend({"a": table}, {"b": 1})


def test_a_sampler_of_ones_own_is_found_by_module_and_name(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty lines in a file of their own are enough."""
    text = """
from dataclasses import dataclass, replace
from extracurricular import rng, samplers
from extracurricular.samplers import Batch, Sampler, Seeded

@dataclass(frozen=True)
class Darken(Seeded):
    child: Sampler
    most: float = 0.5
    seed: int = 0

    def __call__(self, ids):
        batch = self.child(ids)
        factor = 1 - self.most * rng.uniform(self.seed, ids, self.stream("factor"))
        return replace(batch, x=batch.x * factor.view(-1, 1, 1, 1))
"""
    (tmp_path / "my_samplers.py").write_text(text)  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(tmp_path))
    data = image_data()
    own = build_sampler(["empirical", {"my_samplers:Darken": {"most": 0.9}}], data, 0)
    plain = build_sampler(["empirical"], data, 0)
    ratio = x_of(own(IDS)) / x_of(plain(IDS))
    assert 0.1 <= float(ratio.min()) < float(ratio.max()) <= 1.0001


def build(chain: object) -> object:
    return build_sampler(chain, image_data(), 0, "students.xcl.sampler")


def test_a_chain_is_nesting_read_from_the_data_outwards() -> None:
    sampler = build(["empirical", {"augment": {"pad": 1}}, {"mixup": {"alpha": 0.4}}])
    assert isinstance(sampler, Mixup)
    assert sampler.alpha == 0.4
    assert isinstance(sampler.child, Augment)
    assert isinstance(sampler.child.child, Empirical)
    assert len({sampler.seed, sampler.child.seed, sampler.child.child.seed}) == 3
    blend = build(
        [
            {
                "blend": {
                    "mixed": {"weight": 0.7, "sampler": ["empirical", "mixup"]},
                    "plain": {"weight": 1, "sampler": "empirical"},
                }
            },
            {"noise": {"std": 0.1}},
        ]
    )
    assert isinstance(blend, Noise)


@pytest.mark.parametrize(
    ("chain", "key", "problem"),
    [
        ([], "students.xcl.sampler", "is empty"),
        (["empirical", "mixupp"], "students.xcl.sampler.1", "did you mean 'mixup'"),
        (["mixup"], "students.xcl.sampler.0", "cannot come first"),
        (["empirical", "empirical"], "students.xcl.sampler.1", "must come first"),
        (["empirical", {"mixup": {"alpha": -1}}], "students.xcl.sampler.1.mixup", "alpha is -1"),
        (["empirical", {"mixup": {"alpha": "x"}}], "students.xcl.sampler.1.mixup.alpha", "is 'x'"),
        (["empirical", {"mixup": {"beta": 1}}], "students.xcl.sampler.1.mixup.beta", "unknown key"),
        (["empirical", {"augment": {"pad": -2}}], "students.xcl.sampler.1.augment", "pad is -2"),
        (["empirical", {"noise": {"std": -0.1}}], "students.xcl.sampler.1.noise", "std is -0.1"),
        (["empirical", {"cutmix": {"alpha": 0}}], "students.xcl.sampler.1.cutmix", "alpha is 0"),
        (["empirical", 3], "students.xcl.sampler.1", "is 3; a sampler is given as NAME"),
        (
            [{"blend": {"a": {"weight": -1, "sampler": "empirical"}}}],
            "students.xcl.sampler.0.blend.a.weight",
            "is -1; it must be a number of at least 0",
        ),
        ([{"blend": {"a": {"weight": 1}}}], "students.xcl.sampler.0.blend.a", "it must be"),
        (["empirical", {"blend": {}}], "students.xcl.sampler.1", "must come first"),
        (["nowhere:Thing"], "students.xcl.sampler.0", "cannot import"),
    ],
)
def test_a_wrong_chain_is_told_by_key_and_remedy(chain: object, key: str, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(chain)
    assert caught.value.key == key
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


def test_every_shipped_sampler_is_public() -> None:
    sources = {"empirical", "generated", "neighbours", "pool", "resized_crop"}
    registered = sources | {"augment", "cutmix", "mixup", "noise", "uncertain", "balanced"}
    registered |= {"affine", "colour", "cutout", "rand_augment", "trivial_augment"}
    registered |= {"gibbs", "swap", "weak"}
    assert set(SAMPLERS.names()) == registered
    classes = {
        name
        for name, entry in vars(samplers).items()
        if isinstance(entry, type) and issubclass(entry, Seeded) and entry is not Seeded
    }
    # A blend and a share name further chains, so they are built apart and have no entries.
    named = {name.replace("_", "") for name in registered}
    assert {name.lower() for name in classes} == named | {"blend", "share"}
    assert {*classes, "Seeded", "Context"} <= set(samplers.__all__)
    assert all(issubclass(entry, Seeded) for entry in (Generated, Pool, Uncertain))
