"""Synthetic patients with published effect sizes. Not real people, and called synthetic wherever they are shown."""

from __future__ import annotations

from math import sqrt

import numpy as np

from clinical_reasoner.cohort.phantom_mark import SEGMENTER, phantom_id
from clinical_reasoner.cohort.population import AGE_RANGE_YEARS, EDUCATION_RANGE_YEARS, Population
from clinical_reasoner.cohort.splits import split_of
from clinical_reasoner.records import Measure, PatientRow, Split

VISIT = "bl"
SCANS = "scans"
"""Folder of the phantoms below the run folder."""


def draw_patient(population: Population, index: int, seed: int, shares: dict[Split, float]) -> PatientRow:
    """Patient `index` of the cohort `seed`. The same two numbers give the same patient, in any order and process."""
    return draw_with_severity(population, index, seed, shares)[0]


def draw_with_severity(
    population: Population, index: int, seed: int, shares: dict[Split, float]
) -> tuple[PatientRow, float]:
    """The patient of `draw_patient`, and the latent severity of the disease, which no table holds."""
    rng = np.random.default_rng([seed, index])
    names = list(population.labels)
    label = names[rng.choice(len(names), p=_normalised([population.labels[name].share for name in names]))]
    spec = population.labels[label]
    severity = rng.normal(spec.severity.mean, spec.severity.sd)
    sex = "female" if rng.random() < spec.female_share else "male"
    statuses = population.marital_status[sex]
    patient_id = f"SYN{seed}-{index:06d}"
    values = {
        "age_years": round(float(np.clip(rng.normal(spec.age_years.mean, spec.age_years.sd), *AGE_RANGE_YEARS)), 1),
        "sex": sex,
        "education_years": float(
            _whole(rng.normal(spec.education_years.mean, spec.education_years.sd), EDUCATION_RANGE_YEARS)
        ),
        "marital_status": list(statuses)[rng.choice(len(statuses), p=_normalised(list(statuses.values())))],
        "mmse": _whole(rng.normal(*mmse_given_severity(population, label, severity)), spec.mmse_range),
        "apoe4_copies": int(rng.choice(3, p=spec.apoe4_probabilities)),
    }
    known = {name: value for name, value in values.items() if rng.random() >= population.missing_share}
    patient = PatientRow(
        patient_id=patient_id,
        visit_id=VISIT,
        cohort=population.name,
        split=split_of(patient_id, shares, seed),
        label=label,
        measures=_draw_measures(population, severity, rng),
        **known,
    )
    return patient, float(severity)


def with_body(patient: PatientRow) -> PatientRow:
    """The patient, its findings still to be measured in a phantom, with the phantom's paths below the run folder."""
    stem = f"{SCANS}/{phantom_id(patient.patient_id)}"
    paths = {"image_path": f"{stem}_T1w.nii.gz", "segmentation_path": f"{stem}_dseg.nii.gz"}
    return patient.model_copy(update={"measures": (), "segmenter": SEGMENTER, **paths})


def mmse_given_severity(population: Population, label: str, severity: float) -> tuple[float, float]:
    """Mean and SD of the MMSE before rounding, within a label, at a latent severity."""
    spec, rho = population.labels[label], population.mmse_severity_correlation
    mean = spec.mmse.mean - rho * spec.mmse.sd / spec.severity.sd * (severity - spec.severity.mean)
    return mean, spec.mmse.sd * sqrt(1 - rho**2)


def _draw_measures(population: Population, severity: float, rng: np.random.Generator) -> tuple[Measure, ...]:
    shared = {domain: rng.normal() for domain in population.domains}
    measures = []
    for name, finding in population.findings.items():
        own = rng.normal()
        rho = population.shared_variance
        noise = sqrt(rho) * shared[finding.domain] + sqrt(1 - rho) * own
        w_score = -finding.effect * severity + population.residual_sd(name) * noise
        if rng.random() >= population.missing_share:
            measures.append(Measure(name=name, value=round(float(w_score), 4), unit="w"))
    return tuple(measures)


def _whole(value: float, bounds: tuple[int, int]) -> int:
    return int(np.clip(round(value), *bounds))


def _normalised(shares: list[float]) -> np.ndarray:
    return np.asarray(shares) / sum(shares)
