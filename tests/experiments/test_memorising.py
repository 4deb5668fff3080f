"""The script on what a decoder memorises: its mathematics, a tiny run, and what it refuses."""

import json

import jax
import jax.numpy as jnp
import memorising
import numpy as np
import pytest
from conftest import small_split, write_idx
from harness.options import CheckpointOptions, DataOptions, DeviceOptions, TrainingOptions
from memorising import Config, Memory, Recipe, SineDecoder, chain, difference, halfway, measure, memorise, path_ratio
from PIL import Image

import vae_jax as vj

RECIPE = Recipe(0.02, 300, 8)
DECODER = vj.MLP((16, 16), (2, 2, 1))
IMAGES = np.random.default_rng(0).uniform(0.1, 0.9, (4, 2, 2, 1)).astype(np.float32)


def trained(codes, images, sigma=0.0, learn=False):
    """The memory after `memorise`."""
    codes = np.asarray(codes, np.float32)
    noise = np.full_like(codes, sigma)
    weights, codes = memorise(jax.random.key(0), DECODER, codes, images, noise, RECIPE, learn)
    return Memory(DECODER, weights, np.asarray(codes), noise)


def given(function, codes):
    """A memory whose decoded pixels are `function` of the codes."""

    class Decoder:
        @staticmethod
        def apply(weights, z):
            p = function(z)
            return jnp.log(p) - jnp.log1p(-p)

    codes = np.asarray(codes, np.float32)
    return Memory(Decoder(), None, codes, np.zeros_like(codes))


def test_a_vector_of_ones_gives_the_mean_of_the_images():
    memory = trained(np.ones((4, 2)), IMAGES)
    np.testing.assert_allclose(memory(memory.codes)[0], IMAGES.mean(axis=0), atol=0.01)


def test_one_hot_codes_store_each_image():
    memory = trained(np.eye(4), IMAGES)
    np.testing.assert_allclose(memory(np.eye(4, dtype=np.float32)), IMAGES, atol=0.01)
    np.testing.assert_array_equal(memory.codes, np.eye(4))


def test_noise_makes_the_decoder_a_mean_weighted_by_the_density_of_the_noise():
    codes, sigma, z = np.array([[-1.0], [1.0]]), 0.8, np.array([[-1.0], [-0.5], [0.0], [1.0]], np.float32)
    recipe = Recipe(0.01, 3_000, 8)
    noise = np.full_like(codes, sigma)
    codes, images = np.repeat(codes, 4, axis=0), np.repeat(IMAGES[:2], 4, axis=0)
    weights, _ = memorise(jax.random.key(0), DECODER, codes, images, np.repeat(noise, 4, axis=0), recipe)
    density = np.exp(-0.5 * ((z - codes.T) / sigma) ** 2)  # [4 points, 8 codes]
    expected = np.tensordot(density / density.sum(axis=1, keepdims=True), images, 1)
    np.testing.assert_allclose(Memory(DECODER, weights, codes, noise)(z), expected, atol=0.04)
    assert np.ptp(expected, axis=0).max() > 0.3


def test_learned_codes_are_trained_under_the_prior():
    start = np.array([[1.0, 2.0], [-1.0, 1.0], [2.0, -2.0], [1.0, 1.0]])
    same = trained(start, np.repeat(IMAGES[:1], 4, axis=0), learn=True)
    assert np.abs(same.codes).max() < 0.2, "images that are equal need no code, so the prior takes the codes to 0"
    different = trained(start, IMAGES, learn=True)
    np.testing.assert_allclose(different(different.codes), IMAGES, atol=0.15)
    np.testing.assert_array_equal(trained(start, IMAGES).codes, start)


def test_the_chain_visits_the_nearest_code_next():
    line = np.random.default_rng(1).normal(size=(20, 1))
    np.testing.assert_array_equal(chain(line), np.argsort(line[:, 0]))
    np.testing.assert_array_equal(chain(np.array([[0.0, 0.0], [3.0, 0.0], [1.0, 0.0], [1.5, 2.0]])), [0, 2, 1, 3])
    assert sorted(chain(np.eye(5))) == list(range(5))


