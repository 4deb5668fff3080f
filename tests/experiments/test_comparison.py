"""The numbers of `mnist_lattice.py`, on a decoder that shows which latents it was given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_split
from harness.recipe import Trained
from mnist_lattice import latent_space

import vae_jax as vj
from vae_jax.evaluation.classifier import Predictions

DATA = vj.Dataset("noise", small_split(300), small_split(200, seed=1), "made for the test")


class LatentsInPlainSight(vj.TrainedClassifier):
    """A classifier whose features are the logits of the first two pixels, where the decoder puts z."""

    def __init__(self):
        pass

    def __call__(self, x):
        features = jax.scipy.special.logit(jnp.clip(jnp.asarray(x)[:, 0, :2, 0], 1e-6, 1 - 1e-6))
        return Predictions(np.eye(3)[np.arange(len(x)) % 2], np.asarray(features))  # the third class is "rejected"

    def on(self, data):
        return self(np.full((len(data), 6, 6, 1), 0.5, np.float32))


@pytest.fixture(scope="module")
def space():
    """A linear VAE: q(z|x) = N((3, -1), 0.01) whatever x, and a decoder whose first two logits are z."""
    vae = vj.mlp_vae((6, 6, 1), latent_dim=2, hidden=())
    variables = jax.tree.map(jnp.zeros_like, vae.init(jax.random.key(0)))
    variables["params"]["encoder"]["Dense_0"]["bias"] = jnp.array([3.0, -1.0, np.log(0.01), np.log(0.01)])
    variables["params"]["decoder"]["Dense_0"]["kernel"] = jnp.zeros((2, 36)).at[:, :2].set(jnp.eye(2))
    history = [{"epoch": 1, "seconds": 5.0}, {"epoch": 2, "seconds": 1.0}, {"epoch": 3, "seconds": 2.0}]
    trained = Trained(vae, variables, history)
    return latent_space(
        jax.random.key(1), trained, DATA, LatentsInPlainSight(), vj.LegibilityClassifier(LatentsInPlainSight()), size=3
    )


def test_each_frechet_distance_is_of_its_own_draws(space):
    """The test images' features are all 0, so a distance is |mean|^2 + trace of the covariance of the draws."""
    frechet = space.numbers["frechet"]
    assert frechet["prior"] == pytest.approx(2, rel=0.3)  # N(0, I)
    assert frechet["fitted"] == pytest.approx(10 + 0.02, rel=0.01)  # N((3, -1), 0.01 I)
    assert frechet["reconstruction"] == pytest.approx(10 + 0.02, rel=0.01)
    assert frechet["square"] == pytest.approx(10, rel=1e-3)  # all encodings are one point, so the circle is, too
    assert frechet["train"] == pytest.approx(0, abs=1e-9)


def test_the_other_numbers(space):
    numbers = space.numbers
    kl = 0.5 * (10 + 2 * (0.01 - 1 - np.log(0.01)))
    assert numbers["test_kl"] == pytest.approx(kl, rel=1e-5)
    assert numbers["test_negative_elbo"] == pytest.approx(numbers["test_reconstruction"] + kl, rel=1e-6)
    assert numbers["aggregated_posterior"]["kl_from_prior"] == pytest.approx(kl, rel=1e-5)
    np.testing.assert_allclose(numbers["aggregated_posterior"]["mean"], [3, -1], rtol=1e-6)
    assert numbers["legible_share"] == 1
    assert numbers["lattice_classes"] == pytest.approx(2, rel=0.02)
    assert numbers["seconds_per_epoch"] == 2
    assert space.decoded.shape == (9, 6, 6, 1)
