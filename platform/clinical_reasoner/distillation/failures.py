"""Why a training failed: what a restart mends, and what only the user can."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from clinical_reasoner.errors import UserError

FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "quota exceeded", errno.EFBIG: "file too large"}
"""Numbers of the operating system for what has no room."""


class LossError(UserError):
    """The loss or a weight is not a number."""


class NoRoomError(UserError):
    """A disk has no room for what is written."""


@contextmanager
def no_room_named(places: str) -> Iterator[None]:
    """Raises NoRoomError, which names `places`, for an error that says that a disk is full."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _no_room(error)
        if reason is None:
            raise
        raise NoRoomError(f"{reason} while a model was written to {places}; make room and start again") from error


def _no_room(error: BaseException | None) -> str | None:
    """Libraries pass the system's message on, some of them without its number."""
    while error is not None:
        text = str(error)
        for number, reason in FULL.items():
            said = (f"os error {number})", f"[errno {number}]", f"[Errno {number}]")
            if getattr(error, "errno", None) == number or any(part in text for part in said):
                return reason
        if "PytorchStreamWriter failed" in text:
            return "no space left"
        error = error.__cause__ or error.__context__
    return None


def fit_with_restarts(make: Callable[[], Any], restarts: int, name: str, kept: str) -> Any:
    """`make().fit()` of a Ray Train trainer without restarts of its own, once more after each lost worker; it goes on
    from its last checkpoint, which lies below `kept`.

    Raises UserError at once for an error of which a restart would only end the same.
    """
    from ray.train import WorkerGroupError

    for left in range(restarts, -1, -1):
        try:
            return make().fit()
        except WorkerGroupError as error:
            told = _told(error.worker_failures.values())
            if told is not None:
                raise UserError(f"{name}: {told}. Finished checkpoints are kept in {kept}") from error
            if not left:
                raise
            ranks = ", ".join(str(rank) for rank in sorted(error.worker_failures))
            print(f"[{name}] lost worker {ranks}; goes on from the last checkpoint, {left} restarts left", flush=True)
    raise AssertionError("restarts is negative")


def _told(failures: Iterable[BaseException]) -> UserError | None:
    """Workers that lose another one fail too, each with an error of its own."""
    for failure in failures:
        error = getattr(failure, "_base_exc", failure)  # Ray Train's wrapper holds it there
        if isinstance(error, UserError):
            return error
    return None
