"""Variables at which a VAE with linear paths is probabilistic PCA, against scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import drawn
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

import vae_jax as vj
from vae_jax.errors import InputError
from vae_jax.training import principal_components

SHAPE, LATENTS = (4, 4, 3), 5
MODELS = {
    "residual": vj.resnet_vae(SHAPE, LATENTS, 4, blocks=(1, 1), linear=True),
    "residual, group norm": vj.resnet_vae(SHAPE, LATENTS, 4, blocks=(1, 1), linear=True, norm="group", pool=False),
    "residual, scale per channel": vj.resnet_vae(
        SHAPE, LATENTS, 4, vj.LearnedGaussian(per_channel=True), blocks=(1, 1), linear=True
    ),
    "residual, optimal scale": vj.resnet_vae(SHAPE, LATENTS, 4, vj.OptimalGaussian(), blocks=(1, 1), linear=True),
    "convolutional": vj.conv_vae(SHAPE, LATENTS, (4, 4), vj.LearnedGaussian(), linear=True),
}


def initial(vae):
    return drawn(vae.init, jax.random.key(0))


def correlated(count, seed=0):
    """Examples on a low-dimensional plane, with noise."""
    generator = np.random.default_rng(seed)
    plane = np.random.default_rng(9).normal(size=(8, 48)) * np.linspace(0.3, 0.05, 8)[:, None]
    rows = 0.4 + generator.normal(size=(count, 8)) @ plane + 0.1 * generator.normal(size=(count, 48))
    return rows.reshape(-1, *SHAPE).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "count", "exact"),
    [*((name, 400, 4_096) for name in MODELS), ("residual", 40, 4_096), ("residual", 400, 12), ("residual", 40, 12)],
)
def test_the_bound_is_the_likelihood_of_probabilistic_pca(name, count, exact, monkeypatch):
    """Also of fewer examples than entries, and with approximate components."""
    monkeypatch.setattr(principal_components, "_EXACT", exact)
    vae = MODELS[name]
    train, test = correlated(count), correlated(100, seed=1)
    variables = vj.start_at_pca(vae, initial(vae), train)
    assert jax.tree.structure(variables) == jax.tree.structure(initial(vae))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), initial(vae)
    )
    found = vj.log_likelihood(jax.random.key(1), vae, variables, test, samples=10)
    pca = PCA(LATENTS).fit(train.reshape(count, -1))
    share = (count - 1) / count  # scikit-learn divides the covariance by n - 1
    pca.explained_variance_, pca.noise_variance_ = pca.explained_variance_ * share, pca.noise_variance_ * share
    if count <= 48:  # its mean of the other eigenvalues leaves out those that are 0
        pca.noise_variance_ *= (count - LATENTS) / (48 - LATENTS)
    np.testing.assert_allclose(found, pca.score_samples(test.reshape(100, -1)), rtol=1e-3, atol=1e-2)
    # The posterior is exact, so that each importance weight is the likelihood, whatever z.
    weights = jax.jit(lambda x: vj.log_weights(jax.random.key(2), vae, variables, x, 8))
    np.testing.assert_allclose(np.asarray(weights(test[:20])).std(axis=0), 0, atol=2e-3)


@pytest.mark.parametrize("variance", [1e-3, 2.2, 10.0])
def test_a_fixed_variance_leaves_components_below_it_unused(variance):
    """The bound is the likelihood of the linear Gaussian model, at the maximum over its weights."""
    vae = vj.conv_vae(SHAPE, LATENTS, (4, 4), vj.Gaussian(variance), linear=True)
    train, test = correlated(400), correlated(20, seed=1)
    variables = vj.start_at_pca(vae, initial(vae), train)
    rows = train.reshape(400, -1).astype(np.float64)
    eigenvalues, eigenvectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    gains = np.maximum(eigenvalues[-LATENTS:] - variance, 0)
    assert (gains == 0).sum() == {1e-3: 0, 2.2: 2, 10.0: 5}[variance]
    covariance = (eigenvectors[:, -LATENTS:] * gains) @ eigenvectors[:, -LATENTS:].T + variance * np.eye(48)
    expected = multivariate_normal(rows.mean(axis=0), covariance).logpdf(test.reshape(20, -1))
    weights = jax.jit(lambda x: vj.log_weights(jax.random.key(2), vae, variables, x, 8))(test)
    np.testing.assert_allclose(weights, np.tile(expected, (8, 1)), rtol=1e-3, atol=2e-2)
    used = jax.jit(lambda x: vae.encode(variables, x).variance)(test[:1])[0] < 0.999
    np.testing.assert_array_equal(used, gains > 0)


def test_a_plain_autoencoder_starts_at_pca():
    vae = vj.conv_vae(SHAPE, LATENTS, (4, 4), vj.Gaussian(), vj.Delta, linear=True)
    train, test = correlated(400), correlated(20, seed=1)
    variables = vj.start_at_pca(vae, initial(vae), train)
    assert jax.tree.structure(variables) == jax.tree.structure(initial(vae))
    z, decoded = jax.jit(lambda x: (vae.encode(variables, x).mean, vae.reconstruct(variables, x).mean))(test)
    pca = PCA(LATENTS, whiten=True).fit(train.reshape(400, -1))
    expected = pca.transform(test.reshape(20, -1))[:, ::-1] * np.sqrt(400 / 399)
    np.testing.assert_allclose(np.abs(z), np.abs(expected), rtol=1e-3, atol=1e-3)  # the signs are arbitrary
    again = pca.inverse_transform(pca.transform(test.reshape(20, -1)))
    np.testing.assert_allclose(np.reshape(decoded, (20, -1)), again, atol=1e-4)


def test_the_prior_may_be_an_untrained_flow():
    normal = MODELS["residual"]
    flow = vj.resnet_vae(SHAPE, LATENTS, 4, blocks=(1, 1), linear=True, prior=vj.FlowPrior(vj.Coupling(3, (8,))))
    train, x = correlated(100), jnp.asarray(correlated(20, seed=1))
    starts = [vj.start_at_pca(vae, jax.jit(vae.init)(jax.random.key(0)), train) for vae in (normal, flow)]

    @jax.jit
    def log_px_z_and_weights(vae, variables):
        terms = vj.elbo_terms(jax.random.key(1), vae, variables, x)
        return terms.log_px_z, vj.log_weights(jax.random.key(2), vae, variables, x, 4)

    # The KL is exact with N(0, I) and sampled with a flow, so the importance weights are compared.
    expected, found = map(log_px_z_and_weights, (normal, flow), starts)
    np.testing.assert_allclose(found[1], expected[1], atol=2e-3)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)


CHANNELS = np.array([[0.1, 0, 0], [0.06, 0.05, 0], [0.03, 0.04, 0.04]])  # a root of the covariance of the noise


def with_coloured_noise(count, seed=0):
    generator = np.random.default_rng(seed)
    plane = np.random.default_rng(9).normal(size=(LATENTS, 48)) * 0.15
    noise = generator.normal(size=(count, 16, 3)) @ CHANNELS.T
    return (0.5 + generator.normal(size=(count, LATENTS)) @ plane + noise.reshape(count, 48)).reshape(-1, *SHAPE)


@pytest.mark.parametrize(
    "vae",
    [
        vj.resnet_vae(SHAPE, LATENTS, 4, vj.ColourMixtureOfLogistics(1), blocks=(1, 1), linear=True),
        vj.conv_vae(SHAPE, LATENTS, (4, 4), vj.ColourMixtureOfLogistics(4), linear=True),
    ],
    ids=["residual", "convolutional"],
)
@pytest.mark.parametrize("count", [20_000, 40])
def test_a_mixture_of_logistics_starts_at_pca_with_noise_between_channels(vae, count):
    """The posterior is that of the linear Gaussian model whose mean and noise are those of the decoder."""
    train = with_coloured_noise(count).astype(np.float32)
    variables = vj.start_at_pca(vae, initial(vae), train)
    z = np.concatenate([np.zeros((1, LATENTS)), np.eye(LATENTS)]).astype(np.float32)

    @jax.jit
    def networks(z, x):
        px_z, q = vae.decode(variables, z), vae.encode(variables, x)
        return px_z.mean, px_z.outputs[0, 0, 0], q.mean, q.variance

    x = with_coloured_noise(10, seed=1).astype(np.float32)
    means, outputs, *q = networks(z, x)
    means = np.asarray(means, np.float64).reshape(len(z), 48)
    weights = (means[1:] - means[0]).T
    components = vae.likelihood.components
    numbers = np.asarray(outputs, np.float64)
    logits, scales, coefficients = (
        numbers[:components],
        numbers[4 * components : 7 * components],
        numbers[7 * components :],
    )
    assert (logits == 0).all()
    unconditional = np.eye(3)
    green, blue_on_red, blue_on_green = np.tanh(coefficients.reshape(3, components)[:, 0])
    unconditional[1, 0], unconditional[2, :2] = -green, (-blue_on_red, -blue_on_green)
    mean_log_scale = scales.reshape(3, components).mean(axis=1) + (0 if components == 1 else 0.375)
    deviations = np.exp(mean_log_scale) / 2 * np.pi / np.sqrt(3)
    root = np.linalg.inv(unconditional) * deviations
    noise = root @ root.T
    if count > 48:
        np.testing.assert_allclose(noise, CHANNELS @ CHANNELS.T, rtol=0.05, atol=1e-4)
        np.testing.assert_allclose(means[0], train.reshape(count, -1).mean(axis=0), atol=2e-3)
    precision = np.kron(np.eye(16), np.linalg.inv(noise))
    covariance = np.linalg.inv(np.eye(LATENTS) + weights.T @ precision @ weights)
    expected = (x.reshape(10, 48) - means[0]) @ precision @ weights @ covariance
    np.testing.assert_allclose(q[0], expected, atol=0.02)
    np.testing.assert_allclose(q[1], np.tile(np.diag(covariance), (10, 1)), rtol=0.03)


def test_training_goes_on_from_there():
    vae = MODELS["residual"]
    train, optimizer = correlated(64), optax.adam(1e-3)
    start = vj.start_at_pca(vae, initial(vae), train)
    state = vj.init(jax.random.key(0), vae, optimizer, variables=start)
    step = jax.jit(vj.make_train_step(vae, vj.ELBO(), optimizer))
    losses = []
    for _ in range(30):
        state, metrics = step(state, vj.Batch(jnp.asarray(train)))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize(
    ("vae", "data", "message"),
    [
        (
            vj.resnet_vae(SHAPE, 2, 4, blocks=(1, 1)),
            correlated(9),
            "the model has no linear paths; make it by",
        ),
        (vj.mlp_vae(SHAPE, 2, (4,), vj.LearnedGaussian()), correlated(9), "the model has no linear paths"),
        (
            vj.resnet_vae(SHAPE, 2, 4, blocks=(1, 1), linear=True, prior=vj.GaussianMixture(3)),
            correlated(9),
            r"the prior GaussianMixture\(.*\) is not N\(0, I\) at these variables.*take StandardNormal\(\), or",
        ),
        (
            vj.conv_vae(SHAPE, 2, (4,), vj.LearnedGaussian(), vj.FullGaussian, linear=True),
            correlated(9),
            "the model has the posterior .*FullGaussian.*; that of probabilistic PCA is DiagonalGaussian",
        ),
        (
            vj.conv_vae(SHAPE, 2, (4,), vj.LearnedGaussian(), vj.Delta, linear=True),
            correlated(9),
            r"the likelihood is LearnedGaussian\(.*\) with the posterior Delta; expected Gaussian\(\)",
        ),
        (
            vj.conv_vae(SHAPE, 4, (4,), vj.Gaussian(), vj.Delta, linear=True),
            np.tile(correlated(3), (3, 1, 1, 1)),
            "the data have fewer than 4 principal components; take fewer latent dimensions",
        ),
        (
            vj.conv_vae(SHAPE, 2, (4,), vj.ColourMixtureOfLogistics(2), linear=True),
            np.repeat(correlated(99)[..., :1], 3, axis=-1),
            "the residual channels after 2 principal components are linearly dependent; expected images in colour",
        ),
        (
            vj.conv_vae(SHAPE, 2, (4,), vj.Laplace(), linear=True),
            correlated(9),
            r"likelihood is Laplace\(.*\); expected Gaussian\(\), LearnedGaussian\(\), OptimalGaussian",
        ),
        (
            vj.conv_vae(SHAPE, 2, (4,), vj.Gaussian(np.ones(3)), linear=True),
            correlated(9),
            r"the variance has shape \(3,\); expected one number",
        ),
        (
            MODELS["residual"],
            correlated(5),
            r"data have shape \(5, 4, 4, 3\) for 5 latents; expected \[n, 4",
        ),
        (MODELS["residual"], np.full((9, *SHAPE), np.nan, np.float32), "the data hold NaN or infinite values"),
        (MODELS["residual"], correlated(0), r"data have shape \(0, 4, 4, 3\) for 5 latents"),
        (MODELS["residual"], np.zeros((9, *SHAPE), np.uint8), "data are uint8; expected examples after the transform"),
        (
            MODELS["residual"],
            np.tile(correlated(3), (30, 1, 1, 1)),
            "the variance outside of the first 5 principal components is .*take fewer latent dimensions",
        ),
        (
            MODELS["residual"],
            np.tile(correlated(3), (3, 1, 1, 1)),
            "the variance outside of the first 5 principal components is .*take fewer latent dimensions",
        ),
        (MODELS["residual"], correlated(9)[:, :2], r"data have shape \(9, 2, 4, 3\) for 5 latents"),
    ],
)
def test_bad_input_is_answered_by_a_sentence(vae, data, message):
    with pytest.raises(InputError, match=message):
        vj.start_at_pca(vae, initial(vae), data)


OF_ANOTHER = initial(MODELS["convolutional"])


@pytest.mark.parametrize(
    ("vae", "variables", "message"),
    [
        (MODELS["residual"], None, "variables is None; expected a dict of collections"),
        (MODELS["residual"], OF_ANOTHER, "is missing, but the model has one of shape"),
        ("resnet", OF_ANOTHER, r"vae is 'resnet'; expected a model: vj.start_at_pca\(vae, variables, data\)"),
    ],
)
def test_other_models_and_variables_are_refused(vae, variables, message):
    with pytest.raises(InputError, match=message):
        vj.start_at_pca(vae, variables, correlated(9))


def test_a_run_starts_from_given_variables():
    vae, optimizer = MODELS["residual"], optax.adam(1e-3)
    start = initial(vae)
    state = vj.init(jax.random.key(0), vae, optimizer, variables=start)
    jax.tree.map(np.testing.assert_array_equal, state.variables, start)
    assert (state.key == vj.init(jax.random.key(0), vj.mlp_vae((2,), 1, (2,)), optimizer).key).all()
    with pytest.raises(InputError, match="is missing, but the model has one of shape"):
        vj.init(jax.random.key(0), vae, optimizer, variables=OF_ANOTHER)
    with pytest.raises(InputError, match="data and variables are given; give one"):
        vj.init(jax.random.key(0), vae, optimizer, variables=start, data=correlated(9))


def test_equal_eigenvalues_give_numbers():
    rows = np.concatenate([np.eye(48), -np.eye(48)]).reshape(-1, *SHAPE).astype(np.float32)
    vae = vj.resnet_vae(SHAPE, 2, 4, blocks=(1, 1), linear=True)
    variables = vj.start_at_pca(vae, initial(vae), rows)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
