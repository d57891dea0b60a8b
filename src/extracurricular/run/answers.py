"""The answers of teacher and students on the measured split, as a run keeps them.

``answers.safetensors`` of a stage has a few numbers for each example, so that the page can be made
without the data and without asking a network. The teacher's file has the labels too.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from torch import Tensor

from extracurricular.data.transformed import Transformed
from extracurricular.distributions import Bernoulli, Categorical, Distribution
from extracurricular.files import load_weights, write_if_changed
from extracurricular.inputs import hard_labels

FILE = "answers.safetensors"


def summed_up(
    answer: Distribution, labels: Tensor | None = None, teacher: Distribution | None = None
) -> dict[str, Tensor]:
    """Return the few numbers that are kept of answers on N examples.

    Args:
        answer: The distributions, in the target's own units, on the CPU.
        labels: Class indices [N], soft labels [N, C], of which the most probable class is kept,
            labels of 0 and 1 [N, L], or real targets [N, D], if they are to be kept.
        teacher: The teacher's distributions of the same examples; None for the teacher itself.

    Returns:
        ``entropy`` in nats, [N]. For classes ``confidence``, the probability of the predicted
        class, and its index ``predicted``, [N]; for several labels ``probs``, [N, L]; for real
        targets ``mean`` and ``std``, [N, D], and where they are transformed ``inner_mean`` and
        ``inner_std``, of the transforms.
        ``kl``, the divergence of the answers from the teacher's in nats, [N], and ``labels``, where
        they are given.
    """
    if isinstance(answer, Categorical):
        confidence, predicted = answer.top()
        found = {"confidence": confidence, "predicted": predicted}
        labels = None if labels is None else hard_labels(labels)
    elif isinstance(answer, Bernoulli):
        found = {"probs": answer.probs}
    else:
        found = {"mean": answer.mean.to(answer.std.dtype), "std": answer.std}
        if isinstance(answer, Transformed):
            found |= {"inner_mean": answer.inner.mean.float(), "inner_std": answer.inner.std}
    found["entropy"] = answer.entropy()
    if teacher is not None:
        found["kl"] = teacher.kl(answer)  # type: ignore[arg-type]
    if labels is not None:
        found["labels"] = labels
    return {name: values.detach().cpu().contiguous() for name, values in found.items()}


def keep_answers(folder: Path, found: dict[str, Tensor]) -> str:
    """Write answers to the folder of a stage, unless they are there; return their checksum."""
    copies = {name: values.clone() for name, values in found.items()}
    return write_if_changed(folder / FILE, safetensors.torch.save(copies))


def read_answers(folder: Path, checksum: str | None) -> dict[str, Tensor] | None:
    """Read the answers in the folder of a stage; None where an earlier version kept none.

    Args:
        folder: The folder of a stage, or of a teacher.
        checksum: The checksum of the file; None if an earlier version kept none.

    Raises:
        StorageError: The file is damaged, or missing though its checksum is known.
    """
    known = checksum is not None or (folder / FILE).is_file()
    return load_weights(folder / FILE, checksum) if known else None
