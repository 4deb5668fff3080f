"""Arrays -> matplotlib figures of images, encodings and curves."""

from vae_jax.plotting.curves import (
    along_the_path_figure,
    bounds_figure,
    curves_figure,
    drift_figure,
    minutes_figure,
    scaling_figure,
    scores_figure,
    trade_off_figure,
    training_curves_figure,
    with_bands,
)
from vae_jax.plotting.images import (
    clouds_figure,
    encodings_figure,
    images_figure,
    latent_spaces_figure,
    paths_figure,
    rows_figure,
    sheets_figure,
)

__all__ = [
    "along_the_path_figure",
    "bounds_figure",
    "clouds_figure",
    "curves_figure",
    "drift_figure",
    "encodings_figure",
    "images_figure",
    "latent_spaces_figure",
    "minutes_figure",
    "paths_figure",
    "rows_figure",
    "scaling_figure",
    "scores_figure",
    "sheets_figure",
    "trade_off_figure",
    "training_curves_figure",
    "with_bands",
]
