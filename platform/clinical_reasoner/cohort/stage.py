"""Stage `patients`: from the configured cohort to the patients table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from clinical_reasoner.cohort.population import Population, check_population
from clinical_reasoner.cohort.rejected import too_few
from clinical_reasoner.cohort.splits import check_no_leak
from clinical_reasoner.cohort.study import cohort_rows, study_source, table_source
from clinical_reasoner.cohort.synthetic import draw_patient, with_body
from clinical_reasoner.config.cohort import SplitShares, StudyCohort, SyntheticCohort
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import CohortRunConfig
from clinical_reasoner.records import PATIENTS, PatientRow, RejectedRow, Split
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
        people, reasons = dict[str, Split](), Counter[str]()
        with (
            run.rejected_writer(PATIENTS_STAGE) as rejected,
            run.table_writer(PATIENTS_STAGE, PATIENTS) as patients,
        ):
            for row in _rows(config, load_task(config.task.file)):
                if isinstance(row, RejectedRow):
                    rejected.add(row)
                    reasons[row.reason] += 1
                else:
                    patients.add(row)
                    check_no_leak(people, row.patient_id, row.split)
            used = set(people.values())
            for split in ("train", "test"):
                if split not in used:
                    raise too_few(f"cohort: no patient in split {split!r}", patients.rows, reasons)
        return Rows(patients.rows + rejected.rows, patients.rows, rejected.rows)

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
    return table_source(config.cohort)


def _rows(config: CohortRunConfig, task: DiagnosisTask) -> Iterator[PatientRow | RejectedRow]:
    cohort = config.cohort
    shares = _shares(cohort.splits)
    if not isinstance(cohort, SyntheticCohort):
        yield from cohort_rows(cohort, task, shares, config.imaging.shows)
        return
    population = load_population(cohort.population, task)
    for index in range(cohort.patients):
        patient = draw_patient(population, index, cohort.seed, shares)
        yield with_body(patient) if cohort.phantoms else patient


def _shares(splits: SplitShares) -> dict[Split, float]:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}
