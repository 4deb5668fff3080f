"""Progress bars by tqdm for a terminal, a notebook or a log file; without tqdm there is none."""

import sys
from typing import Any


class Progress:
    """Context manager of a progress bar, with the time left.

    Args:
      title: Text in front of the bar.
      total: Number of units of work.
      done: Number of units that are done already.
      show: Whether to show the bar.
      unit: Name of a unit.
    """

    def __init__(self, title: str, total: int, done: int = 0, show: bool = True, unit: str = "step") -> None:
        self._bar: Any = None
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return
        watched = sys.stderr.isatty() or "ipykernel" in sys.modules
        pause = 0.1 if watched else 10.0  # seconds between two updates; a log file gets a line for each
        self._bar = tqdm(total=total, initial=done, desc=title, unit=unit, mininterval=pause, disable=not show)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, done: int, loss: float | None = None) -> None:
        """Advance the bar by `done` units, whose mean loss is shown if given."""
        if self._bar is not None:
            if loss is not None:
                self._bar.set_postfix(loss=f"{loss:.2f}", refresh=False)
            self._bar.update(done)
