"""What a step learns from, and a recipe whose weights would be too large."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.reference import ReferenceConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.reference import training
from clinical_reasoner.reference.build import corpus_spec
from clinical_reasoner.reference.tokenizer import END, train_tokenizer

ROOT = Path(__file__).parents[3]


def test_weights_are_measured_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(ReferenceConfig, "configs/reference/student.yaml", ["max_megabytes=1"])
    tokenizer = train_tokenizer(iter([[{"role": "user", "content": "one"}]]), config.vocabulary, config.context)
    monkeypatch.setattr(training, "_train_phase", lambda *_: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"^\d\.\d MB of weights, more than max_megabytes=1;"):
        training.train(config, corpus_spec(config), tokenizer)


def test_loss_weighs_the_option_letter_and_what_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(ReferenceConfig, "configs/reference/teacher.yaml", ["option_weight=7"])
    phase = config.phases[-1].model_copy(update={"copied_weight": 3.0})
    spec = corpus_spec(config)
    tokenizer = train_tokenizer(iter([[{"role": "user", "content": "one"}]]), config.vocabulary, config.context)
    chat: list[Message] = [
        {"role": "user", "content": "The patient is 74 years old. Severe atrophy."},
        {"role": "assistant", "content": "At 74, severe atrophy.\n\nDiagnosis: (A) noted"},
    ]
    example = training.encode(chat, tokenizer, training.emphasis(config.option_weight, phase, spec.task))
    said = [
        (str(tokenizer.decode([token])), weight)
        for token, target, weight in zip(*example, strict=True)
        if target != training.IGNORED
    ]
    by_weight = {weight: "".join(text for text, own in said if own == weight) for weight in (1.0, 3.0, 7.0)}
    assert by_weight[7.0] == "A"
    assert by_weight[3.0].replace(" ", "") == "74severe"
    assert "noted" in by_weight[1.0]
    user = tokenizer(chat[0]["content"] + END, add_special_tokens=False)["input_ids"]
    assert example.targets[: len(user) + 2] == [training.IGNORED] * (len(user) + 2), "nothing is learnt from a question"
