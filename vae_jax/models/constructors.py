"""Constructors of variational autoencoders."""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from vae_jax.distributions import DiagonalGaussian, StandardNormal
from vae_jax.distributions.likelihoods import (
    Bernoulli,
    ColourMixtureOfLogistics,
    Gaussian,
    LearnedGaussian,
    Likelihood,
    MixtureOfLogistics,
)
from vae_jax.errors import InputError, renamed, require_positive, require_positive_int
from vae_jax.models.base import as_event_shape, require_parts
from vae_jax.models.ladder import LadderVAE
from vae_jax.models.vae import VAE
from vae_jax.networks import (
    MLP,
    ConvBottomUp,
    ConvDecoder,
    ConvEncoder,
    ConvTopDown,
    DenseBottomUp,
    DenseTopDown,
    ResNetDecoder,
    ResNetEncoder,
    WaveletBottomUp,
    WaveletTopDown,
    require_norm,
)
from vae_jax.networks.conv4x4 import require_halved


def _require_widths(**widths: Any) -> None:
    """Raise `InputError` unless each argument is a sequence of positive integers."""
    for name, given in widths.items():
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise InputError(f"{name} is {given!r}; expected a tuple of whole numbers, such as ({given!r}, {given!r})")
        require_positive_int(**{f"{name}[{i}]": width for i, width in enumerate(given)})


def _require_layers(**sizes: Any) -> None:
    """Raise `InputError` if a sequence is empty."""
    for name, given in sizes.items():
        if not given:
            raise InputError(f"{name} is {given!r}; expected one size or more")


def _require_as_many(**numbers: Any) -> None:
    """Raise `InputError` unless the two sequences have the same length."""
    (first, one), (second, other) = numbers.items()
    if len(one) != len(other):
        raise InputError(f"{first} is {one!r} and {second} is {other!r}; expected two sequences of one length")


def _require_halvings(event_shape: tuple[int, ...], halvings: int) -> None:
    """Raise `InputError` unless the events are images whose height and width can be halved this often."""
    if len(event_shape) != 3:
        raise InputError(f"event_shape is {event_shape}; a convolutional VAE takes (height, width, channels)")
    height, width, _ = event_shape
    if not halvings:
        raise InputError("there are no convolutions; expected the number of channels of one convolution or more")
    require_halved(height, width, halvings)


def _linear_path(linear: bool, likelihood: Likelihood, event_shape: tuple[int, ...]) -> dict[str, Any]:
    """The arguments of a decoder with which a linear path, if there is one, goes to the locations of the likelihood.

    Raises:
      InputError: There is a path, but the likelihood has no locations.
    """
    if linear:
        likelihood.require_locations()
    if not linear or likelihood.output_shape(event_shape) == event_shape:
        return {"linear": linear}
    return {"linear": True, "likelihood": likelihood, "event_shape": event_shape}


@renamed(image_shape="event_shape")
def mlp_vae(
    event_shape: Any = (28, 28, 1),
    latent_dim: int = 2,
    hidden: Any = (500, 250),
    likelihood: Any = Bernoulli(),
    posterior: Any = DiagonalGaussian,
    classes: int | None = None,
    activation: Any = nn.relu,
    prior: Any = StandardNormal(),
    condition_shape: tuple[Any, ...] | None = None,
    compute_dtype: Any = None,
) -> VAE:
    """VAE with a dense encoder of widths `hidden` and a dense decoder of the reversed widths.

    With `posterior=Delta` it is a plain autoencoder of the same layers; with `classes` or `condition_shape` it is
    conditional.

    Args:
      event_shape: Shape of one example, such as (height, width, channels).
      latent_dim: Number of latent dimensions.
      hidden: Widths of the encoder's hidden layers.
      likelihood: Likelihood p(x|z) of the decoder's outputs.
      posterior: Family of q(z|x).
      classes: Number of classes if the model is conditional on labels (see `VAE`).
      activation: Activation function after each hidden layer.
      prior: Prior p(z).
      condition_shape: Shape of one condition if the model is conditional on arrays (see `VAE`).
      compute_dtype: Type in which the networks compute, "bfloat16", or None for that of the parameters (see `VAE`).

    Returns:
      The model, without variables; `init` creates them.

    Raises:
      InputError: A size is not a positive integer, the activation is not a function, or a distribution is not
        of the expected kind.
    """
    event_shape = as_event_shape(event_shape)
    require_positive_int(latent_dim=latent_dim)
    _require_widths(hidden=hidden)
    if not callable(activation):
        raise InputError(f"activation is {activation!r}; expected a function, such as flax.linen.relu")
    require_parts(likelihood=likelihood, prior=prior, posterior=posterior)
    return VAE(
        encoder=MLP(tuple(hidden), posterior.output_shape(latent_dim), activation),
        decoder=MLP(tuple(reversed(hidden)), likelihood.output_shape(event_shape), activation),
        event_shape=event_shape,
        latent_dim=latent_dim,
        posterior=posterior,
        likelihood=likelihood,
        classes=classes,
        prior=prior,
        condition_shape=condition_shape,
        compute_dtype=compute_dtype,
    )


