"""Published parameters of feature networks, read from files that can't run code."""

import io
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from vae_jax.data.places import read_bytes
from vae_jax.errors import DataError, InputError, require_path, some
from vae_jax.models import Variables
from vae_jax.networks import VGG19

PUBLISHED = VGG19()

_POOLS = 1  # layers of torchvision's `features` between two blocks; a convolution and its ReLU are two layers


def load_vgg19(path: Any, network: VGG19 = PUBLISHED) -> Variables:
    """The variables of `VGG19` from a file with torchvision's arrays, "features.0.weight" to "features.34.bias".

    Only `.safetensors` and `.npz` are read, because reading a pickle (`.pth`) can run any code in it. Arrays of the
    dense layers are ignored. PyTorch converts the published file:

        np.savez("vgg19.npz", **{k: v.numpy() for k, v in torch.load("vgg19.pth", weights_only=True).items()})

    Args:
      path: File. `.safetensors` needs the package safetensors (`pip install vae_jax[features]`).
      network: Network whose variables are read; another one than `VGG19()` has other widths.

    Returns:
      The variables, for `TrainState.frozen["features"]`.

    Raises:
      InputError: The path is none, has another extension, or the package is missing.
      DataError: The file is damaged, contains a pickle, or lacks an array or has one of another shape.
    """
    require_path("a .safetensors or .npz file", path=path)
    arrays = _arrays(Path(path))
    params, channels, layer = {}, 3, 0
    for width, names in zip(network.widths, network.names(), strict=True):
        for name in names:
            kernel = _array(arrays, f"features.{layer}.weight", (width, channels, 3, 3), path)
            bias = _array(arrays, f"features.{layer}.bias", (width,), path)
            params[name] = {"kernel": jnp.asarray(kernel.transpose(2, 3, 1, 0)), "bias": jnp.asarray(bias)}
            channels, layer = width, layer + 2
        layer += _POOLS
    return {"params": params}


def _array(arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...], path: Any) -> np.ndarray:
    if name not in arrays:
        raise DataError(
            f"{path} has no array {name}, but {some(sorted(arrays)) or 'none at all'}; expected the arrays of "
            "torchvision's VGG-19"
        )
    if arrays[name].shape != shape:
        raise DataError(f"{path}: {name} has shape {arrays[name].shape}; expected {shape} of torchvision's VGG-19")
    return arrays[name].astype(np.float32)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name."""
    readers = {".npz": _npz, ".safetensors": _safetensors}
    if path.suffix not in readers:
        raise InputError(
            f"{path} has the extension {path.suffix!r}; expected .safetensors or .npz: a pickle, such as .pth, is "
            "never read, and load_vgg19 says how to convert one"
        )
    return readers[path.suffix](read_bytes(path), path)


def _npz(content: bytes, path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(io.BytesIO(content)):  # np.load would try other formats, of which one is a pickle
        raise DataError(f"{path} is damaged or is no .npz archive; convert or copy it again")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read ({error}); expected arrays of numbers, without pickles") from error


def _safetensors(content: bytes, path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError as error:
        raise InputError(f"{path} needs the package safetensors; pip install vae_jax[features]") from error
    try:
        return dict(load(content))
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged or is no .safetensors file ({error}); copy it again") from error
