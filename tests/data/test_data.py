"""Readers of intact and damaged files, the order of the places that are searched, the cache."""

import gzip
import http.server
import json
import os
import socket
import threading
import time
from functools import partial

import numpy as np
import pytest
from conftest import idx_bytes, small_split, write_idx

import vae_jax as vj
from vae_jax.data import idx, load_or_stand_in, tfds
from vae_jax.data.cache import cache_dir
from vae_jax.data.synthetic.digits import _enlarge as enlarge

TRAIN, TEST = small_split(20), small_split(8)


def same(dataset):
    np.testing.assert_array_equal(dataset.train.images, TRAIN.images)
    np.testing.assert_array_equal(dataset.train.labels, TRAIN.labels)
    np.testing.assert_array_equal(dataset.test.images, TEST.images)
    np.testing.assert_array_equal(dataset.test.labels, TEST.labels)
    return True


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_with_and_without_gz(tmp_path, suffix):
    folder = write_idx(tmp_path, TRAIN, TEST, suffix)
    dataset = vj.load("mnist", folder)
    assert same(dataset)
    assert "by their MD5 not the published MNIST" in dataset.source
    assert dataset.event_shape == (6, 6, 1)
    assert dataset.train.labels.dtype == np.int32


def test_the_height_of_idx_images_comes_before_their_width(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 1), dtype=np.uint8)
    split = vj.Split(images, np.arange(4, dtype=np.int32))
    dataset = vj.load("mnist", write_idx(tmp_path, split, split))
    assert dataset.event_shape == (5, 7, 1)
    np.testing.assert_array_equal(dataset.train.images, images)


def test_files_are_found_in_a_subfolder_and_with_a_dot_instead_of_the_dash(tmp_path):
    folder = write_idx(tmp_path / "my_digits", TRAIN, TEST, suffix="")
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    dataset = vj.load("my_digits", tmp_path)
    assert same(dataset)
    assert dataset.name == "my_digits"
    assert "MD5" not in dataset.source


def test_the_source_says_that_files_have_the_published_md5(tmp_path, monkeypatch):
    import hashlib

    folder = write_idx(tmp_path, TRAIN, TEST)
    digests = {
        part: hashlib.md5(gzip.decompress(path.read_bytes())).hexdigest()
        for part, path in idx.find_files("mnist", folder).items()
    }
    monkeypatch.setattr(idx, "_PUBLISHED_MNIST", digests)
    assert "by their MD5 the published MNIST" in vj.load("mnist", folder).source


def damaged(content: bytes, how: str) -> bytes:
    raw = gzip.decompress(content)
    return {
        "truncated gzip": content[: len(content) // 2],
        "flipped byte in gzip": content[:-6] + bytes([content[-6] ^ 255]) + content[-5:],
        "truncated": raw[:-7],
        "too long": raw + b"\0",
        "empty": b"",
        "wrong magic": b"\0\0\x0d" + raw[3:],
        "header cut": raw[:6],
    }[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated gzip", "damaged gzip"),
        ("flipped byte in gzip", "damaged gzip"),
        ("truncated", "its header states"),
        ("too long", "its header states"),
        ("empty", "it is empty"),
        ("wrong magic", "begins with the bytes 00 00 0d 03"),
        ("header cut", "ends within its header"),
    ],
)
def test_a_damaged_file_is_an_error_of_one_sentence_that_names_it(tmp_path, how, message):
    folder = write_idx(tmp_path, TRAIN, TEST)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(vj.DataError, match=message) as caught:
        vj.load("mnist", folder)
    assert "train-images-idx3-ubyte.gz" in str(caught.value)
    assert not cache_dir().exists()


def test_images_in_the_place_of_labels_are_an_error(tmp_path):
    folder = write_idx(tmp_path, TRAIN, TEST)
    labels = (folder / "train-labels-idx1-ubyte.gz").read_bytes()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(labels)
    with pytest.raises(vj.DataError, match="3 dimensions begins with 00 00 08 03"):
        vj.load("mnist", folder)


def test_different_numbers_of_images_and_labels_are_an_error(tmp_path):
    folder = write_idx(tmp_path, TRAIN, TEST, suffix="")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(TRAIN.labels[:-1]))
    with pytest.raises(vj.DataError, match="20 images but labels of shape"):
        vj.load("mnist", folder)


def test_a_file_without_images_is_an_error(tmp_path):
    folder = write_idx(tmp_path, TRAIN, TEST, suffix="")
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((0, 6, 6))))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(0)))
    with pytest.raises(vj.DataError, match=r"shape \(0, 6, 6, 1\)"):
        vj.load("mnist", folder)


def test_a_missing_file_is_an_error(tmp_path):
    folder = write_idx(tmp_path, TRAIN, TEST)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(vj.DataError, match="lacks t10k-labels-idx1-ubyte"):
        vj.load("mnist", folder)


