"""The variational autoencoder: a frozen value whose methods are pure functions of keys, variables and arrays.

Variables are Linen's: a dictionary of collections, "params" (what the optimizer trains) and, where a part has them,
others such as "batch_stats"; in each collection, one entry for each of encoder, decoder, likelihood, posterior and
prior that has variables there.
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
    named,
    renamed,
    require_key,
    require_not_negative,
    require_positive_int,
)
from vae_jax.models.protocol import ONE_DRAW, Draws, Terms, Variables, merged
from vae_jax.models.table import parameter_count
from vae_jax.networks import NNXNetwork, identity, takes
from vae_jax.values import parameter, shape_repr, value

LAYER = "z"
"""The name of a VAE's one latent layer."""

# Streams of an example's key beside the numbers of the draws: the networks' own noise, and that of a prior's encodings.
_NETWORK, _PSEUDO = 2**31 - 1, 2**31 - 2

Inputs = Float[Array, "batch ..."]


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Code:
    """What the draws of a batch are made from.

    Attributes:
      posterior: q(z|x), [batch, latent].
      prior: p(z).
      updates: collections that the encoder has changed.
    """

    posterior: Posterior
    prior: Prior
    updates: Variables


@shape_repr
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
    px_z: Distribution
    updates: PyTree

    @property
    def p_x(self) -> Distribution:
        """`px_z`, by its former name."""
        warnings.warn("Forward.p_x is now called px_z, as it is p(x|z)", DeprecationWarning, stacklevel=2)
        return self.px_z


