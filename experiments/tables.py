"""log p(x) of the rows of two small tables: VAEs compared with density models that are usually fitted to such tables.

The tables contain measurements of tumours and of wines and come with scikit-learn. The evaluation is a five-fold
cross-validation. The training rows of each fold standardise the columns and train a Gaussian with a full covariance, a
mixture of such Gaussians, factor analysis and VAEs. A fifth of the training rows, the inner split, selects the size of
the mixture and the number of epochs of the VAE; both are then fitted again to all training rows. Each number is a mean
over all rows of the table, each held out once.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from harness.report import save_picture, write_report
from harness.script import run_script
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.decomposition import FactorAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold, train_test_split

import vae_jax as vj
from vae_jax.errors import require_positive, require_positive_int, require_writable_folder
from vae_jax.progress import Progress

TABLES: dict[str, Callable[[], Any]] = {"breast_cancer": load_breast_cancer, "wine": load_wine}
LIKELIHOODS = {
    "Gaussian": vj.LearnedGaussian(per_element=True),
    "Student-t": vj.StudentT(degrees=5.0, per_element=True),
}
COMPONENTS, FLOORS = (1, 2, 3, 4, 6), (1e-3, 1e-2, 1e-1)  # of a mixture: numbers of components, regularisers
EVERY, STOPPING_SAMPLES = 5, 200  # epochs between evaluations of the inner split; importance samples in each

Rows = np.ndarray
LogDensity = Callable[[Rows], np.ndarray]
Fit = Callable[[Rows, int], LogDensity]  # arguments: the training rows of a fold, and its number


@dataclass(frozen=True)
class Config:
    """Options of this experiment."""

    tables: tuple[str, ...] = tuple(TABLES)
    """Names of the tables of scikit-learn: breast_cancer (569 rows, 30 columns), wine (178 rows, 13 columns)."""
    latent_dims: tuple[int, ...] = (2, 5)
    """Numbers of latent dimensions of the VAEs and of the factor analyses."""
    likelihoods: tuple[str, ...] = tuple(LIKELIHOODS)
    """Likelihoods of the VAEs: Gaussian, Student-t. The scale of each column is learned."""
    hidden: tuple[int, ...] = (64,)
    """Widths of the hidden layers of the VAEs."""
    epochs: int = 300
    """Largest number of passes over the training rows. The inner split selects the number."""
    batch_size: int = 32
    """Number of rows in a training step."""
    learning_rate: float = 3e-3
    """Initial learning rate of AdamW, before cosine decay to 0."""
    weight_decay: float = 1e-2
    """Weight decay of AdamW; each step multiplies it by the learning rate."""
    samples: int = 5_000
    """Number of importance samples in the estimate of log p(x) of each held-out row under a VAE."""
    folds: int = 5
    """Number of folds of a table, each held out once."""
    seed: int = 0
    """Seed of the folds, the inner splits, the initial parameters, the order of the rows and the noise."""
    out: Path = Path("runs/tables")
    """Folder for the report and the picture."""


def main(config: Config) -> None:
    """Score each model on each fold, print the scores, and write the picture and the report."""
    started = time.perf_counter()
    check(config)
    scores = {name: scores_of(TABLES[name]().data, name, config) for name in config.tables}
    found = {table: {name: numbers(name, by_model) for name in by_model} for table, by_model in scores.items()}
    for table, models in found.items():
        print(f"{table}: mean log p(x) of {models['Gaussian']['rows']} standardised rows, in nats")
        for name, model in models.items():
            print(f"  {name}: {model['log_px']:.2f} +- {model['standard_error']:.2f}{beside(model)}")
    label = f"Held-out rows of {config.folds} folds, seed {config.seed}: mean and standard error"
    drawn = {
        table: {name: (model["log_px"], model["standard_error"]) for name, model in models.items()}
        for table, models in found.items()
    }
    save_picture(config.out / "tables", scores_by_model(drawn, "log p(x) of a standardised row (nats)", label))
    seconds = time.perf_counter() - started
    content = {"experiment": "tables", "label": label, "seconds": seconds, "tables": found}
    write_report(config.out / "tables.json", content, config)
    print(f"{config.out}/tables*: the report and the picture, after {seconds:.0f} s")


def check(config: Config) -> None:
    """Raise `InputError` if an option cannot be used."""
    for option, known in (("tables", TABLES), ("likelihoods", LIKELIHOODS)):
        given = getattr(config, option)
        if not given or set(given) - known.keys():
            raise vj.InputError(f"{option} are {', '.join(given) or 'none'}; expected some of {', '.join(known)}")
    counts = ("epochs", "batch_size", "samples")
    lists = {f"{name}[{i}]": n for name in ("latent_dims", "hidden") for i, n in enumerate(getattr(config, name))}
    require_positive_int(**{name: getattr(config, name) for name in counts}, **lists)
    require_positive(learning_rate=config.learning_rate)
    if not 2 <= config.folds <= 20:
        raise vj.InputError(f"folds is {config.folds}; expected from 2 to 20")
    if not 0 <= config.seed < 2**32:
        raise vj.InputError(f"seed is {config.seed}; expected a whole number from 0 to 2**32 - 1")
    require_writable_folder(config.out)


def scores_of(table: Rows, title: str, config: Config) -> dict[str, np.ndarray]:
    """Compute log p(x) of each row, by the name of the model, under the model fitted without the fold of the row."""
    fits = fits_of(table.shape[1], config)
    scores = {name: np.empty(len(table)) for name in fits}
    folds = KFold(config.folds, shuffle=True, random_state=config.seed).split(table)
    with Progress(title, config.folds * len(fits), unit="fit") as bar:
        for fold, (inside, outside) in enumerate(folds):
            mean, deviation = table[inside].mean(axis=0), table[inside].std(axis=0)
            rows = ((table - mean) / deviation).astype(np.float32)
            for name, fit in fits.items():
                scores[name][outside] = fit(rows[inside], fold)(rows[outside])
                bar.advance(1)
    return scores


def fits_of(columns: int, config: Config) -> dict[str, Fit]:
    """The fitting functions of the models, by name."""
    fits: dict[str, Fit] = {
        "Gaussian": fit_gaussian,
        "mixture of Gaussians": partial(fit_mixture, seed=config.seed),
    }
    for latent_dim in config.latent_dims:
        fits[f"factor analysis, {latent_dim}"] = partial(fit_factor_analysis, latent_dim=latent_dim)
        for name in config.likelihoods:
            vae = vj.mlp_vae((columns,), latent_dim, config.hidden, likelihood=LIKELIHOODS[name])
            fits[f"VAE, {name}, {latent_dim}"] = partial(fit_vae, vae=vae, config=config)
    return fits


def fit_gaussian(rows: Rows, fold: int) -> LogDensity:
    """Fit a Gaussian with a full covariance."""
    return GaussianMixture(1).fit(rows).score_samples


def fit_mixture(rows: Rows, fold: int, seed: int) -> LogDensity:
    """Fit a mixture whose size and regulariser maximise the likelihood of the inner split."""
    fitted, held_out = inner_split(rows, seed)
    candidates = [
        GaussianMixture(size, reg_covar=floor, random_state=seed)
        for size in COMPONENTS
        for floor in FLOORS
        if size < len(fitted)
    ]
    best = max(candidates, key=lambda candidate: candidate.fit(fitted).score(held_out))
    return best.fit(rows).score_samples


def fit_factor_analysis(rows: Rows, fold: int, latent_dim: int) -> LogDensity:
    """Fit factor analysis by maximum likelihood."""
    return FactorAnalysis(latent_dim).fit(rows).score_samples


def fit_vae(rows: Rows, fold: int, vae: vj.VAE, config: Config) -> LogDensity:
    """Train a VAE on all rows, for the number of epochs that maximises the likelihood of the inner split."""
    init_key, stop_key, test_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), fold), 3)
    fitted, held_out = inner_split(rows, config.seed)
    looks: dict[int, float] = {}

    def batch_of(rows: Rows) -> int:
        return min(config.batch_size, len(rows))

    def look(state: vj.TrainState) -> dict[str, Any]:
        epoch = int(state.step) // (len(fitted) // batch_of(fitted))
        if epoch % EVERY == 0 or epoch == config.epochs:
            key = jax.random.clone(stop_key)  # the same samples in each evaluation
            looks[epoch] = float(np.mean(vj.log_likelihood(key, vae, state.variables, held_out, STOPPING_SAMPLES)))
        return {}

    def fit(rows: Rows, epochs: int, eval_fn: Any = None) -> vj.TrainState:
        steps = config.epochs * (len(rows) // batch_of(rows))  # length of the decay, even if training stops earlier
        optimizer, step = optimizer_and_step(vae, steps, config)
        state = vj.init(jax.random.clone(init_key), vae, optimizer)
        settings = {"epochs": epochs, "batch_size": batch_of(rows), "eval_fn": eval_fn, "progress": False}
        return vj.fit(state, step, rows, **settings)[0]

    fit(fitted, config.epochs, look)
    state = fit(rows, max(looks, key=lambda epoch: looks[epoch]))
    return lambda rows: np.asarray(vj.log_likelihood(test_key, vae, state.variables, rows, config.samples))


@cache  # folds with the same number of rows share one compiled program
def optimizer_and_step(vae: vj.VAE, steps: int, config: Config) -> tuple[optax.GradientTransformation, Any]:
    """The optimizer and the training step of a VAE."""
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)
    return optimizer, vj.make_train_step(vae, vj.ELBO(), optimizer)


def inner_split(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Split the rows into four fifths for fitting and one fifth for model selection."""
    fitted, held_out = train_test_split(rows, test_size=0.2, random_state=seed)
    return fitted, held_out


