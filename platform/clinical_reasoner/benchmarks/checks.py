"""How well the checks of rationales find what is wrong, on texts written by hand: precision and recall of each flag.

A claim counts where the text and the field or finding agree with the label, every other flag where the text does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.rationales import LengthBounds
from clinical_reasoner.evidence.checks import REASONS, Flag, check_text
from clinical_reasoner.evidence.claims import extract_claims, judge_claim
from clinical_reasoner.evidence.description import Evidence
from clinical_reasoner.task import DiagnosisTask, load_task

TEXTS = Path(__file__).with_name("check_texts.yaml")
CLAIMS = ("contradicted", "not_in_evidence")
FLAGS = (*CLAIMS, *REASONS)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Patient(_Strict):
    fields: dict[str, str]
    grades: dict[str, str]


class LabelledText(_Strict):
    patient: str
    """What is known of whom it is about."""
    text: str
    label: str
    """The diagnosis that it is an argument for."""
    told: bool = False
    """Written with the diagnosis in the prompt."""
    flags: tuple[Flag, ...] = ()
    contradicted: tuple[str, ...] = ()
    not_in_evidence: tuple[str, ...] = ()
    """Fields and findings of which it claims something that is not so, or not known."""
    held_out: bool = False
    """Written before the rules; of it, only the counts of flags were looked at while they were tuned."""


class LabelledTexts(_Strict):
    words: LengthBounds
    patients: dict[str, Patient]
    texts: tuple[LabelledText, ...]


@dataclass(frozen=True)
class Scores:
    right: Counter[str]
    """Raised as labelled, by flag."""
    wrong: Counter[str]
    """Raised, but not labelled."""
    missed: Counter[str]

    def precision(self, flag: str) -> float:
        return _share(self.right[flag], self.wrong[flag])

    def recall(self, flag: str) -> float:
        return _share(self.right[flag], self.missed[flag])


def benchmark_checks(config: PipelineConfig) -> dict[str, Any]:
    """Figures of every flag, of all texts and of those that were held out; prints them as a table."""
    task, labelled = load_task(config.task.file), load_texts()
    held_out = labelled.model_copy(update={"texts": tuple(text for text in labelled.texts if text.held_out)})
    every, unseen = score(labelled, task), score(held_out, task)
    Console().print(_table(every, unseen))
    return {
        "benchmark": "checks",
        "precision": {flag: round(every.precision(flag), 3) for flag in FLAGS},
        "recall": {flag: round(every.recall(flag), 3) for flag in FLAGS},
        "texts": len(labelled.texts),
        "held_out": len(held_out.texts),
    }


def load_texts() -> LabelledTexts:
    return LabelledTexts.model_validate(yaml.safe_load(TEXTS.read_text(encoding="utf-8")))


def score(labelled: LabelledTexts, task: DiagnosisTask) -> Scores:
    """What is raised about the texts, against their labels."""
    scores = Scores(Counter(), Counter(), Counter())
    for text in labelled.texts:
        raised, wanted = raised_about(text, labelled, task), wanted_about(text)
        for counter, found in (
            (scores.right, raised & wanted),
            (scores.wrong, raised - wanted),
            (scores.missed, wanted - raised),
        ):
            counter.update(flag for flag, _ in found)
    return scores


def raised_about(text: LabelledText, labelled: LabelledTexts, task: DiagnosisTask) -> set[tuple[str, str]]:
    """(flag, what it is about: a field or finding, or nothing)."""
    patient = labelled.patients[text.patient]
    evidence = Evidence(patient.fields, patient.grades)
    verdicts = {(str(judge_claim(claim, evidence)), claim.name) for claim in extract_claims(text.text, task)}
    flags = check_text(text.text, text.label, text.told, task, labelled.words)
    return {verdict for verdict in verdicts if verdict[0] in CLAIMS} | {(flag, "") for flag in flags}


def wanted_about(text: LabelledText) -> set[tuple[str, str]]:
    claims = {(flag, name) for flag in CLAIMS for name in getattr(text, flag)}
    return claims | {(flag, "") for flag in text.flags}


def _share(right: int, other: int) -> float:
    return right / (right + other) if right + other else 1.0


def _table(every: Scores, unseen: Scores) -> Table:
    table = Table(title="Checks of rationales on labelled texts; in brackets, those held out")
    for name in ("flag", "labelled", "precision", "recall"):
        table.add_column(name, justify="left" if name == "flag" else "right")
    for flag in FLAGS:
        of_all, of_unseen = (scores.right[flag] + scores.missed[flag] for scores in (every, unseen))
        table.add_row(
            flag,
            f"{of_all} ({of_unseen})",
            f"{every.precision(flag):.3f} ({unseen.precision(flag):.3f})",
            f"{every.recall(flag):.3f} ({unseen.recall(flag):.3f})",
        )
    return table
