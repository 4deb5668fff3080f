"""The script that trains a ladder VAE within a number of minutes: its budget, a tiny run, and bad input."""

import json
from dataclasses import replace

import harness.budget as budget
import harness.layers as layers
import jax
import mnist_deep
import numpy as np
import pytest
from harness.options import CheckpointOptions, DataOptions, DeviceOptions, TrainingOptions
from harness.script import run_seeds
from mnist_deep import Config, main

import vae_jax as vj


@pytest.fixture
def config(tiny, tmp_path, monkeypatch):
    """Two small layers on 96 images, two steps an epoch."""
    monkeypatch.setitem(mnist_deep.PRIORS, "flow", vj.FlowPrior(vj.Coupling(1, (4,))))
    return Config(
        latent_dims=(2, 3),
        hidden=(4,),
        samples=20,
        data=DataOptions(data_dir=tiny),
        training=TrainingOptions(batch_size=48),
        checkpoints=CheckpointOptions(tmp_path / "kept"),
        out=tmp_path / "out",
    )


@pytest.fixture
def seconds(monkeypatch):
    """An epoch of each training takes three seconds, so that a budget has the same length on every machine."""
    fit = vj.fit

    def timed(*args, **kwargs):
        state, history = fit(*args, **kwargs)
        return state, [record | {"seconds": 3.0} for record in history]

    monkeypatch.setattr(vj, "fit", timed)


def test_a_run_of_some_minutes_keeps_its_length_when_it_is_resumed(config, seconds, monkeypatch, capsys):
    config = replace(config, minutes=0.2)  # four epochs of three seconds
    report = main(config)
    assert report.shared["epochs"] == 4
    numbers = report.numbers
    assert numbers["minutes"] == pytest.approx(0.2)
    assert list(numbers["kl"]) == ["z1", "z2"]
    assert list(numbers["active_units"]) == ["z2"]  # a flow couples the latents of z1
    assert numbers["test_negative_elbo"] == numbers["test_negative_elbo_by_epoch"][-1]
    assert 1 <= numbers["effective_samples_median"] <= 20
    assert numbers["test_log_px"] + numbers["test_negative_elbo"] > -5  # the bound of 20 samples is tighter
    printed = capsys.readouterr().out
    assert "1500.0 ms a step: 4 epochs in 0.2 minutes" in printed
    assert f"-log p(x) {-numbers['test_log_px']:.2f} +- {numbers['standard_error']:.2f} nats (20 samples" in printed
    names = {f"mnist_deep_{part}.png" for part in ("samples", "layers", "minutes")} | {"mnist_deep.json"}
    assert {path.name for path in config.out.iterdir()} == names
    assert json.loads((config.out / "mnist_deep.json").read_text())["kl"] == numbers["kl"]

    monkeypatch.setattr(budget, "epochs_within", lambda *_: 7)  # a slower or faster machine
    again = main(config)
    assert again.shared["epochs"] == 4
    assert again.numbers["test_log_px"] == numbers["test_log_px"]
    with pytest.raises(vj.InputError, match=r"minutes is 0.3, but .* has a run of 0.2 minutes"):
        main(replace(config, minutes=0.3))


def test_the_epochs_of_other_steps_are_refused_by_name(config, monkeypatch):
    """A step of another batch size, data set or model takes another time."""
    monkeypatch.setattr(budget, "epochs_within", lambda *_: 4)
    monkeypatch.setattr(mnist_deep.Run, "train", lambda *_, **__: pytest.fail("training began"))
    run = mnist_deep.Run.start("mnist_deep", config, epochs=1, batch_size=250)
    model = vj.ladder_vae(run.data.event_shape, config.latent_dims, config.hidden)
    assert budget.number_of_epochs(run, model, mnist_deep.TRANSFORM, 0.2) == 4
    (file,) = config.checkpoints.checkpoint_dir.iterdir()  # and no temporary one
    assert file.name == "budget.json"
    fewer = vj.Split(run.data.train.images[:90])
    for other, wider, found in (
        (replace(run, batch_size=24), model, "batch_size is 48 there and 24 here"),
        (replace(run, data=replace(run.data, train=fewer)), model, r"data is '\w+\.\.\.' there and '\w+\.\.\.' here"),
        (run, vj.ladder_vae(run.data.event_shape, (2, 3), (5,)), r"model.*hidden is \[4\] there and \[5\] here"),
        (replace(run, name="other"), model, "experiment is 'mnist_deep' there and 'other' here"),
    ):
        with pytest.raises(vj.InputError, match=f"whose steps take another time .*{found}"):
            budget.number_of_epochs(other, wider, mnist_deep.TRANSFORM, 0.2)


