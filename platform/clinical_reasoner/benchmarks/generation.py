"""Output tokens per second of the rationale stage against plain `vllm.LLM.generate` on the same prompts.

Steady state: from the engine's first request to the last finished row, without start-up. The plain engine runs before
and after the stage, so that a drift of the machine's speed shows and averages out.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from clinical_reasoner.cluster import QUIET, local_or_name
from clinical_reasoner.cohort.stage import make_patients
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evidence.stage import make_findings
from clinical_reasoner.imaging.stage import make_measures
from clinical_reasoner.llm.batch import Batch, generate
from clinical_reasoner.llm.engine import engine_arguments, engine_environment, sampling_params
from clinical_reasoner.llm.generation import Generation, Model, Row
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.rationales.asks import make_asks
from clinical_reasoner.rationales.rows import AskRenderer, RationaleFinisher
from clinical_reasoner.rationales.stage import teacher_renderer
from clinical_reasoner.records import FINDINGS, RATIONALES
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import load_task

_TIMED = RATIONALES.append(pa.field("finished_at", pa.float64())).append(pa.field("engine_seconds", pa.float64()))


@dataclass(frozen=True)
class TimedFinisher:
    """The stage's own finisher, with the wall clock of each row."""

    finisher: RationaleFinisher

    def __call__(self, row: Row, generation: Generation) -> Row:
        finished = self.finisher(row, generation)
        return {**finished, "finished_at": time.time(), "engine_seconds": float(row["time_taken_llm"])}


def benchmark_generation(config: PipelineConfig) -> dict[str, Any]:
    """Few-shot `diagnose` about every patient of the configured cohort, in a run folder of its own."""
    import ray

    task = load_task(config.task.file)
    renderer = teacher_renderer(config, task)
    model = Model(config.teacher.model, config.teacher.engine, config.teacher.sampling, len(task.labels) + 2)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(folder)
        make_patients(config, run)
        make_measures(config, run)
        make_findings(config, run)
        ray.shutdown()  # started for the measures of scans; the plain engine has the machine to itself
        findings = run.read_table("findings", FINDINGS)
        asks = make_asks(findings, {"diagnose": ("train", "validation", "test")}, seed=model.sampling.seed)
        chats = [renderer(row) for row in asks.to_pylist()]
        before = _plain_rate(model, chats)
        stage = _stage_rate(config, run, asks, model, renderer)
        after = _plain_rate(model, chats)
    return {
        "benchmark": "generation",
        "ratio": round(2 * stage / (before + after), 3),
        "stage_tokens_per_s": round(stage),
        "plain_tokens_per_s": [round(before), round(after)],
        "prompts": asks.num_rows,
    }


def _stage_rate(config: PipelineConfig, run: RunFolder, asks: pa.Table, model: Model, renderer: AskRenderer) -> float:
    import ray

    finisher = TimedFinisher(RationaleFinisher(renderer, model.source))
    batch = Batch(asks, "row_id", "work/benchmark", config.rationales.rows_per_block)
    rows = generate(run, batch, model, renderer, finisher, _TIMED, config.run.logical_cpus).to_pylist()
    ray.shutdown()
    started = min(row["finished_at"] - row["engine_seconds"] for row in rows)
    ended = max(row["finished_at"] for row in rows)
    return float(sum(row["output_tokens"] for row in rows) / (ended - started))


def _plain_rate(model: Model, chats: list[list[Message]]) -> float:
    """In a process of its own, so that the engine's memory and threads are free again afterwards."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_generate_plainly, args=(model, chats, sender))
    process.start()
    sender.close()
    try:
        return float(receiver.recv())
    except EOFError as error:
        raise RuntimeError("the plain vLLM engine ended without a result; its output is above") from error
    finally:
        process.join()


def _generate_plainly(model: Model, chats: list[list[Message]], sender: Connection) -> None:
    source = local_or_name(model.source)
    os.environ.update({**QUIET, **engine_environment(model.engine, source)})
    from vllm import LLM, SamplingParams

    engine = LLM(source, **engine_arguments(model.engine))
    tokenizer: Any = engine.get_tokenizer()
    options = {"tokenize": False, "add_generation_prompt": True, **model.engine.chat_template_kwargs}
    prompts = [tokenizer.apply_chat_template(chat, **options) for chat in chats]
    started = time.perf_counter()
    outputs = engine.generate(prompts, SamplingParams(**sampling_params(model)))
    seconds = time.perf_counter() - started
    sender.send(sum(len(output.outputs[0].token_ids) for output in outputs) / seconds)
