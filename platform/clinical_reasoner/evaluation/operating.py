"""Fit the operating point of the endpoint: temperatures, conformal quantiles, and the thresholds of the cascade.

Everything is fitted on the visits that are handed in, those of the validation split. Temperature and quantile of a
model come from the same visits: split conformal prediction asks for scores that were fitted elsewhere, but a
temperature is one number for all visits, and moves the coverage by less than the visits that a split would cost. The
coverage is that over all visits of a model, not over those that the cascade leaves to it. Where the student's epoch was
chosen on these visits too, it looks a little better on them than on others. All choices are by the point estimate: with
few visits the report's test split may show another side of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.stats import beta

from clinical_reasoner.config.evaluation import OperatingConfig
from clinical_reasoner.distillation.calibration import fit_calibration
from clinical_reasoner.evaluation.cascade import Bools, TierAnswers, route_visits
from clinical_reasoner.evaluation.metrics import confusions, macro_f1s
from clinical_reasoner.evaluation.resampling import Floats, Ints
from clinical_reasoner.evaluation.tiers import Tiers
from clinical_reasoner.operating_point import ALWAYS_TEACHER, OperatingPoint, Tier

FEWEST_VISITS = 20
"""Visits of which an error rate, and with it a threshold, is read off."""


@dataclass(frozen=True)
class Names:
    """What the operating point says of the models."""

    task: str
    labels: tuple[str, ...]
    prompt_version: str
    student: str
    student_ask: str
    teacher: str
    teacher_ask: str


@dataclass(frozen=True)
class Threshold:
    value: float
    target: str
    """What it was chosen for, and what it does on the visits that it was chosen on."""


def fit_operating_point(tiers: Tiers, names: Names, settings: OperatingConfig, note: str = "") -> OperatingPoint:
    """From the validation split. Raises ValueError with the reason where the student cannot be calibrated."""
    notes = [note] if note else []
    student = fit_tier(tiers.student, tiers.truth, names.student, names.student_ask, settings.coverage)
    teacher: Tier | None = None
    if tiers.teacher is None:
        notes.append(f"The teacher was not asked {names.teacher_ask!r} about the validation split.")
    else:
        try:
            teacher = fit_tier(tiers.teacher, tiers.truth, names.teacher, names.teacher_ask, settings.coverage)
        except ValueError as error:
            notes.append(f"The teacher's probabilities are not calibrated: {error}.")
    people = len(np.unique(tiers.subject))
    if people < len(tiers.truth):
        notes.append(
            f"The {len(tiers.truth)} visits of the validation split are of {people} people and count as independent "
            "in the prediction sets: their coverage is less certain than so many visits make it look."
        )
    confidence = tiers.student.confidence(student.temperature)
    threshold = choose_threshold(tiers, confidence, settings)
    refer_below = 0.0
    if teacher is not None and tiers.teacher is not None:
        handed_over = confidence < threshold.value
        unsure = tiers.teacher.confidence(teacher.temperature)
        refer_below = refer_threshold(unsure, tiers.teacher.predicted == tiers.truth, handed_over)
    return OperatingPoint(
        task=names.task,
        labels=names.labels,
        prompt_version=names.prompt_version,
        student=student,
        teacher=teacher,
        threshold=threshold.value,
        refer_below=refer_below,
        coverage=settings.coverage,
        target=threshold.target,
        note=" ".join(notes),
    )


def fit_tier(answers: TierAnswers, truth: Ints, model: str, ask: str, coverage: float) -> Tier:
    """Temperature and conformal quantile of one model, from its visits with a diagnosis and probabilities.

    Raises ValueError for fewer than two of these, or of fewer than two diagnoses.
    """
    given = answers.has_probabilities & answers.answered
    probabilities = answers.probabilities[given]
    temperature = fit_calibration(probabilities.tolist(), truth[given].tolist()).temperature
    calibrated = answers.calibrated(temperature)[given]
    scores = 1 - calibrated[np.arange(len(calibrated)), truth[given]]
    quantile = conformal_quantile(scores, coverage)
    return Tier(model=model, ask=ask, temperature=temperature, quantile=quantile, visits=len(scores))


def conformal_quantile(scores: Floats, coverage: float) -> float | None:
    """The k-th smallest of n scores (n,), k = ceil((n + 1) coverage); None where k is above n: too few visits.

    A new visit's score is at most this with a chance of at least `coverage`: Vovk et al. 2005, doi:10.1007/b106715.
    """
    k = conformal_rank(len(scores), coverage)
    return float(np.clip(np.sort(scores)[k - 1], 0, 1)) if k <= len(scores) else None


def conformal_rank(visits: int, coverage: float) -> int:
    """k of `conformal_quantile`."""
    return ceil((visits + 1) * coverage - 1e-9)  # 100 * 0.55 is 55.00000000000001


def choose_threshold(tiers: Tiers, confidence: Floats, settings: OperatingConfig) -> Threshold:
    """As `settings.target` says. Without answers of the teacher `cost` has nothing to compare with: then as `error`."""
    if settings.target == "cost" and tiers.teacher is not None:
        return cost_threshold(tiers.truth, tiers.student, tiers.teacher, confidence, settings.max_teacher_share)
    found = error_threshold(confidence, tiers.student.predicted == tiers.truth, settings.max_error)
    if settings.target == "error":
        return found
    return Threshold(found.value, f"{found.target}; target cost needs the teacher's answers about these visits")


def cost_threshold(
    truth: Ints, student: TierAnswers, teacher: TierAnswers, confidence: Floats, max_teacher_share: float
) -> Threshold:
    """The lowest threshold at which macro-F1 of the cascade is not below the teacher's, by the point estimate.

    Where none with at most `max_teacher_share` of the visits handed over does that, the one of them with the highest
    macro-F1, and of equals the lowest. All arrays are (visits, ...), `confidence` the student's, calibrated.
    """
    wanted = _macro_f1(truth, teacher.predicted, student.labels)
    tried: list[tuple[float, float, float]] = []
    for value in thresholds(confidence):
        routed = route_visits(student, confidence, teacher, np.full(len(truth), np.nan), value)
        share = float((~routed.stands).mean())
        if tried and share > max_teacher_share:
            break
        tried.append((_macro_f1(truth, routed.predicted, student.labels), -share, value))
        if tried[-1][0] >= wanted:
            break
    reached = tried[-1][0] >= wanted
    macro_f1, share, value = tried[-1] if reached else max(tried)
    goal = "cost: fewest requests to the teacher at which macro-F1 is not below the teacher's"
    if not reached:
        most = f"{100 * max_teacher_share:g} %"
        goal = f"cost: best macro-F1 with at most {most} of requests to the teacher, where the teacher's is not reached"
    return Threshold(
        value,
        f"{goal} (validation split, {len(truth)} visits: {macro_f1:.3f}, teacher {wanted:.3f}, "
        f"{100 * abs(share):.1f} % to the teacher)",
    )


def error_threshold(confidence: Floats, right: Bools, max_error: float) -> Threshold:
    """The lowest threshold at which at most `max_error` of the student's standing answers are wrong, by the point
    estimate; ALWAYS_TEACHER where there is none that leaves FEWEST_VISITS standing. `confidence` and `right` (visits,).

    The target says up to where the error may well be: upper bound of Clopper & Pearson 1934, doi:10.2307/2331986.
    """
    goal = f"error: at most {100 * max_error:g} % of the student's standing answers wrong"
    for value in thresholds(confidence)[:-1]:
        stands = confidence >= value
        standing, wrong = int(stands.sum()), int((~right[stands]).sum())
        if standing < FEWEST_VISITS:
            break
        if wrong / standing <= max_error:
            found = (
                f"{100 * wrong / standing:.1f} % of {standing} wrong, 95 % upper bound "
                f"{100 * error_bound(wrong, standing):.1f} %, {100 * float((~stands).mean()):.1f} % to the teacher"
            )
            return Threshold(value, f"{goal} (validation split, {len(right)} visits: {found})")
    nowhere = f"reached at no threshold with {FEWEST_VISITS} standing answers, the teacher is always asked"
    return Threshold(ALWAYS_TEACHER, f"{goal}; {nowhere}")


def error_bound(wrong: int, answers: int) -> float:
    """Upper end of the one-sided 95 % interval of Clopper and Pearson for the share of wrong answers, 0..1."""
    return 1.0 if wrong == answers else float(beta.ppf(0.95, wrong + 1, answers - wrong))


def refer_threshold(confidence: Floats, right: Bools, handed_over: Bools) -> float:
    """Confidence of the teacher below which the answer says to refer to a clinician.

    The highest one below which at least half of the teacher's answers about the visits that were handed over are wrong:
    to follow them would be no better than to toss a coin over whether they are right. At least FEWEST_VISITS visits
    must lie below; 0, which refers nobody, where there are not so many. Arrays are (visits,), `confidence` the
    teacher's, calibrated.
    """
    used = handed_over & np.isfinite(confidence)
    sure, wrong = confidence[used], ~right[used]
    for value in reversed([*thresholds(sure)[1:-1], 1.0]):
        below = sure < value
        if below.sum() >= FEWEST_VISITS and wrong[below].mean() >= 0.5:
            return value
    return 0.0


def thresholds(confidence: Floats) -> list[float]:
    """All that tell the visits apart, ascending: 0, the middles between neighbouring confidences, so that rounding
    decides nothing, and ALWAYS_TEACHER."""
    known = np.unique(confidence[np.isfinite(confidence)])
    return [0.0, *((known[:-1] + known[1:]) / 2).tolist(), ALWAYS_TEACHER]


def _macro_f1(truth: Ints, predicted: Ints, labels: int) -> float:
    nobody = np.zeros(len(truth), dtype=np.int64)
    return float(macro_f1s(confusions(truth, predicted, nobody, labels, np.ones((1, 1), dtype=np.int64)))[0])
