"""NACC Uniform Data Set: one file with a row for each visit, such as `investigator_nacc70.csv`.

Codings: NACC, Uniform Data Set Researcher's Data Dictionary (UDS version 3). -4 is missing in every column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from clinical_reasoner.cohort.cdr import mmse_points, visit_per_row, whole_number
from clinical_reasoner.cohort.columns import StudyRow, read_study_table
from clinical_reasoner.cohort.joins import DAYS_PER_YEAR
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.records import RejectedRow

NACC = "NACC"
UDS_SEXES = {"1": "male", "2": "female"}
UDS_MARITAL_STATUS = {"1": "married", "2": "widowed", "3": "divorced", "5": "never_married"}
UDS_MARITAL_UNKNOWN = ("4", "6", "8", "9")
"""Separated, living as married and other are none of what a row can say; 9 is unknown."""
UDS_MMSE_MISSING = (88, 95, 96, 97, 98)
"""88 a missing item; 95 to 98 not done: physical, cognitive or other problem, refusal."""
UDS_EDUCATION_MISSING = (99,)
NOT_MCI = "impaired, but not MCI: none of AD, MCI, NC"
NOT_AD = "dementia that is not put down to Alzheimer's disease: none of AD, MCI, NC"

_COLUMNS = {
    name: (name,)
    for name in (
        "NACCID",
        "NACCVNUM",
        "VISITYR",
        "VISITMO",
        "VISITDAY",
        "NACCAGE",
        "SEX",
        "EDUC",
        "MARISTAT",
        "NACCMMSE",
        "NACCNE4S",
        "NACCUDSD",
        "NACCALZD",
    )
}
_ID = re.compile(r"NACC\d{6}", re.IGNORECASE | re.ASCII)
_YEARS = (2005, 2060)
"""The UDS began in 2005."""
_STATES = {"1": "normal", "2": "impaired, not MCI", "3": "MCI", "4": "dementia"}
_CAUSES = {"0": "another", "1": "AD", "8": "no impairment"}


def read_nacc(file: Path) -> Iterator[Visit | RejectedRow]:
    """One visit for each row. Age and cognitive status are those of the visit: NACCUDSD 1 NC, 3 MCI, 4 with NACCALZD 1
    (Alzheimer's disease as a cause) AD. Impairment that is no MCI and dementia of another cause are set aside.

    The file is read twice, since time counts from each person's first visit in it. Raises StudyFileError when the file
    cannot be used as a whole.
    """
    first = _first_visits(file)
    return visit_per_row(read_study_table(file, _COLUMNS, tuple(_COLUMNS)), lambda row: _visit(row, first))


def _first_visits(file: Path) -> dict[str, date]:
    first: dict[str, date] = {}
    for row in read_study_table(file, _COLUMNS, tuple(_COLUMNS)):
        try:
            patient_id, day = _patient_id(row), _date(row)
        except ValueError:
            continue  # said when the row is read again
        first[patient_id] = min(day, first.get(patient_id, day))
    return first


def _patient_id(row: StudyRow) -> str:
    patient_id = (row.text("NACCID") or "").upper()
    if not _ID.fullmatch(patient_id):
        raise ValueError("NACCID is not of the form NACCNNNNNN")
    return patient_id


def _date(row: StudyRow) -> date:
    year = whole_number(row, "VISITYR", *_YEARS)
    month, day = whole_number(row, "VISITMO", 1, 12), whole_number(row, "VISITDAY", 1, 31)
    if year is None or month is None or day is None:
        raise ValueError("no VISITYR, VISITMO and VISITDAY, so no place among the person's visits")
    try:
        return date(year, month, day)
    except ValueError as error:
        raise ValueError("VISITYR, VISITMO and VISITDAY are no date") from error


def _label(row: StudyRow) -> str:
    state, cause = row.code("NACCUDSD", _STATES), row.code("NACCALZD", _CAUSES)
    if state is None:
        raise ValueError("no NACCUDSD, so no diagnosis")
    if state == "impaired, not MCI":
        raise ValueError(NOT_MCI)
    if state == "dementia" and cause != "AD":
        raise ValueError(NOT_AD)
    return {"normal": "NC", "MCI": "MCI", "dementia": "AD"}[state]


def _visit(row: StudyRow, first: dict[str, date]) -> Visit:
    patient_id, day = _patient_id(row), _date(row)
    number = whole_number(row, "NACCVNUM", 1, 99)
    if number is None:
        raise ValueError("NACCVNUM is empty")
    return Visit(
        patient_id=patient_id,
        visit_id=f"v{number}",
        cohort=NACC,
        label=_label(row),
        label_source="NACCUDSD, NACCALZD",
        age_years=row.number("NACCAGE", 0, 130),
        sex=row.code("SEX", UDS_SEXES),
        education_years=row.number("EDUC", 0, 36, UDS_EDUCATION_MISSING),
        marital_status=row.code("MARISTAT", UDS_MARITAL_STATUS, UDS_MARITAL_UNKNOWN),
        mmse=mmse_points(row, "NACCMMSE", UDS_MMSE_MISSING),
        apoe4_copies=whole_number(row, "NACCNE4S", 0, 2, missing=(9,)),
        years_from_baseline=(day - first[patient_id]).days / DAYS_PER_YEAR,
        source=row.place,
    )
