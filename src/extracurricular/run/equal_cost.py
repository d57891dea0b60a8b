"""Students whose steps are set by the cost of another: ``cost: {of: NAME, unit: multiply_adds}``.

A recipe is settled once its data can be read: such a student gets the largest number of steps at
which its training costs no more than the other's. The steps then stand in the recipe that the run
keeps, so that everything after is planned from the recipe alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from extracurricular.errors import RecipeError
from extracurricular.recipe.schema import Recipe
from extracurricular.run.chosen import ChosenStage
from extracurricular.run.defaults import with_defaults
from extracurricular.run.expense import expense, mean_share
from extracurricular.run.network import NetworkStage
from extracurricular.run.plan import plan
from extracurricular.run.stages import Checks
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Context


def settled(recipe: Recipe, workspace: Workspace) -> Recipe:
    """Return a recipe whose trainings have an optimiser, and students with a ``cost`` their steps.

    A share that follows mastery is not known before the training; it counts as the one that costs
    more, so that the baseline gets no fewer steps than it should.

    Args:
        recipe: The recipe.
        workspace: Its workspace; nothing is written.

    Raises:
        RecipeError: The multiply-adds cannot be counted, or a part of the recipe cannot be built.
    """
    recipe = with_defaults(recipe, workspace)
    wanted = {name: s.cost for name, s in recipe.students.items() if s.cost is not None}
    if not wanted:
        return recipe
    whole, checks, seed = plan(recipe), Checks(), recipe.seeds[0]
    if any(cost.unit == "multiply_adds" for cost in wanted.values()):
        for stage in whole.preparations:
            stage.check(workspace, checks)
    students = dict(recipe.students)
    for name, cost in wanted.items():
        stage, other = whole.students[name, seed], whole.students[cost.of, seed]
        if cost.unit == "steps":
            steps = other.steps
        else:
            amount = _multiply_adds(other, workspace, checks, stage.key)
            steps = most_steps(
                lambda n, stage=stage: _multiply_adds(  # type: ignore[misc]
                    _with_steps(stage, n), workspace, checks, stage.key
                ),
                amount,
            )
        section = students[name]
        training = section.training.model_copy(update={"steps": steps})
        students[name] = section.model_copy(update={"training": training})
    return recipe.model_copy(update={"students": students})


def most_steps(cost: Callable[[int], int], amount: int) -> int:
    """Return the largest number of steps that costs at most an amount, and at least 1.

    Args:
        cost: The cost of a training of so many steps, which rises with them.
        amount: The most that it may cost.
    """
    high = 1
    while cost(2 * high) <= amount:
        high *= 2
    low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= amount else (low, middle)
    return low


def _with_steps(stage: NetworkStage, steps: int) -> NetworkStage:
    return replace(stage, training=stage.training.model_copy(update={"steps": steps}))


def _multiply_adds(stage: NetworkStage, workspace: Workspace, checks: Checks, key: str) -> int:
    """Return the multiply-adds that a training will take, from untrained parts.

    Raises:
        RecipeError: They cannot be counted; the error is at ``key``.
    """
    if isinstance(stage, ChosenStage):
        # Which is best is not known yet: those that cost more are taken to go on.
        halving, among = stage.halving, dict(stage.candidates)
        whole = {name: _one(one, workspace, checks, key) for name, one in among.items()}
        done = halving.done(sorted(whole, key=lambda name: -whole[name]))
        return sum(
            _one(one, workspace, checks, key, done[name], halving.until)
            for name, one in among.items()
        )
    return _one(stage, workspace, checks, key)


def _one(
    stage: NetworkStage,
    workspace: Workspace,
    checks: Checks,
    key: str,
    done: int | None = None,
    until: int | None = None,
) -> int:
    student = stage.untrained(workspace)
    teacher = None
    if stage.teacher is not None and stage.asks_teacher:
        teacher = checks.teacher = checks.teacher or stage.teacher.preview(workspace)
    sampler = stage.build_sampler(workspace, Context(checks.teacher, student, checks.generators))
    steps = stage.training.steps if done is None else done
    found = expense(
        stage, workspace, student, sampler, teacher,
        done=done, until=until, share=mean_share(sampler, None, steps),
    )  # fmt: skip
    amount = None if found is None else found.multiply_adds
    if amount is None:
        raise RecipeError(
            f"{key}.cost.unit",
            f"is 'multiply_adds', but those of {stage.title!r} cannot be counted: its teacher is "
            "no network; set it to 'steps', or set training.steps without a cost",
        )
    return amount
