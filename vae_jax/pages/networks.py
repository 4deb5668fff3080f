"""Decoders and classifiers as chains of layers in JSON, which `network.js` computes."""

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vae_jax.distributions.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    Gaussian,
    HeteroscedasticGaussian,
    Laplace,
    LearnedGaussian,
    OptimalGaussian,
    StudentT,
)
from vae_jax.errors import InputError
from vae_jax.evaluation.attributes import AttributeClassifier
from vae_jax.models import VAE, Variables
from vae_jax.networks import MLP, ConvDecoder, Gated, identity
from vae_jax.networks.conv import LINEAR_SCALE

Layer = dict[str, Any]
"""A layer: its kind, and its arrays and sizes by name."""

Network = dict[str, Any]
"""{"layers": [...], "linear": dense layer or None, "output": name of the activation of their sum}."""

_BATCH_NORM_EPSILON = 1e-5  # the default of Linen

_ACTIVATIONS: dict[Callable[..., Any], str] = {
    identity: "identity",
    nn.relu: "relu",
    jnp.tanh: "tanh",
    nn.sigmoid: "sigmoid",
    nn.softplus: "softplus",
    nn.silu: "silu",
    nn.gelu: "gelu",
    nn.elu: "elu",
}

# Activation that makes E[x|z], or the location of a Student-t, from the outputs of a decoder.
_MEANS: dict[type, str] = {
    Bernoulli: "sigmoid",
    ContinuousBernoulli: "continuousBernoulliMean",
    Gaussian: "identity",
    HeteroscedasticGaussian: "identity",
    LearnedGaussian: "identity",
    OptimalGaussian: "identity",
    Laplace: "identity",
    StudentT: "identity",
}


def decoder_network(vae: VAE, variables: Variables) -> Network:
    """The decoder of a model, and the mean of its likelihood.

    Args:
      vae: Model whose decoder is an `MLP`, a `Gated` or a `ConvDecoder`.
      variables: Variables of the model.

    Returns:
      The network, from the latents and the one-hot label to E[x|z].

    Raises:
      InputError: The page has no such decoder, activation or likelihood, or a weight is no float16.
    """
    decoder, likelihood = vae.decoder, vae.likelihood
    own = jax.tree.map(np.asarray, {name: parts["decoder"] for name, parts in variables.items() if "decoder" in parts})
    if type(decoder) not in _DECODERS:
        known = ("Dense_", "Upsample_", "linear")
        layer = next((name for name in own["params"] if not name.startswith(known)), next(iter(own["params"])))
        raise InputError(
            f"the decoder is a {type(decoder).__name__} with the layer {layer}; a page has the layers of vj.MLP, "
            "vj.Gated and vj.ConvDecoder: take a model of vj.mlp_vae, vj.batch_norm_vae or vj.conv_vae"
        )
    if type(likelihood) not in _MEANS:
        names = ", ".join(each.__name__ for each in _MEANS)
        raise InputError(f"the likelihood is {likelihood!r}; a page has the means of {names}")
    # Of a mean and a log-scale of each entry, the page needs the mean.
    keep = slice(None, None, 2) if isinstance(likelihood, HeteroscedasticGaussian) else slice(None)
    layers = _DECODERS[type(decoder)](decoder, own, keep)
    linear = _linear_path(own["params"]["linear"]) if getattr(decoder, "linear", False) else None
    return {"layers": layers, "linear": linear, "output": _MEANS[type(likelihood)]}


def classifier_network(classifier: AttributeClassifier) -> Network:
    """A classifier of attributes, from an image in [0, 1] to the probability of each attribute."""
    network, params = classifier.classifier, jax.tree.map(np.asarray, classifier.variables["params"])
    layers: list[Layer] = []
    if network.convolutions:
        encoder = params["ConvEncoder_0"]
        height, width, _ = network.image_shape
        for number in range(len(network.convolutions)):
            size = {"height": height >> number, "width": width >> number}
            layers += [_with_arrays("downsample", encoder[f"Downsample_{number}"], **size), _activation(nn.relu)]
        layers += [_dense(encoder["Dense_0"]), _activation(nn.relu)]
    dense = params.get("MLP_0", {})
    for number in range(len(dense)):
        layers += [_dense(dense[f"Dense_{number}"]), _activation(nn.relu)]
    return {"layers": [*layers, _dense(params["Dense_0"])], "linear": None, "output": "sigmoid"}