@renamed(image_shape="event_shape")
def batch_norm_vae(
    event_shape: Any = (28, 28, 1),
    latent_dim: int = 28,
    hidden: Any = (196, 49),
    likelihood: Any = Gaussian(),
    momentum: float = 0.3,
    posterior: Any = DiagonalGaussian,
    classes: int | None = None,
    prior: Any = StandardNormal(),
    condition_shape: tuple[Any, ...] | None = None,
    axis_name: str | None = None,
    compute_dtype: Any = None,
) -> VAE:
    """VAE of images in [-1, 1], with batch-normalised dense layers and a tanh after the decoder.

    With a Gaussian likelihood of variance c the negative ELBO is C * squared error + KL up to a constant, C = 1 / (2c).

    Args:
      event_shape: Shape of one example, (height, width, channels).
      latent_dim: Number of latent dimensions.
      hidden: Widths of the encoder's hidden layers; the decoder has them in reverse order.
      likelihood: Likelihood p(x|z) of the decoder's outputs, which are in [-1, 1].
      momentum: Weight of the old running statistics in an update (PyTorch's momentum is 1 minus this).
      posterior: Family of q(z|x).
      classes: Number of classes if the model is conditional on labels (see `VAE`).
      prior: Prior p(z).
      condition_shape: Shape of one condition if the model is conditional on arrays (see `VAE`).
      axis_name: Axis of `pmap` over which the batch is distributed.
      compute_dtype: Type in which the networks compute, "bfloat16", or None for that of the parameters (see `VAE`).

    Returns:
      The model, without variables; `init` creates them.

    Raises:
      InputError: A size is not a positive integer, the momentum is outside [0, 1), or a distribution is not of the
        expected kind.
    """
    event_shape = as_event_shape(event_shape)
    require_positive_int(latent_dim=latent_dim)
    _require_widths(hidden=hidden)
    require_parts(likelihood=likelihood, prior=prior, posterior=posterior)
    if not 0 <= momentum < 1:
        raise InputError(f"momentum is {momentum}; expected a share of the old statistics, from 0 to below 1")
    layers = functools.partial(MLP, batch_norm=momentum, axis_name=axis_name)
    return VAE(
        encoder=layers(tuple(hidden), posterior.output_shape(latent_dim)),
        decoder=layers(tuple(reversed(hidden)), event_shape, output_activation=jnp.tanh),
        event_shape=event_shape,
        latent_dim=latent_dim,
        posterior=posterior,
        likelihood=likelihood,
        classes=classes,
        prior=prior,
        condition_shape=condition_shape,
        compute_dtype=compute_dtype,
    )


