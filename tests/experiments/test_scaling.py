"""Power laws through measurements, and the script that fits them to seconds per epoch."""

import json
import math
import runpy
import statistics
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.power_law import PowerLaw, fit_power_law
from benchmarks.scaling import seconds_by_size
from PIL import Image
from test_experiments import EXPERIMENTS, refused, run

import vae_jax as vj

SIZES = (2, 4, 8, 16, 50)


@pytest.mark.parametrize("exponent", [-0.7, 0.0, 1.0, 2.5])
def test_a_power_law_is_found_again(exponent):
    law = fit_power_law(SIZES, [3.0 * size**exponent for size in SIZES])
    assert law.exponent == pytest.approx(exponent, abs=1e-12)
    assert law.factor == pytest.approx(3.0)
    assert law.standard_error == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(law([1, 10]), [3.0, 3.0 * 10**exponent])


def test_the_standard_error_is_numpys():
    costs = 0.1 * np.array(SIZES) ** 0.9 * np.exp(0.1 * np.random.default_rng(0).normal(size=len(SIZES)))
    law = fit_power_law(SIZES, costs.tolist())
    slope_and_intercept, covariance = np.polyfit(np.log(SIZES), np.log(costs), 1, cov=True)
    np.testing.assert_allclose([law.exponent, math.log(law.factor)], slope_and_intercept)
    assert law.standard_error == pytest.approx(math.sqrt(covariance[0, 0]))


def test_the_standard_error_is_the_deviation_of_many_fits():
    generator = np.random.default_rng(1)
    noise = np.exp(0.05 * generator.normal(size=(4000, len(SIZES))))
    laws = [fit_power_law(SIZES, (np.array(SIZES) * row).tolist()) for row in noise]
    found = np.std([law.exponent for law in laws])
    variance = np.mean([law.standard_error**2 for law in laws])
    assert found == pytest.approx(math.sqrt(variance), rel=6 / math.sqrt(2 * len(laws)))


def test_two_points_leave_no_standard_error():
    law = fit_power_law((1, 2), (3.0, 6.0))
    assert math.isnan(law.standard_error)
    assert str(law) == "1.00"


def test_a_law_in_words():
    assert str(PowerLaw(1.0, 0.984, 0.0234)) == "0.98 +- 0.02"
    assert str(PowerLaw(1.0, -0.0184, 0.0023)) == "-0.018 +- 0.002"


@pytest.mark.parametrize(
    ("sizes", "costs", "message"),
    [
        ((), (), "at least two"),
        ((4, 4), (1.0, 2.0), "at least two that differ"),
        ((1, 2), (1.0,), "2 sizes but 1 costs"),
        ((0, 2), (1.0, 2.0), r"sizes\[0\] is 0"),
        ((1, 2), (1.0, math.nan), r"costs\[1\] is nan"),
    ],
)
def test_what_has_no_exponent_is_refused(sizes, costs, message):
    with pytest.raises(vj.InputError, match=message):
        fit_power_law(sizes, costs)


TINY = ("--images", 32, "--batch-size", 16, "--latent-dim", 2, "--epochs", 2, "--rounds", 2, "--hidden", 4)
LISTS = {"images": (64, 32), "latent-dim": (2, 3), "batch-size": (8, 16), "members": (1, 2)}


def options_of(**lists):
    lists = LISTS | {name.replace("_", "-"): sizes for name, sizes in lists.items()}
    return [*TINY, *(option for name, sizes in lists.items() for option in (f"--vary-{name}", *sizes))]


