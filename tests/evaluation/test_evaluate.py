"""Bounds and likelihoods of any number of examples."""

import warnings
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from conftest import drawn, small_split

import vae_jax as vj
from vae_jax.distributions import DiagonalGaussian, example_keys
from vae_jax.evaluation.blocks import BLOCK, block_of, in_blocks
from vae_jax.evaluation.units import warn_if_collapsed

VAE = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,))
VARIABLES = drawn(VAE.init, jax.random.key(0))
DATA = small_split(50)


@pytest.mark.parametrize("block", [1, 7, 25, 50, 1000])
def test_blocks_are_joined_to_what_one_pass_gives(block):
    shapes = set()

    def function(first, x):
        shapes.add(x.shape)
        return {"double": 2 * x, "position": first + np.arange(len(x))}

    x = np.arange(50.0).reshape(25, 2)
    result = in_blocks(function, x, block=block)
    np.testing.assert_array_equal(result["double"], 2 * x)
    np.testing.assert_array_equal(result["position"], np.arange(25))
    assert len(shapes) == 1, "a compiled function would meet several shapes"


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 2), (5, 8), (64, 64), (65, 128)])
def test_few_examples_fill_a_block_that_is_a_power_of_two(count, size):
    sizes = []
    in_blocks(lambda first, x: sizes.append(len(x)) or x, np.zeros((count, 2)))
    assert sizes == [size]


def test_blocks_of_large_examples_hold_fewer():
    assert block_of((28, 28, 1)) == BLOCK
    assert block_of((64, 64, 3), (10,)) == 2**20 // (64 * 64 * 3)
    assert block_of((2048, 2048, 3)) == 1


def test_terms_do_not_depend_on_the_blocks():
    whole = vj.evaluate(jax.random.key(1), VAE, VARIABLES, DATA)
    cut = vj.evaluate(jax.random.key(1), VAE, VARIABLES, DATA, block=13)
    np.testing.assert_allclose(cut.log_px_z, whole.log_px_z, rtol=1e-5)
    np.testing.assert_allclose(cut.kl, whole.kl, rtol=1e-5)
    other = vj.evaluate(jax.random.key(2), VAE, VARIABLES, DATA)
    assert not np.allclose(other.log_px_z, whole.log_px_z), "the key has no influence"
    np.testing.assert_allclose(other.kl, whole.kl, rtol=1e-5)


def test_an_image_is_observed_and_encoded_by_two_streams_of_the_key():
    observation_keys, noise_keys = (example_keys(jax.random.fold_in(jax.random.key(1), i), 50) for i in range(2))
    x = jax.jit(vj.Binarize())(observation_keys, DATA.images).x
    expected = jax.jit(vj.elbo_terms, static_argnums=1)(noise_keys, VAE, VARIABLES, x)
    terms = vj.evaluate(jax.random.key(1), VAE, VARIABLES, DATA, transform=vj.Binarize())
    np.testing.assert_allclose(terms.log_px_z, expected.log_px_z, rtol=1e-5)
    np.testing.assert_allclose(terms.kl, expected.kl, rtol=1e-5)


