"""Costs of `fit` with several members as one program, with checkpoints and with streaming; and its memory over time.

Each cost is a ratio of run times, measured in alternation (A B A B) on the same machine: members as one program to the
same runs in sequence; a run that saves a checkpoint after each epoch to a run without checkpoints; images streamed from
the host to images stored on the device. The resident memory of the process is measured after each of many short epochs.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax

import vae_jax as vj
from vae_jax.errors import require_positive_int
from vae_jax.training.loop import run_chunk
from vae_jax.training.step import Step

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of the harness

from harness.options import Options, TrainingOptions, require_unused
from harness.report import Report
from harness.run import Run
from harness.script import run_script


@dataclass(frozen=True)
class Config(Options):
    """Options of this benchmark."""

    together: int = 8
    """Number of members that train as one program."""
    rounds: int = 3
    """Number of measurements of each side."""
    memory_epochs: int = 300
    """Number of short epochs, of ten steps each, after which the memory is measured."""
    out: Path = Path("runs/benchmark_fit")
    """Folder for the report."""
    training: TrainingOptions = TrainingOptions(epochs=2, batch_size=128)


def main(config: Config) -> Report:
    """Measure the sides in alternation, then the memory, and write the report."""
    require_positive_int(rounds=config.rounds, together=config.together, memory_epochs=config.memory_epochs)
    require_unused(config, "learning_rate", "weight_decay", why="the optimizer of this benchmark is Adam at 1e-3")
    run = Run.start("benchmark_fit", config)
    vae, optimizer = vj.mlp_vae(run.data.event_shape), optax.adam(1e-3)
    step = vj.make_train_step(vae, vj.ELBO(), optimizer)

    def seconds(*states: vj.TrainState, epochs: int, **settings: Any) -> float:
        start = time.perf_counter()
        for state in states:
            vj.fit(state, step, run.data.train, epochs=epochs, batch_size=run.batch_size, progress=False, **settings)
        return time.perf_counter() - start

    members = vj.init_members(jax.random.split(run.key, config.together), vae, optimizer)
    alone = [vj.member(members, number) for number in range(config.together)]
    of_members = partial(seconds, epochs=run.epochs)
    of_one = partial(seconds, alone[0], epochs=run.epochs * config.together)

    def checkpoints() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return of_one(store=vj.Checkpoints(folder, {}, model=vae, every_seconds=0.0))

    sides: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "members as one program / one after the other": (lambda: of_members(members), lambda: of_members(*alone)),
        "a checkpoint each epoch / none": (checkpoints, of_one),
        "streaming / resident": (lambda: of_one(stream_above=0), of_one),
    }
    ratios = {name: compare(name, one, other, config.rounds) for name, (one, other) in sides.items()}
    return run.report({"ratios": ratios, "memory": memory_by_epoch(alone[0], step, run, config.memory_epochs)})


def compare(name: str, one: Callable[[], float], other: Callable[[], float], rounds: int) -> dict[str, Any]:
    """Measure the ratio of the median run times of two sides, after one call of each to compile."""
    turns = [(one(), other()) for _ in range(rounds + 1)][1:]
    medians = [statistics.median(side) for side in zip(*turns, strict=True)]
    ratio = medians[0] / medians[1]
    print(f"{name}: {ratio:.3f} ({medians[0]:.2f} s / {medians[1]:.2f} s, medians of {rounds} turns)")
    return {"ratio": ratio, "seconds": turns}


def memory_by_epoch(state: vj.TrainState, step: Step, run: Run, epochs: int) -> dict[str, Any]:
    """Measure the memory of the process in mebibytes after each epoch of ten steps, and count the compilations."""
    held: list[float] = []

    def eval_fn(state: vj.TrainState) -> dict[str, float]:
        held.append(resident_mebibytes())
        return {}

    compiled: Any = run_chunk  # a jitted function, which counts its compiled programs
    before = compiled._cache_size()
    data = run.data.train[: 10 * run.batch_size]
    vj.fit(state, step, data, epochs=epochs, batch_size=run.batch_size, eval_fn=eval_fn, progress=False)
    late = held[5:] or held
    compilations = compiled._cache_size() - before
    print(
        f"memory over {epochs} epochs: {held[0]:.0f} MiB after the first, after the fifth from {min(late):.0f} to "
        f"{max(late):.0f}, {max(late) / min(late) - 1:.1%} apart; compilations: {compilations}"
    )
    return {"mebibytes_by_epoch": held, "compilations": compilations}


def resident_mebibytes() -> float:
    """The resident memory of the process in mebibytes, as reported by Linux.

    Raises:
      InputError: The system has no /proc/self/status.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        raise vj.InputError("the memory of a process is read from /proc, which this system does not have")
    (kibibytes,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
    return int(kibibytes) / 1024


if __name__ == "__main__":
    run_script(main, Config)
