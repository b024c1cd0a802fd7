"""Stage `patients`: from the configured cohort to the patients table."""

from __future__ import annotations

from typing import Any

from clinical_reasoner.cohort.population import Population, check_population
from clinical_reasoner.cohort.splits import check_no_leak
from clinical_reasoner.cohort.synthetic import draw_patient
from clinical_reasoner.cohort.tables import read_cohort
from clinical_reasoner.config.cohort import SplitShares, SyntheticCohort
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.records import PATIENTS, REJECTED, PatientRow, RejectedRow, Split, to_table
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, file_fingerprint, run_stage
from clinical_reasoner.task import DiagnosisTask, load_task

PATIENTS_STAGE = "patients"


def make_patients(config: PipelineConfig, run: RunFolder) -> Manifest:
    """Write `patients/` and what was rejected. Every split that later stages need must hold someone."""
    source = config.cohort.population if isinstance(config.cohort, SyntheticCohort) else config.cohort.path
    settings: dict[str, Any] = {
        "cohort": config.cohort.model_dump(mode="json"),
        "source": file_fingerprint(source),
        "task": file_fingerprint(config.task.file),
    }

    def make() -> Rows:
        patients, rejected = _read(config, load_task(config.task.file))
        check_no_leak((patient.patient_id, patient.split) for patient in patients)
        for split in ("train", "test"):
            if not any(patient.split == split for patient in patients):
                raise UserError(f"cohort: no patient in split {split!r} ({len(patients)} in all); use more patients")
        run.write_table(PATIENTS_STAGE, to_table(patients, PATIENTS))
        run.write_rejected(PATIENTS_STAGE, to_table(rejected, REJECTED))
        return Rows(len(patients) + len(rejected), len(patients), len(rejected))

    return run_stage(run, Stage(PATIENTS_STAGE, settings), make, overwrite=config.run.overwrite)


def load_population(path: str, task: DiagnosisTask) -> Population:
    """The synthetic population of a file, checked against the task. Raises ConfigError or ValueError."""
    population = load_config(Population, path)
    check_population(population, task)
    return population


def _read(config: PipelineConfig, task: DiagnosisTask) -> tuple[list[PatientRow], list[RejectedRow]]:
    cohort = config.cohort
    shares = _shares(cohort.splits)
    if isinstance(cohort, SyntheticCohort):
        population = load_population(cohort.population, task)
        return [draw_patient(population, index, cohort.seed, shares) for index in range(cohort.patients)], []
    return read_cohort(cohort.path, cohort.name, task, shares, cohort.seed)


def _shares(splits: SplitShares) -> dict[Split, float]:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}