def test_differences_and_averages():
    a, b = np.zeros((2, 2, 2, 1)), np.stack([np.full((2, 2, 1), 0.5), np.array([[[1.0], [0]], [[0], [0]]])])
    np.testing.assert_allclose(difference(a, b), [0.5, 0.5])
    np.testing.assert_allclose(halfway(np.array([[0.0], [2.0], [5.0]])), [[1.0], [3.5]])


def test_the_path_of_a_straight_line_has_ratio_1_and_of_half_circles_pi_over_2():
    straight = given(lambda z: 0.5 + 0.1 * z, [[1.0], [-2.0], [3.0]])
    assert path_ratio(straight) == pytest.approx(1, abs=1e-4)
    circle = given(lambda z: 0.5 + 0.4 * jnp.concatenate([jnp.cos(z), jnp.sin(z)], axis=-1), [[0.0], [np.pi]])
    assert path_ratio(circle) == pytest.approx(np.pi / 2, rel=2e-3)


def test_a_decoder_of_sines_has_the_period_of_the_lowest_frequency():
    decoder, z = SineDecoder((2, 2, 1)), jnp.array([[0.3], [-1.2]])
    weights = decoder.init(jax.random.key(0), z)
    at = decoder.apply(weights, z)
    np.testing.assert_allclose(decoder.apply(weights, z + 2 * np.pi), at, atol=1e-3)
    assert np.abs(decoder.apply(weights, z + np.pi) - at).max() > 0.05


def test_what_is_measured_between_the_codes():
    codes = np.array([[2.0], [0.0], [1.0], [4.0]], np.float32)
    memory = trained(codes, IMAGES)
    numbers = measure(jax.random.key(1), memory, IMAGES, RECIPE)
    pairs = [(1, 2), (2, 0), (0, 3)]
    z = np.array([[0.5], [1.5], [3.0]], np.float32)
    averages = np.stack([(IMAGES[i] + IMAGES[j]) / 2 for i, j in pairs])
    rms = np.sqrt(((memory(z) - averages) ** 2).mean(axis=(1, 2, 3)))
    assert numbers["from_average"] == pytest.approx(rms.mean(), rel=1e-5)
    assert numbers["from_average_standard_error"] == pytest.approx(rms.std(ddof=1) / np.sqrt(3), rel=1e-5)
    halves = [np.sqrt(np.mean((IMAGES[i] - IMAGES[j]) ** 2)) / 2 for i, j in pairs]
    assert numbers["half_distance"] == pytest.approx(np.mean(halves), rel=1e-5)
    weights, _ = memorise(jax.random.key(1), DECODER, codes, IMAGES, np.zeros_like(codes), RECIPE)
    other = memory._replace(weights=weights)
    assert numbers["disagreement"] == pytest.approx(difference(memory(z), other(z)).mean(), rel=1e-5)
    same = measure(jax.random.key(0), memory, IMAGES, RECIPE)  # the key of the first decoder
    assert same["disagreement"] == pytest.approx(0, abs=1e-6) != numbers["disagreement"]


@pytest.mark.parametrize("count", [2, 4, 7])
def test_the_picture_shows_stored_images_above_what_is_decoded_at_their_codes_and_half_way(count):
    images = vj.Split(np.arange(1, count + 1, dtype=np.uint8).repeat(4).reshape(count, 2, 2, 1))
    grey = lambda z: jnp.broadcast_to(z[:, :, None, None] / 255, (len(z), 2, 2, 1))  # noqa: E731
    memory = given(grey, np.arange(1.0, count + 1)[:, None])
    stored, decoded = np.split(255 * memorising.shown(memory, images)[:, 0, 0, 0], 2)
    first, number = (2, 5) if count == 7 else (1, count)
    np.testing.assert_allclose(decoded, first + np.arange(2 * number - 1) / 2, rtol=1e-3)
    np.testing.assert_allclose(stored[::2], decoded[::2], rtol=1e-3)
    assert not stored[1::2].any()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setattr(memorising, "HIDDEN", (8, 8))
    data = write_idx(tmp_path / "data", small_split(96), small_split(40, seed=1))

    def config(**changes):
        own = {"stored": (1, 5), "images": 5, "noise": (0.2, 0.5)}
        own["training"] = TrainingOptions(epochs=3, batch_size=16, learning_rate=0.01)
        return Config(out=tmp_path / "out", data=DataOptions(data_dir=data), **(own | changes))

    return config


