"""Stage `rationales`: all asks in one pass of one engine, resumable, then the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evidence.language import load_language
from clinical_reasoner.llm.batch import Batch, generate
from clinical_reasoner.llm.generation import Model, Row
from clinical_reasoner.llm.prompting import PROMPT_VERSION
from clinical_reasoner.rationales.asks import make_asks
from clinical_reasoner.rationales.exemplars import exemplar_choice
from clinical_reasoner.rationales.rows import AskRenderer, RationaleFinisher
from clinical_reasoner.records import FINDINGS, RATIONALES, Ask
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, file_fingerprint, model_fingerprint, run_stage, work_folder
from clinical_reasoner.task import DiagnosisTask, load_task

RATIONALES_STAGE = "rationales"


def make_rationales(config: PipelineConfig, run: RunFolder) -> Manifest:
    """Write `rationales/`. Every ask has its row; what is not fit for training says why in `reject_reason`."""
    task = load_task(config.task.file)
    load_language(task.language)  # one that there is not ends the run here, not in a worker
    renderer = teacher_renderer(config, task)
    settings = {
        "teacher": config.teacher.identity(),
        "weights": config.teacher.model if config.teacher.base_url else model_fingerprint(config.teacher.model),
        "rationales": {
            **config.rationales.model_dump(mode="json", exclude={"rows_per_block"}),
            "asks": {ask: config.rationales.splits_of(ask) for ask in ASK_KINDS},
        },
        "task": file_fingerprint(config.task.file),
        "exemplars": file_fingerprint(config.task.exemplars or task.exemplars),
        "prompt_version": PROMPT_VERSION,
    }
    stage = Stage(RATIONALES_STAGE, settings, ["findings"])

    def make() -> Rows:
        asks = make_asks(
            run.read_table("findings", FINDINGS),
            {ask: config.rationales.splits_of(ask) for ask in ASK_KINDS},
            seed=config.teacher.sampling.seed,
            samples={ask: config.rationales.samples_of(ask) for ask in ASK_KINDS},
        )
        finisher = RationaleFinisher(renderer, config.teacher.model, config.rationales.accepted_words)
        model = teacher_model(config, task)
        batch = Batch(asks, "row_id", work_folder(run, stage), config.rationales.rows_per_block)
        table = generate(run, batch, model, renderer, finisher, RATIONALES, config.run.logical_cpus)
        run.write_table(RATIONALES_STAGE, table)
        return Rows(asks.num_rows, table.num_rows, details=summarise(table))

    return run_stage(run, stage, make, overwrite=config.run.overwrite)


def teacher_renderer(config: PipelineConfig, task: DiagnosisTask) -> AskRenderer:
    """How a run asks its teacher. Raises TaskError when the exemplar file cannot be used or has too few."""
    return AskRenderer(task, exemplar_choice(config, task), config.rationales.words())


def teacher_model(config: PipelineConfig, task: DiagnosisTask) -> Model:
    """The teacher with what it takes to ask it; two candidates more than options, for other spellings of a letter."""
    teacher = config.teacher
    candidates = len(task.labels) + 2
    return Model(teacher.model, teacher.engine, teacher.sampling, candidates, teacher.base_url, teacher.endpoint)


def summarise(table: pa.Table) -> dict[str, Any]:
    """Counts of a `rationales` table: reasons, and for each ask its answers, those that parse, those that name the
    recorded diagnosis where it was not told, and claims by verdict where reasons were asked for."""
    rows = table.to_pylist()
    by_ask = {
        ask: _counts(ask, [row for row in rows if row["ask"] == ask]) for ask in dict.fromkeys(table["ask"].to_pylist())
    }
    return {"asks": by_ask, "reasons": dict(Counter(row["reject_reason"] or "accepted" for row in rows))}


def _counts(ask: Ask, rows: Sequence[Row]) -> dict[str, int]:
    counts = {
        "answers": len(rows),
        "engine_errors": sum((row["reject_reason"] or "").startswith("engine:") for row in rows),
        "parsed": sum(row["rationale"] is not None or row["predicted"] is not None for row in rows),
    }
    if ASK_KINDS[ask].gives_label:
        counts["correct"] = sum(row["predicted"] is not None and row["predicted"] == row["label"] for row in rows)
    if ASK_KINDS[ask].gives_rationale:
        for name in ("claims_supported", "claims_contradicted", "claims_not_in_evidence"):
            counts[name] = sum(row[name] for row in rows)
    return {**counts, "output_tokens": sum(row["output_tokens"] for row in rows)}
