"""The VAE as a value: its shapes, its parts, what it refuses."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import drawn
from flax import linen as nn

import vae_jax as vj
from vae_jax.networks.conv4x4 import downsample, upsample


def uniform(seed, shape):
    return jnp.asarray(np.float32(np.random.default_rng(seed).uniform(size=shape)))


def normal(seed, shape):
    return jnp.asarray(np.float32(np.random.default_rng(seed).normal(size=shape)))


def test_a_vae_is_a_value():
    assert vj.mlp_vae() == vj.mlp_vae()
    assert hash(vj.mlp_vae()) == hash(vj.mlp_vae())
    assert vj.mlp_vae() != vj.mlp_vae(latent_dim=3)


def test_shapes_of_everything():
    vae = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8, 4))
    variables = drawn(vae.init, jax.random.key(0))
    widths = [layer["kernel"].shape for part in ("encoder", "decoder") for layer in variables["params"][part].values()]
    assert widths == [(36, 8), (8, 4), (4, 6), (3, 4), (4, 8), (8, 36)]
    terms = jax.jit(lambda x: vae.terms(jax.random.key(1), variables, vj.Batch(x), jnp.arange(4)))(
        uniform(0, (5, 6, 6, 1))
    )
    assert terms.z["z"].shape == (4, 5, 3)
    assert terms.px_z.mean.shape == (4, 5, 6, 6, 1)
    decoded = jax.eval_shape(lambda z: vae.decode(variables, z).mean, jnp.zeros((2, 3)))
    assert decoded.shape == (2, 6, 6, 1)
    assert len(np.unique(terms.z["z"])) == terms.z["z"].size, "samples of an example share noise"


def test_a_plain_autoencoder_reconstructs_without_noise():
    vae = vj.mlp_vae((6, 6, 1), hidden=(8,), posterior=vj.Delta)
    variables = drawn(vae.init, jax.random.key(0))
    x = uniform(1, (3, 6, 6, 1))
    terms = jax.jit(lambda key: vj.elbo_terms(key, vae, variables, x))
    one, other = (terms(jax.random.key(seed)) for seed in (2, 3))
    np.testing.assert_array_equal(one.log_px_z, other.log_px_z)
    np.testing.assert_array_equal(one.kl, 0)
    density = jax.jit(lambda x: vae.decode(variables, vae.encode(variables, x).mean).log_prob(x))
    np.testing.assert_allclose(one.log_px_z, density(x), rtol=1e-6)


class Normalised(nn.Module):
    """A network of one's own, with batch statistics."""

    output_shape: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs, train=False):
        h = nn.Dense(int(np.prod(self.output_shape)))(inputs.reshape(len(inputs), -1))
        h = nn.BatchNorm(use_running_average=not train, momentum=0.5)(h)
        return h.reshape(len(inputs), *self.output_shape)


def test_batch_statistics_change_in_training_alone():
    vae = vj.VAE(Normalised((2, 2)), Normalised((6, 6, 1)), (6, 6, 1), 2)
    variables = drawn(vae.init, jax.random.key(0))
    batch = vj.Batch(uniform(1, (16, 6, 6, 1)))
    terms = jax.jit(lambda train: vae.terms(jax.random.key(2), variables, batch, train=train), static_argnums=0)
    assert terms(False).updates == {}
    updates = terms(True).updates
    assert jax.tree.structure(updates) == jax.tree.structure({"batch_stats": variables["batch_stats"]})
    before = variables["batch_stats"]["encoder"]["BatchNorm_0"]["mean"]
    assert not np.allclose(before, updates["batch_stats"]["encoder"]["BatchNorm_0"]["mean"])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"hidden": (500, 0)}, r"hidden\[1\]"),
        ({"event_shape": ()}, "event_shape"),
        ({"event_shape": (28, 0, 1)}, "event_shape"),
    ],
)
def test_sizes_that_make_no_network_are_refused(settings, name):
    with pytest.raises(vj.InputError, match=name):
        vj.mlp_vae(**settings)


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (Normalised((2, 3)), Normalised((6, 6, 3)), r"the encoder returns shape \(1, 2, 3\).*expected \(1, 2, 2\)"),
        (Normalised((4,)), Normalised((6, 6, 3)), r"the encoder returns shape \(1, 4\)"),
        (Normalised((2, 2)), Normalised((6, 6, 1)), r"the decoder returns shape \(1, 6, 6, 1\).*\(1, 6, 6, 3\)"),
    ],
)
def test_networks_that_do_not_fit_are_refused(encoder, decoder, message):
    with pytest.raises(vj.InputError, match=message):
        vj.VAE(encoder, decoder, (6, 6, 3), 2).init(jax.random.key(0))


