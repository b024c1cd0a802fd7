"""How models are compared."""

from __future__ import annotations

from pydantic import Field

from clinical_reasoner.config.base import StrictConfig


class EvaluationConfig(StrictConfig):
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples over subjects."""
    seed: int = Field(default=0, ge=0)
    examples: int = Field(default=3, ge=0, le=20)
    """Test patients shown in the report, one per label where possible."""
    rejected_examples: int = Field(default=2, ge=0, le=20)
    """Rejected answers of each teacher shown in the report for every reject reason, with the claims that the evidence
    does not support; 0 shows none."""
    ceiling_draws: int = Field(default=5000, ge=100)
    """Synthetic cohort: patients drawn for the population's Bayes accuracy."""
