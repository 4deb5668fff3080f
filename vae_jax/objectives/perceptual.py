"""Perceptual loss: squared error between activations of a frozen network."""

from typing import Any, cast

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from vae_jax.data.transforms import Batch
from vae_jax.errors import InputError, named, require_positive
from vae_jax.models.apply import require_own_variables
from vae_jax.models.protocol import LatentVariableModel, Variables
from vae_jax.networks.features import Activations
from vae_jax.objectives.base import Loss, require_complete, require_objective_value, require_schedules
from vae_jax.objectives.elbo import ELBO
from vae_jax.values import parameter, value

FEATURES = "features"
"""Name of the variables of the feature network in `TrainState.frozen`."""


@value
class Perceptual:
    """An objective plus the perceptual loss of a deep-feature-consistent VAE (Hou et al., 2017, equation 5).

    The loss adds sum_l weights_l / (2 C_l H_l W_l) |F_l(x) - F_l(E[x|z])|^2, with F_l the activations of layer l of a
    network that is not trained. E[x|z] is that of the first sample of z. The weights are in nats. The weight of the
    pixels is that of the objective: with a Gaussian likelihood, it is the inverse of the variance.

        objective = vj.Perceptual(network, ("conv2", "conv3"), (100.0, 100.0))
        state = vj.init(key, vae, optimizer, frozen={"features": network_variables})
        state, history = vj.fit(state, vj.make_train_step(vae, objective, optimizer), data.train, epochs=20)

    Attributes:
      features: Linen module from images to a dict of activations, such as `ConvFeatures` or `VGG19`. Its variables are
        `TrainState.frozen["features"]`.
      layers: Names of the layers that are compared.
      weights: Weight of each layer, above 0, in nats.
      objective: Objective to which the loss is added.

    Raises:
      InputError: There are no layers, there is another number of weights, a weight is not above 0, or an argument is of
        another kind.
    """

    features: Any
    layers: Any
    weights: Any = parameter()
    objective: Any = parameter(default=ELBO())

    def __post_init__(self) -> None:
        if not isinstance(self.features, nn.Module):
            raise InputError(f"features is {named(self.features)}; expected a Linen module, such as vj.VGG19()")
        for name, given in (("layers", self.layers), ("weights", self.weights)):
            if not isinstance(given, tuple):
                raise InputError(f"{name} is {named(given)}; expected a tuple with an entry for each layer")
        if not self.layers or len(self.layers) != len(self.weights):
            raise InputError(
                f"there are {len(self.layers)} layers and {len(self.weights)} weights; expected one weight a layer"
            )
        require_positive(**dict(zip((f"the weight of {layer}" for layer in self.layers), self.weights, strict=True)))
        require_objective_value(self.objective)

    def require_schedules(self, steps: int) -> None:
        """Raise `InputError` if a schedule of the inner objective can't be used in a run of so many steps."""
        require_schedules(self.objective, steps)

    def __call__(
        self,
        key: Key[Array, "*keys"],
        model: LatentVariableModel,
        variables: Variables,
        batch: Batch,
        step: Int[Array, ""],
    ) -> Loss:
        """Loss of each example; the term "perceptual" is what is added to the objective, in nats.

        Raises:
          InputError: The batch has missing entries, `TrainState.frozen` has no variables of the feature network or has
            those of another one, the network has no layer of a given name, or the objective returns no p(x|z).
        """
        require_complete(batch)
        loss = self.objective(key, model, variables, batch, step)
        found = variables.get("frozen", {}).get(FEATURES)
        if found is None:
            raise InputError(
                'the feature network has no variables; expected init(..., frozen={"features": variables}) of a state'
            )
        distances = layer_distances(self.features, found, self.layers, batch.targets, loss.require_px_z().mean[0])
        added = jnp.stack([w * d for w, d in zip(self.weights, distances, strict=True)]).sum(axis=0)
        return loss._replace(per_example=loss.require_one_part() + added, terms=loss.terms | {"perceptual": added})


def layer_distances(
    features: nn.Module,
    variables: Variables,
    layers: tuple[str, ...],
    x: Float[Array, "batch ..."],
    y: Float[Array, "batch ..."],
) -> list[Float[Array, " batch"]]:
    """Half the mean squared difference of the activations of x and y, of each layer.

    Raises:
      InputError: The network has no layer of that name, or the variables are those of another network.
    """
    with require_own_variables(features):
        of_x, of_y = (cast(Activations, features.apply(variables, images)) for images in (x, y))
    if unknown := [layer for layer in layers if layer not in of_x]:
        raise InputError(f"the feature network has no layer {unknown[0]!r}; expected one of {', '.join(of_x)}")
    squares = [(of_x[layer] - of_y[layer]) ** 2 for layer in layers]
    return [0.5 * jnp.mean(square, axis=tuple(range(1, square.ndim))) for square in squares]