def test_encodings_and_decoded_images_are_those_of_the_model():
    x = DATA.images / np.float32(255)
    posterior = vj.encode_all(jax.random.key(0), VAE, VARIABLES, DATA, block=13)
    expected = jax.jit(VAE.encode)(VARIABLES, x)
    np.testing.assert_allclose(posterior.mean, expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(posterior.variance, expected.variance, rtol=1e-5)
    decoded = vj.decode_all(VAE, VARIABLES, posterior.mean, block=13)
    np.testing.assert_allclose(decoded, jax.jit(VAE.decode)(VARIABLES, expected.mean).mean, rtol=1e-5)


@pytest.mark.parametrize("base", [vj.DiagonalGaussian, vj.FullGaussian])
def test_posteriors_of_a_flow_are_encoded_in_blocks(base):
    """The parameters of the flow are those of all examples."""
    vae = vj.mlp_vae((6, 6, 1), 2, (4,), posterior=vj.FlowPosterior(vj.Coupling(2, (3,)), base))
    variables = drawn(vae.init, jax.random.key(0))
    expected = jax.jit(lambda x: vae.encode(variables, x))(DATA.images / np.float32(255))
    found = vj.encode_all(jax.random.key(0), vae, variables, DATA, block=13)
    assert [np.shape(leaf) for leaf in jax.tree.leaves(found)] == [np.shape(leaf) for leaf in jax.tree.leaves(expected)]
    for name in ("mean", "variance", "covariance_root"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
    assert vj.active_units(found).shape == (2,)


def test_no_examples_are_refused():
    with pytest.raises(vj.InputError, match="no examples"):
        vj.decode_all(VAE, VARIABLES, np.zeros((0, 3), np.float32))


def test_a_conditional_model_is_evaluated_with_its_labels():
    vae = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), classes=3)
    variables = drawn(vae.init, jax.random.key(0))
    terms = vj.evaluate(jax.random.key(1), vae, variables, DATA, block=13)
    assert terms.kl.shape == (50,)
    posterior = vj.encode_all(jax.random.key(0), vae, variables, DATA)
    np.testing.assert_allclose(terms.kl, np.asarray(posterior.kl()).sum(-1), rtol=1e-4)
    with pytest.raises(vj.InputError, match="need"):
        vj.evaluate(jax.random.key(1), vae, variables, vj.Split(DATA.images))
    few = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), classes=2)
    with pytest.raises(vj.InputError, match="labels run from 0 to 2; expected 0 to 1"):
        vj.encode_all(jax.random.key(1), few, drawn(few.init, jax.random.key(0)), DATA)


def test_estimate_is_the_mean_and_its_standard_error():
    values = np.random.default_rng(0).normal(3, 2, 400)
    mean, error = vj.mean_and_stderr(values)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(scipy.stats.sem(values))
    mean, error = vj.mean_and_stderr(np.array([5.0]))
    assert mean == 5.0
    assert np.isnan(error), "one value tells nothing of the spread"


def test_the_ratio_of_paired_numbers_and_its_standard_error_over_samples():
    generator = np.random.default_rng(0)
    reference = generator.gamma(4, size=(2_000, 200))
    values = 0.5 * reference + generator.gamma(4, size=reference.shape)
    found = [vj.paired_ratio(one, other) for one, other in zip(values, reference, strict=True)]
    ratios, errors = np.transpose(found)
    assert ratios.mean() == pytest.approx(1.5, abs=0.01)
    assert errors.mean() == pytest.approx(ratios.std(), rel=0.06)
    assert found[0].mean == pytest.approx(values[0].mean() / reference[0].mean())
    negative = vj.paired_ratio(values[0], -reference[0])
    assert negative == pytest.approx((-found[0].mean, found[0].standard_error))


@pytest.mark.parametrize(
    ("values", "reference", "message"),
    [
        ([1.0, 2.0], [1.0], r"shape \(2,\) and reference \(1,\)"),
        ([1.0, 2.0], [-1.0, 1.0], "mean of reference is 0"),
        ([], [], "values is empty"),
        ([[1.0]], [[1.0]], r"expected \[n\]"),
    ],
)
def test_bad_input_of_paired_ratio(values, reference, message):
    with pytest.raises(vj.InputError, match=message):
        vj.paired_ratio(values, reference)


X = np.float32(255 * np.random.default_rng(3).random(DATA.images.shape) < DATA.images)


def test_a_transform_gets_the_labels():
    @vj.value
    class Labelled(vj.Scale):
        def __call__(self, keys, images, labels=None):
            return vj.Batch(labels[:, None] + jnp.zeros((1, 3)))

    split = vj.Split(DATA.images, np.arange(len(DATA), dtype=np.int32))
    np.testing.assert_array_equal(
        vj.transform_all(jax.random.key(0), split, transform=Labelled())[:, 0], np.arange(len(DATA))
    )


def test_what_is_observed_does_not_depend_on_the_blocks():
    whole, cut = (vj.transform_all(jax.random.key(3), DATA, transform=vj.Binarize(), block=block) for block in (50, 13))
    np.testing.assert_array_equal(whole, cut)
    whole, cut = (
        vj.encode_all(jax.random.key(3), VAE, VARIABLES, DATA, transform=vj.Binarize(), block=block)
        for block in (50, 13)
    )
    np.testing.assert_allclose(whole.mean, cut.mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("samples", "block", "rows"), [(1, 50, 4000), (37, 13, 60), (37, 50, 1), (37, 7, 4000)])
