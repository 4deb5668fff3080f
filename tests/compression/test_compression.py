"""Lossless compression: what comes back, how long the file is, and what is refused."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from conftest import drawn
from constriction import stream

import vae_jax as vj
from vae_jax.compression import bins, bits_back, container, images
from vae_jax.compression.environment import environment, model_digest

RNG = np.random.default_rng(0)
SHAPE = (4, 3, 1)
LIKELIHOODS = [vj.Bernoulli(), vj.Categorical(5), vj.DiscretisedLogistic(), vj.MixtureOfLogistics(2)]


def model(likelihood=vj.Bernoulli(), shape=SHAPE, latent_dim=3, **settings):
    vae = vj.mlp_vae(shape, latent_dim, (8,), likelihood, **settings)
    return vae, drawn(vae.init, jax.random.key(0))


def draws(count, levels=2, shape=SHAPE):
    return RNG.integers(0, levels, (count, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def binary():
    return model()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "images.vae"


@pytest.fixture
def written(binary, path):
    """A file of twenty images, with the model and the images."""
    x = draws(20)
    vj.compress(path, *binary, x)
    return path, binary, x


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda likelihood: type(likelihood).__name__)
@pytest.mark.parametrize(("shape", "count"), [((4, 3, 1), 7), ((5,), 1), ((2, 2, 3), 2)])
def test_images_come_back(likelihood, shape, count, path):
    of_model = model(likelihood, shape)
    x = draws(count, likelihood.support.levels, shape)
    vj.compress(path, *of_model, x)
    back = vj.decompress(str(path), *of_model)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize(
    "likelihood",
    [vj.Bernoulli(), vj.DiscretisedLogistic(0.5)],  # no level is less likely than 2^-24, which the coder gives it
    ids=lambda likelihood: type(likelihood).__name__,
)
def test_the_length_is_the_negative_elbo(likelihood, path):
    vae, variables = model(likelihood)
    # Posteriors within the range of the bins, and with the same mean, which is far from N(0, I), for all images.
    last = variables["params"]["encoder"]["Dense_1"]
    last |= {
        "kernel": jnp.asarray(0.1 * np.asarray(last["kernel"])),
        "bias": jnp.array([1.5, -1.0, 0.5, -1.0, 0.5, 0.0]),
    }
    x = draws(1_000, likelihood.support.levels)
    transform = vj.Raw(0.0, 1.0) if likelihood.support.levels == 2 else vj.Scale()
    terms = vj.evaluate(jax.random.key(1), vae, variables, vj.Split(x), transform=transform)
    elbo = vj.mean_and_stderr(terms.log_px_z - terms.kl)
    vj.compress(path, vae, variables, x)
    nats = np.log(2) * 32 * len(container.unpack(path).words) / len(x)
    assert nats == pytest.approx(-elbo.mean, abs=6 * elbo.standard_error + 0.3)  # 0.3: the initial bits
    assert nats > 0.5 * x[0].size * np.log(2)


def test_the_file_of_one_process_is_read_by_another(written, tmp_path):
    path, (vae, variables), x = written
    vj.save(tmp_path / "model", vae, variables)
    program = (
        "import sys, numpy as np, vae_jax as vj; path, folder, out = sys.argv[1:]; found = vj.load_model(folder);"
        "np.save(out, vj.decompress(path, found.model, found.variables))"
    )
    arguments = [path, tmp_path / "model", tmp_path / "back.npy"]
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "back.npy"), x)


def test_variables_on_several_devices_and_of_a_member(path):
    vae, _ = model()
    x = draws(3)
    members = vj.init_members(jax.random.split(jax.random.key(0), 2), vae, optax.sgd(1.0))
    one = vj.member(members, 1).variables
    vj.compress(path, vae, one, x)
    everywhere = jax.device_put(one, jax.sharding.NamedSharding(vj.device_mesh(), jax.sharding.PartitionSpec()))
    np.testing.assert_array_equal(vj.decompress(path, vae, everywhere), x)
    with pytest.raises(vj.InputError, match=r"vj\.member"):
        vj.compress(path, vae, members.variables, x)


def test_float64(path):
    with jax.enable_x64(True):
        of_model = model()
        doubled = jax.tree.map(lambda leaf: jnp.asarray(np.float64(leaf)), of_model[1])
        x = draws(3)
        vj.compress(path, of_model[0], doubled, x)
        np.testing.assert_array_equal(vj.decompress(path, of_model[0], doubled), x)
    with pytest.raises(vj.DataError, match="other variables"):
        vj.decompress(path, *model())


def test_batch_normalised_networks_use_their_running_statistics(path):
    vae = vj.batch_norm_vae(SHAPE, 2, (8, 4), likelihood=vj.DiscretisedLogistic())
    variables = drawn(vae.init, jax.random.key(0))
    x = draws(5, 256)
    vj.compress(path, vae, variables, x)
    np.testing.assert_array_equal(vj.decompress(path, vae, variables), x)


# Bins of the latents


def test_the_bins_have_equal_mass_and_their_medians_are_inside():
    mass = np.diff(scipy.stats.norm.cdf(bins.edges()))
    np.testing.assert_allclose(mass, 1 / bins.BINS, rtol=1e-6)
    assert (bins.edges()[:-1] < bins.medians()).all()
    assert (bins.medians() < bins.edges()[1:]).all()


def test_decoded_latents_are_samples_of_the_posterior():
    mean, deviation = np.array([0.0, 1.5, -2.0, 3.0]), np.array([1.0, 0.1, 0.01, 0.5])
    count = 2_000
    words = RNG.integers(0, 2**32, 40 * count, dtype=np.uint32)
    coder = stream.stack.AnsCoder(np.append(words, np.uint32(1)))
    z = bins.medians()[np.stack([bins.decode_bins(coder, mean, deviation) for _ in range(count)])]
    for latent in range(4):
        expected = scipy.stats.norm(mean[latent], deviation[latent])
        assert scipy.stats.kstest(z[:, latent], expected.cdf).pvalue > 1e-4


def test_encoding_latents_inverts_decoding_and_takes_their_information():
    words = np.append(RNG.integers(0, 2**32, 400, dtype=np.uint32), np.uint32(1))
    mean, deviation = RNG.normal(size=100), np.exp(RNG.normal(size=100) - 2)
    mean[:2] = 40, -40  # further than any bin
    coder = stream.stack.AnsCoder(words)
    found = bins.decode_bins(coder, mean, deviation)
    mass = np.diff(
        scipy.stats.norm.cdf((bins.edges()[found[2:, None] + [0, 1]] - mean[2:, None]) / deviation[2:, None])
    )
    assert 32 * (len(words) - coder.num_words()) == pytest.approx(-np.log2(mass).sum(), abs=80)
    bins.encode_bins(coder, found, mean, deviation)
    np.testing.assert_array_equal(coder.get_compressed(), words)


# Files that are damaged, or forged


def test_a_truncated_file_is_refused_at_any_byte(written):
    path, binary, _ = written
    whole = path.read_bytes()
    for size in RNG.integers(0, len(whole), 500):
        path.write_bytes(whole[:size])
        with pytest.raises(vj.DataError, match=r"beginning of|damaged"):
            vj.decompress(path, *binary)


def test_a_file_with_any_byte_changed_is_refused(written):
    path, binary, _ = written
    whole = path.read_bytes()
    for place in RNG.integers(0, len(whole), 500):
        changed = bytearray(whole)
        changed[place] ^= RNG.integers(1, 256)
        path.write_bytes(changed)
        with pytest.raises(vj.DataError, match=r"not, or only|format|damaged"):
            vj.decompress(path, *binary)


def test_changed_words_with_the_right_sha256_are_refused(written):
    path, binary, _ = written
    content = container.unpack(path)
    for bit in range(0, 32 * len(content.words), 67):
        words = content.words.copy()
        words[bit // 32] ^= np.uint32(1 << bit % 32)
        path.write_bytes(container.pack(content._replace(words=words)))
        with pytest.raises(vj.DataError, match="gave other numbers"):
            vj.decompress(path, *binary)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 10**12}, "claims 1000000000000 images"),
        ({"images": 0}, "claims 0 images"),
        ({"images": True}, "claims True images"),
        ({"images": 2.0}, "claims 2.0 images"),
        ({"words": 10**12}, "claims 1000000000000 words"),
        ({"words": 0}, "claims 0 words"),
        ({"words": None}, "claims None words"),
        ({"environment": None, "more": 1}, "more"),
    ],
)
def test_a_forged_header_is_refused_before_its_memory_is_taken(changes, message, written, monkeypatch):
    path, binary, _ = written
    dumps = json.dumps
    monkeypatch.setattr(container.json, "dumps", lambda given, **settings: dumps(given | changes, **settings))
    content = container.unpack(path)
    path.write_bytes(container.pack(content))
    with pytest.raises(vj.DataError, match=message):
        vj.decompress(path, *binary)


def test_words_that_end_with_0_are_refused(written):
    path, binary, _ = written
    content = container.unpack(path)
    path.write_bytes(container.pack(content._replace(words=np.append(content.words, np.uint32(0)))))
    with pytest.raises(vj.DataError, match="last word is 0"):
        vj.decompress(path, *binary)


@pytest.mark.parametrize("header", [b"", b"[]", b"{}", b"\xff", b'{"images": 1}', b"[" * 100_000])
def test_a_header_that_is_none_is_refused(header, written, monkeypatch):
    path, binary, _ = written
    monkeypatch.setattr(container.json, "dumps", lambda *args, **settings: header.decode("latin1"))
    path.write_bytes(container.pack(container.unpack(path)))
    with pytest.raises(vj.DataError, match="header"):
        vj.decompress(path, *binary)


def test_a_file_has_at_least_one_byte_for_each_image(path):
    vae, variables = model(latent_dim=1)
    variables = jax.tree.map(lambda leaf: jnp.asarray(np.zeros_like(leaf)), variables)  # q(z|x) is the prior
    decoder = variables["params"]["decoder"]["Dense_1"]
    decoder["bias"] = jnp.asarray(np.asarray(decoder["bias"]) - 60)
    x = np.zeros((300, *SHAPE), np.uint8)
    vj.compress(path, vae, variables, x)
    assert 4 * len(container.unpack(path).words) < len(x) <= path.stat().st_size < 1_500
    np.testing.assert_array_equal(vj.decompress(path, vae, variables), x)


# Another model, version or environment


def test_the_file_of_another_model_is_refused(written):
    path, (vae, variables), _ = written
    other = jax.tree.map(lambda leaf: leaf, variables)
    other["params"]["decoder"]["Dense_0"]["bias"] = other["params"]["decoder"]["Dense_0"]["bias"] + 1e-6
    same_variables = vj.mlp_vae(SHAPE, 3, (8,), activation=jax.nn.tanh)
    for of_model in [(vae, other), (same_variables, variables), model(latent_dim=2)]:
        with pytest.raises(vj.DataError, match="another model or of other variables"):
            vj.decompress(path, *of_model)


def test_the_file_of_another_version_is_refused(written, monkeypatch):
    path, binary, _ = written
    monkeypatch.setattr(container, "FORMAT", 2)
    with pytest.raises(vj.DataError, match="has format 1, and this version reads 2"):
        vj.decompress(path, *binary)


def test_another_environment_gives_the_images_or_a_sentence(written, monkeypatch):
    path, binary, x = written
    monkeypatch.setattr(images, "environment", lambda: environment() | {"jax": "0.99", "x64": "True"})
    np.testing.assert_array_equal(vj.decompress(path, *binary), x)
    original = bits_back.networks_of

    def other_last_bits(vae, variables):
        networks = original(vae, variables)
        return networks._replace(pmf=lambda z: networks.pmf(z) * np.linspace(1, 1.001, 2, dtype=np.float32))

    monkeypatch.setattr(bits_back, "networks_of", other_last_bits)
    with pytest.raises(vj.DataError, match=r"jax '.*' there and '0\.99' here, x64 'False' there and 'True' here"):
        vj.decompress(path, *binary)


def test_the_environment_names_versions_processor_and_settings(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_of_a_test=1 --xla_of_a_test=1")
    found = environment()
    assert found["jax"] == jax.__version__
    assert found["XLA_FLAGS"] == "--xla_of_a_test=1"
    assert found["instructions"]
    assert int(found["cores"]) >= 1


def test_the_digest_depends_on_values_names_and_types(binary):
    vae, variables = binary
    assert model_digest(vae, variables) == model_digest(*model())
    halved = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), variables)
    assert model_digest(vae, variables) != model_digest(vae, halved)


# Input that cannot be used


@pytest.mark.parametrize(
    ("of_model", "message"),
    [
        (lambda: model(posterior=vj.Delta), "posterior is Delta"),
        (lambda: model(posterior=vj.FullGaussian), "posterior is FullGaussian"),
        (lambda: model(prior=vj.GaussianMixture(2)), "prior is GaussianMixture"),
        (lambda: model(classes=3), "conditional"),
        (lambda: model(vj.Gaussian()), "likelihood is Gaussian"),
        (lambda: model(vj.Poisson()), "likelihood is Poisson"),
        (lambda: model(vj.Categorical(257)), r"likelihood is Categorical\(levels=257\)"),
        (lambda: model(vj.ColourMixtureOfLogistics(2), (4, 3, 3)), "likelihood is ColourMixtureOfLogistics"),
        (lambda: ("a VAE", {}), "vae is 'a VAE'"),
        (lambda: (model()[0], jax.tree.map(lambda leaf: jnp.nan * leaf, model()[1])), "NaN or infinite"),
        (lambda: (model()[0], model(latent_dim=2)[1]), "has shape"),
        (lambda: (model()[0], 3), "variables is 3"),
    ],
)
def test_a_model_that_cannot_compress_is_refused_by_name(of_model, message, path):
    with pytest.raises(vj.InputError, match=message):
        vj.compress(path, *of_model(), draws(1))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, *SHAPE), np.float32), "dtype float32"),
        (np.zeros((2, *SHAPE), bool), "dtype bool"),
        (np.zeros((0, *SHAPE), np.uint8), r"shape \(0, 4, 3, 1\); expected one or more"),
        (np.zeros(SHAPE, np.uint8), r"shape \(4, 3, 1\)"),
        (np.zeros((), np.uint8), r"shape \(\)"),
        (np.full((2, *SHAPE), 2, np.uint8), r"values up to 2; Bernoulli\(\) takes whole numbers below 2"),
        ("images", "dtype <U6"),
    ],
)
def test_images_that_are_no_bytes_of_the_model_are_refused(x, message, binary, path):
    with pytest.raises(vj.InputError, match=message):
        vj.compress(path, *binary, x)
    assert list(path.parent.iterdir()) == []


def test_traced_arguments_are_refused(binary, path):
    vae, variables = binary
    with pytest.raises(vj.InputError, match="images are traced"):
        jax.jit(lambda x: vj.compress(path, vae, variables, x))(draws(1))
    with pytest.raises(vj.InputError, match="variables are traced"):
        jax.jit(lambda variables: vj.compress(path, vae, variables, draws(1)))(variables)


def test_networks_that_overflow_are_refused_by_name(path):
    vae, variables = model(vj.MixtureOfLogistics(1))
    decoder = variables["params"]["decoder"]["Dense_1"]
    decoder["bias"] = jnp.full_like(decoder["bias"], 3e38)
    decoder["kernel"] = jnp.full_like(decoder["kernel"], 3e38)
    with pytest.raises(vj.InputError, match="networks return NaN or infinite"):
        vj.compress(path, vae, variables, draws(3, 256))
    assert list(path.parent.iterdir()) == []


def test_a_path_that_cannot_be_used_is_refused_before_the_work(binary, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_encode", None)
    for path in (tmp_path / "absent" / "file", "/dev/null/file"):
        with pytest.raises(vj.InputError, match="cannot write"):
            vj.compress(path, *binary, draws(1))
    with pytest.raises(vj.InputError, match="is a folder"):
        vj.compress(tmp_path, *binary, draws(1))
    with pytest.raises(vj.InputError, match="path is 3; expected the path of a file"):
        vj.compress(3, *binary, draws(1))
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(vj.DataError, match="cannot read"):
            vj.decompress(path, *binary)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, os.strerror(28))])
def test_a_failed_write_keeps_the_file_that_was_there(error, written, monkeypatch):
    path, binary, x = written
    before = path.read_bytes()

    def fail(*args):
        raise error

    monkeypatch.setattr(images, "pack", fail)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else vj.InputError):
        vj.compress(path, *binary, x)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
