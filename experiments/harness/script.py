"""The command line of a script: its options, its errors as sentences, and several seeds."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import vae_jax as vj
from harness.options import Options
from harness.report import Report, write_report
from harness.seeds import mean_and_deviation, scalars
from vae_jax.errors import require_positive_int
from vae_jax.training.sharding import is_first_process, start_processes

Config = TypeVar("Config")


def run_script(main: Callable[[Config], Any], config: type[Config]) -> None:
    """Parse the command line into `config` and run `main`; errors of the library are printed as one line.

    The exit status is 2 after an `InputError`, 1 after a `NotFiniteError` or a `CheckpointError`, and 128 plus the
    number of the signal after a signal.
    """
    import tyro  # imported here, because notebooks and the library do not need it

    given = tyro.cli(config, description=sys.modules[main.__module__].__doc__, config=(tyro.conf.OmitArgPrefixes,))
    try:
        if isinstance(given, Options):
            run_seeds(main, given)
        else:
            main(given)
    except (vj.InputError, vj.NotFiniteError, vj.CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, vj.InputError) else 1) from error
    except vj.StoppedError as stop:
        print(str(stop), file=sys.stderr)
        raise SystemExit(128 + stop.signal) from stop


def run_seeds(main: Callable[[Any], Any], options: Options) -> None:
    """Run `main` with each seed, and report means and standard deviations if there are several seeds.

    All seeds train for the number of epochs of the first one, which may depend on the time of a step. If there are
    several processes, only the first one prints. Programs on a GPU are deterministic unless XLA_FLAGS says otherwise.

    Raises:
      InputError: The number of members or the options of several processes cannot be used.
      CheckpointError: The last state of a model could not be saved. All seeds have been run, and all reports written.
    """
    require_positive_int(members=options.members)
    flags = os.environ.get("XLA_FLAGS", "")  # read when JAX first uses a device
    if "--xla_gpu_deterministic_ops" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true"
    devices = options.devices
    if devices.coordinator is None and (devices.num_processes, devices.process_id) != (None, None):
        raise vj.InputError(
            f"num_processes is {devices.num_processes} and process_id is {devices.process_id}, but there is no "
            "coordinator; expected all three: add --coordinator HOST:PORT"
        )
    if devices.coordinator is not None:
        address = None if devices.coordinator == "auto" else devices.coordinator
        start_processes(address, devices.num_processes, devices.process_id)
    with contextlib.ExitStack() as stack:
        if not is_first_process():
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        reports = [main(options)] if options.members == 1 else run_members(main, options)
    if failures := [failure for report in reports for failure in report.failures]:
        raise vj.CheckpointError("; ".join(failures))


def run_members(main: Callable[[Any], Report], options: Options) -> list[Report]:
    """Run `main` with each of several seeds, and report means and standard deviations."""
    started = time.perf_counter()
    seeds = range(options.seed, options.seed + options.members)
    reports: list[Report] = []
    for seed in seeds:
        of_seed = options.of_seed(seed)
        reports.append(main(of_seed.of_epochs(reports[0].shared["epochs"]) if reports else of_seed))
    summarise(reports, seeds, options, time.perf_counter() - started)
    return reports


def summarise(reports: list[Report], seeds: range, options: Options, seconds: float) -> None:
    """Print the mean and the standard deviation of each number, and write them to OUT/NAME.json."""
    summary = mean_and_deviation([report.numbers for report in reports])
    print(f"mean and standard deviation of {len(seeds)} seeds from {seeds[0]}:")
    for name, mean, deviation in scalars(summary):
        print(f"  {name}: {mean:.4g} +- {deviation:.2g}")
    if is_first_process():
        content = reports[0].shared | {"seeds": list(seeds), "seconds": seconds} | summary
        content["of_members"] = [report.numbers for report in reports]
        write_report(options.out / f"{reports[0].name}.json", content, options)
