"""3 x 3 convolutions and residual networks, against Linen's own layers and the published sizes."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from conftest import drawn
from flax import linen as nn
from jax import export

import vae_jax as vj
from vae_jax.errors import InputError
from vae_jax.networks.conv3x3 import conv3x3
from vae_jax.networks.residual import Conv3x3, DecoderBlock, EncoderBlock, doubled

# batch, height, width, channels, features: the first two by Winograd's filtering, the others natively.
SIZES = [(2, 4, 6, 24, 32), (3, 8, 2, 16, 64), (2, 6, 4, 3, 5), (1, 5, 4, 24, 24), (1, 4, 7, 32, 24)]
SMALL = {"event_shape": (8, 8, 3), "latent_dim": 4, "width": 4, "blocks": (1, 1)}


def draws(batch, height, width, channels, features):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(batch, height, width, channels))
    kernel = generator.normal(size=(3, 3, channels, features)) / (3 * channels**0.5)
    y = generator.normal(size=(batch, height, width, features))
    return tuple(jax.device_put(np.float32(array)) for array in (x, kernel, y))


def native(x, kernel):
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=axes)


@jax.jit
def ours_and_native(x, kernel, y):
    """Of both convolutions, the outputs and the gradients of their product with y."""

    def of(convolution):
        values, pullback = jax.vjp(convolution, x, kernel)
        return values, *pullback(y)

    return of(jax.jit(conv3x3)), of(native)


def assert_same(ours, expected):
    """Equal to 1e-5 of the largest value."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max()), ours, expected)


@pytest.mark.parametrize("sizes", SIZES)
def test_same_values_and_gradients_as_the_native_convolution(sizes):
    assert_same(*ours_and_native(*draws(*sizes)))


@pytest.mark.parametrize("sizes", SIZES[1:3])
def test_gradients_of_gradients(sizes):
    x, kernel, _ = draws(*sizes)

    def penalty(convolution):
        """The squared norm of a gradient, as discriminators are regularised by."""
        return lambda x, kernel: (jax.grad(lambda x: (convolution(x, kernel) ** 3).sum())(x) ** 2).sum()

    gradients = [jax.grad(penalty(of), (0, 1)) for of in (conv3x3, native)]
    assert_same(*jax.jit(lambda x, kernel: [gradient(x, kernel) for gradient in gradients])(x, kernel))


@pytest.mark.parametrize("sizes", SIZES[:3])
def test_under_scan_and_vmap(sizes):
    x, kernel, y = draws(*sizes)
    gradient = jax.grad(lambda kernel, x: jnp.vdot(conv3x3(x, kernel), y))

    @jax.jit
    def together(kernels):
        _, of_scan = jax.lax.scan(lambda carry, of: (carry, gradient(of, x)), None, kernels)
        return jax.vmap(conv3x3, (None, 0))(x, kernels), jax.vmap(gradient, (0, None))(kernels, x), of_scan

    kernels = jnp.asarray(np.float32(np.multiply.outer([1, -2], kernel)))
    ours, natively = zip(*(ours_and_native(x, of, y) for of in kernels), strict=True)
    values, of_vmap, of_scan = together(kernels)
    assert_same(values, np.stack([of[0] for of in natively]))
    expected = np.stack([of[2] for of in ours])
    assert_same(of_vmap, expected)
    assert_same(of_scan, expected)


@pytest.mark.parametrize(("sizes", "on_cpu"), [(SIZES[0], 0), (SIZES[2], 2)])
def test_the_native_convolution_and_gradients_on_accelerators(sizes, on_cpu):
    x, kernel, y = draws(*sizes)

    def pulled_back(x, kernel):
        return jax.vjp(conv3x3, x, kernel)[1](y)

    def count(platform):
        lowered = export.export(jax.jit(pulled_back), platforms=[platform])(x, kernel).mlir_module()
        return lowered.count("stablehlo.convolution"), lowered.count("stablehlo.optimization_barrier")

    assert count("cpu") == (on_cpu, on_cpu)
    assert count("cuda") == count("tpu") == (2, 0)


