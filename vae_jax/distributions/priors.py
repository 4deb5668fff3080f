"""Priors p(z) as values with separate variables.

`init(key, latent_dim, event_shape, data)` of a prior returns its initial variables.
`prior(variables, latent_dim, encode)` returns p(z), where `encode` maps inputs to q(z|x) with the current variables of
the model.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped

from vae_jax.distributions.base import LOG_VARIANCE_BOUND, Posterior, Prior, Variables, own_params, soft_clip
from vae_jax.distributions.flows import Flow, Transformed, require_flow
from vae_jax.distributions.gaussian import DiagonalGaussian
from vae_jax.distributions.mixture import FullGaussianMixtureDistribution, GaussianMixtureDistribution
from vae_jax.distributions.standard import UnitGaussian
from vae_jax.errors import InputError, is_traced, named, require_positive, require_positive_int
from vae_jax.values import parameter, value

Encode = Callable[[Float[Array, "n ..."]], Posterior]
Examples = Shaped[Any, "n ..."] | None


@value
class StandardNormal:
    """Standard normal prior N(0, I), which has no variables."""

    def init(self, key: Key[Array, ""], latent_dim: int, event_shape: tuple[int, ...], data: Examples) -> Variables:
        """An empty dict: this prior has no variables."""
        return {}

    def __call__(self, variables: Variables, latent_dim: int, encode: Encode) -> Prior:
        """The distribution N(0, I) in `latent_dim` dimensions."""
        return UnitGaussian(latent_dim)


@value
class _MixtureOfGaussians:
    """Base class of the mixture priors: number of components and initial means.

    Attributes:
      components: Number of Gaussians.
      spread: Standard deviation of the initial means.
    """

    components: int = 10
    spread: float | Float[Array, "..."] = parameter(default=1.0)

    def __post_init__(self) -> None:
        require_positive_int(components=self.components)
        require_positive(spread=self.spread)

    def _own(self, variables: Variables, *others: str) -> Any:
        """The parameters; `InputError` if they are those of another prior, or of another number of components."""
        params = own_params(self, variables, "means", "log_variances", "logits", *others)
        require_components(self.components, len(params["means"]))
        return params

    def _init(self, key: Key[Array, ""], latent_dim: int) -> dict[str, Array]:
        """Means sampled from N(0, spread^2), variances of 1, and equal weights, in the type of Linen's parameters."""
        shape = (self.components, latent_dim)
        means = jnp.asarray(self.spread, jnp.float32) * jax.random.normal(key, shape, jnp.float32)
        others = {"log_variances": jnp.zeros_like(means), "logits": jnp.zeros(self.components, jnp.float32)}
        return {"means": means} | others


def require_components(expected: int, found: int) -> None:
    """Raise `InputError` unless a mixture has the expected number of components."""
    if found != expected:
        raise InputError(f"the variables have {found} components, and the prior {expected}; expected the same")


@value
class GaussianMixture(_MixtureOfGaussians):
    """Mixture of diagonal Gaussians with learned means, variances and weights.

    Attributes:
      components: Number of Gaussians.
      spread: Standard deviation of the initial means.
    """

    def init(self, key: Key[Array, ""], latent_dim: int, event_shape: tuple[int, ...], data: Examples) -> Variables:
        """Initial variables: means sampled from N(0, spread^2), variances of 1, and equal weights."""
        return {"params": self._init(key, latent_dim)}

    def __call__(self, variables: Variables, latent_dim: int, encode: Encode) -> Prior:
        """The mixture of these variables; log-variances are soft-clipped beyond -20 and 20 (at most -21 and 21)."""
        of = self._own(variables)
        log_variances = soft_clip(of["log_variances"], -LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND)
        return GaussianMixtureDistribution(of["means"], log_variances, of["logits"])


@value
class FullGaussianMixture(_MixtureOfGaussians):
    """Mixture of Gaussians with full covariances; means, covariances and weights are learned.

    Attributes:
      components: Number of Gaussians.
      spread: Standard deviation of the initial means.
    """

    def init(self, key: Key[Array, ""], latent_dim: int, event_shape: tuple[int, ...], data: Examples) -> Variables:
        """Initial variables: those of `GaussianMixture`, and coefficients of 0, so that the covariances are I."""
        coefficients = jnp.zeros((self.components, latent_dim, latent_dim), jnp.float32)
        return {"params": self._init(key, latent_dim) | {"coefficients": coefficients}}

    @staticmethod
    def variables(means: Any, covariances: Any, weights: Any) -> Variables:
        """The variables of a given mixture.

        Args:
          means: Means of the components, [components, latent].
          covariances: Covariance matrices, [components, latent, latent].
          weights: Weights, [components].

        Raises:
          InputError: The shapes do not fit each other, a number is not finite, a covariance is not symmetric or not
            positive definite, or a weight is not positive.
        """
        means, covariances, weights = map(np.asarray, (means, covariances, weights))
        if means.ndim != 2 or covariances.shape != (*means.shape, means.shape[1]) or weights.shape != means.shape[:1]:
            raise InputError(
                f"means, covariances and weights have shapes {means.shape}, {covariances.shape} and {weights.shape}; "
                "expected [components, latent], [components, latent, latent] and [components]"
            )
        require_positive(weights=weights)
        if not (np.isfinite(means).all() and np.isfinite(covariances).all()):
            raise InputError("means or covariances hold NaN or infinite values; expected finite numbers")
        if not _are_symmetric(covariances):
            raise InputError("a covariance is not symmetric; expected (c + c.T) / 2 of an estimate c")
        try:
            cholesky = np.linalg.cholesky(covariances)
        except np.linalg.LinAlgError as error:
            raise InputError("a covariance is not positive definite; add a small number to its diagonal") from error
        deviations = np.diagonal(cholesky, axis1=1, axis2=2)
        params = {
            "means": means,
            "log_variances": 2 * np.log(deviations),
            "coefficients": deviations[..., None] * np.linalg.inv(cholesky),
            "logits": np.log(weights),
        }
        return {"params": {name: jnp.asarray(array, jnp.result_type(float)) for name, array in params.items()}}

    def __call__(self, variables: Variables, latent_dim: int, encode: Encode) -> Prior:
        """The mixture of these variables; log-variances are soft-clipped beyond -20 and 20 (at most -21 and 21)."""
        of = self._own(variables, "coefficients")
        log_variances = soft_clip(of["log_variances"], -LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND)
        return FullGaussianMixtureDistribution(of["means"], log_variances, of["coefficients"], of["logits"])


