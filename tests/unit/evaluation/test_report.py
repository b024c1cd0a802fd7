"""The report page: complete, self-contained, honest about synthetic data, and safe with any text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from clinical_reasoner.evaluation.metrics import Estimate, ModelMetrics
from clinical_reasoner.evaluation.report import (
    RESEARCH_NOTICE,
    STAND_IN_NOTICE,
    SYNTHETIC_NOTICE,
    Claims,
    Example,
    ExampleAnswer,
    ReportInput,
    StageRows,
    metrics_json,
    render_report,
    verdict,
)
from clinical_reasoner.evaluation.selection_examples import Passage, RejectedExample, UnsupportedClaim
from clinical_reasoner.evaluation.selection_summary import (
    Agreement,
    AskRows,
    CoveredVisits,
    ReasonRows,
    TeacherSelection,
    Texts,
    WordCount,
)
from clinical_reasoner.task import load_task

VOID = {"meta", "link", "br", "img", "input", "hr"}
ARMS = [("teacher", "direct"), ("teacher", "few_shot"), ("student", "label_only"), ("student", "rationale_then_label")]
ARMS += [("vision", "label_only"), ("logistic", "baseline"), ("majority", "baseline")]
NAMES = {key: f"{key[0].title()} <{key[1]}> & co" for key in ARMS}
SMALL_NOTE = "Synthetic patients. Small stand-in models."
DESCRIPTION = (
    "The patient is 74 years old.\n\n  Brain MRI:\n<script>alert('x')</script> & \"quoted\" <img src=x onerror=y>"
)


class Page(HTMLParser):
    """Checks that tags close in order; gathers texts, attributes and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.captions: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "caption":
            self.captions.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if "caption" in self.open:
            self.captions[-1] += data

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def metrics_of(key: tuple[str, str], accuracy: float) -> ModelMetrics:
    few_shot = key[1] == "few_shot"
    return ModelMetrics(
        model=key[0],
        arm=key[1],
        n=20,
        n_subjects=18,
        unparsed=1,
        without_probabilities=20 if few_shot else 0,
        accuracy=Estimate(value=accuracy, low=accuracy - 0.1, high=accuracy + 0.08),
        macro_f1=Estimate(value=0.512, low=0.4, high=0.6),
        auroc=None if few_shot else Estimate(value=0.777, low=0.7, high=0.8),
        auroc_reason="no visit has probabilities" if few_shot else None,
        confusion=((5, 1, 0, 1), (2, 3, 1, 0), (0, 2, 5, 0)),
        resamples=2000,
        auroc_resamples=0 if few_shot else 1987,
    )


def report_of(**changes: Any) -> ReportInput:
    answers = [
        ExampleAnswer(model=m, arm=a, predicted="AD", probabilities=(0.7, 0.2, 0.1), rationale=f"Why {m} {a}: atrophy.")
        for m, a in ARMS[1:]
    ]
    answers.insert(0, ExampleAnswer(model="teacher", arm="direct", predicted=None))
    fields: dict[str, Any] = {
        "title": "A report",
        "task_title": load_task("configs/tasks/alzheimers.yaml").title,
        "labels": load_task("configs/tasks/alzheimers.yaml").label_names,
        "synthetic": True,
        "stand_ins": True,
        "metrics": tuple(metrics_of(key, 0.4 + 0.05 * place) for place, key in enumerate(ARMS)),
        "names": NAMES,
        "ceiling": 0.813,
        "ceiling_note": "Exact posterior of the generator.",
        "differences": (
            ("rationale minus label-only", Estimate(value=-0.2, low=-0.3, high=-0.1)),
            ("few-shot minus direct", Estimate(value=0.1, low=0.05, high=0.2)),
            ("student minus baseline", Estimate(value=0.0, low=-0.1, high=0.1)),
        ),
        "claims": (
            Claims(name="Wordy", rationales=10, supported=30, contradicted=9, not_in_evidence=1),
            Claims(name="Mute", rationales=10, supported=0, contradicted=0, not_in_evidence=0),
        ),
        "examples": (
            Example(heading="First patient", description=DESCRIPTION, label="AD", answers=tuple(answers)),
            Example(heading="Second patient", description="Short.", label="NC", answers=()),
        ),
        "config_yaml": "run:\n  path: runs/demo\n",
        "versions": {"torch": "9.8.7"},
        "stages": (StageRows(name="cohort", rows_in=1234, rows_out=1230, rejected=4),),
    }
    return ReportInput(**(fields | changes))


