"""A killed run is resumed to the same bits, and a broken checkpoint is never restored silently."""

import asyncio
import errno
import fcntl
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_split
from etils import epath

import vae_jax as vj
from vae_jax.checkpoints.orbax_handlers import AllOf, PartFolder

VAE, DATA = vj.mlp_vae((6, 6, 1), hidden=(32,)), small_split(64)  # arrays over 1 kB: smaller ones are stored inline
OPTIMIZER = vj.averaged(optax.adam(1e-2))
STEP = vj.make_train_step(VAE, vj.ELBO(), OPTIMIZER)
CONFIG = {"model": "small", "seed": 0, "widths": (32,)}
NOTES = {"history": [{"epoch": 1, "loss": 2.5}], "chunks": []}


def fresh(seed=0, vae=VAE):
    return vj.init(jax.random.key(seed), vae, OPTIMIZER)


def fresh_of(key):
    return vj.init(key, VAE, OPTIMIZER)


def run(state, epochs, **settings):
    return vj.fit(state, STEP, DATA, epochs=epochs, batch_size=16, progress=False, **settings)


def same(one, other):
    def bits(leaf):
        return np.asarray(jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)

    return all(
        np.array_equal(bits(a), bits(b)) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def store_of(folder, **settings):
    settings = {"every_seconds": 0.0} | settings
    return vj.Checkpoints(folder, CONFIG, **settings)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_killed_run_is_resumed_to_the_same_bits(tmp_path, killed_after):
    whole, whole_history = run(fresh(), 5)

    class Deadly(vj.Checkpoints):
        def save(self, step, *args, **settings):
            super().save(step, *args, **settings)
            if step == 4 * killed_after:
                raise KilledError

    with pytest.raises(KilledError):
        run(fresh(), 5, store=Deadly(tmp_path, CONFIG, every_seconds=0.0))
    state, _ = store_of(tmp_path).restore(fresh())
    assert int(state.step) == 4 * killed_after
    resumed, history = run(fresh(), 5, store=store_of(tmp_path))
    assert same(resumed, whole)
    for there, here in zip(history, whole_history, strict=True):
        assert there["epoch"] == here["epoch"]
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-6)  # summed in chunks, which time cuts as it will


def test_an_empty_folder_is_a_fresh_run(tmp_path):
    for store in (store_of(tmp_path), vj.NoCheckpoints()):
        state, notes = store.restore(fresh())
        assert same(state, fresh())
        assert notes == {}


def test_notes_come_back_as_they_were_given(tmp_path):
    notes = NOTES | {"numbers": [math.inf, 0.1, None, "é"], "more": {"b": 1, "a": 2}}
    store_of(tmp_path).save(3, fresh(), notes)
    _, restored = store_of(tmp_path).restore(fresh(1))
    assert restored == notes
    assert list(restored["more"]) == ["b", "a"]


