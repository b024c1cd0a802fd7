"""Stage `operating_point`: the operating point of the endpoint, from answers about the validation split alone."""

from __future__ import annotations

from clinical_reasoner.cluster import short_name
from clinical_reasoner.config.cohort import SyntheticCohort
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.students import Student, served_student
from clinical_reasoner.errors import UserError
from clinical_reasoner.evaluation.operating import Names, fit_operating_point
from clinical_reasoner.evaluation.tiers import read_tiers
from clinical_reasoner.llm.prompting import PROMPT_VERSION
from clinical_reasoner.operating_point import OPERATING_POINT_FILE
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, file_fingerprint, run_stage
from clinical_reasoner.task import load_task

OPERATING_STAGE = "operating_point"
SYNTHETIC_NOTE = "Fitted on synthetic patients: it says nothing about real ones."


def make_operating_point(config: PipelineConfig, run: RunFolder) -> Manifest:
    """Write `operating_point/operating_point.json` for the served student and the teacher as the endpoint asks it.

    Where the student cannot be calibrated there is no file, and the manifest's `why_none` says why.
    """
    student = _served(config)
    settings = {
        "operating": config.evaluation.operating.model_dump(mode="json"),
        "student": student if isinstance(student, str) else student.stage,
        "teacher": config.teacher.model,
        "teacher_ask": config.serving.teacher_ask,
        "task": file_fingerprint(config.task.file),
        "prompt_version": PROMPT_VERSION,
        "synthetic": isinstance(config.cohort, SyntheticCohort),
    }
    reads = ["rationales"] if isinstance(student, str) else ["rationales", student.answers_stage]

    def make() -> Rows:
        run.clear(OPERATING_STAGE)
        if isinstance(student, str):
            return _none(student)
        return _fit(config, run, student)

    return run_stage(run, Stage(OPERATING_STAGE, settings, reads), make, overwrite=config.run.overwrite)


def _served(config: PipelineConfig) -> Student | str:
    """The served student, or why there is none."""
    try:
        return served_student(config)
    except UserError as error:
        return str(error)


def _fit(config: PipelineConfig, run: RunFolder, student: Student) -> Rows:
    task = load_task(config.task.file)
    tiers = read_tiers(config, run, "validation", task.label_names)
    names = Names(
        task=task.name,
        labels=task.label_names,
        prompt_version=PROMPT_VERSION,
        student=student.arm_name,
        student_ask=student.arm.answers,
        teacher=short_name(config.teacher.model),
        teacher_ask=config.serving.teacher_ask,
    )
    note = SYNTHETIC_NOTE if isinstance(config.cohort, SyntheticCohort) else ""
    visits = len(tiers.truth)
    try:
        point = fit_operating_point(tiers, names, config.evaluation.operating, note)
    except ValueError as error:
        return _none(str(error), visits)
    run.write_bytes(OPERATING_POINT_FILE, (point.model_dump_json(indent=2) + "\n").encode())
    print(f"  operating point {point.version}: threshold {point.threshold:.3f}; {point.target}")
    return Rows(visits, visits, details={"version": point.version, "threshold": point.threshold})


def _none(why: str, visits: int = 0) -> Rows:
    print(f"  no operating point: {why}")
    return Rows(visits, visits, details={"version": None, "why_none": why})
