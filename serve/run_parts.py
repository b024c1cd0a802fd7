"""What the endpoint takes from a run and its config: the student, the panel, and the desk that each replica makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from clinical_reasoner.cluster import local_or_name
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.students import served_student
from clinical_reasoner.errors import UserError
from clinical_reasoner.evidence.description import check_task_fields
from clinical_reasoner.evidence.stage import NORMS_FILE
from clinical_reasoner.imaging.norms import Norms, load_norms
from clinical_reasoner.llm.control_tokens import control_tokens
from clinical_reasoner.llm.prompting import Exemplar, load_exemplars
from clinical_reasoner.rationales.exemplars import exemplar_choice
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.serving.audit import load_audit_key
from clinical_reasoner.serving.audit_files import audit_places
from clinical_reasoner.serving.audit_log import open_audit_log
from clinical_reasoner.serving.fhir_codes import FhirCodes, read_codes
from clinical_reasoner.serving.keys import read_keyring
from clinical_reasoner.serving.panel import Engine, Panel, student_role, teacher_role
from clinical_reasoner.serving.schema import AnsweredBy
from clinical_reasoner.serving.uploads import UploadRules
from clinical_reasoner.stages import model_fingerprint
from clinical_reasoner.task import load_task
from serve.access import Door
from serve.desk import Desk
from serve.points import PointFile
from serve.recording import Recorder
from serve.scans import ScanRoom
from serve.telemetry import Meters


@dataclass(frozen=True)
class Parts:
    """What is read once, before anything starts, and handed to every replica of the HTTP side."""

    config: PipelineConfig
    panel: Panel
    example: Exemplar
    points: PointFile
    norms: Norms
    codes: FhirCodes | None


def make_parts(config: PipelineConfig, student: str) -> Parts:
    """`student` as `find_student` gives it. Raises UserError where a file that the endpoint needs cannot be used."""
    panel = make_panel(config, student)
    points = PointFile(config.run.path, config.serving.operating_point, panel)
    if config.serving.api_keys is not None:
        read_keyring(config.serving.api_keys)
    audit_places(config.serving.audit, config.run.path)
    return Parts(
        config=config,
        panel=replace(panel, operating_point=points.read()),
        example=shown_exemplar(panel),
        points=points,
        norms=_norms(config),
        codes=read_codes(config.serving.fhir_codes, panel.task) if config.serving.fhir_codes else None,
    )


def make_desk(parts: Parts, engines: Mapping[AnsweredBy, Engine], replica: str) -> Desk:
    """In the replica itself: it opens the audit record. Raises UserError where that cannot be written."""
    config, panel = parts.config, parts.panel
    serving, cut_points = config.serving, tuple(config.evidence.cut_points)
    rules = UploadRules(task=panel.task, norms=parts.norms, cut_points=cut_points, limits=serving.uploads)
    places = audit_places(serving.audit, config.run.path)
    log = open_audit_log(serving.audit, config.run.path)
    assert places.key_file is not None, "open_audit_log refuses places without one"
    return Desk(
        panel=panel,
        engines=engines,
        limits=serving,
        example=parts.example,
        door=Door(serving, read_keyring(serving.api_keys) if serving.api_keys else None),
        recorder=Recorder(log),
        meters=Meters(replica, {"student": panel.student.model, "teacher": panel.teacher.model}),
        scans=ScanRoom(rules),
        codes=parts.codes,
        norms=parts.norms,
        cut_points=cut_points,
        audit_key=load_audit_key(places.key_file),
    )


def find_student(config: PipelineConfig) -> str:
    """Path or `s3://` address of the run's student.

    Raises UserError where the student is not finished or is no decoder, or where the run has since remade what it was
    trained on.
    """
    run, student = RunFolder(config.run.path), served_student(config)
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


def make_panel(config: PipelineConfig, student: str | None = None) -> Panel:
    """Task, models and threshold; with `student`, its place, also what is known of the models' files. Raises TaskError
    where the task or exemplar file cannot be used."""
    task = load_task(config.task.file)
    check_task_fields(task, config.task.file)
    teacher = teacher_role(
        config.teacher.model, exemplar_choice(config, task), config.rationales.words(), config.serving.teacher_ask
    )
    panel = Panel(task, student_role(served_student(config)), teacher, config.serving.threshold)
    if student is None:
        return panel
    source = local_or_name(config.teacher.model)
    return replace(
        panel,
        student=replace(
            panel.student, control_tokens=control_tokens(student), fingerprint=_fingerprint(config, student)
        ),
        teacher=replace(teacher, control_tokens=control_tokens(source), fingerprint=model_fingerprint(source)),
    )


def shown_exemplar(panel: Panel) -> Exemplar:
    """The example of the documentation: of the task's own file, since one of `task.exemplars` may be a patient."""
    return load_exemplars(panel.task.exemplars, panel.task)[0]


def _fingerprint(config: PipelineConfig, student: str) -> str:
    """Of a local folder its files'; on S3 that of the training that made it."""
    if not student.startswith("s3://"):
        return model_fingerprint(student)
    manifest = RunFolder(config.run.path).manifest(served_student(config).stage)
    assert manifest is not None, "find_student refuses a student without one"
    return manifest.identity


def _norms(config: PipelineConfig) -> Norms:
    """Of the run; none where it has none."""
    run = RunFolder(config.run.path)
    return load_norms(run.child(NORMS_FILE)) if run.exists(NORMS_FILE) else Norms()
