"""Stage `findings`: from measures to graded findings and the patient description."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from clinical_reasoner.cohort.rejected import too_few
from clinical_reasoner.cohort.stage import PATIENTS_STAGE
from clinical_reasoner.config.pipeline import CohortRunConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.evidence.description import check_task_fields, describe
from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.evidence.measured import Measured, pictures_of, with_measures
from clinical_reasoner.evidence.w_scores import cohort_norms, control_rows, is_control, w_scores
from clinical_reasoner.imaging.norms import Norms, load_norms
from clinical_reasoner.imaging.stage import MEASURES_STAGE
from clinical_reasoner.records import FINDINGS, PATIENTS, FindingsRow, PatientRow, RejectedRow, Split
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, file_fingerprint, run_stage
from clinical_reasoner.task import DiagnosisTask, load_task

FINDINGS_STAGE = "findings"
NORMS_FILE = "findings/norms.json"
"""The norms that were used: fitted ones can be given to other runs as `evidence.norms`."""


def make_findings(config: CohortRunConfig, run: RunFolder) -> Manifest:
    """Write `findings/`. A visit without a label or without any evidence is rejected with that reason.

    Raises UserError when task and cut points do not fit, or when too little is left to train on or to test with.
    """
    settings = {
        "evidence": config.evidence.model_dump(mode="json"),
        "norms": file_fingerprint(config.evidence.norms) if config.evidence.norms else "fitted",
        "task": file_fingerprint(config.task.file),
    }
    reads = [PATIENTS_STAGE, *([MEASURES_STAGE] if run.manifest(MEASURES_STAGE) is not None else [])]

    def make() -> Rows:
        task = load_task(config.task.file)
        check_task_fields(task, config.task.file)
        if len(config.evidence.cut_points) != len(task.grades) - 1:
            raise UserError(f"evidence.cut_points {config.evidence.cut_points} cannot part {len(task.grades)} grades")
        measured = Measured(run) if MEASURES_STAGE in reads else None
        norms = _norms(config, run, measured, task)
        run.write_bytes(NORMS_FILE, norms.model_dump_json(indent=2).encode())
        labels, reasons = Counter[tuple[Split, str]](), Counter[str]()
        with (
            run.rejected_writer(FINDINGS_STAGE) as rejected,
            run.table_writer(FINDINGS_STAGE, FINDINGS) as findings,
        ):
            for number, (patient, pictures) in enumerate(_visits(run, measured), start=1):
                found = _row(patient, pictures, norms, config.evidence.cut_points, task)
                if isinstance(found, FindingsRow):
                    findings.add(found)
                    labels[found.split, found.label or ""] += 1
                else:
                    rejected.add(RejectedRow(source=f"patients row {number}", stage=FINDINGS_STAGE, reason=found))
                    reasons[found] += 1
            _check_splits(labels, findings.rows, reasons)
        return Rows(findings.rows + rejected.rows, findings.rows, rejected.rows)

    return run_stage(run, Stage(FINDINGS_STAGE, settings, reads), make, overwrite=config.run.overwrite)


def _visits(
    run: RunFolder, measured: Measured | None, wanted: Callable[[dict[str, Any]], bool] = lambda row: True
) -> Iterator[tuple[PatientRow, dict[str, Any]]]:
    """The wanted patients rows, each with what was measured, and its pictures."""
    for rows in run.batches(PATIENTS_STAGE, PATIENTS):
        for row in filter(wanted, rows.to_pylist()):
            patient = PatientRow.model_validate(row)
            found = measured.find(patient) if measured else None
            yield with_measures(patient, found), pictures_of(found)


def _norms(config: CohortRunConfig, run: RunFolder, measured: Measured | None, task: DiagnosisTask) -> Norms:
    if config.evidence.norms is not None:
        return load_norms(config.evidence.norms)
    visits = _visits(run, measured, lambda row: is_control(row["split"], row["label"], task))
    controls = control_rows((patient for patient, _ in visits), task)
    norms = cohort_norms(controls, task, config.evidence.fewest_controls)
    with_volumes = sum(bool(control.values) for control in controls)
    if with_volumes and not norms.norms:
        print(
            f"[{FINDINGS_STAGE}] {with_volumes} controls of the training split have regional measures, but in no "
            f"segmenter and field strength {config.evidence.fewest_controls} of known age, sex and ICV: "
            "MRI is not graded by w-scores (evidence.fewest_controls, evidence.norms)"
        )
    return norms


def _row(
    patient: PatientRow, pictures: dict[str, Any], norms: Norms, cut_points: Sequence[float], task: DiagnosisTask
) -> FindingsRow | str:
    """The row of a visit, or why it has none."""
    findings = grade_patient(patient, task, cut_points, w_scores(patient, task, norms))
    description = describe(patient, {finding.name: finding.grade for finding in findings}, task)
    reason = _unusable(patient, description, task.question_text())
    if reason is not None:
        return reason
    return FindingsRow(
        patient_id=patient.patient_id,
        visit_id=patient.visit_id,
        split=patient.split,
        label=patient.label,
        findings=findings,
        description=description,
        **pictures,
    )


def _unusable(patient: PatientRow, description: str, question: str) -> str | None:
    if patient.label is None:
        return "no diagnosis: nothing to train on or to compare with"
    if description == question:
        return "no evidence: no patient field and no finding is known"
    return None


def _check_splits(labels: Counter[tuple[Split, str]], left: int, reasons: Counter[str]) -> None:
    """Before anything expensive: there is something to train on and something to test with."""
    if len({label for split, label in labels if split == "train"}) < 2:
        raise too_few("findings: the training split has fewer than two diagnoses", left, reasons)
    if not any(split == "test" for split, _ in labels):
        raise too_few("findings: no usable visit in the test split", left, reasons)
