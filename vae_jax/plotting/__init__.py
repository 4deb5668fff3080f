"""Matplotlib figures of images, encodings and curves.

Every function returns a `Figure` that is created without pyplot, so no global state changes. A notebook displays the
figure, and a script saves it.
"""

from vae_jax.plotting.colours import CLASS_COLOURS, COLOURS
from vae_jax.plotting.latent_plane import clouds, draw_encodings, encodings, paths, title_with_classes
from vae_jax.plotting.lines import curves, single_axes, training_curves
from vae_jax.plotting.pixels import draw_images, images, rows, sheets, tile

__all__ = [
    "CLASS_COLOURS",
    "COLOURS",
    "clouds",
    "curves",
    "draw_encodings",
    "draw_images",
    "encodings",
    "images",
    "paths",
    "rows",
    "sheets",
    "single_axes",
    "tile",
    "title_with_classes",
    "training_curves",
]
