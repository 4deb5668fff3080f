"""The scripts' recipe: what it measures and what it returns are the averaged parameters."""

from functools import partial

import jax
import numpy as np
import pytest
from conftest import small_split
from harness.recipe import averaged_adamw, bound_in_numbers, train_vae

import vae_jax as vj

VAE = vj.mlp_vae((6, 6, 1), hidden=(8,))
DATA = vj.Dataset("noise", small_split(64), small_split(32, seed=1), "made here")


def test_the_averaged_parameters_are_measured_and_returned():
    states = []

    def kept(*args, **settings):
        state, history = vj.fit(*args, **settings)
        states.append(state)
        return state, history

    trained = train_vae(
        jax.random.key(0), VAE, vj.ELBO(), DATA, epochs=2, batch_size=16, learning_rate=0.1, progress=False, fit=kept
    )
    (last,) = states
    _, measure_key = jax.random.split(jax.random.key(0))
    measured = partial(bound_in_numbers, measure_key, VAE, data=DATA.test, transform=vj.Scale(), split="test")
    averaged = vj.averaged_variables(last)
    for ours, expected in zip(jax.tree.leaves(trained.variables), jax.tree.leaves(averaged), strict=True):
        np.testing.assert_array_equal(ours, expected)
    numbers = measured(variables=averaged)
    assert {name: trained.history[-1][name] for name in numbers} == pytest.approx(numbers, rel=1e-6)
    assert numbers["test_negative_elbo"] != pytest.approx(measured(variables=last.variables)["test_negative_elbo"])


@pytest.mark.parametrize("transforms", [(vj.Scale(-1.0, 1.0), vj.Scale()), (vj.Scale(), vj.Scale(-1.0, 1.0))])
def test_neither_what_is_measured_nor_what_is_trained_on_may_leave_the_likelihoods_range(transforms):
    transform, augmented = transforms
    settings = {"epochs": 1, "batch_size": 16, "learning_rate": 0.1, "fit": pytest.fail}
    with pytest.raises(vj.InputError, match="likelihood takes values from 0 to 1"):
        train_vae(jax.random.key(0), VAE, vj.ELBO(), DATA, transform=transform, augmented=augmented, **settings)


def test_the_schedule_ends_with_the_run_and_augmented_images_are_for_training_alone(monkeypatch):
    runs = []

    def optimizer(peak, weight_decay, steps):
        runs.append(steps)
        return averaged_adamw(peak, weight_decay, steps)

    def untrained(state, step, data, *, transform, eval_fn, **settings):
        runs.append(transform)
        return state, [eval_fn(state)]

    monkeypatch.setattr("harness.recipe.averaged_adamw", optimizer)
    settings = {"epochs": 3, "batch_size": 20, "learning_rate": 0.1, "fit": untrained}
    augmented, plain = (
        train_vae(jax.random.key(0), VAE, vj.ELBO(), DATA, augmented=augmented, **settings).history
        for augmented in (vj.Mirrored(), None)
    )
    assert runs == [9, vj.Mirrored(), 9, vj.Scale()]
    assert augmented == plain
