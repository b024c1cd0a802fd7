"""The models behind the endpoint: how each is asked, and what may come back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.distillation.students import Student
from clinical_reasoner.llm.answers import ParseFailure, TokenLogprobs, option_probabilities, parse_answer
from clinical_reasoner.llm.prompting import Message, render_messages
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


@dataclass(frozen=True)
class Panel:
    """Everything that an answer depends on, besides the engines."""

    task: DiagnosisTask
    student: Role
    teacher: Role
    threshold: float
    """Largest probability at which the student's answer stands, 0 to 1."""

    def role(self, name: AnsweredBy) -> Role:
        return self.student if name == "student" else self.teacher


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

    def stream(self, prompt: Prompt, *, piecewise: bool) -> AsyncIterator[Reply]:
        """Pieces that add up to the answer; a single one unless `piecewise`. Raises ModelUnavailableError."""

    def chat(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """OpenAI's form, in and out: one response, or chunks with `stream`. Raises ModelUnavailableError."""

    async def is_running(self) -> bool:
        """Without waiting behind the patients."""


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

AskModel = Callable[[Role, list[Message]], Awaitable[Reply]]
"""Raises ModelUnavailableError."""


def student_role(student: Student) -> Role:
    """The student of the run; it is called after its arm, since every student's folder has the same last name."""
    return Role("student", student.arm_name, student.arm.answers)


def teacher_role(model: str, exemplars: ExemplarChoice, words: str | None = None) -> Role:
    """The teacher, called by its hub name, or by the last name of its folder."""
    return Role("teacher", Path(model).name if Path(model).is_dir() else model, "diagnose", exemplars, words)


async def ask_role(role: Role, description: str, task: DiagnosisTask, ask_model: AskModel) -> Attempt:
    """Render, generate, parse. The description ends with the question."""
    exemplars = role.exemplars.choose(description, description, task)
    messages = render_messages(role.ask, description, task, exemplars=exemplars, words=role.words)
    try:
        reply = await ask_model(role, messages)
    except ModelUnavailableError as error:
        return error
    return read_reply(reply, role, task)


def read_reply(reply: Reply, role: Role, task: DiagnosisTask) -> Reading | Unreadable:
    """Diagnosis, rationale and probabilities of a model's raw reply."""
    answer = parse_answer(reply.text, role.ask, task)
    if isinstance(answer, ParseFailure):
        return Unreadable(role.name, answer.reason)
    if answer.label is None:
        return Unreadable(role.name, "no diagnosis")
    probabilities = option_probabilities(reply.tokens, task, label_first=ASK_KINDS[role.ask].label_first)
    return Reading(answer.label, answer.rationale, probabilities)
