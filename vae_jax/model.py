"""The variational autoencoder: a frozen value whose methods are pure functions of keys, variables and arrays.

Variables are Linen's: a dictionary of collections, "params" (what the optimizer trains) and, where a network has them,
others such as "batch_stats"; in each collection, one entry for the encoder and one for the decoder.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key, PyTree

from vae_jax.distributions import (
    Bernoulli,
    Delta,
    DiagonalGaussian,
    ImageDistribution,
    Likelihood,
    Posterior,
    example_keys,
)
from vae_jax.errors import InputError, require_positive_int
from vae_jax.networks import MLP
from vae_jax.observation import Batch

Variables = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Forward:
    """One pass through a VAE.

    Attributes:
      posterior: q(z|x), [batch, latent].
      z: draws from it, [samples, batch, latent].
      p_x: p(x|z) of each draw, [samples, batch, ...].
      updates: collections that the pass has changed, such as batch statistics; empty for most networks.
    """

    posterior: Posterior
    z: Float[Array, "samples batch latent"]
    p_x: ImageDistribution
    updates: PyTree


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
    """

    encoder: nn.Module
    decoder: nn.Module
    image_shape: tuple[int, ...]
    latent_dim: int
    posterior: type[DiagonalGaussian] | type[Delta] = DiagonalGaussian
    likelihood: Likelihood = Bernoulli()

    def __post_init__(self) -> None:
        require_positive_int(latent_dim=self.latent_dim)
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise InputError(f"image_shape is {self.image_shape}; expected (height, width, channels)")

    def init(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables.

        Raises:
          InputError: a network emits another shape than the posterior or the likelihood takes.
        """
        encoder_key, decoder_key = jax.random.split(key)
        x, z = jnp.zeros((1, *self.image_shape)), jnp.zeros((1, self.latent_dim))
        parameters, encoder = self.encoder.init_with_output(encoder_key, x)
        pixels, decoder = self.decoder.init_with_output(decoder_key, z)
        _require_shape("encoder", parameters, (1, self.posterior.parameters, self.latent_dim))
        _require_shape("decoder", pixels, (1, *self.image_shape))
        return _by_collection(encoder=dict(encoder), decoder=dict(decoder))

    def encode(self, variables: Variables, x: Float[Array, "batch height width channels"]) -> Posterior:
        """q(z|x) of each image."""
        return self._encode(variables, x, train=False)[0]

    def decode(self, variables: Variables, z: Float[Array, "batch latent"]) -> ImageDistribution:
        """p(x|z) of each latent."""
        return self._decode(variables, z, train=False)[0]

    def forward(
        self,
        key: Key[Array, "*keys"],
        variables: Variables,
        batch: Batch,
        samples: int = 1,
        train: bool = True,
    ) -> Forward:
        """Encode a batch, draw `samples` latents for each image, decode them all.

        Args:
          key: one key, or one per example; sample s of an example is drawn with its key folded with s.
          variables: of this VAE.
          batch: images; `batch.x` is encoded.
          samples: draws for each image.
          train: whether batch statistics are those of this batch, and updated.
        """
        posterior, encoder_updates = self._encode(variables, batch.x, train)
        keys = example_keys(key, len(batch.x))
        fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
        z = jax.vmap(lambda sample: posterior.sample(fold(keys, sample)))(jnp.arange(samples))  # [S, B, Z]
        p_x, decoder_updates = self._decode(variables, z.reshape(-1, self.latent_dim), train)
        p_x = jax.tree.map(lambda leaf: _split_samples(leaf, z.shape), p_x)
        return Forward(posterior, z, p_x, _by_collection(encoder=encoder_updates, decoder=decoder_updates))

    def _encode(self, variables: Variables, x: Array, train: bool) -> tuple[Posterior, Variables]:
        if x.shape[1:] != self.image_shape:
            raise InputError(f"x has shape {x.shape}; expected [batch, {', '.join(map(str, self.image_shape))}]")
        outputs, updates = _apply(self.encoder, _of(variables, "encoder"), x, train)
        return self.posterior.from_network(outputs), updates

    def _decode(self, variables: Variables, z: Array, train: bool) -> tuple[ImageDistribution, Variables]:
        if z.shape[1:] != (self.latent_dim,):
            raise InputError(f"z has shape {z.shape}; expected [batch, {self.latent_dim}]")
        outputs, updates = _apply(self.decoder, _of(variables, "decoder"), z, train)
        return self.likelihood(outputs), updates


def mlp_vae(
    image_shape: tuple[int, ...] = (28, 28, 1),
    latent_dim: int = 2,
    hidden: tuple[int, ...] = (500, 250),
    likelihood: Likelihood = Bernoulli(),
    posterior: type[DiagonalGaussian] | type[Delta] = DiagonalGaussian,
) -> VAE:
    """Dense layers of widths `hidden` to the latent dimensions, and the mirror image back to the pixels.

    With `posterior=Delta` it is the plain autoencoder of the same layers.

    Raises:
      InputError: a size that is no whole number of at least one.
    """
    require_positive_int(latent_dim=latent_dim, **{f"hidden[{i}]": width for i, width in enumerate(hidden)})
    return VAE(
        encoder=MLP(tuple(hidden), (posterior.parameters, latent_dim)),
        decoder=MLP(tuple(reversed(hidden)), tuple(image_shape)),
        image_shape=tuple(image_shape),
        latent_dim=latent_dim,
        posterior=posterior,
        likelihood=likelihood,
    )


def _require_shape(name: str, outputs: Any, expected: tuple[int, ...]) -> None:
    if outputs.shape != expected:
        raise InputError(f"the {name} emits shape {outputs.shape} for a batch of 1; expected {expected}")


def _apply(network: nn.Module, variables: Variables, inputs: Array, train: bool) -> tuple[Array, Variables]:
    outputs: Any
    updates: Any = {}
    if train:
        mutable = [collection for collection in variables if collection != "params"]
        outputs, updates = network.apply(variables, inputs, train=True, mutable=mutable)
    else:
        outputs = network.apply(variables, inputs)
    return outputs, dict(updates)


def _of(variables: Variables, part: str) -> Variables:
    return {collection: parts[part] for collection, parts in variables.items() if part in parts}


def _by_collection(**parts: Variables) -> Variables:
    """{part: {collection: tree}} -> {collection: {part: tree}}."""
    collections = sorted({collection for variables in parts.values() for collection in variables})
    return {
        collection: {part: variables[collection] for part, variables in parts.items() if collection in variables}
        for collection in collections
    }


def _split_samples(leaf: Array, z_shape: tuple[int, ...]) -> Array:
    """[S * B, ...] -> [S, B, ...]; a scalar, such as a shared variance, stays as it is."""
    samples, batch, _ = z_shape
    return leaf.reshape(samples, batch, *leaf.shape[1:]) if leaf.ndim else leaf
