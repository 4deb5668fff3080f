"""The variational autoencoder: a frozen value whose methods are pure functions of keys, variables and arrays.

Variables are a dictionary of collections, as in Linen: "params", which the optimizer trains, and others such as
"batch_stats". Each collection has one entry for each of encoder, decoder, likelihood, posterior and prior that has
variables in it.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Integral
from typing import Any, cast

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from vae_jax.data import Split
from vae_jax.data.arrays import as_reals
from vae_jax.data.transforms import Batch, Transform
from vae_jax.distributions import (
    Delta,
    DiagonalGaussian,
    Posterior,
    Prior,
    StandardNormal,
    example_keys,
    kl_divergence,
    log_ratio,
)
from vae_jax.distributions.likelihoods import Bernoulli, Distribution
from vae_jax.errors import (
    InputError,
    is_traced,
    renamed,
    require_key,
    require_not_negative,
    require_positive_int,
    require_variables,
)
from vae_jax.models.protocol import ONE_DRAW, Draws, Terms, Variables, as_condition, merged
from vae_jax.models.table import parameter_count
from vae_jax.networks import NNXNetwork, identity, takes
from vae_jax.values import parameter, shape_repr, value

LAYER = "z"
"""Name of the single latent layer of a VAE."""

# Streams of an example's key besides the numbers of the samples: noise of the networks, and of a prior's encodings.
_NETWORK, _PSEUDO = 2**31 - 1, 2**31 - 2

Inputs = Float[Array, "batch ..."]


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Code:
    """Posterior and prior of a batch.

    Attributes:
      posterior: Posterior q(z|x), [batch, latent].
      prior: Prior p(z).
      updates: Collections of variables that the encoder has changed.
    """

    posterior: Posterior
    prior: Prior
    updates: Variables


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Forward:
    """Result of a forward pass through a VAE.

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


def require_parts(**parts: Any) -> None:
    """Raise `InputError` if a likelihood or a prior is a class, or any part lacks the methods of its kind."""
    for name, given in parts.items():
        if isinstance(given, type) and name != "posterior":
            raise InputError(f"{name} is the class {given.__name__}; expected a value: {given.__name__}()")
        required = "output_shape" if name in ("likelihood", "posterior") else "init"
        if not hasattr(given, required):
            examples = {
                "likelihood": "vj.Bernoulli() or vj.Gaussian(0.1)",
                "prior": "vj.StandardNormal() or vj.VampPrior(500)",
                "posterior": "vj.DiagonalGaussian or vj.FlowPosterior(vj.Coupling())",
            }
            raise InputError(f"{name} is {given!r}; expected a {name}, such as {examples[name]}")


