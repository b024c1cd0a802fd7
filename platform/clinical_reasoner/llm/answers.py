"""Parse: from a model's raw text to a typed answer, or to a typed failure with its reason. Never guesses or raises."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from clinical_reasoner.records import Ask
from clinical_reasoner.task import DiagnosisTask

_ANSWER_LINE = re.compile(
    r"^[\s*#>_-]*(?:final\s+)?(?:diagnosis|answer)[\s*_]*(?::|is\b)[\s*_]*(?P<answer>.+?)[\s*_]*$",
    re.IGNORECASE | re.MULTILINE,
)
_THINKING = re.compile(r"<think>.*?</think>|\A(?:(?!<think>).)*?</think>", re.DOTALL)
"""Prompts of some models end in `<think>`, so that the text begins within."""
_OPTION = re.compile(r"^(?P<open>\(?)(?P<option>[A-Z])(?=[\s.,:)*_]|$)(?P<close>[\s.,:)*_]*)(?P<name>.*)$")
_OR = r"\b(?i:or(?:\W{1,4}(?!no\b|not\b|without\b|due\b)\w+){0,2}?|possibly|perhaps|maybe|versus|vs)\b"

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
    """Read the answer to an ask. The last answer line counts; a rationale is what stands before it.

    Text between `<think>` and `</think>` belongs to neither.
    """
    text = without_thinking(text)
    if not text.strip():
        return ParseFailure("empty answer")
    if "<think>" in text:
        return ParseFailure("thinking was cut")
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


def without_thinking(text: str) -> str:
    """The text less its closed `<think>...</think>` parts."""
    return _THINKING.sub("", text)


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
        # Words after the letter ("(A) because ...") offer nothing else, so the letter stands; a bare "A" is an article.
        if not (match.group("open") or match.group("close").strip()):
            return ParseFailure("diagnosis is not one of the options")
        several = _alternative(task, label).search(match.group("name"))
        return ParseFailure("more than one option") if several else label
    return label if other == label else ParseFailure("option letter and diagnosis disagree")


@lru_cache(maxsize=64)
def _alternative(task: DiagnosisTask, label: str) -> re.Pattern[str]:
    """Words that offer another option beside this one: "or possibly B", "/ mild cognitive impairment"."""
    others = [other for other in task.labels if other.name != label]
    names = "|".join(re.escape(name) for other in others for name in (other.name, other.text, *other.aliases))
    letters = "".join(other.option for other in others)
    return re.compile(rf"(?:{_OR}|/)\W{{0,4}}(?:(?i:{names})|[{letters}])\b")


def option_probabilities(tokens: TokenLogprobs, task: DiagnosisTask) -> tuple[float, ...] | None:
    """P(label), in the order of the task's labels, from the log-probabilities where the option letter was written.

    The letter's place is the token that holds it at the beginning of the last answer, the one that `parse_answer`
    reads; the candidates there are renormalised over the options. None when that answer begins with no letter, or no
    candidate is an option. An option outside the reported candidates gets probability 0.
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
    """Index of the token with the option letter of the last answer line."""
    text = _THINKING.sub(lambda thought: " " * len(thought.group()), "".join(token for token, _ in tokens))
    lines = list(_ANSWER_LINE.finditer(text))
    letter = re.compile(rf"\(?([{''.join(task.options)}])(?!\w)")
    found = letter.match(text, lines[-1].start("answer")) if lines else None
    if not found:
        return None
    ends = accumulate(len(token) for token, _ in tokens)
    return next(index for index, end in enumerate(ends) if end > found.start(1))
