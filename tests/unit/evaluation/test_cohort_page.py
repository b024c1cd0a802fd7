"""The cohort's page and its section of the report: complete, self-contained, silent about who is who."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.synthetic import draw_patient
from clinical_reasoner.evaluation.cohort_findings import Missing
from clinical_reasoner.evaluation.cohort_page import (
    COHORT_PAGE,
    make_cohort_page,
    picture_uri,
    render_cohort,
    run_summary,
)
from clinical_reasoner.evaluation.cohort_plots import missing_svg
from clinical_reasoner.evaluation.cohort_summary import CohortSummary
from clinical_reasoner.evaluation.metrics import Estimate, ModelMetrics
from clinical_reasoner.evaluation.report import (
    RESEARCH_NOTICE,
    STAND_IN_NOTICE,
    SYNTHETIC_NOTICE,
    ReportInput,
    metrics_json,
    render_report,
)
from clinical_reasoner.evidence.description import describe
from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.records import FINDINGS, PATIENTS, REJECTED, FindingsRow, RejectedRow, to_table
from clinical_reasoner.runs import RunError, RunFolder
from clinical_reasoner.task import DiagnosisTask

VOID = {"meta", "link", "br", "img", "hr"}
TEXT = "{http://www.w3.org/2000/svg}text"
HOSTILE = "<script>alert('x')</script> & \"quoted\" <img src=http://evil.example/x onerror=y> {{ 7 * 7 }}"
ADDRESSES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names of XML, never fetched


class Page(HTMLParser):
    """Checks that tags close in order; gathers tags, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.parts: dict[str, list[str]] = {"caption": [], "figcaption": [], "td": [], "th": []}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag in self.parts:
            self.parts[tag].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        for tag in self.parts.keys() & set(self.open):
            self.parts[tag][-1] += data

    def values(self, name: str) -> list[str]:
        return [value for attribute, value in self.attributes if attribute == name]


def png(side: int = 64, **texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    file = io.BytesIO()
    Image.fromarray(np.full((side, side), 90, dtype=np.uint8)).save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def write_run(folder: Path, population: Population, task: DiagnosisTask, cohort: str, hostile: str = "") -> RunFolder:
    """A run of 60 invented patients, of which five have no diagnosis."""
    run = RunFolder(str(folder))
    patients = [draw_patient(population, index, 5, {"train": 0.6, "test": 0.4}) for index in range(60)]
    changed = {"cohort": cohort, "image_path": "/CANARY/scan.nii.gz", "warnings": (f"not defaced {hostile}",)}
    patients = [
        one.model_copy(
            update={**changed, "patient_id": f"CANARY-{place:04d}", "label": None if place % 12 == 11 else one.label}
        )
        for place, one in enumerate(patients)
    ]
    findings = []
    for one in patients:
        graded = grade_patient(one, task, (-1.0, -2.0))
        text = describe(one, {finding.name: finding.grade for finding in graded}, task) + hostile
        keys = {name: getattr(one, name) for name in ("patient_id", "visit_id", "split", "label")}
        if one.label:
            findings.append(FindingsRow(**keys, findings=graded, description=text, slice_paths=("slices/CANARY.png",)))
    reasons = ["findings", "patients", "students/student/label_only/0"]
    rejected = [RejectedRow(source="CANARY.csv:7", stage=stage, reason=f"why {stage} {hostile}") for stage in reasons]
    run.write_table("patients", to_table(patients, PATIENTS))
    run.write_table("findings", to_table(findings, FINDINGS))
    run.write_rejected("patients", to_table(rejected, REJECTED))
    run.write_bytes("slices/CANARY.png", png(name="CANARY"))
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, population: Population, task: DiagnosisTask) -> dict[str, RunFolder]:
    folder = tmp_path_factory.mktemp("cohorts")
    return {
        "synthetic": write_run(folder / "synthetic", population, task, "synthetic-test"),
        "real": write_run(folder / "real", population, task, HOSTILE, HOSTILE),
    }


@pytest.fixture(scope="module")
def summaries(runs: dict[str, RunFolder], task: DiagnosisTask) -> dict[str, CohortSummary]:
    return {name: run_summary(run, task) for name, run in runs.items()}


@pytest.fixture(scope="module")
def synthetic(runs: dict[str, RunFolder], task: DiagnosisTask) -> str:
    assert make_cohort_page(runs["synthetic"], task, True) == runs["synthetic"].child(COHORT_PAGE)
    return runs["synthetic"].read_bytes(COHORT_PAGE).decode()


