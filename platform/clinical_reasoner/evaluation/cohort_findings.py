"""Which patient fields and findings of a cohort are missing, and the w-scores of its findings by diagnosis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from clinical_reasoner.evaluation.cohort_counts import Frozen, Visits
from clinical_reasoner.evaluation.small_cells import SMALLEST, Count, Counts, hide_small
from clinical_reasoner.task import DiagnosisTask

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Missing(Frozen):
    name: str
    """Column or finding, as in the tables."""
    title: str
    missing: int = Field(ge=0)
    visits: int = Field(ge=0)
    """All visits that could have it."""

    @property
    def share(self) -> float:
        """0..1"""
        return self.missing / self.visits if self.visits else 0.0


class Distribution(Frozen):
    label: str
    visits: Count
    """Visits with a w-score."""
    quantiles: tuple[float, float, float, float, float] | None
    """w-scores at QUANTILES, residual SD; negative = more affected. None where no one has one, or too few people to be
    shown."""


class WScores(Frozen):
    name: str
    title: str
    by_label: tuple[Distribution, ...]


@dataclass(frozen=True)
class Graded:
    """All findings of all visits, one after the other."""

    visits: Counts
    """Row of the findings table."""
    findings: Counts
    """Place in the task; -1 for one that the task does not have."""
    w_scores: NDArray[np.float64]
    """NaN where there is none."""


def graded_findings(findings: pa.Table, task: DiagnosisTask) -> Graded:
    """The column `findings` of the findings table, without a Python object for each finding."""
    column = findings.column("findings").combine_chunks()
    flat = column.flatten()
    names = pa.array([finding.name for finding in task.findings], pa.string())
    places = pc.fill_null(pc.index_in(pc.struct_field(flat, "name"), value_set=names), -1)
    w_scores = pc.fill_null(pc.struct_field(flat, "w_score"), np.nan)
    return Graded(
        np.asarray(pc.list_parent_indices(column), dtype=np.int64),
        np.asarray(places, dtype=np.int64),
        np.asarray(w_scores, dtype=np.float64),
    )


def missing_fields(patients: pa.Table, task: DiagnosisTask) -> tuple[Missing, ...]:
    """Of the diagnosis and each patient field of the task, over all visits."""
    titles = {"label": "diagnosis"} | {field.name: _title(field.name) for field in task.fields}
    return tuple(
        Missing(name=name, title=title, missing=patients.column(name).null_count, visits=patients.num_rows)
        for name, title in titles.items()
    )


def missing_findings(graded: Graded, visits: int, task: DiagnosisTask) -> tuple[Missing, ...]:
    """Of each finding of the task, over the visits in the findings table."""
    known = [len(np.unique(graded.visits[graded.findings == place])) for place in range(len(task.findings))]
    return tuple(
        Missing(name=finding.name, title=finding.term, missing=visits - count, visits=visits)
        for finding, count in zip(task.findings, known, strict=True)
    )


def w_scores_by_label(graded: Graded, described: Visits, task: DiagnosisTask, exact: bool) -> Iterator[WScores]:
    """Of each finding with w-scores; small cells are hidden unless `exact`. `described` are the visits of the findings
    table."""
    for place, finding in enumerate(task.findings):
        chosen = (graded.findings == place) & np.isfinite(graded.w_scores)
        if not chosen.any():
            continue
        rows, scores = graded.visits[chosen], graded.w_scores[chosen]
        counts, people = described.tally(np.zeros_like(rows), 1, rows)
        shown = counts.tolist() if exact else hide_small(counts, people)
        enough = people[0] >= (1 if exact else SMALLEST)
        labels = described.labels[rows]
        by_label = tuple(
            Distribution(label=label, visits=visits, quantiles=_quantiles(scores[labels == column]) if ok else None)
            for column, (label, visits, ok) in enumerate(zip(described.columns, shown[0], enough, strict=True))
            if visits or label in task.label_names
        )
        yield WScores(name=finding.name, title=finding.term, by_label=by_label)


def _quantiles(scores: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    low, lower, middle, upper, high = (round(float(value), 4) for value in np.quantile(scores, QUANTILES))
    return low, lower, middle, upper, high


def _title(column: str) -> str:
    words = column.removesuffix("_years").replace("_", " ")
    return f"{words} (years)" if column.endswith("_years") else words
