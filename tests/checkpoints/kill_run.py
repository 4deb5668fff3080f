"""Kill a run with SIGKILL repeatedly, restart it each time, and compare the result with an uninterrupted run.

By hand: `python tests/checkpoints/kill_run.py --kills 20`; `test_checkpoint.py` does it with one kill. The run spends
most of its time on saving, so most kills interrupt a save.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import vae_jax as vj

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of conftest.py

from test_checkpoint import CONFIG, VAE, fresh, run


class TellingCheckpoints(vj.Checkpoints):
    """Checkpoints that print a line when a save begins."""

    def save(self, step, *args, **settings):
        print("saving", step, flush=True)
        super().save(step, *args, **settings)


def train(folder, epochs):
    """Start or resume the run; print the SHA-256 of the final parameters."""
    settings = {"model": VAE, "variables": vj.averaged_variables, "best": "loss", "every_seconds": 0.0}
    print("done", json.dumps(outcome(*run(fresh(), epochs, store=TellingCheckpoints(folder, CONFIG, **settings)))))


def outcome(state, history):
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves((state.variables, state.opt_state)):
        sha.update(np.asarray(leaf).tobytes())
    return {"epochs": [record["epoch"] for record in history], "sha256": sha.hexdigest()}


def start(folder, epochs):
    command = [sys.executable, __file__, "--train", str(folder), "--epochs", str(epochs)]
    cache = {"COMPILATION_CACHE_DIR": str(folder.parent / "cache"), "PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = os.environ | {f"JAX_{name}": value for name, value in cache.items()}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def live(process, saves=None, seconds=0.0):
    """Kill a process some time after a number of saves have begun; return its result if it ends before."""
    for line in process.stdout:
        if line.startswith("done"):
            process.wait()
            return json.loads(line.removeprefix("done"))
        if line.startswith("saving") and saves is not None:
            saves -= 1
            if saves == 0:
                time.sleep(seconds)
                break
    process.kill()
    process.wait()
    return None


def main(kills, seed):
    chance, epochs = random.Random(seed), 3 * kills + 2
    killed = within_saves = 0
    with tempfile.TemporaryDirectory() as place:
        folder, ended = Path(place) / "killed", None
        while killed < kills and ended is None:
            ended = live(start(folder, epochs), chance.randint(1, 4), chance.uniform(0.0, 0.3))
            if ended is None:
                killed += 1
                temporary = sorted(str(path.relative_to(folder)) for path in folder.glob("**/[0-9]*-tmp"))
                temporary = [path for path in temporary if "-tmp/" not in path]
                within_saves += bool(temporary)
                whole = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
                if whole:
                    vj.restore_model(folder)
                print(f"kill {killed}: whole checkpoints {whole}, half-written {temporary or 'none'}", flush=True)
        last = start(folder, epochs)
        unbroken = outcome(*run(fresh(), epochs))
        report = {"kills": killed, "within_saves": within_saves, "epochs": epochs}
        report["same_bits"] = (ended or live(last)) == unbroken
    print(json.dumps(report))
    return 0 if report["same_bits"] else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=Path, help="start or resume the run in this folder, without kills")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    if options.train:
        train(options.train, options.epochs)
    else:
        sys.exit(main(options.kills, options.seed))
