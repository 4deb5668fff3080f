"""Images per second of the MLP VAE 784-500-250-2 on the device that JAX finds: one command, one table.

The rows are this library by compiled epochs (`fit`), by single compiled steps, and with many members as one program,
each in float32 and in bfloat16 (`compute_dtype`); and PyTorch, eager and compiled by torch.compile, with a Python that
has it. The programs run in turn (A B A B), and each round measures each of them twice, after a run that compiles. The
images are random and on the device. Those of members are counted once for each member.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax

import vae_jax as vj
from vae_jax.errors import require_positive_int
from vae_jax.training.step import TrainStep

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of the harness

from benchmarks.peer import peer_lines, torch_command
from harness.run import run_script

Programs = dict[str, Callable[[], list[float]]]
"""Functions that measure images per second, by the names of the rows."""


@dataclass(frozen=True)
class Config:
    """Options of this benchmark."""

    torch_python: Path | None = None
    """Python interpreter that has PyTorch. Without it, only this library is measured."""
    peer: Path | None = None
    """Peer script, called as `peer --batch B --steps N --repeats R --mode M --dtype T --device D`. It prints a JSON
    line with "images_per_s" for each repetition. The default is torch_mlp.py beside this script."""
    members: int = 64
    """Number of members that train as one program."""
    batch_size: int = 128
    """Number of images in a training step."""
    steps: int = 468
    """Number of training steps in an epoch."""
    rounds: int = 3
    """Number of turns of each program."""
    smoke: bool = False
    """Whether to try the script quickly, with 2 members, 4 steps and one round. The numbers are not meaningful."""


def main(config: Config) -> None:
    """Run all programs in turn, and print the table."""
    require_positive_int(members=config.members, batch_size=config.batch_size, steps=config.steps, rounds=config.rounds)
    if config.smoke:
        config = replace(config, members=2, steps=4, rounds=1)
    programs = ours(config) | peers(config)
    turns = [{name: measure() for name, measure in programs.items()} for _ in range(config.rounds)]
    rates = {name: [rate for turn in turns for rate in turn[name]] for name in programs}
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, batch {config.batch_size}\n\n{table(rates)}")


def ours(config: Config) -> Programs:
    """The programs of this library."""
    programs: Programs = {}
    for dtype in ("float32", "bfloat16"):
        vae = vj.mlp_vae(compute_dtype=None if dtype == "float32" else dtype)
        step = vj.make_train_step(vae, vj.ELBO(), optax.adam(1e-3))
        programs |= {
            f"compiled epochs, {dtype}": partial(by_epochs, step, config),
            f"one step at a time, {dtype}": partial(by_steps, step, config),
            f"{config.members} members, {dtype}": partial(by_epochs, step, config, config.members),
        }
    return programs


def peers(config: Config) -> Programs:
    """The programs of PyTorch; none without it."""
    command = torch_command(config.torch_python, config.peer or Path(__file__).with_name("torch_mlp.py"))
    if command is None:
        return {}
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"

    def measure(mode: str, dtype: str) -> list[float]:
        sizes = {"batch": config.batch_size, "steps": config.steps, "repeats": 2}
        return [line["images_per_s"] for line in peer_lines(command, **sizes, mode=mode, dtype=dtype, device=device)]

    settings = [(mode, dtype) for mode in ("eager", "compile") for dtype in ("float32", "bfloat16")]
    return {f"PyTorch, {mode}, {dtype}": partial(measure, mode, dtype) for mode, dtype in settings}


def by_epochs(step: TrainStep, config: Config, members: int | None = None) -> list[float]:
    """Images per second of two epochs of `fit`, of one model or of all members."""
    images = np.random.default_rng(0).integers(0, 256, (config.steps * config.batch_size, 28, 28, 1), np.uint8)
    key = jax.random.key(0)
    if members is None:
        state = vj.init(key, step.model, step.optimizer)
    else:
        state = vj.init_members(jax.random.split(key, members), step.model, step.optimizer)
    _, history = vj.fit(state, step, vj.Split(images), epochs=3, batch_size=config.batch_size, progress=False)
    return [len(images) * (members or 1) / record["seconds"] for record in history[1:]]


def by_steps(step: TrainStep, config: Config) -> list[float]:
    """Images per second of two times the steps of an epoch, with a call for each step."""
    data_key, key = jax.random.split(jax.random.key(0))
    batch = vj.Batch(jax.random.uniform(data_key, (config.batch_size, 28, 28, 1)))
    compiled = jax.jit(step, donate_argnums=0)
    state, _ = compiled(vj.init(key, step.model, step.optimizer), batch)
    rates = []
    for _ in range(2):
        start = time.perf_counter()
        for _ in range(config.steps):
            state, _ = compiled(state, batch)
        jax.block_until_ready(state)
        rates.append(config.steps * config.batch_size / (time.perf_counter() - start))
    return rates


def table(rates: dict[str, list[float]]) -> str:
    """Median, least and greatest rate of each program, and the ratio of its median to that of the first program."""
    first = statistics.median(next(iter(rates.values())))
    lines = ["| program | images / s, median | least | greatest | ratio to the first |", "|---|---:|---:|---:|---:|"]
    for name, of in rates.items():
        median = statistics.median(of)
        lines.append(f"| {name} | {median:,.0f} | {min(of):,.0f} | {max(of):,.0f} | {median / first:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main, Config)
