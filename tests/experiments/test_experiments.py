"""Each script, tiny, end to end; and what it answers to options that can't be used."""

import dataclasses
import io
import json
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats
from conftest import small_split, write_cifar, write_idx
from flax import linen as nn
from harness.options import CheckpointOptions, DataOptions, Options, TrainingOptions
from harness.recipe import adamw_from_pca
from harness.run import Run
from PIL import Image
from sklearn.datasets import load_wine
from sklearn.model_selection import KFold
from test_pages import content_of

import vae_jax as vj
from vae_jax.data.synthetic.digits import load as load_digits
from vae_jax.training.loop import run_chunk

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def run(monkeypatch, script, *options):
    """Run a script in this process, as its command line would."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, options)])
    runpy.run_path(str(EXPERIMENTS / f"{script}.py"), run_name="__main__")


def refused(monkeypatch, capsys, script, *options):
    """The sentence with which a script refuses its options, with status 2."""
    capsys.readouterr()  # what came before
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, script, *options)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


PICTURES = {f"{model}_{part}" for model in ("ae", "vae") for part in ("encodings", "lattice", "digits")}
TRAINED = {}  # classifiers
CLASSIFIER_STEPS = Run.steps_or_smoke  # before a test replaces it
COUPLING = vj.Coupling(1, (4,))  # in place of the larger flows of scripts


@pytest.fixture(autouse=True)
def _classifiers_are_shared(monkeypatch):
    """Scripts that train a classifier by the same call, on the same data, get the same one."""

    def shared(train):
        def trained(key, data, steps):
            call = train, str(jax.random.key_data(key)), data.digest, steps
            if call not in TRAINED:
                TRAINED[call] = train(key, data, steps=steps)
            return TRAINED[call]

        return trained

    monkeypatch.setattr("harness.run.train_classifier", shared(vj.train_classifier))
    monkeypatch.setattr(vj, "train_legibility_classifier", shared(vj.train_legibility_classifier))


@pytest.mark.usual_pictures
def test_mnist_lattice(tiny, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    run(monkeypatch, "mnist_lattice", "--data-dir", tiny, "--out", out, "--epochs", 2, "--seed", 5, "--page")
    report = json.loads((out / "mnist_lattice.json").read_text())
    assert (report["dataset"], report["seed"], report["epochs"]) == ("mnist", 5, 2)
    assert report["seconds"] > 0
    assert report["data"]["train_images"] == 96
    for model in ("ae", "vae"):
        numbers = report[model]
        for name in ("train_reconstruction", "test_reconstruction", "test_kl", "test_negative_elbo"):
            assert np.isfinite(numbers[name])
        assert numbers["test_negative_elbo"] == pytest.approx(numbers["test_reconstruction"] + numbers["test_kl"])
        assert 0 <= numbers["legible_share"] <= 1
        assert 1 <= numbers["lattice_classes"] <= 3
        assert all(numbers["frechet"][z] > 0 for z in ("prior", "fitted", "square", "reconstruction", "train"))
        assert numbers["seconds_per_epoch"] > 0
        assert len(numbers["history"]) == 2
    assert report["ae"]["test_kl"] == 0 < report["vae"]["test_kl"]
    pictures = {path.stem.removeprefix("mnist_lattice_") for path in out.glob("*.png")}
    assert pictures == PICTURES | {"side_by_side", "curves"}
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 300
    printed = capsys.readouterr().out
    assert f"{report['vae']['test_negative_elbo']:.2f}" in printed
    assert f"{report['ae']['frechet']['prior']:.1f}" in printed
    page = page_in(out, "mnist_lattice")
    assert [model["name"] for model in page["models"]] == ["Autoencoder", "Variational autoencoder"]
    assert f"{report['vae']['test_negative_elbo']:.1f}" in page["caption"]
    assert (page["title"], json.loads(page["numbers"])) == ("mnist_lattice: the latent space, MNIST, seed 5", report)
    assert len(page["labels"]) == 40
    assert printed.splitlines()[-1].startswith(f"{out}/mnist_lattice.html: page of ")


def test_a_smoke_run_is_short_and_marked(tmp_path, monkeypatch, titles):
    data = write_idx(tmp_path / "data", small_split(2_100), small_split(600, seed=1))
    steps = []

    def train_classifier(*args, **given):
        steps.append(given["steps"])
        return original(*args, **given)

    original = vj.train_classifier
    monkeypatch.setattr("harness.run.train_classifier", train_classifier)
    monkeypatch.setattr(Run, "steps_or_smoke", CLASSIFIER_STEPS)
    run(monkeypatch, "cvae_digits", "--data-dir", data, "--out", tmp_path, "--smoke", "--classes", 3)
    report = json.loads((tmp_path / "cvae_digits_mnist_smoke.json").read_text())
    assert (report["data"]["train_images"], report["data"]["test_images"]) == (2_000, 500)
    assert (report["epochs"], steps) == (1, [50])
    assert all("mnist_smoke" in text for text in titles.values())


def test_mnist_lattice_on_the_stand_in_says_so_everywhere(tmp_path, monkeypatch, capsys, titles):
    import socket

    def refuse(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    digits = load_digits()
    shown = np.flatnonzero(digits.train.labels < 3)  # with the shapes of `tiny`, whose programs serve again
    few = vj.Split(digits.train.images[shown[:136], :6, :6], digits.train.labels[shown[:136]])
    few = dataclasses.replace(digits, train=few[:96], test=few[96:])
    monkeypatch.setattr("vae_jax.data.synthetic.digits.load", lambda: few)
    run(monkeypatch, "mnist_lattice", "--out", tmp_path, "--epochs", 1)
    assert json.loads((tmp_path / "mnist_lattice_digits.json").read_text())["dataset"] == "digits"
    assert all(path.name.startswith("mnist_lattice_digits") for path in tmp_path.iterdir())
    assert "scikit-learn" in capsys.readouterr().out
    assert len(titles) == 8
    assert all("digits, " in text and "seed 0" in text for text in titles.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "mnits"], "'mnits' was not found"),
        (["--dataset", "fashion_mnist", "--data-dir", "/nowhere"], "/nowhere does not exist"),
        (["--epochs", "0"], "epochs is 0"),
        (["--epochs", "-1"], "epochs is -1"),
        (["--batch-size", "97"], "only 96 training images"),
        (["--latent-dim", "0"], "latent_dim is 0"),
        (["--latent-dim", "1"], "latent_dim is 1"),
        (["--learning-rate", "0"], "learning_rate is 0"),
        (["--hold-out", "96"], "hold out 96 of 96"),
        (["--hold-out", "1"], "hold out 1 of 96"),
        (["--seed", "-1"], "seed is -1"),
        (["--weight-decay", "-1"], "weight_decay is -1"),
        (["--checkpoint-minutes", "-1"], "checkpoint_minutes is -1"),
        (["--stream-above", "nan"], "stream_above is nan"),
        (["--checkpoints-kept", "0"], "checkpoints_kept is 0"),
        (["--out", "/dev/null/out"], "cannot write to the folder"),
    ],
)
def test_options_that_cannot_be_used_are_one_sentence_before_any_work(
    options, message, tiny, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mnist_lattice.json").write_text("earlier")
    given = [] if "--data-dir" in options or "mnits" in options else ["--data-dir", tiny]
    given += [] if "--out" in options else ["--out", out]
    monkeypatch.setattr("vae_jax.training.loop.run_chunk", lambda *args, **kwargs: pytest.fail("training began"))
    assert message in refused(monkeypatch, capsys, "mnist_lattice", *given, *options)
    assert [path.name for path in out.iterdir()] == ["mnist_lattice.json"]
    assert (out / "mnist_lattice.json").read_text() == "earlier"


def test_checkpoints_of_another_model_are_refused_and_those_of_the_same_gone_on_with(tiny, tmp_path):
    def history(**changes):
        options = Options(
            out=tmp_path,
            data=DataOptions(data_dir=tiny),
            training=TrainingOptions(epochs=1),
            checkpoints=CheckpointOptions(checkpoint_dir=tmp_path / "kept"),
        )
        vae = vj.mlp_vae((6, 6, 1), **({"latent_dim": 2, "hidden": (8,)} | changes))
        return Run.start("any", options).train(jax.random.key(0), vae, vj.ELBO()).history

    first = history()
    compiled = run_chunk._cache_size()
    assert history() == first, "trained again: functions in the configuration must have no addresses"
    assert run_chunk._cache_size() == compiled, "nothing was left to train"
    for changes in ({"latent_dim": 3}, {"activation": nn.tanh}, {"likelihood": vj.Gaussian(0.1)}):
        with pytest.raises(vj.InputError, match=r"another run \(model\."):
            history(**changes)


def test_checkpoints_of_each_epoch_and_the_best_on_what_is_held_out(tmp_path, monkeypatch):
    data = write_idx(tmp_path / "data", small_split(96 + 40), small_split(1, seed=1))  # the shapes of `tiny`
    keeping = ("--checkpoint-minutes", 0, "--checkpoints-kept", 2, "--hold-out", 40)
    kept = tmp_path / "kept"
    options = ("--data-dir", data, "--out", tmp_path, "--epochs", 3, "--batch-size", 48, "--checkpoint-dir", kept)
    run(monkeypatch, "mnist_samples", *options, *keeping)
    folder = kept / "20-D_VAE"
    assert {path.name for path in folder.iterdir()} == {".lock", "4", "6", "best"}
    bounds = json.loads((tmp_path / "mnist_samples_mnist_held_out.json").read_text())["test_negative_elbo_by_epoch"]
    assert [path.name for path in (folder / "best").iterdir()] == [str(2 * (1 + int(np.argmin(bounds))))]
    vae, _ = vj.restore_model(folder, best=True)
    assert vae.latent_dim == 20


def test_a_value_that_is_no_number_exits_with_2(monkeypatch):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "mnist_lattice", "--epochs", "many")
    assert stop.value.code == 2


def report_of(monkeypatch, script, data, out, *options):
    run(monkeypatch, script, "--data-dir", data, "--out", out, "--epochs", 2, *options)
    return json.loads((out / f"{script}.json").read_text())


def page_in(out, script):
    """The content of the page that a script wrote."""
    return content_of(out / f"{script}.html")


def pictures_in(out, script):
    return {path.stem.removeprefix(f"{script}_") for path in out.glob("*.[jp][pn]g")}


def test_mnist_latent10(tiny, tmp_path, monkeypatch):
    report = report_of(monkeypatch, "mnist_latent10", tiny, tmp_path, "--page")
    assert [model["latentDim"] for model in page_in(tmp_path, "mnist_latent10")["models"]] == [10, 10]
    assert len(report["vae"]["aggregated_posterior"]["mean"]) == 10
    assert set(report["ae"]["frechet"]) == {"prior", "fitted", "square", "reconstruction", "train"}
    assert pictures_in(tmp_path, "mnist_latent10") == PICTURES | {"side_by_side", "curves", "draws"}


def test_mnist_samples(tiny, tmp_path, monkeypatch):
    report = report_of(monkeypatch, "mnist_samples", tiny, tmp_path, "--checkpoint-dir", tmp_path / "kept")
    assert len(report["test_negative_elbo_by_epoch"]) == 2
    assert report["latent20"]["test_negative_elbo"] == report["test_negative_elbo_by_epoch"][-1]
    assert pictures_in(tmp_path, "mnist_samples") == {"prior", "reconstructions", "curve"}
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"2-D_VAE", "20-D_VAE"}


def test_mnist_interpolation(tiny, tmp_path, monkeypatch, capsys):
    options = ("--start", 0, "--end", 2, "--pairs", 5, "--steps", 4)
    report = report_of(monkeypatch, "mnist_interpolation", tiny, tmp_path, *options)
    for model in ("ae", "vae"):
        for dimensions in ("2", "10"):
            numbers = report[model][dimensions]
            assert len(numbers["confidence"]) == len(numbers["nearest_distance"]) == 4
            assert all(0 <= error < 1 for error in numbers["confidence_standard_error"])
            assert all(1 / 3 <= value <= 1 for value in numbers["confidence"])
            assert all(value > 0 for value in numbers["nearest_distance"])
    assert pictures_in(tmp_path, "mnist_interpolation") == {"rows", "paths", "numbers"}
    line = refused(monkeypatch, capsys, "mnist_interpolation", "--data-dir", tiny, "--out", tmp_path, "--end", 7)
    assert "no test image of a 7" in line


def test_cvae_digits(tiny, tmp_path, monkeypatch, capsys):
    report = report_of(monkeypatch, "cvae_digits", tiny, tmp_path, "--classes", 3, "--page")
    assert [model["classes"] for model in page_in(tmp_path, "cvae_digits")["models"]] == [3, None]
    assert 0 <= report["label_agreement"] <= 1
    assert report["test_negative_elbo"] != report["unconditional_test_negative_elbo"]
    assert set(report["conditional_latent"]) == {"nearest_mean_accuracy", "class_separation"}
    assert pictures_in(tmp_path, "cvae_digits") == {"draws", "styles", "latents"}
    given = ("--data-dir", tiny, "--out", tmp_path)
    assert "labels run from 0 to 2; expected 0 to 1, of 2 classes" in refused(
        monkeypatch, capsys, "cvae_digits", *given, "--classes", 2
    )
    assert "classes is 0" in refused(monkeypatch, capsys, "cvae_digits", *given, "--classes", 0)


def test_mnist_batchnorm(tiny, tmp_path, monkeypatch, capsys):
    options = ("--checkpoint-dir", tmp_path / "kept", "--c", 0.1, 10.0)
    report = report_of(monkeypatch, "mnist_batchnorm", tiny, tmp_path, *options)
    assert [row["C"] for row in report["sweep"]] == [0.1, 10.0]
    for row in report["sweep"]:
        constant = 0.5 * 36 * np.log(np.pi / row["C"])
        negative_elbo = row["C"] * row["test_squared_error"] + row["test_kl"] + constant
        assert row["test_negative_elbo"] == pytest.approx(negative_elbo, rel=1e-4)
        assert 0 < row["test_squared_error"] < 4 * 36
    assert pictures_in(tmp_path, "mnist_batchnorm") == {"images", "trade_off"}
    given = ("--data-dir", tiny, "--out", tmp_path)
    assert "c[1] is -1.0" in refused(monkeypatch, capsys, "mnist_batchnorm", *given, "--c", 1, -1)
    assert "c is []; expected one value or more" in refused(monkeypatch, capsys, "mnist_batchnorm", *given, "--c")
    assert "c is [1.0, 1.0]; expected" in refused(monkeypatch, capsys, "mnist_batchnorm", *given, "--c", 1, 1)

    again = report_of(monkeypatch, "mnist_batchnorm", tiny, tmp_path, *options)
    for name in ("sweep", "seconds_per_epoch_of_all"):  # the first run's seconds: nothing was trained a second time
        assert again[name] == report[name]
    others = (*given, "--epochs", 2, *options[:2], "--c", 1.0)
    assert "c is [0.1, 10.0] there" in refused(monkeypatch, capsys, "mnist_batchnorm", *others)


def write_celeba(folder, count=72, seed=0):
    """CelebA's layout: noise that is brighter for some attributes, split 48, 12, 12."""
    generator = np.random.default_rng(seed)
    values = generator.random((count, 4)) < 0.5
    images = generator.integers(0, 120, (count, 109, 89, 3)) + 40 * values[:, :3].astype(int)[:, None, None]
    names = [f"{number:06d}.jpg" for number in range(count)]
    folder.mkdir()
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for name, image in zip(names, images.astype(np.uint8), strict=True):
            jpeg = io.BytesIO()
            Image.fromarray(image).save(jpeg, "JPEG")
            archive.writestr(name, jpeg.getvalue())
    rows = [f"{name} {' '.join(str(2 * int(v) - 1) for v in row)}" for name, row in zip(names, values, strict=True)]
    table = [str(count), "Blond_Hair Eyeglasses Male Young", *rows]
    (folder / "list_attr_celeba.txt").write_text("\n".join(table) + "\n")
    partition = [f"{name} {(i >= 48) + (i >= 60)}" for i, name in enumerate(names)]
    (folder / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    return folder


def test_celeba_attributes(tmp_path, monkeypatch, capsys, titles):
    out = tmp_path / "out"
    small = ("--epochs", 1, "--batch-size", 16, "--classifier-steps", 1, "--latent-dim", 6, "--channels", 4, 4)
    options = ("--data-dir", write_celeba(tmp_path / "celeba"), *small, "--out", out)
    run(monkeypatch, "celeba_attributes", *options, "--page")
    page = page_in(out, "celeba_attributes")
    assert [(each["name"], list(each["kinds"])) for each in page["vectors"]] == [
        ("blond hair", ["plain", "balanced"]),
        ("eyeglasses", ["plain", "balanced"]),
    ]
    assert page["classifier"]["names"] == ["blond hair", "eyeglasses", "male", "young"]
    report = json.loads((out / "celeba_attributes.json").read_text())
    printed = capsys.readouterr().out
    assert report["dataset"] == "celeba"
    for name in ("ae", "vae", "pca"):
        assert 0 < report[f"{name}_test_squared_error"] < np.inf
    assert "variance 0.1" in report["test_kl_label"]
    assert "CelebA, seed 0" in report["label"]
    assert f"squared error per test image ({report['label']}): pca" in printed
    for name, confounders in {"Blond_Hair": {"Male"}, "Eyeglasses": {"Male", "Young"}}.items():
        for kind in ("plain", "balanced"):
            effect = report["attributes"][name][kind]
            count = len(effect["steps"])
            assert effect["steps"][0] == 0
            assert effect["distance_by_step"][0] == 0
            # A classifier after one step may see the attribute everywhere: then there is no share.
            flips = [] if effect["flip_by_step"] == ["nan"] * count else effect["flip_by_step"]
            assert flips[:1] in ([], [0])
            assert set(effect["confounder_by_step"]) == confounders
            assert all(len(values) == count for values in effect["confounder_by_step"].values())
            for values in (flips, *effect["confounder_by_step"].values()):
                assert all(0 <= value <= 1 for value in values)
            shown = f"{flips[2]:.0%}" if flips else "nan%"
            assert f"{name}, {kind} vector: flipped {shown} at 1" in printed
    pictures = {path.stem.removeprefix("celeba_attributes_") for path in out.glob("*.[jp][pn]g")}
    assert pictures == {"reconstructions", "prior", "blond", "glasses", "both", "effects"}
    assert "balanced vector of glasses" in titles["glasses"]
    assert all("CelebA, seed 0" in title for title in titles.values())


def colours(count, seed, size=32):
    """Images in which neighbouring pixels are alike, as in photographs."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 200, (count, 4, 4, 3)).repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    images = coarse + generator.integers(0, 50, (count, size, size, 3))
    return vj.Split(images.astype(np.uint8), np.arange(count, dtype=np.int32) % 10)


def test_cifar_resnet(tmp_path, monkeypatch, capsys, titles):
    splits = [colours(count, seed, size=8) for count, seed in ((60, 0), (20, 1))]
    data = vj.Dataset("cifar10", *splits, "here")  # of 8 x 8 pixels; the test below this one reads files
    monkeypatch.setattr("harness.run.load_or_stand_in", lambda *given: (data, ""))
    small = ("--width", 4, "--blocks", 1, 1, "--latent-dim", 5, "--batch-size", 20, "--epochs", 2, "--out", tmp_path)
    small += ("--prior", "normal", "--checkpoint-dir", tmp_path / "kept")
    run(monkeypatch, "cifar_resnet", *small)
    report = json.loads((tmp_path / "cifar_resnet.json").read_text())
    printed = capsys.readouterr().out
    assert report["label"].startswith(
        "CIFAR-10, seed 0, width 4, 5 latents; negative ELBO at one sampled z in bits per"
    )
    pixels = {name: model["pixels"] for name, model in report["models"].items()}
    assert pixels == dict.fromkeys(("shared", "channels", "optimal"), "dequantised") | {"mixture": "grey"}
    assert list(report["models"]) == ["shared", "channels", "optimal", "mixture"]
    for model in report["models"].values():
        assert np.isfinite(model["test_bits_per_dim"])
        assert model["test_kl"] > 0
        assert (
            f"{model['test_bits_per_dim']:.3f} +- {model['test_standard_error']:.3f}, {model['test_gain']:.4f}"
            in printed
        )
        gain = report["probabilistic_pca"]["test_bits_per_dim"] - model["test_bits_per_dim"]
        assert model["test_gain"] == pytest.approx(gain, abs=1e-4)
        assert len(model["curves"]["test_bits_per_dim"]) == 2
        assert model["curves"]["test_bits_per_dim"][-1] == model["test_bits_per_dim"]
    scales = {name: [key for key in model if key.startswith("scale")] for name, model in report["models"].items()}
    channels = ["scale_red", "scale_green", "scale_blue"]
    assert scales == {"shared": ["scale"], "channels": channels, "optimal": ["scale"], "mixture": []}
    assert pictures_in(tmp_path, "cifar_resnet") == {"reconstructions", "draws", "curves"}
    assert all("width 4" in text for text in titles.values())
    assert "model.decoder.width is 4 there and 8 here" in refused(
        monkeypatch, capsys, "cifar_resnet", *small, "--width", 8
    )


def test_linear_paths_have_a_smaller_rate_and_all_weights_the_weight_decay_that_is_asked_for():
    params = {"linear": {"kernel": jax.numpy.ones((2, 2))}, "conv": {"kernel": jax.numpy.ones((2, 2))}}
    optimizer = adamw_from_pca(0.1, 0.5, 10)
    zeros = jax.tree.map(jax.numpy.zeros_like, params)
    updates, _ = jax.jit(optimizer.update)(zeros, jax.jit(optimizer.init)(params), params)
    decay = {part: float(update["kernel"][0, 0]) for part, update in updates.items()}
    assert decay == pytest.approx({"linear": -0.05 / 20, "conv": -0.05})


def test_cifar_resnet_starts_at_probabilistic_pca(tmp_path, monkeypatch):
    data = write_cifar(tmp_path / "data", colours(60, 0), colours(20, 1))
    monkeypatch.setattr(vj, "Coupling", lambda **_: COUPLING)
    options = ("--models", "shared", "--learning-rate", 1e-9, "--width", 4, "--blocks", 1, 1, "--epochs", 1)
    run(monkeypatch, "cifar_resnet", "--data-dir", data, "--out", tmp_path, "--latent-dim", 5, *options)
    report = json.loads((tmp_path / "cifar_resnet.json").read_text())
    found, expected = (
        numbers["test_bits_per_dim"] for numbers in (report["models"]["shared"], report["probabilistic_pca"])
    )
    assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--models", "shared", "own"), "models are shared, own; expected some of shared, channels, optimal, mixture"),
        (("--models",), "models is []; expected one value or more, each once"),
        (("--models", "shared", "shared"), "models is ['shared', 'shared']; expected one value or more, each once"),
        (("--width", 0), "width is 0"),
        (("--latent-dim", 0), "latent_dim is 0"),
        (("--latent-dim", 10), "latent_dim is 10; probabilistic PCA of these images takes from 1 to 9 latents"),
    ],
)
def test_cifar_resnet_refuses(tmp_path, monkeypatch, capsys, options, message):
    data = write_cifar(tmp_path / "data", colours(10, 0), colours(5, 1))
    given = ("--data-dir", data, "--out", tmp_path, "--latent-dim", 5)
    assert message in refused(monkeypatch, capsys, "cifar_resnet", *given, *options)


def test_cifar_resnet_refuses_grey_images(tiny, tmp_path, monkeypatch, capsys):
    options = ("--dataset", "mnist", "--data-dir", tiny, "--out", tmp_path, "--latent-dim", 2)
    assert "are no colour images; expected (height, width, 3)" in refused(
        monkeypatch, capsys, "cifar_resnet", *options, "--models", "mixture", "--blocks", 1, 1
    )
    assert "cannot be halved 3 times" in refused(monkeypatch, capsys, "cifar_resnet", *options)


def test_celeba_attributes_refuses(tiny, monkeypatch, capsys):
    options = ("--dataset", "mnist", "--data-dir", tiny)
    assert "take celeba or faces" in refused(monkeypatch, capsys, "celeba_attributes", *options)
    assert "variance is -1" in refused(monkeypatch, capsys, "celeba_attributes", "--variance", -1)


@pytest.fixture
def attributes(tmp_path):
    """`celeba_attributes.main` on a few faces."""
    import celeba_attributes

    data, training = DataOptions(data_dir=write_celeba(tmp_path / "celeba")), TrainingOptions(epochs=1, batch_size=16)
    config = celeba_attributes.Config(out=tmp_path / "out", data=data, training=training, latent_dim=6, channels=(4, 4))
    return lambda **changes: celeba_attributes.main(dataclasses.replace(config, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"latent_dim": 97}, "for 97 latents; expected .* with more examples and more entries than latents"),
        ({"channels": (4, 0)}, "is 0; expected a whole number of at least 1"),
        ({"channels": (4,) * 7}, "images of 64 x 64 pixels cannot be halved 7 times"),
        ({"classifier_steps": 0}, "classifier_steps is 0"),
    ],
)
def test_celeba_attributes_refuses_before_training(attributes, monkeypatch, changes, message):
    monkeypatch.setattr("vae_jax.training.loop.run_chunk", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(vj.InputError, match=message):
        attributes(**changes)


def test_celeba_attributes_goes_on_with_the_classifier_that_it_has_saved(attributes, tmp_path, monkeypatch, capsys):
    """A run that is stopped while its first model is trained has a classifier already."""
    import harness.faces

    trained = []

    def train(*given, **settings):
        trained.append(settings["steps"])
        return original(*given, **settings)

    def stop(*given, **settings):
        raise RuntimeError("stopped")

    original = harness.faces.train_attribute_classifier
    monkeypatch.setattr(harness.faces, "train_attribute_classifier", train)
    monkeypatch.setattr(Run, "train", stop)
    kept = CheckpointOptions(tmp_path / "kept")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="stopped"):
            attributes(checkpoints=kept)
    first, second = (line for line in capsys.readouterr().out.splitlines() if "balanced accuracy" in line)
    assert first == second
    for changes, found in (
        ({"classifier_steps": 6}, "steps is 5 there and 6 here"),
        ({"classifier_seed": 1}, "key is"),
        ({"channels": (4, 5)}, "convolutions is"),
        ({"data": DataOptions(data_dir=write_celeba(tmp_path / "others", seed=1))}, "data is"),
    ):
        with pytest.raises(vj.InputError, match=f"attribute_classifier holds checkpoints of another run .*{found}"):
            attributes(checkpoints=kept, **changes)
    assert trained == [5]


def test_the_classifier_of_attributes_has_the_seed_of_its_option_alone(tmp_path, monkeypatch):
    import celeba_attributes

    found = []

    def stop(key, *arguments, **settings):
        found.append(jax.random.key_data(key).tolist())
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.faces.train_attribute_classifier", stop)
    data = DataOptions(data_dir=write_celeba(tmp_path / "celeba"))
    small = {"training": TrainingOptions(batch_size=16), "latent_dim": 6, "channels": (4, 4)}
    for seeds in ({}, {"seed": 1}, {"classifier_seed": 1}):
        config = celeba_attributes.Config(out=tmp_path, data=data, **small, **seeds)
        with pytest.raises(KeyboardInterrupt):
            celeba_attributes.main(config)
    assert found[0] == found[1] != found[2]


CONVOLUTIONAL_PEER = """
import json, sys
assert sys.argv[1:] == ["--batch", "2", "--steps", "2", "--repeats", "2", "--mode", "eager", "--device", "cpu"]
for rate in (10.0, 30.0):
    print(json.dumps({"images_per_s": rate}))
"""


def test_benchmark_convolution(tmp_path, monkeypatch, capsys):
    peer = tmp_path / "peer.py"
    peer.write_text(CONVOLUTIONAL_PEER)
    (tmp_path / "torch.py").write_text("")  # a module of that name is all that is asked for
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    small = vj.conv_vae((8, 8, 3), 2, (4,)), vj.resnet_vae((8, 8, 3), 2, 4, blocks=(1, 1))
    monkeypatch.setattr(vj, "conv_vae", lambda: small[0])
    monkeypatch.setattr(vj, "resnet_vae", lambda *, width: {4: small[1]}[width])
    options = ("--batch-size", 2, "--rounds", 1, "--steps", 2, "--torch-python", sys.executable, "--peer", peer)
    run(monkeypatch, "benchmarks/convolution", *options)
    printed = capsys.readouterr().out
    rate, ratio = (float(re.search(p, printed)[1]) for p in (r"epochs': ([\d.]+)", r"epochs, ours / torch: ([\d.]+)"))
    assert ratio == pytest.approx(rate / 20, abs=0.006)
    peer.write_text(
        CONVOLUTIONAL_PEER.replace("assert ", 'assert sys.argv[-2:] == ["--width", "4"]; sys.argv[-2:] = []; assert ')
    )
    run(monkeypatch, "benchmarks/convolution", "--model", "resnet", "--width", 4, *options)
    assert "one step at a time, ours / torch" in capsys.readouterr().out


ACCELERATOR_PEER = """
import json, sys
assert sys.argv[1:7] == ["--batch", "3", "--steps", "4", "--repeats", "2"], sys.argv
assert sys.argv[7::2] == ["--mode", "--dtype", "--device"] and sys.argv[-1] == "cpu"
for rate in (10.0, 30.0):
    print(json.dumps({"images_per_s": rate + 100 * (sys.argv[8] == "compile") + (sys.argv[10] == "bfloat16")}))
"""


def test_benchmark_accelerator(tmp_path, monkeypatch, capsys):
    original = vj.mlp_vae
    monkeypatch.setattr(vj, "mlp_vae", lambda compute_dtype: original(hidden=(4,), compute_dtype=compute_dtype))
    (tmp_path / "torch.py").write_text("")  # a module of that name is all that is asked for
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    peer = tmp_path / "peer.py"
    peer.write_text(ACCELERATOR_PEER)
    options = ("--smoke", "--batch-size", 3, "--torch-python", sys.executable, "--peer", peer)
    run(monkeypatch, "benchmarks/accelerator", *options)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    ours = ["compiled epochs", "one step at a time", "2 members"]
    names = [f"{name}, {dtype}" for dtype in ("float32", "bfloat16") for name in ours]
    peers = [f"PyTorch, {mode}, {dtype}" for mode in ("eager", "compile") for dtype in ("float32", "bfloat16")]
    assert [row[0] for row in rows[1:]] == names + peers
    assert [row[1:4] for row in rows[-4:]] == [[str(a + 20), str(a + 10), str(a + 30)] for a in (0, 1, 100, 101)]
    assert "rounds is 0" in refused(monkeypatch, capsys, "benchmarks/accelerator", "--rounds", 0)


PEER = """
import json, sys
batch, steps, pixels, repeats = map(int, sys.argv[2:9:2])
assert sys.argv[1:9:2] == ["--batch", "--steps", "--pixels", "--repeats"] and (batch, repeats, pixels) == (16, 2, 36)
assert sys.argv[9:] == ["--device", "cpu"]
for seconds in (2.0, 4.0):
    print(json.dumps({"images_per_s": batch * steps / seconds}))
"""


def test_benchmark(tiny, tmp_path, monkeypatch, capsys):
    peer, torch, out = tmp_path / "peer.py", tmp_path / "torch.py", tmp_path / "out"
    peer.write_text(PEER)
    options = ["--data-dir", tiny, "--batch-size", 16, "--epochs", 3, "--rounds", 2, "--out", out, "--peer", peer]
    run(monkeypatch, "benchmarks/mlp", *options)
    assert "No PyTorch to compare with: give --torch-python" in capsys.readouterr().out
    assert json.loads((out / "benchmark_mlp.json").read_text())["ratio_torch_over_ours"] is None
    run(monkeypatch, "benchmarks/mlp", *options, "--torch-python", sys.executable)
    assert "cannot import torch" in capsys.readouterr().out
    torch.write_text("")  # a module of that name is all that is asked for
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run(monkeypatch, "benchmarks/mlp", *options, "--torch-python", sys.executable)
    report = json.loads((out / "benchmark_mlp.json").read_text())
    assert report["seconds_per_epoch"]["torch"] == pytest.approx([2.0, 4.0, 2.0, 4.0])
    assert len(report["seconds_per_epoch"]["ours"]) == 4
    assert report["ratio_torch_over_ours"] == pytest.approx(3 / report["medians"]["ours"])
    peer.write_text("raise SystemExit('no such data')")
    assert "no such data" in refused(monkeypatch, capsys, "benchmarks/mlp", *options, "--torch-python", sys.executable)
    assert "learning_rate is 0.01, but the optimizer is that of the peer, Adam at 1e-3; expected no --learning-" in (
        refused(monkeypatch, capsys, "benchmarks/mlp", *options, "--learning-rate", 0.01)
    )


def test_benchmark_fit(tiny, tmp_path, monkeypatch):
    out = tmp_path / "out"
    options = ("--together", 2, "--rounds", 1, "--epochs", 1, "--batch-size", 8, "--memory-epochs", 3)
    run(monkeypatch, "benchmarks/fit", "--data-dir", tiny, "--out", out, *options)
    report = json.loads((out / "benchmark_fit.json").read_text())
    assert len(report["ratios"]) == 3
    for found in report["ratios"].values():
        ((one, other),) = found["seconds"]
        assert found["ratio"] == pytest.approx(one / other)
    assert len(report["memory"]["mebibytes_by_epoch"]) == 3
    assert report["memory"]["compilations"] == 1


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow_datasets", "sklearn", "tyro", "tqdm", "scipy", "tensorflow"}:
            raise ImportError(f"{name} is absent")

sys.meta_path.insert(0, Absent())
import jax, numpy as np, optax
import vae_jax as vj

images = np.random.default_rng(0).integers(0, 256, (64, 6, 6))
data = vj.Dataset.from_arrays("noise", images, test_images=images)
vae, optimizer = vj.mlp_vae(data.event_shape, hidden=(8,)), optax.adam(1e-3)
step = vj.make_train_step(vae, vj.ELBO(), optimizer)
state, history = vj.fit(vj.init(jax.random.key(0), vae, optimizer), step, data.train, epochs=2, batch_size=16)
encodings = vj.encode_all(jax.random.key(1), vae, state.variables, data.test).mean
assert not {"matplotlib", "orbax"} & set(sys.modules)
vj.plot.encodings(encodings, None, vj.latents.circle(encodings), "noise").savefig(sys.argv[1])
try:
    vj.load("mnist")
except vj.DataNotFoundError as error:
    print(error)
assert not {"tensorflow_datasets", "sklearn", "tyro"} & set(sys.modules)
"""


def test_the_library_trains_and_draws_without_its_optional_packages(tmp_path):
    picture = tmp_path / "figure.png"
    result = subprocess.run([sys.executable, "-c", WITHOUT, picture], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "tensorflow-datasets cannot be imported" in result.stdout
    assert picture.stat().st_size > 1000


def test_mnist_likelihood(tiny, tmp_path, monkeypatch, capsys, titles):
    out, kept = tmp_path / "out", tmp_path / "kept"
    options = ("--data-dir", tiny, "--epochs", 3, "--samples", 20, "--k", 1, 5)
    run(monkeypatch, "mnist_likelihood", *options, "--out", out, "--checkpoint-dir", kept)
    report = json.loads((out / "mnist_likelihood.json").read_text())
    assert re.fullmatch("[0-9a-f]{64}", report["binarised_test_sha256"])
    printed = capsys.readouterr().out
    for model, k in zip(report["models"], (1, 5), strict=True):
        assert (model["k"], model["samples"], model["binarisation"]) == (k, 20, "dynamically binarised")
        assert model["name"] == ("VAE, k = 1" if k == 1 else "IWAE, k = 5")
        assert model["epochs"] == len(model["test_bound_by_epoch"])
        assert model["test_bound"] <= model["test_log_px"] + 1 < 1
        assert model["standard_error"] > 0
        assert 0 <= model["active_units"] <= 50
        assert model["bounds"][str(k)] == model["test_bound"]
        assert model["bounds"]["20"] == model["test_log_px"]
        line = f"-log p(x) {-model['test_log_px']:.2f} +- {model['standard_error']:.2f} nats (20 samples, dynamically"
        assert line in printed
    pictures = {path.stem.removeprefix("mnist_likelihood_") for path in out.glob("*.png")}
    assert pictures == {"samples", "bounds", "minutes"}
    assert "dynamically binarised" in titles["bounds"]
    assert "Burda et al. (2016), k = 5: 85.54" in titles["bounds"]

    others = ("--seed", 1, "--checkpoint-dir", kept, "--out", out)
    refusal = refused(monkeypatch, capsys, "mnist_likelihood", *options, *others)
    assert "seed is 0 there and 1 here" in refusal


def test_mnist_likelihood_by_the_papers_schedule(tiny, tmp_path, monkeypatch):
    out = tmp_path / "out"
    options = ("--schedule", "paper", "--epochs", 4, "--batch-size", 48, "--k", 1, "--samples", 10)
    run(monkeypatch, "mnist_likelihood", "--data-dir", tiny, "--out", out, *options)
    report = json.loads((out / "mnist_likelihood.json").read_text())
    (model,) = report["models"]
    assert (model["epochs"], model["batch_size"]) == (report["epochs"], report["batch_size"]) == (4, 48)


def test_mnist_likelihood_refuses_a_rate_beside_the_papers(tiny, monkeypatch, capsys):
    for name in ("learning-rate", "weight-decay"):
        options = ("--data-dir", tiny, "--schedule", "paper", f"--{name}", 0.01)
        assert "0.01, but the published schedule" in refused(monkeypatch, capsys, "mnist_likelihood", *options)


def test_tables(tmp_path, monkeypatch, capsys):
    models = ("--tables", "wine", "--latent-dims", 1, "--likelihoods", "Student-t")
    run(monkeypatch, "tables", *models, "--epochs", 6, "--folds", 2, "--samples", 20, "--out", tmp_path)
    models = json.loads((tmp_path / "tables.json").read_text())["tables"]["wine"]
    assert list(models) == ["Gaussian", "mixture of Gaussians", "factor analysis, 1", "VAE, Student-t, 1"]
    printed = capsys.readouterr().out
    for name, model in models.items():
        assert model["rows"] == 178
        assert model["log_px"] < 0 < model["standard_error"]
        assert f"  {name}: {model['log_px']:.2f} +- {model['standard_error']:.2f}" in printed
        gain = model["log_px"] - models["factor analysis, 1"]["log_px"]
        assert ("gain" in model) == name.startswith("VAE")
        assert model.get("gain", gain) == pytest.approx(gain, abs=1e-4)
    assert (tmp_path / "tables.png").exists()

    # The Gaussian's number by an independent route.
    table = load_wine().data
    log_px = np.empty(len(table))
    for inside, outside in KFold(2, shuffle=True, random_state=0).split(table):
        rows = (table - table[inside].mean(0)) / table[inside].std(0)
        covariance = np.cov(rows[inside].T, bias=True) + 1e-6 * np.eye(rows.shape[1])
        log_px[outside] = scipy.stats.multivariate_normal(np.zeros(rows.shape[1]), covariance).logpdf(rows[outside])
    assert models["Gaussian"]["log_px"] == pytest.approx(log_px.mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tables", "wine", "cheese"), "tables are wine, cheese; expected some of breast_cancer, wine"),
        (("--likelihoods", "Cauchy"), "likelihoods are Cauchy; expected some of Gaussian, Student-t"),
        (("--folds", 1), "folds is 1; expected from 2 to 20"),
        (("--latent-dims", 2, 0), r"latent_dims\[1\] is 0"),
        (("--samples", 0), "samples is 0"),
    ],
)
def test_tables_refuses(tmp_path, monkeypatch, capsys, options, message):
    assert re.search(message, refused(monkeypatch, capsys, "tables", "--out", tmp_path, *options))


def test_mnist_priors(tiny, tmp_path, monkeypatch, capsys):
    out, kept = tmp_path / "out", tmp_path / "kept"
    chosen = ["standard", "vamp", "flow_posterior"]
    monkeypatch.setattr(vj, "Coupling", lambda **_: COUPLING)
    options = ("--data-dir", tiny, "--epochs", 2, "--samples", 20, "--components", 3, "--batch-size", 48)
    run(monkeypatch, "mnist_priors", *options, "--models", *chosen, "--out", out, "--checkpoint-dir", kept)
    models = json.loads((out / "mnist_priors.json").read_text())["models"]
    assert list(models) == chosen
    assert (models["standard"]["gain"], models["standard"]["standard_error_of_gain"]) == (0, 0)
    printed = capsys.readouterr().out
    for name, model in models.items():
        assert model["test_log_px"] < 0 < model["standard_error"]
        assert model["samples"] == 20
        assert 1 <= model["effective_samples_median"] <= 20
        difference = model["test_log_px"] - models["standard"]["test_log_px"]
        assert model["gain"] == pytest.approx(difference, abs=1e-3)
        if name != "standard":
            assert f"{difference:+.2f} +- {model['standard_error_of_gain']:.2f} beside N(0, I)" in printed
    assert {path.name for path in out.glob("*.png")} == {"mnist_priors_samples.png"}

    others = ("--models", "vamp", "--components", 4, "--checkpoint-dir", kept, "--out", out)
    assert "components" in refused(monkeypatch, capsys, "mnist_priors", *options, *others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--models", "standard", "vampire"), "models are standard, vampire; expected some of standard, mixture"),
        (("--models",), r"models is \[\]; expected one value or more, each once"),
        (("--models", "vamp", "vamp"), r"models is \['vamp', 'vamp'\]; expected one value or more, each once"),
        (("--kl-warm-up", 0), "kl_warm_up is 0"),
        (("--samples", 0), "samples is 0"),
        (("--components", 0), "components is 0"),
    ],
)
def test_mnist_priors_refuses(tiny, monkeypatch, capsys, options, message):
    assert re.search(message, refused(monkeypatch, capsys, "mnist_priors", "--data-dir", tiny, *options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--samples", 0), "samples is 0"),
        (("--k", 1, 0), r"k\[1\] is 0"),
        (("--k",), r"k is \[\]; expected one value or more, each once"),
        (("--k", 5, 5), r"k is \[5, 5\]; expected one value or more, each once"),
        (("--weight-decay", -1), "weight_decay"),
    ],
)
def test_mnist_likelihood_refuses(tiny, monkeypatch, capsys, options, message):
    assert re.search(message, refused(monkeypatch, capsys, "mnist_likelihood", "--data-dir", tiny, *options))
