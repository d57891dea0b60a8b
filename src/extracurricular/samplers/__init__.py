"""Where examples come from: samplers map draw ids to examples, and nest.

Every module in this package is imported here, so that what it registers is known to recipes.
"""

import importlib
import pkgutil

from extracurricular.samplers.base import SAMPLERS, Batch, Sampler, Seeded, is_pure, soft_labels
from extracurricular.samplers.blend import Blend
from extracurricular.samplers.build import Context, build_sampler
from extracurricular.samplers.generated import Generated
from extracurricular.samplers.pool import Pool
from extracurricular.samplers.resized_crop import ResizedCrop
from extracurricular.samplers.stored import Empirical
from extracurricular.samplers.uncertain import Uncertain
from extracurricular.samplers.vicinal import (
    Augment,
    CutMix,
    Mixup,
    Noise,
    crop_flip,
    cutmix_batch,
    mixup_batch,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

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
