"""Linen networks: x -> parameters of q(z|x), z -> parameters of p(x|z).

A user-defined network needs one method, `__call__(self, inputs, train=False)`, and a third argument `condition` if the
model is conditional. `train` is True only in a train step, where batch statistics are updated and dropout is active. A
network with batch statistics also accepts `mask` [batch], which is 0 for padding examples.

The noise of `nn.Dropout`, or of any `self.make_rng(...)`, is sampled per example and depends only on the key of the
example. In networks that have both batch statistics and noise of another kind than `nn.Dropout`, the noise of the whole
batch is sampled with the key of its first example. NNX classes, and networks with noise of another kind, are mapped
over the examples in training, which takes the convolutions of this package several times as long on a CPU.
"""

from vae_jax.networks.conv import ConvDecoder, ConvEncoder
from vae_jax.networks.conv4x4 import Downsample, Upsample
from vae_jax.networks.dense import MLP, Gated, identity
from vae_jax.networks.features import VGG19, ConvFeatures, Discriminator
from vae_jax.networks.ladder import ConvBottomUp, ConvTopDown, DenseBottomUp, DenseTopDown
from vae_jax.networks.nnx import NNXNetwork, from_nnx, takes
from vae_jax.networks.residual import Conv3x3, DecoderBlock, EncoderBlock, ResNetDecoder, ResNetEncoder, require_norm
from vae_jax.networks.wavelets import WaveletBottomUp, WaveletTopDown

__all__ = [
    "MLP",
    "VGG19",
    "Conv3x3",
    "ConvBottomUp",
    "ConvDecoder",
    "ConvEncoder",
    "ConvFeatures",
    "ConvTopDown",
    "DecoderBlock",
    "DenseBottomUp",
    "DenseTopDown",
    "Discriminator",
    "Downsample",
    "EncoderBlock",
    "Gated",
    "NNXNetwork",
    "ResNetDecoder",
    "ResNetEncoder",
    "Upsample",
    "WaveletBottomUp",
    "WaveletTopDown",
    "from_nnx",
    "identity",
    "require_norm",
    "takes",
]
