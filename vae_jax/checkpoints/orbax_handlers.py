"""Orbax's handlers with two changes: a failed save ends only after all of its writes, and files are sealed at the end.

Orbax ends a save at the first failed write and closes the event loop in which the other writes are awaited. TensorStore
then reports their results to a closed loop, prints a traceback for each ("Event loop is closed"), and continues to
create files in a folder that may have been removed. Only `SealedFolder` imports this module, because importing Orbax
takes half a second.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


class AllOf:
    """A future that ends when all of several futures have ended."""

    def __init__(self, futures: Sequence[Any]) -> None:
        self._futures = futures

    def result(self, timeout: int | None = None) -> None:
        """Wait for all futures.

        Raises:
          Exception: The first exception that one of them has raised.
        """
        errors = []
        for future in self._futures:
            try:
                future.result(timeout)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]


class ArrayHandler(ocp.type_handlers.NumpyHandler):
    """Handler of NumPy arrays that waits for every write."""

    async def _background_serialize(self, values: Any, infos: Any, args: Any = None) -> None:
        write = super()._background_serialize
        writes = [write(*([one] for one in each)) for each in zip(values, infos, args, strict=True)]
        for error in await asyncio.gather(*writes, return_exceptions=True):
            if error is not None:
                raise error


class PartFolder(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """The temporary folder of a tree or of the JSON."""

    async def create(self) -> Any:
        """Create the folder in this thread; another thread might create it after a failed save has been removed."""
        self.get().mkdir()
        return self.get()


class TreesHandler(ocp.CompositeCheckpointHandler):
    """Handler of trees of NumPy arrays and of JSON that waits for every write.

    Args:
      trees: Names of the trees.
      options: Processes that write.
      seal: Function that is called with the temporary folder of a checkpoint when all files are in it, before Orbax
        renames it.
    """

    def __init__(
        self, trees: Sequence[str], options: ocp.options.MultiprocessingOptions, seal: Callable[[Path], None]
    ) -> None:
        self._seal = seal
        handlers = [
            (np.ndarray, ArrayHandler()),
            (jax.Array, ocp.type_handlers.ArrayHandler()),
        ]  # Orbax requires the latter
        registry = ocp.type_handlers.create_type_handler_registry(*handlers)
        # Folders are created first: a write waits for minutes for a folder that can't be created.
        folders_first = ocp.options.AsyncOptions(create_directories_asynchronously=False)
        of_trees = partial(
            ocp.PyTreeCheckpointHandler,
            multiprocessing_options=options,
            type_handler_registry=registry,
            use_compression=False,  # parameters hardly compress, and it would take half of the time of a checkpoint
        )
        super().__init__(
            composite_options=ocp.CompositeOptions(
                multiprocessing_options=options, async_options=folders_first, temporary_path_class=PartFolder
            ),
            notes=ocp.JsonCheckpointHandler(multiprocessing_options=options),
            **{tree: of_trees() for tree in trees},
        )

    async def async_save(self, *args: Any, **settings: Any) -> list[Any]:
        """Start all writes and return one future."""
        return [AllOf(await super().async_save(*args, **settings) or [])]

    def finalize(self, directory: Any) -> None:
        """Complete the files, and seal them."""
        super().finalize(directory)
        self._seal(Path(directory))


@ocp.args.register_with_handler(TreesHandler, for_save=True, for_restore=True)
class TreesArgs(ocp.args.Composite):
    """The items that `TreesHandler` saves or restores, by name."""
