"""The lock that makes a store's driver the only one."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import IO

from scalecli.errors import DataError


class DriverLock:
    """An advisory lock on `<store>.lock`; the system frees it when the process ends, however it ends."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    @classmethod
    def take(cls, store: Path) -> DriverLock:
        """Lock the store at this path; `DataError` names the process that has it."""
        import fcntl

        path = store.with_name(store.name + ".lock")
        try:
            stream = path.open("a+", encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"store {store} cannot be written: {reason}", hint="give --store another place"
            ) from None
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(store, stream) from None
        except OSError as error:
            stream.close()
            fact = f"store {store} cannot be locked: {error.strerror or error}"
            raise DataError(fact, hint="give --store a place whose file system has locks") from None
        stream.truncate(0)
        stream.write(f"with pid {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        return cls(stream)

    def release(self) -> None:
        """Free the lock. The file stays: deleting it would let two drivers lock two files of one name."""
        self._stream.close()


def _in_use(store: Path, stream: IO[str]) -> DataError:
    stream.seek(0)
    owner = stream.read().strip() or "another process"
    stream.close()
    fact = f"store {store} is in use by the driver {owner}"
    return DataError(fact, hint="wait for it, stop it, or give --store another path")
