"""What the model sees: values that turn stored bytes into a `Batch`, inside the compiled program."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped, UInt8, UInt32

from vae_jax.errors import InputError

Keys = Key[Array, " batch"]
LEVELS = 256  # of a byte


@dataclass(frozen=True)
class Support:
    """The values that a pixel can have: all from `low` to `high`, or `levels` of them, evenly spaced, ends included."""

    low: float
    high: float
    levels: int | None = None

    def __str__(self) -> str:
        """In words."""
        return f"{f'{self.levels} levels' if self.levels else 'values'} from {self.low:g} to {self.high:g}"

    def holds(self, other: "Support") -> bool:
        """Whether each value of the other one is a value of this one."""
        if not self.low <= other.low <= other.high <= self.high:
            return False
        if self.levels is None:
            return True
        if other.levels is None:
            return False
        spacing = (self.high - self.low) / (self.levels - 1)
        places = [(other.low - self.low) / spacing, (other.high - other.low) / (other.levels - 1) / spacing]
        return all(abs(place - round(place)) < 1e-6 for place in places)


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
    def support(self) -> Support:
        """The values there can be."""

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
    def support(self) -> Support:
        """256 levels from `low` to `high`."""
        return Support(self.low, self.high, LEVELS)

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


@dataclass(frozen=True)
class Binarize:
    """Dynamic binarisation: each pixel 1 with the probability byte / 255, drawn anew each time (Burda et al., 2016)."""

    support: ClassVar[Support] = Support(0.0, 1.0, 2)
    label: ClassVar[str] = "dynamically binarised"

    def __call__(
        self,
        keys: Keys,
        images: UInt8[Array, "batch height width channels"],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x ~ Bernoulli(byte / 255), a new draw for each key."""
        return Batch(_binary(keys, images), label=labels)


@dataclass(frozen=True)
class StaticBinarize:
    """Static binarisation: one draw for each image, the same in every epoch, split and run.

    The draw follows from `seed` and the image's own bytes, so it needs no copy of the data and does not depend on where
    the image stands; equal images are binarised alike. `vae_jax.evaluate.observe_all` gives the result for a digest.

    It is no data set of the literature: Larochelle's binarisation is another draw.
    """

    seed: int = 0

    support: ClassVar[Support] = Binarize.support

    @property
    def label(self) -> str:
        """With its seed."""
        return f"statically binarised (seed {self.seed})"

    def __call__(
        self,
        keys: Keys,
        images: UInt8[Array, "batch height width channels"],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x ~ Bernoulli(byte / 255), drawn with the image's own key; `keys` have no influence."""
        own = jax.vmap(partial(jax.random.fold_in, jax.random.key(self.seed)))(_fingerprint(images))
        return Batch(_binary(own, images), label=labels)


@dataclass(frozen=True)
class Dequantize:
    """Uniform dequantisation: bytes with noise, spread over [0, 1), so that a density of them is a likelihood.

    The density then is at most the probability of the byte itself, in expectation (Theis et al., 2016, section 3.1).
    """

    support: ClassVar[Support] = Support(0.0, 1.0)
    label: ClassVar[str] = "dequantised"

    def __call__(
        self,
        keys: Keys,
        images: UInt8[Array, "batch height width channels"],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x = (byte + u) / 256, u uniform on [0, 1)."""
        noise = jax.vmap(lambda key, image: jax.random.uniform(key, image.shape, jnp.float32))(keys, images)
        return Batch((images.astype(jnp.float32) + noise) / LEVELS, label=labels)


@dataclass(frozen=True)
class Mirrored:
    """Each image as it is or mirrored, left to right, with equal chance each time: for training on faces and the like.

    Attributes:
      observe: what is observed of the image that results.
    """

    observe: Observe = Scale()

    @property
    def support(self) -> Support:
        """That of `observe`."""
        return self.observe.support

    @property
    def label(self) -> str:
        """That of `observe`, and the word."""
        return f"{self.observe.label}, mirrored at random"

    def __call__(
        self,
        keys: Keys,
        images: UInt8[Array, "batch height width channels"],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """Mirror, then observe."""
        mirror_keys, keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, stream) for stream in range(2))
        mirrored = jax.vmap(partial(jax.random.bernoulli, p=jnp.float32(0.5)))(mirror_keys)
        return self.observe(keys, jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images), labels)


def _binary(keys: Keys, images: UInt8[Array, "batch height width channels"]) -> Float[Array, "batch h w c"]:
    def draw(key: Array, image: Array) -> Array:
        return jax.random.bernoulli(key, image.astype(jnp.float32) / (LEVELS - 1), image.shape)

    return jax.vmap(draw)(keys, images).astype(jnp.float32)


def _fingerprint(images: UInt8[Array, "batch height width channels"]) -> UInt32[Array, " batch"]:
    """A number for each image, from all of its bytes: a polynomial in an odd number, modulo 2**32."""
    flat = images.reshape(len(images), -1).astype(jnp.uint32) + 1
    powers = jnp.cumprod(jnp.full(flat.shape[1], 0x9E3779B1, jnp.uint32), dtype=jnp.uint32)
    return jnp.sum(flat * powers[None], axis=1, dtype=jnp.uint32)
