"""The scripts that compress: their baselines against closed forms, and tiny runs end to end."""

import gzip
import io
import json
from dataclasses import replace

import jax
import lossless_compression
import lossy_compression
import numpy as np
import pytest
from conftest import drawn, small_split, write_idx
from harness.options import DataOptions, TrainingOptions
from harness.run import Run
from PIL import Image

import vae_jax as vj
from vae_jax.plotting.pixels import tile

RNG = np.random.default_rng(0)


@pytest.fixture
def options(tmp_path):
    data = write_idx(tmp_path / "data", small_split(96), small_split(30, seed=1))
    training = TrainingOptions(epochs=2, batch_size=32)
    return {"out": tmp_path / "out", "data": DataOptions(data_dir=data), "training": training, "hidden": (8,)}


def test_lossless_compression(options, tmp_path, titles):
    config = lossless_compression.Config(latent_dim=2, components=1, samples=2, **options)
    kinds = lossless_compression.main(config).numbers["kinds"]
    for name, numbers in kinds.items():
        path = tmp_path / f"out/lossless_compression_{name}.vae"
        assert numbers["bytes"] == path.stat().st_size
        assert numbers["bits_per_pixel"] == 8 * numbers["bytes"] / (30 * 36)
        # The header is most of a file of 30 images.
        assert 1 < numbers["rate_over_negative_elbo"] < 1 + 8 * 800 / (30 * 36 * numbers["negative_elbo"]["mean"])
        assert numbers["negative_log_px"]["mean"] <= numbers["negative_elbo"]["mean"] + 0.1
        assert min(numbers["images_per_second"].values()) > 0
        assert set(numbers["others"]) == {"gzip", "bz2", "xz", "zstd"} | {
            f"{name}, {way}" for name in ("PNG", "WebP") for way in ("each", "mosaics")
        }
        assert all(0 < rate < 400 for rate in numbers["others"].values())
    assert json.loads((tmp_path / "out/lossless_compression.json").read_text())["kinds"].keys() == {"binary", "grey"}
    assert set(titles) == {"rates", "bits"}


def test_lossless_compression_refuses_sizes(options):
    with pytest.raises(vj.InputError, match="samples is 0"):
        lossless_compression.main(lossless_compression.Config(samples=0, **options))


def test_the_compressors_get_all_pixels():
    images = RNG.integers(0, 2, (150, 8, 8, 1), dtype=np.uint8)
    binary = lossless_compression.Kind(vj.Bernoulli(), None, None, 1)
    sizes = {name: of(images) for name, of in lossless_compression.compressors(binary).items()}
    for name in ("gzip", "bz2", "xz", "zstd"):
        assert 150 * 8 <= sizes[name] < 150 * 8 + 600  # a bit for each pixel, which are noise
    grey = RNG.integers(0, 256, (150, 8, 8, 1), dtype=np.uint8)
    kind = lossless_compression.Kind(vj.DiscretisedLogistic(), None, None, 1)
    compressors = lossless_compression.compressors(kind)
    assert compressors["gzip"](grey) == len(gzip.compress(grey.tobytes(), compresslevel=9))
    files = [lossless_compression.tile(part, 10) for part in (grey[:100], grey[100:])]
    for name, format_settings in {"PNG": {"optimize": True}}.items():
        expected = 0
        for sheet in files:
            file = io.BytesIO()
            Image.fromarray(sheet[..., 0]).save(file, name, **format_settings)
            expected += len(file.getvalue())
        assert compressors[f"{name}, mosaics"](grey) == expected
        assert compressors[f"{name}, each"](grey) > 150 * 64


def test_images_that_do_not_come_back_stop_the_script(options, monkeypatch):
    monkeypatch.setattr(vj, "decompress", lambda *args: np.zeros(3))
    with pytest.raises(RuntimeError, match="other images"):
        lossless_compression.main(lossless_compression.Config(latent_dim=2, components=1, samples=2, **options))


def test_the_cost_of_pixels_is_their_log_probability():
    vae = vj.mlp_vae((6, 6, 1), 2, (8,))
    variables = drawn(vae.init, jax.random.key(0))
    trained = lossless_compression.Trained(vae, variables, [])
    images = RNG.integers(0, 2, (3, 6, 6, 1), dtype=np.uint8)
    x, bits, kl = lossless_compression.cost_of_pixels(jax.random.key(1), trained, images)
    posterior = jax.jit(vae.encode)(variables, x)
    px_z = jax.jit(vae.decode)(variables, posterior.sample(jax.random.key(1)))
    np.testing.assert_allclose(bits.sum(axis=(1, 2)), -px_z.log_prob(jax.numpy.asarray(x)) / np.log(2), rtol=1e-5)
    np.testing.assert_allclose(kl, posterior.kl().sum(axis=1) / np.log(2), rtol=1e-5)