def require_parts(**parts: Any) -> None:
    """Raise `InputError` where a likelihood or a prior is a class or a string, or a posterior is a string."""
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
    """An encoder, a decoder, and the families of distributions whose parameters they emit.

    Attributes:
      encoder: network from [batch, *event] to [batch, *posterior.output_shape(latent_dim)].
      decoder: network from [batch, latent] to [batch, *likelihood.output_shape(event_shape)].
      event_shape: shape of one example, such as (height, width, channels) of an image or (columns,) of a table.
      latent_dim: number of latent dimensions.
      posterior: the family of q(z|x); `Delta` makes a plain autoencoder.
      likelihood: builds p(x|z).
      classes: number of classes if the model is conditional on labels: `batch.label` is its condition, one-hot.
      prior: p(z).
      condition_shape: shape of one example of `batch.condition` if the model is conditional on that, or pairs of names
        and shapes of several arrays. The condition enters both networks as their argument `condition`.
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
        """The settings, and the number of parameters of each part."""
        try:
            parameters = jax.eval_shape(self.init, jax.random.key(0)).get("params", {})
            counts = {part: f"{parameter_count(tree):,}" for part, tree in parameters.items()}
        except InputError:  # a prior that needs data, or parts that don't fit
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
        """`event_shape`, by its former name."""
        warnings.warn("image_shape is now called event_shape", DeprecationWarning, stacklevel=2)
        return self.event_shape

    @property
    def is_conditional(self) -> bool:
        """Whether encoder and decoder take a condition."""
        return self.classes is not None or self.condition_shape is not None

    def init(self, key: Key[Array, ""], data: Shaped[Any, "n ..."] | None = None) -> Variables:
        """Fresh variables.

        Args:
          key: of all of them.
          data: training examples as the encoder takes them, [n, *event], for a prior that starts from some.

        Raises:
          InputError: a network emits another shape than the posterior or the likelihood takes, or the prior can't be
            that of this model.
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
        """Raise `InputError` unless the model takes the examples of a split as `transform` makes them."""
        self.require_inputs(data)
        if not self.likelihood.domain.holds(transform.support):
            raise InputError(
                f"the likelihood takes {self.likelihood.domain}, but what is observed are {transform.support}; choose "
                "another likelihood or another transform, such as vj.Raw(low, high) of stored numbers in that range"
            )

    def require_inputs(self, data: Split) -> None:
        """Raise `InputError` unless the examples are of the model's shape, labelled if it is conditional on labels."""
        if data.event_shape != self.event_shape:
            raise InputError(f"the examples have shape {data.event_shape}, but the model takes {self.event_shape}")
        if self.classes is not None:
            if data.labels is None:
                raise InputError("the examples have no labels, and a conditional model needs them")
            require_classes(data.labels, self.classes)

    @renamed(label="condition")
    def encode(self, variables: Variables, x: Any, condition: PyTree = None) -> Posterior:
        """q(z|x) of each example.

        Args:
          variables: Variables of the model.
          x: Examples as a transform makes them, such as pixels in [0, 1], [batch, *event].
          condition: Condition of each example if the model is conditional; labels, if it was made with `classes`.

        Raises:
          InputError: The examples have another shape, are bytes or not numbers, or have NaN; the model does not take
            the condition; or the variables are those of another model.
        """
        if getattr(x, "dtype", None) == np.uint8:
            raise InputError(
                "x is uint8; expected real numbers: apply a transform by vj.encode_all, or divide by 255 as vj.Scale"
            )
        x = as_reals("x", x)
        with jax.ensure_compile_time_eval():
            if not is_traced(x) and not jnp.isfinite(x).all():
                raise InputError(
                    "x holds NaN or infinite values; expected finite values: give missing entries by Batch.observed"
                )
        return self._encode(variables, Batch(x), self._given(condition, len(x)), False, None)[0]

    @renamed(label="condition")
    def decode(self, variables: Variables, z: Any, condition: PyTree = None) -> Distribution:
        """p(x|z) of each latent.

        Args:
          variables: Variables of the model.
          z: Latents, [*samples, batch, latent].
          condition: Condition of each example of the batch if the model is conditional, as in `encode`.

        Raises:
          InputError: The latents have another shape or are not numbers, the model does not take the condition, or the
            variables are those of another model.
        """
        z = as_reals("z", z)
        if z.ndim < 2 or z.shape[-1] != self.latent_dim:
            raise InputError(f"z has shape {z.shape}; expected [batch, {self.latent_dim}]")
        outputs, _ = self._decode(variables, z, self._given(condition, z.shape[-2]), False, None, None)
        return self.likelihood(outputs, _of(variables, "likelihood"), len(self.event_shape))

    def code(
        self, variables: Variables, batch: Batch, train: bool = False, key: Key[Array, "*keys"] | None = None
    ) -> Code:
        """q(z|x) and p(z), with what the encoder has changed; `key` is for the encoder's own noise in training."""
        posterior, updates = self._encode(variables, batch, self._of_batch(batch), train, key)
        return Code(posterior, self.prior_distribution(variables, train, key), updates)

    def prior_distribution(
        self, variables: Variables, train: bool = False, key: Key[Array, "*keys"] | None = None
    ) -> Prior:
        """p(z), with `log_prob` and `sample`.

        Args:
          variables: of this VAE.
          train: whether encodings of which it is made are those of a train step; their batch statistics are discarded.
          key: of the encoder's own noise in training, drawn from the first example's if there are several.
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
        """Draws from q(z|x) by their numbers: that of number s of an example is keyed by its key folded with s.

        Args:
          key: one key, or one per example.
          posterior: of a batch of examples.
          numbers: of the draws.
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
        """The terms of the bound at draws of z (see `LatentVariableModel.terms`)."""
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
        """Draws of z from p(z), and p(x|z) of them (see `LatentVariableModel.sample`).

        Raises:
          InputError: no draws, a negative temperature, or a layer that there is not.
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
        """p(x|z) of each example at the mean of q(z|x); its `mean` are the reconstructions, [batch, *event]."""
        return self.decode(variables, self.encode(variables, x, condition).mean, condition)

    def interpolate(
        self, variables: Variables, start: Any, end: Any, steps: int = 10, condition: PyTree = None
    ) -> Distribution:
        """p(x|z) at evenly spaced points of the straight lines between the encodings of pairs of examples.

        Args:
          variables: Variables of the model.
          start: Examples at which the lines begin, [batch, *event].
          end: Examples at which they end, [batch, *event].
          steps: Number of points of a line, both ends included.
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
        """p(x|z) at the encoding of each example, with one latent dimension after the other set to each of the values.

        A grid of the first example, one row per dimension:

            x = vae.traverse(variables, data.test.images[:1] / 255, jnp.linspace(-3, 3, 11)).mean[:, :, 0]
            vj.plot.images(x.reshape(-1, *vae.event_shape), 11, "Latent traversals")

        Args:
          variables: Variables of the model.
          x: Examples, [batch, *event].
          values: Values of the dimension, in the units of the latent.
          dimensions: Numbers of the dimensions; by default all of them.
          condition: Condition of each example, if the model is conditional.

        Returns:
          Distribution whose `mean` is [dimensions, values, batch, *event].

        Raises:
          InputError: A dimension is not a number from 0 to `latent_dim - 1`, or `values` is not [values].
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
        """Encode a batch, draw `samples` latents for each example, decode them all; `terms` without the densities.

        Args:
          key: one key, or one per example.
          variables: of this VAE.
          batch: `batch.x` is encoded, with the condition if the model is conditional.
          samples: draws for each example.
          train: whether batch statistics are those of this batch, and updated.
          through: what the latents [samples, batch, latent] go through before they are decoded; an objective can take
            their gradient apart here.
        """
        posterior, updates = self._encode(variables, batch, self._of_batch(batch), train, key)
        z = through(self.draw(key, posterior, jnp.arange(samples)))
        px_z, changed = self._likelihood_of(key, variables, batch, z, jnp.arange(samples), train)
        return Forward(posterior, z, px_z, merged(updates, changed))

    def _likelihood_of(
        self, key: Array, variables: Variables, batch: Batch, z: Array, draws: Array, train: bool
    ) -> tuple[Distribution, Variables]:
        """p(x|z) of draws [samples, batch, latent], and what it changes."""
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
        """The decoder's outputs for z [*samples, batch, latent], and what it changes."""
        flat = z.reshape(-1, self.latent_dim)
        copies = len(flat) // z.shape[-2]
        repeated, mask = jax.tree.map(lambda leaf: jnp.tile(leaf, (copies, *[1] * (leaf.ndim - 1))), (condition, mask))
        noise = None
        if keys is not None and draws is not None:
            noise = jax.vmap(partial(_fold, keys))(draws).reshape(-1)
        outputs, updates = _apply(self.decoder, _of(variables, "decoder"), flat, train, repeated, mask, noise)
        return outputs.reshape(*z.shape[:-1], *outputs.shape[1:]), updates

    def _of_batch(self, batch: Batch) -> dict[str, Any]:
        """The networks' argument `condition`, from a batch; a label is none of a model without classes."""
        if self.condition_shape is None and self.classes is None:
            return {}
        return self._given(batch.label if self.classes is not None else batch.condition, len(batch.x))

    def require_condition(self, condition: PyTree, count: int) -> None:
        """Raise `InputError` unless the condition is one of `count` examples, or None for a model without."""
        self._given(condition, count)

    def _given(self, condition: PyTree, batch: int) -> dict[str, Any]:
        """The networks' argument `condition`, from what the user gives."""
        if not self.is_conditional:
            if condition is not None:
                raise InputError(
                    "a condition was given, but the model is not conditional; make it with classes= or condition_shape="
                )
            return {}
        if self.classes is None:
            expected = self._blank_condition()
            found = None if condition is None else jax.tree.map(lambda leaf: tuple(leaf.shape), condition)
            if found != jax.tree.map(lambda leaf: (batch, *leaf.shape[1:]), expected):
                raise InputError(
                    f"the condition has shape {found}; expected [batch = {batch}, ...] of {self.condition_shape}"
                )
            return {"condition": condition}
        if condition is None:
            raise InputError(f"the model is conditional on {self.classes} classes, but no labels were given")
        if condition.shape != (batch,):
            raise InputError(f"labels have shape {condition.shape}; expected ({batch},)")
        require_classes(condition, self.classes)
        return {"condition": jax.nn.one_hot(condition, self.classes)}

    def _blank_condition(self) -> PyTree:
        """Zeros of the shape of a condition, of one example."""
        if self.classes is not None:
            return jnp.zeros((1, self.classes))
        shape = self.condition_shape
        assert shape is not None
        if all(isinstance(size, int) for size in shape):
            return jnp.zeros((1, *shape))
        return {name: jnp.zeros((1, *sizes)) for name, sizes in shape}


