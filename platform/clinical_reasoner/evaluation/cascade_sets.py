"""Prediction sets on the test split: how many hold the true label, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from clinical_reasoner.evaluation.cascade import Bools, Routed, TierAnswers, prediction_sets
from clinical_reasoner.evaluation.cascade_draws import Draws
from clinical_reasoner.evaluation.resampling import Estimate
from clinical_reasoner.operating_point import OperatingPoint, Tier


class Sets(BaseModel):
    """Prediction sets of one approach. They are made of probabilities: a visit without any has none, and counts neither
    as covered nor as missed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    n: int = Field(ge=0)
    """Visits with a set."""
    without: int = Field(ge=0)
    """Visits without probabilities of the model that answered."""
    calibrated_on: tuple[int, ...] = ()
    """Visits of the validation split that the quantile of each model is from; none where there is no quantile."""
    coverage: Estimate | None
    """Share of the sets that hold the true label."""
    size: Estimate | None
    """Labels in a set, mean."""


def own_sets(name: str, draws: Draws, answers: TierAnswers, tier: Tier) -> Sets:
    """Of one model, about every visit that it has probabilities of."""
    return _sets(name, draws, [(answers, tier, np.ones(len(answers.predicted), dtype=np.bool_))])


def cascade_sets(draws: Draws, routed: Routed, teacher: TierAnswers, point: OperatingPoint) -> Sets:
    """Each visit's set is that of the model whose answer it has."""
    student = (draws.tiers.student, point.student, routed.from_student)
    return _sets("Cascade", draws, [student, (teacher, point.teacher, ~routed.from_student)])


def _sets(name: str, draws: Draws, parts: Sequence[tuple[TierAnswers, Tier | None, Bools]]) -> Sets:
    truth = draws.tiers.truth
    given, covered, size = np.zeros(len(truth), dtype=np.bool_), np.zeros(len(truth)), np.zeros(len(truth))
    calibrated_on = []
    for answers, tier, of in parts:
        if tier is None or tier.quantile is None:
            continue
        calibrated_on.append(tier.visits)
        places = np.flatnonzero(of & answers.has_probabilities & answers.answered)
        admitted = prediction_sets(answers.calibrated(tier.temperature)[places], tier.quantile)
        given[places] = True
        covered[places] = admitted[np.arange(len(places)), truth[places]]
        size[places] = admitted.sum(axis=1)
    return Sets(
        name=name,
        n=int(given.sum()),
        without=int((~given).sum()),
        calibrated_on=tuple(calibrated_on),
        coverage=draws.mean(covered, given),
        size=draws.mean(size, given),
    )