def selection_of(**changes: Any) -> TeacherSelection:
    reason = "claims: contradicts the evidence"
    passages = (Passage(text="Why <b>"), Passage(text="no atrophy", claims=(0,)))
    claims = (UnsupportedClaim(said="no atrophy", claim="No atrophy", evidence="Severe atrophy"),)
    known = {"reason": reason, "ask": "diagnose", "recorded": "AD", "told": False, "stated": "NC"}
    counts = {"parsed": 39, "accepted": 30, "rejected": 10, "selected": 8, "prompt_tokens": 4321, "output_tokens": 765}
    words, share = WordCount(mean=133.25, median=131, low=100, high=160), Estimate(value=0.125, low=0.111, high=0.137)
    texts = Texts(rationales=39, words=words, claims_per_rationale=7.5, unsupported=share)
    agreed = {"agreement": 0.876, "unanimous": 6, "majority_accuracy": 0.654, "single_accuracy": None}
    fields: dict[str, Any] = {
        "model": "A <teacher>",
        "asks": (AskRows(ask="diagnose", asked=40, **counts),),
        "visits": CoveredVisits(reasoned=5, hinted=3, none_selected=2),
        "reasons": (ReasonRows(reason=reason, rows=10, by_ask={"diagnose": 10}),),
        "parsed": texts,
        "selected": texts.model_copy(update={"rationales": 8, "unsupported": None}),
        "agreement": (Agreement(ask="diagnose", visits=10, **agreed),),
        "examples": (RejectedExample(**known, passages=passages, claims=claims),),
    }
    return TeacherSelection(**(fields | changes))


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(report_of())


def test_page_is_well_formed_and_accessible(page: str) -> None:
    parsed = Page(page)
    assert page.startswith("<!DOCTYPE html>")
    assert ("html", "lang", "en") in parsed.attributes
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    assert set(parsed.values("aria-labelledby")) <= set(ids)
    assert parsed.tags.count("caption") == parsed.tags.count("table") == 5
    assert parsed.tags.count("th") == len(parsed.values("scope"))
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img" and root.get("aria-label")
    assert parsed.tags.count("svg") == 2 + len(ARMS)


def test_svg_references_stay_inside_their_figure(page: str) -> None:
    ids = set(Page(page).values("id"))
    referred = re.findall(r"url\(#([^)]+)\)", page) + re.findall(r'href="#([^"]+)"', page)
    assert referred and set(referred) <= ids
    assert page.count("<style") == 1


def test_page_loads_nothing(page: str) -> None:
    parsed = Page(page)
    assert not {"script", "iframe", "img", "object", "embed", "base", "form"} & set(parsed.tags)
    for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
        assert [value for value in parsed.values(name) if not value.startswith(("#", "data:"))] == []
    style = re.findall(r"<style.*?</style>", page, flags=re.DOTALL)[0]
    assert "url(" not in style and "@import" not in style
    addresses = set(re.findall(r'https?://[^"\s<]+', page))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names of XML, never fetched


def test_text_of_patients_is_escaped_and_verbatim(page: str) -> None:
    assert "<script" not in page and "<img" not in page
    assert DESCRIPTION in Page(page).text
    assert ".description { white-space: pre-wrap" in page


@settings(max_examples=15, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=60))
def test_any_text_survives(text: str) -> None:
    key = ARMS[0]
    answer = ExampleAnswer(model=key[0], arm=key[1], predicted="AD", rationale=text)
    report = report_of(
        title=text,
        metrics=(metrics_of(key, 0.5),),
        names={key: text},
        examples=(Example(heading=text, description=text, label="AD", answers=(answer,)),),
        config_yaml=text,
    )
    parsed = Page(render_report(report))
    assert parsed.text.count(text) >= 5
    assert f"Confusion matrix of {text}." in " ".join(parsed.values("aria-label"))


