"""One process of several: train a small run with each kind of feeding, and print the results as one line of JSON.

python train_on_hosts.py PORT PROCESSES NUMBER
"""

import json
import sys
import tempfile
from pathlib import Path

import jax

import vae_jax as vj
from vae_jax.training import feeding
from vae_jax.training.sharding import Layout, is_first_process, require_same, start_processes

WAYS = {
    "resident": {},
    "streamed": {"stream_above": 0, "shard_optimizer": True},
}


def main(port: int, processes: int, number: int) -> None:
    start_processes(f"127.0.0.1:{port}", processes, number)
    found = {"devices": jax.device_count(), "first": is_first_process()}
    # Imported here, because it configures eight devices, which has no effect after JAX has started.
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of conftest.py
    from small_run import fit, fresh, fresh_members, in_float64, leaves, losses

    feeding.WINDOW_BYTES = 4 * 16 * 36  # of 4 steps
    asked = []
    read = Layout.read

    def recorded(layout, shape, axis, rows):
        def part(index):
            asked.append((shape, [[along.start, along.stop] for along in index]))
            return rows(index)

        return read(layout, shape, axis, part)

    Layout.read = recorded
    for way, settings in WAYS.items():
        asked.clear()
        state, history = fit(in_float64(fresh()), 2, mesh=vj.device_mesh(), **settings)
        found[way] = {
            "losses": losses(history).tolist(),
            "variables": [leaf.ravel().tolist() for leaf in leaves(state.variables)],
            "images": [index for shape, index in asked if shape[-3:] == (6, 6, 1)],
        }
    state, history = fit(in_float64(fresh_members(4)), 2, mesh=vj.device_mesh())
    found["members"] = {"losses": losses(history).tolist()}
    seen = []

    def callback(record):
        seen.append(record["epoch"])
        return record["epoch"] == 2

    _, history = fit(in_float64(fresh()), 4, mesh=vj.device_mesh(), callback=callback)
    found["stopped"] = {"seen": seen, "epochs": len(history)}
    require_same(seed="0", data="the same")
    try:
        require_same(seed="0", data=f"that of {number}")
    except vj.InputError as error:
        found["disagreement"] = str(error)
    with tempfile.TemporaryDirectory() as folder:
        store = vj.Checkpoints(folder, {}) if is_first_process() else vj.NoCheckpoints()
        try:
            fit(fresh(), 1, step=lambda state, batch: (state, {}), store=store)
        except vj.InputError as error:
            found["refusal"] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
