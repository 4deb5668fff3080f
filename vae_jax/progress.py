"""The bar that `fit` shows: by tqdm in a terminal, a notebook or a log file, and none where tqdm is missing."""

import sys
from typing import Any


class Progress:
    """A bar over a run's steps, with the loss and the time left; a context manager."""

    def __init__(self, title: str, total: int, done: int, show: bool = True) -> None:
        self._bar: Any = None
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return
        watched = sys.stderr.isatty() or "ipykernel" in sys.modules
        pause = 0.1 if watched else 10.0  # seconds between two lines: a log file wants few
        self._bar = tqdm(total=total, initial=done, desc=title, unit="step", mininterval=pause, disable=not show)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, steps: int, loss: float) -> None:
        """Tell of `steps` more, and of their mean loss."""
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.2f}", refresh=False)
            self._bar.update(steps)
