"""The colourisation script: its formulas against scikit-image and closed forms, and a tiny run end to end."""

import io
import json
import tracemalloc
import zipfile
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import colourisation as script
import jax
import numpy as np
import pytest
import skimage.color
from colourisation import Config, main
from conftest import drawn, small_split, write_idx
from harness.options import CheckpointOptions, DataOptions, TrainingOptions
from PIL import Image

import vae_jax as vj


def faces(count, side=64, seed=0):
    """Images of two halves of random colours."""
    generator = np.random.default_rng(seed)
    halves = generator.integers(0, 256, (count, 1, 2, 3)).astype(np.uint8)
    return halves.repeat(side, axis=1).repeat(side // 2, axis=2)


def write_celeba(folder, images):
    """CelebA's layout, of which the last twelfth are the test images."""
    folder.mkdir()
    names = [f"{number:06d}.png" for number in range(len(images))]
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for name, image in zip(names, images, strict=True):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            archive.writestr(name, png.getvalue())
    rows = [f"{name} {2 * (i % 2) - 1}" for i, name in enumerate(names)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(images)), "Male", *rows]) + "\n")
    first = len(images) - len(images) // 6
    parts = [f"{name} {(i >= first) + (i >= first + len(images) // 12)}" for i, name in enumerate(names)]
    (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return folder


def config(data_dir, out, **changes):
    return Config(
        out=out,
        data=DataOptions(data_dir=data_dir, **changes.pop("data", {})),
        training=TrainingOptions(epochs=1, batch_size=20),
        **({"width": 4, "latent_dim": 2, "hidden": (8,), "size": 8, "draws": 4} | changes),
    )


def test_end_to_end(tmp_path, capsys, titles, monkeypatch):
    data = write_celeba(tmp_path / "celeba", faces(96))
    report = main(config(data, tmp_path / "out", checkpoints=CheckpointOptions(checkpoint_dir=tmp_path / "kept")))
    written = json.loads((tmp_path / "out" / "colourisation.json").read_text())
    methods = written["methods"]
    assert written["data"]["train_images"] == 80
    assert [*methods][:3] == ["mean_colour", "mean_colour_by_pixel", "nearest_neighbour"]
    assert [*methods][-3:] == ["regression", "prior_mean", "draw"]
    printed = capsys.readouterr().out
    reference = methods["mean_colour_by_pixel"]["error"]["mean"]
    for name, numbers in methods.items():
        assert numbers["error_ratio"]["mean"] == pytest.approx(numbers["error"]["mean"] / reference)
        assert numbers["error"]["standard_error"] > 0
        assert f"{name}: error {numbers['error']['mean']:.3f} +- {numbers['error']['standard_error']:.3f}" in printed
    assert 0 < methods["draw"]["diversity"]["mean"] < np.inf
    assert methods["draw"]["error_of_best"]["mean"] < methods["draw"]["error"]["mean"]
    assert titles.keys() == {"photographs", "decoded"}
    assert all("CelebA, seed 0" in title for title in titles.values())
    monkeypatch.setattr(script, "save_pictures", lambda *given: None)  # as before
    again = main(config(data, tmp_path / "out", checkpoints=CheckpointOptions(checkpoint_dir=tmp_path / "kept")))
    assert again.numbers == report.numbers, "trained again instead of resumed"


def test_the_models_learn_colours_that_follow_from_the_lightness(tmp_path, monkeypatch):
    """Dark halves are red and bright ones blue: regression and prior mean beat the mean colour."""
    monkeypatch.setattr(script, "save_pictures", lambda *given: None)
    bright = np.random.default_rng(0).random((600, 1, 2, 1)) < 0.5
    two = np.where(bright, np.uint8([150, 170, 255]), np.uint8([120, 20, 10]))
    data = write_celeba(tmp_path / "celeba", two.repeat(64, axis=1).repeat(32, axis=2))
    options = config(data, tmp_path / "out", width=8)
    methods = main(replace(options, training=TrainingOptions(epochs=4, batch_size=50))).numbers["methods"]
    assert methods["regression"]["error_ratio"]["mean"] < 0.5
    assert methods["prior_mean"]["error_ratio"]["mean"] < 0.5
    assert methods["nearest_neighbour"]["error"]["mean"] < 2


def test_conversion_is_that_of_scikit_image():
    images = faces(3, side=4)
    lab = script.as_lab(images)
    np.testing.assert_allclose(lab, skimage.color.rgb2lab(images), atol=1e-3)
    np.testing.assert_allclose(script.as_rgb(lab), images / 255, atol=1e-4)
    beyond = script.as_rgb(np.array([[[[50.0, 120.0, -120.0]]]]))
    assert 0 <= beyond.min() <= beyond.max() <= 1


def test_colourfulness_in_closed_form():
    """Of Hasler and Suesstrunk: half the pixels red and half grey; one colour has no deviation."""
    image = np.zeros((2, 2, 2, 3))
    image[0, 0] = (1, 0, 0)
    image[1] = (0, 0, 1)
    half = np.hypot(255 / 2, 255 / 4)
    np.testing.assert_allclose(script.colourfulness(image), [half + 0.3 * half, 0.3 * 255], rtol=1e-6)


def test_reduced_images():
    lab = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    images = script.reduced(lab, 4)
    assert images.shape == (2, 4, 4, 2 + 6)
    block = lab[1, 2:4, 9:12]  # the second row and the last column of blocks
    np.testing.assert_allclose(images[1, 1, 3, :2], block[..., 1:].mean(axis=(0, 1)) / script.UNIT, rtol=1e-5)
    np.testing.assert_allclose(images[1, 1, 3, 2:], (block[..., 0].ravel() - 50) / script.UNIT, rtol=1e-5)


def test_enlarged_keeps_constant_colours_and_units():
    colours = np.broadcast_to(np.float32([1, -2]), (1, 4, 4, 2))
    np.testing.assert_allclose(script.enlarged(colours, (1, 8, 8, 3)), np.tile([25.0, -50.0], (1, 8, 8, 1)))


def test_distances():
    lab = np.zeros((2, 3, 3, 3))
    lab[..., 1:] = 1, 1
    off = np.zeros((2, 3, 3, 2))
    off[0] = 4, 5
    off[1] = 1, 1
    np.testing.assert_allclose(script.errors([off], lab), [5, 0])
    np.testing.assert_allclose(script.errors([off, lab[..., 1:]], lab), [2.5, 0])
    of_draws = script.diversity([off, lab[..., 1:], lab[..., 1:]], lab)
    assert of_draws["diversity"]["mean"] == pytest.approx((5 + 5 + 0) / 3 / 2)
    assert of_draws["error_of_best"]["mean"] == 0


def test_neighbours_are_nearest_in_lightness():
    generator = np.random.default_rng(0)
    known, lab = generator.normal(size=(20, 2, 2, 3)), generator.normal(size=(5, 2, 2, 3))
    for one, colours in zip(lab, script.of_neighbours(known, lab, 3), strict=True):
        order = np.argsort([np.linalg.norm(one[..., 0] - other[..., 0]) for other in known])[:3]
        np.testing.assert_allclose(colours, known[order, ..., 1:].mean(axis=0))


@pytest.mark.parametrize("mirror", [False, True])
def test_neighbours_of_blocks_are_those_of_all_pairs(mirror, monkeypatch):
    generator = np.random.default_rng(0)
    known, lab = generator.normal(size=(60, 3, 4, 3)), generator.normal(size=(25, 3, 4, 3))
    monkeypatch.setattr(script, "BLOCK", 7)
    found = script.of_neighbours(known, lab, 10, mirror=mirror)
    every = np.concatenate([known, known[:, :, ::-1]]) if mirror else known
    distances = np.linalg.norm((lab[:, None, ..., 0] - every[None, ..., 0]).reshape(25, len(every), -1), axis=-1)
    expected = [every[rows, ..., 1:].mean(axis=0) for rows in np.argsort(distances, axis=1)[:, :10]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_memory_of_neighbours_is_not_that_of_all_pairs():
    generator = np.random.default_rng(0)
    known, lab = (generator.normal(size=(count, 2, 2, 3)).astype(np.float32) for count in (20_000, 500))
    tracemalloc.start()
    try:
        script.of_neighbours(known, lab, 3, mirror=True)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 500 * 20_000 * 4 / 2  # half of one distance of each pair


def test_baselines_are_of_the_training_images_and_their_mirror_images():
    known = script.as_lab(faces(64, side=4))
    found = script.baselines(known, np.concatenate([known[:5], known[5:10, :, ::-1]]))
    mean = known[..., 1:].mean(axis=0)
    np.testing.assert_allclose(found["mean_colour_by_pixel"][3], (mean + mean[:, ::-1]) / 2, rtol=1e-4)
    np.testing.assert_allclose(found["mean_colour"][2, 1, 1], known[..., 1:].mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(found["nearest_neighbour"][:5], known[:5, ..., 1:])
    np.testing.assert_allclose(found["nearest_neighbour"][5:], known[5:10, :, ::-1, 1:])


def test_the_number_of_neighbours_is_chosen_without_mirror_images(monkeypatch):
    """Of 32 faces, the last 4 are left out for 1, 3 and 10 neighbours; then there are all with the mirror images."""
    known = script.as_lab(faces(32, side=4))
    seen = []

    def of_neighbours(train_lab, lab, count, **settings):
        seen.append((len(train_lab), settings.get("mirror", False)))
        return original(train_lab, lab, count, **settings)

    original = script.of_neighbours
    monkeypatch.setattr(script, "of_neighbours", of_neighbours)
    script.baselines(known, known[:3])
    assert seen == [(28, False), (28, False), (28, False), (32, True), (32, True)]


def test_two_training_images_are_enough_for_the_baselines():
    known = script.as_lab(faces(2, side=4))
    found = script.baselines(known, known)
    np.testing.assert_array_equal(found["nearest_neighbour"], known[..., 1:])


def test_the_baselines_are_computed_before_training(tmp_path, monkeypatch):
    def stop(*given):
        raise RuntimeError("stopped")

    monkeypatch.setattr(script, "baselines", stop)
    monkeypatch.setattr("vae_jax.training.loop.run_chunk", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(RuntimeError, match="stopped"):
        main(config(write_celeba(tmp_path / "celeba", faces(24)), tmp_path / "out"))


def test_the_regression_sees_no_colours_and_the_vae_only_what_is_left_over():
    images = np.random.default_rng(0).normal(size=(6, 8, 8, 18)).astype(np.float32)
    batch = script.Chroma()(jax.random.split(jax.random.key(0), 6), images)
    np.testing.assert_array_equal(batch.condition, images[..., 2:])
    np.testing.assert_array_equal(np.asarray(batch.observed), np.arange(18) < 2 + np.zeros((6, 8, 8, 1)))
    unet = script.UNet(4, (8, 8, 18))
    model = vj.VAE(
        script.NoEncoder(),
        unet,
        (8, 8, 18),
        1,
        posterior=vj.Delta,
        likelihood=vj.Gaussian(),
        condition_shape=(8, 8, 16),
    )
    variables = model.init(jax.random.key(1))
    regression = script.Trained(model, variables, [])
    other = np.concatenate([images[..., :2] + 1, images[..., 2:]], axis=-1)
    rest, shifted = script.residuals(regression, images), script.residuals(regression, other)
    np.testing.assert_allclose(shifted - rest, np.broadcast_to([1, 1, 0, 0, 0], rest.shape), atol=1e-5)
    np.testing.assert_allclose(rest[..., :2] + rest[..., 2:4], images[..., :2], atol=1e-5)
    np.testing.assert_allclose(rest[..., 4], images[..., 2:].mean(axis=-1), atol=1e-5)


def test_the_regression_has_dropout_in_training_alone():
    class Recorded:
        data = SimpleNamespace(event_shape=(8, 8, 18))

        def train(self, key, model, objective, **given):
            return model

    model = script.train_regression(jax.random.key(0), Recorded(), Config(width=2, dropout=0.25))
    assert isinstance(model.likelihood, vj.Laplace)
    params = {"params": drawn(model.init, jax.random.key(1))["params"]["decoder"]}
    grey = np.random.default_rng(0).normal(size=(4, 8, 8, 16)).astype(np.float32)

    @partial(jax.jit, static_argnums=1)
    def colours(number, train, unet=model.decoder):
        rngs = {"dropout": jax.random.key(number)}
        return unet.apply(params, np.zeros((4, 1)), train=train, condition=grey, rngs=rngs)

    assert np.abs(colours(2, True) - colours(3, True)).max() > 1e-3
    np.testing.assert_array_equal(colours(2, False), colours(3, False))
    assert model.decoder.dropout == 0.25


def test_decoded_lightness_is_a_projection():
    generator = np.random.default_rng(0)
    basis = generator.normal(size=(3, 16))
    lightness = (50 + 3 * generator.normal(size=(40, 3)) @ basis).reshape(40, 4, 4, 1)
    lab = script.coloured(lightness.clip(0, 100), np.zeros((40, 4, 4, 2)))
    np.testing.assert_allclose(script.decoded_lightness(lab, lab[:5]), lab[:5, ..., :1], atol=0.1)
    assert script.decoded_lightness(lab[:2], lab[:5]).shape == (5, 4, 4, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"hidden": (8, 0)}, r"hidden\[1\] is 0"),
        ({"draws": 2}, "draws is 2; expected 3 or more"),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0 or more, and less than 1"),
        ({"dropout": -0.1}, "dropout is -0.1; expected 0 or more"),
        ({"size": 0}, "size is 0"),
        ({"size": 6}, "size is 6 for images of 64 x 64 pixels"),
        ({"size": 24}, "size is 24 for images"),
    ],
)
def test_refuses_options(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr("vae_jax.training.loop.run_chunk", lambda *args, **kwargs: pytest.fail("training began"))
    data = write_celeba(tmp_path / "celeba", faces(24))
    with pytest.raises(vj.InputError, match=message):
        main(config(data, tmp_path / "out", **changes))


def test_refuses_images_without_colour(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_jax.training.loop.run_chunk", lambda *args, **kwargs: pytest.fail("training began"))
    grey = faces(24)[..., :1].repeat(3, axis=-1)
    with pytest.raises(vj.InputError, match=r"\(64, 64, 3\), have no colour; expected red, green and blue"):
        main(config(write_celeba(tmp_path / "celeba", grey), tmp_path / "out"))
    digits = write_idx(tmp_path / "digits", small_split(40), small_split(20, seed=1))
    with pytest.raises(vj.InputError, match=r"\(6, 6, 1\), have no colour"):
        main(config(digits, tmp_path / "out", data={"dataset": "mnist"}))
