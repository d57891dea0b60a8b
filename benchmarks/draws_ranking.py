"""Compare the ranking of `xcl draws` with what training gives.

Students of one network and one loss learn from different samplers, at several budgets. The samplers
are those of the recipe's students (that learn from the teacher) and the standard ones. For each
budget and criterion: Spearman's ρ over the samplers between the criterion, from the teacher of the
first seed, and the KL to the teacher on the test examples, mean over seeds. A positive ρ says that
a low value foretells a good student. Beside it, ρ between the halves of the seeds shows how far the
order of the students themselves can be trusted.

    python benchmarks/draws_ranking.py digits --steps 200 2000 --out runs/ranking
    python benchmarks/draws_ranking.py uci data.path=FOLDER data.validation=0.2 --steps 300 3000
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from extracurricular.assess.candidates import candidates, standard
from extracurricular.assess.draws import Ranking, rank
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.recipe.schema import Recipe
from extracurricular.run.execute import execute
from extracurricular.run.plan import plan
from extracurricular.run.workspace import Workspace

CRITERIA = ("spread", "entropy", "frechet")


def recipe_of(base: Recipe, chains: dict[str, Any], budgets: list[int]) -> Recipe:
    """Return the recipe with one student for each sampler and budget, all else equal."""
    loaded = base.dump()
    # The subject's, as its loss was chosen for extended draws.
    pattern = loaded["students"][base.subject]
    students = {
        student(name, steps): pattern
        | {
            "sampler": chain,
            "training": pattern["training"] | {"steps": steps, "warmup": min(50, steps // 10)},
        }
        for steps in budgets
        for name, chain in chains.items()
    }
    first = next(iter(students))
    roles = {"reference": first, "plain": None, "subject": first}
    return parse_recipe(loaded | {"students": students} | roles, quiet=True)


def student(name: str, steps: int) -> str:
    return f"{name}-{steps}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("runs/ranking"))
    given = parser.parse_intermixed_args()
    base = read_recipe(given.recipe, [*given.overrides, f"seeds={list(range(given.seeds))}"])
    data = Workspace(base, given.out).data_of(base.seeds[0])
    chains = {one.name: one.chain for one in candidates(base, data, standard(data))}
    made = recipe_of(base, chains, given.steps)
    summary = execute(made, given.out, jobs=1)
    figures = {name: one["metrics"] for name, one in summary["students"].items()}
    found = {
        steps: {name: figures[student(name, steps)]["kl_to_teacher"]["per_seed"] for name in chains}
        for steps in given.steps
    }
    ranking = rank(
        Workspace(made, given.out), plan(made), lambda d: candidates(base, d, standard(d)), 16_384
    )
    report(ranking, found)
    text = json.dumps({"ranking": ranking.plain(), "kl_to_teacher": found}, indent=2)
    (given.out / "ranking.json").write_text(text)


def report(ranking: Ranking, found: dict[int, dict[str, list[float]]]) -> None:
    figures = {one.candidate.name: one.figures for one in ranking.ranked}
    names = [name for name in figures if all(name in kl for kl in found.values())]
    budgets = list(found)
    print("| sampler | spread | entropy | distance |" + "".join(f" KL, {s} |" for s in budgets))
    print("| --- |" + " --- |" * (len(CRITERIA) + len(budgets)))
    for name in names:
        one = figures[name]
        distance = "–" if one.frechet is None else f"{one.frechet:.3g}"
        cells = [f"{statistics.fmean(found[s][name]):.4f}" for s in budgets]
        row = [f"`{name}`", f"{one.spread:.4f}", f"{one.entropy:.3f}", distance, *cells]
        print("| " + " | ".join(row) + " |")
    for steps, kl in found.items():
        means = [statistics.fmean(kl[name]) for name in names]
        for criterion in CRITERIA:
            values = [getattr(figures[name], criterion) for name in names]
            if None not in values:
                rho = spearmanr(values, means)
                print(
                    f"{steps} steps, {criterion}: ρ = {rho.statistic:+.2f}, n = {len(names)}, "
                    f"p = {rho.pvalue:.3f}"
                )
        halves = [[statistics.fmean(kl[name][k::2]) for name in names] for k in (0, 1)]
        print(f"{steps} steps, one half of the seeds and the other: {spearmanr(*halves)[0]:+.2f}")


if __name__ == "__main__":
    main()
