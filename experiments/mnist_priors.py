"""Comparison of priors and posteriors by log p(x): one VAE with five of them on dynamically binarised MNIST.

The script trains the VAE of Tomczak and Welling (2018), 784-300-300-40 and a mirrored decoder with gated layers. The
prior is N(0, I), a mixture of Gaussians, a VampPrior or a coupling flow; a fifth model combines the prior N(0, I) with
a posterior that is transformed by a coupling flow. log p(x) of each test image is estimated with 5,000 importance
samples, and each model is compared with the first one on the same images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from harness.options import Options, TrainingOptions, require_different
from harness.recipe import averaged_adamw, kl_warm_up, require_warm_up
from harness.report import Report
from harness.run import Run
from harness.script import run_script

import vae_jax as vj
from vae_jax.errors import require_positive_int
from vae_jax.evaluation import ImportanceEstimate

TRANSFORM = vj.Binarize()
LATENT_DIM, HIDDEN = 40, (300, 300)
COUPLING = vj.Coupling(layers=4, hidden=(100, 100))
NAMES = {
    "standard": "N(0, I)",
    "mixture": "mixture of Gaussians",
    "vamp": "VampPrior",
    "flow_prior": "flow prior",
    "flow_posterior": "flow posterior",
}
DRAWS = 64  # number of samples of each model, and of pseudo-inputs of a VampPrior, in the picture


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    models: tuple[str, ...] = tuple(NAMES)
    """Models to train. The first one is the reference of the comparison."""
    components: int = 500
    """Number of components of the mixture, and of pseudo-inputs of the VampPrior."""
    kl_warm_up: float = 1 / 8
    """Share of the training steps in which the weight of the KL increases linearly from 0 to 1."""
    samples: int = 5_000
    """Number of importance samples in the estimate of log p(x) of each test image."""
    out: Path = Path("runs/mnist_priors")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=2e-3)


def main(config: Config) -> Report:
    """Train each model, estimate log p(x), and write the picture and the report."""
    require_different(models=config.models)
    if set(config.models) - NAMES.keys():
        raise vj.InputError(f"models are {', '.join(config.models)}; expected some of {', '.join(NAMES)}")
    require_warm_up(config.kl_warm_up)
    require_positive_int(samples=config.samples, components=config.components)
    run = Run.start("mnist_priors", config, epochs=100, batch_size=250)
    test_key, train_key, weight_key, draw_key = jax.random.split(run.key, 4)
    x = vj.transform_all(test_key, run.data.test, transform=TRANSFORM)
    models: dict[str, dict[str, Any]] = {}
    log_px: dict[str, np.ndarray] = {}
    sheets = []
    for name in config.models:
        vae = model_of(name, run.data.event_shape, config.components)
        variables, history = train(jax.random.clone(train_key), vae, name, run, config)
        estimates = vj.importance_estimate(jax.random.clone(weight_key), vae, variables, x, config.samples)
        log_px[name] = np.asarray(estimates.log_px)
        models[name] = numbers(estimates, log_px[config.models[0]]) | {
            "samples": config.samples,
            "minutes": sum(record["seconds"] for record in history) / 60,
            "training_loss": history[-1]["loss"],
        }
        print(table_line(name, models[name], config))
        z = vae.prior_distribution(variables).sample(jax.random.clone(draw_key), DRAWS)
        sheets.append((NAMES[name], vj.decode_all(vae, variables, z)))
        if name == "vamp":
            pseudo_inputs = np.asarray(variables["params"]["prior"]["pseudo_inputs"][:DRAWS])
            sheets.append(("VampPrior's pseudo-inputs", np.clip(pseudo_inputs, 0, 1)))
    label = f"{run.data_and_seed}, {TRANSFORM.label}"
    run.save("samples", vj.plot.sheets(sheets, 8, 3, f"{DRAWS} draws from each model, E[x|z]; {label}"))
    return run.report({"label": label, "models": models})


def model_of(name: str, event_shape: tuple[int, ...], components: int) -> vj.VAE:
    """The VAE with gated layers and the prior or posterior of the model with this name."""
    parts: dict[str, dict[str, Any]] = {
        "standard": {},
        "mixture": {"prior": vj.GaussianMixture(components)},
        "vamp": {"prior": vj.VampPrior(components)},
        "flow_prior": {"prior": vj.FlowPrior(COUPLING)},
        "flow_posterior": {"posterior": vj.FlowPosterior(COUPLING)},
    }
    return vj.VAE(
        encoder=vj.Gated(HIDDEN, vj.DiagonalGaussian.output_shape(LATENT_DIM)),
        decoder=vj.Gated(HIDDEN, event_shape),
        event_shape=event_shape,
        latent_dim=LATENT_DIM,
        **parts[name],
    )


def train(
    key: jax.Array, vae: vj.VAE, name: str, run: Run, config: Config
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train a model.

    Returns:
      The variables, with averaged parameters, and the history.
    """
    init_key, data_key = jax.random.split(key)
    optimizer = averaged_adamw(config.training.learning_rate, config.training.weight_decay, run.steps)
    start = vj.transform_all(data_key, run.data.train, transform=TRANSFORM) if name == "vamp" else None
    state, history = vj.fit(
        vj.init(init_key, vae, optimizer, data=start),
        vj.make_train_step(vae, vj.ELBO(beta=kl_warm_up(config.kl_warm_up, run.steps)), optimizer),
        run.data.train,
        transform=TRANSFORM,
        epochs=run.epochs,
        batch_size=run.batch_size,
        store=run.checkpoints(name, model=vae, variables=vj.averaged_variables, kl_warm_up=config.kl_warm_up),
        title=NAMES[name],
        **run.fit_arguments,
    )
    return vj.averaged_variables(state), history


def numbers(estimates: ImportanceEstimate, of_first: np.ndarray) -> dict[str, float]:
    """The mean log p(x) of the test images in nats per image, and the gain over the first model."""
    log_px, gain = vj.mean_and_stderr(estimates.log_px), vj.mean_and_stderr(np.asarray(estimates.log_px) - of_first)
    return {
        "test_log_px": log_px.mean,
        "standard_error": log_px.standard_error,
        "gain": gain.mean,
        "standard_error_of_gain": gain.standard_error,
        "effective_samples_median": float(np.median(estimates.effective_samples)),
    }


def table_line(name: str, model: Mapping[str, Any], config: Config) -> str:
    """The line of a model in the printed table."""
    first = NAMES[config.models[0]]
    gain = f", {model['gain']:+.2f} +- {model['standard_error_of_gain']:.2f} beside {first}"
    gain_text = "" if NAMES[name] == first else gain
    return (
        f"{NAMES[name]}: -log p(x) {-model['test_log_px']:.2f} +- {model['standard_error']:.2f} nats "
        f"({config.samples:,} samples, {TRANSFORM.label}){gain_text}; {model['minutes']:.1f} min"
    )


if __name__ == "__main__":
    run_script(main, Config)