@renamed(image_shape="event_shape")
@value
class VAE:
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

    Raises:
      InputError: A size is not a positive integer, a distribution is not of the expected kind, or both
        `classes` and `condition_shape` are given.
    """

    encoder: nn.Module
    decoder: nn.Module
    event_shape: tuple[int, ...]
    latent_dim: int
    posterior: Any = parameter(default=DiagonalGaussian)
    likelihood: Any = parameter(default=Bernoulli())
    classes: int | None = None
    prior: Any = parameter(default=StandardNormal())
    condition_shape: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        require_positive_int(latent_dim=self.latent_dim)
        require_parts(likelihood=self.likelihood, prior=self.prior, posterior=self.posterior)
        as_event_shape(self.event_shape)
        if self.classes is not None:
            require_positive_int(classes=self.classes)
            if self.condition_shape is not None:
                raise InputError("classes and condition_shape are given; give one, labels may be part of the other")

    def __repr__(self) -> str:
        """Settings of the model and number of parameters of each network."""
        try:
            parameters = jax.eval_shape(self.init, jax.random.key(0)).get("params", {})
            counts = {part: f"{parameter_count(tree):,}" for part, tree in parameters.items()}
        except InputError:  # a prior that needs data, or networks of wrong output shapes
            counts = {}
        networks = (
            f"{name}={type(network).__name__}" + (f" ({counts[name]} parameters)" if name in counts else "")
            for name, network in (("encoder", self.encoder), ("decoder", self.decoder))
        )
        posterior = getattr(self.posterior, "__name__", self.posterior)
        settings = [*networks, f"posterior={posterior}", f"prior={self.prior}", f"likelihood={self.likelihood}"]
        if self.is_conditional:
            settings.append(f"classes={self.classes}" if self.classes else f"condition_shape={self.condition_shape}")
        shapes = f"event_shape={self.event_shape}, latent_dim={self.latent_dim}"
        return "\n    ".join([f"VAE({shapes},", *(f"{setting}," for setting in settings)]) + "\n)"

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Deprecated name of `event_shape`."""
        warnings.warn("image_shape is now called event_shape", DeprecationWarning, stacklevel=2)
        return self.event_shape

    @property
    def is_conditional(self) -> bool:
        """Whether encoder and decoder accept a condition."""
        return self.classes is not None or self.condition_shape is not None

    def init(self, key: Key[Array, ""], data: Shaped[Any, "n ..."] | None = None) -> Variables:
        """Initial variables.

        Args:
          key: Key of the initial variables.
          data: Training examples after the transform, [n, *event], from which some priors are initialised.

        Returns:
          The variables by collection and part.

        Raises:
          InputError: A network does not return the shape that the posterior or the likelihood requires, or the prior
            does not fit the model.
        """
        encoder_key, decoder_key, posterior_key, prior_key = jax.random.split(key, 4)
        x, z = jnp.zeros((1, *self.event_shape)), jnp.zeros((1, self.latent_dim))
        condition = {"condition": self._blank_condition()} if self.is_conditional else {}
        parameters, encoder = self.encoder.init_with_output(_rngs(encoder_key), x, **condition)
        outputs, decoder = self.decoder.init_with_output(_rngs(decoder_key), z, **condition)
        _require_shape("encoder", parameters, (1, *self.posterior.output_shape(self.latent_dim)))
        _require_shape("decoder", outputs, (1, *self.likelihood.output_shape(self.event_shape)))
        variables = _by_collection(
            encoder=dict(encoder),
            decoder=dict(decoder),
            likelihood=self.likelihood.init(self.event_shape),
            posterior=self.posterior.init(posterior_key, self.latent_dim),
            prior=self.prior.init(prior_key, self.latent_dim, self.event_shape, data),
        )
        jax.eval_shape(lambda variables: self.prior_distribution(variables).log_prob(z), variables)
        return variables

    def require_data(self, data: Split, transform: Transform) -> None:
        """Raise `InputError` unless the model accepts the examples of a split after `transform`."""
        self.require_inputs(data)
        if not self.likelihood.domain.holds(transform.support):
            raise InputError(
                f"the likelihood takes {self.likelihood.domain}, but what is observed are {transform.support}; choose "
                "another likelihood or another transform, such as vj.Raw(low, high) of stored numbers in that range"
            )

    def require_inputs(self, data: Split) -> None:
        """Raise `InputError` unless the examples have the shape of the model, and labels if it has classes."""
        if data.event_shape != self.event_shape:
            raise InputError(f"the examples have shape {data.event_shape}, but the model takes {self.event_shape}")
        if self.classes is not None:
            if data.labels is None:
                raise InputError("the examples have no labels, and a conditional model needs them")
            require_classes(data.labels, self.classes)

    @renamed(label="condition")
    def encode(self, variables: Variables, x: Any, condition: PyTree = None) -> Posterior:
        """Posterior q(z|x) of each example.

        Args:
          variables: Variables of the model.
          x: Examples after the transform, such as pixels in [0, 1], [batch, *event].
          condition: Condition of each example if the model is conditional; labels if it has `classes`.

        Returns:
          Posterior of the latents, [batch, latent].

        Raises:
          InputError: The examples do not have the shape of the model, are bytes or not numbers, or are not finite, the
            model does not accept the condition, or the variables are those of another model.
        """
        if getattr(x, "dtype", None) == np.uint8:
            raise InputError(
                "x is uint8; expected real numbers: apply a transform by vj.encode_all, or divide by 255 as vj.Scale"
            )
        x = jnp.asarray(as_reals("x", x))
        with jax.ensure_compile_time_eval():
            if not is_traced(x) and not jnp.isfinite(x).all():
                raise InputError(
                    "x holds NaN or infinite values; expected finite values: give missing entries by Batch.observed"
                )
        return self._encode(variables, Batch(x), self._given(condition, len(x)), False, None)[0]

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
          InputError: The latents do not have the shape of the model or are not numbers, the model does not accept the
            condition, or the variables are those of another model.
        """
        z = jnp.asarray(as_reals("z", z))
        if z.ndim < 2 or z.shape[-1] != self.latent_dim:
            raise InputError(f"z has shape {z.shape}; expected [batch, {self.latent_dim}]")
        outputs, _ = self._decode(variables, z, self._given(condition, z.shape[-2]), False, None, None)
        return self.likelihood(outputs, _of(variables, "likelihood"), len(self.event_shape))

    def code(
        self, variables: Variables, batch: Batch, train: bool = False, key: Key[Array, "*keys"] | None = None
    ) -> Code:
        """Posterior q(z|x) and prior p(z) of a batch; `key` is the key of the encoder's noise, such as dropout."""
        posterior, updates = self._encode(variables, batch, self._of_batch(batch), train, key)
        return Code(posterior, self.prior_distribution(variables, train, key), updates)

    def prior_distribution(
        self, variables: Variables, train: bool = False, key: Key[Array, "*keys"] | None = None
    ) -> Prior:
        """Prior p(z), with `log_prob` and `sample`.

        Args:
          variables: Variables of the model.
          train: Whether encodings on which the prior depends are computed as in training; their batch statistics are
            discarded.
          key: Key of the encoder's noise in training; of several keys, the first is used.

        Raises:
          InputError: The prior depends on encodings, but the model is conditional.
        """

        def encode(x: Array) -> Posterior:
            if self.is_conditional:
                raise InputError("a prior made of encodings can't be that of a conditional model; take another prior")
            own = None if key is None else jax.random.fold_in(key.reshape(-1)[0], _PSEUDO)
            return self._encode(variables, Batch(x), {}, train, own)[0]

        return self.prior(_of(variables, "prior"), self.latent_dim, encode)

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
        return jax.vmap(lambda number: posterior.sample(_fold(keys, number)))(numbers)

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
        given: Mapping[str, Array] | None = None,
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
          InputError: There are no samples, the temperature is negative, or `given` does not fit the latent layer.
        """
        require_key(key)
        require_positive_int(count=count)
        require_not_negative(temperature=temperature)
        if given and given.keys() != {LAYER}:
            raise InputError(f"layers {', '.join(given)} are given; this model has one, {LAYER!r}")
        if given and given[LAYER].shape != (count, self.latent_dim):
            raise InputError(f"z has shape {given[LAYER].shape}; expected ({count}, {self.latent_dim})")
        z = given[LAYER] if given else self.prior_distribution(variables).sample(key, count, temperature)
        return Draws({LAYER: z}, self.decode(variables, z, condition))

    def reconstruct(self, variables: Variables, x: Any, condition: PyTree = None) -> Distribution:
        """Distribution p(x|z) at the mean of q(z|x); its `mean` is the reconstructions, [batch, *event]."""
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
        """Encode a batch, sample `samples` latents per example and decode them; `terms` without the densities.

        Args:
          key: One key, or one per example.
          variables: Variables of the model.
          batch: Batch of examples, with the condition if the model is conditional.
          samples: Number of samples per example.
          train: Whether the batch statistics of this batch are used and updated, and dropout is active.
          through: Function applied to the latents [samples, batch, latent] before they are decoded, by which an
            objective changes their gradient.

        Returns:
          Posterior, samples, p(x|z) and the updated collections of variables.
        """
        posterior, updates = self._encode(variables, batch, self._of_batch(batch), train, key)
        z = through(self.draw(key, posterior, jnp.arange(samples)))
        px_z, changed = self._likelihood_of(key, variables, batch, z, jnp.arange(samples), train)
        return Forward(posterior, z, px_z, merged(updates, changed))

    def _likelihood_of(
        self, key: Array, variables: Variables, batch: Batch, z: Array, draws: Array, train: bool
    ) -> tuple[Distribution, Variables]:
        """Distribution p(x|z) of samples [samples, batch, latent], and the updated collections of variables."""
        noise = _fold(_network_keys(key, z.shape[1]), 0) if train else None
        outputs, updates = self._decode(variables, z, self._of_batch(batch), train, batch.mask, noise, draws)
        own = _of(variables, "likelihood")
        if not train:
            return self.likelihood(outputs, own, len(self.event_shape)), {}
        px_z, changed = self.likelihood.in_training(outputs, own, batch, len(self.event_shape))
        return px_z, merged(_by_collection(decoder=updates), _by_collection(likelihood=changed))

    def _encode(
        self, variables: Variables, batch: Batch, condition: dict[str, Any], train: bool, key: Array | None
    ) -> tuple[Posterior, Variables]:
        if batch.x.shape[1:] != self.event_shape:
            expected = ", ".join(map(str, self.event_shape))
            raise InputError(f"x has shape {batch.x.shape}; expected [batch, {expected}]")
        if batch.observed is not None and batch.observed.shape != batch.x.shape:
            raise InputError(f"observed has shape {batch.observed.shape}; expected that of x, {batch.x.shape}")
        x = batch.x if batch.observed is None else jnp.where(batch.observed > 0, batch.x, 0)
        extra = {"observed": batch.observed} if batch.observed is not None and takes(self.encoder, "observed") else {}
        noise = None if key is None or not train else _fold(_network_keys(key, len(x)), 1)
        outputs, updates = _apply(
            self.encoder, _of(variables, "encoder"), x, train, condition | extra, batch.mask, noise
        )
        posterior = self.posterior.from_network(outputs, _of(variables, "posterior"))
        return posterior, _by_collection(encoder=updates)

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
            noise = jax.vmap(partial(_fold, keys))(draws).reshape(-1)
        outputs, updates = _apply(self.decoder, _of(variables, "decoder"), flat, train, repeated, mask, noise)
        return outputs.reshape(*z.shape[:-1], *outputs.shape[1:]), updates

    def _of_batch(self, batch: Batch) -> dict[str, Any]:
        """Argument `condition` of the networks from a batch; labels are ignored if the model has no classes."""
        if self.condition_shape is None and self.classes is None:
            return {}
        return self._given(batch.label if self.classes is not None else batch.condition, len(batch.x))

    def require_condition(self, condition: PyTree, count: int) -> None:
        """Raise `InputError` unless the model accepts the condition with `count` examples."""
        self._given(condition, count)

    def _given(self, condition: PyTree, batch: int) -> dict[str, Any]:
        """Argument `condition` of the networks from the condition or the labels of a batch, checked."""
        if not self.is_conditional:
            if condition is not None:
                raise InputError(
                    "a condition was given, but the model is not conditional; make it with classes= or condition_shape="
                )
            return {}
        if self.classes is None:
            expected = self._blank_condition()
            found = None if condition is None else jax.tree.map(jnp.shape, condition)
            if found != jax.tree.map(lambda leaf: (batch, *leaf.shape[1:]), expected):
                raise InputError(
                    f"the condition has shape {found}; expected [batch = {batch}, ...] of {self.condition_shape}"
                )
            return {"condition": condition}
        condition = as_condition(self, condition)
        if condition is None:
            raise InputError(f"the model is conditional on {self.classes} classes, but no labels were given")
        if condition.shape != (batch,):
            raise InputError(f"labels have shape {condition.shape}; expected ({batch},)")
        require_classes(condition, self.classes)
        return {"condition": jax.nn.one_hot(condition, self.classes)}

    def _blank_condition(self) -> PyTree:
        """Zeros of the shape of the condition of one example."""
        if self.classes is not None:
            return jnp.zeros((1, self.classes))
        shape = self.condition_shape
        assert shape is not None
        if all(isinstance(size, int) for size in shape):
            return jnp.zeros((1, *shape))
        return {name: jnp.zeros((1, *sizes)) for name, sizes in shape}


def require_classes(labels: Int[Any, " n"], classes: int) -> None:
    """Raise `InputError` unless each label is from 0 to `classes - 1`; traced labels are not checked."""
    if is_traced(labels) or not len(labels):
        return
    with jax.ensure_compile_time_eval():
        low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < classes:
        raise InputError(f"labels run from {low} to {high}; expected 0 to {classes - 1}, of {classes} classes")


def _fold(keys: Key[Array, " batch"], number: Int[Array, ""] | int) -> Key[Array, " batch"]:
    """Fold a number into each key."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def _network_keys(key: Array, batch: int) -> Key[Array, " batch"]:
    """Keys of the noise within the networks, such as dropout, one per example."""
    return _fold(example_keys(key, batch), _NETWORK)