@renamed(image_shape="event_shape")
def conv_vae(
    event_shape: Any = (64, 64, 3),
    latent_dim: int = 100,
    features: Any = (32, 64, 128, 256),
    likelihood: Any = Gaussian(),
    posterior: Any = DiagonalGaussian,
    linear: bool = False,
    classes: int | None = None,
    prior: Any = StandardNormal(),
    condition_shape: tuple[Any, ...] | None = None,
    compute_dtype: Any = None,
) -> VAE:
    """VAE with 4 x 4 convolutions of stride 2 as encoder and transposed convolutions as decoder.

    Args:
      event_shape: Shape of one example, (height, width, channels); each convolution halves height and width.
      latent_dim: Number of latent dimensions.
      features: Number of channels after each convolution of the encoder.
      likelihood: Likelihood p(x|z) of the decoder's outputs, which are unbounded.
      posterior: Family of q(z|x); `Delta` gives a plain autoencoder.
      linear: Whether linear maps from the pixels to the parameters of q(z|x), and from the latents to the pixels, are
        added to the networks. They quickly learn the principal components.
      classes: Number of classes if the model is conditional on labels (see `VAE`).
      prior: Prior p(z).
      condition_shape: Shape of one condition if the model is conditional on arrays (see `VAE`).
      compute_dtype: Type in which the networks compute, "bfloat16", or None for that of the parameters (see `VAE`).

    Returns:
      The model, without variables; `init` creates them.

    Raises:
      InputError: A size is not a positive integer, or a distribution is not of the expected kind. There are no
        convolutions, or height or width is not a multiple of 2**len(features). `linear` is set with a likelihood
        without locations (`Likelihood.has_locations`).
    """
    event_shape = as_event_shape(event_shape)
    require_positive_int(latent_dim=latent_dim)
    _require_widths(features=features)
    require_parts(likelihood=likelihood, prior=prior, posterior=posterior)
    _require_halvings(event_shape, len(features))
    outputs = likelihood.output_shape(event_shape)
    path = _linear_path(linear, likelihood, event_shape)
    return VAE(
        encoder=ConvEncoder(tuple(features), posterior.output_shape(latent_dim), linear),
        decoder=ConvDecoder(tuple(reversed(features)), outputs, **path),
        event_shape=event_shape,
        latent_dim=latent_dim,
        posterior=posterior,
        likelihood=likelihood,
        classes=classes,
        prior=prior,
        condition_shape=condition_shape,
        compute_dtype=compute_dtype,
    )


def resnet_vae(
    event_shape: Any = (32, 32, 3),
    latent_dim: int = 256,
    width: int = 64,
    likelihood: Any = LearnedGaussian(),
    posterior: Any = DiagonalGaussian,
    blocks: Any = (2, 2, 2, 2),
    norm: str = "batch",
    pool: bool = True,
    linear: bool = False,
    classes: int | None = None,
    prior: Any = StandardNormal(),
    condition_shape: tuple[Any, ...] | None = None,
    axis_name: str | None = None,
    compute_dtype: Any = None,
) -> VAE:
    """VAE with residual networks: the ResNet-18 of He et al. (2016) as encoder, its mirror image as decoder.

    By default the networks are those of `VAE` in lightning-bolts for CIFAR-10: a 3 x 3 convolution and no pooling
    before the blocks, 512 features and 256 latents. The encoder has 11,168,832 parameters besides the dense layer of
    2 x 131,328, the decoder 8,625,600. The learned scale of all pixels is that of Falcon (2020, "Variational
    Autoencoder Demystified With PyTorch Implementation"), where the objective is `ELBO(kl=SampledKL())` and the
    optimizer `optax.adam(1e-4)`.

    Args:
      event_shape: Shape of one example, (height, width, channels); each stage of blocks but one halves height and
        width.
      latent_dim: Number of latent dimensions.
      width: Number of channels of the first stage of the encoder; it doubles with each stage.
      likelihood: Likelihood p(x|z) of the decoder's outputs, which are unbounded.
      posterior: Family of q(z|x); `Delta` gives a plain autoencoder.
      blocks: Number of blocks of each stage of the encoder; the decoder has the same stages in reverse order.
      norm: "batch" for batch normalisation, or "group" for group normalisation, which does not couple examples.
      pool: Whether the encoder takes the mean over the pixels of its last stage, as ResNet-18 does, or all of them.
      linear: Whether linear maps from the pixels to the parameters of q(z|x), and from the latents to the pixels, are
        added to the networks. They quickly learn the principal components.
      classes: Number of classes if the model is conditional on labels (see `VAE`).
      prior: Prior p(z).
      condition_shape: Shape of one condition if the model is conditional on arrays (see `VAE`).
      axis_name: Axis of `pmap` over which the batch is distributed; batch statistics are those of the whole batch.
      compute_dtype: Type in which the networks compute, "bfloat16", or None for that of the parameters (see `VAE`).

    Returns:
      The model, without variables; `init` creates them.

    Raises:
      InputError: A size is not a positive integer, there are fewer than two stages, height or width is not a multiple
        of 2**(len(blocks) - 1), or the normalisation is not one of the two. `linear` is set with a likelihood without
        locations (`Likelihood.has_locations`).
    """
    event_shape = as_event_shape(event_shape)
    require_positive_int(latent_dim=latent_dim, width=width)
    _require_widths(blocks=blocks)
    if len(blocks) < 2:
        raise InputError(f"blocks is {blocks!r}; expected the numbers of two stages or more, such as (2, 2, 2, 2)")
    require_parts(likelihood=likelihood, prior=prior, posterior=posterior)
    require_norm(norm)
    _require_halvings(event_shape, len(blocks) - 1)
    outputs = likelihood.output_shape(event_shape)
    path = _linear_path(linear, likelihood, event_shape)
    settings: dict[str, Any] = {"norm": norm, "axis_name": axis_name}
    return VAE(
        encoder=ResNetEncoder(
            width, posterior.output_shape(latent_dim), tuple(blocks), pool=pool, linear=linear, **settings
        ),
        decoder=ResNetDecoder(width, outputs, tuple(reversed(blocks)), **path, **settings),
        event_shape=event_shape,
        latent_dim=latent_dim,
        posterior=posterior,
        likelihood=likelihood,
        classes=classes,
        prior=prior,
        condition_shape=condition_shape,
        compute_dtype=compute_dtype,
    )


