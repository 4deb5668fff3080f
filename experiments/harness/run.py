"""A run of a script: options, data, trained models, and the folder with the results."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key, PyTree
from matplotlib.figure import Figure

import vae_jax as vj
from harness.options import Options
from harness.recipe import Trained, averaged_adamw, elbo_numbers
from harness.report import Report, save_picture, write_report
from vae_jax.checkpoints import describe
from vae_jax.data import Dataset, Transform, file_name, load_or_stand_in
from vae_jax.errors import (
    require_not_negative,
    require_positive,
    require_positive_int,
    require_writable_folder,
)
from vae_jax.evaluation import train_classifier
from vae_jax.models import Variables
from vae_jax.objectives import Objective
from vae_jax.training import Record, TrainState
from vae_jax.training.sharding import Layout, from_first_process, is_first_process, require_same

NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "celeba": "CelebA"}  # of data sets in titles


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a script.

    Attributes:
      name: Name of the experiment, followed by the name of the data set if it is not the native one.
      options: Options of the run.
      data: Data set.
      is_native: Whether the data are the data set that the script is about, or a part of it.
      batch_size: Batch size from the options, or the default for the size of the data.
      epochs: Number of epochs from the options, or the default for the size of the data.
      mesh: Devices of the run, or None if there is only one.
      started: Value of `time.perf_counter` at the start.
      stores: Checkpoint stores of the models.
    """

    name: str
    options: Options
    data: Dataset
    is_native: bool
    batch_size: int
    epochs: int
    mesh: Mesh | None
    started: float
    stores: list[vj.Checkpoints] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        name: str,
        options: Options,
        *,
        native: str = "mnist",
        epochs: int = 45,
        batch_size: int = 256,
        small: int = 10_000,
        stand_in_steps: int | None = None,
    ) -> "Run":
        """Check the options, load the data and create the output folder, so that errors occur before any training.

        Args:
          name: Name of the experiment.
          options: Options of the run.
          native: Native data set of the experiment. The name of any other data set is added to every file name.
          epochs: Default number of epochs. Small data sets get more if needed for 2,000 steps.
          batch_size: Default batch size. Small data sets get a quarter of it.
          small: Number of training images below which a data set counts as small.
          stand_in_steps: Number of steps that sets the default number of epochs on data sets other than `native`.

        Returns:
          The run.

        Raises:
          InputError: An option or the data cannot be used.
        """
        started = time.perf_counter()
        _require_usable(options)
        training = options.training
        data, is_native = _load(options, native)
        if options.smoke:
            epochs, small, stand_in_steps = 1, 0, None
        is_small = len(data.train) < small
        batch_size = training.batch_size or min(len(data.train), batch_size // 4 if is_small else batch_size)
        if batch_size > len(data.train):
            raise vj.InputError(
                f"batch_size is {batch_size} but {data.name} has only {len(data.train)} training images"
            )
        mesh = options.devices.mesh()
        Layout(mesh).require_divisible(batch_size=batch_size)
        require_writable_folder(options.out)
        require_same(options=options.shared_by_processes(), data=data.train.digest)
        steps_per_epoch = len(data.train) // batch_size
        if stand_in_steps is not None and not is_native:
            epochs = -(-stand_in_steps // steps_per_epoch)
        elif is_small:
            epochs = max(epochs, -(-2_000 // steps_per_epoch))
        stem = name if data.name == native else f"{name}_{file_name(data.name)}"
        print(f"{data.name}: {len(data.train):,} training and {len(data.test):,} test images ({data.source})")
        return cls(stem, options, data, is_native, batch_size, training.epochs or epochs, mesh, started)

    @property
    def key(self) -> Key[Array, ""]:
        """The root key of the run."""
        return jax.random.key(self.options.seed)

    @property
    def steps(self) -> int:
        """Total number of training steps of a model."""
        return self.epochs * (len(self.data.train) // self.batch_size)

    @property
    def fit_arguments(self) -> dict[str, Any]:
        """The arguments of `vj.fit` that select the devices, and whether the images are streamed to them."""
        above = self.options.devices.stream_above
        return {"mesh": self.mesh, "stream_above": None if above is None else int(above * 2**20)}

    def train(
        self,
        key: Key[Array, ""],
        model: vj.VAE | vj.LadderVAE,
        objective: Objective,
        *,
        transform: Transform = vj.Scale(),
        train_transform: Transform | None = None,
        variables: Variables | None = None,
        optimizer: Any = None,
        frozen: PyTree = None,
        title: str = "VAE",
    ) -> Trained:
        """Train a model, and record the ELBO of the test split after each epoch.

        The recorded numbers serve for plots only. They do not influence any setting.

        Args:
          key: Key of the initial parameters, the order of the data and all noise.
          model: Model to train.
          objective: Objective to minimise.
          transform: Transform of the images.
          train_transform: Transform of the images in training, if it differs, for example by random mirroring.
          variables: Initial variables of the model; by default they are drawn.
          optimizer: Optimizer with averaged parameters; by default `averaged_adamw`.
          frozen: Arrays that are used and not trained (see `vj.TrainState`).
          title: Title of the progress bar, also used as the name of the checkpoint folder.

        Returns:
          The trained model.

        Raises:
          InputError: The images have values outside the support of the likelihood.
        """
        train_transform = train_transform or transform
        init_key, eval_key = jax.random.split(key)
        for each in (transform, train_transform):
            model.require_data(self.data.train, each)
        training = self.options.training
        optimizer = optimizer or averaged_adamw(training.learning_rate, training.weight_decay, self.steps)

        def eval_fn(state: TrainState) -> Record:
            return elbo_numbers(eval_key, model, vj.averaged_variables(state), self.data.test, transform, "test")

        state, history = vj.fit(
            vj.init(init_key, model, optimizer, objective=objective, variables=variables, frozen=frozen),
            vj.make_train_step(model, objective, optimizer),
            self.data.train,
            transform=train_transform,
            epochs=self.epochs,
            batch_size=self.batch_size,
            eval_fn=eval_fn,
            store=self.checkpoints(
                title,
                model=model,
                variables=vj.averaged_variables,
                best="test_negative_elbo" if self.options.data.hold_out else None,
                transform=describe(transform),  # used by `eval_fn`; `fit` compares the transform of training
            ),
            title=title,
            **self.fit_arguments,
        )
        return Trained(model, vj.averaged_variables(state), history)

    def checkpoints(
        self,
        title: str,
        *,
        model: vj.VAE | vj.LadderVAE | None = None,
        variables: Callable[[Any], Variables] = attrgetter("variables"),
        best: str | None = None,
        **config: Any,
    ) -> vj.Checkpoints | vj.NoCheckpoints:
        """The checkpoint store of one model, in a separate folder under `--checkpoint-dir`.

        Args:
          title: Title of the model.
          model: Model that `vj.restore_model` can restore, or None.
          variables: Function from a training state to the variables of the model.
          best: Name of a number in the records; the checkpoint with its lowest value is saved as well.
          **config: JSON-serialisable settings of training or evaluation, other than the common options. The data,
            batch size, model, objective and optimizer are not needed, because `fit` compares them.

        Returns:
          The store, or `NoCheckpoints` if there is no checkpoint folder or this is not the first process.
        """
        options = self.options.checkpoints
        if options.checkpoint_dir is None or not is_first_process():
            return vj.NoCheckpoints()
        training = self.options.training
        of_run = {
            "experiment": self.name,
            "epochs": self.epochs,
            "learning_rate": training.learning_rate,
            "weight_decay": training.weight_decay,
            "seed": self.options.seed,
        }
        store = vj.Checkpoints(
            options.checkpoint_dir / file_name(title),
            of_run | config,
            model=model,
            variables=variables,
            every_seconds=60 * options.checkpoint_minutes,
            keep=options.checkpoints_kept,
            best=best,
        )
        self.stores.append(store)
        return store

    def kept(
        self, title: str, init: Callable[..., Variables], train: Callable[[], Variables], **config: Any
    ) -> Variables:
        """The variables that `train` returns, or those that an earlier start of this run has saved.

        They are saved when the training ends, in a separate folder under `--checkpoint-dir`.

        Args:
          title: Title of what is trained, also used as the name of the folder.
          init: Function from a key to variables of the same shapes and types.
          train: Function that trains.
          **config: JSON-serialisable settings of the training. Variables of other settings are refused.

        Raises:
          InputError: The folder has variables of other settings, or another run has it open.
        """
        store = self.checkpoints(title, **config)
        shapes = jax.eval_shape(init, jax.random.key(0))
        zeros = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)), shapes)
        with closing(store):
            variables, is_there = _stored(store, zeros)
            if not is_there:
                variables = train()
                store.save(1, variables, {"trained": True}, last=True)
        return variables

    def steps_or_smoke(self, default: int) -> int:
        """Number of training steps of a classifier or of a fitted prior: `default`, or 50 with `--smoke`."""
        return 50 if self.options.smoke else default

    def classifier_key(self, number: int) -> Key[Array, ""]:
        """The key of the classifier of this number, by `--classifier-seed`: the same for every `--seed`."""
        return jax.random.fold_in(jax.random.key(self.options.classifier_seed), number)

    def classifier(self) -> tuple[vj.TrainedClassifier, float]:
        """Train a classifier on the data of this run; also return its accuracy on the test images."""
        classifier = train_classifier(self.classifier_key(1), self.data.train, steps=self.steps_or_smoke(2_000))
        accuracy = classifier.on(self.data.test).accuracy(self.data.test.labels)
        seed = self.options.classifier_seed
        print(f"classifier of seed {seed}: {accuracy:.2%} of {self.data.name}'s test images right")
        return classifier, accuracy

    @property
    def data_and_seed(self) -> str:
        """The name of the data set and the seed, as text."""
        return f"{NAMES.get(self.data.name, self.data.name)}, seed {self.options.seed}"

    def label(self, likelihood: vj.Likelihood = vj.Bernoulli(), transform: Transform = vj.Scale()) -> str:
        """A description of the numbers of this run: data, pixels, quantity, unit, noise and seed."""
        return (
            f"{NAMES.get(self.data.name, self.data.name)}, {transform.label} "
            f"{likelihood.label(transform.support)} in nats per image, "
            f"one sampled z each, seed {self.options.seed}"
        )

    def save(self, part: str, figure: Figure) -> None:
        """Write the figure to OUT/NAME_part.png, or .jpg if it has photographs."""
        if is_first_process():
            save_picture(self.options.out / f"{self.name}_{part}", figure)

    def page(self, models: Mapping[str, Trained], report: Report, caption: str, **shown: Any) -> None:
        """Write OUT/NAME.html, in which the latent spaces of models are explored (see `vj.export_page`).

        Args:
          models: Models by name.
          report: Report of this run, which has been written.
          caption: Sentence on the numbers.
          **shown: Other arguments of `vj.export_page`, such as attribute vectors.
        """
        if not is_first_process():
            return
        path = self.options.out / f"{self.name}.html"
        started = time.perf_counter()
        vj.export_page(
            path,
            {name: trained.model for name, trained in models.items()},
            {name: jax.device_get(trained.variables) for name, trained in models.items()},  # of this process alone
            self.data.test,
            title=f"{report.name}: the latent space, {self.data_and_seed}",
            caption=f"Training images: {len(self.data.train):,}, epochs: {self.epochs}. {caption}",
            numbers=json.loads(path.with_suffix(".json").read_text()),
            **shown,
        )
        seconds = time.perf_counter() - started
        print(f"{path}: page of {path.stat().st_size / 1e6:.1f} MB, written in {seconds:.1f} s; open it in a browser")

    def report(self, numbers: Mapping[str, Any]) -> Report:
        """Write the options, the data and `numbers` to OUT/NAME.json.

        Returns:
          The report, which is the return value of a script. `run_seeds` raises an error if it has failures.
        """
        seconds = time.perf_counter() - self.started
        shared = {
            "experiment": self.name,
            "dataset": self.data.name,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "data": {
                "source": self.data.source,
                "train_images": len(self.data.train),
                "test_images": len(self.data.test),
                "sha256": {"train": self.data.train.digest, "test": self.data.test.digest},
            },
        }
        failures = tuple(store.failure for store in self.stores if store.failure is not None)
        report = Report(self.name, shared, dict(numbers), failures)
        if is_first_process():
            path = self.options.out / f"{self.name}.json"
            write_report(path, shared | {"seed": self.options.seed, "seconds": seconds} | report.numbers, self.options)
            print(f"{path.parent}/{self.name}*: report and pictures, after {seconds:.0f} s")
        return report


def _stored(store: vj.Checkpoints | vj.NoCheckpoints, variables: Variables) -> tuple[Variables, bool]:
    """The variables in the store of the first process, which opens it, and whether there are any; in every process."""
    found: dict[str, Any] = {"is_there": False, "error": None}
    if is_first_process():
        try:
            store.open()
            variables, notes = store.restore(variables)
            found["is_there"] = bool(notes)
        except vj.InputError as error:
            found["error"] = str(error)
    variables, text = from_first_process(variables, json.dumps(found))
    found = json.loads(text)
    if found["error"] is not None:
        raise vj.InputError(found["error"])
    return variables, found["is_there"]


def _require_usable(options: Options) -> None:
    """Raise `InputError` unless the options can be used with some data."""
    training, checkpoints = options.training, options.checkpoints
    require_positive(learning_rate=training.learning_rate)
    require_not_negative(
        weight_decay=training.weight_decay,
        checkpoint_minutes=checkpoints.checkpoint_minutes,
        stream_above=options.devices.stream_above or 0,
    )
    if not 0 <= options.seed < 2**32:
        raise vj.InputError(f"seed is {options.seed}; expected a whole number from 0 to 2**32 - 1")
    counts = {"batch_size": training.batch_size, "epochs": training.epochs}
    require_positive_int(**{name: value for name, value in counts.items() if value is not None})
    require_positive_int(checkpoints_kept=checkpoints.checkpoints_kept)


def _load(options: Options, native: str) -> tuple[Dataset, bool]:
    """Load the data set that the options select; also return whether it is the native one or a part of it."""
    if options.data.dataset == "auto":
        data, sentence = load_or_stand_in(native, options.data.data_dir)
        if sentence:
            print(sentence)
    else:
        data = vj.load(options.data.dataset, options.data.data_dir)
    is_native = data.name == native
    if options.data.hold_out:
        data = data.hold_out(options.data.hold_out)
    if options.smoke:
        data = replace(data, name=f"{data.name}_smoke", train=data.train[:2_000], test=data.test[:500])
    return data, is_native
