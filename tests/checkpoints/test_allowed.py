"""No description runs code that it has chosen itself."""

import contextlib
import functools
import importlib
import inspect
import itertools
import json
import math
import pkgutil
import sys
from dataclasses import dataclass

import jax
import pytest

import vae_jax as vj
from vae_jax.checkpoints.allowed import find
from vae_jax.checkpoints.description import build, describe
from vae_jax.checkpoints.numbered import SealedFolder, by_name
from vae_jax.errors import InputError
from vae_jax.networks import MLP

VAE = vj.mlp_vae((4, 4, 1), hidden=(3,))


class Own(MLP):
    """A network that is defined outside of the library."""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A package on the path, which leaves a file behind when it is imported."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text(
        """import functools, os, subprocess
from os import system
from pathlib import Path
from subprocess import Popen
import jax
from mine.nets import Net

Path("imported").touch()
TABLE = {"f": os.system}

class Outer:
    helper = os.system
    module = os

    class Inner:
        pass

    @staticmethod
    def method(x):
        return x

    def __call__(self, x):
        return x

INSTANCE = Outer()

@jax.jit
def jitted(x):
    return x
"""
    )
    (tmp_path / "mine" / "nets.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Net:\n    n: int = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    yield tmp_path / "empty"
    for name in ("mine", "mine.nets"):
        sys.modules.pop(name, None)


TOUCH = "touch touched"


def partial(address, *args, **keywords):
    keywords = {"class": "builtins:dict", "items": keywords}
    return {"class": "functools:partial", "func": {"import": address}, "args": list(args), "keywords": keywords}


@pytest.mark.parametrize(
    "attack",
    [
        # code of Python, by name, by a partial, as a class that acts when it is made
        {"import": "os:system"}, partial("os:system", TOUCH), partial("subprocess:run", TOUCH, shell=True),
        {"class": "subprocess:Popen", "args": TOUCH, "shell": True}, partial("builtins:exec", "open('touched', 'w')"),
        partial("builtins:open", "touched", "w"), {"import": "builtins:__import__"}, {"import": "pickle:loads"},
        partial("importlib:import_module", "mine"), partial("runpy:run_path", "../mine/__init__.py"),
        {"class": "pathlib:Path"}, {"class": "ctypes:CDLL", "name": "touched"}, {"import": "functools:reduce"},
        # a module that acts when it is imported
        {"import": "mine:jitted"}, {"class": "mine:Net"}, {"class": "mine.nets:Net"}, {"class": "conftest:Path"},
        # what an allowed module has imported, or an allowed object leads to
        {"import": "jax:os.system"}, {"import": "vae_jax.checkpoints.numbered:shutil.rmtree"},
        {"import": "vae_jax.training.loop:json"}, partial("vae_jax.checkpoints.store:Path.touch", "touched"),
        {"import": "vae_jax.checkpoints.description:functools.reduce"},
        {"class": "vae_jax.networks.conv:nn.Dense", "features": 2}, {"import": "vae_jax.networks.dense:math"},
        {"import": "vae_jax.networks:identity.__globals__"}, {"import": "vae_jax.networks:MLP.__init__"},
        {"import": "vae_jax:VAE.__class__"}, {"import": "vae_jax:__builtins__"}, {"import": "vae_jax:Likelihood.label"},
        {"import": "jax.nn:initializers"}, {"import": "jax.nn.initializers:Initializer.mro"},
        {"import": "jax.nn.initializers:Initializer"}, {"import": "flax.linen:Dense.apply"},
        {"import": "vae_jax.networks:_scaled"},
        {"class": "vae_jax.evaluation.classifier:_Network", "convolutions": [], "hidden": [1], "classes": 1},
        # classes and functions of these packages that touch files, run code or keep a state
        {"class": "vae_jax:Checkpoints", "folder": "touched", "config": {}},
        partial("vae_jax:restore_model", "touched"),
        {"class": "vae_jax.checkpoints.numbered:SealedFolder", "path": "touched"}, {"class": "harness.options:Options"},
        {"class": "vae_jax.data.cache:Parts", "folder": "touched"}, partial("vae_jax:load", "digits"),
        {"class": "harness.run:Run"}, {"class": "vae_jax:TrainedClassifier"},
        {"import": "vae_jax.checkpoints.description:build"},
        partial("jax.numpy:save", "touched"), {"import": "jax.numpy:load"}, {"import": "jax.numpy:fromfile"},
        {"import": "jax.numpy:frompyfunc"}, {"import": "jax.numpy:vectorize"}, {"import": "jax.numpy:apply_along_axis"},
        {"import": "jax:pure_callback"}, {"import": "jax.debug:callback"}, {"import": "jax.debug:breakpoint"},
        partial("jax.profiler:start_trace", "touched"), {"import": "jax.experimental:io_callback"},
        {"import": "jax:jit"},
        {"import": "flax.linen:jit"}, {"import": "flax.linen:intercept_methods"}, {"import": "flax.linen:Variable"},
        {"import": "flax.serialization:from_bytes"}, {"import": "flax.io:makedirs"}, {"import": "optax:apply_updates"},
        {"import": "numpy:save"}, {"class": "numpy:memmap", "filename": "touched"}, {"import": "numpy:memmap"},
        # addresses that are none
        {"import": "os"}, {"import": ":system"}, {"import": ".os:system"}, {"import": "os:system:x"}, {"import": ""},
        {"import": "vae_jax.../mine:f"}, {"import": "vae_jax.networks:"}, {"import": ["os", "system"]},
        {"class": {"import": "os:system"}},
        # hidden deeper, or as the class of a partial
        partial("jax.nn:relu", partial("os:system", TOUCH)),
        [[{"class": "builtins:list", "items": [{"import": "os:system"}]}]],
        {"class": "builtins:dict", "items": {"a": {"import": "os:system"}}},
        {"class": "flax.linen:Sequential", "layers": [partial("os:system", TOUCH)]},
        {"class": "jax.tree_util:Partial", "func": {"import": "os:system"}, "args": [], "keywords": {}},
    ],
    ids=lambda attack: json.dumps(attack)[:60],
)  # fmt: skip
def test_no_description_runs_code_that_is_not_allowed(mine, attack):
    hostile = json.loads(json.dumps(describe(VAE)))
    hostile["encoder"]["activation"] = attack
    with pytest.raises(InputError, match=r"^model\.encoder\.activation"):
        build(hostile, "model").encoder.activation(TOUCH)
    assert list(mine.iterdir()) == []
    assert "mine" not in sys.modules


def test_a_trusted_module_gives_what_it_defines_and_not_what_it_imports(mine):
    net = build({"class": "mine:Net", "n": 2}, modules=("mine",))
    assert (mine / "imported").exists(), "the attacks above would have been seen"
    assert net == sys.modules["mine"].Net(2)
    for name in ("jitted", "Outer", "Outer.Inner", "Outer.method"):
        found = build({"import": f"mine:{name}"}, modules=("other", "mine"))
        assert found is functools.reduce(getattr, name.split("."), sys.modules["mine"])
    assert build({"class": "mine.nets:Net"}, modules=("mine.nets",)).n == 3
    for name in ("system", "Popen", "os", "TABLE", "INSTANCE", "functools", "Outer.helper", "jax"):
        with pytest.raises(InputError, match=rf"is mine:{name}, which none of mine defines as a class or a function"):
            build({"import": f"mine:{name}"}, modules=("mine",))
    for name in ("os.system", "Outer.module.system", "Outer.__init__", "Outer.absent", "TABLE.get"):
        with pytest.raises(InputError, match=rf"is mine:{name}, which can't be found"):
            build({"import": f"mine:{name}"}, modules=("mine",))
    with pytest.raises(InputError, match="is mine:Net, which is code of mine; if you trust that code"):
        build({"class": "mine:Net"}, modules=("mine.nets", "min"))
    with pytest.raises(InputError, match="is mine:Outer, which is no dataclass, Linen module or named tuple"):
        build({"class": "mine:Outer"}, modules=("mine",))


def test_a_trusted_module_that_fails_is_a_sentence(mine):
    (mine.parent / "mine" / "nets.py").write_text("raise RuntimeError('no such device')")
    with pytest.raises(InputError, match=r"mine.nets:Net, which can't be found \(no such device\)"):
        build({"class": "mine.nets:Net"}, modules=("mine",))


@pytest.mark.parametrize("module", ["os", "subprocess", "builtins", "jax", "vae_jax.data", "numpy", "__main__", 3])
def test_no_module_of_python_or_of_the_libraries_is_trusted_as_a_whole(module):
    with pytest.raises(InputError, match=rf"modules holds {module!r}; expected the names of modules that define"):
        build(None, modules=("mine", module))


def test_modules_are_names():
    with pytest.raises(InputError, match=r"modules is 'mine'; expected a tuple of names, such as \('mine',\)"):
        build(None, modules="mine")


def allowed_in(module):
    """What a description may name in a module of a library."""
    for name in vars(importlib.import_module(module)):
        with contextlib.suppress(InputError):
            yield name, find(f"{module}:{name}", "the value")


def test_all_public_values_of_this_library_are_allowed_and_nothing_with_effects():
    modules = [module.name for module in pkgutil.walk_packages(vj.__path__, "vae_jax.")]
    found = dict(pair for module in ["vae_jax", *modules] for pair in allowed_in(module))
    classes = {name for name, kind in found.items() if isinstance(kind, type)}
    assert found.keys() - classes == {"identity"}
    assert classes >= {
        "VAE",
        "Classifier",
        "ELBO",
        "IWAE",
        "Delta",
        "DiagonalGaussian",
        "StaticBinarize",
        "Crop",
        "Loss",
    }
    assert classes >= {
        kind.__name__ for kind in vj.Likelihood.__subclasses__() if kind.__module__.startswith("vae_jax.")
    }
    assert classes >= {"MLP", "ConvEncoder", "ConvDecoder", "Downsample", "Upsample"}
    assert not classes & {
        "Checkpoints",
        "Options",
        "ComparisonOptions",
        "Run",
        "Parts",
        "SealedFolder",
        "Dataset",
        "TrainedClassifier",
    }


def test_what_a_module_of_this_library_has_imported_is_not_allowed(monkeypatch):
    for name, foreign in (("Own", Own), ("foreign", allowed_in)):
        monkeypatch.setattr(f"vae_jax.networks.{name}", foreign, raising=False)
        with pytest.raises(InputError, match=f"is vae_jax.networks:{name}, which is none of the values"):
            build({"import": f"vae_jax.networks:{name}"})


def test_a_public_dataclass_is_a_value_if_it_is_frozen_and_compared_by_its_fields(monkeypatch):
    monkeypatch.setattr(vj, "__all__", [*vj.__all__, "Kind"])
    for frozen, eq in itertools.product((False, True), repeat=2):
        kind = dataclass(frozen=frozen, eq=eq)(type("Kind", (), {"__module__": "vae_jax.models.vae"}))
        monkeypatch.setattr(vj, "Kind", kind, raising=False)
        if frozen and eq:
            assert isinstance(build({"class": "vae_jax:Kind"}), kind)
        else:
            with pytest.raises(InputError, match="is vae_jax:Kind, which is none of the values"):
                build({"class": "vae_jax:Kind"})


@pytest.mark.parametrize("module", ["jax.nn", "jax.nn.initializers", "jax.numpy", "flax.linen"])
def test_no_function_that_is_allowed_takes_a_file_or_calls_another(module):
    functions = {name: found for name, found in allowed_in(module) if not isinstance(found, type)}
    assert len(functions) >= 15
    for name, function in functions.items():
        parameters = inspect.signature(function).parameters.keys()
        assert not parameters & {"file", "fname", "filename", "path", "callback", "func", "fun", "f", "pyfunc"}, name


def test_a_model_of_own_code_is_restored_where_that_is_trusted(tmp_path):
    vae = vj.VAE(Own((3,), (2, 2)), MLP((3,), (4, 4, 1)), (4, 4, 1), 2)
    state = {"variables": vae.init(jax.random.key(0))}
    vj.Checkpoints(tmp_path, {}, model=vae, variables=lambda state: state["variables"]).save(1, state, {}, last=True)
    with pytest.raises(InputError, match=rf"^model.encoder is {__name__}:Own, .*modules=\('{__name__}',\)"):
        vj.restore_model(tmp_path)
    assert vj.restore_model(tmp_path, modules=(__name__,))[0] == vae


def test_a_stranger_s_checkpoint_is_refused_before_anything_runs(mine):
    hostile = describe(VAE)
    hostile["encoder"]["activation"] = partial("os:system", TOUCH)
    content = {"config": {}, "model": hostile, "members": None, "notes": {}}
    folder = SealedFolder(mine.parent / "kept")
    folder.write(1, {"variables": by_name(VAE.init(jax.random.key(0)))}, content)
    folder.finish()
    with pytest.raises(InputError, match=r"^model.encoder.activation.func is os:system, which is none of"):
        vj.restore_model(mine.parent / "kept")
    assert list(mine.iterdir()) == []


def test_a_model_that_no_other_process_can_make_gives_a_warning(tmp_path, monkeypatch):
    class Net(MLP):
        pass

    Net.__module__, Net.__qualname__ = "__main__", "Net"
    monkeypatch.setattr(sys.modules["__main__"], "Net", Net, raising=False)
    vae = vj.VAE(Net((3,), (2, 2)), MLP((3,), (4, 4, 1)), (4, 4, 1), 2)
    with pytest.warns(vj.CheckpointWarning, match=r"model.encoder is __main__:Net, .*move its definition .*model=\)$"):
        vj.Checkpoints(tmp_path, {}, model=vae)
    with pytest.warns(vj.CheckpointWarning, match=r"model.encoder.activation is math:tanh, .*wrap it in a function"):
        vj.Checkpoints(tmp_path, {}, model=vj.mlp_vae((4, 4, 1), activation=math.tanh))
