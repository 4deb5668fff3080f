"""3 x 3 convolution of stride 1, with an implementation for CPUs that is fast in the loops of a compiled epoch.

GPU and TPU use the native convolution of XLA. On a CPU its forward pass is fast, but its gradients are 40 to 80 times
slower if the train step is inside a `scan` or a `while_loop`, because their axes are permuted. There, wide layers use
the minimal filtering of Winograd, which needs 16 multiplications for 2 x 2 pixels of the output instead of 36, and
consists of matrix products. For narrow layers and images of odd height or width, each gradient is written as a
convolution with the usual order of axes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Image = Float[Array, "batch height width channels"]
Kernel = Float[Array, "3 3 channels features"]

# Transforms of F(2 x 2, 3 x 3), Lavin and Gray (2016), section 4.1. Those of images consist of sums only.
_KERNEL_TRANSFORM = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_LEAST_CHANNELS = 10  # half the harmonic mean of channels and features from which on Winograd's filtering is faster


@jax.custom_vjp
def conv3x3(x: Image, kernel: Kernel) -> Float[Array, "batch height width features"]:
    """3 x 3 convolution with zero padding of one pixel, without a bias; only reverse-mode derivatives.

    Args:
      x: Images, [batch, height, width, channels].
      kernel: Kernel, [3, 3, channels, features].

    Returns:
      Images of the same height and width, [batch, height, width, features].
    """
    return jax.lax.platform_dependent(x, kernel, cpu=_on_cpu, default=_natively)


def _gradients(arguments: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    return jax.lax.platform_dependent(*arguments, g, cpu=_gradients_on_cpu, default=_native_gradients)


conv3x3.defvjp(lambda x, kernel: (conv3x3(x, kernel), (x, kernel)), _gradients)


def _natively(x: Array, kernel: Array) -> Array:
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=axes)


def _native_gradients(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    return jax.vjp(_natively, x, kernel)[1](g)


def _on_cpu(x: Array, kernel: Array) -> Array:
    return _by_winograd(x, kernel) if _suits_winograd(x, kernel) else _natively(x, kernel)


def _gradients_on_cpu(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    if _suits_winograd(x, kernel):
        return jax.vjp(_by_winograd, x, kernel)[1](g)
    # The gradient of the kernel is a convolution of images with a channel per example, one image per channel of x. The
    # first barrier keeps the layers that x and g come from out of the transposes, which would compute them again, and
    # the second keeps the transposes out of the convolution, which would then be slow.
    x, kernel, g = jax.lax.optimization_barrier((x, kernel, g))
    images, weights = jax.lax.optimization_barrier((x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)))
    return _natively(g, kernel[::-1, ::-1].transpose(0, 1, 3, 2)), _natively(images, weights).transpose(1, 2, 0, 3)


def _suits_winograd(x: Array, kernel: Array) -> bool:
    channels, features = kernel.shape[2:]
    even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    return even and channels * features >= _LEAST_CHANNELS * (channels + features)


def _by_winograd(x: Array, kernel: Array) -> Array:
    """The convolution as 16 matrix products, one for each entry of the transformed tiles of 4 x 4 pixels.

    The tiles overlap by two pixels, and each gives 2 x 2 pixels of the output.
    """
    batch, height, width, channels = x.shape
    h, w, features = height // 2, width // 2, kernel.shape[-1]
    transform = jnp.asarray(_KERNEL_TRANSFORM, kernel.dtype)
    kernels = jnp.einsum("ai,bj,ijcf->abcf", transform, transform, kernel)
    pairs = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(batch, h + 1, 2, w + 1, 2, channels)
    products = []
    for a, row in enumerate(_tile(pairs[:, :h, 0], pairs[:, :h, 1], pairs[:, 1:, 0], pairs[:, 1:, 1])):
        tiles = _tile(row[:, :, :w, 0], row[:, :, :w, 1], row[:, :, 1:, 0], row[:, :, 1:, 1])
        of_row = [tile.reshape(-1, channels) @ kernels[a, b] for b, tile in enumerate(tiles)]
        products.append(_pair(*of_row))
    rows = [_pair(*(pair[column] for pair in products)) for column in (0, 1)]  # [column][row]
    pixels = jnp.stack([jnp.stack([rows[0][i], rows[1][i]], axis=1) for i in (0, 1)], axis=1)
    return pixels.reshape(batch, h, w, 2, 2, features).transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, -1)


def _tile(a: Array, b: Array, c: Array, d: Array) -> list[Array]:
    """Transform of the four pixels of a tile along one axis."""
    return [a - c, b + c, c - b, b - d]


def _pair(a: Array, b: Array, c: Array, d: Array) -> list[Array]:
    """Two pixels of the output from the four products along one axis."""
    return [a + b + c, b - c - d]
