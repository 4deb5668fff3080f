"""The script that trains a wavelet ladder VAE on CIFAR-10 within a number of minutes: a tiny run, and bad input."""

from dataclasses import replace

import cifar_deep
import harness.budget as budget
import numpy as np
import pytest
from cifar_deep import Config, main
from conftest import write_cifar
from harness.options import DataOptions, TrainingOptions

import vae_jax as vj


def smooth(count, seed):
    """Colour images of 4 x 4 squares."""
    squares = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return vj.Split(squares.repeat(4, axis=1).repeat(4, axis=2), np.arange(count, dtype=np.int32) % 10)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Two scales of 40 images."""
    monkeypatch.setitem(cifar_deep.PRIORS, "flow", vj.FlowPrior(vj.Coupling(1, (4,))))
    train, test = smooth(40, 0), smooth(10, 1)
    return Config(
        channels=(2, 3),
        blocks=(1, 1),
        data=DataOptions(data_dir=write_cifar(tmp_path / "data", train, test)),
        training=TrainingOptions(epochs=2, batch_size=16),
        out=tmp_path / "out",
    )


def test_the_report_has_the_bits_of_each_layer_and_the_pictures_its_layers(config, titles, capsys):
    numbers = main(config).numbers
    assert list(numbers["latents"].values()) == [8 * 8 * 3, 8 * 8 * 3, 8 * 8 * 6, 16 * 16 * 3, 16 * 16 * 6]
    assert sum(numbers["latents"].values()) == 32 * 32 * 3
    bits = numbers["test_bits_per_dim_by_epoch"]
    assert len(bits) == 2
    layers = numbers["bits_per_dim_by_layer"]
    assert list(layers) == ["z1", "z2", "z3", "z4", "z5", "pixels"]
    assert sum(layers.values()) == pytest.approx(numbers["test_bits_per_dim"], rel=0.01)  # the layers have other noise
    assert bits[-1] == pytest.approx(numbers["test_bits_per_dim"], rel=0.01)
    assert f"{numbers['test_bits_per_dim']:.3f} +- " in capsys.readouterr().out
    assert "z1 fixed within a row" in titles["layers"]
    assert "z1, z2, z3 fixed within a row" in titles["layers"]
    assert "temperature 0.8" in titles["samples"]
    assert "bits per dimension of test images" in titles["minutes"]
    parts = {path.stem.removeprefix("cifar_deep_") for path in config.out.iterdir()}
    assert parts == {"samples", "layers", "minutes", "cifar_deep"}


def test_minutes_set_the_epochs_on_cifar_alone(config, monkeypatch):
    lengths = []

    def epochs_within(minutes, run, model, transform):
        assert transform == vj.Mirrored(vj.Scale())  # that of training
        return round(minutes * 10)

    monkeypatch.setattr(budget, "epochs_within", epochs_within)
    monkeypatch.setattr(cifar_deep.Run, "train", lambda run, *_, **__: lengths.append(run.epochs))
    without = replace(config, training=TrainingOptions(batch_size=16))
    held_out = replace(without, data=replace(config.data, hold_out=8))
    for options in (without, replace(without, minutes=0.4), replace(config, minutes=0.4), held_out):
        with pytest.raises(AttributeError):  # of the None that the training returned
            main(options)
    assert lengths == [600, 4, 2, 600]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 0.0}, "minutes is 0"),
        ({"components": 0}, "components is 0"),
        ({"channels": (2, 3, 4, 5, 6, 7), "blocks": (1,) * 6}, "cannot be halved 6 times"),
        ({"channels": (2,)}, r"channels is \(2,\) and blocks is \(1, 1\); expected "),
    ],
)
def test_bad_options_are_refused_before_training(config, monkeypatch, options, message):
    monkeypatch.setattr(vj, "fit", None)  # any training would fail
    with pytest.raises(vj.InputError, match=message):
        main(replace(config, **options))
