"""Adversarial training: a discriminator, and reconstruction in the space of its activations."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from vae_jax.data.transforms import Batch
from vae_jax.distributions import example_keys, normal_like
from vae_jax.errors import InputError, named, require_bool, require_not_negative
from vae_jax.models.apply import folded, require_own_variables
from vae_jax.models.protocol import LatentVariableModel, Variables
from vae_jax.networks.features import Discriminator
from vae_jax.objectives.base import Loss, require_complete, require_objective_value, require_schedules
from vae_jax.objectives.elbo import ELBO
from vae_jax.values import parameter, value

_REMEDIES = {
    "saturated": "a lower or decaying learning rate of the discriminator, more noise or a penalty of 1 to 10",
    "at chance level": "a higher learning rate of the discriminator, less noise or a smaller weight",
}

DISCRIMINATOR = "discriminator"
"""Name of the part with the parameters of the discriminator."""

# Streams of an example's key besides those of the models.
_DRAW, _NOISE = 2**31 - 3, 2**31 - 4


@value
class Adversarial:
    """VAE/GAN (Larsen et al., 2016): an objective, a discriminator, and a squared error of its activations.

    The discriminator D separates the examples from reconstructions E[x|z] and from draws of the model; E[x|z] is that
    of the first sample of z. Each part has its own loss, all from one forward pass (Larsen et al., algorithm 1), with
    softplus(a) = log(1 + exp(a)) and means over the decoded images y, the reconstruction and the draw:

    * "discriminator": softplus(-D(x)) + the mean of softplus(D(y)),
    * "encoder": the objective + feature_weight / 2 |F(x) - F(E[x|z])|^2, with F the activations of the discriminator,
    * "model", all other parameters: the loss of the encoder + weight times the mean of softplus(-D(y)).

    Without draws (`draws=False`), as in the autoencoder of latent diffusion (Rombach et al., 2022), y is the
    reconstruction alone, and "model" includes the encoder. An encoder that does not follow the adversarial loss works
    against a decoder that does: on faces, the mean of the aggregated posterior then moves far from that of the prior.

    A relativistic discriminator (`relativistic=True`: Jolicoeur-Martineau, 2019, RSGAN) judges pairs. The example and
    the decoded image of one row of the batch have the losses softplus(D(y) - D(x)) in "discriminator" and
    softplus(D(x) - D(y)) in "model". What a reconstruction shares with its example cancels in the difference, so that
    the discriminator judges the details.

    `optax.partition` gives the discriminator its own optimizer. If the model is conditional, the draws have the
    conditions of the batch; the discriminator does not see them. Draws are decoded as in evaluation.

        objective = vj.Adversarial()
        optimizer = optax.partition(
            {"model": optax.adam(1e-3), "discriminator": optax.adam(4e-4, b1=0.5)}, objective.labels
        )
        state = vj.init(key, vae, optimizer, objective=objective)

    Attributes:
      discriminator: Linen module from images to logits [batch] and activations [batch, ...].
      weight: Weight of the adversarial loss of the decoder, and without draws of the encoder.
      feature_weight: Weight of the squared error of the activations, which is a sum over the activations.
      noise: Standard deviation of the Gaussian noise that is added to all inputs of the discriminator (instance noise:
        Soenderby et al., 2017); the same for an example and its reconstruction.
      penalty: Weight of half the squared gradient of the discriminator at the examples with their noise (R1: Mescheder
        et al., 2018).
      objective: Objective of the other parts.
      draws: Whether y includes a draw of the model, and the loss of the encoder leaves out the adversarial term. If
        False, a step is faster.
      relativistic: Whether the discriminator judges pairs, by the difference D(x) - D(y).

    Raises:
      InputError: A weight is negative, or an argument is of another kind.
    """

    discriminator: Any = Discriminator()
    weight: float | Float[Array, "..."] = parameter(default=1.0)
    feature_weight: float | Float[Array, "..."] = parameter(default=1.0)
    noise: float | Float[Array, "..."] = parameter(default=0.1)
    penalty: float | Float[Array, "..."] = parameter(default=0.0)
    objective: Any = parameter(default=ELBO())
    draws: bool = True
    relativistic: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.discriminator, nn.Module):
            raise InputError(f"discriminator is {named(self.discriminator)}; expected a Linen module: Discriminator()")
        require_not_negative(
            weight=self.weight, feature_weight=self.feature_weight, noise=self.noise, penalty=self.penalty
        )
        require_objective_value(self.objective)
        require_bool(draws=self.draws, relativistic=self.relativistic)

    def init(self, key: Key[Array, ""], model: LatentVariableModel) -> Variables:
        """The variables of the discriminator.

        Raises:
          InputError: It has other collections than "params", such as batch statistics.
        """
        variables = jax.jit(self.discriminator.init)(key, jnp.zeros((1, *model.event_shape)))
        if others := ", ".join(variables.keys() - {"params"}):
            raise InputError(f"the discriminator has the collection {others}; expected params only: no batch norm")
        return {"params": {DISCRIMINATOR: variables["params"]}}

    @staticmethod
    def labels(params: Mapping[str, Any]) -> dict[str, str]:
        """Labels for `optax.partition`: "discriminator", and "model" for all other parameters."""
        return {part: DISCRIMINATOR if part == DISCRIMINATOR else "model" for part in params}

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
        """Losses of the parts.

        The terms are "feature_error" and "adversarial", the weighted terms of the loss in nats, and
        "discriminator_accuracy", the mean of the shares of examples and of decoded images that are told apart, or the
        share of pairs in which the example has the higher logit.

        Raises:
          InputError: The batch has missing entries, the state has no discriminator or another one, or the objective
            returns no p(x|z).
        """
        require_complete(batch)
        if DISCRIMINATOR not in variables["params"]:
            raise InputError("the state has no discriminator; expected init(..., objective=) with this objective")
        loss = self.objective(key, model, variables, batch, step)
        keys = example_keys(key, len(batch.x))
        noise = self.noise * normal_like(batch.targets, folded(keys, _NOISE), batch_axis=0)

        def discriminate(x: Array) -> tuple[Array, Array]:
            with require_own_variables(self.discriminator):
                outputs = self.discriminator.apply({"params": variables["params"][DISCRIMINATOR]}, x + noise)
            return cast(tuple[Array, Array], outputs)

        real, of_real = discriminate(batch.targets)
        reconstructed, of_reconstructed = discriminate(loss.require_px_z().mean[0])
        drawn = [discriminate(_draws(keys, model, variables, batch))[0]] if self.draws else []
        fake = jnp.stack([reconstructed, *drawn])
        axes = tuple(range(1, of_real.ndim))
        error = self.feature_weight * 0.5 * jnp.sum((of_real - of_reconstructed) ** 2, axis=axes)
        if self.relativistic:
            lead = real[None] - fake
            adversarial = self.weight * jax.nn.softplus(lead).mean(axis=0)
            discrimination = jax.nn.softplus(-lead).mean(axis=0)
            accuracy = (lead > 0).mean(axis=0)
        else:
            adversarial = self.weight * jax.nn.softplus(-fake).mean(axis=0)
            discrimination = jax.nn.softplus(-real) + jax.nn.softplus(fake).mean(axis=0)
            accuracy = 0.5 * ((real > 0) + (fake < 0).mean(axis=0))
        if not (isinstance(self.penalty, int | float) and self.penalty == 0):
            slope = jax.grad(lambda x: discriminate(x)[0].sum())(batch.targets)
            discrimination += 0.5 * self.penalty * jnp.sum(slope**2, axis=tuple(range(1, slope.ndim)))
        of_encoder = loss.require_one_part() + error
        losses = {"model": of_encoder + adversarial, DISCRIMINATOR: discrimination}
        if self.draws:
            losses["encoder"] = of_encoder
        terms = {"feature_error": error, "adversarial": adversarial, "discriminator_accuracy": accuracy}
        return loss._replace(per_example=losses, terms=loss.terms | terms)


def _draws(
    keys: Key[Array, " batch"], model: LatentVariableModel, variables: Variables, batch: Batch
) -> Float[Array, "batch ..."]:
    """E[x|z] of samples z of the prior, one for each example, with the key and the condition of the example."""
    condition = batch.label if getattr(model, "classes", None) is not None else batch.condition
    condition = condition if getattr(model, "is_conditional", True) else None

    def draw(key: Array, condition: Any) -> dict[str, Array]:
        alone = jax.tree.map(lambda leaf: leaf[None], condition)
        return jax.tree.map(lambda leaf: leaf[0], model.sample(key, variables, 1, alone).z)

    z = jax.vmap(draw)(folded(keys, _DRAW), condition)
    unused = jax.random.key(0)  # all layers are given
    return model.sample(unused, variables, len(keys), condition, given=z).px_z.mean


class AdversarialWarning(UserWarning):
    """The discriminator separates real from decoded images almost always or at chance level.

    Its gradient then does not train the decoder.
    """


def warn_if_one_sided(history: Sequence[Mapping[str, Any]], low: float = 0.55, high: float = 0.98) -> None:
    """Issue an `AdversarialWarning` if a discriminator is one-sided in each epoch of the second half of a run.

    Args:
      history: Records of `fit` with an `Adversarial` objective, of one model or of several members.
      low: Accuracy up to which the discriminator is at chance level, which is 1/2.
      high: Accuracy from which it is saturated. A relativistic discriminator may order all pairs and still train the
        decoder, as its loss depends on the difference of the logits; `math.inf` turns this warning off.

    Raises:
      InputError: The records have no "discriminator_accuracy".
    """
    if not history or "discriminator_accuracy" not in history[-1]:
        raise InputError("the history has no discriminator_accuracy; expected the records of fit with vj.Adversarial")
    late = np.array([np.atleast_1d(record["discriminator_accuracy"]) for record in history[len(history) // 2 :]])
    one_sided = {"saturated": np.all(late >= high, axis=0), "at chance level": np.all(late <= low, axis=0)}
    for level, of_members in one_sided.items():
        if of_members.any():
            warnings.warn(
                f"the discriminator is {level} in the second half of the run: its accuracy is "
                f"{late[-1][of_members][0]:.0%} in the last epoch, where 50% is chance; try {_REMEDIES[level]}",
                AdversarialWarning,
                stacklevel=2,
            )
