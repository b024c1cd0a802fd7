"""What the unit tests share: the shipped task, population and wording, a synthetic cohort, and golden files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.synthetic import draw_patient
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.students import Student, students_of
from clinical_reasoner.evidence.description import Evidence, evidence_of
from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.llm.prompting import Exemplar, load_exemplars
from clinical_reasoner.rationales.exemplars import ExemplarChoice
from clinical_reasoner.records import PatientRow
from clinical_reasoner.reference.writer import Wording
from clinical_reasoner.task import DiagnosisTask, load_task

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "goldens"
DRAWN = 6000
"""Patients of the shared synthetic cohort."""

Golden = Callable[[str, str], None]
"""`golden(name, text)`: the text is exactly that of the file. UPDATE_GOLDENS=1 writes the file, on purpose only."""


def always(exemplars: tuple[Exemplar, ...]) -> ExemplarChoice:
    """All of these, in their order."""
    return ExemplarChoice(exemplars, len(exemplars), "fixed", "file", seed=0)


def student_of(arm: str, *overrides: str) -> Student:
    """The student of an arm, as the demo with these overrides has it."""
    settings = [f"student.arms=[{arm}]", "student.epochs=2", *overrides]
    return students_of(load_config(PipelineConfig, ROOT / "configs/demo.yaml", settings))[0]


@pytest.fixture(scope="session")
def task() -> DiagnosisTask:
    return load_task(str(ROOT / "configs/tasks/alzheimers.yaml"))


@pytest.fixture(scope="session")
def exemplars(task: DiagnosisTask) -> tuple[Exemplar, ...]:
    return load_exemplars(str(ROOT / task.exemplars), task)


@pytest.fixture(scope="session")
def population() -> Population:
    return load_config(Population, ROOT / "configs/cohort/population_clinic.yaml")


@pytest.fixture(scope="session")
def wording() -> Wording:
    return load_config(Wording, ROOT / "configs/reference/alzheimers.yaml")


@pytest.fixture(scope="session")
def drawn(population: Population) -> list[PatientRow]:
    """Patients of the shipped population, nothing missing."""
    complete = population.model_copy(update={"missing_share": 0.0})
    return [draw_patient(complete, index, 2024, {"train": 1.0}) for index in range(DRAWN)]


@pytest.fixture(scope="session")
def drawn_evidence(drawn: list[PatientRow], population: Population, task: DiagnosisTask) -> list[Evidence]:
    """What the descriptions of `drawn` state."""
    graded = [grade_patient(patient, task, population.cut_points) for patient in drawn]
    return [
        evidence_of(patient, {finding.name: finding.grade for finding in findings}, task)
        for patient, findings in zip(drawn, graded, strict=True)
    ]


@pytest.fixture(scope="session")
def golden() -> Golden:
    def compare(name: str, text: str) -> None:
        file = GOLDENS / name
        if os.environ.get("UPDATE_GOLDENS") == "1":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n", encoding="utf-8")
        assert file.is_file(), f"no golden file {file}; UPDATE_GOLDENS=1 writes it"
        assert text + "\n" == file.read_text(encoding="utf-8"), f"{file} differs; UPDATE_GOLDENS=1 if that is meant"

    return compare
