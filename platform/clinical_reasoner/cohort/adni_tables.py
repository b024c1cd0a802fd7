"""ADNI from its single tables (DXSUM, PTDEMOG, APOERES, MMSE, UCSFFSX): a visit is a row of DXSUM with a diagnosis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from clinical_reasoner.cohort.adni_volumes import read_volumes, scan_fields
from clinical_reasoner.cohort.cdr import mmse_points
from clinical_reasoner.cohort.columns import StudyRow
from clinical_reasoner.cohort.fields import build_visit
from clinical_reasoner.cohort.joins import (
    Entry,
    Facts,
    Key,
    best_entries,
    known,
    left_over,
    left_over_people,
    people_of,
    read_rows,
    read_rows_if_there,
)
from clinical_reasoner.cohort.study_fields import (
    SEXES,
    age_at,
    apoe4_copies,
    birth,
    months_of,
    read_date,
    study_visit,
    subject_number,
    years_from_baseline,
)
from clinical_reasoner.cohort.visits import Visit, set_aside
from clinical_reasoner.records import RejectedRow

ADNI = "ADNI"
DXSUM = ("DXSUM", "DXSUM_PDXCONV", "DXSUM_PDXCONV_ADNIALL")
"""Names of the diagnosis table, the newest first."""
DIAGNOSES = {"1": "NC", "2": "MCI", "3": "AD", "CN": "NC", "NL": "NC", "MCI": "MCI", "Dementia": "AD", "AD": "AD"}
"""DIAGNOSIS, and DXCURREN of ADNI1."""
CHANGES = {"1": "NC", "2": "MCI", "3": "AD", "4": "MCI", "5": "AD", "6": "AD", "7": "NC", "8": "MCI", "9": "NC"}
"""DXCHANGE of ADNIGO and ADNI2 -> the diagnosis after the change: 4 is NL to MCI, 5 MCI to AD, 6 NL to AD, 7 MCI to NL,
8 AD to MCI, 9 AD to NL."""
FLAGS = {"DXNORM": "NC", "DXMCI": "MCI", "DXAD": "AD"}
"""Columns of ADNI1, one of which is 1."""
YES = {"1": "yes", "0": "no"}
CAUSES = {
    "1": "AD",
    "2": "another",
    "Dementia due to Alzheimer's Disease": "AD",
    "Dementia due to other etiology": "another",
}
"""DXDDUE, the suspected cause of a dementia."""
MARITAL = {
    "1": "married",
    "2": "widowed",
    "3": "divorced",
    "4": "never_married",
    "Married": "married",
    "Widowed": "widowed",
    "Divorced": "divorced",
    "Never married": "never_married",
}
"""PTMARRY."""
UNKNOWN_MARITAL = ("5", "Unknown", "6", "Domestic Partnership")
"""6, of newer phases, is none of the four that a patients row knows."""
MOST_YEARS_OF_EDUCATION = 30
OTHER_CAUSE = "dementia of another cause (DXDDUE or DXOTHDEM)"

_VISIT_CODES = ("VISCODE", "VISCODE2")
_KEYS = ("RID", "PTID", *_VISIT_CODES)
_DX = ("DIAGNOSIS", "DXCHANGE", "DXCURREN", *FLAGS)
_DX_COLUMNS = (*_KEYS, "EXAMDATE", *_DX, "DXDDUE", "DXOTHDEM")
_PERSON_COLUMNS = (*_KEYS, "PTGENDER", "PTDOB", "PTDOBYY", "PTDOBMM", "PTMARRY", "PTEDUCAT")
_GENE_COLUMNS = (*_KEYS, "GENOTYPE", "APGEN1", "APGEN2")


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of one visit."""

    label: str | None
    """None: dementia of another cause."""
    source: str
    """The column it was read from."""
    day: date | None


def adni_id(number: int) -> str:
    """Study and RID: RID alone is a subject of AIBL too."""
    return f"{ADNI}-{number:04d}"


