"""The error of a stage that has too few rows left."""

from __future__ import annotations

from collections import Counter

from clinical_reasoner.errors import UserError


def too_few(what: str, left: int, reasons: Counter[str]) -> UserError:
    """Says what is missing, how many rows are left, and how many were rejected for which reason most of all."""
    if not reasons:
        return UserError(f"{what} ({left} rows in all); use more patients or other splits")
    ((reason, count),) = reasons.most_common(1)
    return UserError(
        f"{what} ({left} rows left, {reasons.total()} rejected, {count} of them for: {reason}); mend those rows, or "
        "use more patients or other splits"
    )
