"""w-scores of a task's findings: regional measures against the controls of the training split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clinical_reasoner.imaging.norms import NormRow, Norms, fit_norms, w_score
from clinical_reasoner.records import PatientRow, Split
from clinical_reasoner.task import DiagnosisTask, RegionalMeasure

_FIT_SPLIT: Split = "train"


def cohort_norms(controls: Sequence[NormRow], task: DiagnosisTask, fewest: int) -> Norms:
    """Norms of each finding with a `measure`, from one row for each control of the training split. A finding has none
    for a segmenter and field strength with fewer than `fewest` controls."""
    worse = {finding.name: finding.measure.worse for finding in task.findings if finding.measure}
    return fit_norms(controls, worse, fewest)


def control_rows(patients: Iterable[PatientRow], task: DiagnosisTask) -> list[NormRow]:
    """What norms are fitted on: the first visit of each control of the training split."""
    first: dict[str, NormRow] = {}
    for patient in patients:
        if is_control(patient.split, patient.label, task) and patient.patient_id not in first:
            first[patient.patient_id] = norm_row(patient, task)
    return list(first.values())


def is_control(split: Split, label: str | None, task: DiagnosisTask) -> bool:
    """Whether norms may be fitted on a visit of that split and label."""
    return split == _FIT_SPLIT and task.controls is not None and label == task.controls


def norm_row(patient: PatientRow, task: DiagnosisTask) -> NormRow:
    """What a visit's findings are measured by, and what they are compared by. An age of 90 or older is no age to
    compare by: volumes of a woman of 97 would be held against those expected at 90."""
    measures = {measure.name: measure.value for measure in patient.measures}
    values = {
        finding.name: value
        for finding in task.findings
        if finding.measure and (value := finding_value(finding.measure, measures)) is not None
    }
    icv = measures.get("icv")
    age = None if "age_years" in patient.at_least else patient.age_years
    return NormRow(values, age, patient.sex, icv, patient.segmenter, patient.field_strength_t)


def finding_value(measure: RegionalMeasure, measures: dict[str, float]) -> float | None:
    """Sum of the regions, over the sum of others where it is a ratio; None where one of them was not measured."""
    if any(name not in measures for name in (*measure.regions, *measure.over)):
        return None
    value = sum(measures[name] for name in measure.regions)
    if not measure.over:
        return value
    whole = sum(measures[name] for name in measure.over)
    return value / whole if whole > 0 else None


def w_scores(patient: PatientRow, task: DiagnosisTask, norms: Norms) -> dict[str, tuple[float, float]]:
    """Finding -> (value, w-score) where a norm of the patient's segmenter and field strength exists; w in residual SD
    of controls, negative = more affected."""
    row = norm_row(patient, task)
    scored = {name: (value, w_score(norms, name, row)) for name, value in row.values.items()}
    return {name: (value, w) for name, (value, w) in scored.items() if w is not None}
