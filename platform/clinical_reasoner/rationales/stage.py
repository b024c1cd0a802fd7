"""Stage `rationales`: all asks in one pass of one engine, resumable, then the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evidence.language import load_language
from clinical_reasoner.llm.batch import Batch, Model, Row, generate
from clinical_reasoner.llm.prompting import PROMPT_VERSION, Exemplar, load_exemplars
from clinical_reasoner.rationales.asks import make_asks
from clinical_reasoner.rationales.rows import AskRenderer, RationaleFinisher
from clinical_reasoner.records import FINDINGS, RATIONALES, Ask
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, file_fingerprint, model_fingerprint, run_stage, work_folder
from clinical_reasoner.task import DiagnosisTask, TaskError, load_task

RATIONALES_STAGE = "rationales"


def make_rationales(config: PipelineConfig, run: RunFolder) -> Manifest:
    """Write `rationales/`. Every ask has its row; what is not fit for training says why in `reject_reason`."""
    task = load_task(config.task.file)
    load_language(task.language)  # one that there is not ends the run here, not in a worker
    exemplars = chosen_exemplars(config, task)
    settings = {
        "teacher": config.teacher.identity(),
        "weights": model_fingerprint(config.teacher.model),
        "rationales": config.rationales.model_dump(mode="json", exclude={"rows_per_block"}),
        "task": file_fingerprint(config.task.file),
        "exemplars": file_fingerprint(config.task.exemplars or task.exemplars),
        "prompt_version": PROMPT_VERSION,
    }
    stage = Stage(RATIONALES_STAGE, settings, ["findings"])

    def make() -> Rows:
        asks = make_asks(run.read_table("findings", FINDINGS), config.rationales.asks.splits())
        renderer = AskRenderer(task, exemplars)
        finisher = RationaleFinisher(
            renderer, config.teacher.model, config.teacher.sampling.seed, config.rationales.length
        )
        model = Model(config.teacher.model, config.teacher.engine, config.teacher.sampling, len(task.labels) + 2)
        batch = Batch(asks, "row_id", work_folder(run, stage), config.rationales.rows_per_block)
        table = generate(run, batch, model, renderer, finisher, RATIONALES, config.run.logical_cpus)
        run.write_table(RATIONALES_STAGE, table)
        return Rows(asks.num_rows, table.num_rows, details=summarise(table))

    return run_stage(run, stage, make, overwrite=config.run.overwrite)


def chosen_exemplars(config: PipelineConfig, task: DiagnosisTask) -> tuple[Exemplar, ...]:
    """The exemplars of the run's few-shot prompts, the labels in turn. Raises TaskError when the file has too few."""
    path = config.task.exemplars or task.exemplars
    exemplars = load_exemplars(path, task)
    if len(exemplars) < config.rationales.shots:
        raise TaskError(f"{path}: {len(exemplars)} exemplars, but rationales.shots={config.rationales.shots}")
    seen: Counter[str] = Counter()
    turns = []
    for exemplar in exemplars:
        turns.append(seen[exemplar.label])
        seen[exemplar.label] += 1
    in_turn = [exemplar for _, exemplar in sorted(zip(turns, exemplars, strict=True), key=lambda pair: pair[0])]
    return tuple(in_turn[: config.rationales.shots])


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
    if ask != "rationalize":
        counts["correct"] = sum(row["predicted"] is not None and row["predicted"] == row["label"] for row in rows)
    if ask != "direct":
        for name in ("claims_supported", "claims_contradicted", "claims_not_in_evidence"):
            counts[name] = sum(row[name] for row in rows)
    return {**counts, "output_tokens": sum(row["output_tokens"] for row in rows)}
