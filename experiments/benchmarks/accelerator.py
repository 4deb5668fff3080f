"""Images per second of the MLP VAE 784-500-250-2 on the device that JAX finds: one command, one table.

The rows are this library by compiled epochs (`fit`), by single compiled steps, and with many members as one program,
each in float32 and in bfloat16 (`compute_dtype`); and PyTorch on the same device, eager and compiled by torch.compile,
run by the interpreter `--torch-python`. The programs run in turn (A B A B), and each round measures each of them twice,
after a run that compiles. The images are random and on the device. Those of members are counted once for each member.
"""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import optax

import vae_jax as vj
from vae_jax.errors import require_positive_int

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of the harness

from benchmarks.peer import peer_lines, torch_command, torch_device
from benchmarks.speed import by_epochs, by_steps
from harness.script import run_script

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
    rates: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(config.rounds):
        for name, measure in programs.items():
            rates[name] += measure()
            print(f"round {turn + 1}, {name}: {rates[name][-1]:,.0f} images / s", flush=True)
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, batch {config.batch_size}\n\n{table(rates)}")


def ours(config: Config) -> Programs:
    """The programs of this library."""
    programs: Programs = {}
    sizes = config.batch_size, config.steps
    for dtype in ("float32", "bfloat16"):
        vae = vj.mlp_vae(compute_dtype=None if dtype == "float32" else dtype)
        step = vj.make_train_step(vae, vj.ELBO(), optax.adam(1e-3))
        programs |= {
            f"compiled epochs, {dtype}": partial(by_epochs, step, *sizes),
            f"one step at a time, {dtype}": partial(by_steps, step, *sizes),
            f"{config.members} members, {dtype}": partial(by_epochs, step, *sizes, config.members),
        }
    return programs


def peers(config: Config) -> Programs:
    """The programs of PyTorch; none without it."""
    command = torch_command(config.torch_python, config.peer or Path(__file__).with_name("torch_mlp.py"))
    if command is None:
        return {}

    def measure(mode: str, dtype: str) -> list[float]:
        sizes = {"batch": config.batch_size, "steps": config.steps, "repeats": 2}
        lines = peer_lines(command, **sizes, mode=mode, dtype=dtype, device=torch_device())
        return [line["images_per_s"] for line in lines]

    settings = [(mode, dtype) for mode in ("eager", "compile") for dtype in ("float32", "bfloat16")]
    return {f"PyTorch, {mode}, {dtype}": partial(measure, mode, dtype) for mode, dtype in settings}


def table(rates: dict[str, list[float]]) -> str:
    """Median, least and greatest rate of each program, and the ratio of its median to that of the first program."""
    first = statistics.median(next(iter(rates.values())))
    lines = ["| program | images / s, median | least | greatest | ratio to the first |", "|---|---:|---:|---:|---:|"]
    for name, found in rates.items():
        median = statistics.median(found)
        lines.append(f"| {name} | {median:,.0f} | {min(found):,.0f} | {max(found):,.0f} | {median / first:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main, Config)
