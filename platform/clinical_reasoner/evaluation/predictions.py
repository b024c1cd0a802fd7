"""Stage `predictions`: every model's answer about every visit of the test split, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.cohort import SyntheticCohort
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.students import students_of
from clinical_reasoner.evaluation.baselines import baseline_rows, baseline_stages, prediction
from clinical_reasoner.evaluation.ceiling import Posterior, bayes_posterior
from clinical_reasoner.evidence.measured import Measured, with_measures
from clinical_reasoner.rationales.consistency import consensus, samples_together
from clinical_reasoner.records import (
    FINDINGS,
    PATIENTS,
    PREDICTIONS,
    RATIONALES,
    Ask,
    PatientRow,
    PredictionRow,
    to_table,
)
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, run_stage
from clinical_reasoner.task import DiagnosisTask, load_task

PREDICTIONS_STAGE = "predictions"
TEACHER_ARMS = {ask: kind.arm for ask, kind in ASK_KINDS.items() if kind.arm}
"""Ask -> arm of the teacher."""
TEACHER = "teacher"
"""The model that students learn from and the endpoint serves."""
CEILING = ("Bayes rule", "ceiling")


def make_predictions(config: PipelineConfig, run: RunFolder) -> Manifest:
    """Write `predictions/` for teacher, students, baselines and, for a synthetic cohort, the Bayes rule."""
    students = students_of(config)
    names = {config.teacher.model: TEACHER, **{name: name for name in config.more_teachers}}
    settings = {
        "students": [student.stage for student in students],
        "baselines": list(config.evaluation.baselines),
        "seed": config.evaluation.seed,
        # Where the key's file lies changes nothing.
        "cohort": config.cohort.model_dump(mode="json", exclude={"deidentify": {"key_file"}}),
    }
    reads = ["findings", "rationales", *(student.answers_stage for student in students)]
    reads += baseline_stages(config.evaluation)

    def make() -> Rows:
        task = load_task(config.task.file)
        findings = run.read_table("findings", FINDINGS)
        rows = _answered(run.read_table("rationales", RATIONALES), names, TEACHER_ARMS, task)
        for student in students:
            table = run.read_table(student.answers_stage, RATIONALES)
            named = {student.stage: student.name}
            answers = _answered(table, named, {student.arm.answers: student.arm_name}, task)
            rows += [row.model_copy(update={"seed": student.seed}) for row in answers]
        rows += baseline_rows(config.evaluation, run, findings, task)
        if isinstance(config.cohort, SyntheticCohort):
            rows += _bayes_rule(run, findings, bayes_posterior(config.cohort, config.evidence.cut_points, task), task)
        run.write_table(PREDICTIONS_STAGE, to_table(rows, PREDICTIONS))
        return Rows(len(rows), len(rows))

    return run_stage(run, Stage(PREDICTIONS_STAGE, settings, reads), make, overwrite=config.run.overwrite)


def _answered(
    table: pa.Table, names: Mapping[str, str], arms: Mapping[Ask, str], task: DiagnosisTask
) -> list[PredictionRow]:
    """Of the test split; `names` has the column `model` of both tables."""
    rows = [row for row in table.to_pylist() if row["ask"] in arms and row["split"] == "test"]
    return [_together(samples, names[samples[0]["model"]], arms, task) for samples in samples_together(rows)]


def _together(samples: list[dict[str, Any]], model: str, arms: Mapping[Ask, str], task: DiagnosisTask) -> PredictionRow:
    """One prediction of all samples of an ask about a visit."""
    said = consensus([(row["predicted"], row["probabilities"]) for row in samples], task.label_names)
    agreeing = [row for row in samples if row["predicted"] == said.label]
    shown = min(agreeing, key=lambda row: (not row["accepted"], row["sample"]))
    return PredictionRow(
        **{name: shown[name] for name in ("patient_id", "visit_id", "split", "label", "rationale")},
        model=model,
        arm=arms[shown["ask"]],
        predicted=said.label,
        probabilities=said.probabilities,
        confidence=said.agreement if len(samples) > 1 else None,
    )


def _bayes_rule(run: RunFolder, findings: pa.Table, posterior: Posterior, task: DiagnosisTask) -> list[PredictionRow]:
    measured = Measured(run)
    patients = [PatientRow.model_validate(row) for row in run.read_table("patients", PATIENTS).to_pylist()]
    by_visit = {
        (patient.patient_id, patient.visit_id): with_measures(patient, measured.find(patient)) for patient in patients
    }
    tested = [row for row in findings.to_pylist() if row["split"] == "test"]
    return [
        prediction(row, CEILING, posterior(by_visit[row["patient_id"], row["visit_id"]]).tolist(), task)
        for row in tested
    ]
