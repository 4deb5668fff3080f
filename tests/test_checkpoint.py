"""A run that is killed goes on to the same bits; a checkpoint that is broken is never taken for a whole one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from conftest import small_split

import vae_jax as vj

VAE, DATA = vj.mlp_vae((6, 6, 1), hidden=(32,)), small_split(64)  # arrays over 1 kB: smaller ones are stored inline
OPTIMIZER = vj.averaged(optax.adam(1e-2))
STEP = vj.make_train_step(VAE, vj.ELBO(), OPTIMIZER)
CONFIG = {"model": "small", "seed": 0, "widths": (32,)}


def fresh():
    return vj.init(jax.random.key(0), VAE, OPTIMIZER)


def run(state, epochs, **settings):
    return vj.fit(state, STEP, DATA, epochs=epochs, batch_size=16, progress=False, **settings)


def same(one, other):
    def bits(leaf):
        return np.asarray(jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)

    return all(
        np.array_equal(bits(a), bits(b)) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


class KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, killed_after):
    whole, whole_history = run(fresh(), 5)

    class Deadly(vj.Checkpoints):
        def save(self, state, history, last=False):
            super().save(state, history, last)
            if len(history) == killed_after:
                raise KilledError

    with pytest.raises(KilledError):
        run(fresh(), 5, store=Deadly(tmp_path, CONFIG, every_seconds=0.0))
    store = vj.Checkpoints(tmp_path, CONFIG, every_seconds=0.0)
    state, _ = store.restore(fresh())
    assert int(state.step) == 4 * killed_after
    resumed, history = run(fresh(), 5, store=store)
    assert same(resumed, whole)
    for there, here in zip(history, whole_history, strict=True):
        assert there["epoch"] == here["epoch"]
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-6)  # summed in chunks, which time cuts as it will


def test_an_empty_folder_is_a_fresh_run(tmp_path):
    state, history = vj.Checkpoints(tmp_path, CONFIG).restore(fresh())
    assert same(state, fresh())
    assert history == []


def test_another_configuration_is_refused_and_told(tmp_path):
    vj.Checkpoints(tmp_path, CONFIG).save(fresh(), [], last=True)
    other = vj.Checkpoints(tmp_path, CONFIG | {"seed": 1, "beta": 2.0})
    with pytest.raises(vj.InputError, match=r"beta is None there and 2\.0 here, seed is 0 there and 1 here"):
        other.restore(fresh())


def test_young_checkpoints_are_left_out_and_old_ones_go(tmp_path):
    store = vj.Checkpoints(tmp_path / "rare", CONFIG, every_seconds=3600.0)
    run(fresh(), 4, store=store)
    assert [path.name for path in (tmp_path / "rare").iterdir()] == ["4"], "the last one is kept, however young"
    store = vj.Checkpoints(tmp_path / "often", CONFIG, every_seconds=0.0, keep=2)
    run(fresh(), 4, store=store)
    assert sorted(path.name for path in (tmp_path / "often").iterdir()) == ["3", "4"]


def test_a_folder_that_can_not_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(vj.InputError, match="cannot write"):
        vj.Checkpoints(tmp_path / "file", CONFIG)


def test_no_broken_checkpoint_is_restored_silently_wrong(tmp_path):
    """Each file of the newest one damaged in four ways, in a process of its own: Orbax's threads complain late."""
    script = Path(__file__).with_name("damage_checkpoints.py")
    result = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
    outcomes = json.loads(result.stdout.splitlines()[-1])
    assert len(outcomes) > 30
    assert [case for case, outcome in outcomes.items() if outcome == "wrong"] == []
    assert list(outcomes.values()).count("the one before") > len(outcomes) / 4, "hardly any damage was seen"


def test_a_folder_of_broken_checkpoints_alone_is_a_sentence(tmp_path):
    store = vj.Checkpoints(tmp_path, CONFIG)
    store.save(fresh(), [], last=True)
    shutil.rmtree(tmp_path / "0" / "state")
    with pytest.raises(vj.InputError, match=r"no checkpoint in .* can be read.*remove the folder"):
        vj.Checkpoints(tmp_path, CONFIG).restore(fresh())