@pytest.mark.parametrize("sizes", SIZES[:3])
def test_types_are_kept_where_float64_is_enabled(sizes):
    with jax.enable_x64(True):
        x, kernel, y = (jnp.asarray(np.float64(array)) for array in draws(*sizes))
        (values, *gradients), (native_values, *native_gradients) = ours_and_native(x, kernel, y)
        assert {leaf.dtype for leaf in (values, *gradients)} == {np.dtype(np.float64)}
        np.testing.assert_allclose(values, native_values, rtol=0, atol=1e-12)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-11), gradients, native_gradients)
        layer = Conv3x3(5, "double")
        wide = jax.eval_shape(layer.apply, {"params": {"kernel": kernel[..., :5]}}, jnp.asarray(np.float32(x)))
        assert wide.dtype == jnp.float64


@pytest.mark.parametrize("channels", [3, 24])
def test_halving_and_doubling_convolutions(channels):
    x, kernel, _ = draws(2, 4, 6, channels, 24)
    variables = {"params": {"kernel": kernel}}
    for layer in (Conv3x3(24), Conv3x3(24, "halve"), Conv3x3(24, "double")):
        found = jax.eval_shape(layer.init, jax.random.key(1), x)
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, variables)
    strided = nn.Conv(24, (3, 3), strides=2, padding=1, use_bias=False)
    halved = jax.jit(lambda variables: (Conv3x3(24, "halve").apply(variables, x), strided.apply(variables, x)))
    assert_same(*halved(variables))
    twice = jnp.asarray(np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))
    np.testing.assert_array_equal(jax.jit(doubled)(x), twice)

    def of_kernel(layer):
        """The outputs, and the gradient of the sum of their squares."""
        values, pullback = jax.vjp(layer, kernel)
        return values, pullback(2 * values)

    ours = partial(of_kernel, lambda kernel: Conv3x3(24, "double").apply({"params": {"kernel": kernel}}, x))
    assert_same(*jax.jit(lambda: (ours(), of_kernel(lambda kernel: native(twice, kernel))))())


