"""Clustering without labels: k-means and Gaussian mixtures on encodings, and a VAE with a mixture prior.

k-means and a mixture of Gaussians (scikit-learn) are fitted to principal components and to the encodings of an
autoencoder and of a VAE, and k-means to the pixels as well. The last model is that of Jiang et al. (2017, VaDE): a VAE
with a mixture of Gaussians as its prior, which starts from the autoencoder and from the mixture of its encodings, and
is trained end to end. The layers of 500, 500 and 2,000 are theirs. The autoencoder is a denoising one (Vincent et al.,
2010): in training, a fifth of its input pixels are 0, as in Xie et al. (2016). The Gaussians of Jiang et al. are
diagonal; these have full covariances, as the fitted mixture does, so that the prior starts as that mixture.

Labels are used for the scores alone: clusters are matched to classes one to one such that the accuracy is greatest
(Hungarian assignment), and NMI and ARI need no match. All scores are those of the test split.

`--epochs` is the number for the autoencoder and the VAE with the prior N(0, I): by default 30 on MNIST, and as many as
take 1,000 steps on other data sets. The VAE with the mixture prior gets twice as many, after the autoencoder's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness.images import as_rows, scaled
from harness.options import Options, TrainingOptions
from harness.recipe import Trained
from harness.report import Report
from harness.run import Run
from harness.script import run_script

import vae_jax as vj
from vae_jax.errors import require_positive_int

NAMES = {
    "pixels": "pixels",
    "pca": "principal components",
    "autoencoder": "autoencoder",
    "vae": "VAE, N(0, I)",
    "mixture_vae": "VAE, mixture prior",
}
DRAWS = 16  # number of draws from each cluster in the picture
PASSES = 2  # epochs of the mixture prior's VAE for each one of the other models
STARTS = 10  # number of starts of each k-means and each mixture of Gaussians


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    clusters: int | None = None
    """Number of clusters. The default is the number of classes."""
    latent_dim: int = 10
    """Number of latent dimensions, and of principal components."""
    hidden: tuple[int, ...] = (500, 500, 2000)
    """Widths of the hidden layers of the encoder; the decoder has them in reverse order."""
    out: Path = Path("runs/clustering")
    """Folder for the report and the picture."""
    training: TrainingOptions = TrainingOptions(learning_rate=1e-3)


@vj.value
class Dropped(vj.Scale):
    """Transform of a denoising autoencoder: some input pixels are 0, the others are scaled up by 1 / (1 - share).

    Attributes:
      share: Probability that a pixel is 0.
    """

    share: float = 0.2

    def __call__(self, keys: jax.Array, images: jax.Array, labels: jax.Array | None = None) -> vj.Batch:
        """x = images with dropped pixels, target = whole images."""
        whole = super().__call__(keys, images, labels)
        kept = jax.vmap(lambda key, image: jax.random.bernoulli(key, 1 - self.share, image.shape))(keys, whole.x)
        return vj.Batch(jnp.where(kept, whole.x / (1 - self.share), 0), target=whole.x, label=labels)


def main(config: Config) -> Report:
    """Train the models, cluster the images in each space, and write the picture and the report."""
    run = Run.start("clustering", config, epochs=30, stand_in_steps=1_000)
    clusters, labels = clusters_and_labels(run.data, config)
    keys = jax.random.split(run.key, 7)
    shape = run.data.event_shape
    autoencoder = run.train(
        keys[0],
        vj.mlp_vae(shape, config.latent_dim, config.hidden, posterior=vj.Delta),
        vj.Reconstruction(),
        train_transform=Dropped(),
        title="autoencoder",
    )
    vae = run.train(keys[1], vj.mlp_vae(shape, config.latent_dim, config.hidden), vj.ELBO(), title="VAE")
    spaces = {
        "pixels": pixels(run.data),
        "pca": principal_components(run.data, config),
        "autoencoder": encodings(keys[2], autoencoder, run.data),
        "vae": encodings(keys[3], vae, run.data),
    }
    mixtures = {  # not of the pixels, of which a full covariance is singular and slow
        name: mixture(train, clusters, config) for name, (train, _) in spaces.items() if name != "pixels"
    }
    numbers: dict[str, dict[str, Any]] = {}
    for name, (train, test) in spaces.items():
        numbers[name] = {"k_means": scores(labels, k_means(train, clusters, config).predict(test))}
        if name in mixtures:
            numbers[name]["gaussian_mixture"] = scores(labels, mixtures[name].predict(test))
    trained = train_mixture_vae(keys[4], autoencoder, mixtures["autoencoder"], run)
    assigned = most_likely_components(trained, encodings(keys[5], trained, run.data)[1])
    numbers["mixture_vae"] = {"prior": scores(labels, assigned)}
    label = f"{run.data_and_seed}, {clusters} clusters, {config.latent_dim} latents, {len(labels):,} test images"
    print(table(numbers, label))
    run.save("draws", draws_of_clusters(keys[6], trained, assigned, labels, label))
    curve = [record["test_negative_elbo"] for record in trained.history]
    bound = {"label": run.label(), "test_negative_elbo": curve}
    return run.report({"label": label, "scores": numbers, "mixture_vae": bound})


def clusters_and_labels(data: vj.Dataset, config: Config) -> tuple[int, np.ndarray]:
    """The number of clusters, and the labels of the test images.

    Raises:
      InputError: There are no labels for the scores, or as few images as clusters.
    """
    if data.test.labels is None:
        raise vj.InputError(f"{data.name} has no labels; the scores of clusters compare them with classes")
    clusters = len(np.unique(data.test.labels)) if config.clusters is None else config.clusters
    require_positive_int(clusters=clusters)
    fewest = min(len(data.train), len(data.test))
    if not 1 < clusters < fewest:
        raise vj.InputError(f"clusters is {clusters}; expected 2 or more, and fewer than the images, {fewest:,}")
    if config.latent_dim > min(len(data.train), int(np.prod(data.event_shape))):
        raise vj.InputError(f"latent_dim is {config.latent_dim}; there are fewer principal components than that")
    return clusters, data.test.labels


Space = tuple[np.ndarray, np.ndarray]
"""A vector for each training image, [n, d], and for each test image, [m, d]."""


def pixels(data: vj.Dataset) -> Space:
    """The pixels from 0 to 1 as vectors."""
    train, test = (as_rows(scaled(split)) for split in (data.train, data.test))
    return train, test


def principal_components(data: vj.Dataset, config: Config) -> Space:
    """As many principal components of the pixels as there are latents."""
    from sklearn.decomposition import PCA  # imported here, because it takes a second to load

    train, test = pixels(data)
    pca = PCA(config.latent_dim, random_state=config.seed).fit(train)
    return pca.transform(train), pca.transform(test)


def encodings(key: jax.Array, trained: Trained, data: vj.Dataset) -> Space:
    """The means of q(z|x)."""
    train_key, test_key = jax.random.split(key)
    return trained.encode(train_key, data.train), trained.encode(test_key, data.test)


def k_means(rows: np.ndarray, clusters: int, config: Config) -> Any:
    """k-means of the rows: of ten starts, the one with the smallest squared distances."""
    from sklearn.cluster import KMeans

    return KMeans(clusters, n_init=STARTS, random_state=config.seed).fit(rows)


def mixture(rows: np.ndarray, clusters: int, config: Config) -> Any:
    """Mixture of Gaussians with full covariances: of ten starts, the one with the smallest normalised entropy.

    This is the criterion of Celeux and Soromenho (1996): the mean entropy of p(component|row), divided by the gain in
    mean log-likelihood over one Gaussian. Unlike the likelihood, it prefers components that do not overlap. The
    covariances get 1e-3 of the mean variance of the rows on the diagonal.
    """
    from scipy.special import entr
    from sklearn.mixture import GaussianMixture

    floor = 1e-3 * float(rows.var(axis=0).mean())
    random = np.random.RandomState(config.seed)

    def fit(components: int) -> Any:
        return GaussianMixture(components, reg_covar=floor, random_state=random).fit(rows)

    single = fit(1).score(rows)

    def normalised_entropy(fitted: Any) -> float:
        gain = max(fitted.score(rows) - single, np.finfo(np.float32).tiny)
        return float(entr(fitted.predict_proba(rows)).sum(axis=1).mean() / gain)

    return min((fit(clusters) for _ in range(STARTS)), key=normalised_entropy)


def train_mixture_vae(key: jax.Array, autoencoder: Trained, start: Any, run: Run) -> Trained:
    """Train a VAE whose prior is a mixture of Gaussians, from an autoencoder and a mixture of its encodings.

    Args:
      key: Key of all noise.
      autoencoder: Trained autoencoder of the same layers.
      start: scikit-learn's mixture of Gaussians, fitted to the encodings of the autoencoder.
      run: Run with the data and the options.
    """
    config: Any = run.options
    prior = vj.FullGaussianMixture(len(start.means_))
    model = vj.mlp_vae(run.data.event_shape, config.latent_dim, config.hidden, prior=prior)
    variables = start_of(autoencoder.variables, start)
    longer = replace(run, epochs=PASSES * run.epochs)
    return longer.train(key, model, vj.ELBO(), variables=variables, title="VAE with a mixture prior")


def start_of(variables: Mapping[str, Any], start: Any) -> dict[str, Any]:
    """Variables of the VAE, from an autoencoder and a mixture of Gaussians.

    The means of q(z|x) are those of the autoencoder, and its variances a tenth of the mean variance of the mixture. The
    prior is the mixture.
    """
    params = variables["params"]
    variance = np.diagonal(start.covariances_, axis1=1, axis2=2).mean()
    last = max(params["encoder"], key=lambda name: int(name.removeprefix("Dense_")))
    kernel, bias = (params["encoder"][last][part] for part in ("kernel", "bias"))
    widened = {
        "kernel": jnp.concatenate([kernel, jnp.zeros_like(kernel)], axis=1),
        "bias": jnp.concatenate([bias, jnp.broadcast_to(jnp.log(jnp.float32(variance / 10)), bias.shape)]),
    }
    prior = vj.FullGaussianMixture.variables(start.means_, start.covariances_, start.weights_)["params"]
    return {"params": {**params, "encoder": {**params["encoder"], last: widened}, "prior": prior}}


def most_likely_components(trained: Trained, z: np.ndarray) -> np.ndarray:
    """argmax over k of p(k|z) for each of the latents, [n], where z are the means of q(z|x), [n, latent_dim]."""
    prior: Any = trained.model.prior_distribution(trained.variables)
    return np.argmax(prior.responsibilities(jnp.asarray(z)), axis=-1)


def scores(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Accuracy with the best match of clusters to classes, normalised mutual information, adjusted Rand index."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    counts = table_of(labels, clusters)
    accuracy = counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels)
    return {
        "accuracy": float(accuracy),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
    }


def table_of(labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Number of images of each class (rows) in each cluster (columns)."""
    counts = np.zeros((labels.max() + 1, clusters.max() + 1), int)
    np.add.at(counts, (labels, clusters), 1)
    return counts