def encoded(array: Any, name: str = "array") -> dict[str, str]:
    """An array as float16 in base64.

    Raises:
      InputError: A number is not finite, or too large for float16.
    """
    array = np.asarray(array, np.float32)
    if not (np.abs(array) < 65_520).all():  # what rounds to a finite float16; NaN makes the comparison false
        raise InputError(f"the {name} has values that float16 can't hold; expected finite ones of at most 65,504")
    return {"float16": base64.b64encode(array.astype("<f2").tobytes()).decode()}


def _mlp(decoder: MLP, variables: Variables, keep: slice) -> list[Layer]:
    params, layers = variables["params"], []
    for number in range(len(decoder.hidden)):
        arrays = params[f"Dense_{number}"]
        if decoder.batch_norm is not None:
            name = f"BatchNorm_{number}"
            arrays = _normalised(arrays, params[name], variables["batch_stats"][name])
        layers += [_dense(arrays), _activation(decoder.activation)]
    return [*layers, _dense(params[f"Dense_{len(decoder.hidden)}"], keep), _activation(decoder.output_activation)]


def _gated(decoder: Gated, variables: Variables, keep: slice) -> list[Layer]:
    params = variables["params"]
    layers: list[Layer] = []
    for number in range(len(decoder.hidden)):
        layers += [_dense(params[f"Dense_{number}"]), {"kind": "gate"}]
    return [*layers, _dense(params[f"Dense_{len(decoder.hidden)}"], keep)]


def _conv(decoder: ConvDecoder, variables: Variables, keep: slice) -> list[Layer]:
    params = variables["params"]
    height, width, *_ = decoder.output_shape
    layers, count = [_dense(params["Dense_0"])], len(decoder.features)
    for number in range(count):
        arrays = dict(params[f"Upsample_{number}"])
        if number == count - 1:
            arrays = {"kernel": arrays["kernel"][:, :, keep], "bias": arrays["bias"][keep]}
        arrays["kernel"] = arrays["kernel"].transpose(3, 0, 1, 2)  # [F, 4, 4, C]
        shift = count - 1 - number
        size = {"height": height >> shift, "width": width >> shift}
        layers += [_activation(nn.relu), _with_arrays("upsample", arrays, **size)]
    return layers


_DECODERS: dict[type, Callable[[Any, Variables, slice], list[Layer]]] = {MLP: _mlp, Gated: _gated, ConvDecoder: _conv}


def _linear_path(arrays: Mapping[str, Any]) -> Layer:
    """The dense layer of a linear path, whose inputs are scaled."""
    scale = LINEAR_SCALE / math.sqrt(len(arrays["kernel"]))
    return _dense({"kernel": arrays["kernel"] * scale, "bias": arrays["bias"]})


def _normalised(dense: Mapping[str, Any], norm: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Any]:
    """A dense layer that includes the batch normalisation after it, by its running statistics."""
    factor = norm["scale"] / np.sqrt(statistics["var"] + _BATCH_NORM_EPSILON)
    return {
        "kernel": dense["kernel"] * factor[None],
        "bias": (dense["bias"] - statistics["mean"]) * factor + norm["bias"],
    }


def _dense(arrays: Mapping[str, Any], keep: slice = slice(None)) -> Layer:
    return _with_arrays("dense", {"kernel": arrays["kernel"][:, keep], "bias": arrays["bias"][keep]})


def _activation(function: Callable[..., Any]) -> Layer:
    if function not in _ACTIVATIONS:
        name = getattr(function, "__name__", repr(function))
        raise InputError(f"an activation is {name}; a page has {', '.join(_ACTIVATIONS.values())}")
    return {"kind": "activation", "name": _ACTIVATIONS[function]}


def _with_arrays(kind: str, arrays: Mapping[str, Any], **sizes: int) -> Layer:
    return {"kind": kind, **sizes} | {name: encoded(array, f"{name} of a layer") for name, array in arrays.items()}
