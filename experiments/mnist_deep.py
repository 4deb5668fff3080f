"""log p(x) of a hierarchical VAE on dynamically binarised MNIST, trained within a number of minutes.

The ladder VAE has three layers of 20, 30 and 40 latents, from the top, with top-down inference and gated dense layers
of width 256; each prior and each posterior has layers of its own, as in the two-layered model of Tomczak and Welling
(2018). The prior of the top layer is N(0, I) transformed by a coupling flow. The script times a few steps, and sets the
number of epochs so that the training takes `--minutes`. It estimates log p(x) of each test image with 5,000 importance
samples, and shows what each layer decides: rows of samples with the upper layers held fixed.

With `--checkpoint-dir`, a run that was interrupted is resumed, with the number of epochs that it started with.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness.options import Options, TrainingOptions
from harness.recipe import averaged_adamw
from harness.run import Report, Run, run_script
from matplotlib.figure import Figure

import vae_jax as vj
from vae_jax.errors import require_positive, require_positive_int

TRANSFORM = vj.Binarize()
MINUTES = 12.0  # default on MNIST
TIMED_STEPS = 40
PRIORS = {"normal": vj.StandardNormal(), "flow": vj.FlowPrior(vj.Coupling(layers=4, hidden=(100,)))}
TEMPERATURES = (1.0, 0.8, 0.6)
DRAWS, PER_ROW = 40, 10  # samples at each temperature, and in a row


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
    if not 0 < config.kl_warm_up <= 1:
        raise vj.InputError(f"kl_warm_up is {config.kl_warm_up}; expected a share of the steps, above 0 and up to 1")
    require_positive_int(samples=config.samples)
    run = Run.start("mnist_deep", config, epochs=1, batch_size=250)
    model = vj.ladder_vae(run.data.event_shape, config.latent_dims, config.hidden, prior=PRIORS[config.prior])
    run = replace(run, epochs=number_of_epochs(model, run, config))
    train_key, test_key, weight_key, kl_key, draw_key = jax.random.split(run.key, 5)

    warm_up = optax.linear_schedule(0.0, 1.0, max(1, int(config.kl_warm_up * run.steps)))
    trained = run.train(train_key, model, vj.ELBO(beta=warm_up), transform=TRANSFORM, title="ladder VAE")
    x = vj.transform_all(test_key, run.data.test, transform=TRANSFORM)
    estimates = vj.importance_estimate(weight_key, model, trained.variables, x, config.samples)
    kl = vj.kl_by_unit(kl_key, model, trained.variables, run.data.test, transform=TRANSFORM)
    log_px = vj.mean_and_stderr(estimates.log_px)
    last = trained.history[-1]
    numbers = {
        "label": f"{run.data.name}, {TRANSFORM.label}, seed {config.seed}",
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"])),
        "minutes": sum(record["seconds"] for record in trained.history) / 60,
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
        "minutes_by_epoch": (np.cumsum([record["seconds"] for record in trained.history]) / 60).tolist(),
    }
    print(row(run, numbers))
    run.save("samples", samples_by_temperature(draw_key, model, trained.variables, run.where))
    run.save("layers", samples_by_given_layers(jax.random.clone(draw_key), model, trained.variables, run.where))
    run.save("minutes", bound_by_minutes(numbers, run.where))
    return run.report(numbers)


def number_of_epochs(model: vj.LadderVAE, run: Run, config: Config) -> int:
    """The epochs of `--epochs`, or those that `--minutes` allow, or the default of the data set.

    With checkpoints, the number is that of the first start, so that a resumed run keeps its schedule.

    Raises:
      InputError: The checkpoints are those of another number of minutes, or there are several processes, each of which
        would measure another time.
    """
    minutes = config.minutes or (MINUTES if run.name == "mnist_deep" else None)
    if config.training.epochs is not None or config.smoke or minutes is None:
        return run.epochs
    if config.devices.coordinator is not None:
        raise vj.InputError(
            "several processes would time themselves and train for different numbers of epochs; expected --epochs"
        )
    kept = config.checkpoints.checkpoint_dir
    if kept is None:
        return epochs_within(minutes, model, run)
    file = kept / "budget.json"
    if not file.exists():
        kept.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"minutes": minutes, "epochs": epochs_within(minutes, model, run)}))
    budget = json.loads(file.read_text())
    if budget["minutes"] != minutes:
        raise vj.InputError(
            f"minutes is {minutes:g}, but {kept} has a run of {budget['minutes']:g} minutes, whose schedule is longer "
            "or shorter; expected the same number, or another --checkpoint-dir"
        )
    return int(budget["epochs"])


def epochs_within(minutes: float, model: vj.LadderVAE, run: Run) -> int:
    """The number of epochs, from the time of a few steps; one at least."""
    optimizer = averaged_adamw(run.options.training.learning_rate, run.options.training.weight_decay, run.steps)
    _, history = vj.fit(
        vj.init(jax.random.key(0), model, optimizer),
        vj.make_train_step(model, vj.ELBO(), optimizer),
        run.data.train[: TIMED_STEPS * run.batch_size],
        transform=TRANSFORM,
        epochs=4,
        batch_size=run.batch_size,
        progress=False,
        **run.devices,
    )
    steps = min(TIMED_STEPS, len(run.data.train) // run.batch_size)
    seconds = float(np.median([record["seconds"] for record in history[1:]])) / steps
    epochs = max(1, int(60 * minutes / seconds / (len(run.data.train) // run.batch_size)))
    print(f"{1e3 * seconds:.1f} ms a step: {epochs} epochs in {minutes:g} minutes")
    return epochs


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


def samples_by_temperature(key: jax.Array, model: vj.LadderVAE, variables: dict[str, Any], where: str) -> Figure:
    """Samples of the model with the same noise, of which the standard deviation is multiplied by each temperature."""
    sheets = [
        (
            f"temperature {temperature:g}",
            np.asarray(model.sample(jax.random.clone(key), variables, DRAWS, temperature=temperature).px_z.mean),
        )
        for temperature in TEMPERATURES
    ]
    return vj.plot.sheets(sheets, PER_ROW, len(sheets), f"E[x|z] of samples from the ladder VAE; {where}")


def samples_by_given_layers(key: jax.Array, model: vj.LadderVAE, variables: dict[str, Any], where: str) -> Figure:
    """Rows of samples that share the latents of the upper layers, for each number of layers that they share.

    Each of the rows starts from one sample of all layers. The last sheet shares all layers but the last.
    """
    first_key, below_key = jax.random.split(key)
    rows = 4
    first = model.sample(first_key, variables, rows).z
    names = list(first)
    sheets = []
    for shared in range(1, len(names)):
        given = {name: jnp.repeat(first[name], PER_ROW, axis=0) for name in names[:shared]}
        drawn = model.sample(jax.random.fold_in(below_key, shared), variables, rows * PER_ROW, given=given)
        sheets.append((f"{', '.join(names[:shared])} shared by a row", np.asarray(drawn.px_z.mean)))
    title = f"E[x|z] with the upper layers fixed and those below sampled; {where}"
    return vj.plot.sheets(sheets, PER_ROW, len(sheets), title)


def bound_by_minutes(numbers: Mapping[str, Any], where: str) -> Figure:
    """Plot the negative ELBO of the test images against minutes of training, and the final estimate of log p(x)."""
    figure, axes = vj.plot.single_axes(f"Ladder VAE; {where}, {TRANSFORM.label}")
    bounds, minutes = numbers["test_negative_elbo_by_epoch"], numbers["minutes_by_epoch"]
    blue, red = vj.plot.COLOURS[1], vj.plot.COLOURS[0]
    axes.plot(minutes, bounds, color=blue, label="negative ELBO of the averaged parameters")
    axes.plot(minutes[-1], -numbers["test_log_px"], "*", color=red, markersize=12, label="-log p(x) at the end")
    late = bounds[len(bounds) // 10 :]
    axes.set_ylim(-numbers["test_log_px"] - 1, max(late) + 1)
    axes.set(xlabel="minutes of training", ylabel="nats per test image")
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    run_script(main, Config)
