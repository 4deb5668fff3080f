"""A lock on a folder, which the operating system releases when the process ends, even if it is killed."""

import os
import socket
import warnings
import weakref
from contextlib import suppress
from pathlib import Path

from vae_jax.errors import CheckpointWarning, InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """An advisory, exclusive lock on a folder: `flock` on the file `.lock` in it, which names the holder.

    Two locks on one folder exclude each other within a process as well. A lock that is garbage-collected is released.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / ".lock"
        self._descriptor: int | None = None
        self._close: weakref.finalize | None = None

    def take(self) -> bool:
        """Create the folder if it does not exist, and lock it unless this object holds its lock.

        On a file system without locks, a warning is given and the folder counts as locked.

        Returns:
          Whether this call has locked the folder.

        Raises:
          InputError: Another process, or another lock of this process, holds the lock; the message names the process.
          OSError: The folder can't be created or written to.
        """
        if self._is_current():
            return False
        self.release()
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 1000, 0).decode() or "unknown"
            os.close(descriptor)
            whose = "another object of this process" if holder == _this_process() else "another process"
            text = f"{self._folder} is in use: {whose} ({holder}) writes checkpoints there"
            raise InputError(f"{text}; wait until its run has ended, stop it, or choose another folder") from error
        except OSError as error:
            text = f"{self._folder} can't be locked ({error.strerror}); make sure that no other run writes there"
            warnings.warn(text, CheckpointWarning, stacklevel=2)
        self._descriptor, self._close = descriptor, weakref.finalize(self, os.close, descriptor)
        with suppress(OSError):  # a full disk: the lock is held without the name of its holder
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, _this_process().encode(), 0)
        return True

    def release(self) -> None:
        """Release the lock if it is held."""
        if self._close is not None:
            self._close()
        self._descriptor = self._close = None

    def _is_current(self) -> bool:
        """Whether the lock is held on the file that is in the folder now; the folder may have been replaced."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except OSError:
            return False


def _lock(descriptor: int) -> None:
    if fcntl is None:
        raise OSError(0, "this system has no flock")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
