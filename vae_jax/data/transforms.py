"""What the model sees: values that turn stored arrays into a `Batch`, inside the compiled program."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped, UInt32

from vae_jax.data.dataset import Dataset, Split, as_examples
from vae_jax.errors import InputError
from vae_jax.values import shape_repr, value

Keys = Key[Array, " batch"]
LEVELS = 256  # of a byte


@dataclass(frozen=True)
class Support:
    """The values that an entry of an event, such as a pixel, can have.

    Attributes:
      low: the least.
      high: the greatest; may be infinite.
      levels: if given, how many values there are, evenly spaced, ends included; otherwise all from `low` to `high`.
      whole: whether they are the numbers low, low + 1, ... (counts), up to `high`.
    """

    low: float
    high: float
    levels: int | None = None
    whole: bool = False

    def __str__(self) -> str:
        """In words."""
        kind = "whole numbers" if self.whole else f"{self.levels} levels" if self.levels else "values"
        return f"{kind} from {self.low:g} to {self.high:g}"

    @property
    def discrete(self) -> bool:
        """Whether the values are evenly spaced rather than all of an interval."""
        return self.whole or self.levels is not None

    @property
    def spacing(self) -> float:
        """Between neighbouring values; 0 if all of an interval are values."""
        if self.whole:
            return 1.0
        return 0.0 if self.levels is None else (self.high - self.low) / (self.levels - 1)

    def holds(self, other: "Support") -> bool:
        """Whether each value of the other one is a value of this one."""
        if not self.low <= other.low <= other.high <= self.high:
            return False
        if not self.discrete:
            return True
        if not other.discrete:
            return False
        places = [(other.low - self.low) / self.spacing, other.spacing / self.spacing]
        return all(abs(place - round(place)) < 1e-6 for place in places)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """One batch of examples; an absent part is None and no leaf of the tree.

    Attributes:
      x: what the encoder sees, [batch, *event].
      target: what the decoder has to explain, where it isn't `x` itself (a denoiser's clean image).
      label: class numbers; the condition of a model made with `classes`.
      mask: weight of each example in the mean, 0 for padding.
      condition: what else the model is conditional on, an array [batch, ...] or a tree of them.
      observed: which entries of the events are known, [batch, *event]; the others add nothing to log p(x|z).
    """

    x: Float[Any, "..."]
    target: Float[Any, "..."] | None = None
    label: Int[Any, "..."] | None = None
    mask: Shaped[Any, "..."] | None = None
    condition: PyTree = None
    observed: Shaped[Any, "..."] | None = None

    @property
    def targets(self) -> Float[Any, "..."]:
        """`target`, or `x` where there is none."""
        return self.x if self.target is None else self.target


@runtime_checkable
class Transform(Protocol):
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
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """Transform images, each with its own key where there is chance in it."""


@value
class Scale:
    """Grey values: bytes from 0 to 255 scaled to the range from `low` to `high`."""

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
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x = low + (high - low) * byte / 255."""
        x = images.astype(jnp.float32) * ((self.high - self.low) / 255.0) + self.low
        return Batch(x, label=labels)


