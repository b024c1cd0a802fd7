"""Metrics of the cascade in every draw of people, so that all of its intervals come from the same draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from clinical_reasoner.evaluation.cascade import Bools
from clinical_reasoner.evaluation.metrics import accuracies, confusions, macro_f1s
from clinical_reasoner.evaluation.resampling import Estimate, Floats, Ints, estimate
from clinical_reasoner.evaluation.tiers import Tiers


class Approach(BaseModel):
    """One way to answer every visit. Both metrics 0..1, higher is better; a missing answer is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    unanswered: int = Field(ge=0)
    """Visits without a diagnosis: not asked about, or answered in a way that could not be read."""
    accuracy: Estimate
    macro_f1: Estimate


@dataclass(frozen=True)
class Draws:
    """Metrics of the visits in each draw of people, the first of which is everybody once."""

    tiers: Tiers
    weights: Ints
    """(draws, subjects) as `subject_weights` gives them."""

    def macro_f1(self, predicted: Ints) -> Floats:
        """(draws,)."""
        return macro_f1s(self._confusions(predicted))

    def approach(self, name: str, predicted: Ints) -> Approach:
        labels = self.tiers.student.labels
        return Approach(
            name=name,
            unanswered=int((predicted == labels).sum()),
            accuracy=estimate(accuracies(self._confusions(predicted))),
            macro_f1=estimate(self.macro_f1(predicted)),
        )

    def share(self, chosen: Bools) -> Estimate:
        """Of all visits."""
        everyone = np.ones(len(chosen), dtype=np.bool_)
        found = self.mean(chosen.astype(np.float64), everyone)
        if found is None:
            raise ValueError("no visit, no share")
        return found

    def mean(self, values: Floats, of: Bools) -> Estimate | None:
        """Mean of `values` (visits,) over the visits `of` (visits,); None where there are none. Draws without one are
        left out."""
        subjects = self.weights.shape[1]
        count = self.weights @ np.bincount(self.tiers.subject, weights=of, minlength=subjects)
        total = self.weights @ np.bincount(self.tiers.subject, weights=np.where(of, values, 0), minlength=subjects)
        if count[0] == 0:
            return None
        means = total[count > 0] / count[count > 0]
        return estimate(means) if len(means) > 1 else None

    def _confusions(self, predicted: Ints) -> Ints:
        tiers = self.tiers
        return confusions(tiers.truth, predicted, tiers.subject, tiers.student.labels, self.weights)
