import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import export

from vae_jax.errors import InputError
from vae_jax.networks.convolution import Downsample, Upsample, correlate, downsample, upsample

SIZES = [(3, 8, 8, 3, 5), (1, 2, 6, 4, 2), (5, 16, 4, 2, 7)]  # batch, height, width, channels, features


def draws(batch, height, width, channels, features):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch, height, width, channels))
    kernel = jax.random.normal(keys[1], (4, 4, channels, features))
    y = jax.random.normal(keys[2], (batch, height // 2, width // 2, features))
    return x, kernel, y


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
    bias = jnp.arange(cotangent.shape[-1], dtype=jnp.float32)
    variables = {"params": {"kernel": kernel, "bias": bias}}
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(1), inputs)) == jax.tree.map(jnp.shape, variables)

    values, pullback = jax.vjp(jax.jit(ours.apply), variables, inputs)
    native_values, native_pullback = jax.vjp(native.apply, variables, inputs)
    assert_same(values, native_values)
    assert_same(pullback(cotangent), native_pullback(cotangent))


@pytest.mark.parametrize("sizes", SIZES)
def test_three_sides_of_one_form(sizes):
    x, kernel, y = draws(*sizes)
    down, up, weights = downsample(x, kernel), upsample(y, kernel), correlate(x, y)
    scale = np.linalg.norm(down) * np.linalg.norm(y)
    np.testing.assert_allclose(jnp.vdot(down, y), jnp.vdot(x, up), atol=1e-6 * scale)
    np.testing.assert_allclose(jnp.vdot(down, y), jnp.vdot(kernel, weights), atol=1e-6 * scale)


def test_gradients_of_gradients():
    x, kernel, y = draws(2, 4, 4, 2, 3)

    def penalty(convolution):
        """The squared norm of a gradient, as discriminators are regularised by."""
        return lambda x, kernel: (jax.grad(lambda x: (convolution(x, kernel) ** 3).sum())(x) ** 2).sum()

    def native(x, kernel):
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=axes)

    assert_same(jax.grad(penalty(downsample), (0, 1))(x, kernel), jax.grad(penalty(native), (0, 1))(x, kernel))
    # correlate is linear in both: its gradients by each are the other two functions.
    by_x, by_y = jax.grad(lambda x, y: jnp.vdot(correlate(x, y), kernel), (0, 1))(x, y)
    assert_same((by_x, by_y), (upsample(y, kernel), downsample(x, kernel)))


def test_members_side_by_side():
    x, kernel, _ = draws(3, 4, 4, 2, 3)
    kernels = jnp.stack([kernel, -2 * kernel])
    gradient = jax.grad(lambda kernel, x: (downsample(x, kernel) ** 2).sum())
    assert_same(jax.vmap(downsample, (None, 0))(x, kernels)[1], downsample(x, -2 * kernel))
    assert_same(jax.vmap(gradient, (0, None))(kernels, x)[1], gradient(-2 * kernel, x))


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 0), ("cuda", 3), ("tpu", 3)])
def test_products_on_a_cpu_and_the_native_convolution_elsewhere(platform, convolutions):
    x, kernel, _ = draws(2, 8, 8, 3, 5)

    def loss(x, kernel):
        return (downsample(x, kernel) ** 2).sum()

    lowered = export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=[platform])(x, kernel)
    assert lowered.mlir_module().count("stablehlo.convolution") == convolutions


def test_upsampled_values_keep_their_scale():
    """He's variance: with ReLU between them, layers neither fade nor blow up."""
    y = jnp.maximum(jax.random.normal(jax.random.key(0), (4, 8, 8, 64)), 0)
    outputs, _ = Upsample(64).init_with_output(jax.random.key(1), y)
    inner = outputs[:, 1:-1, 1:-1]  # the border's pixels have fewer neighbours
    assert 0.8 < jnp.mean(inner**2) / (2 * jnp.mean(y**2)) < 1.2


def test_odd_sizes_are_refused():
    for height, width in ((5, 8), (8, 5)):
        with pytest.raises(InputError, match=f"{height} x {width} pixels cannot be halved"):
            downsample(jnp.zeros((1, height, width, 3)), jnp.zeros((4, 4, 3, 2)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_types_are_kept_where_float64_is_enabled(dtype):
    with jax.enable_x64(True):
        x, kernel, y = (array.astype(dtype) for array in draws(*SIZES[0]))
        for found in (downsample(x, kernel), upsample(y, kernel), correlate(x, y)):
            assert found.dtype == dtype
        gradient = jax.grad(lambda kernel: jnp.sum(downsample(x, kernel) * y))(kernel)
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient, correlate(x, y), rtol=1e-5)


@pytest.mark.parametrize(("layer", "size"), [(Downsample(5), (3, 4, 4, 5)), (Upsample(5), (3, 16, 16, 5))])
def test_layers_promote_inputs_to_the_type_of_their_parameters_as_linens_own(layer, size):
    with jax.enable_x64(True):
        x = jnp.ones((3, 8, 8, 2), jnp.float32)
        variables = layer.init(jax.random.key(0), x)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
        wide = jax.jit(layer.apply)(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables), x)
        assert wide.dtype == jnp.float64
        np.testing.assert_allclose(wide, layer.apply(variables, x), rtol=1e-5, atol=1e-6)
        assert wide.shape == size
