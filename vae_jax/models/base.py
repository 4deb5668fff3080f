"""Base class of models with an encoder and a decoder: variables, conditions, prior, and checks of inputs.

Variables are a dictionary of collections, as in Linen: "params", which the optimizer trains, and others such as
"batch_stats". Each collection has one entry for each of encoder, decoder, likelihood, posterior and prior that has
variables in it.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Int, Key, PyTree, Shaped

from vae_jax.data import Split
from vae_jax.data.arrays import as_reals
from vae_jax.data.transforms import Batch, Transform
from vae_jax.distributions import DiagonalGaussian, FlowPosterior, Posterior, Prior, StandardNormal
from vae_jax.distributions.likelihoods import Bernoulli, Distribution
from vae_jax.errors import InputError, is_traced, named, renamed, require_finite_values, require_positive_int
from vae_jax.models.apply import apply_network, by_collection, folded, network_keys, of_part, require_compute_dtype
from vae_jax.models.parameters import parameter_count
from vae_jax.models.protocol import Variables, as_condition
from vae_jax.networks import takes
from vae_jax.values import jit, parameter, shape_repr, value

_PSEUDO = 2**31 - 2  # stream of a key for the encodings of a prior


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Code:
    """Posterior and prior of a batch.

    Attributes:
      posterior: Posterior q(z|x), [batch, latent]; of a `LadderVAE`, that of the top layer.
      prior: Prior p(z) of the same latents.
      features: Features of the encoder for the layers below the top one, [batch, ...] each; None of a `VAE`.
      updates: Collections of variables that the encoder has changed.
    """

    posterior: Posterior
    prior: Prior
    features: Any
    updates: Variables


@value
class BaseVAE:
    """Networks and distributions of a model with an encoder and a decoder; see `VAE` and `LadderVAE`."""

    encoder: nn.Module
    decoder: nn.Module
    event_shape: tuple[int, ...]
    latent_dim: int
    posterior: Any = parameter(default=DiagonalGaussian)
    likelihood: Any = parameter(default=Bernoulli())
    classes: int | None = None
    prior: Any = parameter(default=StandardNormal())
    condition_shape: tuple[Any, ...] | None = None
    compute_dtype: Any = None

    def __post_init__(self) -> None:
        require_positive_int(latent_dim=self.latent_dim)
        require_parts(likelihood=self.likelihood, prior=self.prior, posterior=self.posterior)
        require_networks(encoder=self.encoder, decoder=self.decoder)
        object.__setattr__(self, "event_shape", as_event_shape(self.event_shape))
        require_compute_dtype(self.compute_dtype)
        if self.classes is not None:
            require_positive_int(classes=self.classes)
            if self.condition_shape is not None:
                raise InputError("classes and condition_shape are given; give one, labels may be part of the other")
        if self.condition_shape is not None:
            require_condition_shape(self.condition_shape)

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
        if self.compute_dtype:
            settings.append(f"compute_dtype={self.compute_dtype!r}")
        shapes = f"event_shape={self.event_shape}, latent_dim={self.latent_dim}"
        return "\n    ".join([f"{type(self).__name__}({shapes},", *(f"{setting}," for setting in settings)]) + "\n)"

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
        encoder, decoder = _init_networks(self, encoder_key, decoder_key)
        variables = by_collection(
            encoder=encoder,
            decoder=decoder,
            likelihood=self.likelihood.init(self.event_shape),
            posterior=self.posterior.init(posterior_key, self.latent_dim),
            prior=self.prior.init(prior_key, self.latent_dim, self.event_shape, data),
        )
        z = jnp.zeros((1, self.latent_dim))
        jax.eval_shape(lambda variables: self.prior_distribution(variables).log_prob(z), variables)
        return variables

    def _init_networks(self, encoder_key: Key[Array, ""], decoder_key: Key[Array, ""]) -> tuple[Variables, Variables]:
        """Initial variables of encoder and decoder, of which the shapes of the outputs are checked."""
        raise NotImplementedError

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
        require_transformed(x)
        x = jnp.asarray(as_reals("x", x))
        return self._encode(variables, Batch(x), self._given(condition, len(x)), False, None)[0]

    def code(
        self, variables: Variables, batch: Batch, train: bool = False, key: Key[Array, "*keys"] | None = None
    ) -> Code:
        """Posterior q(z|x) and prior p(z) of a batch; `key` is the key of the encoder's noise, such as dropout."""
        posterior, features, updates = self._encode(variables, batch, self._of_batch(batch), train, key)
        return Code(posterior, self.prior_distribution(variables, train, key), features, updates)

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

        return self.prior(of_part(variables, "prior"), self.latent_dim, encode)

    def _encode(
        self, variables: Variables, batch: Batch, condition: dict[str, Any], train: bool, key: Array | None
    ) -> tuple[Posterior, Any, Variables]:
        """q(z|x), the features that the encoder returns besides its parameters, and changed collections."""
        x = known_inputs(batch, self.event_shape)
        extra = {"observed": batch.observed} if batch.observed is not None and takes(self.encoder, "observed") else {}
        noise = None if key is None or not train else folded(network_keys(key, len(x)), 1)
        own = of_part(variables, "encoder")
        outputs, updates = apply_network(
            self.encoder, own, x, train, condition | extra, batch.mask, noise, self.compute_dtype
        )
        parameters, features = outputs if isinstance(outputs, tuple) else (outputs, None)
        posterior = self.posterior.from_network(parameters, of_part(variables, "posterior"))
        return posterior, features, by_collection(encoder=updates)

    def _px_z(self, variables: Variables, batch: Batch, outputs: Array, train: bool) -> tuple[Distribution, Variables]:
        """p(x|z) of outputs of the decoder, [samples, batch, ...], and the collections that it has changed."""
        own = of_part(variables, "likelihood")
        if not train:
            return self.likelihood(outputs, own, len(self.event_shape)), {}
        px_z, changed = self.likelihood.in_training(outputs, own, batch, len(self.event_shape))
        return px_z, by_collection(likelihood=changed)

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
            if condition is None:
                raise InputError(
                    f"the model is conditional, but no condition was given; expected [batch = {batch}, ...] of "
                    f"{self.condition_shape}"
                )
            found = jax.tree.map(jnp.shape, condition)
            if found != jax.tree.map(lambda leaf: (batch, *leaf.shape[1:]), expected):
                raise InputError(
                    f"the condition has shape {found}; expected [batch = {batch}, ...] of {self.condition_shape}"
                )
            for leaf in jax.tree.leaves(condition):
                require_finite_values("the condition", as_reals("the condition", leaf))
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


