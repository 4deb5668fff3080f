"""Evaluation of trained models on any number of examples, in blocks.

Likelihoods, KL and distances to neighbours are per example; the caller takes the mean.
"""

from vae_jax.evaluation.attributes import (
    AttributeClassifier,
    Edits,
    at_share,
    conv_features,
    edit,
    train_attribute_classifier,
)
from vae_jax.evaluation.classifier import Classifier, CrossEntropy, TrainedClassifier, train_classifier
from vae_jax.evaluation.distances import (
    Neighbourhoods,
    bootstrap_stderr,
    density_and_coverage,
    frechet_distance,
    nearest_distance,
    sharpness,
)
from vae_jax.evaluation.estimate import Estimate, mean_and_stderr, paired_ratio
from vae_jax.evaluation.fitted_prior import fit_prior
from vae_jax.evaluation.legibility import LegibilityClassifier, train_legibility_classifier
from vae_jax.evaluation.log_px import ImportanceEstimate, bits_per_dim, evaluate, importance_estimate, log_likelihood
from vae_jax.evaluation.passes import decode_all, encode_all, transform_all, transform_to_batch
from vae_jax.evaluation.units import PosteriorCollapseWarning, active_units, kl_by_unit, warn_if_collapsed

__all__ = [
    "AttributeClassifier",
    "Classifier",
    "CrossEntropy",
    "Edits",
    "Estimate",
    "ImportanceEstimate",
    "LegibilityClassifier",
    "Neighbourhoods",
    "PosteriorCollapseWarning",
    "TrainedClassifier",
    "active_units",
    "at_share",
    "bits_per_dim",
    "bootstrap_stderr",
    "conv_features",
    "decode_all",
    "density_and_coverage",
    "edit",
    "encode_all",
    "evaluate",
    "fit_prior",
    "frechet_distance",
    "importance_estimate",
    "kl_by_unit",
    "log_likelihood",
    "mean_and_stderr",
    "nearest_distance",
    "paired_ratio",
    "sharpness",
    "train_attribute_classifier",
    "train_classifier",
    "train_legibility_classifier",
    "transform_all",
    "transform_to_batch",
    "warn_if_collapsed",
]
