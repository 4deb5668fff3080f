"""ResNet-18 VAEs of CIFAR-10 with four likelihoods, in bits per dimension beside probabilistic PCA.

The networks follow `VAE` in lightning-bolts: the ResNet-18 of He et al. (2016) without pooling before the blocks, its
mirror image as decoder, and 256 latents. By default they have a quarter of the width, group normalisation, and an
encoder that keeps the pixels of its last stage. The likelihoods are Gaussians with one scale learned by gradient, one
per channel, or the optimal one in closed form (Rybkin et al., 2021), and a mixture of discretised logistics (Salimans
et al., 2017). Probabilistic PCA (Tipping and Bishop, 1999) with the same number of latents is fitted to the same
dequantised pixels, mirrored ones included; the models have linear paths that start there.

Probabilistic PCA is a stationary point of a VAE with the prior N(0, I), and training moves away from it slowly, because
both networks have to change together. A prior that is transformed by a coupling flow (RealNVP: Dinh et al., 2017) can
change alone, so it is the default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from harness.images import mirrored_too, scaled
from harness.options import Options, TrainingOptions, require_different
from harness.recipe import Trained, adamw_from_pca
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from matplotlib.figure import Figure

import vae_jax as vj

GAUSSIAN = {
    "shared": vj.LearnedGaussian(0.1),
    "channels": vj.LearnedGaussian(0.1, per_channel=True),
    "optimal": vj.OptimalGaussian(),
}
LIKELIHOODS: dict[str, vj.Likelihood] = GAUSSIAN | {"mixture": vj.ColourMixtureOfLogistics(10)}
NAMES = {
    "shared": "one learned scale",
    "channels": "a learned scale per channel",
    "optimal": "optimal scale",
    "mixture": "mixture of logistics",
}
PRIORS = {"normal": vj.StandardNormal(), "flow": vj.FlowPrior(vj.Coupling(layers=8, hidden=(256,)))}
PRIOR_NAMES = {"normal": "N(0, I)", "flow": "a flow prior"}
SHOWN = 16  # number of images of each model in the pictures


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    models: tuple[str, ...] = tuple(LIKELIHOODS)
    """Likelihoods with which a model is trained."""
    width: int = 16
    """Number of channels of the first stage. A ResNet-18 has 64, which needs a GPU."""
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    """Number of residual blocks of each stage of the encoder; the decoder reverses their order."""
    latent_dim: int = 256
    """Number of latent dimensions, also of probabilistic PCA."""
    norm: Literal["batch", "group"] = "group"
    """Batch normalisation or group normalisation."""
    pool: bool = False
    """Whether the encoder takes the mean over the pixels of its last stage, as ResNet-18 does, or all of them."""
    linear: bool = True
    """Whether linear maps from pixels to latents and back are added to the networks, which then start at probabilistic
    PCA."""
    prior: Literal["normal", "flow"] = "flow"
    """N(0, I), or N(0, I) transformed by a coupling flow."""
    out: Path = Path("runs/cifar_resnet")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=1e-3)


def main(config: Config) -> Report:
    """Train a model with each likelihood, fit probabilistic PCA, and write the pictures and the report."""
    require_different(models=config.models)
    if set(config.models) - LIKELIHOODS.keys():
        raise vj.InputError(f"models are {', '.join(config.models)}; expected some of {', '.join(LIKELIHOODS)}")
    run = Run.start("cifar_resnet", config, native="cifar10", epochs=3, batch_size=64, small=0, stand_in_steps=500)
    most = min(len(run.data.train), int(np.prod(run.data.event_shape))) - 1
    if config.latent_dim > most:
        raise vj.InputError(
            f"latent_dim is {config.latent_dim}; probabilistic PCA of these images takes from 1 to {most} latents"
        )
    train_key, eval_key, pca_key, draw_key, pca_test_key = jax.random.split(run.key, 5)
    models = {name: model(run, config, name) for name in config.models}
    pixels = mirrored_too(vj.transform_all(pca_key, run.data.train, transform=vj.Dequantize()))
    bits_of_pca = pca_bits_per_dim(pca_test_key, pixels, run.data.test, config.latent_dim)
    title = f"{run.data_and_seed}, width {config.width}, {config.latent_dim} latents"
    label = f"{title}; negative ELBO at one sampled z in bits per dimension of the {len(run.data.test):,} test images"
    print(f"{label}, dequantised (as levels for the mixture)")
    of_pca = vj.mean_and_stderr(bits_of_pca)
    print(f"  probabilistic PCA: {of_pca.mean:.3f} +- {of_pca.standard_error:.3f}, exact")
    shown = run.data.test[:SHOWN]
    reconstructions = [("test images", scaled(shown))]
    draws: list[tuple[str, np.ndarray]] = []
    numbers: dict[str, dict[str, Any]] = {}
    curves = {}
    for name, vae in models.items():
        init_key, fit_key = jax.random.split(jax.random.clone(train_key))
        start = vae.init(init_key)
        if config.linear:
            levels = scaled(run.data.train)
            start = vj.start_at_pca(vae, start, pixels if name in GAUSSIAN else mirrored_too(levels))
        trained = train(fit_key, jax.random.clone(eval_key), vae, start, run, config, name, bits_of_pca)
        numbers[name] = numbers_of(trained) | {"pixels": transform_of(name).label}
        curves[NAMES[name]] = numbers[name]["curves"]
        print(row(name, numbers[name]))
        encodings = trained.encode(jax.random.clone(eval_key), shown, transform_of(name))
        from_prior = vae.prior_distribution(trained.variables).sample(jax.random.clone(draw_key), 2 * SHOWN)
        for sheet, z in ((reconstructions, encodings), (draws, np.asarray(from_prior))):
            sheet.append((NAMES[name], np.clip(trained.decode(z), 0, 1)))
    run.save("reconstructions", vj.plot.sheets(reconstructions, SHOWN, 1, f"E[x|z] at the mean of q(z|x)\n{title}"))
    run.save("draws", vj.plot.sheets(draws, SHOWN, 1, f"E[x|z] of draws from {PRIOR_NAMES[config.prior]}\n{title}"))
    run.save("curves", bits_and_scales(curves, of_pca.mean, title))
    pca = {"test_bits_per_dim": of_pca.mean, "standard_error": of_pca.standard_error}
    return run.report({"label": label, "probabilistic_pca": pca, "models": numbers})


def transform_of(name: str) -> vj.Dequantize | vj.Scale:
    """Dequantised pixels for densities, levels for the mixture, whose probabilities are those of bytes."""
    return vj.Dequantize() if name in GAUSSIAN else vj.Scale()


def model(run: Run, config: Config, name: str) -> vj.VAE:
    """The VAE with the likelihood of this name."""
    return vj.resnet_vae(
        run.data.event_shape,
        config.latent_dim,
        config.width,
        LIKELIHOODS[name],
        blocks=config.blocks,
        norm=config.norm,
        pool=config.pool,
        linear=config.linear,
        prior=PRIORS[config.prior],
    )


def train(
    key: jax.Array,
    eval_key: jax.Array,
    vae: vj.VAE,
    start: dict[str, Any],
    run: Run,
    config: Config,
    name: str,
    bits_of_pca: np.ndarray,
) -> Trained:
    """Train a model from the variables `start`.

    Returns:
      The trained model with its last parameters, which are not averaged. Its history has the ELBO of the test images,
      its gain over probabilistic PCA of the same images, and the scales after each epoch.
    """
    optimizer = adamw_from_pca(config.training.learning_rate, config.training.weight_decay, run.steps)
    transform = transform_of(name)
    vae.require_data(run.data.train, transform)

    def eval_fn(state: vj.TrainState) -> dict[str, float]:
        terms = vj.evaluate(jax.random.clone(eval_key), vae, state.variables, run.data.test, transform=transform)
        bits = vj.bits_per_dim(terms.log_px_z - terms.kl, vae, transform)
        mean, gain = vj.mean_and_stderr(bits), vj.mean_and_stderr(bits_of_pca - bits)
        return {
            "test_bits_per_dim": mean.mean,
            "test_standard_error": mean.standard_error,
            "test_gain": gain.mean,
            "test_gain_standard_error": gain.standard_error,
            "test_kl": vj.mean_and_stderr(terms.kl).mean,
        } | scales(vae, state.variables)

    state, history = vj.fit(
        vj.init(key, vae, optimizer, variables=start),
        vj.make_train_step(vae, vj.ELBO(), optimizer),
        run.data.train,
        transform=vj.Mirrored(transform),
        epochs=run.epochs,
        batch_size=run.batch_size,
        eval_fn=eval_fn,
        store=run.checkpoints(name, model=vae),
        title=NAMES[name],
        **run.fit_arguments,
    )
    return Trained(vae, state.variables, history)


def numbers_of(trained: Trained) -> dict[str, Any]:
    """The numbers of a trained model for the report, and as "curves" those that were taken after each epoch."""
    last = trained.history[-1]
    measured = [key for key in last if key.startswith(("test", "scale"))]
    return {
        "parameters": trained.parameters,
        "minutes": trained.minutes,
        **{key: last[key] for key in measured},
        "curves": {key: [record[key] for record in trained.history] for key in measured},
    }


def scales(vae: vj.VAE, variables: dict[str, Any]) -> dict[str, float]:
    """The standard deviations of a Gaussian likelihood, for pixels from 0 to 1; an empty dict for other likelihoods."""
    if not isinstance(vae.likelihood, vj.LearnedGaussian | vj.OptimalGaussian):
        return {}
    found = np.sqrt(np.atleast_1d(variance(vae, variables))).tolist()
    return dict(zip(("scale",) if len(found) == 1 else ("scale_red", "scale_green", "scale_blue"), found, strict=True))


@jax.jit
def variance(vae: vj.VAE, variables: dict[str, Any]) -> jax.Array:
    """The variance of a Gaussian likelihood, which is the same at all latents."""
    px_z = vae.decode(variables, jnp.zeros((1, vae.latent_dim)))
    return px_z.variance  # type: ignore[attr-defined]


def pca_bits_per_dim(key: jax.Array, pixels: np.ndarray, test: vj.Split, components: int) -> np.ndarray:
    """Bits per dimension of each dequantised test image under probabilistic PCA, [n].

    Args:
      key: Key of the noise of the test images.
      pixels: Dequantised training images, [n, height, width, channels].
      test: Test images.
      components: Number of latent dimensions.
    """
    from sklearn.decomposition import PCA  # imported here, because it takes a second to load

    rows = pixels.reshape(len(pixels), -1)
    count, entries = rows.shape
    pca = PCA(components, svd_solver="covariance_eigh" if count > entries else "full").fit(rows)
    if count <= entries:  # scikit-learn's mean of the other eigenvalues then leaves out those that are 0
        pca.noise_variance_ *= (count - components) / (entries - components)
    log_px = pca.score_samples(vj.transform_all(key, test, transform=vj.Dequantize()).reshape(len(test), -1))
    any_gaussian = vj.mlp_vae(test.event_shape, likelihood=vj.Gaussian())
    return np.asarray(vj.bits_per_dim(log_px, any_gaussian, vj.Dequantize()))


def row(name: str, found: Mapping[str, Any]) -> str:
    """The line of a model in the printed table."""
    scale = ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in found.items() if key.startswith("scale"))
    return (
        f"  {NAMES[name]}: {found['test_bits_per_dim']:.3f} +- {found['test_standard_error']:.3f}, "
        f"{found['test_gain']:.4f} +- {found['test_gain_standard_error']:.4f} below PCA, KL "
        f"{found['test_kl']:.0f} nats{', ' + scale if scale else ''}; {found['minutes']:.1f} min of training"
    )


def bits_and_scales(curves: Mapping[str, Mapping[str, list[float]]], of_pca: float, title: str) -> Figure:
    """Plot the bits per dimension and the scales of the Gaussian models against the epoch."""
    figure = Figure(figsize=(9.2, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, numbers), colour in zip(curves.items(), vj.plot.COLOURS, strict=False):
        epochs = np.arange(1, len(numbers["test_bits_per_dim"]) + 1)
        left.plot(epochs, numbers["test_bits_per_dim"], "-o", markersize=3, color=colour, label=name)
        for key, style in (("scale", "-"), ("scale_red", "-"), ("scale_green", "--"), ("scale_blue", ":")):
            if key in numbers:
                channel = key.removeprefix("scale").replace("_", ", ")
                right.plot(epochs, numbers[key], style, marker="o", markersize=3, color=colour, label=name + channel)
    left.axhline(of_pca, color="black", linewidth=1, linestyle="--", label="probabilistic PCA")
    left.set(xlabel="epoch", ylabel="bits per dimension of test images")
    right.set(xlabel="epoch", ylabel="standard deviation, pixels from 0 to 1")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


if __name__ == "__main__":
    run_script(main, Config)