@pytest.mark.usual_pictures
def test_a_tiny_run(tiny, tmp_path, capsys):
    kept = CheckpointOptions(checkpoint_dir=tmp_path / "kept")
    numbers = memorising.main(tiny(checkpoints=kept)).numbers
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "memorising.json").read_text())
    assert (report["dataset"], report["seed"]) == ("mnist", 0)
    assert list(report["growth"]) == ["1", "5"]
    ways = {"vector of ones", "one-hot codes", "learned codes", "autoencoder"}
    for row in report["growth"].values():
        assert set(row) == ways | {"autoencoder, test"}
        assert all(0 < each["error"] < 1 for each in row.values())
    names = {"learned codes, noise 0.2", "learned codes, noise 0.5", "VAE", "autoencoder on a line", "VAE on a line"}
    assert set(report["between"]) == ways - {"vector of ones"} | names
    for name, row in report["between"].items():
        assert 0 < row["disagreement"] < 1
        assert 0 < row["from_average"] < 1
        assert row["path_ratio"] >= 1
        assert f"{name}: {row['error']:.3f} +- {row['error_standard_error']:.3f}; {row['from_average']:.3f}" in printed
    assert numbers["between"]["one-hot codes"]["error"] == numbers["growth"]["5"]["one-hot codes"]["error"]
    for part in ("numbers", "steps", "line"):
        with Image.open(tmp_path / "out" / f"memorising_{part}.png") as picture:
            assert min(picture.size) > 300

    folders = {path.name for path in (tmp_path / "kept").iterdir()}
    assert len(folders) == 5, "an autoencoder for each number of images, a VAE, and both on a line"
    again = memorising.main(tiny(checkpoints=kept)).numbers
    np.testing.assert_equal(again, numbers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stored": (1, 97)}, "97 images are to be stored, but mnist has 96 training images"),
        ({"images": 97}, "97 images are to be stored, but mnist has 96"),
        ({"images": 1}, "images is 1; expected at least 2"),
        ({"stored": (4, 0)}, r"stored\[1\] is 0"),
        ({"stored": ()}, r"stored is \[\]; expected one number of images or more"),
        ({"code_dim": 37}, "code_dim is 37; expected at most 36"),
        ({"code_dim": 0}, "code_dim is 0"),
        ({"noise": (0.1, -0.5)}, r"noise\[1\] is -0.5; expected a finite number above 0"),
        ({"noise": (0.0, 0.5)}, r"noise\[0\] is 0.0; expected a finite number above 0"),
        ({"noise": (float("nan"),)}, r"noise\[0\] is nan"),
        ({"noise": ()}, r"noise is \[\]; expected one value or more, each once"),
        ({"noise": (0.1, 0.1)}, r"noise is \[0.1, 0.1\]; expected one value or more, each once"),
        ({"devices": DeviceOptions(devices=2)}, "memorising uses one device, because some decoders store one image"),
        ({"devices": DeviceOptions(devices="all")}, "memorising uses one device"),
        (
            {"training": TrainingOptions(weight_decay=0.1)},
            "weight_decay is 0.1, but the decoders",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_training(tiny, monkeypatch, changes, message):
    monkeypatch.setattr(memorising, "memorise", lambda *args: pytest.fail("training began"))
    monkeypatch.setattr(vj, "fit", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(vj.InputError, match=message):
        memorising.main(tiny(**changes))
