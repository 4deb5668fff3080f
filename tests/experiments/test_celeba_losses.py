"""The script with four losses on faces: tiny runs, its measures, and bad input."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import celeba_losses
import jax
import numpy as np
import optax
import pytest
from celeba_losses import Config, main
from conftest import drawn
from harness import face_measures
from harness.options import CheckpointOptions, DataOptions, TrainingOptions
from test_experiments import write_celeba

import vae_jax as vj

MODELS = ("plain", "perceptual", "adversarial", "both")


@pytest.fixture
def celeba(tmp_path):
    """CelebA's layout with one attribute more, by which the features are trained."""
    folder = write_celeba(tmp_path / "celeba")
    path = folder / "list_attr_celeba.txt"
    count, names, *rows = path.read_text().splitlines()
    rows = [f"{row} {1 if i % 2 else -1}" for i, row in enumerate(rows)]
    path.write_text("\n".join([count, f"{names} Smiling", *rows]) + "\n")
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(celeba_losses, "COMPARED", (4, 4))
    monkeypatch.setattr(celeba_losses, "MEASURING", (4,))
    monkeypatch.setattr(face_measures, "DETECTED", 2)
    priors = {
        "normal": vj.StandardNormal(),
        "mixture": vj.FullGaussianMixture(2),
        "flow": vj.FlowPrior(vj.Coupling(1, (4,))),
    }
    monkeypatch.setattr(celeba_losses, "PRIORS", priors)


def config(tmp_path, folder, **more):
    return Config(
        out=tmp_path / "out",
        data=DataOptions(data_dir=folder),
        training=TrainingOptions(epochs=2, batch_size=16),
        latent_dim=6,
        channels=(4, 4),
        discriminator_channels=(4,),
        **more,
    )


@pytest.mark.parametrize("pca", [True, False])
def test_the_rates_of_the_model_and_of_the_discriminator_decay_to_zero(pca, tmp_path):
    """Linear paths that start at probabilistic PCA have a twentieth of the rate."""
    one = np.ones(2, np.float32)
    params = {"encoder": {"linear": {"kernel": one}, "dense": {"kernel": one}}, "discriminator": {"dense": one}}
    optimizer = celeba_losses.optimizer(SimpleNamespace(steps=100), config(tmp_path, tmp_path, pca=pca))
    update = jax.jit(lambda state: optimizer.update(jax.tree.map(np.ones_like, params), state, params))
    state, sizes = optimizer.init(params), []
    for _ in range(101):
        change, state = update(state)
        parts = change["encoder"] | {"discriminator": change["discriminator"]}
        sizes.append({name: float(optax.tree.norm(of_part)) for name, of_part in parts.items()})
    ratio = sizes[50]["linear"] / sizes[50]["dense"]
    np.testing.assert_allclose(ratio, 1 / 20 if pca else 1, rtol=1e-5)
    for name in sizes[0]:
        assert sizes[0][name] == sizes[100][name] == 0 < sizes[99][name] < sizes[50][name] < sizes[5][name]


def test_a_discriminator_of_pairs_may_be_right_for_all_of_them(tmp_path):
    trained = SimpleNamespace(history=[{"discriminator_accuracy": 1.0}], seconds_per_epoch=1.0)
    pairs = config(tmp_path, tmp_path)
    assert celeba_losses.of_training(trained, pairs)["discriminator_accuracy"] == [1.0]
    with pytest.warns(vj.AdversarialWarning, match="saturated"):
        celeba_losses.of_training(trained, replace(pairs, relativistic=False))


