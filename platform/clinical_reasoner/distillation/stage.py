"""Stages `students/ARM`: examples, training, export."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from clinical_reasoner.cluster import local_or_name
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.student import Arm
from clinical_reasoner.distillation.card import student_card
from clinical_reasoner.distillation.examples import count_tokens, make_examples
from clinical_reasoner.distillation.training import TrainingPlan, export_student, train_student, training_steps
from clinical_reasoner.errors import UserError
from clinical_reasoner.llm.prompting import PROMPT_VERSION
from clinical_reasoner.records import FINDINGS, RATIONALES, REJECTED, RejectedRow, to_table
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, file_fingerprint, model_fingerprint, run_stage, work_folder
from clinical_reasoner.task import load_task


def student_stage(arm: Arm) -> str:
    return f"students/{arm}"


def model_folder(arm: Arm) -> str:
    """Where below the run folder a finished student lies."""
    return f"{student_stage(arm)}/model"


def make_students(config: PipelineConfig, run: RunFolder) -> Iterator[Manifest]:
    """Train and export every configured arm, one after the other."""
    for arm in config.student.arms:
        yield _make_student(config, run, arm)


def _make_student(config: PipelineConfig, run: RunFolder, arm: Arm) -> Manifest:
    student = config.student
    settings = {
        "student": student.model_dump(mode="json", exclude={"arms", "epochs", "learning_rate", "engine", "sampling"}),
        "epochs": student.epochs[arm],
        "learning_rate": student.learning_rate[arm],
        "weights": model_fingerprint(student.base),
        "task": file_fingerprint(config.task.file),
        "prompt_version": PROMPT_VERSION,
    }
    stage = Stage(student_stage(arm), settings, ["findings", "rationales"])

    def make() -> Rows:
        examples, rejected = _fitting_examples(config, run, arm)
        run.write_rejected(stage.name, to_table(rejected, REJECTED))
        if not examples.num_rows:
            raise UserError(f"student {arm}: no usable training example; see rejected/ and rationales/reject_reason")
        visits = examples.num_rows + len(rejected)
        plan = TrainingPlan(arm, training_steps(student, arm, visits), config.run.logical_cpus)
        checkpoint = train_student(run, work_folder(run, stage), plan, student, examples)
        card = student_card(config, arm, examples.num_rows)
        export_student(checkpoint, run, model_folder(arm), card)
        return Rows(visits, examples.num_rows, len(rejected), {"steps": plan.steps})

    return run_stage(run, stage, make, overwrite=config.run.overwrite)


def _fitting_examples(config: PipelineConfig, run: RunFolder, arm: Arm) -> tuple[pa.Table, list[RejectedRow]]:
    """Examples of the training split that fit into `student.max_length`; nothing is cut."""
    from transformers import AutoTokenizer

    task = load_task(config.task.file)
    findings, rationales = run.read_table("findings", FINDINGS), run.read_table("rationales", RATIONALES)
    of_teacher = rationales.filter(pc.equal(rationales["model"], config.teacher.model))
    examples, rejected = make_examples(findings, of_teacher, arm, "train", task)
    lengths = count_tokens(examples, AutoTokenizer.from_pretrained(local_or_name(config.student.base)))
    fits = [length <= config.student.max_length for length in lengths]
    for number, length in enumerate(lengths, start=1):
        if length > config.student.max_length:
            reason = f"{length} tokens, more than student.max_length={config.student.max_length}"
            rejected.append(RejectedRow(source=f"example {number}", stage=student_stage(arm), reason=reason))
    return examples.filter(pa.array(fits, pa.bool_())), rejected
