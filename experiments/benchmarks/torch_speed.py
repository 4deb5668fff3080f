"""What the PyTorch scripts of convolutional models share: their options, and training on random images."""

import argparse
import json
import time

import torch
from torch import nn


def options_of(**defaults: int) -> argparse.Namespace:
    """The options of the command line: those of all scripts, and whole numbers with the given defaults."""
    parser = argparse.ArgumentParser()
    for name, default in ({"batch": 64, "steps": 20, "repeats": 3} | defaults).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def train(name: str, net: nn.Module, side: int, rate: float, options: argparse.Namespace) -> None:
    """Train by Adam (fused) on random colour images of `side` x `side` pixels, and print the speed of each repetition.

    The network returns its loss. Its parameters and the images are in the layout with the channels last.
    """
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as in JAX
    net = net.to(options.device, memory_format=torch.channels_last)
    images = torch.rand(1024 + options.batch, 3, side, side).to(options.device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), rate, fused=True)
    loss_of = torch.compile(net) if options.mode == "compile" else net

    def run(steps: int) -> None:
        for step in range(steps):
            start = (step * options.batch) % 1024
            optimizer.zero_grad(set_to_none=True)
            loss_of(images[start : start + options.batch]).backward()
            optimizer.step()
        if options.device != "cpu":
            torch.cuda.synchronize()

    run(3)
    for repeat in range(options.repeats):
        start = time.perf_counter()
        run(options.steps)
        speed = options.steps * options.batch / (time.perf_counter() - start)
        peer = f"torch-{name}-{options.mode}"
        print(json.dumps({"peer": peer, "repeat": repeat, "images_per_s": round(speed, 1)}), flush=True)
