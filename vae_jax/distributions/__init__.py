"""Distributions of latents: posteriors q(z|x), priors p(z), normalising flows, and divergences in nats."""

from vae_jax.distributions.base import LOG_2PI, Posterior, Prior, example_keys, normal_like, soft_clip
from vae_jax.distributions.divergence import kl_divergence, log_ratio
from vae_jax.distributions.flows import Coupling, Flow, FlowPosterior, Transformed
from vae_jax.distributions.gaussian import Delta, DiagonalGaussian, FullGaussian
from vae_jax.distributions.mixture import FullGaussianMixtureDistribution, GaussianMixtureDistribution
from vae_jax.distributions.priors import FlowPrior, FullGaussianMixture, GaussianMixture, StandardNormal, VampPrior
from vae_jax.distributions.standard import UnitGaussian

__all__ = [
    "LOG_2PI",
    "Coupling",
    "Delta",
    "DiagonalGaussian",
    "Flow",
    "FlowPosterior",
    "FlowPrior",
    "FullGaussian",
    "FullGaussianMixture",
    "FullGaussianMixtureDistribution",
    "GaussianMixture",
    "GaussianMixtureDistribution",
    "Posterior",
    "Prior",
    "StandardNormal",
    "Transformed",
    "UnitGaussian",
    "VampPrior",
    "example_keys",
    "kl_divergence",
    "log_ratio",
    "normal_like",
    "soft_clip",
]
