"""The harness: what a run trains and measures, several seeds, and which options are refused."""

import errno
import json
import re
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import small_split, write_idx
from harness.options import CheckpointOptions, DataOptions, DeviceOptions, Options, TrainingOptions
from harness.recipe import averaged_adamw, elbo_numbers, kl_warm_up
from harness.report import save_picture
from harness.run import Run
from harness.script import run_seeds
from matplotlib.figure import Figure
from PIL import Image

import vae_jax as vj
import vae_jax.checkpoints.numbered

STEPS_OR_SMOKE = Run.steps_or_smoke  # before each test replaces it

VAE = vj.mlp_vae((6, 6, 1), hidden=(8,))
GROUPS = {
    "data": DataOptions,
    "training": TrainingOptions,
    "checkpoints": CheckpointOptions,
    "devices": DeviceOptions,
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_idx(tmp_path_factory.mktemp("data"), small_split(96), small_split(40, seed=1))


def options(out, **flat):
    """Options by their names on the command line."""
    groups = {
        name: kind(
            **{key: flat.pop(key) for key in list(flat) if key in kind.__dataclass_fields__ and key not in GROUPS}
        )
        for name, kind in GROUPS.items()
    }
    return Options(out=Path(out), **(groups | flat))


def start(data_dir, out, **flat):
    return Run.start("any", options(out, data_dir=data_dir, **({"epochs": 2, "batch_size": 16} | flat)))


def test_the_averaged_parameters_are_evaluated_and_returned(data_dir, tmp_path, monkeypatch):
    states = []

    def fit(*args, **settings):
        state, history = original(*args, **settings)
        states.append(state)
        return state, history

    original = vj.fit
    monkeypatch.setattr("harness.run.vj.fit", fit)
    run = start(data_dir, tmp_path, learning_rate=0.1)
    trained = run.train(jax.random.key(0), VAE, vj.ELBO())
    (last,) = states
    _, eval_key = jax.random.split(jax.random.key(0))
    evaluated = partial(elbo_numbers, eval_key, VAE, data=run.data.test, transform=vj.Scale(), split="test")
    averaged = vj.averaged_variables(last)
    for ours, expected in zip(jax.tree.leaves(trained.variables), jax.tree.leaves(averaged), strict=True):
        np.testing.assert_array_equal(ours, expected)
    numbers = evaluated(variables=averaged)
    assert {name: trained.history[-1][name] for name in numbers} == pytest.approx(numbers, rel=1e-6)
    assert numbers["test_negative_elbo"] != pytest.approx(evaluated(variables=last.variables)["test_negative_elbo"])


@pytest.mark.parametrize("transforms", [(vj.Scale(-1.0, 1.0), vj.Scale()), (vj.Scale(), vj.Scale(-1.0, 1.0))])
def test_neither_transform_may_leave_the_range_of_the_likelihood(transforms, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.run.vj.fit", pytest.fail)
    run = start(data_dir, tmp_path)
    with pytest.raises(vj.InputError, match="likelihood takes values from 0 to 1"):
        run.train(jax.random.key(0), VAE, vj.ELBO(), transform=transforms[0], train_transform=transforms[1])


@pytest.mark.parametrize(
    ("flat", "native", "epochs"), [({}, "mnist", 3), ({"hold_out": 16}, "mnist", 3), ({}, "other", 10)]
)
def test_a_part_of_the_native_data_is_trained_for_its_epochs(flat, native, epochs, data_dir, tmp_path):
    given = options(tmp_path, dataset="mnist", data_dir=data_dir, batch_size=10, **flat)
    run = Run.start("any", given, native=native, epochs=3, small=0, stand_in_steps=90)
    assert run.epochs == epochs
    assert run.is_native == (native == "mnist")


def test_the_schedule_ends_with_the_run_and_the_transform_of_training_is_for_training_alone(
    data_dir, tmp_path, monkeypatch
):
    found = []

    def optimizer(peak, weight_decay, steps):
        found.append(steps)
        return averaged_adamw(peak, weight_decay, steps)

    def untrained(state, step, data, *, transform, eval_fn, **settings):
        found.append(transform)
        return state, [eval_fn(state)]

    monkeypatch.setattr("harness.run.averaged_adamw", optimizer)
    monkeypatch.setattr("harness.run.vj.fit", untrained)
    run = start(data_dir, tmp_path, epochs=3, batch_size=20)
    mirrored, plain = (
        run.train(jax.random.key(0), VAE, vj.ELBO(), train_transform=transform).history
        for transform in (vj.Mirrored(), None)
    )
    assert found == [12, vj.Mirrored(), 12, vj.Scale()]
    assert mirrored == plain


def test_the_weight_of_the_kl_rises_in_a_share_of_the_steps():
    weight = kl_warm_up(0.15, 90)  # 13 steps
    assert [float(weight(step)) for step in (0, 6, 13, 90)] == pytest.approx([0, 6 / 13, 1, 1])
    assert float(kl_warm_up(1e-3, 90)(1)) == 1


def main(given):
    run = Run.start("any", given)
    trained = run.train(run.key, VAE, vj.ELBO())
    numbers = {"last": trained.history[-1]["test_negative_elbo"], "history": trained.history}
    kernel = trained.variables["params"]["encoder"]["Dense_0"]["kernel"]
    return run.report(numbers | {"mean_weight": float(np.mean(kernel))})


def test_members_are_the_runs_of_consecutive_seeds(data_dir, tmp_path, capsys):
    def report(out, **flat):
        run_seeds(main, options(tmp_path / out, data_dir=data_dir, epochs=2, batch_size=16, **flat))
        return json.loads((tmp_path / out / "any.json").read_text())

    kept = tmp_path / "kept"
    both = report("both", seed=3, members=2, checkpoint_dir=kept)
    alone = report("alone", seed=4)
    assert both["seeds"] == [3, 4]
    assert both["of_members"][1]["last"] == alone["last"] != both["of_members"][0]["last"]
    assert both["of_members"][1]["mean_weight"] == alone["mean_weight"]
    assert json.loads((tmp_path / "both/seed_4/any.json").read_text())["last"] == alone["last"]
    lasts = [member["last"] for member in both["of_members"]]
    assert both["last"] == {
        "mean": pytest.approx(np.mean(lasts)),
        "standard_deviation": pytest.approx(np.std(lasts, ddof=1)),
    }
    assert (both["dataset"], both["batch_size"]) == ("mnist", 16)
    printed = capsys.readouterr().out
    assert "mean and standard deviation of 2 seeds from 3" in printed
    assert f"last: {both['last']['mean']:.4g} +- {both['last']['standard_deviation']:.2g}" in printed
    again = report("again", seed=3, members=2, checkpoint_dir=kept)
    assert again["of_members"] == both["of_members"], "trained anew"
    vae, variables = vj.restore_model(kept / "seed_4" / "VAE")
    assert float(np.mean(variables["params"]["encoder"]["Dense_0"]["kernel"])) == alone["mean_weight"]
    assert vae.latent_dim == 2


@pytest.mark.filterwarnings("ignore:checkpoint .* can't be written:vae_jax.CheckpointWarning")
@pytest.mark.parametrize("members", [1, 3])
def test_seeds_whose_last_state_cannot_be_saved_are_run_and_named(members, data_dir, tmp_path, monkeypatch):
    def fail(folder):
        if "seed_1" not in str(folder):
            raise OSError(errno.ENOSPC, "No space left on device")
        seal(folder)

    seal = vae_jax.checkpoints.numbered._seal_files
    monkeypatch.setattr("vae_jax.checkpoints.numbered._seal_files", fail)
    kept = tmp_path / "kept"
    given = options(tmp_path, data_dir=data_dir, epochs=1, batch_size=16, members=members, checkpoint_dir=kept)
    with pytest.raises(vj.CheckpointError) as error:
        run_seeds(main, given)
    folders = ["VAE"] if members == 1 else ["seed_0/VAE", "seed_2/VAE"]
    assert re.findall(f"be written to {kept}/(\\S+) ", str(error.value)) == folders
    assert (tmp_path / "any.json").exists()
    if members > 1:
        assert len(json.loads((tmp_path / "any.json").read_text())["of_members"]) == members
        assert {path.name for path in (kept / "seed_1" / "VAE").iterdir()} == {".lock", "6"}


def test_what_is_trained_once_is_kept_by_its_settings(data_dir, tmp_path):
    trained = []

    def train():
        trained.append(1)
        return VAE.init(jax.random.key(7))

    def found(**changes):
        settings = {"steps": 3} | changes
        return start(data_dir, tmp_path, checkpoint_dir=tmp_path / "kept").kept("other", VAE.init, train, **settings)

    first, second = found(), found()
    assert len(trained) == 1
    jax.tree.map(np.testing.assert_array_equal, first, second)
    with pytest.raises(vj.InputError, match=r"other holds checkpoints of another run .*steps is 3 there and 4 here"):
        found(steps=4)
    start(data_dir, tmp_path).kept("other", VAE.init, train, steps=4)  # without a folder
    assert len(trained) == 2
    again = vj.Checkpoints(tmp_path / "kept" / "other", {})
    again.open()
    with pytest.raises(vj.InputError, match="other is in use"):
        found()
    again.close()


def test_a_smoke_run_has_few_steps_of_what_is_trained_beside_the_models(data_dir, tmp_path):
    assert STEPS_OR_SMOKE(start(data_dir, tmp_path), 3_000) == 3_000
    assert STEPS_OR_SMOKE(start(data_dir, tmp_path, smoke=True), 3_000) == 50


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"members": 0}, "members is 0"),
        ({"devices": DeviceOptions(devices=9)}, "devices is 9, but there are only 8 cpu devices"),
        ({"devices": DeviceOptions(devices=3), "batch_size": 16}, "batch_size is 16, which 3 devices can't share"),
        ({"coordinator": "nowhere"}, "coordinator is 'nowhere'; expected HOST:PORT"),
        ({"coordinator": "here:1", "num_processes": 2}, "a coordinator requires num_processes and process_id"),
        ({"coordinator": "here:1", "num_processes": 2, "process_id": 2}, "process_id is 2; expected 0 to 1"),
        ({"process_id": 1}, "num_processes is None and process_id is 1, but there is no coordinator"),
        ({"num_processes": 2}, "num_processes is 2 and process_id is None, but there is no coordinator"),
    ],
)
def test_options_that_can_not_be_shared_are_refused_before_training(flat, message, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("vae_jax.training.loop.run_chunk", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(vj.InputError) as error:
        run_seeds(main, options(tmp_path / "out", data_dir=data_dir, epochs=1, **flat))
    assert message in str(error.value)


def save_image(path, image):
    """Save a figure that is filled by an image of 390 x 390 pixels."""
    figure = Figure(figsize=(3, 3))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image)
    axes.set_axis_off()
    save_picture(path, figure)


def test_photographs_are_saved_as_jpeg_and_plots_as_png(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.report.DPI", 130)
    columns, rows = np.meshgrid(*2 * [np.linspace(0, 1, 390)])
    photograph = np.stack([columns, rows, columns * rows], axis=-1)
    save_image(tmp_path / "any", photograph)
    with Image.open(tmp_path / "any.jpg") as picture:
        assert picture.getcolors(maxcolors=2**14) is None
        centre = np.asarray(picture.resize((39, 39), Image.Resampling.BOX))[2:-2, 2:-2] / 255
    expected = photograph.reshape(39, 10, 39, 10, 3).mean(axis=(1, 3))[2:-2, 2:-2]
    assert np.abs(centre - expected).max() < 0.03
    save_image(tmp_path / "noise", np.random.default_rng(0).uniform(size=(390, 390, 3)))
    (tmp_path / "noise.jpg").unlink()
    save_image(tmp_path / "any", columns > 0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["any.png"], "the picture of an earlier run is removed"
    with Image.open(tmp_path / "any.png") as picture:
        assert picture.mode == "P"
    save_image(tmp_path / "any", photograph)
    assert [path.name for path in tmp_path.iterdir()] == ["any.jpg"]


def test_greys_are_saved_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.report.DPI", 130)
    greys = np.random.default_rng(0).permutation(39**2).astype(np.uint8).reshape(39, 39, 1)
    save_image(tmp_path / "any", greys.repeat(10, axis=0).repeat(10, axis=1).repeat(3, axis=2))
    with Image.open(tmp_path / "any.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.unique(picture), np.arange(256))
