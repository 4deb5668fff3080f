"""3 x 3 convolution of stride 1, with an implementation for CPUs that is fast in the loops of a compiled epoch.

GPU and TPU use the native convolution of XLA. On a CPU its forward pass is fast, but its gradients are 40 to 80 times
slower if the train step is inside a `scan` or a `while_loop`, because their axes are permuted. There, wide layers use
Winograd's minimal filtering F(2 x 2, 3 x 3), which needs 16 products for 2 x 2 pixels of the output instead of 36
(Lavin and Gray, 2016, section 4.1, with the sign of one product changed). For narrow layers and images of odd height or
width, each gradient is written as a convolution with the usual order of axes.
"""

import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.networks.winograd import Grid, along_both, first_with_first, flattened, image_of, pixels_of, products

Image = Float[Array, "batch height width channels"]
Kernel = Float[Array, "3 3 channels features"]

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
        return _gradients_by_winograd(x, kernel, g)
    # The gradient of the kernel is a convolution of images with a channel per example, one image per channel of x. The
    # first barrier keeps the layers that x and g come from out of the transposes, which would compute them again, and
    # the second keeps the transposes out of the convolution, which would then be slow.
    x, kernel, g = jax.lax.optimization_barrier((x, kernel, g))
    images, weights = jax.lax.optimization_barrier((x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)))
    return _natively(g, _mirrored(kernel)), _natively(images, weights).transpose(1, 2, 0, 3)


def _suits_winograd(x: Array, kernel: Array) -> bool:
    channels, features = kernel.shape[2:]
    even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    return even and channels * features >= _LEAST_CHANNELS * (channels + features)


def _by_winograd(x: Array, kernel: Array) -> Array:
    of_tiles = products(operator.matmul, _image_tiles(x), along_both(_of_kernel, [list(row) for row in kernel]))
    return image_of(along_both(_pairs, of_tiles), (*x.shape[:3], kernel.shape[3]))


def _gradients_by_winograd(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    of_tiles = products(first_with_first, _image_tiles(x), flattened(along_both(_transposed_pairs, pixels_of(g))))
    by_kernel = jnp.stack([jnp.stack(row) for row in along_both(_transposed_of_kernel, of_tiles)])
    return _by_winograd(g, _mirrored(kernel)), by_kernel


def _mirrored(kernel: Array) -> Array:
    """Kernel of the transposed convolution."""
    return kernel[::-1, ::-1].transpose(0, 1, 3, 2)


def _image_tiles(x: Array) -> Grid:
    """Transformed tiles of 4 x 4 pixels, which overlap by two pixels: 4 x 4 arrays [tiles, C]."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    parts = [[padded[:, i : i + height : 2, j : j + width : 2] for j in range(4)] for i in range(4)]
    return flattened(along_both(_of_image, parts))


def _of_image(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, ...]:
    return a - c, b + c, c - b, d - b


def _of_kernel(a: Array, b: Array, c: Array) -> tuple[Array, ...]:
    return a, 0.5 * (a + b + c), 0.5 * (a - b + c), c


def _transposed_of_kernel(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, ...]:
    return a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d


def _pairs(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, ...]:
    return a + b + c, b - c + d


def _transposed_pairs(a: Array, b: Array) -> tuple[Array, ...]:
    return a, a + b, a - b, b
