"""The file of compressed images: a header, the words of the entropy coder, and a SHA-256 of both.

| bytes | content |
|---|---|
| 7 | "VAE_JAX" |
| 1 | format |
| 4 | number of bytes of the header, little-endian |
| | header, JSON |
| | words of the coder, 32 bits each, little-endian, and zeros up to one byte per image |
| 32 | SHA-256 of everything before |

Because of the zeros, which are rarely needed, no file has fewer bytes than images. A reader therefore refuses a number
of images that would take memory out of proportion to the file.
"""

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt32

from vae_jax.errors import DataError, InputError

FORMAT = 1
_MAGIC = b"VAE_JAX"
_PREFIX = struct.Struct("<7sBI")
_DIGEST = hashlib.sha256().digest_size


class Content(NamedTuple):
    """Content of a file.

    Attributes:
      images: Number of images.
      model: SHA-256 of the model and its variables.
      environment: Description of the environment, by name.
      words: Words of the coder.
    """

    images: int
    model: str
    environment: dict[str, str]
    words: UInt32[np.ndarray, " words"]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of `path` at the end, or is removed if there is an exception.

    Raises:
      InputError: The file cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected the path of a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror or error}); choose another path") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def pack(content: Content) -> bytes:
    """The bytes of a file with this content."""
    described = content._asdict() | {"words": len(content.words)}
    header = json.dumps(described, separators=(",", ":")).encode()
    payload = content.words.astype("<u4").tobytes().ljust(content.images, b"\0")
    body = _PREFIX.pack(_MAGIC, FORMAT, len(header)) + header + payload
    return body + hashlib.sha256(body).digest()


def unpack(path: Path) -> Content:
    """The content of a file.

    Raises:
      DataError: The file cannot be read, is no file of compressed images, has another format, or is damaged.
    """
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error}); expected a file of vj.compress") from error
    body, digest = whole[:-_DIGEST], whole[-_DIGEST:]
    if not whole.startswith(_MAGIC) or len(body) < _PREFIX.size:
        raise DataError(f"{path} is not, or only the beginning of, a file of vj.compress; expected a whole one")
    _, version, size = _PREFIX.unpack_from(body)
    if version != FORMAT:
        raise DataError(f"{path} has format {version}, and this version reads {FORMAT}; take the version that wrote it")
    if hashlib.sha256(body).digest() != digest:
        raise DataError(f"{path} is damaged, as its SHA-256 is another one than it says; take another copy of it")
    try:
        return _content(body[_PREFIX.size :][:size], body[_PREFIX.size + size :])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"the header of {path} is not one of vj.compress ({error}); expected a file of it") from error


def _content(header: bytes, payload: bytes) -> Content:
    described: dict[str, Any] = json.loads(header)
    images, words = described["images"], described["words"]
    if not (type(images) is int and 1 <= images <= len(payload)):
        raise ValueError(f"it claims {images} images in {len(payload):,} bytes")
    if not (type(words) is int and 1 <= words <= len(payload) // 4):
        raise ValueError(f"it claims {words} words in {len(payload):,} bytes")
    found = np.frombuffer(payload, "<u4", words)
    if found[-1] == 0:
        raise ValueError("its last word is 0")
    return Content(**described | {"words": found})
