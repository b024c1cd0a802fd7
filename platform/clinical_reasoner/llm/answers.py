"""Parse: from a model's raw text to a typed answer, or to a typed failure with its reason. Never guesses or raises."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.records import Ask
from clinical_reasoner.task import DiagnosisTask

_ANSWER_LINE = re.compile(
    r"^[\s*#>_-]*(?P<sentence>the\s+(?:(?:most\s+likely|correct)\s+)?)?(?:final\s+)?(?:diagnosis|answer)"
    r"[\s*_]*(?::|is\b:?)[\s*_]*(?P<answer>.+?)[\s*_]*$",
    re.IGNORECASE | re.MULTILINE,
)
_THINKING = re.compile(r"<think>.*?</think>|\A(?:(?!<think>).)*?</think>", re.DOTALL)
"""Prompts of some models end in `<think>`, so that the text begins within."""
_THOUGHT = "</think>"
"""Without it there is nothing to leave out."""
_WORD = r"(?i:option)\s+"
_DASHES = "\u2013\u2014-"
_LETTER_FIRST = re.compile(
    rf"^(?P<mark>(?:{_WORD})?\(?)(?P<option>[A-Z])(?=[\s.,:)*_]|$)(?P<close>[\s.,:)*_{_DASHES}]*)(?P<name>.*)$"
)
"""`(A) NAME`, `option A`, `A because ...`"""
_LETTER_LAST = re.compile(
    rf"^(?P<name>.+?)(?<![\s,:(*_{_DASHES}])[\s,:(*_{_DASHES}]++(?:{_WORD}\(?)?(?P<option>[A-Z])[\s.)*_]*$"
)
"""`NAME (A)`, `NAME, option A`"""
_LETTERS = re.compile(r"(?<=\()[A-Z](?=\))|(?i:(?<=\boption ))[A-Z]\b")
_END_MARK = re.compile(r"(?:<[^<>\s]+>\s*)+\Z")
"""Of the model's turn: among its tokens, and no part of its text."""
_OR = r"\b(?i:or(?:\W{1,4}(?!no\b|not\b|without\b|due\b)\w+){0,2}?|possibly|perhaps|maybe|versus|vs)\b"

_OPTION = re.compile(r"\s*\(*([A-Z])[()]*\s*")
"""A token that is an option letter alone, with or without brackets: `A`, ` (A`, `A)`."""

TokenLogprobs = Sequence[tuple[str, dict[str, float]]]
"""For each generated token: its text, and the log-probability of the candidates (text -> natural log) at its place."""


