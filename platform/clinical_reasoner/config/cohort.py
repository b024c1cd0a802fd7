"""Where patients come from, how they are split, and how their measures are graded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clinical_reasoner.config.base import StrictConfig


class SplitShares(StrictConfig):
    train: float = Field(default=0.6, gt=0, lt=1)
    """Share of the people for training, before rounding by chance; the three are scaled to add up to 1."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the people for choosing (early stopping, temperature, thresholds)."""
    test: float = Field(default=0.3, gt=0, lt=1)
    """Share of the people for the final comparison; nothing is ever chosen on them."""


class SyntheticCohort(StrictConfig):
    kind: Literal["synthetic"]
    population: str
    """Population file with the distributions, e.g. `configs/cohort/population_clinic.yaml`."""
    patients: int = Field(ge=10)
    """Number of synthetic patients."""
    seed: int = Field(ge=0)
    """Cohort seed; use another than that of the reference models' training text."""
    splits: SplitShares = SplitShares()


class TableCohort(StrictConfig):
    kind: Literal["table"]
    path: str
    """CSV or Parquet, one row per visit, columns named like the `patients` table; a column named like a finding of the
    task holds a grade (`No`, `Mild`, `Severe`) or a w-score."""
    name: str
    """Name of the cohort in tables and reports."""
    seed: int = Field(default=0, ge=0)
    """Seed of the split."""
    splits: SplitShares = SplitShares()


CohortConfig = Annotated[SyntheticCohort | TableCohort, Field(discriminator="kind")]


class EvidenceConfig(StrictConfig):
    cut_points: tuple[float, ...] = (-1.0, -2.0)
    """Descending w-scores between the grades of the task: No above the first, the last grade at or below the last."""
