"""The denoising script: its noise, its baselines against closed forms, its measures, and tiny runs end to end."""

import dataclasses
import json

import denoising
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_split, write_idx
from denoising import Config, Noise, Noisy
from harness.options import CheckpointOptions, DataOptions, TrainingOptions
from PIL import Image
from skimage.metrics import structural_similarity
from sklearn.decomposition import PCA

import vae_jax as vj

RNG = np.random.default_rng(0)
CLEAN = RNG.integers(0, 256, (500, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(denoising, "PATCHES", ((3, 0.1), (3, 0.3)))
    monkeypatch.setattr(denoising, "WEIGHTS", (0.1, 0.3))
    monkeypatch.setattr(denoising, "FEATURES", (4, 4))
    data = write_idx(tmp_path / "data", small_split(96), small_split(40, seed=1))
    training = TrainingOptions(epochs=2, batch_size=32)
    return {"out": tmp_path / "out", "data": DataOptions(data_dir=data), "training": training, "hidden": (8,)}


def noisy(*kinds, images=CLEAN):
    batch = Noisy(kinds=kinds)(jax.random.split(jax.random.key(0), len(images)), jnp.asarray(images))
    np.testing.assert_allclose(batch.target, images / 255.0, rtol=1e-6)
    return np.asarray(batch.x), np.asarray(batch.target)


def test_gaussian_noise_has_its_mean_and_deviation():
    x, clean = noisy(Noise(sigma=0.5))
    noise = (x - clean).ravel()
    assert abs(noise.mean()) < 6 * 0.5 / np.sqrt(noise.size)
    assert abs(noise.std() - 0.5) < 6 * 0.5 / np.sqrt(2 * noise.size)


def test_salt_and_pepper_are_equally_frequent_and_the_same_in_all_channels():
    images = RNG.integers(1, 255, (500, 8, 8, 3), dtype=np.uint8)
    x, clean = noisy(Noise(share=0.3), images=images)
    for value in (0, 1):
        share = (x == value).mean()
        assert abs(share - 0.15) < 6 * np.sqrt(0.15 * 0.85 / 32_000)
    changed = x != clean
    assert (changed == changed[..., :1]).all()
    np.testing.assert_array_equal(x[~changed], clean[~changed])


def test_a_missing_block_is_a_square_inside_the_image_that_can_be_anywhere():
    x, clean = noisy(Noise(block=3))
    missing = x == denoising.GREY
    assert (missing.sum(axis=(1, 2, 3)) == 9).all()
    np.testing.assert_array_equal(x[~missing], clean[~missing])
    rows, columns = missing.any(axis=(2, 3)), missing.any(axis=(1, 3))
    assert (rows.sum(axis=1) == 3).all()
    assert (columns.sum(axis=1) == 3).all()
    places = {(int(row), int(column)) for row, column in zip(rows.argmax(1), columns.argmax(1), strict=True)}
    assert places == {(row, column) for row in range(6) for column in range(6)}


def test_each_example_has_one_of_the_kinds():
    x, clean = noisy(Noise(sigma=0.5), Noise(block=3), Noise(share=0.5))
    changed = (x != clean).sum(axis=(1, 2, 3))
    gaussian, block = changed == 64, (x == denoising.GREY).sum(axis=(1, 2, 3)) == 9
    within = np.isin(x[~gaussian & ~block], (0, 1)) | (x == clean)[~gaussian & ~block]
    assert within.all()
    for share in (gaussian.mean(), block.mean()):
        assert abs(share - 1 / 3) < 0.1


def correlated(count, shape=(4, 4, 1)):
    size = int(np.prod(shape))
    mixing = np.random.default_rng(1).normal(size=(size, size)) * 0.5 ** np.arange(size)
    return (0.5 + np.random.default_rng(2).normal(size=(count, size)) @ mixing.T).reshape(count, *shape)


@pytest.mark.parametrize("count", [200, 10], ids=["more images than pixels", "fewer"])
def test_least_squares_from_clean_to_clean_images_is_the_wiener_filter(count):
    train, y = correlated(count), RNG.normal(size=(5, 4, 4, 1))
    rows = train.reshape(count, -1)
    mean, c = rows.mean(axis=0), np.cov(rows.T, bias=True)
    expected = mean + (y.reshape(5, -1) - mean) @ (c @ np.linalg.inv(c + 0.3 * np.eye(16))).T
    found = denoising.least_squares(train, train, 0.25)(y, 0.05)
    np.testing.assert_allclose(found.reshape(5, -1), expected, rtol=1e-8)


def test_least_squares_on_pairs_is_the_regression_with_a_constant():
    train, y = correlated(200), RNG.normal(size=(5, 4, 4, 1))
    pairs = 0.3 * train + 1 + RNG.normal(size=train.shape)
    design = np.c_[pairs.reshape(200, -1), np.ones(200)]
    weights = np.linalg.lstsq(design, train.reshape(200, -1))[0]
    expected = np.c_[y.reshape(5, -1), np.ones(5)] @ weights
    found = denoising.least_squares(pairs, train)(y, 0.0)
    np.testing.assert_allclose(found.reshape(5, -1), expected, rtol=1e-6)


def test_least_squares_on_pairs_with_gaussian_noise_approaches_the_wiener_filter():
    train = correlated(40_000)
    pairs, y = train + 0.5 * RNG.normal(size=train.shape), RNG.normal(size=(5, 4, 4, 1))
    wiener = denoising.least_squares(train, train, 0.25)(y, 0.0)
    found = denoising.least_squares(pairs, train)(y, 0.0)
    assert np.abs(found - wiener).max() < 0.1 < np.abs(y - wiener).max()


def test_conditional_mean_is_that_of_a_gaussian():
    train = correlated(200)
    pca = PCA(10).fit(train.reshape(200, -1))
    y = correlated(3)
    y[:, 1:3, 0:2] = denoising.GREY
    missing = (y[0] == denoising.GREY).ravel()
    c = pca.components_.T * pca.explained_variance_ @ pca.components_
    known_known = c[~missing][:, ~missing] + 0.01 * np.eye(12)
    known = (y.reshape(3, -1) - pca.mean_)[:, ~missing]
    expected = pca.mean_[missing] + known @ np.linalg.solve(known_known, c[~missing][:, missing])
    found = denoising.conditional_mean(pca)(y, 0.01).reshape(3, -1)
    np.testing.assert_allclose(found[:, missing], expected, rtol=1e-6)


def test_projection_is_that_of_a_pca_of_this_dimension():
    train, y = correlated(200), correlated(5)
    few = PCA(3).fit(train.reshape(200, -1))
    expected = few.inverse_transform(few.transform(y.reshape(5, -1)))
    found = denoising.projection(PCA(10).fit(train.reshape(200, -1)))(y, 3)
    np.testing.assert_allclose(found.reshape(5, -1), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 9, 12, 1), (4, 16, 8, 3), (4, 6, 6, 1)])
