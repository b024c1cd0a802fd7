"""OASIS-1, cross-sectional: `oasis_cross-sectional.csv` as downloaded (Marcus 2007, doi:10.1162/jocn.2007.19.9.1498).

416 people from 18 to 96 years, one visit each, and 20 rescans. Clinical data for 235 of them. No marital status, no
APOE and no regional volumes. 116 of the 198 people of 60 years and above are in OASIS-2 as well: a model trained on the
one is tested on the other only without them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from clinical_reasoner.cohort.cdr import CDR_SOURCE, cdr_label, mmse_points, visit_per_row
from clinical_reasoner.cohort.columns import StudyRow, read_study_table
from clinical_reasoner.cohort.visits import Visit, measure
from clinical_reasoner.records import Measure, RejectedRow

OASIS1 = "OASIS-1"
OASIS1_SHA256 = "059f0c5ea237a20e1455c2a22decac1224f542bf108d7befd0e12a9b48abfe57"
"""Of the file as released. Copies with imputed SES, CDR filled with 0 or rows dropped are in circulation."""
EDUCATION_LEVELS = {
    "1": "less_than_high_school",
    "2": "high_school",
    "3": "some_college",
    "4": "college_graduate",
    "5": "beyond_college",
}
"""Educ is a code and not years; of OASIS-2's years: below 12, 12, 13 to 15, 16, above 16."""
SEXES = {"F": "female", "M": "male"}
EDITED = "not the released file: its SHA-256 differs"
FILLED_IN = "CDR without MMSE and Educ, which the released file has only together; is it an edited copy?"

ICV_CM3 = (900.0, 2200.0)
"""Plausible intracranial volumes, cm3."""
BRAIN_FRACTIONS = (0.3, 1.0)
"""Plausible brain volumes as parts of the intracranial volume."""

# ASF is not read: it is about 1755 / eTIV, and wrong in one row of the released file.
_COLUMNS = {
    "ID": ("ID",),
    "M/F": ("M/F", "M.F", "Sex"),
    "Age": ("Age",),
    "Educ": ("Educ",),
    "MMSE": ("MMSE",),
    "CDR": ("CDR",),
    "eTIV": ("eTIV",),
    "nWBV": ("nWBV",),
}
_ID = re.compile(r"(OAS1_\d{4})_(MR\d+)", re.IGNORECASE | re.ASCII)


def read_oasis1(file: Path) -> Iterator[Visit | RejectedRow]:
    """One visit for each person with a CDR; rescans and people without a CDR are set aside. The label is a proxy from
    the CDR (see `cdr_label`). Measures: `icv` and `whole_brain`, mm3. A file other than the released one is a warning.

    Raises StudyFileError when the file cannot be used as a whole.
    """
    edited = warnings_of(file, OASIS1_SHA256)
    return visit_per_row(read_study_table(file, _COLUMNS, tuple(_COLUMNS)), lambda row: _visit(row, edited))


def warnings_of(file: Path, released_sha256: str) -> tuple[str, ...]:
    """What is to be said at each visit of a table that is not the released one, byte for byte."""
    if not file.is_file():  # said when it is read
        return ()
    with file.open("rb") as stream:
        return () if hashlib.file_digest(stream, "sha256").hexdigest() == released_sha256 else (EDITED,)


def head_measures(row: StudyRow) -> tuple[Measure, ...]:
    """`icv` = eTIV and `whole_brain` = nWBV x eTIV, both in mm3; eTIV is written in cm3 and nWBV as a part of it.

    Less brain = more atrophy. Raises ValueError, without the value, for an implausible one, such as another unit's.
    """
    icv_cm3 = row.number("eTIV", *ICV_CM3)
    fraction = row.number("nWBV", *BRAIN_FRACTIONS)
    if icv_cm3 is None:
        return ()
    icv = measure("icv", icv_cm3 * 1000)
    return (icv,) if fraction is None else (icv, measure("whole_brain", fraction * icv_cm3 * 1000))


def _visit(row: StudyRow, warnings: tuple[str, ...]) -> Visit:
    match = _ID.fullmatch(row.text("ID") or "")
    if not match:
        raise ValueError("ID is not of the form OAS1_NNNN_MRN")
    patient_id, visit_id = match[1].upper(), match[2].upper()
    if visit_id != "MR1":
        raise ValueError("a rescan to test reliability, without clinical data of its own")
    label = cdr_label(row, "CDR")
    education, mmse = row.code("Educ", EDUCATION_LEVELS), mmse_points(row, "MMSE")
    return Visit(
        patient_id=patient_id,
        visit_id=visit_id,
        cohort=OASIS1,
        label=label,
        label_source=CDR_SOURCE,
        age_years=row.number("Age", 0, 130),
        sex=row.code("M/F", SEXES),
        education_level=education,
        mmse=mmse,
        measures=head_measures(row),
        warnings=(*warnings, FILLED_IN) if education is None and mmse is None else warnings,
        source=row.place,
    )
