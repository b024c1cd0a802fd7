"""A cohort file, some rows at a time, and what refuses it as a whole: format, columns, codes that would be misread."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

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


def frames(path: str) -> Iterator[pd.DataFrame]:
    """The rows of a CSV or Parquet file, some at a time, indexed by their place in the file. Raises CohortError when it
    cannot be read, or not without misreading it."""
    file = Path(path)
    if not file.is_file():
        raise CohortError(f"cohort.path: no file at {path!r} (looked in {Path.cwd()})")
    try:
        yield from _parquet_frames(file) if file.suffix == ".parquet" else _csv_frames(file)
    except UnicodeDecodeError as error:
        raise CohortError(f"cohort.path {path}: not UTF-8; save it again as UTF-8") from error
    except pd.errors.ParserWarning as error:
        fix = "name every column, and part fields by commas alone"
        raise CohortError(f"cohort.path {path}: lines have more fields than the header; {fix}") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, pa.ArrowInvalid) as error:
        raise CohortError(f"cohort.path {path}: not readable as {file.suffix[1:]} ({type(error).__name__})") from error


def known_rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line in the file, known values); an empty line is no row."""
    for frame in frames(path):
        for place, row in zip(frame.index, frame.to_dict("records"), strict=True):
            known = {str(key): value for key, value in row.items() if not pd.isna(value)}
            if known:
                yield int(place) + 2, known


def check_table(path: str, task: DiagnosisTask) -> None:
    """Raises CohortError for unknown columns, and where truth values or grade codes would pass for w-scores."""
    known, codes = Counter[str](), Counter[str]()
    for number, frame in enumerate(frames(path)):
        if number == 0:
            _check_columns(frame, path, task)
        for finding in task.findings:
            if finding.name in frame.columns:
                values = [value for value in frame[finding.name] if not pd.isna(value)]
                if any(isinstance(value, bool | np.bool_) for value in values):
                    grades = ", ".join(task.grade_names)
                    raise CohortError(f"{_column(path, finding.name)} holds true or false; write {grades} or a w-score")
                numbers = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce")
                known[finding.name] += len(values)
                codes[finding.name] += int(numbers.isin(range(len(task.grades))).sum())
    for name, count in known.items():
        if count >= FEWEST_CODES and codes[name] == count:
            raise CohortError(f"{_column(path, name)} looks like grade codes; write {', '.join(task.grade_names)}")


def _column(path: str, name: str) -> str:
    return f"cohort.path {path}: column {name!r}"


def _parquet_frames(file: Path) -> Iterator[pd.DataFrame]:
    start = 0
    with pq.ParquetFile(file) as table:
        yield table.schema_arrow.empty_table().to_pandas()  # the columns, of a table without rows too
        for batch in table.iter_batches(batch_size=_ROWS_TOGETHER):
            frame = batch.to_pandas()
            frame.index = pd.RangeIndex(start, start + len(frame))
            start += len(frame)
            yield frame


def _csv_frames(file: Path) -> Iterator[pd.DataFrame]:
    if file.suffix != ".csv":
        raise CohortError(f"cohort.path {file}: {file.suffix or 'no'} ending; use .csv or .parquet")
    # pandas would also read "None" as missing, where it may well mean the grade; an id such as 007 keeps its zeros.
    with pd.read_csv(
        file,
        index_col=False,  # where each line ends in a comma, the first column would become the index
        dtype={"patient_id": str, "visit_id": str},
        keep_default_na=False,
        na_values=_MISSING,
        skip_blank_lines=False,  # they count as lines
        chunksize=_ROWS_TOGETHER,
    ) as reader:
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                frame = next(reader, None)
            if frame is None:
                return
            yield frame


def _check_columns(frame: pd.DataFrame, path: str, task: DiagnosisTask) -> None:
    known = {"patient_id", "visit_id", "split", "label", *COPIED, *(finding.name for finding in task.findings)}
    unknown = sorted(set(map(str, frame.columns)) - known)
    if "patient_id" not in frame.columns or unknown:
        wrong = f"unknown column {unknown[0]!r}" if unknown else "no column 'patient_id'"
        raise CohortError(f"cohort.path {path}: {wrong}; known columns are {', '.join(sorted(known))}")
