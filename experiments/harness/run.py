"""The edge that every script shares: options, the data, the output folder, the report."""

import contextlib
import dataclasses
import io
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import jax
from harness.members import mean_and_deviation, run_members, scalars, together
from harness.options import Options, mesh_of, shared_by_processes
from harness.recipe import Trained, train_vae
from harness.report import save_picture, write_report
from jax.sharding import Mesh
from jaxtyping import Array, Key
from matplotlib.figure import Figure

from vae_jax.checkpoints.description import describe
from vae_jax.checkpoints.store import Checkpoints, NoCheckpoints
from vae_jax.data import Dataset, Split, file_name, load, load_or_stand_in
from vae_jax.data.transforms import Scale, Transform
from vae_jax.distributions.likelihoods import Bernoulli, Likelihood
from vae_jax.errors import (
    CheckpointError,
    InputError,
    NotFiniteError,
    StoppedError,
    require_not_negative,
    require_positive,
    require_positive_int,
    require_writable_folder,
)
from vae_jax.evaluation.classifier import TrainedClassifier, train_classifier
from vae_jax.models import VAE, Variables
from vae_jax.objectives import Objective
from vae_jax.plotting.curves import with_bands
from vae_jax.training.averaging import averaged_variables
from vae_jax.training.ensemble import fit_together
from vae_jax.training.loop import EvalFn, Record
from vae_jax.training.sharding import Layout, is_first_process, require_same, start_processes
from vae_jax.training.step import Step, TrainState

