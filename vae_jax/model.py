"""The variational autoencoder: a frozen value whose methods are pure functions of keys, variables and arrays.

Variables are Linen's: a dictionary of collections, "params" (what the optimizer trains) and, where a network has them,
others such as "batch_stats"; in each collection, one entry for the encoder and one for the decoder.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key, PyTree

from vae_jax.data import Split
from vae_jax.distributions import Delta, DiagonalGaussian, Posterior, example_keys
from vae_jax.errors import InputError, is_traced, require_positive_int
from vae_jax.likelihoods import Bernoulli, Gaussian, ImageDistribution, Likelihood
from vae_jax.likelihoods.base import Variables
from vae_jax.networks import MLP, ConvDecoder, ConvEncoder, identity
from vae_jax.observation import Batch, Observe

Labels = Int[Array, " batch"] | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Forward:
    """One pass through a VAE.

    Attributes:
      posterior: q(z|x), [batch, latent].
      z: draws from it, [samples, batch, latent].
      px_z: p(x|z) of each draw, [samples, batch, ...].
      updates: collections that the pass has changed, such as batch statistics; empty for most networks.
    """

    posterior: Posterior
    z: Float[Array, "samples batch latent"]
    px_z: ImageDistribution
    updates: PyTree

    @property
    def p_x(self) -> ImageDistribution:
        """`px_z`, by its former name."""
        warnings.warn("Forward.p_x is now called px_z, as it is p(x|z)", DeprecationWarning, stacklevel=2)
        return self.px_z


@dataclass(frozen=True)
class VAE:
    """An encoder, a decoder, and the families of distributions whose parameters they emit.

    Attributes:
      encoder: network from [batch, height, width, channels] to [batch, posterior.parameters, latent].
      decoder: network from [batch, latent] to [batch, height, width, channels].
      image_shape: height, width, channels.
      latent_dim: number of latent dimensions.
      posterior: the family of q(z|x); `Delta` makes a plain autoencoder.
      likelihood: builds p(x|z).
      classes: number of classes if the model is conditional, q(z|x, label) and p(x|z, label): the label enters both
        networks as their argument `condition`, one-hot.
    """

    encoder: nn.Module
    decoder: nn.Module
    image_shape: tuple[int, ...]
    latent_dim: int
    posterior: type[DiagonalGaussian] | type[Delta] = DiagonalGaussian
    likelihood: Likelihood = Bernoulli()
    classes: int | None = None

    def __post_init__(self) -> None:
        require_positive_int(latent_dim=self.latent_dim)
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise InputError(f"image_shape is {self.image_shape}; expected (height, width, channels)")
        if self.classes is not None:
            require_positive_int(classes=self.classes)

    def init(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables.

        Raises:
          InputError: a network emits another shape than the posterior or the likelihood takes.
        """
        encoder_key, decoder_key = jax.random.split(key)
        x, z = jnp.zeros((1, *self.image_shape)), jnp.zeros((1, self.latent_dim))
        condition: dict[str, Any] = {} if self.classes is None else {"condition": jnp.zeros((1, self.classes))}
        parameters, encoder = self.encoder.init_with_output(encoder_key, x, **condition)
        pixels, decoder = self.decoder.init_with_output(decoder_key, z, **condition)
        _require_shape("encoder", parameters, (1, self.posterior.parameters, self.latent_dim))
        _require_shape("decoder", pixels, (1, *self.image_shape))
        return _by_collection(encoder=dict(encoder), decoder=dict(decoder), likelihood=self.likelihood.init())

    def require_data(self, data: Split, observe: Observe) -> None:
        """Raise `InputError` unless the model takes the images of a split as `observe` makes them."""
        self.require_inputs(data)
        if not self.likelihood.domain.holds(observe.support):
            raise InputError(
                f"the likelihood takes {self.likelihood.domain}, but what is observed are {observe.support}; choose "
                "another likelihood or another range"
            )

    def require_inputs(self, data: Split) -> None:
        """Raise `InputError` unless the images are of the model's shape, each with a label if it is conditional."""
        if data.image_shape != self.image_shape:
            raise InputError(f"the images have shape {data.image_shape}, but the model takes {self.image_shape}")
        if self.classes is not None:
            if data.labels is None:
                raise InputError("the images have no labels, and a conditional model needs them")
            require_classes(data.labels, self.classes)

    def require_labels(self, labels: Int[Any, " n"] | None, count: int) -> None:
        """Raise `InputError` unless there is a label of a class for each of `count` examples, or no labels.

        A conditional model needs them and another one takes none.
        """
        if self.classes is None:
            if labels is not None:
                raise InputError("labels were given, but the model is not conditional; make it with classes=")
            return
        if labels is None:
            raise InputError(f"the model is conditional on {self.classes} classes, but no labels were given")
        if labels.shape != (count,):
            raise InputError(f"labels have shape {labels.shape}; expected ({count},)")
        require_classes(labels, self.classes)

    def encode(
        self, variables: Variables, x: Float[Array, "batch height width channels"], label: Labels = None
    ) -> Posterior:
        """q(z|x) of each image, q(z|x, label) if the model is conditional."""
        return self._encode(variables, x, label, train=False)[0]

    def decode(
        self, variables: Variables, z: Float[Array, "*samples batch latent"], label: Labels = None
    ) -> ImageDistribution:
        """p(x|z) of each latent, p(x|z, label) if the model is conditional."""
        outputs, _ = self._decode(variables, z, label, train=False)
        return self.likelihood(outputs, _of(variables, "likelihood"))

    def draw(
        self, key: Key[Array, "*keys"], posterior: Posterior, numbers: Int[Array, " samples"]
    ) -> Float[Array, "samples batch latent"]:
        """Draws from q(z|x) by their numbers: that of number s of an example is keyed by its key folded with s.

        Args:
          key: one key, or one per example.
          posterior: of a batch of examples.
          numbers: of the draws.
        """
        keys = example_keys(key, len(posterior.mean))
        fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
        return jax.vmap(lambda number: posterior.sample(fold(keys, number)))(numbers)

    def forward(
        self,
        key: Key[Array, "*keys"],
        variables: Variables,
        batch: Batch,
        samples: int = 1,
        train: bool = True,
        through: Callable[[Array], Array] = identity,
    ) -> Forward:
        """Encode a batch, draw `samples` latents for each image, decode them all.

        Args:
          key: one key, or one per example.
          variables: of this VAE.
          batch: images; `batch.x` is encoded, `batch.label` joins it if the model is conditional.
          samples: draws for each image.
          train: whether batch statistics are those of this batch, and updated.
          through: what the latents [samples, batch, latent] go through before they are decoded; an objective can take
            their gradient apart here.
        """
        label = None if self.classes is None else batch.label
        posterior, encoder_updates = self._encode(variables, batch.x, label, train, batch.mask)
        z = through(self.draw(key, posterior, jnp.arange(samples)))
        outputs, decoder_updates = self._decode(variables, z, label, train, batch.mask)
        px_z, likelihood_updates = self._likelihood(outputs, variables, batch, train)
        updates = _by_collection(encoder=encoder_updates, decoder=decoder_updates, likelihood=likelihood_updates)
        return Forward(posterior, z, px_z, updates)

    def _likelihood(
        self, outputs: Array, variables: Variables, batch: Batch, train: bool
    ) -> tuple[ImageDistribution, Variables]:
        own = _of(variables, "likelihood")
        return self.likelihood.in_training(outputs, own, batch) if train else (self.likelihood(outputs, own), {})

    def _encode(
        self, variables: Variables, x: Array, label: Labels, train: bool, mask: Array | None = None
    ) -> tuple[Posterior, Variables]:
        if x.shape[1:] != self.image_shape:
            raise InputError(f"x has shape {x.shape}; expected [batch, {', '.join(map(str, self.image_shape))}]")
        condition = self._condition(label, len(x))
        outputs, updates = _apply(self.encoder, _of(variables, "encoder"), x, train, condition, mask)
        return self.posterior.from_network(outputs), updates

    def _decode(
        self, variables: Variables, z: Array, label: Labels, train: bool, mask: Array | None = None
    ) -> tuple[Array, Variables]:
        if z.ndim < 2 or z.shape[-1] != self.latent_dim:
            raise InputError(f"z has shape {z.shape}; expected [batch, {self.latent_dim}]")
        flat = z.reshape(-1, self.latent_dim)
        condition = self._condition(label, z.shape[-2])
        repeated = {name: jnp.tile(value, (len(flat) // len(value), 1)) for name, value in condition.items()}
        mask = None if mask is None else jnp.tile(mask, len(flat) // len(mask))
        outputs, updates = _apply(self.decoder, _of(variables, "decoder"), flat, train, repeated, mask)
        return outputs.reshape(*z.shape[:-1], *self.image_shape), updates

    def _condition(self, label: Labels, batch: int) -> dict[str, Any]:
        """The networks' further arguments."""
        self.require_labels(label, batch)
        return {} if self.classes is None else {"condition": jax.nn.one_hot(label, self.classes)}


def mlp_vae(
    image_shape: tuple[int, ...] = (28, 28, 1),
    latent_dim: int = 2,
    hidden: tuple[int, ...] = (500, 250),
    likelihood: Likelihood = Bernoulli(),
    posterior: type[DiagonalGaussian] | type[Delta] = DiagonalGaussian,
    classes: int | None = None,
    activation: Callable[[Array], Array] = nn.relu,
) -> VAE:
    """Dense layers of widths `hidden` to the latent dimensions, and the mirror image back to the pixels.

    With `posterior=Delta` it is the plain autoencoder of the same layers, with `classes` a conditional one.

    Raises:
      InputError: a size that is no whole number of at least one.
    """
    require_positive_int(latent_dim=latent_dim, **{f"hidden[{i}]": width for i, width in enumerate(hidden)})
    return VAE(
        encoder=MLP(tuple(hidden), (posterior.parameters, latent_dim), activation),
        decoder=MLP(tuple(reversed(hidden)), tuple(image_shape), activation),
        image_shape=tuple(image_shape),
        latent_dim=latent_dim,
        posterior=posterior,
        likelihood=likelihood,
        classes=classes,
    )


def batch_norm_vae(
    image_shape: tuple[int, ...] = (28, 28, 1),
    latent_dim: int = 28,
    hidden: tuple[int, ...] = (196, 49),
    likelihood: Likelihood = Gaussian(),
    momentum: float = 0.3,
    axis_name: str | None = None,
) -> VAE:
    """Batch-normalised dense layers, and tanh on the pixels: for images in [-1, 1].

    With a Gaussian likelihood of variance c the negative ELBO is C * squared error + KL up to a constant, C = 1 / (2c).

    Args:
      image_shape: height, width, channels.
      latent_dim: number of latent dimensions.
      hidden: widths of the encoder's hidden layers; the decoder's are their mirror image.
      likelihood: builds p(x|z) from the decoder's outputs in [-1, 1].
      momentum: the share of the old running statistics that a step keeps (PyTorch's momentum is 1 minus it).
      axis_name: under pmap, the axis over which the batch is spread.

    Raises:
      InputError: a size that is no whole number of at least one, or a momentum outside [0, 1).
    """
    require_positive_int(latent_dim=latent_dim, **{f"hidden[{i}]": width for i, width in enumerate(hidden)})
    if not 0 <= momentum < 1:
        raise InputError(f"momentum is {momentum}; expected a share of the old statistics, from 0 to below 1")
    layers = functools.partial(MLP, batch_norm=momentum, axis_name=axis_name)
    return VAE(
        encoder=layers(tuple(hidden), (DiagonalGaussian.parameters, latent_dim)),
        decoder=layers(tuple(reversed(hidden)), tuple(image_shape), output_activation=jnp.tanh),
        image_shape=tuple(image_shape),
        latent_dim=latent_dim,
        likelihood=likelihood,
    )


def conv_vae(
    image_shape: tuple[int, ...] = (64, 64, 3),
    latent_dim: int = 100,
    features: tuple[int, ...] = (32, 64, 128, 256),
    likelihood: Likelihood = Gaussian(),
    posterior: type[DiagonalGaussian] | type[Delta] = DiagonalGaussian,
    linear: bool = False,
) -> VAE:
    """Convolutions of 4 x 4 and stride 2 to the latent dimensions, and their mirror image back to the pixels.

    Args:
      image_shape: height, width, channels; each convolution halves height and width.
      latent_dim: number of latent dimensions.
      features: channels after each of the encoder's convolutions.
      likelihood: builds p(x|z) from the decoder's outputs, which have no bounds.
      posterior: the family of q(z|x); `Delta` makes a plain autoencoder.
      linear: whether linear maps from the pixels to the latents' parameters, and from the latents to the pixels, are
        added to the networks: they are quick to find what principal components find.

    Raises:
      InputError: a size that is no whole number of at least one, or an image that can't be halved so often.
    """
    require_positive_int(latent_dim=latent_dim, **{f"features[{i}]": width for i, width in enumerate(features)})
    scale = 2 ** len(features)
    if not features or image_shape[0] % scale or image_shape[1] % scale:
        raise InputError(
            f"images of {image_shape[0]} x {image_shape[1]} pixels cannot be halved {len(features)} times; expected "
            f"one convolution or more, and multiples of {scale}"
        )
    return VAE(
        encoder=ConvEncoder(tuple(features), (posterior.parameters, latent_dim), linear),
        decoder=ConvDecoder(tuple(reversed(features)), tuple(image_shape), linear),
        image_shape=tuple(image_shape),
        latent_dim=latent_dim,
        posterior=posterior,
        likelihood=likelihood,
    )


def _require_shape(name: str, outputs: Any, expected: tuple[int, ...]) -> None:
    if outputs.shape != expected:
        raise InputError(f"the {name} emits shape {outputs.shape} for a batch of 1; expected {expected}")


def _apply(
    network: nn.Module,
    variables: Variables,
    inputs: Array,
    train: bool,
    condition: dict[str, Any],
    mask: Array | None,
) -> tuple[Array, Variables]:
    outputs: Any
    updates: Any = {}
    if train:
        mutable = [collection for collection in variables if collection != "params"]
        arguments = condition if mask is None or not mutable else condition | {"mask": _accepted(network, mask)}
        outputs, updates = network.apply(variables, inputs, train=True, mutable=mutable, **arguments)
    else:
        outputs = network.apply(variables, inputs, **condition)
    return outputs, dict(updates)


def _accepted(network: nn.Module, mask: Array) -> Array:
    """The mask, given to a network whose variables change in training: padding must not enter its statistics.

    Raises:
      InputError: the network takes none.
    """
    if "mask" not in inspect.signature(type(network).__call__).parameters:
        raise InputError(
            f"the batch has a mask, but {type(network).__name__}, which has batch statistics, takes none; give its "
            "__call__ an argument `mask`, for nn.BatchNorm to leave the padding out"
        )
    return mask


def require_classes(labels: Int[Any, " n"], classes: int) -> None:
    """Raise `InputError` unless each label is one of that many classes; traced labels pass."""
    if is_traced(labels) or not len(labels):
        return
    with jax.ensure_compile_time_eval():
        low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < classes:
        raise InputError(f"labels run from {low} to {high}; expected 0 to {classes - 1}, of {classes} classes")


def _of(variables: Variables, part: str) -> Variables:
    return {collection: parts[part] for collection, parts in variables.items() if part in parts}


def _by_collection(**parts: Variables) -> Variables:
    """{part: {collection: tree}} -> {collection: {part: tree}}."""
    collections = sorted({collection for variables in parts.values() for collection in variables})
    return {
        collection: {part: variables[collection] for part, variables in parts.items() if collection in variables}
        for collection in collections
    }