@jit
def _init_networks(model: Any, encoder_key: Array, decoder_key: Array) -> tuple[Variables, Variables]:
    """`model._init_networks` as one program, instead of one for each operation of each layer."""
    return model._init_networks(encoder_key, decoder_key)


def require_parts(**parts: Any) -> None:
    """Raise `InputError` if a likelihood or a prior is a class, or any part lacks the methods of its kind."""
    for name, given in parts.items():
        if isinstance(given, type) and (name != "posterior" or given is FlowPosterior):
            raise InputError(f"{name} is the class {given.__name__}; expected a value: {given.__name__}()")
        required = "output_shape" if name in ("likelihood", "posterior") else "init"
        if not hasattr(given, required):
            examples = {
                "likelihood": "vj.Bernoulli() or vj.Gaussian(0.1)",
                "prior": "vj.StandardNormal() or vj.VampPrior(500)",
                "posterior": "vj.DiagonalGaussian or vj.FlowPosterior(vj.Coupling())",
            }
            raise InputError(f"{name} is {given!r}; expected a {name}, such as {examples[name]}")


def require_networks(**networks: Any) -> None:
    """Raise `InputError` unless these are modules of Linen."""
    for name, network in networks.items():
        if not isinstance(network, nn.Module):
            expected = f"{network.__name__}(...)" if isinstance(network, type) else "such as nn.Dense(2)"
            raise InputError(f"{name} is {named(network)}; expected a module of Linen, {expected}")


