"""A cohort from a table of one's own: CSV or Parquet, one row per visit, columns by name.

Columns are those of the `patients` table (all but `patient_id` may be missing) and, for MRI evidence, one column per
finding of the task with a grade (`No`, `Mild`, `Severe`) or a w-score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pydantic import ValidationError

from clinical_reasoner.cohort.splits import split_of
from clinical_reasoner.errors import UserError
from clinical_reasoner.records import Measure, PatientRow, RejectedRow, Split
from clinical_reasoner.task import DiagnosisTask

LARGEST_W_SCORE = 20.0
"""Residual SD; a larger number in a finding's column is something else."""
GRADE_UNIT = "grade"
"""Unit of a measure that is already a grade: its rank in the task, 0 for the unaffected grade."""
_COPIED = (
    "age_years",
    "sex",
    "education_years",
    "marital_status",
    "mmse",
    "apoe4_copies",
    "image_path",
    "segmentation_path",
)
_MISSING = ["", "NA", "n/a", "NaN", "nan"]


class CohortError(UserError):
    """A cohort file cannot be read; the message names file, column and fix."""


def read_cohort(
    path: str, name: str, task: DiagnosisTask, shares: Mapping[Split, float], seed: int
) -> tuple[list[PatientRow], list[RejectedRow]]:
    """Patients and the rows that could not be used, with reasons. Rejected rows are named by line, never by person."""
    frame = _load(path)
    known = {"patient_id", "visit_id", "split", "label", *_COPIED, *(finding.name for finding in task.findings)}
    unknown = sorted(set(frame.columns) - known)
    if "patient_id" not in frame.columns or unknown:
        wrong = f"unknown column {unknown[0]!r}" if unknown else "no column 'patient_id'"
        raise CohortError(f"cohort.path {path}: {wrong}; known columns are {', '.join(sorted(known))}")
    patients, rejected = [], []
    seen: set[tuple[str, str]] = set()
    for line, row in _rows(frame):
        place = f"{Path(path).name}:{line}"
        try:
            patient = _patient(row, name, task, shares, seed)
            if (patient.patient_id, patient.visit_id) in seen:
                raise ValueError("the same patient_id and visit_id as an earlier row")
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            rejected.append(RejectedRow(source=place, stage="patients", reason=reason))
        except ValueError as error:
            rejected.append(RejectedRow(source=place, stage="patients", reason=str(error)))
        else:
            seen.add((patient.patient_id, patient.visit_id))
            patients.append(patient)
    return patients, rejected


def _load(path: str) -> pd.DataFrame:
    file = Path(path)
    if not file.is_file():
        raise CohortError(f"cohort.path: no file at {path!r} (looked in {Path.cwd()})")
    try:
        return _parse(file)
    except UnicodeDecodeError as error:
        raise CohortError(f"cohort.path {path}: not UTF-8; save it again as UTF-8") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, pa.ArrowInvalid) as error:
        raise CohortError(f"cohort.path {path}: not readable as {file.suffix[1:]} ({type(error).__name__})") from error


def _parse(file: Path) -> pd.DataFrame:
    if file.suffix == ".parquet":
        return pd.read_parquet(file)
    if file.suffix == ".csv":
        # pandas would also read "None" as missing, where it may well mean the grade; an id such as 007 keeps its zeros.
        return pd.read_csv(
            file,
            dtype={"patient_id": str, "visit_id": str},
            keep_default_na=False,
            na_values=_MISSING,
            skip_blank_lines=False,  # they count as lines
        )
    raise CohortError(f"cohort.path {file}: {file.suffix or 'no'} ending; use .csv or .parquet")


def _rows(frame: pd.DataFrame) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line in the file, known values); an empty line is no row."""
    for number, row in enumerate(frame.to_dict("records"), start=2):
        known = {str(key): value for key, value in row.items() if not pd.isna(value)}
        if known:
            yield number, known


def _patient(
    row: dict[str, Any], cohort: str, task: DiagnosisTask, shares: Mapping[Split, float], seed: int
) -> PatientRow:
    if "patient_id" not in row:
        raise ValueError("patient_id is empty")
    label = None
    if "label" in row:
        label = task.read_label(str(row["label"]))
        if label is None:
            raise ValueError(f"label is none of {', '.join(task.label_names)}")
    patient_id = str(row["patient_id"])
    return PatientRow(
        patient_id=patient_id,
        visit_id=str(row.get("visit_id", "bl")),
        cohort=cohort,
        split=row.get("split") or split_of(patient_id, shares, seed),
        label=label,
        measures=tuple(
            _measure(row[finding.name], finding.name, task) for finding in task.findings if finding.name in row
        ),
        **{name: row[name] for name in _COPIED if name in row},
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
