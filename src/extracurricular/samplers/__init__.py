"""Samplers map draw ids to examples, and nest.

The registry looks a name up in every module of this package, so one file adds an entry.
"""

from extracurricular.inputs import Batch, soft_labels
from extracurricular.samplers.affine import Affine
from extracurricular.samplers.augment import Augment, crop_flip
from extracurricular.samplers.balanced import Balanced
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, is_pure
from extracurricular.samplers.blend import Blend
from extracurricular.samplers.build import Context, build_sampler
from extracurricular.samplers.colour import Colour
from extracurricular.samplers.cutout import Cutout
from extracurricular.samplers.generated import Generated
from extracurricular.samplers.gibbs import Gibbs
from extracurricular.samplers.mixing import CutMix, Mixup, cutmix_batch, mixup_batch
from extracurricular.samplers.neighbours import Neighbours
from extracurricular.samplers.noise import Noise
from extracurricular.samplers.pool import Pool
from extracurricular.samplers.rand_augment import RandAugment
from extracurricular.samplers.resized_crop import ResizedCrop
from extracurricular.samplers.share import Share
from extracurricular.samplers.stored import Empirical
from extracurricular.samplers.swap import Swap
from extracurricular.samplers.trivial_augment import TrivialAugment
from extracurricular.samplers.uncertain import Uncertain
from extracurricular.samplers.weak import Weak

__all__ = [
    "SAMPLERS",
    "Affine",
    "Augment",
    "Balanced",
    "Batch",
    "Blend",
    "Colour",
    "Context",
    "CutMix",
    "Cutout",
    "Empirical",
    "Generated",
    "Gibbs",
    "Mixup",
    "Neighbours",
    "Noise",
    "Pool",
    "RandAugment",
    "ResizedCrop",
    "Sampler",
    "Seeded",
    "Share",
    "Swap",
    "TrivialAugment",
    "Uncertain",
    "Weak",
    "build_sampler",
    "crop_flip",
    "cutmix_batch",
    "is_pure",
    "mixup_batch",
    "soft_labels",
]