@pytest.fixture(scope="module")
def real(runs: dict[str, RunFolder], task: DiagnosisTask) -> str:
    make_cohort_page(runs["real"], task, False)
    return runs["real"].read_bytes(COHORT_PAGE).decode()


@pytest.mark.parametrize("kind", ["synthetic", "real"])
def test_page_is_well_formed_and_accessible(kind: str, request: pytest.FixtureRequest, task: DiagnosisTask) -> None:
    page = request.getfixturevalue(kind)
    parsed = Page(page)
    assert page.startswith("<!DOCTYPE html>")
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    assert set(parsed.values("aria-labelledby")) <= set(ids)
    referred = re.findall(r"url\(#([^)]+)\)", page) + re.findall(r'href="#([^"]+)"', page)
    assert set(referred) <= set(ids)
    assert parsed.tags.count("caption") == parsed.tags.count("table") == 6
    assert parsed.tags.count("th") == len(parsed.values("scope"))
    assert parsed.tags.count("img") == len(parsed.values("alt")) == 1
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) == 2 + len(task.findings)
    for svg in figures:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img" and root.get("aria-label")
    levels = [int(tag[1]) for tag in parsed.tags if re.fullmatch(r"h\d", tag)]
    assert levels[:2] == [1, 2] and set(levels[2:]) == {3}


@pytest.mark.parametrize("kind", ["synthetic", "real"])
def test_page_loads_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(kind)
    parsed = Page(page)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
        assert [value for value in parsed.values(name) if not value.startswith(("#", "data:"))] == []
    styles = re.findall(r"<style.*?</style>", page, flags=re.DOTALL)
    assert len(styles) == 1 and "url(" not in styles[0] and "@import" not in styles[0]
    assert set(re.findall(r"https?://[^\"\s<]+", page)) - {"http://evil.example/x"} == ADDRESSES


