"""Small cells of a crossed table of real people: a count that few people stand behind may tell who they are."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

SMALLEST = 5
"""Fewest people behind a count that is shown, in a cohort that is not synthetic."""
Count = int | Literal["<5", "≥5"]
"""`<5`: of fewer than SMALLEST people; `≥5`: of more, whose number would tell one of those by subtraction."""

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]


def hide_small(visits: Counts, people: Counts) -> list[list[Count]]:
    """The cells of a table whose totals of rows and columns are known: those of fewer than SMALLEST people as `<5`, and
    as `≥5` those that would tell them.

    Both arrays have the table's shape: visits, which are shown, and distinct people behind them. In the end each row
    and column has no hidden cell, or several with at least SMALLEST people together, or none that is shown. One without
    anyone keeps its zeros: its total says as much.
    """
    someone = (people.sum(axis=1, keepdims=True) > 0) & (people.sum(axis=0, keepdims=True) > 0)
    small = someone & (people < SMALLEST)
    hidden = small.copy()
    while (cell := _next_to_hide(hidden, people, someone)) is not None:
        hidden[cell] = True
    shown: list[list[Count]] = [list(row) for row in visits.tolist()]
    for row, column in np.argwhere(hidden).tolist():
        shown[row][column] = "<5" if small[row, column] else "≥5"
    return shown


def _next_to_hide(hidden: Mask, people: Counts, someone: Mask) -> tuple[int, int] | None:
    """A cell of the first row or column that tells too much: best one that crosses another hidden cell, because it may
    protect both its lines, and of these the smallest."""
    for turned in (False, True):
        covered, counts, known = (array.T if turned else array for array in (hidden, people, someone))
        for line in range(len(covered)):
            candidates = np.flatnonzero(known[line] & ~covered[line])
            enough = covered[line].sum() > 1 and counts[line][covered[line]].sum() >= SMALLEST
            if covered[line].any() and len(candidates) and not enough:
                alone = ~covered[:, candidates].any(axis=0)
                best = int(candidates[np.lexsort((counts[line][candidates], alone))[0]])
                return (best, line) if turned else (line, best)
    return None
