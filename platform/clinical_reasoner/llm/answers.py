"""Parse: from a model's raw text to a typed answer, or to a typed failure with its reason. Never guesses or raises."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from clinical_reasoner.records import Ask
from clinical_reasoner.task import DiagnosisTask

_ANSWER_LINE = re.compile(
    r"^[\s*#>_-]*(?:final\s+)?(?:diagnosis|answer)[\s*_]*(?::|is\b)[\s*_]*(?P<answer>.+?)[\s*_]*$",
    re.IGNORECASE | re.MULTILINE,
)
_OPTION = re.compile(r"^(?P<open>\(?)(?P<option>[A-Z])(?=[\s.,:)*_]|$)(?P<close>[\s.,:)*_]*)(?P<name>.*)$")

TokenLogprobs = Sequence[tuple[str, dict[str, float]]]
"""For each generated token: its text, and the log-probability of the candidates (text -> natural log) at its place."""


@dataclass(frozen=True)
class Answer:
    rationale: str | None
    """None for a direct answer."""
    label: str | None
    """None for `rationalize`, whose label was given."""


@dataclass(frozen=True)
class ParseFailure:
    reason: str
    """Short and without patient text."""


def parse_answer(text: str, ask: Ask, task: DiagnosisTask) -> Answer | ParseFailure:
    """Read the answer to an ask. The last answer line counts; a rationale is what stands before it."""
    if not text.strip():
        return ParseFailure("empty answer")
    lines = list(_ANSWER_LINE.finditer(text))
    if ask == "rationalize":
        rationale = (text[: lines[-1].start()] if lines and not text[lines[-1].end() :].strip() else text).strip()
        return Answer(rationale, None) if rationale else ParseFailure("no rationale")
    if not lines:
        return ParseFailure("no diagnosis line")
    label = _read_answer(lines[-1].group("answer"), task)
    if isinstance(label, ParseFailure) or ask == "direct":
        return label if isinstance(label, ParseFailure) else Answer(None, label)
    rationale = text[: lines[-1].start()].strip()
    return Answer(rationale, label) if rationale else ParseFailure("no rationale before the diagnosis")


def _read_answer(text: str, task: DiagnosisTask) -> str | ParseFailure:
    named = task.read_label(text)
    if named:
        return named
    if len(set(re.findall(r"\(([A-Z])\)", text)).intersection(task.options)) > 1:
        return ParseFailure("more than one option")
    match = _OPTION.match(text.strip())
    if not match:
        return ParseFailure("diagnosis is not one of the options")
    by_option = {label.option: label.name for label in task.labels}
    label = by_option.get(match.group("option"))
    if label is None:
        return ParseFailure("option letter is not one of the options")
    other = task.read_label(match.group("name")) if match.group("name") else label
    if other is None:
        # Words after the letter ("(A) because ...") name nothing else, so the letter stands; a bare "A" is an article.
        marked = match.group("open") or match.group("close").strip()
        return label if marked else ParseFailure("diagnosis is not one of the options")
    return label if other == label else ParseFailure("option letter and diagnosis disagree")


def option_probabilities(tokens: TokenLogprobs, task: DiagnosisTask) -> tuple[float, ...] | None:
    """P(label), in the order of the task's labels, from the log-probabilities where the option letter was written.

    The letter's place is the first token that completes `(X` after the last "Diagnosis:"; the candidates there are
    renormalised over the options. None when no letter was written or no candidate is an option. An option outside the
    reported candidates gets probability 0.
    """
    place = _option_place(tokens, task)
    if place is None:
        return None
    mass = dict.fromkeys(task.options, 0.0)
    for text, logprob in tokens[place][1].items():
        letter = text.strip().lstrip("(")[:1]
        if letter in mass and text.strip().strip("()") == letter:
            mass[letter] += math.exp(logprob)
    total = sum(mass.values())
    return tuple(mass[option] / total for option in task.options) if total > 0 else None


def _option_place(tokens: TokenLogprobs, task: DiagnosisTask) -> int | None:
    text, place = "", None
    wanted = re.compile(rf"(?i:diagnosis|answer)[\s*_]*(?::|(?i:is)\b)[\s*_]*\(?[{''.join(task.options)}]\)?$")
    for index, (token, _) in enumerate(tokens):
        text = (text + token)[-80:]
        word_goes_on = index + 1 < len(tokens) and tokens[index + 1][0][:1].isalnum()
        if token.strip("() \n") and wanted.search(text) and not word_goes_on:
            place = index
    return place
