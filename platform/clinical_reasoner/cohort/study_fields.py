"""Values as ADNI and AIBL write them: subject number, visit code, date, sex, genotype, and ages from them."""

from __future__ import annotations

import re
from datetime import date, datetime

from clinical_reasoner.cohort.cdr import whole_number
from clinical_reasoner.cohort.columns import StudyRow
from clinical_reasoner.cohort.joins import DAYS_PER_YEAR

SEXES = {"1": "male", "2": "female", "Male": "male", "Female": "female"}
"""PTGENDER."""
VISIT_YEARS = (1990, 2100)
BIRTH_YEARS = (1880, 2010)
"""A date outside is one that was not known or is mistyped."""
_SCREENING = frozenset({"sc", "scmri"})


def subject_number(row: StudyRow) -> int:
    """RID, the number of the subject within the study; ADNI's PTID (`NNN_S_RRRR`) ends in it.

    Raises ValueError when it is missing, or names another subject than PTID does.
    """
    number = whole_number(row, "RID", 1, 999_999)
    if number is None:
        raise ValueError("RID is missing")
    full = re.fullmatch(r"\d+_S_(\d+)", row.text("PTID") or "", re.IGNORECASE)
    if full and int(full[1]) != number:
        raise ValueError("PTID and RID name different subjects")
    return number


def study_visit(row: StudyRow) -> tuple[str, bool]:
    """(visit id as `bl` or `m06`, whether it was the screening, which counts as baseline).

    VISCODE2, the visit in the study's common count, before VISCODE, which the phases of ADNI number anew (`v03`).
    Raises ValueError for codes that are no visit of the study: `f` (screen failure), `nv`, `uns1` and the like.
    """
    plain = (row.text("VISCODE2") or row.text("VISCODE") or "").lower()
    if plain in _SCREENING:
        return "bl", True
    month = re.fullmatch(r"m(\d{1,3})", plain)
    if plain != "bl" and not month:
        raise ValueError("VISCODE is no visit of the study (bl, m06, m12, ...)")
    months = int(month[1]) if month else 0
    return (f"m{months:02d}" if months else "bl"), False


def months_of(visit_id: str) -> int:
    """Months from baseline of a visit id as `study_visit` writes it."""
    return 0 if visit_id == "bl" else int(visit_id[1:])


def read_date(row: StudyRow, name: str) -> date | None:
    """A day, from `2005-09-08` or `09/08/2005` (month first in both studies), with or without a time behind it.

    Raises ValueError that names the column.
    """
    text = row.text(name)
    if text is None:
        return None
    for form in ("%Y-%m-%d", "%m/%d/%Y"):
        try:
            day = datetime.strptime(re.split(r"[ T]", text, maxsplit=1)[0], form).date()
        except ValueError:
            continue
        if VISIT_YEARS[0] <= day.year <= VISIT_YEARS[1]:
            return day
    raise ValueError(f"{name} is no date of a visit (YYYY-MM-DD or MM/DD/YYYY)")


def birth(row: StudyRow) -> tuple[int | None, int | None]:
    """(year, month) of birth, from PTDOB as `09/1935`, `09/15/1935` or AIBL's `/1935`, else from PTDOBYY and PTDOBMM.

    Raises ValueError that names the column.
    """
    text = row.text("PTDOB")
    if text is None:
        return whole_number(row, "PTDOBYY", *BIRTH_YEARS), whole_number(row, "PTDOBMM", 1, 12)
    match = re.fullmatch(r"(?:(\d{0,2})/(?:\d{1,2}/)?)?(\d{4})", text)
    month = int(match[1]) if match and match[1] else None
    if not match or not BIRTH_YEARS[0] <= int(match[2]) <= BIRTH_YEARS[1] or month not in (None, *range(1, 13)):
        raise ValueError("PTDOB is no month and year of birth (MM/YYYY or /YYYY)")
    return int(match[2]), month


def age_at(year: int | None, month: int | None, day: date | None) -> float | None:
    """Age on a day, years: to one decimal from the middle of the month of birth, else the difference of the years."""
    if day is None or year is None:
        return None
    if month is None:
        return float(day.year - year)
    return round((day - date(year, month, 15)).days / DAYS_PER_YEAR, 1)


def years_from_baseline(visit_id: str, day: date | None, baseline: date | None) -> float:
    """Years between two days; where one is not known, from the months in the visit's name."""
    if day is None or baseline is None:
        return months_of(visit_id) / 12
    return (day - baseline).days / DAYS_PER_YEAR


def apoe4_copies(row: StudyRow) -> int | None:
    """Number of e4 among the two alleles, from GENOTYPE as `3/4` or from APGEN1 and APGEN2; None when one is missing.

    Raises ValueError for anything else, as the `4-Mar` that a spreadsheet makes of `3/4`.
    """
    genotype = row.text("GENOTYPE")
    if genotype is not None:
        pair = re.fullmatch(r"e?([234]) ?/ ?e?([234])", genotype.lower())
        if not pair:
            raise ValueError("GENOTYPE is not two of 2, 3 and 4, as in 3/4")
        return pair.groups().count("4")
    alleles = [row.code(name, {"2": "2", "3": "3", "4": "4"}) for name in ("APGEN1", "APGEN2")]
    return None if None in alleles else alleles.count("4")
