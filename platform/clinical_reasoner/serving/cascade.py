"""Student first, teacher where the student is unsure or gives no answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from clinical_reasoner.serving.schema import AnsweredBy

Outcome = Literal["answer", "unreadable", "unavailable"]
"""Of asking one model: an answer, a text that names no diagnosis, or nothing."""

_FAILED: dict[Outcome, str] = {"unreadable": "gave no usable answer", "unavailable": "not available"}


@dataclass(frozen=True)
class Routing:
    model: AnsweredBy
    """Whose answer the client gets."""
    reason: str
    """For the response; numbers only, no patient text."""
    degraded: bool = False
    """Whether the answer stands in for one that could not be had."""


def route(student: Outcome, probabilities: Sequence[float] | None, threshold: float) -> Routing:
    """Whether the student's answer stands: its largest probability must reach `threshold` (both 0 to 1).

    `probabilities` is None where the student's answer carries none; then the teacher is asked.
    """
    if student == "unavailable":
        return Routing("teacher", f"student {_FAILED[student]}")
    if student == "unreadable" or not probabilities:
        return Routing("teacher", f"student {_FAILED['unreadable']}")
    confidence = max(probabilities)
    if confidence >= threshold:
        return Routing("student", f"student confident: {_compared(confidence, '>=', threshold)}")
    return Routing("teacher", f"student below threshold: {_compared(confidence, '<', threshold)}")


def fall_back(routing: Routing, student: Outcome, teacher: Outcome) -> Routing:
    """What holds once the teacher was asked: where it gave no answer, the student's stands if there is one."""
    if teacher == "answer" or student != "answer":
        return routing
    return Routing("student", f"{routing.reason}; teacher {_FAILED[teacher]}", degraded=True)


def _compared(left: float, sign: str, right: float) -> str:
    """Both with two decimals, or with as many more as keep them apart."""
    digits = next((n for n in range(2, 16) if f"{left:.{n}f}" != f"{right:.{n}f}"), 2)
    return f"{left:.{digits}f} {sign} {right:.{digits}f}"
