"""Training text of the reference models: chats about synthetic patients, each ending in the answer to one ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.synthetic import draw_patient
from clinical_reasoner.evidence.description import Evidence, describe_evidence, evidence_of, without_question
from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.llm.prompting import Exemplar, Message, render_answer, render_messages
from clinical_reasoner.records import Ask
from clinical_reasoner.reference.writer import Wording, restate, write_rationale, write_unweighed
from clinical_reasoner.task import DiagnosisTask

Role = Literal["teacher", "student"]
ASK_SHARES: dict[Ask, float] = {"diagnose": 0.5, "rationalize": 0.25, "direct": 0.25}
"""What the reference models are taught; they know no other ask."""

THINNED_SHARE = 0.12
"""Share of the patients with much evidence missing."""
REDRAWN_SHARE = 0.5
"""Share of the patients of `rationalize`, where the label is given, whose grades are drawn again."""


@dataclass(frozen=True)
class CorpusSpec:
    """What the text is made from. `role` student: labels are drawn at random, so that language is learnt but no
    diagnosis."""

    role: Role
    task: DiagnosisTask
    population: Population
    wording: Wording
    exemplars: tuple[Exemplar, ...]
    seed: int
    """Cohort seed of the training patients; must differ from the seed of any cohort that is evaluated."""
    gap_share: float = 0.0
    """As in `Phase`."""


def chats(spec: CorpusSpec, max_shots: int) -> Iterator[list[Message]]:
    """Endless chats with up to `max_shots` exemplars, the last message being the answer."""
    rng = Random(spec.seed)
    index = 0
    while True:
        ask = rng.choices(list(ASK_SHARES), weights=list(ASK_SHARES.values()))[0]
        shots = rng.randint(0, max_shots) if ASK_KINDS[ask].uses_exemplars else 0
        own = rng.random() < 0.5 and shots == len(spec.exemplars)
        exemplars = list(spec.exemplars) if own else [_exemplar(spec, index + 1 + k, rng) for k in range(shots)]
        evidence, label = _case(spec, index, rng)
        known = label if ASK_KINDS[ask].told_label else None
        if known and rng.random() < REDRAWN_SHARE:
            evidence = _redrawn(evidence, spec.task, rng)
        messages = render_messages(
            ask, describe_evidence(evidence, spec.task), spec.task, exemplars=exemplars, label=known
        )
        rationale = _rationale(spec, evidence, label, rng)
        yield [*messages, {"role": "assistant", "content": render_answer(ask, rationale, label, spec.task)}]
        index += 1 + shots


def restatements(spec: CorpusSpec) -> Iterator[list[Message]]:
    """Endless short chats in which some evidence is said again: where a small model learns to copy, at low cost."""
    rng = Random(spec.seed + 1)
    index = 0
    while True:
        evidence = _redrawn(_case(spec, index, rng)[0], spec.task, rng)
        fields = rng.sample(list(evidence.fields), min(len(evidence.fields), rng.randint(1, 3)))
        length = rng.randint(2, len(spec.task.findings))
        start = rng.randrange(len(spec.task.findings) - length + 1)
        grades = list(evidence.grades.items())[start : start + length]
        little = Evidence({name: value for name, value in evidence.fields.items() if name in fields}, dict(grades))
        said = restate(little, spec.task, spec.wording, rng).sentences
        index += 1
        if said:
            description = without_question(describe_evidence(little, spec.task), spec.task)
            yield [{"role": "user", "content": description}, {"role": "assistant", "content": " ".join(said)}]


def _case(spec: CorpusSpec, index: int, rng: Random) -> tuple[Evidence, str]:
    patient = draw_patient(spec.population, index, spec.seed, {"train": 1.0})
    grades = {finding.name: finding.grade for finding in grade_patient(patient, spec.task, spec.population.cut_points)}
    label = rng.choice(spec.task.label_names) if spec.role == "student" else patient.label
    if label is None:
        raise ValueError("a synthetic patient has a label")
    evidence = evidence_of(patient, grades, spec.task)
    evidence = _thinned(evidence, rng) if rng.random() < THINNED_SHARE else evidence
    return (_with_gaps(evidence, rng) if spec.gap_share and rng.random() < spec.gap_share else evidence), label


def _thinned(evidence: Evidence, rng: Random) -> Evidence:
    """As other cohorts are: some fields never recorded, some or all findings never graded."""
    fields = {name: value for name, value in evidence.fields.items() if rng.random() < 0.7}
    kept = rng.choice((0.0, 0.5, 1.0))
    return Evidence(fields, {name: grade for name, grade in evidence.grades.items() if rng.random() < kept})


def _with_gaps(evidence: Evidence, rng: Random) -> Evidence:
    return Evidence(evidence.fields, {name: grade for name, grade in evidence.grades.items() if rng.random() < 5 / 6})


def _redrawn(evidence: Evidence, task: DiagnosisTask, rng: Random) -> Evidence:
    """Every grade drawn anew: real grades go together, so that a guess from the neighbours would pass for a copy."""
    return Evidence(evidence.fields, {name: rng.choice(task.grade_names) for name in evidence.grades})


def _rationale(spec: CorpusSpec, evidence: Evidence, label: str, rng: Random) -> str:
    write = write_unweighed if spec.role == "student" else write_rationale
    return write(evidence, label, spec.task, spec.wording, rng)


def _exemplar(spec: CorpusSpec, index: int, rng: Random) -> Exemplar:
    evidence, label = _case(spec, index, rng)
    return Exemplar(describe_evidence(evidence, spec.task), _rationale(spec, evidence, label, rng), label)
