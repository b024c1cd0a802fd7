"""The Bayes rule of a synthetic cohort: its answer about a patient, and its accuracy, the ceiling of every model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from clinical_reasoner.cohort.bayes import BayesRule
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.stage import load_population
from clinical_reasoner.cohort.synthetic import draw_patient
from clinical_reasoner.config.cohort import SyntheticCohort
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evidence.description import evidence_of
from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.imaging.phantom_bayes import PhantomBayesRule
from clinical_reasoner.imaging.phantom_cohort import draw_body
from clinical_reasoner.imaging.phantom_measuring import Bodies
from clinical_reasoner.imaging.stage import phantom_bodies
from clinical_reasoner.records import Measure, PatientRow
from clinical_reasoner.task import DiagnosisTask

CEILING_SEED = 987_654_321
"""Cohort seed of the draws for the population's Bayes accuracy: no cohort that is trained on or tested uses it."""

Posterior = Callable[[PatientRow], np.ndarray]
"""From a patient with its measures to P(label), shape (labels,), in the order of the task's labels."""


def bayes_posterior(cohort: SyntheticCohort, cut_points: Sequence[float], task: DiagnosisTask) -> Posterior:
    """The Bayes rule: given what a description states or, for a cohort with bodies, the measured volumes."""
    population = load_population(cohort.population, task).graded_at(cut_points)
    bodies = phantom_bodies(cohort)
    if bodies is not None:
        return _given_volumes(PhantomBayesRule(population, bodies.parameters), task)
    return _given_description(BayesRule(population, task.grade_names), task)


def population_ceiling(config: PipelineConfig, cohort: SyntheticCohort, task: DiagnosisTask) -> tuple[float, str]:
    """Accuracy of the Bayes rule, the mean of its largest posterior over fresh patients, and how it was computed."""
    posterior = bayes_posterior(cohort, config.evidence.cut_points, task)
    population = load_population(cohort.population, task)
    bodies = phantom_bodies(cohort)
    draws = range(config.evaluation.ceiling_draws)
    best = [float(posterior(_fresh(population, bodies, index)).max()) for index in draws]
    error = float(np.std(best) / np.sqrt(len(best)))
    known = (
        "given what the description states"
        if cohort.phantoms is None
        else "given patient fields and measured volumes, which tell more than the grades of a description"
    )
    note = (
        f"Bayes-optimal accuracy of the synthetic population {population.name!r} {known}: "
        f"mean of the largest posterior over {len(best)} fresh draws, standard error {error:.4f}."
    )
    return float(np.mean(best)), note


def _given_description(rule: BayesRule, task: DiagnosisTask) -> Posterior:
    order = [rule.labels.index(name) for name in task.label_names]

    def posterior(patient: PatientRow) -> np.ndarray:
        found = grade_patient(patient, task, rule.population.cut_points)
        evidence = evidence_of(patient, {finding.name: finding.grade for finding in found}, task)
        return rule.posterior(evidence.fields, evidence.grades)[order]

    return posterior


def _given_volumes(rule: PhantomBayesRule, task: DiagnosisTask) -> Posterior:
    order = [rule.labels.index(name) for name in task.label_names]

    def posterior(patient: PatientRow) -> np.ndarray:
        volumes = {measure.name: measure.value for measure in patient.measures}
        fields = evidence_of(patient, {}, task).fields
        return rule.posterior(fields, volumes, patient.age_years, patient.sex)[order]

    return posterior


def _fresh(population: Population, bodies: Bodies | None, index: int) -> PatientRow:
    if bodies is None:
        return draw_patient(population, index, CEILING_SEED, {"test": 1.0})
    patient, volumes, _ = draw_body(population, bodies.parameters, CEILING_SEED, index)
    measures = tuple(Measure(name=name, value=value, unit="mm3") for name, value in volumes.items())
    return patient.model_copy(update={"measures": measures})