def ladder_vae(
    event_shape: Any = (28, 28, 1),
    latent_dims: Any = (40, 40),
    hidden: Any = (300,),
    likelihood: Any = Bernoulli(),
    posterior: Any = DiagonalGaussian,
    prior: Any = StandardNormal(),
    classes: int | None = None,
    condition_shape: tuple[Any, ...] | None = None,
    compute_dtype: Any = None,
) -> LadderVAE:
    """Ladder VAE of gated dense layers.

    Args:
      event_shape: Shape of one example, such as (height, width, channels).
      latent_dims: Number of latents of each layer, from the top.
      hidden: Widths of the gated layers between two layers of latents.
      likelihood: Likelihood p(x|z) of the decoder's outputs.
      posterior: Family of the posterior of the top layer.
      prior: Prior of the top layer.
      classes: Number of classes if the model is conditional on labels (see `VAE`).
      condition_shape: Shape of one condition if the model is conditional on arrays (see `VAE`).
      compute_dtype: Type in which the networks compute, "bfloat16", or None for that of the parameters (see `VAE`).

    Returns:
      The model, without variables; `init` creates them.

    Raises:
      InputError: A size is not a positive integer, there are no layers, or a distribution is not of the expected kind.
    """
    event_shape = as_event_shape(event_shape)
    _require_widths(latent_dims=latent_dims, hidden=hidden)
    _require_layers(latent_dims=latent_dims, hidden=hidden)
    require_parts(likelihood=likelihood, prior=prior, posterior=posterior)
    top, *below = latent_dims
    return LadderVAE(
        encoder=DenseBottomUp(tuple(hidden), posterior.output_shape(top), len(latent_dims)),
        decoder=DenseTopDown(tuple(hidden), likelihood.output_shape(event_shape), tuple(below)),
        event_shape=event_shape,
        latent_dim=top,
        posterior=posterior,
        likelihood=likelihood,
        classes=classes,
        prior=prior,
        condition_shape=condition_shape,
        compute_dtype=compute_dtype,
    )


