"""The error of a stage that has too few rows left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from clinical_reasoner.errors import UserError
from clinical_reasoner.records import RejectedRow


def too_few(what: str, left: int, rejected: Sequence[RejectedRow]) -> UserError:
    """Says what is missing, how many rows are left, and how many were rejected for which reason most of all."""
    if not rejected:
        return UserError(f"{what} ({left} rows in all); use more patients or other splits")
    reason, count = Counter(row.reason for row in rejected).most_common(1)[0]
    return UserError(
        f"{what} ({left} rows left, {len(rejected)} rejected, {count} of them for: {reason}); mend those rows, or use "
        "more patients or other splits"
    )
