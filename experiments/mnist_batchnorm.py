"""A VAE with batch normalisation and squared error, and the trade-off that the weight C of this error controls.

The model has the layers 784-196-49-28 and a mirrored decoder, batch normalisation, tanh, and pixels in [-1, 1]. The
loss C * squared error + KL corresponds to a Gaussian likelihood of variance 1 / (2C). Five values of C are trained at
once, as members of one program.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness.images import scaled
from harness.options import Options, require_different
from harness.recipe import adamw
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from matplotlib.figure import Figure

import vae_jax as vj
from vae_jax.errors import require_positive

TRANSFORM = vj.Scale(-1.0, 1.0)
COLUMNS = 16  # number of images of each kind in the picture


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    c: tuple[float, ...] = (0.05, 0.2, 1.0, 5.0, 20.0)
    """Weights of the squared error. One model is trained with each."""
    out: Path = Path("runs/mnist_batchnorm")
    """Folder for the report and the pictures."""


def main(config: Config) -> Report:
    """Train the sweep as one program, measure each member, and write the pictures and the report."""
    require_different(c=config.c)
    require_positive(**{f"c[{i}]": c for i, c in enumerate(config.c)})
    run = Run.start("mnist_batchnorm", config, epochs=20)
    train_key, test_key, draw_key = jax.random.split(run.key, 3)
    states, seconds = train_sweep(train_key, run, config)
    sweep, sheets = [], []
    for number, c in enumerate(config.c):
        vae = model(run, 1 / (2 * c))
        variables = vj.member(states.variables, number)
        sweep.append({"C": c, **measure(test_key, vae, variables, run, c)})
        shown = run.data.test[:COLUMNS]
        posterior = vj.encode_all(test_key, vae, variables, shown, transform=TRANSFORM)
        same_key = jax.random.clone(draw_key)  # the same samples for each C
        from_prior = vae.prior_distribution(variables).sample(same_key, COLUMNS)
        z = jnp.concatenate([posterior.mean, from_prior])
        images = (vj.decode_all(vae, variables, z) + 1) / 2
        sheets.append((f"C = {c:g}", np.concatenate([scaled(shown), images])))
    note = "squared error of pixels in [-1, 1] and KL in nats, means per test image at one sampled z"
    label = f"{run.data_and_seed}; {note}"
    text = f"Reconstructions at the posterior mean and samples by the weight C, {run.data_and_seed}"
    run.save("images", vj.plot.sheets(sheets, COLUMNS, 1, text, ("test images", "reconstructions", "samples")))
    run.save("trade_off", trade_off(sweep, f"{run.data_and_seed}: test images, one sampled z each"))
    print(label)
    for row in sweep:
        print(f"C {row['C']:6g}: squared error {row['test_squared_error']:7.2f}, KL {row['test_kl']:6.2f}")
    return run.report({"label": label, "sweep": sweep, "seconds_per_epoch_of_all": seconds})


def model(run: Run, variance: Any) -> vj.VAE:
    """The VAE with a Gaussian likelihood of the given variance, a number or a traced value."""
    return vj.batch_norm_vae(run.data.event_shape, likelihood=vj.Gaussian(variance))


def train_sweep(key: jax.Array, run: Run, config: Config) -> tuple[vj.TrainState, float]:
    """Train one member for each C, all as one program.

    Returns:
      The states of the members, and the median seconds per epoch of all together.
    """
    optimizer = adamw(config.training.learning_rate, config.training.weight_decay, run.steps)
    variances = 1 / (2 * jnp.asarray(config.c))
    keys = jax.random.split(key, len(config.c))
    states, history = vj.fit(
        vj.init_members(keys, model(run, 1.0), optimizer, settings=variances),
        vj.with_settings(lambda variance: vj.make_train_step(model(run, variance), vj.ELBO(), optimizer)),
        run.data.train,
        transform=TRANSFORM,
        epochs=run.epochs,
        batch_size=run.batch_size,
        store=run.checkpoints("sweep", c=config.c),
        title="sweep",
        **run.fit_arguments,
    )
    return states, float(np.median([record["seconds"] for record in history]))


def measure(key: jax.Array, vae: vj.VAE, variables: dict, run: Run, c: float) -> dict[str, float]:
    """Compute the mean squared error, KL and negative ELBO over the test images."""
    terms = vj.evaluate(key, vae, variables, run.data.test, transform=TRANSFORM)
    constant = 0.5 * np.prod(vae.event_shape) * np.log(np.pi / c)  # constant term of -log N(x; mean, 1 / (2C))
    return {
        "test_squared_error": (vj.mean_and_stderr(-terms.log_px_z).mean - constant) / c,
        "test_kl": vj.mean_and_stderr(terms.kl).mean,
        "test_negative_elbo": vj.mean_and_stderr(terms.kl - terms.log_px_z).mean,
    }


def trade_off(sweep: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Plot the KL against the squared error, with a point for each "C"."""
    figure, axes = vj.plot.single_axes(title)
    errors, kls = ([row[name] for row in sweep] for name in ("test_squared_error", "test_kl"))
    axes.plot(errors, kls, "-o", color=vj.plot.COLOURS[1])
    for row in sweep:
        where = (row["test_squared_error"], row["test_kl"])
        axes.annotate(f"C = {row['C']:g}", where, xytext=(6, 6), textcoords="offset points")
    axes.set(xlabel="squared error per test image", ylabel="KL, nats per test image")
    axes.margins(x=0.2, y=0.12)
    return figure


if __name__ == "__main__":
    run_script(main, Config)
