"""Batches: where the diagnosis stands among the tokens, and how much each token counts. The tokenizer is real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from clinical_reasoner.asks import ASK_KINDS, Ask
from clinical_reasoner.config.arms import ARMS, ArmConfig
from clinical_reasoner.distillation.collating import (
    IGNORED,
    AnswerCollator,
    DiagnosisTokenError,
    TokenTexts,
    answers_in,
    option_tokens,
)
from clinical_reasoner.evidence.description import with_question
from clinical_reasoner.llm.prompting import render_answer, render_messages
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask
from tests.unit.conftest import ROOT

STUDENT = ROOT / "platform/clinical_reasoner/reference/models/student"
ANSWERED: tuple[Ask, ...] = tuple(ask for ask, kind in ASK_KINDS.items() if kind.gives_label)
# Names another option and ends in a bracket, as rationales do.
RATIONALE = "A score of 22 out of 30 is low. The diagnosis of normal cognition (C) is unlikely."


@pytest.fixture(scope="module")
def texts() -> TokenTexts:
    return TokenTexts(AutoTokenizer.from_pretrained(STUDENT))


def answer_ids(texts: TokenTexts, ask: Ask, label: str, task: DiagnosisTask, rationale: str = RATIONALE) -> list[int]:
    """Tokens of an answer with the end of its turn, as they are learnt."""
    text = render_answer(ask, rationale, label, task)
    ids: list[int] = texts.tokenizer(f"{text}<|end|>", add_special_tokens=False)["input_ids"]
    return ids


def example(texts: TokenTexts, ask: Ask, label: str, task: DiagnosisTask, **columns: Any) -> dict[str, Any]:
    """As TRL tokenizes it: what belongs to the prompt is no label."""
    prompt = render_messages(ask, with_question("The patient is a woman.", task), task)
    ids = texts.tokenizer.apply_chat_template(prompt, tokenize=True, return_dict=False, add_generation_prompt=True)
    answer = answer_ids(texts, ask, label, task)
    return {"input_ids": [*ids, *answer], "labels": [IGNORED] * len(ids) + answer, "ask": ask, **columns}


def collator(texts: TokenTexts, arm: ArmConfig, task: DiagnosisTask, run: str = "/none") -> AnswerCollator:
    inner = DataCollatorForLanguageModeling(pad_token_id=texts.tokenizer.pad_token_id)
    return AnswerCollator(inner, texts, task, arm, RunFolder(run))


def weighted(arm: Ask, **settings: Any) -> ArmConfig:
    return ArmConfig(answers=arm, tasks={arm: 1}, **settings)


@pytest.mark.parametrize("label", ["AD", "MCI", "NC"])
@pytest.mark.parametrize("ask", ANSWERED)
def test_place_of_the_diagnosis(texts: TokenTexts, task: DiagnosisTask, ask: Ask, label: str) -> None:
    ids = answer_ids(texts, ask, label, task)
    place = texts.diagnosis_place(ids, ask, task)
    assert place is not None
    assert texts.tokenizer.decode([ids[place]]) == dict(zip(task.label_names, task.options, strict=True))[label]
    before = texts.tokenizer.decode(ids[:place])
    assert before.endswith("Diagnosis: (")
    assert (RATIONALE in before) == (ASK_KINDS[ask].gives_rationale and not ASK_KINDS[ask].label_first)


@pytest.mark.parametrize("ask", [ask for ask in ASK_KINDS if ask not in ANSWERED])
def test_an_explanation_has_no_diagnosis(texts: TokenTexts, task: DiagnosisTask, ask: Ask) -> None:
    assert texts.diagnosis_place(answer_ids(texts, ask, "AD", task), ask, task) is None


@pytest.mark.parametrize("ask", ANSWERED)
def test_each_option_has_a_token_of_its_own(texts: TokenTexts, task: DiagnosisTask, ask: Ask) -> None:
    tokens = option_tokens(texts, ask, task)
    assert len(set(tokens)) == 3
    assert [texts.tokenizer.decode([token]) for token in tokens] == list(task.options)


def test_options_of_a_tokenizer_that_joins_them_to_their_bracket_are_refused(task: DiagnosisTask) -> None:
    joined = AutoTokenizer.from_pretrained(STUDENT)
    joined.add_tokens([f"Diagnosis: ({option}) {label.text}" for option, label in zip("ABC", task.labels, strict=True)])
    # The letter is found within the long token, and each label still has one of its own.
    assert len(set(option_tokens(TokenTexts(joined), "direct", task))) == 3
    with pytest.raises(DiagnosisTokenError, match=r"no token of its own for each option of ask 'explain'"):
        option_tokens(TokenTexts(joined), "explain", task)


@pytest.mark.parametrize("ask", ANSWERED)
def test_cut_answer_is_an_error_without_its_text(texts: TokenTexts, task: DiagnosisTask, ask: Ask) -> None:
    ids = answer_ids(texts, ask, "AD", task)
    place = texts.diagnosis_place(ids, ask, task)
    with pytest.raises(DiagnosisTokenError, match=f"an answer to {ask!r} of {place} tokens holds no option") as error:
        texts.diagnosis_place(ids[:place], ask, task)
    assert "score" not in str(error.value)
    cut = {**example(texts, ask, "AD", task), "ask": ask}
    cut["labels"] = [
        label if number < len(cut["labels"]) - len(ids) + (place or 0) else IGNORED
        for number, label in enumerate(cut["labels"])
    ]
    with pytest.raises(DiagnosisTokenError):
        collator(texts, weighted("direct"), task)([cut, example(texts, "direct", "NC", task)])


def test_answers_in_a_row_of_labels() -> None:
    assert list(answers_in([IGNORED, 5, 6, IGNORED, IGNORED, 7])) == [(1, [5, 6]), (5, [7])]
    assert list(answers_in([5, IGNORED])) == [(0, [5])]
    assert list(answers_in([IGNORED, IGNORED])) == list(answers_in([])) == []


def test_weights_are_those_of_the_task_and_the_diagnosis(texts: TokenTexts, task: DiagnosisTask) -> None:
    arm = ArmConfig(answers="direct", tasks={"direct": 2, "explain": 0.5}, diagnosis_weight=10)
    short, long = example(texts, "direct", "MCI", task, weight=2.0), example(texts, "explain", "AD", task, weight=0.5)
    batch = collator(texts, arm, task)([short, long])
    weights, labels = batch["token_weights"], batch["labels"]
    assert weights.shape == labels.shape == batch["input_ids"].shape == (2, len(long["input_ids"]))
    assert torch.equal(weights != 0, labels != IGNORED), "prompts and padding count nothing"
    (place,) = (weights[0] == 20).nonzero().flatten().tolist()
    assert texts.tokenizer.decode([labels[0, place]]) == "B"
    assert set(weights[0].tolist()) == {0.0, 2.0, 20.0}
    assert set(weights[1].tolist()) == {0.0, 0.5}
    assert not {"option_places", "soft_labels"} & batch.keys()


@pytest.mark.parametrize("arm", ARMS.values())
def test_all_tokens_of_an_answer_count_the_same_unless_configured(
    texts: TokenTexts, task: DiagnosisTask, arm: ArmConfig
) -> None:
    batch = collator(texts, arm, task)([example(texts, ask, "AD", task, weight=1.0) for ask in arm.tasks])
    assert torch.equal(batch["token_weights"], (batch["labels"] != IGNORED).float())


def test_soft_labels_stand_at_the_diagnosis(texts: TokenTexts, task: DiagnosisTask) -> None:
    arm = ArmConfig(answers="direct", tasks={"direct": 1, "explain": 1}, soft_labels=0.5)
    batch = collator(texts, arm, task)(
        [
            example(texts, "direct", "AD", task, soft_label=[0.7, 0.2, 0.1]),
            example(texts, "explain", "AD", task, soft_label=None),
            example(texts, "direct", "NC", task, soft_label=None),
        ]
    )
    assert batch["soft_labels"].tolist() == [pytest.approx([0.7, 0.2, 0.1]), [0, 0, 0], [0, 0, 0]]
    places = batch["option_places"]
    assert places.dtype == torch.bool
    assert places.sum(dim=1).tolist() == [1, 0, 1]
    letters = [texts.tokenizer.decode([token]) for token in batch["labels"][places].tolist()]
    assert letters == ["A", "C"]


def joined(*examples: dict[str, Any]) -> dict[str, Any]:
    """As packing leaves them."""
    return {
        "input_ids": [token for one in examples for token in one["input_ids"]],
        "labels": [label for one in examples for label in one["labels"]],
        "seq_lengths": [len(one["input_ids"]) for one in examples],
    }


@pytest.mark.parametrize("ask", ["diagnose", "diagnose_label_first", "direct"])
def test_each_of_several_joined_answers_has_its_diagnosis(texts: TokenTexts, task: DiagnosisTask, ask: Ask) -> None:
    row = joined(*(example(texts, ask, label, task) for label in ("NC", "AD", "MCI")))
    batch = collator(texts, weighted(ask, diagnosis_weight=20), task)([row, joined(example(texts, ask, "AD", task))])
    heavy = batch["token_weights"] == 20
    assert [texts.tokenizer.decode([token]) for token in batch["labels"][heavy].tolist()] == ["C", "A", "B", "A"]
    assert heavy.sum(dim=1).tolist() == [3, 1]
    assert torch.equal(batch["token_weights"] != 0, batch["labels"] != IGNORED)


def test_joined_answers_of_two_tasks(texts: TokenTexts, task: DiagnosisTask) -> None:
    row = joined(example(texts, "explain", "NC", task), example(texts, "direct", "AD", task))
    arm = ArmConfig(answers="direct", tasks={"direct": 1, "explain": 1}, diagnosis_weight=20)
    batch = collator(texts, arm, task)([row])
    heavy = batch["labels"][batch["token_weights"] == 20]
    assert [texts.tokenizer.decode([token]) for token in heavy.tolist()] == ["A"]


def test_joined_answer_that_was_cut_is_an_error(texts: TokenTexts, task: DiagnosisTask) -> None:
    cut = example(texts, "diagnose", "NC", task)
    cut = {name: cut[name][:-10] for name in ("input_ids", "labels")}
    with pytest.raises(DiagnosisTokenError, match=r"a joined answer of .* tokens holds no option letter: it was cut"):
        collator(texts, ARMS["rationale_then_label"], task)([joined(example(texts, "diagnose", "AD", task), cut)])


def test_pictures_are_read_from_the_run_folder(texts: TokenTexts, task: DiagnosisTask, tmp_path: Path) -> None:
    Image.new("L", (3, 2), 77).save(tmp_path / "a.png")
    seen: list[dict[str, Any]] = []

    def inner(examples: list[dict[str, Any]]) -> dict[str, Any]:
        seen.extend(examples)
        return {"labels": torch.tensor([one["labels"] for one in examples])}

    given = example(texts, "direct", "AD", task, images=["a.png"])
    AnswerCollator(inner, texts, task, ARMS["label_only"], RunFolder(str(tmp_path)))([given])
    (picture,) = seen[0]["images"]
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (3, 2), (77, 77, 77))
    assert given["images"] == ["a.png"], "the data set is left as it is"