def _are_symmetric(covariances: Float[np.ndarray, "components latent latent"]) -> bool:
    """Whether matrices are symmetric up to rounding, 1e-4 of the standard deviations of a row and a column."""
    deviations = np.sqrt(np.abs(np.diagonal(covariances, axis1=1, axis2=2)))
    tolerance = 1e-4 * deviations[:, :, None] * deviations[:, None]
    return bool(np.all(np.abs(covariances - np.swapaxes(covariances, 1, 2)) <= tolerance))


@value
class VampPrior:
    """Mixture, with equal weights, of the posteriors of learned pseudo-inputs u_k (Tomczak and Welling, 2018).

    The pseudo-inputs are initialised with training examples and trained together with the networks.

    Attributes:
      components: Number of pseudo-inputs, K.
    """

    components: int = 500

    def __post_init__(self) -> None:
        require_positive_int(components=self.components)

    def init(self, key: Key[Array, ""], latent_dim: int, event_shape: tuple[int, ...], data: Examples) -> Variables:
        """Initial pseudo-inputs: training examples, sampled without replacement if there are enough.

        Raises:
          InputError: There are no examples, their shape is not the event shape of the model, they are integers, such as
            bytes, or some of them are not finite.
        """
        if data is None:
            raise InputError("a VampPrior starts from training examples; give some: vae.init(key, data=x)")
        if not hasattr(data, "shape") or not hasattr(data, "dtype"):
            raise InputError(
                f"data is {named(data)}; expected an array of examples after the transform, such as "
                "vj.transform_all(key, data.train)"
            )
        if data.shape[1:] != event_shape or len(data) == 0:
            raise InputError(f"data has shape {data.shape}; expected one example or more of {event_shape}")
        if not jnp.issubdtype(data.dtype, jnp.floating):
            raise InputError(f"data has dtype {data.dtype}; expected floats, as transform_all makes them of bytes")
        if not is_traced(data) and not np.isfinite(data).all():
            raise InputError("data holds NaN or infinite values; expected finite numbers, as transform_all makes them")
        rows = jax.random.choice(key, len(data), (self.components,), replace=len(data) < self.components)
        return {"params": {"pseudo_inputs": jnp.asarray(data)[rows]}}

    def __call__(self, variables: Variables, latent_dim: int, encode: Encode) -> Prior:
        """The mixture 1/K sum_k q(z|u_k).

        Raises:
          InputError: The posterior is not a `DiagonalGaussian`, or the variables are those of another prior.
        """
        pseudo_inputs = own_params(self, variables, "pseudo_inputs")["pseudo_inputs"]
        require_components(self.components, len(pseudo_inputs))
        posterior = encode(pseudo_inputs)
        if not isinstance(posterior, DiagonalGaussian):
            raise InputError(f"a VampPrior mixes diagonal Gaussians, but the posterior is a {type(posterior).__name__}")
        mean, log_variance = jnp.asarray(posterior.mean), jnp.asarray(posterior.log_variance)
        return GaussianMixtureDistribution(mean, log_variance, jnp.zeros(self.components, mean.dtype))


@value
class FlowPrior:
    """N(0, I) transformed by a flow.

    Attributes:
      flow: Flow, such as `Coupling()`.

    Raises:
      InputError: `flow` is not a flow.
    """

    flow: Flow = parameter()

    def __post_init__(self) -> None:
        require_flow(self.flow)

    def init(self, key: Key[Array, ""], latent_dim: int, event_shape: tuple[int, ...], data: Examples) -> Variables:
        """{"params": parameters of the flow}."""
        return {"params": self.flow.init(key, latent_dim)}

    def __call__(self, variables: Variables, latent_dim: int, encode: Encode) -> Prior:
        """N(0, I) in `latent_dim` dimensions, transformed by the flow."""
        return Transformed(UnitGaussian(latent_dim), self.flow, own_params(self, variables))
