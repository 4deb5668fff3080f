"""A model in one call: saved and loaded to the same bits, never silently broken; and exported to run with JAX alone."""

import random
import shutil
import subprocess
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import drawn, small_split

import vae_jax as vj
from vae_jax.checkpoints import export, load_model, restore_model, save
from vae_jax.checkpoints.description import describe
from vae_jax.checkpoints.lock import FolderLock
from vae_jax.checkpoints.numbered import SealedFolder, by_name
from vae_jax.networks import MLP

VAE = vj.mlp_vae((6, 6, 1), latent_dim=2, hidden=(32,))


def variables_of(vae=VAE, seed=0):
    return drawn(vae.init, jax.random.key(0), seed=seed)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def numbers_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize(
    ("vae", "transform"),
    [
        (VAE, None),
        (
            vj.mlp_vae((6, 6, 1), 2, (4,), classes=3, likelihood=vj.LearnedGaussian(0.5)),
            vj.Mirrored(vj.Scale(-1.0, 1.0)),
        ),
        (vj.batch_norm_vae((6, 6, 1), 2, (4,)), vj.StaticBinarize(7)),
        (vj.conv_vae((8, 8, 1), 2, (4,)), vj.Dequantize()),
        (vj.mlp_vae((5,), 2, (4,), posterior=vj.FlowPosterior(vj.Coupling())), vj.Raw(low=0.0)),
    ],
    ids=["plain", "conditional", "batch norm", "conv", "flow"],
)
def test_a_saved_model_comes_back_with_the_same_bits(tmp_path, vae, transform):
    variables = variables_of(vae)
    save(tmp_path / "model", vae, variables, transform)
    loaded = load_model(tmp_path / "model")
    assert loaded.model == vae
    assert loaded.transform == transform
    assert_same(loaded.variables, variables)
    assert_same(restore_model(tmp_path / "model")[1], variables)


def test_types_of_variables_are_kept(tmp_path):
    half = jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf).astype(jnp.bfloat16)), variables_of())
    save(tmp_path / "half", VAE, half)
    assert_same(load_model(tmp_path / "half").variables, half)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jax.device_put(np.float64(leaf) + 1e-12), variables_of())
        save(tmp_path / "double", VAE, double)
        assert_same(load_model(tmp_path / "double").variables, double)
    with pytest.raises(vj.InputError, match=r"is float64; load it after jax.config.update\(\"jax_enable_x64\", True\)"):
        load_model(tmp_path / "double")


def test_a_prior_that_starts_from_examples_comes_back(tmp_path):
    vae = vj.mlp_vae((6, 6, 1), 2, (4,), prior=vj.VampPrior(3))
    images, optimizer = jnp.asarray(small_split(8).images / np.float32(255)), optax.sgd(0.1)
    state = jax.jit(lambda data: vj.init(jax.random.key(0), vae, optimizer, data=data))(images)
    save(tmp_path / "saved", vae, state.variables)
    assert_same(load_model(tmp_path / "saved").variables, state.variables)
    vj.Checkpoints(tmp_path / "run", {}, model=vae).save(1, state, {}, last=True)
    assert_same(restore_model(tmp_path / "run")[1], state.variables)


def test_variables_of_other_parts_are_left_out(tmp_path):
    variables = variables_of()
    more = {"params": variables["params"] | {"discriminator": {"w": jnp.ones(3)}}}
    save(tmp_path / "saved", VAE, more)
    assert_same(load_model(tmp_path / "saved").variables, variables)
    state = {"variables": more}
    store = vj.Checkpoints(tmp_path / "run", {}, model=VAE, variables=lambda state: state["variables"])
    store.save(1, state, {}, last=True)
    assert_same(restore_model(tmp_path / "run")[1], variables)