def require_classes(labels: Int[Any, " n"], classes: int) -> None:
    """Raise `InputError` unless each label is one of that many classes; traced labels pass."""
    if is_traced(labels) or not len(labels):
        return
    with jax.ensure_compile_time_eval():
        low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < classes:
        raise InputError(f"labels run from {low} to {high}; expected 0 to {classes - 1}, of {classes} classes")


def _fold(keys: Key[Array, " batch"], number: Int[Array, ""] | int) -> Key[Array, " batch"]:
    """Each key folded with a number."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def _network_keys(key: Array, batch: int) -> Key[Array, " batch"]:
    """Keys of the networks' own noise, such as dropout, one an example."""
    return _fold(example_keys(key, batch), _NETWORK)


def _require_shape(name: str, outputs: Any, expected: tuple[int, ...]) -> None:
    if outputs.shape != expected:
        raise InputError(f"the {name} emits shape {outputs.shape} for a batch of 1; expected {expected}")


def _apply(
    network: nn.Module,
    variables: Variables,
    inputs: Array,
    train: bool,
    arguments: dict[str, Any],
    mask: Array | None,
    keys: Key[Array, " batch"] | None,
) -> tuple[Array, Variables]:
    """The outputs of a network, and the collections that it changes in training."""
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
    if mutable:  # statistics of the whole batch: its noise has one key too
        outputs, updates = network.apply(
            variables, inputs, train=True, mutable=mutable, rngs=_rngs(keys[0]), **arguments
        )
        return outputs, dict(updates)

    def one(key: Array, x: Array, own: dict[str, Any]) -> Array:
        alone = jax.tree.map(lambda leaf: leaf[None], (x, own))
        return network.apply(variables, alone[0], train=True, rngs=_rngs(key), **alone[1])[0]

    return jax.vmap(one)(keys, inputs, arguments), {}


