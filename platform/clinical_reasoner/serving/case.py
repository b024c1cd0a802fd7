"""A patient as the models see it: from the validated body of a request, and what a scan that was sent with it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from clinical_reasoner.evidence.description import (
    Evidence,
    describe_evidence,
    evidence_of,
    parse_description,
    with_question,
)
from clinical_reasoner.llm.prompting import Exemplar
from clinical_reasoner.records import PatientRow
from clinical_reasoner.serving.schema import DiagnoseRequest
from clinical_reasoner.task import DiagnosisTask


@dataclass(frozen=True)
class Case:
    description: str
    """Ends with the question."""
    evidence: Evidence
    free_text: bool
    """Whether the description is in the client's own words."""
    picture: bytes | None = None
    """PNG of the scan, for a model that reads it."""
    grades: Mapping[str, str] | None = None
    """Findings that came from a label map and not from the client."""
    warnings: tuple[str, ...] = ()


def read_case(
    request: DiagnoseRequest,
    task: DiagnosisTask,
    *,
    picture: bytes | None = None,
    grades: Mapping[str, str] | None = None,
    warnings: tuple[str, ...] = (),
) -> Case:
    """Description and evidence of a validated request. `grades` of a label map add to what the client says, which
    stands where both say something; beside a ready description they have no place, and a warning says so."""
    grades = dict(grades or {})
    if request.patient is None:
        if grades:
            warnings = (*warnings, "findings of the label map are not in the ready description, and were not used")
        description = with_question(request.description or "", task)
        return Case(description, parse_description(description, task), True, picture, None, warnings)
    fields = request.patient.model_dump(exclude={"findings"})
    row = PatientRow(patient_id="request", visit_id="request", cohort="request", split="test", **fields)
    said = {name: grade for name, grade in request.patient.findings.items() if grade is not None}
    added = {name: grade for name, grade in grades.items() if name not in said}
    evidence = evidence_of(row, {**added, **said}, task)
    return Case(describe_evidence(evidence, task), evidence, False, picture, added, warnings)


def example_requests(model: type[DiagnoseRequest], exemplar: Exemplar, task: DiagnosisTask) -> dict[str, Any]:
    """Bodies for the documentation, from an exemplar: as description and, where it can be read back, structured."""
    evidence = parse_description(exemplar.description, task)
    examples: dict[str, Any] = {}
    try:
        body = {"patient": {**evidence.fields, "findings": dict(evidence.grades)}}
        examples["patient"] = model.model_validate(body, strict=False).model_dump(exclude_none=True)
    except ValidationError:
        pass  # An exemplar in other words than the task's has no structured form.
    return {**examples, "description": {"description": exemplar.description, "model": "teacher"}}
