"""Callbacks of `fit`: functions of the record of each epoch, and early stopping."""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import jax
import numpy as np

from vae_jax.errors import InputError, named, require_not_negative, require_positive_int

Record = dict[str, Any]
"""Numbers by name; lists of numbers for several members."""

Callback = Callable[[Record], Any]
"""Function of the record of an epoch; True as its result stops the run."""


class EarlyStopping:
    """Callback of `fit` that stops a run when a number of its records no longer decreases.

    The run stops after `patience` consecutive records without a value below the lowest one so far minus `min_delta`.
    Records without the number, of epochs that `fit(eval_every=)` does not evaluate, do not count. NaN is no decrease.

    `fit` resets the object when it starts. If it resumes from a store, it passes the stored records first. A resumed
    run thus stops at the same epoch as an uninterrupted one, and a run that was stopped trains no further unless
    `patience` or `min_delta` has changed. If a run is extended, the evaluation after its former last epoch counts too,
    whatever `eval_every` is. The final state is the last one, not the best: keep that with
    `Checkpoints(..., best="validation_negative_elbo")`.

        state, history = vj.fit(..., eval_fn=eval_fn, callback=vj.EarlyStopping("validation_negative_elbo", patience=5))

    Any other function of the record is a callback too. A CSV file:

        writer = csv.DictWriter(file, ["epoch", "seconds", "loss", "kl", "log_px_z"], extrasaction="ignore")
        writer.writeheader()
        callback = writer.writerow

    TensorBoard, by tensorboardX:

        writer = tensorboardX.SummaryWriter("runs/mine")
        def callback(record):
            [writer.add_scalar(name, value, record["epoch"]) for name, value in record.items()]

    TensorBoard, by CLU:

        writer = clu.metric_writers.SummaryWriter("runs/mine")
        def callback(record):
            writer.write_scalars(record["epoch"], record)

    Weights & Biases:

        run = wandb.init(project="vae")
        def callback(record):
            run.log(record, step=record["epoch"])

    Args:
      monitor: Name of a number in the records, such as one that `eval_fn` returns.
      patience: Number of records without a decrease after which the run stops.
      min_delta: Least decrease that counts, in the unit of the number.

    Raises:
      InputError: `patience` is not a whole number of at least 1, or `min_delta` is negative or no number.
    """

    def __init__(self, monitor: Any, patience: int = 5, min_delta: float = 0.0) -> None:
        if not isinstance(monitor, str):
            raise InputError(f"monitor is {monitor!r}; expected the name of a number in the records")
        require_positive_int(patience=patience)
        require_not_negative(min_delta=min_delta)
        if np.ndim(min_delta):
            raise InputError(f"min_delta is {named(min_delta)}; expected one number")
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.reset()

    def reset(self) -> None:
        """Forget the records that were passed."""
        self._least, self._waited = math.inf, 0

    def __call__(self, record: Record) -> bool:
        """Whether to stop after this record.

        Raises:
          InputError: The number is a list, of several members, or not a number.
        """
        value = record.get(self.monitor)
        if value is None:
            return self._waited >= self.patience
        if not isinstance(value, Real):
            raise InputError(f"monitor is {self.monitor!r}, which is {value!r} in the record; expected one number")
        if value < self._least - self.min_delta:
            self._least, self._waited = float(value), 0
        else:
            self._waited += 1
        return self._waited >= self.patience


class Callbacks:
    """The callbacks of a run.

    Args:
      callback: As `fit` takes it.
      members: Number of members of the state, or None for a single model.

    Raises:
      InputError: An entry can't be called, or stops by a number although there are several members.
    """

    def __init__(self, callback: Any, members: int | None) -> None:
        several = isinstance(callback, Sequence) and not isinstance(callback, str)
        self._all = tuple(callback) if several else () if callback is None else (callback,)
        for each in self._all:
            if not callable(each) or isinstance(each, type):
                raise InputError(f"callback is {each!r}; expected a function of the record, or a sequence of such")
        if members is not None and self._stopping:
            raise InputError(
                f"EarlyStopping takes one number an epoch, but the state has {members} members, whose records are "
                "lists; train one model, or give a function that decides from the lists"
            )

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def _stopping(self) -> list[EarlyStopping]:
        return [each for each in self._all if isinstance(each, EarlyStopping)]

    def resume(self, records: Sequence[Record]) -> bool:
        """Reset early stopping and pass it the records of a resumed run; whether the run had stopped."""
        stops = False
        for stopping in self._stopping:
            stopping.reset()
            stops |= any([stopping(record) for record in records][-1:])
        return stops

    def require_monitored(self, record: Record) -> None:
        """Raise `InputError` unless the record of an evaluated epoch has the numbers of early stopping."""
        for stopping in self._stopping:
            if stopping.monitor not in record:
                names = ", ".join(name for name, value in record.items() if isinstance(value, Real))
                raise InputError(f"monitor is {stopping.monitor!r}, which no record has; choose one of {names}")

    def __call__(self, record: Record) -> bool:
        """Call all with copies of a record; whether one of them stops the run."""
        found = [each(dict(record)) for each in self._all]
        return any(_is_true(result) for result in found)


def _is_true(result: Any) -> bool:
    """Whether the result of a callback is True of Python, NumPy or JAX; other results, such as 1, do not stop a run."""
    is_one = isinstance(result, bool | np.bool_ | np.ndarray | jax.Array) and np.ndim(result) == 0
    return is_one and np.asarray(result).dtype.kind == "b" and bool(result)