def test_a_model_that_is_saved_again_replaces_the_first(tmp_path, monkeypatch):
    for seed in (0, 1, 2):
        save(tmp_path, VAE, variables_of(seed=seed))
        assert len(numbers_in(tmp_path)) == 1
    assert_same(load_model(tmp_path).variables, variables_of(seed=2))

    def no_space(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vae_jax.checkpoints.numbered._seal_files", no_space)
    with pytest.raises(vj.CheckpointError, match=r"can't be written to .* \(No space left on device\); .* still there"):
        save(tmp_path, VAE, variables_of(seed=3))
    assert_same(load_model(tmp_path).variables, variables_of(seed=2))
    (tmp_path / "9.orbax-checkpoint-tmp").mkdir()
    monkeypatch.undo()
    save(tmp_path, VAE, variables_of(seed=4))
    assert len(numbers_in(tmp_path)) == 1, "incomplete files of a killed process are removed"


def test_no_folder_of_a_run_or_of_other_files_is_overwritten(tmp_path):
    optimizer = optax.sgd(0.1)
    state = vj.init(jax.random.key(0), VAE, optimizer, variables=variables_of())
    vj.Checkpoints(tmp_path / "run", {}, model=VAE).save(7, state, {}, last=True)
    with pytest.raises(vj.InputError, match="run holds the checkpoints of a run; choose another folder"):
        save(tmp_path / "run", VAE, variables_of(seed=1))
    assert numbers_in(tmp_path / "run") == ["7"]
    assert_same(load_model(tmp_path / "run").variables, state.variables)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(vj.InputError, match=r"holds files that are not checkpoints \(a.png\)"):
        save(tmp_path / "photos", VAE, variables_of())
    save(tmp_path / "model", VAE, variables_of())
    with pytest.raises(vj.InputError, match=r"checkpoints of another run .*kind is 'a saved model' there"):
        vj.Checkpoints(tmp_path / "model", {}).restore(state)
    lock = FolderLock(tmp_path / "model")
    lock.take()
    with pytest.raises(vj.InputError, match="is in use: another object of this process"):
        save(tmp_path / "model", VAE, variables_of())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (VAE, variables_of(), "path"),
            r"path is an object of type VAE; expected a folder: vj\.save\(path, model, variables\)",
        ),
        (
            ("{}", variables_of(), VAE),
            r"variables is an object of type VAE; expected a dict of collections: the variables of model.init",
        ),
        (
            ("{}", VAE, vj.init(jax.random.key(0), VAE, optax.sgd(0.1), variables=variables_of())),
            r"is an object of type TrainState; .*: state\.variables",
        ),
        (("{}", {"params": {}}, variables_of()), r"model is a dict; expected a model"),
        (("{}", VAE, {"params": {}}), r"variable params\.decoder\.Dense_0\.bias is missing, but the model has one"),
        (
            ("{}", VAE, variables_of(vj.mlp_vae((6, 6, 1), 2, (8,)))),
            r"decoder\.Dense_0\.bias has shape \(8,\), but the model has one of shape \(32,\); expected the variables",
        ),
        (
            ("{}", VAE, jax.tree.map(lambda leaf: jnp.asarray(np.stack([leaf] * 3)), variables_of())),
            r"has shape \(3, 32\), .* \(32,\); take one of several members by vj\.member",
        ),
        (
            ("{}", vj.mlp_vae((6, 6, 1), 2, ()), variables_of()),
            r"decoder\.Dense_0\.\w+ has shape",
        ),
        (
            ("{}", VAE, variables_of(), lambda keys, images, labels: None),
            "transform can't be saved: .*<lambda>.*leave it out",
        ),
    ],
)
def test_what_can_not_be_saved_is_one_sentence(tmp_path, arguments, message):
    path = tmp_path / "model" if arguments[0] == "{}" else arguments[0]
    with pytest.raises(vj.InputError, match=message):
        save(path, *arguments[1:])
    assert not (tmp_path / "model").exists(), "it was refused too late"


def test_a_folder_without_a_model_is_one_sentence(tmp_path):
    with pytest.raises(
        vj.InputError, match=r"there is no checkpoint in .*nowhere; expected a folder written by vj\.save"
    ):
        load_model(tmp_path / "nowhere")
    with pytest.raises(vj.InputError, match=r"no checkpoint in .*nowhere; expected the folder of a run's checkpoints$"):
        vj.restore_model(tmp_path / "nowhere")
    with pytest.raises(vj.InputError, match=r"no checkpoint in .*best; keep one with Checkpoints\(\.\.\., best=\)$"):
        vj.restore_model(tmp_path / "nowhere", best=True)
    assert not (tmp_path / "nowhere").exists()


def test_no_damaged_model_is_loaded(tmp_path):
    save(tmp_path / "whole", VAE, variables_of(), vj.Scale())
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole" / "1").rglob("*") if path.is_file()]
    chance, refused = random.Random(0), 0
    assert len(files) > 8
    for file in files:
        shutil.copytree(tmp_path / "whole", tmp_path / "broken")
        content = bytearray((tmp_path / "broken" / file).read_bytes())
        content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
        (tmp_path / "broken" / file).write_bytes(content)
        try:
            loaded = load_model(tmp_path / "broken")
        except vj.InputError as error:
            refused += "checkpoint 1 is broken" in str(error)
        else:
            assert loaded.model == VAE
            assert_same(loaded.variables, variables_of())
        shutil.rmtree(tmp_path / "broken")
    assert refused > 3


