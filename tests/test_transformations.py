"""Public functions under jit, vmap, grad, checkpoint and export, their arrays given as arguments or closed over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_split

import vae_jax as vj
from vae_jax.evaluation.distances import nearest_distance

VAE = vj.mlp_vae((6, 6, 1), latent_dim=2, hidden=(8,))
CONDITIONAL = vj.mlp_vae((6, 6, 1), latent_dim=2, hidden=(8,), classes=3)
VARIABLES, OF_CONDITIONAL = VAE.init(jax.random.key(0)), CONDITIONAL.init(jax.random.key(1))
DATA = small_split(12)
X = jnp.asarray(DATA.images) / jnp.float32(255)
LABEL = jnp.asarray(DATA.labels)
Z = jax.random.normal(jax.random.key(2), (12, 2))
KEY = jax.random.key(3)
BRIGHT, UNKNOWN, LABEL_ABOVE = X + 1, X * jnp.nan, LABEL + 1  # what no model here takes
DIVERGED = jax.tree.map(lambda leaf: leaf * jnp.nan, VARIABLES)

# Name -> a function of a key, variables, images and latents: every public function of arrays.
CALLS = {
    "elbo_terms": lambda key, v, x, z: vj.elbo_terms(key, VAE, v, x),
    "elbo_terms of labels": lambda key, v, x, z: vj.elbo_terms(key, CONDITIONAL, v, x, LABEL),
    "log_weights": lambda key, v, x, z: vj.log_weights(key, VAE, v, x, 3),
    "log_likelihood": lambda key, v, x, z: vj.log_likelihood(key, VAE, v, x, 8),
    "importance_estimate of labels": lambda key, v, x, z: vj.importance_estimate(key, CONDITIONAL, v, x, 8, LABEL),
    "evaluate": lambda key, v, x, z: vj.evaluate(key, VAE, v, DATA),
    "encode_all": lambda key, v, x, z: vj.encode_all(key, VAE, v, DATA),
    "decode_all": lambda key, v, x, z: vj.decode_all(VAE, v, z),
    "decode_all of labels": lambda key, v, x, z: vj.decode_all(CONDITIONAL, v, z, LABEL),
    "encode": lambda key, v, x, z: VAE.encode(v, x),
    "decode": lambda key, v, x, z: VAE.decode(v, z).log_prob(x),
    "decode of labels": lambda key, v, x, z: CONDITIONAL.decode(v, z, LABEL).mean,
    "terms": lambda key, v, x, z: VAE.terms(key, v, vj.Batch(x), jnp.arange(2), train=True).px_z.log_prob(x),
    "ELBO": lambda key, v, x, z: vj.ELBO(free_bits=0.1)(key, VAE, v, vj.Batch(x), jnp.int32(0)).per_example,
    "IWAE": lambda key, v, x, z: vj.IWAE(3, True)(key, VAE, v, vj.Batch(x), jnp.int32(0)).per_example,
    "Reconstruction": lambda key, v, x, z: vj.Reconstruction()(key, VAE, v, vj.Batch(x), jnp.int32(0)).per_example,
}


def given(name):
    variables = OF_CONDITIONAL if name.endswith("labels") else VARIABLES
    return CALLS[name], (KEY, variables, X, Z)


def assert_close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("closed", [(), (0, 2, 3), (0, 1, 2, 3)])
def test_under_jit_with_arguments_and_closures_alike(name, closed):
    call, values = given(name)
    open_ones = tuple(i for i in range(4) if i not in closed)

    def function(*arguments):
        of = dict(zip(open_ones, arguments, strict=True))
        return call(*(of.get(i, values[i]) for i in range(4)))

    assert_close(jax.jit(function)(*(values[i] for i in open_ones)), call(*values))


@pytest.mark.parametrize("name", CALLS)
def test_gradients_under_checkpoint_are_those_without(name):
    call, (key, variables, x, z) = given(name)

    def total(v):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(call(key, v, x, z)))

    # Traced once more within the checkpoint, the images closed over.
    assert_close(jax.jit(jax.grad(jax.checkpoint(total)))(variables), jax.jit(jax.grad(total))(variables))


@pytest.mark.parametrize("name", CALLS)
def test_under_vmap_over_the_variables(name):
    call, (key, variables, x, z) = given(name)
    halved = jax.tree.map(lambda leaf: np.asarray(leaf) / 2, variables)
    both = jax.tree.map(lambda *leaves: np.stack(leaves), variables, halved)
    found = jax.jit(jax.vmap(lambda v: call(key, v, x, z)))(both)
    expected = jax.jit(lambda v: call(key, v, x, z))(halved)
    assert_close(jax.tree.map(lambda leaf: np.asarray(leaf)[1], found), expected)


@pytest.mark.parametrize("name", ["elbo_terms", "log_likelihood", "decode", "ELBO", "decode of labels"])
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_export_with_closed_over_variables(name, platform):
    call, (key, variables, x, z) = given(name)
    exported = jax.export.export(jax.jit(lambda x, z: call(key, variables, x, z)), platforms=[platform])(x, z)
    if platform == "cpu":
        assert_close(exported.call(x, z), call(key, variables, x, z))


DETERMINISTIC = {"encode", "encode_all", "decode", "decode of labels", "decode_all", "decode_all of labels"}


@pytest.mark.parametrize("name", CALLS)
def test_results_are_float64_where_variables_are(name):
    call, (key, variables, x, z) = given(name)
    compiled = jax.jit(call)
    expected = compiled(key, variables, x, z)
    with jax.enable_x64(True):
        variables, z = jax.tree.map(np.float64, (variables, z))
        found = compiled(key, variables, x, z)  # images in float32, as transforms make them
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float64)}
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
        if name in DETERMINISTIC:  # others draw other noise in float64
            assert_close(found, expected)


def test_a_jitted_log_likelihood_takes_its_static_arguments():
    jitted = jax.jit(vj.log_likelihood, static_argnames=("model", "samples"))
    assert_close(jitted(KEY, VAE, VARIABLES, X, samples=8), vj.log_likelihood(KEY, VAE, VARIABLES, X, 8))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, z: vj.active_units(vj.Delta(z), threshold=1.0),
        lambda x, z: vj.bits_per_dim(z[:, 0], vj.mlp_vae((6, 6, 1), likelihood=vj.Gaussian()), vj.Dequantize()),
        lambda x, z: nearest_distance(x, 0.9 * x[:2]),
    ],
)
def test_numbers_about_images_and_latents_under_jit_and_vmap(function):
    expected = function(X, Z)
    assert_close(jax.jit(function)(X, Z), expected)
    assert_close(jax.jit(lambda: function(X, Z))(), expected)
    assert_close(jax.vmap(function)(jnp.stack([0 * X, X]), jnp.stack([0 * Z, Z]))[1], expected)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: vj.elbo_terms(KEY, VAE, VARIABLES, BRIGHT), "runs from"),
        (lambda: VAE.decode(VARIABLES, Z).log_prob(BRIGHT), "runs from"),
        (lambda: vj.elbo_terms(KEY, CONDITIONAL, OF_CONDITIONAL, X, LABEL_ABOVE), "labels run from 1 to 3"),
        (lambda: CONDITIONAL.decode(OF_CONDITIONAL, Z, LABEL_ABOVE).mean, "labels run from 1 to 3"),
        (lambda: vj.log_likelihood(KEY, VAE, VARIABLES, UNKNOWN, 8), "x holds NaN"),
        (lambda: vj.evaluate(KEY, VAE, DIVERGED, DATA), "NaN"),
    ],
)
def test_values_that_are_known_while_a_function_is_traced_are_checked(function, message):
    """Concrete arguments, and arrays that a traced function closes over, whatever is computed of them."""
    with pytest.raises(vj.InputError, match=message):
        function()
    with pytest.raises(vj.InputError, match=message):
        jax.jit(function)()


def test_no_nan_arises_on_the_way():
    with jax.debug_nans(True):
        for name in CALLS:
            call, values = given(name)
            jax.block_until_ready(call(*values))