def test_images_of_other_channels_are_refused():
    with pytest.raises(vj.InputError, match=r"events of shape \(2, 2, 3\)"):
        vj.Bernoulli()(jnp.zeros((1, 2, 2, 1))).log_prob(jnp.zeros((1, 2, 2, 3)))


def test_arrays_of_another_shape_are_refused():
    vae = vj.mlp_vae((6, 6, 1), hidden=(4,))
    variables = drawn(vae.init, jax.random.key(0))
    with pytest.raises(vj.InputError, match=r"x has shape \(2, 5, 6, 1\); expected \[batch, 6, 6, 1\]"):
        vae.encode(variables, jnp.zeros((2, 5, 6, 1)))
    with pytest.raises(vj.InputError, match=r"z has shape \(2, 3\); expected \[batch, 2\]"):
        vae.decode(variables, jnp.zeros((2, 3)))


CONDITIONAL = vj.mlp_vae((6, 6, 1), latent_dim=2, hidden=(8,), classes=3)


def test_labels_enter_both_networks():
    variables = drawn(CONDITIONAL.init, jax.random.key(0))
    x, z, labels = np.ones((2, 6, 6, 1), np.float32), np.ones((2, 2), np.float32), jnp.array([0, 2])
    decode = jax.jit(lambda z: CONDITIONAL.decode(variables, z, labels).mean)
    posterior = jax.jit(lambda x: CONDITIONAL.encode(variables, x, labels).mean)(x)
    assert not np.allclose(*posterior), "the encoder does not see the label"
    assert not np.allclose(*decode(z)), "the decoder does not see the label"
    terms = jax.jit(lambda batch: CONDITIONAL.terms(jax.random.key(1), variables, batch, jnp.arange(3)))
    found = terms(vj.Batch(x, label=labels))
    for z, mean in zip(np.asarray(found.z["z"]), np.asarray(found.px_z.mean), strict=True):
        np.testing.assert_allclose(mean, decode(z), rtol=1e-5)


def test_labels_that_do_not_fit_are_refused():
    variables = drawn(CONDITIONAL.init, jax.random.key(0))
    z = jnp.zeros((2, 2))
    with pytest.raises(vj.InputError, match="conditional on 3 classes, but no labels"):
        CONDITIONAL.decode(variables, z)
    with pytest.raises(vj.InputError, match="run from 0 to 3; expected 0 to 2"):
        CONDITIONAL.decode(variables, z, jnp.array([0, 3]))
    plain = vj.mlp_vae((6, 6, 1), latent_dim=2, hidden=(8,))
    with pytest.raises(vj.InputError, match="not conditional"):
        plain.decode(drawn(plain.init, jax.random.key(0)), z, jnp.array([0, 1]))


