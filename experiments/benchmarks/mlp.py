"""Seconds per epoch of the MLP VAE of this library and of the same model in PyTorch, measured on the same machine.

The benchmark runs the peer script (see --peer) with a Python that has PyTorch, then the same number of epochs of this
library, on the same device and in alternation (A B A B). It reports the ratio of the medians, PyTorch / this library;
above 1, this library is faster. On a shared machine, only the ratio is meaningful. PyTorch's images are random: their
values do not change the speed. On a GPU, use `accelerator.py`: here, programs are deterministic and so slower there.
"""

import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import optax

import vae_jax as vj
from vae_jax.errors import require_positive_int

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of the harness

from benchmarks.peer import peer_lines, torch_command, torch_device
from harness.options import Options, TrainingOptions, require_unused
from harness.report import Report
from harness.run import Run
from harness.script import run_script


@dataclass(frozen=True)
class Config(Options):
    """Options of this benchmark."""

    torch_python: Path | None = None
    """Python interpreter that has PyTorch. Without it, only this library is measured."""
    peer: Path | None = None
    """Peer script, called as `peer --batch B --steps N --pixels P --repeats R --device D`, with N the number of
    training steps in an epoch. It prints a JSON line with "images_per_s" for each repetition. The default is
    torch_mlp.py beside this script."""
    rounds: int = 3
    """Number of runs of each side."""
    out: Path = Path("runs/benchmark_mlp")
    """Folder for the report."""
    training: TrainingOptions = TrainingOptions(epochs=4, batch_size=128)


def main(config: Config) -> Report:
    """Run both sides in alternation, and write the report."""
    require_positive_int(rounds=config.rounds)
    require_unused(config, "learning_rate", "weight_decay", why="the optimizer is that of the peer, Adam at 1e-3")
    run = Run.start("benchmark_mlp", config)
    if run.epochs < 2:
        raise vj.InputError(f"epochs is {run.epochs}; the first does not count, so give at least 2")
    peer = torch_command(config.torch_python, config.peer or Path(__file__).with_name("torch_mlp.py"))
    steps = len(run.data.train) // run.batch_size
    sizes = {"batch": run.batch_size, "steps": steps, "pixels": math.prod(run.data.event_shape)}
    vae, optimizer = vj.mlp_vae(run.data.event_shape), optax.adam(1e-3)
    step = vj.make_train_step(vae, vj.ELBO(), optimizer)
    seconds: dict[str, list[float]] = {"torch": [], "ours": []} if peer else {"ours": []}
    for turn in range(config.rounds):
        if peer:
            lines = peer_lines(peer, **sizes, repeats=run.epochs - 1, device=torch_device())
            seconds["torch"] += [steps * run.batch_size / line["images_per_s"] for line in lines]
        state = vj.init(jax.random.key(config.seed), vae, optimizer)
        _, history = vj.fit(state, step, run.data.train, epochs=run.epochs, batch_size=run.batch_size, progress=False)
        seconds["ours"] += [record["seconds"] for record in history[1:]]
        print(f"round {turn + 1}: " + ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items()))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["torch"] / medians["ours"] if peer else None
    print(f"median seconds per epoch at batch {run.batch_size}: {medians}" + (f"; ratio {ratio:.2f}" if ratio else ""))
    return run.report({"seconds_per_epoch": seconds, "medians": medians, "ratio_torch_over_ours": ratio})


if __name__ == "__main__":
    run_script(main, Config)
