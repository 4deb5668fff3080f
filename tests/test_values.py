"""All public values: leaves and static parts, under transformations, comparison, hash, and JSON."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import drawn

import vae_jax as vj
from vae_jax.checkpoints.description import build, describe
from vae_jax.networks import MLP
from vae_jax.values import is_value

SHAPE = (2, 2, 1)
BYTES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, *SHAPE)), jnp.uint8)
X = jnp.asarray(np.asarray(BYTES) / np.float32(255))
Z = jnp.asarray(np.float32(np.random.default_rng(1).normal(size=(3, 2))))
FEATURES = vj.ConvFeatures((2,))
FLOW = vj.Coupling(layers=2, hidden=(3,), bound=1.5)


def vae(**settings):
    outputs = settings.get("posterior", vj.DiagonalGaussian).output_shape(2)
    return vj.VAE(MLP((), outputs), MLP((), SHAPE), SHAPE, 2, **settings)


VAE = vae()
VARIABLES = drawn(VAE.init, jax.random.key(2))
WITH_FEATURES = VARIABLES | {"frozen": {"features": drawn(FEATURES.init, jax.random.key(4), X)}}


def loss(objective):
    return objective(jax.random.key(0), VAE, WITH_FEATURES, vj.Batch(X), jnp.int32(3)).per_example


def loss_of_model(objective):
    discriminator = drawn(objective.init, jax.random.key(4), VAE)["params"]
    variables = {"params": VARIABLES["params"] | discriminator}
    return objective(jax.random.key(0), VAE, variables, vj.Batch(X), jnp.int32(3)).per_example["model"]


def kl(measure):
    return measure(VAE.terms(jax.random.key(0), VARIABLES, vj.Batch(X)))["z"]


def observed(transform):
    return transform(jax.random.split(jax.random.key(0), 3), BYTES).x


def likelihood_of(likelihood):
    shape = (2, 2, 3) if isinstance(likelihood, vj.ColourMixtureOfLogistics) else SHAPE
    output_shape = likelihood.output_shape(shape)
    outputs = jnp.broadcast_to(X.reshape(3, 2, 2, *[1] * len(output_shape[2:])), (3, *output_shape))
    x = jnp.broadcast_to(jnp.round(X), (3, *shape))
    return likelihood(outputs, likelihood.init(shape)).log_prob(x)


def prior_density(prior):
    variables = prior.init(jax.random.key(3), 2, SHAPE, X)
    encode = lambda x: VAE.encode(VARIABLES, x)  # noqa: E731
    return prior(variables, 2, encode).log_prob(Z)


def flow_density(posterior):
    return posterior.from_network(jnp.stack([Z, Z], axis=1), posterior.init(jax.random.key(3), 2)).log_prob(Z)


def forward(flow):
    params = jax.tree.map(lambda leaf: leaf + 0.3, flow.init(jax.random.key(3), 2))
    return flow.forward(params, Z)[0]


def weights(model):
    variables = model.init(jax.random.key(3))
    return model.terms(jax.random.key(0), variables, vj.Batch(jnp.round(X), label=jnp.arange(3))).log_px_z


# A value, and a use of it.
VALUES = [
    (vj.ELBO(), loss),
    (vj.ELBO(beta=0.5, kl=vj.SampledKL(), samples=2, free_bits=0.3), loss),
    (vj.ELBO(beta=jnp.float32(0.5)), loss),
    (vj.IWAE(3), loss),
    (vj.IWAE(3, doubly_reparameterised=True), loss),
    (vj.Reconstruction(), loss),
    (vj.Perceptual(FEATURES, ("conv1",), (2.0,), vj.ELBO(0.5)), loss),
    (vj.Adversarial(vj.Discriminator((2,)), weight=2.0, penalty=0.5), loss_of_model),
    (vj.AnalyticKL(), kl),
    (vj.SampledKL(), kl),
    (vj.Scale(-1.0, 2.0), observed),
    (vj.Binarize(), observed),
    (vj.StaticBinarize(seed=3), observed),
    (vj.Dequantize(), observed),
    (vj.Raw(low=-1.0, whole=True), observed),
    (vj.Mirrored(vj.Binarize()), observed),
    (vj.Bernoulli(), likelihood_of),
    (vj.ContinuousBernoulli(), likelihood_of),
    (vj.DiscretisedLogistic(), likelihood_of),
    (vj.Gaussian(0.3), likelihood_of),
    (vj.Gaussian(jnp.float32(0.1)), likelihood_of),
    (vj.Laplace(0.3), likelihood_of),
    (vj.LearnedGaussian(0.3, per_element=True), likelihood_of),
    (vj.OptimalGaussian(), likelihood_of),
    (vj.HeteroscedasticGaussian(), likelihood_of),
    (vj.StudentT(3.0, 0.5, per_element=True), likelihood_of),
    (vj.Categorical(2), likelihood_of),
    (vj.MixtureOfLogistics(3), likelihood_of),
    (vj.ColourMixtureOfLogistics(2), likelihood_of),
    (vj.Poisson(), likelihood_of),
    (vj.NegativeBinomial(0.5, per_element=True), likelihood_of),
    (vj.StandardNormal(), prior_density),
    (vj.GaussianMixture(3, spread=2.0), prior_density),
    (vj.FullGaussianMixture(2, spread=2.0), prior_density),
    (vj.VampPrior(2), prior_density),
    (vj.FlowPrior(FLOW), prior_density),
    (FLOW, forward),
    (vj.FlowPosterior(FLOW, base=vj.FullGaussian), None),
    (vj.FlowPosterior(FLOW), flow_density),
    (VAE, weights),
    (vae(likelihood=vj.Gaussian(0.3), prior=vj.FlowPrior(FLOW), classes=3), None),
    (vae(posterior=vj.FlowPosterior(FLOW), prior=vj.GaussianMixture(4)), weights),
    (vae(posterior=vj.Delta), weights),
    (vj.ladder_vae(SHAPE, (2, 1), (3,), prior=vj.GaussianMixture(4)), weights),
]
USED = [(of, use) for of, use in VALUES if use is not None]
NAMES = [f"{i}-{type(of).__name__}" for i, (of, _) in enumerate(VALUES)]
USED_NAMES = [name for name, (_, use) in zip(NAMES, VALUES, strict=True) if use is not None]
over_values = pytest.mark.parametrize("of", [of for of, _ in VALUES], ids=NAMES)
over_uses = pytest.mark.parametrize(("of", "use"), USED, ids=USED_NAMES)


def test_every_public_value_is_tested_here():
    public = {getattr(vj, name) for name in vj.__all__}
    classes = {found for found in public if isinstance(found, type) and is_value(found)}
    assert classes == {type(of) for of, _ in VALUES}


@over_values
def test_a_value_is_a_pytree_of_numbers(of):
    leaves, structure = jax.tree.flatten(of)
    assert all(isinstance(leaf, float | jax.Array) for leaf in leaves)
    same = jax.tree.unflatten(structure, leaves)
    assert type(same) is type(of)
    assert same == of
    assert hash(same) == hash(of)
    assert jax.tree.map(lambda leaf: leaf, of) == of
    assert [path for path, _ in jax.tree_util.tree_leaves_with_path(of)] == [
        path for path, _ in jax.tree_util.tree_leaves_with_path(same)
    ]


@over_values
def test_the_hash_covers_the_static_part_and_equality_both_parts(of):
    changed = jax.tree.map(lambda leaf: leaf + 1, of)
    assert hash(changed) == hash(of)
    assert (changed == of) == (not jax.tree.leaves(of))
    assert of != "another thing"
    copy = dataclasses.replace(of)
    assert copy is not of
    assert copy == of
    assert hash(copy) == hash(of)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (vj.ELBO(), vj.ELBO(samples=2)),
        (vj.ELBO(), vj.ELBO(kl=vj.SampledKL())),
        (vj.ELBO(beta=jnp.ones(2)), vj.ELBO(beta=jnp.ones(3))),
        (vj.ELBO(beta=optax.constant_schedule(1.0)), vj.ELBO()),
        (vj.Scale(), vj.Scale(-1.0, 1.0)),
        (vj.AnalyticKL(), vj.SampledKL()),
        (vj.FlowPrior(FLOW), vj.FlowPrior(vj.Coupling(layers=3, hidden=(3,), bound=1.5))),
        (vae(), vae(classes=2)),
        (vae(), vae(likelihood=vj.Gaussian())),
        (vae(), vae(posterior=vj.Delta)),
    ],
)
def test_values_with_different_parts_differ(one, other):
    assert one != other


@over_uses
def test_a_compiled_function_takes_a_value_as_argument_and_as_constant(of, use):
    np.testing.assert_allclose(jax.jit(use)(of), jax.jit(lambda: use(of))(), rtol=1e-4, atol=1e-5)


@over_values
def test_vmap_maps_over_each_single_leaf(of):
    leaves, structure = jax.tree.flatten(of)
    for i, leaf in enumerate(leaves):
        stacked = jnp.stack([jnp.asarray(leaf), 2 * jnp.asarray(leaf), 3 * jnp.asarray(leaf)])
        batched = jax.tree.unflatten(structure, [*leaves[:i], stacked, *leaves[i + 1 :]])
        in_axes = jax.tree.unflatten(structure, [0 if j == i else None for j in range(len(leaves))])
        found = jax.vmap(lambda one: tuple(map(jnp.asarray, jax.tree.leaves(one))), in_axes=(in_axes,))(batched)
        for j, other in enumerate(leaves):
            np.testing.assert_allclose(found[j], stacked if j == i else jnp.broadcast_to(other, 3))


@over_values
def test_a_value_goes_to_json_and_back(of):
    described = json.loads(json.dumps(describe(of)))
    built = build(described)
    assert built == of
    assert hash(built) == hash(of)
    assert describe(built) == described


def test_vmap_over_beta_returns_the_losses_of_each_beta():
    objective = vj.ELBO(beta=jnp.array([0.5, 1.0, 2.0]))
    found = np.asarray(jax.jit(jax.vmap(loss, in_axes=(vj.axes(objective, beta=0),)))(objective))
    of_beta = jax.jit(loss)
    expected = [of_beta(vj.ELBO(beta=beta)) for beta in (0.5, 1.0, 2.0)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.all(found[0] != found[2])


def test_axes_reach_a_parameter_of_a_part():
    model = vae(likelihood=vj.Gaussian(jnp.array([0.1, 0.4])))
    in_axes = vj.axes(model, likelihood=vj.axes(model.likelihood, variance=0))
    log_prob = lambda model: model.decode(VARIABLES, Z).log_prob(X)  # noqa: E731
    found = np.asarray(jax.jit(jax.vmap(log_prob, in_axes=(in_axes,)))(model))
    of_model = jax.jit(log_prob)
    for i, variance in enumerate((0.1, 0.4)):
        np.testing.assert_allclose(found[i], of_model(vae(likelihood=vj.Gaussian(variance))), rtol=1e-5)


@pytest.mark.parametrize(
    ("of", "name"),
    [(vj.ELBO(), "samples"), (vj.ELBO(), "betta"), (vj.ELBO(beta=optax.constant_schedule(1.0)), "beta")],
)
def test_axes_of_a_name_that_is_not_a_parameter_are_an_error(of, name):
    with pytest.raises(vj.InputError, match=f"ELBO has no parameter '{name}'; expected one of .*free_bits"):
        vj.axes(of, **{name: 0})


def test_gradients_reach_a_parameter():
    """d/dv log N(x; m, v I) of 4 entries; with a schedule for beta, free_bits is the only leaf of an ELBO."""
    found = jax.jit(jax.grad(lambda of: likelihood_of(of).sum()))(vj.Gaussian(0.3))
    squares = float(np.sum((np.round(X) - np.asarray(X)) ** 2))
    assert found.variance == pytest.approx(0.5 * squares / 0.3**2 - 0.5 * X.size / 0.3, rel=1e-4)
    assert jax.tree.leaves(vj.ELBO(beta=optax.constant_schedule(1.0))) == [0.0]


REFUSED = {
    "beta is -1.0": lambda number: vj.ELBO(beta=number),
    "free_bits is -1.0": lambda number: vj.ELBO(free_bits=number),
    "variance is -1.0": vj.Gaussian,
    "scale is -1.0": vj.Laplace,
    "bound is -1.0": lambda number: vj.Coupling(bound=number),
    "spread is -1.0": lambda number: vj.GaussianMixture(2, spread=number),
}


@pytest.mark.parametrize("message", REFUSED)
def test_checks_run_in_constructors_on_concrete_numbers_only(message):
    make = REFUSED[message]
    for call in (lambda: make(-1.0), lambda: jax.jit(lambda: jax.tree.leaves(make(-1.0)))()):
        with pytest.raises(vj.InputError, match=message):
            call()
    np.testing.assert_allclose(jax.jit(lambda number: jnp.stack(jax.tree.leaves(make(number))))(-1.0).min(), -1)
    negated = jax.tree.map(lambda leaf: -jnp.abs(leaf) - 1.0, make(0.5))
    assert min(map(float, jax.tree.leaves(negated))) < 0


def test_a_parameter_that_is_an_array_is_checked_too():
    with pytest.raises(vj.InputError, match="variance is"):
        vj.Gaussian(jnp.array([0.1, -0.1]))
    with pytest.raises(vj.InputError, match="beta is"):
        vj.ELBO(beta=jnp.array([1.0, jnp.nan]))
    with pytest.raises(vj.InputError, match="variance is True"):
        vj.Gaussian(True)


def test_a_schedule_is_static():
    schedule = optax.linear_schedule(0.0, 1.0, 6)
    objective = vj.ELBO(beta=schedule)
    assert objective == vj.ELBO(beta=schedule)
    assert hash(objective) == hash(vj.ELBO(beta=schedule))
    of_objective = jax.jit(loss)
    np.testing.assert_allclose(of_objective(objective), of_objective(vj.ELBO(beta=0.5)), rtol=1e-5)  # at step 3
