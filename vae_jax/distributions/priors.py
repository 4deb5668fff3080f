"""Priors p(z) as values, each with its own variables.

A prior makes its variables by `init(key, latent_dim, event_shape, data)` and a distribution of them by
`prior(variables, latent_dim, encode)`, where `encode` maps inputs to q(z|x) with the present variables of the model.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from vae_jax.distributions.base import LOG_VARIANCE_BOUND, Posterior, Prior, soft_clip
from vae_jax.distributions.flows import Flow, Transformed
from vae_jax.distributions.gaussian import DiagonalGaussian, Variables
from vae_jax.distributions.mixture import GaussianMixtureDistribution
from vae_jax.distributions.standard import UnitGaussian
from vae_jax.errors import InputError, require_positive, require_positive_int
from vae_jax.values import parameter, value

Encode = Callable[[Float[Array, "n ..."]], Posterior]
Examples = Shaped[Any, "n ..."] | None


@value
class StandardNormal:
    """N(0, I), without variables."""

    def init(self, key: Key[Array, ""], latent_dim: int, event_shape: tuple[int, ...], data: Examples) -> Variables:
        """No variables."""
        return {}

    def __call__(self, variables: Variables, latent_dim: int, encode: Encode) -> Prior:
        """N(0, I)."""
        return UnitGaussian(latent_dim)


@value
class GaussianMixture:
    """A mixture of diagonal Gaussians whose means, variances and weights are learned.

    Attributes:
      components: number of Gaussians.
      spread: standard deviation of the means to begin with.
    """

    components: int = 10
    spread: float | Float[Array, "..."] = parameter(default=1.0)

    def __post_init__(self) -> None:
        require_positive_int(components=self.components)
        require_positive(spread=self.spread)

    def init(self, key: Key[Array, ""], latent_dim: int, event_shape: tuple[int, ...], data: Examples) -> Variables:
        """Means drawn from N(0, spread^2), variances 1, equal weights."""
        shape = (self.components, latent_dim)
        means = self.spread * jax.random.normal(key, shape)
        return {"params": {"means": means, "log_variances": jnp.zeros(shape), "logits": jnp.zeros(self.components)}}

    def __call__(self, variables: Variables, latent_dim: int, encode: Encode) -> Prior:
        """The mixture; log-variances are soft-clipped as a posterior's are."""
        of = variables["params"]
        log_variances = soft_clip(of["log_variances"], -LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND)
        return GaussianMixtureDistribution(of["means"], log_variances, of["logits"])


@value
class VampPrior:
    """The mixture of the posteriors of learned pseudo-inputs, of equal weights (Tomczak and Welling, 2018).

    The pseudo-inputs are trained with the networks. They start from training examples.

    Attributes:
      components: number of pseudo-inputs.
    """

    components: int = 500

    def __post_init__(self) -> None:
        require_positive_int(components=self.components)

    def init(self, key: Key[Array, ""], latent_dim: int, event_shape: tuple[int, ...], data: Examples) -> Variables:
        """Training examples, drawn without replacement where there are enough of them.

        Raises:
          InputError: no examples, or some of another shape than the model's event, or whole numbers such as bytes.
        """
        if data is None:
            raise InputError("a VampPrior starts from training examples; give some: vae.init(key, data=x)")
        if data.shape[1:] != event_shape or len(data) == 0:
            raise InputError(f"data has shape {data.shape}; expected one example or more of {event_shape}")
        if not jnp.issubdtype(data.dtype, jnp.floating):
            raise InputError(f"data has dtype {data.dtype}; expected floats, as transform_all makes them of bytes")
        rows = jax.random.choice(key, len(data), (self.components,), replace=len(data) < self.components)
        return {"params": {"pseudo_inputs": jnp.asarray(data)[rows]}}

    def __call__(self, variables: Variables, latent_dim: int, encode: Encode) -> Prior:
        """1/K sum of q(z|u_k).

        Raises:
          InputError: the posterior isn't a diagonal Gaussian.
        """
        posterior = encode(variables["params"]["pseudo_inputs"])
        if not isinstance(posterior, DiagonalGaussian):
            raise InputError(f"a VampPrior mixes diagonal Gaussians, but the posterior is a {type(posterior).__name__}")
        mean, log_variance = jnp.asarray(posterior.mean), jnp.asarray(posterior.log_variance)
        return GaussianMixtureDistribution(mean, log_variance, jnp.zeros(self.components))


@value
class FlowPrior:
    """A flow of N(0, I).

    Attributes:
      flow: such as `Coupling()`.
    """

    flow: Flow = parameter()

    def init(self, key: Key[Array, ""], latent_dim: int, event_shape: tuple[int, ...], data: Examples) -> Variables:
        """{"params": the flow's}."""
        return {"params": self.flow.init(key, latent_dim)}

    def __call__(self, variables: Variables, latent_dim: int, encode: Encode) -> Prior:
        """The distribution of the flow's outputs."""
        return Transformed(UnitGaussian(latent_dim), self.flow, variables["params"])
