"""log p(x) of the rows of two small tables: VAEs beside the densities that are usually fitted to such tables.

The tables, measurements of tumours and of wines, come with scikit-learn. Each of five folds is held out once. The other
rows standardise the columns and train a Gaussian with a full covariance, a mixture of such Gaussians, factor analysis
and VAEs. A fifth of the training rows, the inner split, chooses the mixture's size and the VAE's epochs; then both are
fitted again to all training rows. Every number is a mean over all rows of the table, each held out once.
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
from harness.run import run_script
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
COMPONENTS, FLOORS = (1, 2, 3, 4, 6), (1e-3, 1e-2, 1e-1)  # of a mixture: sizes, and least variances along an axis
EVERY, STOPPING_SAMPLES = 5, 200  # epochs between two looks at the inner split, and importance weights of each

Rows = np.ndarray
LogDensity = Callable[[Rows], np.ndarray]
Fit = Callable[[Rows, int], LogDensity]  # of the training rows of a fold, and its number


@dataclass(frozen=True)
class Config:
    """Options of this experiment."""

    tables: tuple[str, ...] = tuple(TABLES)
    """Tables of scikit-learn: breast_cancer (569 rows, 30 columns), wine (178 rows, 13 columns)."""
    latent_dims: tuple[int, ...] = (2, 5)
    """Latent dimensions of the VAEs, and of the factor analyses beside them."""
    likelihoods: tuple[str, ...] = tuple(LIKELIHOODS)
    """Of the VAEs: Gaussian or Student-t noise, each column's scale learned."""
    hidden: tuple[int, ...] = (64,)
    """Widths of the VAEs' layers."""
    epochs: int = 300
    """Most passes over the training rows; the inner split chooses how many."""
    batch_size: int = 32
    """Rows in a training step."""
    learning_rate: float = 3e-3
    """AdamW's rate at the start, before its cosine decay to 0."""
    weight_decay: float = 1e-2
    """AdamW's decay of the weights, in units of the learning rate."""
    samples: int = 5_000
    """Importance weights for a VAE's log p(x) of each held-out row."""
    folds: int = 5
    """Parts of a table, each held out once."""
    seed: int = 0
    """Seed of the folds, the inner splits, the initial parameters, the order of rows and the noise."""
    out: Path = Path("runs/tables")
    """Folder for the report and the picture."""


def main(config: Config) -> None:
    """Score every model on every fold, print, draw, report."""
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
    save_picture(config.out / "tables.png", scores_by_model(drawn, "log p(x) of a standardised row (nats)", label))
    seconds = time.perf_counter() - started
    content = {"experiment": "tables", "label": label, "seconds": seconds, "tables": found}
    write_report(config.out / "tables.json", content, config)
    print(f"{config.out}/tables*: the report and the picture, after {seconds:.0f} s")


def check(config: Config) -> None:
    """Raise `InputError` for what can't be done."""
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
    """log p(x) of each row by each model's name, under the model that was fitted without the row's fold."""
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
    """The models by name."""
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
    """With a full covariance."""
    return GaussianMixture(1).fit(rows).score_samples


def fit_mixture(rows: Rows, fold: int, seed: int) -> LogDensity:
    """Of the size and the least variance under which the inner split is the most probable."""
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
    """By maximum likelihood."""
    return FactorAnalysis(latent_dim).fit(rows).score_samples


def fit_vae(rows: Rows, fold: int, vae: vj.VAE, config: Config) -> LogDensity:
    """On all rows, for as many epochs as make the inner split the most probable."""
    init_key, stop_key, test_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), fold), 3)
    fitted, held_out = inner_split(rows, config.seed)
    looks: dict[int, float] = {}

    def batch_of(rows: Rows) -> int:
        return min(config.batch_size, len(rows))

    def look(state: vj.TrainState) -> dict[str, Any]:
        epoch = int(state.step) // (len(fitted) // batch_of(fitted))
        if epoch % EVERY == 0 or epoch == config.epochs:
            key = jax.random.clone(stop_key)  # the same draws each time
            looks[epoch] = float(np.mean(vj.log_likelihood(key, vae, state.variables, held_out, STOPPING_SAMPLES)))
        return {}

    def fit(rows: Rows, epochs: int, eval_fn: Any = None) -> vj.TrainState:
        steps = config.epochs * (len(rows) // batch_of(rows))  # of the decay, however many are taken of them
        optimizer, step = optimizer_and_step(vae, steps, config)
        state = vj.init(jax.random.clone(init_key), vae, optimizer)
        settings = {"epochs": epochs, "batch_size": batch_of(rows), "eval_fn": eval_fn, "progress": False}
        return vj.fit(state, step, rows, **settings)[0]

    fit(fitted, config.epochs, look)
    state = fit(rows, max(looks, key=lambda epoch: looks[epoch]))
    return lambda rows: np.asarray(vj.log_likelihood(test_key, vae, state.variables, rows, config.samples))


@cache  # folds of as many rows share one compiled program
def optimizer_and_step(vae: vj.VAE, steps: int, config: Config) -> tuple[optax.GradientTransformation, Any]:
    """How a VAE is trained."""
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)
    return optimizer, vj.make_train_step(vae, vj.ELBO(), optimizer)


def inner_split(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Four fifths of the rows to fit, one fifth to choose by."""
    fitted, held_out = train_test_split(rows, test_size=0.2, random_state=seed)
    return fitted, held_out


def numbers(name: str, scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """The mean of a model, and of a VAE what it has more than factor analysis of its dimension on the same rows."""
    mean = vj.mean_and_stderr(scores[name])
    found = {"log_px": mean.mean, "standard_error": mean.standard_error, "rows": len(scores[name])}
    if name.startswith("VAE"):
        gain = vj.mean_and_stderr(scores[name] - scores[f"factor analysis, {name.rpartition(', ')[2]}"])
        found |= {"gain": gain.mean, "standard_error_of_gain": gain.standard_error}
    return found


def beside(model: dict[str, Any]) -> str:
    """A VAE's gain in words."""
    if "gain" not in model:
        return ""
    return f" ({model['gain']:+.2f} +- {model['standard_error_of_gain']:.2f} beside factor analysis)"


def scores_by_model(scores: Mapping[str, Mapping[str, tuple[float, float]]], xlabel: str, title: str) -> Figure:
    """Means with their standard errors, one panel for each data set and one line for each model.

    Args:
      scores: by data set and model, mean and standard error.
      xlabel: what they are of, with its unit.
      title: of the figure.
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
