"""The perceptual loss, feature networks, and published parameters read from files."""

import pickle
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.signal
from conftest import drawn
from safetensors.numpy import save_file

import vae_jax as vj
from vae_jax.distributions import example_keys
from vae_jax.training.step import NOISE, stream

SHAPE = (8, 8, 3)
NETWORK = vj.ConvFeatures((4, 6))
FROZEN = {"features": drawn(NETWORK.init, jax.random.key(5), jnp.zeros((1, *SHAPE)))}
VAE = vj.conv_vae(SHAPE, 2, (4, 6), vj.Gaussian(0.1))
OBJECTIVE = vj.Perceptual(NETWORK, ("conv1", "conv2"), (3.0, 5.0))
SPLIT = vj.Split(np.random.default_rng(0).integers(0, 256, (32, *SHAPE), dtype=np.uint8))
BATCH = vj.Batch(jnp.asarray(SPLIT.images[:8]) / 255)
OPTIMIZER = optax.adam(1e-3)
SMALL = vj.VGG19((2, 3, 4, 3, 2))


def fresh(objective=OBJECTIVE, frozen=FROZEN):
    return vj.init(jax.random.key(0), VAE, OPTIMIZER, objective=objective, frozen=frozen)


def step_keys(state):
    """The keys of the examples in the first step of a run."""
    return example_keys(stream(state.key, NOISE, 0), 8)


def loss_of(objective, batch=BATCH, variables=None):
    state = fresh()
    variables = state.variables | {"frozen": state.frozen} if variables is None else variables
    return jax.jit(lambda variables: objective(jax.random.key(1), VAE, variables, batch, jnp.int32(0)))(variables)


features_of = jax.jit(lambda images: NETWORK.apply(FROZEN["features"], images))


def test_the_loss_is_that_of_hou_added_to_the_objective():
    with_it, without = loss_of(OBJECTIVE), loss_of(vj.ELBO())
    x, y = map(features_of, (BATCH.x, np.asarray(without.px_z.mean)[0]))
    expected = np.zeros(8)
    for layer, weight in (("conv1", 3.0), ("conv2", 5.0)):
        difference = np.subtract(x[layer], y[layer], dtype=np.float64).reshape(8, -1)
        expected += weight / (2 * difference.shape[1]) * (difference**2).sum(axis=1)
    np.testing.assert_allclose(with_it.terms["perceptual"], expected, rtol=1e-5)
    np.testing.assert_allclose(with_it.per_example, without.per_example + expected, rtol=1e-5)
    assert set(with_it.terms) == {"kl", "log_px_z", "perceptual"}


def test_targets_are_compared_and_masked_examples_do_not_count():
    target = BATCH.x[::-1]
    denoising = vj.Batch(BATCH.x, target=target)
    variables = fresh().variables
    y = jax.jit(lambda key: VAE.terms(key, variables, BATCH).px_z.mean[0])(jax.random.key(1))
    of_target, of_y = (np.asarray(features_of(images)["conv1"]) for images in (target, y))
    one_layer = vj.Perceptual(NETWORK, ("conv1",), (2.0,))
    expected = np.mean((of_target - of_y) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(loss_of(one_layer, denoising).terms["perceptual"], expected, rtol=1e-5)
    step = vj.make_train_step(VAE, OBJECTIVE, OPTIMIZER)
    mask = np.float32(np.arange(8) < 5)
    x = np.where(mask.reshape(8, 1, 1, 1), BATCH.x, np.float32(0.5))
    masked = jax.jit(step)(fresh(), vj.Batch(jnp.asarray(x), mask=jnp.asarray(mask)))[1]
    terms = jax.jit(lambda keys: OBJECTIVE(keys, VAE, variables | {"frozen": FROZEN}, BATCH, jnp.int32(0)).terms)
    found = np.asarray(terms(step_keys(fresh()))["perceptual"])
    assert float(masked["perceptual"]) == pytest.approx(found[:5].mean(), rel=1e-5)


def test_the_feature_network_is_not_trained_and_the_loss_falls(tmp_path):
    step = vj.make_train_step(VAE, OBJECTIVE, OPTIMIZER)
    run = lambda epochs, **more: vj.fit(fresh(), step, SPLIT, epochs=epochs, batch_size=8, progress=False, **more)  # noqa: E731
    state, history = run(8)
    jax.tree.map(np.testing.assert_array_equal, state.frozen, FROZEN)
    assert "frozen" not in state.variables
    assert history[-1]["perceptual"] < 0.8 * history[0]["perceptual"]
    run(3, store=vj.Checkpoints(tmp_path, {}, model=VAE))
    resumed, _ = run(8, store=vj.Checkpoints(tmp_path, {}, model=VAE))
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, state.variables)
    vae, variables = vj.restore_model(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, variables, state.variables)
    assert vae == VAE


