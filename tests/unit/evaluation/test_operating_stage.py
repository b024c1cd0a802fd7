"""Stage `operating_point` and the cascade's part of the report, over the tables of a small run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evaluation.cascade_page import (
    cascade_verdict,
    coverage_verdict,
    run_cascade,
    saved,
    usual_coverage,
)
from clinical_reasoner.evaluation.cascade_sets import Sets
from clinical_reasoner.evaluation.cascade_summary import NOT_ASKED, CascadeSummary, Spending
from clinical_reasoner.evaluation.metrics import Estimate, ModelMetrics
from clinical_reasoner.evaluation.operating_stage import OPERATING_STAGE, make_operating_point
from clinical_reasoner.evaluation.report import ReportInput, metrics_json, render_report
from clinical_reasoner.operating_point import ALWAYS_TEACHER, OPERATING_POINT_FILE, OperatingPoint, read_operating_point
from clinical_reasoner.records import RATIONALES, Ask, RationaleRow, Split, to_table
from clinical_reasoner.runs import RunError, RunFolder
from clinical_reasoner.stages import Rows, Stage, run_stage
from clinical_reasoner.task import DiagnosisTask, load_task

ROOT = Path(__file__).parents[3]
LABELS = ("AD", "MCI", "NC")
ANSWERS = "students/student/rationale_then_label/0/answers"
PEOPLE = 60
"""Of each split."""


def config(*overrides: str) -> PipelineConfig:
    return load_config(PipelineConfig, ROOT / "configs/demo.yaml", ["evaluation.resamples=200", *overrides])


def rows(
    model: str, ask: Ask, splits: Sequence[Split], right_share: float, *, probabilities: bool = True, sample: int = 0
) -> list[RationaleRow]:
    """Answers about the people of these splits; the wrong ones are less sure."""
    made = []
    for split in splits:
        rng = np.random.default_rng(len(model) + len(split))
        for person in range(PEOPLE):
            truth = person % 3
            right = rng.random() < right_share
            named = truth if right else (truth + 1) % 3
            table = np.full(3, 0.0)
            table[named] = rng.uniform(0.7, 0.99) if right else rng.uniform(0.4, 0.8)
            table += (1 - table.sum()) / 2 * (np.arange(3) != named)
            made.append(
                RationaleRow(
                    row_id=f"{split}{person}|v|{ask}|{sample}|{model}",
                    patient_id=f"{split}{person}",
                    visit_id="v",
                    split=split,
                    label=LABELS[truth],
                    ask=ask,
                    sample=sample,
                    model=model,
                    prompt_version="v1",
                    shots=0,
                    seed=0,
                    text="...",
                    predicted=LABELS[named],
                    probabilities=tuple(table.tolist()) if probabilities else None,
                    claims_supported=0,
                    claims_contradicted=0,
                    claims_not_in_evidence=0,
                    accepted=True,
                    prompt_tokens=100,
                    output_tokens=50,
                )
            )
    return made


def finish(run: RunFolder, stage: str, made: Sequence[RationaleRow]) -> None:
    def make() -> Rows:
        run.write_table(stage, to_table(made, RATIONALES))
        return Rows(len(made), len(made))

    run_stage(run, Stage(stage, {}), make)


BOTH: tuple[Split, ...] = ("validation", "test")


def run_with(path: Path, teacher: Sequence[RationaleRow], student: Sequence[RationaleRow] | None = None) -> RunFolder:
    run = RunFolder(str(path))
    finish(run, ANSWERS, rows("students/s", "diagnose", BOTH, 0.7) if student is None else student)
    finish(run, "rationales", teacher)
    return run


def teacher_rows(*splits: Split, share: float = 0.9) -> list[RationaleRow]:
    return rows(config().teacher.model, "diagnose", splits, share)


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def point_of(run: RunFolder) -> OperatingPoint:
    return read_operating_point(run.read_bytes(OPERATING_POINT_FILE), OPERATING_POINT_FILE)


def summary_of(run: RunFolder, task: DiagnosisTask, *overrides: str) -> CascadeSummary:
    found = run_cascade(config(*overrides), run, task)
    assert isinstance(found, CascadeSummary), found
    return found


def test_stage_writes_the_point_of_both_models_and_is_skipped_after(tmp_path: Path) -> None:
    run = run_with(tmp_path, teacher_rows(*BOTH))
    manifest = make_operating_point(config(), run)
    point = point_of(run)
    assert manifest.details["version"] == point.version and manifest.rows_out == PEOPLE
    assert point.teacher is not None
    assert (point.student.model, point.student.ask, point.student.visits) == (
        "rationale_then_label",
        "diagnose",
        PEOPLE,
    )
    assert (point.teacher.model, point.teacher.ask, point.labels) == ("teacher", "diagnose", LABELS)
    assert 0 < point.threshold < 1 and "synthetic" in point.note
    assert make_operating_point(config(), run) == manifest
    for changed in (
        "evaluation.operating.coverage=0.8",
        "serving.teacher_ask=direct",
        "serving.student_arm=label_only",
    ):
        finish_all_arms(run)
        with pytest.raises(RunError, match=OPERATING_STAGE):
            make_operating_point(config(changed), run)


def finish_all_arms(run: RunFolder) -> None:
    finish(run, ANSWERS.replace("rationale_then_label", "label_only"), rows("students/o", "direct", BOTH, 0.7))


def test_no_row_of_the_test_split_is_used(tmp_path: Path) -> None:
    honest = run_with(tmp_path / "a", teacher_rows(*BOTH))
    turned = [
        row.model_copy(update={"predicted": "NC", "probabilities": (0.0, 0.0, 1.0)}) if row.split == "test" else row
        for row in teacher_rows(*BOTH)
    ]
    only = rows("students/s", "diagnose", ["validation"], 0.7)
    other = run_with(tmp_path / "b", turned, only)
    make_operating_point(config(), honest)
    make_operating_point(config(), other)
    assert point_of(honest) == point_of(other)


def test_other_asks_samples_and_teachers_are_not_the_endpoints(tmp_path: Path) -> None:
    own = teacher_rows(*BOTH)
    noise = [
        *rows(config().teacher.model, "direct", BOTH, 0.1),
        *rows("another", "diagnose", BOTH, 0.1),
        *[row.model_copy(update={"sample": 1, "predicted": "NC"}) for row in own],
    ]
    plain, crowded = run_with(tmp_path / "a", own), run_with(tmp_path / "b", [*noise, *own])
    make_operating_point(config(), plain)
    make_operating_point(config(), crowded)
    assert point_of(plain) == point_of(crowded)


def test_teacher_that_was_not_asked_about_validation_has_no_tier(tmp_path: Path, task: DiagnosisTask) -> None:
    run = run_with(tmp_path, teacher_rows("test"))
    make_operating_point(config(), run)
    point = point_of(run)
    assert point.teacher is None and point.target.startswith("error") and "not asked 'diagnose'" in point.note
    summary = summary_of(run, task)
    assert [one.name for one in summary.sets] == ["Student alone"], "its probabilities are not calibrated"
    assert [one.name for one in summary.approaches] == ["Student alone", "Teacher alone", "Cascade"]
    assert summary.refer_below == config().serving.threshold, "what the endpoint compares a raw confidence with"
    never = summary_of(run, task, "serving.threshold=0")
    assert summary.referred is not None and never.referred is not None
    assert never.referred.value < summary.referred.value


@pytest.mark.parametrize("reason", ["one diagnosis", "no probabilities", "no visits", "arm"])
def test_run_in_which_nothing_can_be_calibrated_goes_on_without_a_file(
    tmp_path: Path, task: DiagnosisTask, capsys: pytest.CaptureFixture[str], reason: str
) -> None:
    student = rows("students/s", "diagnose", BOTH, 0.7, probabilities=reason != "no probabilities")
    if reason == "one diagnosis":
        student = [row for row in student if row.label == "AD"]
    if reason == "no visits":
        student = [row for row in student if row.split == "test"]
    run = run_with(tmp_path, teacher_rows("test"), student)
    settings = config("student.arms=[label_only]", "student.epochs=1") if reason == "arm" else config()
    run.write_bytes(OPERATING_POINT_FILE, b"left by a killed run")
    why = make_operating_point(settings, run).details["why_none"]
    assert why in capsys.readouterr().out
    assert not run.exists(OPERATING_POINT_FILE)
    said = run_cascade(settings, run, task)
    assert isinstance(said, str) and why in said
    words = {"arm": "student.arms", "one diagnosis": "same diagnosis"}
    assert words.get(reason, "0 visits have probabilities") in why


def test_cascade_on_the_test_split_adds_up(tmp_path: Path, task: DiagnosisTask) -> None:
    run = run_with(tmp_path, teacher_rows(*BOTH))
    priced = ("teacher.endpoint.prompt_price=2", "teacher.endpoint.output_price=10")
    make_operating_point(config(), run)
    summary = summary_of(run, task, *priced)
    student, teacher, cascade = summary.approaches
    assert summary.difference is not None and summary.spending is not None
    assert summary.difference.value == pytest.approx(cascade.macro_f1.value - teacher.macro_f1.value)
    assert summary.difference.low <= summary.difference.value <= summary.difference.high
    assert student.accuracy.value < cascade.accuracy.value
    handed_over = round(summary.to_teacher.value * PEOPLE)
    assert 0 < handed_over < PEOPLE and summary.curve.standing == pytest.approx(1 - handed_over / PEOPLE)
    assert summary.spending.teacher_in_cascade == 150 * handed_over
    assert summary.spending.teacher_alone == summary.spending.student == 150 * PEOPLE
    assert summary.spending.cost_alone == pytest.approx(PEOPLE * (100 * 2 + 50 * 10) / 1e6)
    assert [(one.name, one.n, one.without) for one in summary.sets] == [
        (name, PEOPLE, 0) for name in ("Student alone", "Teacher alone", "Cascade")
    ]
    assert all(one.size is not None and 1 <= one.size.value <= 3 for one in summary.sets)
    assert summary.curve.risk[-1] == pytest.approx(1 - student.accuracy.value)
    assert summary.missing == ""


def test_test_visits_without_probabilities_reach_the_teacher_and_have_no_set(
    tmp_path: Path, task: DiagnosisTask
) -> None:
    student = [
        row.model_copy(update={"probabilities": None}) if row.patient_id in ("test0", "test1") else row
        for row in rows("students/s", "diagnose", BOTH, 0.7)
        if row.patient_id != "test2"
    ]
    run = run_with(tmp_path, teacher_rows(*BOTH), student)
    make_operating_point(config(), run)
    summary = summary_of(run, task)
    assert (summary.n, summary.without_student, summary.approaches[0].unanswered) == (PEOPLE, 3, 1)
    assert [(one.n, one.without) for one in summary.sets] == [(PEOPLE - 3, 3), (PEOPLE, 0), (PEOPLE, 0)]


def test_without_answers_of_the_teacher_about_test_there_is_no_cascade_and_it_says_so(
    tmp_path: Path, task: DiagnosisTask
) -> None:
    run = run_with(tmp_path, teacher_rows("validation"))
    make_operating_point(config(), run)
    summary = summary_of(run, task)
    assert [one.name for one in summary.approaches] == ["Student alone"]
    assert (summary.missing, summary.difference, summary.spending) == (NOT_ASKED, None, None)


def report_of(cascade: CascadeSummary | None, no_cascade: str = "") -> ReportInput:
    half = Estimate(value=0.5, low=0.4, high=0.6)
    one = ModelMetrics(
        model="m",
        arm="a",
        n=9,
        n_subjects=9,
        unparsed=0,
        without_probabilities=0,
        accuracy=half,
        macro_f1=half,
        auroc=half,
        auroc_reason=None,
        confusion=((1, 1, 1, 0),) * 3,
        resamples=200,
        auroc_resamples=200,
    )
    return ReportInput(
        title="t",
        task_title="t",
        labels=LABELS,
        synthetic=True,
        stand_ins=False,
        metrics=(one,),
        names={("m", "a"): "Model"},
        cascade=cascade,
        no_cascade=no_cascade,
        config_yaml="",
        versions={},
    )


@pytest.mark.parametrize("splits", [BOTH, ("validation",), ("test",)])
def test_page_and_json_have_the_cascade(tmp_path: Path, task: DiagnosisTask, splits: tuple[Split, ...]) -> None:
    run = run_with(tmp_path, teacher_rows(*splits))
    make_operating_point(config(), run)
    summary = summary_of(run, task)
    page = " ".join(render_report(report_of(summary)).split())
    for words in (summary.version, summary.target.replace("'", "&#39;"), "Student alone", "Synthetic patients."):
        assert words in page
    assert ("Macro-F1, cascade minus teacher" in page) == ("test" in splits)
    assert (NOT_ASKED in page) == ("test" not in splits)
    assert page.count("Risk and coverage of the student") == 1
    assert f'data-label="Calibrated on">{PEOPLE}</td>' in page
    never = render_report(report_of(summary.model_copy(update={"threshold": ALWAYS_TEACHER})))
    assert "never sure" in never and "1.010" not in never and "never sure" not in page
    read = json.loads(json.dumps(metrics_json(report_of(summary)), allow_nan=False))
    assert read["cascade"] == summary.model_dump(mode="json") and read["no_cascade"] == ""


def test_page_says_in_a_sentence_why_there_is_no_cascade() -> None:
    page = render_report(report_of(None, "There is no operating point: too few."))
    assert "There is no operating point: too few." in page and "Prediction sets" not in page
    assert "student first, teacher" not in render_report(report_of(None))


def test_sentences_say_where_the_cascade_loses() -> None:
    assert "worse than the teacher" in cascade_verdict(Estimate(value=-0.1, low=-0.2, high=-0.05))
    assert "do not show" in cascade_verdict(Estimate(value=-0.1, low=-0.2, high=0.0))
    assert "higher macro-F1" in cascade_verdict(Estimate(value=0.1, low=0.05, high=0.2))
    assert "saves 0 (0.0 %)" in saved(Spending(teacher_alone=7, teacher_in_cascade=7, student=3))


def test_coverage_is_said_to_differ_only_where_calibration_and_test_split_do_not_explain_it() -> None:
    narrow = Estimate(value=0.8, low=0.78, high=0.82)
    many = Sets(name="s", n=2000, without=0, calibrated_on=(2000,), coverage=narrow, size=None)
    assert "promise too much" in coverage_verdict(many, 0.9)
    assert "more than" in coverage_verdict(many, 0.6) and "not shown" in coverage_verdict(many, 0.81)
    few = many.model_copy(update={"calibrated_on": (2000, 20)})
    assert "not shown to differ" in coverage_verdict(few, 0.9), "twenty visits give such a quantile by chance"
    assert "calibrated on 20 visits and tried on 2000" in coverage_verdict(few, 0.9)
    wide = many.model_copy(update={"coverage": Estimate(value=0.8, low=0.7, high=0.91)})
    assert "not shown to differ" in coverage_verdict(wide, 0.9), "people with many visits each"
    for without in ({"coverage": None}, {"calibrated_on": ()}):
        assert "no sets" in coverage_verdict(many.model_copy(update=without), 0.9)


def test_usual_coverage_is_that_of_repeated_calibration() -> None:
    rng = np.random.default_rng(11)
    quantiles = np.sort(rng.random((4000, 60)), axis=1)[:, 54]  # ceil(61 x 0.9) = 55
    counted = rng.binomial(80, quantiles) / 80
    low, high = usual_coverage(60, 80, 0.9)
    assert ((counted >= low) & (counted <= high)).mean() == pytest.approx(0.96, abs=0.02)
    assert high - low > 2 * 1.96 * (0.9 * 0.1 / 80) ** 0.5, "wider than with a quantile that is known"


def test_task_of_the_demo_has_these_labels() -> None:
    assert load_task(config().task.file).label_names == LABELS
