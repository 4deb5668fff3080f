"""The bar of work that takes long: by tqdm in a terminal, a notebook or a log file, and none where tqdm is missing."""

import sys
from typing import Any


class Progress:
    """A bar over `total` units of work, with the time left; a context manager."""

    def __init__(self, title: str, total: int, done: int = 0, show: bool = True, unit: str = "step") -> None:
        self._bar: Any = None
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return
        watched = sys.stderr.isatty() or "ipykernel" in sys.modules
        pause = 0.1 if watched else 10.0  # seconds between two lines: a log file wants few
        self._bar = tqdm(total=total, initial=done, desc=title, unit=unit, mininterval=pause, disable=not show)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, done: int, loss: float | None = None) -> None:
        """Tell of `done` units more, and of their mean loss."""
        if self._bar is not None:
            if loss is not None:
                self._bar.set_postfix(loss=f"{loss:.2f}", refresh=False)
            self._bar.update(done)
