"""What happens on the way to an answer, as a stream tells it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from clinical_reasoner.serving.cascade import RoutingCode
from clinical_reasoner.serving.schema import AnsweredBy, DiagnoseResponse


class TierEvent(BaseModel):
    """Whose answer comes next. What was written before it no longer holds."""

    tier: AnsweredBy
    why: str


class ProbabilitiesEvent(BaseModel):
    tier: AnsweredBy
    probabilities: dict[str, float] | None
    prediction_set: tuple[str, ...] | None
    coverage: float | None
    calibrated: bool


class TextEvent(BaseModel):
    """A further piece of the rationale."""

    tier: AnsweredBy
    text: str


@dataclass(frozen=True)
class Answered:
    """The end of it."""

    response: DiagnoseResponse
    code: RoutingCode
    """Why this model answered."""
    prompt_tokens: int
    """Of all models that were asked."""
    output_tokens: int


Event = TierEvent | ProbabilitiesEvent | TextEvent | Answered
