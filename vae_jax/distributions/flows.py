"""Normalising flows: invertible maps of latents with a known Jacobian determinant, and transformed distributions."""

from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key, PyTree

from vae_jax.distributions.base import Posterior, Variables, own_params
from vae_jax.distributions.gaussian import Delta, DiagonalGaussian, FullGaussian
from vae_jax.errors import InputError, named, require_positive, require_positive_int
from vae_jax.values import parameter, value


@runtime_checkable
class Flow(Protocol):
    """Invertible map f of R^latent: a value with pure methods, which accept the parameters as an argument."""

    def init(self, key: Key[Array, ""], latent_dim: int) -> PyTree:
        """Initial parameters."""

    def forward(
        self, params: PyTree, z: Float[Array, "*samples latent"]
    ) -> tuple[Float[Array, "*samples latent"], Float[Array, "*samples"]]:
        """f(z), [*samples, latent], and log |det df/dz|, [*samples]."""

    def inverse(
        self, params: PyTree, z: Float[Array, "*samples latent"]
    ) -> tuple[Float[Array, "*samples latent"], Float[Array, "*samples"]]:
        """f^-1(z), [*samples, latent], and log |det df^-1/dz|, [*samples]."""


def require_flow(flow: Any) -> None:
    """Raise `InputError` unless a value has the methods of a flow."""
    if isinstance(flow, type) or not isinstance(flow, Flow):
        raise InputError(f"flow is {named(flow)}; expected a flow, such as Coupling()")


class _Shift(nn.Module):
    """Network that returns a log-scale and a shift for each of `features` coordinates, both initially 0."""

    hidden: tuple[int, ...]
    features: int

    @nn.compact
    def __call__(self, h: Array) -> tuple[Array, Array]:
        for width in self.hidden:
            h = nn.relu(nn.Dense(width)(h))
        outputs = nn.Dense(2 * self.features, kernel_init=nn.initializers.zeros)(h)
        log_scale, shift = jnp.split(outputs, 2, axis=-1)
        return log_scale, shift


@value
class Coupling:
    """Affine coupling layers (RealNVP: Dinh et al., 2017).

    Each layer leaves one half of the coordinates unchanged. It maps each coordinate z of the other half to
    exp(s) * z + t; s and t are outputs of a network of the unchanged half. The halves swap roles in every second layer.
    After each pair of layers the coordinates are permuted, those with an even index first, so that the next pair splits
    them differently. The flow is initially the identity, up to these permutations.

    Attributes:
      layers: Number of coupling layers.
      hidden: Widths of the hidden layers of each network, with ReLU activations.
      bound: Greatest absolute value of s, which is replaced by bound * tanh(s / bound).
    """

    layers: int = 4
    hidden: tuple[int, ...] = (64, 64)
    bound: float | Float[Array, "..."] = parameter(default=2.0)

    def __post_init__(self) -> None:
        require_positive_int(layers=self.layers, **{f"hidden[{i}]": width for i, width in enumerate(self.hidden)})
        require_positive(bound=self.bound)

    def init(self, key: Key[Array, ""], latent_dim: int) -> PyTree:
        """Initial parameters, one tree per layer.

        Raises:
          InputError: There is a single latent dimension, which can't be split.
        """
        if latent_dim < 2:
            raise InputError(
                f"latent_dim is {latent_dim}; a coupling flow splits the dimensions, so it needs 2 or more"
            )
        keys = jax.random.split(key, self.layers)
        return {
            f"layer_{i}": self._network(latent_dim, i).init(keys[i], jnp.zeros(_kept(latent_dim, i)))["params"]
            for i in range(self.layers)
        }

    def forward(
        self, params: PyTree, z: Float[Array, "*samples latent"]
    ) -> tuple[Float[Array, "*samples latent"], Float[Array, "*samples"]]:
        """f(z), [*samples, latent], and log |det df/dz|, [*samples]."""
        log_det = jnp.zeros(z.shape[:-1], jnp.result_type(z))
        for i in range(self.layers):
            kept, changed = _split(z, i)
            log_scale, shift = self._coefficients(params, kept, z.shape[-1], i)
            z = _join(kept, jnp.exp(log_scale) * changed + shift, i)
            log_det += log_scale.sum(axis=-1)
        return z, log_det

    def inverse(
        self, params: PyTree, z: Float[Array, "*samples latent"]
    ) -> tuple[Float[Array, "*samples latent"], Float[Array, "*samples"]]:
        """f^-1(z), [*samples, latent], and log |det df^-1/dz|, [*samples]."""
        log_det = jnp.zeros(z.shape[:-1], jnp.result_type(z))
        for i in reversed(range(self.layers)):
            kept, changed = _split(_unjoined(z, i), i)
            log_scale, shift = self._coefficients(params, kept, z.shape[-1], i)
            z = _join_halves(kept, jnp.exp(-log_scale) * (changed - shift), i)
            log_det -= log_scale.sum(axis=-1)
        return z, log_det

    def _coefficients(self, params: PyTree, kept: Array, latent_dim: int, layer: int) -> tuple[Array, Array]:
        network = self._network(latent_dim, layer)
        log_scale, shift = cast(tuple[Array, Array], network.apply({"params": params[f"layer_{layer}"]}, kept))
        return self.bound * jnp.tanh(log_scale / self.bound), shift

    def _network(self, latent_dim: int, layer: int) -> _Shift:
        return _Shift(self.hidden, latent_dim - _kept(latent_dim, layer))