def test_any_tree_goes_back_to_the_devices_it_is_wanted_on(tmp_path):
    mesh = jax.make_mesh((8,), ("members",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("members"))
    tree = {"keys": jax.random.split(jax.random.key(0), 8), "deep": (jnp.arange(16.0), [jnp.arange(8, dtype="int8")])}
    store_of(tmp_path).save(1, jax.device_put(tree, spread), NOTES)
    there, _ = store_of(tmp_path).restore(tree)
    assert same(there, tree)
    wanted = jax.device_put(jax.tree.map(lambda leaf: leaf[::-1], tree), spread)
    there, _ = store_of(tmp_path).restore(wanted)
    assert same(there, tree)
    assert all(leaf.sharding == spread for leaf in jax.tree.leaves(there))


def test_another_configuration_is_refused_and_told(tmp_path):
    config = CONFIG | {"model": {"class": "Net", "widths": [32]}}
    vj.Checkpoints(tmp_path, config).save(0, fresh(), NOTES, last=True)
    other = vj.Checkpoints(tmp_path, config | {"model": {"class": "Net", "widths": [64]}, "beta": 2.0})
    with pytest.raises(vj.InputError, match=r"beta is None there and 2\.0 here, model\.widths is \[32\] there and"):
        other.restore(fresh())


def test_another_state_is_refused_by_its_first_leaf(tmp_path):
    store_of(tmp_path).save(0, {"bias": jnp.zeros(32), "kernel": (jnp.zeros((2, 32)),)}, NOTES)
    with pytest.raises(
        vj.InputError, match=r"kernel\.0 is float32\[2, 32\] there and float32\[2, 48\] here.*take that"
    ):
        store_of(tmp_path).restore({"bias": jnp.zeros(32), "kernel": (jnp.zeros((2, 48)),)})
    with pytest.raises(vj.InputError, match=r"kernel\.0 is float32\[2, 32\] there and absent here"):
        store_of(tmp_path).restore({"bias": jnp.zeros(32)})


@pytest.mark.parametrize(
    ("found", "remedy"),
    [(1, "take the older"), (3, "take the older version that wrote it"), (5, "this version reads 4; take a newer")],
)
def test_another_format_is_a_sentence(tmp_path, monkeypatch, found, remedy):
    monkeypatch.setattr("vae_jax.checkpoints.numbered._FORMAT", found)
    store_of(tmp_path).save(0, fresh(), NOTES)
    monkeypatch.undo()
    if found < 4:
        (tmp_path / "0" / "files.json").unlink()  # which was not always there
        content = {"format": found, "config": {}}
        notes = content if found == 1 else {"content": content, "sha256": ""}
        (tmp_path / "0" / "notes" / "metadata").write_text(json.dumps(notes))
    with pytest.raises(vj.InputError, match=rf"has format {found}.*{remedy}"):
        store_of(tmp_path).restore(fresh())


def test_young_checkpoints_are_left_out_and_old_ones_go(tmp_path):
    run(fresh(), 4, store=store_of(tmp_path / "rare", every_seconds=3600.0))
    assert names_in(tmp_path / "rare") == ["16"], "the last one is kept, however young"
    store = store_of(tmp_path / "often", keep=2)
    for step in (1, 2, 10, 10, 11):
        store.save(step, fresh(step), {"step": step})
    assert names_in(tmp_path / "often") == ["10", "11"]
    store.save(11, fresh(), {}, last=True)
    state, notes = store.restore(fresh())
    assert notes == {"step": 11}, "what is there already stays"
    assert same(state, fresh(11))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0}, "keep is 0"),
        ({"every_seconds": -1.0}, "every_seconds is -1"),
        ({"every_seconds": math.nan}, "every_seconds is nan"),
    ],
)
def test_what_no_checkpoints_can_be_kept_by(tmp_path, settings, message):
    with pytest.raises(vj.InputError, match=message):
        store_of(tmp_path / "none", **settings)


def test_the_best_is_kept_however_young_and_known_after_a_resume(tmp_path):
    def store(**settings):
        return store_of(tmp_path, **({"every_seconds": 3600.0, "best": "loss", "model": VAE} | settings))

    first = store()
    for step, loss in ((1, 3.0), (2, math.nan), (3, 2.0), (4, 2.5)):
        first.save(step, fresh(step), NOTES, record={"loss": loss})
        assert names_in(tmp_path) == ["best"]
    first.save(5, fresh(5), NOTES, last=True)
    assert names_in(tmp_path / "best") == ["3"]
    assert names_in(tmp_path) == ["5", "best"]
    second = store()
    restored, _ = second.restore(fresh())
    assert same(restored, fresh(5))
    second.save(6, fresh(6), NOTES, record={"loss": 2.2})
    assert names_in(tmp_path / "best") == ["3"]
    assert same(vj.restore_model(tmp_path, best=True)[1], fresh(3).variables)
    assert same(vj.restore_model(tmp_path)[1], fresh(5).variables)
    second.save(7, fresh(7), NOTES, record={"loss": 1.0})
    assert names_in(tmp_path / "best") == ["7"]
    with pytest.raises(vj.InputError, match=r"best is 'los' there and 'loss' here|best is 'loss' there and 'los' here"):
        store(best="los").restore(fresh())


