"""A vLLM engine under Ray Data: how it is set up, and its columns as a Generation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.cluster import local_or_name
from clinical_reasoner.config.teacher import EngineConfig
from clinical_reasoner.llm.answers import TokenLogprobs
from clinical_reasoner.llm.generation import Generation, Model, Row, Steps, failed

ENGINE_ERROR = "__inference_error__"
_ERROR_CLASS = re.compile(r"(?:RayTaskError\()?(\w{1,60})")


def build_batch_processor(steps: Steps) -> Any:
    """A Ray Data processor: prompts, chat template and engine."""
    from ray.data.llm import (
        ChatTemplateStageConfig,
        PrepareMultimodalStageConfig,
        build_processor,
        vLLMEngineProcessorConfig,
    )

    engine, params, kept = steps.model.engine, sampling_params(steps.model), steps.model.token_candidates

    def preprocess(row: Row) -> Row:
        return {**row, "messages": steps.render(row), "sampling_params": row_params(params, row, kept)}

    source = local_or_name(steps.model.source)
    batch_size, concurrent_batches = engine.batches()
    config = vLLMEngineProcessorConfig(
        model_source=source,
        engine_kwargs=batch_engine_arguments(steps.model),
        batch_size=batch_size,
        max_concurrent_batches=concurrent_batches,
        concurrency=(engine.replicas, engine.replicas),
        should_continue_on_error=True,
        placement_group_config={"bundle_per_worker": worker_bundle(engine)},
        runtime_env={"env_vars": engine_environment(engine, source)},
        chat_template_stage=ChatTemplateStageConfig(
            enabled=True, num_cpus=0.1, concurrency=1, chat_template_kwargs=engine.chat_template_kwargs or None
        ),
        # vLLM's own reader of messages: it takes the pictures out, and leaves their places in the text.
        prepare_multimodal_stage=PrepareMultimodalStageConfig(
            enabled=steps.model.sees_pictures,
            num_cpus=0.1,
            concurrency=1,
            model_config_kwargs={"model": source, "max_model_len": engine.max_model_len},
        ),
        tokenize_stage=False,
        detokenize_stage=False,
    )
    light = {"num_cpus": 0.1}
    return build_processor(config, preprocess=preprocess, preprocess_map_kwargs=light, postprocess_map_kwargs=light)


def sampling_params(model: Model) -> dict[str, Any]:
    """Keyword arguments of vLLM's SamplingParams."""
    return {**model.sampling.model_dump(), "logprobs": model.logprobs}


def row_params(params: dict[str, Any], row: Row, kept: int = 0) -> dict[str, Any]:
    """With the row's own seed: under a shared one, samples of one prompt would all be the same. Candidates beside
    the token that was taken are kept where the answer holds a diagnosis, and `kept` of them where it holds a
    rationale."""
    kind = ASK_KINDS[row["ask"]]
    # Not None: Arrow would make a float of a number that others lack.
    logprobs = max(params["logprobs"] if kind.gives_label else 0, kept if kind.gives_rationale else 0)
    return {**params, "seed": row["seed"], "logprobs": logprobs}


def engine_arguments(engine: EngineConfig) -> dict[str, Any]:
    """Keyword arguments of the vLLM engine."""
    return {
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "enable_prefix_caching": True,
        **engine.engine_kwargs,
    }


def batch_engine_arguments(model: Model) -> dict[str, Any]:
    """As `engine_arguments`, for whole answers, and for rows with seeds of their own. On the CPU, vLLM 0.29 winds back
    the generator of a seeded request whose prompt it has read in part, which that generator cannot do, and the engine
    dies. So prompts are read whole there, if answers are drawn at random."""
    engine = model.engine
    # Ray Data takes an answer as a stream: without it, every token of every request wakes its task.
    unstreamed = {"stream_interval": model.sampling.max_tokens}
    if engine.gpus or model.sampling.temperature == 0:
        return {**unstreamed, **engine_arguments(engine)}
    return {**unstreamed, **_whole_prompts(engine), **engine_arguments(engine)}


def served_engine_arguments(engine: EngineConfig) -> dict[str, Any]:
    """As `engine_arguments`, for an engine that anybody may ask with a seed: see `batch_engine_arguments`."""
    return {**({} if engine.gpus else _whole_prompts(engine)), **engine_arguments(engine)}


def _whole_prompts(engine: EngineConfig) -> dict[str, Any]:
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": max(4096, engine.max_model_len)}


def worker_bundle(engine: EngineConfig) -> dict[str, float]:
    return {"CPU": engine.cpus, **({"GPU": engine.gpus} if engine.gpus else {})}


def engine_environment(engine: EngineConfig, source: str) -> dict[str, str]:
    """Environment of an engine's workers."""
    offline = {"HF_HUB_OFFLINE": "1"} if source.startswith("/") else {}
    cpu = {} if engine.gpus else {"VLLM_CPU_KVCACHE_SPACE": str(engine.kv_cache_gib)}
    return {**cpu, **offline}


def read_generation(row: Row, model: Model) -> Generation:
    """The engine's columns of a row."""
    if row.get(ENGINE_ERROR):
        return read_error(row[ENGINE_ERROR])
    prompt_tokens, output_tokens = int(row["num_input_tokens"]), int(row["num_generated_tokens"])
    room = min(model.sampling.max_tokens, model.engine.max_model_len - prompt_tokens)
    return Generation(
        text=row["generated_text"],
        tokens=_tokens(row.get("generated_tokens"), row.get("logprobs")),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        error=None,
        **_kept(row, model),
        cut=output_tokens >= room,
    )


def read_error(error: str) -> Generation:
    """The first word of a stage's error is the exception's class; one from another process stands in brackets."""
    kind = _ERROR_CLASS.match(error)
    return failed(kind[1] if kind else "error", error)


def _kept(row: Row, model: Model) -> dict[str, Any]:
    """Token ids and their most probable candidates, where they are kept."""
    given = row.get("generated_tokens") is not None and row.get("logprobs") is not None
    if not model.token_candidates or not given or not ASK_KINDS[row["ask"]].gives_rationale:
        return {}
    places = [
        sorted(((int(key), value["logprob"]) for key, value in candidates.items() if value), key=lambda one: -one[1])
        for candidates in row["logprobs"]
    ]
    return {
        "token_ids": tuple(int(token) for token in row["generated_tokens"]),
        "candidates": tuple(dict(place[: model.token_candidates]) for place in places),
    }


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
