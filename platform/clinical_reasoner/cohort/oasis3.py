"""OASIS-3: clinical visits, their diagnoses and the scans near them (LaMontagne 2019, doi:10.1101/2019.12.13.19014902).

Codings of the forms: NACC, Uniform Data Set Researcher's Data Dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_reasoner.cohort.cdr import CDR_SOURCE, cdr_label, mmse_points
from clinical_reasoner.cohort.columns import StudyRow, read_study_table
from clinical_reasoner.cohort.joins import DAYS_PER_YEAR
from clinical_reasoner.cohort.nacc import (
    NOT_AD,
    NOT_MCI,
    UDS_EDUCATION_MISSING,
    UDS_MARITAL_STATUS,
    UDS_MARITAL_UNKNOWN,
    UDS_MMSE_MISSING,
    UDS_SEXES,
)
from clinical_reasoner.cohort.oasis3_tables import find_files, join_nearest, read_dated, subject_of
from clinical_reasoner.cohort.oasis3_volumes import SCAN_COLUMNS, SCAN_OPTIONAL, scan_fields
from clinical_reasoner.cohort.visits import Visit, set_aside
from clinical_reasoner.records import RejectedRow

OASIS3 = "OASIS-3"
DEMOGRAPHICS, CDR_FORM, VOLUMES = "OASIS3_demographics", "OASIS3_UDSb4_cdr", "OASIS3_Freesurfer_output"
MARITAL_FORM, DIAGNOSIS_FORM = "OASIS3_UDSa1_participant_demo", "OASIS3_UDSd1_diagnoses"
DIAGNOSIS_SOURCE = "UDS form D1"
MOST_DAYS = 365
"""Between a visit and a scan, or a form with what hardly changes."""
APOE4_COPIES = {"22": "0", "23": "0", "33": "0", "24": "1", "34": "1", "44": "2"}
"""APOE names both alleles; 0 is missing."""

_STATES = {
    "NORMCOG": "NC",
    **dict.fromkeys(("MCIAMEM", "MCIAPLUS", "MCINON1", "MCINON2"), "MCI"),
    "IMPNOMCI": NOT_MCI,
    "DEMENTED": NOT_AD,
}
_AD_CAUSES = ("PROBAD", "POSSAD", "alzdis")
"""Probable and possible AD in UDS 1 and 2, AD in UDS 3: any of them is what NACC calls NACCALZD 1."""
_FLAGS = {"0": "no", "1": "yes"}
_FORM = {"subject": ("OASISID", "Subject"), "session": ("OASIS_session_label",), "days_to_visit": ("days_to_visit",)}
_COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    DEMOGRAPHICS: {"subject": ("OASISID",), **{name: (name,) for name in ("AgeatEntry", "GENDER", "EDUC", "APOE")}},
    CDR_FORM: {**_FORM, "age at visit": ("age at visit", "age_at_visit"), "MMSE": ("MMSE",), "CDRTOT": ("CDRTOT",)},
    MARITAL_FORM: {**_FORM, "MARISTAT": ("MARISTAT",)},
    DIAGNOSIS_FORM: {**_FORM, **{name: (name,) for name in (*_STATES, *_AD_CAUSES)}},
    VOLUMES: SCAN_COLUMNS,
}


@dataclass(frozen=True)
class _Person:
    sex: str | None = None
    education_years: float | None = None
    apoe4_copies: int | None = None
    age_at_entry_years: float | None = None


def read_oasis3(folder: Path) -> Iterator[Visit | RejectedRow]:
    """One visit for each row of OASIS3_UDSb4_cdr.csv, with age and MMSE of that day.

    OASIS3_demographics.csv is joined by subject, OASIS3_UDSd1_diagnoses.csv by subject and day. Where the folder has
    the latter, the label is that diagnosis alone and a visit without one is set aside; else it is a proxy from the CDR
    (see `cdr_label`). OASIS3_UDSa1_participant_demo.csv and OASIS3_Freesurfer_output.csv, which may be missing too, are
    joined by subject and nearest day, at most MOST_DAYS apart (see `join_nearest`): no scan serves two visits.

    Raises StudyFileError when a file cannot be used as a whole or one of the first two is not there.
    """
    files = find_files(folder, tuple(_COLUMNS), needed=(CDR_FORM, DEMOGRAPHICS))
    rejected: list[RejectedRow] = []
    people = _read_people(files, rejected)
    visits = read_dated(_rows(CDR_FORM, files), _visit_fields, rejected)
    diagnoses = join_nearest(read_dated(_rows(DIAGNOSIS_FORM, files), _diagnosis, rejected), visits, 0, rejected)
    marital = join_nearest(read_dated(_rows(MARITAL_FORM, files), _marital, rejected), visits, MOST_DAYS, rejected)
    scans = join_nearest(read_dated(_rows(VOLUMES, files), scan_fields, rejected), visits, MOST_DAYS, rejected)
    unused = (place for subject, (place, _) in people.items() if subject not in visits)
    yield from rejected
    yield from (set_aside(place, "no clinical visit of this person") for place in unused)
    for subject, days in visits.items():
        _, person = people.get(subject, ("", _Person()))
        for day, dated in sorted(days.items()):
            key = (subject, day)
            try:
                fields = dated.value | _label(dated.row, diagnoses.get(key), DIAGNOSIS_FORM in files)
                fields |= _person_fields(person, day, fields["age_years"])
            except ValueError as error:
                yield set_aside(dated.row.place, str(error))
            else:
                fields |= {"visit_id": f"d{day:04d}", "years_from_baseline": (day - min(days)) / DAYS_PER_YEAR}
                yield Visit(patient_id=subject, **fields | marital.get(key, {}) | scans.get(key, {}))


def _rows(table: str, files: Mapping[str, Path]) -> Iterator[StudyRow]:
    """Rows of a table; none where the folder does not have it."""
    if table not in files:
        return iter(())
    columns = _COLUMNS[table]
    optional = SCAN_OPTIONAL if table == VOLUMES else ("session",)
    required = [name for name in columns if name not in optional]
    return read_study_table(files[table], columns, required, missing=("#N/A",))


def _read_people(files: Mapping[str, Path], rejected: list[RejectedRow]) -> dict[str, tuple[str, _Person]]:
    """Subject -> place and what is known. Rows that differ about one person are all set aside: which is right is
    unknown."""
    people: dict[str, tuple[str, _Person]] = {}
    torn: set[str] = set()
    for row in _rows(DEMOGRAPHICS, files):
        try:
            subject, person = subject_of(row), _person(row)
            place, earlier = people.setdefault(subject, (row.place, person))
            if earlier != person:
                torn.add(subject)
                raise ValueError("rows about one person differ")
            if place != row.place:
                raise ValueError("the same person as an earlier row")
        except ValueError as error:
            rejected.append(set_aside(row.place, str(error)))
    rejected += [set_aside(people.pop(subject)[0], "rows about one person differ") for subject in sorted(torn)]
    return people


def _person(row: StudyRow) -> _Person:
    copies = row.code("APOE", APOE4_COPIES, missing=("0",))
    return _Person(
        sex=row.code("GENDER", UDS_SEXES),
        education_years=row.number("EDUC", 0, 40, UDS_EDUCATION_MISSING),
        apoe4_copies=None if copies is None else int(copies),
        age_at_entry_years=row.number("AgeatEntry", 0, 130),
    )


def _person_fields(person: _Person, day: int, age_years: float | None) -> dict[str, Any]:
    """Where the form does not tell the age, it is that at entry and the time since. Raises ValueError for no age."""
    if age_years is None and person.age_at_entry_years is not None:
        age_years = person.age_at_entry_years + day / DAYS_PER_YEAR
        if not 0 <= age_years <= 130:
            raise ValueError("the age on the day of the visit is outside 0 to 130")
    return {
        "sex": person.sex,
        "education_years": person.education_years,
        "apoe4_copies": person.apoe4_copies,
        "age_years": age_years,
    }


def _visit_fields(row: StudyRow) -> dict[str, Any]:
    return {
        "cohort": OASIS3,
        "age_years": row.number("age at visit", 0, 130),
        "mmse": mmse_points(row, "MMSE", UDS_MMSE_MISSING),
        "source": row.place,
    }


def _marital(row: StudyRow) -> dict[str, Any]:
    return {"marital_status": row.code("MARISTAT", UDS_MARITAL_STATUS, UDS_MARITAL_UNKNOWN)}


def _diagnosis(row: StudyRow) -> str:
    """A label, or why the state is none. Raises ValueError for a form that marks no state or several."""
    states = {state for name, state in _STATES.items() if row.code(name, _FLAGS) == "yes"}
    if len(states) != 1:
        raise ValueError("the form marks several cognitive states" if states else "the form marks no cognitive state")
    (state,) = states
    if state == NOT_AD and any(row.code(name, _FLAGS) == "yes" for name in _AD_CAUSES):
        return "AD"
    return state


def _label(row: StudyRow, diagnosis: str | None, by_form: bool) -> dict[str, Any]:
    if not by_form:
        return {"label": cdr_label(row, "CDRTOT"), "label_source": CDR_SOURCE}
    if diagnosis is None:
        raise ValueError("no form D1 of this day that could be used, so no diagnosis")
    if diagnosis in (NOT_MCI, NOT_AD):
        raise ValueError(diagnosis)
    return {"label": diagnosis, "label_source": DIAGNOSIS_SOURCE}
