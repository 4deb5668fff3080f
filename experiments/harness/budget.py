"""The number of epochs that a number of minutes allows."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vae_jax as vj
from harness.recipe import averaged_adamw
from harness.run import Run
from vae_jax.checkpoints import describe
from vae_jax.checkpoints.differences import difference
from vae_jax.data import Transform

TIMED_STEPS = 40


def number_of_epochs(run: Run, model: vj.LadderVAE, transform: Transform, minutes: float | None) -> int:
    """The epochs of `--epochs`, or those that the minutes allow, or the default of the data set without minutes.

    With checkpoints, the number is that of the first start, so that a resumed run keeps its schedule.

    Args:
      run: The run.
      model: Model to train.
      transform: Transform of the images in training.
      minutes: Minutes of training, or None.

    Raises:
      InputError: The checkpoints are those of another number of minutes, or of steps that take another time, or there
        are several processes, each of which would measure another time.
    """
    options = run.options
    if options.training.epochs is not None or options.smoke or minutes is None:
        return run.epochs
    if options.devices.coordinator is not None:
        raise vj.InputError(
            "several processes would time themselves and train for different numbers of epochs; expected --epochs"
        )
    kept = options.checkpoints.checkpoint_dir
    if kept is None:
        return epochs_within(minutes, run, model, transform)
    file = kept / "budget.json"
    timed = of_a_step(run, model, transform)
    if not file.exists():
        write(file, {"minutes": minutes, "epochs": epochs_within(minutes, run, model, transform), "timed": timed})
    budget = json.loads(file.read_text())
    if budget["minutes"] != minutes:
        raise vj.InputError(
            f"minutes is {minutes:g}, but {kept} has a run of {budget['minutes']:g} minutes, whose schedule is longer "
            "or shorter; expected the same number, or another --checkpoint-dir"
        )
    if found := difference("", budget.get("timed", {}), timed):
        raise vj.InputError(
            f"{kept} has the number of epochs of another run, whose steps take another time ({found}); expected the "
            "same options, or another --checkpoint-dir"
        )
    return int(budget["epochs"])


def of_a_step(run: Run, model: vj.LadderVAE, transform: Transform) -> dict[str, Any]:
    """What determines the time of a step and the number of steps in an epoch, on a given machine."""
    return {
        "experiment": run.name,
        "batch_size": run.batch_size,
        "data": run.data.train.digest,
        "model": describe(model),
        "transform": describe(transform),
    }


def write(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, which a kill leaves either absent or whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, file)


def epochs_within(minutes: float, run: Run, model: vj.LadderVAE, transform: Transform) -> int:
    """The number of epochs, from the time of a few steps; one at least."""
    optimizer = averaged_adamw(run.options.training.learning_rate, run.options.training.weight_decay, run.steps)
    _, history = vj.fit(
        vj.init(jax.random.key(0), model, optimizer),
        vj.make_train_step(model, vj.ELBO(), optimizer),
        run.data.train[: TIMED_STEPS * run.batch_size],
        transform=transform,
        epochs=4,
        batch_size=run.batch_size,
        progress=False,
        **run.fit_arguments,
    )
    steps = min(TIMED_STEPS, len(run.data.train) // run.batch_size)
    seconds = float(np.median([record["seconds"] for record in history[1:]])) / steps
    epochs = max(1, int(60 * minutes / seconds / (len(run.data.train) // run.batch_size)))
    print(f"{1e3 * seconds:.1f} ms a step: {epochs} epochs in {minutes:g} minutes")
    return epochs
