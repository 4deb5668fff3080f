"""Representations: shapes and sizes in place of the entries of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_split

import vae_jax as vj

VAE = vj.mlp_vae((6, 6, 1), hidden=(8,), classes=3)
OPTIMIZER = optax.adam(1e-3)
STATE = vj.init(jax.random.key(0), VAE, OPTIMIZER)
SPLIT = small_split(9)
X, LABELS = jnp.asarray(SPLIT.images / np.float32(255)), jnp.asarray(SPLIT.labels)


def test_a_model_shows_the_parameters_of_each_network():
    assert repr(VAE) == (
        "VAE(event_shape=(6, 6, 1), latent_dim=2,\n"
        "    encoder=MLP (356 parameters),\n"
        "    decoder=MLP (372 parameters),\n"
        "    posterior=DiagonalGaussian,\n"
        "    prior=StandardNormal(),\n"
        "    likelihood=Bernoulli(),\n"
        "    classes=3,\n)"
    )
    assert "encoder=MLP,\n" in repr(vj.mlp_vae((6, 6, 1), prior=vj.VampPrior(3))), "its parameters depend on the data"


def test_the_table_of_parameters_adds_up():
    lines = vj.parameter_table(VAE).splitlines()
    assert lines[0].split() == ["path", "shape", "dtype", "parameters"]
    assert lines[2].split() == ["params/decoder/Dense_0/bias", "(8,)", "float32", "8"]
    assert lines[-1].split() == ["total", "728"]
    assert sum(int(line.split()[-1]) for line in lines[2:-2]) == 728
    assert vj.parameter_table(variables=STATE.variables) == vj.parameter_table(VAE)


def test_a_state_shows_its_step_and_its_size():
    assert repr(STATE) == "TrainState(step=0, params: 728 numbers, opt_state: 1,457 numbers)"
    members = vj.init_members(jax.random.split(jax.random.key(0), 2), VAE, OPTIMIZER)
    assert repr(members) == "TrainState(2 members, step=0, params: 1,456 numbers, opt_state: 2,914 numbers)"
    printed = []
    jax.jit(lambda state: printed.append(repr(state)) or state.step)(STATE)
    assert printed[0].startswith("TrainState(step=JitTracer(int32[])")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            lambda: vj.Batch(jnp.asarray(X), label=jnp.asarray(LABELS)),
            "Batch(x=float32[9, 6, 6, 1], label=int32[9])",
        ),
        (
            lambda: VAE.encode(STATE.variables, X, LABELS),
            "DiagonalGaussian(mean=float32[9, 2], log_var",
        ),
        (lambda: VAE.decode(STATE.variables, jnp.zeros((9, 2)), LABELS), "BernoulliImage(logits=float32[9, 6, 6, 1]"),
        (
            lambda: vj.evaluate(jax.random.key(1), VAE, STATE.variables, SPLIT),
            "ELBOTerms(log_px_z=float32[9], kl=",
        ),
        (lambda: vj.ELBO(beta=jnp.ones(3)), "ELBO(beta=float32[3], kl=AnalyticKL(), samples=1"),
        (lambda: vj.ELBO(), "ELBO(beta=1.0, kl=AnalyticKL(), samples=1, free_bits=0.0, axis_name=None)"),
        (lambda: vj.Scale(), "Scale(low=0.0, high=1.0)"),
    ],
)
def test_arrays_are_shown_by_dtype_and_shape(made, expected):
    assert repr(made()).startswith(expected)
