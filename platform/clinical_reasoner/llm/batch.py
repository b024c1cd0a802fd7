"""Generate: prompts through a vLLM engine or an endpoint under Ray Data, one row in and one row out, resumable.

The rows are read from Parquet and written to Parquet; a row whose id is already written is not asked again, so a killed
run continues where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clinical_reasoner.cluster import connect, quiet_console
from clinical_reasoner.llm.endpoint import EndpointAsker, check_endpoint
from clinical_reasoner.llm.engine import ENGINE_ERROR, build_batch_processor, read_generation
from clinical_reasoner.llm.generation import Generation, Model, Row
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.progress import watched
from clinical_reasoner.runs import RunError, RunFolder

FAILURE = "engine_failure"
"""Column of the generated rows: kind of the engine's error, or null."""


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
            f"{model.source}: no answer to any of {table.num_rows} prompts ({kinds.most_common(1)[0][0]}); "
            "see Ray's log, mend the settings of the engine or endpoint and start again"
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
        if steps.model.base_url:
            check_endpoint(steps.model)
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
        settled = _asked(rows, steps)
        bar = watched("rows", batch.prompts.num_rows, lambda: run.count_rows(f"{batch.work}/generated"))
        with quiet_console(), bar:
            settled.write_parquet(run.child(batch.work, "generated"))
    finally:
        context.checkpoint_config = None


def _asked(rows: Any, steps: _Steps) -> Any:
    """The dataset of finished rows: the columns of the table and FAILURE."""
    if steps.model.base_url is None:
        answered = build_batch_processor(steps.model, steps.render, steps.finish)(rows)
        return answered.map(_Settler(steps), num_cpus=0.1)
    asker = (steps.model, steps.render, steps.finish, (*steps.columns, FAILURE))
    return rows.map_batches(
        EndpointAsker,
        fn_constructor_args=asker,
        batch_format="pyarrow",
        batch_size=steps.model.endpoint.at_a_time,
        concurrency=1,  # one rate for all requests
        num_cpus=0.5,
    )


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
