"""Reader of folders of PNG and JPEG images, with one sub-folder per class, or train/ and test/, if there are any."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vae_jax.data.dataset import Dataset, Split
from vae_jax.data.images import attempt
from vae_jax.data.places import data_folder
from vae_jax.errors import DataError, InputError, require_positive_int, some
from vae_jax.progress import Progress

_SUFFIXES = (".png", ".jpg", ".jpeg")
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_BLOCK = 500  # images that are decoded before their sizes are compared
_ORIENTATION = 0x0112  # tag of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPED = (5, 6, 7, 8)  # orientations that swap height and width


class Files(NamedTuple):
    """The images of a folder.

    Attributes:
      paths: Paths, sorted by class and name.
      classes: Name of the class of each image, or None.
    """

    paths: list[Path]
    classes: list[str] | None


def load_folder(folder: str | Path, *, size: Any, name: str | None, test_share: Any, seed: Any) -> Dataset:
    """See `Dataset.from_folder`."""
    size = _as_size(size)
    if not isinstance(test_share, Real) or isinstance(test_share, bool) or not 0 < float(test_share) < 1:
        raise InputError(f"test_share is {test_share!r}; expected a number between 0 and 1, such as 0.1")
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"seed is {seed!r}; expected a whole number of at least 0")
    path = data_folder(folder).resolve()
    name = path.name if name is None else name
    files = {split: list_images(part) for split, part in _parts(path).items()}
    class_names = _class_names(path, files)
    images = _decode(name, path, [image for part in files.values() for image in part.paths], size)
    splits: dict[str, Any] = {}
    start = 0
    for split, part in files.items():
        stop = start + len(part.paths)
        splits[split] = Split(images[start:stop], _labels(part, class_names))
        start = stop
    source = f"PNG and JPEG files in {path.name}/"
    if size is not None:
        source += f", cropped and resized to {size[0]} x {size[1]}"
    order = np.random.default_rng(int(seed)).permutation(len(splits["train"]))
    if "test" not in splits:
        if len(order) < 2:
            raise DataError(f"{path} holds one image; expected two or more, one of which is for the test split")
        count = min(max(1, round(float(test_share) * len(order))), len(order) - 1)
        splits["test"] = splits["train"][np.sort(order[:count])]
        order = order[count:]
        source += f", {float(test_share):.3g} of them drawn for the test split with seed {seed}"
    splits["train"] = splits["train"][order]
    return Dataset(name, **splits, source=source, class_names=class_names)


def list_images(folder: Path) -> Files:
    """The images in a folder, or in its sub-folders, which are classes.

    Raises:
      DataError: There are no images, images and classes are mixed, or a class has no images.
    """
    images = _images_in(folder)
    by_class = {part.name: _images_in(part) for part in _folders_in(folder)}
    if not images and not any(by_class.values()):
        raise DataError(
            f"no PNG or JPEG images were found in {folder} or its sub-folders; expected images, one sub-folder of "
            "images per class, or the sub-folders train and test"
        )
    if images and any(by_class.values()):
        raise DataError(
            f"{folder} holds both images ({some([path.name for path in images])}) and sub-folders of images "
            f"({some([name for name, paths in by_class.items() if paths])}); expected one or the other: move the "
            "images into sub-folders, or give a sub-folder"
        )
    if images:
        return Files(images, None)
    if empty := [name for name, paths in by_class.items() if not paths]:
        raise DataError(
            f"the class folder {folder / empty[0]} holds no PNG or JPEG images; add some or remove the folder"
        )
    classes = [name for name, paths in by_class.items() for _ in paths]
    return Files([path for paths in by_class.values() for path in paths], classes)


def decode_image(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    """Decode an image, and crop and resize it if a size is given.

    Args:
      path: Path of a PNG or JPEG file.
      size: Height and width of the result in pixels, or None.

    Returns:
      Bytes [height, width, 1] of a grey image, [height, width, 3] of any other.

    Raises:
      Exception: Any exception of Pillow for a file that is not an image, or not a complete one.
    """
    with Image.open(path) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
        if size is None:
            pixels = _grey_or_rgb(image)
        else:
            height, width = size[::-1] if orientation in _SWAPPED else size  # the stored image is cropped, then turned
            drafted = None
            if (scale := min(image.width / width, image.height / height)) > 2:
                # A JPEG is decoded at a fraction of its size, with at least twice the pixels of the result.
                drafted = image.draft(None, (math.ceil(2 * image.width / scale), math.ceil(2 * image.height / scale)))
            frame = drafted[1][2:] if drafted else image.size
            box = _centre(float(frame[0]), float(frame[1]), width, height)
            pixels = _grey_or_rgb(image).resize((width, height), Image.Resampling.LANCZOS, box=box)
        if orientation in _TURNS:
            pixels = pixels.transpose(_TURNS[orientation])
        array = np.asarray(pixels)
        return array if array.ndim == 3 else array[..., None]


def _as_size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, Integral) else size
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise InputError(f"size is {size!r}; expected (height, width) in pixels, such as (64, 64), or None")
    require_positive_int(**{"the height of size": pair[0], "the width of size": pair[1]})
    return int(pair[0]), int(pair[1])


def _parts(folder: Path) -> dict[str, Path]:
    """The folder of each split, or the whole folder as the training split."""
    names = [part.name for part in _folders_in(folder)]
    splits = [name for name in names if name in _SPLITS]
    if not splits:
        return {"train": folder}
    others = [name for name in names if name not in _SPLITS]
    if others and splits != ["train"] and "train" in splits:
        raise DataError(
            f"{folder} holds the splits {some(splits)} and the sub-folders {some(others)}; expected splits or classes, "
            "not both: move or rename the others"
        )
    if others:
        return {"train": folder}  # classes, of which one is called like a split
    if "train" not in splits:
        raise DataError(f"{folder} holds the sub-folder {splits[0]} but no sub-folder train; add or rename it")
    if len(splits) > len({_SPLITS[name] for name in splits}):
        raise DataError(f"{folder} holds the sub-folders val and validation; expected one of them: remove the other")
    if images := _images_in(folder):
        raise DataError(
            f"{folder} holds both images ({some([path.name for path in images])}) and the splits {some(splits)}; "
            "expected one or the other: move the images into the splits"
        )
    return {split: folder / name for name, split in _SPLITS.items() if name in splits}


def _class_names(folder: Path, files: dict[str, Files]) -> tuple[str, ...] | None:
    classes = files["train"].classes
    for split, part in files.items():
        if (part.classes is None) != (classes is None):
            with_classes, without = ("train", split) if part.classes is None else (split, "train")
            raise DataError(
                f"{folder} has class folders in {with_classes} but not in {without}; expected "
                "them in all splits or in none"
            )
        if unknown := sorted(set(part.classes or ()) - set(classes or ())):
            raise DataError(
                f"{folder} has the class {unknown[0]!r} in {split} but not in train; expected classes that training "
                "images have: rename or remove it"
            )
    return None if classes is None else tuple(sorted(set(classes)))


def _labels(files: Files, class_names: tuple[str, ...] | None) -> np.ndarray | None:
    if files.classes is None or class_names is None:
        return None
    numbers = {name: number for number, name in enumerate(class_names)}
    return np.array([numbers[name] for name in files.classes], np.int32)


def _decode(name: str, folder: Path, paths: list[Path], size: tuple[int, int] | None) -> np.ndarray:
    """The images [N, height, width, channels]; one error lists all files that cannot be decoded."""
    decoded: list[np.ndarray] = []
    unreadable: list[str] = []
    first: tuple[Path, np.ndarray] | None = None
    bar = Progress(f"decoding {name}", len(paths), show=len(paths) >= 2 * _BLOCK, unit="image")
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _BLOCK):
            block = paths[start : start + _BLOCK]
            for path, result in zip(block, pool.map(partial(_attempt, size=size), block), strict=True):
                if isinstance(result, str):
                    unreadable.append(f"{path.relative_to(folder)} ({result})")
                    continue
                first = first or (path, result)
                if result.shape[:2] != first[1].shape[:2]:
                    (h1, w1), (h2, w2) = first[1].shape[:2], result.shape[:2]
                    raise DataError(
                        f"{first[0].relative_to(folder)} has {h1} x {w1} pixels (height x width), but "
                        f"{path.relative_to(folder)} has {h2} x {w2}; expected one size: give size=(height, width) to "
                        "crop and resize them"
                    )
                decoded.append(result)
            bar.advance(len(block))
    if unreadable:
        raise DataError(
            f"{len(unreadable):,} of {len(paths):,} images in {folder} cannot be decoded: {some(unreadable)}; replace "
            "or remove them"
        )
    channels = max(image.shape[2] for image in decoded)
    images = np.empty((len(decoded), *decoded[0].shape[:2], channels), np.uint8)
    for number in range(len(decoded)):
        images[number] = decoded[number]  # copies the channel of a grey image if there are colour images
        decoded[number] = decoded[0]  # frees it, so that the images are never in memory twice
    return images


def _attempt(path: Path, size: tuple[int, int] | None) -> np.ndarray | str:
    return attempt(lambda: decode_image(path, size))


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _folders_in(folder: Path) -> list[Path]:
    return sorted(part for part in folder.iterdir() if part.is_dir() and not part.name.startswith((".", "__MACOSX")))


def _centre(frame_width: float, frame_height: float, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, upper, right and lower edge of the largest centred box with the aspect ratio of width and height."""
    scale = min(frame_width / width, frame_height / height)
    left, upper = max(0.0, (frame_width - width * scale) / 2), max(0.0, (frame_height - height * scale) / 2)
    return left, upper, frame_width - left, frame_height - upper


def _grey_or_rgb(image: Image.Image) -> Image.Image:
    """The image in mode L if it is grey, in mode RGB otherwise; transparent pixels become white."""
    if image.mode.startswith("I"):  # 16 bits, in an integer mode
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    grey = image.mode in ("1", "L", "LA")
    if "A" in image.getbands() or "transparency" in image.info:
        background = Image.new("RGBA", image.size, "white")
        rgb = Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")
    elif grey:
        return image.convert("L")
    else:
        rgb = image.convert("RGB")
    if image.mode == "P":
        values = np.asarray(rgb)
        grey = bool(np.all(values == values[..., :1]))
    return rgb.convert("L") if grey else rgb
