"""log p(x) of a hierarchical VAE on dynamically binarised MNIST, trained within a number of minutes.

The ladder VAE has three layers of 20, 30 and 40 latents, from the top, with top-down inference and gated dense layers
of width 256; each prior and each posterior has layers of its own, as in the two-layered model of Tomczak and Welling
(2018). The prior of the top layer is N(0, I) transformed by a coupling flow. The script times a few steps, and sets the
number of epochs so that the training takes `--minutes`. It estimates log p(x) of each test image with 5,000 importance
samples, and draws rows of samples with the upper layers held fixed.

With `--checkpoint-dir`, a run that was interrupted is resumed, with the number of epochs that it started with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from harness.budget import number_of_epochs
from harness.layers import PRIORS, bound_by_minutes, samples_by_given_layers, samples_by_temperature
from harness.options import Options, TrainingOptions
from harness.recipe import kl_warm_up, require_warm_up
from harness.report import Report
from harness.run import Run
from harness.script import run_script

import vae_jax as vj
from vae_jax.errors import require_positive, require_positive_int

TRANSFORM = vj.Binarize()
MINUTES = 12.0  # default on MNIST


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    minutes: float | None = None
    """Minutes of training, which set the number of epochs unless `--epochs` is given. The default is 12 on MNIST; other
    data sets get 2,000 steps."""
    latent_dims: tuple[int, ...] = (20, 30, 40)
    """Number of latents of each layer, from the top."""
    hidden: tuple[int, ...] = (256,)
    """Widths of the gated layers of each prior and each posterior, and between two layers of latents."""
    prior: Literal["normal", "flow"] = "flow"
    """Prior of the top layer: N(0, I), or N(0, I) transformed by a coupling flow."""
    kl_warm_up: float = 0.15
    """Share of the training steps in which the weight of the KL increases linearly from 0 to 1."""
    samples: int = 5_000
    """Number of importance samples in the estimate of log p(x) of each test image."""
    out: Path = Path("runs/mnist_deep")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=2e-3)


def main(config: Config) -> Report:
    """Train the model, estimate log p(x), and write the pictures and the report."""
    if config.minutes is not None:
        require_positive(minutes=config.minutes)
    require_warm_up(config.kl_warm_up)
    require_positive_int(samples=config.samples)
    run = Run.start("mnist_deep", config, epochs=1, batch_size=250, stand_in_steps=2_000)
    model = vj.ladder_vae(run.data.event_shape, config.latent_dims, config.hidden, prior=PRIORS[config.prior])
    minutes = config.minutes or (MINUTES if run.is_native else None)
    run = replace(run, epochs=number_of_epochs(run, model, TRANSFORM, minutes))
    train_key, test_key, weight_key, kl_key, draw_key, layers_key = jax.random.split(run.key, 6)

    objective = vj.ELBO(beta=kl_warm_up(config.kl_warm_up, run.steps))
    trained = run.train(train_key, model, objective, transform=TRANSFORM, title="ladder VAE")
    x = vj.transform_all(test_key, run.data.test, transform=TRANSFORM)
    estimates = vj.importance_estimate(weight_key, model, trained.variables, x, config.samples)
    kl = vj.kl_by_unit(kl_key, model, trained.variables, run.data.test, transform=TRANSFORM)
    log_px = vj.mean_and_stderr(estimates.log_px)
    last = trained.history[-1]
    numbers = {
        "label": f"{run.data_and_seed}, {TRANSFORM.label}",
        "parameters": trained.parameters,
        "minutes": trained.minutes,
        "samples": config.samples,
        "test_log_px": log_px.mean,
        "standard_error": log_px.standard_error,
        "effective_samples_median": float(np.median(estimates.effective_samples)),
        "test_negative_elbo": last["test_negative_elbo"],
        "test_negative_elbo_standard_error": last["test_negative_elbo_standard_error"],
        "training_loss": last["loss"],
        "kl": {layer: float(of_layer.sum(axis=-1).mean()) for layer, of_layer in kl.items()},
        "active_units": {layer: int(on.sum()) for layer, on in vj.active_units(kl).items() if len(on) > 1},
        "test_negative_elbo_by_epoch": [record["test_negative_elbo"] for record in trained.history],
        "minutes_by_epoch": trained.minutes_by_epoch,
    }
    print(row(run, numbers))
    run.save("samples", samples_by_temperature(draw_key, model, trained.variables, run.data_and_seed))
    run.save("layers", samples_by_given_layers(layers_key, model, trained.variables, run.data_and_seed))
    times, bounds = numbers["minutes_by_epoch"], numbers["test_negative_elbo_by_epoch"]
    title = f"Ladder VAE; {run.data_and_seed}, {TRANSFORM.label}"
    run.save("minutes", bound_by_minutes(times, bounds, "nats per test image", title, -log_px.mean))
    return run.report(numbers)


def row(run: Run, numbers: Mapping[str, Any]) -> str:
    """The printed result."""
    units = {layer: f" in {count} active units" for layer, count in numbers["active_units"].items()}
    layers = ", ".join(f"{layer} {kl:.1f} nats{units.get(layer, '')}" for layer, kl in numbers["kl"].items())
    return (
        f"{numbers['label']}: -log p(x) {-numbers['test_log_px']:.2f} +- {numbers['standard_error']:.2f} nats "
        f"({numbers['samples']:,} samples, {len(run.data.test):,} test images), -ELBO "
        f"{numbers['test_negative_elbo']:.2f}; {run.epochs} epochs, {numbers['minutes']:.1f} min\n"
        f"  KL by layer: {layers}"
    )


if __name__ == "__main__":
    run_script(main, Config)
