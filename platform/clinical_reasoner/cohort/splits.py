"""Subject-level splits: all visits of a person are in one split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from clinical_reasoner.errors import UserError
from clinical_reasoner.records import Split


def split_of(patient_id: str, shares: Mapping[Split, float], seed: int) -> Split:
    """Split of a person, from a hash of the id alone: independent of row order, cohort size and number of visits."""
    digest = hashlib.sha256(f"{seed}:{patient_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64 * sum(shares.values())
    for name, share in shares.items():
        place -= share
        if place < 0:
            return name
    return name


def check_no_leak(people: dict[str, Split], patient_id: str, split: Split) -> None:
    """Note the split of a person. Raises UserError, which names no one, when they are in another one already."""
    if people.setdefault(patient_id, split) != split:
        raise UserError("a person is in more than one split; splits must be by subject")