@pytest.mark.parametrize("part", ["model", "transform"])
def test_a_description_of_a_stranger_runs_no_code(tmp_path, monkeypatch, part):
    monkeypatch.chdir(tmp_path)
    descriptions = {"model": describe(VAE), "transform": describe(vj.Scale())}
    touch = {"class": "functools:partial", "func": {"import": "os:system"}, "args": ["touch touched"]}
    touch["keywords"] = {"class": "builtins:dict", "items": {}}
    if part == "model":
        descriptions["model"]["encoder"]["activation"] = touch
    else:
        descriptions["transform"] = touch
    folder = SealedFolder(tmp_path / "kept")
    content = {"config": {}, "run": {}, "members": None, "notes": {}} | descriptions
    folder.write(1, {"variables": by_name(variables_of())}, content)
    folder.finish()
    with pytest.raises(vj.InputError, match=rf"^{part}\.?.*func is os:system, which is none of"):
        load_model(tmp_path / "kept", modules=("mine",))
    assert not (tmp_path / "touched").exists()


class Own(MLP):
    """A network that is defined outside of the library."""


@dataclass(frozen=True)
class Shifted(vj.Scale):
    """A transform that is defined outside of the library."""


def test_code_of_trusted_modules_is_loaded(tmp_path):
    vae = vj.VAE(Own((3,), (2, 2)), MLP((3,), (6, 6, 1)), (6, 6, 1), 2)
    save(tmp_path, vae, variables_of(vae), Shifted())
    with pytest.raises(
        vj.InputError, match=rf"modules=\('{__name__}',\); or give the model itself: load_model\(.*model="
    ):
        load_model(tmp_path)
    loaded = load_model(tmp_path, modules=(__name__,))
    assert (loaded.model, loaded.transform) == (vae, Shifted())


def local_vae(activation=None, widths=(3,)):
    """A model that no other process can make."""

    class Local(MLP):
        pass

    Local.__module__, Local.__qualname__ = "__main__", "Local"
    settings = {} if activation is None else {"activation": activation}
    return vj.VAE(Local(widths, (2, 2), **settings), MLP((3,), (6, 6, 1)), (6, 6, 1), 2)


def store_of_notebook(where, folder, vae, state):
    if where == "saved":
        save(folder, vae, state["variables"])
    else:
        store = vj.Checkpoints(folder, {}, model=vae, variables=lambda state: state["variables"])
        store.save(1, state, {}, last=True)


@pytest.mark.parametrize("where", ["saved", "run"])
def test_a_model_of_a_notebook_is_given_again(tmp_path, where):
    vae = local_vae()
    state = {"variables": variables_of(vae)}
    function = {"saved": "load_model", "run": "restore_model"}[where]
    with pytest.warns(vj.CheckpointWarning, match=rf'^{function} .*is __main__:Local, .*: {function}\(".*", model=\)$'):
        store_of_notebook(where, tmp_path, vae, state)
    load = {"saved": load_model, "run": restore_model}[where]
    with pytest.raises(vj.InputError, match=rf"__main__:Local, .*give the model itself: {function}\(\.\.\., model=\)$"):
        load(tmp_path)
    again = local_vae()
    found = load(tmp_path, model=again)
    assert found[0] is again
    assert_same(found[1], state["variables"])
    moved = local_vae()
    type(moved.encoder).__module__ = "mine"
    assert_same(load(tmp_path, model=moved)[1], state["variables"])
    with pytest.raises(
        vj.InputError, match=r"model is another one .*encoder\.activation is 'jax\.nn:relu' there and .*tanh"
    ):
        load(tmp_path, model=local_vae(activation=jnp.tanh))
    with pytest.raises(vj.InputError, match=r"model is another one .*give the model that was stored"):
        load(tmp_path, model=local_vae(widths=(4,)))


NOTEBOOK = """
import sys, warnings
import jax
import vae_jax as vj
from flax import linen as nn
from vae_jax.checkpoints import load_model, save

class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(4)(x.reshape(len(x), -1)).reshape(-1, 2, 2)

warnings.simplefilter("ignore")
vae = vj.VAE(Encoder(), vj.MLP((3,), (6, 6, 1), activation=lambda x: x), (6, 6, 1), 2)
if sys.argv[2] == "save":
    save(sys.argv[1], vae, jax.jit(vae.init)(jax.random.key(0)))
else:
    print(load_model(sys.argv[1], model=vae).variables["params"]["encoder"]["Dense_0"]["kernel"][0, 0])
"""


def test_a_script_loads_the_model_that_it_has_saved(tmp_path):
    for what in ("save", "load"):
        command = [sys.executable, "-c", NOTEBOOK, str(tmp_path), what]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    assert np.isfinite(float(ended.stdout))


# --- export ---

