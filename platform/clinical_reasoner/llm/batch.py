"""Generate: prompts through a vLLM engine under Ray Data, one row in and one row out, resumable.

The rows are read from Parquet and written to Parquet; a row whose id is already written is not asked again, so a killed
run continues where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from clinical_reasoner.cluster import connect, local_or_name
from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig
from clinical_reasoner.llm.answers import TokenLogprobs
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.runs import RunError, RunFolder

Row = dict[str, Any]
ENGINE_ERROR = "__inference_error__"


@dataclass(frozen=True)
class Generation:
    """What an engine returned for one prompt."""

    text: str
    tokens: TokenLogprobs
    prompt_tokens: int
    output_tokens: int
    error: str | None
    """Kind of the engine's error, without the prompt; None when the text is good."""


@dataclass(frozen=True)
class Model:
    """A model, the engine it runs in, and how it is sampled."""

    source: str
    """Hugging Face name or local folder."""
    engine: EngineConfig
    sampling: SamplingConfig
    logprobs: int
    """Candidates kept per generated token; the options of the question must be among them."""


@dataclass(frozen=True)
class Batch:
    """Prompts to be answered, and where the work is kept until all are."""

    prompts: pa.Table
    id_column: str
    work: str
    """Folder below the run folder, of its own for these prompts and this model; holds what a killed run leaves."""
    rows_per_block: int
    """Rows that are written, and so safe, together."""


def generate(
    run: RunFolder,
    batch: Batch,
    model: Model,
    render: Callable[[Row], list[Message]],
    finish: Callable[[Row, Generation], Row],
    schema: pa.Schema,
    logical_cpus: int,
) -> pa.Table:
    """`finish(row, generation)` for every prompt, in the order of the prompts.

    `render` and `finish` run on the workers and must be picklable. Resumes from `batch.work`; the caller clears that
    folder once it has written the table. Raises RunError when a row is missing or double.
    """
    if not batch.prompts.num_rows:
        return schema.empty_table()
    done = run.child(batch.work, "generated")
    wanted = batch.prompts.column(batch.id_column).to_pylist()
    if run.count_rows(f"{batch.work}/generated") < len(wanted):
        run.write_table(f"{batch.work}/prompts", batch.prompts)
        connect(logical_cpus)
        _run_pipeline(run, batch, model, render, finish, schema.names)
    table = run.read_table(f"{batch.work}/generated", schema)
    place = {row_id: index for index, row_id in enumerate(table.column(batch.id_column).to_pylist())}
    if len(place) != table.num_rows or place.keys() != set(wanted):
        missing = len(set(wanted) - place.keys())
        raise RunError(
            f"{done}: {table.num_rows - len(place)} rows double and {missing} missing; remove it and start again"
        )
    return table.take([place[row_id] for row_id in wanted])


def _run_pipeline(
    run: RunFolder,
    batch: Batch,
    model: Model,
    render: Callable[[Row], list[Message]],
    finish: Callable[[Row, Generation], Row],
    columns: Sequence[str],
) -> None:
    import ray
    from ray.data.checkpoint import CheckpointConfig

    context = ray.data.DataContext.get_current()
    context.enable_operator_progress_bars = sys.stdout.isatty()  # in a log, the total is enough
    context.checkpoint_config = CheckpointConfig(
        id_column=batch.id_column, checkpoint_path=run.child(batch.work, "checkpoint")
    )
    try:
        # Text rows are tiny: left alone they become one block, written once at the very end.
        rows = ray.data.read_parquet(run.child(batch.work, "prompts")).repartition(
            target_num_rows_per_block=batch.rows_per_block
        )
        answered = build_batch_processor(model, render, finish)(rows)
        answered.map(_Settler(finish, tuple(columns)), num_cpus=0.1).write_parquet(run.child(batch.work, "generated"))
    finally:
        context.checkpoint_config = None


