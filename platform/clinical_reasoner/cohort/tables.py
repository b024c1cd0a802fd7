"""A cohort from a table of one's own: CSV or Parquet, one row per visit, columns by name.

Columns are those of the `patients` table (all but `patient_id` may be missing) and, for MRI evidence, one column per
finding of the task with a grade (`No`, `Mild`, `Severe`) or a w-score (negative = more affected).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from pydantic import ValidationError

from clinical_reasoner.cohort.fields import Earlier
from clinical_reasoner.cohort.files import COPIED, CohortError, check_table, frames, known_rows
from clinical_reasoner.cohort.visits import Visit, set_aside
from clinical_reasoner.records import Measure, RejectedRow, Split
from clinical_reasoner.task import DiagnosisTask

LARGEST_W_SCORE = 20.0
"""Residual SD; a larger number in a finding's column is something else."""
GRADE_UNIT = "grade"
"""Unit of a measure that is already a grade: its rank in the task, 0 for the unaffected grade."""


def read_table_visits(path: str, name: str, task: DiagnosisTask) -> Iterator[Visit | RejectedRow]:
    """Visits, and the rows that could not be used, with reasons. Rejected rows are named by line, never by person.

    The split that the file states at any visit of a person is stated at all of them. Raises CohortError when the file
    cannot be read, or states two splits for a person.
    """
    check_table(path, task)
    stated, earlier = _stated_splits(path), Earlier()
    for line, row in known_rows(path):
        place = f"{Path(path).name}:{line}"
        try:
            yield earlier.check(_visit(row, name, task, stated, place))
        except ValidationError as error:
            first = error.errors()[0]
            yield set_aside(place, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except ValueError as error:
            yield set_aside(place, str(error))


def _stated_splits(path: str) -> dict[str, str]:
    """Person -> split. Raises CohortError, with the number of people alone, when someone has two."""
    stated: dict[str, set[str]] = {}
    for frame in frames(path):
        if "split" not in frame.columns:
            return {}
        for id_, split in zip(frame["patient_id"], frame["split"], strict=True):
            if not (pd.isna(id_) or pd.isna(split)) and _identifier(id_) and str(split).strip():
                stated.setdefault(_identifier(id_), set()).add(str(split).strip())
    torn = sum(len(splits) > 1 for splits in stated.values())
    if torn:
        raise CohortError(f"cohort.path {path}: column 'split' puts {torn} people into two splits; state one for each")
    return {person: split for person, (split,) in stated.items()}


def _identifier(value: Any) -> str:
    """An id as text, one and the same however the file pads it; a column of integers with gaps comes as floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _visit(row: dict[str, Any], cohort: str, task: DiagnosisTask, stated: Mapping[str, Any], place: str) -> Visit:
    ids = {name: _identifier(row.get(name, default)) for name, default in (("patient_id", ""), ("visit_id", "bl"))}
    for name, text in ids.items():
        if not text:
            raise ValueError(f"{name} is empty")
    split = stated.get(ids["patient_id"])
    if split not in (None, *get_args(Split)):
        raise ValueError(f"split: none of {', '.join(get_args(Split))}")
    label = None
    if "label" in row:
        label = task.read_label(str(row["label"]))
        if label is None:
            raise ValueError(f"label is none of {', '.join(task.label_names)}")
    return Visit(
        **ids,
        cohort=cohort,
        stated_split=split,
        source=place,
        label=label,
        measures=tuple(
            _measure(row[finding.name], finding.name, task) for finding in task.findings if finding.name in row
        ),
        **{name: row[name] for name in COPIED if name in row},
    )


def _measure(value: Any, finding: str, task: DiagnosisTask) -> Measure:
    by_name = {name.lower(): rank for rank, name in enumerate(task.grade_names)}
    if str(value).strip().lower() in by_name:
        return Measure(name=finding, value=float(by_name[str(value).strip().lower()]), unit=GRADE_UNIT)
    try:
        w_score = float(value)
    except ValueError as error:
        raise ValueError(f"{finding}: neither a grade ({', '.join(task.grade_names)}) nor a w-score") from error
    if not abs(w_score) <= LARGEST_W_SCORE:  # so that NaN is refused too
        raise ValueError(f"{finding}: beyond +-{LARGEST_W_SCORE:g}, so no w-score; is it a volume?")
    return Measure(name=finding, value=w_score, unit="w")
