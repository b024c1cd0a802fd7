"""One request, from the validated body to the response. How a model is reached is the caller's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from clinical_reasoner import __version__
from clinical_reasoner.evidence.claims import extract_claims, judge_claim
from clinical_reasoner.evidence.description import (
    Evidence,
    describe_evidence,
    evidence_of,
    parse_description,
    with_question,
)
from clinical_reasoner.llm.prompting import PROMPT_VERSION, Exemplar
from clinical_reasoner.records import PatientRow
from clinical_reasoner.serving.cascade import Outcome, Routing, fall_back, route
from clinical_reasoner.serving.panel import (
    AskModel,
    Attempt,
    ModelUnavailableError,
    Panel,
    Reading,
    Role,
    Unreadable,
    ask_role,
)
from clinical_reasoner.serving.schema import AnsweredBy, DiagnoseRequest, DiagnoseResponse, JudgedClaim
from clinical_reasoner.task import DiagnosisTask


@dataclass(frozen=True)
class Case:
    """A patient as the models see it."""

    description: str
    evidence: Evidence


async def diagnose(
    request: DiagnoseRequest, panel: Panel, ask_model: AskModel, request_id: str
) -> DiagnoseResponse | Unreadable:
    """Ask the model that the request names; with `auto` the student, and then perhaps the teacher.

    Raises ModelUnavailableError where the model that has the last word gave no text.
    """
    case = read_case(request, panel.task)

    async def ask(name: AnsweredBy) -> Attempt:
        return await ask_role(panel.role(name), case.description, panel.task, ask_model)

    if request.model == "auto":
        attempts: dict[AnsweredBy, Attempt] = {"student": await ask("student")}
        routing = route(_outcome(attempts["student"]), _probabilities(attempts["student"]), panel.threshold)
        if routing.model == "teacher":
            attempts["teacher"] = await ask("teacher")
            routing = fall_back(routing, _outcome(attempts["student"]), _outcome(attempts["teacher"]))
    else:
        attempts = {request.model: await ask(request.model)}
        routing = Routing(request.model, f"{request.model} asked for")
    attempt = attempts[routing.model]
    if isinstance(attempt, ModelUnavailableError):
        raise attempt
    if isinstance(attempt, Unreadable):
        return attempt
    return respond(case, panel.role(routing.model), attempt, routing, request_id, panel.task)


def read_case(request: DiagnoseRequest, task: DiagnosisTask) -> Case:
    """Description and evidence of a validated request."""
    if request.patient is None:
        description = with_question(request.description or "", task)
        return Case(description, parse_description(description, task))
    fields = request.patient.model_dump(exclude={"findings"})
    row = PatientRow(patient_id="request", visit_id="request", cohort="request", split="test", **fields)
    grades = {name: grade for name, grade in request.patient.findings.items() if grade is not None}
    evidence = evidence_of(row, grades, task)
    return Case(describe_evidence(evidence, task), evidence)


def respond(
    case: Case, role: Role, reading: Reading, routing: Routing, request_id: str, task: DiagnosisTask
) -> DiagnoseResponse:
    """The response, with every claim of the rationale judged against the case."""
    label = task.label(reading.label)
    claims = extract_claims(reading.rationale or "", task)
    by_label = zip(task.label_names, reading.probabilities, strict=True) if reading.probabilities else None
    return DiagnoseResponse(
        diagnosis=label.name,
        diagnosis_text=label.text,
        option=label.option,
        probabilities=dict(by_label) if by_label else None,
        rationale=reading.rationale,
        claims=tuple(
            JudgedClaim(name=claim.name, value=claim.value, verdict=judge_claim(claim, case.evidence))
            for claim in claims
        ),
        answered_by=role.name,
        routing=routing.reason,
        degraded=routing.degraded,
        model=role.model,
        prompt_version=PROMPT_VERSION,
        version=__version__,
        request_id=request_id,
    )


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


def _outcome(attempt: Attempt) -> Outcome:
    if isinstance(attempt, ModelUnavailableError):
        return "unavailable"
    return "unreadable" if isinstance(attempt, Unreadable) else "answer"


def _probabilities(attempt: Attempt) -> tuple[float, ...] | None:
    return attempt.probabilities if isinstance(attempt, Reading) else None
