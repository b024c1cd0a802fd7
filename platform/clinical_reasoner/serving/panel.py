"""The models behind the endpoint: how each is asked, and what may come back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from clinical_reasoner.cluster import short_name
from clinical_reasoner.config.serving import TeacherAsk
from clinical_reasoner.distillation.students import Student
from clinical_reasoner.llm.answers import TokenLogprobs
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.operating_point import OperatingPoint, Tier
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS, ExemplarChoice
from clinical_reasoner.records import Ask
from clinical_reasoner.serving.schema import AnsweredBy
from clinical_reasoner.task import DiagnosisTask


@dataclass(frozen=True)
class Role:
    """One of the models behind the endpoint, and how it is asked."""

    name: AnsweredBy
    model: str
    """Name in the response."""
    ask: Ask
    exemplars: ExemplarChoice = NO_EXEMPLARS
    words: str | None = None
    """Length of the rationale asked for, as in `render_messages`."""
    explain: Ask | None = None
    """A second ask, which gives the rationale where `ask` gives none."""
    reads_text: bool = True
    sees_picture: bool = False
    control_tokens: tuple[str, ...] = ()
    """Of its tokenizer: texts that would end a turn or begin another."""
    fingerprint: str = ""
    """Of its files, or its name where it has none here; for the audit record."""


@dataclass(frozen=True)
class Panel:
    """Everything that an answer depends on, besides the engines."""

    task: DiagnosisTask
    student: Role
    teacher: Role
    threshold: float
    """Confidence at which an answer stands where it is not calibrated, 0 to 1."""
    operating_point: OperatingPoint | None = None

    def role(self, name: AnsweredBy) -> Role:
        return self.student if name == "student" else self.teacher

    def tier(self, name: AnsweredBy) -> Tier | None:
        """How a model's probabilities are calibrated; None where they are not."""
        if self.operating_point is None:
            return None
        return self.operating_point.student if name == "student" else self.operating_point.teacher

    @property
    def refer_below(self) -> float:
        """Confidence of the teacher below which a patient about whom the student was unsure is referred."""
        return self.operating_point.refers_below(self.threshold) if self.operating_point else self.threshold


@dataclass(frozen=True)
class Prompt:
    """What an engine is asked."""

    messages: list[Message]
    pattern: str | None = None
    """Regular expression of the whole answer; None lets the model write as it will."""
    max_tokens: int | None = None
    """None: the model's own setting."""


@dataclass(frozen=True)
class Reply:
    """What an engine returned: an answer, or a piece of one."""

    text: str
    tokens: TokenLogprobs = ()
    prompt_tokens: int = 0
    output_tokens: int = 0


class Engine(Protocol):
    """A model that can be asked."""

    def stream(self, prompt: Prompt, *, piecewise: bool) -> AsyncGenerator[Reply]:
        """Pieces that add up to the answer; a single one unless `piecewise`. Raises ModelUnavailableError."""

    def chat(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """OpenAI's form, in and out: one response, or chunks with `stream`. Raises ModelUnavailableError."""

    async def is_running(self) -> bool:
        """Without waiting behind the patients."""


@dataclass(frozen=True)
class Reading:
    """An answer that could be read."""

    label: str
    rationale: str | None
    probabilities: tuple[float, ...] | None
    """In the order of the task's labels, calibrated where there is an operating point."""


@dataclass(frozen=True)
class Unreadable:
    """An answer that names no diagnosis."""

    role: AnsweredBy
    reason: str
    """Short and without patient text."""


class ModelUnavailableError(Exception):
    """A model gave no text. No field holds what was asked or what the engine said about it."""

    def __init__(self, role: AnsweredBy, status: int, reason: str) -> None:
        super().__init__(role, status, reason)
        self.role = role
        self.status = status
        """HTTP status for the client."""
        self.reason = reason
        """Short and without patient text."""


Attempt = Reading | Unreadable | ModelUnavailableError
"""What asking one model gave."""


def student_role(student: Student) -> Role:
    """The student of the run; it is called after its arm, since every student's folder has the same last name."""
    inputs = student.settings.inputs
    return Role(
        "student",
        student.arm_name,
        student.arm.answers,
        explain="explain" if student.arm.answers == "direct" and "explain" in student.arm.tasks else None,
        reads_text=inputs != "image",
        sees_picture=inputs != "text",
    )


def teacher_role(model: str, exemplars: ExemplarChoice, words: str | None = None, ask: TeacherAsk = "diagnose") -> Role:
    """The teacher, called by its hub name, or by the last name of its folder."""
    return Role("teacher", short_name(model), ask, exemplars, words)
