"""One request, from the validated body to the response. How a model is reached is the caller's business."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clinical_reasoner import __version__
from clinical_reasoner.config.student import Arm
from clinical_reasoner.evidence.claims import extract_claims, judge_claim
from clinical_reasoner.evidence.description import (
    Evidence,
    describe_evidence,
    evidence_of,
    parse_description,
    with_question,
)
from clinical_reasoner.llm.answers import ParseFailure, TokenLogprobs, option_probabilities, parse_answer
from clinical_reasoner.llm.prompting import PROMPT_VERSION, Exemplar, Message, render_messages
from clinical_reasoner.records import Ask, PatientRow
from clinical_reasoner.serving.cascade import route
from clinical_reasoner.serving.schema import AnsweredBy, DiagnoseRequest, DiagnoseResponse, JudgedClaim
from clinical_reasoner.task import DiagnosisTask

ARM_ASKS: dict[Arm, Ask] = {"label_only": "direct", "rationale_then_label": "diagnose"}
"""How a student is asked: as it was trained."""


@dataclass(frozen=True)
class Role:
    """One of the models behind the endpoint, and how it is asked."""

    name: AnsweredBy
    model: str
    """Name in the response."""
    ask: Ask
    exemplars: tuple[Exemplar, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Everything that an answer depends on, besides the engines."""

    task: DiagnosisTask
    student: Role
    teacher: Role
    threshold: float
    """Largest probability at which the student's answer stands, 0 to 1."""


@dataclass(frozen=True)
class Case:
    """A patient as the models see it."""

    description: str
    evidence: Evidence


@dataclass(frozen=True)
class Reply:
    """What an engine returned."""

    text: str
    tokens: TokenLogprobs


@dataclass(frozen=True)
class Reading:
    """A reply that could be read."""

    label: str
    rationale: str | None
    probabilities: tuple[float, ...] | None
    """In the order of the task's labels."""


@dataclass(frozen=True)
class Unreadable:
    """A reply that names no diagnosis."""

    role: AnsweredBy
    reason: str
    """Short and without patient text."""


AskModel = Callable[[Role, list[Message]], Awaitable[Reply]]


def student_role(arm: Arm) -> Role:
    """The student of the run; it is called after its arm, since every student's folder has the same last name."""
    return Role("student", arm, ARM_ASKS[arm])


def teacher_role(model: str, exemplars: tuple[Exemplar, ...]) -> Role:
    """The teacher, called by its hub name, or by the last name of its folder."""
    return Role("teacher", Path(model).name if Path(model).is_dir() else model, "diagnose", exemplars)


async def diagnose(
    request: DiagnoseRequest, panel: Panel, ask_model: AskModel, request_id: str
) -> DiagnoseResponse | Unreadable:
    """Ask the model that the request names; with `auto` the student, and then perhaps the teacher."""
    case = read_case(request, panel.task)
    role, routing = panel.teacher, "teacher asked for"
    if request.model != "teacher":
        reading = await _ask(case, panel.student, panel.task, ask_model)
        if request.model == "student":
            return respond(case, panel.student, reading, "student asked for", request_id, panel.task)
        decision = route(reading.probabilities if isinstance(reading, Reading) else None, panel.threshold)
        if not decision.ask_teacher:
            return respond(case, panel.student, reading, decision.reason, request_id, panel.task)
        routing = decision.reason
    reading = await _ask(case, role, panel.task, ask_model)
    return respond(case, role, reading, routing, request_id, panel.task)


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


def read_reply(reply: Reply, role: Role, task: DiagnosisTask) -> Reading | Unreadable:
    """Diagnosis, rationale and probabilities of a model's raw reply."""
    answer = parse_answer(reply.text, role.ask, task)
    if isinstance(answer, ParseFailure):
        return Unreadable(role.name, answer.reason)
    if answer.label is None:
        return Unreadable(role.name, "no diagnosis")
    return Reading(answer.label, answer.rationale, option_probabilities(reply.tokens, task))


def respond(
    case: Case, role: Role, reading: Reading | Unreadable, routing: str, request_id: str, task: DiagnosisTask
) -> DiagnoseResponse | Unreadable:
    """The response, with every claim of the rationale judged against the case; an unreadable reply as it is."""
    if isinstance(reading, Unreadable):
        return reading
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
        routing=routing,
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


async def _ask(case: Case, role: Role, task: DiagnosisTask, ask_model: AskModel) -> Reading | Unreadable:
    messages = render_messages(role.ask, case.description, task, exemplars=role.exemplars)
    return read_reply(await ask_model(role, messages), role, task)
