"""The script that clusters images: its scores against other routes, its start, tiny runs, and bad input."""

import itertools

import clustering
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from clustering import Config, main
from conftest import drawn
from harness.options import DataOptions, TrainingOptions
from harness.recipe import Trained
from sklearn.mixture import GaussianMixture

import vae_jax as vj


def test_the_accuracy_is_the_best_over_all_matches():
    generator = np.random.default_rng(0)
    labels, clusters = generator.integers(0, 4, 60), generator.integers(0, 4, 60)
    best = max(np.mean(np.array(match)[clusters] == labels) for match in itertools.permutations(range(4)))
    found = clustering.scores(labels, clusters)
    assert found["accuracy"] == pytest.approx(best)
    assert -0.2 < found["ari"] < 0.2  # independent partitions
    perfect = clustering.scores(labels, (labels + 1) % 4)
    assert perfect == pytest.approx({"accuracy": 1, "nmi": 1, "ari": 1})


def test_more_clusters_than_classes_leave_the_smallest_unmatched():
    labels, clusters = np.array([0, 0, 0, 1, 1]), np.array([2, 2, 0, 1, 1])
    assert clustering.scores(labels, clusters)["accuracy"] == pytest.approx(4 / 5)


@pytest.fixture(scope="module")
def started():
    """An autoencoder, a mixture of its encodings, and the VAE that starts from both."""
    autoencoder = vj.mlp_vae((28, 28, 1), 3, (12, 8), posterior=vj.Delta)
    variables = autoencoder.init(jax.random.key(0))
    x = np.random.default_rng(1).uniform(size=(200, 28, 28, 1)).astype(np.float32)
    codes = np.asarray(jax.jit(autoencoder.encode)(variables, x).mean)
    mixture = GaussianMixture(4, random_state=0).fit(codes)
    vae = vj.mlp_vae((28, 28, 1), 3, (12, 8), prior=vj.FullGaussianMixture(4))
    return x, codes, mixture, Trained(vae, clustering.start_of(variables, mixture), [])


def test_the_vae_starts_from_the_autoencoder_and_the_mixture(started):
    x, codes, mixture, trained = started
    posterior = jax.jit(trained.model.encode)(trained.variables, x)
    np.testing.assert_allclose(posterior.mean, codes, rtol=1e-5, atol=1e-6)
    variances = np.diagonal(mixture.covariances_, axis1=1, axis2=2)
    np.testing.assert_allclose(posterior.variance, variances.mean() / 10, rtol=1e-4)
    log_pz = trained.model.prior_distribution(trained.variables).log_prob(jnp.asarray(codes))
    np.testing.assert_allclose(log_pz, mixture.score_samples(codes), rtol=1e-4, atol=1e-3)
    expected = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(trained.model.init, jax.random.key(0)))
    assert jax.tree.map(lambda leaf: leaf.shape, trained.variables) == expected


def test_an_image_belongs_to_the_component_of_highest_probability(started):
    _, codes, mixture, trained = started
    found = clustering.most_likely_components(trained, codes)
    np.testing.assert_array_equal(found, mixture.predict(codes))
    assert len(np.unique(found)) > 1


def test_the_mixture_is_the_start_of_smallest_normalised_entropy():
    generator = np.random.default_rng(1)
    centres = 3 * generator.normal(size=(6, 2))
    rows = np.concatenate([of + generator.uniform(0.3, 1.2) * generator.normal(size=(60, 2)) for of in centres])
    floor = 1e-3 * rows.var(axis=0).mean()
    random = np.random.RandomState(1)
    single = GaussianMixture(1, reg_covar=floor, random_state=random).fit(rows).score(rows)
    starts = [GaussianMixture(4, reg_covar=floor, random_state=random).fit(rows) for _ in range(10)]
    entropies, log_densities = [], []
    for start in starts:
        gaussians = zip(start.weights_, start.means_, start.covariances_, strict=True)
        joint = [np.log(weight) + scipy.stats.multivariate_normal(*of).logpdf(rows) for weight, *of in gaussians]
        log_density = np.logaddexp.reduce(joint)
        posterior = np.exp(joint - log_density)
        entropy = -np.sum(posterior * (joint - log_density), axis=0).mean()
        entropies.append(entropy / (log_density.mean() - single))
        log_densities.append(log_density.mean())
    best = np.argmin(entropies)
    found = clustering.mixture(rows, 4, Config(seed=1))
    np.testing.assert_allclose(found.means_, starts[best].means_)
    others = np.delete(np.stack([start.means_ for start in starts]), best, axis=0)
    assert np.abs(others - found.means_).max(axis=(1, 2)).min() > 0.01
    assert best != np.argmax(log_densities)


