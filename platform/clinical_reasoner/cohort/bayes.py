"""The Bayes rule of the synthetic population: the best that any model can do on the description.

The posterior integrates the two latent levels (severity, domain factors) by Gauss-Hermite quadrature, over exactly what
the description states: whole years, the rounded MMSE, grades instead of w-scores, missing values left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import sqrt

import numpy as np
from scipy.stats import norm

from clinical_reasoner.cohort.population import (
    AGE_RANGE_YEARS,
    EDUCATION_RANGE_YEARS,
    LabelDistribution,
    Population,
)
from clinical_reasoner.cohort.synthetic import mmse_given_severity

NODES = 25


class BayesRule:
    """Posterior of the labels given the fields and grades that a description states."""

    def __init__(self, population: Population, grade_names: Sequence[str]) -> None:
        self.population = population
        self.labels = tuple(population.labels)
        self._grade_index = {name: index for index, name in enumerate(grade_names)}
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        self._nodes, self._weights = nodes, weights / weights.sum()
        # label -> finding -> (severity node, domain node, grade)
        self._grade_tables = {label: self._grade_table(spec) for label, spec in population.labels.items()}

    def posterior(self, fields: Mapping[str, str], grades: Mapping[str, str]) -> np.ndarray:
        """P(label | description), shape (labels,), in the order of `population.labels`. `fields` and `grades` as
        in `evidence.description.Evidence`."""
        return self.posterior_of(
            [self.fields_given_severity(label, fields) * self._grades(label, grades) for label in self.labels]
        )

    def posterior_of(self, given_severity: Sequence[np.ndarray]) -> np.ndarray:
        """P(label), shape (labels,), from the likelihood at each node of severity, one array for each label."""
        shares = [self.population.labels[label].share for label in self.labels]
        joint = np.array([float(likelihood @ self._weights) for likelihood in given_severity]) * shares
        posterior: np.ndarray = joint / joint.sum()
        return posterior

    def severities(self, label: str) -> np.ndarray:
        """Latent severity at the nodes of the quadrature, shape (nodes,)."""
        spec = self.population.labels[label].severity
        nodes: np.ndarray = spec.mean + spec.sd * self._nodes
        return nodes

    def fields_given_severity(self, label: str, fields: Mapping[str, str]) -> np.ndarray:
        """Likelihood of the patient fields at each node of severity, shape (nodes,)."""
        spec = self.population.labels[label]
        mmse = self._mmse(label, int(float(fields["mmse"]))) if "mmse" in fields else np.ones(NODES)
        return mmse * _fields_likelihood(spec, self.population, fields)

    def _grades(self, label: str, grades: Mapping[str, str]) -> np.ndarray:
        by_domain = {domain: np.ones((NODES, NODES)) for domain in self.population.domains}
        for name, grade in grades.items():
            if name in self.population.findings:
                domain = self.population.findings[name].domain
                by_domain[domain] = by_domain[domain] * self._grade_tables[label][name][..., self._grade_index[grade]]
        given_severity = np.ones(NODES)
        for table in by_domain.values():
            given_severity = given_severity * (table @ self._weights)
        return given_severity

    def _mmse(self, label: str, score: int) -> np.ndarray:
        mean, sd = np.array([mmse_given_severity(self.population, label, value) for value in self.severities(label)]).T
        return _rounded_mass(score, mean, sd, self.population.labels[label].mmse_range)

    def _grade_table(self, spec: LabelDistribution) -> dict[str, np.ndarray]:
        rho = self.population.shared_variance
        severity = (spec.severity.mean + spec.severity.sd * self._nodes)[:, None]
        tables = {}
        for name, finding in self.population.findings.items():
            sd = self.population.residual_sd(name)
            mean = -finding.effect * severity + sd * sqrt(rho) * self._nodes[None, :]
            above = [norm.sf(cut, mean, sd * sqrt(1 - rho)) for cut in self.population.cut_points]
            edges = [np.zeros_like(mean), *above, np.ones_like(mean)]
            tables[name] = np.stack([high - low for low, high in pairwise(edges)], axis=-1)
        return tables


def _fields_likelihood(spec: LabelDistribution, population: Population, fields: Mapping[str, str]) -> float:
    """Of the fields that do not depend on severity."""
    mass = 1.0
    if "age_years" in fields:
        age = int(float(fields["age_years"]))
        low = -np.inf if age <= AGE_RANGE_YEARS[0] else age
        high = np.inf if age >= AGE_RANGE_YEARS[1] else age + 1
        mass *= float(
            norm.cdf(high, spec.age_years.mean, spec.age_years.sd)
            - norm.cdf(low, spec.age_years.mean, spec.age_years.sd)
        )
    if "education_years" in fields:
        years = round(float(fields["education_years"]))
        mass *= float(_rounded_mass(years, spec.education_years.mean, spec.education_years.sd, EDUCATION_RANGE_YEARS))
    if "sex" in fields:
        mass *= spec.female_share if fields["sex"] == "female" else 1 - spec.female_share
    elif "marital_status" in fields:
        women = population.marital_status["female"][fields["marital_status"]]
        men = population.marital_status["male"][fields["marital_status"]]
        mass *= spec.female_share * women + (1 - spec.female_share) * men
    if "apoe4_copies" in fields:
        mass *= spec.apoe4_probabilities[int(fields["apoe4_copies"])]
    return mass


def _rounded_mass(value: int, mean: np.ndarray | float, sd: np.ndarray | float, bounds: tuple[int, int]) -> np.ndarray:
    """P(round and clip to `bounds` = value) of a normal variable; 0 beyond the bounds."""
    if not bounds[0] <= value <= bounds[1]:
        return np.zeros(np.broadcast(mean, sd).shape)
    low = -np.inf if value <= bounds[0] else value - 0.5
    high = np.inf if value >= bounds[1] else value + 0.5
    return np.asarray(norm.cdf(high, mean, sd) - norm.cdf(low, mean, sd))