def test_log_likelihood_is_the_log_of_the_mean_weight_however_it_is_cut(samples, block, rows):
    found = vj.importance_estimate(jax.random.key(4), VAE, VARIABLES, X, samples, block=block, rows=rows)
    log_w = np.asarray(vj.log_weights(jax.random.key(4), VAE, VARIABLES, jnp.asarray(X), samples), np.float64)
    np.testing.assert_allclose(found.log_px, scipy.special.logsumexp(log_w, axis=0) - np.log(samples), rtol=1e-5)
    share = scipy.special.softmax(log_w, axis=0)
    np.testing.assert_allclose(found.effective_samples, 1 / (share**2).sum(axis=0), rtol=1e-3)


def test_log_likelihood_of_a_conditional_model():
    vae = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), classes=3)
    variables = drawn(vae.init, jax.random.key(0))
    found = vj.log_likelihood(jax.random.key(4), vae, variables, X, 20, DATA.labels)
    log_w = vj.log_weights(jax.random.key(4), vae, variables, jnp.asarray(X), 20, jnp.asarray(DATA.labels))
    np.testing.assert_allclose(found, scipy.special.logsumexp(log_w, axis=0) - np.log(20), rtol=1e-5)


def test_entries_that_a_compiled_function_closes_over_are_checked():
    known = jnp.asarray(np.random.default_rng(1).random(X[:4].shape) < 0.5)
    x = jnp.where(known, X[:4], jnp.nan)

    def terms(observed):
        return jax.jit(lambda key: vj.elbo_terms(key, VAE, VARIABLES, vj.Batch(x, observed=observed)))

    assert np.isfinite(terms(known)(jax.random.key(5)).log_px_z).all()
    with pytest.raises(vj.InputError, match="x holds NaN or infinite values"):
        terms(jnp.ones_like(known))(jax.random.key(5))


@pytest.mark.parametrize("traced", ["nothing", "examples", "all"])
def test_the_estimate_of_a_batch_with_missing_entries_under_jit(traced):
    """Values of missing entries have no influence, also if they are NaN, or the likelihood does not take them."""
    observed = np.random.default_rng(1).random(X[:4].shape) < 0.5
    x = np.where(observed, X[:4], 7).astype(np.float32)
    x[0] = np.where(observed[0], x[0], np.nan)

    def estimate(x, observed):
        batch = vj.Batch(x, observed=observed)
        return vj.importance_estimate(jax.random.key(4), VAE, VARIABLES, batch, samples=3).log_px

    compiled = {
        "nothing": estimate,
        "examples": jax.jit(lambda x, _: estimate(x, observed)),
        "all": jax.jit(estimate),
    }
    found = compiled[traced](x, observed)
    np.testing.assert_allclose(found, estimate(np.where(observed, x, 0), observed), rtol=1e-5)
    with pytest.raises(vj.InputError, match="x runs from 0 to 7"):
        estimate(x[1:], np.ones_like(observed[1:]))
    with pytest.raises(vj.InputError, match="x holds NaN"):
        estimate(x, np.ones_like(observed))


def test_all_parts_of_the_transformed_batch_are_returned():
    rows = np.random.default_rng(0).random((40, 6), np.float32)
    observed = np.random.default_rng(1).random((40, 6)) < 0.5
    table = vj.Dataset.from_arrays("table", rows, test_images=rows, train_observed=observed).train
    batch = vj.transform_to_batch(jax.random.key(0), table, block=13)
    np.testing.assert_array_equal(batch.observed, observed)
    np.testing.assert_array_equal(batch.x, np.where(observed, rows, 0))
    with pytest.warns(UserWarning, match="missing entries, which are 0 in the result; vj.transform_to_batch"):
        found = vj.transform_all(jax.random.key(0), table)
    np.testing.assert_array_equal(found, batch.x)
    split = DATA[:9]
    batch = vj.transform_to_batch(jax.random.key(0), split, transform=Corrupted())
    np.testing.assert_array_equal(batch.label, split.labels)
    np.testing.assert_allclose(batch.target, split.images / np.float32(255), rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_a_model_does_not_take_are_refused_before_anything_is_computed(label):
    vae = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), classes=3)
    variables = drawn(vae.init, jax.random.key(0))
    labels = np.where(np.arange(50) == 7, label, DATA.labels)
    with pytest.raises(vj.InputError, match="labels run from"):
        vj.log_likelihood(jax.random.key(4), vae, variables, X, 20, labels)
    with pytest.raises(vj.InputError, match="labels run from"):
        vj.decode_all(vae, variables, np.zeros((50, 3), np.float32), labels)


