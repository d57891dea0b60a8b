"""Named chains: written out when a recipe is read, and refused in one sentence."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extracurricular.errors import RecipeError
from extracurricular.recipe.chains import expand_chains
from extracurricular.recipe.read import parse_recipe
from tests.recipe.small import small

CHAINS: dict[str, Any] = {
    "shifted": ["empirical", {"augment": {"pad": 3}}],
    "mixed": ["shifted", {"mixup": {"alpha": 1.0}}],
}
SHIFTED = ["empirical", {"augment": {"pad": 3}}]
MIXED = [*SHIFTED, {"mixup": {"alpha": 1.0}}]


def samplers(chain: Any, *overrides: str, **changes: Any) -> Any:
    """Return the sampler of kd, as the recipe reads it."""
    recipe = small(chains=copy.deepcopy(CHAINS), **changes)
    recipe["students"]["kd"]["sampler"] = chain
    return parse_recipe(recipe, overrides).students["kd"].sampler


@pytest.mark.parametrize(
    ("chain", "written"),
    [
        (["shifted"], SHIFTED),
        ("shifted", SHIFTED),
        ("empirical", "empirical"),
        (["shifted", {"noise": {"std": 0.1}}], [*SHIFTED, {"noise": {"std": 0.1}}]),
        (["mixed", "cutmix"], [*MIXED, "cutmix"]),
        (["my_file:Source", "noise"], ["my_file:Source", "noise"]),
        (
            [{"blend": {"a": {"weight": 1, "sampler": ["mixed"]},
                        "b": {"weight": 2, "sampler": "shifted"}}}, "noise"],
            [{"blend": {"a": {"weight": 1, "sampler": MIXED},
                        "b": {"weight": 2, "sampler": SHIFTED}}}, "noise"],
        ),
    ],
)  # fmt: skip
def test_a_chain_stands_where_a_source_would(chain: Any, written: Any) -> None:
    assert samplers(chain) == written


def test_the_teacher_and_the_defaults_use_chains_too() -> None:
    recipe = small(chains=CHAINS)
    recipe["teacher"]["sampler"] = ["shifted"]
    recipe["defaults"]["sampler"] = ["mixed"]
    read = parse_recipe(recipe)
    assert read.teacher.sampler == SHIFTED
    assert [student.sampler for student in read.students.values()] == [MIXED, MIXED]
    assert "chains" not in read.dump()
    assert parse_recipe(read.dump()) == read


def test_overrides_and_budgets_reach_into_chains() -> None:
    override = "chains.shifted.1.augment.pad=5"
    expected = ["empirical", {"augment": {"pad": 5}}, {"mixup": {"alpha": 1.0}}]
    assert samplers(["mixed"], override) == expected
    budgets = {"other": {"chains.shifted.1.augment.pad": 5}}
    assert samplers(["mixed"], "budget=other", budgets=budgets) == expected
    assert samplers(["mixed"], "chains.shifted=[resized_crop]")[0] == "resized_crop"
    assert samplers(["new"], "chains.new=[empirical, cutmix]") == ["empirical", "cutmix"]
    assert samplers(["mixed", "noise"], "students.kd.sampler.1.noise.std=0.2")[-1] == {
        "noise": {"std": 0.2}
    }
    with pytest.raises(RecipeError, match=r"budgets.b.chains.shfted.0: chains has no 'shfted'"):
        samplers("mixed", "budget=b", budgets={"b": {"chains.shfted.0": 1}})


def test_chains_share_nothing() -> None:
    recipe = parse_recipe(small(chains=CHAINS, defaults={"model": "mlp", "sampler": ["shifted"]}))
    erm, kd = recipe.students.values()
    assert erm.sampler == kd.sampler
    assert erm.sampler[1] is not kd.sampler[1]
    assert CHAINS["shifted"] == SHIFTED


@pytest.mark.parametrize(
    ("chains", "chain", "key", "problem"),
    [
        (3, "empirical", "chains", "is 3; it should be {NAME: [sampler, …]}"),
        ({"a": 3}, "empirical", "chains.a", "is 3; a chain is a list such as [empirical, "),
        ({"a": []}, "empirical", "chains.a", "is []; a chain is a list"),
        ({"mixup": ["empirical"]}, "empirical", "chains.mixup", "'mixup' is the name of a sampler"),
        ({"blend": ["empirical"]}, "empirical", "chains.blend", "'blend' is the name of a sampler"),
        ({"a.b": ["empirical"]}, "empirical", "chains", "one is called 'a.b'; a name begins with"),
        ({3: ["empirical"]}, "empirical", "chains", "one is called 3"),
        ({"a": ["empirical"]}, ["b", "noise"], "students.kd.sampler.0",
         "there is no chain and no sampler 'b'"),
        ({"shifted": ["empirical"]}, ["shiftd"], "students.kd.sampler.0", "did you mean 'shifted'"),
        ({"a": ["empirical"]}, "b", "students.kd.sampler", "there is no chain and no sampler 'b'"),
        ({"a": ["empirical"]}, ["empirical", "a"], "students.kd.sampler.1",
         "'a' is a chain, so it must come first"),
        ({"a": ["empirical"]}, [{"a": {"pad": 1}}], "students.kd.sampler.0",
         "gives settings to the chain 'a', which takes none; change chains.a itself"),
        ({"a": ["a"]}, ["a"], "chains.a.0", "uses the chain 'a', which does not come before it"),
        ({"a": ["b"], "b": ["a"]}, ["a"], "chains.a.0", "uses the chain 'b', which does not come"),
        ({"a": ["c"]}, ["a"], "chains.a.0", "there is no chain and no sampler 'c'"),
        (
            {"a": ["empirical"]},
            [{"blend": {"x": {"weight": 1, "sampler": ["b"]}}}],
            "students.kd.sampler.0.blend.x.sampler.0",
            "there is no chain and no sampler 'b'",
        ),
    ],
)  # fmt: skip
def test_a_wrong_chain_is_refused_in_one_line(
    chains: Any, chain: Any, key: str, problem: str
) -> None:
    recipe = small(chains=chains)
    recipe["students"]["kd"]["sampler"] = chain
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe)
    assert caught.value.key == key
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


NAMES = ["one", "two", "three"]
STEPS = st.sampled_from(["cutmix", {"noise": {"std": 0.1}}, {"augment": {"pad": 1}}])


def chain_of(names: list[str]) -> st.SearchStrategy[list[Any]]:
    """Chains that may begin with these names of others, or with a blend of such."""
    source = st.sampled_from(["empirical", *names])
    simple = st.tuples(source, st.lists(STEPS, max_size=2)).map(lambda p: [p[0], *p[1]])
    weight = st.floats(0.1, 1)
    parts = st.dictionaries(
        st.sampled_from("xy"), st.fixed_dictionaries({"weight": weight, "sampler": simple}),
        min_size=1,
    )  # fmt: skip
    blends = st.tuples(parts, st.lists(STEPS, max_size=2)).map(lambda p: [{"blend": p[0]}, *p[1]])
    return simple | blends


def written_out(chain: list[Any], chains: dict[str, Any]) -> list[Any]:
    """Write a chain out by substitution, the slow and obvious way."""
    head, *rest = chain
    if isinstance(head, str) and head in chains:
        return [*written_out(chains[head], chains), *rest]
    if isinstance(head, dict):
        parts = {
            name: {**part, "sampler": written_out(part["sampler"], chains)}
            for name, part in head["blend"].items()
        }
        head = {"blend": parts}
    return [head, *rest]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_expansion_is_substitution(data: st.DataObject) -> None:
    chains = {name: data.draw(chain_of(NAMES[:k])) for k, name in enumerate(NAMES)}
    chain = data.draw(chain_of(NAMES))
    values = {"chains": copy.deepcopy(chains), "defaults": {"sampler": copy.deepcopy(chain)}}
    expand_chains(values)
    assert values == {"defaults": {"sampler": written_out(chain, chains)}}
    again = {**copy.deepcopy(values), "chains": {}}
    expand_chains(again)
    assert again == values
