"""Training examples of an arm: the prompt that the student will be asked with, and the answer that it shall learn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.arms import ArmConfig, RationaleSource
from clinical_reasoner.config.student import Inputs
from clinical_reasoner.distillation.bases import chat_text, tokenizer_of
from clinical_reasoner.distillation.students import Student
from clinical_reasoner.evidence.description import seen_description
from clinical_reasoner.llm.prompting import render_answer, render_messages
from clinical_reasoner.records import FINDINGS, RATIONALES, Ask, RejectedRow, Split
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask

Row = dict[str, Any]
Visit = tuple[str, str]

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
EXAMPLES = pa.schema(
    [
        ("patient_id", pa.string()),
        ("visit_id", pa.string()),
        ("ask", pa.string()),
        ("label", pa.string()),
        ("weight", pa.float64()),
        ("soft_label", pa.list_(pa.float64())),
        ("picture", pa.string()),
        ("teacher_ids", RATIONALES.field("token_ids").type),
        ("teacher_candidates", RATIONALES.field("candidates").type),
        ("prompt", pa.list_(_MESSAGE)),
        ("completion", pa.list_(_MESSAGE)),
    ]
)
"""`weight` is that of the example's task in the loss; `soft_label` the teacher's probabilities in the order of the
task's labels, and `teacher_ids` and `teacher_candidates` its tokens and what else it could have written, where the arm
uses them; `picture` a file below the run folder, where the student sees one."""


def visits_of(run: RunFolder, student: Student, splits: Collection[Split]) -> Iterator[Row]:
    """All rows of `findings`; those of these splits whose picture is no longer in the run folder have none."""
    for batch in run.batches("findings", FINDINGS):
        for visit in batch.to_pylist():
            name = visit["picture_path"]
            if student.settings.inputs != "text" and name and visit["split"] in splits and not run.exists(name):
                visit["picture_path"] = None
            yield visit


def make_examples(
    findings: Iterable[Row],
    rationales: Iterable[Row],
    student: Student,
    split: Split,
    task: DiagnosisTask,
) -> tuple[pa.Table, list[RejectedRow]]:
    """One example per task of the arm and visit of a split, and the visits of which none can be made. A visit without a
    usable rationale has none of the tasks that write one.

    `rationales` are rows of the student's teacher. The label is always the recorded diagnosis.
    """
    inputs = student.settings.inputs
    written, soft = _of_teacher(rationales, student.arm)
    token_level = student.arm.token_distillation > 0
    rows: list[Row] = []
    rejected: list[RejectedRow] = []
    for number, visit in enumerate(findings, start=1):
        if visit["split"] != split:
            continue
        key = (visit["patient_id"], visit["visit_id"])
        asks = [ask for ask in student.arm.tasks if key in written or not ASK_KINDS[ask].gives_rationale]
        reason = unusable(visit, inputs)
        if not asks and not reason:
            reason = f"no rationale ({', '.join(student.arm.rationales)})"
        if reason:
            rejected.append(RejectedRow(source=f"findings row {number}", stage=student.stage, reason=reason))
            continue
        for ask in asks:
            of_teacher = written.get(key, {"rationale": ""})
            reasons = token_level and ASK_KINDS[ask].gives_rationale
            answer = render_answer(ask, of_teacher["rationale"], visit["label"], task)
            rows.append(
                {
                    **{name: visit[name] for name in ("patient_id", "visit_id", "label")},
                    **_question(visit, ask, inputs, task),
                    "weight": student.arm.tasks[ask],
                    "soft_label": soft.get(key) if ASK_KINDS[ask].gives_label else None,
                    "teacher_ids": of_teacher.get("token_ids") if reasons else None,
                    "teacher_candidates": of_teacher.get("candidates") if reasons else None,
                    "completion": [{"role": "assistant", "content": answer}],
                }
            )
    return pa.Table.from_pylist(rows, schema=EXAMPLES), rejected


def make_prompts(findings: Iterable[Row], student: Student, split: Split, task: DiagnosisTask) -> pa.Table:
    """The prompts with which the finished student is asked about the visits of a split, as EXAMPLES without
    completions."""
    rows = [
        {
            **{name: visit[name] for name in ("patient_id", "visit_id", "label")},
            **_question(visit, student.arm.answers, student.settings.inputs, task),
        }
        for visit in findings
        if visit["split"] == split and not unusable(visit, student.settings.inputs)
    ]
    return pa.Table.from_pylist(rows, schema=EXAMPLES)


def _question(visit: Row, ask: Ask, inputs: Inputs, task: DiagnosisTask) -> Row:
    """Ask, prompt and picture."""
    description = seen_description(visit["description"], inputs != "image", task)
    picture = None if inputs == "text" else visit["picture_path"]
    return {"ask": ask, "picture": picture, "prompt": render_messages(ask, description, task)}


def unusable(visit: Row, inputs: Inputs) -> str | None:
    """Why a student can neither learn from a visit nor be asked about it."""
    if visit["label"] is None:
        return "no diagnosis"
    if inputs != "text" and visit["picture_path"] is None:
        return "no picture of the MRI"
    return None


def _of_teacher(rationales: Iterable[Row], arm: ArmConfig) -> tuple[dict[Visit, Row], dict[Visit, list[float]]]:
    """The row whose rationale each visit has, and the teacher's probabilities of its labels where the arm uses them."""
    best: dict[Visit, tuple[int, Row]] = {}
    probabilities: defaultdict[Visit, list[tuple[float, ...]]] = defaultdict(list)
    for row in rationales:
        key = (row["patient_id"], row["visit_id"])
        source: RationaleSource = row["selected"] or "unselected"
        if row["rationale"] and source in arm.rationales:
            rank = arm.rationales.index(source)
            if key not in best or rank < best[key][0]:
                best[key] = (rank, row)
        if arm.soft_labels and row["probabilities"] is not None:
            probabilities[key].append(row["probabilities"])
    means = {key: np.mean(values, axis=0).tolist() for key, values in probabilities.items()}
    return {key: row for key, (_, row) in best.items()}, means


def count_tokens(examples: pa.Table, processor: Any, of_picture: int = 0, **template: Any) -> list[int]:
    """Length of each example under the model's chat template, tokens, with those of its picture; `template` as of
    `chat_text`."""
    tokenizer = tokenizer_of(processor)
    texts = [
        chat_text(processor, [*row["prompt"], *row["completion"]], **template)
        for row in examples.select(["prompt", "completion"]).to_pylist()
    ]
    return [of_picture + len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
