"""From the tables of a run to what student and teacher of the endpoint said about the same visits of one split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.students import served_student
from clinical_reasoner.evaluation.cascade import TierAnswers
from clinical_reasoner.evaluation.resampling import Ints
from clinical_reasoner.evaluation.scored import subjects_of
from clinical_reasoner.records import RATIONALES, Split
from clinical_reasoner.runs import RunFolder

_NAMES = ("patient_id", "visit_id", "split", "label", "ask", "sample", "model", "predicted", "probabilities")
_COLUMNS = pa.schema([RATIONALES.field(name) for name in (*_NAMES, "prompt_tokens", "output_tokens")])
_Rows = dict[tuple[str, str], dict[str, Any]]
"""By (patient_id, visit_id)."""


@dataclass(frozen=True)
class Tiers:
    """Visits about which student or teacher was asked; arrays are (visits,), in the order of their ids."""

    truth: Ints
    """Index of the true label."""
    subject: Ints
    """Index of the person."""
    student: TierAnswers
    teacher: TierAnswers | None
    """None where the teacher was not asked this way about this split."""
    student_tokens: Ints
    """(visits, 2) of prompt and answer; 0 where it was not asked."""
    teacher_tokens: Ints


def read_tiers(config: PipelineConfig, run: RunFolder, split: Split, labels: tuple[str, ...]) -> Tiers:
    """The served student, and the teacher with the ask of the endpoint. Visits without a known diagnosis are left out.

    The endpoint asks once: of several samples the first one counts. A student of pictures has no answer about a visit
    without a scan, which the cascade then hands to the teacher. Raises UserError when the served arm is not trained.
    """
    student = served_student(config)
    of_student = _first_samples(run, student.answers_stage, {"split": split, "ask": student.arm.answers}, labels)
    asked = {"split": split, "ask": config.serving.teacher_ask, "model": config.teacher.model}
    return tiers_of(of_student, _first_samples(run, "rationales", asked, labels), labels)


def tiers_of(student: _Rows, teacher: _Rows, labels: tuple[str, ...]) -> Tiers:
    """Of rows by visit; those of the teacher may be missing."""
    visits = sorted({*student, *teacher})
    known = {**teacher, **student}
    return Tiers(
        truth=np.array([labels.index(known[visit]["label"]) for visit in visits], dtype=np.int64),
        subject=subjects_of(visits) if visits else np.zeros(0, dtype=np.int64),
        student=_answers(student, visits, labels),
        teacher=_answers(teacher, visits, labels) if teacher else None,
        student_tokens=_tokens(student, visits),
        teacher_tokens=_tokens(teacher, visits),
    )


def _first_samples(run: RunFolder, stage: str, wanted: Mapping[str, str], labels: tuple[str, ...]) -> _Rows:
    rows = (row for batch in run.batches(stage, _COLUMNS) for row in batch.to_pylist())
    return first_samples((row for row in rows if all(row[name] == value for name, value in wanted.items())), labels)


def first_samples(rows: Iterable[dict[str, Any]], labels: tuple[str, ...]) -> _Rows:
    """The first sample of each visit whose diagnosis is one of the labels."""
    first: _Rows = {}
    for row in rows:
        visit = row["patient_id"], row["visit_id"]
        if row["label"] in labels and (visit not in first or row["sample"] < first[visit]["sample"]):
            first[visit] = row
    return first


def _answers(rows: _Rows, visits: list[tuple[str, str]], labels: tuple[str, ...]) -> TierAnswers:
    predicted = np.full(len(visits), len(labels), dtype=np.int64)
    probabilities = np.full((len(visits), len(labels)), np.nan)
    for place, visit in enumerate(visits):
        row = rows.get(visit)
        if row is None:
            continue
        if row["predicted"] is not None:
            predicted[place] = labels.index(row["predicted"])
        if row["probabilities"] is not None:
            probabilities[place] = row["probabilities"]
    return TierAnswers(predicted, probabilities)


def _tokens(rows: _Rows, visits: list[tuple[str, str]]) -> Ints:
    found = [rows.get(visit, {"prompt_tokens": 0, "output_tokens": 0}) for visit in visits]
    return np.array([(row["prompt_tokens"], row["output_tokens"]) for row in found], dtype=np.int64).reshape(-1, 2)
