"""The PyTorch side of the comparison with `vj.resnet_vae`: a ResNet-18 VAE of 32 x 32 colour images.

usage: python torch_resnet.py [--batch 64] [--steps 20] [--repeats 3] [--width 64] [--mode eager|compile]
                              [--device cpu|cuda]

Encoder: ResNet-18 (He et al., 2016) with a 3 x 3 convolution and no pooling before the blocks; decoder: its mirror
image with nearest-neighbour upsampling. 256 latents, one learned scale, sampled KL, Adam 1e-4 (fused), channels last.
The images are random. It prints a JSON line with "images_per_s" for each repetition. It needs PyTorch, and
torch_speed.py beside it.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from torch_speed import options_of, train


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Module:
    """Convolution that keeps the size at stride 1, without a bias."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class Block(nn.Module):
    """Residual block of the encoder (`scale` of 1 / 2) or of the decoder (`scale` of 2); 1 keeps the size."""

    def __init__(self, inputs: int, outputs: int, scale: float, middle: int) -> None:
        super().__init__()
        stride = 2 if scale < 1 else 1
        self.up = nn.Upsample(scale_factor=2) if scale > 1 else nn.Identity()
        self.first, self.first_norm = conv(inputs, middle, 3, stride), nn.BatchNorm2d(middle)
        self.second, self.second_norm = conv(middle, outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if scale != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(self.up, conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs of a batch."""
        h = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(self.up(h))) + self.shortcut(x))


class VAE(nn.Module):
    """ResNet-18 VAE."""

    def __init__(self, width: int, latent: int = 256) -> None:
        super().__init__()
        layers, inputs = [conv(3, width), nn.BatchNorm2d(width), nn.ReLU()], width
        for stage in range(4):
            for scale in (0.5 if stage else 1, 1):
                layers.append(Block(inputs, width * 2**stage, scale, width * 2**stage))
                inputs = width * 2**stage
        self.encoder = nn.Sequential(*layers)
        self.mean, self.log_variance = nn.Linear(inputs, latent), nn.Linear(inputs, latent)
        self.first, self.start = nn.Linear(latent, 16 * inputs), inputs
        layers = []
        for outputs in (4 * width, 2 * width, width, width):
            for scale in (2 if len(layers) < 6 else 1, 1):
                layers.append(Block(inputs, outputs, scale, inputs))
                inputs = outputs
        self.decoder = nn.Sequential(*layers, conv(width, 3))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Negative ELBO, averaged over the batch, in nats."""
        features = self.encoder(x).mean((2, 3))
        mean, log_variance = self.mean(features), self.log_variance(features)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        h = self.first(z).view(-1, self.start, 4, 4).contiguous(memory_format=torch.channels_last)
        residual = (x - self.decoder(h)) / torch.exp(self.log_scale)
        log_px_z = -(0.5 * residual**2 + self.log_scale + 0.5 * math.log(2 * math.pi)).sum((1, 2, 3))
        log_ratio = (0.5 * z**2 - 0.5 * (z - mean) ** 2 * torch.exp(-log_variance) - 0.5 * log_variance).sum(1)
        return (log_ratio - log_px_z).mean()


def main() -> None:
    """Train on random images and print the speed of each repetition."""
    options = options_of(width=64)
    train("resnet", VAE(options.width), 32, 1e-4, options)


if __name__ == "__main__":
    main()