class Block(nn.Module):
    """The residual block of lightning-bolts by Linen's own layers, for both networks."""

    middle: int
    features: int
    stride: int = 1
    upsample: bool = False

    @nn.compact
    def __call__(self, x):
        def norm(h):
            return nn.BatchNorm(use_running_average=False, momentum=0.9)(h)

        def conv(features, size, stride=1):
            return nn.Conv(features, (size, size), strides=stride, padding=size // 2, use_bias=False)

        h = nn.relu(norm(conv(self.middle, 3, self.stride)(x)))
        h = norm(conv(self.features, 3)(doubled(h) if self.upsample else h))
        if self.upsample or self.stride == 2 or x.shape[-1] != self.features:
            x = norm(conv(self.features, 1, self.stride)(doubled(x) if self.upsample else x))
        return nn.relu(h + x)


def batch_normalised(h):
    return nn.BatchNorm(use_running_average=False, momentum=0.9)(h)


@pytest.mark.parametrize(
    ("ours", "published"),
    [
        (EncoderBlock(5, False, batch_normalised), Block(5, 5)),
        (EncoderBlock(3, False, batch_normalised), Block(3, 3)),
        (EncoderBlock(6, True, batch_normalised), Block(6, 6, stride=2)),
        (EncoderBlock(3, True, batch_normalised), Block(3, 3, stride=2)),
        (DecoderBlock(3, False, batch_normalised), Block(3, 3)),
        (DecoderBlock(2, False, batch_normalised), Block(3, 2)),
        (DecoderBlock(2, True, batch_normalised), Block(3, 2, upsample=True)),
        (DecoderBlock(3, True, batch_normalised), Block(3, 3, upsample=True)),
    ],
)
def test_blocks_are_those_of_linens_layers(ours, published):
    x = jnp.asarray(np.float32(np.random.default_rng(1).normal(size=(4, 4, 6, 3))))
    variables = drawn(ours.init, jax.random.key(0), x)
    other = drawn(published.init, jax.random.key(0), x)
    # The layers are called in the same order, so their parameters are too; a Dense layer is a 1 x 1 convolution.
    params = {"kernel": [], "scale": [], "bias": []}
    for name, layer in variables["params"].items():
        for part, leaf in layer.items():
            params[part].append((name.split("_")[0] == "Dense", leaf))
    kernels = [leaf for _, leaf in sorted(params["kernel"], key=lambda pair: pair[0])]
    for name, layer in other["params"].items():
        if name.startswith("Conv"):
            layer["kernel"] = kernels[int(name.split("_")[1])].reshape(layer["kernel"].shape)

    @jax.jit
    def found_and_expected(variables, other):
        return ours.apply(variables, x, mutable="batch_stats"), published.apply(other, x, mutable="batch_stats")

    (found, updates), (expected, statistics) = found_and_expected(variables, other)
    assert_same(found, expected)
    assert_same(updates["batch_stats"], statistics["batch_stats"])


def started(vae, optimizer):
    variables = drawn(vae.init, jax.random.key(0))
    return jax.jit(lambda key: vj.init(key, vae, optimizer, variables=variables))(jax.random.key(0))


def sizes_of(vae):
    params = jax.eval_shape(vae.init, jax.random.key(0))["params"]
    return {part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in params.items()}


def test_the_numbers_of_parameters_are_those_of_lightning_bolts():
    """Counted in PyTorch with the layers of `pl_bolts.models.autoencoders.components`."""
    vae = vj.resnet_vae()
    found = sizes_of(vae)
    assert (found["encoder"], found["decoder"]) == (11_168_832 + 2 * 131_328, 8_625_600)
    assert found["likelihood"] == 1  # one scale, which is not part of lightning-bolts


@pytest.mark.parametrize(
    ("settings", "likelihood"),
    [
        ({"linear": True, "blocks": (1, 2)}, vj.LearnedGaussian()),
        ({"pool": False}, vj.ColourMixtureOfLogistics(2)),
        ({"prior": vj.GaussianMixture(3), "classes": 3}, vj.OptimalGaussian()),
        ({"posterior": vj.Delta, "condition_shape": (2,)}, vj.LearnedGaussian(per_channel=True)),
        ({"event_shape": (4, 8, 1)}, vj.HeteroscedasticGaussian()),
        ({"norm": "group", "linear": True}, vj.LearnedGaussian()),
        ({"norm": "group", "pool": False, "posterior": vj.Delta, "condition_shape": (2,)}, vj.OptimalGaussian()),
    ],
)
def test_a_model_of_any_parts_trains_evaluates_and_draws(settings, likelihood):
    vae = vj.resnet_vae(**SMALL | {"likelihood": likelihood} | settings)
    state = started(vae, optimizer := optax.adam(1e-2))
    plain = settings.get("posterior") is vj.Delta
    step = jax.jit(vj.make_train_step(vae, vj.Reconstruction() if plain else vj.ELBO(), optimizer))
    images = np.random.default_rng(0).integers(0, 256, (6, *vae.event_shape), np.uint8)
    batch = vj.Scale()(jax.random.split(jax.random.key(1), 6), jnp.asarray(images), jnp.asarray([0, 1, 2, 0, 1, 2]))
    if "condition_shape" in settings:
        batch = vj.Batch(batch.x, condition=jnp.asarray(np.ones((6, 2), np.float32)))
    losses = []
    for _ in range(12):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    condition = batch.label if "classes" in settings else batch.condition

    @jax.jit
    def mean_and_density(variables):
        px_z = vae.sample(jax.random.key(2), variables, 6, condition).px_z
        return px_z.mean, px_z.log_prob(batch.x)

    mean, log_px_z = mean_and_density(state.variables)
    assert mean.shape == batch.x.shape
    assert np.isfinite(log_px_z).all()


def uniform(count, event_shape):
    return jax.device_put(np.float32(np.random.default_rng(3).uniform(size=(count, *event_shape))))


def trained_once(vae, batch):
    optimizer = optax.sgd(0.1)
    state = started(vae, optimizer)
    return jax.jit(vj.make_train_step(vae, vj.ELBO(), optimizer))(state, batch)[0].variables


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_padding_changes_nothing(norm):
    vae = vj.resnet_vae(**SMALL, norm=norm)
    x = uniform(6, vae.event_shape)
    padded = jnp.asarray(np.concatenate([x, np.full((2, *vae.event_shape), 9, np.float32)]))
    batches = vj.Batch(x), vj.Batch(padded, mask=jnp.asarray(np.arange(8) < 6))
    whole, masked = (trained_once(vae, batch) for batch in batches)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), masked, whole)


