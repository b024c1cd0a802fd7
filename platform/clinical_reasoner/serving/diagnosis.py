"""One request, from the case to the response: which models are asked, and what of it is told on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from clinical_reasoner.serving.asking import Done, Known, Written, ask_model
from clinical_reasoner.serving.cascade import Outcome, Routing, route, settle
from clinical_reasoner.serving.case import Case
from clinical_reasoner.serving.events import Answered, Event, ProbabilitiesEvent, TextEvent, TierEvent
from clinical_reasoner.serving.panel import Attempt, Engine, ModelUnavailableError, Panel, Reading, Unreadable
from clinical_reasoner.serving.response import response_of, said_probabilities
from clinical_reasoner.serving.schema import AnsweredBy, ModelChoice

STUDENT_SHARE = 0.5
"""Of the time of a request with `auto` that the student may take, so that some is left for the teacher."""


@dataclass
class Conversation:
    """One request while it is worked on."""

    case: Case
    panel: Panel
    engines: Mapping[AnsweredBy, Engine]
    request_id: str
    limit_s: float
    """Longest time of the whole request, seconds."""
    piecewise: bool = False
    """Whether a rationale is told while it is written."""
    spent_s: float = 0.0
    """Of `limit_s`, before any model is asked."""
    attempts: dict[AnsweredBy, Attempt] = field(default_factory=dict)
    prompt_tokens: int = 0
    output_tokens: int = 0


async def diagnose(model: ModelChoice, talk: Conversation) -> AsyncGenerator[Event]:
    """Ask the model that the request names; with `auto` the student, and then perhaps the teacher. `Answered` is last.

    Raises ModelUnavailableError where the model that has the last word gave no answer.
    """
    deadline = asyncio.get_running_loop().time() + talk.limit_s - talk.spent_s
    events = _cascade(talk, deadline) if model == "auto" else _alone(model, talk, deadline)
    async with aclosing(events):
        async for event in events:
            yield event


async def _alone(model: AnsweredBy, talk: Conversation, deadline: float) -> AsyncGenerator[Event]:
    routing = Routing(model, "asked_for", f"{model} asked for")
    yield TierEvent(tier=model, why=routing.reason)
    async with aclosing(_asked(model, talk, deadline, told=True)) as events:
        async for event in events:
            yield event
    yield _answered(routing, talk)


async def _cascade(talk: Conversation, deadline: float) -> AsyncGenerator[Event]:
    panel, point = talk.panel, talk.panel.operating_point
    soon = deadline - (1 - STUDENT_SHARE) * (talk.limit_s - talk.spent_s)
    # Until it is known whose answer counts, only probabilities are told.
    yield TierEvent(tier="student", why="asked first")
    async with aclosing(_asked("student", talk, soon, told=False)) as events:
        async for event in events:
            yield event
    student = talk.attempts["student"]
    routing = route(_outcome(student), _probabilities(student), point.threshold if point else panel.threshold)
    if routing.model == "teacher":
        yield TierEvent(tier="teacher", why=routing.reason)
        async with aclosing(_asked("teacher", talk, deadline, told=True)) as events:
            async for event in events:
                yield event
        teacher = talk.attempts["teacher"]
        routing = settle(routing, _outcome(student), _outcome(teacher), _probabilities(teacher), panel.refer_below)
        if routing.model == "student":
            yield TierEvent(tier="student", why=routing.reason)
            yield _said("student", _probabilities(student), talk)
    if routing.model == "student" and isinstance(student, Reading) and student.rationale:
        yield TextEvent(tier="student", text=student.rationale)
    yield _answered(routing, talk)


async def _asked(name: AnsweredBy, talk: Conversation, deadline: float, *, told: bool) -> AsyncGenerator[Event]:
    """Ask one model until the deadline, and keep what came of it in `talk.attempts`: an answer also where it was cut
    off after that, in the second ask of a student of two tasks."""
    panel = talk.panel
    had_s = max(0.0, deadline - asyncio.get_running_loop().time())
    try:
        steps = ask_model(
            panel.role(name),
            talk.engines[name],
            talk.case,
            panel.task,
            panel.tier(name),
            piecewise=talk.piecewise and told,
        )
        async with aclosing(steps):
            while True:
                async with asyncio.timeout_at(deadline):
                    step = await anext(steps, None)
                if isinstance(step, Known):
                    yield _said(name, step.probabilities, talk)
                elif isinstance(step, Written):
                    yield TextEvent(tier=name, text=step.text)
                elif isinstance(step, Done):
                    _finish(name, step, talk)
                else:
                    return
    except ModelUnavailableError as error:
        talk.attempts.setdefault(name, error)
    except TimeoutError:
        late = ModelUnavailableError(name, 504, f"no answer within {round(had_s, 1):g} s")
        talk.attempts.setdefault(name, late)


def _finish(name: AnsweredBy, done: Done, talk: Conversation) -> None:
    talk.attempts[name] = done.attempt
    talk.prompt_tokens += done.prompt_tokens
    talk.output_tokens += done.output_tokens


def _answered(routing: Routing, talk: Conversation) -> Answered:
    attempt = talk.attempts[routing.model]
    if isinstance(attempt, ModelUnavailableError):
        raise attempt
    if isinstance(attempt, Unreadable):
        raise ModelUnavailableError(routing.model, 502, f"the answer could not be read: {attempt.reason}")
    response = response_of(talk.case, talk.panel, attempt, routing, talk.request_id)
    return Answered(response, routing.code, talk.prompt_tokens, talk.output_tokens)


def _said(name: AnsweredBy, probabilities: tuple[float, ...] | None, talk: Conversation) -> ProbabilitiesEvent:
    return ProbabilitiesEvent(tier=name, **said_probabilities(name, probabilities, talk.panel))


def _outcome(attempt: Attempt) -> Outcome:
    if isinstance(attempt, ModelUnavailableError):
        return "unavailable"
    return "unreadable" if isinstance(attempt, Unreadable) else "answer"


def _probabilities(attempt: Attempt) -> tuple[float, ...] | None:
    return attempt.probabilities if isinstance(attempt, Reading) else None
