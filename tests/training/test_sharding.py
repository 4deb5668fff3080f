"""One run on any number of devices: the same numbers, whatever each device holds of the data and of the state."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import (
    DATA,
    OPTIMIZER,
    STEP,
    VAE,
    assert_close,
    assert_same,
    fit,
    fresh,
    fresh_members,
    in_float64,
    losses,
)

import vae_jax as vj
from vae_jax.data.transforms import Scale
from vae_jax.training.feeding import ResidentFeeder
from vae_jax.training.loop import run_chunk
from vae_jax.training.sharding import ONE_DEVICE, Layout


@pytest.fixture(scope="module")
def alone():
    with jax.enable_x64(True):
        return fit(in_float64(fresh()), 2)


@pytest.mark.parametrize(("devices", "shard_optimizer"), [(1, False), (2, False), (4, True), (8, False)])
def test_a_run_is_the_same_on_any_number_of_devices(alone, devices, shard_optimizer):
    with jax.enable_x64(True):
        mesh = vj.device_mesh(devices)
        state, history = fit(in_float64(fresh()), 2, mesh=mesh, shard_optimizer=shard_optimizer)
        assert losses(history).dtype == jax.tree.leaves(state.variables)[0].dtype == np.float64
        np.testing.assert_allclose(losses(history), losses(alone[1]), rtol=1e-10)
        assert_close(state, alone[0], rtol=1e-10, atol=1e-13)
        before, after, _ = chunk(in_float64(fresh()), 0, Layout(mesh, shard_optimizer))
        assert after == before, "the second chunk needs another program than the first"


class Padded(Scale):
    """Every third image, by its bytes, is padding."""

    def __call__(self, keys, images, labels=None):
        batch = super().__call__(keys, images, labels)
        return replace(batch, mask=images.sum((1, 2, 3)) % 3 > 0)


def test_masks_enter_batch_norm_optimal_variance_and_free_bits_alike_on_devices_that_share_a_batch():
    vae = replace(VAE, likelihood=vj.OptimalGaussian())
    step = vj.make_train_step(vae, vj.ELBO(free_bits=0.3), OPTIMIZER)
    with jax.enable_x64(True):
        state = in_float64(vj.init(jax.random.key(0), vae, OPTIMIZER))
        one, history = fit(state, 2, step=step, transform=Padded())
        four, shared = fit(state, 2, step=step, transform=Padded(), mesh=vj.device_mesh(4), stream_above=0)
        np.testing.assert_allclose(losses(shared), losses(history), rtol=1e-10)
        assert_close(four, one, rtol=1e-10, atol=1e-13)


def chunk(state, count, layout):
    """Where the leaves of a state are before a chunk and after, and what the chunk returns."""
    placed = layout.place(state)
    before = [leaf.sharding for leaf in jax.tree.leaves(placed)]
    feed, _ = ResidentFeeder(DATA, 16, layout, members=False).at(0)
    settings = {"step": STEP, "transform": Scale(), "batch_size": 16, "layout": layout, "length": None}
    state, metrics, _ = run_chunk(placed, feed, count, **settings)  # the program of `fit`
    return before, [leaf.sharding for leaf in jax.tree.leaves(state)], layout.fetch((state, metrics))


def test_a_step_of_eight_devices_is_that_of_one_up_to_rounding():
    (state, metrics), (expected_state, expected) = (
        chunk(fresh(), 1, Layout(mesh))[2] for mesh in (vj.device_mesh(8), None)
    )
    assert_close(metrics, expected, rtol=1e-6, atol=0)
    # A gradient is a sum of 16 that are up to 100 times as large; a hundredth of it is added to weights of about 0.1.
    assert_close(state.variables, expected_state.variables, rtol=1e-6, atol=3e-7)


def test_a_mesh_of_any_shape_is_its_devices_in_a_row():
    mesh = jax.make_mesh((2, 4), ("data", "model"))
    assert Layout(mesh) == Layout(vj.device_mesh(8))
    row, rectangle = fit(fresh(), 1, mesh=vj.device_mesh()), fit(fresh(), 1, mesh=mesh)
    assert_same(row[0], rectangle[0])
    assert losses(row[1]) == losses(rectangle[1])


def test_each_device_keeps_its_part_of_the_optimizers_state():
    state = fresh()
    placed = Layout(vj.device_mesh(4), shard_optimizer=True).place(state)
    for tree, share in ((placed.opt_state, 4), (placed.variables, 1)):
        for leaf in jax.tree.leaves(tree):  # of this model, each has an axis that 4 devices can share
            assert leaf.addressable_shards[0].data.size * share == leaf.size
    assert_same(placed, state)
    weights = placed.opt_state[0].trace["encoder"]["Dense_0"]["kernel"]
    assert weights.shape == (39, 8)
    assert weights.addressable_shards[0].data.shape == (39, 2)
    weights = placed.opt_state[0].trace["decoder"]["Dense_1"]["kernel"]
    assert weights.shape == (8, 36)
    assert weights.addressable_shards[0].data.shape == (8, 9), "split along the longest axis"


def test_take_is_indexing():
    layout = Layout(vj.device_mesh(8))
    rows = jnp.array([99, 0, 13, 12, 13, 50, 51, 52, 25, 26, 90, 77, 7, 8, 64, 39])
    feed, _ = ResidentFeeder(DATA, 16, layout, members=False).at(0)
    assert feed.images.addressable_shards[0].data.shape == (13, 6, 6, 1)  # 8 * 13 = 104
    take = jax.jit(layout.take)
    for spread, whole in ((feed.images, DATA.images), (feed.labels, DATA.labels)):
        taken = take(spread, rows)
        assert taken.dtype == whole.dtype
        assert taken.addressable_shards[0].data.shape == (2, *whole.shape[1:])
        np.testing.assert_array_equal(taken, whole[np.asarray(rows)])
        np.testing.assert_array_equal(ONE_DEVICE.take(jnp.asarray(whole), rows), whole[np.asarray(rows)])


@pytest.mark.parametrize("axis", [0, 1, None])
def test_each_device_reads_its_own_part(axis):
    values = np.arange(64).reshape(8, 8).astype(np.int32)
    asked = []

    def rows(index):
        asked.append(index)
        return values[index]

    array = Layout(vj.device_mesh(4)).read((8, 8), axis, rows)
    np.testing.assert_array_equal(array, values)
    own = [slice(start, start + 2) for start in range(0, 8, 2)]
    expected = {0: [(part, slice(0, 8)) for part in own], 1: [(slice(0, 8), part) for part in own]}
    if axis is None:
        assert set(map(str, asked)) == {str((slice(0, 8), slice(0, 8)))}
    else:
        assert sorted(map(str, asked)) == sorted(map(str, expected[axis]))


def test_one_device_reads_everything():
    values = np.arange(6, dtype=np.int32)
    np.testing.assert_array_equal(Layout().read((6,), 0, values.__getitem__), values)


@pytest.mark.parametrize(
    ("counts", "devices", "message"),
    [
        ({"batch_size": 12}, 8, "batch_size is 12, which 8 devices can't share; choose 8 or 16"),
        ({"batch_size": 5}, 8, "batch_size is 5, which 8 devices can't share; choose 8"),
        ({"members": 3}, 2, "members is 3, which 2 devices can't share; choose 2 or 4"),
    ],
)
def test_what_the_devices_cannot_share_is_refused(counts, devices, message):
    with pytest.raises(vj.InputError) as caught:
        Layout(vj.device_mesh(devices)).require_divisible(**counts)
    assert str(caught.value) == message


def test_fit_refuses_what_the_devices_cannot_share():
    with pytest.raises(vj.InputError, match="batch_size is 16, which 3 devices"):
        fit(fresh(), 1, mesh=vj.device_mesh(3))
    with pytest.raises(vj.InputError, match="members is 3, which 2 devices"):
        fit(fresh_members(3), 1, mesh=vj.device_mesh(2))


def test_meshes_that_cannot_be_are_refused():
    with pytest.raises(vj.InputError, match="devices is 9, but there are only 8 cpu devices"):
        vj.device_mesh(9)
    with pytest.raises(vj.InputError, match="devices is 0"):
        vj.device_mesh(0)
    with pytest.raises(vj.InputError, match="there is no mesh to shard the optimizer's state over"):
        fit(fresh(), 1, shard_optimizer=True)
