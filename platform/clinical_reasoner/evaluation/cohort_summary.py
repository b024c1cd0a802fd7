"""What a cohort holds, as counts and quantiles for the top of the report. Of one visit only, the example, it has
more, and of none an id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from clinical_reasoner.config.cohort import SYNTHETIC_PREFIX
from clinical_reasoner.evaluation.cohort_counts import (
    CountGroup,
    Frozen,
    Tally,
    count_groups,
    label_columns,
    visits_of,
    visits_per_person,
)
from clinical_reasoner.evaluation.cohort_findings import (
    Missing,
    WScores,
    graded_findings,
    missing_fields,
    missing_findings,
    w_scores_by_label,
)
from clinical_reasoner.task import DiagnosisTask

MOST_TEXTS = 50
"""Distinct reasons of rejected rows, and distinct warnings, that are shown."""
LONGEST_TEXT = 200
"""Characters of a reason or warning that are shown."""
MOST_PICTURES = 20
"""Visits that are tried for a picture that can be read."""

Picture = Callable[[str], str | None]
"""From a path of `slice_paths` to a data URI; None where no picture can be read."""
_Text = TypeVar("_Text")


class Warnings(Frozen):
    shown: tuple[Tally, ...]
    """By the number of visits that have them, the commonest first."""
    other_warnings: int = Field(ge=0)
    """Distinct ones beyond MOST_TEXTS."""
    other_count: int = Field(ge=0)
    """Counts of all of these together."""


class RejectedReason(Frozen):
    stage: str
    reason: str
    rows: int = Field(ge=1)


class RejectedReasons(Frozen):
    rows: int = Field(ge=0)
    """All rejected rows."""
    shown: tuple[RejectedReason, ...]
    """The commonest reasons, in the order of the stages."""
    other_reasons: int = Field(ge=0)
    """Distinct ones beyond MOST_TEXTS."""
    other_rows: int = Field(ge=0)


class CohortExample(Frozen):
    label: str | None
    description: str
    montage: str | None
    """Data URI of a picture."""


class CohortSummary(Frozen):
    names: tuple[str, ...]
    synthetic: bool
    """True: every patient was drawn, and no count is hidden."""
    labels: tuple[str, ...]
    """Columns of every crossed table: the task's labels, then NO_LABEL where it is needed."""
    visits: int = Field(ge=0)
    people: int = Field(ge=0)
    described: int = Field(ge=0)
    """Visits with findings and a description."""
    groups: tuple[CountGroup, ...]
    visits_per_person: tuple[Tally, ...]
    """People by their number of visits."""
    missing_fields: tuple[Missing, ...]
    missing_findings: tuple[Missing, ...]
    w_scores: tuple[WScores, ...]
    warnings: Warnings
    rejected: RejectedReasons
    example: CohortExample | None


def summarise_cohort(
    patients: pa.Table,
    findings: pa.Table,
    rejected: Mapping[str, pa.Table],
    task: DiagnosisTask,
    *,
    measures: pa.Table | None = None,
    picture: Picture = lambda path: None,
) -> CohortSummary:
    """Of the tables `patients` and `findings`, and of the rejected rows by stage.

    Warnings of the table `measures` count with those of the patients. Unless every cohort in the table has the name of
    a synthetic one, cells of crossed tables with fewer than small_cells.SMALLEST people are hidden.
    """
    names = tuple(sorted(set(patients.column("cohort").to_pylist())))
    synthetic = bool(names) and all(name.startswith(SYNTHETIC_PREFIX) for name in names)
    labels = [label for table in (patients, findings) for label in table.column("label").unique().to_pylist()]
    columns = label_columns(labels, task.label_names)
    visits, described = visits_of(patients, columns), visits_of(findings, columns)
    graded = graded_findings(findings, task)
    return CohortSummary(
        names=names,
        synthetic=synthetic,
        labels=columns,
        visits=patients.num_rows,
        people=visits.number_of_people,
        described=findings.num_rows,
        groups=tuple(count_groups(patients, visits, described, synthetic)),
        visits_per_person=visits_per_person(visits),
        missing_fields=missing_fields(patients, task),
        missing_findings=missing_findings(graded, findings.num_rows, task),
        w_scores=tuple(w_scores_by_label(graded, described, task, synthetic)),
        warnings=_warnings([patients] if measures is None else [patients, measures]),
        rejected=_rejected(rejected),
        example=_example(findings, picture),
    )


def _warnings(tables: Iterable[pa.Table]) -> Warnings:
    by_visit: dict[tuple[str, str], set[str]] = {}
    for table in tables:
        warned = table.filter(pc.greater(pc.list_value_length(table.column("warnings")), 0))
        columns = (warned.column(name).to_pylist() for name in ("patient_id", "visit_id", "warnings"))
        for person, visit, texts in zip(*columns, strict=True):
            by_visit.setdefault((person, visit), set()).update(map(_short, texts))
    counts = _ranked(Counter(text for texts in by_visit.values() for text in texts))
    return Warnings(
        shown=tuple(Tally(name=text, count=count) for text, count in counts[:MOST_TEXTS]),
        other_warnings=len(counts[MOST_TEXTS:]),
        other_count=sum(count for _, count in counts[MOST_TEXTS:]),
    )


def _rejected(rejected: Mapping[str, pa.Table]) -> RejectedReasons:
    reasons = Counter(
        (stage, _short(reason)) for stage, table in rejected.items() for reason in table.column("reason").to_pylist()
    )
    counts = _ranked(reasons)
    stages = list(rejected)
    shown = sorted(counts[:MOST_TEXTS], key=lambda entry: stages.index(entry[0][0]))  # stable: by count within a stage
    return RejectedReasons(
        rows=reasons.total(),
        shown=tuple(RejectedReason(stage=stage, reason=reason, rows=rows) for (stage, reason), rows in shown),
        other_reasons=len(counts[MOST_TEXTS:]),
        other_rows=sum(rows for _, rows in counts[MOST_TEXTS:]),
    )


def _ranked(counts: Counter[_Text]) -> list[tuple[_Text, int]]:
    """The commonest first, and always in the same order."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], str(entry[0])))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def _example(findings: pa.Table, picture: Picture) -> CohortExample | None:
    """The first visit whose picture can be read, of the first ones that have any, else the first visit."""
    if not findings.num_rows:
        return None
    row, montage = 0, None
    lengths = pc.fill_null(pc.list_value_length(findings.column("slice_paths")), 0)
    for candidate in np.flatnonzero(np.asarray(lengths))[:MOST_PICTURES].tolist():
        paths = findings.column("slice_paths")[candidate].as_py()
        montage = next((found for path in paths if (found := picture(path))), None)
        if montage:
            row = candidate
            break
    chosen = findings.slice(row, 1).to_pylist()[0]
    return CohortExample(label=chosen["label"], description=chosen["description"], montage=montage)
