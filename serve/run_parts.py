"""What the endpoint takes from a run and its config: the student, the panel, the example of its documentation."""

from __future__ import annotations

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.students import served_student
from clinical_reasoner.errors import UserError
from clinical_reasoner.evidence.description import check_task_fields
from clinical_reasoner.llm.prompting import Exemplar, load_exemplars
from clinical_reasoner.rationales.exemplars import exemplar_choice
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.serving.panel import Panel, student_role, teacher_role
from clinical_reasoner.task import load_task


def find_student(config: PipelineConfig) -> str:
    """Path or `s3://` address of the run's student.

    Raises UserError where the student is not finished, sees pictures or is no decoder, or where the run has since
    remade what it was trained on.
    """
    run, student = RunFolder(config.run.path), served_student(config)
    if student.settings.inputs != "text":
        raise UserError(f"student.inputs={student.settings.inputs!r}: the endpoint serves students of text alone")
    if student.settings.family != "decoder":
        raise UserError(
            f"student.family={student.settings.family!r}: the endpoint serves decoders alone, as vLLM runs no others; "
            "put a decoder under `student` and this one under `more_students`"
        )
    manifest = run.manifest(student.stage)
    if manifest is None:
        raise UserError(
            f"{run.child(student.stage)}: no finished student there (run.path, serving.student_arm); run "
            "`make demo` first, or jobs/run_pipeline.py with this config"
        )
    for name, identity in manifest.inputs.items():
        upstream = run.manifest(name)
        if upstream is not None and upstream.identity != identity:
            raise UserError(
                f"{run.child(student.stage)}: trained on another {name!r} than the run now has; run "
                "jobs/run_pipeline.py with this config and run.overwrite=true"
            )
    return run.child(student.model_folder)


def make_panel(config: PipelineConfig) -> Panel:
    """Task, models and threshold. Raises TaskError where the task or exemplar file cannot be used."""
    task = load_task(config.task.file)
    check_task_fields(task, config.task.file)
    teacher = teacher_role(config.teacher.model, exemplar_choice(config, task), config.rationales.words())
    return Panel(task, student_role(served_student(config)), teacher, config.serving.threshold)


def shown_exemplar(panel: Panel) -> Exemplar:
    """The example of the documentation: of the task's own file, since one of `task.exemplars` may be a patient."""
    return load_exemplars(panel.task.exemplars, panel.task)[0]
