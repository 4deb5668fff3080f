from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import drawn
from flax import linen as nn
from jax import export

from vae_jax.errors import InputError
from vae_jax.networks.conv4x4 import Downsample, Upsample, correlate, downsample, upsample

# batch, height, width, channels, features: the last two have enough channels for Winograd's filtering, and the last one
# has a height that is no multiple of four.
SIZES = [(3, 8, 8, 3, 5), (1, 2, 6, 4, 2), (5, 16, 4, 2, 7), (2, 8, 12, 12, 20), (2, 6, 8, 16, 16)]


def draws(batch, height, width, channels, features):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(batch, height, width, channels))
    kernel = generator.normal(size=(4, 4, channels, features))
    y = generator.normal(size=(batch, height // 2, width // 2, features))
    return tuple(jnp.asarray(np.float32(array)) for array in (x, kernel, y))


def assert_same(ours, native):
    """Equal to 1e-5 of the largest value."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max()), ours, native)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("way", ["down", "up"])
def test_same_values_and_gradients_as_the_native_convolution(sizes, way):
    x, kernel, y = draws(*sizes)
    channels, features = sizes[3:]
    if way == "down":
        ours, inputs, cotangent = Downsample(features), x, y
        native = nn.Conv(features, (4, 4), strides=(2, 2), padding=1)
    else:
        ours, inputs, cotangent = Upsample(channels), y, x
        native = nn.ConvTranspose(channels, (4, 4), strides=(2, 2), transpose_kernel=True)
    variables = {"params": {"kernel": kernel, "bias": np.arange(cotangent.shape[-1], dtype=np.float32)}}
    shapes = jax.eval_shape(ours.init, jax.random.key(1), inputs)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)

    @partial(jax.jit, static_argnums=0)
    def values_and_gradients(layer, variables, inputs):
        values, pullback = jax.vjp(jax.jit(layer.apply), variables, inputs)
        return values, pullback(cotangent)

    assert_same(*(values_and_gradients(layer, variables, inputs) for layer in (ours, native)))


@jax.jit
def sides(x, kernel, y):
    return downsample(x, kernel), upsample(y, kernel), correlate(x, y)


@pytest.mark.parametrize("sizes", SIZES)
def test_three_sides_of_one_form(sizes):
    x, kernel, y = draws(*sizes)
    down, up, weights = sides(x, kernel, y)
    scale = np.linalg.norm(down) * np.linalg.norm(y)
    np.testing.assert_allclose(np.vdot(down, y), np.vdot(x, up), atol=1e-6 * scale)
    np.testing.assert_allclose(np.vdot(down, y), np.vdot(kernel, weights), atol=1e-6 * scale)


@pytest.mark.parametrize("sizes", [(2, 4, 4, 2, 3), SIZES[3]])
def test_gradients_of_gradients(sizes):
    x, kernel, y = draws(*sizes)

    def penalty(convolution):
        """The squared norm of a gradient, as discriminators are regularised by."""
        return lambda x, kernel: (jax.grad(lambda x: (convolution(x, kernel) ** 3).sum())(x) ** 2).sum()

    def native(x, kernel):
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=axes)

    assert_same(*(jax.jit(jax.grad(penalty(of), (0, 1)))(x, kernel) for of in (downsample, native)))
    # correlate is linear in both: its gradients by each are the other two functions.
    by_x, by_y = jax.jit(jax.grad(lambda x, y: jnp.vdot(correlate(x, y), kernel), (0, 1)))(x, y)
    down, up, _ = sides(x, kernel, y)
    assert_same((by_x, by_y), (up, down))


@pytest.mark.parametrize("sizes", [(3, 4, 4, 2, 3), SIZES[3]])
def test_members_side_by_side(sizes):
    x, kernel, _ = draws(*sizes)

    def values_and_gradient(kernel):
        return downsample(x, kernel), jax.grad(lambda kernel: (downsample(x, kernel) ** 2).sum())(kernel)

    other = np.asarray(-2 * np.asarray(kernel))
    together = jax.jit(jax.vmap(values_and_gradient))(np.stack([kernel, other]))
    assert_same([np.asarray(part)[1] for part in together], list(jax.jit(values_and_gradient)(other)))


@pytest.mark.parametrize(
    ("platform", "sizes", "convolutions", "products"),
    [
        ("cpu", SIZES[0], 0, 6),
        ("cpu", SIZES[3], 0, 27),
        ("cpu", SIZES[4], 0, 6),
        ("cuda", SIZES[3], 3, 0),
        ("tpu", SIZES[3], 3, 0),
    ],
)
def test_products_on_a_cpu_and_the_native_convolution_elsewhere(platform, sizes, convolutions, products):
    x, kernel, _ = draws(*sizes)

    def loss(x, kernel):
        return (downsample(x, kernel) ** 2).sum()

    lowered = export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=[platform])(x, kernel)
    module = lowered.mlir_module()
    assert module.count("stablehlo.convolution") == convolutions
    assert module.count("stablehlo.dot_general") == products


def test_upsampled_values_keep_their_scale():
    """He's variance: with ReLU between them, layers neither fade nor blow up."""
    y = np.float32(np.maximum(np.random.default_rng(0).normal(size=(4, 8, 8, 64)), 0))
    outputs, _ = jax.jit(Upsample(64).init_with_output)(jax.random.key(1), y)
    inner = np.asarray(outputs)[:, 1:-1, 1:-1]  # the border's pixels have fewer neighbours
    assert 0.8 < np.mean(inner**2) / (2 * np.mean(y**2)) < 1.2


def test_odd_sizes_are_refused():
    for height, width in ((5, 8), (8, 5)):
        with pytest.raises(InputError, match=f"{height} x {width} pixels cannot be halved"):
            downsample(jnp.zeros((1, height, width, 3)), jnp.zeros((4, 4, 3, 2)))


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[3]])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_types_are_kept_where_float64_is_enabled(dtype, sizes):
    with jax.enable_x64(True):
        x, kernel, y = (jnp.asarray(np.asarray(array).astype(dtype)) for array in draws(*sizes))
        found = sides(x, kernel, y)
        assert {side.dtype for side in found} == {np.dtype(dtype)}
        gradient = jax.jit(jax.grad(lambda kernel: jnp.sum(downsample(x, kernel) * y)))(kernel)
        assert gradient.dtype == dtype
        rounding = np.finfo(dtype).eps * np.abs(found[2]).max()  # of sums, whose terms may be larger than an entry
        np.testing.assert_allclose(gradient, found[2], rtol=0, atol=10 * rounding)


@pytest.mark.parametrize(("layer", "size"), [(Downsample(5), (3, 4, 4, 5)), (Upsample(5), (3, 16, 16, 5))])
def test_layers_promote_inputs_to_the_type_of_their_parameters_as_linens_own(layer, size):
    with jax.enable_x64(True):
        x = np.ones((3, 8, 8, 2), np.float32)
        variables, apply = drawn(layer.init, jax.random.key(0), jnp.asarray(x)), jax.jit(layer.apply)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
        wide = apply(jax.tree.map(np.float64, variables), x)
        assert wide.dtype == jnp.float64
        np.testing.assert_allclose(wide, apply(variables, x), rtol=1e-5, atol=1e-6)
        assert wide.shape == size
