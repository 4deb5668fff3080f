"""A prior fitted to the encodings of a trained model: ex-post density estimation."""

import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from vae_jax.data.transforms import Batch, Examples, Raw, Transform, as_split, as_transform
from vae_jax.distributions import (
    FullGaussianMixture,
    GaussianMixture,
    GaussianMixtureDistribution,
    VampPrior,
    example_keys,
)
from vae_jax.errors import InputError, named, require_finite_variables, require_key, require_positive_int
from vae_jax.evaluation.blocks import in_blocks
from vae_jax.evaluation.passes import inputs_of
from vae_jax.models import VAE, Variables
from vae_jax.objectives import Loss
from vae_jax.training.loop import fit
from vae_jax.training.schedules import warm_up_then_cosine
from vae_jax.training.step import init, make_train_step
from vae_jax.values import jit

LEAST_VARIANCE = 1e-6
"""Lower limit of the variances of a mixture, in units of the variance of all encodings in the same dimension."""

TEN_GAUSSIANS = GaussianMixture(10)

_ITERATIONS = 100  # of EM
_BATCH, _RATE = 256, 2e-3  # of the training of other priors


def fit_prior(
    key: Any,
    model: Any,
    variables: Any,
    data: Examples,
    prior: Any = TEN_GAUSSIANS,
    *,
    transform: Any = None,
    draws: int = 4,
    steps: int = 3_000,
    progress: bool = True,
) -> tuple[VAE, Variables]:
    """Replace the prior of a trained model by one that is fitted to its encodings; the networks are unchanged.

    The prior maximises the mean of log p(z) over samples z of q(z|x) of the examples. This is the part of the ELBO that
    depends on the prior, and its optimum is the aggregated posterior (Hoffman and Johnson, 2016). Samples from such a
    prior are where the decoder was trained, which those from N(0, I) need not be (ex-post density estimation: Ghosh et
    al., 2020, section 4). A plain autoencoder gets a prior from which it can sample in the same way.

    A `GaussianMixture` or `FullGaussianMixture` is fitted by expectation maximisation from k-means++ means, and any
    other prior by Adam.

        mixture_vae, mixture_variables = vj.fit_prior(key, vae, state.variables, data.train)
        draws = mixture_vae.sample(sample_key, mixture_variables, 64).px_z.mean

    Args:
      key: Key of the samples and of the initial variables of the prior.
      model: Trained VAE, with any prior.
      variables: Variables of the model.
      data: Training data: a split, or an array of examples.
      prior: Prior to fit: `GaussianMixture(10)`, `FullGaussianMixture(10)` with the full covariances of Ghosh et al.,
        `FlowPrior(Coupling())` or any other value that has variables and does not depend on the encoder.
      transform: Transform of the data in training. If it is random, it is drawn once per example, for all samples z.
      draws: Number of samples z of q(z|x) per example.
      steps: Minimum number of steps of Adam, in whole epochs; a mixture takes none.
      progress: Whether to show a progress bar while Adam trains.

    Returns:
      The model with the fitted prior, and its variables.

    Raises:
      InputError: The prior has no variables or is a `VampPrior`, there are fewer samples of z than components, the
        model is no VAE, or an argument is not valid.
    """
    require_key(key)
    require_positive_int(draws=draws, steps=steps)
    require_finite_variables(variables)
    if not isinstance(model, VAE):
        raise InputError(f"model is {named(model)}; expected a VAE: fit_prior(key, model, variables, data)")
    fitted = replace(model, prior=prior)
    _require_trainable(fitted)
    transform_key, draw_key, prior_key = jax.random.split(key, 3)
    data = as_split(data)
    model.require_inputs(data)
    keys, numbers = (transform_key, draw_key), jnp.arange(draws)
    encode = partial(_encoded, keys, numbers, variables, model, as_transform(transform, data))
    z = in_blocks(encode, *inputs_of(data)).reshape(-1, model.latent_dim)
    if isinstance(prior, GaussianMixture | FullGaussianMixture):
        own = jax.tree.map(lambda leaf: leaf.astype(z.dtype), _mixture_of(prior_key, z, prior))
    else:
        own = _trained(prior_key, fitted, variables, z, steps, progress)
    return fitted, _with_prior(variables, own)


def _require_trainable(model: VAE) -> None:
    """Raise `InputError` unless the prior of a model has variables, and no others enter it."""
    if isinstance(model.prior, VampPrior):
        raise InputError(
            "a VampPrior changes with the encoder, which fit_prior does not train; take GaussianMixture(10) or "
            "FlowPrior(Coupling())"
        )
    variables = jax.eval_shape(_PriorOf(model).init, jax.random.key(0))
    if not jax.tree.leaves(variables):
        raise InputError(f"the prior {model.prior} has no variables to fit; take GaussianMixture(10)")


@jit
def _encoded(
    keys: tuple[Array, Array],
    numbers: Int[Array, " draws"],
    variables: Variables,
    model: VAE,
    transform: Transform,
    first: int | Array,
    examples: Array,
    labels: Array | None = None,
) -> Float[Array, "batch draws latent"]:
    """Samples of q(z|x) of a block of examples."""
    transform_keys, draw_keys = (example_keys(key, len(examples), first) for key in keys)
    posterior = model.code(variables, transform(transform_keys, examples, labels)).posterior
    return jnp.swapaxes(model.draw(draw_keys, posterior, numbers), 0, 1)


