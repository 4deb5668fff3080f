"""Options that the scripts share, in groups as `--help` shows them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from vae_jax.errors import InputError
from vae_jax.training import device_mesh


@dataclass(frozen=True)
class DataOptions:
    """The data set, and where it is found."""

    dataset: str = "auto"
    """Name of the data set. With "auto", the script takes the data set it is about if that is available, and otherwise
    a stand-in: scikit-learn's handwritten digits for MNIST, drawn faces for CelebA, and the same faces at 32 x 32
    pixels for CIFAR-10."""
    data_dir: Path | None = None
    """Folder with the data: four IDX files (with or without .gz), CelebA as published (img_align_celeba/ or the zip,
    and list_attr_celeba.txt), CIFAR-10 as published (cifar-10-batches-bin/ or cifar-10-binary.tar.gz), or a data set
    that TFDS has prepared."""
    hold_out: int = 0
    """Number of training images that replace the test split, for choosing settings. With --checkpoint-dir, scripts
    that record the negative ELBO of these images keep the checkpoint with the lowest one in best/."""


@dataclass(frozen=True)
class TrainingOptions:
    """How long and how fast the models are trained."""

    epochs: int | None = None
    """Passes over the training images, unless the script says otherwise. The default is set by the script and is
    written to the report."""
    batch_size: int | None = None
    """Number of images in a training step. The default depends on the script and on the size of the data set."""
    learning_rate: float = 4e-3
    """Peak learning rate of AdamW, after a linear warm-up and before cosine decay to 0."""
    weight_decay: float = 0.0
    """Weight decay of AdamW, for the weight matrices unless the script says otherwise; each step multiplies it by the
    learning rate."""


@dataclass(frozen=True)
class CheckpointOptions:
    """Resumable checkpoints."""

    checkpoint_dir: Path | None = None
    """Folder for the checkpoints of each model. A run that is started again resumes from them."""
    checkpoint_minutes: float = 1.0
    """Least number of minutes between two checkpoints; 0 saves one after each epoch."""
    checkpoints_kept: int = 2
    """Number of checkpoints of each model that are kept."""


@dataclass(frozen=True)
class DeviceOptions:
    """Devices and processes that share the run. Their number does not change the results, up to rounding."""

    devices: int | Literal["all"] = 1
    """Number of devices that share each batch, or "all"."""
    stream_above: float | None = None
    """Size of the training images, in mebibytes, above which they stay on the host and stream to the devices. The
    default is half of the memory of the devices that share them."""
    coordinator: str | None = None
    """HOST:PORT of process 0 if several processes, each started with this command, form one run; "auto" detects the
    cluster (SLURM, Open MPI, Kubernetes, Cloud TPU)."""
    num_processes: int | None = None
    """Total number of processes; requires --coordinator HOST:PORT."""
    process_id: int | None = None
    """Number of this process, from 0; requires --coordinator HOST:PORT. Process 0 writes the files."""

    def mesh(self) -> Mesh | None:
        """The devices of the run; None is one device of one process."""
        if self.devices == 1 and jax.process_count() == 1:
            return None
        return device_mesh(None if self.devices == "all" else self.devices)


@dataclass(frozen=True)
class Options:
    """Options that every script has."""

    seed: int = 0
    """Seed of the initial parameters, the order of the data and all noise."""
    members: int = 1
    """Number of runs with consecutive seeds, from --seed on. Each writes its results to OUT/seed_N, and OUT gets a
    report with their means and standard deviations."""
    out: Path = Path("runs")
    """Folder for the report and the pictures."""
    classifier_seed: int = 0
    """Seed of the classifiers that evaluate generated images or whose features a loss compares. It does not depend on
    --seed, so that the same classifiers serve every run."""
    smoke: bool = False
    """Try the whole script quickly: the first 2,000 training and 500 test images, one epoch, and 50 steps of each
    classifier and fitted prior. The numbers are not meaningful; "smoke" is added to the name of every file."""
    data: DataOptions = DataOptions()
    training: TrainingOptions = TrainingOptions()
    checkpoints: CheckpointOptions = CheckpointOptions()
    devices: DeviceOptions = DeviceOptions()

    def of_seed(self, seed: int) -> "Options":
        """The options of the run with one of several seeds, with separate folders."""
        folder, kept = f"seed_{seed}", self.checkpoints.checkpoint_dir
        checkpoints = dataclasses.replace(self.checkpoints, checkpoint_dir=kept and kept / folder)
        return dataclasses.replace(self, seed=seed, members=1, out=self.out / folder, checkpoints=checkpoints)

    def of_epochs(self, epochs: int) -> "Options":
        """The options with this number of epochs."""
        return dataclasses.replace(self, training=dataclasses.replace(self.training, epochs=epochs))

    def shared_by_processes(self) -> str:
        """The options on which several processes must agree."""
        own = ("data_dir", "out", "checkpoint_dir", "process_id")
        groups = dataclasses.asdict(self)
        flat = {name: value for name, value in groups.items() if not isinstance(value, dict)}
        for group in groups.values():
            flat |= group if isinstance(group, dict) else {}
        return ", ".join(f"{name} {value}" for name, value in flat.items() if name not in own)


def require_different(**lists: Sequence[Any]) -> None:
    """Raise `InputError` unless each list has one value or more, each of them once."""
    for name, values in lists.items():
        if not values or len(set(values)) < len(values):
            raise InputError(f"{name} is {list(values)}; expected one value or more, each once")


def require_unused(options: Options, *names: str, why: str) -> None:
    """Raise `InputError` if a training option that would have no effect was given.

    Args:
      options: Options of the script.
      names: Names of the training options that have no effect.
      why: Reason, for the message.
    """
    usual = type(options)().training
    for name in names:
        if (given := getattr(options.training, name)) != getattr(usual, name):
            raise InputError(f"{name} is {given:g}, but {why}; expected no --{name.replace('_', '-')}")


@dataclass(frozen=True)
class PageOptions(Options):
    """Options of a script that can write its models as a page."""

    page: bool = False
    """Also write OUT/NAME.html, a page in which the latent space is explored; it needs no server and no network."""
