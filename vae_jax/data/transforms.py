"""Transforms: values that turn stored arrays into a `Batch`, inside the compiled program."""

import math
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped, UInt32

from vae_jax.data.arrays import as_examples
from vae_jax.data.dataset import Dataset, Split
from vae_jax.errors import InputError, array_spec, named
from vae_jax.values import value

Keys = Key[Array, " batch"]
LEVELS = 256  # values of a byte


@dataclass(frozen=True)
class Support:
    """The values that an entry of an event, such as a pixel, can have.

    Attributes:
      low: Lowest value.
      high: Highest value; may be infinite.
      levels: Number of evenly spaced values from `low` to `high`, both included; None for all real numbers between.
      whole: Whether the values are low, low + 1, ... (counts), up to `high`.
    """

    low: float
    high: float
    levels: int | None = None
    whole: bool = False

    def __str__(self) -> str:
        """Description for messages."""
        kind = "whole numbers" if self.whole else f"{self.levels} levels" if self.levels else "values"
        return f"{kind} from {self.low:g} to {self.high:g}"

    @property
    def discrete(self) -> bool:
        """Whether the values are evenly spaced, and not all real numbers of an interval."""
        return self.whole or self.levels is not None

    @property
    def spacing(self) -> float:
        """Distance between neighbouring values; 0 for an interval."""
        if self.whole:
            return 1.0
        return 0.0 if self.levels is None else (self.high - self.low) / (self.levels - 1)

    def holds(self, other: "Support") -> bool:
        """Whether this support contains all values of the other one."""
        if not self.low <= other.low <= other.high <= self.high:
            return False
        if not self.discrete:
            return True
        if not other.discrete:
            return False
        places = [(other.low - self.low) / self.spacing, other.spacing / self.spacing]
        return all(abs(place - round(place)) < 1e-6 for place in places)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """One batch of examples; an absent part is None, which is not a leaf of the tree.

    Attributes:
      x: Inputs of the encoder, [batch, *event].
      target: Events whose log p(x|z) is taken, if these are not `x` (for example, the clean images of a denoiser).
      label: Class numbers [batch]: the condition of a model made with `classes`.
      mask: Weight of each example in the mean, [batch]; 0 for padding.
      condition: Other conditions of the model, an array [batch, ...] or a tree of such arrays.
      observed: Mask of the entries that are known, [batch, *event]; the others are left out of log p(x|z).
    """

    x: Float[Any, "..."]
    target: Float[Any, "..."] | None = None
    label: Int[Any, "..."] | None = None
    mask: Shaped[Any, "..."] | None = None
    condition: PyTree = None
    observed: Shaped[Any, "..."] | None = None

    @property
    def targets(self) -> Float[Any, "..."]:
        """`target`, or `x` if there is none."""
        return self.x if self.target is None else self.target

    def __repr__(self) -> str:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: jax.tree.map(_Spec, part) for name, part in parts.items() if part is not None}
        return f"Batch({', '.join(f'{name}={part!r}' for name, part in given.items())})"


class _Spec:
    """A leaf of a batch, printed by dtype and shape."""

    def __init__(self, leaf: Any) -> None:
        self._leaf = leaf

    def __repr__(self) -> str:
        is_array = hasattr(self._leaf, "dtype") and hasattr(self._leaf, "shape")
        return array_spec(self._leaf) if is_array else repr(self._leaf)


