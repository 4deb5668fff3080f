"""Bits per dimension of a hierarchical VAE on CIFAR-10, trained within a number of minutes.

The layers of latents start as the scales of a Haar transform, from 4 x 4 means of 8 x 8 pixels down to the differences
between neighbouring pixels; at each scale, the differences of grey come before those of colours. Residual networks with
top-down inference learn the priors of each scale given the coarser ones, corrections of the posteriors, and a mixture
of discretised logistics (Salimans et al., 2017) for what remains of the pixels. The prior of the top layer is N(0, I)
transformed by a coupling flow. The script times a few steps, and sets the number of epochs so that the training takes
`--minutes`.

With `--checkpoint-dir`, a run that was interrupted is resumed, with the number of epochs that it started with.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
from harness.budget import number_of_epochs
from harness.layers import PRIORS, bound_by_minutes, samples_by_given_layers, samples_by_temperature
from harness.options import Options, TrainingOptions
from harness.report import Report
from harness.run import Run
from harness.script import run_script

import vae_jax as vj
from vae_jax.errors import require_positive

TRANSFORM = vj.Scale()
MIRRORED = vj.Mirrored(TRANSFORM)  # in training
MINUTES = 60.0  # default on CIFAR-10
TEMPERATURES = (1.0, 0.9, 0.8)


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    minutes: float | None = None
    """Minutes of training, which set the number of epochs unless `--epochs` is given. The default is 60 on CIFAR-10;
    other data sets get 500 steps."""
    channels: tuple[int, ...] = (48, 96, 128)
    """Numbers of channels of the residual networks at each scale, the finest first."""
    blocks: tuple[int, ...] = (1, 1, 1)
    """Numbers of residual blocks before each layer of latents at each scale, the finest first."""
    components: int = 1
    """Number of components of the mixture of discretised logistics of each pixel and channel."""
    prior: Literal["normal", "flow"] = "flow"
    """Prior of the top layer: N(0, I), or N(0, I) transformed by a coupling flow."""
    out: Path = Path("runs/cifar_deep")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=2e-3)


def main(config: Config) -> Report:
    """Train the model, measure bits per dimension, and write the pictures and the report."""
    if config.minutes is not None:
        require_positive(minutes=config.minutes)
    likelihood = vj.MixtureOfLogistics(config.components)
    run = Run.start("cifar_deep", config, native="cifar10", epochs=1, batch_size=32, small=0, stand_in_steps=500)
    model = vj.wavelet_ladder_vae(
        run.data.event_shape, config.channels, config.blocks, likelihood, prior=PRIORS[config.prior]
    )
    minutes = config.minutes or (MINUTES if run.is_native else None)
    run = replace(run, epochs=number_of_epochs(run, model, MIRRORED, minutes))
    train_key, test_key, kl_key, draw_key, layers_key = jax.random.split(run.key, 5)

    trained = run.train(
        train_key,
        model,
        vj.ELBO(),
        transform=TRANSFORM,
        train_transform=MIRRORED,
        title="wavelet ladder VAE",
    )
    terms = vj.evaluate(test_key, model, trained.variables, run.data.test, transform=TRANSFORM)
    bits = vj.mean_and_stderr(vj.bits_per_dim(terms.log_px_z - terms.kl, model, TRANSFORM))
    kl = vj.kl_by_unit(kl_key, model, trained.variables, run.data.test, transform=TRANSFORM)
    nats = {layer: float(of_layer.sum(axis=-1).mean()) for layer, of_layer in kl.items()}
    nats["pixels"] = -float(terms.log_px_z.mean())
    unit = math.log(2) * math.prod(run.data.event_shape)
    numbers = {
        "label": f"{run.data_and_seed}, negative ELBO at one sample of the latents of each test image",
        "parameters": trained.parameters,
        "minutes": trained.minutes,
        "test_bits_per_dim": bits.mean,
        "standard_error": bits.standard_error,
        "training_bits_per_dim": trained.history[-1]["loss"] / unit,
        "bits_per_dim_by_layer": {layer: of_layer / unit for layer, of_layer in nats.items()},
        "latents": {layer: of_layer.shape[-1] for layer, of_layer in kl.items()} | {"z1": model.latent_dim},
        "test_bits_per_dim_by_epoch": [record["test_negative_elbo"] / unit for record in trained.history],
        "minutes_by_epoch": trained.minutes_by_epoch,
    }
    print(row(run, numbers))
    settings = model, trained.variables, run.data_and_seed
    run.save("samples", samples_by_temperature(draw_key, *settings, TEMPERATURES))
    layers = layers_to_share(len(config.channels), len(kl))
    run.save("layers", samples_by_given_layers(layers_key, *settings, layers))
    times, bounds = numbers["minutes_by_epoch"], numbers["test_bits_per_dim_by_epoch"]
    title = f"Wavelet ladder VAE; {run.data_and_seed}"
    run.save("minutes", bound_by_minutes(times, bounds, "bits per dimension of test images", title))
    return run.report(numbers)


def layers_to_share(scales: int, layers: int) -> list[int]:
    """The top layer, and all layers of the coarser scales, for each scale but the finest."""
    per_scale = (layers - 1) // scales
    return [1 + per_scale * scale for scale in range(scales)]


def row(run: Run, numbers: Mapping[str, Any]) -> str:
    """The printed result."""
    layers = ", ".join(
        f"{layer} {bits:.3f}" + (f" ({numbers['latents'][layer]:,} latents)" if layer in numbers["latents"] else "")
        for layer, bits in numbers["bits_per_dim_by_layer"].items()
    )
    return (
        f"{numbers['label']}: {numbers['test_bits_per_dim']:.3f} +- {numbers['standard_error']:.3f} bits per dimension "
        f"({len(run.data.test):,} images; in training {numbers['training_bits_per_dim']:.3f}); {run.epochs} epochs, "
        f"{numbers['minutes']:.1f} min\n  by layer: {layers}"
    )


if __name__ == "__main__":
    run_script(main, Config)
