"""log p(x) of a VAE and of importance-weighted autoencoders on dynamically binarised MNIST.

The script trains the network of Burda et al. (2016), 784-200-200-50 and a mirrored decoder with tanh, by the ELBO
(k = 1) and by the bounds of k importance samples. It estimates log p(x) of each test image with 5,000 importance
samples, and prints the published values as a reference.

The short schedule takes 25 minutes on two CPU cores. `--schedule paper` is the schedule of Burda et al. (2016), 3,280
epochs with batch size 20; with `--epochs 328` each of its stages is a tenth as long. With `--checkpoint-dir`, a run
that was interrupted can be resumed.
"""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn
from harness.options import Options, require_different, require_unused
from harness.recipe import averaged_adamw, kl_warm_up
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from matplotlib.figure import Figure

import vae_jax as vj
from vae_jax.errors import require_positive_int

TRANSFORM = vj.Binarize()
PUBLISHED = {1: 86.76, 5: 85.54, 50: 84.78}  # -log p(x), 5,000 samples, 3,280 epochs: Burda et al. (2016), table 1
PAPER_BATCH = 20
PAPER_STAGES = [3**stage for stage in range(8)]  # epochs per stage, 3,280 in total
BOUNDS = (1, 5, 50, 500)  # numbers of samples at which the bound is plotted, besides `Config.samples`
EPSILON = 1e-4  # epsilon of Adam, as in Burda et al. (2016)
DRAWS = 64  # number of samples from the prior of each model


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    schedule: Literal["short", "paper"] = "short"
    """Schedule of the training. "short" is one cosine decay; `--epochs`, `--batch-size` and `--learning-rate` apply to
    k = 1 and are reduced for larger k. "paper" has eight stages with decreasing learning rates, 3,280 epochs in total
    unless `--epochs` is given, and batch size 20; with another batch size the rates are scaled by the square root of
    the ratio. Both average the parameters, which Burda et al. (2016) do not."""
    kl_warm_up: float | None = None
    """Share of the training steps in which the weight of the KL increases linearly from 0 to 1, at k = 1. The default
    is 1/8 in the short schedule and 0 in the published one."""
    k: tuple[int, ...] = (1, 5, 50)
    """Number of importance samples in the bound of each model. A VAE has k = 1."""
    samples: int = 5_000
    """Number of importance samples in the estimate of log p(x) of each test image."""
    out: Path = Path("runs/mnist_likelihood")
    """Folder for the report and the pictures."""


class Plan(NamedTuple):
    """Settings of the training of one model."""

    epochs: int
    batch_size: int
    optimizer: optax.GradientTransformation
    objective: vj.ELBO | vj.IWAE


def main(config: Config) -> Report:
    """Train each model, estimate log p(x), and write the pictures and the report."""
    if config.kl_warm_up is not None and not 0 <= config.kl_warm_up <= 1:
        raise vj.InputError(f"kl_warm_up is {config.kl_warm_up}; expected a share of the steps, from 0 to 1")
    require_different(k=config.k)
    if config.schedule == "paper":
        require_unused(config, "learning_rate", "weight_decay", why="the published schedule sets the optimizer")
    require_positive_int(samples=config.samples, **{f"k[{i}]": k for i, k in enumerate(config.k)})
    epochs, batch_size = (200, 100) if config.schedule == "short" else (sum(PAPER_STAGES), PAPER_BATCH)
    run = Run.start("mnist_likelihood", config, epochs=epochs, batch_size=batch_size)
    test_key, measure_key, draw_key, *train_keys = jax.random.split(run.key, 3 + len(config.k))
    x = vj.transform_all(test_key, run.data.test, transform=TRANSFORM)
    vae = vj.mlp_vae(run.data.event_shape, latent_dim=50, hidden=(200, 200), activation=nn.tanh)
    published = {k: PUBLISHED[k] for k in config.k if k in PUBLISHED and run.data.name == "mnist"}
    models, sheets = [], []
    for k, train_key in zip(config.k, train_keys, strict=True):
        plan = make_plan(k, run, config)
        variables, history = train(train_key, vae, k, plan, run, config, x)
        models.append(measure(measure_key, vae, variables, k, run, config, x) | training_record(plan, history))
        draws = vae.sample(jax.random.clone(draw_key), variables, DRAWS).px_z.mean  # the same latents for each model
        sheets.append((models[-1]["name"], np.asarray(draws)))
        print(table_line(models[-1], published))
    label = f"{run.data_and_seed}, {TRANSFORM.label}"
    run.save("samples", vj.plot.sheets(sheets, 8, len(sheets), f"{DRAWS} draws from the prior, E[x|z]; {label}"))
    references = {f"Burda et al. (2016), k = {k}": value for k, value in published.items()}
    run.save("bounds", bounds_by_samples({m["name"]: (m["k"], m["bounds"]) for m in models}, references, label))
    run.save("minutes", bounds_by_minutes({m["name"]: (m["minutes"], m["test_bound_by_epoch"]) for m in models}, label))
    digest = hashlib.sha256(x.astype(np.uint8).tobytes()).hexdigest()
    return run.report({"label": label, "schedule": config.schedule, "binarised_test_sha256": digest, "models": models})


