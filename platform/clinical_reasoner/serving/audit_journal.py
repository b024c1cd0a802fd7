"""A journal of audit records: appended, on the disk before an answer goes out, and locked for as long as its writer
lives, so that others know which ones a crash left behind.

The lock is flock(2): the kernel lets go of it when the process ends, however it ends. Folders that replicas on several
machines share need a file system with locks between machines, such as NFS 4.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from clinical_reasoner.serving.audit_files import sync


class Journal:
    """An open and locked file. Not safe for threads."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.rows = 0
        self._descriptor, self._size = descriptor, os.fstat(descriptor).st_size
        self._opened = time.monotonic()

    @property
    def age_s(self) -> float:
        """Since it was opened, seconds."""
        return time.monotonic() - self._opened

    def append(self, lines: bytes, rows: int) -> None:
        """Add whole lines; they are on the disk when this returns. After an OSError none of them is there, and nothing
        more may be appended: an error of fsync leaves open what the kernel still holds."""
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(lines)
        self.rows += rows

    def content(self) -> bytes:
        return self.path.read_bytes()

    def remove(self) -> None:
        """Delete the file and let go of it."""
        try:
            self.path.unlink(missing_ok=True)
        finally:
            self.close()

    def set_aside(self) -> None:
        """Keep the file under a name that no reader takes for a journal, and let go of it."""
        self.path.rename(self.path.with_suffix(".damaged"))
        self.close()

    def close(self) -> None:
        """Let go of the file, which stays: another writer may take it over from here on."""
        os.close(self._descriptor)


def new_journal(path: Path) -> Journal | None:
    """A new file, or None where another writer took it for one left behind, in the moment before it was locked.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    journal = _locked(path, descriptor, wait=True)
    if journal is None:
        return None
    try:
        sync([path.parent])
    except OSError:
        journal.close()
        raise
    return journal


def abandoned(path: Path) -> Journal | None:
    """A journal whose writer has ended, now locked by us; None where its writer lives or another one was quicker.

    Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        return None
    return _locked(path, descriptor, wait=False)


def _locked(path: Path, descriptor: int, *, wait: bool) -> Journal | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What we locked may have been finished and deleted by another writer in the meantime.
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return Journal(path, descriptor)
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
