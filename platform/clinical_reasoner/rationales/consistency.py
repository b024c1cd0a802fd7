"""Self-consistency: the label that most samples of an ask name, and how many of them agree on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import fsum
from typing import Any

Vote = tuple[str | None, Sequence[float] | None]
"""Of one sample: the label that it names, None where it could not be read, and the probability of each label."""


@dataclass(frozen=True)
class Consensus:
    """What the samples of one ask about one visit say together."""

    label: str | None
    """None where no sample names one."""
    agreement: float
    """Share of all samples, those that could not be read among them, that name the label; 0 to 1."""
    probabilities: tuple[float, ...] | None
    """Mean over the samples that have probabilities, in the order of the labels; None where none has."""


def consensus(votes: Sequence[Vote], labels: Sequence[str]) -> Consensus:
    """Majority label. Of labels with as many samples each, the one with the highest summed probability, then the one
    that comes first in `labels`. Raises ValueError without a vote or with a label that is not in `labels`."""
    if not votes:
        raise ValueError("no sample, no consensus")
    unknown = sorted({label for label, _ in votes if label is not None} - set(labels))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of the labels {', '.join(labels)}")
    known = [tuple(probabilities) for _, probabilities in votes if probabilities is not None]
    # Rounded: sums of the same numbers in another split must tie.
    sums = [round(fsum(place), 12) for place in zip(*known, strict=True)] if known else [0.0] * len(labels)
    mean = tuple(fsum(place) / len(known) for place in zip(*known, strict=True)) if known else None
    counts = Counter(label for label, _ in votes if label is not None)
    if not counts:
        return Consensus(None, 0.0, mean)
    places = {label: labels.index(label) for label in counts}
    best = max(counts, key=lambda label: (counts[label], sums[places[label]], -places[label]))
    return Consensus(best, counts[best] / len(votes), mean)


def samples_together(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows of the `rationales` table in groups of one model, visit and ask, in the order in which these first appear,
    each in the order of its samples."""

    def key(row: dict[str, Any]) -> tuple[str, ...]:
        return row["model"], row["patient_id"], row["visit_id"], row["ask"]

    first: dict[tuple[str, ...], int] = {}
    for place, row in enumerate(rows):
        first.setdefault(key(row), place)
    ordered = sorted(rows, key=lambda row: (first[key(row)], row["sample"]))
    return [list(group) for _, group in groupby(ordered, key=key)]