@runtime_checkable
class Transform(Protocol):
    """Protocol of transforms, which turn stored examples into a `Batch`.

    A transform is a value with no side effects, called inside a compiled program.
    """

    @property
    def support(self) -> Support:
        """The values that the entries of `Batch.targets` can have."""

    @property
    def label(self) -> str:
        """A word or two for titles and messages, such as "grey"."""

    def __call__(
        self,
        keys: Keys,
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """Transform examples.

        Args:
          keys: Random key of each example.
          images: Stored examples, [batch, *event].
          labels: Class numbers [batch], or None.
        """


@value
class Scale:
    """Grey values: bytes from 0 to 255 scaled to the range from `low` to `high`.

    Attributes:
      low: Value of the byte 0.
      high: Value of the byte 255.

    Raises:
      InputError: `low` is not below `high`.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(
                f"Scale({self.low}, {self.high}) is not a range; expected low < high, such as Scale(-1.0, 1.0)"
            )

    @property
    def support(self) -> Support:
        """256 levels from `low` to `high`."""
        return Support(self.low, self.high, LEVELS)

    @property
    def label(self) -> str:
        """ "grey", with the range unless it is from 0 to 1."""
        return "grey" if (self.low, self.high) == (0.0, 1.0) else f"grey in [{self.low:g}, {self.high:g}]"

    def __call__(
        self,
        keys: Keys,
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x = low + (high - low) * byte / 255."""
        _require_whole(images, self)
        x = images.astype(jnp.float32) * ((self.high - self.low) / 255.0) + self.low
        return Batch(x, label=labels)


@value
class Binarize:
    """Dynamic binarisation (Burda et al., 2016): pixels are 1 with probability byte / 255, sampled at each call."""

    support: ClassVar[Support] = Support(0.0, 1.0, 2)
    label: ClassVar[str] = "dynamically binarised"

    def __call__(
        self,
        keys: Keys,
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x ~ Bernoulli(byte / 255), a new draw for each key."""
        _require_whole(images, self)
        return Batch(_binary(keys, images), label=labels)


@value
class StaticBinarize:
    """Static binarisation: one sample of each image, the same in all epochs, splits and runs.

    The sample is a function of `seed` and the bytes of the image. It needs no copy of the data and does not depend on
    the position of the image; equal images have the same sample. `vae_jax.transform_all` returns the binary images.

    The result differs from the binarised MNIST of Larochelle and Murray (2011), which is another sample.

    Attributes:
      seed: Seed of the samples.
    """

    seed: int = 0

    support: ClassVar[Support] = Binarize.support

    @property
    def label(self) -> str:
        """Description with the seed."""
        return f"statically binarised (seed {self.seed})"

    def __call__(
        self,
        keys: Keys,
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x ~ Bernoulli(byte / 255), with a key from the bytes of the image; `keys` are not used."""
        _require_whole(images, self)
        key = jax.random.key(self.seed, impl="threefry2x32")  # under vmap, others draw by the position in the block
        own = jax.vmap(partial(jax.random.fold_in, key))(_fingerprint(images))
        return Batch(_binary(own, images), label=labels)


@value
class Dequantize:
    """Uniform dequantisation: bytes plus noise, scaled to [0, 1], so that a density of them is a likelihood.

    The expected log-density is a lower bound on the log-probability of the bytes (Theis et al., 2016, section 3.1).
    """

    support: ClassVar[Support] = Support(0.0, 1.0)
    label: ClassVar[str] = "dequantised"

    def __call__(
        self,
        keys: Keys,
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x = (byte + u) / 256, u uniform on [0, 1); float32 rounds 255 + u to 256 if u is near 1."""
        _require_whole(images, self)
        noise = jax.vmap(lambda key, image: jax.random.uniform(key, image.shape, jnp.float32))(keys, images)
        return Batch((images.astype(jnp.float32) + noise) / LEVELS, label=labels)


@value
class Raw:
    """The stored numbers without a change: rows of a table, measurements, counts.

    Attributes:
      low: Lowest possible value.
      high: Highest possible value.
      whole: Whether the values are whole numbers (counts).
      missing: Whether NaN marks missing entries: the encoder sees 0 instead, and `Batch.observed` excludes them from
        log p(x|z).
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    missing: bool = False

    label: ClassVar[str] = "raw"

    @property
    def support(self) -> Support:
        """The values from `low` to `high`."""
        return Support(self.low, self.high, whole=self.whole)

    def __call__(
        self,
        keys: Keys,
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """x = the stored numbers, as float32."""
        x = images.astype(jnp.float32)
        if not self.missing:
            return Batch(x, label=labels)
        observed = ~jnp.isnan(x)
        return Batch(jnp.where(observed, x, 0), label=labels, observed=observed)


@value
class Mirrored:
    """Random mirroring, left to right, with probability 1/2 at each call: an augmentation for images such as faces.

    Attributes:
      transform: Transform of the images after mirroring.

    Raises:
      InputError: `transform` is not a transform, or the examples are not images.
    """

    transform: Transform = Scale()

    def __post_init__(self) -> None:
        require_transform(self.transform)

    @property
    def support(self) -> Support:
        """The support of `transform`."""
        return self.transform.support

    @property
    def label(self) -> str:
        """The label of `transform`, and "mirrored at random"."""
        return f"{self.transform.label}, mirrored at random"

    def __call__(
        self,
        keys: Keys,
        images: Shaped[Array, "batch ..."],
        labels: Int[Array, " batch"] | None = None,
    ) -> Batch:
        """Mirror, then transform."""
        if images.ndim != 4:
            raise InputError(
                f"Mirrored was given examples of shape {images.shape[1:]}; expected images (height, width, channels): "
                "use another transform"
            )
        mirror_keys, keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, stream) for stream in range(2))
        mirrored = jax.vmap(partial(jax.random.bernoulli, p=jnp.float32(0.5)))(mirror_keys)
        return self.transform(keys, jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images), labels)


Examples = Any
"""A `Split` or an array [n, *event]. `as_split` checks it, so that anything else is answered by a sentence."""


def as_split(data: Any) -> Split:
    """The split itself, or a split of an array or a data frame of examples.

    Whole numbers of three or four axes are bytes of images, as in `Dataset.from_arrays`; real numbers are not changed.

    Raises:
      InputError: The data are of any other type, such as a `Dataset`.
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, Dataset):
        raise InputError("a Dataset was given; expected one of its splits, such as data.train or data.test")
    if isinstance(data, type) or not hasattr(data, "__array__"):
        if isinstance(data, str):
            remedy = f"vj.load({data!r}).train loads one by name"
        elif isinstance(data, list | tuple) and len(data):
            remedy = "convert it by np.asarray, or make a data set of examples and labels by vj.Dataset.from_arrays"
        elif hasattr(data, "__iter__") and not isinstance(data, type):
            remedy = "vj.Split.from_batches collects the batches of a loader or a generator"
        else:
            remedy = "collect the examples in a NumPy array"
        raise InputError(f"the data are {named(data)}; expected a Split, or an array [n, ...] of examples: {remedy}")
    return Split(as_examples("the data", data, insist="vj.Split(images)"))


def as_transform(transform: Any, data: Split) -> Transform:
    """The transform, or `default_transform` of the data if it is None.

    Raises:
      InputError: The argument is not a transform, or it is one of this module that does not take the stored numbers.
    """
    if transform is None:
        return default_transform(data)
    checked = require_transform(transform)
    _require_stored(checked, data)
    return checked


def default_transform(data: Split) -> Transform:
    """`Scale()` for bytes; `Raw` for other numbers, with the bounds 0 and 1 if all real numbers are in [0, 1]."""
    if data.images.dtype == np.uint8:
        return Scale()
    if np.issubdtype(data.images.dtype, np.integer):
        return Raw(low=float(min(0, data.images.min())), whole=True, missing=data.has_missing)
    beyond = (data.images < 0).any() or (data.images > 1).any()  # NaN is neither
    low, high = (-math.inf, math.inf) if beyond else (0.0, 1.0)
    return Raw(low, high, missing=data.has_missing)


def require_transform(transform: Any) -> Transform:
    """The argument; raises `InputError` unless it is a transform (see `Transform`)."""
    expected = "expected a transform, such as vj.Binarize()"
    if isinstance(transform, type):
        raise InputError(f"transform is {named(transform)}; {expected}: make an object of it by {transform.__name__}()")
    if not callable(transform):
        raise InputError(f"transform is {named(transform)}; {expected}")
    if missing := [name for name in ("support", "label") if not hasattr(transform, name)]:
        kind = getattr(transform, "__name__", type(transform).__name__)
        raise InputError(
            f"transform is {kind}, which has no {' and no '.join(missing)}; {expected}: write a class with support, "
            "label and __call__, as vj.Binarize"
        )
    checked: Transform = transform
    return checked


def _require_stored(transform: Transform, data: Split) -> None:
    """Raise `InputError` if the stored numbers are outside the range of a transform, or missing ones are not marked.

    Transforms of bytes refuse real numbers themselves (`_require_whole`), and those of other modules are not checked.
    """
    if isinstance(transform, Mirrored):
        _require_stored(transform.transform, data)
    if isinstance(transform, Raw):
        if data.has_missing and not transform.missing:
            raise InputError(f"the examples have missing entries, but {transform} does not mark them; add missing=True")
        _require_range(transform, data.images, transform.support)
    elif isinstance(transform, Scale | Binarize | StaticBinarize | Dequantize) and data.images.dtype == np.int32:
        _require_range(transform, data.images, Support(0.0, LEVELS - 1.0, whole=True))


def _require_range(transform: Transform, images: Shaped[Any, "n ..."], taken: Support) -> None:
    """Raise `InputError` unless all numbers that are not NaN are those that the transform takes."""
    if not images.size or (math.isinf(taken.low) and math.isinf(taken.high) and not taken.whole):
        return
    low, high = np.fmin.reduce(images, axis=None), np.fmax.reduce(images, axis=None)
    if low < taken.low or high > taken.high:
        raise InputError(
            f"{transform} takes {taken}, but the examples run from {low:g} to {high:g}; choose another transform"
        )
    if taken.whole and not np.issubdtype(images.dtype, np.integer) and (images % 1 > 0).any():
        raise InputError(f"{transform} takes {taken}, but some examples are fractions; choose another transform")


def _require_whole(images: Shaped[Array, "batch ..."], transform: Transform) -> None:
    """Raise `InputError` if the examples of a transform of bytes are real numbers; their dtype is known under jit."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"{transform} takes bytes from 0 to 255, but the examples are {images.dtype}; give bytes, such as "
            "np.uint8(np.round(255 * x)) of values in [0, 1], or take vj.Raw(0, 1)"
        )


def _binary(keys: Keys, images: Shaped[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    def draw(key: Array, image: Array) -> Array:
        return jax.random.bernoulli(key, image.astype(jnp.float32) / (LEVELS - 1), image.shape)

    return jax.vmap(draw)(keys, images).astype(jnp.float32)


def _fingerprint(images: Shaped[Array, "batch ..."]) -> UInt32[Array, " batch"]:
    """A hash of the bytes of each image: a polynomial in an odd number, modulo 2**32."""
    flat = images.reshape(len(images), -1).astype(jnp.uint32) + 1
    powers = jnp.cumprod(jnp.full(flat.shape[1], 0x9E3779B1, jnp.uint32), dtype=jnp.uint32)
    return jnp.sum(flat * powers[None], axis=1, dtype=jnp.uint32)
