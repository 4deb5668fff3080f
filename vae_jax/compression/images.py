"""Compress images to a file and back: one chain of bits-back coding over all images."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8, UInt32

from vae_jax.compression.container import Content, pack, replacing, unpack
from vae_jax.compression.environment import difference, environment, model_digest
from vae_jax.data.transforms import LEVELS
from vae_jax.distributions import DiagonalGaussian, StandardNormal
from vae_jax.errors import DataError, InputError, is_traced, named, require_finite_variables, require_path
from vae_jax.models import VAE, Variables

_CHECKSUM_WORDS = 8  # 256 bits


def compress(path: Any, vae: Any, variables: Any, images: Any) -> None:
    """Compress images to a file without loss, by bits-back coding (Townsend et al., 2019, BB-ANS).

    The file has about -ELBO / log(2) bits per image. Coding starts from bits of the SHAKE-256 digest of the images, and
    `decompress` compares what is left with the digest of the images that it has decoded. The network calls have the
    shape of one image and run on the CPU. The file is written atomically.

    >>> vae = vj.mlp_vae((8, 8, 1), latent_dim=2, hidden=(16,))
    >>> variables = vae.init(jax.random.key(0))
    >>> images = np.eye(8, dtype=np.uint8)[None, :, :, None]
    >>> vj.compress("eye.vae", vae, variables, images)
    >>> bool((vj.decompress("eye.vae", vae, variables) == images).all())
    True

    Args:
      path: Path of the file; a file that exists there is replaced.
      vae: VAE with a `DiagonalGaussian` posterior, a `StandardNormal` prior, and a likelihood of at most 256 levels
        with a `pmf`, such as `Bernoulli` of bits, and `DiscretisedLogistic` or `MixtureOfLogistics` of bytes.
      variables: Variables of the model, which `decompress` needs too.
      images: Bytes [n, *event], from 0 to 255, or from 0 to 1 for a likelihood of bits.

    Raises:
      InputError: The model is of another kind, or the variables are not finite or of another model. There are no
        images, they are no bytes, or they have another shape or values without a probability. The file cannot be
        written.
    """
    model = _require_model(vae, variables)
    images = _require_images(images, vae)
    with replacing(_as_path(path)) as file:
        words = _encode(vae, variables, images)
        file.write(pack(Content(len(images), model, environment(), words)))


def decompress(path: Any, vae: Any, variables: Any) -> UInt8[np.ndarray, "n ..."]:
    """The images of a file that `compress` has written with the same model and variables.

    The numbers of the networks must be the same to the last bit. In the environment of the file (versions, processor,
    settings) the images come back. In another environment the images come back or there is an error.

    Args:
      path: Path of the file.
      vae: VAE that compressed the images.
      variables: Its variables.

    Returns:
      Bytes [n, *event].

    Raises:
      DataError: The file cannot be read, is damaged, has another format, is of another model or other variables, or
        cannot be decoded in this environment.
      InputError: The model is of another kind, or the variables are not finite or of another model.
    """
    path = _as_path(path)
    content = unpack(path)
    if content.model != _require_model(vae, variables):
        raise DataError(f"{path} is of another model or of other variables; expected those that compressed the images")
    images, is_same = _decode(vae, variables, content)
    if is_same:
        return images
    other = difference(content.environment, environment())
    reason = f"its environment was another one: {other}" if other else "the same environment gave other numbers"
    raise DataError(f"{path} cannot be decompressed, because {reason}; decompress it where it was written")


def _encode(vae: VAE, variables: Variables, images: UInt8[np.ndarray, "n ..."]) -> UInt32[np.ndarray, " words"]:
    from constriction import stream  # imported here, as nothing else of the library needs the coder

    from vae_jax.compression.bits_back import append, networks_of

    coder, networks = stream.stack.AnsCoder(_first_words(images, vae.latent_dim)), networks_of(vae, variables)
    for number in reversed(range(len(images))):
        append(coder, networks, number, images[number])
    return coder.get_compressed()


def _decode(vae: VAE, variables: Variables, content: Content) -> tuple[UInt8[np.ndarray, "n ..."], bool]:
    """The images, and whether the coder is left with the bits from which these images are encoded."""
    from constriction import stream

    from vae_jax.compression.bits_back import networks_of, remove

    coder, networks = stream.stack.AnsCoder(content.words), networks_of(vae, variables)
    images = np.empty((content.images, *vae.event_shape), np.uint8)
    for number in range(len(images)):
        images[number] = remove(coder, networks, number)
    return images, np.array_equal(coder.get_compressed(), _first_words(images, vae.latent_dim))


def _first_words(images: UInt8[np.ndarray, "n ..."], latent_dim: int) -> UInt32[np.ndarray, " words"]:
    """Words from which coding starts: a digest of the images that is long enough to decode the first latents."""
    from vae_jax.compression.bins import BINS

    size = 4 * (_CHECKSUM_WORDS + -(-latent_dim * (BINS - 1).bit_length() // 32))
    digest = np.frombuffer(hashlib.shake_256(images.tobytes()).digest(size), "<u4")
    return np.append(digest, 1).astype(np.uint32)  # the coder ignores zeros at the end


def _as_path(path: Any) -> Path:
    require_path("the path of a file", path=path)
    return Path(path)


def _require_model(vae: Any, variables: Any) -> str:
    """The digest of a model and its variables; raises `InputError` unless they can compress."""
    if not isinstance(vae, VAE):
        raise InputError(f"vae is {named(vae)}; expected a VAE")
    if is_traced((vae, variables)):
        raise InputError("the variables are traced; expected concrete ones, as a file cannot be a part of jax.jit")
    if vae.is_conditional:
        raise InputError("the model is conditional; expected one without classes and condition_shape")
    if vae.posterior is not DiagonalGaussian:
        name = getattr(vae.posterior, "__name__", vae.posterior)
        raise InputError(f"the posterior is {name}; expected vj.DiagonalGaussian, as latents are coded one by one")
    if not isinstance(vae.prior, StandardNormal):
        raise InputError(f"the prior is {vae.prior}; expected vj.StandardNormal(), whose bins have equal mass")
    digest = model_digest(vae, variables)
    require_finite_variables(variables)
    if not 2 <= (vae.likelihood.support.levels or 0) <= LEVELS or not _has_pmf(vae, variables):
        raise InputError(
            f"the likelihood is {vae.likelihood}; expected one of bits or bytes with a pmf, such as vj.Bernoulli() or "
            "vj.DiscretisedLogistic()"
        )
    return digest


def _has_pmf(vae: VAE, variables: Variables) -> bool:
    def pmf(variables: Variables, z: Array) -> Array | None:
        px_z = vae.decode(variables, z)
        return px_z.pmf() if hasattr(px_z, "pmf") else None

    return jax.eval_shape(pmf, variables, jnp.zeros((1, vae.latent_dim))) is not None


def _require_images(images: Any, vae: VAE) -> UInt8[np.ndarray, "n ..."]:
    if is_traced(images):
        raise InputError("the images are traced; expected concrete ones, as a file cannot be a part of jax.jit")
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise InputError(f"images have dtype {images.dtype}; expected uint8, such as np.uint8(images) of bits")
    if images.shape[1:] != vae.event_shape or not len(images):
        raise InputError(f"images have shape {images.shape}; expected one or more of {vae.event_shape}")
    levels = vae.likelihood.support.levels
    if images.max() >= levels:
        raise InputError(
            f"images have values up to {images.max()}; {vae.likelihood} takes whole numbers below {levels}"
        )
    return images
