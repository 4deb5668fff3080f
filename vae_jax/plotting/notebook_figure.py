"""Matplotlib figure that a notebook displays without pyplot."""

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """`Figure` that a notebook displays if it is the value of a cell."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=64)
        return picture.getvalue()