@pytest.mark.filterwarnings("ignore::vae_jax.AdversarialWarning")  # after six steps
def test_four_models_are_measured_and_drawn(celeba, tmp_path, capsys, titles, monkeypatch):
    given_images, paired, starts, fitted, encoded = [], [], [], [], []

    def train(*given, **settings):
        starts.append(settings["variables"])
        return original_train(*given, **settings)

    original_train = celeba_losses.Run.train
    monkeypatch.setattr(celeba_losses.Run, "train", train)

    def of_images(*given, **settings):
        given_images.append(given[0])
        paired.append(settings["paired"])
        return original(*given, **settings)

    original = celeba_losses.of_images
    monkeypatch.setattr(celeba_losses, "of_images", of_images)

    def fit_prior(key, model, variables, images, *given, **settings):
        fitted.append(images)
        return original_fit_prior(key, model, variables, images, *given, **settings)

    original_fit_prior = vj.fit_prior
    monkeypatch.setattr(vj, "fit_prior", fit_prior)
    monkeypatch.setattr(celeba_losses, "FITTED", 20)

    def encode_all(key, model, variables, split, **settings):
        encoded.append(split.images)
        return original_encode_all(key, model, variables, split, **settings)

    original_encode_all = vj.encode_all
    monkeypatch.setattr(vj, "encode_all", encode_all)
    checkpoints = CheckpointOptions(tmp_path / "checkpoints")
    report = main(config(tmp_path, celeba, checkpoints=checkpoints)).numbers
    assert report["layers"] == ["conv1", "conv2"]
    assert len(starts) == len(MODELS)
    assert all(start is starts[0] for start in starts)
    images = vj.load("celeba", data_dir=celeba).train.images
    assert len(fitted) == 2 * len(MODELS)
    np.testing.assert_array_equal(fitted[0], np.concatenate([images[:20], images[:20, :, ::-1]]))
    seen = np.round(255 * given_images[0]).astype(np.uint8)  # the training faces in another order
    np.testing.assert_array_equal(np.unique(seen, axis=0), np.unique(images, axis=0))
    assert sum(np.array_equal(each, seen) for each in encoded) == len(MODELS)
    mean = (images / 255 + images[:, :, ::-1] / 255).mean(axis=0) / 2
    np.testing.assert_allclose(starts[0]["params"]["decoder"]["linear"]["bias"], mean.ravel(), atol=1e-5)
    assert tuple(report["models"]) == MODELS
    each = [True, False, False, False, False]  # reconstructions, and draws of three priors and the aggregated posterior
    assert paired == [False, *len(MODELS) * each]  # first the training faces
    assert report["faces"]["training_faces"]["frechet"]["mean"] > 0
    for name, found in report["models"].items():
        assert found["squared_error"]["mean"] > 0
        assert found["perceptual_distance"]["standard_error"] > 0
        for part in ("reconstructions", "normal", "mixture", "flow", "aggregated_posterior"):
            of = found[part]
            assert of["frechet"]["mean"] > 0
            assert 0 <= of["coverage"]["mean"] <= 1
            assert 0 <= of["detected"]["mean"] <= 1
            assert of["sharpness"]["mean"] > 0
        assert set(found["attributes"]) == {"Blond_Hair", "Eyeglasses"}
        assert len(found["discriminator_accuracy"]) == (2 if name in ("adversarial", "both") else 0)
    written = json.loads((tmp_path / "out" / "celeba_losses.json").read_text())
    assert written["models"]["both"]["squared_error"] == report["models"]["both"]["squared_error"]
    printed = capsys.readouterr().out
    assert f"plain: squared error {report['models']['plain']['squared_error']['mean']:.1f} +- " in printed
    pictures = {path.stem.removeprefix("celeba_losses_") for path in (tmp_path / "out").glob("*.[jp][pn]g")}
    assert pictures == {"reconstructions", "decoded", "interpolation", "draws", "attributes", "discriminator"}
    assert all("CelebA, seed 0" in title for title in titles.values())
    _, variables = vj.restore_model(tmp_path / "checkpoints" / "both")
    assert variables["params"].keys() == {"encoder", "decoder"}

    chosen = replace(config(tmp_path, celeba, models=("perceptual",)), out=tmp_path / "chosen")
    again = main(chosen).numbers["models"]
    seconds = {"seconds_per_epoch": again["perceptual"]["seconds_per_epoch"]}
    assert again == {"perceptual": report["models"]["perceptual"] | seconds}
    assert not list((tmp_path / "chosen").glob("*discriminator*"))


def test_features_of_the_encoder_are_those_of_the_plain_model(tmp_path, monkeypatch):
    """They need no other attributes than those that are measured."""
    four = write_celeba(tmp_path / "four")
    checkpoints = CheckpointOptions(tmp_path / "checkpoints")
    found = []

    def stop(run, network, variables):
        found.append((network, variables))
        raise KeyboardInterrupt

    monkeypatch.setattr(celeba_losses, "features_with_scales", stop)
    with pytest.raises(KeyboardInterrupt):
        main(config(tmp_path, four, features="encoder", checkpoints=checkpoints))
    ((network, variables),) = found
    assert network == vj.ConvFeatures((4, 4))
    _, plain = vj.restore_model(tmp_path / "checkpoints" / "plain")
    for name, layer in variables["params"].items():
        jax.tree.map(np.testing.assert_array_equal, layer, plain["params"]["encoder"][name])