@dataclass(frozen=True)
class _Settler:
    """Ray hands rows whose prompt failed past `postprocess`, with prompt and all: they are finished here, and every row
    keeps just the columns of the table."""

    finish: Callable[[Row, Generation], Row]
    columns: tuple[str, ...]

    def __call__(self, row: Row) -> Row:
        finished = self.finish(row, read_generation(row)) if row.get(ENGINE_ERROR) else row
        return {name: finished[name] for name in self.columns}


def build_batch_processor(
    model: Model, render: Callable[[Row], list[Message]], finish: Callable[[Row, Generation], Row]
) -> Any:
    """A Ray Data processor: chat template, engine and the two functions of `generate`."""
    from ray.data.llm import ChatTemplateStageConfig, build_processor, vLLMEngineProcessorConfig

    engine = model.engine
    params = sampling_params(model)

    def preprocess(row: Row) -> Row:
        return {**row, "messages": render(row), "sampling_params": params}

    def postprocess(row: Row) -> Row:
        return finish(row, read_generation(row))

    source = local_or_name(model.source)
    config = vLLMEngineProcessorConfig(
        model_source=source,
        engine_kwargs=engine_arguments(engine),
        batch_size=engine.batch_size,
        max_concurrent_batches=engine.concurrent_batches,
        concurrency=(engine.replicas, engine.replicas),
        should_continue_on_error=True,
        placement_group_config={"bundle_per_worker": worker_bundle(engine)},
        runtime_env={"env_vars": engine_environment(engine, source)},
        chat_template_stage=ChatTemplateStageConfig(enabled=True, num_cpus=0.1, concurrency=1),
        tokenize_stage=False,
        detokenize_stage=False,
    )
    light = {"num_cpus": 0.1}
    return build_processor(
        config,
        preprocess=preprocess,
        postprocess=postprocess,
        preprocess_map_kwargs=light,
        postprocess_map_kwargs=light,
    )


def sampling_params(model: Model) -> dict[str, Any]:
    """Keyword arguments of vLLM's SamplingParams."""
    return {**model.sampling.model_dump(), "logprobs": model.logprobs}


def engine_arguments(engine: EngineConfig) -> dict[str, Any]:
    """Keyword arguments of the vLLM engine."""
    return {
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "enable_prefix_caching": True,
        **engine.engine_kwargs,
    }


def worker_bundle(engine: EngineConfig) -> dict[str, float]:
    return {"CPU": engine.cpus, **({"GPU": engine.gpus} if engine.gpus else {})}


def engine_environment(engine: EngineConfig, source: str) -> dict[str, str]:
    """Environment of an engine's workers."""
    offline = {"HF_HUB_OFFLINE": "1"} if source.startswith("/") else {}
    cpu = {} if engine.gpus else {"VLLM_CPU_KVCACHE_SPACE": str(engine.kv_cache_gib)}
    return {**cpu, **offline}


def read_generation(row: Row) -> Generation:
    """The engine's columns of a row."""
    error = row.get(ENGINE_ERROR) or ""
    if error:
        # The message may hold the prompt, and so the patient: its first word is the exception's class.
        return Generation("", [], 0, 0, error.split(":")[0].split("(")[0].strip()[:60] or "error")
    return Generation(
        text=row["generated_text"],
        tokens=_tokens(row.get("generated_tokens"), row.get("logprobs")),
        prompt_tokens=int(row["num_input_tokens"]),
        output_tokens=int(row["num_generated_tokens"]),
        error=None,
    )


def _tokens(ids: Sequence[int] | None, logprobs: Sequence[dict[Any, dict[str, Any]]] | None) -> TokenLogprobs:
    """vLLM's candidates per place (id -> logprob, rank, decoded_token) as texts."""
    if ids is None or logprobs is None:
        return []
    places = []
    for token, candidates in zip(ids, logprobs, strict=True):
        by_id = {int(key): value for key, value in candidates.items() if value}
        text = by_id[int(token)]["decoded_token"] or ""
        places.append((text, {value["decoded_token"] or "": value["logprob"] for value in by_id.values()}))
    return places
