"""How a trained teacher's networks answer: folded, in bfloat16 if that changes little, compiled.

A teacher of a run in ``bf16-mixed`` on a CUDA device computes in bfloat16 and gives its answers in
float32. Its divergence from the same teacher in float32 is measured once, and decides whether it
does.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from extracurricular.data.base import Data
from extracurricular.distributions import Task
from extracurricular.errors import RecipeError
from extracurricular.inputs import Batch, Inputs, batch_size, leaves
from extracurricular.matching import forward_kl
from extracurricular.samplers import Sampler
from extracurricular.teachers import EnsembleTeacher, NetworkTeacher, Teacher
from extracurricular.teachers.base import on_draws
from extracurricular.teachers.prepared import PROBE, Prepared, prepare

MOST_KL = 1e-3
"""Most that a teacher in bfloat16 may be off its answers in float32: mean KL, in nats."""


@dataclass(frozen=True)
class Answering:
    """A teacher, and how its networks answer.

    Args:
        teacher: The teacher.
        facts: The same as plain values, for ``stage.json``.
        sentences: The same in words.
    """

    teacher: Teacher
    facts: dict[str, Any] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()


def check_draws(teacher: Teacher, sampler: Sampler, key: str) -> None:
    """Refuse a sampler on whose draws a teacher of stored answers has none.

    Args:
        teacher: The teacher of a student.
        sampler: The student's sampler.
        key: Where the student stands in the recipe.

    Raises:
        RecipeError: It makes such draws.
    """
    try:
        on_draws(teacher, sampler)
    except RecipeError as error:
        raise RecipeError(f"{key}.{error.key}", error.problem) from None


@torch.no_grad()
def answering(
    modules: list[nn.Module], data: Data, dtype: torch.dtype | None, compiled: bool
) -> Answering:
    """Return the teacher that trained networks make, as fast as its answers allow.

    Args:
        modules: The networks, in evaluation mode on the device of the data.
        data: The data set, whose first training examples are the probe.
        dtype: The type to compute in if the answers are off by at most :data:`MOST_KL`; None to
            leave that to the precision of the run.
        compiled: Whether ``torch.compile`` compiles the networks.
    """
    probe = data.inputs(data.train[:PROBE].x)
    facts: dict[str, Any] = {}
    sentences: tuple[str, ...] = ()
    if dtype is None:
        fast = [prepare(one, probe) for one in modules]
    else:
        fast, facts, says = _in_type(modules, data.task, probe, dtype)
        sentences = (says,)
    if compiled:
        copies = [
            Prepared(copy.deepcopy(one)).eval() if other is None else other
            for one, other in zip(modules, fast, strict=True)
        ]
        sentences = (*sentences, compile_networks(copies, probe))
        fast = list(copies)
    return Answering(_teacher(modules, data.task, fast), facts, sentences)


def _in_type(
    modules: list[nn.Module], task: Task, probe: Inputs, dtype: torch.dtype
) -> tuple[list[Prepared | None], dict[str, Any], str]:
    facts: dict[str, Any]
    name = str(dtype).removeprefix("torch.")
    full = [prepare(one, probe, torch.float32) for one in modules]
    low = [prepare(one, probe, dtype) for one in modules]
    if None in low:
        facts = {"computes": "float32", "kl_to_float32": None}
        return full, facts, f"the teacher stays in float32: it cannot answer in {name}"
    kl = divergence(_teacher(modules, task, full), _teacher(modules, task, low), probe)
    measured = f"KL {kl:.1e} nats from its answers in float32"
    where = f"mean of {batch_size(probe)} examples"
    if kl <= MOST_KL:
        facts = {"computes": name, "kl_to_float32": kl}
        return low, facts, f"the teacher answers in {name}, {measured} ({where})"
    facts = {"computes": "float32", "kl_to_float32": kl}
    says = f"the teacher stays in float32: in {name} it is {measured} ({where}), above {MOST_KL}"
    return full, facts, says


def divergence(exact: Teacher, other: Teacher, probe: Inputs) -> float:
    """Return the mean KL of a teacher's answers from those of the same teacher in float32, in nats.

    Args:
        exact: The teacher in float32.
        other: The teacher whose answers are measured.
        probe: Inputs of some examples.
    """
    leaf = next(iter(leaves(probe).values()))
    batch = Batch(torch.arange(len(leaf), device=leaf.device), probe)
    with torch.autocast(leaf.device.type, enabled=False):
        return float(forward_kl(exact(batch), other(batch)).mean())


def _teacher(modules: list[nn.Module], task: Task, fast: list[Prepared | None]) -> Teacher:
    members: list[Teacher] = [
        NetworkTeacher(one, task, other) for one, other in zip(modules, fast, strict=True)
    ]
    return members[0] if len(members) == 1 else EnsembleTeacher(members)


def compile_networks(networks: list[Prepared], probe: Inputs) -> str:
    """Compile networks in place, and ask each once; they stay as they are where that fails.

    Returns:
        A sentence on the seconds that it took, or on the failure.
    """
    started = time.perf_counter()
    try:
        for network in networks:
            # A kernel for each size of a batch, as a training has few: those that serve any size
            # are slower.
            network.inner.compile(dynamic=False)
            network(probe)
    except Exception as error:  # a compiler raises what it likes
        for network in networks:
            network.inner._compiled_call_impl = None
        text = " ".join(str(error).split()) or type(error).__name__
        return f"the teacher goes on uncompiled: {text[:200]}"
    return f"the teacher was compiled in {time.perf_counter() - started:.1f} s"
