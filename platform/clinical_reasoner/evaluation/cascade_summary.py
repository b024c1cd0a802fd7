"""Numbers of the cascade for the report: what it does on the test split with the run's operating point."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from clinical_reasoner.config.teacher import EndpointConfig
from clinical_reasoner.evaluation.cascade import Bools, Routed, TierAnswers, route_visits
from clinical_reasoner.evaluation.cascade_draws import Approach, Draws
from clinical_reasoner.evaluation.cascade_sets import Sets, cascade_sets, own_sets
from clinical_reasoner.evaluation.resampling import Estimate, Floats, estimate, subject_weights
from clinical_reasoner.evaluation.risk_coverage import areas, risk_coverage
from clinical_reasoner.evaluation.tiers import Tiers
from clinical_reasoner.operating_point import OperatingPoint

CURVE_POINTS = 200
"""Most points of a curve that are kept."""
NOT_ASKED = "The teacher was not asked about the test split as the endpoint asks it: there is nothing to compare with."


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Curve(_Strict):
    """Risk and coverage of the student by its calibrated confidence."""

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: Estimate
    """AURC, 0..1, lower is better."""
    standing: float
    """Share of the visits whose answer stands at the operating point."""
    standing_risk: Estimate | None
    """Share of these that are wrong; None where none stands."""


class Spending(_Strict):
    """Tokens of prompts and answers for all visits together."""

    teacher_alone: int = Field(ge=0)
    teacher_in_cascade: int = Field(ge=0)
    student: int = Field(ge=0)
    """The student is asked about every visit; its tokens are those of a smaller model."""
    cost_alone: float | None = None
    """At the teacher's prices, in their currency; None where these are not known."""
    cost_in_cascade: float | None = None
    """Of the teacher; the student's tokens have no price."""


class CascadeSummary(_Strict):
    version: str
    """Of the operating point."""
    target: str
    note: str
    threshold: float
    refer_below: float
    nominal: float
    """Coverage that the prediction sets are made for."""
    n: int = Field(ge=1)
    n_subjects: int = Field(ge=1)
    without_student: int = Field(ge=0)
    """Visits about which the student has no probabilities: the teacher is asked about each."""
    approaches: tuple[Approach, ...]
    """Student alone; with answers of the teacher also the teacher alone, and the cascade."""
    difference: Estimate | None = None
    """Macro-F1 of the cascade minus that of the teacher alone, the same people drawn for both."""
    to_teacher: Estimate
    """Share of the visits that reach the teacher."""
    referred: Estimate | None = None
    """Share of the visits about which the answer says to refer to a clinician."""
    wrong_referred: Estimate | None = None
    """Share of these whose diagnosis is wrong."""
    sets: tuple[Sets, ...] = ()
    curve: Curve
    spending: Spending | None = None
    missing: str = ""
    """Why there is no teacher alone and no cascade."""


def summarise_cascade(
    tiers: Tiers,
    point: OperatingPoint,
    prices: EndpointConfig,
    *,
    refer_below: float,
    resamples: int,
    seed: int,
) -> CascadeSummary:
    """From the test split, with at least one visit. All intervals come from the same draws of people.

    `refer_below` as `point.refers_below` gives it.
    """
    draws = Draws(tiers, subject_weights(int(tiers.subject.max()) + 1, resamples, seed))
    student = tiers.student
    confidence = student.confidence(point.student.temperature)
    alone = CascadeSummary(
        version=point.version,
        target=point.target,
        note=point.note,
        threshold=point.threshold,
        refer_below=refer_below,
        nominal=point.coverage,
        n=len(tiers.truth),
        n_subjects=draws.weights.shape[1],
        without_student=int(np.isinf(confidence).sum()),
        approaches=(draws.approach("Student alone", student.predicted),),
        to_teacher=draws.share(confidence < point.threshold),
        sets=(own_sets("Student alone", draws, student, point.student),),
        curve=_curve(draws, confidence, student.predicted != tiers.truth, point.threshold),
        missing=NOT_ASKED,
    )
    return alone if tiers.teacher is None else _with_teacher(alone, draws, confidence, tiers.teacher, point, prices)


def _with_teacher(
    alone: CascadeSummary,
    draws: Draws,
    confidence: Floats,
    teacher: TierAnswers,
    point: OperatingPoint,
    prices: EndpointConfig,
) -> CascadeSummary:
    tiers = draws.tiers
    temperature = point.teacher.temperature if point.teacher else 1.0
    sure = teacher.confidence(temperature)
    routed = route_visits(tiers.student, confidence, teacher, sure, point.threshold, alone.refer_below)
    sets = [*alone.sets]
    if point.teacher is not None:
        sets.append(own_sets("Teacher alone", draws, teacher, point.teacher))
        sets.append(cascade_sets(draws, routed, teacher, point))
    named = {"Teacher alone": teacher.predicted, "Cascade": routed.predicted}
    return alone.model_copy(
        update={
            "approaches": (*alone.approaches, *(draws.approach(name, said) for name, said in named.items())),
            "difference": estimate(draws.macro_f1(routed.predicted) - draws.macro_f1(teacher.predicted)),
            "referred": draws.share(routed.referred),
            "wrong_referred": draws.mean((routed.predicted != tiers.truth).astype(np.float64), routed.referred),
            "sets": tuple(sets),
            "spending": _spending(tiers, routed, prices),
            "missing": "",
        }
    )


def _curve(draws: Draws, confidence: Floats, wrong: Bools, threshold: float) -> Curve:
    coverage, risk = risk_coverage(confidence, wrong)
    shown = np.unique(np.linspace(0, len(coverage) - 1, CURVE_POINTS).round().astype(np.int64))
    stands = confidence >= threshold
    return Curve(
        coverage=tuple(coverage[shown].tolist()),
        risk=tuple(risk[shown].tolist()),
        area=estimate(areas(confidence, wrong, draws.weights[:, draws.tiers.subject])),
        standing=float(stands.mean()),
        standing_risk=draws.mean(wrong.astype(np.float64), stands),
    )


def _spending(tiers: Tiers, routed: Routed, prices: EndpointConfig) -> Spending:
    alone, cascade = tiers.teacher_tokens.sum(axis=0), tiers.teacher_tokens[~routed.stands].sum(axis=0)
    known = prices.prompt_price is not None or prices.output_price is not None
    price = np.array([prices.prompt_price or 0, prices.output_price or 0]) / 1e6
    return Spending(
        teacher_alone=int(alone.sum()),
        teacher_in_cascade=int(cascade.sum()),
        student=int(tiers.student_tokens.sum()),
        cost_alone=float(alone @ price) if known else None,
        cost_in_cascade=float(cascade @ price) if known else None,
    )
