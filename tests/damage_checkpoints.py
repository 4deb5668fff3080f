"""Damage every file of a checkpoint in four ways, restore, print what came of it; `test_checkpoint.py` runs this."""

import json
import random
import shutil
import sys
import warnings
from pathlib import Path

from test_checkpoint import CONFIG, fresh, run, same

import vae_jax as vj


def damage(path, how, chance):
    content = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: chance.randrange(len(content))] if content else b"")
    elif content:  # one byte flipped
        content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
        path.write_bytes(content)


def main(folder):
    whole, broken = folder / "whole", folder / "broken"
    store = vj.Checkpoints(whole, CONFIG, every_seconds=0.0, keep=2)
    states = [run(fresh(), epochs, store=store)[0].variables for epochs in (1, 2)]
    chance, outcomes = random.Random(0), {}
    for file in [path.relative_to(whole) for path in (whole / "2").rglob("*") if path.is_file()]:
        for how in ("deleted", "emptied", "truncated", "flipped"):
            shutil.copytree(whole, broken)
            damage(broken / file, how, chance)
            restored, _ = vj.Checkpoints(broken, CONFIG).restore(fresh())
            epoch = int(restored.step) // 4
            right = same(restored.variables, states[epoch - 1])
            outcomes[f"{file} {how}"] = {1: "the one before", 2: "the newest"}[epoch] if right else "wrong"
            shutil.rmtree(broken)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    warnings.simplefilter("ignore", vj.CheckpointWarning)
    main(Path(sys.argv[1]))