def test_batch_norm_under_pmap_is_that_of_the_whole_batch():
    apart = vj.resnet_vae(**SMALL, axis_name="devices")
    x = uniform(8, apart.event_shape)
    optimizer = optax.sgd(0.1)
    step = jax.pmap(
        vj.make_train_step(apart, vj.ELBO(), optimizer, axis_name="devices"),
        axis_name="devices",
        devices=jax.devices()[:2],
        in_axes=(None, 0),
    )
    together, _ = step(started(apart, optimizer), vj.Batch(x.reshape(2, 4, *apart.event_shape)))
    whole = trained_once(vj.resnet_vae(**SMALL), vj.Batch(x))
    of_first = jax.tree.map(lambda leaf: np.asarray(leaf)[0], together.variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), of_first, whole)


def test_group_norm_does_not_couple_examples_and_batch_norm_does():
    x = uniform(6, SMALL["event_shape"])
    others = np.concatenate([x[:3], 1 - np.asarray(x[3:])])
    for norm, coupled in (("group", False), ("batch", True)):
        vae = vj.resnet_vae(**SMALL, norm=norm)
        variables = drawn(vae.init, jax.random.key(0))
        mean = jax.jit(
            lambda x, of=vae, variables=variables: of.code(variables, vj.Batch(x), train=True).posterior.mean
        )
        one, other = (np.asarray(mean(of))[:3] for of in (x, others))
        assert (np.abs(one - other).max() > 1e-3) == coupled


def test_group_norm_has_groups_of_sixteen_channels():
    vae = vj.resnet_vae((4, 4, 3), 2, 24, blocks=(1, 1), norm="group")
    apply = partial(
        vae.encoder.apply,
        capture_intermediates=lambda module, _: isinstance(module, nn.GroupNorm),
        mutable="intermediates",
    )
    variables = {"params": drawn(vae.init, jax.random.key(0))["params"]["encoder"]}
    norms = jax.tree.leaves(jax.jit(apply)(variables, np.ones((1, 4, 4, 3), np.float32))[1]["intermediates"])
    # 24 channels are three groups of 8, 48 channels are three groups of 16; each group has mean 0 over its pixels, and
    # half of it has not.
    for of in norms:
        of = np.asarray(of)
        means = [of.reshape(1, -1, count, of.shape[-1] // count).mean(axis=(1, 3)) for count in (3, 6)]
        np.testing.assert_allclose(means[0], 0, atol=1e-5)
        assert np.abs(means[1]).max() > 1e-3


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_members_are_the_models_of_their_keys(norm):
    vae, optimizer = vj.resnet_vae((4, 4, 3), 2, 4, blocks=(1, 1), norm=norm), optax.sgd(0.1)
    step = vj.make_train_step(vae, vj.ELBO(), optimizer)
    batch = vj.Batch(uniform(4, vae.event_shape))

    @jax.jit
    def members(keys):
        states, _ = jax.vmap(step, (0, None))(vj.init_members(keys, vae, optimizer), batch)
        return states.variables

    alone = jax.jit(lambda key: step(vj.init(key, vae, optimizer), batch)[0].variables)
    keys = jax.random.split(jax.random.key(0), 2)
    together, expected = members(keys), [alone(key) for key in keys]
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, np.stack(b), rtol=1e-3, atol=1e-4), together, *expected)


def test_a_saved_model_is_loaded(tmp_path):
    vae = vj.resnet_vae(**SMALL, pool=False, likelihood=vj.LearnedGaussian(per_channel=True))
    variables = drawn(vae.init, jax.random.key(0))
    vj.save(tmp_path / "model", vae, variables)
    loaded = vj.load_model(tmp_path / "model")
    assert loaded.model == vae
    mean = jax.jit(lambda vae, variables: vae.encode(variables, uniform(2, vae.event_shape)).mean)
    np.testing.assert_array_equal(mean(loaded.model, loaded.variables), mean(vae, variables))