def numbers(name: str, scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """The mean log p(x) of a model; for a VAE also its gain over factor analysis with the same latent dimension."""
    mean = vj.mean_and_stderr(scores[name])
    found = {"log_px": mean.mean, "standard_error": mean.standard_error, "rows": len(scores[name])}
    if name.startswith("VAE"):
        gain = vj.mean_and_stderr(scores[name] - scores[f"factor analysis, {name.rpartition(', ')[2]}"])
        found |= {"gain": gain.mean, "standard_error_of_gain": gain.standard_error}
    return found


def beside(model: dict[str, Any]) -> str:
    """The gain of a VAE over factor analysis, as text."""
    if "gain" not in model:
        return ""
    return f" ({model['gain']:+.2f} +- {model['standard_error_of_gain']:.2f} beside factor analysis)"


def scores_by_model(scores: Mapping[str, Mapping[str, tuple[float, float]]], xlabel: str, title: str) -> Figure:
    """Plot means and standard errors, one panel per data set and one line per model.

    Args:
      scores: Mean and standard error, by data set and model.
      xlabel: Name and unit of the scores.
      title: Title of the figure.

    Returns:
      The figure.
    """
    lines = max(len(models) for models in scores.values())
    figure = Figure(figsize=(1.5 + 3.6 * len(scores), 1.3 + 0.3 * lines), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for axes, (data_set, models) in zip(panels, scores.items(), strict=True):
        for line, (name, (mean, error)) in enumerate(models.items()):
            colour = vj.plot.COLOURS[1] if name.startswith("VAE") else vj.plot.COLOURS[6]
            axes.errorbar(mean, line, xerr=error, fmt="o", color=colour, capsize=3)
        axes.set(yticks=range(len(models)), yticklabels=list(models), xlabel=xlabel, title=data_set)
        axes.invert_yaxis()
        axes.grid(alpha=0.3)
        if axes is not panels[0]:
            axes.set_yticklabels([])
    figure.suptitle(title, fontsize="medium")
    return figure


if __name__ == "__main__":
    run_script(main, Config)
