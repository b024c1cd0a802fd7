"""Checks of a rationale, each a small pure function of its text: no model is needed, and nothing but the text is read.

The words come from the task and from its language. `check_text` runs them all and gives the flags in their order.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import Literal

from clinical_reasoner.config.rationales import LengthBounds
from clinical_reasoner.evidence.language import Language, any_phrase, load_language, plain_text
from clinical_reasoner.evidence.stances import label_source, labels_named_after, stances
from clinical_reasoner.task import DiagnosisTask

Flag = Literal[
    "refusal",
    "language",
    "repetition",
    "truncated",
    "argues_against",
    "concludes_other",
    "label_leak",
    "too_short",
    "too_long",
]
REASONS: dict[Flag, str] = {
    "refusal": "refuses to answer",
    "language": "not in the language of the task",
    "repetition": "repeats itself",
    "truncated": "does not end a sentence",
    "argues_against": "argues against its own diagnosis",
    "concludes_other": "concludes another diagnosis",
    "label_leak": "restates the diagnosis it was told",
    "too_short": "too short",
    "too_long": "too long",
}
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:['\u2019-][^\W_]+)*")
"""A word, or a sign of a script that has no spaces."""
_SENTENCE_ENDS = ".!?\u3002\uff01\uff1f"
_CLOSING = "\"'\u2019\u201d\u00bb)]}*_` \n\t"
_LOOP = re.compile(r"(.)\1{3}|(.{2,7})\2{2}|(.{8,20})\3", re.DOTALL)
"""In signs, one for each word: a word four times, a stretch of words three times, a long one twice in a row."""
_PARTS = re.compile(r"[.!?;\n\u3002]+(?=\s|$|[^\x00-\x7f])")
"""Between sentences of any script."""
_LETTER = re.compile(r"[^\W\d_]")
_PROSE = 8
"""Words from which a sentence tells its language."""
_FOREIGN = 2
"""Words of other languages from which a sentence may be in one of them."""


def check_text(
    text: str, stated: str | None, told: bool, task: DiagnosisTask, length: LengthBounds
) -> tuple[Flag, ...]:
    """Flags of a rationale. `stated` is the diagnosis it argues for; `told` says that the prompt gave it away."""
    found: dict[Flag, bool] = {
        "refusal": refuses(text, task),
        "language": in_another_language(text, task),
        "repetition": repeats_itself(text),
        "truncated": is_truncated(text),
        "argues_against": stated is not None and argues_against(text, stated, task),
        "concludes_other": stated is not None and concludes_other(text, stated, task),
        "label_leak": told and restates_label(text, task),
        "too_short": is_too_short(text, length.min_words),
        "too_long": is_too_long(text, length.max_words),
    }
    return tuple(flag for flag, raised in found.items() if raised)


@lru_cache(maxsize=64)
def words(text: str) -> tuple[str, ...]:
    """Words in lower case, without marks."""
    return tuple(word.lower() for word in _WORD.findall(text))


def is_too_short(text: str, least: int) -> bool:
    return len(words(text)) < least


def is_too_long(text: str, most: int) -> bool:
    return len(words(text)) > most


def is_truncated(text: str) -> bool:
    """Whether the text ends elsewhere than at the end of a sentence; an ellipsis ends none."""
    bare = text.rstrip(_CLOSING)
    return not bare.endswith(tuple(_SENTENCE_ENDS)) or bare.endswith("..")


def repeats_itself(text: str) -> bool:
    """A stretch of words three times in a row (a word four times, a long stretch twice), or a sentence three times."""
    signs: dict[str, str] = {}
    for word in words(text):
        signs.setdefault(word, chr(len(signs)))
    if _LOOP.search("".join(map(signs.__getitem__, words(text)))):
        return True
    sentences = Counter(words(part) for part in re.split(r"[.!?;\n]+(?=\s|$)", text))
    return any(count >= 3 and len(sentence) >= 4 for sentence, count in sentences.items())


def in_another_language(text: str, task: DiagnosisTask) -> bool:
    """Whether the text, or one of its sentences, is in another language than the task.

    Prose has many function words: of a text in this language they are, with the task's words for grades, at least one
    word in ten, and no sentence has more of other languages' than of its own, or letters of another script.
    """
    language = load_language(task.language)
    if _may_be_foreign(text, language) and any(_is_foreign(part, language) for part in _PARTS.split(text)):
        return True
    said, known = words(text), _known_words(task)
    return len(said) >= _PROSE and sum(word in known for word in said) < 0.1 * len(said)


@lru_cache(maxsize=8)
def _known_words(task: DiagnosisTask) -> frozenset[str]:
    """Function words, and those of grades and changes, which notes are full of. Names of places are the same in many
    languages."""
    language = load_language(task.language)
    phrases = [*language.present, *language.seen, *(word for grade in task.grades for word in grade.words)]
    phrases += [word for change in task.changes.values() for word in (*change.nouns, *change.adjectives)]
    return language.function_words.union(word for phrase in phrases for word in words(phrase))


def _may_be_foreign(text: str, language: Language) -> bool:
    """Whether there is anything in it for which `_is_foreign` could find one of its sentences so."""
    return bool(_strange_letters(language.letters).search(text)) or _foreign_words(text, language) >= _FOREIGN


def _is_foreign(sentence: str, language: Language) -> bool:
    letters = len(_LETTER.findall(sentence))
    strange = len(_strange_letters(language.letters).findall(sentence))
    if letters >= _PROSE and strange > 0.3 * letters:
        return True
    said = words(sentence)
    own = sum(word in language.function_words for word in said)
    other = _foreign_words(sentence, language)
    return len(said) >= _PROSE - 2 and other >= _FOREIGN and other > own


def _foreign_words(text: str, language: Language) -> int:
    return sum(word in language.foreign_words and word not in language.function_words for word in words(text))


@lru_cache(maxsize=8)
def _strange_letters(own: str) -> re.Pattern[str]:
    """Those of another script than that of this character class."""
    return re.compile(rf"[^\W\d_{own}\u00c0-\u024f]")


def refuses(text: str, task: DiagnosisTask) -> bool:
    """Whether the text declines to answer, in the first person of a model."""
    return _phrases(task)[0].search(plain_text(text)) is not None


def restates_label(text: str, task: DiagnosisTask) -> bool:
    """Whether a text that was told the diagnosis takes it as given, so that its findings explain nothing."""
    return _phrases(task)[1].search(plain_text(text)) is not None


def argues_against(text: str, stated: str, task: DiagnosisTask) -> bool:
    """Whether the text rejects the diagnosis it is given for, or counts against it and does not come back to it."""
    own = [stance for stance in stances(text, task) if stance.label == stated]
    last_support = max((stance.start for stance in own if stance.side == "supports"), default=-1)
    return any(
        stance.start > last_support or (stance.side == "rejects" and not stance.conceded)
        for stance in own
        if stance.side != "supports"
    )


def concludes_other(text: str, stated: str, task: DiagnosisTask) -> bool:
    """Whether the last sentence that speaks for a diagnosis speaks for others than the one that it is given for, and
    that one is not named again without a word against it."""
    said = stances(text, task)
    found = [stance for stance in said if stance.side == "supports" and not stance.conceded]
    if not found:
        return False
    last = {stance.label for stance in found if stance.sentence == found[-1].sentence}
    return stated not in last and stated not in labels_named_after(text, found[-1].sentence, task)


@lru_cache(maxsize=8)
def _phrases(task: DiagnosisTask) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Of refusing, and of restating the diagnosis."""
    language = load_language(task.language)
    return any_phrase(language.refusals), any_phrase(language.restating, {"label": label_source(task)})
