"""Grades: one that the cohort brings, else from a w-score and ordered cut points, else from a visual rating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clinical_reasoner.cohort.tables import GRADE_UNIT
from clinical_reasoner.config.cohort import SYNTHETIC_PREFIX
from clinical_reasoner.records import FindingValue, Measure, PatientRow
from clinical_reasoner.task import DiagnosisTask, Finding, RatingScale

RATING_UNIT = "rating"


def grade_w_score(w_score: float, cut_points: Sequence[float], grade_names: Sequence[str]) -> str:
    """Grade of a w-score (negative = more affected) under descending cut points: above the first cut point is the
    first grade, at or below the last is the last."""
    for cut_point, name in zip(cut_points, grade_names, strict=False):
        if w_score > cut_point:
            return name
    return grade_names[-1]


def grade_rating(rating: float, scale: RatingScale, age_years: float | None, grade_names: Sequence[str]) -> str | None:
    """The worst grade whose lowest rating at that age is reached (higher = worse). None where none is, or where the
    scale depends on an age that is not known."""
    for name in reversed(grade_names):
        by_age = scale.lowest.get(name, {})
        if len(by_age) > 1 and age_years is None:
            return None
        reached = [lowest for from_age, lowest in sorted(by_age.items()) if (age_years or 0.0) >= from_age]
        if reached and rating >= reached[-1]:
            return name
    return None


def grade_patient(
    patient: PatientRow,
    task: DiagnosisTask,
    cut_points: Sequence[float],
    measured: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[FindingValue, ...]:
    """Findings of the task's vocabulary that can be graded, in the order of the task. `measured`: value and w-score of
    findings that come from regional measures."""
    by_name = {measure.name: measure for measure in patient.measures}
    found = (_graded(finding, by_name, patient, task, cut_points, measured or {}) for finding in task.findings)
    return tuple(one for one in found if one is not None)


def _graded(
    finding: Finding,
    by_name: Mapping[str, Measure],
    patient: PatientRow,
    task: DiagnosisTask,
    cut_points: Sequence[float],
    measured: Mapping[str, tuple[float, float]],
) -> FindingValue | None:
    name, given = finding.name, by_name.get(finding.name)
    synthetic = patient.cohort.startswith(SYNTHETIC_PREFIX)
    if given is not None and given.unit == GRADE_UNIT:
        return FindingValue(name=name, grade=task.grade_names[int(given.value)], source="cohort")
    if given is not None and given.unit == "w":
        grade = grade_w_score(given.value, cut_points, task.grade_names)
        source = "synthetic" if synthetic else "w-score"
        return FindingValue(name=name, value=given.value, unit="w", w_score=given.value, grade=grade, source=source)
    if name in measured:
        value, w = measured[name]
        grade = grade_w_score(w, cut_points, task.grade_names)
        unit = "1" if finding.measure and finding.measure.over else _unit(finding, by_name)
        source = f"w-score of {patient.segmenter}" + " (synthetic)" * synthetic
        return FindingValue(name=name, value=value, unit=unit, w_score=w, grade=grade, source=source)
    rating = by_name.get(finding.rating.name) if finding.rating else None
    if finding.rating and rating is not None and rating.unit == RATING_UNIT:
        rated = grade_rating(rating.value, finding.rating, patient.age_years, task.grade_names)
        if rated:
            source = f"rating {finding.rating.name}"
            return FindingValue(name=name, value=rating.value, unit=RATING_UNIT, grade=rated, source=source)
    return None


def _unit(finding: Finding, by_name: Mapping[str, Measure]) -> str | None:
    return by_name[finding.measure.regions[0]].unit if finding.measure else None