def test_every_model_example_and_number_appears(page: str) -> None:
    parsed = Page(page)
    for place, (key, name) in enumerate(NAMES.items()):
        accuracy = 0.4 + 0.05 * place
        assert parsed.text.count(name) >= 3  # table, forest plot, confusion matrix
        assert f"{accuracy:.3f} [{accuracy - 0.1:.3f}, {accuracy + 0.08:.3f}]" in parsed.text
        if key != ARMS[0]:
            assert f"Why {key[0]} {key[1]}: atrophy." in parsed.text
    for expected in (
        "First patient",
        "Second patient",
        "unparsed (counts as an error)",
        "Exact posterior of the generator.",
    ):
        assert expected in re.sub(r"\s+", " ", parsed.text)
    for expected in ("75.0 %", "22.5 %", "2.5 %", "no claims", "1234", "1230", "9.8.7", "runs/demo", "0.813"):
        assert expected in parsed.text
    assert "width: 70.0%" in parsed.values("style")


def test_training_seeds_are_counted_and_explained_where_there_are_several(page: str) -> None:
    assert page.count('data-label="Seeds">1<') == len(ARMS) and "training seeds" not in Page(page).text
    several = tuple(
        one.model_copy(update={"seeds": 3, "without_probabilities": 2}) if one.arm == "label_only" else one
        for one in report_of().metrics
    )
    answer = ExampleAnswer(model="student", arm="label_only", seed=7, predicted="AD")
    example = Example(heading="h", description="d", label="AD", answers=(answer,))
    text = re.sub(r"\s+", " ", Page(render_report(report_of(metrics=several, examples=(example,)))).text)
    for words in (
        "of a model with several training seeds these are drawn too",
        "chance in the choice of these people and in training",
        "the answers of all seeds added up",
        "2 of 60 answers without probabilities",
        "(training seed 7)",
    ):
        assert words in text
    assert [one["seeds"] for one in metrics_json(report_of(metrics=several))["models"]] == [1, 1, 3, 1, 3, 1, 1]


def test_a_model_with_fewer_visits_is_pointed_out(page: str) -> None:
    words = "A model with fewer visits can answer about these alone"
    first, *others = report_of().metrics
    fewer = render_report(report_of(metrics=(first.model_copy(update={"n": 12}), *others)))
    assert words not in re.sub(r"\s+", " ", page) and words in re.sub(r"\s+", " ", fewer)
    assert "answered about the same 20 visits" in re.sub(r"\s+", " ", fewer)


def test_missing_auroc_shows_its_reason_and_left_out_resamples_show(page: str) -> None:
    text = Page(page).text
    assert text.count("none: no visit has probabilities") == 1
    assert text.count("interval from 1987 resamples") == len(ARMS) - 1


def test_synthetic_is_said_wherever_numbers_are_and_only_if_true(page: str) -> None:
    parsed = Page(page)
    assert parsed.text.index(SYNTHETIC_NOTICE) < parsed.text.index("Comparison of models")
    assert [SMALL_NOTE in caption for caption in parsed.captions] == [True, True, True, True, False]  # last: versions
    assert len(re.findall(rf"<figcaption>(Accuracy|Macro-F1).*{SMALL_NOTE}", page)) == 2
    real = render_report(report_of(synthetic=False, stand_ins=False))
    assert RESEARCH_NOTICE in parsed.text and RESEARCH_NOTICE in Page(real).text
    assert "ynthetic patient" not in Page(real).text and SYNTHETIC_NOTICE not in real


def test_verdict_says_where_rationales_lose() -> None:
    assert "less accurate" in verdict(Estimate(value=-0.2, low=-0.3, high=-0.1))
    assert "the first one is more accurate" in verdict(Estimate(value=0.2, low=0.1, high=0.3))
    for low, high in ((-0.1, 0.1), (0.0, 0.1), (-0.1, 0.0)):
        assert "includes zero" in verdict(Estimate(value=0.0, low=low, high=high))


def test_differences_carry_their_sign_and_sentence(page: str) -> None:
    rows = re.findall(r'<tr><th scope="row">([^<]*minus[^<]*)</th><td[^>]*>(.*?)</td><td>(.*?)</td>', page)
    assert [(title, number) for title, number, _ in rows] == [
        ("rationale minus label-only", "−0.200 [−0.300, −0.100]"),
        ("few-shot minus direct", "+0.100 [+0.050, +0.200]"),
        ("student minus baseline", "+0.000 [−0.100, +0.100]"),
    ]
    assert [sentence.split(":")[0] for *_, sentence in rows] == [
        "The interval lies below zero",
        "The interval lies above zero",
        "The interval includes zero",
    ]