def _with_prior(variables: Variables, prior: Variables) -> Variables:
    """The variables of a model with those of its prior replaced."""
    others = {
        collection: {part: tree for part, tree in parts.items() if part != "prior"}
        for collection, parts in variables.items()
    }
    return others | {collection: others.get(collection, {}) | {"prior": tree} for collection, tree in prior.items()}


def _mixture_of(
    key: Key[Array, ""], z: Float[np.ndarray, "n latent"], prior: GaussianMixture | FullGaussianMixture
) -> Variables:
    """The variables of a mixture of Gaussians, fitted to points by expectation maximisation."""
    if len(z) < prior.components:
        raise InputError(f"{len(z)} samples of z can't be fitted by {prior.components} components; give more examples")
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    fitted = _diagonal_mixture_of if isinstance(prior, GaussianMixture) else _full_mixture_of
    return fitted(seed, z, prior.components)


def _full_mixture_of(seed: int, z: Float[np.ndarray, "n latent"], components: int) -> Variables:
    """Fits a mixture with full covariances by scikit-learn, to points scaled to unit variance."""
    from sklearn.exceptions import ConvergenceWarning  # imported here, because it takes a second to load
    from sklearn.mixture import GaussianMixture as Fitted

    middle, scale = z.mean(axis=0, dtype=float), z.std(axis=0, dtype=float) + np.finfo(np.float32).tiny
    of = Fitted(components, reg_covar=LEAST_VARIANCE, max_iter=_ITERATIONS, init_params="k-means++", random_state=seed)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        of.fit((z - middle) / scale)
    covariances = of.covariances_ * scale * scale[:, None]
    return FullGaussianMixture.variables(middle + scale * of.means_, covariances, of.weights_)


def _diagonal_mixture_of(seed: int, z: Float[np.ndarray, "n latent"], components: int) -> Variables:
    """Fits a mixture with diagonal covariances by expectation maximisation, from k-means++ means."""
    from sklearn.cluster import kmeans_plusplus  # imported here, because it takes a second to load

    means = jnp.asarray(kmeans_plusplus(z, components, random_state=seed)[0], z.dtype)
    spread = jnp.broadcast_to(jnp.log(jnp.var(z, axis=0) + jnp.finfo(z.dtype).tiny), means.shape)
    start = GaussianMixtureDistribution(means, spread, jnp.zeros(components, z.dtype))
    of = _maximised(jnp.asarray(z), start)
    return {"params": {"means": of.means, "log_variances": of.log_variances, "logits": of.logits}}


@jax.jit
def _maximised(z: Float[Array, "n latent"], mixture: GaussianMixtureDistribution) -> GaussianMixtureDistribution:
    """The mixture after a number of steps of expectation maximisation (Dempster et al., 1977)."""
    return jax.lax.fori_loop(0, _ITERATIONS, lambda _, mixture: _improved(z, mixture), mixture)


def _improved(z: Float[Array, "n latent"], mixture: GaussianMixtureDistribution) -> GaussianMixtureDistribution:
    """One step of expectation maximisation."""
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    shares = mixture.responsibilities(z)  # [n, components]
    weights = shares.sum(axis=0) + jnp.finfo(z.dtype).tiny
    means = product(shares.T, z) / weights[:, None]
    deviations = jax.vmap(lambda share, mean: product(share, (z - mean[None]) ** 2), in_axes=(1, 0))(shares, means)
    floor = LEAST_VARIANCE * jnp.var(z, axis=0) + jnp.finfo(z.dtype).tiny
    variances = jnp.maximum(deviations / weights[:, None], floor[None])
    return GaussianMixtureDistribution(means, jnp.log(variances), jnp.log(weights))


@dataclass(frozen=True, eq=False)
class _PriorOf:
    """The prior of a model, to be trained alone on samples of z, with the variables of the networks in `frozen`."""

    model: VAE

    def init(self, key: Key[Array, ""]) -> Variables:
        return dict(self.model.prior.init(key, self.model.latent_dim, self.model.event_shape, None))


@dataclass(frozen=True)
class _NegativeLogDensity:
    """The objective -log p(z), in nats."""

    def __call__(
        self, key: Key[Array, "*keys"], model: _PriorOf, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        own = {collection: tree for collection, tree in variables.items() if collection != "frozen"}
        prior = model.model.prior_distribution(_with_prior(variables["frozen"], own))
        return Loss(-prior.log_prob(batch.x), {}, {})


def _trained(
    key: Key[Array, ""], model: VAE, variables: Variables, z: Float[np.ndarray, "n latent"], steps: int, progress: bool
) -> Variables:
    """The variables of the prior of a model, trained by Adam on samples of z."""
    batch_size = min(_BATCH, len(z))
    epochs = -(-steps // (len(z) // batch_size))
    optimizer = optax.adam(warm_up_then_cosine(_RATE, epochs * (len(z) // batch_size)))
    prior = _PriorOf(model)
    state, _ = fit(
        init(key, prior, optimizer, frozen=variables),
        make_train_step(prior, _NegativeLogDensity(), optimizer),
        z,
        transform=Raw(),
        epochs=epochs,
        batch_size=batch_size,
        progress=progress,
        title="prior",
    )
    return state.variables
