"""Predictions: distributions over labels, one per example.

There are three families: :class:`Categorical` for classes, :class:`Gaussian` for real vectors, and
:class:`Bernoulli` for several labels of 0 and 1. All hold a batch, compute in float32 whatever
precision the network ran in, and have the same methods:

=====================  ==========================================================================
``nll(y)``             negative log-likelihood of labels, in nats, [B]
``entropy()``          Shannon or differential entropy, in nats, [B]
``kl(other)``          Kullback-Leibler divergence from ``other`` to this one, in nats, [B]
``js(other)``          Jensen-Shannon divergence, in nats, [B]
``tempered(T)``        the density to the power 1/T, normalised
``mean``               the mean prediction: probabilities [B, C] or [B, L], or reals [B, D]
``mixture(members)``   one distribution for an ensemble
``epistemic(members)`` the part of an ensemble's uncertainty that is disagreement
=====================  ==========================================================================

Richer families are subclasses of these, with all their figures and their own shapes. A
:class:`Family` describes one, and a :class:`Task` carries it: :class:`StudentT`,
:class:`GaussianMixture`, :class:`Quantiled`, :class:`FullGaussian`, :class:`NormalInverseGamma`,
:class:`Dirichlet`.

Reduction has one definition everywhere: sum over outputs here, mean over examples in the loss.
"""

from extracurricular.distributions.bernoulli import Bernoulli
from extracurricular.distributions.calibration import Calibration, Conformal
from extracurricular.distributions.categorical import Categorical
from extracurricular.distributions.dirichlet import Dirichlet, Dirichlets, Ensembled
from extracurricular.distributions.family import MEASURES, Family, Kind
from extracurricular.distributions.filed import Filed, gathered
from extracurricular.distributions.full_covariance import FullGaussian, FullGaussians
from extracurricular.distributions.gaussian import (
    MAX_LOG_VAR,
    OWN_LOG_VAR,
    SOFT_LOG_VAR,
    WIDE_LOG_VAR,
    Gaussian,
    bent,
)
from extracurricular.distributions.gaussian_mixture import GaussianMixture, GaussianMixtures
from extracurricular.distributions.normal_inverse_gamma import (
    NormalInverseGamma,
    NormalInverseGammas,
)
from extracurricular.distributions.quantiles import Quantiled, Quantiles
from extracurricular.distributions.student_t import StudentT, StudentTs
from extracurricular.distributions.task import (
    FAMILIES,
    Distribution,
    Task,
    concatenate,
    epistemic,
    kind_of_distribution,
    mixture,
    reader_of,
    together,
    usual_of,
)

__all__ = [
    "FAMILIES",
    "MAX_LOG_VAR",
    "MEASURES",
    "OWN_LOG_VAR",
    "SOFT_LOG_VAR",
    "WIDE_LOG_VAR",
    "Bernoulli",
    "Calibration",
    "Categorical",
    "Conformal",
    "Dirichlet",
    "Dirichlets",
    "Distribution",
    "Ensembled",
    "Family",
    "Filed",
    "FullGaussian",
    "FullGaussians",
    "Gaussian",
    "GaussianMixture",
    "GaussianMixtures",
    "Kind",
    "NormalInverseGamma",
    "NormalInverseGammas",
    "Quantiled",
    "Quantiles",
    "StudentT",
    "StudentTs",
    "Task",
    "bent",
    "concatenate",
    "epistemic",
    "gathered",
    "kind_of_distribution",
    "mixture",
    "reader_of",
    "together",
    "usual_of",
]
