"""Pages: the decoders in JavaScript, the file, and its views."""

import json
import re
from html.parser import HTMLParser
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_split
from flax import linen as nn
from py_mini_racer import MiniRacer

import vae_jax as vj
from vae_jax.distributions import StandardNormal
from vae_jax.evaluation.attributes import AttributeClassifier
from vae_jax.pages import networks, page

SOURCES = {file.name: file.read_text() for file in resources.files("vae_jax.pages").iterdir() if file.suffix == ".js"}
GREY, COLOUR = (6, 6, 1), (16, 16, 3)


class Elements(HTMLParser):
    """The elements of a page as a browser finds them: pairs of a tag and its attributes, and the text of each id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(dict(attrs).get("id", tag))

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, data):
        if self._open:
            self.texts[self._open[-1]] = self.texts.get(self._open[-1], "") + data


def content_of(path):
    return json.loads(Elements(path.read_text("utf-8")).texts["content"])


@pytest.fixture(scope="module")
def engine():
    with MiniRacer() as engine:
        engine.eval(SOURCES["network.js"] + SOURCES["latent.js"])
        yield engine


def called(engine, call, **arguments):
    """The value of a JavaScript expression of these arguments."""
    names, values = ", ".join(arguments), ", ".join(map(json.dumps, arguments.values()))
    return json.loads(
        engine.eval(
            f"JSON.stringify((({names}) => {call})({values}), (_, x) => ArrayBuffer.isView(x) ? Array.from(x) : x)"
        )
    )


def trained_like(vae, seed=0):
    """Variables of a model, with biases and statistics that are not 0 and 1."""
    leaves, structure = jax.tree.flatten(vae.init(jax.random.key(seed)))
    generator = np.random.default_rng(seed)
    noisy = [np.asarray(leaf) + generator.uniform(-0.2, 0.2, np.shape(leaf)).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, noisy)


def conditional_convolutional():
    vae = vj.conv_vae(COLOUR, 5, (4, 8), vj.Gaussian(), linear=True)
    return vj.VAE(vae.encoder, vae.decoder, COLOUR, 5, likelihood=vj.Gaussian(), classes=3)


def gated():
    return vj.VAE(vj.MLP((8,), (2, 4)), vj.Gated((12, 9), GREY), GREY, 4)


MODELS = {
    "dense": lambda: vj.mlp_vae(GREY, 2, (12, 10)),
    "tanh, continuous Bernoulli": lambda: vj.mlp_vae(GREY, 3, (12,), vj.ContinuousBernoulli(), activation=jnp.tanh),
    "labels": lambda: vj.mlp_vae(GREY, 2, (12,), classes=3),
    "heteroscedastic": lambda: vj.mlp_vae(GREY, 3, (12,), vj.HeteroscedasticGaussian()),
    "batch norm": lambda: vj.batch_norm_vae(GREY, 3, (12, 8)),
    "gated": gated,
    "convolutional": lambda: vj.conv_vae(COLOUR, 5, (4, 8), vj.LearnedGaussian()),
    "not square": lambda: vj.conv_vae((8, 24, 1), 5, (4, 8), vj.Laplace()),
    "heteroscedastic, convolutional": lambda: vj.conv_vae(COLOUR, 5, (4,), vj.HeteroscedasticGaussian()),
    "linear path": lambda: vj.conv_vae(COLOUR, 5, (4, 8), vj.StudentT(), linear=True),
    "linear path, labels": conditional_convolutional,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_page_decodes_as_the_library_does(make, engine):
    vae = make()
    variables = trained_like(vae)
    network = networks.decoder_network(vae, variables)
    z = np.random.default_rng(1).normal(size=(50, vae.latent_dim)).astype(np.float32)
    labels = None if vae.classes is None else np.arange(50) % vae.classes
    one_hot = [[]] * 50 if labels is None else np.eye(vae.classes)[labels].tolist()
    call = "zs.map((z, i) => forward(withArrays(network), z, conditions[i]))"
    found = np.array(called(engine, call, zs=z.tolist(), network=network, conditions=one_hot))
    expected = vj.decode_all(vae, variables, z, labels).reshape(50, -1)
    assert expected.std() > 0.03
    np.testing.assert_allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize("function", networks._ACTIVATIONS, ids=networks._ACTIVATIONS.values())
def test_activations(function, engine):
    a = np.linspace(-20, 20, 81)
    found = called(engine, f"a.map(ACTIVATIONS.{networks._ACTIVATIONS[function]})", a=a.tolist())
    np.testing.assert_allclose(found, function(jnp.asarray(a, jnp.float32)), rtol=1e-5, atol=1e-6)


def test_float16_survives_base64(engine):
    numbers = [0, -0.0, 1, -1.5, 65_504, 6e-8, 6.1e-5, 1 / 3, -np.pi]
    for count in (7, 8, 9):  # every padding of base64
        found = called(engine, "withArrays({deep: [array]}).deep[0]", array=networks.encoded(numbers[:count]))
        np.testing.assert_array_equal(found, np.float16(numbers[:count]))


@pytest.mark.parametrize("convolutions", [(), (3, 4)])
def test_the_page_classifies_as_the_library_does(convolutions, engine):
    classifier = vj.Classifier((8, 8, 3), 2, (7, 6), convolutions)
    variables = trained_like(classifier, seed=3)
    x = np.random.default_rng(2).uniform(size=(50, 8, 8, 3)).astype(np.float32)
    trained = AttributeClassifier(("hat", "beard"), classifier, variables)
    call = "xs.map((x) => forward(withArrays(network), x))"
    found = called(engine, call, xs=x.reshape(50, -1).tolist(), network=networks.classifier_network(trained))
    np.testing.assert_allclose(found, trained(x).probabilities, atol=1e-2)


def test_positions_and_paths(engine):
    assert called(engine, "straightPath(a, b, 3)", a=[0, 2], b=[1, -2]) == [[0, 2], [0.5, 0], [1, -2]]
    vectors = [{"kinds": {"plain": [1, 0], "balanced": [0, 5]}}, {"kinds": {"plain": [1, 1], "balanced": [0, 0]}}]
    assert called(engine, 'edited([1, 1], vectors, "plain", [2, -1])', vectors=vectors) == [2, 0]
    circle = {"centre": [1, -1], "radius": 2}
    z = called(engine, "windowOf(circle).toLatent(...windowOf(circle).toShare([1.5, 0.25]))", circle=circle)
    np.testing.assert_allclose(z, [1.5, 0.25])
    assert called(engine, "windowOf(circle).toShare([1, -1])", circle=circle) == [0.5, 0.5]
    np.testing.assert_allclose(called(engine, "windowOf(circle).toLatent(0, 0)", circle=circle), [1 - 2.08, -1 + 2.08])
    np.testing.assert_allclose(called(engine, "windowOf(circle).clamped([9, -9])", circle=circle), [3.08, -3.08])


def test_images_as_bytes(engine):
    assert called(engine, "bytesOfImage([0, 1], 1, [0, 1], false)") == [255, 255, 255, 255, 0, 0, 0, 255]
    assert called(engine, "bytesOfImage([0, 1], 1, [0, 1], true)") == [0, 0, 0, 255, 255, 255, 255, 255]
    assert called(engine, "bytesOfImage([-1, 0.2, 9], 3, [-1, 1], false)") == [0, 153, 255, 255]
