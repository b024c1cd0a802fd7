"""Figures of a cohort as SVG text: what is missing, and w-scores by diagnosis. Spoken labels have the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from clinical_reasoner.evaluation.cohort_findings import Distribution, Missing, WScores
from clinical_reasoner.evaluation.cohort_summary import CohortSummary
from clinical_reasoner.evaluation.plots import BLUE, GREY, INK, LETTER, PALE, WIDTH, bars_svg, inline_svg


def cohort_context(cohort: CohortSummary | None) -> dict[str, Any]:
    """What the template of the cohort's section needs, beside the notes that stand on every page."""
    if cohort is None:
        return {"cohort": None}
    tables = (
        ("Patient fields", cohort.missing_fields, cohort.visits),
        ("Findings", cohort.missing_findings, cohort.described),
    )
    limits = w_score_limits(cohort.w_scores)
    letters = max((len(_name(entry)) for one in cohort.w_scores for entry in one.by_label), default=0)
    return {
        "cohort": cohort,
        "missing": [
            (what, visits, rows, Markup(missing_svg(rows, what.lower(), prefix=f"missing-{place}")))
            for place, (what, rows, visits) in enumerate(tables)
            if rows
        ],
        "w_score_figures": [
            (one.title, Markup(w_scores_svg(one, limits, letters, prefix=f"w-scores-{place}")))
            for place, one in enumerate(cohort.w_scores)
        ],
    }


def missing_svg(rows: Sequence[Missing], what: str, *, prefix: str) -> str:
    """One bar for each field or finding: the share of visits without it, 0 to 100 %, with name and numbers above.

    `prefix` must differ between figures of one page.
    """
    bars = [(one.title, missing_text(one), one.share) for one in rows]
    return bars_svg(bars, f"Missing {what}, visits and share", prefix=prefix)


def missing_text(one: Missing) -> str:
    """Visits and share, as `12 (6.0 %)`."""
    return f"{one.missing} ({100 * one.share:.1f} %)"


def w_scores_svg(one: WScores, limits: tuple[float, float], letters: int, *, prefix: str) -> str:
    """One box for each label, top to bottom: quartiles and median, whiskers from the 5 % to the 95 % quantile.

    `limits` of the axis and `letters` of the longest name are those of all findings, so that figures can be compared.
    The dashed line is 0, the mean of controls of the same age, sex and ICV. `prefix` must differ between the figures of
    a page.
    """
    names = [_name(entry) for entry in one.by_label]
    height = 0.28 * len(names) + 0.45
    figure = Figure(figsize=(WIDTH, height))
    left = (LETTER * letters + 0.1) / WIDTH
    axes = figure.add_axes((left, 0.42 / height, 0.97 - left, 1 - 0.45 / height))
    axes.set_xlim(*limits)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.axvline(0, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for place, entry in enumerate(one.by_label):
        _box(axes, place, entry)
    axes.set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
    axes.set_xlabel("w-score", fontsize=9, color=GREY, labelpad=1)
    axes.tick_params(axis="x", labelsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE)
    axes.set_axisbelow(True)
    axes.spines[["top", "left", "right"]].set_visible(False)
    spoken = "; ".join(_spoken(entry) for entry in one.by_label)
    return inline_svg(figure, prefix, f"w-scores of {one.title} by diagnosis: {spoken}")


def w_score_limits(findings: Sequence[WScores]) -> tuple[float, float]:
    """Limits of an axis that holds all boxes and 0."""
    ends = [end for one in findings for entry in one.by_label for end in (entry.quantiles or ())]
    low, high = min([*ends, 0.0]), max([*ends, 0.0])
    margin = max(0.04 * (high - low), 0.1)
    return low - margin, high + margin


def _name(entry: Distribution) -> str:
    return f"{entry.label}, n {entry.visits}"


def _box(axes: Axes, place: int, entry: Distribution) -> None:
    if entry.quantiles is None:
        return
    low, lower, middle, upper, high = entry.quantiles
    axes.plot([low, high], [place, place], color=BLUE, linewidth=1.5, solid_capstyle="butt", zorder=2)
    box = Rectangle((lower, place - 0.28), upper - lower, 0.56, facecolor="#cfe3f1", edgecolor=BLUE, linewidth=1.2)
    box.set_zorder(3)
    axes.add_patch(box)
    axes.plot([middle, middle], [place - 0.28, place + 0.28], color=INK, linewidth=2, solid_capstyle="butt", zorder=4)


def _spoken(entry: Distribution) -> str:
    if entry.quantiles is None:
        return f"{entry.label}, {entry.visits} visits, not shown"
    low, lower, middle, upper, high = (f"{value:.2f}" for value in entry.quantiles)
    numbers = f"median {middle}, quartiles {lower} and {upper}, 5 % quantile {low}, 95 % quantile {high}"
    return f"{entry.label}, {entry.visits} visits, {numbers}"
