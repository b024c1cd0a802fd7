"""What is known of a finished student once it has answered: its calibration, and the figures of its model card."""

from __future__ import annotations

import json
from typing import Any

from clinical_reasoner.config.cohort import SyntheticCohort
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.calibration import Calibration, fit_calibration
from clinical_reasoner.distillation.card import student_card
from clinical_reasoner.distillation.export import CALIBRATION, CARD
from clinical_reasoner.distillation.students import Student, students_of
from clinical_reasoner.evaluation.stage import METRICS
from clinical_reasoner.records import RATIONALES
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask, load_task


def finish_students(config: PipelineConfig, run: RunFolder) -> None:
    """Write `calibration.json` and the model card into the folder of every student, from its answers and the report."""
    task = load_task(config.task.file)
    metrics = {(entry["model"], entry["arm"]): entry for entry in json.loads(run.read_bytes(METRICS))["models"]}
    synthetic = isinstance(config.cohort, SyntheticCohort)
    for student in students_of(config):
        calibration = student_calibration(run, student, task)
        if isinstance(calibration, Calibration):
            run.write_bytes(f"{student.model_folder}/{CALIBRATION}", calibration.model_dump_json(indent=2).encode())
        manifest = run.manifest(student.stage)
        figures = _figures(metrics[student.name, student.arm_name], calibration, synthetic)
        card = student_card(config, student, manifest.details if manifest else {}, figures)
        run.write_bytes(f"{student.model_folder}/{CARD}", card.encode())


def student_calibration(run: RunFolder, student: Student, task: DiagnosisTask) -> Calibration | str:
    """From its answers about the validation split; or why there is none."""
    rows = run.read_table(student.answers_stage, RATIONALES).to_pylist()
    asked = [row for row in rows if row["split"] == "validation" and row["label"] in task.label_names]
    try:
        return fit_calibration(
            [row["probabilities"] for row in asked], [task.label_names.index(row["label"]) for row in asked]
        )
    except ValueError as error:
        return str(error)


def _figures(metrics: dict[str, Any], calibration: Calibration | str, synthetic: bool) -> str:
    """Markdown: the test split with intervals, then the calibration."""
    seeds = metrics["seeds"]
    patients = "synthetic patients" if synthetic else "patients"
    lines = [
        f"Test split, {metrics['n']} visits of {metrics['n_subjects']} {patients}; mean of {seeds} "
        f"seed{'s' if seeds > 1 else ''} of this arm, 95 % intervals from a bootstrap over subjects"
        f"{' and seeds' if seeds > 1 else ''}.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_interval(metrics[key])} |" for name, key in _SHOWN.items()),
        f"| answers that could not be read | {metrics['unparsed']} of {metrics['answers']} |",
        "",
    ]
    if isinstance(calibration, str):
        return "\n".join([*lines, f"No `{CALIBRATION}`: {calibration}."])
    return "\n".join(
        [
            *lines,
            f"`{CALIBRATION}`: temperature {calibration.temperature:.3f}, fitted on {calibration.visits} visits of the "
            f"validation split; there the expected calibration error is {calibration.ece_before:.3f} before and "
            f"{calibration.ece_after:.3f} after.",
        ]
    )


_SHOWN = {"accuracy": "accuracy", "macro-F1": "macro_f1", "AUROC, one against the rest": "auroc"}


def _interval(estimate: dict[str, float] | None) -> str:
    return "-" if estimate is None else f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
