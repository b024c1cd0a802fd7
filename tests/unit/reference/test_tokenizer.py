"""The reference tokenizer: loses nothing, reads digit by digit, and keeps the option letter apart."""

from __future__ import annotations

import string
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.llm.answers import option_probabilities
from clinical_reasoner.llm.prompting import Exemplar, Message, render_answer
from clinical_reasoner.reference.corpus import CorpusSpec, chats
from clinical_reasoner.reference.tokenizer import END, PAD, SPECIAL, train_tokenizer
from clinical_reasoner.reference.writer import Wording
from clinical_reasoner.task import DiagnosisTask

VOCABULARY = 700
CONTEXT = 512


@pytest.fixture(scope="module")
def corpus(
    task: DiagnosisTask, population: Population, wording: Wording, exemplars: tuple[Exemplar, ...]
) -> list[list[Message]]:
    return list(islice(chats(CorpusSpec("teacher", task, population, wording, exemplars, 90), 0), 120))


@pytest.fixture(scope="module")
def tokenizer(corpus: list[list[Message]]) -> PreTrainedTokenizerFast:
    return train_tokenizer(corpus, VOCABULARY, CONTEXT)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    encoded: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return encoded


def pieces(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return [str(tokenizer.decode([one])) for one in ids(tokenizer, text)]


@given(text=st.text())
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(ids(tokenizer, text)) == text


@given(number=st.integers(0, 10**6))
def test_digits_are_read_one_by_one(tokenizer: PreTrainedTokenizerFast, number: int) -> None:
    assert "".join(pieces(tokenizer, f"score {number}")) == f"score {number}"
    assert [piece for piece in pieces(tokenizer, f"score {number}") if piece.strip().isdigit()] == list(str(number))


def test_own_text_is_short_and_own_words_are_whole(
    tokenizer: PreTrainedTokenizerFast, corpus: list[list[Message]]
) -> None:
    assert len(tokenizer) == VOCABULARY
    content = corpus[0][1]["content"]
    assert len(ids(tokenizer, content)) < len(content) / 3
    assert " atrophy" in pieces(tokenizer, "mild frontal atrophy")


@pytest.mark.parametrize("label", ["AD", "MCI", "NC"])
def test_option_letter_is_a_token_of_its_own(
    tokenizer: PreTrainedTokenizerFast, task: DiagnosisTask, label: str
) -> None:
    option = task.label(label).option
    texts = pieces(tokenizer, render_answer("diagnose", "Low MMSE.", label, task))
    assert texts.count(option) == 1
    probabilities = option_probabilities([(text, {text: 0.0}) for text in texts], task)
    assert probabilities == tuple(float(name == label) for name in task.label_names)


def test_chat_template_marks_each_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>Be brief.<|end|><|user|>Who?<|end|><|assistant|>"
    answered = [*chat, {"role": "assistant", "content": "Me."}]
    assert tokenizer.apply_chat_template(answered, tokenize=False) == f"{text}Me.<|end|>"
    encoded = tokenizer.apply_chat_template(answered, tokenize=True, return_dict=False)
    assert encoded == ids(tokenizer, f"{text}Me.<|end|>")


def test_special_tokens_are_single_and_the_end_ends(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.eos_token, tokenizer.pad_token) == (END, PAD)
    for token in SPECIAL:
        assert ids(tokenizer, token) == [tokenizer.convert_tokens_to_ids(token)]
    assert tokenizer.decode(ids(tokenizer, f"Me.{END}"), skip_special_tokens=True) == "Me."
    assert tokenizer.model_max_length == CONTEXT


def test_saved_tokenizer_is_the_same(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = string.printable + "Severe hippocampal atrophy.<|end|>"
    assert ids(loaded, text) == ids(tokenizer, text)
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.eos_token_id == tokenizer.eos_token_id


def test_training_is_deterministic(tokenizer: PreTrainedTokenizerFast, corpus: list[list[Message]]) -> None:
    assert train_tokenizer(corpus, VOCABULARY, CONTEXT).get_vocab() == tokenizer.get_vocab()
