"""The step, the compiled chunk and `fit`: same bits however they are cut up, mapped or spread over devices."""

from dataclasses import dataclass, replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import drawn, small_split

import vae_jax as vj
from vae_jax.data.transforms import Scale
from vae_jax.distributions import example_keys
from vae_jax.objectives import Loss
from vae_jax.training.feeding import Resident
from vae_jax.training.loop import run_chunk
from vae_jax.training.sharding import ONE_DEVICE

VAE = vj.mlp_vae((6, 6, 1), latent_dim=2, hidden=(16, 8))
OPTIMIZER = optax.adam(1e-2)
PLAIN = optax.sgd(0.5)  # unlike Adam's, its step shows a gradient that is wrong by a factor
STEP = vj.make_train_step(VAE, vj.ELBO(), OPTIMIZER)
JITTED = jax.jit(STEP)
PLAIN_STEP = vj.make_train_step(VAE, vj.ELBO(), PLAIN)
PLAIN_JITTED = jax.jit(PLAIN_STEP)
DATA = small_split()


@partial(jax.jit, static_argnames=("model", "optimizer"))
def init(key, model=VAE, optimizer=OPTIMIZER):
    return vj.init(key, model, optimizer)


def fresh(seed=0, optimizer=OPTIMIZER):
    return init(jax.random.key(seed), optimizer=optimizer)


@cache
def jitted_step(model, objective):
    return jax.jit(vj.make_train_step(model, objective, PLAIN))


def batch(count=16, seed=9):
    return vj.Batch(jnp.asarray(np.float32(np.random.default_rng(seed).uniform(size=(count, 6, 6, 1)))))


def chunk(state, count, step=STEP, transform=Scale(), batch_size=16):
    state = jax.tree.map(jnp.copy, state)
    feed = Resident(jnp.asarray(DATA.images), jnp.asarray(DATA.labels), len(DATA))
    settings = {"step": step, "transform": transform, "batch_size": batch_size, "layout": ONE_DEVICE, "length": None}
    return run_chunk(state, feed, count, **settings)[:2]  # the program of `fit`


def leaves(state):
    return [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in jax.tree.leaves(state)
    ]


def assert_same(one, other):
    for a, b in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(one, other, rtol=1e-4, atol=1e-5):  # of float32 sums in another order, after Adam
    for a, b in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def test_a_chunk_traces_its_step_and_the_optimizer_once():
    traced = []

    def objective(*arguments):
        traced.append("objective")
        return vj.ELBO()(*arguments)

    def update(*arguments):
        traced.append("optimizer")
        return PLAIN.update(*arguments)

    step = vj.make_train_step(VAE, objective, optax.GradientTransformation(PLAIN.init, update))
    chunk(fresh(optimizer=PLAIN), 1, step)
    assert traced == ["objective", "optimizer"]


def test_loss_is_the_negative_elbo_of_the_batch():
    state = fresh()
    after, metrics = JITTED(state, batch())
    np.testing.assert_allclose(metrics["loss"], metrics["kl"] - metrics["log_px_z"], rtol=1e-6)
    assert int(after.step) == 1
    pairs = zip(jax.tree.leaves(state.variables), jax.tree.leaves(after.variables), strict=True)
    assert not any(np.array_equal(a, b) for a, b in pairs)


def test_the_key_of_a_run_is_not_the_key_of_its_variables():
    state = fresh()
    variables_key, run_key = jax.random.split(jax.random.key(0))
    assert_same(state.variables, jax.jit(VAE.init)(variables_key))
    assert_same(state.key, run_key)


def test_changed_batch_statistics_are_kept():
    vae, objective = normalised(None)
    state = init(jax.random.key(0), vae, PLAIN)
    after, _ = jitted_step(vae, objective)(state, batch(32, seed=3))
    pairs = zip(*(jax.tree.leaves(s.variables["batch_stats"]) for s in (state, after)), strict=True)
    assert not any(np.array_equal(a, b) for a, b in pairs)


