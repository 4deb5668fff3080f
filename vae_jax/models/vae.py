"""The variational autoencoder: a frozen value whose methods are pure functions of keys, variables and arrays."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from vae_jax.data.arrays import as_reals
from vae_jax.data.transforms import Batch
from vae_jax.distributions import Delta, Posterior, example_keys, kl_divergence, log_ratio
from vae_jax.distributions.likelihoods import Distribution
from vae_jax.errors import (
    InputError,
    named,
    renamed,
    require_finite_values,
    require_key,
    require_not_negative,
    require_positive_int,
)
from vae_jax.models.apply import apply_network, by_collection, folded, network_keys, of_part, rngs
from vae_jax.models.base import BaseVAE, Code, require_by_layer, require_shape
from vae_jax.models.protocol import ONE_DRAW, Draws, Terms, Variables, merged
from vae_jax.networks import identity
from vae_jax.values import shape_repr, value

LAYER = "z"
"""Name of the single latent layer of a VAE."""


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Forward:
    """Result of `VAE.forward`, which is deprecated.

    Attributes:
      posterior: Posterior q(z|x), [batch, latent].
      z: Samples of the posterior, [samples, batch, latent].
      px_z: Distribution p(x|z) of each sample, [samples, batch, ...].
      updates: Collections of variables that the pass has changed, such as batch statistics; often empty.
    """

    posterior: Posterior
    z: Float[Array, "samples batch latent"]
    px_z: Distribution
    updates: PyTree

    @property
    def p_x(self) -> Distribution:
        """Deprecated name of `px_z`."""
        warnings.warn("Forward.p_x is now called px_z, as it is p(x|z)", DeprecationWarning, stacklevel=2)
        return self.px_z


@renamed(image_shape="event_shape")
@value
class VAE(BaseVAE):
    """Variational autoencoder: an encoder, a decoder, and the distributions whose parameters they return.

    Attributes:
      encoder: Network from [batch, *event] to [batch, *posterior.output_shape(latent_dim)].
      decoder: Network from [batch, latent] to [batch, *likelihood.output_shape(event_shape)].
      event_shape: Shape of one example, such as (height, width, channels) of an image or (columns,) of a table.
      latent_dim: Number of latent dimensions.
      posterior: Family of q(z|x); `Delta` gives a plain autoencoder.
      likelihood: Likelihood p(x|z) of the decoder's outputs.
      classes: Number of classes if the model is conditional on labels; the condition is `batch.label`, one-hot.
      prior: Prior p(z).
      condition_shape: Shape of `batch.condition` of one example if the model is conditional on arrays, or pairs of
        names and shapes of several arrays. Both networks receive the condition as their argument `condition`.
      compute_dtype: Type in which the networks compute, "bfloat16" on accelerators, or None for that of the parameters.
        Parameters, gradients, the outputs of the networks and all that follows them keep the type of the parameters.

    Raises:
      InputError: A size is not a positive integer, a distribution is not of the expected kind, both `classes` and
        `condition_shape` are given, `condition_shape` is neither a tuple of sizes nor pairs, or `compute_dtype` is
        another type.
    """

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Deprecated name of `event_shape`."""
        warnings.warn("image_shape is now called event_shape", DeprecationWarning, stacklevel=2)
        return self.event_shape

    def _init_networks(self, encoder_key: Key[Array, ""], decoder_key: Key[Array, ""]) -> tuple[Variables, Variables]:
        x, z = jnp.zeros((1, *self.event_shape)), jnp.zeros((1, self.latent_dim))
        condition = {"condition": self._blank_condition()} if self.is_conditional else {}
        parameters, encoder = self.encoder.init_with_output(rngs(encoder_key), x, **condition)
        outputs, decoder = self.decoder.init_with_output(rngs(decoder_key), z, **condition)
        require_shape("encoder", parameters, (1, *self.posterior.output_shape(self.latent_dim)))
        require_shape("decoder", outputs, (1, *self.likelihood.output_shape(self.event_shape)))
        return dict(encoder), dict(decoder)

    @renamed(label="condition")
    def decode(self, variables: Variables, z: Any, condition: PyTree = None) -> Distribution:
        """Distribution p(x|z) of each latent.

        Args:
          variables: Variables of the model.
          z: Latents, [*samples, batch, latent].
          condition: Condition of each example of the batch if the model is conditional, as in `encode`.

        Returns:
          Distribution whose `mean` is [*samples, batch, *event].

        Raises:
          InputError: The latents do not have the shape of the model, are not numbers or are not finite, the model does
            not accept the condition, or the variables are those of another model.
        """
        z = jnp.asarray(as_reals("z", z))
        if z.ndim < 2 or z.shape[-1] != self.latent_dim:
            raise InputError(f"z has shape {z.shape}; expected [batch, {self.latent_dim}]")
        require_finite_values("z", z)
        outputs, _ = self._decode(variables, z, self._given(condition, z.shape[-2]), False, None, None)
        return self.likelihood(outputs, of_part(variables, "likelihood"), len(self.event_shape))

    def draw(
        self, key: Key[Array, "*keys"], posterior: Posterior, numbers: Int[Array, " samples"]
    ) -> Float[Array, "samples batch latent"]:
        """Sample q(z|x); the key of sample number s of an example is the key of the example folded with s.

        Args:
          key: One key, or one per example.
          posterior: Posterior of a batch of examples, [batch, latent].
          numbers: Numbers of the samples, [samples].

        Returns:
          The samples, [samples, batch, latent].
        """
        keys = example_keys(key, len(posterior.mean))
        return jax.vmap(lambda number: posterior.sample(folded(keys, number)))(numbers)

    def terms(
        self,
        key: Key[Array, "*keys"],
        variables: Variables,
        batch: Batch,
        draws: Int[Array | np.ndarray, " samples"] = ONE_DRAW,
        *,
        code: Code | None = None,
        train: bool = False,
        through: Callable[[Array], Array] = identity,
        freeze_posterior: bool = False,
    ) -> Terms:
        """Terms of the bound at samples of z, in nats (see `LatentVariableModel.terms`)."""
        if code is None:
            code = self.code(variables, batch, train, key)
        numbers = jnp.asarray(draws)
        z = through(self.draw(key, code.posterior, numbers))
        px_z, updates = self._likelihood_of(key, variables, batch, z, numbers, train)
        observed = {} if batch.observed is None else {"observed": batch.observed}
        density = jax.lax.stop_gradient(code.posterior) if freeze_posterior else code.posterior
        kl = kl_divergence(density, code.prior, z)
        return Terms(
            px_z.log_prob(batch.targets, **observed),
            {} if isinstance(code.posterior, Delta) else {LAYER: log_ratio(density, code.prior, z)},
            {LAYER: jnp.broadcast_to(kl, (*z.shape[:2], kl.shape[-1]))},
            {LAYER: z},
            px_z,
            merged(code.updates, updates),
        )

    def sample(
        self,
        key: Key[Array, ""],
        variables: Variables,
        count: int,
        condition: PyTree = None,
        temperature: float | Float[Array, ""] = 1.0,
        given: Mapping[str, Any] | None = None,
    ) -> Draws:
        """Samples of z from p(z) and p(x|z) of each (see `LatentVariableModel.sample`).

        Args:
          key: Key of the latents.
          variables: Variables of the model.
          count: Number of samples.
          condition: Condition of each sample, if the model is conditional.
          temperature: Factor of the standard deviation of the prior's noise.
          given: Latents {"z": [count, latent]} to decode instead of samples.

        Returns:
          `z`, a dict with the entry "z" [count, latent], and `px_z`, whose `mean` is [count, *event].

        Raises:
          InputError: There are no samples, the temperature is negative, or `given` is not a dict or does not fit the
            latent layer.
        """
        require_key(key)
        require_positive_int(count=count)
        require_not_negative(temperature=temperature)
        require_by_layer(given)
        if given and given.keys() != {LAYER}:
            raise InputError(f"layers {', '.join(given)} are given; this model has one, {LAYER!r}")
        if given:
            z = jnp.asarray(as_reals(LAYER, given[LAYER]))
        else:
            z = self.prior_distribution(variables).sample(key, count, temperature)
        if z.shape != (count, self.latent_dim):
            raise InputError(f"z has shape {z.shape}; expected ({count}, {self.latent_dim})")
        return Draws({LAYER: z}, self.decode(variables, z, condition))

    def reconstruct(self, variables: Variables, x: Any, condition: PyTree = None) -> Distribution:
        """Distribution p(x|z) at the mean of q(z|x); its `mean` is the reconstructions, [batch, *event].

        Args:
          variables: Variables of the model.
          x: Examples after the transform, [batch, *event].
          condition: Condition of each example if the model is conditional; labels if it has `classes`.

        Raises:
          InputError: As in `encode`.
        """
        return self.decode(variables, self.encode(variables, x, condition).mean, condition)

    def interpolate(
        self, variables: Variables, start: Any, end: Any, steps: int = 10, condition: PyTree = None
    ) -> Distribution:
        """Distribution p(x|z) at evenly spaced points between the encodings of pairs of examples.

        Args:
          variables: Variables of the model.
          start: Examples at the first point, [batch, *event].
          end: Examples at the last point, [batch, *event].
          steps: Number of points, including both ends.
          condition: Condition of each pair, if the model is conditional.

        Returns:
          Distribution whose `mean` is [steps, batch, *event].

        Raises:
          InputError: There are fewer than two steps, or `start` and `end` differ in shape.
        """
        require_positive_int(steps=steps)
        if steps < 2 or np.shape(start) != np.shape(end):
            raise InputError(
                f"steps is {steps}, start has shape {np.shape(start)} and end {np.shape(end)}; expected two steps or "
                "more and one shape"
            )
        first, last = (self.encode(variables, x, condition).mean for x in (start, end))
        share = jnp.linspace(0, 1, steps, dtype=first.dtype)[:, None, None]
        return self.decode(variables, (1 - share) * first[None] + share * last[None], condition)

    def traverse(
        self,
        variables: Variables,
        x: Any,
        values: Any,
        dimensions: Sequence[int] | None = None,
        condition: PyTree = None,
    ) -> Distribution:
        """Distribution p(x|z) at the encoding of each example with one latent dimension replaced by each of the values.

        A grid of the first example, one row per dimension:

            x = vae.traverse(variables, data.test.images[:1] / 255, jnp.linspace(-3, 3, 11)).mean[:, :, 0]
            vj.plot.images(x.reshape(-1, *vae.event_shape), 11, "Latent traversals")

        Args:
          variables: Variables of the model.
          x: Examples, [batch, *event].
          values: Values of the latent dimension, [values].
          dimensions: Indices of the latent dimensions; by default all of them.
          condition: Condition of each example, if the model is conditional.

        Returns:
          Distribution whose `mean` is [dimensions, values, batch, *event].

        Raises:
          InputError: A dimension is not an integer from 0 to `latent_dim - 1`, or `values` is not a non-empty vector.
        """
        chosen = range(self.latent_dim) if dimensions is None else dimensions
        if np.ndim(chosen) != 1:
            raise InputError(f"dimensions is {named(chosen)}; expected a sequence of whole numbers, such as [0, 1]")
        if unknown := [number for number in chosen if number not in range(self.latent_dim)]:
            raise InputError(f"dimensions has {unknown[0]}; expected whole numbers from 0 to {self.latent_dim - 1}")
        values = jnp.asarray(values)
        if values.ndim != 1 or not values.size or not len(chosen):
            raise InputError(
                f"values has shape {values.shape} and there are {len(chosen)} dimensions; expected [values], at least "
                "one value and one dimension"
            )
        mean = self.encode(variables, x, condition).mean
        is_set = jax.nn.one_hot(jnp.asarray(list(chosen)), self.latent_dim, dtype=bool)[:, None, None]
        z = jnp.where(is_set, values.astype(mean.dtype)[None, :, None, None], mean[None, None])
        return self.decode(variables, z, condition)

    def forward(
        self,
        key: Key[Array, "*keys"],
        variables: Variables,
        batch: Batch,
        samples: int = 1,
        train: bool = True,
        through: Callable[[Array], Array] = identity,
    ) -> Forward:
        """Deprecated; `terms` of the draws `jnp.arange(samples)` has the same samples, p(x|z) and updates."""
        warnings.warn(
            "VAE.forward is deprecated; use VAE.terms(key, variables, batch, jnp.arange(samples), train=train)",
            DeprecationWarning,
            stacklevel=2,
        )
        posterior, _, updates = self._encode(variables, batch, self._of_batch(batch), train, key)
        z = through(self.draw(key, posterior, jnp.arange(samples)))
        px_z, changed = self._likelihood_of(key, variables, batch, z, jnp.arange(samples), train)
        return Forward(posterior, z, px_z, merged(updates, changed))

    def _likelihood_of(
        self, key: Array, variables: Variables, batch: Batch, z: Array, draws: Array, train: bool
    ) -> tuple[Distribution, Variables]:
        """Distribution p(x|z) of samples [samples, batch, latent], and the updated collections of variables."""
        noise = folded(network_keys(key, z.shape[1]), 0) if train else None
        outputs, updates = self._decode(variables, z, self._of_batch(batch), train, batch.mask, noise, draws)
        px_z, changed = self._px_z(variables, batch, outputs, train)
        return px_z, merged(by_collection(decoder=updates), changed)

    def _decode(
        self,
        variables: Variables,
        z: Array,
        condition: dict[str, Any],
        train: bool,
        mask: Array | None,
        keys: Key[Array, " batch"] | None,
        draws: Array | None = None,
    ) -> tuple[Array, Variables]:
        """Outputs of the decoder for z [*samples, batch, latent], and the updated collections of variables."""
        flat = z.reshape(-1, self.latent_dim)
        copies = len(flat) // z.shape[-2]
        repeated, mask = jax.tree.map(lambda leaf: jnp.tile(leaf, (copies, *[1] * (leaf.ndim - 1))), (condition, mask))
        noise = None
        if keys is not None and draws is not None:
            noise = jax.vmap(partial(folded, keys))(draws).reshape(-1)
        outputs, updates = apply_network(
            self.decoder, of_part(variables, "decoder"), flat, train, repeated, mask, noise, self.compute_dtype
        )
        return outputs.reshape(*z.shape[:-1], *outputs.shape[1:]), updates
