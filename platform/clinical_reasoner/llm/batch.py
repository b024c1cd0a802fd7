"""Generate: prompts through a vLLM engine under Ray Data, one row in and one row out, resumable.

The rows are read from Parquet and written to Parquet; a row whose id is already written is not asked again, so a killed
run continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clinical_reasoner.cluster import local_or_name
from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig
from clinical_reasoner.llm.answers import TokenLogprobs
from clinical_reasoner.llm.prompting import Message

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
class BatchJob:
    """Where a batch reads and writes. `id_column` identifies a row for good."""

    source: str
    destination: str
    checkpoint: str
    id_column: str
    rows_per_block: int


def generate(
    job: BatchJob,
    model: str,
    engine: EngineConfig,
    sampling: SamplingConfig,
    logprobs: int,
    render: Callable[[Row], list[Message]],
    finish: Callable[[Row, Generation], Row],
) -> None:
    """Ask the model about every row of `job.source` and write `finish(row, generation)` to `job.destination`.

    `logprobs` candidates are kept per token. `render` and `finish` run on the workers and must be picklable.
    """
    import ray
    from ray.data.checkpoint import CheckpointConfig

    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(id_column=job.id_column, checkpoint_path=job.checkpoint)
    try:
        rows = ray.data.read_parquet(job.source).repartition(target_num_rows_per_block=job.rows_per_block)
        processor = build_processor(model, engine, sampling, logprobs, render, finish)
        processor(rows).write_parquet(job.destination)
    finally:
        context.checkpoint_config = None


def build_processor(
    model: str,
    engine: EngineConfig,
    sampling: SamplingConfig,
    logprobs: int,
    render: Callable[[Row], list[Message]],
    finish: Callable[[Row, Generation], Row],
) -> Any:
    """A Ray Data processor: chat template, engine and the two functions of `generate`."""
    from ray.data.llm import ChatTemplateStageConfig, build_processor, vLLMEngineProcessorConfig

    params = sampling_params(sampling, logprobs)

    def preprocess(row: Row) -> Row:
        return {**row, "messages": render(row), "sampling_params": params}

    def postprocess(row: Row) -> Row:
        return finish(row, read_generation(row))

    source = local_or_name(model)
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


def sampling_params(sampling: SamplingConfig, logprobs: int) -> dict[str, Any]:
    """Keyword arguments of vLLM's SamplingParams."""
    return {**sampling.model_dump(), "logprobs": logprobs}


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
