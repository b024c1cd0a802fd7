"""Stages `students/ARM/answers`: each finished student is asked about the test split, as the teacher was."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.student import Arm
from clinical_reasoner.distillation.examples import ARM_ASKS
from clinical_reasoner.distillation.stage import model_folder, student_stage
from clinical_reasoner.llm.batch import Batch, generate
from clinical_reasoner.llm.generation import Model
from clinical_reasoner.rationales.asks import ASKS, make_asks
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS
from clinical_reasoner.rationales.rows import AskRenderer, RationaleFinisher
from clinical_reasoner.records import FINDINGS, RATIONALES
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, run_stage, work_folder
from clinical_reasoner.task import load_task


def answers_stage(arm: Arm) -> str:
    return f"{student_stage(arm)}/answers"


def make_answers(config: PipelineConfig, run: RunFolder) -> Iterator[Manifest]:
    """Ask every student of the run, one engine after the other."""
    for arm in config.student.arms:
        yield _make_answers(config, run, arm)


def _make_answers(config: PipelineConfig, run: RunFolder, arm: Arm) -> Manifest:
    student = config.student
    settings = {
        "engine": student.engine.identity(),
        "sampling": student.sampling.model_dump(mode="json"),
    }
    stage = Stage(answers_stage(arm), settings, ["findings", student_stage(arm)])
    task = load_task(config.task.file)

    def make() -> Rows:
        name = student_stage(arm)
        visits = (visit for batch in run.batches("findings", FINDINGS) for visit in batch.to_pylist())
        asks = make_asks(visits, {ARM_ASKS[arm]: ("test",)}, name, seed=student.sampling.seed)
        renderer = AskRenderer(task, NO_EXEMPLARS)
        finisher = RationaleFinisher(renderer, name)
        with tempfile.TemporaryDirectory() as scratch:
            source = run.local_folder(model_folder(arm), scratch)
            model = Model(source, student.engine, student.sampling, len(task.labels) + 2)
            batch = Batch(asks, ASKS, work_folder(run, stage), config.rationales.rows_per_block)
            rows = generate(run, batch, model, renderer, finisher, RATIONALES, config.run.logical_cpus)
        with run.table_writer(stage.name, RATIONALES) as writer:
            for row in rows:
                writer.add(row)
        return Rows(writer.rows, writer.rows)

    return run_stage(run, stage, make, overwrite=config.run.overwrite)
