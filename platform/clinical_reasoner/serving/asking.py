"""Asking one model about one patient: render, generate, parse; the rationale as it is written where that is wanted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.distillation.calibration import apply_temperature
from clinical_reasoner.evidence.description import seen_description
from clinical_reasoner.llm.answers import ParseFailure, option_probabilities, parse_answer
from clinical_reasoner.llm.control_tokens import neutralize
from clinical_reasoner.llm.prompting import render_messages, with_picture
from clinical_reasoner.operating_point import Tier
from clinical_reasoner.records import Ask
from clinical_reasoner.serving.case import Case
from clinical_reasoner.serving.draft import Draft
from clinical_reasoner.serving.echoes import PromptWords
from clinical_reasoner.serving.panel import Engine, ModelUnavailableError, Prompt, Reading, Reply, Role, Unreadable
from clinical_reasoner.serving.patterns import answer_pattern
from clinical_reasoner.task import DiagnosisTask

LOOKED_BACK_CHARS = 1000
"""Of a rationale that is being written: the stretch that is looked through for the words of its prompt."""
_ECHO = "repeats its instructions"


@dataclass(frozen=True)
class Known:
    """The probabilities are there; perhaps before the rationale."""

    probabilities: tuple[float, ...] | None


@dataclass(frozen=True)
class Written:
    """A further piece of the rationale."""

    text: str


@dataclass(frozen=True)
class Done:
    """The whole answer, or why it is none. A second one has its rationale too, and the tokens of that alone."""

    attempt: Reading | Unreadable
    prompt_tokens: int = 0
    output_tokens: int = 0


Step = Known | Written | Done


async def ask_model(
    role: Role, engine: Engine, case: Case, task: DiagnosisTask, tier: Tier | None, *, piecewise: bool
) -> AsyncGenerator[Step]:
    """The steps of one answer: `Known` at most once, `Written` only where `piecewise`, `Done` last; twice where
    the rationale is asked for by itself, which may fail: the first one holds then. Raises ModelUnavailableError."""
    if role.sees_picture and case.picture is None:
        raise ModelUnavailableError(role.name, 422, "this model reads a picture of the MRI; send a scan")
    whole, known = Reply(""), False
    label_first = ASK_KINDS[role.ask].label_first
    async with aclosing(_generated(role, role.ask, engine, case, task, piecewise)) as steps:
        async for step in steps:
            if isinstance(step, Unreadable):
                yield Done(step)
                return
            whole, written, has_label = step
            if piecewise and label_first and has_label and not known:
                known = True
                yield Known(probabilities_of(whole, role.ask, task, tier))
            if written:
                yield Written(written)
    reading = read_reply(whole, role, task, tier)
    if not known:
        yield Known(reading.probabilities if isinstance(reading, Reading) else None)
    yield Done(reading, whole.prompt_tokens, whole.output_tokens)
    if role.explain is None or isinstance(reading, Unreadable):
        return
    async with aclosing(_explained(role, engine, case, task, piecewise)) as more:
        async for one in more:
            if isinstance(one, Written):
                yield one
            elif isinstance(one.attempt, Reading):
                yield replace(one, attempt=replace(reading, rationale=one.attempt.rationale))


async def _explained(
    role: Role, engine: Engine, case: Case, task: DiagnosisTask, piecewise: bool
) -> AsyncGenerator[Written | Done]:
    """The rationale of a student that has learnt diagnosis and rationale as two tasks; `Done` has nothing but that."""
    assert role.explain is not None
    whole = Reply("")
    async with aclosing(_generated(role, role.explain, engine, case, task, piecewise)) as steps:
        async for step in steps:
            if isinstance(step, Unreadable):
                yield Done(step)
                return
            whole, written, _ = step
            if written:
                yield Written(written)
    answer = parse_answer(whole.text, role.explain, task)
    rationale = None if isinstance(answer, ParseFailure) else answer.rationale
    yield Done(Reading("", rationale, None), whole.prompt_tokens, whole.output_tokens)


async def _generated(
    role: Role, ask: Ask, engine: Engine, case: Case, task: DiagnosisTask, piecewise: bool
) -> AsyncGenerator[tuple[Reply, str, bool] | Unreadable]:
    """After each piece: the answer so far, what of its rationale is new, and whether its label is there. Ends with
    Unreadable where it gives away its prompt."""
    prompt = prompt_of(role, ask, case, task)
    hidden = PromptWords(prompt.messages) if case.free_text else None
    whole, draft = Reply(""), Draft(ask, task)
    async with aclosing(engine.stream(prompt, piecewise=piecewise)) as pieces:
        async for piece in pieces:
            whole = joined(whole, piece)
            seen = whole.text[-LOOKED_BACK_CHARS - len(piece.text) :]
            if hidden is not None and hidden.in_text(seen):
                yield Unreadable(role.name, _ECHO)
                return
            yield whole, draft.add(piece.text) if piecewise else "", draft.has_label


def prompt_of(role: Role, ask: Ask, case: Case, task: DiagnosisTask) -> Prompt:
    """The description ends with the question. Words of the client's own cannot end a turn, and where there are any, the
    answer has to have the form of an answer."""
    shown = seen_description(neutralize(case.description, role.control_tokens), role.reads_text, task)
    exemplars = role.exemplars.choose(shown, shown, task) if ASK_KINDS[ask].uses_exemplars else ()
    messages = render_messages(ask, shown, task, exemplars=exemplars, words=role.words)
    if role.sees_picture and case.picture is not None:
        messages = with_picture(messages, case.picture)
    return Prompt(messages, answer_pattern(ask, task) if case.free_text else None)


def read_reply(reply: Reply, role: Role, task: DiagnosisTask, tier: Tier | None = None) -> Reading | Unreadable:
    """Diagnosis, rationale and probabilities of a model's raw reply."""
    answer = parse_answer(reply.text, role.ask, task)
    if isinstance(answer, ParseFailure):
        return Unreadable(role.name, answer.reason)
    if answer.label is None:
        return Unreadable(role.name, "no diagnosis")
    return Reading(answer.label, answer.rationale, probabilities_of(reply, role.ask, task, tier))


def probabilities_of(reply: Reply, ask: Ask, task: DiagnosisTask, tier: Tier | None) -> tuple[float, ...] | None:
    """Of each label, calibrated by the tier's temperature."""
    raw = option_probabilities(reply.tokens, task, label_first=ASK_KINDS[ask].label_first)
    if raw is None or tier is None:
        return raw
    return tuple(apply_temperature(raw, tier.temperature).tolist())


def joined(before: Reply, piece: Reply) -> Reply:
    """Two pieces as one. Counts of tokens come with the last piece."""
    return Reply(
        before.text + piece.text,
        [*before.tokens, *piece.tokens],
        piece.prompt_tokens or before.prompt_tokens,
        piece.output_tokens or before.output_tokens,
    )