def test_without_ceiling_claims_differences_or_examples_their_places_are_gone() -> None:
    text = Page(render_report(report_of(ceiling=None, ceiling_note="", claims=(), differences=(), examples=()))).text
    for absent in ("Bayes ceiling", "What the rationales claim", "Paired differences", "Example patients"):
        assert absent not in text
    assert "Confusion matrices" in text


def test_selection_of_two_teachers_is_a_part_of_the_page() -> None:
    second = selection_of(model="Another", reasons=(), examples=(), parsed=None, selected=None, agreement=())
    page = render_report(report_of(selection=(selection_of(), second)))
    parsed = Page(page)
    ids = parsed.values("id")
    assert len(ids) == len(set(ids)) and set(parsed.values("aria-labelledby")) <= set(ids)
    regions = [label for label in parsed.values("aria-label") if label.startswith("Table")]
    assert len(regions) == len(set(regions))
    assert parsed.tags.count("caption") == parsed.tags.count("table") == 5 + 5 + 2
    assert parsed.tags.count("th") == len(parsed.values("scope")) and parsed.tags.count("mark") == 1
    assert sum(SMALL_NOTE in caption for caption in parsed.captions) == 4 + 5 + 2
    text = re.sub(r"\s+", " ", parsed.text)
    assert text.index("What the rationales claim") < text.index("Teacher A <teacher>") < text.index("Teacher Another")
    numbers = (
        "39 (97.5 %)|10 (25.0 %)|5 (50.0 %)|4321|133.2|131|100 to 160|7.5|0.876|0.654|6 (60.0 %)|0.125 [0.111, 0.137]"
    )
    for words in (*numbers.split("|"), "no diagnoses", "no claims", "269.4 words", "first teacher"):
        assert words in text
    assert text.count("No answer was rejected.") == 1


def test_without_examples_no_text_of_an_answer_and_in_the_json_never() -> None:
    report = report_of(selection=(selection_of(examples=()),))
    page = render_report(report)
    assert "<mark" not in page and "Why &lt;b&gt;" not in page and "Examples of each reject reason" not in page
    written = metrics_json(report_of(selection=(selection_of(),)))["selection"]
    assert written == metrics_json(report)["selection"]
    assert "atrophy" not in json.dumps(written) and "examples" not in written[0]


def test_ceiling_line_is_drawn_for_accuracy_only(page: str) -> None:
    accuracy, macro_f1 = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)[:2]
    assert "Bayes ceiling 0.813" in accuracy and "stroke-dasharray" in accuracy
    assert "Bayes ceiling" not in macro_f1 and "stroke-dasharray" not in macro_f1


def test_metrics_json_is_plain_and_holds_no_patient_text() -> None:
    written = json.dumps(metrics_json(report_of()), allow_nan=False)
    read = json.loads(written)
    assert [one["name"] for one in read["models"]] == list(NAMES.values())
    assert read["models"][1]["auroc"] is None and read["models"][1]["auroc_reason"]
    assert read["models"][0]["accuracy"] == {"value": 0.4, "low": pytest.approx(0.3), "high": pytest.approx(0.48)}
    assert [one["includes_zero"] for one in read["differences"]] == [False, False, True]
    assert read["ceiling"]["accuracy"] == 0.813
    assert read["synthetic"] is True and read["caveats"] == [SYNTHETIC_NOTICE, STAND_IN_NOTICE]
    assert "74 years" not in written and "atrophy" not in written
    assert metrics_json(report_of(synthetic=False, ceiling=None))["caveats"] == [STAND_IN_NOTICE]


def test_input_that_does_not_fit_raises() -> None:
    with pytest.raises(ValidationError, match=r"no display name for \(model, arm\) \[\('majority', 'baseline'\)\]"):
        report_of(names={key: name for key, name in NAMES.items() if key[0] != "majority"})
    with pytest.raises(ValidationError, match="confusion matrix of 'teacher' is not 2 x 3"):
        report_of(labels=("AD", "NC"))
    answer = ExampleAnswer(model="teacher", arm="direct", predicted="AD", probabilities=(0.5, 0.5))
    with pytest.raises(ValidationError, match="has not 3 probabilities"):
        report_of(examples=(Example(heading="h", description="d", label="AD", answers=(answer,)),))