def test_each_step_draws_new_noise():
    state = fresh()
    losses = [JITTED(replace(state, step=jnp.int32(step)), batch())[1]["loss"] for step in range(3)]
    assert len({float(loss) for loss in losses}) == 3


def test_beta_weighs_the_kl():
    state = fresh()
    metrics = jax.jit(vj.make_train_step(VAE, vj.ELBO(beta=4.0), OPTIMIZER))(state, batch())[1]
    np.testing.assert_allclose(metrics["loss"], 4 * metrics["kl"] - metrics["log_px_z"], rtol=1e-6)


def test_a_chunk_is_a_python_loop_over_the_step():
    state = fresh()
    together, totals = chunk(state, 6)
    order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(state.key, 1), 0), len(DATA))
    losses = []
    for rows in np.split(np.asarray(order), 6):
        state, metrics = JITTED(state, vj.Batch(jnp.asarray(DATA.images[rows] / np.float32(255))))
        losses.append(metrics["loss"])
    assert_close(together, state)
    np.testing.assert_allclose(totals["loss"], sum(losses), rtol=1e-6)
    assert int(totals["finite"]) == 6


def test_however_a_run_is_cut_into_chunks_its_bits_are_the_same():
    whole, _ = chunk(fresh(), 6)
    cut = fresh()
    for count in (1, 3, 2):
        cut, _ = chunk(cut, count)
    assert_same(whole, cut)


@dataclass(frozen=True)
class Mean:
    """An objective that learns nothing and reports the mean pixel and its square."""

    def __call__(self, key, model, variables, batch, step):
        zero = 0 * sum(leaf.sum() for leaf in jax.tree.leaves(variables["params"]))
        pixel = batch.x.mean(axis=(1, 2, 3))
        return Loss(pixel + zero, {"square": pixel**2}, {})


def test_an_epoch_sees_every_image_once():
    step = vj.make_train_step(VAE, Mean(), OPTIMIZER)
    pixels = DATA.images.mean(axis=(1, 2, 3)) / 255
    orders = []
    for epoch in range(2):
        _, totals = chunk(replace(fresh(), step=jnp.int32(6 * epoch)), 6, step=step)
        np.testing.assert_allclose(totals["loss"] / 6, pixels.mean(), rtol=1e-5)
        np.testing.assert_allclose(totals["square"] / 6, (pixels**2).mean(), rtol=1e-5)
        first, _ = chunk(replace(fresh(), step=jnp.int32(6 * epoch)), 1, step=step)
        orders.append(float(chunk(replace(first, step=jnp.int32(6 * epoch)), 1, step=step)[1]["loss"]))
    assert orders[0] != orders[1], "both epochs begin with the same batch"


@dataclass(frozen=True)
class Counting(Scale):
    """Counts how often it is traced."""

    traces = []  # noqa: RUF012

    def __call__(self, keys, images, labels=None):
        self.traces.append(images.shape)
        return super().__call__(keys, images, labels)


def test_one_compilation_serves_a_whole_run():
    step = vj.make_train_step(VAE, vj.ELBO(), OPTIMIZER)
    before = run_chunk._cache_size()
    state, _ = vj.fit(fresh(), step, DATA, transform=Counting(), epochs=5, batch_size=16, progress=False)
    traces, compiled = len(Counting.traces), run_chunk._cache_size()
    # At most, because the cache may lose the entries of functions that earlier tests have left as garbage.
    assert compiled <= before + 1
    vj.fit(state, step, DATA, transform=Counting(), epochs=9, batch_size=16, progress=False)
    assert len(Counting.traces) == traces, "a resumed run was traced anew"
    assert run_chunk._cache_size() <= compiled, "a resumed run was compiled anew"


def fit(state, epochs, step=STEP, **settings):
    return vj.fit(state, step, DATA, epochs=epochs, batch_size=16, progress=False, **settings)


def test_same_seed_same_bits_and_another_seed_others():
    assert_same(fit(fresh(), 2)[0], fit(fresh(), 2)[0])
    one, other = fit(fresh(), 1)[1], fit(fresh(seed=1), 1)[1]
    assert one[0]["loss"] != other[0]["loss"]


