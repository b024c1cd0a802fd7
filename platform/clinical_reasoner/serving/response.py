"""The response to a request: the answer with its probabilities, its prediction set and its claims, each judged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from clinical_reasoner import __version__
from clinical_reasoner.evidence.claims import extract_claims, judge_claim
from clinical_reasoner.evidence.description import Evidence
from clinical_reasoner.llm.prompting import PROMPT_VERSION
from clinical_reasoner.operating_point import prediction_set
from clinical_reasoner.serving.cascade import Routing
from clinical_reasoner.serving.case import Case
from clinical_reasoner.serving.panel import Panel, Reading
from clinical_reasoner.serving.schema import AnsweredBy, DiagnoseResponse, JudgedClaim
from clinical_reasoner.task import DiagnosisTask

NO_RATIONALE = "The model gave no usable rationale for its diagnosis."


def response_of(case: Case, panel: Panel, reading: Reading, routing: Routing, request_id: str) -> DiagnoseResponse:
    """What the client gets."""
    role, label = panel.role(routing.model), panel.task.label(reading.label)
    return DiagnoseResponse(
        diagnosis=label.name,
        diagnosis_text=label.text,
        option=label.option,
        **said_probabilities(role.name, reading.probabilities, panel),
        refer=routing.refer,
        rationale=reading.rationale,
        claims=tuple(judged_claims(reading.rationale or "", case.evidence, panel.task)),
        answered_by=role.name,
        routing=routing.reason,
        degraded=routing.degraded,
        model=role.model,
        prompt_version=PROMPT_VERSION,
        operating_point=panel.operating_point.version if panel.operating_point else None,
        version=__version__,
        request_id=request_id,
        warnings=(*case.warnings, *(() if role.explain is None or reading.rationale else (NO_RATIONALE,))),
        findings=dict(case.grades or {}),
    )


def said_probabilities(name: AnsweredBy, probabilities: tuple[float, ...] | None, panel: Panel) -> dict[str, Any]:
    """`probabilities`, `calibrated`, `prediction_set` and `coverage` of an answer by this model."""
    tier, point = panel.tier(name), panel.operating_point
    by_label = dict(zip(panel.task.label_names, probabilities, strict=True)) if probabilities else None
    admitted = prediction_set(by_label, tier.quantile) if by_label and tier else None
    return {
        "probabilities": by_label,
        "calibrated": by_label is not None and tier is not None,
        "prediction_set": admitted,
        "coverage": point.coverage if point and admitted is not None else None,
    }


def judged_claims(rationale: str, evidence: Evidence, task: DiagnosisTask) -> Iterator[JudgedClaim]:
    """Every claim of a rationale, compared with what is known, and where it stands there."""
    places = _places(rationale)
    for claim in extract_claims(rationale, task):
        yield JudgedClaim(
            name=claim.name,
            value=claim.value,
            verdict=judge_claim(claim, evidence),
            start=places[claim.start],
            end=places[claim.end - 1] + 1,
        )


def _places(text: str) -> list[int]:
    """For each character of the text with every run of white space as one space (as claims count), its place in the
    text as it is."""
    places: list[int] = []
    for word in re.finditer(r"\S+", text):
        if places:
            places.append(word.start() - 1)
        places.extend(range(word.start(), word.end()))
    return places
