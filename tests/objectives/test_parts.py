"""Objectives of several players: a loss for each part, one forward pass, frozen arrays, resumed to the same bits."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_split
from small_run import assert_same

import vae_jax as vj
from vae_jax.objectives import Loss

DATA = small_split(32)
OPTIMIZER = optax.partition(
    {"model": optax.sgd(0.05), "opponent": optax.sgd(0.1)}, lambda params: {"x": "model", "opponent": "opponent"}
)


class Scalar:
    """A "model" of one parameter."""

    def init(self, key):
        return {"params": {"x": jnp.float32(3.0)}}


@vj.value
class Saddle:
    """min_x max_y of x^2 / 2 + 2 x (y - c) - y^2 / 2, each player with its own loss; c is frozen.

    The equilibrium is where x + 2 (y - c) = 0 and 2 x - y = 0: x = 2 c / 5, y = 4 c / 5.
    """

    def init(self, key, model):
        return {"params": {"opponent": jax.random.normal(key)}}

    def __call__(self, key, model, variables, batch, step):
        x, y = variables["params"]["x"], variables["params"]["opponent"]
        value = x**2 / 2 + 2 * x * (y - variables["frozen"]["c"]) - y**2 / 2
        losses = jnp.full(len(batch.x), value)
        return Loss({"model": losses, "opponent": -losses}, {"distance": jnp.full(len(batch.x), jnp.abs(y))}, {})


FROZEN = {"c": jnp.float32(1.5)}
STEP = vj.make_train_step(Scalar(), Saddle(), OPTIMIZER)


def fresh(frozen=FROZEN):
    return vj.init(jax.random.key(0), Scalar(), OPTIMIZER, objective=Saddle(), frozen=frozen)


def run(state, epochs, **settings):
    return vj.fit(state, STEP, DATA, epochs=epochs, batch_size=8, progress=False, **settings)


def test_two_players_find_their_equilibrium():
    state, history = run(fresh(), 60)
    params = state.variables["params"]
    assert float(params["x"]) == pytest.approx(2 * 1.5 / 5, abs=1e-4)
    assert float(params["opponent"]) == pytest.approx(4 * 1.5 / 5, abs=1e-4)
    assert history[-1]["loss_model"] == pytest.approx(-history[-1]["loss_opponent"])
    assert state.frozen == FROZEN


def test_each_part_has_the_gradient_of_its_own_loss_alone():
    state = fresh()
    after, metrics = jax.jit(STEP)(state, vj.Batch(jnp.zeros((8, 6, 6, 1))))
    x, y = (float(state.variables["params"][name]) for name in ("x", "opponent"))
    assert float(after.variables["params"]["x"]) == pytest.approx(x - 0.05 * (x + 2 * (y - 1.5)), rel=1e-5)
    assert float(after.variables["params"]["opponent"]) == pytest.approx(y + 0.1 * (2 * x - y), rel=1e-5)
    assert set(metrics) == {"loss", "loss_model", "loss_opponent", "distance", "finite"}
    assert float(metrics["loss"]) == float(metrics["loss_model"]) != 0


def test_players_are_resumed_to_the_same_bits_and_frozen_arrays_are_not_stored(tmp_path):
    whole, _ = run(fresh(), 4)
    run(fresh(), 2, store=vj.Checkpoints(tmp_path, {}))
    resumed, history = run(fresh(), 4, store=vj.Checkpoints(tmp_path, {}))
    assert_same(whole, resumed)
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    with pytest.raises(vj.InputError, match="frozen is"):
        run(fresh({"c": jnp.float32(2.0)}), 5, store=vj.Checkpoints(tmp_path, {}))
    changed, _ = run(fresh({"c": jnp.float32(2.0)}), 5, store=vj.Checkpoints(tmp_path, {}, allow=("frozen",)))
    assert float(changed.frozen["c"]) == 2.0


def test_members_and_devices_play_alike():
    states = vj.init_members(
        jax.random.split(jax.random.key(1), 2), Scalar(), OPTIMIZER, objective=Saddle(), frozen=FROZEN
    )
    together, _ = run(states, 2)
    for number in range(2):
        alone, _ = run(vj.member(states, number), 2)
        assert_same(vj.member(together, number).variables, alone.variables)
    spread, _ = run(fresh(), 2, mesh=vj.device_mesh(4))
    for a, b in zip(jax.tree.leaves(spread.variables), jax.tree.leaves(run(fresh(), 2)[0].variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(
    ("per_example", "message"),
    [
        (lambda size: jnp.float32(1.0), r"loss of model has shape \(\); expected one number an example, \[8\]"),
        (lambda size: jnp.ones((size, 1)), r"shape \(8, 1\)"),
        (lambda size: {"opponent": jnp.ones(size)}, "losses are of opponent; expected one named 'model'"),
    ],
)
def test_losses_of_another_form_are_refused(per_example, message):
    def objective(key, model, variables, batch, step):
        return Loss(per_example(len(batch.x)), {}, {})

    step = vj.make_train_step(Scalar(), objective, optax.sgd(0.1))
    state = vj.init(jax.random.key(0), Scalar(), optax.sgd(0.1))
    with pytest.raises(vj.InputError, match=message):
        step(state, vj.Batch(jnp.zeros((8, 6, 6, 1))))
    step = vj.make_train_step(Scalar(), lambda *arguments: jnp.ones(8), optax.sgd(0.1))
    with pytest.raises(vj.InputError, match="returned a"):
        step(state, vj.Batch(jnp.zeros((8, 6, 6, 1))))


@pytest.mark.parametrize(
    ("term", "batch", "message"),
    [
        ((8, 1), {}, r"the objective's term of_each has shape \(8, 1\); expected one number an example, \[8\]"),
        ((8,), {"mask": jnp.ones(1)}, r"the mask has shape \(1,\); expected \[8\]: a weight for each example"),
        ((8,), {"mask": jnp.ones((8, 1))}, r"the mask has shape \(8, 1\)"),
        ((8,), {"target": jnp.zeros((1, 6, 6, 1))}, "the batch has 8 examples and 1 targets; expected one for each"),
        ((8,), {"label": jnp.zeros(1, int), "mask": jnp.ones(8)}, r"8 examples, but its label has shape \(1,\)"),
        ((8,), {"condition": {"a": jnp.ones((1, 2))}}, r"8 examples, but its condition has shape \(1, 2\)"),
        ((8,), {"observed": jnp.ones((1, 6, 6, 1))}, r"8 examples, but its observed has shape \(1, 6, 6, 1\)"),
    ],
)
def test_parts_of_a_batch_and_terms_of_another_size_are_refused(term, batch, message):
    """They would be broadcast."""

    def objective(key, model, variables, batch, step):
        return Loss(jnp.ones(8), {"of_each": jnp.ones(term)}, {})

    step = vj.make_train_step(Scalar(), objective, optax.sgd(0.1))
    state = vj.init(jax.random.key(0), Scalar(), optax.sgd(0.1))
    with pytest.raises(vj.InputError, match=message):
        step(state, vj.Batch(jnp.zeros((8, 6, 6, 1)), **batch))


def test_an_objective_can_not_take_the_name_of_a_part_of_the_model():
    class Clash(Saddle):
        def init(self, key, model):
            return {"params": {"x": jnp.float32(0.0)}}

    with pytest.raises(vj.InputError, match="named x, as a part of the model is"):
        vj.init(jax.random.key(0), Scalar(), optax.sgd(0.1), objective=Clash())

    own = Scalar().init(jax.random.key(1))
    with pytest.raises(vj.InputError, match="named x, as a part of the model is"):
        vj.init(jax.random.key(0), Scalar(), optax.sgd(0.1), objective=Clash(), variables=own)


def test_a_run_starts_from_the_variables_of_model_and_objective():
    def start(variables):
        state = vj.init(jax.random.key(0), Scalar(), OPTIMIZER, objective=Saddle(), frozen=FROZEN, variables=variables)
        return state.variables["params"]

    trained = {"params": {"x": jnp.float32(7.0), "opponent": jnp.float32(8.0)}}
    assert start(trained) == trained["params"]
    of_model = start({"params": {"x": jnp.float32(7.0)}})
    assert of_model == {"x": 7.0, "opponent": fresh().variables["params"]["opponent"]}


def test_collections_that_a_step_changes_are_merged_and_not_replaced():
    class Two:
        def init(self, key):
            return {"params": {"w": jnp.float32(1.0)}, "stats": {"a": jnp.float32(1.0), "b": jnp.float32(2.0)}}

    def objective(key, model, variables, batch, step):
        return Loss(jnp.zeros(len(batch.x)) * variables["params"]["w"], {}, {"stats": {"a": jnp.float32(5.0)}})

    state = vj.init(jax.random.key(0), Two(), optax.sgd(0.1))
    after, _ = vj.make_train_step(Two(), objective, optax.sgd(0.1))(state, vj.Batch(jnp.zeros((4, 6, 6, 1))))
    assert {name: float(leaf) for name, leaf in after.variables["stats"].items()} == {"a": 5.0, "b": 2.0}


def test_the_average_is_found_within_a_chain():
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), vj.averaged(optax.sgd(0.1)))
    vae = vj.mlp_vae((6, 6, 1), 2, (4,))
    state = vj.init(jax.random.key(0), vae, optimizer)
    state, _ = vj.make_train_step(vae, vj.ELBO(), optimizer)(state, vj.Batch(jnp.zeros((4, 6, 6, 1))))
    average = vj.averaged_variables(state)
    assert_same(average, state.variables | {"params": state.opt_state[1].average})
    with pytest.raises(vj.InputError, match="0 averages"):
        vj.averaged_variables(replace(state, opt_state=optax.sgd(0.1).init(state.variables["params"])))