def test_batch_norm_vae_normalises_by_the_batch_in_training_and_by_running_statistics_in_use():
    vae = vj.batch_norm_vae((6, 6, 1), latent_dim=3, hidden=(8, 4), momentum=0.3)
    variables = drawn(vae.init, jax.random.key(0))
    widths = [variables["params"]["encoder"][f"Dense_{i}"]["kernel"].shape for i in range(3)]
    assert widths == [(36, 8), (8, 4), (4, 6)]
    x = jnp.asarray(5 + np.asarray(normal(1, (64, 6, 6, 1))))
    layer = variables["params"]["encoder"]["Dense_0"]
    h = np.asarray(x).reshape(64, -1) @ layer["kernel"]
    updates = jax.jit(lambda x: vae.terms(jax.random.key(2), variables, vj.Batch(x), train=True).updates)(x)
    statistics = updates["batch_stats"]["encoder"]["BatchNorm_0"]
    np.testing.assert_allclose(statistics["mean"], 0.7 * h.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(statistics["var"], 0.3 + 0.7 * h.var(axis=0), rtol=1e-3)
    decode = jax.jit(lambda z: vae.decode(variables, z).mean)
    far = 1e3 * np.asarray(normal(3, (16, 3)))
    assert 0.99 < np.abs(decode(far)).max() <= 1, "tanh is the decoder's last activation"
    encode = jax.jit(lambda x: vae.encode(variables, x).mean)
    alone, together = (np.asarray(encode(of)) for of in (x[:1], x))
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(vj.InputError, match="momentum"):
        vj.batch_norm_vae(momentum=1.0)


@pytest.mark.parametrize("statistics", [{}, {"encoder": {"BatchNorm_1": {"mean": np.zeros(4), "var": np.ones(4)}}}])
def test_batch_statistics_of_another_network_are_refused(statistics):
    vae = vj.batch_norm_vae((6, 6, 1), latent_dim=3, hidden=(8, 4))
    params = drawn(vae.init, jax.random.key(0))["params"]
    with pytest.raises(vj.InputError, match=r"the variables are not those of this MLP: .*BatchNorm_0"):
        vae.encode({"params": params, "batch_stats": statistics}, np.zeros((2, 6, 6, 1), np.float32))


def test_a_convolutional_vae_and_its_mirror_image():
    vae = vj.conv_vae((16, 8, 3), latent_dim=5, features=(4, 6))
    variables = drawn(vae.init, jax.random.key(0))
    shapes = {part: [leaf.shape for leaf in jax.tree.leaves(of)] for part, of in variables["params"].items()}
    assert shapes["encoder"] == [(10,), (4 * 2 * 6, 10), (4,), (4, 4, 3, 4), (6,), (4, 4, 4, 6)]
    assert shapes["decoder"] == [(4 * 2 * 6,), (5, 4 * 2 * 6), (4,), (4, 4, 4, 6), (3,), (4, 4, 3, 4)]
    x = uniform(1, (2, 16, 8, 3))
    means = jax.jit(lambda x, z: (vae.encode(variables, x).mean, vae.decode(variables, z).mean))
    encoded, decoded = means(x, jnp.zeros((7, 2, 5)))
    assert encoded.shape == (2, 5)
    assert decoded.shape == (7, 2, 16, 8, 3)


@pytest.mark.parametrize("make", [vj.conv_vae, vj.batch_norm_vae])
def test_priors_posteriors_and_labels_are_arguments_of_each_network(make):
    vae = make((4, 4, 1), 2, (3,), posterior=vj.FullGaussian, prior=vj.GaussianMixture(2), classes=3)
    variables = drawn(vae.init, jax.random.key(0))
    batch = vj.Batch(uniform(1, (6, 4, 4, 1)), label=jnp.asarray(np.arange(6) % 3))

    @jax.jit
    def gradients_and_means(variables, label):
        def loss(params):
            given = variables | {"params": params}
            return vj.ELBO()(jax.random.key(2), vae, given, batch, jnp.int32(0)).per_example.mean()

        means = vae.sample(jax.random.key(3), variables, 6, condition=label).px_z.mean
        return jax.grad(loss)(variables["params"]), means

    gradients, zeros = gradients_and_means(variables, np.zeros(6, np.int32))
    assert gradients.keys() == {"encoder", "decoder", "prior"}
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients["prior"]["means"]))
    assert np.abs(zeros - gradients_and_means(variables, np.full(6, 2, np.int32))[1]).max() > 1e-3
    assert vae.encoder.output_shape == (4, 2)  # mean, log-variances, two rows of N
    assert make((4, 4, 1), 2, (3,), condition_shape=(5,)).condition_shape == (5,)
    with pytest.raises(vj.InputError, match="prior is"):
        make((4, 4, 1), 2, (3,), prior="flow")


def test_the_activation_follows_each_hidden_layer():
    vae = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8, 4), activation=jnp.tanh)
    variables = drawn(vae.init, jax.random.key(0))
    first, second, last = variables["params"]["encoder"].values()
    x = normal(1, (5, 6, 6, 1))
    h = np.tanh(np.asarray(x).reshape(5, -1) @ first["kernel"])  # biases are 0
    expected = np.tanh(h @ second["kernel"]) @ last["kernel"]
    encode = jax.jit(lambda x: vae.encode(variables, x).mean)
    np.testing.assert_allclose(encode(x), expected[:, :3], rtol=1e-4, atol=1e-6)