def test_a_run_in_two_parts_ends_with_the_same_bits():
    whole, history = fit(fresh(), 4)
    half, first = fit(fresh(), 2)
    resumed, second = fit(half, 4)
    assert_same(whole, resumed)
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    np.testing.assert_allclose([r["loss"] for r in history], [r["loss"] for r in first + second], rtol=1e-6)


def test_fit_learns_and_leaves_its_argument_alone():
    state = fresh()
    _, history = fit(state, 30, eval_fn=lambda state: {"steps": float(state.step)})
    assert history[-1]["loss"] < history[0]["loss"] - 2
    assert history[-1]["steps"] == 180
    assert np.isfinite(leaves(state)[0]).all(), "the state given to fit was donated"


def test_a_measured_state_may_be_kept():
    kept = []

    def eval_fn(state):
        kept.append(state)
        return {}

    state, _ = fit(fresh(), 2, eval_fn=eval_fn)
    assert [int(state.step) for state in kept] == [6, 12]
    assert_same(kept[1], state)


@jax.jit
def binarized(key, images):
    return vj.Batch(vj.Binarize()(example_keys(key, len(images)), images).x)


def test_fit_is_a_python_loop_over_epochs_and_batches():
    """Each step observes with keys of its own, from another stream than its noise."""
    together, history = fit(fresh(), 2, transform=vj.Binarize())
    state = fresh()
    order, observation = (jax.random.fold_in(state.key, stream) for stream in (1, 2))  # 0 is the noise of the step
    losses = []
    for epoch in range(2):
        permutation = np.asarray(jax.random.permutation(jax.random.fold_in(order, epoch), len(DATA)))
        for number in range(6):
            images = jnp.asarray(DATA.images[permutation[16 * number : 16 * number + 16]])
            state, metrics = JITTED(state, binarized(jax.random.fold_in(observation, 6 * epoch + number), images))
            losses.append(float(metrics["loss"]))
    assert_close(together, state)
    means = np.mean(np.reshape(losses, (2, 6)), axis=1)
    np.testing.assert_allclose([record["loss"] for record in history], means, rtol=1e-5)


def test_the_step_follows_the_gradient_of_the_mean():
    state = fresh(optimizer=PLAIN)
    keys = example_keys(jax.random.fold_in(jax.random.fold_in(state.key, 0), 0), 16)

    def loss(params):
        return vj.ELBO()(keys, VAE, {"params": params}, batch(), jnp.int32(0)).per_example.mean()

    params = state.variables["params"]
    expected = jax.tree.map(lambda p, g: np.asarray(p) - 0.5 * np.asarray(g), params, jax.jit(jax.grad(loss))(params))
    after, _ = PLAIN_JITTED(state, batch())
    assert_close(after.variables["params"], expected)


def test_vmapped_step_is_the_steps_one_by_one():
    keys = jax.random.split(jax.random.key(5), 3)
    states = jax.jit(jax.vmap(lambda key: vj.init(key, VAE, PLAIN)))(keys)
    together, metrics = jax.jit(jax.vmap(PLAIN_STEP, in_axes=(0, None)))(states, batch())
    for member, key in enumerate(keys):
        alone, alone_metrics = PLAIN_JITTED(init(key, optimizer=PLAIN), batch())
        assert_close([np.asarray(leaf)[member] for leaf in leaves(together)], leaves(alone))
        np.testing.assert_allclose(np.asarray(metrics["loss"])[member], alone_metrics["loss"], rtol=1e-6)


def test_vmap_carries_an_axis_of_betas():
    betas, state = np.float32([0.0, 1.0, 4.0]), fresh()

    def loss(beta):
        return vj.make_train_step(VAE, vj.ELBO(beta), OPTIMIZER)(state, batch())[1]["loss"]

    expected = list(map(jax.jit(loss), betas))
    np.testing.assert_allclose(jax.jit(jax.vmap(loss))(betas), expected, rtol=1e-6)


