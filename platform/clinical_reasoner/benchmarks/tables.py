"""How the stages from a table to findings grow with its rows: seconds, and the peak memory of the process."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clinical_reasoner.benchmarks.processes import in_own_process
from clinical_reasoner.cohort.stage import make_patients
from clinical_reasoner.config.cohort import CohortConfig, DeidentifyConfig, StudyCohort, TableCohort
from clinical_reasoner.config.columns import (
    LabelColumn,
    MeasureColumns,
    NumberColumn,
    SexColumn,
    TableMapping,
    TextColumn,
    TimeColumn,
)
from clinical_reasoner.config.pipeline import CohortRunConfig
from clinical_reasoner.evidence.stage import make_findings
from clinical_reasoner.imaging.stage import make_measures
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask, load_task

ROWS = (10_000, 100_000)
WARM_UP = 100
"""Rows of a first table, with which each process loads what it needs."""
_KIB = 1024


def table_scaling(config: CohortRunConfig, folder: Path) -> dict[str, dict[str, Any]]:
    """Ratio of time and of peak memory between ROWS, for a cohort's own table and for one with a mapping."""
    return {kind: _scaling(config, kind, folder) for kind in ("table", "mapped")}


def _scaling(config: CohortRunConfig, kind: str, folder: Path) -> dict[str, Any]:
    task = load_task(config.task.file)
    configs = []
    for rows in (WARM_UP, *ROWS):
        file = folder / f"{kind}-{rows}.csv"
        write_table(file, rows, kind, task)
        run = config.run.model_copy(update={"path": str(folder / f"{kind}-{rows}")})
        configs.append(config.model_copy(update={"cohort": _cohort(kind, file), "run": run}))
    warm_up, *timed = configs
    (small_s, small_mib), (large_s, large_mib) = (in_own_process(_make, warm_up, one) for one in timed)
    return {
        "rows": list(ROWS),
        "seconds": [round(small_s, 2), round(large_s, 2)],
        "peak_mib": [round(small_mib), round(large_mib)],
        "time_ratio": round(large_s / small_s, 2),
        "memory_ratio": round(large_mib / small_mib, 2),
    }


def write_table(file: Path, rows: int, kind: str, task: DiagnosisTask) -> None:
    """People made of random numbers, one row each; `table` brings w-scores, `mapped` two volumes."""
    rng = np.random.default_rng(rows)
    columns: dict[str, Any] = {
        "patient_id": [f"P{number:07d}" for number in range(rows)],
        "label": rng.choice(task.label_names, rows),
        "age_years": rng.normal(75, 6, rows).clip(55, 89).round(1),
        "sex": rng.choice(["female", "male"], rows),
        "education_years": rng.integers(8, 21, rows),
        "mmse": rng.integers(15, 31, rows),
    }
    if kind == "table":
        columns |= {finding.name: rng.normal(0, 1, rows).round(4) for finding in task.findings}
    else:
        columns |= {"hippocampus": rng.normal(7000, 800, rows).round(1), "icv": rng.normal(1.5e6, 1e5, rows).round()}
    pd.DataFrame(columns).to_csv(file, index=False)


def _cohort(kind: str, file: Path) -> CohortConfig:
    if kind == "table":
        return TableCohort(kind="table", path=str(file), name="generated")
    mapping = TableMapping(
        patient_id=TextColumn(columns=("patient_id",)),
        label=LabelColumn(columns=("label",)),
        age_years=TimeColumn(columns=("age_years",)),
        sex=SexColumn(columns=("sex",)),
        education_years=NumberColumn(columns=("education_years",)),
        mmse=NumberColumn(columns=("mmse",)),
        measures={name: MeasureColumns(columns=(name,), unit="mm3") for name in ("hippocampus", "icv")},
        segmenter="generated",
    )
    keep = DeidentifyConfig(ids="keep")
    return StudyCohort(kind="mapped", path=str(file), name="generated", mapping=mapping, deidentify=keep)


def _make(warm_up: CohortRunConfig, config: CohortRunConfig) -> tuple[float, float]:
    """Seconds and peak MiB of the stages."""
    _make_stages(warm_up, RunFolder(f"{config.run.path}-warm-up"))
    started = time.perf_counter()
    _make_stages(config, RunFolder(config.run.path))
    return time.perf_counter() - started, peak_mib()


def _make_stages(config: CohortRunConfig, run: RunFolder) -> None:
    for make in (make_patients, make_measures, make_findings):
        make(config, run)


def peak_mib() -> float:
    """Highest resident memory of this process so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage also counts what the parent held when it started the process
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB
