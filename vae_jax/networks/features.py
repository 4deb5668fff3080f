"""Networks whose activations are compared: feature networks of a perceptual loss, and discriminators."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vae_jax.errors import InputError
from vae_jax.networks.conv4x4 import Downsample, require_halved
from vae_jax.networks.residual import Conv3x3

Images = Float[Array, "batch height width channels"]
Activations = dict[str, Float[Array, "batch ..."]]

VGG19_WIDTHS = (64, 128, 256, 512, 512)
_VGG19_CONVOLUTIONS = (2, 2, 4, 4, 4)  # in each block
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation of each channel


class ConvFeatures(nn.Module):
    """Activations of the convolutions of a `ConvEncoder`, by the names "conv1", "conv2" and so on.

    Attributes:
      features: Number of channels after each convolution, which halves height and width and is followed by ReLU.
    """

    features: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Images) -> Activations:
        """Activations by layer, [batch, height, width, channels]."""
        activations = {}
        require_halved(x.shape[1], x.shape[2], len(self.features), type(self).__name__)
        for number, width in enumerate(self.features, 1):
            x = nn.relu(Downsample(width)(x))
            activations[f"conv{number}"] = x
        return activations


class VGG19(nn.Module):
    """The convolutions of VGG-19 (Simonyan and Zisserman, 2015), whose variables `load_vgg19` reads.

    The images are in [0, 1]. They are standardised by the mean and deviation of ImageNet's channels, as for the
    published parameters of torchvision.

    Attributes:
      widths: Number of channels in each of the five blocks.
    """

    widths: tuple[int, ...] = VGG19_WIDTHS

    def names(self) -> list[list[str]]:
        """Names of the convolutions of each block: conv1_1, conv1_2, conv2_1 and so on."""
        counts = _VGG19_CONVOLUTIONS[: len(self.widths)]
        return [[f"conv{block}_{i + 1}" for i in range(count)] for block, count in enumerate(counts, 1)]

    @nn.compact
    def __call__(self, x: Images) -> Activations:
        """Activations after each ReLU, by the names "relu1_1" to "relu5_4".

        Raises:
          InputError: The images do not have three channels.
        """
        if x.shape[-1] != 3:
            raise InputError(f"the images have {x.shape[-1]} channels; VGG-19 takes the three of red, green and blue")
        mean, deviation = (jnp.array(each, x.dtype).reshape(1, 1, 1, 3) for each in _IMAGENET)
        x, activations = (x - mean) / deviation, {}
        for block, (width, names) in enumerate(zip(self.widths, self.names(), strict=True)):
            x = nn.max_pool(x, (2, 2), (2, 2)) if block else x
            for name in names:
                x = nn.relu(Conv3x3(width, bias=True, name=name)(x))
                activations[name.replace("conv", "relu")] = x
        return activations


class Discriminator(nn.Module):
    """Convolutions of stride 2 with leaky ReLU, followed by one dense layer (Radford et al., 2016).

    Attributes:
      features: Number of channels after each convolution, which halves height and width.
      compared: Number of the convolution, from 1, whose activations are compared; by default the last but one.
    """

    features: tuple[int, ...] = (32, 64, 128, 256)
    compared: int | None = None

    @nn.compact
    def __call__(self, x: Images) -> tuple[Float[Array, " batch"], Float[Array, "batch ..."]]:
        """Logits of the probability that an image is real, and the activations that are compared.

        Raises:
          InputError: There are no convolutions, or none with the number `compared`, or the examples are not images.
        """
        if not self.features:
            raise InputError("features is empty; expected the number of channels of one convolution or more")
        if x.ndim != 4:
            raise InputError(
                f"a Discriminator was given examples of shape {x.shape[1:]}; expected images (height, width, "
                "channels): give Adversarial another discriminator"
            )
        require_halved(x.shape[1], x.shape[2], len(self.features), type(self).__name__)
        activations = []
        for width in self.features:
            x = nn.leaky_relu(Downsample(width)(x), 0.2)
            activations.append(x)
        compared = max(1, len(self.features) - 1) if self.compared is None else self.compared
        if not 1 <= compared <= len(activations):
            raise InputError(f"compared is {compared}; expected the number of a convolution, 1 to {len(activations)}")
        return nn.Dense(1)(x.reshape(len(x), -1))[:, 0], activations[compared - 1]
