"""Stage `rationales`: all asks in one pass of each teacher's engine, resumable, then one table with the selection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.teacher import TeacherConfig
from clinical_reasoner.evidence.language import load_language
from clinical_reasoner.llm.batch import Batch, generate
from clinical_reasoner.llm.generation import Model, NoAnswerError, Row
from clinical_reasoner.llm.prompting import PROMPT_VERSION
from clinical_reasoner.rationales.asks import ASKS, make_asks
from clinical_reasoner.rationales.counts import Counts, is_unanswered
from clinical_reasoner.rationales.exemplars import exemplar_choice
from clinical_reasoner.rationales.rows import AskRenderer, RationaleFinisher
from clinical_reasoner.rationales.selection import select
from clinical_reasoner.records import FINDINGS, RATIONALES
from clinical_reasoner.runs import Manifest, RunError, RunFolder
from clinical_reasoner.stages import Rows, Stage, file_fingerprint, model_fingerprint, run_stage, work_folder
from clinical_reasoner.task import DiagnosisTask, load_task

RATIONALES_STAGE = "rationales"
UNANSWERED = f"{RATIONALES_STAGE}/unanswered"
"""Name of the work on what an earlier run has no answer to: that of the stage goes once the stage is finished."""


def make_rationales(config: PipelineConfig, run: RunFolder) -> Manifest:
    """Write `rationales/`. Every ask has its row; what is not fit for training says why in `reject_reason`.

    Asks that have no answer because an engine or endpoint failed are put again by the next run.
    """
    task = load_task(config.task.file)
    load_language(task.language)  # one that there is not ends the run here, not in a worker
    asking = _Asking(config, run, task, teacher_renderer(config, task))
    settings = _settings(config, task)
    stage = Stage(RATIONALES_STAGE, {**settings, "retries": _retries(run)}, ["findings"])
    made = False

    def make() -> Rows:
        nonlocal made
        made = True
        # Its work is that of the settings alone: a killed run has lost the manifest with the retries.
        return asking.write(asking.answers(work_folder(run, replace(stage, settings=settings))))

    manifest = run_stage(run, stage, make, overwrite=config.run.overwrite)
    if made or not manifest.details["unanswered"]:
        run.clear_work(UNANSWERED)  # of a run that was killed right after its manifest, or of other settings
        return manifest
    return _ask_again(asking, stage, manifest)


def teacher_renderer(config: PipelineConfig, task: DiagnosisTask) -> AskRenderer:
    """How a run asks its teachers. Raises TaskError when the exemplar file cannot be used or has too few."""
    return AskRenderer(task, exemplar_choice(config, task), config.rationales.words())


def teacher_model(teacher: TeacherConfig, task: DiagnosisTask, token_candidates: int = 0) -> Model:
    """A teacher with what it takes to ask it; two candidates more than options, for other spellings of a letter."""
    own = (teacher.base_url, teacher.endpoint, teacher.deployment)
    return Model(teacher.model, teacher.engine, teacher.sampling, len(task.labels) + 2, *own, token_candidates)


def _settings(config: PipelineConfig, task: DiagnosisTask) -> dict[str, Any]:
    return {
        "teachers": {name: _identity(teacher) for name, teacher in config.teachers().items()},
        # Students learn from the first one, and work is kept by their places.
        "order": [*config.teachers()],
        "rationales": {
            **config.rationales.model_dump(mode="json", exclude={"rows_per_block"}),
            "asks": {ask: config.rationales.splits_of(ask) for ask in ASK_KINDS},
        },
        "task": file_fingerprint(config.task.file),
        "exemplars": file_fingerprint(config.task.exemplars or task.exemplars),
        "prompt_version": PROMPT_VERSION,
    }


def _identity(teacher: TeacherConfig) -> dict[str, Any]:
    elsewhere = teacher.base_url or teacher.deployment
    return {**teacher.identity(), "weights": teacher.model if elsewhere else model_fingerprint(teacher.model)}


def _retries(run: RunFolder) -> int:
    """How often the table on disk had unanswered asks filled in."""
    try:
        manifest = run.manifest(RATIONALES_STAGE)
    except RunError:  # not of this version: run_stage says so, or makes the table again
        return 0
    return manifest.settings.get("retries", 0) if manifest else 0


@dataclass(frozen=True)
class _Asking:
    """All that it takes to put the asks of a run to its teachers."""

    config: PipelineConfig
    run: RunFolder
    task: DiagnosisTask
    renderer: AskRenderer

    def answers(self, work: str) -> Iterator[Row]:
        """Rows of all asks, one teacher after the other."""
        # All have answered before the table is begun.
        return chain.from_iterable([self.of_teacher(name, work) for name in self.config.teachers()])

    def of_teacher(self, name: str, work: str, only: set[str] | None = None) -> Iterator[Row]:
        """Rows of all asks of a teacher, or of those with these ids."""
        teacher, number = self.config.teachers()[name], list(self.config.teachers()).index(name)
        settings = self.config.rationales
        asks = make_asks(
            (visit for batch in self.run.batches("findings", FINDINGS) for visit in batch.to_pylist()),
            {ask: settings.splits_of(ask) for ask in ASK_KINDS},
            name,
            seed=teacher.sampling.seed,
            samples={ask: settings.samples_of(ask) for ask in ASK_KINDS},
        )
        wanted = asks if only is None else (row for row in asks if row["row_id"] in only)
        finisher = RationaleFinisher(self.renderer, name, settings.accepted_words)
        return generate(
            self.run,
            Batch(wanted, ASKS, f"{work}/{number}", settings.rows_per_block, asked_before=only is not None),
            teacher_model(teacher, self.task, self.config.rationales.token_candidates),
            self.renderer,
            finisher,
            RATIONALES,
            self.config.run.logical_cpus,
        )

    def write(self, rows: Iterable[Row]) -> Rows:
        """Select among the rows and write the table."""
        counts = Counts()
        with self.run.table_writer(RATIONALES_STAGE, RATIONALES) as writer:
            for row in select(rows):
                writer.add(row)
                counts.add(row)
        return Rows(counts.rows, counts.rows, details=counts.summary(self.config.teachers()))


def _ask_again(asking: _Asking, stage: Stage, manifest: Manifest) -> Manifest:
    """Fill in what an earlier run has no answer to. The table has another identity then, as it has other rows; where
    still nothing answers it stays as it is."""
    run, settings = asking.run, {**stage.settings, "retries": stage.settings["retries"] + 1}
    open_ids = {row["row_id"] for row in _rows(run) if is_unanswered(row)}
    print(f"[{stage.name}] {len(open_ids)} asks have no answer yet; asking again", flush=True)
    # Of these very asks: a run that was killed between table and manifest left fewer.
    work = work_folder(run, Stage(UNANSWERED, {**settings, "asks": sorted(open_ids)}, stage.reads))
    answered: dict[str, Row] = {}
    for name in asking.config.teachers():
        try:
            rows_of_teacher = asking.of_teacher(name, work, open_ids)
            answered |= {row["row_id"]: row for row in rows_of_teacher if not is_unanswered(row)}
        except NoAnswerError as error:  # another teacher may answer
            print(f"[{stage.name}] still no answer: {error}", flush=True)
    if not answered and len(open_ids) == manifest.details["unanswered"]:
        return manifest
    rows = asking.write(answered.get(row["row_id"], row) for row in _rows(run))
    print(f"[{stage.name}] {len(answered)} answered, {rows.details['unanswered']} still open", flush=True)
    filled = run.finish(
        stage.name,
        settings=settings,
        inputs=manifest.inputs,
        rows_in=rows.rows_in,
        rows_out=rows.rows_out,
        rows_rejected=0,
        seconds=manifest.seconds,
        details=rows.details,
    )
    run.clear_work(UNANSWERED)
    return filled


def _rows(run: RunFolder) -> Iterator[Row]:
    return (row for batch in run.batches(RATIONALES_STAGE, RATIONALES) for row in batch.to_pylist())
