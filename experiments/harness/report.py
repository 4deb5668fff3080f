"""The output files of a script: pictures, and a report with the configuration, the environment and all results."""

import dataclasses
import importlib.metadata
import io
import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

DPI = 130
_VERSIONS_OF = ("vae_jax", "jax", "jaxlib", "flax", "optax", "numpy", "matplotlib")


class Report(NamedTuple):
    """The report of a run.

    Attributes:
      name: Name of the run.
      shared: Entries that do not depend on the seed.
      numbers: Numbers.
      failures: Reasons why the last state of a model could not be saved.
    """

    name: str
    shared: dict[str, Any]
    numbers: dict[str, Any]
    failures: tuple[str, ...] = ()


def save_picture(path: Path, figure: Figure) -> None:
    """Save a figure with at most 1150 pixels per side, which is under 400 kB, as PATH.png or PATH.jpg.

    A PNG file is exact if it is grey, and otherwise has 256 colours, selected by maximum coverage, because Pillow's
    default merges some colours of different classes. Pictures with more than 2**16 colours, such as photographs, are
    JPEG files of high quality.
    """
    drawn = io.BytesIO()
    dpi = min(DPI, 1150 / max(figure.get_size_inches()))
    options = {"compress_level": 1}  # as the file is only read back
    figure.savefig(drawn, dpi=dpi, bbox_inches="tight", pad_inches=0.05, pil_kwargs=options)  # no empty margin
    picture = Image.open(drawn).convert("RGB")
    png, jpeg = (path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "jpg"))
    if picture.getcolors(maxcolors=2**16) is None:
        picture.save(jpeg, quality=90, subsampling=0)  # `optimize` fails for noise
        png.unlink(missing_ok=True)  # of an earlier run
        return
    pixels = np.asarray(picture)
    if np.all(pixels == pixels[..., :1]):
        picture = picture.convert("L")
    else:
        picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    picture.save(png, optimize=True)
    jpeg.unlink(missing_ok=True)


def write_report(path: Path, content: Mapping[str, Any], options: Any) -> None:
    """Write `content` as JSON, with the options (a dataclass), the versions and the device."""
    device = jax.devices()[0]
    content = {
        **content,
        "options": dataclasses.asdict(options),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _VERSIONS_OF},
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(_finite(content), indent=1, allow_nan=False, default=str) + "\n")
    os.replace(temporary, path)


def _finite(value: Any) -> Any:
    """Replace infinities and NaN in `value` by strings, because JSON does not support them."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