def test_a_broken_best_is_told_and_replaced(tmp_path):
    store_of(tmp_path, best="loss").save(2, fresh(2), NOTES, record={"loss": 1.0})
    shutil.rmtree(tmp_path / "best" / "2" / "state")
    store = store_of(tmp_path, best="loss")
    with pytest.warns(vj.CheckpointWarning, match="checkpoint 2 is broken: .*the best state is searched again"):
        store.restore(fresh())
    store.save(3, fresh(3), NOTES, record={"loss": 5.0})
    assert names_in(tmp_path / "best") == ["3"]


def test_a_broken_checkpoint_of_the_same_number_is_replaced(tmp_path):
    for step in (1, 2):
        store_of(tmp_path).save(step, fresh(step), NOTES)
    shutil.rmtree(tmp_path / "2" / "state")
    store = store_of(tmp_path)
    with pytest.warns(vj.CheckpointWarning, match="checkpoint 2 is broken: .*checkpoint 1 is taken instead"):
        store.restore(fresh())
    store.save(2, fresh(5), NOTES)
    assert same(store_of(tmp_path).restore(fresh())[0], fresh(5))


def test_a_record_without_the_number_names_what_it_has(tmp_path):
    store = store_of(tmp_path, best="validation_loss")
    with pytest.raises(vj.InputError, match=r"best is 'validation_loss'.*choose one of epoch, loss$"):
        store.save(1, fresh(), NOTES, record={"epoch": 1, "loss": 2.0, "by_member": [1.0]})
    store.save(1, fresh(), NOTES)
    assert names_in(tmp_path) == ["1", "best"]


def test_a_folder_that_can_not_be_written_or_holds_something_else_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(vj.InputError, match="cannot write"):
        store_of(tmp_path / "file")
    with pytest.raises(vj.InputError, match=r"holds files that are not checkpoints \(file\); choose another folder"):
        store_of(tmp_path)
    (tmp_path / "images" / "7").mkdir(parents=True)
    (tmp_path / "images" / "7" / "a.png").write_text("")
    with pytest.raises(vj.InputError, match=r"holds files that are not checkpoints \(7\)"):
        store_of(tmp_path / "images")


