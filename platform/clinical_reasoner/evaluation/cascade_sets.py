"""Prediction sets on the test split: how many hold the true label, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from clinical_reasoner.evaluation.cascade import Bools, Routed, TierAnswers, prediction_sets
from clinical_reasoner.evaluation.cascade_draws import Draws
from clinical_reasoner.evaluation.resampling import Estimate
from clinical_reasoner.operating_point import OperatingPoint


class Sets(BaseModel):
    """Prediction sets of one approach. They are made of probabilities: a visit without any has none, and counts neither
    as covered nor as missed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    n: int = Field(ge=0)
    """Visits with a set."""
    without: int = Field(ge=0)
    """Visits without probabilities of the model that answered."""
    coverage: Estimate | None
    """Share of the sets that hold the true label."""
    size: Estimate | None
    """Labels in a set, mean."""


def own_sets(name: str, draws: Draws, answers: TierAnswers, temperature: float, quantile: float | None) -> Sets:
    """Of one model, about every visit that it has probabilities of."""
    return _sets(name, draws, [(answers, temperature, quantile, np.ones(len(answers.predicted), dtype=np.bool_))])


def cascade_sets(draws: Draws, routed: Routed, teacher: TierAnswers, point: OperatingPoint) -> Sets:
    """Each visit's set is that of the model whose answer it has."""
    student = (draws.tiers.student, point.student.temperature, point.student.quantile, routed.from_student)
    tier = point.teacher
    quantile, temperature = (tier.quantile, tier.temperature) if tier else (None, 1.0)
    return _sets("Cascade", draws, [student, (teacher, temperature, quantile, ~routed.from_student)])


def _sets(name: str, draws: Draws, parts: Sequence[tuple[TierAnswers, float, float | None, Bools]]) -> Sets:
    truth = draws.tiers.truth
    given, covered, size = np.zeros(len(truth), dtype=np.bool_), np.zeros(len(truth)), np.zeros(len(truth))
    for answers, temperature, quantile, of in parts:
        if quantile is None:
            continue
        places = np.flatnonzero(of & answers.has_probabilities & answers.answered)
        admitted = prediction_sets(answers.calibrated(temperature)[places], quantile)
        given[places] = True
        covered[places] = admitted[np.arange(len(places)), truth[places]]
        size[places] = admitted.sum(axis=1)
    return Sets(
        name=name,
        n=int(given.sum()),
        without=int((~given).sum()),
        coverage=draws.mean(covered, given),
        size=draws.mean(size, given),
    )
