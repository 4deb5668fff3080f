"""Variational autoencoders in JAX: pure functions, exact numbers, whole epochs compiled."""

from vae_jax.averaging import averaged, averaged_variables
from vae_jax.checkpoint import Checkpoints, NoCheckpoints, restore_model
from vae_jax.classifier import Classifier, CrossEntropy, Judge, train_judge
from vae_jax.data import Attributes, Crop, Dataset, Split, load, load_celeba
from vae_jax.distances import frechet_distance
from vae_jax.distributions import Delta, DiagonalGaussian
from vae_jax.ensemble import init_members, with_settings
from vae_jax.errors import (
    CheckpointError,
    CheckpointWarning,
    DataError,
    DataNotFoundError,
    InputError,
    NotFiniteError,
    StoppedError,
)
from vae_jax.evaluate import (
    PosteriorCollapseWarning,
    active_units,
    bits_per_dim,
    decode_all,
    encode_all,
    estimate,
    evaluate,
    importance_estimate,
    log_likelihood,
    observe_all,
)
from vae_jax.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretisedLogistic,
    Gaussian,
    Laplace,
    LearnedGaussian,
    Likelihood,
    OptimalGaussian,
)
from vae_jax.model import VAE, batch_norm_vae, conv_vae, mlp_vae
from vae_jax.objectives import ELBO, IWAE, AnalyticKL, Loss, Reconstruction, SampledKL, elbo_terms, log_weights
from vae_jax.observation import Batch, Binarize, Dequantize, Mirrored, Scale, StaticBinarize, Support
from vae_jax.sharding import device_mesh
from vae_jax.step import TrainState, init, make_train_step, member, warm_up_then_cosine
from vae_jax.train import fit

__all__ = [
    "ELBO",
    "IWAE",
    "VAE",
    "AnalyticKL",
    "Attributes",
    "Batch",
    "Bernoulli",
    "Binarize",
    "CheckpointError",
    "CheckpointWarning",
    "Checkpoints",
    "Classifier",
    "ContinuousBernoulli",
    "Crop",
    "CrossEntropy",
    "DataError",
    "DataNotFoundError",
    "Dataset",
    "Delta",
    "Dequantize",
    "DiagonalGaussian",
    "DiscretisedLogistic",
    "Gaussian",
    "InputError",
    "Judge",
    "Laplace",
    "LearnedGaussian",
    "Likelihood",
    "Loss",
    "Mirrored",
    "NoCheckpoints",
    "NotFiniteError",
    "OptimalGaussian",
    "PosteriorCollapseWarning",
    "Reconstruction",
    "SampledKL",
    "Scale",
    "Split",
    "StaticBinarize",
    "StoppedError",
    "Support",
    "TrainState",
    "active_units",
    "averaged",
    "averaged_variables",
    "batch_norm_vae",
    "bits_per_dim",
    "conv_vae",
    "decode_all",
    "device_mesh",
    "elbo_terms",
    "encode_all",
    "estimate",
    "evaluate",
    "fit",
    "frechet_distance",
    "importance_estimate",
    "init",
    "init_members",
    "load",
    "load_celeba",
    "log_likelihood",
    "log_weights",
    "make_train_step",
    "member",
    "mlp_vae",
    "observe_all",
    "restore_model",
    "train_judge",
    "warm_up_then_cosine",
    "with_settings",
]
