"""Ready-made variational autoencoders."""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from vae_jax.distributions import DiagonalGaussian, StandardNormal
from vae_jax.distributions.likelihoods import Bernoulli, Gaussian
from vae_jax.errors import InputError, renamed, require_positive_int
from vae_jax.models.vae import VAE, as_event_shape, require_parts
from vae_jax.networks import MLP, ConvDecoder, ConvEncoder


def _require_widths(**widths: Any) -> None:
    """Raise `InputError` unless each is a sequence of whole numbers of at least one."""
    for name, given in widths.items():
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise InputError(f"{name} is {given!r}; expected a tuple of widths, such as ({given!r},)")
        require_positive_int(**{f"{name}[{i}]": width for i, width in enumerate(given)})


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
) -> VAE:
    """Dense layers of widths `hidden` to the latent dimensions, and the mirror image back to the event.

    With `posterior=Delta` it is the plain autoencoder of the same layers, with `classes` or `condition_shape` a
    conditional one (see `VAE`).

    Raises:
      InputError: a size that is not a whole number of at least one, or an activation that is not a function.
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
    )


@renamed(image_shape="event_shape")
def batch_norm_vae(
    event_shape: Any = (28, 28, 1),
    latent_dim: int = 28,
    hidden: Any = (196, 49),
    likelihood: Any = Gaussian(),
    momentum: float = 0.3,
    axis_name: str | None = None,
) -> VAE:
    """Batch-normalised dense layers, and tanh on the pixels: for images in [-1, 1].

    With a Gaussian likelihood of variance c the negative ELBO is C * squared error + KL up to a constant, C = 1 / (2c).

    Args:
      event_shape: height, width, channels.
      latent_dim: number of latent dimensions.
      hidden: widths of the encoder's hidden layers; the decoder's are their mirror image.
      likelihood: builds p(x|z) from the decoder's outputs in [-1, 1].
      momentum: the share of the old running statistics that a step keeps (PyTorch's momentum is 1 minus it).
      axis_name: under pmap, the axis over which the batch is spread.

    Raises:
      InputError: a size that is no whole number of at least one, or a momentum outside [0, 1).
    """
    event_shape = as_event_shape(event_shape)
    require_positive_int(latent_dim=latent_dim)
    _require_widths(hidden=hidden)
    require_parts(likelihood=likelihood)
    if not 0 <= momentum < 1:
        raise InputError(f"momentum is {momentum}; expected a share of the old statistics, from 0 to below 1")
    layers = functools.partial(MLP, batch_norm=momentum, axis_name=axis_name)
    return VAE(
        encoder=layers(tuple(hidden), DiagonalGaussian.output_shape(latent_dim)),
        decoder=layers(tuple(reversed(hidden)), event_shape, output_activation=jnp.tanh),
        event_shape=event_shape,
        latent_dim=latent_dim,
        likelihood=likelihood,
    )


@renamed(image_shape="event_shape")
def conv_vae(
    event_shape: Any = (64, 64, 3),
    latent_dim: int = 100,
    features: Any = (32, 64, 128, 256),
    likelihood: Any = Gaussian(),
    posterior: Any = DiagonalGaussian,
    linear: bool = False,
) -> VAE:
    """Convolutions of 4 x 4 and stride 2 to the latent dimensions, and their mirror image back to the pixels.

    Args:
      event_shape: height, width, channels; each convolution halves height and width.
      latent_dim: number of latent dimensions.
      features: channels after each of the encoder's convolutions.
      likelihood: builds p(x|z) from the decoder's outputs, which have no bounds.
      posterior: the family of q(z|x); `Delta` makes a plain autoencoder.
      linear: whether linear maps from the pixels to the latents' parameters, and from the latents to the pixels, are
        added to the networks: they are quick to find what principal components find.

    Raises:
      InputError: a size that is no whole number of at least one, or an image that can't be halved so often.
    """
    event_shape = as_event_shape(event_shape)
    require_positive_int(latent_dim=latent_dim)
    _require_widths(features=features)
    require_parts(likelihood=likelihood, posterior=posterior)
    scale = 2 ** len(features)
    if len(event_shape) != 3:
        raise InputError(f"event_shape is {event_shape}; a convolutional VAE takes (height, width, channels)")
    if not features or event_shape[0] % scale or event_shape[1] % scale:
        raise InputError(
            f"images of {event_shape[0]} x {event_shape[1]} pixels cannot be halved {len(features)} times; expected "
            f"one convolution or more, and multiples of {scale}"
        )
    outputs = likelihood.output_shape(event_shape)
    if linear and outputs != event_shape:
        raise InputError(f"linear paths go to means of pixels, but the likelihood takes outputs of shape {outputs}")
    return VAE(
        encoder=ConvEncoder(tuple(features), posterior.output_shape(latent_dim), linear),
        decoder=ConvDecoder(tuple(reversed(features)), outputs, linear),
        event_shape=event_shape,
        latent_dim=latent_dim,
        posterior=posterior,
        likelihood=likelihood,
    )
