"""Files appear whole or not at all, and a full disk is said in words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from secateur.types import SecateurError


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, that becomes `path` when the block ends well, and nothing when it does not."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with room_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Inside, a disk that is full while `path` is written is an error that says so."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise SecateurError(
                f"the disk is full: {path} could not be written ({error.strerror})",
                "make room and run the same command again; finished work is kept and taken up",
            ) from error
        raise


def _sync_folder(folder: Path) -> None:
    """So that the new name itself survives a power cut; some systems cannot open folders, and need not."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)