def test_a_folder_without_the_data_is_an_error_even_for_auto(tmp_path):
    for load in (vj.load, load_or_stand_in):
        with pytest.raises(vj.DataNotFoundError, match="no IDX files"):
            load("mnist", tmp_path)
        with pytest.raises(vj.DataNotFoundError, match="does not exist"):
            load("mnist", tmp_path / "nowhere")


def refuse(*args, **kwargs):
    raise OSError("Network is unreachable")


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_without_a_network_the_search_ends_in_time_and_lists_the_places():
    start = time.perf_counter()
    with pytest.raises(vj.DataNotFoundError, match=r"no network.*Three ways to supply it"):
        vj.load("mnist")
    data, sentence = load_or_stand_in("mnist")
    assert time.perf_counter() - start < 10  # twice the 5 s that one search may take
    assert data.name == "digits"
    assert "Tried" in sentence
    assert "digits" in sentence


def test_a_network_without_a_response_is_given_up(monkeypatch):
    ended = threading.Event()

    def hang(*args, **kwargs):
        ended.wait(30)
        raise OSError("no response")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(tfds, "_PATIENCE", 0.2)
    with pytest.raises(vj.DataNotFoundError, match="no response within"):
        vj.load("mnist")
    ended.set()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["my-digits", "my digits", "", "mnist:9.9.9", "mnist/foo", "huggingface:x", "emnist"])
def test_a_name_that_tfds_does_not_have_is_an_error_of_one_sentence(name, tmp_path):
    for data_dir in (None, tmp_path):
        with pytest.raises(vj.DataNotFoundError, match="was not found") as caught:
            vj.load(name, data_dir)
        assert "\n" not in str(caught.value)


def test_a_slash_in_a_name_makes_no_folder_in_the_cache(tmp_path):
    folder = write_idx(tmp_path / "a" / "b", TRAIN, TEST)
    assert same(vj.load("a/b", tmp_path))
    assert folder.is_dir()
    (entry,) = cache_dir().iterdir()
    assert entry.name.startswith("a_b-")


def test_the_subfolder_of_that_name_is_searched_first(tmp_path):
    write_idx(tmp_path, TEST, TRAIN)
    write_idx(tmp_path / "fashion_mnist", TRAIN, TEST)
    assert same(vj.load("fashion_mnist", tmp_path))


@pytest.mark.usefixtures("no_network")
def test_an_unknown_name_is_an_error():
    with pytest.raises(vj.DataNotFoundError, match="TFDS has no data set 'mnits'"):
        vj.load("mnits")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """The URLs of the builders of TFDS point to a server on this machine; everything else is unchanged."""
    from tensorflow_datasets.image_classification import mnist

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = write_idx(tmp_path / "www", TRAIN, TEST)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for stock in (mnist.MNIST, mnist.FashionMNIST):
        monkeypatch.setattr(stock, "URL", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setattr(stock, "url_infos", {})
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path / "stock"))
    yield folder
    server.shutdown()
    server.server_close()


def test_download_prepare_and_read_again_without_tensorflow(mirror):
    import tensorflow_datasets

    first = vj.load("mnist")
    assert same(first), "the order of the files is not kept"
    assert first.source == "TFDS, mnist/3.0.1"
    assert same(vj.load("fashion_mnist")), "a second download in one process"
    downloads = cache_dir() / "tensorflow_datasets"
    assert same(vj.load("mnist", downloads)), "prepared data are found in a data folder too"
    stock = tensorflow_datasets.data_source("mnist", split="test", data_dir=downloads, download=False)
    np.testing.assert_array_equal(stock[3]["image"], TEST.images[3])
    for path in mirror.iterdir():
        path.unlink()
    assert same(vj.load("mnist")), "a download is not repeated"
    next(downloads.glob("mnist/*/mnist-train*")).write_bytes(b"broken")
    with pytest.raises(vj.DataError, match="cannot be read"):
        vj.load("mnist")


def test_a_failed_download_can_be_repeated(mirror):
    image_file = mirror / "train-images-idx3-ubyte.gz"
    content = image_file.read_bytes()
    image_file.unlink()
    with pytest.raises(vj.DataNotFoundError, match=r"the download from .* failed"):
        vj.load("mnist")
    image_file.write_bytes(content)
    assert same(vj.load("mnist"))


def test_a_prepared_data_set_that_needs_tensorflow_is_skipped(mirror, tmp_path):
    vj.load("mnist")
    prepared = next((cache_dir() / "tensorflow_datasets").glob("mnist/*"))
    stock = tmp_path / "stock" / "mnist" / prepared.name
    stock.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        (stock / name).write_text((prepared / name).read_text().replace("array_record", "tfrecord"))
    assert same(vj.load("mnist"))
    with pytest.raises(vj.DataNotFoundError, match="stored as tfrecord, which needs TensorFlow"):
        vj.load("mnist", tmp_path / "stock")


