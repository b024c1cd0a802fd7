"""The engine: its arguments, what a row is sampled with, and what is read from its rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig
from clinical_reasoner.llm.engine import (
    ENGINE_ERROR,
    batch_engine_arguments,
    engine_arguments,
    engine_environment,
    read_generation,
    row_params,
    sampling_params,
    worker_bundle,
)
from clinical_reasoner.llm.generation import TOO_LONG, Generation, Model
from clinical_reasoner.records import Ask

MODEL = Model("m", EngineConfig(), SamplingConfig(), logprobs=5)


def test_sampling_is_that_of_the_config_with_candidates() -> None:
    model = Model("m", EngineConfig(), SamplingConfig(temperature=0.7, top_p=0.9, max_tokens=64, seed=3), logprobs=5)
    assert sampling_params(model) == {"temperature": 0.7, "top_p": 0.9, "max_tokens": 64, "seed": 3, "logprobs": 5}


@pytest.mark.parametrize(("ask", "candidates"), [("diagnose", 5), ("direct", 5), ("rationalize", 0)])
def test_row_is_sampled_with_its_own_seed_and_with_candidates_where_a_label_is_asked_for(
    ask: Ask, candidates: int
) -> None:
    params = sampling_params(MODEL)
    assert row_params(params, {"ask": ask, "seed": 77}) == {**params, "seed": 77, "logprobs": candidates}
    assert params["seed"] == 0


@pytest.mark.parametrize(
    ("ask", "kept", "candidates"),
    [("rationalize", 3, 3), ("diagnose", 3, 5), ("diagnose", 8, 8), ("direct", 8, 5), ("rationalize", 0, 0)],
)
def test_row_has_the_candidates_that_students_learn_from(ask: Ask, kept: int, candidates: int) -> None:
    assert row_params(sampling_params(MODEL), {"ask": ask, "seed": 1}, kept)["logprobs"] == candidates


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


def test_most_probable_candidates_are_kept_by_their_ids_where_there_is_a_rationale() -> None:
    model = replace(MODEL, token_candidates=2)
    place = {8: candidate(" B", -2.5), 7: candidate(" A", -0.1), 5: candidate(" C", -4.0)}
    row = {**ANSWER, "ask": "diagnose", "logprobs": [place, {"9": candidate(None, -0.2), "7": None}]}
    kept = read_generation(row, model)
    assert kept.token_ids == (7, 9)
    assert [list(one.items()) for one in kept.candidates] == [[(7, -0.1), (8, -2.5)], [(9, -0.2)]]
    for other in (read_generation({**row, "ask": "direct"}, model), read_generation(row, MODEL)):
        assert (other.token_ids, other.candidates) == ((), ())


@pytest.mark.parametrize("missing", ["logprobs", "generated_tokens"])
def test_no_candidates_are_kept_where_the_engine_gave_none(missing: str) -> None:
    kept = read_generation({**ANSWER, "ask": "diagnose", missing: None}, replace(MODEL, token_candidates=2))
    assert (kept.text, kept.token_ids, kept.candidates) == (" A", (), ())


@pytest.mark.parametrize("missing", ["logprobs", "generated_tokens"])
def test_answer_without_candidates_keeps_its_text(missing: str) -> None:
    assert read_generation({**ANSWER, missing: None}, MODEL) == Generation(" A", [], 100, 2, None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("ValueError: The prompt 'Mrs. Miller is 74' is too long", "ValueError"),
        ("VLLMValidationError(parameter='Mrs. Miller')", "VLLMValidationError"),
        ("OSError: ", "OSError"),
        ("RayTaskError(ValueError): ray::Mrs.Miller()", "ValueError"),
        ("ValueError: prompt of Mrs. Miller is longer than the maximum model length of 2048.", TOO_LONG),
        (": Mrs. Miller", "error"),
    ],
)
def test_error_keeps_its_kind_and_no_word_of_the_patient(error: str, kind: str) -> None:
    assert read_generation({"row_id": "p", ENGINE_ERROR: error}, MODEL) == Generation("", [], 0, 0, kind)


@pytest.mark.parametrize(
    ("temperature", "gpus", "whole"), [(0.0, 0, False), (0.7, 0, True), (0.7, 1, False), (0.0, 1, False)]
)
def test_prompts_are_read_whole_where_answers_are_drawn_on_the_cpu(temperature: float, gpus: int, whole: bool) -> None:
    model = Model("m", EngineConfig(gpus=gpus, max_model_len=9000), SamplingConfig(temperature=temperature), logprobs=5)
    arguments = batch_engine_arguments(model)
    assert (arguments.get("enable_chunked_prefill") is False) is whole
    assert arguments.get("max_num_batched_tokens", 9000) >= 9000, "the longest prompt fits into one step"
    assert arguments["max_model_len"] == 9000
