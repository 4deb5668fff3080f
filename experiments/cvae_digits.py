"""A conditional VAE draws the digit that is asked for; what is left to its latent is the style.

The label, one-hot, enters encoder and decoder. A classifier trained apart says how often the digit drawn is the one
asked for, and the encodings say how much of the label the latent still holds, against the same VAE without labels.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax as vj
from vae_jax.errors import require_positive_int
from vae_jax.evaluate import require_labels
from vae_jax.experiment import Options, Run, run_script
from vae_jax.figures import clouds_figure, images_figure
from vae_jax.latents import class_separation, nearest_mean_accuracy

DRAWS = 10_000  # for the agreement
COLUMNS = 12  # draws shown of each digit


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    classes: int = 10
    """Number of classes; every label must be below it."""
    latent_dim: int = 2
    """Number of latent dimensions."""
    out: Path = Path("runs/cvae_digits")
    """Folder for the report and the pictures."""


def main(config: Config) -> None:
    """Train with and without labels, draw what is asked for, judge it, report."""
    require_positive_int(classes=config.classes, latent_dim=config.latent_dim)
    run = Run.start("cvae_digits", config, epochs=20)
    for split in (run.data.train, run.data.test):
        require_labels(split, config.classes)
    judge, accuracy = run.judge()
    with_key, without_key, grid_key, draw_key, encode_key = jax.random.split(run.key, 5)
    models = {
        "unconditional": run.train(
            without_key, vj.mlp_vae(run.data.image_shape, config.latent_dim), vj.ELBO(), title="VAE"
        ),
        "conditional": run.train(
            with_key,
            vj.mlp_vae(run.data.image_shape, config.latent_dim, classes=config.classes),
            vj.ELBO(),
            title="conditional VAE",
        ),
    }
    conditional = models["conditional"]

    asked = np.arange(DRAWS) % config.classes
    z = jax.random.normal(draw_key, (DRAWS, config.latent_dim))
    drawn = vj.decode_all(conditional.vae, conditional.variables, z, asked)
    latents = {}
    for name, model in models.items():
        train, test = (
            np.asarray(vj.encode_all(encode_key, model.vae, model.variables, split).mean)
            for split in (run.data.train, run.data.test)
        )
        labels = run.data.train.labels, run.data.test.labels
        latents[name] = (
            test,
            {
                "nearest_mean_accuracy": nearest_mean_accuracy(train, labels[0], test, labels[1]),
                "class_separation": class_separation(test, labels[1]),
            },
        )
    numbers = {
        "label_agreement": judge(drawn).agreement(asked),
        "test_negative_elbo": conditional.history[-1]["test_negative_elbo"],
        "unconditional_test_negative_elbo": models["unconditional"].history[-1]["test_negative_elbo"],
        **{f"{name}_latent": measured for name, (_, measured) in latents.items()},
    }

    digits = np.repeat(np.arange(config.classes), COLUMNS)
    each = jax.random.normal(grid_key, (len(digits), config.latent_dim))
    same = jnp.tile(each[:COLUMNS], (config.classes, 1))
    for part, grid, text in (
        ("draws", each, "A row for each digit asked for, a new latent for each image"),
        ("styles", same, "A row for each digit asked for, one latent down each column"),
    ):
        images = vj.decode_all(conditional.vae, conditional.variables, grid, digits)
        run.save(part, images_figure(images, COLUMNS, f"{text}\nE[x|z, label], {run.where}"))
    clouds = {
        f"{title}: nearest class mean right for {latents[name][1]['nearest_mean_accuracy']:.0%}": latents[name][0]
        for name, title in (("unconditional", "VAE"), ("conditional", "Conditional VAE"))
    }
    if config.latent_dim >= 2:
        text = f"Encodings of the test images, {run.where}"
        run.save("latents", clouds_figure(clouds, run.data.test.labels, text))
    print(f"{run.label()}:")
    print("\n".join(f"{name}: {value}" for name, value in numbers.items()))
    run.report({"label": run.label(), "judge_accuracy": accuracy, "draws": DRAWS, **numbers})


if __name__ == "__main__":
    run_script(main, Config)
