"""Examples about synthetic patients for the benchmark of training: a set of mixed lengths, and one of labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import pyarrow as pa

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.synthetic import draw_patient
from clinical_reasoner.config.cohort import SyntheticCohort
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.bases import chat_text, tokenizer_of
from clinical_reasoner.distillation.collating import IGNORED
from clinical_reasoner.distillation.examples import EXAMPLES, count_tokens
from clinical_reasoner.errors import UserError
from clinical_reasoner.evidence.description import describe_evidence, evidence_of
from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.llm.prompting import Exemplar, render_answer, render_messages
from clinical_reasoner.records import Ask
from clinical_reasoner.reference.writer import Wording, write_rationale
from clinical_reasoner.task import DiagnosisTask, load_task

SetName = Literal["mixed", "uniform"]
KINDS: dict[SetName, tuple[tuple[Ask, int], ...]] = {
    "mixed": (("direct", 0), ("direct", 1), ("direct", 2), ("diagnose", 0), ("diagnose", 1)),
    "uniform": (("direct", 0),),
}
"""Asks and exemplars in a prompt, each as often; a rationale with two exemplars is longer than `student.max_length`."""
EXEMPLARS_FROM = 1_000_000
"""Number of the first patient who is an exemplar."""
WORDING = "configs/reference/alzheimers.yaml"
Row = dict[str, Any]


@dataclass(frozen=True)
class Patients:
    """Where the examples come from."""

    task: DiagnosisTask
    population: Population
    wording: Wording
    seed: int
    count: int
    """As configured; any number can be asked for."""

    def case(self, index: int, rng: Random) -> Exemplar:
        """A patient with a rationale by rule and the recorded diagnosis."""
        patient = draw_patient(self.population, index, self.seed, {"train": 1.0})
        findings = grade_patient(patient, self.task, self.population.cut_points)
        evidence = evidence_of(patient, {one.name: one.grade for one in findings}, self.task)
        label = str(patient.label)
        rationale = write_rationale(evidence, label, self.task, self.wording, rng)
        return Exemplar(describe_evidence(evidence, self.task), rationale, label)


def configured_patients(config: PipelineConfig) -> Patients:
    """Of the configured synthetic cohort. Raises UserError for another kind of cohort."""
    if not isinstance(config.cohort, SyntheticCohort):
        raise UserError("the benchmark `training` writes about synthetic patients: take a config with such a cohort")
    population = load_config(Population, config.cohort.population)
    task, wording = load_task(config.task.file), load_config(Wording, WORDING)
    return Patients(task, population, wording, config.cohort.seed, config.cohort.patients)


def make_set(patients: Patients, name: SetName, first: int, count: int, processor: Any) -> pa.Table:
    """EXAMPLES with their `length`, one for each patient from `first` on; exemplars are about other patients."""
    rows = [_row(patients, name, index, Random(index)) for index in range(first, first + count)]
    table = pa.Table.from_pylist(rows, schema=EXAMPLES)
    return table.append_column("length", pa.array(count_tokens(table, processor), pa.int64()))


def _row(patients: Patients, name: SetName, index: int, rng: Random) -> Row:
    ask, shots = rng.choice(KINDS[name])
    case = patients.case(index, rng)
    exemplars = [patients.case(EXEMPLARS_FROM + 2 * index + shot, rng) for shot in range(shots)]
    answer = render_answer(ask, case.rationale if ASK_KINDS[ask].gives_rationale else "", case.label, patients.task)
    return {
        "patient_id": str(index),
        "visit_id": "",
        "ask": ask,
        "label": case.label,
        "weight": 1.0,
        "prompt": render_messages(ask, case.description, patients.task, exemplars=exemplars),
        "completion": [{"role": "assistant", "content": answer}],
    }


def tokenized(rows: list[Row], processor: Any) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of each example; only the answer is learnt."""
    tokenizer, found = tokenizer_of(processor), []
    for row in rows:
        asked = chat_text(processor, row["prompt"], generation=True)
        answered = chat_text(processor, [*row["prompt"], *row["completion"]])
        prompt, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, answered))
        found.append({"input_ids": whole, "labels": [IGNORED] * len(prompt) + whole[len(prompt) :]})
    return found


def learnt_tokens(labels: list[list[int]]) -> int:
    return sum(label != IGNORED for row in labels for label in row)
