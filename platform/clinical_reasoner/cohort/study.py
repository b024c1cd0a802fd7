"""From a study's visits to rows of the `patients` table: labels checked, visits chosen, ids replaced, people split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clinical_reasoner.cohort.deidentify import TOP_AGE, cap_age, deidentify_visit, load_key, pseudonym
from clinical_reasoner.cohort.free_text import check_redaction, redact
from clinical_reasoner.cohort.readers import local_path, read_visits
from clinical_reasoner.cohort.splits import split_of
from clinical_reasoner.cohort.study_files import study_fingerprint
from clinical_reasoner.cohort.study_volumes import join_volumes
from clinical_reasoner.cohort.visits import REGIONS, Visit, choose_visits, set_aside
from clinical_reasoner.config.cohort import DeidentifyConfig, StudyCohort
from clinical_reasoner.records import PatientRow, RejectedRow, Split
from clinical_reasoner.task import DiagnosisTask

_AGE = "age_years"


def read_study(
    cohort: StudyCohort, task: DiagnosisTask, shares: Mapping[Split, float], pictures: bool = False
) -> tuple[list[PatientRow], list[RejectedRow]]:
    """Patients, and the rows that are not used with their reasons: each visit and each rejected row of the reader is
    one or the other, and so is each row of `cohort.volumes` that belongs to no visit.

    With pseudonyms, paths stay where label maps are still to be measured, or scans to be shown (`pictures`): they may
    tell ids, and the table of patients is not for passing on where there are any.

    Raises UserError when the study's files, or the key of pseudonyms, cannot be used as a whole.
    """
    key = study_key(cohort)
    if cohort.deidentify.notes == "redact":
        check_redaction(cohort.deidentify.language, cohort.deidentify.spacy_model)
    visits, rejected = _parted(read_visits(cohort))
    if cohort.volumes is not None:
        visits, unused = join_volumes(visits, local_path(cohort.volumes))
        rejected += unused
    labelled = [visit for visit in visits if visit.label is None or visit.label in task.label_names]
    refused = f"label is none of {', '.join(task.label_names)}"
    rejected += [set_aside(visit.source, refused) for visit in visits if visit.label not in (None, *task.label_names)]
    chosen = list(choose_visits(labelled, cohort.visits))
    used = {(visit.patient_id, visit.visit_id) for visit in chosen}
    other = f"not the {cohort.visits} visit (cohort.visits={cohort.visits})"
    rejected += [set_aside(visit.source, other) for visit in labelled if (visit.patient_id, visit.visit_id) not in used]
    patients = [_patient(visit, cohort, key, shares, pictures) for visit in chosen]
    if key is not None:
        patients.sort(key=lambda patient: patient.patient_id)  # the order of the file would tell who is who
    return patients, rejected


def study_key(cohort: StudyCohort) -> bytes | None:
    """The key of pseudonyms; None where ids are kept. Raises UserError when it is missing or too weak."""
    settings = cohort.deidentify
    if settings.ids == "keep":
        return None
    return load_key(local_path(cohort.path), Path(settings.key_file).expanduser() if settings.key_file else None)


def study_source(cohort: StudyCohort) -> dict[str, Any]:
    """What the patients of a study are made from, by content: files and key, neither of which can be told from it."""
    key = study_key(cohort)
    return {"files": study_fingerprint(cohort), "key": None if key is None else pseudonym("", key)}


def to_be_measured(visit: PatientRow) -> bool:
    """Whether no table tells the volumes of the visit's regions."""
    return not any(measure.name in REGIONS and measure.name != "icv" for measure in visit.measures)


def _parted(found: Iterable[Visit | RejectedRow]) -> tuple[list[Visit], list[RejectedRow]]:
    visits: list[Visit] = []
    rejected: list[RejectedRow] = []
    for one in found:
        if isinstance(one, Visit):
            visits.append(one)
        else:
            rejected.append(one)
    return visits, rejected


def _patient(
    visit: Visit, cohort: StudyCohort, key: bytes | None, shares: Mapping[Split, float], pictures: bool
) -> PatientRow:
    measured = visit.segmentation_path is not None and to_be_measured(visit)
    opened = measured or (pictures and visit.image_path is not None)
    shown = visit if key is None else deidentify_visit(visit, key, keep_paths=opened)
    fields = {name: getattr(shown, name) for name in PatientRow.model_fields}
    fields |= _age(visit, cohort.deidentify)
    fields["note"] = _note(visit.note, cohort.deidentify)
    fields["split"] = split_of(shown.patient_id, shares, cohort.seed)
    return PatientRow.model_validate(fields)


def _note(note: str | None, settings: DeidentifyConfig) -> str | None:
    if note is None or settings.notes == "drop":
        return None
    return note if settings.notes == "keep" else redact(note, settings.language, settings.spacy_model)


def _age(visit: Visit, settings: DeidentifyConfig) -> dict[str, Any]:
    """Age and `at_least` as configured, whether or not ids are replaced."""
    age = cap_age(visit.age_years) if settings.ages else visit.age_years
    top = settings.ages and age == TOP_AGE
    return {_AGE: age, "at_least": tuple(dict.fromkeys((*visit.at_least, *[_AGE] * top)))}
