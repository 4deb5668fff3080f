"""Hierarchical variational autoencoders with top-down inference."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from vae_jax.data.arrays import as_reals
from vae_jax.data.transforms import Batch
from vae_jax.distributions import Delta, DiagonalGaussian, example_keys, kl_divergence, log_ratio
from vae_jax.distributions.base import normal_like
from vae_jax.errors import InputError, require_key, require_not_negative, require_positive_int
from vae_jax.models.apply import as_dtype, folded, of_part, require_own_variables, rngs
from vae_jax.models.base import BaseVAE, Code, require_by_layer, require_shape
from vae_jax.models.protocol import ONE_DRAW, Draws, Terms, Variables, merged
from vae_jax.networks import identity
from vae_jax.networks.ladder import Latent
from vae_jax.values import value


@value
class LadderVAE(BaseVAE):
    """Hierarchical VAE with top-down inference (Soenderby et al., 2016; Vahdat and Kautz, 2020; Child, 2021).

    The layers of latents are z1, z2, ..., from the top:

        p(x, z) = p(x|z) p(z1) prod_l p(z_l|z_<l)        q(z|x) = q(z1|x) prod_l q(z_l|x, z_<l)

    The top layer has a posterior and a prior of any family, like the latents of a `VAE`. The layers below have diagonal
    Gaussians.

    Attributes:
      encoder: Network from [batch, *event] to the parameters of q(z1|x), [batch, *posterior.output_shape(latent_dim)],
        and features, a tree of arrays [batch, ...].
      decoder: Network `decoder(z1, latent, features=None)`, which calls `latent(p, q)` for the latents of each layer
        below (see `vae_jax.networks.ladder`), to [batch, *likelihood.output_shape(event_shape)]. It has parameters
        only: neither batch statistics nor noise.
      event_shape: Shape of one example, such as (height, width, channels).
      latent_dim: Number of latents of the top layer.
      posterior: Family of q(z1|x).
      likelihood: Likelihood p(x|z) of the decoder's outputs.
      classes: Number of classes if the model is conditional on labels (see `VAE`).
      prior: Prior p(z1).
      condition_shape: Shape of one condition if the model is conditional on arrays (see `VAE`).
      compute_dtype: Type in which the networks compute (see `VAE`).

    Raises:
      InputError: A size is not a positive integer, a distribution is not of the expected kind, the posterior has no
        density, both `classes` and `condition_shape` are given, `condition_shape` is neither a tuple of sizes nor
        pairs, or `compute_dtype` is another type.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.posterior is Delta:
            raise InputError("posterior is Delta, which has no density; expected a family such as vj.DiagonalGaussian")

    def _init_networks(self, encoder_key: Key[Array, ""], decoder_key: Key[Array, ""]) -> tuple[Variables, Variables]:
        x, z = jnp.zeros((1, *self.event_shape)), jnp.zeros((1, self.latent_dim))
        condition = {"condition": self._blank_condition()} if self.is_conditional else {}
        found, encoder = self.encoder.init_with_output(rngs(encoder_key), x, **condition)
        if not isinstance(found, tuple):
            raise InputError(f"{type(self.encoder).__name__} returns one array; expected parameters and features")
        require_shape("encoder", found[0], (1, *self.posterior.output_shape(self.latent_dim)))
        outputs, decoder = self.decoder.init_with_output(rngs(decoder_key), z, _zeros, found[1], **condition)
        require_shape("decoder", outputs, (1, *self.likelihood.output_shape(self.event_shape)))
        if others := decoder.keys() - {"params"}:
            raise InputError(f"the decoder has {', '.join(others)}; expected a network with parameters only")
        return dict(encoder), dict(decoder)

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
        """Terms of the bound at samples of the latents, in nats (see `LatentVariableModel.terms`).

        Raises:
          InputError: `through` or `freeze_posterior` is given, as for the doubly reparameterised gradient of Tucker et
            al. (2019), which a `VAE` has.
        """
        if through is not identity or freeze_posterior:
            raise InputError("a LadderVAE has no doubly reparameterised gradient; use vj.IWAE(k), or a vj.VAE")
        if code is None:
            code = self.code(variables, batch, train, key)
        numbers = jnp.asarray(draws)
        shape = (len(numbers), len(batch.x))
        keys = jax.vmap(partial(folded, example_keys(key, len(batch.x))))(numbers)
        top = jax.vmap(lambda of_draw: code.posterior.sample(folded(of_draw, 0)))(keys)
        layers: list[tuple[Any, Any, Array]] = [(code.posterior, code.prior, top)]

        def latent(p: Array, q: Array | None) -> Array:
            assert q is not None  # as the decoder is given features
            prior, posterior = DiagonalGaussian.from_network(p), DiagonalGaussian.from_network(q)
            z = posterior.sample(folded(keys.reshape(-1), len(layers)))
            layers.append(jax.tree.map(lambda leaf: leaf.reshape(*shape, -1), (posterior, prior, z)))
            return z

        features, condition = jax.tree.map(
            lambda leaf: jnp.tile(leaf, (len(numbers), *[1] * (leaf.ndim - 1))), (code.features, self._of_batch(batch))
        )
        outputs = self._top_down(variables, top.reshape(-1, self.latent_dim), latent, features, train, condition)
        px_z, updates = self._px_z(variables, batch, outputs.reshape(*shape, *outputs.shape[1:]), train)
        observed = {} if batch.observed is None else {"observed": batch.observed}
        kl = [kl_divergence(*layer) for layer in layers]
        return Terms(
            px_z.log_prob(batch.targets, **observed),
            _by_layer([log_ratio(*layer) for layer in layers]),
            _by_layer([jnp.broadcast_to(of_layer, (*shape, of_layer.shape[-1])) for of_layer in kl]),
            _by_layer([z for _, _, z in layers]),
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
        """Samples of the latents from their priors, and p(x|z) of each (see `LatentVariableModel.sample`).

        Args:
          key: Key of the latents.
          variables: Variables of the model.
          count: Number of samples.
          condition: Condition of each sample, if the model is conditional.
          temperature: Factor of the standard deviations of all layers.
          given: Latents [count, size] of some layers, such as {"z1": ...}; those of the others are sampled, each given
            the layers above it.

        Returns:
          `z`, the latents [count, size] of each layer, and `px_z`, whose `mean` is [count, *event].

        Raises:
          InputError: There are no samples, the temperature is negative, or `given` is not a dict, has a layer that the
            model has not, or latents of another shape.
        """
        require_key(key)
        require_positive_int(count=count)
        require_not_negative(temperature=temperature)
        require_by_layer(given)
        z: dict[str, Array] = {}

        def add(drawn: Callable[[Array], Array], size: int) -> Array:
            name = f"z{len(z) + 1}"
            if given and name in given:
                z[name] = jnp.asarray(as_reals(name, given[name]))
            else:
                z[name] = drawn(jax.random.fold_in(key, len(z)))
            if z[name].shape != (count, size):
                raise InputError(f"{name} has shape {z[name].shape}; expected ({count}, {size})")
            return z[name]

        def latent(p: Array, q: Array | None) -> Array:
            prior = DiagonalGaussian.from_network(p)
            mean, deviation = jnp.asarray(prior.mean), temperature * jnp.sqrt(prior.variance)
            return add(lambda own: mean + deviation * normal_like(deviation, own, -2), p.shape[-1])

        prior = self.prior_distribution(variables)
        top = add(lambda own: prior.sample(own, count, temperature), self.latent_dim)
        outputs = self._top_down(variables, top, latent, None, False, self._given(condition, count))
        if unknown := [name for name in given or {} if name not in z]:
            raise InputError(f"layers {', '.join(unknown)} are given; this model has {', '.join(z)}")
        return Draws(z, self.likelihood(outputs, of_part(variables, "likelihood"), len(self.event_shape)))

    def _top_down(
        self, variables: Variables, z: Array, latent: Latent, features: Any, train: bool, condition: dict[str, Any]
    ) -> Array:
        """Outputs of the decoder for latents of the top layer, [n, latent]."""
        precise = self.compute_dtype and z.dtype  # the type of the densities of all layers
        own, top, features, condition = as_dtype(
            (of_part(variables, "decoder"), z, features, condition), self.compute_dtype
        )

        def computed(p: Array, q: Array | None) -> Array:
            return cast(Array, as_dtype(latent(*as_dtype((p, q), precise)), self.compute_dtype))

        with require_own_variables(self.decoder):
            outputs = self.decoder.apply(own, top, computed, features, train=train, **condition)
        return cast(Array, as_dtype(outputs, precise))


def _zeros(p: Array, q: Array | None) -> Array:
    """Latents of a forward pass that initialises a decoder."""
    return jnp.zeros_like(p[:, 0])


def _by_layer(of_layers: list[Array]) -> dict[str, Array]:
    return {f"z{number}": of_layer for number, of_layer in enumerate(of_layers, start=1)}
