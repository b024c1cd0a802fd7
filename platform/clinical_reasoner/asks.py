"""The kinds of question that can be put about a patient. One more is an entry here and a prompt template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ask = Literal["rationalize", "diagnose", "diagnose_zero_shot", "diagnose_label_first", "direct", "explain"]


@dataclass(frozen=True)
class AskKind:
    """What the rest of the project has to know about an ask."""

    template: str
    """Prompt file in the folder of a prompt version, without `.j2`."""
    arm: str | None = None
    """Name of the teacher's answers among the predictions; None where the answer is no diagnosis of its own."""
    title: str = ""
    """Name of that arm in the report, behind "Teacher, "."""
    uses_exemplars: bool = True
    told_label: bool = False
    """The prompt holds the known diagnosis."""
    gives_label: bool = True
    gives_rationale: bool = True
    label_first: bool = False
    """The answer begins with the diagnosis: its first line of that kind counts, and the rationale follows it."""


ASK_KINDS: dict[Ask, AskKind] = {
    "rationalize": AskKind("rationalize", told_label=True, gives_label=False),
    "diagnose": AskKind("diagnose", "few_shot", "few-shot reasoning"),
    "diagnose_zero_shot": AskKind("diagnose", "zero_shot", "zero-shot reasoning", uses_exemplars=False),
    "diagnose_label_first": AskKind("diagnose_label_first", "label_first", "label before reasons", label_first=True),
    "direct": AskKind("direct", "direct", "direct", uses_exemplars=False, gives_rationale=False),
    "explain": AskKind("explain", uses_exemplars=False, gives_label=False),
}
