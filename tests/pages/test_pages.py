"""Pages: the decoders in JavaScript, the file, and its views."""

import json
import re
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import drawn, small_split
from flax import linen as nn
from py_mini_racer import MiniRacer

import vae_jax as vj
from vae_jax.evaluation.attributes import AttributeClassifier
from vae_jax.pages import networks

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
    leaves, structure = jax.tree.flatten(drawn(vae.init, jax.random.key(seed)))
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


def test_the_mean_of_the_continuous_bernoulli(engine):
    a = np.concatenate([np.linspace(-30, 30, 61), [1e-6, -1e-3, 0.0099, 0.0101, -0.2]])
    found = called(engine, "a.map(ACTIVATIONS.continuousBernoulliMean)", a=a.tolist())
    expected = vj.ContinuousBernoulli()(jnp.asarray(a, jnp.float32)[:, None], event_ndim=1).mean[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


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


class Opened:
    """A page in V8 with `fake_dom.js` in place of a browser; images are compared as bytes."""

    def __init__(self, path):
        text = path.read_text("utf-8")
        self.content = content_of(path)
        self._engine = MiniRacer()
        self._engine.eval(FAKE_DOM + f"named('content').textContent = {json.dumps(json.dumps(self.content))};")
        self._engine.eval(re.search(r"<script>\n(.*)</script>", text, re.DOTALL)[1])

    def do(self, statements):
        self._engine.eval(f"{{ const main = named('main'); {statements} }}")

    def get(self, expression):
        return json.loads(self._engine.eval(f"JSON.stringify((main => {expression})(named('main')))"))

    def image(self, canvas):
        """Grey values of a canvas of the page, in [0, 1]."""
        data = np.array(self.get(f"Array.from({canvas}.image.data)")).reshape(-1, 4)
        assert np.all(data[:, 3] == 255)
        return 1 - data[:, 0] / 255


FAKE_DOM = (Path(__file__).parent / "fake_dom.js").read_text()
BIG, TOP = 'main.all("canvas", "big")[0]', 'main.all("canvas", "top")[0]'
EXACT = {"atol": 0.012}  # float16 weights, and 256 levels


def decoded(vae, variables, z, label=None):
    return vj.decode_all(vae, variables, np.float32([z]), None if label is None else np.array([label]))[0].ravel()


def test_a_plane_decodes_at_the_pointer_pins_points_and_draws_a_path(tmp_path):
    vae = vj.mlp_vae(GREY, 2, (12,))
    variables = trained_like(vae)
    vj.export_page(tmp_path / "page.html", vae, variables, small_split(40))
    page = Opened(tmp_path / "page.html")
    circle = page.content["models"][0]["circle"]

    def latents(right, down):
        return np.add(circle["centre"], 1.04 * circle["radius"] * np.array([2 * right - 1, 1 - 2 * down]))

    np.testing.assert_allclose(page.image(BIG), decoded(vae, variables, circle["centre"]), **EXACT)
    page.do(f'{TOP}.dispatch("pointermove", {{clientX: 30, clientY: 40}})')
    np.testing.assert_allclose(page.image(BIG), decoded(vae, variables, latents(0.3, 0.4)), **EXACT)
    assert page.get('main.all("output")[0].value') == "z = ({:.2f}, {:.2f})".format(*latents(0.3, 0.4))

    strip = 'main.all("div", "path")[0]'
    for x in (30, 90):
        assert page.get(f"{strip}.hidden") is True
        page.do(f'for (const e of ["down", "up"]) {TOP}.dispatch("pointer" + e, {{clientX: {x}, clientY: 40}})')
    assert page.get(f"{strip}.hidden") is False
    for frame, right in ((0, 0.3), (5, 0.6), (10, 0.9)):
        image = page.image(f"{strip}.children[{frame}]")
        np.testing.assert_allclose(image, decoded(vae, variables, latents(right, 0.4)), **EXACT)
    page.do(f'{TOP}.dispatch("pointerdown", {{clientX: 1, clientY: 1}})')
    page.do(f'{TOP}.dispatch("pointerup", {{clientX: 80, clientY: 80}})')
    assert page.get(f"{strip}.hidden") is False, "a drag pins nothing"

    page.do(f'{TOP}.dispatch("keydown", {{key: "Escape"}})')
    assert page.get(f"{strip}.hidden") is True
    page.do(f'{TOP}.dispatch("pointermove", {{clientX: 50, clientY: 50}})')
    for key in ("ArrowRight", "ArrowUp"):
        page.do(f'{TOP}.dispatch("keydown", {{key: "{key}"}})')
    np.testing.assert_allclose(page.image(BIG), decoded(vae, variables, latents(0.52, 0.48)), **EXACT)
    for key in ("Enter", " "):
        page.do(f'{TOP}.dispatch("keydown", {{key: "{key}"}})')
    assert page.get(f"{strip}.hidden") is False
    page.do('const all = main.all("input"); all.forEach(input => { input.checked = true; input.dispatch("change"); })')


def test_sliders_are_sorted_by_nats_and_move_the_latents(tmp_path):
    vae = vj.mlp_vae(GREY, 4, (12,), classes=3)
    variables = trained_like(vae)
    data = small_split(40)
    vj.export_page(tmp_path / "page.html", vae, variables, data)
    page = Opened(tmp_path / "page.html")
    posterior = vj.encode_all(jax.random.key(0), vae, variables, data)
    nats = np.asarray(posterior.kl()).mean(axis=0)
    order = np.argsort(-nats)
    names = page.get('main.all("label", "slider").map(each => each.text)')
    assert names == [f"z{index + 1}{nats[index]:.2f} nats" for index in order]
    z = np.float16(posterior.mean[0]).astype(np.float32)
    np.testing.assert_allclose(page.image(BIG), decoded(vae, variables, z, data.labels[0]), **EXACT)

    page.do('const [input] = main.all("input"); input.value = 1.25; input.dispatch("input")')
    z[order[0]] = 1.25
    np.testing.assert_allclose(page.image(BIG), decoded(vae, variables, z, data.labels[0]), **EXACT)
    for label, button in enumerate(page.get('main.all("button").slice(2, 5).map(each => each.text)')):
        assert button == str(label)
        page.do(f'main.all("button")[{2 + label}].dispatch("click")')
        np.testing.assert_allclose(page.image(BIG), decoded(vae, variables, z, label), **EXACT)
        np.testing.assert_allclose(page.image(f'main.all("button")[{2 + label}].children[0]'), page.image(BIG))
        pressed = page.get('main.all("button").slice(2, 5).map(each => each.attributes["aria-pressed"])')
        assert pressed == [str(each == label).lower() for each in range(3)]

    draws = called(page._engine, "withArrays(draws)", draws=page.content["models"][0]["draws"])
    for draw in np.reshape(draws, (-1, 4))[:2]:
        page.do('main.all("button")[0].dispatch("click")')
        np.testing.assert_allclose(page.image(BIG), decoded(vae, variables, draw, 2), **EXACT)
    page.do('main.all("button")[1].dispatch("click")')
    np.testing.assert_allclose(page.image(BIG), decoded(vae, variables, np.zeros(4), 2), **EXACT)
    page.do('main.all("button")[5 + 7].dispatch("click")')
    np.testing.assert_allclose(page.image(BIG), decoded(vae, variables, posterior.mean[7], data.labels[7]), **EXACT)


def test_attribute_vectors_are_added_and_classified(tmp_path):
    shape = (8, 8, 3)
    vae, classifier = vj.conv_vae(shape, 5, (4,)), vj.Classifier(shape, 2, (6,), (4,))
    variables, own = trained_like(vae), trained_like(classifier)
    trained = AttributeClassifier(("Blond_Hair", "Male"), classifier, own)
    generator = np.random.default_rng(0)
    vectors = {
        name: {kind: generator.normal(size=5) for kind in ("plain", "balanced")} for name in ("Blond_Hair", "Hat")
    }
    vj.export_page(tmp_path / "page.html", vae, variables, vectors=vectors, classifier=trained)
    page = Opened(tmp_path / "page.html")
    assert page.get('main.all("label", "slider").slice(0, 4).map(each => each.text)') == [
        "blond hair",
        "hat",
        "blond hair",
        "male",
    ]

    def require(z):
        expected = decoded(vae, variables, z)
        assert expected.std() > 0.05
        found = np.array(page.get(f"Array.from({BIG}.image.data)")).reshape(-1, 4)[:, :3] / 255
        np.testing.assert_allclose(found.ravel(), np.clip(expected, 0, 1), **EXACT)
        probabilities = trained(np.clip(expected, 0, 1).reshape(1, *shape)).probabilities[0]
        np.testing.assert_allclose(page.get('main.all("meter").map(each => each.value)'), probabilities, atol=1e-2)

    require(np.zeros(5))
    for number, amount in ((0, 2), (1, -0.5)):
        page.do(f'const input = main.all("input")[{number}]; input.value = {amount}; input.dispatch("input")')
    require(2 * vectors["Blond_Hair"]["balanced"] - 0.5 * vectors["Hat"]["balanced"])
    page.do('main.all("input")[2].dispatch("change")')
    require(2 * vectors["Blond_Hair"]["plain"] - 0.5 * vectors["Hat"]["plain"])


def test_texts_stay_text_and_nothing_is_fetched(tmp_path):
    vae = vj.mlp_vae(GREY, 3, (4,))
    name = "</script><script>alert(1)</script><img src=x>&amp;"
    texts = {"title": name, "caption": f"of {name}", "numbers": {name: float("nan"), "path": tmp_path}}
    vj.export_page(tmp_path / "page.html", {name: vae}, {name: drawn(vae.init, jax.random.key(0))}, **texts)
    text = (tmp_path / "page.html").read_text("utf-8")
    elements = Elements(text)
    assert [tag for tag, _ in elements.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in elements.tags]
    assert elements.texts["title"] == name
    assert not set("<>&") & set(elements.texts["content"])
    assert not {"src", "href", "action"} & {attribute for _, given in elements.tags for attribute in given}
    assert re.findall(r"https?:|url\(|@import|import\(|fetch\(|innerHTML|XMLHttpRequest", text) == []
    (policy,) = [given["content"] for tag, given in elements.tags if "http-equiv" in given]
    assert policy == "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
    page = Opened(tmp_path / "page.html")
    assert page.get('main.all("h2")[0].text') == name
    assert page.get('named("h1").textContent') == name
    assert page.get('named("caption").textContent') == f"of {name}"
    assert "NaN" in page.get('named("numbers").textContent')


@pytest.mark.parametrize(
    ("posterior", "prior", "unit"),
    [
        (vj.DiagonalGaussian, vj.StandardNormal(), "nats"),
        (vj.DiagonalGaussian, vj.GaussianMixture(2), "s.d."),
        (vj.Delta, vj.StandardNormal(), "s.d."),
    ],
)
def test_of_many_dimensions_those_that_carry_most_have_a_slider(posterior, prior, unit, tmp_path):
    vae = vj.mlp_vae(GREY, 70, (4,), posterior=posterior, prior=prior)
    variables, data = trained_like(vae), small_split(30)
    vj.export_page(tmp_path / "page.html", vae, variables, data, key=jax.random.key(3))
    (model,) = content_of(tmp_path / "page.html")["models"]
    q = vj.encode_all(jax.random.key(0), vae, variables, data)
    carried = np.asarray(q.kl()).mean(axis=0) if unit == "nats" else np.asarray(q.mean).std(axis=0)
    order = np.argsort(-carried)[:64]
    assert [each["index"] for each in model["dimensions"]] == order.tolist()
    assert [each["carries"] for each in model["dimensions"]] == [f"{carried[index]:.2f} {unit}" for index in order]
    for each in model["dimensions"]:
        assert each["low"] <= min(-3, np.quantile(q.mean[:, each["index"]], 0.01))
        assert each["high"] >= max(3, np.quantile(q.mean[:, each["index"]], 0.99))


def test_without_data_a_page_has_no_encodings(tmp_path):
    vae, other = vj.mlp_vae(GREY, 2, (4,)), vj.mlp_vae(GREY, 3, (4,))
    models = {"plane": vae, "sliders": other}
    variables = {name: drawn(model.init, jax.random.key(0)) for name, model in models.items()}
    vj.export_page(tmp_path / "page.html", models, variables)
    content = content_of(tmp_path / "page.html")
    assert (content["models"][0]["points"], content["models"][1]["starts"]) == (None, None)
    assert "labels" not in content
    page = Opened(tmp_path / "page.html")
    assert page.get('main.all("input").map(each => each.type)') == ["range"] * 3
    assert page.get('main.all("label", "slider").map(each => each.text)') == ["z1", "z2", "z3"]
    np.testing.assert_allclose(page.image(BIG).shape, (36,))


def test_the_range_of_the_pixels_is_that_of_the_transform(tmp_path):
    vae = vj.batch_norm_vae(GREY, 2, (4,))
    variables, x = drawn(vae.init, jax.random.key(0)), np.linspace(-1, 1, 36 * 5, dtype=np.float32).reshape(5, *GREY)
    for transform, expected in ((vj.Raw(-1.0, 1.0), [-1, 1]), (vj.Raw(), [0, 1])):
        vj.export_page(tmp_path / "page.html", vae, variables, x, transform=transform)
        assert content_of(tmp_path / "page.html")["range"] == expected


class Sine(nn.Module):
    @nn.compact
    def __call__(self, z, train=False):
        return nn.Dense(36)(jnp.sin(nn.DenseGeneral(8)(z))).reshape(-1, *GREY)


def own_decoder():
    return vj.VAE(vj.MLP((4,), (2, 2)), Sine(), GREY, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (own_decoder, "the decoder is a Sine with the layer DenseGeneral_0; a page has the layers of vj.MLP"),
        (lambda: vj.resnet_vae((4, 4, 3), 2, 2, blocks=(1, 1)), "a ResNetDecoder with the layer DecoderBlock_0"),
        (lambda: vj.mlp_vae(GREY, 2, (4,), activation=jnp.sin), "an activation is sin; a page has identity, relu"),
        (lambda: vj.mlp_vae(GREY, 2, (4,), vj.Poisson()), r"the likelihood is Poisson\(\); a page has the means of"),
        (lambda: vj.mlp_vae((20,), 2, (4,)), r"event_shape is \(20,\); expected \(height, width, 1 or 3\)"),
        (lambda: vj.mlp_vae(GREY, 2, (4,), condition_shape=(3,)), r"conditions of \(3,\); a page has labels alone"),
    ],
)
def test_models_that_a_page_does_not_show(make, message, tmp_path):
    vae = make()
    with pytest.raises(vj.InputError, match=message):
        vj.export_page(tmp_path / "page.html", vae, drawn(vae.init, jax.random.key(0)))
    assert list(tmp_path.iterdir()) == []


