"""Stages `students/ARM/answers` and `predictions`: what they are made again for."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evaluation.answers import make_answers
from clinical_reasoner.evaluation.predictions import make_predictions
from clinical_reasoner.evidence.description import describe
from clinical_reasoner.records import FINDINGS, PREDICTIONS, RATIONALES, FindingsRow, PatientRow, Split, to_table
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
        finish(run, f"students/{arm}", FINDINGS.empty_table())
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
    for stage in ("rationales", *(f"students/{arm}/answers" for arm in ARMS)):
        finish(run, stage, RATIONALES.empty_table())
    return run


def test_capped_ages_have_predictions(answered: RunFolder) -> None:
    make_predictions(config(), answered)
    rows = answered.read_table("predictions", PREDICTIONS).to_pylist()
    assert [(row["patient_id"], row["predicted"]) for row in rows] == [("test-AD", "AD"), ("test-NC", "NC")]


def test_place_of_the_key_changes_no_prediction(answered: RunFolder) -> None:
    first = make_predictions(config("cohort.deidentify.key_file=/a/key"), answered)
    assert make_predictions(config("cohort.deidentify.key_file=/moved/key"), answered) == first
    with pytest.raises(RunError, match=r"cohort\.deidentify\.ages: true -> false"):
        make_predictions(config("cohort.deidentify.ages=false"), answered)