def table(numbers: Mapping[str, Mapping[str, Mapping[str, float]]], label: str) -> str:
    """The scores as text, one line for each method."""
    kinds = {"k_means": "k-means", "gaussian_mixture": "Gaussian mixture", "prior": "components of the prior"}
    lines = [label]
    for name, of_kinds in numbers.items():
        for kind, of_kind in of_kinds.items():
            measured = ", ".join(f"{measure} {value:.3f}" for measure, value in of_kind.items())
            lines.append(f"  {NAMES[name]}, {kinds[kind]}: {measured}")
    return "\n".join(lines)


def component(prior: Any, number: int) -> Any:
    """One of the Gaussians of a mixture: the mixture with all weight on it."""
    return replace(prior, logits=jnp.where(jnp.arange(len(prior.logits)) == number, 0.0, -jnp.inf))


def draws_of_clusters(key: jax.Array, trained: Trained, assigned: np.ndarray, labels: np.ndarray, label: str) -> Any:
    """Rows of draws from the components of the prior, ordered by the class that is most frequent in the cluster."""
    prior: Any = trained.model.prior_distribution(trained.variables)
    counts = np.zeros((labels.max() + 1, len(prior.means)), int)
    counts[:, : assigned.max() + 1] = table_of(labels, assigned)
    order = np.lexsort((-counts.max(axis=0), counts.argmax(axis=0)))
    keys = jax.random.split(key, len(order))
    z = [component(prior, k).sample(draw_key, DRAWS) for k, draw_key in zip(order, keys, strict=True)]
    images = trained.decode(np.concatenate(z))
    shares = [
        f"{counts[:, k].argmax()}: {counts[:, k].max() / counts[:, k].sum():.0%}" if counts[:, k].any() else "empty"
        for k in order
    ]
    text = "E[x|z] of draws from each component; labels: most frequent class of its images, and its share"
    return vj.plot.sheets([("", images)], DRAWS, 1, f"{text}\n{label}", shares)


if __name__ == "__main__":
    run_script(main, Config)
