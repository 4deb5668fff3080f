"""Samples from the prior of a VAE with 2 latent dimensions, and reconstructions of test images with 20 dimensions.

The 20-dimensional model has the layers of PyTorch's VAE example, 784-400-20 and a mirrored decoder. Its negative ELBO
on the test images is plotted after each epoch, with the result of that example, 106.7 after 7 epochs, as a reference.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from harness.images import scaled
from harness.options import Options, TrainingOptions
from harness.report import Report
from harness.run import Run
from harness.script import run_script

import vae_jax as vj

PYTORCH_EXAMPLE = (7, 106.7)  # epochs, test negative ELBO (grey pixels, one sampled z)


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    out: Path = Path("runs/mnist_samples")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=6e-3, weight_decay=0.05)  # overfits without weight decay


def main(config: Config) -> Report:
    """Train both models, write the pictures, and write the report."""
    run = Run.start("mnist_samples", config, epochs=20, batch_size=128)
    plane_key, wide_key, draw_key, reconstruction_key, encode_key = jax.random.split(run.key, 5)
    plane = run.train(plane_key, vj.mlp_vae(run.data.event_shape, latent_dim=2), vj.ELBO(), title="2-D VAE")
    wide_vae = vj.mlp_vae(run.data.event_shape, latent_dim=20, hidden=(400,))
    wide = run.train(wide_key, wide_vae, vj.ELBO(), title="20-D VAE")

    samples = plane.model.sample(draw_key, plane.variables, 64).px_z.mean
    run.save(
        "prior", vj.plot.images(samples, 8, f"64 draws from the prior of the 2-D VAE, E[x|z], {run.data_and_seed}")
    )
    shown = run.data.test[:8]
    z = vj.encode_all(encode_key, wide.model, wide.variables, shown).sample(reconstruction_key)
    pairs = np.concatenate([scaled(shown), wide.decode(z)])
    text = f"Unseen digits, and E[x|z] at one sampled z of 20 dimensions, {run.data_and_seed}"
    run.save("reconstructions", vj.plot.images(pairs, 8, text))

    by_epoch = [record["test_negative_elbo"] for record in wide.history]
    marks = {"PyTorch's example": PYTORCH_EXAMPLE} if run.data.name == "mnist" else {}
    curves = {"784-400-20 VAE, test": by_epoch}
    run.save("curve", vj.plot.curves(curves, "negative ELBO, nats per image", run.label(), marks))
    print(f"{run.label()}: test negative ELBO after each epoch " + ", ".join(f"{value:.1f}" for value in by_epoch))
    last = {"latent2": plane.history[-1], "latent20": wide.history[-1]}
    return run.report({"label": run.label(), "test_negative_elbo_by_epoch": by_epoch, **last})


if __name__ == "__main__":
    run_script(main, Config)
