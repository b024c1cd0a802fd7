"""From a label map that was sent to grades of findings, by the run's norms and cut points; and why some have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.evidence.w_scores import w_scores
from clinical_reasoner.imaging.labels import FREESURFER
from clinical_reasoner.imaging.measuring import COUNTED, counted_segmenter, label_map_measures
from clinical_reasoner.imaging.norms import Norms, nominal_tesla
from clinical_reasoner.imaging.scans import LabelMap
from clinical_reasoner.imaging.volumes import missing_regions
from clinical_reasoner.records import PatientRow
from clinical_reasoner.task import DiagnosisTask

NO_SEGMENTER = "segmentation: not graded, as the software that made it is not known; give `segmenter`"
NO_NORMS = "segmentation: not graded, as this endpoint has no norms"
NO_SIZE = "segmentation: not graded, as the label map does not reach the skull, so that the size of the head is unknown"


def grade_label_map(
    label_map: LabelMap,
    segmenter: str | None,
    field_strength_t: float | None,
    patient_fields: Mapping[str, Any],
    norms: Norms,
    cut_points: Sequence[float],
    task: DiagnosisTask,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Finding -> grade, and warnings in words that name no value of the patient.

    `segmenter`: name and version as in the norms; `patient_fields`: columns of PatientRow, of which age and sex are
    needed. Labels are FreeSurfer's. Raises ScanError where they are not, or are not those of a head.
    """
    measures = label_map_measures(label_map, FREESURFER)
    row = PatientRow(
        patient_id="request",
        visit_id="request",
        cohort="request",
        split="test",
        measures=measures,
        segmenter=counted_segmenter(segmenter),
        field_strength_t=field_strength_t,
        **patient_fields,
    )
    found = {measure.name: measure.value for measure in measures}
    missing = _missing(found, task)
    general = _why_none(row, "icv" in found, norms)
    if general is not None:
        return {}, (*missing, general)
    measured = w_scores(row, task, norms)
    grades = {one.name: one.grade for one in grade_patient(row, task, cut_points, measured)}
    return grades, (*missing, *_outside(found, grades, task))


def _why_none(row: PatientRow, has_size: bool, norms: Norms) -> str | None:
    """Why nothing at all can be graded."""
    if not norms.norms:
        return NO_NORMS
    if row.segmenter is None:
        return NO_SEGMENTER
    own = [norm for norm in norms.norms if norm.segmenter == row.segmenter]
    if not own:
        known = {norm.segmenter for norm in norms.norms if counted_segmenter(norm.segmenter) == norm.segmenter}
        names = ", ".join(sorted(name.removesuffix(COUNTED) for name in known)) or "none"
        return f"segmentation: not graded, as there are no norms of label maps of this segmenter; there are of: {names}"
    strengths = {norm.field_strength_t for norm in own}
    if nominal_tesla(row.field_strength_t) not in strengths:
        known_t = ", ".join("unknown" if one is None else f"{one:g}" for one in sorted(strengths, key=lambda t: t or 0))
        return f"segmentation: not graded, as norms of this segmenter are for field_strength_t: {known_t}"
    unknown = [name for name in ("age_years", "sex") if getattr(row, name) is None]
    if unknown:
        return f"segmentation: not graded, as norms need {' and '.join(unknown)} in `patient`"
    return None if has_size else NO_SIZE


def _missing(found: Mapping[str, float], task: DiagnosisTask) -> tuple[str, ...]:
    """Why regions of the task's findings were not measured; of the size of the head speaks NO_SIZE."""
    wanted = (name for one in task.findings if one.measure for name in (*one.measure.regions, *one.measure.over))
    return tuple(f"segmentation: {reason}" for reason in missing_regions(found, dict.fromkeys(wanted)))


def _outside(found: Mapping[str, float], grades: Mapping[str, str], task: DiagnosisTask) -> tuple[str, ...]:
    """Findings that were measured and yet have no grade."""
    names = [
        finding.name
        for finding in task.findings
        if finding.measure
        and finding.name not in grades
        and all(name in found for name in (*finding.measure.regions, *finding.measure.over))
    ]
    if not names:
        return ()
    return (f"segmentation: not graded, as no norm covers them at this age and sex: {', '.join(names)}",)