def test_convolutions_of_a_classifier_are_its_features():
    attributes = vj.Attributes(("A", "B"), np.random.default_rng(1).random((32, 2)) < 0.5)
    split = vj.Split(SPLIT.images, attributes=attributes)
    settings = {"steps": 2, "batch_size": 8, "convolutions": (4, 6), "independent": False, "progress": False}
    classifier = vj.attributes.train_attribute_classifier(jax.random.key(0), split, ("A", "B"), **settings)
    network, variables = vj.conv_features(classifier)
    last = network.apply(variables, BATCH.x)["conv2"].reshape(8, -1)
    dense = classifier.variables["params"]["ConvEncoder_0"]["Dense_0"]
    hidden = jax.nn.relu(last @ dense["kernel"] + dense["bias"][None])
    np.testing.assert_allclose(hidden, classifier(np.asarray(BATCH.x)).features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("linear", [False, True])
def test_convolutions_of_an_encoder_are_its_features(linear):
    vae = vj.conv_vae((8, 8, 3), 2, (4, 6), linear=linear)
    variables = vae.init(jax.random.key(0))
    network, found = vj.conv_features(vae, variables)
    _, inside = vae.encoder.apply(
        {"params": variables["params"]["encoder"]}, BATCH.x, capture_intermediates=True, mutable=["intermediates"]
    )
    assert found["params"].keys() == {"Downsample_0", "Downsample_1"}
    for number, activations in network.apply(found, BATCH.x).items():
        (expected,) = inside["intermediates"][f"Downsample_{int(number[4:]) - 1}"]["__call__"]
        np.testing.assert_array_equal(activations, jax.nn.relu(expected))


@pytest.mark.parametrize(
    ("trained", "variables", "message"),
    [
        (
            vj.mlp_vae((8, 8, 3)),
            {},
            "an object of type VAE has no convolutions; .* or a VAE with a ConvEncoder",
        ),
        ("vae", {}, "'vae' has no convolutions"),
        (VAE, None, "variables"),
        (VAE, {"params": {}}, "is missing"),
    ],
)
def test_features_of_other_networks_are_refused(trained, variables, message):
    with pytest.raises(vj.InputError, match=message):
        vj.conv_features(trained, variables)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((NETWORK, (), ()), "there are 0 layers"),
        ((NETWORK, ("conv1",), (1.0, 2.0)), "1 layers and 2 weights"),
        ((NETWORK, ("conv1",), (0.0,)), "the weight of conv1 is 0.0; expected a finite number above 0"),
        ((NETWORK, ("conv1",), (-1.0,)), "the weight of conv1 is -1.0"),
        ((NETWORK, "conv1", (1.0,)), "layers is 'conv1'; expected a tuple"),
        ((vj.ConvFeatures, ("conv1",), (1.0,)), "features is the class ConvFeatures"),
        ((NETWORK, ("conv1",), (1.0,), vj.ELBO), "objective is the class ELBO"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(vj.InputError, match=message):
        vj.Perceptual(*arguments)


def test_missing_parts_are_refused():
    with pytest.raises(vj.InputError, match="the batch has missing entries, which"):
        loss_of(OBJECTIVE, replace(BATCH, observed=jnp.ones_like(BATCH.x)))
    with pytest.raises(vj.InputError, match="feature network has no variables"):
        loss_of(OBJECTIVE, variables=fresh(frozen=None).variables)
    wider = {"features": drawn(vj.ConvFeatures((8, 6)).init, jax.random.key(5), jnp.zeros((1, *SHAPE)))}
    with pytest.raises(vj.InputError, match=r"variables are not those of this ConvFeatures: .*shape"):
        loss_of(OBJECTIVE, variables=fresh().variables | {"frozen": wider})
    with pytest.raises(vj.InputError, match="variables are not those of this ConvFeatures: "):
        loss_of(OBJECTIVE, variables=fresh().variables | {"frozen": {"features": {"params": {}}}})
    with pytest.raises(vj.InputError, match="has no layer 'conv9'; expected one of conv1, conv2"):
        loss_of(vj.Perceptual(NETWORK, ("conv9",), (1.0,)))
    with pytest.raises(vj.InputError, match="returns no p"):
        loss_of(vj.Perceptual(NETWORK, ("conv1",), (1.0,), vj.IWAE(2)))


# Published parameters.


def torch_arrays(network=SMALL, seed=0):
    """Arrays of torchvision's layout, with the dense layers, which are not read."""
    generator, arrays, channels, layer = np.random.default_rng(seed), {}, 3, 0
    for width, count in zip(network.widths, (2, 2, 4, 4, 4), strict=True):
        for _ in range(count):
            shape = (width, channels, 3, 3)
            arrays[f"features.{layer}.weight"] = generator.normal(0, 0.4, shape).astype(np.float32)
            arrays[f"features.{layer}.bias"] = generator.normal(0, 0.1, width).astype(np.float32)
            channels, layer = width, layer + 2
        layer += 1
    return arrays | {"classifier.0.weight": np.zeros((4, 4), np.float32)}


def independent_pass(arrays, image):
    """Torch's layers one after the other, by SciPy, in float64: the activations after each ReLU of one image."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    h = ((image - mean) / deviation).transpose(2, 0, 1)
    found = []
    for layer in range(37):
        if f"features.{layer}.weight" in arrays:
            kernel, bias = (arrays[f"features.{layer}.{part}"].astype(np.float64) for part in ("weight", "bias"))
            h = np.stack(
                [
                    sum(scipy.signal.correlate2d(h[c], kernel[o, c], mode="same") for c in range(len(h))) + bias[o]
                    for o in range(len(kernel))
                ]
            )
            h = np.maximum(h, 0)
            found.append(h.transpose(1, 2, 0))
        elif layer in (4, 9, 18, 27):
            c, height, width = h.shape
            h = h.reshape(c, height // 2, 2, width // 2, 2).max(axis=(2, 4))
    return found


@pytest.mark.parametrize("extension", ["npz", "safetensors"])
def test_vgg19_is_an_independent_forward_pass(extension, tmp_path):
    arrays, path = torch_arrays(), tmp_path / f"vgg.{extension}"
    np.savez(path, **arrays) if extension == "npz" else save_file(arrays, path)
    image = np.random.default_rng(3).random((16, 16, 3)).astype(np.float32)
    activations = jax.jit(SMALL.apply)(vj.load_vgg19(path, SMALL), jnp.asarray(image[None]))
    names = [f"relu{block}_{i + 1}" for block, count in enumerate((2, 2, 4, 4, 4), 1) for i in range(count)]
    assert list(activations) == names
    for name, expected in zip(names, independent_pass(arrays, image), strict=True):
        np.testing.assert_allclose(activations[name][0], expected, rtol=1e-3, atol=1e-4)


def test_the_published_network_has_its_shapes():
    shapes = jax.eval_shape(vj.VGG19().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 20_024_384  # of torchvision's `features`
    with pytest.raises(vj.InputError, match="1 channels; VGG-19 takes the three"):
        SMALL.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))


def without(arrays, name):
    return {other: array for other, array in arrays.items() if other != name}


@pytest.mark.parametrize(
    ("content", "extension", "message"),
    [
        (without(torch_arrays(), "features.16.bias"), "npz", "has no array features.16.bias"),
        (
            torch_arrays(vj.VGG19((2, 3, 4, 3, 3))),
            "npz",
            r"features.28.weight has shape \(3, 3, 3, 3\); expected \(2, 3",
        ),
        ({"conv1.weight": np.zeros(3)}, "npz", "has no array features.0.weight, but conv1.weight"),
        ({}, "npz", "but none at all"),
        ({"features.0.weight": np.array([{}], object)}, "npz", "can't be read"),
        (pickle.dumps({"features.0.weight": 1}), "npz", "is damaged or is no .npz archive"),
        (pickle.dumps({"features.0.weight": 1}), "pth", "a pickle, such as .pth, is never read"),
        (pickle.dumps({"features.0.weight": 1}), "safetensors", "is damaged or is no .safetensors"),
        (b"", "safetensors", "is damaged"),
    ],
)
def test_files_that_are_refused(content, extension, message, tmp_path):
    path = tmp_path / f"vgg.{extension}"
    if isinstance(content, dict):
        np.savez(path, **content)
    else:
        path.write_bytes(content)
    with pytest.raises(vj.InputError, match=message):
        vj.load_vgg19(path, SMALL)


@pytest.mark.parametrize("extension", ["npz", "safetensors"])
def test_truncated_files_are_refused(extension, tmp_path):
    path = tmp_path / f"vgg.{extension}"
    np.savez(path, **torch_arrays()) if extension == "npz" else save_file(torch_arrays(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(vj.DataError, match="damaged"):
        vj.load_vgg19(path, SMALL)
    with pytest.raises(vj.DataError, match="missing"):
        vj.load_vgg19(tmp_path / f"missing.{extension}")
    with pytest.raises(vj.InputError, match="path is None"):
        vj.load_vgg19(None)