@pytest.mark.usual_pictures
def test_scaling(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jax.device_count", lambda: 1)
    run(monkeypatch, "benchmarks/scaling", *options_of(), "--out", tmp_path)
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "scaling.json").read_text())
    assert report["options"]["vary_images"] == [64, 32]
    assert report["versions"]["jax"]
    assert "cpu" in report["device"]
    assert list(report["quantities"]) == ["images", "latent_dim", "batch_size", "members"]
    for name, numbers in report["quantities"].items():
        assert numbers["sizes"] == sorted(LISTS[name.replace("_", "-")])
        for turns, median in zip(numbers["seconds_by_turn"], numbers["seconds_per_epoch"], strict=True):
            assert [len(turn) for turn in turns] == [1, 1], "2 rounds of 2 epochs, the first left out"
            assert median == statistics.median(value for turn in turns for value in turn)
        law = fit_power_law(numbers["sizes"], numbers["seconds_per_epoch"])
        assert numbers["law"]["exponent"] == law.exponent
        assert numbers["law"]["standard_error"] == "nan"
        assert f"{numbers['name']}: seconds ~ n^{law}\n" in printed
    common = [
        numbers["seconds_per_epoch"][i] for numbers, i in zip(report["quantities"].values(), (0, 0, 1, 0), strict=True)
    ]
    assert len(set(common)) == 1, "the point that all have in common is measured once"
    with Image.open(tmp_path / "scaling.png") as picture:
        assert min(picture.size) > 300


def test_devices_vary_where_there_are_several():
    script = runpy.run_path(str(EXPERIMENTS / "benchmarks/scaling.py"), run_name="scaling")
    config = script["Config"]()
    points = script["sweeps_of"](config)["devices"]
    assert [point.devices for point in points] == [1, 2, 4, 8]
    small = [replace(point, images=4) for point in points]
    images = np.zeros((4, 28, 28, 1), np.uint8)
    meshes = [script["trainer"](point, images, replace(config, hidden=(4,))).keywords["mesh"] for point in small]
    assert meshes[0] is None
    assert [mesh.size for mesh in meshes[1:]] == [2, 4, 8]


def test_the_figure_has_a_panel_for_each_quantity(tmp_path):
    law, turns = fit_power_law((1, 2, 4), (1.0, 2.0, 4.0)), [[[0.9, 1.0], [1.2, 1.0]], [[2.0, 2.0]], [[4.0], [5.0]]]
    numbers = {"law": law, "sizes": [1, 2, 4], "seconds_by_turn": turns}
    numbers["seconds_per_epoch"] = [1.0, 2.0, 4.5]
    figure = seconds_by_size([{"name": name, **numbers} for name in "AB"], "title")
    figure.savefig(tmp_path / "figure.png")
    assert [axes.get_xlabel() for axes in figure.axes] == ["A", "B"]
    for axes in figure.axes:
        assert axes.get_title() == r"exponent $1.000 \pm 0.000$"
        line, points = axes.lines[:2]
        np.testing.assert_allclose(line.get_xydata(), [[1, 1], [2, 2], [4, 4]])
        np.testing.assert_allclose(points.get_xydata(), [[1, 1], [2, 2], [4, 4.5]])
        whiskers = np.array(axes.collections[0].get_segments())[:, :, 1]
        np.testing.assert_allclose(whiskers, [[0.9, 1.2], [2, 2], [4, 5]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (options_of(images=()), "vary_images is []; an exponent needs at least 2 sizes"),
        (options_of(members=(2,)), "vary_members is [2]; an exponent needs at least 2 sizes"),
        (options_of(latent_dim=(2, 0)), "vary_latent_dim[1] is 0"),
        (options_of(batch_size=(8, 8, 16)), "vary_batch_size is [8, 8, 16]; give each size once"),
        (options_of(batch_size=(8, 64)), "where batch_size varies, batch_size is 64 but there are only 32 images"),
        (options_of(images=(8, 32)), "where images varies, batch_size is 16 but there are only 8 images"),
        ([*options_of(), "--batch-size", 12], "batch_size is 12, which 8 devices can't share"),
        ([*options_of(), "--hidden", 4, 0], "hidden[1] is 0"),
        ([*options_of(), "--rounds", 0], "rounds is 0"),
        ([*options_of(), "--epochs", 1], "epochs is 1; the first does not count"),
        ([*options_of(), "--images", -1], "images is -1"),
        ([*options_of(), "--seed", -1], "seed is -1"),
        ([*options_of(), "--out", "/dev/null/out"], "cannot write to the folder"),
    ],
)
def test_scaling_refuses_before_any_work(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vae_jax.training.loop.run_chunk", lambda *args, **kwargs: pytest.fail("training began"))
    monkeypatch.chdir(tmp_path)
    assert message in refused(monkeypatch, capsys, "benchmarks/scaling", *options)
    assert not list(tmp_path.glob("runs/scaling/*"))
