"""The whole path for real: Ray Data, vLLM, Ray Train, the report; a kill in the middle; a second run that skips."""

from __future__ import annotations

import json
import subprocess
import time

import pyarrow.parquet as pq
import pytest

from clinical_reasoner.distillation.bases import read_picture
from clinical_reasoner.records import PREDICTIONS, RATIONALES
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import load_task
from tests.integration.pipeline_run import PATIENTS, ROOT, FinishedRun, environment, pipeline_command

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3000)]
STAGES = (
    "patients",
    "findings",
    "rationales",
    "students/student/label_only/0",
    "students/student/rationale_then_label/0",
    "operating_point",
    "predictions",
    "report",
)


def test_killed_run_completes_without_double_or_missing_rows(finished_run: FinishedRun) -> None:
    run = RunFolder(str(finished_run.path))
    findings = run.read_table("findings").to_pylist()
    rationales = run.read_table("rationales", RATIONALES).to_pylist()
    asks = {"test": ("diagnose", "direct"), "validation": ("diagnose",), "train": ("rationalize", "diagnose")}
    expected = {(row["patient_id"], ask) for row in findings for ask in asks[row["split"]]}
    assert len(findings) == PATIENTS
    assert 0 < finished_run.rows_before_kill < len(expected), "the kill came too late to prove anything"
    assert len(rationales) == len(expected)
    assert {(row["patient_id"], row["ask"]) for row in rationales} == expected


def test_nothing_of_the_killed_run_goes_on(finished_run: FinishedRun) -> None:
    assert finished_run.left_running == (), "it would hold the memory of its engine"


def test_every_stage_has_a_manifest_that_accounts_for_its_rows(finished_run: FinishedRun) -> None:
    run = RunFolder(str(finished_run.path))
    for stage in STAGES:
        manifest = run.manifest(stage)
        assert manifest is not None, stage
        assert manifest.rows_in == manifest.rows_out + manifest.rows_rejected > 0, stage
    left = [file.name for file in finished_run.path.glob("work/**/*") if file.is_file()]
    assert left == [], "finished work is left behind"


def test_reference_teacher_reads_the_patient(finished_run: FinishedRun) -> None:
    rows = RunFolder(str(finished_run.path)).read_table("rationales", RATIONALES).to_pylist()
    for ask in ("rationalize", "diagnose"):
        of_ask = [row for row in rows if row["ask"] == ask]
        claims = sum(
            row["claims_supported"] + row["claims_contradicted"] + row["claims_not_in_evidence"] for row in of_ask
        )
        wrong = sum(row["claims_contradicted"] + row["claims_not_in_evidence"] for row in of_ask)
        assert claims > 8 * len(of_ask), ask
        assert wrong <= 0.04 * claims, ask  # the model card has its measured share, of 300 patients
    diagnosed = [row for row in rows if row["ask"] == "diagnose"]
    assert sum(row["predicted"] is not None for row in diagnosed) >= 0.97 * len(diagnosed)


def test_predictions_cover_the_test_split_for_every_model(finished_run: FinishedRun) -> None:
    run = RunFolder(str(finished_run.path))
    test = {row["patient_id"] for row in run.read_table("findings").to_pylist() if row["split"] == "test"}
    rows = run.read_table("predictions", PREDICTIONS).to_pylist()
    models = {(row["model"], row["arm"]) for row in rows}
    assert models == {
        ("teacher", "direct"),
        ("teacher", "few_shot"),
        ("student", "label_only"),
        ("student", "rationale_then_label"),
        ("vlm", "label_only"),
        ("majority class", "baseline"),
        ("logistic regression", "baseline"),
        ("gradient boosting", "baseline"),
        ("Bayes rule", "ceiling"),
    }
    labels = load_task("configs/tasks/alzheimers.yaml").label_names
    for model, arm in models:
        of_model = [row for row in rows if (row["model"], row["arm"]) == (model, arm)]
        assert sorted(row["patient_id"] for row in of_model) == sorted(test)
        for row in of_model:
            if row["predicted"] is not None and row["probabilities"] is not None:
                assert sum(row["probabilities"]) == pytest.approx(1)
                assert row["predicted"] == labels[row["probabilities"].index(max(row["probabilities"]))]


def test_report_is_self_contained_and_says_synthetic(finished_run: FinishedRun) -> None:
    page = (finished_run.path / "report" / "report.html").read_text()
    metrics = json.loads((finished_run.path / "report" / "metrics.json").read_text())
    assert "synthetic" in page.lower()
    assert "Research use only" in page
    assert "<script src" not in page and 'src="http' not in page
    assert {"accuracy", "macro_f1", "auroc"} <= metrics["models"][0].keys()
    assert 0.5 < metrics["ceiling"]["accuracy"] < 1
    assert "synthetic patients" in finished_run.output


def test_second_run_skips_every_stage_and_starts_no_engine(finished_run: FinishedRun) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished_run.path.rglob("*.parquet")}
    started = time.monotonic()
    again = subprocess.run(
        pipeline_command(finished_run.path), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout.count("finished before") == len(STAGES) + 5  # measures, the vision student and the answers
    assert time.monotonic() - started < 60
    assert {file: file.stat().st_mtime_ns for file in finished_run.path.rglob("*.parquet")} == before


def test_changed_settings_are_refused_with_the_changed_key(finished_run: FinishedRun) -> None:
    changed = subprocess.run(
        pipeline_command(finished_run.path, "teacher.sampling.temperature=0.7"),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert changed.returncode == 2
    assert "temperature" in changed.stderr and "run.overwrite=true" in changed.stderr
    assert "Traceback" not in changed.stderr


def test_vision_student_sees_the_picture(finished_run: FinishedRun) -> None:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = finished_run.path / "students/vlm/label_only/0/model"
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
    run = RunFolder(str(finished_run.path))
    shown = [row["picture_path"] for row in run.read_table("findings").to_pylist()[:2]]
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Brain MRI:"}]}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    with torch.no_grad():
        first, second = (
            model(**processor(text=[text], images=[[read_picture(run, name)]], return_tensors="pt")).logits[0, -1]
            for name in shown
        )
    assert not torch.allclose(first, second, atol=1e-3)


def test_students_load_in_transformers(finished_run: FinishedRun) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished_run.path / "students/student/rationale_then_label/0/model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.chat_template
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert "Research use only" in (folder / "README.md").read_text()
    calibration = json.loads((folder / "calibration.json").read_text())
    assert calibration["temperature"] > 0 and calibration["visits"] > 2
    assert pq.read_metadata(finished_run.path / "patients" / "part-00000.parquet").num_rows == PATIENTS
