"""Generate: prompts through an engine, a Serve deployment or an endpoint under Ray Data, one row in and one row out,
resumable.

The rows are read from Parquet and written to Parquet; a row whose id is already written is not asked again, so a killed
run continues where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from clinical_reasoner.cluster import connect, quiet_console
from clinical_reasoner.llm.deployment import build_deployment_processor, check_deployment, read_response
from clinical_reasoner.llm.endpoint import EndpointAsker, check_endpoint
from clinical_reasoner.llm.engine import build_batch_processor, read_generation
from clinical_reasoner.llm.generation import Generation, Model, NoAnswerError, Row, Steps, is_final
from clinical_reasoner.llm.plain import ask_plainly
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.llm.work import Watch, Work
from clinical_reasoner.progress import watched
from clinical_reasoner.runs import RunFolder

ROW_ID = "row_id"
"""Column by which Ray Data knows a row that is already written."""


@dataclass(frozen=True)
class Batch:
    """Prompts to be answered, and where the work is kept until all are."""

    prompts: Iterable[Row]
    """Each with a ROW_ID of its own; those of a patient adjacent."""
    schema: pa.Schema
    """Of the prompts."""
    work: str
    """Folder below the run folder, of its own for these prompts and this model; holds what a killed run leaves."""
    rows_per_block: int
    """Rows that are written, and so safe, together."""
    asked_before: bool = False
    """Whether these are what is left of other prompts: that all are refused then says nothing of the settings."""


def generate(
    run: RunFolder,
    batch: Batch,
    model: Model,
    render: Callable[[Row], list[Message]],
    finish: Callable[[Row, Generation], Row],
    schema: pa.Schema,
    logical_cpus: int,
) -> Iterator[Row]:
    """`finish(row, generation)` for every prompt, in the order of the prompts.

    All is asked before this returns; the rows are then read block by block. `render` and `finish` run on the workers
    and must be picklable. Resumes from `batch.work`, which is cleared with the stage. A prompt on which the engine
    failed, other than by refusing it, is asked once more. Raises NoAnswerError when the engine failed on every prompt,
    and nothing is then kept; and RunError while the rows are read when one is missing or double.
    """
    steps = Steps(model, render, finish, tuple(schema.names))
    work, again = Work(run, batch.work), Work(run, f"{batch.work}/again")
    total, patients = work.write_prompts(batch.prompts, batch.schema)
    if not total:
        return iter(())
    _answer(work, total, patients, steps, batch.rows_per_block, logical_cpus)
    failures = work.failures()
    left, concerned = again.write_prompts(work.to_ask_again(batch.schema), batch.schema) if failures else (0, 0)
    if left:
        _answer(again, left, concerned, steps, batch.rows_per_block, logical_cpus)
        failures = Counter({kind: n for kind, n in failures.items() if is_final(kind)}) + again.failures()
    settled = batch.asked_before and all(map(is_final, failures))
    if failures.total() == total and not settled:
        run.clear(batch.work)
        raise NoAnswerError(
            f"{model.source}: no answer to any of {total} prompts ({failures.most_common(1)[0][0]}); "
            "see Ray's log, mend the settings of the engine or endpoint and start again"
        )
    rows = work.in_order(total, again if left else None)
    return ({name: row[name] for name in schema.names} for row in rows)


def _answer(work: Work, total: int, patients: int, steps: Steps, rows_per_block: int, logical_cpus: int) -> None:
    """Ask whatever is not answered yet."""
    if work.run.count_rows(work.generated) >= total:
        return
    if steps.model.base_url:
        check_endpoint(steps.model)
    connect(logical_cpus)
    if steps.model.deployment:
        check_deployment(steps.model.deployment)
    _run_pipeline(work, total, patients, steps, rows_per_block)


def _run_pipeline(work: Work, total: int, patients: int, steps: Steps, rows_per_block: int) -> None:
    import ray
    from ray.data.checkpoint import CheckpointConfig

    context = ray.data.DataContext.get_current()
    # Of operators, plans and blocks, which say nothing to a user: rows are counted here instead.
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.issue_detectors_config.detectors = []  # hints on settings that a user cannot change here
    context.checkpoint_config = CheckpointConfig(
        id_column=ROW_ID, checkpoint_path=work.run.child(work.folder, "checkpoint")
    )
    try:
        # Text rows are tiny: left alone they become one block, written once at the very end.
        rows = ray.data.read_parquet(work.run.child(work.prompts)).repartition(target_num_rows_per_block=rows_per_block)
        settled = _asked(rows, steps)
        with quiet_console(), watched("answers", total, Watch(work, total, patients)):
            settled.write_parquet(work.run.child(work.generated))
    finally:
        context.checkpoint_config = None


def _asked(rows: Any, steps: Steps) -> Any:
    """The dataset of finished rows."""
    if steps.model.base_url:
        return rows.map_batches(
            EndpointAsker,
            fn_constructor_args=(steps,),
            batch_format="pyarrow",
            batch_size=steps.model.endpoint.at_a_time,
            concurrency=1,  # one rate for all requests
            num_cpus=0.5,
        )
    if steps.model.family != "decoder":
        return ask_plainly(rows, steps)
    if steps.model.deployment:
        return build_deployment_processor(steps)(rows).map(_Settler(steps, read_response), num_cpus=0.1)
    return build_batch_processor(steps)(rows).map(_Settler(steps, read_generation), num_cpus=0.1)


@dataclass(frozen=True)
class _Settler:
    """A function of its own behind Ray's processors, whose `postprocess` never sees rows that failed."""

    steps: Steps
    read: Callable[[Row, Model], Generation]

    def __call__(self, row: Row) -> Row:
        return self.steps.settle(row, self.read(row, self.steps.model))