@pytest.mark.parametrize("padding", [0.9, np.nan])
def test_pmapped_step_is_one_device_on_the_whole_batch(padding):
    assert jax.device_count() == 8
    mask = np.float32(np.arange(32) < 27)  # the last device has padding only
    x = np.where(mask.reshape(32, 1, 1, 1), batch(32).x, np.float32(padding))
    whole = vj.Batch(jnp.asarray(x), mask=jnp.asarray(mask))
    step = vj.make_train_step(VAE, vj.ELBO(), PLAIN, axis_name="devices")
    together, metrics = jax.pmap(step, axis_name="devices", in_axes=(None, 0))(
        fresh(optimizer=PLAIN), of_devices(whole)
    )
    alone, alone_metrics = PLAIN_JITTED(fresh(optimizer=PLAIN), whole)
    for device in (0, 7):
        assert_close([np.asarray(leaf)[device] for leaf in leaves(together.variables)], leaves(alone.variables))
        for name, value in alone_metrics.items():
            np.testing.assert_allclose(np.asarray(metrics[name])[device], value, rtol=1e-5)


def of_devices(batch):
    """A batch of 32 for 8 devices."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.reshape(leaf, (8, 4, *leaf.shape[1:]))), batch)


def test_sharded_step_is_one_device_on_the_whole_batch():
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    spread = jax.device_put(batch(32), sharding)
    together, _ = PLAIN_JITTED(fresh(optimizer=PLAIN), spread)
    alone, _ = PLAIN_JITTED(fresh(optimizer=PLAIN), batch(32))
    assert_close(together, alone)


def test_noise_of_a_device_is_its_part_of_the_whole_noise():
    key = jax.random.key(0)
    whole = jax.random.key_data(example_keys(key, 8))
    part = jax.random.key_data(example_keys(key, 4, first=4))
    np.testing.assert_array_equal(whole[4:], part)


@pytest.mark.parametrize("padding", [0.9, np.nan])
def test_masked_examples_have_no_influence(padding):
    padded = batch(16)
    mask = np.float32(np.arange(16) < 10)
    x = jnp.asarray(np.where(mask.reshape(16, 1, 1, 1), padded.x, np.float32(padding)))
    padded = replace(padded, x=x, mask=jnp.asarray(mask))
    with_padding, metrics = PLAIN_JITTED(fresh(optimizer=PLAIN), padded)
    without, expected = PLAIN_JITTED(fresh(optimizer=PLAIN), vj.Batch(jnp.asarray(np.asarray(x)[:10])))
    assert_close(with_padding, without)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-6)


@dataclass(frozen=True)
class BreaksAt:
    """The negative ELBO until `step`; there its value or its gradient is not finite."""

    step: int
    where: str

    def __call__(self, key, model, variables, batch, step):
        loss = vj.ELBO()(key, model, variables, batch, step)
        if self.where == "kl":
            broken = jnp.where(step == self.step, jnp.nan, 0.0)
            return loss._replace(
                per_example=loss.per_example + broken, terms=loss.terms | {"kl": loss.terms["kl"] + broken}
            )
        weight = variables["params"]["decoder"]["Dense_0"]["bias"][0]
        square = jnp.where(step == self.step, 0.0, 1.0) * (weight**2 + 1.0)
        return loss._replace(per_example=loss.per_example + jnp.sqrt(square))  # the gradient of sqrt at 0 is no number


@pytest.mark.parametrize("where", ["kl", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run_at_the_last_good_state(where):
    step = vj.make_train_step(VAE, BreaksAt(8, where), OPTIMIZER)
    with pytest.raises(
        vj.NotFiniteError, match=f"^step 9: the .*{where}.* not finite.*smaller learning rate"
    ) as caught:
        vj.fit(fresh(), step, DATA, epochs=3, batch_size=16, progress=False)
    state = caught.value.state
    assert int(state.step) == 8
    good, _ = fit(fresh(), 1, step=step)
    good, _ = chunk(good, 2, step=step)
    assert_same(state, good)


def test_the_record_of_an_epoch_after_a_step_that_is_not_finite_has_all_of_its_steps(tmp_path):
    def numbered(broken):
        def objective(key, model, variables, batch, step):
            loss = vj.ELBO()(key, model, variables, batch, step)
            per_example = jnp.where(step == broken, jnp.nan, loss.per_example)
            return loss._replace(per_example=per_example, terms={"number": jnp.full(16, step, jnp.float32)})

        return vj.make_train_step(VAE, objective, OPTIMIZER)

    store = partial(vj.Checkpoints, tmp_path, {})
    with pytest.raises(vj.NotFiniteError, match=r"^step 11"):
        vj.fit(fresh(), numbered(10), DATA, epochs=2, batch_size=16, store=store(), progress=False)
    _, history = vj.fit(
        fresh(), numbered(-1), DATA, epochs=2, batch_size=16, store=store(allow=("objective",)), progress=False
    )
    assert [record["number"] for record in history] == [2.5, 8.5]  # of the steps 0 to 5, and 6 to 11


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": -3}, "epochs is -3"),
        ({"epochs": 1, "batch_size": 0}, "batch_size is 0"),
        ({"epochs": 1, "batch_size": 97}, "batch_size is 97 but there are only 96"),
    ],
)
def test_fit_refuses_what_makes_no_run(settings, message):
    with pytest.raises(vj.InputError, match=message):
        vj.fit(fresh(), STEP, DATA, progress=False, **settings)


def test_warm_up_then_cosine():
    rate = vj.warm_up_then_cosine(0.1, steps=100, warm_up=0.1)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(55), rate(100)], [0, 0.05, 0.1, 0.05, 0], atol=1e-7)
    rate = vj.warm_up_then_cosine(0.1, steps=10, warm_up=0.96)  # one step of decay is left
    np.testing.assert_allclose([rate(9), rate(10)], [0.1, 0], atol=1e-7)
    with pytest.raises(vj.InputError, match="peak"):
        vj.warm_up_then_cosine(0.0, steps=10)
    with pytest.raises(vj.InputError, match="warm_up"):
        vj.warm_up_then_cosine(0.1, steps=10, warm_up=1.0)


@dataclass(frozen=True)
class Misnamed:
    def __call__(self, key, model, variables, batch, step):
        loss = vj.ELBO()(key, model, variables, batch, step)
        return loss._replace(terms={"seconds": loss.per_example})


def test_a_term_may_not_take_a_records_own_name():
    with pytest.raises(vj.InputError, match="a term named seconds"):
        jax.eval_shape(vj.make_train_step(VAE, Misnamed(), OPTIMIZER), fresh(), batch())


def normalised(axis_name):
    return vj.batch_norm_vae((6, 6, 1), latent_dim=3, hidden=(8,), axis_name=axis_name), vj.ELBO()


def optimal_with_free_bits(axis_name):
    likelihood = vj.OptimalGaussian(axis_name=axis_name)
    objective = vj.ELBO(free_bits=0.3, axis_name=axis_name)
    return vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), likelihood=likelihood), objective


@pytest.mark.parametrize("make", [normalised, optimal_with_free_bits])
def test_what_is_taken_over_the_batch_is_taken_over_the_whole_batch_under_pmap(make):
    (model, objective), (spread_model, spread_objective) = make(None), make("devices")
    whole = batch(32, seed=3)
    state = init(jax.random.key(0), model, PLAIN)
    alone, _ = jitted_step(model, objective)(state, whole)
    step = vj.make_train_step(spread_model, spread_objective, PLAIN, axis_name="devices")
    together, _ = jax.pmap(step, axis_name="devices", in_axes=(None, 0))(state, of_devices(whole))
    for device in (0, 7):
        here = [np.asarray(leaf)[device] for leaf in leaves(together.variables)]
        assert_close(here, leaves(alone.variables), rtol=1e-3, atol=1e-4)


def test_a_conditional_model_trains_by_its_labels():
    vae = vj.mlp_vae((6, 6, 1), latent_dim=2, hidden=(16,), classes=3)
    step = vj.make_train_step(vae, vj.ELBO(), OPTIMIZER)
    state, _ = vj.fit(init(jax.random.key(0), vae), step, DATA, epochs=40, batch_size=16, progress=False)
    means = vj.decode_all(vae, state.variables, np.zeros((3, 2), np.float32), np.arange(3))
    rows = means[..., 0].mean(axis=2).reshape(3, 3, 2).mean(axis=2)  # each class has its own two bright rows
    np.testing.assert_array_equal(rows.argmax(axis=1), [0, 1, 2])


@pytest.mark.parametrize(
    ("vae", "data", "transform", "message"),
    [
        (vj.mlp_vae((6, 6, 1), 2, (4,)), small_split(), vj.Scale(-1.0, 1.0), "likelihood takes values from 0 to 1"),
        (vj.mlp_vae((6, 6, 1), 2, (4,), classes=2), small_split(), vj.Scale(), "labels run from 0 to 2"),
        (vj.mlp_vae((6, 6, 1), 2, (4,), classes=3), vj.Split(small_split().images), vj.Scale(), "no labels"),
        (vj.mlp_vae((6, 6, 1), 2, (4,)), small_split(size=5), vj.Scale(), r"shape \(5, 5, 1\)"),
    ],
)
def test_data_that_the_model_does_not_take_are_refused_before_anything_is_compiled(vae, data, transform, message):
    optimizer = optax.adam(1e-3)

    def uncompiled(*arguments):
        raise AssertionError("a step was traced")

    step = vj.make_train_step(vae, uncompiled, optimizer)
    settings = {"transform": transform, "epochs": 1, "batch_size": 16, "progress": False}
    variables = drawn(vae.init, jax.random.key(0))
    with pytest.raises(vj.InputError, match=message):
        vj.fit(vj.init(jax.random.key(0), vae, optimizer, variables=variables), step, data, **settings)
    make = jax.vmap(lambda key, beta: vj.init(key, vae, optimizer, beta, variables=variables))
    members = jax.jit(make)(jax.random.split(jax.random.key(0)), np.float32([0.5, 1.0]))
    of_settings = vj.with_settings(lambda beta: vj.make_train_step(vae, uncompiled, optimizer))
    with pytest.raises(vj.InputError, match=message):
        vj.fit(members, of_settings, data, **settings)


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, vj.averaged])
def test_an_optimizer_that_needs_the_loss_is_given_it(wrap):
    """The rate is reduced after a step whose loss is no better, as with a rate of 0."""
    optimizer = wrap(optax.chain(optax.sgd(0.0), optax.contrib.reduce_on_plateau(0.5, patience=1)))
    state = init(jax.random.key(0), optimizer=optimizer)
    step = jax.jit(vj.make_train_step(VAE, vj.Reconstruction(), optimizer))
    scales, losses = [], []
    for _ in range(4):
        state, metrics = step(state, batch())
        scales.append(float(optax.tree.get(state.opt_state, "scale")))
        losses.append(float(metrics["loss"]))
    assert float(optax.tree.get(state.opt_state, "best_value")) == pytest.approx(min(losses))
    assert scales[-1] < 1


def test_batch_statistics_keep_their_type_with_a_float64_batch():
    vae = vj.batch_norm_vae((6, 6, 1), latent_dim=2, hidden=(3,))
    step = vj.make_train_step(vae, vj.ELBO(), PLAIN)
    single = init(jax.random.key(0), vae, PLAIN)
    with jax.enable_x64(True):
        state, _ = jax.jit(step)(single, vj.Batch(jnp.asarray(batch().x, jnp.float64)))
    dtypes = (jax.tree.map(lambda leaf: leaf.dtype, of.variables) for of in (single, state))
    assert jax.tree.leaves(next(dtypes)) == jax.tree.leaves(next(dtypes))
