"""Student first, teacher where the student is unsure or gives no answer, a clinician where both are unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from clinical_reasoner.serving.schema import AnsweredBy

Outcome = Literal["answer", "unreadable", "unavailable"]
"""Of asking one model: an answer, a text that names no diagnosis, or nothing."""
RoutingCode = Literal["asked_for", "student_confident", "student_unsure", "student_unreadable", "student_unavailable"]

_FAILED: dict[Outcome, str] = {"unreadable": "gave no usable answer", "unavailable": "not available"}


@dataclass(frozen=True)
class Routing:
    model: AnsweredBy
    """Whose answer the client gets."""
    code: RoutingCode
    reason: str
    """For the response; numbers only, no patient text."""
    degraded: bool = False
    """Whether the answer stands in for one that could not be had."""
    refer: bool = False
    """Whether no model is sure enough: the patient should be referred to a clinician."""


def route(student: Outcome, probabilities: Sequence[float] | None, threshold: float) -> Routing:
    """Whether the student's answer stands: its largest probability must reach `threshold`.

    `probabilities` is None where the student's answer carries none; then the teacher is asked.
    """
    if student == "unavailable":
        return Routing("teacher", "student_unavailable", f"student {_FAILED[student]}")
    if student == "unreadable":
        return Routing("teacher", "student_unreadable", f"student {_FAILED[student]}")
    if not probabilities:
        return Routing("teacher", "student_unsure", "student gave no probabilities")
    confidence = max(probabilities)
    if confidence >= threshold:
        return Routing("student", "student_confident", f"student confident: {_compared(confidence, '>=', threshold)}")
    reason = f"student below threshold: {_compared(confidence, '<', threshold)}"
    return Routing("teacher", "student_unsure", reason)


def settle(
    routing: Routing, student: Outcome, teacher: Outcome, probabilities: Sequence[float] | None, refer_below: float
) -> Routing:
    """What holds once the teacher was asked.

    Where it gave no answer, the student's stands if there is one; that was unsure, so the patient is referred. Where
    it gave one with a confidence below `refer_below`, or with none at all, both are unsure, unless the teacher only
    stood in for a student that gave nothing: then its own confidence alone decides.
    """
    if teacher != "answer":
        if student != "answer":
            return routing
        return replace(
            routing,
            model="student",
            reason=f"{routing.reason}; teacher {_FAILED[teacher]}",
            degraded=True,
            refer=True,
        )
    confidence = max(probabilities) if probabilities else None
    if refer_below and (confidence is None or confidence < refer_below):
        said = "gave no probabilities" if confidence is None else f"unsure: {_compared(confidence, '<', refer_below)}"
        return replace(routing, reason=f"{routing.reason}; teacher {said}; refer to a clinician", refer=True)
    return routing


def _compared(left: float, sign: str, right: float) -> str:
    """Both with two decimals, or with as many more as keep them apart."""
    digits = next((n for n in range(2, 16) if f"{left:.{n}f}" != f"{right:.{n}f}"), 2)
    return f"{left:.{digits}f} {sign} {right:.{digits}f}"
