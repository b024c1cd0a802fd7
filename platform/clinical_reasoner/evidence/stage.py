"""Stage `findings`: from measures to graded findings and the patient description."""

from __future__ import annotations

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.evidence.description import describe
from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.records import FINDINGS, PATIENTS, REJECTED, FindingsRow, PatientRow, RejectedRow, to_table
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, file_fingerprint, run_stage
from clinical_reasoner.task import load_task

FINDINGS_STAGE = "findings"


def make_findings(config: PipelineConfig, run: RunFolder) -> Manifest:
    """Write `findings/`. A visit without a label or without any evidence is rejected with that reason."""
    settings = {"evidence": config.evidence.model_dump(mode="json"), "task": file_fingerprint(config.task.file)}

    def make() -> Rows:
        task = load_task(config.task.file)
        if len(config.evidence.cut_points) != len(task.grades) - 1:
            raise UserError(f"evidence.cut_points {config.evidence.cut_points} cannot part {len(task.grades)} grades")
        rows: list[FindingsRow] = []
        rejected: list[RejectedRow] = []
        patients = run.read_table("patients", PATIENTS).to_pylist()
        for number, values in enumerate(patients, start=1):
            patient = PatientRow.model_validate(values)
            findings = grade_patient(patient, task, config.evidence.cut_points)
            description = describe(patient, {finding.name: finding.grade for finding in findings}, task)
            reason = _unusable(patient, description, task.question_text())
            if reason:
                rejected.append(RejectedRow(source=f"patients row {number}", stage=FINDINGS_STAGE, reason=reason))
                continue
            rows.append(
                FindingsRow(
                    patient_id=patient.patient_id,
                    visit_id=patient.visit_id,
                    split=patient.split,
                    label=patient.label,
                    findings=findings,
                    description=description,
                )
            )
        _check_splits(rows)
        run.write_table(FINDINGS_STAGE, to_table(rows, FINDINGS))
        run.write_rejected(FINDINGS_STAGE, to_table(rejected, REJECTED))
        return Rows(len(patients), len(rows), len(rejected))

    return run_stage(run, Stage(FINDINGS_STAGE, settings, ["patients"]), make, overwrite=config.run.overwrite)


def _unusable(patient: PatientRow, description: str, question: str) -> str | None:
    if patient.label is None:
        return "no diagnosis: nothing to train on or to compare with"
    if description == question:
        return "no evidence: no patient field and no finding is known"
    return None


def _check_splits(rows: list[FindingsRow]) -> None:
    """Before anything expensive: there is something to train on and something to test with."""
    if len({row.label for row in rows if row.split == "train"}) < 2:
        raise UserError("findings: the training split has fewer than two diagnoses; use more patients or another split")
    if not any(row.split == "test" for row in rows):
        raise UserError("findings: no usable visit in the test split; use more patients or another split")
