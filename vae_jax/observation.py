"""What the model sees: values that turn stored bytes into a `Batch`, inside the compiled program."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped, UInt8

from vae_jax.errors import InputError

Keys = Key[Array, " batch"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """One batch of examples; an absent part is None and no leaf of the tree.

    Attributes:
      x: what the encoder sees.
      target: what the decoder has to explain, where it isn't `x` itself (a denoiser's clean image).
      label: class numbers.
      mask: weight of each example in the mean, 0 for padding.
    """

    x: Float[Array, "*batch height width channels"]
    target: Float[Array, "*batch height width channels"] | None = None
    label: Int[Array, "*batch"] | None = None
    mask: Shaped[Array, "*batch"] | None = None

    @property
    def targets(self) -> Float[Array, "*batch height width channels"]:
        """`target`, or `x` where there is none."""
        return self.x if self.target is None else self.target


@runtime_checkable
class Observe(Protocol):
    """How bytes become what the model sees. `label` says it in every title and beside every number."""

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value there can be."""

    @property
    def label(self) -> str:
        """A word or two: "grey"."""

    def __call__(
        self,
        keys: Keys,
        images: UInt8[Array, "batch height width channels"],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """Observe images, each with its own key where there is chance in it."""


@dataclass(frozen=True)
class Scale:
    """Grey values: bytes from 0 to 255 brought to the range from `low` to `high`."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"Scale({self.low}, {self.high}) is no range; expected low < high")

    @property
    def range(self) -> tuple[float, float]:
        """`low` and `high`."""
        return self.low, self.high

    @property
    def label(self) -> str:
        """The range, unless it is from 0 to 1."""
        return "grey" if (self.low, self.high) == (0.0, 1.0) else f"grey in [{self.low:g}, {self.high:g}]"

    def __call__(
        self,
        keys: Keys,
        images: UInt8[Array, "batch height width channels"],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x = low + (high - low) * byte / 255."""
        x = images.astype(jnp.float32) * ((self.high - self.low) / 255.0) + self.low
        return Batch(x, label=labels)
