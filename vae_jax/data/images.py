"""Decoding of images, with crop and resize, in threads and in blocks, from which a killed run resumes."""

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

_BLOCK = 2_000  # images per part: one or two seconds of work, 25 MB at 64 x 64


@dataclass(frozen=True)
class Crop:
    """The centre of an image, in fractions of its height and width, so that scaled copies have the same crop.

    The default is the customary crop of CelebA: 140 of 218 rows and 140 of 178 columns. The result is resized to a
    square, which changes the aspect ratio of a crop that is not square in pixels.

    Attributes:
      height: Fraction of the height that is kept, above 0 and at most 1.
      width: Fraction of the width that is kept, above 0 and at most 1.

    Raises:
      DataError: A fraction is outside this range.
    """

    height: float = 140 / 218
    width: float = 140 / 178

    def __post_init__(self) -> None:
        for name, fraction in (("height", self.height), ("width", self.width)):
            if not 0 < fraction <= 1:
                raise DataError(
                    f"the crop's {name} is {fraction!r}; expected a fraction of the image, above 0 and at most 1 "
                    f"(for pixels: divide by the {name} of the image)"
                )

    def box(self, width: float, height: float) -> tuple[float, float, float, float]:
        """Left, upper, right and lower edge of the crop in an image of this size, in (fractional) pixels."""
        left, upper = width * (1 - self.width) / 2, height * (1 - self.height) / 2
        return left, upper, width - left, height - upper


class Block(NamedTuple):
    """A few consecutive images of a split that are to be decoded."""

    readers: Sequence[Callable[[], bytes]]  # each returns one encoded image; called in several threads
    attributes: np.ndarray  # bool [n, A]


class Decoded(NamedTuple):
    """The images of a split that can be decoded, and the reasons why the others cannot."""

    images: np.ndarray  # uint8 [N - unreadable, size, size, 3]
    attributes: np.ndarray  # bool, one row per image
    unreadable: dict[int, str]  # reasons, by number from 0 to N - 1


def decode_image(encoded: bytes, size: int, crop: Crop) -> np.ndarray:
    """Decode, crop and resize one image to uint8 [size, size, 3]; images of other modes are converted to RGB.

    Raises:
      Exception: Any exception of Pillow for bytes that are not an image, or not a complete one.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size in a fraction of the time. The draft has at least twice the
        # pixels of the result, which the filter below determines. Its size can be fractional.
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
    """Decode the images of a split, except for the parts that an earlier run has written.

    Args:
      split: Name of the split, which the names of the parts contain.
      count: Number of images.
      fetch: Function from a range of numbers to the images of that range.
      size: Height and width of the result in pixels.
      crop: Part of each image that is kept.
      parts: Store of finished blocks.
      advance: Function that is called with the number of images after each block.
    """
    images = np.empty((count, size, size, 3), np.uint8)
    attributes: list[np.ndarray] = []
    unreadable: dict[int, str] = {}
    filled = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL while it decodes
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


def attempt(decode: Callable[[], np.ndarray]) -> np.ndarray | str:
    """The result of a function that decodes an image, or the reason why it cannot be decoded."""
    try:
        return decode()
    except UnidentifiedImageError:  # whose message is an address in memory
        return "not an image of a format that Pillow reads"
    except Exception as error:  # zipfile, Pillow and its plugins raise many types for damaged bytes
        return str(error).replace("\n", " ") or repr(error)


def _attempt(read: Callable[[], bytes], size: int, crop: Crop) -> np.ndarray | str:
    return attempt(lambda: decode_image(read(), size, crop))
