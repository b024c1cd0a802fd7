"""Answers of models that vLLM does not run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from clinical_reasoner.llm.answers import Answer, option_probabilities, parse_answer
from clinical_reasoner.llm.generation import TOO_LONG, Generation
from clinical_reasoner.llm.plain import class_answer, write
from clinical_reasoner.llm.prompting import plain_text, render_answer
from clinical_reasoner.task import DiagnosisTask
from tests.bases import small_t5


def test_messages_become_one_text() -> None:
    messages = [{"role": "system", "content": "You are."}, {"role": "user", "content": "She is.\n\nWhich?"}]
    assert plain_text(messages) == "You are.\n\nShe is.\n\nWhich?"


@pytest.mark.parametrize("best", [0, 1, 2])
def test_class_is_written_as_the_answer_of_direct(task: DiagnosisTask, best: int) -> None:
    shares = [0.25, 0.25, 0.25]
    shares[best] = 0.5
    found = class_answer([math.log(share) for share in shares], task)
    name = task.label_names[best]
    assert found.text == "".join(token for token, _ in found.tokens) == render_answer("direct", "", name, task)
    assert parse_answer(found.text, "direct", task) == Answer(None, name)
    assert option_probabilities(found.tokens, task) == pytest.approx(shares)
    assert found.error is None and not found.cut


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    base: Path | str = small_t5(tmp_path_factory.mktemp("bases"))
    return AutoModelForSeq2SeqLM.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)


def assert_alike(one: Generation, other: Generation) -> None:
    """But for what a processor rounds otherwise in another place of a batch."""
    assert replace(one, tokens=()) == replace(other, tokens=())
    for (token, first), (same, second) in zip(one.tokens, other.tokens, strict=True):
        assert token == same and first == pytest.approx(second, abs=1e-3)


def test_long_answers_are_cut_and_long_prompts_refused(writer: tuple[Any, Any]) -> None:
    model, tokenizer = writer
    short, long = "She is old.", "She is old. " * 40
    room, used = 6, len(tokenizer(short)["input_ids"])
    found = write(model, tokenizer, [short, long, short], used + room, 10, candidates=4)
    assert [one.error for one in found] == [None, TOO_LONG, None]
    assert_alike(found[0], found[2])
    assert found[0].cut and found[0].output_tokens == len(found[0].tokens) == room
    assert found[0].prompt_tokens == used
    for token, candidates in found[0].tokens:
        assert max(candidates, key=candidates.__getitem__) == token, "greedy takes the most probable one"
        assert 0 < sum(map(math.exp, candidates.values())) <= 1


def test_padding_changes_no_answer(writer: tuple[Any, Any]) -> None:
    model, tokenizer = writer
    prompts = ["She is old.", "The patient is 74 years old, has 16 years of education and is married."]
    together = write(model, tokenizer, prompts, 512, 12, candidates=2)
    alone = [write(model, tokenizer, [prompt], 512, 12, candidates=2)[0] for prompt in prompts]
    for one, other in zip(together, alone, strict=True):
        assert_alike(one, other)


def test_end_token_ends_an_answer(writer: tuple[Any, Any]) -> None:
    model, tokenizer = writer
    end = tokenizer.eos_token_id
    (found,) = write(model, tokenizer, ["She is old."], 512, 12, forced_eos_token_id=end)
    assert not found.cut and found.output_tokens == 12 and len(found.tokens) == 11
