"""Categorical likelihood of discrete levels, with a separate probability for each level."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from vae_jax.data.transforms import LEVELS, Support
from vae_jax.distributions.likelihoods.base import Likelihood, Variables, draw_like, probabilities, sum_over_event
from vae_jax.errors import InputError, require_positive_int
from vae_jax.values import shape_repr, value


@value
class Categorical(Likelihood):
    """Categorical likelihood of evenly spaced levels from 0 to 1, with a separate logit for each level.

    Attributes:
      levels: Number of levels; x = k / (levels - 1). Bytes after `Scale` have 256 levels.
    """

    levels: int = LEVELS

    def __post_init__(self) -> None:
        require_positive_int(levels=self.levels)
        if self.levels < 2:
            raise InputError(f"levels is {self.levels}; expected at least 2, such as {LEVELS} of bytes")

    @property
    def support(self) -> Support:  # type: ignore[override]
        """The evenly spaced levels from 0 to 1."""
        return Support(0.0, 1.0, self.levels)

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-probability in nats."""
        return "categorical negative log-likelihood"

    def output_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the decoder output of one example, [*event, levels]."""
        return (*event_shape, self.levels)

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "IndependentCategorical":
        """p(x|z) with the outputs as logits of the levels."""
        return IndependentCategorical(outputs, event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class IndependentCategorical:
    """Independent categorical entries on evenly spaced levels from 0 to 1.

    Attributes:
      logits: Logits of the levels, [*batch, *event, levels].
      event_ndim: Number of axes of an event.
    """

    logits: Float[Array, "..."]
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z], [*batch, *event]."""
        values = jnp.linspace(0, 1, self.logits.shape[-1], dtype=self.logits.dtype)
        return jnp.matmul(jax.nn.softmax(self.logits), values, precision="highest")

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum of the log-probabilities of the levels over the event, in nats."""
        levels = self.logits.shape[-1]

        def log_density(logits: Array, x: Array) -> Array:
            level = jnp.round(x * (levels - 1)).astype(jnp.int32)
            return jnp.take_along_axis(jax.nn.log_softmax(logits), level[..., None], axis=-1)[..., 0]

        support = Support(0.0, 1.0, levels)
        return sum_over_event(log_density, (self.logits,), x, support, self.event_ndim, observed, trailing=1)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One sample per example, [*batch, *event], with values on the levels."""
        level = draw_like(self.logits, key, self.event_ndim, jax.random.categorical, trailing=1)
        return level.astype(self.logits.dtype) / (self.logits.shape[-1] - 1)

    def pmf(self) -> Float[Array, "..."]:
        """Probability of each level, [*batch, *event, levels]."""
        return probabilities(self.logits)