def test_a_scale_per_channel():
    likelihood = vj.LearnedGaussian(0.5, per_channel=True)
    variables = likelihood.init((2, 2, 3))
    assert variables["params"]["log_scale"].shape == (3,)
    scales = np.array([0.1, 0.2, 0.4])
    own = {"params": {"log_scale": jnp.asarray(np.float32(np.log(scales)))}}
    x = jnp.asarray(np.float32(np.random.default_rng(0).normal(size=(5, 2, 2, 3))))
    density = jax.jit(lambda mean, x: likelihood(mean, own).log_prob(x))
    expected = scipy.stats.norm(0, scales).logpdf(x).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(density(x - x, x), expected, rtol=1e-5)
    draw = jax.jit(lambda mean, key: likelihood(mean, own).sample(key))
    many = draw(np.zeros((4_000, 2, 2, 3), np.float32), jax.random.key(1))
    np.testing.assert_allclose(np.asarray(many).std(axis=(0, 1, 2)), scales, rtol=0.03)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vj.resnet_vae((28, 28, 3)), "images of 28 x 28 pixels cannot be halved 3 times; .*multiples of 8"),
        (lambda: vj.resnet_vae((32, 20, 3)), "images of 32 x 20 pixels cannot be halved 3 times"),
        (
            lambda: vj.resnet_vae((32,)),
            r"event_shape is \(32,\); a convolutional VAE takes \(height",
        ),
        (lambda: vj.resnet_vae(width=0), "width is 0; expected a whole number of at least 1"),
        (lambda: vj.resnet_vae(latent_dim=0), "latent_dim is 0; expected a whole number of at least 1"),
        (lambda: vj.resnet_vae(blocks=(2, 0)), r"blocks\[1\] is 0; expected a whole number of at least 1"),
        (lambda: vj.resnet_vae(blocks=(2,)), r"blocks is \(2,\); expected the numbers of two stages or more"),
        (lambda: vj.resnet_vae(blocks=()), r"blocks is \(\); expected the numbers of two stages or more"),
        (lambda: vj.resnet_vae(blocks=2), r"blocks is 2; expected a tuple of whole numbers, such as \(2, 2\)"),
        (lambda: vj.resnet_vae(norm="layer"), "norm is 'layer'; expected 'batch' or 'group'"),
        (
            lambda: vj.ResNetEncoder(4, (2, 2), (1,), norm="Group").init(jax.random.key(0), jnp.ones((1, 4, 4, 3))),
            "norm is 'Group'; expected 'batch' or 'group'",
        ),
        (
            lambda: vj.ResNetDecoder(4, (6, 6, 3), (1, 1, 1)).init(jax.random.key(0), jnp.ones((1, 2))),
            "images of 6 x 6 pixels cannot be halved 2 times",
        ),
        (
            lambda: vj.resnet_vae((32, 32, 1), likelihood=vj.ColourMixtureOfLogistics()),
            r"events of shape \(32, 32, 1\) are no colour images; expected \(height, width, 3\)",
        ),
        (
            lambda: vj.resnet_vae(linear=True, likelihood=vj.HeteroscedasticGaussian()),
            "linear paths go to locations of pixels, but the outputs of Heteroscedasti.* are no locations",
        ),
        *(
            (partial(make, (16, 16, 1), linear=True, likelihood=of), f"but the outputs of {type(of).__name__}.* are no")
            for make in (vj.conv_vae, vj.resnet_vae)
            for of in (vj.Bernoulli(), vj.ContinuousBernoulli(), vj.Poisson(), vj.NegativeBinomial(), vj.Categorical())
        ),
        (
            lambda: vj.LearnedGaussian(per_element=True, per_channel=True),
            "per_element and per_channel are both set; expected one of them",
        ),
    ],
)
def test_bad_input_is_answered_by_a_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()


OF_SCALES = {vj.ColourMixtureOfLogistics(3): slice(12, 21), vj.MixtureOfLogistics(3): slice(6, 9)}


