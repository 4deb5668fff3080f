"""Seconds per epoch of our MLP VAE against the same model in PyTorch, in turn, on the same machine.

Runs the peer script (see --peer) under a Python that has PyTorch, then as many epochs of ours, A B A B, and gives the
ratio of the medians, PyTorch / ours: above 1 ours is faster. On a shared machine quote the ratio, never the seconds.
"""

import json
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

import jax
import optax

import vae_jax as vj
from vae_jax.errors import require_positive_int
from vae_jax.experiment import Options, Run, run_script


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    torch_python: Path | None = None
    """A Python that has PyTorch. Without one only our own seconds are measured."""
    peer: Path = Path("../shared/bench/torch_mlp.py")
    """Script `peer DATA_DIR --batch B --epochs N` that prints a JSON line with "seconds" for each epoch."""
    rounds: int = 3
    """Turns of each side."""
    epochs: int | None = 4
    """Epochs of ours in a turn, and of the peer's; the first, which compiles or warms up, does not count."""
    batch_size: int | None = 128
    """Images in a training step."""
    out: Path = Path("runs/benchmark")
    """Folder for the report."""


def main(config: Config) -> None:
    """Take turns, then report."""
    require_positive_int(rounds=config.rounds)
    run = Run.start("benchmark", config)
    if run.epochs < 2:
        raise vj.InputError(f"epochs is {run.epochs}; the first does not count, so give at least 2")
    peer = peer_command(config, run)
    vae, optimizer = vj.mlp_vae(run.data.image_shape), optax.adam(1e-3)
    step = vj.make_train_step(vae, vj.ELBO(), optimizer)
    seconds: dict[str, list[float]] = {"torch": [], "ours": []} if peer else {"ours": []}
    for turn in range(config.rounds):
        if peer:
            seconds["torch"] += peer_seconds(peer)[1:]
        state = vj.init(jax.random.key(config.seed), vae, optimizer)
        _, history = vj.fit(state, step, run.data.train, epochs=run.epochs, batch_size=run.batch_size, progress=False)
        seconds["ours"] += [record["seconds"] for record in history[1:]]
        print(f"round {turn + 1}: " + ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items()))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["torch"] / medians["ours"] if peer else None
    print(f"median seconds per epoch at batch {run.batch_size}: {medians}" + (f"; ratio {ratio:.2f}" if ratio else ""))
    run.report({"seconds_per_epoch": seconds, "medians": medians, "ratio_torch_over_ours": ratio})


def peer_command(config: Config, run: Run) -> list[str] | None:
    """The peer's command line, or None, with a sentence, where there is no PyTorch."""
    if config.torch_python is None or config.data_dir is None:
        print("No PyTorch to compare with: give --torch-python and --data-dir.")
        return None
    for path in (config.torch_python, config.peer):
        if not path.is_file():
            raise vj.InputError(f"{path} does not exist; give the Python that has PyTorch, and the peer script")
    if subprocess.run([config.torch_python, "-c", "import torch"], capture_output=True, check=False).returncode:
        print(f"No PyTorch to compare with: {config.torch_python} cannot import torch.")
        return None
    sizes = ["--batch", str(run.batch_size), "--epochs", str(run.epochs)]
    return [str(config.torch_python), str(config.peer), str(config.data_dir), *sizes]


def peer_seconds(command: list[str]) -> list[float]:
    """Seconds of each of the peer's epochs."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise vj.InputError(f"the peer failed ({result.stderr.strip().splitlines()[-1:]}); try it by itself")
    return [json.loads(line)["seconds"] for line in result.stdout.splitlines()]


if __name__ == "__main__":
    run_script(main, Config)