def test_a_second_load_reads_the_cache(tmp_path, monkeypatch):
    folder = write_idx(tmp_path, TRAIN, TEST)
    first = vj.load("mnist", folder)
    monkeypatch.setattr(idx, "read_dataset", lambda *args: pytest.fail("decoded again"))
    second = vj.load("mnist", folder)
    assert same(second)
    assert isinstance(second.train.images, np.memmap)
    assert (second.source, second.train.digest) == (first.source, first.train.digest)


def test_changed_files_are_decoded_again(tmp_path):
    vj.load("mnist", write_idx(tmp_path, TRAIN, TEST))
    dataset = vj.load("mnist", write_idx(tmp_path, TEST, TRAIN))
    assert len(dataset.train) == len(TEST)


def test_changed_files_of_the_same_size_are_decoded_again(tmp_path):
    folder = write_idx(tmp_path, TRAIN, TEST, suffix="")
    vj.load("mnist", folder)
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(idx_bytes(255 - TRAIN.images[..., 0]))
    os.utime(path, (0, 0))
    np.testing.assert_array_equal(vj.load("mnist", folder).train.images, 255 - TRAIN.images)


@pytest.mark.parametrize("how", ["truncated", "flipped byte", "no manifest", "manifest of another kind"])
def test_a_damaged_cache_is_decoded_again(tmp_path, how):
    folder = write_idx(tmp_path, TRAIN, TEST)
    vj.load("mnist", folder)
    (entry,) = cache_dir().iterdir()
    pixels, manifest = entry / "train_images.npy", entry / "dataset.json"
    content = pixels.read_bytes()
    if how == "truncated":
        pixels.write_bytes(content[:-5])
    elif how == "flipped byte":
        pixels.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    elif how == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(json.dumps([1]))
    assert same(vj.load("mnist", folder))
    assert pixels.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot cache mnist"):
        dataset = vj.load("mnist", write_idx(tmp_path / "data", TRAIN, TEST))
    assert same(dataset)


def test_bundled_digits_look_like_mnist():
    digits = vj.load("digits")
    assert digits.train.images.shape == (1437, 28, 28, 1)
    assert digits.test.images.shape == (360, 28, 28, 1)
    assert digits.train.images.max() == 255
    assert digits.train.images[:, :4].max() == 0
    from sklearn.datasets import load_digits

    # The averages of the 20 x 20 box over 4 x 4 parts are those of the original, up to interpolation at the edges.
    coarse = digits.train.images[:, 4:24, 4:24, 0].reshape(-1, 4, 5, 4, 5).mean((2, 4)) / 255
    original = load_digits().images[:1437].reshape(-1, 4, 2, 4, 2).mean((2, 4)) / 16
    assert np.corrcoef(coarse.ravel(), original.ravel())[0, 1] > 0.97


def test_digits_are_enlarged_about_their_centre():
    small = np.random.default_rng(0).integers(0, 17, (3, 8, 8)).astype(float)
    turned = enlarge(small[:, ::-1, ::-1])[:, ::-1, ::-1].astype(int)
    np.testing.assert_allclose(turned, enlarge(small), atol=1)


def test_the_digest_depends_on_shapes_pixels_and_labels():
    images, labels = np.arange(48, dtype=np.uint8).reshape(2, 4, 6, 1), np.array([0, 1], np.int32)
    variants = [
        vj.Split(images, labels),
        vj.Split(images),
        vj.Split(images, labels[::-1]),
        vj.Split(images[:, ::-1], labels),
        vj.Split(images.reshape(2, 6, 4, 1), labels),
    ]
    assert len({split.digest for split in variants}) == len(variants)
    assert vj.Split(images.copy(), labels.copy()).digest == variants[0].digest


def test_a_negative_label_is_refused():
    with pytest.raises(vj.DataError, match="the smallest label is -1"):
        vj.Split(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, -1], np.int32))


def test_hold_out_takes_the_last_training_images():
    images = np.arange(5)[:, None, None] * np.ones((1, 4, 4), int)
    dataset = vj.Dataset.from_arrays("own", images, test_images=images)
    held = dataset.hold_out(2)
    assert held.train.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert held.test.images[:, 0, 0, 0].tolist() == [3, 4]
    assert held.name == "own_held_out"
    with pytest.raises(vj.DataError, match="hold out 5 of 5"):
        dataset.hold_out(5)


def test_the_old_name_of_the_event_shape_warns():
    for data in (TRAIN, vj.Dataset("own", TRAIN, TEST, "drawn")):
        with pytest.warns(DeprecationWarning, match="image_shape is now called event_shape"):
            assert data.image_shape == data.event_shape
