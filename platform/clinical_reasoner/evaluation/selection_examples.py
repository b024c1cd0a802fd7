"""Examples of rejected answers: a text, and which of its claims the evidence does not support."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.evaluation.cohort_counts import Frozen
from clinical_reasoner.evaluation.selection_counts import Row
from clinical_reasoner.evidence.claims import Claim, extract_claims, judge_claim
from clinical_reasoner.evidence.description import Evidence, parse_description, statement
from clinical_reasoner.llm.answers import without_thinking
from clinical_reasoner.records import Ask
from clinical_reasoner.task import DiagnosisTask

LONGEST_ANSWER = 1200
"""Characters of an answer that are shown."""


class UnsupportedClaim(Frozen):
    said: str
    """The stretch of the answer."""
    claim: str
    """In the words of a description."""
    evidence: str | None
    """What the patient's description says instead; None: nothing, the claim is not in evidence."""

    @property
    def verdict(self) -> str:
        return "not in evidence" if self.evidence is None else "contradicted"


class Passage(Frozen):
    text: str
    claims: tuple[int, ...] = ()
    """Places, in the example's claims, of those that this stretch makes."""


class RejectedExample(Frozen):
    reason: str
    ask: Ask
    recorded: str | None
    """The visit's diagnosis."""
    told: bool
    """The prompt gave the diagnosis away, so that the answer states none of its own."""
    stated: str | None
    """The diagnosis of the answer; None where it states none that can be read."""
    passages: tuple[Passage, ...]
    """The answer without what a model thought, cut at LONGEST_ANSWER; empty where there is none."""
    claims: tuple[UnsupportedClaim, ...] = ()
    """Those of the whole answer."""


def in_turn(rejected: Mapping[tuple[str, Ask], Sequence[Row]], reason: str, count: int) -> list[Row]:
    """The first rows of a reason, its asks in turn."""
    by_ask = [rows for (name, _), rows in rejected.items() if name == reason]
    return [row for row in chain.from_iterable(zip_longest(*by_ask)) if row is not None][:count]


def rejected_example(row: Row, description: str | None, task: DiagnosisTask) -> RejectedExample:
    """A row of the `rationales` table beside the description that the teacher read. No identifier goes with it."""
    text = without_thinking(row["text"]).strip()
    evidence = None if description is None else parse_description(description, task)
    found = [] if evidence is None else _unsupported(text, evidence, task)
    return RejectedExample(
        reason=row["reject_reason"],
        ask=row["ask"],
        recorded=row["label"],
        told=ASK_KINDS[row["ask"]].told_label,
        stated=row["predicted"],
        passages=_passages(text, [span for span, _ in found]),
        claims=tuple(claim for _, claim in found),
    )


def _unsupported(text: str, evidence: Evidence, task: DiagnosisTask) -> list[tuple[tuple[int, int], UnsupportedClaim]]:
    """Claims that are contradicted or not in evidence, with where they stand."""
    # A claim has its place in the text with single spaces.
    places = [place for word in re.finditer(r"\S+", text) for place in range(word.start(), word.end() + 1)]
    found = []
    for claim in extract_claims(text, task):
        if judge_claim(claim, evidence) != "supported":
            start, end = places[claim.start], places[claim.end - 1] + 1
            found.append(((start, end), _judged(claim, text[start:end], evidence, task)))
    return found


def _judged(claim: Claim, said: str, evidence: Evidence, task: DiagnosisTask) -> UnsupportedClaim:
    known = evidence.fields.get(claim.name, evidence.grades.get(claim.name))
    return UnsupportedClaim(
        said=" ".join(said.split()),
        claim=statement(claim.name, claim.one_of or (claim.value,), task),
        evidence=None if known is None else statement(claim.name, (known,), task),
    )


def _passages(text: str, spans: Sequence[tuple[int, int]]) -> tuple[Passage, ...]:
    """The text in parts, from its start to where it is cut. `spans` are in the order of their starts; those that
    overlap are one part."""
    shown = text if len(text) <= LONGEST_ANSWER else f"{text[: LONGEST_ANSWER - 1]}…"
    parts: list[Passage] = []
    marked: list[tuple[int, int, tuple[int, ...]]] = []
    for place, (start, end) in enumerate(spans):
        if marked and start < marked[-1][1]:
            first, last, claims = marked.pop()
            marked.append((first, max(last, end), (*claims, place)))
        else:
            marked.append((start, end, (place,)))
    at = 0
    for start, end, claims in marked:
        parts += [Passage(text=shown[at:start]), Passage(text=shown[start:end], claims=claims)]
        at = end
    parts.append(Passage(text=shown[at:]))
    return tuple(part for part in parts if part.text)
