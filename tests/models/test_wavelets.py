"""Wavelet ladder VAEs: the transform, the model at its start in closed form, and bad input."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import drawn

import vae_jax as vj
from vae_jax.networks.wavelets import colour_basis, haar, inverse_haar

SHAPE = (4, 8, 3)
DEVIATION = 0.02
MODEL = vj.wavelet_ladder_vae(SHAPE, (4, 5), (1, 2), vj.MixtureOfLogistics(2), deviation=DEVIATION)
X = jnp.asarray(np.random.default_rng(0).integers(20, 230, (3, *SHAPE)) / 255, jnp.float32)


def key(seed=1):
    return jax.random.key(seed)


VARIABLES = jax.jit(MODEL.init)(key(0))


def coefficients(x):
    """By sums over blocks of pixels, in double precision: means of 4 x 4 pixels, and the differences of two scales."""
    x = np.asarray(x, np.float64) - 0.5
    s, t = 1 / math.sqrt(2), 1 / math.sqrt(6)
    means = np.stack([x.sum(-1) / math.sqrt(3), s * (x[..., 0] - x[..., 2]), t * (x @ [1, -2, 1])], axis=-1)
    differences = []
    for _ in range(2):
        a, b, c, d = means[:, ::2, ::2], means[:, ::2, 1::2], means[:, 1::2, ::2], means[:, 1::2, 1::2]
        differences.append(np.stack([a - b + c - d, a + b - c - d, a - b - c + d], axis=3) / 4)
        means = (a + b + c + d) / 4
    return means, differences[::-1]


def test_the_transform_has_the_sums_and_the_inverse_that_it_should():
    x = np.float32(np.random.default_rng(1).normal(size=(2, 6, 4, 3)))
    bands, back = map(np.asarray, jax.jit(lambda x: (bands := haar(x), inverse_haar(bands)))(x))
    np.testing.assert_allclose(bands[:, :, :, 0], x.reshape(2, 3, 2, 2, 2, 3).mean(axis=(2, 4)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(bands[0, 1, 0, 1], ((x[0, 2:4, 0] - x[0, 2:4, 1]) / 4).sum(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(4 * (bands**2).sum(), (x**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-6)


def test_products_of_the_transform_have_full_precision():
    """The default precision of accelerators does not resolve the levels of bytes."""
    jaxpr = jax.make_jaxpr(lambda x: MODEL.terms(key(), VARIABLES, vj.Batch(x)).log_px_z)(X)
    precise = str(jaxpr).count("precision=(Precision.HIGHEST, Precision.HIGHEST)")
    assert precise == 6, "one of colours and two of scales, in the encoder and in the decoder"


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_colour_basis_is_orthonormal_and_starts_with_grey(channels):
    basis = colour_basis(channels)
    np.testing.assert_allclose(basis.T @ basis, np.eye(channels), atol=1e-6)
    np.testing.assert_allclose(basis[:, 0], channels**-0.5, rtol=1e-6)


def test_at_first_the_posterior_is_the_coefficients_with_noise_and_the_prior_is_standard_normal():
    """The KL of each layer in closed form: the noise of a mean over n pixels is that of a pixel over sqrt(n)."""
    found = jax.jit(lambda x: MODEL.terms(key(), VARIABLES, vj.Batch(x)).kl)(X)
    means, (coarse, fine) = coefficients(X)
    layers = [(means, 4), (coarse[..., :1], 4), (coarse[..., 1:], 4), (fine[..., :1], 2), (fine[..., 1:], 2)]
    assert len(found) == len(layers)
    for kl, (coefficient, side) in zip(found.values(), layers, strict=True):
        gain = 64 / side
        mean, deviation = gain * coefficient.reshape(len(X), -1), gain * DEVIATION / side
        expected = 0.5 * (mean**2 + deviation**2 - 1) - math.log(deviation)
        np.testing.assert_allclose(kl[0], expected, rtol=1e-4, atol=1e-4)


def test_bytes_without_structure_have_at_least_eight_bits():
    x = np.random.default_rng(1).integers(0, 256, (200, *SHAPE), dtype=np.uint8)
    terms = vj.evaluate(key(), MODEL, VARIABLES, x, transform=vj.Scale())
    bits = vj.bits_per_dim(terms.log_px_z - terms.kl, MODEL, vj.Scale())
    assert bits.min() > 8


def test_at_first_the_pixels_of_samples_of_the_posterior_are_those_of_the_image_with_independent_noise():
    @jax.jit
    def mean_and_outputs(x):
        px_z = MODEL.terms(key(), VARIABLES, vj.Batch(x), jnp.arange(2000)).px_z
        return px_z.mean, px_z.outputs

    x = np.asarray(X)[:1]
    mean, outputs = map(np.asarray, mean_and_outputs(x))
    noise = (mean[:, 0] - x).reshape(2000, -1)
    covariance = noise.T @ noise / 2000
    np.testing.assert_allclose(np.diag(covariance), DEVIATION**2, rtol=0.15)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.1 * DEVIATION**2
    logits, locations, log_scales = np.split(outputs, 3, axis=-1)
    assert (logits == 0).all()
    np.testing.assert_allclose(log_scales, math.log(DEVIATION), rtol=1e-5)
    np.testing.assert_allclose(locations[..., 0], locations[..., 1])


SAMPLE = jax.jit(lambda key, given: MODEL.sample(key, VARIABLES, 4, given=given))


def test_layers_that_are_given_fix_the_coarse_scales_of_samples():
    z = SAMPLE(key(2), {}).z
    given = {name: np.asarray(z[name])[:1].repeat(4, axis=0) for name in ("z1", "z2", "z3")}
    location = np.split(np.asarray(SAMPLE(key(3), given).px_z.outputs), 3, axis=-1)[1].mean(axis=-1)
    coarse = location.reshape(4, 2, 2, 4, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(coarse, coarse[:1].repeat(4, axis=0), atol=1e-4)
    assert np.std(location, axis=0).min() > 0


@pytest.mark.parametrize(
    "likelihood", [vj.DiscretisedLogistic(0.005), vj.LearnedGaussian(), vj.ColourMixtureOfLogistics(2)]
)
def test_other_likelihoods_start_at_the_image(likelihood):
    model = vj.wavelet_ladder_vae(SHAPE, (4,), (1,), likelihood, deviation=1e-4)
    px_z = jax.jit(lambda x: model.terms(key(), model.init(key(0)), vj.Batch(x)).px_z)(X)
    if isinstance(likelihood, vj.ColourMixtureOfLogistics):  # locations are conditional on other channels of 1/2
        outputs = np.asarray(px_z.outputs)[0]
        np.testing.assert_allclose((outputs[..., 2:8:2] + 1) / 2, X, atol=1e-3)
    else:
        np.testing.assert_allclose(np.asarray(px_z.mean)[0], X, atol=1e-3)


def test_the_condition_reaches_the_priors():
    model = vj.wavelet_ladder_vae((4, 4, 1), (3,), (1,), classes=2)
    variables = drawn(model.init, key(0))  # at first, priors are standard normal
    sample = jax.jit(lambda label: model.sample(key(), variables, 1, label, temperature=0.0).z["z2"])
    z = [sample(np.array([label])) for label in (0, 1)]
    assert not np.allclose(*z)


def test_a_saved_model_is_loaded(tmp_path):
    vj.save(tmp_path / "model", MODEL, VARIABLES)
    saved = vj.load_model(tmp_path / "model")
    assert saved.model == MODEL
    for one, other in zip(jax.tree.leaves(saved.variables), jax.tree.leaves(VARIABLES), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"channels": (), "blocks": ()}, "there are no convolutions"),
        ({"channels": (4, 0), "blocks": (1, 1)}, r"channels\[1\] is 0"),
        ({"channels": (4,), "blocks": (1, 1)}, "expected two sequences of one length"),
        ({"event_shape": (20, 32, 3)}, "cannot be halved 3 times"),
        ({"event_shape": (32, 32)}, r"event_shape is \(32, 32\)"),
        ({"deviation": 0.0}, "deviation is 0"),
        ({"likelihood": vj.HeteroscedasticGaussian()}, "linear paths go to locations of pixels"),
        ({"likelihood": vj.Bernoulli()}, r"the outputs of Bernoulli\(\) are no locations"),
        ({"likelihood": vj.NegativeBinomial()}, "the outputs of NegativeBinomial.* are no locations"),
        ({"prior": "normal"}, "prior is 'normal'"),
    ],
)
def test_bad_models_are_refused(settings, sentence):
    with pytest.raises(vj.InputError, match=sentence):
        vj.wavelet_ladder_vae(**settings)