@pytest.mark.parametrize("kind", ["synthetic", "real"])
def test_page_has_no_id_and_no_place(kind: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(kind)
    assert "CANARY" not in page
    (source,) = Page(page).values("src")
    picture = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    assert b"CANARY" not in picture
    assert Image.open(io.BytesIO(picture)).size == (64, 64)


def test_hostile_text_is_shown_as_it_is(real: str) -> None:
    parsed = Page(real)
    assert "<script" not in real and "onerror=y>" not in real.replace("onerror=y&gt;", "")
    assert parsed.values("onerror") == []
    for place in (f"Cohort {HOSTILE}", f"not defaced {HOSTILE}", f"why patients {HOSTILE}"):
        assert place in parsed.text
    assert "49" not in re.findall(r"quoted[^<]*", parsed.text)[0]


def test_small_cells_of_real_people_are_hidden(synthetic: str, real: str) -> None:
    assert {"<5", "≥5"} < set(Page(real).parts["td"])
    cells = Page(synthetic).parts["td"]
    assert not {"<5", "≥5"} & set(cells)
    assert "data use agreement" in real and "data use agreement" not in synthetic


def test_synthetic_is_said_beside_numbers_and_only_if_true(synthetic: str, real: str, task: DiagnosisTask) -> None:
    parsed = Page(synthetic)
    assert parsed.text.index(SYNTHETIC_NOTICE) < parsed.text.index("The cohort")
    assert all("Synthetic patients." in caption for caption in parsed.parts["caption"])
    named = {finding.term for finding in task.findings}  # of small figures whose paragraph has the note
    others = [caption for caption in parsed.parts["figcaption"] if caption not in named]
    assert len(others) == 3 and all("Synthetic patients." in caption for caption in others)
    assert "ynthetic patient" not in Page(real).text and SYNTHETIC_NOTICE not in real
    assert RESEARCH_NOTICE in parsed.text and RESEARCH_NOTICE in Page(real).text


def test_notes_stand_on_top_and_beside_numbers(summaries: dict[str, CohortSummary]) -> None:
    parsed = Page(render_cohort(summaries["synthetic"], [SYNTHETIC_NOTICE, STAND_IN_NOTICE]))
    assert f"{SYNTHETIC_NOTICE} {STAND_IN_NOTICE}" in parsed.text
    assert all("Synthetic patients. Small stand-in models." in caption for caption in parsed.parts["caption"])


def test_every_number_appears(synthetic: str, summaries: dict[str, CohortSummary], task: DiagnosisTask) -> None:
    summary = summaries["synthetic"]
    parsed = Page(synthetic)
    assert f"{summary.visits} visits of {summary.people} people" in parsed.text
    rows = [[str(count) for count in (*row.counts, row.total)] for group in summary.groups for row in group.rows]
    width = len(summary.labels) + 1
    cells = parsed.parts["td"]
    assert [cells[place * width : (place + 1) * width] for place in range(len(rows))] == rows
    for finding in task.findings:
        assert parsed.text.count(finding.term) >= 4  # two figures, two tables
    assert "why patients" in parsed.text and "why findings" in parsed.text
    assert "students/student/label_only/0" not in parsed.text
    assert summary.example and summary.example.description in parsed.text
    median = summary.w_scores[0].by_label[0].quantiles
    assert median and f"{median[2]:.2f}".replace("-", "−") in cells


def test_report_opens_with_the_cohort(summaries: dict[str, CohortSummary], task: DiagnosisTask) -> None:
    one = Estimate(value=0.5, low=0.4, high=0.6)
    metrics = ModelMetrics(
        model="m",
        arm="a",
        n=9,
        n_subjects=9,
        unparsed=0,
        without_probabilities=0,
        accuracy=one,
        macro_f1=one,
        auroc=one,
        auroc_reason=None,
        confusion=((3, 0, 0, 0), (0, 3, 0, 0), (0, 0, 3, 0)),
        resamples=100,
        auroc_resamples=100,
    )
    report = ReportInput(
        title="A report",
        task_title=task.title,
        labels=task.label_names,
        synthetic=True,
        stand_ins=True,
        cohort=summaries["synthetic"],
        metrics=(metrics,),
        names={("m", "a"): "Model"},
        config_yaml="run: {}",
        versions={},
    )
    parsed = Page(render_report(report))
    assert parsed.text.index("The cohort") < parsed.text.index("Comparison of models")
    assert "Synthetic patients. Small stand-in models." in parsed.parts["caption"][0]
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    written = metrics_json(report)
    assert json.loads(json.dumps(written))["cohort"]["visits"] == summaries["synthetic"].visits
    assert "example" not in written["cohort"] and "The patient" not in json.dumps(written)
    without = report.model_copy(update={"cohort": None})
    assert "The cohort" not in Page(render_report(without)).text and metrics_json(without)["cohort"] is None


def test_pictures(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path / "run"))
    run.write_bytes("a.png", png(1200))
    run.write_bytes("text.png", b"no picture")
    run.write_bytes("cut.png", png()[:60])
    (tmp_path / "outside.png").write_bytes(png())
    bomb = bytearray(png())
    bomb[16:24] = (100_000).to_bytes(4, "big") * 2
    run.write_bytes("bomb.png", bytes(bomb))
    for path in ("a.png", run.child("a.png")):
        uri = picture_uri(run, path)
        assert uri
        assert Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size == (512, 512)
    bad = ("lost.png", "text.png", "cut.png", "bomb.png", "../outside.png", str(tmp_path / "outside.png"), "")
    assert [path for path in bad if picture_uri(run, path)] == []


def test_page_of_a_run_without_tables_or_rejected_rows(tmp_path: Path, task: DiagnosisTask) -> None:
    run = RunFolder(str(tmp_path / "run"))
    with pytest.raises(RunError, match="no table"):
        make_cohort_page(run, task, True)
    run.write_table("patients", PATIENTS.empty_table())
    run.write_table("findings", FINDINGS.empty_table())
    make_cohort_page(run, task, True)
    text = Page(run.read_bytes(COHORT_PAGE).decode()).text
    assert "0 visits of 0 people" in text and "every row that was read is in the cohort" in text
    assert "w-scores" not in text and "One visit" not in text


def test_words_of_a_figure_do_not_overlap() -> None:
    title = "atrophy of a very long name in $many$ words " * 2
    rows = [Missing(name=f"n{count}", title=title, missing=count, visits=99) for count in (1, 99)]
    svg = missing_svg(rows, "findings", prefix="p")
    assert svg == missing_svg(rows, "findings", prefix="p")
    texts = [(text.text or "", float(text.get("x", "nan"))) for text in ElementTree.fromstring(svg).iter(TEXT)]
    numbers = [(text, left) for text, left in texts if "%" in text]
    names = [text for text, _ in texts if "%" not in text]
    assert [text for text, _ in numbers] == ["1 (1.0 %)", "99 (100.0 %)"]
    assert sorted(" ".join(names).split()) == sorted((title * 2).split()) and len(names) >= 4
    # In points: a letter of 9 pt is less than 5.4 wide on average.
    assert max(5.4 * len(name) for name in names) < min(left - 5.4 * len(text) for text, left in numbers)