def test_lossy_compression(options, tmp_path, titles):
    config = lossy_compression.Config(latent_dim=2, images=20, rate=1.0, **options)
    numbers = lossy_compression.main(config).numbers
    assert numbers["psnr_at_rate"].keys() == numbers["curves"].keys() == {"VAE", "autoencoder", "PCA", "JPEG", "WebP"}
    for curve in numbers["curves"].values():
        assert all(rate >= 0 and 0 < psnr < 80 for rate, psnr in curve)
    rates, psnrs = zip(*numbers["curves"]["PCA"], strict=True)
    assert sorted(rates, reverse=True) == list(rates)
    assert psnrs[0] == max(psnrs) > 30
    assert set(titles) == {"curves", "images"}


def test_lossy_compression_of_colour_is_at_a_smaller_size(options, monkeypatch):
    faces = RNG.integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    data = vj.Dataset("faces", vj.Split(faces[:40]), vj.Split(faces[40:]), "drawn by the test")
    monkeypatch.setattr(lossy_compression.Run, "start", classmethod(lambda cls, name, config, **_: run))
    config = lossy_compression.Config(latent_dim=2, channels=(4, 4), size=8, images=10, **options)
    run = Run("lossy", config, data, True, 20, 1, None, 0.0)
    reduced = lossy_compression.reduced(run, 8).data.test.images
    np.testing.assert_array_equal(reduced[0, 1, 2], np.round(faces[40, 2:4, 4:6].mean(axis=(0, 1))))
    with pytest.raises(vj.InputError, match="size is 5"):
        lossy_compression.reduced(run, 5)
    config.out.mkdir()
    numbers = lossy_compression.main(config).numbers
    assert "10 test images of 8 x 8 pixels" in numbers["label"]


@pytest.mark.parametrize(("changes", "message"), [({"rate": 0.0}, "rate is 0"), ({"latent_dim": 0}, "latent_dim is 0")])
def test_lossy_compression_refuses_options(changes, message, options):
    with pytest.raises(vj.InputError, match=message):
        lossy_compression.main(replace(lossy_compression.Config(**options), **changes))


def test_lossy_compression_refuses_as_many_latents_as_images_before_training(options, monkeypatch):
    faces = RNG.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    data = vj.Dataset("faces", vj.Split(faces[:40]), vj.Split(faces[40:]), "drawn by the test")
    monkeypatch.setattr("harness.run.vj.load", lambda name, folder: data)
    monkeypatch.setattr("vae_jax.training.loop.run_chunk", lambda *args, **kwargs: pytest.fail("training began"))
    config = lossy_compression.Config(
        latent_dim=40, channels=(4, 4), size=8, **options | {"data": DataOptions("faces")}
    )
    with pytest.raises(vj.InputError, match=r"for 40 latents; expected .* more examples and more entries than latents"):
        lossy_compression.main(config)


def test_coded_numbers_come_back_and_take_their_entropy():
    known = np.stack([RNG.geometric(0.5, 20_000), np.full(20_000, 3), RNG.integers(-4, 4, 20_000)], axis=1)
    levels = known[:5_000]
    decoded, size = lossy_compression.coded(known, levels)
    np.testing.assert_array_equal(decoded, levels)
    assert 8 * size / len(levels) == pytest.approx(2 + 0 + 3, rel=0.02)  # entropies in bits
    beyond = np.array([[1_000, 7, -9]])
    np.testing.assert_array_equal(lossy_compression.coded(known, beyond)[0], [[known[:, 0].max(), 3, -4]])


@pytest.mark.parametrize("shape", [(3, 4, 5, 1), (100, 4, 5, 3), (7, 2, 2, 3)])
def test_cutting_a_mosaic_inverts_tiling(shape):
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(lossy_compression.cut(tile(images, 10).squeeze(), shape), images)


def test_the_psnr_at_a_rate_is_between_two_points():
    curve = [lossy_compression.Point(rate, psnr, np.zeros(0)) for rate, psnr in ((2.0, 30.0), (1.0, 20.0))]
    assert lossy_compression.psnr_at(curve, 1.25) == pytest.approx(22.5)
    assert lossy_compression.psnr_at(curve, 0.9) is None
    assert lossy_compression.psnr_at(curve, 2.1) is None


def test_the_psnr_and_the_rate_of_a_point():
    images = np.full((4, 5, 6, 3), 100, np.uint8)
    found = lossy_compression.point(images + np.uint8(51), images, 15)
    assert found.psnr == pytest.approx(20 * np.log10(5))
    assert found.rate == 8 * 15 / (4 * 5 * 6)
