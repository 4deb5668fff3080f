"""The script on anomaly detection: its scores against independent computations, tiny runs, and refusals."""

import json

import anomaly_detection as script
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from anomaly_detection import Config, Perturbed, main
from conftest import small_split, write_idx
from harness.options import CheckpointOptions, DataOptions, TrainingOptions
from harness.script import run_seeds

import vae_jax as vj

TRAIN, TEST = small_split(96), small_split(42, seed=1)
X = TEST.images[:6] / np.float32(255)


@pytest.fixture
def tiny(tmp_path):
    return write_idx(tmp_path / "data", TRAIN, TEST)


def options(tiny, tmp_path, **changes):
    defaults = {
        "data": DataOptions(data_dir=tiny),
        "out": tmp_path / "out",
        "training": TrainingOptions(epochs=2, learning_rate=2e-3),
        "latent_dim": 2,
        "hidden": (8,),
        "samples": 5,
    }
    return Config(**(defaults | changes))


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_a_run_reports_each_score_of_each_digit(leave_one_out, tiny, tmp_path, capsys):
    report = main(options(tiny, tmp_path, leave_one_out=leave_one_out))
    stem = "anomaly_detection_leave_one_out" if leave_one_out else "anomaly_detection"
    assert json.loads((tmp_path / "out" / f"{stem}.json").read_text())["auroc"].keys() == script.SCORES.keys()
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {f"{stem}_scores.png", f"{stem}_images.png"}
    for found in report.numbers["auroc"].values():
        values = [found["of_digit"][digit] for digit in range(3)]
        assert all(0 <= value <= 1 for value in values)
        assert found["mean"] == pytest.approx(np.mean(values))
        assert found["deviation_of_digits"] == pytest.approx(np.std(values, ddof=1))
    assert report.numbers["auroc"]["pca"]["mean"] > 0.9
    assert report.numbers["training_images_of_a_model"] == (64 if leave_one_out else 32)
    assert report.numbers["steps_of_a_model"] == 2 * (64 // 32 if leave_one_out else 1)
    printed = capsys.readouterr().out
    assert f"{report.numbers['auroc']['svm']['mean']:.3f}" in printed


def test_a_trained_vae_finds_the_other_digits(tiny, tmp_path):
    training = TrainingOptions(epochs=150, learning_rate=1e-2)
    report = main(options(tiny, tmp_path, digits=(1,), training=training, hidden=(16,)))
    for name in ("error", "error_by_ink", "elbo", "log_px", "log_px_by_ink"):
        assert report.numbers["auroc"][name]["mean"] > 0.95, name
        assert report.numbers["auroc"][name]["deviation_of_digits"] == 0


def test_a_run_resumes_and_several_seeds_are_summarised(tiny, tmp_path):
    config = options(
        tiny,
        tmp_path,
        digits=(2,),
        members=2,
        data=DataOptions(data_dir=tiny, hold_out=30),
        checkpoints=CheckpointOptions(checkpoint_dir=tmp_path / "kept"),
    )
    run_seeds(main, config)
    path = tmp_path / "out" / "anomaly_detection_mnist_held_out.json"
    first = json.loads(path.read_text())
    steps = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").glob("seed_*/*/[0-9]*")}
    assert len(steps) == 2 * 2  # of two seeds, and the model and its background
    run_seeds(main, config)
    assert steps == {path: path.stat().st_mtime_ns for path in steps}, "trained again"
    assert json.loads(path.read_text())["of_members"] == first["of_members"]
    assert first["of_members"][0] != first["of_members"][1]


def scores_of(samples, power=0.5):
    """The scores of two models that are not trained, and log p(x) of both by quadrature over one latent dimension."""
    vae = vj.mlp_vae((6, 6, 1), 1, (8,))
    variables = [jax.tree.map(lambda leaf: 1.5 * leaf, vae.init(jax.random.key(seed))) for seed in range(2)]
    given = {"VAE": variables[0], "VAE background": variables[1]}
    seen = []

    def training(key, images, transform, title):
        seen.append((transform, len(images)))
        return given[title]

    training.vae = vae
    config = Config(samples=samples, power=power, background=0.25)
    scores = script.vae_scores(jax.random.key(5), training, TRAIN, TEST[:6], config, "VAE")
    z = np.linspace(-8, 8, 4001, dtype=np.float32)[:, None]
    log_prior = -0.5 * z[:, 0] ** 2 - 0.5 * np.log(2 * np.pi) + np.log(z[1, 0] - z[0, 0])
    log_px = []
    for each in variables:
        px_z = vae.decode(each, z)
        joint = np.stack([np.asarray(px_z.log_prob(jnp.broadcast_to(x, (4001, 6, 6, 1)))) for x in X])
        log_px.append(np.asarray(jax.nn.logsumexp(joint + log_prior, axis=1)))
    return scores, log_px, vae, variables[0], seen


def test_log_px_and_the_ratio_are_those_of_quadrature():
    scores, (of_model, of_background), _, _, seen = scores_of(samples=20_000)
    least = script.entropy(X)
    np.testing.assert_allclose(scores["log_px"], -of_model - least, atol=0.1)
    np.testing.assert_allclose(scores["ratio"], of_background - of_model, atol=0.2)
    np.testing.assert_allclose(scores["log_px_by_ink"], scores["log_px"] / np.sqrt(X.sum(axis=(1, 2, 3))), rtol=1e-5)
    assert (scores["log_px"] > 0).all()
    assert [size for _, size in seen] == [96, 96]
    assert isinstance(seen[0][0], vj.Scale)
    assert seen[1][0] == Perturbed(0.25)


def test_the_reconstruction_error_is_at_the_posterior_mean():
    scores, _, vae, variables, _ = scores_of(samples=5, power=1.0)
    error = np.sum((X - np.asarray(vae.reconstruct(variables, X).mean)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(scores["error"], error, rtol=1e-4)
    np.testing.assert_allclose(scores["error_by_ink"], error / X.sum(axis=(1, 2, 3)), rtol=1e-4)


def test_the_negative_elbo_bounds_log_px():
    scores, (of_model, _), *_ = scores_of(samples=5)
    assert np.mean(scores["elbo"]) > np.mean(-of_model - script.entropy(X))


def test_entropy_and_ink_in_closed_form():
    x = np.stack([np.full((2, 2, 1), 0.5), np.array([[[0.0], [1.0]], [[1.0], [0.0]]]), np.full((2, 2, 1), 0.25)])
    of_quarter = -0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    np.testing.assert_allclose(script.entropy(x), [4 * np.log(2), 0, 4 * of_quarter])
    np.testing.assert_allclose(script.ink(x), [2, 2, 1])
    np.testing.assert_allclose(script.ink(0 * x), 1)  # an empty image is divided by 1
    np.testing.assert_allclose(script.squared_error(x, np.zeros_like(x)), [1, 2, 0.25])
    assert (script.entropy(X) <= -np.asarray(vj.Bernoulli()(jnp.zeros((6, 6, 6, 1))).log_prob(jnp.asarray(X)))).all()


def test_area_counts_the_pairs_in_order():
    generator = np.random.default_rng(0)
    score, anomaly = generator.integers(0, 6, 40).astype(float), generator.random(40) < 0.3
    pairs = score[anomaly][:, None] - score[~anomaly][None]
    assert script.area(score, anomaly) == pytest.approx(np.mean(pairs > 0) + 0.5 * np.mean(pairs == 0))
    assert script.area(anomaly.astype(float), anomaly) == 1


def test_perturbed_pixels_are_pixels_of_the_image():
    image = np.arange(100, 164, dtype=np.uint8).reshape(1, 8, 8, 1)
    images = np.repeat(image, 200, axis=0)
    for rate in (0.3, 1.0):
        x = np.asarray(Perturbed(rate)(jax.random.split(jax.random.key(0), 200), images).x) * 255
        kept = np.mean(np.abs(x - images) < 0.5)
        assert kept == pytest.approx(1 - rate + rate / 64, abs=0.015)
        assert set(np.rint(x).astype(int).ravel()) <= set(range(100, 164))
        assert np.std(x.mean(axis=0)[..., 0] - (1 - rate) * image[0, ..., 0]) < 3  # replaced from everywhere
    assert np.any(x[0] != x[1])


def test_pca_is_the_truncated_singular_value_decomposition():
    config = Config(components=3, power=0.5, svm_images=20)
    scores = script.baseline_scores(TRAIN, TEST, config)
    train, test = (split.images.reshape(len(split), -1) / 255 for split in (TRAIN, TEST))
    axes = np.linalg.svd(train - train.mean(axis=0))[2][:3]
    rest = (test - train.mean(axis=0)) - (test - train.mean(axis=0)) @ axes.T @ axes
    np.testing.assert_allclose(scores["pca"], np.sum(rest**2, axis=1), rtol=1e-3)
    np.testing.assert_allclose(scores["pca_by_ink"], np.sum(rest**2, axis=1) / np.sqrt(test.sum(axis=1)), rtol=1e-3)
    far = vj.Split(255 - TEST.images)
    for name, score in script.baseline_scores(TRAIN, far, config).items():
        assert score.mean() > scores[name].mean(), name


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_the_usual_images_are_equally_many_and_of_the_right_digits(leave_one_out):
    train = TRAIN[np.flatnonzero((TRAIN.labels != 2) | (np.arange(96) > 50))]
    usual = script.usual_images(train, (0, 1, 2), leave_one_out)
    assert len({len(split) for split in usual.values()}) == 1
    for digit, split in usual.items():
        assert set(split.labels) == (set(range(3)) - {digit} if leave_one_out else {digit})
        assert script.is_anomaly(TEST, digit, leave_one_out).mean() == pytest.approx(1 / 3 if leave_one_out else 2 / 3)


def test_the_picture_has_the_extremes(monkeypatch):
    seen = {}
    monkeypatch.setattr(vj.plot, "sheets", lambda sheets, *args: seen.update(dict(sheets)) or args)
    images = np.repeat(np.arange(20, dtype=np.uint8), 4).reshape(20, 2, 2, 1)
    test = vj.Split(images, np.array([0] * 5 + [1] * 15, np.int32))
    order = {0: {"error": np.arange(20.0)}, 1: {"error": -np.arange(20.0)}}
    arguments = script.extremes(order, test, Config(score="error"), "title")
    assert arguments == (8, 3, "title", ["0", "1"])
    most, least, anomalies = (np.rint(sheet[:, 0, 0, 0] * 255).reshape(2, 8).tolist() for sheet in seen.values())
    assert most == [list(range(8)), list(range(19, 11, -1))]
    assert least == [[4, 3, 2, 1, 0, 0, 0, 0], list(range(5, 13))]
    assert anomalies == [list(range(5, 13)), [4, 3, 2, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digits": (0, 7)}, r"digits are \[0, 7\]; expected different labels of mnist: \[0, 1, 2\]"),
        ({"digits": (1, 1)}, r"digits are \[1, 1\]; expected different"),
        ({"digits": ()}, r"digits are \[\]; expected different"),
        ({"score": "speed"}, "score is 'speed'; expected one of error,"),
        ({"background": 0.0}, "background is 0.0; expected a probability"),
        ({"background": float("nan")}, "background is nan; expected a probability"),
        ({"power": -1.0}, "power is -1.0"),
        ({"samples": 0}, "samples is 0"),
        ({"components": 0}, "components is 0"),
        ({"svm_images": 0}, "svm_images is 0"),
        ({"latent_dim": 0}, "latent_dim is 0"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_training(changes, message, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("vae_jax.training.loop.run_chunk", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(vj.InputError, match=message):
        main(options(tiny, tmp_path, **changes))


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (TRAIN, TEST[np.flatnonzero(TEST.labels != 1)], "there are no test images of 1"),
        (TRAIN[np.flatnonzero(TRAIN.labels != 2)], TEST, "there are no training images of 2"),
        (
            TRAIN[np.flatnonzero(TRAIN.labels == 0)],
            TEST[np.flatnonzero(TEST.labels == 0)],
            "all training images are of 0",
        ),
        (vj.Split(TRAIN.images), vj.Split(TEST.images), "the images of few have no labels"),
    ],
)
def test_data_that_cannot_be_used_are_refused(train, test, message):
    with pytest.raises(vj.InputError, match=message):
        script.checked_digits(vj.Dataset("few", train, test, "here"), Config())
