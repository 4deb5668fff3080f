"""Likelihoods p(x|z): values that build a distribution over images from what the decoder network emits, in nats.

The distributions are pytrees with any leading axes, such as [samples, batch]. `log_prob` keeps every constant and sums
over pixels and channels; nothing here takes a mean over examples. Given concrete values, and not those of a traced
program, it refuses what the distribution is not defined on.
"""

from vae_jax.distributions.likelihoods.base import Distribution, ImageDistribution, Likelihood
from vae_jax.distributions.likelihoods.bernoulli import (
    Bernoulli,
    BernoulliImage,
    ContinuousBernoulli,
    ContinuousBernoulliImage,
)
from vae_jax.distributions.likelihoods.categorical import Categorical, IndependentCategorical
from vae_jax.distributions.likelihoods.counts import (
    IndependentNegativeBinomial,
    IndependentPoisson,
    NegativeBinomial,
    Poisson,
)
from vae_jax.distributions.likelihoods.gaussian import (
    Gaussian,
    GaussianImage,
    HeteroscedasticGaussian,
    LearnedGaussian,
    OptimalGaussian,
)
from vae_jax.distributions.likelihoods.independent import Independent
from vae_jax.distributions.likelihoods.laplace import Laplace, LaplaceImage
from vae_jax.distributions.likelihoods.logistic import DiscretisedLogistic, DiscretisedLogisticImage
from vae_jax.distributions.likelihoods.mixtures import (
    ColourMixtureOfLogistics,
    ColourMixtureOfLogisticsImage,
    IndependentMixtureOfLogistics,
    MixtureOfLogistics,
)
from vae_jax.distributions.likelihoods.student_t import IndependentStudentT, StudentT

__all__ = [
    "Bernoulli",
    "BernoulliImage",
    "Categorical",
    "ColourMixtureOfLogistics",
    "ColourMixtureOfLogisticsImage",
    "ContinuousBernoulli",
    "ContinuousBernoulliImage",
    "DiscretisedLogistic",
    "DiscretisedLogisticImage",
    "Distribution",
    "Gaussian",
    "GaussianImage",
    "HeteroscedasticGaussian",
    "ImageDistribution",
    "Independent",
    "IndependentCategorical",
    "IndependentMixtureOfLogistics",
    "IndependentNegativeBinomial",
    "IndependentPoisson",
    "IndependentStudentT",
    "Laplace",
    "LaplaceImage",
    "LearnedGaussian",
    "Likelihood",
    "MixtureOfLogistics",
    "NegativeBinomial",
    "OptimalGaussian",
    "Poisson",
    "StudentT",
]
