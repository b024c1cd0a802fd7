"""Stages `students/NAME/ARM/SEED`: examples, training, export."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clinical_reasoner.config.arms import ArmConfig
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.bases import (
    check_base,
    check_loggers,
    picture_tokens,
    read_picture,
)
from clinical_reasoner.distillation.card import student_card
from clinical_reasoner.distillation.examples import count_tokens, make_examples, make_prompts, visits_of
from clinical_reasoner.distillation.export import export_student
from clinical_reasoner.distillation.failures import no_room_named
from clinical_reasoner.distillation.families import check_family, count_plain_tokens, student_processor
from clinical_reasoner.distillation.students import Student, students_of
from clinical_reasoner.distillation.training import train_student, training_steps
from clinical_reasoner.errors import UserError
from clinical_reasoner.llm.prompting import PROMPT_VERSION
from clinical_reasoner.records import RATIONALES, REJECTED, RejectedRow, Split, to_table
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, file_fingerprint, model_fingerprint, run_stage, work_folder
from clinical_reasoner.task import DiagnosisTask, load_task


def make_students(config: PipelineConfig, run: RunFolder) -> Iterator[Manifest]:
    """Train and export every configured student, one after the other."""
    check_students(config, run)
    for student in students_of(config):
        yield _make_student(config, run, student)


def check_students(config: PipelineConfig, run: RunFolder) -> None:
    """Raises UserError where the base of a student that is not finished cannot be trained as configured."""
    for student in students_of(config):
        if config.run.overwrite or run.manifest(student.stage) is None:
            token_level = student.arm.token_distillation > 0
            check_family(student.settings)
            check_loggers(student.settings.training.log_to)
            if student.settings.family == "decoder":
                check_base(student.settings, config.teacher.model if token_level else None)


def _make_student(config: PipelineConfig, run: RunFolder, student: Student) -> Manifest:
    settings = {
        "base": student.settings.base,
        "weights": model_fingerprint(student.settings.base),
        "student": student.settings.identity(student.arm_name),
        "arm": student.arm.model_dump(mode="json"),
        "task": file_fingerprint(config.task.file),
        "prompt_version": PROMPT_VERSION,
    }
    stage = Stage(student.stage, settings, ["findings", "rationales"])

    def make() -> Rows:
        task = load_task(config.task.file)
        processor = student_processor(student.settings.base, student.settings)
        teacher = _rows_of(run, config.teacher.model, student.arm)
        examples, rejected = _fitting_examples(run, teacher, student, "train", task, processor)
        run.write_rejected(stage.name, to_table(rejected, REJECTED))
        if not examples.num_rows:
            raise UserError(f"{stage.name}: no usable training example; see rejected/ and rationales/reject_reason")
        visits = len(set(zip(*(examples[name].to_pylist() for name in ("patient_id", "visit_id")), strict=True)))
        # Arms with the same epochs take the same steps, whatever part of the visits has a usable rationale.
        steps = training_steps(student.settings, student.arm_name, visits + len(rejected))
        work = work_folder(run, stage)
        validation = _validation(run, student, task)
        with no_room_named(run.path):
            checkpoint, metrics = train_student(
                run, work, student, task, examples, validation, steps, config.run.logical_cpus
            )
            details = {"training visits": visits, "examples": examples.num_rows, "steps": steps, **_exported(metrics)}
            card = student_card(config, student, details)
            export_student(checkpoint, student.settings, task, run, student.model_folder, card)
        return Rows(visits + len(rejected), visits, len(rejected), details)

    return run_stage(run, stage, make, overwrite=config.run.overwrite)


def _exported(metrics: dict[str, float]) -> dict[str, Any]:
    """Which checkpoint is the student."""
    from clinical_reasoner.distillation.asked import MACRO_F1

    asked = metrics[MACRO_F1]
    return {"exported at step": metrics["step"], **({"macro-F1 on validation": round(asked, 3)} if asked >= 0 else {})}


def _rows_of(run: RunFolder, teacher: str, arm: ArmConfig) -> list[dict[str, Any]]:
    table = run.read_table("rationales", RATIONALES)
    columns = ["patient_id", "visit_id", "rationale", "selected", "probabilities"]
    columns += ["token_ids", "candidates"] if arm.token_distillation else []
    rows: list[dict[str, Any]] = table.filter(pc.equal(table["model"], teacher)).select(columns).to_pylist()
    return rows


def _validation(run: RunFolder, student: Student, task: DiagnosisTask) -> pa.Table:
    """Prompts of the visits that the student is asked about while it learns."""
    table = make_prompts(visits_of(run, student, ["validation"]), student, "validation", task)
    return table.slice(0, student.settings.validation.visits)


def _fitting_examples(
    run: RunFolder, teacher: list[dict[str, Any]], student: Student, split: Split, task: DiagnosisTask, processor: Any
) -> tuple[pa.Table, list[RejectedRow]]:
    """Examples of a split that fit into `max_length`, with their `length`; nothing is cut, and a visit of which one
    example is too long has none."""
    examples, rejected = make_examples(visits_of(run, student, [split]), teacher, student, split, task)
    lengths, limit = _lengths(run, examples, student, processor), student.settings.max_length
    visits = list(zip(*(examples[name].to_pylist() for name in ("patient_id", "visit_id")), strict=True))
    longest: dict[tuple[str, str], int] = {}
    for visit, length in zip(visits, lengths, strict=True):
        longest[visit] = max(length, longest.get(visit, 0))
    for number, length in enumerate(longest.values(), start=1):
        if length > limit:
            reason = f"{length} tokens, more than max_length={limit}"
            rejected.append(RejectedRow(source=f"trainable visit {number}", stage=student.stage, reason=reason))
    fits = pa.array([longest[visit] <= limit for visit in visits], pa.bool_())
    return examples.append_column("length", pa.array(lengths, pa.int64())).filter(fits), rejected


def _lengths(run: RunFolder, examples: pa.Table, student: Student, processor: Any) -> list[int]:
    """Tokens of each example, with those of its picture."""
    if student.settings.family != "decoder":
        rows = examples.select(["prompt", "completion"]).to_pylist()
        return count_plain_tokens(rows, student.settings.family, processor)
    first = next((name for name in examples["picture"].to_pylist() if name is not None), None)
    of_picture = 0 if first is None else picture_tokens(processor, read_picture(run, first))
    return count_tokens(examples, processor, of_picture, **student.settings.engine.chat_template_kwargs)
