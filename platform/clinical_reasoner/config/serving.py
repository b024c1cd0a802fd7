"""The diagnosis endpoint."""

from __future__ import annotations

from pydantic import Field

from clinical_reasoner.config.arms import ArmName
from clinical_reasoner.config.base import StrictConfig


class ServingConfig(StrictConfig):
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=1, le=65535)
    student_arm: ArmName = "rationale_then_label"
    """Arm of `student` that answers; of several seeds the first one."""
    threshold: float = Field(default=0.8, ge=0, le=1)
    """`auto`: the student's answer stands when its largest probability reaches this, otherwise the teacher is asked."""
    max_ongoing_requests: int = Field(default=192, ge=1)
    """Patients in the endpoint at a time, worked on or waiting; one more is answered 503."""
    max_queued_requests: int = Field(default=128, ge=1)
    """Patients that wait for one model; to one more that model is not available."""
    request_timeout_s: float = Field(default=60, gt=0)
    """Longest time of one request, seconds; then 504."""
    max_description_chars: int = Field(default=8000, ge=100)
    """Longest ready description, characters."""