def test_relu_follows_each_convolution_but_the_decoders_last():
    vae = vj.conv_vae((8, 8, 3), latent_dim=5, features=(4, 6))
    variables = drawn(vae.init, jax.random.key(0))
    encoder, decoder = variables["params"]["encoder"], variables["params"]["decoder"]
    x, z = normal(1, (2, 8, 8, 3)), normal(2, (2, 5))

    @jax.jit
    def expected(x, z):
        h = nn.relu(downsample(x, encoder["Downsample_0"]["kernel"]))
        h = nn.relu(downsample(h, encoder["Downsample_1"]["kernel"])).reshape(2, -1)
        mean = (h @ encoder["Dense_0"]["kernel"])[:, :5]
        h = nn.relu(z @ decoder["Dense_0"]["kernel"]).reshape(2, 2, 2, 6)
        h = nn.relu(upsample(h, decoder["Upsample_0"]["kernel"]))
        return mean, upsample(h, decoder["Upsample_1"]["kernel"])

    found = jax.jit(lambda x, z: (vae.encode(variables, x).mean, vae.decode(variables, z).mean))
    for one, other in zip(found(x, z), expected(x, z), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_linear_path_adds_a_centred_linear_map():
    shape = (8, 8, 3)
    curved, both = (vj.conv_vae(shape, latent_dim=5, features=(4, 6), linear=linear) for linear in (False, True))
    variables = both.init(jax.random.key(0))
    encoding = variables["params"]["encoder"]["linear"]["kernel"]
    decoding = variables["params"]["decoder"]["linear"]["kernel"]
    assert encoding.shape == (8 * 8 * 3, 10)
    np.testing.assert_array_equal(decoding, np.zeros((5, 8 * 8 * 3)))  # so it begins as the curved one, in grey
    decoding = 0.1 * np.asarray(normal(2, decoding.shape))
    parts = {
        part: {name: leaf for name, leaf in of.items() if name != "linear"} for part, of in variables["params"].items()
    }
    variables["params"]["decoder"]["linear"]["kernel"] = jnp.asarray(decoding)
    x, z = uniform(1, (2, *shape)), normal(3, (2, 5))
    means = jax.jit(lambda vae, variables: (vae.encode(variables, x).mean, vae.decode(variables, z).mean))
    (encoded, decoded), without = means(both, variables), means(curved, {"params": parts})
    linear = 4 / math.sqrt(8 * 8 * 3) * ((np.asarray(x) - 0.5).reshape(2, -1) @ encoding)
    np.testing.assert_allclose(encoded, without[0] + linear[:, :5], rtol=1e-4, atol=1e-5)
    assert linear.std() == pytest.approx(math.sqrt(1 / 12), rel=0.3), "at first of the deviation of the pixels"
    linear = 0.5 + 4 / math.sqrt(5) * (z @ decoding).reshape(2, *shape)
    np.testing.assert_allclose(decoded, without[1] + linear, rtol=1e-4, atol=1e-5)


def test_the_shape_of_an_event_may_be_a_list():
    of_tuple = vj.mlp_vae((6,), 2, (4,))
    of_list = dataclasses.replace(of_tuple, event_shape=[6])
    assert of_list.event_shape == (6,)
    assert of_list == of_tuple


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_shape": (20, 16, 3), "features": (4, 4, 4)}, "20 x 16 pixels cannot be halved 3 times"),
        ({"features": ()}, "one convolution or more"),
        ({"features": (4, 0)}, r"features\[1\]"),
    ],
)
def test_convolutions_that_do_not_fit_are_refused(options, message):
    with pytest.raises(vj.InputError, match=message):
        vj.conv_vae(**options)