def test_the_perceptual_distance_of_two_faces_is_about_one():
    network = vj.ConvFeatures((4, 4))
    variables = drawn(network.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    images = np.random.default_rng(0).random((40, 64, 64, 3)).astype(np.float32)
    split = vj.Split(np.round(255 * images).astype(np.uint8))
    run = type("Run", (), {"data": type("Data", (), {"train": split})})
    features = celeba_losses.features_with_scales(run, network, variables)
    distance = partial(celeba_losses.relative_distance, features)
    np.testing.assert_allclose(distance(images[1:], images[:-1]).mean(), 1, rtol=0.01)
    np.testing.assert_allclose(distance(images[:3], images[:3]), 0)


def two_means(images):
    """Features that are two means of the pixels."""
    return images.reshape(len(images), 2, -1).mean(axis=-1)


def test_errors_of_reconstructions_are_those_of_pairs():
    """Over many sets of faces and their reconstructions, each number deviates by about its standard error."""
    generator = np.random.default_rng(0)
    contrasts = generator.gamma(4, size=(60, 100, 1, 1, 1))  # of different faces, and hardly changed
    faces = contrasts * (1 + generator.random((60, 100, 4, 4, 3)))
    again = 0.8 * faces + 0.1 * contrasts * generator.random(faces.shape)

    def found(paired, count):
        images = [
            face_measures.of_images(y, x, two_means, paired=paired)
            for x, y in zip(faces[:count], again[:count], strict=True)
        ]
        return {
            name: [np.array([each[name][part] for each in images]) for part in ("mean", "standard_error")]
            for name in ("frechet", "sharpness")
        }

    for name, (values, errors) in found(True, 60).items():
        assert errors.mean() == pytest.approx(values.std(), rel=0.25), name
    assert found(False, 3)["sharpness"][1].mean() > 3 * found(True, 3)["sharpness"][1].mean()


def test_the_distance_of_draws_is_the_mean_over_sets():
    generator = np.random.default_rng(0)
    faces, *sets = generator.random((3, 40, 4, 4, 3))
    alone = [face_measures.of_images(each, faces, two_means, paired=False) for each in sets]
    both = face_measures.of_images(np.concatenate(sets), faces, two_means, paired=False)
    assert both["frechet"]["mean"] == pytest.approx(np.mean([each["frechet"]["mean"] for each in alone]))
    assert both["coverage"] == alone[0]["coverage"]


def test_a_detector_finds_a_face_and_none_in_noise():
    from skimage.data import astronaut

    face = astronaut()[60:170, 170:280].astype(np.float32)[::2, ::2] / 255
    noise = np.random.default_rng(0).random((55, 55, 3)).astype(np.float32)
    assert face_measures.has_face(face)
    assert not face_measures.has_face(noise)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ()}, r"models is \(\); expected one or more of plain, perceptual, adversarial, both"),
        ({"models": ("both",), "features": "encoder"}, "encoder of the plain model; add plain to --models"),
        ({"perceptual_weight": 0.0}, "perceptual_weight is 0"),
        ({"adversarial_weight": -1.0}, "adversarial_weight is -1"),
        ({"feature_weight": -1.0}, "feature_weight is -1"),
        ({"noise": -1.0}, "noise is -1"),
        ({"penalty": float("nan")}, "penalty is nan"),
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"channels": (4, 0)}, "is 0; expected a whole number of at least 1"),
        ({"channels": (4,) * 7}, "images of 64 x 64 pixels cannot be halved 7 times"),
        ({"discriminator_channels": (4, 0)}, r"discriminator_channels\[1\] is 0"),
        ({"discriminator_channels": ()}, r"discriminator_channels is \(\); expected one number of channels or more"),
        (
            {"discriminator_channels": (4,) * 7},
            r"channels is \(4, .*\), with which images of 64 x 64 pixels cannot be halved 7 times by Disc",
        ),
        ({"features": "vgg19"}, "needs --weights FILE"),
        ({"weights": Path("vgg19.npz")}, "are those of attributes; add --features vgg19"),
        ({"classifier_steps": 0}, "classifier_steps is 0"),
    ],
)
def test_bad_options(settings, message, celeba, tmp_path, monkeypatch):
    monkeypatch.setattr("vae_jax.training.loop.run_chunk", lambda *args, **kwargs: pytest.fail("training began"))
    with pytest.raises(vj.InputError, match=message):
        main(replace(config(tmp_path, celeba), **settings))


def test_the_classifiers_are_saved_and_loaded(celeba, tmp_path, monkeypatch):
    """A second start has the same bits, also where training would give others."""
    found = []

    def stop(key, run, *given, **settings):
        classifier = original(key, run, *given, **settings)
        found.append(classifier(run.data.test.images[:3] / np.float32(255)))
        if len(found) % 2 == 0:
            raise RuntimeError("stopped")
        return classifier

    original = celeba_losses.attribute_classifier
    monkeypatch.setattr(celeba_losses, "attribute_classifier", stop)
    given = config(tmp_path, celeba, checkpoints=CheckpointOptions(tmp_path / "kept"))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="stopped"):
            main(given)
        monkeypatch.setattr("harness.faces.train_attribute_classifier", lambda *_, **__: pytest.fail("trained again"))
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"compared_classifier", "independent_classifier"}
    for first, second in zip(found[:2], found[2:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, first, second)


def test_faces_that_cannot_be_measured_are_refused(tmp_path, tiny):
    with pytest.raises(vj.InputError, match="there are 5 test faces; expected 6 or more"):
        main(config(tmp_path, write_celeba(tmp_path / "few", 65)))
    with pytest.raises(vj.InputError, match="no other attributes than Blond_Hair"):
        main(config(tmp_path, write_celeba(tmp_path / "four")))
    digits = Config(out=tmp_path, data=DataOptions("mnist", tiny), training=TrainingOptions(epochs=1, batch_size=16))
    with pytest.raises(vj.InputError, match="no attributes; take celeba or faces"):
        main(digits)