def _kept(latent_dim: int, layer: int) -> int:
    """Number of coordinates that a layer leaves unchanged: the first half, or in odd layers the second half."""
    return latent_dim // 2 if layer % 2 == 0 else latent_dim - latent_dim // 2


def _split(z: Array, layer: int) -> tuple[Array, Array]:
    """The coordinates that a layer leaves unchanged, and those that it changes."""
    first, second = jnp.split(z, [z.shape[-1] // 2], axis=-1)
    return (first, second) if layer % 2 == 0 else (second, first)


def _join_halves(kept: Array, changed: Array, layer: int) -> Array:
    return jnp.concatenate((kept, changed) if layer % 2 == 0 else (changed, kept), axis=-1)


def _join(kept: Array, changed: Array, layer: int) -> Array:
    """Both halves in one array, permuted for the next pair of layers after every second layer."""
    z = _join_halves(kept, changed, layer)
    return _reordered(z) if layer % 2 else z


def _unjoined(z: Array, layer: int) -> Array:
    return _original(z) if layer % 2 else z


def _reordered(z: Array) -> Array:
    """Coordinates with an even index first, then those with an odd index."""
    return jnp.concatenate([z[..., ::2], z[..., 1::2]], axis=-1)


def _original(z: Array) -> Array:
    """The inverse of `_reordered`."""
    order = jnp.argsort(_reordered(jnp.arange(z.shape[-1])))
    return z[..., order]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Transformed:
    """Distribution of f(e), where e has the base distribution; a posterior or a prior, depending on the base.

    Attributes:
      base: Distribution of e.
      flow: Invertible map f.
      params: Parameters of the flow.
    """

    base: Any
    flow: Any
    params: PyTree

    @property
    def mean(self) -> Array:
        """f at the mean of the base, [*batch, latent]: a point encoding, which differs from E[z|x] in general."""
        return self.flow.forward(self.params, jnp.asarray(self.base.mean))[0]

    @property
    def covariance_root(self) -> Array:
        """J L with the covariance J L L' J' of f linearised at the mean of the base, [*batch, latent, latent].

        J is the Jacobian of f, and L L' the covariance of the base.
        """
        mean = jnp.asarray(self.base.mean)
        flat = mean.reshape(-1, mean.shape[-1])
        jacobian = jax.vmap(jax.jacfwd(lambda e: self.flow.forward(self.params, e)[0]))(flat)
        if isinstance(self.base, FullGaussian):
            root = jacobian @ self.base.covariance_root.reshape(jacobian.shape)
        else:
            root = jacobian * jnp.sqrt(self.base.variance).reshape(-1, 1, mean.shape[-1])
        return root.reshape(*mean.shape, mean.shape[-1])

    @property
    def variance(self) -> Array:
        """Approximate variance by linearising f at the mean of the base, [*batch, latent]."""
        return jnp.sum(jnp.square(self.covariance_root), axis=-1)

    def sample(self, key: Key[Array, "*keys"], *arguments: Any, **options: Any) -> Float[Array, "*batch latent"]:
        """f of a sample from the base; the arguments are those of `base.sample`."""
        return self.flow.forward(self.params, self.base.sample(key, *arguments, **options))[0]

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """log p(f^-1(z)) + log |det df^-1/dz| in nats, with p the density of the base."""
        e, log_det = self.flow.inverse(self.params, z)
        return self.base.log_prob(e) + log_det


@value
class FlowPosterior:
    """Posterior whose samples are those of a Gaussian, transformed by a flow (Rezende and Mohamed, 2015).

    Attributes:
      flow: Flow, such as `Coupling()`; all examples share its parameters.
      base: Family of Gaussian posteriors to which the flow is applied.

    Raises:
      InputError: `flow` is not a flow, or `base` is `Delta`, which has no density.
    """

    flow: Flow = parameter()
    base: type[DiagonalGaussian] | type[FullGaussian] = DiagonalGaussian

    def __post_init__(self) -> None:
        require_flow(self.flow)
        if self.base is Delta:
            raise InputError("base is Delta; expected vj.DiagonalGaussian or vj.FullGaussian, which have densities")

    def output_shape(self, latent_dim: int) -> tuple[int, int]:
        """Shape of the encoder output of one example, which is that of the base."""
        return self.base.output_shape(latent_dim)

    def init(self, key: Key[Array, ""], latent_dim: int) -> Variables:
        """{"params": parameters of the flow}."""
        return {"params": self.flow.init(key, latent_dim)}

    def from_network(self, outputs: Float[Array, "*batch rows latent"], variables: Variables) -> Posterior:
        """The base posterior of the encoder outputs, transformed by the flow."""
        return self.transformed(self.base.from_network(outputs), variables)

    def transformed(self, base: Any, variables: Variables) -> Transformed:
        """The posterior with this base, transformed by the flow."""
        return Transformed(base, self.flow, own_params(self, variables))
