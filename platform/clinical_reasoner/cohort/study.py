"""From visits to rows of the `patients` table: labels checked, visits chosen, ids replaced, people split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clinical_reasoner.cohort.deidentify import TOP_AGE, cap_age, deidentify_visit, load_key, pseudonym
from clinical_reasoner.cohort.free_text import check_redaction, redact
from clinical_reasoner.cohort.readers import local_path, read_visits
from clinical_reasoner.cohort.splits import split_of
from clinical_reasoner.cohort.spool import Spool
from clinical_reasoner.cohort.study_files import study_fingerprint
from clinical_reasoner.cohort.study_volumes import join_volumes
from clinical_reasoner.cohort.tables import read_table_visits
from clinical_reasoner.cohort.visits import REGIONS, Visit, choose_visits, set_aside
from clinical_reasoner.config.cohort import DeidentifyConfig, StudyCohort, TableCohort, VisitChoice
from clinical_reasoner.records import PatientRow, RejectedRow, Split
from clinical_reasoner.stages import file_fingerprint
from clinical_reasoner.task import DiagnosisTask

_AGE = "age_years"
PEOPLE_TOGETHER = 2048
"""People whose visits are in memory at a time."""


def cohort_rows(
    cohort: StudyCohort | TableCohort, task: DiagnosisTask, shares: Mapping[Split, float], pictures: bool = False
) -> Iterator[PatientRow | RejectedRow]:
    """Patients, and the rows that are not used with their reasons: each visit and each rejected row of the reader is
    one or the other, and so is each row of `cohort.volumes` that belongs to no visit.

    With pseudonyms, patients come in the order of these, as that of the file would tell who is who; and paths stay
    where label maps are still to be measured, or scans to be shown (`pictures`): they may tell ids, and the table of
    patients is not for passing on where there are any.

    Raises UserError when the files, or the key of pseudonyms, cannot be used as a whole.
    """
    key = study_key(cohort)
    if cohort.deidentify.notes == "redact":
        check_redaction(cohort.deidentify.language, cohort.deidentify.spacy_model)
    choice = cohort.visits if isinstance(cohort, StudyCohort) else "all"
    spool, people = Spool(), dict[str, int]()
    for found in _visits(cohort, task):
        refused = _refused(found, task, choice) if isinstance(found, Visit) else None
        if not isinstance(found, Visit):
            yield found
        elif refused:
            yield set_aside(found.source, refused)
        else:
            shown = _shown(found, cohort, key, shares, pictures)
            place = people.setdefault(shown.patient_id, len(people)) // PEOPLE_TOGETHER if key is None else 0
            spool.add(shown.patient_id[0] if key else f"{place:09d}", shown)
    for visits in spool.drain():
        if key is not None:
            visits.sort(key=lambda visit: visit.patient_id)
        yield from _chosen(visits, choice)


def study_key(cohort: StudyCohort | TableCohort) -> bytes | None:
    """The key of pseudonyms; None where ids are kept. Raises UserError when it is missing or too weak."""
    settings = cohort.deidentify
    if settings.ids == "keep":
        return None
    return load_key(local_path(cohort.path), Path(settings.key_file).expanduser() if settings.key_file else None)


def study_source(cohort: StudyCohort) -> dict[str, Any]:
    """What the patients of a study are made from, by content: files and key, neither of which can be told from it."""
    key = study_key(cohort)
    return {"files": study_fingerprint(cohort), "key": None if key is None else pseudonym("", key)}


def table_source(cohort: TableCohort) -> dict[str, Any]:
    """As `study_source`, of a table of one's own."""
    key = study_key(cohort)
    return {"file": file_fingerprint(str(local_path(cohort.path))), "key": None if key is None else pseudonym("", key)}


def to_be_measured(visit: PatientRow) -> bool:
    """Whether no table tells the volumes of the visit's regions."""
    return not any(measure.name in REGIONS and measure.name != "icv" for measure in visit.measures)


def _visits(cohort: StudyCohort | TableCohort, task: DiagnosisTask) -> Iterator[Visit | RejectedRow]:
    if isinstance(cohort, TableCohort):
        yield from read_table_visits(str(local_path(cohort.path)), cohort.name, task)
    elif cohort.volumes is None:
        yield from read_visits(cohort)
    else:  # their rows name scans in any order
        found = list(read_visits(cohort))
        visits, unused = join_volumes([one for one in found if isinstance(one, Visit)], local_path(cohort.volumes))
        yield from (one for one in found if isinstance(one, RejectedRow))
        yield from unused
        yield from visits


def _refused(visit: Visit, task: DiagnosisTask, choice: VisitChoice) -> str | None:
    """Why a visit takes no part in the choice among those of its person."""
    if visit.label is None:  # where all are used, it is for the findings to say so
        return None if choice == "all" else "no diagnosis of this visit"
    return None if visit.label in task.label_names else f"label is none of {', '.join(task.label_names)}"


def _chosen(visits: list[Visit], choice: VisitChoice) -> Iterator[PatientRow | RejectedRow]:
    used = list(choose_visits(visits, choice))
    kept = {id(visit) for visit in used}
    reason = f"not the {choice} visit (cohort.visits={choice})"
    yield from (set_aside(visit.source, reason) for visit in visits if id(visit) not in kept)
    for visit in used:
        yield PatientRow(**{name: getattr(visit, name) for name in PatientRow.model_fields})


def _shown(
    visit: Visit, cohort: StudyCohort | TableCohort, key: bytes | None, shares: Mapping[Split, float], pictures: bool
) -> Visit:
    """The visit as the table shows it, with its split."""
    measured = visit.segmentation_path is not None and to_be_measured(visit)
    opened = measured or (pictures and visit.image_path is not None)
    shown = visit if key is None else deidentify_visit(visit, key, keep_paths=opened)
    split = visit.stated_split or split_of(shown.patient_id, shares, cohort.seed)
    own: dict[str, Any] = {"years_from_baseline": visit.years_from_baseline}  # the order of visits is the true one
    own |= _age(visit, cohort.deidentify) | {"note": _note(visit.note, cohort.deidentify), "split": split}
    return shown.model_copy(update=own)


def _note(note: str | None, settings: DeidentifyConfig) -> str | None:
    if note is None or settings.notes == "drop":
        return None
    return note if settings.notes == "keep" else redact(note, settings.language, settings.spacy_model)


def _age(visit: Visit, settings: DeidentifyConfig) -> dict[str, Any]:
    """Age and `at_least` as configured, whether or not ids are replaced."""
    age = cap_age(visit.age_years) if settings.ages else visit.age_years
    top = settings.ages and age == TOP_AGE
    return {_AGE: age, "at_least": tuple(dict.fromkeys((*visit.at_least, *[_AGE] * top)))}