def make_plan(k: int, run: Run, config: Config) -> Plan:
    """The short schedule, or the published one with its stages scaled to the total number of epochs.

    In the short schedule, all models take about the same number of steps. The number of epochs and the batch size are
    proportional to 1 / sqrt(k), and the learning rate to the square root of that.
    """
    warm_up = config.kl_warm_up
    if config.schedule == "short":
        share = 1 / math.sqrt(k)
        epochs, batch_size = max(1, round(share * run.epochs)), max(1, round(share * run.batch_size))
        steps = epochs * (len(run.data.train) // batch_size)
        optimizer = averaged_adamw(
            math.sqrt(share) * config.training.learning_rate, config.training.weight_decay, steps, EPSILON
        )
        return Plan(epochs, batch_size, optimizer, bound(k, steps, 1 / 8 if warm_up is None else warm_up))
    steps = run.steps
    steps_per_stage = steps * np.array(PAPER_STAGES) / sum(PAPER_STAGES)
    ends = np.cumsum(steps_per_stage)[:-1].round().astype(int)
    first_rate = 1e-3 * math.sqrt(run.batch_size / PAPER_BATCH)
    schedule = optax.piecewise_constant_schedule(first_rate, {int(end): 10 ** (-1 / 7) for end in ends})
    optimizer = vj.averaged(optax.adam(schedule, eps=EPSILON))
    return Plan(run.epochs, run.batch_size, optimizer, bound(k, steps, warm_up or 0.0))


def bound(k: int, steps: int, warm_up: float) -> vj.ELBO | vj.IWAE:
    """The bound of k importance samples. At k = 1 the weight of the KL may warm up, so that more units stay active."""
    if k > 1:
        return vj.IWAE(k)
    return vj.ELBO(beta=kl_warm_up(warm_up, steps) if warm_up else 1.0)


def train(
    key: jax.Array, vae: vj.VAE, k: int, plan: Plan, run: Run, config: Config, x: np.ndarray
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train a model.

    Returns:
      The variables, and the history with the bound on the binarised test images after each epoch.
    """
    train_key, bound_key = jax.random.split(key)
    step = vj.make_train_step(vae, plan.objective, plan.optimizer)
    store = run.checkpoints(
        f"k{k}",
        model=vae,
        variables=vj.averaged_variables,
        k=k,
        schedule=config.schedule,
        kl_warm_up=config.kl_warm_up,
        epochs=plan.epochs,
    )

    def test_bound(state: vj.TrainState) -> dict[str, float]:
        return {"test_bound": float(vj.log_likelihood(bound_key, vae, vj.averaged_variables(state), x, k).mean())}

    state, history = vj.fit(
        vj.init(train_key, vae, plan.optimizer),
        step,
        run.data.train,
        transform=TRANSFORM,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        eval_fn=test_bound,
        store=store,
        title=name(k),
        **run.fit_arguments,
    )
    return vj.averaged_variables(state), history


def measure(
    key: jax.Array, vae: vj.VAE, variables: dict[str, Any], k: int, run: Run, config: Config, x: np.ndarray
) -> dict[str, Any]:
    """Measure one model on the binarised test images, in nats per image."""
    # All models and all numbers of samples share one key, and thus the samples, which reduces the noise of differences.
    encode_key, terms_key, weight_key = (jax.random.fold_in(key, stream) for stream in range(3))
    posterior = vj.encode_all(encode_key, vae, variables, run.data.test, transform=TRANSFORM)
    vj.warn_if_collapsed(posterior)
    terms = vj.evaluate(terms_key, vae, variables, run.data.test, transform=TRANSFORM)
    estimates = {
        samples: vj.importance_estimate(weight_key, vae, variables, x, samples)
        for samples in sorted({*BOUNDS, k, config.samples})
    }
    log_px = vj.mean_and_stderr(estimates[config.samples].log_px)
    return {
        "name": name(k),
        "k": k,
        "binarisation": TRANSFORM.label,
        "samples": config.samples,
        "test_log_px": log_px.mean,
        "standard_error": log_px.standard_error,
        "effective_samples_median": float(np.median(estimates[config.samples].effective_samples)),
        "test_bound": vj.mean_and_stderr(estimates[k].log_px).mean,
        "bounds": {str(samples): vj.mean_and_stderr(estimate.log_px).mean for samples, estimate in estimates.items()},
        "active_units": int(vj.active_units(posterior).sum()),
        "rate": vj.mean_and_stderr(terms.kl).mean,
        "distortion": vj.mean_and_stderr(-terms.log_px_z).mean,
    }


def training_record(plan: Plan, history: list[dict[str, Any]]) -> dict[str, Any]:
    """The length of the training, and the bound after each epoch, for the report."""
    return {
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "minutes": (np.cumsum([record["seconds"] for record in history]) / 60).tolist(),
        "test_bound_by_epoch": [record["test_bound"] for record in history],
    }


def name(k: int) -> str:
    """The name of a model."""
    return "VAE, k = 1" if k == 1 else f"IWAE, k = {k}"


def table_line(model: dict[str, Any], published: dict[int, float]) -> str:
    """The line of a model in the printed table."""
    reference = f"; published {published[model['k']]:.2f} after 3,280" if model["k"] in published else ""
    return (
        f"{model['name']}: -log p(x) {-model['test_log_px']:.2f} +- {model['standard_error']:.2f} nats "
        f"({model['samples']:,} samples, {TRANSFORM.label}), bound at its k {-model['test_bound']:.2f}, "
        f"{model['active_units']} active units, {model['epochs']} epochs, {model['minutes'][-1]:.1f} min{reference}"
    )


def bounds_by_samples(
    models: Mapping[str, tuple[int, Mapping[str, float]]], references: Mapping[str, float], title: str
) -> Figure:
    """Plot the bound on log p(x) against the number of importance samples, and mark the training bound of each model.

    Args:
      models: By name, the number of samples in the training bound, and the bound in nats by the number of samples.
      references: Published values of -log p(x), by name.
      title: Title of the figure.

    Returns:
      The figure.
    """
    figure, axes = vj.plot.single_axes(title)
    for (name, (own, bounds)), colour in zip(models.items(), itertools.cycle(vj.plot.COLOURS), strict=False):
        samples, values = [int(key) for key in bounds], [-value for value in bounds.values()]
        axes.plot(samples, values, "-o", color=colour, markersize=3, label=name)
        axes.plot(own, -bounds[str(own)], "*", color=colour, markersize=14)
    axes.plot([], [], "*", color="black", markersize=10, label="training bound")
    for (name, value), colour in zip(references.items(), itertools.cycle(vj.plot.COLOURS), strict=False):
        axes.axhline(value, color=colour, linestyle=":", linewidth=1.2, label=f"{name}: {value:g}")
    axes.set(xscale="log", xlabel="number of importance samples k")
    axes.set(ylabel="bound on -log p(x), nats per test image")
    axes.legend(frameon=False, ncols=2)
    return figure


def bounds_by_minutes(models: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> Figure:
    """Plot the training bound of each model, evaluated on the test images, against minutes of training."""
    figure, axes = vj.plot.single_axes(title)
    for (name, (minutes, bounds)), colour in zip(models.items(), itertools.cycle(vj.plot.COLOURS), strict=False):
        axes.plot(minutes, -np.asarray(bounds), color=colour, label=name)
    late = [-bound for _, bounds in models.values() for bound in bounds[len(bounds) // 10 :]]
    axes.set(xlabel="minutes of training", ylabel="training bound on -log p(x), nats per test image")
    axes.set_ylim(min(late) - 0.5, max(late) + 0.5)
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    run_script(main, Config)