def test_a_component_is_one_gaussian_of_the_mixture(started):
    _, codes, mixture, trained = started
    gaussian = clustering.component(trained.model.prior_distribution(trained.variables), 2)
    expected = scipy.stats.multivariate_normal(mixture.means_[2], mixture.covariances_[2]).logpdf(codes)
    np.testing.assert_allclose(gaussian.log_prob(jnp.asarray(codes)), expected, rtol=1e-4, atol=1e-3)


def test_a_fifth_of_the_input_pixels_of_the_autoencoder_is_dropped():
    images = np.random.default_rng(0).integers(1, 256, (50, 8, 8, 1), np.uint8)
    batch = jax.jit(clustering.Dropped())(jax.random.split(jax.random.key(0), 50), images)
    x, whole = np.asarray(batch.x), images / np.float32(255)
    np.testing.assert_allclose(batch.target, whole, rtol=1e-6)
    np.testing.assert_allclose(x[x > 0], whole[x > 0] / 0.8, rtol=1e-6)
    dropped = x == 0
    assert dropped.mean() == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / dropped.size))
    assert (dropped[0] != dropped[1]).any()


def test_the_autoencoder_alone_has_dropped_inputs_and_the_last_model_more_epochs(tmp_path, tiny, monkeypatch):
    trained = []

    def train(run, key, model, objective, *, train_transform=None, variables=None, title):
        trained.append((title, train_transform, run.epochs, variables is not None))
        return Trained(model, variables or drawn(model.init, key), [{"test_negative_elbo": 1.0}])

    monkeypatch.setattr(clustering.Run, "train", train)
    options = {"latent_dim": 3, "hidden": (8,), "data": DataOptions(data_dir=tiny), "out": tmp_path / "out"}
    main(Config(training=TrainingOptions(epochs=2, batch_size=32), **options))
    last = ("VAE with a mixture prior", None, 2 * clustering.PASSES, True)
    assert trained == [("autoencoder", clustering.Dropped(), 2, False), ("VAE", None, 2, False), last]


def test_a_tiny_run(tmp_path, tiny, capsys):
    options = {"latent_dim": 3, "hidden": (8,), "data": DataOptions(data_dir=tiny), "out": tmp_path / "out"}
    report = main(Config(training=TrainingOptions(epochs=2, batch_size=32), **options))
    assert set(report.numbers["scores"]) == set(clustering.NAMES)
    for of_kinds in report.numbers["scores"].values():
        assert all(0 < of_kind["accuracy"] <= 1 for of_kind in of_kinds.values())
    assert "VAE, mixture prior, components of the prior: accuracy" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clustering.json", "clustering_draws.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 1}, "clusters is 1; expected 2 or more, and fewer than the images, 40"),
        ({"clusters": 41}, "clusters is 41; expected 2 or more, and fewer than the images, 40"),
        ({"clusters": 0}, "clusters"),
        ({"latent_dim": 97}, "latent_dim is 97; there are fewer principal components than that"),
    ],
)
def test_bad_options_are_refused_before_training(tmp_path, tiny, monkeypatch, options, message):
    monkeypatch.setattr(vj, "fit", None)  # any training would fail
    with pytest.raises(vj.InputError, match=message):
        main(Config(data=DataOptions(data_dir=tiny), out=tmp_path / "out", **options))


def test_images_without_labels_are_refused(tmp_path, monkeypatch):
    images = np.zeros((20, 4, 4, 3), np.uint8)
    faces = vj.Dataset.from_arrays("faces32", images, test_images=images[:9])
    monkeypatch.setattr("harness.run.vj.load", lambda name, folder: faces)
    with pytest.raises(vj.InputError, match="faces32_smoke has no labels; the scores of clusters compare them"):
        main(Config(data=DataOptions(dataset="faces32"), smoke=True, out=tmp_path / "out"))