def read_adni_tables(folder: Path) -> Iterator[Visit | RejectedRow]:
    """Visits of ADNI from a folder with DXSUM and PTDEMOG and, where there, MMSE, APOERES, UCSFFSX or UCSFFSL.

    Joined by (RID, visit), facts of a person by RID. As in ADNIMERGE, at baseline the MMSE and the MRI are those of the
    screening; the diagnosis is that of baseline, or of the screening where baseline has none. Every row counts with a
    visit or is set aside. Raises StudyFileError for a table that is missing, there twice, or cannot be used.
    """
    diagnoses, no_dx = best_entries(
        read_rows(folder, DXSUM, _DX_COLUMNS, ("RID", "EXAMDATE"), _VISIT_CODES, _DX), _diagnosis
    )
    people, no_person = people_of(
        read_rows(folder, ("PTDEMOG",), _PERSON_COLUMNS, ("RID", "PTGENDER", "PTEDUCAT"), ("PTDOB", "PTDOBYY")), _person
    )
    genes, no_gene = people_of(
        read_rows_if_there(folder, ("APOERES",), _GENE_COLUMNS, ("RID",), ("GENOTYPE", "APGEN1")), _genotype
    )
    scores, no_score = best_entries(
        read_rows_if_there(folder, ("MMSE",), (*_KEYS, "MMSCORE"), ("RID", "MMSCORE"), _VISIT_CODES), _score
    )
    scans, no_scan = read_volumes(folder)
    yield from (*no_dx, *no_person, *no_gene, *no_score, *no_scan)
    used: set[Key] = set()
    for key, entry in diagnoses.items():
        first, score, scan = diagnoses.get((key[0], "bl")), scores.get(key), scans.get(key)
        try:
            visit = build_visit(
                **_fields(key, entry.value, people.get(key[0], []), first.value.day if first else None),
                **scan_fields(scan.value if scan else None),
                apoe4_copies=known(genes.get(key[0], []), "apoe4_copies"),
                mmse=score.value if score else None,
                source=entry.place,
            )
        except ValueError as error:
            yield set_aside(entry.place, str(error))
        else:
            used.add(key)
            yield visit
    yield from left_over((scores, scans), used)
    yield from left_over_people((people, genes), used)


def _fields(key: Key, diagnosis: Diagnosis, people: list[Facts], baseline: date | None) -> dict[str, Any]:
    """What DXSUM and PTDEMOG tell of a visit. Raises ValueError for dementia of another cause."""
    if diagnosis.label is None:
        raise ValueError(OTHER_CAUSE)
    number, visit_id = key
    # Schooling and marriage change: what was said last, and never what was said later than the visit.
    told = [facts for facts in people if facts.months is not None and facts.months <= months_of(visit_id)]
    told.sort(key=lambda facts: facts.months or 0, reverse=True)
    return {
        "patient_id": adni_id(number),
        "visit_id": visit_id,
        "cohort": ADNI,
        "label": diagnosis.label,
        "label_source": diagnosis.source,
        "age_years": age_at(known(people, "birth_year"), known(people, "birth_month"), diagnosis.day),
        "sex": known(people, "sex"),
        "education_years": known(told, "education_years"),
        "marital_status": known(told, "marital_status"),
        "years_from_baseline": years_from_baseline(visit_id, diagnosis.day, baseline),
    }


def _diagnosis(row: StudyRow) -> tuple[Key, Entry[Diagnosis]]:
    visit_id, screening = study_visit(row)
    label, source = _label(row)
    if label == "AD" and (row.code("DXDDUE", CAUSES) == "another" or row.code("DXOTHDEM", YES) == "yes"):
        label = None
    diagnosis = Diagnosis(label, f"DXSUM {source}", read_date(row, "EXAMDATE"))
    return (subject_number(row), visit_id), Entry(row.place, diagnosis, (screening,), label)


def _label(row: StudyRow) -> tuple[str | None, str]:
    """(label, column). Raises ValueError where no column tells, or the flags of ADNI1 tell two."""
    for column, codes in (("DIAGNOSIS", DIAGNOSES), ("DXCHANGE", CHANGES), ("DXCURREN", DIAGNOSES)):
        label = row.code(column, codes)
        if label is not None:
            return label, column
    set_flags = [column for column in FLAGS if row.code(column, YES) == "yes"]
    if row.code("DXOTHDEM", YES) == "yes" and not set_flags:
        return None, "DXOTHDEM"
    if len(set_flags) != 1:
        raise ValueError("no diagnosis of this visit" if not set_flags else "DXNORM, DXMCI, DXAD: more than one is 1")
    return FLAGS[set_flags[0]], set_flags[0]


def _person(row: StudyRow) -> tuple[int, Facts]:
    try:
        months = months_of(study_visit(row)[0])
    except ValueError:  # a visit outside the common count, as a failed screening: sex and birth hold all the same
        months = None
    year, month = birth(row)
    facts = Facts(
        place=row.place,
        sex=row.code("PTGENDER", SEXES),
        birth_year=year,
        birth_month=month,
        months=months,
        education_years=row.number("PTEDUCAT", 0, MOST_YEARS_OF_EDUCATION),
        marital_status=row.code("PTMARRY", MARITAL, UNKNOWN_MARITAL),
    )
    return subject_number(row), facts


def _genotype(row: StudyRow) -> tuple[int, Facts]:
    copies = apoe4_copies(row)
    if copies is None:
        raise ValueError("no genotype")
    return subject_number(row), Facts(row.place, apoe4_copies=copies)


def _score(row: StudyRow) -> tuple[Key, Entry[int]]:
    visit_id, screening = study_visit(row)
    points = mmse_points(row, "MMSCORE")
    if points is None:
        raise ValueError("MMSCORE is missing")
    return (subject_number(row), visit_id), Entry(row.place, points, (not screening,), points)
