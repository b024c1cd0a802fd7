"""An encoder-decoder student and a classifier through the real stages: trained, exported, asked, compared. No vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.students import students_of
from clinical_reasoner.records import PREDICTIONS, RATIONALES
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask, load_task
from tests.bases import small_bert, small_t5
from tests.integration.pipeline_run import ROOT, environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
STEPS = """
import sys
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evaluation.answers import make_answers
from clinical_reasoner.evaluation.predictions import make_predictions
from clinical_reasoner.pipeline import distill_students, generate_rationales
from clinical_reasoner.runs import RunFolder

config = load_config(PipelineConfig, "configs/demo.yaml", sys.argv[1:])
generate_rationales(config)
distill_students(config)
run = RunFolder(config.run.path)
for _ in make_answers(config, run):
    pass
make_predictions(config, run)
"""
"""All but the report, in a process of its own, which ends its cluster."""


def overrides(folder: Path) -> list[str]:
    def student(base: str, family: str, learning_rate: float) -> str:
        shared = (
            "arms: [label_only], epochs: 8, batch_size: 8, max_length: 512, validation: {evaluations: 1, visits: 8}"
        )
        more = "training: {workers: 1}, sampling: {max_tokens: 24}, engine: {dtype: float32}"
        return f"{{base: {base}, family: {family}, learning_rate: {learning_rate}, {shared}, {more}}}"

    return [
        f"run.path={folder}/run",
        "cohort.patients=60",
        "cohort.phantoms=null",
        "imaging.slices=false",
        # Labels need no teacher.
        "rationales.asks={rationalize: [], diagnose: [], direct: []}",
        f"student={student(small_t5(folder), 'encoder_decoder', 0.01)}",
        f"more_students={{bert: {student(small_bert(folder), 'encoder', 0.002)}}}",
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    options = overrides(tmp_path_factory.mktemp("families"))
    done = subprocess.run(
        [sys.executable, "-c", STEPS, *options],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return load_config(PipelineConfig, ROOT / "configs/demo.yaml", options)


@pytest.fixture(scope="module")
def task() -> DiagnosisTask:
    return load_task(str(ROOT / "configs/tasks/alzheimers.yaml"))


def test_every_visit_of_validation_and_test_is_answered(trained: PipelineConfig, task: DiagnosisTask) -> None:
    run = RunFolder(trained.run.path)
    visits = run.read_table("findings").to_pylist()
    asked = {row["patient_id"] for row in visits if row["split"] != "train"}
    for student in students_of(trained):
        rows = run.read_table(student.answers_stage, RATIONALES).to_pylist()
        assert sorted(row["patient_id"] for row in rows) == sorted(asked)
        for row in rows:
            assert row["predicted"] in task.label_names, (student.name, row["text"])
            assert sum(row["probabilities"]) == pytest.approx(1)
            assert row["predicted"] == task.label_names[row["probabilities"].index(max(row["probabilities"]))]
            assert row["prompt_tokens"] > 50
    models = {row["model"] for row in run.read_table("predictions", PREDICTIONS).to_pylist()}
    assert models == {"student", "bert", "logistic regression", "Bayes rule"}


def test_exports_load_as_they_are(trained: PipelineConfig, task: DiagnosisTask) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

    run = RunFolder(trained.run.path)
    writer, classifier = (run.child(student.model_folder) for student in students_of(trained))
    tokenizer = AutoTokenizer.from_pretrained(writer)
    model = AutoModelForSeq2SeqLM.from_pretrained(writer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.do_sample is False
    config = AutoModelForSequenceClassification.from_pretrained(classifier).config
    assert [config.id2label[number] for number in range(len(task.labels))] == list(task.label_names)
    assert config.label2id == {name: number for number, name in enumerate(task.label_names)}
    for folder, family in ((writer, "encoder-decoder"), (classifier, "encoder")):
        assert f"| family | {family} |" in Path(folder, "README.md").read_text()
    details = json.loads(Path(trained.run.path, "students/bert/label_only/0/manifest.json").read_text())["details"]
    assert details["macro-F1 on validation"] >= 0
