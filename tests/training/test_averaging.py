"""The running average of parameters against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_split
from harness.recipe import adamw, averaged_adamw

import vae_jax as vj


def test_the_average_is_the_weighted_sum_of_all_parameters_there_were():
    """Unrolled: step i of t has the weight w_i, the product of its own share and of what later steps leave of it."""
    eta, steps = 3.0, 25
    optimizer = vj.averaged(optax.sgd(0.1), eta)
    params = {"a": jnp.array([1.0, -2.0])}
    state, met = optimizer.init(params), []
    for _ in range(steps):
        updates, state = optimizer.update(jax.tree.map(lambda p: p**2 + 0.1, params), state, params)
        params = optax.apply_updates(params, updates)
        met.append(params["a"])
    shares = [(1 + eta) / (t + eta) for t in range(1, steps + 1)]
    weights = [share * np.prod([1 - later for later in shares[i + 1 :]]) for i, share in enumerate(shares)]
    assert sum(weights) == pytest.approx(1)
    np.testing.assert_allclose(state.average["a"], np.tensordot(weights, np.stack(met), 1), rtol=1e-5)
    assert sum(weights[-steps // 2 :]) > 0.8, "the average is that of the late steps"


def test_training_is_that_of_the_optimizer_inside():
    vae, data = vj.mlp_vae((6, 6, 1), hidden=(8,)), small_split(64)
    states = []
    for optimizer in (optax.adam(1e-2), vj.averaged(optax.adam(1e-2))):
        step = vj.make_train_step(vae, vj.ELBO(), optimizer)
        state = vj.init(jax.random.key(0), vae, optimizer)
        states.append(vj.fit(state, step, data, epochs=2, batch_size=16, progress=False)[0])
    for plain, inside in zip(*(jax.tree.leaves(state.variables) for state in states), strict=True):
        np.testing.assert_allclose(plain, inside, rtol=1e-5, atol=1e-6)
    average = vj.averaged_variables(states[1])
    assert jax.tree.structure(average) == jax.tree.structure(states[1].variables)
    for last, mean in zip(jax.tree.leaves(states[1].variables), jax.tree.leaves(average), strict=True):
        assert not np.array_equal(last, mean)
    with pytest.raises(vj.InputError, match="holds 0 averages"):
        vj.averaged_variables(states[0])


@pytest.mark.parametrize("members", [None, 2])
def test_the_first_state_can_be_donated(members):
    vae, optimizer = vj.mlp_vae((6, 6, 1), hidden=(8,)), vj.averaged(optax.sgd(1e-2))
    step, batch = vj.make_train_step(vae, vj.ELBO(), optimizer), vj.Batch(np.full((4, 6, 6, 1), 0.5, np.float32))
    if members is None:
        state = vj.init(jax.random.key(0), vae, optimizer)
    else:
        state = vj.init_members(jax.random.split(jax.random.key(0), members), vae, optimizer)
        step = jax.vmap(step, in_axes=(0, None))
    state, metrics = jax.jit(step, donate_argnums=0)(state, batch)
    assert np.isfinite(metrics["loss"]).all()


@pytest.mark.parametrize("make", [averaged_adamw, adamw])
def test_weight_matrices_alone_decay(make):
    """Without a gradient, by the rate times the decay."""
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3), "log_scale": jnp.ones(())}
    optimizer = make(0.1, weight_decay=0.5, steps=10)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], np.full((2, 3), -0.05), rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], np.zeros(3))
    np.testing.assert_array_equal(updates["log_scale"], 0.0)


def test_adamw_without_decay_is_adam():
    params = {"kernel": jnp.full((2, 3), 2.0)}
    gradient = {"kernel": jax.device_put(np.float32(np.random.default_rng(0).normal(size=(2, 3))))}

    @jax.jit
    def updates():
        optimizers = adamw(0.1, weight_decay=0.0, steps=10), optax.adam(vj.warm_up_then_cosine(0.1, 10))
        return [of.update(gradient, of.init(params), params)[0]["kernel"] for of in optimizers]

    np.testing.assert_array_equal(*updates())


@pytest.mark.parametrize("eta", [0.0, -1.0, float("nan")])
def test_an_eta_that_makes_no_average_is_refused(eta):
    with pytest.raises(vj.InputError, match="eta"):
        vj.averaged(optax.sgd(0.1), eta)


def test_a_part_alone_can_be_averaged():
    """The other parameters of `averaged_variables` are those of the last step."""
    vae = vj.mlp_vae((6, 6, 1), hidden=(8,), prior=vj.GaussianMixture(2))
    parts = {"networks": vj.averaged(optax.adam(1e-2)), "prior": optax.adam(1e-2)}
    optimizer = optax.partition(parts, lambda params: {of: "prior" if of == "prior" else "networks" for of in params})
    step = vj.make_train_step(vae, vj.ELBO(), optimizer)
    state = vj.init(jax.random.key(0), vae, optimizer)
    state, _ = vj.fit(state, step, small_split(64), epochs=1, batch_size=16, progress=False)
    average = vj.averaged_variables(state)["params"]
    jax.tree.map(np.testing.assert_array_equal, average["prior"], state.variables["params"]["prior"])
    assert jax.tree.structure(average) == jax.tree.structure(state.variables["params"])
    encoders = average["encoder"], state.variables["params"]["encoder"]
    for mean, last in zip(*map(jax.tree.leaves, encoders), strict=True):
        assert not np.array_equal(mean, last)
