"""A folder of images as a data set."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vae_jax.data.dataset import Dataset, Split
from vae_jax.errors import DataError, DataNotFoundError

SUFFIXES = (".png", ".jpg", ".jpeg")


def read_folder(folder: str | Path, *, size: Any, test_share: float, seed: int, name: str | None) -> Dataset:
    """See `Dataset.from_folder`."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataNotFoundError(f"the folder {root} does not exist or is not a folder")
    if size is not None and not (len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise DataError(f"size is {size!r}; expected (height, width) in pixels, such as (64, 64)")
    name, source = name or root.name, f"images in {root.name}"
    if (root / "train").is_dir() and (root / "test").is_dir():
        files = {split: _files(root / split) for split in ("train", "test")}
        classes = [names for _, _, names in files.values()]
        if classes[0] != classes[1]:
            raise DataError(
                f"train/ and test/ of {root} have the class folders {classes[0] or 'none'} and {classes[1] or 'none'}; "
                "expected the same ones"
            )
        paths = [path for of_split, _, _ in files.values() for path in of_split]
        images = _read(paths, size)
        count = len(files["train"][0])
        return Dataset(
            name, Split(images[:count], files["train"][1]), Split(images[count:], files["test"][1]), source=source
        )
    if not 0 < test_share < 1:
        raise DataError(f"test_share is {test_share}; expected a share of the images, above 0 and below 1")
    found, labels, _ = _files(root)
    images = _read(found, size)
    test_count = max(1, round(test_share * len(images)))
    if test_count >= len(images):
        raise DataError(f"{root} has {len(images)} images, too few for a training and a test split")
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = np.sort(order[test_count:]), np.sort(order[:test_count])
    train_labels, test_labels = (None if labels is None else labels[rows] for rows in (train, test))
    return Dataset(name, Split(images[train], train_labels), Split(images[test], test_labels), source=source)


def _files(folder: Path) -> tuple[list[Path], np.ndarray | None, list[str]]:
    """The images of a folder in the order of their names; with class folders, labels and class names too."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        return _images(folder), None, []
    if loose := [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]:
        raise DataError(f"{folder} has images ({loose[0].name}) beside class folders; expected one or the other")
    by_class = [_images(path) for path in folders]
    labels = np.repeat(np.arange(len(folders), dtype=np.int32), [len(paths) for paths in by_class])
    return [path for paths in by_class for path in paths], labels, [path.name for path in folders]


def _images(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataNotFoundError(f"{folder} has no images; expected files that end in {', '.join(SUFFIXES)}")
    return paths


def _read(paths: list[Path], size: tuple[int, int] | None) -> np.ndarray:
    """The images as uint8 [N, height, width, channels]: one channel if all are grey, else three."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = list(pool.map(lambda path: _open(path, size), paths))
    if len({image.size for image in images}) > 1:
        other = next(i for i, image in enumerate(images) if image.size != images[0].size)
        first, second = (f"{paths[i].name} ({'{1} x {0}'.format(*images[i].size)})" for i in (0, other))
        raise DataError(f"{first} and {second} differ in height x width; give size=(height, width) to crop and resize")
    grey = all(image.mode == "L" for image in images)
    arrays = [np.asarray(image if grey else image.convert("RGB")) for image in images]
    return np.stack(arrays)[..., None] if grey else np.stack(arrays)


def _open(path: Path, size: tuple[int, int] | None) -> Image.Image:
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)  # as the camera was held
            grey = image.mode in ("1", "L", "LA", "I;16")
            if image.mode == "I;16":
                image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
            image = image.convert("L" if grey else "RGB")
    except Exception as error:  # Pillow and its plugins raise many kinds for damaged files
        reason = str(error).split("\n")[0] or type(error).__name__
        raise DataError(f"{path} can't be read as an image ({reason}); remove it or replace it") from error
    return image if size is None else ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