@value
class Binarize:
    """Dynamic binarisation: each pixel 1 with the probability byte / 255, drawn anew each time (Burda et al., 2016)."""

    support: ClassVar[Support] = Support(0.0, 1.0, 2)
    label: ClassVar[str] = "dynamically binarised"

    def __call__(
        self,
        keys: Keys,
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x ~ Bernoulli(byte / 255), a new draw for each key."""
        return Batch(_binary(keys, images), label=labels)


@value
class StaticBinarize:
    """Static binarisation: one draw for each image, the same in every epoch, split and run.

    The draw follows from `seed` and the image's own bytes, so it needs no copy of the data and does not depend on where
    the image stands; equal images are binarised alike. `vae_jax.transform_all` gives the result for a digest.

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
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x ~ Bernoulli(byte / 255), drawn with the image's own key; `keys` have no influence."""
        own = jax.vmap(partial(jax.random.fold_in, jax.random.key(self.seed)))(_fingerprint(images))
        return Batch(_binary(own, images), label=labels)


@value
class Dequantize:
    """Uniform dequantisation: bytes with noise, spread over [0, 1), so that a density of them is a likelihood.

    The density then is at most the probability of the byte itself, in expectation (Theis et al., 2016, section 3.1).
    """

    support: ClassVar[Support] = Support(0.0, 1.0)
    label: ClassVar[str] = "dequantised"

    def __call__(
        self,
        keys: Keys,
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x = (byte + u) / 256, u uniform on [0, 1)."""
        noise = jax.vmap(lambda key, image: jax.random.uniform(key, image.shape, jnp.float32))(keys, images)
        return Batch((images.astype(jnp.float32) + noise) / LEVELS, label=labels)


@value
class Raw:
    """The stored numbers as they are: rows of a table, measurements, counts.

    Attributes:
      low: the least value that there can be.
      high: the greatest.
      whole: whether they are whole numbers (counts).
      missing: whether entries that are NaN are missing ones: the encoder sees 0 in their place, and `Batch.observed`
        leaves them out of log p(x|z).
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    missing: bool = False

    label: ClassVar[str] = "raw"

    @property
    def support(self) -> Support:
        """From `low` to `high`."""
        return Support(self.low, self.high, whole=self.whole)

    def __call__(
        self,
        keys: Keys,
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x = the stored numbers."""
        x = images.astype(jnp.float32)
        if not self.missing:
            return Batch(x, label=labels)
        observed = ~jnp.isnan(x)
        return Batch(jnp.where(observed, x, 0), label=labels, observed=observed)


@value
class Mirrored:
    """Each image as it is or mirrored, left to right, with equal chance each time: for training on faces and the like.

    Attributes:
      transform: what is observed of the image that results.
    """

    transform: Transform = Scale()

    @property
    def support(self) -> Support:
        """That of `transform`."""
        return self.transform.support

    @property
    def label(self) -> str:
        """That of `transform`, and the word."""
        return f"{self.transform.label}, mirrored at random"

    def __call__(
        self,
        keys: Keys,
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """Mirror, then transform."""
        mirror_keys, keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, stream) for stream in range(2))
        mirrored = jax.vmap(partial(jax.random.bernoulli, p=jnp.float32(0.5)))(mirror_keys)
        return self.transform(keys, jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images), labels)


Examples = Any
"""A `Split` or an array [n, *event]. `as_split` checks it, so that anything else is answered by a sentence."""


def as_split(data: Any) -> Split:
    """A split of a plain array of examples, or the split itself.

    Raises:
      InputError: anything else, such as a whole `Dataset`.
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, Dataset):
        raise InputError("a Dataset was given; expected one of its splits, such as data.train or data.test")
    if not hasattr(data, "__array__"):
        raise InputError(f"the data are a {type(data).__name__}; expected a Split, or an array [n, ...] of examples")
    return Split(as_examples("the data", np.asarray(data)))


def as_transform(transform: Any, data: Split) -> Transform:
    """The transform, or `default_transform` of the data if it is None.

    Raises:
      InputError: not a transform, such as a class without brackets.
    """
    if transform is None:
        return default_transform(data)
    if isinstance(transform, type):
        raise InputError(f"transform is the class {transform.__name__}; expected a value: {transform.__name__}()")
    if not callable(transform) or not hasattr(transform, "support"):
        raise InputError(f"transform is {transform!r}; expected a transform, such as vj.Scale() or vj.Binarize()")
    return transform


def default_transform(data: Split) -> Transform:
    """`Scale()` of bytes; of all other arrays the stored numbers as they are."""
    if data.images.dtype == np.uint8:
        return Scale()
    whole = bool(np.issubdtype(data.images.dtype, np.integer))
    low = float(min(0, data.images.min())) if whole else -math.inf
    return Raw(low=low, whole=whole, missing=data.has_missing)


def _binary(keys: Keys, images: Shaped[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    def draw(key: Array, image: Array) -> Array:
        return jax.random.bernoulli(key, image.astype(jnp.float32) / (LEVELS - 1), image.shape)

    return jax.vmap(draw)(keys, images).astype(jnp.float32)


def _fingerprint(images: Shaped[Array, "batch ..."]) -> UInt32[Array, " batch"]:
    """A number for each image, from all of its bytes: a polynomial in an odd number, modulo 2**32."""
    flat = images.reshape(len(images), -1).astype(jnp.uint32) + 1
    powers = jnp.cumprod(jnp.full(flat.shape[1], 0x9E3779B1, jnp.uint32), dtype=jnp.uint32)
    return jnp.sum(flat * powers[None], axis=1, dtype=jnp.uint32)
