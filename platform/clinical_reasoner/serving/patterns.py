"""The form of an answer as a regular expression, to which an engine can hold a model (structured output)."""

from __future__ import annotations

import re
from functools import lru_cache

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.records import Ask
from clinical_reasoner.task import DiagnosisTask

_PROSE = r"[^\n<>]+(\n{1,2}[^\n<>]+)*"
"""Lines without marks of turns."""


@lru_cache(maxsize=64)
def answer_pattern(ask: Ask, task: DiagnosisTask) -> str:
    """Of the whole answer, in the form that `prompts/` shows and `parse_answer` reads. It uses only what the regular
    expressions of vLLM's backends have in common: no look-around, no back-references."""
    kind = ASK_KINDS[ask]
    answers = "|".join(re.escape(task.answer_text(name)).replace("\\ ", " ") for name in task.label_names)
    line = f"Diagnosis: ({answers})"
    if not kind.gives_label:
        return _PROSE
    if not kind.gives_rationale:
        return line
    return f"{line}\n\n{_PROSE}" if kind.label_first else f"{_PROSE}\n\n{line}"
