"""Orbax's handlers with one change: a save that fails ends when all of its writes have ended.

Orbax ends it at the first write that fails, and closes the event loop in which the others are awaited. TensorStore then
reports their results to a closed loop, printing a traceback for each ("Event loop is closed"), and they go on making
files in a folder that may have been removed. Imported by `SealedFolder` alone, for Orbax takes half a second to import.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


class AllOf:
    """A future of several: its result is theirs, when all have ended."""

    def __init__(self, futures: Sequence[Any]) -> None:
        self._futures = futures

    def result(self, timeout: int | None = None) -> None:
        """Wait for all.

        Raises:
          Exception: the first that one of them has raised.
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
    """Writes NumPy arrays, each to its end."""

    async def _background_serialize(self, values: Any, infos: Any, args: Any = None) -> None:
        write = super()._background_serialize
        writes = [write(*([one] for one in each)) for each in zip(values, infos, args, strict=True)]
        for error in await asyncio.gather(*writes, return_exceptions=True):
            if error is not None:
                raise error


class PartFolder(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """The folder of a tree or of the JSON, until it is whole."""

    async def create(self) -> Any:
        """Make it without a thread, which might make it after another one has failed and all have been removed."""
        self.get().mkdir()
        return self.get()


class TreesHandler(ocp.CompositeCheckpointHandler):
    """Writes trees of NumPy arrays and JSON side by side, each to its end."""

    def __init__(self, trees: Sequence[str], options: ocp.options.MultiprocessingOptions) -> None:
        handlers = [
            (np.ndarray, ArrayHandler()),
            (jax.Array, ocp.type_handlers.ArrayHandler()),
        ]  # Orbax wants the latter
        registry = ocp.type_handlers.create_type_handler_registry(*handlers)
        # Folders are made first: writes that wait for one that can't be made would wait for minutes.
        folders_first = ocp.options.AsyncOptions(create_directories_asynchronously=False)
        super().__init__(
            composite_options=ocp.CompositeOptions(
                multiprocessing_options=options, async_options=folders_first, temporary_path_class=PartFolder
            ),
            notes=ocp.JsonCheckpointHandler(multiprocessing_options=options),
            **{
                tree: ocp.PyTreeCheckpointHandler(multiprocessing_options=options, type_handler_registry=registry)
                for tree in trees
            },
        )

    async def async_save(self, *args: Any, **settings: Any) -> list[Any]:
        """As Orbax's, with one future of all."""
        return [AllOf(await super().async_save(*args, **settings) or [])]


@ocp.args.register_with_handler(TreesHandler, for_save=True, for_restore=True)
class TreesArgs(ocp.args.Composite):
    """What `TreesHandler` saves or restores, by name."""
