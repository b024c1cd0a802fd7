"""Grades from measures: a w-score and ordered cut points, or a grade that the cohort brings."""

from __future__ import annotations

from collections.abc import Sequence

from clinical_reasoner.cohort.tables import GRADE_UNIT
from clinical_reasoner.records import FindingValue, Measure, PatientRow
from clinical_reasoner.task import DiagnosisTask


def grade_w_score(w_score: float, cut_points: Sequence[float], grade_names: Sequence[str]) -> str:
    """Grade of a w-score (negative = more affected) under descending cut points: above the first cut point is the
    first grade, at or below the last is the last."""
    for cut_point, name in zip(cut_points, grade_names, strict=False):
        if w_score > cut_point:
            return name
    return grade_names[-1]


def grade_patient(patient: PatientRow, task: DiagnosisTask, cut_points: Sequence[float]) -> tuple[FindingValue, ...]:
    """Findings of the task's vocabulary for which the patient has a w-score or a grade, in the order of the task."""
    by_name = {measure.name: measure for measure in patient.measures}
    return tuple(
        _graded(by_name[finding.name], patient, task, cut_points)
        for finding in task.findings
        if finding.name in by_name and by_name[finding.name].unit in ("w", GRADE_UNIT)
    )


def _graded(measure: Measure, patient: PatientRow, task: DiagnosisTask, cut_points: Sequence[float]) -> FindingValue:
    if measure.unit == GRADE_UNIT:
        return FindingValue(name=measure.name, grade=task.grade_names[int(measure.value)], source="cohort")
    source = "synthetic" if patient.cohort.startswith("synthetic") else "w-score"
    grade = grade_w_score(measure.value, cut_points, task.grade_names)
    return FindingValue(
        name=measure.name, value=measure.value, unit="w", w_score=measure.value, grade=grade, source=source
    )