def conv_ladder_vae(
    event_shape: Any = (32, 32, 3),
    latent_dim: int = 64,
    channels: Any = (32, 64),
    groups: Any = (2, 2),
    latent_channels: int = 8,
    likelihood: Any = ColourMixtureOfLogistics(10),
    posterior: Any = DiagonalGaussian,
    prior: Any = StandardNormal(),
    classes: int | None = None,
    condition_shape: tuple[Any, ...] | None = None,
    compute_dtype: Any = None,
) -> LadderVAE:
    """Ladder VAE of residual convolutional networks: a vector of latents, and maps of latents at several scales.

    Args:
      event_shape: Shape of one example, (height, width, channels); each scale halves height and width.
      latent_dim: Number of latents of the top layer.
      channels: Number of channels at each scale, the finest first; the finest is half of the image.
      groups: Number of layers of latents below the top one at each scale, the finest first; also that of residual
        blocks of encoder and decoder.
      latent_channels: Number of channels of each map of latents.
      likelihood: Likelihood p(x|z) of the decoder's outputs.
      posterior: Family of the posterior of the top layer.
      prior: Prior of the top layer.
      classes: Number of classes if the model is conditional on labels (see `VAE`).
      condition_shape: Shape of one condition if the model is conditional on arrays (see `VAE`).
      compute_dtype: Type in which the networks compute, "bfloat16", or None for that of the parameters (see `VAE`).

    Returns:
      The model, without variables; `init` creates them.

    Raises:
      InputError: A size is not a positive integer, the scales of `channels` and `groups` differ in number, height or
        width is not a multiple of 2**len(channels), or a distribution is not of the expected kind.
    """
    event_shape = as_event_shape(event_shape)
    require_positive_int(latent_dim=latent_dim, latent_channels=latent_channels)
    _require_widths(channels=channels, groups=groups)
    _require_as_many(channels=channels, groups=groups)
    require_parts(likelihood=likelihood, prior=prior, posterior=posterior)
    _require_halvings(event_shape, len(channels))
    coarsest_first = tuple(reversed(channels)), tuple(reversed(groups))
    return LadderVAE(
        encoder=ConvBottomUp(tuple(channels), tuple(groups), posterior.output_shape(latent_dim)),
        decoder=ConvTopDown(*coarsest_first, latent_channels, likelihood.output_shape(event_shape)),
        event_shape=event_shape,
        latent_dim=latent_dim,
        posterior=posterior,
        likelihood=likelihood,
        classes=classes,
        prior=prior,
        condition_shape=condition_shape,
        compute_dtype=compute_dtype,
    )


def wavelet_ladder_vae(
    event_shape: Any = (32, 32, 3),
    channels: Any = (48, 96, 128),
    blocks: Any = (1, 1, 1),
    likelihood: Any = MixtureOfLogistics(1),
    prior: Any = StandardNormal(),
    deviation: Any = 0.6 / 255,
    classes: int | None = None,
    condition_shape: tuple[Any, ...] | None = None,
) -> LadderVAE:
    """Ladder VAE of images whose layers of latents start as the scales of a Haar transform.

    The top layer has the means of the largest blocks of pixels, and each layer below the differences at one scale,
    those of grey before those of colours (see `vae_jax.networks.wavelets`). At first, the posteriors are the
    coefficients of the image with noise, so the model does not have to learn to use its many latents.

    Args:
      event_shape: Shape of one example, (height, width, channels); each scale halves height and width.
      channels: Number of channels of the networks at each scale, the finest first; the finest is half of the image.
      blocks: Number of residual blocks before each layer of latents at each scale, the finest first.
      likelihood: Likelihood p(x|z) of pixels in [0, 1], of which the decoder gives the locations.
      prior: Prior of the top layer.
      deviation: Standard deviation of the noise of the pixels under the posterior, at first, and unit of the decoder's
        outputs (`Likelihood.with_locations`); the difference between two levels of bytes is 1 / 255.
      classes: Number of classes if the model is conditional on labels (see `VAE`).
      condition_shape: Shape of one condition if the model is conditional on arrays (see `VAE`).

    Returns:
      The model, without variables; `init` creates them.

    Raises:
      InputError: A size or `deviation` is not positive, the scales of `channels` and `blocks` differ in number, height
        or width is not a multiple of 2**len(channels), or the likelihood has no locations
        (`Likelihood.has_locations`).
    """
    event_shape = as_event_shape(event_shape)
    _require_widths(channels=channels, blocks=blocks)
    _require_as_many(channels=channels, blocks=blocks)
    require_positive(deviation=deviation)
    require_parts(likelihood=likelihood, prior=prior, posterior=DiagonalGaussian)
    _require_halvings(event_shape, len(channels))
    likelihood.require_locations()
    height, width, colours = event_shape
    scales = len(channels)
    coarsest_first = tuple(reversed(channels)), tuple(reversed(blocks))
    return LadderVAE(
        encoder=WaveletBottomUp(scales, deviation),
        decoder=WaveletTopDown(*coarsest_first, deviation, event_shape, likelihood),
        event_shape=event_shape,
        latent_dim=(height >> scales) * (width >> scales) * colours,
        likelihood=likelihood,
        classes=classes,
        prior=prior,
        condition_shape=condition_shape,
    )
