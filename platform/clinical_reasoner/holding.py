"""One process at a time works in a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from clinical_reasoner.runs import RunFolder

LOCK = ".lock"
_SAY_AGAIN_S = 60.0


@contextmanager
def held(run: RunFolder) -> Iterator[None]:
    """Keep other processes of this machine out of the run folder; waits, and says so, while one of them is in it.

    A process that was killed holds nothing, but `make` can be killed while its job goes on. A folder on S3 is not
    locked.
    """
    if run.path.startswith("s3://"):
        yield
        return
    Path(run.path).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(run.path, LOCK))
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{run.path}: another process works in this run folder; waiting until it ends", flush=True)
            _wait(lock)
    try:
        yield
    finally:
        lock.release()


def _wait(lock: FileLock) -> None:
    try:
        lock.acquire(timeout=_SAY_AGAIN_S)
    except Timeout:
        return