def _require_shape(name: str, outputs: Any, expected: tuple[int, ...]) -> None:
    if outputs.shape != expected:
        raise InputError(f"the {name} returns shape {outputs.shape} for a batch of 1; expected {expected}")


def _apply(
    network: nn.Module,
    variables: Variables,
    inputs: Array,
    train: bool,
    arguments: dict[str, Any],
    mask: Array | None,
    keys: Key[Array, " batch"] | None,
) -> tuple[Array, Variables]:
    """Outputs of a network, and the collections of variables that it has updated in training."""
    if not train:
        try:
            return cast(Array, network.apply(variables, inputs, **arguments)), {}
        except (flax.errors.ScopeParamShapeError, flax.errors.ScopeParamNotFoundError) as error:
            reason = str(error).split(". (http")[0].replace("\n", " ")
            raise InputError(
                f"the variables are not those of this model's {type(network).__name__}: {reason}"
            ) from error
    mutable = [collection for collection in variables if collection != "params"]
    if mask is not None and mutable:
        if not takes(network, "mask"):
            raise InputError(
                f"the batch has a mask, but {type(network).__name__}, which has batch statistics, takes none; give its "
                "__call__ an argument `mask`, for nn.BatchNorm to leave the padding out"
            )
        arguments = arguments | {"mask": mask}
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (variables, inputs, arguments))
    leaves, structure = jax.tree.flatten(shapes)
    if keys is None or not _draws(network, tuple(leaves), structure, tuple(mutable)):
        outputs, updates = network.apply(variables, inputs, train=True, mutable=mutable, **arguments)
        return outputs, dict(updates)
    if mutable:  # batch statistics couple the examples, so the noise has one key for the batch
        outputs, updates = network.apply(
            variables, inputs, train=True, mutable=mutable, rngs=_rngs(keys[0]), **arguments
        )
        return outputs, dict(updates)

    def one(key: Array, x: Array, own: dict[str, Any]) -> Array:
        alone = jax.tree.map(lambda leaf: leaf[None], (x, own))
        return network.apply(variables, alone[0], train=True, rngs=_rngs(key), **alone[1])[0]

    return jax.vmap(one)(keys, inputs, arguments), {}