def require_targets(batch: Batch) -> None:
    """Raise `InputError` unless there is one target for each example."""
    if len(batch.targets) != len(batch.x):
        raise InputError(
            f"the batch has {len(batch.x)} examples and {len(batch.targets)} targets; expected one for each"
        )


def require_by_layer(given: Any) -> None:
    """Raise `InputError` unless the latents that are given to `sample` are a mapping from names of layers, or None."""
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f'given is {named(given)}; expected the latents of each layer by its name, such as {{"z": z}}')


def require_classes(labels: Int[Any, " n"], classes: int) -> None:
    """Raise `InputError` unless each label is from 0 to `classes - 1`; traced labels are not checked."""
    if is_traced(labels) or not len(labels):
        return
    with jax.ensure_compile_time_eval():
        low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < classes:
        raise InputError(f"labels run from {low} to {high}; expected 0 to {classes - 1}, of {classes} classes")


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


def require_condition_shape(shape: Any) -> None:
    """Raise `InputError` unless this is a tuple of positive integers, or of pairs of names and such tuples."""

    def is_size(size: Any) -> bool:
        return isinstance(size, int) and not isinstance(size, bool) and size > 0

    def is_shape(shape: Any) -> bool:
        return isinstance(shape, tuple) and all(map(is_size, shape))

    def is_named(pair: Any) -> bool:
        return isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and is_shape(pair[1])

    if not is_shape(shape) and not (isinstance(shape, tuple) and all(map(is_named, shape))):
        raise InputError(
            f"condition_shape is {shape!r}; expected a tuple of sizes, such as (3,), or of pairs of names and such "
            'tuples, such as (("age", (1,)), ("mask", (28, 28, 1)))'
        )
    names = [pair[0] for pair in shape if isinstance(pair, tuple)]
    if len(set(names)) < len(names):
        raise InputError(f"condition_shape has the names {', '.join(names)}; expected each name once")


def require_transformed(x: Any) -> None:
    """Raise `InputError` if examples are bytes, to which no transform was applied; traced ones have a dtype too."""
    if getattr(x, "dtype", None) == np.uint8:
        raise InputError(
            "x is uint8; expected real numbers: apply a transform by vj.encode_all or vj.transform_all, or divide by "
            "255 as vj.Scale"
        )


def known_inputs(batch: Batch, event_shape: tuple[int, ...]) -> Array:
    """Inputs of the encoder, with 0 at missing entries.

    Raises:
      InputError: They are bytes or of another shape, concrete ones are NaN or infinite where they are observed, or
        there is another number of targets.
    """
    x, observed = batch.x, batch.observed
    require_transformed(x)
    require_targets(batch)
    if x.shape[1:] != event_shape:
        raise InputError(f"x has shape {x.shape}; expected [batch, {', '.join(map(str, event_shape))}]")
    if observed is not None and observed.shape != x.shape:
        raise InputError(f"observed has shape {observed.shape}; expected that of x, {x.shape}")
    with nullcontext() if is_traced((x, observed)) else jax.ensure_compile_time_eval():
        known = jnp.asarray(x) if observed is None else jnp.where(observed > 0, x, 0)
    require_finite_values("x", known, ": give missing entries by Batch.observed")
    return known


def require_shape(name: str, outputs: Any, expected: tuple[int, ...]) -> None:
    """Raise `InputError` unless the outputs of a network have the shape that the model expects."""
    if outputs.shape != expected:
        raise InputError(f"the {name} returns shape {outputs.shape} for a batch of 1; expected {expected}")
