"""How the integration tests start the pipeline, and what they know of the run."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
PATIENTS = 120
OVERRIDES = (
    f"cohort.patients={PATIENTS}",
    "evidence.fewest_controls=15",
    "rationales.rows_per_block=10",
    # Few rows at a time, so that there is a middle in which to be killed.
    "teacher.engine.max_num_seqs=16",
    "student.epochs.label_only=2",
    "student.epochs.rationale_then_label=2",
    "more_students.vlm={base: platform/clinical_reasoner/reference/models/vlm, inputs: both, arms: [label_only], "
    "epochs: 1, learning_rate: 0.001, engine: {dtype: float32, engine_kwargs: {enforce_eager: true}}, "
    "validation: {evaluations: 1}}",
    "evaluation.resamples=200",
    "evaluation.ceiling_draws=500",
)
LIMIT_S = 1500


@dataclass(frozen=True)
class FinishedRun:
    path: Path
    rows_before_kill: int
    """Rationales that were safe when the first process was killed."""
    left_running: tuple[str, ...]
    """Processes of the killed run that still live when the second one has ended."""
    output: str
    """Standard output of the process that finished the run."""


def pipeline_command(path: Path, *overrides: str) -> list[str]:
    options = [f"run.path={path}", *OVERRIDES, *overrides]
    return [sys.executable, "jobs/run_pipeline.py", "--config", "configs/demo.yaml", *options]


def environment() -> dict[str, str]:
    """As a user's shell: no cluster to join, the package from this checkout."""
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**clean, "PYTHONPATH": str(ROOT / "platform")}


def descendants(pid: int) -> list[Any]:
    """Processes that a process started, and those that they did."""
    psutil: Any = import_module("psutil")  # of Ray
    found: list[Any] = psutil.Process(pid).children(recursive=True)
    return found


def generated_rows(path: Path) -> int:
    return sum(pq.read_metadata(file).num_rows for file in path.glob("work/rationales-*/*/generated/*.parquet"))
