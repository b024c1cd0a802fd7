"""AIBL, the Australian Imaging, Biomarker & Lifestyle study of ageing: `aibl_*.csv` of its data extract.

It tells no education and no marital status, and of the birth the year alone, so that age is a difference of years.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

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
    read_date,
    study_visit,
    subject_number,
    years_from_baseline,
)
from clinical_reasoner.cohort.visits import Visit, set_aside
from clinical_reasoner.records import RejectedRow

AIBL = "AIBL"
DXCURREN = {"1": "NC", "2": "MCI", "3": "AD"}
FIELD_STRENGTHS = {"aibl_mrimeta": 1.5, "aibl_mri3meta": 3.0}
"""Table of the scans of one kind of scanner -> tesla."""

_KEYS = ("RID", "VISCODE")
_PERSON = ("RID", "PTGENDER", "PTDOB")
_GENES = ("RID", "APGEN1", "APGEN2")
_EXAMS: dict[str, tuple[str, ...]] = {
    "aibl_mmse": ("MMSCORE",),
    "aibl_cdr": (),
    "aibl_neurobat": (),
    "aibl_mrimeta": ("MMSMPRAGE",),
    "aibl_mri3meta": ("MMSMPRAGE",),
}
"""Tables with the date of the visit, and what else is read from them. The first date that is known counts."""


@dataclass(frozen=True)
class _Exam:
    """What a table of examinations tells of a visit."""

    day: date | None
    points: int | None
    """MMSE."""
    scanned: bool
    """A T1 was made (MMSMPRAGE 1)."""


def read_aibl(folder: Path) -> Iterator[Visit | RejectedRow]:
    """Visits of AIBL from a folder with aibl_pdxconv (diagnosis), aibl_ptdemog and aibl_mmse and, where there,
    aibl_apoeres, aibl_cdr, aibl_neurobat, aibl_mrimeta and aibl_mri3meta.

    A visit is a row of aibl_pdxconv with a diagnosis; joined by (RID, VISCODE), facts of a person by RID. The field
    strength is known where the visit's T1 was made on one kind of scanner. Every row counts with a visit or is set
    aside. Raises StudyFileError for a table that is missing, there twice, or cannot be used.
    """
    diagnoses, problems = best_entries(
        read_rows(folder, ("aibl_pdxconv",), (*_KEYS, "DXCURREN"), (*_KEYS, "DXCURREN")), _diagnosis
    )
    people, more = people_of(read_rows(folder, ("aibl_ptdemog",), _PERSON, _PERSON), _person)
    genes, most = people_of(read_rows_if_there(folder, ("aibl_apoeres",), _GENES, _GENES), _genotype)
    yield from (*problems, *more, *most)
    exams: dict[str, dict[Key, Entry[_Exam]]] = {}
    for table, own in _EXAMS.items():
        columns = (*_KEYS, "EXAMDATE", *own)
        read = read_rows if table == "aibl_mmse" else read_rows_if_there
        exams[table], problems = best_entries(read(folder, (table,), columns, columns), _exam)
        yield from problems
    used: set[Key] = set()
    for key, entry in diagnoses.items():
        try:
            visit = _visit(key, entry, people.get(key[0], []), genes.get(key[0], []), exams)
        except ValueError as error:
            yield set_aside(entry.place, str(error))
        else:
            used.add(key)
            yield visit
    yield from left_over(exams.values(), used)
    yield from left_over_people((people, genes), used)


def _visit(
    key: Key,
    diagnosis: Entry[str],
    people: list[Facts],
    genes: list[Facts],
    exams: dict[str, dict[Key, Entry[_Exam]]],
) -> Visit:
    number, visit_id = key
    score = exams["aibl_mmse"].get(key)
    strengths = [
        tesla for table, tesla in FIELD_STRENGTHS.items() if key in exams[table] and exams[table][key].value.scanned
    ]
    day = _day(key, exams)
    return build_visit(
        patient_id=f"{AIBL}-{number:04d}",
        visit_id=visit_id,
        cohort=AIBL,
        label=diagnosis.value,
        label_source="DXCURREN",
        age_years=age_at(known(people, "birth_year"), None, day),
        sex=known(people, "sex"),
        mmse=score.value.points if score else None,
        apoe4_copies=known(genes, "apoe4_copies"),
        field_strength_t=strengths[0] if len(strengths) == 1 else None,
        years_from_baseline=years_from_baseline(visit_id, day, _day((number, "bl"), exams)),
        source=diagnosis.place,
    )


def _day(key: Key, exams: dict[str, dict[Key, Entry[_Exam]]]) -> date | None:
    """The date of a visit."""
    return next((table[key].value.day for table in exams.values() if key in table and table[key].value.day), None)


def _diagnosis(row: StudyRow) -> tuple[Key, Entry[str]]:
    label = row.code("DXCURREN", DXCURREN)
    if label is None:
        raise ValueError("no diagnosis of this visit")
    return (subject_number(row), study_visit(row)[0]), Entry(row.place, label, claim=label)


def _person(row: StudyRow) -> tuple[int, Facts]:
    return subject_number(row), Facts(row.place, sex=row.code("PTGENDER", SEXES), birth_year=birth(row)[0])


def _genotype(row: StudyRow) -> tuple[int, Facts]:
    copies = apoe4_copies(row)
    if copies is None:
        raise ValueError("no genotype")
    return subject_number(row), Facts(row.place, apoe4_copies=copies)


def _exam(row: StudyRow) -> tuple[Key, Entry[_Exam]]:
    points = mmse_points(row, "MMSCORE")
    exam = _Exam(read_date(row, "EXAMDATE"), points, row.text("MMSMPRAGE") in ("1", "1.0"))
    return (subject_number(row), study_visit(row)[0]), Entry(row.place, exam, (points is None,), points)
