"""What a latent-variable model is: the methods by which objectives, evaluation and scripts use it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from vae_jax.data import Split
from vae_jax.data.transforms import Batch, Transform
from vae_jax.distributions.likelihoods import Distribution, Likelihood
from vae_jax.networks import identity
from vae_jax.values import shape_repr

Variables = dict[str, Any]
"""By collection; "params" is what the optimizer trains."""

ONE_DRAW = np.arange(1, dtype=np.int32)  # of NumPy: importing the library starts no backend of JAX


def merged(one: Variables, other: Variables) -> Variables:
    """Two trees of dictionaries as one; where both have a leaf, that of the second."""
    both = dict(one)
    for name, content in other.items():
        both[name] = merged(both[name], content) if isinstance(both.get(name), dict) else content
    return both


@shape_repr
class Terms(NamedTuple):
    """The terms of the bound at S draws of the latents for each of B examples, in nats.

    A unit is a latent dimension where posterior and prior factorise over the dimensions, else the whole layer.

    Attributes:
      log_px_z: log p(x|z) of the batch's targets.
      log_ratio: log q(z|x) - log p(z) at the draws, by layer and unit; empty for a posterior without a density.
      kl: the divergence of q(z|x) from p(z), by layer and unit: in closed form where there is one, else `log_ratio`.
      z: the draws, by layer, [S, B, ...].
      px_z: p(x|z).
      updates: collections of variables that the pass has changed, such as batch statistics.
    """

    log_px_z: Float[Array, "samples batch"]
    log_ratio: dict[str, Float[Array, "samples batch units"]]
    kl: dict[str, Float[Array, "samples batch units"]]
    z: dict[str, Float[Array, "samples batch ..."]]
    px_z: Distribution
    updates: Variables


@shape_repr
class Draws(NamedTuple):
    """Latents by layer, [count, ...], and p(x|z) of them."""

    z: dict[str, Float[Array, "count ..."]]
    px_z: Distribution


@runtime_checkable
class LatentVariableModel(Protocol):
    """A model of x by latents z. Its methods are pure functions."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""

    @property
    def likelihood(self) -> Likelihood:
        """Builds p(x|z)."""

    def init(self, key: Key[Array, ""], data: Shaped[Any, "n ..."] | None = None) -> Variables:
        """Fresh variables; `data` are training examples, where something starts from them."""

    def require_data(self, data: Split, transform: Transform) -> None:
        """Raise `InputError` unless the model takes the examples of a split as `transform` makes them."""

    def code(self, variables: Variables, batch: Batch, train: bool = False, key: Any = None) -> Any:
        """What the draws of a batch are made from, such as q(z|x): computed once, however many draws follow."""

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
        """The terms of the bound.

        Args:
          key: one key, or one per example.
          variables: of this model.
          batch: the examples.
          draws: numbers of the draws; draw number s of an example depends on its key and s alone.
          code: of this batch, if it is known.
          train: whether batch statistics are those of this batch, and updated, and dropout is active.
          through: what the latents go through before they are used, for an objective that changes their gradient.
          freeze_posterior: whether the densities of q(z|x) have no gradient by its parameters (Roeder et al., 2017).
        """

    def sample(
        self,
        key: Key[Array, ""],
        variables: Variables,
        count: int,
        condition: Any = None,
        temperature: float | Float[Array, ""] = 1.0,
        given: Mapping[str, Array] | None = None,
    ) -> Draws:
        """Draws from the model.

        Args:
          key: of the latents.
          variables: of this model.
          count: number of draws.
          condition: of each draw, if the model is conditional.
          temperature: factor of the standard deviations of the latents' Gaussian noise.
          given: layers that are fixed; the others are drawn.
        """
