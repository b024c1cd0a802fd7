"""The rationale stage against plain `vllm.LLM.generate` on the same prompts, and three asks in one pass against three.

Speed is that of the steady state: from the engine's first request to the last finished row, without start-up. The plain
engine runs before and after the stage, so that a drift of the machine's speed shows and averages out. Whole runs of the
stage, start-up and all, are each in a process of their own.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from clinical_reasoner.benchmarks.looking import looking
from clinical_reasoner.benchmarks.processes import in_own_process
from clinical_reasoner.benchmarks.scraping import PrefixCache
from clinical_reasoner.cluster import QUIET, connect, local_or_name
from clinical_reasoner.cohort.stage import make_patients
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evidence.stage import make_findings
from clinical_reasoner.imaging.stage import make_measures
from clinical_reasoner.llm.batch import Batch, generate
from clinical_reasoner.llm.engine import batch_engine_arguments, engine_environment, row_params, sampling_params
from clinical_reasoner.llm.generation import Generation, Row
from clinical_reasoner.rationales.asks import ASKS, make_asks
from clinical_reasoner.rationales.rows import RationaleFinisher
from clinical_reasoner.rationales.selection import select
from clinical_reasoner.rationales.stage import teacher_model, teacher_renderer
from clinical_reasoner.records import FINDINGS, RATIONALES, Ask, Split
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import load_task

_LOOK_S = 8.0
THREE: tuple[Ask, ...] = ("rationalize", "diagnose", "direct")
_CLOCKS = pa.schema([("finished_at", pa.float64()), ("engine_seconds", pa.float64()), ("output_tokens", pa.int64())])
_TIMED = pa.schema([*RATIONALES, *list(_CLOCKS)[:2]])


@dataclass(frozen=True)
class TimedFinisher:
    """The stage's own finisher, with the wall clock of each row."""

    finisher: RationaleFinisher

    def __call__(self, row: Row, generation: Generation) -> Row:
        finished = self.finisher(row, generation)
        return {**finished, "finished_at": time.time(), "engine_seconds": float(row["time_taken_llm"])}


@dataclass(frozen=True)
class StageRun:
    """One run of the stage."""

    seconds: float
    """Wall time, from before Ray starts to the written table."""
    tokens_per_s: float
    """Output tokens per second of the steady state."""
    rows: int
    prefix_hits: float | None
    """Share of the prompts' tokens that the engine had in its prefix cache."""


def benchmark_generation(config: PipelineConfig) -> dict[str, Any]:
    """Three asks about every patient of the configured cohort, in run folders of their own."""
    with tempfile.TemporaryDirectory() as folder:
        configs = {
            asks: in_folder(config, f"{folder}/{'-'.join(asks)}") for asks in [THREE, *((ask,) for ask in THREE)]
        }
        for one in configs.values():
            prepare(one)
        plain = [in_own_process(_generate_plainly, configs[THREE])]
        together = _told("three asks together", in_own_process(run_stage, configs[THREE], THREE))
        plain.append(in_own_process(_generate_plainly, configs[THREE]))
        apart = [_told(ask, in_own_process(run_stage, configs[ask,], (ask,))) for ask in THREE]
    separate_s = sum(one.seconds for one in apart)
    return {
        "benchmark": "generation",
        "ratio": round(2 * together.tokens_per_s / sum(plain), 3),
        "stage_tokens_per_s": round(together.tokens_per_s),
        "plain_tokens_per_s": [round(one) for one in plain],
        "prompts": together.rows,
        "prefix_cache_hit_rate": together.prefix_hits,
        "together_over_separate": round(together.seconds / separate_s, 3),
        "seconds_together": round(together.seconds, 1),
        "seconds_separate": [round(one.seconds, 1) for one in apart],
    }


def in_folder(config: PipelineConfig, path: str) -> PipelineConfig:
    """The same run in another folder."""
    return config.model_copy(update={"run": config.run.model_copy(update={"path": path})})


def _told(name: str, run: StageRun) -> StageRun:
    print(f"{name}: {run}", flush=True)
    return run


def prepare(config: PipelineConfig) -> None:
    """Findings, which every run of the stage reads."""
    run = RunFolder(config.run.path)
    for make in (make_patients, make_measures, make_findings):
        make(config, run)


def _asks(config: PipelineConfig, asks: tuple[Ask, ...]) -> Any:
    visits = (row for batch in RunFolder(config.run.path).batches("findings", FINDINGS) for row in batch.to_pylist())
    splits: dict[Ask, tuple[Split, ...]] = dict.fromkeys(asks, get_args(Split))
    return make_asks(visits, splits, config.teacher.model, seed=config.teacher.sampling.seed)


def run_stage(config: PipelineConfig, asks: tuple[Ask, ...]) -> StageRun:
    """These asks about every patient, from start-up to the written table."""
    started = time.perf_counter()
    run, task = RunFolder(config.run.path), load_task(config.task.file)
    renderer = teacher_renderer(config, task)
    finisher = TimedFinisher(RationaleFinisher(renderer, config.teacher.model))
    batch = Batch(_asks(config, asks), ASKS, "work/benchmark", config.rationales.rows_per_block)
    model, cpus = teacher_model(config.teacher, task), config.run.logical_cpus
    connect(cpus)
    cache = PrefixCache()
    with looking(cache.look, _LOOK_S):
        rows = select(generate(run, batch, model, renderer, finisher, _TIMED, cpus))
        with run.table_writer("rationales", _TIMED) as writer:
            for row in rows:
                writer.add(row)
    seconds = time.perf_counter() - started
    table = run.read_table("rationales", _CLOCKS)
    begun = pc.min(pc.subtract(table["finished_at"], table["engine_seconds"])).as_py()
    steady = pc.max(table["finished_at"]).as_py() - begun
    return StageRun(seconds, pc.sum(table["output_tokens"]).as_py() / steady, table.num_rows, cache.hit_rate())


def _generate_plainly(config: PipelineConfig) -> float:
    """Output tokens per second of `vllm.LLM.generate`, which has all prompts at once."""
    task = load_task(config.task.file)
    model, renderer = teacher_model(config.teacher, task), teacher_renderer(config, task)
    source = local_or_name(model.source)
    os.environ.update({**QUIET, **engine_environment(model.engine, source)})
    from vllm import LLM, SamplingParams

    engine = LLM(source, **batch_engine_arguments(model))
    tokenizer: Any = engine.get_tokenizer()
    options = {"tokenize": False, "add_generation_prompt": True, **model.engine.chat_template_kwargs}
    rows = list(_asks(config, THREE))
    prompts = [tokenizer.apply_chat_template(renderer(row), **options) for row in rows]
    params = [SamplingParams(**row_params(sampling_params(model), row)) for row in rows]
    started = time.perf_counter()
    outputs = engine.generate(prompts, params)
    seconds = time.perf_counter() - started
    rate = sum(len(output.outputs[0].token_ids) for output in outputs) / seconds
    print(f"plain vllm.LLM.generate: {rate:.0f} tokens/s, {seconds:.1f} s for {Path(source).name}", flush=True)
    return rate
