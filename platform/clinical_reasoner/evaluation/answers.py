"""Stages `students/NAME/ARM/SEED/answers`: each finished student is asked about the validation and the test split."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.examples import unusable, visits_of
from clinical_reasoner.distillation.students import Student, students_of
from clinical_reasoner.llm.batch import Batch, generate
from clinical_reasoner.llm.generation import Model
from clinical_reasoner.rationales.asks import ASKS, make_asks
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS
from clinical_reasoner.rationales.rows import AskRenderer, RationaleFinisher
from clinical_reasoner.records import RATIONALES, REJECTED, RejectedRow, Split, to_table
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, run_stage, work_folder
from clinical_reasoner.task import load_task

ASKED_ABOUT: tuple[Split, ...] = ("validation", "test")
"""The validation split calibrates, the test split is reported."""


def make_answers(config: PipelineConfig, run: RunFolder) -> Iterator[Manifest]:
    """Ask every student of the run, one engine after the other."""
    for student in students_of(config):
        yield _make_answers(config, run, student)


def _make_answers(config: PipelineConfig, run: RunFolder, student: Student) -> Manifest:
    engine, sampling = student.settings.engine, student.settings.sampling
    settings = {"engine": engine.identity(), "sampling": sampling.model_dump(mode="json")}
    stage = Stage(student.answers_stage, settings, ["findings", student.stage])
    task = load_task(config.task.file)

    def make() -> Rows:
        rejected: list[RejectedRow] = []
        seen = _seen(visits_of(run, student, ASKED_ABOUT), student, rejected)
        asks = make_asks(seen, {student.arm.answers: ASKED_ABOUT}, student.stage, seed=sampling.seed)
        renderer = AskRenderer(task, NO_EXEMPLARS, inputs=student.settings.inputs, pictures=run.path)
        finisher = RationaleFinisher(renderer, student.stage)
        with tempfile.TemporaryDirectory() as scratch:
            source = run.local_folder(student.model_folder, scratch)
            sees = student.settings.inputs != "text"
            family = student.settings.family
            model = Model(source, engine, sampling, len(task.labels) + 2, sees_pictures=sees, family=family, task=task)
            batch = Batch(asks, ASKS, work_folder(run, stage), config.rationales.rows_per_block)
            rows = generate(run, batch, model, renderer, finisher, RATIONALES, config.run.logical_cpus)
        with run.table_writer(stage.name, RATIONALES) as writer:
            for row in rows:
                writer.add(row)
        run.write_rejected(stage.name, to_table(rejected, REJECTED))
        return Rows(writer.rows + len(rejected), writer.rows, len(rejected))

    return run_stage(run, stage, make, overwrite=config.run.overwrite)


def _seen(visits: Iterable[dict[str, Any]], student: Student, rejected: list[RejectedRow]) -> Iterator[dict[str, Any]]:
    """The visits that a student can be asked about; the others are added to `rejected`."""
    for number, visit in enumerate(visits, start=1):
        reason = unusable(visit, student.settings.inputs) if visit["split"] in ASKED_ABOUT else None
        if reason is None:
            yield visit
        else:
            rejected.append(RejectedRow(source=f"findings row {number}", stage=student.answers_stage, reason=reason))
