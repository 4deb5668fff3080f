"""Decoding of images: cropped, resized, by threads, and in blocks, so that a killed run can be resumed."""

import io
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from vae_jax.data.cache import Parts
from vae_jax.errors import DataError

_BLOCK = 2_000  # images between two parts: a second's work or two, and 25 MB at 64 x 64


@dataclass(frozen=True)
class Crop:
    """The centre of an image, as fractions of its height and width: scaled copies of an image are cropped alike.

    The default is the centre that is customary for CelebA: 140 rows of 218 and 140 columns of 178. What is cut out is
    resized to a square, so a crop that is no square in pixels is squeezed.

    Raises:
      DataError: a fraction that is not above 0 and at most 1, so that the crop would leave the frame.
    """

    height: float = 140 / 218
    width: float = 140 / 178

    def __post_init__(self) -> None:
        for name, fraction in (("height", self.height), ("width", self.width)):
            if not 0 < fraction <= 1:
                raise DataError(
                    f"the crop's {name} is {fraction!r}; expected a fraction of the frame's, above 0 and at most 1 "
                    "(for pixels: divide by the frame's)"
                )

    def box(self, width: float, height: float) -> tuple[float, float, float, float]:
        """Left, upper, right and lower edge in a frame of that width and height, in pixels and fractions of them."""
        left, upper = width * (1 - self.width) / 2, height * (1 - self.height) / 2
        return left, upper, width - left, height - upper


class Block(NamedTuple):
    """A few consecutive images of a split, to be read and decoded."""

    readers: Sequence[Callable[[], bytes]]  # each gives one encoded image; called in several threads
    attributes: np.ndarray  # bool [n, A]


class Decoded(NamedTuple):
    """The images of a split that can be decoded, and what is wrong with the others."""

    images: np.ndarray  # uint8 [N - unreadable, size, size, 3]
    attributes: np.ndarray  # bool, a row an image
    unreadable: dict[int, str]  # reasons, by number from 0 to N - 1


def decode_image(encoded: bytes, size: int, crop: Crop) -> np.ndarray:
    """Crop and resize one encoded image to uint8 [size, size, 3]; grey ones and others become RGB.

    Raises whatever Pillow raises for bytes that are no image, or no whole one.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        # A JPEG decodes at 1/2, 1/4 or 1/8 in a fraction of the time. What is left has at least twice the pixels that
        # are needed, so that the filter below makes the result. The frame need not be whole pixels then.
        drafted = image.draft("RGB", (math.ceil(2 * size / crop.width), math.ceil(2 * size / crop.height)))
        width, height = drafted[1][2:] if drafted else image.size
        pixels = image if image.mode == "RGB" else image.convert("RGB")
        resized = pixels.resize((size, size), Image.Resampling.LANCZOS, box=crop.box(float(width), float(height)))
        return np.asarray(resized)


def decode_split(
    split: str,
    count: int,
    fetch: Callable[[range], Block],
    *,
    size: int,
    crop: Crop,
    parts: Parts,
    advance: Callable[[int], object],
) -> Decoded:
    """Decode the images of a split, but for the parts that an earlier run has left.

    Args:
      split: its name, for its parts'.
      count: of its images.
      fetch: gives those of a range of numbers.
      size: height and width of the result in pixels.
      crop: what is seen of an image.
      parts: where the blocks that are done are kept.
      advance: told the number of images whenever some are done.
    """
    images = np.empty((count, size, size, 3), np.uint8)
    attributes: list[np.ndarray] = []
    unreadable: dict[int, str] = {}
    filled = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter's lock
        for start in range(0, count, _BLOCK):
            numbers = range(start, min(start + _BLOCK, count))
            name = f"{split}_{numbers.start}_{numbers.stop}"
            if (part := parts.read(name)) is None:
                part = _decode_block(pool, fetch(numbers), size, crop)
                parts.write(name, part)
            images[filled : filled + len(part["images"])] = part["images"]
            filled += len(part["images"])
            attributes.append(part["attributes"])
            reasons = zip(part["unreadable"].tolist(), part["reasons"].tolist(), strict=True)
            unreadable |= {start + number: reason for number, reason in reasons}
            advance(len(numbers))
    return Decoded(images[:filled], np.concatenate(attributes), unreadable)


def _decode_block(pool: ThreadPoolExecutor, block: Block, size: int, crop: Crop) -> dict[str, np.ndarray]:
    results = list(pool.map(partial(_attempt, size=size, crop=crop), block.readers))
    reasons = {number: result for number, result in enumerate(results) if isinstance(result, str)}
    images = [result for result in results if isinstance(result, np.ndarray)]
    return {
        "images": np.stack(images) if images else np.empty((0, size, size, 3), np.uint8),
        "attributes": np.delete(block.attributes, list(reasons), axis=0),
        "unreadable": np.array(list(reasons), np.int64),
        "reasons": np.array(list(reasons.values()), np.str_),
    }


def _attempt(read: Callable[[], bytes], size: int, crop: Crop) -> np.ndarray | str:
    try:
        return decode_image(read(), size, crop)
    except UnidentifiedImageError:  # its own message is an address in memory
        return "no image that Pillow knows"
    except Exception as error:  # zip files, Pillow and its plugins each raise many kinds for damaged bytes
        return str(error).replace("\n", " ") or repr(error)
