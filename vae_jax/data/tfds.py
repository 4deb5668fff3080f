"""TensorFlow Datasets (TFDS) without TensorFlow: reader of prepared data sets, and downloads of those in IDX format.

`tensorflow_datasets` is imported inside the functions that need it, so that vae_jax works without it.
"""

import importlib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vae_jax.data import idx
from vae_jax.data.dataset import Dataset, Split
from vae_jax.errors import DataError, DataNotFoundError

DOWNLOADS = ("mnist", "fashion_mnist", "kmnist")
"""Data sets that can be prepared without TensorFlow, because they consist of four IDX files."""

_PATIENCE = 3.0  # seconds to wait for a response of the server
_RETRIES = 2  # instead of TFDS's ten, which take 205 s
_BLOCK = 1_000  # examples decoded at a time, 2.5 times as fast as one by one


def prepared_folder(name: str, data_dir: Path | None) -> Path:
    """The folder of a data set that TFDS prepared under `data_dir` (None: the default of TFDS) as array_record.

    Raises:
      DataNotFoundError: TFDS is not installed or has no data set of that name, there is no such folder, or the data set
        is stored in a format that requires TensorFlow.
    """
    tfds = _tfds()
    builder = _builder(tfds, name, data_dir)
    if not (builder.data_path / "dataset_info.json").exists():
        raise DataNotFoundError(f"no data set prepared by TFDS in {builder.data_path}")
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        stored = builder.info.file_format.value
        raise DataNotFoundError(f"{builder.data_path} is stored as {stored}, which needs TensorFlow to read")
    return Path(builder.data_path)


def read_prepared(name: str, data_dir: Path | None) -> Dataset:
    """Decode the data set of `prepared_folder`, in the order of its files.

    Raises:
      DataError: It is damaged, or has no images of one size with train and test splits.
    """
    builder = _builder(_tfds(), name, data_dir)
    try:
        splits: dict[str, Any] = {split: _decode(builder.as_data_source(split)) for split in ("train", "test")}
    except Exception as error:  # TFDS and array_record raise many types for damaged or unsuitable data
        raise DataError(
            f"{builder.data_path} cannot be read as images and labels ({error!r}); prepare it "
            "again, or use another data set"
        ) from error
    return Dataset(name, **splits, source=f"TFDS, {builder.info.full_name}")


def encoded_examples(name: str, data_dir: Path | None) -> tuple[dict[str, Any], str]:
    """The splits of the data set of `prepared_folder`, as sequences of examples whose `image` is encoded bytes.

    Returns:
      The splits by name, and the name of the data set with its version.

    Raises:
      DataError: The data set is damaged; damaged examples raise other errors when they are read.
    """
    tfds = _tfds()
    builder = _builder(tfds, name, data_dir)
    skip = {"image": tfds.decode.SkipDecoding()}
    try:
        sources = {split: builder.as_data_source(split, decoders=skip) for split in builder.info.splits}
    except Exception as error:  # as in read_prepared
        raise DataError(f"{builder.data_path} cannot be read as images ({error!r}); prepare it again") from error
    return sources, builder.info.full_name


def download(name: str, data_dir: Path) -> None:
    """Download a data set through TFDS and prepare it under `data_dir`, for `read_prepared`.

    Raises:
      DataNotFoundError: TFDS is not installed, the data set is not one of `DOWNLOADS`, or the server does not respond.
    """
    tfds = _tfds()
    if name not in DOWNLOADS:
        raise DataNotFoundError(f"{name!r} cannot be downloaded without TensorFlow (only {', '.join(DOWNLOADS)} can)")
    stock = type(_builder(tfds, name, None))
    _require_network(stock.URL)
    downloader: Any = importlib.import_module("tensorflow_datasets.core.download.downloader")
    downloader.MAX_RETRIES = _RETRIES
    skip = tfds.download.ComputeStatsMode.SKIP
    try:
        builder = _without_tensorflow(tfds, stock)(data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(compute_stats=skip))
    except Exception as error:  # requests, TFDS and the file system raise many types
        raise DataNotFoundError(f"the download from {stock.URL} failed ({error})") from error


def _tfds() -> ModuleType:
    try:
        import tensorflow_datasets
    except Exception as error:  # an incompatible version of protobuf raises TypeError
        raise DataNotFoundError(f"tensorflow-datasets cannot be imported ({error})") from error
    return tensorflow_datasets


def _builder(tfds: ModuleType, name: str, data_dir: Path | None) -> Any:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # TFDS raises several types for a name that it cannot parse
        reason = str(error).partition("\n")[0]
        raise DataNotFoundError(f"TFDS has no data set {name!r} ({reason})") from error


def _decode(source: Any) -> Split:
    blocks = [range(start, min(start + _BLOCK, len(source))) for start in range(0, len(source), _BLOCK)]
    records = [record for block in blocks for record in source.__getitems__(block)]
    images = np.stack([record["image"] for record in records])
    return Split(images, np.array([record["label"] for record in records], np.int32))


def _without_tensorflow(tfds: ModuleType, stock: Any) -> type:
    """Subclass of a builder of TFDS (same name, version, URLs and checksums) that parses IDX files without TensorFlow.

    The examples keep the order of the files, so that the digest of the data does not depend on their source.
    """
    from PIL import Image

    with tfds.core.registered.skip_registration():

        class Builder(stock):
            url_infos = stock.url_infos
            pkg_dir_path = stock.pkg_dir_path

            def _info(self) -> Any:
                info = super()._info()
                return tfds.core.DatasetInfo(
                    builder=self,
                    description=info.description,
                    features=info.features,
                    supervised_keys=info.supervised_keys,
                    homepage=info.homepage,
                    citation=info.citation,
                    disable_shuffling=True,
                )

            def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
                files = dl_manager.download({part: f"{self.URL}{stem}.gz" for part, stem in idx.FILES.items()})
                return {
                    split: self._generate_examples(files[f"{split}_images"], files[f"{split}_labels"])
                    for split in ("train", "test")
                }

            def _generate_examples(self, images: Any, labels: Any) -> Iterator[tuple[int, dict]]:
                pairs = zip(idx.read_array(Path(images), 3), idx.read_array(Path(labels), 1), strict=True)
                for number, (image, label) in enumerate(pairs):
                    yield number, {"image": Image.fromarray(image), "label": int(label)}

        return type(stock.__name__, (Builder,), {})


def _require_network(url: str) -> None:
    """Raise `DataNotFoundError` unless a server responds at `url` in time; a DNS look-up that hangs is no response."""
    answers: list[str] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_PATIENCE).close()
        except urllib.error.HTTPError:
            pass  # the host responds; the download reports the error
        except Exception as error:  # a captive portal can cause any type
            answers.append(f"no network ({getattr(error, 'reason', error)})")
            return
        answers.append("")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    problem = answers[0] if answers else f"no response within {_PATIENCE:.0f} s"
    if problem:
        raise DataNotFoundError(f"cannot download from {url}: {problem}")
