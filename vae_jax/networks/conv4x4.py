"""4 x 4 convolution of stride 2, its transpose, and their gradients, with a fast implementation on CPUs.

With zero padding of one pixel, a kernel k [4, 4, C, F] maps x [B, 2h, 2w, C] to y [B, h, w, F]. The three functions
of this module belong to one trilinear form,

    <downsample(x, k), y> = <x, upsample(y, k)> = <k, correlate(x, y)>,

so the gradients of each function are the other two. GPU and TPU use the native convolution of XLA. On a CPU this is
slow, and its gradients are many times slower, so there each function consists of matrix products.

In blocks of 2 x 2 pixels, the convolution is one of 2 x 2 blocks and stride 1. Winograd's minimal filtering F(2 x 2,
2 x 2) needs 9 products for 2 x 2 pixels of y instead of 16:

    pixels of y = pairs(differences(blocks of x) * sums(blocks of k)),

where `pairs` is the transpose of `sums`. With few channels the transforms cost more than they save. Then, and for sizes
that are no multiples of four, there is one product of rows of copied pixels.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

from vae_jax.errors import InputError
from vae_jax.networks.winograd import Grid, along_both, first_with_first, flattened, image_of, pixels_of, products

Image = Float[Array, "batch height width channels"]
Half = Float[Array, "batch h w features"]
Kernel = Float[Array, "4 4 channels features"]

_LEAST_CHANNELS = 7  # half the harmonic mean of channels and features from which on Winograd's filtering is faster


@jax.custom_vjp
def downsample(x: Image, kernel: Kernel) -> Half:
    """4 x 4 convolution of stride 2 with zero padding of one pixel, without a bias; only reverse-mode derivatives.

    Args:
      x: Images, [batch, height, width, channels].
      kernel: Kernel, [4, 4, channels, features].

    Returns:
      Images of half the height and width, [batch, height / 2, width / 2, features].

    Raises:
      InputError: Height or width is odd.
    """
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise InputError(f"an image of {x.shape[1]} x {x.shape[2]} pixels cannot be halved; expected even numbers")
    return jax.lax.platform_dependent(x, kernel, cpu=_downsample_on_cpu, default=_downsample_natively)


def require_halved(height: int, width: int, times: int, network: str = "") -> None:
    """Raise `InputError` unless images of this size can be halved this often, by the network of this name if given."""
    scale = 2**times
    if height % scale or width % scale:
        by = f" by {network}" if network else ""
        raise InputError(
            f"images of {height} x {width} pixels cannot be halved {times} times{by}; expected multiples of {scale}"
        )


@jax.custom_vjp
def upsample(y: Half, kernel: Kernel) -> Float[Array, "batch 2*h 2*w channels"]:
    """Transpose of `downsample`, which doubles height and width; only reverse-mode derivatives."""
    return jax.lax.platform_dependent(y, kernel, cpu=_upsample_on_cpu, default=_upsample_natively)


@jax.custom_vjp
def correlate(x: Image, y: Half) -> Kernel:
    """Gradient of the kernel: sum of the products of each pixel of y with the 4 x 4 pixels of x that it depends on."""
    return jax.lax.platform_dependent(x, y, cpu=_correlate_on_cpu, default=_correlate_natively)


def _with_arguments(function: Callable[[Array, Array], Array]) -> Callable[..., tuple[Array, tuple[Array, Array]]]:
    return lambda a, b: (function(a, b), (a, b))


downsample.defvjp(_with_arguments(downsample), lambda of, g: (upsample(g, of[1]), correlate(of[0], g)))
upsample.defvjp(_with_arguments(upsample), lambda of, g: (downsample(g, of[1]), correlate(g, of[0])))
correlate.defvjp(_with_arguments(correlate), lambda of, g: (upsample(of[1], g), downsample(of[0], g)))


class Downsample(nn.Module):
    """`downsample` with a bias: `nn.Conv(features, (4, 4), strides=2, padding=1)`, with the same parameters.

    Attributes:
      features: Number of channels of the outputs.
    """

    features: int

    @nn.compact
    def __call__(self, x: Image) -> Half:
        """Outputs of a batch, [batch, height / 2, width / 2, features]."""
        kernel = self.param("kernel", nn.initializers.he_normal(), (4, 4, x.shape[-1], self.features), jnp.float32)
        return downsample(*promote_dtype(x, kernel)) + _bias(self)


class Upsample(nn.Module):
    """`upsample` with a bias: `nn.ConvTranspose(features, (4, 4), strides=(2, 2), transpose_kernel=True)`.

    An output pixel depends on 2 x 2 of the 4 x 4 weights per channel, so the variance of He initialisation is four
    times that computed from the shape of the kernel.

    Attributes:
      features: Number of channels of the outputs.
    """

    features: int

    @nn.compact
    def __call__(self, y: Half) -> Float[Array, "batch 2*h 2*w {self.features}"]:
        """Outputs of a batch, [batch, 2 h, 2 w, features]."""
        init = nn.initializers.variance_scaling(8.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2)
        kernel = self.param("kernel", init, (4, 4, self.features, y.shape[-1]), jnp.float32)
        return upsample(*promote_dtype(y, kernel)) + _bias(self)


def _bias(module: Downsample | Upsample) -> Array:
    return module.param("bias", nn.initializers.zeros, (module.features,), jnp.float32).reshape(1, 1, 1, -1)


def _downsample_natively(x: Array, kernel: Array) -> Array:
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=axes)


def _upsample_natively(y: Array, kernel: Array) -> Array:
    batch, h, w, _ = y.shape
    x = jax.ShapeDtypeStruct((batch, 2 * h, 2 * w, kernel.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: _downsample_natively(x, kernel), x)(y)[0]


def _correlate_natively(x: Array, y: Array) -> Array:
    kernel = jax.ShapeDtypeStruct((4, 4, x.shape[-1], y.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: _downsample_natively(x, kernel), kernel)(y)[0]


def _downsample_on_cpu(x: Array, kernel: Array) -> Array:
    h, w = x.shape[1] // 2, x.shape[2] // 2
    return (_downsample_by_winograd if _suits_winograd(h, w, *kernel.shape[2:]) else _downsample_by_products)(x, kernel)


def _upsample_on_cpu(y: Array, kernel: Array) -> Array:
    h, w = y.shape[1:3]
    return (_upsample_by_winograd if _suits_winograd(h, w, *kernel.shape[2:]) else _upsample_by_products)(y, kernel)


def _correlate_on_cpu(x: Array, y: Array) -> Array:
    _, h, w, features = y.shape
    suits = _suits_winograd(h, w, x.shape[3], features)
    return (_correlate_by_winograd if suits else _correlate_by_products)(x, y)


def _suits_winograd(h: int, w: int, channels: int, features: int) -> bool:
    return h % 2 == 0 and w % 2 == 0 and channels * features >= _LEAST_CHANNELS * (channels + features)


def _downsample_by_winograd(x: Array, kernel: Array) -> Array:
    batch, height, width, _ = x.shape
    of_tiles = products(operator.matmul, _image_tiles(x), along_both(_sums, _kernel_blocks(kernel)))
    return image_of(along_both(_pairs, of_tiles), (batch, height // 2, width // 2, kernel.shape[3]))


def _upsample_by_winograd(y: Array, kernel: Array) -> Array:
    batch, h, w, _ = y.shape

    def product(pixels: Array, blocks: Array) -> Array:
        return (pixels @ blocks.T).reshape(batch, h // 2, w // 2, -1)

    of_tiles = products(product, _pixel_tiles(y), along_both(_sums, _kernel_blocks(kernel)))
    rows = [_interleaved(2, *row) for row in along_both(_transposed_differences, of_tiles)]
    return _image_of_blocks(_interleaved(1, *rows))


def _correlate_by_winograd(x: Array, y: Array) -> Array:
    (a, b), (c, d) = along_both(_pairs, products(first_with_first, _image_tiles(x), _pixel_tiles(y)))
    return _kernel(jnp.concatenate([a, b, c, d]))


def _image_tiles(x: Array) -> Grid:
    """Transformed tiles of 3 x 3 blocks, which overlap by one block: 3 x 3 arrays [tiles, 4 C]."""
    blocks = _blocks(x)
    h, w = blocks.shape[1] - 1, blocks.shape[2] - 1
    parts = [[blocks[:, i : i + h : 2, j : j + w : 2] for j in range(3)] for i in range(3)]
    return flattened(along_both(_differences, parts))


def _pixel_tiles(y: Array) -> Grid:
    """Transformed tiles of 2 x 2 pixels: 3 x 3 arrays [tiles, F]."""
    return flattened(along_both(_sums, pixels_of(y)))


def _kernel_blocks(kernel: Array) -> Grid:
    """Blocks of 2 x 2 pixels of a kernel: 2 x 2 arrays [4 C, F]."""
    a, b, c, d = jnp.split(_matrix(kernel), 4)
    return [[a, b], [c, d]]


def _differences(a: Array, b: Array, c: Array) -> tuple[Array, Array, Array]:
    return a - b, b, c - b


def _transposed_differences(a: Array, b: Array, c: Array) -> tuple[Array, Array, Array]:
    return a, b - (a + c), c


def _sums(a: Array, b: Array) -> tuple[Array, Array, Array]:
    return a, a + b, b


def _pairs(a: Array, b: Array, c: Array) -> tuple[Array, Array]:
    return a + b, b + c


def _interleaved(axis: int, a: Array, b: Array, c: Array) -> Array:
    """Sum of overlapping triples (a[t], b[t], c[t]) at the positions 2t, 2t + 1, 2t + 2 of an axis: n -> 2n + 1."""
    before, after = ([(0, 0)] * a.ndim for _ in range(2))
    before[axis], after[axis] = (1, 0), (0, 1)
    pairs = jnp.stack([jnp.pad(a, after) + jnp.pad(c, before), jnp.pad(b, after)], axis=axis + 1)
    shape = (*a.shape[:axis], 2 * a.shape[axis] + 2, *a.shape[axis + 1 :])
    return jax.lax.slice_in_dim(pairs.reshape(shape), 0, -1, axis=axis)


def _downsample_by_products(x: Array, kernel: Array) -> Array:
    return jnp.concatenate([_rows(_patches(part), _matrix(kernel)) for part in _halves(x)])


def _upsample_by_products(y: Array, kernel: Array) -> Array:
    return jnp.concatenate([_image(_rows(part, _matrix(kernel).T)) for part in _halves(y)])


def _correlate_by_products(x: Array, y: Array) -> Array:
    halves = zip(_halves(x), _halves(y), strict=True)
    return _kernel(_sum([first_with_first(_flat(_patches(a)), _flat(b)) for a, b in halves]))


def _halves(x: Array) -> list[Array]:
    """Halves of the batch: one core copies the pixels of one half while another multiplies those of the other."""
    middle = len(x) // 2
    return [x[:middle], x[middle:]] if middle else [x]


def _patches(x: Array) -> Array:
    """4 x 4 input pixels of each output pixel, in blocks of 2 x 2: [B, 2h, 2w, C] -> [B, h, w, 16 C]."""
    blocks = _blocks(x)
    h, w = blocks.shape[1] - 1, blocks.shape[2] - 1
    return jnp.concatenate([blocks[:, i : i + h, j : j + w] for i in (0, 1) for j in (0, 1)], axis=-1)


def _blocks(x: Array) -> Array:
    """Blocks of 2 x 2 pixels of the padded images: [B, 2h, 2w, C] -> [B, h + 1, w + 1, 4 C]."""
    batch, height, width, channels = x.shape
    h, w = height // 2, width // 2
    pairs = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(batch, h + 1, 2, w + 1, 2 * channels)
    return pairs.transpose(0, 1, 3, 2, 4).reshape(batch, h + 1, w + 1, 4 * channels)


def _image(patches: Array) -> Array:
    """Transpose of `_patches`, which sums overlapping patches: [B, h, w, 16 C] -> [B, 2h, 2w, C]."""
    corners = zip([(0, 0), (0, 1), (1, 0), (1, 1)], jnp.split(patches, 4, axis=-1), strict=True)
    return _image_of_blocks(_sum([jnp.pad(part, ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0))) for (i, j), part in corners]))


def _image_of_blocks(blocks: Array) -> Array:
    """Transpose of `_blocks`: [B, h + 1, w + 1, 4 C] -> [B, 2h, 2w, C]."""
    batch, h, w, width = blocks.shape
    pairs = blocks.reshape(batch, h, w, 2, width // 2).transpose(0, 1, 3, 2, 4)
    return pairs.reshape(batch, 2 * h, 2 * w, width // 4)[:, 1:-1, 1:-1]


def _matrix(kernel: Array) -> Array:
    """Kernel as a matrix whose rows have the order of a patch: [4, 4, C, F] -> [16 C, F]."""
    channels, features = kernel.shape[2:]
    return kernel.reshape(2, 2, 2, 2, channels, features).transpose(0, 2, 1, 3, 4, 5).reshape(16 * channels, features)


def _kernel(matrix: Array) -> Array:
    """Inverse of `_matrix`: [16 C, F] -> [4, 4, C, F]."""
    channels, features = matrix.shape[0] // 16, matrix.shape[1]
    return matrix.reshape(2, 2, 2, 2, channels, features).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, channels, features)


def _sum(terms: list[Array]) -> Array:
    """Sum in the dtype of the terms; the built-in `sum` starts from 0, which would promote it."""
    return functools.reduce(operator.add, terms)


def _flat(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _rows(x: Array, matrix: Array) -> Array:
    """Compute x @ matrix over the last axis as one product of two matrices."""
    return (_flat(x) @ matrix).reshape(*x.shape[:-1], matrix.shape[1])
