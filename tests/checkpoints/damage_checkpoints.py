"""Damage each file of the newest checkpoint, restore, and print the outcomes; `test_checkpoint.py` runs this.

By hand: `python tests/checkpoints/damage_checkpoints.py --cases 500`. All files are damaged in turn, each time in
another way.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax

import vae_jax as vj

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of conftest.py

from test_checkpoint import CONFIG, VAE, fresh, same

HOW = ("deleted", "emptied", "truncated", "one byte flipped")
STEPS = {1: "the one before", 2: "the newest"}


def trained(step):
    """A state whose averaged parameters differ from its parameters."""
    state = fresh(step)
    average = jax.tree.map(lambda leaf: leaf + 1, state.opt_state.average)
    return replace(state, opt_state=state.opt_state._replace(average=average))


def store_in(folder):
    return vj.Checkpoints(folder, CONFIG, model=VAE, variables=vj.averaged_variables, every_seconds=0.0)


def damage(path, how, chance):
    content = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: chance.randrange(len(content))] if content else b"")
    elif content:
        content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
        path.write_bytes(content)


def outcome(folder, states):
    """The outcome of each way of restoring; none may fail, because the previous checkpoint is whole."""
    state, notes = store_in(folder).restore(fresh())
    right = same(state, states[notes["step"]]) and notes == {"step": notes["step"], "loss": 0.1}
    whole = STEPS[notes["step"]] if right else "wrong"
    model, variables = vj.restore_model(folder)
    found = [step for step, state in states.items() if same(variables, vj.averaged_variables(state))]
    return whole, STEPS[found[0]] if model == VAE and found else "wrong"


def main(cases, seed):
    chance, states = random.Random(seed), {step: trained(step) for step in STEPS}
    counts = {"restore": Counter(), "restore_model": Counter()}
    with tempfile.TemporaryDirectory() as place:
        whole, broken = Path(place) / "whole", Path(place) / "broken"
        for step, state in states.items():
            store_in(whole).save(step, state, {"step": step, "loss": 0.1})
        files = sorted(path.relative_to(whole) for path in (whole / "2").rglob("*") if path.is_file())
        for case in range(cases):
            file, how = files[case % len(files)], HOW[(case + case // len(files)) % len(HOW)]
            shutil.copytree(whole, broken)
            damage(broken / file, how, chance)
            outcomes = outcome(broken, states)
            shutil.rmtree(broken)
            for name, came in zip(counts, outcomes, strict=True):
                counts[name][came] += 1
            if "wrong" in outcomes:
                print(f"wrong: {file} {how}: {outcomes}")
    print(json.dumps({"cases": cases, "files": len(files)} | counts))


if __name__ == "__main__":
    warnings.simplefilter("ignore", vj.CheckpointWarning)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
