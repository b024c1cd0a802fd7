"""The synthetic population as data: per-label distributions and effect sizes, read from YAML with their sources."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinical_reasoner.config.cohort import SYNTHETIC_PREFIX, CutPoints
from clinical_reasoner.errors import UserError
from clinical_reasoner.task import DiagnosisTask

AGE_RANGE_YEARS = (55, 95)
EDUCATION_RANGE_YEARS = (6, 20)
MMSE_RANGE = (0, 30)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Normal(_Strict):
    mean: float
    sd: float = Field(gt=0)


class LabelDistribution(_Strict):
    share: float = Field(gt=0, le=1)
    """Prior probability of the label."""
    severity: Normal
    """Latent severity of the disease: 0 in controls, 1 in the reference label."""
    age_years: Normal
    education_years: Normal
    mmse: Normal
    """Points out of 30 before rounding and clipping."""
    mmse_range: tuple[int, int] = MMSE_RANGE
    """Lowest and highest score, as of a study that enrols by MMSE; what is drawn beyond is clipped to them."""
    female_share: float = Field(ge=0, le=1)
    apoe4_carriers: float = Field(ge=0, lt=1)
    """Share of people with at least one APOE4 allele."""

    @model_validator(mode="after")
    def _range_ascends(self) -> LabelDistribution:
        low, high = self.mmse_range
        if not MMSE_RANGE[0] <= low < high <= MMSE_RANGE[1]:
            raise ValueError(f"mmse_range {list(self.mmse_range)} must ascend within {list(MMSE_RANGE)}")
        return self

    @property
    def apoe4_probabilities(self) -> tuple[float, float, float]:
        """P(0, 1, 2 copies) in Hardy-Weinberg proportions for this carrier share."""
        q = 1 - sqrt(1 - self.apoe4_carriers)
        return ((1 - q) ** 2, 2 * q * (1 - q), q**2)


class FindingEffect(_Strict):
    effect: float = Field(ge=0, le=4)
    """Mean difference of the w-score between severity 1 and severity 0, in SD of controls; larger = more affected."""
    domain: str
    """Findings of one domain share a factor."""


class Population(_Strict):
    name: str = Field(pattern=f"^{SYNTHETIC_PREFIX}")
    """Name of the cohort in tables and reports."""
    shared_variance: float = Field(ge=0, lt=1)
    """Part of a finding's variance (beside severity) that it shares with the other findings of its domain."""
    missing_share: float = Field(ge=0, lt=1)
    """Probability that a value is missing, completely at random."""
    mmse_severity_correlation: float = Field(ge=0, lt=1)
    """Within a label, correlation of a low MMSE with latent severity."""
    cut_points: CutPoints
    """Descending w-scores: above the first is the first grade of the task, at or below the last is the last grade."""
    labels: dict[str, LabelDistribution]
    marital_status: dict[str, dict[str, float]]
    """Probabilities of each status, by sex."""
    findings: dict[str, FindingEffect]

    @model_validator(mode="after")
    def _consistent(self) -> Population:
        if abs(sum(label.share for label in self.labels.values()) - 1) > 1e-3:
            raise ValueError(f"labels.*.share add up to {sum(x.share for x in self.labels.values()):.4f}, not to 1")
        loudest = max(self.findings.values(), key=lambda finding: finding.effect)
        if loudest.effect * self.controls.severity.sd >= 1:
            raise ValueError(
                f"effect {loudest.effect} times the controls' severity SD {self.controls.severity.sd} must stay "
                "below 1, because a w-score has SD 1 in controls"
            )
        return self

    def graded_at(self, cut_points: Sequence[float]) -> Population:
        """The same people, graded at other cut points."""
        return self.model_copy(update={"cut_points": tuple(cut_points)})

    @property
    def controls(self) -> LabelDistribution:
        """The label with the lowest mean severity."""
        return min(self.labels.values(), key=lambda label: label.severity.mean)

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(finding.domain for finding in self.findings.values()))

    def residual_sd(self, finding: str) -> float:
        """SD of a finding's w-score around its severity line, so that the total SD in controls is 1."""
        return sqrt(1 - (self.findings[finding].effect * self.controls.severity.sd) ** 2)


def check_population(population: Population, task: DiagnosisTask) -> None:
    """Raises UserError when the population does not fit the task: labels, findings or number of grades."""
    if set(population.labels) != set(task.label_names):
        raise UserError(
            f"population {population.name!r} has labels {sorted(population.labels)}, "
            f"task {task.name!r} has {sorted(task.label_names)}"
        )
    unknown = sorted(set(population.findings) - {finding.name for finding in task.findings})
    if unknown:
        raise UserError(f"population {population.name!r}: finding {unknown[0]!r} is not in task {task.name!r}")
    if len(population.cut_points) != len(task.grades) - 1:
        raise UserError(f"{len(population.cut_points)} cut points cannot part {len(task.grades)} grades")
