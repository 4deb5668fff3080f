"""Variational autoencoders in JAX: pure functions, exact numbers, whole epochs compiled.

Names are grouped by stage: data -> distributions -> networks -> models -> objectives -> training -> evaluation ->
plotting. `latents`, `attributes`, `sharding` and `plot` are modules.
"""

import warnings
from typing import Any

from vae_jax import plotting as plot
from vae_jax.checkpoints import Checkpoints, NoCheckpoints, restore_model
from vae_jax.data import (
    Attributes,
    Batch,
    Binarize,
    Crop,
    Dataset,
    Dequantize,
    Mirrored,
    Raw,
    Scale,
    Split,
    StaticBinarize,
    Support,
    load,
    load_celeba,
)
from vae_jax.distributions import (
    Coupling,
    Delta,
    DiagonalGaussian,
    FlowPosterior,
    FlowPrior,
    FullGaussian,
    GaussianMixture,
    StandardNormal,
    VampPrior,
    kl_divergence,
)
from vae_jax.distributions.likelihoods import (
    Bernoulli,
    Categorical,
    ColourMixtureOfLogistics,
    ContinuousBernoulli,
    DiscretisedLogistic,
    Gaussian,
    HeteroscedasticGaussian,
    Independent,
    Laplace,
    LearnedGaussian,
    Likelihood,
    MixtureOfLogistics,
    NegativeBinomial,
    OptimalGaussian,
    Poisson,
    StudentT,
)
from vae_jax.errors import (
    CheckpointError,
    CheckpointWarning,
    DataError,
    DataNotFoundError,
    InputError,
    NotFiniteError,
    StoppedError,
)
from vae_jax.evaluation import (
    Classifier,
    CrossEntropy,
    LegibilityClassifier,
    PosteriorCollapseWarning,
    TrainedClassifier,
    active_units,
    attributes,
    bits_per_dim,
    decode_all,
    encode_all,
    evaluate,
    frechet_distance,
    importance_estimate,
    kl_by_unit,
    latents,
    log_likelihood,
    mean_and_stderr,
    nearest_distance,
    train_classifier,
    train_legibility_classifier,
    transform_all,
)
from vae_jax.models import VAE, Draws, LatentVariableModel, Terms, batch_norm_vae, conv_vae, mlp_vae, parameter_table
from vae_jax.networks import MLP, ConvDecoder, ConvEncoder, Gated, from_nnx
from vae_jax.objectives import ELBO, IWAE, AnalyticKL, Loss, Reconstruction, SampledKL, elbo_terms, log_weights
from vae_jax.training import (
    TrainState,
    averaged,
    averaged_variables,
    device_mesh,
    fit,
    init,
    init_members,
    make_train_step,
    member,
    sharding,
    warm_up_then_cosine,
    with_settings,
)
from vae_jax.values import axes, parameter, value

__version__ = "0.2.0"

__all__ = [
    "ELBO",
    "IWAE",
    "MLP",
    "VAE",
    "AnalyticKL",
    "Attributes",
    "Batch",
    "Bernoulli",
    "Binarize",
    "Categorical",
    "CheckpointError",
    "CheckpointWarning",
    "Checkpoints",
    "Classifier",
    "ColourMixtureOfLogistics",
    "ContinuousBernoulli",
    "ConvDecoder",
    "ConvEncoder",
    "Coupling",
    "Crop",
    "CrossEntropy",
    "DataError",
    "DataNotFoundError",
    "Dataset",
    "Delta",
    "Dequantize",
    "DiagonalGaussian",
    "DiscretisedLogistic",
    "Draws",
    "FlowPosterior",
    "FlowPrior",
    "FullGaussian",
    "Gated",
    "Gaussian",
    "GaussianMixture",
    "HeteroscedasticGaussian",
    "Independent",
    "InputError",
    "Laplace",
    "LatentVariableModel",
    "LearnedGaussian",
    "LegibilityClassifier",
    "Likelihood",
    "Loss",
    "Mirrored",
    "MixtureOfLogistics",
    "NegativeBinomial",
    "NoCheckpoints",
    "NotFiniteError",
    "OptimalGaussian",
    "Poisson",
    "PosteriorCollapseWarning",
    "Raw",
    "Reconstruction",
    "SampledKL",
    "Scale",
    "Split",
    "StandardNormal",
    "StaticBinarize",
    "StoppedError",
    "StudentT",
    "Support",
    "Terms",
    "TrainState",
    "TrainedClassifier",
    "VampPrior",
    "active_units",
    "attributes",
    "averaged",
    "averaged_variables",
    "axes",
    "batch_norm_vae",
    "bits_per_dim",
    "conv_vae",
    "decode_all",
    "device_mesh",
    "elbo_terms",
    "encode_all",
    "evaluate",
    "fit",
    "frechet_distance",
    "from_nnx",
    "importance_estimate",
    "init",
    "init_members",
    "kl_by_unit",
    "kl_divergence",
    "latents",
    "load",
    "load_celeba",
    "log_likelihood",
    "log_weights",
    "make_train_step",
    "mean_and_stderr",
    "member",
    "mlp_vae",
    "nearest_distance",
    "parameter",
    "parameter_table",
    "plot",
    "restore_model",
    "sharding",
    "train_classifier",
    "train_legibility_classifier",
    "transform_all",
    "value",
    "warm_up_then_cosine",
    "with_settings",
]

_RENAMED = {
    "Judge": "TrainedClassifier",
    "estimate": "mean_and_stderr",
    "observe_all": "transform_all",
    "train_judge": "train_classifier",
}


def __getattr__(name: str) -> Any:
    """The old names of what has a new one, with a warning."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"vae_jax.{name} is now called vae_jax.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]


def __dir__() -> list[str]:
    return __all__
