"""The Bayes rule of a synthetic cohort with bodies: the best that any model can do on what was measured in them."""

from __future__ import annotations

from collections.abc import Mapping
from math import log

import numpy as np

from clinical_reasoner.cohort.bayes import BayesRule
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.imaging.phantom_volumes import Domain, PhantomParameters, Subtype, expected_log, residual_sd


class PhantomBayesRule:
    """Posterior of the labels given the fields that a description states and the measured volumes themselves.

    Volumes tell more than grades, so that it bounds from above what a reader of the description can reach. It leaves
    out that noise is cut off at 3 SD and that some volumes are bounded by the ICV.
    """

    def __init__(self, population: Population, parameters: PhantomParameters) -> None:
        self._fields = BayesRule(population, ())
        self._parameters = parameters
        self.labels = self._fields.labels
        domains = dict.fromkeys(region.domain for region in parameters.regions.values())
        self._regions = {
            domain: [name for name, region in parameters.regions.items() if region.domain == domain]
            for domain in domains
        }
        self._factors = {domain: self._cholesky(names) for domain, names in self._regions.items()}

    def posterior(
        self, fields: Mapping[str, str], volumes: Mapping[str, float], age_years: float | None, sex: str | None
    ) -> np.ndarray:
        """P(label), shape (labels,), in the order of the population's labels. `volumes` (mm3, by the names of REGIONS)
        count where age and sex are known: without these, nothing measured is graded."""
        given = [self._fields.fields_given_severity(label, fields) for label in self.labels]
        if age_years is not None and sex is not None and set(self._parameters.regions) <= set(volumes):
            logs = [self._volumes(self._fields.severities(label), volumes, age_years) for label in self.labels]
            highest = max(float(values.max()) for values in logs)
            given = [fields * np.exp(values - highest) for fields, values in zip(given, logs, strict=True)]
        return self._fields.posterior_of(given)

    def _volumes(self, severity: np.ndarray, volumes: Mapping[str, float], age_years: float) -> np.ndarray:
        """Log-likelihood of the volumes at each severity, shape (nodes,), up to a constant: a mixture of subtypes."""
        deviations = {
            name: (log(volumes[name]) - expected_log(self._parameters, name, volumes["icv"], age_years)) / region.cv
            for name, region in self._parameters.regions.items()
        }
        by_subtype = [
            np.log(subtype.share) + sum(self._domain(domain, subtype, severity, deviations) for domain in self._regions)
            for subtype in self._parameters.subtypes.values()
        ]
        found: np.ndarray = np.logaddexp.reduce(by_subtype)
        return found

    def _domain(
        self, domain: Domain, subtype: Subtype, severity: np.ndarray, deviations: Mapping[str, float]
    ) -> np.ndarray:
        names = self._regions[domain]
        effects = np.array([self._parameters.regions[name].effect for name in names])
        affected = subtype.factors.get(domain, 1.0) * effects[:, None] * severity
        apart = np.array([deviations[name] for name in names])[:, None] - affected
        whitened = np.linalg.solve(self._factors[domain], apart)  # the covariance is the same under every label
        density: np.ndarray = -0.5 * (whitened**2).sum(axis=0)
        return density

    def _cholesky(self, names: list[str]) -> np.ndarray:
        """Of the covariance of the regions' noise: each with its own part and one that the domain shares."""
        rho = self._parameters.shared_variance
        spread = np.diag([residual_sd(self._parameters, name) for name in names])
        shared = np.full((len(names), len(names)), rho) + (1 - rho) * np.eye(len(names))
        return np.asarray(np.linalg.cholesky(spread @ shared @ spread))