@pytest.mark.parametrize("likelihood", OF_SCALES, ids=repr)
def test_mixtures_have_the_given_locations(likelihood):
    image = np.random.default_rng(0).uniform(0.2, 0.8, (2, 8, 8, 3)).astype(np.float32)
    zero = np.zeros((2, *likelihood.output_shape((8, 8, 3))), np.float32)
    outputs = zero.copy()
    outputs[..., OF_SCALES[likelihood]] = -5

    @partial(jax.jit, static_argnames="unit")
    def moved(outputs, image, unit=1.0):
        found = likelihood.with_locations(outputs, image, unit)
        return found, likelihood(found).mean

    found, mean = moved(outputs, image)
    np.testing.assert_allclose(mean, image, atol=1e-4)
    # Locations are added to those of the outputs, in the unit of the pixels.
    np.testing.assert_allclose(moved(found, 0.5 + 0.1 * image)[1], 1.1 * image, atol=1e-4)
    # In a unit, an untrained network has the image as locations, and scales of half of it: levels range from -1 to 1.
    fine, mean = moved(zero, image, unit=0.01)
    np.testing.assert_allclose(mean, image, atol=1e-4)
    draw = jax.jit(lambda outputs, key: jax.vmap(likelihood(outputs).sample)(jax.random.split(key, 2000)))
    deviation = np.asarray(draw(fine, jax.random.key(0))).std(axis=0).mean()
    assert deviation == pytest.approx(0.005 * math.pi / math.sqrt(3), rel=0.02)
    if isinstance(likelihood, vj.MixtureOfLogistics):  # whose locations do not depend on other channels
        np.testing.assert_allclose(moved(zero + 0.5, image, unit=0.01)[1], image + 0.0025, atol=1e-4)


MAKERS = {
    "residual": lambda **parts: vj.resnet_vae((8, 8, 3), 2, 4, blocks=(1, 1), **parts),
    "convolutional": lambda **parts: vj.conv_vae((8, 8, 3), 2, (4, 4), **parts),
}


@pytest.mark.parametrize("likelihood", [*OF_SCALES, vj.LearnedGaussian()], ids=repr)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_linear_path_moves_the_locations_of_the_likelihood(make, likelihood):
    vae, without = make(likelihood=likelihood, linear=True), make(likelihood=likelihood)
    variables = drawn(vae.init, jax.random.key(0))
    params = variables["params"]["decoder"]
    stats = {"batch_stats": variables["batch_stats"]["decoder"]} if "batch_stats" in variables else {}
    kernel = np.float32(np.random.default_rng(1).normal(size=(2, 192)))
    params["linear"] = {"kernel": kernel, "bias": np.full(192, 0.3, np.float32)}
    z = jnp.asarray([[1.0, -2.0], [0.5, 0.0]])
    names = jax.eval_shape(without.init, jax.random.key(0))["params"]["decoder"]
    others = {name: {part: params[name][part] for part in names[name]} for name in names if "Dec" not in name}
    others |= {name: params[name] for name in names if "Dec" in name}
    pixels = np.float32((z @ kernel) * (4 / np.sqrt(2)) + 0.3).reshape(2, 8, 8, 3)

    @jax.jit
    def found_and_expected(params, others):
        outputs = without.decoder.apply({"params": others, **stats}, z)
        expected = likelihood.with_locations(outputs, jnp.asarray(pixels))
        return vae.decoder.apply({"params": params, **stats}, z), expected

    found, expected = found_and_expected(params, others)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("likelihood", [vj.HeteroscedasticGaussian(), vj.Bernoulli(), vj.Poisson()], ids=repr)
def test_outputs_that_are_no_locations_are_refused(likelihood):
    outputs = jnp.ones((1, *likelihood.output_shape((4, 4, 3))))
    with pytest.raises(InputError, match=f"the outputs of {type(likelihood).__name__}.* are no locations"):
        likelihood.with_locations(outputs, jnp.ones((1, 4, 4, 3)))


def test_the_bias_of_a_convolution_is_added():
    layer = Conv3x3(5, bias=True)
    x = np.ones((2, 4, 4, 3), np.float32)
    params = drawn(layer.init, jax.random.key(0), x)["params"]
    with_bias = params | {"bias": np.arange(5, dtype=np.float32)}
    apply = jax.jit(layer.apply)
    difference = np.asarray(apply({"params": with_bias}, x)) - apply({"params": params}, x)
    np.testing.assert_allclose(difference, np.broadcast_to(np.arange(5.0), difference.shape), atol=1e-5)
