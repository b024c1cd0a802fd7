"""The endpoint's cascade over a table of visits: the student's answer where it is sure, otherwise the teacher's.

The rule is that of `serving.cascade`, for many visits at a time; a test holds both together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clinical_reasoner.distillation.calibration import apply_temperature
from clinical_reasoner.evaluation.resampling import Floats, Ints

Bools = NDArray[np.bool_]
ROUNDING = 1e-12
"""By which a score may pass the quantile, as in `operating_point.prediction_set`."""


@dataclass(frozen=True)
class TierAnswers:
    """What one model said about each visit of a table."""

    predicted: Ints
    """(visits,) index of the label; number of labels = no answer, or one that could not be read."""
    probabilities: Floats
    """(visits, labels) as the model gave them; NaN where it gave none."""

    @property
    def labels(self) -> int:
        return int(self.probabilities.shape[1])

    @property
    def answered(self) -> Bools:
        """(visits,) whether there is a diagnosis."""
        return self.predicted < self.labels

    @property
    def has_probabilities(self) -> Bools:
        """(visits,)."""
        return np.asarray(~np.isnan(self.probabilities).any(axis=1))

    def calibrated(self, temperature: float) -> Floats:
        """(visits, labels), each adding up to 1; NaN where there are no probabilities."""
        return apply_temperature(self.probabilities, temperature)

    def confidence(self, temperature: float) -> Floats:
        """(visits,) largest calibrated probability; minus infinity where the answer has none or is none."""
        largest = self.calibrated(temperature).max(axis=1)
        return np.asarray(np.where(self.answered & self.has_probabilities, largest, -np.inf))


@dataclass(frozen=True)
class Routed:
    """What the endpoint answers about each visit; every array is (visits,)."""

    predicted: Ints
    """Index of the label; number of labels = neither model has a diagnosis."""
    stands: Bools
    """The student's answer was sure enough; every other visit reached the teacher."""
    from_student: Bools
    """Whose answer it is. The student's also where the teacher was asked and has none."""
    referred: Bools
    """The answer says to refer to a clinician: both were unsure, or an unsure student's answer stands in for one that
    the teacher does not have."""


def route_visits(
    student: TierAnswers,
    student_confidence: Floats,
    teacher: TierAnswers,
    teacher_confidence: Floats,
    threshold: float,
    refer_below: float = 0.0,
) -> Routed:
    """The cascade with model `auto`; confidences (visits,) as `TierAnswers.confidence` gives them.

    A visit about which the student has no probabilities goes to the teacher. Where that has no answer, the student's
    stands in and the patient is referred. A teacher's answer without probabilities counts as unsure wherever
    `refer_below` is above 0.
    """
    stands = student_confidence >= threshold
    stood_in = ~stands & student.answered & ~teacher.answered
    from_student = stands | stood_in
    predicted = np.where(from_student, student.predicted, teacher.predicted)
    unsure = (teacher_confidence < refer_below) & (refer_below > 0)
    referred = stood_in | (~stands & unsure & teacher.answered)
    return Routed(np.asarray(predicted), np.asarray(stands), np.asarray(from_student), np.asarray(referred))


def prediction_sets(calibrated: Floats, quantile: float) -> Bools:
    """(visits, labels) whether a label is in the visit's prediction set, as `operating_point.prediction_set` says.

    `calibrated` (visits, labels) without NaN.
    """
    admitted = 1 - calibrated <= quantile + ROUNDING
    empty = ~admitted.any(axis=1)
    admitted[empty, calibrated[empty].argmax(axis=1)] = True
    return np.asarray(admitted)
