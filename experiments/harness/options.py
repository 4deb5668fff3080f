"""The options that every script has, and what they say of devices and processes."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
from jax.sharding import Mesh

from vae_jax.errors import require_positive_int
from vae_jax.training.sharding import device_mesh


@dataclass(frozen=True)
class Options:
    """Options that every script has."""

    dataset: str = "auto"
    """Data set by name. "auto": the one the experiment is about if it is within reach, else a stand-in: scikit-learn's
    handwritten digits for MNIST, drawn faces for CelebA."""
    data_dir: Path | None = None
    """Folder with the data: four IDX files (with or without .gz), CelebA as it is distributed (img_align_celeba/ or the
    zip, list_attr_celeba.txt), or what TFDS has prepared."""
    epochs: int | None = None
    """Passes over the training images. By default what suits the experiment, and on small data sets 2,000 steps."""
    batch_size: int | None = None
    """Images in a training step. By default what suits the experiment and the size of the data set."""
    learning_rate: float = 4e-3
    """Adam's peak rate, after a warm-up and before the cosine decay to 0."""
    weight_decay: float = 0.0
    """AdamW's decay of the weight matrices, in units of the learning rate."""
    seed: int = 0
    """Seed of the whole run: initial parameters, order of data, noise, draws."""
    out: Path = Path("runs")
    """Folder for the report and the pictures."""
    classifier_seed: int = 0
    """Seed of the classifier that judges what is drawn, apart from the run's, so that runs are judged alike."""
    checkpoint_dir: Path | None = None
    """Folder for checkpoints of each model; a run resumes from its own."""
    checkpoint_minutes: float = 1.0
    """Least time between two checkpoints; 0 keeps one of each epoch."""
    checkpoints_kept: int = 2
    """How many checkpoints of a model are kept, the newest ones."""
    hold_out: int = 0
    """Number of training images that take the place of the test split, for choosing settings. Where a script measures
    the negative ELBO on them after each epoch, the checkpoint with the least is kept apart."""
    members: int = 1
    """Runs of seeds SEED, SEED + 1, ... whose models train as one program. Numbers are then means and standard
    deviations, pictures those of the first, with a band around each curve."""
    devices: int | Literal["all"] = 1
    """Devices that share each batch, or the members. Any number of them gives the same run, up to rounding."""
    stream_above: float | None = None
    """Mebibytes of training images above which they stay on the host and stream to the devices. By default half of a
    device's memory."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes, each started with this command, are one run on all of their
    devices; "auto": ask the cluster (SLURM, Open MPI, Kubernetes, Cloud TPU)."""
    num_processes: int | None = None
    """Of all, with a coordinator."""
    process_id: int | None = None
    """Of this process, from 0, with a coordinator. Process 0 writes the files."""


def mesh_of(options: Options) -> Mesh | None:
    """The devices of the run; several members take as many as can share them."""
    require_positive_int(members=options.members)
    if options.devices == 1 and jax.process_count() == 1:
        return None
    if options.devices != "all":
        return device_mesh(options.devices)
    there = jax.device_count()
    return device_mesh(
        there if options.members == 1 else max(n for n in range(1, there + 1) if options.members % n == 0)
    )


def shared_by_processes(options: Options) -> str:
    """The options on which several processes must agree."""
    own = ("data_dir", "out", "checkpoint_dir", "process_id")
    return ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(options).items() if name not in own)