def test_ssim_is_that_of_each_image_alone(shape):
    clean = RNG.random(shape).astype(np.float32)
    images = np.clip(clean + 0.2 * RNG.normal(size=shape), 0, 1).astype(np.float32)
    window = 5 if shape[1] == 6 else 7
    expected = [
        structural_similarity(one.astype(float), other.astype(float), win_size=window, data_range=1.0, channel_axis=-1)
        for one, other in zip(clean, images, strict=True)
    ]
    np.testing.assert_allclose(denoising.ssim(images, clean), expected, rtol=1e-6)


def test_psnr_of_known_errors():
    clean = np.zeros((3, 2, 2, 1))
    images = clean + np.array([0.1, 1.0, 0.0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(denoising.psnr(images, clean), [20, 0, 100], atol=1e-9)


def test_outputs_are_clipped_and_known_pixels_kept():
    y = np.array([0.2, denoising.GREY, 0.9]).reshape(1, 1, 3, 1)
    outputs = np.array([7.0, -7.0, 0.5]).reshape(y.shape)
    np.testing.assert_array_equal(denoising.restored(Noise(sigma=1), y, outputs).ravel(), [1, 0, 0.5])
    np.testing.assert_array_equal(denoising.restored(Noise(block=1), y, outputs).ravel(), [0.2, 0, 0.9])


def test_the_strength_with_the_highest_psnr_is_chosen():
    y = np.full((2, 4, 4, 1), 0.5)
    scale = lambda noisy, strength: noisy * strength  # noqa: E731
    strength, score = denoising.best_strength(scale, (0.1, 1.0, 1.3, 3.0), Noise(sigma=1), y, 1.4 * y)
    assert strength == 1.3
    assert score == pytest.approx(-20 * np.log10(0.05))


def test_the_best_baseline_is_chosen_on_the_held_out_images(monkeypatch):
    dark, bright = (vj.Split(np.full((5, 4, 4, 1), value, np.uint8)) for value in (51, 204))
    constants = {str(grey): (lambda noisy, level: np.full_like(noisy, level), (grey,)) for grey in (0.3, 0.7)}
    monkeypatch.setattr(denoising, "baselines", lambda *_: constants)
    outputs, strengths, best = denoising.denoise_all(jax.random.key(0), Noise(sigma=0.01), dark, dark, bright, {}, None)
    assert best == "0.3"
    assert strengths == {"0.3": 0.3, "0.7": 0.7}
    score = {name: denoising.psnr(images, denoising.scaled(bright)).mean() for name, images in outputs.items()}
    assert score["0.3"] < score["0.7"] < score["noisy image"], "on the test images the others are better"


def test_the_gain_is_paired():
    clean = RNG.random((20, 8, 8, 1))
    off = dict(zip(("noisy image", "linear", "PCA", *denoising.MODELS), (0.5, 0.2, 0.3, 0.01, 0.02, 0.1), strict=True))
    sizes = RNG.uniform(0.5, 1, (20, 1, 1, 1))
    outputs = {name: clean + error * sizes for name, error in off.items()}
    numbers = denoising.measure(outputs, clean, {"PCA": 4}, "linear")
    assert numbers["best_baseline"] == "linear"
    assert numbers["gain"] == pytest.approx(20 * np.log10(2))
    assert numbers["gain_standard_error"] == pytest.approx(0, abs=1e-6)
    assert numbers["methods"]["linear"]["psnr_standard_error"] > 0.1
    assert [numbers["methods"][name].get("strength") for name in ("PCA", "linear")] == [4, None]


def test_non_local_means_and_total_variation_restore_smooth_images_in_their_shape():
    clean = np.broadcast_to(np.linspace(0, 1, 24)[:, None, None] > 0.5, (3, 24, 24, 1)).astype(np.float32)
    y = clean + 0.2 * RNG.normal(size=clean.shape).astype(np.float32)
    pca = PCA(2).fit(clean.reshape(3, -1) + RNG.normal(size=(3, 576)))
    found = denoising.baselines(jax.random.key(0), Noise(sigma=0.2), vj.Split(np.uint8(255 * clean)), pca)
    for name in ("median filter", "non-local means", "total variation"):
        denoise, grid = found[name]
        strength, _ = denoising.best_strength(denoise, grid, Noise(sigma=0.2), y, clean)
        assert denoise(y, strength).shape == y.shape
        assert denoising.psnr(denoise(y, strength), clean).mean() > denoising.psnr(y, clean).mean() + 5


@pytest.mark.usual_pictures
def test_a_tiny_run_end_to_end(options, tmp_path, capsys):
    checkpoints = CheckpointOptions(checkpoint_dir=tmp_path / "kept")
    config = Config(**options, checkpoints=checkpoints, images=30, latent_dim=3, sigmas=(0.5, 0.0))
    denoising.main(config)
    report = json.loads((tmp_path / "out" / "denoising.json").read_text())
    assert (report["images"], report["tuned_on"], report["data"]["train_images"]) == (30, 19, 77)
    assert report["noise"].keys() == {"Gaussian, sigma 0.5", "salt and pepper, 30%", "missing 2 x 2 pixels"}
    for numbers in report["noise"].values():
        methods = numbers["methods"]
        assert len(methods) == 9
        assert methods.keys() >= denoising.MODELS.keys()
        for entry in methods.values():
            assert entry["psnr_standard_error"] > 0
            assert -1 <= entry["ssim"] <= 1
        assert numbers["best_baseline"] in methods.keys() - denoising.MODELS.keys() - {"noisy image"}
        best = methods[numbers["best_baseline"]]["psnr"]
        assert numbers["gain"] == pytest.approx(methods["denoising autoencoder"]["psnr"] - best)
        assert methods["linear"]["psnr"] > methods["noisy image"]["psnr"]
    for part in ("images", "psnr"):
        with Image.open(tmp_path / "out" / f"denoising_{part}.png") as picture:
            assert min(picture.size) > 300
    last = report["noise"]["missing 2 x 2 pixels"]["methods"]["denoising autoencoder"]
    (*_, line) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  denoising autoencoder")]
    assert line.split()[2] == f"{last['psnr']:.2f}"
    trained = len(list((tmp_path / "kept").iterdir()))
    assert trained == 3
    again = denoising.main(dataclasses.replace(config, out=tmp_path / "again"))  # resumes after the last step
    assert json.loads(json.dumps(again.numbers["noise"])) == report["noise"]


def test_training_makes_the_autoencoder_denoise(options):
    training = TrainingOptions(epochs=60, batch_size=32, learning_rate=1e-2)
    config = Config(**options | {"training": training, "hidden": (64,)}, latent_dim=32, salt_pepper=0, block=0)
    numbers = denoising.main(dataclasses.replace(config, sigmas=(0.5,))).numbers["noise"]
    found = {name: row["psnr"] for name, row in numbers["Gaussian, sigma 0.5"]["methods"].items()}
    assert found["denoising autoencoder"] > found["noisy image"] + 5
    assert found["denoising VAE"] > found["noisy image"]


def test_colour_images_have_convolutional_models(options, monkeypatch):
    images = np.repeat(np.kron(small_split(60, size=8).images[:, ::4, ::4], np.ones((1, 8, 8, 1), np.uint8)), 3, axis=3)
    data = vj.Dataset.from_arrays("colours", images[:48], test_images=images[48:])
    monkeypatch.setattr("harness.run.vj.load", lambda name, folder: data)
    monkeypatch.setattr(denoising, "MODELS", {denoising.COMPARED: vj.Delta})
    config = Config(**options | {"data": DataOptions("colours")}, latent_dim=3, sigmas=())
    report = denoising.main(config)
    assert report.name == "denoising_colours"
    assert all(np.isfinite(numbers["gain"]) for numbers in report.numbers["noise"].values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigmas": (0.5, -0.1)}, "sigma is -0.1; expected a finite number of at least 0"),
        ({"sigmas": (float("nan"),)}, "sigma is nan"),
        ({"salt_pepper": 1.2}, "salt_pepper is 1.2; expected a share of the pixels, from 0 to 1"),
        ({"salt_pepper": -0.1}, "salt_pepper is -0.1"),
        ({"salt_pepper": float("nan")}, "salt_pepper is nan"),
        ({"block": 7}, "block is 7; expected at most 6"),
        ({"block": -1}, "block is -1"),
        ({"images": 0}, "images is 0"),
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"sigmas": (0.0,), "salt_pepper": 0, "block": 0}, "all levels of noise are 0"),
    ],
)
def test_options_that_cannot_be_used_are_one_sentence_before_training(given, message, options, monkeypatch):
    monkeypatch.setattr("vae_jax.fit", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(vj.InputError, match=message):
        denoising.main(Config(**options, **given))
