"""Figures are drawn from arrays, with what they must say on them."""

import numpy as np
import pytest

import vae_jax as vj
from vae_jax.evaluation.latents import inscribed_lattice
from vae_jax.plotting import tile

ENCODINGS = np.random.default_rng(0).normal(size=(200, 2))
LABELS = np.arange(200) % 10
SPHERE = vj.latents.circle(ENCODINGS)


def test_tiles_keep_rows_and_columns():
    images = np.arange(5.0)[:, None, None, None] * np.ones((1, 2, 3, 1))
    sheet = tile(images, columns=3)
    assert sheet.shape == (4, 9, 1)
    np.testing.assert_array_equal(sheet[::2, ::3, 0], [[0, 1, 2], [3, 4, 0]])


@pytest.mark.parametrize("labels", [LABELS, None])
@pytest.mark.parametrize("lattice", [inscribed_lattice(SPHERE, 5), None])
def test_encodings_with_circle_and_lattice(labels, lattice, tmp_path):
    figure = vj.plot.encodings(ENCODINGS, labels, SPHERE, "title", lattice)
    figure.savefig(tmp_path / "figure.png")
    (axes,) = figure.axes
    (circle,) = axes.patches
    assert circle.radius == SPHERE.radius
    points = axes.collections[0].get_offsets()
    np.testing.assert_allclose(points, ENCODINGS)
    assert len(axes.collections) == (1 if lattice is None else 2)
    low, high = axes.get_xlim()
    assert low < circle.center[0] - circle.radius < circle.center[0] + circle.radius < high
    assert len(figure.legends) == (0 if labels is None else 1)


@pytest.mark.parametrize(("distance", "written"), [(0.0, 0), (3.0, 10)])
def test_numbers_of_classes_are_written_unless_the_classes_are_mixed(distance, written):
    apart = ENCODINGS + distance * np.stack([LABELS % 5, LABELS // 5], axis=1)
    figure = vj.plot.encodings(apart, LABELS, vj.latents.circle(apart), "title")
    (axes,) = figure.axes
    assert len(axes.texts) == written
    for text in axes.texts:
        centre = np.median(apart[int(text.get_text()) == LABELS], axis=0)
        np.testing.assert_allclose(text.get_position(), centre)


def test_images_are_shown_at_full_range(tmp_path):
    figure = vj.plot.images(np.random.default_rng(0).random((9, 4, 4, 1)), 3, "title")
    figure.savefig(tmp_path / "figure.png")
    (picture,) = figure.axes[0].images
    assert picture.get_array().shape == (12, 12)
    assert picture.get_clim() == (0, 1)


@pytest.mark.parametrize("epochs", [1, 30])
def test_curves_name_their_models(epochs, tmp_path):
    curve = list(np.linspace(200, 130, epochs))
    figure = vj.plot.training_curves({"A": (curve, curve), "B": (curve, curve)}, "nats", "title")
    figure.savefig(tmp_path / "figure.png")
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert [name.split(",")[0] for name in names] == ["A", "A", "B", "B"]


def test_sheets_clouds_and_paths(tmp_path):
    images = np.random.default_rng(0).random((6, 4, 4, 1))
    sheets = vj.plot.sheets([(name, images) for name in "ABC"], 3, 2, "title")
    sheets.savefig(tmp_path / "figure.png")
    assert [axes.get_title() for axes in sheets.axes] == ["A", "B", "C", ""]
    clouds = vj.plot.clouds({"A": ENCODINGS, "B": ENCODINGS + 1}, LABELS, "title")
    clouds.savefig(tmp_path / "figure.png")
    assert [axes.get_title() for axes in clouds.axes] == ["A", "B"]
    paths = np.stack([ENCODINGS[:5], ENCODINGS[5:10]])
    figure = vj.plot.paths({"A": (ENCODINGS, paths)}, LABELS, "title")
    figure.savefig(tmp_path / "figure.png")
    np.testing.assert_allclose([line.get_xydata() for line in figure.axes[0].lines], paths)


def test_plots_of_numbers(tmp_path):
    curve = vj.plot.curves({"A": [3.0, 2.0, 1.0]}, "nats", "title", {"peer": (2, 2.5)})
    curve.savefig(tmp_path / "figure.png")
    assert [line.get_xydata().tolist() for line in curve.axes[0].lines] == [[[1, 3], [2, 2], [3, 1]], [[2, 2.5]]]


def test_a_notebook_shows_a_figure_without_pyplot():
    picture = vj.plot.images(np.zeros((4, 3, 3, 1)), 2, "title")._repr_png_()
    assert picture.startswith(b"\x89PNG")
