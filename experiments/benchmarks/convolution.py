"""Images per second of the convolutional VAE for 64 x 64 pixels, or of the ResNet VAE, here and in PyTorch.

The benchmark runs the peer script (see --peer) with a Python that has PyTorch, then this library, on the same device
and in alternation (A B A B). This library trains in two ways: by compiled epochs, as in `fit`, and by single compiled
steps. The benchmark reports the ratios of the medians, this library / PyTorch; above 1, this library is faster. The
images are random. On a shared machine, only the ratios are meaningful.
"""

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optax

import vae_jax as vj
from vae_jax.errors import require_positive_int
from vae_jax.training.step import TrainStep

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of the harness

from benchmarks.peer import peer_lines, torch_command, torch_device
from benchmarks.speed import by_epochs, by_steps
from harness.script import run_script


@dataclass(frozen=True)
class Config:
    """Options of this benchmark."""

    model: Literal["conv", "resnet"] = "conv"
    """`vj.conv_vae` of 64 x 64 pixels, or `vj.resnet_vae` of 32 x 32 pixels."""
    width: int = 16
    """Number of channels of the first stage of the ResNet VAE."""
    torch_python: Path | None = None
    """Python interpreter that has PyTorch. Without it, only this library is measured."""
    mode: Literal["eager", "compile"] = "eager"
    """Whether PyTorch runs the model directly or compiles it by torch.compile."""
    peer: Path | None = None
    """Peer script, called as `peer --batch B --steps N --repeats R --mode M --device D`, and with `--width W` for the
    ResNet VAE. It prints a JSON line with "images_per_s" for each repetition. The default is torch_conv.py or
    torch_resnet.py beside this script."""
    rounds: int = 3
    """Number of runs of each side."""
    batch_size: int = 64
    """Number of images in a training step."""
    steps: int = 40
    """Number of training steps in an epoch of this library and in a repetition of the peer."""


def main(config: Config) -> None:
    """Run both sides in alternation, then print the medians and the ratios."""
    require_positive_int(rounds=config.rounds, batch_size=config.batch_size, steps=config.steps, width=config.width)
    peer = torch_command(config.torch_python, config.peer or Path(__file__).with_name(f"torch_{config.model}.py"))
    options: dict[str, Any] = {"mode": config.mode, "device": torch_device()}
    if config.model == "resnet":
        options["width"] = config.width
    step = step_of(config)
    rates: dict[str, list[float]] = {"torch": []} if peer else {}
    rates |= {"compiled epochs": [], "one step at a time": []}
    for turn in range(config.rounds):
        if peer:
            lines = peer_lines(peer, batch=config.batch_size, steps=config.steps, repeats=2, **options)
            rates["torch"] += [line["images_per_s"] for line in lines]
        for name, measure in (("compiled epochs", by_epochs), ("one step at a time", by_steps)):
            rates[name] += measure(step, config.batch_size, config.steps)
        print(f"round {turn + 1}: " + ", ".join(f"{name} {values[-1]:.0f}/s" for name, values in rates.items()))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"median images per second at batch {config.batch_size}: {medians}")
    for name in [name for name in medians if name != "torch" and "torch" in medians]:
        print(f"{name}, ours / torch: {medians[name] / medians['torch']:.2f}")


def step_of(config: Config) -> TrainStep:
    """The step of the peer's model: squared error / 2 and Adam, or a learned scale, the sampled KL and Adam."""
    if config.model == "conv":
        return vj.make_train_step(vj.conv_vae(), vj.ELBO(), optax.adam(1e-3))
    return vj.make_train_step(vj.resnet_vae(width=config.width), vj.ELBO(kl=vj.SampledKL()), optax.adam(1e-4))


if __name__ == "__main__":
    run_script(main, Config)
