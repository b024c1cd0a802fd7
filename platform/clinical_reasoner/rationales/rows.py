"""From a row of asks to a prompt, and from what the model returned to a row of the `rationales` table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.rationales import LengthBounds
from clinical_reasoner.config.student import Inputs
from clinical_reasoner.evidence.checks import REASONS, Flag, check_text, refuses
from clinical_reasoner.evidence.claims import ClaimCounts, count_claims, extract_claims
from clinical_reasoner.evidence.description import parse_description, seen_description
from clinical_reasoner.llm.answers import (
    Answer,
    ParseFailure,
    option_probabilities,
    parse_answer,
    thinking,
    without_thinking,
)
from clinical_reasoner.llm.generation import Generation, Row
from clinical_reasoner.llm.prompting import PROMPT_VERSION, Exemplar, Message, render_messages, with_picture
from clinical_reasoner.rationales.asks import visit_key
from clinical_reasoner.rationales.counts import ENGINE
from clinical_reasoner.rationales.exemplars import ExemplarChoice
from clinical_reasoner.records import Candidates, RationaleRow
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask


@dataclass(frozen=True)
class AskRenderer:
    """Row of asks -> chat messages."""

    task: DiagnosisTask
    exemplars: ExemplarChoice
    words: str | None = None
    """Length of the rationale asked for, as in `render_messages`."""
    inputs: Inputs = "text"
    """What the model reads of a visit; a picture stands before the text."""
    pictures: str | None = None
    """Run folder that holds the pictures."""

    def __call__(self, row: Row) -> list[Message]:
        messages = render_messages(
            row["ask"],
            seen_description(row["description"], self.inputs != "image", self.task),
            self.task,
            exemplars=self.exemplars_of(row),
            label=row["label"] if ASK_KINDS[row["ask"]].told_label else None,
            words=self.words,
        )
        return messages if self.inputs == "text" else with_picture(messages, self._picture(row["picture_path"]))

    def _picture(self, name: str) -> bytes:
        if self.pictures is None:
            raise ValueError("a model that sees pictures needs the run folder that holds them")
        return RunFolder(self.pictures).read_bytes(name)

    def exemplars_of(self, row: Row) -> tuple[Exemplar, ...]:
        """Those of the visit: the same for all its asks that use any, and for all samples."""
        if not ASK_KINDS[row["ask"]].uses_exemplars:
            return ()
        return self.exemplars.choose(visit_key(row["patient_id"], row["visit_id"]), row["description"], self.task)


_BEFORE_CLAIMS: tuple[Flag, ...] = ("language", "repetition", "truncated")
"""What makes claims worth little, whichever they are."""


def reject_reason(
    generation: Generation,
    answer: Answer | ParseFailure,
    claims: ClaimCounts,
    flags: Sequence[Flag] = (),
    recorded: str | None = None,
) -> str | None:
    """Why a rationale is not to be trained on, the gravest of several reasons; None if it is fit. No patient text.
    `recorded` is the visit's diagnosis where it is known."""
    if generation.error:
        return f"{ENGINE}{generation.error}"
    if "refusal" in flags:
        return _checks("refusal")
    if isinstance(answer, ParseFailure):
        return f"parse: {answer.reason}"
    if generation.cut:
        return "cut: at sampling.max_tokens or engine.max_model_len"
    early = [flag for flag in flags if flag in _BEFORE_CLAIMS]
    if early:
        return _checks(early[0])
    if claims.contradicted:
        return "claims: contradicts the evidence"
    if claims.not_in_evidence:
        return "claims: states what is not in the evidence"
    if answer.rationale is not None and not claims.supported:
        return "claims: none about the patient"
    if flags:
        return _checks(flags[0])
    missed = None not in (answer.label, recorded) and answer.label != recorded
    return "diagnosis: another one than the recorded" if missed else None


def _checks(flag: Flag) -> str:
    return f"checks: {REASONS[flag]}"


@dataclass(frozen=True)
class RationaleFinisher:
    """Row of asks and the model's text -> row of the `rationales` table, with claims checked against the evidence."""

    renderer: AskRenderer
    model: str
    accepted_words: LengthBounds = field(default_factory=LengthBounds)

    def __call__(self, row: Row, generation: Generation) -> Row:
        task, kind = self.renderer.task, ASK_KINDS[row["ask"]]
        exemplars = self.renderer.exemplars_of(row)
        answer = parse_answer(generation.text, row["ask"], task)
        parsed = answer if isinstance(answer, Answer) else None
        claims = count_claims(
            extract_claims(without_thinking(generation.text), task), parse_description(row["description"], task)
        )
        reason = reject_reason(generation, answer, claims, self._flags(row, generation, answer), row["label"])
        own = ("row_id", "patient_id", "visit_id", "split", "label", "ask", "sample", "seed")
        return RationaleRow(
            **{name: row[name] for name in own},
            model=self.model,
            prompt_version=PROMPT_VERSION,
            shots=len(exemplars),
            exemplars=tuple(exemplar.name for exemplar in exemplars),
            text=generation.text,
            thinking=thinking(generation.text),
            rationale=parsed.rationale if parsed else None,
            predicted=parsed.label if parsed else None,
            probabilities=option_probabilities(generation.tokens, task, label_first=kind.label_first)
            if kind.gives_label
            else None,
            claims_supported=claims.supported,
            claims_contradicted=claims.contradicted,
            claims_not_in_evidence=claims.not_in_evidence,
            accepted=reason is None,
            reject_reason=reason,
            prompt_tokens=generation.prompt_tokens,
            output_tokens=generation.output_tokens,
            token_ids=generation.token_ids or None,
            candidates=tuple(
                Candidates(ids=tuple(place), logprobs=tuple(place.values())) for place in generation.candidates
            )
            or None,
        ).model_dump()

    def _flags(self, row: Row, generation: Generation, answer: Answer | ParseFailure) -> tuple[Flag, ...]:
        """Of the checks; an answer that cannot be read may still be a refusal, and one without reasons has no more."""
        task, text = self.renderer.task, without_thinking(generation.text)
        if isinstance(answer, ParseFailure) or answer.rationale is None:
            return ("refusal",) if isinstance(answer, ParseFailure) and refuses(text, task) else ()
        told = ASK_KINDS[row["ask"]].told_label
        return check_text(answer.rationale, row["label"] if told else answer.label, told, task, self.accepted_words)