def test_what_a_kill_leaves_is_swept_and_what_others_add_is_left(tmp_path):
    store_of(tmp_path).save(1, fresh(), NOTES)
    for folder in (tmp_path, tmp_path / "best"):
        (folder / "7.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (tmp_path / "3").mkdir()
    (tmp_path / "curve.png").write_text("")
    store = store_of(tmp_path)
    with pytest.warns(vj.CheckpointWarning, match="checkpoint 3 is broken: .*checkpoint 1 is taken instead"):
        store.restore(fresh())
    store.save(2, fresh(2), NOTES)
    assert names_in(tmp_path / "best") == []
    assert names_in(tmp_path) == ["1", "2", "best", "curve.png"], "the broken one would have remained the newest"


EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FULL_DISK = """
import resource, signal
import vae_jax as vj
from harness.options import Options
from harness.run import Run
from harness.script import run_script

def main(options):
    run = Run.start("full", options, native="digits")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    run.train(run.key, vj.mlp_vae(run.data.event_shape, hidden=(128,)), vj.ELBO())
    return run.report({})

run_script(main, Options)
"""


def test_a_script_on_a_full_disk_writes_its_results_and_ends_with_an_error(tmp_path):
    options = {"dataset": "digits", "epochs": 3, "checkpoint-minutes": 0, "out": tmp_path, "checkpoint-dir": tmp_path}
    command = [sys.executable, "-c", FULL_DISK, *(f"--{name}={value}" for name, value in options.items())]
    paths = os.pathsep.join([str(EXPERIMENTS), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 1
    assert (tmp_path / "full.json").exists()
    text = rf"checkpoint \d+ can't be written to {tmp_path / 'VAE'} \(File too large\); there is none before it"
    assert ended.stderr.count("CheckpointWarning") == len(re.findall(f"CheckpointWarning: {text}", ended.stderr)) == 1
    assert re.fullmatch(f"error: {text}", ended.stderr.splitlines()[-1])
    assert "Traceback" not in ended.stderr
    assert "absl" not in ended.stderr
    assert names_in(tmp_path / "VAE") == []


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_written(folder):
    """A failure that leaves a folder as Orbax does."""
    (folder.parent / f"{folder.name}.orbax-checkpoint-tmp").mkdir()
    no_space()


def test_writes_that_fail_give_one_warning_and_leave_no_files(tmp_path, monkeypatch):
    store = store_of(tmp_path, best="loss")
    store.save(1, fresh(1), NOTES, record={"loss": 4.0})
    assert store.failure is None
    with monkeypatch.context() as patch:
        patch.setattr("vae_jax.checkpoints.numbered._seal_files", half_written)
        newest = (
            rf"checkpoint 2 can't be written to {tmp_path} \(No space left on device\); checkpoint 1 is still there"
        )
        best = newest.replace(str(tmp_path), str(tmp_path / "best"))
        with pytest.warns(vj.CheckpointWarning, match=f"^{newest}; {best}; the next save tries again$"):
            store.save(2, fresh(2), NOTES, record={"loss": 2.0})
        store.save(3, fresh(3), NOTES, record={"loss": 3.0})  # no warning, which would be an error here
        assert "checkpoint 3 can't" in store.failure
        assert "checkpoint 2 can't" in store.failure, "the best one is not given up"
    assert names_in(tmp_path) == ["1", "best"]
    assert names_in(tmp_path / "best") == ["1"]
    store.save(4, fresh(4), NOTES, record={"loss": 5.0})
    assert store.failure is None
    assert names_in(tmp_path) == ["1", "4", "best"]
    assert names_in(tmp_path / "best") == ["2"]
    assert same(store_of(tmp_path).restore(fresh())[0], fresh(4))
    store.save(5, fresh(5), NOTES, record={"loss": 5.0})
    assert store.failure is None
    monkeypatch.setattr("vae_jax.checkpoints.numbered._seal_files", no_space)
    with pytest.warns(vj.CheckpointWarning, match="checkpoint 6 can't be written"):
        store.save(6, fresh(), NOTES)


@pytest.mark.parametrize("limit", ["size=200k", "nr_inodes=12", "nr_inodes=5"])
def test_a_file_system_that_is_full_for_a_while(tmp_path, capfd, limit):
    command = ["mount", "-t", "tmpfs", "-o", limit, "tmpfs", tmp_path]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        store = store_of(tmp_path / "kept", keep=1)
        state = {name: jax.random.normal(jax.random.key(0), (100, 100)) for name in "abcdef"}
        with pytest.warns(vj.CheckpointWarning, match="checkpoint 1 .*No space left on device.*none before"):
            store.save(1, state, NOTES)
        store.save(2, state, NOTES)
        assert names_in(tmp_path / "kept") == []
        subprocess.run(["mount", "-o", "remount,size=4m,nr_inodes=1000", tmp_path], check=True)
        store.save(3, state, NOTES)
        assert store.failure is None
        assert names_in(tmp_path / "kept") == ["3"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert capfd.readouterr().err == ""


def test_training_goes_on_without_its_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_jax.checkpoints.numbered._seal_files", no_space)
    store = store_of(tmp_path)
    with pytest.warns(vj.CheckpointWarning, match=r"checkpoint 4 .*No space left on device") as caught:
        state, history = run(fresh(), 3, store=store)
    assert len(caught) == 1
    assert len(history) == 3
    assert same(state, run(fresh(), 3)[0])
    assert store.failure.startswith("checkpoint 12 can't be written")


def test_a_stopped_run_whose_state_is_not_kept_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_jax.checkpoints.numbered._seal_files", no_space)

    def stop(state):
        if int(state.step) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with (
        pytest.warns(vj.CheckpointWarning, match="checkpoint 4 can't"),
        pytest.raises(
            vj.StoppedError, match=r"not everything could be saved: checkpoint \d .*none before it"
        ) as caught,
    ):
        run(fresh(), 3, store=store_of(tmp_path), eval_fn=stop)
    assert "is saved in" not in str(caught.value)
    assert int(caught.value.state.step) > 0


def test_a_folder_that_is_no_folder_any_more_is_a_warning(tmp_path):
    store = store_of(tmp_path / "kept")
    store.save(1, fresh(), NOTES)
    (tmp_path / "kept").rename(tmp_path / "moved")
    (tmp_path / "kept").write_text("")
    with pytest.warns(vj.CheckpointWarning, match=r"checkpoint 2 can't be written to .*File exists.*none before"):
        store.save(2, fresh(), NOTES)
    (tmp_path / "kept").unlink()
    store.save(2, fresh(2), NOTES)
    assert same(store_of(tmp_path / "kept").restore(fresh())[0], fresh(2)), "a folder that is gone is made anew"


def test_folders_of_the_parts_are_not_made_where_theirs_is_gone(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        asyncio.run(PartFolder.from_final(epath.Path(tmp_path / "gone" / "state")).create())
    assert names_in(tmp_path) == []

    async def create(self):
        no_space()

    monkeypatch.setattr(PartFolder, "create", create)
    with pytest.warns(vj.CheckpointWarning, match="checkpoint 1 can't be written"):
        store_of(tmp_path).save(1, fresh(), NOTES)
    assert names_in(tmp_path) == []


def test_a_save_that_fails_waits_for_all_of_its_writes():
    ended = []

    class Write:
        def __init__(self, error=None):
            self.error = error

        def result(self, timeout=None):
            ended.append(self)
            if self.error is not None:
                raise self.error

    writes = [Write(OSError("first")), Write(), Write(OSError("second"))]
    with pytest.raises(OSError, match="first"):
        AllOf(writes).result()
    assert ended == writes


def process(pid):
    return rf"\(process {pid} on {socket.gethostname()}\)"


def test_two_runs_of_a_process_do_not_share_a_folder(tmp_path):
    store, tried = store_of(tmp_path, model=VAE), []

    def meanwhile(state):
        with pytest.raises(vj.InputError, match="in use"):
            store_of(tmp_path).open()
        if int(state.step) == 12:
            (tmp_path / "9.orbax-checkpoint-tmp").mkdir()
            other = store_of(tmp_path)
            for use in (
                lambda: run(fresh(), 1, store=other, eval_fn=pytest.fail),
                lambda: other.save(1, fresh(), NOTES),
            ):
                with pytest.raises(vj.InputError, match=f"another object of this process {process(os.getpid())}"):
                    use()
                tried.append(names_in(tmp_path))
            vj.restore_model(tmp_path)
        return {}

    run(fresh(), 3, store=store, eval_fn=meanwhile)
    assert len(tried) == 2
    assert all("9.orbax-checkpoint-tmp" in names for names in tried), "what may be half-written by the first is left"
    run(fresh(), 4, store=store_of(tmp_path))
    _, history = run(fresh(), 5, store=store)
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5]
    assert names_in(tmp_path) == ["16", "20"]


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("process 7 on a host of a long name, which is elsewhere", file=file, end="", flush=True)
print("locked", flush=True)
sys.stdin.read()
"""


def test_two_processes_do_not_share_a_folder(tmp_path):
    store = store_of(tmp_path)
    command = [sys.executable, "-c", HOLDER, tmp_path / ".lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(
            vj.InputError, match=r"in use: another process \(process 7 on a host of .* elsewhere\) writes"
        ):
            run(fresh(), 1, store=store)
        assert store.restore(fresh())[1] == {}, "reading takes no lock"
        holder.kill()
    run(fresh(), 1, store=store)
    assert re.fullmatch(process(os.getpid()), f"({(tmp_path / '.lock').read_text()})")
    assert names_in(tmp_path) == ["4"]


def test_a_run_that_fails_before_it_trains_releases_its_folder(tmp_path):
    def fail(state, batch):
        raise TypeError("no step")

    store = store_of(tmp_path, step="one that fails")  # which stays alive
    with pytest.raises(TypeError, match="no step"):
        vj.fit(fresh(), fail, DATA, epochs=1, batch_size=16, progress=False, store=store)
    run(fresh(), 1, store=store_of(tmp_path))


def test_a_folder_that_is_made_anew_is_locked_anew(tmp_path):
    store = store_of(tmp_path / "kept")
    store.open()
    shutil.rmtree(tmp_path / "kept")
    store.save(1, fresh(), NOTES, wait=False)
    store.save(2, fresh(), NOTES, wait=False)
    with pytest.raises(vj.InputError, match="in use"):
        store_of(tmp_path / "kept").open()
    store.close()
    other = store_of(tmp_path / "kept")
    other.open()
    with pytest.raises(vj.InputError, match="in use"):
        store.save(3, fresh(), NOTES)


@pytest.mark.parametrize("missing", ["on the file system", "on the system"])
def test_where_there_are_no_locks_a_run_goes_on_without(tmp_path, monkeypatch, missing):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    if missing == "on the system":
        monkeypatch.setattr("vae_jax.checkpoints.lock.fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", flock)
    store = store_of(tmp_path)
    with pytest.warns(vj.CheckpointWarning, match=r"can't be locked \(.*\); make sure that no other run"):
        store.open()
    store.save(1, fresh(), NOTES, wait=False)
    store.save(2, fresh(), NOTES)
    assert names_in(tmp_path) == ["1", "2"]


def test_a_checkpoint_that_a_run_removes_while_its_folder_is_checked(tmp_path, monkeypatch):
    store_of(tmp_path).save(1, fresh(), NOTES)
    listed = os.listdir

    def remove_then_list(path):
        if Path(path).name == "1":
            shutil.rmtree(path)
        return listed(path)

    monkeypatch.setattr(os, "listdir", remove_then_list)
    store_of(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    store_of(tmp_path, model=VAE).save(4, fresh(), NOTES)
    file = next(file for file in (tmp_path / "4" / "variables" / "d").iterdir() if file.stat().st_size > 9)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(vj.InputError, match=rf"checkpoint 4 is broken: variables/d/{file.name} has changed"):
        vj.restore_model(tmp_path)
    file.unlink()
    with pytest.raises(vj.InputError, match=rf"checkpoint 4 is broken: variables/d/{file.name} is missing"):
        vj.restore_model(tmp_path)
    assert same(store_of(tmp_path).restore(fresh())[0], fresh()), "a state is whole without the variables for use"


@pytest.mark.parametrize("part", ["state", "notes"])
def test_one_changed_bit_is_found(tmp_path, part):
    tree = {"bits": jax.random.bits(jax.random.key(0), (10_000,))}
    store_of(tmp_path).save(4, tree, NOTES)
    assert same(store_of(tmp_path).restore(tree)[0], tree)
    largest = max((tmp_path / "4" / part).rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(vj.InputError, match=f"checkpoint 4 is broken: {part}/.*{largest.name} has changed"):
        store_of(tmp_path).restore(tree)


def test_a_checkpoint_has_its_number_and_the_list_of_its_files(tmp_path):
    store_of(tmp_path).save(4, fresh(), NOTES)
    (tmp_path / "4").rename(tmp_path / "7")
    with pytest.raises(vj.InputError, match="checkpoint 7 is broken: it is the one of number 4"):
        store_of(tmp_path).restore(fresh())
    (tmp_path / "7").rename(tmp_path / "4")
    (tmp_path / "4" / "files.json").unlink()
    with pytest.raises(vj.InputError, match=r"checkpoint 4 is broken: files\.json is missing"):
        store_of(tmp_path).restore(fresh())


def test_what_is_killed_before_its_files_are_sealed_is_not_there(tmp_path, monkeypatch):
    def stop(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vae_jax.checkpoints.numbered._seal_files", stop)
        with pytest.raises(KeyboardInterrupt):
            store_of(tmp_path).save(4, fresh(4), NOTES)
    assert same(store_of(tmp_path).restore(fresh(1))[0], fresh(1))
    store_of(tmp_path).save(4, fresh(4), NOTES)
    assert names_in(tmp_path) == ["4"], "the incomplete files are removed"
    assert same(store_of(tmp_path).restore(fresh())[0], fresh(4))


def test_a_model_comes_back_without_its_script(tmp_path):
    model = vj.mlp_vae((6, 6, 1), hidden=(32,), likelihood=vj.LearnedGaussian(0.5), classes=3)
    state = vj.init(jax.random.key(0), model, OPTIMIZER)
    average = jax.tree.map(lambda leaf: leaf + 1, state.opt_state.average)
    state = replace(state, opt_state=state.opt_state._replace(average=average))
    store_of(tmp_path, model=model, variables=vj.averaged_variables).save(4, state, NOTES)
    shutil.rmtree(tmp_path / "4" / "state")  # which is not needed
    restored, variables = vj.restore_model(tmp_path)
    assert restored == model
    assert jax.tree.structure(variables) == jax.tree.structure(state.variables)
    assert same(variables, vj.averaged_variables(state))
    assert not same(variables, state.variables)
    with pytest.raises(vj.InputError, match=r"member is 0, but .* holds a single model, without members"):
        vj.restore_model(tmp_path, member=0)


def test_one_member_of_several_comes_back(tmp_path):
    states = jax.vmap(fresh_of)(jax.random.split(jax.random.key(0), 3))
    store_of(tmp_path, model=VAE).save(4, states, NOTES)
    assert same(vj.restore_model(tmp_path)[1], states.variables)
    _, variables = vj.restore_model(tmp_path, member=1)
    assert same(variables, jax.tree.map(lambda leaf: leaf[1], states.variables))
    for member in (-1, 3):
        with pytest.raises(vj.InputError, match=rf"member is {member}, but .* holds members 0 to 2"):
            vj.restore_model(tmp_path, member=member)


def test_a_model_that_can_not_come_back_is_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(vj.InputError, match=r"no checkpoint in .*nowhere; expected the folder of a run's"):
        vj.restore_model(tmp_path / "nowhere")
    assert names_in(tmp_path) == [], "looking makes no folder"
    store_of(tmp_path / "without").save(1, fresh(), NOTES)
    with pytest.raises(vj.InputError, match=r"have no model; use Checkpoints\(\.\.\., model=\)"):
        vj.restore_model(tmp_path / "without")
    with pytest.raises(vj.InputError, match=r"no checkpoint in .*best; keep one with Checkpoints\(\.\.\., best=\)"):
        vj.restore_model(tmp_path / "without", best=True)
    store_of(tmp_path / "with", model=VAE).save(1, fresh(), NOTES)
    with monkeypatch.context() as patch:
        patch.delattr(vj, "Bernoulli")
        with pytest.raises(vj.InputError, match=r"model.likelihood is vae_jax:Bernoulli, which can't be found"):
            vj.restore_model(tmp_path / "with")
    other = vj.mlp_vae((6, 6, 1), hidden=(16,))
    for init, message in (
        (other.init, "written by other code"),
        (None, "the code of the model can't make its variables"),
    ):
        monkeypatch.setattr(vj.VAE, "init", lambda self, key, data=None, init=init: init(key))
        with pytest.raises(vj.InputError, match=message):
            vj.restore_model(tmp_path / "with")


def test_a_run_that_is_killed_whenever_ends_in_the_same_bits(tmp_path):
    script = Path(__file__).with_name("kill_run.py")
    result = subprocess.run([sys.executable, script, "--kills", "1"], capture_output=True, text=True, check=True)
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["kills"] == 1
    assert found["same_bits"] is True


def test_no_broken_checkpoint_is_restored_silently_wrong(tmp_path):
    """Each file of the newest one damaged, in a process of its own: Orbax's threads complain late."""
    script = Path(__file__).with_name("damage_checkpoints.py")
    result = subprocess.run([sys.executable, script, "--cases", "32"], capture_output=True, text=True, check=True)
    counts = json.loads(result.stdout.splitlines()[-1])
    for what in ("restore", "restore_model"):
        assert set(counts[what]) == {"the newest", "the one before"}
        assert sum(counts[what].values()) == 32
        assert counts[what]["the one before"] > 3, "hardly any damage was seen"


def test_a_folder_of_broken_checkpoints_alone_is_a_sentence(tmp_path):
    store_of(tmp_path).save(0, fresh(), NOTES)
    shutil.rmtree(tmp_path / "0" / "state")
    with pytest.raises(vj.InputError, match=r"no checkpoint in .* can be read.*remove the folder"):
        store_of(tmp_path).restore(fresh())