def test_the_steps_are_timed_once_for_all_seeds_of_a_run(config, monkeypatch):
    lengths, measured = [], iter((4, 7, 9))
    monkeypatch.setattr(budget, "epochs_within", lambda *_: next(measured))

    def main_without_training(options):
        run = mnist_deep.Run.start("mnist_deep", options, epochs=1, batch_size=250)
        run = replace(run, epochs=budget.number_of_epochs(run, vj.ladder_vae(), mnist_deep.TRANSFORM, 0.2))
        lengths.append((options.seed, run.epochs))
        return run.report({})

    run_seeds(main_without_training, replace(config, members=3))
    assert lengths == [(0, 4), (1, 4), (2, 4)]
    assert json.loads((config.out / "mnist_deep.json").read_text())["epochs"] == 4


def test_the_default_is_minutes_on_mnist_and_steps_elsewhere(config, monkeypatch):
    lengths = []
    monkeypatch.setattr(budget, "epochs_within", lambda minutes, *_: round(minutes * 10))
    monkeypatch.setattr(mnist_deep.Run, "train", lambda run, *_, **__: lengths.append(run.epochs))
    config = replace(config, checkpoints=CheckpointOptions())
    digits = DataOptions(dataset="digits")
    for options in (
        {},
        {"minutes": 3.0},
        {"training": TrainingOptions(epochs=5, batch_size=48)},
        {"data": digits, "training": TrainingOptions()},
        {"data": digits, "minutes": 2.0},
        {"smoke": True},
        {"data": replace(config.data, hold_out=24)},
    ):
        with pytest.raises(AttributeError):  # of the None that the training returned
            main(replace(config, **options))
    assert lengths[:3] == [120, 30, 5]
    assert lengths[3] == 87  # 2,000 steps of 62 of 1,437 images
    assert lengths[4:] == [20, 1, 120]


def test_rows_share_the_latents_that_are_given(monkeypatch):
    model = vj.ladder_vae((4, 4, 1), (2, 3, 2), (4,))
    variables = model.init(jax.random.key(1))
    given = []

    def seen(*args, **kwargs):
        given.append(kwargs.get("given", {}))
        return samples(*args, **kwargs)

    samples = layers._samples
    monkeypatch.setattr(layers, "_samples", seen)
    figure = layers.samples_by_given_layers(jax.random.key(0), model, variables, "test")
    layers.samples_by_given_layers(jax.random.key(0), model, variables, "test", [2])
    assert [list(of_sheet) for of_sheet in given] == [[], ["z1"], ["z1", "z2"], [], ["z1", "z2"]]
    z1 = np.asarray(given[2]["z1"]).reshape(4, layers.PER_ROW, 2)
    np.testing.assert_array_equal(z1, np.broadcast_to(z1[:, :1], z1.shape))
    assert len(np.unique(z1[:, 0, 0])) == 4
    assert [axes.get_title() for axes in figure.axes][:2] == ["z1 fixed within a row", "z1, z2 fixed within a row"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 0.0}, "minutes is 0"),
        ({"minutes": -1.0}, "minutes is -1"),
        ({"kl_warm_up": 0.0}, "kl_warm_up is 0"),
        ({"samples": 0}, "samples is 0"),
        ({"latent_dims": ()}, r"latent_dims is \(\)"),
        ({"hidden": (0,)}, r"hidden\[0\] is 0"),
    ],
)
def test_bad_options_are_refused_before_training(config, monkeypatch, options, message):
    monkeypatch.setattr(vj, "fit", None)  # any training would fail
    with pytest.raises(vj.InputError, match=message):
        main(replace(config, **options))


def test_several_processes_are_told_to_agree_on_the_epochs(config):
    devices = DeviceOptions(coordinator="localhost:1", num_processes=1, process_id=0)
    run = mnist_deep.Run.start("mnist_deep", config, epochs=1, batch_size=250)

    def epochs(options):
        run_of_one = replace(run, options=replace(options, devices=devices))  # without a coordinator to wait for
        return budget.number_of_epochs(run_of_one, vj.ladder_vae(), mnist_deep.TRANSFORM, 1.0)

    with pytest.raises(vj.InputError, match="different numbers of epochs; expected --epochs"):
        epochs(config)
    assert epochs(replace(config, training=TrainingOptions(epochs=3, batch_size=48))) == run.epochs
