"""Where examples come from: samplers map draw ids to examples, and nest.

A name is looked up in every module of this package, so one file adds an entry.
"""

from extracurricular.samplers.base import SAMPLERS, Batch, Sampler, Seeded, is_pure, soft_labels
from extracurricular.samplers.blend import Blend
from extracurricular.samplers.build import Context, build_sampler
from extracurricular.samplers.generated import Generated
from extracurricular.samplers.mixing import (
    Augment,
    CutMix,
    Mixup,
    Noise,
    crop_flip,
    cutmix_batch,
    mixup_batch,
)
from extracurricular.samplers.pool import Pool
from extracurricular.samplers.resized_crop import ResizedCrop
from extracurricular.samplers.stored import Empirical
from extracurricular.samplers.uncertain import Uncertain

__all__ = [
    "SAMPLERS",
    "Augment",
    "Batch",
    "Blend",
    "Context",
    "CutMix",
    "Empirical",
    "Generated",
    "Mixup",
    "Noise",
    "Pool",
    "ResizedCrop",
    "Sampler",
    "Seeded",
    "Uncertain",
    "build_sampler",
    "crop_flip",
    "cutmix_batch",
    "is_pure",
    "mixup_batch",
    "soft_labels",
]
