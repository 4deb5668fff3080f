"""The PyTorch side of the comparison with `vj.mlp_vae`: the VAE 784-500-250-2 of grey images.

usage: python torch_mlp.py [--batch 128] [--steps 468] [--repeats 3] [--pixels 784] [--mode eager|compile]
                           [--device cpu|cuda] [--dtype float32|bfloat16]

Bernoulli likelihood, closed-form KL, Adam 1e-3 (fused), He initialisation, as in this library. The images are random,
on the device, and shuffled in each repetition; no loss is read. bfloat16 is that of torch.autocast. It prints a JSON
line with "images_per_s" for each repetition. It needs PyTorch alone.
"""

import argparse
import itertools
import json
import time

import torch
from torch import nn
from torch.nn import functional

HIDDEN, LATENT = (500, 250), 2


def dense(*widths: int) -> nn.Sequential:
    """Dense layers with a ReLU between them; those before a ReLU are initialised as in He et al. (2015)."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
        nn.init.zeros_(layers[-2].bias)
    return nn.Sequential(*layers[:-1])


class VAE(nn.Module):
    """Dense VAE."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.encoder = dense(pixels, *HIDDEN, 2 * LATENT)
        self.decoder = dense(LATENT, *reversed(HIDDEN), pixels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Negative ELBO, averaged over the batch, in nats."""
        mean, log_variance = self.encoder(x).float().chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        logits = self.decoder(z).float()
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        return (cross_entropy + 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)).mean()


def main() -> None:
    """Train on random images and print the speed of each repetition."""
    parser = argparse.ArgumentParser()
    for name, default in (("batch", 128), ("steps", 468), ("repeats", 3), ("pixels", 784)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as in JAX
    net = VAE(options.pixels).to(options.device)
    images = torch.rand(options.steps * options.batch, options.pixels, device=options.device)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    loss_of = torch.compile(net) if options.mode == "compile" else net
    low = options.dtype == "bfloat16"

    def epoch() -> None:
        for rows in torch.randperm(len(images), device=options.device).split(options.batch):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(options.device, torch.bfloat16, enabled=low):
                loss = loss_of(images[rows])
            loss.backward()
            optimizer.step()
        if options.device != "cpu":
            torch.cuda.synchronize()

    epoch()
    for repeat in range(options.repeats):
        start = time.perf_counter()
        epoch()
        speed = len(images) / (time.perf_counter() - start)
        peer = f"torch-mlp-{options.mode}-{options.dtype}"
        print(json.dumps({"peer": peer, "repeat": repeat, "images_per_s": round(speed, 1)}), flush=True)


if __name__ == "__main__":
    main()
