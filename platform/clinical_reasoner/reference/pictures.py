"""Phantoms as a vision-language model meets them: picture, measures and graded findings, made as in the stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.synthetic import with_body
from clinical_reasoner.evidence.description import Evidence, evidence_of
from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.evidence.w_scores import cohort_norms, control_rows, w_scores
from clinical_reasoner.imaging.labels import FREESURFER
from clinical_reasoner.imaging.measuring import label_map_measures
from clinical_reasoner.imaging.norms import Norms
from clinical_reasoner.imaging.phantom_cohort import draw_phantom
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from clinical_reasoner.imaging.scans import LabelMap
from clinical_reasoner.imaging.views import views_picture
from clinical_reasoner.progress import ProgressBar
from clinical_reasoner.records import PatientRow
from clinical_reasoner.task import DiagnosisTask


@dataclass(frozen=True)
class PhantomSpec:
    """What the phantoms are drawn from, and what is said of them."""

    task: DiagnosisTask
    population: Population
    parameters: PhantomParameters


@dataclass(frozen=True)
class Phantoms:
    """Synthetic patients with bodies."""

    patients: tuple[PatientRow, ...]
    """With the regional measures of their label maps."""
    pictures: np.ndarray
    """uint8 [patients, height, width]."""


@dataclass(frozen=True)
class Read:
    """What there is to read in the pictures."""

    evidence: tuple[Evidence, ...]
    """What the descriptions of the patients state; the grades are those of the pictures."""
    w_scores: np.ndarray
    """float32 [patients, findings of the task]; NaN where there is none."""


def draw_phantoms(spec: PhantomSpec, seed: int, count: int) -> Phantoms:
    """Patients 0 to `count` - 1 of the cohort `seed`."""
    patients, pictures = [], []
    with ProgressBar(f"phantoms of seed {seed}", count) as bar:
        for patient, picture in _drawn(spec, seed, count):
            patients.append(patient)
            pictures.append(picture)
            bar.update(len(patients))
    return Phantoms(tuple(patients), np.stack(pictures))


def fit_phantom_norms(phantoms: Phantoms, spec: PhantomSpec, fewest: int) -> Norms:
    return cohort_norms(control_rows(phantoms.patients, spec.task), spec.task, fewest)


def read_phantoms(patients: Sequence[PatientRow], norms: Norms, spec: PhantomSpec) -> Read:
    """Graded as the stage `findings` does it."""
    evidence = []
    scores = np.full((len(patients), len(spec.task.findings)), np.nan, np.float32)
    places = {finding.name: place for place, finding in enumerate(spec.task.findings)}
    for row, patient in enumerate(patients):
        measured = w_scores(patient, spec.task, norms)
        for name, (_, w) in measured.items():
            scores[row, places[name]] = w
        found = grade_patient(patient, spec.task, spec.population.cut_points, measured)
        evidence.append(evidence_of(patient, {finding.name: finding.grade for finding in found}, spec.task))
    return Read(tuple(evidence), scores)


def _drawn(spec: PhantomSpec, seed: int, count: int) -> Iterator[tuple[PatientRow, np.ndarray]]:
    for index in range(count):
        phantom = draw_phantom(spec.population, spec.parameters, seed, index)
        zooms = np.linalg.norm(phantom.affine[:3, :3], axis=0)
        label_map = LabelMap(
            phantom.labels.astype(np.int32), phantom.affine, float(np.prod(zooms)), (zooms[0], zooms[1], zooms[2])
        )
        measures = label_map_measures(label_map, FREESURFER)
        patient = with_body(phantom.patient).model_copy(update={"measures": measures})
        yield patient, views_picture(phantom.t1, phantom.labels, phantom.affine)
