"""Training examples of an arm: the prompt that the student will be asked with, and the answer that it shall learn."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.student import Arm
from clinical_reasoner.llm.prompting import render_answer, render_messages
from clinical_reasoner.records import Ask, RejectedRow, Split
from clinical_reasoner.task import DiagnosisTask

ARM_ASKS: dict[Arm, Ask] = {"label_only": "direct", "rationale_then_label": "diagnose"}
"""The ask with which a student of each arm is trained and later answers, without exemplars."""

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
EXAMPLES = pa.schema(
    [
        ("patient_id", pa.string()),
        ("visit_id", pa.string()),
        ("prompt", pa.list_(_MESSAGE)),
        ("completion", pa.list_(_MESSAGE)),
    ]
)


def make_examples(
    findings: pa.Table, rationales: pa.Table, arm: Arm, split: Split, task: DiagnosisTask
) -> tuple[pa.Table, list[RejectedRow]]:
    """Prompt and completion (chat messages) of each visit of a split, and the visits that have no usable rationale.

    The label is always the recorded diagnosis; the rationale is the first selected one.
    """
    selected: dict[tuple[str, str], str] = {}
    for row in rationales.filter(pc.is_valid(rationales["selected"])).to_pylist():
        selected.setdefault((row["patient_id"], row["visit_id"]), row["rationale"])
    ask = ARM_ASKS[arm]
    rows: list[dict[str, Any]] = []
    rejected: list[RejectedRow] = []
    for number, visit in enumerate(findings.to_pylist(), start=1):
        if visit["split"] != split:
            continue
        rationale = selected.get((visit["patient_id"], visit["visit_id"]))
        if ASK_KINDS[ask].gives_rationale and rationale is None:
            source = f"findings row {number}"
            rejected.append(RejectedRow(source=source, stage=f"students/{arm}", reason="no selected rationale"))
            continue
        answer = render_answer(ask, rationale or "", visit["label"], task)
        rows.append(
            {
                "patient_id": visit["patient_id"],
                "visit_id": visit["visit_id"],
                "prompt": render_messages(ask, visit["description"], task),
                "completion": [{"role": "assistant", "content": answer}],
            }
        )
    return pa.Table.from_pylist(rows, schema=EXAMPLES), rejected


def count_tokens(examples: pa.Table, tokenizer: Any) -> list[int]:
    """Length of each example under the tokenizer's chat template, tokens."""
    return [
        len(tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], tokenize=True, return_dict=False))
        for row in examples.to_pylist()
    ]
