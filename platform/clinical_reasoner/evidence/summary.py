"""What became of a cohort, for the terminal: visits by diagnosis and split, and why others are not used."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from clinical_reasoner.cohort.stage import PATIENTS_STAGE
from clinical_reasoner.evidence.stage import FINDINGS_STAGE
from clinical_reasoner.records import FINDINGS, PATIENTS, REJECTED, Split
from clinical_reasoner.runs import REJECTED as REJECTED_FOLDER
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask

MOST_REASONS = 8
"""Reasons that are shown; the table has all."""


def print_cohort(run: RunFolder, task: DiagnosisTask) -> None:
    """Counts of `findings`, the commonest reasons of `rejected`, and where both lie."""
    findings = run.read_table(FINDINGS_STAGE, FINDINGS)
    rejected = run.read_table(REJECTED_FOLDER, REJECTED)
    console = Console(width=120)
    console.print(_counts(findings.column("label").to_pylist(), findings.column("split").to_pylist(), task))
    if rejected.num_rows:
        console.print(_reasons(rejected.column("stage").to_pylist(), rejected.column("reason").to_pylist()))
    paths = _paths(run.read_table(PATIENTS_STAGE, PATIENTS))
    if paths:
        print(f"{paths} rows of patients/ hold paths of scans, which may tell ids: that table is not for passing on")
    print(f"Findings and descriptions: {run.child(FINDINGS_STAGE)}")
    print(f"Not used, with reasons: {run.child(REJECTED_FOLDER)}")


def _paths(patients: pa.Table) -> int:
    """Rows that hold a path."""
    images, label_maps = (patients.column(name).to_pylist() for name in ("image_path", "segmentation_path"))
    return sum(image is not None or label_map is not None for image, label_map in zip(images, label_maps, strict=True))


def _counts(labels: list[str], splits: list[str], task: DiagnosisTask) -> Table:
    table = Table("Diagnosis", *get_args(Split), "all", title="Visits with findings")
    counts = Counter(zip(labels, splits, strict=True))
    for label in task.label_names:
        row = [counts[label, split] for split in get_args(Split)]
        table.add_row(label, *map(str, row), str(sum(row)))
    table.add_row("all", *(str(splits.count(split)) for split in get_args(Split)), str(len(splits)), style="bold")
    return table


def _reasons(stages: list[str], reasons: list[str]) -> Table:
    table = Table("Stage", "Rows", "Reason", title="Not used")
    counts = Counter(zip(stages, reasons, strict=True))
    for (stage, reason), count in counts.most_common(MOST_REASONS):
        table.add_row(stage, str(count), reason)
    others = len(counts) - MOST_REASONS
    if others > 0:
        shown = sum(count for _, count in counts.most_common(MOST_REASONS))
        table.add_row("", str(len(reasons) - shown), f"{others} other reasons")
    return table
