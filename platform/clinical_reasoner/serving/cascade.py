"""Student first, teacher where the student is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    ask_teacher: bool
    reason: str
    """For the response; numbers only, no patient text."""


def route(probabilities: Sequence[float] | None, threshold: float) -> Decision:
    """Whether the student's answer stands: its largest probability must reach `threshold` (both 0 to 1).

    `probabilities` is None where the student's answer could not be read or carries none; then the teacher is asked.
    """
    if not probabilities:
        return Decision(True, "student gave no usable answer")
    confidence = max(probabilities)
    if confidence >= threshold:
        return Decision(False, f"student confident: {_compared(confidence, '>=', threshold)}")
    return Decision(True, f"student below threshold: {_compared(confidence, '<', threshold)}")


def _compared(left: float, sign: str, right: float) -> str:
    """Both with two decimals, or with as many more as keep them apart."""
    digits = next((n for n in range(2, 16) if f"{left:.{n}f}" != f"{right:.{n}f}"), 2)
    return f"{left:.{digits}f} {sign} {right:.{digits}f}"
