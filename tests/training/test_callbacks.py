"""Callbacks and the schedule of evaluation: they see each record, stop a run, and change no bit of it."""

import csv
import io

import jax.numpy as jnp
import numpy as np
import pytest
from small_run import assert_same, fit, fresh, fresh_members, losses

import vae_jax as vj
from vae_jax.training import EarlyStopping


class Scripted:
    """An evaluating function with a list of values, one an epoch."""

    def __init__(self, *values):
        self.values, self.epochs = values, []

    def __call__(self, state):
        epoch = int(state.step) // 6
        self.epochs.append(epoch)
        return {"test_negative_elbo": self.values[epoch - 1]}


def test_a_callback_sees_each_record_and_changes_no_bit():
    seen = []

    def callback(record):
        seen.append(dict(record))
        record.clear()  # a copy
        return len(seen)  # not True, as of `writer.writerow`

    state, history = fit(fresh(), 2, callback=callback)
    assert seen == history
    assert_same(state, fit(fresh(), 2)[0])


def test_a_callback_that_returns_true_stops_the_run():
    for result in (True, np.bool_(True), jnp.array(True)):
        others = []
        state, history = fit(
            fresh(), 5, callback=[lambda record, r=result: r if record["epoch"] == 2 else None, others.append]
        )
        assert [record["epoch"] for record in history] == [1, 2]
        assert others == history, "all are called"
        assert_same(state, fit(fresh(), 2)[0])


def test_a_callback_sees_the_lists_of_members():
    seen = []
    fit(fresh_members(2), 1, callback=seen.append)
    assert len(seen[0]["loss"]) == 2


def test_evaluation_every_few_epochs_and_after_the_last():
    scripted = Scripted(*range(5))
    state, history = fit(fresh(), 5, eval_fn=scripted, eval_every=2)
    assert scripted.epochs == [2, 4, 5]
    assert [record.get("test_negative_elbo") for record in history] == [None, 1, None, 3, 4]
    assert_same(state, fit(fresh(), 5)[0])
    _, history = fit(fresh_members(2), 3, eval_fn=scripted, eval_every=2)
    assert ["test_negative_elbo" in record for record in history] == [False, True, True]


def test_the_best_is_chosen_among_evaluated_epochs(tmp_path):
    store = vj.Checkpoints(tmp_path, {}, best="test_negative_elbo", every_seconds=0.0)
    fit(fresh(), 5, eval_fn=Scripted(0.0, 5.0, 0.0, 3.0, 4.0), eval_every=2, store=store)
    assert [path.name for path in (tmp_path / "best").iterdir() if path.name.isdecimal()] == ["24"]


@pytest.mark.parametrize(
    ("values", "settings", "stops"),
    [
        ((3.0, 2.0, 2.0, 1.0, 1.0, 1.0), {"patience": 2}, 6),
        ((3.0, 2.0, 2.5, 2.5, 1.0, 1.0), {"patience": 2}, 4),
        ((3.0, 2.5, 2.4, 1.0, 1.0, 1.0), {"patience": 2, "min_delta": 0.6}, 3),
        ((float("nan"), 2.0, float("nan"), float("nan"), 1.0, 1.0), {"patience": 2}, 4),
        ((3.0, 2.0, 1.0, 0.0, -1.0, -2.0), {"patience": 1}, 6),
    ],
)
def test_early_stopping(values, settings, stops):
    stopping = EarlyStopping("test_negative_elbo", **settings)
    for _ in range(2):  # an object serves several runs
        state, history = fit(fresh(), 6, eval_fn=Scripted(*values), callback=stopping)
        assert len(history) == stops
        assert int(state.step) == 6 * stops


def test_early_stopping_counts_evaluated_epochs():
    values = (0.0, 2.0, 0.0, 2.0, 0.0, 2.0, 0.0, 2.0)
    _, history = fit(
        fresh(), 8, eval_fn=Scripted(*values), eval_every=2, callback=EarlyStopping("test_negative_elbo", patience=2)
    )
    assert len(history) == 6


def test_a_run_that_was_stopped_early_is_resumed_as_it_would_have_gone_on(tmp_path):
    values = (3.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0)

    def run(epochs, patience, folder=tmp_path / "kept"):
        store = vj.Checkpoints(folder, {}, every_seconds=0.0)
        stopping = EarlyStopping("test_negative_elbo", patience=patience)
        return fit(fresh(), epochs, eval_fn=Scripted(*values), callback=stopping, store=store)

    whole, history = run(8, 3)
    assert len(history) == 5
    again, same = run(8, 3)
    assert same == history, "the same call trains no further"
    assert_same(again, whole)
    interrupted = tmp_path / "interrupted"
    run(4, 3, interrupted)
    resumed, later = run(8, 3, interrupted)
    assert len(later) == 5, "patience is counted from the stored records"
    assert_same(resumed, whole)
    _, longer = run(8, 4)
    assert len(longer) == 8
    np.testing.assert_array_equal(losses(longer[:5]), losses(history))


def test_a_run_that_a_function_has_stopped_is_resumed(tmp_path):
    def run(epochs):
        store = vj.Checkpoints(tmp_path, {}, every_seconds=3600.0)
        return fit(fresh(), 5, callback=lambda record: record["epoch"] == epochs, store=store)[1]

    assert [record["epoch"] for record in run(2)] == [1, 2]
    assert [record["epoch"] for record in run(4)] == [1, 2, 3, 4]


def test_a_callback_that_fails_loses_no_checkpoint(tmp_path):
    def fail(record):
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        fit(fresh(), 2, callback=fail, store=vj.Checkpoints(tmp_path, {}, every_seconds=0.0))
    assert int(vj.Checkpoints(tmp_path, {}).restore(fresh())[0].step) == 6


def test_early_stopping_refuses_lists():
    with pytest.raises(vj.InputError, match=r"monitor is 'loss', which is \[1.0, 2.0\] in the record"):
        EarlyStopping("loss")({"loss": [1.0, 2.0]})


def test_the_csv_callback_of_the_docstring():
    file = io.StringIO()
    writer = csv.DictWriter(file, ["epoch", "seconds", "loss", "kl", "log_px_z"], extrasaction="ignore")
    writer.writeheader()
    _, history = fit(fresh(), 2, callback=writer.writerow, eval_fn=lambda state: {"more": 1.0})
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [float(row["loss"]) for row in rows] == [record["loss"] for record in history]


def test_numbers_of_arrays_and_numpy_are_stored_as_plain_numbers(tmp_path):
    numbers = {"a": np.float64(0.1), "b": np.float32(0.1), "c": np.asarray(3), "d": 0.1}
    store = vj.Checkpoints(tmp_path, {}, every_seconds=0.0)
    _, history = fit(fresh(), 1, eval_fn=lambda state: numbers, store=store)
    assert {name: history[0][name] for name in numbers} == {"a": 0.1, "b": float(np.float32(0.1)), "c": 3, "d": 0.1}
    assert all(type(history[0][name]) in (int, float) for name in numbers)
