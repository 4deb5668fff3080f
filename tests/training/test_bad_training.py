"""Wrong arguments of training and of stores: each is one sentence with the value, the expectation and the remedy."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_split

import vae_jax as vj
from vae_jax.training import EarlyStopping, averaged, fit, init, init_members, make_train_step, member, with_settings

DATA = small_split(32)
VAE = vj.mlp_vae((6, 6, 1), latent_dim=2, hidden=(4,))
OPTIMIZER = optax.sgd(1e-2)
STEP = make_train_step(VAE, vj.ELBO(), OPTIMIZER)
DATASET = vj.Dataset("own", DATA, DATA, "drawn")


def key():
    return jax.random.key(0)


def fresh():
    return init(key(), VAE, OPTIMIZER)


def several():
    return init_members(jax.random.split(key(), 2), VAE, OPTIMIZER)


def run(state=None, step=STEP, data=DATA, **settings):
    settings = {"epochs": 1, "batch_size": 16, "progress": False} | settings
    return fit(fresh() if state is None else state, step, data, **settings)


def scalar(key, model, variables, batch, step):
    return jnp.float32(0.0)


BAD = {
    "data set": (lambda: run(data=DATASET), r"Dataset.* data\.train"),
    "nested lists": (lambda: run(data=[[1.0]]), "the data are a list"),
    "optimizer not called": (
        lambda: make_train_step(VAE, vj.ELBO(), optax.adam),
        r"function adam; .*optax\.adam\(1e-3\)",
    ),
    "optimizer not called in init": (lambda: init(key(), VAE, optax.sgd), r"function sgd; .*optax\.sgd\(1e-3\)"),
    "optimizer a float": (lambda: init(key(), VAE, 1e-3), r"optimizer is 0\.001; expected an optimizer of optax"),
    "line search": (
        lambda: run(init(key(), VAE, optax.lbfgs()), make_train_step(VAE, vj.ELBO(), optax.lbfgs())),
        r"the optimizer calls the loss as a function \(value_fn\), as a line search does; expected one",
    ),
    "averaged not called": (lambda: averaged(optax.adam), "function adam; call it"),
    "key an integer": (
        lambda: init(0, VAE, OPTIMIZER),
        r"key is 0; expected a typed key, such as jax\.random\.key\(0\)",
    ),
    "key old": (lambda: init(jax.random.PRNGKey(0), VAE, OPTIMIZER), "old-style key of jax.random.PRNGKey; expected a"),
    "key a batch": (
        lambda: init(jax.random.split(key()), VAE, OPTIMIZER),
        r"shape \(2,\); expected one key: .*members",
    ),
    "keys one key": (lambda: init_members(key(), VAE, OPTIMIZER), r"keys has shape \(\); .*jax\.random\.split"),
    "keys a number": (lambda: init_members(3, VAE, OPTIMIZER), r"key is 3; expected typed keys"),
    "init swapped": (lambda: init(VAE, key(), OPTIMIZER), r"type VAE; .*init\(key, model, optimizer\)"),
    "init swapped last": (
        lambda: init(key(), OPTIMIZER, VAE),
        r"model is an optimizer; .*init\(key, model, optimizer\)",
    ),
    "model a class": (lambda: init(key(), vj.VAE, OPTIMIZER), "model is the class VAE; expected a model"),
    "objective a class": (
        lambda: make_train_step(VAE, vj.ELBO, OPTIMIZER),
        r"class ELBO; make an object of it: ELBO\(\)",
    ),
    "step swapped": (lambda: make_train_step(VAE, OPTIMIZER, vj.ELBO()), r"objective is an optimizer; .*\(model, obj"),
    "settings no function": (lambda: with_settings({"beta": 1.0}), "make is .*; expected a function from settings"),
    "array as batch": (
        lambda: STEP(fresh(), jnp.zeros((4, 6, 6, 1))),
        r"array float32\[4, 6, 6, 1\]; expected a Batch",
    ),
    "array as batch, jitted": (lambda: jax.jit(STEP)(fresh(), jnp.zeros((4, 6, 6, 1))), "expected a Batch"),
    "state a tree": (lambda: STEP(fresh().variables, vj.Batch(jnp.zeros((4, 6, 6, 1)))), "state is .*dict; expected"),
    "fit swapped": (lambda: run(STEP, fresh()), r"state is .*TrainStep; .*fit\(state, step, data, epochs=\)"),
    "fit without a step": (lambda: run(step=VAE), r"step is .*VAE; expected that of vj\.make_train_step"),
    "progress": (lambda: run(progress="no"), "progress is 'no'; expected True or False"),
    "store a path": (lambda: run(store="runs/mine"), r"store is 'runs/mine'; expected .*vj\.Checkpoints"),
    "mesh a number": (lambda: run(mesh=2), r"mesh is 2; expected .*vj\.device_mesh\(2\)"),
    "eval_every": (lambda: run(eval_every=0), "eval_every is 0; expected a whole number"),
    "eval_fn no function": (lambda: run(eval_fn=3), "eval_fn is 3; expected a function"),
    "eval_fn several": (lambda: run(eval_fn=[lambda state: {}]), "eval_fn is .*; expected a function"),
    "eval_fn too few": (lambda: run(several(), eval_fn=[lambda state: {}]), "1 functions; expected one for each of 2"),
    "eval_fn returns nothing": (lambda: run(eval_fn=lambda state: None), "eval_fn returned None; expected a dict"),
    "eval_fn returns a number": (lambda: run(eval_fn=lambda state: 0.5), "eval_fn returned 0.5; expected a dict"),
    "eval_fn returns text": (
        lambda: run(eval_fn=lambda state: {"a": "b"}),
        "eval_fn returned 'a': 'b'; expected numbers",
    ),
    "eval_fn returns an array": (lambda: run(eval_fn=lambda state: {"a": jnp.ones(3)}), r"'a': an array float32\[3\];"),
    "eval_fn returns the loss": (
        lambda: run(eval_fn=lambda state: {"loss": 1.0}),
        "loss, which the record has already",
    ),
    "eval_fn returns other names": (
        lambda: run(several(), eval_fn=[lambda state: {"a": 1.0}, lambda state: {"b": 1.0}]),
        "eval_fn returned b for member 1, but a for member 0; expected the same names",
    ),
    "callback no function": (lambda: run(callback="stop"), "callback is 'stop'; expected a function of the record"),
    "callback a class": (lambda: run(callback=EarlyStopping), "callback is .*; expected a function of the record"),
    "monitor unknown": (
        lambda: run(callback=EarlyStopping("los")),
        "monitor is 'los', which no record has; choose one of epoch, seconds, kl, log_px_z, loss",
    ),
    "monitor of members": (
        lambda: run(several(), callback=EarlyStopping("loss")),
        "has 2 members, whose records are lis",
    ),
    "monitor no name": (lambda: EarlyStopping(5), "monitor is 5; expected the name"),
    "patience": (lambda: EarlyStopping("loss", patience=0), "patience is 0"),
    "min_delta": (lambda: EarlyStopping("loss", min_delta=-1.0), "min_delta is -1"),
    "member of one model": (lambda: member(fresh(), 0), "state is of a single model; expected .*init_members"),
    "member of one model's variables": (lambda: member(fresh().variables, 0), "leading axes have different sizes"),
    "member that is not there": (lambda: member(several(), 2), "member 2 does not exist; expected 0 to 1"),
    "member from the end": (lambda: member(several(), -1), "member -1 does not exist; expected 0 to 1"),
    "state of another optimizer": (
        lambda: make_train_step(VAE, vj.ELBO(), averaged(OPTIMIZER))(fresh(), vj.Batch(jnp.zeros((4, 6, 6, 1)))),
        r"the state is that of another optimizer; expected a state of vj\.init",
    ),
    "state of an optimizer with as many numbers": (
        lambda: run(init(key(), VAE, optax.adam(0.1)), make_train_step(VAE, vj.ELBO(), optax.adabelief(0.1))),
        "the state is that of another optimizer",
    ),
    "state of another model": (
        lambda: run(init(key(), vj.mlp_vae((6, 6, 1), 2, (8,)), OPTIMIZER)),
        "the variables are not those of this MLP: .*shape",
    ),
    "frozen named as a part": (
        lambda: init(key(), VAE, OPTIMIZER, frozen={"encoder": jnp.zeros(3)}),
        "frozen arrays are named encoder, as a part of the model is; choose another name",
    ),
    "setting of the second member": (
        lambda: run(
            init_members(jax.random.split(key(), 2), VAE, OPTIMIZER, settings=jnp.array([1.0, -2.0])),
            with_settings(lambda beta: make_train_step(VAE, vj.ELBO(beta), OPTIMIZER)),
        ),
        r"beta is .*-2",
    ),
    "objective returns a scalar": (
        lambda: run(step=make_train_step(VAE, scalar, OPTIMIZER)),
        r"the objective returned an array float32\[\]; expected a vj\.Loss\(per_example, terms, updates\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_one_sentence(case):
    call, message = BAD[case]
    with pytest.raises(vj.InputError, match=message) as caught:
        call()
    sentence = str(caught.value).split("\n-----")[0]  # JAX adds a note to what is raised while it traces
    assert "\n" not in sentence
    assert ". " not in sentence.replace("e.g. ", "")


@pytest.mark.parametrize(
    "value",
    [np.zeros(2), jnp.zeros(2), np.float32(1.0), {1: jnp.ones(())}, [np.int64(3)]],
    ids=lambda v: type(v).__name__,
)
def test_arrays_in_a_config_are_one_sentence(tmp_path, value):
    with pytest.raises(
        vj.InputError, match=r"^config can't be kept as JSON \(.*\); give numbers, .*array\.tolist\(\)$"
    ):
        vj.Checkpoints(tmp_path, {"scale": value})


def test_the_best_of_several_members_is_refused_before_training(tmp_path):
    store = vj.Checkpoints(tmp_path, {}, best="loss")
    traced = []

    def step(state, batch):
        traced.append(state)
        raise AssertionError("training has begun")

    with pytest.raises(vj.InputError, match="best is 'loss', but the state has 2 members, whose records are lists"):
        run(several(), step=step, store=store)
    assert not traced


@pytest.mark.parametrize("folder", ["/proc/vae_jax", "/dev/null/checkpoints"])
def test_a_folder_that_can_not_be_written_is_refused_before_training(folder):
    with pytest.raises(vj.InputError, match=f"cannot write to the folder {folder} .*; choose another one"):
        vj.Checkpoints(folder, {})
    with pytest.raises(vj.InputError, match=f"cannot write to the folder {folder} .*; choose another one"):
        vj.checkpoints.save(folder, VAE, fresh().variables)


def test_a_state_that_is_trained_already_gives_a_warning():
    state, _ = run(epochs=2)
    expected = (
        "nothing is trained: the state was trained for 2 epochs, and epochs=2 counts from the first, "
        "so pass epochs=4 to train 2 more"
    )
    with pytest.warns(UserWarning, match="nothing is trained") as caught:
        same, history = run(state, epochs=2)
    assert [str(warning.message) for warning in caught] == [expected]
    assert history == []
    assert int(same.step) == 4
    _, history = run(state, epochs=4)
    assert [record["epoch"] for record in history] == [3, 4]


def test_a_complete_run_that_a_store_resumes_gives_no_warning(tmp_path):
    first, history = run(epochs=2, store=vj.Checkpoints(tmp_path, {}))
    again, same_history = run(epochs=2, store=vj.Checkpoints(tmp_path, {}))
    assert same_history == history
    assert int(again.step) == int(first.step)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(run(epochs=1, store=vj.Checkpoints(tmp_path, {}))[1]) == 2


def test_a_state_of_another_batch_size_gives_a_warning(tmp_path):
    state, _ = run(epochs=3, batch_size=32)  # one step an epoch
    for store in (vj.NoCheckpoints(), vj.Checkpoints(tmp_path, {})):
        with pytest.warns(
            UserWarning, match=r"was trained for 3 steps, which are 1 epoch of 2 steps and 1 more.*replace\("
        ):
            _, history = run(state, epochs=2, batch_size=16, store=store)
        assert [record["epoch"] for record in history] == [2]


def broken_at(step, what):
    """An objective whose loss is NaN at a step, or a learning rate that is NaN."""

    def objective(key, model, variables, batch, now):
        loss = vj.ELBO()(key, model, variables, batch, now)
        return loss._replace(per_example=loss.per_example + jnp.where(now == step, jnp.nan, 0.0))

    return (objective, OPTIMIZER) if what == "loss" else (vj.ELBO(), optax.sgd(jnp.nan))


@pytest.mark.parametrize(
    ("step", "what", "message"),
    [
        (0, "loss", "^step 1: the loss is not finite, .* it is the first step, so the learning rate is not the cause"),
        (1, "loss", "^step 2: the loss is not finite, so training stopped before it; try a smaller learning rate"),
        (
            0,
            "rate",
            "^step 2: the kl, log_px_z and loss are not finite, .*; the parameters are not finite before .*NaN",
        ),
    ],
)
def test_a_step_that_is_not_finite_says_what_is_known(step, what, message):
    objective, optimizer = broken_at(step, what)
    with pytest.raises(vj.NotFiniteError, match=message):
        run(init(key(), VAE, optimizer), make_train_step(VAE, objective, optimizer))
    states = init_members(jax.random.split(key(), 2), VAE, optimizer)
    message = message.replace("step 1:", "step 1 of members 0 and 1:").replace("step 2:", "step 2 of members 0 and 1:")
    with pytest.raises(vj.NotFiniteError, match=message):
        run(states, make_train_step(VAE, objective, optimizer))


def test_the_checks_pass_traced_arguments():
    states = jax.jit(jax.vmap(lambda key: init(key, VAE, OPTIMIZER)))(jax.random.split(key(), 3))
    chosen = jax.jit(member)(states, 1)
    np.testing.assert_array_equal(jax.random.key_data(chosen.key), jax.random.key_data(states.key)[1])
    step = jax.jit(jax.vmap(STEP, in_axes=(0, None)))
    assert step(states, vj.Batch(jnp.zeros((4, 6, 6, 1))))[1]["loss"].shape == (3,)
    assert optax.MultiSteps(OPTIMIZER, 2).init  # an optimizer that is no GradientTransformation
    init(key(), VAE, optax.MultiSteps(OPTIMIZER, 2))
