"""A cohort file as a frame, and what refuses it as a whole: its format, its columns, codes that would be misread."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from clinical_reasoner.errors import UserError
from clinical_reasoner.task import DiagnosisTask

COPIED = (
    "age_years",
    "sex",
    "education_years",
    "marital_status",
    "mmse",
    "apoe4_copies",
    "image_path",
    "segmentation_path",
)
"""Columns that go into the `patients` table as they are."""
FEWEST_CODES = 3
"""Known values of a column from which on whole small numbers are taken for grade codes and not for w-scores."""
_ROWS_TOGETHER = 2048
_MISSING = ["", "NA", "n/a", "NaN", "nan"]


class CohortError(UserError):
    """A cohort file cannot be read; the message names file, column and fix."""


def load_frame(path: str, task: DiagnosisTask) -> pd.DataFrame:
    """The table of a CSV or Parquet file. Raises CohortError when it cannot be read, or not without misreading it."""
    file = Path(path)
    if not file.is_file():
        raise CohortError(f"cohort.path: no file at {path!r} (looked in {Path.cwd()})")
    try:
        frame = _parse(file)
    except UnicodeDecodeError as error:
        raise CohortError(f"cohort.path {path}: not UTF-8; save it again as UTF-8") from error
    except pd.errors.ParserWarning as error:
        fix = "name every column, and part fields by commas alone"
        raise CohortError(f"cohort.path {path}: lines have more fields than the header; {fix}") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, pa.ArrowInvalid) as error:
        raise CohortError(f"cohort.path {path}: not readable as {file.suffix[1:]} ({type(error).__name__})") from error
    _check_columns(frame, path, task)
    for finding in task.findings:
        if finding.name in frame.columns:
            _check_finding(frame[finding.name], path, task)
    return frame


def known_rows(frame: pd.DataFrame) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line in the file, known values); an empty line is no row."""
    for start in range(0, len(frame), _ROWS_TOGETHER):
        rows = frame.iloc[start : start + _ROWS_TOGETHER].to_dict("records")
        for number, row in enumerate(rows, start=start + 2):
            known = {str(key): value for key, value in row.items() if not pd.isna(value)}
            if known:
                yield number, known


def _parse(file: Path) -> pd.DataFrame:
    if file.suffix == ".parquet":
        return pd.read_parquet(file)
    if file.suffix != ".csv":
        raise CohortError(f"cohort.path {file}: {file.suffix or 'no'} ending; use .csv or .parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # pandas would also read "None" as missing, where it may well mean the grade; an id such as 007 keeps its zeros.
        return pd.read_csv(
            file,
            index_col=False,  # where each line ends in a comma, the first column would become the index
            dtype={"patient_id": str, "visit_id": str},
            keep_default_na=False,
            na_values=_MISSING,
            skip_blank_lines=False,  # they count as lines
        )


def _check_columns(frame: pd.DataFrame, path: str, task: DiagnosisTask) -> None:
    known = {"patient_id", "visit_id", "split", "label", *COPIED, *(finding.name for finding in task.findings)}
    unknown = sorted(set(map(str, frame.columns)) - known)
    if "patient_id" not in frame.columns or unknown:
        wrong = f"unknown column {unknown[0]!r}" if unknown else "no column 'patient_id'"
        raise CohortError(f"cohort.path {path}: {wrong}; known columns are {', '.join(sorted(known))}")


def _check_finding(column: pd.Series, path: str, task: DiagnosisTask) -> None:
    """Raises CohortError where truth values or grade codes would pass for w-scores."""
    place = f"cohort.path {path}: column {str(column.name)!r}"
    known = [value for value in column if not pd.isna(value)]
    if any(isinstance(value, bool | np.bool_) for value in known):
        raise CohortError(f"{place} holds true or false; write {', '.join(task.grade_names)} or a w-score")
    numbers = pd.to_numeric(pd.Series(known, dtype=object), errors="coerce")
    if len(known) >= FEWEST_CODES and numbers.isin(range(len(task.grades))).all():
        raise CohortError(f"{place} looks like grade codes; write {', '.join(task.grade_names)}")
