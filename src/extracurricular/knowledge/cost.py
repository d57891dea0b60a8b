"""What storing a teacher's answers costs, in words: nothing, unless it is too much."""

from __future__ import annotations

from extracurricular.knowledge.codecs import Codec
from extracurricular.knowledge.manifest import Price

# For a codec of the user's own, which may not say how much it should cost.
_MOST = 5e-2


def too_dear(price: Price | None, codec: Codec) -> str | None:
    """Return a sentence on a record that costs more than its codec should; None for any other.

    Args:
        price: The measured cost; None where it is not known.
        codec: The codec of the record.
    """
    most = getattr(codec, "most", _MOST)
    means = {} if price is None else {float(t): kl["mean"] for t, kl in price.kl.items()}
    if not means:
        return None
    temperature, worst = max(means.items(), key=lambda pair: pair[1])
    if worst <= most:
        return None
    return (
        f"the stored answers are {worst:.2g} nats from the teacher's at T = {temperature:g}, more "
        f"than the {most:g} that this codec should cost at most; float16 stores them more exactly"
    )
