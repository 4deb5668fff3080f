"""Variational autoencoders in JAX: pure functions, exact numbers, whole epochs compiled."""

from vae_jax.classifier import Classifier, CrossEntropy, Judge, train_judge
from vae_jax.data import Dataset, Split, load
from vae_jax.distributions import Bernoulli, Delta, DiagonalGaussian, Gaussian
from vae_jax.errors import DataError, DataNotFoundError, InputError, NotFiniteError
from vae_jax.evaluate import decode_all, encode_all, estimate, evaluate, frechet_distance
from vae_jax.model import VAE, batch_norm_vae, mlp_vae
from vae_jax.objectives import ELBO, Loss, Reconstruction, elbo_terms
from vae_jax.observation import Batch, Scale
from vae_jax.train import TrainState, fit, init, make_train_step, warm_up_then_cosine

__all__ = [
    "ELBO",
    "VAE",
    "Batch",
    "Bernoulli",
    "Classifier",
    "CrossEntropy",
    "DataError",
    "DataNotFoundError",
    "Dataset",
    "Delta",
    "DiagonalGaussian",
    "Gaussian",
    "InputError",
    "Judge",
    "Loss",
    "NotFiniteError",
    "Reconstruction",
    "Scale",
    "Split",
    "TrainState",
    "batch_norm_vae",
    "decode_all",
    "elbo_terms",
    "encode_all",
    "estimate",
    "evaluate",
    "fit",
    "frechet_distance",
    "init",
    "load",
    "make_train_step",
    "mlp_vae",
    "train_judge",
    "warm_up_then_cosine",
]
