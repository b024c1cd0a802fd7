"""Training text of the reference vision-language model: chats about phantoms, each answered from its picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Literal, NamedTuple

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.evidence.description import Evidence, describe_evidence, without_question
from clinical_reasoner.llm.prompting import Message, render_answer, render_messages, with_picture
from clinical_reasoner.records import Ask
from clinical_reasoner.reference.corpus import ASK_SHARES, CorpusSpec
from clinical_reasoner.reference.writer import restate, write_unweighed

Told = Literal["nothing", "fields", "all"]
TOLD_SHARES: dict[Told, float] = {"nothing": 0.4, "fields": 0.35, "all": 0.25}
"""What the prompt says of the patient beside the picture: nothing, all but the MRI, or all."""
ASKED_SHARES: dict[Told, float] = {"fields": 0.6, "all": 0.4}
"""The same in the asks of the stages."""


class PictureChat(NamedTuple):
    case: int
    """Index of the phantom whose picture the chat begins with."""
    messages: list[dict[str, Any]]
    """The last one is the answer."""


def finding_chats(spec: CorpusSpec, evidence: Sequence[Evidence]) -> Iterator[PictureChat]:
    """Endless short chats whose answer says the graded findings of the picture, and the fields that the prompt has."""
    rng = Random(spec.seed)
    while True:
        case, whole = _case(evidence, rng)
        told = _part(whole, rng.choices(list(TOLD_SHARES), weights=list(TOLD_SHARES.values()))[0])
        said = restate(Evidence(told.fields, whole.grades), spec.task, spec.wording, rng).sentences
        yield PictureChat(case, _chat([_question(told, spec)], " ".join(said)))


def ask_chats(spec: CorpusSpec, evidence: Sequence[Evidence]) -> Iterator[PictureChat]:
    """Endless chats of the stages' asks, as `corpus.chats` without exemplars, for a reader of pictures: the description
    tells the findings now and then, the rationale always. The diagnosis is drawn at random."""
    rng = Random(spec.seed)
    while True:
        case, whole = _case(evidence, rng)
        ask: Ask = rng.choices(list(ASK_SHARES), weights=list(ASK_SHARES.values()))[0]
        told = _part(whole, rng.choices(list(ASKED_SHARES), weights=list(ASKED_SHARES.values()))[0])
        label = rng.choice(spec.task.label_names)
        known = label if ASK_KINDS[ask].told_label else None
        messages = render_messages(ask, describe_evidence(told, spec.task), spec.task, label=known)
        rationale = write_unweighed(whole, label, spec.task, spec.wording, rng)
        yield PictureChat(case, _chat(messages, render_answer(ask, rationale, label, spec.task)))


def picture_question(spec: CorpusSpec) -> list[dict[str, Any]]:
    """The prompt for the findings of a picture of which nothing is told."""
    return with_picture([_question(Evidence({}, {}), spec)])


def _question(told: Evidence, spec: CorpusSpec) -> Message:
    description = without_question(describe_evidence(told, spec.task), spec.task)
    return {"role": "user", "content": description or spec.task.findings_heading}


def _chat(messages: list[Message], answer: str) -> list[dict[str, Any]]:
    return [*with_picture(messages), {"role": "assistant", "content": answer}]


def _case(evidence: Sequence[Evidence], rng: Random) -> tuple[int, Evidence]:
    """A phantom whose picture is graded."""
    while True:
        case = rng.randrange(len(evidence))
        if evidence[case].grades:
            return case, evidence[case]


def _part(whole: Evidence, told: Told) -> Evidence:
    fields = {} if told == "nothing" else whole.fields
    return Evidence(fields, whole.grades if told == "all" else {})
