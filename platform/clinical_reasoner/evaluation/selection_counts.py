"""Counters over the `rationales` table, one teacher at a time: what was asked, selected and rejected, and why."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.evidence.checks import words
from clinical_reasoner.rationales.consistency import consensus, samples_together
from clinical_reasoner.records import RATIONALES, Ask, Split

Row = dict[str, Any]
LEARNT_FROM: Split = "train"
"""Split whose selected rationales students learn from."""
_UNREAD = {"row_id", "prompt_version", "shots", "exemplars", "seed", "thinking", "token_ids", "candidates"}
COLUMNS = pa.schema([column for column in RATIONALES if column.name not in _UNREAD])
"""Of the `rationales` table, what is counted or shown."""


@dataclass
class TextCounts:
    """Of rationales; all that grows with their number."""

    words: array[int] = field(default_factory=lambda: array("l"))
    """Of each rationale."""
    claims: Counter[str] = field(default_factory=Counter)
    """By person."""
    unsupported: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count the rationale of one row."""
        unsupported = row["claims_contradicted"] + row["claims_not_in_evidence"]
        self.words.append(len(words(row["rationale"])))
        self.claims[row["patient_id"]] += row["claims_supported"] + unsupported
        self.unsupported[row["patient_id"]] += unsupported


@dataclass
class SampleCounts:
    """Of one ask's visits with more than one sample."""

    visits: int = 0
    agreement: float = 0.0
    """Sum over visits."""
    unanimous: int = 0
    diagnosed: int = 0
    """Visits with a recorded diagnosis."""
    majority_right: int = 0
    single_right: float = 0.0
    """Sum over visits of the share of samples that name the recorded diagnosis."""

    def add(self, samples: Sequence[Row], labels: Sequence[str]) -> None:
        """Count the samples about one visit."""
        said = consensus([(row["predicted"], row["probabilities"]) for row in samples], labels)
        self.visits += 1
        self.agreement += said.agreement
        self.unanimous += said.agreement == 1
        recorded = samples[0]["label"]
        if recorded is not None:
            self.diagnosed += 1
            self.majority_right += said.label == recorded
            self.single_right += sum(row["predicted"] == recorded for row in samples) / len(samples)


@dataclass
class TeacherCounts:
    """Of the rows of one teacher."""

    rows: Counter[tuple[Ask, str]] = field(default_factory=Counter)
    """By ask and field of AskRows."""
    reasons: Counter[tuple[str, Ask]] = field(default_factory=Counter)
    visits: Counter[str] = field(default_factory=Counter)
    """Of the split that students learn from, by field of CoveredVisits."""
    parsed: TextCounts = field(default_factory=TextCounts)
    selected: TextCounts = field(default_factory=TextCounts)
    samples: dict[Ask, SampleCounts] = field(default_factory=dict)
    rejected: dict[tuple[str, Ask], list[Row]] = field(default_factory=dict)
    """The first rows of each reason and ask."""

    def add(self, visit: Sequence[Row], labels: Sequence[str], examples: int) -> None:
        """Count the rows about one visit, and keep as many as `examples` of each reason and ask."""
        for row in visit:
            self._add_row(row)
            if row["reject_reason"] is not None:
                self._add_rejected(row, examples)
        if visit[0]["split"] == LEARNT_FROM:
            self.visits[next((row["selected"] for row in visit if row["selected"]), "none_selected")] += 1
        for samples in samples_together(visit):
            ask = samples[0]["ask"]
            if len(samples) > 1 and ASK_KINDS[ask].gives_label:
                self.samples.setdefault(ask, SampleCounts()).add(samples, labels)

    def _add_row(self, row: Row) -> None:
        ask, selected = row["ask"], row["selected"] is not None and row["split"] == LEARNT_FROM
        counted = {
            "asked": 1,
            "parsed": row["rationale"] is not None or row["predicted"] is not None,
            "accepted": row["accepted"],
            "rejected": not row["accepted"],
            "selected": selected,
            "prompt_tokens": row["prompt_tokens"],
            "output_tokens": row["output_tokens"],
        }
        for name, number in counted.items():
            self.rows[ask, name] += number
        if row["rationale"]:
            self.parsed.add(row)
            if selected:
                self.selected.add(row)

    def _add_rejected(self, row: Row, examples: int) -> None:
        key = (row["reject_reason"], row["ask"])
        self.reasons[key] += 1
        kept = self.rejected.setdefault(key, [])
        if len(kept) < examples:
            kept.append(row)


def count_teachers(rows: Iterable[Row], labels: Sequence[str], examples: int) -> dict[str, TeacherCounts]:
    """Of each model, in the order in which they first appear. `rows` have COLUMNS, those of a model about a visit
    adjacent; `labels` are the task's."""
    found: dict[str, TeacherCounts] = {}
    for (model, *_), visit in groupby(rows, key=lambda row: (row["model"], row["patient_id"], row["visit_id"])):
        found.setdefault(model, TeacherCounts()).add(list(visit), labels, examples)
    return found
