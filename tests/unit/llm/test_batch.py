"""Generation without an engine: its arguments, what is read from its rows, and what a killed run left."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clinical_reasoner.cluster import quiet_console
from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig
from clinical_reasoner.llm.batch import FAILURE, Batch, generate
from clinical_reasoner.llm.engine import (
    ENGINE_ERROR,
    engine_arguments,
    engine_environment,
    read_generation,
    row_params,
    sampling_params,
    worker_bundle,
)
from clinical_reasoner.llm.generation import Generation, Model
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.runs import RunError, RunFolder

SCHEMA = pa.schema([("row_id", pa.string()), ("text", pa.string())])
MODEL = Model("m", EngineConfig(), SamplingConfig(), logprobs=5)


def test_sampling_is_that_of_the_config_with_candidates() -> None:
    model = Model("m", EngineConfig(), SamplingConfig(temperature=0.7, top_p=0.9, max_tokens=64, seed=3), logprobs=5)
    assert sampling_params(model) == {"temperature": 0.7, "top_p": 0.9, "max_tokens": 64, "seed": 3, "logprobs": 5}


def test_row_with_a_seed_of_its_own_is_sampled_with_it() -> None:
    params = sampling_params(MODEL)
    assert row_params(params, {"row_id": "1", "seed": 77}) == {**params, "seed": 77}
    assert row_params(params, {"row_id": "1"}) == params
    assert params["seed"] == 0


def test_engine_arguments_of_the_user_win() -> None:
    arguments = engine_arguments(EngineConfig(max_model_len=1000, engine_kwargs={"tensor_parallel_size": 2}))
    assert arguments["max_model_len"] == 1000
    assert arguments["tensor_parallel_size"] == 2
    assert arguments["enable_prefix_caching"] is True
    assert engine_arguments(EngineConfig(engine_kwargs={"max_model_len": 77}))["max_model_len"] == 77


@pytest.mark.parametrize(
    ("engine", "source", "bundle", "environment"),
    [
        (EngineConfig(kv_cache_gib=2), "org/model", {"CPU": 1.0}, {"VLLM_CPU_KVCACHE_SPACE": "2"}),
        (
            EngineConfig(cpus=3),
            "/models/teacher",
            {"CPU": 3.0},
            {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"},
        ),
        (EngineConfig(gpus=1), "org/model", {"CPU": 1.0, "GPU": 1.0}, {}),
    ],
)
def test_worker_of_an_engine(
    engine: EngineConfig, source: str, bundle: dict[str, float], environment: dict[str, str]
) -> None:
    assert worker_bundle(engine) == bundle
    assert engine_environment(engine, source) == environment


def candidate(text: str | None, logprob: float) -> dict[str, Any]:
    return {"decoded_token": text, "logprob": logprob, "rank": 1}


ANSWER: dict[str, Any] = {
    "row_id": "p|bl|direct|0",
    "generated_text": " A",
    "generated_tokens": [7, 9],
    "logprobs": [{7: candidate(" A", -0.1), 8: candidate(" B", -2.5)}, {"9": candidate(None, -0.2), "7": None}],
    "num_input_tokens": 100,
    "num_generated_tokens": 2,
    ENGINE_ERROR: "",
}
TOKENS = [(" A", {" A": -0.1, " B": -2.5}), ("", {"": -0.2})]


def test_good_answer() -> None:
    assert read_generation(ANSWER, MODEL) == Generation(" A", TOKENS, 100, 2, None)
    without_column = {name: value for name, value in ANSWER.items() if name != ENGINE_ERROR}
    assert read_generation(without_column, MODEL) == read_generation(ANSWER, MODEL)


@pytest.mark.parametrize(
    ("prompt_tokens", "output_tokens", "cut"),
    [(100, 319, False), (100, 320, True), (1900, 147, False), (1900, 148, True)],
)
def test_answer_that_fills_its_room_was_cut(prompt_tokens: int, output_tokens: int, cut: bool) -> None:
    """320 tokens of answer, 2048 of context."""
    row = {**ANSWER, "num_input_tokens": prompt_tokens, "num_generated_tokens": output_tokens}
    assert read_generation(row, MODEL).cut == cut


@pytest.mark.parametrize("missing", ["logprobs", "generated_tokens"])
def test_answer_without_candidates_keeps_its_text(missing: str) -> None:
    assert read_generation({**ANSWER, missing: None}, MODEL) == Generation(" A", [], 100, 2, None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("ValueError: The prompt 'Mrs. Miller is 74' is too long", "ValueError"),
        ("VLLMValidationError(parameter='Mrs. Miller')", "VLLMValidationError"),
        ("OSError: ", "OSError"),
        (": Mrs. Miller", "error"),
    ],
)
def test_error_keeps_its_kind_and_no_word_of_the_patient(error: str, kind: str) -> None:
    assert read_generation({"row_id": "p", ENGINE_ERROR: error}, MODEL) == Generation("", [], 0, 0, kind)


def test_notes_of_ray_data_stay_off_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    import ray.data  # noqa: F401  # sets its logger up

    logger = logging.getLogger("ray.data.dataset")
    with quiet_console():
        logger.info("Data sink Parquet finished.")
        logger.warning("out of memory")
    assert logger.isEnabledFor(logging.DEBUG)  # for the log file
    logger.info("afterwards")
    said = capsys.readouterr().err
    assert "finished" not in said
    assert "out of memory" in said
    assert "afterwards" in said


def never_asked(row: dict[str, Any]) -> list[Message]:
    raise AssertionError(f"asked again about {row}")


def never_finished(row: dict[str, Any], generation: Generation) -> dict[str, Any]:
    raise AssertionError(f"finished again {row} {generation}")


def prompts(*ids: str) -> pa.Table:
    return pa.table({"row_id": list(ids), "question": ["?"] * len(ids)})


def generated(texts: dict[str, str], failed: tuple[str, ...] = ()) -> pa.Table:
    failures = ["OSError" if row_id in failed else None for row_id in texts]
    return pa.table({"text": list(texts.values()), "row_id": list(texts), FAILURE: pa.array(failures, pa.string())})


def resume(run: RunFolder, wanted: pa.Table, written: pa.Table, again: pa.Table | None = None) -> pa.Table:
    """`generate`, with all rows that it wants, or as many, already written, and those of its second attempt."""
    run.write_table("work/w/generated", written)
    if again is not None:
        run.write_table("work/w/again/generated", again)
    batch = Batch(wanted, "row_id", "work/w", rows_per_block=2)
    return generate(run, batch, MODEL, never_asked, never_finished, SCHEMA, logical_cpus=1)


def test_finished_work_is_returned_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    table = resume(run, prompts("1", "2", "3"), generated({"2": "two", "3": "three", "1": "one"}))
    assert table.to_pylist() == [
        {"row_id": "1", "text": "one"},
        {"row_id": "2", "text": "two"},
        {"row_id": "3", "text": "three"},
    ]
    assert table.schema.equals(SCHEMA)


def test_row_on_which_the_engine_failed_is_asked_once_more(tmp_path: Path) -> None:
    first = generated({"1": "one", "2": "", "3": "", "4": "four"}, failed=("2", "3"))
    second = generated({"2": "two", "3": ""}, failed=("3",))
    table = resume(RunFolder(str(tmp_path)), prompts("1", "2", "3", "4"), first, second)
    assert table.column("text").to_pylist() == ["one", "two", "", "four"]


def test_nothing_is_kept_where_the_engine_failed_on_every_row(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    silent = generated({"1": "", "2": ""}, failed=("1", "2"))
    with pytest.raises(RunError, match=r"no answer to any of 2 prompts \(OSError\)"):
        resume(run, prompts("1", "2"), silent, silent)
    assert not run.exists("work/w")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["1", "1", "2"], "1 rows double and 1 missing"),
        (["1", "2", "3", "3"], "1 rows double and 0 missing"),
        (["1", "2", "4"], "0 rows double and 1 missing"),
    ],
)
def test_double_and_missing_rows_are_errors(tmp_path: Path, ids: list[str], message: str) -> None:
    written = pa.table({"row_id": ids, "text": ["x"] * len(ids), FAILURE: pa.nulls(len(ids), pa.string())})
    with pytest.raises(RunError, match=rf"work/w in the run folder: {message}"):
        resume(RunFolder(str(tmp_path)), prompts("1", "2", "3"), written)
