"""Eight virtual devices and JAX at its strictest, before anything imports it."""

import os
from importlib.metadata import version

os.environ["JAX_PLATFORMS"] = os.environ.get("TESTS_ON", "cpu")  # such as "cuda,cpu"
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads of NumPy; the workers of pytest-xdist share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")  # those of scikit-learn
# Unoptimised, since tests compile much and compute little. Without fusion emitters XLA compiles in a third of the time,
# into code that rounds differently, and as one module per program in a quarter less. These two options are given to the
# releases that are known to have them, as XLA refuses others.
os.environ.setdefault("TESTS_OF_USUAL_CODE", "" if version("jaxlib").startswith("0.10.") else "yes")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
    if not os.environ["TESTS_OF_USUAL_CODE"]:
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
else:
    os.environ["XLA_FLAGS"] += " --xla_gpu_deterministic_ops=true"

import gc
import gzip
import inspect
import math
import sys
import typing
from pathlib import Path

import jax
import numpy as np
import pytest

from vae_jax.data import Split
from vae_jax.data.cifar import TEST, TRAIN
from vae_jax.data.idx import FILES

sys.path += [str(folder) for folder in Path(__file__).parent.iterdir() if folder.is_dir()]  # for what tests share

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

if sys.version_info < (3, 12):
    # Else each check of an annotation that is a protocol computes the properties of the argument, such as the variance
    # of a flow; later releases of Python look them up in this way.
    typing.hasattr = lambda instance, name: inspect.getattr_static(instance, name, ...) is not ...


LONG = ("test_hosts", "test_experiments", "test_documents", "test_notebooks")  # files that start first
QUICK = {  # the start of the name of the test that --quick runs where the first test of a file takes seconds
    "test_anomaly_detection": "test_entropy",
    "test_classifier": "test_at_least",
    "test_colourisation": "test_conversion",
    "test_documents": "test_every_public_name",
    "test_ensemble": "test_members_spread",
    "test_experiments": "test_mnist_samples",
    "test_feeding": "test_windows_hold",
    "test_hosts": None,
    "test_legibility": "test_share",
    "test_pca_start": "test_a_run_starts",
}


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="run one test of each file, in less than a minute")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.path.stem not in LONG)  # else the last test to end is one of them
    if config.getoption("quick"):
        chosen = {}
        for item in items:
            start = QUICK.get(item.path.stem, "")
            if start is not None and item.name.startswith(start):
                chosen.setdefault(item.path, item)
        config.hook.pytest_deselected(items=[item for item in items if chosen.get(item.path) is not item])
        items[:] = chosen.values()


def pytest_collection_finish():
    """What is there before the tests stays, so that it need not be searched for garbage during each of them."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture(scope="module", autouse=True)
def _few_mappings():
    """Clears JAX's caches of compiled programs long before the process has 65,530 memory mappings, Linux's limit."""
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's caches or data sets."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(home / "tensorflow_datasets"))


@pytest.fixture(autouse=True)
def _classifiers_of_few_steps(monkeypatch):
    """In scripts, which otherwise train their classifiers for thousands of steps."""
    monkeypatch.setattr("harness.run.Run.steps_or_smoke", lambda run, default: 5)


@pytest.fixture(autouse=True)
def _small_pictures(request, monkeypatch):
    """Scripts draw with a third of their usual resolution, except in tests that check the size of their pictures."""
    if not request.node.get_closest_marker("usual_pictures"):
        monkeypatch.setattr("harness.report.DPI", 43)


def drawn(init, *arguments, seed=0):
    """Variables as `init(*arguments)` returns them, but drawn by NumPy: nothing is compiled, as initialisers are."""
    generator = np.random.default_rng(seed)

    def draw(path, leaf):
        if leaf.ndim > 1:
            entries = generator.normal(0, math.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        else:
            entries = np.full(leaf.shape, path[-1].key in ("scale", "var"))
        return jax.device_put(entries.astype(leaf.dtype))  # jnp.asarray compiles a program for each shape

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(init, *arguments))


def small_split(count: int = 96, size: int = 6, seed: int = 0) -> Split:
    """Images of noise, with two bright rows that tell their class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % 3
    images = generator.integers(0, 100, (count, size, size, 1), dtype=np.uint8)
    for label in range(3):
        images[labels == label, 2 * label : 2 * label + 2] += 150
    return Split(images, labels)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, train: Split, test: Split, suffix: str = ".gz") -> Path:
    """The four IDX files of two splits."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train_images": train.images[..., 0],
        "train_labels": train.labels,
        "test_images": test.images[..., 0],
        "test_labels": test.labels,
    }
    for part, array in arrays.items():
        content = idx_bytes(array)
        (folder / f"{FILES[part]}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return folder


def cifar_bytes(images: np.ndarray, labels: np.ndarray) -> bytes:
    """CIFAR-10's published layout: a label, then the planes of red, green and blue, row by row, of each image."""
    content = b""
    for image, label in zip(images, labels, strict=True):
        content += bytes([label]) + b"".join(image[:, :, channel].tobytes() for channel in range(3))
    return content


def write_cifar(folder: Path, train: Split, test: Split) -> Path:
    """CIFAR-10's six binary files of two splits of 32 x 32 colour images."""
    folder.mkdir(parents=True, exist_ok=True)
    fifths = np.array_split(np.arange(len(train)), 5)
    for name, split in zip((*TRAIN, TEST), (*(train[rows] for rows in fifths), test), strict=True):
        (folder / name).write_bytes(cifar_bytes(split.images, split.labels))
    return folder


@pytest.fixture
def tiny(tmp_path):
    """A folder with 96 training and 40 test images."""
    return write_idx(tmp_path / "data", small_split(96), small_split(40, seed=1))


@pytest.fixture
def titles(monkeypatch):
    """The texts of every figure that a script saves."""
    from harness.run import Run  # imported here, because programs that run without pytest import this module
    from matplotlib.text import Text

    found = {}

    def save(self, part, figure):
        found[part] = " ".join(text.get_text() for text in figure.findobj(Text))
        original(self, part, figure)

    original = Run.save
    monkeypatch.setattr(Run, "save", save)
    return found
