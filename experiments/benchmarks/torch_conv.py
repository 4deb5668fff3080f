"""The PyTorch side of the comparison with `vj.conv_vae`: a convolutional VAE of 64 x 64 colour images.

usage: python torch_conv.py [--batch 64] [--steps 20] [--repeats 3] [--latent 100] [--mode eager|compile]
                            [--device cpu|cuda]

Encoder: 4 x 4 convolutions of stride 2 with 32, 64, 128 and 256 channels; decoder: its mirror image in transposed
convolutions. Gaussian likelihood (squared error / 2), closed-form KL, Adam 1e-3 (fused), channels last. The images are
random. It prints a JSON line with "images_per_s" for each repetition. It needs PyTorch, and torch_speed.py beside it.
"""

import itertools

import torch
from torch import nn
from torch.nn import functional
from torch_speed import options_of, train

CHANNELS, CORNER = (3, 32, 64, 128, 256), 4  # channels of each layer, and height and width of the last one


def convolutions(kind: type[nn.Module], channels: tuple[int, ...]) -> list[nn.Module]:
    """Convolutions, or transposed ones, that halve or double the size, each followed by a ReLU."""
    return [
        layer
        for inputs, outputs in itertools.pairwise(channels)
        for layer in (kind(inputs, outputs, 4, 2, 1), nn.ReLU())
    ]


class VAE(nn.Module):
    """Convolutional VAE."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        features = CHANNELS[-1] * CORNER**2
        self.encoder = nn.Sequential(*convolutions(nn.Conv2d, CHANNELS), nn.Flatten(), nn.Linear(features, 2 * latent))
        self.first = nn.Linear(latent, features)
        self.decoder = nn.Sequential(*convolutions(nn.ConvTranspose2d, CHANNELS[::-1])[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Negative ELBO up to a constant, averaged over the batch, in nats."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        h = functional.relu(self.first(z)).view(-1, CHANNELS[-1], CORNER, CORNER)
        h = h.contiguous(memory_format=torch.channels_last)
        squared_error = ((x - self.decoder(h)) ** 2).sum((1, 2, 3))
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)
        return (0.5 * squared_error + kl).mean()


def main() -> None:
    """Train on random images and print the speed of each repetition."""
    options = options_of(latent=100)
    train("conv", VAE(options.latent), 64, 1e-3, options)


if __name__ == "__main__":
    main()
