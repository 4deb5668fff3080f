"""Streamed images train as resident ones do, to the same bits, and no more than two windows of them are there."""

import gc
import os
import subprocess
import sys
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import DATA, STEP, assert_same, fit, fresh, fresh_members, losses

import vae_jax as vj
from vae_jax.data.transforms import Scale
from vae_jax.training import feeding, loop
from vae_jax.training.feeding import Resident, StreamingFeeder
from vae_jax.training.loop import run_chunk
from vae_jax.training.sharding import ONE_DEVICE, Layout

BATCH_BYTES = 16 * 6 * 6

USUAL_CODE = bool(os.environ["TESTS_OF_USUAL_CODE"])
in_usual_code = pytest.mark.skipif(not USUAL_CODE, reason="run by test_in_the_code_that_xla_compiles_by_default")
"""The code that XLA compiles without fusion emitters depends on where images come from, in the last bit."""


@pytest.mark.skipif(USUAL_CODE, reason="all are")
def test_in_the_code_that_xla_compiles_by_default():
    # Without the options of pyproject.toml, which check the types of the whole library.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", __file__]
    environment = os.environ | {"TESTS_OF_USUAL_CODE": "yes", "XLA_FLAGS": ""}
    ended = subprocess.run(
        [*command, "-k", "resident_one or middle_of"], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout
    assert "4 passed" in ended.stdout


@pytest.fixture(autouse=True)
def _windows_of_four_steps(monkeypatch):
    """Of an epoch's 6: the second window has 2."""
    monkeypatch.setattr(feeding, "WINDOW_BYTES", 4 * BATCH_BYTES)


@pytest.mark.parametrize("length", [1, 4, 6])
def test_windows_hold_the_batches_of_each_epoch_in_its_order(monkeypatch, length):
    monkeypatch.setattr(feeding, "WINDOW_BYTES", {1: 1, 4: 4 * BATCH_BYTES, 6: 2**30}[length])
    key = fresh().key
    feeder = StreamingFeeder(DATA, 16, ONE_DEVICE, key)
    keys = [jax.random.fold_in(jax.random.fold_in(key, 1), epoch) for epoch in range(2)]
    rows = [np.asarray(jax.random.permutation(key, len(DATA))) for key in keys]
    for step in range(12):
        epoch, place = divmod(step, 6)
        window, end = feeder.at(step)
        assert end == 6 * epoch + min(place // length * length + length, 6)
        batch = rows[epoch][16 * place : 16 * place + 16]
        np.testing.assert_array_equal(window.images[step - int(window.first)], DATA.images[batch])
        np.testing.assert_array_equal(window.labels[step - int(window.first)], DATA.labels[batch])
        assert window.images.shape == (length, 16, 6, 6, 1)


@in_usual_code
@pytest.mark.parametrize("devices", [None, 8])
def test_a_streamed_run_is_a_resident_one(devices):
    mesh = devices and vj.device_mesh(devices)
    state, history = fit(fresh(), 3, mesh=mesh, stream_above=0)
    resident, expected = fit(fresh(), 3, mesh=mesh)
    assert_same(state, resident)
    np.testing.assert_allclose(losses(history), losses(expected), rtol=1e-6)  # sums over other chunks


@in_usual_code
def test_streamed_members_are_resident_ones(monkeypatch):
    monkeypatch.setattr(feeding, "WINDOW_BYTES", 4 * 4 * BATCH_BYTES)
    mesh = vj.device_mesh(2)
    state, history = fit(fresh_members(4), 2, mesh=mesh, stream_above=0)
    resident, expected = fit(fresh_members(4), 2, mesh=mesh)
    assert_same(state, resident)
    np.testing.assert_allclose(losses(history), losses(expected), rtol=1e-6)


@in_usual_code
def test_a_run_goes_on_from_the_middle_of_a_window():
    feed = Resident(jnp.asarray(DATA.images), jnp.asarray(DATA.labels), len(DATA))
    midway, *_ = run_chunk(fresh(), feed, 3, step=STEP, transform=Scale(), batch_size=16)
    assert int(midway.step) == 3
    with pytest.warns(UserWarning, match="resumes within an epoch"):
        resumed, _ = fit(midway, 2, stream_above=0)
    assert_same(resumed, fit(fresh(), 2)[0])


@pytest.mark.parametrize(
    ("devices", "members", "half_of_memory"),
    [
        (1, 0, 3600),
        (2, 0, 1800),  # each device has half of the images
        (2, 4, 3600),  # each has all of them
    ],
)
def test_images_stream_from_the_first_byte_above_the_threshold(monkeypatch, devices, members, half_of_memory):
    assert DATA.images.nbytes == 3600
    keys = fresh_members(members).key if members else fresh().key
    layout = Layout(vj.device_mesh(devices))

    def streams(stream_above, memory):
        monkeypatch.setattr(loop, "device_memory", lambda: memory)
        return isinstance(loop._feeder(DATA, 16, layout, keys, stream_above), StreamingFeeder)

    assert not streams(None, 2 * half_of_memory)
    assert streams(None, 2 * half_of_memory - 2)
    assert not streams(3600, 0)
    assert streams(3599, 10_000)


def test_there_are_never_three_windows(monkeypatch):
    made, others = [], []
    make = StreamingFeeder._window
    gc.freeze()  # what other tests have left, which takes seconds in each collection

    def recorded(feeder, first):
        gc.collect()  # tracing leaves cycles that hold the window of the first call
        others.append(sum(window() is not None for window in made))
        window = make(feeder, first)
        made.append(weakref.ref(window))
        return window

    monkeypatch.setattr(StreamingFeeder, "_window", recorded)
    fit(fresh(), 4, stream_above=0)
    assert len(others) >= 8
    assert max(others) == 1


def test_what_fails_while_a_window_is_read_fails_the_run(monkeypatch):
    read = feeding._orders

    def order(keys, epoch, count):
        if epoch == 1:
            raise OSError("the disk is gone")
        return read(keys, epoch, count)

    monkeypatch.setattr(feeding, "_orders", order)
    with pytest.raises(OSError, match="the disk is gone"):
        fit(fresh(), 3, stream_above=0)
    fit(fresh(), 1, stream_above=0)  # that of the epoch after the last is nobody's concern