_STORES: list[Checkpoints] = []
"""Those of the script that runs, whose failures `run_script` reports at its end."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a script: its options, its data, and where its results go.

    Attributes:
      name: of the experiment.
      options: as given.
      data: as loaded.
      batch_size: as asked for, or the default that suits the size of the data.
      epochs: likewise.
      mesh: the devices, if there are several.
      started: `time.perf_counter` at the start.
    """

    name: str
    options: Options
    data: Dataset
    batch_size: int
    epochs: int
    mesh: Mesh | None
    started: float

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
        """Check the options, load the data, make the output folder; all that can be refused is refused here.

        Args:
          name: of the experiment.
          options: as given.
          native: the data set that the experiment is about; any other one's name joins every file name.
          epochs: by default; on small data sets as many as make 2,000 steps.
          batch_size: by default; on small data sets a quarter of it.
          small: with fewer training images than that a data set is small.
          stand_in_steps: on any other data set than the native one, epochs that make as many steps, by default.

        Raises:
          InputError: an option or the data can't be used.
        """
        started = time.perf_counter()
        require_positive(learning_rate=options.learning_rate)
        from_zero = ("weight_decay", "checkpoint_minutes", "stream_above")
        require_not_negative(**{name: getattr(options, name) or 0 for name in from_zero})
        if not 0 <= options.seed < 2**32:
            raise InputError(f"seed is {options.seed}; expected a whole number from 0 to 2**32 - 1")
        counts = ("batch_size", "epochs", "checkpoints_kept")
        given = {name: getattr(options, name) for name in counts}
        require_positive_int(**{name: value for name, value in given.items() if value is not None})
        if options.dataset == "auto":
            data, sentence = load_or_stand_in(native, options.data_dir)
            if sentence:
                print(sentence)
        else:
            data = load(options.dataset, options.data_dir)
        if options.hold_out:
            data = data.hold_out(options.hold_out)
        is_small = len(data.train) < small
        batch_size = options.batch_size or min(len(data.train), batch_size // 4 if is_small else batch_size)
        if batch_size > len(data.train):
            raise InputError(f"batch_size is {batch_size} but {data.name} has only {len(data.train)} training images")
        mesh = mesh_of(options)
        Layout(mesh).require_divisible(
            **{"batch_size": batch_size} if options.members == 1 else {"members": options.members}
        )
        require_writable_folder(options.out)
        require_same(options=shared_by_processes(options), data=data.train.digest)
        steps_per_epoch = len(data.train) // batch_size
        if stand_in_steps is not None and data.name != native:
            epochs = -(-stand_in_steps // steps_per_epoch)
        elif is_small:
            epochs = max(epochs, -(-2_000 // steps_per_epoch))
        epochs = options.epochs or epochs
        stem = name if data.name == native else f"{name}_{file_name(data.name)}"
        print(f"{data.name}: {len(data.train):,} training and {len(data.test):,} test images ({data.source})")
        return cls(stem, options, data, batch_size, epochs, mesh, started)

    @property
    def key(self) -> Key[Array, ""]:
        """The root key of the run."""
        return jax.random.key(self.options.seed)

    def train(
        self,
        key: Key[Array, ""],
        vae: VAE,
        objective: Objective,
        *,
        transform: Transform = Scale(),
        augmented: Transform | None = None,
        title: str = "VAE",
    ) -> Trained:
        """Train on this run's data by its options."""
        chooses = self.options.hold_out and self.options.members == 1  # by the test split nothing is chosen
        return train_vae(
            key,
            vae,
            objective,
            self.data,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.options.learning_rate,
            weight_decay=self.options.weight_decay,
            transform=transform,
            augmented=augmented,
            store=self.checkpoints(
                title,
                model=vae,
                variables=averaged_variables,
                best="test_negative_elbo" if chooses else None,
                transform=describe(transform),  # what is measured; `augmented` may be what is trained on
            ),
            title=title,
            fit=self.fit,
        )

    def fit(
        self, state: TrainState, step: Step, data: Split, *, eval_fn: EvalFn | None = None, **settings: Any
    ) -> tuple[TrainState, list[Record]]:
        """`vae_jax.fit` on this run's devices, of all members as one program."""
        above = self.options.stream_above
        settings |= {"mesh": self.mesh, "stream_above": None if above is None else int(above * 2**20)}

        def serve(brought: list[tuple[TrainState, EvalFn | None]]) -> list[tuple[TrainState, list[Record]]]:
            states, eval_fns = zip(*brought, strict=True)
            return fit_together(states, step, data, eval_fns=eval_fns, **settings)

        return together(serve, (state, eval_fn))

    def checkpoints(
        self,
        title: str,
        *,
        model: VAE | None = None,
        variables: Callable[[Any], Variables] = attrgetter("variables"),
        best: str | None = None,
        **config: Any,
    ) -> Checkpoints | NoCheckpoints:
        """The checkpoints of one of this run's models, in a folder of its own under `--checkpoint-dir`.

        Args:
          title: of the model.
          model: if `restore_model` shall make it again.
          variables: those of a state with which it is used.
          best: the number of a record of which the least is kept apart.
          **config: options that decide how the model is trained or measured, beyond those that all scripts share, as
            JSON can hold them. `fit` itself compares data, batch size, model, objective and optimizer.
        """
        if self.options.checkpoint_dir is None or not is_first_process():
            return NoCheckpoints()
        options = ("learning_rate", "weight_decay", "seed", "members")
        of_run = {
            "experiment": self.name,
            "epochs": self.epochs,
            **{name: getattr(self.options, name) for name in options},
        }
        store = Checkpoints(
            self.options.checkpoint_dir / file_name(title),
            of_run | config,
            model=model,
            variables=variables,
            every_seconds=60 * self.options.checkpoint_minutes,
            keep=self.options.checkpoints_kept,
            best=best,
        )
        _STORES.append(store)
        return store

    def classifier(self) -> tuple[TrainedClassifier, float]:
        """A classifier trained on this run's data, and its accuracy on the test images, which is printed."""

        def serve(brought: list[None]) -> list[tuple[TrainedClassifier, float]]:
            key = jax.random.fold_in(jax.random.key(self.options.classifier_seed), 1)  # no stream of the run's own
            classifier = train_classifier(key, self.data.train)
            accuracy = classifier.on(self.data.test).accuracy(self.data.test.labels)
            seed, name = self.options.classifier_seed, self.data.name
            print(f"classifier of seed {seed}: {accuracy:.2%} of {name}'s test images right")
            return [(classifier, accuracy)] * len(brought)

        return together(serve, None)

    @property
    def where(self) -> str:
        """Data and seed."""
        return f"{self.data.name}, seed {self.options.seed}"

    def label(self, likelihood: Likelihood = Bernoulli(), transform: Transform = Scale()) -> str:
        """What this run's numbers are: data, pixels, what is measured and in which unit, noise, seed."""
        return (
            f"{self.data.name}, {transform.label} {likelihood.label(transform.support)} in nats per image, "
            f"one sampled z each, seed {self.options.seed}"
        )

    def save(self, part: str, figure: Figure) -> None:
        """Write OUT/NAME_part.png; of several members, the first one's, with bands around its curves."""

        def serve(figures: list[Figure]) -> list[None]:
            if is_first_process():
                save_picture(self.options.out / f"{self.name}_{part}.png", with_bands(figures))
            return [None] * len(figures)

        together(serve, figure)

    def report(self, numbers: Mapping[str, Any]) -> None:
        """Write OUT/NAME.json: what was run, on what, and `numbers`; of several members, also their means."""

        def serve(brought: list[Mapping[str, Any]]) -> list[None]:
            if len(brought) == 1:
                self._write(brought[0])
            else:
                summary = mean_and_deviation(brought)
                print(f"mean and standard deviation of {len(brought)} seeds from {self.options.seed}:")
                for name, mean, deviation in scalars(summary):
                    print(f"  {name}: {mean:.4g} +- {deviation:.2g}")
                self._write(summary | {"of_members": brought})
            return [None] * len(brought)

        together(serve, numbers)

    def _write(self, numbers: Mapping[str, Any]) -> None:
        if not is_first_process():
            return
        content = {
            "experiment": self.name,
            "dataset": self.data.name,
            "seed": self.options.seed,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "seconds": time.perf_counter() - self.started,
            **numbers,
            "data": {
                "source": self.data.source,
                "train_images": len(self.data.train),
                "test_images": len(self.data.test),
                "sha256": {"train": self.data.train.digest, "test": self.data.test.digest},
            },
        }
        path = self.options.out / f"{self.name}.json"
        write_report(path, content, self.options)
        print(f"{path.parent}/{self.name}*: the report and the pictures, after {content['seconds']:.0f} s")


Config = TypeVar("Config")


def run_script(main: Callable[[Config], None], config: type[Config]) -> None:
    """Parse the command line into `config` and run `main`; an error of ours is one line.

    The exit status is 2 for an `InputError`, 1 for what ends a run that has begun or for a last state that could not be
    saved, 128 and the signal's number where a signal has ended it.
    """
    import tyro  # imported here: notebooks and the library itself do without

    given = tyro.cli(config, description=sys.modules[main.__module__].__doc__)
    _STORES.clear()
    try:
        if not isinstance(given, Options):
            main(given)
        else:
            _run_together(main, given)
        if failures := [store.failure for store in _STORES if store.failure is not None]:
            raise CheckpointError("; ".join(failures))
    except (InputError, NotFiniteError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, InputError) else 1) from error
    except StoppedError as stop:
        print(str(stop), file=sys.stderr)
        raise SystemExit(128 + stop.signal) from stop


def _run_together(main: Callable[[Any], None], options: Options) -> None:
    """Each member with its seed; of several processes, the first one speaks."""
    if options.coordinator is not None:
        address = None if options.coordinator == "auto" else options.coordinator
        start_processes(address, options.num_processes, options.process_id)
    require_positive_int(members=options.members)
    with contextlib.ExitStack() as stack:
        if not is_first_process():
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        seeds = range(options.seed, options.seed + options.members)
        run_members(lambda number: main(dataclasses.replace(options, seed=seeds[number])), options.members)