def _rngs(key: Key[Array, ""]) -> dict[str, Array]:
    """Key of all random streams: those of Linen fall back to "params", and those of NNX to "default"."""
    return {"params": key, "default": key}


@lru_cache(maxsize=64)
def _draws(network: nn.Module, leaves: tuple[Any, ...], structure: Any, mutable: tuple[str, ...]) -> bool:
    """Whether a network uses random numbers in training, such as in dropout; always True of NNX networks."""
    if isinstance(network, NNXNetwork):
        return True
    variables, inputs, arguments = jax.tree.unflatten(structure, leaves)
    try:
        jax.eval_shape(
            lambda variables, inputs, arguments: network.apply(
                variables, inputs, train=True, mutable=list(mutable), **arguments
            ),
            variables,
            inputs,
            arguments,
        )
    except flax.errors.InvalidRngError:
        return True
    return False


def as_event_shape(shape: Any) -> tuple[int, ...]:
    """Shape of an example as a tuple of integers.

    Raises:
      InputError: The shape is not a non-empty sequence of positive integers.
    """
    if isinstance(shape, Integral):
        raise InputError(f"event_shape is {shape}; expected a tuple of sizes, such as ({shape},)")
    if not isinstance(shape, tuple | list) or not shape:
        raise InputError(f"event_shape is {shape!r}; expected a tuple of sizes, such as (28, 28, 1)")
    require_positive_int(**{f"event_shape[{axis}]": size for axis, size in enumerate(shape)})
    return tuple(int(size) for size in shape)


def _of(variables: Variables, part: str) -> Variables:
    require_variables(variables)
    return {collection: parts[part] for collection, parts in variables.items() if part in parts}


def _by_collection(**parts: Variables) -> Variables:
    """{part: {collection: tree}} -> {collection: {part: tree}}."""
    collections = sorted({collection for variables in parts.values() for collection in variables})
    return {
        collection: {part: variables[collection] for part, variables in parts.items() if collection in variables}
        for collection in collections
    }
