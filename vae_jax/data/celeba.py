"""CelebA (Liu et al., 2015): 202,599 aligned faces with 40 attributes, from the published files or TFDS's `celeb_a`."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data import celeba_files, tfds
from vae_jax.data.attributes import Attributes
from vae_jax.data.cache import Parts, cached_in, entry
from vae_jax.data.celeba_files import IMAGES, PARTITION, TABLE, Files
from vae_jax.data.dataset import Dataset, Split
from vae_jax.data.images import Block, Crop, decode_split
from vae_jax.data.places import data_folder, first_found
from vae_jax.errors import DataError, require_positive_int, some
from vae_jax.progress import Progress

_SPLITS = ("train", "validation", "test")  # 0, 1 and 2 in the partition file
_TFDS_NAME = "celeb_a"
_REMEDIES = (
    f"Two ways to supply it: put {IMAGES}.zip (or the folder {IMAGES}/), {TABLE} and {PARTITION} in a folder and "
    f"give that folder as the data folder; or prepare {_TFDS_NAME} with TFDS (file_format='array_record')."
)


def load_celeba(
    data_dir: str | Path | None, *, size: int = 64, crop: Crop = Crop(), skip_unreadable: bool = False
) -> Dataset:
    """CelebA, cropped and resized, with attributes and a validation split; there are no labels.

    The files (see `vae_jax.data.celeba_files`) are in `data_dir` or its sub-folder `celeba`; the images may be scaled
    copies. Without a partition file, a hash of its name assigns each image to a split, 80 : 10 : 10. The first call
    takes minutes for all of CelebA; if it is killed, the next call resumes. Later calls read the cache.

    Args:
      data_dir: Folder with the files, or with the data set that TFDS prepared; None is the default folder of TFDS.
      size: Height and width of the result in pixels.
      crop: Part of each image that is kept.
      skip_unreadable: Whether to leave out images that cannot be decoded, with a warning.

    Returns:
      Bytes [N, size, size, 3] in the splits train, validation (if there is one) and test.

    Raises:
      DataNotFoundError: Neither the files nor a prepared data set was found.
      DataError: A file is damaged, the files list different images, or images cannot be decoded.
    """
    require_positive_int(size=size)
    options = _Options(size, crop, skip_unreadable)
    folder = None if data_dir is None else data_folder(data_dir)
    places: list[Callable[[], Dataset]] = [lambda: _from_prepared(folder, options)]
    if folder is not None:
        places.insert(0, lambda: _from_files(folder, options))
    return first_found("celeba", places, _REMEDIES)


@dataclass(frozen=True)
class _Options:
    size: int
    crop: Crop
    skip_unreadable: bool

    def __str__(self) -> str:
        return f"the centre {self.crop.height:.1%} x {self.crop.width:.1%} resized to {self.size} x {self.size}"


@dataclass(frozen=True)
class _Faces:
    """A split that has not been decoded yet."""

    number: int  # number of images
    fetch: Callable[[range], Block]
    name: Callable[[int], str]  # the name of an image, for messages


def _cached(files: Iterable[Path], options: _Options, decode: Callable[[Parts], Dataset]) -> Dataset:
    folder = entry("celeba", files, repr((options.size, options.crop)))
    # The parts have another folder: they are kept after an error about unreadable images, for a run that skips these.
    parts = Parts(folder.with_name(f"{folder.name}-parts"))
    if options.skip_unreadable:
        folder = folder.with_name(f"{folder.name}-readable")
    dataset = cached_in(folder, lambda: decode(parts))
    parts.remove()
    return dataset


def _decode(
    faces: Mapping[str, _Faces], names: tuple[str, ...], options: _Options, parts: Parts, where: Path, source: str
) -> Dataset:
    """Decode all splits; one error lists all images that cannot be decoded."""
    for split in ("train", "test"):
        if split not in faces:
            raise DataError(f"{where} has no image in the {split} split; expected at least one")
    splits, unreadable = {}, []
    total = sum(of_split.number for of_split in faces.values())
    with Progress("decoding celeba", total, unit="image") as bar:
        for split, of_split in faces.items():
            decoded = decode_split(
                split,
                of_split.number,
                of_split.fetch,
                size=options.size,
                crop=options.crop,
                parts=parts,
                advance=bar.advance,
            )
            unreadable += [f"{of_split.name(number)} ({why})" for number, why in decoded.unreadable.items()]
            splits[split] = decoded
    if unreadable:
        told = f"{len(unreadable):,} of {total:,} images in {where} cannot be decoded: {some(unreadable)}"
        if not options.skip_unreadable:
            raise DataError(f"{told}; download them again, or skip them by load_celeba(..., skip_unreadable=True)")
        warnings.warn(f"{told}; they are left out", stacklevel=2)
        source += f", {len(unreadable):,} unreadable images left out"
    with_attributes: dict[str, Any] = {
        split: Split(decoded.images, attributes=Attributes(names, decoded.attributes))
        for split, decoded in splits.items()
    }
    return Dataset("celeba", **with_attributes, source=source)


def _from_files(data_dir: Path, options: _Options) -> Dataset:
    files = celeba_files.find_files(data_dir)
    stamped = [path for path in files if path is not None]
    return _cached(stamped, options, lambda parts: _read_files(files, options, parts))


def _read_files(files: Files, options: _Options, parts: Parts) -> Dataset:
    names, attributes = celeba_files.read_table(files.table)
    if files.partition is None:
        numbers, how = celeba_files.seeded_partition(names), "split 80 : 10 : 10 by a hash of the file names"
    else:
        numbers, how = celeba_files.read_partition(files.partition, names), f"split by {PARTITION}"

    with celeba_files.image_readers(files.images) as readers:
        celeba_files.require_same_images(readers.keys(), names, files)

        def faces(rows: np.ndarray) -> _Faces:
            def fetch(numbers: range) -> Block:
                block = rows[numbers.start : numbers.stop]
                return Block([readers[names[row]] for row in block], attributes.values[block])

            return _Faces(len(rows), fetch, lambda number: names[rows[number]])

        rows = {split: np.flatnonzero(numbers == number) for number, split in enumerate(_SPLITS)}
        splits = {split: faces(of_split) for split, of_split in rows.items() if len(of_split)}
        folder = files.table.parent
        source = f"CelebA files in {folder.name}/, {how}, {options}"
        return _decode(splits, attributes.names, options, parts, folder, source)


def _from_prepared(data_dir: Path | None, options: _Options) -> Dataset:
    folder = tfds.prepared_folder(_TFDS_NAME, data_dir)
    return _cached([folder], options, lambda parts: _read_prepared(folder, data_dir, options, parts))


def _read_prepared(folder: Path, data_dir: Path | None, options: _Options, parts: Parts) -> Dataset:
    sources, full_name = tfds.encoded_examples(_TFDS_NAME, data_dir)

    def examples(split: str, numbers: range) -> list[dict[str, Any]]:
        try:
            return sources[split].__getitems__(numbers)
        except Exception as error:  # TFDS and array_record raise many kinds for damaged records
            raise DataError(f"{folder} cannot be read as images and attributes ({error!r})") from error

    def faces(split: str) -> _Faces:
        def fetch(numbers: range) -> Block:
            block = examples(split, numbers)
            values = [[example["attributes"][name] for name in names] for example in block]
            return Block([partial(bytes, example["image"]) for example in block], np.array(values, np.bool_))

        return _Faces(len(sources[split]), fetch, lambda number: f"image {number} of {split}")

    splits = {split: faces(split) for split in _SPLITS if split in sources and len(sources[split])}
    names = tuple(examples(next(iter(splits)), range(1))[0]["attributes"])
    return _decode(splits, names, options, parts, folder, f"TFDS, {full_name}, {options}")
