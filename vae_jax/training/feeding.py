"""Transfer of the examples of a split to the devices: all at once, or in windows that are prefetched.

Both feeders give the same batches: an epoch is the same permutation of the examples, cut in the same way.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial

import jax
import numpy as np
from jaxtyping import Array, Int, Key, Shaped

from vae_jax.data import Split
from vae_jax.training.sharding import Layout
from vae_jax.training.step import ORDER, stream

WINDOW_BYTES = 2**26
"""Size of a window of examples in bytes; two windows are on the devices at a time."""

Batches = Callable[[Int[Array, ""]], tuple[Shaped[Array, "batch ..."], Int[Array, " batch"] | None]]
"""Function from the number of a step to the images and labels of its batch."""


def epoch_order(run_key: Key[Array, ""], epoch: Int[Array, ""] | int, count: int) -> Int[Array, " count"]:
    """The order of `count` examples in an epoch of a run."""
    return jax.random.permutation(stream(run_key, ORDER, epoch), count)


@partial(jax.tree_util.register_dataclass, data_fields=["images", "labels"], meta_fields=["count"])
@dataclass(frozen=True)
class Resident:
    """All examples, on the devices; several devices share them.

    Attributes:
      images: Examples, padded with zeros to a multiple of the number of devices.
      labels: Labels, padded likewise, or None.
      count: Number of examples without padding.
    """

    images: Shaped[Array, "n ..."]
    labels: Int[Array, " n"] | None
    count: int = field(metadata={"static": True})

    def batches(self, run_key: Key[Array, ""], step: Int[Array, ""], batch_size: int, layout: Layout) -> Batches:
        """The batches of the epoch that contains `step`."""
        steps_per_epoch = self.count // batch_size
        order = epoch_order(run_key, step // steps_per_epoch, self.count)

        def batch(step: Array) -> tuple[Array, Array | None]:
            rows = jax.lax.dynamic_slice(order, (step % steps_per_epoch * batch_size,), (batch_size,))
            return layout.take(self.images, rows), None if self.labels is None else layout.take(self.labels, rows)

        return batch


@partial(jax.tree_util.register_dataclass, data_fields=["images", "labels", "first"], meta_fields=[])
@dataclass(frozen=True)
class Window:
    """The batches of consecutive steps.

    Attributes:
      images: Examples, [*members, steps, batch, *event].
      labels: Labels, or None.
      first: Number of the first step.
    """

    images: Shaped[Array, "..."]
    labels: Int[Array, "*members steps batch"] | None
    first: Int[Array, "*members"]

    def batches(self, run_key: Key[Array, ""], step: Int[Array, ""], batch_size: int, layout: Layout) -> Batches:
        """The batches of the window."""

        def batch(step: Array) -> tuple[Array, Array | None]:
            place = step - self.first
            return self.images[place], None if self.labels is None else self.labels[place]

        return batch


Feed = Resident | Window


class ResidentFeeder:
    """Feeder of a split that resides on the devices.

    Args:
      data: Split that is fed.
      batch_size: Number of examples per step.
      layout: Devices.
      members: Whether the state is of several members, which share the examples.

    Attributes:
      length: Number of steps of a feed, an epoch.
    """

    def __init__(self, data: Split, batch_size: int, layout: Layout, members: bool) -> None:
        self.length = len(data) // batch_size
        axis = None if members else 0
        padded = len(data) if members else len(data) + -len(data) % layout.devices

        def read(array: np.ndarray) -> Array:
            def rows(index: tuple[slice, ...]) -> np.ndarray:
                part = array[index]
                missing = index[0].stop - index[0].start - len(part)
                return np.pad(part, [(0, missing), *[(0, 0)] * (array.ndim - 1)]) if missing else part

            return layout.read((padded, *array.shape[1:]), axis, rows)

        self._feed = Resident(read(data.images), None if data.labels is None else read(data.labels), len(data))

    def at(self, step: int) -> tuple[Feed, int]:
        """The feed of a chunk that starts at this step, and the step at which the feed ends."""
        return self._feed, (step // self.length + 1) * self.length


class StreamingFeeder:
    """Feeder of windows of an epoch, which copies the next window to the devices in the background.

    Args:
      data: Split that is fed; it stays on the host.
      batch_size: Number of examples per step.
      layout: Devices.
      keys: Key of the run, or of each of several members.

    Attributes:
      length: Number of steps of a feed, a window; the last one of an epoch may have fewer.
    """

    def __init__(self, data: Split, batch_size: int, layout: Layout, keys: Key[Array, "*members"]) -> None:
        self._data, self._batch_size, self._layout = data, batch_size, layout
        self._steps_per_epoch = len(data) // batch_size
        batch_bytes = batch_size * data.images[0].nbytes * max(1, keys.size)
        self.length = int(np.clip(WINDOW_BYTES // batch_bytes, 1, self._steps_per_epoch))
        # The order of an epoch is computed once for all of its windows.
        self._order = lru_cache(maxsize=2)(lambda epoch: np.asarray(_orders(keys, epoch, len(data))))
        self._worker = ThreadPoolExecutor(1)
        self._coming: dict[int, Future[Window]] = {}  # by the number of the first step

    def at(self, step: int) -> tuple[Feed, int]:
        """The feed of a chunk that starts at this step, and the step at which the feed ends."""
        epoch, place = divmod(step, self._steps_per_epoch)
        start = epoch * self._steps_per_epoch + place // self.length * self.length
        end = min(start + self.length, (epoch + 1) * self._steps_per_epoch)
        # Used windows are freed first, so that there are never three.
        self._coming = {first: window for first, window in self._coming.items() if first in (start, end)}
        for first in (start, end):
            if first not in self._coming:
                self._coming[first] = self._worker.submit(self._window, first)
        return self._coming[start].result(), end

    def _window(self, first: int) -> Window:
        epoch, place = divmod(first, self._steps_per_epoch)
        # If the epoch ends within the window, the last batch is repeated and not used.
        steps = np.minimum(np.arange(place, place + self.length), self._steps_per_epoch - 1)
        order = self._order(epoch)
        members = order.shape[:-1]
        batches = order[..., : self._steps_per_epoch * self._batch_size].reshape(*members, -1, self._batch_size)
        rows = np.take(batches, steps, axis=-2)

        def read(array: np.ndarray) -> Array:
            shape = (*rows.shape, *array.shape[1:])
            axis = 0 if members else rows.ndim - 1
            return self._layout.read(shape, axis, lambda index: array[rows[index[: rows.ndim]]])

        labels = None if self._data.labels is None else read(self._data.labels)
        firsts = np.full(members, first, np.int32)
        return Window(
            read(self._data.images),
            labels,
            self._layout.read(members, 0 if members else None, lambda index: np.asarray(firsts[index])),
        )


@partial(jax.jit, static_argnames="count")
def _orders(keys: Key[Array, "*members"], epoch: Int[Array, ""] | int, count: int) -> Int[Array, "*members count"]:
    order = partial(epoch_order, epoch=epoch, count=count)
    return jax.vmap(order)(keys) if keys.ndim else order(keys)
