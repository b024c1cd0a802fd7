"""Stages `students/NAME/ARM/SEED/answers` and `predictions`: when they are made again, what samples become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evaluation.answers import make_answers
from clinical_reasoner.evaluation.collect import NAMES, collect
from clinical_reasoner.evaluation.predictions import TEACHER_ARMS, make_predictions
from clinical_reasoner.evidence.description import describe
from clinical_reasoner.records import (
    FINDINGS,
    PATIENTS,
    PREDICTIONS,
    RATIONALES,
    Ask,
    FindingsRow,
    PatientRow,
    RationaleRow,
    Split,
    to_table,
)
from clinical_reasoner.runs import RunError, RunFolder
from clinical_reasoner.stages import Rows, Stage, run_stage
from clinical_reasoner.task import DiagnosisTask

ROOT = Path(__file__).parents[3]
ARMS = ("label_only", "rationale_then_label")


def finish(run: RunFolder, stage: str, table: pa.Table) -> None:
    def make() -> Rows:
        run.write_table(stage, table)
        return Rows(table.num_rows, table.num_rows)

    run_stage(run, Stage(stage, {}), make)


def visit(task: DiagnosisTask, split: Split, label: str, mmse: int, age: float) -> FindingsRow:
    """Ages of 90 are capped."""
    capped = ("age_years",) if age == 90 else ()
    known = {"patient_id": f"{split}-{label}", "visit_id": "v", "split": split, "label": label}
    patient = PatientRow(**known, cohort="clinic", age_years=age, at_least=capped, mmse=mmse)
    return FindingsRow(**known, description=describe(patient, {}, task))


def config(*overrides: str) -> PipelineConfig:
    return load_config(PipelineConfig, ROOT / "configs/own_cohort.yaml", overrides)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(ROOT)
    return RunFolder(str(tmp_path))


def test_student_answers_again_for_what_changes_answers_alone(run: RunFolder) -> None:
    finish(run, "findings", FINDINGS.empty_table())
    for arm in ARMS:
        finish(run, f"students/student/{arm}/0", FINDINGS.empty_table())
    first = list(make_answers(config(), run))
    smaller = ("max_num_seqs=4", "batch_size=4", "concurrent_batches=2", "kv_cache_gib=2", "replicas=2", "cpus=2")
    assert list(make_answers(config(*(f"student.engine.{setting}" for setting in smaller)), run)) == first
    with pytest.raises(RunError, match=r'engine\.dtype: "float32" -> "float16"'):
        list(make_answers(config("student.engine.dtype=float16"), run))


@pytest.fixture
def answered(run: RunFolder, task: DiagnosisTask) -> RunFolder:
    """A run that has everything but predictions."""
    rows = [
        visit(task, "train", "AD", 18, 90),
        visit(task, "train", "NC", 30, 70),
        visit(task, "test", "AD", 17, 90),
        visit(task, "test", "NC", 29, 68),
    ]
    finish(run, "findings", to_table(rows, FINDINGS))
    for stage in ("rationales", *(f"students/student/{arm}/0/answers" for arm in ARMS)):
        finish(run, stage, RATIONALES.empty_table())
    return run


def test_capped_ages_have_predictions(answered: RunFolder) -> None:
    make_predictions(config(), answered)
    rows = answered.read_table("predictions", PREDICTIONS).to_pylist()
    by_model: dict[str, list[tuple[str, str]]] = {row["model"]: [] for row in rows}
    for row in rows:
        by_model[row["model"]].append((row["patient_id"], row["predicted"]))
    assert list(by_model) == ["majority class", "logistic regression", "gradient boosting"]
    assert by_model["logistic regression"] == [("test-AD", "AD"), ("test-NC", "NC")]


def test_configured_baselines_are_compared_and_no_others(answered: RunFolder) -> None:
    first = make_predictions(config("evaluation.baselines=[gradient_boosting, majority]"), answered)
    rows = answered.read_table("predictions", PREDICTIONS).to_pylist()
    assert [row["model"] for row in rows] == ["gradient boosting"] * 2 + ["majority class"] * 2
    assert {row["predicted"] for row in rows[2:]} == {"AD"}, "of equally frequent ones the task's first"
    assert rows[2]["probabilities"] == [0.5, 0.0, 0.5]
    assert first.rows_out == 4
    with pytest.raises(RunError, match="baselines"):
        make_predictions(config(), answered)


def test_place_of_the_key_changes_no_prediction(answered: RunFolder) -> None:
    first = make_predictions(config("cohort.deidentify.key_file=/a/key"), answered)
    assert make_predictions(config("cohort.deidentify.key_file=/moved/key"), answered) == first
    with pytest.raises(RunError, match=r"cohort\.deidentify\.ages: true -> false"):
        make_predictions(config("cohort.deidentify.ages=false"), answered)


def answer(ask: Ask, sample: int, predicted: str | None, **given: Any) -> RationaleRow:
    """Of the teacher about the test patient with AD."""
    return RationaleRow(
        **{
            "row_id": f"test-AD|v|{ask}|{sample}",
            "patient_id": "test-AD",
            "visit_id": "v",
            "split": "test",
            "label": "AD",
            "ask": ask,
            "sample": sample,
            "model": config().teacher.model,
            "prompt_version": "v1",
            "shots": 0,
            "seed": sample,
            "text": "...",
            "rationale": f"Because {sample}.",
            "predicted": predicted,
            "claims_supported": 1,
            "claims_contradicted": 0,
            "claims_not_in_evidence": 0,
            "accepted": True,
            "prompt_tokens": 9,
            "output_tokens": 5,
        }
        | given
    )


def test_samples_of_an_ask_become_one_prediction(run: RunFolder, task: DiagnosisTask) -> None:
    rows = [
        answer("diagnose", 3, "AD", probabilities=(0.6, 0.4, 0.0)),
        answer("diagnose", 0, "MCI", probabilities=(0.1, 0.9, 0.0)),
        answer("diagnose", 1, "AD", probabilities=(0.8, 0.2, 0.0), accepted=False, reject_reason="..."),
        answer("diagnose", 2, None, rationale=None, accepted=False),
        answer("diagnose_zero_shot", 0, "NC", probabilities=(0.0, 0.25, 0.75)),
        answer("diagnose_label_first", 0, None, rationale=None, accepted=False),
        answer("diagnose_label_first", 1, None, rationale=None, accepted=False),
        answer("rationalize", 0, None),
        answer("direct", 0, "AD", split="validation"),
    ]
    visits = [visit(task, "train", "AD", 18, 80), visit(task, "train", "NC", 30, 70), visit(task, "test", "AD", 17, 85)]
    finish(run, "findings", to_table(visits, FINDINGS))
    finish(run, "rationales", to_table(rows, RATIONALES))
    for arm in ARMS:
        finish(run, f"students/student/{arm}/0/answers", RATIONALES.empty_table())
    make_predictions(config(), run)
    made = [row for row in run.read_table("predictions", PREDICTIONS).to_pylist() if row["model"] == "teacher"]
    assert [(row["arm"], row["predicted"], row["confidence"], row["rationale"]) for row in made] == [
        ("few_shot", "AD", 0.5, "Because 3."),  # the accepted one of two
        ("zero_shot", "NC", None, "Because 0."),
        ("label_first", None, 0.0, None),
    ]
    assert made[0]["probabilities"] == pytest.approx((0.5, 0.5, 0.0))
    assert made[1]["probabilities"] == pytest.approx((0.0, 0.25, 0.75))
    assert made[2]["probabilities"] is None


TWO = "more_teachers={big-7b: {model: org/big}}"


def two_teachers(run: RunFolder, task: DiagnosisTask) -> RunFolder:
    """A run in which both have answered about the test patient with AD."""
    visits = [visit(task, "train", "AD", 18, 80), visit(task, "train", "NC", 30, 70), visit(task, "test", "AD", 17, 85)]
    rows = [
        answer("diagnose", 0, "AD", claims_supported=3),
        answer("direct", 0, "MCI", rationale=None),
        answer("diagnose", 0, "NC", model="big-7b", claims_contradicted=2),
        answer("direct", 0, "AD", model="big-7b", rationale=None),
    ]
    finish(run, "patients", PATIENTS.empty_table())
    finish(run, "findings", to_table(visits, FINDINGS))
    finish(run, "rationales", to_table(rows, RATIONALES))
    for arm in ARMS:
        finish(run, f"students/student/{arm}/0/answers", RATIONALES.empty_table())
    return run


def test_each_teacher_has_predictions_of_its_own(run: RunFolder, task: DiagnosisTask) -> None:
    make_predictions(config(TWO), two_teachers(run, task))
    made = run.read_table("predictions", PREDICTIONS).to_pylist()
    assert [(row["model"], row["arm"], row["predicted"]) for row in made if row["arm"] != "baseline"] == [
        ("teacher", "few_shot", "AD"),
        ("teacher", "direct", "MCI"),
        ("big-7b", "few_shot", "NC"),
        ("big-7b", "direct", "AD"),
    ]
    assert [row["confidence"] for row in made if row["arm"] != "baseline"] == [None] * 4, "no samples of one model"


def test_report_tells_teachers_apart(run: RunFolder, task: DiagnosisTask) -> None:
    few = ("evaluation.resamples=100", "evaluation.examples=1")
    make_predictions(config(TWO), two_teachers(run, task))
    report = collect(config(TWO, *few), run, run.read_table("predictions", PREDICTIONS))
    shown = {report.names[metrics.model, metrics.arm] for metrics in report.metrics}
    assert shown == {
        "Teacher, few-shot reasoning",
        "Teacher, direct",
        "big-7b, few-shot reasoning",
        "big-7b, direct",
        "Majority class",
        "Logistic regression",
        "Gradient boosting",
    }
    assert [(one.name, one.supported, one.contradicted) for one in report.claims] == [
        ("Teacher, diagnose", 3, 0),
        ("big-7b, diagnose", 1, 2),
    ]
    assert [one.model for one in report.selection] == [config().teacher.model, "big-7b"]
    (example,) = report.examples
    assert {(one.model, one.predicted) for one in example.answers if one.arm == "direct"} == {
        ("teacher", "MCI"),
        ("big-7b", "AD"),
    }


def test_report_counts_training_seeds_and_shows_the_answers_of_one(run: RunFolder, task: DiagnosisTask) -> None:
    settings = config(TWO, "evaluation.resamples=100", "evaluation.examples=1")
    make_predictions(settings, two_teachers(run, task))
    made = run.read_table("predictions", PREDICTIONS).to_pylist()
    known = next(row for row in made if row["arm"] == "direct" and row["model"] == "teacher")
    seeds = [known | {"model": "student", "arm": "label_only", "seed": seed} for seed in (9, 4)]
    report = collect(settings, run, pa.Table.from_pylist([*made, *seeds], schema=PREDICTIONS))
    assert {report.name(one): one.seeds for one in report.metrics if one.seeds > 1} == {"Student, label only": 2}
    shown = [(one.model, one.arm, one.seed) for one in report.examples[0].answers]
    assert len(shown) == len(set(shown)) == 8 and ("student", "label_only", 4) in shown
    assert "Student, label only minus Gradient boosting" in dict(report.differences)


def test_every_arm_of_the_teacher_has_its_name_in_the_report() -> None:
    arms = {"diagnose": "few_shot", "diagnose_zero_shot": "zero_shot", "diagnose_label_first": "label_first"}
    assert arms | {"direct": "direct"} == TEACHER_ARMS
    assert {("teacher", arm) for arm in TEACHER_ARMS.values()} <= NAMES.keys()
    assert (NAMES["teacher", "direct"], NAMES["teacher", "few_shot"]) == (
        "Teacher, direct",
        "Teacher, few-shot reasoning",
    )
