"""A store never resumes another run: each difference is refused or allowed by its name."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import steps_described
from conftest import small_split

import vae_jax as vj
from vae_jax.checkpoints.differences import difference
from vae_jax.training import loop
from vae_jax.training.step import describe_step

DATA = small_split(96)  # 6 steps an epoch
VAE, OBJECTIVE, OPTIMIZER = vj.mlp_vae((6, 6, 1), hidden=(8,)), vj.ELBO(), optax.sgd(1e-2)
FRESH = replace(vj.init(jax.random.key(0), VAE, OPTIMIZER), settings={"beta": jnp.float32(0.5)})


def step_of(vae=VAE, objective=OBJECTIVE, optimizer=OPTIMIZER):
    return vj.make_train_step(vae, objective, optimizer)


RUN = {"state": FRESH, "step": step_of(), "data": DATA, "transform": vj.Scale(), "batch_size": 16}
CHANGES = {
    "config": ({"config": {"widths": 9}}, r"\(widths is 8 there and 9 here\)"),
    "data": (
        {"data": small_split(96, seed=1)},
        r"\(data is '[0-9a-f]{12}\.\.\.' there and '[0-9a-f]{12}\.\.\.' here\)",
    ),
    "transform": ({"transform": vj.Scale(0.0, 0.5)}, r"\(transform\.high is 1\.0 there and 0\.5 here\)"),
    "key": (
        {"state": replace(FRESH, key=jax.random.key(7))},
        r"\(key\.values is \[\d+, \d+\] there and \[0, 7\] here\)",
    ),
    "settings": (
        {"state": replace(FRESH, settings={"beta": jnp.float32(0.75)})},
        r"\(settings\.items\.beta\.values is \[0\.5\] there and \[0\.75\] here\)",
    ),
    "model": (
        {"step": step_of(vj.mlp_vae((6, 6, 1), hidden=(8,), activation=jnp.tanh))},
        r"\(model\.decoder\.activation is 'jax\.nn:relu' there and 'jax\.nn:tanh' here, model\.encoder\.[^,]*\)",
    ),
    "objective": ({"step": step_of(objective=vj.ELBO(2.0))}, r"\(objective\.beta is 1\.0 there and 2\.0 here\)"),
    "optimizer": (
        {"step": step_of(optimizer=optax.sgd(1e-3))},
        r"\(optimizer\.\.\.update\.step_size is -0\.01 there and -0\.001 here\)",
    ),
}
LENGTHS = [
    ({"batch_size": 32}, "batch_size is 16 there and 32 here, steps_per_epoch is 6 there and 3 here"),
    ({"data": small_split(200)}, r"data is .*, steps_per_epoch is 6 there and 12 here"),
]


@pytest.fixture(autouse=True)
def chunks(monkeypatch):
    """Chunks that count steps, with neither programs nor gradients; how many there were."""
    taken = []

    def count_steps(state, feed, count, **settings):
        taken.append(count)
        finite = jnp.full(state.step.shape, count)
        metrics = {"loss": jnp.zeros(state.step.shape), "finite": finite}
        return replace(state, step=state.step + count), metrics, metrics

    monkeypatch.setattr(loop, "run_chunk", count_steps)
    return taken


def fit(folder, epochs, *, config={"widths": 8}, allow=(), described=None, **changes):  # noqa: B006
    run = RUN | changes
    store = vj.Checkpoints(folder, config, every_seconds=0.0, allow=allow, step=described)
    state, step, data = (run.pop(name) for name in ("state", "step", "data"))
    return vj.fit(state, step, data, epochs=epochs, store=store, progress=False, **run)


def assert_refused(chunks, message, *args, **changes):
    chunks.clear()
    with pytest.raises(vj.InputError, match=message) as refusal:
        fit(*args, **changes)
    assert not chunks, "it was refused too late"
    return str(refusal.value)


@pytest.mark.parametrize("name", CHANGES)
def test_each_difference_is_refused_by_its_name_and_allowed_by_it(tmp_path, chunks, name):
    change, difference = CHANGES[name]
    fit(tmp_path, 2)
    message = assert_refused(chunks, f"holds checkpoints of another run {difference}", tmp_path, 4, **change)
    assert message.endswith(f"choose another folder, the same options, or Checkpoints(..., allow=('{name}',))")
    others = [other for other in CHANGES if other != name]
    assert_refused(chunks, difference, tmp_path, 4, allow=others, **change)
    state, history = fit(tmp_path, 4, allow=(name,), **change)
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    expected = (RUN | change)["state"]
    assert state.settings == expected.settings
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(expected.key))
    assert int(fit(tmp_path, 5, **change)[0].step) == 30, "later checkpoints are those of the changed run"
    assert_refused(chunks, "another run", tmp_path, 5)


@pytest.mark.parametrize(("change", "difference"), LENGTHS)
def test_an_epoch_of_another_length_is_refused_whatever_is_allowed(tmp_path, chunks, change, difference):
    fit(tmp_path, 2)
    message = assert_refused(chunks, difference, tmp_path, 4, **change)
    assert message.endswith("start a new run from the state, with its step set to 0, in another folder")
    assert_refused(chunks, r"steps_per_epoch is", tmp_path, 4, allow=list(CHANGES), **change)


def test_the_same_run_is_resumed_in_a_new_process(tmp_path):
    fit(tmp_path, 2)
    anew = {"state": jax.tree.map(jnp.copy, FRESH), "step": step_of(), "data": small_split(96)}
    state, history = fit(tmp_path, 4, **anew, mesh=vj.device_mesh(2), stream_above=0, eval_fn=lambda state: {})
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    assert int(state.step) == 24


@pytest.mark.parametrize("beta", [0.5, jnp.float32(jnp.nan)])
def test_settings_that_are_plain_numbers_or_nan_are_the_same_again(tmp_path, beta):
    state = replace(FRESH, settings={"beta": beta})
    fit(tmp_path, 2, state=state)
    assert int(fit(tmp_path, 3, state=state)[0].step) == 18


def test_members_of_other_settings_are_refused_and_of_the_same_settings_resumed(tmp_path, chunks):
    def members(betas):
        keys = jax.random.split(jax.random.key(0), len(betas))
        return vj.init_members(keys, VAE, OPTIMIZER, {"beta": jnp.array(betas)})

    def run(betas, objective=vj.ELBO, **settings):
        step = vj.with_settings(lambda settings: step_of(objective=objective(settings["beta"])))
        return fit(tmp_path, 3, state=members(betas), step=step, **settings)

    fit(
        tmp_path,
        2,
        state=members([1.0, 2.0]),
        step=vj.with_settings(lambda own: step_of(objective=vj.ELBO(own["beta"]))),
    )
    assert run([1.0, 2.0])[0].step.tolist() == [18, 18]
    chunks.clear()
    with pytest.raises(vj.InputError, match=r"beta\.values is \[1\.0, 2\.0\] there and \[1\.0, 4\.0\] here\); "):
        run([1.0, 4.0])
    with pytest.raises(vj.InputError, match=r"\(objective\.samples is 1 there and 3 here\)"):
        run([1.0, 2.0], objective=lambda beta: vj.ELBO(beta, samples=3))
    with pytest.raises(vj.InputError, match=r"\(members is 2 there and 3 here\); choose another folder, or the same"):
        run([1.0, 2.0, 4.0], allow=["key", "settings"])
    assert not chunks
    assert run([1.0, 4.0], allow=["settings"])[0].settings["beta"].tolist() == [1.0, 4.0]


def by_hand(state, batch):
    return replace(state, step=state.step + 1), {"loss": jnp.zeros(()), "finite": jnp.bool_(True)}


def test_a_step_written_by_hand_is_described_by_the_caller(tmp_path, chunks):
    assert_refused(chunks, r"the step has no description, .*Checkpoints\(\.\.\., step=\{", tmp_path, 1, step=by_hand)
    with_rate = [{"loss": "mine", "rate": rate} for rate in (0.1, 0.2)]
    fit(tmp_path / "whole", 1, step=by_hand, described=with_rate[0])
    refused = r"\(step\.rate is 0\.1 there and 0\.2 here\).*allow=\('step',\)"
    assert_refused(chunks, refused, tmp_path / "whole", 2, step=by_hand, described=with_rate[1])
    assert int(fit(tmp_path / "whole", 2, step=by_hand, described=with_rate[1], allow=["step"])[0].step) == 12
    fit(tmp_path / "parts", 1, step=by_hand, described={"model": "mine", "optimizer": 0.1})
    refused = r"\(optimizer is 0\.1 there and 0\.2 here\).*allow=\('optimizer',\)"
    changed = {"model": "mine", "optimizer": 0.2}
    assert_refused(chunks, refused, tmp_path / "parts", 2, step=by_hand, described=changed)


def test_what_the_caller_says_of_a_step_takes_the_place_of_its_own_description(tmp_path):
    fit(tmp_path, 1, described="mine")
    fit(tmp_path, 2, described="mine", step=step_of(objective=vj.ELBO(2.0)))


def test_a_checkpoint_that_was_saved_without_a_run_is_not_taken_for_this_one(tmp_path, chunks):
    vj.Checkpoints(tmp_path, {"widths": 8}).save(6, FRESH, {}, last=True)
    assert_refused(chunks, "data is None there and .*batch_size is None there and 16 here", tmp_path, 2)


def test_another_best_is_not_allowed_with_the_config(tmp_path):
    def run(best):
        store = vj.Checkpoints(tmp_path, {}, every_seconds=0.0, best=best, allow=["config"])
        vj.fit(FRESH, RUN["step"], DATA, epochs=1, batch_size=16, store=store, progress=False)

    run("loss")
    with pytest.raises(vj.InputError, match=r"\(best is 'loss' there and 'seconds' here\); choose another folder, or"):
        run("seconds")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"allow": ["optimiser"]}, r"allow is \['optimiser'\]; expected .*some of config, data, .*optimizer, step$"),
        ({"allow": ["batch_size"]}, r"allow is \['batch_size'\]; expected"),
        ({"step": by_hand}, "step can't be kept as JSON .*function is not"),
        ({"config": {"vae": VAE}}, "config can't be kept as JSON"),
    ],
)
def test_what_a_store_can_not_be_told_is_a_sentence(tmp_path, settings, message):
    with pytest.raises(vj.InputError, match=message):
        vj.Checkpoints(tmp_path, **{"config": {}} | settings)


def test_nothing_is_described_without_a_store():
    data, step = small_split(96), step_of(optimizer=optax.sgd(lambda count: pytest.fail("described")))
    vj.fit(FRESH, step, data, epochs=1, batch_size=16, progress=False)
    assert "digest" not in vars(data)


def test_steps_are_told_apart_and_described_alike_in_two_processes():
    here = steps_described.descriptions()
    assert len(set(here.values())) == len(here)
    command = [sys.executable, "-c", "import json, steps_described as s; print(json.dumps(s.descriptions()))"]
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    there = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, cwd=Path(__file__).parent
    )
    assert json.loads(there.stdout) == here


def test_a_step_is_described_where_its_objective_is_traced():
    description = describe_step(steps_described.STEPS["of settings"], jnp.float32(0.5))
    assert description["objective"]["beta"] == {"def": "a traced float32[]"}
    assert description["model"] == step_of(steps_described.VAE).description["model"]


def test_a_global_variable_that_a_lambda_reads_is_part_of_its_description(monkeypatch):
    step = steps_described.STEPS["schedule as lambda"]
    before = step.description
    monkeypatch.setattr(steps_described, "RATE", 1e-2)
    assert difference("", before, step.description).endswith("RATE is 0.001 there and 0.01 here")


def test_of_many_differences_a_few_are_shown_and_long_values_are_cut():
    there, here = ({str(i): i + more for i in range(5)} for more in (0, 1))
    assert difference("a", there, here) == (
        "a.0 is 0 there and 1 here, a.1 is 1 there and 2 here, a.2 is 2 there and 3 here and 2 more"
    )
    long = list(range(100))
    assert difference("a", long, [*long[:-1], 7]) == "a.99 is 99 there and 7 here"
    assert difference("a", long, long[:-2]) == "a.98 is 98 there and None here, a.99 is 99 there and None here"
    assert len(difference("a", long, "b" * 1000)) < 160
    deep = [{"b": {"c": {"d": {"e": {"f": value}}}}} for value in (1, 2)]
    assert difference("a", *deep) == "a...e.f is 1 there and 2 here"
    twice = [{"b": inner, "c": inner} for inner in deep]
    assert difference("a", *twice) == "a...e.f is 1 there and 2 here"
    assert difference("a", {"class": "m:A", "b": 1}, {"class": "m:B", "c": 1}) == "a is 'm:A' there and 'm:B' here"
