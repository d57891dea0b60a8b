"""Label smoothing: a part of each label is spread evenly over all that it could have been.

Source: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna 2016, "Rethinking the Inception Architecture for
Computer Vision", CVPR, section 7.
"""

from __future__ import annotations

from torch import Tensor

from extracurricular.distributions import Categorical, Distribution, Gaussian
from extracurricular.inputs import soft_labels


def check_smoothing(part: float) -> None:
    """Refuse a part outside of [0, 1).

    Raises:
        ValueError: It is.
    """
    if not 0 <= part < 1:
        raise ValueError(f"label_smoothing is {part}; it must be at least 0 and below 1")


def smoothed_labels(y: Tensor, student: Distribution, part: float) -> Tensor:
    """Return labels of which a part is spread evenly; for part 0, as they are.

    Args:
        y: Class indices [B], soft labels [B, C], or labels of 0 and 1, [B, L].
        student: A distribution over what they are, for the number of classes.
        part: The part, in [0, 1).

    Raises:
        ValueError: The labels are real targets.
    """
    if part == 0:
        return y
    if isinstance(student, Gaussian):
        raise ValueError(
            f"label_smoothing is {part}, but real targets have no classes to spread it over; leave "
            "it out"
        )
    if not isinstance(student, Categorical):
        return spread(y.float(), part, 2)
    count = student.logits.shape[-1]
    return spread(soft_labels(y, count).float(), part, count)


def spread(probs: Tensor, part: float, count: int) -> Tensor:
    """Return probabilities of which a part is spread evenly over ``count`` outcomes."""
    return probs if part == 0 else probs * (1 - part) + part / count
