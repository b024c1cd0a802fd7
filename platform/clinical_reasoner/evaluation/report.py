"""The report: one self-contained HTML page and the same numbers as a dict for `metrics.json`.

Both are pure functions of `ReportInput`; whoever calls them writes the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinical_reasoner.evaluation.cascade_page import cascade_context
from clinical_reasoner.evaluation.cascade_summary import CascadeSummary
from clinical_reasoner.evaluation.cohort_plots import cohort_context, missing_text
from clinical_reasoner.evaluation.cohort_summary import CohortSummary
from clinical_reasoner.evaluation.metrics import Estimate, Key, ModelMetrics
from clinical_reasoner.evaluation.plots import bars_svg, confusion_svg, forest_svg
from clinical_reasoner.evaluation.selection_summary import PAPER_WORDS, TeacherSelection

RESEARCH_NOTICE = "Research use only. Not a medical device."
SYNTHETIC_NOTICE = "All patients in this report are synthetic. The numbers say nothing about real patients."
STAND_IN_NOTICE = "The models are small stand-ins made by this project; they know synthetic patients, not medicine."


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Claims(_Strict):
    """What one model's rationales say about the patients, compared with each patient's own findings."""

    name: str
    """Display name of the model."""
    rationales: int = Field(ge=0)
    supported: int = Field(ge=0)
    """Claims that the patient's findings state too."""
    contradicted: int = Field(ge=0)
    """Claims that the findings speak against."""
    not_in_evidence: int = Field(ge=0)
    """Claims about something that the findings do not mention."""

    @property
    def total(self) -> int:
        return self.supported + self.contradicted + self.not_in_evidence


class ExampleAnswer(_Strict):
    """One model's answer about an example patient."""

    model: str
    arm: str
    seed: int | None = None
    """Training seed of this one of several."""
    predicted: str | None
    """None where the answer could not be parsed."""
    probabilities: tuple[float, ...] | None = None
    """Probability of each label, in the order of the task's labels, 0..1."""
    rationale: str | None = None


class Example(_Strict):
    heading: str
    """Why this patient is shown; never an identifier."""
    description: str
    """What the models read, verbatim."""
    label: str
    answers: tuple[ExampleAnswer, ...]


class StageRows(_Strict):
    """Row counts of one stage of the run, from its manifest."""

    name: str
    rows_in: int = Field(ge=0)
    rows_out: int = Field(ge=0)
    rejected: int = Field(ge=0)