EXPORTED = {
    "mlp": vj.mlp_vae((6, 6, 1), 2, (8,)),
    "conv": vj.conv_vae((8, 8, 1), 3, (4, 8)),
    "batch norm": vj.batch_norm_vae((6, 6, 1), 2, (8,)),
    "labels": vj.mlp_vae((6, 6, 1), 2, (8,), classes=3),
    "condition": vj.mlp_vae((6, 6, 1), 2, (8,), condition_shape=(("a", (2,)), ("b", (1, 3)))),
    "full": vj.mlp_vae((6, 6, 1), 2, (8,), posterior=vj.FullGaussian, likelihood=vj.LearnedGaussian(0.5)),
    "delta": vj.mlp_vae((6, 6, 1), 2, (8,), posterior=vj.Delta),
}

ALONE = """
import sys
from pathlib import Path
import numpy as np

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("vae_jax", "flax"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
from jax import export
for folder in map(Path, sys.argv[1:]):
    given = np.load(folder / "given.npz")
    condition = [given["label"]] if "label" in given else []
    if "a" in given:
        condition = [{"a": given["a"], "b": given["b"]}]
    encoder, decoder = (export.deserialize((folder / f"{name}.bin").read_bytes()) for name in ("encoder", "decoder"))
    for count in (1, 2, 5):
        cut = [{k: v[:count] for k, v in c.items()} if isinstance(c, dict) else c[:count] for c in condition]
        mean, scale = encoder.call(given["x"][:count], *cut)
        image = decoder.call(mean, *cut)
        for name, value in (("mean", mean), ("scale", scale), ("image", image)):
            np.testing.assert_allclose(value, given[name][:count], rtol=1e-4, atol=1e-5, err_msg=f"{folder} {name}")
    print(folder.name)
assert not any(name.split(".")[0] in ("vae_jax", "flax") for name in sys.modules)
print("right")
"""


def write_export(folder, vae):
    """Export a model, with arguments and results of its functions."""
    variables = variables_of(vae)
    x = np.float32(np.random.default_rng(1).uniform(size=(5, *vae.event_shape)))
    given = {}
    if vae.classes is not None:
        given = {"label": np.arange(5, dtype=np.int32) % 3}
    elif vae.condition_shape is not None:
        given = {"a": np.ones((5, 2), np.float32), "b": np.arange(15, dtype=np.float32).reshape(5, 1, 3)}
    condition = given.get("label", given or None)

    @jax.jit
    def results(variables, x, condition):
        posterior = vae.encode(variables, x, condition)
        image = vae.decode(variables, posterior.mean, condition).mean
        return {"mean": posterior.mean, "scale": jnp.sqrt(posterior.variance), "image": image}

    expected = results(variables, x, condition)
    export(vae, variables, folder, platforms=("cpu",))
    np.savez(folder / "given.npz", x=x, **given, **expected)
    assert "x is float32[batch" in (folder / "README.txt").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["README.txt", "decoder.bin", "encoder.bin", "given.npz"]


def test_exported_functions_run_with_jax_alone(tmp_path):
    pytest.importorskip("flatbuffers")
    for name, vae in EXPORTED.items():
        write_export(tmp_path / name, vae)
    command = [sys.executable, "-c", ALONE, *(tmp_path / name for name in EXPORTED)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout.splitlines() == [*EXPORTED, "right"], ended.stderr


def test_an_export_serves_several_platforms(tmp_path):
    pytest.importorskip("flatbuffers")
    from jax import export as jax_export

    export(EXPORTED["conv"], variables_of(EXPORTED["conv"]), tmp_path)
    exported = jax_export.deserialize((tmp_path / "encoder.bin").read_bytes())
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert "cpu, cuda, tpu" in (tmp_path / "README.txt").read_text()


class Unmeant:
    """A model without `encode` and `decode`."""

    def init(self, key):
        return {"params": {}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (Unmeant(), {"params": {}}),
            "model is an object of type Unmeant without the methods encode and decode; expected a VAE",
        ),
        ((VAE, {"params": {}}), "variable params.decoder.Dense_0.bias is missing"),
        ((VAE, variables_of(), 3), r"folder is 3; expected a path: vj\.export\(model, variables, folder\)"),
        ((VAE, variables_of(), "/dev/null/x"), "cannot write to the folder /dev/null/x"),
        (
            (VAE, jax.tree.map(lambda leaf: leaf * np.nan, variables_of())),
            "the variable params/decoder/Dense_0/bias holds NaN or infinite values",
        ),
    ],
)
def test_what_can_not_be_exported_is_one_sentence(tmp_path, arguments, message):
    pytest.importorskip("flatbuffers")
    with pytest.raises(vj.InputError, match=message):
        export(*(*arguments, tmp_path)[:3])
    assert list(tmp_path.iterdir()) == []


def test_the_package_that_serialises_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(vj.InputError, match=r"needs the package flatbuffers .*pip install flatbuffers"):
        export(VAE, variables_of(), tmp_path)