def test_latents_are_decoded_with_a_condition_of_several_arrays():
    vae = vj.mlp_vae((4,), 2, (8,), vj.Gaussian(), condition_shape=(("a", (3,)), ("b", (2,))))
    variables = drawn(vae.init, jax.random.key(0))
    z, a, b = (np.float32(np.random.default_rng(0).normal(size=(5, size))) for size in (2, 3, 2))
    found = vj.decode_all(vae, variables, z, {"a": a, "b": b}, block=2)
    np.testing.assert_allclose(found, vae.decode(variables, z, {"a": a, "b": b}).mean, rtol=1e-5, atol=1e-6)


def test_what_has_no_likelihood_is_refused_at_once():
    key = jax.random.key(0)
    with pytest.raises(vj.InputError, match="samples is 0"):
        vj.log_likelihood(key, VAE, VARIABLES, X, 0)
    with pytest.raises(vj.InputError, match=r"x runs from 0 to 2; this .* takes values from 0 to 1"):
        vj.log_likelihood(key, VAE, VARIABLES, 2 * X, 5)
    with pytest.raises(vj.InputError, match=r"x has shape \(50, 6, 5, 1\); expected \[batch, 6, 6, 1\]"):
        vj.log_likelihood(key, VAE, VARIABLES, X[:, :, :5], 5)
    with pytest.raises(vj.InputError, match="x is a Batch and a condition is given beside it"):
        vj.log_likelihood(key, VAE, VARIABLES, vj.Batch(X), 5, np.zeros(50, np.int32))
    broken = jax.tree.map(lambda leaf: leaf, VARIABLES)
    broken["params"]["decoder"]["Dense_0"]["bias"] = jnp.full(8, jnp.nan)
    for refuses in (
        lambda: vj.log_likelihood(key, VAE, broken, X, 5),
        lambda: vj.log_weights(key, VAE, broken, jnp.asarray(X), 5),
        lambda: vj.elbo_terms(key, VAE, broken, jnp.asarray(X)),
        lambda: vj.evaluate(key, VAE, broken, DATA),
        lambda: vj.kl_by_unit(key, VAE, broken, DATA),
        lambda: vj.encode_all(key, VAE, broken, DATA),
        lambda: vj.decode_all(VAE, broken, np.zeros((2, 3))),
    ):
        with pytest.raises(vj.InputError, match="params/decoder/Dense_0/bias holds NaN"):
            refuses()
    plain = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), posterior=vj.Delta)
    with pytest.raises(vj.InputError, match="plain autoencoder"):
        vj.log_likelihood(key, plain, drawn(plain.init, key), X, 5)


