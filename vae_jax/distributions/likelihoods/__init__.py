"""Likelihoods p(x|z): values that build a distribution over images or other events from the decoder outputs.

The distributions are pytrees with any leading axes, such as [samples, batch]. `log_prob` includes all constants and is
summed over the event, such as the pixels and channels of an image, in nats; no method averages over examples. It raises
`InputError` if `x` has events of another shape, or values outside the support; traced values are not checked.
"""

from vae_jax.distributions.likelihoods.base import Distribution, Likelihood
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
