"""Likelihoods p(x|z): values that build a distribution over images from what the decoder network emits, in nats.

The distributions are pytrees with any leading axes, such as [samples, batch]. `log_prob` keeps every constant and sums
over pixels and channels; nothing here takes a mean over examples. Given concrete values, and not those of a traced
program, it refuses what the distribution is not defined on.
"""

from vae_jax.likelihoods.base import Distribution, ImageDistribution, Likelihood
from vae_jax.likelihoods.bernoulli import Bernoulli, BernoulliImage, ContinuousBernoulli, ContinuousBernoulliImage
from vae_jax.likelihoods.gaussian import Gaussian, GaussianImage, LearnedGaussian, OptimalGaussian
from vae_jax.likelihoods.independent import Independent
from vae_jax.likelihoods.laplace import Laplace, LaplaceImage
from vae_jax.likelihoods.logistic import DiscretisedLogistic, DiscretisedLogisticImage

__all__ = [
    "Bernoulli",
    "BernoulliImage",
    "ContinuousBernoulli",
    "ContinuousBernoulliImage",
    "DiscretisedLogistic",
    "DiscretisedLogisticImage",
    "Distribution",
    "Gaussian",
    "GaussianImage",
    "ImageDistribution",
    "Independent",
    "Laplace",
    "LaplaceImage",
    "LearnedGaussian",
    "Likelihood",
    "OptimalGaussian",
]