def test_active_units_are_those_that_change_with_the_image():
    mean = np.zeros((400, 3))
    mean[:, 0] = np.random.default_rng(0).normal(0, 0.2, 400)
    mean[:, 1] = np.random.default_rng(1).normal(5, 0.05, 400)
    posterior = DiagonalGaussian(mean, np.zeros_like(mean))
    assert vj.active_units(posterior).tolist() == [True, False, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_collapsed(posterior)
    with pytest.warns(vj.PosteriorCollapseWarning, match="collapsed.*free_bits"):
        warn_if_collapsed(DiagonalGaussian(0 * mean, np.zeros_like(mean)))


class Wide(vj.Dequantize):
    """Bytes spread over a range of width 2, on which the uniform density is 1/2."""

    support = vj.Support(-1.0, 1.0)


def test_bits_per_dimension_of_noise_are_eight_and_one():
    """Uniform bytes have eight bits each, whether as levels or as a density on [0, 1); fair binary pixels have one."""
    density = vj.mlp_vae((6, 6, 1), likelihood=vj.ContinuousBernoulli())
    uniform = density.likelihood(jnp.zeros((1, 6, 6, 1))).log_prob(jnp.full((1, 6, 6, 1), 0.3))
    np.testing.assert_allclose(vj.bits_per_dim(uniform, density, vj.Dequantize()), 8, atol=1e-6)
    wide = vj.mlp_vae((6, 6, 1), likelihood=vj.Gaussian())
    np.testing.assert_allclose(vj.bits_per_dim(np.full(1, -36 * np.log(2)), wide, Wide()), 8, atol=1e-6)
    levels = vj.mlp_vae((6, 6, 1), likelihood=vj.DiscretisedLogistic())
    np.testing.assert_allclose(vj.bits_per_dim(np.full(1, -36 * np.log(256)), levels, vj.Scale()), 8)
    np.testing.assert_allclose(vj.bits_per_dim(np.full(1, -36 * np.log(2)), VAE, vj.Binarize()), 1)
    for vae, transform in ((VAE, vj.Scale()), (density, vj.Scale()), (levels, vj.Dequantize())):
        with pytest.raises(vj.InputError, match="no likelihood"):
            vj.bits_per_dim(uniform, vae, transform)
    for raw in (vj.Raw(0.0, 1.0), vj.Mirrored(vj.Raw(0.0, 1.0)), vj.Raw(0.0, 255.0, whole=True, missing=True)):
        with pytest.raises(vj.InputError, match="raw real numbers and missing entries have no bits per dimension"):
            vj.bits_per_dim(uniform, density, raw)
    with pytest.raises(vj.InputError, match="raw real numbers and missing entries have no bits per dimension"):
        vj.bits_per_dim(uniform, density, vj.Mirrored(vj.Mirrored(vj.Raw(0.0, 1.0))))
    with pytest.raises(vj.InputError, match="a plain autoencoder has no bound"):
        vj.bits_per_dim(uniform, vj.mlp_vae((6, 6, 1), posterior=vj.Delta), vj.Binarize())


class Corrupted(vj.Scale):
    """A denoiser's transform: noisy images in, clean images to be explained."""

    def __call__(self, keys, images, labels=None):
        clean = super().__call__(keys, images, labels)
        noise = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, clean.x.shape[1:]))(keys)
        return vj.Batch(clean.x * noise, target=clean.x, label=labels)


def test_a_denoiser_is_scored_by_its_targets():
    vae = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), posterior=vj.Delta)
    variables = drawn(vae.init, jax.random.key(0))
    terms = vj.evaluate(jax.random.key(1), vae, variables, DATA, transform=Corrupted())

    @jax.jit
    def log_px_z():
        """Of the targets, and of the inputs."""
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(jax.random.key(1), 0), i))(jnp.arange(50))
        batch = Corrupted()(keys, jnp.asarray(DATA.images))
        decoded = vae.decode(variables, vae.encode(variables, batch.x).mean)
        return decoded.log_prob(batch.target), decoded.log_prob(batch.x)

    of_targets, of_inputs = log_px_z()
    np.testing.assert_allclose(terms.log_px_z, of_targets, rtol=1e-5)
    assert not np.allclose(terms.log_px_z, of_inputs, rtol=1e-2)


def test_values_that_the_likelihood_does_not_take_are_refused_before_anything_is_computed():
    with pytest.raises(vj.InputError, match="likelihood takes values from 0 to 1, but what is observed are 256 levels"):
        vj.evaluate(jax.random.key(1), VAE, VARIABLES, DATA, transform=vj.Scale(-1.0, 1.0))
    with pytest.raises(vj.InputError, match=r"examples have shape \(5, 5, 1\), but the model takes \(6, 6, 1\)"):
        vj.evaluate(jax.random.key(1), VAE, VARIABLES, small_split(10, size=5))


@dataclass(frozen=True)
class Impossible(vj.Bernoulli):
    """Probability 0 for what is bright, 1 for all else: a likelihood with -inf in it."""

    def __call__(self, outputs, variables=None, event_ndim=3):
        return Excluding(outputs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Excluding:
    mean: jax.Array

    def sample(self, key):
        return self.mean

    def log_prob(self, x, observed=None):
        dark = jnp.where(x.sum((-3, -2, -1)) > 0, -jnp.inf, 0.0)
        return jnp.broadcast_to(dark, self.mean.shape[:-3])


@pytest.mark.parametrize("rows", [1, 4000])
def test_images_without_any_weight_have_minus_infinity_and_not_nan(rows):
    vae = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), likelihood=Impossible())
    x = np.zeros((2, 6, 6, 1), np.float32)
    x[1] = 1
    with jax.debug_nans(True):
        found = vj.importance_estimate(jax.random.key(4), vae, VARIABLES, x, samples=5, rows=rows)
    assert np.isfinite(found.log_px[0])
    assert found.log_px[1] == -np.inf
    assert found.effective_samples[1] == 0 < found.effective_samples[0]