def test_bad_input(tmp_path):
    vae, file = vj.mlp_vae(GREY, 2, (4,)), tmp_path / "page.html"
    variables = drawn(vae.init, jax.random.key(0))
    file.write_text("as it was")
    wide, colour = vj.mlp_vae(GREY, 5, (4,)), vj.mlp_vae(COLOUR, 2, (4,))
    large = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(1e5), variables)
    nothing = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), variables)
    many = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), variables)
    small = vj.Classifier((4, 4, 1), 1, (3,))
    classifier = AttributeClassifier(("hat",), small, drawn(small.init, jax.random.key(0)))
    dataset = vj.Dataset.from_arrays("zeros", np.zeros((4, 6, 6)), test_images=np.zeros((4, 6, 6)))
    of_wide, both = drawn(wide.init, jax.random.key(0)), {"a": vae, "b": colour}
    of_both = {"a": variables, "b": drawn(colour.init, jax.random.key(0))}
    for message, arguments, options in (
        ("key is 3; expected a typed key", (file, vae, variables), {"key": 3}),
        ("path is 3; expected the path of a file", (3, vae, variables), {}),
        ("is a folder; expected the path of a file", (tmp_path, vae, variables), {}),
        ("cannot write to the folder", (file / "below" / "page.html", vae, variables), {}),
        ("vae is an object of type ELBO", (file, vj.ELBO(), variables), {}),
        ("has shape|is missing", (file, vae, of_wide), {}),
        ("take one of several members by vj.member", (file, vae, many), {}),
        ("the models are a, b and the variables are those of params; expected", (file, both, variables), {}),
        ("the models are none", (file, {}, {}), {}),
        (r"event_shape is \(6, 6, 1\), \(16, 16, 3\); expected", (file, both, of_both), {}),
        ("values that float16 can't hold", (file, vae, large), {}),
        ("values that float16 can't hold", (file, vae, nothing), {}),
        ("the examples have shape", (file, vae, variables, small_split(8, size=5)), {}),
        (
            "A split|a Dataset was given",
            (file, vae, variables, dataset),
            {},
        ),
        (r"the plain vector of hat has shape \(4,\); expected \(5,\)", (file, wide, of_wide), hats(4)),
        ("given with 1 models of 2 latent dimensions", (file, vae, variables), hats(2)),
        ("expected the same kinds of each", (file, wide, of_wide), {"vectors": {"a": {"b": 0}, "c": {"d": 0}}}),
        ("given with 2 models", (file, {"a": wide, "b": wide}, {"a": of_wide, "b": of_wide}), hats(5)),
        (r"the classifier takes images of \(4, 4, 1\)", (file, wide, of_wide), {"classifier": classifier}),
    ):
        with pytest.raises(vj.InputError, match=message):
            vj.export_page(*arguments, **options)
        assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
        assert file.read_text() == "as it was"


def hats(size):
    return {"vectors": {"hat": {"plain": np.zeros(size)}}}


def test_the_files_of_a_page_are_in_the_wheel():
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["vae_jax.pages"]
    names = [
        file.name for file in resources.files("vae_jax.pages").iterdir() if file.is_file() and file.suffix != ".py"
    ]
    assert {"page.html", "page.css", "network.js"} < set(names)
    assert [name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)] == []