class TextOfToken(dict[int, str]):
    """Id of a token -> its text alone, under a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, token: int) -> str:
        self[token] = self._tokenizer.decode([token])
        return self[token]


@dataclass(frozen=True)
class Answer:
    rationale: str | None
    """None for a direct answer."""
    label: str | None
    """None where the label was given."""


@dataclass(frozen=True)
class ParseFailure:
    reason: str
    """Short and without patient text."""


def parse_answer(text: str, ask: Ask, task: DiagnosisTask) -> Answer | ParseFailure:
    """Read the answer to an ask. The last answer line counts and a rationale is what stands before it; where the
    label is asked for first, the first answer line counts and a rationale is what follows it.

    Text between `<think>` and `</think>` belongs to neither.
    """
    kind = ASK_KINDS[ask]
    text = without_thinking(text)
    if not text.strip():
        return ParseFailure("empty answer")
    if "<think>" in text:
        return ParseFailure("thinking was cut")
    lines = _answer_lines(text, task)
    if not kind.gives_label:
        rationale = (text[: lines[-1].start()] if lines and not text[lines[-1].end() :].strip() else text).strip()
        return Answer(rationale, None) if rationale else ParseFailure("no rationale")
    if not lines:
        return ParseFailure("no diagnosis line")
    line = lines[0 if kind.label_first else -1]
    label = _read_answer(line["answer"], task)
    if isinstance(label, ParseFailure) or not kind.gives_rationale:
        return label if isinstance(label, ParseFailure) else Answer(None, label)
    rationale = (text[line.end() :] if kind.label_first else text[: line.start()]).strip()
    side = "after" if kind.label_first else "before"
    return Answer(rationale, label) if rationale else ParseFailure(f"no rationale {side} the diagnosis")


def without_thinking(text: str) -> str:
    """The text less its closed `<think>...</think>` parts."""
    return _THINKING.sub("", text) if _THOUGHT in text else text


def thinking(text: str) -> str | None:
    """What stands in its closed `<think>...</think>` parts; None where there is nothing."""
    thoughts = (re.sub(r"</?think>", "", part).strip() for part in _THINKING.findall(text))
    return "\n\n".join(thought for thought in thoughts if thought) or None


def _answer_lines(text: str, task: DiagnosisTask) -> list[re.Match[str]]:
    """Lines that give an answer. A sentence ("The diagnosis is ...") does so where an option is all that it names: with
    more words it may be part of a rationale, and a small "a" is an article."""
    return [
        line
        for line in _ANSWER_LINE.finditer(text)
        if not line["sentence"] or (line["answer"] != "a" and _read_option(line["answer"], task) is not None)
    ]


def _read_answer(text: str, task: DiagnosisTask) -> str | ParseFailure:
    if len(set(_LETTERS.findall(text)).intersection(task.options)) > 1:
        return ParseFailure("more than one option")
    option = _read_option(text, task)
    if option is not None:
        return option
    match = _LETTER_FIRST.match(text.strip())
    if not match:
        return ParseFailure("diagnosis is not one of the options")
    label = _by_letter(match["option"], task)
    if isinstance(label, ParseFailure):
        return label
    # Words after the letter ("(A) because ...") offer nothing else, so the letter stands; a bare "A" is an article.
    if not (match["mark"] or match["close"].strip()):
        return ParseFailure("diagnosis is not one of the options")
    several = _alternative(task, label).search(match["name"])
    return ParseFailure("more than one option") if several else label


def _read_option(text: str, task: DiagnosisTask) -> str | ParseFailure | None:
    """An option by its letter, its name, or both in either order; None where there are other words."""
    text = text.strip().rstrip("*_. ")
    named = task.read_label(re.sub(rf"^{_WORD}", "", text))
    if named is not None:
        return named
    for form in (_LETTER_FIRST, _LETTER_LAST):
        match = form.match(text)
        name = re.sub(r"^\((.*)\)\.?$", r"\1", match["name"]) if match else ""
        beside = task.read_label(name) if name else None
        if match and (beside is not None or not name):
            label = _by_letter(match["option"], task)
            agree = isinstance(label, ParseFailure) or beside in (None, label)
            return label if agree else ParseFailure("option letter and diagnosis disagree")
    return None


def _by_letter(letter: str, task: DiagnosisTask) -> str | ParseFailure:
    by_option = {label.option: label.name for label in task.labels}
    return by_option.get(letter) or ParseFailure("option letter is not one of the options")


@lru_cache(maxsize=64)
def _alternative(task: DiagnosisTask, label: str) -> re.Pattern[str]:
    """Words that offer another option beside this one: "or possibly B", "/ mild cognitive impairment"."""
    others = [other for other in task.labels if other.name != label]
    names = "|".join(re.escape(name) for other in others for name in (other.name, other.text, *other.aliases))
    letters = "".join(other.option for other in others)
    return re.compile(rf"(?:{_OR}|/)\W{{0,4}}(?:(?i:{names})|[{letters}])\b")


def option_probabilities(
    tokens: TokenLogprobs, task: DiagnosisTask, *, label_first: bool = False
) -> tuple[float, ...] | None:
    """P(label), in the order of the task's labels, from the log-probabilities where the option letter was written.

    The letter's place is the token that holds it at the beginning of the answer that `parse_answer` reads: the last
    one, or with `label_first` the first; behind the name of a diagnosis it would be sure of itself, whatever led to the
    name. The candidates there are renormalised over the options. None when that answer begins with no letter, or no
    candidate is an option. An option outside the reported candidates gets probability 0.
    """
    place = option_place(tokens, task, label_first=label_first)
    if place is None:
        return None
    mass = dict.fromkeys(task.options, 0.0)
    for text, logprob in tokens[place][1].items():
        option = _OPTION.fullmatch(text)
        if option and option[1] in mass:
            mass[option[1]] += math.exp(logprob)
    total = sum(mass.values())
    return tuple(mass[option] / total for option in task.options) if total > 0 else None


def may_be_option(candidate: str) -> bool:
    """Whether `option_probabilities` may count a candidate: of no other does anything depend on the probability."""
    return _OPTION.fullmatch(candidate) is not None


def option_place(tokens: TokenLogprobs, task: DiagnosisTask, *, label_first: bool = False) -> int | None:
    """Index of the token with the option letter of the answer line that `parse_answer` reads; None without one."""
    text = "".join(token for token, _ in tokens)
    if _THOUGHT in text:
        text = _THINKING.sub(lambda thought: " " * len(thought.group()), text)
    lines = _answer_lines(_END_MARK.sub("", text), task)
    which = 0 if label_first else -1
    letter = _letter_place(lines[which]["answer"], task) if lines else None
    if letter is None:
        return None
    place = lines[which].start("answer") + letter
    ends = accumulate(len(token) for token, _ in tokens)
    return next(index for index, end in enumerate(ends) if end > place)


def _letter_place(answer: str, task: DiagnosisTask) -> int | None:
    """Offset of the option letter with which an answer begins."""
    letters = "".join(task.options)
    found = re.match(rf"(?:{_WORD})?\(?(?P<option>[{letters}])(?!\w)", answer)
    return found.start("option") if found else None