class ReportInput(_Strict):
    """All that the report says. Raises ValueError if a model has no display name or sizes do not fit the labels."""

    title: str
    task_title: str
    labels: tuple[str, ...] = Field(min_length=2)
    """Label names in the task's order."""
    synthetic: bool
    """True: the patients are made up; the page says so wherever it shows a number."""
    stand_ins: bool
    """True: teacher or student base is a reference model; the page says so wherever it shows a number."""
    cohort: CohortSummary | None = None
    """Whom the report is about; the page opens with it."""
    metrics: tuple[ModelMetrics, ...] = Field(min_length=1)
    names: dict[Key, str]
    """Display name of each (model, arm)."""
    trained_on: dict[Key, int] = {}
    """Visits on which a model was trained; no entry for one that was not trained here."""
    ceiling: float | None = Field(default=None, ge=0, le=1)
    """Accuracy of the best possible rule, where the cohort's own model is known."""
    ceiling_note: str = ""
    """How the ceiling was computed."""
    differences: tuple[tuple[str, Estimate], ...] = ()
    """Title ("first minus second") and paired difference in accuracy, -1..1."""
    cascade: CascadeSummary | None = None
    """The endpoint's cascade on the test split."""
    no_cascade: str = ""
    """Why there is none, a sentence; without one the page has no such section."""
    claims: tuple[Claims, ...] = ()
    selection: tuple[TeacherSelection, ...] = ()
    """What became of the answers of each teacher."""
    examples: tuple[Example, ...] = ()
    config_yaml: str
    versions: dict[str, str]
    stages: tuple[StageRows, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> ReportInput:
        keys = [(one.model, one.arm) for one in self.metrics]
        answers = [answer for example in self.examples for answer in example.answers]
        nameless = sorted({*keys, *((answer.model, answer.arm) for answer in answers)} - set(self.names))
        if nameless:
            raise ValueError(f"names: no display name for (model, arm) {nameless}")
        size = len(self.labels)
        for one in self.metrics:
            if len(one.confusion) != size or any(len(row) != size + 1 for row in one.confusion):
                raise ValueError(f"metrics: the confusion matrix of {one.model!r} is not {size} x {size + 1}")
        if any(answer.probabilities is not None and len(answer.probabilities) != size for answer in answers):
            raise ValueError(f"examples: an answer has not {size} probabilities, one for each label")
        return self

    def name(self, one: ModelMetrics | ExampleAnswer) -> str:
        """Display name of the model behind a row of metrics or an answer."""
        return self.names[(one.model, one.arm)]


def verdict(difference: Estimate) -> str:
    """One plain sentence: does the 95 % interval of "first minus second" include zero?"""
    if difference.low <= 0 <= difference.high:
        return "The interval includes zero: these data do not show which one is more accurate."
    if difference.low > 0:
        return "The interval lies above zero: the first one is more accurate here."
    return "The interval lies below zero: the first one is less accurate here."


def caveats(report: ReportInput) -> list[str]:
    """What a reader must know before any number."""
    return [SYNTHETIC_NOTICE] * report.synthetic + [STAND_IN_NOTICE] * report.stand_ins


def render_report(report: ReportInput) -> str:
    """The page as HTML text. Everything is inside it: no script, no request to any other file."""
    template = page_environment().get_template("report.html.j2")
    return template.render(
        report=report,
        research_notice=RESEARCH_NOTICE,
        caveats=caveats(report),
        short_note=short_note(report.synthetic, report.stand_ins),
        verdict=verdict,
        forests=_forests(report),
        confusions=_confusions(report),
        selections=_selections(report),
        paper_words=PAPER_WORDS,
        **cohort_context(report.cohort),
        **cascade_context(report.cascade, report.no_cascade),
    )


def page_environment() -> Environment:
    """The templates, with every text escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "estimate": _estimate,
        "difference": _difference,
        "percent": _percent,
        "w": _w_score,
        "missing": missing_text,
    }
    return environment


def short_note(synthetic: bool, stand_ins: bool) -> str:
    """What stands beside every number."""
    return " ".join(["Synthetic patients."] * synthetic + ["Small stand-in models."] * stand_ins)


def metrics_json(report: ReportInput) -> dict[str, Any]:
    """The numbers of the report, ready for `json.dumps`; holds no text about any patient."""
    return {
        "title": report.title,
        "task": report.task_title,
        "notice": RESEARCH_NOTICE,
        "synthetic": report.synthetic,
        "stand_ins": report.stand_ins,
        "caveats": caveats(report),
        "labels": list(report.labels),
        "cohort": None if report.cohort is None else report.cohort.model_dump(mode="json", exclude={"example"}),
        "models": [
            {
                "name": report.name(one),
                "trained_on": report.trained_on.get((one.model, one.arm)),
                **one.model_dump(mode="json"),
            }
            for one in report.metrics
        ],
        "ceiling": None if report.ceiling is None else {"accuracy": report.ceiling, "note": report.ceiling_note},
        "differences": [
            {"title": title, **one.model_dump(mode="json"), "includes_zero": one.low <= 0 <= one.high}
            for title, one in report.differences
        ],
        "cascade": None if report.cascade is None else report.cascade.model_dump(mode="json"),
        "no_cascade": report.no_cascade,
        "claims": [one.model_dump(mode="json") for one in report.claims],
        "selection": [one.model_dump(mode="json", exclude={"examples"}) for one in report.selection],
        "versions": dict(report.versions),
        "stages": [one.model_dump(mode="json") for one in report.stages],
    }


def _forests(report: ReportInput) -> list[Markup]:
    # The ceiling bounds accuracy only: the rule that is best for accuracy need not be best for macro-F1.
    accuracy = [(report.name(one), one.accuracy) for one in report.metrics]
    macro_f1 = [(report.name(one), one.macro_f1) for one in report.metrics]
    return [
        Markup(forest_svg(accuracy, "Accuracy", prefix="accuracy", ceiling=report.ceiling)),
        Markup(forest_svg(macro_f1, "Macro-F1", prefix="macro-f1")),
    ]


def _confusions(report: ReportInput) -> list[tuple[str, Markup]]:
    named = [(report.name(one), one.confusion) for one in report.metrics]
    return [
        (name, Markup(confusion_svg(confusion, report.labels, name, prefix=f"confusion-{place}")))
        for place, (name, confusion) in enumerate(named)
    ]


def _selections(report: ReportInput) -> list[tuple[TeacherSelection, Markup | None]]:
    """Each teacher with the figure of its reject reasons, where it has any."""
    found: list[tuple[TeacherSelection, Markup | None]] = []
    for place, one in enumerate(report.selection):
        bars = [
            (reason.reason, f"{reason.rows} ({_percent(reason.rows, one.asked)})", reason.rows / one.asked)
            for reason in one.reasons
        ]
        prefix = f"reasons-{place}"
        figure = Markup(bars_svg(bars, "Reject reasons, answers and share", prefix=prefix)) if bars else None
        found.append((one, figure))
    return found


def _number(value: float) -> str:
    return f"{value:.3f}"


def _estimate(one: Estimate) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _difference(one: Estimate) -> str:
    return f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]".replace("-", "\N{MINUS SIGN}")


def _w_score(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "no claims"
