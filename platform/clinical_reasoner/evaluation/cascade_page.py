"""The cascade's section of the report: where its numbers come from, its sentences and its figure."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from scipy.stats import betabinom

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evaluation.cascade_sets import Sets
from clinical_reasoner.evaluation.cascade_summary import CascadeSummary, Curve, Spending, summarise_cascade
from clinical_reasoner.evaluation.metrics import Estimate
from clinical_reasoner.evaluation.operating import conformal_rank
from clinical_reasoner.evaluation.operating_stage import OPERATING_STAGE
from clinical_reasoner.evaluation.plots import BLUE, PALE, VERMILLION, inline_svg
from clinical_reasoner.evaluation.tiers import read_tiers
from clinical_reasoner.operating_point import OPERATING_POINT_FILE, read_operating_point
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask


def run_cascade(config: PipelineConfig, run: RunFolder, task: DiagnosisTask) -> CascadeSummary | str:
    """Of the test split of a run, with its operating point; or why there is nothing to say."""
    manifest = run.manifest(OPERATING_STAGE)
    if manifest is None:
        return "No operating point was made in this run."
    if not run.exists(OPERATING_POINT_FILE):
        return f"There is no operating point: {manifest.details.get('why_none', 'its file is gone')}."
    point = read_operating_point(run.read_bytes(OPERATING_POINT_FILE), run.child(OPERATING_POINT_FILE))
    tiers = read_tiers(config, run, "test", task.label_names)
    if not len(tiers.truth):
        return "Neither student nor teacher was asked about the test split."
    settings = config.evaluation
    return summarise_cascade(
        tiers,
        point,
        config.teacher.endpoint,
        refer_below=point.refers_below(config.serving.threshold),
        resamples=settings.resamples,
        seed=settings.seed,
    )


def cascade_context(cascade: CascadeSummary | None, why_none: str) -> dict[str, Any]:
    """What the template of the section needs, beside the notes that stand on every page."""
    if cascade is None:
        return {"cascade": None, "no_cascade": why_none}
    return {
        "cascade": cascade,
        "no_cascade": "",
        "cascade_verdict": cascade_verdict(cascade.difference) if cascade.difference else cascade.missing,
        "coverage_verdict": coverage_verdict,
        "saved": saved(cascade.spending) if cascade.spending else "",
        "curve_svg": Markup(curve_svg(cascade.curve, prefix="risk-coverage")),
    }


def cascade_verdict(difference: Estimate) -> str:
    """One plain sentence about macro-F1 of the cascade minus the teacher's."""
    if difference.low <= 0 <= difference.high:
        return "The interval includes zero: these data do not show that cascade and teacher differ in macro-F1."
    if difference.low > 0:
        return "The interval lies above zero: the cascade has the higher macro-F1 here."
    return "The interval lies below zero: the cascade is worse than the teacher alone here."


def coverage_verdict(sets: Sets, nominal: float) -> str:
    """One plain sentence: is the empirical coverage one that sets with the nominal coverage may well have?

    The bootstrap's interval holds the quantile fixed, so that it alone says too much: with another validation split the
    quantile is another one. Only a coverage outside `usual_coverage`, whose interval leaves out the nominal coverage
    as well, is said to differ.
    """
    if sets.coverage is None or not sets.calibrated_on:
        return "no sets: too few visits of the validation split for this coverage, or no probabilities"
    calibrated_on = min(sets.calibrated_on)
    low, high = usual_coverage(calibrated_on, sets.n, nominal)
    usual = (
        f"calibrated on {calibrated_on} visits and tried on {sets.n}, sets that keep their promise cover "
        f"{low:.3f} to {high:.3f} in 95 % of cases"
    )
    found = sets.coverage
    if low <= found.value <= high or found.low <= nominal <= found.high:
        return f"not shown to differ from the nominal coverage: {usual}"
    if found.value > high:
        return f"more than the nominal coverage, sets are larger than they need be: {usual}"
    return f"less than the nominal coverage, these sets promise too much: {usual}"


def usual_coverage(calibrated_on: int, tried_on: int, nominal: float) -> tuple[float, float]:
    """Middle 95 % of the share of `tried_on` new visits whose set holds the true label, each 0..1.

    With n calibration visits the coverage of split conformal sets is Beta(k, n + 1 - k), k = ceil((n + 1) nominal), and
    what is counted on new visits is binomial with that: Vovk 2012, arXiv:1209.2673. Visits count as independent.
    """
    k = conformal_rank(calibrated_on, nominal)
    counted = betabinom(tried_on, k, calibrated_on + 1 - k)
    return float(counted.ppf(0.025)) / tried_on, float(counted.ppf(0.975)) / tried_on


def saved(spending: Spending) -> str:
    """What the cascade saves, in words; or costs more, where it does."""
    alone, cascade = spending.teacher_alone, spending.teacher_in_cascade
    share = f" ({100 * (alone - cascade) / alone:.1f} %)" if alone else ""
    words = (
        f"Of the {alone} tokens that the teacher takes alone, the cascade saves {alone - cascade}{share}, and the "
        f"student takes {spending.student}."
    )
    if spending.cost_alone is None or spending.cost_in_cascade is None:
        return words
    return (
        f"{words} At the prices of teacher.endpoint the teacher costs {spending.cost_alone:.4g} alone and "
        f"{spending.cost_in_cascade:.4g} in the cascade; what the student's engine costs is not in that."
    )


def curve_svg(curve: Curve, *, prefix: str) -> str:
    """Selective risk against coverage, the standing answers of the operating point marked.

    `prefix` must differ between figures of one page.
    """
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.step(curve.coverage, curve.risk, where="mid", color=BLUE, linewidth=2)
    axes.axhline(curve.risk[-1], color=PALE, linewidth=1.5, zorder=1)
    spoken = f"Risk {curve.risk[-1]:.3f} at coverage 1, area {curve.area.value:.3f}"
    if curve.standing_risk is not None:
        axes.plot([curve.standing], [curve.standing_risk.value], marker="D", markersize=8, color=VERMILLION)
        spoken += f"; operating point: risk {curve.standing_risk.value:.3f} at coverage {curve.standing:.3f}"
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, max(0.05, 1.1 * max(curve.risk)))
    axes.set_xlabel("coverage: share of answers, the most confident first", fontsize=9)
    axes.set_ylabel("risk: share of them that is wrong", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(color=PALE)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return inline_svg(figure, prefix, f"Risk and coverage of the student. {spoken}")
