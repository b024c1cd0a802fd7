"""Generate: prompts through a vLLM engine under Ray Data, one row in and one row out, resumable.

The rows are read from Parquet and written to Parquet; a row whose id is already written is not asked again, so a killed
run continues where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clinical_reasoner.cluster import connect, local_or_name, quiet_console
from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig
from clinical_reasoner.llm.answers import TokenLogprobs
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.progress import watched
from clinical_reasoner.runs import RunError, RunFolder

Row = dict[str, Any]
ENGINE_ERROR = "__inference_error__"
FAILURE = "engine_failure"
"""Column of the generated rows: kind of the engine's error, or null."""


@dataclass(frozen=True)
class Generation:
    """What an engine returned for one prompt."""

    text: str
    tokens: TokenLogprobs
    prompt_tokens: int
    output_tokens: int
    error: str | None
    """Kind of the engine's error, without the prompt; None when the text is good."""
    cut: bool = False
    """Whether the text ended at a limit of tokens rather than by itself."""


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

    `render` and `finish` run on the workers and must be picklable. Resumes from `batch.work`, which is cleared with the
    stage. A prompt on which the engine failed is asked once more. Raises RunError when a row is missing or double, or
    the engine failed on every prompt; nothing is then kept of the failures.
    """
    if not batch.prompts.num_rows:
        return schema.empty_table()
    steps = _Steps(model, render, finish, tuple(schema.names), logical_cpus)
    table = _answered(run, batch, steps, schema)
    failed = pc.is_valid(table.column(FAILURE))
    if pc.any(failed).as_py():
        again = replace(batch, prompts=batch.prompts.filter(failed), work=f"{batch.work}/again")
        second = _answered(run, again, steps, schema)
        table = _in_order(pa.concat_tables([table.filter(pc.invert(failed)), second]), batch)
    kinds = Counter(table.column(FAILURE).drop_null().to_pylist())
    if kinds.total() == table.num_rows:
        run.clear(batch.work)
        raise RunError(
            f"{model.source}: the engine failed on all {table.num_rows} prompts ({kinds.most_common(1)[0][0]}); "
            "see Ray's log, mend the engine's settings and start again"
        )
    return table.select(schema.names)


@dataclass(frozen=True)
class _Steps:
    """What is done to each row."""

    model: Model
    render: Callable[[Row], list[Message]]
    finish: Callable[[Row, Generation], Row]
    columns: tuple[str, ...]
    """Of the finished row; the kind of the engine's error comes beside them."""
    logical_cpus: int
    """Of a Ray that is started for it."""


def _answered(run: RunFolder, batch: Batch, steps: _Steps, schema: pa.Schema) -> pa.Table:
    """One row per prompt and in their order: the schema's columns and FAILURE."""
    if run.count_rows(f"{batch.work}/generated") < batch.prompts.num_rows:
        run.write_table(f"{batch.work}/prompts", batch.prompts)
        connect(steps.logical_cpus)
        _run_pipeline(run, batch, steps)
    return _in_order(run.read_table(f"{batch.work}/generated", schema.append(pa.field(FAILURE, pa.string()))), batch)


def _in_order(table: pa.Table, batch: Batch) -> pa.Table:
    wanted = batch.prompts.column(batch.id_column).to_pylist()
    place = {row_id: index for index, row_id in enumerate(table.column(batch.id_column).to_pylist())}
    if len(place) != table.num_rows or place.keys() != set(wanted):
        missing = len(set(wanted) - place.keys())
        raise RunError(
            f"{batch.work} in the run folder: {table.num_rows - len(place)} rows double and {missing} missing; "
            "remove that folder and start again"
        )
    return table.take([place[row_id] for row_id in wanted])


def _run_pipeline(run: RunFolder, batch: Batch, steps: _Steps) -> None:
    import ray
    from ray.data.checkpoint import CheckpointConfig

    context = ray.data.DataContext.get_current()
    # Of operators, plans and blocks, which say nothing to a user: rows are counted here instead.
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.issue_detectors_config.detectors = []  # hints on settings that a user cannot change here
    context.checkpoint_config = CheckpointConfig(
        id_column=batch.id_column, checkpoint_path=run.child(batch.work, "checkpoint")
    )
    try:
        # Text rows are tiny: left alone they become one block, written once at the very end.
        rows = ray.data.read_parquet(run.child(batch.work, "prompts")).repartition(
            target_num_rows_per_block=batch.rows_per_block
        )
        answered = build_batch_processor(steps.model, steps.render, steps.finish)(rows)
        settled = answered.map(_Settler(steps), num_cpus=0.1)
        bar = watched("rows", batch.prompts.num_rows, lambda: run.count_rows(f"{batch.work}/generated"))
        with quiet_console(), bar:
            settled.write_parquet(run.child(batch.work, "generated"))
    finally:
        context.checkpoint_config = None


@dataclass(frozen=True)
class _Settler:
    """Ray hands rows whose prompt failed past `postprocess`, with prompt and all: they are finished here, and every row
    keeps just the columns of the table."""

    steps: _Steps

    def __call__(self, row: Row) -> Row:
        generation = read_generation(row, self.steps.model) if row.get(ENGINE_ERROR) else None
        finished = self.steps.finish(row, generation) if generation else row
        failure = generation.error if generation else None
        return {**{name: finished[name] for name in self.steps.columns}, FAILURE: failure}


def build_batch_processor(
    model: Model, render: Callable[[Row], list[Message]], finish: Callable[[Row, Generation], Row]
) -> Any:
    """A Ray Data processor: chat template, engine and the two functions of `generate`."""
    from ray.data.llm import ChatTemplateStageConfig, build_processor, vLLMEngineProcessorConfig

    engine = model.engine
    params = sampling_params(model)

    def preprocess(row: Row) -> Row:
        return {**row, "messages": render(row), "sampling_params": row_params(params, row)}

    def postprocess(row: Row) -> Row:
        return finish(row, read_generation(row, model))

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
        chat_template_stage=ChatTemplateStageConfig(
            enabled=True, num_cpus=0.1, concurrency=1, chat_template_kwargs=engine.chat_template_kwargs or None
        ),
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


def row_params(params: dict[str, Any], row: Row) -> dict[str, Any]:
    """With the row's own `seed` where it has one: under a shared seed, samples of one prompt would all be the same."""
    return {**params, "seed": row["seed"]} if "seed" in row else params


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


def read_generation(row: Row, model: Model) -> Generation:
    """The engine's columns of a row."""
    error = row.get(ENGINE_ERROR) or ""
    if error:
        # The message may hold the prompt, and so the patient: its first word is the exception's class.
        return Generation("", [], 0, 0, error.split(":")[0].split("(")[0].strip()[:60] or "error")
    prompt_tokens, output_tokens = int(row["num_input_tokens"]), int(row["num_generated_tokens"])
    room = min(model.sampling.max_tokens, model.engine.max_model_len - prompt_tokens)
    return Generation(
        text=row["generated_text"],
        tokens=_tokens(row.get("generated_tokens"), row.get("logprobs")),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        error=None,
        cut=output_tokens >= room,
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
