"""The error of everything that a user can mend: config, task, cohort and run folder errors derive from it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Its message names the value, the place and the fix, and holds no patient text."""


@contextmanager
def reported() -> Iterator[None]:
    """Jobs: print a UserError without a traceback and exit with status 2; any other error keeps its traceback."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
