"""Synthetic patients: reproducible one by one, and distributed as the population file says."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.cohort.population import AGE_RANGE_YEARS, EDUCATION_RANGE_YEARS, Population
from clinical_reasoner.cohort.splits import split_of
from clinical_reasoner.cohort.synthetic import draw_patient, mmse_given_severity
from clinical_reasoner.records import PatientRow, Split

SHARES: dict[Split, float] = {"train": 0.6, "validation": 0.1, "test": 0.3}
Z = 4.0
"""Standard errors that a drawn figure may lie from its expectation; the draws are seeded, so no test is flaky."""


def of_label(drawn: list[PatientRow], label: str) -> list[PatientRow]:
    return [patient for patient in drawn if patient.label == label]


def column(patients: list[PatientRow], name: str) -> np.ndarray:
    return np.array([getattr(patient, name) for patient in patients])


def w_scores(patients: list[PatientRow]) -> dict[str, np.ndarray]:
    rows = [{measure.name: measure.value for measure in patient.measures} for patient in patients]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_same_seed_and_index_is_the_same_patient_in_any_order(population: Population) -> None:
    forward = [draw_patient(population, index, 7, SHARES) for index in range(20)]
    backward = [draw_patient(population, index, 7, SHARES) for index in reversed(range(20))]
    assert forward == backward[::-1]
    assert len({patient.patient_id for patient in forward}) == 20
    assert len({patient.measures for patient in forward}) == 20
    other = draw_patient(population, 3, 8, SHARES)
    assert other.patient_id != forward[3].patient_id
    assert other.measures != forward[3].measures


@given(index=st.integers(0, 10**6), seed=st.integers(0, 10**6))
def test_patient_is_marked_synthetic_and_split_by_id(population: Population, index: int, seed: int) -> None:
    patient = draw_patient(population, index, seed, SHARES)
    assert patient.patient_id == f"SYN{seed}-{index:06d}"
    assert patient.cohort.startswith("synthetic")
    assert patient.split == split_of(patient.patient_id, SHARES, seed)
    assert patient.label in population.labels
    assert {measure.name for measure in patient.measures} <= set(population.findings)
    assert all(measure.unit == "w" for measure in patient.measures)


@pytest.mark.parametrize("label", ["AD", "MCI", "NC"])
def test_fields_are_distributed_as_the_population_says(
    drawn: list[PatientRow], population: Population, label: str
) -> None:
    patients, spec = of_label(drawn, label), population.labels[label]
    count = len(patients)
    assert abs(count / len(drawn) - spec.share) < Z * sqrt(spec.share * (1 - spec.share) / len(drawn))
    rng = np.random.default_rng(0)
    for name, normal, bounds in (
        ("mmse", spec.mmse, (0, 30)),
        ("education_years", spec.education_years, EDUCATION_RANGE_YEARS),
        ("age_years", spec.age_years, AGE_RANGE_YEARS),
    ):
        values = column(patients, name)
        latent = rng.normal(normal.mean, normal.sd, 400_000)
        expected = np.clip(latent if name == "age_years" else np.rint(latent), *bounds)
        assert abs(values.mean() - expected.mean()) < Z * expected.std() / sqrt(count), name
        assert abs(values.std() - expected.std()) < Z * expected.std() / sqrt(count), name
        assert bounds[0] <= values.min() <= values.max() <= bounds[1]
    women = np.mean(column(patients, "sex") == "female")
    assert abs(women - spec.female_share) < Z * sqrt(0.25 / count)
    for copies, probability in enumerate(spec.apoe4_probabilities):
        found = np.mean(column(patients, "apoe4_copies") == copies)
        assert abs(found - probability) < Z * sqrt(probability * (1 - probability) / count)


@pytest.mark.parametrize("sex", ["female", "male"])
def test_marital_status_depends_on_sex(drawn: list[PatientRow], population: Population, sex: str) -> None:
    patients = [patient for patient in drawn if patient.sex == sex]
    for status, probability in population.marital_status[sex].items():
        found = np.mean(column(patients, "marital_status") == status)
        assert abs(found - probability) < Z * sqrt(probability * (1 - probability) / len(patients))


def test_w_scores_have_mean_0_and_sd_1_in_controls(drawn: list[PatientRow]) -> None:
    controls = of_label(drawn, "NC")
    scores = w_scores(controls)
    for name, values in scores.items():
        assert abs(values.mean()) < Z / sqrt(len(controls)), name
        assert abs(values.std() - 1) < Z / sqrt(2 * len(controls)), name
    # All findings together: a residual without the part of severity would have a mean variance of 1.08.
    assert np.mean([values.var() for values in scores.values()]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("label", ["AD", "MCI"])
def test_effect_is_the_shift_at_the_severity_of_the_label(
    drawn: list[PatientRow], population: Population, label: str
) -> None:
    patients, severity = of_label(drawn, label), population.labels[label].severity
    for name, values in w_scores(patients).items():
        effect, residual = population.findings[name].effect, population.residual_sd(name)
        sd = sqrt((effect * severity.sd) ** 2 + residual**2)
        assert abs(values.mean() + effect * severity.mean) < Z * sd / sqrt(len(patients)), name
        assert abs(values.std() - sd) < Z * sd / sqrt(2 * len(patients)), name


def correlation(population: Population, label: str, first: str, second: str) -> float:
    """Of two w-scores within a label, from the model: shared severity, and a shared factor within a domain."""
    severity_sd = population.labels[label].severity.sd
    effects = [population.findings[name].effect for name in (first, second)]
    residuals = [population.residual_sd(name) for name in (first, second)]
    same = population.findings[first].domain == population.findings[second].domain
    covariance = effects[0] * effects[1] * severity_sd**2
    covariance += population.shared_variance * residuals[0] * residuals[1] if same else 0.0
    sds = [sqrt((e * severity_sd) ** 2 + r**2) for e, r in zip(effects, residuals, strict=True)]
    return covariance / (sds[0] * sds[1])


@pytest.mark.parametrize("label", ["AD", "NC"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("hippocampal_atrophy", "entorhinal_atrophy"),
        ("temporal_atrophy", "parietal_atrophy"),
        ("hippocampal_atrophy", "temporal_atrophy"),
        ("hippocampal_atrophy", "vascular_disease"),
    ],
)
def test_findings_of_a_domain_go_together(
    drawn: list[PatientRow], population: Population, label: str, first: str, second: str
) -> None:
    scores = w_scores(of_label(drawn, label))
    expected = correlation(population, label, first, second)
    found = np.corrcoef(scores[first], scores[second])[0, 1]
    assert abs(np.arctanh(found) - np.arctanh(expected)) < Z / sqrt(len(scores[first]))


def test_within_a_label_the_more_severe_have_lower_mmse(drawn: list[PatientRow], population: Population) -> None:
    patients, spec = of_label(drawn, "AD"), population.labels["AD"]
    effect, residual = population.findings["hippocampal_atrophy"].effect, population.residual_sd("hippocampal_atrophy")
    of_finding = effect * spec.severity.sd / sqrt((effect * spec.severity.sd) ** 2 + residual**2)
    expected = population.mmse_severity_correlation * of_finding
    found = np.corrcoef(column(patients, "mmse"), w_scores(patients)["hippocampal_atrophy"])[0, 1]
    assert expected > 0.15
    assert abs(np.arctanh(found) - np.arctanh(expected)) < Z / sqrt(len(patients))


def test_mmse_at_the_mean_severity_is_the_mean_mmse(population: Population) -> None:
    for label, spec in population.labels.items():
        mean, sd = mmse_given_severity(population, label, spec.severity.mean)
        assert mean == pytest.approx(spec.mmse.mean)
        assert sd == pytest.approx(spec.mmse.sd * sqrt(1 - 0.35**2))
        below, _ = mmse_given_severity(population, label, spec.severity.mean + spec.severity.sd)
        assert below == pytest.approx(spec.mmse.mean - 0.35 * spec.mmse.sd)


def test_values_are_missing_at_the_given_rate_and_the_rest_is_unchanged(population: Population) -> None:
    often = population.model_copy(update={"missing_share": 0.4})
    never = population.model_copy(update={"missing_share": 0.0})
    fields = ("age_years", "sex", "education_years", "marital_status", "mmse", "apoe4_copies")
    missing = total = 0
    for index in range(300):
        gappy, whole = draw_patient(often, index, 5, SHARES), draw_patient(never, index, 5, SHARES)
        assert gappy.label == whole.label
        for name in fields:
            assert getattr(gappy, name) in (None, getattr(whole, name))
            missing += getattr(gappy, name) is None
        assert set(gappy.measures) <= set(whole.measures)
        missing += len(population.findings) - len(gappy.measures)
        total += len(fields) + len(population.findings)
    assert abs(missing / total - 0.4) < Z * sqrt(0.24 / total)
