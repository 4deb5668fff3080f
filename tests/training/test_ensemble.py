"""Members of an ensemble: each trained as it would be alone, however they are spread and mapped."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_run import OPTIMIZER, VAE, assert_close, fit, fresh, fresh_members, losses

import vae_jax as vj

BETAS, RATES = [0.0, 1.0, 2.0, 4.0], [0.01, 0.02, 0.005, 0.01]


def optimizer(rate):
    return optax.sgd(rate, momentum=0.9)


STEP_OF_SETTINGS = vj.with_settings(
    lambda settings: vj.make_train_step(VAE, vj.ELBO(settings["beta"]), optimizer(settings["rate"]))
)


def differing(betas=BETAS, rates=RATES):
    settings = {"beta": jnp.array(betas), "rate": jnp.array(rates)}
    return vj.init_members(jax.vmap(jax.random.key)(jnp.arange(4)), VAE, optimizer(0.1), settings)


def assert_as_alone(together, history, number, alone, alone_history):
    assert_close(replace(vj.member(together, number), settings=()), alone, rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses(history)[:, number], losses(alone_history), rtol=1e-5)


@pytest.fixture(scope="module")
def together():
    return fit(fresh_members(4), 2)


def test_members_of_several_seeds_are_runs_of_those_seeds(together):
    state, history = together
    for number in range(4):
        assert_as_alone(state, history, number, *fit(fresh(number), 2))
    assert [record["epoch"] for record in history] == [1, 2]
    for record in history:
        assert all(isinstance(record[name], list) and len(record[name]) == 4 for name in ("loss", "kl", "log_px_z"))
        assert isinstance(record["seconds"], float)


@pytest.mark.parametrize("devices", [2, 4])
def test_members_spread_over_devices_are_the_same(together, devices):
    state, history = fit(fresh_members(4), 2, mesh=vj.device_mesh(devices))
    assert_close(state, together[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses(history), losses(together[1]), rtol=1e-5)


def test_members_of_several_settings_are_runs_with_those_settings():
    state, history = fit(differing(), 2, step=STEP_OF_SETTINGS)
    step = vj.make_train_step(VAE, vj.ELBO(BETAS[2]), optimizer(RATES[2]))
    assert_as_alone(state, history, 2, *fit(fresh(2), 2, step=step))


def test_a_member_whose_loss_is_not_finite_is_named():
    nan = float("nan")  # as a learning rate it makes the second loss one
    with pytest.raises(vj.NotFiniteError, match=r"^step 2 of members 1 and 3: the .*loss are not finite") as caught:
        fit(differing(rates=[0.01, nan, 0.02, nan]), 2, step=STEP_OF_SETTINGS)
    assert all(caught.value.state.step[number] == 1 for number in (1, 3))
    with pytest.raises(vj.NotFiniteError, match=r"^step 2 of member 2: the .*loss are not finite"):
        fit(differing(rates=[0.01, 0.01, nan, 0.01]), 2, step=STEP_OF_SETTINGS)


def test_members_side_by_side_are_those_one_after_the_other(monkeypatch, together):
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *of, cpu, default: default(*of))  # as on a GPU
    anew = vj.make_train_step(VAE, vj.ELBO(), OPTIMIZER)  # so that it is compiled again
    state, history = fit(fresh_members(4), 2, step=anew)
    assert_close(state, together[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses(history), losses(together[1]), rtol=1e-5)


def test_each_member_is_measured(together):
    def bias(state):
        assert state.step.shape == ()
        return {"bias": float(state.variables["params"]["decoder"]["Dense_1"]["bias"][0]), "step": int(state.step)}

    biases = together[0].variables["params"]["decoder"]["Dense_1"]["bias"][:, 0].tolist()
    for eval_fn in (bias, [bias] * 4):
        _, history = fit(fresh_members(4), 2, eval_fn=eval_fn)
        assert [record["step"] for record in history] == [[6] * 4, [12] * 4]
        assert history[1]["bias"] == biases
    assert len(set(biases)) == 4


def test_settings_of_another_number_of_members_are_refused():
    keys = jax.random.split(jax.random.key(0), 3)
    with pytest.raises(vj.InputError, match=r"setting beta has shape \(2,\), but there are 3 members"):
        vj.init_members(keys, VAE, OPTIMIZER, {"beta": jnp.ones(2)})
    with pytest.raises(vj.InputError, match=r"setting loss.beta has shape \(\), but there are 3 members"):
        vj.init_members(keys, VAE, OPTIMIZER, {"loss": {"beta": 1.0}})


def test_init_members_are_those_of_init():
    states = fresh_members(4)
    for number in (0, 3):
        assert_close(vj.member(states, number), fresh(number), rtol=1e-6, atol=0)


def test_a_member_of_a_tree_with_keys():
    keys = jax.random.split(jax.random.key(3), 4)
    expected = jax.random.key_data(keys)[2]
    own = vj.member({"key": keys, "values": jnp.arange(8).reshape(4, 2)}, 2)
    np.testing.assert_array_equal(jax.random.key_data(own["key"]), expected)
    np.testing.assert_array_equal(own["values"], [4, 5])
    jax.random.normal(own["key"])  # not counted as used
