"""Stage `patients`: from the configured cohort to the patients table."""

from __future__ import annotations

from typing import Any

from clinical_reasoner.cohort.population import Population, check_population
from clinical_reasoner.cohort.rejected import too_few
from clinical_reasoner.cohort.splits import check_no_leak
from clinical_reasoner.cohort.study import read_study, study_source
from clinical_reasoner.cohort.synthetic import draw_patient, with_body
from clinical_reasoner.cohort.tables import read_cohort
from clinical_reasoner.config.cohort import SplitShares, StudyCohort, SyntheticCohort
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import CohortRunConfig
from clinical_reasoner.records import PATIENTS, REJECTED, PatientRow, RejectedRow, Split, to_table
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, file_fingerprint, run_stage
from clinical_reasoner.task import DiagnosisTask, load_task

PATIENTS_STAGE = "patients"


def make_patients(config: CohortRunConfig, run: RunFolder) -> Manifest:
    """Write `patients/` and what was rejected. Raises UserError when a split that later stages need holds no one."""
    settings: dict[str, Any] = {
        # The key counts, wherever its file lies.
        "cohort": config.cohort.model_dump(mode="json", exclude={"deidentify": {"key_file"}}),
        "source": _source(config),
        "task": file_fingerprint(config.task.file),
    }

    def make() -> Rows:
        patients, rejected = _read(config, load_task(config.task.file))
        run.write_rejected(PATIENTS_STAGE, to_table(rejected, REJECTED))
        check_no_leak((patient.patient_id, patient.split) for patient in patients)
        for split in ("train", "test"):
            if not any(patient.split == split for patient in patients):
                raise too_few(f"cohort: no patient in split {split!r}", len(patients), rejected)
        run.write_table(PATIENTS_STAGE, to_table(patients, PATIENTS))
        return Rows(len(patients) + len(rejected), len(patients), len(rejected))

    return run_stage(run, Stage(PATIENTS_STAGE, settings), make, overwrite=config.run.overwrite)


def load_population(path: str, task: DiagnosisTask) -> Population:
    """The synthetic population of a file, checked against the task. Raises ConfigError or ValueError."""
    population = load_config(Population, path)
    check_population(population, task)
    return population


def _source(config: CohortRunConfig) -> Any:
    """What the patients come from, by content: a population file may build on others."""
    if isinstance(config.cohort, SyntheticCohort):
        return load_config(Population, config.cohort.population).model_dump(mode="json")
    if isinstance(config.cohort, StudyCohort):
        return study_source(config.cohort) | {"pictures": config.imaging.shows}
    return file_fingerprint(config.cohort.path)


def _read(config: CohortRunConfig, task: DiagnosisTask) -> tuple[list[PatientRow], list[RejectedRow]]:
    cohort = config.cohort
    shares = _shares(cohort.splits)
    if isinstance(cohort, SyntheticCohort):
        population = load_population(cohort.population, task)
        drawn = [draw_patient(population, index, cohort.seed, shares) for index in range(cohort.patients)]
        return [with_body(patient) for patient in drawn] if cohort.phantoms else drawn, []
    if isinstance(cohort, StudyCohort):
        return read_study(cohort, task, shares, config.imaging.shows)
    return read_cohort(cohort.path, cohort.name, task, shares, cohort.seed)


def _shares(splits: SplitShares) -> dict[Split, float]:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}