def test_padding_does_not_enter_the_batch_statistics():
    vae = vj.batch_norm_vae((6, 6, 1), latent_dim=3, hidden=(8, 4))
    variables = drawn(vae.init, jax.random.key(0))
    x = normal(1, (16, 6, 6, 1))
    padded = jnp.asarray(np.concatenate([x, np.full((4, 6, 6, 1), 50, np.float32)]))
    mask = jnp.asarray(np.float32(np.arange(20) < 16))

    @jax.jit
    def loss_of(batch):
        return vj.ELBO(samples=2)(jax.random.key(2), vae, variables, batch, jnp.int32(0))

    alone, filled = loss_of(vj.Batch(x)), loss_of(vj.Batch(padded, mask=mask))
    np.testing.assert_allclose(filled.per_example[:16], alone.per_example, rtol=1e-4)
    for ours, theirs in zip(jax.tree.leaves(filled.updates), jax.tree.leaves(alone.updates), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_network_that_cannot_leave_padding_out_is_refused():
    batch = vj.Batch(jnp.zeros((4, 6, 6, 1)), mask=jnp.array([1.0, 1, 1, 0]))
    own = vj.VAE(Normalised((2, 2)), Normalised((6, 6, 1)), (6, 6, 1), 2)
    with pytest.raises(vj.InputError, match="mask, but Normalised, which has batch statistics, takes none"):
        own.terms(jax.random.key(2), drawn(own.init, jax.random.key(0)), batch, train=True)
    mapped = vj.batch_norm_vae((6, 6, 1), latent_dim=2, hidden=(4,), axis_name="devices")
    with pytest.raises(vj.InputError, match="batch norm under pmap"):
        mapped.terms(jax.random.key(2), drawn(mapped.init, jax.random.key(0)), batch, train=True)


def test_the_former_method_of_a_pass_and_its_names_warn():
    vae = vj.mlp_vae((6, 6, 1), hidden=(4,))
    arguments = jax.random.key(1), drawn(vae.init, jax.random.key(0)), vj.Batch(jnp.zeros((1, 6, 6, 1)))
    with pytest.warns(DeprecationWarning, match=r"use VAE\.terms"):
        forward = vae.forward(*arguments, samples=2)
    terms = vae.terms(*arguments, jnp.arange(2), train=True)
    np.testing.assert_array_equal(forward.z, terms.z["z"])
    np.testing.assert_array_equal(forward.px_z.mean, terms.px_z.mean)
    with pytest.warns(DeprecationWarning, match="px_z"):
        assert forward.p_x is forward.px_z


MODELS_OF_X = {
    "dense": vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,)),
    "conditional": vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), classes=2),
    "flow": vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), posterior=vj.FlowPosterior(vj.Coupling(2, (4,)))),
    "table": vj.mlp_vae((6,), latent_dim=3, hidden=(8,), likelihood=vj.HeteroscedasticGaussian()),
}


@pytest.mark.parametrize("name", MODELS_OF_X)
def test_reconstructions_paths_and_traversals_are_decoded_encodings(name):
    vae = MODELS_OF_X[name]
    variables = drawn(vae.init, jax.random.key(0))
    x, y = uniform(1, (4, *vae.event_shape)), uniform(2, (4, *vae.event_shape))
    condition = jnp.array([0, 1, 1, 0]) if vae.is_conditional else None
    encoded = jax.jit(lambda x: vae.encode(variables, x, condition).mean)
    decoded = jax.jit(lambda z: vae.decode(variables, z, condition).mean)
    z, end = (np.asarray(encoded(images)) for images in (x, y))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    path = jax.jit(lambda x: vae.interpolate(variables, x, y, 5, condition).mean)(x)
    assert path.shape == (5, 4, *vae.event_shape)
    for number in range(5):
        close(path[number], decoded(z + (end - z) * number / 4))
    grid = vae.traverse(variables, x, [-2.0, 1.5], (2, 0), condition).mean
    assert grid.shape == (2, 2, 4, *vae.event_shape)
    for row, dimension in enumerate((2, 0)):
        for column, level in enumerate((-2.0, 1.5)):
            changed = z.copy()
            changed[:, dimension] = level
            close(grid[row, column], decoded(changed))
    every = jax.eval_shape(lambda x: vae.traverse(variables, x, [0.0], condition=condition).mean, x)
    assert every.shape == (3, 1, 4, *vae.event_shape)
    traced = jax.jit(lambda x: vae.traverse(variables, x, jnp.array([-2.0, 1.5]), (2, 0), condition).mean)
    close(traced(x), grid)
    known = jax.jit(lambda factor: factor * vae.reconstruct(variables, x, condition).mean)  # x has values in the trace
    close(known(1.0), decoded(z))
    gradient = jax.jit(jax.grad(lambda x: vae.interpolate(variables, x, y, 3, condition).mean.sum()))(x)
    assert np.isfinite(gradient).all()
    assert np.any(gradient != 0)
