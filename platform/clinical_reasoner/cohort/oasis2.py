"""OASIS-2, longitudinal: `oasis_longitudinal.csv` as downloaded (Marcus 2010, doi:10.1162/jocn.2009.21407).

150 people from 60 to 98 years, two to five visits each. No marital status, no APOE and no regional volumes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clinical_reasoner.cohort.cdr import CDR_SOURCE, cdr_label, mmse_points, visit_per_row
from clinical_reasoner.cohort.columns import StudyRow, read_study_table
from clinical_reasoner.cohort.joins import DAYS_PER_YEAR
from clinical_reasoner.cohort.oasis1 import SEXES, head_measures, warnings_of
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.records import RejectedRow

OASIS2 = "OASIS-2"
OASIS2_SHA256 = "d2f0a15ff35fa4a65c35c064b848fc1b396e9d2f4aec935c88d6e1588d31d40e"
"""Of the file as released; edited copies are in circulation."""
_LONGEST_DAYS = 60 * 365

# Group is not read: it is one label for all visits of a person, so that of the people who converted tells the future,
# and some visits of the Nondemented have a CDR of 0.5. Visit is not read: MRI ID has the same number.
_COLUMNS = {
    "Subject ID": ("Subject ID", "Subject.ID"),
    "MRI ID": ("MRI ID", "MRI.ID"),
    "MR Delay": ("MR Delay", "MR.Delay"),
    "M/F": ("M/F", "M.F", "Sex"),
    "Age": ("Age",),
    "EDUC": ("EDUC",),
    "MMSE": ("MMSE",),
    "CDR": ("CDR",),
    "eTIV": ("eTIV",),
    "nWBV": ("nWBV",),
}
_MRI_ID = re.compile(r"(OAS2_\d{4})_(MR\d+)", re.IGNORECASE | re.ASCII)


def read_oasis2(file: Path) -> Iterator[Visit | RejectedRow]:
    """One visit for each row. Age, MMSE and CDR are those of the visit, and the label is a proxy from that CDR (see
    `cdr_label`); time is that since the first scan, MR Delay. Measures: `icv` and `whole_brain`, mm3. A file other than
    the released one is a warning.

    Raises StudyFileError when the file cannot be used as a whole.
    """
    edited = warnings_of(file, OASIS2_SHA256)
    return visit_per_row(read_study_table(file, _COLUMNS, tuple(_COLUMNS)), lambda row: _visit(row, edited))


def _visit(row: StudyRow, warnings: tuple[str, ...]) -> Visit:
    match = _MRI_ID.fullmatch(row.text("MRI ID") or "")
    if not match:
        raise ValueError("MRI ID is not of the form OAS2_NNNN_MRN")
    patient_id = match[1].upper()
    if (row.text("Subject ID") or "").upper() != patient_id:
        raise ValueError("Subject ID and MRI ID name different subjects")
    delay_days = row.number("MR Delay", 0, _LONGEST_DAYS)
    if delay_days is None:
        raise ValueError("no MR Delay, so no place among the person's visits")
    return Visit(
        patient_id=patient_id,
        visit_id=match[2].upper(),
        cohort=OASIS2,
        label=cdr_label(row, "CDR"),
        label_source=CDR_SOURCE,
        age_years=row.number("Age", 0, 130),
        sex=row.code("M/F", SEXES),
        education_years=row.number("EDUC", 0, 40),
        mmse=mmse_points(row, "MMSE"),
        measures=head_measures(row),
        years_from_baseline=delay_days / DAYS_PER_YEAR,
        warnings=warnings,
        source=row.place,
    )
