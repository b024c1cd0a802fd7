"""An answer while it is written: which part of it is rationale and may be shown."""

from __future__ import annotations

import re

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.llm.answers import ParseFailure, parse_answer
from clinical_reasoner.records import Ask
from clinical_reasoner.task import DiagnosisTask

_PARTS = re.compile(r"[^\n]*\n|[^\n]+")
_MARKS = " \t*#>_-"
"""May stand before the first word of an answer line."""
_HEADS = ("the most likely", "the correct", "the final", "the diagnosis", "the answer", "final", "diagnosis", "answer")
"""With which an answer line begins, as `parse_answer` reads it."""


class Draft:
    """Takes an answer piece by piece and gives out its rationale as far as it is certain to be one: a line that may yet
    turn out to be the answer line is held back until it ends."""

    def __init__(self, ask: Ask, task: DiagnosisTask) -> None:
        self._kind, self._task = ASK_KINDS[ask], task
        self._line = ""
        """Held back."""
        self._gap = ""
        """White space, which is given out with what follows it."""
        self._begun = self._in_prose = self._thinking = False
        self.has_label = not self._kind.label_first
        """Whether the rationale can begin: with the label first, once its line is complete."""

    def add(self, piece: str) -> str:
        """The rationale that can be shown after this piece and could not before."""
        if not self._kind.gives_rationale:
            return ""
        return "".join(self._part(part) for part in _PARTS.findall(piece))

    def _part(self, part: str) -> str:
        ends = part.endswith("\n")
        if self._in_prose:
            self._in_prose = not ends
            return self._given(part)
        self._line += part
        if not ends and not self._is_prose():
            return ""
        line, self._line = self._line, ""
        if ends:
            return self._complete(line)
        self._in_prose = True
        return self._given(line)

    def _complete(self, line: str) -> str:
        if self._thinking or "<think>" in line:
            self._thinking = "</think>" not in line
            return ""
        if line.strip() and not isinstance(parse_answer(line, "direct", self._task), ParseFailure):
            self.has_label = True
            return ""
        return self._given(line) if self.has_label else ""

    def _is_prose(self) -> bool:
        """Whether the line that is held back can no longer become an answer line."""
        if not self.has_label or self._thinking or "<" in self._line:
            return False
        words = self._line.lstrip(_MARKS).lower()
        return bool(words) and not any(words.startswith(head[: len(words)]) for head in _HEADS)

    def _given(self, text: str) -> str:
        text = self._gap + text
        if not self._begun:
            text = text.lstrip()
        shown = text.rstrip()
        self._gap = text[len(shown) :]
        self._begun = self._begun or bool(shown)
        return shown
