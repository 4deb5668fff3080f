"""Peers of the benchmarks: scripts in PyTorch that run with another Python interpreter and print lines of JSON."""

import json
import subprocess
from pathlib import Path
from typing import Any

import jax

from vae_jax.errors import InputError


def torch_command(python: Path | None, script: Path) -> list[str] | None:
    """The beginning of the command line of the peer.

    Args:
      python: Python interpreter that has PyTorch, or None.
      script: Peer script.

    Returns:
      The command, or None without PyTorch; the reason is printed.

    Raises:
      InputError: One of the files does not exist, or `python` cannot be run.
    """
    if python is None:
        print("No PyTorch to compare with: give --torch-python.")
        return None
    for path in (python, script):
        if not path.is_file():
            raise InputError(f"{path} does not exist; give the Python that has PyTorch, and the peer script")
    try:
        lacks = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode
    except OSError as error:
        raise InputError(f"{python} is no Python ({error.strerror})") from error
    if lacks:
        print(f"No PyTorch to compare with: {python} cannot import torch.")
        return None
    return [str(python), str(script)]


def torch_device() -> str:
    """The device of PyTorch that corresponds to JAX's."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def peer_lines(command: list[str], **options: Any) -> list[dict[str, Any]]:
    """Run the peer and parse its output, one JSON object per line.

    Args:
      command: Beginning of the command line.
      **options: Options of the peer; name=value is passed as `--name value`.

    Returns:
      The objects.

    Raises:
      InputError: The peer failed, or its output is not JSON.
    """
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        raise InputError(f"the peer failed ({reason}); try it by itself: {' '.join([*command, *arguments])}")
    try:
        return [json.loads(line) for line in result.stdout.splitlines()]
    except json.JSONDecodeError as error:
        raise InputError(f"the peer {command[-1]} printed something that is no JSON: {error.doc[:80]!r}") from error
