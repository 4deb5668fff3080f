"""Protocol of latent-variable models: the methods that objectives, evaluation and scripts call."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from vae_jax.data import Split
from vae_jax.data.arrays import as_array
from vae_jax.data.transforms import Batch, Transform
from vae_jax.distributions.base import Variables
from vae_jax.distributions.likelihoods import Distribution, Likelihood
from vae_jax.errors import InputError
from vae_jax.networks import identity
from vae_jax.values import shape_repr

ONE_DRAW = np.arange(1, dtype=np.int32)  # of NumPy, so that importing the library initialises no backend of JAX


def merged(one: Variables, other: Variables) -> Variables:
    """Merge two trees of dictionaries; where both have a leaf, the result has that of `other`."""
    both = dict(one)
    for name, content in other.items():
        both[name] = merged(both[name], content) if isinstance(both.get(name), dict) else content
    return both


@shape_repr
class Terms(NamedTuple):
    """Terms of the bound at S samples of the latents for each of B examples, in nats.

    A unit is a latent dimension if posterior and prior factorise over the dimensions, and otherwise the whole layer.

    Attributes:
      log_px_z: log p(x|z) of the targets of the batch, [S, B].
      log_ratio: log q(z|x) - log p(z) at the samples, by layer, [S, B, units]; empty if the posterior has no density.
      kl: KL(q(z|x) || p(z)) by layer, [S, B, units]: in closed form if there is one, and otherwise `log_ratio`.
      z: Samples of the latents by layer, [S, B, ...].
      px_z: Distribution p(x|z).
      updates: Collections of variables that the forward pass has changed, such as batch statistics.
    """

    log_px_z: Float[Array, "samples batch"]
    log_ratio: dict[str, Float[Array, "samples batch units"]]
    kl: dict[str, Float[Array, "samples batch units"]]
    z: dict[str, Float[Array, "samples batch ..."]]
    px_z: Distribution
    updates: Variables


@shape_repr
class Draws(NamedTuple):
    """Samples of a model.

    Attributes:
      z: Latents by layer, [count, ...].
      px_z: Distribution p(x|z) of each latent.
    """

    z: dict[str, Float[Array, "count ..."]]
    px_z: Distribution


@runtime_checkable
class LatentVariableModel(Protocol):
    """A model of x with latents z, whose methods are pure functions."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example, without the batch axis."""

    @property
    def likelihood(self) -> Likelihood:
        """Likelihood, which builds p(x|z) from the outputs of the decoder."""

    def init(self, key: Key[Array, ""], data: Shaped[Any, "n ..."] | None = None) -> Variables:
        """Initial variables; `data` are training examples [n, *event], from which some priors are initialised."""

    def require_data(self, data: Split, transform: Transform) -> None:
        """Raise `InputError` unless the model accepts the examples of a split after `transform`."""

    def code(self, variables: Variables, batch: Batch, train: bool = False, key: Any = None) -> Any:
        """Parameters of the latents of a batch, such as q(z|x), which are computed once for any number of samples."""

    def terms(
        self,
        key: Key[Array, "*keys"],
        variables: Variables,
        batch: Batch,
        draws: Int[Array | np.ndarray, " samples"] = ONE_DRAW,
        *,
        code: Any = None,
        train: bool = False,
        through: Callable[[Array], Array] = identity,
        freeze_posterior: bool = False,
    ) -> Terms:
        """Terms of the bound on log p(x), in nats.

        Args:
          key: One key, or one per example.
          variables: Variables of the model.
          batch: Batch of examples.
          draws: Numbers of the samples; sample number s of an example depends only on its key and s.
          code: Result of `code` of this batch, if it has been computed.
          train: Whether the batch statistics of this batch are used and updated, and dropout is active.
          through: Function applied to the latents before they are decoded, by which an objective changes their
            gradient.
          freeze_posterior: Whether the gradient of the density of q(z|x) with respect to its parameters is stopped
            (Roeder et al., 2017).
        """

    def sample(
        self,
        key: Key[Array, ""],
        variables: Variables,
        count: int,
        condition: Any = None,
        temperature: float | Float[Array, ""] = 1.0,
        given: Mapping[str, Any] | None = None,
    ) -> Draws:
        """Sample latents from the model.

        Args:
          key: Key of the latents.
          variables: Variables of the model.
          count: Number of samples.
          condition: Condition of each sample, if the model is conditional.
          temperature: Factor of the standard deviations of the latents' Gaussian noise.
          given: Latents of the layers that are fixed; the other layers are sampled.

        Returns:
          The latents of each layer and p(x|z).
        """


def as_condition(model: Any, condition: PyTree) -> PyTree:
    """The condition; labels of a model made with `classes` are converted to an array.

    Raises:
      InputError: The labels are not whole numbers.
    """
    if condition is None or getattr(model, "classes", None) is None:
        return condition
    remedy = "np.unique(labels, return_inverse=True)[1] numbers the classes"
    labels = condition if isinstance(condition, jax.Array) else as_array("labels", condition, remedy)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(f"labels have dtype {labels.dtype}; expected class numbers from 0: {remedy}")
    return labels
