"""Training objectives as values: `objective(key, model, variables, batch, step) -> Loss`.

Every loss is per example and in nats; the train step computes the mean over the batch.
"""

from vae_jax.objectives.adversarial import Adversarial, AdversarialWarning, warn_if_one_sided
from vae_jax.objectives.base import Loss, Objective, require_schedules
from vae_jax.objectives.bounds import ELBOTerms, as_batch, elbo_terms, log_weights, log_weights_of, sum_over_units
from vae_jax.objectives.elbo import ELBO, AnalyticKL, Reconstruction, SampledKL
from vae_jax.objectives.iwae import IWAE
from vae_jax.objectives.perceptual import Perceptual, layer_distances

__all__ = [
    "ELBO",
    "IWAE",
    "Adversarial",
    "AdversarialWarning",
    "AnalyticKL",
    "ELBOTerms",
    "Loss",
    "Objective",
    "Perceptual",
    "Reconstruction",
    "SampledKL",
    "as_batch",
    "elbo_terms",
    "layer_distances",
    "log_weights",
    "log_weights_of",
    "require_schedules",
    "sum_over_units",
    "warn_if_one_sided",
]