def _rngs(key: Key[Array, ""]) -> dict[str, Array]:
    """The key of every stream: Linen's fall back on "params", and those of NNX on "default"."""
    return {"params": key, "default": key}


@lru_cache(maxsize=64)
def _draws(network: nn.Module, leaves: tuple[Any, ...], structure: Any, mutable: tuple[str, ...]) -> bool:
    """Whether a network draws random numbers in training, such as for dropout; one of NNX may always."""
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
    """The shape of an example as a tuple.

    Raises:
      InputError: The shape is not a sequence of whole numbers of at least 1.
    """
    if isinstance(shape, Integral):
        raise InputError(f"event_shape is {shape}; expected a tuple of sizes, such as ({shape},)")
    if not isinstance(shape, tuple | list) or not shape:
        raise InputError(f"event_shape is {shape!r}; expected a tuple of sizes, such as (28, 28, 1)")
    require_positive_int(**{f"event_shape[{axis}]": size for axis, size in enumerate(shape)})
    return tuple(int(size) for size in shape)


def _of(variables: Variables, part: str) -> Variables:
    if not isinstance(variables, Mapping):
        remedy = "state.variables" if hasattr(variables, "variables") else "the variables of vj.init or of the model"
        raise InputError(f"variables is {named(variables)}; expected a dict of collections: {remedy}")
    return {collection: parts[part] for collection, parts in variables.items() if part in parts}


def _by_collection(**parts: Variables) -> Variables:
    """{part: {collection: tree}} -> {collection: {part: tree}}."""
    collections = sorted({collection for variables in parts.values() for collection in variables})
    return {
        collection: {part: variables[collection] for part, variables in parts.items() if collection in variables}
        for collection in collections
    }
